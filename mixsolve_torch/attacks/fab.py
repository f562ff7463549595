"""FAB: the nearest points at which members of a mixture err, and the risk at every radius.

For a set S of classifiers, the nearest x' at which all of them err is sought. Each classifier is
replaced by the half-space beyond its nearest boundary at the point x_t (see `attacks.boundary`);
with d(p) the shortest moves, one after the other and in the box, that take p into the half-spaces
of S, and x the image,

    x_{t+1} = (1 - a) (x_t + eta d(x_t)) + a (x + eta d(x)),
    a = min( ||d(x_t)|| / (||d(x_t)|| + ||d(x)||), a_max ),

so that the steps are drawn towards the image. A point at which all of S err is a candidate, and
the search goes on from x + beta (x_t - x), closer to the image. At the end the segment from the
nearest candidate to the image is halved.

The sets of an image are each classifier alone and, in the order of the distances so found, the
nearest two, the nearest three and so on, each from where the set before it ended. With r_j and E_j
the distance and the exact expected 0/1 loss of the j-th point of an image,

    risk(eps) = mean over images of  max { E_j : r_j <= eps },

which one run gives for all radii; it does not fall as eps grows.

A step of n classifiers costs n forward and n `rivals` backward passes, for each of the 2 n - 1 sets
of an image.

References
----------
Croce, Hein. Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack. ICML
2020.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixsolve import plots
from mixsolve.base.arguments import as_count, as_length
from mixsolve_torch.attacks.base import check_mixture, default_generator, prepare
from mixsolve_torch.attacks.boundary import Boundary, nearest_boundary
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.attacks.search import GradientAttack, passes
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.models.classifiers import frozen

# As published: how far beyond a boundary a step goes, the largest share of the image in it, and
# where on the way from the image the search goes on from a candidate.
_OVERSHOOT = 1.05
_LARGEST_PULL = 0.1
_BACK = 0.9

# Rounds of moves into the half-spaces of a set, and halvings of the segment at the end.
_ROUNDS = 5
_HALVINGS = 10


@dataclass(frozen=True)
class Distances:
    """What `FAB.distances` found: for each image points, how far they are, and what they fool.

    Attributes
    ----------
    points : torch.Tensor of shape (K, B, C, H, W)
        The image itself, then the nearest point found for each set of classifiers.
    lengths : torch.Tensor of shape (K, B), float64
        Their distances from the image in the attack's norm; infinite where a set was not fooled.
    errors : torch.Tensor of shape (K, B), float64
        The exact expected 0/1 loss at them.
    norm : str
        The attack's norm.
    """

    points: Tensor
    lengths: Tensor
    errors: Tensor
    norm: str

    def risk(self, eps: Any) -> Any:
        """Return the risk found within a radius, or an array of those within several."""
        radii = [as_length("eps", radius) for radius in np.atleast_1d(eps)]
        risks = [float(self.within(radius)[0].mean()) for radius in radii]
        return risks[0] if np.ndim(eps) == 0 else np.array(risks)

    def jumps(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the radii (n,), 0 first, at which the risk found rises, and the risk from there.

        Between two of them `risk` is constant.
        """
        order = self.lengths.argsort(dim=0, stable=True)
        lengths = self.lengths.gather(0, order)
        most = self.errors.gather(0, order).cummax(dim=0).values
        gains = most.diff(dim=0, prepend=torch.zeros_like(most[:1])) / most.shape[1]
        rising = (gains > 0) & lengths.isfinite()
        found, rank = lengths[rising].sort()
        risks = gains[rising][rank].cumsum(0)
        radii = np.concatenate([[0.0], found.cpu().numpy()])
        values = np.concatenate([[0.0], risks.cpu().numpy()])
        last = np.append(radii[1:] > radii[:-1], True)  # of several jumps at one radius
        return radii[last], values[last]

    def plot(self, path: str | os.PathLike[str] | None = None, *, eps: Any = None) -> Any:
        """Draw the risk found at all radii.

        Parameters
        ----------
        path : str or path, optional
            Where to write the picture; the ending says the format.
        eps : float or str, optional
            A radius to mark.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed.
        MixsolveError
            The picture cannot be written there.
        """
        marked = None if eps is None else as_length("eps", eps)
        figure = plots.risk_by_radius(*self.jumps(), norm=self.norm, marked=marked)
        if path is not None:
            plots.save(figure, path)
        return figure

    def within(self, eps: float) -> tuple[Tensor, Tensor]:
        """Return the largest error (B,) of each image within a radius, and which point has it."""
        reached = torch.where(self.lengths <= eps, self.errors, -1)
        # Among equal errors the nearest point comes first.
        ranked = self.lengths.argsort(dim=0, stable=True)
        best = reached.gather(0, ranked).argmax(dim=0, keepdim=True)
        chosen = ranked.gather(0, best)
        return reached.gather(0, chosen)[0], chosen[0]


