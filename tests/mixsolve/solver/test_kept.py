"""Results that are kept: files, JSON, equality, and what print, notebooks and pictures show."""

import dataclasses
import json
import pickle
import zipfile

import numpy as np
import pytest

import mixsolve


@pytest.fixture(scope="module")
def losses():
    return np.random.default_rng(0).random((12, 5, 4))


def solutions(losses):
    """Solutions of every kind, by name."""
    yield "exact", mixsolve.solve(losses)
    yield "entropic", mixsolve.solve(losses, 0.1)
    yield "an alpha a sample", mixsolve.solve(losses, np.linspace(0.05, 0.1, len(losses)))
    limits = mixsolve.constraints.weight_bounds(4, upper=0.3)
    yield "constrained", mixsolve.solve(losses, constraints=limits)
    yield "few", mixsolve.solve(losses, max_models=2)
    with pytest.warns(mixsolve.ConvergenceWarning):
        yield "infeasible", mixsolve.solve(losses, A_ub=np.ones((1, 4)), b_ub=[0.5])
    with pytest.warns(mixsolve.ConvergenceWarning):
        yield "ended", mixsolve.solve(losses, method="oracle", max_iter=3)


def test_what_is_loaded_equals_what_was_saved(losses, tmp_path):
    for name, solution in solutions(losses):
        path = tmp_path / f"{name}.npz"
        solution.save(path)
        loaded = mixsolve.load(path)
        assert loaded == solution, name
        assert hash(loaded) == hash(solution)
        assert loaded.timings == solution.timings
        assert [record.seconds for record in loaded.history] == [
            record.seconds for record in solution.history
        ]
        for field in dataclasses.fields(solution):
            assert type(getattr(loaded, field.name)) is type(getattr(solution, field.name)), field


def test_a_loaded_solution_is_used_as_the_first_one(losses, tmp_path):
    solution = mixsolve.solve(losses)
    solution.save(tmp_path / "solution.npz")
    loaded = mixsolve.load(str(tmp_path / "solution.npz"))
    assert loaded.sensitivity(losses).sample_values.shape == (12,)
    assert np.array_equal(loaded.reduced_costs(losses), solution.reduced_costs(losses))
    assert mixsolve.solve(losses, warm_start=loaded).success


def test_numpy_reads_the_file(losses, tmp_path):
    solution = mixsolve.solve(losses)
    solution.save(tmp_path / "solution.npz")
    with np.load(tmp_path / "solution.npz", allow_pickle=False) as arrays:
        assert arrays["value"] == solution.value
        assert str(arrays["status"]) == "optimal"
        assert arrays["success"]
        assert np.array_equal(arrays["weights"], solution.weights)
        assert np.array_equal(arrays["attack_candidates"], solution.attack.candidates)
        assert arrays["history_gap"].tolist() == [record.gap for record in solution.history]
        assert all(arrays[name].dtype != object for name in arrays.files)


def test_the_command_line_writes_what_load_reads(losses, tmp_path, capsys):
    from mixsolve.commands.main import main

    np.save(tmp_path / "losses.npy", losses)
    out = tmp_path / "out.npz"
    assert main(["solve", str(tmp_path / "losses.npy"), "--out", str(out)]) == 0
    assert mixsolve.load(out) == mixsolve.solve(losses)


def test_equality_is_of_all_that_is_said(losses):
    solution = mixsolve.solve(losses)
    assert mixsolve.solve(losses) == solution
    assert len({mixsolve.solve(losses), solution}) == 1
    assert pickle.loads(pickle.dumps(solution)) == solution
    changes = {
        "weights": np.roll(solution.weights, 1),
        "value": solution.value + 1e-15,
        "names": ("a", "b", "c", "d"),
        "sample_weight": np.arange(12) / 66,
        "history": solution.history[1:],
        "attack": mixsolve.MixedStrategy(
            np.arange(13), np.zeros(12, dtype=np.int64), np.ones(12), 5
        ),
    }
    for name, value in changes.items():
        assert dataclasses.replace(solution, **{name: value}) != solution, name
    assert dataclasses.replace(solution, timings={}) == solution
    assert solution != "solution"


