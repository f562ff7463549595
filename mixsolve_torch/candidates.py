"""The loss tensor of a game: every classifier's loss on every attack on every image.

    values[i, j, k] = loss(f_k(x_ij), y_i),    x_i0 = x_i the clean image, x_ij the attack j on it

All L classifiers are evaluated on every candidate, whatever their weights, since the tensor is what
new weights are found from.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 4.2.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixsolve.arguments import as_count
from mixsolve.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch import checks
from mixsolve_torch.attacks.base import (
    Attack,
    check_mixture,
    default_generator,
    frozen,
    prepare,
)
from mixsolve_torch.data import batches
from mixsolve_torch.losses import LOSSES, Loss, LossFunction, get_loss
from mixsolve_torch.mixture import Mixture, check_weights
from mixsolve_torch.progress import ProgressBar

logger = logging.getLogger(__name__)

Data = tuple[Tensor, Tensor] | Iterable[Sequence[Tensor]]


@dataclass(frozen=True)
class CandidateLosses:
    """The losses of L classifiers on m attack candidates of N images.

    Attributes
    ----------
    values : torch.Tensor of shape (N, m, L)
        ``values[i, j, k]``, the loss of classifier k on candidate j of image i, on the mixture's
        device: uint8 for the 0/1 loss; float32 for the others, or float64 where the classifiers
        compute in it. This is what `mixsolve.solve` takes.
    labels : torch.Tensor of shape (N,), int64
        The true classes.
    candidate_names : tuple of str
        The m candidates; the first is "clean", the image itself.
    loss : str
        The name of the loss.
    inputs : torch.Tensor of shape (N, m, C, H, W), or None
        The candidates themselves, where they were kept.
    """

    values: Tensor
    labels: Tensor
    candidate_names: tuple[str, ...]
    loss: str
    inputs: Tensor | None = None

    def adversarial_risk(self, weights: Any) -> float:
        """Return the risk of given weights when each image meets its worst candidate.

        Parameters
        ----------
        weights : array-like of shape (L,)
            Probabilities of the classifiers.

        Returns
        -------
        float
            ``mean_i max_j sum_k weights_k values[i, j, k]``, computed in float64.
        """
        return float(self.worst(weights).mean())

    def standard_risk(self, weights: Any) -> float:
        """Return the risk on the clean images, ``mean_i sum_k weights_k values[i, 0, k]``."""
        lam = check_weights(weights, self.values.shape[2]).to(self.values.device)
        return float((self.values[:, 0].to(torch.float64) @ lam).mean())

    def worst(self, weights: Any) -> Tensor:
        """Return the expected loss (N,), float64, of each image's worst candidate."""
        lam = check_weights(weights, self.values.shape[2]).to(self.values.device)
        worst = self.values[:, 0].to(torch.float64) @ lam
        for j in range(1, self.values.shape[1]):
            worst = torch.maximum(worst, self.values[:, j].to(torch.float64) @ lam)
        return worst


