"""Random mixtures of linear classifiers in the box [0, 1], and the exact attack on them.

A set S of linear classifiers errs together at distance r of an image x if, for some choice of a
rival class c_k for each k in S, the convex program

    min r   s.t.  ||d|| <= r,   0 <= x + d <= 1,   <w_k,c_k - w_k,y, x + d> + b_k,c_k - b_k,y >= 0

has a value of at most r: a linear program in Linf and L1, a cone program in L2, solved by Clarabel.
The exact risk of an image is the largest weight of a set whose distance is at most eps.
"""

from __future__ import annotations

import itertools

import clarabel
import numpy as np
import torch
from scipy import sparse

from mixsolve_torch import Mixture
from mixsolve_torch.attacks.ball import make_ball

_ROUNDING = 1e-6  # of the solver, as a share of the radius
_SHAPES = ((1, 5), (2, 4), (4, 4), (5, 6), (8, 8))


def random_mixture(seed: int, images: int) -> tuple[Mixture, torch.Tensor, torch.Tensor]:
    """Return a mixture of 2 to 4 random linear classifiers, images and labels.

    Images are uniform in the box, in 5 to 64 entries. The label is the class that a common part of
    the classifiers prefers, so that most of them are right.
    """
    rng = np.random.default_rng(seed)
    members, classes = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    shape = _SHAPES[rng.integers(len(_SHAPES))]
    entries = shape[0] * shape[1]
    common = rng.standard_normal((classes, entries))
    models = []
    for _ in range(members):
        weight = common + rng.uniform(0.5, 1.5) * rng.standard_normal((classes, entries))
        layer = torch.nn.utils.skip_init(torch.nn.Linear, entries, classes, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(-weight.sum(axis=1) / 2))
        models.append(torch.nn.Sequential(torch.nn.Flatten(), layer))
    x = rng.random((images, 1, *shape))
    y = ((x.reshape(images, entries) - 0.5) @ common.T).argmax(axis=1)
    mixture = Mixture(models, rng.dirichlet(np.full(members, 4.0)))
    return mixture, torch.from_numpy(x), torch.from_numpy(y)


def rivals_of(mixture: Mixture, x: np.ndarray, y: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return, for each classifier, normals (C - 1, D) and gaps (C - 1,) of the rivals of y at x."""
    found = []
    for model in mixture.models:
        weight, bias = (own.detach().numpy() for own in (model[1].weight, model[1].bias))
        normals = np.delete(weight - weight[y], y, axis=0)
        found.append((normals, normals @ x + np.delete(bias - bias[y], y)))
    return found


def distance(norm: str, x: np.ndarray, normals: np.ndarray, gaps: np.ndarray) -> float:
    """Return how far the image (D,) is from where all gaps (S,) of normals (S, D) are at least 0.

    It is infinite if there is no such image in the box.
    """
    count, sets = len(x), len(gaps)
    identity = sparse.identity(count, format="csc")
    # The variables are the move d, bounds u of its entries in L1, and r. Rows A v + s = b, s in K.
    moves = [(identity, 1 - x), (-identity, x), (sparse.csc_matrix(-normals), gaps)]
    if norm == "L1":
        extra = count + 1
        sides = [sparse.hstack([sign * identity, -identity]) for sign in (1, -1)]
        total = np.concatenate([np.zeros(count), np.ones(count)])[None]
        bounds = [sparse.hstack([side, np.zeros((count, 1))]) for side in sides]
        bounds.append(np.hstack([total, [[-1.0]]]))
    else:
        extra = 1
        signs = (1, -1) if norm == "Linf" else ()
        bounds = [sparse.hstack([sign * identity, -np.ones((count, 1))]) for sign in signs]
    rows = [sparse.hstack([own, np.zeros((own.shape[0], extra))]) for own, _ in moves]
    rows += [sparse.csc_matrix(own) for own in bounds]
    below = sum(own.shape[0] for own in rows)
    right = [*(own for _, own in moves), np.zeros(below - 2 * count - sets)]
    cones = [clarabel.NonnegativeConeT(below)]
    if norm == "L2":
        corner = sparse.csc_matrix(([-1.0], ([0], [count])), shape=(1, count + 1))
        rows += [corner, sparse.hstack([-identity, np.zeros((count, 1))])]
        right.append(np.zeros(count + 1))
        cones.append(clarabel.SecondOrderConeT(count + 1))
    objective = np.zeros(count + extra)
    objective[-1] = 1.0
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    solved = clarabel.DefaultSolver(
        sparse.csc_matrix((count + extra, count + extra)),
        objective,
        sparse.vstack(rows, format="csc"),
        np.concatenate(right),
        cones,
        settings,
    ).solve()
    return float(solved.obj_val) if solved.status == clarabel.SolverStatus.Solved else np.inf


def exact_risk(mixture: Mixture, norm: str, eps: float, x: np.ndarray, y: int) -> float:
    """Return the largest weight of a set of classifiers that one point of the ball fools."""
    weights = np.asarray(mixture.weights)
    rivals = rivals_of(mixture, x, y)
    reach = eps * (1 + _ROUNDING)
    near = [
        [c for c in range(len(gaps)) if distance(norm, x, normals[[c]], gaps[[c]]) <= reach]
        for normals, gaps in rivals
    ]
    sets = [
        chosen
        for size in range(1, len(weights) + 1)
        for chosen in itertools.combinations(range(len(weights)), size)
    ]
    for chosen in sorted(sets, key=lambda own: -weights[list(own)].sum()):
        for classes in itertools.product(*(near[k] for k in chosen)):
            pairs = list(zip(chosen, classes, strict=True))
            normals = np.stack([rivals[k][0][c] for k, c in pairs])
            gaps = np.array([rivals[k][1][c] for k, c in pairs])
            if len(chosen) == 1 or distance(norm, x, normals, gaps) <= reach:
                return float(weights[list(chosen)].sum())
    return 0.0


def radius_of(mixture: Mixture, norm: str, x: torch.Tensor, y: torch.Tensor, share: float) -> float:
    """Return the radius within which a share of the single classifiers is fooled without walls."""
    found = []
    ball = make_ball(norm, 1)
    for image, label in zip(x.flatten(1).numpy(), y.tolist(), strict=True):
        for normals, gaps in rivals_of(mixture, image, label):
            slopes = ball.dual_lengths(torch.from_numpy(normals)[:, None, None])
            found.append(max(0.0, float((-gaps / slopes.numpy()).min())))
    return float(np.quantile(found, share))
