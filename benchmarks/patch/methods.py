"""The three ways to withstand a patch, on equal networks, with their costs counted in passes.

    views   networks that read disjoint parts, trained clean, mixed by the game (certified)
    vote    one network that reads a band, run on every band; the votes must lead by twice the bands
            that a patch meets (certified; Levine, Feizi, NeurIPS 2020)
    AT      one network trained on patches that a gradient fills (attacked; Wu et al., ICLR 2020)

A pass is one network run forward and backward on all training images.

References
----------
Levine, Feizi. (De)Randomized Smoothing for Certifiable Defense against Patch Attacks. NeurIPS 2020.
Wu, Tong, Vorobeychik. Defending Against Physically Realizable Attacks on Image Classification.
ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from mixsolve_torch import Mixture, Patch, choose_views, fit_views, mnist_cnn, views
from mixsolve_torch.core.descent import descend
from mixsolve_torch.data.arrays import batches
from mixsolve_torch.training import patches

WIDTH = 8  # channels of the first convolution
SIDE = 28
THRESHOLDS = (0.0, 0.2, 0.3, 0.4)  # of a vote; 0 for a vote for the largest logit
BAND_WIDTHS = (2, 4, 6)
BATCH = 64
_RATE = 3e-3

Pair = tuple[Tensor, Tensor]


def build(seed: int) -> nn.Module:
    """Return the network that all views and all adversarially trained networks are."""
    return mnist_cnn(seed=seed, width=WIDTH)


def fitted_views(
    size: int, data: Pair, validation: Pair, epochs: int, seed: int
) -> tuple[Mixture, list[str], int]:
    """Return the mixture of views that validation plays, their names, and the views trained."""
    layouts = views.families((1, SIDE, SIDE), size - 1, most=3)
    names = [f"{layout} ({k + 1})" for layout, masks in layouts.items() for k in range(len(masks))]
    pool = fit_views(
        build,
        data,
        torch.cat(list(layouts.values())),
        epochs=epochs,
        seed=1000 * seed,
        batch_size=BATCH,
        learning_rate=_RATE,
    )
    mixture, certificate = choose_views(pool, validation, Patch(size), held_out=False)
    played = [name for name, own in zip(names, certificate.weights, strict=True) if own > 0]
    return mixture, played, len(pool)


def patch_adversarial(size: int, data: Pair, passes: float, seed: int) -> tuple[nn.Module, float]:
    """Train one network on patches filled by gradient ascent, for about so many passes.

    Returns
    -------
    model : torch.nn.Module
        In eval mode.
    passes : float
        Those it took.
    """
    epochs = max(1, round(passes / patches.COST))
    model = build(1000 * seed)
    options = {"batch_size": BATCH, "learning_rate": _RATE, "seed": seed}
    patches.fit_on_patches(model, data, size, epochs=epochs, **options)
    return model.eval(), float(epochs * patches.COST)


class Banded(nn.Module):
    """A network of one band of an image: what is outside is 0 in x and in 1 - x."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = nn.Sequential(
                nn.Conv2d(2, WIDTH, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(WIDTH, 2 * WIDTH, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(2 * WIDTH * (SIDE // 4) ** 2, 100),
                nn.ReLU(),
                nn.Linear(100, 10),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of images (B, 2, H, W) that `banded` made."""
        return self.network(x)


def banded(x: Tensor, first: Tensor, width: int) -> Tensor:
    """Return (B, 2, H, W): x and 1 - x in columns `first` to `first + width`, around the border."""
    column = (torch.arange(SIDE)[None] - first[:, None]) % SIDE
    read = (column < width)[:, None, None, :]
    return torch.cat([x, 1 - x], dim=1) * read


def fitted_vote(width: int, data: Pair, epochs: int, seed: int) -> nn.Module:
    """Train the network of bands of a width, each image on a band drawn anew."""
    x, y = data
    generator = torch.Generator().manual_seed(seed)
    model = Banded(1000 * seed + width)

    def read() -> Iterator[Pair]:
        for images, labels in batches(x, y, BATCH, generator):
            first = torch.randint(SIDE, (len(images),), generator=generator)
            yield banded(images, first, width), labels

    _train(model, read, y, epochs)
    return model.eval()


@torch.no_grad()
def votes(model: nn.Module, x: Tensor, width: int) -> Tensor:
    """Return (thresholds, N, classes): how many of the bands vote for each class."""
    counts: list[Tensor] = []
    for part in x.split(500):
        own = []
        for first in range(SIDE):
            logits = model(banded(part, torch.full((len(part),), first), width))
            probabilities = logits.softmax(dim=1)
            top = functional.one_hot(logits.argmax(dim=1), logits.shape[1])
            own.append(
                torch.stack([probabilities > t if t else top.bool() for t in THRESHOLDS]).long()
            )
        counts.append(torch.stack(own).sum(dim=0))
    return torch.cat(counts, dim=1)


def certified_votes(counts: Tensor, y: Tensor, width: int, size: int) -> Tensor:
    """Return (..., N): whether the label leads by more than a patch can take.

    A patch meets the bands that start at size + width - 1 columns; each can take one vote from the
    label and give one to another class. Tied votes go to the class of the smaller number.
    """
    met = min(size + width - 1, SIDE)
    label = y.expand(counts.shape[:-1])[..., None]
    own = counts.gather(-1, label)[..., 0]
    before = torch.arange(counts.shape[-1]) < label
    others = (counts + before.long()).scatter(-1, label, -1)
    return own >= others.amax(dim=-1) + 2 * met


def alone(model: nn.Module) -> Mixture:
    """Return a mixture of one network, as attacks take it."""
    return Mixture([model])


def _train(
    model: nn.Module, read: Callable[[], Iterator[Pair]], labels: Tensor, epochs: int
) -> None:
    """Train a network on what `read` yields in each epoch."""
    descend(
        model,
        0,
        read,
        labels,
        epochs=epochs,
        batch_size=BATCH,
        optimizer=torch.optim.Adam(model.parameters(), lr=_RATE),
        mend=f"lower the learning rate, which was {_RATE:g}",
    )
