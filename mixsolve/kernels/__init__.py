"""Numba kernels: plain loops over rows of losses, run in threads by their callers."""
