"""Item 13: an error of a data-loader worker is one sentence that names record and file, and
`skip="bad"` passes over such records and counts them.
"""

import json
import warnings
from dataclasses import replace

import pytest

from ferretlite.common.errors import FerretliteWarning, InputError
from ferretlite.scenes.world import make_scene
from ferretlite.training.runs import train
from ferretlite.training.stages import STAGES


@pytest.fixture
def short(monkeypatch, begin):
    "Stage III alone, in batches of two, from random towers, with a worker that loads the data."
    last = replace(STAGES["tiny"][2], batch_size=2, n_turns=2, visits=1)
    monkeypatch.setitem(STAGES, "tiny", (*STAGES["tiny"][:2], last))
    monkeypatch.setattr("ferretlite.training.trainer.count_data_workers", lambda: 1)
    return dict(stage="3", samples=8, **begin)


def write_mixture(folder, broken=()):
    "Eight conversations; pictures of the broken ones are cut off after 100 bytes."
    (folder / "images").mkdir()
    talks = []
    for i in range(8):
        path = folder / "images" / f"{i}.png"
        make_scene(i, 96).image.save(path)
        if i in broken:
            path.write_bytes(path.read_bytes()[:100])
        said = [("human", "<image>\nWhat is this?"), ("gpt", "A star.")]
        turns = [{"from": who, "value": text} for who, text in said]
        talks.append(dict(id=f"talk-{i}", image=path.name, conversations=turns))
    (folder / "talks.json").write_text(json.dumps(talks))
    part = dict(name="talks", format="llava", annotations="talks.json")
    (folder / "mixture.json").write_text(json.dumps(dict(stages={"3": [part]})))
    return folder / "mixture.json"


def test_the_error_is_one_sentence_that_names_record_and_file(tmp_path, short):
    data = write_mixture(tmp_path, broken=(3,))
    with pytest.raises((InputError, OSError)) as caught:
        train(out=tmp_path / "run", data=data, **short)
    said = str(caught.value)
    assert "talk-3" in said or "record 3" in said
    assert "3.png" in said and "talks" in said
    assert "Traceback" not in said and "worker" not in said and len(said) < 400
    assert not (tmp_path / "run").exists()  # and nothing is left


def test_bad_records_can_be_skipped_and_are_listed(tmp_path, short):
    data = write_mixture(tmp_path, broken=(3, 5))
    with pytest.warns(FerretliteWarning, match=r"talks: left out 2 × .*, for example .*\.png"):
        out = train(out=tmp_path / "run", data=data, skip="bad", **short)
    (line,) = json.loads((out / "run.json").read_text())["left_out"]
    assert line.startswith("talks: left out 2 × ") and "talks.json" in line
    notes = [json.loads(text) for text in (out / "skipped.jsonl").read_text().splitlines()]
    assert {note["part"] for note in notes} == {"talks"}


def test_where_nothing_is_bad_nothing_is_listed(tmp_path, short):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FerretliteWarning)
        out = train(out=tmp_path / "run", data=write_mixture(tmp_path), skip="bad", **short)
    assert "left_out" not in json.loads((out / "run.json").read_text())


def test_what_can_be_skipped_is_said(tmp_path, short):
    with pytest.raises(InputError, match="skip: found 'all', expected 'bad' or nothing"):
        train(out=tmp_path / "run", data=write_mixture(tmp_path), skip="all", **short)
    with pytest.raises(InputError, match="skip: found 'bad', expected nothing, since there is no"):
        train(out=tmp_path / "run", skip="bad", **short)
