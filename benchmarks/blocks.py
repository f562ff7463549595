"""Tensors in files against the time to read them: `python -m benchmarks.blocks`.

Each solve runs in a process of its own, whose private memory (RssAnon) is sampled every 20 ms; its
kernels are loaded, by a small game, before the clock starts. Just before, the file is read once in
the same state, in blocks into one reused buffer by as many threads as the solve has. Cold means
that no page of the file is in memory, which is asked of the system (mincore). At a ratio of 1 a
solve costs what reading the file once a pass does. A file that fits in memory is cold in the first
pass alone, so `ratio` is seconds / (one read in its state + the other passes warm), the sterner.
`off memory` is how far the value is from what the same losses in memory give, and how far a weight.

`--gigabytes 8` is the size that must not need a gigabyte of memory; files lie in --folder.
"""

import argparse
import ctypes
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.report import RESULTS, markdown_table, origin, save
from mixsolve import games
from mixsolve.arrays.files import load_array
from mixsolve.base.threads import n_threads

BLOCK = 8 << 20  # bytes
ALPHAS = (0.0, 0.01)
GAMES = {  # candidates, classifiers, type
    "gamma float32": (100, 10, np.float32),
    "gamma float32, few candidates": (20, 10, np.float32),
    "discs uint8": (800, 10, np.uint8),
}
STORED = ("npy", "zarr", "zarr-plain", "hdf5", "hdf5-gzip")


@dataclass(frozen=True)
class Row:
    """One state of one file: medians over the repeats, and the extremes of what varies."""

    file: str
    shape: list[int]
    gigabytes: float
    alpha: float
    state: str
    read_seconds: float
    seconds: float
    passes: float
    ratio: float
    ratio_range: list[float]
    private_megabytes: float
    value: float
    gap: float
    off_memory: list[float]


def draws(name: str, n_samples: int) -> Iterator[np.ndarray]:
    """The losses of a game, some samples at a time."""
    n_candidates, n_classifiers, _ = GAMES[name]
    step = max(1, (1 << 22) // (n_candidates * n_classifiers))
    rng = np.random.default_rng(0)
    if name.startswith("gamma"):
        shape = (n_candidates, n_classifiers)
        pool = rng.standard_gamma(0.5, (4 * step, *shape), dtype=np.float32) * np.float32(1.5)
        for start in range(0, n_samples, step):
            n = min(step, n_samples - start)
            block = pool[rng.integers(0, len(pool), n)]
            block *= rng.random((n, n_candidates, 1), dtype=np.float32) + np.float32(0.5)
            yield block + rng.standard_gamma(1.0, (n, 1, 1), dtype=np.float32) / 2
        return
    known = games.paper2d(1000, 1, n_classifiers, seed=0).details
    lines = known["directions"].T.astype(np.float32), known["intercepts"].astype(np.float32)
    for start in range(0, n_samples, step):
        n = min(step, n_samples - start)
        labels = rng.choice([-1, 1], n)
        points = rng.standard_normal((n, 1, 2), dtype=np.float32)
        points[:, 0, 0] += np.where(labels == 1, rng.choice([-3.0, 3.0], n), 0.0)
        radii = 3.0 * np.sqrt(rng.random((n, n_candidates), dtype=np.float32))
        angles = rng.random((n, n_candidates), dtype=np.float32) * np.float32(2.0 * np.pi)
        moved = points + np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)
        yield (labels[:, None, None] * (moved @ lines[0] + lines[1]) <= 0).astype(np.uint8)


