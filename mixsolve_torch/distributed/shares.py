"""The arguments of each rank: checked by themselves, then against those of the other ranks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import mixsolve
from mixsolve.arrays.interop import array_source, check_dtype, to_numpy
from mixsolve.arrays.labels import GameLabels
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.engines import Losses, open_losses
from mixsolve.engines.shard_tasks import PartialResult
from mixsolve.solver import validation
from mixsolve.solver.solution import Solution
from mixsolve_torch.distributed.wire import listed

_ONE_A_SAMPLE = ("sample_weight", "candidate_mask", "candidate_prior")
_OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(mixsolve.solve).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name not in _ONE_A_SAMPLE
}
_OF_THE_FIRST = ("callback", "verbose")  # used by the method, on the first rank alone


@dataclass(frozen=True)
class Share:
    """One rank's samples and the other arguments of its call.

    Attributes
    ----------
    losses : Losses or None
        None where it has no samples.
    shape : tuple of int
        Samples, candidates, classifiers.
    restore : callable
        Makes weights of float64 NumPy ones, as the rank's own kind of array.
    given : dict of str to ndarray
        One number a sample, or a table: "alpha", "sample_weight", "candidate_mask",
        "candidate_prior"; those that were given and matter.
    summary : dict of str to object
        What is compared with the other ranks: plain values.
    """

    losses: Losses | None
    shape: tuple[int, int, int]
    restore: Callable[[np.ndarray], Any]
    given: dict[str, np.ndarray]
    summary: dict[str, Any]


def read_share(
    losses: Any, alpha: Any, one_a_sample: Mapping[str, Any], options: Mapping[str, Any]
) -> Share:
    """Check the arguments of one rank.

    Parameters
    ----------
    one_a_sample : mapping of str to object
        "sample_weight", "candidate_mask", "candidate_prior", None where not given.
    """
    unknown = sorted(options.keys() - _OPTIONS.keys())
    if unknown:
        raise MixsolveTypeError(
            f"solve_distributed has no option {unknown[0]!r}; it takes {', '.join(_OPTIONS)}"
        )
    opened, shape, restore = _opened(losses)
    labels = GameLabels() if opened is None else opened.labels.fresh()
    alpha = labels.aligned(alpha, ("samples",), "alpha")
    table = ("samples", "candidates")
    one_a_sample = {
        name: labels.aligned(value, table if "candidate" in name else table[:1], name)
        for name, value in one_a_sample.items()
    }
    alphas = validation.check_alpha(alpha, shape[0])
    whole = {"alpha": "one per sample" if np.ndim(alpha) else float(alpha)}
    given = {}
    if np.ndim(alpha):
        given["alpha"] = np.zeros(shape[0]) if alphas is None else alphas
    if opened is not None:
        given |= _tables(opened, one_a_sample)
    for name, default in _OPTIONS.items():
        if name not in _OF_THE_FIRST:
            whole[name] = _plain(name, options.get(name, default), shape[2])
    summary = {
        "shape": shape,
        "options": whole,
        "given": {name: one_a_sample[name] is not None for name in _ONE_A_SAMPLE},
    }
    return Share(opened, shape, restore, given, summary)


def _opened(
    losses: Any,
) -> tuple[Losses | None, tuple[int, int, int], Callable[[np.ndarray], Any]]:
    shape = tuple(getattr(losses, "shape", ()))
    if len(shape) == 3 and not shape[0] and shape[1] and shape[2]:
        source = array_source(losses)
        check_dtype(source.data.dtype, "losses")
        return None, (0, int(shape[1]), int(shape[2])), source.restore
    opened = open_losses(losses)
    if opened.n_rows != opened.n_samples * opened.n_candidates:
        raise MixsolveError(
            "losses must have the same number of candidates for every sample, got between "
            f"{int(np.diff(opened.offsets).min())} and {opened.n_candidates}; fill up with any "
            "number and take these candidates away with candidate_mask"
        )
    return opened, (opened.n_samples, opened.n_candidates, opened.n_classifiers), opened.restore


def _tables(losses: Losses, one_a_sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One rank's sample weights, mask and base measure, as far as they are given and matter."""
    weight, mask, prior = (one_a_sample[name] for name in _ONE_A_SAMPLE)
    table = losses.n_samples, losses.n_candidates
    given: dict[str, np.ndarray] = {}
    if weight is not None:
        values = to_numpy(weight, "sample_weight")
        # All zeros are right here as long as another rank has positive weights.
        checked = values if values.any() else np.ones_like(values)
        validation.check_sample_weight(checked, losses.n_samples)
        given["sample_weight"] = values.astype(np.float64)
    allowed = validation.check_candidate_mask(mask, losses)
    if allowed.size:
        given["candidate_mask"] = allowed.view(np.bool_).reshape(table)
    if prior is not None:
        measure = validation.check_candidate_prior(prior, losses, allowed)
        given["candidate_prior"] = measure.reshape(table)
    return given


