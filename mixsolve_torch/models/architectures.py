"""Classifiers: networks that take images in [0, 1], normalise them themselves and return logits.

Initial weights are drawn from a seed, and PyTorch's global generator is left as it was.

References
----------
He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016.
Zagoruyko, Komodakis. Wide Residual Networks. BMVC 2016.
Wong, Kolter. Provable Defenses against Adversarial Examples via the Convex Outer Adversarial
Polytope. ICML 2018.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mixsolve.base.arguments import as_count
from mixsolve.base.errors import MissingDependencyError, MixsolveError, MixsolveTypeError
from mixsolve_torch.models.builder import call_builder

_DIGITS_MEAN, _DIGITS_STD = 0.306, 0.376  # of all pixels of the digits in [0, 1]
_FASHION_MEAN, _FASHION_STD = 0.2860, 0.3530  # of all pixels of Fashion-MNIST's training images
# Of all pixels of the training images, channel by channel.
_CIFAR10 = ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])
_CIFAR100 = ([0.5071, 0.4866, 0.4409], [0.2673, 0.2564, 0.2762])


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


def digits_cnn(*, seed: int = 0, width: int = 16, classes: int = 10) -> nn.Sequential:
    """Return a small convolutional network for the 8x8 digits, with weights drawn from `seed`.

    Three 3x3 convolutions (the second halves the image) and a linear layer on ReLUs; 19,000
    parameters at the default width. It has neither dropout nor batch norms and trains in seconds.

    Parameters
    ----------
    seed : int, default 0
        Seed of the initial weights. PyTorch's global generator is left as it was.
    width : int, default 16
        Channels of the first convolution; the others have twice as many.
    classes : int, default 10
        Number of logits.

    Returns
    -------
    torch.nn.Sequential
        Maps images (B, 1, 8, 8) in [0, 1] to logits (B, classes).

    Examples
    --------
    >>> import torch
    >>> digits_cnn(seed=1)(torch.rand(3, 1, 8, 8)).shape
    torch.Size([3, 10])
    """
    width, classes = as_count("width", width), as_count("classes", classes, 2)
    with _drawn_from(seed):
        return nn.Sequential(
            Normalize([_DIGITS_MEAN], [_DIGITS_STD]),
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * 16, classes),
        )


def mnist_cnn(*, seed: int = 0, width: int = 16, classes: int = 10) -> nn.Sequential:
    """Return a small convolutional network for 28x28 grey images, with weights drawn from `seed`.

    The network of Wong and Kolter: two 4x4 convolutions that each halve the image, a hidden layer
    of 100 units and a linear layer, on ReLUs; 166,406 parameters at the default width. It has
    neither dropout nor batch norms.

    Parameters
    ----------
    width : int, default 16
        Channels of the first convolution; the second has twice as many.
    seed, classes
        As in `digits_cnn`.

    Returns
    -------
    torch.nn.Sequential
        Maps images (B, 1, 28, 28) in [0, 1] to logits (B, classes). They are normalised by the
        statistics of Fashion-MNIST.
    """
    width, classes = as_count("width", width), as_count("classes", classes, 2)
    with _drawn_from(seed):
        return nn.Sequential(
            Normalize([_FASHION_MEAN], [_FASHION_STD]),
            nn.Conv2d(1, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * 49, 100),
            nn.ReLU(),
            nn.Linear(100, classes),
        )


def resnet18(*, classes: int = 10, seed: int = 0) -> nn.Sequential:
    """Return ResNet-18 for 32x32 images, with weights drawn from `seed`.

    torchvision's network with the stem that small images need: a 3x3 convolution of stride 1 for
    the 7x7 one of stride 2, and no max-pooling; 11.2 million parameters.

    Parameters
    ----------
    classes : int, default 10
        Number of logits. Images are normalised by the statistics of CIFAR-100 where it is 100, and
        by those of CIFAR-10 else.
    seed : int, default 0
        As in `digits_cnn`.

    Returns
    -------
    torch.nn.Sequential
        Maps images (B, 3, 32, 32) in [0, 1] to logits (B, classes).

    Raises
    ------
    MissingDependencyError
        torchvision is not installed.
    """
    try:
        from torchvision import models
    except ImportError as error:
        raise MissingDependencyError(
            f"resnet18 comes from torchvision, which cannot be imported ({error}); "
            "install it with: pip install 'mixsolve[torch]'"
        ) from error
    classes = as_count("classes", classes, 2)
    with _drawn_from(seed):
        network = models.resnet18(num_classes=classes)
        network.conv1 = _convolution(3, 64)
    network.maxpool = nn.Identity()
    return nn.Sequential(_cifar_normalize(classes), network)


def wide_resnet28_10(
    *, classes: int = 10, seed: int = 0, depth: int = 28, width: int = 10
) -> nn.Sequential:
    """Return WideResNet-28-10 for 32x32 images, with weights drawn from `seed`.

    Pre-activated residual blocks of two 3x3 convolutions, in three groups of ``(depth - 4) / 6``
    with ``16 width``, ``32 width`` and ``64 width`` channels, without dropout; 36.5 million
    parameters.

    Parameters
    ----------
    classes, seed
        As in `resnet18`, with the same normalisation of images.
    depth : int, default 28
        Number of convolutions on the longest way, 6 n + 4.
    width : int, default 10
        Factor of the channels.

    Returns
    -------
    torch.nn.Sequential
        Maps images (B, 3, 32, 32) in [0, 1] to logits (B, classes).
    """
    classes, width = as_count("classes", classes, 2), as_count("width", width)
    if as_count("depth", depth, 10) % 6 != 4:
        raise MixsolveError(f"depth must be 6 n + 4, e.g. 16, 22, 28 or 34; got {depth}")
    blocks: list[nn.Module] = []
    channels = 16
    with _drawn_from(seed):
        stem = _convolution(3, channels)
        for group in range(3):
            for block in range((depth - 4) // 6):
                stride = 2 if group and not block else 1
                blocks.append(_WideBlock(channels, 16 * width << group, stride))
                channels = 16 * width << group
        head = nn.Linear(channels, classes)
    norm = [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(_cifar_normalize(classes), stem, *blocks, *norm, *pool, head)


class _WideBlock(nn.Module):
    """``x + conv(relu(bn(conv(relu(bn(x))))))``, with a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, wider: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = _convolution(channels, wider, stride=stride)
        self.norm2 = nn.BatchNorm2d(wider)
        self.conv2 = _convolution(wider, wider)
        same = stride == 1 and channels == wider
        self.shortcut = None if same else _convolution(channels, wider, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = nn.functional.relu(self.norm1(x), inplace=True)
        around = x if self.shortcut is None else self.shortcut(inner)
        inner = nn.functional.relu(self.norm2(self.conv1(inner)), inplace=True)
        return around + self.conv2(inner)


_ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "digits-cnn": digits_cnn,
    "mnist-cnn": mnist_cnn,
    "resnet18": resnet18,
    "wide-resnet-28-10": wide_resnet28_10,
}
_FUNCTION = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<function>[A-Za-z_]\w*)")