@dataclass(frozen=True)
class FAB(GradientAttack):
    """The attack of least distance of Croce and Hein, on the sets of a mixture's classifiers.

    Parameters
    ----------
    norm, eps, name
        The options of `Attack`; `eps` is the radius of the attack and has no part in `distances`,
        but for the starts of further searches.
    steps : int, default 20
        Steps for each set and search.
    restarts : int, default 1
        Searches for each set; the first one starts at the image, the others at random in the ball.
    rivals : int, default 3
        Classes other than the true one whose boundaries are tried, those of the largest logits.
    weights, images_per_pass, autocast, compile
        The options of `GradientAttack`.

    Raises
    ------
    MixsolveError
        A parameter that is out of its range.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import Mixture
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    >>> x, y = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    >>> FAB("L2", 0.1, steps=5)(Mixture([model]), x, y).shape
    torch.Size([1, 5, 1, 2, 2])
    """

    _: KW_ONLY
    rivals: int = 3

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        as_count("rivals", self.rivals)

    def names(self, classifiers: int) -> list[str]:
        """Return the one name."""
        return [self.label("FAB")]

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the point of the largest expected error within the radius."""
        found = self._distances(mixture, x, y, generator)
        _, chosen = found.within(self.eps)
        yield found.points[chosen, torch.arange(len(x), device=x.device)]

    def distances(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> Distances:
        """Return the nearest points at which sets of classifiers err, at any distance.

        Parameters
        ----------
        mixture, x, y, generator
            What an attack is called with.

        Returns
        -------
        Distances

        Raises
        ------
        MixsolveError
            As a call of the attack.
        """
        check_mixture(mixture)
        with frozen(mixture):
            x, y = prepare(mixture, x, y)
            return self._distances(mixture, x, y, default_generator(generator))

    def _distances(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Distances:
        draws = [self.ball.random_start(x, generator) for _ in range(self.restarts - 1)]
        members = Members(mixture, y, self.weights, autocast=self.autocast, compile=self.compile)
        parts = [
            self._of_pass(members, x[rows], y[rows], [x[rows], *(own[rows] for own in draws)])
            for rows in passes(len(x), self.images_per_pass)
        ]
        members.check()
        points, lengths = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        # Judged by the classifiers' own precision.
        judge = Members(mixture, y, self.weights, compile=self.compile)
        errors = torch.stack(
            [
                torch.cat(
                    [
                        judge.expected(judge.wrong(own[rows], y[rows]))
                        for rows in passes(len(x), self.images_per_pass)
                    ]
                )
                for own in points
            ]
        )
        return Distances(points, lengths, errors, self.norm)

    def _of_pass(
        self, members: Members, x: Tensor, y: Tensor, starts: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return points (K, B, C, H, W) and their lengths (K, B): the image and 2 n - 1 sets."""
        n = len(members)
        alone = torch.eye(n, dtype=torch.bool, device=x.device)[:, :, None].expand(n, n, len(x))
        found = [self._nearest(members, chosen, x, y, starts) for chosen in alone]
        order = torch.stack([length for _, length in found]).argsort(dim=0, stable=True)
        chosen = torch.zeros(n, len(x), dtype=torch.bool, device=x.device)
        chosen = chosen.scatter(0, order[:1], True)
        rows = torch.arange(len(x), device=x.device)
        last = torch.stack([point for point, _ in found])[order[0], rows]
        for rank in range(1, n):
            chosen = chosen.scatter(0, order[rank : rank + 1], True)
            found.append(self._nearest(members, chosen, x, y, [last, *starts[1:]]))
            last = torch.where(_images(found[-1][1].isfinite()), found[-1][0], last)
        still = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        points, lengths = zip((x, still), *found, strict=True)
        return torch.stack(points), torch.stack(lengths)

    def _nearest(
        self, members: Members, chosen: Tensor, x: Tensor, y: Tensor, starts: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the nearest points at which the set `chosen` (n, B) errs, and their lengths."""
        best, least = x, torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        for start in starts:
            point = start
            for _ in range(self.steps):
                near = [
                    nearest_boundary(members, i, point, y, self.ball, self.rivals)
                    for i in range(len(members))
                ]
                fooled = (torch.stack([own.wrong for own in near]) | ~chosen).all(dim=0)
                best, least = self._nearer(best, least, point, fooled, x)
                point = self._step(near, chosen, point, fooled, x)
            fooled = (members.wrong(point, y) | ~chosen).all(dim=0)
            best, least = self._nearer(best, least, point, fooled, x)
        low, high = torch.zeros_like(least), torch.ones_like(least)
        move = best - x
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            point = x + _images(middle.to(x.dtype)) * move
            fooled = (members.wrong(point, y) | ~chosen).all(dim=0)
            best, least = self._nearer(best, least, point, fooled & least.isfinite(), x)
            low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
        return best, least

    def _nearer(
        self, best: Tensor, least: Tensor, point: Tensor, fooled: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the nearer ones of the best points and those that fool, with their lengths."""
        length = self.ball.lengths(point.double() - x.double())
        nearer = fooled & (length < least)
        return torch.where(_images(nearer), point, best), torch.where(nearer, length, least)

    def _step(
        self, near: list[Boundary], chosen: Tensor, point: Tensor, fooled: Tensor, x: Tensor
    ) -> Tensor:
        """Return where to look next, from a point at which the model `near` was made."""
        ball = self.ball
        base = torch.where(_images(fooled), x + _BACK * (point - x), point)
        ahead, beside = (self._moves(near, chosen, point, origin) for origin in (base, x))
        own, other = ball.lengths(ahead), ball.lengths(beside)
        share = own / (own + other).clamp(min=torch.finfo(own.dtype).tiny)
        pull = _images(share.clamp(max=_LARGEST_PULL))
        drawn = (1 - pull) * (base + _OVERSHOOT * ahead) + pull * (x + _OVERSHOOT * beside)
        return drawn.clamp(0, 1)

    def _moves(self, near: list[Boundary], chosen: Tensor, point: Tensor, origin: Tensor) -> Tensor:
        """Return moves that take origins into the half-spaces of the set, as far as they get."""
        at = origin
        for _ in range(_ROUNDS):
            for i, own in enumerate(near):
                gap = own.gap + (own.gradient * (at - point)).flatten(1).sum(dim=1)
                move = self.ball.shortest(-gap, own.gradient, at)
                at = torch.where(_images(chosen[i]), at + move, at)
        return at - origin


def _images(values: Tensor) -> Tensor:
    return values[..., None, None, None]
