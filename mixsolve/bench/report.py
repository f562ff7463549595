"""Output of a benchmark: a table for the terminal, one in Markdown, and gap against time."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from mixsolve.bench.runner import SolverRow
from mixsolve.plots import PALETTE, require_matplotlib, save

_COLUMNS = ("solver", "seconds", "in passes", "passes", "certified gap / M", "value", "note")
_FEW = 9  # panels that are drawn large
_MARKS = "os^Dv<>PX*h"  # 11, which shares no factor with the 6 colours: 66 looks
_FLOOR = 1e-17  # where a gap of exactly 0 is drawn


def cells(row: SolverRow, spread: float) -> tuple[str, ...]:
    """One line of the table, as text; `spread` is M, the unit of the gap."""
    in_passes = ""
    if row.seconds is not None and row.pass_seconds:
        in_passes = f"{row.seconds / row.pass_seconds:.1f}"
    return (
        row.solver,
        "" if row.seconds is None else f"{row.seconds:.4g}",
        in_passes,
        "" if row.passes is None else f"{row.passes:.1f}",
        "" if row.gap is None else f"{row.gap / (spread or 1.0):.1e}",
        "" if row.value is None else f"{row.value:.10g}",
        row.note,
    )


def table(rows: Sequence[SolverRow], spread: float, title: str) -> Table:
    """The benchmark as a rich table, the fastest first; `spread` is M."""
    made = Table(title=title)
    for name in _COLUMNS:
        made.add_column(name, justify="left" if name in ("solver", "note") else "right")
    for row in ranked(rows):
        made.add_row(*cells(row, spread))
    return made


def markdown(rows: Sequence[SolverRow], spread: float) -> str:
    """The same table in Markdown."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(cells(row, spread)) + " |" for row in ranked(rows)]
    return "\n".join(lines)


def ranked(rows: Sequence[SolverRow]) -> list[SolverRow]:
    """Rows by time, those without one last."""
    return sorted(rows, key=lambda row: float("inf") if row.seconds is None else row.seconds)


def plot(panels: dict[str, tuple[Sequence[SolverRow], float]], path: Path) -> None:
    """Draw certified gap against time, log-log, a panel for each game; saved as `path`.

    `panels` has the rows and M by title; the .png or .svg file is written aside and renamed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, NullFormatter

    # Where there are many panels they are smaller, and four stand in a row.
    few = len(panels) <= _FEW
    n_columns = min(3 if few else 4, len(panels))
    n_rows = -(-len(panels) // n_columns)
    width, height = (4.2, 3.4) if few else (3.2, 2.2)
    size = max(5.6, width * n_columns), height * n_rows + 0.6
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).reshape(-1)
    names = sorted({row.solver for rows, _ in panels.values() for row in rows if row.seconds})
    styles = {
        name: (PALETTE[i % len(PALETTE)], _MARKS[i % len(_MARKS)]) for i, name in enumerate(names)
    }
    for ax, (title, (rows, spread)) in zip(axes, panels.items(), strict=False):
        for row in rows:
            if row.seconds is None or row.gap is None:
                continue
            colour, marker = styles[row.solver]
            path_points = [(t, max(g / spread, _FLOOR)) for t, g in row.history if g < 1e300]
            if path_points:
                ax.plot(*zip(*path_points, strict=True), color=colour, linewidth=1, alpha=0.6)
            ax.plot(row.seconds, max(row.gap / spread, _FLOOR), marker, color=colour, ms=7)
        heading = title if few else title.replace(", ", "\n", 1)
        ax.set_title(heading, fontsize=9 if few else 7, loc="left", fontweight="bold")
        ax.spines[["top", "right"]].set_visible(False)
        ax.set(xscale="log", yscale="log", ylim=(_FLOOR / 3, 10))
        ax.xaxis.set_minor_formatter(NullFormatter())  # of a range below a decade they collide
        ax.xaxis.set_major_locator(LogLocator(numticks=5))
        ax.tick_params(labelsize=9 if few else 7)
        place = list(panels).index(title)
        if few or place >= len(panels) - n_columns:
            ax.set_xlabel("time [s]")
        if few or place % n_columns == 0:
            ax.set_ylabel("certified gap / M")
        ax.grid(alpha=0.3)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    handles = [
        Line2D([], [], color=styles[name][0], marker=styles[name][1], label=name) for name in names
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(names), 4 * n_columns))
    save(figure, path)
