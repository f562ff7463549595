"""The strongest of what several attacks find, image by image.

A point is judged by the exact expected 0/1 loss, ties by the expected hinge. Over attacks in
several sets this is the "max" strategy of adversarial training against their union.

References
----------
Tramer, Boneh. Adversarial Training and Robustness for Multiple Perturbations. NeurIPS 2019.
Maini, Wong, Kolter. Adversarial Robustness Against the Union of Multiple Perturbation Models.
ICML 2020.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.attacks.objective import Objective, Score, keep_better
from mixsolve_torch.attacks.threats import InBall, united
from mixsolve_torch.core.mixture import Mixture

_IMAGES_PER_PASS = 2048


class Judge:
    """Scores points of a batch.

    Parameters
    ----------
    mixture : Mixture
        Frozen.
    y : torch.Tensor of shape (B,), int64
        All labels.

    Attributes
    ----------
    total : float
        The expected 0/1 loss of an image on which all classifiers err.
    """

    def __init__(self, mixture: Mixture, y: Tensor) -> None:
        self._members = Members(mixture, y)
        self._objective = Objective(self._members, "hinge")
        self.total = self._members.total

    def __call__(self, x: Tensor, y: Tensor) -> Score:
        """Return the score of images (b, C, H, W) with labels (b,)."""
        parts = [
            self._objective.score(images, labels)
            for images, labels in zip(
                x.split(_IMAGES_PER_PASS), y.split(_IMAGES_PER_PASS), strict=True
            )
        ]
        return Score(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def check(self) -> None:
        """Refuse logits that were not finite."""
        self._members.check()


class WorstOf(Attack):
    """Several attacks, of any sets; the strongest point of each image is kept.

    Parameters
    ----------
    attacks : sequence of Attack
        Run in their order on every image.
    name : str, optional
        The candidates' title in tables.

    Raises
    ------
    MixsolveError
        No attack.
    MixsolveTypeError
        Something that is no attack.

    Examples
    --------
    The attack to train one network against a union of sets:

    >>> from mixsolve_torch import resolve_attacks
    >>> attack = WorstOf(resolve_attacks("pgd", threats=["Linf:0.1", "rotations:15"], steps=5))
    >>> attack.names(1)
    ['worst of Linf 0.1 or rotations 15']
    """

    kind = "worst of"
    attacks: tuple[Attack, ...]

    def __init__(self, attacks: Sequence[Attack], *, name: str | None = None) -> None:
        attacks = tuple(attacks)
        if not attacks:
            raise MixsolveError("attacks must hold at least one attack; got none")
        wrong = next((each for each in attacks if not isinstance(each, Attack)), None)
        if wrong is not None:
            raise MixsolveTypeError(
                f"attacks must be a sequence of Attack; got {type(wrong).__name__}; "
                "resolve_attacks makes attacks of names and functions"
            )
        self._declare(united(attack.threat for attack in attacks), name)
        object.__setattr__(self, "attacks", attacks)

    def names(self, classifiers: int) -> list[str]:
        """Return the one name."""
        return [self.label(self.kind)]

    def bind(self, x: Tensor, first: int = 0) -> WorstOf:
        """Return the attack made of those that know the images of the data."""
        return WorstOf([attack.bind(x, first) for attack in self.attacks], name=self.name)

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the strongest point."""
        judge = Judge(mixture, y)
        best, best_score = x, None
        for attack in self.attacks:
            for point in attack.candidates(mixture, x, y, generator):
                best, best_score = keep_better(best, best_score, point.clone(), judge(point, y))
        judge.check()
        yield best

    def _outside(self, points: Tensor, x: Tensor) -> str | None:
        """Hold points against a ball; in other sets each attack has held its own already."""
        return self.threat.outside(points, x) if isinstance(self.threat, InBall) else None


def strongest(attacks: Sequence[Attack]) -> Attack:
    """Return the only attack, or the strongest of several as one."""
    return attacks[0] if len(attacks) == 1 else WorstOf(attacks)
