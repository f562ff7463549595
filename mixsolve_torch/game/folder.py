"""What a game has come to, in a folder: attacks that were made are not made again.

    game.json              settings, digest of the data, the weights of each round
    clean.npy              losses on the images
    start.npy              candidates that the game began with
    round-1-run-1.npy ...  losses on what one run of the attacks found, see `build_losses`

A game that is called again plays its rounds again: solves are repeated, attacks are read from their
files, and the one that was interrupted goes on at its batch. The weights of a round are noted
before they are attacked, so that rounding elsewhere does not make its attacks worthless. Other
games may begin with the candidates of one that was interrupted.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.base.files import written_aside
from mixsolve_torch.candidates.build import CandidateLosses
from mixsolve_torch.game.board import Board
from mixsolve_torch.game.solution import GameSolution
from mixsolve_torch.runs import candidate_notes
from mixsolve_torch.runs.candidate_file import load_values
from mixsolve_torch.runs.candidate_notes import UnfitError
from mixsolve_torch.runs.candidate_store import read_rows
from mixsolve_torch.runs.lock import Lock

logger = logging.getLogger(__name__)

_NOTES = "game.json"


@dataclass
class GameNotes:
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
        What the rounds that ended took.
    """

    FORMAT: ClassVar[str] = "mixsolve game 1"

    settings: dict[str, Any]
    data: str
    start: list[str] = field(default_factory=list)
    weights: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class NoFolder:
    """A game whose rounds are kept nowhere."""

    def file(self, name: str) -> Path | None:
        """Return where the losses of a run of the attacks go: to memory."""
        return None

    def start(self, clean: CandidateLosses) -> CandidateLosses | None:
        """Return the candidates that the interrupted call began with, if it got there."""
        return None

    def keep_start(self, start: CandidateLosses) -> None:
        """Keep the candidates that the game begins with."""

    def weights(self, number: int, found: Tensor) -> Tensor:
        """Return the weights to attack in a round, given those that a solve found."""
        return found

    def took(self, number: int, seconds: float) -> float:
        """Return what a round took."""
        return seconds

    def kept(self) -> str:
        """Say what is kept, and how to go on."""
        return "no candidates are kept: give out= to go on after an interruption"

    def close(self) -> None:
        """Let go of the folder."""


