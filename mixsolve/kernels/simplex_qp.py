"""A quadratic model minimised over the simplex, exactly: a primal active-set method.

    min_x  <g, x - x0> + 1/2 (x - x0)' H (x - x0)    over the simplex.

On the classifiers that are free, K d = nu 1 - r with sum d = 0 gives the step to the face's minimum
(r the gradient at x); the step ends early where a weight reaches 0, which then stays there until
its multiplier r_k - nu turns negative. K = H + ridge I + lift 1 1': the last term changes no step
of sum 0, and without it H is often singular across the simplex, where K need not be. The model may
be very flat in some directions (condition numbers of 1e13 occur), hence two steps of refinement at
the end.

Reference: Nocedal and Wright, Numerical Optimization, 2006, section 16.5.
"""

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels.linear_algebra import factorise, solve


@kernel(error_model="numpy")
def minimize_quadratic(gradient, hessian, start, ridge):
    """Minimiser of the model about `start` (L,) on the simplex; `ridge` > 0 keeps it unique."""
    size = gradient.size
    point = np.empty(size)
    slope = np.empty(size)
    free = np.empty(size, dtype=np.int64)
    is_free = np.empty(size, dtype=np.bool_)
    reach = 0.0
    lift = 0.0
    refinements = 0
    for k in range(size):
        point[k] = start[k]
        slope[k] = gradient[k]
        is_free[k] = point[k] > 0.0
        reach = max(reach, abs(gradient[k]))
        lift = max(lift, hessian[k, k])
    for _ in range(20 * size + 20):
        n_free = 0
        for k in range(size):
            if is_free[k]:
                free[n_free] = k
                n_free += 1
        matrix = np.empty((n_free, n_free))
        ones = np.empty(n_free)
        step = np.empty(n_free)
        for a in range(n_free):
            ones[a] = 1.0
            step[a] = slope[free[a]]
            for b in range(n_free):
                matrix[a, b] = hessian[free[a], free[b]] + lift
            matrix[a, a] += ridge
        factorise(matrix)
        solve(matrix, ones)
        solve(matrix, step)
        moved = 0.0
        whole = 0.0
        for a in range(n_free):
            moved += step[a]
            whole += ones[a]
        level = moved / whole
        length = 1.0
        blocking = -1
        for a in range(n_free):
            step[a] = level * ones[a] - step[a]
            if step[a] < 0.0 and -point[free[a]] > length * step[a]:
                length = -point[free[a]] / step[a]
                blocking = free[a]
        for a in range(n_free):
            point[free[a]] = max(point[free[a]] + length * step[a], 0.0)
        if blocking >= 0:
            point[blocking] = 0.0
            is_free[blocking] = False
        for k in range(size):
            slope[k] = gradient[k]
            for h in range(size):
                slope[k] += hessian[k, h] * (point[h] - start[h])
            slope[k] += ridge * (point[k] - start[k])
        if blocking >= 0:
            continue
        entering = -1
        lowest = -1e-14 * reach
        for k in range(size):
            if not is_free[k] and slope[k] - level < lowest:
                lowest = slope[k] - level
                entering = k
        if entering >= 0:
            is_free[entering] = True
            refinements = 0
        elif refinements == 2:
            break
        else:
            refinements += 1  # the same step again takes out what rounding left of the gradient
    mass = 0.0
    for k in range(size):
        mass += point[k]
    for k in range(size):
        point[k] /= mass
    return point
