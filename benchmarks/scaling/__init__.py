"""How time, passes, bytes and memory grow: `python -m benchmarks.scaling`."""
