"""The settings of a run: what is measured, and where and how it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from mixsolve.base.arguments import as_count


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured during training and at the end.

    Parameters
    ----------
    select : {"validation", "test"}
        What the most robust epoch is selected on. The article selects on the test set, which
        flatters the result.
    every : int
        Epochs per model between two measurements.
    steps : int
        Steps of APGD in the measurements during training: half of them on the cross-entropy, half
        on the hinge.
    images : int, optional
        Images of the measurements during training; all by default.
    final : str
        Attacks at the end, a name as `resolve_attacks` knows it; "none" for no final evaluation:
        what to deploy is then decided on held-out images.
    final_steps, final_restarts : int
        Their effort.
    final_images : int, optional
        Test images attacked at the end; all by default.
    compare : str, optional
        A network to compare the mixture with in the end, one trained at equal cost: `best.pt` of a
        run with ``model.count = 1``, or the run's folder. The best network of the mixture is
        compared in any case.
    """

    select: Literal["validation", "test"] = "validation"
    every: int = 1
    steps: int = 20
    images: int | None = None
    final: str = "standard"
    final_steps: int = 100
    final_restarts: int = 5
    final_images: int | None = None
    compare: str | None = None

    def check(self) -> None:
        """Refuse values out of their range."""
        as_count("evaluation.every", self.every)
        as_count("evaluation.steps", self.steps)
        as_count("evaluation.final_steps", self.final_steps)
        as_count("evaluation.final_restarts", self.final_restarts)
        for name, limit in (
            ("evaluation.images", self.images),
            ("evaluation.final_images", self.final_images),
        ):
            if limit is not None:
                as_count(name, limit)


@dataclass(frozen=True)
class RunConfig:
    """Where and how it runs.

    Parameters
    ----------
    out : str
        Folder of checkpoints, metrics and pictures.
    seed : int
        Of all random draws.
    device : str
        "auto" for the accelerator if there is one, or a device as PyTorch names it.
    autocast : bool
        Run networks in half precision where PyTorch's autocast deems it safe.
    autocast_dtype : {"bfloat16", "float16"}
        In which one. "float16" is for accelerators without bfloat16; losses are scaled so that its
        gradients do not vanish, and steps whose gradients overflow are left out. Epochs are then
        measured in single precision.
    channels_last : bool
        Keep images and networks in the memory format that suits convolutions on accelerators.
    compile : bool
        Run networks through `torch.compile`: in training, its attacks, the measurements of epochs,
        and the final attacks.
    save_every : int
        Steps between two checkpoints besides those after each epoch; 0 for none.
    tensorboard : bool
        Write event files too, if TensorBoard is installed.
    """

    out: str = "runs/mixture"
    seed: int = 0
    device: str = "auto"
    autocast: bool = False
    autocast_dtype: Literal["bfloat16", "float16"] = "bfloat16"
    channels_last: bool = False
    compile: bool = False
    save_every: int = 0
    tensorboard: bool = True

    @property
    def half(self) -> torch.dtype | None:
        """What networks run in under autocast; None without it."""
        return getattr(torch, self.autocast_dtype) if self.autocast else None

    def check(self) -> None:
        """Refuse values out of their range."""
        as_count("run.seed", self.seed, 0)
        as_count("run.save_every", self.save_every, 0)
