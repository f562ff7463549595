"""Losses of a mixture against sets of pixels in the attacker's reach: one clean pass, no attack.

    T[i, s, k] = 1   if f_k errs on x_i, or reads a pixel of s

with what f_k reads taken from `Masked`; a classifier of another kind reads everything. Sets that
meet the same classifiers are one candidate. See `mixsolve.reach.losses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve.base.arguments import as_count
from mixsolve.base.errors import MixsolveError
from mixsolve.reach.losses import ReachLosses
from mixsolve_torch.core.losses import errs
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data import checks
from mixsolve_torch.data.batching import Data, in_batches, pair
from mixsolve_torch.models.classifiers import check_repeatable, frozen
from mixsolve_torch.reach.masked import read_by
from mixsolve_torch.reach.sets import as_reach
from mixsolve_torch.runs.progress import ProgressBar

_TRIED_TWICE = 8  # images on which classifiers are run again, to see whether they draw


def reach_losses(
    mixture: Mixture | Sequence[nn.Module],
    data: Data,
    sets: Any,
    *,
    batch_size: int = 256,
    progress: bool = False,
) -> ReachLosses:
    """Return the losses of classifiers against everything that an attacker writes into a set.

    Parameters
    ----------
    mixture : Mixture or sequence of torch.nn.Module
        The L classifiers, `Masked` where they read part of the image; weights do not matter.
    data : pair of torch.Tensor, LabelledImages, Dataset or iterable of batches
        Images and labels as `build_losses` takes them.
    sets : Patch, Sensors or groups of features
        What the attacker can alter; he takes one set, or up to ``at_most`` where it says so.
    batch_size : int, default 256
        Images in a pass.
    progress : bool, default False
        Show a progress bar if the work takes more than two seconds and stderr is a terminal.

    Returns
    -------
    ReachLosses
        Of the core: ``mixsolve.solve(losses.values)`` gives weights, and one minus its value is
        certified; ``losses.certify()`` does both on separate halves of the images.

    Raises
    ------
    MixsolveError
        Masks that do not fit the images, a patch larger than they are, wrong data, or a classifier
        that is random in eval mode.

    Examples
    --------
    >>> import torch
    >>> import mixsolve_torch as mt
    >>> masks = mt.views.bands((8, 8), 2, gap=2)
    >>> mixture = mt.Mixture([mt.Masked(mt.digits_cnn(seed=k), own) for k, own in enumerate(masks)])
    >>> data = torch.rand(6, 1, 8, 8), torch.zeros(6, dtype=torch.long)
    >>> mt.reach_losses(mixture, data, mt.Patch(3)).touched.astype(int).tolist()
    [[0, 1], [1, 0]]
    """
    mixture = mixture if isinstance(mixture, Mixture) else Mixture(mixture)
    reach = as_reach(sets)
    total, _, loader = in_batches(data, as_count("batch_size", batch_size))
    shape: tuple[int, ...] | None = None
    found: list[Tensor] = []
    with (
        frozen(mixture),
        torch.no_grad(),
        ProgressBar("Classifying", total, enabled=progress) as bar,
    ):
        for number, batch in enumerate(loader):
            x, y = pair(batch, number)
            x = checks.images("x", x).to(mixture.device)
            y = checks.labels("y", y, len(x)).to(mixture.device)
            if shape is None:
                shape = tuple(x.shape[1:])
                for k, model in enumerate(mixture.models):
                    check_repeatable(model, f"models[{k}]", x[:_TRIED_TWICE])
            elif tuple(x.shape[1:]) != shape:
                raise MixsolveError(
                    f"images must have one shape; got {tuple(x.shape[1:])} after {shape}"
                )
            logits = mixture.member_logits(x)
            checks.label_range("y", int(y.max()), logits.shape[-1])
            checks.finite_logits(logits, range(len(mixture)))
            found.append(errs(logits, y).T)
            bar.advance()
    if shape is None:
        raise MixsolveError("data must hold at least one batch; got none")
    reads = torch.stack([read_by(model, shape) for model in mixture.models])
    return ReachLosses.of(torch.cat(found).cpu().numpy(), reach.touched(reads), reach.at_most)
