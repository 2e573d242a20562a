"The demo: who is asked what, what counts as right, and how it is written, each with numbers."

import html
import os
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ferretlite.app import demo
from ferretlite.app.demo import (
    _CARDS,
    _GRIFFON_CARDS,
    _TASK_RULES,
    Card,
    _compute_chance,
    _compute_f1,
    _count_hits,
    _draw_card,
    _draw_scribble,
    _flatten_groundings,
    _format_card,
    _format_demo_page,
    _format_model_name,
    _format_truth,
    _judge_card,
    _list_asked_groundings,
    _list_pictures,
    _list_true_groundings,
    _make_cards,
    _make_demo_turn,
    _make_example_turn,
    _make_find_turn,
    _make_griffon_cards,
    _make_griffon_turn,
    _match_boxes,
    _take_first_scene,
    _write_scribble,
    format_answer,
    format_command,
    make_demo_cards,
    write_demo,
)
from ferretlite.model.answers import Answer
from ferretlite.regions.geometry import Box, Mask, Point
from ferretlite.regions.grammar import Grounding
from ferretlite.scenes.questions import Crop, Turn
from ferretlite.scenes.world import NOVEL_KINDS, Scene, SceneObject, make_scene

STAR, CUP, GEAR = Box(10, 20, 30, 50), Box(40, 5, 60, 25), Box(70, 60, 90, 95)


def scene():
    "Three things in a picture of 100 x 120 pixels (height, width), two of a kind."
    objects = [
        SceneObject("star", STAR, None, "red", "filled"),
        SceneObject("cup", CUP, None, "blue", "outlined"),
        SceneObject("star", GEAR, None, "pink", "filled"),
    ]
    return Scene(Image.new("RGB", (120, 100), "white"), (100, 120), objects, "s-1", split="test")


def card(task, answer="", meta=None, text="", groundings=(), **fields):
    turn = Turn(task, fields.pop("prompt", "where?"), answer, fields.pop("regions", []), meta or {})
    turn.crops = fields.pop("crops", [])
    said = Answer(text, list(groundings))
    return Card("A title", Path("demo/scenes/a.png"), scene(), turn, answer=said, **fields)


def judged(*args, **kwargs):
    found = card(*args, **kwargs)
    _judge_card(found)
    return found.right, found.note


# What is asked


def test_the_questions_of_the_page():
    assert Counter((task, form) for _, task, form in _CARDS) == {
        ("name", "point"): 1,
        ("name", "box"): 1,
        ("name", "mask"): 1,
        ("rec", None): 3,
        ("choose", "point"): 1,
        ("choose", "box"): 1,
        ("choose", "mask"): 1,
        ("phrase", None): 1,
        ("dense_detection", None): 1,
        ("caption", None): 1,
        ("grounded_caption", None): 1,
        ("count", None): 2,
        ("word", None): 1,
    }
    assert [row[1:] for row in _GRIFFON_CARDS] == [
        ("count", "same"),
        ("count", "other"),
        ("novel", "other"),
        ("test", "absent"),
        ("test", "find_set"),
    ]
    words = {"point": "point", "box": "box", "mask": "scribble"}
    assert all(words[form] in title for title, _, form in _CARDS if form)


def test_a_card_begins_unanswered():
    found = Card("t", Path("x"), None, None)
    assert (found.mask_path, found.answer, found.model) == (None, None, "tiny")
    assert (found.right, found.note) == (False, "")


def test_a_scribble_is_a_zigzag_inside_its_mask():
    "Seven turns between the edges, a tenth of the longer side wide; thin things stay whole."
    area = np.zeros((100, 150), bool)
    area[10:70, 20:140] = True
    found = _draw_scribble(Mask(area), (100, 150)).to_mask(100, 150)
    assert not (found & ~area).any() and 0.15 < found.sum() / area.sum() < 0.75
    crossings = (np.diff(found[40].astype(int)) == 1).sum()
    assert crossings == 6  # the middle row is crossed by six strokes
    top = np.flatnonzero(found[11])
    bottom = np.flatnonzero(found[68])
    peaks = [((top > x - 8) & (top < x + 8)).any() for x in (40, 80, 120)]
    valleys = [((bottom > x - 8) & (bottom < x + 8)).any() for x in (60, 100)]
    assert all(peaks) and all(valleys)  # odd turns are at the top edge
    stroke = np.flatnonzero(found[40])
    widths = [len(run) for run in np.split(stroke, np.flatnonzero(np.diff(stroke) > 1) + 1)]
    assert 10 <= max(widths) <= 16  # 12 pixels, cut a little aslant
    thin = np.zeros((100, 150), bool)
    thin[10:14, 20:26] = True  # 24 pixels
    mask = Mask(thin)
    assert _draw_scribble(mask, (100, 150)) is mask
    thin[10:15, 20:26] = True
    assert _draw_scribble(Mask(thin), (100, 150)).to_mask(100, 150).sum() >= 25


