"""The package's own errors and warnings: each names the argument, what came, and the mend."""

from typing import Any


class MixsolveError(ValueError):
    """Wrong input, or a solver that could not do what was asked."""


class MixsolveTypeError(MixsolveError, TypeError):
    """An input of a type that cannot be used."""


class NonFiniteLossError(MixsolveError):
    """A loss is NaN or infinite.

    Parameters
    ----------
    loss : float
        What came.
    sample, candidate, classifier : int
        Where it is, the first of its kind.
    """

    def __init__(self, loss: float, sample: int, candidate: int, classifier: int) -> None:
        super().__init__(
            f"losses must be finite, got {loss} first at index {(sample, candidate, classifier)} "
            "(sample, candidate, classifier); mend the loss there, or take the candidate "
            "away with candidate_mask"
        )
        self._found = (loss, sample, candidate, classifier)

    def __reduce__(self) -> tuple[Any, ...]:  # an error crosses processes by its arguments
        return type(self), self._found

    def shifted(self, first_sample: int) -> "NonFiniteLossError":
        """The same error in the numbering of a tensor of which this was a part."""
        loss, sample, candidate, classifier = self._found
        return NonFiniteLossError(loss, first_sample + sample, candidate, classifier)


class MissingDependencyError(MixsolveError, ImportError):
    """An optional package is not installed; the message says which command installs it."""


class ConvergenceWarning(UserWarning):
    """A solve stopped before its certificate reached the tolerance asked for."""


class CacheWarning(UserWarning):
    """Compiled kernels could not be read from disk, or not kept there: answers are the same."""


class GradientWarning(UserWarning):
    """A classifier hides from gradients: what an attack found on it may not be its worst case."""
