"""Inference by hand: probabilities, batches, questions in words, drawings, and where models are
found.
"""

import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont
from small_model import Scripted, save_small, small_ferret

from ferretlite.model import inference
from ferretlite.model.answers import Answer
from ferretlite.model.inference import (
    Ferret,
    cut_at_end_token,
    format_grounding_question,
    gather_probabilities,
    merge_groundings,
    split_caption,
    spread_crops,
    spread_questions,
)
from ferretlite.model.loading import find_model, list_shipped_models
from ferretlite.model.phrasing import format_where_question
from ferretlite.regions import drawing
from ferretlite.regions.drawing import draw_answer, find_picture_format, save_image
from ferretlite.regions.geometry import Box, Mask, Point
from ferretlite.regions.grammar import Grounding


def defaults(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def test_defaults_are_the_documented_ones():
    unlimited = dict(max_new_tokens=256, temperature=0, batch=32, phrases=None)
    asking = dict(regions=None, crops=None, look_again=False, streamer=None)
    sure = dict(verify=False, min_score=None)
    assert defaults(Ferret.ask) == asking | unlimited | sure
    assert defaults(Ferret.load) == dict(name="tiny", device=None, dtype=None)
    long = dict(max_new_tokens=512)
    assert (
        defaults(Ferret.ground) == dict(phrase=None, caption=None, look_again=False) | long | sure
    )
    assert defaults(Ferret.describe) == dict(region=None, max_new_tokens=None)
    assert defaults(Ferret.detect) == dict(names=None, slices=1) | long | sure
    assert defaults(Ferret.count) == dict(name=None, like=None) | long
    assert defaults(Ferret.find) == long and defaults(Ferret.refer) == dict(max_new_tokens=256)
    assert defaults(draw_answer) == dict(groundings=(), regions=(), colors=None)
    assert inference.PHRASES_PER_QUESTION == 4
    empty = Answer("a")
    assert (empty.groundings, empty.raw_text, empty.finish_reason) == ([], "", "stop")
    assert (empty.warnings, empty.image, empty.regions, empty.prompt) == ([], None, [], "")
    assert drawing.PALETTE == (
        "#e6194b",
        "#1a8f3c",
        "#2a5bd7",
        "#d9730d",
        "#8e24aa",
        "#00838f",
        "#ad1457",
        "#6d4c41",
    )


def test_each_tokens_probability_is_that_of_its_own_step_and_row():
    first = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]).log()
    second = (
        torch.tensor([[0.6, 0.25, 0.15], [0.8, 0.15, 0.05]]).log() + 3
    )  # a shift of all says nothing
    third = torch.tensor([[0.9, 0.04, 0.06], [0.35, 0.4, 0.25]]).log()
    tokens = torch.tensor([[1, 0, 2], [2, 1, 0]])
    found = gather_probabilities((first, second, third), tokens)
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.6, 0.06], [0.7, 0.15, 0.35]]))
    assert gather_probabilities((first.bfloat16(),), tokens[:, :1]).dtype == torch.float32


def test_answers_end_before_their_end_token():
    assert cut_at_end_token([5, 6, 2, 7, 2], 2) == ([5, 6], "stop")
    assert cut_at_end_token([2, 7], 2) == ([], "stop")
    assert cut_at_end_token([5, 6], 2) == ([5, 6], "length")


def test_one_image_prompt_or_region_is_spread_over_the_questions():
    one, two, box, point = (
        Image.new("RGB", (4, 4)),
        Image.new("RGB", (6, 6)),
        Box(0, 0, 1, 1),
        Point(1, 1),
    )
    images, prompts, regions = spread_questions([one, two, one], "a", [box, None, (point, box)])
    assert [i.size for i in images] == [(4, 4), (6, 6), (4, 4)] and images[0] is images[2]
    assert prompts == ["a"] * 3 and regions == [[box], [], [point, box]]
    images, prompts, regions = spread_questions(one, ("a", "b"), None)
    assert images[0] is images[1] and prompts == ["a", "b"] and regions == [[], []]
    for held, expected in ((box, [box]), ([point, box], [point, box]), (None, [])):
        _, prompts, regions = spread_questions(one, "a", held)
        assert prompts == ["a"] and regions == [expected]
    images, prompts, _ = spread_questions([one, two], ["a", "b"], None)
    assert [i.size for i in images] == [(4, 4), (6, 6)] and prompts == ["a", "b"]
    for wrong in (([one], ["a", "b"], None), (one, ["a", "b"], [box])):
        with pytest.raises(ValueError, match="expected as many of each"):
            spread_questions(*wrong)


