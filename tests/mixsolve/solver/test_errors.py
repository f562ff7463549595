"""Every wrong input is refused with the argument's name, what came, and where."""

import datetime
import pathlib
import re

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

import mixsolve
from mixsolve import MixsolveError, MixsolveTypeError, games
from mixsolve.base.errors import ConvergenceWarning, MissingDependencyError

N, m, L = 4, 3, 2
GOOD = np.linspace(0.0, 1.0, N * m * L).reshape(N, m, L)


def with_entry(value, index=(2, 1, 0), dtype=np.float64):
    losses = GOOD.astype(dtype)
    losses[index] = value
    return losses


def masked(*candidates, sample=1):
    mask = np.ones((N, m), bool)
    mask[sample, list(candidates)] = False
    return mask


def refused(error, argument, *words, **arguments):
    """`solve` raises `error`, and its message has the argument's name and every other word."""
    losses = arguments.pop("losses", GOOD)
    with pytest.raises(error) as caught:
        mixsolve.solve(losses, **arguments)
    message = str(caught.value)
    assert isinstance(caught.value, MixsolveError)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in message
    for word in (argument, *words):
        assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)", message), (word, message)


def test_the_errors_are_what_callers_catch():
    assert issubclass(MixsolveError, ValueError)
    assert issubclass(MixsolveTypeError, MixsolveError)
    assert issubclass(MixsolveTypeError, TypeError)
    assert not issubclass(MixsolveError, TypeError)
    assert issubclass(MissingDependencyError, ImportError)
    assert issubclass(MissingDependencyError, MixsolveError)
    assert issubclass(ConvergenceWarning, UserWarning)
    assert mixsolve.ConvergenceWarning is ConvergenceWarning


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.longdouble, ">f8"])
def test_losses_not_finite(bad, dtype):
    losses = with_entry(bad, dtype=dtype)
    losses[3, 0, 1] = bad  # a later one, which is not the first
    refused(MixsolveError, "losses", str(bad), "2, 1, 0", losses=losses)


def test_the_first_of_several_is_found_whatever_the_memory_order():
    losses = with_entry(np.inf, (3, 2, 1))
    losses[1, 2, 1] = np.nan
    refused(MixsolveError, "losses", "nan", "1, 2, 1", losses=losses)
    refused(MixsolveError, "losses", "nan", "1, 2, 1", losses=np.asfortranarray(losses))
    refused(MixsolveError, "losses", "inf", "0, 2, 1", losses=losses[::-1])
    refused(MixsolveError, "losses", "nan", "1, 2, 1", losses=list(losses))
    refused(MixsolveError, "losses", "nan", "1, 2, 1", losses=losses.tolist())
    refused(MixsolveError, "losses", "nan", "1, 2, 1", losses=torch.from_numpy(losses))
    refused(MixsolveError, "losses", "nan", "1, 2, 1", losses=torch.from_numpy(losses).bfloat16())
    ragged = [GOOD[0], losses[1], GOOD[2, :1], GOOD[3]]
    refused(MixsolveError, "losses", "nan", "1, 2, 1", losses=ragged)


def test_the_last_sample_of_a_large_tensor_is_looked_at():
    losses = np.zeros((20_000, 10, 5), np.float32)
    losses[-1, -1, -1] = np.nan
    refused(MixsolveError, "losses", "nan", "19999, 9, 4", losses=losses)
    refused(MixsolveError, "losses", "nan", "0, 9, 4", losses=losses[::-1])


@pytest.mark.parametrize("method", ["lp", "oracle", "cvxpy"])
def test_not_finite_with_every_exact_method(method):
    refused(MixsolveError, "losses", "nan", losses=with_entry(np.nan), method=method)


@pytest.mark.parametrize("method", ["newton", "apg", "cvxpy"])
def test_not_finite_with_every_entropic_method(method):
    refused(MixsolveError, "losses", "nan", losses=with_entry(np.nan), alpha=0.1, method=method)


