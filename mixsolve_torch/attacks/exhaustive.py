"""All points of a finite set, tried one after another: an exact attack.

The strongest point of an image by the exact expected 0/1 loss, ties by the expected hinge, is the
attack. No other attack in the set can find more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveTypeError
from mixsolve_torch.attacks.ball import Ball
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.objective import keep_better
from mixsolve_torch.attacks.strongest import Judge, strongest
from mixsolve_torch.attacks.threats import Finite, InBall, Threat
from mixsolve_torch.core.mixture import Mixture


class Exhaustive(Attack):
    """Tries every point of a finite set.

    Parameters
    ----------
    threat : Finite
        The set.
    name : str, optional
        The candidates' title in tables; the name of the set by default.

    Raises
    ------
    MixsolveTypeError
        Something that is no finite set.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import Finite, Mixture
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    >>> x, y = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    >>> mirrored = Finite(lambda images: [images.flip(3), images.flip(2)], name="mirrored")
    >>> Exhaustive(mirrored)(Mixture([model]), x, y).shape
    torch.Size([1, 5, 1, 2, 2])
    """

    kind = "all points"
    thorough: ClassVar[bool] = True

    finite: Finite

    def __init__(self, threat: Finite, *, name: str | None = None) -> None:
        if not isinstance(threat, Finite):
            raise MixsolveTypeError(
                f"threat must be a Finite, such as rotations(15); got {type(threat).__name__}"
            )
        self._declare(threat, name)
        object.__setattr__(self, "finite", threat)

    def label(self, kind: str) -> str:
        """Return the attack's name, or that of the set."""
        return self.finite.label if self.name is None else self.name

    def names(self, classifiers: int) -> list[str]:
        """Return the one name."""
        return [self.label(self.kind)]

    def bind(self, x: Tensor, first: int = 0) -> Exhaustive:
        """Refuse a set whose points are not the same at every call, and return the attack."""
        if x.is_floating_point() and len(x):
            self.finite.check(x)
        return self

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the strongest point."""
        judge = Judge(mixture, y)
        best, best_score = x, None
        for point in self.finite.points(x):
            best, best_score = keep_better(best, best_score, point, judge(point, y))
        judge.check()
        yield best

    def _outside(self, points: Tensor, x: Tensor) -> str | None:
        """Refuse nothing: the set made the points, which `Finite.points` has checked."""
        return None


def in_each(sets: Iterable[Threat], in_ball: Callable[[Ball], Attack]) -> Attack:
    """Return the strongest of an attack in each ball, and of all points of each finite set."""

    def attack(threat: Threat) -> Attack:
        if isinstance(threat, InBall):
            return in_ball(threat.ball)
        assert isinstance(threat, Finite)
        return Exhaustive(threat)

    return strongest([attack(threat) for threat in sets])
