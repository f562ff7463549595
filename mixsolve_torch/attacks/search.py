"""What all searching attacks share: starts, passes that fit the memory, and the best point kept.

A search visits points x_0 (the start), x_1, ..., x_T of the ball, and every one of them is judged
by the exact expected 0/1 loss, ties by the loss that is ascended. The best one over all points and
restarts is the attack: it is never worse than the start or the last point. A subclass writes
`visit`, which yields the points; it runs on rows, each an image with a start of its own, so that
images and restarts are one batch.

Memory: rows are searched in passes of at most `images_per_pass`. All starts are drawn before the
first pass, restart by restart, so that the draws do not depend on the passes. A pass that does not
fit into the device's memory is halved and run again.
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from mixsolve.base.arguments import as_count, check_flags
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.masking import LOGITS, GradientSigns
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.attacks.objective import Objective, Score, keep_better
from mixsolve_torch.core.losses import LossFunction
from mixsolve_torch.core.mixture import Mixture

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GradientAttack(Attack):
    """The options of the attacks that follow gradients of the classifiers.

    Parameters
    ----------
    norm, eps, name
        The options of `Attack`.
    steps : int, default 20
        Steps of each restart.
    restarts : int, default 1
        Searches from different starts.
    random_start : bool, default True
        Start uniformly in the ball; otherwise at the image itself, which allows one restart only.
    weights : array-like of shape (L,), optional
        Attack this mixture of the same classifiers instead of the mixture's own weights.
    images_per_pass : int, default 2048
        Images, counted once for each restart, in one forward pass. It changes the memory taken and
        not the draws; it is halved when a pass runs out of the device's memory.
    autocast : bool, default False
        Search in bfloat16 where PyTorch's autocast deems it safe. The start, the best and the last
        point are then judged again in the classifiers' own precision, and the best of them by that
        judgement is returned.
    compile : bool, default False
        Run the classifiers through `torch.compile`.
    """

    _: KW_ONLY
    steps: int = 20
    restarts: int = 1
    random_start: bool = True
    weights: Any = None
    images_per_pass: int = 2048
    autocast: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        for field in fields(self):
            if field.type == "bool":
                check_flags(**{field.name: getattr(self, field.name)})
        as_count("steps", self.steps)
        as_count("restarts", self.restarts)
        as_count("images_per_pass", self.images_per_pass)
        if not self.random_start and self.restarts > 1:
            raise MixsolveError(
                f"restarts must be 1 without a random start; got {self.restarts}: "
                "all of them would be the same"
            )

    def part_options(self, **changed: Any) -> dict[str, Any]:
        """Return the options of `GradientAttack` for an attack that is part of this one."""
        own = {field.name: getattr(self, field.name) for field in fields(GradientAttack)}
        return {**own, "name": None, **changed}


@dataclass(frozen=True)
class SearchAttack(GradientAttack):
    """Base class of the attacks that search the ball step by step.

    Parameters
    ----------
    keep_restarts : bool, default False
        Return the best point of every restart as a candidate of its own, not only the best of all.
    **options
        Those of `GradientAttack`, norm, eps and name included.
    """

    _: KW_ONLY
    keep_restarts: bool = False

    kind: ClassVar[str] = "search"

    @abc.abstractmethod
    def visit(
        self, objective: Objective, start: Tensor, center: Tensor, y: Tensor
    ) -> Iterator[tuple[Tensor, Score]]:
        """Yield the points visited and their scores: `start` first, then one for each step.

        Parameters
        ----------
        objective : Objective
            What is ascended; ``objective.members`` are the classifiers.
        start, center : torch.Tensor of shape (B, C, H, W)
            The starts, in the ball, and the images at its center.
        y : torch.Tensor of shape (B,), int64
            True classes.
        """

    def strongest(
        self, objective: Objective, start: Tensor, center: Tensor, y: Tensor
    ) -> tuple[Tensor, Score, Tensor]:
        """Return the best point that `visit` yields, its score, and the last point."""
        best, best_score, last = start, None, start
        for last, score in self.visit(objective, start, center, y):
            best, best_score = keep_better(best, best_score, last, score)
        assert best_score is not None
        return best, best_score, last

    def aims(self) -> list[SearchAttack]:
        """Return the attacks that this one does in one batch, a restart of each in turn."""
        return [self]

    def aim(self, objective: Objective, center: Tensor, y: Tensor, restarts: Tensor) -> Objective:
        """Return what is ascended on rows of images `center` that are of these restarts (B,)."""
        return objective

    def ascended(self) -> str | LossFunction:
        """Return the loss whose expectation is ascended, or that at least breaks ties."""
        return "cross-entropy"

    def followed(self) -> str:
        """Return the name of what gradients are taken of."""
        return LOGITS

    def visits(self) -> int:
        """Return how many points `visit` yields."""
        return self.steps + 1

    def names(self, classifiers: int) -> list[str]:
        """Return one name, or one for each restart that is kept."""
        if not self.keep_restarts:
            return [self.label(self.kind)]
        return [f"{self.label(self.kind)} #{restart + 1}" for restart in range(self.restarts)]

    def trajectory_names(self, classifiers: int) -> list[str]:
        """Return the names of all points visited, step by step."""
        label = self.label(self.kind)
        return [
            f"{label} #{restart + 1} step {visit}" if self.restarts > 1 else f"{label} step {visit}"
            for visit in range(self.visits())
            for restart in range(self.restarts)
        ]

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the best point, or that of each restart."""
        points, scores = self.search(mixture, self.starts(x, generator), x, y)
        if self.keep_restarts:
            yield from points
            return
        best, best_score = points[0], scores[0]
        for point, score in zip(points[1:], scores[1:], strict=True):
            best, best_score = keep_better(best, best_score, point, score)
        yield best

    def trajectory(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield all points visited, step by step and within a step restart by restart."""
        objective, _ = self._objectives(mixture, y)
        start = self.starts(x, generator)
        # All passes go forward together; only one network's graph on one pass exists at a time.
        together = []
        for rows in passes(len(start), self.images_per_pass):
            center, labels, restarts = _rows(x, y, rows)
            aimed = self.aim(objective, center, labels, restarts)
            together.append(self.visit(aimed, start[rows], center, labels))
        for visited in zip(*together, strict=True):
            yield from torch.cat([point for point, _ in visited]).split(len(x))
        objective.members.check(self.followed())

    def starts(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the starts (restarts B, C, H, W) of a batch, one restart after another."""
        if not self.random_start:
            return x
        ball = self.ball
        draws = [ball.random_start(x, generator) for _ in range(self.restarts)]
        return torch.cat(draws) if self.restarts > 1 else draws[0]

    def search(
        self,
        mixture: Mixture,
        start: Tensor,
        x: Tensor,
        y: Tensor,
        *,
        signs: dict[int, GradientSigns] | None = None,
    ) -> tuple[list[Tensor], list[Score]]:
        """Return the best point (B, C, H, W) of each restart, and its score.

        Parameters
        ----------
        start : torch.Tensor of shape (R B, C, H, W)
            The starts of R searches for each image, in the order of `starts`.
        signs : dict of int to GradientSigns, optional
            Where signs of gradient masking are counted, by the classifiers' numbers, instead of
            being warned of.
        """
        objective, exact = self._objectives(mixture, y)
        points: list[Tensor] = []
        scores: list[Score] = []
        limit, waiting = self.images_per_pass, list(passes(len(start), self.images_per_pass))
        while waiting:
            rows = waiting.pop(0)
            try:
                point, score = self._best(objective, exact, start[rows], *_rows(x, y, rows))
            except torch.cuda.OutOfMemoryError:
                length = rows.stop - rows.start
                if length == 1:
                    raise
                limit = -(-length // 2)
            else:
                points.append(point)
                scores.append(score)
                continue
            # Outside the handler, whose exception holds on to the tensors of the pass that failed.
            torch.cuda.empty_cache()
            logger.warning(
                "out of memory with %d images in a pass; going on with %d", length, limit
            )
            waiting = [
                slice(rows.start + part.start, rows.start + part.stop)
                for part in passes(len(start) - rows.start, limit)
            ]
        for members in {id(o.members): o.members for o in (objective, exact)}.values():
            if signs is None:
                members.check(self.followed())
                continue
            for k, own in members.signs().items():
                signs[k].add(own)
        best = torch.cat(points).split(len(x))
        judged = [torch.cat(part).split(len(x)) for part in zip(*scores, strict=True)]
        return list(best), [Score(*part) for part in zip(*judged, strict=True)]

    def _objectives(self, mixture: Mixture, y: Tensor) -> tuple[Objective, Objective]:
        """Return what the search ascends and what judges its result: two under autocast."""
        members = Members(mixture, y, self.weights, compile=self.compile)
        exact = Objective(members, self.ascended())
        if not self.autocast:
            return exact, exact
        fast = Members(mixture, y, self.weights, autocast=True, compile=self.compile)
        return Objective(fast, self.ascended()), exact

    def _best(
        self,
        objective: Objective,
        exact: Objective,
        start: Tensor,
        center: Tensor,
        y: Tensor,
        restarts: Tensor,
    ) -> tuple[Tensor, Score]:
        objective = self.aim(objective, center, y, restarts)
        best, best_score, last = self.strongest(objective, start, center, y)
        if not self.autocast:
            return best, best_score
        kept, kept_score = best, exact.score(best, y)
        for point in (start, last):
            kept, kept_score = keep_better(kept, kept_score, point, exact.score(point, y))
        return kept, kept_score


def passes(rows: int, limit: int) -> Iterator[slice]:
    """Yield slices of at most `limit` rows and of nearly the same length."""
    count = -(-rows // limit)
    for part in range(count):
        yield slice(part * rows // count, (part + 1) * rows // count)


def _rows(x: Tensor, y: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, labels and restarts of rows that count the batch once for each restart."""
    numbers = torch.arange(rows.start, rows.stop, device=x.device)
    restarts = numbers // len(x)
    if rows.stop <= len(x):
        return x[rows], y[rows], restarts
    chosen = numbers % len(x)
    return x[chosen], y[chosen], restarts
