"""The attacker's distributions over blocks: filled greedily, and projected exactly."""

import numpy as np
import pytest
from scipy.optimize import linprog

from mixsolve.small_game.mass_set import Level, MassSet


def two_levels(seed):
    rng = np.random.default_rng(seed)
    n_groups = rng.integers(1, 4)
    parent = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, 6)]).astype(np.int64)
    cap = rng.random(parent.size) + 0.1
    cap *= 1.4 / np.bincount(parent, cap)[parent]
    above = rng.random(n_groups) + 0.2
    above *= 1.3 / above.sum()
    top = Level(np.zeros(n_groups, dtype=np.int64), above)
    return MassSet((Level(parent, cap), top), np.ones(1)), parent, cap, above


@pytest.mark.parametrize("seed", range(6))
def test_the_support_is_a_linear_program(seed):
    masses, parent, cap, above = two_levels(seed)
    heights = np.random.default_rng(seed + 100).normal(size=parent.size)
    size, n_groups = parent.size, above.size
    own = (parent[None] == np.arange(n_groups)[:, None]).astype(float)
    found = linprog(
        np.concatenate([-heights, np.zeros(n_groups)]),
        A_ub=np.hstack([np.eye(size), -(cap[:, None] * own.T)]),
        b_ub=np.zeros(size),
        A_eq=np.vstack(
            [np.hstack([own, -np.eye(n_groups)]), np.r_[np.zeros(size), np.ones(n_groups)][None]]
        ),
        b_eq=np.r_[np.zeros(n_groups), 1.0],
        bounds=[(0, None)] * size + [(0, most) for most in above],
    )
    value, mass = masses.support(heights)
    assert value == pytest.approx(-found.fun, abs=1e-10)
    assert mass @ heights == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_projections_are_in_the_set_and_keep_its_points(seed):
    masses, parent, cap, above = two_levels(seed)
    rng = np.random.default_rng(seed)
    mass = masses.project(rng.random(parent.size))
    groups = np.bincount(parent, mass)
    assert mass.min() >= 0.0
    assert mass.sum() == pytest.approx(1.0, abs=1e-14)
    assert (groups <= above + 1e-14).all()
    assert (mass <= cap * groups[parent] + 1e-14).all()
    np.testing.assert_allclose(masses.project(mass), mass, atol=1e-14)
    for inside in (masses.centre()[0], masses.support(rng.normal(size=parent.size))[1]):
        np.testing.assert_allclose(masses.project(inside), inside, atol=1e-14)
