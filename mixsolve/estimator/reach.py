"""Which columns a fitted scikit-learn classifier reads, as far as its kind lets it be known.

    pipeline            what its first step lets through
    ColumnTransformer   the columns of its transformers that are not dropped
    feature selection   the columns of its support
    decision tree       the columns that its nodes split on
    anything else       all columns

No column is left out that the classifier could read: the certificate rests on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.reach.losses import feature_sets


def columns_read(member: Any, features: int) -> NDArray[np.bool_]:
    """Return a mask (features,) of the columns that a fitted classifier reads."""
    from sklearn.frozen import FrozenEstimator
    from sklearn.pipeline import Pipeline
    from sklearn.tree import DecisionTreeClassifier

    # Subclasses may read what their parents do not, so that types are compared exactly.
    if type(member) is FrozenEstimator:
        return columns_read(member.estimator, features)
    if type(member) is Pipeline:
        first = member.steps[0][1]
        return columns_read(first, features) if len(member.steps) == 1 else _kept(first, features)
    if type(member) is DecisionTreeClassifier:
        split_on = member.tree_.feature
        return feature_sets("tree", [split_on[split_on >= 0]], features)[0]
    return np.ones(features, dtype=bool)


def _kept(step: Any, features: int) -> NDArray[np.bool_]:
    """Return the columns that the first step of a pipeline lets through."""
    from sklearn import feature_selection
    from sklearn.compose import ColumnTransformer

    if type(step) is ColumnTransformer:
        kept = np.zeros(features, dtype=bool)
        names = getattr(step, "feature_names_in_", None)
        for _, transformer, columns in step.transformers_:
            if not (isinstance(transformer, str) and transformer == "drop"):
                kept[_numbers(columns, names, features)] = True
        return kept
    selectors = (getattr(feature_selection, name) for name in feature_selection.__all__)
    if any(type(step) is kind for kind in selectors) and hasattr(step, "get_support"):
        return np.asarray(step.get_support(), dtype=bool)
    return np.ones(features, dtype=bool)


def _numbers(columns: Any, names: Any, features: int) -> NDArray[np.intp]:
    """Return the numbers of columns that a fitted ColumnTransformer names in its ways."""
    place: dict[Any, Any] = {} if names is None else {name: j for j, name in enumerate(names)}
    if isinstance(columns, str):
        columns = [columns]
    if isinstance(columns, slice):
        first, last = columns.start, columns.stop
        if isinstance(last, str):  # slices of names hold their end
            last = place[last] + 1
        return np.arange(features)[slice(place.get(first, first), last, columns.step)]
    chosen = np.atleast_1d(np.asarray(columns))
    if chosen.size and chosen.dtype.kind in "OUT":
        return np.array([place[name] for name in chosen], dtype=np.intp)
    return np.arange(features)[chosen.astype(bool if chosen.dtype.kind == "b" else np.intp)]


def threat_sets(threat: Any, names: Sequence[str] | None, features: int) -> NDArray[np.bool_]:
    """Return groups of columns, by number or name, as a mask (groups, features).

    Raises
    ------
    MixsolveError
        A name that no column has, no group, or a number of no column.
    MixsolveTypeError
        Something that is no group of columns.
    """
    groups = list(threat.values()) if isinstance(threat, Mapping) else threat
    if isinstance(groups, str) or not isinstance(groups, Sequence | np.ndarray):
        raise MixsolveTypeError(
            "threat must be groups of columns, a list of lists or a dict of lists of their numbers "
            f"or names; got {threat!r}"
        )
    if isinstance(groups, np.ndarray):
        return feature_sets("threat", groups, features)
    place = {} if names is None else {name: j for j, name in enumerate(names)}
    return feature_sets("threat", [_group(own, place) for own in groups], features)


def _group(own: Any, place: Mapping[str, int]) -> list[Any]:
    """Return the columns of one group with names replaced by numbers."""
    columns = [own] if isinstance(own, str) or np.ndim(own) == 0 else list(own)
    for name in columns:
        if isinstance(name, str) and name not in place:
            known = f"X has {', '.join(place)}" if place else "X has no column names"
            raise MixsolveError(f"threat names the column {name!r}; {known}")
    return [place[name] if isinstance(name, str) else name for name in columns]
