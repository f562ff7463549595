"""Where an evaluation keeps its finished parts: a folder of its own, named after what they are of.

    out/evaluation-3f2a91c07b44/
        player-1.npy ...    losses on what the attacks found for a player, see `build_losses`
        game/               the game for the optimal mixture, see `solve_game`

The digits are a digest of classifiers, images, attacks and settings: another evaluation in the same
directory goes beside it, neither in its way nor taken for it. What is damaged is made anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import mixsolve
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.game.folder import as_folder
from mixsolve_torch.runs.fingerprint import describe, digest
from mixsolve_torch.runs.lock import Lock

_DIGITS = 12


class EvaluationFolder:
    """The parts of one evaluation, in files or in memory alone.

    Parameters
    ----------
    out : path or None
        The directory; made if it is missing. None for memory.
    settings : dict
        All that the parts depend on.

    Attributes
    ----------
    path : path or None
        Where the parts are.

    Raises
    ------
    MixsolveError
        A directory that cannot be used, or an evaluation that another process is making there.
    """

    def __init__(self, out: str | os.PathLike[str] | None, settings: dict[str, Any]) -> None:
        self.path: Path | None = None
        self._lock: Lock | None = None
        if out is None:
            return
        told = describe({**settings, "version": mixsolve.__version__})
        key = digest(json.dumps(told, sort_keys=True))
        self.path = as_folder("out", out) / f"evaluation-{key[:_DIGITS]}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MixsolveError(f"out {out} cannot be used: {error.strerror or error}") from error
        self._lock = Lock(self.path / ".lock", f"the evaluation in {out}")
        self._lock.acquire()

    def file(self, name: str) -> Path | None:
        """Return where the losses of a player go."""
        return None if self.path is None else self.path / f"{name}.npy"

    def game(self) -> Path | None:
        """Return the folder of the game."""
        return None if self.path is None else self.path / "game"

    def kept(self) -> str:
        """Say what is kept, and how to go on."""
        if self.path is None:
            return "nothing is kept: give out= to go on after an interruption"
        return f"what was found so far is kept in {self.path}: repeat the call to go on"

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            self._lock.release()
