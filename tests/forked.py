"""Processes forked from one that has imported already what takes a new interpreter seconds."""

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import BaseContext


def forking(*modules: str) -> BaseContext:
    """Multiprocessing whose processes begin with these modules, and nothing else of this one.

    One server a session: the modules are those that it was first asked for.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", *modules])
    forkserver.ensure_running()
    return context
