"""Methods: one file each, L-dimensional mathematics against an engine's passes."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from mixsolve.methods.problem import Outcome, Problem
from mixsolve.methods.stopping import Stop


@dataclass(frozen=True)
class Method:
    """What a method can solve, and where it lives.

    Attributes
    ----------
    module : str
        File of this package; its ``minimize(problem, start, stop)`` is the method.
    exact, entropic : bool
        Whether it solves alpha = 0, alpha > 0.
    """

    module: str
    exact: bool = False
    entropic: bool = False

    def load(self) -> Callable[[Problem, np.ndarray, Stop], Outcome]:
        """Import the method; nothing else of the package imports it."""
        return import_module(f"mixsolve.methods.{self.module}").minimize


METHODS = {
    "lp": Method("constraint_generation", exact=True),
    "interior-point": Method("interior_point", exact=True),
    "oracle": Method("oracle", exact=True),
    "newton": Method("newton", entropic=True),
    "apg": Method("apg", entropic=True),
    "cvxpy": Method("cvxpy_model", exact=True, entropic=True),
}
ALIASES = {"entropic": "newton"}
