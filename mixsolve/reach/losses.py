r"""Losses against an attacker who alters anything, but only inside one of finitely many sets.

The attacker chooses a set s of input features (a sensor, a group of columns, the pixels under a
patch) and gives them any values. Classifier k reads the features R_k and nothing else. If s and R_k
do not meet, the attack cannot change what it answers; if they meet, it is given up for lost:

    T[i, s, k] = 1   if f_k(x_i) != y_i  or  s and R_k meet,        0 otherwise.

So for every mixture lam, whatever the values that the attacker writes,

    P( an error on x_i attacked in s )  <=  sum_k lam_k T[i, s, k],

and the value of the game on T bounds the risk under *every* such attack, of which none is run. A
feature that is missing rather than forged is the same game: a member that reads it has no answer.

Only which classifiers a set meets counts. Sets that meet the same ones have equal rows of T, and
only the distinct patterns of classifiers are kept: the game's value and its optimal weights are the
same. An attacker who takes up to r sets at once meets the union of their patterns.

References
----------
Levine, Feizi. (De)Randomized Smoothing for Certifiable Defense against Patch Attacks. NeurIPS 2020.
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, Remark 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixsolve.base.arguments import as_count
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.reach.certificate import ReachCertificate, certify


@dataclass(frozen=True)
class ReachLosses:
    """The loss tensor of a game with sets in the attacker's reach, a candidate a pattern.

    Attributes
    ----------
    values : ndarray of shape (N, P, L), uint8
        What `mixsolve.solve` takes: 1 if classifier k errs on sample i untouched, or is met by the
        sets of pattern j.
    errors : ndarray of shape (N, L), bool
        Which classifiers err on which untouched samples.
    touched : ndarray of shape (P, L), bool
        The patterns: which classifiers the sets meet.
    examples : tuple of P tuples of int
        Of each pattern the sets, by their numbers, of one attack that has it.
    n_sets : int
        Number of sets.
    """

    values: NDArray[np.uint8]
    errors: NDArray[np.bool_]
    touched: NDArray[np.bool_]
    examples: tuple[tuple[int, ...], ...]
    n_sets: int

    @classmethod
    def of(
        cls, errors: NDArray[np.bool_], touched: NDArray[np.bool_], at_most: int = 1
    ) -> ReachLosses:
        """Return the losses for classifiers that err (N, L) and sets that meet them (S, L)."""
        patterns, examples = distinct_patterns(touched, at_most)
        values = (errors[:, None, :] | patterns[None]).astype(np.uint8)
        return cls(values, errors, patterns, examples, len(touched))

    def certify(
        self,
        weights: ArrayLike | None = None,
        *,
        held_out: bool = True,
        level: float = 0.95,
        seed: int = 0,
        **options: Any,
    ) -> ReachCertificate:
        """Choose weights by the game and certify them on samples that they were not chosen on.

        Parameters
        ----------
        weights : array-like of shape (L,), optional
            Probabilities to certify on all samples; none are chosen then.
        held_out : bool, default True
            Choose on a half of the samples, drawn, and report on the other. False does both on all
            of them, which flatters the mixture.
        level : float, default 0.95
            Coverage of the intervals, at least.
        seed : int, default 0
            Of the draw of the halves.
        **options
            Further arguments of `mixsolve.solve`, constraints on the weights for example.

        Returns
        -------
        ReachCertificate

        Raises
        ------
        MixsolveError
            Weights that are no probabilities, or fewer than two samples for two halves.
        """
        return certify(
            self.values,
            self.errors,
            weights=weights,
            held_out=held_out,
            level=level,
            seed=seed,
            options=options,
        )


def reach_losses(
    predictions: ArrayLike,
    labels: ArrayLike,
    reads: Any,
    sets: Any,
    *,
    at_most: int = 1,
) -> ReachLosses:
    """Return the losses of classifiers against an attacker who takes a group of features.

    Parameters
    ----------
    predictions : array-like of shape (N, L)
        The label that each of L classifiers predicts for each sample as it is.
    labels : array-like of shape (N,)
        The true labels.
    reads : array-like of bool of shape (L, F), or sequence of L sequences of int
        The features that each classifier reads, as a mask or by their numbers. A classifier that
        does read others makes the certificate void: select columns inside it, in a pipeline say.
    sets : array-like of bool of shape (S, F), sequence or mapping of sequences of int
        The groups of features of which the attacker takes one: by their numbers, or as a mask.
    at_most : int, default 1
        How many groups he takes at once.

    Returns
    -------
    ReachLosses
        ``solve(losses.values)`` gives the weights, ``losses.certify()`` weights and certificate.

    Raises
    ------
    MixsolveError
        Shapes that do not belong together, no sets, a feature that is in no classifier's input.
    MixsolveTypeError
        Features that are no integers.

    Examples
    --------
    Three classifiers that read a sensor each, one of which may be forged:

    >>> import mixsolve
    >>> predictions = [[1, 1, 1], [0, 0, 1], [1, 1, 1], [0, 0, 0]]
    >>> losses = mixsolve.reach_losses(predictions, [1, 0, 1, 0], [[0], [1], [2]], [[0], [1], [2]])
    >>> losses.values.shape
    (4, 3, 3)
    >>> mixsolve.solve(losses.values).weights.round(3).tolist()
    [0.333, 0.333, 0.333]
    """
    at_most = as_count("at_most", at_most)
    said = np.asarray(predictions)
    true = np.asarray(labels)
    if said.ndim != 2 or 0 in said.shape:
        raise MixsolveError(
            "predictions must have the shape (n_samples, n_classifiers) with no empty axis, got "
            f"{said.shape}; np.stack([f.predict(X) for f in classifiers], axis=1) makes them"
        )
    if true.shape != said.shape[:1]:
        raise MixsolveError(
            f"labels must have the shape ({len(said)},), one a row of predictions; got {true.shape}"
        )
    features = max(_width(reads), _width(sets))
    read = feature_sets("reads", reads, features)
    taken = feature_sets("sets", sets, features)
    if len(read) != said.shape[1]:
        raise MixsolveError(
            f"reads must have one entry for each of the {said.shape[1]} classifiers of "
            f"predictions; got {len(read)}"
        )
    return ReachLosses.of(said != true[:, None], met(read, taken), at_most)


def met(reads: NDArray[np.bool_], sets: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (S, L): whether sets (S, F) and the features that classifiers read (L, F) meet."""
    return sets.astype(np.float64) @ reads.T.astype(np.float64) > 0.5


