"""What is noted of classifiers under attack without waiting for their device.

Logits that are not finite are refused, and gradients that vanish or are not finite are signs of
gradient masking (see `attacks.masking`). Both are noted step by step as small tensors and counted
on the device some steps later; only `Noted.signs` waits for the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.masking import GradientSigns

# Gradients of a member that are noted before they are counted: some kilobytes each.
_UNCOUNTED = 64


class Noted:
    """What was seen so far of classifiers, by their numbers in the mixture, `indices`."""

    def __init__(self, indices: Sequence[int], device: torch.device) -> None:
        self._indices = list(indices)
        self._taken = [0] * len(self._indices)
        self._missing = [False] * len(self._indices)
        # For each member: passes with logits that are not finite; gradients on images that it
        # classifies correctly; those of them that vanish; gradients that are not finite.
        self._counts = torch.zeros(len(self._indices), 4, dtype=torch.int64, device=device)
        # Not yet counted: sums of logits, and where a member errs with the largest entry of its
        # gradients.
        self._sums: list[list[Tensor]] = [[] for _ in self._indices]
        self._gradients: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self._indices]

    def logits(self, i: int, logits: Tensor) -> None:
        """Note logits of member i: one NaN or infinity makes their sum one."""
        self._sums[i].append(logits.detach().sum())

    def gradient(self, i: int, wrong: Tensor, largest: Tensor) -> None:
        """Note where member i errs (B,), and the largest entries (Q, B) of its gradients."""
        self._gradients[i].append((wrong, largest))
        self._taken[i] += len(wrong)
        if len(self._gradients[i]) == _UNCOUNTED:
            self._count()

    def missing(self, i: int) -> None:
        """Note that member i has no gradient in the images."""
        self._missing[i] = True

    def signs(self) -> dict[int, GradientSigns]:
        """Return what was seen of the members' gradients so far, by their numbers in the mixture.

        It waits for the device, and refuses logits that were not finite.
        """
        self._count()
        signs: dict[int, GradientSigns] = {}
        for i, (k, row) in enumerate(zip(self._indices, self._counts.tolist(), strict=True)):
            diverged, right, vanished, broken = row
            if diverged:
                raise MixsolveError(
                    f"models[{k}] must have finite logits; got NaN or infinity under attack; "
                    "look for overflow (half precision?) or a diverged classifier"
                )
            signs[k] = GradientSigns(self._taken[i], right, vanished, broken, self._missing[i])
        return signs

    def _count(self) -> None:
        """Count what was noted so far, without waiting for the device."""
        for i, (sums, gradients) in enumerate(zip(self._sums, self._gradients, strict=True)):
            if sums:
                self._counts[i, 0] += (~torch.stack(sums).isfinite()).sum()
            if gradients:
                right = ~torch.cat([wrong for wrong, _ in gradients])
                largest = torch.cat([own.T for _, own in gradients])
                vanished = right & (largest == 0).all(dim=1)
                broken = ~largest.isfinite().all(dim=1)
                self._counts[i, 1:] += torch.stack([right, vanished, broken]).sum(dim=1)
            sums.clear()
            gradients.clear()
