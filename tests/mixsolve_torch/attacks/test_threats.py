"""Sets of every kind: what lies in them, how lists of them are read, and which attacks they get."""

import itertools

import pytest
import torch

import mixsolve_torch as mt
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.attacks.ball import BALLS, make_ball
from mixsolve_torch.attacks.threats import InBall, Union, united
from mixsolve_torch.attacks.transforms import KINDS

TURNS = itertools.count()
SIZES = {"shifts": 1, "corruptions": 2, "rotations": 20}


@pytest.fixture
def mixture(linear):
    return mt.Mixture([linear(seed) for seed in range(2)])


@pytest.fixture
def images(generator):
    return torch.rand(7, 1, 3, 3, generator=generator)


def flipped(images):
    yield images.flip(3)
    yield images.flip(2)


@pytest.mark.parametrize("kind", KINDS)
def test_ready_made_sets_stay_in_the_box_and_do_not_depend_on_the_batch(kind, generator):
    x = torch.rand(4, 1, 6, 5, generator=generator)
    threat = mt.read_threats((kind, SIZES.get(kind, 0.3)))[0]
    together = list(threat.points(x))
    assert len(together) > 1
    for i in range(len(x)):
        for point, alone in zip(together, threat.points(x[i : i + 1]), strict=True):
            assert torch.allclose(point[i : i + 1], alone, atol=1e-6)
    assert all(point.min() >= 0 and point.max() <= 1 for point in together)
    assert any(not torch.allclose(point, x) for point in together)
    threat.check(x)
    assert threat.contains(together[-1], x).all()
    assert not threat.contains((x + 0.37) % 1, x).any()


def test_shifts_are_all_shifts():
    x = torch.arange(9.0).reshape(1, 1, 3, 3) / 9
    points = torch.cat(list(mt.shifts(1).points(x)))
    assert points.shape == (9, 1, 3, 3)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            wanted = torch.zeros(3, 3)
            for i in range(3):
                for j in range(3):
                    if 0 <= i - down < 3 and 0 <= j - right < 3:
                        wanted[i, j] = x[0, 0, i - down, j - right]
            assert any(torch.equal(point[0], wanted) for point in points)


def test_a_number_of_points_can_be_asked_for(images):
    assert len(list(mt.read_threats("rotations:15:31")[0].points(images))) == 31
    assert len(list(mt.brightness(0.2, 3).points(images))) == 3
    assert len(list(mt.corruptions(2).points(images))) == 8


def test_noise_is_the_images_own():
    x = torch.full((2, 1, 4, 4), 0.5)
    x[1, 0, 0, 0] = 0.4
    first, second = mt.noise(0.1, 1).points(x), mt.noise(0.1, 1).points(x.flip(0))
    (one,), (two,) = list(first), list(second)
    assert torch.equal(one, two.flip(0))
    assert not torch.allclose(one[0] - x[0], one[1] - x[1])


@pytest.mark.parametrize("norm", BALLS)
def test_a_ball_contains_what_its_projection_returns(norm, images, generator):
    threat = InBall(make_ball(norm, 0.2))
    far = images + torch.randn(images.shape, generator=generator)
    assert threat.contains(threat.ball.project(far, images), images).all()
    moved = images.clone()
    moved[:, :, :2] = (images[:, :, :2] + 0.5) % 1
    assert not threat.contains(moved, images).any()


def test_a_union_contains_what_one_of_its_sets_contains(images):
    threats = mt.read_threats([("Linf", 0.1), flipped])
    both = united(threats)
    near, mirrored = (images + 0.05).clamp(max=1), images.flip(3)
    mixed = torch.cat([near[:3], mirrored[3:]])
    assert both.contains(mixed, images).all()
    assert both.outside(mixed, images) is None
    wrong = mixed.clone()
    wrong[5] = 1 - wrong[5]
    reason = both.outside(wrong, images)
    assert reason.startswith("image 5 of the batch lies in none of them (Linf 0.1: it is Linf")
    assert united(threats[:1]) is threats[0]
    assert isinstance(united([both, threats[0]]), Union)


