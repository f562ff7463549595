"""A solution as output of the command line: a table, a JSON object, a .npz file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from mixsolve.base.errors import MixsolveError
from mixsolve.base.files import check_output, written_aside
from mixsolve.solver.sensitivity import clean_prices
from mixsolve.solver.solution import Solution

_WEIGHTS_SHOWN = 12


def table(solution: Solution, shape: tuple[int, ...], seconds: float) -> Table:
    """Return the solution of losses of this shape, found in so many seconds, as a table."""
    weights = np.asarray(solution.weights)
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
        "weights": _weights_line(weights),
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


def as_json(solution: Solution, shape: tuple[int, ...], seconds: float) -> str:
    """Write the solution as one line of JSON, without the attack and the history.

    A number that is not finite is null.
    """
    fields = _as_dict(solution) | {"shape": shape, "seconds": seconds}
    return json.dumps(_plain(fields), allow_nan=False)


def _number(value: float) -> str:
    return f"{value:.9g}"


def _weights_line(weights: np.ndarray) -> str:
    """List the weights of the classifiers in use, heaviest first."""
    order = np.argsort(-weights, kind="stable")
    used = order[weights[order] > 0.0]
    shown = ", ".join(f"{k}: {weights[k]:.6g}" for k in used[:_WEIGHTS_SHOWN])
    more = len(used) - _WEIGHTS_SHOWN
    return shown + (f", and {more} more (--json or --out has all)" if more > 0 else "")


def _prices_line(solution: Solution) -> str:
    """List the constraints that bind, with the price of one unit of their limit."""
    assert solution.constraints is not None
    labels = (*solution.constraints.labels_ub, *solution.constraints.labels_eq)
    prices = np.concatenate(clean_prices(solution))
    binding = [
        f"{label}: {price:.6g}" for label, price in zip(labels, prices, strict=True) if price
    ]
    return ", ".join(binding) or "no constraint binds"


def _as_dict(solution: Solution) -> dict[str, Any]:
    """Collect the fields of a solution, without the attack and the history."""
    constrained: dict[str, Any] = {}
    if solution.constraints is not None and solution.prices is not None:
        constrained = dict(zip(("price_ub", "price_eq"), clean_prices(solution), strict=True))
    if solution.infeasibility is not None:
        constrained = {"clash": list(solution.infeasibility.clash)}
    return constrained | {
        "value": solution.value,
        "lower_bound": solution.lower_bound,
        "gap": solution.gap,
        "tolerance": solution.tolerance,
        "risk": solution.risk,
        "risk_lower_bound": solution.risk_lower_bound,
        "smoothing_bound": solution.smoothing_bound,
        "weights": np.asarray(solution.weights),
        "status": str(solution.status),
        "success": solution.success,
        "message": solution.message,
        "method": solution.method,
        "alpha": solution.alpha,
        "nit": solution.nit,
        "n_passes": solution.n_passes,
        "spread": solution.spread,
        "timings": solution.timings,
    }


def _plain(value: object) -> object:
    """Turn a value into JSON's types; a number that is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def check_target(
    path: Path, replace: bool, option: str = "--out", inputs: Iterable[Path | None] = ()
) -> None:
    """Refuse, before the solve, a target that could not be written, or that is one of the inputs.

    `option` names it in messages.
    """
    mend = "give --replace to overwrite it"
    check_output(path, f"{option} {path}", replace=replace, mend=mend, inputs=inputs)


def save(solution: Solution, path: Path, replace: bool) -> None:
    """Write the solution and its attack aside, then rename, so that it is never half written.

    Parameters
    ----------
    solution : Solution
        The solution.
    path : path
        A .npz file, of exactly this name.
    replace : bool
        Whether a file there may be overwritten.

    Raises
    ------
    MixsolveError
        If the file cannot be written, or exists without `replace`.
    """
    arrays = {name: value for name, value in _as_dict(solution).items() if name != "timings"}
    arrays["attack_indptr"] = solution.attack.indptr
    arrays["attack_candidates"] = solution.attack.candidates
    arrays["attack_probabilities"] = solution.attack.probabilities
    try:
        with written_aside(path) as aside:
            with aside.open("xb") as file:
                np.savez(file, **arrays)
            check_target(path, replace)
    except OSError as error:
        raise MixsolveError(f"--out {path} could not be written: {error}") from error
