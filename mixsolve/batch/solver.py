"""Thousands of small games at once: `solve_batch`.

A call of `mixsolve.solve` costs about a millisecond before any arithmetic. Here runs of games are
handed to compiled kernels that read, solve and certify each of them without returning to Python,
on all cores: constraint generation over an interior point for alpha = 0, damped Newton for
alpha > 0, as `solve` does. Games are independent, so the results depend neither on the number of
threads nor on the other games of the batch. A game that the kernels cannot bring within the
tolerance is given to `mixsolve.solve`.
"""

import logging
import time
import warnings
from typing import Any

import numpy as np

from mixsolve.base.arguments import as_count, as_real, check_flags
from mixsolve.base.compilation import preparations, seconds_of_work
from mixsolve.base.errors import ConvergenceWarning, MixsolveError
from mixsolve.base.threads import n_threads, run_chunks
from mixsolve.batch.games import GameBatch
from mixsolve.batch.solution import BatchSolution
from mixsolve.engines.bookkeeping import finite_spread
from mixsolve.kernels import batch_layout as layout
from mixsolve.methods.stopping import Status
from mixsolve.solver.solve import solve
from mixsolve.uncompiled.choice import spent

logger = logging.getLogger("mixsolve")

_DEFAULT_MAX_ITER = 200
_RUN_ENTRIES = 1 << 18  # losses of the games that a thread takes at a time
_LEAST_RUN_ENTRIES = 1 << 15  # the same where there are few games, so that no thread waits long
_RUNS_PER_THREAD = 8


