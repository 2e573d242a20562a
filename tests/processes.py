"""Runs of the trainer in processes of their own, for tests that kill them or let several of them
meet.
"""

import multiprocessing
import os
import resource
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")  # imports once, then forks quickly
CONTEXT.set_forkserver_preload(["ferretlite.training.runs", "processes"])


def start(function, *args, **environment):
    "Call a function in a process of its own."
    process = CONTEXT.Process(target=within, args=(environment, function, *args), daemon=True)
    process.start()
    return process


def within(environment, function, *args):
    os.environ.update({k: str(v) for k, v in environment.items()})
    sys.stdout = sys.stderr = open(os.devnull, "w")
    function(*args)


def together(size, function, *args, timeout=240, **more):
    """Call function(rank, *args) in as many processes, which may meet.

    Raises AssertionError where one fails.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    processes = [
        start(
            function,
            rank,
            *args,
            RANK=rank,
            LOCAL_RANK=rank,
            WORLD_SIZE=size,
            LOCAL_WORLD_SIZE=size,
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
            **more,
        )
        for rank in range(size)
    ]
    for p in processes:
        p.join(timeout)
    codes = [p.exitcode for p in processes]
    for p in processes:
        if p.exitcode is None:
            p.kill()
    assert codes == [0] * size, f"exit codes {codes}"


def small_stages(every=2):
    "Batches of two, and a checkpoint every second step; float32."
    import torch

    from ferretlite.training import alignment, stages, trainer

    torch.set_num_threads(1)
    stages.STAGES["tiny"] = tuple(
        replace(s, batch_size=2, share=1 / 3, n_turns=2, scenes=6) for s in stages.TINY_STAGES
    )
    alignment.autocast = trainer.autocast = lambda: torch.autocast("cpu", enabled=False)
    arguments = trainer.make_training_arguments

    def often(*args):
        found = arguments(*args)
        (
            found.save_steps,
            found.logging_steps,
            found.dataloader_num_workers,
            found.dataloader_prefetch_factor,
        ) = (
            every,
            1,
            0,
            None,
        )
        return found

    trainer.make_training_arguments = often


def run(out, begin, fail=None):
    """A run of 24 samples, begun or resumed.

    `fail` = (stage, what): after that stage's first checkpoint no file may grow (`full`), or none
    be made (`blocked`).
    """
    from ferretlite.training import distributed as runs
    from ferretlite.training.runs import train

    small_stages()
    keep = runs._keep_checkpoint

    def then_fail(place, name, *rest):
        keep(place, name, *rest)
        if fail and place.parent.name == f"stage-{fail[0]}":
            if fail[1] == "full":
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
            else:
                (place / "part").write_text("in the way")

    runs._keep_checkpoint = then_fail
    try:
        train(out=out, samples=24, resume=True, **begin)
    except OSError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        (Path(out) / "said").write_text(str(error))


def finish(out, begin):  # as `run`, to the end
    process = start(run, out, begin)
    process.join(240)
    assert process.exitcode == 0


def kill_after(seconds, out, begin) -> bool:  # was it still running?
    process = start(run, out, begin)
    process.join(seconds)
    alive = process.exitcode is None
    if alive:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    return alive
