"""Evaluations by group: a game worked out by hand, intervals, the bias of the lowest, files."""

import csv
import io

import numpy as np
import pytest
import torch
from rich.console import Console

import mixsolve
from mixsolve.base.errors import MixsolveError
from mixsolve_torch import PGD, Attack, Mixture, evaluate
from mixsolve_torch.core.groups import read_groups
from mixsolve_torch.evaluation.by_group import on_other_half, resample


class Watch(torch.nn.Module):
    """Classifier k errs on an image of label 0 where pixel k is above one half."""

    def __init__(self, k):
        super().__init__()
        self.k = k

    def forward(self, x):
        pixel = x.flatten(1)[:, self.k]
        return torch.stack([0.5 - pixel, pixel - 0.5], dim=1)


class Nothing(Attack):
    """Yields the images as they are."""

    def __init__(self):
        self._declare(PGD("Linf", 1.0).threat, "nothing")

    def names(self, classifiers):
        return ["nothing"]

    def generate(self, mixture, x, y, generator):
        yield x.clone()


def two_groups(small=8, large=24):
    """Classifier 1 errs on the small group, classifier 2 on the large one, whatever the attack."""
    x = torch.zeros(small + large, 1, 2, 2)
    x[:small, 0, 0, 0] = 1.0
    x[small:, 0, 0, 1] = 1.0
    groups = np.array(["few"] * small + ["many"] * large)
    return (x, torch.zeros(small + large, dtype=torch.int64)), groups


def evaluated(**options):
    data, groups = two_groups()
    return evaluate(
        Mixture([Watch(0), Watch(1)]), data, Nothing(), **({"groups": groups} | options)
    )


def test_a_mixture_has_half_of_what_one_classifier_gives_up():
    report = evaluated()
    told = report.by_group
    assert told.names == ("few", "many")
    assert told.images == (4, 12)
    np.testing.assert_allclose(told.optimal.lowest.value, 0.5, atol=1e-6)
    assert [row.lowest.value for row in told.rows[:2]] == [0.0, 0.0]
    assert [own.value for own in told.rows[0].groups] == [0.0, 1.0]
    np.testing.assert_allclose(told.gain.value, 0.5, atol=1e-6)
    np.testing.assert_allclose(told.bound, 0.5, atol=1e-6)
    np.testing.assert_allclose(told.fit.held_out, 0.5, atol=1e-6)
    assert report.recommended.kind in ("optimal", "uniform")
    np.testing.assert_allclose(report.optimal.weights, [0.5, 0.5], atol=1e-6)


def test_without_groups_the_mean_decides():
    report = evaluated(groups=None)
    assert report.by_group is None
    np.testing.assert_allclose(report.optimal.weights, [1.0, 0.0], atol=1e-6)
    with pytest.raises(MixsolveError, match="groups must be given"):
        report.table_by_group()


def test_each_half_has_half_of_each_group():
    groups = read_groups(np.repeat([3, 1, 2], [7, 4, 9]), torch.zeros(20, dtype=torch.int64))
    fitted, reported = groups.halves(3)
    assert sorted([*fitted, *reported]) == list(range(20))
    assert np.abs(groups.at(fitted).images - groups.at(reported).images).max() <= 1


def test_table_sentences_and_files_tell_each_group(tmp_path):
    report = evaluated()
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(report.table_by_group())
    text = console.export_text()
    assert all(word in text for word in ("few", "many", "lowest", "optimal mixture"))
    sentences = report.sentences()
    assert sentences[0].startswith("Randomise")
    assert any("too low on average" in sentence for sentence in sentences)
    assert any("between halves" in sentence for sentence in sentences)
    content = report.to_dict()["by_group"]
    assert content["gain"]["value"] == report.by_group.gain.value
    assert content["players"][0]["groups"]["few"]["value"] == 0.0
    report.save(tmp_path / "report.npz")
    again = mixsolve.load(tmp_path / "report.npz")
    assert again.by_group == report.by_group
    assert again.sentences() == sentences
    report.to_csv(tmp_path / "report.csv")
    with (tmp_path / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["group many"]) for row in rows[:2]] == [1.0, 0.0]
    assert float(rows[0]["lowest group"]) == 0.0
    report.to_html(tmp_path / "report.html")
    assert "by group" in (tmp_path / "report.html").read_text()


def test_no_gain_within_its_error_is_deployed():
    data, groups = two_groups()
    same = evaluate(Mixture([Watch(0), Watch(0)]), data, Nothing(), groups=groups)
    assert same.recommended.kind == "single"
    assert same.sentences()[0].startswith("Deploy one classifier alone")


def test_resampled_means_are_those_of_each_group_and_paired():
    draws = np.random.default_rng(1)
    groups = read_groups(np.repeat([0, 1], [400, 100]), torch.zeros(500, dtype=torch.int64))
    values = draws.random((500, 2))
    values[:, 1] = values[:, 0] - 0.25
    found = resample(values, groups, resamples=2000, level=0.9, seed=0)
    np.testing.assert_allclose(found.means[1], values[400:].mean(axis=0))
    np.testing.assert_allclose(found.drawn[:, :, 0] - found.drawn[:, :, 1], 0.25)
    for g, own in enumerate((values[:400, 0], values[400:, 0])):
        expected = own.std() / np.sqrt(len(own))
        assert found.drawn[:, g, 0].std() == pytest.approx(expected, rel=0.1)
    np.testing.assert_array_equal(found.lowest, found.drawn.min(axis=1))


def test_the_truth_lies_between_the_lowest_and_the_other_half_on_average():
    draws = np.random.default_rng(2)
    truth = np.array([0.45, 0.5, 0.5, 0.55])
    groups = read_groups(np.repeat(np.arange(4), 50), torch.zeros(200, dtype=torch.int64))
    lowest, other = [], []
    for seed in range(400):
        values = (draws.random(200) < truth[groups.index]).astype(float)[:, None]
        lowest.append(groups.means(values).min())
        other.append(on_other_half(values, groups, seed=seed)[0])
    error = 3 * np.std(other) / 20
    assert np.mean(lowest) < 0.45 - 0.01
    assert 0.45 - error < np.mean(other) < 0.5


def test_one_classifier_has_a_table_and_no_fit():
    data, groups = two_groups()
    report = evaluate(Mixture([Watch(0)]), data, Nothing(), groups=groups)
    assert report.by_group.fit is None
    assert report.by_group.rows[0].lowest.value == 0.0
    assert report.sentences() == ["There is one classifier: nothing to randomise between."]


def test_groups_of_one_image_need_all_images():
    data, groups = two_groups(small=1)
    with pytest.raises(MixsolveError, match="group 'few' has 1"):
        evaluate(Mixture([Watch(0), Watch(1)]), data, Nothing(), groups=groups)
    report = evaluate(Mixture([Watch(0), Watch(1)]), data, Nothing(), groups=groups, held_out=False)
    assert report.by_group.fit.name == "exact"
    assert report.solution.value == pytest.approx(
        mixsolve.solve(report.fitted_losses, groups=groups).value
    )