def solve_batch(
    losses: Any,
    alpha: Any = 0.0,
    *,
    sample_weight: Any = None,
    candidate_mask: Any = None,
    candidate_prior: Any = None,
    tol: float = 1e-6,
    max_iter: int | None = None,
    keep_attack: bool = True,
    names: Any = None,
) -> BatchSolution:
    r"""Solve many games at once, each as `solve` does, with a certificate for each.

    Game b has N samples, m candidates a sample and the L classifiers; minimised is, for each,

    .. math::
        \sum_i w_{bi} \max_j \langle \lambda, l_{bij} \rangle  \quad (\alpha = 0), \qquad
        \sum_i w_{bi} \alpha_{bi} \log \sum_j p_{bij} e^{\langle \lambda, l_{bij} \rangle
        / \alpha_{bi}} \quad (\alpha > 0).

    Every argument has an axis of games in front, of length B or 1, or lacks it: then all games
    share it. ``losses`` of shape (N, m, L) with ``sample_weight`` of shape (B, N) are B games on
    the same losses, which are not copied.

    Parameters
    ----------
    losses : array_like of shape (B, N, m, L) or (N, m, L), or list of B arrays (N_b, m_b, L)
        Losses as `solve` takes them: any real or boolean type, of NumPy, PyTorch, JAX and so on.
        Tensors on another device are brought to the host, some games at a time. Games of a list
        may differ in samples and candidates.
    alpha : float or array_like of shape (B,) or (B, N), default 0
        Entropic regularisation: in each game 0 or positive for all samples.
    sample_weight : array_like of shape (N,) or (B, N), optional
        Non-negative; divided by its sum in each game. Uniform by default.
    candidate_mask : array_like of bool, shape (N, m) or (B, N, m), optional
        False where a candidate may not be played; its losses are not looked at.
    candidate_prior : array_like of shape (N, m) or (B, N, m), optional
        Base measure of the entropic games, positive; divided by its sum in each sample.
    tol : float, default 1e-6
        A game is solved when its certified gap is at most ``tol`` times its own spread
        ``max(losses[b]) - min(losses[b])``.
    max_iter : int, optional
        Iterations for each game. With it, no game is given to `solve`.
    keep_attack : bool, default True
        Keep the attacker's strategies, a number for each candidate of each game. The bounds are
        computed from them in either case.
    names : sequence of str, optional
        What the L classifiers are called; where `losses` names them, as there.

    Returns
    -------
    BatchSolution
        Weights of shape (B, L) in the array type and on the device of `losses`, and a value, a
        bound and a status for each game; ``solution[b]`` is the `Solution` of one of them.

    Raises
    ------
    MixsolveError
        An argument's value is wrong, in any game; the message says in which.
    MixsolveTypeError
        An argument's type is wrong.

    Warns
    -----
    ConvergenceWarning
        Some games ended with a gap above the tolerance; says how many, and which is the first. The
        other games are solved.

    Examples
    --------
    Two matrix games, matching pennies and one with a better second classifier:

    >>> import mixsolve
    >>> solution = mixsolve.solve_batch([[[[1.0, 0.0], [0.0, 1.0]]], [[[1.0, 0.0], [0.5, 0.25]]]])
    >>> solution.value.round(9)
    array([0.5 , 0.25])
    >>> solution.weights[0].round(6)
    array([0.5, 0.5])
    >>> solution.success.tolist()
    [True, True]
    """
    began = time.perf_counter()
    tol = as_real("tol", tol, above=0.0)
    check_flags(keep_attack=keep_attack)
    limit = None if max_iter is None else as_count("max_iter", max_iter)
    batch = GameBatch(losses, alpha, sample_weight, candidate_mask, candidate_prior)
    batch.losses.labels = batch.losses.labels.calling(names, batch.losses.n_classifiers)
    run = _BatchRun(batch, tol, limit, keep_attack)
    checked = time.perf_counter()
    in_numpy = limit is None and run.is_small()
    if not in_numpy:
        run.solve()
    solved = time.perf_counter()
    if in_numpy:
        run.refuse_non_finite()
    alone = [] if limit is not None else run.unsolved()
    for place in alone:
        run.solve_alone(place)
    ended = time.perf_counter()
    timings = {
        "check": seconds_of_work(began, checked),
        "solve": seconds_of_work(checked, solved),
        "one by one": seconds_of_work(solved, ended),
        **preparations((began, ended)),
        "total": ended - began,
    }
    solution = run.solution(0 if in_numpy else len(alone), timings)
    if not solution.success.all():
        failed = np.flatnonzero(~solution.success)
        first = int(failed[0])
        warnings.warn(
            f"solve_batch ended without reaching tol in {failed.size} of {len(solution)} games, "
            f"first in game {first}: {solution.status[first]} "
            f"(gap {solution.gap[first]:.3g}, tolerance {solution.tolerance[first]:.3g})",
            ConvergenceWarning,
            stacklevel=2,
        )
    return solution


