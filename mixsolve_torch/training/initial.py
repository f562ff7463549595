"""The networks that a run begins with: of random weights, or from files.

Random weights are drawn from seeds of the run's own. Of the files, a run's folder, `best.pt` or
`deploy.pt` holds one network or a mixture of several, and says of which architecture and for how
many classes; a state dict, alone or under the key "state_dict", holds the parameters of one
network. Files are read without running code, and their networks are tried in one of
`model.architecture` before anything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.models.architectures import build_model
from mixsolve_torch.models.load import load_weights, read_state_dict, read_tensors
from mixsolve_torch.runs.fingerprint import digest
from mixsolve_torch.training.config import STAGED, TrainConfig
from mixsolve_torch.training.kept import read_kept
from mixsolve_torch.training.ranks import Ranks

Parameters = Mapping[str, Tensor]


def initial_networks(config: TrainConfig, classes: int, device: torch.device) -> list[nn.Module]:
    """Return the L networks of a run with their random initial weights, on a device."""
    options = config.model
    seeds = range(options.count * config.run.seed, options.count * (config.run.seed + 1))
    models = [build_model(options.architecture, classes=classes, seed=seed) for seed in seeds]
    if config.run.channels_last:
        models = [model.to(memory_format=torch.channels_last) for model in models]
    return [model.to(device) for model in models]


def read_pretrained(config: TrainConfig, classes: int, ranks: Ranks) -> list[Parameters]:
    """Return the parameters of the networks that ``model.pretrained`` names, in its order.

    Parameters
    ----------
    config : TrainConfig
        The settings.
    classes : int
        Number of classes of the images.
    ranks : Ranks
        All processes of the run, which must read the same.

    Raises
    ------
    MixsolveError
        A file that is missing, broken or of another kind; networks of another architecture, for
        other classes, or of another number than the method takes.
    """
    files = config.model.pretrained or []
    found = [each for file in files for each in _read(Path(file), config, classes)]
    if files:
        _check_count(len(found), config)
    parts = [digest(each) for parameters in found for each in parameters.values()]
    ranks.agree(parts, "model.pretrained must give the same networks on every rank")
    return found


def _read(path: Path, config: TrainConfig, classes: int) -> Sequence[Parameters]:
    """Return the parameters of the networks of one file or folder."""
    architecture = config.model.architecture
    if path.is_dir() or _is_of_a_run(path):
        state = read_kept(path)
        told = state["config"]["model"]["architecture"]
        if told != architecture:
            raise MixsolveError(
                f"model.pretrained {str(path)!r} holds networks of model.architecture = {told!r}; "
                f"the run has {architecture!r}: take the same"
            )
        count = state.get("classes", classes)
        if count != classes:
            raise MixsolveError(
                f"model.pretrained {str(path)!r} holds networks for {count} classes; the images "
                f"have {classes}"
            )
        found: Sequence[Parameters] = state["models"]
    else:
        found = [read_state_dict(path)]
    model = build_model(architecture, classes=classes)
    for parameters in found:
        load_weights(model, parameters, path, f"model.architecture = {architecture!r}")
    return found


def _is_of_a_run(path: Path) -> bool:
    state: Any = read_tensors(path)
    return isinstance(state, Mapping) and {"config", "models", "weights"} <= set(state)


def _check_count(found: int, config: TrainConfig) -> None:
    """Refuse another number of networks than the method takes."""
    count, fixed = config.model.count, config.boosting.fixed
    if config.method not in STAGED and found != count:
        raise MixsolveError(
            f"model.pretrained must give a network for each of model.count = {count}; got {found}"
        )
    if config.method in STAGED and not max(1, fixed) <= found <= count:
        raise MixsolveError(
            f"model.pretrained must give at least boosting.fixed = {fixed} networks and at most "
            f"model.count = {count}; got {found}"
        )
