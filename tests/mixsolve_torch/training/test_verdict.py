"""The verdict: mixture or single network, by paired differences; and the file of the winner."""

import json

import numpy as np
import pytest
import torch
from tiny_runs import FINAL, tiny_config

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.training import load_trained, train
from mixsolve_torch.training.images import ImageSet
from mixsolve_torch.training.measure import found_losses, measure_epoch
from mixsolve_torch.training.ranks import Ranks
from mixsolve_torch.training.verdict import judge


def losses(*rows, repeat=1):
    """Losses (N, m, L) of images given as lists of candidates."""
    return np.repeat(np.array(rows, dtype=np.uint8), repeat, axis=0)


def alone(values, k):
    return 1.0 - values[..., k].max(axis=1)


def test_accuracy_is_the_weighted_mean_and_the_margin():
    # Both networks can be fooled on the first image, but not at one point.
    values = losses([[1, 0], [0, 1]], [[1, 1], [0, 0]], [[0, 0], [1, 0]], [[0, 0], [0, 0]])
    weights = np.array([0.75, 0.25])
    verdict = judge(values, weights, {"network 2": alone(values, 1)})
    assert verdict.members == (0.25, 0.5)
    assert verdict.weighted_mean == pytest.approx(0.75 * 0.25 + 0.25 * 0.5)
    assert verdict.mixture == pytest.approx((0.25 + 0 + 0.25 + 1) / 4)
    assert verdict.margin == pytest.approx(0.25 / 4)
    difference = np.array([0.25, 0, 0.25, 1]) - [0, 0, 1, 1]
    assert verdict.gain.value == pytest.approx(difference.mean())
    assert verdict.error == pytest.approx(difference.std(ddof=1) / 2)
    assert verdict.recommended == "single"


def test_identical_networks_are_no_mixture():
    draws = np.random.default_rng(0)
    one = draws.integers(0, 2, (200, 3, 1))
    values = np.repeat(one, 2, axis=2).astype(np.uint8)
    verdict = judge(values, np.array([0.5, 0.5]), {"network 1": alone(values, 0)})
    assert verdict.margin == pytest.approx(0)
    assert (verdict.gain.value, verdict.gain.low, verdict.gain.high) == (0, 0, 0)
    assert verdict.recommended == "single"
    assert verdict.sentences()[-1].startswith("Deploy network 1 alone")


def test_a_margin_above_its_error_is_worth_a_mixture():
    values = losses([[1, 0], [0, 1]], repeat=60)
    values = np.concatenate([values, losses([[1, 1], [0, 0]], repeat=60)])
    verdict = judge(values, np.array([0.5, 0.5]), {"network 1": alone(values, 0)})
    assert verdict.gain.value == pytest.approx(0.25)
    assert verdict.gain.low > 0.15
    assert verdict.recommended == "mixture"
    assert verdict.sentences()[-1] == "Deploy the mixture: its gain exceeds its error."


def test_every_class_is_told_beside_the_mean():
    draws = np.random.default_rng(3)
    values = draws.integers(0, 2, (60, 4, 2)).astype(np.uint8)
    labels = np.arange(60) % 3 + np.where(np.arange(60) % 3 == 2, 2, 0)  # 0, 1 and 4
    weights = np.array([0.25, 0.75])
    single = alone(values, 1)
    verdict = judge(values, weights, {"network 2": single}, labels)
    assert [each.label for each in verdict.classes] == [0, 1, 4]
    for each in verdict.classes:
        own = values[labels == each.label]
        assert each.images == len(own) == 20
        worst = [max(row @ weights for row in image) for image in own.astype(float)]
        assert each.mixture == pytest.approx(1 - np.mean(worst))
        assert each.members == pytest.approx([alone(own, k).mean() for k in range(2)])
        assert each.single == pytest.approx(single[labels == each.label].mean())
    mean = np.average(
        [e.mixture for e in verdict.classes], weights=[e.images for e in verdict.classes]
    )
    assert mean == pytest.approx(verdict.mixture)
    assert len(verdict.to_dict()["classes"]) == 3
    (told,) = [text for text in verdict.sentences() if "by class" in text]
    low = min(verdict.classes, key=lambda each: each.mixture)
    assert f"The worst is class {low.label}, at {100 * low.mixture:.2f} %." in told
    assert f"4: {100 * verdict.classes[2].mixture:.1f} and" in told
    assert not judge(values, weights, {"network 2": single}).classes


