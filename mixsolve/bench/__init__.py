"""Benchmarks of every method and every installed peer on one game, each in its own process."""
