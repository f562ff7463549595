"""Tensors solved where they lie: every pass, every method, what is refused and what travels.

The passes answer to the same tests as the memory engine's, in `every_engine`.
"""

import sys

import numpy as np
import pytest
import torch
from corpus import entropic_game, exact_game, magnitude_of, spread_of
from every_engine import (  # noqa: F401
    Case,
    everything_an_engine_says,
    make,
    pairs,
    test_best_response,
    test_derivatives_by_finite_differences,
    test_every_candidate_and_gather,
    test_gibbs,
    test_limits_of_the_soft_response,
    test_log_prior,
    test_losses_under_the_gibbs_strategy_are_the_gradient,
    test_lower_bound_is_one,
    test_near_response,
    test_passes_are_counted,
    test_range_of_the_losses,
    test_rough_response_has_the_same_value_and_gradient,
    test_soft_answer_is_the_three_responses,
    test_soft_response,
    test_strategy_and_expected_losses,
    test_strategy_of_pure_responses,
    test_subsample,
)
from reference import check_certificate

import mixsolve
from mixsolve import MixsolveError, MixsolveTypeError, games
from mixsolve.base.tuning import tuning
from mixsolve.engines.memory import MemoryEngine
from mixsolve.solver import validation
from mixsolve_torch import TorchLosses
from mixsolve_torch.engine import losses as torch_engine
from mixsolve_torch.engine import passes as engine_passes
from mixsolve_torch.engine.chunks import TorchEngine

KINDS = [
    "float64", "float32", "uint8", "bool", "int64", "strided", "masked", "masked float32", "prior",
    "masked prior", "weights", "far from zero", "one sample", "one candidate", "one classifier",
    "two classifiers", "one number",
]  # fmt: skip


WHOLE = 1 << 18  # losses in a chunk: more than most of these games have


def engine_of(losses, sample_weight=None, mask=None, prior=None, chunk=None):
    opened = TorchLosses(torch.as_tensor(losses), chunk or WHOLE)
    weight = validation.check_sample_weight(sample_weight, opened.n_samples)
    allowed = validation.check_candidate_mask(mask, opened)
    measure = validation.check_candidate_prior(prior, opened, allowed)
    return opened.engine(weight, allowed, measure)


def on_device(case, chunk=None):
    """The same case with the torch engine in place of the memory engine."""
    case.memory = case.engine
    case.engine = engine_of(case.losses, case.weight, case.mask, case.prior, chunk)
    return case


@pytest.fixture(params=[None, 100], ids=["whole", "in pieces"])
def chunk(request):
    return request.param


@pytest.fixture(
    params=[
        "float64", "uint8", "masked float32", "masked prior", "weights", "far from zero",
        "one sample", "one classifier", "one number", "masked prior whole",
    ]
)  # fmt: skip
def case(request):
    """In a few chunks, but for one of the games."""
    kind = request.param.removesuffix(" whole")
    return on_device(make(kind), 300 if kind == request.param else None)


