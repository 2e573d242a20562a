"""Questions: constants, rules worked out by hand, and snapshots of every task on small scenes.

`pytest tests/test_questions.py --update-golden` writes the snapshots anew."""

import json
import math
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ferretlite.regions.geometry import Box, Mask, Point
from ferretlite.regions.grammar import Grounding, parse_groundings
from ferretlite.scenes import conversations, griffon_tasks, tasks
from ferretlite.scenes import descriptions as descriptions_module
from ferretlite.scenes import questions as turns_module
from ferretlite.scenes.conversations import keep_complete_kinds, make_conversation
from ferretlite.scenes.descriptions import (
    Query,
    Relation,
    count_rivals,
    draw_attribute_query,
    draw_relation_query,
    find_family,
    list_descriptions,
)
from ferretlite.scenes.griffon_tasks import GRIFFON_TASKS, ask_like, format_answer_boxes
from ferretlite.scenes.questions import (
    GRIFFON_WORDINGS,
    GROUNDING_SWITCH,
    WORDINGS,
    Conversation,
    Crop,
    Turn,
    draw_inner_point,
    draw_region,
    make_plural,
    name_region_form,
    write_prompt,
)
from ferretlite.scenes.tasks import (
    ABSENCE_TASKS,
    BOX_ORDERS,
    TASKS,
    ask_absent,
    ask_absent_phrase,
    draw_hard_absence,
    group_queries_by_count,
    list_raster_scan,
    write_grounded_caption,
)
from ferretlite.scenes.world import (
    COLORS,
    KINDS,
    PRACTICE_KINDS,
    Phrase,
    Scene,
    SceneObject,
    is_held_out,
    make_example,
    make_scene,
)
from ferretlite.scenes.written_tasks import WRITTEN_TASKS, draw_phrases, make_readable_grounding

GOLDEN = Path(__file__).parent / "golden" / "questions.json"


class Dice(random.Random):
    """Throws the given numbers first, and then what the seed gives."""

    def __init__(self, *numbers, seed=0):
        super().__init__(seed)
        self.numbers = list(numbers)

    def random(self):
        return self.numbers.pop(0) if self.numbers else super().random()

    def getrandbits(self, k):
        return super().getrandbits(k)


def thing(name, x1, y1, x2, y2, color=None, fill=None, text=None, mask=None):
    return SceneObject(name, Box(x1, y1, x2, y2), mask, color, fill, text)


def oval(x1, y1, x2, y2, size):
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return Mask(
        ((x - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1)) ** 2 < 0.25
    )


def shelf():
    """Seven objects with attributes, two of them with masks."""
    size = (90, 140)
    objects = [
        thing("star", 4, 6, 31, 29, "red", "filled", mask=oval(4, 6, 31, 29, size)),
        thing("star", 60, 3, 78, 25, "blue", "outlined"),
        thing("cup", 100, 8, 131, 33, "red", "outlined"),
        thing("dice 3", 10, 50, 37, 76, "green", "filled", mask=oval(10, 50, 37, 76, size)),
        thing("dice 5", 50, 45, 73, 69, "green", "outlined"),
        thing("word", 82, 40, 119, 51, "black", "filled", "CAB"),
        thing("moon", 90, 60, 112, 84, "blue", "filled"),
    ]
    return Scene(Image.new("RGB", (140, 90), "white"), size, objects, "shelf", None, 3)


def photo():
    """Five objects without attributes, from a data set that says what could be there."""
    boxes = dict(
        zip(
            "abcde",
            [
                (5, 10, 30, 44),
                (40, 20, 60, 28),
                (70, 15, 96, 60),
                (20, 60, 33, 90),
                (50, 50, 59, 95),
            ],
        )
    )
    names = dict(zip("abcde", ("dog", "cat", "dog", "wine glass", "person")))
    objects = [thing(names[k], *box) for k, box in boxes.items()]
    vocabulary = ["dog", "cat", "wine glass", "person", "cow", "bus", "tree"]
    return Scene(
        Image.new("RGB", (100, 120), "white"), (120, 100), objects, "photo", names=vocabulary
    )


def told():
    """A caption with three phrases, one that is not in the caption, and one of something absent."""
    caption = "A man walks two dogs past an old tree."
    places = [
        ("A man", [(5, 10, 20, 60)]),
        ("two dogs", [(50, 42, 70, 63), (30, 40, 45, 60)]),
        ("an old tree", [(75, 2, 99, 70)]),
    ]
    phrases = []
    for text, boxes in places:
        start = caption.index(text)
        phrases.append(Phrase(text, [Box(*b) for b in boxes], span=(start, start + len(text))))
    phrases.append(Phrase("the sky", [Box(0, 0, 100, 9)]))
    phrases.append(Phrase("a red car", []))
    return Scene(
        Image.new("RGB", (100, 80), "white"), (80, 100), [], "told", caption, phrases=phrases
    )


def counted():
    size = (64, 100)
    objects = [
        thing("star", 8 + 20 * k, 30 - 9 * (k % 2), 22 + 20 * k, 47, color, "filled")
        for k, color in enumerate(("red", "blue", "red"))
    ]
    objects += [thing("cup", 70, 5 + 24 * k, 90, 20 + 24 * k, "red", "outlined") for k in range(2)]
    return Scene(Image.new("RGB", (100, 64), "white"), size, objects, "counted", split="count")


SHELF, PHOTO = shelf(), photo()  # for tests that change nothing


# -- constants


def test_canonical_wordings_are_those_of_the_papers():
    first = {task: texts[0] for task, texts in WORDINGS.items()}
    assert first == {
        "caption": "Describe the image.",
        "dense_referring": "Please classify the objects in the following locations. {regions}.",
        "dense_detection": "Please localize visible objects in the image in a raster scan order.",
        "rec": "What is the location of {query} in the image?",
        "phrase": "What are the locations of {queries}?",
        "find_all": "Find all {things}.",
        "choose": "Is the object <region> of the image a {a} or a {b}?",
        "name": "What is in this region <region>?",
        "count": "How many {things} are there?",
        "word": "What does the word <region> say?",
        "read": "What does the word say?",
        "find_set": "Detect all objects of these kinds: {names}.",
        "find": "Where is {query}? Give every box.",
        "find_phrases": "Give the boxes of {listed}.",
        "tell": "Describe the object at {place}.",
        "search": "Find all objects like <crop>.",
    }
    assert GROUNDING_SWITCH == "Include the coordinates for each mentioned object."
    assert (
        set(GRIFFON_WORDINGS)
        == set(GRIFFON_TASKS)
        == {"find_set", "find", "find_phrases", "tell", "search"}
    )


