"""Training for the worst class: its steps against a plain reading, snapshots, and the verdict."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_methods import EPS, images, network, parameters, settings
from torch.nn import functional

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks import PGD
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.attacks.objective import Objective
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.training import (
    AttackConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    WeightsConfig,
    WorstGroupConfig,
    load_trained,
    train,
)
from mixsolve_torch.training.ranks import Ranks
from mixsolve_torch.training.snapshot_weights import choose
from mixsolve_torch.training.snapshots import read_snapshots
from mixsolve_torch.training.steps import Steps
from mixsolve_torch.training.verdict import judge


def for_worst(rate=0.5, floor=0.2, **sections):
    own = WorstGroupConfig(rate=rate, floor=floor)
    plain = {"weights": WeightsConfig(), "method": "together"}
    return settings(objective="worst-group", worst_group=own, **(plain | sections))


def steps_of(config):
    return Steps(config, [network(0)], images(), Ranks("cpu"))


def test_a_step_descends_the_weighted_loss_and_moves_the_weights():
    config = for_worst(rate=0.7, floor=0.3)
    steps = steps_of(config)
    data, model = images(), network(0)
    shared = torch.Generator().manual_seed(config.run.seed)
    own = torch.Generator().manual_seed((config.run.seed << 16) + 1)
    rate = config.optimizer
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1.0, momentum=rate.momentum, weight_decay=rate.weight_decay
    )
    p = torch.bincount(data.labels).double() / 40
    v = p.clone()
    order = torch.randperm(40, generator=shared)
    pgd = PGD("Linf", EPS, steps=3, step_size=config.attack.step)
    for t in range(4):
        chosen = order[10 * t : 10 * t + 10]
        x, y = data.batch(chosen)
        learning_rate = steps.learning_rate
        steps.step()
        objective = Objective(Members(Mixture([model]), torch.tensor([2])), "cross-entropy")
        attacked, score = pgd.last(objective, pgd.starts(x, own), x, y)
        u = 0.7 * v + 0.3 * p
        own_share = (u / p)[y].float()
        loss = (own_share * functional.cross_entropy(model(attacked), y, reduction="none")).mean()
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
        errors = torch.stack([score.errors[y == g].sum() for g in range(3)]) / 10 / p
        v = v * (0.7 * errors).exp()
        v = v / v.sum()
    torch.testing.assert_close(parameters(steps.mixture.models[0]), parameters(model))
    torch.testing.assert_close(steps._method.group_weights, v)


def test_a_resumed_run_has_the_same_weights():
    config = for_worst()
    whole, first = steps_of(config), steps_of(config)
    for _ in range(3):
        first.step()
    second = steps_of(config)
    second.load_state(first.state())
    while not whole.done:
        whole.step()
    while not second.done:
        second.step()
    torch.testing.assert_close(second._method.group_weights, whole._method.group_weights)
    assert torch.equal(parameters(second.mixture), parameters(whole.mixture))


def test_without_a_rate_all_classes_count_as_they_are():
    weighted = steps_of(for_worst(rate=0.0))
    plain = steps_of(settings(weights=WeightsConfig(), method="together"))
    while not plain.done:
        plain.step()
        weighted.step()
    torch.testing.assert_close(parameters(weighted.mixture), parameters(plain.mixture))


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"count": 2}, "model.count must be 1"),
        ({"method": "algorithm2"}, "method must be 'together'"),
        ({"attack": AttackConfig(own_share=0.5)}, "attack.own_share must be 0.0"),
        ({"worst_group": WorstGroupConfig(first=3)}, "worst_group.first must be at most 2"),
        ({"worst_group": WorstGroupConfig(floor=1.5)}, "worst_group.floor"),
        ({"objective": "best-group"}, "objective must be one of"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(sections, words):
    plain = {"objective": "worst-group", "weights": WeightsConfig(), "method": "together"}
    with pytest.raises(MixsolveError, match=words):
        settings(**(plain | sections))


def overlapping(count=240, seed=0):
    """Images of three classes, two of which look alike."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = 0.5 + 0.1 * torch.randn(count, 1, 3, 3, generator=draws)
    x[y == 2, 0, 0] += 0.3
    x[y == 1, 0, 2] += 0.04
    return x.clamp(0, 1), y


def small(seed=0, classes=3):
    return network(seed, classes)


def config_of(folder, **options):
    return TrainConfig(
        objective="worst-group",
        worst_group=WorstGroupConfig(rate=0.3, first=2),
        data=DataConfig(validation=0.5),
        model=ModelConfig(architecture="test_worst_group:small", count=1),
        attack=AttackConfig(eps=0.02, steps=3),
        optimizer=OptimizerConfig(epochs=5, batch_size=20, learning_rate=0.2),
        evaluation=EvaluationConfig(**({"steps": 5, "final": "none"} | options)),
        run=RunConfig(out=str(folder), device="cpu", tensorboard=False),
    )


def test_a_run_mixes_its_snapshots_and_deploys_the_winner(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    training = train(config_of(tmp_path / "run"), data=overlapping())
    pool = read_snapshots(tmp_path / "run")
    assert pool.epochs == (2, 3, 4, 5)
    verdict = training.verdict
    assert verdict.split == "held-out"
    assert 0 <= verdict.worst.mixture.value <= 1
    told = " ".join(verdict.sentences())
    assert "Worst class of the mixture" in told
    assert "on one half of these images" in told
    assert verdict.recommended == ("mixture" if verdict.worst.gain.low > 0 else "single")
    winner = load_trained(training.deploy)
    count = sum(weight > 0 for weight in verdict.weights)
    assert len(winner) == (count if verdict.recommended == "mixture" else 1)
    content = json.loads((tmp_path / "run" / "verdict.json").read_text())
    assert content["worst"]["gain"]["value"] == verdict.worst.gain.value
    # Final attacks on test images come on top; nothing is trained again.
    final = config_of(tmp_path / "run", final="pgd", final_steps=5, final_restarts=1)
    tested = train(final, data=overlapping(), test=overlapping(120, 1), resume=True)
    assert tested.verdict.split == "test"
    assert tested.verdict.images == 120
    assert tested.evaluation.by_group.names == ("0", "1", "2")
    np.testing.assert_allclose(tested.mixture.weights, training.mixture.weights)


def test_the_epoch_kept_is_that_of_the_best_worst_class(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    training = train(config_of(tmp_path / "run"), data=overlapping())
    lowest = [min(record["robust"]["classes"]) for record in training.records]
    assert min(training.best["robust"]["classes"]) == max(lowest)


def test_single_and_mixture_are_chosen_by_the_worst_class(tmp_path):
    # Snapshots give up one of two classes each, the third is half right on both.
    draws = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    losses = np.zeros((200, 1, 3), np.uint8)
    losses[labels == 0, 0, 0] = losses[labels == 1, 0, 1] = 1
    losses[:, 0, 2] = draws.random(200) < 0.7
    chosen = choose(losses, labels, config_of(tmp_path))
    assert chosen.single == 2
    np.testing.assert_allclose(chosen.weights, [0.5, 0.5, 0], atol=0.1)
    mixed, alone = chosen.crossed(config_of(tmp_path))
    assert min(mixed[labels == g].mean() for g in (0, 1)) > 0.4
    assert alone.mean() == pytest.approx(0.3, abs=0.08)
    verdict = judge(
        losses,
        chosen.weights,
        {"one": alone},
        labels,
        mixed=mixed,
        by_worst_class=True,
    )
    assert verdict.recommended == "mixture"
    assert verdict.worst.gain.value > 0.1