def test_crops_are_given_for_each_question_or_for_the_one():
    assert spread_crops(None, 3, False) == [[], [], []]
    assert spread_crops("a", 2, False) == [["a"], ["a"]] and spread_crops(["a", "b"], 1, False) == [
        ["a", "b"]
    ]
    assert spread_crops(["a", None, ("b", "c")], 3, True) == [["a"], [], ["b", "c"]]
    assert spread_crops(None, 2, True) == [[], []]
    with pytest.raises(ValueError, match="found 2 questions and 1 entries"):
        spread_crops(["a"], 2, True)


def test_answers_become_plain_json():
    groundings = [
        Grounding("star", [Box(1.234567, 2, 3.005, 4.999)], [0.123456], [0.6543219]),
        Grounding("cup", [Box(0, 1, 2, 3)]),
    ]
    mask = Mask(np.eye(2, 3, dtype=bool))
    answer = Answer(
        "a",
        groundings,
        "raw",
        "length",
        ["w"],
        Image.new("RGB", (30, 20)),
        [Point(1, 2), Box(3, 4, 5, 6), mask],
        "why?",
    )
    assert answer.size == (20, 30)
    assert answer.to_dict() == dict(
        text="a",
        groundings=[
            dict(name="star", boxes=[[1.23, 2.0, 3.0, 5.0]], scores=[0.1235], raw_scores=[0.6543]),
            dict(name="cup", boxes=[[0.0, 1.0, 2.0, 3.0]], scores=None, raw_scores=None),
        ],
        raw_text="raw",
        finish_reason="length",
        warnings=["w"],
        regions=[dict(point=[1, 2]), dict(box=[3, 4, 5, 6]), dict(mask=mask.rle)],
        size=[20, 30],
        prompt="why?",
    )


class Recorded(Scripted):
    "Writes the given texts and remembers everything that a batch was given; in either style."

    def __init__(self, *texts, style="ferret"):
        super().__init__(*texts)
        self.processor.config.style = style
        self.calls = []

    def _generate(self, images, prompts, regions, crops, max_new_tokens, temperature):
        self.calls.append((images, prompts, regions, crops, max_new_tokens, temperature))
        self.asked += prompts
        words = self.processor.tokenizer
        ids = [words(" " + self.texts.pop(0), add_special_tokens=False).input_ids for _ in prompts]
        length = max(map(len, ids)) + 1
        rows = [
            row + [words.eos_token_id] + [words.pad_token_id] * (length - 1 - len(row))
            for row in ids
        ]
        return torch.tensor(rows), torch.full((len(rows), length), 0.9)


def test_batches_keep_each_question_with_its_image_regions_and_crops():
    images = [Image.new("RGB", (10 + i, 10)) for i in range(5)]
    regions = [Point(i, 1) for i in range(5)]
    crops = ["a", ["b", "c"], None, "d", None]
    ferret = Recorded(*"vwxyz")
    answers = ferret.ask(
        images, list("pqrst"), regions, crops, max_new_tokens=7, temperature=0.5, batch=2
    )
    asked = [(p, [i.width for i in held], r, c) for held, p, r, c, *_ in ferret.calls]
    assert asked == [
        (["p", "q"], [10, 11], [[regions[0]], [regions[1]]], [["a"], ["b", "c"]]),
        (["r", "s"], [12, 13], [[regions[2]], [regions[3]]], [[], ["d"]]),
        (["t"], [14], [[regions[4]]], [[]]),
    ]
    assert [call[4:] for call in ferret.calls] == [(7, 0.5)] * 3
    assert [(a.text, a.prompt, a.image.width, a.regions) for a in answers] == [
        (text, prompt, 10 + i, [regions[i]])
        for i, (text, prompt) in enumerate(zip("vwxyz", "pqrst"))
    ]