def test_constants():
    assert (
        descriptions_module.EDGE_MARGIN,
        descriptions_module.NEARER_MARGIN,
        descriptions_module.LARGER_RATIO,
    ) == (
        0.05,
        0.1,
        1.5,
    )
    assert (tasks.MAX_DENSE_OBJECTS, griffon_tasks.MAX_QUESTION_NAMES) == (12, 80)
    assert turns_module.REGION_FORMS == ("point", "box", "mask")
    assert (turns_module.REGION, turns_module.CROP) == ("<region>", "<crop>")
    assert list(descriptions_module.RELATION_WORDS.items()) == [
        ("left", "left of"),
        ("right", "right of"),
        ("above", "above"),
        ("below", "below"),
        ("nearest", "nearest to"),
        ("largest", "largest"),
    ]
    assert conversations.COMPLETE_TASKS == (
        "phrase",
        "count",
        "find",
        "find_set",
        "find_phrases",
        "search",
    )
    assert conversations.ORDERED_TASKS == ("find", "find_set", "find_phrases", "search")
    assert conversations.WHOLE_IMAGE_TASKS == (
        "caption",
        "grounded_caption",
        "dense_referring",
        "dense_detection",
    )
    assert (
        list(TASKS)
        == "caption grounded_caption dense_referring dense_detection rec phrase choose name count"
        " word".split()
    )
    assert list(WRITTEN_TASKS) == [
        "rec",
        "name",
        "phrase",
        "grounded_caption",
        "find",
        "find_phrases",
        "tell",
    ]
    assert BOX_ORDERS["left"](Box(1, 2, 3, 4)) == (1, 2, 3, 4)
    assert BOX_ORDERS["raster"](Box(1, 2, 3, 4)) == (2, 1, 4, 3)
    assert "find_all" not in TASKS


def test_irregular_plurals():
    assert turns_module.IRREGULAR_PLURALS == {
        "mouse": "mice",
        "person": "people",
        "man": "men",
        "woman": "women",
        "child": "children",
        "knife": "knives",
        "dice": "dice",
        "sheep": "sheep",
        "fish": "fish",
        "scissors": "scissors",
        "skis": "skis",
        "broccoli": "broccoli",
        "snowman": "snowmen",
    }


def test_defaults_of_turns_conversations_and_crops():
    turn, talk = Turn("rec", "Where?", "There."), Conversation("a.png", (3, 4), [])
    assert (turn.regions, turn.meta, turn.crops) == ([], {}, [])
    assert (talk.id, talk.linked) == ("", False)
    assert Crop("a.png").box is None


def test_a_turn_has_one_crop_for_each_placeholder():
    Turn("search", "Like <crop> or <crop>?", "None", crops=[Crop(None)] * 2)
    for prompt, regions, crops in (
        ("<crop>?", 0, 0),
        ("<crop>?", 0, 2),
        ("?", 0, 1),
        ("<region> <region>", 1, 0),
        ("?", 1, 0),
        ("<region>", 0, 1),
    ):
        with pytest.raises(ValueError, match="expected one for each"):
            Turn("x", prompt, "", [Point(1, 1)] * regions, {}, [Crop(None)] * crops)


# -- words


def test_a_number_picks_the_wording_and_wraps():
    assert write_prompt("rec", random.Random(0), 1, query="it") == "Where is it?"
    assert write_prompt("rec", None, 7, query="it") == "Where is it?"  # six wordings: 7 is 1
    assert (
        write_prompt("rec", None, query="it")
        == write_prompt("rec", random.Random(0), 0, query="it")
        == "What is the location of it in the image?"
    )


def test_four_in_ten_are_canonical_and_three_in_ten_of_the_others_hastily_typed():
    canonical = "What is the location of it in the image?"
    assert write_prompt("rec", Dice(0.399), query="it") == canonical
    other = write_prompt("rec", Dice(0.4, 0.3), query="it")
    assert other != canonical and other[0].isupper() and other[-1] in ".?"
    typed = write_prompt("rec", Dice(0.4, 0.299), query="it")
    assert typed == other[0].lower() + other[1:-1]
    texts = [write_prompt("caption", random.Random(i)) for i in range(400)]
    assert 0.34 < texts.count("Describe the image.") / 400 < 0.46
    assert 0.13 < sum(t[0].islower() for t in texts) / 400 < 0.24  # .6 x .3
    assert {t for t in texts if t[0].isupper()} == set(WORDINGS["caption"])


def test_other_wordings_replace_those_of_their_task_alone():
    own = dict(rec=["Point at {query}!", "{query}, please."], count=["Number of {things}?"])
    assert write_prompt("rec", None, own, query="it") == "Point at it!"
    assert write_prompt("rec", Dice(0.5, 0.9), own, query="it") == "it, please."
    assert write_prompt("count", Dice(0.5, 0.9), own, things="cups") == "Number of cups?"
    assert write_prompt("caption", None, own) == "Describe the image."


def test_plurals_by_rule():
    known = dict(
        box="boxes",
        bus="buses",
        buzz="buzzes",
        church="churches",
        dish="dishes",
        city="cities",
        key="keys",
        toy="toys",
        cloth="cloths",
        y="ies",
    )
    known |= {
        "dice 3": "dice 3",
        "novel 12": "novel 12",
        "fly": "flies",
        "red star": "red stars",
        "wine glass": "wine glasses",
        "word CAB": "word CABs",
    }
    assert {k: make_plural(k) for k in known} == known
    assert make_plural("tall woman") == "tall women" and make_plural("guy") == "guys"


# -- regions


def test_a_point_is_the_pixel_nearest_to_the_middle_of_sixteen_of_96():
    size, given = (40, 60), []
    l_shape = np.zeros(size, bool)
    l_shape[10:30, 5:9] = l_shape[26:30, 5:45] = True  # an L: its middle (25, 20) is outside

    class First(random.Random):
        def sample(self, pixels, n):
            given.append((list(pixels), n))
            return pixels[60 : 60 + n]

    one = SceneObject("x", Box(5, 10, 45, 30), Mask(l_shape))
    found = draw_inner_point(one, size, First())
    [(pixels, n)] = given
    assert len(pixels) == 96 and n == 16
    assert all(l_shape[int(y), int(x)] for x, y in pixels)
    nearest = min(pixels[60:76], key=lambda p: math.hypot(p[0] - 25, p[1] - 20))
    assert (found.x, found.y) == pytest.approx(nearest)
    assert draw_inner_point(SceneObject("x", Box(5, 10, 45, 30)), size, First()) == Point(25, 20)


def test_regions_in_the_form_that_is_asked_for():
    size, box = (40, 60), Box(5, 10, 45, 30)
    mask = oval(5, 10, 45, 30, size)
    masked, bare = SceneObject("x", box, mask), SceneObject("x", box)
    rng = random.Random(0)
    assert (
        draw_region(masked, size, rng, "mask") == mask
        and draw_region(bare, size, rng, "mask") == box
    )
    assert draw_region(masked, size, rng, "box") == box and draw_region(
        bare, size, rng, "point"
    ) == Point(25, 20)
    forms = Counter(
        name_region_form(draw_region(masked, size, random.Random(i))) for i in range(300)
    )
    assert set(forms) == {"point", "box", "mask"} and min(forms.values()) > 75


# -- descriptions


def test_families():
    known = {
        "dice 3": "dice",
        "novel 12": "novel",
        "star": "star",
        "2001": "2001",
        "red 4 x": "red 4 x",
    }
    assert {k: find_family(k) for k in known} == known


