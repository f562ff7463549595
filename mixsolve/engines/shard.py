"""What a part of a tensor is asked: each question is a pass, or less, of the part's own engine.

A question is a plain function, so that it reaches a worker by its name. Its first argument is what
the part keeps, its engine; its answer has numbers to be added up over the parts, what is to be sent
to the process that solves, and what is to stay with the part.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from mixsolve.base.errors import NonFiniteLossError
from mixsolve.engines.base import BestResponse, Engine
from mixsolve.engines.deferred import DeferredStrategy
from mixsolve.engines.memory import Condensing
from mixsolve.engines.packed import PackedStrategy, narrow

_NOTHING = np.empty(0)


@dataclass(frozen=True)
class PartialResult:
    """What a part says.

    Attributes
    ----------
    sums : ndarray of float64, shape (n_sums,)
        To be added up over the parts.
    found : object
        To be sent.
    kept : object
        To stay with the part.
    prepared : float
        Seconds that this took of imports and compilation, in a process other than the one that
        asks.
    """

    sums: np.ndarray = field(default_factory=lambda: _NOTHING)
    found: Any = None
    kept: Any = None
    prepared: float = 0.0


def respond(
    question: Callable[..., PartialResult],
    n_sums: int,
    kept: Sequence[Any],
    common: Sequence[Any],
    share: Sequence[Any],
) -> PartialResult:
    """What a part does when it is asked; a part without samples adds zeros and sends nothing."""
    if kept[0] is None:
        return PartialResult(np.zeros(n_sums))
    return question(*kept, *common, *share)


def open_part(
    losses: Any,
    first_sample: int,
    sample_weight: np.ndarray | float,
    allowed: np.ndarray,
    prior: np.ndarray,
) -> PartialResult:
    """Make an engine of a part's losses; send their extremes and size.

    Raises
    ------
    MixsolveError
        If a candidate that may be played has a NaN or infinite loss.
    """
    from mixsolve.engines import Losses, open_losses

    if not isinstance(losses, Losses) and losses.shape[0] == 0:
        return PartialResult()
    opened = open_losses(losses)
    try:
        engine = opened.engine(spread_out(sample_weight, opened.n_samples), allowed, prior)
    except NonFiniteLossError as error:
        raise error.shifted(first_sample) from None
    return PartialResult(found=(engine.lowest, engine.highest, engine.n_bytes), kept=engine)


def place(
    engine: Any, lowest: float, highest: float, sample_weight: np.ndarray | float
) -> PartialResult:
    """Tell a part's engine what it needs to know of the whole."""
    weight = spread_out(sample_weight, engine.n_samples)
    return PartialResult(kept=engine.as_part(weight, lowest, highest))


def confine(engine: Any, classifiers: np.ndarray) -> PartialResult:
    """A part's engine with some classifiers alone in play; send the extremes of their losses."""
    part = engine.confined(classifiers)
    return PartialResult(found=(part.lowest, part.highest), kept=part)


def in_unit(engine: Any, exponent: int) -> PartialResult:
    """A part's engine with its losses in units of 2^exponent."""
    return PartialResult(kept=engine.in_unit(exponent))


def keep(engine: Engine, values: np.ndarray | float) -> PartialResult:
    """Keep a number for each sample."""
    return PartialResult(kept=spread_out(values, engine.n_samples))


def best_response(engine: Engine, weights: np.ndarray) -> PartialResult:
    """Value and gradient; the best candidates stay."""
    response = engine.best_response(weights)
    return PartialResult(
        np.append(response.value, response.gradient), kept=_winners(engine, response)
    )


def near_winners(engine: Engine, weights: np.ndarray, radius: float, share: float) -> PartialResult:
    """The same, and near rows, of which a share of all may be sent."""
    return near_response(engine, None, weights, radius, share)


def near_response(
    engine: Engine, slack: np.ndarray | None, weights: np.ndarray, radius: float, share: float
) -> PartialResult:
    """The same with slack."""
    response = engine.near_response(weights, radius, int(share * engine.n_rows), slack)
    sums = np.concatenate([[response.value], response.gradient, [response.n_near]])
    near = response.near_samples, response.near_candidates
    return PartialResult(sums, near, _winners(engine, response))


def soft_response(
    engine: Engine, alpha: np.ndarray, weights: np.ndarray, hessian: bool
) -> PartialResult:
    """Value, gradient and, if asked for, the Hessian."""
    response = engine.soft_response(weights, alpha, hessian)
    square = _NOTHING if response.hessian is None else response.hessian.reshape(-1)
    return PartialResult(np.concatenate([[response.value], response.gradient, square]))


def gibbs(engine: Engine, alpha: np.ndarray, weights: np.ndarray) -> PartialResult:
    """The Gibbs strategy."""
    return PartialResult(found=PackedStrategy.of(engine.gibbs(weights, alpha)))


def gibbs_later(engine: Any, alpha: np.ndarray, weights: np.ndarray) -> PartialResult:
    """The Gibbs strategy stays, not computed yet."""
    compute = partial(engine.gibbs, weights, alpha)
    return PartialResult(
        kept=DeferredStrategy(engine.n_samples, engine.shape.n_candidates, compute)
    )


def gather(engine: Engine, samples: np.ndarray, candidates: np.ndarray) -> PartialResult:
    """Chosen rows."""
    return PartialResult(found=engine.gather(samples, candidates))


def expected_losses(engine: Engine, attack: PackedStrategy) -> PartialResult:
    """Loss of each classifier under an attack."""
    return PartialResult(engine.expected_losses(attack.unpacked()))


def subsample(
    engine: Any, lowest: float, highest: float, samples: np.ndarray, weight: np.ndarray
) -> PartialResult:
    """An engine on a few of the samples, with their weights in the smaller game."""
    if samples.size == 0:
        return PartialResult()
    return PartialResult(kept=engine.subsample(samples).as_part(weight, lowest, highest))


def all_rows(engine: Engine, samples: np.ndarray) -> PartialResult:
    """All rows of a few samples, in the type they are stored in."""
    if samples.size == 0:
        return PartialResult()
    part = engine if samples.size == engine.n_samples else engine.subsample(samples)
    tensor = (part.in_memory() if isinstance(part, Condensing) else part).tensor  # type: ignore
    blocks = [rows for _, _, rows in tensor.blocks(0, tensor.n_samples)]
    return PartialResult(found=blocks[0] if len(blocks) == 1 else np.concatenate(blocks))


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


def winners(engine: Engine, candidates: Any) -> PartialResult:
    """All best candidates of an earlier response."""
    return PartialResult(found=candidates)


def winners_of(engine: Engine, candidates: np.ndarray, samples: np.ndarray) -> PartialResult:
    """Best candidates of a few samples."""
    return PartialResult(found=candidates[samples])


def winners_moved(engine: Engine, candidates: np.ndarray, earlier: np.ndarray) -> PartialResult:
    """Samples whose best candidate is another than in an earlier response."""
    return PartialResult(found=np.flatnonzero(candidates != earlier).astype(np.int32))


def _winners(engine: Any, response: BestResponse) -> np.ndarray:
    """Best candidates in the narrowest type that holds them: they stay, and may travel."""
    return narrow(response.candidates, engine.shape.n_candidates)


def spread_out(values: np.ndarray | float, n_samples: int) -> np.ndarray:
    """A number for each sample, from what `mixsolve.engines.sharded.shortened` made of it."""
    return values if isinstance(values, np.ndarray) else np.full(n_samples, values)
