"""Functions of logits whose derivatives are written out.

Autograd goes back through each operation of a loss, which takes longer than a small network does.
The chain rule needs no more than the derivatives of the loss in the logits: they are what
the backward pass of the network starts from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class LogitSlopes(NamedTuple):
    """A function of logits with its derivatives, or Q functions.

    Attributes
    ----------
    values : torch.Tensor of shape (B,) or (Q, B)
        The function.
    wrong : torch.Tensor of shape (B,), bool
        Where the classifier errs; a tie for the top is an error, and NaN is.
    slopes : torch.Tensor of shape (B, classes) or (Q, B, classes)
        The derivatives in the logits.
    """

    values: Tensor
    wrong: Tensor
    slopes: Tensor


@dataclass(frozen=True)
class Derived:
    """A function of logits (B, classes) and labels (B,) that knows its derivatives.

    Attributes
    ----------
    judged : callable
        Returns the values, and where the classifier errs.
    derived : callable
        Returns these and the derivatives: `LogitSlopes`.
    """

    judged: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    derived: Callable[[Tensor, Tensor], LogitSlopes]

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the values alone; autograd can differentiate them, too."""
        return self.judged(logits, labels)[0]
