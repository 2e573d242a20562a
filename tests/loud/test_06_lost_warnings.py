"""Shortcuts keep the warnings of the answer: lists carry them, numbers and words emit them."""

import warnings

import pytest
from PIL import Image
from small_model import Scripted

from ferretlite.common.errors import FerretliteWarning
from ferretlite.model.inference import Ferret
from ferretlite.regions.geometry import Box
from ferretlite.scenes.world import make_scene

IMAGE = Image.new("RGB", (1000, 1000))
TORN = "star [1, 2, 3, 4], cup [9, 8, 7, 6]"  # the cup's corners are exchanged
SHORTCUTS = {
    "ground": lambda f, n: f.ground(IMAGE, "star", max_new_tokens=n),
    "detect": lambda f, n: f.detect(IMAGE, max_new_tokens=n),
    "detect names": lambda f, n: f.detect(IMAGE, "star", max_new_tokens=n),
}
shortcuts = pytest.mark.parametrize("call", SHORTCUTS.values(), ids=SHORTCUTS)


@shortcuts
def test_a_list_says_which_boxes_were_dropped(call):
    found = call(Scripted(TORN), 99)
    assert isinstance(found, list) and [len(g.boxes) for g in found] == [1]
    assert found.finish_reason == "stop" and found.reason == ""
    assert len(found.warnings) == 1 and "[9, 8, 7, 6]" in found.warnings[0]


@shortcuts
def test_a_list_of_an_answer_that_was_cut_says_so(call):
    found = call(Scripted(TORN, ends=False), 5)
    assert found.finish_reason == "length"
    assert "cut off after 5 tokens" in found.reason and found.reason == found.warnings[-1]


def test_an_empty_list_says_what_the_model_answered():
    found = Scripted("There is no star.").ground(IMAGE, "star")
    assert found == [] and found.finish_reason == "stop"
    assert "'There is no star.'" in found.reason


def test_of_several_questions_the_warning_names_the_one():
    found = Scripted("star [1, 2, 3, 4]", TORN).detect(IMAGE, ["star", "cup"])
    assert [g.name for g in found] == ["star", "cup"]
    assert len(found.warnings) == 1 and "'Find all cups.'" in found.warnings[0]


def test_a_number_of_a_list_that_was_cut_comes_with_a_warning():
    ferret = Scripted("1: star [1, 2, 3, 4], 2: star [5, 6, 7, 8]; 2 in all", ends=False)
    with pytest.warns(FerretliteWarning, match="cut off after 64 tokens") as caught:
        ferret.texts = [ferret.texts[0] * 9]
        ferret.count(IMAGE, "star", max_new_tokens=64)
    assert caught[0].filename == __file__  # the line of the caller


def test_a_word_that_was_cut_comes_with_a_warning():
    with pytest.warns(FerretliteWarning, match="cut off after 1 token:"):
        Scripted("red star").refer(IMAGE, Box(1, 2, 30, 40), max_new_tokens=1)


def test_a_whole_answer_comes_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Scripted("red star").refer(IMAGE, Box(1, 2, 30, 40)) == "red star"
        assert Scripted("1: star [1, 2, 3, 4]; 1 in all").count(IMAGE, "star") == 1


def test_the_shipped_models_tell_of_a_list_that_was_cut():
    image = make_scene(12, split="test").image
    dense = Ferret.load("tiny", device="cpu").detect(image, max_new_tokens=40)
    assert dense.finish_reason == "length" and "cut off after 40 tokens" in dense.reason
    griffon = Ferret.load("tiny-griffon", device="cpu")
    for found in (
        griffon.find(image, like=Box(80, 70, 162, 135), max_new_tokens=4),
        griffon.detect(image, ["monkey", "star"], max_new_tokens=4),
        griffon.ground(image, "monkey", max_new_tokens=4),
    ):
        assert found.finish_reason == "length" and "cut off after 4 tokens" in found.reason
    with pytest.warns(FerretliteWarning, match="cut off after 4 tokens"):
        griffon.count(image, like=Box(80, 70, 162, 135), max_new_tokens=4)
