"""One game over the ranks of torch.distributed: the answer in memory, on all of them alike."""

import contextlib
import dataclasses
import os
import re
import signal
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks, torchrun
from reference import check_certificate

import mixsolve
from mixsolve import games
from mixsolve.base.errors import ConvergenceWarning, MixsolveError, MixsolveTypeError
from mixsolve.base.tuning import tuning
from mixsolve.methods import METHODS
from mixsolve_torch import DistributedSolution, TorchLosses, solve_distributed
from mixsolve_torch.distributed import ranks, solver, wire
from mixsolve_torch.distributed.patience import group_timeout, is_about_ranks, what_is_wrong

LOSSES = games.gamma_game(60, 6, 3, seed=3).losses
ZERO_ONE = (games.gamma_game(400, 40, 4, seed=5).losses > 1.0).astype(np.uint8)
DRAWS = np.random.default_rng(7)
MASK = DRAWS.random((60, 6)) < 0.8
MASK[:, 0] = True
MASK[13:40] = True  # this rank's share takes nothing away
PRIOR = np.where(MASK, DRAWS.random((60, 6)) + 0.1, np.nan)
WEIGHT = DRAWS.random(60)
WEIGHT[40:] = 0.0  # and this one's samples do not count
ALPHA = 0.02 + 0.1 * DRAWS.random(60)

TIGHT = {"tol": 1e-10}
EXACT = {
    name: {"method": name, **({"max_iter": 30} if name == "oracle" else TIGHT)}
    for name, entry in METHODS.items()
    if entry.exact
}
SOFT = {
    name: {"method": name, **({"max_iter": 40} if name == "apg" else TIGHT)}
    for name, entry in METHODS.items()
    if entry.entropic
}
RULES = {"sample_weight": WEIGHT, "candidate_mask": MASK}


def half_at_most(weights):
    return [weights <= 0.5]


# What is solved: losses, alpha, what is one number a sample or candidate, options.
GAMES = {
    **{f"exact {name}": (LOSSES, 0.0, {}, options) for name, options in EXACT.items()},
    **{f"soft {name}": (LOSSES, 0.05, {}, options) for name, options in SOFT.items()},
    **{
        f"exact {name} with rules": (LOSSES, 0.0, RULES, options) for name, options in EXACT.items()
    },
    **{
        f"soft {name} with rules": (LOSSES, ALPHA, RULES | {"candidate_prior": PRIOR}, options)
        for name, options in SOFT.items()
    },
    "zero-one": (ZERO_ONE, 0.0, {}, TIGHT),
    "zero-one soft": (ZERO_ONE, 0.05, {}, TIGHT),
    "float32": (LOSSES.astype(np.float32), 0.0, {}, TIGHT),
    "constrained": (LOSSES, 0.0, {}, {"constraints": half_at_most, "tol": 1e-9}),
    "warm": (LOSSES, 0.0, {}, {"warm_start": [0.2, 0.3, 0.5], **TIGHT}),
    "unpresolved": (ZERO_ONE, 0.0, {}, {"presolve": False, **TIGHT}),
}
# First sample of each rank, in sixtieths: two and three ranks, uneven, one or two of them empty.
CUTS = {3: [(0, 13, 40, 60), (0, 0, 25, 60), (0, 60, 60, 60)], 2: [(0, 13, 60)]}


