"""The paper's pictures, and some it does not have: `python -m benchmarks.figures NAME`.

A module a figure: `measure` computes its numbers, `draw` draws nothing but these.
"""
