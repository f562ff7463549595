"""What PGD on a mixture costs beside the bare networks: `python -m benchmarks.attacks`.

PGD-10 on L classifiers needs 10 L forward and input-gradient passes at the least. Both are run on
the same networks in turn, which goes first changing every time, and the median of the ratios of
neighbours is the figure: what else the machine does meets both alike, and the ratio carries over
to other machines where seconds do not. On a busy machine the ratio of the fastest runs of each
says the same with less noise. Ten of PGD's eleven points are passed forward and back, the
last one forward only. On a GPU the images per second are measured as well, in float32 and bfloat16,
with and without `torch.compile`, in channels-last memory. Writes `attacks.md` and `attacks.json`
to `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.report import RESULTS, markdown_table, origin, save
from mixsolve_torch import PGD, Mixture, digits_cnn
from mixsolve_torch.models.architectures import resnet18
from mixsolve_torch.models.classifiers import frozen

STEPS = 10
TARGET = 1.15
NETWORKS: dict[str, tuple[Callable[..., nn.Module], tuple[int, int, int]]] = {
    "digits_cnn": (digits_cnn, (1, 8, 8)),
    "resnet18": (resnet18, (3, 32, 32)),
}


@dataclass(frozen=True)
class Case:
    """One setting: a network, L of it, and how it is run."""

    network: str
    device: str
    batch: int
    classifiers: int
    repeats: int
    bfloat16: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class Figure:
    """What was measured of a case.

    Attributes
    ----------
    ratio, low, high : float
        Median and quartiles of PGD's time over that of the bare passes.
    fastest : float
        The ratio of the fastest runs of each.
    attack_seconds, bare_seconds : float
        Medians.
    images_per_second : float
        Images attacked, by the median time.
    """

    case: Case
    ratio: float
    low: float
    high: float
    fastest: float
    attack_seconds: float
    bare_seconds: float
    images_per_second: float


def cases(repeats: int) -> Iterator[Case]:
    """Yield the cases for the devices at hand."""
    for batch, classifiers in itertools.product((256, 1024), (1, 2, 4)):
        yield Case("digits_cnn", "cpu", batch, classifiers, repeats)
    for classifiers in (1, 2):
        yield Case("resnet18", "cpu", 8, classifiers, max(3, repeats // 5))
    if torch.cuda.is_available():
        for compiled, bfloat16, classifiers in itertools.product(
            (False, True), (False, True), (1, 2, 4)
        ):
            yield Case("resnet18", "cuda", 1024, classifiers, 10, bfloat16, compiled)


def measure(case: Case) -> Figure:
    """Run PGD and the bare passes in turn."""
    make, shape = NETWORKS[case.network]
    draws = torch.Generator().manual_seed(0)
    layout = torch.channels_last if case.device == "cuda" else torch.contiguous_format
    x = torch.rand(case.batch, *shape, generator=draws).to(case.device, memory_format=layout)
    y = torch.randint(10, (case.batch,), generator=draws).to(case.device)
    models = [make(seed=seed) for seed in range(case.classifiers)]
    mixture = Mixture(models).to(case.device, memory_format=layout)
    attack = PGD("Linf", 8 / 255, steps=STEPS, autocast=case.bfloat16, compile=case.compiled)
    runs: list[Callable[[Tensor], Tensor]] = list(mixture.models)
    if case.compiled:
        runs = [torch.compile(model) for model in mixture.models]

    def bare() -> None:
        for _, run in itertools.product(range(STEPS), runs):
            point = x.detach().requires_grad_()
            with torch.autocast(case.device, dtype=torch.bfloat16, enabled=case.bfloat16):
                logits = run(point)
            loss = nn.functional.cross_entropy(logits.float(), y, reduction="sum")
            torch.autograd.grad(loss, point)

    pairs: list[tuple[float, float]] = []
    with frozen(mixture):
        for repeat in range(-2, case.repeats):
            works = {"attack": lambda: attack(mixture, x, y), "bare": bare}
            order = sorted(works, reverse=repeat % 2 == 1)
            times = {name: _seconds(works[name], case.device) for name in order}
            if repeat >= 0:
                pairs.append((times["attack"], times["bare"]))
    ratios = [own / base for own, base in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    own, base = (statistics.median(times) for times in zip(*pairs, strict=True))
    fastest = min(own for own, _ in pairs) / min(base for _, base in pairs)
    return Figure(case, middle, low, high, fastest, own, base, case.batch / own)


def _seconds(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def table(figures: list[Figure]) -> Table:
    """Return the figures as a table for the terminal."""
    shown = Table(title=f"PGD-{STEPS} beside the bare forward and input-gradient passes")
    for name in HEAD:
        shown.add_column(name, justify="left" if name == HEAD[0] else "right")
    for figure in figures:
        shown.add_row(*_cells(figure))
    return shown


HEAD = ("network", "L", "batch", "ratio", "quartiles", "fastest", "bare", "PGD", "images/s")


def _cells(figure: Figure) -> list[str]:
    case = figure.case
    manner = ["bfloat16" if case.bfloat16 else "float32"]
    manner += ["compiled"] if case.compiled else []
    return [
        f"{case.network}, {case.device}, {', '.join(manner)}",
        str(case.classifiers),
        str(case.batch),
        f"{figure.ratio:.3f}",
        f"{figure.low:.2f} to {figure.high:.2f}",
        f"{figure.fastest:.3f}",
        f"{figure.bare_seconds * 1e3:.0f} ms",
        f"{figure.attack_seconds * 1e3:.0f} ms",
        f"{figure.images_per_second:.0f}",
    ]


def main() -> int:
    """Measure every case and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=25, help="pairs of runs (default: 25)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU cases (default: 1)")
    parser.add_argument("--cases", default="", help="only cases whose network contains this")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    console = Console()
    figures: list[Figure] = []
    for case in cases(args.repeats):
        if args.cases in case.network:
            with console.status(f"{case.network}, L = {case.classifiers}"):
                figures.append(measure(case))
    console.print(table(figures))
    worst = max(figures, key=lambda figure: figure.ratio)
    console.print(f"Largest ratio {worst.ratio:.3f}; the aim is at most {TARGET}.")
    args.out.mkdir(parents=True, exist_ok=True)
    _save(args.out, figures, args.threads)
    return 0


def _save(out: Path, figures: list[Figure], threads: int) -> None:
    devices = [f"PyTorch {torch.__version__}", f"{threads} thread(s)"]
    if torch.cuda.is_available():
        devices.append(torch.cuda.get_device_name())
    page = [
        f"# PGD-{STEPS} on a mixture beside its bare networks",
        "",
        f"{origin('attacks', *devices)}. `ratio` is the median over pairs of runs of "
        f"PGD's time over that of {STEPS} L forward and input-gradient passes of the same "
        f"networks; the aim is at most {TARGET}.",
        "",
        *markdown_table(HEAD, map(_cells, figures)),
    ]
    numbers = {"machine": ", ".join(devices), "figures": [asdict(figure) for figure in figures]}
    save(out, "attacks", page, numbers)


if __name__ == "__main__":
    sys.exit(main())
