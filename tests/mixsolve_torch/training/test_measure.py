"""What is measured of epochs, networks that are forgotten, and the weights at the end."""

import logging
import textwrap

import pytest
import torch
from torch import nn

from mixsolve_torch.attacks import APGD, WorstOf
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
    train,
)
from mixsolve_torch.training.final_weights import solve_weights
from mixsolve_torch.training.images import ImageSet
from mixsolve_torch.training.measure import forgotten, measure_epoch
from mixsolve_torch.training.ranks import Ranks


def settings(folder="unused", **sections):
    options = {
        "attack": AttackConfig(eps=0.1, steps=3),
        "evaluation": EvaluationConfig(steps=4, final="none"),
        "run": RunConfig(out=str(folder), tensorboard=False, device="cpu"),
    }
    return TrainConfig(**(options | sections))


def labelled(mixture, generator, count=60):
    x = torch.rand(count, 1, 3, 3, generator=generator)
    with torch.no_grad():
        return ImageSet(x, mixture.models[0](x).argmax(dim=1))


def test_an_epoch_is_measured_by_the_worst_point_found_for_anyone(linear, generator):
    mixture = Mixture([linear(seed) for seed in (0, 2)], [0.6, 0.4])
    data = labelled(mixture, generator)
    told = measure_epoch(mixture, data, settings(), Ranks("cpu"))
    x, y = data.batch(torch.arange(60))
    draws = torch.Generator().manual_seed(0x5EED)
    pair = [APGD("Linf", 0.1, steps=2), APGD("Linf", 0.1, steps=2, loss="hinge")]
    attack = WorstOf(pair)
    weights = torch.tensor([[0.6, 0.4], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    points = [attack(Mixture(mixture.models, own), x, y, draws)[0] for own in weights]
    wrong = torch.stack(
        [
            torch.stack([(m(point).argmax(dim=1) != y).double() for m in mixture.models])
            for point in (x, *points)
        ]
    )
    robust = [1 - float((own @ wrong).amax(dim=0).mean()) for own in weights]
    assert told["robust"]["mixture"] == pytest.approx(robust[0])
    assert told["robust"]["models"] == pytest.approx(robust[1:])
    for kind, each in (("clean", weights[0] @ wrong[0]), ("robust", (weights[0] @ wrong).amax(0))):
        of_class = [1 - float(each[y == label].mean()) for label in y.unique()]
        assert [a for a in told[kind]["classes"] if a is not None] == pytest.approx(of_class)
        assert len(told[kind]["classes"]) == int(y.max()) + 1
    alone = 1 - float((weights[0] @ wrong[1]).mean())
    assert told["robust"]["mixture"] < alone  # the attack on the mixture alone flatters it
    mean = 0.6 * robust[1] + 0.4 * robust[2]
    assert told["robust"]["mixture"] >= mean - 1e-12


def sure_of_everything():
    """A network, another one of a fifth of its margins and logits so large that float32 has no
    cross-entropy of them, and images between dark and light to tell apart."""

    def network(slopes, scale):
        model = nn.Sequential(nn.Flatten(), nn.utils.skip_init(nn.Linear, 9, 2))
        with torch.no_grad():
            model[1].weight.copy_(scale * torch.stack([-slopes, slopes]))
            model[1].bias.copy_(scale * slopes.sum() / 2 * torch.tensor([1.0, -1.0]))
        return model

    checkered = torch.tensor([1.0, -1.0] * 4 + [1.0])
    plain = network(torch.ones(9), 1.0)
    sure = network(torch.ones(9) + 5 * (checkered - checkered.mean()), 1e5)
    light = torch.cat([torch.linspace(0.1, 0.45, 30), torch.linspace(0.55, 0.9, 30)])
    x = light.view(-1, 1, 1, 1).expand(-1, 1, 3, 3).contiguous()
    return plain, sure, ImageSet(x, (light > 0.5).long())


@pytest.mark.filterwarnings("ignore::mixsolve.base.errors.GradientWarning")
def test_a_network_whose_cross_entropy_is_flat_does_not_win_an_epoch(tmp_path):
    plain, sure, data = sure_of_everything()
    config = settings(evaluation=EvaluationConfig(steps=10, final="none"))

    def robust(network):
        told = measure_epoch(Mixture([network]), data, config, Ranks("cpu"))
        assert told["clean"]["mixture"] == 1
        return told["robust"]["mixture"]

    assert robust(plain) == pytest.approx(50 / 60)  # an image at least 0.1 from 0.5 cannot fall
    assert robust(sure) < 0.5
    mixture = Mixture([plain, sure])
    with torch.no_grad():
        x, y = data.batch(torch.arange(60))
        flat = APGD("Linf", 0.1, steps=10)(Mixture([sure]), x, y)[0]
        assert (sure(flat).argmax(dim=1) == y).double().mean() > 50 / 60
    weights = solve_weights(mixture, data, config, tmp_path)
    assert weights.tolist() == pytest.approx([1.0, 0.0], abs=0.01)


@pytest.mark.parametrize(
    ("models", "images", "told"),
    [
        ([0.6, 0.1], 1000, [1]),
        ([0.6, 0.31], 1000, []),
        ([0.6, 0.29], 20, []),
        ([0.0, 0.0], 20, []),
        ([0.1, 0.0, 0.8], 500, [0, 1]),
    ],
)
def test_a_network_below_half_of_the_best_one_is_forgotten(models, images, told):
    assert forgotten({"robust": {"models": models}}, images) == told


def dead_beside_living(tmp_path, monkeypatch):
    """A function that builds a linear network, or one whose logits hardly see the image."""
    (tmp_path / "pairs_of_networks.py").write_text(
        textwrap.dedent(
            """
            import torch

            class Blind(torch.nn.Module):
                def __init__(self):
                    super().__init__()
                    self.bias = torch.nn.Parameter(torch.linspace(0.0, 1.0, 10))
                def forward(self, x):
                    return 1e-9 * x.flatten(1).sum(dim=1, keepdim=True) + self.bias

            def build(classes, seed):
                if seed % 2:
                    return Blind()
                torch.manual_seed(seed)
                return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return ModelConfig("pairs_of_networks:build", count=2)


@pytest.mark.filterwarnings("ignore::mixsolve.base.errors.GradientWarning")
@pytest.mark.parametrize("final", ["game", "last"])
def test_a_dead_member_is_warned_about_and_loses_its_weight(tmp_path, monkeypatch, caplog, final):
    config = settings(
        tmp_path / "run",
        weights=WeightsConfig(final=final),
        model=dead_beside_living(tmp_path, monkeypatch),
        data=DataConfig(limit=600),
        attack=AttackConfig(eps=0.02, steps=2),
        optimizer=OptimizerConfig(epochs=4, batch_size=32, learning_rate=0.3),
    )
    with caplog.at_level(logging.WARNING, "mixsolve_torch"):
        training = train(config)
    said = [record.getMessage() for record in caplog.records if "robust" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("network 2, of weight 0.50, has ")
    assert "less than half of the best one" in said[0]
    nothing = [
        text for text in map(logging.LogRecord.getMessage, caplog.records) if "nothing" in text
    ]
    assert len(nothing) == 1
    assert nothing[0].startswith("network 2 has learned nothing by epoch 2: it is right on ")
    assert "lower optimizer.learning_rate, warm up" in nothing[0]
    assert training.verdict is not None
    assert list(training.verdict.unlearned) == [1]
    assert training.verdict.sentences()[0].startswith("Network 2 has learned nothing: it is right")
    weights = training.mixture.weights.tolist()
    assert weights == ([0.5, 0.5] if final == "last" else pytest.approx([1.0, 0.0], abs=0.1))


def test_final_weights_are_found_once(linear, generator, tmp_path, monkeypatch):
    mixture = Mixture([linear(seed) for seed in range(2)])
    data = labelled(mixture, generator)
    found = solve_weights(mixture, data, settings(), tmp_path / "game")
    assert found[0] > 0.5
    monkeypatch.setattr(APGD, "visit", lambda *_: pytest.fail("attacked again"))
    assert torch.equal(solve_weights(mixture, data, settings(), tmp_path / "game"), found)