def test_weights_of_another_framework_are_equal_to_numpys(losses):
    torch = pytest.importorskip("torch")
    solution = mixsolve.solve(losses)
    other = dataclasses.replace(solution, weights=torch.from_numpy(solution.weights))
    assert other == solution
    assert hash(other) == hash(solution)


def test_strategies_constraints_and_prices_are_compared_by_their_numbers(losses):
    limits = mixsolve.constraints.weight_bounds(4, upper=0.3)
    assert limits == mixsolve.constraints.weight_bounds(4, upper=0.3)
    assert limits != mixsolve.constraints.weight_bounds(4, upper=0.4)
    first, second = (mixsolve.solve(losses, constraints=limits) for _ in range(2))
    assert first.prices == second.prices
    assert first.attack == second.attack
    assert first.sensitivity() == second.sensitivity()
    assert len({first.attack, second.attack}) == 1


def test_json_and_dictionaries_hold_python_alone(losses):
    for name, solution in solutions(losses):
        told = solution.to_dict()
        assert told["weights"] == pytest.approx(np.asarray(solution.weights).tolist(), nan_ok=True)
        assert "attack" not in told
        assert _plain(told), name
        read = json.loads(solution.to_json(), parse_constant=pytest.fail)
        assert read["status"] == str(solution.status)
        assert len(read["history"]) == len(solution.history)
    whole = mixsolve.solve(losses).to_dict(attack=True)
    assert _plain(whole)
    assert len(whole["attack"]["indptr"]) == 13


def test_json_is_written_to_a_file_that_is_named(losses, tmp_path):
    solution = mixsolve.solve(losses)
    assert solution.to_json(tmp_path / "a.json") == solution.to_json()
    assert json.loads((tmp_path / "a.json").read_text())["value"] == solution.value


def _plain(value):
    if type(value) is dict:
        return all(type(key) is str and _plain(each) for key, each in value.items())
    if type(value) is list:
        return all(map(_plain, value))
    return value is None or type(value) in (int, float, bool, str)


def test_a_few_aligned_lines(losses):
    for _, solution in solutions(losses):
        lines = repr(solution).splitlines()
        assert 5 <= len(lines) <= 8
        assert lines[0].startswith(f"Solution: {solution.status}")
        column = len(lines[1]) - len(lines[1][2:].partition("  ")[2].lstrip())
        assert all(line[column - 1] == " " != line[column] for line in lines[1:])
    assert f"lower bound  {solution.lower_bound:.9g}" in repr(solution)


def test_a_notebook_sees_figures_and_a_bar_a_weight(losses):
    from html.parser import HTMLParser

    solution = mixsolve.solve(losses, names=["<plain>", "b", "c", "d"])
    page = solution._repr_html_()
    parser = HTMLParser()
    parser.feed(page)
    assert "&lt;plain&gt;" in page
    assert "<plain>" not in page
    for share in 100 * solution.weights:
        assert f"width: {share:.2f}%" in page
    assert "http" not in page


def test_pictures(losses, tmp_path):
    pytest.importorskip("matplotlib")
    solution = mixsolve.solve(losses, method="oracle", tol=0.1)
    assert [axes.get_title(loc="left") for axes in solution.plot().axes] == [
        "Weights", "Risks", "Gap over time"
    ]  # fmt: skip
    risks = solution.plot(losses).axes[1]
    drawn = [patch.get_width() for patch in risks.patches]
    alone = losses.max(axis=1).mean(axis=0)
    uniform = losses.mean(axis=2).max(axis=1).mean()
    assert drawn == pytest.approx([*alone, uniform, solution.risk])
    with pytest.raises(mixsolve.MixsolveError, match="those that were solved"):
        solution.plot(losses[::-1] ** 2)
    with pytest.raises(mixsolve.MixsolveError, match="those that were solved"):
        solution.plot(losses[:3])


