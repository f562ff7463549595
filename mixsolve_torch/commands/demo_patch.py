"""The demo's second game: the attacker writes what he likes into a patch, anywhere in the image.

Views of the image are trained on plain images, two upright bands and two lying ones; validation
images decide which are drawn, and how often. What their mixture holds is certified on test images.
Its rivals are one network of all pixels, trained plainly, and one that was trained on patches for
at least as many passes as the views. A search over patches says what they have left at most:

    gain  >=  mean_i ( c_i - r_i ),   c_i: certified, r_i: 0 if a patch was found that fools, else 1

The left side is the gain under the best attack on each; a stronger search can only raise the right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from mixsolve import plots
from mixsolve.plots import AccuracyBar
from mixsolve.reach.certificate import ReachCertificate
from mixsolve_torch.commands.demo_images import PatchSettings, images
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data.arrays import Split
from mixsolve_torch.evaluation.bootstrap import Estimate, bootstrap
from mixsolve_torch.models.architectures import digits_cnn, mnist_cnn
from mixsolve_torch.reach import views
from mixsolve_torch.reach.losses import reach_losses
from mixsolve_torch.reach.patch_attack import strongest_patches
from mixsolve_torch.reach.sets import Patch
from mixsolve_torch.runs.progress import ProgressBar
from mixsolve_torch.training.patches import COST, fit_on_patches
from mixsolve_torch.training.single import fit
from mixsolve_torch.training.views import choose_views, fit_views

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 8  # channels of the first convolution
_RATE = 3e-3
_RESAMPLES, _LEVEL = 1000, 0.95
_EFFORT = {"fills": 1, "climbs": 1, "steps": 10}  # of the search over patches


@dataclass(frozen=True)
class Rival:
    """One network of all pixels, on the attacked images.

    Attributes
    ----------
    name : str
        How it was trained.
    clean, attacked : Estimate
        Accuracy without a patch, and at most under the patches found.
    """

    name: str
    clean: Estimate
    attacked: Estimate


@dataclass(frozen=True)
class PatchGame:
    """A certified mixture of views beside networks of all pixels.

    Attributes
    ----------
    settings : PatchSettings
        What was trained and attacked.
    views : list of str
        The views that are played.
    certificate : ReachCertificate
        Of the mixture, on all test images.
    here : Estimate
        Certified accuracy on the attacked images alone.
    attacked : float
        Accuracy of the mixture on these under the same search over patches.
    rivals : list of Rival
        The networks of all pixels.
    gain : Estimate
        Certified accuracy of the mixture less the attacked one of the best rival, on the same
        images, with a paired interval: the true gain is at least as large.
    """

    settings: PatchSettings
    views: list[str]
    certificate: ReachCertificate
    here: Estimate
    attacked: float
    rivals: list[Rival]
    gain: Estimate

    @property
    def best(self) -> Rival:
        """The rival that the patches found leave the most."""
        return max(self.rivals, key=lambda rival: rival.attacked.value)

    def sentences(self) -> list[str]:
        """Return the outcome in words."""
        size, name = self.settings.size, self.settings.data
        own, gain = self.certificate, self.gain
        weights = zip(self.views, own.weights, strict=True)
        drawn = ", ".join(f"{view} {weight:.2f}" for view, weight in weights)
        low, high, value = (100 * end for end in (gain.low, gain.high, gain.value))
        interval = f"paired {100 * _LEVEL:g} % interval {low:.2f} to {high:.2f}"
        if gain.low > 0:
            verdict = f"Randomising pays: {value:.2f} points at least over the better of them"
        elif gain.high < 0:
            verdict = f"No gain is certified: {value:.2f} points to the better of them"
        else:
            verdict = f"These images do not decide: {value:.2f} points to the better of them"
        rivals = "; ".join(
            f"{rival.name}, {100 * rival.attacked.value:.2f} % of {100 * rival.clean.value:.2f} %"
            for rival in self.rivals
        )
        return [
            f"A patch of {size} x {size} pixels, anywhere, on {name}: a mixture of networks that "
            f"read a part each ({drawn}) is certified. In expectation "
            f"{100 * own.certified.value:.2f} % of {own.reported:,} test images are classified "
            f"rightly whatever is written into the patch ({100 * own.level:g} % interval "
            f"{100 * own.certified.low:.2f} to {100 * own.certified.high:.2f}), "
            f"{100 * own.clean.value:.2f} % without a patch. No attack was run for that.",
            f"One network of all pixels has no certificate. A search over patches leaves, on "
            f"{self.settings.attacked:,} of these images: {rivals}. The mixture is certified "
            f"{100 * self.here.value:.2f} % there, and the same search ends at "
            f"{100 * self.attacked:.2f} %.",
            f"{verdict} ({interval}). Stronger attacks can only lower theirs.",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain values."""
        return {
            "settings": asdict(self.settings),
            "views": self.views,
            "certificate": self.certificate.to_dict(),
            "here": asdict(self.here),
            "attacked": self.attacked,
            "rivals": [asdict(rival) for rival in self.rivals],
            "gain": asdict(self.gain),
            "sentences": self.sentences(),
        }

    def picture(self) -> Figure:
        """Draw accuracies without a patch and under the worst."""
        own = self.certificate
        bars = [
            AccuracyBar(
                f"{rival.name}, attacked",
                rival.attacked.value,
                (rival.attacked.low, rival.attacked.high),
                rival.clean.value,
            )
            for rival in self.rivals
        ]
        ends = own.certified.low, own.certified.high
        mixed = f"mixture of {len(self.views)} views, certified"
        bars.append(AccuracyBar(mixed, own.certified.value, ends, own.clean.value, kind="optimal"))
        size = self.settings.size
        title = f"Accuracy under a patch of {size} x {size} pixels ({self.settings.data})"
        return plots.accuracy_bars(bars, level=own.level, title=title)


