"""What is measured of epochs, networks that are forgotten, and the weights at the end."""

import logging
import textwrap

import pytest
import torch

from mixsolve_torch.attacks import PGD
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
    mixture = Mixture([linear(seed) for seed in range(2)], [0.6, 0.4])
    data = labelled(mixture, generator)
    told = measure_epoch(mixture, data, settings(), Ranks("cpu"))
    x, y = data.batch(torch.arange(60))
    draws = torch.Generator().manual_seed(0x5EED)
    attack = PGD("Linf", 0.1, steps=4)
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
    weights = training.mixture.weights.tolist()
    assert weights == ([0.5, 0.5] if final == "last" else pytest.approx([1.0, 0.0], abs=0.1))


def test_final_weights_are_found_once(linear, generator, tmp_path, monkeypatch):
    mixture = Mixture([linear(seed) for seed in range(2)])
    data = labelled(mixture, generator)
    found = solve_weights(mixture, data, settings(), tmp_path / "game")
    assert found[0] > 0.5
    monkeypatch.setattr(PGD, "visit", lambda *_: pytest.fail("attacked again"))
    assert torch.equal(solve_weights(mixture, data, settings(), tmp_path / "game"), found)
