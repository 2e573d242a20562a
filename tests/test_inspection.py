"""The check of a mixture: what is counted, what is a problem, and what the page draws."""

import base64
import io
import json
import random
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ferretlite.common.errors import InputError
from ferretlite.common.files import WEIGHTS
from ferretlite.data.inspection import (
    _CHECK_PAGE_STYLE,
    _check_part,
    _count_shared_pictures,
    _draw_turn,
    _find_missing_files,
    _format_check_page,
    _format_histogram,
    _list_kept_ids,
    check_mixture,
    encode_image_url,
    format_check,
    write_check,
)
from ferretlite.data.mixtures import Skipped, shuffle_index
from ferretlite.data.readers import AnnotationReader
from ferretlite.data.recipes import Part, Recipe
from ferretlite.model.processing import FerretProcessor
from ferretlite.regions.geometry import Box, Mask, Point
from ferretlite.scenes.questions import Conversation, Crop, Turn

MAGENTA, GREEN = (230, 30, 200), (26, 143, 60)


@pytest.fixture(scope="module")
def tiny():
    return FerretProcessor.from_pretrained(WEIGHTS / "tiny")


class Listed(AnnotationReader):
    """Pictures by their names, with numbers of COCO pictures."""

    def __init__(self, folder, names, numbers, **options):
        self.listed = [({}, name, number) for name, number in zip(names, numbers, strict=True)]
        super().__init__(folder, ".", **options)

    def sources(self):
        return []

    def rows(self):
        return {}, iter(self.listed)


# -- pictures


def test_missing_pictures_are_counted_among_those_that_are_looked_for(tmp_path):
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / name).touch()
    reader = Listed(
        tmp_path, ["a.jpg", "b.jpg", "", "c.jpg", "../x.jpg", "d.jpg", "e.jpg"], [-1] * 7
    )
    assert _find_missing_files(reader) == (4, 7, "b.jpg")
    # every second: a.jpg, no picture, a name that leads out, e.jpg
    gone, of, first = _find_missing_files(reader, 3)
    assert (gone, of) == (2, 4) and "leads out" in first
    assert _find_missing_files(reader, 7)[1] == _find_missing_files(reader, 4)[1] == 7
    assert _find_missing_files(Listed(tmp_path, ["a.jpg"], [3])) == (0, 1, None)
    assert _find_missing_files(Listed(tmp_path / "no folder", ["", "b.jpg"], [-1, -1])) == (
        1,
        2,
        "b.jpg",
    )  # no picture is none that is missing
    assert _find_missing_files("no reader of files") == (0, 0, None)


def test_shared_pictures_are_counted_for_each_two_parts():
    readers = [
        Listed("x", list("abcd"), [1, 2, 3, -1]),
        Listed("x", list("abc"), [3, 2, -1]),
        Listed("x", list("ab"), [3, 9]),
        Listed("x", ["a"], [-1]),
    ]
    assert [_list_kept_ids(r) for r in readers] == [{1, 2, 3}, {2, 3}, {3, 9}, set()]
    parts = [(SimpleNamespace(name=n), r) for n, r in zip("pqrs", readers)]
    parts.insert(1, (SimpleNamespace(name="drawn"), "no files"))
    assert _count_shared_pictures(parts) == [("p", "q", 2), ("p", "r", 1), ("q", "r", 1)]
    assert _list_kept_ids(Listed("x", list("abcd"), [0, 2, 3, -1], exclude={2, "d"})) == {0, 3}


# -- one part


def turn(task="talk", answer="a"):
    return Turn(task, "q", answer)


class Told:
    """A mixture whose records say what a list says."""

    def __init__(self, told, reader=None, weight=2.0):
        self.told_by_record, self.asked = told, []
        self.seed, self.sizes = 5, [0, 31]
        reader = reader or SimpleNamespace(left_out=Counter(), problems=(), __len__=None)
        self.skipped = Skipped()
        self.parts = [None, (Part("p", "coco", {}, weight), reader)]

    def read_fitted(self, p, record, rng):
        self.asked.append((p, record, rng.random()))
        found = self.told_by_record[record]
        if isinstance(found, Exception):
            raise found
        return (*found, [])


