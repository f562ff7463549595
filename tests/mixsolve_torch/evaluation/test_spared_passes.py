"""Passes are counted once, and spent only where the risk of a player can still rise."""

import numpy as np
import pytest
import torch

from mixsolve.base.errors import MixsolveError
from mixsolve_torch import (
    PGD,
    Ensemble,
    Mixture,
    Standard,
    build_losses,
    digits_cnn,
    evaluate,
    load_data,
    solve_game,
)
from mixsolve_torch.candidates.recorder import Recorder
from mixsolve_torch.evaluation.players import Player
from mixsolve_torch.models.passes import counted


class Hooks:
    """Counts runs by hooks on the networks themselves."""

    def __init__(self, models):
        self.forward = self.backward = 0
        self.handles = [model.register_forward_pre_hook(self.run) for model in models]

    def run(self, model, inputs):
        (x,) = inputs
        self.forward += len(x)
        if x.requires_grad:
            x.register_hook(self.differentiated)

    def differentiated(self, gradient):
        self.backward += len(gradient)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()


class Weighed(torch.nn.Module):
    """Says 1 where the sum of the image is above a threshold, with a slope that attacks follow."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        score = x.flatten(1).sum(dim=1) - self.threshold
        return torch.stack([-score, score], dim=1)


def images(count=8):
    """Black images of label 0, of four pixels."""
    return torch.zeros(count, 1, 2, 2), torch.zeros(count, dtype=torch.int64)


@pytest.fixture(scope="module")
def networks():
    return [digits_cnn(seed=k, width=2) for k in range(3)]


@pytest.mark.parametrize("rule", [None, "mean of probabilities", "vote"])
def test_passes_are_what_hooks_on_the_networks_count(networks, rule):
    x = load_data("digits", limit=9).images
    members = networks if rule is None else [Ensemble(networks, rule, [0.6, 0.2, 0.2])]
    mixture = Mixture(members)
    y = mixture(x).argmax(dim=1)  # so that the images have something to lose
    attack = Standard("Linf", 0.05, steps=5)
    with Hooks(networks) as hooks, counted() as passes:
        attack(mixture, x, y)
    assert hooks.backward > 0
    assert (passes.forward, passes.backward) == (hooks.forward, hooks.backward)


def test_passes_of_a_gradient_taken_several_times_count_each_time():
    model = Weighed(1.0)
    x = torch.zeros(5, 1, 2, 2, requires_grad=True)
    with counted() as outer:
        with counted() as passes:
            logits = Mixture([model]).member_logits(x)[0]
            for k in range(2):
                torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)
        Mixture([model])(x)
    assert (passes.forward, passes.backward, passes.total) == (5, 10, 15)
    assert (outer.forward, outer.backward) == (10, 10)


@pytest.mark.parametrize("held_out", [True, False])
def test_the_passes_of_all_players_are_those_of_the_evaluation(networks, held_out):
    data = load_data("digits", limit=12)[:2]
    with Hooks(networks) as hooks:
        report = evaluate(
            Mixture(networks), data, "standard", norm="Linf", eps=0.1, steps=4, held_out=held_out
        )
    assert report.passes == hooks.forward + hooks.backward
    players = sum(row.passes for row in report.players)
    assert players == report.passes if held_out else 0 < players < report.passes
    written = report.to_dict()
    assert written["passes"] == report.passes
    assert [row["passes"] for row in written["players"]] == [row.passes for row in report.players]


def test_losses_tell_their_passes_also_when_they_were_interrupted(networks, tmp_path, monkeypatch):
    data = load_data("digits", limit=12)[:2]
    given = Mixture(networks), data, PGD("Linf", 0.1, steps=3)
    options = {"batch_size": 4, "out": tmp_path / "losses.npy"}
    whole = build_losses(*given, batch_size=4)
    assert whole.passes > 12 * 3 * (1 + 2 * 3)
    record = Recorder.record

    def stopped(self, number, *batch, **kept):
        if number == 2:
            raise KeyboardInterrupt
        return record(self, number, *batch, **kept)

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "record", stopped)
        with pytest.raises(KeyboardInterrupt):
            build_losses(*given, **options)
    assert build_losses(*given, **options).passes == whole.passes
    assert build_losses(*given, **options).passes == whole.passes


def test_a_player_that_is_a_copy_of_another_costs_no_attack():
    """The last two classifiers are one: mixtures of them, and what they fool, is known already."""
    mixture = Mixture([Weighed(3.0), Weighed(1.0), Weighed(1.0)], [0.0, 0.5, 0.5])
    report = evaluate(mixture, images(), "standard", norm="Linf", eps=0.5, steps=5, held_out=False)
    rows = {row.name: row for row in report.players}
    assert rows["classifier 1"].worst.value == 1.0  # 4 pixels of 0.5 make 2
    assert rows["classifier 2"].worst.value == 0.0
    assert rows["classifier 1"].passes > 0
    assert rows["classifier 2"].passes == 0  # found on the way to the first
    assert rows["classifier 3"].passes == rows["given mixture"].passes == 0
    assert rows["uniform mixture"].passes == 0
    assert rows["uniform mixture"].worst.value == pytest.approx(1 / 3)
    assert rows["given mixture"].worst.value == 0.0
    every = evaluate(
        mixture, images(), "standard", norm="Linf", eps=0.5, steps=5, held_out=False, spare=False
    )
    assert [row.worst.value for row in every.players] == pytest.approx(
        [row.worst.value for row in report.players]
    )
    assert all(row.passes > 0 for row in every.players)


def test_classifiers_that_resist_alone_leave_mixtures_and_ensembles_nothing_to_lose():
    mixture = Mixture([Weighed(3.0), Weighed(2.5)])
    options = {"norm": "Linf", "eps": 0.5, "held_out": False}
    report = evaluate(mixture, images(), "standard", steps=5, **options)
    spent = {row.name: row.passes for row in report.players}
    assert spent.pop("classifier 1") > 0
    assert spent.pop("classifier 2") > 0
    assert spent.pop("optimal mixture") == 8 * 2 * 2  # the game runs the clean images, twice
    assert not any(spent.values())
    # A plain attack may find on a mixture what it missed on a classifier alone: it goes on.
    plain = evaluate(mixture, images(), "pgd", steps=5, **options)
    assert all(row.passes > 0 for row in plain.players)


def test_the_largest_risk_of_an_ensemble_is_never_exceeded():
    """Against all decisions of three classifiers on three classes, with confidences at random."""
    draws = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 4000, 3, generator=draws)
    y = torch.zeros(4000, dtype=torch.int64)
    erring = (logits.argmax(dim=2) != y).T.numpy().astype(np.uint8)
    for weights in ([1 / 3] * 3, [0.6, 0.4, 0.0], [0.5, 0.25, 0.25]):
        models = [torch.nn.Flatten() for _ in range(3)]
        for rule in ("mean of probabilities", "mean of logits", "vote"):
            ensemble = Ensemble(models, rule, weights)
            scores = ensemble.of_all(logits)
            risks = (scores[:, 0] <= scores[:, 1:].amax(dim=1)).numpy().astype(float)
            most = Player("", "ensemble", np.array(weights), ensemble=ensemble).most(erring)
            assert (risks <= most).all()
            assert 0 < most.mean() < 1
        mixed = Player("", "given", np.array(weights))
        assert mixed.most(erring) == pytest.approx(erring @ np.array(weights))


def test_a_game_attacks_no_image_that_has_reached_its_ceiling():
    mixture = Mixture([Weighed(1.0), Weighed(3.0)])
    attack = PGD("Linf", 0.5, steps=3)
    free = solve_game(mixture, images(), attack)
    ceiling = torch.tensor([[1, 0]] * 8)
    bounded = solve_game(mixture, images(), attack, ceiling=ceiling)
    assert bounded.value == free.value
    assert bounded.weights.tolist() == pytest.approx(free.weights.tolist())
    assert bounded.passes < free.passes
    for wrong, message in (
        (torch.ones(3, 2), r"ceiling must have shape \(8, 2\)"),
        (torch.full((8, 2), torch.nan), "without NaN"),
        ("high", "ceiling must be numbers"),
    ):
        with pytest.raises(MixsolveError, match=message):
            solve_game(mixture, images(), attack, ceiling=wrong)


def test_a_game_whose_start_holds_attacks_on_its_weights_does_not_repeat_them():
    mixture = Mixture([Weighed(1.0), Weighed(3.0)])
    attack = PGD("Linf", 0.5, steps=3)
    known = build_losses(mixture, images(), attack)
    again = solve_game(mixture, images(), attack, start=known)
    spared = solve_game(mixture, images(), attack, start=known, start_attacked=True)
    assert (again.history[0].attacks, spared.history[0].attacks) == (1, 0)
    assert spared.history[1].attacks == again.history[1].attacks == 2
    assert spared.value == again.value
    assert spared.passes < again.passes
    with pytest.raises(MixsolveError, match="start_attacked must be True or False"):
        solve_game(mixture, images(), attack, start=known, start_attacked=1)


def test_a_game_that_begins_with_the_folder_of_one_with_a_ceiling(tmp_path):
    mixture = Mixture([Weighed(1.0), Weighed(3.0)])
    data, attack = images(), PGD("Linf", 0.5, steps=3)
    ceiling = torch.tensor([[1, 0]] * 4 + [[0, 0]] * 4)
    first = solve_game(mixture, data, attack, ceiling=ceiling, out=tmp_path / "game")
    assert int(first.losses.values[:4].sum()) > 0
    assert int(first.losses.values[4:].sum()) == 0
    next_one = solve_game(mixture, data, attack, start=tmp_path / "game")
    assert next_one.losses.values[4:, : first.losses.values.shape[1]].sum() == 0
    assert next_one.risk >= first.risk
    with pytest.raises(MixsolveError, match="ceiling"):
        solve_game(mixture, data, attack, out=tmp_path / "game")
