"""The default method for alpha > 0."""

from mixsolve.methods.apg import minimize

__all__ = ["minimize"]
