"""Checks of the arguments of `solve`: each returns the checked value or says what is wrong."""

from typing import Any

import numpy as np

from mixsolve.arrays import checks, interop
from mixsolve.arrays.checks import check_each, numbers
from mixsolve.arrays.tensor import Shape
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.feasible import simplex
from mixsolve.methods import ALIASES, METHODS, Method

_SIMPLEX_TOLERANCE = 1e-6


def check_method(name: Any, *, entropic: bool, modelled: bool) -> tuple[str, Method]:
    """The method's own name and its entry, checked against what the problem needs."""
    known = ["auto", *METHODS, *ALIASES]
    if not isinstance(name, str):
        raise MixsolveTypeError(
            f"method must be a string, got {type(name).__name__}; choose one of {', '.join(known)}"
        )
    if name not in known:
        raise MixsolveError(f"method must be one of {', '.join(known)}; got {name!r}")
    name = ALIASES.get(name, name)
    if name == "auto":
        name = "cvxpy" if modelled else "newton" if entropic else "lp"
    method = METHODS[name]
    if entropic and not method.entropic:
        raise MixsolveError(
            f"alpha must be 0 for method {name!r}, which solves the exact problem; use "
            "method='newton', 'apg' or 'cvxpy' for alpha > 0"
        )
    if not entropic and not method.exact:
        raise MixsolveError(
            f"alpha must be > 0 for method {name!r}, which solves the entropic problem; use "
            "method='lp', 'oracle' or 'cvxpy' for alpha = 0"
        )
    return name, method


def check_grouped(
    name: str, method: Method, temperature: float, entropic: bool, constraints: Any
) -> None:
    """Refuse what is not solved where the attacker weighs groups or samples himself."""
    if temperature and not entropic:
        raise MixsolveError(
            "alpha_groups smooths the groups of an entropic problem, and alpha is 0; give "
            "alpha > 0, or leave the choice exact with alpha_groups=0"
        )
    if method.grouped is None and not (method.smooth and temperature):
        others = ", ".join(repr(key) for key, other in METHODS.items() if other.grouped)
        mend = " (it needs alpha_groups > 0, which smooths their choice)" if method.smooth else ""
        raise MixsolveError(
            f"method {name!r} does not choose groups or tails{mend}; use one of {others}"
        )
    if callable(constraints) and name != "cvxpy":
        raise MixsolveError(
            f"constraints are a function, which method {name!r} does not go with where there are "
            "groups or a tail; use method='cvxpy', or give linear ones as arrays"
        )


def check_alpha(alpha: Any, n_samples: int) -> np.ndarray | None:
    """Regularisation as (N,) positive numbers, or None where it is 0."""
    if isinstance(alpha, str) or alpha is None:
        raise MixsolveTypeError(
            f"alpha must be a number >= 0 or one per sample, got {alpha!r}; use 0 for the exact "
            "problem"
        )
    given = np.array([alpha]) if type(alpha) is float else alpha
    values = numbers([given] if np.isscalar(given) else given, "alpha", booleans=False)
    if np.ndim(alpha) > 1 or values.size not in ({n_samples} if np.ndim(alpha) else {1}):
        raise MixsolveError(
            f"alpha must be a number or hold one per sample, {n_samples} in all; got shape "
            f"{values.shape}"
        )
    valid = np.isfinite(values) & (values >= 0)
    if not np.ndim(alpha) and not valid.all():
        raise MixsolveError(f"alpha must be a finite number >= 0, got {alpha}")
    check_each(valid, values, "alpha", "finite and >= 0")
    if not values.any():
        return None
    check_each(values > 0, values, "alpha", "positive for every sample or 0 for every sample")
    return np.ascontiguousarray(np.broadcast_to(values, (n_samples,)))


def check_alphas(alphas: Any) -> np.ndarray:
    """Regularisations of a path as (n,) numbers; each is checked when it is solved."""
    values = numbers(alphas, "alphas", booleans=False)
    if values.ndim != 1 or not values.size:
        raise MixsolveError(
            f"alphas must be a list of numbers, one for each solve; got shape {values.shape}"
        )
    return values


def check_sample_weight(sample_weight: Any, n_samples: int) -> np.ndarray:
    """Sample weights as (N,) non-negative numbers of sum 1; uniform for None."""
    if sample_weight is None:
        return np.full(n_samples, 1.0 / n_samples)
    return checks.check_sample_weight(sample_weight, n_samples)


