"""Dialogues: placeholders, frames, turns and detectors, each on values that can be worked out by
hand.
"""

import inspect
import json
import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ferretlite.data.dialogue_exports import export_grit
from ferretlite.data.dialogues import (
    _BLANK_IMAGE,
    _PLACEHOLDER_PATTERN,
    BOX_PATTERN,
    GritDialogues,
    _strip_turn_marks,
    replace_box_placeholders,
)
from ferretlite.data.llava import LlavaDialogues, _convert_from_square, _read_text_box, export_llava
from ferretlite.data.pseudo_boxes import (
    GroundingDino,
    NameFinder,
    WordFinder,
    WordReader,
    _add_placeholders,
    _add_pseudo_boxes,
    _find_names,
    _suppress_overlaps,
)
from ferretlite.regions.geometry import Box, Mask, box_iou
from ferretlite.regions.grammar import Grounding
from ferretlite.scenes.questions import GROUNDING_SWITCH
from ferretlite.scenes.world import Scene, SceneObject, make_scene

HEIGHT, WIDTH = 80, 200


# -- text with placeholders


def test_the_kth_placeholder_gets_the_kth_place_in_the_order_they_are_written():
    seen = []

    def write(place):
        seen.append(place)
        return place.upper()

    text = "Is <bbox_location1> on<bbox_location0>, and <bbox_location1>?"
    assert replace_box_placeholders(text, ["a", "b"], write) == "Is B on A, and B?"
    assert seen == ["b", "a", "b"]
    assert replace_box_placeholders("<bbox_location0> is red", ["a"], write) == "A is red"
    assert replace_box_placeholders("nothing", [], write) == "nothing"
    with pytest.raises(ValueError, match="found <bbox_location2> with 2 boxes"):
        replace_box_placeholders("<bbox_location2>", ["a", "b"], write)
    assert _PLACEHOLDER_PATTERN.sub("", "a dog <bbox_location12>.") == "a dog."


def test_marks_of_ours_are_no_words():
    assert _strip_turn_marks("<image>\nWhat is   this?") == "What is this?"
    assert _strip_turn_marks("What is <region> and\t<crop>?\nTell me.") == "What is and ?\nTell me."
    assert _strip_turn_marks("Look.\n<image>") == "Look."
    assert _strip_turn_marks("a <image> b\nc") == "a b\nc"


def test_a_conversation_without_an_image_looks_at_a_white_square():
    assert (
        _BLANK_IMAGE.size == (64, 64)
        and _BLANK_IMAGE.getpixel((5, 60)) == (255, 255, 255)
        and _BLANK_IMAGE.mode == "RGB"
    )


# -- readers


def said(*texts, roles=("human", "gpt")):
    return [{"from": roles[k % 2], "value": text} for k, text in enumerate(texts)]


def write_records(folder, records, size=(WIDTH, HEIGHT)):
    Image.new("RGB", size, "gray").save(folder / "a.png")
    (folder / "r.json").write_text(json.dumps(records))
    return folder


def test_users_and_assistants_speak_too_and_a_greeting_is_left_out(tmp_path):
    both = said("Who?", "Me.", "Why?", "So.", roles=("user", "assistant"))
    records = [
        dict(id="x", conversations=both),
        dict(conversations=said("Hello!", "Who?", "Me.", roles=("gpt", "human"))),
    ]
    first, second = LlavaDialogues(write_records(tmp_path, records), "r.json", ".")
    assert [(t.prompt, t.answer, t.task) for t in first.turns] == [
        ("Who?", "Me.", "talk"),
        ("Why?", "So.", "talk"),
    ]
    assert [(t.prompt, t.answer) for t in second.turns] == [("Who?", "Me.")]
    assert (first.id, second.id) == ("x", "1") and (first.linked, second.linked) == (True, False)
    assert first.size == (64, 64)


