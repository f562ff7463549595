import math

import numpy as np
import pytest
import torch
from attack_cases import NORMS, curved, linear_classifiers

from mixsolve.base.errors import MixsolveError
from mixsolve_torch import FAB, Distances, Mixture, expected_loss
from mixsolve_torch.attacks.ball import make_ball


@pytest.mark.parametrize("norm", NORMS)
def test_a_linear_classifier_alone_is_fooled_at_its_exact_distance(norm, generator):
    # Far from the walls the distance is the gap over the dual norm.
    models = linear_classifiers(2, 9, generator=generator)
    with torch.no_grad():
        for model in models:
            model[1].weight.mul_(20)
            model[1].bias.copy_(-model[1].weight.sum(dim=1) / 2 + model[1].bias)
    mixture = Mixture([model.double() for model in models])
    x = 0.4 + 0.2 * torch.rand(20, 1, 3, 3, generator=generator, dtype=torch.float64)
    y = models[0](x).argmax(dim=1)
    found = FAB(norm, 0.1, steps=8, rivals=2).distances(mixture, x, y)
    assert found.points.shape == (4, 20, 1, 3, 3)
    ball = make_ball(norm, 1)
    compared = 0
    for k, model in enumerate(models):
        logits, weight = model(x).detach(), model[1].weight.detach()
        for i in range(20):
            others = [c for c in range(3) if c != y[i]]
            slopes = torch.stack([weight[c] - weight[y[i]] for c in others])[:, None, None]
            gaps = torch.stack([logits[i, y[i]] - logits[i, c] for c in others])
            wanted = float((gaps / ball.dual_lengths(slopes)).min().clamp(min=0))
            if wanted < 0.35:
                compared += 1
                assert found.lengths[1 + k, i].item() == pytest.approx(wanted, abs=1e-4)
    assert compared > 20


@pytest.mark.parametrize("norm", NORMS)
def test_lengths_and_errors_are_those_of_the_points_and_the_risk_never_falls(norm, generator):
    mixture = Mixture([curved(k) for k in range(3)], weights=[0.5, 0.2, 0.3])
    x = torch.rand(15, 1, 3, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (15,), generator=generator)
    attack = FAB(norm, {"Linf": 0.1, "L2": 0.3, "L1": 0.8}[norm], steps=6)
    found = attack.distances(mixture, x, y)
    assert len(found.points) == 1 + 2 * 3 - 1
    ball = make_ball(norm, 1)
    for point, lengths, errors in zip(found.points, found.lengths, found.errors, strict=True):
        reached = lengths.isfinite()
        torch.testing.assert_close(errors, expected_loss(mixture, point, y).double())
        torch.testing.assert_close(ball.lengths(point - x)[reached], lengths[reached])
    radii = np.linspace(0, 2, 30)
    risks = found.risk(radii)
    assert (np.diff(risks) >= 0).all()
    assert risks[0] < risks[-1]
    assert found.risk(0) == pytest.approx(float(expected_loss(mixture, x, y).mean()))
    # The attack is the best of these points within the radius.
    attacked = attack(mixture, x, y)[0]
    assert float(expected_loss(mixture, attacked, y).mean()) == pytest.approx(
        found.risk(attack.eps)
    )


def test_further_searches_never_lose(generator):
    mixture = Mixture([curved(k) for k in range(2)])
    x = torch.rand(10, 1, 3, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (10,), generator=generator)
    one = FAB("Linf", 0.2, steps=4).distances(mixture, x, y)
    more = FAB("Linf", 0.2, steps=4, restarts=3).distances(mixture, x, y)
    assert (more.lengths[1:3] <= one.lengths[1:3] + 1e-3).all()


def by_hand():
    """Two images: one errs at once by a half, one from 0.2 on by a half and from 0.3 on wholly."""
    lengths = [[0.0, 0.0], [0.2, 0.3], [0.3, 0.2], [math.inf, 0.5]]
    errors = [[0.5, 0.0], [0.5, 1.0], [0.5, 0.5], [0.0, 0.0]]
    lengths, errors = (torch.tensor(part, dtype=torch.float64) for part in (lengths, errors))
    return Distances(torch.zeros(4, 2, 1, 1, 1), lengths, errors, "L2")


def test_the_risk_rises_at_jumps_alone():
    radii, risks = by_hand().jumps()
    assert list(radii) == [0.0, 0.2, 0.3]
    assert list(risks) == [0.25, 0.5, 0.75]


@pytest.mark.parametrize("norm", NORMS)
def test_jumps_are_those_of_the_risk(norm, generator):
    mixture = Mixture([curved(k) for k in range(3)], weights=[0.5, 0.2, 0.3])
    x = torch.rand(15, 1, 3, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (15,), generator=generator)
    found = FAB(norm, 0.1, steps=4).distances(mixture, x, y)
    radii, risks = found.jumps()
    assert len(radii) > 5
    assert found.risk(radii) == pytest.approx(risks)
    assert found.risk(np.nextafter(radii[1:], 0)) == pytest.approx(risks[:-1])
    assert found.risk(10.0) == pytest.approx(risks[-1])


def test_the_risk_of_all_radii_is_drawn(tmp_path):
    found = by_hand()
    (axes,) = found.plot(tmp_path / "risk.png", eps="1/4").axes
    assert (tmp_path / "risk.png").read_bytes().startswith(b"\x89PNG")
    curve, mark = axes.lines
    radii, risks = curve.get_data()
    assert curve.get_drawstyle() == "steps-post"
    assert list(radii[:-1]) == [0.0, 0.2, 0.3]
    assert list(risks) == [0.25, 0.5, 0.75, 0.75]
    assert list(mark.get_xdata()) == [0.25, 0.25]
    assert [text.get_text() for text in axes.texts] == ["0.5 at 0.25"]
    assert axes.get_xlabel().endswith("L2")
    with pytest.raises(MixsolveError, match="eps"):
        found.plot(eps=-1)
