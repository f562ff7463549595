"""Training of classifiers: one network alone, and mixtures of them."""

from mixsolve_torch.training.callbacks import Callback, Step
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.ending import Training
from mixsolve_torch.training.kept import load_trained
from mixsolve_torch.training.loop import train
from mixsolve_torch.training.settings import (
    AttackConfig,
    BoostingConfig,
    DataConfig,
    DvergeConfig,
    EvaluationConfig,
    GrowConfig,
    LossConfig,
    ModelConfig,
    MRBoostConfig,
    OptimizerConfig,
    RunConfig,
    WeightsConfig,
    WorstGroupConfig,
)
from mixsolve_torch.training.single import fit
from mixsolve_torch.training.verdict import Verdict

__all__ = [
    "AttackConfig",
    "BoostingConfig",
    "Callback",
    "DataConfig",
    "DvergeConfig",
    "EvaluationConfig",
    "GrowConfig",
    "LossConfig",
    "MRBoostConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "Step",
    "TrainConfig",
    "Training",
    "Verdict",
    "WeightsConfig",
    "WorstGroupConfig",
    "fit",
    "load_trained",
    "train",
]
