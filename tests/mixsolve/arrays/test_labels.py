"""Arrays with names are matched by them: axes, samples, candidates and classifiers."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr

import mixsolve
from mixsolve import LinearConstraints, MixsolveError, MixsolveTypeError
from mixsolve.base.tuning import tuning
from mixsolve.feasible.constraints import expected_cost, standard_risk, weight_bounds

LOSSES = np.random.default_rng(0).random((5, 4, 3))
SAMPLES, CANDIDATES, CLASSIFIERS = list("vwxyz"), list("klmn"), list("abc")
WEIGHT = np.array([5.0, 1.0, 2.0, 3.0, 4.0])
MASK = np.ones((5, 4), bool)
MASK[0, 1] = MASK[2, 3] = MASK[4, 0] = False
PRIOR = np.random.default_rng(1).random((5, 4)) + 0.1
OTHER_ORDERS = [
    ("classifier", "candidate", "sample"),
    ("candidate", "sample", "classifier"),
    ("classifier", "sample", "candidate"),
]


def named(losses=LOSSES):
    coords = {"sample": SAMPLES, "candidate": CANDIDATES, "classifier": CLASSIFIERS}
    return xr.DataArray(losses, dims=tuple(coords), coords=coords)


def frames():
    tables = [pd.DataFrame(table, index=CANDIDATES, columns=CLASSIFIERS) for table in LOSSES]
    tables[1] = tables[1][["c", "a", "b"]]
    tables[3] = tables[3][["b", "a", "c"]].iloc[[2, 3, 1, 0]]
    return tables


def same(found, *arguments, **options):
    """The solution is that of the losses by themselves, to the last bit but rounding."""
    expected = mixsolve.solve(LOSSES, *arguments, **options)
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-8)
    assert found.value == pytest.approx(expected.value, abs=1e-9)


class TestTables:
    def test_columns_in_other_orders_are_brought_into_the_first_ones(self):
        tables = frames()
        same(mixsolve.solve(tables))
        same(mixsolve.solve([[row for _, row in table.iterrows()] for table in tables]))
        same(mixsolve.solve([pl.DataFrame(table.to_dict("list")) for table in tables]))
        same(mixsolve.solve([xr.DataArray(table.T, dims=("model", "attack")) for table in tables]))
        same(mixsolve.solve(tables, 0.1), 0.1)
        path = mixsolve.solve_cardinality_path(tables)
        assert path[-1].value == pytest.approx(mixsolve.solve(LOSSES).value, abs=1e-6)

    def test_the_index_that_pandas_makes_names_nothing(self):
        same(mixsolve.solve([pd.DataFrame(table) for table in LOSSES]))

    @pytest.mark.parametrize(
        ("last", "word"),
        [
            (pd.DataFrame(LOSSES[4], columns=["a", "b", "z"]), "'z'"),
            (pd.DataFrame(LOSSES[4], columns=["a", "a", "c"]), "all different"),
            (LOSSES[4], "does not name them"),
            (pd.DataFrame(LOSSES[4]), "does not name them"),
        ],
        ids=["another name", "twice", "an array", "none"],
    )
    def test_what_cannot_be_matched_is_refused(self, last, word):
        with pytest.raises(MixsolveError, match=r"losses\[") as caught:
            mixsolve.solve([*frames()[:4], last])
        assert word in str(caught.value)

    def test_numbers_in_another_order_on_one_side_are_refused(self):
        tables = [pd.DataFrame(table) for table in LOSSES]
        tables[2] = tables[2][[2, 0, 1]]
        with pytest.raises(MixsolveError, match=r"losses\[2\] names classifiers by numbers"):
            mixsolve.solve(tables)

    def test_tables_of_other_kinds_are_refused(self):
        class Table:
            columns, dtypes = CLASSIFIERS, [float] * 3

            def __array__(self, dtype=None, copy=None):
                return LOSSES[0]

        with pytest.raises(MixsolveTypeError, match="names would be lost"):
            mixsolve.solve([Table()])

    def test_types_of_pandas_and_missing_values(self):
        whole = (LOSSES * 10).astype(int)
        tables = [pd.DataFrame(table).astype("Int64") for table in whole]
        expected = mixsolve.solve(whole)
        assert mixsolve.solve(tables).value == pytest.approx(expected.value, abs=1e-9)
        same(
            mixsolve.solve(LOSSES, candidate_mask=pd.DataFrame(MASK).astype("boolean")),
            candidate_mask=MASK,
        )
        tables[1].iloc[0, 0] = pd.NA
        with pytest.raises(MixsolveError, match=r"losses\[1\] has missing values"):
            mixsolve.solve(tables)


class TestAxes:
    @pytest.mark.parametrize("order", OTHER_ORDERS)
    def test_axes_are_found_by_name(self, order):
        same(mixsolve.solve(named().transpose(*order)))
        plural = (
            named()
            .rename({name: f"{name}s" for name in order})
            .transpose(*[f"{d}s" for d in order])
        )
        same(mixsolve.solve(plural))
        mask = xr.DataArray(MASK.T, dims=("candidate", "sample"))
        same(mixsolve.solve(named(), candidate_mask=mask), candidate_mask=MASK)
        same(mixsolve.solve(LOSSES, candidate_mask=mask), candidate_mask=MASK)

    def test_names_that_contradict_no_position(self):
        same(mixsolve.solve(xr.DataArray(LOSSES, dims=("x", "y", "z"))))
        same(mixsolve.solve(xr.DataArray(LOSSES, dims=("x", "y", "model"))))
        moved = LOSSES.transpose(2, 0, 1)
        same(mixsolve.solve(xr.DataArray(moved, dims=("model", "image", "z"))))

    @pytest.mark.parametrize(
        "dims", [("model", "x", "y"), ("model", "classifier", "x"), ("game", "x", "y")]
    )
    def test_names_that_do_are_refused(self, dims):
        with pytest.raises(MixsolveError, match=r"losses must have the axes .*dimensions named"):
            mixsolve.solve(xr.DataArray(LOSSES, dims=dims))
        weight = xr.DataArray(WEIGHT, dims="candidate")
        with pytest.raises(MixsolveError, match="sample_weight must have the axes"):
            mixsolve.solve(LOSSES, sample_weight=weight)

    def test_arrays_in_files(self, tmp_path):
        h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr")
        order = ("classifier", "sample", "candidate")
        moved = np.ascontiguousarray(LOSSES.transpose(2, 0, 1))
        with h5py.File(tmp_path / "losses.h5", "w") as file:
            dataset = file.create_dataset("losses", data=moved)
            for axis, name in enumerate(order):
                dataset.dims[axis].label = name
            same(mixsolve.solve(dataset))
        group = zarr.open_group(tmp_path / "losses.zarr", mode="w", zarr_format=2)
        array = group.create_array("losses", data=moved)
        array.attrs["_ARRAY_DIMENSIONS"] = list(order)
        same(mixsolve.solve(group["losses"]))

    def test_large_arrays_in_files_are_read_in_order(self, tmp_path, monkeypatch):
        h5py = pytest.importorskip("h5py")
        monkeypatch.setattr(tuning, "kept_bytes", 0)
        monkeypatch.setattr(tuning, "file_block_bytes", 128)
        with h5py.File(tmp_path / "losses.h5", "w") as file:
            moved = np.ascontiguousarray(LOSSES.transpose(2, 1, 0))
            dataset = file.create_dataset("losses", data=moved, chunks=(1, 2, 2))
            for axis, name in enumerate(("model", "attack", "image")):
                dataset.dims[axis].label = name
            same(mixsolve.solve(dataset))

    def test_dask_behind_xarray(self):
        dask_array = pytest.importorskip("dask.array")
        moved = dask_array.from_array(LOSSES.transpose(2, 0, 1))
        same(mixsolve.solve(xr.DataArray(moved, dims=("model", "image", "attack"))))


class TestOptions:
    WEIGHTS = pd.Series(WEIGHT, index=SAMPLES)
    TABLE = pd.DataFrame(MASK, index=SAMPLES, columns=CANDIDATES)

    @pytest.mark.filterwarnings("ignore::mixsolve.ConvergenceWarning")
    def test_options_follow_the_losses(self):
        weight, table = self.WEIGHTS[::-1], self.TABLE.iloc[[4, 0, 2, 1, 3], [3, 1, 0, 2]]
        prior = pd.DataFrame(PRIOR, index=SAMPLES, columns=CANDIDATES).iloc[::-1, ::-1]
        losses = named()
        same(mixsolve.solve(losses, sample_weight=weight), sample_weight=WEIGHT)
        by_xarray = xr.DataArray(weight.to_numpy(), [("sample", list(weight.index))])
        same(mixsolve.solve(losses, sample_weight=by_xarray), sample_weight=WEIGHT)
        same(mixsolve.solve(losses, candidate_mask=table), candidate_mask=MASK)
        same(mixsolve.solve(losses, 0.2, candidate_prior=prior), 0.2, candidate_prior=PRIOR)
        same(mixsolve.solve(losses, weight), WEIGHT)
        found = mixsolve.solve_path(losses, [0.1], sample_weight=weight, candidate_mask=table)[0]
        same(found, 0.1, sample_weight=WEIGHT, candidate_mask=MASK)
        start = pd.Series([0.2, 0.3, 0.5], index=["b", "a", "c"])
        stopped = mixsolve.solve(
            losses, 0.1, warm_start=start, method="apg", callback=lambda state: True
        )
        expected = mixsolve.solve(
            LOSSES, 0.1, warm_start=[0.3, 0.2, 0.5], method="apg", callback=lambda state: True
        )
        np.testing.assert_array_equal(stopped.weights, expected.weights)

    def test_masks_of_samples_that_name_their_own_candidates(self):
        tables = frames()
        same(mixsolve.solve(tables, candidate_mask=self.TABLE), candidate_mask=MASK)
        rows = [row for _, row in self.TABLE.iterrows()]
        same(mixsolve.solve(tables, candidate_mask=rows), candidate_mask=MASK)

    def test_losses_without_names_are_taken_by_position(self):
        same(mixsolve.solve(LOSSES, sample_weight=self.WEIGHTS), sample_weight=WEIGHT)
        same(mixsolve.solve(LOSSES, sample_weight=pl.Series(WEIGHT)), sample_weight=WEIGHT)
        same(mixsolve.solve(LOSSES, candidate_mask=self.TABLE), candidate_mask=MASK)

    def test_what_cannot_be_matched_is_refused(self):
        with pytest.raises(MixsolveError, match="candidate_mask names the samples in another"):
            mixsolve.solve(LOSSES, sample_weight=self.WEIGHTS[::-1], candidate_mask=self.TABLE)
        with pytest.raises(MixsolveError, match="sample_weight names samples by numbers"):
            mixsolve.solve(LOSSES, sample_weight=pd.Series(WEIGHT).iloc[::-1])
        with pytest.raises(MixsolveError, match=r"sample_weight names samples.*'q'"):
            mixsolve.solve(named(), sample_weight=self.WEIGHTS.rename({"v": "q"}))
        with pytest.raises(MixsolveError, match="alpha names samples"):
            mixsolve.solve(named(), self.WEIGHTS.rename({"v": "q"}))

    def test_masked_arrays_in_lists(self):
        masked = np.ma.masked_array(LOSSES, mask=LOSSES > 0.9)
        for losses in (
            list(masked),
            [list(t) for t in masked],
            [[list(r) for r in t] for t in masked],
        ):
            with pytest.raises(
                MixsolveTypeError, match=r"losses\[0\].* mask would be lost.*candidate_mask"
            ):
                mixsolve.solve(losses)
            with pytest.raises(MixsolveTypeError, match="mask would be lost"):
                mixsolve.solve_batch([losses])
        row = np.ma.masked_array(WEIGHT, mask=[1, 0, 0, 0, 0])
        for name in ("sample_weight", "alpha"):
            with pytest.raises(MixsolveTypeError, match=f"{name} is a masked array"):
                mixsolve.solve(LOSSES, **{name: row})
        rows = [np.ma.masked_array(each, mask=~each) for each in MASK]
        with pytest.raises(MixsolveTypeError, match=r"candidate_mask\[0\] is a masked array"):
            mixsolve.solve(LOSSES, candidate_mask=rows)
        with pytest.raises(MixsolveTypeError, match=r"A_ub\[0\] is a masked array"):
            mixsolve.solve(LOSSES, A_ub=[row[:3]], b_ub=1.0)


class TestConstraints:
    A = pd.DataFrame([[1.0, 0, 0], [0, 1, 0]], index=["p", "q"], columns=CLASSIFIERS)
    B = pd.Series([0.2, 0.4], index=["p", "q"])

    def test_columns_follow_the_losses(self):
        arrays = {"A_ub": self.A.to_numpy(), "b_ub": self.B.to_numpy()}
        turned, right = self.A[["b", "c", "a"]], self.B[::-1]
        same(mixsolve.solve(named(), A_ub=turned, b_ub=right), **arrays)
        parts = LinearConstraints(self.A[:1], self.B[:1]), LinearConstraints(turned[1:], self.B[1:])
        same(mixsolve.solve(named(), constraints=list(parts)), **arrays)
        same(mixsolve.solve(named(), constraints=parts[0] & parts[1]), **arrays)
        upper = pd.Series([0.4, 0.2, 1.0], index=["b", "a", "c"])
        same(mixsolve.solve(named(), constraints=weight_bounds(3, 0.0, upper)), **arrays)
        cost = pd.Series([3.0, 1.0, 2.0], index=["c", "a", "b"])
        found = mixsolve.solve(frames(), constraints=expected_cost(cost, 1.5))
        same(found, A_ub=[[1.0, 2.0, 3.0]], b_ub=[1.5])
        clean = pd.DataFrame(LOSSES[:, 0], index=SAMPLES, columns=CLASSIFIERS)
        risk = standard_risk(clean[["c", "a", "b"]], 0.5, pd.Series(WEIGHT, index=SAMPLES)[::-1])
        rows = WEIGHT @ LOSSES[:, 0] / WEIGHT.sum()
        np.testing.assert_allclose(risk.A_ub[0], rows[[2, 0, 1]])
        same(mixsolve.solve(named(), constraints=risk), A_ub=rows, b_ub=0.5)

    def test_orders_that_nothing_decides_between_are_refused(self):
        parts = (
            LinearConstraints(self.A[:1], self.B[:1]),
            LinearConstraints(self.A[["b", "c", "a"]][1:], self.B[1:]),
        )
        for constraints in (parts[0] & parts[1], list(parts)):
            with pytest.raises(MixsolveError, match="order"):
                mixsolve.solve(LOSSES, constraints=constraints)


class TestBatch:
    WEIGHTS = pd.Series(WEIGHT, index=SAMPLES)

    def test_games_by_name(self):
        expected = mixsolve.solve_batch(LOSSES[None])
        moved = named().transpose("classifier", "candidate", "sample")
        turned = named().isel(classifier=[2, 0, 1])
        several = xr.concat([named(), named()], dim="game")
        for losses in ([moved, named()], [named(), turned], several.transpose(..., "game")):
            found = mixsolve.solve_batch(losses)
            np.testing.assert_allclose(found.weights[1], expected.weights[0], atol=1e-9)
            assert len(found) == 2

    def test_options_follow_each_game(self):
        expected = mixsolve.solve_batch(LOSSES[None], sample_weight=WEIGHT)
        back = named().isel(sample=[4, 3, 2, 1, 0])
        several = xr.concat([named(), named()], dim="game")
        for losses in ([named(), back], several):
            for weight in (self.WEIGHTS[::-1], [self.WEIGHTS, self.WEIGHTS[::-1]]):
                found = mixsolve.solve_batch(losses, sample_weight=weight)
                np.testing.assert_allclose(found.weights[1], expected.weights[0], atol=1e-9)
        with pytest.raises(MixsolveError, match="sample_weight"):
            mixsolve.solve_batch(several, sample_weight=self.WEIGHTS.rename({"v": "q"}))


class TestClassifier:
    def test_rows_that_disagree(self):
        pytest.importorskip("sklearn")
        from sklearn.naive_bayes import GaussianNB
        from sklearn.tree import DecisionTreeClassifier

        rng = np.random.default_rng(0)
        X = pd.DataFrame(rng.random((40, 2)), index=[f"r{i}" for i in range(40)])
        X.columns = ["a", "b"]
        y = pd.Series((X["a"] > X["b"]).astype(int), index=X.index)
        weight = pd.Series(rng.random(40), index=X.index)
        pool = [("tree", DecisionTreeClassifier(max_depth=2)), ("bayes", GaussianNB())]
        mixture = mixsolve.MixtureClassifier(pool, random_state=0)
        expected = mixture.fit(X, y, weight).solution_.value
        score = mixture.score(X, y, weight)
        back = np.arange(40)[::-1]
        found = mixture.fit(X, y.iloc[back], weight.iloc[back])
        assert found.solution_.value == expected
        assert mixture.score(X, y.iloc[back], weight.iloc[back]) == score
        risk = mixture.adversarial_risk(X, y, sample_weight=weight)
        assert mixture.adversarial_risk(X, y.iloc[back], sample_weight=weight.iloc[back]) == risk
        assert mixture.fit(X, y.to_numpy(), weight.to_numpy()).solution_.value == expected
        with pytest.raises(MixsolveError, match="y names the rows of X"):
            mixture.fit(X, y.rename({"r0": "other"}))
        with pytest.raises(MixsolveError, match="sample_weight must be finite and >= 0"):
            mixture.score(X, y, -weight)


def test_jax_takes_names_too():
    pytest.importorskip("jax")
    from mixsolve.jax import game_value

    losses = named().transpose("classifier", "candidate", "sample").astype(np.float32)
    weight = pd.Series(WEIGHT, index=SAMPLES)[::-1]
    found = game_value(losses, sample_weight=weight)
    expected = mixsolve.solve(LOSSES, sample_weight=WEIGHT).value
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_gradients_in_pytorch_take_options_by_name():
    torch = pytest.importorskip("torch")
    from mixsolve_torch import game_value

    mask = xr.DataArray(MASK.T, dims=("candidate", "sample"))
    found = game_value(torch.tensor(LOSSES), 0.1, candidate_mask=mask)
    expected = mixsolve.solve(LOSSES, 0.1, candidate_mask=MASK).value
    assert float(found) == pytest.approx(expected, abs=1e-8)


def test_masks_of_other_kinds():
    torch, dask_array = pytest.importorskip("torch"), pytest.importorskip("dask.array")
    masked = np.ma.masked_array(LOSSES, mask=LOSSES > 0.9)
    of_torch = torch.masked.masked_tensor(torch.tensor(LOSSES), torch.tensor(LOSSES < 0.9))

    class Wrapped:
        def __array__(self, dtype=None, copy=None):
            return masked

    of_dask = dask_array.ma.masked_array(dask_array.from_array(LOSSES), mask=LOSSES > 0.9)
    for losses in (of_torch, Wrapped(), of_dask, [of_dask[0]]):
        with pytest.raises(MixsolveTypeError, match=r"losses.* is a masked array.*candidate_mask"):
            mixsolve.solve(losses)
