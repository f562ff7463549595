"""The steps of a training run, whatever the method: batches, draws, learning rate, state.

    for t = 1, ..., T:   B_t the next batch of a random order of the images
        the method's step on B_t, with the learning rate of t / T

An epoch is a pass over the data for each network that learns: one pass where a step trains all of
them, L where it trains one that is drawn. An incomplete batch is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.models.passes import counted
from mixsolve_torch.training.attackers import Attackers
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.images import ImageSet, prepared
from mixsolve_torch.training.methods import method_of
from mixsolve_torch.training.methods.base import Batch, Parts
from mixsolve_torch.training.methods.batch_game import BatchGame
from mixsolve_torch.training.networks import Networks, as_run
from mixsolve_torch.training.ranks import Ranks
from mixsolve_torch.training.schedules import learning_rate_factor


class Steps:
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
    t : int
        Steps made.
    steps : int
        T, the steps to make.
    steps_per_pass, steps_per_epoch : int
        Steps of one pass over the data, and of an epoch of each network.
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
        self._data = data
        self._ranks = ranks
        self.t = 0
        self._passes = 0
        batch = min(config.optimizer.batch_size, len(data))
        if batch < ranks.size:
            raise MixsolveError(
                f"optimizer.batch_size must be at least the number of processes; got {batch} for "
                f"{ranks.size}"
            )
        method = method_of(config)
        self.steps_per_pass = len(data) // batch
        self.steps_per_epoch = method.passes(len(models)) * self.steps_per_pass
        self.steps = config.optimizer.epochs * method.stages(config) * self.steps_per_epoch
        self._batch = batch
        self._order = torch.empty(0, dtype=torch.int64)
        self._reader: Iterator[tuple[Tensor, Tensor]] | None = None  # of the rest of the pass
        # The draws that all ranks share, and those of each rank for its own images.
        self._shared = torch.Generator().manual_seed(config.run.seed)
        self._own = torch.Generator(ranks.device)
        self._own.manual_seed((config.run.seed << 16) + ranks.rank + 1)
        self._networks = Networks(config, models, ranks)
        self._attackers = Attackers(config, self._networks, int(data.labels.max()), given)
        game = BatchGame(config.weights, self.mixture, self._attackers, ranks, self._own)
        self._method = method(
            Parts(
                config,
                self._networks,
                self._attackers,
                game,
                ranks,
                self.steps,
                self._shared,
                self._own,
                data.labels.bincount(),
            )
        )

    @property
    def mixture(self) -> Mixture:
        """The classifiers under training and their weights."""
        return self._networks.mixture

    @property
    def evaluated(self) -> Mixture:
        """The mixture to measure and keep: of the averaged parameters, where there are averages.

        Networks whose stage is to come are not in it.
        """
        mixture, begun = self._networks.evaluated, self._method.begun(self.t)
        if begun == len(mixture):
            return mixture
        return Mixture(list(mixture.models)[:begun], mixture.weights[:begun])

    @property
    def unfinished(self) -> set[int]:
        """The networks that are too young to be called weak."""
        return self._method.unfinished(self.t)

    @property
    def measured(self) -> Mixture:
        """The same mixture, each network as it is run: compiled, if configured."""
        mixture = self.evaluated
        return Mixture(as_run(list(mixture.models), self._config), mixture.weights)

    @property
    def loss(self) -> Tensor | None:
        """The mean loss of the last step, on the device; None if it updated weights."""
        return self._networks.loss

    @property
    def done(self) -> bool:
        """Whether all steps are made."""
        return self.t >= self.steps

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        options, progress = self._config.optimizer, self._method.progress(self.t)
        factor = learning_rate_factor(options.schedule, progress, options.warmup)
        return options.learning_rate * factor

    def begin(self, pretrained: Sequence[Mapping[str, Tensor]]) -> None:
        """Begin the first networks with these parameters and buffers."""
        for k, parameters in enumerate(pretrained):
            self._networks.start(k, parameters)
        self._method.begin(len(pretrained))

    def adopt(self, networks: Sequence[Mapping[str, Tensor]]) -> None:
        """Put the network whose stage has ended back to what it was in the epoch of these."""
        k = self._method.ended(self.t)
        if k is not None and k < len(networks):
            self._networks.start(k, networks[k])

    @property
    def between_stages(self) -> bool:
        """Whether a stage has ended with the last step, and another follows."""
        return self._method.ended(self.t) is not None

    def step(self) -> None:
        """Make one step of the method."""
        place = self.t % self.steps_per_pass
        if place == 0:
            self._order = torch.randperm(len(self._data), generator=self._shared)
            self._reader = None
        if self._reader is None:
            rest = self._order[: self.steps_per_pass * self._batch].split(self._batch)[place:]
            self._reader = self._data.reader([self._ranks.part(chosen) for chosen in rest])
        learning_rate = self.learning_rate
        self.t += 1
        stored, y = next(self._reader)
        x = prepared(
            stored,
            self._own,
            crop=self._config.data.crop,
            flip=self._config.data.flip,
            channels_last=self._config.run.channels_last,
        )
        self._networks.loss = None
        with counted() as passes:
            self._method.step(Batch(self.t, x, y, learning_rate))
        self._passes += passes.total

    def summary(self) -> dict[str, float]:
        """Return the mean training loss and robust accuracy since the last call, over all ranks.

        The accuracy is that of the attacked mixture on the attacked training images. A loss that is
        not finite is for the caller to refuse; with one that is, networks are checked. "passes" are
        the runs of one network on one image, forward and backward, since the run began.
        """
        noted = self._networks.noted(self._ranks)
        if noted is None or math.isfinite(noted[0]):
            self._attackers.check()
        made = torch.tensor(float(self._passes), dtype=torch.float64, device=self.mixture.device)
        passes: dict[str, float] = {
            "passes": round(float(self._ranks.mean(made)) * self._ranks.size)
        }
        if noted is None:
            return passes
        return {"train_loss": noted[0], "train_robust": 1.0 - noted[1], **passes}

    def finite(self) -> bool:
        """Whether losses and networks of this rank are finite; it waits for the device."""
        return self._networks.finite()

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on, as tensors and plain values."""
        return {
            "t": self.t,
            "passes": self._passes,
            "order": self._order,
            **self._networks.state(),
            "method": self._method.state(),
            "shared": self._shared.get_state(),
            "own": self._own.get_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Load what `state` returned, or what versions before there were methods did."""
        self.t = state["t"]
        self._passes = state.get("passes", 0)
        self._order, self._reader = state["order"], None
        self._networks.load_state(state)
        self._method.load_state(state.get("method", {}))
        self._shared.set_state(state["shared"].cpu())
        self._own.set_state(state["own"].cpu())
        self._attackers.refresh()
