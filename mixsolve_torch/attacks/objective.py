"""The loss that an attack ascends and the risk that judges it, as functions of the images.

    E(x') = sum_k lam_k 1[f_k errs on x']                  the risk: what an attack is judged by
    F(x') = sum_k lam_k loss(f_k(x'), y)                   the expected loss, which has a gradient
    G(x') = -log sum_k lam_k p_k(y | x')                   cross-entropy of the mean probability

Value and gradient come from one forward and one backward pass of each classifier, one classifier
after another. That holds for G too, whose gradient weighs classifier k by its share of the
probability, lam_k p_k(y) / sum_l lam_l p_l(y): the shares are rescaled as the sum grows. Since E
is an expectation over classifiers and not over their votes, F is the default, and G is for
comparison with attacks on averaged probabilities.

The difference of logits ratio of Croce and Hein does not saturate when logits grow:

    dlr = -(z_y - max_{c != y} z_c) / (z_(1) - z_(3)),    z_(1) >= z_(2) >= z_(3) the largest logits

It is constant where the true class ranks third. The hinge of `attacks.hinge` leaves out of the
gradient the classifiers that err already.

References
----------
Croce, Hein. Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
Parameter-free Attacks. ICML 2020, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.derived import Derived
from mixsolve_torch.attacks.hinge import DERIVED_HINGE, hinge, targeted_hinge
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.core.losses import LOSSES, Loss, LossFunction, errs, get_loss

MEAN_PROBABILITY = "mean-probability"
_FLAT = 1e-12  # the least spread of the three largest logits that dlr divides by


class Score(NamedTuple):
    """How good an attack is on each image: its expected 0/1 loss, then the loss it ascends.

    Both are float64 tensors of shape (B,). Scores are compared by the first, ties by the second.
    """

    errors: Tensor
    value: Tensor

    def beats(self, other: Score) -> Tensor:
        """Return a mask (B,) of the images on which this score is the better attack."""
        tie = self.errors == other.errors
        return (self.errors > other.errors) | (tie & (self.value > other.value))

    def where(self, mask: Tensor, other: Score) -> Score:
        """Return this score where `mask` holds and the other one elsewhere."""
        return Score(*(torch.where(mask, a, b) for a, b in zip(self, other, strict=True)))

    def at(self, rows: Tensor) -> Score:
        """Return the scores of some images."""
        return Score(self.errors[rows], self.value[rows])

    def put(self, rows: Tensor, new: Score) -> Score:
        """Return all scores, with new ones for some images."""
        return Score(*(a.index_copy(0, rows, b) for a, b in zip(self, new, strict=True)))


def keep_better(
    best: Tensor, best_score: Score | None, point: Tensor, score: Score
) -> tuple[Tensor, Score]:
    """Return, image by image, the better of two attacks (B, C, H, W) and its score."""
    if best_score is None:
        return point, score
    better = score.beats(best_score)
    kept = torch.where(better.view(-1, 1, 1, 1), point, best)
    return kept, score.where(better, best_score)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the difference of logits ratio (B,), at most 1 and positive where the classifier errs.

    Refuses logits (B, classes) of fewer than 3 classes.
    """
    classes = logits.shape[-1]
    if classes < 3:
        raise MixsolveError(
            f"loss 'dlr' needs at least 3 classes, got {classes}: it divides by the difference of "
            "the first and the third largest logit, which lets no scale of the logits hide an "
            "attack; use 'cross-entropy' or 'margin'"
        )
    top, ranked = logits.topk(3, dim=-1)
    own = logits.gather(-1, labels[:, None]).squeeze(-1)
    best_other = torch.where(ranked[:, 0] == labels, top[:, 1], top[:, 0])
    return (best_other - own) / (top[:, 0] - top[:, 2]).clamp(min=_FLAT)


DLR = Loss("dlr", dlr)
HINGE = Loss("hinge", DERIVED_HINGE)


