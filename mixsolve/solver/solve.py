"""`solve` and `solve_path`: check the game, run a method, certify from the raw tensor."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mixsolve.base.arguments import as_count
from mixsolve.methods.stopping import State
from mixsolve.solver import validation
from mixsolve.solver.certificate import finish, infeasible
from mixsolve.solver.request import OpenGame, Options, check
from mixsolve.solver.solution import Solution


def solve(
    losses: Any,
    alpha: Any = 0.0,
    *,
    method: str = "auto",
    sample_weight: Any = None,
    candidate_mask: Any = None,
    candidate_prior: Any = None,
    constraints: Any = None,
    A_ub: Any = None,
    b_ub: Any = None,
    A_eq: Any = None,
    b_eq: Any = None,
    max_models: int | None = None,
    groups: Any = None,
    group_weight: Any = None,
    tail: float | None = None,
    alpha_groups: float | None = None,
    tol: float = 1e-6,
    max_iter: int | None = None,
    time_limit: float | None = None,
    warm_start: Any = None,
    callback: Callable[[State], object] | None = None,
    verbose: bool = False,
    presolve: bool = True,
    names: Any = None,
) -> Solution:
    r"""Find the random mixture of classifiers that an attacker can hurt least, with a certificate.

    With N samples, m candidates a sample and L classifiers, minimise over lam in the simplex

    .. math::
        \sum_i w_i \max_j \langle \lambda, l_{ij} \rangle  \quad (\alpha = 0), \qquad
        \sum_i w_i \alpha_i \log \sum_j p_{ij} e^{\langle \lambda, l_{ij} \rangle / \alpha_i}
        \quad (\alpha > 0).

    Parameters
    ----------
    losses : array_like of shape (N, m, L), list of N arrays (m_i, L), dict of arrays, or (N, L)
        ``losses[i, j, k]`` is the loss of classifier k on attack candidate j of sample i: real or
        boolean, from NumPy (memory maps too), PyTorch, JAX, CuPy, Dask, Zarr, h5py, DLPack,
        ``__array__`` or nested lists. Never modified; copied whole only below 16 MB, where its
        layout or type is not one that the kernels read. A larger CUDA tensor is solved on its
        device. Axes, samples, candidates and classifiers that pandas, polars, xarray or a file
        names are found by name, here and in the other arguments; where names contradict each other
        they are refused (see `mixsolve.arrays.labels`). A DataFrame whose index has two levels,
        sample and candidate, and whose columns are the classifiers, may leave out candidates of
        some samples. A dictionary holds an array (N, m) for each classifier, by its name. Two axes
        are one candidate a sample: the (N, L) losses on clean images, say. Also what
        ``mixsolve_torch.build_losses`` returns, and `Losses`, which bring an engine of their own:
        ``mixsolve_torch.TorchLosses(tensor)``.
    alpha : float or array_like of shape (N,), default 0
        Entropic regularisation, in the unit of the losses: 0 for the exact problem, or positive.
    method : str, default "auto"
        "lp", "interior-point" (all candidates at once), "oracle" (Algorithm 1) for alpha = 0;
        "newton" or "entropic", "apg" for alpha > 0; "cvxpy" for both. "auto" takes "lp" for
        alpha = 0, "newton" for alpha > 0, "cvxpy" where `constraints` is a function.
    sample_weight : array_like of shape (N,), optional
        Non-negative; divided by its sum. Uniform by default.
    candidate_mask : array_like of bool, shape (N, m), or list of N arrays (m_i,), optional
        False where a candidate may not be played; its losses are not looked at.
    candidate_prior : array_like of shape (N, m), or list of N arrays (m_i,), optional
        Base measure p of the entropic problem, positive; divided by each sample's sum. Uniform by
        default.
    constraints : LinearConstraints, list of them, or callable, optional
        Linear constraints on the weights (see `mixsolve.constraints`; SciPy's ``LinearConstraint``
        and ``Bounds`` too, but no ``NonlinearConstraint``), or a function that takes the weights as
        a cvxpy variable and returns a list of cvxpy constraints.
    A_ub, A_eq : array_like of shape (p, L), (q, L), optional
        Linear constraints in SciPy's convention: ``A_ub @ weights <= b_ub``,
        ``A_eq @ weights == b_eq``.
    b_ub, b_eq : array_like of shape (p,), (q,), optional
        Their right-hand sides.
    max_models : int, optional
        How many classifiers may have a weight that is not 0. The best of all such mixtures is
        looked for by branch and bound: ``lower_bound`` holds for every choice of so many
        classifiers, ``attack`` is the one on mixtures of those chosen, iterations are nodes.
        Constraints must be linear. See `solve_cardinality_path` for all numbers at once.
    groups : array_like of shape (N,), optional
        A label for each sample: integers, strings or booleans. The attacker then also chooses how
        much the groups weigh, and the value is the worst group's risk:
        ``max over v of sum_g v_g f_g(lam)``, f_g being the risk of group g with its samples'
        weights, of sum 1. See `docs/groups.md`, also for how optimistic a value fitted on few
        samples is, and `cross_fit`.
    group_weight : float, array_like of shape (G,), or dict, optional
        The most that a group may weigh. A number c >= 1: c times its share of the sample weights
        (1: the plain mean). Or a bound for each group, in the order of the sorted labels or by
        label, of sum 1 at least. Any distribution by default.
    tail : float, optional
        Share beta of the samples, above 0 and at most 1: the risk is the mean over the worst share
        beta of the sample weights (conditional value at risk), in each group where there are
        groups.
    alpha_groups : float, optional
        Temperature of the choice of groups, for alpha > 0: the maximum over groups becomes
        ``alpha_groups log sum_g p_g exp(f_g / alpha_groups)``, with the groups' shares p of the
        sample weights. 0, the default, is the exact choice.
    tol : float, default 1e-6
        Stop when the certified gap is at most ``tol * (max(losses) - min(losses))``, the extremes
        being those of what can be played; at least 16 machine epsilons of the largest loss.
    max_iter : int, optional
        Iterations of the method; its own default otherwise.
    time_limit : float, optional
        Seconds, not counting imports and compilation; looked at between passes over the losses and
        inside the subproblems. The certificate of the best point so far is made after it.
    warm_start : array_like of shape (L,) or Solution, optional
        Weights to start from.
    callback : callable, optional
        Called with a `State` once an iteration; returning True stops the solve.
    verbose : bool, default False
        Print a table with a line for each iteration. (The logger "mixsolve" has them at level
        DEBUG.)
    presolve : bool, default True
        Whether the method may first drop what cannot matter.
    names : sequence of str, optional
        What the L classifiers are called, in tables, pictures, files and
        ``solution.named_weights``. Where `losses` names them they are taken from there.

    Returns
    -------
    Solution
        Weights in the array type and on the device of `losses`, as float64 where the framework has
        it, and the certificate.

    Raises
    ------
    MixsolveError
        An argument's value is wrong; the message says which, where, and the mend.
    MixsolveTypeError
        An argument's type is wrong.

    Warns
    -----
    ConvergenceWarning
        The certified gap is above the tolerance; the solution is the best point found. Or no
        weights meet the constraints: the status is INFEASIBLE, ``solution.infeasibility`` says
        which of them clash, and the weights are NaN.

    References
    ----------
    Meunier, Scetbon, Pinot, Atif, Chevaleyre, Mixed Nash equilibria in the adversarial examples
    game, ICML 2021.

    Examples
    --------
    Rock, paper, scissors: one sample, three candidates, three classifiers.

    >>> import mixsolve
    >>> solution = mixsolve.solve([[[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]])
    >>> solution.weights.round(6)
    array([0.333333, 0.333333, 0.333333])
    >>> round(solution.value, 9), solution.gap < 1e-9
    (0.5, True)
    """
    options = Options(tol, max_iter, time_limit, callback, verbose, presolve)
    limits = (constraints, A_ub, b_ub, A_eq, b_eq)
    attacker = (groups, group_weight, tail, alpha_groups)
    rules = sample_weight, candidate_mask, candidate_prior, limits, names, attacker
    with OpenGame(losses, *rules) as game:
        if max_models is not None:
            most = as_count("max_models", max_models)
            if most < game.losses.n_classifiers:
                from mixsolve.solver.few_models import solve_few

                return solve_few(game, alpha, method, warm_start, options, [most], stacklevel=4)[0]
        return _solve(game, alpha, method, warm_start, options, stacklevel=3)


def solve_path(
    losses: Any,
    alphas: Any,
    *,
    method: str = "auto",
    sample_weight: Any = None,
    candidate_mask: Any = None,
    candidate_prior: Any = None,
    constraints: Any = None,
    A_ub: Any = None,
    b_ub: Any = None,
    A_eq: Any = None,
    b_eq: Any = None,
    groups: Any = None,
    group_weight: Any = None,
    tail: float | None = None,
    alpha_groups: float | None = None,
    tol: float = 1e-6,
    max_iter: int | None = None,
    time_limit: float | None = None,
    verbose: bool = False,
    presolve: bool = True,
    names: Any = None,
) -> tuple[Solution, ...]:
    """Solve the same game for several regularisations, each from the weights of a larger one.

    As alpha goes to 0 the values rise to the exact one (Proposition 3).

    Parameters
    ----------
    losses : array_like of shape (N, m, L), or list of N arrays of shape (m_i, L)
        See `solve`.
    alphas : array_like of shape (n,)
        Regularisations, one number for all samples each, in any order; 0 for the exact problem.
    method, sample_weight, candidate_mask, candidate_prior, constraints
        See `solve`.
    time_limit : float, optional
        Seconds for each of the solves.
    A_ub, b_ub, A_eq, b_eq, groups, group_weight, tail, alpha_groups
        See `solve`.
    tol, max_iter, verbose, presolve, names
        See `solve`.

    Returns
    -------
    tuple of Solution
        One for each alpha, in the order given.

    Raises
    ------
    MixsolveError
        As `solve` does, and if `alphas` is empty or not a list of numbers.

    References
    ----------
    Meunier et al., Mixed Nash equilibria in the adversarial examples game, ICML 2021, section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> import mixsolve
    >>> losses = np.random.default_rng(0).random((20, 5, 3))
    >>> path = mixsolve.solve_path(losses, [0.0, 0.01, 0.1])
    >>> path[0].value > path[1].value > path[2].value
    True
    """
    options = Options(tol, max_iter, time_limit, None, verbose, presolve)
    limits = (constraints, A_ub, b_ub, A_eq, b_eq)
    values = validation.check_alphas(alphas)
    solutions: dict[int, Solution] = {}
    warm_start: Any = None
    attacker = (groups, group_weight, tail, alpha_groups)
    rules = sample_weight, candidate_mask, candidate_prior, limits, names, attacker
    with OpenGame(losses, *rules) as game:
        for place in np.argsort(-values, kind="stable").tolist():
            solution = _solve(game, values[place], method, warm_start, options, stacklevel=3)
            solutions[place] = solution
            warm_start = solution.weights
    return tuple(solutions[place] for place in range(values.size))


def _solve(
    game: OpenGame, alpha: Any, method: str, warm_start: Any, options: Options, stacklevel: int
) -> Solution:
    with game.form(alpha):
        checked = check(game, alpha, method, warm_start, options)
        if checked.feasible.infeasibility is not None:
            return infeasible(checked, checked.feasible.infeasibility, stacklevel + 1)
        problem, clock = checked.problem, checked.clock
        clock.ready = time.perf_counter()
        stop = checked.stop()
        outcome = checked.entry.minimize(problem, checked.start, stop)
        clock.minimized = time.perf_counter()
        return finish(checked, outcome, stop, clock, stacklevel + 1)
