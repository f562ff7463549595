"""The site says what is: its examples run and print what it says, its commands exist."""

import contextlib
import importlib
import importlib.util
import io
import json
import re
import shlex
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

from mixsolve.commands import main as cli

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT / "docs").as_posix()
    for place in ("*.md", "commands/*.md", "gallery/*.md")
    for path in (ROOT / "docs").glob(place)
)
EXAMPLE = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```$)?", re.DOTALL | re.MULTILINE
)
NEEDS = re.compile(r"<!-- needs (\w+) -->")
COMMAND = re.compile(r"^ {4}(?:torchrun .* -m )?mixsolve(?:\.cli)? (\w+.*)$", re.MULTILINE)


def text(page):
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


@pytest.fixture
def one_thread():
    """Networks this small lose more to waiting threads than they gain from them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("page", [page for page in PAGES if EXAMPLE.search(text(page))])
def test_examples_run_and_print_what_the_page_says(page, tmp_path, monkeypatch, one_thread):
    for package in NEEDS.findall(text(page)):
        pytest.importorskip(package, reason=f"{page} runs where {package} is installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIXSOLVE_SAMPLES", "20000")  # a page of a million samples reads it
    for tracker in ("wandb", "mlflow"):  # not installed; a test of callbacks sees what they get
        monkeypatch.setitem(sys.modules, tracker, MagicMock())
    names = {"__name__": "example"}
    for example in EXAMPLE.finditer(text(page)):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example["code"], page, "exec"), names)
        if example["output"] is not None:
            assert printed.getvalue() == example["output"]


def test_the_attacks_on_one_mixture_have_the_figures_of_the_table():
    """docs/attack-rightly.md quotes a column of the attack table."""
    numbers = json.loads((ROOT / "benchmarks/results/attack_table.json").read_text())
    accuracies, passes = (numbers[kind]["plain + AT"] for kind in ("accuracies", "passes"))
    rows = re.findall(
        r"^\| (.+?) \| .+? \| ([\d.]+) \| ?(\d*) \|$", text("attack-rightly.md"), re.M
    )
    assert len(rows) == 10
    for name, accuracy, count in rows:
        assert accuracy == f"{100 * accuracies[name]['value']:.2f}"
        assert count == (f"{passes[name]:.0f}" if name in passes else "")


def test_enough_examples_are_found():
    found = [example for page in PAGES for example in EXAMPLE.finditer(text(page))]
    assert len(found) > 20
    assert sum(example["output"] is not None for example in found) > 15


@pytest.mark.parametrize("page", [page for page in PAGES if COMMAND.search(text(page))])
def test_commands_are_understood(page, monkeypatch):
    monkeypatch.chdir(ROOT)  # configuration files are named from there
    for command in COMMAND.findall(text(page)):
        name, *words = shlex.split(command, comments=True)
        module = importlib.import_module(cli._COMMANDS[name].module)
        if cli._COMMANDS[name].parses_itself:
            module.read(words)
        else:
            cli._parser(name, module).parse_args([name, *words])


@pytest.mark.parametrize("name", cli._COMMANDS)
def test_every_command_has_a_page_with_its_options(name):
    page = (ROOT / "docs" / "commands" / f"{name}.md").read_text(encoding="utf-8")
    assert COMMAND.search(page)
    spec = importlib.util.spec_from_file_location("site_commands", ROOT / "docs" / "commands.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shown = module.on_page_markdown(page)
    assert "usage: mixsolve" in shown
    assert all(word in shown for word in cli.option_words()[name])
    assert f"commands/{name}.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["mixsolve", "mixsolve_torch", "mixsolve_torch.training"])
def test_the_reference_has_every_public_name(package):
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md")]
    described = re.findall(r"^::: [\w.]*?(\w+)$", "\n".join(pages), re.MULTILINE)
    assert set(importlib.import_module(package).__all__) <= set(described)


@pytest.fixture
def site():
    """What the site does to text; it needs what only the site's builder has."""
    for needed in ("griffe", "latex2mathml"):
        pytest.importorskip(needed)
    spec = importlib.util.spec_from_file_location("site_text", ROOT / "docs" / "text.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_formulas_are_drawn(site):
    page = '<p>with <span class="arithmatex">\\(a &lt; b_i\\)</span></p>'
    drawn = site.on_page_content(page)
    assert "arithmatex" not in drawn
    assert "<mo>&#x0003C;</mo>" in drawn
    assert "<msub><mi>b</mi><mi>i</mi></msub>" in drawn
    assert drawn.startswith("<p>with <math")
    assert drawn.endswith("</math></p>")
    block = site.on_page_content('<div class="arithmatex">\\[\nx\n\\]</div>')
    assert block.startswith('<div class="formula"><math')
    assert 'display="block"' in block


def test_docstrings_become_what_the_parser_understands(site):
    import griffe

    function = griffe.Function("f")
    function.docstring = griffe.Docstring(
        "A bound of :math:`x`.\n\n.. math::\n    y\n    + z\n\nThe end.\n\n"
        "Parameters\n----------\na, b\n    See `g`.\nc, d : int\n    Numbers.\n"
        'e : {"x", "y"} or None, default None\n    A choice.'
    )
    site.Docstrings().on_object(obj=function)
    assert function.docstring.value == (
        "A bound of \\(x\\).\n\n\n\\[y + z\\]\n\nThe end.\n\n"
        "Parameters\n----------\na\n    See `g`.\nb\n    See `g`.\nc, d : int\n    Numbers.\n"
        'e : "x" or "y" or None, default None\n    A choice.'
    )
