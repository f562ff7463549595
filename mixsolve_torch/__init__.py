"""Mixtures of PyTorch classifiers: expected losses, attacks on them, and loss tensors to solve.

The game is solved by `mixsolve.solve`; this package builds its input from real networks and puts
the weights it returns to use. The risk of a mixture is everywhere the *expected* loss
``sum_k lam_k loss(f_k(x'), y)``: attacks ascend it and tables report it. Images are NCHW in
[0, 1], networks normalise their own input and return logits.
"""

from mixsolve.base.errors import MissingDependencyError

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingDependencyError(
        "mixsolve_torch needs PyTorch, which is not installed; "
        "install it with: pip install 'mixsolve[torch]'"
    ) from error

from mixsolve_torch.attacks import (
    APGD,
    ARC,
    FAB,
    PGD,
    Attack,
    Distances,
    Exhaustive,
    External,
    Finite,
    Given,
    Square,
    Standard,
    Subset,
    TargetedAPGD,
    TransferPGD,
    UniformSampling,
    WorstOf,
    read_threats,
    resolve_attacks,
)
from mixsolve_torch.attacks.transforms import (
    blur,
    brightness,
    contrast,
    corruptions,
    noise,
    rotations,
    shifts,
)
from mixsolve_torch.candidates.build import CandidateLosses, build_losses
from mixsolve_torch.core.ensemble import Ensemble
from mixsolve_torch.core.losses import bounded_margin, cross_entropy, expected_loss, zero_one
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data.arrays import Digits, batches, digits
from mixsolve_torch.data.datasets import load_data
from mixsolve_torch.data.labelled import LabelledImages, to_unit
from mixsolve_torch.distributed.solver import DistributedSolution, solve_distributed
from mixsolve_torch.engine.losses import TorchLosses
from mixsolve_torch.evaluation.evaluate import evaluate
from mixsolve_torch.evaluation.report import Evaluation
from mixsolve_torch.game.ball import BallSolution, solve_ball
from mixsolve_torch.game.solve import GameRound, GameSolution, solve_game
from mixsolve_torch.gradients.functions import game_value, game_weights
from mixsolve_torch.growth.folder import GrowRound
from mixsolve_torch.growth.loop import Growth, grow
from mixsolve_torch.models.architectures import (
    Normalize,
    build_model,
    digits_cnn,
    mnist_cnn,
    resnet18,
    wide_resnet28_10,
)
from mixsolve_torch.models.black_box import BlackBox
from mixsolve_torch.models.load import load_model
from mixsolve_torch.reach import views
from mixsolve_torch.reach.losses import reach_losses
from mixsolve_torch.reach.masked import Masked
from mixsolve_torch.reach.sets import Patch, Sensors
from mixsolve_torch.training import TrainConfig, Training, fit, train
from mixsolve_torch.training.views import choose_views, fit_views
from mixsolve_torch.verification.verify import Verification, verify

__all__ = [
    "APGD",
    "ARC",
    "FAB",
    "PGD",
    "Attack",
    "BallSolution",
    "BlackBox",
    "CandidateLosses",
    "Digits",
    "Distances",
    "DistributedSolution",
    "Ensemble",
    "Evaluation",
    "Exhaustive",
    "External",
    "Finite",
    "GameRound",
    "GameSolution",
    "Given",
    "GrowRound",
    "Growth",
    "LabelledImages",
    "Masked",
    "Mixture",
    "Normalize",
    "Patch",
    "Sensors",
    "Square",
    "Standard",
    "Subset",
    "TargetedAPGD",
    "TorchLosses",
    "TrainConfig",
    "Training",
    "TransferPGD",
    "UniformSampling",
    "Verification",
    "WorstOf",
    "batches",
    "blur",
    "bounded_margin",
    "brightness",
    "build_losses",
    "build_model",
    "choose_views",
    "contrast",
    "corruptions",
    "cross_entropy",
    "digits",
    "digits_cnn",
    "evaluate",
    "expected_loss",
    "fit",
    "fit_views",
    "game_value",
    "game_weights",
    "grow",
    "load_data",
    "load_model",
    "mnist_cnn",
    "noise",
    "reach_losses",
    "read_threats",
    "resnet18",
    "resolve_attacks",
    "rotations",
    "shifts",
    "solve_ball",
    "solve_distributed",
    "solve_game",
    "to_unit",
    "train",
    "verify",
    "views",
    "wide_resnet28_10",
    "zero_one",
]
