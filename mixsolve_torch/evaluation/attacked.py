"""The players of an evaluation under attack, and the candidate pool of the optimal mixture."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixsolve.base.errors import ConvergenceWarning
from mixsolve_torch.attacks.in_turn import InTurn
from mixsolve_torch.candidates.build import CandidateLosses, build_losses
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.evaluation.measured import Player
from mixsolve_torch.game.solve import GameSolution, solve_game
from mixsolve_torch.runs.resumable import ResumableFolder, part_or_anew

logger = logging.getLogger("mixsolve_torch.evaluation.evaluate")

_GAME = 9999  # the number of the game's draws, above those of all players


class AttackedPlayers:
    """The players attacked so far, and the pool of the candidates found for any of them."""

    def __init__(
        self,
        mixture: Mixture,
        data: tuple[Tensor, Tensor],
        attack: InTurn,
        seed: int,
        parts: ResumableFolder,
        batch_size: int,
        progress: bool,
    ) -> None:
        self.players: list[Player] = []
        self._columns: list[np.ndarray] = []
        self._mixture = mixture
        self._data = data
        self._attack = attack
        self._seed = seed
        self._parts = parts
        self._batch_size = batch_size
        self._progress = progress

    @property
    def width(self) -> int:
        """Number of candidates."""
        return sum(part.shape[1] for part in self._columns)

    def values(self) -> np.ndarray:
        """Return the losses (N, m, L) on all candidates, the clean image first."""
        return np.concatenate(self._columns, axis=1)

    def add(self, player: Player) -> Player:
        """Attack a player, keep the losses of all classifiers, and return it with its columns."""
        number = len(self.players)
        file, draws = self._parts.file(f"player-{number + 1}.npy"), self._draws(number)

        def build(anew: bool) -> CandidateLosses:
            return build_losses(
                Mixture(self._mixture.models, player.weights).to(self._mixture.device),
                self._data,
                self._attack,
                batch_size=self._batch_size,
                generator=draws,
                out=file,
                overwrite=anew,
                progress=self._progress,
            )

        found = part_or_anew(build, file, draws)
        losses = as_array(found.values)
        if not self._columns:
            self._columns.append(losses[:, :1])
        first = self.width
        self._columns.append(losses[:, 1:])
        self.players.append(replace(player, columns=slice(first, self.width)))
        logger.info("attacked %s", player.name)
        return self.players[-1]

    def solve(self, fitted: slice, rounds: int, tol: float) -> GameSolution:
        """Find the optimal mixture; the game begins with the candidates found for all players."""
        x, y = (part[fitted] for part in self._data)
        known = torch.from_numpy(self.values()[fitted]).to(self._mixture.device)
        names = tuple(f"candidate {j}" for j in range(self.width))

        folder, draws = self._parts.file("game"), self._draws(_GAME)

        def solve(_: bool) -> GameSolution:
            return solve_game(
                Mixture(self._mixture.models).to(self._mixture.device),
                (x, y),
                self._attack,
                tol=tol,
                max_rounds=rounds,
                batch_size=self._batch_size,
                generator=draws,
                start=CandidateLosses(known, y, names, "zero-one"),
                out=folder,
                progress=self._progress,
            )

        with warnings.catch_warnings():
            # The report says whether the game converged.
            warnings.simplefilter("ignore", ConvergenceWarning)
            game = part_or_anew(solve, folder, draws)
        logger.info("found the optimal mixture: %s", game.message)
        return game

    def _draws(self, number: int) -> torch.Generator:
        """Return a generator of its own for each player and for the game."""
        return torch.Generator().manual_seed((_GAME + 1) * self._seed + number)


def as_array(values: Any) -> np.ndarray:
    """Return losses as an array in host memory."""
    return values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
