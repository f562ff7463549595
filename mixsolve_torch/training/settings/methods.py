"""The settings of single methods, and which others go with a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mixsolve.base.arguments import as_count, as_real
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.ball import make_ball


@dataclass(frozen=True)
class BoostingConfig:
    """How networks are added one after another, by "boosting", "mrboost" and "grow".

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


@dataclass(frozen=True)
class DvergeConfig:
    """How networks learn from the features of the others under "dverge".

    Parameters
    ----------
    adversarial : bool
        Train on attacked images too, as "together" does.
    eps : str or float, optional
        Radius of the ball that features are distilled in, in the norm of the attack; by default
        that of the attack, or with `attack.threats` the first ball among them.
    steps : int
        Steps of the distillation.
    layers : list of str, optional
        Parts of the networks, as `named_modules` calls them, that features are drawn from; by
        default all convolutions and linear maps but the last.
    """

    adversarial: bool = True
    eps: str | float | None = None
    steps: int = 10
    layers: list[str] | None = None

    def check(self) -> None:
        """Refuse values out of their range."""
        as_count("dverge.steps", self.steps)
        if self.eps is not None:
            make_ball("Linf", self.eps, prefix="dverge.")
        if self.layers is not None and not self.layers:
            raise MixsolveError("dverge.layers must name at least one part of the networks; got []")


@dataclass(frozen=True)
class GrowConfig:
    """What a new network learns from under "grow".

    Parameters
    ----------
    fresh : float
        Share of each batch, in [0, 1], that is attacked for the mixture with the new network; the
        rest is drawn from the attacker's equilibrium strategy against those before it.
    """

    fresh: float = 0.5

    def check(self) -> None:
        """Refuse values out of their range."""
        as_real("grow.fresh", self.fresh, at_least=0, at_most=1)


@dataclass(frozen=True)
class WorstGroupConfig:
    """How a network is trained under ``objective = "worst-group"``, and mixed from its snapshots.

    Parameters
    ----------
    rate : float
        Of the multiplicative weights: a class on which all images are lost gains a factor of
        exp(rate) in a step over one on which none is.
    floor : float
        Share of the classes' own frequencies in the weights trained with, in [0, 1].
    every : int
        Measured epochs from one snapshot to the next.
    first : int
        The epoch of the first snapshot: earlier ones are too weak to be in a mixture.
    images : int, optional
        Held-out images that the best snapshot and the weights are chosen on; all by default. The
        weights are fitted to the classes' errors there: the fewer images, the less they hold
        elsewhere.
    members : int
        Snapshots in the mixture at most.
    """

    rate: float = 0.1
    floor: float = 0.2
    every: int = 1
    first: int = 1
    images: int | None = None
    members: int = 4

    def check(self) -> None:
        """Refuse values out of their range."""
        as_real("worst_group.rate", self.rate, at_least=0)
        as_real("worst_group.floor", self.floor, at_least=0, at_most=1)
        for name in ("every", "first", "members"):
            as_count(f"worst_group.{name}", getattr(self, name))
        if self.images is not None:
            as_count("worst_group.images", self.images)
