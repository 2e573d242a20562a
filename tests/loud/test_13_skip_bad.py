"""Bad records stop a run with one sentence, or are skipped, counted and listed with an example."""

import json
import random

import pytest
import torch
from PIL import Image

from ferretlite.common.errors import FerretliteWarning, InputError
from ferretlite.common.files import WEIGHTS
from ferretlite.data.batches import unwrap_worker_error
from ferretlite.data.inspection import check_mixture, format_check
from ferretlite.data.mixtures import Skipped, format_skipped, make_mixture, read_skipped
from ferretlite.model.processing import FerretProcessor

GOOD = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]


@pytest.fixture(scope="module")
def tiny():
    return FerretProcessor.from_pretrained(WEIGHTS / "tiny")


def write(folder, *records):
    """Write a mixture of one part, `talk`, with these records; images lie in its folder."""
    Image.new("RGB", (30, 20), "red").save(folder / "good.png")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:40])
    (folder / "talk.json").write_text(json.dumps([dict(id=k, **r) for k, r in enumerate(records)]))
    part = dict(name="talk", format="llava", annotations="talk.json", images=".")
    (folder / "mixture.json").write_text(json.dumps(dict(stages={"1": [part]})))
    return folder / "mixture.json"


GOOD_RECORD = dict(image="good.png", conversations=GOOD)
CUT = dict(image="cut.png", conversations=GOOD)
GONE = dict(image="gone.png", conversations=GOOD)
ONE_SIDED = dict(image="good.png", conversations=GOOD[:1])
NULL = dict(image="good.png", conversations=None)


def first_error(path, workers):
    loader = torch.utils.data.DataLoader(
        make_mixture(path, 1), 1, collate_fn=list, num_workers=workers
    )
    with pytest.raises((OSError, ValueError)) as caught:
        list(loader)
    return caught.value


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "record, kind, name", [(CUT, InputError, "cut.png"), (GONE, FileNotFoundError, "gone.png")]
)
def test_an_error_of_a_worker_arrives_as_one_sentence(tmp_path, record, kind, name, workers):
    error = unwrap_worker_error(first_error(write(tmp_path, record), workers))
    text = str(error)
    assert type(error) is kind and "Traceback" not in text and len(text.splitlines()) == 1
    assert text.startswith("Part talk, record 0 (id 0) of talk.json: ") and name in text


def test_a_mistake_of_the_program_keeps_its_traceback():
    class Wrong(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, i):
            return None + i

    with pytest.raises(TypeError) as caught:
        list(torch.utils.data.DataLoader(Wrong(), num_workers=1))
    assert unwrap_worker_error(caught.value) is caught.value
    assert "Traceback" in str(caught.value)


def test_skipped_records_are_replaced_and_written_down(tmp_path):
    log = tmp_path / "skipped.jsonl"
    path = write(tmp_path, GOOD_RECORD, CUT, GONE)
    mixture = make_mixture(path, 1, 12, skip=True, log=log)
    loader = torch.utils.data.DataLoader(mixture, 2, collate_fn=list, num_workers=2)
    ids = {talk.id for batch in loader for talk in batch}
    assert ids == {"talk/0"}
    first, second = sorted(format_skipped(read_skipped(log)))
    assert first.startswith(
        "talk: left out 1 × broken record, for example Part talk, record 1 (id 1) of "
    )
    assert second.startswith("talk: left out 1 × missing picture, for example Part talk, record 2")
    assert "gone.png" in second


def test_annotations_that_were_left_out_while_reading_are_warned_of(tmp_path):
    path = write(tmp_path, GOOD_RECORD, NULL, NULL)
    with pytest.warns(FerretliteWarning) as seen:
        mixture = make_mixture(path, 1, skip=True)
    assert len(mixture) == 1
    assert str(seen[0].message).startswith("mixture, stage 1, talk: left out 2 × conversations, ")
    assert "talk.json, record 1, field conversations: found nothing" in str(seen[0].message)
    with pytest.raises(
        InputError, match=r"Part talk: .*, record 1, field conversations: found .*--skip bad"
    ):
        make_mixture(path, 1)


