"""The mixture as a scikit-learn classifier: its weights are the game's, its draws its own."""

import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest
from corpus import seeds
from scipy.stats import chisquare
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

import mixsolve
from mixsolve import ConvergenceWarning, MixsolveError, MixsolveTypeError, MixtureClassifier
from mixsolve.estimator.perturbations import UniformBall

# What the checks ask that a random classifier with a validation part cannot give.
EXEMPT = {
    "check_classifiers_train": "predict draws a member, and need not give the likeliest class",
    "check_sample_weight_equivalence_on_dense_data": (
        "a sample of weight 2 is held out or not, two samples may be parted"
    ),
}


class ScalesInPlace(StandardScaler):
    """Writes into what it is given, as `StandardScaler(copy=False)` does and worse."""

    def fit(self, X, y=None, sample_weight=None):
        super().fit(X, y, sample_weight)
        X[...] = np.nan
        return self

    def fit_transform(self, X, y=None, **options):
        kept = X.copy()
        return self.fit(X, y).transform(kept)

    def transform(self, X, copy=None):
        scaled = super().transform(X, copy=True)
        X[...] = np.nan
        return scaled


def axis_moves(estimators, X, y, rng):
    """Move each sample by 0.7 along each feature, both ways: an attack without randomness."""
    for feature, step in itertools.product(range(X.shape[1]), (-0.7, 0.7)):
        moved = X.copy()
        moved[:, feature] += step
        yield moved


@pytest.fixture(scope="module")
def data():
    return make_classification(
        150, 4, n_informative=4, n_redundant=0, n_classes=3, class_sep=1.0,
        n_clusters_per_class=1, random_state=1,
    )  # fmt: skip


def pool():
    return [
        ("linear", LogisticRegression()),
        ("tree", DecisionTreeClassifier(max_depth=3, random_state=0)),
        ("bayes", GaussianNB()),
    ]


@pytest.fixture(scope="module")
def fitted(data):
    """Members that look at different features, so that no attack fools all of them."""
    views = [[0, 1], [2, 3], [0, 3]]
    return [
        (name, make_pipeline(ColumnTransformer([("view", "passthrough", view)]), member).fit(*data))
        for view, (name, member) in zip(views, pool(), strict=True)
    ]


def constant(*labels):
    """Fitted members that give one label each."""
    X = np.zeros((3, 1))
    return [
        (f"always{label}", DummyClassifier(strategy="constant", constant=label).fit(X, [0, 1, 2]))
        for label in labels
    ]


def with_weights(members, weights, **options):
    """A mixture of `members` of given weights: what predict does with them is what is asked."""
    mixture = MixtureClassifier(members, prefit=True, **options).fit(np.zeros((3, 1)), [0, 1, 2])
    mixture.weights_ = np.asarray(weights)
    return mixture


def losses_by_hand(name, member, points, labels):
    if name == "zero-one":
        return [
            float(said != label) for said, label in zip(member.predict(points), labels, strict=True)
        ]
    losses = []
    for row, label in zip(member.predict_proba(points), labels, strict=True):
        chances = dict(zip(member.classes_, row, strict=True))
        own = chances.pop(label)
        if name == "cross-entropy":
            losses.append(-np.log(max(own, np.finfo(float).eps)))
        else:
            losses.append((1 - (own - max(chances.values()))) / 2)
    return losses


@pytest.mark.parametrize("options", [{"validation_fraction": None}, {"random_state": 0}])
def test_what_scikit_learn_asks_of_estimators(options):
    exempt = {} if options == {"validation_fraction": None} else EXEMPT
    mixture = MixtureClassifier(pool()[1:], **options)  # dozens of fits: without the slow member
    results = check_estimator(mixture, expected_failed_checks=exempt, on_skip=None)
    assert sum(result["status"] == "passed" for result in results) > 40
    # An exemption that is not needed is not to stand here.
    assert {r["check_name"] for r in results if r["status"] == "xfail"} == set(exempt)


