"""Algorithm 2 of the article: adversarial training for mixtures, one step at a time.

    for t = 1, ..., T:   B_t a batch
        if t mod (T_theta L + 1) != 0:
            k drawn uniformly;  B'_t an attack of B_t on the mixture (lam, theta)
            theta_k  <-  a step of SGD on B'_t
        else:
            lam  <-  the game on B_t, with the attacks found for it, solved or approached

A batch's game has these candidates for each image: the image itself, the attack on the mixture, and
the attack on each classifier alone, all on the present classifiers. "oracle" makes T_lambda
steps of Algorithm 1 from the present weights, "entropic" and "lp" solve the game. The weights move
by 1 - momentum of the way. With L = 1 there are no weights, and every step trains.

T counts passes over the data: L times the epochs per model. A step trains one model, so each gets
about `epochs` passes, and the learning rate of all follows t / T.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 4.3.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mixsolve.base.errors import ConvergenceWarning, MixsolveError
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.core.losses import LOSSES
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.training.adversary import Adversary, divergence
from mixsolve_torch.training.averaging import MovingAverage
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.images import ImageSet
from mixsolve_torch.training.ranks import Ranks
from mixsolve_torch.training.schedules import learning_rate_factor

_METHODS = {"oracle": "oracle", "entropic": "newton", "lp": "lp"}


class Algorithm2:
    """The state of a training run, and its steps.

    Parameters
    ----------
    config : TrainConfig
        What to do.
    models : list of torch.nn.Module
        The L classifiers, on the device.
    data : ImageSet
        The training images, on the device; the same on all ranks.
    ranks : Ranks
        This process among those of the run.
    given : Attack, optional
        What batches are trained on, in place of PGD on the mixture.

    Attributes
    ----------
    mixture : Mixture
        The classifiers under training and their weights.
    t : int
        Steps made.
    steps : int
        T, the steps to make.
    steps_per_pass : int
        Steps of one pass over the data.
    """

    def __init__(
        self,
        config: TrainConfig,
        models: list[nn.Module],
        data: ImageSet,
        ranks: Ranks,
        given: Attack | None = None,
    ) -> None:
        self._config = config
        self._given = given
        self._data = data
        self._ranks = ranks
        self.mixture = Mixture(models).to(ranks.device)
        self.t = 0
        batch = min(config.optimizer.batch_size, len(data))
        if batch < ranks.size:
            raise MixsolveError(
                f"optimizer.batch_size must be at least the number of processes; got {batch} for "
                f"{ranks.size}"
            )
        self.steps_per_pass = len(data) // batch  # an incomplete batch is left out
        self.steps = len(models) * config.optimizer.epochs * self.steps_per_pass
        self._batch = batch
        self._order = torch.empty(0, dtype=torch.int64)
        # The draws that all ranks share, and those of each rank for its own images.
        self._shared = torch.Generator().manual_seed(config.run.seed)
        self._own = torch.Generator(ranks.device)
        self._own.manual_seed((config.run.seed << 16) + ranks.rank + 1)
        self._optimizers = [self._optimizer(model) for model in models]
        self._averages = [
            MovingAverage(model, config.model.ema) for model in (models if config.model.ema else [])
        ]
        self._forwards = [self._forward(model) for model in models]
        self._adversary = self._attacker()
        alone = torch.eye(len(models), dtype=torch.float64)
        self._alone = [self._attacker(weights) for weights in alone] if self._plays else []
        zero = torch.zeros((), dtype=torch.float64, device=ranks.device)
        self._totals = {"loss": zero, "errors": zero.clone(), "steps": zero.clone()}

    @property
    def done(self) -> bool:
        """Whether all steps are made."""
        return self.t >= self.steps

    @property
    def evaluated(self) -> Mixture:
        """The mixture to measure and keep: of the averaged parameters, where there are averages."""
        if not self._averages:
            return self.mixture
        return Mixture([average.module for average in self._averages], self.mixture.weights)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        factor = learning_rate_factor(self._config.optimizer.schedule, self.t / self.steps)
        return self._config.optimizer.learning_rate * factor

    def step(self) -> None:
        """Make one step of Algorithm 2."""
        place = self.t % self.steps_per_pass
        if place == 0:
            self._order = torch.randperm(len(self._data), generator=self._shared)
        learning_rate = self.learning_rate
        self.t += 1
        count = len(self.mixture)
        chosen = self._ranks.part(self._order[place * self._batch : (place + 1) * self._batch])
        options = self._config.data
        x, y = self._data.batch(
            chosen,
            generator=self._own,
            crop=options.crop,
            flip=options.flip,
            channels_last=self._config.run.channels_last,
        )
        if self._plays and self.t % (self._config.weights.t_theta * count + 1) == 0:
            self._update_weights(x, y)
        else:
            k = int(torch.randint(count, (), generator=self._shared))
            self._train(k, x, y, learning_rate)

    def summary(self) -> dict[str, float]:
        """Return the mean training loss and robust accuracy since the last call, over all ranks.

        The accuracy is that of the whole mixture on the attacked training images.
        """
        totals = self._ranks.mean(torch.stack(list(self._totals.values()))).tolist()
        loss, errors, steps = (value / max(totals[2], 1.0) for value in totals)
        for total in self._totals.values():
            total.zero_()
        self._adversary.check()
        return {"train_loss": loss, "train_robust": 1.0 - errors} if steps else {}

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on, as tensors and plain values."""
        return {
            "t": self.t,
            "order": self._order,
            "weights": self.mixture.weights,
            "models": [model.state_dict() for model in self.mixture.models],
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "averages": [average.state_dict() for average in self._averages],
            "shared": self._shared.get_state(),
            "own": self._own.get_state(),
            "totals": dict(self._totals),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        self.t = state["t"]
        self._order = state["order"]
        self.mixture.set_weights(state["weights"])
        for part, saved in zip(self.mixture.models, state["models"], strict=True):
            part.load_state_dict(saved)
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for average, saved in zip(self._averages, state["averages"], strict=True):
            average.load_state_dict(saved)
        self._shared.set_state(state["shared"].cpu())
        self._own.set_state(state["own"].cpu())
        for name, total in self._totals.items():
            total.copy_(state["totals"][name])
        self._adversary.refresh()

    def _train(self, k: int, x: Tensor, y: Tensor, learning_rate: float) -> None:
        """A step of SGD of classifier k on an attack on the mixture."""
        attacked, errors = self._adversary(x, y, self._own)
        optimizer = self._optimizers[k]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        self.mixture.models[k].train()
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self._config.run.autocast):
            loss = self._loss(k, x, attacked, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if self._averages:
            self._averages[k].update(self.mixture.models[k])
        self._totals["loss"] += loss.detach()
        self._totals["errors"] += errors.mean()
        self._totals["steps"] += 1

    def _loss(self, k: int, x: Tensor, attacked: Tensor, y: Tensor) -> Tensor:
        forward = self._forwards[k]
        if self._config.loss.name == "at":
            return nn.functional.cross_entropy(forward(attacked), y)
        clean, moved = forward(torch.cat([x, attacked])).chunk(2)
        apart = divergence(clean.log_softmax(dim=1), moved.log_softmax(dim=1)).mean()
        return nn.functional.cross_entropy(clean, y) + self._config.loss.beta * apart

    def _update_weights(self, x: Tensor, y: Tensor) -> None:
        """Solve the batch's game, or approach its solution, and move towards that."""
        config = self._config.weights
        losses = self._game(x, y)
        old = self.mixture.weights.clone()
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
        self.mixture.set_weights(config.momentum * old + (1 - config.momentum) * found)
        self._adversary.refresh()

    @torch.no_grad()
    def _game(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the losses (B, L + 2, L) of the batch's candidates."""
        loss = LOSSES[self._config.weights.loss]
        attacked = [attack(x, y, self._own)[0] for attack in (self._adversary, *self._alone)]
        with frozen(self.mixture), torch.no_grad():
            rows = [
                torch.stack(
                    [loss.function(own, y) for own in self.mixture.member_logits(point)], -1
                )
                for point in (x, *attacked)
            ]
        losses = torch.stack(rows, dim=1)
        return losses.to(torch.uint8) if not loss.differentiable else losses.float()

    @property
    def _plays(self) -> bool:
        """Whether there are weights to update."""
        return self._config.model.count > 1 and self._config.weights.update != "none"

    def _attacker(self, weights: Tensor | None = None) -> Adversary:
        return Adversary(
            self.mixture,
            self._config.attack,
            trades=self._config.loss.name == "trades",
            largest_label=int(self._data.labels.max()),
            autocast=self._config.run.autocast,
            weights=weights,
            given=self._given,
        )

    def _optimizer(self, model: nn.Module) -> torch.optim.SGD:
        options = self._config.optimizer
        return torch.optim.SGD(
            model.parameters(),
            lr=options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            fused=self._ranks.device.type == "cuda",
        )

    def _forward(self, model: nn.Module) -> nn.Module:
        """Return the module that training goes through: compiled, and in step with other ranks."""
        if self._config.run.compile:
            model = torch.compile(model)  # type: ignore[assignment]
        if self._ranks.size == 1:
            return model
        devices = [self._ranks.device] if self._ranks.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices)
