"""Epochs of one network's training: the cross-entropy on batches that the caller supplies."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.data import checks
from mixsolve_torch.models.classifiers import run_member

logger = logging.getLogger(__name__)


def descend(
    model: nn.Module,
    index: int,
    epoch_batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int,
    optimizer: torch.optim.Optimizer,
    mend: str,
    on_epoch: Callable[[int, float], None] | None = None,
    begun: Mapping[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] | None = None,
) -> list[float]:
    """Train a network in place, its learning rate falling to zero along a cosine.

    Parameters
    ----------
    model : torch.nn.Module
        Left in train mode.
    index : int
        Its number among the classifiers, for error messages.
    epoch_batches : callable
        Returns the images and labels of one epoch; each batch is drawn after the step before it.
    labels : torch.Tensor of shape (N,), int64
        All of an epoch's, in any order.
    epochs, batch_size : int
        Passes over the images, and images in a step.
    optimizer : torch.optim.Optimizer
        Of the network's parameters, with the learning rate to begin with.
    mend : str
        The remedy to suggest if the loss is no longer finite.
    on_epoch : callable, optional
        Called as ``on_epoch(epoch, mean_loss)`` after every epoch, counted from 0.
    begun : mapping, optional
        What `save` was given after an earlier epoch, to resume from there.
    save : callable, optional
        Called with all that the next epoch depends on, after every epoch but the last.

    Returns
    -------
    list of float
        The mean training loss of each epoch.

    Raises
    ------
    MixsolveError
        Logits that do not fit the labels, or a loss that is no longer finite.
    """
    steps = epochs * math.ceil(len(labels) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    largest_label = int(labels.max())
    model.train()
    history: list[float] = []
    if begun is not None:
        model.load_state_dict(begun["model"])
        optimizer.load_state_dict(begun["optimizer"])
        schedule.load_state_dict(begun["schedule"])
        history += begun["history"]
    for epoch in range(len(history), epochs):
        total = torch.zeros((), dtype=torch.float64, device=labels.device)
        for x, y in epoch_batches():
            logits = run_member(model, index, x)
            checks.label_range("data[1]", largest_label, logits.shape[1])
            loss = nn.functional.cross_entropy(logits, y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach().to(torch.float64) * len(x)
        history.append(float(total) / len(labels))
        if not math.isfinite(history[-1]):
            raise MixsolveError(f"the training loss became {history[-1]} in epoch {epoch}; {mend}")
        logger.debug("epoch %d: loss %.4f", epoch, history[-1])
        if on_epoch is not None:
            on_epoch(epoch, history[-1])
        if save is not None and epoch + 1 < epochs:
            save(
                {
                    "model": dict(model.state_dict()),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "history": list(history),
                }
            )
    return history
