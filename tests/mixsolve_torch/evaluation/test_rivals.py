"""Deterministic ensembles as rivals: cases by hand, who is best, and files of the report."""

import csv
import io
import json
import re
from base64 import b64decode
from dataclasses import dataclass, replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from mixsolve.base.errors import MixsolveError
from mixsolve_torch import PGD, Attack, Mixture, digits_cnn, evaluate, load_data
from mixsolve_torch.core.ensemble import Ensemble
from mixsolve_torch.evaluation.bootstrap import Estimate, bootstrap
from mixsolve_torch.evaluation.measured import Place, PlayerRow
from mixsolve_torch.evaluation.verdict import to_deploy, who_is_best


class Watch(torch.nn.Module):
    """Errs on an image of label 0 where pixel k is lit, as surely as `scale` says."""

    def __init__(self, k, scale=1.0):
        super().__init__()
        self.k, self.scale = k, scale

    def forward(self, x):
        pixel = self.scale * (x.flatten(1)[:, self.k] - 0.5)
        return torch.stack([-pixel, pixel], dim=1)


@dataclass(frozen=True)
class Light(Attack):
    """Lights up the given pixels, or on demand only where an ensemble is attacked."""

    pixels: tuple = (0,)
    ensembles_only: bool = False

    def names(self, classifiers):
        return [f"light {self.pixels}"]

    def generate(self, mixture, x, y, generator):
        point = x.clone()
        if not self.ensembles_only or isinstance(mixture.models[0], Ensemble):
            point.flatten(1)[:, list(self.pixels)] = 1.0
        yield point


def dark(count, pixels=3):
    return torch.zeros(count, 1, 1, pixels), torch.zeros(count, dtype=torch.int64)


def one_at_a_time(**options):
    """Three classifiers, the first one three times as sure; the attacker lights one pixel."""
    mixture = Mixture([Watch(0, 3.0), Watch(1), Watch(2)])
    return evaluate(
        mixture, dark(8), [Light("Linf", 1.0, pixels=(k,)) for k in range(3)], **options
    )


def worst(report):
    return {row.name: row.worst.value for row in report.players}


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize("spare", [True, False])
def test_a_case_by_hand_where_ensembles_and_mixture_differ(held_out, spare):
    """With pixel 0 lit the logits of class 1 less those of class 0 are 3, -1, -1.

    Their sum is positive: the mean of logits errs. The probabilities of class 0 are 0.047, 0.731
    and 0.731, 1.51 in all, above 1.5: their mean is right, and so is the vote.
    """
    report = one_at_a_time(held_out=held_out, spare=spare)
    found = worst(report)
    assert found["uniform mixture"] == found["optimal mixture"] == pytest.approx(2 / 3)
    assert found["mean of logits"] == 0.0
    assert found["mean of probabilities"] == found["vote"] == 1.0
    assert [found[f"classifier {k}"] for k in (1, 2, 3)] == [0.0] * 3


def test_the_report_says_bluntly_who_is_best():
    report = one_at_a_time()
    first, second, *_ = report.ranking
    assert first.row is report.best_ensemble
    assert (first.row.name, first.behind.value) == ("mean of probabilities", 0.0)
    assert second.row.kind == "uniform"
    for place in report.ranking[1:3]:
        assert place.behind.value == pytest.approx(1 / 3)
        assert (place.behind.low, place.behind.high) == pytest.approx((1 / 3, 1 / 3))
    assert (report.ranking[3].row, report.ranking[3].behind.value) == (report.best_single, 1.0)
    verdict = report.sentences()[0]
    assert verdict.startswith(
        "Do not randomise: combine the classifiers' outputs. The best ensemble (mean of "
        "probabilities) is best, at 100.00 %: 33.33 points ahead of the uniform mixture"
    )


def test_who_is_best_where_two_are_fooled_at_once():
    """Any two of three at once: ensembles err, the mixture does not always."""
    mixture = Mixture([Watch(k) for k in range(3)])
    pairs = [Light("Linf", 1.0, pixels=pair) for pair in ((0, 1), (1, 2), (0, 2))]
    report = evaluate(mixture, dark(6), pairs)
    assert report.ranking[0].row.kind in ("uniform", "optimal")
    assert worst(report)["vote"] == 0.0
    assert report.sentences()[0].startswith("Randomise. The ")


def test_one_classifier_alone_is_best_if_mixing_gains_nothing():
    mixture = Mixture([Watch(0), Watch(1)])
    report = evaluate(mixture, dark(6), Light("Linf", 1.0, pixels=(0,)))
    assert report.ranking[0].row is report.best_single
    assert report.sentences()[0].startswith(
        "Deploy one classifier alone. The best single classifier (classifier 2) is best"
    )


