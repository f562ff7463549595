"""Distilled features: an image that looks like one, and is like another to a layer of a network.

With phi the output of a layer of network f, source images x and target images x~,

    z  =  argmin over the ball around x of   1/2 || phi(z) - phi(x~) ||^2

holds what f sees of x~ although it hardly differs from x: the features that attacks on f use. It is
found by steepest descent with momentum, from z_0 = x,

    g_t  =  mu g_{t-1} + grad_t / ||grad_t||_1,      z_t  =  P( z_{t-1} - eps/S  steepest(g_t) ),

with P the projection on the ball and the box. Layers are the convolutions and linear maps, before
what follows them, in the order in which they run; the last one gives the logits and is left out.
A run ends at the layer, and counts as one of the whole network.

References
----------
Yang, Zhang, Dong, Inkawhich, Gardner, Touchet, Wilkes, Berry, Li. DVERGE: Diversifying
Vulnerabilities for Enhanced Robust Generation of Ensembles. NeurIPS 2020.
Dong, Liao, Pang, Su, Zhu, Hu, Li. Boosting Adversarial Attacks with Momentum. CVPR 2018.
Ilyas, Santurkar, Tsipras, Engstrom, Tran, Madry. Adversarial Examples Are Not Bugs, They Are
Features. NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.ball import Ball
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.models.passes import after_run, before_run

MOMENTUM = 1.0  # mu, as published
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class _ReachedError(Exception):
    """Ends the run of a network at a layer, whose output it carries."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


def find_layers(model: nn.Module, x: Tensor) -> list[str]:
    """Return the names of a network's layers but the last, in the order in which they run.

    Parameters
    ----------
    model : torch.nn.Module
        The network.
    x : torch.Tensor of shape (B, C, H, W)
        Images to run it on.

    Raises
    ------
    MixsolveError
        A network without a convolution or linear map before its logits.
    """
    order: list[str] = []
    hooks = [
        part.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, part in model.named_modules()
        if isinstance(part, _LAYERS)
    ]
    try:
        with frozen(model), torch.no_grad():
            model(x.clone())
    finally:
        for hook in hooks:
            hook.remove()
    layers = list(dict.fromkeys(order[:-1]))
    if not layers:
        raise MixsolveError(
            f"{type(model).__name__} has no convolution or linear map before its logits; name the "
            "layers in dverge.layers"
        )
    return layers


def check_layers(model: nn.Module, layers: Sequence[str]) -> None:
    """Refuse names that are not those of a network's parts."""
    known = dict(model.named_modules())
    for layer in layers:
        if not layer or layer not in known:
            parts = ", ".join(repr(name) for name in known if name)
            raise MixsolveError(
                f"dverge.layers must name parts of the networks, such as {parts[:200]}; got "
                f"{layer!r}"
            )


def features(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """Return what a layer of a frozen network puts out (B, ...) for images (B, C, H, W)."""

    def reached(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        raise _ReachedError(output)

    before = before_run()
    hook = model.get_submodule(layer).register_forward_hook(reached)
    try:
        model(x.clone())
    except _ReachedError as end:
        after_run(before, end.output)
        return end.output
    finally:
        hook.remove()
    raise MixsolveError(f"dverge.layers: {layer!r} is not run by {type(model).__name__}")


def distilled(
    model: nn.Module,
    layer: str,
    source: Tensor,
    target: Tensor,
    *,
    ball: Ball,
    steps: int,
    autocast: torch.dtype | None = None,
) -> Tensor:
    """Return images near some that have the features of others.

    Parameters
    ----------
    model : torch.nn.Module
        The network; its modes are restored.
    layer : str
        The part of it whose output is compared.
    source, target : torch.Tensor of shape (B, C, H, W)
        Images that the result is near to, and those whose features it gets.
    ball : Ball
        Around `source`.
    steps : int
        Steps of the descent, eps / steps long.
    autocast : torch.dtype, optional
        Run the network in it where PyTorch's autocast deems it safe.

    Returns
    -------
    torch.Tensor of shape (B, C, H, W)
        In the ball and the box.
    """
    project, length = ball.projection(source), ball.eps / steps
    with (
        frozen(model),
        torch.autocast(source.device.type, dtype=autocast, enabled=autocast is not None),
    ):
        with torch.no_grad():
            aim = features(model, layer, target).float()
        point, speed = source, torch.zeros_like(source)
        for _ in range(steps):
            point = point.detach().requires_grad_()
            apart = features(model, layer, point).float() - aim
            (slope,) = torch.autograd.grad(apart.square().sum() / 2, point)
            size = slope.abs().sum(dim=(1, 2, 3), keepdim=True)
            speed = MOMENTUM * speed + slope / size.clamp(min=torch.finfo(slope.dtype).tiny)
            ahead = torch.add(point.detach(), ball.direction(-speed, point.detach()), alpha=length)
            point = project(ahead)
    return point.detach()
