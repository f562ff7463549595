"""Images that stay on the disk: batches are read ahead by worker processes, in an order given.

Which images are in a batch is drawn by the run, not by the workers, and crops and mirror images are
drawn on the device: a run reads the same numbers as from memory, also when it is resumed in the
middle of a pass. A `Dataset` must give the same item for an index every time.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.data import checks, pairs
from mixsolve_torch.runs.fingerprint import digest
from mixsolve_torch.training.images import ImageSet

_READ = 64  # images at a time where labels are all that is looked for
_COMPARED = 64  # images whose pixels are in the digest


class StreamedSet(ImageSet):
    """Some items of a `Dataset`.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Items as `mixsolve_torch.load_data` says.
    items : torch.Tensor of shape (N,), int64
        Which of them, on the CPU.
    labels : torch.Tensor of shape (N,), int64
        Theirs.
    workers : int
        Processes that read batches ahead.
    """

    def __init__(self, dataset: Dataset[Any], items: Tensor, labels: Tensor, workers: int) -> None:
        self._dataset, self._items, self._workers = dataset, items, workers
        self.labels = labels

    def to(self, device: torch.device | str) -> StreamedSet:
        """Return the set with its labels on a device, where its batches go to."""
        return StreamedSet(self._dataset, self._items, self.labels.to(device), self._workers)

    def reader(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images, as they are stored, and labels of batches of indices, read ahead."""
        if not batches:
            return
        device = self.labels.device
        loader: DataLoader[Any] = DataLoader(
            _Batches(self._dataset, [self._items[chosen.cpu()] for chosen in batches]),
            batch_size=None,
            num_workers=min(self._workers, len(batches)),
            pin_memory=device.type == "cuda",
            worker_init_fn=_ignore_ctrl_c,
            generator=torch.Generator(),  # seeds the workers; else the global one would
        )
        try:
            for chosen, (x, y) in zip(batches, loader, strict=True):
                yield self._sent(x, y, chosen)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error) or isinstance(error, MixsolveError):
                raise
            raise MixsolveError(
                f"a process that reads images has ended: {error}; look for what ended it, such as "
                "too little memory, and resume, with a smaller data.workers if it was that"
            ) from error

    def shape(self) -> tuple[int, ...]:
        """Return the shape (C, H, W) of the first image."""
        return tuple(_read(self._dataset, self._items[:1])[0].shape[1:])

    def digest(self, classes: int) -> str:
        """Return a digest of all labels, and of some images from the first to the last one."""
        places = torch.linspace(0, len(self) - 1, min(_COMPARED, len(self))).long()
        images, _ = _read(self._dataset, self._items[places])
        return digest(images, self.labels, str(classes))

    def _gathered(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        chosen = indices.cpu()
        return self._sent(*_read(self._dataset, self._items[chosen]), chosen)

    def _chosen(self, rows: Tensor) -> StreamedSet:
        rows = rows.cpu()
        labels = self.labels[rows.to(self.labels.device)]
        return StreamedSet(self._dataset, self._items[rows], labels, self._workers)

    def _sent(self, x: Tensor, y: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Bring a batch to the device; refuse labels that are not those known."""
        if self.labels.device.type == "cpu" and not torch.equal(y, self.labels[chosen]):
            raise MixsolveError(
                "the Dataset must give the same label for an item every time; it gave another one"
            )
        device = self.labels.device
        return x.to(device, non_blocking=True), y.to(device, non_blocking=True)


def streamed(
    dataset: Dataset[Any], workers: int, limit: int | None = None
) -> tuple[StreamedSet, int]:
    """Return a `Dataset`, or its first items, as a set whose images stay where they are.

    Its labels are the attribute ``targets`` where it has one and no ``target_transform``; else all
    items are read once for them. The second value is the number of classes, as for sets in memory.

    Raises
    ------
    MixsolveError, MixsolveTypeError
        A `Dataset` without items, or items that are no pairs of an image and a label.
    """
    count = min(limit or len(dataset), len(dataset))  # type: ignore[arg-type]
    if not count:
        raise MixsolveError("the Dataset must hold at least one image; got none")
    items = torch.arange(count)
    known = getattr(dataset, "targets", None)
    if known is None or getattr(dataset, "target_transform", None) is not None:
        parts = _Batches(dataset, list(items.split(_READ)))
        loader: DataLoader[Any] = DataLoader(
            parts, batch_size=None, num_workers=workers, generator=torch.Generator()
        )
        labels = torch.cat([y for _, y in loader])
    else:
        labels = torch.as_tensor(known)[:count].long()
    labels = checks.labels("labels", labels, count)
    classes = max(2, int(labels.max()) + 1)
    stated = getattr(dataset, "classes", None)
    if isinstance(stated, list | tuple):
        classes = max(classes, len(stated))
    return StreamedSet(dataset, items, labels, workers), classes


class _Batches(Dataset[Any]):
    """Whole batches of a `Dataset` as items."""

    def __init__(self, dataset: Dataset[Any], batches: list[Tensor]) -> None:
        self._dataset, self._batches = dataset, batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        return _read(self._dataset, self._batches[number])


def _read(dataset: Dataset[Any], items: Tensor) -> tuple[Tensor, Tensor]:
    images, labels = pairs.chosen(dataset, items.tolist())
    if images.dtype != torch.uint8:
        images = checks.images("the images of the Dataset", images).float()
    return images, labels


def _ignore_ctrl_c(_: int) -> None:
    """Leave a Ctrl-C in the terminal to the run, which saves first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
