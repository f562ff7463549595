"""The standard attack: never weaker than its parts, and images stay until nothing is right."""

import dataclasses
import itertools
import logging
import re
import warnings

import pytest
import torch
from attack_cases import NORMS, curved, two_class
from corpus import seeds

from mixsolve.base.errors import GradientWarning, MixsolveError, MixsolveTypeError
from mixsolve_torch import (
    APGD,
    ARC,
    PGD,
    Mixture,
    Square,
    Standard,
    Subset,
    TargetedAPGD,
    TransferPGD,
    UniformSampling,
    expected_loss,
    resolve_attacks,
)
from mixsolve_torch.attacks.search import SearchAttack


@pytest.mark.parametrize(
    ("restarts", "norm"),
    seeds([(1, "Linf"), (2, "L2"), (1, "L1"), (2, "Linf"), (1, "L2"), (2, "L1")], quick=3),
)
def test_standard_is_the_best_of_its_parts(norm, restarts, batch):
    x, y = batch[0].double(), batch[1]
    mixture = Mixture([curved(seed) for seed in (6, 7, 8)], [0.2, 0.3, 0.5])
    attack = Standard(norm, 0.15, steps=8, restarts=restarts)
    found = expected_loss(mixture, attack(mixture, x, y, torch.Generator().manual_seed(3))[0], y)
    parts = dataclasses.replace(attack, keep_parts=True)
    points = parts(mixture, x, y, torch.Generator().manual_seed(3))
    assert len(points) == len(parts.names(3)) == len(set(parts.names(3))) == 8
    alone = torch.stack([expected_loss(mixture, point, y) for point in points])
    assert torch.equal(found, alone.amax(dim=0))
    assert (found >= expected_loss(mixture, x, y)).all()


def test_every_part_has_starts_of_its_own(batch, monkeypatch):
    starts = []
    search = SearchAttack.search

    def record(self, mixture, start, x, y, **options):
        starts.append(start)
        return search(self, mixture, start, x, y, **options)

    monkeypatch.setattr(SearchAttack, "search", record)
    # Right by far, so that all images resist to the end.
    mixture, y = Mixture([two_class(torch.ones(9), bias=-20.0)]), torch.zeros(7, dtype=torch.int64)
    attack = Standard("L2", 0.2, steps=2, restarts=3)
    attack(mixture, batch[0], y, torch.Generator().manual_seed(5))
    # A short and a long hinge, cross-entropy, a climb; a climb and a hinge from the best; square.
    assert [len(start) for start in starts] == [21, 21, 21, 21, 7, 7, 21]
    drawn = starts[:4] + starts[6:]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(drawn, 2))
    first, starts[:] = list(starts), []
    attack(mixture, batch[0], y, torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(first, starts, strict=True))


def test_each_classifier_alone_is_attacked_where_it_is_right(batch, monkeypatch):
    attacked = []
    search = SearchAttack.search

    def record(self, mixture, start, x, y, **options):
        if self.weights is not None:
            attacked.append((torch.as_tensor(self.weights).tolist(), len(x)))
        return search(self, mixture, start, x, y, **options)

    monkeypatch.setattr(SearchAttack, "search", record)
    steep = two_class(torch.ones(9), bias=-20.0)
    split = two_class(torch.ones(9), bias=float(-batch[0].flatten(1).sum(dim=1).median()))
    mixture = Mixture([steep, split, steep], [0.5, 0.5, 0.0])
    Standard("Linf", 1e-6, steps=5)(mixture, batch[0], torch.zeros(7, dtype=torch.int64))
    first, second = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]  # on the hinge and on the cross-entropy
    assert attacked == [(first, 7), (first, 7), (second, 3), (second, 3)]


def test_only_what_no_point_has_fooled_alone_is_attacked_alone_again(batch, caplog):
    """A classifier that errs somewhere, if not where the others do, is left to the climbs."""
    caplog.set_level(logging.INFO)
    up, down = two_class(torch.ones(9), bias=-4.4), two_class(-torch.ones(9), bias=4.4)
    x, y = torch.full((7, 1, 3, 3), 0.5), torch.zeros(7, dtype=torch.int64)
    x[:3] -= 0.05  # where `up` is right and `down` errs
    attack = Standard("Linf", 0.2, steps=5)
    found = attack(Mixture([up, down], [0.6, 0.4]), x, y)[0]
    assert expected_loss(Mixture([up, down], [0.6, 0.4]), found, y).min() >= 0.6
    alone = caplog.text.split("APGD-CE")[1]
    assert "APGD-CE" not in alone[: alone.find("subset")]


def test_further_attempts_go_on_from_the_strongest_point(batch, monkeypatch):
    weight = torch.ones(9)
    mixture, y = Mixture([two_class(weight, bias=-20.0)]), torch.zeros(7, dtype=torch.int64)
    x, starts = batch[0], []
    search = SearchAttack.search

    def record(self, mixture, start, x, y, **options):
        starts.append(start)
        return search(self, mixture, start, x, y, **options)

    monkeypatch.setattr(SearchAttack, "search", record)
    attack = Standard("Linf", 0.2, steps=5)
    attack(mixture, x, y)
    # The strongest point of this classifier in the ball is its corner, and the hinge reaches it.
    corner = (x + 0.2).clamp(max=1)
    for start in starts[4:6]:
        torch.testing.assert_close(start, corner)