def test_a_scribble_is_written_in_black_and_white(tmp_path):
    area = np.zeros((10, 15), bool)
    area[2:5, 3:9] = True
    path = _write_scribble(Mask(area), (10, 15), tmp_path / "new" / "s.png")
    found = np.asarray(Image.open(path))
    assert found.dtype == np.uint8 and set(np.unique(found)) == {0, 255}
    assert np.array_equal(found > 0, area) and path == tmp_path / "new" / "s.png"


@pytest.mark.parametrize("form, kind", [("point", Point), ("box", Box), ("mask", Mask)])
def test_a_question_has_the_form_that_was_asked_for(form, kind):
    for key in range(4):
        turn = _make_demo_turn(make_scene(3, 192, "test"), "name", form, key)
        assert isinstance(turn.regions[0], kind) and turn.meta["form"] == form
        again = _make_demo_turn(make_scene(3, 192, "test"), "name", form, key)
        assert (turn.prompt, turn.answer) == (again.prompt, again.answer)


def test_a_question_that_cannot_be_posed_is_none():
    empty = Scene(Image.new("RGB", (64, 64)), (64, 64), [], split="test")
    assert _make_demo_turn(empty, "name", "box", 0) is None
    assert _make_demo_turn(make_scene(3, 192, "test"), "rec", None, 0).task == "rec"


def test_scenes_are_dealt_once_and_by_their_split():
    scenes = [
        Scene(None, (1, 1), id=str(i), split=s) for i, s in enumerate(["val", "test", "test"])
    ]
    used, posed = set(), []

    def pose(scene):
        posed.append(scene.id)
        return f"turn {scene.id}" if scene.id != "1" else None

    assert _take_first_scene(scenes, "test", used, pose) == (2, "turn 2") and used == {2}
    assert _take_first_scene(scenes, "test", used, pose) == (None, None) and used == {2}
    assert posed == ["1", "2", "1"]
    assert _take_first_scene(scenes, "val", used, pose) == (0, "turn 0")


def test_cards_are_made_of_the_first_scenes_of_the_seed(tmp_path):
    "Seed 2: test scenes from 2000, counting scenes from 2000, each used once."
    cards = make_demo_cards(tmp_path, seed=2, size=128)
    ids = [c.scene.id for c in cards]
    assert len(set(ids)) == len(ids) >= len(_CARDS) - 1
    order = [title for title, *_ in _CARDS]
    assert [c.title for c in cards] == [t for t in order if t in {c.title for c in cards}]
    assert len(list((tmp_path / "images").iterdir())) == 18 + 2
    numbers = {c.scene.split: [] for c in cards}
    for c in cards:
        numbers[c.scene.split].append(c.scene.seed)
        assert c.scene.size == (128, 128) and Path(c.path).exists()
        assert (c.scene.split == "count") == (c.turn.task == "count")
    assert set(numbers["count"]) == {2000, 2001}
    assert min(numbers["test"]) == 2000 and max(numbers["test"]) < 2018
    for c in cards:
        form = c.turn.meta.get("form") if c.turn.regions else None
        assert (c.mask_path is not None) == (form == "mask")
        if c.mask_path:
            h, w = c.scene.size
            drawn = np.asarray(Image.open(c.mask_path)) > 0
            assert np.array_equal(c.turn.regions[0].to_mask(h, w), drawn)
            assert c.mask_path.parent == tmp_path / "scribbles" and c.scene.id in c.mask_path.name


