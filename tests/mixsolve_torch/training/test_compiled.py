"""`run.compile` reaches the descent, the attack, the measurements and the final attacks."""

from collections import Counter

import numpy as np
import pytest
import torch
from tiny_runs import FINAL, tiny_config

from mixsolve_torch.training import ending, loop, train
from mixsolve_torch.training.adversary import Adversary

PHASES = ("attack", "descent", "epoch", "weights", "final")
SHALLOW = "import torch\ndef build(classes):\n    return torch.nn.Sequential(" + (
    "torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, classes))\n"
)


def tiny(folder, compiled, ema=0.0, final="pgd"):
    return tiny_config(
        folder,
        data={"limit": 80},
        model={"architecture": "shallow_network:build", "ema": ema},
        attack={"steps": 2},
        optimizer={"batch_size": 24},
        weights={"final": "game"},
        evaluation=FINAL
        | {"final": final, "steps": 2, "images": None, "final_steps": 2, "final_images": 12},
        run={"compile": compiled},
    )


@pytest.fixture
def shallow(tmp_path, monkeypatch):
    (tmp_path / "shallow_network.py").write_text(SHALLOW)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(("ema", "final"), [(0.0, "pgd"), (0.9, "none")])
def test_all_parts_of_a_run_go_through_compiled_networks(
    shallow, tmp_path, monkeypatch, ema, final
):
    runs, phase, limits = Counter(), ["descent"], set()
    before = torch._dynamo.config.recompile_limit

    def counting(graph, _):
        limits.add(torch._dynamo.config.recompile_limit)

        def run(*inputs):
            runs[phase[0]] += 1
            return graph.forward(*inputs)

        return run

    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compile_with(model, backend=counting))

    def during(name, owner, attribute):
        plain = getattr(owner, attribute)

        def wrapped(*arguments, **options):
            before, phase[0] = phase[0], name
            try:
                return plain(*arguments, **options)
            finally:
                phase[0] = before

        monkeypatch.setattr(owner, attribute, wrapped)

    during("attack", Adversary, "__call__")
    during("epoch", loop, "measure_epoch")
    during("weights", ending, "solve_weights")
    during("final", ending, "evaluate" if final == "pgd" else "found_losses")
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        compiled = train(tiny(tmp_path / "compiled", True, ema, final))
    assert set(runs) == set(PHASES), runs
    # All ways of running all networks share one limit, beyond which they would run uncompiled.
    assert limits == {2 * 16}
    assert torch._dynamo.config.recompile_limit == before
    # Three batches; each is attacked in two steps and trained on, by two networks.
    assert runs["attack"] == 3 * 2 * 2
    assert runs["descent"] == 3 * 2
    plain = train(tiny(tmp_path / "plain", False, ema, final))
    assert sum(runs.values()) == sum(runs[name] for name in PHASES)
    for one, other in zip(compiled.mixture.parameters(), plain.mixture.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for name in ("clean", "robust"):
        assert compiled.best[name]["models"] == pytest.approx(plain.best[name]["models"])
    torch.testing.assert_close(compiled.mixture.weights, plain.mixture.weights)
    if final == "pgd":
        np.testing.assert_array_equal(compiled.evaluation.losses, plain.evaluation.losses)
    assert compiled.verdict == plain.verdict
