"""`mixsolve train`: a run from a TOML file, with any setting changed on the command line."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler

from mixsolve.base.errors import MissingDependencyError, MixsolveError, shortened
from mixsolve.commands.output import print_json
from mixsolve_torch.commands.console import logged
from mixsolve_torch.runs.memory import keep_freed
from mixsolve_torch.training.config import SECTIONS, TrainConfig
from mixsolve_torch.training.ending import Training
from mixsolve_torch.training.journal import worst_class
from mixsolve_torch.training.loop import train
from mixsolve_torch.training.ranks import own_rank

try:
    import jsonargparse
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        "mixsolve train needs jsonargparse, which is not installed; "
        "install it with: pip install 'mixsolve[torch,train,plot]'"
    ) from error

_SUCCESS, _INTERRUPTED = 0, 130
_ENTRIES = (*SECTIONS, "method", "objective")


def main(argv: Sequence[str]) -> int:
    """Train as the arguments after ``mixsolve train`` say, print the outcome; the exit code."""
    config, resume = read(argv)
    silent = not {"--json", "--quiet"}.isdisjoint(argv)
    keep_freed()
    console = Console(quiet=silent or own_rank() > 0)
    handler = RichHandler(console=Console(stderr=True), show_path=False)
    try:
        with nullcontext() if silent else logged("mixsolve_torch", handler):
            training = train(config, resume=resume, progress=not silent)
    except (KeyboardInterrupt, SystemExit) as stop:
        console.print("interrupted; go on with the same command and --resume")
        if isinstance(stop, SystemExit):
            raise
        return _INTERRUPTED
    if "--json" in argv and own_rank() == 0:
        print_json(_told(training))
    _report(console, training)
    return _SUCCESS


def _told(training: Training) -> dict[str, Any]:
    """Return the outcome of a run for ``--json``."""
    evaluation, verdict = training.evaluation, training.verdict
    return {
        "folder": str(training.folder),
        "best": training.best,
        "evaluation": None if evaluation is None else evaluation.to_dict(),
        "verdict": None if verdict is None else verdict.to_dict(),
        "deploy": None if training.deploy is None else str(training.deploy),
    }


def read(argv: Sequence[str]) -> tuple[TrainConfig, bool]:
    """Return the settings of a command line, and whether to resume.

    Raises
    ------
    MixsolveError
        A setting that is not known or not allowed; the message names it.
    """
    declared = parser()
    _check_files(argv)
    try:
        args = declared.parse_args(list(argv))
        values = declared.instantiate(args)
    except jsonargparse.ArgumentError as error:
        raise MixsolveError(
            f"{error}; settings are named section.name, as `mixsolve train --help` lists them"
        ) from error
    return TrainConfig(**{name: values[name] for name in _ENTRIES}), args.resume


def _check_files(argv: Sequence[str]) -> None:
    """Refuse files of settings that cannot be read, which the parser would take for settings."""
    files = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    files.add_argument("--config", action="append", default=[], type=Path)
    try:
        names = files.parse_known_args(list(argv))[0].config
    except argparse.ArgumentError:
        return  # the parser says what is wrong
    for name in names:
        try:
            settings = tomllib.loads(name.read_text(encoding="utf-8"))
        except OSError as error:
            raise MixsolveError(
                f"--config {name} cannot be read: {error.strerror}; give the TOML file of a run"
            ) from error
        except ValueError as error:  # of UTF-8 and of TOML
            raise MixsolveError(f"--config {name} is not a TOML file: {error}") from error
        for section in set(SECTIONS) & set(settings):
            # The parser would import what these name, to see whether it is a section.
            given = settings[section]
            if not isinstance(given, dict) or "class_path" in given:
                raise MixsolveError(
                    f"--config {name}: {section} must be a table of settings, [{section}], as "
                    f"`mixsolve train --help` lists them; got {shortened(repr(given), 100)}"
                )


def _toml(values: dict[str, Any]) -> str:
    """Return settings as TOML, in which what is not set is left out."""
    try:
        import tomli_w
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "--print_config needs tomli-w, which is not installed; "
            "install it with: pip install 'mixsolve[train]'"
        ) from error
    settings = {
        name: {key: entry for key, entry in value.items() if entry is not None}
        if isinstance(value, dict)
        else value
        for name, value in values.items()
        if value is not None
    }
    return tomli_w.dumps(settings)


def parser() -> jsonargparse.ArgumentParser:
    """Declare the arguments of `mixsolve train`."""
    jsonargparse.set_dumper("toml", _toml)
    declared = jsonargparse.ArgumentParser(
        prog="mixsolve train",
        parser_mode="toml",
        exit_on_error=False,
        description="Train a mixture of classifiers by adversarial training against the whole "
        "mixture: all networks together, or by another method.",
    )
    declared.add_argument("--config", action="config", help="a TOML file of settings")
    declared.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in run.out"
    )
    declared.add_argument(
        "--json", action="store_true", help="print one JSON object on stdout and no progress"
    )
    declared.add_argument("--quiet", action="store_true", help="print nothing but errors")
    declared.add_class_arguments(TrainConfig, as_group=False)
    return declared


def _report(console: Console, training: Training) -> None:
    best = training.best
    where = "the test set, as the article does" if best["split"] == "test" else "held-out images"
    worst = f" ({worst_class(best)})" if worst_class(best) else ""  # untold by earlier versions
    console.print(
        f"Kept epoch {best['epoch']}, the most robust under PGD on {where}: "
        f"{best['robust']['mixture']:.2%} robust{worst}, "
        f"{best['clean']['mixture']:.2%} clean accuracy."
    )
    if training.evaluation is not None:
        console.print(training.evaluation.table())
        # What to deploy is the verdict's to say, on the mixture as it was trained.
        for sentence in training.evaluation.sentences(advice=False):
            console.print(sentence)
    if training.verdict is not None:
        console.print("Verdict:")
        for sentence in training.verdict.sentences():
            console.print(sentence)
        console.print(f"What to deploy is in {training.deploy}.")
    console.print(f"Checkpoints, metrics and pictures are in {training.folder}.")
