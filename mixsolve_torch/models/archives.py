"""Archives of models: reading their parts, and writing the checked copy that PyTorch loads.

A zip archive can be read in more than one way: names twice or in other case, a directory that
disagrees with the members, data before and after it. A check by one reader does not cover what
another one loads. `Archive` reads an archive once, and `fresh` writes the checked parts, and
nothing else, to a new one, which PyTorch loads.

`load_tensors` reads what `torch.save` wrote, as long as it holds tensors and plain containers only.

References
----------
PKWARE. APPNOTE, the .ZIP file format specification.
Fifield. A better zip bomb. WOOT 2019.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from mixsolve.base.errors import MixsolveError, shortened
from mixsolve.base.files import check_unpacked

BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,  # packed in a way that Python does not know
    RuntimeError,  # encrypted
    EOFError,
    OSError,
    ValueError,
)

_TEXT_BYTES = 1 << 28  # of code, of a graph, of a pickle
_COPIED_TOGETHER = 1 << 20
_PART = re.compile(r"(?!/)(?!.*(^|/)\.\.?(/|$))[^\\\0-\x1f]+")


class Archive:
    """The parts of a zip archive, by their path below the folder that PyTorch puts them in.

    Parameters
    ----------
    path : path
        The file.

    Raises
    ------
    MixsolveError
        It is broken, its parts cannot be told apart, or it would unpack to too much.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
            members = [info for info in self._zip.infolist() if not info.is_dir()]
        except BROKEN as error:
            raise self._broken(error) from error
        check_unpacked(path, sum(info.file_size for info in members))
        folders = {info.filename.partition("/")[0] for info in members if "/" in info.filename}
        # Early exports have no such folder.
        self.in_folder = len(folders) == 1 and all("/" in info.filename for info in members)
        self._members: dict[str, zipfile.ZipInfo] = {}
        seen: set[str] = set()
        for info in members:
            part = info.filename.partition("/")[2] if self.in_folder else info.filename
            if not _PART.fullmatch(part) or part.casefold() in seen:
                self._zip.close()
                raise MixsolveError(
                    f"{path} holds a part {shortened(repr(part), 100)} that is there twice or "
                    "leads out of the archive, so that readers differ in what they find; save the "
                    "model again"
                )
            seen.add(part.casefold())
            self._members[part] = info

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def read(self, part: str) -> bytes:
        """Return a part that is no tensor, whole.

        Raises
        ------
        MixsolveError
            It is broken, or larger than any such part should be.
        """
        info = self._member(part)
        if info.file_size > _TEXT_BYTES:
            raise MixsolveError(
                f"{self.path}: {part} takes {info.file_size:,} bytes unpacked, and no more than "
                f"{_TEXT_BYTES:,} of a part that is no tensor are read"
            )
        try:
            return self._zip.read(info)
        except BROKEN as error:
            raise self._broken(error) from error

    @contextmanager
    def fresh(self, parts: Mapping[str, bytes | None], suffix: str) -> Iterator[Path]:
        """Write a new archive for PyTorch to load; it is gone when the block ends.

        Parameters
        ----------
        parts : mapping of str to bytes or None
            Its parts, in order. None copies the part as it is.
        suffix : str
            Ending of its name.
        """
        folder = "model/" if self.in_folder else ""
        with tempfile.TemporaryDirectory(prefix="mixsolve-") as place:
            made = Path(place) / f"model{suffix}"
            try:
                with zipfile.ZipFile(made, "w") as archive:
                    for part, content in parts.items():
                        if content is not None:
                            archive.writestr(folder + part, content)
                            continue
                        source = self._zip.open(self._member(part))
                        with source, archive.open(folder + part, "w", force_zip64=True) as target:
                            shutil.copyfileobj(source, target, _COPIED_TOGETHER)
            except MixsolveError:
                raise
            except BROKEN as error:
                raise self._broken(error) from error
            yield made

    def _member(self, part: str) -> zipfile.ZipInfo:
        if part not in self._members:
            raise MixsolveError(f"{self.path} is broken: it lacks {shortened(part, 100)}")
        return self._members[part]

    def _broken(self, error: Exception) -> MixsolveError:
        return MixsolveError(
            f"{self.path} is a broken archive, or could not be copied to "
            f"{tempfile.gettempdir()} (TMPDIR): {shortened(str(error))}"
        )


def load_tensors(source: Path | bytes) -> Any:
    """Read what `torch.save` wrote, if tensors and plain containers are all there is in it.

    `source` is the file, or what it holds; the tensors are on the CPU.

    Raises
    ------
    Exception
        Of any kind, for any other content.
    """
    if isinstance(source, Path):
        with zipfile_or_none(source) as members:
            if members is not None:
                check_unpacked(source, sum(info.file_size for info in members))
    with _opened(source) as file:
        # Before PyTorch 2.6, `torch.load` unpickled these two even with weights_only=True.
        if tarfile.is_tarfile(file):
            raise ValueError("a tar archive of before PyTorch 0.1.10")
        file.seek(0)
        if file.read(4) == b"PK\x03\x04":
            file.seek(0)
            names = torch._C.PyTorchFileReader(file).get_all_records()
            if "constants.pkl" in {name.casefold() for name in names}:
                raise ValueError("a TorchScript archive")
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickle protocols
            return torch.load(file, map_location="cpu", weights_only=True)


@contextmanager
def zipfile_or_none(path: Path) -> Iterator[list[zipfile.ZipInfo] | None]:
    """Give the members of an archive, or None for a file that is none."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile):
        yield None
        return
    with archive:
        yield archive.infolist()


def _opened(source: Path | bytes) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else open(os.fspath(source), "rb")
