"""Looking closer: windows and the way back, second looks, reading, slices, what asks for them."""

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_model import Scripted

from ferretlite.app import cli
from ferretlite.common.errors import InputError
from ferretlite.evaluation.suites import evaluate
from ferretlite.model import closer
from ferretlite.model.closer import (
    LOOK_REACH,
    Window,
    find_closer_window,
    is_cut,
    is_small,
    list_slices,
    make_window,
    measure_views,
    merge_slices,
    place_window,
    suppress_overlaps,
)
from ferretlite.model.inference import Ferret
from ferretlite.regions.geometry import Box, Mask, Point, box_iou
from ferretlite.regions.grammar import Grounding
from ferretlite.scenes.world import make_scene

PACKAGE = Path(closer.__file__).resolve().parent.parent
SIZE = (384, 384)
GREY = Image.new("RGB", SIZE[::-1], "grey")
sides = st.integers(20, 900)
shares = st.floats(0, 1)


class Watched(Scripted):
    "Remembers the pictures and the regions of every question too."

    def __init__(self, *texts):
        super().__init__(*texts)
        self.pictures, self.regions = [], []

    def _generate(self, images, prompts, regions, *more):
        self.pictures += images
        self.regions += regions
        return super()._generate(images, prompts, regions, *more)


def write(name, box, size):
    "A box as the model writes it: bins of a thousandth of a picture of this (height, width)."
    sides = (size[1], size[0], size[1], size[0])
    return f"{name} [{', '.join(str(int(v / s * 1000)) for v, s in zip(box.list(), sides))}]"


def close(box, other, pixels):
    return max(abs(a - b) for a, b in zip(box.list(), other.list())) <= pixels


def draw_window(draw, size, smallest=8):
    h, w = size
    width, height = draw(st.integers(smallest, w)), draw(st.integers(smallest, h))
    x, y = draw(st.integers(0, w - width)), draw(st.integers(0, h - height))
    return make_window((x, y, x + width, y + height), draw(st.integers(16, 500)))


def draw_box(draw, x1, y1, x2, y2):
    xs = sorted((draw(shares), draw(shares)))
    ys = sorted((draw(shares), draw(shares)))
    xs, ys = [x1 + v * (x2 - x1) for v in xs], [y1 + v * (y2 - y1) for v in ys]
    return Box(xs[0], ys[0], xs[1], ys[1])


# Windows


def test_a_box_moves_by_hand():
    window = Window((100, 50, 300, 150), (192, 384))  # a pixel becomes 1.92 pixels
    assert window.to_picture(Box(150, 75, 200, 100)) == Box(96, 48, 192, 96)
    assert window.to_image(Box(96, 48, 192, 96)) == Box(150, 75, 200, 100)
    assert window.to_picture(Point(200, 100)) == Point(192, 96)
    assert window.to_image(Box(0, 0, 384, 192)) == Box(100, 50, 300, 150)


@given(st.data())
def test_boxes_come_back_from_any_window(data):
    size = data.draw(sides), data.draw(sides)
    window = draw_window(data.draw, size)
    box = draw_box(data.draw, *window.edges)
    assert close(window.to_image(window.to_picture(box)), box, 1e-9)
    h, w = window.size
    assert window.to_image(Box(0, 0, w, h)).list() == list(window.edges)


@given(st.data())
def test_pixels_lie_where_the_numbers_say(data):
    """A rectangle of whole pixels, enlarged by a whole number, has exactly the moved box."""
    factor, (h, w) = data.draw(st.integers(1, 4)), (40, 60)
    x, y = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 20))
    window = Window((x, y, x + 30, y + 20), (20 * factor, 30 * factor))
    a, b = data.draw(st.integers(0, 25)), data.draw(st.integers(0, 15))
    inner = Box(x + a, y + b, x + a + 5, y + b + 5)
    shape = np.zeros((h, w), bool)
    shape[y + b : y + b + 5, x + a : x + a + 5] = True
    assert window.to_picture(Mask(shape)).box() == window.to_picture(inner)
    drawn = Image.fromarray(np.where(shape, 0, 255).astype(np.uint8))
    assert Mask(np.asarray(window.cut(drawn)) < 128).box() == window.to_picture(inner)


