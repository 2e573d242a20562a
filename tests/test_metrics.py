"""Metrics: numbers a person can check, cross-checks against pycocotools, and one test per defect of
the public evaluation scripts.
"""

import builtins
import json

import numpy as np
import pytest

from ferretlite.common.errors import InputError
from ferretlite.evaluation import detection
from ferretlite.evaluation.detection import (
    DetectionResult,
    compute_average_precision,
    compute_coco_average_precision,
    compute_detection_metrics,
    compute_mean_average_precision,
)
from ferretlite.evaluation.metrics import (
    ChoiceResult,
    CountResult,
    NameResult,
    PhraseResult,
    RecResult,
    WordResult,
    compute_choice_metrics,
    compute_count_metrics,
    compute_name_metrics,
    compute_phrase_metrics,
    compute_rec_metrics,
    compute_word_metrics,
    find_best_fixed_box,
    find_size_class,
    is_right,
    match_phrases,
    merge_boxes,
)
from ferretlite.evaluation.scores import format_metrics_table, score_results
from ferretlite.evaluation.statistics import (
    compute_bootstrap_interval,
    compute_wilson_interval,
    make_rate_metric,
)
from ferretlite.regions.choices import find_chosen_option, normalise_name, read_count
from ferretlite.regions.geometry import Box
from ferretlite.regions.grammar import Grounding

FIELDS = ("value", "n", "ci95", "chance", "constant")
SIZE = (100, 100)
PETS = ["cat", "dog"]
A, B, C = Box(0, 0, 10, 10), Box(20, 0, 30, 10), Box(40, 0, 50, 10)


def rec(truth, answer, candidates=None):
    return RecResult(truth, answer, SIZE, candidates or [truth])


def roc(answer, truth="cat", options=PETS):
    return compute_choice_metrics([ChoiceResult("box", truth, options, answer)])["roc.box"]["value"]


def random_detections(seed, n_images=30, names="abc"):
    "Moved, missed, doubled, misnamed and invented boxes with coarse (often tied) scores."
    rng = np.random.default_rng(seed)

    def image():
        corners = rng.uniform(0, 70, (rng.integers(0, 8), 2))
        sides = rng.uniform(5, 30, corners.shape)
        truth = [
            (str(rng.choice(list(names))), Box(*map(float, [*c, *(c + s)])))
            for c, s in zip(corners, sides)
        ]
        answer = []
        for name, box in truth:
            for _ in range(rng.integers(0, 3)):
                dx, dy = rng.normal(0, 2, 2)
                named = name if rng.random() < 0.9 else "z"
                answer.append(
                    (
                        named,
                        Box(box.x1 + dx, box.y1 + dy, box.x2 + dx, box.y2 + dy),
                        float(rng.integers(0, 6)) / 5,
                    )
                )
        answer += [(str(rng.choice(list(names))), Box(5.0, 5.0, 25.0, 25.0), float(rng.random()))]
        return DetectionResult(SIZE, truth, answer)

    return [image() for _ in range(n_images)]


# ---- intervals


def test_wilson_matches_textbook_values():
    assert compute_wilson_interval(7, 10) == pytest.approx([0.3968, 0.8922], abs=1e-3)
    assert compute_wilson_interval(0, 20) == pytest.approx([0.0, 0.1611], abs=1e-3)


def test_wilson_covers_the_true_rate():
    hits = np.random.default_rng(0).binomial(60, 0.9, 2000)
    low, high = np.array([compute_wilson_interval(int(h), 60) for h in hits]).T
    assert 0.93 < np.mean((low <= 0.9) & (0.9 <= high)) < 0.98


def test_bootstrap_is_seeded_and_brackets_the_mean():
    values = np.random.default_rng(1).normal(size=200)

    def mean(index):
        return values[index].mean()

    assert compute_bootstrap_interval(mean, 200, seed=3) == compute_bootstrap_interval(
        mean, 200, seed=3
    )
    low, high = compute_bootstrap_interval(mean, 200)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 200**0.5, rel=0.1)


# ---- referring expressions


def test_iou_of_exactly_half_is_right():
    assert is_right(Box(0, 0, 10, 10), Box(0, 0, 10, 5)) and not is_right(
        Box(0, 0, 10, 10), Box(0, 0, 10, 4.9)
    )


def test_size_classes_use_the_longer_side_over_the_shorter_image_side():
    assert find_size_class(Box(0, 0, 3, 19.9), (240, 999)) == "small"
    assert find_size_class(Box(0, 0, 3, 20), (999, 240)) == "medium"
    assert find_size_class(Box(0, 0, 40, 3), (240, 240)) == "medium"
    assert find_size_class(Box(0, 0, 40.1, 3), (240, 240)) == "large"


