"""The picture of the demo's optimal mixture, with examples of how its attacker mixes, too.

Some of the images are attacked through each network alone, each pair and the mixture. The attacker
plays a candidate j of image i with a probability proportional to exp(<lam, losses[i,j,:]> / alpha):
the strategy of the entropic problem, which mixes candidates of about equal loss. Candidates that
fool the same networks are shown as one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from mixsolve import plots
from mixsolve_torch.attacks import PGD, Attack, TransferPGD
from mixsolve_torch.candidates.build import build_losses
from mixsolve_torch.commands.demo_networks import DemoSettings
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data.arrays import Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IMAGES = 100
_ALPHA = 0.01
_EXAMPLES = 3
_VARIANTS = 3
_RARE = 0.05  # a candidate of a smaller probability is not shown


def mixture_picture(
    networks: Sequence[nn.Module],
    weights: Sequence[float],
    data: Split,
    settings: DemoSettings,
    seed: int,
) -> Figure:
    """Draw the weights of the mixture, and examples of attacks on it, chosen from `data`.

    `seed` is that of the attacks.
    """
    found = examples(networks, weights, data, settings, seed)
    return plots.mixture_picture(settings.names, weights, found, cmap="gray_r")


def examples(
    networks: Sequence[nn.Module],
    weights: Sequence[float],
    data: Split,
    settings: DemoSettings,
    seed: int,
) -> list[plots.Example]:
    """Return images of different classes against which the attacker plays several candidates.

    The parameters are those of `mixture_picture`.
    """
    losses = build_losses(
        Mixture(list(networks), np.asarray(weights)),
        Split(*(part[:_IMAGES] for part in data)),
        _attacks(settings),
        generator=torch.Generator().manual_seed(seed),
        keep_inputs=True,
    )
    assert losses.inputs is not None
    inputs, values = losses.inputs[:, :, 0].cpu().numpy(), losses.values.cpu().numpy()
    labels = losses.labels.tolist()
    exponents = values @ np.asarray(weights) / _ALPHA
    strategy = np.exp(exponents - exponents.max(axis=1, keepdims=True))
    strategy /= strategy.sum(axis=1, keepdims=True)
    played = [_played(*image) for image in zip(values, strategy, strict=True)]

    def interest(i: int) -> tuple[bool, float]:
        """Prefer images that fool no network when clean, and even probabilities."""
        shares = np.array([probability for _, probability in played[i]])
        return not values[i, 0].any(), -float((shares * np.log(shares)).sum())

    chosen: dict[int, int] = {}  # the most interesting image of each class
    for i in sorted(range(len(labels)), key=interest, reverse=True):
        chosen.setdefault(labels[i], i)
    return [
        plots.Example(
            inputs[i, 0],
            f"clean, a {label}\n{_fooled(values[i, 0])}",
            [plots.Variant(inputs[i, j], share, _fooled(values[i, j])) for j, share in played[i]],
        )
        for label, i in list(chosen.items())[:_EXAMPLES]
    ]


def _attacks(settings: DemoSettings) -> list[Attack]:
    norm, eps, steps = settings.norm, settings.eps, settings.steps
    count = len(settings.training_eps)
    alone = TransferPGD(norm, eps, steps=steps, loss="margin")
    pairs = [
        PGD(norm, eps, steps=steps, loss="margin", weights=weights, name=f"PGD on {pair}")
        for pair in itertools.combinations(range(count), 2)
        for weights in [[0.5 * (k in pair) for k in range(count)]]
    ]
    return [alone, *pairs, PGD(norm, eps, steps=steps, loss="margin")]


def _played(losses: np.ndarray, probabilities: np.ndarray) -> list[tuple[int, float]]:
    """Return one candidate for each set of networks fooled, and its probability, largest first."""
    shares: dict[str, float] = {}
    first: dict[str, int] = {}
    for j, probability in enumerate(probabilities.tolist()):
        fooled = _fooled(losses[j])
        shares[fooled] = shares.get(fooled, 0.0) + probability
        first.setdefault(fooled, j)
    ranked = sorted(shares, key=lambda fooled: -shares[fooled])[:_VARIANTS]
    return [(first[fooled], shares[fooled]) for fooled in ranked if shares[fooled] > _RARE]


def _fooled(losses: np.ndarray) -> str:
    wrong = [str(k + 1) for k in np.flatnonzero(losses)]
    return f"fools {', '.join(wrong)}" if wrong else "fools none"
