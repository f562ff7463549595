"""The loss tensor on disk while it is built: a file that survives a crash.

It is a .npy file that grows batch by batch under another name, with a manifest beside it,

    losses.npy.part         header and rows so far
    losses.npy.part.json    settings of the call, batches done, digest of the data so far

and takes its own name when it is complete, with the manifest as ``losses.npy.json``. The candidates
themselves, where they are kept, grow in ``losses.inputs.npy`` in the same way. Rows reach the disk
before the manifest that counts them: whenever the process is killed, the rows that the manifest
counts are there, and the same call resumes behind them. Reading and writing both need the lock
``losses.npy.lock``.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.lib import format as npy_format
from torch import Tensor

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.base.files import check_regular
from mixsolve_torch.candidates.row_file import RowFile, load_values, part_of
from mixsolve_torch.runs import manifest
from mixsolve_torch.runs.fingerprint import digest
from mixsolve_torch.runs.manifest import UnfitError
from mixsolve_torch.runs.resumable import Resumable

logger = logging.getLogger(__name__)


@dataclass
class LossesManifest:
    """What is known of a file of losses, finished or not.

    Attributes
    ----------
    settings : dict
        What the rows depend on besides the data, in values that JSON can hold.
    dtype : str
        Of the losses, as a .npy file names it; empty before the first batch.
    batches, samples : int
        How many are in the file.
    data : str
        Digest of the batches so far, their images and labels.
    together : int or None
        Images that were attacked together at the end, if not all of a batch.
    finished : bool
        Whether these are all.
    passes : int
        Runs of a network on an image, forward and backward, that the rows took.
    inputs_dtype, inputs_shape
        Of the images in the file beside it, and of a row of them, where they are kept.
    """

    FORMAT: ClassVar[str] = "mixsolve losses 1"

    settings: dict[str, Any]
    dtype: str = ""
    batches: int = 0
    samples: int = 0
    data: str = ""
    together: int | None = None
    finished: bool = False
    passes: int = 0
    inputs_dtype: str = ""
    inputs_shape: list[int] = field(default_factory=list)


class DiskStore(Resumable):
    """Rows of a tensor in a .npy file, which an interrupted run finds again.

    Parameters
    ----------
    out : path
        The file.
    settings : dict
        See `LossesManifest`.
    row_shape : tuple of int
        Shape (m, L) of a row.
    overwrite : bool
        Whether an existing file may be replaced, and an unfinished one that does not fit be begun
        anew.

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
        self._seen = LossesManifest(settings)  # of the batches of this run, done before or now
        self._known = LossesManifest(settings)  # of the rows in the file
        # A folder that cannot be written to needs no lock.
        lock = _beside(self.path, ".lock") if os.access(self.path.parent, os.W_OK) else None
        super().__init__(f"out {self.path}", lock, "wait for it to end, or choose another name")
        try:
            with self.writing():
                self._known = self._find(settings)
        except BaseException:
            self.close()
            raise

    def _find(self, settings: dict[str, Any]) -> LossesManifest:
        """Return the manifest to resume from; refuse to touch what belongs to something else."""
        begun = manifest.read(_manifest_of(self._part), LossesManifest)
        if begun is not None and _half_renamed(_files_of(begun, self.path, self._row_shape), begun):
            self._publish(begun)
            begun = None
        done = manifest.read(_manifest_of(self.path), LossesManifest)
        done_fault = (
            "no manifest lies beside it" if done is None else self._fault(done, settings, "")
        )
        if done is not None and done_fault is None and not self._overwrite:
            logger.info("%s is finished already", self.path)
            return done
        if begun is not None:
            fault = self._fault(begun, settings, ".part")
            if fault is None:
                return self._resumed(begun)
            if not self._overwrite:
                raise UnfitError(
                    f"out {self.path} cannot be resumed by this call: {fault}; repeat the call "
                    "that began it, give overwrite=True to start anew, or another name"
                )
        elif not self._overwrite:
            for path in (self._part, _manifest_of(self._part)):
                if path.exists():
                    raise _in_the_way(path, "was not left by an interrupted call")
            if self.path.exists():
                raise _in_the_way(self.path, f"is not the result of this call: {done_fault}")
            if done is None and _manifest_of(self.path).exists():
                raise _in_the_way(_manifest_of(self.path), "does not belong to a file of losses")
            if "keep_inputs" in settings and _inputs_of(self.path).exists():
                raise _in_the_way(_inputs_of(self.path), "does not belong to a file of losses")
        return LossesManifest(settings)

    def _resumed(self, begun: LossesManifest) -> LossesManifest:
        """Return the manifest of an interrupted call that fits, its last renaming done."""
        if begun.finished:
            self._publish(begun)
        elif self.path.exists() and not self._overwrite:
            raise _in_the_way(self.path, "came while the call was interrupted")
        logger.info("resuming %s after %d batches", self.path, begun.batches)
        return begun

    def _fault(self, known: LossesManifest, settings: dict[str, Any], ending: str) -> str | None:
        """Return why files of an ending cannot be the beginning, or the result, of this call."""
        differing = manifest.other_settings(known.settings, settings)
        if differing:
            return f"it {differing}"
        if known.batches:
            for file in _files_of(known, self.path, self._row_shape):
                path = _beside(file.path, ending)
                size, needed = _size(path), file.size(known.samples)
                if size < needed or (known.finished and size != needed):
                    return f"{path.name} has {size} bytes where its manifest counts {needed}"
        return None

    @property
    def together(self) -> int | None:
        """Images attacked together when the run that is resumed was interrupted."""
        return self._known.together

    def passes_over(self, x: Tensor, y: Tensor) -> bool:
        """Return whether the rows of the next batch are in the file already; refuse other data."""
        seen = self._seen
        seen.data = digest(seen.data, x, y)
        seen.batches += 1
        seen.samples += len(x)
        if seen.batches == self._known.batches and seen.data != self._known.data:
            raise UnfitError(self._other_data(f"the first {seen.batches} batches differ"))
        if seen.batches > self._known.batches and self._known.finished:
            raise UnfitError(self._other_data(f"it ended after {self._known.batches} batches"))
        return seen.batches <= self._known.batches

    def _other_data(self, fault: str) -> str:
        return (
            f"data must be those that out {self.path} was begun with, in the same order and the "
            f"same batches: {fault}; turn shuffling off, or start anew with overwrite=True or "
            "another name"
        )

    @property
    def passes(self) -> int:
        """Runs of a network on an image that the rows took, also in calls that were interrupted."""
        return self._known.passes

    def append(
        self, rows: Tensor, together: int | None, points: Tensor | None = None, passes: int = 0
    ) -> None:
        """Add the rows of one batch, and its images if they are kept; they survive any crash."""
        batch = [each.cpu().numpy() for each in (rows, points) if each is not None]
        with self.writing():
            if not self._known.batches and not self._files:
                self._known.dtype = _name(batch[0])
                if points is not None:
                    self._known.inputs_dtype = _name(batch[1])
                    self._known.inputs_shape = list(points.shape[1:])
                # The manifest first: a file without one would be taken for the user's own.
                manifest.write(self._known, _manifest_of(self._part))
            for file, values in zip(self._opened(), batch, strict=True):
                file.append(values, self._known.samples)
            known = replace(
                self._known,
                batches=self._seen.batches,
                samples=self._seen.samples,
                data=self._seen.data,
                together=together,
                passes=self._known.passes + passes,
            )
            manifest.write(known, _manifest_of(self._part))
            self._known = known

    def _opened(self) -> list[RowFile]:
        if not self._files:
            self._files = _files_of(self._known, self.path, self._row_shape)
        return self._files

    def finish(self) -> Tensor:
        """Give the file its name, and return its memory-mapped values."""
        if self._seen.batches < self._known.batches:
            raise UnfitError(self._other_data(f"they have only {self._seen.batches} batches"))
        if not self._known.finished:
            with self.writing():
                for file in self._opened():
                    file.seal(self._known.samples)
                self._known.finished = True
                manifest.write(self._known, _manifest_of(self._part))
                self._publish(self._known)
        return load_values(self.path)

    def finish_inputs(self) -> Tensor:
        """Return the memory-mapped images, where they were kept, of a file that is finished."""
        return load_values(_inputs_of(self.path))

    def _publish(self, known: LossesManifest) -> None:
        """Rename files, then the manifest; after a crash in between, the rest of them."""
        if self._part.exists() and self.path.exists() and not self._overwrite:
            raise _in_the_way(self.path, "came in the meantime")
        for file in _files_of(known, self.path, self._row_shape):
            file.publish()
        os.replace(_manifest_of(self._part), _manifest_of(self.path))

    def kept(self) -> str:
        """Say what is in the file, and how to resume."""
        if not self._known.batches:
            return "no batch was done yet: repeat the call to begin again"
        path = self.path if self._known.finished else self._part
        return (
            f"{self._known.batches} batches ({self._known.samples} images) are kept in {path}: "
            "repeat the call to go on"
        )

    def close(self) -> None:
        """Close the files and release the lock."""
        for file in self._files:
            file.close()
        super().close()


