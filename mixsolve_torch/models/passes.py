"""Passes: on how many images networks were run, forward and backward.

Attacks of different kinds are compared by them, and the cost of an evaluation is told in them: they
depend neither on the device nor on how busy it is. They are counted where a member of a mixture is
called, `models.classifiers.run_member` and `attacks.members.Members.slope`. A classifier that is
made of others, such as an ensemble, counts as the runs of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor


@dataclass
class Passes:
    """Runs of one network on one image.

    Attributes
    ----------
    forward, backward : int
        Forward runs, and gradients taken with respect to an image.
    """

    forward: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        """All runs."""
        return self.forward + self.backward

    def differentiated(self, gradient: Tensor) -> None:
        """Count a backward run from the gradient (B, classes) of the logits."""
        self.backward += len(gradient)


_COUNTING: ContextVar[tuple[Passes, ...]] = ContextVar("counting", default=())


@contextmanager
def counted() -> Iterator[Passes]:
    """Count the passes inside the context; contexts may be nested, and each counts its own.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import Mixture
    >>> mixture = Mixture([torch.nn.Flatten(), torch.nn.Flatten()])
    >>> with counted() as passes:
    ...     _ = mixture(torch.rand(5, 1, 2, 2))
    >>> passes
    Passes(forward=10, backward=0)
    """
    passes = Passes()
    token = _COUNTING.set((*_COUNTING.get(), passes))
    try:
        yield passes
    finally:
        _COUNTING.reset(token)


def before_run() -> list[int]:
    """Return what `after_run` takes: the forward runs so far, one number a counter."""
    counting = _COUNTING.get()
    return [passes.forward for passes in counting] if counting else []


def after_run(before: list[int], logits: Tensor) -> None:
    """Count a run that gave logits (B, classes), unless networks inside of it were counted."""
    for passes, forward in zip(_COUNTING.get(), before, strict=True):
        if passes.forward == forward:
            passes.forward += len(logits)
            if logits.requires_grad:
                logits.register_hook(passes.differentiated)