@pytest.mark.parametrize("held_out", [True, False])
def test_candidates_of_ensembles_reach_all_others(held_out):
    attack = Light("Linf", 1.0, pixels=(0, 1, 2), ensembles_only=True)
    report = evaluate(Mixture([Watch(k) for k in range(3)]), dark(6), attack, held_out=held_out)
    assert set(worst(report).values()) == {0.0}
    for row in report.players:
        assert row.attacks[0].value == (0.0 if row.kind == "ensemble" else 1.0)


@pytest.mark.parametrize("held_out", [True, False])
def test_candidates_of_others_reach_ensembles(held_out):
    """Also those that the game finds on the way, where all images are measured."""

    @dataclass(frozen=True)
    class OnMixtures(Attack):
        def names(self, classifiers):
            return ["mixtures"]

        def generate(self, mixture, x, y, generator):
            yield torch.ones_like(x) if len(mixture.support()) > 1 else x

    mixture = Mixture([Watch(k) for k in range(3)])
    report = evaluate(mixture, dark(6), OnMixtures("Linf", 1.0), held_out=held_out)
    assert set(worst(report).values()) == {0.0}


def test_ensembles_of_the_optimal_weights_are_measured_where_these_differ():
    """Classifier 3 is always fooled: the optimum plays the other two, and their vote ties."""
    attacks = [Light("Linf", 1.0, pixels=pair) for pair in ((0, 2), (1, 2))]
    report = evaluate(Mixture([Watch(k) for k in range(3)]), dark(6), attacks)
    rows = {row.name: row for row in report.players}
    assert rows["weighted vote"].weights == pytest.approx([0.5, 0.5, 0.0])
    assert rows["vote"].weights == pytest.approx([1 / 3] * 3)
    assert report.optimal.worst.value == pytest.approx(0.5)
    assert rows["vote"].worst.value == 0.0
    alone = evaluate(Mixture([Watch(0), Watch(1)]), dark(6), Light("Linf", 1.0, pixels=(0,)))
    assert not any("weighted" in row.name for row in alone.players)


@pytest.fixture(scope="module")
def networks():
    return Mixture([digits_cnn(seed=k, width=2) for k in range(3)])


@pytest.fixture(scope="module")
def measured(networks):
    data = load_data("digits", limit=40)[:2]
    return evaluate(networks, data, PGD("L2", 0.1, steps=3), level=0.9, seed=1)


def test_the_lead_over_each_has_a_paired_interval(measured):
    accuracies = {}
    ensembles = iter(np.moveaxis(measured.ensemble_losses.astype(float), 2, 0))
    for row in measured.players:
        own = next(ensembles) if row.kind == "ensemble" else measured.losses @ np.array(row.weights)
        accuracies[row.name] = 1 - own.max(axis=1)
    best = max(place.row.worst.value for place in measured.ranking)
    assert measured.ranking[0].row.worst.value == best
    for place in measured.ranking:
        difference = accuracies[measured.ranking[0].row.name] - accuracies[place.row.name]
        (expected,) = bootstrap(difference[:, None], resamples=1000, level=0.9, seed=1)
        for end in ("value", "low", "high"):
            assert getattr(place.behind, end) == pytest.approx(getattr(expected, end))


def test_fitted_figures_are_those_of_the_images_fitted_on(measured):
    for row in measured.players:
        if row.kind == "ensemble":
            assert row.fitted is None
        else:
            risks = (measured.fitted_losses @ np.array(row.weights)).max(axis=1)
            assert row.fitted.value == pytest.approx(1 - risks.mean())
    assert 1 - measured.solution.risk == pytest.approx(measured.bound, abs=1e-5)
    assert measured.bound >= measured.optimal.fitted.value - 1e-9


def test_an_ensemble_is_judged_on_candidates_as_it_classifies_them(networks):
    """The columns of one pass are what the modules say on the same images."""
    x, y = load_data("digits", limit=12)[:2]
    report = evaluate(networks, (x, y), PGD("L2", 0.1, steps=2), held_out=False)
    names = [row for row in report.players if row.kind == "ensemble"]
    assert names[0].name == "mean of probabilities"
    for place, row in enumerate(names):
        rule = row.name.removeprefix("weighted ")
        scores = Ensemble(networks.models, rule, row.weights).eval()(x)
        top = scores.max(dim=1).values[:, None]
        wrong = (scores.argmax(dim=1) != y) | ((scores == top).sum(dim=1) > 1)
        assert report.ensemble_losses[:, 0, place].tolist() == wrong.int().tolist()


