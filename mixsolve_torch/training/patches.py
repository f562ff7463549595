"""Training on patches: every batch gets patches that ascend its loss, anywhere in the image.

    min_theta  E  max over places and values v of   loss( f_theta(x with v in the patch), y )

Half of the images of a batch get their patch at a place drawn at random, the others where the
gradient at the clean image is largest. The values ascend the cross-entropy from a random fill.

Reference: Wu, Tong, Vorobeychik. Defending Against Physically Realizable Attacks on Image
Classification. ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from mixsolve_torch.core.descent import descend
from mixsolve_torch.data.arrays import batches
from mixsolve_torch.reach.patch_attack import with_patch

STEPS = 5  # of a fill
COST = (
    STEPS + 2
)  # passes over the images that an epoch costs: slopes at the images, steps, training


def fit_on_patches(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    size: int,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train a network in place on images (N, C, H, W) in [0, 1] with patches of size x size pixels.

    `seed` is of the order of the images, of places and of fills. The mean training loss of each
    epoch is returned.
    """
    x, y = data
    generator = torch.Generator().manual_seed(seed)

    def attacked() -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in batches(x, y, batch_size, generator):
            yield _filled(model, images, labels, size, generator), labels

    return descend(
        model,
        0,
        attacked,
        y,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=torch.optim.Adam(model.parameters(), lr=learning_rate),
        mend=f"lower the learning rate, which was {learning_rate:g}",
        on_epoch=on_epoch,
    )


def _filled(model: nn.Module, x: Tensor, y: Tensor, size: int, draws: torch.Generator) -> Tensor:
    """Return images with patches that ascend the cross-entropy from a random fill."""
    last_row, last_column = (length - size for length in x.shape[-2:])
    rows = torch.randint(last_row + 1, (len(x),), generator=draws)
    columns = torch.randint(last_column + 1, (len(x),), generator=draws)
    slopes = _slope(model, x, y, x.clone(), lambda values: values)
    under = functional.avg_pool2d(slopes.abs().sum(dim=1, keepdim=True), size, stride=1)
    steepest = under.flatten(1).argmax(dim=1).cpu()
    half = torch.rand(len(x), generator=draws) < 0.5
    rows = torch.where(half, steepest // (last_column + 1), rows).to(x.device)
    columns = torch.where(half, steepest % (last_column + 1), columns).to(x.device)
    values = torch.rand(len(x), x.shape[1], size, size, generator=draws).to(x)
    for step in range(STEPS):
        slope = _slope(model, x, y, values, lambda own: with_patch(x, rows, columns, own))
        values = (values + 0.4 * (1 - step / STEPS) * slope.sign()).clamp(0, 1)
    return with_patch(x, rows, columns, values)


def _slope(
    model: nn.Module, x: Tensor, y: Tensor, values: Tensor, placed: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the gradient of the summed cross-entropy with respect to some values alone."""
    values = values.detach().requires_grad_(True)
    loss = functional.cross_entropy(model(placed(values)), y, reduction="sum")
    return torch.autograd.grad(loss, values)[0]
