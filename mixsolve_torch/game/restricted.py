"""The restricted game of the double oracle method: the attacker has the candidates found so far.

Each run of the attacks adds at most one column: for each image its strongest candidate, where it
raises the risk of that image. Elsewhere the column repeats the clean image, which changes nothing
in the exact game and is masked in the entropic one.

Where the attacker also chooses the group, risk is that of the worst one. Images of groups that
cannot become the worst are then left alone: attacks go where the worst group is decided.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import mixsolve
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.solver.solution import Solution
from mixsolve_torch.candidates.build import CandidateLosses
from mixsolve_torch.core.groups import Groups

_ROUNDING = 1e-12  # expected losses that differ by less are equal


class RestrictedGame:
    """The game in which the attacker has the candidates found so far."""

    def __init__(
        self,
        losses: CandidateLosses,
        ceiling: Tensor | None = None,
        groups: Groups | None = None,
    ) -> None:
        self.losses = losses
        self._groups = groups
        values = losses.values
        self._ceiling = None if ceiling is None else ceiling.to(values.device)
        self.found = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.losses.candidate_names)

    def risk(self, weights: Tensor) -> float:
        """Return the risk of weights against all candidates, that of the worst group if chosen."""
        if self._groups is None:
            return self.losses.adversarial_risk(weights)
        return self._groups.risk(self.losses.worst(weights).cpu().numpy())

    def solve(self, alpha: Any, before: Any) -> Solution:
        """Solve the game; repeated candidates are masked, since they count where alpha > 0."""
        options: dict[str, Any] = {} if self._groups is None else {"groups": self._groups.index}
        return mixsolve.solve(
            self.losses, alpha, candidate_mask=self.found, warm_start=before, **options
        )

    def vulnerable(self, weights: Tensor) -> Tensor:
        """Return the images whose risk can still rise, of groups that can still be the worst.

        The risk of an image is at most the expectation of what each classifier can lose on it:
        1 of a 0/1 loss, or less where a ceiling says so.
        """
        worst = self.losses.worst(weights)
        most: Tensor | float = 1.0 if self.losses.loss == "zero-one" else torch.inf
        if self._ceiling is not None:
            reached = self.losses.values.amax(dim=1).to(torch.float64)
            most = torch.maximum(self._ceiling, reached) @ weights.to(worst)
        rises = worst < most - _ROUNDING
        if self._groups is not None:
            limits = torch.as_tensor(most).to(worst).expand_as(worst)
            deciding = self._groups.deciding(worst.cpu().numpy(), limits.cpu().numpy())
            rises &= torch.from_numpy(deciding).to(rises.device)
        return rises.nonzero().squeeze(1)

    def add(self, name: str, fresh: CandidateLosses, weights: Tensor, rows: Tensor) -> None:
        """Add the strongest new candidate of each image among `rows` whose risk it raises."""
        place, score = _strongest(fresh.values, weights)
        raised = score > self.losses.worst(weights)[rows] + _ROUNDING
        if raised.any():
            column, found = self.losses.values[:, 0].clone(), torch.zeros_like(self.found[:, :1])
            column[rows[raised]] = fresh.values[raised, place[raised]]
            found[rows[raised]] = True
            inputs = self.losses.inputs
            if inputs is not None:
                assert fresh.inputs is not None
                points, home = inputs[:, 0].clone(), inputs.device
                chosen = fresh.inputs[raised.to(home), place[raised].to(home)]
                points[rows[raised].to(home)] = chosen
                inputs = torch.cat([inputs, points[:, None]], dim=1)
            self.found = torch.cat([self.found, found], dim=1)
            self.losses = replace(
                self.losses,
                values=torch.cat([self.losses.values, column[:, None]], dim=1),
                candidate_names=(*self.losses.candidate_names, name),
                inputs=inputs,
            )


def _strongest(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image's candidate (N,) of the largest expected loss, and that loss.

    Of equally strong candidates the one of the largest sum of losses is taken: it will be the
    strongest for more weights.
    """
    lam = weights.to(values.device)
    place = torch.zeros(len(values), dtype=torch.int64, device=values.device)
    score, total = (values[:, 0].to(torch.float64) @ w for w in (lam, torch.ones_like(lam)))
    for j in range(1, values.shape[1]):
        column = values[:, j]
        own, own_total = (column.to(torch.float64) @ w for w in (lam, torch.ones_like(lam)))
        level = own >= score - _ROUNDING
        better = (own > score + _ROUNDING) | (level & (own_total > total))
        place[better] = j
        score, total = torch.where(better, own, score), torch.where(better, own_total, total)
    return place, score


def check_start(start: object, clean: CandidateLosses) -> CandidateLosses:
    """Return candidates to begin with, on the device of the losses, if they belong to this game."""
    if not isinstance(start, CandidateLosses):
        raise MixsolveTypeError(
            f"start must be a CandidateLosses; got {type(start).__name__}; or give the path "
            "of a game's folder"
        )
    values, expected = start.values.to(clean.values.device), clean.values
    if start.loss != clean.loss or values.dtype != expected.dtype:
        raise MixsolveError(
            f"start must hold losses {clean.loss!r} in {expected.dtype}; "
            f"got {start.loss!r} in {values.dtype}"
        )
    if values.ndim != 3 or values[:, 0].shape != expected[:, 0].shape:
        raise MixsolveError(
            f"start must hold the {len(expected)} images and {expected.shape[2]} classifiers of "
            f"this game; its values have shape {tuple(values.shape)}"
        )
    labels = start.labels.to(clean.labels.device)
    if not torch.equal(labels, clean.labels) or not torch.allclose(values[:, 0], expected[:, 0]):
        raise MixsolveError(
            "start must hold the images of this game in their order, the clean image first; its "
            "labels or the losses of its first candidates are others"
        )
    inputs = None
    if clean.inputs is not None:
        if start.inputs is None:
            raise MixsolveError(
                "start must hold the candidates themselves for keep_inputs; build it with "
                "keep_inputs=True"
            )
        inputs = start.inputs.to(clean.inputs.device)
    return replace(start, values=values, labels=labels, inputs=inputs)
