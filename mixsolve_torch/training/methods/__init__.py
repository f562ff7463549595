"""Ways to train, one file each: what a step does with a batch. `METHODS` finds them by name."""

from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.methods.algorithm2 import Algorithm2
from mixsolve_torch.training.methods.base import Method
from mixsolve_torch.training.methods.boosting import Boosting
from mixsolve_torch.training.methods.dverge import Dverge
from mixsolve_torch.training.methods.grow import Grow
from mixsolve_torch.training.methods.mrboost import MRBoost
from mixsolve_torch.training.methods.together import Together
from mixsolve_torch.training.methods.worst_group import WorstGroup

METHODS: dict[str, type[Method]] = {
    "together": Together,
    "algorithm2": Algorithm2,
    "boosting": Boosting,
    "mrboost": MRBoost,
    "grow": Grow,
    "dverge": Dverge,
}


def method_of(config: TrainConfig) -> type[Method]:
    """Return the way to train that settings name: that of the objective, if it has its own."""
    return WorstGroup if config.objective == "worst-group" else METHODS[config.method]