def distinct_patterns(
    touched: NDArray[np.bool_], at_most: int
) -> tuple[NDArray[np.bool_], tuple[tuple[int, ...], ...]]:
    """Return the distinct unions (P, L) of up to `at_most` rows (S, L), and rows that make each."""
    single, first = np.unique(touched, axis=0, return_index=True)
    patterns = single
    examples: list[tuple[int, ...]] = [(int(s),) for s in first]
    for _ in range(at_most - 1):
        unions = (patterns[:, None, :] | single[None]).reshape(-1, single.shape[1])
        grown, places = np.unique(unions, axis=0, return_index=True)
        if len(grown) == len(patterns):  # the unions hold all patterns, and nothing new
            break
        made = [divmod(int(place), len(single)) for place in places]
        examples = [
            examples[p] if (patterns[p] >= single[s]).all() else (*examples[p], int(first[s]))
            for p, s in made
        ]
        patterns = grown
    return patterns, tuple(examples)


def feature_sets(name: str, given: Any, features: int) -> NDArray[np.bool_]:
    """Return sets of features as a mask (sets, features).

    Raises
    ------
    MixsolveError
        No set, a number outside 0 ... features - 1, or a mask of another width.
    MixsolveTypeError
        Something that is neither a mask nor sequences of integers.
    """
    if isinstance(given, Mapping):
        given = list(given.values())
    mask = _as_mask(given)
    if mask is None and not isinstance(given, Sequence):
        raise MixsolveTypeError(
            f"{name} must be a boolean array (sets, features), or a sequence or mapping of lists "
            f"of feature numbers; got {type(given).__name__}"
        )
    if len(given) == 0:
        raise MixsolveError(f"{name} must hold at least one set of features; got none")
    if mask is not None:
        if mask.shape[1] != features:
            raise MixsolveError(
                f"{name} is a mask over {mask.shape[1]} features, and there are {features}"
            )
        return mask
    chosen = np.zeros((len(given), features), dtype=bool)
    for s, own in enumerate(given):
        numbers = np.atleast_1d(np.asarray(own))
        if numbers.size and numbers.dtype.kind not in "iu":
            raise MixsolveTypeError(f"{name}[{s}] must list features by their numbers; got {own!r}")
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < features:
            raise MixsolveError(
                f"{name}[{s}] must list features from 0 to {features - 1}; got {own!r}"
            )
        chosen[s, numbers.astype(np.intp)] = True
    return chosen


def _as_mask(given: Any) -> NDArray[np.bool_] | None:
    """Return a boolean array of two axes as it is, None for anything else."""
    if isinstance(given, (list, tuple)) and not (
        len(given) and all(np.asarray(own).dtype.kind == "b" for own in given)
    ):
        return None
    try:
        mask = np.asarray(given)
    except ValueError:  # of unequal lengths
        return None
    return mask if mask.dtype.kind == "b" and mask.ndim == 2 else None


def _width(given: Any) -> int:
    """Return how many features some sets speak of: the mask's width, or the highest number."""
    if isinstance(given, Mapping):
        given = list(given.values())
    mask = _as_mask(given)
    if mask is not None:
        return mask.shape[1]
    highest = -1
    for own in given if isinstance(given, Sequence) else ():
        numbers = np.atleast_1d(np.asarray(own))
        if numbers.size and numbers.dtype.kind in "iu":
            highest = max(highest, int(numbers.max()))
    return highest + 1
