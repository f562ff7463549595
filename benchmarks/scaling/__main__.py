"""Time, passes, bytes and memory against N, L and workers: `python -m benchmarks.scaling`.

Writes a table (Markdown), the runs (JSON) and a plot of measured against modelled time to
`benchmarks/results/`, with what the model predicts for a game on 64 machines. Every run is a
process of its own; see `benchmarks.scaling.run` for what is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from rich.console import Console

from benchmarks.report import RESULTS, markdown_table, origin, save
from benchmarks.scaling.model import Model, Prediction, fit, predict
from benchmarks.scaling.run import PLACES
from mixsolve.base.files import written_aside

_CANDIDATES = 10
_SAMPLES = (10_000, 100_000, 1_000_000, 10_000_000)  # with 4 classifiers
_CLASSIFIERS = (2, 10, 50, 200)  # with 10,000 samples
_ALPHAS = {0.0: "lp", 0.05: "newton"}
_BLOCK = 1 << 22  # losses drawn at once
_LINK = 1.25e9  # bytes a second: 10 Gbit/s
_DISK = 10e9
_MACHINES = 64

Kind = tuple[str, str]
"""A place and a method."""


def main() -> int:
    """Run everything, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=float, default=1e7, help="samples of the largest game")
    parser.add_argument("--places", default=",".join(PLACES), help="comma-separated")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    console = Console()
    sizes = [(n, 4) for n in _SAMPLES if n <= args.largest]
    sizes += [(10_000, size) for size in _CLASSIFIERS]
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "losses.npy"
        for samples, classifiers in sizes:
            _write_game(path, samples, classifiers)
            for place in args.places.split(","):
                for workers in (1, 2):
                    for alpha in _ALPHAS:
                        run = _run(path, place, workers, alpha, samples, classifiers)
                        runs.append(run)
                        console.print(_line(run, None), markup=False, highlight=False)
    kinds = dict.fromkeys(map(_kind, runs))
    models = {kind: fit([run for run in runs if _kind(run) == kind]) for kind in kinds}
    _save(runs, models, args.out)
    return 0


def _kind(run: dict[str, Any]) -> Kind:
    """What the runs that a model is fitted to have in common."""
    return run["place"], run["method"]


