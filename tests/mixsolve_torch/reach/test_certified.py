"""The certificate against attacks that write what they like inside a set."""

import numpy as np
import pytest
import torch

import mixsolve
import mixsolve_torch as mt
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.core.losses import errs
from mixsolve_torch.data.arrays import digits

PATCH = 3
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def data():
    found = digits()
    return tuple(own[:150] for own in found.test), tuple(own[:600] for own in found.train)


@pytest.fixture(scope="module")
def views(data):
    masks = mt.views.bands(SHAPE, 2, gap=PATCH - 1)
    return mt.fit_views(lambda seed: mt.digits_cnn(seed=seed, width=8), data[1], masks, epochs=15)


def places(size=PATCH):
    return [(r, c) for r in range(8 - size + 1) for c in range(8 - size + 1)]


def with_patch(x, place, values):
    attacked = x.clone()
    attacked[:, :, place[0] : place[0] + PATCH, place[1] : place[1] + PATCH] = values
    return attacked


def expected_errors(mixture, x, y):
    with torch.no_grad():
        return mixture.weights @ errs(mixture.member_logits(x), y).double()


def climbed(mixture, x, y, place, steps, rate):
    """Gradient ascent on the members' summed loss over the pixels of a patch."""
    values = x[:, :, place[0] : place[0] + PATCH, place[1] : place[1] + PATCH].clone()
    for _ in range(steps):
        values.requires_grad_(True)
        logits = mixture.member_logits(with_patch(x, place, values))
        loss = sum(torch.nn.functional.cross_entropy(own, y, reduction="sum") for own in logits)
        (slope,) = torch.autograd.grad(loss, values)
        values = (values + rate * slope.sign()).detach().clamp(0, 1)
    return with_patch(x, place, values)


def test_no_attack_in_reach_exceeds_the_certified_risk(views, data):
    (x, y), _ = data
    mixture, certificate = mt.choose_views(views, (x, y), mt.Patch(PATCH), held_out=False)
    assert len(mixture) == 2
    mixture.eval()
    generator = torch.Generator().manual_seed(0)
    worst = expected_errors(mixture, x, y)
    clean = worst.clone()
    for place in places():
        drawn = torch.rand(len(x), 1, PATCH, PATCH, generator=generator)
        for values in (0.0, 1.0, 1e6, -1e6, drawn, (drawn > 0.5).float()):
            worst = worst.maximum(expected_errors(mixture, with_patch(x, place, values), y))
        attacked = climbed(mixture, x, y, place, steps=3, rate=0.4)
        worst = worst.maximum(expected_errors(mixture, attacked, y))
    assert 1 - float(worst.mean()) >= certificate.certified.value - 1e-12
    assert worst.mean() > clean.mean() + 0.2  # the attacks do something
    # Image by image, too.
    losses = mt.reach_losses(mixture, (x, y), mt.Patch(PATCH))
    allowed = (losses.values @ mixture.weights.numpy()).max(axis=1)
    assert (worst.numpy() <= allowed + 1e-12).all()


def test_an_attack_finds_exactly_the_certified_number(data):
    """On linear views, a large value of one pixel decides the answer of any view that reads it."""
    (x, y), (x_train, y_train) = data
    masks = [*mt.views.bands(SHAPE, 2, gap=2), *mt.views.bands(SHAPE, 2, gap=2, axis="height")]

    def build(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    views = mt.fit_views(build, (x_train, y_train), masks, epochs=15, learning_rate=0.02)
    mixture, certificate = mt.choose_views(views, (x, y), mt.Patch(PATCH), held_out=False)
    worst = expected_errors(mixture, x, y)
    for place in places():
        for seed in range(6):
            generator = torch.Generator().manual_seed(seed)
            signs = torch.randint(0, 2, (PATCH, PATCH), generator=generator) * 2.0 - 1.0
            for scale in (1e4, -1e4):
                attacked = with_patch(x, place, scale * signs)
                worst = worst.maximum(expected_errors(mixture, attacked, y))
    assert 1 - float(worst.mean()) == pytest.approx(certificate.certified.value, abs=1e-12)
    assert 0.2 < certificate.certified.value < certificate.clean.value


def test_the_losses_are_those_of_every_position(views, data):
    (x, y), _ = data
    losses = mt.reach_losses(views, (x, y), mt.Patch(PATCH), batch_size=64)
    reads = torch.stack([view.mask for view in views])
    every = np.zeros((len(x), len(places()), 2))
    with torch.no_grad():
        wrong = torch.stack([view(x).argmax(dim=1) != y for view in views], dim=1)
    for s, (r, c) in enumerate(places()):
        under = reads[:, :, r : r + PATCH, c : c + PATCH].flatten(1).any(dim=1)
        every[:, s] = wrong | under
    assert losses.n_sets == len(places())
    for s in range(len(places())):
        assert any(
            (losses.values[:, p] == every[:, s]).all() for p in range(losses.values.shape[1])
        )
    for p, (s,) in enumerate(losses.examples):
        assert (losses.values[:, p] == every[:, s]).all()
    ours, theirs = mixsolve.solve(losses.values, tol=1e-9), mixsolve.solve(every, tol=1e-9)
    assert ours.value == pytest.approx(theirs.value, abs=1e-9)


def test_a_classifier_that_is_not_masked_is_lost_under_every_patch(views, data):
    (x, y), _ = data
    losses = mt.reach_losses([views[0], views[1].model], (x, y), mt.Patch(PATCH))
    assert losses.touched[:, 1].all()
    assert losses.certify([0, 1]).certified.value == 0.0


def test_two_patches_reach_two_bands(views, data):
    (x, y), _ = data
    losses = mt.reach_losses(views, (x, y), mt.Patch(PATCH, at_most=2))
    assert [True, True] in losses.touched.tolist()
    assert losses.certify().certified.value == 0.0


def test_training_hides_what_the_view_does_not_read(data):
    _, (x, y) = data
    (mask,) = mt.views.features(SHAPE, [range(8)])

    def fitted(images):
        return mt.fit_views(
            lambda seed: mt.digits_cnn(seed=seed, width=2), (images, y), [mask], epochs=1
        )[0]

    plain, disturbed = fitted(x[:]), fitted(torch.where(mask, x, 1 - x))
    for own, other in zip(plain.parameters(), disturbed.parameters(), strict=True):
        assert torch.equal(own, other)


def test_modes_and_generators_are_left_alone(views, data):
    (x, y), _ = data
    views[0].train()
    state = torch.get_rng_state()
    mt.reach_losses(views, (x, y), mt.Patch(2))
    assert views[0].training
    assert torch.equal(torch.get_rng_state(), state)
    views[0].eval()


def test_wrong_data_and_random_classifiers_are_refused(views, data):
    (x, y), _ = data
    with pytest.raises(MixsolveError, match="in \\[0, 1\\]"):
        mt.reach_losses(views, (x * 2, y), mt.Patch(2))
    noisy = torch.nn.Sequential(mt.digits_cnn(), Noisy())
    with pytest.raises(MixsolveError, match="random numbers"):
        mt.reach_losses([noisy], (x, y), mt.Patch(2))
    with pytest.raises(MixsolveError, match="at least one view"):
        mt.fit_views(lambda seed: mt.digits_cnn(), (x, y), [], epochs=1)


class Noisy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, logits):
        return logits + torch.rand(logits.shape, generator=self.generator)
