"""Communication between ranks: small objects by one broadcast, sums by one all_reduce.

Everything sent is in host memory, so it goes over gloo, whatever backend the process group has.
The ranks that solve together have gloo connections of their own, made once for each process group:
when a rank is lost, the others close theirs, so that ranks that wait for them get an error too, and
none waits for ever. The timeout of the user's group applies to each message, so also while the
first rank solves small games. ``torch.distributed.new_group`` is not used, since all ranks of the
program would have to call it.
"""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.distributed.patience import group_timeout, what_is_wrong

_INLINE = 4096  # bytes of a broadcast; longer messages take a second one
_LENGTH = 8  # of them, that say how long the message is
_PIECE = 1 << 30  # bytes sent at once
# Connections of each process group; None where a rank was lost.
_connections: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


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
        Whether the solve has ended on all ranks, with a solution or an error.

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
        self._whole: Any = dist.group.WORLD if group is None else group
        if not dist.is_gloo_available():
            raise MixsolveError(
                "this PyTorch was built without gloo, which ranks need; install one with it: "
                "pip install torch"
            )
        if self._whole is dist.GroupMember.NON_GROUP_MEMBER or dist.get_rank(self._whole) < 0:
            raise MixsolveError(
                "group does not have this rank as a member; call solve_distributed on the ranks "
                "of the group alone"
            )
        self.rank, self.size = dist.get_rank(self._whole), dist.get_world_size(self._whole)
        self.over = False
        self._timeout = group_timeout(self._whole)
        if self._whole not in _connections:
            self._call("connect")
        self._gloo = _connections[self._whole]
        if self._gloo is None:
            raise MixsolveError(
                "a rank of the process group was lost in an earlier call; start all ranks again"
            )
        self._gloo._set_default_timeout(self._timeout)  # it may have been changed since

    def _connect(self) -> None:
        store = dist.distributed_c10d._get_default_store()
        name = f"mixsolve/{self._whole.group_name}"
        # A group that is destroyed and made again may have the same name and store.
        times = store.add(f"{name}/rank {self.rank}", 1)
        meeting = dist.PrefixStore(f"{name}/{times}", store)
        _connections[self._whole] = dist.ProcessGroupGloo(
            meeting, self.rank, self.size, timeout=self._timeout
        )

    @property
    def is_cut(self) -> bool:
        """Whether the connections are closed."""
        return self._gloo is None

    def cut(self) -> None:
        """Close the connections: ranks that wait for this one get an error."""
        self._gloo = _connections[self._whole] = None

    def broadcast(self, thing: Any = None, root: int = 0) -> Any:
        """Send an object that can be pickled from one rank to all; returned on all."""
        if self.rank == root:
            self._spread(pickle.dumps(thing), root)
            return thing
        return self.broadcast_bytes(b"", root)

    def broadcast_bytes(self, message: bytes, root: int = 0) -> Any:
        """The same for an object that is pickled already."""
        return pickle.loads(self._spread(message, root))

    def _spread(self, message: bytes, root: int) -> Any:
        """Bytes from one rank on all of them."""
        head = torch.zeros(_INLINE, dtype=torch.uint8)
        room = _INLINE - _LENGTH
        if self.rank == root:
            start = len(message).to_bytes(_LENGTH, "little") + message[:room]
            head[: len(start)] = _as_tensor(start)
        self._send_all(head, root)
        content = head.numpy().tobytes()
        length = int.from_bytes(content[:_LENGTH], "little")
        if length <= room:
            return content[_LENGTH : _LENGTH + length]
        rest = _as_tensor(message) if self.rank == root else _room_for(length)
        for piece in rest.split(_PIECE):
            self._send_all(piece, root)
        return rest.numpy().data

    def send(self, message: bytes, rank: int) -> None:
        """Send bytes to one rank, which knows how many."""
        for piece in _as_tensor(message).split(_PIECE):
            self._call("send", [piece], rank, 0)

    def receive(self, length: int, rank: int) -> Any:
        """Receive a pickled object from one rank."""
        message = _room_for(length)
        for piece in message.split(_PIECE):
            self._call("recv", [piece], rank, 0)
        return pickle.loads(message.numpy().data)

    def add_up(self, values: np.ndarray) -> np.ndarray:
        """The sum over ranks of float64 arrays of the same shape."""
        total = torch.from_numpy(values)
        self._call("allreduce", [total])
        return total.numpy()

    def collect(self, thing: Any) -> list[Any]:
        """The objects of all ranks, rank by rank, on all of them."""
        message = pickle.dumps(thing)
        lengths = np.zeros(self.size)
        lengths[self.rank] = len(message)
        lengths = self.add_up(lengths)
        if self.rank:
            self.send(message, 0)
            return self.broadcast()
        others = [self.receive(int(lengths[rank]), rank) for rank in range(1, self.size)]
        return self.broadcast([thing, *others])

    def _send_all(self, values: Tensor, root: int) -> None:
        options = dist.BroadcastOptions()
        options.rootRank = root
        self._call("broadcast", [values], options)

    def _call(self, operation: str, *arguments: Any) -> None:
        """Do one of gloo's operations, or connect; wait until it is done."""
        try:
            if operation == "connect":
                self._connect()
            else:
                getattr(self._gloo, operation)(*arguments).wait()
            return
        except RuntimeError as error:
            words = what_is_wrong(self.rank, self._timeout, error)
        # Outside of the handler, so that no traceback keeps the connections alive.
        self.cut()
        raise MixsolveError(words)


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
