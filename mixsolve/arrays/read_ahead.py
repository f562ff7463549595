"""Read blocks of a file into memory ahead of the computation.

A pass needs the blocks of a file one after the other, and would wait for each. For a memory map,
the operating system is advised of the next block (POSIX ``madvise``, MADV_WILLNEED), so that it
reads that one while the present one is computed; not while the file is in memory already, since
checking its pages takes as long as computing on them. Blocks that are read by calls (Zarr, HDF5,
maps in a layout or type that the passes do not take) are read by a thread, one block ahead.
"""

import mmap
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from mixsolve.base.errors import MixsolveError

try:
    import resource
except ImportError:  # not on this platform
    resource = None  # type: ignore[assignment]

Wanted = TypeVar("Wanted")
Block = TypeVar("Block")

_PATIENCE = 4  # blocks found in memory before the next ones are assumed to be
_WILL_NEED = getattr(mmap, "MADV_WILLNEED", None)


def read_ahead(
    wanted: Iterable[Wanted], read: Callable[[Wanted], Block]
) -> Generator[Block, None, None]:
    """``map(read, wanted)``, where each block is read while the one before it is used.

    `read` is called in another thread, one call at a time. What it raises is raised where its block
    is due. When the iterator is closed or fails, its thread has ended.
    """
    reader = ThreadPoolExecutor(1, thread_name_prefix="mixsolve-read")
    due: Future[Block] | None = None
    following: Future[Block] | None
    alone = False
    try:
        for each in wanted:
            following = None
            if not alone:
                try:
                    following = reader.submit(read, each)
                except RuntimeError:  # the interpreter shuts down, or no thread can be started
                    alone = True
            if due is not None:
                yield due.result()
            due = following
            if alone:
                yield read(each)
        if due is not None:
            yield due.result()
    finally:
        reader.shutdown(wait=True, cancel_futures=True)


class MappedFile:
    """The file that an array is mapped from: its pages, and where the array begins in it."""

    def __init__(self, pages: mmap.mmap, offset: int) -> None:
        self._pages = pages
        self._origin = _address(np.frombuffer(pages, dtype=np.uint8))
        self._end = offset + len(pages)
        self._reads = -1
        self._unread = 0

    @classmethod
    def of(cls, array: np.ndarray) -> "MappedFile | None":
        """The file behind an array, or None for one in memory."""
        owner: Any = array
        offset = 0
        while owner is not None and not isinstance(owner, mmap.mmap):
            # A map begins at a page, its array further on; one that was pickled is in memory.
            if isinstance(owner, np.memmap) and owner.offset is not None:
                offset = owner.offset - owner.offset % mmap.ALLOCATIONGRANULARITY
            owner = owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)
        return None if owner is None else cls(owner, offset)

    def expect(self, block: np.ndarray) -> None:
        """Have a block, a view of the map, read in the background, where the system supports it.

        Nothing is done for one that is not in C order.
        """
        if _WILL_NEED is None or not block.flags.c_contiguous or self._in_memory():
            return
        first = _address(block) - self._origin
        page = first - first % mmap.PAGESIZE
        try:
            self._pages.madvise(_WILL_NEED, page, first - page + block.nbytes)
        except OSError:  # some file systems do not support it
            return

    def _in_memory(self) -> bool:
        """Whether the last blocks were there without this process reading from any disk."""
        reads = _reads()
        self._unread = self._unread + 1 if reads == self._reads else 0
        self._reads = reads
        return self._unread > _PATIENCE

    def check(self) -> None:
        """Refuse a file that has become shorter: reading beyond its end kills the process.

        Raises
        ------
        MixsolveError
            It was truncated since it was mapped.
        """
        try:
            size = self._pages.size()
        except (OSError, ValueError):  # anonymous memory
            return
        if size < self._end:
            raise MixsolveError(
                f"the mapped file of losses has shrunk to {size} bytes from at least {self._end} "
                "while it was read; write a new file aside and rename it over the old one, which "
                "leaves a map intact"
            )


def _reads() -> int:
    """A number that grows whenever this process reads from a disk."""
    if resource is None:
        return time.monotonic_ns()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_inblock + usage.ru_majflt


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])
