"""The paper's figures: their numbers, at reduced sizes; and that they can be drawn and kept."""

import json
from functools import cache

import numpy as np
import pytest

import mixsolve
from benchmarks.figures import __main__ as command
from benchmarks.figures import cifar, fooled, style, synthetic
from mixsolve import games
from mixsolve.base.errors import MixsolveError
from mixsolve.games.bounds import subgradient_bound
from mixsolve.games.linear_game import paper2d_exact

SAMPLES, DRAWS, CLASSIFIERS, EPS = 80, 60, 6, 3.0


@pytest.fixture(scope="module")
def plane():
    return fooled.Plane.drawn(SAMPLES, CLASSIFIERS, 0)


@pytest.fixture(scope="module")
def law(plane):
    return fooled.areas(plane, EPS)


@pytest.fixture(scope="module")
def drawn():
    return games.paper2d(SAMPLES, DRAWS, CLASSIFIERS, eps=EPS, seed=0)


@cache
def numbers(name):
    """Measure a figure on few samples."""
    reduced = {
        "motivating": {},
        "synthetic": {"n_draws": DRAWS, "iterations": 20, "radii": (0.0, 1.0, 2.5, 3.5)},
        "exact": {"n_draws": DRAWS, "iterations": 10, "radii": (1.0, 3.0), "sizes": (1, 10, 1000)},
        "bounds": {"sizes": (10, 100), "alphas": (1.0, 0.2), "lengths": (1, 4, 16)},
        "game": {"pools": (1, 3, 6), "one_eps": 3.0, "one_seed": 11, "shown": 2},
        "reach": {"sizes": (2,), "epochs": 1, "train": 60},
    }
    sizes = reduced[name]
    if name not in ("motivating", "reach"):
        sizes |= {"n_samples": SAMPLES, "n_classifiers": CLASSIFIERS, "seeds": 2}
    return command.load(name).measure(**sizes)


def sets_of(losses):
    """Count the sets fooled by the candidates of a tensor of 0/1 losses."""
    codes = losses.astype(int) @ (1 << np.arange(losses.shape[2]))
    counts = np.zeros((len(losses), 1 << losses.shape[2]), int)
    np.add.at(counts, (np.arange(len(losses))[:, None], codes), 1)
    return counts


def test_the_sets_of_draws_are_those_of_the_game_of_the_paper(plane, drawn):
    draws = fooled.Draws(plane, fooled.moves(SAMPLES, DRAWS, 0))
    assert np.array_equal(draws.sets(EPS).mass, sets_of(drawn.losses))
    at_rest = games.paper2d(SAMPLES, 3, CLASSIFIERS, eps=0.0, seed=0).losses
    assert np.array_equal(draws.sets(0.0).mass > 0, sets_of(at_rest) > 0)


def test_the_reduced_game_has_the_risks_and_the_value_of_the_tensor(drawn, rng):
    reduced = fooled.Sets(sets_of(drawn.losses)).exact()
    mixtures = rng.dirichlet(np.ones(CLASSIFIERS), 5)
    risks = [(drawn.losses @ mixture).max(axis=1).mean() for mixture in mixtures]
    assert reduced.risks(mixtures) == pytest.approx(risks)
    assert reduced.solve().value == pytest.approx(mixsolve.solve(drawn.losses).value, abs=1e-6)
    assert len(reduced.rows) < SAMPLES * DRAWS / 4


def test_areas_are_the_law_of_uniform_draws(plane, law):
    assert law.mass.sum(axis=1) == pytest.approx(np.ones(SAMPLES), abs=1e-12)
    many = 20_000
    part = plane.on(plane.points[:10], plane.labels[:10])
    counts = fooled.Draws(part, fooled.moves(10, many, 3)).sets(EPS).mass
    expected = many * law.mass[:10]
    assert not counts[expected == 0].any()
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected) + 5).all()


def test_the_largest_sets_with_an_area_are_those_that_the_best_attacks_fool(law):
    attacks = paper2d_exact(SAMPLES, CLASSIFIERS, EPS, seed=0).losses
    assert np.array_equal(fooled.maximal(law.mass > 0), fooled.maximal(sets_of(attacks) > 0))


def test_maximal_sets_are_in_no_other(rng):
    present = rng.random((30, 16)) < 0.3
    for row, kept in zip(present, fooled.maximal(present), strict=True):
        for s in range(16):
            larger = any(row[t] and t != s and t & s == s for t in range(16))
            assert kept[s] == (row[s] and not larger)


def test_growing_samples_of_a_law_are_nested(law, rng):
    small, large = law.resampled([5, 50], rng)
    assert (small.mass.sum(axis=1) == 5).all()
    assert (large.mass.sum(axis=1) == 50).all()
    assert (small.mass <= large.mass).all()


