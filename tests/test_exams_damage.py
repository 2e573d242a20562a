"""Damaged official files become one sentence; no name in them leads out of their folder."""

import json
import random
import shutil
from pathlib import Path

import pytest

from ferretlite.common.errors import InputError
from ferretlite.exams.core import ExamAnswer, find_picture, score_exam
from ferretlite.exams.runs import EXAMS, read_exam

STRANGE = (None, -1, 1e308, 10**30, "", "x", [], {}, [None], {"a": 1}, True, [[1]], float("nan"))


def list_places(value, path=()):
    """Every place of a value, as a tuple of keys."""
    yield path
    pairs = dict(enumerate(value)) if isinstance(value, list) else value
    for key, inner in pairs.items() if isinstance(pairs, dict) else ():
        yield from list_places(inner, (*path, key))


def put(value, path, new):
    """The value with something else at one place."""
    if not path:
        return new
    target = value
    for key in path[:-1]:
        target = target[key]
    if new == "gone" and isinstance(target, dict):
        del target[path[-1]]
    else:
        target[path[-1]] = new
    return value


def damage(path: Path, rng):
    lines = path.suffix == ".jsonl" or path.name.startswith("coco_pope")
    text = path.read_text()
    rows = [json.loads(x) for x in text.splitlines()] if lines else json.loads(text)
    places = list(list_places(rows))
    short = [p for p in places if len(p) < 5] or places
    rows = put(rows, rng.choice(short), rng.choice((*STRANGE, "gone")))
    if lines:
        rows = rows if isinstance(rows, list) else [rows]
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        path.write_text(json.dumps(rows))


@pytest.mark.parametrize("name", EXAMS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_file_is_one_sentence(name, folders, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda program: None)
    rng = random.Random(name)
    for k in range(8):
        place = tmp_path / str(k)
        shutil.copytree(folders[name], place, ignore=shutil.ignore_patterns("*.jpg", "*.png"))
        files = [p for p in place.rglob("*") if p.suffix in (".json", ".jsonl")]
        if not files:
            return  # text files are damaged below
        damage(rng.choice(sorted(files)), rng)
        try:
            exam, items = read_exam(name, place)
            score_exam(exam, items, {i.id: ExamAnswer(i.id) for i in items})
        except (InputError, FileNotFoundError) as error:
            assert "\n" not in str(error) and len(str(error)) < 1000


@pytest.mark.parametrize("name", EXAMS)
def test_broken_text_is_one_sentence(name, folders, tmp_path):
    shutil.copytree(folders[name], tmp_path / "x", ignore=shutil.ignore_patterns("*.jpg"))
    for path in (tmp_path / "x").rglob("*"):
        if path.suffix not in (".json", ".jsonl", ".txt", ".xml"):
            continue
        before = path.read_bytes()
        for broken in (b"\xff\xfe{", b"[1, 2", b"", b'"x"', b"[" * 5000):
            path.write_bytes(broken)
            try:
                read_exam(name, tmp_path / "x")
            except (InputError, FileNotFoundError) as error:
                assert "\n" not in str(error) and len(str(error)) < 1000
        path.write_bytes(before)


def test_no_name_of_a_picture_leads_out_of_the_folder(tmp_path):
    for name in ("../secret.jpg", "/etc/passwd", "a/../../b.jpg"):
        with pytest.raises(InputError, match="leads out of"):
            find_picture(EXAMS["pope"], tmp_path, name)
