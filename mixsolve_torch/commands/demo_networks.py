"""The demo's three small networks, and the attacks on them.

Epochs and attacks are this project's choices. Networks that are trained independently share their
weaknesses, and the best of them alone is then about as good as any mixture. So the second
adversarial network is trained on attacks against the mixture of itself and the first.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from torch import nn

from mixsolve_torch.attacks import PGD, Attack, Standard
from mixsolve_torch.commands.demo_images import PatchSettings
from mixsolve_torch.data.arrays import Split
from mixsolve_torch.models.architectures import digits_cnn
from mixsolve_torch.runs.progress import ProgressBar
from mixsolve_torch.training import fit


@dataclass(frozen=True)
class DemoSettings:
    """What the demo trains and how hard it attacks; smaller numbers make a quicker demo.

    Attributes
    ----------
    norm : {"Linf", "L2", "L1"}
        The norm of the attacker's ball.
    eps : float
        Its radius, in the unit of the images (0 to 1).
    training_eps : tuple of float
        Radius that each network is trained on, one a network; 0 is plain training.
    epochs : int
        Passes over the training images for each network.
    images : int
        Held-out images that are attacked, at most 539.
    steps, restarts : int
        Steps and restarts of the standard attacks in the evaluation.
    patch : PatchSettings, optional
        Of the second game; by default those for Fashion-MNIST where it is installed, else for the
        digits.
    """

    norm: str = "Linf"
    eps: float = 0.2
    training_eps: tuple[float, ...] = (0.0, 0.2, 0.2)
    epochs: int = 20
    images: int = 539
    steps: int = 20
    restarts: int = 1
    patch: PatchSettings | None = None

    @property
    def names(self) -> list[str]:
        """The names of the networks: number and training."""
        return [
            f"net {k + 1}: {f'PGD {eps:g}' if eps else 'plain'}"
            for k, eps in enumerate(self.training_eps)
        ]


def train(data: Split, settings: DemoSettings, seed: int, log: Console) -> list[nn.Module]:
    """Train the networks, the adversarial ones each in a mixture with those before it.

    Each has a seed of its own, derived from `seed`, and is reported to `log`. They are in eval mode
    afterwards.
    """
    networks: list[nn.Module] = []
    robust: list[nn.Module] = []
    count = len(settings.training_eps)
    with ProgressBar("Training", settings.epochs * count, enabled=not log.quiet) as bar:
        for k, (name, eps) in enumerate(zip(settings.names, settings.training_eps, strict=True)):
            own = count * seed + k
            model = digits_cnn(seed=own)
            fit(
                model,
                data,
                epochs=settings.epochs,
                attack=PGD(settings.norm, eps, steps=5, loss="margin") if eps else None,
                alongside=robust if eps else (),
                batch_size=128,
                learning_rate=5e-3,
                seed=own,
                on_epoch=lambda epoch, loss: bar.advance(),
            )
            networks.append(model.eval())
            if eps:
                robust.append(model)
            log.print(f"trained {name}")
    return networks


def attacks(settings: DemoSettings) -> Attack:
    """Return the attack on each network, mixture and ensemble, whose parts are run in turn."""
    return Standard(settings.norm, settings.eps, steps=settings.steps, restarts=settings.restarts)
