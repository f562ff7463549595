"""The game's value in JAX, against finite differences and against its twin in PyTorch."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from mixsolve.base.errors import MixsolveError, MixsolveTypeError

jax = pytest.importorskip("jax")
from jax.test_util import check_grads  # noqa: E402

import mixsolve_torch  # noqa: E402
from mixsolve.jax import game_value, game_weights  # noqa: E402

SHARP = 1e-13  # finite differences see the errors of the solve, magnified


@pytest.fixture(autouse=True, scope="module")
def _double():
    """Finite differences need float64."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def losses(rng):
    losses = rng.random((3, 3, 3))
    losses[:, :, 0] += 0.5  # too much to be played
    return losses


OPTIONS = {
    "plain": {},
    "weights": {"sample_weight": [1.0, 0.0, 3.0]},
    "prior and mask": {
        "candidate_prior": [[0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]],
        "candidate_mask": [[True, True, False], [True, True, True], [False, True, True]],
    },
}


def test_derivatives_against_finite_differences(losses):
    check_grads(lambda given: game_value(given, tol=SHARP), (losses,), 1, rtol=1e-5)
    alpha = np.array([0.1, 0.2, 0.3])
    check_grads(
        lambda given: game_value(given, alpha, tol=SHARP), (losses,), 2, modes=["rev"], rtol=1e-5
    )
    check_grads(
        lambda given: game_weights(given, 0.2, tol=SHARP), (losses,), 1, modes=["fwd"], rtol=1e-5
    )


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_derivatives_are_those_of_the_twin(losses, options):
    options = {"tol": SHARP, **options}
    given = torch.tensor(losses, requires_grad=True)
    for alpha in (0.0, 0.2):
        value = mixsolve_torch.game_value(given, alpha, **options)
        (expected,) = torch.autograd.grad(value, given)
        gradient = jax.grad(lambda given, a=alpha: game_value(given, a, **options))(losses)
        np.testing.assert_allclose(gradient, expected, atol=1e-9)
    hessian = jax.hessian(lambda given: game_value(given, 0.2, **options))(losses)
    expected = torch.autograd.functional.hessian(
        lambda given: mixsolve_torch.game_value(given, 0.2, **options), given
    )
    np.testing.assert_allclose(hessian, expected, atol=1e-9)
    assert abs(hessian).max() > 1e-3


def test_compiled_and_mapped(losses):
    def value(losses):
        return game_value(losses, 0.1)

    apart = [jax.value_and_grad(value)(each) for each in (losses, 2 * losses)]
    together = jax.jit(jax.vmap(jax.value_and_grad(value)))(np.stack([losses, 2 * losses]))
    np.testing.assert_allclose(together[0], [value for value, _ in apart])
    np.testing.assert_allclose(together[1], [gradient for _, gradient in apart], atol=1e-12)


def test_float32_stays_float32(losses):
    given = jax.numpy.asarray(losses, dtype="float32")
    value, gradient = jax.value_and_grad(lambda given: game_value(given, 0.1))(given)
    assert value.dtype == gradient.dtype == np.float32
    expected = jax.grad(lambda given: game_value(given, 0.1))(losses)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_masked_losses_are_not_looked_at(losses):
    mask = np.ones((3, 3), dtype=bool)
    mask[1, 2] = False
    losses[1, 2] = np.nan
    gradient = jax.grad(lambda given: game_value(given, 0.2, candidate_mask=mask))(losses)
    assert (gradient[1, 2] == 0).all()
    assert np.isfinite(gradient).all()


def test_classifiers_alike_make_the_smallest_move(losses):
    losses[:, :, 0] = losses[:, :, 2]
    jacobian = jax.jacfwd(lambda given: game_weights(given, 0.2, tol=SHARP))(losses)
    expected = torch.autograd.functional.jacobian(
        lambda given: mixsolve_torch.game_weights(given, 0.2, tol=SHARP), torch.tensor(losses)
    )
    np.testing.assert_allclose(jacobian, expected, atol=1e-7)
    assert abs(jacobian).max() > 1e-3


def test_losses_of_two_axes_are_one_candidate_a_sample(losses):
    gradient = jax.grad(lambda given: game_value(given, 0.1))(losses[:, 0])
    expected = jax.grad(lambda given: game_value(given, 0.1))(losses[:, :1])
    np.testing.assert_array_equal(gradient, expected[:, 0])


def test_wrong_arguments(losses):
    with pytest.raises(MixsolveTypeError, match=r"floating.*int"):
        game_value(np.ones((2, 2, 2), dtype=int))
    with pytest.raises(MixsolveError, match=r"\(samples, candidates, classifiers\).*\(3,\)"):
        game_value(losses[0, 0])
    with pytest.raises(MixsolveError, match="alpha must be a number"):
        game_value(losses, [0.1, 0.2])
    with pytest.raises(MixsolveError, match="sample_weight must hold"):
        game_value(losses, sample_weight=[1.0])
    with pytest.raises(MixsolveError, match="candidate_mask must have"):
        game_value(losses, candidate_mask=np.ones((3, 2)))
    with pytest.raises(MixsolveError, match="candidate_prior must be"):
        game_value(losses, 0.1, candidate_prior=np.zeros((3, 3)))
    with pytest.raises(MixsolveError, match="alpha must be > 0 for game_weights"):
        game_weights(losses, 0.0)
    with pytest.raises(MixsolveTypeError, match="alpha must be a constant"):
        jax.jit(game_value)(losses, 0.1)
    with pytest.raises(MixsolveError, match="no second derivative"):
        jax.hessian(game_value)(losses)


def test_without_jax_the_command_that_installs_it_is_said():
    script = "import sys; sys.modules['jax'] = None; import mixsolve.jax"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "MissingDependencyError" in done.stderr
    assert "pip install 'mixsolve[jax]'" in done.stderr