def build_model(architecture: str, *, classes: int = 10, seed: int = 0) -> nn.Module:
    """Return a classifier by the name of its architecture, with weights drawn from `seed`.

    Parameters
    ----------
    architecture : str
        "digits-cnn", "mnist-cnn", "resnet18", "wide-resnet-28-10", or ``module:function``: a
        function of an importable module (the current directory counts), called with those of the
        keyword arguments ``classes`` and ``seed`` that it names.
    classes : int, default 10
        Number of logits.
    seed : int, default 0
        Seed of the initial weights; of a function that does not take it as well. PyTorch's global
        generator is left as it was.

    Returns
    -------
    torch.nn.Module
        Maps images (B, C, H, W) in [0, 1] to logits (B, classes).

    Raises
    ------
    MixsolveError
        An unknown name, a function that cannot be imported or called, or one that returns no
        module.

    Examples
    --------
    >>> import torch
    >>> build_model("digits-cnn", classes=4)(torch.rand(3, 1, 8, 8)).shape
    torch.Size([3, 4])
    """
    if not isinstance(architecture, str):
        raise MixsolveTypeError(
            f"architecture must be a string; got {type(architecture).__name__}; "
            "give a network itself to Mixture"
        )
    classes, seed = as_count("classes", classes, 2), as_count("seed", seed, 0)
    if architecture in _ARCHITECTURES:
        return _ARCHITECTURES[architecture](classes=classes, seed=seed)
    own = _FUNCTION.fullmatch(architecture)
    if not own:
        known = ", ".join(repr(name) for name in _ARCHITECTURES)
        raise MixsolveError(
            f"architecture must be {known} or module:function; got {architecture!r}"
        )
    with _drawn_from(seed):
        return call_builder(own["module"], own["function"], {"classes": classes, "seed": seed})


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """Let initial weights be drawn from a seed, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the generators of all devices, which this fork does not save.
        torch.default_generator.manual_seed(as_count("seed", seed, 0))
        yield


def _cifar_normalize(classes: int) -> Normalize:
    return Normalize(*(_CIFAR100 if classes == 100 else _CIFAR10))


def _convolution(channels: int, wider: int, *, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Return a convolution before a batch norm, initialised as He et al. do it."""
    layer = nn.Conv2d(channels, wider, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
