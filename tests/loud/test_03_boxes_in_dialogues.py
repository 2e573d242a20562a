"""Boxes in the text of a conversation are read in the frame that was named, or refused or counted;
they are never read as our own bins.
"""

import json

import pytest
from PIL import Image

from ferretlite.common.errors import InputError
from ferretlite.data.dialogues import GritDialogues
from ferretlite.data.llava import LlavaDialogues
from ferretlite.regions.grammar import find_groundings

SIZE = (100, 200)  # height, width


def write(folder, question, answer, **more):
    Image.new("RGB", SIZE[::-1]).save(folder / "a.png")
    said = [{"from": "human", "value": "<image>\n" + question}, {"from": "gpt", "value": answer}]
    record = dict(id=7, image="a.png", conversations=said, **more)
    (folder / "talk.json").write_text(json.dumps([record]))
    return folder


def llava(folder, answer, question="Where?", **options):
    return LlavaDialogues(write(folder, question, answer), "talk.json", ".", **options)


BOXES = (
    "[50, 20, 150, 80]",
    "[0.25, 0.2, 0.75, 0.8]",
    "(50,20),(150,80)",
    "(50, 20, 150, 80)",
    "<box>(250,200),(750,800)</box>",
    "[[50, 20], [150, 80]]",
    '{"bbox_2d": [50, 20, 150, 80], "label": "cat"}',
)


@pytest.mark.parametrize("box", BOXES)
def test_a_box_of_an_unknown_frame_is_left_out_and_counted(tmp_path, box):
    with pytest.raises(
        InputError, match="record with id 7, turn 0: found the box .*, expected one whose fr"
    ):
        llava(tmp_path, f"A cat {box}.")[0]
    reader = llava(tmp_path, f"A cat {box}.", strict=False)
    assert reader[0].turns == []
    assert reader.left_out == {"boxes of an unknown frame": 1}
    assert "talk.json, record with id 7, turn 0: found" in reader.problems[0][1]
    asked = llava(tmp_path, "A cat.", f"What is in {box}?", strict=False)
    assert asked[0].turns == [] and asked.left_out == {"boxes of an unknown frame": 1}


@pytest.mark.parametrize(
    "frame, box",
    [
        ("pixels", "[50, 20, 150, 80]"),
        ("image", "[0.25, 0.2, 0.75, 0.8]"),
        ("square", "[0.25, 0.35, 0.75, 0.65]"),  # 50 rows above and below the image
    ],
)
def test_the_same_box_in_each_frame(tmp_path, frame, box):
    turn = llava(tmp_path, f"A cat {box}.", f"What is in {box}?", boxes=frame)[0].turns[0]
    assert turn.answer == "A cat [250, 200, 750, 800]."
    assert turn.prompt == "What is in <region>?"
    assert turn.regions[0].list() == pytest.approx([50, 20, 150, 80])


def test_thousandths_are_a_frame_too(tmp_path):
    turn = llava(tmp_path, "A cat [250, 200, 750, 800].", boxes="bins")[0].turns[0]
    assert turn.answer == "A cat [250, 200, 750, 800]."


@pytest.mark.parametrize(
    "frame, box",
    [
        ("square", "[50, 20, 150, 80]"),
        ("image", "[50, 20, 150, 80]"),
        ("image", "[-0.1, 0.2, 0.75, 0.8]"),
        ("image", "[0.25, 0.2, 1.75, 0.8]"),
        ("image", "[0.75, 0.2, 0.25, 0.8]"),
        ("pixels", "[0.25, 0.2, 0.75, 0.8]"),
        ("pixels", "[500, 20, 600, 80]"),
        ("pixels", "[150, 20, 50, 80]"),
        ("bins", "[0.25, 0.2, 0.75, 0.8]"),
        ("bins", "[250, 200, 7500, 800]"),
    ],
)
def test_a_box_that_does_not_fit_its_frame_is_refused(tmp_path, frame, box):
    with pytest.raises(InputError, match=r"record with id 7, turn 0: found the box '\[.*expected"):
        llava(tmp_path, f"A cat {box}.", boxes=frame)[0]
    lax = llava(tmp_path, f"A cat {box}.", boxes=frame, strict=False)
    assert lax[0].turns == [] and lax.left_out == {"turn": 1}


@pytest.mark.parametrize(
    "answer",
    [
        "A cat [0.25, 0.2, 0.75, 0.8] and a dog [50, 20, 150, 80].",
        "A cat [0.25, 0.2, 0.75, 0.8] and a dog (50,20),(150,80).",
        'A cat [0.25, 0.2, 0.75, 0.8], {"bbox_2d": [50, 20, 150, 80]}',
        "A cat [0.25, 0.2, 0.75, 0.8] and <box>(50,20),(150,80)</box>.",
    ],
)
def test_two_box_forms_in_one_answer_are_refused(tmp_path, answer):
    with pytest.raises(InputError, match="turn 0: found the box"):
        llava(tmp_path, answer, boxes="image")[0]


@pytest.mark.parametrize("box", BOXES)
def test_a_box_in_the_text_beside_placeholders_is_refused(tmp_path, box):
    boxes = [[], [[50, 20, 150, 80]]]
    folder = write(tmp_path, "Where?", f"A cat <bbox_location0>, {box}.", box_x1y1x2y2=boxes)
    with pytest.raises(InputError, match="in the text, expected all boxes of a turn in one form"):
        GritDialogues(folder, "talk.json", ".")[0]


def test_boxes_of_placeholders_in_fractions_are_refused(tmp_path):
    boxes = [[], [[0.25, 0.2, 0.75, 0.8]]]
    folder = write(tmp_path, "Where?", "A cat <bbox_location0>.", box_x1y1x2y2=boxes)
    with pytest.raises(InputError, match="turn 0: found the box .*expected a box in pixels"):
        GritDialogues(folder, "talk.json", ".")[0]


def test_numbers_that_are_no_box_stay(tmp_path):
    answer = "Built in [2019] at (3, 4); rows 1, 2, 3, 4."
    assert llava(tmp_path, answer)[0].turns[0].answer == answer


def test_text_without_an_image_may_hold_any_numbers(tmp_path):
    said = [{"from": "human", "value": "Sort."}, {"from": "gpt", "value": "[1, 2, 3, 4]"}]
    (tmp_path / "talk.json").write_text(json.dumps([dict(id=1, conversations=said)]))
    assert LlavaDialogues(tmp_path, "talk.json")[0].turns[0].answer == "[1, 2, 3, 4]"


def test_the_boxes_of_real_answers_are_fractions_of_the_image(tmp_path, real_files):
    # Ferret-Bench: 257 boxes in 40 answers; the first has two
    lines = (real_files / "ferretbench" / "answer.jsonl").read_text().splitlines()
    count = 0
    for line in lines:
        text = json.loads(line)["text"]
        assert llava(tmp_path, text, strict=False)[0].turns == []  # no frame named
        answer = llava(tmp_path, text, boxes="image")[0].turns[0].answer
        count += len(find_groundings(answer, SIZE)[0])
    assert count == 257
    first = llava(tmp_path, json.loads(lines[0])["text"], boxes="image")[0].turns[0].answer
    assert first.startswith(
        "The man [201, 2, 940, 758] is performing a trick on a skateboard [12, 746, 664, 886]."
    )
