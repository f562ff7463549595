"""Losses of one image under one classifier, and their expectation under a mixture.

With logits z, label y and probabilities p = softmax(z):

    zero-one        1 if max_{c != y} z_c >= z_y, else 0
    cross-entropy   -log p_y
    margin          (1 - (p_y - max_{c != y} p_c)) / 2, in [0, 1]

A tie for the top counts as an error. The 0/1 loss is then upper semi-continuous, which the
existence of an optimal attack requires, and no rounding of logits can hide an attack that
worked. The margin loss is bounded, as the theory of the game requires, and at least 1/2 exactly
where the 0/1 loss is 1 (up to the rounding of the probabilities).

The risk of a mixture is the expected loss ``sum_k lam_k loss(f_k(x), y)``, never the loss of
averaged logits or of averaged probabilities: a random classifier errs as often as its members do on
average, not as often as their vote does.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, sections 2.2, 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data import checks

LossFunction = Callable[[Tensor, Tensor], Tensor]


def zero_one(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1 where the label's logit is not the only largest one, 0 elsewhere.

    Parameters
    ----------
    logits : torch.Tensor of shape (..., B, classes)
        Finite scores.
    labels : torch.Tensor of shape (B,), integer
        True classes.

    Returns
    -------
    torch.Tensor of shape (..., B)
        The loss, in the dtype of `logits`. It has no gradient.

    Raises
    ------
    MixsolveError
        Shapes that do not belong together, a label without a logit, or a logit that is not finite.

    Examples
    --------
    >>> import torch
    >>> zero_one(torch.tensor([[2.0, 1.0], [1.0, 1.0]]), torch.tensor([0, 0]))
    tensor([0., 1.])
    """
    return _zero_one(*_check(logits, labels))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``-log softmax(logits)`` at the label.

    Parameters
    ----------
    logits, labels : torch.Tensor of shape (..., B, classes), (B,)
        As in `zero_one`, with the same errors.

    Returns
    -------
    torch.Tensor of shape (..., B)
        The loss in nats, at least 0 and unbounded, in the dtype of `logits`.
    """
    return _cross_entropy(*_check(logits, labels))


def bounded_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``(1 - (p_y - max_{c != y} p_c)) / 2`` with ``p = softmax(logits)``.

    Parameters
    ----------
    logits, labels : torch.Tensor of shape (..., B, classes), (B,)
        As in `zero_one`, with the same errors.

    Returns
    -------
    torch.Tensor of shape (..., B)
        The loss in [0, 1], in the dtype of `logits`.
    """
    return _bounded_margin(*_check(logits, labels))