def talk(name, *tasks):
    return Conversation(None, (9, 9), [turn(t) for t in tasks], name)


def happened(**counts):
    return Counter({("p", k.replace("_", " ")): v for k, v in counts.items()})


def test_what_is_counted_in_a_part():
    told = [
        (talk("a", "rec", "name"), happened(too_long=2), 50),
        (talk("b"), happened(no_question=1), 0),
        (talk("c"), happened(too_long=1), 0),
        FileNotFoundError("no c.jpg"),
        InputError("broken"),
        (talk("e", "rec"), happened(shortened=1, reserved_words=3), 20),
        OSError("cut"),
        (talk("f", "rec"), happened(), 30),
    ]
    reader = Listed("x", [f"{k}.jpg" for k in range(10)], range(10), exclude={1, 2})
    reader.left_out["box"] = 4
    mixture = Told(told, reader)
    found = _check_part(mixture, 1, 99, 2)
    numbers = dict(missing=1, broken=2, silent=1, lost=1, too_long=3, shortened=1, reserved=3)
    assert {k: found[k] for k in numbers} == numbers
    assert found["turns"] == 4 + 3 + 3  # told, too long, with reserved words
    assert found["tasks"] == dict(rec=3, name=1) and sorted(found["tokens"]) == [20, 30, 50]
    assert (found["name"], found["format"], found["weight"], found["an_epoch"]) == (
        "p",
        "coco",
        2.0,
        31,
    )
    assert (found["records"], found["held_out"], found["looked"], found["left_out"]) == (
        8,
        2,
        8,
        {"box": 4},
    )
    assert len(found["examples"]) == 2 and all(c.turns for c in found["examples"])
    first = found["first"]
    assert first["missing"] == "no c.jpg" and first["broken"] in ("broken", "cut")
    assert (
        first["silent"] == "record 1 (b) poses no question"
        and first["lost"] == "record 2 (c) has no turn that fits"
    )
    assert (
        first["shortened"] == "e: 1 turn shortened"
        and first["reserved"] == "e: 3 turns reserved words"
    )
    assert first["too_long"] in ("a: 2 turns too long", "c: 1 turn too long")
    # spread over the file, each record with dice of its own
    order = [shuffle_index(k, 8, "5-check") for k in range(8)]
    assert mixture.asked == [
        (1, record, random.Random(f"5-check-{k}").random()) for k, record in enumerate(order)
    ]


def test_a_check_looks_at_so_many_records_and_keeps_four_examples():
    told = [(talk(str(k), "rec"), happened(), k) for k in range(8)]
    reader = Listed("x", list("abcdefgh"), [-1] * 8)
    found = _check_part(Told(told, reader), 1, 6)
    assert (found["looked"], len(found["tokens"]), len(found["examples"]), found["held_out"]) == (
        6,
        6,
        4,
        0,
    )
    assert {"first", "missing", "gone"} & set(found) == {"first", "missing"} and found[
        "first"
    ] == {}


# -- a mixture


def dialogues(folder, name, kinds):
    """A file of LLaVA's form: good records, records without a question, and records that are too
    long.
    """
    said = dict(
        good=["Why?", "So."], silent=["Why?"], long=["Why? " * 200, "So."], picture=["Why?", "So."]
    )
    records = []
    for k, kind in enumerate(kinds):
        turns = [{"from": ("human", "gpt")[n % 2], "value": v} for n, v in enumerate(said[kind])]
        records.append(
            dict(id=k, conversations=turns) | (dict(image="cut.jpg") if kind == "picture" else {})
        )
    (folder / f"{name}.json").write_text(json.dumps(records))
    return Part(name, "llava", dict(annotations=f"{name}.json"))


