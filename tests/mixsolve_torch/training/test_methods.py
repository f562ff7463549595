"""Methods: their steps against plain readings of the article and of adversarial training."""

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

import mixsolve
from mixsolve_torch.attacks import PGD
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.attacks.objective import Objective
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.models.passes import Passes, counted
from mixsolve_torch.training import (
    AttackConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    WeightsConfig,
)
from mixsolve_torch.training.adversary import Adversary, ExpectedDivergence, divergence
from mixsolve_torch.training.config import STAGED
from mixsolve_torch.training.images import ImageSet
from mixsolve_torch.training.methods import METHODS
from mixsolve_torch.training.ranks import Ranks
from mixsolve_torch.training.steps import Steps

EPS = 0.1


def network(seed, classes=3):
    draws = torch.Generator().manual_seed(seed)
    hidden = torch.nn.utils.skip_init(torch.nn.Linear, 9, 8)
    out = torch.nn.utils.skip_init(torch.nn.Linear, 8, classes)
    with torch.no_grad():
        for parameter in (*hidden.parameters(), *out.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=draws) / 2)
    return torch.nn.Sequential(torch.nn.Flatten(), hidden, torch.nn.Tanh(), out)


def images(count=40):
    draws = torch.Generator().manual_seed(7)
    return ImageSet(torch.rand(count, 1, 3, 3, generator=draws), torch.arange(count) % 3)


def settings(count=1, loss="at", epochs=2, **sections):
    options = {
        "model": ModelConfig(architecture="none:none", count=count),
        "loss": LossConfig(name=loss, beta=2.0),
        "attack": AttackConfig(eps=EPS, steps=3),
        "optimizer": OptimizerConfig(epochs=epochs, batch_size=10, weight_decay=1e-3),
        "weights": WeightsConfig("oracle", t_theta=2, t_lambda=20, momentum=0.75),
        "method": "algorithm2",
    }
    return TrainConfig(**(options | sections))


def with_method(config, method):
    """The same settings for another method; those of weights only where it has them."""
    weights = WeightsConfig(update="none") if method in STAGED else config.weights
    return replace(config, method=method, weights=weights)


def algorithm(config, models=None):
    models = models or [network(seed) for seed in range(config.model.count)]
    return Steps(config, models, images(), Ranks("cpu"))


