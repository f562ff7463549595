r"""One game whose samples are sharded over the ranks of a distributed program.

With N_r samples on rank r, every pass of every method is a sum over ranks,

.. math::
    \sum_r \sum_{i \in r} w_i \max_j \langle \lambda, l_{ij} \rangle

and its gradient (and Hessian) likewise: the first rank sends lam, each rank makes the pass over its
own samples where they are, and one all_reduce of 1 + L (+ L^2) numbers adds them up. The method,
which is mathematics in L dimensions, runs on the first rank alone; it sends the solution to all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NoReturn

import numpy as np

import mixsolve
from mixsolve.arrays.tensor import even_offsets
from mixsolve.base.errors import MixsolveError
from mixsolve.engines.base import Losses
from mixsolve.engines.deferred import DeferredStrategy
from mixsolve.engines.packed import PackedStrategy
from mixsolve.engines.responses import MixedStrategy
from mixsolve.engines.shard_tasks import shortened, spread_out
from mixsolve.engines.sharded import ShardedEngine
from mixsolve.engines.shards import count_bytes
from mixsolve.solver.solution import Solution
from mixsolve_torch.distributed.ranks import GIVEN, LOSSES, Rank, RankShards, as_rank_error
from mixsolve_torch.distributed.shares import Share, agree, join, read_share, send_given
from mixsolve_torch.distributed.wire import Wire
from mixsolve_torch.runs.interrupt import Interrupt


@dataclass(frozen=True, eq=False, repr=False)
class DistributedSolution(Solution):
    """A `mixsolve.Solution`, the same on every rank, and which samples are this rank's.

    Attributes
    ----------
    samples : range
        This rank's samples in the numbering of `attack`, one rank after another.
    own_attack : MixedStrategy
        The attacker's strategy on this rank's samples alone.
    """

    samples: range = field(kw_only=True)
    own_attack: MixedStrategy = field(kw_only=True)

    _kept_as: ClassVar = Solution  # in a file, which any process may read


def solve_distributed(
    local_losses: Any,
    alpha: Any = 0.0,
    *,
    group: Any = None,
    sample_weight: Any = None,
    candidate_mask: Any = None,
    candidate_prior: Any = None,
    **options: Any,
) -> DistributedSolution:
    """Solve one game whose samples are sharded over the ranks of torch.distributed.

    Every rank of the group calls this with its own shard of the samples, which stays there. All
    ranks return the same solution, or raise the same error.

    Parameters
    ----------
    local_losses : array_like of shape (N_r, m, L)
        This rank's samples: any array that `mixsolve.solve` takes, on this rank's device or not,
        or `Losses`. m and L are the same on all ranks, N_r need not be; a rank without samples
        gives an array of shape (0, m, L).
    alpha : float or array_like of shape (N_r,), default 0
        One number, the same on all ranks, or one for each of this rank's samples.
    group : torch.distributed.ProcessGroup, optional
        The ranks that solve; all by default. They communicate over gloo, whatever the group's own
        backend. Its timeout applies: a rank that does not answer in time, because it hangs or is
        still at work, ends the solve with an error.
    sample_weight : array_like of shape (N_r,), optional
        Of this rank's samples; divided by the sum over all ranks.
    candidate_mask : array_like of bool, shape (N_r, m), optional
        Of this rank's samples.
    candidate_prior : array_like of shape (N_r, m), optional
        Of this rank's samples.
    **options
        Those of `mixsolve.solve`, the same on all ranks. `callback`, `constraints` and `verbose`
        are used on the first rank, where the method runs; an error in a callback there ends the
        solve on all ranks.

    Returns
    -------
    DistributedSolution
        The same bits on all ranks. Its weights are of the kind, and on the device, of each rank's
        own array; its attack is that on all samples, and `own_attack` that on this rank's. Of
        alpha > 0 and more than a million candidates in all, the strategy stays on the ranks:
        `own_attack` is computed from the rank's own losses when it is first read, and reading
        `attack` raises a `MixsolveError`.

    Raises
    ------
    MixsolveError
        Wrong input on any rank, an error in a pass on any rank, a rank that was lost: raised on
        all ranks, with the same message, which names the rank.
    MixsolveTypeError
        An argument's type is wrong.

    Warns
    -----
    ConvergenceWarning
        On the first rank alone: the certified gap is above the tolerance. All ranks have `success`
        False.

    Notes
    -----
    The first rank holds the arrays of one number a sample or candidate of the whole: sample
    weights, `candidate_mask` and `candidate_prior` if given, the attack. "interior-point" and
    "cvxpy" gather all losses there.

    Examples
    --------
    >>> import torch
    >>> import torch.distributed as dist
    >>> from mixsolve_torch import solve_distributed
    >>> dist.init_process_group("nccl")  # doctest: +SKIP
    >>> losses = torch.load(f"losses-{dist.get_rank()}.pt").cuda()  # doctest: +SKIP
    >>> solution = solve_distributed(losses, alpha=0.01)  # doctest: +SKIP
    """
    wire = Wire(group)
    one_a_sample = {
        "sample_weight": sample_weight,
        "candidate_mask": candidate_mask,
        "candidate_prior": candidate_prior,
    }
    try:
        return _solve(wire, local_losses, alpha, one_a_sample, options)
    except BaseException:
        if not wire.over:
            wire.cut()  # so that no rank waits for one that left early
        raise


class _LossesOnRanks(Losses):
    """Losses of which every rank has a shard, as the first rank has access to them."""

    def __init__(self, shards: RankShards, n_candidates: int, n_classifiers: int) -> None:
        super().__init__(even_offsets(int(shards.bounds[-1]), n_candidates), n_classifiers)
        self._shards = shards
        self.attack: Any = None  # the ranks' states, where it is not gathered

    def engine(
        self, sample_weight: np.ndarray, allowed: np.ndarray, prior: np.ndarray
    ) -> ShardedEngine:
        return ShardedEngine.open(self._shards, self, sample_weight, allowed, prior, self._leave)

    def _leave(
        self, engine: ShardedEngine, weights: np.ndarray, alpha: np.ndarray
    ) -> Callable[[], MixedStrategy]:
        self.attack = engine.deferred_gibbs(weights, alpha)
        return _refuse_whole

    def restore(self, weights: np.ndarray) -> np.ndarray:
        """Return the weights; each rank makes its own kind of array of them."""
        return weights


def _solve(
    wire: Wire, losses: Any, alpha: Any, one_a_sample: dict[str, Any], options: dict[str, Any]
) -> DistributedSolution:
    """Solve, on every rank."""
    with Interrupt(True) as interrupt:
        share, bounds = _meet(wire, losses, alpha, one_a_sample, options)
        first, last = (int(bound) for bound in bounds[wire.rank : wire.rank + 2])
        label = f"rank {wire.rank}"
        if last > first:
            label += f" (samples {first} to {last - 1})"
        rank = Rank(wire, label, {LOSSES: share.losses, GIVEN: share.given})
        if wire.rank == 0:
            with rank.leading():
                interrupt.deliver()
        else:
            found = rank.serve(interrupt)
    if wire.rank == 0:
        with rank.leading():
            found = _lead(RankShards(rank, bounds), share, alpha, options)
            rank.end(found)
    return _received(found, rank, share, range(first, last), int(bounds[-1]))


def _meet(
    wire: Wire, losses: Any, alpha: Any, one_a_sample: dict[str, Any], options: dict[str, Any]
) -> tuple[Share, np.ndarray]:
    """Check this rank's share, then all ranks' against each other; first sample of each rank."""
    share: Share | None = None
    failure: Exception | None = None
    try:
        share = read_share(losses, alpha, one_a_sample, options)
    except Exception as error:  # the others wait for this rank in any case
        failure = error
    summary = share.summary if share else as_rank_error(failure, f"rank {wire.rank}")
    summaries = wire.collect(summary)
    try:
        bounds = agree(summaries)
    except MixsolveError as error:
        wire.over = True
        raise error from failure
    assert share is not None
    return share, bounds


def _lead(
    shards: RankShards, share: Share, alpha: Any, options: dict[str, Any]
) -> tuple[dict[str, Any], int | None]:
    """Run the method, on the first rank. The solution's values, and the name of its attack."""
    _, n_candidates, n_classifiers = share.shape
    gathered = shards.map_reduce(send_given, [shards.losses, shards.given]).gathered
    given = join(gathered, shards.bounds, n_candidates)
    losses = _LossesOnRanks(shards, n_candidates, n_classifiers)
    solution = mixsolve.solve(losses, given.pop("alpha", alpha), **given, **options)
    values = {entry.name: getattr(solution, entry.name) for entry in fields(Solution)}
    values["sample_weight"] = shortened(solution.sample_weight)
    values["attack"] = None if losses.attack is not None else PackedStrategy.of(solution.attack)
    shards.traffic.sent += count_bytes([values["sample_weight"], values["attack"]])
    return values, None if losses.attack is None else losses.attack.name


def _received(
    found: tuple[dict[str, Any], int | None],
    rank: Rank,
    share: Share,
    samples: range,
    n_samples: int,
) -> DistributedSolution:
    """The solution as each rank has it."""
    values, attack_name = found
    n_candidates = share.shape[1]
    if attack_name is None:
        attack = values["attack"].unpacked()
        own = attack.part(samples.start, samples.stop)
    else:
        attack = DeferredStrategy(n_samples, n_candidates, _refuse_whole)
        own = rank.state(attack_name)
        if own is None:  # of no samples
            indptr = np.zeros(1, dtype=np.int64)
            own = MixedStrategy(indptr, indptr[:0], np.empty(0), n_candidates)
    values |= {
        "weights": share.restore(values["weights"]),
        "sample_weight": spread_out(values["sample_weight"], n_samples),
        "attack": attack,
    }
    return DistributedSolution(**values, samples=samples, own_attack=own)


def _refuse_whole() -> NoReturn:
    raise MixsolveError(
        "the attack on the samples of all ranks was left on them, for it may have an entry for "
        "every candidate; solution.own_attack is the part of this rank, solution.samples its place"
    )
