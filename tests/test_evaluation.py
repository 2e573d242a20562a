"""Evaluation: which questions, in which words and batches, and what becomes of each answer."""

import inspect
import random
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from PIL import Image

from ferretlite.evaluation import suites as evaluation
from ferretlite.evaluation.detection import DetectionResult
from ferretlite.evaluation.metrics import (
    ChoiceResult,
    CountResult,
    NameResult,
    PhraseResult,
    PresenceResult,
    RecResult,
    WordResult,
)
from ferretlite.evaluation.suites import (
    _ANSWER_RULES,
    _ANSWER_TOKEN_LIMITS,
    _ASKED_TASKS,
    Question,
    _batch_by_length,
    _make_griffon_count,
    _make_griffon_questions,
    _make_griffon_rec,
    _make_suite_scenes,
    _read_kind,
    _score_answer,
    _split_into_portions,
    answer_questions,
    evaluate,
    make_questions,
    take_first_box,
)
from ferretlite.regions.geometry import Box, Point
from ferretlite.regions.grammar import Grounding
from ferretlite.scenes.griffon_tasks import GRIFFON_TASKS, ask_like
from ferretlite.scenes.questions import Crop, Turn
from ferretlite.scenes.tasks import TASKS
from ferretlite.scenes.world import Scene, SceneObject, make_scene

A, B, C = Box(5, 6, 15, 20), Box(40, 30, 60, 55), Box(70, 5, 95, 15)
SIZE = (60, 100)  # height, width


def scene(split="test", kinds=("star", "cup", "cup")):
    boxes = [A, B, C, Box(20, 2, 30, 9), Box(62, 40, 90, 58)]
    things = [
        SceneObject(kind, box, None, color, fill)
        for kind, box, color, fill in zip(
            kinds, boxes, ("red", "blue", "pink", "green", "black"), ("filled", "outlined") * 3
        )
    ]
    return Scene(Image.new("RGB", SIZE[::-1]), SIZE, things, split=split, seed=0)


def answer(text="", *groundings):
    return SimpleNamespace(text=text, groundings=list(groundings))


class Recorder:
    """Stands for a Ferret: notes what it is asked and answers `answers[prompt]`, or nothing."""

    def __init__(self, style="ferret", answers=None):
        self.processor = SimpleNamespace(config=SimpleNamespace(style=style))
        self.calls, self.answers = [], answers or {}

    def ask(self, image, prompt, regions=None, crops=None, max_new_tokens=None, batch=None):
        self.calls.append(
            SimpleNamespace(
                images=image,
                prompts=prompt,
                regions=regions,
                crops=crops,
                cap=max_new_tokens,
                batch=batch,
            )
        )
        return [self.answers.get(p, answer(f"to {p}")) for p in prompt]


# -- constants and defaults


def test_constants():
    assert _ASKED_TASKS == (
        *("rec", "name", "choose", "phrase", "word", "dense_detection", "absent"),
    )
    assert (
        evaluation._N_NAMES == (40 * 2 + 1) * 8
    )  # kinds, filled or outlined, and words; in eight colours
    assert evaluation._N_WORDS == 17576 + 456976  # three and four capitals
    assert evaluation._SCENES_PER_PORTION == 128
    assert _ANSWER_TOKEN_LIMITS == {
        "rec": 64,
        "absent": 256,
        "name": 32,
        "choose": 32,
        "word": 24,
        "count": 320,
        "phrase": 256,
        "find": 320,
        "find_set": 448,
        "find_phrases": 448,
        "tell": 32,
        "search": 448,
        "caption": 128,
        "grounded_caption": 448,
        "dense_detection": 448,
    }
    asked = {"rec", "name", "choose", "phrase", "word", "count", "dense_detection", "absent"}
    assert set(_ANSWER_RULES) == asked | {"find_set", "find", "find_phrases", "tell", "search"}


