"""Draw a game: where its losses come from, what is done to them, and what else is asked.

A game is drawn from a seed and its own number, so that any one of them can be drawn again by
itself. Its origin is one of a few distributions; on top come, each with some probability, twins,
duplicates, offsets, scales from 1e-300 to 1e300, masks with anything beneath, sample weights with
zeros, ragged lists, priors and a regularisation, one number or one per sample.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_TINY, _HUGE = 1e-310, 1e300
_ANYTHING = (np.nan, np.inf, -np.inf, 1e300, -1e300, 1e9)  # beneath a mask


@dataclass
class Drawn:
    """A game and how it is to be solved.

    Attributes
    ----------
    kind : str
        Of its losses.
    traits : tuple of str
        What was done to them.
    losses : ndarray of shape (N, m, L), or list of arrays (m_i, L)
        As `mixsolve.solve` is given them.
    alpha : float or ndarray of float64, shape (N,)
        Regularisation.
    arguments : dict
        Of `mixsolve.solve` about the game: sample_weight, candidate_mask, candidate_prior.
    """

    kind: str
    traits: tuple[str, ...]
    losses: Any
    alpha: Any
    arguments: dict[str, Any] = field(default_factory=dict)


def _gamma(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    return 0.5 * rng.gamma(1.0, 1.0, (shape[0], 1, 1)) + rng.gamma(0.5, 1.5, shape)


def _lognormal(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    return rng.lognormal(0.0, rng.uniform(0.5, 4.0), shape)


def _normal(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    return rng.normal(size=shape)


def _heavy_tails(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    return rng.standard_t(1.5, size=shape)


def _zero_one(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    likely = rng.beta(0.5, rng.uniform(0.3, 4.0), (shape[0], 1, shape[2]))
    return (rng.random(shape) < likely).astype(rng.choice([np.uint8, np.bool_, np.float64]))


def _integers(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    drawn = rng.integers(0, rng.integers(2, 6), shape)
    return drawn.astype(rng.choice([np.int8, np.int64, np.float32, np.float64]))


def _constant(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    drawn = np.full(shape, rng.choice([0.0, 1.0, -3.5, 1e-300, 1e300]))
    axis = rng.integers(4)
    if axis == 0:  # constant in all but the samples
        drawn = drawn + rng.random((shape[0], 1, 1))
    elif axis == 1:  # in all but the candidates
        drawn = drawn + rng.random((1, shape[1], 1))
    elif axis == 2:  # in all but the classifiers
        drawn = drawn + rng.random((1, 1, shape[2]))
    return drawn


def _vertices(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """A matrix game in each sample: candidate j hurts one classifier alone."""
    hurt = rng.integers(0, shape[2], shape[:2])
    losses = np.zeros(shape)
    np.put_along_axis(losses, hurt[..., None], 1.0, axis=2)
    return losses * rng.choice([1.0, 1.0, rng.random()], (shape[0], 1, 1))


def _near_ties(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """All candidates of a sample nearly alike: many best responses within rounding."""
    noise = 10.0 ** rng.uniform(-15, -6)
    return rng.integers(0, 3, (shape[0], 1, shape[2])) + noise * rng.normal(size=shape)


KINDS: dict[str, Callable[[np.random.Generator, tuple[int, int, int]], np.ndarray]] = {
    "gamma": _gamma,
    "lognormal": _lognormal,
    "normal": _normal,
    "t-distributed": _heavy_tails,
    "zero-one": _zero_one,
    "integers": _integers,
    "constant": _constant,
    "vertices": _vertices,
    "near ties": _near_ties,
}


def _sizes(rng: np.random.Generator) -> tuple[int, int, int]:
    if rng.random() < 0.02:
        return int(rng.integers(100, 400)), int(rng.integers(5, 40)), int(rng.integers(2, 16))
    if rng.random() < 0.02:
        return int(rng.integers(1, 6)), int(rng.integers(1, 6)), int(rng.integers(20, 90))
    n_samples = 1 if rng.random() < 0.15 else int(rng.integers(1, 30))
    n_candidates = 1 if rng.random() < 0.1 else int(rng.integers(1, 13))
    return n_samples, n_candidates, int(rng.integers(1, 8))


def draw(seed: int, number: int) -> Drawn:
    """Draw game `number` of a seed.

    Parameters
    ----------
    seed, number : int
        The same two give the same game.
    """
    rng = np.random.default_rng([seed, number])
    kind = str(rng.choice(list(KINDS)))
    losses = KINDS[kind](rng, _sizes(rng))
    traits: list[str] = []
    losses = _likenesses(rng, losses, traits)
    losses = _scales(rng, losses, traits)
    arguments = _weights_and_masks(rng, losses, traits)
    if "mask" in traits or "zero weights" in traits:
        losses = _hidden(rng, losses, arguments, traits)
    if "mask" not in traits and rng.random() < 0.15 and losses.shape[0] > 1:
        losses = _ragged(rng, losses, arguments)
        traits.append("ragged")
    else:
        losses = _layout(rng, losses, traits)
    alpha = _alpha(rng, losses, arguments, traits)
    return Drawn(kind, tuple(traits), losses, alpha, arguments)


def _likenesses(rng: np.random.Generator, losses: np.ndarray, traits: list[str]) -> np.ndarray:
    """Classifiers, candidates or samples that are the same, or nearly."""
    n_samples, n_candidates, n_classifiers = losses.shape
    if rng.random() < 0.15 and n_classifiers > 1:
        traits.append("twins")
        noise = rng.choice([0.0, 1e-14, 1e-9, 1e-6, 1e-3])
        of = rng.integers(0, n_classifiers, n_classifiers)
        near = losses.astype(np.float64)[..., of]
        losses = near * (1.0 + noise * rng.normal(size=near.shape)) if noise else losses[..., of]
    if rng.random() < 0.1 and n_candidates > 1:
        traits.append("duplicates")
        losses = losses[:, rng.integers(0, n_candidates, n_candidates)]
    if rng.random() < 0.1 and n_samples > 1:
        traits.append("equal samples")
        losses = losses[rng.integers(0, n_samples, n_samples)]
    if rng.random() < 0.05:
        traits.append("dominated classifier")
        losses = losses.astype(np.float64)
        losses[..., 0] = losses.max(axis=2) + 1.0
    return losses


def _scales(rng: np.random.Generator, losses: np.ndarray, traits: list[str]) -> np.ndarray:
    """Offsets and units, of the whole game or one a sample; the spread stays finite."""
    if rng.random() < 0.15:
        traits.append("offset")
        by_sample = (losses.shape[0], 1, 1) if rng.random() < 0.5 else ()
        losses = losses + 10.0 ** rng.uniform(-3, 10) * rng.normal(size=by_sample)
    if rng.random() < 0.1:
        traits.append("scaled samples")
        units = 10.0 ** rng.uniform(-12, 12, (losses.shape[0], 1, 1))
        losses = losses * (units if _largest(losses) * units.max() < 1e300 else 1.0 / units.max())
    if rng.random() < 0.2:
        traits.append("scaled")
        unit = 10.0 ** rng.uniform(-300, 300)
        if largest := _largest(losses):
            unit = min(unit, 4e307 / largest)
        losses = losses.astype(np.float64) * unit
    if rng.random() < 0.03:
        traits.append("subnormal")
        losses = np.rint(losses.astype(np.float64) % 8.0) * 5e-324
    return losses


def _weights_and_masks(
    rng: np.random.Generator, losses: np.ndarray, traits: list[str]
) -> dict[str, Any]:
    n_samples, n_candidates, _ = losses.shape
    arguments: dict[str, Any] = {}
    if rng.random() < 0.3:
        traits.append("weights")
        weight = rng.random(n_samples) + 0.01
        if rng.random() < 0.4:
            weight = 10.0 ** rng.uniform(-14, 0, n_samples)
        if rng.random() < 0.5 and n_samples > 1:
            traits.append("zero weights")
            weight[rng.random(n_samples) < 0.4] = 0.0
            weight[rng.integers(n_samples)] = 1.0
        arguments["sample_weight"] = weight * 10.0 ** rng.uniform(-3, 3)
    if rng.random() < 0.2 and n_candidates > 1:
        traits.append("mask")
        mask = rng.random((n_samples, n_candidates)) < 0.6
        mask[np.arange(n_samples), rng.integers(0, n_candidates, n_samples)] = True
        arguments["candidate_mask"] = mask
    return arguments


def _hidden(
    rng: np.random.Generator, losses: np.ndarray, arguments: dict[str, Any], traits: list[str]
) -> np.ndarray:
    """Put anything where no candidate may be played, large losses where a sample has no weight."""
    if losses.dtype.kind != "f" or rng.random() < 0.3:
        return losses
    traits.append("hidden")
    losses = losses.copy()
    weight = arguments.get("sample_weight")
    if weight is not None:
        losses[weight == 0.0] *= rng.choice([1e9, -1e9]) if _largest(losses) < 1e290 else 1.0
    mask = arguments.get("candidate_mask")
    if mask is not None:
        losses[~mask] = rng.choice(_ANYTHING)
    return losses


def _ragged(
    rng: np.random.Generator, losses: np.ndarray, arguments: dict[str, Any]
) -> list[np.ndarray]:
    lengths = rng.integers(1, losses.shape[1] + 1, losses.shape[0])
    if rng.random() < 0.3:
        arguments["candidate_prior"] = [rng.random(length) + 0.01 for length in lengths]
    return [table[:length] for table, length in zip(losses, lengths, strict=True)]


def _layout(rng: np.random.Generator, losses: np.ndarray, traits: list[str]) -> np.ndarray:
    choice = rng.integers(12)
    if choice == 0:
        traits.append("float32")
        with np.errstate(over="ignore", under="ignore"):
            narrow = losses.astype(np.float32)
        same = np.isfinite(losses.astype(np.float64)) == np.isfinite(narrow)
        return narrow if same.all() and np.abs(narrow[np.isfinite(narrow)]).max() < 1e38 else losses
    if choice == 1:
        return np.asfortranarray(losses)
    if choice == 2:
        return losses[::-1].copy()[::-1]
    if choice == 3:
        losses = losses.copy()
        losses.setflags(write=False)
    return losses


def _alpha(
    rng: np.random.Generator, losses: Any, arguments: dict[str, Any], traits: list[str]
) -> Any:
    """0, or in units of the spread mostly, and now and then anything that float64 can say."""
    if rng.random() < 0.45:
        return 0.0
    n_samples = len(losses)
    size = n_samples if rng.random() < 0.25 else None
    if size is not None:
        traits.append("alpha a sample")
    if rng.random() < 0.1:
        traits.append("any alpha")
        alpha = 10.0 ** rng.uniform(np.log10(_TINY), np.log10(_HUGE), size)
    else:
        spread = _spread(losses, arguments.get("candidate_mask")) or 1.0
        alpha = np.clip(spread * 10.0 ** rng.uniform(-6, 2, size), _TINY, _HUGE)
    if "ragged" not in traits and rng.random() < 0.2:
        traits.append("prior")
        arguments["candidate_prior"] = 10.0 ** rng.uniform(
            -rng.choice([1, 12]), 0, np.shape(losses)[:2]
        )
    return alpha if size is not None else float(alpha)


def _largest(losses: np.ndarray) -> float:
    return float(np.abs(losses.astype(np.float64)).max())


def _spread(losses: Any, mask: np.ndarray | None) -> float:
    tables = losses if mask is None else [t[a] for t, a in zip(losses, mask, strict=True)]
    return float(max(t.max() for t in tables)) - float(min(t.min() for t in tables))
