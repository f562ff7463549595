"""Figure 3: what Algorithm 2 comes to with more and more networks, from finished training runs.

Reads the folders that `mixsolve train` leaves: `metrics.jsonl`, a record an epoch, and
`evaluation.json`, the final attacks. A folder's name says what the run belongs to, less the number
of networks and the seed: `cifar10-trades-l3`, `digits-at-l2-seed1`. How many networks there were is
read from the records. Of several runs alike the one with the best robust accuracy along the way is
drawn, as in the article; the JSON has them all.

References
----------
Meunier et al., ICML 2021, section 5.2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import style
from mixsolve.base.errors import MixsolveError

_WORDS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "digits": "Digits",
    "at": "adversarial training",
    "trades": "TRADES",
}
_OWN = ("given", "uniform", "single")  # the mixture as it was trained, by kinds of players


def measure(folder: Path, every: int = 1) -> dict[str, Any]:
    """Read the runs in a folder, and choose one for each loss, data set and number of networks.

    Parameters
    ----------
    folder : Path
        A run, or what holds the runs.
    every : int, default 1
        Epochs between two records, `evaluation.every` of the runs.

    Returns
    -------
    dict

    Raises
    ------
    MixsolveError
        No run, or a file that is not one of a run.
    """
    paths = sorted(path.parent for path in Path(folder).rglob("metrics.jsonl"))
    if not paths:
        raise MixsolveError(
            f"--runs {folder} must hold folders of `mixsolve train`, with metrics.jsonl in them; "
            "got none: train one with mixsolve train --config configs/digits-at-l2.toml"
        )
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for path in paths:
        run = _run(path, every)
        alike = groups.setdefault(_group(path.name), {}).setdefault(str(run["networks"]), [])
        alike.append(run)
    return {
        "every": every,
        "rows": {
            name: {
                count: {"runs": runs, "kept": max(runs, key=lambda run: run["best robust"])}
                for count, runs in sorted(by_count.items(), key=lambda item: int(item[0]))
            }
            for name, by_count in groups.items()
        },
    }


def _group(name: str) -> str:
    """Return what runs to be compared have in common in their names."""
    return re.sub(r"(^|-)(l\d+|seed\d+)(?=-|$)", "", name).strip("-") or "runs"


def _run(path: Path, every: int) -> dict[str, Any]:
    """Return what is drawn of one run."""
    records = list(_records(path / "metrics.jsonl"))
    try:
        best = max(records, key=lambda record: record["robust"]["mixture"])
        run = {
            "folder": path.name,
            "networks": len(records[0]["weights"]),
            "split": best.get("split"),
            "epochs": [every * record["epoch"] for record in records],
            "standard": [record["clean"]["mixture"] for record in records],
            "robust": [record["robust"]["mixture"] for record in records],
            "best epoch": every * best["epoch"],
            "best robust": best["robust"]["mixture"],
            "standard there": best["clean"]["mixture"],
        }
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise MixsolveError(
            f"{path / 'metrics.jsonl'} must hold the records of `mixsolve train`; "
            f"got something else ({error!r})"
        ) from error
    final = path / "evaluation.json"
    return run | {"final": _final(final) if final.exists() else None}


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise MixsolveError(f"line {number} of {path} is not a record: {error}") from error


def _final(path: Path) -> dict[str, Any]:
    """Return accuracies under the final attacks of the mixture as it was trained."""
    try:
        report = json.loads(path.read_text())
        players = {player["kind"]: player for player in reversed(report["players"])}
        own = next(players[kind] for kind in _OWN if kind in players)
        optimal = players.get("optimal", own)
        return {
            "clean": own["clean"],
            "attacks": own["attacks"],
            "worst": own["worst"],
            "worst with optimal weights": optimal["worst"],
            "images": report["images"],
            "attacker": f"{report['norm']}, radius {report['eps']:.3g}",
        }
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise MixsolveError(
            f"{path} must hold the final evaluation of `mixsolve train`; got something else "
            f"({error!r})"
        ) from error


def draw(numbers: dict[str, Any]) -> Figure:
    """Draw a row a data set and loss: final attacks, and accuracies over epochs."""
    rows = numbers["rows"]
    figure = style.figure(0.45 + 2.75 * len(rows))
    for part, (name, by_count) in zip(
        figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows.items(), strict=True
    ):
        part.suptitle(_title(name), fontsize=10, fontweight="bold")
        panels = part.subplots(1, 3)
        kept = {count: found["kept"] for count, found in by_count.items()}
        _comparison(panels[0], kept)
        for axes, kind in zip(panels[1:], ("standard", "robust"), strict=True):
            _curves(axes, kept, kind)
        style.name_panels(panels, ("Final attacks", "Standard", "Robust (PGD)"))
    return figure


def _title(name: str) -> str:
    return ", ".join(_WORDS.get(word, word) for word in name.split("-"))


def _comparison(axes: Axes, kept: dict[str, dict[str, Any]]) -> None:
    """Bars for the worst case, with intervals; a mark for clean images and for each attack."""
    done = [(place, run["final"]) for place, run in enumerate(kept.values()) if run["final"]]
    if not done:
        axes.text(
            0.5, 0.5, "no final attacks\nin these runs", ha="center", transform=axes.transAxes
        )
        axes.set_axis_off()
        return
    for place, final in done:
        value, low, high = (100 * final["worst"][part] for part in ("value", "low", "high"))
        axes.bar(place, value, width=0.62, color=style.CYCLE[place % 6], alpha=0.75)
        axes.errorbar(
            place, value, [[value - low], [high - value]], color=style.BLACK, capsize=3, lw=1.1
        )
        axes.text(place, 2, f"{value:.1f}", ha="center", va="bottom", fontsize=8, color="white")
    marked = [("clean", "o")]
    marked += [(name, style.MARKS[1 + i % 5]) for i, name in enumerate(done[0][1]["attacks"])]
    for i, (name, mark) in enumerate(marked):
        shift = 0.1 * (i - (len(marked) - 1) / 2)
        values = [
            (place + shift, 100 * (f["clean"] if name == "clean" else f["attacks"][name])["value"])
            for place, f in done
            if name == "clean" or name in f["attacks"]
        ]
        axes.plot(
            *zip(*values, strict=True),
            mark,
            color=style.INK,
            markerfacecolor="white",
            markersize=4.5,
            label=name,
        )
    axes.set_xticks(range(len(kept)), [f"L = {count}" for count in kept])
    axes.set_ylim(0, 135)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("accuracy, %")
    axes.set_xlabel("bars: worst case of all attacks")
    axes.legend(loc="upper center", ncols=2, fontsize=7.5, columnspacing=0.8, handletextpad=0.1)


def _curves(axes: Axes, kept: dict[str, dict[str, Any]], kind: str) -> None:
    """Accuracy over epochs per network, for each number of networks."""
    for place, (count, run) in enumerate(kept.items()):
        values = [100 * value for value in run[kind]]
        axes.plot(
            run["epochs"],
            values,
            color=style.CYCLE[place % 6],
            linestyle=style.DASHES[place % 4],
            label=f"L = {count}",
        )
        best = run["best robust"] if kind == "robust" else run["standard there"]
        axes.plot(
            [run["best epoch"]],
            [100 * best],
            "o",
            color=style.CYCLE[place % 6],
            markerfacecolor="white",
            markersize=5,
        )
    splits = {run["split"] for run in kept.values() if run["split"]}
    where = f" ({' / '.join(sorted(splits))} images)" if splits else ""
    axes.set_xlabel("epochs per network (○: kept)")
    axes.set_ylabel(f"accuracy, %{where}")
    axes.legend(loc="lower right")
