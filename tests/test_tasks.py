"""Tasks: fair questions, true relations, answers that read back to the truth."""

import math
import random
import re

import pytest

from ferretlite.regions.geometry import Box, Mask, Point, encode_box
from ferretlite.regions.grammar import parse_groundings
from ferretlite.scenes.conversations import make_conversation
from ferretlite.scenes.descriptions import (
    Query,
    Relation,
    count_rivals,
    draw_attribute_query,
    draw_relation_query,
    find_family,
    list_descriptions,
)
from ferretlite.scenes.griffon_tasks import GRIFFON_TASKS
from ferretlite.scenes.questions import (
    CROP,
    GRIFFON_WORDINGS,
    GROUNDING_SWITCH,
    WORDINGS,
    Crop,
    Turn,
    draw_inner_point,
    make_plural,
    write_prompt,
)
from ferretlite.scenes.tasks import BOX_ORDERS, MAX_DENSE_OBJECTS, TASKS, list_raster_scan
from ferretlite.scenes.world import (
    KINDS,
    NOVEL_KINDS,
    Phrase,
    Scene,
    SceneObject,
    make_example,
    make_scene,
)

SCENES = [
    make_scene(s, (160, 224), split)
    for split in ("train", "val", "count", "unseen", "large")
    for s in range(8)
]
DRAWS = [(scene, random.Random(f"{scene.id} {k}")) for scene in SCENES for k in range(3)]


def asked(task, wording=None):
    "Every (scene, turn) that the draws give for a task."
    turns = (
        (scene, (TASKS | GRIFFON_TASKS)[task](scene, random.Random(rng.random()), wording))
        for scene, rng in DRAWS
    )
    found = [(scene, turn) for scene, turn in turns if turn]
    assert found, f"no scene can pose {task}"
    return found


def star(color, fill, x, y, side=20, name="star"):
    return SceneObject(name, Box(x, y, x + side, y + side), None, color, fill)


def photo(*names):
    "A scene as read from a data set: no attributes, no masks."
    return Scene(
        None,
        (100, 100),
        [SceneObject(n, Box(9 * i, 5, 9 * i + 8, 50)) for i, n in enumerate(names)],
        "photo",
    )


def fits(thing, words):
    "An independent reading of a bare description: every word of it is true of the object."
    for kind in sorted({thing.name, find_family(thing.name)}, key=len, reverse=True):
        if re.search(rf"\b{kind}\b", words):
            rest = words.replace(kind, "", 1).split()
            return all(w in (thing.color, thing.fill, thing.text) for w in rest)
    return False


# -- referring expressions


def test_attribute_query_matches_exactly_one_object():
    for scene, rng in DRAWS:
        found = draw_attribute_query(scene, rng)
        if found:
            assert [i for i, o in enumerate(scene.objects) if fits(o, found[0].phrase)] == [
                found[1]
            ], found[0].phrase


def test_rec_question_without_relation_has_one_answer():
    plain = [(s, t) for s, t in asked("rec") if not t.meta["relation"]]
    for scene, turn in plain:
        assert [i for i, o in enumerate(scene.objects) if fits(o, turn.meta["query"])] == [
            turn.meta["object"]
        ], turn.prompt
    assert len(plain) > 50


def test_rec_prefers_targets_with_both_rivals():
    contested = [
        (s, t) for s, t in asked("rec") if not t.meta["relation"] and s.split in ("train", "val")
    ]
    assert sum(min(t.meta["rivals"]) > 0 for _, t in contested) > 0.6 * len(contested)


