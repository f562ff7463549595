"""The standard attack: one attack after another on the images that still resist, the best kept.

    1. APGD on the hinge of the mixture, a fifth of the steps: it drops the images that fall easily;
    2. APGD on the hinge, then on the cross-entropy;
    3. each classifier alone: APGD on the hinge, on the images where it is still right, then, where
       no point has fooled it, on the cross-entropy and on the hinge towards each of its likeliest
       rival classes, half of the steps each;
    4. APGD on the hinge towards each of the mixture's likeliest rival classes, likewise;
    5. ARC and from its best point the climb of `Subset`, a fifth of the steps each; then, from the
       strongest point of all so far, this climb and APGD on the hinge;
    6. Square: 5 queries a step; with the share of a classifier's gradients that vanish up to 48, in
       four searches one after another.

Other starts are random, each part has its own. An image is dropped only when its expected accuracy
is 0: as long as one classifier of the mixture is right, the next attack may fool it too. The
strongest point of an image, by the exact expected 0/1 loss, is the attack.

Where a classifier's gradient vanished in the first part, the others follow it in double precision,
if it has a gradient there (see `attacks.precise`), and after Square, whose points are nearer to its
boundary, APGD on the hinge goes on from the strongest point. A classifier whose gradient is zero
wherever it is right is not attacked alone, and where all are such, only the first part and Square
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

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mixsolve_torch.attacks.apgd import APGD
from mixsolve_torch.attacks.pursuit import Attempt, Pursuit
from mixsolve_torch.attacks.search import GradientAttack
from mixsolve_torch.attacks.square import Square
from mixsolve_torch.attacks.subset import Subset
from mixsolve_torch.core.mixture import Mixture

# Rival classes that are aimed at.
_RIVALS = 4

# Queries of Square a step where gradients lead, and where all of a classifier's vanish.
_QUERIES = 5
_QUERIES_WITHOUT_GRADIENT = 48

# Those of one search, where there are enough for several.
_QUERIES_A_SEARCH = 12


@dataclass(frozen=True)
class Standard(GradientAttack):
    """The attacks of the suite in turn; the strongest point of each image is kept.

    Parameters
    ----------
    steps : int, default 100
        Steps of each restart of APGD, from which the effort of the other parts follows: an image
        that resists to the end costs about 20 forward or backward passes a step and restart of a
        single classifier, about 30 of each of several, and up to 45 more where gradients vanish.
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
        pursuit.follow_precisely()
        for attempts in self._attempts(pursuit, len(mixture)):
            for attempt in attempts:
                pursuit.run(*attempt)
            if self.keep_parts:
                yield pursuit.part
            pursuit.begin()
        pursuit.report()
        if not self.keep_parts:
            yield pursuit.best

    def _attempts(self, pursuit: Pursuit, classifiers: int) -> Iterator[Iterable[Attempt]]:
        """Yield the attempts of each part."""
        indices, signs, classes = pursuit.members.indices, pursuit.signs, pursuit.classes
        blind = all(signs[k].hidden for k in indices)
        hinge = APGD(**self.part_options(), loss="hinge")
        yield [] if blind else [Attempt(hinge)]
        yield [] if blind else [Attempt(APGD(**self.part_options()))]
        rivals = range(1, min(_RIVALS, classes - 1) + 1)
        # With two classes the only rival is aimed at by all.
        rivals = range(0) if blind or classes == 2 else rivals
        for k in range(classifiers):
            # A single classifier has been attacked alone already.
            single = k not in indices or len(indices) == 1 or signs[k].hidden
            yield [] if single else self._alone(pursuit, k, classifiers, rivals)
        yield map(Attempt, self._towards(rivals))
        # It begins with ARC. What it finds depends on the start more than what the others find.
        climb = Subset(**self.part_options(steps=self._share(5)))
        further = Subset(**self.part_options(steps=self._share(5), restarts=1), arc_steps=0)
        go_on = Attempt(dataclasses.replace(hinge, restarts=1), from_best=True)
        yield [] if blind else [Attempt(climb), Attempt(further, from_best=True), go_on]
        yield self._without_gradients(pursuit, go_on)

    def _alone(
        self, pursuit: Pursuit, k: int, classifiers: int, rivals: Sequence[int]
    ) -> Iterator[Attempt]:
        """Yield the attempts at classifier k: the first also where it only errs elsewhere."""
        weights = torch.eye(classifiers, dtype=torch.float64)[k]
        i, options = pursuit.members.indices.index(k), self.part_options(weights=weights)
        yield Attempt(APGD(**options, loss="hinge"), ~pursuit.wrong[i])
        for attack in (APGD(**options), *self._towards(rivals, weights=weights)):
            yield Attempt(attack, ~pursuit.ever[i])

    def _towards(self, rivals: Sequence[int], **changed: Any) -> list[APGD]:
        # Each rival has restarts of its own, and all are one batch; without random starts they are
        # one after another.
        options = self.part_options(steps=self._share(2), **changed)
        if rivals and self.random_start:
            options["restarts"] = self.restarts * len(rivals)
            return [APGD(**options, loss="hinge", rival=tuple(rivals))]
        return [APGD(**options, loss="hinge", rival=rival) for rival in rivals]

    def _without_gradients(self, pursuit: Pursuit, go_on: Attempt) -> Iterator[Attempt]:
        masked = [own.vanished / own.right for own in pursuit.signs.values() if own.masked]
        more = (_QUERIES_WITHOUT_GRADIENT - _QUERIES) * max(masked, default=0.0)
        # Several searches find more than one of the same queries: luck decides at the beginning.
        searches = max(1, round((_QUERIES + more) / _QUERIES_A_SEARCH))
        steps = round((_QUERIES + more) / searches * self.steps)
        for _ in range(searches):
            yield Attempt(Square(**self.part_options(steps=steps)))
        if masked and pursuit.follow_precisely():
            yield go_on

    def _share(self, parts: int) -> int:
        return max(1, self.steps // parts)