def test_a_check_goes_on_after_a_bad_record_and_lists_it(tmp_path, tiny):
    path = write(tmp_path, GOOD_RECORD, CUT, GONE, NULL, ONE_SIDED, GOOD_RECORD)
    found = check_mixture(path, tiny)
    assert [p.split(":")[0] for p in found["problems"]] == ["Stage 1, talk"] * 4
    assert "1 × conversations in 5 records cannot be used: " in found["problems"][0]
    assert (
        "1 × turns in 5 records cannot be used: talk.json, record with id 4" in found["problems"][1]
    )
    assert "1 of 5 pictures are missing, the first is gone.png" in found["problems"][2]
    assert "1 of 5 records are broken" in found["problems"][3]
    lines = format_check(found).splitlines()
    left_out = [line.strip() for line in lines if line.startswith("    left out")]
    assert len(left_out) == 2
    assert left_out[0].startswith("left out 1 × conversations in 5 records, for example ")
    assert "talk.json, record 3, field conversations: found nothing" in left_out[0]
    assert left_out[1].startswith(
        "left out 1 × turns in 5 records, for example talk.json, record with id 4"
    )
    assert "found turns of human, expected human and gpt in turn" in left_out[1]


def test_a_check_with_skip_has_no_problem_and_lists_what_is_skipped(tmp_path, tiny):
    path = write(tmp_path, GOOD_RECORD, CUT, GONE, GOOD_RECORD)
    found = check_mixture(path, tiny, skip=True)
    assert found["problems"] == []
    text = format_check(found)
    assert (
        "skipped 1 × missing in 4 records, for example Part talk, record 2 (id 2) of talk.json"
        in text
    )
    assert (
        "skipped 1 × broken in 4 records, for example Part talk, record 1 (id 1) of talk.json"
        in text
    )


def test_a_part_without_any_good_record_stays_a_problem(tmp_path, tiny):
    found = check_mixture(write(tmp_path, CUT, GONE), tiny, skip=True)
    assert len(found["problems"]) == 1 and "2 of 2 records cannot be read" in found["problems"][0]


def test_a_resumed_run_skips_the_same_records(tmp_path):
    path = write(tmp_path, GOOD_RECORD, CUT, GOOD_RECORD, GONE)
    one, two = (make_mixture(path, 1, 20, seed=3, skip=True) for _ in range(2))
    order = list(range(20))
    random.Random(0).shuffle(order)
    shuffled = {i: two[i].id for i in order}
    assert [one[i].id for i in range(20)] == [shuffled[i] for i in range(20)]


def test_held_out_records_that_cannot_be_read_are_warned_of(tmp_path):
    path = write(tmp_path, GOOD_RECORD)
    (tmp_path / "held.json").write_text(json.dumps([dict(id=1), GOOD_RECORD]))
    recipe = json.loads(path.read_text())
    recipe["held_out"] = [dict(format="llava", annotations="held.json", images=".")]
    recipe["stages"]["1"][0]["annotations"] = "other.json"
    (tmp_path / "other.json").write_text(json.dumps([dict(id=1, conversations=GOOD)]))
    path.write_text(json.dumps(recipe))
    with pytest.warns(FerretliteWarning, match="held out llava: 1 records cannot be read"):
        make_mixture(path, 1)


def test_a_note_is_written_once_and_the_number_of_notes_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(Skipped, "most", 2)
    notes = Skipped(tmp_path / "log.jsonl")
    for number in (1, 1, 2, 1, 3):
        notes.add("talk", "image", f"record {number}")
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["sentence"] for line in lines] == ["record 1", "record 2"]


def test_a_part_whose_records_are_all_refused_says_why(tmp_path):
    """Nothing is left to train on, and the first reason is the one that has to be mended."""
    talk = {"id": 1, "image": None, "conversations": None}
    (tmp_path / "t.json").write_text(json.dumps([talk, talk]), encoding="utf-8")
    part = {"name": "talks", "format": "llava", "folder": ".", "annotations": "t.json"}
    (tmp_path / "m.json").write_text(json.dumps({"stages": {"3": [part]}}), encoding="utf-8")
    processor = FerretProcessor.from_pretrained(WEIGHTS / "tiny")
    found = check_mixture(tmp_path / "m.json", processor)
    (problem,) = [p for p in found["problems"] if "it has no records" in p]
    assert "2 left out" in problem and "t.json, record 0, field conversations" in problem
