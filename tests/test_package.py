"""What is packaged: one version everywhere, a description that stands alone, public names."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import mixsolve

ROOT = Path(__file__).parents[1]


def test_one_version_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {mixsolve.__version__}\n" in citation
    assert f"\n## {mixsolve.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_directories_of_names_hold_public_ones_alone():
    names = set(dir(mixsolve)) - {"__version__"}
    assert names == {*mixsolve.__all__, "MixtureClassifier"}


@pytest.fixture
def hook(monkeypatch):
    """The module that makes the description, without hatchling."""
    for name in ("hatchling", "hatchling.metadata", "hatchling.metadata.plugin"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    interface = ModuleType("hatchling.metadata.plugin.interface")
    interface.MetadataHookInterface = object
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_description_needs_no_file(hook):
    made = hook.Readme()
    made.root = str(ROOT)
    metadata = {}
    made.update(metadata)
    text = metadata["readme"]["text"]
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert targets
    assert all(re.match(r"\w+://|#", target) for target in targets)
    assert len(text) > 0.9 * len((ROOT / "README.md").read_text(encoding="utf-8"))


def test_the_source_distribution_leaves_result_pictures_out():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    excluded = settings["tool"]["hatch"]["build"]["targets"]["sdist"]["exclude"]
    pictures = {path.suffix for path in (ROOT / "benchmarks" / "results").rglob("*")}
    assert {f"benchmarks/results/**/*{end}" for end in pictures & {".png", ".svg"}} == set(excluded)