def test_a_query_matches_what_agrees_with_all_it_gives():
    one = thing("dice 3", 0, 0, 1, 1, "red", "filled", "AB")
    right = [
        Query(),
        Query("dice"),
        Query("dice 3"),
        Query(color="red"),
        Query("dice", "red", "filled", "AB"),
        Query(fill="filled"),
        Query(text="AB"),
    ]
    wrong = [
        Query("dice 4"),
        Query("3"),
        Query("dic"),
        Query("dice", "blue"),
        Query(fill="outlined"),
        Query(text="A"),
        Query("dice", "red", "outlined"),
        Query(color="filled"),
    ]
    assert all(q.matches(one) for q in right) and not any(q.matches(one) for q in wrong)
    assert [q.n_attributes for q in right] == [0, 1, 1, 1, 4, 1, 1]
    assert [q.phrase for q in right] == [
        "object",
        "dice",
        "dice 3",
        "red object",
        "filled red dice AB",
        "filled object",
        "object AB",
    ]
    others = [thing("cup", 0, 0, 1, 1, "red"), one, thing("dice 5", 0, 0, 1, 1, "red")]
    assert Query("dice").select(others) == [1, 2] and Query(color="blue").select(others) == []


def test_descriptions_of_dice_words_and_things_without_attributes():
    dice = [q.phrase for q in list_descriptions(thing("dice 3", 0, 0, 1, 1, "red", "filled"))]
    assert dice == [
        "dice 3",
        "dice",
        "red dice 3",
        "red dice",
        "filled dice 3",
        "filled dice",
        "filled red dice 3",
        "filled red dice",
    ]
    word = [q.phrase for q in list_descriptions(thing("word", 0, 0, 1, 1, "red", "filled", "CAB"))]
    assert word == ["word", "red word", "word CAB"]
    assert [q.phrase for q in list_descriptions(thing("cat", 0, 0, 1, 1))] == ["cat"]


def test_rivals_are_counted_by_kind_and_by_colour():
    objects = [
        thing(n, 0, 0, 1, 1, c)
        for n, c in (
            ("star", "red"),
            ("star", "blue"),
            ("star", "red"),
            ("cup", "red"),
            ("cup", None),
            ("sun", "red"),
            ("fox", None),
        )
    ]
    assert count_rivals(objects, 0) == (2, 3)
    assert count_rivals(objects, 1) == (2, 0)
    assert count_rivals(objects, 3) == (1, 3)
    assert count_rivals(objects, 4) == (1, 0)  # two things without a colour do not share it


def test_an_attribute_query_takes_the_most_contested_object_and_mostly_the_shortest_words():
    scene = shelf()
    # star 0 (same kind: 1; same colour: cup) and star 1 (moon) have both rivals, all others one at
    # most
    found = [draw_attribute_query(scene, random.Random(i)) for i in range(200)]
    assert {i for _, i in found} == {0, 1}
    assert 0.35 < sum(i for _, i in found) / 200 < 0.65
    lengths = Counter(q.n_attributes for q, _ in found)
    # unique: "red star", "filled star" (2 given) and "filled red star" (3): .3 x 1/3 of the draws
    # give three
    assert set(lengths) == {2, 3} and 0.04 < lengths[3] / 200 < 0.18
    twins = [thing("cup", k, 0, k + 1, 1, "red", "filled") for k in range(2)]
    assert draw_attribute_query(Scene(None, (9, 9), twins), random.Random(0)) is None
    single = Scene(None, (9, 9), twins[:1])
    assert [draw_attribute_query(single, Dice(0.5, p))[0].n_attributes for p in (0.0, 0.699)] == [
        1,
        1,
    ]


# -- relations


def at(x, y, side=10, name="star"):
    return thing(name, x - side / 2, y - side / 2, x + side / 2, y + side / 2)


SIZE = (100, 300)  # the shorter side is 100: a margin of 5, and of 10 for the nearest
ANCHOR = thing("cup", 140, 45, 160, 57)  # centre (150, 51), half sides 10 and 6


@pytest.mark.parametrize(
    "relation, clear, close, past",
    [  # 150 - 10 - 5 = 135 and so on
        ("left", (135, 51), (135.1, 51), (150, 51)),
        ("right", (165, 51), (164.9, 51), (150, 51)),
        ("above", (150, 40), (150, 40.1), (150, 51)),
        ("below", (150, 62), (150, 61.9), (150, 51)),
    ],
)
def test_a_direction_holds_from_a_twentieth_of_the_shorter_side_past_the_edge(
    relation, clear, close, past
):
    query = Relation(Query("star"), relation, Query("cup"))
    assert query.select([ANCHOR, at(*clear)], SIZE) == [1]
    assert query.select([at(*clear), ANCHOR], SIZE) == [0]
    assert query.select([ANCHOR, at(*clear), at(*close)], SIZE) == []  # too close to call
    assert query.select([ANCHOR, at(*past), at(*clear)], SIZE) == [
        2
    ]  # the anchor's own centre is not past it
    away = {"left": (290, 51), "right": (10, 51), "above": (150, 90), "below": (150, 10)}[relation]
    assert query.select([ANCHOR, at(*away), at(*clear)], SIZE) == [2]
    assert query.select([ANCHOR, at(*away)], SIZE) == []


def test_several_may_lie_in_a_direction_and_the_anchor_itself_never():
    both = [at(20, 51), at(60, 80), ANCHOR, at(250, 51, name="cup")]
    assert (
        Relation(Query("star"), "left", Query("cup")).select(both, SIZE) == []
    )  # two cups: no anchor
    assert Relation(Query("star"), "left", Query("cup")).select(both[:3], SIZE) == [0, 1]
    assert Relation(Query(), "nearest", Query("cup")).select(both[:3], SIZE) == [1]
    assert Relation(Query("star"), "left", Query("sun")).select(both, SIZE) == []


def test_the_nearest_leads_by_a_tenth_of_the_shorter_side():
    query = Relation(Query("star"), "nearest", Query("cup"))
    assert query.select([ANCHOR, at(180, 51), at(150, 91)], SIZE) == [1]  # 30 and 40 away
    assert query.select([ANCHOR, at(180, 51), at(150, 90.9)], SIZE) == []
    assert query.select([at(150, 91), ANCHOR, at(180, 51)], SIZE) == [2]
    assert query.select([ANCHOR, at(180, 51)], SIZE) == [1]
    assert query.select([ANCHOR], SIZE) == []
    # from centre to centre: a wide star whose edge is near is not near
    assert query.select([ANCHOR, thing("star", 165, 50, 255, 52), at(150, 95)], SIZE) == [2]


def test_the_largest_has_one_and_a_half_times_the_next_area():
    query = Relation(Query("star"), "largest")
    low, high = thing("star", 0, 0, 10, 10), thing("star", 50, 0, 60, 15.01)
    assert query.select([low, high], SIZE) == [1] and query.select([high, low], SIZE) == [0]
    assert query.select([low, thing("star", 50, 0, 60, 14.99)], SIZE) == []
    assert query.select([low, high, thing("cup", 0, 0, 90, 90)], SIZE) == [1]
    assert query.select([low], SIZE) == [0] and query.select([], SIZE) == []
    assert query.select([low, thing("star", 5, 5, 5, 9)], SIZE) == [
        0
    ]  # an area of nothing has a logarithm too