def test_defaults():
    def defaults(function):
        found = inspect.signature(function).parameters.items()
        return {name: p.default for name, p in found if p.default is not p.empty}

    expected = dict(suite="scenes", n=None, seed=0, batch=32, progress=True, split="test")
    assert defaults(evaluate) == expected | dict(closer=True)
    assert defaults(_make_suite_scenes) == dict(seed=0, split="test", size=384, others=("count",))
    assert defaults(answer_questions) == dict(batch=32, on_progress=None)
    assert defaults(make_questions) == dict(tasks=None, style="ferret")
    assert Question(None, None).group == ""


# -- questions


def test_a_scene_is_asked_one_question_of_each_task_in_the_canonical_words():
    found = make_questions(make_scene(1, 96, "test"), "0 test 1")
    assert [q.turn.task for q in found] == [
        "rec",
        "name",
        "choose",
        "phrase",
        "dense_detection",
        "absent",
    ]  # it holds no word
    prompts = [q.turn.prompt for q in found]
    assert prompts[0].startswith("What is the location of the ") and prompts[0].endswith(
        " in the image?"
    )
    assert prompts[1] == "What is in this region <region>?"
    assert prompts[2].startswith("Is the object <region> of the image a ")
    assert prompts[4] == "Please localize visible objects in the image in a raster scan order."
    assert {q.group for q in found} == {""}


def test_each_task_has_dice_of_its_own():
    place = make_scene(3, 96, "test")
    for task in ("rec", "name", "choose", "phrase"):
        [found] = make_questions(place, "5 test 3", (task,))
        turn = TASKS[task](place, random.Random(f"5 test 3 {task}"), 0)
        assert (found.turn.prompt, found.turn.answer) == (
            turn.prompt,
            turn.answer,
        ) and found.scene is place
    other = make_questions(place, "6 test 3", ("rec", "name", "choose", "phrase"))
    same = make_questions(place, "5 test 3", ("rec", "name", "choose", "phrase"))
    assert [q.turn.answer for q in other] != [q.turn.answer for q in same]


def test_counting_scenes_are_counted_only():
    [found] = make_questions(scene("count"), "k")
    assert (found.turn.task, found.turn.prompt) == ("count", "How many cups are there?")
    assert [q.turn.task for q in make_questions(scene("large"), "k", ("name",))] == ["name"]
    assert [q.turn.task for q in make_questions(scene("count"), "k", ("name", "word"))] == ["name"]


def test_a_griffon_is_asked_its_own_questions():
    place = make_scene(3, 96, "test")
    found = make_questions(place, "k 3", style="griffon")
    assert [q.turn.task for q in found] == ["rec", "find_set", "find", "find_phrases", "tell"]
    for q in found[1:]:
        turn = GRIFFON_TASKS[q.turn.task](place, random.Random(f"k 3 {q.turn.task}"), 0)
        assert (q.turn.prompt, q.turn.answer, q.group) == (turn.prompt, turn.answer, "")
    assert found[1].turn.prompt.startswith("Detect all objects of these kinds: ")
    turn = _make_griffon_rec(place, random.Random("k 3 rec"))
    assert (found[0].turn.prompt, found[0].turn.answer) == (turn.prompt, turn.answer)


def test_ferrets_referring_question_in_griffons_words():
    seen = Counter()
    for i in range(12):
        place = make_scene(i, 96, "test")
        turn, theirs = (
            _make_griffon_rec(place, random.Random(i)),
            TASKS["rec"](place, random.Random(i), 0),
        )
        query, related = theirs.meta["query"], bool(theirs.meta["relation"])
        seen[related] += 1
        article = "an" if query[0] in "aeiou" else "a"
        if related:
            article = "the"
        assert turn.task == "rec" and turn.prompt == f"Where is {article} {query}? Give every box."
        h, w = place.size
        box = theirs.meta["box"]
        numbers = ",".join(f"{v:.3f}" for v in (box.x1 / w, box.y1 / h, box.x2 / w, box.y2 / h))
        assert turn.answer == f"{query}-[{numbers}]" and turn.meta == theirs.meta
    assert min(seen[True], seen[False]) > 1
    assert _make_griffon_rec(Scene(None, SIZE), random.Random(0)) is None


