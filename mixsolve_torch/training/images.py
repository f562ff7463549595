"""A data set that is whole on the device: batches are gathered, cropped and mirrored there.

Images stay in bytes until they are in a batch, so that CIFAR takes 150 MB. Where crops and mirror
images are drawn, pixel (r, c) of an image of B comes from row r + a and column c + b of the image
with its border of zeros, or from column W - 1 - c + b of the mirrored one: one gather of whole
pixels for all images of the batch, without a synchronisation with the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mixsolve.base.arguments import as_real
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.data import checks
from mixsolve_torch.data.labelled import to_unit


class ImageSet:
    """Images and labels in memory.

    Parameters
    ----------
    images : torch.Tensor of shape (N, C, H, W)
        uint8 from 0 to 255, or floating in [0, 1]. Floats are kept as they are: not every level of
        grey is a multiple of 1 / 255.
    labels : torch.Tensor of shape (N,)
        Class indices, on the same device.

    Attributes
    ----------
    images, labels : torch.Tensor
        As given, labels as int64.

    Raises
    ------
    MixsolveError
        Images or labels that do not fit this.

    Examples
    --------
    >>> data = ImageSet(torch.full((4, 1, 2, 2), 51, dtype=torch.uint8), torch.arange(4))
    >>> x, y = data.batch(torch.tensor([3, 1]))
    >>> x.shape, float(x.max()), y
    (torch.Size([2, 1, 2, 2]), 0.2..., tensor([3, 1]))
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        if not (isinstance(images, Tensor) and images.dtype == torch.uint8 and images.ndim == 4):
            checks.images("images", images)
        self.images = images
        if isinstance(labels, Tensor) and labels.device != images.device:
            raise MixsolveError(
                "labels must be on the device of the images; "
                f"got {labels.device} and {images.device}; move them with labels.to(images.device)"
            )
        self.labels = checks.labels("labels", labels, len(images))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def at_most(self, limit: int | None) -> int:
        """Return how many images a limit leaves; None is no limit."""
        return min(limit or len(self), len(self))

    def shape(self) -> tuple[int, ...]:
        """Return the shape (C, H, W) of an image."""
        return tuple(self.images.shape[1:])

    def to(self, device: torch.device | str) -> ImageSet:
        """Return the set on a device."""
        return self._of(self.images.to(device), self.labels.to(device))

    def batch(
        self,
        indices: Tensor,
        *,
        generator: torch.Generator | None = None,
        crop: int = 0,
        flip: bool = False,
        channels_last: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return some images, cropped and mirrored at random if `crop` or `flip` says so.

        Parameters
        ----------
        indices : torch.Tensor of shape (B,)
            Which ones, on any device.
        generator : torch.Generator, optional
            Source of the crops and mirror images, on any device; PyTorch's global one if it is left
            out.
        crop : int, default 0
            Pixels of the border of zeros, within which images are moved at random.
        flip : bool, default False
            Mirror each image left to right with probability 1/2.
        channels_last : bool, default False
            Keep the channels of a pixel together in memory, which suits convolutions on
            accelerators.

        Returns
        -------
        images : torch.Tensor of shape (B, C, H, W)
            In [0, 1].
        labels : torch.Tensor of shape (B,)
            On the same device.
        """
        x, y = self._gathered(indices)
        return prepared(x, generator, crop=crop, flip=flip, channels_last=channels_last), y

    def reader(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, as they are stored, and labels of batches of indices; see `prepared`."""
        for chosen in batches:
            yield self._gathered(chosen)

    def split(self, share: float, generator: torch.Generator) -> tuple[ImageSet, ImageSet]:
        """Divide the set at random, each class by itself; both parts keep its order.

        Parameters
        ----------
        share : float
            Share of each class that the second part gets, in [0, 1); rounded to whole images.
        generator : torch.Generator
            Source of the draws; on the CPU.

        Raises
        ------
        MixsolveError
            A share that leaves the first part empty, or the second one although it is above 0.
        """
        share = as_real("share", share, at_least=0, below=1)
        held_out = torch.zeros(len(self), dtype=torch.bool)
        labels = self.labels.cpu()
        for label in labels.unique():
            members = (labels == label).nonzero()[:, 0]
            drawn = torch.randperm(len(members), generator=generator)
            held_out[members[drawn[: round(share * len(members))]]] = True
        taken = int(held_out.sum())
        if taken == len(self) or (share and not taken):
            raise MixsolveError(
                f"share must leave images in both parts; {share:g} of each class takes {taken} of "
                f"{len(self)}"
            )
        return self._chosen(~held_out), self._chosen(held_out)

    def _gathered(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return some images, as they are stored, and their labels."""
        indices = indices.to(self.images.device, non_blocking=True)
        return self.images[indices], self.labels[indices]

    def _chosen(self, rows: Tensor) -> ImageSet:
        """Return the set of the images where a mask (N,) holds."""
        rows = rows.to(self.images.device)
        return self._of(self.images[rows], self.labels[rows])

    @classmethod
    def _of(cls, images: Tensor, labels: Tensor) -> ImageSet:
        """Return a set of images and labels that are checked already; it may be empty."""
        made = cls.__new__(cls)
        made.images, made.labels = images, labels
        return made


def prepared(
    x: Tensor,
    generator: torch.Generator | None = None,
    *,
    crop: int = 0,
    flip: bool = False,
    channels_last: bool = False,
) -> Tensor:
    """Return images in [0, 1], cropped and mirrored; see `ImageSet.batch`."""
    if crop or flip:
        x = _augmented(x, generator, crop, flip)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return to_unit(x.contiguous(memory_format=layout))


def _augmented(x: Tensor, generator: torch.Generator | None, crop: int, flip: bool) -> Tensor:
    """Return images moved within a border of zeros and mirrored, as a channels-last tensor."""
    count, _, height, width = x.shape
    draws = x.device if generator is None else generator.device

    def drawn(end: int) -> Tensor:
        """Return integers (B, 1, 1) below `end`."""
        numbers = torch.randint(end, (count, 1, 1), generator=generator, device=draws)
        return numbers.to(x.device, non_blocking=True)

    rows = torch.arange(height, device=x.device)[None, :, None]
    columns = torch.arange(width, device=x.device)[None, None, :]
    if flip:
        columns = torch.where(drawn(2) == 1, width - 1 - columns, columns)
    if crop:
        x = nn.functional.pad(x, (crop, crop, crop, crop))
        rows = rows + drawn(2 * crop + 1)
        columns = columns + drawn(2 * crop + 1)
    images = torch.arange(count, device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[images, rows, columns].permute(0, 3, 1, 2)
