"""Item 16: `scenes` that were ended by SIGTERM leave no temporary folder."""

import signal
import subprocess
import sys

CODE = """
import os, signal, sys
from ferretlite.app import cli
from ferretlite.scenes import world
made, make_scene = [], world.make_scene
def stop_at_the_third(*given):
    made.append(given)
    if len(made) == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return make_scene(*given)
world.make_scene = stop_at_the_third
sys.exit(cli.main(["scenes", "s", "--n", "5", "--size", "64"]))
"""


def test_sigterm_leaves_nothing(tmp_path):
    run = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True)
    assert run.returncode == 128 + signal.SIGTERM and b"Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []
