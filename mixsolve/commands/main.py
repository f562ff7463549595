"""The command line: `mixsolve solve` and the other subcommands.

A subcommand is a module with `add_arguments(parser)` and `run(args) -> int`, named in `_COMMANDS`
and imported when it is used, so that `mixsolve --help` loads none of the heavy packages.
Exit codes: 0 for a success, 1 for a run that did not reach it, 2 for wrong input or usage.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import NoReturn

from mixsolve.base import notice
from mixsolve.base.errors import MissingDependencyError, MixsolveError
from mixsolve.base.version import __version__
from mixsolve.commands.output import waiting

_USAGE_ERROR = 2
_INTERRUPTED = 130


@dataclass(frozen=True)
class _Command:
    """One subcommand: its line in the list, its module, and the packages that it needs.

    A module with many settings parses them itself, in ``main(argv)``.
    """

    help: str
    module: str
    install: str = "mixsolve"
    parses_itself: bool = False


_COMMANDS = {
    "solve": _Command(
        help="find the optimal mixture for a loss tensor in a file (.npy, .npz, CSV, Zarr, HDF5)",
        module="mixsolve.commands.solve",
    ),
    "bench": _Command(
        help="time every method and every installed peer on a loss tensor",
        module="mixsolve.commands.bench",
    ),
    "train": _Command(
        help="train a mixture by Algorithm 2, from a TOML file of settings",
        module="mixsolve_torch.commands.train",
        install="mixsolve[torch,train,plot]",
        parses_itself=True,
    ),
    "demo": _Command(
        help="train small networks, attack them and mix them, from data to certificate",
        module="mixsolve_torch.commands.demo",
        install="mixsolve[torch,plot]",
    ),
    "audit": _Command(
        help="attack saved classifiers and say what randomising between them buys",
        module="mixsolve_torch.commands.audit",
        install="mixsolve[torch,plot]",
    ),
    "certify": _Command(
        help="certify saved classifiers against every patch, or every forged sensor",
        module="mixsolve_torch.commands.certify",
        install="mixsolve[torch]",
    ),
    "warmup": _Command(
        help="compile every kernel now, so that no later solve on this machine waits for it",
        module="mixsolve.commands.warmup",
    ),
    "completion": _Command(
        help="print a script that completes subcommands and options in bash, zsh or fish",
        module="mixsolve.commands.completion",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        0 for a success, 1 for a run that did not reach it, 2 for wrong input or usage.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in argv
    # The options before a subcommand take no value, so the first word is the subcommand.
    name = next((word for word in argv if not word.startswith("-")), None)
    try:
        silent = as_json or "--quiet" in argv
        with waiting("importing packages", silent=silent):
            module = _load(name) if name in _COMMANDS else None
        if name is not None and module is not None and _COMMANDS[name].parses_itself:
            return module.main(argv[argv.index(name) + 1 :])
        args = _parser(name, module, as_json).parse_args(argv)
        if module is None:
            _parser(None, None).print_help(sys.stderr)
            return _USAGE_ERROR
        if as_json or getattr(args, "quiet", False):
            with notice.silent():
                return module.run(args)
        return module.run(args)
    except SystemExit as stop:  # argparse leaves this way, after --help too
        return stop.code if isinstance(stop.code, int) else 0
    except MixsolveError as error:
        return _complain(name, str(error), as_json)
    except KeyboardInterrupt as interrupt:
        # Long work adds notes about what it has saved.
        notes = getattr(interrupt, "__notes__", [])
        _complain(name, "; ".join(["interrupted", *notes]), as_json, _INTERRUPTED)
        return _INTERRUPTED


class _JsonParser(argparse.ArgumentParser):
    """A parser whose errors become those of the project, which are told as JSON."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments."""
        raise MixsolveError(f"{message}; see {self.prog} --help")


def _parser(
    chosen: str | None, module: ModuleType | None, as_json: bool = False
) -> argparse.ArgumentParser:
    """Parser that lists every subcommand and has the arguments of the chosen one."""
    parser = (_JsonParser if as_json else argparse.ArgumentParser)(
        prog="mixsolve",
        description="Optimal random mixtures of classifiers against adversarial attacks, "
        "with a certificate.",
    )
    parser.add_argument("--version", action="version", version=f"mixsolve {__version__}")
    commands = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND", dest="command")
    for name, command in _COMMANDS.items():
        subparser = commands.add_parser(name, help=command.help, description=command.help)
        if name == chosen and module is not None:
            module.add_arguments(subparser)
    return parser


def _load(name: str) -> ModuleType:
    """Import a subcommand's module, or name the pip command that installs what it needs."""
    command = _COMMANDS[name]
    try:
        return importlib.import_module(command.module)
    except MissingDependencyError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"{error}. Install what this subcommand needs with: pip install '{command.install}'"
        ) from error


def option_words() -> dict[str, list[str]]:
    """The options of each subcommand, for completion; none of one whose packages are missing."""
    found: dict[str, list[str]] = {}
    for name, command in _COMMANDS.items():
        try:
            module = _load(name)
        except MixsolveError:
            found[name] = []
            continue
        parser = module.parser() if command.parses_itself else argparse.ArgumentParser()
        if not command.parses_itself:
            module.add_arguments(parser)
        words = {word for action in parser._actions for word in action.option_strings}
        choices = [str(c) for a in parser._actions if not a.option_strings for c in a.choices or ()]
        found[name] = sorted(words) + choices
    return found


def _complain(name: str | None, message: str, as_json: bool, code: int = _USAGE_ERROR) -> int:
    """Print one line on stderr, or a JSON object on stdout; return the exit code."""
    message = " ".join(message.split())
    if as_json:
        print(json.dumps({"error": message, "exit_code": code}))
    else:
        program = f"mixsolve {name}" if name in _COMMANDS else "mixsolve"
        print(f"{program}: error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
