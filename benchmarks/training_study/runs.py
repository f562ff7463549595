"""The mixtures of the study: trained, or put together from single runs; interrupted runs resume."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.training_study.settings import (
    DATA,
    HELD_OUT,
    RECIPES,
    SETTINGS,
    Recipe,
    Setting,
    configuration,
)
from mixsolve_torch import Mixture, load_data
from mixsolve_torch.training import train
from mixsolve_torch.training.final_weights import solve_weights
from mixsolve_torch.training.images import ImageSet
from mixsolve_torch.training.kept import as_mixture, read_kept

_APART = 100  # between the seeds of networks that are trained apart
_ONE = "one"


@dataclass(frozen=True)
class Trained:
    """A mixture that was trained.

    Attributes
    ----------
    mixture : Mixture
        With its final weights.
    chosen : float
        Robust accuracy of the epoch kept on held-out images, which single networks are chosen by.
    passes : float
        Runs of a network on an image in the steps of the training, forward and backward.
    seconds : float
        What it took, with all measurements.
    """

    mixture: Mixture
    chosen: float
    passes: float
    seconds: float


def trained(title: str, name: str, seed: int, work: Path, *, images: int, epochs: int) -> Trained:
    """Train a recipe of a setting, or read what was trained."""
    setting, recipe = SETTINGS[title], RECIPES[name]
    if recipe.apart:
        return _apart(title, setting, recipe, seed, work, images=images, epochs=epochs)
    folder = work / slug(title) / slug(name) / f"seed-{seed}"
    if recipe.networks == 1 and (folder / "deploy.pt").exists():
        return _read(folder)
    config = configuration(setting, recipe, seed, folder, images=images, epochs=epochs)
    run = train(config, resume=(folder / "last.pt").exists())
    last = run.records[-1]
    return Trained(run.mixture, run.best["robust"]["mixture"], last["passes"], last["seconds"])


def _read(folder: Path) -> Trained:
    """Read a network whose run has ended: `deploy.pt` is its last file."""
    kept = read_kept(folder)
    last = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    chosen = kept["record"]["robust"]["mixture"]
    return Trained(as_mixture(kept, folder), chosen, last["passes"], last["seconds"])


def _apart(
    title: str, setting: Setting, recipe: Recipe, seed: int, work: Path, *, images: int, epochs: int
) -> Trained:
    """Put networks of several seeds together; images that no run has seen give the weights."""
    own = [
        trained(title, _ONE, seed + _APART * k, work, images=images, epochs=epochs)
        for k in range(recipe.networks)
    ]
    mixture = Mixture([each.mixture.models[0] for each in own]).eval()
    found = load_data(DATA, split="train")
    unseen = slice(images, images + HELD_OUT)
    data = ImageSet(found.images[unseen], found.labels[unseen])
    folder = work / slug(title) / f"{recipe.networks}-apart" / f"seed-{seed}"
    config = configuration(setting, recipe, seed, folder, images=images, epochs=epochs)
    began = time.perf_counter()
    mixture.set_weights(solve_weights(mixture, data, config, folder / "weights"))
    seconds = sum(each.seconds for each in own) + time.perf_counter() - began
    return Trained(mixture, float("nan"), sum(each.passes for each in own), seconds)


def test_images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first test images, in [0, 1], and their labels."""
    found = load_data(DATA, split="test", limit=count)
    return ImageSet(found.images, found.labels).batch(torch.arange(count))


def slug(name: str) -> str:
    """Return a name as a folder's."""
    return name.lower().replace(",", "").replace(" ", "-")