def _files_of(known: LossesManifest, path: Path, row_shape: tuple[int, ...]) -> list[RowFile]:
    """Return the files that a manifest counts the rows of."""
    files = [RowFile(path, known.dtype, row_shape)]
    if known.inputs_dtype:
        files.append(RowFile(_inputs_of(path), known.inputs_dtype, tuple(known.inputs_shape)))
    return files


def read_rows(path: Path) -> tuple[Tensor, Tensor | None] | None:
    """Return the rows so far of a file of losses, and of its images; None if there are none."""
    for ending in ("", ".part"):
        known = manifest.read(_manifest_of(_beside(path, ending)), LossesManifest)
        if known is not None and known.batches:
            shape = (len(known.settings["candidates"]), len(known.settings["weights"]))
            files = _files_of(known, path, shape)
            tensors = [torch.from_numpy(file.rows(known.samples)) for file in files]
            return tensors[0], tensors[1] if len(tensors) > 1 else None
    return None


def _half_renamed(files: list[RowFile], known: LossesManifest) -> bool:
    """Return whether a kill came between the renamings of finished files."""
    some_renamed = known.finished and not all(file.part.exists() for file in files)
    there = (file.part if file.part.exists() else file.path for file in files)
    sizes = [file.size(known.samples) for file in files]
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
    for each in (path, _manifest_of(path), _inputs_of(path)):
        check_regular(each, f"out {each}")
    if not path.parent.is_dir():
        raise MixsolveError(f"out {path} needs an existing directory; {path.parent} is none")
    return path


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _manifest_of(path: Path) -> Path:
    """Return where the manifest of a file is."""
    return _beside(path, ".json")


def _inputs_of(path: Path) -> Path:
    """Return where the images are whose losses are in a file."""
    return path.with_suffix(".inputs.npy")


def _in_the_way(path: Path, why: str) -> UnfitError:
    return UnfitError(
        f"out: the file {path} {why}; give overwrite=True to replace it, or another name"
    )