def _write_game(path: Path, samples: int, classifiers: int) -> None:
    """The gamma game of the other benchmarks, in float32, drawn block by block."""
    rng = np.random.default_rng(0)
    shape = (samples, _CANDIDATES, classifiers)
    losses = open_memmap(path, "w+", np.float32, shape)
    step = max(1, _BLOCK // (_CANDIDATES * classifiers))
    for start in range(0, samples, step):
        stop = min(start + step, samples)
        size = (stop - start, _CANDIDATES, classifiers)
        shared = rng.standard_gamma(1.0, (stop - start, 1, 1), np.float32)
        losses[start:stop] = 0.5 * shared + 1.5 * rng.standard_gamma(0.5, size, np.float32)
    losses.flush()
    del losses


def _run(
    path: Path, place: str, workers: int, alpha: float, samples: int, classifiers: int
) -> dict[str, Any]:
    """One solve in a process of its own."""
    repeats = 5 if samples <= 100_000 else 1
    options = [str(path), "--place", place, "--workers", str(workers)]
    options += ["--alpha", str(alpha), "--repeats", str(repeats)]
    command = [sys.executable, "-m", "benchmarks.scaling.run", *options]
    if place == "ranks":
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
        command = [sys.executable, *launcher, "-m", "benchmarks.scaling.run", *options]
    threads = workers if place in ("memory", "file") else 1
    environment = {**os.environ, "MIXSOLVE_NUM_THREADS": str(threads), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    size = 4.0 * samples * _CANDIDATES * classifiers
    given = {"place": place, "workers": workers, "method": _ALPHAS[alpha], "N": samples}
    return {**given, "L": classifiers, "bytes": size, **found}


_FITTED = (
    "place", "method", "GB/s of a worker", "ms a round", "median misfit", "bytes sent a sample",
)  # fmt: skip
_PREDICTED = (
    "place", "method", "seconds reading", "waiting", "sending", "GB over a link", "rules", "cores",
)  # fmt: skip
_HEAD = (
    "place", "workers", "method", "N", "L", "seconds", "model", "passes", "rounds", "MB read",
    "kB sent", "gap", "private MB", "peak MB", "worker's peak MB",
)  # fmt: skip


def _cells(run: dict[str, Any], model: Model | None) -> list[str]:
    def megabytes(name: str) -> str:
        return f"{run[name] / 1e6:.0f}" if name in run else ""

    return [
        run["place"],
        str(run["workers"]),
        run["method"],
        f"{run['N']:.0e}".replace("e+0", "e"),
        str(run["L"]),
        f"{run['seconds']:.4g}",
        "" if model is None else f"{model.seconds(run):.2g}",
        f"{run['passes']:.1f}",
        str(run["rounds"]),
        f"{run['passes'] * run['bytes'] / 1e6:.0f}",
        f"{run['sent'] / 1e3:.0f}",
        f"{run['gap']:.0e}" if run["status"] == "optimal" else run["status"],
        megabytes("private"),
        megabytes("peak"),
        megabytes("worker"),
    ]


def _line(run: dict[str, Any], model: Model | None) -> str:
    return "  ".join(cell or "-" for cell in _cells(run, model))


def _predictions(
    runs: list[dict[str, Any]], models: dict[Kind, Model]
) -> list[tuple[Kind, Prediction]]:
    """1e9 samples x 100 candidates x 10 classifiers, on machines that each solve their share."""
    found = []
    for kind, model in models.items():
        if kind[0] not in ("dask", "ranks"):
            continue
        alike = [run for run in runs if _kind(run) == kind]
        expected = predict(
            model,
            max(alike, key=lambda run: (run["N"], run["workers"])),
            samples=1e9,
            bytes_per_sample=4.0 * 100 * 10,
            machines=_MACHINES,
            disk=_DISK,
            link=_LINK,
        )
        found.append((kind, expected))
    return found


def _save(runs: list[dict[str, Any]], models: dict[Kind, Model], out: Path) -> None:
    fitted = [
        [
            *kind,
            f"{model.bandwidth / 1e9:.1f}",
            f"{1e3 * model.latency:.2f}",
            f"{100 * model.misfit:.0f} %",
            f"{model.each:.1f}",
        ]
        for kind, model in models.items()
    ]
    predicted = [
        [
            *kind,
            f"{expected.reading:.0f}",
            f"{expected.waiting:.2f}",
            f"{expected.sending:.1f}",
            f"{expected.link / 1e9:.1f}",
            expected.rules,
            f"{expected.cores:.0f}",
        ]
        for kind, expected in _predictions(runs, models)
    ]
    page = [
        "# Scaling",
        "",
        f"{origin('scaling')}. The gamma game with {_CANDIDATES} candidates a sample in float32, "
        "tolerance 1e-6 M. `model` is passes x bytes / (workers x bandwidth) + rounds x latency, "
        "with the figures below. `private` is what the solving process took besides its tensor "
        "(RssAnon), `peak` its largest resident memory, mapped files included, `worker's peak` "
        "that of the largest worker or rank.",
        "",
        *markdown_table(_FITTED, fitted),
        "",
        f"## 1e9 samples x 100 candidates x 10 classifiers on {_MACHINES} machines",
        "",
        f"4 TB of float32, {_DISK / 1e9:.0f} GB/s of disk on each machine, links of "
        f"{_LINK / 1e9:g} GB/s; passes and rounds as in the largest run below, latency as fitted. "
        "`cores` of the kind measured here are what each machine needs to compute as fast as its "
        "disks read; with fewer, reading is slower in proportion.",
        "",
        *markdown_table(_PREDICTED, predicted),
        "",
        "## Runs",
        "",
        *markdown_table(_HEAD, (_cells(run, models[_kind(run)]) for run in runs)),
        "",
        "![measured and modelled time](scaling.png)",
        "",
        "The model leaves out the games on the rows in doubt, which the solving process solves "
        "between the passes: where marks lie well above their line, these take the time.",
    ]
    save(out, "scaling", page, runs)
    _plot(runs, models, out / "scaling.png")


def _plot(runs: list[dict[str, Any]], models: dict[Kind, Model], path: Path) -> None:
    """Time against N and against L, a panel each: marks measured, lines modelled."""
    from benchmarks.figures.style import CYCLE, MARKS, look

    with look():
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.6), sharey=True, layout="constrained")
        for axis, name, other, fixed in ((axes[0], "N", "L", 4), (axes[1], "L", "N", 10_000)):
            exact = [kind for kind in models if kind[1] == "lp"]
            for number, kind in enumerate(exact):
                alike = [run for run in runs if _kind(run) == kind and run["workers"] == 2]
                chosen = [run for run in alike if run[other] == fixed]
                chosen.sort(key=lambda run: run[name])
                model = models[kind]
                at = [run[name] for run in chosen]
                axis.plot(at, [model.seconds(run) for run in chosen], color=CYCLE[number])
                measured = [run["seconds"] for run in chosen]
                axis.plot(at, measured, MARKS[number], color=CYCLE[number], label=kind[0])
            axis.set(xscale="log", yscale="log", xlabel=name, title=f"{other} = {fixed:,}")
        axes[0].set_ylabel("seconds of an exact solve, two workers")
        axes[0].legend(title="marks measured, lines modelled", title_fontsize=8)
        with written_aside(path) as aside:
            figure.savefig(aside, dpi=160)
        plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