def test_what_stands_in_the_way_of_training(tmp_path, tiny):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cut.jpg").write_bytes(b"no picture")
    parts = [
        dialogues(tmp_path, "fine", ["good", "silent", "long"]),
        dialogues(tmp_path, "mute", ["silent", "silent"]),
        dialogues(tmp_path, "lengthy", ["long"]),
        dialogues(tmp_path, "cut", ["good", "picture", "good"]),
        dialogues(tmp_path, "bare", []),
        Part("gone", "llava", dict(annotations="gone.json")),
    ]
    found = check_mixture(Recipe("r", {"7": parts}, max_tokens=100, root=tmp_path), tiny, n=10)
    problems = [
        re.sub(r" \(.*|: record.*|: There.*|: cut.jpg.*|: Part.*|: /.*: found.*|: found.*", "", p)
        for p in found["problems"]
    ]
    assert sorted(problems) == [
        "Stage 7, bare: it has no records.",
        "Stage 7, cut: 1 of 3 records are broken",
        "Stage 7, fine: 1 × turns in 3 records cannot be used: fine.json, record with id 1",
        "Stage 7, fine: 1 × turns too long in 3 records cannot be used",
        "Stage 7, gone",
        "Stage 7, lengthy: 1 of 1 records have no turn that fits",
        "Stage 7, lengthy: 1 × turns too long in 1 records cannot be used",
        "Stage 7, mute: 2 of 2 records pose no question",
        "Stage 7, mute: 2 × turns in 2 records cannot be used: mute.json, record with id 1",
    ]
    assert (found["name"], found["style"], found["max_tokens"], found["held_out"]) == (
        "r",
        "ferret",
        100,
        0,
    )
    rows = found["stages"]["7"]["parts"]
    assert [r["name"] for r in rows] == ["fine", "mute", "lengthy", "cut"]
    assert [(r["gone"], r["looked_for"]) for r in rows] == [(0, 3), (0, 2), (0, 1), (0, 3)]
    assert [(r["silent"], r["lost"], r["broken"]) for r in rows] == [
        (1, 1, 0),
        (2, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
    ]
    assert max(t for r in rows for t in r["tokens"]) <= 100
    assert found["stages"]["7"]["overlaps"] == []
    (tmp_path / "images" / "000000000005.jpg").write_bytes(b"no picture")
    said = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    (tmp_path / "five.json").write_text(
        json.dumps([dict(id=1, image="000000000005.jpg", conversations=said)])
    )
    five = [Part(name, "llava", dict(annotations="five.json")) for name in ("one", "two")]
    assert check_mixture(Recipe("r", {"1": five}, root=tmp_path), tiny)["stages"]["1"][
        "overlaps"
    ] == [("one", "two", 1)]
    (tmp_path / "images" / "cut.jpg").unlink()
    gone = check_mixture(Recipe("r", {"7": parts[3:4]}, root=tmp_path), tiny, n=10)
    assert gone["problems"] == ["Stage 7, cut: 1 of 3 pictures are missing, the first is cut.jpg."]
    assert (
        check_mixture(Recipe("r", {"7": parts[:1]}, root=tmp_path), tiny)["stages"]["7"]["parts"][
            0
        ]["looked"]
        == 3
    )
    one = check_mixture(Recipe("r", {"7": parts[3:4]}, root=tmp_path), tiny, n=1, seed=2)
    assert one["stages"]["7"]["parts"][0]["looked"] == 1


# -- for a terminal


def row(name="part one", **more):
    counts = dict(
        missing=0, broken=0, silent=0, lost=0, turns=0, too_long=0, shortened=0, reserved=0
    )
    base = dict(
        name=name,
        format="coco",
        records=50,
        held_out=7,
        an_epoch=30,
        looked=20,
        tokens=[],
        left_out={},
        examples=[],
        gone=0,
    )
    return base | counts | more


def found(*rows, shared=(), problems=()):
    return dict(
        name="mine",
        style="ferret",
        max_tokens=288,
        held_out=4,
        stages={"2": dict(parts=list(rows), overlaps=list(shared))},
        problems=list(problems),
    )


def test_lines_of_a_check():
    one = row(
        turns=40,
        too_long=3,
        shortened=10,
        lost=5,
        silent=1,
        broken=2,
        tokens=[9, 1, 30, 4],
        left_out=dict(box=6),
    )
    two = row("a name that is long", an_epoch=90, missing=4, broken=1)
    lines = format_check(found(one, two, shared=[("a", "b", 8)], problems=["No."])).splitlines()
    assert (
        lines[0] == "mine: ferret form, at most 288 tokens of text a picture, 4 pictures held out"
    )
    assert lines[1] == "stage 2: 120 samples an epoch"
    assert (
        lines[2].split()
        == "part format records held out share tokens too long shortened lost silent broken".split()
    )
    # of the turns 3 / 40 and 10 / 40, of the records 5 / 20, 1 / 20 and 2 / 20; 9 is the third of
    # four counts of tokens
    assert (
        lines[3].split()
        == "part one coco 50 7 25.0% 9 (max 30) 7.5% 25.0% 25.0% 5.0% 10.0%".split()
    )
    assert lines[4] == "    left out 6 × box in 20 records"
    assert lines[5].split() == "a name that is coco 50 7 75.0% 0 (max 0) – – – – 20.0%".split()
    assert lines[6:] == ["  a and b share 8 pictures", "PROBLEM No."]
    assert len(lines[2]) == len(lines[3]) == len(lines[5])


def test_lines_of_a_stage_without_parts():
    assert format_check(found()).splitlines()[1:] == ["stage 2: 0 samples an epoch"]


# -- pictures of what is asked


def canvas(size=(90, 60)):
    return Image.new("RGB", size, "white")


def dots(image, color):
    """The columns and rows in which a colour is found: (x1, y1, x2, y2), both ends included."""
    same = (np.asarray(image).astype(int) - color == 0).all(2)
    assert same.any()
    rows, columns = np.flatnonzero(same.any(1)), np.flatnonzero(same.any(0))
    return columns[0], rows[0], columns[-1], rows[-1]


def draw(regions=(), answer="", crops=(), style="ferret", image=None, **options):
    image = image or canvas()
    prompt = "<region>" * len(regions) + "<crop>" * len(crops)
    asked = Turn("x", prompt, answer, list(regions), crops=list(crops))
    before = image.tobytes()
    result = _draw_turn(
        Conversation(image, (image.height, image.width), [asked]), asked, style, **options
    )
    assert image.tobytes() == before
    return result


def test_boxes_that_are_asked_about_are_magenta_and_those_of_the_answer_green():
    picture = draw(
        [Box(10, 20, 40, 50)],
        "a cat [500, 250, 900, 750]",
        [Crop(None, Box(60, 3, 80, 12)), Crop(None)],
    )
    magenta = np.asarray(picture).astype(int)
    assert dots(picture, GREEN) == (45, 15, 81, 45)  # 50.05 % of 90 and so on
    assert dots(picture.crop((0, 15, 45, 60)), MAGENTA) == (10, 5, 40, 35)
    assert dots(picture.crop((50, 0, 90, 14)), MAGENTA) == (10, 3, 30, 12)
    assert magenta[20, 11].tolist() == magenta[21, 25].tolist() == list(MAGENTA)  # two pixels wide
    assert magenta[22, 25].tolist() == magenta[35, 25].tolist() == [255, 255, 255]
    in_griffon = draw(answer="cat-[0.500,0.250,0.900,0.750]", style="griffon")
    assert dots(in_griffon, GREEN) == (45, 15, 81, 45)


def test_a_point_is_a_circle_and_a_mask_a_veil_with_its_box():
    assert dots(draw([Point(30, 40)]), MAGENTA) == (
        24,
        34,
        36,
        46,
    )  # three lines of two pixels around it
    shape = np.zeros((60, 90), bool)
    shape[10:31, 20:61] = True
    picture = np.asarray(draw([Mask(shape)])).astype(int)
    assert picture[20, 40].tolist() == pytest.approx(
        [255 + (c - 255) * 90 / 255 for c in MAGENTA], abs=1
    )
    assert picture[5, 40].tolist() == picture[40, 40].tolist() == [255, 255, 255]
    assert dots(Image.fromarray(picture.astype(np.uint8)), MAGENTA) == (20, 10, 61, 31)


def test_large_pictures_are_made_360_wide_and_their_lines_thicker():
    assert draw(image=canvas((720, 300))).size == (360, 150)
    assert draw(image=canvas((360, 700))).size == (360, 700)
    assert draw(image=canvas((900, 2)), width=90).size == (90, 1)
    tall = np.asarray(draw([Box(100, 100, 300, 700)], image=canvas((350, 960)))).astype(int)
    assert (tall[400, 90:120] == MAGENTA).all(1).sum() == 6  # 960 / 160


def test_a_picture_is_a_jpeg_in_the_page():
    start, data = encode_image_url(canvas((40, 30))).split(",")
    assert start == "data:image/jpeg;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format == "JPEG" and image.size == (40, 30)
    assert (
        image.quantization[0][0] == 6
    )  # the standard table begins with 16; at quality 80 it is (16 x 40 + 50) / 100


def test_bars_of_a_histogram():
    # the top is 99, so that 100 counts share 10 bars; 0 to 9 fall into the first, 50 to 59 into the
    # sixth
    text = _format_histogram([0, 5, 9, 50, 99], 20, 10)
    rects = re.findall(r'<rect x="(\d+)" y="([\d.]+)" width="9" height="([\d.]+)"', text)
    assert rects == [("0", "2.0", "48.0"), ("50", "34.0", "16.0"), ("90", "34.0", "16.0")]
    assert 'line x1="20.0" x2="20.0"' in text and "99 tokens, limit 20<" in text  # 100 x 20 / 100
    assert 'viewBox="0 0 104 62" width="100"' in text
    wide = _format_histogram([10], 99)
    assert (
        'line x1="237.6"' in wide and "99 tokens, limit 99<" in wide and '<rect x="20"' in wide
    )  # 24 bars: 10 x 24 / 100 = 2.4
    assert "<rect" not in _format_histogram([], 5)


def test_a_page_says_what_is_wrong_and_shows_what_is_asked(tmp_path):
    asked = [
        Turn("rec", "Where is <the> cat?", "cat [500, 250, 900, 750]"),
        Turn("rec", "second", "two"),
    ]
    talks = [
        Conversation(canvas(), (60, 90), asked, "a&b"),
        Conversation(canvas(), (60, 90), asked[1:], "c"),
    ]
    one = row("x<y", turns=40, too_long=3, lost=5, tokens=[9], examples=talks)
    result = found(one, row("z", an_epoch=90), shared=[("x<y", "z", 8)], problems=["a < b"])
    page = _format_check_page(result)
    assert page.count('class="bad"') == 1 and "a &lt; b" in page and 'class="good"' not in page
    assert (
        page.count("<article") == 2
        and "Where is &lt;the&gt; cat?" in page
        and "a&amp;b · rec · one of 2 turns" in page
    )
    assert "c · rec<" in page and "x&lt;y and z share 8 pictures" in page
    cells = re.findall(r"<td>(.*?)</td>", page)
    assert cells[:11] == [
        "x&lt;y",
        "coco",
        "50",
        "7",
        "30",
        "25.0%",
        "3 of 40",
        "–",
        "5 of 20",
        "–",
        "–",
    ] and cells[11].startswith("<svg")
    assert cells[12:18] == ["z", "coco", "50", "7", "90", "75.0%"]
    assert (
        "ferret form · at most 288 tokens of text a picture · 4 pictures held out" in page
        and _CHECK_PAGE_STYLE in page
    )
    assert "limit 288<" in cells[11]
    assert 'class="good"' in _format_check_page(
        found()
    ) and 'class="bad"' not in _format_check_page(found())
    path = write_check(result, tmp_path / "page")
    assert path == tmp_path / "page" / "index.html" and path.read_text(encoding="utf-8") == page
    numbers = json.loads((Path(path).parent / "check.json").read_text())
    assert numbers["stages"]["2"]["parts"][0]["tokens"] == [9] and numbers["stages"]["2"][
        "overlaps"
    ] == [["x<y", "z", 8]]
    assert (
        all("examples" not in r for r in numbers["stages"]["2"]["parts"])
        and len(result["stages"]["2"]["parts"][0]["examples"]) == 2
    )
    assert numbers["held_out"] == 4 and numbers["problems"] == ["a < b"]