def test_relations_in_words():
    assert Relation(Query("star", "red"), "left", Query("cup")).phrase == "red star left of the cup"
    assert (
        Relation(Query("star"), "nearest", Query("cup", "blue")).phrase
        == "star nearest to the blue cup"
    )
    assert Relation(Query("star"), "largest").phrase == "largest star"


def test_a_relation_needs_two_things_and_is_tried_twelve_times():
    assert draw_relation_query(Scene(None, (9, 9), [at(3, 3, 2)]), random.Random(0)) is None
    twins = Scene(None, (90, 90), [at(30, 30), at(30.5, 30)])  # nothing can be said of these
    rng = random.Random(0)
    drawn = []
    rng.choice = lambda listed: drawn.append(1) or listed[0]
    assert draw_relation_query(twins, rng) is None
    # a query takes two draws, an anchor two more: (5 x 4 + 2) for each of twelve tries
    assert len(drawn) == 12 * 22


# -- answers


def test_dense_answers_run_by_their_bins_and_hold_the_twelve_largest():
    # in bins of 2 pixels, tops 10 and 11.5 are the same: then the left edge decides
    size = (2000, 2000)
    objects = [
        thing("a", 900, 10, 950, 60),
        thing("b", 100, 11.5, 180, 70),
        thing("c", 50, 900, 60, 990),
    ]
    assert list_raster_scan(objects, size) == [1, 0, 2]
    assert list_raster_scan(objects, size, 2) == [1, 0]
    assert list_raster_scan(objects, size, 1) == [1]  # 80 x 58.5 is the largest
    many = [at(20 * k + 10, 10, 4 + k / 9) for k in range(14)]
    assert list_raster_scan(many, (20, 300)) == sorted(
        range(2, 14), key=lambda i: many[i].box.y1 // 0.02
    )
    assert len(list_raster_scan(many, (20, 300), None)) == 14
    wide = thing("a", 0, 0, 30, 2), thing("b", 0, 0, 8, 9)  # 60 and 72 square pixels
    assert list_raster_scan(list(wide), (50, 50), 1) == [1]


def test_ties_of_a_dense_answer_go_by_bottom_then_right():
    objects = [thing("a", 5, 5, 40, 60), thing("b", 5, 5, 30, 80), thing("c", 5, 5, 30, 60)]
    assert list_raster_scan(objects, (100, 100)) == [2, 0, 1]


def test_numbered_answers_in_words():
    scene = photo()
    detection = TASKS["dense_detection"](scene, random.Random(0), 0)
    # 100 wide and 120 high: 5 / 100 is bin 50, 10 / 120 bin 83
    assert (
        detection.answer
        == "The objects are: 1: dog [50, 83, 300, 366], 2: dog [700, 125, 960, 500], 3: cat [400,"
        " 166, 600, 233], 4: person [500, 416, 590, 791], 5: wine glass [200, 500, 330, 750]"
    )
    assert detection.meta["objects"] == [0, 2, 1, 4, 3]
    referring = TASKS["dense_referring"](scene, random.Random(1), 0)
    places = ", ".join(f"{n}: <region>" for n in range(1, 6))
    assert referring.prompt == f"Please classify the objects in the following locations. {places}."
    names = [scene.objects[i].name for i in referring.meta["objects"]]
    assert referring.answer == "Here are the categories: " + ", ".join(
        f"{n}: {name}" for n, name in enumerate(names, 1)
    )
    assert sorted(referring.meta["objects"]) == [0, 1, 2, 3, 4] and referring.meta["names"] == names
    assert [r.box().center() for r in referring.regions] == [
        scene.objects[i].box.center() for i in referring.meta["objects"]
    ]
    assert referring.meta["forms"] == [name_region_form(r) for r in referring.regions]


def test_find_all_lists_its_boxes_in_raster_order():
    """Left to right would be another order: the paper's answers run from top to bottom."""
    objects = [
        thing("star", 10, 60, 20, 70),
        thing("star", 80, 5, 90, 15),
        thing("star", 40, 30, 50, 40),
        thing("star", 20, 30, 33, 40),
    ]
    scene = Scene(None, (100, 100), objects)
    turns = [TASKS["phrase"](scene, random.Random(i), 0) for i in range(40)]
    single = [t for t in turns if t]
    assert {t.prompt for t in single} == {"Find all stars."}
    assert {t.answer for t in single} == {
        "stars [800, 50, 900, 150] [200, 300, 330, 400] [400, 300, 500, 400] [100, 600, 200, 700]"
    }


def test_count_queries_by_their_answers():
    scene = Scene(
        None,
        (90, 90),
        [
            thing("dice 3", 0, 0, 1, 1, "red"),
            thing("dice 5", 2, 0, 3, 1, "blue"),
            thing("cup", 4, 0, 5, 1, "red"),
        ],
    )
    found = {
        n: sorted(q.phrase for q in queries) for n, queries in group_queries_by_count(scene).items()
    }
    assert found == {
        3: ["object"],
        2: ["dice", "red object"],
        1: ["blue dice 5", "blue object", "cup", "dice 3", "dice 5", "red cup", "red dice 3"],
    }


def test_counting_points_from_left_to_right_and_ends_with_the_number():
    objects = [
        thing("star", 60, 5, 70, 15),
        thing("star", 5, 60, 15, 70),
        thing("star", 30, 30, 40, 40),
    ]
    turn = TASKS["count"](Scene(None, (100, 100), objects, split="count"), random.Random(0), 0)
    assert turn.prompt == "How many stars are there?"
    assert (
        turn.answer
        == "1: star [50, 600, 150, 700], 2: star [300, 300, 400, 400], 3: star [600, 50, 700, 150];"
        " 3 in all"
    )
    assert (turn.meta["n"], turn.meta["query"]) == (3, "star")
    drawn = [TASKS["count"](SHELF, random.Random(i), 0) for i in range(300)]
    none = [t for t in drawn if t.meta["n"] == 0]
    assert 0.05 < len(none) / 300 < 0.16 and {t.answer for t in none} == {"0 in all"}  # one in ten
    asked = [TASKS["count"](PHOTO, random.Random(i), 0) for i in range(60)]
    assert (
        min(t.meta["n"] for t in asked) == 1
    )  # nothing absent is asked for where nothing has a colour


def test_the_kind_that_a_count_scene_is_about_is_asked_for():
    assert {TASKS["count"](counted(), random.Random(i), 0).meta["query"] for i in range(9)} == {
        "star"
    }


def test_a_caption_is_the_scenes_own_or_made_of_its_objects():
    assert (
        TASKS["caption"](told(), random.Random(0), 0).answer
        == "A man walks two dogs past an old tree."
    )
    assert (
        TASKS["caption"](PHOTO, random.Random(0), 0).answer
        == "A dog, a dog, a cat, a person and a wine glass."
    )
    assert TASKS["caption"](Scene(None, (9, 9), []), random.Random(0), 0) is None


