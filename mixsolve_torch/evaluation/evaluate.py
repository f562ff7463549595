"""How robust classifiers are, alone and mixed, with intervals.

Every player is a random classifier: f_k alone, the uniform mixture, the mixture as it was given,
the optimal mixture. Each is attacked on its own weights. With J_i the pool of all candidates found
for any player on image i, the clean image among them,

    accuracy of weights lam  =  1 - mean_i max_{j in J_i} sum_k lam_k 1[f_k errs on x_ij],

the exact expected 0/1 loss. Candidates found for one player count for all of them, which can only
lower an accuracy.

The optimal mixture is that of `solve_game`, which begins with the candidates found for the others
and ends when attacks on it gain next to nothing. It is then attacked like the others.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 5.
Dbouk, Shanbhag. Adversarial Vulnerability of Randomized Ensembles. ICML 2022.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

import mixsolve
from mixsolve.base.arguments import as_count, as_real, check_flags
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.base import Attack, check_mixture
from mixsolve_torch.attacks.in_turn import InTurn
from mixsolve_torch.attacks.registry import Attacks, resolve_attacks
from mixsolve_torch.attacks.standard import Standard
from mixsolve_torch.candidates.build import unique_names
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data.batching import Data, gather
from mixsolve_torch.data.datasets import to_unit
from mixsolve_torch.evaluation.attacked import AttackedPlayers, as_array
from mixsolve_torch.evaluation.measured import Player, Settings
from mixsolve_torch.evaluation.report import Evaluation
from mixsolve_torch.runs.fingerprint import describe, short_digest
from mixsolve_torch.runs.interrupt import explained
from mixsolve_torch.runs.resumable import ResumableFolder, as_folder


def evaluate(
    mixture: Mixture,
    data: Data,
    attacks: Attacks = "standard",
    *,
    norm: str | None = None,
    eps: float | str | None = None,
    steps: int | None = None,
    restarts: int | None = None,
    names: Sequence[str] | None = None,
    held_out: bool = False,
    spare: bool = True,
    rounds: int = 30,
    tol: float = 0.002,
    resamples: int = 1000,
    level: float = 0.95,
    batch_size: int = 256,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measure each classifier, the uniform, the given and the optimal mixture under attack.

    Parameters
    ----------
    mixture : Mixture
        The classifiers, and weights to measure if they are neither uniform nor of one classifier.
    data : pair of torch.Tensor, or iterable of pairs
        Images (N, C, H, W), floating in [0, 1] or uint8, and labels (N,), or batches of them.
    attacks : str, Attack, callable, or iterable of them, default "standard"
        Names and files as `resolve_attacks` knows them, attacks of one's own, functions, or attack
        objects of other libraries. The parts of "standard" are reported one by one.
    norm, eps, steps, restarts
        Of the attacks given by name, see `solve_game`; `norm` and `eps` also of functions.
    names : sequence of str of length L, optional
        How the classifiers are called; "classifier 1" and so on by default.
    held_out : bool, default False
        Fit the weights, and choose the best single classifier, on every other image and report on
        the rest. By default both use all images, which flatters the gain.
    spare : bool, default True
        Attack in turn: an attack leaves out the images on which those before it (and the clean
        image) brought the player's expected accuracy to 0. The accuracy reported for an attack is
        then that after it and all before it. Otherwise each attack meets every image and is
        reported alone. The worst case is the same up to the attacks' random draws.
    rounds : int, default 30
        Rounds of `solve_game` at most, for the optimal mixture.
    tol : float, default 0.002
        How much the last attacks on it may raise its risk.
    resamples : int, default 1000
        Bootstrap resamples of the images.
    level : float, default 0.95
        Coverage that the intervals aim at.
    batch_size : int, default 256
        Images attacked at a time.
    seed : int, default 0
        Of all attacks and of the bootstrap. Global generators are neither read nor seeded.
    out : str or path, optional
        A directory for the finished parts of the work, made if it is missing. Called again with the
        same arguments after an interruption, the evaluation resumes from them; `names`, `rounds`,
        `resamples`, `level` and `progress` may change. Evaluations of other classifiers, images or
        settings have folders of their own in it.
    progress : bool, default False
        Show a progress bar if the work takes more than two seconds and stderr is a terminal.

    Returns
    -------
    Evaluation
        Accuracies with intervals, the game's certificate, a table, JSON, a plot and sentences.

    Raises
    ------
    MixsolveError
        Wrong data or arguments, or a suite without `norm` or `eps`.
    MixsolveTypeError
        Something that is not a mixture, an attack, or data of images and labels.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import PGD, Mixture
    >>> models = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)) for _ in range(2)]
    >>> data = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> report = evaluate(Mixture(models), data, PGD("Linf", 0.1, steps=3))
    >>> [player.name for player in report.players]
    ['classifier 1', 'classifier 2', 'uniform mixture', 'optimal mixture']
    """
    check_mixture(mixture)
    classifiers = check_names(names, len(mixture))
    chosen = _resolve(attacks, norm, eps, steps, restarts)
    check_flags(held_out=held_out, spare=spare, progress=progress)
    batch_size = as_count("batch_size", batch_size)
    rounds, resamples = as_count("rounds", rounds), as_count("resamples", resamples)
    tol = as_real("tol", tol, at_least=0)
    level = as_real("level", level, above=0, below=1)
    seed = as_count("seed", seed, 0)
    x, y = _whole(data)
    suite = [attack.bind(x) for attack in _parts(chosen)]
    if held_out and len(x) < 2:
        raise MixsolveError("held_out needs 2 images or more: some to fit on, some to report on")
    fitted = slice(0, None, 2) if held_out else slice(None)
    reported = slice(1, None, 2) if held_out else slice(None)
    parts = _folder(
        out,
        {
            "classifiers": mixture.models,
            "weights": mixture.weights,
            "images": x,
            "labels": y,
            "attacks": suite,
            "spare": spare,
            "held_out": held_out,
            "tol": tol,
            "batch_size": batch_size,
            "seed": seed,
        },
    )
    with closing(parts), explained(parts.kept):
        attack = InTurn(suite, spare=spare)
        attacked = AttackedPlayers(mixture, (x, y), attack, seed, parts, batch_size, progress)
        for player in _given(mixture, classifiers):
            attacked.add(player)
        optimal: Player | None = None
        extra, value, settled = np.empty((len(x[fitted]), 0, len(mixture)), np.uint8), 0.0, True
        if len(mixture) > 1:
            game = attacked.solve(fitted, rounds, tol)
            optimal = Player("optimal mixture", "optimal", game.weights.cpu().numpy())
            extra = as_array(game.losses.values)[:, attacked.width :]
            value, settled = game.value, game.converged
            optimal = attacked.add(optimal)
    seen = np.concatenate([attacked.values()[fitted], extra], axis=1)
    singles = attacked.players[: len(mixture)]
    best = min(singles, key=lambda player: _risk(seen, player.weights))
    solution = mixsolve.solve(seen)
    return Evaluation.of(
        attacked.values()[reported] if held_out else seen,
        players=attacked.players,
        groups=_groups(suite, len(mixture)),
        best=best,
        optimal=optimal or best,
        solution=solution,
        raised=_risk(seen, optimal.weights) - value if optimal else 0.0,
        settled=settled and solution.success,
        settings=Settings(
            norm=suite[0].norm,
            eps=suite[0].eps,
            in_turn=spare,
            tol=tol,
            held_out=held_out,
            resamples=resamples,
            level=level,
            seed=seed,
        ),
        parts=parts.path,
    )


