"""Which sets of classifiers may err together on one image: joint bounds.

Classifiers in S err together at x' only if for some choice of rival classes all margins
m_k(x') = f_k(x')_y - f_k(x')_{c_k} are at most 0. With linear lower bounds a_k x' + b_k of them,
that is impossible in a region if

    max over mu in the simplex of  min over x' of  sum_k mu_k (a_k x' + b_k)  >  0:

a concave game, whose inner minimum has a closed form, and which Kelley's cutting planes solve. Each
x' found is a row of margins, the best mu against all rows is a small game of `mixsolve`. The bound
at any mu is valid, so that the search may end as soon as it is positive, or as soon as the rows
prove that no mu makes it so. For linear classifiers the bounds are the margins themselves, and by
the minimax theorem the test is exact.

Sets are tried by their size, as item sets are in Apriori: a choice of rivals is possible only if
all choices for one classifier less were.

References
----------
Kelley. The Cutting-Plane Method for Solving Convex Programs. J. SIAM 1960.
Agrawal, Srikant. Fast Algorithms for Mining Association Rules. VLDB 1994.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from mixsolve.batch.solver import solve_batch
from mixsolve_torch.verification.region import Region

_CUTS = 30  # rows of a game at most
_CHOICES = 2000  # choices of rivals that are tried for one set of classifiers
_CLEAR = 1e-9  # a game whose value is proven to lie this little above 0 is not worth more cuts

Choice = tuple[int, ...]


@torch.no_grad()
def joint_minima(
    region: Region, slopes: Tensor, offsets: Tensor, owner: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return lower bounds of the largest of m linear functions over the sets `owner`.

    Parameters
    ----------
    slopes, offsets : torch.Tensor of shape (T, m, D) and (T, m), float64
        T groups of functions.
    owner : torch.Tensor of shape (T,), int64
        The set of the region that each group is about.

    Returns
    -------
    tuple of torch.Tensor
        The bounds (T,), positive where the functions are never all at most 0; the combinations mu
        (T, m) that prove them; and points (T, D) where all functions are about as low as they get.
    """
    count, m, _ = slopes.shape
    mu = offsets.new_full((count, m), 1 / m)
    best = offsets.new_full((count,), -torch.inf)
    weights, points = mu.clone(), region.center[owner].clone()
    lowest = offsets.new_full((count,), torch.inf)
    todo = torch.arange(count, device=owner.device)
    cuts = offsets.new_zeros(count, 0, m)
    for _ in range(_CUTS):
        mean = (mu[todo, None] @ slopes[todo])[:, 0]
        value, found = region.minimum(mean, owner[todo])
        value = value + (mu[todo] * offsets[todo]).sum(dim=1)
        rows = (slopes[todo] @ found[:, :, None])[..., 0] + offsets[todo]
        better = value > best[todo]
        best[todo[better]], weights[todo[better]] = value[better], mu[todo[better]]
        lower = rows.amax(dim=1) < lowest[todo]
        lowest[todo[lower]], points[todo[lower]] = rows.amax(dim=1)[lower], found[lower]
        cuts = torch.cat([cuts, rows[:, None]], dim=1)
        # A point at which no function is positive ends the search, too.
        going = (best[todo] <= 0) & (lowest[todo] > 0)
        todo, cuts = todo[going], cuts[going]
        if not len(todo) or m == 1:
            break
        game = solve_batch(-cuts[:, None].cpu().numpy(), tol=1e-9, keep_attack=False)
        mu[todo] = torch.as_tensor(game.weights).to(mu)
        hopeful = torch.as_tensor(-game.lower_bound).to(mu) > _CLEAR
        todo, cuts = todo[hopeful], cuts[hopeful]
        if not len(todo):
            break
    return best, weights, points


