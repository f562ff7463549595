"""Targeted APGD: towards one rival class after another.

An untargeted loss follows the largest other logit, which can change from step to step, and may be
that of a class whose region lies outside the ball. Here each of the likeliest other classes is the
target of an ascent of its own, from its own start (see `attacks.hinge` and `APGD`). An image on
which every classifier errs is not attacked any further.

References
----------
Croce, Hein. Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
Parameter-free Attacks. ICML 2020, APGD-T.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from mixsolve.base.arguments import as_count
from mixsolve_torch.attacks.apgd import APGD
from mixsolve_torch.attacks.pursuit import Pursuit
from mixsolve_torch.attacks.search import GradientAttack
from mixsolve_torch.core.mixture import Mixture


@dataclass(frozen=True)
class TargetedAPGD(GradientAttack):
    """APGD towards each of the likeliest other classes; the best point is kept.

    Parameters
    ----------
    targets : int, default 9
        Classes that are aimed at, those of the largest expected logits at the image; all others
        where there are no more.
    steps : int, default 100
        Steps for each target and restart.
    **options
        Those of `GradientAttack`, norm, eps and name included.
    """

    _: KW_ONLY
    steps: int = 100
    targets: int = 9

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        as_count("targets", self.targets)

    def names(self, classifiers: int) -> list[str]:
        """Return the one name."""
        return [self.label("APGD-T")]

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the strongest point."""
        pursuit = Pursuit(
            mixture, x, y, generator, weights=self.weights, images_per_pass=self.images_per_pass
        )
        for rival in range(1, min(self.targets, pursuit.classes - 1) + 1):
            pursuit.run(APGD(**self.part_options(), loss="hinge", rival=rival))
        pursuit.report()
        yield pursuit.best
