"""What goes between ranks: small things from one to all in one broadcast, sums in one all_reduce.

Everything here is in the hosts' memory, so it goes over gloo, beside whatever backend tensors on
devices use. The ranks that solve together have a gloo group of their own, made once for each
process group: when a rank is lost, the others close it, and with it the connections on which ranks
further away are waiting, so that all of them get an error and none waits for ever.
"""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mixsolve.errors import MixsolveError

_INLINE = 4096  # bytes of a broadcast; longer messages take a second one
_LENGTH = 8  # of them, that say how long the message is
_PIECE = 1 << 30  # bytes sent at once
# Ranks wait while the first one solves small games. One that dies closes its connections, and one
# that waits elsewhere is found out by the timeout of what it waits for.
_PATIENCE = timedelta(days=1)

# None for a process group that lost a rank.
_groups: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


class Wire:
    """One rank's connections to the others of a process group.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup or None
        None for all ranks.

    Attributes
    ----------
    rank, size : int
        Number of this rank in the group, and how many there are.
    over : bool
        Whether the ranks have parted, with a solution or an error that all of them know.

    Raises
    ------
    MixsolveError
        If there is no process group, this rank is not in it, or others cannot be reached.
    """

    def __init__(self, group: Any = None) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise MixsolveError(
                "torch.distributed has no process group in this process; start the script with "
                "torchrun and call torch.distributed.init_process_group() first, or use "
                "mixsolve.solve for the losses of one process"
            )
        self._whole = dist.group.WORLD if group is None else group
        if self._whole is dist.GroupMember.NON_GROUP_MEMBER or dist.get_rank(self._whole) < 0:
            raise MixsolveError(
                "group does not have this rank as a member; call solve_distributed on the ranks "
                "of the group alone"
            )
        self._ranks = dist.get_process_group_ranks(self._whole)
        self.rank, self.size = dist.get_rank(self._whole), len(self._ranks)
        self.over = False
        self._group: Any = None
        if self._whole not in _groups:
            _groups[self._whole] = self._call(self._new_group)
        self._group = _groups[self._whole]
        if self._group is None:
            raise MixsolveError(
                "a rank of the process group was lost in an earlier call; start all ranks again"
            )

    def _new_group(self, group: None) -> Any:
        apart = self.size < dist.get_world_size()  # the ranks outside do not make it with us
        return dist.new_group(
            self._ranks, timeout=_PATIENCE, backend="gloo", use_local_synchronization=apart
        )

    @property
    def is_cut(self) -> bool:
        """Whether the connections are closed."""
        return self._group is None

    def cut(self) -> None:
        """Close the connections for good: ranks that wait for this one get an error."""
        if self._group is not None:
            dist.destroy_process_group(self._group)
        self._group = _groups[self._whole] = None

    def broadcast(self, thing: Any = None, root: int = 0) -> Any:
        """Send a thing that can be pickled from one rank to all; returned on all."""
        return self.broadcast_bytes(pickle.dumps(thing) if self.rank == root else b"", root)

    def broadcast_bytes(self, message: bytes, root: int = 0) -> Any:
        """The same of a thing that is pickled already."""
        head = torch.zeros(_INLINE, dtype=torch.uint8)
        room = _INLINE - _LENGTH
        if self.rank == root:
            start = len(message).to_bytes(_LENGTH, "little") + message[:room]
            head[: len(start)] = _as_tensor(start)
        self._call(dist.broadcast, head, self._ranks[root])
        content = head.numpy().tobytes()
        length = int.from_bytes(content[:_LENGTH], "little")
        if length <= room:
            return pickle.loads(content[_LENGTH : _LENGTH + length])
        rest = _as_tensor(message) if self.rank == root else _room_for(length)
        for piece in rest.split(_PIECE):
            self._call(dist.broadcast, piece, self._ranks[root])
        return pickle.loads(rest.numpy().data)

    def send(self, message: bytes, rank: int) -> None:
        """Send bytes to one rank, which knows how many."""
        for piece in _as_tensor(message).split(_PIECE):
            self._call(dist.send, piece, self._ranks[rank])

    def receive(self, length: int, rank: int) -> Any:
        """Receive a pickled thing from one rank."""
        message = _room_for(length)
        for piece in message.split(_PIECE):
            self._call(dist.recv, piece, self._ranks[rank])
        return pickle.loads(message.numpy().data)

    def add_up(self, values: np.ndarray) -> np.ndarray:
        """The sum over ranks of float64 arrays of the same shape."""
        total = torch.from_numpy(values)
        self._call(dist.all_reduce, total)
        return total.numpy()

    def collect(self, thing: Any) -> list[Any]:
        """What every rank gave, rank by rank, on all of them; made of plain values."""
        things: list[Any] = [None] * self.size
        self._call(dist.all_gather_object, things, thing)
        return things

    def _call(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return operation(*arguments, group=self._group)
        except RuntimeError as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
        # Past the handler nothing holds the frames of `operation`, hence the connections.
        self.cut()
        raise MixsolveError(
            f"rank {self.rank} cannot reach the other ranks any more: one of them has ended or was "
            f"killed, and its own output says why; then start all ranks again ({reason})"
        )


def _as_tensor(message: bytes) -> Tensor:
    # A bytearray, since torch warns of memory that cannot be written to.
    return torch.frombuffer(bytearray(message), dtype=torch.uint8) if message else _room_for(0)


def _room_for(length: int) -> Tensor:
    return torch.empty(length, dtype=torch.uint8)


def listed(ranks: Sequence[int]) -> str:
    """Ranks in words: "rank 3", "ranks 0 and 2", "ranks 0, 1 and 2"."""
    words = [str(rank) for rank in ranks]
    if len(words) == 1:
        return f"rank {words[0]}"
    return f"ranks {', '.join(words[:-1])} and {words[-1]}"
