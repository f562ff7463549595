"""The adversarial examples game, solved by the double oracle method.

    lam_t = argmin_lam  mean_i max_{j in J_i} sum_k lam_k loss(f_k(x_ij), y_i)       a solve
    J_i  <- J_i + { the strongest attack found on image i against lam_t }            an attack

J_i are the candidates found so far. The first line is a restricted game: the attacker has fewer
moves, so that its value is at most the game's. The risk of lam_t under the attacks of the second
line is at least the game's value if the attacks are optimal. They are not: the attacker's oracle is
heuristic, and the method ends without a proof, when independent attacks raise the risk by less than
a tolerance. With groups the mean over the images is that over the worst group.

References
----------
McMahan, Gordon, Blum. Planning in the Presence of Cost Functions Controlled by an Adversary.
ICML 2003 (double oracle).
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 4.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mixsolve.base.arguments import as_count, as_real, check_flags
from mixsolve.base.errors import ConvergenceWarning, MixsolveError, MixsolveTypeError
from mixsolve.solver.solution import Solution
from mixsolve.uncompiled.choice import compiled_alone
from mixsolve_torch.attacks.base import Attack, check_mixture, default_generator
from mixsolve_torch.attacks.registry import Attacks, resolve_attacks
from mixsolve_torch.attacks.threat_list import Threats
from mixsolve_torch.candidates.build import CandidateLosses, build_losses, check_device
from mixsolve_torch.core.groups import read_groups
from mixsolve_torch.core.losses import LossFunction, get_loss
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data.batching import Data, gather
from mixsolve_torch.game.folder import GameFolder, read_candidates, run_name
from mixsolve_torch.game.restricted import RestrictedGame, check_start
from mixsolve_torch.game.solution import GameRound, GameSolution
from mixsolve_torch.runs.fingerprint import describe, digest
from mixsolve_torch.runs.interrupt import explained
from mixsolve_torch.runs.resumable import as_folder, part_or_anew

logger = logging.getLogger(__name__)


@compiled_alone()
def solve_game(
    mixture: Mixture,
    data: Data,
    attacks: Attacks = "standard",
    alpha: Any = 0.0,
    *,
    norm: str | None = None,
    eps: float | str | None = None,
    threats: Threats | None = None,
    steps: int | None = None,
    restarts: int | None = None,
    loss: str | LossFunction = "zero-one",
    tol: float = 2e-3,
    max_rounds: int = 30,
    confirmations: int = 2,
    batch_size: int = 256,
    generator: torch.Generator | None = None,
    start: CandidateLosses | str | os.PathLike[str] | None = None,
    start_attacked: bool = False,
    ceiling: Any = None,
    groups: Any = None,
    out: str | os.PathLike[str] | None = None,
    keep_inputs: bool = False,
    device: str | torch.device | None = None,
    callback: Callable[[GameRound], object] | None = None,
    progress: bool = False,
) -> GameSolution:
    """Find weights whose risk attacks on them raise by no more than a tolerance.

    Each round solves the game of the candidates found so far (`mixsolve.solve`) and attacks the
    mixture of its weights. Each run of the attacks has other draws, and adds one column of
    candidates: for each image the strongest, where it raises the risk of that image. Images on
    which every classifier of positive weight errs already are left out. A round ends the game if
    `confirmations` runs together raise the risk by no more than `tol`. Later runs find less on
    average, since earlier candidates count, so that another run should stay within `tol`, too.

    With `out` the attacks' candidates go to files, batch by batch. A call that was interrupted
    resumes when it is repeated, and ends with the same result; one that had ended repeats no
    attack. Only `max_rounds`, `device`, `callback` and `progress` may change.

    Parameters
    ----------
    mixture : Mixture
        The classifiers, and the weights to begin with. It is left as it is.
    data : pair of torch.Tensor, LabelledImages, Dataset or iterable of batches
        Images (N, C, H, W) in [0, 1] and labels (N,), what `load_data` returns, a torch `Dataset`
        of (image, label) pairs, or batches. They are read once, and stay in memory.
    attacks : str, Attack, callable, or iterable of them, default "standard"
        Attacks, names and files as `resolve_attacks` knows them, functions of images and labels, or
        attack objects of other libraries, see `External`.
    alpha : float or array_like of shape (N,), default 0
        Entropic regularisation of the weights, as `mixsolve.solve` takes it. Value, risk and
        convergence are those of the exact risk, whatever alpha.
    norm : {"Linf", "L2", "L1"}, optional
        The norm of the attacker's ball; names, files and functions need it.
    eps : float or str, optional
        Its radius, such as 8 / 255 or "8/255"; they need it as well.
    threats : list, optional
        Sets instead of `norm` and `eps`, e.g. ``[("Linf", "8/255"), ("L2", 0.5), ("rotations",
        15)]``, see `resolve_attacks`: the game is that of their union.
    steps, restarts : int, optional
        Effort of the attacks that are given by name; their own defaults if left out.
    loss : {"zero-one", "cross-entropy", "margin"} or callable, default "zero-one"
        The loss of the game. Attacks choose their best points by the 0/1 loss.
    tol : float, default 2e-3
        How much the last attacks may raise the risk, in the unit of the loss.
    max_rounds : int, default 30
        Rounds after the attack on the mixture as it was given.
    confirmations : int, default 2
        Runs of the attacks, each with other draws, in a round that ends the game.
    batch_size : int, default 256
        Images attacked at a time when `data` is a pair of tensors.
    generator : torch.Generator, optional
        Source of all random draws, by default a new one seeded with 0; each run takes one number.
    start : CandidateLosses or path, optional
        Candidates to begin with: those of the same images under the same classifiers, the clean
        image first; or the folder that was `out` of another game of these, ended or interrupted.
        By default the clean images alone.
    start_attacked : bool, default False
        Whether the candidates of `start` hold attacks on the mixture's own weights, as strong as
        these: the first round does not attack these weights then.
    ceiling : array-like of shape (N, L), optional
        The most that each classifier can lose on each image, as far as a certificate proves it or
        attacks on it alone make it likely. An image's risk is at most the expectation of these over
        the weights: an image that has reached it is not attacked. Candidates that lose more raise
        it. By default 1 for the 0/1 loss, and no limit for others.
    groups : "class" or array-like of shape (N,), optional
        The attacker also chooses whom he strikes: "class" for the classes of the images, or a label
        for each image. Risk is then that of the worst group, here and in what is returned, and the
        images of groups that cannot become the worst are not attacked.
    out : str or path, optional
        A folder for what the attacks find, made if it is missing: the losses on the candidates of
        each run of the attacks, and with `keep_inputs` the images.
    keep_inputs : bool, default False
        Keep the candidates themselves in ``losses.inputs``, on the mixture's device: as many times
        the size of the images as there are columns. `start` must hold its own.
    device : str or torch.device, optional
        Where the tensor is kept and solved; by default the mixture's device.
    callback : callable, optional
        Called with each `GameRound`; a true return value stops the game.
    progress : bool, default False
        Show a progress bar for each run of the attacks that takes more than two seconds.

    Returns
    -------
    GameSolution
        Weights, lower and upper end of their risk, the rounds, the tensor and its solution.

    Raises
    ------
    MixsolveError
        Wrong data or arguments; see `build_losses`, `resolve_attacks` and `mixsolve.solve`. A
        folder `out` of another game, or that another process writes to.
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
    check_flags(start_attacked=start_attacked, keep_inputs=keep_inputs, progress=progress)
    tol = as_real("tol", tol, at_least=0)
    max_rounds = as_count("max_rounds", max_rounds)
    confirmations = as_count("confirmations", confirmations)
    if callback is not None and not callable(callback):
        raise MixsolveTypeError(
            f"callback must be a function of a GameRound; got {type(callback).__name__}"
        )
    generator = default_generator(generator)
    chosen = resolve_attacks(attacks, norm, eps, threats=threats, steps=steps, restarts=restarts)
    home, recorded = check_device(device, mixture), get_loss(loss)
    batch_size = as_count("batch_size", batch_size)
    x, y = gather(data)
    chosen = [attack.bind(x) for attack in chosen]
    images = digest(x, y)
    ceiling = _checked_ceiling(ceiling, (len(y), len(mixture)))
    chosen_groups = read_groups(groups, y)
    kept = as_folder("start", start) if isinstance(start, str | os.PathLike) else None
    settings = {
        "classifiers": describe(mixture.models),
        "weights": mixture.weights.tolist(),
        "attacks": describe(chosen),
        "loss": recorded.name,
        "loss function": describe(recorded.function),
        "alpha": describe(alpha),
        "tol": tol,
        "confirmations": confirmations,
        "batch_size": batch_size,
        "generator": describe(generator.get_state()),
        "start": describe(start.values) if isinstance(start, CandidateLosses) else str(kept),
        "keep_inputs": keep_inputs,
    }
    if start_attacked:
        settings["start_attacked"] = True
    if ceiling is not None:
        settings["ceiling"] = describe(ceiling)
    if chosen_groups is not None:
        settings["groups"] = describe(chosen_groups.index)
    folder = GameFolder(out, settings, images)

    passes = 0

    def attack(
        weights: Tensor, suite: Sequence[Attack], rows: Tensor, name: str
    ) -> CandidateLosses:
        nonlocal passes
        file = folder.file(name)

        def build(anew: bool) -> CandidateLosses:
            return build_losses(
                Mixture(mixture.models, weights).to(mixture.device),
                (x[rows.to(x.device)], y[rows.to(y.device)]),
                suite,
                loss,
                batch_size=batch_size,
                generator=generator,
                device=home if file is None else None,
                out=file,
                overwrite=anew,
                keep_inputs=keep_inputs,
                progress=progress,
            )

        found = part_or_anew(build, file, generator)
        passes += found.passes
        points = None if found.inputs is None else found.inputs.to(mixture.device)
        values, labels = found.values.to(home), found.labels.to(home)
        return replace(found, values=values, labels=labels, inputs=points)

    with closing(folder), explained(folder.kept):
        clean = attack(mixture.weights, [], torch.arange(len(y)), "clean.npy")
        begin = clean if start is None else folder.start(clean)
        if begin is None:
            if kept is not None:
                start = read_candidates(kept, clean, images, settings["classifiers"])
            begin = check_start(start, clean)
            folder.keep_start(begin, ceiling, chosen_groups)
        begin = replace(begin, names=mixture.names)
        restricted = RestrictedGame(begin, ceiling, chosen_groups)
        # Solved before the attacks, so that a wrong alpha is refused at once.
        solution = restricted.solve(alpha, None)
        weights = mixture.weights.to(restricted.losses.values.device)
        history: list[GameRound] = []
        played: list[Tensor] = []
        converged = stopped = False
        while not (converged or stopped) and len(history) <= max_rounds:
            began, number = time.perf_counter(), len(history)
            if number:
                solution = restricted.solve(alpha, weights if number > 1 else solution.weights)
                weights = solution.weights
            weights = folder.weights(number, weights)
            value = risk = restricted.risk(weights)
            runs, most = 0, confirmations if number else int(not start_attacked)
            while runs < most and risk - value <= tol:
                runs += 1
                rows = restricted.vulnerable(weights)
                if len(rows):
                    fresh = attack(weights, chosen, rows, run_name(number, runs))
                    restricted.add(f"round {number}, run {runs}", fresh, weights, rows)
                risk = restricted.risk(weights)
            seconds = folder.seconds(number, time.perf_counter() - began)
            played.append(weights)
            own = weights.clone()  # the callback may write into it
            history.append(GameRound(number, own, value, risk, runs, restricted.width, seconds))
            logger.info(
                "round %d: value %.5f, risk %.5f after %d attacks, %d candidates, %.1f s",
                *(number, value, risk, runs, restricted.width, seconds),
            )
            converged = number > 0 and risk - value <= tol
            stopped = callback is not None and bool(callback(history[-1]))
    ended = _ended(restricted, solution, history, played, converged, stopped, tol, confirmations)
    return replace(ended, passes=passes)


