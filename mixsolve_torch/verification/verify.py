"""Which classifiers of a mixture can err together anywhere in a ball: `verify`.

For image i let S_i be the maximal sets of classifiers that could not be proven never to err at one
point of the ball around it. Whatever the attack, the risk of weights lam is at most

    R(lam) = mean_i max_{S in S_i} sum_{k in S} lam_k,

the risk against rows of 0 and 1: a loss tensor, which `mixsolve.solve` solves.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import mixsolve
from mixsolve.base.arguments import as_count, as_real, check_flags
from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.attacks.base import check_mixture, prepare
from mixsolve_torch.core.mixture import Mixture, check_weights
from mixsolve_torch.data.arrays import batches
from mixsolve_torch.data.batching import Data, gather
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.runs.durable import replaced
from mixsolve_torch.runs.fingerprint import describe, short_digest
from mixsolve_torch.runs.interrupt import explained
from mixsolve_torch.runs.progress import ProgressBar
from mixsolve_torch.runs.resumable import ResumableFolder, as_folder
from mixsolve_torch.verification.batch import BatchVerifier, Verified


@dataclass(frozen=True)
class Verification:
    """What is proven of N images and L classifiers.

    Attributes
    ----------
    sets : list of ndarray of shape (m_i, L), uint8
        For each image the maximal sets of classifiers that could not be proven never to err
        together, as rows of 0 and 1; a row of zeros where each classifier is right on the whole
        ball. `mixsolve.solve` takes the list as it is.
    fooled : list of ndarray of shape (r_i, L), uint8
        For each image sets that do err together, at the image itself or at a point that branch and
        bound found. Where they are the same as `sets`, the image is decided.
    alone : ndarray of shape (N, L), uint8
        1 where a classifier is not proven right by bounds of its own.
    """

    sets: list[np.ndarray] = field(repr=False)
    fooled: list[np.ndarray] = field(repr=False)
    alone: np.ndarray = field(repr=False)

    def worst(self, weights: Any) -> np.ndarray:
        """Return the largest expected 0/1 loss (N,) that an attack can reach, as far as is proven.

        Parameters
        ----------
        weights : array-like of shape (L,)
            Probabilities of the classifiers.
        """
        lam = check_weights(weights, self.alone.shape[1]).cpu().numpy()
        return np.array([(rows @ lam).max() for rows in self.sets])

    def risk(self, weights: Any) -> float:
        """Return the risk of given weights that no attack in the ball exceeds."""
        return float(self.worst(weights).mean())


def verify(
    mixture: Mixture,
    data: Data,
    norm: str,
    eps: float | str,
    *,
    exact_seconds: float = 0.0,
    slope_steps: int = 10,
    batch_size: int = 64,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Verification:
    """Prove which classifiers cannot err together anywhere in the ball around each image.

    The proofs hold for every attack in the ball and the box [0, 1], known or not, and for the
    classifiers as they run in their own precision: bounds are lowered by what rounding may amount
    to, see `mixsolve_torch.verification.crown`. Classifiers are ReLU networks of linear layers,
    convolutions, batch norms, average pooling and residual sums; for linear classifiers, and where
    `exact_seconds` suffices, the result is exact.

    Parameters
    ----------
    mixture : Mixture
        The classifiers; the weights do not matter.
    data : pair of torch.Tensor, LabelledImages, Dataset or iterable of batches
        Images (N, C, H, W) in [0, 1] and labels (N,). They are read once.
    norm : {"Linf", "L2"}
        The norm of the ball.
    eps : float or str
        Its radius, such as 8 / 255 or "8/255".
    exact_seconds : float, default 0
        Time, for each image, of a branch and bound on the signs of ReLUs where bounds are not
        enough. It decides small networks; what it does depends on the speed of the machine.
    slope_steps : int, default 10
        Steps of ascent over the slopes of the relaxation (alpha-CROWN); 0 is CROWN.
    batch_size : int, default 64
        Images bounded at a time.
    out : str or path, optional
        A folder for finished batches, made if it is missing. A call that was interrupted resumes
        from them when it is repeated; other calls have folders of their own in it.
    progress : bool, default False
        Show a progress bar if the work takes more than two seconds and stderr is a terminal.

    Returns
    -------
    Verification
        For each image the maximal sets of classifiers that may err together.

    Raises
    ------
    MixsolveError
        A classifier with another layer than those above, which is named; wrong data or arguments.
    MixsolveTypeError
        Something that is not a mixture, or data of images and labels.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import Mixture
    >>> models = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)) for _ in range(2)]
    >>> data = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> verification = verify(Mixture(models), data, "Linf", 0.1)
    >>> len(verification.sets), verification.sets[0].shape[1], verification.alone.shape
    (20, 2, (20, 2))
    """
    check_mixture(mixture)
    ball = make_ball(norm, eps)
    check_flags(progress=progress)
    exact_seconds = as_real("exact_seconds", exact_seconds, at_least=0)
    slope_steps = as_count("slope_steps", slope_steps, 0)
    batch_size = as_count("batch_size", batch_size)
    x, y = gather(data)
    settings = {
        "classifiers": mixture.models,
        "images": x,
        "labels": y,
        "ball": [ball.norm, ball.eps],
        "effort": [exact_seconds, slope_steps, batch_size],
        "version": mixsolve.__version__,
    }
    parts = _folder(out, settings)
    found: list[Verified] = []
    with (
        closing(parts),
        explained(parts.kept),
        frozen(mixture),
        ProgressBar("Verifying", len(x), enabled=progress) as bar,
    ):
        verifier = None
        for number, batch in enumerate(batches(x, y, batch_size)):
            path = parts.file(f"batch-{number}.npz")
            if path is not None and path.exists():
                own = _read(path)
            else:
                images, labels = prepare(mixture, *batch)
                if verifier is None:
                    verifier = BatchVerifier(mixture, images, ball, slope_steps, exact_seconds)
                own = verifier(images, labels)
                if path is not None:
                    with parts.writing(), replaced(path) as file:
                        np.savez(file, **_packed(own))  # type: ignore[arg-type]
            found += own
            bar.advance(len(own))
    possible, fooled, alone = zip(*found, strict=True)
    return Verification(list(possible), list(fooled), np.stack(alone))


def _folder(out: str | os.PathLike[str] | None, settings: dict[str, Any]) -> ResumableFolder:
    """Return where finished batches go: a folder named after all that they depend on."""
    if out is None:
        return ResumableFolder("out", None)
    path = as_folder("out", out) / f"verification-{short_digest(describe(settings))}"
    return ResumableFolder("out", path, f"the verification in {out}")


def _packed(found: list[Verified]) -> dict[str, np.ndarray]:
    """Return a batch as arrays: the rows of all images, and how many each one has."""
    arrays = {"alone": np.stack([own.alone for own in found])}
    for name in ("possible", "fooled"):
        rows = [getattr(own, name) for own in found]
        arrays |= {name: np.concatenate(rows), f"{name} rows": np.array([*map(len, rows)])}
    return arrays


def _read(path: Path) -> list[Verified]:
    with np.load(path) as kept:
        possible, fooled = (
            np.split(kept[name], kept[f"{name} rows"].cumsum()[:-1])
            for name in ("possible", "fooled")
        )
        return [*map(Verified, possible, fooled, kept["alone"])]
