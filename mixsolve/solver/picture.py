"""The picture of a solution: weights, risks, and the gap over time.

Alone, classifier k has the risk ``sum_i w_i max_j l_ijk``, and each mixture that of its own best
response. The attack on the optimal mixture is one that each classifier meets: it loses no more to
that than its own risk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixsolve import plots
from mixsolve.base.errors import MixsolveError
from mixsolve.methods.stopping import Status
from mixsolve.solver.request import OpenGame
from mixsolve.solver.view import as_vector, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# `solution` is everywhere a `mixsolve.Solution`, whose module imports this one.


_SAME = 1e-6  # of the spread: by how much a risk may differ from what it was in the solve


def figure(solution: Any, losses: Any, mask: Any, prior: Any) -> Figure:
    """Draw a solution; see `Solution.plot`."""
    if solution.status is Status.INFEASIBLE:
        raise MixsolveError(f"nothing was solved: {solution.message}")
    plots.require_matplotlib()
    weights = as_vector(solution)
    names = [title(solution.names, k) for k in range(weights.size)]
    if losses is not None:
        bars, about = _risks(solution, names, losses, mask, prior), "adversarial risk"
    else:
        attacked = solution.attacked_losses
        known = [] if attacked is None else zip(names, attacked.tolist(), strict=True)
        bars = [(name, loss, "single") for name, loss in known]
        about = "loss under the attack on the mixture"
    bars.append(("optimal mixture", solution.risk, "optimal"))
    history = [(record.seconds, record.gap) for record in solution.history]
    return plots.solution_picture(
        list(zip(names, weights.tolist(), strict=True)), bars, about, history, solution.tolerance
    )


def _risks(
    solution: Any, names: list[str], losses: Any, mask: Any, prior: Any
) -> list[tuple[str, float, str]]:
    """Risks of each classifier alone and of the uniform mixture, by name and kind."""
    count = len(names)
    given = losses, solution.sample_weight, mask, prior, (None,) * 5
    with OpenGame(*given) as game, game.form(0.0):
        if (game.losses.n_samples, game.losses.n_classifiers) != (
            solution.sample_weight.size,
            count,
        ):
            raise MixsolveError(
                f"losses must be those that were solved, of {solution.sample_weight.size} samples "
                f"and {count} classifiers; got {game.losses.n_samples} and "
                f"{game.losses.n_classifiers}"
            )
        engine = game.engine

        def risk(weights: np.ndarray) -> float:
            return float(np.ldexp(engine.best_response(weights).value, game.exponent))

        again = risk(as_vector(solution))
        if not abs(again - solution.risk) <= _SAME * max(solution.spread, abs(solution.risk)):
            raise MixsolveError(
                "losses must be those that were solved, with their candidate_mask: the risk was "
                f"{solution.risk:.9g}, with these it is {again:.9g}"
            )
        alone = [
            (name, risk(row), "single") for name, row in zip(names, np.eye(count), strict=True)
        ]
        return [*alone, ("uniform mixture", risk(np.full(count, 1 / count)), "uniform")]