class GameFolder(NoFolder):
    """The folder of a game, which an interrupted call finds again.

    Parameters
    ----------
    out : path
        The folder; made if it is missing.
    settings : dict
        Everything that the candidates depend on but the data, in values that JSON can hold.
    data : str
        Digest of the data.

    Raises
    ------
    MixsolveError
        A folder of something else, or one that another run is writing to or nobody can.
    """

    def __init__(self, out: str | os.PathLike[str], settings: dict[str, Any], data: str) -> None:
        self._folder = as_folder("out", out)
        self._lock = Lock(self._folder / ".lock", f"out {self._folder}")
        self._notes = GameNotes(settings, data)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            self._notes = self._find(settings, data)
            self._note()
        except OSError as error:
            self.close()
            raise MixsolveError(f"out {out} cannot be used: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise

    def _find(self, settings: dict[str, Any], data: str) -> GameNotes:
        known = candidate_notes.read(self._folder / _NOTES, GameNotes)
        if known is None:
            foreign = [
                path.name
                for path in sorted(self._folder.iterdir())
                if path.name not in (".lock", f"{_NOTES}.new")
            ]
            if foreign:
                raise UnfitError(
                    f"out {self._folder} holds {foreign[0]}, which is not of a game; give a new "
                    "folder"
                )
            return GameNotes(settings, data)
        if not known.weights:
            return GameNotes(settings, data)  # whoever began it attacked nothing
        fault = candidate_notes.differences(known.settings, settings)
        if not fault and known.data != data:
            fault = "the images or labels differ"
        if fault:
            raise UnfitError(
                f"out {self._folder} holds another game: {fault}; repeat that call to go on with "
                "it, or give another folder; start= takes this one to begin with its candidates, "
                "if images, classifiers and loss are the same"
            )
        logger.info("going on with %s in round %d", self._folder, max(0, len(known.weights) - 1))
        return known

    def file(self, name: str) -> Path | None:
        """Return where the losses of a run of the attacks go."""
        return self._folder / f"{name}.npy"

    def start(self, clean: CandidateLosses) -> CandidateLosses | None:
        """Return the candidates that the interrupted call began with, if it got there."""
        return _begin(self._folder, self._notes, clean) if self._notes.start else None

    def keep_start(self, start: CandidateLosses) -> None:
        """Keep the candidates that the game begins with: where they come from may change."""
        with self._writing():
            for tensor, name in ((start.values, "start"), (start.inputs, "start.inputs")):
                if tensor is not None:
                    _write(self._folder / f"{name}.npy", tensor)
            self._notes.start = list(start.candidate_names)
            self._note()

    def weights(self, number: int, found: Tensor) -> Tensor:
        """Return the weights to attack in a round: the interrupted call's, if it got there."""
        weights = self._notes.weights
        if number < len(weights):
            return torch.tensor(weights[number], dtype=torch.float64, device=found.device)
        weights.append(found.tolist())
        with self._writing():
            self._note()
        return found

    def took(self, number: int, seconds: float) -> float:
        """Return what a round took when its attacks were made."""
        if number == len(self._notes.seconds):
            self._notes.seconds.append(seconds)
            with self._writing():
                self._note()
        return self._notes.seconds[number]

    def _note(self) -> None:
        candidate_notes.write(self._notes, self._folder / _NOTES)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MixsolveError(
                f"out {self._folder} could not be written to: {error.strerror or error}; "
                f"{self.kept()}"
            ) from error

    def kept(self) -> str:
        """Say what is kept, and how to go on."""
        return (
            f"what the attacks found up to round {max(0, len(self._notes.weights) - 1)} is kept in "
            f"{self._folder}: repeat the call to go on, or give start={str(self._folder)!r} to "
            "begin another game with it"
        )

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.release()


def read_candidates(
    folder: Path, clean: CandidateLosses, data: str, classifiers: object
) -> CandidateLosses:
    """Return all candidates in the folder of a game, also of one that was interrupted.

    Parameters
    ----------
    folder : path
        The folder.
    clean : CandidateLosses
        The images of the game that is to begin with them.
    data : str
        Digest of these images and labels.
    classifiers : object
        Description of its classifiers.
    """
    notes = candidate_notes.read(folder / _NOTES, GameNotes)
    if notes is None or not notes.weights:
        raise MixsolveError(
            f"start {folder} holds no game; give a folder that was `out` of solve_game, or a "
            "CandidateLosses"
        )
    for name, was, now in (
        ("images and labels, in the same order", notes.data, data),
        ("classifiers", notes.settings["classifiers"], classifiers),
        ("loss", notes.settings["loss"], clean.loss),
    ):
        if was != now:
            raise MixsolveError(f"start {folder} must be of a game of the same {name}")
    if not notes.settings["keep_inputs"]:
        clean = replace(clean, inputs=None)
    board = Board(_begin(folder, notes, clean) if notes.start else clean)
    for number, each in enumerate(notes.weights):
        weights = torch.tensor(each, dtype=torch.float64)
        for run in itertools.count(1):
            found = read_rows(folder / f"{run_name(number, run)}.npy")
            if found is None:
                break
            values, inputs = found
            rows = board.open(weights)[: len(values)]
            fresh = replace(
                clean,
                values=values.to(clean.values.device),
                inputs=None if clean.inputs is None or inputs is None else inputs,
            )
            board.add(f"{folder.name}, round {number}, run {run}", fresh, weights, rows)
    return board.losses


def solved_in(folder: Path | None, solve: Callable[[Path | None], GameSolution]) -> GameSolution:
    """Solve a game in a folder of longer work's own, anew if what is there does not fit."""
    try:
        return solve(folder)
    except UnfitError as error:
        if folder is None:
            raise
        logger.warning("the game is played anew, since what was kept does not fit: %s", error)
        shutil.rmtree(folder)
        return solve(folder)


def run_name(number: int, run: int) -> str:
    """Return what the file of one run of the attacks is called."""
    return f"round-{number}-run-{run}"


def as_folder(argument: str, value: object) -> Path:
    """Return the path of a folder, refusing a file and what is no path."""
    if not isinstance(value, str | os.PathLike):
        raise MixsolveTypeError(
            f"{argument} must be the path of a folder; got {type(value).__name__}"
        )
    path = Path(value)
    if path.exists() and not path.is_dir():
        raise MixsolveError(f"{argument} {path} is a file: give the name of a folder")
    return path


def _begin(folder: Path, notes: GameNotes, clean: CandidateLosses) -> CandidateLosses:
    inputs = None
    if clean.inputs is not None:
        inputs = load_values(folder / "start.inputs.npy").to(clean.inputs.device)
    return replace(
        clean,
        values=load_values(folder / "start.npy").to(clean.values.device),
        candidate_names=tuple(notes.start),
        inputs=inputs,
    )


def _write(path: Path, tensor: Tensor) -> None:
    with written_aside(path) as aside, aside.open("xb") as file:
        np.save(file, tensor.cpu().numpy())
        candidate_notes.flush(file)
