"""Names of classifiers: where they come from, and where they are seen."""

import json

import numpy as np
import pytest

import mixsolve

NAMES = ("plain", "at", "trades")


@pytest.fixture(scope="module")
def losses():
    return np.random.default_rng(1).random((8, 4, 3))


@pytest.fixture(scope="module")
def solution(losses):
    return mixsolve.solve(losses)


def long_frame(losses, rng=None, samples="stuvwxyz", candidates=("clean", "pgd", "fab", "apgd")):
    """Rows (sample, candidate) by classifier; shuffled by `rng`."""
    pandas = pytest.importorskip("pandas")
    index = pandas.MultiIndex.from_product([list(samples), candidates], names=["image", "attack"])
    frame = pandas.DataFrame(losses.reshape(-1, 3), index, list(NAMES))
    return frame if rng is None else frame.iloc[rng.permutation(len(frame))]


class TestGiven:
    def test_they_name_weights_in_every_form(self, losses, solution):
        named = mixsolve.solve(losses, names=NAMES)
        assert named.names == NAMES
        assert isinstance(named.weights, np.ndarray)
        assert named.named_weights == dict(zip(NAMES, solution.weights.tolist(), strict=True))
        assert "at: " in repr(named)
        assert json.loads(named.to_json())["named_weights"] == named.named_weights
        assert solution.names is None
        assert solution.named_weights == dict(enumerate(solution.weights.tolist()))

    def test_every_solve_takes_them(self, losses):
        assert all(each.names == NAMES for each in mixsolve.solve_path(losses, [0, 1], names=NAMES))
        assert mixsolve.solve_cardinality_path(losses, names=NAMES).names == NAMES
        assert mixsolve.solve(losses, max_models=1, names=NAMES).names == NAMES
        assert mixsolve.solve_batch(losses[None], names=NAMES)[0].names == NAMES

    def test_constraints_find_columns_by_them(self, losses):
        pandas = pytest.importorskip("pandas")
        costs = pandas.DataFrame([[3.0, 0.0, 1.0]], columns=["trades", "plain", "at"])
        found = mixsolve.solve(losses, A_ub=costs, b_ub=[0.5], names=NAMES)
        same = mixsolve.solve(losses, A_ub=[[0.0, 1.0, 3.0]], b_ub=[0.5])
        assert np.array_equal(found.weights, same.weights)

    def test_they_may_repeat_what_losses_say(self, losses):
        pandas = pytest.importorskip("pandas")
        frames = [pandas.DataFrame(table, columns=list(NAMES)) for table in losses]
        assert mixsolve.solve(frames, names=NAMES).names == NAMES
        with pytest.raises(mixsolve.MixsolveError, match="by which losses names its classifiers"):
            mixsolve.solve(frames, names=NAMES[::-1])

    @pytest.mark.parametrize("names", [("a", "b"), ("a", "a", "b"), "ab"])
    def test_wrong_ones(self, losses, names):
        with pytest.raises(mixsolve.MixsolveError, match="3 different names"):
            mixsolve.solve(losses, names=names)

    @pytest.mark.parametrize("names", [3, [1, 2, 3], [], ["a", "", "b"]])
    def test_no_words(self, losses, names):
        with pytest.raises(mixsolve.MixsolveTypeError, match="names must be words"):
            mixsolve.solve(losses, names=names)

    def test_losses_opened_by_the_caller_keep_none(self, losses, solution):
        from mixsolve.engines import open_losses

        opened = open_losses(losses)
        assert mixsolve.solve(opened, names=NAMES).names == NAMES
        assert mixsolve.solve(opened).names is None


class TestDictionaries:
    def test_an_array_a_classifier(self, losses, solution):
        found = mixsolve.solve({name: losses[..., k] for k, name in enumerate(NAMES)})
        assert np.array_equal(found.weights, solution.weights)
        assert found.names == NAMES

    def test_one_candidate_a_sample(self, losses):
        found = mixsolve.solve({name: losses[:, 0, k] for k, name in enumerate(NAMES)})
        assert found.risk == pytest.approx(losses[:, 0].mean(axis=0).min())

    def test_rows_of_different_lengths(self, losses):
        ragged = [table[: 1 + i % 4] for i, table in enumerate(losses)]
        given = {name: [table[:, k] for table in ragged] for k, name in enumerate(NAMES)}
        assert mixsolve.solve(given).value == mixsolve.solve(ragged).value

    def test_they_stay_with_their_framework(self, losses, solution):
        torch = pytest.importorskip("torch")
        tensor = torch.from_numpy(losses)
        found = mixsolve.solve({name: tensor[..., k] for k, name in enumerate(NAMES)})
        assert isinstance(found.weights, torch.Tensor)
        assert np.array_equal(found.weights.numpy(), solution.weights)

    def test_frames_are_matched_by_their_rows(self, losses, solution):
        pandas = pytest.importorskip("pandas")
        frames = {
            name: pandas.DataFrame(losses[..., k], list("stuvwxyz"), list("abcd"))
            for k, name in enumerate(NAMES)
        }
        frames["at"] = frames["at"].iloc[::-1, ::-1]
        found = mixsolve.solve(frames)
        assert np.array_equal(found.weights, solution.weights)

    def test_wrong_ones(self, losses):
        with pytest.raises(mixsolve.MixsolveError, match="empty dictionary"):
            mixsolve.solve({})
        with pytest.raises(
            mixsolve.MixsolveError, match=r"of one shape; got 'a': \(8, 4\), 'b': \(7"
        ):
            mixsolve.solve({"a": losses[..., 0], "b": losses[:7, :, 1]})


