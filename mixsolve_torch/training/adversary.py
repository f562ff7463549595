"""The attack that classifiers are trained on: projected gradient ascent on the whole mixture.

    AT:      max_x'  sum_k lam_k loss(f_k(x'), y)
    TRADES:  max_x'  sum_k lam_k KL( p_k(x) || p_k(x') )

x' in the ball around x, T steps from a uniform start, and the last point is trained on (evaluation
keeps the best one). The divergence vanishes at x with its gradient, which a start elsewhere avoids.

Against several sets S_1, ..., S_T this is done in every ball, all points of finite sets are tried,
and each image is trained on the point of the largest objective: the "max" strategy,

    max_t max_{x' in S_t(x)}  sum_k lam_k loss(f_k(x'), y).

Objects that are the same for all batches are made once, points on the way are not judged, and
nothing here synchronises with the device: `check` raises the errors of the classifiers, once an
epoch.

References
----------
Madry, Makelov, Schmidt, Tsipras, Vladu. Towards Deep Learning Models Resistant to Adversarial
Attacks. ICLR 2018.
Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan. Theoretically Principled Trade-off between Robustness and
Accuracy. ICML 2019.
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 5.2.
Tramer, Boneh. Adversarial Training and Robustness for Multiple Perturbations. NeurIPS 2019.
Maini, Wong, Kolter. Adversarial Robustness Against the Union of Multiple Perturbation Models.
ICML 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mixsolve_torch.attacks import PGD, Attack
from mixsolve_torch.attacks.masking import LOGITS
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.attacks.objective import Objective
from mixsolve_torch.attacks.registry import resolve_attacks
from mixsolve_torch.attacks.strongest import strongest
from mixsolve_torch.attacks.threats import Finite, InBall
from mixsolve_torch.core.losses import LossFunction
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.training.settings import AttackConfig


class ExpectedDivergence(Objective):
    """``sum_k lam_k KL(p_k(x) || p_k(x'))``, the objective of an attack on TRADES.

    Parameters
    ----------
    members : Members
        The classifiers that are played and their weights.
    clean : torch.Tensor of shape (B, C, H, W)
        The images x.
    """

    def __init__(self, members: Members, clean: Tensor) -> None:
        super().__init__(members)
        self._clean = [members.logits(i, clean).log_softmax(dim=1) for i in range(len(members))]

    def function(self, i: int) -> LossFunction:
        """Return the divergence of member i from its own predictions on the clean images."""

        def diverged(logits: Tensor, labels: Tensor) -> Tensor:
            return divergence(self._clean[i], logits.log_softmax(dim=1))

        return diverged


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p || q) (B,) of log-probabilities (B, classes), with a gradient in both."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def given_attack(attack: Attack | Callable[..., Any], config: AttackConfig) -> Attack:
    """Return an attack, function or foreign object as an attack in the sets of a configuration."""
    return strongest(resolve_attacks([attack], **config.declared))


class Adversary:
    """Attacks one batch after another.

    Parameters
    ----------
    mixture : Mixture
        The classifiers, which may be trained between calls.
    config : AttackConfig
        Ball or threats, steps and loss.
    trades : bool
        Ascend the expected divergence instead of the expected loss.
    largest_label : int
        The largest of all batches.
    autocast : torch.dtype, optional
        Run the classifiers in it where PyTorch's autocast deems it safe.
    weights : torch.Tensor of shape (L,), optional
        Attack the mixture of these weights instead of the mixture's own.
    given : Attack, optional
        Its first candidate is trained on, in place of the points of PGD and of finite sets.
    runs : sequence of callable of length L, optional
        What runs each classifier in the steps of PGD, such as its compiled form.
    loss : str or callable, optional
        What PGD ascends the expectation of, instead of the loss of the configuration.
    """

    def __init__(
        self,
        mixture: Mixture,
        config: AttackConfig,
        *,
        trades: bool,
        largest_label: int,
        autocast: torch.dtype | None = None,
        weights: Tensor | None = None,
        given: Attack | None = None,
        runs: Sequence[Any] | None = None,
        loss: str | LossFunction | None = None,
    ) -> None:
        ascended = config.loss if loss is None else loss
        self._runs = runs
        self._mixture = mixture
        self._given = given
        self._attacked = Mixture(mixture.models)
        sets = config.sets
        self._attacks = [
            PGD(
                threat.ball.norm,
                threat.ball.eps,
                steps=config.steps,
                step_size=config.step if config.threats is None else None,
                loss=ascended,
            )
            for threat in sets
            if isinstance(threat, InBall)
        ]
        self._finite = [threat for threat in sets if isinstance(threat, Finite)]
        self._ascended = ascended
        self._batch_statistics = config.batch_norm == "train"
        self._trades = trades
        self._labels = torch.tensor([largest_label], device=mixture.device)
        self._autocast = autocast
        self.refresh(mixture.weights if weights is None else weights)

    def refresh(self, weights: Tensor) -> None:
        """Attack the mixture of these weights (L,) from now on."""
        self._attacked.set_weights(weights)
        self._members = Members(
            self._attacked, self._labels, autocast=self._autocast or False, runs=self._runs
        )

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Attack a batch, which is not checked.

        Parameters
        ----------
        x, y : torch.Tensor of shape (B, C, H, W), (B,)
            Images in [0, 1] and labels, on the mixture's device.
        generator : torch.Generator
            Source of the start.

        Returns
        -------
        attacked : torch.Tensor of shape (B, C, H, W)
            The last point; against several sets, the one of the largest objective.
        errors : torch.Tensor of shape (B,), float64
            The expected 0/1 loss of the mixture there; against one ball at the point of the last
            gradient, one step before: that at the last point would need another forward pass.
        """
        with frozen(self._mixture), self._statistics():
            objective = (
                ExpectedDivergence(self._members, x)
                if self._trades
                else Objective(self._members, self._ascended)
            )
            if self._given is not None:
                point = self._given(self._attacked, x, y, generator)[0]
                return point, objective.score(point, y).errors
            if len(self._attacks) == 1 and not self._finite:
                return self._ascend(self._attacks[0], objective, x, y, generator)
            worst, reached = x, None
            for point in self._points(objective, x, y, generator):
                score = objective.score(point, y)
                if reached is None:
                    worst, reached = point, score
                    continue
                larger = score.value > reached.value
                worst = torch.where(larger.view(-1, 1, 1, 1), point, worst)
                reached = score.where(larger, reached)
            assert reached is not None
            return worst, reached.errors

    def _points(
        self, objective: Objective, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the last point in each ball and all points of finite sets."""
        for attack in self._attacks:
            yield self._ascend(attack, objective, x, y, generator)[0]
        for threat in self._finite:
            yield from threat.points(x)

    @staticmethod
    def _ascend(
        attack: PGD, objective: Objective, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the last point in one ball, and the errors at the one before."""
        attacked, score = attack.last(objective, attack.starts(x, generator), x, y)
        return attacked, score.errors

    def check(self) -> None:
        """Refuse logits of a classifier that diverged, and warn of gradients that vanished."""
        followed = self._attacks[0].followed() if self._attacks else LOGITS
        self._members.check("the divergence" if self._trades else followed)

    @contextmanager
    def _statistics(self) -> Iterator[None]:
        """Let batch norms use the batch's statistics, if configured; keep the running ones."""
        if not self._batch_statistics:
            yield
            return
        norms = [part for part in self._mixture.modules() if isinstance(part, _BatchNorm)]
        with ExitStack() as restored:
            for part in norms:
                restored.callback(setattr, part, "track_running_stats", part.track_running_stats)
                restored.callback(setattr, part, "training", False)
                part.training, part.track_running_stats = True, False
            yield
