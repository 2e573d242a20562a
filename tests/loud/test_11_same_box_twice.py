"""The same name and box twice become one, with a warning; without a name nothing is asked."""

import pytest
from PIL import Image
from small_model import Scripted

from ferretlite.common.errors import InputError
from ferretlite.model.inference import Ferret
from ferretlite.scenes.world import make_scene

IMAGE = Image.new("RGB", (1000, 1000))


def boxes_of(groundings):
    return [(g.name, *(int(v) for v in b.list())) for g in groundings for b in g.boxes]


def test_a_repetition_is_left_out_and_named():
    said = "star [1, 2, 3, 4], cup [1, 2, 3, 4], star [1, 2, 3, 4], star [1, 2, 3, 5]"
    answer = Scripted(said).ask(IMAGE, "Find all objects.")
    assert boxes_of(answer.groundings) == [
        ("star", 1, 2, 3, 4),
        ("cup", 1, 2, 3, 4),
        ("star", 1, 2, 3, 5),
    ]
    assert answer.warnings == [
        "The answer lists 'star' with one box more than once: 1 exact repetition left out."
    ]
    groundings = answer.groundings
    assert [len(g.boxes) for g in groundings] == [len(g.raw_scores) for g in groundings]
    assert answer.raw_text == said  # as the model wrote it


def test_repetitions_of_one_name_are_counted():
    answer = Scripted("stars [1, 2, 3, 4] [1, 2, 3, 4] [1, 2, 3, 4]").ask(IMAGE, "Find all stars.")
    assert [len(g.boxes) for g in answer.groundings] == [1]
    assert "2 exact repetitions left out" in answer.warnings[0]


def test_an_answer_without_repetitions_is_left_alone():
    answer = Scripted("star [1, 2, 3, 4], cup [5, 6, 7, 8]").ask(IMAGE, "Find all objects.")
    assert len(answer.groundings) == 2 and answer.warnings == []


@pytest.fixture(scope="module")
def tiny():
    return Ferret.load("tiny", device="cpu")


@pytest.mark.parametrize("i", [1, 2, 18])
def test_the_shipped_model_lists_no_box_twice(tiny, i):
    found = tiny.detect(make_scene(i, split="test").image)
    listed = boxes_of(found)
    assert len(set(listed)) == len(listed) > 3
    assert "more than once" in found.warnings[0]


@pytest.mark.parametrize("name", ["", "  ", None, 3])
def test_no_name_is_no_question(name):
    ferret = Scripted()
    for call in (
        lambda: ferret.count(IMAGE, "" if name is None else name),
        lambda: ferret.detect(IMAGE, [name]),
        lambda: ferret.ground(IMAGE, [name]),
        lambda: ferret.ground(IMAGE, caption="" if name is None else name),
        lambda: ferret.find(IMAGE, like=None),
    ):
        with pytest.raises(InputError):
            call()
    assert ferret.asked == []
