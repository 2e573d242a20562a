"""A record whose image is missing is text alone, or an error, or is left out and counted."""

import json

import pytest
from PIL import Image

from ferretlite.common.errors import InputError
from ferretlite.data.dialogues import GritDialogues
from ferretlite.data.llava import LlavaDialogues

QUESTION, ANSWER = "<image>\nWhat is this?", "A cat."
TALK = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]
WORDS = [{"from": "human", "value": "How many sides has a dice?"}, {"from": "gpt", "value": "Six."}]


def write(folder, *records):
    Image.new("RGB", (30, 20), "red").save(folder / "cat.png")
    (folder / "talk.json").write_text(json.dumps(records))
    return folder


def read(folder, record, **options):
    return LlavaDialogues(write(folder, record), "talk.json", ".", **options)[0]


@pytest.mark.parametrize(
    "record, says",
    [
        (dict(), "found 1 <image> in its text for 0 images"),
        (dict(image=None), "found 1 <image> in its text for 0 images"),
        (dict(image=""), "found 1 <image> in its text for 0 images"),
        (dict(images=[]), "found 1 <image> in its text for 0 images"),
        (dict(images=["cat.png", "dog.png"]), "record 0: found 2 images, expected one image"),
        (dict(image=7), "field image: found 7, expected a file name"),
        (dict(image={"bytes": None, "path": "cat.png"}), "field image: found {.*expected a file"),
        (dict(image="folder\\cat.png"), "field image: found .*no backslash"),
        (dict(video="cat.mp4"), "field video: found 'cat.mp4', expected an image"),
        (dict(videos=["cat.mp4"]), "field videos: found .*expected an image"),
    ],
)
def test_a_placeholder_needs_its_image(tmp_path, record, says):
    folder = write(tmp_path, dict(id=7, conversations=TALK, **record))
    with pytest.raises(InputError, match=f"talk.json, .*{says}"):
        LlavaDialogues(folder, "talk.json", ".")
    lax = LlavaDialogues(folder, "talk.json", ".", strict=False)
    assert len(lax) == 0 and sum(lax.left_out.values()) == 1
    assert "talk.json, record 0" in lax.problems[0][1]


def test_a_video_placeholder_is_refused_like_an_image_placeholder(tmp_path):
    talk = [{"from": "human", "value": "<video>\nWhat happens?"}, TALK[1]]
    with pytest.raises(InputError, match="text: found '<video>', expected an image, or text alone"):
        read(tmp_path, dict(id=1, image="cat.png", conversations=talk))


def test_two_placeholders_for_one_image_are_refused(tmp_path):
    talk = [{"from": "human", "value": "<image>\n<image>\nSame?"}, TALK[1]]
    with pytest.raises(InputError, match="found 2 <image> in its text for 1 images"):
        read(tmp_path, dict(id=1, image="cat.png", conversations=talk))


def test_a_record_without_placeholder_and_image_is_text_alone(tmp_path):
    talk = read(tmp_path, dict(id=1, conversations=WORDS))
    assert talk.size == (64, 64) and [(t.prompt, t.answer) for t in talk.turns] == [
        ("How many sides has a dice?", "Six.")
    ]


@pytest.mark.parametrize(
    "fields",
    [
        dict(image="cat.png"),
        dict(images=["cat.png"]),
        dict(image=["cat.png"]),
        dict(image="cat.png", images=["cat.png"]),
    ],
)
def test_an_image_in_a_list_of_one_is_read(tmp_path, fields):
    talk = read(tmp_path, dict(id=1, conversations=TALK, **fields))
    assert talk.size == (20, 30) and talk.image.getpixel((3, 3)) == (255, 0, 0)
    assert [(t.prompt, t.answer) for t in talk.turns] == [("What is this?", "A cat.")]


@pytest.mark.parametrize(
    "content, images",
    [
        (QUESTION, ["cat.png"]),
        ([{"type": "image"}, {"type": "text", "text": "What is this?"}], ["cat.png"]),
        ([{"type": "image", "image": "cat.png"}, {"type": "text", "text": "What is this?"}], []),
        (
            [
                {"type": "image_url", "image_url": {"url": "cat.png"}},
                {"type": "text", "text": "What is this?"},
            ],
            [],
        ),
    ],
)
def test_records_of_messages_are_read(tmp_path, content, images):
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
    ]
    talk = read(tmp_path, dict(id=1, messages=messages, images=images))
    assert talk.size == (20, 30)
    assert [(t.prompt, t.answer) for t in talk.turns] == [("What is this?", "A cat.")]


def test_a_message_of_another_kind_is_named(tmp_path):
    messages = [{"role": "user", "content": [{"type": "audio"}]}]
    with pytest.raises(InputError, match=r"messages\[0\].content\[0\].type: found 'audio'"):
        read(tmp_path, dict(id=1, messages=messages))


def test_an_image_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="dog.png"):
        read(tmp_path, dict(id=1, image="dog.png", conversations=TALK))


def test_records_with_places_follow_the_same_rule(tmp_path):
    folder = write(tmp_path, dict(id=1, conversations=TALK, box_x1y1x2y2=[[], []]))
    with pytest.raises(InputError, match="found 1 <image> in its text for 0 images"):
        GritDialogues(folder, "talk.json", ".")
