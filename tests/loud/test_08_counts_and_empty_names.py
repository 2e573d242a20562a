"""Item 8: a count is a whole number that was said, and nothing without a name is asked about."""

import random

import pytest

from ferretlite.common.errors import InputError
from ferretlite.regions.choices import find_chosen_option, normalise_name, read_count
from ferretlite.regions.geometry import Box
from ferretlite.scenes.conversations import make_conversation
from ferretlite.scenes.world import Phrase, Scene, SceneObject, add_article


@pytest.mark.parametrize(
    "text, count",
    [
        ("3.5", None),
        ("no dogs", 0),
        ("There are no dogs in the picture.", 0),
        ("None", 0),
        ("There aren't any.", 0),
        ("I see 3 dogs and no cats.", 3),
        ("No, there are 3.", 3),
        ("I have no idea.", None),
        ("between 1.5 and 2", 2),
        ("1,234", 1234),
        ("1 000", 1000),
        ("1\u202f000\u202f000 dogs", 1_000_000),
        ("2020 100", 100),
        ("1.000", None),  # a thousand or one: it depends on the country
        ("2.5: dog", None),
        ("3,5", None),
        ("3,5 dogs", None),
        ("½", None),
        ("2½ dogs", None),
        ("3/4", None),
        ("5 out of 10", 5),
        ("3 / 4", None),
        ("-3", None),
        ("−3 dogs", None),
        ("minus three", None),
        ("3-5 dogs", None),
        ("3%", None),
        ("10:30", None),
        ("1 000.5", None),
        ("two and a half", None),
        ("three quarters", None),
        ("5 million", None),
        ("a two-storey house", None),
        ("not one", 0),
        ("Not even one.", 0),
        ("There isn't one.", 0),
        ("not a single dog", 0),
        ("There is not a single dog.", 0),
        ("nobody", 0),
        ("no one", 0),
        ("not 3", None),
        ("not one but two", 2),
        ("3 dogs and not one cat", 3),
        ("0", 0),
        ("count:3", 3),
        ("dogs,3", 3),
        ("３ dogs", 3),
        ("- 3 dogs", 3),
        ("**3**", 3),
        ("thirteen", 13),
        ("twenty-three", 23),
        ("one hundred", 100),
        ("two hundred and six", 206),
        ("a thousand", 1000),
        ("12 thousand", None),
        ("twelve thousand, three hundred and forty-five", 12345),
        ("three and four", 4),
    ],
)
def test_the_number_that_an_answer_says(text, count):
    assert read_count(text) == count


@pytest.mark.parametrize("empty", [None, "", " ", 3])
def test_a_phrase_and_a_listed_name_are_text(empty):
    with pytest.raises(InputError, match="text of a phrase: found"):
        Phrase(empty, [Box(1, 2, 3, 4)])
    with pytest.raises(InputError, match="name that a data set lists: found"):
        Scene(None, (9, 9), names=["cat", empty])
    with pytest.raises(InputError, match="phrase: found"):
        add_article(empty)


def test_an_object_without_a_name_is_not_asked_about():
    with pytest.raises(InputError, match="name of an object: found nothing"):
        SceneObject(None, Box(1, 2, 3, 4))
    scene = Scene(None, (9, 9), [SceneObject("", Box(1, 2, 3, 4))], id="photo-7")
    with pytest.raises(InputError, match="photo-7.*without a name"):
        make_conversation(scene, {"name": 1}, random.Random(0))


def test_an_empty_option_is_never_the_chosen_one():
    assert find_chosen_option("a cat", ["", "cat"]) == "cat"
    with pytest.raises(InputError, match="found nothing"):
        normalise_name(None)
