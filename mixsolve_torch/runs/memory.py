"""Freed memory that a process keeps: the activations of the next pass go where the last ones were.

The allocator of glibc gives large blocks that are freed back to the system, which hands them out
again page by page, zeroed: on the CPU that takes up to a third of the time of a small
convolutional network. A process that trains has use for them at once.

References
----------
GNU C Library. ``mallopt``: ``M_TRIM_THRESHOLD``, ``M_MMAP_THRESHOLD``.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 1 << 30  # bytes free at the top of the heap before any are given back
_LARGEST = 1 << 25  # the largest block that is not mapped by itself; glibc allows no more
_SET = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed() -> bool:
    """Let this process keep up to 1 GiB that it frees; whether its allocator can be told.

    Environment variables that say otherwise are left alone. It holds for the whole process: for
    programs, not for libraries.
    """
    if any(name in os.environ for name in _SET):
        return False
    with suppress(OSError, AttributeError, TypeError):
        tell = ctypes.CDLL(None).mallopt
        return bool(tell(_MMAP_THRESHOLD, _LARGEST)) and bool(tell(_TRIM_THRESHOLD, _KEPT))
    return False
