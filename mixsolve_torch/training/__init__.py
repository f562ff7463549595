"""Training of classifiers: one network alone, and mixtures of them."""

from mixsolve_torch.training.config import (
    AttackConfig,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    WeightsConfig,
)
from mixsolve_torch.training.loop import Training, train
from mixsolve_torch.training.single import fit

__all__ = [
    "AttackConfig",
    "DataConfig",
    "EvaluationConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "TrainConfig",
    "Training",
    "WeightsConfig",
    "fit",
    "train",
]
