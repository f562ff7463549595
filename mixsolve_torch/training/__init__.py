"""Training of classifiers: one network at a time, and mixtures of them."""

from mixsolve_torch.training.single import fit

__all__ = ["fit"]
