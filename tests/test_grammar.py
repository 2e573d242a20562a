"Grammar: there and back exactly, and no text that crashes the reader"

import re
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ferretlite.regions.geometry import Box, Mask, Point, encode_box
from ferretlite.regions.grammar import (
    STYLES,
    Grounding,
    clean_name,
    find_groundings,
    format_groundings,
    format_region,
    parse_groundings,
)

few = settings(max_examples=25, derandomize=True, deadline=None, database=None)
many = settings(max_examples=80, derandomize=True, deadline=None, database=None)
styles = st.sampled_from(STYLES)
sizes = st.tuples(st.integers(20, 3000), st.integers(20, 3000))
SIZE = (480, 640)
ONE = {"ferret": "[62, 125, 187, 333]", "griffon": "[0.062,0.125,0.188,0.333]"}

words = st.sampled_from(
    "dog red umbrella dice 3 t-shirt x-ray machine man in a the salt & pepper - 7-eleven café and"
    " don't (left) A 1,000 3.5 St. [x] there is".split()
)
names = st.lists(words, max_size=4).map(" ".join) | st.text(max_size=8)


@st.composite
def boxes(draw, size):
    h, w = size
    x1, x2 = sorted(draw(st.tuples(*[st.floats(0, w)] * 2)))
    y1, y2 = sorted(draw(st.tuples(*[st.floats(0, h)] * 2)))
    return Box(x1, y1, x2, y2)


@st.composite
def cases(draw):
    size = draw(sizes)
    return [
        Grounding(draw(names), draw(st.lists(boxes(size), min_size=1, max_size=3)))
        for _ in range(draw(st.integers(0, 4)))
    ], size


def pieces(groundings):
    return [(g.name, box) for g in groundings for box in g.boxes]


# there and back


@many
@given(cases(), styles)
def test_what_is_written_reads_back(case, style):
    groundings, size = case
    try:
        text = format_groundings(groundings, size, style)
    except ValueError:
        return assume(False)  # a name that cannot be carried: refused, not mangled
    back, (h, w) = parse_groundings(text, size, style, strict=True), size
    assert [name for name, _ in pieces(back)] == [name for name, _ in pieces(groundings)]
    for (_, a), (_, b) in zip(pieces(back), pieces(groundings)):
        assert all(
            abs(p - q) <= side / 2000 * (1 + 1e-3)
            for p, q, side in zip(a.list(), b.list(), (w, h, w, h))
        )
    assert format_groundings(back, size, style) == text


@few
@given(st.lists(st.integers(0, 999), min_size=4, max_size=4), sizes)
def test_every_box_text_comes_back_exactly(bins, size):
    x1, x2, y1, y2 = *sorted(bins[::2]), *sorted(bins[1::2])
    text = f"dog [{x1}, {y1}, {x2}, {y2}]"
    assert format_groundings(parse_groundings(text, size, strict=True), size) == text
    text = f"dog-[{x1 / 1000:.3f},{y1 / 1000:.3f},{x2 / 1000:.3f},{y2 / 1000:.3f}]"
    assert (
        format_groundings(parse_groundings(text, size, "griffon", strict=True), size, "griffon")
        == text
    )


def test_griffon_can_write_the_far_edge():
    assert format_region(Box(0, 0, 640, 480), SIZE, "griffon") == "[0.000,0.000,1.000,1.000]"
    assert parse_groundings("dog-[0.000,0.000,1.000,1.000]", SIZE, "griffon", strict=True)[
        0
    ].boxes == [Box(0, 0, 640, 480)]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "name",
    [
        "t-shirt",
        "salt & pepper",
        "x-ray machine",
        "dice 3",
        "7-eleven",
        "man in a blue shirt",
        "café",
        "1,000 men",
        "bow (weapon)",
        "",
    ],
)
def test_names_that_broke_other_parsers(name, style):
    groundings = [
        Grounding(name, [Box(40, 60, 120, 160), Box(320, 60, 400, 160)]),
        Grounding("cat", [Box(8, 8, 600, 470)]),
    ]
    back = parse_groundings(format_groundings(groundings, SIZE, style), SIZE, style, strict=True)
    assert [(g.name, len(g.boxes)) for g in back] == [(name, 2), ("cat", 1)]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "name", ["[region0]", "a [b", "c] d", "two\nlines", " dog", "dog ", "carriage\rreturn"]
)
def test_names_that_would_not_come_back_are_refused(name, style):
    with pytest.raises(ValueError, match="found the name"):
        format_groundings([Grounding(name, [Box(1, 2, 3, 4)])], SIZE, style)


