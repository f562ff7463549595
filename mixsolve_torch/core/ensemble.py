"""Deterministic ensembles: the classifiers' outputs are combined, and nothing is drawn.

With logits z_k, probabilities p_k = softmax(z_k), weights lam_k and class c:

    mean of probabilities    s_c = log sum_k lam_k p_kc
    mean of logits           s_c = sum_k lam_k z_kc
    vote                     V_c = sum_k lam_k 1[z_kc is the only largest logit of f_k]

An ensemble is a classifier: it errs where the label's score is not the only largest one. So it errs
with probability 0 or 1, where a random classifier of the same weights errs with the probability
sum_k lam_k 1[f_k errs]. A member with a tie for the top votes for no class, and tied votes are an
error.

V is constant almost everywhere. The scores of a vote are therefore those of the mean of
probabilities, moved as little as the votes demand: every class of the most votes gets the largest
score, every other one a smaller score. They rank as the votes do, so that attacks judge points by
the vote itself; their gradient is that of the mean of probabilities.

References
----------
Kuncheva. Combining Pattern Classifiers. 2004, chapters 4 and 5.
Gnecco Heredia, Pydi, Meunier, Negrevergne, Chevaleyre. On the Role of Randomization in
Adversarially Robust Classification. NeurIPS 2023.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.core.weights import check_weights
from mixsolve_torch.models.classifiers import run_member

RULES = ("mean of probabilities", "mean of logits", "vote")
_ROUNDING = 1e-9  # votes that differ by less are tied


class Ensemble(nn.Module):
    """A deterministic classifier that combines the outputs of others.

    Parameters
    ----------
    models : iterable of torch.nn.Module
        L >= 1 classifiers, images (B, C, H, W) to logits (B, classes). They are held, not copied.
    rule : {"mean of probabilities", "mean of logits", "vote"}
        How their outputs are combined.
    weights : array-like of shape (L,), optional
        Non-negative, summing to 1; uniform by default. Classifiers of weight 0 are not run.

    Attributes
    ----------
    models : torch.nn.ModuleList
        The classifiers.
    rule : str
        The rule.
    weights : tuple of float
        The weights.

    Raises
    ------
    MixsolveError
        An unknown rule, no model, or weights that are not L probabilities.
    MixsolveTypeError
        Something among the models that is not a torch.nn.Module.

    Examples
    --------
    >>> import torch
    >>> models = [torch.nn.Linear(2, 3) for _ in range(3)]
    >>> Ensemble(models, "vote")(torch.rand(5, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(self, models: Iterable[nn.Module], rule: str, weights: Any = None) -> None:
        super().__init__()
        if rule not in RULES:
            known = ", ".join(repr(name) for name in RULES)
            raise MixsolveError(f"rule must be one of {known}; got {rule!r}")
        mixture = Mixture(models, weights)
        self.models = mixture.models
        self.rule = rule
        # Numbers and not a buffer: the module may change its dtype, votes are counted exactly.
        self.weights: tuple[float, ...] = tuple(mixture.weights.tolist())
        self._played = mixture.support()

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, classes) of images (B, C, H, W); the largest one is the decision."""
        return self.combine([run_member(self.models[k], k, x) for k in self._played])

    def of_all(self, logits: Sequence[Tensor] | Tensor) -> Tensor:
        """Return the scores (B, classes) from the logits (L, B, classes) of all classifiers."""
        return self.combine([logits[k] for k in self._played])

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        """Return the scores (B, classes) from the logits of the classifiers of positive weight."""
        outputs = torch.stack(list(logits))
        lam = torch.tensor(
            [self.weights[k] for k in self._played], dtype=torch.float64, device=outputs.device
        )[:, None, None]
        if self.rule == "mean of logits":
            return (lam.to(outputs.dtype) * outputs).sum(dim=0)
        soft = torch.logsumexp(outputs.log_softmax(dim=-1) + lam.log().to(outputs.dtype), dim=0)
        return _as_voted(soft, outputs.detach(), lam) if self.rule == "vote" else soft

    def extra_repr(self) -> str:
        """Return rule and weights, which tell ensembles of the same classifiers apart."""
        return f"rule={self.rule!r}, weights={list(self.weights)}"


def votes(logits: Tensor, weights: Any) -> Tensor:
    """Return the weight of the votes (B, classes), float64, from logits (L, B, classes)."""
    lam = check_weights(weights, len(logits)).to(logits.device)
    return _votes(logits, lam[:, None, None])


def _votes(logits: Tensor, lam: Tensor) -> Tensor:
    top = logits == logits.amax(dim=-1, keepdim=True)
    return (lam * (top & (top.sum(dim=-1, keepdim=True) == 1))).sum(dim=0)


def _as_voted(soft: Tensor, logits: Tensor, lam: Tensor) -> Tensor:
    """Return the soft scores moved so that they rank as the votes do, with their gradient."""
    count, value = _votes(logits, lam), soft.detach()
    wins = count >= count.amax(dim=-1, keepdim=True) - _ROUNDING
    top = value.amax(dim=-1, keepdim=True)
    below = torch.nextafter(top, torch.full_like(top, -torch.inf))
    ranked = torch.where(wins, top, torch.minimum(value, below))
    return ranked + (soft - value)


class WithEnsembles(Mixture):
    """Classifiers and ensembles of them in one list, each classifier run once for all.

    Parameters
    ----------
    models : iterable of torch.nn.Module
        L classifiers.
    ensembles : sequence of Ensemble
        E ensembles of these very classifiers, in their order.
    """

    def __init__(self, models: Iterable[nn.Module], ensembles: Sequence[Ensemble]) -> None:
        super().__init__([*models, *ensembles])
        self._alone = len(self) - len(ensembles)
        self._ensembles = tuple(ensembles)  # they are among `models`, too

    def member_logits(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        """Return the logits (members, B, classes); all L + E by default."""
        if members is not None:
            return super().member_logits(x, members)
        alone = super().member_logits(x, range(self._alone))
        scores = [each.of_all(alone)[None] for each in self._ensembles]
        return torch.cat([alone, *scores])