def test_rec_by_size_and_chance():
    small, large = Box(0, 0, 5, 5), Box(50, 50, 90, 90)
    found = compute_rec_metrics(
        [
            rec(small, small, [small, large]),
            rec(large, None, [small, large]),
            rec(large, large, [small, large, large, A]),
        ]
    )
    assert {k: (m["value"], m["n"]) for k, m in found.items()} == {
        "rec.acc@0.5": (2 / 3, 3),
        "rec.small": (1.0, 1),
        "rec.large": (0.5, 2),
    }
    assert found["rec.acc@0.5"]["chance"] == pytest.approx((1 / 2 + 1 / 2 + 2 / 4) / 3)


def test_unreadable_answers_are_wrong_and_stay_in_the_denominator():
    assert (
        compute_rec_metrics([rec(A, A), rec(A, None)])["rec.acc@0.5"]["value"],
        compute_rec_metrics([rec(A, None)])["rec.acc@0.5"]["n"],
    ) == (0.5, 1)


def test_a_constant_box_is_found_whatever_the_image_size():
    boxes, sizes = [Box(0, 0, 50, 50), Box(0, 0, 200, 100)], [(100, 100), (200, 400)]
    box, share = find_best_fixed_box(boxes, sizes)
    assert box.tolist() == pytest.approx([0, 0, 0.5, 0.5]) and share == 1.0


def test_true_boxes_are_clipped_to_the_image():
    "The public script computes the clipped truth and throws it away."
    assert (
        compute_rec_metrics([rec(Box(-50, 0, 50, 10), Box(0, 0, 50, 10))])["rec.acc@0.5"]["value"]
        == 1.0
    )


def test_a_truth_without_area_is_refused_not_silently_unanswerable():
    with pytest.raises(ValueError, match="without area inside"):
        rec(Box(3, 3, 3, 9), A)


def test_candidates_are_demanded():
    with pytest.raises(ValueError, match="candidates"):
        RecResult(A, A, SIZE, [])


# ---- choosing between two names: defects of the public LVIS script


def test_a_word_that_starts_with_no_is_not_a_denial():
    assert roc("a notebook, I think", "notebook", ["notebook", "dog"]) == 1.0
    assert roc("Nothing but a cat") == 1.0


def test_naming_both_options_is_wrong():
    assert roc("a cat or a dog") == 0.0 and roc("It could be a dog. It could be a cat.") == 0.0


def test_case_does_not_matter():
    assert roc("A CAT.") == 1.0


def test_a_denial_needs_no_comma():
    assert roc("a dog and not a cat") == 0.0 and roc("a cat and not a dog") == 1.0
    assert roc("It isn't a dog, it's a cat") == 1.0 and roc("a cat rather than a dog") == 1.0
    assert roc("No, a cat") == 1.0


def test_options_match_whole_words_only():
    assert roc("cattle") == 0.0 and roc("a wildcat") == 0.0


def test_an_option_inside_a_longer_one():
    assert find_chosen_option("a toy car", ["car", "toy car"]) == "toy car"
    assert find_chosen_option("a car", ["car", "toy car"]) == "car"
    assert find_chosen_option("a car, not a toy car", ["car", "toy car"]) == "car"


@pytest.mark.parametrize("answer", [None, "", "?!", "[12, 40", "not a cat", "\x00\ud800"])
def test_no_choice_is_a_wrong_choice(answer):
    assert roc(answer) == 0.0


def test_punctuation_and_underscores_in_options():
    assert find_chosen_option("a T-shirt", ["t-shirt", "c++ (book)"]) == "t-shirt"
    assert find_chosen_option("the hair dryer", ["hair_dryer", "cat"]) == "hair_dryer"


def test_always_first_is_the_constant_when_the_truth_always_stands_first():
    m = compute_choice_metrics([ChoiceResult("mask", "cat", PETS, "dog")] * 4)["roc.mask"]
    assert (m["value"], m["chance"], m["constant"]) == (0.0, 0.5, 1.0)


def test_choice_records_are_checked():
    with pytest.raises(ValueError, match="point, box, mask"):
        ChoiceResult("blob", "cat", PETS, "cat")
    with pytest.raises(ValueError, match="expected one of the options"):
        ChoiceResult("box", "owl", PETS, "cat")


# ---- names and words