def test_one_question_gets_one_answer_and_a_list_a_list():
    image = Image.new("RGB", (9, 9))
    assert Recorded("a").ask(image, "q").text == "a"
    assert [a.text for a in Recorded("a").ask(image, ["q"])] == ["a"]
    assert [a.text for a in Recorded("a").ask([image], "q")] == ["a"]
    recorded = Recorded("a")
    recorded.ask(image, "q", crops=["x", "y"])
    assert recorded.calls[0][3] == [["x", "y"]] and recorded.calls[0][4:] == (256, 0)


@pytest.mark.parametrize(
    "wrong, told",
    [
        (dict(max_new_tokens=0), "max_new_tokens: found 0, expected a whole number from 1"),
        (dict(batch=0), "batch: found 0, expected a whole number from 1"),
        (dict(temperature=-0.1), "temperature: found -0.1, expected 0, or from 0.01"),
    ],
)
def test_limits_of_asking(wrong, told):
    least = dict(max_new_tokens=1, batch=1, temperature=0)
    assert Recorded("a").ask(Image.new("RGB", (9, 9)), "q", **least).text == "a"
    with pytest.raises(ValueError, match=told):
        Recorded("a").ask(Image.new("RGB", (9, 9)), "q", **{**least, **wrong})


def test_tokens_and_probabilities_come_from_the_model_as_it_was_asked(monkeypatch):
    """Its words are what it chose behind the prompt, each with the probability of its step; the
    end counts for nothing.
    """
    ferret, asked = small_ferret(), []
    words = ferret.processor.tokenizer
    ids = words(" star [1, 2, 3, 4]", add_special_tokens=False).input_ids + [words.eos_token_id]
    chances = [0.9] * len(ids)
    opening = words.convert_ids_to_tokens(ids).index("Ġ[")
    chances[0], chances[opening + 1], chances[-1] = 0.5, 0.6, 0.1

    def generate(input_ids, **options):
        asked.append(options)
        steps = []
        for token, p in zip(ids, chances):
            step = torch.full((1, len(words)), (1 - p) / (len(words) - 1))
            step[0, token] = p
            steps.append(step.log())
        return SimpleNamespace(
            sequences=torch.cat([input_ids, torch.tensor([ids])], 1), logits=tuple(steps)
        )

    monkeypatch.setattr(ferret.model, "generate", generate)
    monkeypatch.setattr(inference, "is_plain_llama", lambda *_: False)
    image = Image.new("RGB", (50, 40))
    answer = ferret.ask(image, "Where?", max_new_tokens=77)
    assert answer.raw_text == "star [1, 2, 3, 4]" and answer.finish_reason == "stop"
    name, box = 0.5 * 0.9 ** (opening - 1), 0.6 * 0.9 ** (len(ids) - opening - 2)
    assert answer.groundings[0].raw_scores[0] == pytest.approx(math.sqrt(name * box), rel=1e-4)
    ferret.ask(image, "Where?", temperature=0.7)
    plain, drawn = asked
    assert (plain["max_new_tokens"], plain["do_sample"], plain.get("temperature")) == (
        77,
        False,
        None,
    )
    assert plain["output_logits"] and plain["return_dict_in_generate"]
    special = (words.pad_token_id, words.eos_token_id, words.bos_token_id)
    assert (plain["pad_token_id"], plain["eos_token_id"], plain["bos_token_id"]) == special
    assert (drawn["max_new_tokens"], drawn["do_sample"], drawn["temperature"], drawn["top_k"]) == (
        256,
        True,
        0.7,
        0,
    )


def test_an_answer_cut_off_keeps_its_warnings_in_order():
    ferret = Scripted("star [9, 2, 3, 4], cup [5, 5, 6, 6]", ends=False)
    answer = ferret.ask(Image.new("RGB", (99, 99)), "Find all.")
    assert answer.finish_reason == "length" and len(answer.warnings) == 2
    assert "dropped" in answer.warnings[0] and "cut off" in answer.warnings[1]


# Questions in words


def test_phrases_of_a_caption():
    assert split_caption("An apple, the red star, and a cup and A star.") == [
        "apple",
        "red star",
        "cup",
        "star",
    ]
    assert split_caption("  a hand and a hand, an anchor ") == ["hand", "anchor"]
    assert split_caption("the sand, a band") == ["sand", "band"]
    assert split_caption(" . ") == []


