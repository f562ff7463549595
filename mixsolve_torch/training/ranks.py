"""The processes of a run: one alone, or several that torchrun started, each with its own device.

All ranks draw the same order of the images and the same classifiers, so that they make the same
steps. Each attacks its own part of every batch, DistributedDataParallel averages the gradients, and
the sharded game of a batch is solved by all ranks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

import mixsolve
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.distributed.patience import group_timeout, is_about_ranks, what_is_wrong
from mixsolve_torch.distributed.solver import solve_distributed

T = TypeVar("T")


def own_rank() -> int:
    """Return the number of this process among those that torchrun started; 0 without it."""
    return int(os.environ.get("RANK", "0"))


class Ranks:
    """One process of the run: the present one.

    Parameters
    ----------
    device : str
        "auto", or a device as PyTorch names it; several ranks take one accelerator each.

    Attributes
    ----------
    rank, size : int
        Number of this process, and how many there are.
    device : torch.device
        Where it computes.

    Raises
    ------
    MixsolveError
        A device that is not there.
    """

    def __init__(self, device: str = "auto") -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = own_rank()
        self.device = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
        self._begun = False
        self._words: Any = None  # the group of `heard`
        self._told: tuple[Any, Tensor] | None = None

    def __enter__(self) -> Ranks:
        """Join the process group; one that exists keeps its timeout."""
        if self.size > 1 and not dist.is_initialized():
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)  # NCCL uses it for objects too
            try:
                dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
            except RuntimeError as error:
                timeout = dist.distributed_c10d.default_pg_timeout
                raise MixsolveError(what_is_wrong(self.rank, timeout, error)) from error
            self._begun = True
        if self.size > 1:
            self._timeout = group_timeout()
            if dist.get_backend() != "gloo":
                self._words = dist.new_group(backend="gloo", timeout=self._timeout)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the group; an error of it says which rank is lost."""
        if self._begun:
            dist.destroy_process_group()
        if error is not None and self.size > 1 and is_about_ranks(error):
            raise MixsolveError(what_is_wrong(self.rank, self._timeout, error)) from error

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def part(self, indices: Tensor) -> Tensor:
        """Return this rank's shard of a batch: every size-th image, from its own number on."""
        return indices[self.rank :: self.size]

    def solve(self, losses: Tensor, alpha: float, **options: Any) -> Tensor:
        """Return optimal weights of the game of all ranks' losses (B_r, m, L), the same on all.

        `alpha` and the options are those of `mixsolve.solve`.
        """
        if self.size == 1:
            return torch.as_tensor(mixsolve.solve(losses.cpu().numpy(), alpha, **options).weights)
        return solve_distributed(losses, alpha, **options).weights

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over ranks of a tensor of the same shape on all."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.size

    def collect(self, value: Any) -> list[Any]:
        """Return a picklable value of every rank, on the CPU, rank by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def lead(self, work: Callable[[], T]) -> T:
        """Call a function on the first rank; all ranks return its result, or raise its error."""
        if self.size == 1:
            return work()
        found: list[Any] = [None, None]
        if self.first:
            try:
                found[0] = work()
            except Exception as error:
                found[1] = error if isinstance(error, MixsolveError) else f"{error!r}"
        dist.broadcast_object_list(found, 0)
        if found[1] is not None:
            raise found[1] if isinstance(found[1], MixsolveError) else MixsolveError(found[1])
        return found[0]

    def agree(self, value: Any, words: str) -> None:
        """Refuse, on all ranks, a value that is not the same on all of them."""
        values = self.collect(value)
        other = next((rank for rank in range(self.size) if values[rank] != values[0]), None)
        if other is not None:
            raise MixsolveError(f"{words}; those of rank {other} are not those of rank 0")

    def heard(self, number: int, *, now: bool = False) -> int:
        """Return the largest number that any rank gave in the call before; the same on all.

        One call late, so that ranks exchange numbers while they work; with `now`, and with one
        rank, that of this call. It goes past the accelerators, which are not waited for.
        """
        if self.size == 1:
            return number
        before, largest = self._told, 0
        told = torch.tensor([number])
        self._told = dist.all_reduce(told, dist.ReduceOp.MAX, self._words, async_op=True), told
        for exchange in (before, self._told if now else None):
            if exchange is not None:
                exchange[0].wait()
                largest = max(largest, int(exchange[1]))
        return largest

    def wait(self) -> None:
        """Wait for all other processes."""
        if self.size > 1:
            dist.barrier()


def _device(name: str, local: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", local)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise MixsolveError(
            f"run.device must be 'auto' or a device that PyTorch can use here; got {name!r}: "
            f"{error}"
        ) from error
    return device
