"""A level of the attacker's choice in the interior point method: masses of children under caps.

The parent p of mass v_p hands it on to its children c, 0 <= m_c <= cap_c v_p, sum_c m_c = v_p. So
the attacker takes the largest of their heights t_c first, and by duality a parent's height is

    min_eta  eta + sum_c cap_c (t_c - eta)^+,
    y_c = eta + xi_c - t_c >= 0 (dual m_c),   xi_c >= 0 (dual n_c = cap_c v_p - m_c),

the form of Rockafellar and Uryasev. A child of slope B_c and curvature K_c moves by
dt_c = <B_c, dlam> + C_c - K_c dm_c. With h_c = xi_c / n_c, g_c = cap_c h_c and
E_c = 1 / (y_c / m_c + h_c + K_c) Newton's equations m dy + y dm = R, n dxi + xi dn = Q leave

    dm_c  = E_c (rho_c + g_c dv - deta + <B_c, dlam>),   rho_c = R_c / m_c - Q_c / n_c + C_c + r_c,
    deta  = rhobar + <Bbar, dlam> + (gbar - 1 / E) dv,

bars being means under E_c, E their sum and r_c what is left of y_c - (eta + xi_c - t_c). The matrix
gains sum_c E_c (B_c - Bbar)(B_c - Bbar)^T, and the parent in turn has

    B = Bbar + sum_c E_c g_c (B_c - Bbar),
    K = 1 / E - 2 gbar + sum_c cap_c g_c - sum_c E_c (g_c - gbar)^2,
    C = rhobar + sum_c cap_c Q_c / n_c + sum_c E_c g_c (rho_c - rhobar).

Reference: Rockafellar and Uryasev, Optimization of conditional value-at-risk, 2000.
"""

import math

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels.linear_algebra import BLOCK, OPTIONS, STRIDE, add_outer

_TINY = 1e-17  # a slack lost to rounding


@kernel(**OPTIONS)
def masses_on_path(height, parent, cap, parent_mass, path, barrier, eta, mass, idle):
    """Centred eta_p, m_c and n_c (``idle``) for fixed heights t_c.

    Of y m = xi n = mu path and xi - y = t - eta the mass is the root of a quadratic, rising with
    t - eta; eta is found by bisection on sum_c m_c = v_p.
    """
    for p in range(parent_mass.size):
        low = np.inf
        high = -np.inf
        widest = 0.0
        for c in range(parent.size):
            if parent[c] == p:
                low = min(low, height[c])
                high = max(high, height[c])
                widest = max(widest, path[c] / cap[c])
        room = 1.0 + high - low + barrier * widest / parent_mass[p]
        least = low - room
        most = high + room
        while (
            _mass_at(height, parent, cap, parent_mass[p], path, barrier, p, most) > parent_mass[p]
        ):
            room *= 2.0
            most += room
        while (
            _mass_at(height, parent, cap, parent_mass[p], path, barrier, p, least) < parent_mass[p]
            and room < 1e12
        ):
            room *= 2.0
            least -= room
        for _ in range(100):
            middle = 0.5 * (least + most)
            total = _mass_at(height, parent, cap, parent_mass[p], path, barrier, p, middle)
            if total > parent_mass[p]:
                least = middle
            else:
                most = middle
        eta[p] = 0.5 * (least + most)
        total = 0.0
        for c in range(parent.size):
            if parent[c] == p:
                top = cap[c] * parent_mass[p]
                mass[c], idle[c] = _split(height[c] - eta[p], top, barrier * path[c])
                total += mass[c]
        for c in range(parent.size):
            if parent[c] == p:  # the sum is met to rounding
                top = cap[c] * parent_mass[p]
                mass[c] = min(mass[c] * parent_mass[p] / total, (1.0 - 1e-12) * top)
                idle[c] = top - mass[c]


@kernel(**OPTIONS)
def _split(excess, top, level):
    """Masses (m, n) of sum `top` with level / n - level / m = excess."""
    root = math.sqrt(excess * excess * top * top + 4.0 * level * level)
    if excess > 0.0:
        idle = 2.0 * level * top / (2.0 * level + excess * top + root)
        return top - idle, idle
    mass = 2.0 * level * top / (2.0 * level - excess * top + root)
    return mass, top - mass


@kernel(**OPTIONS)
def _mass_at(height, parent, cap, mass, path, barrier, p, eta):
    total = 0.0
    for c in range(parent.size):
        if parent[c] == p:
            total += _split(height[c] - eta, cap[c] * mass, barrier * path[c])[0]
    return total


@kernel(**OPTIONS)
def eliminate(
    parent, cap, slopes, curvature, mass, above, excess, idle,
    weight, pull, total, slope_mean, pull_mean, parent_slopes, parent_curvature, matrix,
):  # fmt: skip
    """Fill E_c (``weight``), g_c (``pull``), E, Bbar, gbar, the parents' B and K; add to `matrix`.

    ``above`` is y_c, ``excess`` xi_c, ``idle`` n_c. The upper triangle of the matrix is added to.
    """
    size = matrix.shape[0]
    block = np.empty((size, STRIDE))
    for p in range(total.size):
        total[p] = 0.0
        pull_mean[p] = 0.0
        parent_curvature[p] = 0.0
        for k in range(size):
            slope_mean[p, k] = 0.0
    for c in range(parent.size):
        p = parent[c]
        h = excess[c] / idle[c]
        weight[c] = 1.0 / (above[c] / mass[c] + h + curvature[c])
        pull[c] = cap[c] * h
        total[p] += weight[c]
        pull_mean[p] += weight[c] * pull[c]
        parent_curvature[p] += cap[c] * pull[c]
        for k in range(size):
            slope_mean[p, k] += weight[c] * slopes[c, k]
    for p in range(total.size):
        pull_mean[p] /= total[p]
        parent_curvature[p] += 1.0 / total[p] - 2.0 * pull_mean[p]
        for k in range(size):
            slope_mean[p, k] /= total[p]
            parent_slopes[p, k] = slope_mean[p, k]
    filled = np.int64(0)
    for c in range(parent.size):
        p = parent[c]
        scale = math.sqrt(weight[c])
        bend = pull[c] - pull_mean[p]
        parent_curvature[p] -= weight[c] * bend * bend
        for k in range(size):
            difference = slopes[c, k] - slope_mean[p, k]
            block[k, filled] = scale * difference
            parent_slopes[p, k] += weight[c] * pull[c] * difference
        filled += 1
        if filled == BLOCK:
            add_outer(block, filled, matrix)
            filled = np.int64(0)
    add_outer(block, filled, matrix)


@kernel(**OPTIONS)
def carry(
    parent, cap, mass, idle, weight, pull, total, constant, for_mass, for_excess, left,
    rho, rho_mean, parent_constant,
):  # fmt: skip
    """Fill rho_c, rhobar and the parents' C from C_c, R_c, Q_c and r_c."""
    for p in range(total.size):
        rho_mean[p] = 0.0
        parent_constant[p] = 0.0
    for c in range(parent.size):
        p = parent[c]
        rho[c] = for_mass[c] / mass[c] - for_excess[c] / idle[c] + constant[c] + left[c]
        rho_mean[p] += weight[c] * rho[c]
        parent_constant[p] += cap[c] * for_excess[c] / idle[c]
    for p in range(total.size):
        rho_mean[p] /= total[p]
        parent_constant[p] += rho_mean[p]
    for c in range(parent.size):
        p = parent[c]
        parent_constant[p] += weight[c] * pull[c] * (rho[c] - rho_mean[p])


@kernel(**OPTIONS)
def hand_down(
    parent, slopes, weight, pull, total, slope_mean, pull_mean, rho, rho_mean, d_parent, d_weights,
    d_eta, d_mass,
):  # fmt: skip
    """Fill deta and dm for a step of the weights and of the parents' masses."""
    size = d_weights.size
    for p in range(total.size):
        moved = rho_mean[p] + (pull_mean[p] - 1.0 / total[p]) * d_parent[p]
        for k in range(size):
            moved += slope_mean[p, k] * d_weights[k]
        d_eta[p] = moved
    for c in range(parent.size):
        p = parent[c]
        moved = rho[c] + pull[c] * d_parent[p] - d_eta[p]
        for k in range(size):
            moved += slopes[c, k] * d_weights[k]
        d_mass[c] = weight[c] * moved


@kernel(**OPTIONS)
def complete(
    parent, cap, mass, above, excess, idle, for_mass, for_excess, d_parent, d_mass,
    d_above, d_excess, d_idle, sums,
):  # fmt: skip
    """Fill dy, dxi and dn; ``sums`` as of `mixsolve.kernels.group_rows.predict`."""
    for place in range(5):
        sums[place] = 0.0
    for c in range(parent.size):
        d_idle[c] = cap[c] * d_parent[parent[c]] - d_mass[c]
        d_above[c] = (for_mass[c] - above[c] * d_mass[c]) / mass[c]
        d_excess[c] = (for_excess[c] - excess[c] * d_idle[c]) / idle[c]
        sums[0] = max(sums[0], -d_above[c] / above[c], -d_excess[c] / excess[c])
        sums[1] = max(sums[1], -d_mass[c] / mass[c], -d_idle[c] / idle[c])
        sums[2] += mass[c] * d_above[c] + idle[c] * d_excess[c]
        sums[3] += above[c] * d_mass[c] + excess[c] * d_idle[c]
        sums[4] += d_above[c] * d_mass[c] + d_excess[c] * d_idle[c]


@kernel(**OPTIONS)
def take_step(
    parent, cap, height, primal, dual, eta, d_eta, left,
    mass, d_mass, idle, d_idle, above, excess, d_excess, parent_height,
):  # fmt: skip
    """Move the level and recompute its slacks from the heights t_c; fill the parents' heights."""
    for p in range(eta.size):
        eta[p] += primal * d_eta[p]
        parent_height[p] = eta[p]
    for c in range(parent.size):
        p = parent[c]
        mass[c] = max(mass[c] + dual * d_mass[c], 1e-300)
        idle[c] = max(idle[c] + dual * d_idle[c], 1e-300)
        excess[c] = max(excess[c] + primal * d_excess[c], _TINY * 1e-3)
        left[c] *= 1.0 - primal
        above[c] = max(eta[p] + excess[c] - height[c] + left[c], _TINY)
        parent_height[p] += cap[c] * excess[c]
