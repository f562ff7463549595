"""The grouped games as linear programs for HiGHS and as lines of NumPy; no code of the package."""

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog

TIGHT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


def linear_program(tables, group, bounds, within, tail=None):
    """min over lam of max over v <= bounds of sum_g v_g CVaR_tail of group g.

    Variables: lam, t_i, eta_g, xi_i >= t_i - eta_g, eta, xi_g >= f_g - eta, with
    f_g = eta_g + sum_i w_i|g xi_i / beta.
    """
    N, L, G = len(tables), tables[0].shape[1], len(bounds)
    eta_g, xi_i, eta = L + N, L + N + G, L + 2 * N + G
    xi_g, size = eta + 1, eta + 1 + G
    beta = 1.0 if tail is None else tail
    rows = []
    for i, table in enumerate(tables):
        for losses in table:
            row = np.zeros(size)
            row[:L], row[L + i] = losses, -1.0
            rows.append(row)
        row = np.zeros(size)
        row[L + i], row[eta_g + group[i]], row[xi_i + i] = 1.0, -1.0, -1.0
        if within[i] > 0:
            rows.append(row)
    for g in np.flatnonzero(bounds > 0):
        row = np.zeros(size)
        row[eta_g + g], row[eta], row[xi_g + g] = 1.0, -1.0, -1.0
        row[xi_i : xi_i + N][group == g] = within[group == g] / beta
        rows.append(row)
    cost = np.zeros(size)
    cost[eta], cost[xi_g:] = 1.0, bounds
    least = [0] * L + [None] * (N + G) + [0] * N + [None] + [0] * G
    found = linprog(
        cost,
        A_ub=sp.csr_array(np.array(rows)),
        b_ub=np.zeros(len(rows)),
        A_eq=np.concatenate([np.ones(L), np.zeros(size - L)])[None],
        b_eq=[1.0],
        bounds=[(low, None) for low in least],
        options=TIGHT,
    )
    assert found.status == 0, found.message
    return found.fun


def worst_tail(values, weight, share):
    """Mean of the values over the worst share of the weights, one after the other."""
    left, total = share, 0.0
    for i in np.argsort(-values):
        taken = min(weight[i], left)
        total += taken * values[i]
        left -= taken
    return total / (share - left)


def risk(values, group, bounds, within, tail=None):
    """What the attacker gains from samples' values: groups filled from the worst downwards."""
    share = 1.0 if tail is None else tail
    struck = np.flatnonzero(bounds > 0)
    each = np.array([worst_tail(values[group == g], within[group == g], share) for g in struck])
    left, total = 1.0, 0.0
    for place in np.argsort(-each):
        taken = min(bounds[struck[place]], left)
        total += taken * each[place]
        left -= taken
    return total


def draw(seed):
    """A random or degenerate game with groups, and the arguments of `mixsolve.solve`."""
    rng = np.random.default_rng(seed)
    N, L, kind = rng.integers(1, 25), rng.integers(1, 7), rng.integers(4)

    def losses(*shape):
        if kind == 0:
            return rng.random(shape)
        if kind == 1:
            return rng.integers(0, 2, shape).astype(float)
        return rng.gamma(0.5, 1.5, shape) if kind == 2 else rng.integers(0, 4, shape).astype(float)

    tables = [losses(rng.integers(1, 7), L) for _ in range(N)]
    labels = rng.integers(0, rng.integers(1, 7), N)
    weight = rng.random(N) + 0.01 if rng.random() < 0.5 else np.ones(N)
    if rng.random() < 0.3 and N > 3:
        weight[rng.random(N) < 0.3] = 0.0
        weight[0] = 1.0
    _, group = np.unique(labels, return_inverse=True)
    options = {"sample_weight": weight}
    mode = rng.integers(3)  # groups, both, a tail alone
    if mode == 2:
        group = np.zeros(N, dtype=int)
    else:
        options["groups"] = labels
    share = np.bincount(group, weight) / weight.sum()
    bounds = np.where(share > 0, 2.0, 0.0)
    tail = None
    if mode:
        tail = options["tail"] = float(rng.choice([0.02, 0.1, 0.3, 0.7, 1.0]))
    if mode != 2 and rng.random() < 0.5:
        options["group_weight"] = float(rng.choice([1.0, 1.2, 2.0, 5.0]))
        bounds = options["group_weight"] * share
    total = np.bincount(group, weight)[group]
    within = np.divide(weight, total, out=np.zeros(N), where=total > 0)
    return tables, options, (group, bounds, within, tail)
