"""Code of the user's that a run calls: after steps and epochs, and at the end.

Callbacks see what happens and change nothing: a run with them has the same result to the last bit.
Of several ranks the first one calls them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.training.ending import Training

_NAMES = ("on_step", "on_epoch", "on_end")


@dataclass(frozen=True)
class Step:
    """What `Callback.on_step` is told.

    Attributes
    ----------
    number, steps : int
        How many steps are made, and how many there are in all.
    learning_rate : float
        Of this step.
    loss : torch.Tensor of shape () or None
        The mean loss of this rank's images, on the device: ``float(loss)`` waits for it. None for a
        step that updated weights.
    """

    number: int
    steps: int
    learning_rate: float
    loss: Tensor | None


class Callback:
    """What a run calls; other objects with one or more of these methods will do as well."""

    def on_step(self, step: Step) -> None:
        """After every step."""

    def on_epoch(self, record: dict[str, Any]) -> None:
        """After every epoch, with its line of `metrics.jsonl`; the checkpoint is written."""

    def on_end(self, training: Training) -> None:
        """After the final evaluation."""


class Callbacks:
    """The callbacks of a run.

    Parameters
    ----------
    given : sequence of objects
        Each with one or more of the methods of `Callback`.
    active : bool
        Whether this process calls them.

    Raises
    ------
    MixsolveTypeError
        An object without any of the methods.
    """

    def __init__(self, given: Sequence[Any], active: bool) -> None:
        if not isinstance(given, list | tuple):
            raise MixsolveTypeError(
                f"callbacks must be a list of objects; got {type(given).__name__}; write [callback]"
            )
        self._methods: dict[str, list[tuple[str, Callable[[Any], Any]]]] = {n: [] for n in _NAMES}
        for place, callback in enumerate(given):
            found = {name: getattr(callback, name, None) for name in _NAMES}
            if isinstance(callback, type) or not any(map(callable, found.values())):
                raise MixsolveTypeError(
                    f"callbacks[{place}] must be an object with a method {', '.join(_NAMES[:-1])} "
                    f"or {_NAMES[-1]}; got {callback!r}"
                )
            for name, method in found.items():
                if callable(method) and active:
                    called = f"callbacks[{place}].{name} ({type(callback).__name__})"
                    self._methods[name].append((called, method))

    @property
    def watch_steps(self) -> bool:
        """Whether any of them is called after steps."""
        return bool(self._methods["on_step"])

    def step(self, step: Step, kept: str) -> None:
        """Call after a step; `kept` says in an error where the run can be resumed."""
        self._call("on_step", step, kept)

    def epoch(self, record: dict[str, Any], kept: str) -> None:
        """Call after an epoch, with its record."""
        if self._methods["on_epoch"]:
            self._call("on_epoch", copy.deepcopy(record), kept)

    def end(self, training: Training) -> None:
        """Call after the final evaluation."""
        self._call("on_end", training, f"the run is complete, in {training.folder}")

    def _call(self, name: str, argument: Any, kept: str) -> None:
        for called, method in self._methods[name]:
            try:
                method(argument)
            except Exception as error:
                raise MixsolveError(
                    f"{called} raised {type(error).__name__}: {error}; mend it, or leave the "
                    f"callback out; {kept}"
                ) from error
