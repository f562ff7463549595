"""What the site does to the pages of commands: the options are those that the command has."""

from __future__ import annotations

import importlib
import os
import re
from typing import Any

_PLACE = re.compile(r"<!-- options of (\w+) -->")
_WIDTH = "92"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the help of a command where a page asks for it; mkdocs calls this."""
    return _PLACE.sub(lambda found: f"```text\n{help_of(found[1]).rstrip()}\n```", markdown)


def help_of(name: str) -> str:
    """What ``mixsolve NAME --help`` prints."""
    from mixsolve.commands import main

    command = main._COMMANDS[name]
    module = importlib.import_module(command.module)
    before, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), _WIDTH
    try:
        if command.parses_itself:
            return module.parser().format_help()
        whole = main._parser(name, module)
        (choices,) = (action.choices for action in whole._actions if action.dest == "command")
        return choices[name].format_help()
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before
