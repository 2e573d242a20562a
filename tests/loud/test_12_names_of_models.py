"""A name that means a shipped model and a folder: the command says which one it takes."""

from pathlib import Path

import pytest

from ferretlite.app import cli
from ferretlite.common.files import WEIGHTS

TOLD = "tiny is the model that ships with the package: write ./tiny for the folder."


@pytest.fixture
def both(monkeypatch, tmp_path):
    "A folder that holds a folder `tiny`, which is no model."
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)


def note(monkeypatch, place, found):
    seen = []
    monkeypatch.setattr(f"ferretlite.{place}", lambda *given, **more: seen.append(given) or found)
    return seen


@pytest.fixture(autouse=True)
def no_fit(monkeypatch):
    "Folders of this file hold no run whose scores could be fitted."
    monkeypatch.setattr("ferretlite.app.model_commands._fit_scores_of_run", lambda *given: None)


@pytest.mark.parametrize("folder, name", [("tiny", "./tiny"), ("runs/quick", "runs/quick")])
def test_a_folder_is_printed_in_the_form_that_means_the_folder(
    capsys, monkeypatch, tmp_path, folder, name
):
    monkeypatch.chdir(tmp_path)
    note(monkeypatch, "training.runs.train", Path(folder))
    assert cli.main(["train", "--samples", "8", "--out", folder]) == 0
    assert capsys.readouterr().out == (
        f"{folder} now loads as a model: ferretlite eval {name} --n 200\n"
    )
    note(monkeypatch, "model.conversion.convert_checkpoint", Path(folder))
    assert cli.main(["convert", "checkpoint", folder]) == 0
    assert capsys.readouterr().out.endswith(f" --model {name}\n")


@pytest.mark.parametrize("folder, name", [("my run", "'my run'"), ("-x", "./-x")])
def test_a_name_that_a_shell_would_read_otherwise_is_quoted(capsys, monkeypatch, folder, name):
    note(monkeypatch, "training.runs.train", Path(folder))
    assert cli.main(["train", "--samples", "8", "--out", folder]) == 0
    assert f"ferretlite eval {name} --n" in capsys.readouterr().out


def test_a_command_says_that_it_takes_the_shipped_model(capsys, monkeypatch, both):
    started = note(monkeypatch, "training.runs.train", Path("new"))
    assert cli.main(["train", "--samples", "8", "--out", "new", "--from", "tiny"]) == 0
    assert started[0][6] == str(WEIGHTS / "tiny")
    assert capsys.readouterr().err.count(TOLD) == 1
    scored = note(monkeypatch, "evaluation.suites.evaluate", {})
    monkeypatch.setattr("ferretlite.evaluation.scores.format_metrics_table", lambda found: "")
    assert cli.main(["eval", "tiny", "--n", "1"]) == 0 and len(scored) == 1
    assert capsys.readouterr().err.count(TOLD) == 1


def test_a_dot_and_a_slash_mean_the_folder(capsys, both):
    assert cli.main(["eval", "./tiny", "--n", "1"]) == 2
    assert "tiny: found no model" in capsys.readouterr().err


def test_nothing_is_said_where_the_name_means_one_model(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    note(monkeypatch, "training.runs.train", Path("new"))
    for folder in (tmp_path, WEIGHTS):  # there, ./tiny is the shipped model itself
        monkeypatch.chdir(folder)
        words = ["train", "--samples", "8", "--out", str(tmp_path / "new"), "--from", "tiny"]
        assert cli.main(words) == 0
        assert "ships with the package" not in capsys.readouterr().err
