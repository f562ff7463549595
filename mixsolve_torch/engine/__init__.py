"""Passes over a loss tensor on a device."""
