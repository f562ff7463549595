"""Settings of runs that take a second, and what is compared of two runs."""

import json
from dataclasses import replace
from pathlib import Path

import torch

from mixsolve_torch.runs import checkpoint
from mixsolve_torch.training import (
    AttackConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    WeightsConfig,
)

PLAIN = TrainConfig(
    data=DataConfig(limit=60),
    model=ModelConfig(count=2),
    attack=AttackConfig(eps=0.1, steps=1),
    optimizer=OptimizerConfig(epochs=1, batch_size=32, learning_rate=0.05),
    weights=WeightsConfig(final="last"),
    evaluation=EvaluationConfig(steps=1, images=12, final="none"),
    run=RunConfig(tensorboard=False, device="cpu"),
)
FINAL = {"final": "pgd", "final_steps": 1, "final_restarts": 1, "final_images": 8}
ALGORITHM2 = {"update": "oracle", "t_theta": 1, "t_lambda": 5}


def tiny_config(folder, **sections):
    """Settings of a run in a folder: of a section, those that differ from `PLAIN`.

    A section may also be given whole, and what is none by its value.
    """
    sections["run"] = {"out": str(folder)} | sections.get("run", {})
    return replace(
        PLAIN,
        **{
            name: replace(getattr(PLAIN, name), **given) if isinstance(given, dict) else given
            for name, given in sections.items()
        },
    )


def toml(config):
    """The settings as the text of a file."""
    sections = config.to_dict()
    lines = [f"{name} = {json.dumps(sections.pop(name))}" for name in ("method", "objective")]
    for section, values in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {json.dumps(v)}" for name, v in values.items() if v is not None]
    return "\n".join(lines)


def records(folder):
    """The metrics of a run, but for the seconds."""
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) | {"seconds": 0} for line in lines]


def tensors(value):
    """All tensors of a checkpoint, by where they stand in it."""
    if isinstance(value, torch.Tensor):
        return {"": value}
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {}
    return {
        f"{name}/{place}": found
        for name, entry in value.items()
        for place, found in tensors(entry).items()
    }


def assert_same_run(one, other):
    """Every bit of two runs' checkpoints is the same, and their metrics are."""
    for name in ("last.pt", "best.pt"):
        a, b = (tensors(checkpoint.load(Path(folder) / name)) for folder in (one, other))
        assert a.keys() == b.keys()
        assert [place for place in a if not torch.equal(a[place], b[place])] == []
    assert records(one) == records(other)
