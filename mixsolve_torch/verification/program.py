"""A classifier as a program of two kinds of steps: affine maps of earlier steps, and ReLUs.

    h_0 = x,      h_i = W_i (h_j)_{j before i} + b_i      or      h_i = max(h_j, 0).

An affine step offers the product A W of rows with its matrix, by vjp: the operator is all that is
needed, be it a convolution or a sum of two branches.

Rounding. A sum of n products that is computed with the unit of rounding u differs from the exact
one by at most 4 sqrt(n + 2) u times the sum of the absolute values, with a probability above 0.999
in the model of Higham and Mary, where roundings are independent of mean 0. `Step.slack` is twice
that factor: once for the classifier as it runs, once for the arithmetic of its bounds.

References
----------
Higham, Mary. A New Approach to Probabilistic Rounding Error Analysis. SIAM J. Sci. Comput. 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.verification.operators import Map, affine, is_relu, recorded


@dataclass(frozen=True)
class Step:
    """One step of a program.

    Attributes
    ----------
    inputs : tuple of int
        The steps that it reads; none for the images.
    shape : tuple of int
        Of its result for one image.
    call, absolute : callable or None
        W h + b and |W| h + |b|, of batches; None for a ReLU and for the images.
    slack : float
        Bound of the rounding of a result, as a share of `absolute`.
    """

    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    call: Map | None = None
    absolute: Map | None = None
    slack: float = 0.0

    @property
    def is_relu(self) -> bool:
        """Whether it is a ReLU."""
        return self.call is None and bool(self.inputs)


class Program:
    """The steps of a frozen classifier; the last one has its logits.

    Parameters
    ----------
    model : torch.nn.Module
        The classifier, in eval mode and without parameters under differentiation.
    title : str
        Its name in messages.
    x : torch.Tensor of shape (B, C, H, W)
        Images that it takes, one or more.

    Raises
    ------
    MixsolveError
        A module or function that is neither affine nor a ReLU, or a forward that is not traced.
    """

    def __init__(self, model: nn.Module, title: str, x: Tensor) -> None:
        self.dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), x.dtype)
        # The sums of bounds are float64, whose own rounding a finer unit would not cover.
        unit = max(torch.finfo(self.dtype).eps, 2.0**-44)
        two = x[:1].to(self.dtype).repeat(2, *[1] * (x.ndim - 1))
        traced, results = recorded(model, title, two)
        self.steps: list[Step] = []
        places: dict[fx.Node, int] = {}
        for node, result in results.items():
            read = [other for other in node.all_input_nodes if other in places]
            if node.op == "placeholder" and not places:
                self.steps.append(Step((), tuple(result.shape[1:])))
            elif node.op == "output" or not (read and isinstance(result, Tensor)):
                continue
            else:
                inputs, shape = tuple(places[n] for n in read), tuple(result.shape[1:])
                own = None if is_relu(traced, node) else affine(traced, node, read, results)
                if result.ndim < 2 or len(result) != 2:
                    own = f"{node.name!r} does not keep the images of a batch apart"
                if isinstance(own, str):
                    raise MixsolveError(
                        f"{title} cannot be verified: {own}; bounds know affine layers (linear, "
                        "convolution, batch norm in eval mode, average pooling, sums, reshaping) "
                        "and ReLU"
                    )
                if own is None:
                    self.steps.append(Step(inputs, shape))
                else:
                    slack = 2 * 4 * math.sqrt(own.terms + 2) * unit if own.terms else 0.0
                    self.steps.append(Step(inputs, shape, own.call, own.absolute, slack))
            places[node] = len(self.steps) - 1
        with torch.no_grad():
            self.offsets = [
                None if step.call is None else step.call(*self._zeros(step, x))
                for step in self.steps
            ]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes)."""
        results = [x.to(self.dtype)]
        for step in self.steps[1:]:
            read = [results[j] for j in step.inputs]
            results.append(read[0].relu() if step.call is None else step.call(*read))
        return results[-1]

    def transposed(self, step: Step, rows: Tensor) -> tuple[Tensor, ...]:
        """Return A W_j (R, ...) for each input j of an affine step, of rows A (R, *shape)."""
        assert step.call is not None
        back: Callable[[Tensor], tuple[Tensor, ...]]
        _, back = torch.func.vjp(step.call, *self._zeros(step, rows))
        return tuple(part.squeeze(1) for part in torch.vmap(back)(rows.unsqueeze(1)))

    def _zeros(self, step: Step, like: Tensor) -> list[Tensor]:
        shapes = [self.steps[j].shape for j in step.inputs]
        return [torch.zeros(1, *shape, dtype=self.dtype, device=like.device) for shape in shapes]
