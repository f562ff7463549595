"""The settings of a training run: typed sections, read from a TOML file and the command line.

The article fixes the data sets, ResNet-18, eps = 8/255, PGD with 10 steps, batches of 1024 and 200
epochs per model. It leaves open the learning rate and its schedule, T_theta, T_lambda, the
candidates that the weights are updated on and how: those defaults are this project's choices.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mixsolve.base.arguments import as_count, as_length, as_norm, as_real
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.attacks.threat_list import read_threats
from mixsolve_torch.attacks.threats import InBall, Threat


@dataclass(frozen=True)
class DataConfig:
    """The images.

    Parameters
    ----------
    name : str
        "digits", "mnist", "fashion-mnist", "svhn", "cifar10", "cifar100"; a .npz file with
        ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``, or with ``images``
        and ``labels`` to train on alone; or a directory of class folders, with ``train`` and
        ``test`` (or ``val``) above them, or without to train on alone.
    dir : str, optional
        Where the data sets are, as `load_data` takes it.
    download : bool
        Fetch a data set that is not there.
    limit : int, optional
        Training images to use, from the first on; all of them by default.
    size : int, optional
        Bring the image files of a directory to size x size pixels.
    validation : float
        Share of the training images held out to select the best epoch on, in (0, 1).
    crop : int
        Pixels of zero padding that random crops move in; 0 for none.
    flip : bool
        Mirror half of the images.
    test : str, optional
        Where the test images are, if not in `name`: a .npz file with ``images`` and ``labels``, or
        with a test part, or a name or directory as above.
    """

    name: str = "digits"
    dir: str | None = None
    download: bool = False
    limit: int | None = None
    size: int | None = None
    validation: float = 0.1
    crop: int = 0
    flip: bool = False
    test: str | None = None


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
    """

    architecture: str = "digits-cnn"
    count: int = 2
    ema: float = 0.0


@dataclass(frozen=True)
class LossConfig:
    """The loss each classifier is trained on.

    Parameters
    ----------
    name : {"at", "trades"}
        "at": cross-entropy on attacked images, the attack ascends its expectation over the mixture.
        "trades": cross-entropy on clean images and beta times the divergence between predictions
        on clean and attacked ones, the attack ascends the expected divergence over the mixture.
    beta : float
        Of TRADES.
    """

    name: Literal["at", "trades"] = "at"
    beta: float = 6.0


@dataclass(frozen=True)
class AttackConfig:
    """The attack on the whole mixture that classifiers are trained on.

    Parameters
    ----------
    norm : {"Linf", "L2", "L1"}
        The norm of the ball; other spellings such as "inf" or "l2" will do.
    eps : str or float
        Its radius in the unit of images in [0, 1]; a fraction such as "8/255" will do.
    threats : list of str, optional
        Sets instead of one ball, e.g. ``["Linf:8/255", "L2:0.5", "rotations:15"]``, as
        `read_threats` takes them. Each batch is attacked by PGD in each ball and by all points of
        each finite set, and each image is trained on where the loss is largest.
    steps : int
        Steps of PGD.
    step_size : str or float, optional
        Length of a step; 2.5 eps / steps by default.
    loss : {"cross-entropy", "margin"}
        What the attack ascends under "at". "margin" is the expected bounded margin, which is nearer
        to the share of classifiers fooled.
    batch_norm : {"eval", "train"}
        Statistics that batch norms use during the attack: their running ones, or those of the
        attacked batch. The running ones are not touched by attacks either way.
    own_share : float
        Part of each batch, in [0, 1], that is attacked for a network alone: each network trains on
        points of its own there, and on those of the mixture elsewhere.
    """

    norm: str = "Linf"
    eps: str | float = "8/255"
    threats: list[str] | None = None
    steps: int = 10
    step_size: str | float | None = None
    loss: Literal["cross-entropy", "margin"] = "cross-entropy"
    batch_norm: Literal["eval", "train"] = "eval"
    own_share: float = 0.0

    def __post_init__(self) -> None:
        """Normalise the spelling of the norm."""
        object.__setattr__(self, "norm", as_norm("attack.norm", self.norm))
        if self.threats is None:
            return
        own = {"norm": self.norm, "eps": self.eps, "step_size": self.step_size}
        plain = {entry.name: entry.default for entry in dataclasses.fields(self)}
        for name, value in own.items():
            if value != plain[name]:
                raise MixsolveError(
                    f"attack.{name} must be left out with attack.threats, which have their own; "
                    f"got {value!r}"
                )
        read_threats(self.threats, name="attack.threats")

    @property
    def declared(self) -> dict[str, Any]:
        """The same as the keywords `norm` and `eps`, or `threats`, of attacks and evaluations."""
        if self.threats is None:
            return {"norm": self.norm, "eps": self.radius}
        return {"threats": self.threats}

    @property
    def sets(self) -> tuple[Threat, ...]:
        """The sets that images are attacked in."""
        if self.threats is None:
            return (InBall(make_ball(self.norm, self.eps, prefix="attack.")),)
        return read_threats(self.threats, name="attack.threats")

    @property
    def radius(self) -> float:
        """The radius as a number."""
        return make_ball(self.norm, self.eps, prefix="attack.").eps

    @property
    def step(self) -> float:
        """The length of a step as a number."""
        if self.step_size is None:
            return 2.5 * self.radius / self.steps
        return as_length("attack.step_size", self.step_size)


