"""The loss that a network is trained on: of its logits z on one image, with label y and K classes.

With p = softmax(z):

    cross-entropy    -log p_y                                        unbounded
    gce              (1 - p_y^q) / q,   0 < q <= 1                   in [0, 1/q]
    error            1 - p_y: the chance that a label drawn from p is wrong, gce with q = 1
    mce              -log p_y  -  1/(K-1) sum_{c != y} log softmax(-z)_c

gce tends to the cross-entropy as q -> 0. The gradient of gce in z is that of the cross-entropy
times p_y^q: images that a network gets wrong for sure hardly count, so that it can give up images,
and whole classes, to be right on others. Look at the accuracy of each class.

mce raises z_y above the others, as the cross-entropy does, and lowers each z_c, c != y, below the
others: both sides of the margin z_y - max_{c != y} z_c.

References
----------
Zhang, Sabuncu. Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels.
NeurIPS 2018.
Zhang, Zhang, Courville, Bengio, Ravikumar, Suggala. Building Robust Ensembles via Margin Boosting.
ICML 2022.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor
from torch.nn import functional

from mixsolve_torch.core.losses import LossFunction
from mixsolve_torch.training.settings import LossConfig


def member_loss(config: LossConfig) -> LossFunction:
    """Return the loss (B,) of logits (B, K) and labels (B,) that networks are trained on."""
    if config.member == "cross-entropy":
        return partial(functional.cross_entropy, reduction="none")
    if config.member == "mce":
        return margin_cross_entropy
    return partial(generalized_cross_entropy, q=1.0 if config.member == "error" else config.q)


def generalized_cross_entropy(logits: Tensor, labels: Tensor, q: float) -> Tensor:
    """Return ``(1 - p_y^q) / q`` (B,) of logits (B, K) and labels (B,)."""
    log_p = -functional.cross_entropy(logits, labels, reduction="none")
    return -(q * log_p).expm1() / q


def margin_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy and that of the other classes on ``-logits`` (B,)."""
    own = functional.cross_entropy(logits, labels, reduction="none")
    turned = (-logits).log_softmax(dim=-1)
    others = turned.sum(dim=-1) - turned.gather(-1, labels[:, None]).squeeze(-1)
    return own - others / (logits.shape[-1] - 1)