@pytest.mark.parametrize(
    ("loss", "alpha"),
    seeds(
        [
            *(("zero-one", 0.0), ("cross-entropy", 0.1), ("margin", 0.0)),
            *(("zero-one", 0.1), ("cross-entropy", 0.0), ("margin", 0.1)),
        ],
        quick=3,
    ),
)
def test_weights_are_those_of_the_tensor_made_by_hand(data, fitted, loss, alpha):
    X, y = data[0][:40], data[1][:40]
    weight = np.linspace(0.0, 2.0, 40)
    losses = np.empty((40, 9, 3))
    for j, points in enumerate([X, *axis_moves(None, X, y, None)]):
        for k, (_, member) in enumerate(fitted):
            losses[:, j, k] = losses_by_hand(loss, member, points, y)
    expected = mixsolve.solve(losses, alpha, sample_weight=weight, tol=1e-9)
    mixture = MixtureClassifier(
        fitted, perturb=axis_moves, alpha=alpha, loss=loss, prefit=True, batch_size=7,
        solver_options={"tol": 1e-9},
    ).fit(X, y, weight)  # fmt: skip
    np.testing.assert_allclose(mixture.weights_, expected.weights, atol=1e-6)
    assert mixture.solution_.risk == pytest.approx(expected.risk, abs=1e-8)
    assert mixture.solution_.success
    assert (mixture.weights_ > 1e-3).sum() > 1  # a mixture, not a choice
    np.testing.assert_allclose(mixture.candidate_losses(X, y), losses, atol=1e-9)
    risk = mixture.adversarial_risk(X, y, sample_weight=weight)
    assert risk == pytest.approx(expected.risk, abs=1e-8)


def test_an_array_of_candidates_does_as_well(data, fitted):
    X, y = data

    def at_once(estimators, X, y, rng):
        assert [type(member) for member in estimators] == [type(member) for _, member in fitted]
        moves = np.array(list(axis_moves(estimators, X, y, rng)))
        X[:], y[:] = 0, 0  # its own copies
        return moves

    a = MixtureClassifier(fitted, perturb=axis_moves, loss="margin", prefit=True).fit(X, y)
    b = MixtureClassifier(fitted, perturb=at_once, loss="margin", prefit=True).fit(X, y)
    np.testing.assert_array_equal(a.weights_, b.weights_)


class Remembers(DecisionTreeClassifier):
    """A tree that keeps what it was fitted to."""

    def fit(self, X, y, sample_weight=None):
        self.seen_ = X.copy(), None if sample_weight is None else sample_weight.copy()
        return super().fit(X, y, sample_weight)


def test_weights_are_chosen_on_samples_that_members_have_not_seen(data):
    X, y = data
    weight = np.arange(1.0, 151.0)
    members = [("tree", Remembers(random_state=0)), ("bayes", GaussianNB())]
    mixture = MixtureClassifier(members, perturb=axis_moves, random_state=1).fit(X, y, weight)
    held = mixture.validation_indices_
    rest = np.setdiff1d(np.arange(150), held)
    np.testing.assert_array_equal(mixture.estimators_[0].seen_[0], X[rest])
    np.testing.assert_array_equal(mixture.estimators_[0].seen_[1], weight[rest])
    assert len(held) == 30
    assert np.abs(np.bincount(y[held]) - 0.2 * np.bincount(y)).max() < 1
    assert not hasattr(members[0][1], "seen_")  # clones were fitted
    expected = mixsolve.solve(
        mixture.candidate_losses(X[held], y[held]), sample_weight=weight[held]
    )
    np.testing.assert_array_equal(mixture.weights_, expected.weights)


def test_a_member_that_knows_its_samples_by_heart_is_not_taken_at_its_word(rng):
    X = rng.standard_normal((200, 2))
    y = (X[:, 0] > 0) ^ (rng.random(200) < 0.3)
    members = [("heart", KNeighborsClassifier(1)), ("rule", LogisticRegression())]
    naive = MixtureClassifier(members, validation_fraction=None).fit(X, y)
    assert naive.solution_.risk == 0
    assert naive.weights_[0] == pytest.approx(1)
    honest = MixtureClassifier(members, validation_fraction=0.4, random_state=0).fit(X, y)
    assert honest.weights_[1] == pytest.approx(1)
    assert honest.solution_.risk > 0.2