@dataclass(frozen=True)
class WeightsConfig:
    """How the weights of the mixture are updated during training.

    Parameters
    ----------
    update : {"none", "oracle", "entropic", "lp"}
        The solver of the game on a batch; "none" keeps the weights uniform.
    t_theta : int
        T_theta: each network makes about so many steps between two updates of the weights.
    t_lambda : int
        T_lambda: iterations of the oracle method; the others solve the game of the batch.
    loss : {"zero-one", "cross-entropy"}
        The loss of that game.
    alpha : float
        Regularisation of "entropic", in the unit of the loss.
    momentum : float
        Weight of the old weights in an update, in [0, 1): a single batch is noisy.
    floor : float
        The smallest weight of a network in the mixture that is attacked in training, in units of
        1 / L: the attack sees (1 - floor) weights + floor / L. With 0, a network of small weight is
        not attacked, loses its robustness, and the game takes its weight away for good.
    final : {"game", "last"}
        The weights of the mixture that is evaluated and deployed: the solution of the game on
        held-out images with fresh attacks, or those that it had in the epoch kept.
    """

    update: Literal["none", "oracle", "entropic", "lp"] = "none"
    t_theta: int = 10
    t_lambda: int = 50
    loss: Literal["zero-one", "cross-entropy"] = "zero-one"
    alpha: float = 0.01
    momentum: float = 0.9
    floor: float = 0.5
    final: Literal["game", "last"] = "game"


