"""A patch reaches one of two views: the idea on one image, and what it certifies on the digits.

Networks of disjoint bands are trained on plain images. A patch meets one of them wherever it lies,
and the mixture draws the other with the probability that the game gives it. Beside it stands one
network of the whole image, under patches that are all black, all white or random, at every place.
"""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import mixsolve_torch as mt
from benchmarks.figures import style

_GAP = 2  # of the views in the sketch: patches of 3 x 3
_PLACE = (3, 0)  # of the patch in the sketch
_FILLS = 8


def measure(
    sizes: tuple[int, ...] = (1, 2, 3), epochs: int = 15, train: int = 900, seed: int = 0
) -> dict[str, Any]:
    """Train views for each size, choose by the game, certify; attack one network of all pixels."""
    torch.set_num_threads(1)
    data = mt.digits()
    few = data.train.images[:train], data.train.labels[:train]
    alone = mt.digits_cnn(seed=seed, width=8)
    mt.fit(alone, few, epochs=epochs, seed=seed)
    rows = []
    for size in sizes:
        layouts = mt.views.families((1, 8, 8), size - 1, most=2)
        pool = mt.fit_views(
            lambda k: mt.digits_cnn(seed=k, width=8),
            few,
            torch.cat(list(layouts.values())),
            epochs=epochs,
            seed=seed,
        )
        mixture, _ = mt.choose_views(pool, data.validation, mt.Patch(size), held_out=False)
        losses = mt.reach_losses(mixture, data.test, mt.Patch(size))
        own = losses.certify(mixture.weights.tolist())
        rows.append(
            {
                "size": size,
                "certified": own.certified.value,
                "low": own.certified.low,
                "high": own.certified.high,
                "clean": own.clean.value,
                "views": len(mixture),
                "one network, attacked": _attacked(alone.eval(), *data.test, size),
            }
        )
    image = data.test.images[int((data.test.labels == 3).nonzero()[0])]
    return {
        "image": image[0].numpy(),
        "views": mt.views.bands((8, 8), 2, gap=_GAP).numpy().astype(int),
        "rows": rows,
    }


@torch.no_grad()
def _attacked(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, size: int) -> float:
    """Return the accuracy under plain fills at every place: an upper bound of what is left."""
    generator = torch.Generator().manual_seed(0)
    fills = [torch.zeros(1, size, size), torch.ones(1, size, size)]
    fills += [(torch.rand(1, size, size, generator=generator) > 0.5).float() for _ in range(_FILLS)]
    right = model(x).argmax(dim=1) == y
    for row in range(8 - size + 1):
        for column in range(8 - size + 1):
            for fill in fills:
                attacked = x.clone()
                attacked[:, :, row : row + size, column : column + size] = fill
                right &= model(attacked).argmax(dim=1) == y
    return float(right.double().mean())


def draw(numbers: dict[str, Any]) -> Figure:
    """Draw the attacked image, what each view reads of it, and accuracy by the patch's size."""
    figure = style.figure(2.5)
    panels = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.55))
    image = np.array(numbers["image"], dtype=float)
    row, column = _PLACE
    image[row : row + _GAP + 1, column : column + _GAP + 1] = np.indices((3, 3)).sum(axis=0) % 2
    whole = np.ones_like(image, dtype=int)
    _image(panels[0], image, whole, "a patch, anywhere")
    _image(panels[1], image, np.array(numbers["views"][0]), "met: counts as lost")
    _image(panels[2], image, np.array(numbers["views"][1]), "not met: unharmed")
    _accuracy(panels[3], numbers["rows"])
    style.name_panels(panels, ("The attack", "View 1", "View 2", "Digits, 8 x 8"))
    return figure


def _image(axes: Axes, image: np.ndarray, read: np.ndarray, words: str) -> None:
    """Draw an image; what is hidden is hatched, and the patch has a frame where it is seen."""
    colours = matplotlib.colormaps["gray"]
    shown = colours(image)
    shown[read == 0] = matplotlib.colors.to_rgba("#DDDDDD")
    axes.imshow(shown, interpolation="nearest")
    hidden = np.argwhere(read == 0)
    for y, x in hidden:
        cell = Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="////", linewidth=0)
        cell.set_edgecolor(style.PALE)
        axes.add_patch(cell)
    row, column = _PLACE
    if read[row, column]:
        frame = Rectangle((column - 0.5, row - 0.5), _GAP + 1, _GAP + 1, fill=False)
        frame.set_edgecolor(style.RED)
        frame.set_linewidth(2.2)
        axes.add_patch(frame)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.set_xlabel(words)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _accuracy(axes: Axes, rows: list[dict[str, Any]]) -> None:
    sizes = np.array([row["size"] for row in rows])
    certified = 100 * np.array([[row[key] for row in rows] for key in ("certified", "low", "high")])
    axes.errorbar(
        sizes,
        certified[0],
        yerr=[certified[0] - certified[1], certified[2] - certified[0]],
        color=style.BLUE,
        marker="o",
        capsize=3,
        label="mixture, certified",
    )
    axes.plot(
        sizes,
        [100 * row["one network, attacked"] for row in rows],
        color=style.ORANGE,
        linestyle=style.DASHES[1],
        marker="s",
        label="one network, attacked",
    )
    axes.set_xticks(sizes, [f"{size} x {size}" for size in sizes])
    axes.set_xlabel("patch, pixels")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(0, 100)
    axes.legend(loc="upper right", frameon=True, framealpha=0.75, edgecolor="none")