def test_a_path_of_numbers_of_models_is_kept_too(losses, tmp_path):
    path = mixsolve.solve_cardinality_path(losses, names="abcd")
    path.save(tmp_path / "path.npz")
    loaded = mixsolve.load(tmp_path / "path.npz")
    assert loaded == path
    assert hash(loaded) == hash(path)
    assert loaded[1:] == path[1:]
    assert path.to_dict()["risks"] == path.risks.tolist()
    assert len(json.loads(path.to_json())["solutions"]) == 4
    assert len(repr(path).splitlines()) == 5
    assert path._repr_html_().count("<tr>") == 5
    assert "a, b, c, d" in str(path)


def test_a_batch_is_kept_too(losses, tmp_path):
    for games in (losses.reshape(3, 4, 5, 4), [losses[:5], losses[5:, :3]]):
        batch = mixsolve.solve_batch(games, names="abcd")
        batch.save(tmp_path / "batch.npz")
        loaded = mixsolve.load(tmp_path / "batch.npz")
        assert loaded == batch
        assert hash(loaded) == hash(batch)
        assert loaded[1] == batch[1]
        assert batch[1].names == tuple("abcd")
        assert repr(batch).startswith(f"BatchSolution: {len(batch)} of {len(batch)} games")
        json.loads(batch.to_json())


class TestFilesThatAreNone:
    def test_another_name(self, losses, tmp_path):
        with pytest.raises(mixsolve.MixsolveError, match=r"must end in \.npz"):
            mixsolve.solve(losses).save(tmp_path / "solution.csv")
        assert not list(tmp_path.iterdir())

    def test_losses(self, losses, tmp_path):
        np.savez(tmp_path / "losses.npz", losses=losses)
        with pytest.raises(mixsolve.MixsolveError, match="holds no result of mixsolve"):
            mixsolve.load(tmp_path / "losses.npz")
        with pytest.raises(mixsolve.MixsolveError, match="does not exist"):
            mixsolve.load(tmp_path / "nothing.npz")

    @pytest.mark.parametrize("kind", ["os.PathLike", "mixsolve.solve", "mixsolve.Status", "x", ""])
    def test_another_kind_is_not_made(self, losses, tmp_path, kind):
        np.savez(tmp_path / "a.npz", kind=np.array(kind), layout=np.array("{}"))
        with pytest.raises(mixsolve.MixsolveError, match="no result that mixsolve keeps"):
            mixsolve.load(tmp_path / "a.npz")

    def test_a_package_that_is_not_there(self, tmp_path):
        np.savez(tmp_path / "a.npz", kind=np.array("mixsolve_jax.Thing"), layout=np.array("{}"))
        with pytest.raises(mixsolve.MixsolveError, match="mixsolve_jax cannot be imported"):
            mixsolve.load(tmp_path / "a.npz")

    @pytest.mark.parametrize(
        "change",
        [
            lambda layout: layout.update(unknown=1),
            lambda layout: layout.pop("weights"),
            lambda layout: layout.update(attack={"part": "Path", "fields": {}}),
            lambda layout: layout.update(weights={"array": "nothing"}),
            lambda layout: layout.update(status={"word": "method", "part": "Status"}),
            lambda layout: layout.update(weights={"unknown": 1}),
        ],
    )
    def test_damaged_layouts(self, losses, tmp_path, change):
        path = tmp_path / "solution.npz"
        mixsolve.solve(losses).save(path)
        with np.load(path) as file:
            arrays = dict(file)
        layout = json.loads(str(arrays["layout"]))
        change(layout)
        np.savez(path, **arrays | {"layout": np.array(json.dumps(layout))})
        with pytest.raises(mixsolve.MixsolveError, match="cannot read"):
            mixsolve.load(path)

    def test_a_torn_file(self, losses, tmp_path):
        path = tmp_path / "solution.npz"
        mixsolve.solve(losses).save(path)
        path.write_bytes(path.read_bytes()[:-300])
        with pytest.raises(mixsolve.MixsolveError):
            mixsolve.load(path)

    def test_nothing_is_pickled(self, losses, tmp_path):
        path = tmp_path / "solution.npz"
        mixsolve.solve(losses, 0.1).save(path)
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                assert b"'|O'" not in archive.read(member)[:128]