@pytest.mark.parametrize(
    "name",
    [
        "the dog",
        "A dog",
        "dog, cat",
        "3: dog",
        "and dog",
        "there is dog",
        "dog.",
        "a cat and the dog",
        "& dog",
        "- dog",
    ],
)
def test_ferret_refuses_names_with_marks_of_prose_and_lists(name):
    with pytest.raises(ValueError, match="clean_name"):
        format_groundings([Grounding(name, [Box(1, 2, 3, 4)])], SIZE)


def test_a_nameless_box_after_a_named_one_is_refused():
    with pytest.raises(ValueError, match="read back as 'dog'"):
        format_groundings(
            [Grounding("dog", [Box(1, 2, 3, 4)]), Grounding("", [Box(5, 6, 7, 8)])], SIZE
        )


@many
@given(names)
def test_cleaned_names_can_be_written(name):
    for style in STYLES:
        format_groundings([Grounding(clean_name(name), [Box(1, 2, 3, 4)])], SIZE, style)
    assert clean_name(clean_name(name)) == clean_name(name)


def test_boxes_are_refused_or_clipped_before_they_are_written():
    assert format_region(Box(-5, -5, 900, 240), SIZE) == "[0, 0, 999, 500]"
    for bad in (Box(700, 0, 800, 10), Point(0, 481)):
        with pytest.raises(ValueError, match="outside"):
            format_region(bad, SIZE)
    with pytest.raises(ValueError, match="no box"):
        format_groundings([Grounding("dog", [])], SIZE)
    with pytest.raises(ValueError, match="one per box"):
        Grounding("dog", [Box(1, 2, 3, 4)], scores=[])
    with pytest.raises(ValueError, match="style"):
        format_groundings([], SIZE, "shikra")
    with pytest.raises(ValueError, match="style"):
        parse_groundings("", SIZE, "shikra")
    with pytest.raises(ValueError, match="height, width"):
        parse_groundings("dog [1, 2, 3, 4]", (0, 640))


def test_x_comes_first():
    assert (
        format_region(Point(320, 120), SIZE) == "[500, 250]"
        and format_region(Point(320, 120), SIZE, "griffon") == "[0.500,0.250]"
    )
    assert encode_box(parse_groundings("dog [900, 10, 990, 20]", SIZE)[0].boxes[0], SIZE) == [
        900,
        10,
        990,
        20,
    ]
    assert parse_groundings("dog [900, 10, 990, 20]", SIZE)[0].boxes[0].list() == pytest.approx(
        [576.32, 5.04, 633.92, 9.84]
    )
    import numpy as np

    mask = np.zeros(SIZE, dtype=bool)
    mask[120:240, 320:480] = True
    assert format_region(Mask(mask), SIZE) == "[500, 250, 750, 500]"


# reading


