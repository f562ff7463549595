"""`mixsolve warmup` leaves nothing to compile."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import mixsolve
from mixsolve.base import compilation
from mixsolve.commands.main import main


def kernels():
    """Module, name and a dot of every compiled function that is not part of its callers."""
    for module, content in list(sys.modules.items()):
        if module.startswith("mixsolve.kernels."):
            for name, function in vars(content).items():
                own = getattr(function, "py_func", None)
                inlined = own and function.targetoptions.get("inline") == "always"
                if own is not None and own.__module__ == module and not inlined:
                    yield f"{module}.{name}."


@pytest.fixture(scope="module")
def told():
    """What the command says."""
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["warmup", "--json"]) == 0
    return json.loads(out.getvalue())


def test_it_says_how_long_it_took(told):
    assert told["seconds"] >= told["compile_seconds"] == pytest.approx(sum(told["steps"].values()))
    assert told["folder"]


def test_every_kernel_is_on_disk(told):
    """Those that others call are files of their own, too."""
    files = {path.name for path in Path(told["folder"]).glob("*.kernel")}
    names = [name for name in kernels() if not any(file.startswith(name) for file in files)]
    assert names == []


@pytest.mark.filterwarnings("ignore::mixsolve.ConvergenceWarning")
def test_nothing_is_left_to_compile(told, tmp_path, rng):
    before = compilation.compiling.seconds(0.0, np.inf)
    losses = rng.random((30, 5, 3))
    frozen = losses.copy()
    frozen.flags.writeable = False
    np.save(tmp_path / "losses.npy", losses)
    ragged = [rng.random((m, 3)) for m in (1, 4, 2, 6)]
    rules = {"A_eq": [[1.0, -1.0, 0.0]], "b_eq": [0.1]}
    for given in (
        losses,
        frozen,
        np.load(tmp_path / "losses.npy", mmap_mode="r"),
        losses.astype(np.float32),
        losses[:, ::-1],
        losses > 0.5,
        (9 * losses).astype(int),
        ragged,
    ):
        for alpha in (0.0, 0.02, np.linspace(0.01, 0.1, len(given))):
            mixsolve.solve(given, alpha)
            mixsolve.solve(given, alpha, **rules)
            mixsolve.solve(given, alpha, groups=np.arange(len(given)) % 2)
    mixsolve.solve(losses, candidate_mask=rng.random((30, 5)) < 0.9 + 0.1 * (np.arange(5) == 0))
    mixsolve.solve(losses, 0.1, candidate_prior=rng.random((30, 5)) + 0.1)
    for method in ("interior-point", "oracle"):
        mixsolve.solve(losses, method=method, max_iter=20)
    mixsolve.solve(losses, 0.1, method="apg")
    mixsolve.solve(losses, max_models=2, **rules)
    mixsolve.solve(losses, tail=0.3)
    for alpha in (0.0, 1e-4, 0.1):
        mixsolve.solve_batch(losses.reshape(3, 10, 5, 3), alpha)
        mixsolve.solve_batch([losses, *losses.reshape(3, 10, 5, 3).astype(np.float32)], alpha)
    assert compilation.compiling.seconds(0.0, np.inf) == before
