"""The update of a mixture's weights in training: the game on one batch, solved or approached.

The game has these candidates for each image: the image itself, the attack on the mixture, and the
attack on each classifier alone, all on the present classifiers. "oracle" makes T_lambda steps of
Algorithm 1 from the present weights, "entropic" and "lp" solve the game. The weights move by
1 - momentum of the way.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 4.3.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from mixsolve.base.errors import ConvergenceWarning
from mixsolve_torch.core.losses import LOSSES
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.training.adversary import Adversary
from mixsolve_torch.training.attackers import Attackers
from mixsolve_torch.training.ranks import Ranks
from mixsolve_torch.training.settings import WeightsConfig

_METHODS = {"oracle": "oracle", "entropic": "newton", "lp": "lp"}


class BatchGame:
    """Moves the weights of a mixture towards the solution of a batch's game.

    Parameters
    ----------
    config : WeightsConfig
        How.
    mixture : Mixture
        The classifiers and the weights.
    attackers : Attackers
        Attacks on the mixture and on each classifier.
    ranks : Ranks
        All solve the game of their images together.
    own : torch.Generator
        Source of the attacks' starts.
    """

    def __init__(
        self,
        config: WeightsConfig,
        mixture: Mixture,
        attackers: Attackers,
        ranks: Ranks,
        own: torch.Generator,
    ) -> None:
        self._config = config
        self._mixture = mixture
        self._attackers = attackers
        self._ranks = ranks
        self._own = own

    def update(self, x: Tensor, y: Tensor) -> None:
        """Solve the game on images (B, C, H, W) and labels (B,), and move the weights."""
        config = self._config
        _, losses = self.candidates(x, y, range(len(self._mixture)), self._attackers.mixture)
        old = self._mixture.weights.clone()
        with warnings.catch_warnings():
            # T_lambda steps of Algorithm 1 are not meant to converge.
            warnings.simplefilter("ignore", ConvergenceWarning)
            weights = self._ranks.solve(
                losses,
                config.alpha if config.update == "entropic" else 0.0,
                method=_METHODS[config.update],
                max_iter=config.t_lambda if config.update == "oracle" else None,
                warm_start=old.cpu().numpy(),
            )
        found = weights.to(old.device)
        self._mixture.set_weights(config.momentum * old + (1 - config.momentum) * found)
        self._attackers.refresh()

    @torch.no_grad()
    def candidates(
        self, x: Tensor, y: Tensor, networks: Sequence[int], mixture: Adversary
    ) -> tuple[Tensor, Tensor]:
        """Attack images for a mixture and some networks alone.

        Parameters
        ----------
        x, y : torch.Tensor of shape (B, C, H, W), (B,)
            Images and labels.
        networks : sequence of int, of length n
            Those that are attacked alone, and whose losses are wanted.
        mixture : Adversary
            Attacks the mixture.

        Returns
        -------
        points : torch.Tensor of shape (n + 2, B, C, H, W)
            The images, the attack on the mixture, and that on each network alone.
        losses : torch.Tensor of shape (B, n + 2, n)
            Losses of these networks there.
        """
        loss = LOSSES[self._config.loss]
        alone = [self._attackers.alone(k) for k in networks]
        points = [x, *(attack(x, y, self._own)[0] for attack in (mixture, *alone))]
        with frozen(self._mixture), torch.no_grad():
            rows = [
                torch.stack(
                    [loss.function(own, y) for own in self._mixture.member_logits(point, networks)],
                    dim=-1,
                )
                for point in points
            ]
        losses = torch.stack(rows, dim=1)
        return (
            torch.stack(points),
            losses.to(torch.uint8) if not loss.differentiable else losses.float(),
        )
