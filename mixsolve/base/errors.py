"""The package's own errors and warnings: each names the argument, what came, and the mend."""

from collections.abc import Iterable
from itertools import islice
from typing import Any


class MixsolveError(ValueError):
    """Wrong input, or a problem that a solver could not solve."""


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
        """The same error in the numbering of a tensor of which this was a shard."""
        loss, sample, candidate, classifier = self._found
        return NonFiniteLossError(loss, first_sample + sample, candidate, classifier)


class MissingDependencyError(MixsolveError, ImportError):
    """An optional package is not installed; the message says which command installs it."""


class ConvergenceWarning(UserWarning):
    """A solve stopped before its certificate reached the tolerance."""


class CacheWarning(UserWarning):
    """Compiled kernels could not be read from disk, or not written there: answers are the same."""


class GradientWarning(UserWarning):
    """A classifier masks gradients: what an attack found on it may not be its worst case."""


def shortened(text: str, most: int = 400) -> str:
    r"""Return a text from elsewhere as one line of a message.

    Control characters are escaped, and the middle of a long text is left out.

    Examples
    --------
    >>> shortened("no such\nfile: " + 30 * "deep/", 40)
    'no such file: deep/deep/deep/d ... deep/'
    """
    if len(text) > 8 * most:  # before it is split: it may be a million names
        text = f"{text[: 4 * most]} {text[-4 * most :]}"
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    if len(line) <= most:
        return line
    head = 3 * most // 4
    return f"{line[:head].rstrip()} ... {line[head + 5 - most :].lstrip()}"


def named(names: Iterable[object], count: int, most: int = 8) -> str:
    """Return the first `most` of `count` names, and how many there are besides.

    Examples
    --------
    >>> named(["a", "b", "c"], 3, most=2)
    'a, b and 1 more'
    """
    shown = [shortened(str(name), 60) for name in islice(names, most)]
    more = f" and {count - len(shown):,} more" if count > len(shown) else ""
    return (", ".join(shown) or "none") + more
