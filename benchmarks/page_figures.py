"""The figures and pictures that README.md and docs/index.md show, from one run of the demo.

    python -m benchmarks.page_figures        # or `make figures`

It writes ``docs/figures/demo.json``, what ``mixsolve demo --json`` prints, and two pictures
under ``docs/images``. A test holds the numbers of both pages against the file: change the pages
after a run as the test says.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from mixsolve.base.files import write_text
from mixsolve.base.plain import json_text
from mixsolve_torch.commands.demo import demo
from mixsolve_torch.commands.demo_networks import DemoSettings

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures" / "demo.json"
PICTURES = ("accuracy.png", "patch.png")


def main() -> None:
    """Run the demo and keep its figures and pictures."""
    with tempfile.TemporaryDirectory() as folder:
        report = demo(DemoSettings(), folder, progress=True)
        for name in PICTURES:
            shutil.copyfile(Path(folder) / name, ROOT / "docs" / "images" / name)
    FIGURES.parent.mkdir(exist_ok=True)
    write_text(FIGURES, json_text(report.to_dict(), indent=1) + "\n")


if __name__ == "__main__":
    main()
