"Every notebook runs, from top to bottom, in one go, and none keeps its reader waiting."

import os
import re
import resource
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def tool(name: str) -> str:
    "The command of that name that belongs to this Python."
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        pytest.fail(
            f"{name} is not installed beside {sys.executable}: pip install -e '.[dev]'.",
            pytrace=False,
        )
    return str(path)


def litter() -> set:
    "The files that running notebooks could leave behind."
    return {
        str(p.relative_to(ROOT))
        for folder in (ROOT / "nbs", ROOT / "ferretlite")
        for p in folder.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }


WORKERS, LIMIT = (
    2,  # notebooks at a time
    120,  # seconds for one with one core: a reader with two quiet ones waits for 60 at most
)


def seconds_of(output: str) -> dict:  # notebook -> seconds
    "What `nbdev-test --timing` says of each notebook."
    return {
        name: int(seconds)
        for name, seconds in re.findall(r"^(\S+\.ipynb): (\d+) secs$", output, re.M)
    }


def too_slow(times: dict, share: float = 1.0) -> dict:  # notebook -> seconds
    """Those over the limit, counting the share of their time in which the machine worked for us
    and for nobody else.
    """
    return {name: round(t * share) for name, t in times.items() if t * share > LIMIT}


def worked() -> float:  # seconds
    "Processor time of all finished subprocesses."
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_slow_notebooks_are_named():
    output = (
        "Starting a.ipynb\n- Completed a.ipynb\nSuccess.\nruns.ipynb: 420 secs\nmetrics.ipynb:"
        " 121 secs\ngeometry.ipynb: 120 secs\n"
    )
    assert seconds_of(output) == {
        "runs.ipynb": 420,
        "metrics.ipynb": 121,
        "geometry.ipynb": 120,
    }
    assert too_slow(seconds_of(output)) == {
        "runs.ipynb": 420,
        "metrics.ipynb": 121,
    }
    assert too_slow(seconds_of(output), 0.5) == {
        "runs.ipynb": 210
    }  # half of the machine belonged to others


def test_every_notebook_runs_and_leaves_no_file_behind():
    before, began, used = litter(), time.perf_counter(), worked()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    run = subprocess.run(
        [tool("nbdev-test"), "--n-workers", str(WORKERS), "--timing", "--do-print"],
        cwd=ROOT,
        env=env,
        text=True,
        capture_output=True,
    )
    print(run.stdout)
    if run.returncode:
        pytest.fail(
            f"nbdev-test failed\n{run.stdout[-4000:]}\n{run.stderr[-12000:]}", pytrace=False
        )
    assert "Success." in run.stdout
    assert litter() == before
    times, share = (
        seconds_of(run.stdout),
        min(1, (worked() - used) / (time.perf_counter() - began) / WORKERS),
    )
    assert len(times) >= len(list((ROOT / "nbs").rglob("*.ipynb"))) - 1, times
    if slow := too_slow(times, share):
        pytest.fail(f"over {LIMIT} s of this machine: {slow}", pytrace=False)
