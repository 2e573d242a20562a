"""`tools/gpu_day.sh`: its steps run in order, go on, and are not stopped by one that fails. A
stand-in for Python plays the steps; `--slow` runs the dry run itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ferretlite.app.cli import cli_app

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import gpu_steps  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script for bash")

STAND_IN = """#!/usr/bin/env bash
echo "$*" >> "$CALLS"
case "$*" in *griffon-v2-13b*) echo "no memory"; exit 7 ;; *"-m cuda"*) exit 0 ;; esac
"""


def run(tmp_path, *words, script=STAND_IN):
    python = tmp_path / "python"
    python.write_text(script)
    python.chmod(0o755)
    calls = tmp_path / "calls"
    calls.unlink(missing_ok=True)
    given = dict(os.environ, PYTHON=str(python), OUT=str(tmp_path / "out"), CALLS=str(calls))
    found = subprocess.run(
        ["bash", ROOT / "tools" / "gpu_day.sh", *words], env=given, capture_output=True, text=True
    )
    made = calls.read_text().splitlines() if calls.exists() else []
    return found, made


def test_a_failing_step_is_named_and_the_others_run(tmp_path):
    found, calls = run(tmp_path)
    assert found.returncode == 1
    assert "train-13b: failed (7): no memory" in found.stdout
    assert [line.split(":")[0] for line in found.stdout.splitlines()] == [
        *("doctor", "train-7b", "train-13b", "tests", "cost", "kernels", "tiny")
    ]
    assert len(calls) == 7 and "train ferret-v2-7b --lora 64" in calls[1]


def test_a_second_run_repeats_only_what_is_not_done(tmp_path):
    run(tmp_path)
    found, calls = run(tmp_path)
    assert len(calls) == 1 and "griffon-v2-13b" in calls[0]
    assert found.stdout.count("done before") == 6


def test_every_carried_package_finds_what_it_requires():
    "A package whose requirement is neither carried nor expected would stop every step at import."
    import gpu_wheels

    carried = gpu_wheels.list_carried()
    known = carried.keys() | gpu_wheels.EXPECTED
    for name in carried:
        assert set(gpu_wheels.list_requirements(name)) <= known, name
    assert {"transformers", "tokenizers", "huggingface-hub", "regex", "matplotlib"} <= set(carried)


def test_steps_can_be_chosen_and_an_unknown_one_is_refused(tmp_path):
    found, calls = run(tmp_path, "cost")
    assert found.returncode == 0 and len(calls) == 1 and " cost " in calls[0]
    found, calls = run(tmp_path, "costs")
    assert found.returncode == 2 and "found costs, expected steps among doctor" in found.stderr
    found, calls = run(tmp_path, "--dry")
    assert found.returncode == 2 and not calls


def test_no_step_may_take_more_than_four_minutes():
    listed = subprocess.run(
        ["bash", ROOT / "tools" / "gpu_day.sh", "--list"], capture_output=True, text=True
    ).stdout
    seconds = [int(line.split("\t")[1]) for line in listed.splitlines()]
    assert len(seconds) == 7 and max(seconds) <= 240


def test_every_step_is_a_command_that_exists(tmp_path):
    "The options of each step are read by the program that it names."
    _, calls = run(tmp_path, script=STAND_IN.replace("griffon-v2-13b", "nothing"))
    for words in map(str.split, calls):
        if words[0] == "tools/gpu_steps.py":
            gpu_steps.make_parser().parse_args(words[1:])  # exits for an unknown option
        elif words[1] == "ferretlite":
            shown = CliRunner().invoke(cli_app, [*words[2:], "--help"])
            assert shown.exit_code == 0, shown.output
            assert all(w in shown.output for w in words if w.startswith("--")), words


@pytest.mark.slow
def test_the_dry_run_passes(tmp_path):
    given = dict(os.environ, PYTHON=sys.executable, OUT=str(tmp_path))
    found = subprocess.run(
        ["bash", ROOT / "tools" / "gpu_day.sh", "--dry-run"],
        env=given,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout
