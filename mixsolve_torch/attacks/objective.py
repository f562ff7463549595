"""What an attack ascends: the expected loss of a mixture, as a function of the images alone.

    F(x') = sum_k lam_k loss(f_k(x'), y),      E(x') = sum_k lam_k 1[f_k errs on x']

E is the risk that counts; F is what has a gradient. Both come from the same forward pass. The
classifiers are run one after another and their gradients added, so that the memory of one
network's graph is enough for a mixture of any size, and nothing waits for the device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mixsolve.errors import MixsolveError
from mixsolve_torch import checks
from mixsolve_torch.losses import LOSSES, LossFunction, get_loss
from mixsolve_torch.mixture import Mixture, check_weights, run_member


class Score(NamedTuple):
    """How good an attack is on each image: its expected 0/1 loss, then its expected loss.

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


def keep_better(
    best: Tensor, best_score: Score | None, point: Tensor, score: Score
) -> tuple[Tensor, Score]:
    """Return, image by image, the better of two attacks (B, C, H, W) and its score."""
    if best_score is None:
        return point, score
    better = score.beats(best_score)
    kept = torch.where(better[:, None, None, None], point, best)
    return kept, score.where(better, best_score)


class Objective:
    """The expected loss of a mixture whose modules are frozen (see `attacks.base.frozen`).

    Parameters
    ----------
    mixture : Mixture
        The classifiers, and the weights unless others are given.
    loss : str or callable
        A differentiable loss.
    labels : torch.Tensor of shape (B,), int64
        All labels that will be asked about, for the one check against the number of classes.
    weights : array-like of shape (L,), optional
        Weights to attack instead of the mixture's own.

    Raises
    ------
    MixsolveError
        A loss without a gradient, or weights that are not probabilities.
    """

    def __init__(
        self, mixture: Mixture, loss: str | LossFunction, labels: Tensor, weights: Any = None
    ) -> None:
        self._loss = get_loss(loss)
        if not self._loss.differentiable:
            raise MixsolveError(
                f"loss of an attack must have a gradient; got {self._loss.name!r}; use "
                "'cross-entropy' or 'margin': the best point is judged by the 0/1 loss anyway"
            )
        if weights is None:
            weights = mixture.weights
        played = enumerate(check_weights(weights, len(mixture)).tolist())
        self._members = [(k, mixture.models[k], weight) for k, weight in played if weight > 0]
        intact = torch.ones((), dtype=torch.bool, device=labels.device)
        self._finite_logits = [intact] * len(self._members)
        self._finite_gradients = [intact] * len(self._members)
        self._largest_label = int(labels.max())

    def score(self, x: Tensor, y: Tensor) -> Score:
        """Return the score of images (B, C, H, W) with labels (B,)."""
        with torch.no_grad():
            return self._run(x, y, None)

    def score_and_gradient(self, x: Tensor, y: Tensor) -> tuple[Score, Tensor]:
        """Return the score and the gradient (B, C, H, W) of the expected loss in the images."""
        gradient = torch.zeros_like(x)
        with torch.enable_grad():
            return self._run(x, y, gradient), gradient

    def _run(self, x: Tensor, y: Tensor, gradient: Tensor | None) -> Score:
        errors = value = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for i, (k, model, weight) in enumerate(self._members):
            point = x.detach().requires_grad_(gradient is not None)
            logits = run_member(model, k, point)
            checks.label_range("y", self._largest_label, logits.shape[1])
            losses = self._loss.function(logits, y)
            if gradient is not None:
                own = self._gradient(k, weight, losses, point)
                self._finite_gradients[i] = self._finite_gradients[i] & own.isfinite().all()
                # The points stay numbers, so that a NaN met later is the classifier's own.
                gradient += own.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
            self._finite_logits[i] = self._finite_logits[i] & logits.detach().isfinite().all()
            wrong = LOSSES["zero-one"].function(logits, y)
            errors = errors + weight * wrong.to(torch.float64)
            value = value + weight * losses.detach().to(torch.float64)
        return Score(errors, value)

    def _gradient(self, k: int, weight: float, losses: Tensor, point: Tensor) -> Tensor:
        """Return the gradient of ``weight * losses`` in the images `point`."""
        own = None
        if losses.requires_grad:
            (own,) = torch.autograd.grad(weight * losses.sum(), point, allow_unused=True)
        if own is None:
            raise MixsolveError(
                f"loss {self._loss.name!r} of models[{k}] must have a gradient with respect to the "
                "images; got none; look for a loss or a classifier that rounds, detaches or runs "
                "without gradients, or use UniformBall, which needs none"
            )
        return own

    def check_finite(self) -> None:
        """Raise an error if a logit or gradient so far was not finite; to be called at the end."""
        for i, (k, _, _) in enumerate(self._members):
            for what, finite, mend in (
                ("logits", self._finite_logits[i], "a diverged classifier"),
                ("gradients", self._finite_gradients[i], "a root or a division at zero"),
            ):
                if not finite:
                    raise MixsolveError(
                        f"models[{k}] must have finite {what}; got NaN or infinity under attack; "
                        f"look for overflow (half precision?) or {mend}"
                    )