def _plain(name: str, value: Any, n_classifiers: int) -> str:
    """An option's value, so that it can be compared with another rank's."""
    if name == "constraints" and value is not None:
        return "given"  # the first rank's count
    if name == "warm_start" and value is not None:
        start = value.weights if isinstance(value, Solution) else value
        return str(validation.check_warm_start(start, n_classifiers).tolist())
    return repr(value)


def agree(summaries: Sequence[dict[str, Any] | MixsolveError]) -> np.ndarray:
    """Check all ranks' summaries against each other; every rank reaches the same result.

    Where a rank's share is wrong the summary is its error. Returns the first sample of each rank,
    int64 of shape (n_ranks + 1,).

    Raises
    ------
    MixsolveError, MixsolveTypeError
        What is wrong, on which ranks, and the mend.
    """
    sound: list[dict[str, Any]] = []
    for summary in summaries:
        if isinstance(summary, MixsolveError):
            raise summary
        sound.append(summary)
    shapes = [summary["shape"] for summary in sound]
    for axis, name in ((1, "candidates"), (2, "classifiers")):
        _same(
            [shape[axis] for shape in shapes],
            f"losses must have the same number of {name} on every rank",
            "give every rank the same, in the same order"
            + (", and fill up with candidates that candidate_mask takes away" if axis == 1 else ""),
        )
    bounds = np.concatenate([[0], np.cumsum([shape[0] for shape in shapes])])
    if not bounds[-1]:
        raise MixsolveError(
            "losses has no samples on any rank; one rank at least needs a share of them"
        )
    for name in sound[0]["options"]:
        _same(
            [summary["options"][name] for summary in sound],
            f"{name} must be the same on every rank",
            "every rank has to call solve_distributed with the same options",
        )
    for name in _ONE_A_SAMPLE:
        _same(
            ["given" if summary["given"][name] else "left out" for summary in sound],
            f"{name} must be given on every rank that has samples, or on none",
            "give each rank's own share of it everywhere",
            [rank for rank, shape in enumerate(shapes) if shape[0]],
        )
    return bounds


def _same(values: Sequence[Any], rule: str, mend: str, ranks: Sequence[int] | None = None) -> None:
    """Refuse values that differ between some ranks, all by default."""
    groups: dict[Any, list[int]] = {}
    for rank in range(len(values)) if ranks is None else ranks:
        groups.setdefault(values[rank], []).append(rank)
    if len(groups) > 1:
        came = ", ".join(f"{value} on {listed(where)}" for value, where in groups.items())
        raise MixsolveError(f"{rule}; got {came}: {mend}")


def send_given(losses: Any, given: dict[str, np.ndarray]) -> PartialResult:
    """The task that sends a rank's `Share.given` to the first rank."""
    return PartialResult(gathered=given or None)


def join(gathered: Sequence[dict[str, np.ndarray] | None], bounds: np.ndarray, m: int) -> dict:
    """All ranks' `Share.given`, one rank after another: keyword arguments for `mixsolve.solve`."""
    shares = [share or {} for share in gathered]
    joined = {}
    for name in sorted(set().union(*shares)):
        # A mask that allows everything is not sent.
        rows = [
            share.get(name, np.ones((last - first, m), dtype=np.bool_))
            for share, first, last in zip(shares, bounds[:-1], bounds[1:], strict=True)
            if last > first
        ]
        joined[name] = np.concatenate(rows)
    return joined
