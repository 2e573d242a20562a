"Every notebook runs, from top to bottom, in one go."
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

def tool(name: str) -> str:
    "The command of that name that belongs to this Python."
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists(): pytest.fail(f"{name} is not installed beside {sys.executable}: pip install -e '.[dev]'.", pytrace=False)
    return str(path)

def litter() -> set:
    "The files that running notebooks could leave behind."
    return {str(p.relative_to(ROOT)) for folder in (ROOT / "nbs", ROOT / "ferretlite") for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}

def test_every_notebook_runs_and_leaves_no_file_behind():
    before = litter()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    run = subprocess.run([tool("nbdev-test"), "--n-workers", "2", "--timing", "--do-print"], cwd=ROOT, env=env, text=True, capture_output=True)
    print(run.stdout)
    if run.returncode: pytest.fail(f"nbdev-test failed\n{run.stdout[-4000:]}\n{run.stderr[-12000:]}", pytrace=False)
    assert "Success." in run.stdout
    assert litter() == before
