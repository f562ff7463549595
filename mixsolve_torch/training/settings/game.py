"""The settings of the two players: the attack in training, and the weights of the mixture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from mixsolve.base.arguments import as_count, as_length, as_norm, as_real
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.attacks.threat_list import read_threats
from mixsolve_torch.attacks.threats import InBall, Threat


@dataclass(frozen=True)
class AttackConfig:
    """The attack on the whole mixture that classifiers are trained on.

    Parameters
    ----------
    norm : {"Linf", "L2", "L1"}
        The norm of the ball; other spellings such as "inf" or "l2" will do.
    eps : str or float
        Its radius in the unit of images in [0, 1]; a fraction such as "8/255" will do.
    threats : list of str, optional
        Sets instead of one ball, e.g. ``["Linf:8/255", "L2:0.5", "rotations:15"]``, as
        `read_threats` takes them. Each batch is attacked by PGD in each ball and by all points of
        each finite set, and each image is trained on where the loss is largest.
    steps : int
        Steps of PGD.
    step_size : str or float, optional
        Length of a step; 2.5 eps / steps by default.
    loss : {"cross-entropy", "margin"}
        What the attack ascends under "at". "margin" is the expected bounded margin, which is nearer
        to the share of classifiers fooled.
    batch_norm : {"eval", "train"}
        Statistics that batch norms use during the attack: their running ones, or those of the
        attacked batch. The running ones are not touched by attacks either way.
    own_share : float
        Part of each batch, in [0, 1], that is attacked for a network alone: each network trains on
        points of its own there, and on those of the mixture elsewhere.
    """

    norm: str = "Linf"
    eps: str | float = "8/255"
    threats: list[str] | None = None
    steps: int = 10
    step_size: str | float | None = None
    loss: Literal["cross-entropy", "margin"] = "cross-entropy"
    batch_norm: Literal["eval", "train"] = "eval"
    own_share: float = 0.0

    def __post_init__(self) -> None:
        """Normalise the spelling of the norm."""
        object.__setattr__(self, "norm", as_norm("attack.norm", self.norm))
        if self.threats is None:
            return
        own = {"norm": self.norm, "eps": self.eps, "step_size": self.step_size}
        plain = {entry.name: entry.default for entry in dataclasses.fields(self)}
        for name, value in own.items():
            if value != plain[name]:
                raise MixsolveError(
                    f"attack.{name} must be left out with attack.threats, which have their own; "
                    f"got {value!r}"
                )
        read_threats(self.threats, name="attack.threats")

    @property
    def declared(self) -> dict[str, Any]:
        """The same as the keywords `norm` and `eps`, or `threats`, of attacks and evaluations."""
        if self.threats is None:
            return {"norm": self.norm, "eps": self.radius}
        return {"threats": self.threats}

    @property
    def sets(self) -> tuple[Threat, ...]:
        """The sets that images are attacked in."""
        if self.threats is None:
            return (InBall(make_ball(self.norm, self.eps, prefix="attack.")),)
        return read_threats(self.threats, name="attack.threats")

    @property
    def radius(self) -> float:
        """The radius as a number."""
        return make_ball(self.norm, self.eps, prefix="attack.").eps

    @property
    def step(self) -> float:
        """The length of a step as a number."""
        if self.step_size is None:
            return 2.5 * self.radius / self.steps
        return as_length("attack.step_size", self.step_size)

    def check(self) -> None:
        """Refuse values out of their range."""
        as_count("attack.steps", self.steps)
        as_real("attack.own_share", self.own_share, at_least=0, at_most=1)
        _ = self.step  # reads the radius too, or says what is wrong with it


@dataclass(frozen=True)
class WeightsConfig:
    """How the weights of the mixture are updated during training.

    Parameters
    ----------
    update : {"none", "oracle", "entropic", "lp"}
        The solver of the game on a batch; "none" keeps the weights uniform.
    t_theta : int
        T_theta: each network makes about so many steps between two updates of the weights.
    t_lambda : int
        T_lambda: iterations of the oracle method; the others solve the game of the batch.
    loss : {"zero-one", "cross-entropy"}
        The loss of that game.
    alpha : float
        Regularisation of "entropic", in the unit of the loss.
    momentum : float
        Weight of the old weights in an update, in [0, 1): a single batch is noisy.
    floor : float
        The smallest weight of a network in the mixture that is attacked in training, in units of
        1 / L: the attack sees (1 - floor) weights + floor / L. With 0, a network of small weight is
        not attacked, loses its robustness, and the game takes its weight away for good.
    final : {"game", "last"}
        The weights of the mixture that is evaluated and deployed: the solution of the game on
        held-out images with fresh attacks, or those that it had in the epoch kept.
    """

    update: Literal["none", "oracle", "entropic", "lp"] = "none"
    t_theta: int = 10
    t_lambda: int = 50
    loss: Literal["zero-one", "cross-entropy"] = "zero-one"
    alpha: float = 0.01
    momentum: float = 0.9
    floor: float = 0.5
    final: Literal["game", "last"] = "game"

    def check(self) -> None:
        """Refuse values out of their range."""
        as_real("weights.floor", self.floor, at_least=0, at_most=1)
        as_count("weights.t_theta", self.t_theta)
        as_count("weights.t_lambda", self.t_lambda)
        as_real("weights.alpha", self.alpha, above=0)
        as_real("weights.momentum", self.momentum, at_least=0, below=1)