def test_ferrets_counting_question_in_griffons_words():
    turn = _make_griffon_count(scene("count"), "cup")
    assert (turn.task, turn.prompt) == ("find", "Where is a cup? Give every box.")
    assert turn.answer == "cup-[0.400,0.500,0.600,0.917]&cup-[0.700,0.083,0.950,0.250]"
    assert turn.meta == dict(groundings=[Grounding("cup", [B]), Grounding("cup", [C])], n=2)
    assert _make_griffon_count(scene("count", ("umbrella",)), "umbrella").prompt.startswith(
        "Where is an umbrella?"
    )
    assert _make_griffon_count(scene("count"), "owl").answer == "None"


def test_a_griffon_counts_what_there_is_most_of():
    place = scene(
        "count", ("star", "cup", "cup", "star", "anchor")
    )  # two stars and two cups: the later name
    found = _make_griffon_questions(place, "k")
    assert [(q.turn.task, q.group) for q in found] == [
        ("find", ""),
        ("search", "count.same"),
        ("search", "count.cross"),
    ]
    assert found[0].turn.prompt == "Where is a star? Give every box."
    assert [(q.turn.meta["kind"], q.turn.meta["source"], q.turn.meta["n"]) for q in found[1:]] == [
        ("star", "same", 2),
        ("star", "other", 2),
    ]
    for q, source in zip(found[1:], ("same", "other")):
        turn = ask_like(place, "star", source, random.Random(f"k {source}"))
        assert (
            q.turn.prompt == turn.prompt == "Find all objects like <crop>."
            and q.turn.answer == turn.answer
        )
        ours, theirs = q.turn.crops[0], turn.crops[0]
        assert ours.box == theirs.box and ours.image.tobytes() == theirs.image.tobytes()
    assert (
        found[1].turn.crops[0].image is place.image
        and found[2].turn.crops[0].image is not place.image
    )
    more = _make_griffon_questions(scene("count", ("star", "cup", "cup")), "k")
    assert more[0].turn.prompt == "Where is a cup? Give every box."
    assert _make_griffon_questions(scene("count", ()), "k") == []


def test_a_griffon_searches_for_what_has_no_name():
    place = scene("novel", ("novel 4", "cup", "novel 7", "cup", "novel 7"))
    kinds = Counter()
    for key in range(12):
        [found] = _make_griffon_questions(place, key)
        assert (found.turn.task, found.group, found.turn.meta["source"]) == (
            "search",
            "find.novel",
            "other",
        )
        kind = random.Random(f"{key} novel").choice(["novel 4", "novel 7"])
        assert (
            found.turn.meta["kind"] == kind
            and found.turn.meta["n"] == {"novel 4": 1, "novel 7": 2}[kind]
        )
        kinds[kind] += 1
    assert len(kinds) == 2
    assert _make_griffon_questions(scene("novel", ("cup", "star")), "k") == []


# -- records


@pytest.mark.parametrize(
    "phrase, kind",
    [
        ("filled red star", "star"),
        ("outlined blue dice 3", "dice 3"),
        ("pink cup", "cup"),
        ("star", "star"),
        ("red", "red"),
        ("red filled", "filled"),
        ("star red", "star red"),
        ("big red star", "big red star"),
        ("", ""),
    ],
)
def test_the_kind_in_a_full_name(phrase, kind):
    assert _read_kind(phrase) == kind


def test_the_first_box_of_an_answer():
    assert (
        take_first_box(answer("", Grounding("x", []), Grounding("y", [C, A]), Grounding("z", [B])))
        == C
    )
    assert (
        take_first_box(answer()) is None and take_first_box(answer("", Grounding("x", []))) is None
    )


SAID = answer(
    "3 cups", Grounding("filled pink cup", [C, A], [0.75, 0.5]), Grounding("", [B], [0.25])
)
TRUTH = [Grounding("cup", [B, C]), Grounding("star", [A])]
EVERYTHING = [("star", A), ("cup", B), ("cup", C)]


