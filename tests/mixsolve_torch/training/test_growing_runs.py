"""Growing in a run: candidates of the equilibrium, weights of the others, fresh attacks."""

import copy

import pytest
import torch
from test_methods import Counted, algorithm, images, parameters, settings
from torch.nn import functional

import mixsolve
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.core.losses import zero_one
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.training import GrowConfig, TrainConfig, WeightsConfig
from mixsolve_torch.training.adversary import Adversary


def growing(count, epochs=1, **options):
    weights = WeightsConfig(update="none", momentum=0.75)
    sections = {"weights": weights, "method": "grow", "grow": GrowConfig(**options)}
    return settings(count, epochs=epochs, **sections)


def to_stage(run, k):
    while run.t < run.steps * k // len(run.mixture):
        run.step()


@pytest.mark.parametrize("fresh", [0.0, 0.4, 1.0])
def test_a_new_network_learns_from_the_equilibrium_and_from_fresh_attacks(fresh):
    config = growing(3, fresh=fresh)
    run = algorithm(config)
    to_stage(run, 2)
    run.step()  # the third network has begun
    before = [copy.deepcopy(model) for model in run.mixture.models]
    start = run.mixture.weights.clone()
    assert float(start[2]) == pytest.approx(1 / 3)
    lam = start[:2] / start[:2].sum()
    order = run._order[10:20]
    own = torch.Generator()
    own.set_state(run._own.get_state())
    x, y = images().batch(order)
    first = 10 - round(10 * fresh)

    def attacked(mixture, x, y):
        adversary = Adversary(mixture, config.attack, trades=False, largest_label=2)
        return adversary(x, y, own)[0]

    parts, moved = [], lam
    if first:
        a, b = x[:first], y[:first]
        players = [Mixture(before[:2], lam), *(Mixture([model]) for model in before[:2])]
        points = torch.stack([a, *(attacked(player, a, b) for player in players)])
        losses = torch.stack(
            [torch.stack([zero_one(m(p), b) for m in before[:2]], 1) for p in points], 1
        )
        game = mixsolve.solve(losses.detach().numpy().astype("uint8"))
        played = torch.as_tensor(game.attack.dense())
        drawn = torch.multinomial(played, 1, generator=own)[:, 0].tolist()
        parts.append(torch.stack([points[j, i] for i, j in enumerate(drawn)]))
        moved = 0.75 * lam + 0.25 * torch.as_tensor(game.weights)
        # The equilibrium strategy holds every network, and so every mixture, at the value.
        risks = (played[:, :, None] * losses).sum((0, 1)) / played.sum()
        assert float(risks.min()) == pytest.approx(game.value, abs=1e-6)
    if first < 10:
        weights = [*(2 / 3 * moved).tolist(), 1 / 3]
        parts.append(attacked(Mixture(before, weights), x[first:], y[first:]))
    new = copy.deepcopy(before[2])
    loss = functional.cross_entropy(new(torch.cat(parts)), y)
    run.summary()
    run.step()
    assert run.summary()["train_loss"] == pytest.approx(loss.item(), rel=1e-4)
    torch.testing.assert_close(run.mixture.weights[:2], 2 / 3 * moved)
    for one, other in zip(run.mixture.models[:2], before[:2], strict=True):
        assert torch.equal(parameters(one), parameters(other))
    assert not torch.equal(parameters(run.mixture.models[2]), parameters(new))


def test_passes_of_a_step():
    models = [Counted(seed) for seed in range(3)]
    run = algorithm(growing(3, fresh=0.4), models)
    to_stage(run, 2)
    for model in models:
        model.images = 0
    run.step()
    # Attacks on the mixture and each alone for 6 images, with 4 candidates judged by two networks.
    drawn = 6 * (2 * 2 * 3 + 4 * 2)
    assert sum(model.images for model in models) == drawn + 4 * 3 * 3 + 10


def test_with_fresh_attacks_alone_it_is_boosting():
    grown = algorithm(growing(2, fresh=1.0))
    boosted = algorithm(
        settings(2, epochs=1, weights=WeightsConfig(update="none"), method="boosting")
    )
    while not grown.done:
        grown.step()
        boosted.step()
    for one, other in zip(grown.mixture.models, boosted.mixture.models, strict=True):
        assert torch.equal(parameters(one), parameters(other))


def test_a_resumed_run_repeats_every_bit():
    config = growing(3, epochs=2)
    whole = algorithm(config)
    to_stage(whole, 2)
    whole.step()
    whole.step()
    again = algorithm(config)
    again.load_state(copy.deepcopy(whole.state()))
    while not whole.done:
        whole.step()
        again.step()
    for one, other in zip(whole.mixture.models, again.mixture.models, strict=True):
        assert torch.equal(parameters(one), parameters(other))
    assert torch.equal(whole.mixture.weights, again.mixture.weights)
    assert whole.summary() == again.summary()


def test_the_share_of_fresh_attacks_is_checked():
    with pytest.raises(MixsolveError, match=r"grow\.fresh"):
        TrainConfig(grow=GrowConfig(fresh=1.5))
