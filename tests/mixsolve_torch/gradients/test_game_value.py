"""Gradients through the game, against finite differences and against the written-out theorem."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import mixsolve
from mixsolve.base.errors import ConvergenceWarning, MixsolveError, MixsolveTypeError
from mixsolve_torch import game_value, game_weights

SHARP = 1e-13  # finite differences see the errors of the solve, magnified


def game(seed=0, shape=(3, 3, 3), dtype=torch.float64):
    """Random losses; those of the first classifier are too large for it to be played."""
    draws = torch.Generator().manual_seed(seed)
    losses = torch.rand(shape, generator=draws, dtype=torch.float64)
    losses[:, :, 0] += 0.5
    return losses.to(dtype).requires_grad_()


def differentiable(function, losses, atol=1e-5):
    """Whether the first and the second derivative are those of finite differences."""
    with torch.random.fork_rng(devices=[]):  # the checks draw directions
        torch.manual_seed(0)
        once = gradcheck(function, losses, fast_mode=True)
        return once and gradgradcheck(function, losses, fast_mode=True, atol=atol)


OPTIONS = {
    "plain": {},
    "weights": {"sample_weight": [1.0, 0.0, 3.0]},
    "prior": {"candidate_prior": [[0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]},
    "mask": {"candidate_mask": [[True, True, False], [True, True, True], [False, True, True]]},
}
ALPHAS = {"scalar": 0.2, "each": [0.1, 0.2, 0.3]}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_exact_value_against_finite_differences(options):
    losses = game()
    assert gradcheck(lambda given: game_value(given, tol=SHARP, **options), losses)


@pytest.mark.parametrize("alpha", ALPHAS.values(), ids=ALPHAS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_entropic_value_twice_against_finite_differences(alpha, options):
    losses = game()

    def value(given):
        return game_value(given, alpha, tol=SHARP, **options)

    assert differentiable(value, losses)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_weights_twice_against_finite_differences(options):
    losses = game(seed=1, shape=(3, 3, 4))

    def weights(given):
        return game_weights(given, [0.1, 0.2, 0.3], tol=SHARP, **options)

    assert (weights(losses) == 0.0).any()
    assert (weights(losses) > 0.01).sum() > 1
    assert differentiable(weights, losses, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_the_envelope_theorem(alpha):
    losses = game()
    value, solution = game_value(losses, alpha, sample_weight=[1, 2, 3], return_solution=True)
    assert value.item() == solution.value
    assert not solution.weights.requires_grad
    (gradient,) = torch.autograd.grad(3 * value, losses)
    weight, attack = torch.tensor(solution.sample_weight), torch.tensor(solution.attack.dense())
    expected = 3 * torch.einsum("i,ij,k->ijk", weight, attack, solution.weights)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-8)
    # All of the attacker's mass is on all of the classifiers' mass.
    assert gradient.sum().item() == pytest.approx(3.0)
    assert solution.gap <= solution.tolerance


def test_float32_losses_are_solved_in_float64():
    losses = game(dtype=torch.float32)
    value = game_value(losses, 0.1)
    assert value.dtype == game_weights(losses, 0.1).dtype == torch.float32
    (gradient,) = torch.autograd.grad(value, losses, create_graph=True)
    (again,) = torch.autograd.grad((gradient**2).sum(), losses)
    assert gradient.dtype == again.dtype == torch.float32

    precise = losses.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(game_value(precise, 0.1), precise, create_graph=True)
    (expected_again,) = torch.autograd.grad((expected**2).sum(), precise)
    torch.testing.assert_close(gradient, expected.float())
    torch.testing.assert_close(again, expected_again.float())


def test_derivatives_as_transforms():
    losses = game().detach()
    value = torch.func.grad(lambda given: game_value(given, 0.1))(losses)
    given = losses.clone().requires_grad_()
    game_value(given, 0.1).backward()
    assert torch.equal(value, given.grad)


def test_masked_losses_are_not_looked_at():
    mask = torch.ones(3, 3, dtype=torch.bool)
    mask[1, 2] = False
    losses = game().detach()
    losses[1, 2] = torch.nan
    losses.requires_grad_()
    for alpha in (0.0, 0.2):
        value = game_value(losses, alpha, candidate_mask=mask)
        (gradient,) = torch.autograd.grad(value, losses, create_graph=bool(alpha))
        assert (gradient[1, 2] == 0).all()
        assert gradient.isfinite().all()
        if alpha:
            (again,) = torch.autograd.grad((gradient**2).sum(), losses)
            assert again.isfinite().all()
            assert again.abs().max() > 0


def test_classifiers_alike_share_the_smallest_move():
    losses = game().detach()
    twins = torch.cat([losses, losses[:, :, 2:]], dim=2).requires_grad_()
    weights = game_weights(twins, 0.2, tol=SHARP)
    assert weights.isfinite().all()
    together = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(weights @ together, twins)
    # To move both twins is to move the one that stands for both.
    alone = losses.requires_grad_()
    (expected,) = torch.autograd.grad(game_weights(alone, 0.2, tol=SHARP)[2], alone)
    merged = gradient[:, :, :3] + torch.nn.functional.pad(gradient[:, :, 3:], (2, 0))
    torch.testing.assert_close(merged, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_zero_one_losses_have_a_finite_subgradient(alpha):
    draws = torch.Generator().manual_seed(0)
    losses = torch.randint(2, (20, 6, 4), generator=draws).double().requires_grad_()
    value = game_value(losses, alpha)
    (gradient,) = torch.autograd.grad(value, losses, create_graph=bool(alpha))
    assert gradient.sum().item() == pytest.approx(1.0)
    assert (gradient >= 0).all()
    # The value is concave along q and convex along lam; a step against the gradient lowers it.
    assert game_value(losses.detach() - 0.1 * gradient.detach(), alpha) < value
    if alpha:
        (again,) = torch.autograd.grad((gradient**2).sum(), losses)
        assert again.isfinite().all()


def test_one_classifier_and_constant_losses():
    losses = game(shape=(3, 3, 1))
    game_value(losses, 0.1).backward()
    expected = (losses.detach()[:, :, 0] / 0.1).softmax(dim=1) / 3
    torch.testing.assert_close(losses.grad[:, :, 0], expected)
    (gradient,) = torch.autograd.grad(game_weights(losses, 0.1)[0], losses)
    assert (gradient == 0).all()

    flat = torch.full((2, 2, 2), 0.5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(game_value(flat, 0.1), flat, create_graph=True)
    assert gradient.sum().item() == pytest.approx(1.0)
    (again,) = torch.autograd.grad((gradient**2).sum(), flat)
    assert again.isfinite().all()


def test_members_are_trained_through_the_value():
    """Two lines of one feature each, three points: together they can be made to err less."""
    scores = torch.tensor([[0.3, -0.2], [0.1, 0.2], [-0.1, 0.3]], dtype=torch.float64)
    shift = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    moves = torch.tensor([-0.4, 0.0, 0.4], dtype=torch.float64)

    def value():
        margins = scores[:, None, :] + moves[None, :, None] + shift
        return game_value(torch.sigmoid(-4 * margins) + 0.1 * shift**2, 0.05)

    before = value()
    optimizer = torch.optim.SGD([shift], lr=0.5)
    for _ in range(10):
        optimizer.zero_grad()
        value().backward()
        optimizer.step()
    assert value() < before - 0.1


def test_a_second_derivative_of_the_exact_value_is_refused():
    losses = game()
    (gradient,) = torch.autograd.grad(game_value(losses), losses, create_graph=True)
    with pytest.raises(MixsolveError, match=r"alpha = 0.*alpha > 0"):
        torch.autograd.grad(gradient.square().sum(), losses)


def test_a_limit_is_said_and_the_gradient_is_that_of_the_weights_found():
    losses = game(shape=(20, 5, 5))
    with pytest.warns(ConvergenceWarning):
        value, solution = game_value(losses, 0.01, max_iter=1, return_solution=True)
    assert not solution.success
    assert value.item() == solution.value
    value.backward()
    shares = losses.grad.sum(dim=(0, 1))
    torch.testing.assert_close(shares, solution.weights)


def test_wrong_arguments():
    losses = game()
    with pytest.raises(MixsolveTypeError, match=r"torch\.Tensor.*got ndarray.*as_tensor"):
        game_value(losses.detach().numpy())
    with pytest.raises(MixsolveTypeError, match=r"float32 or float64.*torch\.float16.*\.float\(\)"):
        game_value(losses.half())
    with pytest.raises(MixsolveTypeError, match=r"got torch\.uint8"):
        game_weights((losses.detach() > 0.5).to(torch.uint8), 0.1)
    with pytest.raises(MixsolveError, match="alpha must be > 0 for game_weights"):
        game_weights(losses, 0.0)
    with pytest.raises(MixsolveTypeError, match="sample_weight requires a gradient"):
        game_value(losses, sample_weight=torch.ones(3, requires_grad=True))
    with pytest.raises(MixsolveTypeError, match="alpha requires a gradient"):
        game_value(losses, torch.tensor(0.1, requires_grad=True))
    with pytest.raises(MixsolveError, match="three axes"):
        game_value(losses[0, 0])
    with pytest.raises(MixsolveError, match="candidate_mask must have"):
        game_value(losses, candidate_mask=torch.ones(3, 2))
    with pytest.raises(MixsolveError, match="finite"):
        game_value(losses * torch.nan)


def test_no_gradient_is_needed():
    losses = game().detach()
    value = game_value(losses)
    assert not value.requires_grad
    assert value.item() == pytest.approx(mixsolve.solve(losses).value, abs=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_cuda_device():
    losses = game().detach()
    there = losses.cuda().requires_grad_()
    value = game_value(there, 0.2)
    (gradient,) = torch.autograd.grad(value, there, create_graph=True)
    (again,) = torch.autograd.grad((gradient**2).sum(), there)
    assert value.device == gradient.device == again.device == there.device
    here = losses.requires_grad_()
    (expected,) = torch.autograd.grad(game_value(here, 0.2), here)
    torch.testing.assert_close(gradient.detach().cpu(), expected)


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_losses_of_two_axes_are_one_candidate_a_sample(alpha):
    losses = game().detach()[:, 0].requires_grad_()
    game_value(losses, alpha).backward()
    (whole,) = torch.autograd.grad(game_value(losses[:, None], alpha), losses)
    assert losses.grad.shape == losses.shape
    assert torch.equal(losses.grad, whole)
