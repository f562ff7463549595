"""DVERGE: each network learns to be right on the images that hold the others' features.

    for t = 1, ..., T:   (B_t, y) a batch, B~_t the same images in another order
        z_j  <-  images near B_t with the features of B~_t in a layer of f_j,         j = 1, ..., L
        B'_t  <-  an attack of B_t on the mixture, or on each network alone
        theta_k  <-  a step of SGD on   sum_{j != k} loss(f_k(z_j), y) + loss(f_k(B'_t), y)

for all k. What fools f_j is a lesson for the others, so that they rely on other features and are
fooled by other attacks (see `training.distillation`). The layer is drawn for every epoch, at the
same share of each network's depth.

The last term is the training of "together": `dverge.adversarial = false` leaves it out, which is
the published method by itself; it makes attacks transfer less and does not make the networks robust
to attacks on themselves. The article's combination attacks each network alone, `attack.own_share =
1`. It begins with trained networks, `model.pretrained`. A step of all networks takes at most
L (S' + 1) passes for the features, with S' steps, L S for the attack and L^2 for the descent.

Choices of this project: pairs are made within a batch, each image the target of another; one
forward run of f_k on all of its images, which share the statistics of its batch norms; the ball of
the attack, unless `dverge.eps` is given (0.07 in the article, for CIFAR-10).

References
----------
Yang, Zhang, Dong, Inkawhich, Gardner, Touchet, Wilkes, Berry, Li. DVERGE: Diversifying
Vulnerabilities for Enhanced Robust Generation of Ensembles. NeurIPS 2020.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.ball import Ball, make_ball
from mixsolve_torch.attacks.threats import InBall
from mixsolve_torch.core.losses import errs
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.distillation import check_layers, distilled, find_layers
from mixsolve_torch.training.methods.base import Batch, Method, Parts


class Dverge(Method):
    """Every network learns from the features of all others, and from attacks."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._ball = _ball(parts.config)
        self._per_epoch = parts.steps // parts.config.optimizer.epochs
        self._depth = 0.0  # of the layer of the epoch, in [0, 1)
        self._layers: list[list[str]] = []
        named = parts.config.dverge.layers
        if named is not None:
            for model in parts.networks.mixture.models:
                check_layers(model, named)
            self._layers = [named] * len(parts.networks)

    @staticmethod
    def passes(count: int) -> int:
        """Return 1: each step trains all networks."""
        return 1

    def step(self, batch: Batch) -> None:
        """Train all networks on each other's features, or update the weights."""
        parts, config = self.parts, self.parts.config
        if (batch.t - 1) % self._per_epoch == 0:
            self._depth = float(torch.rand((), generator=parts.shared))
        if parts.updates(batch.t, config.weights.t_theta):
            parts.game.update(batch.x, batch.y)
            return
        everyone = range(len(parts.networks))
        attacked: list[Tensor | None] = [None] * len(everyone)
        errors = None
        if config.dverge.adversarial:
            found, errors = parts.attackers.attacked(everyone, batch.x, batch.y, parts.own)
            attacked = list(found)
        lessons = self._lessons(batch.x)
        losses, wrong = [], []
        for k in everyone:
            others = torch.cat([lessons[j] for j in everyone if j != k])
            loss, missed = self._learn(k, batch, others, attacked[k])
            losses.append(loss)
            wrong.append(missed)
        told = torch.cat(wrong) if errors is None else errors
        parts.networks.note(torch.stack(losses).mean(), told)

    def state(self) -> dict[str, Any]:
        """Return where the layer of the epoch is."""
        return {"depth": self._depth}

    def load_state(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        self._depth = state["depth"]

    def _lessons(self, x: Tensor) -> list[Tensor]:
        """Return images near x with the features, to each network, of others of the batch."""
        models = self.parts.networks.mixture.models
        if not self._layers:
            self._layers = [find_layers(model, x[:1]) for model in models]
        own = self.parts.own
        order = torch.randperm(len(x), generator=own, device=own.device).to(x.device)
        target = torch.empty_like(x)
        target[order] = x[order.roll(1)]
        config = self.parts.config
        return [
            distilled(
                model,
                layers[int(self._depth * len(layers))],
                x,
                target,
                ball=self._ball,
                steps=config.dverge.steps,
                autocast=config.run.half,
            )
            for model, layers in zip(models, self._layers, strict=True)
        ]

    def _learn(
        self, k: int, batch: Batch, others: Tensor, attacked: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Train network k on the features of others and attacks; its loss, its errors on those."""
        networks, count = self.parts.networks, len(self.parts.networks) - 1
        labels = batch.y.repeat(count)
        images, adversarial = [others], None
        if attacked is not None:
            points, adversarial = networks.task(batch.x, attacked, batch.y)
            images.append(points)
        wrong = []

        def loss(forward: Any) -> Tensor:
            logits = forward(torch.cat(images))
            wrong.append(errs(logits[: len(labels)], labels).double())
            total = count * networks.member_loss(logits[: len(labels)], labels).mean()
            if adversarial is not None:
                total = total + adversarial(logits[len(labels) :])
            return total

        return networks.minimize(k, loss, batch.learning_rate), wrong[0]


def _ball(config: TrainConfig) -> Ball:
    """Return the ball that features are distilled in: the first of the attack, or its own radius.

    Raises
    ------
    MixsolveError
        An attack in no ball at all.
    """
    balls = [threat.ball for threat in config.attack.sets if isinstance(threat, InBall)]
    if not balls:
        raise MixsolveError(
            "method = 'dverge' needs a ball among attack.threats to distill features in; got "
            f"{config.attack.threats}"
        )
    eps = config.dverge.eps
    return balls[0] if eps is None else make_ball(balls[0].norm, eps, prefix="dverge.")
