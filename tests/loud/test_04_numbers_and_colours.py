"""Items 4 and 5: `no. 7` and `green in colour` are no reason to cut; measures are no boxes."""

import pytest

from ferretlite.regions.grammar import clean_name, find_groundings

SIZE = (1000, 1000)


@pytest.mark.parametrize(
    "words, name",
    [
        ("jersey no. 7", "jersey no. 7"),
        ("the No. 7 jersey", "No. 7 jersey"),
        ("Is there a dog? no. The cat", "cat"),
        ("the clock is green in colour", "clock is green in colour"),
    ],
)
def test_the_name_is_whole(words, name):
    spans, warnings = find_groundings(f"{words} [1, 2, 300, 400]", SIZE)
    assert [span.name for span in spans] == [name] and warnings == []
    assert clean_name(name) == name


@pytest.mark.parametrize(
    "text",
    [
        "sizes 10, 20, 30, 40",
        "10, 20, 30, 40 cm",
        "12, 15, 34, 60 years old",
        "pages 12, 13, 44, 45",
        "It costs $12,345,678,901.",
        "Prices: 10, 12, 25, 30",
    ],
)
def test_measures_are_no_boxes(text):
    assert find_groundings(text, SIZE) == ([], [])
