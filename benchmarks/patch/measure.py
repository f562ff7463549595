"""The cells of the table: what each method holds, for a patch, a seed and a cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from benchmarks.cells import keep, kept
from benchmarks.patch import methods
from mixsolve_torch import Patch, load_data, reach_losses, to_unit
from mixsolve_torch.reach.patch_attack import strongest_patches

SIZES, SEEDS, FACTORS = (4, 6, 8, 10), (0, 1, 2), (1, 5, 25)
_FAR = 1e3  # a value that stands for any, besides [0, 1]
_VALIDATION = 5_000


@dataclass(frozen=True)
class Settings:
    """The scale of the table, which its cells are kept under.

    Attributes
    ----------
    train, epochs : int
        Training images, and passes over them of a view.
    attacked : int
        Test images that are attacked.
    """

    train: int
    epochs: int
    attacked: int

    @property
    def folder(self) -> str:
        """Name of the folder of the cells."""
        return f"{self.train}-images-{self.epochs}-epochs-{self.attacked}-attacked"


@dataclass(frozen=True)
class Views:
    """A mixture of views.

    Attributes
    ----------
    certified, clean : float
        Expected accuracy on all test images.
    weights, names : ndarray
        Of the views that are played.
    passes, pool_passes : float
        Of the training of these, and of all that the game chose from.
    certified_here, attacked, attacked_far : ndarray of shape (attacked images,)
        What is certified for each image, and left by attacks with values in [0, 1] and with any.
    seconds : float
        Of a processor, for all of it.
    """

    certified: float
    clean: float
    weights: np.ndarray
    names: np.ndarray
    passes: float
    pool_passes: float
    certified_here: np.ndarray
    attacked: np.ndarray
    attacked_far: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Vote:
    """Votes over bands, for all sizes: the band widths and thresholds chosen on validation."""

    sizes: np.ndarray
    certified: np.ndarray
    clean: np.ndarray
    widths: np.ndarray
    thresholds: np.ndarray
    passes: float
    seconds: float


@dataclass(frozen=True)
class Adversarial:
    """Patch-adversarial training: accuracy of each attacked image."""

    attacked: np.ndarray
    clean: float
    passes: float
    seconds: float


def views_path(folder: Path, size: int, seed: int) -> Path:
    """Return the file of a mixture of views."""
    return folder / f"views-patch-{size}-seed-{seed}.npz"


def vote_path(folder: Path, seed: int) -> Path:
    """Return the file of the votes over bands."""
    return folder / f"vote-seed-{seed}.npz"


def adversarial_path(folder: Path, size: int, factor: int, seed: int) -> Path:
    """Return the file of a network trained on patches, at so many times the cost."""
    return folder / f"adversarial-patch-{size}-cost-{factor}-seed-{seed}.npz"


def views_cell(settings: Settings, size: int, seed: int) -> Views:
    """Train and choose views, certify their mixture and attack it."""
    began = time.process_time()
    mixture, names, trained = methods.fitted_views(
        size, *_images(settings)[:2], settings.epochs, seed
    )
    x, y = _images(settings)[2]
    weights = mixture.weights.tolist()
    whole = reach_losses(mixture, (x, y), Patch(size)).certify(weights)
    x, y = x[: settings.attacked], y[: settings.attacked]
    losses = reach_losses(mixture, (x, y), Patch(size))
    found = strongest_patches(mixture, x, y, size, seed=seed)
    far = strongest_patches(mixture, x, y, size, low=-_FAR, high=_FAR, seed=seed)
    return Views(
        certified=whole.certified.value,
        clean=whole.clean.value,
        weights=np.array(weights),
        names=np.array(names),
        passes=float(len(names) * settings.epochs),
        pool_passes=float(trained * settings.epochs),
        certified_here=1 - (losses.values @ np.array(weights)).max(axis=1),
        attacked=1 - found.numpy(),
        attacked_far=1 - found.maximum(far).numpy(),
        seconds=time.process_time() - began,
    )


def vote_cell(settings: Settings, seed: int) -> Vote:
    """Choose width and threshold for each size on validation, and certify on the test images."""
    began = time.process_time()
    data, (x_val, y_val), (x, y) = _images(settings)
    x_val, y_val = x_val[:2000], y_val[:2000]
    epochs = 4 * settings.epochs
    found = {}
    for width in methods.BAND_WIDTHS:
        model = methods.fitted_vote(width, data, epochs, seed)
        found[width] = methods.votes(model, x_val, width), methods.votes(model, x, width)
    chosen = []
    for size in SIZES:
        held = {
            (width, t): float(own.mean())
            for width, (counts, _) in found.items()
            for t, own in enumerate(methods.certified_votes(counts, y_val, width, size).double())
        }
        width, t = max(held, key=held.__getitem__)
        counts = found[width][1][t]
        certified = methods.certified_votes(counts, y, width, size).double().mean()
        clean = (counts.argmax(dim=1) == y).double().mean()
        chosen.append((float(certified), float(clean), width, methods.THRESHOLDS[t]))
    certified, clean, widths, thresholds = (np.array(own) for own in zip(*chosen, strict=True))
    return Vote(
        sizes=np.array(SIZES),
        certified=certified,
        clean=clean,
        widths=widths,
        thresholds=thresholds,
        passes=float(epochs),
        seconds=time.process_time() - began,
    )


def adversarial_cell(
    settings: Settings, folder: Path, size: int, factor: int, seed: int
) -> Adversarial:
    """Train for `factor` times the passes of the views that are played, and attack."""
    own = kept(views_path(folder, size, seed), Views)
    if own is None:
        own = views_cell(settings, size, seed)
        keep(views_path(folder, size, seed), own)
    began = time.process_time()
    data, _, (x, y) = _images(settings)
    model, passes = methods.patch_adversarial(size, data, factor * own.passes, seed)
    with torch.no_grad():
        clean = float((model(x).argmax(dim=1) == y).double().mean())
    x, y = x[: settings.attacked], y[: settings.attacked]
    found = strongest_patches(methods.alone(model), x, y, size, seed=seed)
    return Adversarial(1 - found.numpy(), clean, passes, time.process_time() - began)


@lru_cache
def _images(settings: Settings) -> tuple[methods.Pair, methods.Pair, methods.Pair]:
    """Return training, validation and test images with labels; the first two do not overlap."""
    train = load_data("fashion-mnist", split="train")
    test = load_data("fashion-mnist", split="test")
    first, last = settings.train, settings.train + _VALIDATION
    return (
        (to_unit(train.images[:first]), train.labels[:first]),
        (to_unit(train.images[first:last]), train.labels[first:last]),
        (to_unit(test.images), test.labels),
    )