def test_a_grounded_caption_names_each_with_its_box():
    red, cup = (
        thing("star", 10, 60, 20, 80, "red", "filled"),
        thing("cup", 30, 10, 90, 50, "blue", "outlined"),
    )
    assert write_grounded_caption([red], (100, 200)) == "A filled red star [50, 600, 100, 800]."
    both = "An outlined blue cup [150, 100, 450, 500] and a filled red star [50, 600, 100, 800]."
    assert write_grounded_caption([red, cup], (100, 200)) == both
    turn = TASKS["grounded_caption"](Scene(None, (100, 200), [red, cup]), random.Random(0), 0)
    assert (turn.prompt, turn.answer) == ("Describe the image.\n" + GROUNDING_SWITCH, both)
    assert [g.name for g in turn.meta["groundings"]] == ["outlined blue cup", "filled red star"]


def test_a_third_of_the_rec_questions_use_a_relation():
    turns = [TASKS["rec"](SHELF, random.Random(i), 0) for i in range(80)]
    assert 0.2 < sum(t.meta["relation"] is not None for t in turns) / 80 < 0.45
    turn = TASKS["rec"](SHELF, Dice(0.34), 0)
    assert (
        turn.meta["relation"] is None
        and turn.prompt == f"What is the location of the {turn.meta['query']} in the image?"
    )
    related = TASKS["rec"](SHELF, Dice(0.33), 0)
    assert related.meta["relation"] in descriptions_module.RELATION_WORDS
    assert related.meta["rivals"] == count_rivals(SHELF.objects, related.meta["object"])


def test_words_alone_are_read_without_a_region_one_time_in_three():
    turns = [TASKS["word"](SHELF, random.Random(i), 0) for i in range(200)]
    assert {t.answer for t in turns} == {"CAB"}
    alone = [t for t in turns if not t.regions]
    assert 0.24 < len(alone) / 200 < 0.43
    assert {(t.prompt, t.meta["form"]) for t in alone} == {("What does the word say?", None)}
    two = Scene(
        None,
        (50, 90),
        [thing("word", 5, 5, 30, 12, text="AXE"), thing("word", 40, 5, 70, 12, text="OWL")],
    )
    assert all(TASKS["word"](two, random.Random(i)).regions for i in range(30))


def test_choices_differ_in_kind_or_colour_or_otherwise():
    turns = [TASKS["choose"](SHELF, random.Random(i), 0) for i in range(200)]
    shares = Counter(t.meta["differs"] for t in turns)
    assert (
        0.16 < shares["kind"] / 200 < 0.34
        and 0.16 < shares["color"] / 200 < 0.34
        and 0.4 < shares["other"] / 200 < 0.6
    )
    for t in turns:
        one = shelf().objects[t.meta["object"]]
        [wrong] = set(t.meta["options"]) - {t.answer}
        assert one.name in t.answer and t.meta["box"] == one.box
        assert (one.name in wrong) == (t.meta["differs"] == "color"), (wrong, t.answer)
        if t.meta["differs"] == "kind" and one.color in t.answer:
            assert one.color in wrong
        if t.meta["differs"] in ("color", "other") and any(c in t.answer for c in COLORS):
            assert one.color not in wrong.split()
        assert (one.fill in t.answer.split()) == (one.fill in wrong.split())
    filled = sum(any(f in t.answer.split() for f in ("filled", "outlined")) for t in turns)
    assert 0.4 < filled / 200 < 0.6
    assert (
        TASKS["choose"](Scene(None, (9, 9), [thing("cat", 0, 0, 2, 2)]), random.Random(0)) is None
    )


# -- Griffon's tasks


def test_boxes_are_answered_in_order_with_their_names():
    found = [("cat", Box(60, 5, 70, 15)), ("dog", Box(5, 60, 15, 70)), ("", Box(30, 30, 40, 40))]
    text, listed = format_answer_boxes(found[:2], (100, 100))
    assert text == "dog-[0.050,0.600,0.150,0.700]&cat-[0.600,0.050,0.700,0.150]"
    assert [g.name for g in listed] == ["dog", "cat"]
    assert (
        format_answer_boxes(found[:2], (100, 100), "raster")[0]
        == "cat-[0.600,0.050,0.700,0.150]&dog-[0.050,0.600,0.150,0.700]"
    )
    assert format_answer_boxes(found[2:], (100, 100)) == (
        "[0.300,0.300,0.400,0.400]",
        [Grounding("", [Box(30, 30, 40, 40)])],
    )
    assert format_answer_boxes([], (100, 100)) == ("None", [])


def test_a_box_that_two_objects_share_by_half_is_not_asked_about():
    low, high = thing("cat", 0, 0, 10, 10), thing("dog", 0, 0, 10, 20)  # overlap 100 of 200
    assert GRIFFON_TASKS["tell"](Scene(None, (50, 50), [low, high]), random.Random(0)) is None
    high = thing("dog", 0, 0, 10, 20.5)
    assert GRIFFON_TASKS["tell"](Scene(None, (50, 50), [low, high]), random.Random(0)).answer in (
        "cat",
        "dog",
    )
    third = thing("sun", 20, 10, 40, 45)
    turn = GRIFFON_TASKS["tell"](
        Scene(None, (50, 100), [low, thing("dog", 0, 0, 10, 11), third]), random.Random(0), 0
    )
    assert (turn.prompt, turn.answer, turn.meta["object"]) == (
        "Describe the object at [0.200,0.200,0.400,0.900].",
        "sun",
        2,
    )


def test_a_set_names_some_of_the_present_or_the_whole_vocabulary():
    sizes = Counter()
    for i in range(120):
        turn = GRIFFON_TASKS["find_set"](PHOTO, random.Random(i), 0)
        asked, present = turn.meta["names"], {"dog", "cat", "wine glass", "person"}
        assert turn.prompt == f"Detect all objects of these kinds: {', '.join(asked)}."
        sizes[len(asked)] += 1
        if len(asked) == 7:
            assert set(asked) == set(PHOTO.names)
        else:
            assert 1 <= len(set(asked) - present) <= 3
    assert 0.38 < sizes[7] / 120 < 0.62  # half of the questions name all that the data set knows
    empty = sum(
        not set(GRIFFON_TASKS["find_set"](SHELF, random.Random(i)).meta["names"])
        & {o.name for o in SHELF.objects}
        for i in range(250)
    )
    assert (
        1 <= empty < 18
    )  # one in ten may ask for nothing that is there, and does so one time in five
    assert "word" not in {
        n
        for i in range(50)
        for n in GRIFFON_TASKS["find_set"](SHELF, random.Random(i)).meta["names"]
    }
    either = GRIFFON_TASKS["find_set"](PHOTO, random.Random(1), 2)
    *first, last = either.meta["names"]
    assert either.prompt == f"Locate every {', '.join(first)} or {last} in the picture."
    full = photo()
    full.names = ["dog", "cat", "wine glass", "person"]
    assert (
        GRIFFON_TASKS["find_set"](full, random.Random(0)) is None
    )  # nothing is known to be absent


def test_a_vocabulary_is_asked_for_in_eighty_names():
    scene = photo()
    scene.names = [f"thing {i}" for i in range(200)] + scene.names
    lengths = {
        len(GRIFFON_TASKS["find_set"](scene, random.Random(i)).meta["names"]) for i in range(30)
    }
    assert max(lengths) == 80