def test_conversations_are_read_from_lines_as_from_a_list(tmp_path):
    records = [
        dict(id=k, conversations=said(f"Question {k}?", f"Answer {k}."), other=1) for k in range(3)
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    found = LlavaDialogues(tmp_path, "r.jsonl")
    assert [c.turns[0].answer for c in found] == ["Answer 0.", "Answer 1.", "Answer 2."]
    assert found.record(1) == dict(
        id=1, conversations=records[1]["conversations"]
    )  # other keys are not kept
    (tmp_path / "r.jsonl").write_text(json.dumps(dict(id=1)) + "\n")
    with pytest.raises(ValueError, match="line 1, field conversations: found nothing"):
        LlavaDialogues(tmp_path, "r.jsonl")


def test_the_number_of_a_coco_picture_is_known_by_its_name(tmp_path):
    names = ["coco/000000000042.jpg", None, "a.png"]
    records = [dict(id=k, image=name, conversations=said("a", "b")) for k, name in enumerate(names)]
    reader = LlavaDialogues(write_records(tmp_path, records), "r.json", ".")
    assert reader.coco_ids.tolist() == [42, -1, -1] and reader.pictures == [
        "coco/000000000042.jpg",
        "",
        "a.png",
    ]


def test_turns_after_a_broken_one_are_left_out(tmp_path):
    turns = said("One?", "1", "What is <bbox_location0>?", "2", "Three?", "3")
    record = dict(
        id=5,
        image="a.png",
        image_h=HEIGHT,
        image_w=WIDTH,
        conversations=turns,
        box_x1y1x2y2=[[]] * 6,
    )
    reader = GritDialogues(write_records(tmp_path, [record]), "r.json", ".", strict=False)
    assert [t.answer for t in reader[0].turns] == ["1"] and reader.left_out == {"turn": 1}
    assert not reader[0].linked


def grit(tmp_path, turns, boxes, masks=None, **options):
    record = dict(
        id=7,
        image="a.png",
        image_h=HEIGHT,
        image_w=WIDTH,
        conversations=said(*turns),
        box_x1y1x2y2=boxes,
    )
    if masks is not None:
        record["masks"] = masks
    return GritDialogues(write_records(tmp_path, [record]), "r.json", ".", **options)


def rectangle(x1, y1, x2, y2):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y1:y2, x1:x2] = True
    return Mask(mask)


A, B, C, D = [10, 20, 40, 70], [50, 8, 90, 60], [100, 4, 150, 40], [160, 30, 190, 79]


def test_boxes_alternate_between_questions_and_answers(tmp_path):
    turns = [
        "Is <bbox_location1> like <bbox_location0>?",
        "No.",
        "Where is it?",
        "At <bbox_location0>.",
        "And <bbox_location0>?",
        "Yes.",
    ]
    reader = grit(tmp_path, turns, [[A, B], [], [], [C], [D]])
    one, two, three = reader.converse(0, random.Random(1)).turns
    centres = [r.box().center() for r in one.regions + three.regions]
    assert [(c.x, c.y) for c in centres] == [(70, 34), (25, 45), (175, 54.5)]
    assert one.prompt == "Is <region> like <region>?" and three.prompt == "And <region>?"
    # 100 / 200 and 4 / 80 in thousandths
    assert two.answer == "At [500, 50, 750, 500]." and two.regions == []
    assert (
        reader.converse(0, random.Random(1), style="griffon").turns[1].answer
        == "At [0.500,0.050,0.750,0.500]."
    )


def test_each_box_has_the_mask_of_its_own_number(tmp_path):
    masks = [rectangle(*A), rectangle(*B)]
    reader = grit(
        tmp_path,
        ["<bbox_location1> or <bbox_location0>?", "Both."],
        [[A, B], []],
        [[m.rle for m in masks], []],
    )
    forms = Counter()
    for k in range(60):
        regions = reader.converse(0, random.Random(k)).turns[0].regions
        forms[type(regions[0]).__name__] += 1
        if isinstance(regions[0], Mask):
            assert regions == masks[::-1]
    assert set(forms) == {"Point", "Box", "Mask"} and min(forms.values()) > 9
    half = grit(
        tmp_path,
        ["<bbox_location1> or <bbox_location0>?", "Both."],
        [[A, B], []],
        [[masks[0].rle], []],
    )
    drawn = [half.converse(0, random.Random(k)).turns[0].regions for k in range(40)]
    assert any(isinstance(r[1], Mask) for r in drawn) and not any(
        isinstance(r[0], Mask) for r in drawn
    )


