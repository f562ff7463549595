"""The standard attack: never weaker than its parts, and images stay until nothing is right."""

import logging
import re

import pytest
import torch
from attack_cases import NORMS, curved, two_class

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch import (
    APGD,
    ARC,
    PGD,
    Mixture,
    Standard,
    Subset,
    TransferPGD,
    UniformSampling,
    expected_loss,
    resolve_attacks,
)
from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.attacks.search import SearchAttack


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("restarts", [1, 2])
def test_standard_is_never_weaker_than_its_parts(norm, restarts, batch):
    x, y = batch[0].double(), batch[1]
    mixture = Mixture([curved(seed) for seed in (6, 7, 8)], [0.2, 0.3, 0.5])
    attack = Standard(norm, 0.15, steps=8, restarts=restarts)
    found = expected_loss(mixture, attack(mixture, x, y, torch.Generator().manual_seed(3))[0], y)
    parts = attack.parts(classes=4)
    alone = torch.stack(
        [
            expected_loss(mixture, part(mixture, x, y, torch.Generator().manual_seed(3))[0], y)
            for part in parts
        ]
    )
    assert torch.equal(found, alone.amax(dim=0))
    assert (found >= expected_loss(mixture, x, y)).all()


def test_every_part_starts_from_the_same_draws(batch, monkeypatch):
    starts = []
    search = SearchAttack.search

    def record(self, mixture, start, x, y):
        starts.append(start)
        return search(self, mixture, start, x, y)

    monkeypatch.setattr(SearchAttack, "search", record)
    # Right by far, so that all images resist to the end.
    mixture, y = Mixture([two_class(torch.ones(9), bias=-20.0)]), torch.zeros(7, dtype=torch.int64)
    attack = Standard("L2", 0.2, steps=2, restarts=3)
    attack(mixture, batch[0], y, torch.Generator().manual_seed(5))
    draws = torch.Generator().manual_seed(5)
    expected = torch.cat([make_ball("L2", 0.2).random_start(batch[0], draws) for _ in range(3)])
    assert len(starts) == len(attack.parts(classes=2)) > 1
    assert all(torch.equal(start, expected) for start in starts)


def test_no_restart_and_no_part_undoes_another(batch, monkeypatch):
    weight = torch.ones(9)
    mixture, y = Mixture([two_class(weight, bias=-8.5)]), torch.zeros(7, dtype=torch.int64)
    x = batch[0] * 0.5
    strong, found = torch.ones_like(x), []

    def search(self, mixture, start, x, y):
        # The first restart of the first part fools the images but the first; nothing else does.
        points = [x, x] if found else [torch.cat([x[:1], strong[1:]]), x]
        found.append(len(x))
        return points, []

    monkeypatch.setattr(SearchAttack, "search", search)
    attacked = Standard("Linf", 1.0, restarts=2)(mixture, x, y)[0]
    assert torch.equal(attacked, torch.cat([x[:1], strong[1:]]))
    assert found[:2] == [7, 1]


def resisting(text):
    return [int(count) for count in re.findall(r": (\d+) of 7 images resist", text)]


def test_an_image_stays_until_its_accuracy_is_zero(batch, caplog):
    caplog.set_level(logging.INFO)
    x, y = batch[0], torch.zeros(7, dtype=torch.int64)
    wrong, right = two_class(torch.zeros(9), bias=9.0), two_class(torch.zeros(9), bias=-9.0)
    # A classifier that always errs is no reason to leave the other one in peace.
    with pytest.warns(UserWarning, match=r"models\[1\] gives a gradient of exactly zero"):
        Standard("Linf", 0.1, steps=2)(Mixture([wrong, right], [0.9, 0.1]), x, y)
    attempts = len(Standard("Linf", 0.1).parts(classes=2))
    assert resisting(caplog.text) == [7] * attempts
    caplog.clear()
    attacked = Standard("Linf", 0.1, steps=2)(Mixture([wrong] * 3), x, y)[0]
    assert resisting(caplog.text) == [0]
    assert torch.equal(attacked, x)
    caplog.clear()
    # Some fall on the way: later parts see only the rest.
    half = two_class(torch.ones(9), bias=float(-x.flatten(1).sum(dim=1).median()))
    Standard("Linf", 0.01, steps=2)(Mixture([half]), x, y)
    counts = resisting(caplog.text)
    assert 0 < counts[0] < 7
    assert counts == sorted(counts, reverse=True)