@pytest.mark.filterwarnings("ignore:The number of unique classes:UserWarning")
def test_small_classes_are_split_fairly_and_never_lost():
    y = np.repeat(np.arange(20), [2] * 10 + [1] * 10)
    X = np.arange(30.0)[:, None]
    mixture = MixtureClassifier([("knn", KNeighborsClassifier(1))], random_state=0).fit(X, y)
    assert len(mixture.classes_) == 20
    assert len(mixture.validation_indices_) == 4  # a fifth of the 20 that have a twin
    with pytest.raises(MixsolveError, match=r"0\.2 of 10 samples .* 10 classes holds out none"):
        MixtureClassifier([GaussianNB()]).fit(X[:10], np.arange(10))


def test_predict_draws_one_member_a_call_by_the_weights():
    members = constant(0, 1, 2)
    mixture = with_weights(members, [0.2, 0.0, 0.8], random_state=5)
    calls = [mixture.predict(np.zeros((4, 1))) for _ in range(1000)]
    assert all(len(set(call)) == 1 for call in calls)
    counts = np.bincount([call[0] for call in calls], minlength=3)
    assert counts[1] == 0
    assert chisquare(counts[[0, 2]], [200, 800]).pvalue > 1e-3
    again = with_weights(members, [0.2, 0.0, 0.8], random_state=5)
    assert [again.predict(np.zeros((1, 1)))[0] for _ in range(1000)] == [c[0] for c in calls]


def test_predict_draws_one_member_a_sample_if_asked():
    mixture = with_weights(constant(0, 1, 2), [0.2, 0.3, 0.5], draw="sample", random_state=5)
    counts = np.bincount(mixture.predict(np.zeros((2000, 1))))
    assert chisquare(counts, [400, 600, 1000]).pvalue > 1e-3


