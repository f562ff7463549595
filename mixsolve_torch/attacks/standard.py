"""The standard attack: one attack after another on the images that still resist, the best kept.

    1. APGD on the hinge of the mixture, a fifth of the steps: it drops the images that fall easily;
    2. APGD on the hinge, then on the cross-entropy;
    3. APGD on the hinge of each classifier alone, on the images where it is still right;
    4. APGD on the hinge towards each of the likeliest rival classes, half of the steps each;
    5. ARC and from its best point the climb of `Subset`, a fifth of the steps each, two starts;
    6. Square: 5 queries a step, and 30 a step where a classifier's gradient vanished.

Each part has starts of its own. An image is dropped only when its expected accuracy is 0: as long
as one classifier of the mixture is right, the next attack may fool it too. The strongest point of
an image, by the exact expected 0/1 loss, is the attack. A classifier whose gradient was zero
wherever it was right is not attacked alone, and where all are such, only the first part and Square
are run. Of vanishing gradients there is one warning, at the end, of the classifiers that no part
fooled on some image.

References
----------
Croce, Hein. Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
Parameter-free Attacks. ICML 2020.
Andriushchenko, Croce, Flammarion, Hein. Square Attack: a query-efficient black-box adversarial
attack via random search. ECCV 2020.
Dbouk, Shanbhag. Adversarial Vulnerability of Randomized Ensembles. ICML 2022.
Gnecco Heredia, Pydi, Meunier, Negrevergne, Chevaleyre. On the Role of Randomization in
Adversarially Robust Classification. NeurIPS 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mixsolve_torch.attacks.apgd import APGD
from mixsolve_torch.attacks.pursuit import Pursuit
from mixsolve_torch.attacks.search import GradientAttack, SearchAttack
from mixsolve_torch.attacks.square import Square
from mixsolve_torch.attacks.subset import Subset
from mixsolve_torch.core.mixture import Mixture

# Rival classes that are aimed at.
_RIVALS = 4

# Queries of Square a step, and where the gradient of a classifier vanished.
_QUERIES = 5
_QUERIES_WITHOUT_GRADIENT = 30


@dataclass(frozen=True)
class Standard(GradientAttack):
    """The attacks of the suite in turn; the strongest point of each image is kept.

    Parameters
    ----------
    steps : int, default 100
        Steps of each restart of APGD, from which the effort of the other parts follows: an image
        that resists to the end costs about 19 forward or backward passes a step and restart of
        each classifier, and about 44 where a classifier's gradient vanishes.
    keep_parts : bool, default False
        Return the best point of every part as a candidate of its own, not only the best of all.
    **options
        Those of `GradientAttack`, norm, eps and name included.

    Warns
    -----
    GradientWarning
        Once, of the classifiers whose gradients vanish and that no part fooled on some image.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import Mixture
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    >>> x, y = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    >>> Standard("Linf", 0.1, steps=5)(Mixture([model]), x, y).shape
    torch.Size([1, 5, 1, 2, 2])
    """

    _: KW_ONLY
    steps: int = 100
    keep_parts: bool = False

    thorough: ClassVar[bool] = True

    def names(self, classifiers: int) -> list[str]:
        """Return the one name, or one for each part that is kept."""
        label = self.label("standard")
        if not self.keep_parts:
            return [label]
        return [
            f"{label}, {part}" + (f" {number + 1}" if count > 1 else "")
            for part, count in self.parts(classifiers).items()
            for number in range(count)
        ]

    def parts(self, classifiers: int) -> dict[str, int]:
        """Return the parts, in order, and how many candidates each gives."""
        alone = {"each alone": classifiers}
        return {"APGD-hinge": 1, "APGD-CE": 1, **alone, "APGD-T": 1, "subset": 1, "square": 1}

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the strongest point, or that of each part."""
        pursuit = Pursuit(
            mixture, x, y, generator, weights=self.weights, images_per_pass=self.images_per_pass
        )
        # The first part takes the easy images away from the others.
        pursuit.run(APGD(**self.part_options(steps=self._share(5)), loss="hinge"))
        for attempts in self._attempts(pursuit, len(mixture)):
            for attack, on in attempts:
                pursuit.run(attack, on)
            if self.keep_parts:
                yield pursuit.part
            pursuit.begin()
        pursuit.report()
        if not self.keep_parts:
            yield pursuit.best

    def _attempts(
        self, pursuit: Pursuit, classifiers: int
    ) -> Iterator[list[tuple[SearchAttack, Tensor | None]]]:
        """Yield the attacks of each part, and on which images each is tried."""
        indices, signs, classes = pursuit.members.indices, pursuit.signs, pursuit.classes
        blind = all(signs[k].hidden for k in indices)
        yield [] if blind else [(APGD(**self.part_options(), loss="hinge"), None)]
        yield [] if blind else [(APGD(**self.part_options()), None)]
        for k in range(classifiers):
            # A single classifier has been attacked alone already.
            if k not in indices or len(indices) == 1 or signs[k].hidden:
                yield []
                continue
            alone = torch.eye(classifiers, dtype=torch.float64)[k]
            attack = APGD(**self.part_options(weights=alone), loss="hinge")
            yield [(attack, ~pursuit.wrong[indices.index(k)])]
        towards = range(1, min(_RIVALS, classes - 1) + 1)
        # Each rival has restarts of its own, and all are one batch; without random starts they are
        # one after another. With two classes the only rival has been aimed at already.
        restarts = self.restarts * len(towards) if self.random_start else 1
        options = self.part_options(steps=self._share(2), restarts=restarts)
        aimed = [tuple(towards)] if self.random_start else [*towards]
        yield (
            []
            if blind or classes == 2
            else [(APGD(**options, loss="hinge", rival=own), None) for own in aimed]
        )
        # It begins with ARC. What it finds depends on the start more than what the others find.
        # Both climbs are one batch: most of a step is the model, whose cost hardly depends on rows.
        starts = 2 * self.restarts if self.random_start else 1
        climb = Subset(**self.part_options(steps=self._share(5), restarts=starts))
        yield [] if blind else [(climb, None)]
        masked = any(signs[k].masked for k in indices)
        queries = _QUERIES_WITHOUT_GRADIENT if masked else _QUERIES
        yield [(Square(**self.part_options(steps=queries * self.steps)), None)]

    def _share(self, parts: int) -> int:
        return max(1, self.steps // parts)