@pytest.mark.parametrize(
    "text, expected",
    [
        ("dog [1, 2, 3, 4] [5, 6, 7, 8]", [("dog", 2)]),  # the second box keeps its name
        ("dog [1, 2, 3, 4], [5, 6, 7, 8]", [("dog", 2)]),
        ("dog [1, 2, 3, 4] and [5, 6, 7, 8].", [("dog", 2)]),
        (
            "A dog [1, 2, 3, 4] and a cat [5, 6, 7, 8].",
            [("dog", 1), ("cat", 1)],
        ),  # nor does the second thing lose its own
        ("dog [1, 2, 3, 4], dog [5, 6, 7, 8]", [("dog", 2)]),
        (
            "dog [1, 2, 3, 4], cat [1, 2, 3, 4], dog [5, 6, 7, 8]",
            [("dog", 1), ("cat", 1), ("dog", 1)],
        ),
        (
            "a filled red star [1, 2, 3, 4] left of an outlined blue dice 3 [5, 6, 7, 8]",
            [("filled red star", 1), ("outlined blue dice 3", 1)],
        ),
        ("1: dog [1, 2, 3, 4]\n2: The cat [5, 6, 7, 8]", [("dog", 1), ("cat", 1)]),
        ("1. dog [1, 2, 3, 4]; 2) cat [5, 6, 7, 8]", [("dog", 1), ("cat", 1)]),
        ("- dog [1, 2, 3, 4]\n* cat [5, 6, 7, 8]", [("dog", 1), ("cat", 1)]),
        ("Objects: dog: [1, 2, 3, 4],cat:[5,6,7,8]", [("dog", 1), ("cat", 1)]),
        ("There is a dog [1, 2, 3, 4]. I see the cat [5, 6, 7, 8]!", [("dog", 1), ("cat", 1)]),
        ("man in a blue shirt [1, 2, 3, 4], dog [5, 6", [("man in a blue shirt", 1)]),  # cut off
        ("dog [1, 2 cat [5, 6, 7, 8]", [("cat", 1)]),
        ("[1, 2, 3, 4]", [("", 1)]),
        ("Sure. [1, 2, 3, 4]", [("", 1)]),
        ("dog [ 1,2 , 3,\n4 ]", [("dog", 1)]),
        ("no box at all", []),
        ("", []),
        ("[", []),
        ("]", []),
        ("[]", []),
    ],
)
def test_reading_ferret(text, expected):
    assert [(g.name, len(g.boxes)) for g in parse_groundings(text, SIZE)] == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("dog-[0.1,0.2,0.3,0.4]&dog-[0.5,0.6,0.7,0.8]", [("dog", 2)]),
        (
            (
                "salt & pepper-[0.1,0.2,0.3,0.4]&t-shirt-[0.1,0.2,0.3,0.4]&x-ray"
                " machine-[0.1,0.2,0.3,0.4]"
            ),
            [("salt & pepper", 1), ("t-shirt", 1), ("x-ray machine", 1)],
        ),
        ("dog - [0.1, 0.2, 0.3, 0.4] & cat - [0.5, .6, 0.70, 1]", [("dog", 1), ("cat", 1)]),
        ("[0.1,0.2,0.3,0.4]&[0.5,0.6,0.7,0.8]", [("", 2)]),
        ("dog-[0.1,0.2,0.3,0.4]&[0.5,0.6,0.7,0.8]", [("dog", 2)]),
        ("dog-[0.1,0.2,0.3]&cat-[0.5,0.6,0.7,0.8]", [("cat", 1)]),
        ("dog-[0.1,0.2,0.3,1.4]&cat-[0.5,0.6,0.7,0.8", []),
        ("None", []),
        ("['None']", []),
    ],
)
def test_reading_griffon(text, expected):
    assert [(g.name, len(g.boxes)) for g in parse_groundings(text, SIZE, "griffon")] == expected