def test_no_restart_and_no_part_undoes_another(batch, monkeypatch):
    weight = torch.ones(9)
    mixture, y = Mixture([two_class(weight, bias=-8.5)]), torch.zeros(7, dtype=torch.int64)
    x = batch[0] * 0.5
    strong, found = torch.ones_like(x), []

    def search(self, mixture, start, x, y, signs):
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
    # Nothing follows the gradient of the one that is left, which is zero; Square needs none.
    counts = resisting(caplog.text)
    assert set(counts) == {7}
    assert "square Linf 0.1: 7 of 7" in caplog.text
    caplog.clear()
    attacked = Standard("Linf", 0.1, steps=2)(Mixture([wrong] * 3), x, y)[0]
    assert resisting(caplog.text) == []
    assert torch.equal(attacked, x)
    caplog.clear()
    # Some fall on the way: later parts see only the rest.
    half = two_class(torch.ones(9), bias=float(-x.flatten(1).sum(dim=1).median()))
    Standard("Linf", 0.01, steps=2)(Mixture([half]), x, y)
    counts = resisting(caplog.text)
    assert 0 < counts[0] < 7
    assert counts == sorted(counts, reverse=True)


def test_rivals_are_aimed_at_where_there_are_several(batch, caplog):
    y = torch.zeros(7, dtype=torch.int64)
    mixture = Mixture([two_class(torch.ones(9), bias=-40.0)])
    with caplog.at_level(logging.INFO):
        Standard("L2", 0.1, steps=2)(mixture, batch[0], y)
    assert "rival" not in caplog.text
    caplog.clear()
    layer = torch.nn.utils.skip_init(torch.nn.Linear, 9, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(3, 9))
        layer.bias.copy_(torch.tensor([90.0, 0.0, 0.0]))
    with caplog.at_level(logging.INFO):
        attack = Standard("L2", 0.1, steps=2)
        attack(Mixture([torch.nn.Sequential(torch.nn.Flatten(), layer)]), batch[0], y)
    assert re.findall(r"rival-(\d)", caplog.text) == ["1", "2"]


class Steps(torch.nn.Module):
    """Errs on class 0 where the first pixel is above 0.55; rounded, so that no gradient says so."""

    def forward(self, x):
        high = (x.flatten(1)[:, :1] > 0.55).to(x.dtype)
        return torch.cat([1 - high, high], dim=1)


class Foreign(Steps):
    """The same in NumPy, which refuses images under differentiation."""

    def forward(self, x):
        return super().forward(torch.from_numpy(x.numpy().copy()))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", [Steps, Foreign])
def test_a_classifier_without_gradients_falls_to_the_search_without(norm, kind):
    x, y = torch.full((6, 1, 2, 2), 0.5), torch.zeros(6, dtype=torch.int64)
    x[3:] += 0.02 * torch.arange(3)[:, None, None, None]
    smooth = two_class(torch.ones(4), bias=-9.0)
    for models in ([kind()], [kind(), smooth], [smooth, kind()]):
        mixture = Mixture(models)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a part got through, so that there is nothing to say
            attacked = Standard(norm, 0.1, steps=5)(mixture, x, y)[0]
        assert (expected_loss(mixture, attacked, y) == 1 / len(models)).all()


def test_one_warning_of_gradients_that_no_part_got_around():
    class Deaf(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([[2.0, 1.0, 0.0]]).repeat(len(x), 1)

    class Frozen(torch.nn.Module):
        def forward(self, x):
            return 0 * x.flatten(1)[:, :3] + torch.tensor([2.0, 1.0, 0.0])

    x, y = torch.full((6, 1, 2, 2), 0.5), torch.zeros(6, dtype=torch.int64)
    with pytest.warns(GradientWarning) as caught:
        Standard("Linf", 0.1, steps=5)(Mixture([Deaf(), Frozen()]), x, y)
    (only,) = caught
    message = str(only.message)
    assert "models[0] has no gradient with respect to the images" in message
    assert "models[1] gives a gradient of exactly zero on 100.0%" in message


def test_every_batch_has_draws_of_its_own(batch):
    x, y = batch[0].double(), batch[1]
    mixture = Mixture([curved(0), curved(1)])
    attack, draws = Standard("L2", 0.2, steps=3), torch.Generator().manual_seed(1)
    first, second = attack(mixture, x, y, draws), attack(mixture, x, y, draws)
    assert not torch.equal(first, second)


def test_the_options_reach_every_part(batch, monkeypatch):
    parts = []

    def search(self, mixture, start, x, y, signs):
        parts.append(self)
        return [x], []

    monkeypatch.setattr(SearchAttack, "search", search)
    weights = [0.25, 0.75]
    attack = Standard(
        "L2", 0.2, restarts=3, weights=weights, images_per_pass=7, autocast=True, compile=True
    )
    right = two_class(torch.zeros(9), bias=-9.0)
    attack(Mixture([right, right]), batch[0], torch.zeros(7, dtype=torch.int64))
    assert [part.steps for part in parts] == [20, 100, 100, 100, 100, 100, 100, 20, 20, 100, 500]
    assert [part.restarts for part in parts] == [3, 3, 3, 3, 3, 3, 3, 3, 1, 1, 3]
    for part in parts:
        assert (part.norm, part.eps) == ("L2", 0.2)
        assert (part.images_per_pass, part.autocast, part.compile) == (7, True, True)
    told = [torch.as_tensor(part.weights).tolist() for part in parts]
    assert told == [weights] * 3 + [[1, 0]] * 2 + [[0, 1]] * 2 + [weights] * 4


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
        "square": Square,
        "apgd-hinge": APGD,
        "apgd-t": TargetedAPGD,
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
    assert resolve_attacks("apgd-hinge", "L2", 1)[0].loss == "hinge"
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
