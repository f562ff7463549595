"""Growing a mixture: where a classifier must pay by construction, and where none can."""

import copy
import signal

import pytest
import torch

import mixsolve
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch import PGD, GrowRound, Growth, Mixture, build_losses, grow
from mixsolve_torch.candidates.recorder import Recorder
from mixsolve_torch.growth.member import MemberTraining, train_against
from mixsolve_torch.growth.round import GrowthRounds
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.runs.lock import Lock

EPS = 0.1
ATTACK = PGD("Linf", EPS, steps=3)


def two_pixels(count=60, seed=0):
    """Two classes, told apart by a weak pixel within reach of the attacker, and a strong one."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    reach = torch.tensor([0.1, 0.6]) + 0.02 * torch.rand(count, 2, generator=draws)
    return (0.5 + (y[:, None] - 0.5) * reach).reshape(-1, 1, 1, 2), y


def line(weak, strong, sharpness=9.0):
    """A classifier of the weighted pixels, with its boundary at grey."""
    layer = torch.nn.utils.skip_init(torch.nn.Linear, 2, 2)
    row = sharpness * torch.tensor([weak, strong])
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-row, row]))
        layer.bias.copy_(torch.tensor([0.5, -0.5]) * row.sum())
    return torch.nn.Sequential(torch.nn.Flatten(), layer)


def fast(parameters):
    return torch.optim.Adam(parameters, lr=0.3)


def options(**changes):
    return {"optimizer": fast, "batch_size": 16, "epochs": 8, **changes}


def same(mixture, other):
    pairs = zip(mixture.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == twin and torch.equal(a, b) for (name, a), (twin, b) in pairs)


def test_a_classifier_that_pays_is_added():
    pool = Mixture([line(1.0, 0.0)])
    untouched = copy.deepcopy(pool)
    growth = grow(pool, two_pixels(), ATTACK, **options())
    assert same(pool, untouched)
    assert isinstance(growth, Growth)
    assert growth.added == 1
    assert len(growth.mixture) == 2
    assert growth.mixture.models[0] is pool.models[0]
    (played,) = growth.history
    assert isinstance(played, GrowRound)
    assert played.added
    # The old one is fooled on every image, the new one need not be on any.
    assert growth.before == played.before == pytest.approx(1.0)
    assert growth.after == played.after == pytest.approx(0.0)
    assert played.gain == pytest.approx(1.0)
    assert played.reduced_cost == pytest.approx(-1.0)
    assert growth.mixture.weights.tolist() == pytest.approx([0.0, 1.0])


def test_the_figures_are_those_of_the_candidates():
    pool = Mixture([line(1.0, 0.0), line(0.6, 0.1)])
    growth = grow(pool, two_pixels(), ATTACK, **options(alpha=0.1))
    (played,) = growth.history
    losses = growth.losses
    assert losses.values.shape == (18, played.candidates, 3)
    for j in range(played.candidates):
        again = build_losses(growth.mixture, (losses.inputs[:, j], losses.labels), [])
        assert torch.equal(again.values[:, 0], losses.values[:, j])
    old, new = mixsolve.solve(losses.values[:, :, :2]), mixsolve.solve(losses.values)
    assert played.before == pytest.approx(old.lower_bound)
    assert played.before_risk == pytest.approx(old.risk)
    assert played.after_bound == pytest.approx(new.lower_bound)
    assert played.after == pytest.approx(losses.adversarial_risk(growth.mixture.weights))
    assert played.after_bound <= played.after + 1e-12
    # The value cannot fall by more than the reduced cost was below zero, on the old candidates.
    assert played.reduced_cost < 0


def test_one_that_cannot_pay_is_refused():
    pool = Mixture([line(0.0, 1.0)])  # never fooled: there is nothing to gain
    growth = grow(pool, two_pixels(), ATTACK, rounds=3, **options(epochs=1))
    assert growth.added == 0
    assert len(growth.mixture) == 1
    (played,) = growth.history
    assert not played.added
    assert played.after is None
    assert played.gain == 0.0
    assert played.reduced_cost >= 0.0
    assert "reduced cost" in growth.message


def test_one_that_is_fooled_as_soon_as_it_is_attacked_is_refused():
    """Both pixels are within reach; the attacks on the old classifier only spared the other one."""
    x, y = two_pixels()
    x[:, :, :, 1] = x[:, :, :, 0]
    pool = Mixture([line(1.0, 0.0)])
    growth = grow(pool, (x, y), ATTACK, lambda number: line(0.0, 1.0), **options(fresh=0.0))
    (played,) = growth.history
    assert played.reduced_cost < -0.5
    assert played.after == pytest.approx(1.0)
    assert played.before == pytest.approx(1.0)
    assert growth.added == 0
    assert len(growth.mixture) == growth.losses.values.shape[2] == 1
    assert "falls by" in growth.message


def test_what_is_learnt_by_heart_is_refused():
    """Labels that say nothing: a new classifier does better on its own images, not on others."""
    draws = torch.Generator().manual_seed(1)
    x = torch.rand(120, 1, 3, 3, generator=draws)
    y = torch.randint(2, (120,), generator=draws)
    coin = torch.nn.utils.skip_init(torch.nn.Linear, 9, 2)
    with torch.no_grad():
        coin.weight.copy_(torch.randn(2, 9, generator=draws))
        coin.bias.zero_()
    pool = Mixture([torch.nn.Sequential(torch.nn.Flatten(), coin)])

    def wide(number):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            return torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.Linear(9, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2)
            )

    growth = grow(
        pool,
        (x[:60], y[:60]),
        PGD("Linf", 0.01, steps=2),
        wide,
        held_out=(x[60:], y[60:]),
        tol=0.1,
        epochs=80,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.05),
    )
    (played,) = growth.history
    assert played.training_loss < 0.3
    assert growth.added == 0
    assert "does not pay" in growth.message


def test_the_strategy_is_what_is_trained_on():
    """Candidate 1 of every image is the opposite class: whoever trains on it learns the reverse."""
    x, y = two_pixels()
    inputs = torch.stack([x, 1 - x], dim=1)
    training = MemberTraining(8, 16, fast, ATTACK, fresh=0.0)
    learnt = {}
    for played in (0, 1):
        model = line(0.0, 0.0)
        strategy = torch.zeros(len(y), 2)
        strategy[:, played] = 1.0
        draws = torch.Generator().manual_seed(0)
        mean = train_against(model, Mixture([line(1, 0)]), inputs, y, strategy, training, draws)
        assert mean < 0.3
        assert not model.training
        learnt[played] = (model(x).argmax(1) == y).float().mean().item()
    assert learnt == {0: 1.0, 1: 0.0}


def test_fresh_attacks_are_trained_on():
    """Every candidate is clean: only fresh attacks tell that the weak pixel is not to be relied on.

    The strong pixel says nothing here, the weak one everything, within the attacker's reach.
    """
    x, y = two_pixels()
    x[:, :, :, 1] = 0.5
    strategy = torch.ones(len(y), 1)
    scores = {}
    for fresh in (0.0, 1.0):
        model = line(0.0, 0.0)
        training = MemberTraining(
            20, 16, lambda given: torch.optim.Adam(given, lr=2.0), ATTACK, fresh
        )
        draws = torch.Generator().manual_seed(0)
        pool = Mixture([line(1, 0)])
        scores[fresh] = train_against(model, pool, x[:, None], y, strategy, training, draws)
    assert scores[0.0] < 0.45
    assert scores[1.0] > 0.6


def test_rounds_go_on_until_one_does_not_pay():
    seen = []
    growth = grow(
        Mixture([line(1.0, 0.0)]), two_pixels(), ATTACK, rounds=5, callback=seen.append, **options()
    )
    assert growth.added == 1
    assert [each.added for each in growth.history] == [True, False]
    assert tuple(seen) == growth.history
    assert growth.history[1].before == pytest.approx(growth.history[0].after, abs=1e-9)
    stopped = grow(
        Mixture([line(1.0, 0.0)]),
        two_pixels(),
        ATTACK,
        rounds=5,
        callback=lambda played: True,
        **options(),
    )
    assert len(stopped.history) == 1
    assert "callback" in stopped.message


def test_it_goes_on_from_its_folder(tmp_path, monkeypatch):
    data = two_pixels()

    def run(rounds, **changes):
        pool = Mixture([line(1.0, 0.0)])
        return grow(pool, data, ATTACK, rounds=rounds, **options(**changes))

    whole = run(2)
    run(1, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["grow.pt"]
    made = []
    monkeypatch.setattr(
        "mixsolve_torch.growth.round.train_against",
        lambda *arguments: made.append(1) or train_against(*arguments),
    )
    on = run(2, folder=tmp_path)
    assert len(made) == 1  # the first round was not played again
    assert same(whole.mixture, on.mixture)
    assert torch.equal(whole.losses.values, on.losses.values)
    for one, other in zip(whole.history, on.history, strict=True):
        assert vars(one) | {"seconds": 0} == vars(other) | {"seconds": 0}
    again = run(4, folder=tmp_path)  # it had ended
    assert again.message == on.message
    assert len(made) == 1
    with pytest.raises(MixsolveError, match="begun with other"):
        run(2, folder=tmp_path, epochs=3)


def test_its_folder_is_one_calls_and_a_lost_file_does_not_start_it_over(
    tmp_path, monkeypatch, caplog
):
    def run(rounds):
        return grow(
            Mixture([line(1.0, 0.0)]),
            two_pixels(),
            ATTACK,
            rounds=rounds,
            folder=tmp_path,
            **options(),
        )

    run(1)
    one = (tmp_path / "grow.pt").read_bytes()
    with (
        Lock(tmp_path / ".lock", "the folder"),
        pytest.raises(MixsolveError, match=r"folder .* is in use by process .* another folder"),
    ):
        run(2)
    (tmp_path / "grow.pt").rename(tmp_path / "grow.pt.previous")
    begun = []
    monkeypatch.setattr(GrowthRounds, "begin", lambda *_: begun.append(1))
    whole = run(2)
    assert "grow.pt does not exist; resuming from the checkpoint before it" in caplog.text
    assert not begun
    (tmp_path / "grow.pt").write_bytes(b"nothing")
    assert (tmp_path / "grow.pt.previous").read_bytes() == one
    assert same(run(2).mixture, whole.mixture)
    assert not begun
    state = checkpoint.load(tmp_path / "grow.pt")
    del state["names"], state["inputs"]
    checkpoint.save(state, tmp_path / "grow.pt")
    with pytest.raises(MixsolveError, match=r"another version of mixsolve.* lacks inputs, names"):
        run(2)


class Crash(BaseException):
    """What no handler in the package expects, as a killed process."""


def grown(folder, **changes):
    pool = Mixture([line(1.0, 0.0)])
    growth = grow(pool, two_pixels(), ATTACK, rounds=2, folder=folder, **options(**changes))
    rounds = [vars(each) | {"seconds": 0} for each in growth.history]
    state = {name: entry.tolist() for name, entry in growth.mixture.state_dict().items()}
    losses = growth.losses
    return rounds, state, losses.values.tolist(), losses.inputs.tolist(), growth.message


def test_a_growth_that_is_interrupted_ends_as_it_would_have(tmp_path, monkeypatch):
    count = {"crash_at": None, "batches": 0, "trained": 0, "crash_in_training": False}
    record = Recorder.record

    def counted(self, number, *batch, **options):
        if len(self.sources) > 1:
            if count["batches"] == count["crash_at"]:
                raise KeyboardInterrupt
            count["batches"] += 1
        return record(self, number, *batch, **options)

    def train(*arguments):
        if count["crash_in_training"]:
            raise KeyboardInterrupt
        count["trained"] += 1
        return train_against(*arguments)

    monkeypatch.setattr(Recorder, "record", counted)
    monkeypatch.setattr("mixsolve_torch.growth.round.train_against", train)
    whole = grown(None)
    batches, trained = count["batches"], count["trained"]
    assert trained == 2
    assert grown(tmp_path / "whole") == whole
    for crash_at in (0, batches // 2, batches - 1, None):
        count |= {"batches": 0, "trained": 0, "crash_at": crash_at}
        count["crash_in_training"] = crash_at is None
        folder = tmp_path / str(crash_at)
        with pytest.raises(KeyboardInterrupt) as stopped:
            grown(folder)
        (note,) = stopped.value.__notes__
        assert f"kept in {folder}: repeat the call to go on" in note
        count |= {"crash_at": None, "crash_in_training": False}
        assert grown(folder) == whole
        assert (count["batches"], count["trained"]) == (batches, trained)
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["grow.pt", "grow.pt.previous"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_training_that_a_scheduler_ends_resumes_after_its_last_epoch(tmp_path, caplog, number):
    told = {"steps": 0, "end_at": None}

    class Watched(torch.optim.Adam):
        def step(self, *arguments, **options):
            told["steps"] += 1
            if told["steps"] == told["end_at"]:
                signal.raise_signal(number)
            return super().step(*arguments, **options)

    def watched(parameters):
        return Watched(parameters, lr=0.3)

    whole = grown(None, optimizer=watched)
    steps = told["steps"]
    told |= {"steps": 0, "end_at": 12}  # three batches an epoch, two networks of eight epochs
    end = SystemExit if number == signal.SIGTERM else KeyboardInterrupt
    with pytest.raises(end) as stopped:
        grown(tmp_path, optimizer=watched)
    if end is SystemExit:
        assert stopped.value.code == 128 + signal.SIGTERM
        assert f"ended by SIGTERM; what was finished so far is kept in {tmp_path}" in caplog.text
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert not (tmp_path / ".lock").exists()
    told |= {"steps": 0, "end_at": None}
    assert grown(tmp_path, optimizer=watched) == whole
    assert told["steps"] == steps - 9


def test_one_process_grows_in_a_folder_and_others_are_told(tmp_path, monkeypatch):
    with (
        Lock(tmp_path / ".lock", "it"),
        pytest.raises(MixsolveError, match=r"folder .* is in use by process"),
    ):
        grown(tmp_path)

    def crash(*arguments):
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr("mixsolve_torch.growth.round.train_against", crash)
        with pytest.raises(Crash):
            grown(tmp_path)
    whole = grown(None, epochs=3)
    assert grown(tmp_path, epochs=3) == whole  # what another call began is not in its way
    with pytest.raises(MixsolveError, match=r"begun with other .*training differs"):
        grown(tmp_path)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(MixsolveError, match=r"folder .*file is a file"):
        grown(tmp_path / "file")


def test_what_is_damaged_in_a_round_under_way_is_made_anew(tmp_path, monkeypatch):
    whole = grown(None)

    def crash(self, progress):
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr("mixsolve_torch.growth.folder.GrowthFolder.save", crash)
        with pytest.raises(Crash):
            grown(tmp_path)
    (games,) = tmp_path.glob("games-*")
    names = sorted(path.name for path in games.iterdir())
    assert names == ["before", "round-1-held-out", "round-1-member.pt", "round-1-training"]
    for name in ("before/game.json", "round-1-member.pt", "round-1-held-out/clean.npy"):
        damaged = games / name
        damaged.write_bytes(damaged.read_bytes()[:-3])
    assert grown(tmp_path) == whole


def test_equal_calls_have_equal_answers():
    growths = [
        grow(
            Mixture([line(1.0, 0.0)]),
            two_pixels(),
            ATTACK,
            generator=torch.Generator().manual_seed(5),
            **options(),
        )
        for _ in range(2)
    ]
    assert same(growths[0].mixture, growths[1].mixture)
    assert torch.equal(growths[0].losses.values, growths[1].losses.values)


def test_wrong_arguments():
    pool, data = Mixture([line(1.0, 0.0)]), two_pixels()
    with pytest.raises(MixsolveTypeError, match="mixture must be a Mixture"):
        grow(pool.models[0], data, ATTACK)
    with pytest.raises(MixsolveError, match="held_out"):
        grow(pool, data, ATTACK, held_out=1.5)
    with pytest.raises(MixsolveError, match="leaves none"):
        grow(pool, data, ATTACK, held_out=0.001)
    for held in (data, tuple(part[3:9] for part in data)):
        with pytest.raises(MixsolveError, match=r"held_out must hold images that are not trained"):
            grow(pool, data, ATTACK, held_out=held)
    with pytest.raises(MixsolveError, match="fresh"):
        grow(pool, data, ATTACK, fresh=2)
    unread = iter([pytest.fail])
    for wrong in ({"alpha": -1.0}, {"max_rounds": 0}, {"loss": "hinge"}, {"rounds": 0}):
        with pytest.raises(MixsolveError, match=next(iter(wrong))):
            grow(pool, unread, ATTACK, **wrong)
    with pytest.raises(MixsolveTypeError, match="training_attack"):
        grow(pool, data, ATTACK, training_attack="pgd")
    with pytest.raises(MixsolveTypeError, match="model must be"):
        grow(pool, data, ATTACK, 3)
    with pytest.raises(MixsolveTypeError, match=r"model\(1\) must return a torch\.nn\.Module"):
        grow(pool, data, ATTACK, lambda number: None)
    with pytest.raises(MixsolveError, match=r"model\(1\) must return a new classifier"):
        grow(pool, data, ATTACK, lambda number: pool.models[0])
    with pytest.raises(MixsolveTypeError, match="optimizer must be a function"):
        grow(pool, data, ATTACK, optimizer="adam")