def test_names_must_be_whole_phrases():
    results = [
        NameResult("filled red umbrella", said, 16)
        for said in (
            "A filled red umbrella.",
            "Filled  Red_Umbrella",
            "red umbrella",
            "filled red umbrella stand",
            None,
        )
    ]
    m = compute_name_metrics(results)["name.acc"]
    assert (m["value"], m["n"], m["chance"], m["constant"]) == (0.4, 5, 1 / 16, 1.0)


def test_a_name_without_letters_cannot_equal_an_empty_answer():
    with pytest.raises(ValueError, match="letter"):
        NameResult("!!", "", 4)


def test_an_article_alone_survives_normalisation():
    assert normalise_name("A") == "a" and normalise_name("the A") == "a"


def test_words_ignore_case_only():
    assert (
        compute_word_metrics([WordResult("OWL", "owl", 9), WordResult("OWL", "OWLS", 9)])[
            "word.acc"
        ]["value"]
        == 0.5
    )


# ---- phrases


def phrases(truth, answer, protocol="merged"):
    return next(
        iter(compute_phrase_metrics([PhraseResult(truth, answer, SIZE)], protocol).values())
    )["value"]


def test_merged_and_any_differ_where_they_should():
    truth, answer = [Grounding("two dice", [A, C])], [Grounding("two dice", [A])]
    assert phrases(truth, answer) == 0.0 and phrases(truth, answer, "any") == 1.0


def test_the_second_box_of_a_phrase_is_kept():
    "The public parser gives the second box of a phrase an empty name and drops it."
    assert phrases([Grounding("two dice", [A, C])], [Grounding("two dice", [A, C])]) == 1.0


def test_a_repeated_phrase_has_its_own_truth():
    "The public script compares every repeat with the first truth."
    truth = [Grounding("gear", [A]), Grounding("gear", [B])]
    assert phrases(truth, [Grounding("gear", [A]), Grounding("gear", [B])]) == 1.0
    assert phrases(truth, [Grounding("gear", [A]), Grounding("gear", [A])]) == 0.5
    assert match_phrases(truth, [Grounding("gear", [A, B])]) == [[A], [B]]


def test_missing_phrases_are_wrong_and_invented_ones_are_ignored():
    assert (
        phrases(
            [Grounding("gear", [A]), Grounding("owl", [B])],
            [Grounding("Gear", [A]), Grounding("cat", [C])],
        )
        == 0.5
    )


def test_only_the_first_box_counts_under_any():
    assert phrases([Grounding("gear", [A])], [Grounding("gear", [B, A])], "any") == 0.0


def test_chance_of_phrases_picks_from_the_scene():
    m = compute_phrase_metrics(
        [
            PhraseResult(
                [Grounding("gear", [A])], [], SIZE, candidates=[A, B, C, Box(60, 60, 80, 80)]
            )
        ]
    )["phrase.acc"]
    assert (m["value"], m["chance"]) == (0.0, 0.25)


def test_merge_boxes():
    assert merge_boxes([C, A]) == Box(0, 0, 50, 10)


# ---- detection


def test_average_precision_by_hand():
    assert compute_average_precision(np.array([1, 0, 1]), np.ones(3), 2) == pytest.approx(
        (51 * 1 + 50 * 2 / 3) / 101
    )
    assert compute_average_precision(np.array([0]), np.ones(1), 1) == 0.0


@pytest.mark.parametrize("seed", range(4))
def test_our_average_precision_equals_pycocotools(seed):
    pytest.importorskip("pycocotools")
    results = random_detections(seed)
    assert compute_mean_average_precision(results) == pytest.approx(
        compute_coco_average_precision(results), abs=1e-9
    )


def imperfect(scene, rng):
    """What a middling detector would say of a scene: boxes moved, missed, doubled, misnamed and
    invented, with coarse scores.
    """
    h, w = scene.size
    score, found = (lambda: float(rng.integers(1, 8)) / 8), []
    for o in scene.objects:
        if rng.random() < 0.2:
            continue
        for _ in range(rng.choice([1, 1, 2])):
            dx, dy = rng.normal(0, 0.08, 2) * (o.box.width, o.box.height)
            named = (
                o.name
                if rng.random() < 0.85
                else str(rng.choice(["star", "cup", "a thing nobody drew"]))
            )
            found.append(
                (named, Box(o.box.x1 + dx, o.box.y1 + dy, o.box.x2 + dx, o.box.y2 + dy), score())
            )
    corners = rng.uniform(0, 0.7, (2, 2)) * (w, h)
    return found + [
        (str(rng.choice([o.name for o in scene.objects])), Box(x, y, x + w / 5, y + h / 5), score())
        for x, y in corners.tolist()
    ]