def test_griffons_cards_come_from_scenes_of_their_own(tmp_path):
    "Seed 1: scenes from 1100; four to count in, two with novel things, six of the test split."
    cards = _make_griffon_cards(tmp_path, seed=1, size=128)
    assert len(cards) == 5 and len(list((tmp_path / "images").iterdir())) == 12
    assert [c.scene.split for c in cards] == ["count", "count", "novel", "test", "test"]
    assert all(1100 <= c.scene.seed < 1106 for c in cards)
    assert [c.turn.meta.get("source") for c in cards] == ["same", "other", "other", None, None]
    assert len({c.scene.id for c in cards}) == 5 and {c.model for c in cards} == {"tiny-griffon"}
    assert cards[2].turn.meta["kind"] in NOVEL_KINDS
    for c in cards[1:3]:
        assert Path(c.turn.crops[0].image).parent == tmp_path / "crops"
        assert c.turn.crops[0].box is None and Image.open(c.turn.crops[0].image).size[0] > 8


def test_names_that_are_there_and_one_that_is_not():
    rng = random.Random(3)
    found = _make_find_turn(make_scene(5, 192, "test"), True, rng)
    assert found.task == "find_set" and found.meta["groundings"]
    none = _make_find_turn(make_scene(5, 192, "test"), False, rng)
    assert none.task == "find" and none.meta["groundings"] == [] and none.answer == "None"


def test_an_example_shows_the_commonest_kind(tmp_path):
    turn = _make_example_turn(scene(), "same", tmp_path, random.Random(0))
    assert turn.meta["kind"] == "star" and turn.meta["n"] == 2
    assert turn.crops[0].box in (STAR, GEAR) and list(tmp_path.iterdir()) == []
    other = _make_example_turn(scene(), "other", tmp_path, random.Random(0))
    assert other.crops[0].image == tmp_path / "s-1-other.png" and other.crops[0].image.exists()
    novel = scene()
    novel.split = "novel"  # among scenes of novel things only those count
    assert _make_example_turn(novel, "same", tmp_path, random.Random(0)) is None
    assert _make_griffon_turn(scene(), "same", tmp_path, 0).task == "search"
    assert _make_griffon_turn(make_scene(5, 192, "test"), "absent", tmp_path, 0).task == "find"
    assert (
        _make_griffon_turn(make_scene(5, 192, "test"), "find_set", tmp_path, 0).task == "find_set"
    )


# What is right


def test_every_task_has_a_rule():
    assert set(_TASK_RULES) >= {task for _, task, _ in _CARDS} | {"search", "find", "find_set"}
    assert "0.5" in _TASK_RULES["rec"] and "0.5" in _TASK_RULES["phrase"]


def test_groundings_become_one_row_a_box():
    found = _flatten_groundings([Grounding("a", [STAR, CUP], [0.5, 0.25]), Grounding("b", [GEAR])])
    assert found == [("a", STAR, 0.5), ("a", CUP, 0.25), ("b", GEAR, None)]


def test_each_true_box_is_met_once_by_a_box_of_its_name():
    truth = [("star", STAR, None), ("cup", CUP, None)]
    said = [("The star", STAR, 1), ("star", STAR, 1), ("star", CUP, 1), ("cup", CUP, 1)]
    assert _match_boxes(said, truth) == [True, False, False, True]
    assert _match_boxes(said, truth, named=False) == [True, False, True, False]
    assert len(truth) == 2


def test_a_box_meets_another_from_an_iou_of_one_half():
    "20 x 30 pixels against 20 x 15 of them: exactly one half; against 20 x 14: less."
    truth = [("a", STAR, None)]
    assert _match_boxes([("a", Box(10, 20, 30, 35), 1)], truth) == [True]
    assert _match_boxes([("a", Box(10, 20, 30, 34), 1)], truth) == [False]


@pytest.mark.parametrize(
    "hits, answered, true, value",
    [(2, 4, 2, 2 / 3), (1, 1, 3, 0.5), (0, 3, 0, 0.0), (0, 0, 0, 1.0), (0, 0, 2, 0.0)],
)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(hits, answered, true, value):
    assert _compute_f1(hits, answered, true) == pytest.approx(value)


