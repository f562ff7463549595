"""Methods: one file each, L-dimensional mathematics against an engine's passes."""

from dataclasses import dataclass, replace
from importlib import import_module

import numpy as np

from mixsolve.kernels.constants import NEGLIGIBLE_SMOOTHING
from mixsolve.methods.problem import Outcome, Problem, blocks_of
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
    limit : str, optional
        The method that solves the exact problem instead, where alpha is so small that it makes no
        difference.
    grouped : str, optional
        The file of the method where the attacker also weighs blocks of samples.
    smooth : bool
        Whether it runs as it is where that choice has a temperature.
    """

    module: str
    exact: bool = False
    entropic: bool = False
    limit: str | None = None
    grouped: str | None = None
    smooth: bool = False

    def minimize(self, problem: Problem, start: np.ndarray, stop: Stop) -> Outcome:
        """Run the method from weights (L,) until `stop` is satisfied."""
        blocks = blocks_of(problem)
        tempered = blocks is not None and blocks.temperature > 0.0
        if self.limit is not None and problem.alpha is not None and not tempered:
            smoothing = problem.smoothing()
            if smoothing <= NEGLIGIBLE_SMOOTHING * stop.tolerance:
                # An attack on the exact game is one here, worth less by the smoothing at most.
                exact = replace(problem, alpha=None)
                return METHODS[self.limit].minimize(exact, start, stop.less(smoothing))
        name = self.module if blocks is None or self.grouped is None else self.grouped
        module = import_module(f"mixsolve.methods.{name}")
        outcome: Outcome = module.minimize(problem, start, stop)
        return outcome


METHODS = {
    "lp": Method("constraint_generation", exact=True, grouped="grouped_rounds"),
    "interior-point": Method("interior_point", exact=True, grouped="grouped_interior_point"),
    "oracle": Method("oracle", exact=True, grouped="oracle"),
    "newton": Method("newton", entropic=True, limit="lp", grouped="grouped_newton", smooth=True),
    "apg": Method("apg", entropic=True, smooth=True),
    "cvxpy": Method("cvxpy_model", exact=True, entropic=True, grouped="cvxpy_groups"),
}
ALIASES = {"entropic": "newton"}
