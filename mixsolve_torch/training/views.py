"""Views of an image for a certified mixture: networks trained clean, chosen by the game.

Adversarial training of views gives up accuracy and wins nothing: a view that the attacker's set
meets is counted as lost whatever it answers, and one that it does not meet is not attacked. So each
view is trained on plain images, and the value of the game on validation images says which are
played: how many, along which axis, with which weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve.base.errors import MixsolveError
from mixsolve.reach.certificate import ReachCertificate
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data.batching import Data, in_memory
from mixsolve_torch.data.labelled import to_unit
from mixsolve_torch.reach.losses import reach_losses
from mixsolve_torch.reach.masked import Masked
from mixsolve_torch.runs.progress import ProgressBar
from mixsolve_torch.training.single import fit


def fit_views(
    build: Callable[[int], nn.Module],
    data: Data,
    masks: Iterable[Tensor],
    *,
    epochs: int,
    fill: float = 0.0,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> list[Masked]:
    """Train one network for each mask, on plain images of which it reads the mask alone.

    Parameters
    ----------
    build : callable
        ``build(seed)`` returns a new network of whole images, on the device of the data.
    data
        As `fit` takes it.
    masks : iterable of torch.Tensor of bool
        What each view reads, e.g. of `views.bands`.
    epochs : int
        Passes over the data, a view.
    fill : float, default 0.0
        What hidden pixels are replaced by.
    seed : int, default 0
        View k has the seed ``seed + k``, of its initial weights and of the order of the images.
    progress : bool, default False
        Show a progress bar if the work takes more than two seconds and stderr is a terminal.
    **options
        Further arguments of `fit`: batch size, learning rate.

    Returns
    -------
    list of Masked
        The views, in eval mode.

    Raises
    ------
    MixsolveError
        No mask, or what `fit` refuses.
    """
    chosen = list(masks)
    if not chosen:
        raise MixsolveError("masks must hold at least one view; got none")
    own = in_memory(data)
    pair = to_unit(own.images), own.labels
    fitted: list[Masked] = []
    with ProgressBar("Training views", len(chosen) * epochs, enabled=progress) as bar:
        for k, mask in enumerate(chosen):
            view = Masked(build(seed + k), mask, fill).to(pair[0].device)
            fit(
                view,
                pair,
                epochs=epochs,
                seed=seed + k,
                on_epoch=lambda epoch, loss: bar.advance(),
                **options,
            )
            fitted.append(view.eval())
    return fitted


def choose_views(
    views: Iterable[nn.Module], data: Data, sets: Any, **options: Any
) -> tuple[Mixture, ReachCertificate]:
    """Return the mixture of the views that the game plays on validation images, certified.

    Parameters
    ----------
    views : iterable of torch.nn.Module
        The pool, `Masked` networks of any number of layouts.
    data
        Validation images and labels as `reach_losses` takes them.
    sets : Patch, Sensors or groups of features
        What the attacker can alter.
    **options
        Of `ReachLosses.certify`: ``held_out=False`` to choose on all images, or constraints.

    Returns
    -------
    mixture : Mixture
        The views of positive weight, with their weights.
    certificate : ReachCertificate
        Of the whole pool, in its order.
    """
    pool = list(views)
    certificate = reach_losses(pool, data, sets).certify(**options)
    played = [k for k, weight in enumerate(certificate.weights) if weight > 0]
    weights = torch.as_tensor(certificate.weights[played])
    mixture = Mixture([pool[k] for k in played], weights)
    return mixture.eval(), certificate
