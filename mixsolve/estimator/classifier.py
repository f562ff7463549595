"""A random mixture as a scikit-learn classifier: fit chooses the weights, predict draws a member.

    fit       members f_k on one part of the data; the game's loss tensor on the other part,
              l_ijk = loss of f_k on attack candidate j of sample i; lam = argmin of its risk
    predict   k ~ lam, then f_k(x)

Weights are chosen on samples that the members were not fitted to. A member may fit its training
samples without error, as a deep tree does, and weights chosen there would reward overfitting. The
members are not refitted to all samples afterwards: the certificate holds for the members as they
are.

References
----------
Meunier, Scetbon, Pinot, Atif, Chevaleyre. Mixed Nash Equilibria in the Adversarial Examples Game.
ICML 2021, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixsolve.arrays.checks import check_sample_weight
from mixsolve.arrays.labels import matched
from mixsolve.base.arguments import as_count, as_real, check_flags
from mixsolve.base.errors import MissingDependencyError, MixsolveError, MixsolveTypeError
from mixsolve.estimator import member_losses
from mixsolve.estimator.perturbations import Perturbation
from mixsolve.estimator.pool import fit_member, generator, held_out, with_names, without_dropped
from mixsolve.estimator.reach import columns_read, threat_sets
from mixsolve.reach.certificate import ReachCertificate
from mixsolve.reach.losses import ReachLosses, reach_losses
from mixsolve.solver.solve import solve

try:
    from sklearn.base import ClassifierMixin
    from sklearn.utils.metaestimators import _BaseComposition
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_is_fitted,
        validate_data,
    )
except ImportError as error:
    raise MissingDependencyError(
        "MixtureClassifier needs scikit-learn 1.6 or newer, which is not installed; "
        "install it with: pip install 'mixsolve[sklearn]'"
    ) from error

_DRAWS = ("call", "sample")


class MixtureClassifier(ClassifierMixin, _BaseComposition):
    r"""The random mixture of scikit-learn classifiers that an attacker can hurt least.

    Parameters
    ----------
    estimators : list of (str, estimator) pairs, or list of estimators
        The pool. Pairs are named as for `sklearn.ensemble.VotingClassifier`: the parameters of a
        member are those of the mixture, ``name__parameter``, and ``"drop"`` in a member's place
        leaves it out. The members are cloned and fitted unless `prefit`.
    perturb : callable, optional
        The attack, ``perturb(estimators, X, y, rng)``: fitted members, samples (n, features), their
        classes and a `numpy.random.Generator`. It returns candidates, an array (candidates, n,
        features) or an iterable of arrays (n, features). The sample itself is always a candidate
        too. None for no attack. See `mixsolve.estimator.perturbations`.
    threat : sequence or mapping of column groups, optional
        Instead of `perturb`: sensors, as groups of columns by their numbers or names, of which the
        attacker forges one, or one fails. Members that do not read it are unharmed, whatever its
        values; those that read it count as wrong. The weights are then certified against all of
        this. What a member reads is known for pipelines that begin with a ``ColumnTransformer``
        or a feature selection, and for decision trees; any other member counts as reading all.
    alpha : float, default 0
        Entropic regularisation of `mixsolve.solve`, in the unit of the losses.
    loss : {"zero-one", "cross-entropy", "margin"}, default "zero-one"
        The loss that the weights minimise. The last two need members with ``predict_proba``.
    validation_fraction : float or None, default 0.2
        Share of the samples, of each class alike, that the weights are chosen on and that the
        members are not fitted to. None to use all samples for both, which favours members that
        overfit.
    prefit : bool, default False
        Whether the estimators are fitted already. They are then used as they are, and all samples
        given to `fit` choose the weights; give samples that the members were not fitted to. Clones,
        as in a grid search, are not fitted: wrap members in `sklearn.frozen.FrozenEstimator` for
        that, with ``validation_fraction=None``.
    draw : {"call", "sample"}, default "call"
        Whether `predict` draws one member a call or one for each sample.
    batch_size : int, default 1024
        Samples that are attacked at a time.
    solver_options : dict, optional
        Further keyword arguments of `mixsolve.solve`: ``{"tol": 1e-9}``, constraints, a time limit.
    random_state : int, RandomState, Generator or None, default None
        Source of the split, of the attack's draws and of the members that `predict` draws. With
        None each call of `predict` draws from the operating system, so that the member cannot be
        predicted. A number makes the draws repeatable, also for an attacker who knows it.

    Attributes
    ----------
    weights_ : ndarray of shape (L,)
        Probability of each member.
    solution_ : Solution
        The game's solution on the samples of `validation_indices_`: certificate, attacker's
        strategy, status.
    estimators_ : list of L estimators
        The fitted members.
    named_estimators_ : dict of str to estimator
        The same by name.
    classes_ : ndarray
        All labels that a member may give.
    reads_ : ndarray of shape (L, n_features_in_), bool
        Which columns each member reads; only with `threat`.
    validation_indices_ : ndarray of int
        The rows of X that the weights were chosen on.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Their names, if X had names.

    See Also
    --------
    mixsolve.solve : The solver behind it.

    Notes
    -----
    X is an array of numbers or a table of them; sparse matrices and missing values are refused.
    `predict` is random, so that two calls may differ; `score` is the expectation.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from mixsolve import MixtureClassifier
    >>> from mixsolve.estimator.perturbations import UniformBall
    >>> X, y = make_blobs(120, centers=3, cluster_std=2.0, random_state=0)
    >>> pool = [("tree", DecisionTreeClassifier(random_state=0)), ("bayes", GaussianNB())]
    >>> mixture = MixtureClassifier(pool, perturb=UniformBall("L2", 0.5), random_state=0)
    >>> mixture.fit(X, y).solution_.success
    True
    """

    def __init__(
        self,
        estimators: Sequence[Any],
        *,
        perturb: Perturbation | None = None,
        threat: Any = None,
        alpha: float = 0.0,
        loss: str = "zero-one",
        validation_fraction: float | None = 0.2,
        prefit: bool = False,
        draw: str = "call",
        batch_size: int = 1024,
        solver_options: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.estimators = estimators
        self.perturb = perturb
        self.threat = threat
        self.alpha = alpha
        self.loss = loss
        self.validation_fraction = validation_fraction
        self.prefit = prefit
        self.draw = draw
        self.batch_size = batch_size
        self.solver_options = solver_options
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MixtureClassifier:
        """Fit the members, attack them, and choose the weights.

        Parameters
        ----------
        X : array-like of shape (N, features)
            Samples.
        y : array-like of shape (N,)
            Their labels.
        sample_weight : array-like of shape (N,), optional
            Weights of the samples, for the members and in the game.

        Returns
        -------
        MixtureClassifier
            Itself.

        Raises
        ------
        MixsolveError
            A parameter out of its range, members that cannot give the loss, candidates of a wrong
            shape.
        """
        pool = self._check()
        y, sample_weight = _matched(X, y, sample_weight)
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        split, attack, draws = generator(self.random_state).spawn(3)
        seen, held = np.arange(len(y)), np.arange(len(y))
        if not self.prefit and self.validation_fraction is not None:
            seen, held = held_out(y, self.validation_fraction, split)
        if self.prefit:
            members = [member for _, member in pool]
            for member in members:
                check_is_fitted(member)
        else:
            # Members that select columns by name get the names of X, and each gets a copy, since it
            # may scale columns in place.
            members = [
                fit_member(
                    name,
                    member,
                    member_losses.as_fitted(self, X[seen]),
                    y[seen],
                    None if weight is None else weight[seen],
                )
                for name, member in pool
            ]
        self.estimators_ = members
        self.named_estimators_ = dict(zip((name for name, _ in pool), members, strict=True))
        self.classes_ = np.unique(np.concatenate([member.classes_ for member in members]))
        self._check_losses(pool, y)
        if self.threat is not None:
            self.reads_ = np.stack([columns_read(own, self.n_features_in_) for own in members])
        self.validation_indices_ = held
        self.solution_ = solve(
            self._losses(X[held], y[held], attack),
            self.alpha,
            sample_weight=None if weight is None else weight[held],
            **(self.solver_options or {}),
        )
        if not np.isfinite(self.solution_.weights).all():
            self.solution_.raise_for_status()
        self.weights_ = self.solution_.weights
        self._draws = None if self.random_state is None else draws
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Classify with a member drawn by the weights, or one drawn for each sample.

        Parameters
        ----------
        X : array-like of shape (n, features)
            Samples.

        Returns
        -------
        ndarray of shape (n,)
            Labels, which depend on the member drawn.
        """
        X = self._checked(X)
        # A generator made for one call cannot be copied or forked with its state.
        rng = np.random.default_rng() if self._draws is None else self._draws
        count = 1 if self.draw == "call" else len(X)
        drawn = np.broadcast_to(rng.choice(len(self.weights_), count, p=self.weights_), len(X))
        labels = np.empty(len(X), dtype=np.intp)
        for k in np.unique(drawn):
            own = drawn == k
            labels[own] = member_losses.votes(self.estimators_[k], X[own], self.classes_)
        return self.classes_[labels]

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the expected class probabilities, the mixture of the members' ones.

        A member without ``predict_proba`` gives probability 1 to the label that it predicts. The
        label that `predict` returns has the distribution `vote_proba`, which is another one unless
        no member has ``predict_proba``.

        Parameters
        ----------
        X : array-like of shape (n, features)
            Samples.

        Returns
        -------
        ndarray of shape (n, classes)
            ``sum_k weights_k p_k(x)``, columns as in `classes_`.
        """
        return self._mix(
            X,
            lambda member, *rest: (
                member_losses.probabilities(member, *rest)
                if hasattr(member, "predict_proba")
                else member_losses.one_hot(member, *rest)
            ),
        )

    def vote_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability that `predict` returns each label.

        Parameters
        ----------
        X : array-like of shape (n, features)
            Samples.

        Returns
        -------
        ndarray of shape (n, classes)
            The weight of the members that predict each class, columns as in `classes_`.
        """
        return self._mix(X, member_losses.one_hot)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the expected accuracy: the mean accuracy of `predict` over its draws.

        It is deterministic, so that a grid search can compare mixtures by it. A scorer by name,
        ``scoring="accuracy"``, calls `predict` and measures one draw.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`; the samples are not attacked.

        Returns
        -------
        float
            ``mean_i sum_k weights_k [f_k(x_i) = y_i]``.
        """
        y, sample_weight = _matched(X, y, sample_weight)
        votes = self.vote_proba(X)
        right = (np.asarray(y)[:, None] == self.classes_) * votes
        weights = None if sample_weight is None else check_sample_weight(sample_weight, len(right))
        return float(np.average(right.sum(axis=1), weights=weights))

    def candidate_losses(self, X: Any, y: Any, *, random_state: Any = 0) -> NDArray[Any]:
        """Attack other samples and return the losses of the members, the tensor of their game.

        Parameters
        ----------
        X, y
            As in `fit`.
        random_state : int, RandomState, Generator or None, default 0
            Source of the attack's draws; equal calls have equal results by default.

        Returns
        -------
        ndarray of shape (n, candidates, L)
            Losses, what `mixsolve.solve` takes; candidate 0 is the sample itself. With `threat`, a
            candidate is a set of members that a sensor takes out.
        """
        check_is_fitted(self, "weights_")
        y, _ = _matched(X, y, None)
        X, y = validate_data(self, X, y, reset=False)
        return self._losses(X, y, generator(random_state))

    def adversarial_risk(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        random_state: Any = 0,
    ) -> float:
        """Return the expected loss of each sample's worst candidate, averaged over samples.

        Parameters
        ----------
        X, y, sample_weight, random_state
            As in `fit` and `candidate_losses`.

        Returns
        -------
        float
            ``mean_i max_j sum_k weights_k loss(f_k(x_ij), y_i)``, for the `loss` of the mixture.
        """
        _, sample_weight = _matched(X, y, sample_weight)
        worst = (self.candidate_losses(X, y, random_state=random_state) @ self.weights_).max(axis=1)
        weights = None if sample_weight is None else check_sample_weight(sample_weight, len(worst))
        return float(np.average(worst, weights=weights))

    def certify(self, X: Any, y: Any, *, level: float = 0.95) -> ReachCertificate:
        """Certify the mixture on other samples against the sensors of `threat`.

        Parameters
        ----------
        X, y
            As in `fit`; samples that neither members nor weights have seen.
        level : float, default 0.95
            Coverage of the intervals, at least.

        Returns
        -------
        ReachCertificate
            Its `certified` is the expected accuracy that no values of one sensor push it below.

        Raises
        ------
        MixsolveError
            A mixture without `threat`.
        """
        check_is_fitted(self, "weights_")
        if self.threat is None:
            raise MixsolveError(
                "certify needs a mixture with a threat, MixtureClassifier(..., threat=groups); "
                "against other attacks see adversarial_risk"
            )
        y, _ = _matched(X, y, None)
        X, y = validate_data(self, X, y, reset=False)
        return self._reach(X, y).certify(self.weights_, level=level)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters and, with `deep`, the named members and their parameters."""
        return self._get_params("estimators", deep=deep)

    def set_params(self, **params: Any) -> MixtureClassifier:
        """Set parameters, members by name, and members' parameters, as `get_params` names them."""
        self._set_params("estimators", **params)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True
        return tags

    def _check(self) -> list[tuple[str, Any]]:
        """Check the parameters and return the members by name, without dropped ones."""
        if self.loss not in member_losses.LOSSES:
            names = ", ".join(map(repr, member_losses.LOSSES))
            raise MixsolveError(f"loss must be one of {names}; got {self.loss!r}")
        if self.draw not in _DRAWS:
            raise MixsolveError(
                f"draw must be one of {', '.join(map(repr, _DRAWS))}; got {self.draw!r}"
            )
        if self.perturb is not None and not callable(self.perturb):
            raise MixsolveTypeError(
                "perturb must be a function of (estimators, X, y, rng) or None; got "
                f"{type(self.perturb).__name__}"
            )
        if self.threat is not None and self.perturb is not None:
            raise MixsolveError("threat and perturb are two attackers; give one of them")
        if self.threat is not None and self.loss != "zero-one":
            raise MixsolveError(f"threat needs loss='zero-one'; got {self.loss!r}")
        if self.validation_fraction is not None:
            as_real("validation_fraction", self.validation_fraction, above=0, below=1)
        as_count("batch_size", self.batch_size)
        check_flags(prefit=self.prefit)
        pool = with_names(self.estimators)
        self._validate_names([name for name, _ in pool])
        return without_dropped(pool)

    def _check_losses(self, pool: Sequence[tuple[str, Any]], y: NDArray[Any]) -> None:
        """Refuse members that cannot give the loss, and labels that no member knows."""
        if self.loss != "zero-one":
            for name, member in pool:
                if not hasattr(self.named_estimators_[name], "predict_proba"):
                    raise MixsolveError(
                        f"loss {self.loss!r} needs probabilities, and {name!r} "
                        f"({type(member).__name__}) has no predict_proba; wrap it in "
                        "sklearn.calibration.CalibratedClassifierCV, or use loss='zero-one'"
                    )
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise MixsolveError(
                f"y must hold labels that the members know, {self.classes_.tolist()}; got "
                f"{unknown[0]!r}"
            )

    def _checked(self, X: Any) -> NDArray[Any]:
        check_is_fitted(self, "weights_")
        return validate_data(self, X, reset=False)

    def _losses(self, X: NDArray[Any], y: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        if self.threat is not None:
            return self._reach(X, y).values
        return member_losses.build_member_losses(
            self.estimators_,
            self.classes_,
            X,
            y,
            perturb=self.perturb,
            loss=self.loss,
            rng=rng,
            batch_size=self.batch_size,
        )

    def _reach(self, X: NDArray[Any], y: NDArray[Any]) -> ReachLosses:
        """Return the losses of the members against the sensors of `threat`."""
        said = [member_losses.votes(own, X, self.classes_) for own in self.estimators_]
        names = getattr(self, "feature_names_in_", None)
        sets = threat_sets(self.threat, names, self.n_features_in_)
        return reach_losses(self.classes_[np.stack(said, axis=1)], y, self.reads_, sets)

    def _mix(self, X: Any, table: Any) -> NDArray[np.float64]:
        """Return the expectation over members of their tables (n, classes)."""
        X = self._checked(X)
        mixed = np.zeros((len(X), len(self.classes_)))
        for weight, member in zip(self.weights_, self.estimators_, strict=True):
            if weight > 0:
                mixed += weight * table(member, X, self.classes_)
        return mixed


def _matched(X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
    """Return labels and weights in the order of the samples, where all name their rows."""
    y = matched(X, y, "X", "y")
    return y, matched(X, sample_weight, "X", "sample_weight")
