"""Mixtures of scikit-learn classifiers against forged sensors."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import mixsolve
from mixsolve import MixtureClassifier
from mixsolve.estimator.reach import columns_read

SENSORS = {"a": [0, 1], "b": [2, 3], "c": [4, 5]}


@pytest.fixture(scope="module")
def data():
    return make_classification(
        600, 6, n_informative=6, n_redundant=0, n_clusters_per_class=1, class_sep=1.5,
        shuffle=False, random_state=3,
    )  # fmt: skip


def reading(columns, remainder="drop"):
    return make_pipeline(
        ColumnTransformer([("read", StandardScaler(), columns)], remainder=remainder),
        LogisticRegression(),
    )


MEMBERS = {
    "numbers": (reading([0, 3]), [0, 3]),
    "slice": (reading(slice(1, 4)), [1, 2, 3]),
    "mask": (reading(np.arange(6) < 2), [0, 1]),
    "negative numbers": (reading([-1]), [5]),
    "remainder": (reading([0], "passthrough"), range(6)),
    "dropped": (
        make_pipeline(
            ColumnTransformer([("x", "drop", [0, 1, 2])], remainder="passthrough"),
            LogisticRegression(),
        ),
        [3, 4, 5],
    ),
    "forest": (RandomForestClassifier(5, random_state=0), range(6)),
    "scaled first": (make_pipeline(StandardScaler(), reading([2])), range(6)),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_columns_that_a_member_reads(name, data):
    X, y = data
    member, expected = MEMBERS[name]
    member.fit(X, y)
    read = columns_read(member, 6)
    assert np.flatnonzero(read).tolist() == list(expected)
    assert (columns_read(FrozenEstimator(member), 6) == read).all()


@pytest.mark.parametrize(
    "member",
    [
        make_pipeline(SelectKBest(k=2), LogisticRegression()),
        DecisionTreeClassifier(max_depth=2, random_state=0),
        make_pipeline(DecisionTreeClassifier(max_depth=1)),
        *(member for member, _ in MEMBERS.values()),
    ],
)
def test_columns_that_are_not_read_change_nothing(member, data):
    X, y = data
    member.fit(X, y)
    read = columns_read(member, 6)
    rng = np.random.default_rng(0)
    for value in (0.0, 1e12, -1e12, rng.normal(size=X.shape)):
        assert (member.predict(np.where(read, X, value)) == member.predict(X)).all()
    assert read.any()


def test_columns_by_name_and_by_a_selector(data):
    X, y = data
    table = pd.DataFrame(X, columns=list("uvwxyz"))
    for columns in (["v", "y"], slice("v", "x"), make_column_selector(pattern="[vw]")):
        member = reading(columns).fit(table, y)
        read = columns_read(member, 6)
        expected = {"v", "y"} if isinstance(columns, list) else {"v", "w", "x"}
        expected = {"v", "w"} if callable(columns) else expected
        assert set(table.columns[read]) == expected


def test_a_subclass_counts_as_reading_everything(data):
    class Own(DecisionTreeClassifier):
        pass

    X, y = data
    assert columns_read(Own(max_depth=1).fit(X, y), 6).all()


def test_no_forged_sensor_does_worse_than_the_certificate(data):
    X, y = data
    pool = [(name, reading(own)) for name, own in SENSORS.items()]
    mixture = MixtureClassifier(pool, threat=SENSORS, random_state=0).fit(X[::2], y[::2])
    certificate = mixture.certify(X[1::2], y[1::2])
    assert mixture.reads_.sum(axis=1).tolist() == [2, 2, 2]
    assert mixture.solution_.value == pytest.approx(
        mixture.adversarial_risk(
            X[::2][mixture.validation_indices_], y[::2][mixture.validation_indices_]
        )
    )
    worst = np.ones(300)
    for own in SENSORS.values():
        for signs in ([1, 1], [1, -1], [-1, 1], [-1, -1]):
            forged = X[1::2].copy()
            forged[:, own] = 1e9 * np.array(signs)
            right = mixture.vote_proba(forged)[np.arange(300), y[1::2]]
            worst = np.minimum(worst, right)
    assert worst.mean() == pytest.approx(certificate.certified.value, abs=1e-12)
    assert 0.4 < certificate.certified.value < certificate.clean.value
    assert certificate.certified.value == pytest.approx(
        1 - mixture.adversarial_risk(X[1::2], y[1::2])
    )


def test_sensors_by_the_names_of_columns(data):
    X, y = data
    table = pd.DataFrame(X, columns=list("uvwxyz"))
    pool = [reading([0, 1]), reading([2, 3])]
    by_name = MixtureClassifier(pool, threat=[["u", "v"], ["w"]], random_state=0).fit(table, y)
    by_number = MixtureClassifier(pool, threat=[[0, 1], [2]], random_state=0).fit(X, y)
    assert by_name.solution_.value == by_number.solution_.value
    with pytest.raises(mixsolve.MixsolveError, match="'q'; X has u, v"):
        MixtureClassifier(pool, threat=[["q"]]).fit(table, y)
    with pytest.raises(mixsolve.MixsolveError, match="no column names"):
        MixtureClassifier(pool, threat=[["u"]]).fit(X, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perturb": lambda *_: []}, "two attackers"),
        ({"loss": "margin"}, "loss='zero-one'"),
        ({"threat": "u"}, "groups of columns"),
        ({"threat": []}, "at least one set"),
        ({"threat": [[9]]}, "from 0 to 5"),
    ],
)
def test_what_cannot_be_used_is_refused(data, options, message):
    mixture = MixtureClassifier([reading([0])], **({"threat": [[0]]} | options))
    with pytest.raises(mixsolve.MixsolveError, match=message):
        mixture.fit(*data)


def test_certify_needs_a_threat(data):
    mixture = MixtureClassifier([reading([0])]).fit(*data)
    with pytest.raises(mixsolve.MixsolveError, match="adversarial_risk"):
        mixture.certify(*data)
