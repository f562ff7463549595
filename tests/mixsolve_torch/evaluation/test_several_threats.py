"""Evaluations under several threats, held against exact risks of linear classifiers."""

import csv
import io
import itertools

import numpy as np
import pytest
import torch
from attack_cases import two_class

import mixsolve_torch as mt
from mixsolve.base.errors import MixsolveError

cp = pytest.importorskip("cvxpy")

PIXELS = 6
NORMS = {"Linf": "inf", "L2": 2}


@pytest.fixture
def game():
    """Two linear classifiers in (1, 2, 3) pixels, and images near their boundaries."""
    generator = torch.Generator().manual_seed(3)
    slopes = [torch.randn(PIXELS, generator=generator) for _ in range(2)]
    models = [two_class(slope, -0.5 * float(slope.sum())).double() for slope in slopes]
    x = 0.5 + 0.2 * (torch.rand(14, 1, 2, 3, generator=generator, dtype=torch.float64) - 0.5)
    y = models[0](x).argmax(dim=1)
    return mt.Mixture(models), x, y


def exact_risks(mixture, x, y, norm, eps):
    """The risk of each image: the largest weight of classifiers that one point fools.

    A set of linear classifiers is fooled by a point at a distance that a convex program gives.
    """
    sign = 1 - 2 * y.double().numpy()  # an error on class 1 is a negative logit, and the reverse
    planes = [
        (model[1].weight[1].double().detach().numpy(), float(model[1].bias[1].detach()))
        for model in mixture.models
    ]
    weights = mixture.weights.numpy()
    risks = np.zeros(len(x))
    for i, image in enumerate(x.flatten(1).numpy()):
        for chosen in itertools.chain.from_iterable(
            itertools.combinations(range(len(planes)), size) for size in (1, 2)
        ):
            shift = cp.Variable(PIXELS)
            rules = [image + shift >= 0, image + shift <= 1]
            for k in chosen:
                slope, bias = planes[k]
                rules.append(sign[i] * (slope @ (image + shift) + bias) >= 0)
            problem = cp.Problem(cp.Minimize(cp.norm(shift, NORMS[norm])), rules)
            distance = problem.solve()
            assert abs(distance - eps) > 1e-4, "an image too near to the edge to tell"
            if distance < eps:
                risks[i] = max(risks[i], weights[list(chosen)].sum())
    return risks


def finite_risks(mixture, points, y):
    weights = mixture.weights.numpy()
    wrong = [
        np.stack([(model(point).argmax(dim=1) != y).numpy() for model in mixture.models])
        for point in points
    ]
    return np.max([weights @ own for own in wrong], axis=0)


def mirrors(images):
    yield images
    yield images.flip(3)
    yield images.flip(2)


def test_the_union_is_the_worst_of_exact_attacks_in_each_set(game):
    mixture, x, y = game
    threats = [("Linf", 0.02), ("L2", 0.04), mirrors]
    report = mt.evaluate(
        mixture, (x, y), "subset", threats=threats, steps=5, held_out=False, resamples=20
    )
    exact = np.array(
        [
            exact_risks(mixture, x, y, "Linf", 0.02),
            exact_risks(mixture, x, y, "L2", 0.04),
            finite_risks(mixture, mirrors(x), y),
        ]
    )
    row = next(row for row in report.players if row.kind == "uniform")
    alone = [estimate.value for estimate in row.threats]
    assert alone == pytest.approx(1 - exact.mean(axis=1), abs=1e-9)
    assert row.worst.value == pytest.approx(1 - exact.max(axis=0).mean(), abs=1e-9)
    # No set is the whole of the union, nor are two of them.
    for pair in itertools.combinations(exact, 2):
        assert np.max(pair, axis=0).mean() < exact.max(axis=0).mean()
    # The game of the union, whatever found its candidates.
    assert report.settled
    for player in report.players:
        assert all(own.value >= player.worst.value - 1e-12 for own in player.threats)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("threat", [("Linf", 0.06), "L2:0.1"])
def test_a_list_of_one_threat_is_the_plain_way(game, threat, held_out):
    mixture, x, y = game
    norm, eps = threat if isinstance(threat, tuple) else threat.split(":")
    options = {"steps": 4, "resamples": 20, "held_out": held_out}
    plain = mt.evaluate(mixture, (x, y), "pgd,arc", norm=norm, eps=eps, **options)
    listed = mt.evaluate(mixture, (x, y), "pgd,arc", threats=[threat], **options)
    assert listed.to_dict() == plain.to_dict()
    assert np.array_equal(listed.losses, plain.losses)
    assert np.array_equal(listed.fitted_losses, plain.fitted_losses)