def test_losses_whose_spread_overflows():
    losses = with_entry(1.7e308)
    losses[0, 0, 0] = -1.7e308
    refused(MixsolveError, "losses", "overflows", losses=losses)


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (GOOD.astype(np.complex128), ["complex128"]),
        (GOOD.astype(np.complex64), ["complex64"]),
        (torch.from_numpy(GOOD).to(torch.complex64), ["complex64"]),
        ((GOOD + 1j).tolist(), ["complex128"]),
        ("losses.npy", ["str"]),
        (b"losses", ["bytes"]),
        (GOOD.astype(str), ["U32"]),
        (GOOD.astype(str).tolist(), []),
        (GOOD.astype(object), ["object"]),
        (np.full((N, m, L), None), ["object"]),
        (GOOD.astype("M8[s]"), ["datetime64[s]"[:10]]),
        (None, ["NoneType"]),
        (1.0, ["float"]),
        (datetime.date(2021, 7, 18), []),
        (object(), []),
        (np.ma.masked_array(GOOD, mask=GOOD > 0.5), ["mask"]),
        (torch.from_numpy(GOOD).to_sparse(), ["sparse"]),
    ],
    ids=str,
)
def test_losses_of_a_wrong_type(losses, words):
    with pytest.raises(MixsolveTypeError) as caught:
        mixsolve.solve(losses)
    assert isinstance(caught.value, TypeError)
    for word in ["losses", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (csr_array(GOOD[0]), ["csr_array", "sparse", ".toarray()"]),
        ([csr_array(table) for table in GOOD], ["losses[0]", "sparse"]),
        ((table for table in GOOD), ["generator", "list(...)"]),
        (map(list, GOOD), ["map", "list(...)"]),
        (pathlib.Path("losses.npy"), ["numpy.load"]),
        ("losses.npy", ["numpy.load"]),
        (dict(enumerate(GOOD)).values(), ["dict_values"]),
        (games.line_game(), ["Game", "pass its .losses"]),
        (torch.nn.Linear(2, 2), ["Linear"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_array_is_said_with_its_mend(losses, words):
    for solve in (mixsolve.solve, mixsolve.solve_batch):
        if isinstance(losses, list) and solve is mixsolve.solve_batch:
            continue
        with pytest.raises(MixsolveTypeError) as caught:
            solve(losses)
        assert "unequal length" not in str(caught.value)
        for word in ["losses", *words]:
            assert word in str(caught.value)


@pytest.mark.parametrize("name", ["sample_weight", "candidate_mask", "alpha"])
def test_the_same_for_other_arguments(name):
    for value in ((1.0 for _ in range(N)), csr_array(np.ones((N, m))), pathlib.Path("w.npy")):
        with pytest.raises(MixsolveTypeError, match=name) as caught:
            mixsolve.solve(GOOD, **{name: value})
        assert "unequal length" not in str(caught.value)


def test_what_the_plugin_builds_is_taken():
    from mixsolve_torch import CandidateLosses

    values, labels = torch.tensor(GOOD), torch.zeros(N, dtype=torch.int64)
    built = CandidateLosses(values, labels, ("clean",) * m, "zero-one")
    found, expected = mixsolve.solve(built), mixsolve.solve(values)
    assert torch.equal(found.weights, expected.weights)
    batch = mixsolve.solve_batch([built, built])
    assert torch.equal(batch.weights[0], mixsolve.solve_batch(values[None]).weights[0])


@pytest.mark.parametrize(
    "shape", [(), (3,), (4, 3, 2, 1), (0, 3), (0, 3, 2), (4, 0, 2), (4, 3, 0), (0, 0, 0), (0,)]
)
@pytest.mark.parametrize("kind", [np.zeros, torch.zeros])
def test_losses_of_a_wrong_shape(shape, kind):
    refused(MixsolveError, "losses", str(shape)[1:-1].rstrip(","), losses=kind(shape))


def test_empty_and_ragged_lists():
    refused(MixsolveError, "losses", losses=[])
    refused(MixsolveError, "losses", losses=[[]])
    refused(MixsolveError, "losses", losses=[[[]]])
    refused(MixsolveError, "losses[1]", "1", "2", losses=[GOOD[0], GOOD[1, :, :1]])
    refused(MixsolveError, "losses[1]", "3", losses=[GOOD[0], GOOD[1, :, 0]])
    refused(MixsolveError, "losses[2]", "0, 2", losses=[GOOD[0], GOOD[1], GOOD[2, :0]])
    refused(MixsolveError, "losses", losses=[[[0.0, 1.0], [1.0]]])
    refused(MixsolveTypeError, "losses[1]", "complex128", losses=[GOOD[0], GOOD[1] * 1j])
    refused(MixsolveTypeError, "losses[1]", losses=[GOOD[0], GOOD[1].astype(object)])
    refused(MixsolveTypeError, "losses[1]", losses=[GOOD[0], "x"])


@pytest.mark.parametrize(
    ("alpha", "words"),
    [
        (-0.5, ["-0.5"]),
        (np.nan, ["nan"]),
        (np.inf, ["inf"]),
        ([0.1, 0.2, np.nan, 0.1], ["nan", "2"]),
        ([0.1, -1.0, 0.2, -2.0], ["-1.0", "1"]),
        ([0.1, 0.2], ["4", "2"]),
        ([0.1] * 5, ["4", "5"]),
        ([], ["4"]),
        (np.full((N, 1), 0.1), ["4, 1"]),
        ([0.1, 0.0, 0.1, 0.1], ["0.0", "1"]),
    ],
    ids=str,
)
def test_alpha(alpha, words):
    refused(MixsolveError, "alpha", *words, alpha=alpha)


@pytest.mark.parametrize("alpha", ["0.1", None, 1j, [0.1, 0.1, 0.1, "x"], object()], ids=repr)
def test_alpha_of_a_wrong_type(alpha):
    refused(MixsolveTypeError, "alpha", alpha=alpha)


@pytest.mark.parametrize(
    ("sample_weight", "words"),
    [
        ([0.5, -0.25, 0.5, 0.25], ["-0.25", "1"]),
        ([0.5, 0.25, np.nan, 0.25], ["nan", "2"]),
        ([0.5, 0.25, 0.25, np.inf], ["inf", "3"]),
        ([0.0, 0.0, 0.0, 0.0], ["zeros"]),
        ([0.5, 0.5], ["4", "2"]),
        (np.ones((N, 1)), ["4, 1"]),
        (1.0, ["4"]),
    ],
    ids=str,
)
def test_sample_weight(sample_weight, words):
    refused(MixsolveError, "sample_weight", *words, sample_weight=sample_weight)


@pytest.mark.parametrize("sample_weight", ["uniform", ["a"] * 4, np.ones(4) * 1j], ids=repr)
def test_sample_weight_of_a_wrong_type(sample_weight):
    refused(MixsolveTypeError, "sample_weight", sample_weight=sample_weight)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (masked(0, 1, 2), ["sample 1"]),
        (np.zeros((N, m), bool), ["sample 0"]),
        (np.ones((N, m, L), bool), ["4, 3, 2"]),
        (np.ones(m, bool), ["4, 3"]),
        (np.ones((m, N), bool), ["3, 4"]),
        ([[True] * 3, [True] * 2, [True] * 3, [True] * 3], []),
    ],
    ids=["all of one", "all", "too many axes", "too few axes", "transposed", "ragged"],
)
def test_candidate_mask(mask, words):
    refused(MixsolveError, "candidate_mask", *words, candidate_mask=mask)


@pytest.mark.parametrize("mask", [np.full((N, m), 0.5), np.full((N, m), 2), "all"], ids=repr)
def test_candidate_mask_of_a_wrong_type(mask):
    refused(MixsolveTypeError, "candidate_mask", candidate_mask=mask)


def prior_with(value, index=(2, 1)):
    prior = np.ones((N, m))
    prior[index] = value
    return prior


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (prior_with(-1.0), ["-1.0", "sample 2", "candidate 1"]),
        (prior_with(np.nan), ["nan", "sample 2", "candidate 1"]),
        (prior_with(np.inf), ["inf", "sample 2", "candidate 1"]),
        (np.zeros((N, m)), ["0.0", "sample 0", "candidate 0"]),
        (np.ones((m, N)), ["3, 4"]),
    ],
    ids=["negative", "nan", "inf", "zeros", "transposed"],
)
def test_candidate_prior(prior, words):
    refused(MixsolveError, "candidate_prior", *words, alpha=0.1, candidate_prior=prior)


