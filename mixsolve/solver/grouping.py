"""The arguments by which the attacker also chooses whom to strike: groups, bounds, tails.

    max_{v in V}  sum_g v_g f_g(lam),    V = {v >= 0, sum v = 1, v_g <= bound_g}

f_g is the mean over group g with the samples' weights within it, or the mean over its worst share
beta: max {sum_i u_i t_i : sum_i u_i = 1, 0 <= u_i <= w_i|g / beta}. Without groups the whole is
one. Where only one distribution is left (one group, bounds of sum 1), the game is the ordinary one
under its weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixsolve.arrays.checks import check_each, numbers
from mixsolve.arrays.interop import to_numpy
from mixsolve.base.arguments import as_real
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.engines.grouped import Blocks
from mixsolve.small_game.mass_set import Level, MassSet

_ROUNDING = 1e-9  # of a sum of bounds


@dataclass(frozen=True)
class Grouping:
    """Whom the attacker may strike, checked.

    Attributes
    ----------
    labels : ndarray of shape (G,), or None
        Of the groups, sorted; None where only a tail was given.
    group : ndarray of int64, shape (N,)
        Of each sample.
    within : ndarray of float64, shape (N,)
        Weight of each sample in its group; 0 in a group without any.
    tail : float or None
        Share beta of each group that counts.
    given : ndarray of float64, shape (N,)
        Weights of the samples as they were given, of sum 1.
    sample_weight : ndarray of float64, shape (N,)
        Those that the engine is made with: 0 where the attacker cannot strike, of sum 1.
    blocks : Blocks or None
        The attacker's choice; None where `sample_weight` is all there is.
    """

    labels: np.ndarray | None
    group: np.ndarray
    within: np.ndarray
    tail: float | None
    given: np.ndarray
    sample_weight: np.ndarray
    blocks: Blocks | None

    def weights(self, struck: np.ndarray) -> np.ndarray | None:
        """What samples of weights (N,) weigh by groups, (G,)."""
        if self.labels is None:
            return None
        return np.bincount(self.group, struck, minlength=self.labels.size)

    def risks(self, engine: Any, candidates: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
        """Risk (G,) of each group for weights (L,), under best candidates (N,)."""
        if self.labels is None:
            return None
        n_groups, n_samples = self.labels.size, self.group.size
        exists = np.bincount(self.group, self.within, minlength=n_groups) > 0.0
        risks = np.full(n_groups, np.nan)
        if self.tail is None:
            sums = engine.weighed(self.within).group_sums(candidates, self.group, n_groups)
            risks[exists] = (sums @ weights)[exists]
            return risks
        counted = np.flatnonzero(self.within > 0.0)
        alone = engine.weighed((self.within > 0.0).astype(np.float64))
        every = alone.group_sums(candidates, np.arange(n_samples), n_samples) @ weights
        number = np.cumsum(exists) - 1
        level = Level(number[self.group[counted]], self.within[counted] / self.tail)
        risks[exists] = level.fill(every[counted], int(exists.sum()))[1]
        return risks


def check_grouping(
    groups: Any, group_weight: Any, tail: Any, alpha_groups: Any, weight: np.ndarray
) -> Grouping | None:
    """Check the arguments of `mixsolve.solve` for samples of these weights (N,), of sum 1.

    None where they leave the ordinary game.

    Raises
    ------
    MixsolveError, MixsolveTypeError
        If one of them cannot be read, is out of range or does not go with the others.
    """
    temperature = 0.0
    if alpha_groups is not None:
        temperature = as_real("alpha_groups", alpha_groups, at_least=0.0)
    share = None if tail is None else as_real("tail", tail, above=0.0, at_most=1.0)
    if groups is None:
        for name, value in (("group_weight", group_weight), ("alpha_groups", temperature or None)):
            if value is not None:
                raise MixsolveError(f"{name} needs groups: give one label per sample")
        if share is None or share == 1.0:
            return None
    labels, group = _codes(groups, weight.size)
    n_groups = 1 if labels is None else labels.size
    prior = np.bincount(group, weight, minlength=n_groups)
    bounds = _bounds(group_weight, labels, prior)
    if temperature and (group_weight is not None or share is not None):
        raise MixsolveError(
            "alpha_groups smooths the choice of whole groups without bounds; drop group_weight "
            "and tail, or leave the choice exact with alpha_groups=0"
        )
    exists = prior > 0.0
    within = np.divide(weight, prior[group], out=np.zeros_like(weight), where=exists[group])
    beta = None if share == 1.0 else share
    open_groups = np.flatnonzero(bounds > 0.0)
    fixed = _only_choice(bounds, open_groups)
    engine_weight = np.where(bounds[group] > 0.0, weight, 0.0)
    engine_weight /= engine_weight.sum()
    blocks = None
    if beta is not None:
        blocks = _tails(group, within, beta, bounds, open_groups, fixed)
    elif fixed is not None:
        engine_weight = within * fixed[group]
    else:
        top = np.ones(1)
        caps = MassSet((Level(np.zeros_like(open_groups), bounds[open_groups]),), top)
        measure = prior[open_groups] / prior[open_groups].sum()
        blocks = Blocks(group, within, open_groups, n_groups, caps, measure, temperature)
    return Grouping(labels, group, within, beta, weight, engine_weight, blocks)


def _tails(
    group: np.ndarray,
    within: np.ndarray,
    beta: float,
    bounds: np.ndarray,
    open_groups: np.ndarray,
    fixed: np.ndarray | None,
) -> Blocks:
    """Every sample is a block of its own."""
    struck = np.flatnonzero((within > 0.0) & (bounds[group] > 0.0))
    number = np.full(bounds.size, -1, dtype=np.int64)
    number[open_groups] = np.arange(open_groups.size)
    level = Level(number[group[struck]], within[struck] / beta)
    if fixed is not None:
        masses = MassSet((level,), fixed[open_groups])
    else:
        choice = Level(np.zeros_like(open_groups), bounds[open_groups])
        masses = MassSet((level, choice), np.ones(1))
    share = np.zeros(group.size)
    share[struck] = 1.0
    measure = np.full(struck.size, 1.0 / struck.size)
    return Blocks(np.arange(group.size), share, struck, group.size, masses, measure)


def _only_choice(bounds: np.ndarray, open_groups: np.ndarray) -> np.ndarray | None:
    """The one distribution (G,) within the bounds; None where there are others."""
    if open_groups.size == 1:
        return (bounds > 0.0).astype(np.float64)
    total = bounds.sum()
    return bounds / total if total <= 1.0 + _ROUNDING else None


def _codes(groups: Any, n_samples: int) -> tuple[np.ndarray | None, np.ndarray]:
    """Sorted labels (G,) and the group (N,) of each sample."""
    if groups is None:
        return None, np.zeros(n_samples, dtype=np.int64)
    values = np.asarray(groups) if _is_plain(groups) else np.asarray(to_numpy(groups, "groups"))
    if values.shape != (n_samples,):
        raise MixsolveError(
            f"groups must hold one label per sample, shape ({n_samples},); got shape {values.shape}"
        )
    if values.dtype == object:
        kinds = {type(value) for value in values.tolist()}
        if len(kinds) > 1 or not kinds <= {str, int, bool}:
            named = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise MixsolveTypeError(
                f"groups must be labels of one type, strings, integers or booleans; got {named}; "
                "give a missing label a name of its own"
            )
        values = np.array(values.tolist())
    if values.dtype.kind == "f":
        whole = np.isfinite(values) & (values == np.round(values))
        check_each(whole, values, "groups", "labels: whole numbers or strings")
    elif values.dtype.kind not in "biuUS":
        raise MixsolveTypeError(
            f"groups must be labels: integers, strings or booleans; got dtype {values.dtype}"
        )
    labels, group = np.unique(values, return_inverse=True)
    return labels, group.reshape(-1).astype(np.int64)


def _is_plain(groups: Any) -> bool:
    """Labels that NumPy reads, strings too."""
    return isinstance(groups, list | tuple | np.ndarray)


def _bounds(group_weight: Any, labels: np.ndarray | None, prior: np.ndarray) -> np.ndarray:
    """The most (G,) that the attacker may put on each group; 0 on one without weight."""
    if group_weight is None:
        return np.where(prior > 0.0, 2.0, 0.0)
    assert labels is not None
    if np.ndim(group_weight) == 0 and not isinstance(group_weight, Mapping):
        # How many times its share of the samples a group may weigh; 1 leaves the plain mean.
        times = as_real("group_weight", group_weight, at_least=1.0)
        return np.where(prior > 0.0, np.minimum(times * prior, 2.0), 0.0)
    if isinstance(group_weight, Mapping):
        known = labels.tolist()
        missing = [label for label in known if label not in group_weight]
        unknown = [label for label in group_weight if label not in known]
        if missing or unknown:
            raise MixsolveError(
                f"group_weight must have a bound for each group; missing {missing}, unknown "
                f"{unknown}"
            )
        group_weight = [group_weight[label] for label in known]
    bounds = numbers(group_weight, "group_weight", booleans=False)
    if bounds.shape != prior.shape:
        raise MixsolveError(
            f"group_weight must be a number or hold a bound for each of the {prior.size} groups, "
            f"in the order of their sorted labels; got shape {bounds.shape}"
        )
    check_each(~np.isnan(bounds) & (bounds >= 0.0), bounds, "group_weight", "at least 0")
    bounds = np.where(prior > 0.0, np.minimum(bounds, 2.0), 0.0)
    if bounds.sum() < 1.0 - _ROUNDING:
        raise MixsolveError(
            f"group_weight leaves the attacker no distribution: the bounds of groups with weight "
            f"sum to {bounds.sum():.6g}, and must sum to at least 1"
        )
    return bounds
