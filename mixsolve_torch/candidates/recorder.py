"""One batch of the loss tensor: attack the images, and run all classifiers on the attacked ones.

    rows[i, j, k] = loss(f_k(x_ij), y_i),    x_i0 = x_i, x_ij the attack j on it

The images are attacked together unless the accelerator runs out of memory: then in halves, and so
on, down to one image at a time. Every attack has random numbers of its own for every batch and
every part, made from one seed: what happens in one batch changes no other draws.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.core.losses import LOSSES, Loss
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data import checks
from mixsolve_torch.models.classifiers import refuse_random

logger = logging.getLogger(__name__)

Generate = Callable[[Mixture, Tensor, Tensor, torch.Generator], Iterator[Tensor]]


@dataclass(frozen=True)
class Source:
    """Where some columns of the tensor come from.

    Attributes
    ----------
    title : str
        Its name in messages.
    names : tuple of str
        Its columns.
    generate : callable
        Yields one tensor of images (B, C, H, W) for each column, in the set that was declared.
    """

    title: str
    names: tuple[str, ...]
    generate: Generate


def clean() -> Source:
    """Return the source of the first column: the images as they are."""
    return Source("the clean images", ("clean",), lambda mixture, x, y, generator: iter([x]))


def source(attack: Attack, classifiers: int, keep: str) -> Source:
    """Return an attack as a source of columns: its final points, or its whole trajectory."""
    title = attack.label(type(attack).__name__)
    if keep == "trajectory":
        visited = partial(attack.candidates, trajectory=True)
        return Source(title, tuple(attack.trajectory_names(classifiers)), visited)
    return Source(title, tuple(attack.names(classifiers)), attack.candidates)


class Recorder:
    """Attacks batches of images and records the losses of all classifiers.

    Parameters
    ----------
    mixture : Mixture
        The classifiers, frozen (see `attacks.base.frozen`), and the weights that are attacked.
    sources : sequence of Source
        Where the columns come from, in order.
    loss : Loss
        The loss recorded.
    seed : int
        Of all draws.
    home : torch.device
        Where the draws are made.
    advance : callable
        Called after every column of a batch.

    Attributes
    ----------
    sources : sequence of Source
        May be replaced by others of the same columns between batches.
    together : int or None
        Images attacked together at most; None as long as memory has sufficed for whole batches.
    """

    def __init__(
        self,
        mixture: Mixture,
        sources: Sequence[Source],
        loss: Loss,
        seed: int,
        home: torch.device,
        advance: Callable[[], None],
    ) -> None:
        self.together: int | None = None
        self._mixture = mixture
        self.sources = sources
        self._loss = loss
        self._seed = seed
        self._home = home
        self._advance = advance
        self._columns = sum(len(each.names) for each in sources)

    def record(
        self, number: int, x: Tensor, y: Tensor, *, keep_inputs: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the losses (B, m, L) of one batch and its attacked images (B, m, C, H, W) or None.

        Parameters
        ----------
        number : int
            Its number, which its draws depend on.
        x, y : torch.Tensor
            A checked batch on the mixture's device.
        keep_inputs : bool, default False
            Return the attacked images as well.
        """
        batch = _Batch(x, self._columns, keep_inputs)
        first = 0
        for rank, each in enumerate(self.sources):
            begin, reached = 0, 0
            while begin < len(x):
                end = len(x) if self.together is None else min(begin + self.together, len(x))
                shortage = None
                try:
                    draws = self._draws(number, rank, begin)
                    part = x[begin:end], y[begin:end]
                    for j, points in enumerate(each.generate(self._mixture, *part, draws)):
                        # A random classifier is detected on the clean images of the first batch.
                        losses = member_losses(
                            self._mixture, points, part[1], self._loss, twice=number + rank == 0
                        )
                        batch.put(slice(begin, end), first + j, losses, points)
                        if end == len(x) and j == reached:
                            reached += 1
                            self._advance()
                except torch.cuda.OutOfMemoryError as error:
                    if end - begin == 1:
                        error.add_note(f"raised by {each.title} with one image at a time")
                        raise
                    shortage = str(error)
                # Outside the handler, whose traceback keeps the tensors of the failure alive.
                if shortage is None:
                    begin = end
                else:
                    self._halve(each, end - begin, shortage)
            first += len(each.names)
        return batch.losses, batch.inputs

    def _draws(self, *place: int) -> torch.Generator:
        """Return the random numbers of one part of one batch under one attack."""
        (seed,) = np.random.SeedSequence(self._seed, spawn_key=place).generate_state(1, np.uint64)
        return torch.Generator(self._home).manual_seed(int(seed >> np.uint64(1)))

    def _halve(self, each: Source, tried: int, shortage: str) -> None:
        self.together = tried // 2
        logger.warning(
            "out of memory: %s on %d images at a time; going on with %d (%s)",
            each.title,
            tried,
            self.together,
            shortage.splitlines()[0] if shortage else "no details",
        )
        if self._mixture.device.type == "cuda":
            torch.cuda.empty_cache()


class _Batch:
    """The losses of one batch, and its attacked images, filled in column by column."""

    def __init__(self, x: Tensor, columns: int, keep_inputs: bool) -> None:
        self._size, self._columns = len(x), columns
        self.losses = x.new_empty(0)
        self.inputs = x.new_empty(len(x), columns, *x.shape[1:]) if keep_inputs else None

    def put(self, part: slice, column: int, losses: Tensor, points: Tensor) -> None:
        if self.losses.ndim == 1:
            self.losses = losses.new_empty(self._size, self._columns, losses.shape[1])
        self.losses[part, column] = losses
        if self.inputs is not None:
            self.inputs[part, column] = points


@torch.no_grad()
def member_losses(
    mixture: Mixture, x: Tensor, y: Tensor, loss: Loss, *, twice: bool = False
) -> Tensor:
    """Return the losses (B, L) of all classifiers, in the smallest dtype that holds them.

    With `twice` they are run once more, and one whose logits change is refused.
    """
    logits = mixture.member_logits(x)
    checks.label_range("y", int(y.max()), logits.shape[-1])
    checks.finite_logits(logits, range(len(mixture)))
    if twice:
        again = mixture.member_logits(x)
        for k, model in enumerate(mixture.models):
            refuse_random(model, f"models[{k}]", logits[k], again[k])
    losses = torch.stack([loss.function(member, y) for member in logits], dim=1)
    if loss is LOSSES["zero-one"] or losses.dtype == torch.bool:
        return losses.to(torch.uint8)
    if losses.is_floating_point():
        return losses.to(torch.promote_types(losses.dtype, torch.float32))
    return losses