class _BatchRun:
    """The arrays that the kernels fill, and the calls of the layout."""

    def __init__(
        self, batch: GameBatch, tol: float, max_iter: int | None, keep_attack: bool
    ) -> None:
        self._batch = batch
        self._tol = tol
        self._max_iter = max_iter
        n_games = batch.n_games
        rows = batch.losses.shapes(0, n_games).prod(axis=1)
        self._rows = np.concatenate([[0], np.cumsum(rows)])
        self._weights = np.zeros((n_games, batch.losses.n_classifiers))
        self._attacked = np.zeros_like(self._weights)
        self._figures = np.zeros((n_games, layout.N_FIGURES))
        self._nit = np.zeros(n_games, dtype=np.int64)
        self._state = np.zeros(n_games, dtype=np.int64)
        self._attack = np.empty(int(self._rows[-1])) if keep_attack else None
        self._status = np.empty(n_games, dtype=object)
        self._status.fill(Status.OPTIMAL)

    def is_small(self) -> bool:
        """Whether `mixsolve.solve` would solve all games in NumPy, without compiled kernels."""
        batch = self._batch
        if not batch.n_games:
            return False
        sizes = np.diff(self._rows) * batch.losses.n_classifiers
        kind = "exact" if not (batch.alphas(0, batch.n_games) > 0.0).any() else "entropic"
        return spent.has_room(kind, sizes)

    def refuse_non_finite(self) -> None:
        """Leave all games open; raise the error for the first with a loss that is not finite."""
        self._state[:] = layout.OPEN
        self._figures[:, layout.VALUE] = np.inf
        for game in range(self._batch.n_games):
            losses = self._batch.losses.game(game)
            allowed = self._batch.allowed(game, game + 1).view(np.bool_)
            played = np.ones(losses.shape[:2], dtype=bool)
            if allowed.size:
                played = allowed.reshape(played.shape)
            if not np.isfinite(losses[played]).all():
                self._state[game] = layout.NOT_FINITE
                break
            counted = losses[played & (self._batch.sample_weights(game, game + 1) > 0)[:, None]]
            with np.errstate(over="ignore"):
                if not np.isfinite(np.ptp(counted.astype(np.float64))):
                    self._state[game] = layout.OVERFLOW
                    break
        self._refuse_overflow()

    def solve(self) -> None:
        """Solve all games, in runs of as many as a thread takes at a time."""
        if not self._batch.n_games:
            return
        work = self._rows * self._batch.losses.n_classifiers
        total = int(work[-1])
        n_runs = max(
            total // _RUN_ENTRIES,
            min(total // _LEAST_RUN_ENTRIES, _RUNS_PER_THREAD * n_threads()),
        )
        n_runs = max(1, min(self._batch.n_games, n_runs))
        bounds = np.unique(np.searchsorted(work, np.linspace(0, work[-1], n_runs + 1)))
        run_chunks(lambda c: self._solve_some(int(bounds[c]), int(bounds[c + 1])), bounds.size - 1)
        self._refuse_overflow()

    def _solve_some(self, first: int, last: int) -> None:
        from mixsolve.kernels import batch_entropic as entropic
        from mixsolve.kernels import batch_exact as exact

        batch = self._batch
        shapes = batch.losses.shapes(first, last)
        rows, starts = batch.losses.rows(first, last)
        samples = np.concatenate([[0], np.cumsum(shapes[:, 0])])
        offsets = np.concatenate([[0], np.cumsum(np.repeat(shapes[:, 1], shapes[:, 0]))])
        attack = np.empty(0)
        if self._attack is not None:
            attack = self._attack[self._rows[first] : self._rows[last]]
        alpha, state = batch.alphas(first, last), self._state[first:last]
        state[:] = np.where(alpha[samples[:-1]] > 0, layout.ENTROPIC, layout.EXACT)
        game = (
            rows, starts, samples, offsets, batch.allowed(first, last), batch.priors(first, last),
            batch.sample_weights(first, last), alpha,
            self._tol, _DEFAULT_MAX_ITER if self._max_iter is None else self._max_iter,
            self._weights[first:last], self._figures[first:last], self._attacked[first:last],
            self._nit[first:last], state, attack,
        )  # fmt: skip
        if (state == layout.ENTROPIC).any():
            entropic.solve_entropic_games(*game)
        if (state < layout.SOLVED).any():
            exact.solve_exact_games(*game)
        if (state == layout.STARTED).any():
            entropic.solve_entropic_games(*game)

    def _refuse_overflow(self) -> None:
        """Raise the error for the first game with a loss, or a difference, that is not finite."""
        refused = np.flatnonzero(self._state >= layout.NOT_FINITE)
        if not refused.size:
            return
        game = int(refused[0])
        losses = self._batch.losses.game(game)
        allowed = self._batch.allowed(game, game + 1).view(np.bool_)
        played = (
            allowed.reshape(losses.shape[:2]) if allowed.size else np.ones(losses.shape[:2], bool)
        )
        if self._state[game] == layout.OVERFLOW:
            finite_spread(losses[played].min(), losses[played].max(), f"losses of game {game}")
        place = tuple(map(int, np.argwhere(~np.isfinite(losses) & played[:, :, None])[0]))
        raise MixsolveError(
            f"losses must be finite, got {losses[place]} first at index {(game, *place)} (game, "
            "sample, candidate, classifier); mend the loss there, or take the candidate away with "
            "candidate_mask"
        )

    def unsolved(self) -> list[int]:
        """Games that the kernel could not bring within the tolerance."""
        return np.flatnonzero(self._state == layout.OPEN).tolist()

    def solve_alone(self, place: int) -> None:
        """Solve one game by `mixsolve.solve`, and keep the better result."""
        logger.debug("game %d: the kernel's gap is too wide, solve takes over", place)
        batch = self._batch
        shape = batch.shape(place)
        table = (shape.n_samples, shape.n_candidates)
        alpha, here = batch.alphas(place, place + 1), (place, place + 1)
        mask, prior = batch.allowed(*here).view(np.bool_), batch.priors(*here)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # one for all games follows
            found = solve(
                batch.losses.game(place),
                alpha if alpha[0] > 0 else 0.0,
                sample_weight=batch.sample_weights(*here),
                candidate_mask=mask.reshape(table) if mask.size else None,
                candidate_prior=prior.reshape(table) if prior.size and alpha[0] > 0 else None,
                tol=self._tol,
            )
        figures = self._figures[place]
        if not found.success:
            self._status[place] = found.status
        if not found.success and not found.gap < self._gap()[place]:
            return
        self._state[place] = layout.SOLVED if found.success else layout.OPEN
        self._weights[place] = found.weights
        self._attacked[place] = found.attacked_losses
        self._nit[place] += found.nit
        figures[:] = (
            found.value, found.risk, found.lower_bound, found.risk_lower_bound,
            found.smoothing_bound, found.spread, found.tolerance,
            figures[layout.N_PASSES] + found.n_passes, 0.0,
        )  # fmt: skip
        if self._attack is not None:
            rows = slice(*self._rows[[place, place + 1]])
            self._attack[rows] = found.attack.dense().reshape(-1)

    def _gap(self) -> np.ndarray:
        above = self._figures[:, layout.VALUE] - self._figures[:, layout.LOWER_BOUND]
        return np.where(self._state == layout.SOLVED, np.maximum(above, 0.0), above)

    def solution(self, n_one_by_one: int, timings: dict[str, float]) -> BatchSolution:
        """The solutions of all games."""
        batch, figures = self._batch, self._figures
        for place in self.unsolved():
            if self._max_iter is not None:
                finite = np.isfinite(self._gap()[place])
                reached = finite and self._nit[place] >= self._max_iter
                self._status[place] = Status.MAX_ITER if reached else Status.FAILED
        shapes = batch.losses.shapes(0, batch.n_games)
        return BatchSolution(
            weights=batch.losses.restore(self._weights),
            value=figures[:, layout.VALUE].copy(),
            risk=figures[:, layout.RISK].copy(),
            lower_bound=figures[:, layout.LOWER_BOUND].copy(),
            gap=self._gap(),
            status=self._status,
            nit=self._nit,
            attack=self._attacks(shapes),
            attacked_losses=self._attacked,
            smoothing_bound=figures[:, layout.SMOOTHING].copy(),
            risk_lower_bound=figures[:, layout.RISK_LOWER_BOUND].copy(),
            spread=figures[:, layout.SPREAD].copy(),
            tolerance=figures[:, layout.TOLERANCE].copy(),
            n_passes=figures[:, layout.N_PASSES].copy(),
            alpha=batch.alpha_table(),
            sample_weight=batch.weight_table(),
            n_one_by_one=n_one_by_one,
            timings=timings,
            _shapes=shapes,
            names=batch.losses.labels.classifiers,
        )

    def _attacks(self, shapes: np.ndarray) -> np.ndarray | list[np.ndarray] | None:
        if self._attack is None:
            return None
        if self._batch.losses.even:
            n_samples, n_candidates = self._batch.losses.shapes(0, 1)[0]
            return self._attack.reshape(len(shapes), n_samples, n_candidates)
        parts = np.split(self._attack, self._rows[1:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
