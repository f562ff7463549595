"""Training of one network: plain, adversarial, or adversarial as a member of a mixture.

    min_theta  E  loss( f_theta(x'), y ),   x' = x (plain), or an attack at x on f_theta (Madry),
                                            or on the uniform mixture of f_theta and given others

with the cross-entropy, Adam, and a learning rate that falls to zero along a cosine. Optimiser,
schedule, seeds and defaults are this project's choices, not the paper's.

References
----------
Madry, Makelov, Schmidt, Tsipras, Vladu. Towards Deep Learning Models Resistant to Adversarial
Attacks. ICLR 2018.
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve.base.arguments import as_count, as_real
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.external import as_attack
from mixsolve_torch.core.descent import descend
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data import checks
from mixsolve_torch.data.arrays import batches
from mixsolve_torch.data.batching import Data, gather, is_pair


def fit(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    attack: Attack | Callable[..., Any] | None = None,
    alongside: Sequence[nn.Module] = (),
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train a network in place.

    Parameters
    ----------
    model : torch.nn.Module
        Maps images in [0, 1] to logits; it is in train mode afterwards.
    data : pair of torch.Tensor, LabelledImages, Dataset or iterable of batches
        Images and labels as `build_losses` takes them, on the model's device.
    epochs : int
        Passes over the data.
    attack : Attack or callable, optional
        Adversarial training: every batch is replaced by the attack's first candidate on the present
        network. An attack object of another library must declare its set, see `External`. Plain
        training when it is left out.
    alongside : sequence of torch.nn.Module, optional
        Classifiers that are not trained but attacked too: the attack is on the uniform mixture of
        them and the network, so that the network learns from images on which they err.
    batch_size : int, default 64
        Images in a step.
    learning_rate : float, default 3e-3
        Adam's learning rate at the start; it falls to zero along a cosine.
    seed : int, default 0
        Seed of the order of the images and of the attack's draws.
    on_epoch : callable, optional
        Called as ``on_epoch(epoch, mean_loss)`` after every epoch, counted from 0.

    Returns
    -------
    list of float
        The mean training loss of each epoch, on the images trained on.

    Raises
    ------
    MixsolveError
        Wrong data or parameters, or a training loss that is no longer finite.
    """
    epochs = as_count("epochs", epochs)
    learning_rate = as_real("learning_rate", learning_rate, above=0)
    batch_size = as_count("batch_size", batch_size)
    x, y = data if is_pair(data) else gather(data)
    images = checks.images("data[0]", x)
    labels = checks.labels("data[1]", y, len(images))
    generator = torch.Generator().manual_seed(as_count("seed", seed, 0))
    if alongside and attack is None:
        raise MixsolveError("alongside needs an attack; got attack=None, which is plain training")
    if attack is not None and not isinstance(attack, Attack):
        attack = as_attack(attack, None, None, "attack must be an Attack")
    attacked = Mixture([*alongside, model])

    def attacked_batches() -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in batches(images, labels, batch_size, generator):
            yield x if attack is None else attack(attacked, x, y, generator)[0], y

    return descend(
        model,
        0,
        attacked_batches,
        labels,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=torch.optim.Adam(model.parameters(), lr=learning_rate),
        mend=f"lower learning_rate, which was {learning_rate:g}",
        on_epoch=on_epoch,
    )
