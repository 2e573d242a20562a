"""Item 10: what does not fit into the language model's positions is refused with its length and the
limit, in questions and in training data.
"""

import pytest

from ferretlite.common.errors import InputError
from ferretlite.common.files import WEIGHTS
from ferretlite.model.processing import FerretProcessor
from ferretlite.scenes.questions import Conversation, Turn
from ferretlite.scenes.world import make_scene

LONG = "where is the star? " * 400  # six tokens each time


@pytest.fixture(scope="module")
def processor():
    return FerretProcessor.from_pretrained(WEIGHTS / "tiny")


def test_a_long_question_is_refused_with_its_length_and_the_limit(processor):
    image = make_scene(0, 384).image  # 180 visual tokens
    with pytest.raises(InputError, match=r"prompt 1 of 1: found 2585 tokens .*at most 2048"):
        processor(image, LONG)
    with pytest.raises(InputError, match=r"prompt 2 of 2: found 2585 tokens"):
        processor([image, image], ["How many?", LONG])


def test_a_question_that_just_fits_is_answered(processor):
    image = make_scene(0, 192).image
    short = processor(image, "").input_ids.shape[1]
    fits = processor(image, "1" * (2048 - short))  # a digit is a token
    assert fits.input_ids.shape == (1, 2048)
    with pytest.raises(InputError, match="found 2049 tokens"):
        processor(image, "1" * (2049 - short))


def test_training_data_are_refused_as_questions_are(processor):
    scene = make_scene(0, 192)

    def encode(turns, **options):
        return processor.encode_conversations(
            [Conversation(scene.image, scene.size, turns, "scene-7", **options)]
        )

    with pytest.raises(InputError, match="conversation scene-7: found .*at most 2048"):
        encode([Turn("rec", LONG, "here")])
    with pytest.raises(InputError, match="conversation scene-7: found .*at most 2048"):
        encode([Turn("rec", "where?", "here " * 2100)])
    # turns of one image have the same positions, so many short ones fit; a dialogue does not
    many = [Turn("rec", "where is the star? " * 20, "here")] * 20
    assert encode(many)["position_ids"].max() < 2048
    with pytest.raises(InputError, match="expected at most 2048"):
        encode(many, linked=True)
