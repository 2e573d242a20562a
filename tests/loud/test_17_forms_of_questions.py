"""Questions in every natural form get an answer, and other values one sentence."""

import math

import numpy as np
import pytest
import torch
from small_model import Scripted

from ferretlite.common.errors import InputError
from ferretlite.model.inference import Ferret
from ferretlite.regions.geometry import Box, Mask, Point
from ferretlite.scenes.world import make_scene
from ferretlite.vision.coreferring import cut_crop

SCENE = make_scene(3, (90, 120), "test")
IMAGE, BOX = SCENE.image, Box(10, 20, 60, 80)


def regions_of(regions, n=1):
    "The regions that reach the model, for n questions."
    ferret = Scripted(*["star"] * n)
    answers = ferret.ask(IMAGE, ["What is in this region?"] * n, regions)
    return [a.regions for a in answers]


def test_one_region_serves_several_questions():
    assert regions_of(BOX, 2) == [[BOX], [BOX]]
    assert regions_of(Point(3, 4), 3) == [[Point(3, 4)]] * 3
    assert regions_of([BOX, Point(3, 4)], 2) == [[BOX], [Point(3, 4)]]
    assert regions_of([10, 20, 60, 80], 2) == regions_of((10, 20, 60, 80), 2) == [[BOX], [BOX]]
    assert regions_of([3, 4], 2) == [[Point(3, 4)]] * 2


def test_one_crop_serves_several_questions():
    from ferretlite.model.rows import spread_crops

    assert spread_crops("a.png", 2, True) == [["a.png"], ["a.png"]]


@pytest.mark.parametrize("device", ["gpu", "GPU", "cuda:99", "", 3.5, "tpu"])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(InputError, match="device: found"):
        Ferret.load("tiny", device=device)


@pytest.mark.parametrize("dtype", ["bf16", torch.int8, 16])
def test_a_number_format_that_is_none_is_named(dtype):
    with pytest.raises(InputError, match="dtype: found"):
        Ferret.load("tiny", device="cpu", dtype=dtype)


@pytest.mark.parametrize("name", [None, "", 3])
def test_a_model_needs_a_name(name):
    with pytest.raises(InputError, match="expected a shipped name"):
        Ferret.load(name)


@pytest.mark.parametrize("prompt", ["", "  \n", None, 3, b"What?", ["What?", ""], [None]])
def test_an_empty_question_is_refused(prompt):
    ferret = Scripted("a", "b")
    with pytest.raises(InputError, match="prompt: found .*, expected a question in words"):
        ferret.ask(IMAGE, prompt)
    assert ferret.asked == []


def test_no_image_is_named():
    with pytest.raises(InputError, match="found nothing"):
        Scripted("a").ask(None, "What?")


@pytest.mark.parametrize(
    "temperature", [1e-38, 5e-324, 0.009, 101, 1e300, math.inf, math.nan, -1, "1", None, True]
)
def test_a_temperature_without_meaning_is_refused(temperature):
    with pytest.raises(InputError, match="temperature"):
        Scripted("a").ask(IMAGE, "What?", temperature=temperature)


@pytest.mark.parametrize("temperature", [0, 0.01, 1, 100, np.float32(0.5)])
def test_a_temperature_in_the_range_is_used(temperature):
    assert Scripted("a").ask(IMAGE, "What?", temperature=temperature).text == "a"


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "8", None, True, math.nan])
@pytest.mark.parametrize("name", ["max_new_tokens", "batch"])
def test_limits_are_whole_numbers(name, wrong):
    with pytest.raises(InputError, match=f"{name}: found"):
        Scripted("a").ask(IMAGE, "What?", **{name: wrong})


def test_a_region_is_needed_where_one_is_named():
    with pytest.raises(InputError, match="region: found nothing"):
        Scripted("a").refer(IMAGE, None)


@pytest.mark.parametrize("phrase", [3, [3], [[]], [None]])
def test_a_phrase_is_a_text(phrase):
    with pytest.raises(InputError):
        Scripted("a").ground(IMAGE, phrase)


MASK = np.zeros((90, 120), bool)
MASK[20:40, 30:50] = True


@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_arrays_are_regions(make):
    corners = [10.0, 20.0, 60.0, 80.0]
    assert regions_of([make(corners)]) == [[BOX]]
    ferret = Scripted("star")
    assert ferret.ask(IMAGE, "What is in this region?", make(corners)).regions == [BOX]
    ferret = Scripted("star")
    two = ferret.ask(IMAGE, "Which of them?", make([corners, [1.0, 2.0, 3.0, 4.0]])).regions
    assert two == [BOX, Box(1, 2, 3, 4)]
    ferret = Scripted("star")
    assert ferret.ask(IMAGE, "What is in this region?", make(MASK)).regions == [Mask(MASK)]
    ferret = Scripted("star")
    assert ferret.refer(IMAGE, make(corners)) == "star"


@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_an_array_for_several_questions_has_a_row_for_each(make):
    rows = make([[10.0, 20.0, 60.0, 80.0], [1.0, 2.0, 3.0, 4.0]])
    assert regions_of(rows, 2) == [[BOX], [Box(1, 2, 3, 4)]]
    assert regions_of(rows[0], 2) == [[BOX], [BOX]]
    assert regions_of(make(MASK), 2) == [[Mask(MASK)]] * 2
    with pytest.raises(InputError, match="1 lists of regions"):
        regions_of(rows[:1], 2)


@pytest.mark.parametrize("wrong", [5, "10,20,60,80", [1, 2, 3], np.zeros(3), np.zeros((2, 5)), {}])
def test_what_is_no_region_is_named(wrong):
    with pytest.raises(InputError):
        Scripted("star").ask(IMAGE, "What is in this region?", wrong)


def test_a_crop_outside_of_its_image_is_refused():
    for box in (Box(500, 500, 600, 600), Box(-50, 5, -10, 9)):
        with pytest.raises(InputError, match="outside of its image, expected a place within 120 x"):
            cut_crop(IMAGE, box)
    assert cut_crop(IMAGE, Box(100, 70, 500, 500)).size == (192, 192)  # a part of it is inside


def test_a_streamer_and_a_file_name_are_what_they_should_be():
    ferret = Scripted("star")
    with pytest.raises(InputError, match="streamer: found 5, expected one of transformers"):
        ferret.ask(IMAGE, "What?", streamer=5)
    answer = ferret.ask(IMAGE, "What?")
    for name in (None, 3, b"a.png"):
        with pytest.raises(InputError, match="path: found .*, expected the name of a file"):
            answer.save(name)