@pytest.mark.parametrize("slack", [True, False], ids=["slack", "winners"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_engine_says_the_same(kind, slack):
    case = on_device(make(kind))
    rng = np.random.default_rng(3)
    n = case.engine.n_samples
    weights = rng.dirichlet(np.ones(case.size))
    alpha = max(case.engine.spread, 1.0) * rng.uniform(0.05, 0.5, n)
    room = 0.1 * case.engine.spread * rng.random(n) if slack else None
    ours = everything_an_engine_says(case.engine, weights, alpha, room)
    theirs = everything_an_engine_says(case.memory, weights, alpha, room)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
        assert np.asarray(one).dtype == np.asarray(other).dtype


def test_ties_go_to_the_first_candidate(chunk):
    losses = np.array([[[0, 4], [2, 2], [4, 0], [2, 2]], [[1, 1], [1, 1], [0, 2], [1, 0]]])
    weights = np.array([0.5, 0.5])
    for dtype in (np.float64, np.float32, np.uint8):
        engine = engine_of(losses.astype(dtype), chunk=chunk)
        np.testing.assert_array_equal(engine.best_response(weights).candidates, [0, 0])
        np.testing.assert_array_equal(engine.near_response(weights, 0.0, 9).candidates, [0, 0])
    mask = np.array([[False, True, True, True], [False] * 2 + [True] * 2])
    engine = engine_of(losses, mask=mask, chunk=chunk)
    np.testing.assert_array_equal(engine.best_response(weights).candidates, [1, 2])


def test_of_many_near_rows_those_are_listed_that_win_when_one_weight_changes(chunk):
    case = on_device(Case(np.random.default_rng(3).gamma(0.5, 1.5, (20, 60, 3))), chunk)
    weights = np.full(3, 1.0 / 3.0)
    for radius in (0.1, 0.5):
        near = case.engine.near_response(weights, radius, case.engine.n_rows)
        assert pairs(near) == pairs(case.memory.near_response(weights, radius, case.engine.n_rows))
        slack = np.zeros(20)
        assert near.n_near < case.engine.near_response(weights, radius, 9, slack).n_near


@pytest.mark.parametrize("kind", ["float64", "masked"])
def test_near_rows_beyond_the_limit_are_counted_and_dropped(kind):
    case = on_device(make(kind))
    weights = np.full(case.size, 1.0 / case.size)
    slack = np.full(case.engine.n_samples, 0.5 * case.engine.spread)
    whole = case.engine.near_response(weights, 0.1, case.engine.n_rows, slack)
    for limit in (0, 1, 7, whole.n_near - 1, whole.n_near):
        near = case.engine.near_response(weights, 0.1, limit, slack)
        assert near.n_near == whole.n_near > 10
        assert pairs(near) == pairs(whole)[:limit]
    pieces = on_device(make(kind), 64).engine.near_response(weights, 0.1, 40, slack)
    assert pieces.n_near == whole.n_near
    assert 0 < pieces.near_samples.size <= 40
    assert set(pairs(pieces)) < set(pairs(whole))


def test_candidates_beyond_16_bits():
    losses = np.zeros((2, 40_000, 1), np.float32)
    losses[0, 35_000] = losses[1, 39_999] = 1.0
    engine = engine_of(losses)
    np.testing.assert_array_equal(engine.best_response(np.ones(1)).candidates, [35_000, 39_999])
    candidates, _ = engine.gibbs(np.ones(1), np.full(2, 1e-3))[1]
    np.testing.assert_array_equal(candidates, [39_999])


CORPUS = [seed for seed in range(50) if seed % 25 != 16]  # a ragged list is no tensor


def as_tensor(losses):
    return TorchLosses(torch.as_tensor(losses), chunk=64)


def assert_same(losses, options, alpha, method, presolve=True):
    settings = {"method": method, "presolve": presolve, "tol": 1e-9}
    expected = mixsolve.solve(losses, alpha, **settings, **options)
    found = mixsolve.solve(as_tensor(losses), alpha, **settings, **options)
    M, digits = spread_of(losses, options), 1e-13 * magnitude_of(losses, options)
    check_certificate(found, losses, alpha, **options)
    assert abs(found.value - expected.value) <= 2e-9 * M + digits
    assert abs(found.risk - expected.risk) <= 1e-4 * M + digits  # several weights may be optimal
    assert abs(found.lower_bound - expected.lower_bound) <= 2e-9 * M + digits
    assert type(found.weights) is torch.Tensor
    assert found.weights.dtype == torch.float64


@pytest.mark.parametrize("seed", CORPUS)
def test_exact_methods_on_every_kind_of_game(seed):
    losses, options = exact_game(seed)
    assert_same(losses, options, 0.0, "lp", presolve=seed < 25)
    if seed < 25:
        assert_same(losses, options, 0.0, "interior-point")


@pytest.mark.parametrize("seed", CORPUS)
def test_entropic_methods_on_every_kind_of_game(seed):
    losses, alpha, options = entropic_game(seed)
    assert_same(losses, options, alpha if seed < 25 else 0.01 * alpha, "newton", seed < 25)
    if seed < 25:
        assert_same(losses, options, alpha, "apg")


@pytest.mark.filterwarnings("ignore::mixsolve.base.errors.ConvergenceWarning")
@pytest.mark.parametrize("seed", CORPUS[:24])
def test_algorithm_1_on_every_kind_of_game(seed):
    losses, options = exact_game(seed)
    expected = mixsolve.solve(losses, method="oracle", max_iter=40, **options)
    found = mixsolve.solve(as_tensor(losses), method="oracle", max_iter=40, **options)
    check_certificate(found, losses, **options)
    digits = 1e-9 * spread_of(losses, options) + 1e-13 * magnitude_of(losses, options)
    assert found.lower_bound <= expected.value + digits
    assert expected.lower_bound <= found.value + digits
    if seed in (0, 1, 2, 13, 14, 17, 18):  # no ties: the same steps
        assert abs(found.value - expected.value) <= digits
        assert abs(found.lower_bound - expected.lower_bound) <= digits


@pytest.mark.parametrize("seed", [0, 3, 17, 22])
def test_cvxpy(seed):
    losses, options = exact_game(seed)
    found = mixsolve.solve(as_tensor(losses), method="cvxpy", **options)
    check_certificate(found, losses, **options)
    first = mixsolve.solve(as_tensor(losses), constraints=lambda w: [w[0] >= 0.5], **options)
    assert first.weights[0] >= 0.5 - 1e-6
    losses, alpha, options = entropic_game(seed)
    found = mixsolve.solve(as_tensor(losses), alpha, method="cvxpy", tol=1e-4, **options)
    check_certificate(found, losses, alpha, **options)


# Multiples of 1/4 between 0 and 3, which every type holds.
QUARTERS = np.random.default_rng(11).integers(0, 13, (10, 6, 3)) / 4.0
TYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int8,
    torch.int16, torch.int32, torch.int64, torch.bool,
]  # fmt: skip


def forms(tensor):
    yield "contiguous", tensor
    yield "transposed", tensor.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    yield "strided", torch.stack([tensor, tensor], dim=-1)[..., 0]
    yield "expanded", tensor[:1].expand(10, -1, -1)
    if tensor.dtype == torch.float64:
        yield "negative view", torch._neg_view(-tensor)
        yield "parameter", torch.nn.Parameter(tensor.clone())
        yield "of a graph", tensor.clone().requires_grad_() * 1.0


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_types_and_layouts(dtype):
    whole = dtype == torch.bool or not dtype.is_floating_point
    tensor = torch.from_numpy(4 * QUARTERS if whole else QUARTERS).to(dtype)
    every = dict(forms(tensor))
    if dtype not in (torch.float64, torch.bool):
        every = {"transposed": every["transposed"]}
    for name, form in every.items():
        before = form.detach().clone()
        losses = before.to(torch.float64).numpy()
        for alpha, method in ((0.0, "lp"), (0.5, "newton"), (0.5, "apg")):
            expected = mixsolve.solve(losses, alpha, method=method, tol=1e-9)
            found = mixsolve.solve(TorchLosses(form, 64), alpha, method=method, tol=1e-9)
            check_certificate(found, losses, alpha)
            assert abs(found.value - expected.value) <= 1e-8, name
            assert not found.weights.requires_grad
        assert torch.equal(form.detach(), before)
        assert form.dtype == dtype


def test_tensors_made_in_inference_mode_and_solved_within_it():
    with torch.inference_mode():
        tensor = torch.from_numpy(QUARTERS).clone()
        inside = mixsolve.solve(TorchLosses(tensor, WHOLE), 0.5)
    outside = mixsolve.solve(TorchLosses(tensor, WHOLE), 0.5)
    assert inside.value == outside.value


@pytest.mark.parametrize("alpha", [0.0, 0.2])
def test_surroundings_do_not_matter(alpha):
    """A default type, autocast: sums are float64 all the same."""
    expected = mixsolve.solve(TorchLosses(torch.from_numpy(QUARTERS), WHOLE), alpha)
    torch.set_default_dtype(torch.float16)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = mixsolve.solve(TorchLosses(torch.from_numpy(QUARTERS), WHOLE), alpha)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.value == expected.value
    assert found.gap == expected.gap


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_scales(scale):
    losses = games.gamma_game(10, 5, 3, seed=5).losses
    for alpha, method in ((0.0, "lp"), (0.1, "newton"), (0.1, "apg")):
        plain = mixsolve.solve(as_tensor(losses), alpha, method=method, tol=1e-9)
        found = mixsolve.solve(as_tensor(scale * losses), scale * alpha, method=method, tol=1e-9)
        assert found.value / scale == pytest.approx(plain.value, rel=1e-9)
        torch.testing.assert_close(found.weights, plain.weights, atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_losses_not_finite(bad, dtype):
    chunk = 64
    tensor = torch.tensor(QUARTERS, dtype=dtype)
    tensor[7, 2, 1] = tensor[8, 0, 0] = bad
    with pytest.raises(MixsolveError) as ours:
        mixsolve.solve(TorchLosses(tensor, chunk))
    with pytest.raises(MixsolveError) as theirs:
        mixsolve.solve(tensor.to(torch.float64).numpy())
    assert str(ours.value) == str(theirs.value)
    mask = np.ones((10, 6), bool)
    mask[7, 2] = mask[8, 0] = False
    found = mixsolve.solve(TorchLosses(tensor, chunk), 0.3, candidate_mask=mask)
    check_certificate(found, tensor.double().numpy(), 0.3, candidate_mask=mask)
    tensor[9, 5, 2] = bad
    with pytest.raises(MixsolveError, match=r"\(9, 5, 2\)"):
        mixsolve.solve(TorchLosses(tensor, chunk), candidate_mask=mask)


def test_overflow_is_refused_in_the_same_words():
    losses = np.array([[[-1e308, 1e308]]])
    with pytest.raises(MixsolveError) as ours:
        mixsolve.solve(as_tensor(losses))
    with pytest.raises(MixsolveError) as theirs:
        mixsolve.solve(losses)
    assert str(ours.value) == str(theirs.value)


def test_what_is_no_loss_tensor_is_refused():
    with pytest.raises(MixsolveTypeError, match=r"torch\.Tensor, got ndarray"):
        TorchLosses(QUARTERS)
    with pytest.raises(MixsolveError, match="three axes"):
        TorchLosses(torch.zeros(3))
    with pytest.raises(MixsolveError, match="no candidates"):
        TorchLosses(torch.zeros(2, 0, 3))
    with pytest.raises(MixsolveTypeError, match="real numbers"):
        TorchLosses(torch.zeros(2, 3, 4, dtype=torch.complex64))
    with pytest.raises(MixsolveTypeError, match="to_dense"):
        TorchLosses(torch.zeros(2, 3, 4).to_sparse())
    with pytest.raises(MixsolveError, match="chunk"):
        TorchLosses(torch.zeros(2, 3, 4), chunk=0)
    with pytest.raises(MixsolveError, match=r"shape \(2, 3\)"):
        mixsolve.solve(TorchLosses(torch.zeros(2, 3, 4)), candidate_mask=torch.ones(3, 2).bool())


def test_a_device_without_float64_is_refused(monkeypatch):
    def no_float64(*shape, dtype, device):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr(torch, "zeros", no_float64)
    with pytest.raises(MixsolveError, match="device 'cpu' cannot be solved there: it has no float"):
        TorchLosses(torch.ones(2, 3, 4))


@pytest.mark.parametrize("game", ["uint8", "float64", "masked", "wide"])
def test_presolve_condenses_two_valued_losses_on_the_device(game, chunk):
    losses = games.paper2d(200, 60, 6, seed=1).losses
    options = {}
    if game == "wide":  # as many classifiers as there is room for
        losses = np.concatenate([np.tile(losses, 8), losses[..., :4]], axis=2)
    if game == "float64":
        losses = np.where(losses, 2.25, -3.5)
    if game == "masked":
        mask = np.random.default_rng(0).random((200, 60)) < 0.8
        mask[:, 0] = True
        options = {"candidate_mask": mask}
        losses = np.where(mask[..., None], losses, 7)
        losses[:1] = np.where(losses[:1] == 7, 0, losses[:1])  # what the memory engine looks at
    for alpha in (0.0, 0.05):
        found = mixsolve.solve(
            TorchLosses(torch.from_numpy(losses), chunk or WHOLE), alpha, **options
        )
        expected = mixsolve.solve(losses, alpha, **options)
        check_certificate(found, losses, alpha, **options)
        assert abs(found.value - expected.value) <= found.gap + expected.gap + 1e-12
        start = "presolve kept"
        assert start in found.message
        assert found.message.split(";")[1] == expected.message.split(";")[1]


def test_the_distinct_rows_of_a_game(chunk):
    losses = games.integer_game(9, 20, 3, seed=4).losses.astype(np.uint8) + 1
    mask = np.random.default_rng(1).random((9, 20)) < 0.7
    engine = engine_of(losses, mask=mask, chunk=chunk)
    game, names = engine.distinct(engine.n_rows, dominance=False)
    samples, places = game.every_candidate()
    rows = game.gather(samples, places)
    counts = np.exp(game.log_prior(samples, places))
    for i in range(9):
        codes = (losses[i] - 1) @ [1, 2, 4]
        expected = [j for j in range(20) if mask[i, j]]
        first = {code: min(j for j in expected if codes[j] == code) for code in codes[expected]}
        here = samples == i
        assert sorted(names[here]) == sorted(first.values())
        np.testing.assert_array_equal(rows[here], losses[i, names[here]])
        share = [np.mean(codes[expected] == codes[j]) for j in names[here]]
        np.testing.assert_allclose(counts[here], share)
    assert names.dtype == np.int32
    assert engine.distinct(rows.shape[0], dominance=False) is not None
    assert engine.distinct(rows.shape[0] - 1, dominance=False) is None


def test_what_cannot_be_condensed(monkeypatch):
    monkeypatch.setattr(tuning, "worthwhile_share", 1.0)
    few = np.array([0.0, 1.0, 2.0])[np.random.default_rng(2).integers(0, 3, (40, 30, 2))]
    assert engine_of(few).distinct(2000, dominance=False) is None
    assert engine_of(np.zeros((2, 3, 53))).distinct(2000, dominance=False) is None
    bits = few > 0
    assert engine_of(bits).distinct(2000, dominance=False) is not None
    assert engine_of(bits, prior=np.ones((40, 30))).distinct(2000, dominance=False) is None
    for losses, options in ((few, {}), (bits, {"candidate_prior": np.ones((40, 30))})):
        found = mixsolve.solve(as_tensor(losses), 0.1, **options)
        check_certificate(found, losses, 0.1, **options)


@pytest.fixture
def travelled(monkeypatch):
    """Sizes of all tensors that were brought to the host."""
    sizes = []
    for name in ("cpu", "numpy", "tolist", "item", "__array__"):
        original = getattr(torch.Tensor, name)

        def counted(tensor, *args, original=original, **options):
            sizes.append(tensor.numel())
            return original(tensor, *args, **options)

        monkeypatch.setattr(torch.Tensor, name, counted)
    return sizes


@pytest.mark.filterwarnings("ignore::mixsolve.base.errors.ConvergenceWarning")
@pytest.mark.parametrize(("method", "alpha"), [("apg", 0.3), ("newton", 2.0), ("oracle", 0.0)])
def test_only_small_things_travel_while_a_method_runs(travelled, method, alpha):
    N, m, L = 60, 40, 3
    tensor = torch.from_numpy(np.random.default_rng(6).gamma(0.5, 1.5, (N, m, L)))
    opened = TorchLosses(tensor, 500)
    travelled.clear()
    seen = []

    def callback(state):
        seen.append(len(travelled))

    options = {"max_iter": 10, "tol": 1e-12, "presolve": False}  # which looks at a few samples
    mixsolve.solve(opened, alpha, method=method, callback=callback, **options)
    assert len(seen) >= 3
    during = travelled[: seen[-1]]
    assert during
    if method == "oracle":  # its answer is made of its best responses
        assert max(during) == N
        assert sorted(set(during)) == [2, 1 + L, N]
    else:
        assert max(during) <= 1 + L + L * L


def test_best_candidates_stay_on_the_device_until_asked_for(travelled):
    engine = engine_of(np.random.default_rng(6).random((50, 4, 3)))
    travelled.clear()
    response = engine.best_response(np.full(3, 1 / 3))
    near = engine.near_response(np.full(3, 1 / 3), 0.0, 10)
    assert max(travelled) <= 1 + 3
    assert response.candidates.shape == near.candidates.shape == (50,)
    assert response.candidates is response.candidates
    assert travelled.count(50) == 4  # cpu() and numpy(), once for each of the two


def test_lp_brings_the_rows_in_doubt_and_no_more(travelled):
    N, m, L = 200, 100, 4
    losses = np.random.default_rng(6).gamma(0.5, 1.5, (N, m, L))
    opened = TorchLosses(torch.from_numpy(losses), WHOLE)
    travelled.clear()
    found = mixsolve.solve(opened, presolve=False)
    assert found.success
    assert max(travelled) < 0.05 * losses.size


def test_temporary_memory_is_bounded_by_the_chunk(monkeypatch):
    largest = []
    original = engine_passes.soft_sums

    def watched(rows, *args):
        largest.append(rows.numel())
        return original(rows, *args)

    monkeypatch.setattr(engine_passes, "soft_sums", watched)
    tensor = torch.rand(1000, 7, 3, generator=torch.Generator().manual_seed(0))
    mixsolve.solve(TorchLosses(tensor, chunk=500), 0.1, method="apg")
    assert max(largest) <= 500
    tiny = TorchLosses(tensor[:3], chunk=1)  # a sample is looked at whole
    mixsolve.solve(tiny, 0.1, method="apg")
    assert largest[-1] == 21


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_on_the_cpu_the_kernels_read_the_memory_of_the_tensor(alpha):
    losses = games.gamma_game(50, 8, 3, seed=2).losses.astype(np.float32)
    tensor = torch.from_numpy(losses)
    opened = TorchLosses(tensor)
    rules = np.full(50, 0.02), np.empty(0, np.uint8), np.empty(0)
    engine = opened.engine(*rules)
    assert isinstance(engine, MemoryEngine)
    _, _, rows = next(engine.tensor.blocks(0, 50))
    assert np.shares_memory(rows, losses)
    expected = mixsolve.solve(losses, alpha)
    found = mixsolve.solve(opened, alpha)
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    assert found.gap <= expected.gap + 1e-12 * found.spread
    assert isinstance(found.weights, torch.Tensor)
    assert isinstance(TorchLosses(tensor, WHOLE).engine(*rules), TorchEngine)
    assert isinstance(TorchLosses(tensor.bfloat16()).engine(*rules), TorchEngine)


def test_logarithms_keep_their_digits_whatever_alpha_is():
    """Both forms of log E exp agree, and the one for large alpha has the digits of the mean."""
    draws = torch.Generator().manual_seed(0)
    scores = torch.rand(5, 7, dtype=torch.float64, generator=draws)
    top = scores.amax(1)
    for alpha in (0.01, 1.0, 1e9):
        alphas = torch.full((5,), alpha, dtype=torch.float64)
        near = engine_passes.gibbs_shares(scores, top, alphas, None, wide=True)
        plain = engine_passes.gibbs_shares(scores, top, alphas, None, wide=False)
        torch.testing.assert_close(near.share, plain.share, rtol=1e-13, atol=0.0)
        torch.testing.assert_close(near.share.sum(1), torch.ones_like(top))
        if alpha < 1e9:
            torch.testing.assert_close(near.logarithm, plain.logarithm, rtol=1e-13, atol=1e-15)
        else:
            mean = (scores - top[:, None]).mean(1)
            torch.testing.assert_close(alpha * near.logarithm, mean, rtol=1e-8, atol=0.0)


def test_numpy_solves_need_no_torch_engine(monkeypatch):
    monkeypatch.setitem(sys.modules, "mixsolve_torch.engine.losses", None)  # an import would fail
    assert mixsolve.solve(torch.from_numpy(QUARTERS)).success
    assert mixsolve.solve(QUARTERS).success


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize(("alpha", "method"), [(0.0, "lp"), (0.05, "newton"), (0.05, "apg")])
def test_cuda(dtype, alpha, method, chunk):
    losses = games.gamma_game(2000, 20, 4, seed=0).losses
    tensor = torch.from_numpy(losses > 0.7 if dtype == torch.uint8 else losses).to(dtype)
    reference = tensor.double().numpy()
    expected = mixsolve.solve(reference, alpha, method=method, tol=1e-9)
    size = None if chunk is None else 10_000
    found = mixsolve.solve(TorchLosses(tensor.cuda(), size), alpha, method=method, tol=1e-9)
    check_certificate(found, reference, alpha)
    assert abs(found.value - expected.value) <= found.gap + expected.gap + 1e-12
    assert found.weights.device.type == "cuda"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_large_cuda_tensor_is_solved_on_its_device(monkeypatch):
    opened = []
    original = torch_engine.open_source
    monkeypatch.setattr(
        torch_engine, "open_source", lambda source: opened.append(1) or original(source)
    )
    losses = games.paper2d(5000, 1000, 10, seed=0).losses
    before = torch.cuda.memory_allocated()
    tensor = torch.from_numpy(losses).cuda()
    torch.cuda.reset_peak_memory_stats()
    found = mixsolve.solve(tensor)
    assert opened == [1]
    assert found.success
    expected = mixsolve.solve(losses)
    assert abs(found.value - expected.value) <= found.gap + expected.gap + 1e-12
    peak = torch.cuda.max_memory_allocated() - before - tensor.nbytes
    assert peak < 80 * torch_engine._DEVICE_CHUNK