def record(task, split="test", said=SAID, **meta):
    return _score_answer(Question(scene(split), Turn(task, "?", "", meta=meta)), said)


def test_what_becomes_of_an_answer():
    boxes = [A, B, C]
    assert record("rec", box=B) == RecResult(B, C, SIZE, boxes)
    assert record("rec", box=B, said=answer()) == RecResult(B, None, SIZE, boxes)
    assert record("phrase", groundings=TRUTH) == PhraseResult(TRUTH, SAID.groundings, SIZE, boxes)
    assert record("find_phrases", groundings=TRUTH) == PhraseResult(
        TRUTH, SAID.groundings, SIZE, boxes
    )
    choice = record("choose", form="mask", answer="cup", options=("star", "cup"))
    assert (
        choice == ChoiceResult("mask", "cup", ["star", "cup"], "3 cups")
        and type(choice.options) is list
    )
    for task in ("name", "tell"):
        assert record(task, phrase="red cup") == NameResult("red cup", "3 cups", 648)
    assert record("word", text="OWL") == WordResult("OWL", "3 cups", 474552)
    assert type(record("word", text="OWL")) is WordResult
    assert record("count", n=5) == CountResult(5, 3)
    assert record("count", n=5, said=answer("many")) == CountResult(5, None)


def test_what_becomes_of_detections():
    found = [("cup", C, 0.75), ("cup", A, 0.5)]  # what has no name is no detection
    assert record("dense_detection") == DetectionResult(SIZE, EVERYTHING, found)
    truth = [("cup", B), ("cup", C), ("star", A)]
    named = [("filled pink cup", C, 0.75), ("filled pink cup", A, 0.5), ("", B, 0.25)]
    assert record("find_set", groundings=TRUTH) == DetectionResult(SIZE, truth, named)
    it = [("it", C, 0.75), ("it", A, 0.5), ("it", B, 0.25)]
    truth = [("it", B), ("it", C), ("it", A)]
    assert record("search", "novel", groundings=TRUTH, n=3) == DetectionResult(SIZE, truth, it)
    assert record("search", "count", groundings=TRUTH, n=5) == CountResult(5, 3)


def test_finding_is_counting_or_presence():
    assert record("find", n=5, groundings=TRUTH) == CountResult(5, 3)
    assert record("find", n=0, groundings=[], said=answer("None")) == CountResult(0, 0)
    assert record("find", groundings=TRUTH) == PresenceResult(True, True)
    assert record("find", groundings=[]) == PresenceResult(False, True)
    assert record("find", groundings=TRUTH, said=answer("None")) == PresenceResult(True, False)
    with pytest.raises(ValueError, match="score, task: found 'caption', expected one of"):
        record("caption")


# -- batches


def asked(*lengths, task="name"):
    return [Question(scene(), Turn(task, f"question {i}", "x" * n)) for i, n in enumerate(lengths)]


def test_long_answers_come_first_and_equal_ones_in_order():
    questions = asked(3, 9, 5, 9, 1, 5, 7)
    assert _batch_by_length(questions, 3) == [[1, 3, 6], [2, 5, 0], [4]]
    assert _batch_by_length(questions, 100) == [[1, 3, 6, 2, 5, 0, 4]]
    assert _batch_by_length([], 3) == []


