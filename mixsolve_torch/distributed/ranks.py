"""The parts of a tensor on ranks: the first rank asks, all of them answer.

A question is

1. a broadcast from the first rank, which runs the method: the name of the function to call, what is
   the same for all, and what each rank has kept and may drop; shares, if there are any, go to their
   ranks alone;
2. one all_reduce in float64 of the answers' sums. In front of them, each rank has a place of its
   own for the number of bytes that it found besides (winners, rows in doubt, the final strategy),
   or, negative, of the words in which it failed;
3. what was found, from the ranks that found something to the first.

A rank that failed tells its words to all, and all of them stop with the same error.
"""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.engines.shard import PartialResult, respond
from mixsolve.engines.sharded import Kept, Parts, Reply
from mixsolve_torch.distributed.wire import Wire
from mixsolve_torch.runs.interrupt import Interrupt

LOSSES, GIVEN = 0, 1
"""Names of what every rank has kept from the start: its losses, and what else it was given."""


@dataclass(frozen=True)
class _Question:
    """What every rank is asked. See `mixsolve.engines.sharded.Parts.ask`."""

    function: Callable[..., PartialResult]
    kept: tuple[int, ...]
    common: tuple[Any, ...]
    n_sums: int
    share_bytes: tuple[int, ...]
    name: int
    dropped: tuple[int, ...]


class _There:
    """Something that every rank keeps under a name, as long as this object is alive."""

    def __init__(self, name: int) -> None:
        self.name = name


class Rank:
    """One rank among those that solve together.

    Parameters
    ----------
    wire : Wire
        Its connections.
    label : str
        What errors call it.
    kept : dict of int to object
        What it has from the start.
    """

    def __init__(self, wire: Wire, label: str, kept: dict[int, Any]) -> None:
        self.wire = wire
        self._midway = False
        self._label = label
        self._kept = dict(kept)

    def kept(self, name: int) -> Any:
        """What this rank has under a name, None where a question left nothing."""
        return self._kept[name]

    def serve(self, interrupt: Interrupt) -> Any:
        """Answer the first rank's questions until it has a solution; return that.

        Raises
        ------
        MixsolveError
            A rank failed, or cannot be reached.
        """
        wire = self.wire
        while True:
            message = wire.broadcast()
            if not isinstance(message, _Question):
                break
            sizes = message.share_bytes
            share = wire.receive(sizes[wire.rank], 0) if sizes else ()
            _, _, found = self._answer(message, share, interrupt)
            if found:
                wire.send(found, 0)
        wire.over = True
        interrupt.let_through()
        if isinstance(message, MixsolveError):
            raise message
        return message

    def ask(self, question: _Question, shares: Sequence[bytes]) -> tuple[np.ndarray, list[Any]]:
        """Ask all ranks, on the first one; the sums, and what each rank found."""
        wire = self.wire
        with Interrupt(True) as interrupt:
            self._midway = True
            wire.broadcast(question)
            for rank, share in enumerate(shares[1:], start=1):
                wire.send(share, rank)
            own = pickle.loads(shares[0]) if shares else ()
            sizes, sums, mine = self._answer(question, own)
            found = [pickle.loads(mine) if mine else None]
            for rank in range(1, wire.size):
                found.append(wire.receive(sizes[rank], rank) if sizes[rank] else None)
            self._midway = False
            interrupt.let_through()
        return sums, found

    def _answer(
        self, question: _Question, share: Sequence[Any], interrupt: Interrupt | None = None
    ) -> tuple[list[int], np.ndarray, bytes]:
        """Answer a question: bytes found by each rank, sums of all, and what was found here."""
        for name in question.dropped:
            self._kept.pop(name, None)
        rank, size = self.wire.rank, self.wire.size
        numbers = np.zeros(size + question.n_sums)
        failure: BaseException | None = None
        try:
            kept = [self._kept.get(name) for name in question.kept]
            answer = respond(question.function, question.n_sums, kept, question.common, share)
            if interrupt is not None:
                interrupt.let_through()
            told = b"" if answer.found is None else pickle.dumps(answer.found)
            self._kept[question.name] = answer.kept
            numbers[size:] = answer.sums
            numbers[rank] = len(told)
        except BaseException as error:  # the others wait for this rank, whatever happened
            failure = error
            told = pickle.dumps(worded(error, self._label))
            numbers[rank] = -len(told)
        numbers = self.wire.add_up(numbers)
        sizes = [int(number) for number in numbers[:size]]
        if min(sizes) < 0:
            first = next(place for place in range(size) if sizes[place] < 0)
            words = self.wire.broadcast_bytes(told if rank == first else b"", first)
            self.wire.over = True
            if failure is not None and not isinstance(failure, Exception):
                raise failure
            raise words from failure
        return sizes, numbers[size:], told

    @contextmanager
    def leading(self) -> Iterator[None]:
        """What the first rank does by itself: an error in it ends the solve on all ranks."""
        try:
            yield
        except BaseException as error:
            if not self.wire.over and not self.wire.is_cut and not self._midway:
                self.end(worded(error, self._label, anywhere=True))
            raise

    def end(self, message: Any) -> None:
        """Tell all ranks, from the first one, the solution or the error that ends the solve."""
        with Interrupt(True) as interrupt:
            self.wire.broadcast(message)
            self.wire.over = True
            interrupt.let_through()


class RankParts(Parts):
    """Each rank's samples, seen from the first rank.

    Parameters
    ----------
    rank : Rank
        The first one.
    bounds : ndarray of int64, shape (n_ranks + 1,)
        First sample of each rank.
    """

    def __init__(self, rank: Rank, bounds: np.ndarray) -> None:
        super().__init__(_There(LOSSES), bounds)
        self.given = _There(GIVEN)
        self._rank = rank
        self._names = GIVEN
        self._dropped: list[int] = []

    def _ask(
        self,
        question: Callable[..., PartialResult],
        kept: Sequence[Kept],
        common: tuple[Any, ...],
        shares: Sequence[tuple[Any, ...]] | None,
        n_sums: int,
    ) -> Reply:
        """See `mixsolve.engines.sharded.Parts.ask`."""
        pickled = [] if shares is None else [pickle.dumps(share) for share in shares]
        self._names += 1
        dropped = tuple(self._dropped)
        del self._dropped[: len(dropped)]  # others may be added at any moment
        asked = _Question(
            question,
            tuple(handle.name for handle in kept),
            common,
            n_sums,
            tuple(map(len, pickled)),
            self._names,
            dropped,
        )
        sums, found = self._rank.ask(asked, pickled)
        there = _There(self._names)
        weakref.finalize(there, self._dropped.append, self._names).atexit = False
        return Reply(sums, found, there)


def worded(error: BaseException | None, label: str, anywhere: bool = False) -> MixsolveError:
    """An error as all ranks are told it; `anywhere`, one that has nothing to do with a rank."""
    kind = MixsolveTypeError if isinstance(error, TypeError) else MixsolveError
    if not isinstance(error, MixsolveError):
        return MixsolveError(f"{label} stopped the solve: {type(error).__name__}: {error}")
    return kind(str(error) if anywhere else f"{label}: {error}")
