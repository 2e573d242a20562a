"""Item 5: boxes in other forms are read, or there is a warning that says why they are not."""

import pytest

from ferretlite.common.errors import InputError
from ferretlite.regions.geometry import Box
from ferretlite.regions.grammar import (
    Grounding,
    clean_name,
    find_foreign_boxes,
    find_groundings,
    format_groundings,
    parse_groundings,
)

SIZE = (1000, 1000)  # so that the middle of bin 100 is 100.5


def read(text):
    spans, warnings = find_groundings(text, SIZE)
    return [(span.name, *(int(edge) for edge in span.box.list())) for span in spans], warnings


@pytest.mark.parametrize(
    "text",
    [
        "cat (100,200),(300,400)",
        "cat (100, 200), (300, 400)",
        "cat [(100, 200), (300, 400)]",
        "cat [[100, 200], [300, 400]]",
        "cat [[100, 200, 300, 400]]",
        "<ref>cat</ref><box>(100,200),(300,400)</box>",
    ],
)
def test_one_box_in_the_form_of_another_model(text):
    assert read(text) == ([("cat", 100, 200, 300, 400)], [])


def test_a_list_of_boxes_has_one_name_and_no_warning():
    found, warnings = read("cat [[100, 200, 300, 400], [500, 600, 700, 800]], dog [1, 2, 3, 4]")
    assert found == [
        ("cat", 100, 200, 300, 400),
        ("cat", 500, 600, 700, 800),
        ("dog", 1, 2, 3, 4),
    ]
    assert warnings == []


def test_bin_1000_is_clamped_with_a_warning():
    found, warnings = read("cat [100, 200, 1000, 1000]")
    assert found == [("cat", 100, 200, 999, 999)]
    assert len(warnings) == 1 and "bin 1000 is read as 999" in warnings[0]


@pytest.mark.parametrize(
    "text, reason",
    [
        ("cat [100, 200, 300, 1001]", "0 to 999"),
        ("cat [100, 200, 300]", "3 numbers"),
        ("cat (100, 200, 300, 400)", "square brackets"),
        ("cat (300,200),(100,400)", "x1 <= x2"),
        ("cat [[100, 200, 300, 400], [500, 600", "not closed"),
        ("cat [100, 200, 300, None]", "found another sign or number, expected four whole numbers"),
        ("cat [100%, 20%, 30%, 40%]", "found another sign or number, expected four whole numbers"),
        ("cat [nan, 200, 300, 400]", "found another sign or number, expected four whole numbers"),
        ("cat [x1=100, y1=200, x2=300, y2=400]", "found edges with names"),
        ("cat [[0.1, 0.2], [0.3, 0.4]]", "whole numbers"),
    ],
)
def test_what_is_not_read_is_reported(text, reason):
    _, warnings = read(text)
    assert len(warnings) == 1 and reason in warnings[0]


def test_brackets_around_words_are_no_boxes():
    assert read("see [the manual] for [cats]") == ([], [])
    found, warnings = read('[{"label": "cat", "bbox": [100, 200, 300, 400]}]')
    assert found == [("", 100, 200, 300, 400)]
    assert len(warnings) == 1 and "found the beginning of JSON" in warnings[0]


def test_strict_reading_takes_our_own_form_only():
    for text in ("cat (100,200),(300,400)", "cat [[100, 200, 300, 400]]", "cat [1, 2, 3, 1000]"):
        with pytest.raises(ValueError):
            parse_groundings(text, SIZE, strict=True)


@pytest.mark.parametrize(
    "text, style",
    [
        ("cat 100, 200, 300, 400", "ferret"),
        ("The cat is at 100,200,300,400.", "ferret"),
        ("cat 0.100, 0.200, 0.300, 0.400", "griffon"),
        ("0, 0, 1000, 1000", "ferret"),
    ],
)
def test_four_numbers_without_brackets_are_reported(text, style):
    spans, warnings = find_groundings(text, SIZE, style)
    assert spans == [] and find_foreign_boxes(text) == []  # data keep such a list as words
    assert len(warnings) == 1 and "found four numbers without brackets, expected" in warnings[0]


@pytest.mark.parametrize(
    "text",
    [
        "the dice show 1, 2, 3, 4",
        "in 1990, 1992, 2000 and 2004, or 1990, 1992, 2000, 2004",
        "10, 20, 30, 40, 50",
        "300, 400, 100, 200",
        "100, 200, 300, 400px",
        "10, 20, 30",
    ],
)
def test_lists_of_numbers_are_no_boxes(text):
    assert read(text) == ([], [])
    assert read(f"{text} cat [1, 2, 3, 4]")[1] == []


def test_a_name_with_four_numbers_reads_back():
    name = clean_name("plan 100,200,300,400")
    assert name == "plan 100 200 300 400"
    with pytest.raises(InputError):
        format_groundings([Grounding("plan 100,200,300,400", [Box(1, 2, 3, 4)])], SIZE)
