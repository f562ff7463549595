"""The cells of the figure: training runs, their snapshots attacked, and test images attacked.

run          a rate and a seed: a training run, its snapshots in files
validation   a rate and a seed: losses of all snapshots on the held-out images
test         a seed: everything chosen on validation images, many and fewer, on the test images
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.cells import keep, kept
from benchmarks.worst_class.settings import (
    EPS,
    FEWER,
    NORM,
    RATES,
    VALIDATION,
    configuration,
    images,
)
from mixsolve_torch import APGD, PGD, Mixture, build_losses
from mixsolve_torch.attacks.aimed import Aimed
from mixsolve_torch.attacks.in_turn import InTurn
from mixsolve_torch.training import held_out, train
from mixsolve_torch.training.snapshot_weights import Chosen, choose, find_candidates
from mixsolve_torch.training.snapshots import Pool, read_snapshots

SIZES = (VALIDATION, FEWER)


@dataclass(frozen=True)
class Validation:
    """The snapshots of a run on its held-out images.

    Attributes
    ----------
    losses : ndarray of uint8, shape (N, m, S)
        0/1 losses on all candidates found.
    labels : ndarray of int64, shape (N,)
        Of the images.
    """

    losses: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Tested:
    """What was chosen with one seed, on the test images.

    Attributes
    ----------
    losses : ndarray of uint8, shape (N, m, U)
        0/1 losses of all snapshots that were chosen, on all candidates found for any player.
    labels : ndarray of int64, shape (N,)
        Of the images.
    rates, epochs : ndarray of shape (U,)
        Of the snapshots.
    weights : ndarray of float64, shape (2, U)
        Of the mixture that is chosen on each of `SIZES` images.
    singles : ndarray of int64, shape (2,)
        The best single snapshot, chosen on each of `SIZES` images.
    promised, held_out : ndarray of float64, shape (2,)
        Accuracy of the mixture on its worst class, where fitted and on halves not fitted on.
    """

    losses: np.ndarray
    labels: np.ndarray
    rates: np.ndarray
    epochs: np.ndarray
    weights: np.ndarray
    singles: np.ndarray
    promised: np.ndarray
    held_out: np.ndarray


def run_folder(rate: float, seed: int, work: Path) -> Path:
    """Return where a run is kept."""
    return work / f"rate-{rate:g}" / f"seed-{seed}"


def snapshots(rate: float, seed: int, work: Path) -> Pool:
    """Return the snapshots of a run, which is trained if it is not finished."""
    folder = run_folder(rate, seed, work)
    if not (folder / "deploy.pt").exists():
        config = configuration(rate, seed, folder)
        train(config, data=images("train"), resume=(folder / "last.pt").exists())
    return read_snapshots(folder)


def validated(rate: float, seed: int, work: Path) -> Validation:
    """Return the losses of the snapshots of a run on all held-out images."""
    path = work / "validation" / f"rate-{rate:g}-seed-{seed}.npz"
    cell = kept(path, Validation)
    if cell is None:
        pool = snapshots(rate, seed, work)
        config = configuration(rate, seed, run_folder(rate, seed, work))
        data = held_out.load(config, images("train")).validation
        uniform = pool.mixture(range(len(pool.models)))
        folder = run_folder(rate, seed, work) / "attacks" / "weights"
        cell = Validation(*find_candidates(uniform, data, len(data), config, folder))
        keep(path, cell)
    return cell


def tested(seed: int, work: Path) -> Tested:
    """Choose on validation images, and attack what was chosen on the test images."""
    path = test_path(seed, work)
    cell = kept(path, Tested)
    if cell is not None:
        return cell
    found = {rate: validated(rate, seed, work) for rate in RATES}
    chosen = {
        (size, rate): choose(
            own.losses[:size], own.labels[:size], configuration(rate, seed, Path("unused"))
        )
        for rate, own in found.items()
        for size in SIZES
    }
    singles = [min(RATES, key=lambda rate: _alone(chosen[size, rate])) for size in SIZES]
    mixed = [min(RATES, key=lambda rate: chosen[size, rate].fit.held_out) for size in SIZES]
    used: list[tuple[float, int]] = []
    for size, single, rate in zip(SIZES, singles, mixed, strict=True):
        own = chosen[size, rate]
        used += [(rate, int(k)) for k in np.flatnonzero(own.weights)]
        used.append((single, chosen[size, single].single))
    used = sorted(set(used))
    weights = np.array(
        [
            [chosen[size, rate].weights[k] if rate == own else 0.0 for own, k in used]
            for size, rate in zip(SIZES, mixed, strict=True)
        ]
    )
    pools = {rate: snapshots(rate, seed, work) for rate in RATES}
    losses, labels = attacked([pools[rate].models[k] for rate, k in used], weights, seed)
    cell = Tested(
        losses=losses,
        labels=labels,
        rates=np.array([rate for rate, _ in used]),
        epochs=np.array([pools[rate].epochs[k] for rate, k in used]),
        weights=weights,
        singles=np.array(
            [
                used.index((rate, chosen[size, rate].single))
                for size, rate in zip(SIZES, singles, strict=True)
            ]
        ),
        promised=np.array([1 - chosen[own].fit.fitted for own in zip(SIZES, mixed, strict=True)]),
        held_out=np.array([1 - chosen[own].fit.held_out for own in zip(SIZES, mixed, strict=True)]),
    )
    keep(path, cell)
    return cell


def test_path(seed: int, work: Path) -> Path:
    """Return where the test cell of a seed is kept."""
    return work / "test" / f"seed-{seed}.npz"


def attacked(
    models: list[torch.nn.Module], weights: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Attack each network alone and each mixture; return losses (N, m, U) and labels (N,)."""
    x, y = images("test")
    everyone = Mixture(models).eval()
    players = [*np.eye(len(models)), *(own for own in weights if own.max() < 1)]
    attack = InTurn([PGD(NORM, EPS, steps=10), APGD(NORM, EPS, steps=40)])
    found = build_losses(
        everyone,
        (x, y),
        [Aimed(attack, Mixture(models, own).eval()) for own in players],
        generator=torch.Generator().manual_seed(seed),
    )
    return found.values.to(torch.uint8).cpu().numpy(), y.numpy()


def _alone(chosen: Chosen) -> float:
    """Return the risk of the best snapshot on its worst class, where it was chosen."""
    own = chosen.losses[..., chosen.single].max(axis=1)
    return max(float(own[chosen.labels == label].mean()) for label in np.unique(chosen.labels))
