"""The settings of single methods, and which others go with a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mixsolve.base.arguments import as_count


@dataclass(frozen=True)
class BoostingConfig:
    """How networks are added one after another, by "boosting" and "mrboost".

    Parameters
    ----------
    start : {"previous", "random"}
        What a new network starts as: a copy of the one before it, or random initial weights.
    attack : {"pgd", "arc"}
        What "boosting" attacks the mixture with: PGD on its expected loss, or ARC, in
        `attack.steps` steps.
    fixed : int
        The first so many networks, from `model.pretrained`, are not trained: the others are added
        to them.
    """

    start: Literal["previous", "random"] = "previous"
    attack: Literal["pgd", "arc"] = "pgd"
    fixed: int = 0

    def check(self) -> None:
        """Refuse values out of their range."""
        as_count("boosting.fixed", self.fixed, 0)


@dataclass(frozen=True)
class MRBoostConfig:
    """What a new network learns from under "mrboost".

    Parameters
    ----------
    learns : {"own", "ensemble"}
        The loss that it descends on images attacked for the ensemble: that of its own logits, or
        that of the ensemble's.
    sampled : int, optional
        Earlier networks that are drawn into the ensemble of a step; all by default.
    """

    learns: Literal["own", "ensemble"] = "own"
    sampled: int | None = None

    def check(self) -> None:
        """Refuse values out of their range."""
        if self.sampled is not None:
            as_count("mrboost.sampled", self.sampled)