def _own_and_best_other(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    index = labels.expand(scores.shape[:-1]).unsqueeze(-1)
    own = scores.gather(-1, index).squeeze(-1)
    best_other = scores.scatter(-1, index, -torch.inf).amax(dim=-1)
    return own, best_other


def errs(logits: Tensor, labels: Tensor) -> Tensor:
    """Return a mask (..., B) of where the label's logit is not the only largest one."""
    logits = logits.detach()
    own = logits.gather(-1, labels.expand(logits.shape[:-1]).unsqueeze(-1))
    # Written so that a NaN, which attacks report only after their loop, counts as an error.
    return (logits < own).sum(dim=-1) < logits.shape[-1] - 1


def _zero_one(logits: Tensor, labels: Tensor) -> Tensor:
    return errs(logits, labels).to(logits.dtype)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.ndim == 2:  # without views, each of which autograd would go back through
        return functional.cross_entropy(logits, labels, reduction="none")
    shape = logits.shape[:-1]
    rows = logits.flatten(0, -2), labels.expand(shape).flatten()
    return functional.cross_entropy(*rows, reduction="none").view(shape)


def _bounded_margin(logits: Tensor, labels: Tensor) -> Tensor:
    own, best_other = _own_and_best_other(logits.softmax(dim=-1), labels)
    return (1 - (own - best_other)) / 2


@dataclass(frozen=True)
class Loss:
    """A per-sample loss: its name, its function, and whether an attack can follow its gradient."""

    name: str
    function: LossFunction
    differentiable: bool = True


LOSSES: dict[str, Loss] = {
    "zero-one": Loss("zero-one", _zero_one, differentiable=False),
    "cross-entropy": Loss("cross-entropy", _cross_entropy),
    "margin": Loss("margin", _bounded_margin),
}
PUBLIC: dict[LossFunction, str] = {
    zero_one: "zero-one",
    cross_entropy: "cross-entropy",
    bounded_margin: "margin",
}


def get_loss(loss: str | LossFunction) -> Loss:
    """Return the loss of this name, or wrap a function of the user's own (see `expected_loss`).

    The public functions of this module stand for their names. A user's function comes back with a
    check of the shape that it returns.

    Raises
    ------
    MixsolveError
        A name that is not known.
    MixsolveTypeError
        Neither a name nor a function.
    """
    if isinstance(loss, str):
        if loss not in LOSSES:
            names = ", ".join(repr(name) for name in LOSSES)
            raise MixsolveError(f"loss must be one of {names} or a function; got {loss!r}")
        return LOSSES[loss]
    if not callable(loss):
        raise MixsolveTypeError(
            f"loss must be a name or a function of logits and labels; got {type(loss).__name__}"
        )
    for public, name in PUBLIC.items():
        if loss is public:
            return LOSSES[name]
    name = getattr(loss, "__name__", type(loss).__name__)
    return Loss(name, _one_loss_an_image(name, loss))


def _one_loss_an_image(name: str, function: LossFunction) -> LossFunction:
    """Return `function`, refusing any result but one loss an image: a mean over the batch, say.

    It gets copies that it may write into, and may reuse the memory of its result.
    """

    def checked(logits: Tensor, labels: Tensor) -> Tensor:
        losses = function(logits.clone(), labels.clone())
        if not isinstance(losses, Tensor) or losses.shape != labels.shape:
            found = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise MixsolveError(
                f"loss {name!r} must return one loss an image, a tensor of shape "
                f"{tuple(labels.shape)}; got {found}; PyTorch's own losses do with reduction='none'"
            )
        return losses.clone()

    return checked


def expected_loss(
    mixture: Mixture, x: Tensor, y: Tensor, loss: str | LossFunction = "zero-one"
) -> Tensor:
    """Return the risk of a mixture on each image, ``sum_k lam_k loss(f_k(x), y)``.

    The expectation is exact: every classifier of positive weight is run, none is sampled. The
    mixture is used in the mode it is in, and gradients flow to the images and the classifiers.

    Parameters
    ----------
    mixture : Mixture
        The classifiers and their weights.
    x : torch.Tensor of shape (B, C, H, W)
        Images in [0, 1].
    y : torch.Tensor of shape (B,), integer
        True classes.
    loss : str or callable, default "zero-one"
        "zero-one", "cross-entropy", "margin", or a function of logits (B, classes) and labels (B,)
        that returns losses (B,).

    Returns
    -------
    torch.Tensor of shape (B,), float64
        The expected losses.

    Raises
    ------
    MixsolveError
        An unknown loss, images outside [0, 1], labels or logits that do not fit, logits that are
        not finite.
    """
    chosen = get_loss(loss)
    x = checks.images("x", x)
    y = checks.labels("y", y, len(x))
    support = mixture.support()
    logits = mixture.member_logits(x, support)
    checks.label_range("y", int(y.max()), logits.shape[-1])
    checks.finite_logits(logits, support)
    losses = torch.stack([chosen.function(member, y) for member in logits]).to(torch.float64)
    return (mixture.weights[support, None] * losses).sum(dim=0)


def _check(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if logits.ndim < 2 or logits.shape[-1] < 2:
        raise MixsolveError(
            "logits must have shape (..., B, classes) with at least 2 classes; "
            f"got {tuple(logits.shape)}"
        )
    labels = checks.labels("labels", labels, logits.shape[-2])
    checks.label_range("labels", int(labels.max()) if len(labels) else 0, logits.shape[-1])
    finite = logits.isfinite()
    if not finite.all():
        index = checks.first_index(~finite)
        raise MixsolveError(
            f"logits must be finite; got {logits[index].item()} at index {index}; "
            "look for overflow or a diverged classifier"
        )
    return logits, labels