@pytest.mark.parametrize(
    ("threats", "labels"),
    [
        ([("Linf", "8/255"), ("L2", 0.5)], ["Linf 8/255", "L2 0.5"]),
        (["Linf:8/255", "rotations:15"], ["Linf 8/255", "rotations 15"]),
        (("linf:0.1", "shifts:2"), ["Linf 0.1", "shifts 2"]),
        ("L2:0.5", ["L2 0.5"]),
        (("L2", 0.5), ["L2 0.5"]),
        ([["inf", 0.1], flipped], ["Linf 0.1", "flipped"]),
        ([mt.Finite(flipped, name="mirrors"), make_ball("L2", 1)], ["mirrors", "L2 1"]),
    ],
)
def test_lists_are_read(threats, labels):
    assert [threat.label for threat in mt.read_threats(threats)] == labels


@pytest.mark.parametrize(
    ("threats", "message"),
    [
        ([], "threats must name at least one set; got none"),
        (["Linf"], "threats 'Linf' is not understood: a ball takes one radius: Linf:8/255"),
        (["Linf:"], "a ball takes one radius"),
        (["L3:0.5"], "threats 'L3:0.5' is not understood: a set is one of Linf"),
        (["tilts:15"], "a set is one of .*rotations"),
        (["Linf:8"], "bytes"),
        (["L2:half"], "eps"),
        (["rotations"], "it takes a size"),
        (["rotations:fast"], "degrees must"),
        (["rotations:15:0"], "count must"),
        (["corruptions:6"], "severity must"),
        (["shifts:2:3"], "'shifts:2:3' is not understood"),
        ([("Linf", 0.1), "Linf:0.1"], "got 'Linf 0.1' twice"),
    ],
)
def test_what_is_not_understood_is_refused(threats, message):
    with pytest.raises(MixsolveError, match=message):
        mt.read_threats(threats)


@pytest.mark.parametrize("threats", [[3], 3, [torch.nn.Linear]])
def test_what_is_no_set_is_refused(threats):
    with pytest.raises(MixsolveTypeError, match="threats must be a list of balls"):
        mt.read_threats(threats)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda x: [x + 2], "must yield images in"),
        (lambda x: [x * float("nan")], "must yield images in"),
        (lambda x: [x[:, :, :1]], "must yield images of shape"),
        (lambda x: [], "must yield one point at least"),
        (
            lambda x: [x * (next(TURNS) % 2)],
            "same points of an image at every call",
        ),
        (lambda x: [x - x.mean() + x.mean(dim=(1, 2, 3), keepdim=True)], "in every batch"),
    ],
)
def test_a_set_that_is_none_is_refused(transform, message, mixture, images):
    images = images / 2 + 0.25
    data = images, torch.arange(7) % 4
    with pytest.raises(MixsolveError, match=message):
        mt.build_losses(mixture, data, mt.Exhaustive(mt.Finite(transform)))
    with pytest.raises(MixsolveTypeError, match="Finite"):
        mt.Exhaustive(transform)


def test_all_points_of_a_finite_set_are_tried(mixture, images):
    y = torch.arange(7) % 4
    weights = mixture.weights
    found = mt.Exhaustive(mt.rotations(90, 9))(mixture, images, y)
    wrong = [
        torch.stack([model(point).argmax(dim=1) != y for model in mixture.models]).double()
        for point in (*mt.rotations(90, 9).points(images), found[0])
    ]
    risks = torch.stack([weights @ own for own in wrong])
    assert torch.equal(risks[-1], risks[:-1].amax(dim=0))


def test_the_worst_of_attacks_is_the_worst_of_each(mixture, images):
    y = torch.arange(7) % 4
    attacks = mt.resolve_attacks("pgd", threats=["Linf:0.1", "L2:0.5", flipped], steps=3)
    worst = mt.WorstOf(attacks)
    losses = mt.build_losses(mixture, (images, y), [*attacks, worst], keep_inputs=True)
    risks = losses.values.double() @ mixture.weights
    # Draws differ between the attack alone and within the other: the same finite points remain.
    assert (risks[:, -1] >= risks[:, 3]).all()
    assert losses.candidate_names[-1] == "worst of Linf 0.1 or L2 0.5 or flipped"
    assert worst.threat.contains(losses.inputs[:, -1], images).all()


