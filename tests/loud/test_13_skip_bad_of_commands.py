"""`--skip bad`: records that cannot be read are counted and listed, and the rest can be used."""

import json

import pytest
from PIL import Image

from ferretlite.app import cli

TURNS = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]


@pytest.fixture
def mixture(tmp_path, monkeypatch):
    "Three records: the second has no picture, the third has null where its turns should be."
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (30, 20), "red").save("good.png")
    records = [
        dict(id=0, image="good.png", conversations=TURNS),
        dict(id=1, image="gone.png", conversations=TURNS),
        dict(id=2, image="good.png", conversations=None),
    ]
    (tmp_path / "talk.json").write_text(json.dumps(records))
    part = dict(name="talk", format="llava", annotations="talk.json", images=".")
    (tmp_path / "mixture.json").write_text(json.dumps(dict(stages={"1": [part]})))
    return "mixture.json"


def test_a_bad_record_is_a_problem(capsys, mixture):
    assert cli.main(["data", "check", mixture]) == 1
    out = capsys.readouterr().out
    problems = [line for line in out.splitlines() if line.startswith("PROBLEM")]
    assert len(problems) == 2 and "Traceback" not in out  # a bad annotation counts as a bad picture
    assert "record 2, field conversations: found nothing" in problems[0]
    assert "1 of 2 pictures are missing, the first is gone.png" in problems[1]


def test_with_skip_it_is_counted_and_listed_with_an_example(capsys, mixture):
    assert cli.main(["data", "check", mixture, "--skip", "bad"]) == 0
    out = capsys.readouterr().out
    assert "PROBLEM" not in out and "gone.png" in out and "record 2" in out
    assert "conversations: found nothing" in out


def test_skip_is_bad_or_nothing(capsys, mixture):
    for words in (["data", "check", mixture], ["train", "--out", "r", "--data", mixture]):
        assert cli.main([*words, "--skip", "all"]) == 2
        assert "'--skip': 'all' is not one of 'bad'" in capsys.readouterr().err