def test_a_quarter_of_what_is_looked_for_is_absent_and_a_third_is_one_bare_description():
    asked = [GRIFFON_TASKS["find"](SHELF, Dice(p), 0) for p in (0.249, 0.25, 0.599)]
    assert asked[0].answer == "None"
    assert all(t.answer != "None" for t in asked[1:])
    turns = [GRIFFON_TASKS["find"](SHELF, random.Random(i), 0) for i in range(300)]
    assert 0.18 < sum(t.answer == "None" for t in turns) / 300 < 0.33
    related = [
        t
        for t in turns
        if any(
            f" {w} " in f" {t.meta['query']} "
            for w in ("of", "above", "below", "nearest", "largest")
        )
    ]
    assert 0.07 < len(related) / 300 < 0.21  # .4 x 1/3
    assert {t.prompt for t in related} == {
        f"Where is the {t.meta['query']}? Give every box." for t in related
    }
    plain = next(t for t in turns if t.meta["query"] == "outlined red cup")
    assert plain.prompt == "Where is an outlined red cup? Give every box."
    assert plain.answer == "outlined red cup-[0.714,0.089,0.936,0.367]"  # 100 / 140, 8 / 90


def test_an_absent_description_is_a_kind_or_a_known_kind_in_another_colour():
    turns = [
        t
        for i in range(200)
        if (t := GRIFFON_TASKS["find"](SHELF, random.Random(i), 0)).answer == "None"
    ]
    present = {o.name for o in SHELF.objects}
    colored = [t for t in turns if t.meta["query"].split()[0] in COLORS]
    assert 0.35 < len(colored) / len(turns) < 0.65
    assert all(t.meta["query"].split(" ", 1)[1] in present - {"word"} for t in colored)
    assert all(t.meta["query"] in set(KINDS) - present for t in turns if t not in colored)
    absent = {
        t.meta["query"]
        for i in range(60)
        if (t := GRIFFON_TASKS["find"](PHOTO, random.Random(i), 0)).answer == "None"
    }
    assert absent == {"cow", "bus", "tree"}
    full = photo()
    full.names = ["dog", "cat", "wine glass", "person"]
    assert GRIFFON_TASKS["find"](full, Dice(0.1)) is None
    # a family of what is there is not absent
    dice = Scene(None, (9, 9), [thing("dice 3", 0, 0, 2, 2)], names=["dice", "dice 3", "dice 4"])
    assert {GRIFFON_TASKS["find"](dice, Dice(0.1, seed=i)).meta["query"] for i in range(9)} == {
        "dice 4"
    }


def test_phrases_are_found_with_all_their_boxes():
    objects = [
        thing("cat", 60, 5, 70, 15),
        thing("dog", 5, 60, 15, 70),
        thing("cat", 30, 30, 40, 40),
    ]
    scene = Scene(None, (100, 100), objects)
    turns = [
        t for i in range(30) if (t := GRIFFON_TASKS["find_phrases"](scene, random.Random(i), 0))
    ]
    answers = {t.answer for t in turns}
    assert answers == {
        "dog-[0.050,0.600,0.150,0.700]&cats-[0.300,0.300,0.400,0.400]&cats-[0.600,0.050,0.700,0.150]"
    }
    assert {t.prompt for t in turns} == {
        "Give the boxes of the cats and the dog.",
        "Give the boxes of the dog and the cats.",
    }


def test_two_in_seven_examples_from_elsewhere_show_what_is_absent():
    turns = [GRIFFON_TASKS["search"](SHELF, random.Random(i), 0) for i in range(200)]
    other = [t for t in turns if t.meta["source"] == "other"]
    assert 0.4 < len(other) / 200 < 0.6
    assert all(t.meta["n"] > 0 for t in turns if t.meta["source"] == "same")
    assert 0.19 < sum(t.meta["n"] == 0 for t in other) / len(other) < 0.39
    # of what is shown two stars are as often asked for as two other kinds
    kinds = Counter(t.meta["kind"] for t in turns if t.meta["source"] == "same")
    assert kinds["star"] > 1.3 * kinds["cup"] and set(kinds) == {
        "star",
        "cup",
        "dice 3",
        "dice 5",
        "moon",
    }
    practice = make_scene(0, (80, 120), "practice")
    shown = {
        GRIFFON_TASKS["search"](practice, random.Random(i), source="other").meta["kind"]
        for i in range(40)
    }
    assert shown - {o.name for o in practice.objects} <= set(PRACTICE_KINDS)


def test_an_example_is_cut_from_the_image_drawn_or_given():
    scene = shelf()
    same = ask_like(scene, "star", "same", random.Random(0))
    assert same.prompt == "Find all objects like <crop>." and same.crops[0].image is scene.image
    assert same.crops[0].box in [scene.objects[0].box, scene.objects[1].box]
    assert same.answer == "[0.029,0.067,0.221,0.322]&[0.429,0.033,0.557,0.278]"
    drawn = ask_like(scene, "star", "other", random.Random(7)).crops[0]
    number = random.Random(7).randrange(10**6)
    assert drawn.box is None and drawn.image.tobytes() == make_example("star", number).tobytes()
    given = ask_like(
        scene, "star", "other", random.Random(7), examples=lambda kind, rng: Crop(kind)
    ).crops[0]
    assert given == Crop("star")
    assert ask_like(PHOTO, "dog", "other", random.Random(0)) is None  # no glyph is called so
    assert ask_like(scene, "novel 3", "other", random.Random(0)).answer == "None"
    untold = Scene(None, (90, 140), scene.objects)
    assert ask_like(untold, "star", "other", random.Random(0)).crops == [Crop(None)]
    raster = ask_like(PHOTO, "dog", "same", random.Random(0), order="raster")
    assert raster.answer == "[0.050,0.083,0.300,0.367]&[0.700,0.125,0.960,0.500]"


def test_a_scene_without_its_picture_is_drawn_again_for_an_example():
    scene = make_scene(4, (80, 120), "test")
    picture = scene.image.tobytes()
    scene.image = None
    found = ask_like(scene, scene.objects[0].name, "same", random.Random(0))
    assert found.crops[0].image.tobytes() == picture


# -- phrases in somebody's words


def test_phrases_are_cleaned_and_left_out_where_they_cannot_be_read_back():
    box = Box(10, 20, 30, 40)
    assert make_readable_grounding("The old man, [left]", [box], (50, 50)) == Grounding(
        "old man left", [box]
    )
    assert (
        make_readable_grounding("the", [box], (50, 50)) is None
        or make_readable_grounding("the", [box], (50, 50)).name == "the"
    )
    assert make_readable_grounding("[]", [box], (50, 50)) is None
    assert make_readable_grounding("cat", [], (50, 50)) is None


def test_told_phrases_have_boxes_and_come_once():
    scene = told()
    assert {p.text for p, _ in draw_phrases(scene, random.Random(0))} == {
        "A man",
        "two dogs",
        "an old tree",
        "the sky",
    }
    assert {p.text for p, _ in draw_phrases(scene, random.Random(0), single=True)} == {
        "A man",
        "an old tree",
        "the sky",
    }
    assert {g.name for _, g in draw_phrases(scene, random.Random(0))} == {
        "man",
        "two dogs",
        "old tree",
        "sky",
    }
    scene.phrases.append(Phrase("A man", [Box(1, 1, 5, 5)]))
    assert len(draw_phrases(scene, random.Random(0))) == 4
    orders = {tuple(p.text for p, _ in draw_phrases(told(), random.Random(i))) for i in range(20)}
    assert len(orders) > 5


