"""Constants that stand once: a method and its compiled form for batches of games take them here.

Kernels take the values when they are compiled.
"""

import numpy as np

# Of float64, and units of the losses: `mixsolve.engines.base`.
EPSILON = float(np.finfo(np.float64).eps)
TINY = float(np.finfo(np.float64).tiny)
ROUNDING = 16 * EPSILON  # of values that are sums over many samples
PLAIN_EXPONENTS = 200  # losses within 2^-200 to 2^200 are taken as they are
LEAST_ALPHA, MOST_ALPHA = 2.0**-90, 2.0**60  # beside the spread; beyond, alpha's limits are reached

# The interior point method.
FIRST_BARRIER = 0.05  # times the mean number of rows of a sample: about the gap to start at
CORRECTION = 5.0  # second-order terms count up to so many times mu w_i: outliers spoil steps
LEAST_MARGIN, MOST_MARGIN = 1e-6, 0.01  # share of the way to the boundary not taken: the gap's size
GAP_FLOOR = 1e-15  # in units of the spread: rounding
LEAST_SLACK = 1e-17  # lost to rounding, in units of the losses
LEAST_SHARE = 1e-30  # a dual lost to rounding, of its sample's weight
LEAST_PIVOT = 1e-15  # of its diagonal entry: smaller ones are lost to rounding
LOST_PIVOT = 1e150  # in their place: no step goes in their direction
INTERIOR_PATIENCE = 12  # iterations without a better gap before the method gives up

# The interior point method for quadratics over a polytope.
POLYTOPE_ROUNDING = 1e-15  # complementarity in units of the problem: nothing is gained below
POLYTOPE_MAX_ITER = 80
POLYTOPE_BINDING = 1e3  # times its slack: a multiplier of a row that seems to bind
POLYTOPE_PATIENCE = 8  # iterations without progress

# Newton's method on the entropic objective.
NEGLIGIBLE_SMOOTHING = 0.1  # of the tolerance: a smaller smoothing makes no difference
NEARLY_EXACT = 5e-4  # of the spread: below this alpha the exact optimum is a good start
CUTOFF = 40.0  # in units of alpha: candidates so far below the best weigh nothing
ARMIJO = 1e-4
SECANT_LEAST, SECANT_MOST = 0.1, 0.7  # of its length, to which one cut takes a step
CUT_BACK = 0.5  # share of a step below which it counts as cut back
MAX_CUT_BACK = 2  # such steps before the exact optimum is taken for a better start
DAMPING = 0.01  # of the gap, added to all curvatures
LEAST_DAMPING = 1e-13  # of the largest curvature, likewise
NARROWER = 0.9  # times the narrowest gap: progress
NEWTON_PATIENCE = 20  # iterations without progress
