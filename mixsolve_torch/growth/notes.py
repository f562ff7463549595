"""What a growing mixture has come to, in a file: rounds that are done are not done again.

One checkpoint, written after each round, of everything the next round depends on: the classifiers
added, the weights, the candidates found on the held-out images, and the rounds so far. Beside them
stands a description of the call, so that a file is not gone on with by another one. A round that is
under way keeps its games in a folder beside the file, named after the call.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.candidates.build import CandidateLosses
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.runs.candidate_notes import differences
from mixsolve_torch.runs.fingerprint import digest
from mixsolve_torch.runs.lock import Lock


@dataclass(frozen=True)
class GrowRound:
    """One round of growing: a classifier was trained, and it paid or not.

    All figures are those of the held-out images.

    Attributes
    ----------
    number : int
        Counted from 1.
    added : bool
        Whether the classifier was added.
    before : float
        No weights of the classifiers before have a risk below this, against the candidates that
        were found on the old mixture and the new one.
    before_risk : float
        The risk of their optimal weights against the same candidates.
    after : float or None
        The risk of the new weights against the same candidates, fresh attacks on these weights
        among them. None where the reduced cost settled it.
    after_bound : float or None
        No weights with the new classifier have a risk below this.
    reduced_cost : float
        The new classifier's risk under the attacker's equilibrium strategy against the old
        mixture, less the value. The value cannot fall by more than what this is below 0.
    training_loss : float
        Mean loss of the last epoch, on the images trained on.
    candidates : int
        Columns of the tensor of the held-out images after the round.
    seconds : float
        What the round took.
    """

    number: int
    added: bool
    before: float
    before_risk: float
    after: float | None
    after_bound: float | None
    reduced_cost: float
    training_loss: float
    candidates: int
    seconds: float

    @property
    def gain(self) -> float:
        """How far the value falls for certain on the candidates found; 0 where none was needed."""
        return 0.0 if self.after is None else self.before - self.after


@dataclass
class Progress:
    """Where growing has come to.

    Attributes
    ----------
    losses : CandidateLosses
        The game of the held-out images, candidates included.
    weights : torch.Tensor of shape (L,), float64
        The last ones attacked.
    members : list of torch.nn.Module
        The classifiers added.
    history : list of GrowRound
        The rounds.
    """

    losses: CandidateLosses
    weights: Tensor
    members: list[nn.Module] = field(default_factory=list)
    history: list[GrowRound] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether a classifier did not pay."""
        return bool(self.history) and not self.history[-1].added


_NEEDED = (
    "settings",
    "members",
    "weights",
    "history",
    "values",
    "labels",
    "inputs",
    "names",
    "loss",
)


class NoNotes:
    """A call whose rounds are kept nowhere.

    Attributes
    ----------
    games : path or None
        A folder for what a round that is not finished has come to.
    """

    games: Path | None = None

    def save(self, progress: Progress) -> None:
        """Write what has been done."""

    def load(
        self, make: Callable[[int, Sequence[nn.Module]], nn.Module], device: torch.device
    ) -> Progress | None:
        """Read what was done before; None if nothing was."""
        return None

    def kept(self) -> str:
        """Say what is kept, and how to go on."""
        return "nothing is kept: give folder= to go on after an interruption"

    def close(self) -> None:
        """Let go of the folder."""


class GrowthNotes(NoNotes):
    """The file of one call.

    Parameters
    ----------
    folder : path
        Where it is, ``grow.pt``; made if it is missing.
    settings : object
        A description of the call (see `mixsolve_torch.runs.fingerprint.describe`).

    Raises
    ------
    MixsolveError
        A folder that cannot be used, or that another process is growing in.
    """

    def __init__(self, folder: Path, settings: Any) -> None:
        self._path = folder / "grow.pt"
        self._settings = json.dumps(settings, sort_keys=True)
        self._lock = Lock(
            folder / ".lock", f"folder {folder}", "wait for it to end, or give another folder"
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MixsolveError(f"folder {folder} could not be made: {error}") from error
        self._lock.acquire()
        self.games = folder / f"games-{digest(self._settings)[:12]}"
        try:
            self.games.mkdir(exist_ok=True)
        except OSError as error:
            self.close()
            raise MixsolveError(f"folder {folder} cannot be written to: {error}") from error

    def kept(self) -> str:
        """Say what is kept, and how to go on."""
        return (
            f"the rounds that ended, and what was found in the one after them, are kept in "
            f"{self._path.parent}: repeat the call to go on"
        )

    def close(self) -> None:
        """Let go of the folder; games of a round under way stay, if there are any."""
        if self.games is not None:
            with suppress(OSError):
                self.games.rmdir()
        self._lock.release()

    def save(self, progress: Progress) -> None:
        """Write what has been done, aside first; the games of the round are not needed any more."""
        losses = progress.losses
        checkpoint.save(
            {
                "settings": self._settings,
                "members": [dict(member.state_dict()) for member in progress.members],
                "weights": progress.weights,
                "history": [asdict(each) for each in progress.history],
                "values": losses.values,
                "labels": losses.labels,
                "inputs": losses.inputs,
                "names": list(losses.candidate_names),
                "loss": losses.loss,
            },
            self._path,
        )
        if self.games is not None:
            shutil.rmtree(self.games, ignore_errors=True)

    def load(
        self, make: Callable[[int, Sequence[nn.Module]], nn.Module], device: torch.device
    ) -> Progress | None:
        """Read what was done before; None if nothing was.

        Parameters
        ----------
        make : callable
            Makes the classifier of a round, given those added before.
        device : torch.device
            Where tensors go.
        """
        state = checkpoint.recover(self._path)
        if state is None:
            return None
        lacking = [name for name in _NEEDED if name not in state]
        if lacking:
            raise MixsolveError(
                f"{self._path} was written by another version of mixsolve, or not by grow: it "
                f"lacks {', '.join(lacking)}; go on with the version that began it, or give "
                "another folder"
            )
        if state.get("settings") != self._settings:
            known = json.loads(str(state.get("settings", "{}")))
            raise MixsolveError(
                f"{self._path} was begun with other classifiers, images, attacks or settings "
                f"({differences(known, json.loads(self._settings))}); repeat that call to go on "
                "with it, or give another folder"
            )
        members: list[nn.Module] = []
        for number, entries in enumerate(state["members"], 1):
            member = make(number, members)
            member.load_state_dict(entries)
            members.append(member.eval())
        losses = CandidateLosses(
            values=state["values"].to(device),
            labels=state["labels"].to(device),
            candidate_names=tuple(state["names"]),
            loss=state["loss"],
            inputs=state["inputs"].to(device),
        )
        history = [GrowRound(**each) for each in state["history"]]
        return Progress(losses, state["weights"].to(device), members, history)
