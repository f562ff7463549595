"""The folder of a growing mixture: finished rounds are not repeated.

    grow.pt     written after each round: all that the next round depends on
    games-*/    the games of the round under way

The checkpoint holds the classifiers added, the weights, the candidates found on the held-out
images, the rounds so far, and the settings of the call, without which it is not resumed. The
folder of the games is named after these settings.
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

from mixsolve_torch.candidates.build import CandidateLosses
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.runs.fingerprint import short_digest
from mixsolve_torch.runs.manifest import check_settings
from mixsolve_torch.runs.resumable import ResumableFolder


@dataclass(frozen=True)
class GrowRound:
    """One round of growing: a classifier was trained, and added or not.

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
        among them. None where the reduced cost sufficed to decide.
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
        """How far the value falls for certain on the candidates found; 0 without attacks."""
        return 0.0 if self.after is None else self.before - self.after


@dataclass
class Progress:
    """The state of growing between two rounds.

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


_ENTRIES = (
    *("settings", "members", "weights", "history"),
    *("values", "labels", "inputs", "names", "loss"),
)


class GrowthFolder(ResumableFolder):
    """The folder of one call, or none: all is in memory then.

    Parameters
    ----------
    path : path or None
        The folder; made if it is missing. None for memory.
    settings : object
        A description of the call (see `mixsolve_torch.runs.fingerprint.describe`).

    Attributes
    ----------
    games : path or None
        A folder for the games of the round under way.
    """

    def __init__(self, path: Path | None, settings: Any) -> None:
        super().__init__("folder", path)
        self._settings = settings
        self.games = self.file(f"games-{short_digest(settings)}")
        if self.games is not None:
            try:
                with self.writing():
                    self.games.mkdir(exist_ok=True)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Release the lock; games of a round under way stay, if there are any."""
        if self.games is not None:
            with suppress(OSError):
                self.games.rmdir()
        super().close()

    def save(self, progress: Progress) -> None:
        """Write the rounds so far; the games of the last one are not needed any more."""
        if self.path is None or self.games is None:
            return
        losses = progress.losses
        checkpoint.save(
            {
                "settings": json.dumps(self._settings, sort_keys=True),
                "members": [dict(member.state_dict()) for member in progress.members],
                "weights": progress.weights,
                "history": [asdict(each) for each in progress.history],
                "values": losses.values,
                "labels": losses.labels,
                "inputs": losses.inputs,
                "names": list(losses.candidate_names),
                "loss": losses.loss,
            },
            self.path / "grow.pt",
        )
        shutil.rmtree(self.games, ignore_errors=True)

    def load(
        self, make: Callable[[int, Sequence[nn.Module]], nn.Module], device: torch.device
    ) -> Progress | None:
        """Read the rounds so far, to a device; None if there are none.

        `make` returns the classifier of a round, given those added before.
        """
        if self.path is None:
            return None
        path = self.path / "grow.pt"
        state = checkpoint.recover(path)
        if state is None:
            return None
        checkpoint.check_complete(state, path, _ENTRIES, "grow")
        check_settings(
            str(path),
            json.loads(state["settings"]),
            self._settings,
            "repeat that call to resume it, or give another folder",
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
