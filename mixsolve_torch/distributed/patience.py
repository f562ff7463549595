"""How long a rank waits for the others, and the error when they do not answer.

The timeout is that of the user's process group, by ``init_process_group(timeout=...)`` or
``new_group(timeout=...)``; PyTorch's default is half an hour over gloo and ten minutes over NCCL.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import torch.distributed as dist

# Messages of gloo, NCCL and the store about another rank, whose errors are plain RuntimeErrors.
_TIMED_OUT = re.compile(r"timed? ?out|DEADLINE_EXCEEDED", re.IGNORECASE)
_PARTED = re.compile(r"\bgloo\b|NCCL|by peer|Broken pipe", re.IGNORECASE)


def group_timeout(group: Any = None) -> timedelta:
    """Return the timeout of a process group, the longest one where it has several backends."""
    whole: Any = dist.group.WORLD if group is None else group
    found = []
    for device in getattr(whole, "_device_types", ()):
        options = getattr(whole._get_backend(device), "options", None)
        timeout = getattr(options, "_timeout", None)
        if isinstance(timeout, timedelta):
            found.append(timeout)
    return max(found, default=dist.distributed_c10d.default_pg_timeout)


def is_about_ranks(error: BaseException | None) -> bool:
    """Whether an error means that another rank cannot be reached."""
    if isinstance(error, dist.DistError):
        return True
    return type(error) is RuntimeError and bool(
        _TIMED_OUT.search(str(error)) or _PARTED.search(str(error))
    )


def what_is_wrong(rank: int, timeout: timedelta, error: BaseException) -> str:
    """Message for a rank that does not answer in time, or has ended."""
    reason = re.sub(r"^\[[^]]*\] ", "", str(error).strip().partition("\n")[0])
    reason = reason.split(". This is typically")[0]
    if _TIMED_OUT.search(reason):
        why = (
            f"one of them did not answer within {timeout.total_seconds():g} s, the timeout of the "
            "process group: it hangs, is stopped, or needs longer; end all ranks and start them "
            "again, with a longer init_process_group(timeout=...) if it was at work"
        )
    else:
        why = (
            "one of them has ended or was killed, and its own output says why; then start all "
            "ranks again"
        )
    return f"rank {rank} cannot reach the other ranks any more: {why} ({reason})"
