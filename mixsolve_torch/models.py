"""Classifiers: networks that take images in [0, 1], normalise them themselves and return logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mixsolve.arguments import as_count
from mixsolve.errors import MixsolveError

_DIGITS_MEAN, _DIGITS_STD = 0.306, 0.376  # of all pixels of the digits in [0, 1]


class Normalize(nn.Module):
    """The first layer of a network: ``(x - mean) / std``, channel by channel.

    Parameters
    ----------
    mean, std : sequence of float of length C
        Mean and standard deviation of each channel, for images in [0, 1].

    Raises
    ------
    MixsolveError
        Lengths that differ, or a standard deviation that is not positive.
    """

    if TYPE_CHECKING:  # TorchScript cannot read annotations that are kept as strings
        mean: Tensor
        std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or any(not deviation > 0 for deviation in std):
            raise MixsolveError(
                f"mean and std must hold one value a channel and std be positive; "
                f"got {list(mean)} and {list(std)}"
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised images (B, C, H, W)."""
        return (x - self.mean) / self.std


def digits_cnn(*, seed: int = 0, width: int = 16) -> nn.Sequential:
    """Return a small convolutional network for the 8x8 digits, with weights drawn from `seed`.

    Three 3x3 convolutions (the second halves the image) and a linear layer on ReLUs; 19,000
    parameters at the default width. It has neither dropout nor batch norms and trains in seconds.

    Parameters
    ----------
    seed : int, default 0
        Seed of the initial weights. PyTorch's global generator is left as it was.
    width : int, default 16
        Channels of the first convolution; the others have twice as many.

    Returns
    -------
    torch.nn.Sequential
        Maps images (B, 1, 8, 8) in [0, 1] to logits (B, 10).

    Examples
    --------
    >>> import torch
    >>> digits_cnn(seed=1)(torch.rand(3, 1, 8, 8)).shape
    torch.Size([3, 10])
    """
    width = as_count("width", width)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the generators of all devices, which this fork does not save.
        torch.default_generator.manual_seed(as_count("seed", seed, 0))
        return nn.Sequential(
            Normalize([_DIGITS_MEAN], [_DIGITS_STD]),
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * 16, 10),
        )
