"""Networks added one after another: stages, what is attacked, what stays, and given networks."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from test_methods import EPS, Counted, algorithm, images, network, parameters, settings
from tiny_runs import FINAL, tiny_config
from torch.nn import functional

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks import ARC
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.training import (
    BoostingConfig,
    ModelConfig,
    TrainConfig,
    WeightsConfig,
    load_trained,
    train,
)
from mixsolve_torch.training.adversary import Adversary
from mixsolve_torch.training.initial import read_pretrained
from mixsolve_torch.training.ranks import Ranks

NONE = WeightsConfig(update="none")


def boosting(count=2, epochs=1, **options):
    sections = {"weights": NONE, "method": "boosting", "boosting": BoostingConfig(**options)}
    return settings(count, epochs=epochs, **sections)


def parameters_of(run):
    return [parameters(model) for model in run.mixture.models]


def test_stages_train_one_network_each_from_the_one_before():
    run = algorithm(boosting(3, epochs=2))
    assert (run.steps_per_epoch, run.steps) == (4, 3 * 2 * 4)
    rates = []
    for t in range(run.steps):
        k, place = divmod(t, 8)
        before = parameters_of(run)
        rates.append(run.learning_rate)
        run.step()
        after = parameters_of(run)
        moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert moved == [own == k for own in range(3)]
        if place == 0 and k:
            assert (after[k] - before[k - 1]).norm() < (after[k] - before[k]).norm()
        assert len(run.evaluated) == k + 1
        assert run.evaluated.weights.tolist() == pytest.approx([1 / (k + 1)] * (k + 1))
        assert run.unfinished == (set() if place == 7 else {k})
    assert rates[:8] == rates[8:16] == rates[16:]
    assert rates[:8] == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)


@pytest.mark.parametrize("start", ["previous", "random"])
@pytest.mark.parametrize("attack", ["pgd", "arc"])
def test_a_new_network_learns_from_attacks_on_those_before_and_itself(attack, start):
    config = boosting(2, attack=attack, start=start)
    run = algorithm(config)
    while run.t < run.steps // 2:
        run.step()
    first = copy.deepcopy(run.mixture.models[0])
    new = copy.deepcopy(first) if start == "previous" else network(1)
    shared, own = torch.Generator(), torch.Generator()
    shared.set_state(run._shared.get_state())
    own.set_state(run._own.get_state())
    x, y = images().batch(torch.randperm(40, generator=shared)[:10])
    pair = Mixture([first, new])
    if attack == "pgd":
        adversary = Adversary(pair, config.attack, trades=False, largest_label=2)
        point, _ = adversary(x, y, own)
    else:
        point = ARC("Linf", EPS, steps=3)(pair, x, y, own)[0]
    loss = functional.cross_entropy(new(point), y)
    slopes = torch.autograd.grad(loss, list(new.parameters()))
    with torch.no_grad():
        for parameter, slope in zip(new.parameters(), slopes, strict=True):
            parameter.sub_(0.1 * (slope + 1e-3 * parameter))
    run.step()
    assert torch.equal(parameters(run.mixture.models[0]), parameters(first))
    torch.testing.assert_close(
        parameters(run.mixture.models[1]), parameters(new), rtol=1e-4, atol=1e-6
    )
    assert run.summary()["train_robust"] >= 0


def test_passes_grow_with_the_stages():
    models = [Counted(seed) for seed in range(3)]
    run = algorithm(boosting(3), models)
    for k in range(3):
        for model in models:
            model.forwards = model.descents = 0
        for _ in range(4):
            run.step()
        assert [m.forwards for m in models[: k + 1]] == [4 * 3] * k + [4 * (3 + 1)]
        assert all(m.forwards == 0 for m in models[k + 1 :])
        assert [m.descents for m in models] == [4 * (own == k) for own in range(3)]


def test_a_network_that_is_done_is_its_average():
    run = algorithm(replace(boosting(2, epochs=2), model=ModelConfig("none:none", 2, ema=0.9)))
    while run.t < run.steps // 2:
        run.step()
    average = parameters(run.evaluated.models[0])
    assert not torch.equal(average, parameters(run.mixture.models[0]))
    run.step()
    assert torch.equal(average, parameters(run.mixture.models[0]))
    assert torch.equal(average, parameters(run.evaluated.models[0]))
    distance = (parameters(run.evaluated.models[1]) - average).norm()
    assert distance < 0.1 * (parameters(network(1)) - average).norm()


def test_networks_that_are_given_may_stay_as_they_are():
    model = ModelConfig("none:none", 3, pretrained=["not read here"])
    config = replace(boosting(3), model=model, boosting=BoostingConfig(fixed=1))
    run = algorithm(config)
    run.begin([network(7).state_dict(), network(8).state_dict()])
    assert run.steps == 2 * 4
    run.step()
    assert torch.equal(parameters(run.mixture.models[0]), parameters(network(7)))
    begun = parameters(network(8))
    assert 0 < (parameters(run.mixture.models[1]) - begun).norm() < 0.5 * begun.norm()
    assert len(run.evaluated) == 2
    again = algorithm(config)
    again.load_state(copy.deepcopy(run.state()))
    while not run.done:
        run.step()
        again.step()
    for one, other in zip(parameters_of(run), parameters_of(again), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"weights": WeightsConfig("lp")}, r"weights\.update must be 'none' with method = 'boos"),
        ({"boosting": BoostingConfig(fixed=2)}, r"boosting\.fixed must be less than model\.count"),
        ({"boosting": BoostingConfig(fixed=1)}, r"name their files in model\.pretrained"),
        ({"boosting": BoostingConfig(attack="fgsm")}, r"boosting\.attack must be one of 'pgd', 'a"),
    ],
)
def test_settings_that_do_not_fit_are_refused(sections, words):
    with pytest.raises(MixsolveError, match=words):
        TrainConfig(method="boosting", **sections)


def tiny(folder, method="boosting", **sections):
    plain = {"data": {"limit": 80}, "model": ModelConfig(), "weights": WeightsConfig()}
    return tiny_config(folder, method=method, **(plain | sections))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A run that adds a network to another."""
    folder = tmp_path_factory.mktemp("pair")
    evaluation = FINAL | {"final_images": 24}
    return train(tiny(folder / "run", evaluation=evaluation)), folder / "run"


