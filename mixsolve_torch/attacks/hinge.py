"""The hinge: the margin of a classifier, without a gradient once the classifier errs.

With logits z, label y and the gap g = max_{c != y} z_c - z_y, at least 0 where the classifier errs,

    hinge = min(g, s),    s = 0.02 (max_c z_c - min_c z_c).

In the expectation over classifiers, one that errs by more than the slack s drops out of the
gradient, and the ascent goes on for those still right; the slack keeps the others from pulling it
back over its boundary at once. Towards a class t the gap is z_t - z_y, and a classifier that errs
by the slack, whatever class it prefers, drops out as well. The slack is not under differentiation;
since it is a share of the spread of the logits, the hinge scales with them.

References
----------
Carlini, Wagner. Towards Evaluating the Robustness of Neural Networks. S&P 2017, the loss f_6.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SLACK = 0.02  # as a share of the spread of the logits


def hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the hinge (B,) of finite logits (B, classes), negative where the classifier is right.

    Examples
    --------
    >>> hinge(torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0]]), torch.tensor([0, 1]))
    tensor([-2.0000,  0.0600])
    """
    return torch.minimum(gap(logits, labels), _slack(logits))


def targeted_hinge(target: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the hinge towards classes `target` (B,), a function of logits and labels."""

    def towards(logits: Tensor, labels: Tensor) -> Tensor:
        own = logits.gather(1, labels[:, None]).squeeze(1)
        aimed = logits.gather(1, target[:, None]).squeeze(1) - own
        slack = _slack(logits)
        fooled = gap(logits.detach(), labels) >= slack
        return torch.where(fooled, slack, torch.minimum(aimed, slack))

    return towards


def gap(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest other logit minus the label's, (B,)."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(dim=1) - own.squeeze(1)


def _slack(logits: Tensor) -> Tensor:
    lowest, highest = logits.detach().aminmax(dim=1)
    return SLACK * (highest - lowest)
