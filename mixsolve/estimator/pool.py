"""A pool of scikit-learn classifiers: named, checked, fitted to one part of the samples.

scikit-learn is imported inside functions; `mixsolve.estimator.classifier` checks that it is
installed.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixsolve.base.errors import MixsolveError, MixsolveTypeError


def with_names(estimators: Any) -> list[tuple[str, Any]]:
    """Return (name, estimator) pairs; estimators without a name are named after their class.

    Raises
    ------
    MixsolveError
        Not a list, or an empty one.
    MixsolveTypeError
        An item that is neither a pair nor an estimator.
    """
    if not isinstance(estimators, (list, tuple)) or not estimators:
        raise MixsolveError(
            "estimators must be a non-empty list of (name, estimator) pairs or of estimators; got "
            f"{estimators!r}"
        )
    pool: list[tuple[str, Any]] = []
    for k, item in enumerate(estimators):
        if isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str):
            pool.append((item[0], item[1]))
        elif hasattr(item, "fit"):
            pool.append((f"{type(item).__name__.lower()}-{k}", item))
        else:
            raise MixsolveTypeError(
                f"estimators[{k}] must be a (name, estimator) pair or an estimator; got {item!r}"
            )
    return pool


def without_dropped(pool: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return the pairs whose estimator is not "drop"; refuse estimators that are not classifiers.

    Raises
    ------
    MixsolveError
        All are dropped.
    MixsolveTypeError
        A member that is not a scikit-learn classifier.
    """
    from sklearn.base import is_classifier

    kept = [(name, member) for name, member in pool if not _is_dropped(member)]
    if not kept:
        raise MixsolveError(
            f"estimators must hold at least one classifier; all {len(pool)} are left out"
        )
    for name, member in kept:
        if not hasattr(member, "fit") or not is_classifier(member):
            raise MixsolveTypeError(
                f"estimators must be scikit-learn classifiers; {name!r} is {member!r}"
            )
    return kept


def _is_dropped(member: Any) -> bool:
    return isinstance(member, str) and member == "drop"


def fit_member(name: str, member: Any, X: Any, y: NDArray[Any], weight: NDArray[Any] | None) -> Any:
    """Return a fitted clone of a member, `name` in messages.

    Raises
    ------
    MixsolveTypeError
        Weights for a member whose ``fit`` takes none.
    """
    from sklearn.base import clone
    from sklearn.utils.validation import has_fit_parameter

    if weight is None:
        return clone(member).fit(X, y)
    if not has_fit_parameter(member, "sample_weight"):
        raise MixsolveTypeError(
            f"sample_weight cannot be used: {name!r} ({type(member).__name__}) takes none in fit; "
            "leave it out, or leave the member out"
        )
    return clone(member).fit(X, y, sample_weight=weight)


def held_out(
    y: NDArray[Any], fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split rows into training rows and held-out rows, a share of `fraction` of each class.

    At least one sample of each class is a training row.
    """
    held: list[NDArray[np.intp]] = []
    owed = 0.0  # rounding carried over, so that many small classes are not all rounded down
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        owed += fraction * len(rows)
        taken = min(math.floor(owed + 0.5), len(rows) - 1)
        owed = min(owed - taken, 1.0)
        held.append(rows[:taken])
    chosen = np.sort(np.concatenate(held))
    if not len(chosen):
        raise MixsolveError(
            f"validation_fraction={fraction} of {len(y)} samples (n_samples={len(y)}) in "
            f"{len(held)} classes holds out none; give more samples, a larger fraction, or None"
        )
    return np.setdiff1d(np.arange(len(y)), chosen), chosen


def generator(random_state: Any) -> np.random.Generator:
    """Return a NumPy generator for any random state of scikit-learn."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(np.iinfo(np.int32).max))
    if isinstance(random_state, numbers.Integral):
        return np.random.default_rng(int(random_state))
    if random_state is None or isinstance(random_state, np.random.Generator):
        return np.random.default_rng(random_state)
    raise MixsolveTypeError(
        "random_state must be an integer, a numpy RandomState or Generator, or None; got "
        f"{type(random_state).__name__}"
    )
