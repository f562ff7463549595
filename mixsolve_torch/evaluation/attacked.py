"""The players of an evaluation under attack, and the pool of the candidates found for any of them.

On every candidate the 0/1 losses of the L classifiers and of the E ensembles are recorded in one
pass: values[i, j, :L] are the game's, values[i, j, L:] the ensembles'. Of several threats it is
known of every candidate in which of their sets it lies. On which images a player is attacked, and
what it has from the others, is told in `evaluation.sharing`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixsolve.base.errors import ConvergenceWarning
from mixsolve_torch.attacks.aimed import Aimed
from mixsolve_torch.candidates.build import CandidateLosses, build_losses
from mixsolve_torch.candidates.recorder import member_losses
from mixsolve_torch.core.ensemble import Ensemble, WithEnsembles
from mixsolve_torch.core.groups import Groups
from mixsolve_torch.core.losses import LOSSES
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.evaluation.players import Player
from mixsolve_torch.evaluation.sharing import rising, worst_known
from mixsolve_torch.evaluation.work import GAME, Work, groups
from mixsolve_torch.game.solve import GameSolution, solve_game
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.models.passes import counted
from mixsolve_torch.runs.resumable import part_or_anew

logger = logging.getLogger("mixsolve_torch.evaluation.evaluate")


class AttackedPlayers:
    """The players attacked so far on some images, and the candidates found for any of them.

    Parameters
    ----------
    mixture : Mixture
        The L classifiers, on the device of the attacks.
    data : pair of torch.Tensor
        Images and labels.
    work : Work
        How they are attacked.
    ensembles : sequence of Ensemble
        Those whose losses are recorded, too.
    first : int, default 0
        The number of the first player, which its draws and its file are named after.
    keep_inputs : bool, default False
        Keep the candidates themselves, to try them on ensembles that are not known yet.
    purpose : str, default ""
        What the images are for, in the log.
    """

    def __init__(
        self,
        mixture: Mixture,
        data: tuple[Tensor, Tensor],
        work: Work,
        ensembles: Sequence[Ensemble] = (),
        *,
        first: int = 0,
        keep_inputs: bool = False,
        purpose: str = "",
    ) -> None:
        self.players: list[Player] = []
        self._columns: list[np.ndarray] = []
        self._within: list[np.ndarray] = []
        self._inputs: list[Tensor] = []
        self._mixture = mixture
        self._everyone = WithEnsembles(mixture.models, ensembles).to(mixture.device)
        self._data = data
        self._work = work
        self._next = first
        self._keep_inputs = keep_inputs
        self._purpose = purpose

    @property
    def width(self) -> int:
        """Number of candidates."""
        return sum(part.shape[1] for part in self._columns)

    @property
    def next(self) -> int:
        """The number of the next player."""
        return self._next

    def values(self) -> np.ndarray:
        """Return the losses (N, m, L + E) on all candidates, the clean image first."""
        return np.concatenate(self._columns, axis=1)

    def within(self) -> np.ndarray:
        """Return a mask (N, m, T) of the threats whose sets the candidates lie in."""
        count = len(self._data[1])
        parts = [np.broadcast_to(part, (count, *part.shape[1:])) for part in self._within]
        return np.concatenate(parts, axis=1)

    def add(self, player: Player) -> Player:
        """Attack a player, keep the losses of all, and return it with its columns."""
        target = self._target(player)
        work = self._work
        places = tuple(groups(work.suite, work.threats, len(target)).values())
        own = work.places(len(target))
        rows = self._resisting(player)
        number = self._next
        self._next += 1
        found = self._attack(player, target, rows, number) if len(rows) else None
        if found is not None:
            work.passes[len(self.players)] += found.passes
        if found is not None and len(rows) == len(self._data[1]):
            losses, inputs = as_array(found.values), found.inputs
            if not self._columns:
                self._columns.append(losses[:, :1])
                self._within.append(np.ones((1, 1, len(work.threats)), dtype=bool))
                if inputs is not None:
                    self._inputs.append(inputs[:, :1])
            columns, points = losses[:, 1:], None if inputs is None else inputs[:, 1:]
        else:
            columns, points = self._worst_known(player, own)
            if found is not None:
                columns[rows] = as_array(found.values)[:, 1:]
                if points is not None and found.inputs is not None:
                    points[torch.from_numpy(rows).to(points.device)] = found.inputs[:, 1:]
        if points is not None:
            self._inputs.append(points)
        self._within.append(
            np.array([[[place == t for t in range(len(work.threats))] for place in own]])
        )
        first = self.width
        self._columns.append(columns)
        placed = replace(player, columns=slice(first, self.width), groups=places)
        self.players.append(placed)
        logger.info("attacked %s%s", player.name, self._purpose)
        return placed

    def solve(self, rounds: int, tol: float, groups: Groups | None = None) -> GameSolution:
        """Find the optimal mixture; the game begins with the candidates found for all players.

        The uniform mixture, with which it begins, is among them: it is not attacked again. With
        groups it is the optimal one for the worst group, and only images of groups that can be the
        worst are attacked.
        """
        x, y = self._data
        known = torch.from_numpy(self.values()[..., : len(self._mixture)])
        known = known.to(self._mixture.device)
        names = tuple(f"candidate {j}" for j in range(self.width))
        inputs = torch.cat(self._inputs, dim=1) if self._keep_inputs else None
        folder, draws = self._work.parts.file("game"), self._work.draws(GAME)

        def solve(_: bool) -> GameSolution:
            return solve_game(
                Mixture(self._mixture.models).to(self._mixture.device),
                (x, y),
                self._work.game,
                tol=tol,
                max_rounds=rounds,
                batch_size=self._work.batch_size,
                generator=draws,
                start=CandidateLosses(known, y, names, "zero-one", inputs),
                start_attacked=True,
                ceiling=known.amax(dim=1) if self._work.thorough else None,
                groups=None if groups is None else groups.index,
                out=folder,
                keep_inputs=self._keep_inputs,
                progress=self._work.progress,
            )

        with warnings.catch_warnings():
            # The report says whether the game converged.
            warnings.simplefilter("ignore", ConvergenceWarning)
            game = part_or_anew(solve, folder, draws)
        self._work.passes[len(self.players)] += game.passes
        logger.info("found the optimal mixture: %s", game.message)
        return game

    def with_ensembles(self, ensembles: Sequence[Ensemble], more: Tensor) -> AttackedPlayers:
        """Return these players with their candidates, and more of them, tried on ensembles."""
        wider = AttackedPlayers(self._mixture, self._data, self._work, ensembles, first=self._next)
        wider._columns = [wider._judge(points) for points in (*self._inputs, more)]
        wider._within = [*self._within, self._sets_of(more)]
        wider.players = list(self.players)
        return wider

    def _sets_of(self, inputs: Tensor) -> np.ndarray:
        """Return a mask (N, m, T) of the threats whose sets points (N, m, C, H, W) lie in."""
        threats, size = self._work.threats, self._work.batch_size
        if len(threats) == 1:
            return np.ones((1, inputs.shape[1], 1), dtype=bool)
        found = np.empty((*inputs.shape[:2], len(threats)), dtype=bool)
        for first in range(0, len(inputs), size):
            rows = slice(first, first + size)
            x = self._data[0][rows].to(inputs.device)
            for j in range(inputs.shape[1]):
                for t, threat in enumerate(threats):
                    found[rows, j, t] = threat.contains(inputs[rows, j], x).cpu().numpy()
        return found

    def _worst_known(
        self, player: Player, places: Sequence[int | None]
    ) -> tuple[np.ndarray, Tensor | None]:
        """Return for each new column the losses (N, columns, L + E) of the worst known candidate.

        The second result is the candidates themselves, if they are kept.
        """
        known = self.values()
        chosen = worst_known(player, known, self.within(), places)
        columns = known[np.arange(len(known))[:, None], chosen]
        if not self._keep_inputs:
            return columns, None
        inputs = torch.cat(self._inputs, dim=1)
        at = torch.from_numpy(chosen).to(inputs.device)
        return columns, inputs[torch.arange(len(at), device=inputs.device)[:, None], at]

    def _target(self, player: Player) -> Mixture:
        target = (
            Mixture(self._mixture.models, player.weights)
            if player.ensemble is None
            else Mixture([player.ensemble])
        )
        return target.to(self._mixture.device)

    def _resisting(self, player: Player) -> np.ndarray:
        """Return the images on which a player is attacked."""
        if not self._columns or not self._work.spare:
            return np.arange(len(self._data[1]))
        # Only attacks on a classifier alone tell that it cannot be fooled.
        alone = self._work.thorough and len(self.players) >= len(self._mixture)
        return rising(player, self.values(), self.within(), alone=alone)

    def _attack(
        self, player: Player, target: Mixture, rows: np.ndarray, number: int
    ) -> CandidateLosses:
        """Return the losses (rows, 1 + candidates, L + E), the clean image first."""
        file, draws = self._work.parts.file(f"player-{number + 1}.npy"), self._work.draws(number)
        x, y = (part[torch.from_numpy(rows).to(part.device)] for part in self._data)

        def build(anew: bool) -> CandidateLosses:
            return build_losses(
                self._everyone,
                (x, y),
                Aimed(self._work.attack, target),
                batch_size=self._work.batch_size,
                generator=draws,
                out=file,
                overwrite=anew,
                keep_inputs=self._keep_inputs,
                progress=self._work.progress,
            )

        with _named(player):
            return part_or_anew(build, file, draws)

    @torch.no_grad()
    def _judge(self, inputs: Tensor) -> np.ndarray:
        """Return the losses (N, m, L + E) of all on candidates (N, m, C, H, W)."""
        home, y = self._mixture.device, self._data[1]
        losses = np.empty((*inputs.shape[:2], len(self._everyone)), np.uint8)
        with frozen(self._everyone), counted() as passes:
            for first in range(0, len(inputs), self._work.batch_size):
                rows = slice(first, first + self._work.batch_size)
                for j in range(inputs.shape[1]):
                    part = inputs[rows, j].to(home), y[rows].to(home)
                    found = member_losses(self._everyone, *part, LOSSES["zero-one"])
                    losses[rows, j] = found.cpu().numpy()
        self._work.passes[-1] += passes.total
        return losses


@contextmanager
def _named(player: Player) -> Iterator[None]:
    """Call an ensemble by its name in warnings: alone in its mixture it is ``models[0]``."""
    if player.ensemble is None:
        yield
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        text = str(warning.message).replace("models[0]", player.name)
        warnings.warn(text, warning.category, stacklevel=6)


def as_array(values: Any) -> np.ndarray:
    """Return losses as an array in host memory."""
    return values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