def test_names_are_attacks_in_every_ball():
    found = mt.resolve_attacks("pgd,apgd-ce", threats=["Linf:0.1", "shifts:1", "L2:0.5"], steps=7)
    assert [(type(attack).__name__, attack.threat.label) for attack in found] == [
        ("PGD", "Linf 0.1"),
        ("APGD", "Linf 0.1"),
        ("Exhaustive", "shifts 1"),
        ("PGD", "L2 0.5"),
        ("APGD", "L2 0.5"),
    ]
    assert all(attack.steps == 7 for attack in found if not isinstance(attack, mt.Exhaustive))


def test_objects_are_for_the_ball_that_they_declare():
    own = mt.PGD("L2", 0.5, steps=3)
    found = mt.resolve_attacks(["pgd", own], threats=[("Linf", 0.1), ("L2", 0.5)])
    assert found[2] is own
    assert len(found) == 3
    apart = mt.resolve_attacks([["pgd", "arc"], own, []], threats=["Linf:0.1", "L2:0.5", flipped])
    assert [attack.threat.label for attack in apart] == ["Linf 0.1"] * 2 + ["L2 0.5", "flipped"]


@pytest.mark.parametrize(
    ("attacks", "threats", "message"),
    [
        (["pgd", mt.PGD("L2", 1)], ["Linf:0.1"], "one of the threats, Linf 0.1; got one for L2 1"),
        ([mt.PGD("Linf", 0.1)], ["Linf:0.1", "L2:1"], "attacks must hold one in L2 1"),
        ([["pgd"], ["pgd"]], ["Linf:0.1"], "a list for each of the 1 threats"),
        ([["pgd"], ["pgd"]], ["Linf:0.1", "shifts:1"], "all points of shifts 1 are tried"),
        ([["pgd"], [mt.PGD("Linf", 0.1)]], ["Linf:0.1", "L2:1"], "listed for L2 1 must be for"),
        ("deepfool", ["shifts:1"], "got 'deepfool'"),
    ],
)
def test_attacks_that_do_not_fit_the_threats_are_refused(attacks, threats, message):
    with pytest.raises(MixsolveError, match=message):
        mt.resolve_attacks(attacks, threats=threats)


def test_a_ball_beside_threats_is_refused():
    with pytest.raises(MixsolveError, match="norm and eps must be left out with threats"):
        mt.resolve_attacks("pgd", "Linf", 0.1, threats=["L2:1"])
    with pytest.raises(MixsolveError, match="norm and eps must be left out with threats"):
        mt.Given(torch.zeros(2, 1, 2, 2), norm="Linf", eps=0.1, threats=["L2:1"])
    with pytest.raises(MixsolveError, match="need norm and eps, or threats"):
        mt.External(lambda mixture: None, norm="Linf")


def test_points_are_held_against_the_union(mixture, images):
    y = torch.arange(7) % 4
    near = (images + 0.05).clamp(max=1)
    points = torch.cat([near[:4], images.flip(3)[4:]])
    threats = ["Linf:0.1", mt.Finite(flipped)]
    given = mt.Given(points, threats=threats)
    losses = mt.build_losses(mixture, (images, y), given, keep_inputs=True)
    assert torch.equal(losses.inputs[:, 1], points)
    with pytest.raises(MixsolveError, match="must stay in one of the sets that are declared"):
        mt.build_losses(mixture, (images, y), mt.Given(1 - points, threats=threats))
    with pytest.raises(MixsolveError, match="must stay in one of the sets"):
        mt.External(lambda _: lambda x, y: 1 - x, threats=threats)(mixture, images, y)


def test_attacks_are_equal_by_value_only_where_their_options_say_all():
    weak, strong = mt.PGD("Linf", 0.1, steps=1), mt.PGD("Linf", 0.1, steps=9)
    assert weak == mt.PGD("Linf", 0.1, steps=1) != strong
    assert hash(weak) == hash(mt.PGD("Linf", 0.1, steps=1))
    assert len({mt.WorstOf([weak]), mt.WorstOf([strong])}) == 2
    set_of_one = mt.Finite(flipped)
    assert mt.Exhaustive(set_of_one) != mt.Exhaustive(set_of_one)
