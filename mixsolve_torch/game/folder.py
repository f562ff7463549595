"""The folder of a game: what the attacks find is kept, so that no attack is repeated.

    game.json              settings, digest of the data, the weights of each round
    clean.npy              losses on the images
    start.npy              candidates that the game began with
    ceiling.npy            the most that each classifier can lose on each image, if it was given
    groups.npy             the place of each image's group, if the attacker chooses it
    round-1-run-1.npy ...  losses on what one run of the attacks found, see `build_losses`

A call that is repeated repeats its rounds: it solves again, and reads from the files what the
attacks found; the run of the attacks that was interrupted resumes at its batch. The weights of a
round are recorded before they are attacked, so that a solve that rounds differently does not waste
the attacks. Another game may begin with the candidates of one that was interrupted.
"""

from __future__ import annotations

import itertools
import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.candidates.build import CandidateLosses
from mixsolve_torch.candidates.disk_store import read_rows
from mixsolve_torch.candidates.row_file import load_values
from mixsolve_torch.core.groups import Groups, read_groups
from mixsolve_torch.game.restricted import RestrictedGame
from mixsolve_torch.runs import manifest
from mixsolve_torch.runs.durable import replaced
from mixsolve_torch.runs.manifest import UnfitError
from mixsolve_torch.runs.resumable import ResumableFolder, as_folder

logger = logging.getLogger(__name__)

_MANIFEST = "game.json"
_DATA = "data (images and labels)"


@dataclass
class GameManifest:
    """What is known of a game.

    Attributes
    ----------
    settings : dict
        What the candidates depend on besides the data, in values that JSON can hold.
    data : str
        Digest of the images and labels.
    start : list of str
        Names of the candidates in ``start.npy``; empty if the game began with the clean images.
    weights : list of list of float
        The weights of each round, those of the mixture as it was given first.
    seconds : list of float
        The duration of each finished round.
    """

    FORMAT: ClassVar[str] = "mixsolve game 1"

    settings: dict[str, Any]
    data: str
    start: list[str] = field(default_factory=list)
    weights: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class GameFolder(ResumableFolder):
    """The folder of a game, which an interrupted call finds again; or a game in memory alone.

    Parameters
    ----------
    out : path or None
        The folder; made if it is missing. None for memory.
    settings, data
        See `GameManifest`.
    """

    def __init__(
        self, out: str | os.PathLike[str] | None, settings: dict[str, Any], data: str
    ) -> None:
        self._game = GameManifest(settings, data)
        super().__init__("out", None if out is None else as_folder("out", out))
        try:
            if self.path is not None:
                with self.writing():
                    self._find(self.path)
            self._write()
        except BaseException:
            self.close()
            raise

    def _find(self, folder: Path) -> None:
        known = manifest.read(folder / _MANIFEST, GameManifest)
        if known is None:
            foreign = [
                path.name
                for path in sorted(folder.iterdir())
                if path.name not in (".lock", f"{_MANIFEST}.new")
            ]
            if foreign:
                raise UnfitError(
                    f"out {folder} holds {foreign[0]}, which is not of a game; give a new folder"
                )
        elif known.weights:  # otherwise nothing was attacked yet
            manifest.check_settings(
                f"out {folder}",
                {**known.settings, _DATA: known.data},
                {**self._game.settings, _DATA: self._game.data},
                "repeat that call to resume it, or give another folder; start= takes this one to "
                "begin with its candidates, if images, classifiers and loss are the same",
            )
            logger.info("resuming %s in round %d", folder, max(0, len(known.weights) - 1))
            self._game = known

    def start(self, clean: CandidateLosses) -> CandidateLosses | None:
        """Return the candidates that the interrupted call began with, if it got there."""
        if self.path is None or not self._game.start:
            return None
        return _begin(self.path, self._game, clean)

    def keep_start(
        self,
        start: CandidateLosses,
        ceiling: Tensor | None = None,
        groups: Groups | None = None,
    ) -> None:
        """Keep the candidates that the game begins with, whose origin may change.

        A ceiling and the groups, which say which images a run attacks, are kept beside them.
        """
        if self.path is None:
            return
        with self.writing():
            index = None if groups is None else torch.from_numpy(groups.index)
            kept = (
                *((start.values, "start"), (start.inputs, "start.inputs")),
                *((ceiling, "ceiling"), (index, "groups")),
            )
            for tensor, name in kept:
                if tensor is not None:
                    with replaced(self.path / f"{name}.npy") as file:
                        np.save(file, tensor.cpu().numpy())
        self._game.start = list(start.candidate_names)
        self._write()

    def weights(self, number: int, found: Tensor) -> Tensor:
        """Return the weights to attack in a round: the interrupted call's, if it got there."""
        weights = self._game.weights
        if number < len(weights):
            return torch.tensor(weights[number], dtype=torch.float64, device=found.device)
        weights.append(found.tolist())
        self._write()
        return found

    def seconds(self, number: int, seconds: float) -> float:
        """Return how long a round took when its attacks were made."""
        if number == len(self._game.seconds):
            self._game.seconds.append(seconds)
            self._write()
        return self._game.seconds[number]

    def _write(self) -> None:
        if self.path is not None:
            with self.writing():
                manifest.write(self._game, self.path / _MANIFEST)

    def kept(self) -> str:
        """Say what is kept, and how to resume."""
        if self.path is None:
            return super().kept()
        return (
            f"what the attacks found up to round {max(0, len(self._game.weights) - 1)} is kept in "
            f"{self.path}: repeat the call to go on, or give start={str(self.path)!r} to begin "
            "another game with it"
        )


