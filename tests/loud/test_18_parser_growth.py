"""Item 18: the tolerant parser's memory grows in proportion to its text, never with its square."""

import tracemalloc

import pytest

from ferretlite.regions import choices
from ferretlite.regions.grammar import STYLES, find_groundings, parse_groundings
from ferretlite.regions.names import MAX_NAME_CHARACTERS

BOX = {"ferret": " [1, 2, 3, 4]", "griffon": "-[0.1,0.2,0.3,0.4]"}


def make_text(n, style):
    "A name of `10 * n` characters in front of `n` boxes."
    return "long name " * n + BOX[style] * n


def measure_memory(text, style):
    "Bytes that are allocated at most while the text is read, the text itself not counted."
    tracemalloc.start()
    try:
        parse_groundings(text, (480, 640), style)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("style", STYLES)
def test_twice_the_text_needs_twice_the_memory(style):
    small, large = (measure_memory(make_text(n, style), style) for n in (500, 1000))
    assert large < 2.5 * small


@pytest.mark.parametrize("style", STYLES)
def test_boxes_of_one_name_share_one_string(style):
    text = "x" * MAX_NAME_CHARACTERS + BOX[style] * 50
    spans, warnings = find_groundings(text, (480, 640), style)
    assert len(spans) == 50 and warnings == []
    assert len({id(span.name) for span in spans}) == 1
    assert len(spans[0].name) == MAX_NAME_CHARACTERS


@pytest.mark.parametrize("style", STYLES)
def test_a_name_without_end_is_no_name_and_gives_a_warning(style):
    text = "x" * 500_000 + BOX[style] * 41_666
    spans, warnings = find_groundings(text, (480, 640), style)
    assert len(spans) == 41_666 and {span.name for span in spans} == {""}
    assert len(warnings) == 1 and "found 500000 characters, expected at most 1000" in warnings[0]


def test_twice_as_many_mentions_need_twice_the_work(monkeypatch):
    """Each mention looked for a denial in all words before it."""

    class Counted:
        read = 0

        def search(self, text):
            Counted.read += len(text)

    def work(n):
        Counted.read = 0
        choices.find_chosen_option("a cat and a dog " * n, ["cat", "dog"])
        return Counted.read

    monkeypatch.setattr(choices, "_DENIAL", Counted())
    assert 0 < work(400) < 2.1 * work(200)


def test_a_mention_within_a_longer_one_is_none():
    options = ["cat", "red cat", "red cat house", "house"]
    assert choices.find_chosen_option("a red cat house", options) == "red cat house"
    assert choices.find_chosen_option("a red cat house, a house", options) is None
    assert choices.find_chosen_option("cat", ["cat", "Cat"]) is None  # two options, one mention
