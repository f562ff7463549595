"""Learning rates: the corners of each schedule, and that they fall as they are said to."""

import pytest

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.training.schedules import learning_rate_factor


def over(schedule, steps):
    return [learning_rate_factor(schedule, step / steps) for step in range(steps + 1)]


def test_steps_fall_at_half_and_at_three_quarters():
    assert over("step", 200) == [1.0] * 100 + [0.1] * 50 + [0.01] * 51


def test_a_cycle_rises_and_falls_along_lines():
    factors = over("cyclic", 10)
    assert factors == pytest.approx([0, 0.25, 0.5, 0.75, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0])


def test_a_constant_and_what_comes_after_the_end():
    assert set(over("constant", 7)) == {1.0}
    assert learning_rate_factor("cyclic", 1.5) == 0
    assert learning_rate_factor("step", 1.5) == 0.01


def test_unknown_schedules():
    with pytest.raises(MixsolveError, match=r"'step', 'cyclic', 'constant'; got 'cosine'"):
        learning_rate_factor("cosine", 0.5)
    with pytest.raises(MixsolveError, match=r"progress must be a finite number >= 0, got -0.1"):
        learning_rate_factor("step", -0.1)
    with pytest.raises(MixsolveTypeError, match="progress"):
        learning_rate_factor("step", "half")
