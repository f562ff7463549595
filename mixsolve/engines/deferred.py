"""An attack that is computed when it is first read.

The Gibbs strategy of a tensor in a file may need more memory than there is, and that of a tensor in
shards more time to send than the whole solve: on 0/1 losses nearly every candidate has a positive
probability. The certificate does not need it, since the gradient of eq. (7) is already the
classifiers' losses under it.
"""

from collections.abc import Callable
from typing import Any

from mixsolve.engines.responses import MixedStrategy

_COMPUTED = ("indptr", "candidates", "probabilities")


class DeferredStrategy(MixedStrategy):
    """A `MixedStrategy` whose entries are computed when first read, in a pass over the tensor.

    Parameters
    ----------
    n_samples, n_candidates : int
        Of the tensor.
    compute : callable
        Returns the attack; the tensor must still be there then.
    """

    def __init__(
        self, n_samples: int, n_candidates: int, compute: Callable[[], MixedStrategy]
    ) -> None:
        # The dataclass is frozen, so its fields are set with object's own method.
        object.__setattr__(self, "n_candidates", n_candidates)
        object.__setattr__(self, "_n_samples", n_samples)
        object.__setattr__(self, "_compute", compute)

    def __len__(self) -> int:
        return self._n_samples

    def __getattr__(self, name: str) -> Any:
        if name not in _COMPUTED:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        attack = self._compute()
        for computed in _COMPUTED:
            object.__setattr__(self, computed, getattr(attack, computed))
        return getattr(attack, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return MixedStrategy, (self.indptr, self.candidates, self.probabilities, self.n_candidates)
