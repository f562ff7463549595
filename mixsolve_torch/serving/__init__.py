"""Mixtures without this package: exported programs."""