class TestLongTables:
    def test_rows_in_any_order(self, losses, solution):
        frame = long_frame(losses)
        for table in (frame, frame.swaplevel(), long_frame(losses, np.random.default_rng(0))):
            found = mixsolve.solve(table)
            assert found.names == NAMES
            assert found.value == pytest.approx(solution.value, abs=1e-12)
            assert found.named_weights == pytest.approx(
                dict(zip(NAMES, solution.weights.tolist(), strict=True)), abs=1e-9
            )

    def test_other_arguments_are_matched_by_sample(self, losses):
        pandas = pytest.importorskip("pandas")
        weight = np.arange(1.0, 9.0)
        given = pandas.Series(weight, list("stuvwxyz")).iloc[::-1]
        frame = long_frame(losses)
        found = mixsolve.solve(frame, sample_weight=given)
        assert found.value == mixsolve.solve(losses, sample_weight=weight).value
        mask = frame["at"] < 0.8
        masked = mixsolve.solve(frame, candidate_mask=mask.iloc[::-1])
        kept = losses[..., 1] < 0.8
        assert masked.value == mixsolve.solve(losses, candidate_mask=kept).value

    def test_samples_with_other_candidates(self, losses):
        frame = long_frame(losses)
        kept = np.random.default_rng(3).random(len(frame)) < 0.6
        kept[::4] = True
        ragged = [losses[i][kept.reshape(8, 4)[i]] for i in range(8)]
        part = frame[kept]
        prior = part["plain"] + 0.1
        rows = [table[:, 0] + 0.1 for table in ragged]
        assert mixsolve.solve(part).value == mixsolve.solve(ragged).value
        found = mixsolve.solve(part, 0.1, candidate_prior=prior.iloc[::-1])
        expected = mixsolve.solve(ragged, 0.1, candidate_prior=rows)
        assert found.value == pytest.approx(expected.value, abs=1e-9)

    def test_wrong_ones(self, losses):
        pandas = pytest.importorskip("pandas")
        frame = long_frame(losses)
        with pytest.raises(mixsolve.MixsolveError, match=r"\('s', 'clean'\).* more than once"):
            mixsolve.solve(pandas.concat([frame, frame.iloc[:1]]))
        with pytest.raises(mixsolve.MixsolveError, match="two levels, sample and candidate"):
            mixsolve.solve(frame.rename_axis(["image", "model"]))
        with pytest.raises(mixsolve.MixsolveError, match="on one side only"):
            mixsolve.solve(frame, sample_weight=pandas.Series(np.ones(8), list("abcdefgh")))


class TestTwoAxes:
    """A table of clean losses is one candidate a sample."""

    def tables(self, table):
        yield table
        yield table.tolist()
        yield list(table)
        for name in ("torch", "jax.numpy", "dask.array"):
            module = pytest.importorskip(name)
            make = getattr(module, "from_array", getattr(module, "asarray", None))
            yield make(table)

    def test_every_kind_of_array(self, losses):
        table = losses[:, 0].astype(np.float32)
        for given in self.tables(table):
            found = mixsolve.solve(given)
            assert float(found.value) == pytest.approx(table.mean(axis=0).min(), rel=1e-5)
            assert found.attack.n_candidates == 1

    def test_names_of_frames(self, losses):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(losses[:, 0], list("stuvwxyz"), list(NAMES))
        weight = pandas.Series(np.arange(1.0, 9.0), list("stuvwxyz")).iloc[::-1]
        found = mixsolve.solve(frame, sample_weight=weight)
        assert found.names == NAMES
        expected = np.average(losses[:, 0], axis=0, weights=np.arange(1.0, 9.0))
        assert found.value == pytest.approx(expected.min())

    def test_files(self, losses, tmp_path):
        h5py = pytest.importorskip("h5py")
        np.save(tmp_path / "a.npy", losses[:, 0])
        mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
        expected = losses[:, 0].mean(axis=0).min()
        assert mixsolve.solve(mapped).value == pytest.approx(expected)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            dataset = file.create_dataset("losses", data=losses[:, 0], chunks=(3, 3))
            assert mixsolve.solve(dataset).value == pytest.approx(expected)


class TestXarray:
    def test_dimensions_are_found_by_name(self, losses, solution):
        xarray = pytest.importorskip("xarray")
        array = xarray.DataArray(
            losses.transpose(2, 0, 1),
            dims=("model", "image", "attack"),
            coords={"model": list(NAMES)},
        )
        found = mixsolve.solve(array)
        assert np.array_equal(np.asarray(found.weights), solution.weights)
        assert found.names == NAMES

    def test_a_matrix_game_by_its_names(self, losses):
        xarray = pytest.importorskip("xarray")
        for axes in (("model", "attack"), ("attack", "model")):
            table = losses[0] if axes[0] == "attack" else losses[0].T
            found = mixsolve.solve(xarray.DataArray(table, dims=axes))
            assert found.value == pytest.approx(mixsolve.solve(losses[:1]).value)
        clean = mixsolve.solve(xarray.DataArray(losses[:, 0].T, dims=("model", "image")))
        assert clean.value == pytest.approx(losses[:, 0].mean(axis=0).min())


def test_names_that_are_no_words_are_written_as_such(losses):
    pandas = pytest.importorskip("pandas")
    columns = pandas.MultiIndex.from_tuples([("at", 1), ("at", 2), ("plain", 1)])
    frames = [pandas.DataFrame(table, columns=columns) for table in losses]
    assert mixsolve.solve(frames).names == ("at/1", "at/2", "plain/1")
    frames = [pandas.DataFrame(table, columns=[1, "1", 2.5]) for table in losses]
    assert mixsolve.solve(frames).names == ("1", "'1'", "2.5")
