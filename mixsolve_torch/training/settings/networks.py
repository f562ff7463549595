"""The settings of the networks: what they are, what they learn from, and how they descend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mixsolve.base.arguments import as_count, as_real
from mixsolve.base.errors import MixsolveError


@dataclass(frozen=True)
class ModelConfig:
    """The classifiers of the mixture.

    Parameters
    ----------
    architecture : str
        "digits-cnn", "mnist-cnn" (28x28), "resnet18", "wide-resnet-28-10", or a module:function of
        your own, which is imported and called.
    count : int
        L, how many there are. With 1, training is that of Madry et al. or TRADES.
    ema : float
        Decay of a moving average of the parameters, which is then what is evaluated and kept; 0
        for none.
    pretrained : list of str, optional
        Networks that the run begins with instead of random ones: folders, `best.pt` or `deploy.pt`
        of runs, with one network or several, or files with a state dict each; as many networks as
        `count`. Methods that add one network after another take fewer, the first ones.
    """

    architecture: str = "digits-cnn"
    count: int = 2
    ema: float = 0.0
    pretrained: list[str] | None = None

    def check(self) -> None:
        """Refuse values out of their range."""
        as_count("model.count", self.count)
        as_real("model.ema", self.ema, at_least=0, below=1)


@dataclass(frozen=True)
class LossConfig:
    """The loss each classifier is trained on.

    Parameters
    ----------
    name : {"at", "trades"}
        "at": `member` on attacked images, the attack ascends the expected cross-entropy of the
        mixture. "trades": `member` on clean images and beta times the divergence between
        predictions on clean and attacked ones, the attack ascends the expected divergence over the
        mixture.
    beta : float
        Of TRADES.
    member : {"cross-entropy", "error", "gce", "mce"}
        What a network learns from labels: the cross-entropy -log p_y; two bounded losses, the
        probability of an error 1 - p_y and the generalized cross-entropy (1 - p_y^q) / q, under
        which a network may give up whole classes; or the cross-entropy of both sides of the margin.
    q : float
        Of "gce", in (0, 1]: 1 is "error", and towards 0 it is the cross-entropy.
    """

    name: Literal["at", "trades"] = "at"
    beta: float = 6.0
    member: Literal["cross-entropy", "error", "gce", "mce"] = "cross-entropy"
    q: float = 0.7

    def check(self) -> None:
        """Refuse values out of their range."""
        as_real("loss.beta", self.beta, at_least=0)
        as_real("loss.q", self.q, above=0, at_most=1)


@dataclass(frozen=True)
class OptimizerConfig:
    """The descent.

    Parameters
    ----------
    name : {"sgd", "adamw"}
        Stochastic gradient descent with momentum, or Adam with decoupled weight decay.
    epochs : int
        Passes over the data per model; "algorithm2" makes L times as many, as a step trains one.
    batch_size : int
        Images of a step, over all devices together.
    learning_rate : float
        At its peak.
    schedule : {"step", "cyclic", "cosine", "onecycle", "constant"}
        "step" divides the learning rate by 10 at 50 % and at 75 % of all steps, "cyclic" rises up
        to 40 % and falls to 0 along straight lines, "cosine" falls to 0 along half a cosine,
        "onecycle" rises up to 30 % and falls along half cosines.
    warmup : float
        Share of all steps, in [0, 1), in which the rate rises from 0 along a straight line; of
        "onecycle" the share in which it rises, where it is not 0. "cyclic" has none.
    momentum : float
        Of the descent; beta_1 of AdamW.
    beta2 : float
        Of AdamW.
    weight_decay : float
        Factor of the squared norm of the parameters; of AdamW the decay by a step of rate 1.
    """

    name: Literal["sgd", "adamw"] = "sgd"

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: Literal["step", "cyclic", "cosine", "onecycle", "constant"] = "step"
    warmup: float = 0.0
    momentum: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 5e-4

    def check(self) -> None:
        """Refuse values out of their range."""
        as_count("optimizer.epochs", self.epochs)
        as_count("optimizer.batch_size", self.batch_size)
        as_real("optimizer.learning_rate", self.learning_rate, above=0)
        as_real("optimizer.momentum", self.momentum, at_least=0, below=1)
        as_real("optimizer.beta2", self.beta2, at_least=0, below=1)
        as_real("optimizer.warmup", self.warmup, at_least=0, below=1)
        if self.warmup and self.schedule == "cyclic":
            raise MixsolveError(
                "optimizer.warmup must be 0 with optimizer.schedule = 'cyclic', which rises by "
                f"itself; got {self.warmup:g}; take 'onecycle'"
            )
        as_real("optimizer.weight_decay", self.weight_decay, at_least=0)
