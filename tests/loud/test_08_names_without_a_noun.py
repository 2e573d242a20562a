"""Item 8: a phrase that names no object is not counted, looked for or detected."""

import pytest

from ferretlite import Ferret, make_scene
from ferretlite.common.errors import InputError
from ferretlite.regions.names import can_name_object

NOTHING = ["", " ", "?", "...", "the", "The  ", "a", "of the", "it", "\u200b", "\ufeff the", "_"]
SOMETHING = ["cat", "the cat", "7", "红伞", "can", "🐱", "кот", "قطة", "_cat_", "x-ray"]


@pytest.mark.parametrize("phrase", NOTHING)
def test_a_phrase_without_a_noun_names_nothing(phrase):
    assert can_name_object(phrase) is False


@pytest.mark.parametrize("phrase", SOMETHING)
def test_a_word_in_any_script_names_an_object(phrase):
    assert can_name_object(phrase) is True


@pytest.fixture(scope="module")
def ferret():
    return Ferret.load("tiny")


@pytest.mark.parametrize("verb", ["count", "detect", "ground"])
def test_nothing_is_asked_about_it(ferret, monkeypatch, verb):
    monkeypatch.setattr(Ferret, "ask", lambda *args, **kwargs: pytest.fail("asked"))
    image = make_scene(1, size=64).image
    for phrase in ("?", "the", "\u200b"):
        for names in [phrase] if verb == "count" else [phrase, ["cat", phrase]]:
            with pytest.raises(InputError, match=f"{verb}: found .*, expected"):
                getattr(ferret, verb)(image, names)
