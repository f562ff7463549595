"""mixsolve: optimal random mixtures of classifiers against adversarial attacks, certified.

`solve` takes a loss tensor (samples x attack candidates x classifiers) and returns the weights of
the mixture that an attacker can hurt least, the attacker's optimal mixed strategy, and bounds that
prove both.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mixsolve.base.version import __version__ as __version__

if TYPE_CHECKING:
    from mixsolve import games, plots
    from mixsolve.arrays.result_file import load
    from mixsolve.base.errors import (
        ConvergenceWarning,
        MissingDependencyError,
        MixsolveError,
        MixsolveTypeError,
    )
    from mixsolve.batch.solution import BatchSolution
    from mixsolve.batch.solver import solve_batch
    from mixsolve.cardinality.path import CardinalityPath, solve_cardinality_path
    from mixsolve.engines.responses import MixedStrategy
    from mixsolve.estimator import perturbations
    from mixsolve.estimator.classifier import MixtureClassifier as MixtureClassifier
    from mixsolve.feasible import constraints
    from mixsolve.feasible.constraints import LinearConstraints
    from mixsolve.games import bounds
    from mixsolve.methods.stopping import Record, State, Status
    from mixsolve.reach.certificate import ReachCertificate
    from mixsolve.reach.losses import ReachLosses, reach_losses
    from mixsolve.solver.cross_fit import CrossFit, cross_fit, group_risks
    from mixsolve.solver.sensitivity import Sensitivity
    from mixsolve.solver.solution import Solution
    from mixsolve.solver.solve import solve, solve_path

__all__ = [
    "BatchSolution",
    "CardinalityPath",
    "ConvergenceWarning",
    "CrossFit",
    "LinearConstraints",
    "MissingDependencyError",
    "MixedStrategy",
    "MixsolveError",
    "MixsolveTypeError",
    "ReachCertificate",
    "ReachLosses",
    "Record",
    "Sensitivity",
    "Solution",
    "State",
    "Status",
    "bounds",
    "constraints",
    "cross_fit",
    "games",
    "group_risks",
    "load",
    "perturbations",
    "plots",
    "reach_losses",
    "solve",
    "solve_batch",
    "solve_cardinality_path",
    "solve_path",
]

# Needs scikit-learn, which `from mixsolve import *` must neither load nor miss: not in `__all__`.
_OPTIONAL = ("MixtureClassifier",)

# Where each public name lives; imported on first use, so that `import mixsolve` stays light.
_HOMES = {
    "arrays.result_file": ("load",),
    "batch.solver": ("solve_batch",),
    "batch.solution": ("BatchSolution",),
    "cardinality.path": ("CardinalityPath", "solve_cardinality_path"),
    "estimator.classifier": _OPTIONAL,
    "feasible.constraints": ("LinearConstraints",),
    "solver.cross_fit": ("CrossFit", "cross_fit", "group_risks"),
    "reach.certificate": ("ReachCertificate",),
    "reach.losses": ("ReachLosses", "reach_losses"),
    "solver.sensitivity": ("Sensitivity",),
    "solver.solve": ("solve", "solve_path"),
    "engines.responses": ("MixedStrategy",),
    "solver.solution": ("Solution",),
    "methods.stopping": ("Record", "State", "Status"),
    "base.errors": (
        "ConvergenceWarning",
        "MissingDependencyError",
        "MixsolveError",
        "MixsolveTypeError",
    ),
}

# Public modules, by the name that `import mixsolve` gives them.
_MODULES = {
    "bounds": "games.bounds",
    "constraints": "feasible.constraints",
    "games": "games",
    "perturbations": "estimator.perturbations",
    "plots": "plots",
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            found = globals()[name] = getattr(import_module(f"mixsolve.{module}"), name)
            return found
    if name in _MODULES:
        return import_module(f"mixsolve.{_MODULES[name]}")
    raise AttributeError(f"module 'mixsolve' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_OPTIONAL, "__version__"})
