"""A classifier trained against the attacker's equilibrium strategy.

    min_theta  mean_i (1 - phi) E_{j ~ q_i} loss(f_theta(x_ij), y_i) + phi loss(f_theta(x'_i), y_i)

q is the attacker's optimal strategy against the present classifiers, so that the first part, with
the 0/1 loss, is the new classifier's reduced cost up to a constant; the value of the game can fall
only if that is negative. One candidate is drawn from q_i whenever image i comes up. But q was found
without the new classifier, which other attacks would fool: x' is a fresh attack on the mixture in
which the new classifier has half of the weight. The cross-entropy replaces the 0/1 loss.

References
----------
McMahan, Gordon, Blum. Planning in the Presence of Cost Functions Controlled by an Adversary.
ICML 2003 (double oracle).
Demiriz, Bennett, Shawe-Taylor. Linear Programming Boosting via Column Generation. Machine Learning
46, 2002.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.core.descent import descend
from mixsolve_torch.core.mixture import Mixture

OptimizerFactory = Callable[[Iterable[Any]], torch.optim.Optimizer]

_NEW = 0.5  # weight of the new classifier in the mixture that is attacked while it trains


def adam(parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """Return Adam with the learning rate of `fit`."""
    return torch.optim.Adam(parameters, lr=3e-3)


@dataclass(frozen=True)
class MemberTraining:
    """How a classifier is trained.

    Attributes
    ----------
    epochs, batch_size : int
        Passes over the images, and images in a step.
    optimizer : callable
        Makes an optimizer of parameters.
    attack : Attack
        The fresh attack.
    fresh : float
        phi, the share of each batch that is attacked afresh.
    """

    epochs: int
    batch_size: int
    optimizer: OptimizerFactory
    attack: Attack
    fresh: float


def train_against(
    model: nn.Module,
    pool: Mixture,
    inputs: Tensor,
    labels: Tensor,
    strategy: Tensor,
    options: MemberTraining,
    generator: torch.Generator,
    begun: Mapping[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] | None = None,
) -> float:
    """Train a classifier in place against an attacker's strategy; left in eval mode.

    Parameters
    ----------
    model : torch.nn.Module
        The new classifier.
    pool : Mixture
        Those there are, with their optimal weights.
    inputs, labels : torch.Tensor of shape (N, m, C, H, W), (N,)
        Candidates, the clean image first, and true classes.
    strategy : torch.Tensor of shape (N, m)
        Probabilities of the candidates.
    options, generator
        How long, and with what; source of all draws.
    begun : mapping, optional
        What `save` was given, to resume from there.
    save : callable, optional
        Called after every epoch but the last with what the next one depends on.

    Returns
    -------
    float
        The mean loss of the last epoch.

    Raises
    ------
    MixsolveError
        Logits that do not fit the labels, or a loss that is no longer finite.
    """
    attacked = Mixture([*pool.models, model], [*((1 - _NEW) * pool.weights).tolist(), _NEW])
    attacked.to(inputs.device)
    strategy = strategy.cpu()

    def drawn_batches() -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(labels), generator=generator, device=generator.device).cpu()
        for rows in order.split(options.batch_size):
            drawn = torch.multinomial(
                strategy[rows].to(generator.device), 1, generator=generator
            ).squeeze(1)
            here = rows.to(inputs.device)
            x, y = inputs[here, drawn.to(inputs.device)], labels[here]
            n_fresh = round(options.fresh * len(rows))
            if n_fresh:
                clean = inputs[here[:n_fresh], 0]
                x[:n_fresh] = options.attack(attacked, clean, y[:n_fresh], generator)[0]
            yield x, y

    if begun is not None:
        generator.set_state(begun["draws"])
    history = descend(
        model,
        len(pool),
        drawn_batches,
        labels,
        epochs=options.epochs,
        batch_size=options.batch_size,
        optimizer=options.optimizer(model.parameters()),
        mend="give an optimizer with a lower learning rate",
        begun=begun,
        save=None
        if save is None
        else lambda state: save({**state, "draws": generator.get_state()}),
    )
    model.eval()
    return history[-1]