def test_every_question_is_asked_with_what_belongs_to_it_and_answered_in_place():
    places = [scene(), scene("count"), scene("large")]
    crop = Crop(places[0].image)
    questions = [
        Question(places[0], Turn("word", "a <region>", "x" * 5, [Point(3, 4)])),
        Question(places[1], Turn("rec", "b", "x" * 30)),
        Question(places[2], Turn("search", "c <crop>", "x" * 9, [], {}, [crop])),
    ]
    ferret, shares = Recorder(), []
    found = answer_questions(ferret, questions, 2, shares.append)
    assert [a.text for a in found] == ["to a <region>", "to b", "to c <crop>"]
    first, second = ferret.calls
    assert (
        first.prompts == ["b", "c <crop>"]
        and first.regions == [[], []]
        and first.crops == [[], [crop]]
    )
    assert first.images[0] is places[1].image and first.images[1] is places[2].image
    assert (first.cap, first.batch) == (448, 2)  # the largest of its tasks
    assert (
        second.prompts == ["a <region>"] and second.regions == [[Point(3, 4)]] and second.cap == 24
    )
    assert shares == pytest.approx(
        [70 / 115, 45 / 115]
    )  # 40 for the prompt and one for each letter


def test_unknown_tasks_are_cut_at_256_tokens_and_32_are_asked_at_once():
    ferret = Recorder()
    found = answer_questions(ferret, asked(*range(40), task="other"))
    assert [a.text for a in found] == [f"to question {i}" for i in range(40)]
    assert [(len(c.prompts), c.cap, c.batch) for c in ferret.calls] == [(32, 256, 32), (8, 256, 32)]
    assert answer_questions(ferret, []) == []