def _folder(out: str | os.PathLike[str] | None, settings: dict[str, Any]) -> ResumableFolder:
    """Return where the finished parts go: a folder named after all that they depend on.

        out/evaluation-3f2a91c07b44/
            player-1.npy ...    losses on what the attacks found for a player, see `build_losses`
            game/               the game for the optimal mixture, see `solve_game`

    Evaluations of other things in the same directory have folders of their own.
    """
    if out is None:
        return ResumableFolder("out", None)
    key = short_digest(describe({**settings, "version": mixsolve.__version__}))
    path = as_folder("out", out) / f"evaluation-{key}"
    return ResumableFolder("out", path, f"the evaluation in {out}")


def _risk(values: np.ndarray, weights: np.ndarray) -> float:
    return float((values @ weights).max(axis=1).mean())


def _given(mixture: Mixture, names: Sequence[str]) -> list[Player]:
    """Return the players whose weights need no game."""
    count = len(mixture)
    rows = zip(names, np.eye(count), strict=True)
    players = [Player(name, "single", weights) for name, weights in rows]
    if count > 1:
        uniform = np.full(count, 1 / count)
        players.append(Player("uniform mixture", "uniform", uniform))
        own = mixture.weights.cpu().numpy()
        if own.max() < 1 and not np.allclose(own, uniform, rtol=0, atol=1e-9):
            players.append(Player("given mixture", "given", own))
    return players


