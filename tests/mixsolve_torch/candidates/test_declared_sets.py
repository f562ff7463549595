"""Candidates are held against the set that their attack declares, whoever made them."""

import math

import numpy as np
import pytest
import torch
from attack_cases import CASES, attacks, linear_classifiers

from mixsolve.base.arguments import as_length, as_norm
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.estimator.perturbations import UniformBall as Perturb
from mixsolve.games import paper2d
from mixsolve.games.linear_game import linear_game, paper2d_exact
from mixsolve_torch import (
    APGD,
    ARC,
    PGD,
    Attack,
    Mixture,
    Standard,
    UniformSampling,
    build_losses,
    evaluate,
    grow,
    resolve_attacks,
    solve_game,
)
from mixsolve_torch.data.linear_images import linear_images
from mixsolve_torch.training import AttackConfig, TrainConfig


class Moves(Attack):
    """Moves the last image of each batch by what it is told to; the other images not at all."""

    def __init__(self, norm, eps, move, kind="tensor"):
        super().__init__(norm, eps)
        object.__setattr__(self, "move", move)
        object.__setattr__(self, "kind", kind)

    def names(self, classifiers):
        return ["still", "moved"]

    def generate(self, mixture, x, y, generator):
        yield x
        point = x.clone()
        point[-1] = self.move(x[-1])
        yield point.numpy() if self.kind == "array" else point


def further(by):
    """Moves every entry by so much, away from the nearer wall."""
    return lambda image: image + by * (1 - 2 * image.ge(0.5).to(image))


WRONG = [
    ("Linf", 0.1, further(0.25), "image 6 of the batch is Linf 0.25 away from the original"),
    ("Linf", 0.1, further(0.1001), "image 6 of the batch is Linf 0.1001 away"),
    ("L2", 0.1, further(0.1), "image 6 of the batch is L2 0.3 away from the original"),
    ("L2", 0.3, further(0.1001), "image 6 of the batch is L2 0.3003 away from the original"),
    ("L2", 9.0, lambda image: image + 2, r"image 6 of the batch has entries from 2\.\d+ to 2\."),
    ("Linf", 1.0, lambda image: image - 1, r"image 6 of the batch has entries from -"),
    ("L2", 9.0, lambda image: image * torch.nan, "image 6 of the batch holds NaN"),
    ("L2", 9.0, lambda image: image + torch.inf, "image 6 of the batch has entries .* to inf"),
]
CALLS = {
    "call": lambda mixture, batch, attack: attack(mixture, *batch),
    "build_losses": lambda *given: build_losses(*given),
    "trajectory": lambda *given: build_losses(*given, keep="trajectory"),
    "solve_game": lambda *given: solve_game(*given),
    "evaluate": lambda *given: evaluate(*given),
    "grow": lambda mixture, batch, attack: grow(
        mixture, batch, attack, held_out=(batch[0].flip(3), batch[1]), epochs=1
    ),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("norm", "eps", "move", "message"), WRONG)
def test_an_attack_that_leaves_its_set(call, norm, eps, move, message, linear, batch):
    mixture = Mixture([linear(0, scale=0.01)])  # which is wrong on some images and not on all
    attack = Moves(norm, eps, move)
    if call in ("solve_game", "evaluate", "grow"):
        message = message.replace("image 6", r"image \d")  # of those that are not lost yet
    told = f"Moves {norm} {eps:g} must stay.*'moved' of {message}"
    with pytest.raises(MixsolveError, match=told):
        CALLS[call](mixture, batch, attack)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_edge_of_the_ball_is_inside_in_every_dtype(norm, dtype, linear, generator):
    x = torch.rand(9, 1, 3, 3, generator=generator).to(dtype)
    y = torch.zeros(9, dtype=torch.int64)
    for eps in (0.0, 1 / 255, 0.03, 0.1, 0.3):
        length = eps if norm == "Linf" else eps / 3
        attack = Moves(norm, eps, further(length))
        points = attack(Mixture([linear(0)]), x, y)
        assert torch.equal(points[1, -1], further(length)(x[-1]))
    coarse = 0.05 if torch.finfo(dtype).eps > 1e-4 else 1e-5
    with pytest.raises(MixsolveError, match="must stay in the ball"):
        Moves(norm, 0.3, further(length + coarse))(Mixture([linear(0)]), x, y)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_own_attacks_pass_at_the_size_of_photographs(case, norm, generator):
    x = torch.rand(2, 3, 64, 64, generator=generator).round(decimals=2)
    mixture = Mixture(linear_classifiers(2, x[0].numel(), generator=generator))
    y = torch.tensor([0, 1])
    for eps in (8 / 255, 0.9):
        found = attacks(norm, eps, steps=2)[case](mixture, x, y)
        assert found.shape[1:] == x.shape


def test_what_an_attack_yields_is_a_tensor_of_its_names(linear, batch):
    with pytest.raises(MixsolveTypeError, match=r"Moves L2 0.3 must yield tensors.*ndarray"):
        Moves("L2", 0.3, further(0.1), "array")(Mixture([linear(0)]), *batch)