def test_boxes_that_a_question_asks_for():
    one = _list_asked_groundings(card("rec", meta=dict(query="the star", box=STAR)))
    assert [(g.name, g.boxes) for g in one] == [("the star", [STAR])]
    held = [Grounding("cup", [CUP])]
    assert _list_asked_groundings(card("phrase", meta=dict(groundings=held, box=STAR))) == held
    assert _list_asked_groundings(card("name", meta=dict(box=STAR))) == []


def test_captions_are_compared_phrase_by_phrase():
    found = card(
        "caption",
        "A red star, a blue cup and a gear.",
        text="A blue cup and a red star and a moon.",
    )
    assert _count_hits(found) == (2, 3, 3)
    boxes = [Grounding("star", [STAR]), Grounding("cup", [GEAR])]
    truth = [Grounding("star", [STAR]), Grounding("cup", [CUP]), Grounding("sun", [CUP])]
    assert _count_hits(card("phrase", meta=dict(groundings=truth), groundings=boxes)) == (1, 2, 3)


def test_names_and_words_are_right_as_a_whole():
    assert judged("name", "filled red star", text="A filled red  star.")[0]
    assert not judged("name", "filled red star", text="red star")[0]
    assert judged("word", "CAT", text="cat")[0] and not judged("word", "CAT", text="CATS")[0]


def test_options_and_counts():
    meta = dict(options=["red star", "blue cup"], answer="blue cup")
    assert judged("choose", meta=meta, text="It is a blue cup.")[0]
    assert not judged("choose", meta=meta, text="It is a red star.")[0]
    assert judged("count", meta=dict(n=3, query="star"), text="There are 3.")[0]
    assert not judged("count", meta=dict(n=3, query="star"), text="There are 4.")[0]


def test_a_phrase_is_right_from_an_iou_of_one_half():
    meta = dict(query="star", box=STAR)
    half, less = (
        Grounding("star", [Box(10, 20, 30, 35), STAR]),
        Grounding("s", [Box(10, 20, 30, 34)]),
    )
    assert judged("rec", meta=meta, groundings=[half]) == (True, "IoU 0.50")
    assert judged("rec", meta=meta, groundings=[less]) == (False, "IoU 0.47")
    assert judged("rec", meta=meta) == (False, "IoU 0.00")


def test_lists_are_right_from_an_f1_of_one_half():
    truth = [Grounding("star", [STAR]), Grounding("cup", [CUP]), Grounding("gear", [GEAR])]
    meta = dict(groundings=truth)
    assert judged("phrase", meta=meta, groundings=truth[:1]) == (True, "1 of 3 found, 0 wrong")
    wrong = [truth[0], Grounding("moon", [CUP])]
    assert judged("phrase", meta=meta, groundings=wrong) == (False, "1 of 3 found, 1 wrong")
    none = dict(groundings=[])
    assert judged("find", meta=none) == (True, "nothing is there; nothing found")
    assert judged("find", meta=none, groundings=truth) == (False, "nothing is there; 3 found")


def test_chances_of_guessing():
    assert _compute_chance(card("choose")) == 0.5 and _compute_chance(card("count")) == 0.1
    assert (
        _compute_chance(card("rec")) == pytest.approx(1 / 3) and _compute_chance(card("name")) == 0
    )
    empty = card("rec")
    empty.scene.objects = []
    assert _compute_chance(empty) == 1


# What is shown


def test_what_the_truth_looks_like():

    def rows(shown):
        return [(g.name, g.boxes) for g in _list_true_groundings(shown)]

    pointed = card("name", "red star", dict(box=STAR), prompt="<region>?", regions=[STAR])
    assert rows(pointed) == [("red star", [STAR])]
    assert rows(card("rec", "x", dict(query="q", box=CUP))) == [("q", [CUP])]
    assert rows(card("count", "2", dict(query="star", n=2))) == [("star", [STAR]), ("star", [GEAR])]
    every = [
        ("filled red star", [STAR]),
        ("outlined blue cup", [CUP]),
        ("filled pink star", [GEAR]),
    ]
    assert rows(card("caption", "x")) == every