def read_candidates(
    folder: Path, clean: CandidateLosses, data: str, classifiers: object
) -> CandidateLosses:
    """Return all candidates in the folder of a game, also of one that was interrupted.

    The game that begins with them has these clean losses, this digest of the images and labels, and
    this description of the classifiers: those of the folder must be the same.
    """
    known = manifest.read(folder / _MANIFEST, GameManifest)
    if known is None or not known.weights:
        raise MixsolveError(
            f"start {folder} holds no game; give a folder that was `out` of solve_game, or a "
            "CandidateLosses"
        )
    for name, was, now in (
        ("images and labels, in the same order", known.data, data),
        ("classifiers", known.settings["classifiers"], classifiers),
        ("loss", known.settings["loss"], clean.loss),
    ):
        if was != now:
            raise MixsolveError(f"start {folder} must be of a game of the same {name}")
    if not known.settings["keep_inputs"]:
        clean = replace(clean, inputs=None)
    ceiling, groups = (
        load_values(file) if file.exists() else None
        for file in (folder / "ceiling.npy", folder / "groups.npy")
    )
    restricted = RestrictedGame(
        _begin(folder, known, clean) if known.start else clean,
        ceiling,
        None if groups is None else read_groups(groups, groups),
    )
    for number, each in enumerate(known.weights):
        weights = torch.tensor(each, dtype=torch.float64)
        for run in itertools.count(1):
            found = read_rows(folder / run_name(number, run))
            if found is None:
                break
            values, inputs = found
            rows = restricted.vulnerable(weights)[: len(values)]
            fresh = replace(
                clean,
                values=values.to(clean.values.device),
                inputs=None if clean.inputs is None or inputs is None else inputs,
            )
            restricted.add(f"{folder.name}, round {number}, run {run}", fresh, weights, rows)
    return restricted.losses


def run_name(number: int, run: int) -> str:
    """Return the name of the file of one run of the attacks."""
    return f"round-{number}-run-{run}.npy"


def _begin(folder: Path, known: GameManifest, clean: CandidateLosses) -> CandidateLosses:
    inputs = None
    if clean.inputs is not None:
        inputs = load_values(folder / "start.inputs.npy").to(clean.inputs.device)
    return replace(
        clean,
        values=load_values(folder / "start.npy").to(clean.values.device),
        candidate_names=tuple(known.start),
        inputs=inputs,
    )