def test_a_box_that_sticks_out_of_a_window_is_clipped():
    window = Window((10, 10, 20, 20), (100, 100))
    assert window.to_picture(Box(5, 12, 15, 40)) == Box(0, 20, 50, 100)


@given(st.data())
def test_a_window_lies_in_the_image_and_holds_its_box(data):
    size = data.draw(sides), data.draw(sides)
    box = draw_box(data.draw, 0, 0, size[1], size[0])
    reach, side = data.draw(st.sampled_from((1.2, 3, 8))), data.draw(st.sampled_from((192, 384)))
    window = place_window(box, size, reach, side)
    x1, y1, x2, y2 = window.edges
    assert 0 <= x1 < x2 <= size[1] and 0 <= y1 < y2 <= size[0]
    assert close(box.clip(size), Box(*window.edges).clip(size), 1e9) and max(window.size) == side
    room = 0.5 + 1e-6  # a window has whole pixels
    assert x1 - room <= box.x1 and box.x2 <= x2 + room and y1 - room <= box.y1
    assert box.y2 <= y2 + room


def test_an_object_too_long_for_a_square_gets_a_rectangle():
    window = place_window(Box(10, 40, 310, 60), (100, 400), 1.2, 192)  # 300 of 400 pixels long
    assert window.edges == (0, 10, 340, 90) and window.size == (45, 192)