def _groups(suite: Sequence[Attack], classifiers: int) -> dict[str, slice]:
    """Return the title of each attack, or part of a suite, and its place among the candidates."""
    parts: list[tuple[str, int]] = []
    for attack in suite:
        if isinstance(attack, Standard):
            parts += attack.parts(classifiers).items()
            continue
        title = attack.label(getattr(attack, "kind", type(attack).__name__))
        threat = f" {attack.norm} {attack.eps:g}"
        parts.append((title.removesuffix(threat), len(attack.names(classifiers))))
    titles = unique_names(title for title, _ in parts)
    ends = [0, *itertools.accumulate(count for _, count in parts)]
    return dict(zip(titles, itertools.starmap(slice, itertools.pairwise(ends)), strict=True))


def _resolve(
    attacks: Attacks,
    norm: str | None,
    eps: float | str | None,
    steps: int | None,
    restarts: int | None,
) -> list[Attack]:
    """Return the attacks, all of one norm and radius."""
    if isinstance(attacks, Iterable) and not isinstance(attacks, str):
        attacks = list(attacks)
    suite = resolve_attacks(attacks, norm, eps, steps=steps, restarts=restarts)
    given = {"norm": norm, "eps": eps, "steps": steps, "restarts": restarts}
    surplus = [name for name, value in given.items() if value is not None]
    listed = attacks if isinstance(attacks, list) else [attacks]
    if surplus and all(isinstance(attack, Attack) for attack in listed):
        raise MixsolveError(
            f"{', '.join(surplus)} must be left out where attacks are objects, which have their own"
        )
    if len({(attack.norm, attack.eps) for attack in suite}) > 1:
        threats = ", ".join(sorted({f"{attack.norm} {attack.eps:g}" for attack in suite}))
        raise MixsolveError(
            f"attacks must share one norm and radius, which the accuracies are for; got {threats}"
        )
    return suite


def _parts(suite: Sequence[Attack]) -> list[Attack]:
    """Return the attacks, a suite with the candidates of its parts."""
    return [
        replace(attack, keep_parts=True) if isinstance(attack, Standard) else attack
        for attack in suite
    ]


def check_names(names: Sequence[str] | None, count: int) -> list[str]:
    """Return one name a classifier; they must be different."""
    if names is None:
        return [f"classifier {k + 1}" for k in range(count)]
    if isinstance(names, str) or len(names) != count or len(set(names)) != count:
        raise MixsolveError(
            f"names must be {count} different names, one a classifier; got {names!r}"
        )
    return [str(name) for name in names]


def _whole(data: Data) -> tuple[Tensor, Tensor]:
    """Return all images, floating in [0, 1], and all labels."""
    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor):
        return gather((to_unit(data[0]), data[1]))
    if isinstance(data, Iterable) and not isinstance(data, Tensor):
        data = (_floating(batch) for batch in data)  # one at a time: a loader may reuse its memory
    return gather(data)


def _floating(batch: Any) -> Any:
    """Return a batch with its images in [0, 1]; `gather` refuses what is no batch."""
    if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[0], Tensor):
        return to_unit(batch[0]), batch[1]
    return batch