def test_pictures_of_a_card(monkeypatch):
    "Boxes that meet the truth are green, others red, and the truth is blue."
    drawn = []
    real = demo.draw_answer

    def draw(image, groundings=(), regions=(), colors=None):
        drawn.append(([(g.name, g.boxes, g.scores) for g in groundings], list(regions), colors))
        return real(image, groundings, regions, colors)

    monkeypatch.setattr(demo, "draw_answer", draw)
    example = Image.new("RGB", (50, 40))
    example.paste("red", (5, 10, 25, 20))
    said = [Grounding("star", [STAR], [0.9]), Grounding("moon", [CUP], [0.4])]
    truth = [Grounding("star", [STAR]), Grounding("cup", [CUP])]
    regions = [Point(5, 6)]
    shown = card(
        "phrase",
        meta=dict(groundings=truth),
        groundings=said,
        prompt="<region>?",
        regions=regions,
        crops=[Crop(example, Box(5, 10, 25, 20))],
    )
    pictures = _draw_card(shown)
    assert [c for _, c in pictures] == ["what is shown", "the model", "the truth"]
    shown_part = np.asarray(pictures[0][0]).astype(int)
    assert (shown_part[96, 60:132] == [255, 0, 0]).all()  # the box, in the middle of its crop
    assert 50 < shown_part[..., 0].mean() < 200
    mine, true = drawn
    assert mine == (
        [("star", [STAR], [0.9]), ("moon", [CUP], [0.4])],
        regions,
        ["#1a8f3c", "#d62828"],
    )
    assert true == ([("star", [STAR], None), ("cup", [CUP], None)], [], ["#2a5bd7"] * 2)
    drawn.clear()
    other = Grounding("anything", [STAR], [0.9])  # of a single phrase the name does not count
    silent = card("rec", meta=dict(query="star", box=STAR), groundings=[other])
    _draw_card(silent)
    assert drawn[0][2] == ["#1a8f3c"]
    assert _draw_card(card("name", "a star"))[0][1] == "the question"


def test_a_picture_carries_its_own_pixels():
    shown = card("name", "b")
    shown.title = 'a "b" <c>'
    found = html.unescape(_format_card(shown, "tiny", "demo"))
    assert 'aria-label="a "b" <c>: the question"><image href="data:image/' in found
    assert "<c>" not in _format_card(shown, "tiny", "demo")


def test_a_box_of_the_page_has_its_place_its_name_and_its_score():
    "Boxes are in pixels of the picture; the label stays inside; small boxes lie on top."
    small = Box(70, 2, 80, 9.96)  # at the upper edge, in the right half
    said = [Grounding("cup <b>", [small], [0.987]), Grounding("star", [STAR], [0.5])]
    shown = card("find", meta=dict(groundings=[Grounding("star", [STAR])]), groundings=said)
    (_, size, caption, boxes), (*_, true) = _list_pictures(shown)
    assert (size, caption) == ((120, 100), "the model")
    assert [box["label"] for box in boxes] == ["star · 0.50", "cup <b> · 0.99"]
    assert [box["color"] for box in boxes] == ["#1a8f3c", "#d62828"]
    star, cup = boxes
    assert [star[k] for k in "xywh"] == [10, 20, 20, 30] and (star["at"], star["line"]) == (10, 15)
    assert (cup["at"], cup["anchor"], cup["line"]) == (80, "end", 24) and cup["h"] == 8
    assert [box["label"] for box in true] == ["star"] and true[0]["color"] == "#2a5bd7"
    page = _format_card(shown, "tiny", "demo")
    assert 'x="10.0" y="20.0" width="20.0" height="30.0"' in page
    assert page.count("cup &lt;b&gt; · 0.99</") == 2 and "<script" not in page


def test_a_picture_that_stands_twice_is_written_once():
    shown = [card("name", "b"), card("rec", meta=dict(query="star", box=STAR), groundings=[])]
    page = _format_demo_page(shown, "tiny", "demo", 1)
    assert page.count("<svg") == 4 and page.count("data:image/") == 1
    assert page.count('<image id="picture-0"') == 1 and page.count('<use href="#picture-0"') == 3


def test_a_box_is_not_broken_on_a_narrow_page():
    said = [Grounding("red cup, 2", [Box(1, 2, 3, 4)], [0.5])]
    shown = card("rec", meta=dict(query="star", box=STAR), text="1, 2", groundings=said)
    page = _format_card(shown, "tiny", "demo")
    assert "  red cup, 2  [1,\u00a02,\u00a03,\u00a04]\u00a00.50" in page


