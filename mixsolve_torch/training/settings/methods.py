"""The settings of single methods, and which others go with a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mixsolve.base.arguments import as_count


@dataclass(frozen=True)
class BoostingConfig:
    """How networks are added one after another, by "boosting".

    Parameters
    ----------
    start : {"previous", "random"}
        What a new network starts as: a copy of the one before it, or random initial weights.
    attack : {"pgd", "arc"}
        What "boosting" attacks the mixture with: PGD on its expected loss, or ARC, in
        `attack.steps` steps.
    fixed : int
        The first so many networks, from `model.pretrained`, are not trained: the others are added
        to them.
    """

    start: Literal["previous", "random"] = "previous"
    attack: Literal["pgd", "arc"] = "pgd"
    fixed: int = 0

    def check(self) -> None:
        """Refuse values out of their range."""
        as_count("boosting.fixed", self.fixed, 0)