def test_the_coin_has_three_quarters_by_every_exact_method():
    found = numbers("motivating")
    risks = {
        name: (player["standard risk"], player["adversarial risk"])
        for name, player in found["players"].items()
    }
    assert risks == {
        "classifier 1": (0.25, 1.0),
        "classifier 2": (0.25, 1.0),
        "the coin": (0.25, 0.75),
    }
    assert {"lp", "interior-point", "oracle", "cvxpy"} <= set(found["methods"])
    for solved in found["methods"].values():
        assert solved["value"] == pytest.approx(0.75, abs=1e-6)
        assert solved["lower bound"] == pytest.approx(0.75, abs=1e-6)
        assert solved["weights"] == pytest.approx([0.5, 0.5], abs=1e-4)
        assert solved["attack on the middle point"] == pytest.approx([0.5, 0, 0.5], abs=1e-4)
    assert found["risk under the optimal attack"] == pytest.approx(np.full(101, 0.75))
    assert min(found["adversarial risk"]) == pytest.approx(0.75)


def test_randomising_never_hurts_in_sample():
    radius = numbers("synthetic")["radius"]
    gains = np.subtract(radius["deterministic in"], radius["randomised in"])
    assert (gains >= -1e-9).all()
    assert gains.max() > 0.01
    for seed in range(2):
        standard = games.paper2d(SAMPLES, 1, CLASSIFIERS, eps=0.0, seed=seed).losses
        best = standard.mean(axis=(0, 1)).min()
        assert radius["deterministic in"][seed][0] == pytest.approx(best)


def test_the_radius_from_which_randomising_is_better():
    found = {
        "deterministic in": [[0.2, 0.5, 0.6], [0.2, 0.5, 0.8]],
        "randomised in": [[0.2, 0.5, 0.6], [0.2, 0.497, 0.7]],
        "deterministic out": [[0.2, 0.5, 0.6], [0.2, 0.5, 0.8]],
        "randomised out": [[0.2, 0.6, 0.6], [0.2, 0.5, 0.7]],
    }
    better = synthetic.better((1.0, 2.0, 3.0), found)
    first = better["first eps with a gain above"]
    assert first["0"] == {"by draw": [None, 2.0], "median": 2.0}
    assert first["0.005"] == {"by draw": [None, 3.0], "median": 3.0}
    assert better["mean gain out"] == pytest.approx([0, -0.05, 0.05])


def test_algorithm_1_is_within_proposition_6_after_every_number_of_iterations(drawn):
    reduced = fooled.Sets(sets_of(drawn.losses)).exact()
    optimum = reduced.solve(tol=1e-9).value
    for length in range(1, 31):
        risks = synthetic.algorithm_1(reduced, length)
        assert len(risks) <= length
        assert optimum - 1e-9 <= risks.min()
        assert risks.min() <= optimum + subgradient_bound(length, CLASSIFIERS)
    found = numbers("synthetic")["convergence"]["Algorithm 1"]
    assert (np.array(found["best risk"]) <= found["Proposition 6"]).all()


def test_every_iterate_is_at_or_above_the_certified_optimum():
    found = numbers("synthetic")["convergence"]
    assert found["optimum"] - found["lower bound"] <= 1e-8
    assert found["best deterministic"] >= found["optimum"] - 1e-9
    assert set(found["risk of the iterates"]) == {
        "oracle", "apg 1", "apg 0.1", "apg 0.03", "apg 0.01"
    }  # fmt: skip
    for risks in found["risk of the iterates"].values():
        assert min(risks) >= found["lower bound"] - 1e-9


def test_the_regularised_risk_tends_to_the_optimum():
    found = numbers("bounds")["Proposition 5"]
    error = np.array(found["error"])
    assert (np.diff(error) >= -1e-8).all()  # alpha grows
    assert (error >= -1e-8).all()
    assert error[0] < 0.01 * error[-1]
    assert found["adversarial risk - optimum"][0] < 1e-3
    assert (error <= np.array(found["bound"]) + 1e-8).all()
    assert (error <= np.array(found["bound by sample"]) + 1e-8).all()


def test_the_share_of_good_attacks_is_the_least_of_a_largest_set(law):
    largest = fooled.maximal(law.mass > 0)
    assert numbers("bounds")["Proposition 5"]["C_0"] == law.mass[largest].min()


