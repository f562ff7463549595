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

import torch
from torch import Tensor

from mixsolve_torch.attacks.derived import Derived, LogitSlopes

SLACK = 0.02  # as a share of the spread of the logits


def hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the hinge (B,) of finite logits (B, classes), negative where the classifier is right.

    Examples
    --------
    >>> hinge(torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0]]), torch.tensor([0, 1]))
    tensor([-2.0000,  0.0600])
    """
    return _judged(logits, labels)[0]


def targeted_hinge(target: Tensor) -> Derived:
    """Return the hinge towards classes `target` (B,), a function of logits and labels."""
    index = target[:, None]

    def judged(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        own = logits.gather(1, labels[:, None])
        aimed = (logits.gather(1, index) - own).squeeze(1)
        away, slack = gap(logits.detach(), labels), _slack(logits)
        return torch.where(away >= slack, slack, torch.minimum(aimed, slack)), ~(away < 0)

    def derived(logits: Tensor, labels: Tensor) -> LogitSlopes:
        values, wrong = judged(logits, labels)
        slopes = torch.zeros_like(logits).scatter(1, index, 1.0).scatter(1, labels[:, None], -1.0)
        return LogitSlopes(values, wrong, slopes * (values < _slack(logits))[:, None])

    return Derived(judged, derived)


def gap(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest other logit minus the label's, (B,)."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(dim=1) - own.squeeze(1)


def _judged(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the hinge and where the classifier errs, NaN included."""
    away = gap(logits, labels)
    return torch.minimum(away, _slack(logits)), ~(away.detach() < 0)


def _derived(logits: Tensor, labels: Tensor) -> LogitSlopes:
    index = labels[:, None]
    others = logits.scatter(1, index, -torch.inf)
    largest = others.amax(dim=1, keepdim=True)
    away = (largest - logits.gather(1, index)).squeeze(1)
    slack = _slack(logits)
    # Rivals that tie share the derivative.
    rivals = (others == largest).to(logits.dtype)
    slopes = (rivals / rivals.sum(dim=1, keepdim=True)).scatter(1, index, -1.0)
    slopes = slopes * (away < slack)[:, None]
    return LogitSlopes(torch.minimum(away, slack), ~(away < 0), slopes)


def _slack(logits: Tensor) -> Tensor:
    lowest, highest = logits.detach().aminmax(dim=1)
    return SLACK * (highest - lowest)


DERIVED_HINGE = Derived(_judged, _derived)