def parameters(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def madry(config, model, data, steps, trades):
    """Adversarial training or TRADES of one network, written out."""
    shared = torch.Generator().manual_seed(config.run.seed)
    own = torch.Generator().manual_seed((config.run.seed << 16) + 1)
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    x_all, y_all = data.batch(torch.arange(len(data)))
    per_pass = len(data) // 10
    for t in range(steps):
        if t % per_pass == 0:
            order = torch.randperm(len(data), generator=shared)
        chosen = order[10 * (t % per_pass) : 10 * (t % per_pass) + 10]
        if config.method == "algorithm2":
            torch.randint(1, (), generator=shared)
        x, y = x_all[chosen], y_all[chosen]
        noise = EPS * (2 * torch.rand(x.shape, generator=own) - 1)
        moved = (x + noise).clamp(0, 1)
        clean = model(x).log_softmax(1).detach()
        for _ in range(3):
            moved.requires_grad_()
            if trades:
                log_q = model(moved).log_softmax(1)
                ascended = functional.kl_div(log_q, clean, log_target=True, reduction="sum")
            else:
                ascended = functional.cross_entropy(model(moved), y, reduction="sum")
            (slope,) = torch.autograd.grad(ascended, moved)
            ahead = moved.detach() + 2.5 * EPS / 3 * slope.sign()
            moved = torch.minimum(torch.maximum(ahead, x - EPS), x + EPS).clamp(0, 1)
        if trades:
            log_p = model(x).log_softmax(1)
            log_q = model(moved).log_softmax(1)
            apart = functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
            loss = functional.cross_entropy(model(x), y) + 2.0 * apart
        else:
            loss = functional.cross_entropy(model(moved), y)
        slopes = torch.autograd.grad(loss, list(model.parameters()))
        progress = t / steps
        rate = 0.1 * (1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01)
        with torch.no_grad():
            for parameter, slope, speed in zip(model.parameters(), slopes, velocity, strict=True):
                speed.mul_(0.9).add_(slope + 1e-3 * parameter)
                parameter.sub_(rate * speed)


@pytest.mark.parametrize("name", ["at", "trades"])
@pytest.mark.parametrize(("member", "q"), [("error", 1.0), ("gce", 0.5)])
def test_networks_learn_by_the_loss_of_their_logits(name, member, q):
    loss = LossConfig(name=name, beta=0.0, member=member, q=q)
    config = replace(settings(1, epochs=1), loss=loss, method="together")
    trained, plain = network(0), network(0)
    run = algorithm(config, [trained])
    x, y = images().batch(torch.randperm(40, generator=torch.Generator().manual_seed(0))[:10])
    point, _ = Adversary(Mixture([plain]), config.attack, trades=name == "trades", largest_label=2)(
        x, y, torch.Generator().manual_seed(1)
    )
    p = plain(x if name == "trades" else point).softmax(1)[range(10), y]
    slopes = torch.autograd.grad(((1 - p**q) / q).mean(), list(plain.parameters()))
    with torch.no_grad():
        for parameter, slope in zip(plain.parameters(), slopes, strict=True):
            parameter.sub_(0.1 * (slope + 1e-3 * parameter))
    run.step()
    torch.testing.assert_close(parameters(trained), parameters(plain), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["together", "algorithm2", "boosting", "grow"])
@pytest.mark.parametrize("loss", ["at", "trades"])
def test_one_model_is_adversarial_training(loss, method):
    config = with_method(settings(loss=loss), method)
    trained = network(0)
    run = algorithm(config, [trained])
    plain = copy.deepcopy(network(0))
    start = parameters(plain)
    madry(config, plain, images(), run.steps, loss == "trades")
    while not run.done:
        run.step()
    assert run.t == run.steps == 8
    torch.testing.assert_close(parameters(trained), parameters(plain), rtol=1e-4, atol=1e-5)
    assert (parameters(trained) - start).abs().max() > 0.01


def test_one_step_in_so_many_updates_the_weights_and_the_others_one_model():
    config = settings(count=3, epochs=2)
    run = algorithm(config)
    assert run.steps == 3 * 2 * 4
    before = [parameters(m) for m in run.mixture.models], run.mixture.weights.clone()
    drawn = set()
    for t in range(1, run.steps + 1):
        run.step()
        after = [parameters(m) for m in run.mixture.models], run.mixture.weights.clone()
        moved = [not torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True)]
        if t % (2 * 3 + 1) == 0:
            assert not any(moved)
            assert not torch.equal(before[1], after[1])
            assert float(after[1].sum()) == pytest.approx(1.0, abs=1e-12)
        else:
            assert sum(moved) == 1
            drawn.add(moved.index(True))
            assert torch.equal(before[1], after[1])
        before = after
    assert drawn == {0, 1, 2}


@pytest.mark.parametrize("update", ["oracle", "entropic", "lp"])
@pytest.mark.parametrize("loss", ["zero-one", "cross-entropy"])
def test_weights_move_towards_the_solution_of_the_batch(update, loss, monkeypatch):
    weights = WeightsConfig(update, t_theta=1, t_lambda=20, loss=loss, momentum=0.75)
    run = algorithm(settings(count=2, weights=weights))
    run.mixture.set_weights([0.3, 0.7])
    games = []
    solve = mixsolve.solve
    monkeypatch.setattr(mixsolve, "solve", lambda *a, **k: games.append((a, k)) or solve(*a, **k))
    for _ in range(3):
        run.step()
    ((losses, alpha), options) = games[0]
    assert losses.shape == (10, 4, 2)
    assert losses.dtype == (np.uint8 if loss == "zero-one" else np.float32)
    assert alpha == (0.01 if update == "entropic" else 0.0)
    np.testing.assert_array_equal(options["warm_start"], [0.3, 0.7])
    assert options["max_iter"] == (20 if update == "oracle" else None)
    options["max_iter"] = 20 if update == "oracle" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mixsolve.ConvergenceWarning)
        found = solve(losses, alpha, **options).weights
    expected = 0.75 * np.array([0.3, 0.7]) + 0.25 * found
    np.testing.assert_allclose(run.mixture.weights.numpy(), expected, atol=1e-9)


