"""The pass of small entropic games whose samples lie side by side (`mixsolve.kernels.batch_table`).

    sum_i w_i alpha_i log sum_j p_ij exp(<lam, l_ij> / alpha_i)

with x_ij = (<lam, l_ij> - max_j' <lam, l_ij'>) / alpha_i <= 0 and q_ij ~ p_ij exp(x_ij):

    gradient = sum_i w_i lbar_i,    lbar_i = l_i,best + sum_j q_ij (l_ij - l_i,best),
    hessian  = sum_i w_i / alpha_i  sum_j q_ij (l_ij - lbar_i) (l_ij - lbar_i)'.

The exponentials are those of whole vectors: with n the integer nearest to x / log 2, exp(x) = 2^n
exp(x - n log 2), the second factor by its series, whose remainder after the 12th power is 2e-16
where |x - n log 2| <= log(2) / 2.

Reference: Cody and Waite, Software Manual for the Elementary Functions, 1980.
"""

import math

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels.batch_table import (
    add_rows,
    blank,
    combine,
    dot,
    highest,
    matrix,
    vector,
)
from mixsolve.kernels.batch_walks import scatter_about
from mixsolve.kernels.linear_algebra import OPTIONS, add_outer

_LOWEST = -700.0  # of exponents: below, the exponential is all but 0
_PER_LOG_2 = 1.0 / math.log(2.0)
_LOG_2_HIGH = 0.693147180369123816490  # few bits, so that its products with integers are exact
_LOG_2_LOW = 1.90821492927058770002e-10
_SHIFT = 1.5 * 2.0**52 + 1023.0  # added to an integer n, the last bits are those of n + 1023
_SERIES = tuple(1.0 / math.factorial(n) for n in range(12, -1, -1))


@kernel(error_model="numpy", fastmath={"contract"})
def exponentials(x, out):
    """``out`` = exp(x) for x <= 0; x is raised to `_LOWEST` where it is below."""
    c12, c11, c10, c9, c8, c7, c6, c5, c4, c3, c2, c1, c0 = _SERIES
    power = np.empty(x.size)
    bits = power.view(np.int64)
    for r in range(x.size):
        exponent = x[r] if x[r] > _LOWEST else _LOWEST
        n = np.floor(exponent * _PER_LOG_2 + 0.5)
        power[r] = n + _SHIFT
        rest = exponent - n * _LOG_2_HIGH
        z = rest - n * _LOG_2_LOW
        high = ((((c12 * z + c11) * z + c10) * z + c9) * z + c8) * z + c7
        out[r] = ((((((high * z + c6) * z + c5) * z + c4) * z + c3) * z + c2) * z + c1) * z + c0
    for r in range(x.size):
        bits[r] = bits[r] << 52
    for r in range(x.size):
        out[r] *= power[r]


@kernel(**OPTIONS)
def _exponents(groups, alpha, scores, top):
    """Turn scores into x_ij = (score - top_i) / alpha_i."""
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        best = top[first : first + n]
        scale = alpha[first : first + n]
        for j in range(c):
            here = scores[begin + j * n : begin + (j + 1) * n]
            for i in range(n):
                here[i] = (here[i] - best[i]) / scale[i]


@kernel(**OPTIONS)
def spread_over(groups, factor, values, out):
    """``out`` (R,) = factor_i values_ij."""
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        scale = factor[first : first + n]
        for j in range(c):
            here = values[begin + j * n : begin + (j + 1) * n]
            there = out[begin + j * n : begin + (j + 1) * n]
            for i in range(n):
                there[i] = scale[i] * here[i]


@kernel(**OPTIONS)
def _mean_difference(groups, column, share, base, mean):
    """``mean`` (S,) = sum_j share_ij (column_ij - base_i)."""
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        middle = base[first : first + n]
        out = mean[first : first + n]
        for i in range(n):
            out[i] = 0.0
        for j in range(c):
            here = column[begin + j * n : begin + (j + 1) * n]
            part = share[begin + j * n : begin + (j + 1) * n]
            for i in range(n):
                out[i] += part[i] * (here[i] - middle[i])


@kernel(**OPTIONS)
def measures(groups, prior, n_samples):
    """The sum of the base measure over each sample, as far as it is given; its rows otherwise."""
    measure = vector(n_samples)
    if prior.size:
        add_rows(groups, prior, measure)
        return measure
    for g in range(len(groups)):
        c, n, _, first = groups[g]
        for i in range(first, first + n):
            measure[i] = c
    return measure


@kernel(**OPTIONS)
def gibbs(columns, groups, prior, alpha, weights, x, top, winner, share):
    """The Gibbs strategy ``share`` (R,), its samples' masses, x_ij and the best rows."""
    combine(columns, weights, x)
    highest(groups, x, top, winner)
    _exponents(groups, alpha, x, top)
    mass = vector(share.size)
    exponentials(x, mass)
    if prior.size:
        for r in range(mass.size):
            mass[r] *= prior[r]
    total = vector(top.size)
    add_rows(groups, mass, total)
    inverse = vector(top.size)
    for i in range(top.size):
        inverse[i] = 1.0 / total[i]
    spread_over(groups, inverse, mass, share)
    return total


@kernel(**OPTIONS)
def soft_response(columns, groups, prior, weight, alpha, weights, gradient, hessian):
    """The value; ``gradient`` (L,) and the whole ``hessian`` (L, L), unless it is empty.

    The logarithm loses no digits where alpha is large and the sum hardly below the measure's.
    """
    size = weights.size
    n_rows = 0
    for g in range(len(groups)):
        n_rows += groups[g, 0] * groups[g, 1]
    x = vector(n_rows)
    share = vector(n_rows)
    top = vector(weight.size)
    winner = np.empty(weight.size, dtype=np.int64)
    total = gibbs(columns, groups, prior, alpha, weights, x, top, winner, share)
    measure = measures(groups, prior, weight.size)
    value = dot(weight, top)
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        for i in range(first, first + n):
            if total[i] <= 0.5 * measure[i]:
                value += weight[i] * alpha[i] * math.log(total[i] / measure[i])
                continue
            deficit = 0.0
            for j in range(c):
                r = begin + j * n + i - first
                deficit += (prior[r] if prior.size else 1.0) * math.expm1(x[r])
            value += weight[i] * alpha[i] * math.log1p(deficit / measure[i])
    mean = matrix(size, weight.size)
    base = vector(weight.size)
    for k in range(size):
        column = columns[k]
        for i in range(base.size):
            base[i] = column[winner[i]]
        middle = mean[k]
        _mean_difference(groups, column, share, base, middle)
        for i in range(base.size):
            middle[i] += base[i]
        gradient[k] = dot(weight, middle)
    if hessian.size:
        for i in range(base.size):
            base[i] = weight[i] / alpha[i]
        spread_over(groups, base, share, x)
        for r in range(n_rows):
            x[r] = math.sqrt(x[r])
        block = blank(size, n_rows)
        scatter_about(groups, columns, mean, x, block)
        hessian[:, :] = 0.0
        add_outer(block, n_rows, hessian)
        for a in range(size):
            for b in range(a):
                hessian[a, b] = hessian[b, a]
    return value