def test_without_masks_a_region_is_a_point_or_a_box(tmp_path):
    reader = grit(tmp_path, ["<bbox_location0>?", "Yes."], [[A], []])
    forms = Counter(
        type(reader.converse(0, random.Random(k)).turns[0].regions[0]).__name__ for k in range(80)
    )
    assert set(forms) == {"Point", "Box"} and min(forms.values()) > 25


def test_coordinates_are_asked_for_by_the_switch_or_left_out(tmp_path):
    turns = ["What is left?", "A dog <bbox_location0>.", "Is it big?", "Yes."]
    plain = grit(tmp_path, turns, [[], [A]])
    written = "A dog [50, 250, 200, 875]."
    assert [(t.prompt, t.answer) for t in plain[0].turns] == [
        ("What is left?", written),
        ("Is it big?", "Yes."),
    ]
    always = grit(tmp_path, turns, [[], [A]], switch=1.0)
    assert [(t.prompt, t.answer) for t in always[0].turns] == [
        ("What is left?\n" + GROUNDING_SWITCH, written),
        ("Is it big?", "Yes."),
    ]
    never = grit(tmp_path, turns, [[], [A]], switch=0.0)
    assert [(t.prompt, t.answer) for t in never[0].turns] == [
        ("What is left?", "A dog."),
        ("Is it big?", "Yes."),
    ]
    some = grit(tmp_path, turns, [[], [A]], switch=0.25)
    asked = sum(
        GROUNDING_SWITCH in some.converse(0, random.Random(k)).turns[0].prompt for k in range(200)
    )
    assert 0.17 < asked / 200 < 0.34


def test_a_picture_must_have_the_size_of_its_record(tmp_path):
    reader = grit(tmp_path, ["Hm?", "Yes."], [])
    assert reader[0].size == (HEIGHT, WIDTH)
    record = dict(
        id=1, image="a.png", image_h=WIDTH, image_w=HEIGHT, conversations=said("Hm?", "Yes.")
    )
    with pytest.raises(ValueError, match="found 80 x 200 .*expected 200 x 80"):
        GritDialogues(write_records(tmp_path, [record]), "r.json", ".")[0]
    unsaid = {k: v for k, v in record.items() if k != "image_h"}
    assert GritDialogues(write_records(tmp_path, [unsaid]), "r.json", ".")[0].size == (
        HEIGHT,
        WIDTH,
    )


def test_a_box_without_sides_is_refused_and_one_that_sticks_out_is_clipped(tmp_path):
    for box in ([10, 5, 10, 9], [10, 5, 20, 5], [20, 5, 10, 9]):
        with pytest.raises(ValueError, match="turn 0.*sides are positive"):
            grit(tmp_path, ["<bbox_location0>?", "Yes."], [[box], []])[0]
    answer = (
        grit(tmp_path, ["Where?", "<bbox_location0>"], [[], [[150, 40, 999, 999]]])[0]
        .turns[0]
        .answer
    )
    assert answer == "[750, 500, 999, 999]"


def test_exported_grit_records(tmp_path):
    scene = make_scene(2, (96, 120), "test")
    path = export_grit([scene], tmp_path)
    [record] = json.loads(path.read_text())
    assert path == tmp_path / "grit.json" and (tmp_path / "images" / "test-2.jpg").exists()
    assert (record["id"], record["image"], record["image_h"], record["image_w"]) == (
        "test-2",
        "test-2.jpg",
        96,
        120,
    )
    turns = record["conversations"]
    assert len(turns) == len(record["box_x1y1x2y2"]) == len(record["masks"]) == 6
    assert [t["from"] for t in turns] == ["human", "gpt"] * 3
    assert [t["value"].startswith("<image>\n") for t in turns[::2]] == [True, False, False]
    named = {tuple(o.box.list()): o for o in scene.objects}
    asked = set()
    for k in range(3):
        question, answer, boxes, masks = (
            turns[2 * k]["value"],
            turns[2 * k + 1]["value"],
            record["box_x1y1x2y2"],
            record["masks"],
        )
        pointed = "<bbox_location0>" in question
        asked.add(pointed)
        one = named[tuple(boxes[2 * k + (not pointed)][0])]
        assert boxes[2 * k + pointed] == []
        assert masks[2 * k : 2 * k + 2] == ([[one.mask.rle], []] if pointed else [[], []])
        assert answer == (one.phrase if pointed else f"{one.phrase} <bbox_location0>") or one.text
    assert asked == {True, False}
    again = json.loads(export_grit([scene], tmp_path, seed=1).read_text())[0]
    assert again["conversations"] != turns


