"""How the members of a mixture are run under attack: plainly where that is known to work.

A classifier is foreign code: what it returns is checked, converted and copied by `run_member`, and
it may refuse images that are under differentiation. All that takes longer than a small network.
Therefore a member is called without further ado as long as it returns plain logits; once it does
not, it is run with all checks from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.data import checks
from mixsolve_torch.models.classifiers import run_member
from mixsolve_torch.models.passes import after_run, before_run

_AS_IT_IS: AbstractContextManager[Any] = nullcontext()


class MemberRuns:
    """Runs the members of a mixture, numbered from 0 to n - 1.

    Parameters
    ----------
    models : sequence of callable
        The classifiers.
    indices : sequence of int
        Their numbers in the mixture, for messages.
    largest_label : int
        The largest label of the attack: there must be a logit for it.
    autocast : torch.dtype or False
        Run them in this dtype where PyTorch's autocast deems it safe.
    """

    def __init__(
        self,
        models: Sequence[Any],
        indices: Sequence[int],
        largest_label: int,
        autocast: bool | torch.dtype,
    ) -> None:
        self._models, self._indices = list(models), list(indices)
        self._largest_label = largest_label
        self._autocast = torch.bfloat16 if autocast is True else autocast
        self._plain = [True] * len(self._models)  # whose logits were plain so far
        self._graphless = [False] * len(self._models)  # who runs only without differentiation

    def __len__(self) -> int:
        """Return n."""
        return len(self._models)

    def logits(self, i: int, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of member i on images, in memory of their own."""
        with torch.no_grad():
            # Copied twice: a classifier may write into the images, and reuse its result.
            logits = self._plainly(i, x.clone())
            return self._checked(i, x) if logits is None else logits.clone()

    def graph(self, i: int, point: Tensor) -> Tensor:
        """Return the logits of member i in a graph if it can be run in one.

        The member may write into `point`, and into the logits with its next run.
        """
        logits = self._plainly(i, point)
        if logits is not None:
            return logits
        if not self._graphless[i]:
            try:
                return self._checked(i, point)
            except (MixsolveError, torch.cuda.OutOfMemoryError):
                raise
            except Exception as error:
                # Such as a call of .numpy(), which refuses what is under differentiation.
                try:
                    logits = self.logits(i, point.detach())
                except Exception:
                    raise error from None
                self._graphless[i] = True
                return logits
        return self.logits(i, point.detach())

    def _plainly(self, i: int, point: Tensor) -> Tensor | None:
        """Return the logits of member i if they are plain: at least as precise as the images."""
        if not self._plain[i]:
            return None
        before = before_run()
        try:
            with self._precision(point):
                logits = self._models[i](point)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception:  # the member's own errors are raised again, and explained
            logits = None
        if (
            type(logits) is Tensor
            and logits.ndim == 2
            and logits.layout is torch.strided
            and logits.is_floating_point()
            and (logits.dtype == point.dtype or self._autocast)
            and len(logits) == len(point)
            and logits.shape[1] > max(1, self._largest_label)
        ):
            after_run(before, logits)
            if logits.dtype == torch.float32:
                return logits
            return logits.to(torch.promote_types(logits.dtype, torch.float32))
        self._plain[i] = False
        return None

    def _checked(self, i: int, x: Tensor) -> Tensor:
        with self._precision(x):
            logits = run_member(self._models[i], self._indices[i], x)
        checks.label_range("y", self._largest_label, logits.shape[1])
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _precision(self, x: Tensor) -> AbstractContextManager[Any]:
        """Return the context that classifiers run in."""
        if isinstance(self._autocast, torch.dtype):
            return torch.autocast(x.device.type, dtype=self._autocast)
        return _AS_IT_IS
