"""`mixsolve.kernels.group_passes` in NumPy: a pass for each block, of which there are to be few."""

import numpy as np

from mixsolve.uncompiled import soft_passes

_NO_HESSIAN = np.empty((0, 0))


def soft_response(
    rows: np.ndarray,
    offsets: np.ndarray,
    allowed: np.ndarray,
    prior: np.ndarray,
    sample_weight: np.ndarray,
    alpha: np.ndarray,
    weights: np.ndarray,
    cutoff: float,
    block: np.ndarray,
    values: np.ndarray,
    gradients: np.ndarray,
) -> None:
    """Add to ``values`` and ``gradients``."""
    for b in np.unique(block[sample_weight > 0.0]).tolist():
        weight = np.where(block == b, sample_weight, 0.0)
        values[b] += soft_passes.soft_response(
            rows, offsets, allowed, prior, weight, alpha, weights, cutoff, gradients[b],
            _NO_HESSIAN,
        )  # fmt: skip