def test_two_classes_leave_out_the_ratio_of_logits(batch, caplog):
    mixture = Mixture([two_class(torch.ones(9), bias=-4.5)])
    y = torch.zeros(7, dtype=torch.int64)
    with caplog.at_level(logging.INFO):
        Standard("L2", 0.1, steps=2)(mixture, batch[0], y)
    assert "APGD-DLR is left out, since it needs at least 3 classes" in caplog.text
    two, three = (Standard("L2", 0.1).parts(classes) for classes in (2, 3))
    assert len(three) == len(two) + 1
    assert [getattr(part, "loss", None) for part in three[:2]] == ["cross-entropy", "dlr"]


def test_every_batch_has_draws_of_its_own(batch):
    x, y = batch[0].double(), batch[1]
    mixture = Mixture([curved(0), curved(1)])
    attack, draws = Standard("L2", 0.2, steps=3), torch.Generator().manual_seed(1)
    first, second = attack(mixture, x, y, draws), attack(mixture, x, y, draws)
    assert not torch.equal(first, second)


def test_the_options_reach_every_part():
    weights = [0.25, 0.75]
    attack = Standard(
        "L2", 0.2, restarts=3, weights=weights, images_per_pass=7, autocast=True, compile=True
    )
    for part in attack.parts(classes=5):
        assert (part.norm, part.eps, part.restarts, part.weights) == ("L2", 0.2, 3, weights)
        assert (part.images_per_pass, part.autocast, part.compile) == (7, True, True)


def test_weights_of_the_attack_replace_those_of_the_mixture(batch):
    x, y = batch[0].double(), batch[1]
    models = [curved(0), curved(1)]
    own = Standard("L2", 0.1, steps=4, weights=[1, 0])(Mixture(models, [0, 1]), x, y)
    assert torch.equal(own, Standard("L2", 0.1, steps=4)(Mixture(models, [1, 0]), x, y))


def test_attacks_by_name():
    kinds = {"standard": Standard, "pgd": PGD, "apgd-ce": APGD, "apgd-dlr": APGD}
    kinds |= {
        "arc": ARC,
        "subset": Subset,
        "transfer": TransferPGD,
        "uniform": UniformSampling,
    }
    for name, kind in kinds.items():
        (attack,) = resolve_attacks(name, "L2", 0.25, steps=7, restarts=3)
        assert type(attack) is kind
        assert (attack.norm, attack.eps) == ("L2", 0.25)
        if name == "uniform":
            assert attack.draws == 3
        else:
            assert (attack.steps, attack.restarts) == (7, 3)
        (plain,) = resolve_attacks(name, "L2", 0.25)
        assert plain == resolve_attacks([name], "L2", 0.25)[0]
    assert resolve_attacks("apgd-dlr", "L2", 1)[0].loss == "dlr"
    assert resolve_attacks("apgd-ce", "L2", 1)[0] == APGD("L2", 1)
    own = PGD("Linf", 0.1)
    assert resolve_attacks(own) == [own]
    mixed = resolve_attacks(["pgd", own], "L2", 1)
    assert mixed == [PGD("L2", 1), own]
    assert [type(attack) for attack in resolve_attacks("pgd, uniform", "L2", 1)] == [
        PGD,
        UniformSampling,
    ]


@pytest.mark.parametrize(
    ("attacks", "options", "error", "message"),
    [
        ("fgsm", {"norm": "L2", "eps": 1}, MixsolveError, r"among 'standard', .*; got 'fgsm'"),
        ("pgd", {"norm": "L2"}, MixsolveError, r"'pgd' needs norm and eps.*eps=None"),
        ("pgd", {"norm": "L3", "eps": 1}, MixsolveError, r"norm must be"),
        ([], {}, MixsolveError, r"at least one attack; got none"),
        ([3], {}, MixsolveTypeError, r"names or attacks such as .* got int"),
        (3, {}, MixsolveTypeError, r"names or attacks such as .* got int"),
    ],
)
def test_names_that_are_none(attacks, options, error, message):
    with pytest.raises(error, match=message):
        resolve_attacks(attacks, **options)