def single(text="the old man"):
    return Scene(None, (80, 100), [], "one", phrases=[Phrase(text, [Box(10, 20, 30, 60)])])


def test_one_phrase_in_each_written_task():
    rng = random.Random(0)
    rec = WRITTEN_TASKS["rec"](single(), rng, 0)
    assert (rec.prompt, rec.answer) == (
        "What is the location of the old man in the image?",
        "old man [100, 250, 300, 750]",
    )
    assert rec.meta == dict(
        box=Box(10, 20, 30, 60), query="the old man", relation=None, rivals=(0, 0)
    )
    name = WRITTEN_TASKS["name"](single(), rng, 0)
    assert (name.prompt, name.answer) == ("What is in this region <region>?", "the old man")
    assert name.meta["box"] == Box(10, 20, 30, 60) and name.regions[0].box().center() == Point(
        20, 40
    )
    phrase = WRITTEN_TASKS["phrase"](single(), rng, 0)
    assert (phrase.prompt, phrase.answer) == (
        "What are the locations of the old man?",
        "old man [100, 250, 300, 750]",
    )
    find = WRITTEN_TASKS["find"](single(), rng, 0)
    assert (find.prompt, find.answer) == (
        "Where is the old man? Give every box.",
        "old man-[0.100,0.250,0.300,0.750]",
    )
    tell = WRITTEN_TASKS["tell"](single(), rng, 0)
    assert (tell.prompt, tell.answer) == (
        "Describe the object at [0.100,0.250,0.300,0.750].",
        "the old man",
    )
    assert WRITTEN_TASKS["find_phrases"](single(), rng, 0) is None
    assert WRITTEN_TASKS["grounded_caption"](single(), rng, 0) is None
    for task in ("rec", "name", "phrase", "find", "tell"):
        assert WRITTEN_TASKS[task](Scene(None, (9, 9), []), rng, 0) is None


def test_absent_phrases_are_answered_by_none():
    scene = Scene(None, (9, 9), [], phrases=[Phrase("a red car", [])])
    turn = WRITTEN_TASKS["find"](scene, random.Random(0), 0)
    assert (turn.prompt, turn.answer, turn.meta["groundings"]) == (
        "Where is a red car? Give every box.",
        "None",
        [],
    )


def test_a_written_caption_has_each_box_behind_its_words():
    turn = WRITTEN_TASKS["grounded_caption"](told(), random.Random(0), 0)
    assert (
        turn.answer
        == "A man [50, 125, 200, 750] walks two dogs [500, 525, 700, 787] [300, 500, 450, 750] past"
        " an old tree [750, 25, 990, 875]."
    )
    assert turn.prompt == "Describe the image.\n" + GROUNDING_SWITCH
    assert [g.name for g in turn.meta["groundings"]] == ["A man", "two dogs", "an old tree"]


def test_numbers_of_phrases_that_are_asked_for_at_once():
    scene = Scene(
        None,
        (80, 100),
        [],
        phrases=[
            Phrase(w, [Box(9 * k, 5, 9 * k + 7, 50)])
            for k, w in enumerate(("cat", "dog", "sun", "cup", "fox", "owl"))
        ],
    )
    numbers = Counter(
        len(WRITTEN_TASKS["phrase"](scene, random.Random(i)).meta["groundings"]) for i in range(200)
    )
    assert {k: round(v / 40) for k, v in numbers.items()} == {1: 1, 2: 2, 3: 1, 4: 1}
    numbers = Counter(
        len(WRITTEN_TASKS["find_phrases"](scene, random.Random(i)).meta["groundings"])
        for i in range(150)
    )
    assert {k: round(v / 50) for k, v in numbers.items()} == {2: 1, 3: 1, 4: 1}
    three = next(
        t
        for i in range(50)
        if len((t := WRITTEN_TASKS["phrase"](scene, random.Random(i), 1)).meta["groundings"]) == 3
    )
    a, b, c = (g.name for g in three.meta["groundings"])
    assert three.prompt == f"Where are {a}, {b} and {c}?"
    three = next(
        t
        for i in range(50)
        if len((t := WRITTEN_TASKS["find_phrases"](scene, random.Random(i), 1)).meta["groundings"])
        == 3
    )
    assert sorted(g.boxes[0].x1 for g in three.meta["groundings"]) == [
        g.boxes[0].x1 for g in three.meta["groundings"]
    ]
    assert three.prompt.count(", ") == three.prompt.count(" and ") == 1


# -- conversations


def test_kinds_that_are_listed_in_part_are_left_out():
    scene = photo()
    assert keep_complete_kinds(scene) is scene
    scene.partial = ("dog", "cow")
    assert [o.name for o in keep_complete_kinds(scene).objects] == [
        "cat",
        "wine glass",
        "person",
    ] and len(scene.objects) == 5
    asked = {
        t.meta["query"]
        for i in range(30)
        for t in make_conversation(scene, dict(count=1), random.Random(i), 2, 0).turns
    }
    assert "dog" not in asked and "cat" in asked
    named = {
        t.answer
        for i in range(30)
        for t in make_conversation(scene, dict(name=1), random.Random(i), 2, 0).turns
    }
    assert "dog" in named


def test_a_conversation_has_four_turns_and_its_scenes_id():
    talk = make_conversation(shelf(), dict(rec=1, name=1, choose=1), random.Random(0))
    assert len(talk.turns) == 4 and (talk.id, talk.size, talk.linked) == ("shelf", (90, 140), False)
    assert talk.image.size == (140, 90)
    assert len(make_conversation(shelf(), dict(name=1), random.Random(0), 1).turns) == 1


def test_boxes_in_a_conversation_follow_its_order():
    answers = [
        make_conversation(photo(), dict(find_set=1), random.Random(1), 1, 0, order)
        .turns[0]
        .meta["groundings"]
        for order in ("left", "raster")
    ]
    lefts, tops = [g.boxes[0].x1 for g in answers[0]], [g.boxes[0].y1 for g in answers[1]]
    assert (
        len(lefts) > 2
        and lefts == sorted(lefts)
        and tops == sorted(tops)
        and answers[0] != answers[1]
    )


def test_weights_are_shares():
    drawn = Counter(
        t.task
        for i in range(150)
        for t in make_conversation(
            shelf(), dict(name=3, choose=1, rec=0, count=-1), random.Random(i), 2
        ).turns
    )
    assert set(drawn) == {"name", "choose"} and 0.66 < drawn["name"] / drawn.total() < 0.84


def test_a_task_is_given_up_after_five_misses(monkeypatch):
    calls = []
    monkeypatch.setitem(TASKS, "word", lambda scene, rng, wording=None: calls.append(scene.id))
    assert (
        make_conversation(photo(), dict(word=1), random.Random(0)).turns == []
        and calls == ["photo"] * 5
    )


def test_scenes_for_practice_are_searched_alone():
    practice = make_scene(1, (60, 90), "practice")
    talk = make_conversation(practice, dict(rec=1, name=1, find=1, search=1), random.Random(0), 3)
    assert {t.task for t in talk.turns} == {"search"}