class Sets:
    """The sets of classifiers that may err together, for a batch of images.

    Parameters
    ----------
    owner, member : ndarray of shape (n,), int
        The image and the classifier of each margin that is not proven positive.
    fooled : sequence of list of frozenset
        For each image, sets of classifiers that err together at a known point: not tested.
    """

    def __init__(
        self, owner: np.ndarray, member: np.ndarray, fooled: Sequence[list[frozenset[int]]]
    ) -> None:
        self.fooled = [list(own) for own in fooled]
        self.alive: dict[tuple[int, Choice], list[Choice] | None] = {}
        for t, (i, k) in enumerate(zip(owner.tolist(), member.tolist(), strict=True)):
            own = self.alive.setdefault((i, (k,)), [])
            assert own is not None
            own.append((t,))

    def is_fooled(self, image: int, members: Iterable[int]) -> bool:
        """Return whether these classifiers are known to err together."""
        return any(own.issuperset(members) for own in self.fooled[image])

    def grow(self, size: int, possible: Callable[[list[tuple[int, Choice]]], list[bool]]) -> None:
        """Find the sets of `size` classifiers, from those of one less; drop what is impossible.

        `possible` is asked about images and choices: one margin for each classifier of a set.
        """
        if size > 1:
            for image in {i for i, members in self.alive if len(members) == size - 1}:
                self._join(image, size)
        asked = [
            (i, choice)
            for (i, members), choices in self.alive.items()
            if len(members) == size and choices and not self.is_fooled(i, members)
            for choice in choices
        ]
        left = possible(asked) if asked else []
        lost = {key for key, own in zip(asked, left, strict=True) if not own}
        for key, choices in self.alive.items():
            if len(key[1]) == size and choices is not None:
                self.alive[key] = [choice for choice in choices if (key[0], choice) not in lost]
        self.alive = {key: own for key, own in self.alive.items() if own is None or own}

    def _join(self, image: int, size: int) -> None:
        """Add the sets of an image all of whose subsets of one classifier less are alive."""
        before = sorted(s for i, s in self.alive if i == image and len(s) == size - 1)
        for first, second in combinations(before, 2):
            members = (*first, second[-1])
            keys = [(image, part) for part in combinations(members, size - 1)]
            if first[:-1] == second[:-1] and all(key in self.alive for key in keys):
                self.alive[image, members] = _joined([self.alive[key] for key in keys])

    def rows(self, image: int, classifiers: int) -> np.ndarray:
        """Return the maximal sets of an image that may err together, as 0/1 rows (m, L)."""
        own = {frozenset(members) for i, members in self.alive if i == image}
        return _rows(own | set(self.fooled[image]), classifiers)

    def fooled_rows(self, image: int, classifiers: int) -> np.ndarray:
        """Return the maximal sets of an image that are known to err together, as 0/1 rows."""
        return _rows(set(self.fooled[image]), classifiers)


def _rows(sets: set[frozenset[int]], classifiers: int) -> np.ndarray:
    """Return the maximal ones of some sets as 0/1 rows (m, L); one of zeros if there is none."""
    maximal = [own for own in sets if not any(own < other for other in sets)] or [frozenset[int]()]
    rows = [[int(k in members) for k in range(classifiers)] for members in maximal]
    return np.array(sorted(rows, reverse=True), np.uint8)


def _joined(parts: list[list[Choice] | None]) -> list[Choice] | None:
    """Return the choices whose parts all are possible; None if they are unknown or too many.

    The parts lack one classifier each, the first one the last classifier, and so on backwards.
    """
    known = [set(part) for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    found: list[Choice] = []
    ends: dict[Choice, list[int]] = {}
    for choice in known[1]:
        ends.setdefault(choice[:-1], []).append(choice[-1])
    for choice in known[0]:
        for end in ends.get(choice[:-1], ()):
            whole = (*choice, end)
            shorter = combinations(whole, len(whole) - 1)
            if all(part in own for part, own in zip(shorter, known, strict=True)):
                found.append(whole)
                if len(found) > _CHOICES:
                    return None
    return sorted(found)