class Counted(torch.nn.Module):
    """Counts its forward passes, and those of them that a gradient of its parameters came from."""

    def __init__(self, seed):
        super().__init__()
        self.body = network(seed)
        self.forwards = self.descents = self.images = 0
        self.body[1].weight.register_hook(self._descended)

    def _descended(self, gradient):
        self.descents += 1

    def forward(self, x):
        self.forwards += 1
        self.images += len(x)
        return self.body(x)


@pytest.mark.parametrize("method", ["together", "algorithm2"])
def test_passes_of_a_step_of_every_network(method):
    """L (S + 1) passes together, and L (L S + 1) for L steps of Algorithm 2."""
    count, attack_steps = 3, 3
    models = [Counted(seed) for seed in range(count)]
    weights = WeightsConfig(update="none")
    run = algorithm(settings(count, weights=weights, method=method), models)
    made = 1 if method == "together" else count
    assert run.steps_per_epoch == made * run.steps_per_pass
    assert run.steps == 2 * run.steps_per_epoch
    for _ in range(made):
        run.step()
    assert sum(model.forwards for model in models) == count * (made * attack_steps + 1)
    assert sum(model.descents for model in models) == count
    if method == "together":
        assert {model.descents for model in models} == {1}


@pytest.mark.parametrize(("loss", "learnt"), [("at", 1), ("trades", 2)])
def test_passes_are_counted(loss, learnt):
    run = algorithm(settings(2, loss=loss, method="together", weights=WeightsConfig("none")))
    for _ in range(4):
        run.step()
    clean = 2 * (loss == "trades")  # the logits that divergences are taken from, no gradient
    forward_and_backward = 2 * 2 * (3 + learnt)
    assert run.summary()["passes"] == 4 * 10 * (forward_and_backward + clean)
    state = copy.deepcopy(run.state())
    again = algorithm(settings(2, loss=loss, method="together", weights=WeightsConfig("none")))
    again.load_state(state)
    run.step()
    again.step()
    assert run.summary()["passes"] == again.summary()["passes"]


def test_together_all_networks_learn_from_one_attack_on_the_uniform_mixture():
    config = settings(2, weights=WeightsConfig(update="none"), method="together", epochs=1)
    run = algorithm(config)
    plain = [network(0), network(1)]
    shared = torch.Generator().manual_seed(0)
    x, y = images().batch(torch.randperm(40, generator=shared)[:10])
    adversary = Adversary(Mixture(plain), config.attack, trades=False, largest_label=2)
    attacked, _ = adversary(x, y, torch.Generator().manual_seed(1))
    for model in plain:
        loss = functional.cross_entropy(model(attacked), y)
        slopes = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, slope in zip(model.parameters(), slopes, strict=True):
                parameter.sub_(0.1 * (slope + 1e-3 * parameter))
    run.step()
    for one, other in zip(run.mixture.models, plain, strict=True):
        torch.testing.assert_close(parameters(one), parameters(other), rtol=1e-4, atol=1e-6)
    assert run.mixture.weights.tolist() == [0.5, 0.5]


def test_together_one_step_in_so_many_updates_the_weights():
    weights = WeightsConfig("lp", t_theta=2, momentum=0.5)
    run = algorithm(settings(2, weights=weights, method="together"))
    before = [parameters(m) for m in run.mixture.models], run.mixture.weights.clone()
    for t in range(1, run.steps + 1):
        run.step()
        after = [parameters(m) for m in run.mixture.models], run.mixture.weights.clone()
        moved = {not torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True)}
        assert moved == {t % 3 != 0}
        assert torch.equal(before[1], after[1]) == (t % 3 != 0)
        before = after


