"""Processes of a process group on this machine, for tests of what several ranks do together."""

import os
import pickle
import time
import traceback

import torch
import torch.distributed as dist
from forked import PLUGIN, forking, run_script

_SECONDS = 300  # all ranks together; one that takes longer hangs
_LAUNCH = """
import os, sys
os.environ |= {"OMP_NUM_THREADS": "1", "MIXSOLVE_NUM_THREADS": "1"}
import torch.distributed.run
torch.distributed.run.main(["--nproc-per-node", "2", *sys.argv[1:]])
"""


def torchrun(*words, folder):
    """Run a script on two ranks that torchrun starts, with its options and the script's."""
    return run_script(_LAUNCH, *words, folder=folder)


def run_ranks(size, program, folder, timeout=None, group=True):
    """Run ``program(rank)`` on each rank of a gloo group; what each returned, None if it died.

    Without `group` the program makes the group itself.
    """
    context = forking(*PLUGIN)
    processes = [
        context.Process(target=_rank, args=(rank, size, program, str(folder), timeout, group))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    deadline = time.monotonic() + _SECONDS
    try:
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        assert not any(process.is_alive() for process in processes), "a rank hangs"
    finally:
        for process in processes:
            process.kill()
            process.join()
    answers = []
    for rank in range(size):
        file = folder / f"answer{rank}"
        answers.append(pickle.loads(file.read_bytes()) if file.exists() else None)
    for answer in answers:
        assert not isinstance(answer, str), answer
    return answers


def _rank(rank, size, program, folder, timeout, group):
    os.environ["MIXSOLVE_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    if group:
        dist.init_process_group(
            "gloo", f"file://{folder}/meet", rank=rank, world_size=size, timeout=timeout
        )
    try:
        answer = program(rank)
    except BaseException:
        answer = traceback.format_exc()
    with open(f"{folder}/answer{rank}.part", "wb") as file:
        pickle.dump(answer, file)
    os.replace(f"{folder}/answer{rank}.part", f"{folder}/answer{rank}")
    os._exit(0)  # without waiting for ranks that died