@pytest.fixture
def legacy():
    """NumPy's global generator in a known state, which no test leaves to others."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    yield lambda: np.random.get_state()[1:3]  # noqa: NPY002
    np.random.set_state(state)  # noqa: NPY002


def test_unseeded_draws_come_from_nothing_that_can_be_seeded_or_copied(legacy):
    mixture = with_weights(constant(0, 1), [0.5, 0.5], draw="sample")
    X = np.zeros((128, 1))
    words, position = legacy()
    first = mixture.predict(X)
    copy = pickle.loads(pickle.dumps(mixture))
    second = mixture.predict(X)
    assert not np.array_equal(first, second)
    assert not np.array_equal(copy.predict(X), second)
    np.testing.assert_array_equal(legacy()[0], words)
    assert legacy()[1] == position


def test_seeded_draws_go_on_where_a_pickle_was_taken():
    mixture = with_weights(constant(0, 1), [0.5, 0.5], draw="sample", random_state=0)
    X = np.zeros((128, 1))
    first = mixture.predict(X)
    copy = pickle.loads(pickle.dumps(mixture))
    second = mixture.predict(X)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(copy.predict(X), second)
    for seed in (np.random.RandomState(0), np.random.default_rng(0)):
        other = with_weights(constant(0, 1), [0.5, 0.5], draw="sample", random_state=seed)
        assert len(set(other.predict(X))) == 2


def test_probabilities_and_score_are_expectations(data):
    X, y = data
    members = [("svm", LinearSVC()), ("bayes", GaussianNB()), ("tree", DecisionTreeClassifier())]
    members = [(name, member.fit(X[:75], y[:75])) for name, member in members]
    mixture = MixtureClassifier(members, prefit=True).fit(X, y)
    mixture.weights_ = np.array([0.5, 0.3, 0.2])
    svm, bayes, tree = mixture.estimators_
    votes = [np.eye(3)[member.predict(X)] for member in mixture.estimators_]
    expected = 0.5 * votes[0] + 0.3 * bayes.predict_proba(X) + 0.2 * tree.predict_proba(X)
    np.testing.assert_allclose(mixture.predict_proba(X), expected)
    np.testing.assert_allclose(
        mixture.vote_proba(X), sum(w * v for w, v in zip((0.5, 0.3, 0.2), votes, strict=True))
    )
    weight = np.arange(150.0)
    expected = sum(
        w * member.score(X, y, weight)
        for w, member in zip((0.5, 0.3, 0.2), mixture.estimators_, strict=True)
    )
    assert mixture.score(X, y, weight) == pytest.approx(expected)
    assert mixture.score(X, y + 7) == 0
    assert svm is mixture.named_estimators_["svm"]


def test_members_may_know_other_classes():
    X = np.arange(6.0)[:, None]
    y = np.array(["a", "a", "b", "b", "long", "long"])
    left = KNeighborsClassifier(1).fit(X[:4], y[:4])
    right = KNeighborsClassifier(1).fit(X[2:], y[2:])
    mixture = MixtureClassifier([left, right], prefit=True, loss="cross-entropy").fit(X, y)
    assert mixture.classes_.tolist() == ["a", "b", "long"]
    assert list(mixture.named_estimators_) == ["kneighborsclassifier-0", "kneighborsclassifier-1"]
    mixture.weights_ = np.array([0.25, 0.75])
    np.testing.assert_allclose(mixture.predict_proba(X[[0, 5]]), [[0.25, 0.75, 0], [0, 0.25, 0.75]])
    assert set(mixture.predict(X[5:])) <= {"b", "long"}
    losses = mixture.candidate_losses(X, y)[:, 0]
    unsaid = -np.log(np.finfo(float).eps)
    np.testing.assert_allclose(losses, [[0, unsaid]] * 2 + [[0, 0]] * 2 + [[unsaid, 0]] * 2)


@pytest.mark.parametrize("fraction", [0.3, None])
@pytest.mark.parametrize("scaler", [ScalesInPlace, lambda: StandardScaler(copy=False)])
def test_members_that_scale_in_place_do_it_for_themselves_alone(data, fraction, scaler):
    X, y = data
    before = X.copy()
    fitted = [
        MixtureClassifier(
            [make_pipeline(make(), member) for member in (LinearSVC(), GaussianNB())]
            + [DecisionTreeClassifier(max_depth=3, random_state=0)],
            perturb=axis_moves,
            validation_fraction=fraction,
            random_state=0,
        ).fit(X, y)
        for make in (scaler, StandardScaler)
    ]
    assert np.array_equal(X, before)
    assert np.array_equal(fitted[0].weights_, fitted[1].weights_)
    assert fitted[0].solution_.value == fitted[1].solution_.value
    losses = [each.candidate_losses(X, y) for each in fitted]
    assert np.array_equal(*losses)
    assert fitted[0].adversarial_risk(X, y) == fitted[1].adversarial_risk(X, y)
    assert np.array_equal(fitted[0].vote_proba(X), fitted[1].vote_proba(X))
    assert np.array_equal(fitted[0].predict(X), fitted[1].predict(X))
    assert np.array_equal(X, before)


def test_a_perturbation_may_write_into_all_it_is_given(data):
    def writes(estimators, X, y, rng):
        point = X.copy()
        for moved in axis_moves(estimators, X.copy(), y, rng):
            X[...], y[...] = np.nan, 0
            estimators.clear()
            point[...] = moved
            yield point

    X, y = data
    before = X.copy(), y.copy()
    pool = [GaussianNB(), DecisionTreeClassifier(max_depth=3, random_state=0)]
    fitted = [
        MixtureClassifier(pool, perturb=perturb, random_state=0).fit(X, y)
        for perturb in (writes, axis_moves)
    ]
    assert len(fitted[0].estimators_) == 2
    assert np.array_equal(fitted[0].weights_, fitted[1].weights_)
    losses = [each.candidate_losses(X, y) for each in fitted]
    assert np.array_equal(*losses)
    assert np.array_equal(X, before[0])
    assert np.array_equal(y, before[1])


def test_parameters_reach_members(data):
    mixture = MixtureClassifier(pool(), perturb=UniformBall("L2", 0.1), random_state=0)
    assert mixture.get_params()["tree__max_depth"] == 3
    assert mixture.set_params(tree__max_depth=2, alpha=0.5, bayes="drop") is mixture
    copy = clone(mixture)
    assert copy.alpha == 0.5
    assert copy.get_params()["tree__max_depth"] == 2
    copy.fit(*data)
    assert list(copy.named_estimators_) == ["linear", "tree"]
    assert copy.estimators_[1].get_depth() == 2
    assert "UniformBall" in repr(copy)


def test_pipelines_and_searches(data):
    X, y = data
    members = [("linear", make_pipeline(StandardScaler(), LogisticRegression())), *pool()[1:]]
    mixture = MixtureClassifier(members, perturb=axis_moves, random_state=0)
    whole = make_pipeline(StandardScaler(), mixture).fit(X, y)
    assert whole.score(X, y) > 0.5
    search = GridSearchCV(mixture, {"tree__max_depth": [1, 4], "alpha": [0.0, 0.1]}, cv=2)
    assert search.fit(X, y).best_score_ > 0.5
    pickle.loads(pickle.dumps(search)).predict(X)
    frozen = [(name, FrozenEstimator(member.fit(X, y))) for name, member in pool()]
    one = MixtureClassifier(frozen, perturb=axis_moves, validation_fraction=None)
    two = MixtureClassifier(pool(), perturb=axis_moves, validation_fraction=None)
    np.testing.assert_array_equal(clone(one).fit(X, y).weights_, two.fit(X, y).weights_)


@pytest.mark.filterwarnings("error:X does not have valid feature names")
def test_members_that_pick_columns_by_name(data):
    pandas = pytest.importorskip("pandas")
    X, y = data
    table = pandas.DataFrame(X, columns=["p", "q", "r", "s"])
    picks = ColumnTransformer([("keep", FunctionTransformer(), ["r", "p"])])
    members = [("picks", make_pipeline(picks, LogisticRegression())), ("bayes", GaussianNB())]
    mixture = MixtureClassifier(members, perturb=axis_moves).fit(table, y)
    assert mixture.feature_names_in_.tolist() == ["p", "q", "r", "s"]
    assert mixture.score(table, y) > 0.4
    with pytest.raises(ValueError, match="feature names should match"):
        mixture.predict(table[["q", "p", "r", "s"]])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"estimators": []}, MixsolveError, r"estimators must be a non-empty list.*got \[\]"),
        ({"estimators": [3]}, MixsolveTypeError, r"estimators\[0\] must be a \(name.*got 3"),
        ({"estimators": [("a", "drop")]}, MixsolveError, "at least one classifier; all 1"),
        ({"estimators": [LinearRegression()]}, MixsolveTypeError, "classifiers; 'linearreg"),
        ({"estimators": [("a", GaussianNB())] * 2}, ValueError, "not unique"),
        ({"loss": "log"}, MixsolveError, "loss must be one of 'zero-one', .*got 'log'"),
        ({"draw": "never"}, MixsolveError, "draw must be one of 'call', 'sample'; got 'never'"),
        ({"perturb": 3}, MixsolveTypeError, "perturb must be a function of .*got int"),
        ({"validation_fraction": 1.0}, MixsolveError, "validation_fraction .* < 1, got 1.0"),
        ({"batch_size": 0}, MixsolveError, "batch_size must be an integer >= 1, got 0"),
        ({"random_state": "now"}, MixsolveTypeError, "random_state must be .*got str"),
        ({"prefit": True}, ValueError, "not fitted"),
        ({"perturb": lambda *_: 3}, MixsolveTypeError, "perturb must return candidates.*got int"),
        (
            {"perturb": lambda estimators, X, y, rng: X},
            MixsolveError,
            r"perturb .* \(30, 4\); got \(4,\) for candidate 0; the axes are",
        ),
        (
            {"perturb": lambda estimators, X, y, rng: [X] * len(X), "batch_size": 20},
            MixsolveError,
            "as many candidates for every block.* 20 for the first one, 10 .* sample 20 on",
        ),
        (
            {"estimators": [("svm", LinearSVC())], "loss": "margin"},
            MixsolveError,
            r"loss 'margin' needs .*'svm' \(LinearSVC\) has no predict_proba; wrap it",
        ),
        ({"solver_options": {"tol": -1}}, MixsolveError, "tol must be"),
    ],
)
def test_what_cannot_be_used_is_refused(data, options, error, message):
    with pytest.raises(error, match=message):
        MixtureClassifier(**{"estimators": pool(), **options}).fit(*data)


def test_constraints_reach_the_solver(data, fitted):
    def at_most(share):
        return {"constraints": lambda weights: [weights[0] <= share]}

    mixture = MixtureClassifier(fitted, prefit=True, perturb=axis_moves, loss="margin")
    assert mixture.fit(*data).weights_[0] > 0.6
    mixture.set_params(solver_options=at_most(0.25)).fit(*data)
    assert mixture.weights_[0] == pytest.approx(0.25, abs=1e-5)
    mixture = clone(MixtureClassifier(pool(), solver_options=at_most(-1.0)))
    with (
        pytest.warns(ConvergenceWarning, match="no weights on the simplex"),
        pytest.raises(MixsolveError, match="no weights on the simplex"),
    ):
        mixture.fit(*data)
    with pytest.raises(NotFittedError):
        mixture.predict(data[0])


def test_weights_and_labels_that_members_cannot_take(data, fitted):
    X, y = data
    members = [("knn", KNeighborsClassifier())]
    with pytest.raises(MixsolveTypeError, match=r"'knn' \(KNeighborsClassifier\) takes none"):
        MixtureClassifier(members).fit(X, y, np.ones(150))
    with pytest.raises(MixsolveError, match=r"labels that the members know, \[0, 1, 2\]; got .*3"):
        MixtureClassifier(fitted, prefit=True).fit(X, y + 1)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_uniform_draws(norm, rng):
    X = np.zeros((4000, 3))
    near, other = UniformBall(norm, 0.5, draws=2)([], X, None, rng)
    assert not np.array_equal(near, other)
    size = np.linalg.norm(near, axis=1, ord={"Linf": np.inf, "L2": 2, "L1": 1}[norm])
    assert size.max() <= 0.5
    # The share of the ball within r is (r / eps)^3; 2.7 is the 1e-6 quantile of sqrt(n) D.
    shares = np.arange(1, 4001) / 4000 - np.sort(size / 0.5) ** 3
    assert np.abs(shares).max() * np.sqrt(4000) < 2.7
    assert np.abs(near.mean(axis=0)).max() < 0.02
    (inside,) = UniformBall(norm, 0.5, draws=1, low=-0.1, high=0.2)([], X, None, rng)
    assert (inside.min(), inside.max()) == (-0.1, 0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "L3"}, "norm must be 'Linf', 'L2' or 'L1'; got 'L3'"),
        ({"eps": -1}, "eps must be"),
        ({"draws": 0}, "draws must be"),
        ({"low": np.nan}, "low must be"),
        ({"low": 1.0, "high": 0.0}, "low must be at most high"),
    ],
)
def test_balls_that_are_none(arguments, message):
    with pytest.raises(MixsolveError, match=message):
        UniformBall(**{"norm": "L2", "eps": 1.0, **arguments})


def test_without_scikit_learn_the_error_says_how_to_get_it():
    script = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from mixsolve import *\n"
        "import mixsolve\n"
        "assert mixsolve.perturbations.UniformBall and 'MixtureClassifier' in dir(mixsolve)\n"
        "try: mixsolve.MixtureClassifier\n"
        "except mixsolve.MissingDependencyError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pip install 'mixsolve[sklearn]'" in done.stdout, done.stderr
