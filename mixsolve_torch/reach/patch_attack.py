"""Patches that fool a mixture: many places and fills tried, the best climbed by gradient.

    max over places and values v of   sum_k lam_k 1[ f_k errs on x with v in the patch ]

Every point is judged by the exact expected error. The climb ascends sum_k lam_k min(m_k, 1) with
m_k the largest other logit less the label's: a member that is fooled already pulls no further.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mixsolve_torch.core.losses import errs
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.runs.progress import ProgressBar


def with_patch(x: Tensor, rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """Return images (B, C, H, W) with patches (B, C, p, p) at places (B,) of their own."""
    size = values.shape[-1]
    height, width = x.shape[-2:]
    inside_rows = _window(rows, size, height)
    inside_columns = _window(columns, size, width)
    inside = (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None].expand_as(x)
    return x.masked_scatter(inside, values)


def strongest_patches(
    mixture: Mixture,
    x: Tensor,
    y: Tensor,
    size: int,
    *,
    low: float = 0.0,
    high: float = 1.0,
    stride: int = 4,
    fills: int = 4,
    climbs: int = 4,
    steps: int = 20,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Return the expected error (N,) of each image under the worst patch found.

    Parameters
    ----------
    mixture : Mixture
        Attacked with its weights.
    x, y : torch.Tensor
        Images (N, C, H, W) and labels (N,).
    size : int
        Of the patch, in pixels.
    low, high : float
        Values that the attacker may write: 0 and 1 for pictures, any for what is certified.
    stride : int, default 4
        Every so many pixels a place is tried, in both directions; the borders always are.
    fills : int, default 4
        Random fills that are tried at each place, besides all low and all high.
    climbs : int, default 4
        Places of an image at which its best fill is climbed from.
    steps : int, default 20
        Of a climb.
    seed : int, default 0
        Of the fills.
    progress : bool, default False
        Show a progress bar if the work takes more than two seconds and stderr is a terminal.
    """
    generator = torch.Generator().manual_seed(seed)
    places = [_along(own, size, stride) for own in x.shape[-2:]]
    shape = (x.shape[1], size, size)
    tried = torch.stack(
        [
            torch.full(shape, low),
            torch.full(shape, high),
            *(
                low + (high - low) * (torch.rand(shape, generator=generator) > 0.5).float()
                for _ in range(fills)
            ),
        ]
    )
    grid = [(row, column) for row in places[0] for column in places[1]]
    climbs = min(climbs, len(grid))
    with ProgressBar("Attacking", len(grid) + climbs * steps, enabled=progress) as bar:
        worst, scores, best_fill = _tried(mixture, x, y, grid, tried.to(x), bar)
        order = scores.argsort(dim=1, descending=True)[:, :climbs]
        corners = torch.tensor(grid, device=x.device)
        for chosen in order.T:
            start = tried.to(x)[best_fill.gather(1, chosen[:, None])[:, 0]]
            place = corners[chosen].T
            found = _climb(mixture, x, y, place, start, (low, high), steps, bar)
            worst = worst.maximum(found)
    return worst


@torch.no_grad()
def _tried(
    mixture: Mixture,
    x: Tensor,
    y: Tensor,
    grid: list[tuple[int, int]],
    tried: Tensor,
    bar: ProgressBar,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the worst error (N,), the best score at each place (N, P) and the fill that had it."""
    with frozen(mixture):
        worst, _ = _judged(mixture, x, y)
        scores = torch.full((len(x), len(grid)), -torch.inf, device=x.device)
        best_fill = torch.zeros(len(x), len(grid), dtype=torch.long, device=x.device)
        for j, (row, column) in enumerate(grid):
            rows, columns = (torch.full((len(x),), at, device=x.device) for at in (row, column))
            for f, fill in enumerate(tried):
                points = with_patch(x, rows, columns, fill.expand(len(x), *fill.shape))
                error, score = _judged(mixture, points, y)
                worst = worst.maximum(error)
                better = error + 1e-3 * score > scores[:, j]
                scores[better, j] = (error + 1e-3 * score)[better].to(scores.dtype)
                best_fill[better, j] = f
            bar.advance()
    return worst, scores, best_fill


def _climb(
    mixture: Mixture,
    x: Tensor,
    y: Tensor,
    place: Tensor,
    start: Tensor,
    values_allowed: tuple[float, float],
    steps: int,
    bar: ProgressBar,
) -> Tensor:
    """Return the worst expected error (N,) on the way up from a fill."""
    (rows, columns), (low, high) = place, values_allowed
    worst = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    values = start.clone()
    with frozen(mixture):
        for step in range(steps):
            values.requires_grad_(True)
            error, score = _judged(mixture, with_patch(x, rows, columns, values), y)
            worst = worst.maximum(error)
            (slope,) = torch.autograd.grad(score.sum(), values)
            rate = 0.25 * (high - low) * (1 - step / steps)
            values = (values.detach() + rate * slope.sign()).clamp(low, high)
            bar.advance()
    return worst


def _judged(mixture: Mixture, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the expected error (N,) and what a climb ascends (N,)."""
    logits = mixture.member_logits(x)
    weights = mixture.weights
    own = logits.gather(2, y.expand(len(logits), -1)[..., None])[..., 0]
    other = logits.scatter(2, y.expand(len(logits), -1)[..., None], -torch.inf).amax(dim=2)
    gain = (other - own).clamp(max=1.0).double()
    return weights @ errs(logits, y).double(), weights @ gain


def _along(length: int, size: int, stride: int) -> list[int]:
    last = length - size
    return sorted({*range(0, last + 1, stride), last})


def _window(first: Tensor, size: int, length: int) -> Tensor:
    """Return (B, length): True from `first` on, `size` places long."""
    place = torch.arange(length, device=first.device)[None]
    return (place >= first[:, None]) & (place < first[:, None] + size)
