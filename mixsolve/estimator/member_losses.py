"""The loss tensor of a pool of scikit-learn classifiers on attack candidates.

    values[i, j, k] = loss of estimator k on candidate j of sample i, candidate 0 the sample itself

The losses have the same names as for networks, in terms of labels and probabilities:

    zero-one        1 if predict(x) is not y, 0 else: the estimator breaks ties
    cross-entropy   -log p_y, with p_y no smaller than the rounding of its dtype
    margin          (1 - (p_y - max_{c != y} p_c)) / 2, in [0, 1]

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 4.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.estimator.perturbations import Perturbation


def build_member_losses(
    members: Sequence[Any],
    classes: NDArray[Any],
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    perturb: Perturbation | None,
    loss: str,
    rng: np.random.Generator,
    batch_size: int,
) -> NDArray[Any]:
    """Attack the samples and record the losses of all members, a block of samples at a time.

    Parameters
    ----------
    members : sequence
        L fitted classifiers.
    classes : ndarray of shape (classes,)
        All labels that a member may predict, sorted.
    X, y : ndarray of shape (N, features), (N,)
        The samples and their labels.
    perturb, loss, batch_size
        As in `MixtureClassifier`.
    rng : numpy.random.Generator
        Source of the draws of `perturb`.

    Returns
    -------
    ndarray of shape (N, m, L)
        uint8 for the 0/1 loss, float64 for the others.

    Raises
    ------
    MixsolveError
        Candidates of another shape than X, or of another number from block to block.
    """
    values: NDArray[Any] | None = None
    for start in range(0, len(X), batch_size):
        rows = slice(start, start + batch_size)
        block = np.stack(
            [
                np.stack([LOSSES[loss](k, points, y[rows], classes) for k in members], axis=-1)
                for points in _candidates(perturb, members, X[rows], y[rows], rng)
            ],
            axis=1,
        )
        if values is None:
            values = np.empty((len(X), *block.shape[1:]), block.dtype)
        if block.shape[1] != values.shape[1]:
            raise MixsolveError(
                "perturb must return as many candidates for every block of samples; got "
                f"{values.shape[1] - 1} for the first one, {block.shape[1] - 1} for the one from "
                f"sample {start} on; repeat candidates where there are fewer"
            )
        values[rows] = block
    assert values is not None  # there is at least one sample
    return values


def votes(member: Any, X: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.intp]:
    """Return, for each sample, the index in `classes` of the label that a member predicts."""
    return np.searchsorted(classes, member.predict(as_fitted(member, X)))


def one_hot(member: Any, X: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.float64]:
    """Return (N, classes): 1 at the label that a member predicts, 0 elsewhere."""
    table = np.zeros((len(X), len(classes)))
    table[np.arange(len(X)), votes(member, X, classes)] = 1.0
    return table


def probabilities(member: Any, X: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    """Return a member's class probabilities (N, classes); 0 for a class it does not know."""
    own = member.predict_proba(as_fitted(member, X))
    if len(member.classes_) == len(classes):
        return own
    table = np.zeros((len(X), len(classes)), own.dtype)
    table[:, np.searchsorted(classes, member.classes_)] = own
    return table


def as_fitted(member: Any, X: NDArray[Any]) -> Any:
    """Return a copy of X in the form that a member was fitted to: with column names, if any.

    Candidates are arrays; a member that was fitted to a table may select columns by their names,
    and scikit-learn warns where names are missing. A copy, since a member may scale it in place
    (``StandardScaler(copy=False)`` in a pipeline) before other members read it.
    """
    names = getattr(member, "feature_names_in_", None)
    pandas = sys.modules.get("pandas")
    if names is None or pandas is None or len(names) != X.shape[1]:
        return X.copy()
    return pandas.DataFrame(X.copy(), columns=names)


def _candidates(
    perturb: Perturbation | None,
    members: Sequence[Any],
    X: NDArray[Any],
    y: NDArray[Any],
    rng: np.random.Generator,
) -> Iterator[NDArray[Any]]:
    """Yield the samples themselves, then the attack's candidates."""
    yield X
    if perturb is None:
        return
    found = perturb(list(members), X.copy(), y.copy(), rng)  # which may write into its arguments
    try:
        candidates = iter(found)
    except TypeError as error:
        raise MixsolveTypeError(
            "perturb must return candidates, an array (candidates, samples, features) or an "
            f"iterable of arrays (samples, features); got {type(found).__name__}"
        ) from error
    for j, candidate in enumerate(candidates):
        points = np.asarray(candidate)
        if points.shape != X.shape:
            raise MixsolveError(
                f"perturb must return candidates of the shape of the samples, {X.shape}; got "
                f"{points.shape} for candidate {j}; the axes are (candidates, samples, features)"
            )
        yield points


def _zero_one(
    member: Any, X: NDArray[Any], y: NDArray[Any], classes: NDArray[Any]
) -> NDArray[np.uint8]:
    return (classes[votes(member, X, classes)] != y).astype(np.uint8)


def _cross_entropy(
    member: Any, X: NDArray[Any], y: NDArray[Any], classes: NDArray[Any]
) -> NDArray[np.float64]:
    table = probabilities(member, X, classes)
    own, _ = _own(table, y, classes)
    return -np.log(np.maximum(own, np.finfo(table.dtype).eps), dtype=np.float64)


def _margin(
    member: Any, X: NDArray[Any], y: NDArray[Any], classes: NDArray[Any]
) -> NDArray[np.float64]:
    own, others = _own(probabilities(member, X, classes), y, classes)
    return (1.0 - (own - others.max(axis=1))) / 2.0


def _own(
    table: NDArray[Any], y: NDArray[Any], classes: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the label's probability, 0 if no member knows it, and those of the other classes."""
    rows = np.arange(len(y))
    columns = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    known = classes[columns] == y
    others = table.copy()
    others[rows[known], columns[known]] = 0.0
    return np.where(known, table[rows, columns], 0.0), others


LOSSES: dict[str, Callable[..., NDArray[Any]]] = {
    "zero-one": _zero_one,
    "cross-entropy": _cross_entropy,
    "margin": _margin,
}
