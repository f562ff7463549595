"""APGD on one classifier against the implementation in pyautoattack, image by image."""

import pytest
import torch
from attack_cases import curved

from mixsolve_torch import APGD, Mixture
from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.attacks.objective import Objective
from mixsolve_torch.models.classifiers import frozen

public = pytest.importorskip("pyautoattack.autopgd_base")


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 0.25)])
def test_from_the_same_starts_the_same_images_are_fooled(norm, eps):
    draws = torch.Generator().manual_seed(0)
    x = torch.rand(30, 1, 3, 3, generator=draws)
    network = curved(0, 64).float()
    y = network(x).argmax(dim=1)
    y[::5] = (y[::5] + 1) % 4
    start = make_ball(norm, eps).random_start(x, draws)
    steps = 20
    theirs = public.APGDAttack(network, n_iter=steps, norm=norm, eps=eps, device="cpu", loss="ce")
    with torch.random.fork_rng(devices=[]):
        theirs.init_hyperparam(x)
        _, right, _, _ = theirs.attack_single_run(x, y, x_init=start)
    mixture = Mixture([network])
    with frozen(mixture):
        visited = APGD(norm, eps, steps=steps).visit(Objective(Members(mixture, y)), start, x, y)
        fooled = torch.stack([score.errors for _, score in visited]).amax(dim=0) > 0
    assert 5 < fooled.sum() < 30
    assert fooled.tolist() == (~right).tolist()
