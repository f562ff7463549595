"""The game closed over attacks: against a game that is known whole, and against fresh attacks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_cases import two_class
from torch.utils.data import DataLoader, TensorDataset

import mixsolve
from mixsolve.base.errors import ConvergenceWarning, MixsolveError, MixsolveTypeError
from mixsolve.games.linear_game import linear_game
from mixsolve_torch import (
    PGD,
    Attack,
    Mixture,
    TransferPGD,
    UniformSampling,
    build_losses,
    digits,
    digits_cnn,
    fit,
    solve_game,
)

EPS = 0.1


class Known(Attack):
    """Every point of the ball that matters to lines in the plane, whatever their weights."""

    def __init__(self, moves):
        super().__init__("L2", EPS)
        object.__setattr__(self, "moves", moves)
        object.__setattr__(self, "met", [])

    def names(self, classifiers):
        return [f"move {j}" for j in range(self.moves[1].shape[1])]

    def generate(self, mixture, x, y, generator):
        self.met.append((len(x), mixture.weights.tolist()))
        points, moves = self.moves
        rows = (x.flatten(1)[:, None] == points[None]).all(dim=2).float().argmax(dim=1)
        for j in range(moves.shape[1]):
            yield (x.flatten(1) + moves[rows, j]).reshape(x.shape)


def lines(samples=40, count=5, seed=0):
    """A mixture of lines around points that cannot reach all of them, the points, every move."""
    rng = np.random.default_rng(seed)
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count
    normals = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    shifts = -normals @ [0.5, 0.5] + rng.uniform(0.06, 0.1, count)
    points = rng.uniform(0.45, 0.55, (samples, 2))
    labels = np.ones(samples, dtype=int)
    # A hair inside the ball the boundaries are met, a hair outside they are crossed for certain.
    game = linear_game(points, labels, normals, shifts, EPS * (1 - 1e-6))
    moves = (game.details["candidates"] - points[:, None]) * (1 + 1e-6)
    mixture = Mixture(
        [
            two_class(torch.tensor(w), float(b)).double()
            for w, b in zip(normals, shifts, strict=True)
        ]
    )
    images = torch.tensor(points).reshape(-1, 1, 1, 2)
    attack = Known((torch.tensor(points), torch.tensor(moves)))
    return mixture, (images, torch.tensor((labels + 1) // 2)), attack


@pytest.fixture(scope="module")
def networks():
    """Two networks, each trained on half of the digits, and images that neither has seen."""
    parts = digits(seed=0)
    models = []
    for seed in range(2):
        model = digits_cnn(seed=seed, width=4)
        part = parts.train.images[seed::2], parts.train.labels[seed::2]
        fit(model, part, epochs=2, batch_size=64, learning_rate=1e-2, seed=seed)
        models.append(model.eval())
    return models, (parts.test.images[:60], parts.test.labels[:60])


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def replay(game, tol):
    """Recompute the history from the tensor, column by column, and find it consistent."""
    values = game.losses.values.double()
    columns = {name: j for j, name in enumerate(game.losses.candidate_names)}
    seen = 1
    assert columns["clean"] == 0
    assert game.found[:, 0].all()
    for number, each in enumerate(game.history):
        assert each.number == number
        assert each.value == pytest.approx(float((values[:, :seen] @ each.weights).amax(1).mean()))
        for run in range(1, each.attacks + 1):
            j = columns.get(f"round {number}, run {run}")
            if j is None:
                continue
            assert j == seen
            expected = values[:, : j + 1] @ each.weights
            raised = expected[:, j] > expected[:, :j].amax(dim=1)
            assert torch.equal(raised, game.found[:, j])
            assert raised.any()
            assert torch.equal(game.losses.values[~raised, j], game.losses.values[~raised, 0])
            seen += 1
        assert each.candidates == seen
        assert each.risk == pytest.approx(float((values[:, :seen] @ each.weights).amax(1).mean()))
    assert values.shape[1] == seen == game.found.shape[1]
    assert game.risk == pytest.approx(game.losses.adversarial_risk(game.weights))
    assert game.value <= game.risk
    last = game.history[-1]
    if game.converged:
        assert game.risk - game.value <= tol + 1e-12
        assert torch.equal(game.weights, last.weights)
        assert torch.equal(game.weights, game.solution.weights)
        assert game.value == pytest.approx(game.solution.risk)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("start", [None, [1.0, 0.0, 0.0, 0.0, 0.0]])
def test_a_game_that_is_known_whole_is_solved(seed, start):
    mixture, data, attack = lines(seed=seed)
    whole = build_losses(mixture, data, attack)
    truth = mixsolve.solve(whole.values)
    alone = min(whole.adversarial_risk(one) for one in np.eye(5))
    assert truth.value < alone - 0.02
    if start is not None:
        mixture.set_weights(start)
    game = solve_game(mixture, data, attack, tol=0)
    replay(game, 0)
    assert game.converged
    assert game.value == pytest.approx(truth.value, abs=1e-6)
    assert game.risk == pytest.approx(truth.value, abs=1e-6)
    assert whole.adversarial_risk(game.weights) == pytest.approx(truth.value, abs=1e-6)
    # A part of the candidates is enough, and what is not enough has a lower value.
    assert game.losses.values.shape[1] < whole.values.shape[1]
    values = [each.value for each in game.history[1:]]
    assert np.diff(values, append=values[-1]).min() > -1e-6
    assert mixture.weights.tolist() == ([0.2] * 5 if start is None else start)


def test_a_classifier_without_weight_is_attacked_once_it_has_some():
    mixture, data, attack = lines(seed=1)
    mixture.set_weights([0.0, 1.0, 0.0, 0.0, 0.0])
    attack.met.clear()
    game = solve_game(mixture, data, attack, tol=0)
    attacked = [weights for _, weights in attack.met]
    assert attacked[0] == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert attacked[1][1] == 0
    # Spared at first, these classifiers looked better than they are: each is attacked when played.
    for each in game.history[1:-1]:
        assert each.risk > each.value + 0.02
    played = {k for weights in attacked for k, weight in enumerate(weights) if weight > 0}
    assert {k for k, weight in enumerate(game.weights.tolist()) if weight > 0} <= played
    for alone in np.eye(5):
        hidden = Mixture(mixture.models, alone)
        other = solve_game(hidden, data, attack, tol=0)
        assert other.value == pytest.approx(game.value, abs=1e-6)


def test_images_that_are_lost_are_not_attacked_again():
    mixture, data, attack = lines(seed=0)
    attack.met.clear()
    game = solve_game(mixture, data, attack, tol=0)
    rounds = [each for each in game.history for _ in range(each.attacks)]
    assert len(rounds) == len(attack.met)
    assert min(count for count, _ in attack.met) < len(data[1])
    for each, (count, weights) in zip(rounds, attack.met, strict=True):
        seen = game.losses.values[:, : each.candidates].double() @ torch.tensor(weights).double()
        assert count >= int((seen.amax(dim=1) < 1 - 1e-9).sum())
    # Another loss has no end: all images are attacked every time.
    attack.met.clear()

    def large(logits, labels):
        return 100 * torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    solve_game(mixture, data, attack, tol=5, loss=large)
    assert {count for count, _ in attack.met} == {len(data[1])}


@pytest.mark.parametrize("alpha", [0.02, np.full(40, 0.02)])
def test_the_entropic_game_is_closed_by_the_exact_risk(alpha):
    mixture, data, attack = lines(seed=2)
    game = solve_game(mixture, data, attack, alpha, tol=1e-3)
    replay(game, 1e-3)
    assert game.converged
    assert np.all(game.solution.alpha == 0.02)
    assert game.solution.value < game.solution.risk == pytest.approx(game.value)
    whole = build_losses(mixture, data, attack)
    assert whole.adversarial_risk(game.weights) <= game.risk + 1e-9
    # Repetitions of the clean image are no candidates: they would count in the entropic value.
    before = int((game.found.any(dim=0)).sum()) - game.history[-1].attacks
    width = game.history[-2].candidates
    assert width >= before
    again = mixsolve.solve(
        game.losses.values[:, :width], alpha, candidate_mask=game.found[:, :width]
    )
    assert game.solution.value == pytest.approx(again.value, abs=1e-6)
    diluted = mixsolve.solve(game.losses.values[:, :width], alpha)
    assert abs(diluted.value - again.value) > 1e-4


def test_attacks_with_another_seed_do_not_beat_the_weights(networks):
    models, data = networks
    suite = [
        PGD("Linf", 0.08, steps=6, loss="margin"),
        TransferPGD("Linf", 0.08, steps=4, loss="margin"),
    ]
    mixture = Mixture(models, [1.0, 0.0])
    game = solve_game(mixture, data, suite, tol=0.01)
    replay(game, 0.01)
    assert game.converged
    assert game.history[-1].attacks == 2
    for seed in (101, 102):
        fresh = build_losses(Mixture(models, game.weights), data, suite, generator=seeded(seed))
        together = torch.maximum(fresh.worst(game.weights), game.losses.worst(game.weights))
        assert float(together.mean()) <= game.risk + 0.01
    # Equal seeds, equal games; the draws of each run are its own.
    same = solve_game(mixture, data, suite, tol=0.01)
    assert torch.equal(same.losses.values, game.losses.values)
    other = solve_game(mixture, data, suite, tol=0.01, generator=seeded(7))
    assert other.risk == pytest.approx(game.risk, abs=0.03)


class Lucky(UniformSampling):
    """An attack that finds something new every time: image i in run i."""

    def __init__(self, share=1):
        super().__init__("L2", 1.2, draws=1)  # the length of its moves is 1.13
        object.__setattr__(self, "runs", [])
        object.__setattr__(self, "share", share)

    def generate(self, mixture, x, y, generator):
        self.runs.append(len(x))
        found = x.clone()
        found[: self.share] = 1 - found[: self.share]
        yield found


def mirrored(count):
    """A classifier that errs on an image when it is turned into its negative, and the images."""
    mixture = Mixture([two_class(torch.full((2,), 1.0), -1.0)])
    return mixture, (torch.full((count, 1, 1, 2), 0.9), torch.ones(count, dtype=torch.int64))


def test_the_runs_of_a_round_count_together():
    mixture, data = mirrored(10)
    lucky = Lucky()
    # 0.1 a run: one run is within the tolerance, two together are not.
    with pytest.warns(ConvergenceWarning, match="the rounds were used up after round 3"):
        game = solve_game(mixture, data, lucky, tol=0.15, max_rounds=3)
    assert [each.attacks for each in game.history] == [1, 2, 2, 2]
    assert lucky.runs == [10, 9, 8, 7, 6, 5, 4]
    assert [round(each.risk - each.value, 9) for each in game.history] == [0.1, 0.2, 0.2, 0.2]
    replay(game, 0.15)
    once = solve_game(mixture, data, Lucky(), tol=0.15, confirmations=1)
    assert [each.attacks for each in once.history] == [1, 1]
    thrice = solve_game(mixture, data, Lucky(), tol=0.31, confirmations=3)
    assert [each.attacks for each in thrice.history] == [1, 3]
    assert thrice.risk - thrice.value == pytest.approx(0.3)
    # When every image is lost there is nothing left to attack.
    lucky = Lucky(share=6)
    assert solve_game(mixture, data, lucky, tol=0).risk == 1
    assert lucky.runs == [10, 4]


def test_without_convergence_the_best_weights_seen_come_back():
    mixture, data, attack = lines(seed=2)
    with pytest.warns(ConvergenceWarning, match="used up after round 1: the last attacks raised"):
        game = solve_game(mixture, data, attack, tol=0, max_rounds=1)
    replay(game, 0)
    assert not game.converged
    assert "max_rounds" in game.message
    risks = [game.losses.adversarial_risk(each.weights) for each in game.history]
    assert game.risk == pytest.approx(min(risks))
    assert torch.equal(game.weights, game.history[int(np.argmin(risks))].weights)
    assert not torch.equal(game.weights, game.history[-1].weights)
    assert not torch.equal(game.weights, game.solution.weights)


def test_the_callback_sees_every_round_and_may_stop():
    mixture, data, attack = lines(seed=2)
    seen = []
    game = solve_game(mixture, data, attack, tol=0, callback=seen.append)
    assert tuple(seen) == game.history
    with pytest.warns(ConvergenceWarning, match="the callback stopped the game after round 2"):
        stopped = solve_game(mixture, data, attack, tol=0, callback=lambda each: each.number == 2)
    assert len(stopped.history) == 3
    assert not stopped.converged
    replay(stopped, 0)


def test_data_of_every_kind_are_read_once(linear, batch):
    mixture = Mixture([linear(0), linear(1)])
    attack = PGD("L2", 0.3, steps=3, random_start=False)
    expected = solve_game(mixture, batch, attack, tol=0)
    assert expected.converged
    x, y = batch
    shuffled = DataLoader(TensorDataset(x, y), 3, shuffle=True, generator=seeded(0))
    for data in ([(x[:3], y[:3]), (x[3:], y[3:])], zip(x.split(2), y.split(2), strict=True)):
        game = solve_game(mixture, data, attack, tol=0)
        assert torch.equal(game.losses.values, expected.losses.values)
    game = solve_game(mixture, shuffled, attack, tol=0)
    assert game.risk == pytest.approx(expected.risk)
    assert not torch.equal(game.losses.labels, y)


def test_candidates_to_begin_with_are_part_of_the_game():
    mixture, data, attack = lines(seed=2)
    whole = build_losses(mixture, data, attack)
    attack.met.clear()
    game = solve_game(mixture, data, attack, tol=0, start=whole)
    assert game.converged
    assert len(game.history) == 2
    assert torch.equal(game.losses.values, whole.values)
    assert game.value == pytest.approx(mixsolve.solve(whole.values).value, abs=1e-9)
    # With some of the moves the rest is found, behind them.
    few = replace(whole, values=whole.values[:, :4], candidate_names=whole.candidate_names[:4])
    game = solve_game(mixture, data, attack, tol=0, start=few)
    assert game.value == pytest.approx(mixsolve.solve(whole.values).value, abs=1e-6)
    assert torch.equal(game.losses.values[:, :4], few.values)
    assert game.losses.candidate_names[:4] == few.candidate_names
    for start, message in (
        (replace(whole, loss="margin"), "start must hold losses 'zero-one' in torch.uint8; got"),
        (replace(whole, values=whole.values.double()), "got 'zero-one' in torch.float64"),
        (replace(whole, values=whole.values[:-1]), "the 40 images and 5 classifiers"),
        (replace(whole, labels=1 - whole.labels), "its labels or the losses of its first"),
        (replace(whole, values=1 - whole.values), "its labels or the losses of its first"),
        (whole.values, "start must be a CandidateLosses; got Tensor"),
    ):
        with pytest.raises(MixsolveError, match=message):
            solve_game(mixture, data, attack, start=start)


def test_attacks_go_by_name_too(linear, batch):
    mixture = Mixture([linear(0), linear(1)])
    modes = [part.training for part in mixture.modules()]
    game = solve_game(mixture, batch, "pgd", norm="L2", eps=0.3, steps=4, restarts=2, tol=0.02)
    given = solve_game(mixture, batch, PGD("L2", 0.3, steps=4, restarts=2), tol=0.02)
    assert torch.equal(game.losses.values, given.losses.values)
    assert [part.training for part in mixture.modules()] == modes
    assert mixture.weights.tolist() == [0.5, 0.5]
    standard = solve_game(mixture, batch, norm="L2", eps=0.3, steps=4, tol=0.02)
    assert standard.risk >= game.risk - 0.15


def test_arguments_that_do_not_fit_are_refused_before_any_attack(linear, batch):
    mixture = Mixture([linear(0), linear(1)])
    lucky = Lucky()
    for options, error, message in (
        ({"tol": -1}, MixsolveError, "tol must be a finite number >= 0"),
        ({"max_rounds": 0}, MixsolveError, "max_rounds must be an integer >= 1"),
        ({"confirmations": 0}, MixsolveError, "confirmations must be an integer >= 1"),
        ({"alpha": -1}, MixsolveError, "alpha must be a finite number >= 0"),
        ({"alpha": [0.1, 0.1]}, MixsolveError, "alpha must be a number or hold one per sample, 7"),
        ({"callback": 7}, MixsolveTypeError, "callback must be a function of a GameRound; got int"),
        ({"loss": "hinge"}, MixsolveError, "loss must be one of"),
        ({"generator": 0}, MixsolveTypeError, r"generator must be a torch\.Generator"),
        ({"attacks": "standard"}, MixsolveError, "needs norm and eps"),
        ({"attacks": []}, MixsolveError, "attacks must name at least one attack"),
        ({"data": []}, MixsolveError, "data must hold at least one batch"),
        ({"data": 7}, MixsolveTypeError, "data must be a pair of tensors"),
        ({"mixture": mixture.models}, MixsolveTypeError, "mixture must be a Mixture"),
    ):
        call = {"mixture": mixture, "data": batch, "attacks": lucky} | options
        with pytest.raises(error, match=message):
            solve_game(**call)
    assert lucky.runs == []


def test_the_candidates_themselves_are_kept(networks):
    models, (x, y) = networks
    mixture = Mixture(models)
    attack = PGD("Linf", 0.1, steps=3)
    game = solve_game(mixture, (x, y), attack, max_rounds=10, tol=0.05, keep_inputs=True)
    inputs = game.losses.inputs
    assert inputs.shape[:2] == game.losses.values.shape[:2]
    assert torch.equal(inputs[:, 0], x)
    assert inputs.shape[1] > 1
    for j in range(inputs.shape[1]):
        again = build_losses(mixture, (inputs[:, j], y), [])
        assert torch.equal(again.values[:, 0], game.losses.values[:, j])
    on = solve_game(
        mixture, (x, y), attack, max_rounds=10, tol=0.05, keep_inputs=True, start=game.losses
    )
    assert torch.equal(on.losses.inputs[:, : inputs.shape[1]], inputs)
    bare = replace(game.losses, inputs=None)
    with pytest.raises(MixsolveError, match="start must hold the candidates themselves"):
        solve_game(mixture, (x, y), attack, keep_inputs=True, start=bare)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attacks": "deepfool"},
        {"attacks": "pgd"},
        {"loss": "hinge"},
        {"batch_size": 0},
        {"device": "abacus"},
        {"tol": -1},
        {"max_rounds": 0},
        {"confirmations": 0},
    ],
)
def test_data_are_not_read_before_the_arguments_are_checked(linear, wrong):
    def read():
        pytest.fail("the data were read")
        yield

    with pytest.raises(MixsolveError):
        solve_game(Mixture([linear(0)]), read(), **{"attacks": PGD("Linf", 0.1), **wrong})
