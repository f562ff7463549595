"""Mixtures of at most k classifiers, and what the best risk is for each k."""
