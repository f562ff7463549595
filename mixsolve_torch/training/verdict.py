"""Whether the mixture or one network is to be deployed, from accuracies on the same images.

With l_ijk the 0/1 loss of network k on candidate j of image i, the worst of everything found,

    a(lam) = mean_i ( 1 - max_j sum_k lam_k l_ijk )        the mixture of weights lam
    a_k    = mean_i ( 1 - max_j l_ijk )                    network k alone
    a(lam) = sum_k lam_k a_k + margin,                     margin >= 0.

The margin counts images on which the networks can be fooled, but not at one point. A mixture pays
where it is larger than what the networks lose to the best single one. The gain over that one is a
mean of paired differences, and the single network is recommended unless their interval is above 0:
it is simpler to deploy, and what is not told apart is not worth a mixture.

All accuracies are told for each class as well, as means over its images: training can raise the
mean by giving up whole classes. Where the objective is the worst class, so is the verdict: the gain
is that of the lowest accuracy on a class, see `evaluation.by_group`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mixsolve.base.files import write_text
from mixsolve.base.plain import json_text
from mixsolve_torch.evaluation.bootstrap import Estimate, bootstrap
from mixsolve_torch.training.unlearned import said_of, unlearned
from mixsolve_torch.training.worst_class import (
    LEVEL,
    RESAMPLES,
    WorstClass,
    compare_worst_class,
    percent,
    points,
)

_TOLD = 20  # classes in a sentence; of more, the worst ones


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracies from 0 to 1 on the images of one class.

    Attributes
    ----------
    label : int
        The class.
    images : int
        How many of the images are of this class.
    members : tuple of float
        Each network of the mixture alone.
    mixture, single : float
        The mixture, and the network that it is compared with.
    """

    label: int
    images: int
    members: tuple[float, ...]
    mixture: float
    single: float


