"""Games of linear classifiers in R^d as networks on images, for attacks to be measured against.

A point p becomes an image of shape (1, 1, d) by the same shift and scale for all,

    x = 1/2 + s (p - m),      m the middle of the points, s > 0,

where s is such that the balls around all images stay inside the box [0, 1]: attacks then play the
very game whose exact value `mixsolve.games.linear_game` gives. Classifier k becomes a network with
the logits (0, s f_k); class 1 is the label 1 and class 0 the label -1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mixsolve.base.arguments import as_length
from mixsolve.games import Game

# How far the balls stay away from the walls of the box, as a share of their room.
_MARGIN = 1e-6


class LinearImages(NamedTuple):
    """A game of linear classifiers as an attack sees it.

    Attributes
    ----------
    models : list of torch.nn.Module
        The classifiers, in float64.
    x : torch.Tensor of shape (n_samples, 1, 1, d), float64
        The samples as images in [0, 1].
    y : torch.Tensor of shape (n_samples,), int64
        Their classes, 0 and 1.
    eps : float
        The radius of the "L2" ball in the unit of the images.
    """

    models: list[nn.Module]
    x: Tensor
    y: Tensor
    eps: float


def linear_images(game: Game, eps: float | str) -> LinearImages:
    """Turn a game of linear classifiers into images and networks.

    Parameters
    ----------
    game : mixsolve.games.Game
        A game whose `details` have `points`, `labels`, `directions` and `intercepts`: one of
        `mixsolve.games.linear_game` or of `mixsolve.games.paper2d`.
    eps : float
        The radius of the ball in the unit of the points, >= 0.

    Examples
    --------
    >>> from mixsolve.games.linear_game import paper2d_exact
    >>> images = linear_images(paper2d_exact(50, 3, eps=1.0, seed=1), 1.0)
    >>> images.x.shape, len(images.models)
    (torch.Size([50, 1, 1, 2]), 3)
    """
    eps = as_length("eps", eps)
    points, labels = game.details["points"], game.details["labels"]
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    half = np.abs(points - middle).max() + eps
    scale = 0.5 / (half * (1 + _MARGIN)) if half > 0 else 1.0
    models: list[nn.Module] = []
    for w, b in zip(game.details["directions"], game.details["intercepts"], strict=True):
        layer = nn.utils.skip_init(nn.Linear, len(w), 2, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.as_tensor(np.stack([np.zeros_like(w), w])))
            layer.bias.copy_(torch.tensor([0.0, scale * (b + w @ middle) - w.sum() / 2]))
        models.append(nn.Sequential(nn.Flatten(), layer).eval())
    images = torch.as_tensor(0.5 + scale * (points - middle))
    return LinearImages(
        models, images[:, None, None, :], torch.as_tensor(labels > 0).long(), scale * eps
    )
