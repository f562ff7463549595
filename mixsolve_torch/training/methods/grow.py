"""The double oracle: each new network answers the attacker's equilibrium strategy.

Against the networks f_1, ..., f_{k-1} with their optimal weights lam, the attacker has a mixed
strategy q that keeps the risk of each of them, and of each mixture of them, at the value V of the
game or above. A new network lowers V only if its own risk under q is below V: so it is trained on
images drawn from q. But q was found without f_k, which other attacks would fool. In stage k:

    for a share 1 - phi of the batch B_t:
        candidates     the image, the attacks on the mixture lam and on f_1, ..., f_{k-1} alone
        lam*, q        the equilibrium of their game of 0/1 losses
        B'_t           one candidate of each image, drawn from q
        lam       <-   momentum lam + (1 - momentum) lam*
    for the others:
        B'_t      <-   an attack on the mixture (1 - 1/k) lam + 1/k f_k
    theta_k  <-  a step of SGD on B'_t

With n = k - 1 and S steps of PGD, an image of the first kind takes 2 n S + (n + 2) n passes, one
of the second k S. The first network learns from attacks on itself.

Choices of this project: the game of each batch, of this process's part of it, stands for that of
all images (`mixsolve_torch.grow` solves the latter and keeps its candidates); every network stays,
since the game on held-out images at the end gives no weight to one that does not pay.

References
----------
McMahan, Gordon, Blum. Planning in the Presence of Cost Functions Controlled by an Adversary.
ICML 2003.
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

import mixsolve
from mixsolve_torch.training.adversary import Adversary
from mixsolve_torch.training.methods.base import Batch
from mixsolve_torch.training.methods.staged import Staged


class Grow(Staged):
    """The network of the stage learns from the attacker's equilibrium and from fresh attacks."""

    _before: Adversary | None = None  # of the mixture of the networks that are fixed
    _with: Adversary | None = None  # of that with the new network

    def weights(self, k: int) -> Tensor:
        """Return the weights (L,) that the mixture up to network k begins its stage with."""
        return self._joined(self.parts.networks.mixture.weights[:k], k)

    def learn(self, k: int, batch: Batch) -> None:
        """Train network k on candidates drawn from the equilibrium, and on fresh attacks."""
        parts, x, y = self.parts, batch.x, batch.y
        weights = parts.networks.mixture.weights
        fresh = round(parts.config.grow.fresh * len(x)) if k else len(x)
        first = len(x) - fresh
        points, errors = [], []
        if first:
            drawn, wrong, lam = self._drawn(k, x[:first], y[:first])
            weights = self._joined(lam, k)
            parts.networks.mixture.set_weights(weights)
            points.append(drawn)
            errors.append(wrong)
        if fresh:
            self._with = self._adversary(self._with, weights)
            (attacked,), wrong = parts.attackers.attacked(
                [k], x[first:], y[first:], parts.own, self._with
            )
            points.append(attacked)
            errors.append(wrong)
        loss = parts.networks.descend(k, x, torch.cat(points), y, batch.learning_rate)
        parts.networks.note(loss, torch.cat(errors))

    def _drawn(self, k: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return candidates drawn from the equilibrium against the networks before network k.

        With them the expected 0/1 losses (B,) of these networks there, and their weights (k,) after
        the step towards the solution of the game.
        """
        parts, device = self.parts, x.device
        lam = parts.networks.mixture.weights[:k]
        lam = lam / lam.sum()
        weights = torch.zeros(len(parts.networks), dtype=torch.float64, device=device)
        weights[:k] = lam
        self._before = self._adversary(self._before, weights)
        points, losses = parts.game.candidates(x, y, range(k), self._before)
        solution = mixsolve.solve(losses.cpu().numpy())
        played = torch.as_tensor(solution.attack.dense()).to(parts.own.device)
        drawn = torch.multinomial(played, 1, generator=parts.own).squeeze(1).to(device)
        rows = torch.arange(len(x), device=device)
        found = parts.ranks.mean(torch.as_tensor(solution.weights).to(device, torch.float64))
        share = parts.config.weights.momentum
        moved = share * lam + (1 - share) * found
        return points[drawn, rows], losses[rows, drawn].double() @ lam, moved

    def _joined(self, lam: Tensor, k: int) -> Tensor:
        """Return weights (L,): of network k its equal share, the rest for those before, as lam."""
        weights = self.uniform(k).to(lam.device)
        if k:
            weights[:k] = lam / lam.sum() * k / (k + 1)
        return weights

    def _adversary(self, known: Adversary | None, weights: Tensor) -> Adversary:
        """Return an adversary of the mixture of these weights (L,), a known one if there is one."""
        if known is None:
            return self.parts.attackers.on(weights)
        known.refresh(weights)
        return known