def test_questions_for_places_in_each_styles_words():
    assert (
        format_where_question(["a red star"])
        == "What is the location of the red star in the image?"
    )
    assert (
        format_where_question(["An egg", "the cup", "sun"])
        == "What are the locations of the egg, the cup, the sun?"
    )
    ask = format_grounding_question
    assert ask(["the sun"], "ferret") == "What is the location of the sun in the image?"
    assert ask(["the outlined sun"], "griffon") == "Where is an outlined sun? Give every box."
    assert ask(["red sun"], "griffon") == "Where is a red sun? Give every box."
    for relation in ("left of", "right of", "above", "below", "nearest to"):
        phrase = f"star {relation} the cup"
        assert ask([f"a {phrase}"], "griffon") == f"Where is the {phrase}? Give every box."
    assert ask(["largest cup"], "griffon") == "Where is the largest cup? Give every box."
    assert ask(["abovement"], "griffon") == "Where is an abovement? Give every box."
    assert (
        ask(["a cup", "sun", "the egg"], "griffon")
        == "Give the boxes of the cup, the sun and the egg."
    )


def test_two_phrases_are_asked_for_as_several():
    assert format_where_question(["a cup", "sun"]) == "What are the locations of the cup, the sun?"
    assert format_grounding_question(["a cup", "sun"], "ferret") == format_where_question(
        ["a cup", "sun"]
    )
    told = format_grounding_question(["a cup", "sun"], "griffon")
    assert told == "Give the boxes of the cup and the sun."
    assert split_caption("A cup and the sun.") == ["cup", "sun"]
    assert split_caption("A cup, the sun") == ["cup", "sun"] and split_caption("cup") == ["cup"]


def test_an_empty_list_is_not_the_same_as_nothing():
    image = Image.new("RGB", (4, 4))
    with pytest.raises(ValueError, match="0 lists of regions"):
        spread_questions([image, image], "a", [])
    with pytest.raises(ValueError, match="0 entries of crops"):
        spread_crops([], 2, True)
    assert spread_crops([], 1, False) == [[]] and spread_questions(image, "a", [])[2] == [[]]
    ferret = Recorded()
    assert ferret.detect(image, []) == [] and ferret.asked == []
    assert ferret.ask(image, []) == [] and ferret.ask([], "a") == []


def box_at(*edges):
    return "[" + ",".join(f"{e:.3f}" for e in edges) + "]"


IMAGE = Image.new("RGB", (200, 100))


@pytest.mark.parametrize(
    "verb, asked, length",
    [
        (lambda f: f.ground(IMAGE, "sun"), "What is the location of the sun in the image?", 512),
        (lambda f: f.refer(IMAGE, Point(3, 4)), "What is in this region <region>?", 256),
        (
            lambda f: f.describe(IMAGE),
            "Describe the image.\nInclude the coordinates for each mentioned object.",
            512,
        ),
        (lambda f: f.describe(IMAGE, Box(1, 2, 3, 4)), "What is in this region <region>?", 256),
        (
            lambda f: f.detect(IMAGE),
            "Please localize visible objects in the image in a raster scan order.",
            512,
        ),
        (lambda f: f.detect(IMAGE, "cup"), "Find all cups.", 512),
        (lambda f: f.count(IMAGE, "cup"), "How many cups are there?", 512),
    ],
)
def test_verbs_of_ferrets_style(verb, asked, length):
    ferret = Recorded("2 cups")
    verb(ferret)
    assert ferret.asked == [asked] and ferret.calls[0][4:] == (length, 0)
    if "<region>" in asked:
        assert ferret.calls[0][2] in ([[Point(3, 4)]], [[Box(1, 2, 3, 4)]])