def centre(box):
    return (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2


def clearly(relation, thing, anchor, size):
    "Whether a direction holds by the margin: written out once more, in plain arithmetic."
    (x, y), (_ax, _ay), m = centre(thing.box), centre(anchor.box), 0.05 * min(size)
    return {
        "left": x <= anchor.box.x1 - m,
        "right": x >= anchor.box.x2 + m,
        "above": y <= anchor.box.y1 - m,
        "below": y >= anchor.box.y2 + m,
    }[relation]


def clearly_not(relation, thing, anchor):
    (x, y), (ax, ay) = centre(thing.box), centre(anchor.box)
    return {"left": x >= ax, "right": x <= ax, "above": y >= ay, "below": y <= ay}[relation]


def test_relations_are_true_by_their_margin_and_for_one_object_only():
    seen, eps = set(), 1e-6
    for scene, rng in DRAWS:
        found = draw_relation_query(scene, rng)
        if not found:
            continue
        (query, target), things, short = found, scene.objects, min(scene.size)
        seen.add(query.relation)
        fitting = [i for i, o in enumerate(things) if fits(o, query.query.phrase)]
        assert target in fitting and len(fitting) > 1
        if query.relation == "largest":
            assert all(
                things[target].box.area >= 1.5 * things[i].box.area - eps
                for i in fitting
                if i != target
            )
            continue
        anchors = [i for i, o in enumerate(things) if fits(o, query.anchor.phrase)]
        assert len(anchors) == 1 and target not in anchors, query.phrase
        anchor, others = (
            things[anchors[0]],
            [things[i] for i in fitting if i not in (target, anchors[0])],
        )
        assert others, query.phrase
        if query.relation == "nearest":

            def away(o, anchor=anchor):
                return math.dist(centre(o.box), centre(anchor.box))

            assert all(away(o) - away(things[target]) >= 0.1 * short - eps for o in others), (
                query.phrase
            )
        else:
            assert clearly(query.relation, things[target], anchor, scene.size), query.phrase
            assert all(clearly_not(query.relation, o, anchor) for o in others), query.phrase
    assert seen == {"left", "right", "above", "below", "nearest", "largest"}


def test_close_calls_select_nobody():
    things = [
        star("red", "filled", 10, 40),
        star("blue", "filled", 38, 70),
        star("red", "filled", 40, 40, name="umbrella"),
    ]
    left = Relation(Query("star"), "left", Query("umbrella"))
    assert (
        left.select(things, (100, 100)) == []
    )  # the blue star is only just left of the umbrella's centre
    things[1] = star("blue", "filled", 70, 70)
    assert left.select(things, (100, 100)) == [0]
    assert Relation(Query("star"), "largest").select(things, (100, 100)) == []
    assert (
        Relation(Query("star"), "left", Query(color="red")).select(things, (100, 100)) == []
    )  # two anchors


def test_queries_match_by_subset_of_attributes():
    red, blue = star("red", "filled", 0, 0), star("blue", "outlined", 30, 0)
    assert [q.phrase for q in list_descriptions(red)] == [
        "star",
        "red star",
        "filled star",
        "filled red star",
    ]
    assert all(q.matches(red) for q in list_descriptions(red))
    assert [q.matches(blue) for q in list_descriptions(red)] == [True, False, False, False]
    assert count_rivals([red, blue, star("red", "filled", 0, 30, name="moon")], 0) == (1, 1)


# -- answers


@pytest.mark.parametrize("task", ["rec", "phrase", "dense_detection", "grounded_caption"])
def test_answers_read_back_to_the_truth_within_half_a_bin(task):
    for scene, turn in asked(task):
        read = parse_groundings(turn.answer, scene.size)
        boxes = [b for g in read for b in g.boxes]
        truth = (
            [b for g in turn.meta["groundings"] for b in g.boxes]
            if task != "rec"
            else [turn.meta["box"]]
        )
        assert len(boxes) == len(truth), turn.answer
        h, w = scene.size
        for a, b in zip(boxes, truth):
            for x, y, side in zip(a.list(), b.list(), (w, h, w, h)):
                assert abs(x - y) / side * 1000 <= 0.5 + 1e-4
        if task != "rec":
            assert [g.name for g in read for _ in g.boxes] == [
                g.name for g in turn.meta["groundings"] for _ in g.boxes
            ]


def test_rec_answers_with_the_full_phrase():
    for scene, turn in asked("rec"):
        thing = scene.objects[turn.meta["object"]]
        if not thing.text:
            assert turn.answer.startswith(thing.phrase + " ["), turn.answer
        assert turn.meta["box"] == thing.box


def test_phrase_gives_every_box_of_each_phrase_once():
    for scene, turn in asked("phrase"):
        boxes = [b for g in turn.meta["groundings"] for b in g.boxes]
        assert len({tuple(b.list()) for b in boxes}) == len(boxes)
        assert 1 <= len(turn.meta["groundings"]) <= 4
        for g in turn.meta["groundings"]:
            assert g.name in turn.prompt
            fitting = [
                o.box
                for o in scene.objects
                if fits(o, g.name)
                or any(make_plural(q.phrase) == g.name for q in list_descriptions(o))
            ]
            assert {tuple(b.list()) for b in fitting} == {tuple(b.list()) for b in g.boxes}, (
                turn.answer
            )


def test_dense_detection_runs_in_raster_order_of_its_own_text():
    for _, turn in asked("dense_detection"):
        corners = [
            tuple(map(int, c)) for c in re.findall(r"\[(\d+), (\d+), (\d+), (\d+)\]", turn.answer)
        ]
        keys = [(y1, x1, y2, x2) for x1, y1, x2, y2 in corners]
        assert keys == sorted(keys) and len(keys) == len(turn.meta["objects"])


def test_dense_answers_keep_the_twelve_largest():
    crowd = [star("red", "filled", 2 * i, 90 - 3 * i, side=1 + i) for i in range(15)]
    assert (
        sorted(list_raster_scan(crowd, (300, 300))) == list(range(3, 15))
        and MAX_DENSE_OBJECTS == 12
    )


def test_dense_referring_names_each_region():
    for scene, turn in asked("dense_referring"):
        names = re.findall(r"\d+: ([^,]+)", turn.answer)
        assert (
            names == turn.meta["names"] == [scene.objects[i].phrase for i in turn.meta["objects"]]
        )


def test_count_answers_are_true_and_cover_zero_to_ten():
    seen = set()
    for scene, turn in asked("count"):
        n = sum(
            turn.meta["query"] == "object"
            or fits(o, turn.meta["query"])
            or turn.meta["query"] == f"{o.color} object"
            for o in scene.objects
        )
        pointed = [b for g in parse_groundings(turn.answer, scene.size) for b in g.boxes]
        assert turn.answer.endswith(f"{n} in all") and n == turn.meta["n"] == len(pointed) == len(
            turn.meta["groundings"]
        ), turn.prompt
        lefts = [encode_box(b, scene.size)[0] for b in pointed]
        assert lefts == sorted(lefts) and re.findall(r"(\d+): ", turn.answer) == [
            str(k + 1) for k in range(n)
        ], turn.answer  # from left to right, counted aloud
        seen.add(n)
    assert {0, 1, 2, 3, 4, 5, 6} <= seen


def test_large_numbers_are_counted_more_often_than_scenes_hold_them():
    stars = [star("red", "filled", 40 * k, 10) for k in range(7)]
    scene = Scene(
        None, (300, 300), stars + [star("blue", "filled", 40, 60, name="cup")], "stars"
    )  # it can pose 1, 7 and 8
    asked_for = [TASKS["count"](scene, random.Random(s)).meta["n"] for s in range(400)]
    drawn = [asked_for.count(n) / sum(1 for a in asked_for if a) for n in (1, 7, 8)]
    assert all(abs(share - n / 16) < 0.08 for share, n in zip(drawn, (1, 7, 8))), drawn


def test_choose_has_one_right_option_and_half_close_relatives():
    turns = asked("choose") + asked("choose", wording=0)
    for scene, turn in turns:
        thing, (a, b) = scene.objects[turn.meta["object"]], turn.meta["options"]
        assert turn.answer in (a, b) and a in turn.prompt and b in turn.prompt
        assert [fits(thing, o) for o in (a, b)] == [o == turn.answer for o in (a, b)], (a, b)
    assert 0.35 < sum(t.meta["differs"] != "other" for _, t in turns) / len(turns) < 0.65
    assert 0.35 < sum(t.answer == t.meta["options"][0] for _, t in turns) / len(turns) < 0.65


def test_word_answers_with_the_letters():
    for scene, turn in asked("word"):
        assert turn.answer == scene.objects[turn.meta["object"]].text


def test_grounded_caption_is_the_caption_with_boxes():
    for scene, turn in asked("grounded_caption"):
        assert turn.prompt.endswith("\n" + GROUNDING_SWITCH)
        if len(scene.objects) <= MAX_DENSE_OBJECTS:
            assert re.sub(r" \[[^]]*\]", "", turn.answer) == scene.caption


# -- prompts and regions


def test_prompts_of_the_paper_are_exact():
    scene = photo("cat", "dog")

    def canonical(task):
        return TASKS[task](scene, random.Random(0), 0).prompt

    assert GROUNDING_SWITCH == "Include the coordinates for each mentioned object."
    assert (
        canonical("dense_referring")
        == "Please classify the objects in the following locations. 1: <region>, 2: <region>."
    )
    assert (
        canonical("dense_detection")
        == "Please localize visible objects in the image in a raster scan order."
    )
    assert (
        write_prompt("rec", query="the red umbrella")
        == "What is the location of the red umbrella in the image?"
    )
    assert (
        write_prompt("phrase", queries="the cat, the dog", listed="")
        == "What are the locations of the cat, the dog?"
    )
    assert (
        write_prompt("choose", a="cat", b="dog", an_a="", an_b="")
        == "Is the object <region> of the image a cat or a dog?"
    )


def test_answers_of_the_paper_are_exact():
    scene, rng = photo("cat", "dog"), random.Random(0)
    assert TASKS["dense_referring"](scene, rng, 0).answer in (
        "Here are the categories: 1: cat, 2: dog",
        "Here are the categories: 1: dog, 2: cat",
    )
    assert (
        TASKS["dense_detection"](scene, rng, 0).answer
        == "The objects are: 1: cat [0, 50, 80, 500], 2: dog [90, 50, 170, 500]"
    )


@pytest.mark.parametrize("task", list(TASKS))
def test_every_region_has_its_placeholder(task):
    for _, turn in asked(task):
        assert (
            turn.task == task
            and turn.prompt.count("<region>") == len(turn.regions)
            and "<region>" not in turn.answer
        )
        assert not re.search(r"[{}]", turn.prompt)


def test_a_turn_with_a_missing_region_is_refused():
    with pytest.raises(ValueError, match="1 <region> for 2 regions"):
        Turn("name", "<region>?", "cat", [Point(1, 1), Point(2, 2)])


def test_points_lie_on_their_objects():
    for scene, rng in DRAWS:
        thing = rng.choice(scene.objects)
        p = draw_inner_point(thing, scene.size, rng)
        assert thing.mask.to_mask(*scene.size)[int(p.y), int(p.x)]


def test_all_three_region_forms_occur():
    assert {t.meta["form"] for _, t in asked("name")} == {"point", "box", "mask"}
    assert {type(r) for _, t in asked("dense_referring") for r in t.regions} == {Point, Box, Mask}


def test_every_task_has_at_least_five_wordings():
    assert set(TASKS) - {"grounded_caption"} <= set(WORDINGS)
    assert all(len(set(w)) == len(w) >= (4 if k == "read" else 5) for k, w in WORDINGS.items())


def test_plurals():
    known = {
        "star": "stars",
        "dice 3": "dice 3",
        "dice": "dice",
        "cup": "cups",
        "wine glass": "wine glasses",
        "person": "people",
        "red mouse": "red mice",
    }
    assert {k: make_plural(k) for k in known} == known
    assert len({make_plural(k) for k in KINDS}) == len(KINDS)


# -- conversations


def test_conversations_are_deterministic_and_leave_global_randomness_alone():
    mixture = dict.fromkeys(TASKS, 1)
    random.seed(1)
    before = random.getstate()
    talks = [
        make_conversation(scene, mixture, random.Random(7), 5)
        for scene in SCENES[:20]
        for _ in range(2)
    ]
    assert random.getstate() == before
    assert all(a.turns == b.turns for a, b in zip(talks[::2], talks[1::2]))


def test_conversations_repeat_no_question_and_keep_to_their_tasks():
    for scene in SCENES[:20]:
        turns = make_conversation(scene, dict(rec=1, name=2, count=0), random.Random(3), 6).turns
        assert len({(t.prompt, t.answer) for t in turns}) == len(turns)
        assert {t.task for t in turns} <= {"rec", "name"}


def test_the_whole_image_is_asked_about_once():
    for scene in SCENES[:20]:
        drawn = [
            t.task
            for t in make_conversation(
                scene, dict(dense_detection=5, caption=5, name=1), random.Random(3), 4
            ).turns
        ]
        assert drawn.count("dense_detection") == drawn.count("caption") == 1


def test_long_answers_come_first_by_the_square_of_their_length():
    first = expected = 0
    for seed in range(200):  # in training what comes later may find no room
        turns = make_conversation(
            SCENES[seed % 8], dict(name=3, dense_detection=1), random.Random(seed), 5
        ).turns
        squares = [(len(t.answer) + 1) ** 2 for t in turns]
        if "dense_detection" in (listed := [t.task for t in turns]):
            first += turns[0].task == "dense_detection"
            expected += squares[listed.index("dense_detection")] / sum(squares)
    assert expected > 60 and abs(first - expected) < 0.1 * expected, (first, expected)


def test_unknown_task_is_named():
    with pytest.raises(ValueError, match="task: found 'sing', expected some of caption"):
        make_conversation(SCENES[0], {"sing": 1}, random.Random(0))


def test_objects_without_attributes_or_masks_pose_what_they_can():
    scene = photo("cat", "dog", "dog", "wine glass")
    for seed in range(20):
        for task, ask in TASKS.items():
            turn = ask(scene, random.Random(seed))
            assert (turn is None) == (task == "word"), task
            if task == "choose":
                assert set(turn.meta["options"]) <= {"cat", "dog", "wine glass"}


def test_an_empty_scene_poses_nothing():
    empty = Scene(None, (50, 50), [], "empty")
    assert make_conversation(empty, dict.fromkeys(TASKS, 1), random.Random(0)).turns == []


# Griffon's tasks


def boxes_of(turn, size):
    return [
        (g.name, b)
        for g in parse_groundings(turn.answer, size, "griffon", strict=True)
        for b in g.boxes
    ]


@pytest.mark.parametrize("task", [t for t in GRIFFON_TASKS if t != "tell"])
def test_griffons_answers_read_back_to_the_truth_from_left_to_right(task):
    for scene, turn in asked(task):
        truth = [(g.name, b) for g in turn.meta["groundings"] for b in g.boxes]
        read = boxes_of(turn, scene.size)
        assert (turn.answer == "None") == (not truth) and sorted(n for n, _ in read) == sorted(
            n for n, _ in truth
        )
        assert [b.x1 for _, b in truth] == sorted(b.x1 for _, b in truth)
        for name, box in truth:
            assert (
                min(
                    max(
                        abs(x - y) / side
                        for x, y, side in zip(b.list(), box.list(), scene.size[::-1] * 2)
                    )
                    for n, b in read
                    if n == name
                )
                < 0.00051
            )


def test_a_set_of_names_holds_absent_ones_and_every_box_of_the_present():
    several = empty = 0
    for scene, turn in asked("find_set"):
        names = turn.meta["names"]
        assert (
            len(set(names)) == len(names)
            and set(names) - {o.name for o in scene.objects}
            and all(n in turn.prompt for n in names)
        )
        assert sorted(
            o.box.list() for o in scene.objects if o.name in names and not o.text
        ) == sorted(b.list() for g in turn.meta["groundings"] for b in g.boxes)
        several += len(turn.meta["groundings"]) > 1
        empty += not turn.meta["groundings"]
    assert several and empty


def test_what_fits_several_or_nothing_is_answered_so():
    numbers = [len(turn.meta["groundings"]) for _, turn in asked("find")]
    assert (
        min(numbers) == 0
        and max(numbers) > 2
        and 0.1 < sum(n == 0 for n in numbers) / len(numbers) < 0.45
    )
    bare = [
        (s, t)
        for s, t in asked("find")
        if not re.search(r" of |nearest|largest|above|below", t.meta["query"])
    ]
    for scene, turn in bare:
        assert len(turn.meta["groundings"]) == sum(
            fits(o, turn.meta["query"])
            or turn.meta["query"].endswith("object")
            and all(w in (o.color, o.fill, "object") for w in turn.meta["query"].split())
            for o in scene.objects
        )


def test_an_example_stands_for_its_kind():
    sources, absent = set(), 0
    for scene, turn in asked("search"):
        crop, same = turn.crops[0], [o for o in scene.objects if o.name == turn.meta["kind"]]
        assert turn.prompt.count(CROP) == 1 and turn.meta["n"] == len(same) == len(
            turn.meta["groundings"]
        )
        if turn.meta["source"] == "same":
            assert crop.image is scene.image and crop.box in [o.box for o in same]
        else:
            assert crop.image is not scene.image and crop.box is None
        sources.add(turn.meta["source"])
        absent += not same
    assert sources == {"same", "other"} and absent


def test_examples_may_come_from_a_data_set():
    shown = Crop("other.png", Box(1, 1, 5, 5))
    turn = GRIFFON_TASKS["search"](
        SCENES[0], random.Random(0), 0, examples=lambda name, rng: shown, source="other"
    )
    assert turn.crops == [shown]
    assert (
        GRIFFON_TASKS["search"](
            SCENES[0], random.Random(0), 0, examples=lambda name, rng: None, source="other"
        )
        is None
    )


def test_a_told_box_stands_in_the_prompt_and_is_one_things_own():
    for scene, turn in asked("tell"):
        assert turn.answer == scene.objects[turn.meta["object"]].phrase and re.search(
            r"\[\d\.\d{3}(,\d\.\d{3}){3}\]", turn.prompt
        )


def test_six_wordings_a_task_that_mean_the_same():
    for task, texts in GRIFFON_WORDINGS.items():
        assert len(set(texts)) == 6
        for w in range(6):
            for _scene, turn in asked(task, w)[:2]:
                assert "{" not in turn.prompt and turn.prompt.count(CROP) == (task == "search")


def test_order_is_a_switch():
    assert set(BOX_ORDERS) == {"left", "raster"}
    for scene, _rng in DRAWS[:12]:
        left, raster = (
            GRIFFON_TASKS["find_set"](scene, random.Random(5), 0, order)
            for order in ("left", "raster")
        )
        if left:
            assert sorted(left.answer.split("&")) == sorted(raster.answer.split("&")) and [
                g.boxes[0].y1 for g in raster.meta["groundings"]
            ] == sorted(g.boxes[0].y1 for g in raster.meta["groundings"])


def test_a_conversation_hands_its_order_to_every_griffon_task_and_draws_nothing_for_it():
    ordered, moved = {"find", "find_set", "find_phrases", "search"}, set()
    mixture = dict.fromkeys([*GRIFFON_TASKS, "rec", "count"], 1)
    for number, scene in enumerate(SCENES):
        dice = {order: random.Random(number) for order in BOX_ORDERS}
        left, raster = (
            make_conversation(scene, mixture, dice[order], 7, order=order).turns
            for order in ("left", "raster")
        )
        assert [t.prompt for t in left] == [t.prompt for t in raster] and dice[
            "left"
        ].random() == dice["raster"].random()
        for a, b in zip(left, raster):
            if a.task not in ordered:
                assert a == b
                continue
            boxes = [g.boxes[0] for g in a.meta["groundings"]]
            assert [g.boxes[0] for g in b.meta["groundings"]] == sorted(
                boxes, key=BOX_ORDERS["raster"]
            ) and boxes == sorted(boxes, key=BOX_ORDERS["left"])
            tops = [box.y1 for _, box in boxes_of(b, scene.size)]  # as it is written
            assert tops == sorted(tops)
            if a.answer != b.answer:
                moved.add(a.task)
    assert moved == ordered


def test_written_phrases_keep_the_asked_order_too():
    scene = Scene(
        None,
        (100, 100),
        [],
        "told",
        phrases=[
            Phrase("a man", [Box(10, 60, 20, 90)]),
            Phrase("two dogs", [Box(50, 5, 60, 20), Box(30, 40, 40, 50)]),
        ],
    )
    for order, y1 in (("left", [60, 40, 5]), ("raster", [5, 40, 60])):
        [turn] = make_conversation(
            scene, dict(find_phrases=1), random.Random(0), 1, order=order
        ).turns
        assert [g.boxes[0].y1 for g in turn.meta["groundings"]] == y1


def test_an_unknown_order_is_refused_whatever_is_asked():
    for tasks in (dict(find_set=1), dict(rec=1), {}):
        with pytest.raises(ValueError, match="order: found 'top', expected one of left, raster."):
            make_conversation(SCENES[0], tasks, random.Random(0), order="top")
    with pytest.raises(ValueError, match="order: found 'top'"):
        GRIFFON_TASKS["find_set"](SCENES[0], random.Random(0), order="top")


def test_the_defaults_draw_what_they_always_drew():
    """Written down before `order` was an argument: a training that is repeated, or goes on, sees
    the same questions.
    """
    dice = random.Random(3)
    turns = make_conversation(
        photo("dog", "cat", "dog", "cup"), dict.fromkeys(GRIFFON_TASKS, 1) | dict(rec=1), dice, 5
    ).turns
    assert [(t.prompt, t.answer) for t in turns] == [
        (
            "Detect all objects of these kinds: flag, monkey, dog, envelope, cup.",
            "dog-[0.000,0.050,0.080,0.500]&dog-[0.180,0.050,0.260,0.500]&cup-[0.270,0.050,0.350,0.500]",
        ),
        ("Locate a dog.", "dog-[0.000,0.050,0.080,0.500]&dog-[0.180,0.050,0.260,0.500]"),
        ("find the cat", "cat [90, 50, 170, 500]"),
        (
            "Detect all objects of these kinds: cat, dog, knight.",
            "dog-[0.000,0.050,0.080,0.500]&cat-[0.090,0.050,0.170,0.500]&dog-[0.180,0.050,0.260,0.500]",
        ),
        ("Show all places where a cat can be seen.", "cat-[0.090,0.050,0.170,0.500]"),
    ]
    assert dice.random() == 0.8564005663967557


def test_data_without_attributes_poses_griffons_questions_too():
    scene = photo("dog", "cat", "dog")
    scene.names = ["dog", "cat", "cow"]
    for task in ("find_set", "find", "tell"):
        assert any(GRIFFON_TASKS[task](scene, random.Random(s)) for s in range(9)), task
    assert all(
        "novel" not in GRIFFON_TASKS["find_set"](scene, random.Random(s)).prompt for s in range(9)
    )


def test_novel_kinds_are_never_named_but_can_be_shown():
    for s in range(5):
        scene = make_scene(s, 160, "novel")
        assert {o.name for o in scene.objects} & set(NOVEL_KINDS) and not any(
            o.text for o in scene.objects
        )
    assert not any(o.name in NOVEL_KINDS for scene in SCENES for o in scene.objects)
    assert make_example("novel 3", 1).size == (96, 96) and len(
        set(NOVEL_KINDS.values()) | set(KINDS.values())
    ) == len(NOVEL_KINDS) + len(KINDS)


def test_scenes_and_examples_say_what_they_cannot_draw():
    import numpy as np

    from ferretlite.scenes.world import make_example, make_scene

    assert make_scene(0, np.int64(64)).size == make_scene(0, 64.0).size == (64, 64)
    with pytest.raises(ValueError, match="color: found 'teal'"):
        make_example("star", 0, color="teal")
    with pytest.raises(ValueError, match="fill: found 'dotted'"):
        make_example("star", 0, fill="dotted")
