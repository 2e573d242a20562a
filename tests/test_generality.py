"""Answers by style, shape, density and size."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from ferretlite.evaluation.generality import (
    GENERAL_SPLITS,
    describe_answer,
    group_answers,
    measure_split,
)
from ferretlite.evaluation.suites import make_questions
from ferretlite.model.answers import Answer
from ferretlite.regions.geometry import Box
from ferretlite.regions.grammar import Grounding
from ferretlite.scenes.world import make_scene

ROOT = Path(__file__).resolve().parent.parent


def pose(task, seed=3, style="ferret"):
    scene = make_scene(seed, (200, 500), "test")
    return next(q for q in make_questions(scene, seed, style=style) if q.turn.task == task)


def say(question, text="", box=None):
    groundings = [Grounding("it", [box])] if box else []
    return SimpleNamespace(text=text, groundings=groundings)


def test_a_box_is_right_from_an_iou_of_one_half():
    question = pose("rec")
    truth = question.turn.meta["box"]
    third = Box(truth.x1, truth.y1, truth.x1 + truth.width / 3, truth.y2)  # IoU 1/3
    most = Box(truth.x1, truth.y1, truth.x1 + 0.6 * truth.width, truth.y2)  # IoU .6
    for box, right in ((truth, True), (most, True), (third, False), (None, False)):
        assert describe_answer(question, say(question, box=box))["right"] is right


@pytest.mark.parametrize(("task", "style"), [("name", "ferret"), ("tell", "griffon")])
def test_a_name_needs_kind_colour_and_fill(task, style):
    question = pose(task, style=style)
    fill, color, kind = question.turn.meta["phrase"].split(" ", 2)
    row = describe_answer(question, say(question, f"{fill} {color} {kind}"))
    assert row["right"] and row["task"] == "name"
    assert not describe_answer(question, say(question, f"{color} {kind}"))["right"]


def test_a_row_describes_the_picture_and_the_object():
    question = pose("rec")
    question.scene.size = 200, 500
    question.scene.objects = question.scene.objects[:1] * 4
    sides = {10: "small", 20: "medium", 50: "large"}  # of 200: 1/20, 1/10 and 1/4
    for side, size in sides.items():
        question.turn.meta["box"] = Box(0, 0, side, side / 2)
        row = describe_answer(question, say(question))
        assert (row["shape"], row["density"], row["size"]) == (2.5, 4, size)


def test_questions_about_several_objects_have_no_row():
    for task in ("phrase", "dense_detection", "absent", "choose"):
        question = pose(task)
        assert describe_answer(question, say(question)) is None


def test_groups_keep_their_order_and_their_intervals():
    """Wilson's 95 % interval of 8 of 10 is .490 to .943 (Newcombe 1998 gives the formula)."""
    rows = [dict(right=k < 8, size="b") for k in range(10)] + [dict(right=0, size="a")]
    found = group_answers(rows, lambda row: row["size"])
    assert list(found) == ["a", "b"]
    share, interval, n = found["b"]
    assert (share, n) == (0.8, 10)
    assert interval == pytest.approx((0.4902, 0.9433), abs=1e-3)


def test_a_split_is_asked_once_for_each_scene(monkeypatch):
    asked = []

    def answer_with_truth(ferret, questions, batch):
        asked.extend(questions)
        found = []
        for q in questions:
            meta = q.turn.meta
            boxes = meta.get("groundings") or []
            if q.turn.task == "rec":
                boxes = [Grounding("it", [meta["box"]])]
            found.append(
                Answer(
                    text=meta.get("phrase") or q.turn.answer,
                    groundings=boxes,
                    image=q.scene.image,
                    prompt=q.turn.prompt,
                    raw_text=q.turn.answer,
                )
            )
        return found

    monkeypatch.setattr("ferretlite.evaluation.generality.answer_questions", answer_with_truth)
    ferret = SimpleNamespace(processor=SimpleNamespace(config=SimpleNamespace(style="ferret")))
    metrics, rows = measure_split(ferret, "dark", n=5, seed=2)
    scenes = {id(q.scene) for q in asked}
    assert len(scenes) == 5 and {q.scene.split for q in asked} == {"dark"}
    assert all(row["right"] for row in rows)
    assert metrics["rec.acc@0.5"]["value"] == metrics["name.acc"]["value"] == 1
    assert sum(row["task"] == "rec" for row in rows) == metrics["rec.acc@0.5"]["n"]
    first = len(asked)
    measure_split(ferret, "dark", n=5, seed=3)
    boxes = [[q.turn.meta.get("box") for q in part] for part in (asked[:first], asked[first:])]
    assert boxes[0] != boxes[1]  # another seed, other scenes


def test_the_record_repeats_the_metrics_from_its_rows():
    record = json.loads((ROOT / "nbs/records/generality.json").read_text())
    assert set(record["models"]) >= {"tiny", "tiny-griffon"}
    for model in record["models"].values():
        assert list(model["splits"]) == list(GENERAL_SPLITS)
        rows = [dict(zip(record["columns"], row)) for row in model["rows"]]
        for split, metrics in model["splits"].items():
            hits = [r["right"] for r in rows if r["split"] == split and r["task"] == "rec"]
            rec = metrics["rec.acc@0.5"]
            assert len(hits) == rec["n"] and sum(hits) / len(hits) == pytest.approx(
                rec["value"], abs=1e-4
            )
