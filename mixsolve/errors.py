"""The package's own errors and warnings: each names the argument, what came, and the mend."""


class MixsolveError(ValueError):
    """Wrong input, or a solver that could not do what was asked."""


class MixsolveTypeError(MixsolveError, TypeError):
    """An input of a type that cannot be used."""


class MissingDependencyError(MixsolveError, ImportError):
    """An optional package is not installed; the message says which command installs it."""


class ConvergenceWarning(UserWarning):
    """A solve stopped before its certificate reached the tolerance asked for."""


class GradientWarning(UserWarning):
    """A classifier hides from gradients: what an attack found on it may not be its worst case."""
