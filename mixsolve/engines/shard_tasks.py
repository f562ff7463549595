"""What runs on one shard of a tensor: each task is a pass, or less, of the shard's own engine.

A task is a plain function, so that it can be pickled by its name. Its first argument is the state
of the shard, in general its engine; it returns a `PartialResult`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from mixsolve.base.errors import NonFiniteLossError
from mixsolve.engines.base import Engine
from mixsolve.engines.deferred import DeferredStrategy
from mixsolve.engines.memory import Condensing
from mixsolve.engines.packed import PackedStrategy, narrow
from mixsolve.engines.responses import BestResponse

_NOTHING = np.empty(0)


@dataclass(frozen=True)
class PartialResult:
    """The result of a task on one shard.

    Attributes
    ----------
    sums : ndarray of float64, shape (n_sums,)
        Added up over the shards.
    gathered : object
        Sent to the process that solves.
    state : object
        Stays with the shard, for later tasks; None where there are sums.
    prepared : float
        Seconds of imports and compilation, in a process other than the one that solves.
    """

    sums: np.ndarray = field(default_factory=lambda: _NOTHING)
    gathered: Any = None
    state: Any = None
    prepared: float = 0.0


Task = Callable[..., PartialResult]


def run_task(
    task: Task,
    n_sums: int,
    states: Sequence[Any],
    common: Sequence[Any],
    own: Sequence[Any],
) -> PartialResult:
    """Run a task on a shard; a shard without samples adds zeros and sends nothing."""
    if states[0] is None:
        return PartialResult(np.zeros(n_sums))
    return task(*states, *common, *own)


def open_shard(
    losses: Any,
    first_sample: int,
    sample_weight: np.ndarray | float,
    allowed: np.ndarray,
    prior: np.ndarray,
) -> PartialResult:
    """Make an engine of a shard's losses; send their extremes and size.

    Refuses a NaN or infinite loss of a candidate that may be played.
    """
    from mixsolve.engines import Losses, open_losses

    if not isinstance(losses, Losses) and losses.shape[0] == 0:
        return PartialResult()
    opened = open_losses(losses)
    try:
        engine = opened.engine(spread_out(sample_weight, opened.n_samples), allowed, prior)
    except NonFiniteLossError as error:
        raise error.shifted(first_sample) from None
    return PartialResult(gathered=(engine.lowest, engine.highest, engine.n_bytes), state=engine)


def as_shard(
    engine: Any, lowest: float, highest: float, sample_weight: np.ndarray | float
) -> PartialResult:
    """A shard's engine with its weights in the whole game and the extremes of the whole."""
    weight = spread_out(sample_weight, engine.n_samples)
    return PartialResult(state=engine.as_shard(weight, lowest, highest))


def confine(engine: Any, classifiers: np.ndarray) -> PartialResult:
    """A shard's engine with only some classifiers in play; send the extremes of their losses."""
    confined = engine.confined(classifiers)
    return PartialResult(gathered=(confined.lowest, confined.highest), state=confined)


def in_unit(engine: Any, exponent: int) -> PartialResult:
    """A shard's engine with its losses in units of 2^exponent."""
    return PartialResult(state=engine.in_unit(exponent))


def scatter(engine: Engine, values: np.ndarray | float) -> PartialResult:
    """Keep a number for each sample."""
    return PartialResult(state=spread_out(values, engine.n_samples))


def best_response(engine: Engine, weights: np.ndarray) -> PartialResult:
    """Value and gradient, and the best candidates."""
    response = engine.best_response(weights)
    sums = np.append(response.value, response.gradient)
    return PartialResult(sums, _best_candidates(engine, response))


def near_winners(engine: Engine, weights: np.ndarray, radius: float, share: float) -> PartialResult:
    """The same and the near rows, at most a share of all rows."""
    return near_response(engine, None, weights, radius, share)


def near_response(
    engine: Engine, slack: np.ndarray | None, weights: np.ndarray, radius: float, share: float
) -> PartialResult:
    """The same with slack."""
    response = engine.near_response(weights, radius, int(share * engine.n_rows), slack)
    sums = np.concatenate([[response.value], response.gradient, [response.n_near]])
    best = _best_candidates(engine, response)
    return PartialResult(sums, (response.near_samples, response.near_candidates, best))


