"""Ways into the solvers: each solves a drawn game and says what is to be judged.

A way yields solutions beside the regularisation and the least value of a linear function over the
weights that it allowed. Ways that are slow are drawn seldom.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import linprog

import mixsolve
from benchmarks.fuzz.draw import Drawn

TOL = 1e-6
_METHODS = {  # how often each is drawn
    False: {"auto": 10, "lp": 10, "interior-point": 6, "oracle": 1, "cvxpy": 0.3},
    True: {"auto": 10, "newton": 10, "apg": 1, "cvxpy": 0.3},
}
_ITERATIONS = {"oracle": 300, "apg": 300}  # an honest end is enough for the slow ones

Judged = tuple[Any, Any, Callable[[np.ndarray], Any]]


def options(rng: np.random.Generator, alpha: Any) -> dict[str, Any]:
    """A method that fits, and what else a caller may ask of `mixsolve.solve`."""
    drawn = _METHODS[bool(np.any(alpha))]
    shares = np.array(list(drawn.values())) / sum(drawn.values())
    method = str(rng.choice(list(drawn), p=shares))
    asked: dict[str, Any] = {"method": method, "max_iter": _ITERATIONS.get(method)}
    if rng.random() < 0.2:
        asked["presolve"] = False
    return asked


def by_solve(game: Drawn, rng: np.random.Generator) -> Iterator[Judged]:
    """`mixsolve.solve`, some of the time from weights of its own."""
    asked = options(rng, game.alpha)
    if rng.random() < 0.1:
        n_classifiers = np.shape(game.losses[0])[1]
        asked["warm_start"] = rng.dirichlet(np.full(n_classifiers, 0.5))
    solution = mixsolve.solve(game.losses, game.alpha, tol=TOL, **asked, **game.arguments)
    yield solution, game.alpha, np.min


def by_path(game: Drawn, rng: np.random.Generator) -> Iterator[Judged]:
    """`mixsolve.solve_path` through two regularisations."""
    del rng
    largest = float(np.max(game.alpha))
    alphas = [0.0, largest] if largest else [0.0]
    path = mixsolve.solve_path(game.losses, alphas, tol=TOL, **game.arguments)
    yield from ((solution, alpha, np.min) for solution, alpha in zip(path, alphas, strict=True))


def by_batch(game: Drawn, rng: np.random.Generator) -> Iterator[Judged]:
    """`mixsolve.solve_batch` of the game three times, as one tensor or a list."""
    if isinstance(game.losses, list):
        yield from by_solve(game, rng)
        return
    stacked = np.stack([game.losses] * 3)
    batch = mixsolve.solve_batch(
        list(stacked) if rng.random() < 0.2 else stacked,
        np.asarray(game.alpha)[None] if np.ndim(game.alpha) else game.alpha,
        tol=TOL,
        **game.arguments,
    )
    yield from ((solution, game.alpha, np.min) for solution in batch)


def by_constraints(game: Drawn, rng: np.random.Generator) -> Iterator[Judged]:
    """`mixsolve.solve` under upper bounds on weights and a linear inequality."""
    n_classifiers = np.shape(game.losses[0])[1]
    center = rng.dirichlet(np.ones(n_classifiers))
    normal = rng.normal(size=n_classifiers)
    A_ub = np.vstack([np.eye(n_classifiers), normal])
    b_ub = np.append(np.minimum(center + rng.uniform(0, 0.5), 1.0), normal @ center + 0.01)
    solution = mixsolve.solve(
        game.losses, game.alpha, A_ub=A_ub, b_ub=b_ub, tol=TOL, **game.arguments
    )
    assert (A_ub @ np.asarray(solution.weights) <= b_ub + 1e-9).all(), "a constraint is violated"
    yield solution, game.alpha, partial(_lowest, A_ub, b_ub)


def by_torch(game: Drawn, rng: np.random.Generator) -> Iterator[Judged]:
    """A PyTorch tensor through the host, or through the plugin's own engine."""
    import torch

    if isinstance(game.losses, list):
        yield from by_solve(game, rng)
        return
    losses: Any = torch.from_numpy(np.ascontiguousarray(game.losses).copy())
    if rng.random() < 0.5:
        from mixsolve_torch import TorchLosses

        losses = TorchLosses(losses, chunk=1 << 18)  # by PyTorch's operations
    solution = mixsolve.solve(losses, game.alpha, tol=TOL, **game.arguments)
    yield solution, game.alpha, np.min


def by_dask(game: Drawn, rng: np.random.Generator) -> Iterator[Judged]:
    """A Dask array of a few blocks."""
    import dask.array

    if isinstance(game.losses, list):
        yield from by_solve(game, rng)
        return
    block = int(rng.integers(1, len(game.losses) + 1))
    losses = dask.array.from_array(np.ascontiguousarray(game.losses), chunks=(block, -1, -1))
    yield mixsolve.solve(losses, game.alpha, tol=TOL, **game.arguments), game.alpha, np.min


WAYS: dict[str, tuple[Callable[[Drawn, np.random.Generator], Iterator[Judged]], float]] = {
    "solve": (by_solve, 20.0),
    "solve_path": (by_path, 2.0),
    "solve_batch": (by_batch, 3.0),
    "constraints": (by_constraints, 2.0),
    "torch": (by_torch, 1.0),
    "dask": (by_dask, 0.5),
}


def _lowest(A_ub: np.ndarray, b_ub: np.ndarray, played: np.ndarray) -> float:
    """Least <played, lam> over the weights that the constraints allow."""
    least = played.min()  # what all have in common is no matter of tolerances
    unit = (played - least).max() or 1.0
    found = linprog(
        ((played - least) / unit).astype(np.float64),
        A_ub=A_ub,
        b_ub=b_ub + 1e-12,
        A_eq=np.ones((1, played.size)),
        b_eq=[1.0],
        bounds=(0, None),
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return least + found.fun * unit if found.status == 0 else -np.inf