@pytest.mark.parametrize(
    "bracket, reason",
    [
        ("[9, 2, 3, 4]", "x1 <= x2"),
        ("[1, 9, 3, 4]", "y1 <= y2"),
        ("[1, 2, 3]", "3 numbers"),
        ("[1, 2, 3, 4, 5]", "5 numbers"),
        ("[1, 2, 3, 1001]", "0 to 999"),
        ("[-1, 2, 3, 4]", "whole"),
        ("[0.1, 0.2, 0.3, 0.4]", "whole"),
        ("[1, , 3, 4]", "whole"),
        ("[]", "whole"),
        ("[1, 2, 3, 4", "closed"),
        ("[" + "9" * 5000 + ", 2, 3, 4]", "whole"),
    ],
)
def test_what_is_dropped_is_listed(bracket, reason):
    spans, warnings = find_groundings(f"cat [1, 1, 2, 2], dog {bracket}", SIZE)
    assert (
        [span.name for span in spans] == ["cat"]
        and len(warnings) == 1
        and reason in warnings[0]
        and "character 22" in warnings[0]
    )
    with pytest.raises(ValueError):
        parse_groundings(f"dog {bracket}", SIZE, strict=True)


def test_a_dropped_box_does_not_shift_the_next():
    spans, _ = find_groundings("dog [9, 2, 3, 4], cat [1, 1, 2, 2]", SIZE)
    assert [(span.name, span.start) for span in spans] == [
        ("cat", 22)
    ]  # scores are looked up by position


soup = st.lists(
    st.sampled_from(
        [
            "[",
            "]",
            "[1, 2, 3, 4]",
            "[0.100,0.200,0.300,0.400]",
            "dog",
            " ",
            ", ",
            "&",
            "-",
            "the ",
            "a ",
            "and ",
            "\n",
            "3:",
            ".",
            "١",
            "9" * 20,
            "\x00",
            "é",
            "\u2028",
            "there is ",
        ]
    ),
    max_size=14,
).map("".join)


@many
@given(
    soup
    | st.text(max_size=60)
    | st.binary(max_size=60).map(lambda b: b.decode("latin-1"))
    | st.binary(max_size=40).map(lambda b: b.decode("utf-8", "surrogateescape")),
    styles,
)
def test_no_text_makes_the_reader_raise(text, style):
    spans, warnings = find_groundings(text, SIZE, style)
    for span in spans:
        assert (
            text[span.name_start : span.name_end] == span.name
            and text[span.start] in "[("
            and text[span.end - 1] in "])"
        )
        assert span.name_start <= span.name_end <= span.start
        assert 0 <= span.box.x1 <= span.box.x2 <= 640 and 0 <= span.box.y1 <= span.box.y2 <= 480
    told = {position for span in spans for position in range(span.start, span.end)}
    for position in [i for i, sign in enumerate(text) if sign == "["]:
        outer = text[position + 1 :].lstrip()[:1] in ("[", "(")  # the bracket of a list
        inside = re.split(r"[\[\]{}]", text[position + 1 : position + 61])[0]
        words = inside.strip() != "" and len(re.findall("[0-9]+", inside)) < 3  # `[the manual]`
        said = any(f" {position}: " in w for w in warnings)
        assert outer or words or position in told or said
    assert sum(len(g.boxes) for g in parse_groundings(text, SIZE, style)) == len(spans)
    try:
        strict = parse_groundings(text, SIZE, style, strict=True)
    except ValueError:
        return
    assert format_groundings(strict, SIZE, style) == text


@few
@given(cases(), styles, st.integers(0, 200))
def test_a_cut_answer_keeps_the_names_before_the_cut(case, style, cut):
    groundings, size = case
    try:
        text = format_groundings(groundings, size, style)
    except ValueError:
        return assume(False)
    whole, part = find_groundings(text, size, style)[0], find_groundings(text[:cut], size, style)[0]
    assert part == [span for span in whole if span.end <= cut]


