"""Trained networks in files: `best.pt` of the most robust epoch, and `deploy.pt` of what to use.

Both hold the settings of the run, the record of the epoch, the weights of the mixture and the
networks' parameters, and the number of classes. One network alone is a mixture of one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.models.architectures import build_model
from mixsolve_torch.runs import checkpoint

_ENTRIES = ("config", "weights", "models")


def kept_state(
    config: dict[str, Any], record: dict[str, Any], mixture: Mixture, classes: int
) -> dict[str, Any]:
    """Return what a file of trained networks holds."""
    return {
        "config": {**config, "model": {**config["model"], "count": len(mixture)}},
        "record": record,
        "classes": classes,
        "weights": mixture.weights,
        "models": [model.state_dict() for model in mixture.models],
    }


def load_trained(
    path: str | os.PathLike[str], device: torch.device | str = "cpu", *, classes: int | None = None
) -> Mixture:
    """Load the networks of a run, with their weights.

    Parameters
    ----------
    path : str or path
        `deploy.pt` or `best.pt` of a run, or its folder, which means `best.pt`. If the settings
        name a function of yours as the architecture, its module is imported.
    device : torch.device or str, default "cpu"
        Where the networks are to run.
    classes : int, optional
        Number of classes, for files of versions that did not write it.

    Returns
    -------
    Mixture
        In eval mode; of one network where a single one was kept.

    Raises
    ------
    MixsolveError
        A file that is missing, damaged or of another kind, or networks that do not fit their
        architecture.
    """
    return as_mixture(read_kept(path), path, classes).to(device)


def read_kept(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of trained networks, or `best.pt` of a run's folder."""
    path = Path(path)
    file = path / "best.pt" if path.is_dir() else path
    state = checkpoint.load(file)
    checkpoint.check_complete(state, file, _ENTRIES, "mixsolve train")
    return state


def as_mixture(
    state: dict[str, Any], path: str | os.PathLike[str], classes: int | None = None
) -> Mixture:
    """Return the mixture of what `read_kept` read, in eval mode."""
    classes = state.get("classes", classes)
    if classes is None:
        raise MixsolveError(
            f"{os.fspath(path)} was written by a version that did not write the number of classes; "
            "give classes="
        )
    architecture = state["config"]["model"]["architecture"]
    models = []
    for saved in state["models"]:
        model = build_model(architecture, classes=classes)
        try:
            model.load_state_dict(saved)
        except RuntimeError as error:
            why = str(error).strip().partition("\n")[0]
            raise MixsolveError(
                f"{os.fspath(path)} does not fit the networks of model.architecture = "
                f"{architecture!r}: {why}; restore the code that they were trained with"
            ) from error
        models.append(model)
    return Mixture(models, state["weights"]).eval()
