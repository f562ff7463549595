"""One batch of images verified: the margins of each classifier, then sets of classifiers.

1  intervals and CROWN bound each margin f_k(x')_y - f_k(x')_c from below over the region;
2  classifiers alone, then pairs, triples and so on, are tested for common errors (`sets`);
3  with time for it, branch and bound decides what the bounds leave open (`branching`).
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.ball import Ball
from mixsolve_torch.core.losses import zero_one
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.verification.branching import excluded
from mixsolve_torch.verification.crown import Bounds, bounds_over
from mixsolve_torch.verification.program import Program
from mixsolve_torch.verification.region import Region
from mixsolve_torch.verification.sets import Choice, Sets, joint_minima

_ENTRIES = 1 << 22  # of the slopes of choices that are tested at once


class Verified(NamedTuple):
    """What is known of one image, or of each of several.

    Attributes
    ----------
    possible : ndarray of shape (m, L), uint8
        The maximal sets of classifiers not proven never to err together.
    fooled : ndarray of shape (r, L), uint8
        Maximal sets known to err together: at the image itself, or at a point found by branching.
    alone : ndarray of shape (L,), uint8
        1 for classifiers not proven right on the whole region by bounds of their own.
    """

    possible: np.ndarray
    fooled: np.ndarray
    alone: np.ndarray


class BatchVerifier:
    """Verifies batches of images of one mixture, which is frozen meanwhile.

    Parameters
    ----------
    mixture : Mixture
        The classifiers.
    x : torch.Tensor of shape (B, C, H, W)
        Images of the kind that is to come, to trace the classifiers with.
    ball : Ball
        The attacker's.
    slope_steps : int
        Steps of ascent over the slopes of CROWN.
    exact_seconds : float
        Time of branch and bound, for each image.
    """

    def __init__(
        self, mixture: Mixture, x: Tensor, ball: Ball, slope_steps: int, exact_seconds: float
    ) -> None:
        self._mixture, self._ball = mixture, ball
        self._steps, self._seconds = slope_steps, exact_seconds
        self._programs = [
            Program(model, f"models[{k}]", x) for k, model in enumerate(mixture.models)
        ]

    def __call__(self, x: Tensor, y: Tensor) -> list[Verified]:
        """Return what is known of each image of a batch."""
        count = len(self._programs)
        errors = self._errors(x, y)
        fooled = [[own] if own else [] for own in errors]
        bounds, margins, found = [], [], []
        region = Region.around(x, self._ball)
        for k, program in enumerate(self._programs):
            self._check(k, program, x)
            bounds.append(bounds_over(program, region))
            owner, rows = _margins(bounds[k], y)
            lines = bounds[k].lines(len(program.steps) - 1, rows, owner, steps=self._steps)
            left = lines.minima <= 0
            margins.append(rows[left])
            found.append((owner[left], lines.slopes[left], lines.offsets[left]))
        owner, slopes, offsets = (torch.cat(part) for part in zip(*found, strict=True))
        rows = torch.cat([part.to(torch.float64) for part in margins])
        member = np.repeat(np.arange(count), [len(part) for part in margins])
        sets = Sets(owner.cpu().numpy(), member, fooled)
        alone = np.zeros((len(x), count), np.uint8)
        alone[owner.cpu().numpy(), member] = 1
        seconds = [self._seconds] * len(x)

        def decided(image: int, choice: Choice) -> bool:
            """Return whether branch and bound excludes a choice."""
            members = [int(member[t]) for t in choice]
            if seconds[image] <= 0 or sets.is_fooled(image, members):
                return False

            def fool(points: Tensor) -> bool:
                inputs = points.view(-1, *x.shape[1:]).to(x.dtype)
                center = x[image].expand_as(inputs)
                erring = self._errors(
                    self._ball.project(inputs, center), y[image].repeat(len(inputs))
                )
                best = [own for own in erring if own.issuperset(members)]
                sets.fooled[image] += best[:1]
                return bool(best)

            began = time.monotonic()
            own = {k: bounds[k].select(torch.tensor([image], device=x.device)) for k in members}
            directions = {int(member[t]): rows[t].to(own[int(member[t])].home) for t in choice}
            directions = {k: row.to(self._programs[k].dtype) for k, row in directions.items()}
            proven = excluded(own, directions, fool, began + seconds[image])
            seconds[image] -= time.monotonic() - began
            return proven

        def possible(asked: list[tuple[int, Choice]]) -> list[bool]:
            at = torch.tensor([choice for _, choice in asked], device=x.device)
            places = torch.tensor([image for image, _ in asked], device=x.device)
            most = max(1, _ENTRIES // (at.shape[1] * slopes.shape[1]))
            minima = [
                joint_minima(region, slopes[some], offsets[some], own)[0]
                for some, own in zip(at.split(most), places.split(most), strict=True)
            ]
            left = (torch.cat(minima) <= 0).tolist()
            return [keep and not decided(*key) for keep, key in zip(left, asked, strict=True)]

        for size in range(1, count + 1):
            sets.grow(size, possible)
        return [
            Verified(sets.rows(i, count), sets.fooled_rows(i, count), alone[i])
            for i in range(len(x))
        ]

    @torch.no_grad()
    def _errors(self, x: Tensor, y: Tensor) -> list[frozenset[int]]:
        """Return the classifiers that err on each image."""
        wrong = zero_one(self._mixture.member_logits(x), y).bool().T
        return [frozenset(own.nonzero()[:, 0].tolist()) for own in wrong.cpu()]

    @torch.no_grad()
    def _check(self, k: int, program: Program, x: Tensor) -> None:
        """Refuse a program that does not compute what its classifier does."""
        expected, found = self._mixture.member_logits(x, [k])[0], program(x)
        unit = torch.finfo(program.dtype).eps
        if not torch.allclose(found.to(expected), expected, rtol=unit**0.5, atol=unit**0.5):
            raise MixsolveError(
                f"models[{k}] cannot be verified: torch.fx traced a program of other logits; it "
                "writes into tensors that it reads again, or treats images of a batch together"
            )


def _margins(bounds: Bounds, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the margins (R, classes) that intervals leave open, and the images they belong to."""
    low, high = bounds.logits_low, bounds.logits_high
    own = low.gather(1, y[:, None])
    left = (own <= high).scatter(1, y[:, None], False)
    owner, rival = left.nonzero(as_tuple=True)
    each = torch.eye(low.shape[1], dtype=low.dtype, device=low.device)
    return owner, each[y[owner]] - each[rival]
