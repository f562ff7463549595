"""The result of a game: its rounds, and weights with bounds of their risk."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from mixsolve import plots
from mixsolve.arrays.compared import Compared
from mixsolve.arrays.result_file import Kept
from mixsolve.base.plain import plain
from mixsolve.solver.solution import Solution
from mixsolve.solver.view import title, weight_bars, weights_line
from mixsolve_torch.candidates.build import CandidateLosses

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class GameRound(Compared):
    """One round of the game: weights, and their risk under attack.

    Attributes
    ----------
    number : int
        Counted from 1; 0 is the mixture as it was given.
    weights : torch.Tensor of shape (L,), float64
        The weights that were attacked.
    value : float
        Their risk against the candidates before the attacks.
    risk : float
        Their risk against those and the ones that the attacks of the round found.
    attacks : int
        How often the attacks were run, each time with other draws.
    candidates : int
        Columns of the tensor after the round.
    seconds : float
        Duration of the round, in the call that finished it. Not part of what is compared.
    """

    number: int
    weights: Tensor
    value: float
    risk: float
    attacks: int
    candidates: int
    seconds: float = field(compare=False)


@dataclass(frozen=True, eq=False, repr=False)
class GameSolution(Kept):
    """Weights, and a lower and an upper end of their risk.

    Two are equal where all fields are but seconds. A file holds the losses of all candidates, and
    the candidates where they were kept.

    Attributes
    ----------
    weights : torch.Tensor of shape (L,), float64
        Probability of each classifier: those of the last attacks, or, if the game did not converge,
        those of the lowest `risk` among all that were attacked.
    value : float
        Lower end: the risk of the last solution's weights against the candidates it was found from.
        With alpha = 0 no weights have a lower risk, up to ``solution.gap``; with alpha > 0 that
        holds for ``solution.risk_lower_bound``.
    risk : float
        Upper end, for these attacks: the risk of `weights` against all candidates of all rounds,
        those of the last attacks on these weights among them.
    history : tuple of GameRound
        The rounds.
    losses : CandidateLosses
        The tensor of all candidates: those to begin with, then one column for each run of the
        attacks that raised the risk of an image. In it, the other images repeat their clean one.
    found : torch.Tensor of shape (N, m), bool
        Where a candidate is not such a repetition: the `candidate_mask` for alpha > 0.
    solution : Solution
        The last solve, with its certificate. Its weights are `weights` if the game converged.
    converged : bool
        Whether ``risk - value <= tol`` after `confirmations` runs.
    message : str
        How the game ended, in words.
    passes : int
        Forward and backward runs of one classifier on one image that the attacks took.
    """

    _parts: ClassVar = (CandidateLosses, GameRound, Solution, *Solution._parts)

    weights: Tensor
    value: float
    risk: float
    history: tuple[GameRound, ...]
    losses: CandidateLosses
    found: Tensor
    solution: Solution
    converged: bool
    message: str
    passes: int = 0

    @property
    def names(self) -> tuple[str, ...] | None:
        """What the classifiers are called, where they have names."""
        return self.solution.names

    @property
    def named_weights(self) -> dict[Hashable, float]:
        """Probability of each classifier by its name, by its place where there are no names."""
        weights = self.weights.tolist()
        names = range(len(weights)) if self.names is None else self.names
        return dict(zip(names, weights, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the losses as numbers, words, lists and dictionaries of Python.

        Returns
        -------
        dict
        """
        told = {name: getattr(self, name) for name in ("value", "risk", "converged", "message")}
        return plain(
            told
            | {
                "weights": self.weights.tolist(),
                "names": self.names,
                "named_weights": self.named_weights,
                "passes": self.passes,
                "candidates": self.losses.candidate_names,
                "history": [
                    vars(each) | {"weights": each.weights.tolist()} for each in self.history
                ],
                "solution": self.solution.to_dict(),
            }
        )

    def plot(self) -> Figure:
        """Draw the weights, and the lower and the upper end of the risk by rounds.

        Returns
        -------
        matplotlib.figure.Figure
            To be written with ``mixsolve.plots.save``.

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed.
        """
        weights = self.weights.tolist()
        named = [(title(self.names, k), weight) for k, weight in enumerate(weights)]
        rounds = [(each.number, each.value, each.risk) for each in self.history]
        return plots.game_picture(named, rounds)

    def __repr__(self) -> str:
        told = self._told() | {"weights": weights_line(self.weights.cpu().numpy(), self.names)}
        width = max(map(len, told))
        lines = [f"{type(self).__name__}: {self.message}"]
        return "\n".join([*lines, *(f"  {name:<{width}}  {text}" for name, text in told.items())])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = "".join(
            f"<tr><th style='text-align: left'>{escape(name)}</th>"
            f"<td style='text-align: left'>{escape(text)}</td></tr>"
            for name, text in self._told().items()
        )
        bars = weight_bars(self.weights.cpu().numpy(), self.names)
        head = escape(f"{type(self).__name__}: {self.message}")
        return f"<div><strong>{head}</strong><table>{rows}</table>{bars}</div>"

    def _told(self) -> dict[str, str]:
        """The figures in words, by what they are called."""
        images, candidates, _ = self.losses.values.shape
        return {
            "value": f"{self.value:.9g} against {candidates} candidates of {images} images",
            "risk": f"{self.risk:.9g} under fresh attacks",
            "rounds": f"{len(self.history)}",
            "passes": f"{self.passes:,}",
        }

    @classmethod
    def _restored(cls, entries: dict[str, Any]) -> Self:
        """The game of these fields, its arrays as tensors."""
        losses = entries["losses"]
        tensors = {
            name: torch.from_numpy(value)
            for name, value in vars(losses).items()
            if isinstance(value, np.ndarray)
        }
        rounds = (
            replace(each, weights=torch.from_numpy(each.weights)) for each in entries["history"]
        )
        return super()._restored(
            entries
            | {
                "weights": torch.from_numpy(entries["weights"]),
                "found": torch.from_numpy(entries["found"]),
                "losses": replace(losses, **tensors),
                "history": tuple(rounds),
            }
        )