@pytest.mark.parametrize(
    ("warm_start", "words"),
    [
        ([0.5, 0.6], ["1.1"]),
        ([0.0, 0.0], ["0"]),
        ([1.5, -0.5], ["-0.5", "1"]),
        ([np.nan, 0.5], ["nan", "0"]),
        ([0.2, 0.3, 0.5], ["2", "3"]),
        ([[0.5, 0.5]], ["1, 2"]),
        (0.5, ["2"]),
    ],
    ids=str,
)
def test_warm_start(warm_start, words):
    refused(MixsolveError, "warm_start", *words, warm_start=warm_start)


def test_warm_start_of_another_game():
    other = mixsolve.solve(np.eye(3)[None])
    refused(MixsolveError, "warm_start", "2", "3", warm_start=other)


def test_warm_start_of_a_wrong_type():
    refused(MixsolveTypeError, "warm_start", warm_start="uniform")


def test_method():
    refused(MixsolveError, "method", "'simplex'", "lp", "newton", "cvxpy", method="simplex")
    refused(MixsolveTypeError, "method", "NoneType", method=None)


@pytest.mark.parametrize("method", ["lp", "oracle"])
def test_an_exact_method_refuses_alpha(method):
    refused(MixsolveError, "alpha", f"'{method}'", method=method, alpha=0.1)
    refused(MixsolveError, "alpha", f"'{method}'", method=method, alpha=[0.1] * N)


@pytest.mark.parametrize("method", ["newton", "entropic", "apg"])
def test_an_entropic_method_needs_alpha(method):
    name = "newton" if method == "entropic" else method
    refused(MixsolveError, "alpha", f"'{name}'", method=method)


