"""Tables and pictures of the benchmarks on the site, under ``results/``, without copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_KINDS = {".json", ".md", ".png", ".svg"}


def on_files(files: Files, *, config: MkDocsConfig, **_: Any) -> Files:
    """Add the files to those of the site; mkdocs calls this before it reads any."""
    results = Path(__file__).parents[1] / "benchmarks" / "results"
    for path in sorted(results.rglob("*")):
        if path.suffix in _KINDS:
            place = f"results/{path.relative_to(results).as_posix()}"
            files.append(File.generated(config, place, abs_src_path=str(path)))
    return files
