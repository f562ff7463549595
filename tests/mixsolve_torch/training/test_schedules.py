"""Learning rates: the corners of each schedule, and that they fall as they are said to."""

import pytest
import torch

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.training import OptimizerConfig, TrainConfig
from mixsolve_torch.training.schedules import learning_rate_factor


def over(schedule, steps, warmup=0.0):
    return [learning_rate_factor(schedule, step / steps, warmup) for step in range(steps + 1)]


def rates(make, steps):
    """Learning rates of a schedule of PyTorch's, of peak 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_a_cosine_is_pytorchs():
    expected = rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=40), 41)
    assert over("cosine", 40) == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0.3, 0.5])
def test_one_cycle_is_pytorchs(warmup):
    # PyTorch's cycle ends at its last step, one before all are done, and turns one step early.
    def make(optimizer):
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 1.0, total_steps=41, pct_start=(warmup * 40 + 1) / 41, cycle_momentum=False
        )

    found = over("onecycle", 40, 0.0 if warmup == 0.3 else warmup)
    assert found == pytest.approx(rates(make, 41)[:41], abs=1e-9)


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_a_warm_up_rises_along_a_line_to_the_peak(schedule):
    found = over(schedule, 20, 0.25)
    assert found[:6] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    if schedule == "cosine":
        assert found[5:] == pytest.approx(over("cosine", 15))
    else:
        assert found[5:] == over(schedule, 20)[5:]


def test_a_cyclic_rate_has_no_warm_up():
    with pytest.raises(MixsolveError, match="warmup must be 0 with the schedule 'cyclic'"):
        learning_rate_factor("cyclic", 0.1, 0.2)
    with pytest.raises(MixsolveError, match=r"optimizer\.warmup must be 0"):
        TrainConfig(optimizer=OptimizerConfig(schedule="cyclic", warmup=0.1))


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
    with pytest.raises(MixsolveError, match=r"'onecycle', 'constant'; got 'linear'"):
        learning_rate_factor("linear", 0.5)
    with pytest.raises(MixsolveError, match=r"progress must be a finite number >= 0, got -0.1"):
        learning_rate_factor("step", -0.1)
    with pytest.raises(MixsolveTypeError, match="progress"):
        learning_rate_factor("step", "half")