def _flat_table(table: Any, name: str, shape: Shape) -> np.ndarray:
    """One number a row of the tensor, from an (N, m) array or a list of (m_i,) arrays."""
    lengths = np.diff(shape.offsets)
    if isinstance(table, (list, tuple)) and len({np.shape(row) for row in table}) > 1:
        rows = [interop.to_numpy(row, f"{name}[{i}]") for i, row in enumerate(table)]
        shapes = [row.shape for row in rows]
        if shapes == [(length,) for length in lengths.tolist()]:
            return np.concatenate(rows)
        came = f"a list of {len(rows)} rows of other lengths"
    else:
        values = interop.to_numpy(table, name)
        if values.shape == (shape.n_samples, shape.n_candidates) and values.size == shape.n_rows:
            return np.ascontiguousarray(values).reshape(-1)
        came = f"shape {values.shape}"
    if lengths.min() == lengths.max():
        expected = f"shape {(shape.n_samples, shape.n_candidates)}"
    else:
        expected = "a list of one row per sample, as long as the sample has candidates"
    raise MixsolveError(
        f"{name} must have one entry per sample and candidate, {expected}; got {came}"
    )


def check_candidate_mask(mask: Any, shape: Shape) -> np.ndarray:
    """Allowed candidates as (n_rows,) uint8; empty for all."""
    if mask is None:
        return np.empty(0, dtype=np.uint8)
    flat = _flat_table(mask, "candidate_mask", shape)
    if flat.dtype != np.bool_:
        if not np.isin(flat, (0, 1)).all():
            raise MixsolveTypeError(
                f"candidate_mask must be boolean (True where a candidate exists), got dtype "
                f"{flat.dtype} with values other than 0 and 1"
            )
        flat = flat.astype(np.bool_)
    allowed = flat.view(np.uint8)
    left = np.add.reduceat(allowed, shape.offsets[:-1], dtype=np.int64)
    if not left.all():
        raise MixsolveError(
            f"candidate_mask leaves sample {int(np.argmin(left))} without a candidate; unmask one "
            "(the clean point, say), or give the sample weight 0 and unmask any"
        )
    return np.empty(0, dtype=np.uint8) if allowed.all() else allowed


def check_candidate_prior(prior: Any, shape: Shape, allowed: np.ndarray) -> np.ndarray:
    """Base measure as (n_rows,) float64, positive where allowed; empty for uniform."""
    if prior is None:
        return np.empty(0)
    flat = numbers(_flat_table(prior, "candidate_prior", shape), "candidate_prior", booleans=False)
    valid = np.isfinite(flat) & (flat > 0)
    if allowed.size:
        valid |= allowed == 0
        flat = np.where(allowed, flat, 0.0)  # whatever stood there
    if not valid.all():
        row = int(np.argmin(valid))
        sample = int(np.searchsorted(shape.offsets, row, side="right")) - 1
        raise MixsolveError(
            "candidate_prior must be finite and > 0 wherever a candidate may be played, got "
            f"{flat[row]} first at sample {sample}, candidate {row - int(shape.offsets[sample])}; "
            "take a candidate away with candidate_mask"
        )
    return flat


def check_warm_start(warm_start: Any, n_classifiers: int) -> np.ndarray:
    """Weights to start from, (L,) on the simplex; uniform for None."""
    if warm_start is None:
        return simplex.uniform(n_classifiers)
    given = getattr(warm_start, "weights", warm_start)  # of a Solution
    values = numbers(given, "warm_start", booleans=False)
    if values.shape != (n_classifiers,):
        raise MixsolveError(
            f"warm_start must hold one weight per classifier, shape ({n_classifiers},); got shape "
            f"{values.shape}"
        )
    check_each(
        np.isfinite(values) & (values >= -_SIMPLEX_TOLERANCE),
        values,
        "warm_start",
        "finite and >= 0",
    )
    if abs(values.sum() - 1.0) > _SIMPLEX_TOLERANCE:
        raise MixsolveError(
            f"warm_start must sum to 1, got a sum of {values.sum():.9g}; divide it by its sum"
        )
    return simplex.normalize(values)


def check_callable(function: Any, name: str, usage: str) -> None:
    """None, or something that can be called."""
    if function is not None and not callable(function):
        raise MixsolveTypeError(f"{name} must be {usage}, got {type(function).__name__}")
