"""Where the loss tensor is kept on disk while it is built: in a file that survives a crash.

It is a .npy file that grows batch by batch under another name, with notes beside it,

    losses.npy.part         header and rows so far
    losses.npy.part.json    settings of the call, batches done, digest of the data so far

and takes its own name when it is complete, with the notes as ``losses.npy.json``. The candidates
themselves, where they are kept, grow in ``losses.inputs.npy`` in the same way. Rows reach the disk
before the notes that count them, and notes are written aside and renamed: whenever the process is
killed, what the notes count is there, and the same call goes on behind it. Whoever reads or writes
any of it holds the lock ``losses.npy.lock``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy_format
from torch import Tensor

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.base.files import check_regular
from mixsolve_torch.runs import candidate_notes
from mixsolve_torch.runs.candidate_file import RowFile, load_values, part_of
from mixsolve_torch.runs.candidate_notes import Notes, UnfitError
from mixsolve_torch.runs.fingerprint import digest
from mixsolve_torch.runs.lock import Lock

logger = logging.getLogger(__name__)


class DiskStore:
    """Rows of a tensor in a .npy file, which an interrupted run finds again.

    Parameters
    ----------
    out : path
        The file.
    settings : dict
        Everything that the rows depend on but the data, in values that JSON can hold.
    row_shape : tuple of int
        Shape (m, L) of a row.
    overwrite : bool
        Whether an existing file may be replaced, and an unfinished one that does not fit be begun
        anew.

    Attributes
    ----------
    notes : Notes
        How far the file has come.

    Raises
    ------
    MixsolveError
        A file in the way, one of other settings, or one that another run is writing.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        settings: dict[str, Any],
        row_shape: tuple[int, ...],
        overwrite: bool,
    ) -> None:
        self.path = _checked(out)
        self._overwrite = overwrite
        self._part = part_of(self.path)
        self._row_shape = row_shape
        self._files: list[RowFile] = []
        self._seen = Notes(settings)  # batches that went by in this run, done before or now
        self._lock = Lock(_beside(self.path, ".lock"), f"out {self.path}")
        if os.access(self.path.parent, os.W_OK):  # elsewhere nobody writes
            self._lock.acquire()
        try:
            with self._writing():
                self.notes = Notes(settings)
                self.notes = self._find(settings)
        except BaseException:
            self.close()
            raise

    def _find(self, settings: dict[str, Any]) -> Notes:
        """Return the notes to go on from, and refuse what is not to be touched."""
        begun = candidate_notes.read(notes_of(self._part), Notes)
        if begun is not None and _half_renamed(files_of(begun, self.path, self._row_shape), begun):
            self._publish(begun)
            begun = None
        done = candidate_notes.read(notes_of(self.path), Notes)
        done_fault = "no notes lie beside it" if done is None else self._fault(done, settings, "")
        if done is not None and done_fault is None and not self._overwrite:
            logger.info("%s is finished already", self.path)
            return done
        if begun is not None:
            fault = self._fault(begun, settings, ".part")
            if fault is None:
                return self._go_on(begun)
            if not self._overwrite:
                raise UnfitError(
                    f"out {self.path} was begun, and this call cannot go on with it: {fault}; "
                    "repeat the first call to go on, give overwrite=True to start anew, or another "
                    "name"
                )
        elif not self._overwrite:
            for path in (self._part, notes_of(self._part)):
                if path.exists():
                    raise _in_the_way(path, "was not left by an interrupted call")
            if self.path.exists():
                raise _in_the_way(self.path, f"is not the result of this call: {done_fault}")
            if done is None and notes_of(self.path).exists():
                raise _in_the_way(notes_of(self.path), "does not belong to a file of losses")
            if "keep_inputs" in settings and inputs_of(self.path).exists():
                raise _in_the_way(inputs_of(self.path), "does not belong to a file of losses")
        return Notes(settings)

    def _go_on(self, begun: Notes) -> Notes:
        """Return the notes of an interrupted call that fit, its last renaming done."""
        if begun.finished:
            self._publish(begun)
        elif self.path.exists() and not self._overwrite:
            raise _in_the_way(self.path, "came while the call was interrupted")
        logger.info("going on with %s after %d batches", self.path, begun.batches)
        return begun

    def _fault(self, notes: Notes, settings: dict[str, Any], ending: str) -> str | None:
        """Return why files of an ending cannot be the beginning, or the result, of this call."""
        if notes.settings != settings:
            return "it was made with other settings: " + candidate_notes.differences(
                notes.settings, settings
            )
        if notes.batches:
            for file in files_of(notes, self.path, self._row_shape):
                path = _beside(file.path, ending)
                size, needed = _size(path), file.size(notes.samples)
                if size < needed or (notes.finished and size != needed):
                    return f"{path.name} has {size} bytes where its notes count {needed}"
        return None

    @property
    def together(self) -> int | None:
        """Images attacked together when the run that is gone on with was interrupted."""
        return self.notes.together

    def passes_over(self, x: Tensor, y: Tensor) -> bool:
        """Return whether the rows of the next batch are in the file already.

        Raises
        ------
        MixsolveError
            Data that are not those of the rows.
        """
        seen = self._seen
        seen.data = digest(seen.data, x, y)
        seen.batches += 1
        seen.samples += len(x)
        if seen.batches == self.notes.batches and seen.data != self.notes.data:
            raise UnfitError(self._other_data(f"the first {seen.batches} batches differ"))
        if seen.batches > self.notes.batches and self.notes.finished:
            raise UnfitError(self._other_data(f"it ended after {self.notes.batches} batches"))
        return seen.batches <= self.notes.batches

    def _other_data(self, fault: str) -> str:
        return (
            f"data must be those that out {self.path} was begun with, in the same order and the "
            f"same batches: {fault}; turn shuffling off, or start anew with overwrite=True or "
            "another name"
        )

    def append(self, rows: Tensor, together: int | None, points: Tensor | None = None) -> None:
        """Add the rows of one batch, and its images if they are kept; they survive any crash."""
        batch = [each.cpu().numpy() for each in (rows, points) if each is not None]
        with self._writing():
            if not self.notes.batches and not self._files:
                self.notes.dtype = _name(batch[0])
                if points is not None:
                    self.notes.inputs_dtype = _name(batch[1])
                    self.notes.inputs_shape = list(points.shape[1:])
                # Notes first: a file without them is nobody's, and would be in the way.
                candidate_notes.write(self.notes, notes_of(self._part))
            for file, values in zip(self._opened(), batch, strict=True):
                file.append(values, self.notes.samples)
            known = self.notes
            notes = replace(
                self._seen,
                dtype=known.dtype,
                together=together,
                inputs_dtype=known.inputs_dtype,
                inputs_shape=known.inputs_shape,
            )
            candidate_notes.write(notes, notes_of(self._part))
            self.notes = notes

    def _opened(self) -> list[RowFile]:
        if not self._files:
            self._files = files_of(self.notes, self.path, self._row_shape)
        return self._files

    def finish(self) -> Tensor:
        """Give the file its name, and return its memory-mapped values."""
        if self._seen.batches < self.notes.batches:
            raise UnfitError(self._other_data(f"they have only {self._seen.batches} batches"))
        if not self.notes.finished:
            with self._writing():
                for file in self._opened():
                    file.seal(self.notes.samples)
                self.notes.finished = True
                candidate_notes.write(self.notes, notes_of(self._part))
                self._publish(self.notes)
        return load_values(self.path)

    def finish_inputs(self) -> Tensor:
        """Return the memory-mapped images, where they were kept, of a file that is finished."""
        return load_values(inputs_of(self.path))

    def _publish(self, notes: Notes) -> None:
        """Rename files and notes; after a crash in between, what is left of it is done."""
        if self._part.exists() and self.path.exists() and not self._overwrite:
            raise _in_the_way(self.path, "came in the meantime")
        for file in files_of(notes, self.path, self._row_shape):
            file.publish()
        os.replace(notes_of(self._part), notes_of(self.path))

    def kept(self) -> str:
        """Say what is in the file, and how the rest gets there."""
        if not self.notes.batches:
            return "no batch was done yet: repeat the call to begin again"
        path = self.path if self.notes.finished else self._part
        return (
            f"{self.notes.batches} batches ({self.notes.samples} images) are kept in {path}: "
            "repeat the call to go on"
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say what is left where a file cannot be written, on a full disk say."""
        try:
            yield
        except OSError as error:
            raise MixsolveError(
                f"out {self.path} could not be written: {error.strerror or error}; {self.kept()}, "
                "once the file can be written"
            ) from error

    def close(self) -> None:
        """Let go of the files and of the lock."""
        for file in self._files:
            file.close()
        self._lock.release()


def files_of(notes: Notes, path: Path, row_shape: tuple[int, ...]) -> list[RowFile]:
    """Return the files that notes count the rows of."""
    files = [RowFile(path, notes.dtype, row_shape)]
    if notes.inputs_dtype:
        files.append(RowFile(inputs_of(path), notes.inputs_dtype, tuple(notes.inputs_shape)))
    return files


def read_rows(path: Path) -> tuple[Tensor, Tensor | None] | None:
    """Return the rows so far of a file of losses, and of its images; None if there are none."""
    for ending in ("", ".part"):
        notes = candidate_notes.read(notes_of(_beside(path, ending)), Notes)
        if notes is not None and notes.batches:
            shape = (len(notes.settings["candidates"]), len(notes.settings["weights"]))
            files = files_of(notes, path, shape)
            tensors = [torch.from_numpy(file.rows(notes.samples)) for file in files]
            return tensors[0], tensors[1] if len(tensors) > 1 else None
    return None


def _half_renamed(files: list[RowFile], notes: Notes) -> bool:
    """Return whether a kill came between the renamings of finished files."""
    some_renamed = notes.finished and not all(file.part.exists() for file in files)
    there = (file.part if file.part.exists() else file.path for file in files)
    sizes = [file.size(notes.samples) for file in files]
    return some_renamed and [_size(path) for path in there] == sizes


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _name(values: np.ndarray) -> str:
    return str(npy_format.dtype_to_descr(values.dtype))


def _checked(out: str | os.PathLike[str]) -> Path:
    try:
        path = Path(out)
    except TypeError as error:
        raise MixsolveTypeError(f"out must be the path of a .npy file; got {out!r}") from error
    if path.suffix != ".npy":
        raise MixsolveError(f"out must end in .npy, which is what it becomes; got {path}")
    for each in (path, notes_of(path), inputs_of(path)):
        check_regular(each, f"out {each}")
    if not path.parent.is_dir():
        raise MixsolveError(f"out {path} needs an existing directory; {path.parent} is none")
    return path


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def notes_of(path: Path) -> Path:
    """Return where the notes on a file are."""
    return _beside(path, ".json")


def inputs_of(path: Path) -> Path:
    """Return where the images are whose losses are in a file."""
    return path.with_suffix(".inputs.npy")


def _in_the_way(path: Path, why: str) -> UnfitError:
    return UnfitError(
        f"out: the file {path} {why}; give overwrite=True to replace it, or another name"
    )