def write(name: str, stored: str, n_samples: int, folder: Path) -> Path:
    """Write a game to a file of its own, block by block."""
    n_candidates, n_classifiers, dtype = GAMES[name]
    shape = (n_samples, n_candidates, n_classifiers)
    chunk = (max(1, (1 << 20) // (n_candidates * n_classifiers)), n_candidates, n_classifiers)
    path = folder / f"losses.{stored.partition('-')[0]}"
    if stored == "npy":
        with path.open("wb") as file:
            header = {"shape": shape, "fortran_order": False, "descr": np.dtype(dtype).str}
            np.lib.format.write_array_header_2_0(file, header)
            for block in draws(name, n_samples):
                block.tofile(file)
        return path
    array, close = _created(path, stored, shape, chunk, dtype)
    start = 0
    for block in draws(name, n_samples):
        array[start : start + len(block)] = block
        start += len(block)
    close()
    return path


def _created(
    path: Path, stored: str, shape: tuple[int, ...], chunk: tuple[int, ...], dtype: Any
) -> tuple[Any, Callable[[], object]]:
    if stored.startswith("zarr"):
        import zarr

        options: dict[str, Any] = {} if stored == "zarr" else {"compressors": None}
        array = zarr.create_array(str(path), shape=shape, chunks=chunk, dtype=dtype, **options)
        return array, lambda: None
    import h5py

    file = h5py.File(path, "w")
    packed = {"chunks": chunk, "compression": "gzip", "compression_opts": 1}
    options = packed if stored == "hdf5-gzip" else {}
    return file.create_dataset("losses", shape, dtype, **options), file.close


def parts(path: Path) -> list[Path]:
    """The files a tensor lies in: one, or those of a Zarr store."""
    return [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]


def evict(path: Path) -> None:
    """Take a tensor's files out of the page cache, and see that they are out."""
    for part in parts(path):
        with part.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            size = part.stat().st_size
            if size and (share := _resident(file.fileno(), size)) > 0.001:
                raise SystemExit(f"{part.name} could not be made cold: {share:.1%} is in memory")


def _resident(descriptor: int, size: int) -> float:
    pages = mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE)  # writable, for its address
    there = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    system = ctypes.CDLL(None, use_errno=True)
    address = ctypes.byref(ctypes.c_char.from_buffer(pages))
    if system.mincore(address, ctypes.c_size_t(size), there):
        raise OSError(ctypes.get_errno(), "mincore failed")
    return float(np.mean(np.frombuffer(there, np.uint8) & 1))


def read_once(path: Path) -> float:
    """Seconds to read a tensor once, a share for each thread."""
    began = time.perf_counter()
    if path.suffix == ".npy":
        size = path.stat().st_size

        def share(thread: int) -> None:
            buffer = memoryview(bytearray(BLOCK))
            with path.open("rb", buffering=0) as file:
                end = (thread + 1) * size // n_threads()
                for place in range(thread * size // n_threads(), end, BLOCK):
                    os.preadv(file.fileno(), [buffer], place)
    else:
        array = load_array(path, "losses")
        step = array.chunks[0] if array.chunks else max(1, BLOCK // array[:1].nbytes)

        def share(thread: int) -> None:
            for place in range(thread * step, array.shape[0], n_threads() * step):
                array[place : place + step]

    with ThreadPoolExecutor(n_threads()) as pool:
        list(pool.map(share, range(n_threads())))
    return time.perf_counter() - began


_SOLVE = """
import json, sys, time
import numpy as np, mixsolve
from mixsolve.arrays.files import load_array
losses, alpha = load_array(sys.argv[1], "losses"), float(sys.argv[2])
if sys.argv[3] == "memory":
    losses = np.array(losses[:])
mixsolve.solve(np.random.default_rng(0).integers(0, 2, (3000, 20, 10), np.uint8), alpha)
mixsolve.solve(np.random.default_rng(0).random((9000, 20, 10), np.float32), alpha)
began = time.perf_counter()
solution = mixsolve.solve(losses, alpha)
seconds = time.perf_counter() - began
names = ("value", "gap", "n_passes")
found = {name: getattr(solution, name) for name in names}
found["weights"] = solution.weights.tolist()
print(json.dumps(found | {"shape": losses.shape, "seconds": seconds}))
"""


def solve(path: Path, alpha: float, where: str = "file") -> tuple[dict[str, Any], float]:
    """What a solve found in what time, and the most private memory that it had, in bytes."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SOLVE, str(path), str(alpha), where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    most = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        lines = [line for line in status.splitlines() if line.startswith("RssAnon")]
        most = max(most, *(1024 * int(line.split()[1]) for line in lines), 0)
        time.sleep(0.02)
    out, err = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"the solve failed: {err}")
    return json.loads(out), most


def measure(title: str, path: Path, alpha: float, repeats: int) -> list[Row]:
    """A row for the cold file, and one for the warm."""
    figures: dict[str, list[tuple[float, ...]]] = {"cold": [], "warm": []}
    known, _ = solve(path, alpha, "memory")
    off_memory = [0.0, 0.0]
    for _ in range(repeats):
        evict(path)
        cold = read_once(path)
        warm = read_once(path)
        for state, read in (("cold", cold), ("warm", warm)):
            if state == "cold":
                evict(path)
            found, memory = solve(path, alpha)
            off_memory = [
                max(off, float(np.max(np.abs(np.subtract(found[name], known[name])))))
                for off, name in zip(off_memory, ("value", "weights"), strict=True)
            ]
            seconds, passes = found["seconds"], found["n_passes"]
            expected = read + (passes - 1.0) * warm
            figures[state].append((read, seconds, passes, seconds / expected, memory))
    gigabytes = sum(part.stat().st_size for part in parts(path)) / 1e9
    rows = []
    for state, runs in figures.items():
        read, seconds, passes, ratio, _ = (median(column) for column in zip(*runs, strict=True))
        ratios = [run[3] for run in runs]
        most = max(run[4] for run in runs) / 1e6
        spread = [min(ratios), max(ratios)]
        rows.append(
            Row(title, found["shape"], gigabytes, alpha, state, read, seconds, passes, ratio,
                spread, most, found["value"], found["gap"], off_memory)
        )  # fmt: skip
    return rows


_COLUMNS = (
    "file", "shape", "GB", "alpha", "state", "read once [s]", "solve [s]", "passes",
    "solve / (passes x read)", "ratio", "from - to", "private MB", "value",
    "off memory",
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table."""
    return (
        row.file,
        " x ".join(map(str, row.shape)),
        f"{row.gigabytes:.2f}",
        f"{row.alpha:g}",
        row.state,
        f"{row.read_seconds:.3g}",
        f"{row.seconds:.3g}",
        f"{row.passes:.2f}",
        f"{row.seconds / (row.passes * row.read_seconds):.2f}",
        f"{row.ratio:.2f}",
        f"{row.ratio_range[0]:.2f} - {row.ratio_range[1]:.2f}",
        f"{row.private_megabytes:.0f}",
        f"{row.value:.9g}",
        f"{row.off_memory[0]:.0e}, {row.off_memory[1]:.0e}",
    )


def main() -> int:
    """Write, measure and remove one file after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=0.5, help="of each tensor")
    parser.add_argument("--stored", default=",".join(STORED), help="only these, comma-separated")
    parser.add_argument("--games", default="", help="only those whose name contains this")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are written meanwhile")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    rows: list[Row] = []
    for name, (n_candidates, n_classifiers, dtype) in GAMES.items():
        per_sample = n_candidates * n_classifiers * np.dtype(dtype).itemsize
        for stored in args.stored.split(","):
            if args.games not in name or (stored != "npy" and "few" in name):
                continue
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                path = write(name, stored, int(args.gigabytes * 1e9) // per_sample, Path(folder))
                for alpha in ALPHAS:
                    solve(path, alpha)  # compiles what is not compiled yet
                    rows += measure(f"{name}, {stored}", path, alpha, args.repeats)
                    _show(rows[-2:])
                    _save(args.out, f"blocks-{args.gigabytes:g}gb", rows, args.repeats)
    return 0


def _show(rows: list[Row]) -> None:
    table = Table(*_COLUMNS)
    for row in rows:
        table.add_row(*cells(row))
    Console(width=200).print(table)


def _save(out: Path, name: str, rows: list[Row], repeats: int) -> None:
    page = [
        "# Tensors in files",
        "",
        f"{origin('blocks')}, tolerance 1e-6 M. Medians of {repeats} runs, each after reading the "
        f"file in the same state in blocks of {BLOCK >> 20} MiB with {n_threads()} threads. A "
        "file that fits in memory is cold in its first pass alone: `ratio` is solve / (one read in "
        "its state + the other passes warm), `from - to` its extremes, and `private MB` the most "
        "private memory (RssAnon) of all runs. `off memory` is how far the value is from "
        "what the same losses in memory give, and how far a weight.",
        "",
        *markdown_table(_COLUMNS, map(cells, rows)),
    ]
    save(out, name, page, [asdict(row) for row in rows])


if __name__ == "__main__":
    sys.exit(main())
