"""A tensor in a Dask array: its blocks are the parts, and its scheduler does the passes.

A part is a block of some samples with all their candidates and classifiers. Blocks are read once
and stay where they were read: on the workers of a cluster, with `mixsolve.engines.dask_cluster`, or
in this process, with `mixsolve.engines.dask_local`, if they fit in its memory. Where they do not,
every pass reads them again through the array's graph.

The scheduler is the one that computing the array would use: ``dask.config.set(scheduler=...)``, the
client of a cluster, or threads.
"""

import logging
import sys
from math import ceil
from typing import Any, NoReturn

import dask.base
import numpy as np

from mixsolve.engines.base import Losses
from mixsolve.engines.parts import Parts, PartsEngine
from mixsolve.errors import MixsolveError
from mixsolve.interop import ArraySource
from mixsolve.tensor import even_offsets

logger = logging.getLogger("mixsolve")

_SMALL_PART = 16 << 20  # bytes; a task costs up to 3 ms, and a pass over this much likewise