def soft_response(
    engine: Engine, alpha: np.ndarray, weights: np.ndarray, hessian: bool
) -> PartialResult:
    """Value, gradient and, if `hessian`, the Hessian."""
    response = engine.soft_response(weights, alpha, hessian)
    square = _NOTHING if response.hessian is None else response.hessian.reshape(-1)
    return PartialResult(np.concatenate([[response.value], response.gradient, square]))


def group_sums(
    engine: Any, n_blocks: int, candidates: np.ndarray, block: np.ndarray
) -> PartialResult:
    """Weighted losses of one candidate of each sample, summed by blocks."""
    sums = engine.group_sums(candidates.astype(np.int64), block.astype(np.int64), n_blocks)
    return PartialResult(sums.reshape(-1))


def soft_sums(
    engine: Any, alpha: np.ndarray, weights: np.ndarray, n_blocks: int, block: np.ndarray
) -> PartialResult:
    """Eq. (7) and its gradient, by blocks."""
    values, gradients = engine.soft_sums(weights, alpha, block.astype(np.int64), n_blocks)
    return PartialResult(np.concatenate([values, gradients.reshape(-1)]))


def gibbs(engine: Engine, alpha: np.ndarray, weights: np.ndarray) -> PartialResult:
    """The Gibbs strategy."""
    return PartialResult(gathered=PackedStrategy.of(engine.gibbs(weights, alpha)))


def deferred_gibbs(engine: Any, alpha: np.ndarray, weights: np.ndarray) -> PartialResult:
    """The Gibbs strategy stays with the shard and is computed when it is first read."""
    compute = partial(engine.gibbs, weights, alpha)
    return PartialResult(
        state=DeferredStrategy(engine.n_samples, engine.shape.n_candidates, compute)
    )


def gather(engine: Engine, samples: np.ndarray, candidates: np.ndarray) -> PartialResult:
    """Chosen rows."""
    return PartialResult(gathered=engine.gather(samples, candidates))


def expected_losses(engine: Engine, attack: PackedStrategy) -> PartialResult:
    """Loss of each classifier under an attack."""
    return PartialResult(engine.expected_losses(attack.unpacked()))


def subsample(
    engine: Any, lowest: float, highest: float, samples: np.ndarray, weight: np.ndarray
) -> PartialResult:
    """An engine on a few of the samples, with their weights in the smaller game."""
    if samples.size == 0:
        return PartialResult()
    return PartialResult(state=engine.subsample(samples).as_shard(weight, lowest, highest))


def all_rows(engine: Engine, samples: np.ndarray) -> PartialResult:
    """All rows of a few samples, in the type they are stored in."""
    if samples.size == 0:
        return PartialResult()
    part = engine if samples.size == engine.n_samples else engine.subsample(samples)
    tensor = (part.in_memory() if isinstance(part, Condensing) else part).tensor  # type: ignore
    blocks = [rows for _, _, rows in tensor.blocks(0, tensor.n_samples)]
    return PartialResult(gathered=blocks[0] if len(blocks) == 1 else np.concatenate(blocks))


def distinct(engine: Any, share: float, dominance: bool) -> PartialResult:
    """Each sample's distinct candidates: their number, rows, mass and first candidates.

    The sum is how many there are; infinite where they are more than a share of all rows.
    """
    from mixsolve.engines.distinct import condense

    limit = int(share * engine.n_rows) + 1
    if isinstance(engine, Condensing):
        found = engine.distinct(limit, dominance)
    else:
        found = condense(engine, limit, dominance)
    if found is None:
        return PartialResult(np.array([np.inf]))
    game, candidates = found
    counts = np.diff(game.tensor.offsets).astype(np.int32)
    rows = next(game.tensor.blocks(0, game.n_samples))[2]
    return PartialResult(np.array([float(candidates.size)]), (counts, rows, game.prior, candidates))


def _best_candidates(engine: Any, response: BestResponse) -> np.ndarray:
    """Best candidates in the narrowest type that holds them."""
    return narrow(response.candidates, engine.shape.n_candidates)


def shortened(values: np.ndarray) -> np.ndarray | float:
    """A number for each sample: one number where all are equal."""
    if values.size and (values == values[0]).all():
        return float(values[0])
    return values


def spread_out(values: np.ndarray | float, n_samples: int) -> np.ndarray:
    """A number for each sample, from what `shortened` made of it."""
    return values if isinstance(values, np.ndarray) else np.full(n_samples, values)