@pytest.mark.parametrize(
    ("box", "edges"),
    [
        (Box(100, 100, 120, 110), (30, 25, 190, 185)),  # 20 pixels, eight times
        (Box(100, 100, 104, 104), None),  # at least a third of a view
        (Box(100, 100, 160, 150), None),  # 480 pixels: the whole image
    ],
)
def test_the_window_of_a_second_look(box, edges):
    ferret = Scripted()
    side = measure_views(ferret.processor.config)[1]
    window = find_closer_window(ferret, [box], SIZE)
    if edges:
        assert window.edges == edges and window.size == (side, side)
    elif box.width > 30:
        assert window is None
    else:
        assert window.edges[2] - window.edges[0] == max(LOOK_REACH * 4, side // 3)


# A second look


def test_the_second_look_gives_the_box_in_the_image_frame():
    ferret = Watched("cup [260, 260, 320, 300]", "cup [450, 450, 550, 550]")
    answer = ferret.ask(GREY, "Where is the cup?", look_again=True)
    [box] = answer.groundings[0].boxes
    x1, y1, x2, y2 = answer.window
    first = Box(260.5, 260.5, 320.5, 300.5)
    edges = Box(*(v * 0.384 for v in first.list()))
    wanted = find_closer_window(ferret, [edges], SIZE)
    assert answer.window == wanted.edges and ferret.pictures[1].size == wanted.size[::-1]
    assert box.x1 == pytest.approx(x1 + 0.4505 * (x2 - x1))
    assert box.y2 == pytest.approx(y1 + 0.5505 * (y2 - y1))
    assert answer.image is not None and answer.size == SIZE and ferret.asked[0] == ferret.asked[1]
    assert answer.to_dict()["window"] == [x1, y1, x2, y2]


@pytest.mark.parametrize("second", ["nothing", "cup [0, 0, 60, 60]"])
def test_a_second_look_that_loses_the_object_changes_nothing(second):
    said = "cup [260, 260, 320, 300]"
    again = Watched(said, second).ask(GREY, "Where is the cup?", look_again=True)
    once = Watched(said).ask(GREY, "Where is the cup?")
    assert again.to_dict() == once.to_dict() and again.window is None


@pytest.mark.parametrize(
    "said",
    [
        "star [10, 10, 50, 50], cup [500, 500, 540, 540]",  # several objects
        "cup [100, 100, 900, 900]",  # as large as the image
        "a caption without boxes",
    ],
)
def test_nothing_is_asked_again_where_there_is_nothing_to_enlarge(said):
    ferret = Watched(said)
    ferret.ask(GREY, "What is there?", look_again=True)
    assert len(ferret.asked) == 1


def test_boxes_of_a_question_move_into_the_window():
    ferret, box = Watched("a cup", "a red cup"), Box(100, 100, 120, 110)
    answer = ferret.ask(GREY, "What is this? <region>", box, look_again=True)
    window = make_window((30, 25, 190, 185), ferret.pictures[1].width)
    assert answer.text == "a red cup" and answer.window == window.edges
    assert ferret.regions == [[box], [window.to_picture(box)]] and answer.regions == [box]


def test_points_and_masks_keep_the_first_answer():
    shape = np.zeros(SIZE, bool)
    shape[100:110, 100:120] = True
    for region in (Point(110, 105), Mask(shape)):
        ferret = Watched("a cup")
        answer = ferret.ask(GREY, "What is this? <region>", region, look_again=True)
        assert answer.window is None and len(ferret.asked) == 1


def test_only_small_objects_of_a_list_are_asked_again():
    texts = ("cup [100, 100, 900, 900]", "star [260, 260, 320, 300]", "star [450, 450, 550, 550]")
    ferret = Watched(*texts)
    answers = ferret.ask([GREY, GREY], ["Where is the cup?", "Find it."], look_again=True)
    assert [a.window is None for a in answers] == [True, False]
    assert ferret.asked == ["Where is the cup?", "Find it.", "Find it."]


def test_ground_looks_at_each_phrase_alone():
    both = "red star [480, 480, 520, 520], cup [600, 600, 640, 640]"
    ferret = Watched(both, "red star [450, 450, 550, 550]", "cup [0, 0, 10, 10]")
    found = ferret.ground(GREY, ["the red star", "cup"], look_again=True)
    assert ferret.asked[1:] == [
        "What is the location of the red star in the image?",
        "What is the location of the cup in the image?",
    ]
    once = Watched(both).ground(GREY, ["the red star", "cup"])
    assert [g.name for g in found] == ["red star", "cup"]
    assert found[0].boxes != once[0].boxes and found[1] == once[1]  # the second left its object


# Reading


def test_a_word_in_a_box_is_read_from_its_own_view():
    ferret = Watched("OWL")
    answer = ferret.read(GREY, Box(100, 100, 150, 120))
    side = measure_views(ferret.processor.config)[0]
    assert answer.text == "OWL" and answer.groundings == [
        Grounding("word", [Box(100, 100, 150, 120)])
    ]
    assert ferret.asked == ["What does the word say?"] and ferret.regions == [[]]
    assert ferret.pictures[0].size == (side, side) and answer.size == SIZE


def test_a_word_without_a_region_is_looked_for():
    ferret = Watched("word [200, 200, 400, 300]", "OWL")
    answer = ferret.read(GREY)
    assert ferret.asked == [
        "What is the location of the word in the image?",
        "What does the word say?",
    ]
    assert close(answer.groundings[0].boxes[0], Box(76.8, 76.8, 153.6, 115.2), 0.3)


def test_a_point_chooses_among_the_words():
    ferret = Watched("word [0, 0, 100, 50], word [500, 500, 700, 600]", "OWL")
    answer = ferret.read(GREY, Point(230, 210))
    assert ferret.asked[0] == "Find all words."
    assert close(answer.groundings[0].boxes[0], Box(192, 192, 268.8, 230.4), 0.3)


def test_a_picture_without_words_is_read_as_a_whole_and_says_so():
    ferret = Watched("nothing", "")
    answer = ferret.read(GREY)
    assert ferret.pictures[1].size == GREY.size and answer.groundings == []
    assert answer.warnings == ["No word was located: the whole image was read."]


def test_a_region_outside_of_the_image_is_named():
    with pytest.raises(InputError, match="expected a place within 384 x 384"):
        Scripted("OWL").read(GREY, Box(500, 500, 600, 600))


def test_a_griffon_model_refuses_to_read(griffon_model):
    with pytest.raises(InputError, match="^read: found a Griffon model, expected"):
        Ferret(*griffon_model).read(GREY)


# Slices


def test_suppression_by_hand():
    boxes = [Box(0, 0, 10, 10), Box(2, 0, 12, 10), Box(50, 0, 60, 10)]  # IoU 8/12 of the first two
    assert suppress_overlaps(boxes, [0.8, 0.9, 0.1]) == [1, 2]
    assert suppress_overlaps(boxes, [0.8, 0.9, 0.1], threshold=0.67) == [1, 0, 2]
    assert suppress_overlaps(boxes, [0.8, 0.9, 0.1], ["a", "b", "a"]) == [1, 0, 2]
    chain = [Box(0, 0, 10, 10), Box(3, 0, 13, 10), Box(6, 0, 16, 10)]  # 7/13, 4/16
    assert suppress_overlaps(chain, [0.9, 0.8, 0.7]) == [0, 2]  # a dropped box drops no other


@given(st.data())
def test_suppression_keeps_no_pair_and_drops_only_what_is_covered(data):
    n = data.draw(st.integers(1, 12))
    boxes = [draw_box(data.draw, 0, 0, 20, 20) for _ in range(n)]
    scores = data.draw(st.lists(shares, min_size=n, max_size=n))
    kept, overlap = suppress_overlaps(boxes, scores), box_iou(boxes, boxes)
    assert [scores[i] for i in kept] == sorted((scores[i] for i in kept), reverse=True)
    for i in range(n):
        rivals = [k for k in kept if k != i and overlap[i, k] > 0.5]
        assert not rivals if i in kept else any(scores[k] >= scores[i] for k in rivals)


@given(st.data())
def test_a_small_box_is_whole_in_some_slice(data):
    size, n = (data.draw(sides), data.draw(sides)), data.draw(st.integers(2, 4))
    windows = list_slices(size, n, 384)
    covered = np.zeros(size, bool)
    for x1, y1, x2, y2 in (w.edges for w in windows):
        covered[y1:y2, x1:x2] = True
    assert covered.all() and len(windows) == n * n
    box = draw_box(data.draw, 0, 0, size[1], size[0])
    if is_small(box, size, n):
        held = [
            w
            for w in windows
            if Box(*w.edges).clip(size) == Box(*w.edges) and not is_cut(w.to_picture(box), w, size)
        ]
        assert held


def test_half_objects_and_large_objects_of_windows_are_dropped():
    windows = list_slices(SIZE, 2, 384)
    inside, border = Box(100, 100, 150, 150), Box(340, 100, 384, 150)
    large = Box(10, 10, 300, 300)
    parts = [[("cup", b, 0.9) for b in (inside, border, large)], [], [], []]
    assert merge_slices([], parts, windows, SIZE, 2) == [("cup", windows[0].to_image(inside), 0.9)]
    # the right window: the same place is the border of the image
    assert len(merge_slices([], [[], parts[0][1:2], [], []], windows, SIZE, 2)) == 1


def test_detect_in_slices_asks_five_times_and_counts_once():
    star = Box(160, 160, 200, 200)  # in the middle: all four windows show it
    windows = list_slices(SIZE, 2, measure_views(Scripted().processor.config)[1])
    seen = [write("star", w.to_picture(star), w.size) for w in windows]
    ferret = Watched("cup [10, 10, 500, 300]", *seen)
    found = ferret.detect(GREY, slices=2)
    assert len(ferret.asked) == 5 and len(set(ferret.asked)) == 1
    assert sorted(g.name for g in found) == ["cup", "star"]
    [box] = next(g for g in found if g.name == "star").boxes
    assert close(box, star, 1)


def test_names_are_asked_in_every_window():
    star = Box(20, 20, 60, 60)
    windows = list_slices(SIZE, 2, measure_views(Scripted().processor.config)[1])
    first = write("star", windows[0].to_picture(star), windows[0].size)
    ferret = Watched("none", first, "none", "none", "none")
    found = ferret.detect(GREY, "star", slices=2)
    assert [g.name for g in found] == ["star"] and close(found[0].boxes[0], star, 1)
    empty = Watched(*["none"] * 5).detect(GREY, ["star"], slices=2)
    assert empty == [] and "holds no box" in empty.reason


@pytest.mark.parametrize("slices", [0, -1, 9, 1.5, "2", True and 10])
def test_slices_that_cannot_be(slices):
    with pytest.raises(InputError, match="^slices: found .*, expected a whole number from 1 to 8"):
        Scripted().detect(GREY, slices=slices)


# What asks for it


def list_imports(name, seen):
    "Modules of ours, and matplotlib, that are imported with a module, by its top-level statements."
    path = PACKAGE.parent / (name.replace(".", "/") + ".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else ():
        found = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".")[: -node.level] if node.level else []
            found = [".".join([*parts, node.module or ""]).strip(".")]
        for other in found:
            if other.partition(".")[0] in ("ferretlite", "matplotlib") and other not in seen:
                seen.add(other)
                list_imports(other, seen)
    return seen


def test_looking_closer_needs_no_scenes_and_no_matplotlib():
    found = list_imports("ferretlite.model.closer", set())
    assert "ferretlite.model.inference" in found and "ferretlite.regions.geometry" in found
    heavy = [m for m in found if m.startswith(("matplotlib", "ferretlite.scenes"))]
    assert heavy == ["ferretlite.scenes.questions"]
    assert "ferretlite.scenes.world" in list_imports("ferretlite.scenes.wide", set())


def test_evaluation_shows_both_looks(monkeypatch):
    places = [make_scene(i, 96, "test") for i in range(12)]
    places = [s for s in places if any(o.text for o in s.objects)][:2]
    ferret = Scripted()
    monkeypatch.setattr(ferret, "texts", ["star [100, 100, 130, 130]"] * 500)
    found = evaluate(ferret, places, progress=False)
    for key in ("word.acc", "rec.acc@0.5", "det.AP50", "det.mAP"):
        other = {"word": "one_look", "rec": "look_again", "det": "slices"}[key.split(".")[0]]
        assert found[key]["n"] == found[f"{key}.{other}"]["n"] == 2
    fast = evaluate(ferret, places, progress=False, closer=False)
    assert "word.acc.one_look" in fast and "word.acc" not in fast
    assert not [key for key in fast if key.endswith(("look_again", "slices"))]
    assert fast["rec.acc@0.5"] == found["rec.acc@0.5"]


@pytest.fixture
def asked(monkeypatch, tmp_path):
    "A picture, and what `ask` of the command line asked of a model."
    path, ferret = tmp_path / "p.png", Watched(*["cup [260, 260, 320, 300]"] * 9)
    GREY.save(path)
    monkeypatch.setattr(Ferret, "load", lambda *_: ferret)
    return str(path), ferret


@pytest.mark.parametrize(
    ("words", "looks"),
    [((), 2), (("--look-again",), 2), (("--fast",), 1), (("--slices", "2"), 5)],
)
def test_the_command_line_looks_as_often_as_it_is_told(asked, capsys, words, looks):
    path, ferret = asked
    assert cli.main(["ask", path, "Where is the cup?", *words]) == 0
    assert len(ferret.asked) == looks and "cup" in capsys.readouterr().out


def test_slices_and_regions_exclude_each_other(asked, capsys):
    path, _ = asked
    words = ["ask", path, "What is this?", "--region", "1,1,50,50", "--slices", "2"]
    assert cli.main(words) == 2
    assert "--slices: found a region" in capsys.readouterr().err
