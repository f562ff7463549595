"""Where the players of an evaluation meet the attacks, and where the optimal mixture is found."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixsolve.base.errors import ConvergenceWarning
from mixsolve_torch.attacks.in_turn import InTurn
from mixsolve_torch.candidates.build import CandidateLosses, rebuild_losses
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.evaluation.folder import EvaluationFolder
from mixsolve_torch.evaluation.measured import Player
from mixsolve_torch.game.folder import solved_in
from mixsolve_torch.game.solve import GameSolution, solve_game

logger = logging.getLogger("mixsolve_torch.evaluation.evaluate")

_GAME = 9999  # the number of the game's draws, above those of all players


class Arena:
    """Where players meet the attacks; it keeps all candidates found for anybody."""

    def __init__(
        self,
        mixture: Mixture,
        data: tuple[Tensor, Tensor],
        attack: InTurn,
        seed: int,
        parts: EvaluationFolder,
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

    def meet(self, player: Player) -> Player:
        """Attack a player, keep the losses of all classifiers, and say which columns are its."""
        number = len(self.players)
        found = rebuild_losses(
            Mixture(self._mixture.models, player.weights).to(self._mixture.device),
            self._data,
            self._attack,
            batch_size=self._batch_size,
            generator=self._draws(number),
            out=self._parts.file(f"player-{number + 1}"),
            progress=self._progress,
        )
        losses = as_array(found.values)
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

        def solve(folder: Path | None) -> GameSolution:
            return solve_game(
                Mixture(self._mixture.models).to(self._mixture.device),
                (x, y),
                self._attack,
                tol=tol,
                max_rounds=rounds,
                batch_size=self._batch_size,
                generator=self._draws(_GAME),
                start=CandidateLosses(known, y, names, "zero-one"),
                out=folder,
                progress=self._progress,
            )

        with warnings.catch_warnings():
            # The report says it.
            warnings.simplefilter("ignore", ConvergenceWarning)
            game = solved_in(self._parts.game(), solve)
        logger.info("found the optimal mixture: %s", game.message)
        return game

    def _draws(self, number: int) -> torch.Generator:
        """Return draws of its own for each player, and for the game: nobody meets them twice."""
        return torch.Generator().manual_seed((_GAME + 1) * self._seed + number)


def as_array(values: Any) -> np.ndarray:
    """Return losses as an array in host memory."""
    return values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
