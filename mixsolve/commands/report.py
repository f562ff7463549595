"""A solution as output of the command line: a table, a JSON object, a .npz file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from mixsolve.base.files import check_output
from mixsolve.solver.sensitivity import clean_prices
from mixsolve.solver.solution import Solution
from mixsolve.solver.view import as_vector, weights_line

_WEIGHTS_SHOWN = 12
_ELSEWHERE = " (--json or --out has all)"


def table(solution: Solution, shape: tuple[int, ...], seconds: float) -> Table:
    """Return the solution of losses of this shape, found in so many seconds, as a table."""
    weights = as_vector(solution)
    alpha = np.asarray(solution.alpha)
    entropic = bool(alpha.any())
    per_sample = f"{alpha.min():g} to {alpha.max():g}, one a sample"
    rows = {
        "losses": f"{shape[0]} samples x {shape[1]} candidates x {shape[2]} classifiers",
        "alpha": per_sample if alpha.ndim else f"{float(alpha):g}",
        "value": _number(solution.value),
        "lower bound": _number(solution.lower_bound),
        "gap": f"{solution.gap:.3g} (tolerance {solution.tolerance:.3g})",
        "adversarial risk": _number(solution.risk),
    }
    if entropic:
        rows["risk lower bound"] = _number(solution.risk_lower_bound)
        rows["risk - value at most"] = _number(solution.smoothing_bound)
    if solution.constraints is not None and solution.prices is not None:
        rows["prices"] = _prices_line(solution)
    rows |= {
        "weights": weights_line(weights, solution.names, _WEIGHTS_SHOWN, _ELSEWHERE),
        "status": f"{solution.status}: {solution.message}",
        "method": solution.method,
        "passes": f"{solution.n_passes:.4g} ({solution.nit} iterations)",
        "seconds": f"{seconds:.3g}",
    }
    lines = Table(
        title="certified" if solution.success else "not certified",
        title_style="bold green" if solution.success else "bold red",
        show_header=False,
    )
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column(overflow="fold")
    for name, text in rows.items():
        lines.add_row(name, Text(text))
    return lines


def _number(value: float) -> str:
    return f"{value:.9g}"


def _prices_line(solution: Solution) -> str:
    """List the constraints that bind, with the price of one unit of their limit."""
    assert solution.constraints is not None
    labels = (*solution.constraints.labels_ub, *solution.constraints.labels_eq)
    prices = np.concatenate(clean_prices(solution))
    binding = [
        f"{label}: {price:.6g}" for label, price in zip(labels, prices, strict=True) if price
    ]
    return ", ".join(binding) or "no constraint binds"


def check_target(
    path: Path, replace: bool, option: str = "--out", inputs: Iterable[Path | None] = ()
) -> None:
    """Refuse, before the solve, a target that could not be written, or that is one of the inputs.

    `option` names it in messages.
    """
    mend = "give --replace to overwrite it"
    check_output(path, f"{option} {path}", replace=replace, mend=mend, inputs=inputs)


def save(solution: Solution, path: Path, replace: bool) -> None:
    """Write the solution with its attack; what is there by now is not overwritten unasked.

    Raises
    ------
    MixsolveError
        If the file cannot be written, or exists without `replace`.
    """
    check_target(path, replace)
    solution.save(path)
