"""Item 1: marks of images in the forms of other models are read, other media and turns of a system
are refused by name, and a field that names an image is not overlooked.
"""

import json

import pytest
from PIL import Image

from ferretlite.common.errors import InputError
from ferretlite.data.llava import LlavaDialogues

ANSWER = {"from": "gpt", "value": "A cat."}


def read(folder, question, **fields):
    Image.new("RGB", (30, 20), "red").save(folder / "cat.png")
    said = [{"from": "human", "value": question}, ANSWER]
    record = {"id": 1, "conversations": said} | fields
    (folder / "talk.json").write_text(json.dumps([record]))
    return LlavaDialogues(folder, "talk.json", ".")[0]


@pytest.mark.parametrize(
    "mark",
    [
        *("<image>", "<IMAGE>", "<Image>", "<image_1>", "<image1>", "<image-1>", "<|image|>"),
        *("<|image_1|>", "<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>", "<img>"),
        *("<|vision_start|><|image_pad|><|image_pad|><|vision_end|>", "<img></img>", "[IMG]"),
        *("<ImageHere>", "<image_placeholder>", "<start_of_image>", "<im_start><im_patch><im_end>"),
    ],
)
def test_a_mark_is_no_word(tmp_path, mark):
    talk = read(tmp_path, f"{mark}\nWhat is this?", image="cat.png")
    assert talk.size == (20, 30) and talk.turns[0].prompt == "What is this?"
    with pytest.raises(InputError, match="found 1 <image> in its text for 0 images"):
        read(tmp_path, f"{mark}\nWhat is this?")


def test_a_mark_may_name_its_file(tmp_path):
    talk = read(tmp_path, "Picture 1: <img>cat.png</img>\nWhat is this?")
    assert talk.size == (20, 30) and talk.turns[0].prompt == "Picture 1: What is this?"


def test_two_numbers_are_two_images(tmp_path):
    with pytest.raises(InputError, match="found 2 <image> in its text for 1 images"):
        read(tmp_path, "Is <image_1> like <image_2>?", image="cat.png")
    assert read(tmp_path, "<image_1> What is in <image_1>?", image="cat.png").size == (20, 30)


@pytest.mark.parametrize(
    "mark",
    ["<audio>", "<|vision_start|>", "<|vision_end|>", "<video_1>", "<|video_pad|>", "<|AUDIO|>"],
)
def test_a_mark_of_another_kind_is_named(tmp_path, mark):
    with pytest.raises(InputError) as caught:
        read(tmp_path, f"{mark} What is this?", image="cat.png")
    assert f"record 0, text: found '{mark}', expected an image" in str(caught.value)


@pytest.mark.parametrize("mark", ["<bbox>", "<ref-object>"])
def test_a_mark_of_a_place_whose_box_stands_elsewhere_is_named(tmp_path, mark):
    with pytest.raises(InputError, match=f"record 0, text: found '{mark}', expected no mark of"):
        read(tmp_path, f"<image>Is {mark} red?", image="cat.png", objects=dict(bbox=[[1, 2, 9, 9]]))


def test_a_turn_without_words_is_named(tmp_path):
    with pytest.raises(InputError, match="record with id 1, turn 0: found '<image>', expected wor"):
        read(tmp_path, "<image>", image="cat.png")


def test_a_record_without_an_id_is_named_by_its_number(tmp_path):
    with pytest.raises(InputError, match="talk.json, record 0, turn 0: found '<image>'"):
        read(tmp_path, "<image>", image="cat.png", id=None)


@pytest.mark.parametrize("field", ["image_path", "img", "image_url", "img_path", "image_file"])
def test_fields_that_name_an_image_are_read(tmp_path, field):
    assert read(tmp_path, "What is this?", **{field: "cat.png"}).size == (20, 30)
    with pytest.raises(InputError, match=f"field {field}: found 'https.*download the picture"):
        read(tmp_path, "What is this?", **{field: "https://x.org/cat.png"})
    with pytest.raises(InputError, match=f"field {field}: found 7, expected a file name"):
        read(tmp_path, "What is this?", **{field: 7})


@pytest.mark.parametrize("name", ["conversations", "messages"])
def test_a_turn_of_a_system_is_refused_with_the_reason(tmp_path, name):
    keys = ("from", "value") if name == "conversations" else ("role", "content")
    said = [("system", "Be short."), ("user", "What is this?"), ("assistant", "A cat.")]
    turns = [dict(zip(keys, pair)) for pair in said]
    with pytest.raises(InputError, match="turn 0: found a turn of system, expected human and gpt"):
        read(tmp_path, "", conversations=None, **{name: turns}) if name == "messages" else read(
            tmp_path, "", conversations=turns
        )
