"""States of the games of `solve_batch`, and the columns of their figures; needs no Numba."""

# The states of a game that is not done: an exact one; an entropic one, one that needs the exact
# optimum to start from, and one that has it.
EXACT, ENTROPIC, NEEDS_START, STARTED = range(4)
# The states of a game that is done: the gap is within the tolerance, or above; a loss is NaN or
# infinite, or the difference of two is.
SOLVED, OPEN, NOT_FINITE, OVERFLOW = range(4, 8)

# Columns of the figures of a game: while it is solved in its unit, 2^EXPONENT.
VALUE, RISK, LOWER_BOUND, RISK_LOWER_BOUND, SMOOTHING, SPREAD, TOLERANCE, N_PASSES = range(8)
EXPONENT = 8
N_FIGURES = 9