def test_of_very_many_classes_the_worst_are_told():
    values = np.zeros((60, 1, 1), dtype=np.uint8)
    values[5] = 1
    verdict = judge(values, np.ones(1), {"the network": alone(values, 0)}, np.arange(60) // 2)
    (told,) = [text for text in verdict.sentences() if "classes" in text]
    assert "on the 20 worst of 30 classes" in told
    assert "2: 50.0 %" in told
    assert told.endswith("The worst is class 2, at 50.00 %.")
    assert len(verdict.classes) == 30


def test_the_best_of_several_single_networks_is_compared_with():
    values = losses([[1, 0], [0, 1]], repeat=50)
    singles = {"network 1": alone(values, 0), "the network of b": np.ones(50)}
    verdict = judge(values, np.array([0.5, 0.5]), singles)
    assert (verdict.single, verdict.single_accuracy) == ("the network of b", 1.0)
    assert verdict.recommended == "single"
    assert verdict.sentences()[-1].startswith("Deploy the network of b alone")


def tiny(folder, count, architecture="digits-cnn", **evaluation):
    return tiny_config(
        folder,
        data={"limit": 100},
        model={"architecture": architecture, "count": count},
        weights={"final": "game"},
        evaluation=FINAL | {"final_images": 24} | evaluation,
    )


def test_identical_networks_deploy_one_of_them(tmp_path, monkeypatch):
    (tmp_path / "twin_networks.py").write_text(
        "from mixsolve_torch import digits_cnn\n"
        "def build(classes):\n    return digits_cnn(classes=classes, seed=3)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    training = train(tiny(tmp_path / "run", 2, "twin_networks:build"))
    verdict = training.verdict
    assert verdict.recommended == "single"
    assert verdict.gain.value == pytest.approx(0)
    assert verdict.margin == pytest.approx(0)
    assert training.deploy == tmp_path / "run" / "deploy.pt"
    told = json.loads((tmp_path / "run" / "verdict.json").read_text())
    assert told["recommended"] == "single"
    assert told["sentences"] == verdict.sentences()
    deployed = load_trained(training.deploy)
    assert len(deployed) == 1
    assert not deployed.training
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(deployed.models[0](x), training.mixture.models[0](x))
    assert len(load_trained(tmp_path / "run")) == 2


@pytest.mark.parametrize("gains", [False, True])
def test_what_wins_is_what_is_deployed(tmp_path, monkeypatch, gains):
    from mixsolve_torch.training import verdict

    single = train(tiny(tmp_path / "single", 1))
    assert single.verdict.gain.value == 0
    # A network as weak as this one may be told of, before its accuracies.
    *nothing, mean, classes = single.verdict.sentences()
    assert len(nothing) == len(single.verdict.unlearned)
    assert mean == f"the network alone: {100 * single.verdict.mixture:.2f} % on 24 images."
    assert classes.startswith("Accuracy of the network by class: 0: ")
    assert sum(each.images for each in single.verdict.classes) == 24
    monkeypatch.setattr(
        verdict.Verdict, "recommended", "mixture" if gains else "single", raising=True
    )
    config = tiny(tmp_path / "run", 2, compare=str(tmp_path / "single"))
    judged = []
    monkeypatch.setattr(
        "mixsolve_torch.training.deployment.judge",
        lambda losses, weights, singles, labels, seed: (
            judged.append(singles)
            or judge(losses, weights, dict(list(singles.items())[1:]), labels)
        ),
    )
    training = train(config)
    assert list(judged[0])[1] == f"the network of {tmp_path / 'single'}"
    deployed = load_trained(training.deploy)
    expected = training.mixture if gains else single.mixture
    assert torch.equal(deployed.weights, expected.weights)
    for one, other in zip(deployed.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)
    own = 1.0 - single.evaluation.losses[..., 0].max(axis=1)
    np.testing.assert_array_equal(list(judged[0].values())[1], own)


def test_without_final_attacks_held_out_images_decide_what_to_deploy(tmp_path):
    single = train(tiny(tmp_path / "single", 1, final="none"))
    assert single.evaluation is None
    assert single.verdict.mixture == pytest.approx(single.best["robust"]["mixture"])
    assert " on 9 held-out images." in single.verdict.sentences()[0]
    assert len(load_trained(single.deploy)) == 1
    training = train(tiny(tmp_path / "run", 2, final="none", compare=str(tmp_path / "single")))
    verdict = training.verdict
    assert (verdict.split, verdict.images) == ("held-out", 9)
    assert verdict.single_accuracy >= single.verdict.mixture
    assert any("flatters the mixture" in text for text in verdict.sentences())
    told = json.loads((tmp_path / "run" / "verdict.json").read_text())
    assert told["split"] == "held-out"
    deployed = load_trained(tmp_path / "run" / "deploy.pt")
    assert len(deployed) == (2 if verdict.recommended == "mixture" else 1)
    if verdict.recommended == "single" and verdict.single.startswith("the network of"):
        expected = single.mixture
        for one, other in zip(deployed.parameters(), expected.parameters(), strict=True):
            assert torch.equal(one, other)


def test_losses_found_are_those_that_an_epoch_is_measured_by(linear, generator):
    mixture = Mixture([linear(seed) for seed in range(2)], [0.6, 0.4])
    x = torch.rand(40, 1, 3, 3, generator=generator)
    with torch.no_grad():
        data = ImageSet(x, mixture.models[0](x).argmax(dim=1))
    config = tiny("unused", 2, images=None)
    values = found_losses(mixture, data, 40, config)
    assert values.shape == (40, 4, 2)
    told = measure_epoch(mixture, data, config, Ranks("cpu"))["robust"]
    assert 1 - (values @ [0.6, 0.4]).max(axis=1).mean() == pytest.approx(told["mixture"])
    assert 1 - values.max(axis=1).mean(axis=0) == pytest.approx(told["models"])


def test_a_network_to_compare_with_is_checked_before_the_run(tmp_path):
    train(tiny(tmp_path / "two", 2, final="none"))
    with pytest.raises(
        MixsolveError, match=r"evaluation\.compare .*two' must be of a run with one"
    ):
        train(tiny(tmp_path / "run", 2, compare=str(tmp_path / "two")))
    with pytest.raises(MixsolveError, match=r"best\.pt does not exist"):
        train(tiny(tmp_path / "run", 2, compare=str(tmp_path)))
    assert not (tmp_path / "run").exists()


def test_files_of_earlier_versions_need_the_number_of_classes(tmp_path):
    train(tiny(tmp_path / "run", 1, final="none"))
    state = checkpoint.load(tmp_path / "run" / "best.pt")
    del state["classes"]
    checkpoint.save(state, tmp_path / "old.pt")
    with pytest.raises(MixsolveError, match="give classes="):
        load_trained(tmp_path / "old.pt")
    assert len(load_trained(tmp_path / "old.pt", classes=10)) == 1
    with pytest.raises(MixsolveError, match="does not fit the networks"):
        load_trained(tmp_path / "old.pt", classes=4)
