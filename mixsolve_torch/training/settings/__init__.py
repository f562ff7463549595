"""The sections of a training run's settings: the tables of its TOML file."""

from mixsolve_torch.training.settings.game import AttackConfig, WeightsConfig
from mixsolve_torch.training.settings.images import DataConfig
from mixsolve_torch.training.settings.methods import (
    BoostingConfig,
    DvergeConfig,
    GrowConfig,
    MRBoostConfig,
    WorstGroupConfig,
)
from mixsolve_torch.training.settings.networks import LossConfig, ModelConfig, OptimizerConfig
from mixsolve_torch.training.settings.run import EvaluationConfig, RunConfig

__all__ = [
    "AttackConfig",
    "BoostingConfig",
    "DataConfig",
    "DvergeConfig",
    "EvaluationConfig",
    "GrowConfig",
    "LossConfig",
    "MRBoostConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "WeightsConfig",
    "WorstGroupConfig",
]