def test_errors_of_drawing_and_of_algorithm_1_are_below_their_bounds():
    found = numbers("bounds")
    for by_size in found["Proposition 4"]["by alpha"].values():
        assert (by_size["largest error"] > 0).all()
        assert (by_size["largest error"] <= by_size["bound"]).all()
        assert by_size["error"]["mean"][1] < by_size["error"]["mean"][0]
    sixth = found["Proposition 6"]
    assert (np.array(sixth["error"]) <= sixth["bound"]).all()
    ratios = [ratio for ratio in sixth["bound / error"] if ratio is not None]
    assert min(ratios) >= 1


def test_sampled_attacks_see_less_than_exact_ones_and_more_of_them_see_more():
    found = numbers("exact")
    for name in ("risk", "value"):
        exact_ones = np.reshape(found[f"{name} exact"], (-1, 1))
        gap = exact_ones - found[f"{name} sampled"]
        assert (gap >= -1e-9).all()
        assert (np.diff(gap, axis=1) <= 1e-9).all()
        assert (gap[:, -1] < 0.3 * gap[:, 0]).all()
    assert (np.array(found["true risk"]) >= np.reshape(found["value exact"], (-1, 1)) - 1e-9).all()
    assert (found["geometric draws"]["value"] <= np.array(found["value exact"]) + 1e-9).all()
    radius = found["radius"]
    for kind in ("deterministic", "randomised"):
        assert np.less_equal(radius[f"{kind} sampled"], np.add(radius[f"{kind} exact"], 1e-9)).all()
    value = mixsolve.solve(paper2d_exact(SAMPLES, CLASSIFIERS, EPS, seed=0).losses).value
    assert found["value exact"][0] == pytest.approx(value, abs=1e-6)


def test_better_oracles_end_lower():
    found = numbers("exact")["Algorithm 1"]
    runs = found["best exact risk so far, by draws of the oracle"]
    assert list(runs) == ["10", "100", "1000", "exact"]
    for risks in runs.values():
        assert (np.diff(risks) <= 0).all()
        assert min(risks) >= found["optimum"] - 1e-9


def test_larger_pools_have_smaller_values():
    pools = numbers("game")["pools"]
    assert (np.diff(pools["value"], axis=1) <= 1e-9).all()
    assert np.less_equal(pools["value"], np.add(pools["best single"], 1e-9)).all()
    assert np.less_equal(pools["value"], np.add(pools["uniform mixture"], 1e-9)).all()
    for seed in range(2):
        alone = paper2d_exact(SAMPLES, 1, EPS, seed=seed).losses.max(axis=1).mean()
        assert pools["value"][seed][0] == pytest.approx(alone)
    assert (np.array(pools["classifiers used"]) <= pools["classifiers"]).all()


def test_the_attacker_draws_among_attacks_that_are_equally_good():
    found = numbers("game")["strategies"]
    assert found["value"] - found["lower bound"] <= 1e-8
    assert found["value"] <= found["best single"] + 1e-9
    directions, weights = np.array(found["directions"]), np.array(found["weights"])
    assert [len(sample["attacks"]) for sample in found["samples"]] == [3, 1]
    for sample in found["samples"]:
        assert sum(attack["chance"] for attack in sample["attacks"]) == pytest.approx(1, abs=0.03)
        risks = [attack["risk"] for attack in sample["attacks"]]
        assert risks == pytest.approx([risks[0]] * len(risks), abs=1e-6)
        for attack in sample["attacks"]:
            assert np.linalg.norm(attack["point"] - sample["point"]) <= found["eps"] + 1e-9
            outputs = directions @ attack["point"] + found["intercepts"]
            errs = sample["label"] * outputs <= 1e-9
            assert errs @ weights == pytest.approx(attack["risk"])
            used = np.flatnonzero(errs & (weights > 1e-6)) + 1
            assert np.array_equal(used, attack["fools"])


def run_folder(folder, networks, robust, *, worst=None):
    """Make what `mixsolve train` leaves of a run with these robust accuracies."""
    folder.mkdir(parents=True)
    with (folder / "metrics.jsonl").open("w") as file:
        for epoch, value in enumerate(robust, 1):
            record = {
                "epoch": epoch,
                "weights": [1 / networks] * networks,
                "clean": {"mixture": value + 0.3, "models": [value + 0.3] * networks},
                "robust": {"mixture": value, "models": [value - 0.1] * networks},
                "split": "validation",
            }
            file.write(json.dumps(record) + "\n")
    if worst is None:
        return
    players = [player("single", worst - 0.1) for _ in range(networks)]
    if networks > 1:
        players += [player("uniform", worst - 0.05), player("given", worst)]
    report = {"norm": "Linf", "eps": 0.1, "images": 50, "players": players}
    (folder / "evaluation.json").write_text(json.dumps(report))