def bounds(losses, cuts):
    return [cut * len(losses) // 60 for cut in cuts]


def solved(name, cuts, place, group=None, kind=torch.from_numpy):
    losses, alpha, rules, options = GAMES[name]
    first, last = bounds(losses, cuts)[place : place + 2]
    return solve_distributed(
        kind(losses[first:last]),
        alpha if np.ndim(alpha) == 0 else alpha[first:last],
        group=group,
        **{key: value[first:last] for key, value in rules.items()},
        **options,
    )


def plain(solution):
    """What must be the same on all ranks, to the bit."""
    own = ("samples", "own_attack", "weights")
    values = {key: value for key, value in vars(solution).items() if key not in own}
    return bits(values | {"weights": np.asarray(solution.weights)})


def bits(value):
    """A value that can be compared and hashed, with every bit of its numbers."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return tuple((key, bits(value[key])) for key in sorted(value))
    if isinstance(value, tuple | list):
        return tuple(map(bits, value))
    return bits(vars(value)) if dataclasses.is_dataclass(value) else value


def failing(function, *arguments, **options):
    """The error of a call, as type and words."""
    try:
        function(*arguments, **options)
    except BaseException as error:
        return type(error).__name__, str(error)
    return "nothing", ""


def share(rank, losses=LOSSES):
    return torch.from_numpy(np.array_split(losses, 3)[rank])


def on_three_ranks(rank):
    """Everything that ranks do and survive; keyed by what it is."""
    answers = {}
    pair = dist.new_group([1, 2])
    for name in GAMES:
        for cuts in CUTS[3][: None if name in ("exact lp", "soft newton with rules") else 1]:
            answers[name, 3, cuts] = solved(name, cuts, rank)
        if rank:
            for cuts in CUTS[2]:
                answers[name, 2, cuts] = solved(name, cuts, rank - 1, pair)
    kinds = {0: torch.from_numpy, 1: np.asarray, 2: lambda x: TorchLosses(torch.from_numpy(x), 99)}
    answers["kinds"] = solved("exact lp", CUTS[3][0], rank, kind=kinds[rank])
    types = {0: np.float32, 1: np.float64, 2: np.float64}[rank]
    answers["types"] = solved("exact lp", CUTS[3][0], rank, kind=lambda x: x.astype(types))
    for name, wrong in WRONG.items():
        answers["wrong", name] = failing(wrong, rank)
    answers["not a member"] = failing(solved, "exact lp", CUTS[2][0], 0, pair) if not rank else None
    answers["counted"] = counted(rank)
    answers["warned"] = one_iteration(rank)
    answers["kept"] = kept(rank)
    answers["left"] = left_on_its_rank(rank)
    answers["again"] = solved("exact lp", CUTS[3][0], rank)
    return answers


def wrong_call(rank, there=(1,), losses=LOSSES, **options):
    """A call in which some ranks (the second) are given something else than the others."""
    chosen = {key: (value[1] if rank in there else value[0]) for key, value in options.items()}
    given = chosen.pop("given", share)
    return solve_distributed(given(rank, losses), **chosen)


def with_nan(rank, losses):
    losses = share(rank, losses).clone()
    losses[4, 2, 1] = torch.nan
    return losses


@contextlib.contextmanager
def before_task(act):
    """Call ``act(name)`` on this rank before it runs the task of that name."""

    def run_task(task, *arguments):
        act(task.__name__)
        return original(task, *arguments)

    original = ranks.run_task
    ranks.run_task = run_task
    try:
        yield
    finally:
        ranks.run_task = original


def raising(rank, error):
    """A pass in which the second rank raises."""

    def act(name):
        if rank == 1 and name == "near_winners":
            raise error

    with before_task(act):
        solve_distributed(share(rank))


def interrupting(rank, there):
    """Ctrl-C on one rank, in the middle of a pass."""

    def act(name):
        if rank == there and name == "near_winners":
            os.kill(os.getpid(), signal.SIGINT)

    with before_task(act):
        solve_distributed(share(rank))


def stop_by(error):
    def callback(state):
        raise error

    return callback


def late(state):
    os.kill(os.getpid(), signal.SIGINT)


WRONG = {
    "candidates": partial(wrong_call, given=(share, lambda r, x: share(r, x)[:, :5])),
    "classifiers": partial(wrong_call, given=(share, lambda r, x: share(r, x)[:, :, :2])),
    "axes": partial(wrong_call, given=(share, lambda r, x: share(r, x)[0, 0])),
    "complex": partial(wrong_call, given=(share, lambda r, x: share(r, x) + 1j)),
    "nothing": partial(wrong_call, given=(share, lambda r, x: None)),
    "ragged": partial(wrong_call, given=(share, lambda r, x: [x[0], x[1][:2]])),
    "empty": partial(wrong_call, given=(lambda r, x: share(r, x)[:0],) * 2),
    "nan": partial(wrong_call, given=(share, with_nan)),
    "alpha": partial(wrong_call, alpha=(0.1, 0.2)),
    "alphas": partial(wrong_call, alpha=(0.1, torch.full((20,), 0.1))),
    "alpha negative": partial(wrong_call, alpha=(np.full(20, 0.1), -np.ones(20))),
    "method": partial(wrong_call, method=("lp", "oracle")),
    "tol": partial(wrong_call, there=(0, 2), tol=(1e-6, 1e-8)),
    "warm start": partial(wrong_call, warm_start=([0.2, 0.3, 0.5], None)),
    "weight": partial(wrong_call, sample_weight=(np.ones(20), np.ones(19))),
    "weight negative": partial(wrong_call, sample_weight=(np.ones(20), -np.ones(20))),
    "weight missing": partial(wrong_call, sample_weight=(np.ones(20), None)),
    "weight all zero": partial(wrong_call, sample_weight=(np.zeros(20),) * 2),
    "mask": partial(wrong_call, candidate_mask=(MASK[:20], np.zeros((20, 6), bool))),
    "prior": partial(
        wrong_call, candidate_prior=(np.ones((20, 6)), np.zeros((20, 6))), alpha=(0.1,) * 2
    ),
    "option": partial(wrong_call, tolerance=(1e-6,) * 2),
    "value": partial(wrong_call, tol=(-1.0, -1.0)),
    "pass": partial(raising, error=ValueError("no such thing")),
    "pass refused": partial(raising, error=MixsolveTypeError("wrong type")),
    "pass out of memory": partial(raising, error=MemoryError()),
    "callback": partial(wrong_call, callback=(stop_by(LookupError("enough")),) * 2),
    "interrupted callback": partial(wrong_call, callback=(stop_by(KeyboardInterrupt()),) * 2),
    "Ctrl-C in a callback": partial(wrong_call, callback=(late,) * 2),
    "Ctrl-C on the first": partial(interrupting, there=0),
    "Ctrl-C on the last": partial(interrupting, there=2),
}
# What all ranks say; where a rank was interrupted, or its own callback raised, what it raises.
SAID = {
    "candidates": "same number of candidates on every rank; got 6 on ranks 0 and 2, 5 on rank 1",
    "classifiers": "same number of classifiers on every rank; got 3 on ranks 0 and 2, 2 on rank 1",
    "axes": "rank 1: losses must have three axes",
    "complex": "rank 1: losses must hold real numbers",
    "nothing": "rank 1: losses must be an array of numbers, got NoneType",
    "ragged": "rank 1: losses must have the same number of candidates for every sample",
    "empty": "losses has no samples on any rank",
    "nan": r"rank 1 \(samples 20 to 39\): losses must be finite, got nan .* \(24, 2, 1\)",
    "alpha": "alpha must be the same on every rank; got 0.1 on ranks 0 and 2, 0.2 on rank 1",
    "alphas": "alpha must be the same on every rank; got 0.1 on .*, one per sample on rank 1",
    "alpha negative": r"rank 1: alpha must be finite and >= 0, got -1.0 first at alpha\[0\]",
    "method": "method must be the same on every rank; got 'lp' on .*, 'oracle' on rank 1",
    "tol": "tol must be the same on every rank; got 1e-08 on ranks 0 and 2, 1e-06 on rank 1",
    "warm start": r"warm_start must be the same on every rank; got \[0.2, 0.3, 0.5\] on",
    "weight": r"rank 1: sample_weight must hold one number per sample, shape \(20,\)",
    "weight negative": r"rank 1: sample_weight must be finite and >= 0, got -1.0",
    "weight missing": "sample_weight must be given on every rank .*; got given on ranks 0 and 2",
    "weight all zero": "sample_weight must be positive for at least one sample",
    "mask": "rank 1: candidate_mask leaves sample 0 without a candidate",
    "prior": "rank 1: candidate_prior must be finite and > 0",
    "option": "rank 0: solve_distributed has no option 'tolerance'; it takes method",
    "value": "tol must be a finite number > 0, got -1.0",
    "pass": r"rank 1 \(samples 20 to 39\) stopped the solve: ValueError: no such thing",
    "pass refused": r"rank 1 \(samples 20 to 39\): wrong type",
    "pass out of memory": "rank 1 .* stopped the solve: MemoryError",
    "callback": r"rank 0 \(samples 0 to 19\) stopped the solve: LookupError: enough",
    "interrupted callback": "rank 0 .* stopped the solve: KeyboardInterrupt",
    "Ctrl-C in a callback": "rank 0 .* stopped the solve: KeyboardInterrupt",
    "Ctrl-C on the first": "rank 0 .* stopped the solve: KeyboardInterrupt",
    "Ctrl-C on the last": "rank 2 .* stopped the solve: KeyboardInterrupt",
}
TYPES = dict.fromkeys(("complex", "nothing", "option", "pass refused"), "MixsolveTypeError")
OWN = {
    "callback": (0, "LookupError"),
    "interrupted callback": (0, "KeyboardInterrupt"),
    "Ctrl-C in a callback": (0, "KeyboardInterrupt"),
    "Ctrl-C on the first": (0, "KeyboardInterrupt"),
    "Ctrl-C on the last": (2, "KeyboardInterrupt"),
}


def one_iteration(rank, max_iter=1):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found = solve_distributed(share(rank), method="oracle", max_iter=max_iter)
    kinds = [warning.category.__name__ for warning in heard]
    return found.success, found.nit, kinds.count("ConvergenceWarning")


class Loud:
    """Connections that note what goes over them, and how many numbers."""

    def __init__(self, gloo, log):
        self._gloo, self._log = gloo, log

    def __getattr__(self, name):
        if name == "_set_default_timeout":  # nothing goes over them
            return getattr(self._gloo, name)

        def noted(tensors, *arguments):
            self._log.append((name, tensors[0].numel()))
            return getattr(self._gloo, name)(tensors, *arguments)

        return noted


def left_on_its_rank(rank, cuts=(0, 25, 25, 60)):
    """A Gibbs strategy that counts as large: when it is computed, and what each rank has of it."""
    log = []
    few, tuning.sent_candidates = tuning.sent_candidates, 359
    try:
        with before_task(log.append):
            found = solved("soft newton with rules", cuts, rank)
    finally:
        tuning.sent_candidates = few
    computed = "indptr" in vars(found.own_attack)
    whole = failing(lambda: found.attack.indptr)
    return log, computed, whole, len(found.attack), found.samples, found.own_attack.dense()


def counted(rank):
    """What goes on, in order: tasks, and what is sent for each."""
    log = []
    connections = wire._connections
    quiet = connections[dist.group.WORLD]
    connections[dist.group.WORLD] = Loud(quiet, log)
    with before_task(lambda name: log.append(("task", name))):
        found = solve_distributed(share(rank), 0.05, method="newton", presolve=False)
    connections[dist.group.WORLD] = quiet
    return log, found.n_passes


def kept(rank):
    """Tasks of a long solve, and the most states that a rank has meanwhile."""
    here, most = [], []

    class Watched(ranks.Rank):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            here.append(self)

    solver.Rank = Watched
    try:
        with before_task(lambda name: most.append(len(here[0]._states))):
            one_iteration(rank, 60)
    finally:
        solver.Rank = ranks.Rank
    return len(most), max(most)


@pytest.fixture(scope="module")
def three(tmp_path_factory, in_memory):
    """What three ranks answered, rank by rank; they find the kernels compiled for `in_memory`."""
    return run_ranks(3, on_three_ranks, tmp_path_factory.mktemp("three"))


@pytest.fixture(scope="module")
def in_memory():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # Algorithm 1 has few iterations
        return {
            name: mixsolve.solve(losses, alpha, **rules, **options)
            for name, (losses, alpha, rules, options) in GAMES.items()
        }


@pytest.mark.parametrize("name", GAMES)
def test_the_answer_is_that_in_memory_and_the_same_on_all_ranks(name, three, in_memory):
    losses, alpha, rules, options = GAMES[name]
    cases = [case for case in three[1] if case[0] == name]
    assert len(cases) > 1
    for case in cases:
        _, size, cuts = case
        found = [answers[case] for answers in three if case in answers]
        assert len(found) == size
        assert len({plain(solution) for solution in found}) == 1
        edges = bounds(losses, cuts)
        spans = [range(*edges[place : place + 2]) for place in range(size)]
        assert [solution.samples for solution in found] == spans
        one, known = found[0], in_memory[name]
        if "constraints" not in options:
            check_certificate(one, losses, alpha, **rules)
        assert one.status == known.status
        assert abs(one.value - known.value) <= 1e-9
        if one.method in ("oracle", "apg"):  # the same steps
            assert one.nit == known.nit
            assert abs(one.lower_bound - known.lower_bound) <= 1e-9
        assert type(one) is DistributedSolution
        assert type(one.weights) is torch.Tensor
        assert one.weights.dtype == torch.float64
        np.testing.assert_allclose(one.weights, known.weights, atol=1e-5)
        own = [solution.own_attack.dense() for solution in found]
        np.testing.assert_array_equal(np.concatenate(own), one.attack.dense())


def test_a_large_gibbs_strategy_stays_on_the_ranks(three, in_memory):
    found = [answers["left"] for answers in three]
    for log, _, (kind, words), n_samples, _, _ in found:
        assert "deferred_gibbs" in log
        assert "gibbs" not in log
        assert kind == "MixsolveError"
        assert "solution.own_attack is the part of this rank" in words
        assert n_samples == 60
    # The rank without samples has nothing to compute.
    assert [computed for _, computed, *_ in found] == [False, True, False]
    assert [samples for *_, samples, _ in found] == [range(25), range(25, 25), range(25, 60)]
    dense = np.concatenate([own for *_, own in found])
    known = in_memory["soft newton with rules"].attack.dense()
    np.testing.assert_allclose(dense, known, atol=1e-6)


def test_ranks_may_have_different_kinds_of_arrays(three, in_memory):
    found = [answers["kinds"] for answers in three]
    assert [type(one.weights) for one in found] == [torch.Tensor, np.ndarray, torch.Tensor]
    assert len({plain(one) for one in found}) == 1
    assert abs(found[0].value - in_memory["exact lp"].value) <= 1e-9
    assert 0 < abs(three[0]["types"].value - found[0].value) < 1e-6  # a share of it is float32


@pytest.mark.parametrize("name", WRONG)
def test_all_ranks_stop_with_one_error(name, three):
    came = [answers["wrong", name] for answers in three]
    place, kind = OWN.get(name, (None, None))
    if place is not None:
        assert came.pop(place)[0] == kind
    assert len(set(came)) == 1
    kind, words = came[0]
    assert kind == TYPES.get(name, "MixsolveError")
    assert re.search(SAID[name], words), words


def test_only_members_of_the_group_may_call(three):
    kind, words = three[0]["not a member"]
    assert kind == "MixsolveError"
    assert words.startswith("group does not have this rank as a member; call")


def test_ranks_solve_again_after_errors(three):
    cuts = CUTS[3][0]
    for answers in three:
        again, before = answers["again"], answers["exact lp", 3, cuts]
        assert again.weights.tolist() == before.weights.tolist()


def test_the_first_rank_alone_warns(three):
    assert [answers["warned"] for answers in three] == [(False, 1, 1), (False, 1, 0), (False, 1, 0)]


def test_a_pass_is_one_broadcast_and_one_all_reduce(three):
    n = LOSSES.shape[2]
    whole = {
        "open_shard": 0,
        "near_winners": 2 + n,
        "near_response": 2 + n,
        "soft_response": 1 + n + n * n,
        "best_response": 1 + n,
        "gibbs": 0,
    }
    for answers in three:
        log, n_passes = answers["counted"]
        while log[0][0] != "broadcast":  # ranks meet
            log.pop(0)
        log.pop(0)
        rounds = []
        for name, what in log:
            if name == "broadcast":
                rounds.append({"messages": 0})
            if name in ("send", "recv"):
                rounds[-1]["messages"] += 1
            else:
                assert name not in rounds[-1]
                rounds[-1][name] = what
        solution = [each for each in rounds if "task" not in each]
        assert rounds[-len(solution) :] == solution
        asked = rounds[: -len(solution)]
        assert all({"broadcast", "task", "allreduce"} <= each.keys() for each in asked)
        passes = [each for each in asked if each["task"] in whole]
        assert int(n_passes) == len(passes)
        for each in passes:
            n_sums = each["allreduce"] - len(three)  # a place for each rank goes in front
            assert n_sums <= whole[each["task"]]
            if each["task"] == "soft_response":
                assert each["messages"] == 0
                assert n_sums >= 1 + n


def test_what_ranks_keep_is_dropped(three):
    for answers in three:
        asked, most = answers["kept"]
        assert asked > 60
        assert most < 12


def lose_ranks(rank):
    """The last rank is killed in its pass, then the first one between two passes."""
    pair = dist.new_group([0, 1])
    first = solve_distributed(share(rank), group=pair) if rank < 2 else None

    def die(name):
        if rank == 2 and name == "near_winners":
            os.kill(os.getpid(), signal.SIGKILL)

    def die_first(state):
        os.kill(os.getpid(), signal.SIGKILL)

    with before_task(die):
        lost = failing(solve_distributed, share(rank))
    again = failing(solve_distributed, share(rank))
    still = solve_distributed(share(rank), group=pair)
    assert still.weights.tolist() == first.weights.tolist()
    second = failing(solve_distributed, share(rank), group=pair, callback=die_first)
    return lost, again, second


def test_survivors_of_a_lost_rank_get_an_error(tmp_path):
    answers = run_ranks(3, lose_ranks, tmp_path)
    assert [answer is None for answer in answers] == [True, False, True]
    lost, again, second = answers[1]
    for kind, words in (lost, second):
        assert kind == "MixsolveError"
        assert "rank 1 cannot reach the other ranks any more" in words
    assert again[0] == "MixsolveError"
    assert "lost in an earlier call; start all ranks again" in again[1]


def stop_a_rank(folder, rank):
    """The last rank is stopped in its pass, then the next before it calls; the first ends them."""
    (folder / f"pid{rank}").write_text(str(os.getpid()))
    solve_distributed(share(rank))  # what is compiled is compiled
    seconds = timedelta(seconds=4)
    groups = [dist.new_group(ranks, timeout=seconds) for ranks in ([0, 1, 2], [0, 1])]

    def stop(name):
        if rank == 2 and name == "near_winners":
            os.kill(os.getpid(), signal.SIGSTOP)

    with before_task(stop):
        in_a_pass = failing(solve_distributed, share(rank), group=groups[0])
    if rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    before_it_calls = failing(solve_distributed, share(rank), group=groups[1])
    for other in (1, 2):
        os.kill(int((folder / f"pid{other}").read_text()), signal.SIGKILL)
    return in_a_pass, before_it_calls


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs signals")
def test_a_rank_that_stops_is_waited_for_as_long_as_the_group_says(tmp_path):
    answers = run_ranks(3, partial(stop_a_rank, tmp_path), tmp_path)
    assert [answer is None for answer in answers] == [False, True, True]
    for kind, words in answers[0]:
        assert kind == "MixsolveError"
        assert "rank 0 cannot reach the other ranks any more: one of them did not answer" in words
        assert "within 4 s, the timeout of the process group: it hangs, is stopped" in words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("[gloo/unbound_buffer.cc:81] Timed out waiting 5000ms for recv"), "did not"),
        (dist.DistStoreError("wait timeout after 4000ms, keys: /x"), "did not answer within 5 s"),
        (RuntimeError("[gloo/pair.cc:538] Connection closed by peer [::1]:4"), "was killed"),
        (dist.DistBackendError("NCCL error: remote process exited"), "was killed"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), None),
        (RuntimeError("the graph is disconnected"), None),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), None),
        (ValueError("Timed out"), None),
        (None, None),
    ],
)
def test_errors_that_are_about_other_ranks_are_told_apart(error, words):
    assert is_about_ranks(error) == (words is not None)
    if words is not None:
        assert words in what_is_wrong(1, timedelta(seconds=5), error)


def test_the_timeout_is_that_of_the_group():
    seconds = timedelta(seconds=70)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1, timeout=seconds)
    try:
        assert group_timeout() == seconds
        assert group_timeout(dist.new_group([0], timeout=2 * seconds)) == 2 * seconds
    finally:
        dist.destroy_process_group()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert group_timeout() == timedelta(minutes=30)  # PyTorch's own
    finally:
        dist.destroy_process_group()


def test_one_rank_is_enough(in_memory):
    with pytest.raises(MixsolveError, match=r"no process group.*init_process_group"):
        solve_distributed(LOSSES)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        found = solve_distributed(LOSSES, tol=1e-10)
        losses = LOSSES.copy()
        losses[7, 1, 2] = np.inf
        with pytest.raises(MixsolveError, match=r"rank 0 \(samples 0 to 59\): .*index \(7, 1, 2\)"):
            solve_distributed(losses)
    finally:
        dist.destroy_process_group()
    assert found.samples == range(60)
    assert abs(found.value - in_memory["exact lp"].value) <= 1e-9


def test_the_example_runs_under_torchrun(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "scaling.md").read_text(encoding="utf-8")
    (code,) = (
        block
        for block in re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
        if "solve_distributed" in block
    )
    script = tmp_path / "game.py"
    script.write_text(code + "\nprint(solution.weights.tolist(), solution.samples)\n")
    done = torchrun("--standalone", script, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    weights = re.findall(r"\[.*?\]", done.stdout)
    assert len(weights) == 2
    assert weights[0] == weights[1]
    assert "range(0, 1000)" in done.stdout
    assert "range(1000, 2000)" in done.stdout
    assert "optimal 2000" in done.stdout
