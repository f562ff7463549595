"""Data to play with: scikit-learn's bundled 8x8 digits, and batches of tensors held in memory.

The digits are part of the installed scikit-learn: nothing is downloaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mixsolve.base.arguments import as_count, as_real
from mixsolve.base.errors import MissingDependencyError, MixsolveError


class Split(NamedTuple):
    """Images (N, C, H, W) in [0, 1] and labels (N,): a pair of tensors."""

    images: Tensor
    labels: Tensor


class Digits(NamedTuple):
    """The three parts of the digits."""

    train: Split
    validation: Split
    test: Split


def digits(*, seed: int = 0, validation: float = 0.15, test: float = 0.3) -> Digits:
    """Return the 1797 handwritten digits, split into three parts with the same share of classes.

    Parameters
    ----------
    seed : int, default 0
        Which images go where; the same seed always gives the same parts.
    validation : float, default 0.15
        Share of the validation part.
    test : float, default 0.3
        Share of the test part; the rest is for training.

    Returns
    -------
    Digits
        ``train``, ``validation`` and ``test``, each a pair of images, float32 of shape
        (N, 1, 8, 8) in [0, 1], and labels, int64 of shape (N,) from 0 to 9.

    Raises
    ------
    MissingDependencyError
        scikit-learn is not installed.
    MixsolveError
        Shares that leave nothing for training.

    References
    ----------
    Alpaydin, Kaynak. Optical Recognition of Handwritten Digits. UCI Machine Learning Repository,
    1998.

    Examples
    --------
    >>> parts = digits()
    >>> parts.train.images.shape
    torch.Size([989, 1, 8, 8])
    >>> len(parts.validation.labels), len(parts.test.labels)
    (269, 539)
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "the digits come with scikit-learn, which is not installed; "
            "install it with: pip install 'mixsolve[torch]'"
        ) from error
    validation = as_real("validation", validation, at_least=0)
    test = as_real("test", test, at_least=0)
    if validation + test >= 1:
        raise MixsolveError(
            f"validation + test must be below 1; got {validation:g} + {test:g}: "
            "nothing would be left for training"
        )
    bunch = load_digits()
    rng = np.random.default_rng(as_count("seed", seed, 0))
    parts: list[list[np.ndarray]] = [[], [], []]
    for label in np.unique(bunch.target):
        members = rng.permutation(np.flatnonzero(bunch.target == label))
        first, second = (round(share * len(members)) for share in (test, test + validation))
        for part, chosen in zip(
            parts, (members[second:], members[first:second], members[:first]), strict=True
        ):
            part.append(chosen)
    if not any(len(chosen) for chosen in parts[0]):
        raise MixsolveError(
            f"validation + test must leave images for training; got {validation:g} + {test:g}, "
            "which rounds to all of them"
        )
    images = torch.from_numpy((bunch.images[:, None] / 16).astype(np.float32))
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    order = [torch.from_numpy(rng.permutation(np.concatenate(part))) for part in parts]
    return Digits(*(Split(images[chosen], labels[chosen]) for chosen in order))


def count_shared(images: Tensor, others: Tensor) -> int:
    """Return how many of `others` (M, C, H, W) stand among `images` (N, C, H, W), bit by bit.

    `others` are converted to the dtype of the images.

    Examples
    --------
    >>> images = torch.arange(12.0).reshape(3, 1, 2, 2)
    >>> count_shared(images, images[1:]), count_shared(images, images + 1)
    (2, 0)
    """
    known = set(digests(images))
    return sum(entry in known for entry in digests(others.to(images.dtype)))


def digests(images: Tensor) -> Iterator[bytes]:
    """Yield a digest of the entries of each image (N, C, H, W), of 16 bytes.

    Equal images of one dtype have equal digests.
    """
    for entry in images.detach().cpu().contiguous().numpy():
        yield hashlib.blake2b(entry.data, digest_size=16).digest()


def batches(
    images: Tensor, labels: Tensor, batch_size: int, generator: torch.Generator | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of tensors held in memory.

    Parameters
    ----------
    images : torch.Tensor of shape (N, C, H, W)
        Images.
    labels : torch.Tensor of shape (N,)
        Labels.
    batch_size : int
        Images in a batch; the last one may have fewer.
    generator : torch.Generator, optional
        Shuffles the images; in their order when it is left out.

    Yields
    ------
    tuple of torch.Tensor
        Images (B, C, H, W) and labels (B,).
    """
    batch_size = as_count("batch_size", batch_size)
    order = torch.arange(len(images), device=images.device)
    if generator is not None:
        shuffled = torch.randperm(len(images), generator=generator, device=generator.device)
        order = shuffled.to(images.device)
    for chosen in order.split(batch_size):
        yield images[chosen], labels[chosen]
