"""Probabilities of classifiers, checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError, MixsolveTypeError

_SUM_TOLERANCE = 1e-5  # float32 weights of a few hundred classifiers pass, wrong ones do not


def check_weights(weights: Any, count: int) -> Tensor:
    """Return `weights` as `count` float64 probabilities that sum to 1 to the last bits.

    Raises
    ------
    MixsolveError
        A shape other than (count,), a negative or non-finite entry, or a sum away from 1.
    MixsolveTypeError
        Something that is not an array of real numbers.
    """
    try:
        # NumPy takes what has __array__, and the copy keeps a read-only array's memory apart.
        tensor = weights if isinstance(weights, Tensor) else torch.as_tensor(np.array(weights))
        if tensor.is_complex():
            raise TypeError("complex numbers are no probabilities")
        tensor = tensor.detach().to(torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MixsolveTypeError(
            f"weights must be {count} numbers; got {type(weights).__name__}: {error}"
        ) from error
    if tuple(tensor.shape) != (count,):
        raise MixsolveError(
            f"weights must have shape ({count},), one a classifier; got {tuple(tensor.shape)}"
        )
    for k, weight in enumerate(tensor.tolist()):
        if not math.isfinite(weight) or weight < 0:
            raise MixsolveError(
                f"weights must be finite and non-negative; got {weight:.6g} at index {k}"
            )
    total = float(tensor.sum())
    if abs(total - 1) > _SUM_TOLERANCE:
        raise MixsolveError(f"weights must sum to 1; got {total:.6g}; divide them by their sum")
    return tensor / total
