"""Training against the union of several sets: each image is trained on its worst point of all."""

import json

import pytest
import torch
from tiny_runs import ALGORITHM2, FINAL, tiny_config

from mixsolve.base.errors import MixsolveError
from mixsolve_torch import Mixture, read_threats
from mixsolve_torch.commands.train import read
from mixsolve_torch.core.losses import cross_entropy
from mixsolve_torch.training import AttackConfig, train
from mixsolve_torch.training.adversary import Adversary
from mixsolve_torch.training.images import ImageSet
from mixsolve_torch.training.measure import measure_epoch
from mixsolve_torch.training.ranks import Ranks

SETS = ["Linf:0.1", "L2:0.3", "shifts:1"]


def expected(mixture, loss, point, y):
    with torch.no_grad():
        each = torch.stack([loss(model(point), y).double() for model in mixture.models])
    return mixture.weights @ each


def test_each_image_is_trained_on_its_worst_point_of_all_sets(linear, generator):
    mixture = Mixture([linear(seed) for seed in range(2)], [0.7, 0.3])
    x = torch.rand(25, 1, 3, 3, generator=generator)
    y = torch.arange(25) % 4

    def attacked(config):
        adversary = Adversary(mixture, config, trades=False, largest_label=3)
        return adversary(x, y, draws)

    draws = torch.Generator().manual_seed(3)
    found, errors = attacked(AttackConfig(threats=SETS, steps=3))
    draws = torch.Generator().manual_seed(3)
    points = [
        attacked(AttackConfig(norm=n, eps=e, steps=3))[0] for n, e in (("Linf", 0.1), ("L2", 0.3))
    ]
    points += list(read_threats("shifts:1")[0].points(x))
    losses = torch.stack([expected(mixture, cross_entropy, point, y) for point in points])
    torch.testing.assert_close(expected(mixture, cross_entropy, found, y), losses.amax(dim=0))
    chosen = losses.argmax(dim=0)
    assert {0, 1} < set(chosen.tolist())
    wrong = torch.stack([model(found).argmax(dim=1) != y for model in mixture.models]).double()
    torch.testing.assert_close(errors, mixture.weights @ wrong)


@pytest.mark.parametrize("trades", [False, True])
def test_one_ball_as_a_threat_is_the_plain_attack(linear, generator, trades):
    mixture = Mixture([linear(seed) for seed in range(2)])
    x = torch.rand(9, 1, 3, 3, generator=generator)
    y = torch.arange(9) % 4
    plain, listed = (
        Adversary(mixture, config, trades=trades, largest_label=3)(
            x, y, torch.Generator().manual_seed(1)
        )
        for config in (
            AttackConfig(norm="L2", eps=0.3, steps=3),
            AttackConfig(threats=["L2:0.3"], steps=3),
        )
    )
    assert torch.equal(plain[0], listed[0])
    assert torch.equal(plain[1], listed[1])


def tiny(folder, threats=SETS):
    return tiny_config(
        folder,
        data={"limit": 100},
        attack=AttackConfig(threats=threats, steps=1),
        weights=ALGORITHM2,
        method="algorithm2",
        evaluation=FINAL | {"steps": 2, "images": 20, "final_images": 20},
    )


def test_a_run_is_evaluated_under_its_threats_and_resumes_only_under_them(tmp_path):
    pytest.importorskip("matplotlib")
    result = train(tiny(tmp_path / "run"))
    told = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert told["threats"] == ["Linf 0.1", "L2 0.3", "shifts 1"]
    assert told["exact"] == ["shifts 1"]
    assert result.evaluation is not None
    assert all(len(row.threats) == 3 for row in result.evaluation.players)
    with pytest.raises(MixsolveError, match=r"attack\.threats"):
        train(tiny(tmp_path / "run", SETS[:2]), resume=True)


def test_an_epoch_is_measured_under_the_union(linear, generator):
    mixture = Mixture([linear(seed) for seed in range(2)])
    x = torch.rand(40, 1, 3, 3, generator=generator)
    data = ImageSet(x, mixture.models[0](x).argmax(dim=1))
    told = [
        measure_epoch(mixture, data, tiny("unused", sets), Ranks("cpu"))
        for sets in (SETS[2:], SETS)
    ]
    points = list(read_threats("shifts:1")[0].points(x))
    y = data.labels
    wrong = torch.stack(
        [
            torch.stack([(model(point).argmax(dim=1) != y).double() for model in mixture.models])
            for point in points
        ]
    )
    exact = 1 - (mixture.weights @ wrong).amax(dim=0).mean()
    assert told[0]["robust"]["mixture"] == pytest.approx(float(exact))
    assert told[1]["robust"]["mixture"] < told[0]["robust"]["mixture"]


def test_files_and_the_command_line_name_threats(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('[attack]\nthreats = ["Linf:8/255", "rotations:15"]\nsteps = 4\n')
    config, _ = read(["--config", str(path)])
    assert config.attack.threats == ["Linf:8/255", "rotations:15"]
    assert [threat.label for threat in config.attack.sets] == ["Linf 8/255", "rotations 15"]
    config, _ = read(["--attack.threats", '["L2:0.5", "shifts:2"]'])
    assert [threat.label for threat in config.attack.sets] == ["L2 0.5", "shifts 2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threats": ["L3:1"]}, r"attack\.threats 'L3:1' is not understood"),
        ({"threats": []}, r"attack\.threats must name at least one set"),
        ({"threats": SETS, "eps": 0.1}, r"attack\.eps must be left out with attack\.threats"),
        ({"threats": SETS, "norm": "L2"}, r"attack\.norm must be left out"),
        ({"threats": SETS, "step_size": 0.1}, r"attack\.step_size must be left out"),
    ],
)
def test_wrong_threats_are_refused(options, message):
    with pytest.raises(MixsolveError, match=message):
        AttackConfig(**options)