def test_exported_llava_records(tmp_path):
    one = SceneObject("cup", Box(1, 2, 3, 4))
    scene = Scene(
        Image.new("RGB", (30, 20)),
        (20, 30),
        [one, SceneObject("star", Box(5, 5, 6, 9)), one],
        "s1",
        "Two cups.",
    )
    path = export_llava([scene], tmp_path)
    first, second = json.loads(path.read_text())
    assert path == tmp_path / "llava.json" and (first["id"], first["image"]) == ("s1", "s1.jpg")
    assert first["conversations"] == said(
        "<image>\nDescribe the image.", "Two cups.", "How many of these are cups?", "2"
    )
    assert "image" not in second and second["conversations"] == said(
        "How many sides has a dice?", "Six."
    )


# -- LLaVA's fractions


def test_a_box_in_a_text_is_four_numbers_in_brackets():
    assert [m.group() for m in BOX_PATTERN.finditer("a [0.25, 1, 0,.5] b [12,40,300,-4]")] == [
        "[0.25, 1, 0,.5]",
        "[12,40,300,-4]",
    ]
    for text in (
        "[0.1, 0.2, 0.3]",
        "[1, 2, 3, x]",
        "[0.1, 0.2, 0.3, 0.4, 0.5]",
        "0.1, 0.2, 0.3, 0.4",
    ):
        assert not BOX_PATTERN.search(text)


def test_fractions_of_a_padded_square():
    # 80 high, 200 wide: 60 above and below the image
    assert _convert_from_square([0.1, 0.4, 0.3, 0.65], (80, 200)) == pytest.approx([20, 20, 60, 70])
    assert _convert_from_square([0.4, 0.1, 0.65, 0.3], (200, 80)) == pytest.approx([20, 20, 70, 60])
    assert _convert_from_square([0, 0, 1, 0.5], (80, 200)) == pytest.approx([0, -60, 200, 40])
    with pytest.raises(ValueError, match="found the box"):
        _read_text_box("[0, 0, 1, 0.2]", "square", (80, 200))


def llava(tmp_path, turns, **options):
    return LlavaDialogues(
        write_records(tmp_path, [dict(id=1, image="a.png", conversations=said(*turns))]),
        "r.json",
        ".",
        **options,
    )


def test_fractions_of_the_image_or_of_its_square_become_regions_and_answers(tmp_path):
    turns = [
        "Is [0.1, 0.5, 0.3, 0.75] left of [0.6, 0.4, 1, 0.65]?",
        "Yes, [0.5, 0.45, 0.75, 0.55].",
    ]
    of_image = llava(tmp_path, turns, boxes="image")[0].turns[0]
    assert of_image.prompt == "Is <region> left of <region>?"
    assert [r.list() for r in of_image.regions] == [
        pytest.approx([20, 40, 60, 60]),
        pytest.approx([120, 32, 200, 52]),
    ]
    assert of_image.answer == "Yes, [500, 450, 750, 550]."
    of_square = llava(tmp_path, turns, boxes="square")[0].turns[0]
    assert [r.list() for r in of_square.regions] == [
        pytest.approx([20, 40, 60, 80]),
        pytest.approx([120, 20, 200, 70]),
    ]
    assert of_square.answer == "Yes, [500, 375, 750, 625]."  # 90 - 60 = 30 of 80
    turn = (
        llava(tmp_path, turns, boxes="image")
        .converse(0, random.Random(0), style="griffon")
        .turns[0]
    )
    assert turn.answer == "Yes, [0.500,0.450,0.750,0.550]."
    unknown = llava(tmp_path, [*turns, "And?", "No."], strict=False)
    assert [t.answer for t in unknown[0].turns] == ["No."]
    assert unknown.left_out == {"boxes of an unknown frame": 1}
    with pytest.raises(ValueError, match="boxes: found 'inches', expected square, image, pixels"):
        llava(tmp_path, turns, boxes="inches")


# -- places where nobody marked them


