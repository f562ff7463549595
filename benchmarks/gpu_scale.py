"""How large the figures of `benchmarks.gpu` are: those asked for, and a few seconds on a CPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Scale:
    """Sizes of all sections.

    Attributes
    ----------
    device : str
        Where losses and networks are.
    game : tuple of int
        N, m, L of the games whose certificates are compared.
    megabytes : tuple of float
        Sizes of float32 tensors to be solved on the device and on the host.
    repeats : int
        Runs of which the least time counts.
    network, shape, batch : str, tuple of int, int
        A classifier by the name of its architecture, its images, and how many of them.
    counts : tuple of int
        Numbers of classifiers.
    attack_steps : int
        Steps of the standard attack.
    rounds : int
        Turns in which training steps and attacks are compared with their bare passes.
    chunk : int, optional
        Losses that a pass reads at once: given on the CPU, where PyTorch's operations are asked
        for by it.
    """

    device: str
    game: tuple[int, int, int] = (5000, 50, 10)
    megabytes: tuple[float, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    repeats: int = 5
    network: str = "resnet18"
    shape: tuple[int, int, int] = (3, 32, 32)
    batch: int = 512
    counts: tuple[int, ...] = (1, 2)
    attack_steps: int = 20
    rounds: int = 9
    chunk: int | None = None

    @property
    def is_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return torch.device(self.device).type == "cuda"

    def synchronize(self) -> None:
        """Wait until the device has done what it was given."""
        if self.is_gpu:
            torch.cuda.synchronize()


def scale_of(name: str, device: str) -> Scale:
    """Return the scale "full" or "small"."""
    chunk = None if torch.device(device).type == "cuda" else 1 << 18
    if name == "full":
        return Scale(device, chunk=chunk)
    return Scale(
        device,
        game=(24, 6, 3),
        megabytes=(0.01, 0.02),
        repeats=2,
        network="digits-cnn",
        shape=(1, 8, 8),
        batch=4,
        counts=(1,),
        attack_steps=2,
        rounds=2,
        chunk=chunk,
    )