@pytest.mark.parametrize(
    "unit",
    [
        "[",
        "]",
        " ",
        "a ",
        "[1 ",
        "- ",
        "and ",
        "the ",
        "3: ",
        ", ",
        "1 , ",
        "[1, 2, 3, 4] ",
        "dog [1, 2, 3, 4], ",
        "& ",
    ],
)
def test_reading_takes_time_in_proportion_to_length(unit):
    for style in STYLES:
        start = time.process_time()
        find_groundings("x" + unit * (20_000 // len(unit)) + "[1, 2, 3, 4]", SIZE, style)
        assert time.process_time() - start < 2  # a quadratic reader takes minutes


# written out: what each rule says, on boxes whose numbers all differ

A, C = Box(40, 60, 120, 160), Box(320, 240, 400, 360)  # bins: 62.5 125 187.5 333.3, 500 500 625 750
WRITTEN = {
    "ferret": ("[62, 125, 187, 333]", "[500, 500, 625, 750]"),
    "griffon": ("[0.062,0.125,0.188,0.333]", "[0.500,0.500,0.625,0.750]"),
}


def test_there_are_two_styles_and_ferrets_is_the_default():
    assert STYLES == ("ferret", "griffon")
    assert format_region(A, SIZE) == WRITTEN["ferret"][0]
    assert format_groundings([Grounding("dog", [A])], SIZE) == "dog [62, 125, 187, 333]"
    assert [s.name for s in find_groundings("cat, dog [1, 2, 3, 4]", SIZE)[0]] == ["dog"]
    assert [g.name for g in parse_groundings("cat, dog [1, 2, 3, 4]", SIZE)] == ["dog"]
    assert Grounding("dog", [A]).scores is None
    for call in (
        lambda: format_region(A, SIZE, "kosmos"),
        lambda: find_groundings("", SIZE, "kosmos"),
    ):
        with pytest.raises(ValueError, match="style"):
            call()


def test_scores_are_one_a_box():
    assert Grounding("dog", [A, C], [0.1, 0.2]).scores == [0.1, 0.2]
    for scores in ([], [0.1], [0.1, 0.2, 0.3]):
        with pytest.raises(ValueError, match="one per box"):
            Grounding("dog", [A, C], scores)


@pytest.mark.parametrize("style", STYLES)
def test_places_as_text(style):
    small, large = WRITTEN[style]
    assert format_region(A, SIZE, style) == small and format_region(C, SIZE, style) == large
    point = {"ferret": "[62, 333]", "griffon": "[0.062,0.333]"}[style]
    assert format_region(Point(40, 160), SIZE, style) == point
    mask = np.zeros(SIZE, dtype=bool)
    mask[240:360, 320:400] = True
    assert format_region(Mask(mask), SIZE, style) == large
    clipped = {"ferret": "[0, 125, 999, 333]", "griffon": "[0.000,0.125,1.000,0.333]"}[style]
    assert format_region(Box(-40, 60, 900, 160), SIZE, style) == clipped


def test_groundings_as_text():
    groundings = [Grounding("dog", [A, C]), Grounding("dog", [A]), Grounding("cat", [C])]
    small, large = WRITTEN["ferret"]
    assert format_groundings(groundings, SIZE) == f"dog {small} {large} {small}, cat {large}"
    assert format_groundings([Grounding("", [C, A])], SIZE) == f"{large} {small}"
    assert format_groundings([], SIZE) == ""
    small, large = WRITTEN["griffon"]
    text = f"dog-{small}&dog-{large}&dog-{small}&cat-{large}"
    assert format_groundings(groundings, SIZE, "griffon") == text
    assert format_groundings([Grounding("", [C, A])], SIZE, "griffon") == f"{large}&{small}"
    assert format_groundings([], SIZE, "griffon") == "None"
    assert [len(g.boxes) for g in groundings] == [2, 1, 1]  # nobody's list grew


def test_boxes_are_read_in_pixels():
    [found] = parse_groundings("dog [62, 125, 187, 333]", SIZE)
    assert found.boxes[0].list() == pytest.approx([40, 60.24, 120, 160.08])  # middles of bins
    [found] = parse_groundings("dog-[0.062,0.125,.25,1.]", SIZE, "griffon")
    assert found.boxes[0].list() == pytest.approx([39.68, 60, 160, 480])
    [found] = parse_groundings("dog [0, 0, 999, 999]", SIZE)
    assert found.boxes[0].list() == pytest.approx([0.32, 0.24, 639.68, 479.76])


def test_a_span_says_where_its_words_and_its_bracket_stand():
    spans, warnings = find_groundings(
        "There is a red dog [62, 125, 187, 333] by a cat [1, 2, 3, 4] [5, 6, 7, 8].", SIZE
    )
    found = [(s.name, s.name_start, s.name_end, s.start, s.end) for s in spans]
    assert found == [("red dog", 11, 18, 19, 38), ("cat", 44, 47, 48, 60), ("cat", 44, 47, 61, 73)]
    assert warnings == [] and spans[0].box.list() == pytest.approx([40, 60.24, 120, 160.08])
    spans, _ = find_groundings("dog-[0.1,0.2,0.3,0.4]&a cat-[0.1,0.2,0.3,0.4]", SIZE, "griffon")
    found = [(s.name, s.name_start, s.name_end, s.start, s.end) for s in spans]
    assert found == [("dog", 0, 3, 4, 21), ("a cat", 22, 27, 28, 45)]
    spans, _ = find_groundings("[1, 2, 3, 4]", SIZE)
    assert (spans[0].name, spans[0].name_start, spans[0].name_end) == ("", 0, 0)


def test_a_box_without_words_takes_the_name_of_one_that_was_dropped():
    spans, warnings = find_groundings("cat [1, 2, 3, 4], dog [9, 9, 1, 1] [5, 6, 7, 8]", SIZE)
    assert [s.name for s in spans] == ["cat", "dog"] and len(warnings) == 1


@pytest.mark.parametrize(
    "words, name",
    [
        ("man in a blue shirt", "man in a blue shirt"),
        ("the man in a blue shirt", "man in a blue shirt"),  # no rule says where to cut it
        ("a man with the red hat", "man with the red hat"),
        ("I can see the cat", "cat"),
        ("Behind them you can see cat", "cat"),
        ("i see cat", "cat"),
        ("Here are three dogs", "three dogs"),
        ("here is the dog", "dog"),
        ("This is the dog", "dog"),
        ("It is a dog", "dog"),
        ("these are dogs", "dogs"),
        ("Those are an owl", "owl"),
        ("There is a dog in the park", "dog in the park"),
        ("there are dog and owl", "dog and owl"),
        ("- dog", "dog"),
        ("* dog", "dog"),
        ("• dog", "dog"),
        (", dog", "dog"),
        ("; dog", "dog"),
        ("& dog", "dog"),
        ("-- dog", "dog"),
        ("3: dog", "dog"),
        ("12. dog", "dog"),
        ("3) dog", "dog"),
        ("(3) dog", "dog"),
        ("(3: the dog", "dog"),
        ("3:4 dog", "3:4 dog"),  # a ratio is no list mark
        ("3 dog", "3 dog"),
        ("and dog", "dog"),
        ("AND the dog", "dog"),
        ("android", "android"),
        ("and", ""),  # a list mark alone is no name
        ("A dog", "dog"),
        ("An owl", "owl"),
        ("THE dog", "dog"),
        ("another dog", "another dog"),
        ("the panda bear", "panda bear"),  # words that end like an article
        ("the human face", "human face"),
        ("the lathe part", "lathe part"),
        ("theatre", "theatre"),
        ("the", "the"),
        ("cat. dog", "dog"),
        ("cat! dog", "dog"),
        ("cat? dog", "dog"),
        ("cat; dog", "dog"),
        ("cat: dog", "dog"),
        ("cat, dog", "dog"),
        ("cat\ndog", "dog"),
        ("cat\rdog", "dog"),
        ("cat ] dog", "dog"),
        ("a, b, dog", "dog"),
        ("v1.5 dog", "v1.5 dog"),  # no boundary without white space
        ("1,000 dogs", "1,000 dogs"),
        ("dog:", "dog"),
        ("dog -", "dog"),
        ("dog,", "dog"),
        ("dog:-, ", "dog"),
        ("dog\t", "dog"),
    ],
)
def test_the_name_before_a_box(words, name):
    spans, _ = find_groundings(f"{words} [1, 2, 3, 4]", SIZE)
    assert [s.name for s in spans] == [name]


@pytest.mark.parametrize(
    "words, name",
    [
        (" on a mat near the cat ", "mat near the cat"),  # a clause: after the first article
        (" a the cat ", "cat"),
        (" left of an outlined star ", "outlined star"),
        (" beside cat ", "cat"),
        (" beside panda bear ", "panda bear"),  # no article within a word
        (" and man in a blue shirt ", "man in a blue shirt"),  # a list goes on: the whole name
        (", man in a blue shirt ", "man in a blue shirt"),
        ("\nman in a blue shirt ", "man in a blue shirt"),
        (". There is man in a blue shirt ", "man in a blue shirt"),
        ("; 2: man in a blue shirt ", "man in a blue shirt"),
        (" & ", "dog"),
        (" and ", "dog"),
        (", ", "dog"),
    ],
)
def test_the_name_between_two_boxes(words, name):
    spans, _ = find_groundings(f"dog [1, 2, 3, 4]{words}[5, 6, 7, 8]", SIZE)
    assert [s.name for s in spans] == ["dog", name]


@pytest.mark.parametrize(
    "words, name",
    [
        ("dog-", "dog"),
        ("dog", "dog"),
        ("dog - ", "dog"),
        ("dog--", "dog-"),  # one hyphen belongs to the form
        ("dog:", "dog:"),
        ("dog,", "dog,"),
        ("the dog, a cat-", "the dog, a cat"),
        ("& dog-", "& dog"),  # nothing to join: part of the name
        ("cat\n dog-", "dog"),
        ("cat] dog-", "dog"),
        ("[0.1,0.2&dog-", "dog"),  # after a broken box as after a whole one
        ("[0.1,0.2,0.3,0.4]&dog-", "dog"),
        ("[0.1,0.2,0.3,0.4],dog-", "dog"),
        ("[0.1,0.2,0.3,0.4] ; dog-", "dog"),
        ("[0.1,0.2,0.3,0.4].dog-", ".dog"),
        ("[0.1,0.2,0.3,0.4]&&dog-", "&dog"),
        ("", ""),
        ("-", ""),
    ],
)
def test_the_name_before_a_box_in_griffons_form(words, name):
    spans, _ = find_groundings(f"{words}[0.5,0.6,0.7,0.8]", SIZE, "griffon")
    assert spans[-1].name == name


@pytest.mark.parametrize(
    "bracket, box",
    [
        ("[0.1,0.2,0.3,0.4]", [64, 96, 192, 192]),
        ("[0.1 0.2 0.3 0.4]", [64, 96, 192, 192]),
        ("[ 0.1 ,\n0.2, .3,0.4 ]", [64, 96, 192, 192]),
        ("[0,0,1,1.0]", [0, 0, 640, 480]),
        ("[0.,0.,1.,1.]", [0, 0, 640, 480]),
        ("[0.5,0.25,0.5,0.25]", [320, 120, 320, 120]),
        ("[0.1,0.2,0.3,1.001]", "fractions from 0 to 1"),
        ("[0.1,0.2,0.3]", "3 numbers"),
        ("[0.1,0.2,0.3,0.4,0.5]", "5 numbers"),
        ("[0.3,0.2,0.1,0.4]", "x1 <= x2"),
        ("[0.1,0.4,0.3,0.2]", "y1 <= y2"),
        ("[-0.1,0.2,0.3,0.4]", "decimal"),
        ("[+0.1,0.2,0.3,0.4]", "decimal"),
        ("[0.1,0.2,0.3,.]", "decimal"),
        ("[0.1.1,0.2,0.3,0.4]", "decimal"),
        ("[0.1,0.2,0.3,0.4", "closed"),
        ("[]", "decimal"),
    ],
)
def test_reading_one_box_in_griffons_form(bracket, box):
    spans, warnings = find_groundings(f"dog-{bracket}", SIZE, "griffon")
    if isinstance(box, str):
        assert (
            spans == []
            and len(warnings) == 1
            and box in warnings[0]
            and "character 4" in warnings[0]
        )
    else:
        assert warnings == [] and spans[0].box.list() == pytest.approx(box)


@pytest.mark.parametrize(
    "bracket, bins",
    [
        ("[62,125,187,333]", [62, 125, 187, 333]),
        ("[62 125 187 333]", [62, 125, 187, 333]),
        ("[ 62 , 125\n187,\t333 ]", [62, 125, 187, 333]),
        ("[0, 0, 999, 999]", [0, 0, 999, 999]),
        ("[007, 08, 9, 10]", [7, 8, 9, 10]),
        ("[000000001, 2, 3, 4]", [1, 2, 3, 4]),
        ("[0000000001, 2, 3, 4]", None),  # ten digits
        ("[1, 2, 1001, 4]", None),
        ("[1., 2, 3, 4]", None),
        ("[1, 2, 3]", None),
        ("[+1, 2, 3, 4]", None),
        ("[1 -2 3 4]", None),
        ("[1,, 2, 3, 4]", None),
    ],
)
def test_reading_one_box_in_ferrets_form(bracket, bins):
    spans, warnings = find_groundings(f"dog {bracket}", SIZE)
    assert len(warnings) == (bins is None)
    assert [encode_box(s.box, SIZE) for s in spans] == ([] if bins is None else [bins])


@pytest.mark.parametrize("text", ["dog [a, 2, 3, 4]", "dog <1, 2, 3, 4>", "dog (1, 2, 3, 4)"])
def test_other_brackets_hold_no_box(text):
    assert find_groundings(text, SIZE)[0] == []


def test_strict_reading_wants_exactly_what_would_be_written():
    text = "dog [62, 125, 187, 333] [500, 500, 625, 750], cat [1, 2, 3, 4]"
    found = parse_groundings(text, SIZE, strict=True)
    assert [(g.name, len(g.boxes), g.scores) for g in found] == [("dog", 2, None), ("cat", 1, None)]
    for other in (
        text + ".",
        "A " + text,
        text.replace(", cat", " cat"),
        text + ", cow [9, 2, 3, 4]",
        "no box",
    ):
        parse_groundings(other, SIZE)
        with pytest.raises(ValueError):
            parse_groundings(other, SIZE, strict=True)
    assert (
        parse_groundings("None", SIZE, "griffon", strict=True)
        == []
        == parse_groundings("", SIZE, strict=True)
    )


@pytest.mark.parametrize("sign", ["[", "]", "\n", "\r"])
@pytest.mark.parametrize("style", STYLES)
def test_names_hold_no_brackets_and_line_breaks(sign, style):
    with pytest.raises(ValueError, match="without brackets"):
        format_groundings([Grounding(f"a{sign}b", [A])], SIZE, style)


@pytest.mark.parametrize(
    "name, clean",
    [
        ("the dog", "dog"),
        ("An owl", "owl"),
        ("and the dog", "dog"),
        ("3: a dog.", "3 a dog"),
        ("dog, cat", "dog cat"),
        ("dog;cat", "dog cat"),
        ("dog:cat?", "dog cat"),
        ("[x] y", "x y"),
        ("dog - -", "dog"),
        ("- dog", "dog"),
        ("Mr. Dog", "Mr. Dog"),
        ("v1.5 dog!", "v1.5 dog"),
        ("St.", "St."),
        ("there are dogs", "dogs"),
        ("  red \n b ", "red b"),
        ("t-shirt", "t-shirt"),
        ("a", "a"),
        ("(3) dog", "dog"),
        ("the and a dog", "dog"),
        ("a dog at at", "dog"),
        ("", ""),
    ],
)
def test_clean_names_by_hand(name, clean):
    assert clean_name(name) == clean