def ascended_loss(loss: str | LossFunction) -> Loss:
    """Return the loss of one classifier that an attack by this name or function ascends.

    Refuses a name that is not known, or a loss without a gradient.
    """
    if loss in ("dlr", dlr):
        return DLR
    if loss in ("hinge", hinge):
        return HINGE
    if loss == MEAN_PROBABILITY:
        return Loss(MEAN_PROBABILITY, LOSSES["cross-entropy"].function)
    if isinstance(loss, str) and loss not in LOSSES:
        names = ", ".join(repr(n) for n, own in LOSSES.items() if own.differentiable)
        raise MixsolveError(
            f"loss must be one of {names}, 'hinge', 'dlr', {MEAN_PROBABILITY!r} or a function; "
            f"got {loss!r}"
        )
    chosen = get_loss(loss)
    if not chosen.differentiable:
        raise MixsolveError(
            f"loss of an attack must have a gradient; got {chosen.name!r}; use "
            "'cross-entropy' or 'margin': the best point is judged by the 0/1 loss anyway"
        )
    return chosen


class Objective:
    """The loss of a mixture that an attack ascends, and the score it is judged by.

    Parameters
    ----------
    members : Members
        The classifiers that are played and their weights.
    loss : str or callable, default "cross-entropy"
        "cross-entropy", "margin", "hinge", "dlr" or a function: the expectation of that loss;
        "mean-probability": the cross-entropy of the mean probability.
    """

    def __init__(self, members: Members, loss: str | LossFunction = "cross-entropy") -> None:
        self.members = members
        self._loss = ascended_loss(loss)
        self._of_mean = self._loss.name == MEAN_PROBABILITY

    def function(self, i: int) -> LossFunction:
        """Return the loss of member i, a function of logits (B, classes) and labels (B,)."""
        return self._loss.function

    def towards(self, target: Tensor) -> Objective:
        """Return the hinge towards the classes `target` (B,), one for each image of a batch."""
        aimed = Objective(self.members)
        aimed._loss = Loss("targeted hinge", targeted_hinge(target))
        return aimed

    def score(self, x: Tensor, y: Tensor) -> Score:
        """Return the score of images (B, C, H, W) with labels (B,)."""
        return self.judge([self.members.logits(i, x) for i in range(len(self.members))], y)

    def judge(self, logits: Sequence[Tensor], y: Tensor) -> Score:
        """Return the score of images from the logits (B, classes) of every member on them."""
        wrong: list[Tensor] = []
        losses: list[Tensor] = []
        with torch.no_grad():
            for i, own in enumerate(logits):
                function = self.function(i)
                if isinstance(function, Derived):
                    value, error = function.judged(own, y)
                else:
                    value, error = function(own, y), errs(own, y)
                losses.append(value)
                wrong.append(error)
        return Score(self.members.expected(wrong), self._combine(losses))

    def score_and_gradient(self, x: Tensor, y: Tensor) -> tuple[Score, Tensor]:
        """Return the score and the gradient (B, C, H, W) of the loss in the images."""
        gradient: Tensor | None = None
        wrong: list[Tensor] = []
        losses: list[Tensor] = []
        reached = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
        for i, weight in enumerate(self.members.weights):
            slope = self.members.gradient(i, self.function(i), x, y)
            wrong.append(slope.wrong)
            losses.append(slope.values)
            if not self._of_mean:
                gradient = (
                    slope.gradient * weight
                    if gradient is None
                    else gradient.add_(slope.gradient, alpha=weight)
                )
                continue
            own = math.log(weight) - slope.values.to(torch.float64)
            total = torch.logaddexp(reached, own)
            added = slope.gradient * _per_image((own - total).exp(), x)
            if gradient is not None:
                added += gradient * _per_image((reached - total).exp(), x)
            gradient, reached = added, total
        assert gradient is not None
        return Score(self.members.expected(wrong), self._combine(losses)), gradient

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient alone, up to rounding that of `score_and_gradient`.

        Points are not judged and signs of masking are not counted: for long ways to a point that
        is judged.
        """
        if self._of_mean:
            return self.score_and_gradient(x, y)[1]
        gradient: Tensor | None = None
        for i, weight in enumerate(self.members.weights):
            slope = self.members.slope(i, self.function(i), x, y)
            if gradient is None:
                gradient = slope if weight == 1 else slope.mul_(weight)
            else:
                gradient.add_(slope, alpha=weight)
        assert gradient is not None
        return gradient

    def _combine(self, losses: Sequence[Tensor]) -> Tensor:
        if not self._of_mean:
            return self.members.expected(losses)
        reached = torch.full_like(losses[0], -torch.inf, dtype=torch.float64)
        for weight, own in zip(self.members.weights, losses, strict=True):
            reached = torch.logaddexp(reached, math.log(weight) - own.to(torch.float64))
        return -reached


def _per_image(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x.dtype)[:, None, None, None]
