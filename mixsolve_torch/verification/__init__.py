"""Bounds that hold for every attack in a ball: what no classifier, and no set of them, can lose."""
