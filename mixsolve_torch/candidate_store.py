"""Where the loss tensor is kept on disk while it is built: in a file that survives a crash.

It is a .npy file that grows batch by batch under another name, with notes beside it,

    losses.npy.part         header and rows so far
    losses.npy.part.json    settings of the call, batches done, digest of the data so far

and takes its own name when it is complete, with the notes as ``losses.npy.json``. Rows reach the
disk before the notes that count them, and notes are written aside and renamed: whenever the process
is killed, what the notes count is there, and the same call goes on behind it.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy_format
from torch import Tensor

from mixsolve.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch import candidate_notes
from mixsolve_torch.candidate_memory import check_dtype
from mixsolve_torch.candidate_notes import Notes
from mixsolve_torch.fingerprint import digest

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

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
        A file in the way, or one of other settings.
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
        self._part = _beside(self.path, ".part")
        self._row_shape = row_shape
        self._file: IO[bytes] | None = None
        self._seen = Notes(settings)  # batches that went by in this run, done before or now
        self.notes = self._find(settings)

    def _find(self, settings: dict[str, Any]) -> Notes:
        """Return the notes to go on from, and refuse what is not to be touched."""
        begun, done = (
            candidate_notes.read(_notes_of(self._part)),
            candidate_notes.read(_notes_of(self.path)),
        )
        if begun is not None:
            fault = self._fault(begun, settings, self._part)
            if fault is None:
                return self._go_on(begun)
            if not self._overwrite:
                raise MixsolveError(
                    f"out {self.path} was begun, and this call cannot go on with it: {fault}; "
                    "repeat the first call to go on, give overwrite=True to start anew, or another "
                    "name"
                )
        elif not self._overwrite:
            for path in (self._part, _notes_of(self._part)):
                if path.exists():
                    raise _in_the_way(path, "was not left by an interrupted call")
            if self.path.exists():
                fault = "no notes lie beside it"
                if done is not None:
                    fault = self._fault(done, settings, self.path) or ""
                if fault or done is None:
                    raise _in_the_way(self.path, f"is not the result of this call: {fault}")
                logger.info("%s is finished already", self.path)
                return done
            if done is None and _notes_of(self.path).exists():
                raise _in_the_way(_notes_of(self.path), "does not belong to a file of losses")
        return Notes(settings)

    def _go_on(self, begun: Notes) -> Notes:
        """Return the notes of an interrupted call that fit, its last renaming done."""
        if begun.finished:
            self._publish()
        elif self.path.exists() and not self._overwrite:
            raise _in_the_way(self.path, "came while the call was interrupted")
        logger.info("going on with %s after %d batches", self.path, begun.batches)
        return begun

    def _fault(self, notes: Notes, settings: dict[str, Any], path: Path) -> str | None:
        """Return why a file cannot be the beginning, or the result, of this call."""
        if notes.settings != settings:
            return "it was made with other settings: " + candidate_notes.differences(
                notes.settings, settings
            )
        if notes.batches:
            path = path if path.exists() else self.path
            size = path.stat().st_size if path.exists() else 0
            needed = len(self._header(notes)) + notes.samples * self._row_bytes(notes)
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
            raise MixsolveError(self._other_data(f"the first {seen.batches} batches differ"))
        if seen.batches > self.notes.batches and self.notes.finished:
            raise MixsolveError(self._other_data(f"it ended after {self.notes.batches} batches"))
        return seen.batches <= self.notes.batches

    def _other_data(self, fault: str) -> str:
        return (
            f"data must be those that out {self.path} was begun with, in the same order and the "
            f"same batches: {fault}; turn shuffling off, or start anew with overwrite=True or "
            "another name"
        )

    def append(self, rows: Tensor, together: int | None) -> None:
        """Add the rows of one batch, so that they are there after any crash."""
        values = np.ascontiguousarray(rows.cpu().numpy())
        if self._file is None:
            self._open(str(npy_format.dtype_to_descr(values.dtype)))
        assert self._file is not None
        check_dtype(values.dtype, np.dtype(self.notes.dtype))
        self._file.write(values.data)
        candidate_notes.flush(self._file)
        self.notes = replace(self._seen, dtype=self.notes.dtype, together=together)
        candidate_notes.write(self.notes, _notes_of(self._part))

    def _open(self, dtype: str) -> None:
        """Open the file behind the rows that the notes count."""
        if not self.notes.batches:
            self.notes.dtype = dtype
            # Notes first: a file without them is nobody's, and would be in the way.
            candidate_notes.write(self.notes, _notes_of(self._part))
        self._file = self._part.open("r+b" if self._part.exists() else "x+b")
        _lock(self._file, self._part)
        header = self._header(self.notes)
        self._file.truncate(len(header) + self.notes.samples * self._row_bytes(self.notes))
        self._file.write(header)
        self._file.seek(0, os.SEEK_END)

    def finish(self) -> Tensor:
        """Give the file its name, and return its memory-mapped values."""
        if self._seen.batches < self.notes.batches:
            raise MixsolveError(self._other_data(f"they have only {self._seen.batches} batches"))
        if not self.notes.finished:
            if self._file is None:
                self._open(self.notes.dtype)
            assert self._file is not None
            self._file.seek(0)
            self._file.write(self._header(self.notes))
            candidate_notes.flush(self._file)
            self.notes.finished = True
            candidate_notes.write(self.notes, _notes_of(self._part))
            self.close()
            self._publish()
        return load_values(self.path)

    def _publish(self) -> None:
        """Rename file and notes; after a crash in between, what is left of it is done."""
        if self._part.exists():
            if self.path.exists() and not self._overwrite:
                raise _in_the_way(self.path, "came in the meantime")
            os.replace(self._part, self.path)
        os.replace(_notes_of(self._part), _notes_of(self.path))

    def _header(self, notes: Notes) -> bytes:
        """Return the head of the file, whose length does not depend on the number of rows."""
        head = io.BytesIO()
        shape = (notes.samples, *self._row_shape)
        fields = {"descr": notes.dtype, "fortran_order": False, "shape": shape}
        npy_format.write_array_header_1_0(head, fields)
        return head.getvalue()

    def _row_bytes(self, notes: Notes) -> int:
        return int(np.prod(self._row_shape)) * np.dtype(notes.dtype).itemsize

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def load_values(path: Path) -> Tensor:
    """Return the tensor in a .npy file, memory-mapped: its entries are read when they are used."""
    try:
        # Private pages: writing to the tensor leaves the file as it is.
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except OSError:
        # A system may refuse private pages for more than its memory; shared ones need none.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(np.load(path, mmap_mode="r", allow_pickle=False))


def _checked(out: str | os.PathLike[str]) -> Path:
    try:
        path = Path(out)
    except TypeError as error:
        raise MixsolveTypeError(f"out must be the path of a .npy file; got {out!r}") from error
    if path.suffix != ".npy":
        raise MixsolveError(f"out must end in .npy, which is what it becomes; got {path}")
    if path.is_dir():
        raise MixsolveError(f"out {path} is a directory; give the name of a file")
    if not path.parent.is_dir():
        raise MixsolveError(f"out {path} needs an existing directory; {path.parent} is none")
    return path


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _notes_of(path: Path) -> Path:
    return _beside(path, ".json")


def _in_the_way(path: Path, why: str) -> MixsolveError:
    return MixsolveError(
        f"out: the file {path} {why}; give overwrite=True to replace it, or another name"
    )


def _lock(file: IO[bytes], path: Path) -> None:
    """Refuse to write where another process does; the lock goes when its process does."""
    if fcntl is None:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise MixsolveError(
            f"out: another process is writing {path}; wait for it, or give another name"
        ) from error