def test_json_and_csv_hold_the_ranking(measured, tmp_path):
    content = json.loads(measured.json)
    assert [place["name"] for place in content["ranking"]] == [
        place.row.name for place in measured.ranking
    ]
    assert content["best_ensemble"] == measured.best_ensemble.name
    assert content["ranking"][1]["behind"]["value"] == measured.ranking[1].behind.value
    assert content["players"][0]["fitted"]["value"] == measured.players[0].fitted.value
    measured.to_csv(tmp_path / "report.csv")
    lines = list(csv.DictReader(io.StringIO((tmp_path / "report.csv").read_text())))
    assert [line["name"] for line in lines] == [row.name for row in measured.players]
    for line, row in zip(lines, measured.players, strict=True):
        assert float(line["worst"]) == row.worst.value
        assert float(line["worst low"]) == row.worst.low
        assert [float(line[f"weight {k}"]) for k in (1, 2, 3)] == list(row.weights)
        assert (line["fitted"] == "") == (row.kind == "ensemble")
    ranked = sorted((line for line in lines if line["place"]), key=lambda line: int(line["place"]))
    assert [line["name"] for line in ranked] == [place.row.name for place in measured.ranking]
    with pytest.raises(MixsolveError, match="could not be written"):
        measured.to_csv(tmp_path / "none" / "report.csv")


def test_the_page_needs_no_other_file(networks, tmp_path):
    pytest.importorskip("matplotlib")
    data = load_data("digits", limit=10)[:2]
    names = ["<b>bold</b>", "b", "c"]
    report = evaluate(networks, data, PGD("L2", 0.1, steps=1), names=names)
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()

    class Reader(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.sources = [], []

        def handle_starttag(self, tag, attrs):
            self.sources += [value for name, value in attrs if name in ("src", "href")]
            if tag not in ("meta", "img"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert len(reader.sources) == 2
    for source in reader.sources:
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64"
        assert b64decode(data).startswith(b"\x89PNG")
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold" in page
    for text in report.sentences():
        assert re.sub(r"['\"<>&]", "", text)[:60] in re.sub(r"&\w+;|&#x27;|['\"]", "", page)
    for row in report.players:
        assert row.worst.percent() in page


def place(name, kind, value, behind):
    level = Estimate(value, value, value)
    return Place(PlayerRow(name, kind, (0.5, 0.5), level, (), level), Estimate(*behind))


@pytest.mark.parametrize(
    ("alone", "gain", "advised", "said"),
    [
        # The classifier's distance to the first, and the optimal mixture's lead over it.
        ((0.04, 0.01, 0.07), (0.03, 0.01, 0.05), "uniform mixture", "Randomise. "),
        ((0.04, 0.01, 0.07), (-0.01, -0.03, 0.01), "uniform mixture", "Randomise. "),
        ((0.04, -0.01, 0.07), (0.02, 0.01, 0.05), "optimal mixture", "Randomise. "),
        ((0.04, 0.0, 0.07), (0.03, 0.0, 0.05), "net", "Deploy one classifier alone, net: "),
        ((0.04, -0.01, 0.07), (-0.01, -0.03, 0.01), "net", "Deploy one classifier alone, net: "),
    ],
)
def test_what_is_not_surely_better_than_one_classifier_is_not_recommended(
    alone, gain, advised, said
):
    ranking = [
        place("uniform mixture", "uniform", 0.5, (0.0, 0.0, 0.0)),
        place("optimal mixture", "optimal", 0.49, (0.01, -0.01, 0.03)),
        place("net", "single", 0.46, alone),
    ]
    chosen = to_deploy(ranking, Estimate(*gain))
    assert chosen.row.name == advised
    assert who_is_best(ranking, 0.95, chosen).startswith(said)
    assert who_is_best(ranking, 0.95).startswith("The uniform mixture is best")


def test_a_report_advises_one_thing_or_nothing():
    """Each of two classifiers is fooled by a point of its own: mixing them keeps half."""
    mixture = Mixture([Watch(k) for k in range(2)])
    report = evaluate(mixture, dark(6), [Light("Linf", 1.0, pixels=(k,)) for k in range(2)])
    assert report.recommended is report.ranking[0].row
    assert report.to_dict()["recommended"] == report.recommended.name
    assert report.sentences()[0].startswith("Randomise. ")
    silent = replace(report, gain=Estimate(-0.1, -0.2, 0.0)).sentences(advice=False)
    assert not any(word in " ".join(silent) for word in ("Randomise.", "Deploy", "play"))
    assert any("gains nothing over classifier" in text for text in silent)
