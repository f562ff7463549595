"""Small dense linear algebra for the kernels: sums of outer products, Cholesky factors, solves."""

import math

from mixsolve.base.compilation import kernel
from mixsolve.kernels.constants import LEAST_PIVOT, LOST_PIVOT

BLOCK = 128  # columns collected before they update a matrix
STRIDE = BLOCK + 8  # not a power of two: the rows of the block must not share a cache set
# Division by zero gives inf, as in C: a check at every division would keep loops from vectorising.
# Sums may be reordered, for the same reason. A loop that reads some arrays and writes to another is
# compiled twice, and the distance between them in memory decides at run time which form is used: so
# that equal numbers give equal bits, no loop that can be vectorised both sums and writes.
OPTIONS = {
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz"},
}


@kernel()
def copy_into(target, source):
    """``target[:] = source`` for vectors of one length.

    With the assignment Numba compiles the words of its error too, which takes seconds.
    """
    for k in range(source.size):
        target[k] = source[k]


@kernel(**OPTIONS)
def add_outer(block, filled, matrix):
    """Add the first `filled` columns' outer products, ``block @ block.T``, to the upper triangle.

    In tiles of 3 x 3, so that every load serves thrice. The lower triangle is undefined.
    """
    n_classifiers = matrix.shape[0]
    tiled = n_classifiers - n_classifiers % 3
    for a in range(0, tiled, 3):
        for b in range(a, tiled, 3):
            s00 = s01 = s02 = s10 = s11 = s12 = s20 = s21 = s22 = 0.0
            for j in range(filled):
                x0 = block[a, j]
                x1 = block[a + 1, j]
                x2 = block[a + 2, j]
                y0 = block[b, j]
                y1 = block[b + 1, j]
                y2 = block[b + 2, j]
                s00 += x0 * y0
                s01 += x0 * y1
                s02 += x0 * y2
                s10 += x1 * y0
                s11 += x1 * y1
                s12 += x1 * y2
                s20 += x2 * y0
                s21 += x2 * y1
                s22 += x2 * y2
            matrix[a, b] += s00
            matrix[a, b + 1] += s01
            matrix[a, b + 2] += s02
            matrix[a + 1, b] += s10
            matrix[a + 1, b + 1] += s11
            matrix[a + 1, b + 2] += s12
            matrix[a + 2, b] += s20
            matrix[a + 2, b + 1] += s21
            matrix[a + 2, b + 2] += s22
    for b in range(tiled, n_classifiers):
        for a in range(b + 1):
            total = 0.0
            for j in range(filled):
                total += block[a, j] * block[b, j]
            matrix[a, b] += total


@kernel(**OPTIONS)
def factorise(matrix):
    """Cholesky factor in place, lower triangle from the lower triangle."""
    size = matrix.shape[0]
    for b in range(size):
        total = matrix[b, b]
        for k in range(b):
            total -= matrix[b, k] * matrix[b, k]
        # A pivot lost to rounding belongs to a direction that no step needs: it is not taken.
        pivot = math.sqrt(total) if total > LEAST_PIVOT * matrix[b, b] else LOST_PIVOT
        matrix[b, b] = pivot
        for a in range(b + 1, size):
            total = matrix[a, b]
            for k in range(b):
                total -= matrix[a, k] * matrix[b, k]
            matrix[a, b] = total / pivot


@kernel(**OPTIONS)
def solve(matrix, vector):
    """Solve in place with the Cholesky factor in the lower triangle."""
    size = matrix.shape[0]
    for a in range(size):
        total = vector[a]
        for k in range(a):
            total -= matrix[a, k] * vector[k]
        vector[a] = total / matrix[a, a]
    for a in range(size - 1, -1, -1):
        vector[a] /= matrix[a, a]
        for k in range(a):
            vector[k] -= matrix[a, k] * vector[a]