def test_verbs_of_griffons_style():
    one, two, three = box_at(0.1, 0.2, 0.3, 0.4), box_at(0.5, 0.1, 0.9, 1), box_at(0, 0, 0.1, 0.2)
    text = f"star-{one}&cup-{two}&star-{three}"
    ferret = Recorded(text, style="griffon")
    found = ferret.detect(IMAGE, ["star", "cup"])
    assert (
        ferret.asked == ["Detect all objects of these kinds: star, cup."]
        and ferret.calls[0][4] == 512
    )
    assert [g.name for g in found] == ["star", "cup"] and [len(g.boxes) for g in found] == [2, 1]
    np.testing.assert_allclose(found[0].boxes[1].list(), [0, 0, 20, 20], atol=0.2)
    with pytest.raises(ValueError, match="expected names"):
        ferret.detect(IMAGE)
    ferret = Recorded(f"{one}&{two}", f"{one}&{two}&{three}", style="griffon")
    assert ferret.count(IMAGE, like=Box(1, 2, 30, 40)) == 2
    assert ferret.count(IMAGE, "star") == 3
    assert ferret.asked == ["Find all objects like <crop>.", "Where is a star? Give every box."]
    [[crop]] = ferret.calls[0][3]
    assert crop.box == Box(1, 2, 30, 40) and crop.image.size == (200, 100)
    ferret = Recorded(f"{one}&{two}", style="griffon")
    [found] = ferret.find(IMAGE, "other.png")
    assert ferret.calls[0][3] == [["other.png"]] and ferret.calls[0][4] == 512
    assert found.name == "" and len(found.boxes) == len(found.raw_scores) == 2
    ferret = Recorded("a red cup", "what", style="griffon")
    assert ferret.refer(IMAGE, Box(20, 25, 100, 75)) == "a red cup"
    assert ferret.asked == ["Describe the object at [0.100,0.250,0.500,0.750]."] and ferret.calls[
        0
    ][2] == [[]]
    ferret.describe(IMAGE)
    assert ferret.asked[-1] == "Describe the image."


def test_counting_needs_a_name_or_a_picture():
    for wrong in (dict(), dict(name="a", like=Box(0, 0, 1, 1))):
        with pytest.raises(ValueError, match="exactly one"):
            Recorded("1").count(IMAGE, **wrong)
    assert Recorded("0 stars").count(IMAGE, "star") == 0


def test_phrases_are_asked_four_at_a_time_in_their_order():
    ferret = Recorded("p [1, 2, 3, 4], q [2, 3, 4, 5]", "t [3, 4, 5, 6]")
    found = ferret.ground(IMAGE, list("pqrst"))
    assert [g.name for g in found] == ["p", "q", "t"] and len(ferret.asked) == 2
    assert len(ferret.calls) == 1  # in one batch
    assert "the p, the q, the r, the s?" in ferret.asked[0] and "the t " in ferret.asked[1]
    ferret = Recorded("p [1, 2, 3, 4]")
    ferret.ground(IMAGE, list("pqrs"))
    assert len(ferret.asked) == 1
    for wrong in (["p", " "], [""]):
        with pytest.raises(ValueError, match="to look for"):
            ferret.ground(IMAGE, wrong)


def test_what_was_detected_keeps_the_asked_name_and_every_score():
    ferret = Recorded(
        "red stars [1, 2, 3, 4] [5, 6, 7, 8], blue star [9, 10, 11, 12]", "none", "cup [1, 1, 2, 2]"
    )
    found = ferret.detect(Image.new("RGB", (1000, 1000)), ("star", "sun", "cup"))
    assert ferret.asked == ["Find all stars.", "Find all suns.", "Find all cups."]
    counts = [(g.name, len(g.boxes), len(g.raw_scores)) for g in found]
    assert counts == [("star", 3, 3), ("cup", 1, 1)]
    assert [int(b.x1) for b in found[0].boxes] == [1, 5, 9]


def test_boxes_of_a_name_are_gathered():
    a, b, c, d = (Box(i, i, i + 1, i + 2) for i in range(4))
    held = [
        Grounding("x", [a], [0.1]),
        Grounding("y", [b], None),
        Grounding("x", [c, d], [0.3, 0.4]),
    ]
    found = merge_groundings(held)
    assert [(g.name, g.boxes, g.scores) for g in found] == [
        ("x", [a, c, d], [0.1, 0.3, 0.4]),
        ("y", [b], None),
    ]
    mixed = merge_groundings([Grounding("x", [a], [0.1]), Grounding("x", [b], None)])
    assert mixed[0].scores is None and merge_groundings([]) == []
    held = [Grounding(n, [box]) for n, box in (("cup", a), ("cup 2", b), ("", c), ("red cup", d))]
    assert [(g.name, g.boxes) for g in merge_groundings(held)] == [
        ("cup", [a]),
        ("cup 2", [b]),
        ("", [c]),
        ("red cup", [d]),
    ]


# Pictures


def rgb(colour):
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


