"""Evaluations: games worked out by hand, the rules of the worst case, intervals, and the report."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from corpus import seeds
from rich.console import Console

import mixsolve
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.base.halves import halves
from mixsolve.base.tuning import tuning
from mixsolve_torch import (
    PGD,
    Attack,
    Mixture,
    UniformSampling,
    digits_cnn,
    evaluate,
    load_data,
    verify,
)
from mixsolve_torch.attacks.in_turn import InTurn
from mixsolve_torch.candidates.recorder import Recorder
from mixsolve_torch.evaluation.bootstrap import bootstrap
from mixsolve_torch.evaluation.measured import radius
from mixsolve_torch.runs.lock import Lock


class Watch(torch.nn.Module):
    """Classifier k errs on an image of label 0 where pixel k is above one half."""

    def __init__(self, k):
        super().__init__()
        self.k = k

    def forward(self, x):
        pixel = x.flatten(1)[:, self.k]
        return torch.stack([0.5 - pixel, pixel - 0.5], dim=1)


@dataclass(frozen=True)
class Light(Attack):
    """Lights up the given pixels; what it was called on is written down."""

    pixels: tuple = (0,)
    when: str = "always"
    calls: list = field(default_factory=list, compare=False)
    seeds: list = field(default_factory=list, compare=False)

    def names(self, classifiers):
        return [self.label("light")]

    def generate(self, mixture, x, y, generator):
        self.calls.append(len(x))
        self.seeds.append(generator.initial_seed())
        played = "alone" if len(mixture.support()) == 1 else "mixed"
        point = x.clone()
        if self.when in ("always", played):
            point.flatten(1)[:, list(self.pixels)] = 1.0
        yield point


def light(*pixels, when="always", name=None):
    return Light("Linf", 1.0, pixels=pixels, when=when, name=name or f"light {pixels}")


def dark(count, pixels=2):
    """Images that no classifier gets wrong."""
    return torch.zeros(count, 1, 1, pixels), torch.zeros(count, dtype=torch.int64)


def watchers(count=2, weights=None):
    return Mixture([Watch(k) for k in range(count)], weights)


def worst(report):
    return {row.name: row.worst.value for row in report.players}


def test_matching_pennies_is_solved_and_measured():
    report = evaluate(watchers(), dark(6), [light(0), light(1)])
    assert worst(report) == {
        "classifier 1": 0.0,
        "classifier 2": 0.0,
        "uniform mixture": 0.5,
        "optimal mixture": 0.5,
        # One classifier of two is fooled: a tie, which is an error.
        "mean of probabilities": 0.0,
        "mean of logits": 0.0,
        "vote": 0.0,
    }
    assert report.optimal.weights == pytest.approx([0.5, 0.5])
    assert report.gain.value == pytest.approx(0.5)
    assert report.bound == pytest.approx(0.5)
    assert report.settled
    for row in report.players:
        assert row.clean.value == 1.0
    assert any("Randomising buys 50.00 points" in text for text in report.sentences())


def test_what_was_found_for_one_counts_for_all():
    """An attack that fools both but is found on single classifiers alone still hits the mixture."""
    for spare, own in ((False, 1.0), (True, 0.0)):
        report = evaluate(watchers(), dark(4), light(0, 1, when="alone"), spare=spare)
        uniform = next(row for row in report.players if row.kind == "uniform")
        # What was found before is tried first, unless each attack is to be reported alone.
        assert uniform.attacks[0].value == own
        assert uniform.worst.value == 0.0
        assert (uniform.passes > 0) is not spare
    assert any("It does not pay to randomise here" in text for text in report.sentences())


def test_the_optimal_mixture_is_attacked_on_its_own_weights():
    """What only mixtures suffer from is found on the optimal one, too."""
    report = evaluate(watchers(3), dark(4, 3), [light(0, 1, 2, when="mixed")])
    assert report.optimal.worst.value == 0.0
    assert report.raised == 0.0
    assert report.solution.risk == 1.0


def test_weights_are_found_again_until_attacks_gain_nothing():
    """Each weight draws its own attack: the first optimal mixture is beaten, a later one is not."""

    @dataclass(frozen=True)
    class Heaviest(Attack):
        def names(self, classifiers):
            return ["heaviest"]

        def generate(self, mixture, x, y, generator):
            point = x.clone()
            point.flatten(1)[:, int(mixture.weights.argmax())] = 1.0
            yield point

    report = evaluate(watchers(3), dark(4, 3), Heaviest("Linf", 1.0))
    assert report.settled
    assert report.optimal.worst.value == pytest.approx(2 / 3)


def test_an_optimal_mixture_that_attacks_still_beat_is_not_settled():
    """Alone {1, 2} or {3} are fooled: the optimum gives 3 one half. On that one all are fooled."""

    @dataclass(frozen=True)
    class Spiteful(Attack):
        def names(self, classifiers):
            return ["spiteful"]

        def generate(self, mixture, x, y, generator):
            weights = mixture.weights.tolist()
            point = x.clone()
            if max(weights) == 1.0:
                point.flatten(1)[:, [2] if weights[2] else [0, 1]] = 1.0
            elif weights[2] > 0.4:
                point.fill_(1.0)
            yield point

    options = {"attacks": Spiteful("Linf", 1.0), "held_out": False}
    short = evaluate(watchers(3), dark(4, 3), **options, rounds=1)
    assert not short.settled
    assert short.raised == pytest.approx(0.5)
    assert short.optimal.worst.value == 0.0
    assert "Better weights may exist" in short.sentences()[-1]
    longer = evaluate(watchers(3), dark(4, 3), **options)
    assert longer.settled
    assert longer.bound == pytest.approx(0.0)


def test_every_run_of_the_attacks_has_draws_of_its_own():
    attack = light(0)
    evaluate(watchers(), dark(3), attack)
    evaluate(watchers(), dark(3), attack, seed=1)
    assert len(attack.seeds) >= 10
    assert len(set(attack.seeds)) == len(attack.seeds)


def test_given_weights_are_a_player_of_their_own():
    ensembles = ["ensemble"] * 3
    kinds = [row.kind for row in evaluate(watchers(), dark(3), light(0)).players]
    assert kinds == ["single", "single", "uniform", "optimal", *ensembles]
    report = evaluate(watchers(weights=[0.25, 0.75]), dark(3), light(0))
    given = next(row for row in report.players if row.kind == "given")
    assert given.worst.value == pytest.approx(0.75)
    kinds = [row.kind for row in evaluate(watchers(weights=[1, 0]), dark(3), light(0)).players]
    assert kinds == ["single", "single", "uniform", "optimal", *ensembles]


def test_one_classifier_has_nothing_to_mix():
    report = evaluate(watchers(1), dark(3, 1), light(0))
    assert [row.kind for row in report.players] == ["single"]
    assert (report.gain.value, report.settled) == (0.0, True)
    assert report.sentences() == ["There is one classifier: nothing to randomise between."]
    assert report.table().row_count == 1


def test_weights_fitted_on_one_half_are_measured_on_the_other():
    x, y = dark(8)
    fitted, reported = halves(8, seed=5)
    x[fitted, ..., 1] = 1.0  # classifier 2 errs on the images fitted on
    x[reported, ..., 0] = 1.0  # classifier 1 errs on those reported on
    report = evaluate(watchers(), (x, y), light(0, when="never"), seed=5)
    assert len(report.losses) == len(report.fitted_losses) == 4
    assert report.images.tolist() == reported.tolist()
    assert report.optimal.weights == pytest.approx([1.0, 0.0])
    assert report.best_single.name == "classifier 1"
    assert worst(report)["classifier 2"] == 1.0
    assert report.optimal.worst.value == 0.0
    assert report.gain.value == 0.0
    assert report.bound == pytest.approx(1.0)
    assert (report.optimal.fitted.value, report.best_single.fitted.value) == (1.0, 1.0)
    assert report.players[1].fitted.value == 0.0
    assert "the mixture has 100.00 % and the classifier 100.00 %: a gain of 0.00" in " ".join(
        report.sentences()
    )
    assert "measured on, which flatters" not in " ".join(report.sentences())
    on_all = evaluate(watchers(), (x, y), light(0, when="never"), held_out=False)
    assert len(on_all.losses) == 8
    assert all(row.fitted is None for row in on_all.players)
    assert "measured on, which flatters" in " ".join(on_all.sentences())


def test_halves_are_drawn_by_the_seed_and_share_no_image():
    for count in (2, 3, 100, 101):
        fitted, reported = halves(count, seed=0)
        assert sorted([*fitted, *reported]) == list(range(count))
        assert 0 <= len(fitted) - len(reported) <= 1
    assert halves(100, seed=0)[0].tolist() != halves(100, seed=1)[0].tolist()


def test_lost_images_are_spared_and_nothing_else_changes():
    data = dark(6)
    data[0][:2, ..., 0] = 1.0
    first, second = light(0), light(1)
    in_turn = evaluate(watchers(), data, [first, second], held_out=False)
    # Classifier 1: two images are lost clean and four to the first attack, the second gets none.
    # Classifier 2: no image is lost before the second. It loses both classifiers on the two images
    # that are lost clean to the first, so that the uniform mixture is attacked on the other four.
    assert first.calls[:3] == [4, 6, 4]
    assert second.calls[:2] == [6, 4]
    both = [light(0), light(1)]
    alone = evaluate(watchers(), data, both, spare=False, held_out=False)
    assert [attack.calls[:3] for attack in both] == [[6] * 3] * 2
    assert worst(in_turn) == worst(alone)
    assert in_turn.solution.risk == pytest.approx(alone.solution.risk)
    one, two = in_turn.players[0].attacks
    assert (one.value, two.value) == (0.0, 0.0)
    one, two = alone.players[0].attacks
    assert (one.value, two.value) == (0.0, pytest.approx(4 / 6))


def test_in_turn_an_attack_is_reported_after_those_before_it():
    suite = [light(0), light(0, when="never", name="idle")]
    for spare, last in ((True, 0.5), (False, 1.0)):
        uniform = evaluate(watchers(), dark(4), suite, spare=spare).players[2]
        assert [estimate.value for estimate in uniform.attacks] == [0.5, last]


def test_an_image_is_spared_only_when_all_that_play_err():
    mixture = watchers(2, [0.999, 0.001])
    attack, later = light(0), light(1)
    found = InTurn([attack, later])(mixture, *dark(3))
    assert later.calls == [3]
    assert found.shape == (2, 3, 1, 1, 2)
    only = Mixture(mixture.models, [1.0, 0.0])
    found = InTurn([attack, later])(only, *dark(3))
    assert later.calls == [3]
    assert torch.equal(found[1], found[0])


@pytest.fixture(scope="module")
def networks():
    return Mixture([digits_cnn(seed=k, width=2) for k in range(3)], [0.6, 0.4, 0.0])


@pytest.fixture(scope="module")
def measured(networks):
    data = load_data("digits", limit=30)
    options = {"norm": "L2", "eps": 0.3, "steps": 3, "level": 0.9, "held_out": False}
    return evaluate(networks, data[:2], "standard", **options)


def test_every_row_can_be_told_from_the_losses(measured):
    losses = measured.losses.astype(float)
    assert losses.shape[0] == 30
    ensembles = iter(np.moveaxis(measured.ensemble_losses.astype(float), 2, 0))
    for row in measured.players:
        risks = next(ensembles) if row.kind == "ensemble" else losses @ np.array(row.weights)
        assert row.clean.value == pytest.approx(1 - risks[:, 0].mean())
        assert row.worst.value == pytest.approx(1 - risks.max(axis=1).mean())
        falling = [row.clean.value, *(a.value for a in row.attacks), row.worst.value]
        assert falling == sorted(falling, reverse=True)
        for estimate in (row.clean, *row.attacks, row.worst):
            assert estimate.low <= estimate.value <= estimate.high
    assert measured.bound >= measured.optimal.worst.value - 1e-9
    assert measured.bound == pytest.approx(1 - mixsolve.solve(losses).risk)
    assert measured.attack_names[:2] == ("APGD-hinge", "APGD-CE")


def test_the_gain_has_a_paired_interval(measured):
    losses = measured.losses.astype(float)
    single, optimal = (
        1 - (losses @ np.array(row.weights)).max(axis=1)
        for row in (measured.best_single, measured.optimal)
    )
    (expected,) = bootstrap((optimal - single)[:, None], resamples=1000, level=0.9, seed=0)
    assert measured.gain.value == pytest.approx(expected.value)
    assert measured.gain.low == pytest.approx(expected.low)
    assert measured.gain.high == pytest.approx(expected.high)


def test_equal_seeds_give_equal_reports_and_bytes_are_as_good_as_floats(networks):
    data = load_data("digits", limit=8)
    options = {"attacks": [PGD("Linf", 0.1, steps=2)], "batch_size": 3}
    images = (data.images * 255).round().to(torch.uint8)
    first = evaluate(networks, (images, data.labels), **options, seed=1)
    floats = images.float() / 255
    batches = [(floats[:5], data.labels[:5]), (floats[5:], data.labels[5:])]
    assert evaluate(networks, batches, **options, seed=1).json == first.json
    assert evaluate(networks, batches, **options, seed=2).json != first.json


def test_an_interrupted_evaluation_goes_on(networks, tmp_path):
    data = load_data("digits", limit=8)[:2]
    attack = PGD("Linf", 0.1, steps=2)
    whole = evaluate(networks, data, attack, out=tmp_path)
    (parts,) = tmp_path.iterdir()
    assert whole.parts == parts
    done = sorted(parts.glob("player-*.npy"), key=lambda path: int(path.stem.split("-")[1]))
    assert len(done) >= 2 * len(networks) - 2
    done[-1].unlink()
    modified = {path: path.stat().st_mtime_ns for path in parts.rglob("*.npy")}
    assert evaluate(networks, data, attack, out=tmp_path).json == whole.json
    for path, time in modified.items():
        assert path.stat().st_mtime_ns == time
    assert evaluate(networks, data, attack).json == whole.json


class Crash(BaseException):
    """What no handler in the package expects, as a killed process."""


@pytest.fixture
def attacked(monkeypatch):
    """Count the batches that were attacked, and crash at one of them."""
    record = Recorder.record

    class Count:
        batches = 0
        crash_at = None
        error = Crash

    def counted(self, number, *batch, **options):
        if Count.batches == Count.crash_at:
            raise Count.error
        Count.batches += 1
        return record(self, number, *batch, **options)

    monkeypatch.setattr(Recorder, "record", counted)
    return Count


@pytest.mark.parametrize("done", seeds([0.0, 0.5, 0.99, 0.2, 0.9], quick=3))
def test_no_batch_is_attacked_twice_wherever_an_evaluation_stops(
    networks, tmp_path, attacked, done
):
    data = load_data("digits", limit=16)[:2]
    options = {"norm": "Linf", "eps": 0.1, "steps": 2, "batch_size": 5, "out": tmp_path / "whole"}
    whole = evaluate(networks, data, "pgd,uniform", **options)
    batches = attacked.batches
    assert len(list(tmp_path.glob("whole/*/game/round-*.npy"))) >= 2
    attacked.batches, attacked.crash_at = 0, int(done * batches)
    options["out"] = tmp_path / "stopped"
    with pytest.raises(Crash):
        evaluate(networks, data, "pgd,uniform", **options)
    attacked.crash_at = None
    assert evaluate(networks, data, "pgd,uniform", **options).json == whole.json
    assert attacked.batches == batches


def test_ctrl_c_says_where_the_parts_are(networks, tmp_path, attacked):
    data = load_data("digits", limit=8)[:2]
    attacked.error = KeyboardInterrupt
    for out, words in ((tmp_path, "kept in"), (None, "nothing is kept: give out=")):
        attacked.batches, attacked.crash_at = 0, 3
        with pytest.raises(KeyboardInterrupt) as stopped:
            evaluate(networks, data, PGD("Linf", 0.1, steps=2), out=out)
        (note,) = stopped.value.__notes__
        assert words in note


def test_evaluations_of_other_things_go_side_by_side(networks, tmp_path):
    data = load_data("digits", limit=8)[:2]
    attack = PGD("Linf", 0.1, steps=2)
    swapped = Mixture(list(networks.models)[::-1])
    for number, (mixture, given, attacks, options) in enumerate(
        (
            (networks, data, attack, {}),
            (networks, (data[0].flip(0), data[1].flip(0)), attack, {}),
            (networks, (data[0], (data[1] + 1) % 10), attack, {}),
            (swapped, data, attack, {}),
            (networks, data, PGD("Linf", 0.2, steps=2), {}),
            (networks, data, attack, {"seed": 1}),
            (networks, data, attack, {"held_out": False}),
            (networks, data, attack, {"batch_size": 3}),
        ),
        start=1,
    ):
        expected = evaluate(mixture, given, attacks, **options)
        for _ in range(2):
            came = evaluate(mixture, given, attacks, out=tmp_path, **options)
            assert came.json == expected.json
            assert len(list(tmp_path.iterdir())) == number


@pytest.mark.parametrize("name", ["player-1.npy", "game/game.json", "game/clean.npy"])
def test_damaged_parts_are_made_anew(name, networks, tmp_path):
    data = load_data("digits", limit=8)[:2]
    whole = evaluate(networks, data, PGD("Linf", 0.1, steps=2), out=tmp_path)
    part = whole.parts / name
    part.write_bytes(part.read_bytes()[:-2])
    assert evaluate(networks, data, PGD("Linf", 0.1, steps=2), out=tmp_path).json == whole.json


def test_one_process_evaluates_at_a_time(networks, tmp_path):
    data = load_data("digits", limit=8)[:2]
    whole = evaluate(networks, data, PGD("Linf", 0.1, steps=2), out=tmp_path)
    with (
        Lock(whole.parts / ".lock", "it"),
        pytest.raises(MixsolveError, match=r"the evaluation in .* is in use by process"),
    ):
        evaluate(networks, data, PGD("Linf", 0.1, steps=2), out=tmp_path)


def test_bootstrap_intervals_have_the_width_they_should():
    rng = np.random.default_rng(0)
    values = np.stack([rng.random(400) < 0.3, np.ones(400), rng.random(400)], axis=1).astype(float)
    estimates = bootstrap(values, resamples=4000, level=0.95, seed=1)
    for estimate, column in zip(estimates, values.T, strict=True):
        assert estimate.value == pytest.approx(column.mean())
        half = 1.96 * column.std() / 20
        assert estimate.low == pytest.approx(estimate.value - half, abs=0.15 * half + 1e-12)
        assert estimate.high == pytest.approx(estimate.value + half, abs=0.15 * half + 1e-12)
    again = bootstrap(values, resamples=4000, level=0.95, seed=1)
    assert again == estimates
    (narrow,) = bootstrap(values[:, :1], resamples=4000, level=0.5, seed=1)
    assert narrow.high - narrow.low < 0.5 * (estimates[0].high - estimates[0].low)


def test_bootstrap_is_the_same_in_blocks(monkeypatch):
    values = np.random.default_rng(0).random((50, 2))
    whole = bootstrap(values, resamples=100, level=0.9, seed=0)
    monkeypatch.setattr(tuning, "resampled_counts", 50 * 7)
    for a, b in zip(bootstrap(values, resamples=100, level=0.9, seed=0), whole, strict=True):
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high))


def test_the_report_can_be_read_printed_and_drawn(measured, tmp_path):
    content = json.loads(measured.json)
    assert [player["name"] for player in content["players"]] == [r.name for r in measured.players]
    assert content["gain"]["value"] == measured.gain.value
    assert content["images"] == 30
    measured.to_json(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == content
    console = Console(width=140)
    with console.capture() as capture:
        console.print(measured.table())
    for words in ("uniform mixture", "then", "APGD-CE", "90 %", "flatters", "given mixture"):
        assert words in capture.get()
    pytest.importorskip("matplotlib")
    figure = measured.plot(tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == [row.name for row in measured.players]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.png"]
    with pytest.raises(MixsolveError, match="could not be written"):
        measured.to_json(tmp_path / "none" / "report.json")


def test_radii_are_written_as_people_do():
    written = {8 / 255: "8/255", 0.2: "0.2", 0.5: "0.5", 1 / 3: "85/255", 0.1234567: "0.123457"}
    assert {eps: radius(eps) for eps in written} == written
    assert [radius(eps) for eps in (0.0, 1.0, 3.0)] == ["0", "1", "3"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attacks": "standard"}, MixsolveError, "needs norm and eps"),
        ({"attacks": "deepfool", "norm": "L2", "eps": 1}, MixsolveError, "got 'deepfool'"),
        ({"attacks": PGD("L2", 1.0), "eps": 1.0}, MixsolveError, "eps must be left out"),
        ({"attacks": []}, MixsolveError, "at least one attack"),
        ({"attacks": 3}, MixsolveTypeError, "must be names or attacks"),
        (
            {"attacks": [PGD("L2", 1.0), UniformSampling("L2", 0.5)]},
            MixsolveError,
            r"share one norm and radius, .* got L2 0\.5, L2 1",
        ),
        ({"names": ["a", "a"]}, MixsolveError, "2 different names"),
        ({"names": "ab"}, MixsolveError, "2 different names"),
        ({"level": 1.0}, MixsolveError, "level must be a finite number > 0 and < 1"),
        ({"rounds": 0}, MixsolveError, "rounds must be an integer >= 1"),
        ({"resamples": 0}, MixsolveError, "resamples must be an integer >= 1"),
        ({"tol": -1.0}, MixsolveError, "tol must be"),
        ({"data": dark(1), "held_out": True}, MixsolveError, "held_out needs 2 images"),
        ({"data": []}, MixsolveError, "at least one batch"),
        ({"data": 3}, MixsolveTypeError, "pair of tensors .* got int"),
        ({"data": torch.zeros(2, 1, 1, 2)}, MixsolveTypeError, "pair of tensors .* is a Tensor"),
        ({"data": (dark(2)[0] + 2, dark(2)[1])}, MixsolveError, r"must lie in \[0, 1\]"),
        ({"data": (dark(2)[0], dark(3)[1])}, MixsolveError, r"must have shape \(2,\)"),
        ({"mixture": Watch(0)}, MixsolveTypeError, "mixture must be a Mixture"),
    ],
)
def test_wrong_arguments_are_named(options, error, message):
    arguments = {"mixture": watchers(), "data": dark(2), "attacks": light(0)} | options
    with pytest.raises(error, match=message):
        evaluate(**arguments)


@pytest.mark.parametrize(
    "options",
    [
        {"attacks": "deepfool"},
        {"attacks": "standard"},
        {"names": ["a"]},
        {"rounds": 0},
        {"resamples": 0},
        {"tol": -1.0},
        {"level": 1.0},
        {"batch_size": 0},
        {"seed": -1},
    ],
)
def test_data_are_not_read_before_the_arguments_are_checked(options):
    def read():
        pytest.fail("the data were read")
        yield

    with pytest.raises(MixsolveError):
        evaluate(watchers(), read(), **{"attacks": light(0), **options})


def test_verified_accuracies_are_those_of_the_sets_and_hold_for_ensembles():
    generator = torch.Generator().manual_seed(3)
    models = []
    for _ in range(3):
        layer = torch.nn.utils.skip_init(torch.nn.Linear, 9, 3, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.normal_(generator=generator)
            layer.bias.zero_()
        models.append(torch.nn.Sequential(torch.nn.Flatten(), layer))
    x = torch.rand(16, 1, 3, 3, generator=generator, dtype=torch.float64)
    y = sum(model(x) for model in models).argmax(dim=1)
    mixture = Mixture(models)
    options = {"norm": "Linf", "eps": 0.05, "steps": 5, "held_out": False}
    report = evaluate(mixture, (x, y), "standard", verify=True, **options)
    proven = verify(mixture, (x, y), "Linf", 0.05)
    assert any(
        row.worst.value - row.verified.value < 1e-9 < row.worst.value for row in report.players
    )
    for row in report.players:
        assert row.verified.value <= row.worst.value + 1e-9
        if row.kind != "ensemble":
            assert row.verified.value == pytest.approx(1 - proven.risk(row.weights))
    bare = evaluate(mixture, (x, y), "standard", **options)
    assert all(row.verified is None for row in bare.players)
    assert [row.worst for row in bare.players] == [row.worst for row in report.players]