def _checked_ceiling(ceiling: Any, shape: tuple[int, int]) -> Tensor | None:
    """Return the most (N, L) that classifiers can lose, in float64; None if nothing is known."""
    if ceiling is None:
        return None
    try:
        most = torch.as_tensor(ceiling).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MixsolveTypeError(
            "ceiling must be numbers, one an image and classifier; "
            f"got {type(ceiling).__name__} that makes no tensor"
        ) from error
    if most.shape != shape or most.isnan().any():
        raise MixsolveError(
            f"ceiling must have shape {shape}, one number an image and classifier, without NaN; "
            f"got shape {tuple(most.shape)}{' with NaN' if most.isnan().any() else ''}"
        )
    return most


def _ended(
    restricted: RestrictedGame,
    solution: Solution,
    history: Sequence[GameRound],
    played: Sequence[Tensor],
    converged: bool,
    stopped: bool,
    tol: float,
    confirmations: int,
) -> GameSolution:
    last = history[-1]
    gain = f"the last attacks raised the risk by {last.risk - last.value:.3g}"
    if converged:
        weights = played[-1].clone()
        message = f"{gain}, within tol={tol:g}, in {last.attacks} runs of round {last.number}"
    else:
        weights = min(played, key=restricted.risk).clone()
        cause = "the callback stopped the game" if stopped else "the rounds were used up"
        message = (
            f"{cause} after round {last.number}: {gain}, and it takes {confirmations} runs within "
            f"tol={tol:g} to end the game; the weights of the lowest risk so far are returned; "
            "allow more with max_rounds, or a larger tol"
        )
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
    risk = restricted.risk(weights)
    return GameSolution(
        weights=weights,
        value=min(solution.risk, risk),
        risk=risk,
        history=tuple(history),
        losses=restricted.losses,
        found=restricted.found,
        solution=solution,
        converged=converged,
        message=message,
    )
