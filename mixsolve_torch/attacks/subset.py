"""Subset: grow, image by image, the set of classifiers that one point fools at once.

The risk of a point is the weight of the set it fools, so an attack is a search over sets, ordered
by inclusion: a lattice to be climbed. Every classifier is replaced by the half-space beyond its
nearest boundary (see `attacks.boundary`); a set can then be fooled if its half-spaces meet the ball
(see `attacks.halfspaces`), which needs no run of a network. A step

1. climbs in this model along several orders of the classifiers at once: a classifier joins the set
   if the larger set can still be fooled, and is skipped otherwise. The first order starts from
   the set that the best point fools, the second from nothing with the heaviest first, each of the
   others with another classifier, followed by the rest at random, heavier ones rather earlier;
2. moves to a point of the heaviest set found, as deep in its half-spaces as the ball allows; or,
   where the model has nothing better than the best point, towards the point that is nearest to
   fooling a heavier set: the model is of first order, and may allow more from there;
3. runs the classifiers there: their errors are the result, and their gradients the next model.

Orders that skip a classifier of the present set lead the search from one maximal set to another.
After some steps without gain it returns to the model at the best point and aims at another
classifier.

The climb starts from the best point of ARC from the same start, and the best point of both is
kept: it is never worse than ARC. A step of n classifiers costs n forward and n `rivals` backward
passes, and in the model ``(n + 4) orders`` searches for a point of a set, of at most 20 Newton
steps each.

References
----------
Gnecco Heredia, Pydi, Meunier, Negrevergne, Chevaleyre. On the Role of Randomization in
Adversarially Robust Classification. NeurIPS 2023.
Dbouk, Shanbhag. Adversarial Vulnerability of Randomized Ensembles. ICML 2022.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mixsolve.base.arguments import as_count
from mixsolve_torch.attacks.arc import ARC
from mixsolve_torch.attacks.boundary import nearest_boundary
from mixsolve_torch.attacks.halfspaces import HalfSpaces, half_spaces
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.attacks.objective import Objective, Score, keep_better
from mixsolve_torch.attacks.search import SearchAttack

# Depths in the half-spaces, as shares of the largest possible in the ball: the first is required of
# every set, the others are tried for the set that was found.
_DEPTHS = (1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3)

# The share of the aim that may be lacking of a set that counts as fooled.
_SHORT = 0.9

# Newton steps in the dual for each attempt to join; they start from the set before.
_ITERATIONS = 20

# Steps without gain after which the climb returns to the best point, and the factor that shortens
# each of these steps.
_PATIENCE = 5
_DAMPING = 0.75

# Each failed attempt at a classifier adds this multiple of the required depth to its distance.
_AGAIN = 1 / _DEPTHS[0]


@dataclass(frozen=True)
class Subset(SearchAttack):
    """Climb the lattice of sets of classifiers that one point fools.

    Parameters
    ----------
    steps : int, default 20
        Steps of the climb of each restart.
    arc_steps : int, optional
        Steps of ARC before it, as many as `steps` by default; 0 climbs from the start itself.
    orders : int, default 4
        Orders of the classifiers that are tried in each step.
    rivals : int, default 3
        Classes other than the true one whose boundaries are tried, those of the largest logits.
    **options
        Those of `SearchAttack`, norm, eps and name included.
    """

    _: KW_ONLY
    arc_steps: int | None = None
    orders: int = 4
    rivals: int = 3

    kind: ClassVar[str] = "subset"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.arc_steps is not None:
            as_count("arc_steps", self.arc_steps, minimum=0)
        as_count("orders", self.orders)
        as_count("rivals", self.rivals)

    @property
    def _arc_steps(self) -> int:
        return self.steps if self.arc_steps is None else self.arc_steps

    def visits(self) -> int:
        """Return how many points `visit` yields."""
        return 1 + self._arc_steps + self.steps

    def visit(
        self, objective: Objective, start: Tensor, center: Tensor, y: Tensor
    ) -> Iterator[tuple[Tensor, Score]]:
        """Yield the points of ARC and of the climb, and their scores."""
        point, score = start, None
        if self._arc_steps:
            arc = ARC(self.norm, self.eps, steps=self._arc_steps, rivals=self.rivals)
            for visited, judged in arc.visit(objective, start, center, y):
                yield visited, judged
                point, score = keep_better(point, score, visited, judged)
        members = objective.members
        best, best_score, model, wrong = self._look(objective, point, center, y)
        if not self._arc_steps:
            yield best, best_score
        best_model, best_wrong = model, wrong
        stalled = torch.zeros_like(y)
        tried = torch.zeros(len(members), len(y), dtype=torch.int64, device=y.device)
        for orders in self._orders(members):
            state = _SearchState(model, best_wrong, best_score.errors, stalled, tried)
            point, aimed = self._climb(members, state, orders, center)
            point, score, model, wrong = self._look(objective, point, center, y)
            yield point, score
            gained = score.errors > best_score.errors
            better = score.beats(best_score)
            best_model = model.where(better, best_model)
            best_wrong = torch.where(better, wrong, best_wrong)
            best, best_score = keep_better(best, best_score, point, score)
            stalled = torch.where(gained, 0, stalled + 1)
            back = stalled >= _PATIENCE
            model = best_model.where(back, model)
            stalled = torch.where(back, 0, stalled)
            tried = torch.where(gained, 0, tried.scatter_add(0, aimed[None], back.long()[None]))

    def _look(
        self, objective: Objective, point: Tensor, center: Tensor, y: Tensor
    ) -> tuple[Tensor, Score, HalfSpaces, Tensor]:
        """Return the point, its score, the model at the point, and a mask (n, B) of who errs."""
        ball, members = self.ball, objective.members
        near = [
            nearest_boundary(members, i, point, y, ball, self.rivals) for i in range(len(members))
        ]
        model = half_spaces(
            point,
            torch.stack([own.gap for own in near]),
            torch.stack([own.gradient for own in near]),
            self.eps * torch.stack([ball.growth(own.gradient, center) for own in near]),
        )
        score = objective.judge([own.logits for own in near], y)
        return point, score, model, torch.stack([own.wrong for own in near])

    def _orders(self, members: Members) -> Iterator[list[list[int]]]:
        """Yield the orders of each step; they are the same for all images and passes."""
        n = len(members)
        draws = torch.Generator().manual_seed(0)
        log_weights = torch.tensor(members.weights, dtype=torch.float64).log()
        by_weight = log_weights.argsort(descending=True, stable=True).tolist()
        count = self.orders if n > 1 else min(self.orders, 2)
        for step in range(self.steps):
            orders = [by_weight] * min(count, 2)
            for q in range(count - 2):
                # Exponential races: heavier classifiers tend to come earlier.
                rank = log_weights - torch.empty(n).double().exponential_(generator=draws).log()
                rank[(step * (count - 2) + q) % n] = torch.inf
                orders.append(rank.argsort(descending=True).tolist())
            yield orders

    def _climb(
        self, members: Members, state: _SearchState, orders: list[list[int]], center: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return where to look next, (B, C, H, W), and which classifier (B,) it aims at."""
        model, count = state.model, len(orders)
        shape = (count, *model.distances.shape)
        here = model.origin.expand(count, *model.origin.shape)
        # The first order moves as little as it can, the others stay near the center, where there
        # is the most room.
        origins = torch.cat([here[:1], center.expand_as(here[1:])])
        points, aim = here, _DEPTHS[0] * model.reach.expand(shape)
        dual = torch.zeros(shape, dtype=torch.float64, device=here.device)
        sets = torch.zeros(shape, dtype=torch.bool, device=here.device)
        sets[0] = state.wrong
        promise = depth = torch.zeros(shape[::2], dtype=torch.float64, device=here.device)
        least = torch.full_like(promise[0], torch.inf)
        nearest, aimed = model.origin, torch.zeros_like(state.stalled)

        for join in zip(*orders, strict=True):
            trial = sets.clone()
            for q, i in enumerate(join):
                trial[q, i] = True
            ahead, raised, short = self._meet(model, trial, aim, dual, origins, center)
            fits = short <= _SHORT
            promising = ~fits & (members.expected(trial.transpose(0, 1)) > state.errors)
            sets = torch.where(fits[:, None], trial, sets)
            dual = torch.where(fits[:, None], raised, dual)
            points = torch.where(_images(fits), ahead, points)
            for q, i in enumerate(join):
                far = torch.where(promising[q], short[q] + _AGAIN * state.tried[i], torch.inf)
                aimed = torch.where(far < least, i, aimed)
                nearest = torch.where(_images(far < least), ahead[q], nearest)
                least = torch.minimum(far, least)
        # All depths are one batch: an iteration costs little more for several problems.
        more = len(_DEPTHS) - 1
        aims = [share * model.reach.expand(shape) for share in _DEPTHS[1:]]
        every, start, near = (torch.cat([own] * more) for own in (sets, dual, origins))
        ahead, _, short = self._meet(model, every, torch.cat(aims), start, near, center)
        for deeper, fits in zip(ahead.split(count), (short <= _SHORT).split(count), strict=True):
            points = torch.where(_images(fits), deeper, points)
            depth = depth + fits
        hit = model.slack(points) >= (1 - _SHORT) * _DEPTHS[0] * model.reach
        promise = members.expected(hit.transpose(0, 1))
        chosen = (promise + 1e-9 * depth).argmax(dim=0)
        found = points[chosen, torch.arange(len(center), device=center.device)]
        pursue = (promise.amax(dim=0) <= state.errors) & least.isfinite()
        damped = _DAMPING ** state.stalled.to(here.dtype)
        nearest = model.origin + damped[:, None, None, None] * (nearest - model.origin)
        nearest = self.ball.project(nearest, center)
        return torch.where(_images(pursue), nearest, found), aimed

    def _meet(
        self,
        model: HalfSpaces,
        sets: Tensor,
        aim: Tensor,
        dual: Tensor,
        origins: Tensor,
        center: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return points, multipliers, and by how much (Q, B) of the aim a set is missed."""
        ahead, raised = model.meet(sets, aim, dual, origins, center, self.ball, _ITERATIONS)
        missing = (aim - model.slack(ahead)) / aim.clamp(min=torch.finfo(aim.dtype).tiny)
        return ahead, raised, torch.where(sets, missing, -torch.inf).amax(dim=1)


class _SearchState(NamedTuple):
    """What a climb starts from: the model and what is known of the best point."""

    model: HalfSpaces
    wrong: Tensor  # (n, B), which members err at the best point
    errors: Tensor  # (B,), its expected 0/1 loss
    stalled: Tensor  # (B,), steps without gain since the model at the best point
    tried: Tensor  # (n, B), failed attempts at each member


def _images(mask: Tensor) -> Tensor:
    return mask[..., None, None, None]