def test_places_stand_behind_their_words_and_the_longest_of_those_that_overlap_stays():
    text = "A hot dog, a cat and a dog."
    one, two, three = Box(1, 2, 3, 4), Box(5, 6, 7, 8), Box(9, 9, 10, 12)
    found = [(23, 26, [three]), (6, 9, [two]), (2, 9, [one, two]), (2, 5, [three]), (13, 16, [])]
    told, boxes = _add_placeholders(text, found)
    assert told == "A hot dog <bbox_location0> <bbox_location1>, a cat and a dog <bbox_location2>."
    assert boxes == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 10, 12]]
    assert (
        _add_placeholders("abcd", [(0, 2, [one]), (2, 4, [two])])[0]
        == "ab <bbox_location0>cd <bbox_location1>"
    )


def test_unified_records_by_hand(tmp_path):
    records = [
        dict(
            id=1,
            image="a.png",
            conversations=said("<image>\nHm?", "A cat.", "And?", "A dog and a cat."),
        ),
        dict(id=2, conversations=said("No picture?", "A cat.")),
        dict(id=3, image="a.png", conversations=said("Hm?", "A cow.")),
        dict(id=4, image="a.png", conversations=said("Hm?", "A cat.")),
    ]
    reader, asked = LlavaDialogues(write_records(tmp_path, records), "r.json", "."), []

    def find(image, text):
        asked.append((image.size, text))
        return [
            (k, k + 3, [Box(10, 20, 30, 40)] * (1 + (w == "dog")))
            for w in ("cat", "dog")
            if (k := text.find(w)) >= 0
        ]

    assert _add_pseudo_boxes(reader, find, tmp_path / "out.json", 3) == dict(
        records=3, grounded=1, boxes=4
    )
    first, second, third = json.loads((tmp_path / "out.json").read_text())
    assert asked == [((WIDTH, HEIGHT), t) for t in ("A cat.", "A dog and a cat.", "A cow.")]
    answers = [
        "A cat <bbox_location0>.",
        "A dog <bbox_location0> <bbox_location1> and a cat <bbox_location2>.",
    ]
    assert first["conversations"] == said("<image>\nHm?", answers[0], "And?", answers[1])
    assert first["box_x1y1x2y2"] == [[], [[10, 20, 30, 40]], [], [[10, 20, 30, 40]] * 3]
    assert (first["image_h"], first["image_w"], first["id"]) == (HEIGHT, WIDTH, 1)
    assert second == dict(id=2, conversations=records[1]["conversations"], box_x1y1x2y2=[[], []])
    assert third["conversations"] == records[2]["conversations"]
    assert _add_pseudo_boxes(reader, find, tmp_path / "out.json") == dict(
        records=4, grounded=2, boxes=5
    )
    assert _add_pseudo_boxes(reader, find, tmp_path / "out.json", 9)["records"] == 4


def test_names_in_a_text_are_singular_or_plural_in_any_case():
    text = "Mice, a MOUSE; two wine glasses. Mousetrap, glass"
    found = _find_names(text, ["mouse", "glass", "wine glass"])
    assert [(text[a:b], n) for a, b, n in found] == [
        ("Mice", "mouse"),
        ("MOUSE", "mouse"),
        ("wine glasses", "wine glass"),
        ("glass", "glass"),
    ]
    assert _find_names("a c++ book", ["c++"]) == [(2, 5, "c++")]
    assert _find_names("anything", []) == []
    assert _find_names("sheepdog un-sheep", ["sheep"]) == [(12, 17, "sheep")]


def test_a_name_that_stands_for_more_than_five_boxes_is_left_alone():
    asked = []

    def detector(image, names):
        asked.append(names)
        numbers = dict(cat=5, dog=6, cow=0)
        return [
            Grounding(n, [Box(k, 0, k + 1, 1) for k in range(numbers[n])])
            for n in names
            if n in numbers
        ]

    finder = NameFinder(detector, ["dog", "cat", "cow", "fox"])
    assert finder.most == 5
    found = finder("image", "Dogs, a cat, cats, a fox and a cow.")
    assert asked == [["cat", "cow", "dog", "fox"]]
    assert [(a, b, len(boxes)) for a, b, boxes in found] == [(8, 11, 5), (13, 17, 5)]
    assert finder("image", "nothing at all") == [] and len(asked) == 1
    assert len(NameFinder(detector, ["dog", "cat"], 6)("image", "Dogs and cats")) == 2