def test_an_answer_in_lines():
    answer = Answer(
        "two", [Grounding("cup", [Box(1.4, 2.6, 3, 4), STAR], [0.987, 0.5]), Grounding("", [GEAR])]
    )
    first, second, third, fourth = format_answer(answer).splitlines()
    assert first == "two" and second == "  cup" + " " * 25 + " [1, 3, 3, 4]  0.99"
    assert third.endswith("[10, 20, 30, 50]  0.50") and fourth.startswith("  (no name)")
    assert fourth.endswith("[70, 60, 90, 95]") and format_answer(Answer("")) == "(no words)"


def test_the_right_answer_in_lines():
    truth = [Grounding("cup", [CUP])]
    found = _format_truth(card("phrase", "a cup [400, 50, 600, 250] it is", dict(groundings=truth)))
    assert found.splitlines()[0] == "a cup it is" and "[40, 5, 60, 25]" in found
    assert _format_truth(card("find", "None", dict(groundings=[]))) == "None"
    assert _format_truth(card("search", "[1, 2, 3, 4]", dict(groundings=truth))).startswith(
        "(no words)"
    )
    names = _format_truth(card("find_set", "cup [1, 2, 3, 4]", dict(groundings=truth)))
    assert names.startswith("(no words)") and names.count("[") == 1


def test_what_a_model_is_called_inside_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert _format_model_name("mine", tmp_path / "demo") == os.path.join("..", "mine")
    assert _format_model_name("tiny", tmp_path / "demo") == "tiny"
    (tmp_path / "tiny").mkdir()
    assert (
        _format_model_name("tiny", "demo") == "tiny"
        and _format_model_name("hub/id", "demo") == "hub/id"
    )
    assert _format_model_name(str(tmp_path / "mine"), "demo") == str(tmp_path / "mine")


def test_the_command_that_asks_the_same(tmp_path):
    ask = "ferretlite ask scenes/a.png 'is it <region>?' --fast "
    region = dict(prompt="is it <region>?")
    box = card("name", regions=[Box(1.5, 2, 30, 40)], **region)
    assert format_command(box, "tiny", "demo") == ask + "--region 1.5,2,30,40"
    point = card("name", regions=[Point(7, 8.25)], **region)
    assert format_command(point, "tiny", "demo") == ask + "--point 7,8.25"
    mask = card(
        "name", regions=[Mask(np.eye(4, dtype=bool))], mask_path=Path("demo/s/m.png"), **region
    )
    assert format_command(mask, "other", "demo") == ask + "--mask s/m.png --model other"
    part = card("search", prompt="like it?", crops=[Crop("demo/scenes/a.png", Box(1, 2, 3, 4.5))])
    assert format_command(part, "tiny", "demo").endswith("'like it?' --fast --crop 1,2,3,4.5")
    file = card("search", prompt="like it?", crops=[Crop("demo/c.png")])
    assert format_command(file, "tiny", "demo").endswith("--crop c.png")
    known = card("rec", prompt="where?", groundings=[Grounding("star", [STAR], [0.7])])
    assert format_command(known, "tiny", "demo").endswith("'where?' --fast --verify")  # same scores


def test_a_card_of_the_page():
    meta = dict(options=["<a>", "b"], answer="b", box=CUP)
    shown = card("choose", "b", meta, text="<a>", prompt="<b>A</b> <region>?", regions=[STAR])
    shown.note = "a note"
    found = _format_card(shown, "tiny", "demo")
    assert '<article class="card wrong">' in found and "✗ wrong" in found and "&lt;a&gt;" in found
    assert "&lt;b&gt;A&lt;/b&gt; <mark>region</mark>?" in found and "by chance 50%. a note" in found
    assert "Right means: the right option" in found
    assert f"<code>{format_command(shown, 'tiny', 'demo')}</code>" in html.unescape(found)
    assert re.search(r"<dt>model</dt><dd>&lt;a&gt;</dd><dt>truth</dt><dd>b", found)
    shown.right = True
    assert '<article class="card right">' in _format_card(shown, "tiny", "demo")
    assert "by chance" not in _format_card(card("name", "b"), "tiny", "demo")


