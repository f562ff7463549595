"""Random attacks: points drawn uniformly in the ball, the attack of the paper's 2-D experiment.

They need no gradient and no classifier. Uniform draws are also the base measure of the entropic
problem (7): with them its log-mean-exp estimates the integral over the ball.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, sections 4.1, 5.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from mixsolve.base.arguments import as_count
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.core.mixture import Mixture


@dataclass(frozen=True)
class UniformSampling(Attack):
    """Draw points uniformly in the ball; those that leave the box [0, 1] are cut back to it.

    Parameters
    ----------
    norm, eps, name
        The options of `Attack`.
    draws : int, default 10
        Candidates for each image.
    """

    _: KW_ONLY
    draws: int = 10

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        as_count("draws", self.draws)

    def names(self, classifiers: int) -> list[str]:
        """Return one name for each draw."""
        return [f"{self.label('uniform')} #{draw + 1}" for draw in range(self.draws)]

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the draws."""
        ball = self.ball
        for _ in range(self.draws):
            yield ball.random_start(x, generator)