def test_portions():
    assert list(_split_into_portions(iter(range(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(_split_into_portions(range(6), 3)) == [[0, 1, 2], [3, 4, 5]]
    assert list(_split_into_portions([], 3)) == []
    endless = _split_into_portions(iter(int, 1), 2)
    assert next(endless) == [0, 0]


# -- suites


def test_the_scenes_of_a_suite(monkeypatch):
    monkeypatch.setattr(evaluation, "make_scene", lambda *arguments: arguments)
    assert list(_make_suite_scenes(2, 3)) == [
        ("3 test 0", (3_000_000, 384, "test")),
        ("3 test 1", (3_000_001, 384, "test")),
        ("3 count 0", (3_000_000, 384, "count")),
        ("3 count 1", (3_000_001, 384, "count")),
    ]
    assert [key for key, _ in _make_suite_scenes(1)] == ["0 test 0", "0 count 0"]
    assert list(_make_suite_scenes(1, 0, "count", (96, 128))) == [
        ("0 count 0", (0, (96, 128), "count"))
    ]
    assert [key for key, _ in _make_suite_scenes(1, 2, "val", others=("count", "novel"))] == [
        "2 val 0",
        "2 count 0",
        "2 novel 0",
    ]
    seen = [{numbers[0] for _, numbers in _make_suite_scenes(2000, seed)} for seed in range(3)]
    assert len(set.union(*seen)) == 6000  # no two seeds share a scene


class Bar:
    """Stands for tqdm's bar."""

    made = []

    def __init__(self, **options):
        self.options, self.updates = options, []
        Bar.made.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def update(self, n):
        self.updates.append(n)


def test_a_silent_model_is_asked_everything(monkeypatch):
    monkeypatch.setattr(
        evaluation, "make_scene", lambda seed, size, split: make_scene(seed, 96, split)
    )
    monkeypatch.setattr(evaluation, "tqdm", Bar)
    monkeypatch.setattr(evaluation, "_SCENES_PER_PORTION", 3)
    Bar.made.clear()
    ferret = Recorder()
    found = evaluate(ferret, n=5, seed=2, batch=4, progress=False, closer=False)
    assert {
        key: m["n"]
        for key, m in found.items()
        if key in ("rec.acc@0.5", "name.acc", "count.mae", "det.mAP")
    } == {
        "rec.acc@0.5": 5,
        "name.acc": 5,
        "count.mae": 5,
        "det.mAP": 5,
    }
    assert (
        found["rec.acc@0.5"]["value"] == found["det.mAP"]["value"] == 0
        and found["count.mae"]["value"] >= 1
    )
    assert "roc.box" in found or "roc.point" in found or "roc.mask" in found
    expected = [
        q.turn.prompt
        for split in ("test", "count")
        for i in range(5)
        for q in make_questions(make_scene(2_000_000 + i, 96, split), f"2 {split} {i}")
    ]
    assert Counter(p for c in ferret.calls for p in c.prompts) == Counter(expected)
    assert {c.batch for c in ferret.calls} == {4} and max(len(c.prompts) for c in ferret.calls) == 4
    [bar] = Bar.made
    assert bar.options["file"] is sys.stderr
    assert (
        bar.options["total"] == 10
        and bar.options["disable"] is True
        and sum(bar.updates) == pytest.approx(10)
    )


def test_a_list_of_scenes_is_a_suite(monkeypatch):
    monkeypatch.setattr(evaluation, "tqdm", Bar)
    Bar.made.clear()
    places = [make_scene(i, 96, split) for i, split in enumerate(("test", "count", "large"))]
    ferret = Recorder()
    found = evaluate(ferret, places, seed=4, closer=False)
    assert found["rec.acc@0.5"]["n"] == 2 and found["count.mae"]["n"] == 1
    expected = [q.turn.prompt for i, s in enumerate(places) for q in make_questions(s, f"4 {i}")]
    assert Counter(p for c in ferret.calls for p in c.prompts) == Counter(expected)
    assert Bar.made[0].options["total"] == 3 and Bar.made[0].options["disable"] is False
    with pytest.raises(ValueError, match="found 0 records and no question"):
        evaluate(Recorder(), [], progress=False)


def test_other_splits_and_a_griffons_suite(monkeypatch):
    drawn = []

    def draw(seed, size, split):
        drawn.append((seed, split))
        return make_scene(seed, 96, split)

    monkeypatch.setattr(evaluation, "make_scene", draw)
    monkeypatch.setattr(evaluation, "tqdm", Bar)
    Bar.made.clear()
    evaluate(Recorder(), n=1, split="large", progress=False, closer=False)
    assert drawn == [(0, "large"), (0, "count")]
    drawn.clear()
    found = evaluate(Recorder("griffon"), n=2, progress=False, closer=False)
    assert drawn == [(seed, split) for split in ("test", "count", "novel") for seed in (0, 1)]
    drawn.clear()
    evaluate(Recorder("griffon"), n=1, split="novel", progress=False, closer=False)
    assert drawn == [(0, "novel"), (0, "count")]
    assert [b.options["total"] for b in Bar.made] == [2, 6, 2]
    groups = {
        "count.mae",
        "count.same.mae",
        "count.cross.mae",
        "find.novel.mAP",
        "find.novel.AP50",
        "rec.acc@0.5",
        "det.mAP",
    }
    assert (
        groups <= set(found)
        and [found[key]["n"] for key in ("count.mae", "count.same.mae", "find.novel.mAP")]
        == [2] * 3
    )


def test_a_griffons_groups_are_scored_apart():
    """Two scenes of two and one cups; one box is said for each search, from the same and from
    another image.
    """
    places = [scene("count"), scene("count", ("cup",))]
    like = answer("", Grounding("", [A], [0.5]))
    asked_for = answer("", Grounding("cup", [A, B, C], [0.5] * 3))
    ferret = Recorder(
        "griffon",
        {"Find all objects like <crop>.": like, "Where is a cup? Give every box.": asked_for},
    )
    found = evaluate(ferret, places, progress=False)
    assert {key: m["value"] for key, m in found.items()} == {
        "count.mae": 1.5,  # 3 for 2, 3 for 1
        "count.same.mae": 0.5,  # 1 for 2, 1 for 1
        "count.cross.mae": 0.5,
    }


def test_what_cannot_be_evaluated(monkeypatch):
    with pytest.raises(ValueError, match="suite: found 'coco'"):
        evaluate(Recorder(), "coco")
    for n in (0, -1):
        with pytest.raises(ValueError, match="n: found"):
            evaluate(Recorder(), n=n)
    monkeypatch.setattr(
        evaluation, "find_spec", lambda name: None if name == "pycocotools" else name
    )
    with pytest.raises(ImportError, match="pip install"):
        evaluate(Recorder(), n=1)
