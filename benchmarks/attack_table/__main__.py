"""Every attack on mixtures of small networks: which attack is the strongest, and by how much.

    python -m benchmarks.attack_table
    python -m benchmarks.attack_table --mixtures "plain + AT"

Each attack runs alone, from the same seed, on the same held-out images of each mixture (see
`benchmarks.attack_table.settings`), and an image counts by the exact probability that a network
drawn from the mixture is right on it. Beside the attacks of the package stand those of public
libraries that are installed (``pip install 'mixsolve[attacks]'``; `benchmarks.attack_table.public`)
and a plain search over all sets of networks (`benchmarks.attack_table.subset_search`). Best known
is, for each image, the worst over all of them; an image on which `standard` does not reach it is a
miss. Passes are forward and backward runs of one network on one image, over images and networks.

Finished cells are kept in a folder, so that a run that was interrupted resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.attack_table import public, report
from benchmarks.attack_table.measure import Cell, measured
from benchmarks.attack_table.settings import SETTINGS
from benchmarks.attack_table.subset_search import SubsetSearch
from benchmarks.cells import keep, kept
from benchmarks.report import RESULTS
from mixsolve.base.errors import MixsolveError
from mixsolve_torch import Attack
from mixsolve_torch.attacks.registry import resolve_attacks

_OWN = ("pgd", "apgd-ce", "apgd-dlr", "apgd-hinge", "arc", "subset", "square", "standard")
_SEARCH = "every subset"


def main() -> int:
    """Train, attack, print and write the table; exit with 1 if `standard` falls short somewhere."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mixtures", nargs="+", metavar="NAME", help=f"from {list(SETTINGS)}")
    parser.add_argument("--images", type=int, default=200, help="held-out images (200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/attack-table"), help="where finished cells are kept"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for package in public.missing():
        print(f"{package} is not installed: its attacks are left out", file=sys.stderr)
    work = args.work / f"{args.images}-images-seed-{args.seed}"
    table = {
        title: column(title, args.images, args.seed, work) for title in args.mixtures or SETTINGS
    }
    header = f"{args.images} held-out images, seed {args.seed}"
    verdict = report.verdict(table)
    report.show(header, table, verdict)
    report.write(args.out, header, table, verdict, args.seed)
    return 0 if verdict.holds else 1


def column(title: str, images: int, seed: int, work: Path) -> dict[str, Cell]:
    """Return all attacks on a mixture; those that were finished earlier are read."""
    if title not in SETTINGS:
        raise MixsolveError(f"--mixtures must be from {', '.join(SETTINGS)}; got {title!r}")
    setting = SETTINGS[title]
    mixture, data = None, setting.images(images, seed)
    cells: dict[str, Cell] = {}
    for name, attack in attacks(setting.norm, setting.eps).items():
        path = work / title.replace(" ", "-") / f"{name.replace(' ', '-').replace('/', '-')}.npz"
        cell = kept(path, Cell)
        if cell is None:
            mixture = mixture or setting.build(setting.norm, setting.eps, seed)
            print(f"{title}: {name}", file=sys.stderr)
            cell = measured(mixture, data, attack, seed)
            keep(path, cell)
        cells[name] = cell
    return cells


def attacks(norm: str, eps: float) -> Mapping[str, Attack]:
    """Return the attacks on balls of one kind, by name."""
    own = {name: resolve_attacks(name, norm, eps)[0] for name in _OWN}
    return {**own, _SEARCH: SubsetSearch(norm, eps), **public.attacks(norm, eps)}


if __name__ == "__main__":
    sys.exit(main())