def player(kind, worst):
    def estimate(value):
        return {"value": value, "low": value - 0.02, "high": value + 0.02}

    attacks = {"APGD-CE": estimate(worst + 0.05), "ARC": estimate(worst)}
    return {"kind": kind, "clean": estimate(0.9), "attacks": attacks, "worst": estimate(worst)}


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    run_folder(folder / "digits-at-l1", 1, [0.2, 0.4, 0.3], worst=0.45)
    run_folder(folder / "digits-at-l2-seed0", 2, [0.3, 0.35], worst=0.5)
    run_folder(folder / "digits-at-l2-seed1", 2, [0.3, 0.45], worst=0.4)
    run_folder(folder / "deeper" / "cifar10-trades-l3", 3, [0.5])
    return folder


def test_runs_are_grouped_by_name_and_the_most_robust_of_those_alike_is_kept(runs):
    rows = cifar.measure(runs, every=2)["rows"]
    assert {name: list(counts) for name, counts in rows.items()} == {
        "digits-at": ["1", "2"],
        "cifar10-trades": ["3"],
    }
    alone, two = rows["digits-at"]["1"]["kept"], rows["digits-at"]["2"]
    assert alone["epochs"] == [2, 4, 6]
    assert alone["robust"] == [0.2, 0.4, 0.3]
    assert (alone["best epoch"], alone["best robust"]) == (4, 0.4)
    assert alone["final"]["worst"]["value"] == pytest.approx(0.35)  # its only network
    assert len(two["runs"]) == 2
    assert two["kept"]["folder"] == "digits-at-l2-seed1"
    assert two["kept"]["final"]["worst"]["value"] == pytest.approx(0.4)  # of the weights given
    assert rows["cifar10-trades"]["3"]["kept"]["final"] is None


def test_runs_are_drawn_with_a_line_each(runs):
    with style.look():
        figure = cifar.draw(cifar.measure(runs, every=2))
    robust = figure.axes[-1]  # rows in the order of the paths: digits last
    lines = [line for line in robust.lines if str(line.get_label()).startswith("L = ")]
    assert [line.get_label() for line in lines] == ["L = 1", "L = 2"]
    assert list(lines[1].get_xdata()) == [2, 4]
    assert list(lines[1].get_ydata()) == [30, 45]
    bars = [bar.get_height() for bar in figure.axes[3].patches]
    assert bars == pytest.approx([35, 40])


def test_folders_without_runs_and_broken_files_are_named(tmp_path, runs):
    with pytest.raises(MixsolveError, match="got none"):
        cifar.measure(tmp_path / "nothing")
    (runs / "digits-at-l1" / "evaluation.json").write_text('{"players": []}')
    with pytest.raises(MixsolveError, match=r"evaluation\.json must hold"):
        cifar.measure(runs)
    (runs / "digits-at-l1" / "metrics.jsonl").write_text('{"epoch": 1')
    with pytest.raises(MixsolveError, match="line 1 of"):
        cifar.measure(runs)
    (runs / "digits-at-l1" / "metrics.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(MixsolveError, match="must hold the records"):
        cifar.measure(runs)


@pytest.mark.parametrize("name", command.NAMES)
def test_figures_are_drawn_from_their_numbers_alone(name):
    kept = json.loads(json.dumps(style.plain(numbers(name)), allow_nan=False))
    with style.look():
        figure = command.load(name).draw(kept)
        figure.set_layout_engine("none")  # which takes longer than the drawing
        figure.draw_without_rendering()
    drawn = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert len(drawn) >= 4
    for letter, axes in zip("abcdef", drawn, strict=False):
        assert axes.get_title(loc="left").startswith(f"({letter})")
        assert axes.get_xlabel()


def test_the_command_writes_picture_drawing_and_numbers(tmp_path, runs):
    assert command.main(["motivating", "--out", str(tmp_path / "a")]) == 0
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "motivating.json", "motivating.png", "motivating.svg"
    }  # fmt: skip
    kept = json.loads((tmp_path / "a" / "motivating.json").read_text())
    assert kept["methods"]["lp"]["value"] == 0.75
    given = ["cifar", "--runs", str(runs), "--every", "3", "--out", str(tmp_path / "b")]
    assert command.main(given) == 0
    kept = json.loads((tmp_path / "b" / "cifar.json").read_text())
    assert kept["rows"]["cifar10-trades"]["3"]["kept"]["epochs"] == [3]


def test_the_command_says_what_is_missing(tmp_path, capsys, caplog):
    with pytest.raises(SystemExit):
        command.main(["cifar", "--out", str(tmp_path)])
    assert "--runs" in capsys.readouterr().err
    assert command.main(["cifar", "--runs", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "got none" in caplog.text
    assert not (tmp_path / "out").exists()
