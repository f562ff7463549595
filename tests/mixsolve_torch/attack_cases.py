"""What several tests of attacks share: generated balls, small classifiers, a set of attacks."""

import math

import torch
from hypothesis import strategies as st

from mixsolve_torch import (
    APGD,
    ARC,
    FAB,
    PGD,
    Square,
    Standard,
    Subset,
    TargetedAPGD,
    TransferPGD,
    UniformSampling,
)
from mixsolve_torch.attacks.ball import make_ball

NORMS = ["Linf", "L2", "L1"]
CORNERS = [0.0, 1.0, 0.5]


@st.composite
def balls(draw):
    """Centers in the box (corners of it among them), a norm, a radius, and a seed."""
    shape = (
        draw(st.integers(1, 4)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 6)),
        draw(st.integers(1, 6)),
    )
    seed = draw(st.integers(0, 2**31))
    center = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    center[0] = draw(st.sampled_from(CORNERS))
    eps = draw(st.one_of(st.just(0.0), st.floats(1e-6, 3.0), st.just(8 / 255)))
    norm = draw(st.sampled_from(NORMS))
    # No radius in L1 may exceed the number of entries.
    return center, norm, min(eps, center[0].numel()) if norm == "L1" else eps, seed


def assert_inside(point, center, norm, eps):
    assert point.shape == center.shape
    assert point.dtype == center.dtype
    assert point.min() >= 0
    assert point.max() <= 1
    # The norm is taken in float64; what is left is the rounding of the float32 entries.
    lengths = make_ball(norm, 1).lengths(point.double() - center.double())
    entries = center[0].numel()
    rounding = 1e-7 * {"Linf": 1, "L2": math.sqrt(entries), "L1": entries}[norm]
    assert lengths.max() <= eps + rounding + 1e-6 * eps
    if eps == 0:
        assert torch.equal(point, center)


def two_class(weight, bias=0.0):
    """A linear classifier of the logits (0, <weight, x> + bias)."""
    layer = torch.nn.utils.skip_init(torch.nn.Linear, weight.numel(), 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros_like(weight), weight]))
        layer.bias.copy_(torch.tensor([0.0, bias]))
    return torch.nn.Sequential(torch.nn.Flatten(), layer)


def linear_classifiers(count, pixels, classes=3, generator=None):
    """Linear classifiers of images with so many entries, drawn from a generator."""
    models = []
    for _ in range(count):
        layer = torch.nn.utils.skip_init(torch.nn.Linear, pixels, classes)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(classes, pixels, generator=generator))
            layer.bias.copy_(torch.randn(classes, generator=generator))
        models.append(torch.nn.Sequential(torch.nn.Flatten(), layer))
    return models


def curved(seed=0, hidden=16):
    """A small nonlinear classifier of images (1, 3, 3) in four classes, in float64."""
    draws = torch.Generator().manual_seed(seed)
    layers = []
    for rows, columns in ((hidden, 9), (4, hidden)):
        layer = torch.nn.utils.skip_init(torch.nn.Linear, columns, rows, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(rows, columns, generator=draws))
            layer.bias.copy_(torch.randn(rows, generator=draws))
        layers += [layer, torch.nn.Tanh()]
    return torch.nn.Sequential(torch.nn.Flatten(), *layers[:-1])


def attacks(norm="Linf", eps=0.1, steps=3):
    """Every attack, by a name for the test, with few steps."""
    return {
        "pgd": PGD(norm, eps, steps=steps, restarts=2),
        "pgd still": PGD(norm, eps, steps=steps, random_start=False),
        "pgd every restart": PGD(
            norm, eps, steps=steps, restarts=3, keep_restarts=True, loss="margin"
        ),
        "pgd mean": PGD(norm, eps, steps=steps, loss="mean-probability"),
        "apgd-ce": APGD(norm, eps, steps=steps + 4, restarts=2),
        "apgd-dlr": APGD(norm, eps, steps=steps + 4, loss="dlr"),
        "apgd-hinge": APGD(norm, eps, steps=steps + 4, loss="hinge"),
        "targeted": TargetedAPGD(norm, eps, steps=steps, targets=2),
        "apgd bfloat16": APGD(norm, eps, steps=steps, autocast=True),
        "arc": ARC(norm, eps, steps=steps, restarts=2),
        "subset": Subset(norm, eps, steps=steps),
        "fab": FAB(norm, eps, steps=steps, restarts=2),
        "square": Square(norm, eps, steps=10 * steps, restarts=2),
        "transfer": TransferPGD(norm, eps, steps=steps),
        "uniform": UniformSampling(norm, eps, draws=4),
        "standard": Standard(norm, eps, steps=steps),
        "standard parts": Standard(norm, eps, steps=steps, keep_parts=True),
    }


CASES = list(attacks())