def test_written_tasks_take_the_place_of_others_where_a_scene_has_phrases():
    talk = make_conversation(told(), dict(rec=1, name=1, find=1, count=1), random.Random(0), 6)
    assert {t.task for t in talk.turns} == {"rec", "name", "find"}
    with pytest.raises(ValueError, match="task: found"):
        make_conversation(told(), dict(rec=1, find_all=1), random.Random(0))


# -- snapshots


def plain(value):
    """Values as JSON has them; numbers to a thousandth."""
    if isinstance(value, (Box, Point)):
        return [round(v, 3) for v in vars(value).values()]
    if isinstance(value, Mask):
        return value.area
    if isinstance(value, Grounding):
        return [value.name, plain(value.boxes)]
    if isinstance(value, Crop):
        return [list(value.image.size), plain(value.box)]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def snapshot():
    found = {}
    scenes = dict(shelf=shelf(), photo=photo(), counted=counted(), train=make_scene(6, (96, 144)))
    for name, scene in scenes.items():
        if name == "train":
            for o in scene.objects:
                o.mask = None
                o.box = Box(*(4 * round(v / 4) for v in o.box.list()))
        for task, ask in (TASKS | GRIFFON_TASKS).items():
            turns = [ask(scene, random.Random(f"{task}-{k}")) for k in range(4)]
            found[f"{name}, {task}"] = [
                turn
                and [
                    turn.prompt,
                    turn.answer,
                    plain(turn.regions),
                    plain(turn.crops),
                    plain(turn.meta),
                ]
                for turn in turns
            ]
    for task, ask in WRITTEN_TASKS.items():
        turns = [ask(told(), random.Random(f"{task}-{k}")) for k in range(4)]
        found[f"told, {task}"] = [
            turn and [turn.prompt, turn.answer, plain(turn.regions), plain(turn.meta)]
            for turn in turns
        ]
    for name, scene in (("shelf", shelf()), ("photo", photo()), ("train", scenes["train"])):
        drawn = [draw_relation_query(scene, random.Random(k)) for k in range(12)]
        found[f"{name}, relations"] = [d and [d[0].phrase, d[1]] for d in drawn]
        drawn = [draw_attribute_query(scene, random.Random(k)) for k in range(12)]
        found[f"{name}, attributes"] = [d and [d[0].phrase, d[1]] for d in drawn]
    mixture = {task: 1 + k for k, task in enumerate(TASKS | GRIFFON_TASKS)}
    found["conversations"] = [
        [[t.prompt, t.answer] for t in make_conversation(shelf(), mixture, random.Random(k)).turns]
        for k in range(4)
    ]
    found["wordings"] = {task: list(texts) for task, texts in WORDINGS.items()}
    return found


def test_questions_are_what_they_always_were(request):
    """Shipped weights and recorded scores belong to these questions, word for word."""
    if request.config.getoption("--update-golden"):
        lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in snapshot().items()]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    wanted, found = json.loads(GOLDEN.read_text()), json.loads(json.dumps(snapshot()))
    assert list(found) == list(wanted)
    for key in wanted:
        assert found[key] == wanted[key], key


# What is not there


def make_toy_objects():
    "A filled red star, an outlined blue cup, and a word that nobody asks for by kind."
    return [
        SceneObject("star", Box(0, 0, 20, 20), None, "red", "filled"),
        SceneObject("cup", Box(40, 40, 60, 60), None, "blue", "outlined"),
        SceneObject("word", Box(70, 70, 90, 90), None, "green", "filled", "CAT"),
    ]


def test_absent_descriptions_are_close_to_what_is_there_and_never_match():
    scene = Scene(None, (100, 100), make_toy_objects())
    kept = Counter()
    for seed in range(600):
        query = draw_hard_absence(scene, random.Random(seed))
        assert not query.select(scene.objects)
        assert query.color is None or not is_held_out(query.name, query.color)
        pairs = {("red", "star"), ("blue", "cup")}
        kept["color of a real object, other kind"] += query.color in (
            "red",
            "blue",
        ) and query.name not in ("star", "cup")
        kept["kind of a real object, other color"] += query.name in ("star", "cup") and (
            query.color is not None and (query.color, query.name) not in pairs
        )
        kept["kind alone"] += query.color is None
        kept["other fill"] += (query.color, query.name) in pairs
    shares = {k: v / 600 for k, v in kept.items()}
    assert 0.35 < shares["color of a real object, other kind"] < 0.6
    assert 0.25 < shares["kind of a real object, other color"] < 0.5
    assert 0.04 < shares["kind alone"] < 0.17 and 0.01 < shares["other fill"] < 0.15


def test_half_of_the_questions_ask_for_what_is_there_in_the_same_forms():
    scene = Scene(None, (100, 100), make_toy_objects())
    turns = [ask_absent(scene, random.Random(s)) for s in range(600)]
    there = [t for t in turns if t.meta["present"]]
    gone = [t for t in turns if not t.meta["present"]]
    assert 250 < len(there) < 350
    assert all(t.answer == f"no {t.meta['query']}" and not t.meta["groundings"] for t in gone)
    for t in there:
        (found,) = parse_groundings(t.answer, scene.size)
        assert found.boxes and t.meta["groundings"][0].boxes
    for word in ("filled", "outlined"):  # a word of the question tells little
        share = [np.mean([word in t.meta["query"] for t in part]) for part in (there, gone)]
        assert abs(share[0] - share[1]) < 0.2
    plain = [np.mean([" " not in t.meta["query"] for t in part]) for part in (there, gone)]
    assert abs(plain[0] - plain[1]) < 0.08


def test_one_absent_phrase_stands_in_a_list_in_its_place():
    scene = Scene(None, (100, 100), make_toy_objects())
    for seed in range(60):
        turn = ask_absent_phrase(scene, random.Random(seed), 0)
        asked = turn.prompt.removeprefix("What are the locations of the ").rstrip("?")
        asked = asked.split(", the ")
        said = [part.strip() for part in re.split(r"\]?, (?=[a-z])", turn.answer)]
        assert len(said) == len(asked)
        for name, part in zip(asked, said):
            assert part == f"no {name}" if name == turn.meta["query"] else part.startswith(name)
        found = parse_groundings(turn.answer, scene.size)
        assert [g.name for g in found] == [g.name for g in turn.meta["groundings"]]


def test_scenes_without_colours_pose_no_question_about_absence():
    scene = Scene(None, (100, 100), [SceneObject("dog", Box(0, 0, 20, 20))])
    assert ask_absent(scene, random.Random(0)) is ask_absent_phrase(scene, random.Random(0)) is None
    assert make_conversation(scene, dict(absent=1.0), random.Random(0)).turns == []


def test_the_shipped_models_mixtures_do_not_know_absence():
    assert list(ABSENCE_TASKS) == ["absent", "absent_phrase"]
    assert not set(ABSENCE_TASKS) & {*TASKS, *GRIFFON_TASKS}
    scene = Scene(None, (100, 100), make_toy_objects())
    asked = make_conversation(scene, dict.fromkeys(ABSENCE_TASKS, 1.0), random.Random(0), 6)
    assert {t.task for t in asked.turns} == set(ABSENCE_TASKS)