@pytest.mark.parametrize(
    "size, scale",
    [
        ((200, 100), 4),
        ((100, 200), 4),
        ((720, 10), 1),
        ((480, 300), 2),
        ((481, 300), 1),
        ((3000, 9), 1),
    ],
)
def test_small_pictures_are_enlarged_by_a_whole_factor(size, scale):
    assert draw_answer(Image.new("RGB", size)).size == (size[0] * scale, size[1] * scale)


def test_boxes_are_drawn_where_they_are_in_the_colour_of_their_grounding():
    picture = Image.new("RGB", (360, 180), "white")  # twice as large when drawn
    boxes = [Box(20 + 30 * i, 60, 40 + 30 * i, 150) for i in range(10)]
    found = draw_answer(picture, [Grounding("", [b]) for b in boxes])
    for i, _box in enumerate(boxes):
        color = rgb(drawing.PALETTE[i % 8])
        left, right, top, below = 40 + 60 * i, 79 + 60 * i, 120, 299
        for x, y in (
            (left, 200),
            (left + 2, 200),
            (right, 200),
            (left + 9, top),
            (left + 9, below),
            (left + 9, below - 2),
        ):
            assert found.getpixel((x, y)) == color
        for x, y in (
            (left - 1, 200),
            (left + 3, 200),
            (right + 1, 200),
            (left + 9, top - 1),
            (left + 9, below + 1),
        ):
            assert found.getpixel((x, y)) == (255, 255, 255)
    chosen = draw_answer(
        picture,
        [Grounding("", boxes[:1]), Grounding("", boxes[1:2])],
        colors=["#010203", "#040506"],
    )
    assert [chosen.getpixel((x, 200)) for x in (40, 100)] == [(1, 2, 3), (4, 5, 6)]
    assert picture.getpixel((20, 100)) == (255, 255, 255) and picture.size == (360, 180)


def test_labels_tell_name_and_score_above_the_box_or_inside(monkeypatch):
    written = []
    monkeypatch.setattr(
        drawing.ImageDraw.ImageDraw,
        "text",
        lambda self, xy, text, **k: written.append((text, xy, k["fill"])),
    )
    picture = Image.new("RGB", (720, 720), "white")
    groundings = [
        Grounding("star", [Box(100, 200, 300, 400), Box(10, 3, 50, 90)], [0.456, 1.0]),
        Grounding("cup", [Box(690, 300, 719, 400)]),
    ]
    found = draw_answer(picture, groundings)
    assert [text for text, *_ in written] == ["star 0.46", "star 1.00", "cup"]
    assert {fill for *_, fill in written} == {"white"}
    (x, y), (x2, y2), (x3, y3) = (xy for _, xy, _ in written)
    assert x == 103 and 175 < y < 190 and (x2, y2) == (13, 6)  # no room above the second
    assert 660 < x3 < 700  # moved to the left, into the picture
    color = rgb(drawing.PALETTE[0])
    assert found.getpixel((101, 197)) == found.getpixel((101, int(y))) == color
    assert found.getpixel((101, 170)) == (255, 255, 255)
    assert found.getpixel((710, 290)) == rgb(drawing.PALETTE[1])


@pytest.mark.parametrize("size", [(720, 300), (300, 720)])
def test_labels_end_at_the_right_edge_of_wide_and_of_tall_pictures(monkeypatch, size):
    places = []
    monkeypatch.setattr(
        drawing.ImageDraw.ImageDraw, "text", lambda self, xy, text, **k: places.append(xy)
    )
    wide, _ = size
    box = Box(wide - 10, 100, wide - 1, 150)
    found = draw_answer(Image.new("RGB", size, "white"), [Grounding("cup", [box])])
    # three pixels of colour on either side of the word, as wide as Pillow says
    assert places[0][0] == wide - ImageFont.load_default(12).getbbox("cup")[2] - 3
    color = rgb(drawing.PALETTE[0])
    assert found.getpixel((wide - 1, 97)) == found.getpixel((places[0][0] - 3, 97)) == color
    assert found.getpixel((places[0][0] - 4, 97)) == (255, 255, 255)


