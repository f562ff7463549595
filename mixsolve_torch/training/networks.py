"""The networks under training, and a step of gradient descent of one of them on attacked images.

    AT:      theta_k  <-  SGD on   loss(f_k(x'), y)                 (see `training.member_loss`)
    TRADES:  theta_k  <-  SGD on   loss(f_k(x), y) + beta KL( p_k(x) || p_k(x') )

Each network has an optimiser of its own and, if configured, a moving average. What runs a network
(compiled, or the module itself) is shared by training and attacks.

References
----------
Madry, Makelov, Schmidt, Tsipras, Vladu. Towards Deep Learning Models Resistant to Adversarial
Attacks. ICLR 2018.
Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan. Theoretically Principled Trade-off between Robustness and
Accuracy. ICML 2019.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.models.passes import after_run, before_run
from mixsolve_torch.training.adversary import divergence
from mixsolve_torch.training.averaging import MovingAverage
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.member_loss import member_loss
from mixsolve_torch.training.ranks import Ranks

_GRAPHS = 16  # of one network


def as_run(models: Sequence[nn.Module], config: TrainConfig) -> list[Any]:
    """Return what runs each network: the module, or its compiled form on the same parameters."""
    return [torch.compile(model) for model in models] if config.run.compile else list(models)


@contextmanager
def room_to_compile(config: TrainConfig) -> Iterator[None]:
    """Let `torch.compile` keep a graph of every network in each of the ways it is run.

    They are trained, attacked and measured, each with and without gradients and on batches of
    several sizes. All share one entry point, for which PyTorch keeps 8 graphs in all; after that it
    runs networks uncompiled.
    """
    if not config.run.compile:
        yield
        return
    settings: Any = importlib.import_module("torch._dynamo.config")
    names = ("recompile_limit", "cache_size_limit")  # since 2.6, and before
    name = next(name for name in names if hasattr(settings, name))
    limit = max(getattr(settings, name), _GRAPHS * config.model.count)
    with settings.patch({name: limit}):
        yield


class Networks:
    """The networks of a run, their weights, optimisers and averages.

    Parameters
    ----------
    config : TrainConfig
        What to do.
    models : list of torch.nn.Module
        The L classifiers, on the device.
    ranks : Ranks
        This process among those of the run.

    Attributes
    ----------
    mixture : Mixture
        The classifiers and their weights.
    runs : list of callable
        What runs each network: the module, or its compiled form.
    loss : torch.Tensor of shape () or None
        The last one noted.
    member_loss : callable
        The loss (B,) of a network's logits (B, classes) and labels (B,).
    """

    def __init__(self, config: TrainConfig, models: list[nn.Module], ranks: Ranks) -> None:
        self._config = config
        self.member_loss = member_loss(config.loss)
        self.mixture = Mixture(models).to(ranks.device)
        self._optimizers = [self._optimizer(model, ranks) for model in models]
        scaled = config.run.half is torch.float16
        self._scalers = [torch.amp.GradScaler(ranks.device.type, enabled=scaled) for _ in models]
        self._averages = [
            MovingAverage(model, config.model.ema) for model in (models if config.model.ema else [])
        ]
        self.runs: list[Any] = as_run(models, config)
        self._forwards = [self._in_step(run, ranks) for run in self.runs]
        self.loss: Tensor | None = None
        zero = torch.zeros((), dtype=torch.float64, device=ranks.device)
        self._totals = {"loss": zero, "errors": zero.clone(), "steps": zero.clone()}

    def __len__(self) -> int:
        """Return L, the number of networks."""
        return len(self.mixture)

    @property
    def evaluated(self) -> Mixture:
        """The mixture to measure and keep: of the averaged parameters, where there are averages."""
        if not self._averages:
            return self.mixture
        return Mixture([average.module for average in self._averages], self.mixture.weights)

    def descend(
        self,
        k: int,
        x: Tensor,
        attacked: Tensor,
        y: Tensor,
        learning_rate: float,
        share: Tensor | None = None,
    ) -> Tensor:
        """Make a step of descent of network k, and return its loss before it.

        Parameters
        ----------
        k : int
            The network.
        x, attacked, y : torch.Tensor of shape (B, C, H, W), (B, C, H, W), (B,)
            Images, what an attack made of them, and labels.
        learning_rate : float
            Of this step.
        share : torch.Tensor of shape (B,), optional
            How much each image counts; 1 by default. The loss is the mean of the products.
        """
        images, loss = self.task(x, attacked, y, share)
        return self.minimize(k, lambda forward: loss(forward(images)), learning_rate)

    def task(
        self, x: Tensor, attacked: Tensor, y: Tensor, share: Tensor | None = None
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return the images that a network is run on to learn from a batch, and the loss.

        Parameters
        ----------
        x, attacked, y, share
            As in `descend`.

        Returns
        -------
        images : torch.Tensor of shape (B', C, H, W)
            The attacked ones; before them, under TRADES, those that they were made of.
        loss : callable
            The mean loss as a function of the logits (B', classes) on these.
        """

        def mean(values: Tensor) -> Tensor:
            return (values if share is None else share * values).mean()

        if self._config.loss.name == "at":
            return attacked, lambda logits: mean(self.member_loss(logits, y))

        def loss(logits: Tensor) -> Tensor:
            clean, moved = logits.chunk(2)
            apart = mean(divergence(clean.log_softmax(dim=1), moved.log_softmax(dim=1)))
            return mean(self.member_loss(clean, y)) + self._config.loss.beta * apart

        return torch.cat([x, attacked]), loss

    def minimize(
        self, k: int, loss: Callable[[Callable[[Tensor], Tensor]], Tensor], learning_rate: float
    ) -> Tensor:
        """Make a step of SGD of network k on a loss of one run of it, and return the loss.

        Parameters
        ----------
        k : int
            The network.
        loss : callable
            Takes what maps images (B, C, H, W) to the network's logits (B, classes), in train mode
            and to be called once, and returns the loss.
        learning_rate : float
            Of this step.
        """
        optimizer = self._optimizers[k]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        self.mixture.models[k].train()
        half, scaler = self._config.run.half, self._scalers[k]
        with torch.autocast(self.mixture.device.type, dtype=half, enabled=half is not None):
            reached = loss(partial(self._counted, k))
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(reached).backward()
        scaler.step(optimizer)
        scaler.update()
        if self._averages:
            self._averages[k].update(self.mixture.models[k])
        return reached.detach()

    def start(self, k: int, parameters: Mapping[str, Tensor]) -> None:
        """Give network k these parameters and buffers; its average begins with them."""
        model = self.mixture.models[k]
        model.load_state_dict(parameters)
        if self._averages:
            self._averages[k].restart(model)

    def finish(self, k: int) -> None:
        """Put the average of network k, if there is one, in its place: it is trained no more."""
        if self._averages:
            self.mixture.models[k].load_state_dict(self._averages[k].module.state_dict())

    def finite(self) -> bool:
        """Whether the losses noted, the parameters and the optimisers' state are finite."""
        entries = [self._totals["loss"]]
        for model, optimizer in zip(self.mixture.models, self._optimizers, strict=True):
            entries += model.state_dict().values()
            entries += [part for own in optimizer.state.values() for part in own.values()]
        # One NaN or infinity makes the sum one.
        sums = [part.sum() for part in entries if isinstance(part, Tensor)]
        device = self.mixture.device
        return bool(torch.stack([total.to(device).double() for total in sums]).isfinite().all())

    def note(self, loss: Tensor, errors: Tensor) -> None:
        """Count a step's mean loss and the mixture's errors (B,) on its attacked images."""
        self.loss = loss
        self._totals["loss"] += loss
        self._totals["errors"] += errors.mean()
        self._totals["steps"] += 1

    def noted(self, ranks: Ranks) -> tuple[float, float] | None:
        """Return mean loss and error since the last call, over all ranks; None without a step."""
        totals = ranks.mean(torch.stack(list(self._totals.values()))).tolist()
        for total in self._totals.values():
            total.zero_()
        loss, errors, steps = totals
        return (loss / steps, errors / steps) if steps else None

    def state(self) -> dict[str, Any]:
        """Return what the next step depends on, as tensors and plain values."""
        return {
            "weights": self.mixture.weights,
            "models": [model.state_dict() for model in self.mixture.models],
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "averages": [average.state_dict() for average in self._averages],
            "scalers": [scaler.state_dict() for scaler in self._scalers],
            "totals": dict(self._totals),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        self.mixture.set_weights(state["weights"])
        for part, saved in zip(self.mixture.models, state["models"], strict=True):
            part.load_state_dict(saved)
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for average, saved in zip(self._averages, state["averages"], strict=True):
            average.load_state_dict(saved)
        for scaler, saved in zip(self._scalers, state.get("scalers", []), strict=False):
            scaler.load_state_dict(saved)
        for name, total in self._totals.items():
            total.copy_(state["totals"][name])

    def _counted(self, k: int, images: Tensor) -> Tensor:
        """Run network k in train mode, and count its passes."""
        before = before_run()
        logits = self._forwards[k](images)
        after_run(before, logits)
        return logits

    def _optimizer(self, model: nn.Module, ranks: Ranks) -> torch.optim.Optimizer:
        options, parameters = self._config.optimizer, model.parameters()
        shared: dict[str, Any] = {
            "lr": options.learning_rate,
            "weight_decay": options.weight_decay,
            "fused": ranks.device.type == "cuda",
        }
        if options.name == "adamw":
            return torch.optim.AdamW(parameters, betas=(options.momentum, options.beta2), **shared)
        return torch.optim.SGD(parameters, momentum=options.momentum, **shared)

    @staticmethod
    def _in_step(run: Any, ranks: Ranks) -> Any:
        """Return what training goes through: a network in step with those of other ranks."""
        if ranks.size == 1:
            return run
        devices = [ranks.device] if ranks.device.type == "cuda" else None
        return DistributedDataParallel(run, device_ids=devices)