def test_constraints_that_cannot_be_used():
    refused(MixsolveTypeError, "constraints", "str", constraints="weights <= 0.5")
    refused(MixsolveError, "constraints", "NoneType", constraints=lambda weights: None)
    refused(MixsolveError, "constraints", "DCP", constraints=lambda w: [w @ w >= 0.6])
    refused(MixsolveError, "A_ub", "b_ub", A_ub=[[1.0, 0.0]])
    refused(MixsolveError, "constraints", "2 in all", "3", A_ub=[[1.0, 0.0, 0.0]], b_ub=[1.0])


@pytest.mark.parametrize("name", ["tol", "time_limit"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_a_number_that_must_be_positive(name, value):
    refused(MixsolveError, name, str(value), **{name: value})


@pytest.mark.parametrize("name", ["tol", "time_limit", "max_iter"])
@pytest.mark.parametrize("value", ["1", [1.0], True, 1j], ids=repr)
def test_a_number_of_a_wrong_type(name, value):
    refused(MixsolveTypeError, name, **{name: value})


def test_max_iter():
    refused(MixsolveError, "max_iter", "0", max_iter=0)
    refused(MixsolveError, "max_iter", "-3", max_iter=-3)
    refused(MixsolveTypeError, "max_iter", "2.5", max_iter=2.5)


@pytest.mark.parametrize("name", ["presolve", "verbose"])
@pytest.mark.parametrize("value", ["no", 0, 1, None, [], np.ones(2)], ids=repr)
def test_what_says_yes_or_no_is_a_boolean(name, value):
    refused(MixsolveTypeError, name, "True or False", **{name: value})
    with pytest.raises(MixsolveTypeError, match=name):
        mixsolve.solve_path(GOOD, [0.1], **{name: value})
    with pytest.raises(MixsolveTypeError, match=name):
        mixsolve.solve_cardinality_path(GOOD, **{name: value})


def test_booleans_of_numpy_say_yes_or_no_too():
    expected = mixsolve.solve(GOOD, presolve=False)
    assert mixsolve.solve(GOOD, presolve=np.bool_(False)).value == expected.value


def test_other_options_that_say_yes_or_no():
    from mixsolve_torch import PGD, game_value, load_data

    with pytest.raises(MixsolveTypeError, match="keep_attack"):
        mixsolve.solve_batch(GOOD[None], keep_attack="no")
    with pytest.raises(MixsolveTypeError, match="include_point"):
        games.paper2d(5, 5, 2, include_point="no")
    with pytest.raises(MixsolveTypeError, match="random_start"):
        PGD("Linf", 0.1, random_start="no")
    with pytest.raises(MixsolveTypeError, match="keep_restarts"):
        PGD("Linf", 0.1, keep_restarts="no")
    with pytest.raises(MixsolveTypeError, match="return_solution"):
        game_value(torch.tensor(GOOD), return_solution="no")
    with pytest.raises(MixsolveTypeError, match="download"):
        load_data("digits", download="no")


@pytest.mark.parametrize("value", [True, False, np.True_, [True] * N, [0.1, True, 0.1, 0.1]])
def test_booleans_are_no_alpha(value):
    refused(MixsolveTypeError, "alpha", "booleans", alpha=value)
    with pytest.raises(MixsolveTypeError, match="alpha"):
        mixsolve.solve_batch(GOOD[None], value)


def test_booleans_are_no_quantities():
    refused(MixsolveTypeError, "warm_start", warm_start=[True, False])
    prior = np.ones((N, m), bool)
    refused(MixsolveTypeError, "candidate_prior", alpha=0.1, candidate_prior=prior)
    with pytest.raises(MixsolveTypeError, match="candidate_prior"):
        mixsolve.solve_batch(GOOD[None], 0.1, candidate_prior=prior)
    with pytest.raises(MixsolveTypeError, match="alphas"):
        mixsolve.solve_path(GOOD, [True, 0.1])
    solution = mixsolve.solve(GOOD)
    for call in (lambda: solution.attack[True], lambda: solution.attack.sample(True)):
        with pytest.raises(MixsolveTypeError, match="integer"):
            call()
    with pytest.raises(MixsolveError, match="rng"):
        solution.attack.sample(-1)
    with pytest.raises(MixsolveError, match=r"weights .*3 in all.*\(2,\)"):
        mixsolve.feasible.constraints.weight_bounds(3).violation([0.5, 0.5])


def test_booleans_choose_samples_and_candidates():
    chosen = np.array([True, False, True, True])
    found = mixsolve.solve(GOOD, sample_weight=chosen)
    assert found.value == mixsolve.solve(GOOD, sample_weight=chosen.astype(float)).value


def test_callback_that_cannot_be_called():
    refused(MixsolveTypeError, "callback", "int", callback=3)


def test_an_error_of_the_callback_reaches_the_caller():
    def callback(state):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        mixsolve.solve(GOOD, 0.1, callback=callback)
