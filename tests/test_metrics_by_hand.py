"""Every metric on numbers that a person can check: formulas, constants, defaults, borders and
orders.
"""

import math

import numpy as np
import pytest

from ferretlite.common.errors import InputError
from ferretlite.evaluation import detection, metrics
from ferretlite.evaluation.detection import (
    DetectionResult,
    answer_from_next_image,
    answer_with_mean_boxes,
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
    PresenceResult,
    RecResult,
    WordResult,
    compute_choice_metrics,
    compute_count_metrics,
    compute_name_metrics,
    compute_phrase_metrics,
    compute_presence_metrics,
    compute_rec_metrics,
    compute_word_metrics,
    find_best_fixed_box,
    find_size_class,
    is_right,
    make_fixed_boxes,
    match_phrases,
    merge_boxes,
)
from ferretlite.evaluation.scores import format_metrics_table, score_results
from ferretlite.evaluation.statistics import (
    compute_bootstrap_interval,
    compute_wilson_interval,
    make_metric,
    make_rate_metric,
)
from ferretlite.regions.choices import find_chosen_option, normalise_name, read_count
from ferretlite.regions.geometry import Box, box_iou
from ferretlite.regions.grammar import Grounding

A, B, C = Box(0, 0, 10, 10), Box(20, 0, 30, 10), Box(40, 0, 50, 10)
SIZE = (60, 100)  # height, width


# -- constants and intervals


def test_constants():
    assert metrics.IOU_RIGHT == 0.5
    assert metrics.SIZE_CLASSES == ("small", "medium", "large")
    assert metrics.REGION_FORMS == ("point", "box", "mask")
    assert metrics.PHRASE_PROTOCOLS == {"merged": "phrase.acc", "any": "phrase.any"}
    assert detection.RECALL_LEVELS.tolist() == pytest.approx([k / 100 for k in range(101)])
    assert detection.IOU_THRESHOLDS.tolist() == pytest.approx(
        [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    )


@pytest.mark.parametrize(
    "hits, n, interval",
    [  # R: prop.test(hits, n, correct = FALSE)
        (7, 10, [0.39678, 0.89221]),
        (1, 3, [0.06149, 0.79234]),
        (50, 100, [0.40383, 0.59617]),
        (0, 20, [0.0, 0.16113]),
        (20, 20, [0.83887, 1.0]),
        (0, 1, [0.0, 0.79346]),
        (1, 1, [0.20654, 1.0]),
    ],
)
def test_wilson_by_the_textbook(hits, n, interval):
    assert compute_wilson_interval(hits, n) == pytest.approx(interval, abs=2e-5)


def test_wilson_solves_its_equation():
    "The bounds are the rates p at which the observed rate lies z standard errors away."
    for z in (1.0, 2.5):
        for bound in compute_wilson_interval(3, 11, z):
            assert abs(3 / 11 - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / 11))
    assert compute_wilson_interval(3, 11) == compute_wilson_interval(3, 11, 1.96)