def build_losses(
    mixture: Mixture,
    data: Data,
    attacks: Attack | Sequence[Attack],
    loss: str | LossFunction = "zero-one",
    *,
    batch_size: int = 256,
    generator: torch.Generator | None = None,
    keep_inputs: bool = False,
    progress: bool = False,
) -> CandidateLosses:
    """Attack every image with every attack and record the losses of all classifiers.

    Parameters
    ----------
    mixture : Mixture
        The classifiers, and the weights that attacks on the mixture ascend. It is attacked and
        evaluated in eval mode; its own mode is restored.
    data : pair of torch.Tensor, or iterable of pairs
        Images (N, C, H, W) in [0, 1] and labels (N,), or batches of them such as a DataLoader's.
    attacks : Attack or sequence of Attack
        Where the candidates come from. The clean image always is the first candidate.
    loss : {"zero-one", "cross-entropy", "margin"} or callable, default "zero-one"
        The loss recorded. It need not be the loss that the attacks ascend.
    batch_size : int, default 256
        Images attacked at a time when `data` is a pair of tensors. Random draws are made batch
        by batch, so that they depend on it.
    generator : torch.Generator, optional
        Source of all random draws; by default a new one seeded with 0.
    keep_inputs : bool, default False
        Keep the attacked images as well, e.g. for pictures: N m times the size of an image.
    progress : bool, default False
        Show a progress bar if the work takes more than two seconds and stderr is a terminal.

    Returns
    -------
    CandidateLosses
        The tensor ``values`` of shape (N, m, L), the names of the m candidates, the labels.

    Raises
    ------
    MixsolveError
        Images outside [0, 1], labels or logits that do not fit, logits that are not finite, or data
        without a batch.
    MixsolveTypeError
        Something that is not a mixture, an attack, a generator, or data of images and labels.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import Mixture, UniformBall
    >>> models = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)) for _ in range(2)]
    >>> data = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    >>> losses = build_losses(Mixture(models), data, UniformBall("L2", 0.5, draws=4))
    >>> losses.values.shape, losses.values.dtype
    (torch.Size([6, 5, 2]), torch.uint8)
    >>> losses.candidate_names[:2]
    ('clean', 'uniform L2 0.5 #1')
    """
    check_mixture(mixture)
    recorded = get_loss(loss)
    chosen = _check_attacks(attacks)
    generator = default_generator(generator)
    names = candidate_names(chosen, len(mixture))
    total, loader = _batches(data, as_count("batch_size", batch_size))
    values: list[Tensor] = []
    labels: list[Tensor] = []
    inputs: list[Tensor] = []
    steps = None if total is None else total * len(names)
    with frozen(mixture), ProgressBar("Attacking", steps, enabled=progress) as bar:
        for number, batch in enumerate(loader):
            x, y = prepare(mixture, *_pair(batch, number))
            rows: list[Tensor] = []
            points: list[Tensor] = []
            for candidate in _candidates(chosen, mixture, x, y, generator):
                rows.append(_member_losses(mixture, candidate, y, recorded))
                if keep_inputs:
                    points.append(candidate)
                bar.advance(1)
            values.append(torch.stack(rows, dim=1))
            labels.append(y)
            if keep_inputs:
                inputs.append(torch.stack(points, dim=1))
    if not values:
        raise MixsolveError("data must hold at least one batch; got none")
    losses = CandidateLosses(
        values=torch.cat(values),
        labels=torch.cat(labels),
        candidate_names=names,
        loss=recorded.name,
        inputs=torch.cat(inputs) if keep_inputs else None,
    )
    logger.info("built %s losses of shape %s", losses.loss, tuple(losses.values.shape))
    return losses


def candidate_names(attacks: Sequence[Attack], classifiers: int) -> tuple[str, ...]:
    """Return the names of all candidates, "clean" first; a repeated name gets a number."""
    names = ["clean"]
    for attack in attacks:
        for name in attack.names(classifiers):
            copies = 1
            unique = name
            while unique in names:
                copies += 1
                unique = f"{name} ({copies})"
            names.append(unique)
    return tuple(names)


def _check_attacks(attacks: Attack | Sequence[Attack]) -> list[Attack]:
    if isinstance(attacks, str) or not isinstance(attacks, Attack | Iterable):
        raise MixsolveTypeError(
            "attacks must be an Attack such as PGD('Linf', 8 / 255), or a sequence of them; "
            f"got {attacks!r} of type {type(attacks).__name__}"
        )
    chosen = [attacks] if isinstance(attacks, Attack) else list(attacks)
    for i, attack in enumerate(chosen):
        if not isinstance(attack, Attack):
            raise MixsolveTypeError(
                f"attacks[{i}] must be an Attack such as PGD('Linf', 8 / 255); "
                f"got {type(attack).__name__}"
            )
    return chosen


def _batches(data: Data, batch_size: int) -> tuple[int | None, Iterable[Sequence[Tensor]]]:
    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor):
        x, y = _pair(data, 0)
        checks.labels("y", y, len(checks.images("x", x)))
        return -(-len(x) // batch_size), batches(x, y, batch_size)
    if not isinstance(data, Iterable):
        raise MixsolveTypeError(
            "data must be a pair of tensors (images, labels) or an iterable of such batches; "
            f"got {type(data).__name__}"
        )
    try:
        return (len(data) if isinstance(data, Sized) else None), data
    except TypeError:  # a DataLoader of an iterable dataset has a len() that refuses to answer
        return None, data


def _pair(batch: Any, number: int) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise MixsolveTypeError(
            "data must be a pair of tensors (images, labels) or give such pairs; "
            f"batch {number} is a {type(batch).__name__}; convert arrays with torch.as_tensor"
        )
    return batch[0], batch[1]


def _candidates(
    attacks: Sequence[Attack], mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
) -> Iterator[Tensor]:
    yield x
    for attack in attacks:
        yield from attack.generate(mixture, x, y, generator)


@torch.no_grad()
def _member_losses(mixture: Mixture, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """Return the losses (B, L) of all classifiers, in the smallest dtype that holds them."""
    logits = mixture.member_logits(x)
    checks.label_range("y", int(y.max()), logits.shape[-1])
    checks.finite_logits(logits, range(len(mixture)))
    losses = torch.stack([loss.function(member, y) for member in logits], dim=1)
    if loss is LOSSES["zero-one"] or losses.dtype == torch.bool:
        return losses.to(torch.uint8)
    if losses.is_floating_point():
        return losses.to(torch.promote_types(losses.dtype, torch.float32))
    return losses