@dataclass(frozen=True)
class OptimizerConfig:
    """Stochastic gradient descent.

    Parameters
    ----------
    epochs : int
        Passes over the data per model; "algorithm2" makes L times as many, as a step trains one.
    batch_size : int
        Images of a step, over all devices together.
    learning_rate : float
        At its peak.
    schedule : {"step", "cyclic", "constant"}
        "step" divides the learning rate by 10 at 50 % and at 75 % of all steps.
    momentum : float
        Of the descent.
    weight_decay : float
        Factor of the squared norm of the parameters.
    """

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: Literal["step", "cyclic", "constant"] = "step"
    momentum: float = 0.9
    weight_decay: float = 5e-4


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured during training and at the end.

    Parameters
    ----------
    select : {"validation", "test"}
        What the most robust epoch is selected on. The article selects on the test set, which
        flatters the result.
    every : int
        Epochs per model between two measurements.
    steps : int
        Steps of the PGD attack of the measurements during training.
    images : int, optional
        Images of the measurements during training; all by default.
    final : str
        Attacks at the end, a name as `resolve_attacks` knows it; "none" for no final evaluation.
    final_steps, final_restarts : int
        Their effort.
    final_images : int, optional
        Test images attacked at the end; all by default.
    compare : str, optional
        A network to compare the mixture with in the end, one trained at equal cost: `best.pt` of a
        run with ``model.count = 1``, or the run's folder. The best network of the mixture is
        compared in any case.
    """

    select: Literal["validation", "test"] = "validation"
    every: int = 1
    steps: int = 20
    images: int | None = None
    final: str = "standard"
    final_steps: int = 100
    final_restarts: int = 5
    final_images: int | None = None
    compare: str | None = None


@dataclass(frozen=True)
class RunConfig:
    """Where and how it runs.

    Parameters
    ----------
    out : str
        Folder of checkpoints, metrics and pictures.
    seed : int
        Of all random draws.
    device : str
        "auto" for the accelerator if there is one, or a device as PyTorch names it.
    autocast : bool
        Run networks in bfloat16 where PyTorch's autocast deems it safe.
    channels_last : bool
        Keep images and networks in the memory format that suits convolutions on accelerators.
    compile : bool
        Run networks through `torch.compile`, in training and in its attacks.
    save_every : int
        Steps between two checkpoints besides those after each epoch; 0 for none.
    tensorboard : bool
        Write event files too, if TensorBoard is installed.
    """

    out: str = "runs/mixture"
    seed: int = 0
    device: str = "auto"
    autocast: bool = False
    channels_last: bool = False
    compile: bool = False
    save_every: int = 0
    tensorboard: bool = True


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Parameters
    ----------
    data : DataConfig
        The images.
    model : ModelConfig
        The classifiers.
    loss : LossConfig
        What they are trained on.
    attack : AttackConfig
        The attack during training; its ball, or its threats, are those of all evaluations.
    weights : WeightsConfig
        How the mixture is updated.
    optimizer : OptimizerConfig
        The descent.
    evaluation : EvaluationConfig
        What is measured.
    run : RunConfig
        Where and how it runs.
    method : {"together", "algorithm2"}
        "together": every step trains all networks on one attack on the mixture. "algorithm2": every
        step trains one network, drawn at random, as in the article.

    Raises
    ------
    MixsolveError
        A value that is out of its range; the message names it as the configuration file does.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    run: RunConfig = field(default_factory=RunConfig)
    method: Literal["together", "algorithm2"] = "together"

    def __post_init__(self) -> None:
        """Check the values."""
        as_real("data.validation", self.data.validation, above=0, below=1)
        as_count("data.crop", self.data.crop, 0)
        as_count("model.count", self.model.count)
        as_real("model.ema", self.model.ema, at_least=0, below=1)
        as_real("loss.beta", self.loss.beta, at_least=0)
        as_count("attack.steps", self.attack.steps)
        as_real("attack.own_share", self.attack.own_share, at_least=0, at_most=1)
        _ = self.attack.step  # reads the radius too, or says what is wrong with it
        as_real("weights.floor", self.weights.floor, at_least=0, at_most=1)
        as_count("weights.t_theta", self.weights.t_theta)
        as_count("weights.t_lambda", self.weights.t_lambda)
        as_real("weights.alpha", self.weights.alpha, above=0)
        as_real("weights.momentum", self.weights.momentum, at_least=0, below=1)
        as_count("optimizer.epochs", self.optimizer.epochs)
        as_count("optimizer.batch_size", self.optimizer.batch_size)
        as_real("optimizer.learning_rate", self.optimizer.learning_rate, above=0)
        as_real("optimizer.momentum", self.optimizer.momentum, at_least=0, below=1)
        as_real("optimizer.weight_decay", self.optimizer.weight_decay, at_least=0)
        as_count("evaluation.every", self.evaluation.every)
        as_count("evaluation.steps", self.evaluation.steps)
        as_count("evaluation.final_steps", self.evaluation.final_steps)
        as_count("evaluation.final_restarts", self.evaluation.final_restarts)
        for name, limit in (
            ("data.limit", self.data.limit),
            ("data.size", self.data.size),
            ("evaluation.images", self.evaluation.images),
            ("evaluation.final_images", self.evaluation.final_images),
        ):
            if limit is not None:
                as_count(name, limit)
        as_count("run.seed", self.run.seed, 0)
        as_count("run.save_every", self.run.save_every, 0)
        _check_choices("", self)
        for section in SECTIONS:
            _check_choices(f"{section}.", getattr(self, section))

    def to_dict(self) -> dict[str, Any]:
        """Return the sections as plain dictionaries, paths as strings."""
        return _plain(dataclasses.asdict(self))


SECTIONS = tuple(
    entry.name
    for entry in dataclasses.fields(TrainConfig)
    if entry.default_factory is not dataclasses.MISSING
)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _check_choices(prefix: str, values: Any) -> None:
    for name, hint in get_type_hints(type(values)).items():
        value = getattr(values, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            words = ", ".join(repr(word) for word in get_args(hint))
            raise MixsolveError(f"{prefix}{name} must be one of {words}; got {value!r}")
