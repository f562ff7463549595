"""The kernels in NumPy, for small games while Numba need not be loaded; same names, same arguments.

What a function computes stands with its compiled twin in `mixsolve.kernels`; here stands how. Sums
run in another order, so that results differ by rounding.
"""
