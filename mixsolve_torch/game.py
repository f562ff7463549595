"""The adversarial examples game with the attacker's moves made as they are needed.

    lam_t = argmin_lam  mean_i max_{j in J_i} sum_k lam_k loss(f_k(x_ij), y_i)       a solve
    J_i  <- J_i + { the strongest attack found on image i against lam_t }            an attack

J_i are the candidates found so far. The first line is the whole game with fewer moves for the
attacker, so that its value is not above the game's; the risk of lam_t under the attacks of the
second line is not below the value if the attacks are the best there are. It is the double oracle
method with a heuristic oracle on the attacker's side: what ends it is not a proof but independent
attacks that find next to nothing.

References
----------
McMahan, Gordon, Blum. Planning in the Presence of Cost Functions Controlled by an Adversary.
ICML 2003 (double oracle).
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 4.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mixsolve.arguments import as_count, as_real
from mixsolve.errors import ConvergenceWarning, MixsolveTypeError
from mixsolve.solution import Solution
from mixsolve_torch.attacks.base import Attack, check_mixture, default_generator
from mixsolve_torch.attacks.registry import resolve_attacks
from mixsolve_torch.batching import Data, gather
from mixsolve_torch.candidates import CandidateLosses, build_losses
from mixsolve_torch.game_board import Board, check_start
from mixsolve_torch.losses import LossFunction
from mixsolve_torch.mixture import Mixture

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GameRound:
    """One round of the game: weights, and what attacks made of them.

    Attributes
    ----------
    number : int
        Counted from 1; 0 is the mixture as it was given.
    weights : torch.Tensor of shape (L,), float64
        The weights that were attacked.
    value : float
        Their risk against the candidates before the attacks.
    risk : float
        Their risk against those and the ones that the attacks of the round found.
    attacks : int
        How often the attacks were run, each time with other draws.
    candidates : int
        Columns of the tensor after the round.
    seconds : float
        What the round took.
    """

    number: int
    weights: Tensor
    value: float
    risk: float
    attacks: int
    candidates: int
    seconds: float


@dataclass(frozen=True)
class GameSolution:
    """Weights, and how far apart what they promise and what attacks make of them are.

    Attributes
    ----------
    weights : torch.Tensor of shape (L,), float64
        Probability of each classifier: those that the last attacks could not hurt, or, if the game
        did not converge, those of the lowest `risk` among all that were attacked.
    value : float
        Lower end: the risk of the last solution's weights against the candidates it was found from.
        With alpha = 0 no weights do better, up to ``solution.gap``, whatever else is attacked; with
        alpha > 0 that holds for ``solution.risk_lower_bound``.
    risk : float
        Upper end, as far as the attacks can tell: the risk of `weights` against all candidates of
        all rounds, those of the last attacks on these weights among them.
    history : tuple of GameRound
        The rounds.
    losses : CandidateLosses
        The tensor of all candidates: those to begin with, then one column for each run of the
        attacks that hurt an image. Where it did not hurt image i, row i repeats the clean image.
    found : torch.Tensor of shape (N, m), bool
        Where a candidate is not such a repetition: the `candidate_mask` for alpha > 0.
    solution : Solution
        The last solve, with its certificate. Its weights are `weights` if the game converged.
    converged : bool
        Whether ``risk - value <= tol`` after the number of fresh runs asked for.
    message : str
        How the game ended, in words.
    """

    weights: Tensor
    value: float
    risk: float
    history: tuple[GameRound, ...] = field(repr=False)
    losses: CandidateLosses = field(repr=False)
    found: Tensor = field(repr=False)
    solution: Solution = field(repr=False)
    converged: bool
    message: str


def solve_game(
    mixture: Mixture,
    data: Data,
    attacks: str | Attack | Sequence[str | Attack] = "standard",
    alpha: Any = 0.0,
    *,
    norm: str | None = None,
    eps: float | None = None,
    steps: int | None = None,
    restarts: int | None = None,
    loss: str | LossFunction = "zero-one",
    tol: float = 2e-3,
    max_rounds: int = 30,
    confirmations: int = 2,
    batch_size: int = 256,
    generator: torch.Generator | None = None,
    start: CandidateLosses | None = None,
    keep_inputs: bool = False,
    device: str | torch.device | None = None,
    callback: Callable[[GameRound], object] | None = None,
    progress: bool = False,
) -> GameSolution:
    """Find weights that attacks made on them cannot hurt by more than a tolerance.

    Rounds of `mixsolve.solve` on the candidates found so far and attacks on the mixture it found
    follow each other. Each run of the attacks has other draws, and adds one column of candidates:
    for each image the strongest, where it raises the risk of that image; an image on which every
    classifier that is played errs already is left out. A round ends the game if
    `confirmations` runs together raise the risk by no more than `tol`. Later runs find less on
    average, since what was found before counts, so that one more can be trusted to stay within
    `tol`, too.

    Parameters
    ----------
    mixture : Mixture
        The classifiers, and the weights to begin with. It is left as it is.
    data : pair of torch.Tensor, or iterable of pairs
        Images (N, C, H, W) in [0, 1] and labels (N,), or batches of them. An iterable is read once,
        and its images stay in memory.
    attacks : str, Attack or sequence of them, default "standard"
        Attacks, or names as `resolve_attacks` knows them.
    alpha : float or array_like of shape (N,), default 0
        Entropic regularisation of the weights, as `mixsolve.solve` takes it. Value, risk and
        convergence are those of the exact risk, whatever alpha.
    norm : {"Linf", "L2"}, optional
        The norm of the attacker's ball; names need it.
    eps : float, optional
        Its radius; names need it.
    steps, restarts : int, optional
        Effort of the attacks that are given by name; their own defaults if left out.
    loss : {"zero-one", "cross-entropy", "margin"} or callable, default "zero-one"
        The loss of the game. Attacks choose their best points by the 0/1 loss.
    tol : float, default 2e-3
        How much attacks may raise the risk in the end, in the unit of the loss.
    max_rounds : int, default 30
        Rounds after the attack on the mixture as it was given.
    confirmations : int, default 2
        Runs of the attacks, each with other draws, in a round that ends the game.
    batch_size : int, default 256
        Images attacked at a time when `data` is a pair of tensors.
    generator : torch.Generator, optional
        Source of all random draws, by default a new one seeded with 0; each run takes one number.
    start : CandidateLosses, optional
        Candidates to begin with: those of the same images under the same classifiers, the clean
        image first. By default the clean images alone.
    keep_inputs : bool, default False
        Keep the candidates themselves in ``losses.inputs``, on the mixture's device: as many times
        the size of the images as there are columns. `start` must hold its own.
    device : str or torch.device, optional
        Where the tensor is kept and solved; by default the mixture's device.
    callback : callable, optional
        Called with each `GameRound`; a true answer stops the game.
    progress : bool, default False
        Show a progress bar for each run of the attacks that takes more than two seconds.

    Returns
    -------
    GameSolution
        Weights, lower and upper end of their risk, the rounds, the tensor and its solution.

    Raises
    ------
    MixsolveError
        Wrong data or arguments; see `build_losses`, `resolve_attacks` and `mixsolve.solve`.
    MixsolveTypeError
        Something that is not a mixture, an attack, a generator, or data of images and labels.

    Warns
    -----
    ConvergenceWarning
        The rounds were used up, or the callback stopped the game.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import Mixture, PGD
    >>> models = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)) for _ in range(2)]
    >>> data = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> game = solve_game(Mixture(models), data, PGD("L2", 0.1, steps=5))
    >>> game.converged, game.value <= game.risk <= game.value + 2e-3
    (True, True)
    """
    check_mixture(mixture)
    tol = as_real("tol", tol, at_least=0)
    max_rounds = as_count("max_rounds", max_rounds)
    confirmations = as_count("confirmations", confirmations)
    if callback is not None and not callable(callback):
        raise MixsolveTypeError(
            f"callback must be a function of a GameRound; got {type(callback).__name__}"
        )
    generator = default_generator(generator)
    chosen = resolve_attacks(attacks, norm, eps, steps=steps, restarts=restarts)
    x, y = gather(data)

    def attack(weights: Tensor, suite: Sequence[Attack], rows: Tensor) -> CandidateLosses:
        return build_losses(
            Mixture(mixture.models, weights).to(mixture.device),
            (x[rows.to(x.device)], y[rows.to(y.device)]),
            suite,
            loss,
            batch_size=batch_size,
            generator=generator,
            device=device,
            keep_inputs=keep_inputs,
            progress=progress,
        )

    clean = attack(mixture.weights, [], torch.arange(len(y)))
    board = Board(clean if start is None else check_start(start, clean))
    solution = board.solve(alpha, None)  # an alpha that cannot be is refused before the attacks
    history: list[GameRound] = []
    converged = stopped = False
    while not (converged or stopped) and len(history) <= max_rounds:
        began, number = time.perf_counter(), len(history)
        if number:
            solution = board.solve(alpha, solution)
        weights = solution.weights if number else mixture.weights.to(board.losses.values.device)
        value = risk = board.risk(weights)
        runs = 0
        while runs < (confirmations if number else 1) and risk - value <= tol:
            runs += 1
            rows = board.open(weights)
            if len(rows):
                fresh = attack(weights, chosen, rows)
                board.add(f"round {number}, run {runs}", fresh, weights, rows)
            risk = board.risk(weights)
        seconds = time.perf_counter() - began
        history.append(GameRound(number, weights, value, risk, runs, board.width, seconds))
        logger.info(
            "round %d: value %.5f, risk %.5f after %d attacks, %d candidates, %.1f s",
            *(number, value, risk, runs, board.width, seconds),
        )
        converged = number > 0 and risk - value <= tol
        stopped = callback is not None and bool(callback(history[-1]))
    return _ended(board, solution, history, converged, stopped, tol, confirmations)


def _ended(
    board: Board,
    solution: Solution,
    history: Sequence[GameRound],
    converged: bool,
    stopped: bool,
    tol: float,
    confirmations: int,
) -> GameSolution:
    last = history[-1]
    gain = f"the last attacks raised the risk by {last.risk - last.value:.3g}"
    if converged:
        weights = last.weights
        message = f"{gain}, within tol={tol:g}, in {last.attacks} runs of round {last.number}"
    else:
        weights = min((each.weights for each in history), key=board.risk)
        cause = "the callback stopped the game" if stopped else "the rounds were used up"
        message = (
            f"{cause} after round {last.number}: {gain}, and it takes {confirmations} runs within "
            f"tol={tol:g} to end the game; the weights of the lowest risk so far are returned; "
            "allow more with max_rounds, or a larger tol"
        )
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
    risk = board.risk(weights)
    return GameSolution(
        weights=weights,
        value=min(solution.risk, risk),
        risk=risk,
        history=tuple(history),
        losses=board.losses,
        found=board.found,
        solution=solution,
        converged=converged,
        message=message,
    )