def test_our_average_precision_of_exported_scenes_is_what_pycocotools_reads_from_their_file(
    tmp_path,
):
    """The truth comes from annotations.json on both sides: pycocotools reads it by itself, we
    through our reader.
    """
    coco, cocoeval = (
        pytest.importorskip("pycocotools.coco"),
        pytest.importorskip("pycocotools.cocoeval"),
    )
    from ferretlite.data.coco import CocoScenes
    from ferretlite.scenes.world import export_coco, make_scene

    path = export_coco(
        [make_scene(s, (128, 192), split) for split in ("train", "val", "count") for s in range(4)],
        tmp_path,
    )
    rng, scenes = np.random.default_rng(0), CocoScenes(tmp_path)
    results = [
        DetectionResult(s.size, [(o.name, o.box) for o in s.objects], imperfect(s, rng))
        for s in scenes
    ]

    truth = coco.COCO(str(path))
    numbers, files = (
        {c["name"]: c["id"] for c in truth.dataset["categories"]},
        [i["id"] for i in truth.dataset["images"]],
    )
    said = [
        dict(
            image_id=i, category_id=numbers[name], bbox=[b.x1, b.y1, b.width, b.height], score=score
        )
        for i, r in zip(files, results)
        for name, b, score in r.answer
        if name in numbers
    ]  # it knows no others
    run = cocoeval.COCOeval(truth, truth.loadRes(said), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    assert (
        len(results) == 12 and 0.2 < run.stats[0] < run.stats[1] < 0.9
    )  # neither lost nor perfect
    assert (
        compute_mean_average_precision(results)
        == pytest.approx(run.stats[:2].tolist(), abs=1e-9)
        == compute_coco_average_precision(results)
    )


def test_more_than_a_hundred_boxes_are_cut_like_pycocotools_does():
    pytest.importorskip("pycocotools")
    crowd = [
        (
            "a",
            Box(
                float(i % 12) * 8, float(i // 12) * 8, float(i % 12) * 8 + 6, float(i // 12) * 8 + 6
            ),
            1 - i / 200,
        )
        for i in range(120)
    ]
    results = [DetectionResult(SIZE, [(name, box) for name, box, _ in crowd], crowd)]
    assert compute_mean_average_precision(results) == pytest.approx(
        compute_coco_average_precision(results), abs=1e-9
    )


def test_weights_stand_for_repeated_images():
    results = random_detections(9, n_images=6)
    for i, r in enumerate(results):
        r.answer = [
            (name, box, 1 - k / 50 - i / 1000) for k, (name, box, _) in enumerate(r.answer)
        ]  # no ties
    weights = np.array([2.0, 0.0, 1.0, 3.0, 1.0, 0.0])
    repeated = [r for r, w in zip(results, weights) for _ in range(int(w))]
    weighted = detection._compute_weighted_ap(detection._match_all(results), weights, [0])
    assert weighted == pytest.approx(
        compute_mean_average_precision(repeated)[1], abs=0.02
    )  # a tie among copies is one step instead of several


def test_detection_has_five_fields_and_weak_opponents():
    pytest.importorskip("pycocotools")
    results = [
        DetectionResult(
            SIZE,
            [("owl", Box(x, x, x + 9.0, x + 9.0))],
            [("owl", Box(x, x, x + 9.0, x + 9.0), 0.5)],
        )
        for x in range(0, 90, 10)
    ]
    found = compute_detection_metrics(results)
    assert set(found) == {"det.mAP", "det.AP50"} and all(tuple(m) == FIELDS for m in found.values())
    assert (
        found["det.AP50"]["value"] == 1.0
        and found["det.AP50"]["chance"] == 0.0
        and found["det.AP50"]["constant"] < 0.2
    )
    assert found["det.AP50"]["ci95"] == [1.0, 1.0] and found["det.AP50"]["n"] == 9


def test_no_detections_at_all_score_zero():
    pytest.importorskip("pycocotools")
    assert (
        compute_detection_metrics([DetectionResult(SIZE, [("owl", A)], [])])["det.mAP"]["value"]
        == 0.0
    )
    assert compute_detection_metrics([DetectionResult(SIZE, [], [("owl", A, 0.3)])]) == {}


def test_scores_travel_with_their_boxes():
    """Griffon's public parser skips a malformed box and shifts every later score; here a box
    without a score is refused.
    """
    with pytest.raises(ValueError, match="score: found None, expected a finite number"):
        DetectionResult(SIZE, [], [("owl", A, None)])
    with pytest.raises(ValueError, match="score: found nan, expected a finite number"):
        DetectionResult(SIZE, [], [("owl", A, float("nan"))])


def test_missing_pycocotools_is_one_clear_sentence(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("pycocotools"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'ferretlite\[eval\]'"):
        compute_coco_average_precision([DetectionResult(SIZE, [("owl", A)], [])])


def test_a_thousand_images_are_scored_in_seconds():
    pytest.importorskip("pycocotools")
    import time

    results, start = random_detections(5, n_images=400, names="abcdefghijkl"), time.process_time()
    compute_detection_metrics(results, resamples=20)
    assert time.process_time() - start < 8


# ---- counting


def test_count_by_hand():
    m = compute_count_metrics([CountResult(1, 1), CountResult(2, 3), CountResult(6, None)])[
        "count.mae"
    ]
    assert (
        m["value"] == pytest.approx(7 / 3)
        and m["chance"] == pytest.approx(20 / 9)
        and m["constant"] == pytest.approx(5 / 3)
    )
    assert m["ci95"][0] <= m["value"] <= m["ci95"][1]


def test_silence_is_never_rewarded():
    "Public judges let unreadable scores enter a mean as -1."
    assert compute_count_metrics([CountResult(0, None)])["count.mae"]["value"] == 1.0


@pytest.mark.parametrize(
    "text, n",
    [
        ("7", 7),
        ("There are 12 stars.", 12),
        ("THREE dice", 3),
        ("someone", None),
        ("", None),
        (None, None),
        ("[120, 30, 1, 2]", None),
        ("1: dice 3, 2: dice 3; 2 in all", 2),
        ("1: cup [1, 2, 3, 4], 2: cup [5, 6, 7, 8]; 2 in all", 2),
        ("1: dice 3 [1, 2, 3, 4], 2: dice 3 [5, 6", 2),
        ("1: dice 3, 2: dice", 2),
        ("9" * 40, None),
        ("-", None),
    ],
)
def test_read_count(text, n):
    assert read_count(text) == n


# ---- together


def test_score_is_flat_and_survives_json():
    found = score_results(
        [
            rec(A, A),
            NameResult("owl", "owl", 3),
            WordResult("OWL", None, 3),
            CountResult(2, 2),
            ChoiceResult("point", "cat", PETS, "cat"),
        ]
    )
    assert list(found) == [
        "rec.acc@0.5",
        "rec.medium",
        "roc.point",
        "name.acc",
        "word.acc",
        "count.mae",
    ]
    assert json.loads(json.dumps(found)) == found and all(
        tuple(m) == FIELDS for m in found.values()
    )
    assert len(format_metrics_table(found).splitlines()) == 7


def test_nothing_gives_nothing():
    assert score_results([]) == {}


def test_strange_records_are_named():
    with pytest.raises(InputError, match="results, record 0: found dict, expected one of"):
        score_results([{"box": A}])


# Truths beyond the image, several true boxes, names and numbers


def test_a_phrases_truth_is_clipped_before_it_is_compared():
    """The public script compares a clipped answer to an unclipped truth, and a right answer is
    wrong.
    """
    [result] = [
        PhraseResult(
            [Grounding("cup", [Box(-100, 0, 40, 40)])],
            [Grounding("cup", [Box(0, 0, 40, 40)])],
            (40, 40),
        )
    ]
    assert (
        compute_phrase_metrics([result])["phrase.acc"]["value"]
        == compute_phrase_metrics([result], "any")["phrase.any"]["value"]
        == 1
    )
    with pytest.raises(ValueError, match="without area inside"):
        PhraseResult([Grounding("cup", [Box(50, 0, 90, 40)])], [], (40, 40))


def test_the_best_constant_may_hit_any_of_the_true_boxes():
    left, right = Box(0, 0, 40, 40), Box(60, 60, 100, 100)
    results = [
        PhraseResult([Grounding("cup", boxes)], [], (100, 100))
        for boxes in ([left, right], [right, left])
    ]
    assert compute_phrase_metrics(results, "any")["phrase.any"]["constant"] == 1


def test_a_long_key_does_not_shift_its_row():
    head, *rows = format_metrics_table(
        {
            key: make_rate_metric([True, False], [0.5, 0.5], 0.5)
            for key in ("absent.balanced_acc", "rec")
        }
    ).splitlines()
    assert len({len(line) for line in rows}) == 1 and head.index("value") + len("value") == rows[
        0
    ].index("0.500") + len("0.500")


def test_a_comma_between_thousands_is_no_end():
    assert read_count("There are 1,234 dice.") == 1234
    assert read_count("3, 4 or 5") == 5
    assert read_count("1,23") is None  # a decimal comma
