"""How robust classifiers are, alone and mixed, and how sure that is.

Every player is a random classifier: f_k alone, the uniform mixture, the mixture as it was given,
the optimal mixture. Each is attacked on its own weights. With J_i all candidates found for anybody
on image i, the clean image among them,

    accuracy of weights lam  =  1 - mean_i max_{j in J_i} sum_k lam_k 1[f_k errs on x_ij],

the expected 0/1 loss, exact. To count the candidates of all players for each can only lower its
accuracy, and spares none of them a weakness that was found elsewhere.

The optimal mixture is that of `solve_game`, which begins with the candidates found for the others
and ends when attacks on the mixture gain next to nothing. It is then attacked as the others are.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 5.
Dbouk, Shanbhag. Adversarial Vulnerability of Randomized Ensembles. ICML 2022.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mixsolve
from mixsolve.base.arguments import as_count, as_real, check_flags
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.base import Attack, check_mixture
from mixsolve_torch.attacks.in_turn import InTurn
from mixsolve_torch.attacks.registry import resolve_attacks
from mixsolve_torch.attacks.standard import Standard
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data.batching import Data, gather
from mixsolve_torch.data.datasets import to_unit
from mixsolve_torch.evaluation.arena import Arena, as_array
from mixsolve_torch.evaluation.folder import EvaluationFolder
from mixsolve_torch.evaluation.measured import Player, Settings
from mixsolve_torch.evaluation.report import Evaluation
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.runs.interrupt import explained


def evaluate(
    mixture: Mixture,
    data: Data,
    attacks: str | Attack | Sequence[str | Attack] = "standard",
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
    attacks : str, Attack or sequence of them, default "standard"
        Names as `resolve_attacks` knows them, or attacks of one's own. The parts of "standard" are
        reported one by one.
    norm : {"Linf", "L2"}, optional
        The norm of the attacker's ball; names need it.
    eps : float or str, optional
        Its radius in the unit of images in [0, 1], such as 8 / 255 or "8/255"; names need it.
    steps, restarts : int, optional
        Effort of the named attacks; their own defaults where left out.
    names : sequence of str of length L, optional
        How the classifiers are called; "classifier 1" and so on by default.
    held_out : bool, default False
        Fit the weights, and choose the best single classifier, on every other image and report on
        the rest. By default both happen on all images, which flatters the gain.
    spare : bool, default True
        Attack in turn: an attack leaves out the images on which those before it (and the clean
        image) brought the player's expected accuracy to 0. The accuracy reported for an attack is
        then that after it and all before it. Otherwise each attack meets every image and is
        reported alone. The worst case is the same up to the attacks' random draws.
    rounds : int, default 30
        How often, at most, `solve_game` solves and attacks to find the optimal mixture.
    tol : float, default 0.002
        How much attacks may raise its risk in the end.
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
        same arguments after an interruption, the evaluation goes on from them; `names`, `rounds`,
        `resamples`, `level` and `progress` may be others. Evaluations of other classifiers, images
        or settings lie beside each other in it.
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
    suite = _parts(chosen, _classes(mixture, x))
    if held_out and len(x) < 2:
        raise MixsolveError("held_out needs 2 images or more: some to fit on, some to report on")
    fitted = slice(0, None, 2) if held_out else slice(None)
    reported = slice(1, None, 2) if held_out else slice(None)
    parts = EvaluationFolder(
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
        arena = Arena(mixture, (x, y), attack, seed, parts, batch_size, progress)
        for player in _given(mixture, classifiers):
            arena.meet(player)
        optimal: Player | None = None
        extra, value, settled = np.empty((len(x[fitted]), 0, len(mixture)), np.uint8), 0.0, True
        if len(mixture) > 1:
            game = arena.play(fitted, rounds, tol)
            optimal = Player("optimal mixture", "optimal", game.weights.cpu().numpy())
            extra = as_array(game.losses.values)[:, arena.width :]
            value, settled = game.value, game.converged
            optimal = arena.meet(optimal)
    seen = np.concatenate([arena.values()[fitted], extra], axis=1)
    singles = arena.players[: len(mixture)]
    best = min(singles, key=lambda player: _risk(seen, player.weights))
    solution = mixsolve.solve(seen)
    return Evaluation.of(
        arena.values()[reported] if held_out else seen,
        players=arena.players,
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


def _risk(values: np.ndarray, weights: np.ndarray) -> float:
    return float((values @ weights).max(axis=1).mean())


def _given(mixture: Mixture, names: Sequence[str]) -> list[Player]:
    """Return the players whose weights are known from the start."""
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
    """Return each attack's title and its place among a player's candidates."""
    groups: dict[str, slice] = {}
    first = 0
    for attack in suite:
        kind = getattr(attack, "kind", type(attack).__name__)
        title = attack.label(kind).removesuffix(f" {attack.norm} {attack.eps:g}")
        number, unique = 1, title
        while unique in groups:
            number += 1
            unique = f"{title} ({number})"
        last = first + len(attack.names(classifiers))
        groups[unique] = slice(first, last)
        first = last
    return groups


def _resolve(
    attacks: str | Attack | Sequence[str | Attack],
    norm: str | None,
    eps: float | str | None,
    steps: int | None,
    restarts: int | None,
) -> list[Attack]:
    """Return the attacks, all of one norm and radius."""
    suite = resolve_attacks(attacks, norm, eps, steps=steps, restarts=restarts)
    if not isinstance(attacks, str):
        told = {"norm": norm, "eps": eps, "steps": steps, "restarts": restarts}
        surplus = [name for name, value in told.items() if value is not None]
        if surplus and suite == ([attacks] if isinstance(attacks, Attack) else list(attacks)):
            raise MixsolveError(
                f"{', '.join(surplus)} must be left out where attacks are objects, which have "
                "their own"
            )
    if len({(attack.norm, attack.eps) for attack in suite}) > 1:
        threats = ", ".join(sorted({f"{attack.norm} {attack.eps:g}" for attack in suite}))
        raise MixsolveError(
            f"attacks must share one norm and radius, which the accuracies are for; got {threats}"
        )
    return suite


def _parts(suite: Sequence[Attack], classes: int) -> list[Attack]:
    """Return the attacks one by one, the parts of a suite apart."""
    return [
        part
        for attack in suite
        for part in (attack.parts(classes) if isinstance(attack, Standard) else [attack])
    ]


@torch.no_grad()
def _classes(mixture: Mixture, x: Tensor) -> int:
    with frozen(mixture):
        return mixture.member_logits(x[:1].to(mixture.device), [0]).shape[-1]


def check_names(names: Sequence[str] | None, count: int) -> list[str]:
    """Return one name a classifier, refusing others than so many different ones."""
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
        data = (_floating(batch) for batch in data)  # one at a time: its memory may be reused
    return gather(data)


def _floating(batch: Any) -> Any:
    """Return a batch with its images in [0, 1]; what is no batch is left to be refused."""
    if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[0], Tensor):
        return to_unit(batch[0]), batch[1]
    return batch