@pytest.mark.parametrize(
    ("norm", "eps"),
    [("Linf", 8), ("linf", 1.5), ("inf", "8"), (math.inf, 255)],
)
def test_bytes_are_refused_everywhere(norm, eps, linear, batch):
    mixture = Mixture([linear(0)])
    for call in (
        lambda: PGD(norm, eps),
        lambda: UniformSampling(norm, eps),
        lambda: Standard(norm, eps),
        lambda: resolve_attacks("apgd-ce", norm, eps),
        lambda: evaluate(mixture, batch, "pgd", norm=norm, eps=eps),
        lambda: solve_game(mixture, batch, "pgd", norm=norm, eps=eps),
        lambda: grow(mixture, batch, "pgd", norm=norm, eps=eps),
        lambda: TrainConfig(attack=AttackConfig(norm=norm, eps=eps)),
    ):
        with pytest.raises(MixsolveError, match=rf"Linf radius exceeds 1; got {eps}.*{eps}/255"):
            call()


@pytest.mark.parametrize(
    "spelling", ["Linf", "linf", "L_inf", "l-infinity", "inf", "INF", math.inf]
)
def test_spellings_of_linf(spelling, linear, batch):
    assert as_norm("norm", spelling) == "Linf"
    attack = PGD(spelling, "8/255", steps=2)
    same = PGD("Linf", 8 / 255, steps=2)
    assert (attack.norm, attack.eps) == ("Linf", 8 / 255)
    assert attack.names(1) == same.names(1)
    mixture = Mixture([linear(0)])
    assert torch.equal(attack(mixture, *batch), same(mixture, *batch))
    reports = [
        evaluate(mixture, batch, "pgd", norm=norm, eps=eps, steps=2, resamples=20).to_dict()
        for norm, eps in ((spelling, "8/255"), ("Linf", 8 / 255))
    ]
    assert reports[0] == reports[1]
    games = [
        solve_game(mixture, batch, "pgd", norm=norm, eps=eps, steps=2)
        for norm, eps in ((spelling, "8 / 255"), ("Linf", 8 / 255))
    ]
    assert games[0].risk == games[1].risk
    points = [
        list(Perturb(norm, eps, draws=2)([], np.zeros((3, 2)), None, np.random.default_rng(0)))
        for norm, eps in ((spelling, "1/3"), ("Linf", 1 / 3))
    ]
    assert np.array_equal(*points)


@pytest.mark.parametrize("spelling", ["L2", "l2", "L_2", "2", 2, 2.0, np.int64(2)])
def test_spellings_of_l2(spelling):
    attack = ARC(spelling, "1/2", step_size="1/4")
    assert (attack.norm, attack.eps, attack.step_size) == ("L2", 0.5, 0.25)
    assert PGD(spelling, 128, step_size="1/255").step_size == 1 / 255  # the box is large in L2
    assert Perturb(spelling, 0.5).norm == "L2"


@pytest.mark.parametrize("spelling", ["L1", "l1", "L_1", "1", 1, 1.0, np.int64(1)])
def test_spellings_of_l1(spelling):
    assert (ARC(spelling, 12).norm, Perturb(spelling, 12).norm) == ("L1", "L1")
    assert AttackConfig(norm=spelling, eps=12).radius == 12


@pytest.mark.parametrize("norm", ["L3", "", "l", "0", 3, True, None, "Linf2", "max norm", math.nan])
def test_other_norms_are_refused(norm):
    for call in (lambda: APGD(norm, 0.1), lambda: Perturb(norm, 0.1)):
        with pytest.raises(MixsolveError, match="norm must be 'Linf', 'L2' or 'L1'; got "):
            call()


def test_radii_in_the_unit_of_points_may_be_fractions_too():
    assert as_length("eps", "3 / 2") == 1.5
    drawn = [paper2d(20, 5, 3, eps=eps, seed=1).losses for eps in ("3/2", 1.5)]
    assert np.array_equal(*drawn)
    exact = [paper2d_exact(20, 3, eps, seed=1) for eps in ("3/2", 1.5)]
    assert np.array_equal(exact[0].losses, exact[1].losses)
    assert linear_images(exact[0], "3/2").eps == linear_images(exact[1], 1.5).eps
    parts = [[0.0, 0.0]], [1], [[1.0, 0.0], [0.0, 2.0]], [1.0, 2.0]
    games = [linear_game(*parts, eps=eps) for eps in ("6/5", 1.2)]
    assert np.array_equal(games[0].losses, games[1].losses)


def test_radii_in_training():
    config = AttackConfig(norm="inf", eps="8/255", step_size="2/255")
    assert (config.norm, config.radius, config.step) == ("Linf", 8 / 255, 2 / 255)
    with pytest.raises(MixsolveError, match=r"attack.norm must be 'Linf', 'L2' or 'L1'; got 'L3'"):
        AttackConfig(norm="L3")


@pytest.mark.parametrize(
    "eps", ["", "a", "1/2/3", "8/", "/3", "nan", "-1", "1e400", "inf", "-8/255"]
)
def test_texts_that_are_no_radius(eps):
    with pytest.raises(MixsolveError, match="eps must be a"):
        PGD("L2", eps)


@pytest.mark.parametrize("eps", [True, None, [0.1], 1j, b"0.1"])
def test_radii_of_a_wrong_type(eps):
    for call in (lambda: PGD("L2", eps), lambda: Perturb("L2", eps), lambda: paper2d(eps=eps)):
        with pytest.raises(MixsolveTypeError, match="eps must be a finite number >= 0"):
            call()
