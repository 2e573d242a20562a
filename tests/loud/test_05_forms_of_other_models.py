"""Item 5: a box in the form of another model is read where its meaning is certain; otherwise a
warning names the form.
"""

import pytest

from ferretlite.common.errors import InputError
from ferretlite.regions.geometry import Box
from ferretlite.regions.grammar import (
    STYLES,
    Grounding,
    find_foreign_boxes,
    find_groundings,
    format_groundings,
)

SIZE = (1000, 1000)  # so that the middle of bin 100 is 100.5

UNREAD = [
    ("<loc0100><loc0200><loc0300><loc0400>", "location tokens"),  # PaliGemma: y first
    ("<loc_100><loc_200><loc_300><loc_400>", "location tokens"),  # Florence-2
    ("<bin_100> <bin_200> <bin_300> <bin_400>", "location tokens"),  # OFA
    ("<patch_index_0044><patch_index_0863>", "location tokens"),  # Kosmos-2
    ("{<10><20><30><40>}", "location tokens"),  # MiniGPT-v2
    ("{100,200,300,400}", "four numbers in other signs"),
    ("(100 200 300 400)", "four numbers in other signs"),
    ("<100, 200, 300, 400>", "four numbers in other signs"),
    ("（１００，２００，３００，４００）", "four numbers in other signs"),
    ("【100，200，300，400】", "four numbers in other signs"),
    ("<box>100 200 300 400</box>", "numbers between box tags"),  # MiniCPM-V
    ("<box>100,200,300,400</box>", "numbers between box tags"),
    ("(100,200) to (300,400)", "two corners joined by a word"),
    ("（100，200），（300，400）", "two corners joined by a word"),
    ("x1=100, y1=200, x2=300, y2=400", "edges with names"),
    ('"x1": 100, "y1": 200, "x2": 300, "y2": 400', "edges with names"),
    ('x="100" y="200" width="200" height="200"', "edges with names"),
]
READ = [
    ("(100,200),(300,400)", "two corners"),
    ("［１００，２００，３００，４００］", "full-width brackets"),
    ("[100，200，300，400]", "full-width brackets"),
]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("box, form", UNREAD)
def test_a_form_that_is_not_read_is_named_in_a_warning(box, form, style):
    spans, warnings = find_groundings(f"cat {box}", SIZE, style)
    assert spans == []
    assert len(warnings) == 1 and f"found {form}, expected square brackets" in warnings[0]


@pytest.mark.parametrize("box, form", UNREAD + READ)
def test_the_place_and_the_form_of_each_foreign_box(box, form):
    text = f"A cat {box}, a dog [1, 2, 3, 4] and a cow {box}."
    first, second = text.index(box), text.rindex(box)
    expected = [(first, first + len(box), form), (second, second + len(box), form)]
    assert find_foreign_boxes(text) == expected


@pytest.mark.parametrize("box", [box for box, _ in READ] + ["<box>(100,200),(300,400)</box>"])
def test_a_form_with_a_certain_meaning_is_read(box):
    spans, warnings = find_groundings(f"cat {box}", SIZE)
    assert [(span.name, span.box.list()) for span in spans] == [
        ("cat", [100.5, 200.5, 300.5, 400.5])
    ]
    assert warnings == []


@pytest.mark.parametrize("box, form", UNREAD)
def test_an_unread_box_leaves_the_next_one_whole(box, form):
    spans, _ = find_groundings(f"cat {box}, dog [1, 2, 3, 4]", SIZE)
    assert [span.name for span in spans] == ["dog"]


@pytest.mark.parametrize(
    "text",
    [
        "cat [100, 200, 300, 400]",
        "cat [[100, 200, 300, 400], [1, 2, 3, 4]]",
        "<bbox_location0> <bbox_location1> <bbox_location2> <bbox_location3>",
        "<region> and <image>",
        "a bow (weapon), dice 3 (1, 2, 3)",
        "(1, 2) and a point",
        "at 10:30, 1,000 men",
        "a max of 3: left = 4",
    ],
)
def test_texts_without_a_foreign_box(text):
    assert find_foreign_boxes(text) == []


def test_the_writer_refuses_a_name_that_holds_a_foreign_box():
    with pytest.raises(InputError):
        format_groundings([Grounding("plan (1, 2, 3, 4)", [Box(1, 2, 3, 4)])], SIZE)