def test_regions_are_drawn_dashed_tinted_or_as_a_ring():
    picture = Image.new("RGB", (720, 700), (0, 0, 200))
    found = draw_answer(picture, regions=[Box(100, 200, 220, 260)])
    row = [found.getpixel((x, 200))[0] for x in (103, 109, 115, 121)]
    assert row == [0, 255, 0, 255]  # twenty dashes of six pixels, black first
    assert found.getpixel((220, 203)) == (0, 0, 0) and found.getpixel((220, 209)) == (255,) * 3
    assert found.getpixel((150, 230)) == (0, 0, 200)
    mask = np.zeros((700, 720), bool)
    mask[300:400, 500:700] = True
    found = draw_answer(picture, regions=[Mask(mask)])
    # three fifths of (255, 230, 0), two fifths of (0, 0, 200)
    np.testing.assert_allclose(found.getpixel((600, 350)), (153, 138, 80), atol=1)
    assert found.getpixel((350, 600)) == found.getpixel((450, 350)) == (0, 0, 200)
    found = draw_answer(picture, regions=[Point(300, 400)])
    across = [found.getpixel((300 + d, 400)) for d in (8, 6, 2, 0)]
    assert across == [(0, 0, 0), (255,) * 3, (0, 0, 0), (0, 0, 200)]
    assert found.getpixel((300, 408)) == (0, 0, 0) and found.getpixel((311, 400)) == (0, 0, 200)


def test_an_answer_shows_its_groundings_and_regions():
    image = Image.new("RGB", (720, 700), "white")
    answer = Answer(
        "", [Grounding("", [Box(10, 200, 300, 400)])], image=image, regions=[Point(500, 500)]
    )
    shown = answer.show()
    assert shown.getpixel((10, 300)) == rgb(drawing.PALETTE[0]) and shown.getpixel((508, 500)) == (
        0,
        0,
        0,
    )


def test_a_files_ending_says_its_format(tmp_path):
    assert (
        find_picture_format(tmp_path / "a.jpg") == "JPEG"
        and find_picture_format(str(tmp_path / "b.PNG")) == "PNG"
    )
    for ending in ("txt", "psd", ""):  # Pillow reads Photoshop files but writes none
        with pytest.raises(ValueError, match="picture format"):
            find_picture_format(tmp_path / f"a.{ending}")
    with pytest.raises(FileNotFoundError, match="no folder"):
        find_picture_format(tmp_path / "none" / "a.png")
    path = save_image(Image.new("RGB", (5, 4), "red"), str(tmp_path / "c.bmp"))
    assert path == tmp_path / "c.bmp" and Image.open(path).format == "BMP"
    assert [p.name for p in tmp_path.iterdir()] == ["c.bmp"]


# Models


def test_shipped_models_are_the_folders_with_our_weights():
    shipped = list_shipped_models()
    assert list(shipped) == [
        "tiny",
        "tiny-griffon",
    ]  # not the towers and language models beside them
    assert all(
        folder.name == name and (folder / "model.safetensors").is_file()
        for name, folder in shipped.items()
    )
    assert find_model("tiny") == str(shipped["tiny"])


def test_models_are_found_by_name_folder_or_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ours", "theirs", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "ours" / "config.json").write_text('{"model_type": "ferretlite"}')
    (tmp_path / "theirs" / "config.json").write_text('{"model_type": "llama"}')
    assert find_model(tmp_path / "ours") == str(tmp_path / "ours") and find_model("ours") == "ours"
    with pytest.raises(ValueError, match="of type 'llama'"):
        find_model("theirs")
    with pytest.raises(ValueError, match="found no model"):
        find_model("empty")
    with pytest.raises(ValueError, match="size without weights"):
        find_model("ferret-v2-7b")
    assert find_model("owner-1/some.model_2") == "owner-1/some.model_2"
    for missing in ("nothing", "a/b/c", "theirs/none", "/owner/name", "own er/name"):
        with pytest.raises(FileNotFoundError, match="no model"):
            find_model(missing)


def test_loading_leaves_progress_bars_as_they_were(tmp_path):
    from transformers.utils import logging

    save_small(tmp_path)
    was = logging.is_progress_bar_enabled()
    try:
        for enabled in (True, False):
            (logging.enable_progress_bar if enabled else logging.disable_progress_bar)()
            ferret = Ferret.load(tmp_path, device="cpu", dtype=torch.bfloat16)
            assert logging.is_progress_bar_enabled() == enabled
            assert ferret.model.dtype == torch.bfloat16 and not ferret.model.training
        assert Ferret.load(tmp_path, device="cpu").model.dtype == torch.float32  # unless told
    finally:
        (logging.enable_progress_bar if was else logging.disable_progress_bar)()