def test_a_finite_set_alone_is_exact(game):
    mixture, x, y = game
    report = mt.evaluate(mixture, (x, y), threats=[mirrors], held_out=False, resamples=20)
    assert report.settings.norm is None
    assert report.settings.exact == ("mirrors",)
    assert report.attack_names == ("mirrors",)
    for row in report.players[:4]:
        player = mt.Mixture(mixture.models, row.weights)
        wanted = 1 - finite_risks(player, mirrors(x), y).mean()
        assert row.worst.value == pytest.approx(wanted, abs=1e-12)
    assert "All points of mirrors were tried" in str(report.table().caption)


def test_points_count_in_every_set_that_they_lie_in(game):
    mixture, x, y = game
    # The small ball lies in the large one, whose own attack finds nothing.
    still = mt.PGD("Linf", 0.2, steps=1, step_size=1e-12, random_start=False)
    report = mt.evaluate(
        mixture,
        (x, y),
        [["pgd"], [still]],
        threats=[("Linf", 0.06), ("Linf", 0.2)],
        steps=10,
        resamples=20,
    )
    for row in report.players:
        small, large = row.threats
        assert large.value <= small.value
        assert large.value == pytest.approx(row.worst.value)


def test_points_of_the_union_count_where_they_lie(game):
    mixture, x, y = game
    shift = torch.where(y == 0, 0.05, -0.05)
    shift[7:] *= 3
    points = x + shift.view(-1, 1, 1, 1)
    threats = [("Linf", 0.06), ("L2", 0.4)]
    still = [
        mt.PGD(norm, eps, steps=1, step_size=1e-12, random_start=False) for norm, eps in threats
    ]
    given = mt.Given(points, threats=threats)
    report = mt.evaluate(
        mixture, (x, y), [*still, given], threats=threats, held_out=False, resamples=20
    )
    clean, moved = finite_risks(mixture, [x], y), finite_risks(mixture, [x, points], y)
    assert (clean < moved)[:7].any()
    assert (clean < moved)[7:].any()
    row = next(row for row in report.players if row.kind == "uniform")
    in_ball = np.arange(14) < 7
    assert row.threats[0].value == pytest.approx(1 - np.where(in_ball, moved, clean).mean())
    assert row.threats[1].value == pytest.approx(1 - moved.mean())
    assert report.attack_names[2:] == (
        "union: given",
        "Linf 0.06: found elsewhere",
        "L2 0.4: found elsewhere",
    )


@pytest.fixture
def report(game):
    mixture, x, y = game
    return mt.evaluate(
        mixture, (x, y), "pgd", threats=[("Linf", 0.06), ("L2", 0.1)], steps=3, resamples=20
    )


def test_every_form_of_the_report_shows_each_threat(report):
    pytest.importorskip("matplotlib")
    told = report.to_dict()
    assert told["threats"] == ("Linf 0.06", "L2 0.1")
    assert told["norm"] is None
    assert list(told["players"][0]["threats"]) == ["Linf 0.06", "L2 0.1"]
    assert report.threat == "the union of Linf 0.06 and L2 0.1"
    heads = [str(column.header).replace("\n", " ") for column in report.table().columns]
    assert heads[1:4] == ["clean", "Linf 0.06", "L2 0.1"]
    rows = list(csv.DictReader(io.StringIO(mt.evaluation.files.csv_text(report))))
    for row, line in zip(report.players, rows, strict=True):
        assert float(line["under L2 0.1"]) == pytest.approx(row.threats[1].value)
        assert min(own.value for own in row.threats) >= row.worst.value
    assert any("Against each set alone the optimal mixture has" in s for s in report.sentences())
    labels = [text.get_text() for text in report.plot().legends[0].get_texts()]
    assert {"under Linf 0.06", "under L2 0.1"} <= set(labels)
    page = mt.evaluation.files.html_text(report)
    assert "the union of Linf 0.06 and L2 0.1" in page
    assert "<th>L2 0.1</th>" in page


@pytest.mark.parametrize("threats", [[("Linf", 0.06), ("L2", 0.1)], [("Linf", 0.06), mirrors]])
def test_an_evaluation_resumes_only_under_the_same_threats(game, threats, tmp_path):
    mixture, x, y = game
    options = {"steps": 2, "resamples": 20, "out": tmp_path}
    first = mt.evaluate(mixture, (x, y), "pgd", threats=threats, **options)
    again = mt.evaluate(mixture, (x, y), "pgd", threats=threats, **options)
    assert again.parts == first.parts
    assert again.to_dict() == first.to_dict()
    other = [threats[0], ("L2", 0.11)]
    assert mt.evaluate(mixture, (x, y), "pgd", threats=other, **options).parts != first.parts


def test_attacks_of_several_balls_need_threats(game):
    mixture, x, y = game
    attacks = [mt.PGD("Linf", 0.06, steps=2), mt.PGD("L2", 0.1, steps=2)]
    with pytest.raises(
        MixsolveError, match=r"unless threats names several sets; got L2 0\.1, Linf"
    ):
        mt.evaluate(mixture, (x, y), attacks)
    report = mt.evaluate(mixture, (x, y), attacks, threats=["Linf:0.06", "L2:0.1"], resamples=20)
    assert len(report.players[0].threats) == 2