def test_the_bootstrap_is_centred_on_the_samples_own_value():
    """The standard deviation of a resample is too small on average: the interval is shifted by that
    much.
    """
    values = np.array([1.0, 2, 4, 8, 16, 32])
    rng = np.random.default_rng(5)
    drawn = [values[rng.integers(0, 6, 6)].std() for _ in range(40)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    shift = values.std() - np.mean(drawn)
    assert shift > 0.5
    found = compute_bootstrap_interval(lambda index: values[index].std(), 6, resamples=40, seed=5)
    assert found == pytest.approx([low + shift, min(high + shift, max(drawn))])


def test_the_bootstrap_stays_within_what_was_seen():
    "The maximum never exceeds the sample's, and a constant has an interval of no width."
    values = np.array([3.0, 1, 7, 5])
    low, high = compute_bootstrap_interval(lambda index: values[index].max(), 4)
    assert high == 7 and low < 7
    low, high = compute_bootstrap_interval(lambda index: values[index].min(), 4)
    assert low == 1 and high > 1
    assert compute_bootstrap_interval(lambda index: 2.5, 4) == [2.5, 2.5]


def test_the_bootstrap_draws_a_thousand_times_from_seed_zero():
    values = np.array([1.0, 2, 4, 8, 16, 32])
    rng = np.random.default_rng(0)
    drawn = np.array([values[rng.integers(0, 6, 6)].mean() for _ in range(1000)])
    expected = np.percentile(drawn, [2.5, 97.5]) + values.mean() - drawn.mean()
    found = compute_bootstrap_interval(lambda index: values[index].mean(), 6)
    assert found == pytest.approx(expected.tolist()) and isinstance(found, list)


def test_the_fields_of_a_metric_are_plain_numbers():
    found = make_metric(np.float32(0.5), np.int64(3), np.array([0.25, 0.75]), np.float64(0.125), 1)
    assert found == dict(value=0.5, n=3, ci95=[0.25, 0.75], chance=0.125, constant=1.0)
    assert [type(v) for v in found.values()] == [float, int, list, float, float]
    found = make_rate_metric([True, False, False], [0.5, 0.25, 0.0], 0.75)
    assert found == dict(
        value=pytest.approx(1 / 3),
        n=3,
        ci95=pytest.approx([0.06149, 0.79234], abs=2e-5),
        chance=0.25,
        constant=0.75,
    )


# -- referring expressions


def test_right_is_an_iou_of_one_half():
    assert is_right(Box(0, 0, 8, 4), Box(0, 0, 8, 2)) and not is_right(
        Box(0, 0, 8, 4), Box(0, 0, 8, 1.99)
    )
    assert not is_right(A, None) and is_right(A, A)


@pytest.mark.parametrize(
    "w, h, name",
    [
        (19.9, 3, "small"),
        (20, 3, "medium"),
        (3, 20, "medium"),
        (40, 3, "medium"),
        (3, 40, "medium"),
        (3, 40.1, "large"),
        (41, 41, "large"),
    ],
)
def test_sizes_begin_at_a_twelfth_and_a_sixth(w, h, name):
    for size in ((240, 999), (999, 240)):
        assert find_size_class(Box(5, 7, 5 + w, 7 + h), size) == name


def test_a_rec_result_is_checked_and_clipped():
    result = RecResult(Box(-9, 5, 200, 90), None, SIZE, [A])
    assert result.truth == Box(0, 5, 100, 60)
    for box in (Box(-9, 5, 0, 9), Box(5, 60, 9, 70), Box(3, 3, 3, 9)):
        with pytest.raises(ValueError, match="without area"):
            RecResult(box, None, SIZE, [A])
    with pytest.raises(ValueError, match="candidates"):
        RecResult(A, A, SIZE, [])


def test_fixed_boxes_step_by_half_their_side():
    boxes = make_fixed_boxes()
    assert boxes.shape == (1 + 9 + 49 + 225 + 961, 4)  # (2 / side - 1) squared
    assert boxes[0].tolist() == [0, 0, 1, 1]
    assert boxes[1:5].tolist() == [
        [0, 0, 0.5, 0.5],
        [0.25, 0, 0.75, 0.5],
        [0.5, 0, 1, 0.5],
        [0, 0.25, 0.5, 0.75],
    ]
    assert boxes[10].tolist() == [0, 0, 0.25, 0.25] and boxes[-1].tolist() == [
        15 / 16,
        15 / 16,
        1,
        1,
    ]
    assert boxes.min() == 0 and boxes.max() == 1


def test_the_best_fixed_box_by_hand():
    "Two of three boxes lie in the lower left quarter of their images, which are not of one shape."
    boxes = [Box(0, 30, 50, 60), Box(0, 100, 20, 200), Box(80, 0, 100, 20)]
    box, share = find_best_fixed_box(boxes, [(60, 100), (200, 40), (60, 100)])
    assert share == pytest.approx(2 / 3) and isinstance(share, float)
    unit = Box(*box.tolist())
    assert box_iou(unit, Box(0, 0.5, 0.5, 1)).item() >= 0.5
    # the mean of the boxes is tried as well: no square fits these
    boxes = [Box(0, 20, 100, 22), Box(0, 20, 100, 22.5)]
    box, share = find_best_fixed_box(boxes, [SIZE, SIZE])
    assert share == 1 and box.tolist() == pytest.approx([0, 20 / 60, 1, 22.25 / 60])


def test_any_box_of_a_group_counts_once():
    quarters = [Box(0, 0, 50, 30), Box(50, 30, 100, 60)]
    assert find_best_fixed_box([quarters, [quarters[1]]], [SIZE, SIZE])[1] == 1
    assert find_best_fixed_box([[quarters[0], quarters[0]], [quarters[1]]], [SIZE, SIZE])[1] == 0.5


def test_rec_by_hand():
    small, medium, large = (
        Box(0, 0, 4, 3),
        Box(20, 10, 28, 17),
        Box(50, 20, 90, 55),
    )  # shorter side 60: 5 and 10
    pool = [small, medium, large, Box(50, 20, 90, 50)]
    results = [
        RecResult(small, small, SIZE, pool),
        RecResult(small, None, SIZE, pool),
        RecResult(medium, large, SIZE, pool[:2]),
        RecResult(large, Box(50, 20, 90, 54), SIZE, pool),
        RecResult(large, large, SIZE, [large]),
    ]
    found = compute_rec_metrics(results)
    assert list(found) == ["rec.acc@0.5", "rec.small", "rec.medium", "rec.large"]
    assert [m["value"] for m in found.values()] == pytest.approx([3 / 5, 1 / 2, 0, 1])
    assert [m["n"] for m in found.values()] == [5, 2, 1, 2]
    # one of four, one of four, one of two, two of four (its own and 30 of 35 rows), one of one
    assert [m["chance"] for m in found.values()] == pytest.approx([0.5, 0.25, 0.5, 0.75])
    assert found["rec.small"]["constant"] == 1 and found["rec.acc@0.5"][
        "constant"
    ] == pytest.approx(2 / 5)
    assert found["rec.small"]["ci95"] == pytest.approx(compute_wilson_interval(1, 2))
    assert compute_rec_metrics([]) == {} and list(compute_rec_metrics(results[3:])) == [
        "rec.acc@0.5",
        "rec.large",
    ]


# -- choosing and naming


@pytest.mark.parametrize(
    "text, name",
    [
        ("A Cat.", "cat"),
        ("the red_umbrella", "red umbrella"),
        ("An owl", "owl"),
        ("a", "a"),
        ("The", "the"),
        ("a the cat", "the cat"),
        ("cat a", "cat a"),
        ("theatre", "theatre"),
        ("T-shirt", "t shirt"),
        ("ﬁsh", "fish"),  # a ligature
        ("Ｃａｔ", "cat"),  # full width
        ("m²", "m2"),
        ("Straße", "strasse"),
        ("  two   words ", "two words"),
        ("?!", ""),
    ],
)
def test_normalised_names(text, name):
    assert normalise_name(text) == name


@pytest.mark.parametrize(
    "denial",
    ["not", "no", "never", "neither", "nor", "isnt", "isn't", "isn’t", "than", "instead of"],
)
@pytest.mark.parametrize("article", ["", "a ", "an ", "the "])
def test_every_denial_denies_the_word_after_it(denial, article):
    assert find_chosen_option(f"It is {denial} {article}cat", ["cat", "dog"]) is None
    assert find_chosen_option(f"a dog {denial} {article}cat", ["cat", "dog"]) == "dog"
    assert (
        find_chosen_option(f"It is {denial} big cat", ["cat", "dog"]) == "cat"
    )  # only the word after it


def test_words_that_hold_a_denial_deny_nothing():
    for text in ("a knot cat", "piano cat", "notcat cat", "Nothing but a cat", "no, a cat"):
        assert find_chosen_option(text, ["cat", "dog"]) == "cat"


def test_one_option_must_be_named():
    options = ["red cup", "blue cup", "cup"]
    assert find_chosen_option("the red cup", options) == "red cup"
    assert find_chosen_option("a cup", options) == "cup"
    assert find_chosen_option("red cup or blue cup", options) is None
    assert find_chosen_option("a red cup. Red cup!", options) == "red cup"
    assert find_chosen_option("red, cup", options) == "red cup"
    assert find_chosen_option("redcup", options) is None
    # the shorter name begins, ends or stands inside the longer one
    for name in ("toy", "car", "race"):
        assert find_chosen_option("a toy race car", [name, "toy race car"]) == "toy race car"
        assert find_chosen_option("a toy race car", ["toy race car", name]) == "toy race car"
        assert find_chosen_option(f"a toy race car, a {name}", [name, "toy race car"]) is None
    assert find_chosen_option(None, options) is None and find_chosen_option("", options) is None


def test_synonyms_stand_for_their_option():
    synonyms = {"sofa": ["couch", "settee"], "tv": ["television"]}
    options = ["sofa", "tv"]
    assert find_chosen_option("a couch", options, synonyms) == "sofa"
    assert find_chosen_option("a settee or sofa", options, synonyms) == "sofa"
    assert find_chosen_option("a couch and a television", options, synonyms) is None
    assert find_chosen_option("a couch", options) is None
    result = ChoiceResult("box", "tv", options, "The Television", synonyms)
    assert compute_choice_metrics([result])["roc.box"]["value"] == 1
    assert ChoiceResult("box", "tv", options, None).synonyms == {}


def test_choices_by_form():
    three = ["cat", "dog", "owl"]
    results = [
        ChoiceResult("point", "cat", ["cat", "dog"], "cat"),
        ChoiceResult("box", "dog", three, "owl"),
        ChoiceResult("box", "owl", three, "owl"),
        ChoiceResult("box", "owl", ["cat", "owl"], None),
        ChoiceResult("mask", "cat", three, "not a cat"),
    ]
    found = compute_choice_metrics(results)
    assert list(found) == ["roc.point", "roc.box", "roc.mask"]
    assert [(m["value"], m["n"]) for m in found.values()] == [
        (1, 1),
        (pytest.approx(1 / 3), 3),
        (0, 1),
    ]
    assert [m["chance"] for m in found.values()] == pytest.approx(
        [1 / 2, (1 / 3 + 1 / 3 + 1 / 2) / 3, 1 / 3]
    )
    # always the last option is right twice of three times, always the first never
    assert [m["constant"] for m in found.values()] == pytest.approx([1, 2 / 3, 1])
    assert compute_choice_metrics([]) == {}
    for form in ("point", "box", "mask"):
        assert ChoiceResult(form, "cat", three, None).form == form
    with pytest.raises(ValueError, match="letter or digit"):
        ChoiceResult("box", "cat", ["cat", "!?"], None)


def test_names_by_hand():
    results = [
        NameResult("a red cup", "Red cup.", 10),
        NameResult("red cup", "red cups", 10),
        NameResult("blue cup", "red cup", 40),
        NameResult("star", None, 40),
    ]
    expected = dict(
        value=0.25,
        n=4,
        ci95=pytest.approx(compute_wilson_interval(1, 4)),
        chance=pytest.approx(0.0625),
        constant=0.5,
    )
    assert compute_name_metrics(results) == {"name.acc": expected}
    assert compute_word_metrics([WordResult("OWL", "owl", 1)])["word.acc"]["chance"] == 1
    assert compute_name_metrics([]) == compute_word_metrics([]) == {}
    for kind in (NameResult, WordResult):
        with pytest.raises(ValueError, match="at least one"):
            kind("star", None, 0)
        with pytest.raises(ValueError, match="letter or digit"):
            kind("-", None, 5)


# -- phrases


def test_merged_boxes_by_hand():
    assert merge_boxes([Box(5, 2, 9, 4), Box(3, 3, 7, 11)]) == Box(3, 2, 9, 11)
    assert merge_boxes([C]) == C


def test_phrase_results_lose_what_lies_outside():
    result = PhraseResult(
        [Grounding("cups", [Box(90, 50, 130, 70), Box(100, 0, 120, 9), A])], [], SIZE
    )
    assert result.truth[0].boxes == [Box(90, 50, 100, 60), A] and result.candidates is None
    for boxes in ([], [Box(100, 0, 120, 9)]):
        with pytest.raises(ValueError, match="no true box|without area"):
            PhraseResult([Grounding("cup", boxes)], [], SIZE)
    with pytest.raises(ValueError, match="letter or digit"):
        PhraseResult([Grounding("?", [A])], [], SIZE)


def test_which_answer_belongs_to_which_phrase():
    truth = [Grounding("gear", [A]), Grounding("owl", [B]), Grounding("the Gear", [C])]

    def pair(*answer):
        return match_phrases(truth, list(answer))

    assert pair(Grounding("gear", [C]), Grounding("Owl", [A, B]), Grounding("gear", [A])) == [
        [C],
        [A, B],
        [A],
    ]
    assert pair(Grounding("gear", [C, B]), Grounding("gear", [A])) == [[C, B], [], [A]]
    assert pair(Grounding("gear", [C])) == [[C], [], []]
    assert pair(Grounding("gear", [C, B])) == [
        [C],
        [],
        [B],
    ]  # two boxes under one name for two phrases
    assert pair(Grounding("gear", [A, B, C])) == [[A, B, C], [], []]
    assert pair(Grounding("cat", [A])) == [[], [], []]


def test_phrases_by_hand():
    wide = Box(0, 0, 50, 10)
    truth = [
        Grounding("cups", [A, C]),
        Grounding("owl", [B]),
        Grounding("gear", [Box(20, 0, 30, 20)]),
    ]
    answer = [Grounding("cups", [C, A]), Grounding("owl", [A, B])]
    results = [
        PhraseResult(truth, answer, SIZE, candidates=[A, B, C, wide]),
        PhraseResult([Grounding("owl", [B])], [Grounding("owl", [B])], (90, 40)),
    ]
    # merged: cups (0-50) right, owl (0-30) wrong, gear missing, owl right
    merged = compute_phrase_metrics(results)
    assert list(merged) == ["phrase.acc"] == list(compute_phrase_metrics(results, "merged"))
    assert (merged["phrase.acc"]["value"], merged["phrase.acc"]["n"]) == (0.5, 4)
    # of four candidates: wide; B; B (half of gear); of its one true box: that
    assert merged["phrase.acc"]["chance"] == pytest.approx((1 / 4 + 1 / 4 + 1 / 4 + 1) / 4)
    # any: C is one of the cups; owl's first box is A, wrong; gear missing; owl right
    some = compute_phrase_metrics(results, "any")
    assert list(some) == ["phrase.any"]
    assert (some["phrase.any"]["value"], some["phrase.any"]["n"]) == (0.5, 4)
    assert some["phrase.any"]["chance"] == pytest.approx((2 / 4 + 1 / 4 + 1 / 4 + 1) / 4)
    assert compute_phrase_metrics([]) == {}
    with pytest.raises(ValueError, match="merged or any"):
        compute_phrase_metrics(results, "all")


def test_the_constant_of_phrases_is_the_best_box_for_their_image_sizes():
    """The lower right quarter is right for two of three phrases; in pixels the three have nothing
    in common.
    """
    boxes, sizes = (
        [Box(50, 30, 100, 60), Box(20, 90, 40, 180), A],
        [(60, 100), (180, 40), (60, 100)],
    )
    results = [PhraseResult([Grounding("x", [b])], [], s) for b, s in zip(boxes, sizes)]
    assert compute_phrase_metrics(results)["phrase.acc"]["constant"] == pytest.approx(2 / 3)
    assert compute_phrase_metrics(results, "any")["phrase.any"]["constant"] == pytest.approx(2 / 3)


# -- detection


def test_average_precision_with_weights_by_hand():
    """Weights 2, 1, 3: right 2, 2, 5 of 10; precision 1, 2/3, 5/6, at best 1, 5/6, 5/6 from there
    on.
    """
    # recalls 0 to .2 (21 of 101) at precision 1, .21 to .5 (30) at 5/6, nothing above
    found = compute_average_precision(np.array([1, 0, 1]), np.array([2.0, 1, 3]), 10)
    assert found == pytest.approx((21 + 30 * 5 / 6) / 101)
    assert compute_average_precision(np.array([1.0]), np.array([1.0]), 1) == 1
    assert compute_average_precision(np.array([0, 1]), np.ones(2), 1) == pytest.approx(0.5)
    assert compute_average_precision(np.zeros(0), np.zeros(0), 3) == 0
    assert (
        compute_average_precision(np.array([1, 1]), np.array([0.0, 1]), 1) == 1
    )  # an image that was not drawn


def test_detection_results_are_normalised_and_checked():
    result = DetectionResult(SIZE, [("The Red_Cup", A)], [("a red cup", B, np.float32(0.5))])
    assert result.truth == [("red cup", A)] and result.answer == [("red cup", B, 0.5)]
    assert type(result.answer[0][2]) is float
    for bad in (None, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite number"):
            DetectionResult(SIZE, [], [("cup", A, bad)])


def both(results):
    "Our (mAP, AP50), after a look at pycocotools' answer."
    ours = compute_mean_average_precision(results)
    assert ours == pytest.approx(compute_coco_average_precision(results), abs=1e-9)
    return ours


def test_of_truths_that_fit_equally_the_last_is_taken():
    """The surer box fits both truths by 9/11, the other one fits only the first (8/12): it must be
    left for it.
    """
    truth = [("cup", Box(0, 0, 10, 10)), ("cup", Box(2, 0, 12, 10))]
    answer = [("cup", Box(1, 0, 11, 10), 0.9), ("cup", Box(-2, 0, 8, 10), 0.8)]
    value, at_half = both([DetectionResult(SIZE, truth, answer)])
    assert at_half == 1
    # both count up to .65, the first alone up to .8 (recall 1/2: 51 of 101 points), nothing above
    assert value == pytest.approx((4 * 1 + 3 * 51 / 101) / 10)


def test_a_box_takes_the_truth_that_fits_best_and_only_one():
    truth = [("cup", Box(0, 0, 10, 10)), ("cup", Box(3, 0, 13, 10))]
    answer = [
        ("cup", Box(1, 0, 11, 10), 0.9),
        ("cup", Box(4, 0, 14, 10), 0.8),
        ("cup", Box(0, 0, 10, 10), 0.7),
    ]
    # .9 takes the first (9/11 against 8/12), .8 the second (9/11), .7 finds the first taken
    value, at_half = both([DetectionResult(SIZE, truth, answer)])
    assert at_half == 1
    # from .85 on only the last box of three counts (1): precision 1/3 up to recall 1/2
    assert value == pytest.approx((7 * 1 + 3 * (51 / 3) / 101) / 10)


def test_an_iou_at_the_threshold_counts_and_scores_order_boxes_over_images():
    half = Box(0, 0, 10, 5)
    results = [
        DetectionResult(SIZE, [("cup", A)], [("cup", half, 0.2), ("cup", C, 0.6)]),
        DetectionResult(SIZE, [("cup", B)], [("cup", B, 0.4)]),
        DetectionResult(SIZE, [("owl", B)], [("gear", B, 0.9), ("owl", B, 0.1)]),
    ]
    value, at_half = both(results)
    # cups from the surest: wrong, right, right: precision 1/2 to recall 1/2, 2/3 after: 2/3
    # everywhere
    # from .55 on: wrong, right, wrong: 1/2 up to recall 1/2; owls: 1 always; gears are in no truth
    assert at_half == pytest.approx((2 / 3 + 1) / 2)
    assert value == pytest.approx((0.1 * 2 / 3 + 0.9 * 51 / 2 / 101 + 1) / 2)


def test_a_hundred_boxes_of_a_name_count_in_each_image():
    far = [("cup", Box(40, 40, 50, 50), 0.9)] * 99
    right = ("cup", A, 0.5)
    assert both([DetectionResult(SIZE, [("cup", A)], [right, *far])])[1] == pytest.approx(1 / 100)
    assert both([DetectionResult(SIZE, [("cup", A)], [right, *far, far[0]])])[1] == 0
    more = [("owl", B, 0.9)] * 50
    assert both([DetectionResult(SIZE, [("cup", A)], [right, *far, *more])])[1] == pytest.approx(
        1 / 100
    )


def test_borrowed_answers_come_from_the_next_image_at_its_size():
    results = [
        DetectionResult((60, 100), [("cup", Box(10, 6, 50, 30))], [("cup", A, 0.3)]),
        DetectionResult((30, 200), [("owl", Box(100, 3, 200, 30)), ("cup", A)], []),
        DetectionResult((10, 10), [], []),
    ]
    found = answer_from_next_image(results)
    assert [r.size for r in found] == [(60, 100), (30, 200), (10, 10)]
    assert [r.truth for r in found] == [r.truth for r in results]
    assert found[0].answer == [("owl", Box(50, 6, 100, 60), 1.0), ("cup", Box(0, 0, 5, 20), 1.0)]
    assert found[1].answer == [] and found[2].answer == [("cup", Box(1, 1, 5, 5), 1.0)]
    assert [r.answer for r in answer_from_next_image(results[:1])] == [[]]


def test_constant_answers_are_mean_places_at_each_images_size():
    results = [
        DetectionResult((60, 100), [("cup", Box(10, 6, 50, 30)), ("owl", Box(0, 0, 100, 60))], []),
        DetectionResult((30, 200), [("cup", Box(100, 3, 200, 30))], []),
        DetectionResult((10, 10), [("cup", Box(0, 4, 3, 6))], [("cup", A, 0.4)]),
    ]
    # cups: (.1, .1, .5, .5), (.5, .1, 1, 1) and (0, .4, .3, .6), on average (.2, .2, .6, .7)
    found = answer_with_mean_boxes(results)
    assert [r.truth for r in found] == [r.truth for r in results]
    for r, (h, w) in zip(found, [(60, 100), (30, 200), (10, 10)]):
        assert r.size == (h, w)
        assert [(name, sure) for name, _, sure in r.answer] == [("cup", 1.0), ("owl", 1.0)]
        assert r.answer[0][1].list() == pytest.approx([0.2 * w, 0.2 * h, 0.6 * w, 0.7 * h])
        assert r.answer[1][1].list() == pytest.approx([0, 0, w, h])


def detections():
    "Four images, ten boxes with scores that all differ."
    rows = [
        ([A, C], [(A, 0.95), (B, 0.9), (Box(40, 0, 50, 7), 0.35)]),
        ([B], [(Box(20, 0, 30, 6), 0.8), (A, 0.75)]),
        ([A, B], [(A, 0.6), (C, 0.55)]),
        ([C], [(B, 0.5), (C, 0.4), (A, 0.45)]),
    ]
    return [
        DetectionResult(SIZE, [("cup", b) for b in t], [("cup", b, s) for b, s in a])
        for t, a in rows
    ]


def test_detection_metrics_by_hand():
    results = detections()
    found = compute_detection_metrics(results)
    assert list(found) == ["det.mAP", "det.AP50"] and [m["n"] for m in found.values()] == [4, 4]
    # at .5 from the surest: yes, no, yes, no, yes, no, no, no, yes, yes; five of six truths
    at_half = (17 * (1 + 2 / 3 + 3 / 5) + 33 / 2) / 101
    assert found["det.AP50"]["value"] == pytest.approx(at_half)
    assert [m["value"] for m in found.values()] == pytest.approx(
        compute_mean_average_precision(results)
    )
    # borrowed, all equally sure, image by image: no; no, yes; no; no, yes
    assert [m["chance"] for m in found.values()] == pytest.approx([34 / 3 / 101] * 2)
    # the mean place is B: no, yes, yes, no
    assert [m["constant"] for m in found.values()] == pytest.approx([34 * 2 / 3 / 101] * 2)
    assert (
        compute_detection_metrics([DetectionResult(SIZE, [], [("cup", A, 0.5)])])
        == {}
        == compute_detection_metrics([])
    )


def test_detection_intervals_resample_images():
    "A hundred draws from seed 0; an image that is drawn twice counts twice."
    results = detections()
    found = compute_detection_metrics(results, seed=2, resamples=30)
    rng = np.random.default_rng(2)
    drawn = [
        compute_mean_average_precision([results[i] for i in rng.integers(0, 4, 4)])
        for _ in range(30)
    ]
    for k, m in enumerate(found.values()):
        values = [pair[k] for pair in drawn]
        bounds = np.percentile(values, [2.5, 97.5]) + m["value"] - np.mean(values)
        bounds = np.clip(bounds, min(m["value"], *values), max(m["value"], *values))
        assert m["ci95"] == pytest.approx(bounds.tolist(), abs=1e-6)
    assert compute_detection_metrics(results) == compute_detection_metrics(results, 100, 0)
    assert (
        compute_detection_metrics(results)
        != compute_detection_metrics(results, 99)
        != compute_detection_metrics(results, 99, 1)
    )


# -- counting, presence, all together


def test_counts_by_hand():
    results = [
        CountResult(1, 1),
        CountResult(2, 5),
        CountResult(6, None),
        CountResult(0, None),
        CountResult(9, 7),
    ]
    found = compute_count_metrics(results)["count.mae"]
    assert (found["value"], found["n"]) == (pytest.approx((0 + 3 + 6 + 1 + 2) / 5), 5)
    pairs = [abs(a - b) for a in (1, 2, 6, 0, 9) for b in (1, 2, 6, 0, 9)]
    assert found["chance"] == pytest.approx(sum(pairs) / 25)
    assert found["constant"] == pytest.approx((1 + 0 + 4 + 2 + 7) / 5)  # always 2, the median
    errors = np.array([0.0, 3, 6, 1, 2])
    for seed in (0, 4):
        interval = compute_bootstrap_interval(lambda index: errors[index].mean(), 5, 1000, seed)
        assert compute_count_metrics(results, seed)["count.mae"]["ci95"] == pytest.approx(interval)
    assert (
        compute_count_metrics(results, 0)["count.mae"] == found and compute_count_metrics([]) == {}
    )
    odd = [CountResult(n, n) for n in (1, 2, 9)]  # the mean, 4, would be off by 10 / 3
    assert compute_count_metrics(odd)["count.mae"]["constant"] == pytest.approx(8 / 3)


NUMBER_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()


@pytest.mark.parametrize("n, word", list(enumerate(NUMBER_WORDS)))
def test_number_words(n, word):
    assert read_count(f"I see {word.capitalize()} cups.") == n


@pytest.mark.parametrize(
    "text, n",
    [
        ("no one", 0),
        ("thirteen", 13),
        ("3 of 5", 5),
        ("four, no: 6", 6),
        ("6 or four", 4),
        ("1,234,567 cups", 1234567),
        ("12,34", None),  # a decimal comma
        ("123456789", 123456789),
        ("1234567890", None),  # ten digits
        ("x5", None),
        ("5x", None),
        ("2.", 2),
        ("1: cup [1, 2, 3, 4], 2: cup [5, 6, 7, 8], 3: cu", 3),
        ("1: cup [1, 2, 3, 4], 2: cup [5, 6, 7, 8]; 4 in all", 4),
        ("10: cup 3", 10),
        ("cup [7, 8, 9", None),
        ("2 cups [7, 8, 9, 10]", 2),
        ("at [7, 8] 3 [9, 9]", 3),
        ("ninety", 90),
        ("someone", None),
        ("two_three", 3),
    ],
)
def test_the_last_number_outside_of_boxes(text, n):
    assert read_count(text) == n


def test_presence_is_the_mean_of_two_rates():
    "There: 3 of 4 found. Not there: 1 of 2. Balanced 5/8, where 4 of 6 are right."
    pairs = [(True, True)] * 3 + [(True, False), (False, False), (False, True)]
    results = [PresenceResult(truth, answer) for truth, answer in pairs]
    found = compute_presence_metrics(results)
    assert list(found) == ["absent.balanced_acc"]
    m = found["absent.balanced_acc"]
    assert (m["value"], m["n"], m["chance"], m["constant"]) == (0.625, 6, 0.5, 0.5)

    truth, right = np.array([1, 1, 1, 1, 0, 0]), np.array([1, 1, 1, 0, 1, 0])

    def balanced(index):
        sides = [right[index][truth[index] == side] for side in (1, 0)]
        return np.mean([side.mean() for side in sides if len(side)])

    for seed in (0, 3):
        expected = compute_bootstrap_interval(balanced, 6, 1000, seed)
        assert compute_presence_metrics(results, seed)["absent.balanced_acc"][
            "ci95"
        ] == pytest.approx(expected)
    assert m == compute_presence_metrics(results, 0)["absent.balanced_acc"]


def test_presence_needs_both_kinds():
    assert compute_presence_metrics([]) == {}
    for side in (True, False):
        assert (
            compute_presence_metrics([PresenceResult(side, True), PresenceResult(side, False)])
            == {}
        )
    always = [PresenceResult(truth, True) for truth in (True, True, True, False)]
    assert compute_presence_metrics(always)["absent.balanced_acc"]["value"] == 0.5


def test_score_gives_each_kind_to_its_metric_in_a_fixed_order():
    results = [
        PresenceResult(True, True),
        PresenceResult(False, True),
        CountResult(3, 4),
        DetectionResult(SIZE, [("cup", A)], [("cup", A, 0.5)]),
        PhraseResult([Grounding("cup", [A])], [], SIZE),
        WordResult("OWL", "owl", 4),
        NameResult("owl", "cat", 5),
        ChoiceResult("mask", "cat", ["cat", "dog"], "cat"),
        RecResult(C, C, SIZE, [C]),
    ]
    found = score_results(results)
    expected = {
        "rec.acc@0.5": 1,
        "rec.medium": 1,
        "roc.mask": 1,
        "name.acc": 0,
        "word.acc": 1,
        "phrase.acc": 0,
        "det.mAP": 1,
        "det.AP50": 1,
        "count.mae": 1,
        "absent.balanced_acc": 0.5,
    }
    assert {key: m["value"] for key, m in found.items()} == pytest.approx(expected)
    assert list(found) == list(expected)
    assert found["name.acc"]["chance"] == 0.2 and found["word.acc"]["chance"] == 0.25
    for bad in ({"box": A}, None):
        with pytest.raises(InputError, match="results, record 1: found"):
            score_results([CountResult(1, 1), bad])


def test_a_table_of_metrics_by_hand():
    found = {
        "rec": make_metric(0.5, 12, [0.25, 0.75], 0.125, 1),
        "absent.balanced_acc": make_metric(2, 3456789, [0, 1], 0.0625, 0.3),
    }
    assert format_metrics_table(found).splitlines() == [
        "metric               value   95 % interval  chance  constant        n",
        "rec                  0.500  [0.250, 0.750]   0.125     1.000       12",
        "absent.balanced_acc  2.000  [0.000, 1.000]   0.062     0.300  3456789",
    ]
