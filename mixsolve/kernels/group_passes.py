"""Passes whose sums are taken by blocks of samples; each walks every row once, in order."""

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels import soft_passes
from mixsolve.kernels.linear_algebra import OPTIONS


@kernel(**OPTIONS)
def soft_response(
    rows, offsets, allowed, prior, sample_weight, alpha, weights, cutoff, block, values, gradients,
):  # fmt: skip
    """`soft_passes.soft_response` without a Hessian, into the value and gradient of each block."""
    no_hessian = np.empty((0, 0))
    base = offsets[0]
    for i in range(offsets.size - 1):
        if sample_weight[i] == 0.0:
            continue
        first = offsets[i] - base
        last = offsets[i + 1] - base
        b = block[i]
        values[b] += soft_passes.soft_response(
            rows[first:last], offsets[i : i + 2],
            allowed[first:last], prior[first:last], sample_weight[i : i + 1], alpha[i : i + 1],
            weights, cutoff, gradients[b], no_hessian,
        )  # fmt: skip
