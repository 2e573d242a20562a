"""Exams from a terminal: `eval --list`, `eval --suite`, and `score`."""

import json
import tempfile
from pathlib import Path

import pytest

from ferretlite.app import cli, exam_commands
from ferretlite.exams.forms import ANSWER_FORMS
from ferretlite.exams.runs import EXAMS
from ferretlite.model.inference import Ferret


def run(capsys, *words):
    code = cli.main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture(scope="module")
def folders():
    """A folder of each exam, as a user without its files makes one."""
    how = ["--n", "2", "--size", "96", "--split", "test"]
    with tempfile.TemporaryDirectory() as top:
        for name in EXAMS:
            assert cli.main(["scenes", str(Path(top) / name), "--exam", name, *how]) == 0
        yield Path(top)


def test_the_forms_of_the_help_page_are_those_of_the_library():
    assert exam_commands._FORMS == tuple(ANSWER_FORMS)


def test_list_shows_every_row_without_a_model(capsys):
    code, out, _ = run(capsys, "eval", "--list")
    assert code == 0
    for name, exam in EXAMS.items():
        assert f"{name}: {exam.title}\n" in out
    assert "published Ferret-v2-13B: acc@0.5.val 92.64" in out
    assert out.count("\n    licence  ") == len(EXAMS) and "GRIT: " in out
    assert "ferretlite scenes DATA --exam NAME" in out.splitlines()[0]


@pytest.mark.parametrize("name", EXAMS)
@pytest.mark.filterwarnings("ignore")
def test_every_exam_is_scored_from_the_command_line(name, folders, capsys, tmp_path, monkeypatch):
    if name == "reg":
        pytest.importorskip("pycocoevalcap")
        monkeypatch.setattr("shutil.which", lambda program: None)
    folder, questions = folders / name, tmp_path / "q.jsonl"
    assert run(capsys, "score", name, "--data", folder, "--questions", questions)[0] == 0
    lines = [json.loads(line) for line in questions.read_text().splitlines()]
    answers = "".join(json.dumps(dict(id=x["id"], text="yes")) + "\n" for x in lines)
    (tmp_path / "a.jsonl").write_text(answers)
    code, out, err = run(capsys, "score", name, "--data", folder, "--answers",
                         tmp_path / "a.jsonl", "--json", tmp_path / "s.json")  # fmt: skip
    assert code == 0, err
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores and all(key.startswith(name) and key in out for key in scores)


@pytest.mark.parametrize("words,found", [
    ("eval", "'MODEL': found nothing"),
    ("eval tiny --suite imagenet", "expected one of scenes, refcoco, refcoco+"),
    ("eval tiny --suite pope", "found no --data, expected the folder that holds coco_pope_random"),
    ("eval tiny --suite pope --data nowhere", "found no folder"),
    ("eval tiny --suite pope --data . --split val", "found --split"),
    ("eval tiny --save a.jsonl", "found --save"),
    ("eval tiny --out x", "found --out"),
    ("eval tiny --data nothing.json", "nothing.json"),
    ("eval tiny --data nothing.json --split val", "found --split"),
    ("score coko --data . --answers a.jsonl", "found 'coko', expected one of refcoco"),
    ("score coko --data . --answers a.jsonl", "the nearest name is coco"),
    ("scenes x --exam imagenet", "expected one of refcoco"),
    ("scenes x --exam pope --format lvis", "--exam, --format: found both"),
    ("eval tiny --suite pope --data . --judge http://localhost/v1", "found one of them"),
])  # fmt: skip
def test_a_wrong_word_of_eval_is_told_before_a_model_is_loaded(words, found, capsys, monkeypatch):
    monkeypatch.setattr(Ferret, "load", lambda *_: pytest.fail("a model was loaded"))
    code, out, err = run(capsys, *words.split())
    assert code == 2 and found in err and err.count("\n") == 1 and not out


def test_a_model_takes_an_exam_and_goes_on_where_it_stopped(folders, capsys, tmp_path):
    save, page = tmp_path / "a.jsonl", tmp_path / "page"
    words = ["eval", "tiny", "--suite", "chartqa", "--data", folders / "chartqa", "--save", save]
    assert run(capsys, *words, "--n", 2)[0] == 0
    first = save.read_text().splitlines()
    code, out, _ = run(capsys, *words, "--out", page)
    lines = save.read_text().splitlines()
    assert code == 0 and lines[: len(first)] == first and len(lines) > len(first)
    assert "chartqa.accuracy.human" in out and (page / "report.html").exists()
    assert len({json.loads(line)["id"] for line in lines}) == len(lines)
