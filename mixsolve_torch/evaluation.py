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

import logging
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mixsolve
from mixsolve.arguments import as_count, as_real
from mixsolve.errors import ConvergenceWarning, MixsolveError
from mixsolve_torch.attacks.base import Attack, check_mixture, frozen
from mixsolve_torch.attacks.registry import resolve_attacks
from mixsolve_torch.attacks.standard import Standard
from mixsolve_torch.batching import Data, gather
from mixsolve_torch.candidates import CandidateLosses, build_losses
from mixsolve_torch.datasets import to_unit
from mixsolve_torch.evaluation_report import Evaluation, Player, Settings
from mixsolve_torch.game import GameSolution, solve_game
from mixsolve_torch.in_turn import InTurn
from mixsolve_torch.mixture import Mixture

logger = logging.getLogger(__name__)

_GAME = 9999  # the number of the game's draws, above those of all players


def evaluate(
    mixture: Mixture,
    data: Data,
    attacks: str | Attack | Sequence[str | Attack] = "standard",
    *,
    norm: str | None = None,
    eps: float | None = None,
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
    eps : float, optional
        Its radius in the unit of images in [0, 1]; names need it.
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
        An existing directory for the finished parts of the work: called again with the same
        arguments after an interruption, the evaluation goes on from them. The game for the optimal
        mixture is played again, as it was.
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
    x, y = _whole(data)
    classifiers = _names(names, len(mixture))
    suite = _resolve(attacks, norm, eps, steps, restarts, _classes(mixture, x))
    rounds, resamples = as_count("rounds", rounds), as_count("resamples", resamples)
    tol = as_real("tol", tol, at_least=0)
    level = as_real("level", level, above=0, below=1)
    seed = as_count("seed", seed, 0)
    if held_out and len(x) < 2:
        raise MixsolveError("held_out needs 2 images or more: some to fit on, some to report on")
    fitted = slice(0, None, 2) if held_out else slice(None)
    reported = slice(1, None, 2) if held_out else slice(None)
    arena = _Arena(mixture, (x, y), InTurn(suite, spare=spare), seed, out, batch_size, progress)
    for player in _given(mixture, classifiers):
        arena.meet(player)
    optimal: Player | None = None
    extra, value, settled = np.empty((len(x[fitted]), 0, len(mixture)), np.uint8), 0.0, True
    if len(mixture) > 1:
        game = arena.play(fitted, rounds, tol)
        optimal = Player("optimal mixture", "optimal", game.weights.cpu().numpy())
        extra = _array(game.losses.values)[:, arena.width :]
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
    )


class _Arena:
    """Where players meet the attacks; it keeps all candidates found for anybody."""

    def __init__(
        self,
        mixture: Mixture,
        data: tuple[Tensor, Tensor],
        attack: InTurn,
        seed: int,
        out: str | os.PathLike[str] | None,
        batch_size: int,
        progress: bool,
    ) -> None:
        self.players: list[Player] = []
        self._columns: list[np.ndarray] = []
        self._mixture = mixture
        self._data = data
        self._attack = attack
        self._seed = seed
        self._out = out
        self._batch_size = batch_size
        self._progress = progress

    @property
    def width(self) -> int:
        """Number of candidates."""
        return sum(part.shape[1] for part in self._columns)

    def values(self) -> np.ndarray:
        """Return the losses (N, m, L) on all candidates, the clean image first."""
        return np.concatenate(self._columns, axis=1)

    def meet(self, player: Player) -> Player:
        """Attack a player, keep the losses of all classifiers, and say which columns are its."""
        number = len(self.players)
        found = build_losses(
            Mixture(self._mixture.models, player.weights).to(self._mixture.device),
            self._data,
            self._attack,
            batch_size=self._batch_size,
            generator=self._draws(number),
            out=None if self._out is None else Path(self._out) / f"player-{number + 1}.npy",
            progress=self._progress,
        )
        losses = _array(found.values)
        if not self._columns:
            self._columns.append(losses[:, :1])
        first = self.width
        self._columns.append(losses[:, 1:])
        self.players.append(replace(player, columns=slice(first, self.width)))
        logger.info("attacked %s", player.name)
        return self.players[-1]

    def play(self, fitted: slice, rounds: int, tol: float) -> GameSolution:
        """Find the optimal mixture: begin with all that was found for the players so far."""
        x, y = (part[fitted] for part in self._data)
        known = torch.from_numpy(self.values()[fitted]).to(self._mixture.device)
        names = tuple(f"candidate {j}" for j in range(self.width))
        with warnings.catch_warnings():
            # The report says it.
            warnings.simplefilter("ignore", ConvergenceWarning)
            game = solve_game(
                Mixture(self._mixture.models).to(self._mixture.device),
                (x, y),
                self._attack,
                tol=tol,
                max_rounds=rounds,
                batch_size=self._batch_size,
                generator=self._draws(_GAME),
                start=CandidateLosses(known, y, names, "zero-one"),
                progress=self._progress,
            )
        logger.info("found the optimal mixture: %s", game.message)
        return game

    def _draws(self, number: int) -> torch.Generator:
        """Return draws of its own for each player, and for the game: nobody meets them twice."""
        return torch.Generator().manual_seed((_GAME + 1) * self._seed + number)


def _array(values: Any) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


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
    eps: float | None,
    steps: int | None,
    restarts: int | None,
    classes: int,
) -> list[Attack]:
    """Return the attacks one by one, all of one norm and radius, the parts of a suite apart."""
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
    return [
        part
        for attack in suite
        for part in (attack.parts(classes) if isinstance(attack, Standard) else [attack])
    ]


@torch.no_grad()
def _classes(mixture: Mixture, x: Tensor) -> int:
    with frozen(mixture):
        return mixture.member_logits(x[:1].to(mixture.device), [0]).shape[-1]


def _names(names: Sequence[str] | None, count: int) -> list[str]:
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
        data = [_floating(batch) for batch in data]
    return gather(data)


def _floating(batch: Any) -> Any:
    """Return a batch with its images in [0, 1]; what is no batch is left to be refused."""
    if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[0], Tensor):
        return to_unit(batch[0]), batch[1]
    return batch