def play(settings: PatchSettings, seed: int, log: Console) -> PatchGame:
    """Train views and rivals, choose by the game, certify and attack; progress goes to `log`."""
    few, validation, test = images(settings, seed)
    shown = not log.quiet
    build = digits_cnn if settings.data == "digits" else mnist_cnn
    shape = few.images.shape[1:]
    options: dict[str, Any] = {"batch_size": 64, "learning_rate": _RATE}
    own = 10 * seed  # below ten networks for each seed
    masks = {
        f"{words} half {k + 1}": mask
        for words, axis in (("upright", "width"), ("lying", "height"))
        for k, mask in enumerate(views.bands(shape, 2, settings.size - 1, axis))
    }
    pool = fit_views(
        _built(build),
        few,
        masks.values(),
        epochs=settings.epochs,
        seed=own,
        progress=shown,
        **options,
    )
    reach = Patch(settings.size)
    mixture, chosen = choose_views(pool, validation, reach, held_out=False)
    weights = mixture.weights.tolist()
    played = [name for name, weight in zip(masks, chosen.weights, strict=True) if weight > 0]
    log.print(f"trained {len(pool)} views on {settings.data}, of which {len(played)} are played")
    certificate = reach_losses(mixture, test, reach, progress=shown).certify(weights)
    attacked = Split(*(part[: settings.attacked] for part in test))
    losses = reach_losses(mixture, attacked, reach)
    certified = 1 - (losses.values @ np.array(weights)).max(axis=1)

    passes = settings.epochs * len(played)
    whole = _built(build)(own + 8)
    hardened = _built(build)(own + 9)
    epochs = -(-passes // COST)
    with ProgressBar("Training their rivals", passes + epochs * COST, enabled=shown) as bar:
        options["on_epoch"] = lambda epoch, loss: bar.advance()
        fit(whole, few, epochs=passes, seed=own + 8, **options)
        options["on_epoch"] = lambda epoch, loss: bar.advance(COST)
        fit_on_patches(hardened, few, settings.size, epochs=epochs, seed=own + 9, **options)
    networks = {"one network": whole.eval(), "one network, trained on patches": hardened.eval()}
    search: dict[str, Any] = {"size": settings.size, "seed": seed, "progress": shown, **_EFFORT}
    left = {
        name: 1 - strongest_patches(Mixture([network]), *attacked, **search).numpy()
        for name, network in networks.items()
    }
    found = 1 - strongest_patches(mixture, *attacked, **search).numpy()
    log.print("attacked one network, one that was trained on patches, and the mixture")
    return _game(settings, played, certificate, certified, found, networks, left, attacked, seed)


def _game(
    settings: PatchSettings,
    played: list[str],
    certificate: ReachCertificate,
    certified: np.ndarray,
    found: np.ndarray,
    networks: dict[str, nn.Module],
    left: dict[str, np.ndarray],
    data: Split,
    seed: int,
) -> PatchGame:
    """Measure the mixture and its rivals on the same images."""
    with torch.no_grad():
        clean = {
            name: (network(data.images).argmax(dim=1) == data.labels).double().numpy()
            for name, network in networks.items()
        }
    best = max(left.values(), key=lambda own: float(own.mean()))
    columns = np.stack([*clean.values(), *left.values(), certified - best, certified], axis=1)
    means = bootstrap(columns, resamples=_RESAMPLES, level=_LEVEL, seed=seed)
    rivals = [Rival(name, means[k], means[len(left) + k]) for k, name in enumerate(networks)]
    return PatchGame(
        settings=settings,
        views=played,
        certificate=certificate,
        here=means[-1],
        attacked=float(found.mean()),
        rivals=rivals,
        gain=means[-2],
    )


def _built(build: Callable[..., nn.Module]) -> Callable[[int], nn.Module]:
    return lambda seed: build(seed=seed, width=_WIDTH)