def test_the_page_counts_what_is_right_and_what_guessing_would_get():
    "A choice, a count and a phrase among three: .5 + .1 + .33 = .9 of three."
    cards = [
        card("choose", "b", dict(options=["a", "b"], answer="b"), right=True),
        card("count", "1", dict(n=1, query="star")),
        card("rec", "x", dict(query="q", box=CUP), right=True),
    ]
    text = _format_demo_page(cards, "mi<ne", "demo", 12.4)
    assert "2 of 3 right" in text and "(67%; guessing would get about 0.9)" in text
    assert 'style="width:67%"' in text and "in 12 seconds" in text
    assert (
        "<b>mi&lt;ne</b>" in text
        and text.count("<article") == 3
        and text.startswith("<!doctype html>")
    )
    assert "3 questions about image files" in text


def test_the_page_dots_and_counts_boxes_below_its_threshold():
    "Of two red boxes one lies below 0.6, of two green ones none; a box without a score is silent."
    truth = dict(groundings=[Grounding("star", [STAR]), Grounding("cup", [CUP])])
    said = [
        Grounding("star", [STAR], [0.6]),
        Grounding("cup", [CUP], [0.61]),
        Grounding("moon", [STAR], [0.59]),
        Grounding("sun", [STAR], [0.9]),
        Grounding("hat", [STAR]),
    ]
    shown = card("phrase", meta=truth, groundings=said)
    text = _format_demo_page([shown], "tiny", "demo", 1)
    assert "below 0.6 are dotted: 1 of 2 red ones and 0 of 2 green ones." in text
    assert text.count('<g class="box unsure"') == 1
    assert ".unsure rect{stroke-dasharray" in text


def test_the_sister_is_asked_beside_the_shipped_model_alone(monkeypatch, tmp_path):
    asked = []

    def cards_of(name):
        def make(folder, seed):
            asked.append((name, folder, seed))
            return [
                Card(name, Path("x"), None, None, model="tiny-griffon" if name == "g" else "tiny")
            ]

        return make

    monkeypatch.setattr(demo, "make_demo_cards", cards_of("f"))
    monkeypatch.setattr(demo, "_make_griffon_cards", cards_of("g"))
    assert [c.model for c in _make_cards(tmp_path, "tiny", 4)] == ["tiny", "tiny-griffon"]
    assert asked == [("f", tmp_path / "scenes", 4), ("g", tmp_path / "by-example", 4)]
    assert [c.model for c in _make_cards(tmp_path, "mine", 4)] == ["mine"]
    monkeypatch.setattr(demo, "list_shipped_models", lambda: {"tiny": "x"})
    assert [c.model for c in _make_cards(tmp_path, "tiny", 4)] == ["tiny"]


def test_each_card_gets_the_answer_to_its_own_question(monkeypatch, tmp_path):
    cards = [
        card("word", "ONE", prompt="1", model="tiny"),
        card("word", "TWO", prompt="2", model="tiny-griffon"),
        card("word", "SIX", prompt="3", model="tiny"),
    ]
    loaded = []
    monkeypatch.setattr(demo, "_make_cards", lambda folder, model, seed: cards)
    monkeypatch.setattr(demo.Ferret, "load", lambda name, device=None: loaded.append(name) or name)

    def answer_all(ferret, questions, batch, on_progress):
        on_progress(1)
        loaded.append((ferret, batch, [q.turn.prompt for q in questions]))
        return [Answer(dict(zip("123", ("one", "two", "five")))[q.turn.prompt]) for q in questions]

    monkeypatch.setattr(demo, "answer_questions", answer_all)
    found, path = write_demo(tmp_path / "d")
    assert [c.right for c in found] == [True, True, False] and [c.answer.text for c in found][
        1
    ] == "two"
    assert loaded == ["tiny", ("tiny", 8, ["1", "3"]), "tiny-griffon", ("tiny-griffon", 8, ["2"])]
    assert path == tmp_path / "d" / "index.html" and "2 of 3 right" in path.read_text("utf-8")
    with pytest.raises((ValueError, FileNotFoundError)):
        write_demo(tmp_path / "e", "no-such-model")