@pytest.mark.parametrize(("floor", "attacked"), [(0.0, [0.9, 0.1]), (0.4, [0.74, 0.26])])
def test_the_attack_sees_weights_with_a_floor(floor, attacked, monkeypatch):
    seen = []
    begin = Members.__init__

    def watched(self, mixture, *arguments, **options):
        seen.append(mixture.weights.tolist())
        begin(self, mixture, *arguments, **options)

    run = algorithm(settings(2, weights=WeightsConfig("lp", floor=floor), method="together"))
    run.mixture.set_weights([0.9, 0.1])
    state = copy.deepcopy(run.state())
    monkeypatch.setattr(Members, "__init__", watched)
    run.load_state(state)
    run.step()
    assert seen
    assert all(weights == pytest.approx(attacked) for weights in seen)
    assert run.mixture.weights.tolist() == pytest.approx([0.9, 0.1])


@pytest.mark.parametrize("method", ["together", "algorithm2"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_each_batch_is_attacked_for_each_network_alone(share, method):
    models = [Counted(seed) for seed in range(2)]
    attack = AttackConfig(eps=EPS, steps=3, own_share=share)
    run = algorithm(settings(2, attack=attack, method=method), models)
    x, y = images().batch(torch.arange(10))
    trained = [0, 1] if method == "together" else [1]
    found, errors = run._attackers.attacked(trained, x, y, torch.Generator().manual_seed(5))
    passed = sum(model.images for model in models)
    draws, first = torch.Generator().manual_seed(5), 10 - round(10 * share)
    expected = []
    for k in trained if share else []:
        alone = Adversary(Mixture([models[k]]), attack, trades=False, largest_label=2)
        expected.append(alone(x[first:], y[first:], draws)[0])
    if share < 1:
        adversary = Adversary(Mixture(models), attack, trades=False, largest_label=2)
        both, told = adversary(x[:first], y[:first], draws)
        expected = [torch.cat([both, own]) for own in expected] if share else [both] * len(trained)
        assert torch.equal(errors, told)
    assert len(found) == len(trained)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    if share and len(trained) == 2:
        assert not torch.equal(found[0], found[1])
    assert passed == 3 * (2 * first + len(trained) * (10 - first))
    run.step()


class InPlace(torch.nn.Module):
    """Writes into its input, as a first layer in place does."""

    def __init__(self, seed):
        super().__init__()
        self.body = network(seed)

    def forward(self, x):
        return self.body(x.sub_(0.5))


class Kinked(torch.nn.Module):
    """Has a gradient that is not finite where a pixel is 0."""

    def __init__(self, seed):
        super().__init__()
        self.body = network(seed)

    def forward(self, x):
        return self.body(x.sqrt())


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("kind", [network, InPlace, Kinked, lambda seed: network(seed).double()])
def test_points_on_the_way_need_no_judgement(norm, kind):
    mixture = Mixture([kind(0), network(1)], [0.3, 0.7])
    x, y = images(12).batch(torch.arange(12))
    x[:3] = 0
    attack = PGD(norm, {"Linf": 0.1, "L2": 0.5, "L1": 1.0}[norm], steps=4)
    start = attack.starts(x, torch.Generator().manual_seed(0))
    for loss in ("cross-entropy", "margin", "mean-probability"):
        with frozen(mixture):
            objective = Objective(Members(mixture, y), loss)
            *_, before, last = attack.visit(objective, start, x, y)
            objective = Objective(Members(mixture, y), loss)
            with counted() as passes:
                found, score = attack.last(objective, start, x, y)
            assert passes == Passes(forward=4 * 2 * 12, backward=4 * 2 * 12)
        assert torch.equal(found, last[0])
        assert torch.equal(score.errors, before[1].errors)
        assert torch.equal(score.value, before[1].value)


@pytest.mark.parametrize("method", ["together", "boosting", "mrboost"])
def test_compiled_networks_are_what_is_attacked_and_trained(monkeypatch, method):
    passes = []

    class Compiled(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            passes.append(self.model.training)
            return self.model(x)

    monkeypatch.setattr(torch, "compile", Compiled)
    models = [Counted(0), Counted(1)]
    config = with_method(settings(2, run=RunConfig(compile=True), epochs=1), method)
    run = algorithm(config, models)
    while method in STAGED and run.t < run.steps // 2:
        run.step()
    passes.clear()
    before = sum(model.forwards for model in models)
    run.step()
    assert len(passes) == sum(model.forwards for model in models) - before
    assert len(passes) == 2 * 3 + (1 if method in STAGED else 2)
    assert passes.count(True) == (1 if method in STAGED else 2)


def test_weights_stay_uniform_where_they_are_not_to_be_updated():
    run = algorithm(settings(count=2, weights=WeightsConfig(update="none", t_theta=1)))
    for _ in range(6):
        run.step()
    assert run.mixture.weights.tolist() == [0.5, 0.5]


def test_divergence_is_expected_over_the_mixture():
    mixture = Mixture([network(0), network(1)], [0.25, 0.75])
    x, y = images(6).batch(torch.arange(6))
    moved = (x + 0.05).clamp(0, 1)
    objective = ExpectedDivergence(Members(mixture, y), x)
    score, gradient = objective.score_and_gradient(moved, y)
    point = moved.clone().requires_grad_()
    total = torch.zeros(6)
    for weight, model in zip([0.25, 0.75], mixture.models, strict=True):
        p, q = model(x).softmax(1), model(point).softmax(1)
        total = total + weight * (p * (p / q).log()).sum(1)
    (slope,) = torch.autograd.grad(total.sum(), point)
    torch.testing.assert_close(score.value, total.detach().double(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-6)
    assert float(objective.score(x, y).value.abs().max()) < 1e-7


def test_divergence_matches_pytorch():
    log_p, log_q = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    expected = functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)
    torch.testing.assert_close(divergence(log_p, log_q), expected)


class Normed(torch.nn.Module):
    """A batch norm before a linear layer; remembers whether it normalised by the batch."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1)
        self.body = network(3)
        self.modes = []

    def forward(self, x):
        self.modes.append(self.norm.training)
        return self.body(self.norm(x))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_batch_norms_during_attacks(mode):
    model = Normed()
    before = copy.deepcopy(model.norm.state_dict())
    mixture = Mixture([model])
    x, y = images(12).batch(torch.arange(12))
    config = AttackConfig(eps=EPS, steps=2, batch_norm=mode)
    Adversary(mixture, config, trades=False, largest_label=2)(
        x, y, torch.Generator().manual_seed(0)
    )
    assert set(model.modes) == {mode == "train"}
    for name, value in model.norm.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert model.norm.training
    assert model.norm.track_running_stats


def test_a_moving_average_is_what_is_evaluated():
    config = settings(model=ModelConfig(architecture="none:none", count=1, ema=0.5))
    run = algorithm(config)
    average = parameters(run.mixture.models[0])
    for step in range(4):
        run.step()
        own = parameters(run.mixture.models[0])
        decay = min(0.5, (step + 1) / (10 + step))
        average = decay * average + (1 - decay) * own
    torch.testing.assert_close(parameters(run.evaluated.models[0]), average)
    assert not torch.equal(average, own)


@pytest.mark.parametrize("method", METHODS)
def test_going_on_from_a_state_repeats_every_bit(method):
    config = settings(
        epochs=2 if method == "algorithm2" else 4,
        run=RunConfig(seed=3),
        model=ModelConfig("none:none", 2, ema=0.9),
    )
    config = with_method(config, method)
    whole = algorithm(config)
    for _ in range(7):
        whole.step()
    state = copy.deepcopy(whole.state())
    again = algorithm(config, [network(9), network(10)])
    again.load_state(state)
    while not whole.done:
        whole.step()
        again.step()
    assert again.done
    for one, other in zip(whole.mixture.models, again.mixture.models, strict=True):
        assert torch.equal(parameters(one), parameters(other))
    assert torch.equal(whole.mixture.weights, again.mixture.weights)
    assert whole.summary() == again.summary()


def test_steps_leave_the_global_generator_alone():
    run = algorithm(settings(count=2))
    before = torch.get_rng_state()
    run.step()
    assert torch.equal(before, torch.get_rng_state())
