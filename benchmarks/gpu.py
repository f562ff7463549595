"""All that only a GPU can tell, in under ten minutes: `python -m benchmarks.gpu`.

Float32 certificates against float64 in memory; a solve on the device against a copy to the host;
how often the host waits; images a second of the standard attack, of training steps and of PGD, each
beside its least work; a rank of NCCL. Every section has a limit and fails alone, and the page,
`gpu.md` with `gpu.json` in `benchmarks/results/`, is written after each (`benchmarks.sections`).

    python -m benchmarks.gpu --device cpu --scale small --out folder     # the same in seconds
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
import torch

from benchmarks import gpu_games, gpu_networks, gpu_waits
from benchmarks.gpu_scale import Scale, scale_of
from benchmarks.report import RESULTS, origin
from benchmarks.sections import Row, Section, run_sections
from mixsolve.base.errors import MixsolveError

SECONDS = 570.0  # of all sections together
_COPY = 1 << 28  # bytes


def machine(scale: Scale) -> Iterator[Row | str]:
    """Name the device and the versions, and measure its copies."""
    device = torch.device(scale.device)
    name = torch.cuda.get_device_name(device) if scale.is_gpu else platform.processor() or "CPU"
    yield {"what": "device", "found": name}
    if scale.is_gpu:
        own = torch.cuda.get_device_properties(device)
        yield {"what": "memory of the device, GB", "found": own.total_memory / 1e9}
        yield {"what": "CUDA, cuDNN", "found": f"{torch.version.cuda}, {_cudnn()}"}
    versions = {"PyTorch": torch, "NumPy": np, "Numba": numba}
    for what, module in versions.items():
        yield {"what": what, "found": module.__version__}
    yield {"what": "Python", "found": platform.python_version()}
    yield {"what": "cores", "found": os.cpu_count()}
    size = _COPY if scale.is_gpu else 1 << 20
    there = torch.empty(size, dtype=torch.uint8, device=device).zero_()
    here = torch.zeros(size, dtype=torch.uint8)
    works = {
        "copy on the device": lambda: there.clone(),
        "copy to the host": lambda: here.copy_(there),
        "copy to the device": lambda: there.copy_(here),
    }
    for what, seconds in gpu_games.least(works, scale).items():
        yield {"what": f"{what}, GB/s", "found": size / seconds / 1e9}


def _cudnn() -> int | None:
    return torch.backends.cudnn.version()


SECTIONS = [
    Section("machine", "Device and versions", "Copies are of pageable memory.", 20.0, machine),
    Section(
        "certificates",
        "Float32 games on the device",
        "`values` is how far the value is from that of the same losses as float64 in memory, `gap` "
        "the certified gap, and `gap in NumPy` the gap computed again from weights and attack; all "
        "over the spread of the losses.",
        130.0,
        gpu_games.certificates,
    ),
    Section(
        "threshold",
        "On the device, or copied to the host",
        "Least times of solves to the default tolerance of float32 tensors (N, 20, 10) on the "
        "device: `device` where they are, `host` with the copy and the memory engine.",
        100.0,
        gpu_games.threshold,
    ),
    Section(
        "waits",
        "How often the host waits for the device",
        "`waits on the GPU` are PyTorch's own reports; calls are those of Python that lead to one.",
        45.0,
        gpu_waits.waits,
    ),
    Section(
        "standard",
        "The standard attack",
        "On images that resist to the end, the costliest ones; `over least work` is its time over "
        "that of the same number of bare passes. In float32 convolutions use TF32 where PyTorch "
        "does so by default.",
        110.0,
        gpu_networks.standard,
    ),
    Section(
        "training",
        "Training steps",
        "Those of `python -m benchmarks.training`, PGD-10 and, on a GPU, bfloat16; `step` in "
        "seconds.",
        80.0,
        gpu_networks.training_steps,
    ),
    Section(
        "attack",
        "PGD-10 beside its bare networks",
        "Those of `python -m benchmarks.attacks`; the aim is a ratio of at most "
        f"{gpu_networks.pgd.TARGET}.",
        60.0,
        gpu_networks.attack,
    ),
    Section(
        "ranks",
        "A rank of torch.distributed",
        "One process with the device solves as the only rank of its group.",
        60.0,
        gpu_games.ranks,
    ),
]


def main(words: list[str] | None = None) -> int:
    """Run the sections, and say how each ended."""
    names = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--scale", choices=("full", "small"), default="full")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="SECTION")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of all sections together")
    parser.add_argument("--out", type=Path, default=None, help="folder of the page")
    args = parser.parse_args(words)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise MixsolveError("--device cuda needs a GPU that PyTorch sees; --device cpu needs none")
    if args.out is None:
        if args.device == "cpu" or args.scale != "full":
            raise MixsolveError("results/gpu.md is of a GPU in full; name another folder by --out")
        args.out = RESULTS
    began = time.perf_counter()
    title = "# On a GPU" if args.device == "cuda" else "# What runs on a GPU, tried on the CPU"
    program = f"gpu --device {args.device} --scale {args.scale}"
    outcomes = run_sections(
        [section for section in SECTIONS if section.name in args.only],
        scale_of(args.scale, args.device),
        args.seconds,
        head=[title, "", f"{origin(program, f'PyTorch {torch.__version__}')}."],
        out=args.out,
        name="gpu",
        say=lambda line: print(line, flush=True),
    )
    print(f"{time.perf_counter() - began:.0f} s; {args.out / 'gpu.md'}")
    return 0 if all(found.state == "done" for found in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
