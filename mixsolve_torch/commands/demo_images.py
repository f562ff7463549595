"""The images of the demo's second game: Fashion-MNIST where it is installed, else the digits."""

from __future__ import annotations

from dataclasses import dataclass

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.data.arrays import Split, digits
from mixsolve_torch.data.datasets import load_data
from mixsolve_torch.data.labelled import to_unit


@dataclass(frozen=True)
class PatchSettings:
    """What is trained and attacked for the game of patches; smaller numbers are quicker.

    Attributes
    ----------
    data : {"fashion-mnist", "digits"}
        The images.
    size : int
        Of the patch, in pixels.
    train, validation, test, attacked : int
        Images to train on, to choose views and weights on, to certify on, and of these, to attack.
    epochs : int
        Passes over the training images, a view.
    """

    data: str
    size: int
    train: int
    validation: int
    test: int
    attacked: int
    epochs: int


FASHION = PatchSettings("fashion-mnist", 8, 6000, 2000, 3000, 500, epochs=2)
DIGITS = PatchSettings("digits", 3, 989, 269, 539, 539, epochs=10)


def installed() -> PatchSettings:
    """Return the settings for Fashion-MNIST where its files are, for the digits elsewhere."""
    try:
        load_data("fashion-mnist", limit=1)
    except MixsolveError:
        return DIGITS
    return FASHION


def images(settings: PatchSettings, seed: int) -> tuple[Split, Split, Split]:
    """Return images to train on, to choose on, and to certify on; no two share an image."""
    if settings.data == "digits":
        data = digits(seed=seed)
        parts = data.train, data.validation, data.test
    else:
        count = settings.train + settings.validation
        known = load_data(settings.data, split="train", limit=count)
        unseen = load_data(settings.data, split="test", limit=settings.test)
        x = to_unit(known.images)
        n = settings.train
        parts = (
            Split(x[:n], known.labels[:n]),
            Split(x[n:], known.labels[n:]),
            Split(to_unit(unseen.images), unseen.labels),
        )
    counts = settings.train, settings.validation, settings.test
    few, validation, test = (
        Split(*(own[:count] for own in part)) for part, count in zip(parts, counts, strict=True)
    )
    return few, validation, test
