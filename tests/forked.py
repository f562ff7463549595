"""Processes forked from one that has imported already what takes a new interpreter seconds."""

import multiprocessing
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path

CORE = ("distributed", "dask.array", "mixsolve.engines.dask", "mixsolve.kernels.passes")
PLUGIN = (
    "mixsolve.kernels.passes",
    "mixsolve_torch.commands.train",
    "torch.distributed",
    # What a training run imports while it runs: the optimizers, the digits, the pictures.
    "torch._dynamo",
    "sklearn.datasets",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "cvxpy",
)
_SECONDS = 300  # one that takes longer hangs


def forking(*modules: str) -> BaseContext:
    """Multiprocessing whose processes begin with these modules, and nothing else of this one.

    One server a session: the modules are those that it was first asked for.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", *modules])
    forkserver.ensure_running()
    return context


@dataclass
class Ended:
    """How a process ended, minus its signal if one ended it, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def run_script(script: str, *arguments: object, folder: Path, modules=PLUGIN) -> Ended:
    """Run a script of Python in a process of its own, in `folder`, where it writes its output."""
    streams = folder / ".out", folder / ".err"
    words = list(map(str, arguments))
    process = forking(*modules).Process(target=_script, args=(script, words, folder, streams))
    process.start()
    try:
        process.join(_SECONDS)
        assert process.exitcode is not None, "the process hangs"
    finally:
        process.kill()
        process.join()
    ended = Ended(process.exitcode, *(stream.read_text() for stream in streams))
    for stream in streams:
        stream.unlink()
    return ended


@contextmanager
def lock_holder(path, name):
    """A process that holds a lock until it is ended, at the latest with the block."""
    context = forking(*PLUGIN)
    held = context.Event()
    process = context.Process(target=_hold, args=(str(path), name, held), daemon=True)
    process.start()
    try:
        assert held.wait(_SECONDS)
        yield process
    finally:
        process.kill()
        process.join()


def _hold(path, name, held):
    from mixsolve_torch.runs.lock import Lock

    with Lock(path, name):
        held.set()
        time.sleep(_SECONDS)


def _script(script, words, folder, streams):
    os.chdir(folder)
    for number, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    sys.argv = ["-c", *words]
    exec(compile(script, "<string>", "exec"), {"__name__": "__main__"})