@dataclass(frozen=True)
class Verdict:
    """Accuracies from 0 to 1 under the final attacks, and the recommendation.

    Attributes
    ----------
    members : tuple of float
        Accuracy of each network of the mixture alone.
    weights : tuple of float
        Of the mixture.
    weighted_mean, margin, mixture : float
        Mean of `members` by `weights`; what the mixture has above it; their sum.
    single : str
        The network that the mixture is compared with, the best of those that `judge` is given.
    single_accuracy : float
        Its accuracy.
    gain : Estimate
        The mixture's accuracy less that of the single network, with the interval of the paired
        difference.
    error : float
        The standard error of `gain`.
    images : int
        How many it was measured on.
    classes : tuple of ClassAccuracy
        The same for each class that has images; empty where labels were not given.
    split : {"test", "held-out"}
        Whether the images are those of the test, or those that epoch and weights were chosen on.
    unlearned : dict of int to float
        Networks of the mixture, counted from 0, that are right on the images as they are no more
        often than one that always names the most frequent class, and how often; empty where labels
        were not given.
    worst : WorstClass or None
        The lowest accuracies on a class, where the recommendation goes by them. On held-out images
        each is then under what was chosen on the half that it is not in, and so are `mixture` and
        `single_accuracy`.
    """

    members: tuple[float, ...]
    weights: tuple[float, ...]
    weighted_mean: float
    margin: float
    mixture: float
    single: str
    single_accuracy: float
    gain: Estimate
    error: float
    images: int
    classes: tuple[ClassAccuracy, ...] = ()
    split: Literal["test", "held-out"] = "test"
    unlearned: Mapping[int, float] = field(default_factory=dict)
    worst: WorstClass | None = None

    @property
    def recommended(self) -> str:
        """What to deploy: "mixture" if its gain exceeds its error, else "single"."""
        gain = self.gain if self.worst is None else self.worst.gain
        return "mixture" if gain.low > 0 else "single"

    def sentences(self) -> list[str]:
        """Return the accuracies, the gain, the classes and the recommendation in words."""
        nothing = [f"N{said_of(k, own)[1:]}." for k, own in self.unlearned.items()]
        single = f"{self.single} alone: {percent(self.single_accuracy)}"
        images = f"{self.images} {'' if self.split == 'test' else 'held-out '}images"
        if len(self.members) == 1 and self.gain.value == 0:
            return [*nothing, f"{single} on {images}.", *self._by_class(alone=True)]
        members = ", ".join(map(percent, self.members))
        interval = points(self.gain, self.error)
        if self.worst is not None:
            said = [
                *nothing,
                *self.worst.sentences(self.single, images),
                f"On all images the mixture has {percent(self.mixture)} and {self.single} "
                f"{percent(self.single_accuracy)}: {interval}.",
                *self._by_class(),
            ]
            if self.split == "held-out":
                said.append(
                    "Snapshots and weights were chosen on one half of these images and measured on "
                    "the other half, and back."
                )
            return [*said, self._advice()]
        said = [
            *nothing,
            f"Networks {members}; weighted mean {percent(self.weighted_mean)}, margin "
            f"{100 * self.margin:.2f} points: the mixture has {percent(self.mixture)} on "
            f"{images}.",
            f"{single}. Gain of the mixture: {interval}.",
            *self._by_class(),
        ]
        if self.split == "held-out":
            said.append(
                "Epoch and weights were chosen on these images, which flatters the mixture."
            )
        return [*said, self._advice()]

    def _advice(self) -> str:
        if self.recommended == "mixture":
            return "Deploy the mixture: its gain exceeds its error."
        return f"Deploy {self.single} alone: the gain of the mixture is within its error."

    def _by_class(self, *, alone: bool = False) -> list[str]:
        """Return a sentence of the accuracies of all classes, or of the worst of very many."""
        told = sorted(self.classes, key=lambda each: each.single if alone else each.mixture)
        if not told:
            return []
        worst = told[0]
        shown = sorted(told[:_TOLD], key=lambda each: each.label)
        rows = "; ".join(
            f"{each.label}: "
            + ("" if alone else f"{100 * each.mixture:.1f} and ")
            + f"{100 * each.single:.1f} %"
            for each in shown
        )
        some = f"on the {_TOLD} worst of {len(told)} classes"
        where = some if len(shown) < len(told) else "by class"
        who = self.single if alone else f"the mixture and of {self.single}"
        lowest = percent(worst.single if alone else worst.mixture)
        return [
            f"Accuracy of {who} {where}: {rows}. The worst is class {worst.label}, at {lowest}."
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything in the types of JSON."""
        return {
            **asdict(self),
            "level": LEVEL,
            "recommended": self.recommended,
            "sentences": self.sentences(),
        }

    def to_json(self, path: Path) -> None:
        """Write `to_dict` to a file, aside and renamed."""
        write_text(path, json_text(self.to_dict(), indent=2) + "\n")


def judge(
    losses: np.ndarray,
    weights: np.ndarray,
    singles: Mapping[str, np.ndarray],
    labels: np.ndarray | None = None,
    *,
    seed: int = 0,
    mixed: np.ndarray | None = None,
    by_worst_class: bool = False,
) -> Verdict:
    """Compare a mixture with the best of some single networks on the same images.

    Parameters
    ----------
    losses : ndarray of shape (N, m, L)
        0/1 losses of the networks on all candidates found, the image itself first.
    weights : ndarray of shape (L,)
        Of the mixture.
    singles : mapping of str to ndarray of shape (N,)
        Single networks: 1 where all candidates found leave the network right, else 0. Of several
        the one of the highest accuracy on these images is compared with, in its favour.
    labels : ndarray of shape (N,), int, optional
        True classes; without them nothing is told class by class.
    seed : int, default 0
        Of the bootstrap.
    mixed : ndarray of shape (N,), optional
        Accuracy of the mixture on each image, if other weights than `weights` give it.
    by_worst_class : bool, default False
        Compare the lowest accuracies on a class; `labels` must be given.
    """
    right = 1 - losses.max(axis=1).astype(np.float64)
    own = right.mean(axis=0)
    mixed = 1 - (losses @ weights).max(axis=1) if mixed is None else mixed
    name = max(singles, key=lambda each: singles[each].mean())
    difference = mixed - singles[name]
    (gain,) = bootstrap(difference[:, None], resamples=RESAMPLES, level=LEVEL, seed=seed)
    mean, accuracy = float(own @ weights), float(mixed.mean())
    count = len(losses)
    clean = 1 - losses[:, 0].mean(axis=0)
    return Verdict(
        members=tuple(own.tolist()),
        weights=tuple(weights.tolist()),
        weighted_mean=mean,
        margin=accuracy - mean,
        mixture=accuracy,
        single=name,
        single_accuracy=float(singles[name].mean()),
        gain=gain,
        error=float(difference.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0,
        images=count,
        classes=() if labels is None else _classes(right, mixed, singles[name], labels),
        unlearned={}
        if labels is None
        else {k: float(clean[k]) for k in unlearned(clean.tolist(), labels)},
        worst=compare_worst_class(mixed, singles[name], labels, seed=seed)
        if by_worst_class and labels is not None
        else None,
    )


def _classes(
    members: np.ndarray, mixture: np.ndarray, single: np.ndarray, labels: np.ndarray
) -> tuple[ClassAccuracy, ...]:
    """Return the accuracies on each class, from those on each image (N, L), (N,), (N,)."""
    return tuple(
        ClassAccuracy(
            label=int(label),
            images=int(own.sum()),
            members=tuple(members[own].mean(axis=0).tolist()),
            mixture=float(mixture[own].mean()),
            single=float(single[own].mean()),
        )
        for label in np.unique(labels)
        for own in (labels == label,)
    )
