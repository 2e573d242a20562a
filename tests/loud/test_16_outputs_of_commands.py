"""A command that is refused, stopped, or finds no room leaves no half-written output."""

import os
import subprocess
import sys

import pytest
from PIL import Image

from ferretlite.app import cli
from ferretlite.model.inference import Ferret
from ferretlite.scenes import world


def read_error(capsys):
    "The one line on stderr; a progress bar above it does not count."
    lines = [line for line in capsys.readouterr().err.splitlines() if "scene/s" not in line]
    lines = [line for line in lines if line]
    assert len(lines) == 1 and lines[0].startswith("ferretlite: ")
    return lines[0]


@pytest.fixture
def here(monkeypatch, tmp_path):
    "An empty folder to stand in."
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize(
    "line",
    [
        "scenes OUT --n 1",
        "train --samples 8 --out OUT",
        "pretrain dino --samples 8 --out OUT",
        "experiment resolution --out OUT",
        "convert checkpoint OUT",
        "demo --out OUT",
        "data check ferret-v2 --out OUT",
        "eval tiny --json OUT",
        "bench train --json OUT",
        "ask a.png what? --save OUT",
    ],
)
@pytest.mark.parametrize("name", ["", " "])
def test_an_output_without_a_name_is_refused(capsys, here, line, name):
    assert cli.main([name if word == "OUT" else word for word in line.split()]) == 2
    assert f"found '{name}'" in read_error(capsys) and not any(here.iterdir())


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(capsys, here, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Ferret, "load", never)
    Image.new("RGB", (40, 30)).save("a.png")
    for name, told in (
        ("x.xbm", "picture format"),
        ("x.txt", "picture format"),
        ("a.png/x.png", "is a file"),
        ("none/x.png", "no folder"),
    ):
        assert cli.main(["ask", "a.png", "what?", "--save", name]) == 2
        assert told in read_error(capsys)
    assert [p.name for p in here.iterdir()] == ["a.png"]


def test_scenes_that_were_stopped_leave_nothing(capsys, here, monkeypatch):
    made, make_scene = [], world.make_scene

    def stop_at_the_third(*given):
        made.append(given)
        if len(made) == 3:
            raise KeyboardInterrupt
        return make_scene(*given)

    monkeypatch.setattr(world, "make_scene", stop_at_the_third)
    assert cli.main(["scenes", "s", "--n", "5", "--size", "64"]) == 130
    assert read_error(capsys) == "ferretlite: stopped." and not any(here.iterdir())
    assert cli.main(["scenes", "s", "--n", "2", "--size", "64"]) == 0  # and can be made anew
    assert len(list((here / "s" / "images").iterdir())) == 2
    assert [p.name for p in here.iterdir()] == ["s"]


def test_scenes_are_never_mixed_with_other_files(capsys, here):
    (here / "s").mkdir()
    (here / "s" / "mine.txt").touch()
    assert cli.main(["scenes", "s", "--n", "1", "--size", "64"]) == 2
    assert "found files in it" in read_error(capsys)
    assert [p.name for p in (here / "s").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "words",
    [
        "--minutes 1 --samples 8",
        "",  # neither
        "--samples 8 --preset huge",
        "--samples 8 --from nowhere",
        "--samples 8 --data none.json",
        "--samples 8 --preset tiny-griffon --from tiny",
        "--samples 8 --slow tail=0.1",
        "--samples 8 --skip bad",  # there is no data to skip
        "--samples 8 --fsdp none.json",
    ],
)
def test_a_training_that_is_refused_leaves_no_folder(capsys, here, words):
    assert cli.main(["train", "--out", "run", *words.split()]) == 2
    assert read_error(capsys) and not any(here.iterdir())


def test_on_a_full_disk_the_scores_are_printed_and_no_part_of_the_file_stays(tmp_path):
    code = """
import resource, sys
from ferretlite.app import cli
from ferretlite.evaluation import suites, scores
from ferretlite.model.inference import Ferret
Ferret.load = lambda name, device: None
suites.evaluate = lambda *given, **more: {"rec": ["x" * 9000]}
scores.format_metrics_table = lambda found: "rec 0.81"
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # no file may be larger
sys.exit(cli.main(["eval", "tiny", "--n", "1", "--json", "scores.json"]))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "rec 0.81\n")
    assert run.stderr == "ferretlite: scores.json was not written: File too large.\n"
    assert os.listdir(tmp_path) == []
