"""The walks of the interior point method over rows that lie side by side.

What `mixsolve.kernels.batch_interior` sums and moves, row by row: slacks s_r, duals q_r and D_r =
q_r / s_r, with abar_i the mean of the rows of sample i under D. The layout is that of
`mixsolve.kernels.batch_table`.
"""

from mixsolve.base.compilation import kernel
from mixsolve.kernels.batch_table import add_products, add_rows, dot
from mixsolve.kernels.linear_algebra import OPTIONS

_TINY = 1e-17  # a slack lost to rounding, in units of the losses
_CENTRED = 0.05  # of a sample's height above its rows: as near as the path's start need be
_LEAST_SHARE = 1e-30  # a dual lost to rounding, as a share of its sample's weight


@kernel(**OPTIONS)
def centre(groups, weight, barrier, product, top, height, dual, terms, total, change):
    """Put the samples on the central path of the barrier mu, for fixed ``product`` = <lam, a_r>.

    Solves ``T(t_i) = sum_r mu / (t_i - <lam, a_r>) = 1`` by Newton's method on the concave 1 / T,
    from the left, then ``q_r = w_i mu / s_r``, scaled to the sum w_i.
    """
    for i in range(height.size):
        height[i] = barrier
    turns = 10
    while True:
        for g in range(len(groups)):
            c, n, begin, first = groups[g]
            above = height[first : first + n]
            best = top[first : first + n]
            for j in range(c):
                at = begin + j * n
                here = product[at : at + n]
                term = terms[at : at + n]
                for i in range(n):
                    term[i] = barrier / (above[i] + (best[i] - here[i]))
        add_rows(groups, terms, total)
        if turns == 0:
            break
        add_products(groups, terms, terms, change)
        for i in range(change.size):
            change[i] = barrier * total[i] * (total[i] - 1.0) / change[i]
        for i in range(change.size):
            height[i] += change[i]
        turns -= 1
        furthest = 0.0
        for i in range(change.size):
            furthest = max(furthest, change[i] / height[i])
        if furthest <= _CENTRED:
            turns = 0
    for i in range(height.size):
        height[i] += top[i]
    for i in range(height.size):
        change[i] = weight[i] / total[i]
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        factor = change[first : first + n]
        for j in range(c):
            at = begin + j * n
            here = dual[at : at + n]
            term = terms[at : at + n]
            for i in range(n):
                here[i] = term[i] * factor[i]


@kernel(**OPTIONS)
def take_step(
    groups, weight, primal_step, dual_step, product, height, d_height, slack, dual, d_dual, ratio
):
    """Take the step; slacks come from the rows, so they never drift away from the weights."""
    for i in range(height.size):
        height[i] += primal_step * d_height[i]
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        mass = weight[first : first + n]
        up = height[first : first + n]
        for j in range(c):
            at = begin + j * n
            here = dual[at : at + n]
            step = d_dual[at : at + n]
            for i in range(n):
                moved = here[i] + dual_step * step[i]
                least = _LEAST_SHARE * mass[i]
                here[i] = moved if moved > least else least
            down = product[at : at + n]
            room = slack[at : at + n]
            for i in range(n):
                left = up[i] - down[i]
                room[i] = left if left > _TINY else _TINY
    for r in range(ratio.size):
        ratio[r] = dual[r] / slack[r]


@kernel(**OPTIONS)
def means(groups, columns, ratio, scatter, mean):
    """``scatter`` (S,) = sum_r D_r and ``mean`` (L, S) = sum_r D_r a_r / scatter."""
    add_rows(groups, ratio, scatter)
    for k in range(len(columns)):
        here = mean[k]
        add_products(groups, ratio, columns[k], here)
        for i in range(here.size):
            here[i] = here[i] / scatter[i]


@kernel(**OPTIONS)
def scatter_about(groups, columns, mean, root, block):
    """``block`` (L, R) = root_r (a_r - mean_i): its outer products sum to the scatter matrix."""
    for k in range(len(columns)):
        for g in range(len(groups)):
            c, n, begin, first = groups[g]
            middle = mean[k, first : first + n]
            for j in range(c):
                at = begin + j * n
                here = columns[k, at : at + n]
                out = block[k, at : at + n]
                factor = root[at : at + n]
                for i in range(n):
                    out[i] = factor[i] * (here[i] - middle[i])


@kernel(**OPTIONS)
def least_of(groups, values, least):
    """``least`` (S,) = min_j values_ij."""
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        out = least[first : first + n]
        here = values[begin : begin + n]
        for i in range(n):
            out[i] = here[i]
        for j in range(1, c, 2):
            here = values[begin + j * n : begin + (j + 1) * n]
            at = begin + min(j + 1, c - 1) * n
            beside = values[at : at + n]
            for i in range(n):
                lowest = out[i]
                lowest = here[i] if here[i] < lowest else lowest
                lowest = beside[i] if beside[i] < lowest else lowest
                out[i] = lowest


@kernel(**OPTIONS)
def direction(groups, product, shift, d_slack):
    """``d_slack`` = shift_i - <dlam, a_r>."""
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        up = shift[first : first + n]
        for j in range(c):
            at = begin + j * n
            here = product[at : at + n]
            out = d_slack[at : at + n]
            for i in range(n):
                out[i] = up[i] - here[i]


@kernel(**OPTIONS)
def inverse_step(groups, step, values, terms, least):
    """One over the longest step that keeps all values positive: max -step_r / values_r, or 0."""
    for r in range(terms.size):
        terms[r] = step[r] / values[r]
    least_of(groups, terms, least)
    lowest = 0.0
    for i in range(least.size):
        lowest = min(lowest, least[i])
    return -lowest


@kernel(**OPTIONS)
def cut_off(groups, weight, limit, d_slack, d_dual, product):
    """``product`` = ds_r dq_r, cut off at +- limit w_i."""
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        mass = weight[first : first + n]
        for j in range(c):
            at = begin + j * n
            primal = d_slack[at : at + n]
            lasting = d_dual[at : at + n]
            out = product[at : at + n]
            for i in range(n):
                most = limit * mass[i]
                term = primal[i] * lasting[i]
                term = term if term < most else most
                out[i] = term if term > -most else -most


@kernel(**OPTIONS)
def pull(groups, weight, level, product, slack, out):
    """``out`` = (level w_i - product_r) / s_r."""
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        mass = weight[first : first + n]
        for j in range(c):
            at = begin + j * n
            term = product[at : at + n]
            room = slack[at : at + n]
            here = out[at : at + n]
            for i in range(n):
                here[i] = (level * mass[i] - term[i]) / room[i]


@kernel(**OPTIONS)
def about_mean(groups, columns, pulls, share, total, out):
    """``out`` (L,) = sum_r pull_r (a_r - abar_i), with share_r = D_r / scatter_i.

    pulls (R,) is overwritten.
    """
    add_rows(groups, pulls, total)
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        sums = total[first : first + n]
        for j in range(c):
            at = begin + j * n
            here = pulls[at : at + n]
            part = share[at : at + n]
            for i in range(n):
                here[i] -= sums[i] * part[i]
    for k in range(len(columns)):
        out[k] = dot(pulls, columns[k])