def test_of_boxes_that_overlap_too_much_the_best_stays():
    boxes = torch.tensor(
        [[0, 0, 10, 10], [0, 0, 10, 5], [20, 0, 30, 10], [0, 0, 10, 9], [21, 0, 31, 10]],
        dtype=torch.float,
    )
    scores = torch.tensor([0.5, 0.6, 0.9, 0.8, 0.7])
    # of number 3 number 0 takes .9 and number 1 5/9; of number 2 number 4 takes 9/11
    assert _suppress_overlaps(boxes, scores, 0.7) == [2, 3, 1]
    assert _suppress_overlaps(boxes, scores, 0.55) == [2, 3]
    assert _suppress_overlaps(boxes, scores, 0.95) == [2, 3, 4, 1, 0]
    assert _suppress_overlaps(
        torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]]), torch.tensor([0.1, 0.2]), 0.5
    ) == [
        1,
        0,
    ]  # exactly half stays
    assert _suppress_overlaps(torch.zeros(0, 4), torch.zeros(0), 0.5) == []
    rng = torch.Generator().manual_seed(0)
    corner = torch.rand(30, 2, generator=rng) * 20
    many, sure = (
        torch.cat([corner, corner + 4 + 9 * torch.rand(30, 2, generator=rng)], 1),
        torch.rand(30, generator=rng),
    )
    left, wanted = sure.argsort(descending=True).tolist(), []
    while left:  # non-maximum suppression as it is usually written
        best, *left = left
        wanted.append(best)
        left = [k for k in left if box_iou(many[best][None], many[k][None]).item() <= 0.4]
    assert _suppress_overlaps(many, sure, 0.4) == wanted


class Spelling:
    """Splits a text into its words and full stops."""

    def __call__(
        self, text, add_special_tokens=True, return_offsets_mapping=False, return_tensors=None
    ):
        pieces, at = [], 0
        for piece in text.replace(".", " .").split():
            at = text.index(piece, at)
            pieces.append((at, at + len(piece)))
            at += len(piece)
        if not add_special_tokens:
            return SimpleNamespace(input_ids=list(range(len(pieces))))
        self.text = text
        pieces = [(0, 0), *pieces, (0, 0)]
        return dict(input_ids=torch.zeros(1, len(pieces)), offset_mapping=torch.tensor([pieces]))


def detector(probabilities, places, threshold=0.35, overlap=0.7, room=256):
    found = object.__new__(GroundingDino)
    out = SimpleNamespace(
        logits=torch.tensor([probabilities]).logit(), pred_boxes=torch.tensor([places])
    )

    class Model:
        config, device, seen = SimpleNamespace(max_text_len=room), "cpu", []

        def __call__(self, **inputs):
            self.seen.append(inputs)
            return out

    found.tokenizer, found.threshold, found.overlap, found.model = (
        Spelling(),
        threshold,
        overlap,
        Model(),
    )
    found.images = lambda images, return_tensors: dict(pixel_values=torch.zeros(len(images)))
    return found


