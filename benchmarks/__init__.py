"""Benchmarks: `python -m benchmarks.solvers exact` and its siblings."""
