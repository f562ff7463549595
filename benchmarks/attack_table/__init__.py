"""Attacks on mixtures side by side: the package's own, public codes, and a plain search."""