def test_a_detectors_boxes_belong_to_the_names_whose_tokens_are_sure():
    # tokens of "hot dog. cat.": (start) hot dog . cat . (end)
    probabilities = [
        [0.9, 0.2, 0.6, 0.9, 0.1, 0.9, 0.9],  # hot dog, by its second word
        [0.1, 0.1, 0.2, 0.1, 0.35, 0.1, 0.1],  # cat, just
        [0.1, 0.7, 0.1, 0.1, 0.34, 0.1, 0.1],  # hot dog, by its first word; not quite cat
        [0.1, 0.1, 0.1, 0.1, 0.8, 0.1, 0.1],  # cat
        [0.1, 0.1, 0.1, 0.1, 0.7, 0.1, 0.1],  # the same cat
    ]
    places = [
        [0.5, 0.5, 0.2, 0.4],
        [0.25, 0.5, 0.1, 0.2],
        [0.9, 0.8, 0.4, 0.2],
        [0.5, 0.25, 0.1, 0.5],
        [0.5, 0.26, 0.1, 0.5],
    ]
    detect = detector(probabilities, places)
    image = Image.new("RGB", (200, 80))
    dogs, cats = detect(image, ["Hot dog", "cat"])
    assert (dogs.name, cats.name) == ("Hot dog", "cat") and detect.tokenizer.text == "hot dog. cat."
    assert dogs.scores == pytest.approx([0.7, 0.6]) and cats.scores == pytest.approx([0.8, 0.35])
    assert [b.list() for b in dogs.boxes] == [
        pytest.approx([140, 56, 200, 72]),
        pytest.approx([80, 24, 120, 56]),
    ]  # clipped at 200
    assert [b.list() for b in cats.boxes] == [
        pytest.approx([90, 0, 110, 40]),
        pytest.approx([40, 32, 60, 48]),
    ]
    assert set(detect.model.seen[0]) == {"input_ids", "pixel_values"}
    assert [
        g.name for g in detector(probabilities, places, threshold=0.75)(image, ["Hot dog", "cat"])
    ] == ["cat"]
    assert (
        len(detector(probabilities, places, overlap=0.97)(image, ["Hot dog", "cat"])[1].boxes) == 3
    )
    flat = [p if k != 2 else [0.9, 0.8, 0.0, 0.2] for k, p in enumerate(places)]
    assert len(detector(probabilities, flat)(image, ["Hot dog", "cat"])[0].boxes) == 1


def test_names_are_asked_for_in_groups_that_fit():
    # each name takes its words and a full stop; two tokens are the ends
    detect = detector([[0.1]], [[0.5] * 4], room=9)
    assert detect.group_names(["hot dog", "cat", "dog", "cow"]) == [
        ["hot dog", "cat", "dog"],
        ["cow"],
    ]  # 3 + 2 + 2 = 7
    assert detect.group_names(["a b c d e f g h i", "cat"]) == [["a b c d e f g h i"], ["cat"]]
    assert detect.group_names([]) == [[]] and detect("image", []) == []


def test_defaults_of_the_detectors():
    given = inspect.signature(GroundingDino.__init__).parameters
    assert (given["threshold"].default, given["overlap"].default, given["device"].default) == (
        0.35,
        0.7,
        "cpu",
    )
    assert given["folder"].default == "IDEA-Research/grounding-dino-base"
    assert inspect.signature(WordReader.__init__).parameters["threshold"].default == 0.6


def test_words_that_are_read_surely_come_with_their_boxes():
    seen = []

    def engine(picture):
        seen.append(picture)
        corners = [
            [[10, 20], [42, 18], [43, 30], [11, 31]],
            [[150, 60], [230, 60], [230, 99], [150, 99]],
            [[1, 1], [5, 1], [5, 4], [1, 4]],
            [[300, 1], [310, 1], [310, 4], [300, 4]],
        ]
        return SimpleNamespace(
            boxes=np.array(corners, float),
            txts=("EXIT", "out", "no", "far"),
            scores=(0.9, 0.6, 0.59, 0.99),
        )

    reader = object.__new__(WordReader)
    reader.threshold, reader.engine = 0.6, engine
    found = reader(Image.new("RGB", (WIDTH, HEIGHT), (10, 20, 30)))
    assert [(g.name, g.boxes[0].list(), g.scores) for g in found] == [
        ("EXIT", [10, 18, 43, 31], [0.9]),
        ("out", [150, 60, 200, 80], [0.6]),
    ]
    assert seen[0].shape == (HEIGHT, WIDTH, 3) and seen[0][0, 0].tolist() == [
        30,
        20,
        10,
    ]  # blue first
    reader.engine = lambda picture: SimpleNamespace(boxes=None)
    assert reader(Image.new("L", (9, 9))) == []


def test_words_are_found_whole_and_from_two_letters_on():
    box = Box(1, 2, 3, 4)
    finder = WordFinder(
        lambda image: [Grounding(n, [box]) for n in (" Exit ", "a", " a ", "OK", "C.D")]
    )
    text = "An exit, exits and EXIT: ok. a CxD C.D"
    assert [(text[a:b], boxes) for a, b, boxes in finder(None, text)] == [
        ("exit", [box]),
        ("EXIT", [box]),
        ("ok", [box]),
        ("C.D", [box]),
    ]