def test_a_run_measures_what_there_is_and_keeps_all_networks(pair):
    training, folder = pair
    assert [len(record["weights"]) for record in training.records] == [1, 2]
    assert [len(record["robust"]["models"]) for record in training.records] == [1, 2]
    assert training.best == training.records[1]
    assert len(training.mixture) == len(load_trained(folder)) == 2
    assert float(training.mixture.weights.sum()) == pytest.approx(1)
    assert len(training.verdict.members) == 2
    for name in ("history.png", "evaluation.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_next_stage_builds_on_the_most_robust_epoch(tmp_path, monkeypatch, ema):
    from mixsolve_torch.training import loop

    seen, measure = [], loop.measure_epoch

    def falling(mixture, *arguments):
        told = measure(mixture, *arguments)
        seen.append([copy.deepcopy(model.state_dict()) for model in mixture.models])
        told["robust"]["mixture"] = 1 / len(seen)
        return told

    monkeypatch.setattr(loop, "measure_epoch", falling)
    config = tiny(tmp_path / "run", optimizer={"epochs": 3}, model={"count": 2, "ema": ema})
    training = train(config)
    assert len(seen) == 6
    assert training.best["epoch"] == 4
    for name, value in seen[0][0].items():
        assert all(torch.equal(value, epoch[0][name]) for epoch in seen[3:])
        assert torch.equal(value, training.mixture.models[0].state_dict()[name])
    first = torch.cat([value.flatten() for value in seen[0][0].values()])
    third = torch.cat([value.flatten() for value in seen[2][0].values()])
    assert not torch.equal(first, third)


def test_a_run_begins_with_networks_from_files(pair, tmp_path):
    training, folder = pair
    one = tmp_path / "one.pt"
    torch.save({"state_dict": training.mixture.models[1].state_dict()}, one)
    for files, expected in (([str(folder)], [0, 1]), ([one, folder / "best.pt"], [1, 0, 1])):
        model = ModelConfig(count=len(expected), pretrained=files)
        found = read_pretrained(TrainConfig(model=model), classes=10, ranks=Ranks("cpu"))
        for given, k in zip(found, expected, strict=True):
            for name, value in training.mixture.models[k].state_dict().items():
                assert torch.equal(given[name], value)
    model = ModelConfig(count=2, pretrained=[str(one)])
    config = tiny(tmp_path / "run", model=model, boosting=BoostingConfig(fixed=1))
    more = train(config)
    assert [len(record["weights"]) for record in more.records] == [2]
    for name, value in training.mixture.models[1].state_dict().items():
        assert torch.equal(more.mixture.models[0].state_dict()[name], value)
    one.unlink()
    again = train(config, resume=True)
    assert json.dumps(again.records) == json.dumps(more.records)


def test_files_of_networks_that_do_not_fit_are_refused(pair, tmp_path):
    training, folder = pair
    state = dict(training.mixture.models[0].state_dict())
    one, wrong = tmp_path / "one.pt", tmp_path / "wrong.pt"
    torch.save(state, one)
    state.pop("1.weight")
    torch.save(state, wrong)
    for files, words in (
        ([one], r"must give a network for each of model\.count = 2; got 1"),
        ([folder, one], r"model\.count = 2; got 3"),
        (
            [wrong, one],
            r"wrong\.pt do not fit the network of model\.architecture = 'digits-cnn': M",
        ),
        ([tmp_path / "none.pt", one], r"none\.pt do not exist"),
    ):
        model = ModelConfig(count=2, pretrained=[str(file) for file in files])
        with pytest.raises(MixsolveError, match=words):
            train(tiny(tmp_path / "run", "together", model=model))
    other = ModelConfig("mnist-cnn", count=2, pretrained=[str(folder)])
    with pytest.raises(
        MixsolveError, match=r"holds networks of model\.architecture = 'digits-cnn'"
    ):
        read_pretrained(TrainConfig(model=other), classes=10, ranks=Ranks("cpu"))
    with pytest.raises(MixsolveError, match="networks for 10 classes; the images have 7"):
        read_pretrained(
            TrainConfig(model=ModelConfig(count=2, pretrained=[str(folder)])),
            classes=7,
            ranks=Ranks("cpu"),
        )
    fixed = BoostingConfig(fixed=2)
    model = ModelConfig(count=3, pretrained=[str(one)])
    with pytest.raises(MixsolveError, match=r"at least boosting\.fixed = 2 networks and at most"):
        read_pretrained(
            TrainConfig(model=model, method="boosting", boosting=fixed),
            classes=10,
            ranks=Ranks("cpu"),
        )
    assert not (tmp_path / "run").exists()
