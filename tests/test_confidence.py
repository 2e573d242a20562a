"""Scores of boxes: evidence of tokens, fits, and what answers make of them."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_model import Scripted, small_ferret

from ferretlite.common.errors import InputError
from ferretlite.common.files import WEIGHTS
from ferretlite.evaluation import confidence
from ferretlite.evaluation.confidence import fit_boxes, fit_scores
from ferretlite.evaluation.metrics import ScoreResult, compute_score_metrics
from ferretlite.evaluation.statistics import compute_auroc, compute_calibration_error
from ferretlite.evaluation.suites import Question, list_judged_boxes, score_boxes
from ferretlite.exams.core import ExamItem
from ferretlite.exams.runs import _keep_answer
from ferretlite.model.answers import Answer
from ferretlite.model.decoding import NO_TOKEN, PlainDecoder
from ferretlite.model.inference import Ferret, gather_probabilities
from ferretlite.model.scoring import (
    BACK_FEATURES,
    FEATURES,
    SCORES_FILE,
    LogisticFit,
    ScoreFit,
    compare_names,
    find_box_kind,
    fit_logistic,
    list_nearby_digits,
    measure_box,
    measure_tokens,
    read_score_fit,
    score_groundings,
)
from ferretlite.regions.geometry import Box
from ferretlite.regions.grammar import Grounding, find_groundings, join_boxes, select_boxes
from ferretlite.scenes.questions import Turn
from ferretlite.scenes.world import make_scene

ROOT = Path(__file__).parent.parent
IMAGE = make_scene(3, 96).image


def constant_fit(probability, *kinds) -> ScoreFit:
    """A fit that gives every box of some kinds one probability."""
    bias = math.log(probability / (1 - probability))
    return ScoreFit({k: LogisticFit(["near"], [0.0], [1.0], [0.0], bias) for k in kinds})


# -- measures


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans()), min_size=1))
def test_auroc_is_the_share_of_pairs_in_order(pairs):
    wrong = [s for s, y in pairs if not y]
    order = [(s > w) + 0.5 * (s == w) for s, y in pairs if y for w in wrong]
    expected = np.mean(order) if order else 0.5
    assert compute_auroc(*zip(*pairs)) == pytest.approx(expected)


def test_auroc_is_that_of_scikit_learn():
    # sklearn.metrics.roc_auc_score(y, s), scikit-learn 1.9: 28.5 of 35 pairs
    scores = [0.1, 0.4, 0.4, 0.8, 0.7, 0.2, 0.9, 0.4, 0.7, 0.6, 0.3, 0.95]
    right = [0, 0, 1, 1, 1, 0, 1, 0, 0, 1, 1, 1]
    assert compute_auroc(scores, right) == pytest.approx(0.8142857142857143)


def test_calibration_error_weighs_bins_by_their_answers():
    scores, right = [0.05, 0.05, 0.05, 0.95], [1, 0, 0, 1]
    expected = 3 / 4 * abs(1 / 3 - 0.05) + 1 / 4 * 0.05
    assert compute_calibration_error(scores, right) == pytest.approx(expected)
    assert compute_calibration_error([1.0], [1]) == 0  # the last bin holds 1


def test_calibrated_and_raw_scores_are_not_exchanged():
    results = [ScoreResult("rec", True, 0.9, 0.1), ScoreResult("rec", False, 0.2, 0.3)]
    found = compute_score_metrics(results)
    assert found["rec.auroc"]["value"] == 1 and found["rec.auroc_raw"]["value"] == 0
    assert found["rec.calibration_error"]["value"] == pytest.approx(0.15)
    assert found["rec.calibration_error"]["constant"] == 0


# -- the logistic regression


def test_a_fit_is_the_least_penalised_loss():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(80, 2)) * [1, 5] + [3, 0], rng.random(80) < 0.7
    rows = [dict(near=a, side=b) for a, b in x]
    fit = fit_logistic(rows, y, ("near", "side"), penalty=2.0)
    z = torch.tensor((x - x.mean(0)) / x.std(0))

    def loss(w):
        logits = z @ w[:2] + w[2]
        nll = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, torch.tensor(y).double(), reduction="sum"
        )
        return nll + (w[:2] ** 2).sum()

    w = torch.tensor([*fit.weights, fit.bias], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(w), w)
    assert slope.abs().max() < 1e-6
    assert fit.predict(rows).mean() == pytest.approx(y.mean(), abs=1e-6)


def test_a_perfect_separation_stays_finite():
    rows = [dict(near=float(k)) for k in range(20)]
    fit = fit_logistic(rows, [k > 9 for k in range(20)], ("near",))
    assert np.isfinite(fit.weights).all() and fit.weights[0] > 0
    constant = fit_logistic([dict(near=1.0)] * 20, [k > 9 for k in range(20)], ("near",))
    assert constant.predict([dict(near=1.0)])[0] == pytest.approx(0.5)


# -- evidence


def marks_of(tokens) -> tuple:
    ends = np.cumsum([len(t) for t, *_ in tokens]).tolist()
    text = "".join(t for t, *_ in tokens)
    rows = [[(s, e, t[k]) for s, e, t in zip([0, *ends], ends, tokens)] for k in (1, 2)]
    return text, *rows


@pytest.mark.parametrize("style", ["ferret", "griffon"])
def test_evidence_reads_first_digits_in_both_forms(style):
    numbers = ["255", "300", "410", "480"]
    tokens = [("star" if style == "ferret" else "star-", 0.5, 0.5), ("[", 1, 1)]
    for i, number in enumerate(numbers):
        tokens += [("0", 1, 1), (".", 1, 1)] if style == "griffon" else []
        tokens += [(number[0], 0.5 - i / 10, 0.9 - i / 10), (number[1:], 0.25, 0.25)]
        tokens += [(",", 1, 1)] * (i < 3)
    text, marks, near = marks_of([*tokens, ("]", 1, 1)])
    [span], _ = find_groundings(text, (100, 200), style)
    found = measure_box(text, marks, near, span, (100, 200))
    assert tuple(found) == FEATURES
    assert found["first"] == pytest.approx(math.log(0.2))
    assert found["near"] == pytest.approx(math.log(0.6))
    assert found["mean_near"] == pytest.approx(np.log([0.9, 0.8, 0.7, 0.6]).mean())
    assert found["name"] == pytest.approx(math.log(0.5))
    assert found["side"] == pytest.approx(math.log(span.box.width / 100))


def test_a_digit_is_near_the_digits_beside_it_alone():
    words = {**{str(d): d for d in range(10)}, "▁5": 10, "▁4": 11, "15": 12, "x": 13}
    nearby = list_nearby_digits(words, 20)
    assert nearby.shape == (20, 2)
    assert nearby[5].tolist() == [4, 6] and nearby[0].tolist() == [-1, 1]
    assert nearby[9].tolist() == [8, -1] and nearby[10].tolist() == [11, -1]
    assert (nearby[12:] == -1).all()
    row = torch.arange(20.0) / 190
    found = measure_tokens(row, torch.tensor(9), nearby)
    assert found.tolist() == pytest.approx([9 / 190, 17 / 190])


@torch.no_grad()
def test_every_loop_measures_the_same():
    ferret = small_ferret()
    llama, nearby = ferret.model.language_model, ferret._get_nearby_digits()
    prompts = torch.randn(3, 7, llama.config.hidden_size)
    mask = torch.ones(3, 7, dtype=torch.long)
    tokens, table = PlainDecoder(llama, nearby).decode_batch(prompts, mask, 2, 12)
    _, plain = PlainDecoder(llama).decode_batch(prompts, mask, 2, 12)
    assert table.shape == (*tokens.shape, 2) and torch.equal(table[..., 0], plain)
    assert (table[..., 1] >= table[..., 0]).all()
    for k in range(3):
        one, alone = PlainDecoder(llama, nearby).decode_batch(prompts[k : k + 1], mask[:1], 2, 12)
        kept = tokens[k] != NO_TOKEN
        assert one[0].tolist() == tokens[k][kept].tolist()
        torch.testing.assert_close(alone[0], table[k][kept], atol=1e-4, rtol=1e-3)
        x = torch.cat([prompts[k], llama.model.embed_tokens(one[0])])[None]
        logits = llama(inputs_embeds=x).logits[:, 6:-1].float()  # [1, n, V]
        gathered = gather_probabilities(tuple(logits.transpose(0, 1)), one, nearby)
        torch.testing.assert_close(gathered, alone, atol=1e-4, rtol=1e-3)


def test_names_are_compared_in_singular_and_plural():
    same = compare_names("filled red stars", "Filled red star", 0.5)
    assert tuple(same) == BACK_FEATURES
    assert (same["agree"], same["same"]) == (1, 1)
    assert same["sure_same"] == pytest.approx(math.log(0.5)) and same["sure_other"] == 0
    other = compare_names("red star", "red cup", 0.5)
    assert (other["agree"], other["same"], other["sure_same"]) == (0.5, 0, 0)


# name of a box, what the model calls it, share of the asked words that it repeats: by hand
NAMES = [
    ("star", "filled red star", 1),  # the answer may say more than was asked
    ("stars", "filled red star", 1),
    ("filled red star", "star", 1 / 3),  # and says less here
    ("boxes", "blue box", 1),
    ("the largest star left of the cup", "red star", 1),
    ("star left of the cup", "cup", 0),  # the other object
    ("left shoe", "shoe", 0.5),  # no relation at the start
    ("", "star", 0),
    ("star", "", 0),
]


@pytest.mark.parametrize("name, said, share", NAMES)
def test_a_second_name_has_to_repeat_what_was_asked(name, said, share):
    found = compare_names(name, said, 1.0)
    assert found["agree"] == pytest.approx(share) and found["same"] == (share == 1)


def test_a_box_is_asked_if_its_name_repeats_the_question():
    assert find_box_kind("red stars", "FIND ALL STARS") == "asked"
    assert find_box_kind("red star", "Find all stars.") == "asked"
    assert find_box_kind("red star", "Where is the Star?") == "asked"
    assert find_box_kind("the cup", "Where is the star?") == "listed"  # an article says nothing


# -- groundings keep their numbers


def test_boxes_keep_scores_raw_scores_and_evidence():
    boxes = [Box(0, 0, k + 1, 1) for k in range(3)]
    g = Grounding("a", boxes, [0.1, 0.2, 0.3], [1, 2, 3], ["x", "y", "z"])
    picked = select_boxes(g, [2, 0])
    assert (picked.scores, picked.raw_scores, picked.evidence) == ([0.3, 0.1], [3, 1], ["z", "x"])
    both = join_boxes("b", [g, picked])
    assert both.name == "b" and both.raw_scores == [1, 2, 3, 3, 1] and len(both.boxes) == 5
    with pytest.raises(InputError, match="2 scores for 3 boxes"):
        Grounding("a", boxes, None, [1, 2])


# -- answers


def test_without_a_fit_scores_are_none_and_a_threshold_is_refused():
    ferret = Scripted("red star [100, 100, 200, 300]")
    [found] = ferret.ask(IMAGE, "Where is the star?").groundings
    assert found.scores is None and found.raw_scores[0] < 0.9
    for options in (dict(min_score=0.5), dict(verify=True)):
        with pytest.raises(InputError, match="without fitted scores.*fit-scores"):
            ferret.ask(IMAGE, "Where is the star?", **options)
        with pytest.raises(InputError, match="fit-scores"):
            ferret.ground(IMAGE, "star", **options)
        with pytest.raises(InputError, match="fit-scores"):
            ferret.detect(IMAGE, "star", **options)


@pytest.mark.parametrize("bad", [-0.1, 1.5, "half", True, math.nan])
def test_a_threshold_is_a_share(bad):
    with pytest.raises(InputError, match="min_score: found"):
        Scripted("a").ask(IMAGE, "Where?", min_score=bad)


def test_the_threshold_is_compared_with_the_probability():
    text = "red star [100, 100, 200, 300]"
    ferret = Scripted(text, text, text, text)
    raw = ferret.ask(IMAGE, "Where is the star?").groundings[0].raw_scores[0]
    ferret.score_fit = constant_fit(0.7, "asked")
    answer = ferret.ask(IMAGE, "Where is the star?", min_score=0.6)
    assert raw < 0.6 and answer.groundings[0].scores == pytest.approx([0.7])
    assert answer.groundings[0].raw_scores == pytest.approx([raw])
    plain = answer.to_dict()["groundings"][0]
    assert plain["scores"] == [0.7] and plain["raw_scores"] == [round(raw, 4)]
    gone = ferret.ask(IMAGE, "Where is the star?", min_score=0.8)
    assert gone.groundings == [] and gone.warnings == ["1 box with a score below 0.8 left out."]
    empty = ferret.ground(IMAGE, "star", min_score=0.8)
    assert list(empty) == [] and empty.reason == "1 box with a score below 0.8 left out."


def test_a_kind_without_a_fit_has_no_score():
    ferret = Scripted("The objects are: 1: red star [100, 100, 200, 300]")
    ferret.score_fit = constant_fit(0.7, "asked")
    answer = ferret.ask(IMAGE, "Find all objects.")
    assert answer.groundings[0].scores is None


def agreement_fit() -> ScoreFit:
    """Sure if the model names its box as before; without asking back one half."""
    verified = LogisticFit(["same"], [0.5], [1.0], [8.0], 0.0)
    return ScoreFit(constant_fit(0.5, "asked").fits | {"asked.verified": verified})


def test_a_model_that_contradicts_itself_loses_its_box():
    said = "red star [100, 100, 200, 300]"
    ferret = Scripted(said, "red star", said, "blue cup", said, "blue cup", said)
    ferret.score_fit = agreement_fit()
    sure = ferret.ask(IMAGE, "Where is the star?", verify=True)
    assert sure.groundings[0].scores[0] > 0.95 and "What is in" in ferret.asked[1]
    unsure = ferret.ask(IMAGE, "Where is the star?", verify=True)
    assert unsure.groundings[0].scores[0] < 0.05
    kept = ferret.ground(IMAGE, "star", verify=True, min_score=0.5)
    assert list(kept) == [] and len(ferret.asked) == 6
    assert ferret.ask(IMAGE, "Where is the star?").groundings[0].scores == pytest.approx([0.5])


def test_a_chat_and_a_batch_score_alike():
    ferret = small_ferret()
    ferret.score_fit = constant_fit(0.7, "asked", "listed")
    answers = ferret.ask(IMAGE, ["Where is it?", "What?"], max_new_tokens=5)
    said = ferret.chat(IMAGE).ask("Where is it?", max_new_tokens=5)
    assert said.raw_text == answers[0].raw_text
    assert said.likelihood == pytest.approx(answers[0].likelihood, rel=1e-3)


# -- files


def test_a_fit_comes_back_from_its_folder(tmp_path):
    fit = constant_fit(0.7, "asked", "listed.verified")
    fit.save(tmp_path)
    assert read_score_fit(tmp_path / SCORES_FILE) == fit
    assert read_score_fit(None) is None


DAMAGES = {
    "no JSON": lambda t: "{",
    "a list": lambda t: [],
    "no fits": lambda t: dict(made_by={}),
    "another kind": lambda t: dict(t, fits=dict(seen=t["fits"]["asked"])),
    "another feature": lambda t: dict(t, fits=dict(asked=t["fits"]["asked"] | {"features": ["x"]})),
    "too many weights": lambda t: dict(
        t, fits=dict(asked=t["fits"]["asked"] | {"weights": [1, 2]})
    ),
    "no scale": lambda t: dict(t, fits=dict(asked=t["fits"]["asked"] | {"scales": [0.0]})),
    "text": lambda t: dict(t, fits=dict(asked=t["fits"]["asked"] | {"bias": "high"})),
    "infinite": lambda t: dict(t, fits=dict(asked=t["fits"]["asked"] | {"bias": 1e999})),
    "another field": lambda t: dict(t, fits=dict(asked=t["fits"]["asked"] | {"code": "x"})),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_fit_is_refused(damage, tmp_path):
    path = constant_fit(0.7, "asked").save(tmp_path)
    damaged = DAMAGES[damage](json.loads(path.read_text()))
    path.write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
    with pytest.raises(InputError, match="expected"):
        read_score_fit(path)


@pytest.mark.parametrize("name", ["tiny", "tiny-griffon"])
def test_a_shipped_fit_is_small_and_was_fitted_on_val(name):
    path = WEIGHTS / name / SCORES_FILE
    assert path.stat().st_size < 10_000
    fit = read_score_fit(path)
    assert "asked" in fit.fits and fit.made_by["split"] == "val"
    assert Ferret.load(name).score_fit == fit
    inner = hashlib.sha256((WEIGHTS / name / "model.safetensors").read_bytes()).digest()
    assert fit.made_by["weights"] == hashlib.sha256(inner).hexdigest()[:16]


# -- fitting


def rows_of(n=60, kind="asked", flip=False) -> list:
    rows = []
    for k in range(n):
        evidence = dict.fromkeys(FEATURES, 0.0) | dict(near=-1.0 if k % 3 == 0 else 0.0)
        rows.append(dict(kind=kind, right=(k % 3 > 0) != flip, evidence=evidence))
    return rows


def test_a_fit_needs_right_and_wrong_boxes():
    assert list(fit_boxes(rows_of()).fits) == ["asked"]
    assert fit_boxes(rows_of(15)).fits == {} and fit_boxes([]).fits == {}
    fit = fit_boxes(rows_of(kind="listed"))
    good, bad = (dict.fromkeys(FEATURES, 0.0) | dict(near=v) for v in (0.0, -1.0))
    assert fit.score(good, "listed") > 0.8 > 0.3 > fit.score(bad, "listed")
    assert fit.score(good, "asked") is None


def test_scores_are_fitted_on_val_and_saved_in_the_folder(tmp_path, monkeypatch):
    from small_model import save_small

    folder, asked = save_small(tmp_path / "model"), []

    def collect(ferret, n, seed, split, batch, on_progress=None):
        asked.append((n, seed, split))
        return rows_of()

    monkeypatch.setattr(confidence, "collect_boxes", collect)
    fit = fit_scores(folder, 7)
    assert asked == [(7, 0, "val")] and fit.made_by["split"] == "val"
    assert Ferret.load(folder).score_fit == fit
    with pytest.raises(InputError, match=r"found scores.json.*--overwrite replaces"):
        fit_scores(folder, 7)
    assert len(asked) == 1 and fit_scores(folder, 7, overwrite=True) == fit


def test_too_few_boxes_make_no_file(tmp_path, monkeypatch):
    from small_model import save_small

    folder = save_small(tmp_path / "model")
    monkeypatch.setattr(confidence, "collect_boxes", lambda *given, **named: rows_of(15))
    with pytest.raises(InputError, match="found 15 boxes in 9 scenes, expected 20 right and 8"):
        fit_scores(folder, 9)
    assert not (folder / SCORES_FILE).exists()


def overlap(a, b) -> float:
    """IoU of two boxes, written out."""
    width = max(0.0, min(a.x2, b.x2) - max(a.x1, b.x1))
    height = max(0.0, min(a.y2, b.y2) - max(a.y1, b.y1))
    return width * height / (a.area + b.area - width * height)


def test_boxes_are_collected_with_their_truth():
    rows = confidence.collect_boxes(Ferret.load("tiny"), 2, 9, "test")
    assert {r["task"] for r in rows} == {"rec", "kind", "absent", "list"}
    assert {r["scene"] for r in rows} == {9_000_000, 9_000_001}
    assert any(r["right"] for r in rows if r["task"] == "kind")
    for row in rows:
        assert row["kind"] == row["evidence"]["kind"]
        assert {*FEATURES, *BACK_FEATURES} <= set(row["evidence"])
        assert not (row["right"] and not row["there"])


def test_a_box_that_was_found_by_a_bare_kind_is_believed():
    """Right boxes of `ground` and `detect` keep their score when the model is asked back."""
    ferret, scores, wrong = Ferret.load("tiny"), [], []
    for seed in range(12):
        scene = make_scene(seed, split="test")
        kind = scene.objects[0].name
        asked = (ferret.ground, f"the {kind}"), (ferret.detect, [kind])
        for call, name in asked[: 1 + seed % 2]:
            for g in call(scene.image, name, verify=True):
                for box, score in zip(g.boxes, g.scores):
                    same = [o.box for o in scene.objects if o.name == kind]
                    right = max(overlap(box, b) for b in same) >= 0.5
                    (scores if right else wrong).append(score)
    assert len(scores) >= 10 and np.mean(np.array(scores) > 0.5) >= 0.9


def test_asking_back_does_not_change_the_kind_of_a_box():
    """The name repeats a word of the question, but none of the name that was asked for."""
    ferret = Scripted("the location [100, 100, 200, 300]", "red star")
    ferret.score_fit = agreement_fit()
    [found] = ferret.ground(IMAGE, "star", verify=True)
    assert found.evidence[0]["kind"] == "asked" and found.scores is not None


def test_boxes_without_a_fit_do_not_pass_a_threshold():
    ferret = Scripted("The objects are: 1: red star [100, 100, 200, 300]")
    ferret.score_fit = constant_fit(0.7, "asked")
    answer = ferret.ask(IMAGE, "Find all objects.", min_score=0.1)
    assert answer.groundings == [] and answer.warnings == [
        "1 box of a kind without a fit left out."
    ]


def test_intervals_draw_the_boxes_of_a_scene_together():
    """Ten equal boxes in each of 30 scenes say no more than 30 boxes."""
    wide, narrow = (
        compute_score_metrics(
            [
                ScoreResult("det", k < 21, 0.5 + 0.01 * (k % 5), 0.1, f"{k}" if one else None)
                for k in range(30)
                for _ in range(10)
            ]
        )["det.auroc"]["ci95"]
        for one in (True, False)
    )
    single = compute_score_metrics(
        [ScoreResult("det", k < 21, 0.5 + 0.01 * (k % 5), 0.1) for k in range(30)]
    )["det.auroc"]["ci95"]
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])
    assert wide[1] - wide[0] == pytest.approx(single[1] - single[0], rel=0.15)


def test_boxes_are_judged_by_the_question():
    scene = make_scene(3, 96)
    target, far = scene.objects[0].box, Box(0, 0, 1, 1)
    answer = Answer("", [Grounding("a", [far, target], [0.2, 0.9], [0.5, 0.1])], image=scene.image)
    rec = Question(scene, Turn("rec", "?", "", meta=dict(box=target)))
    assert [hit for *_, hit in list_judged_boxes(rec, answer)] == [False]
    absent = Turn("absent", "?", "", meta=dict(present=False, groundings=[]))
    [found] = score_boxes(Question(scene, absent), answer)
    assert (found.right, found.score, found.raw) == (False, 0.9, 0.5)
    [none] = score_boxes(Question(scene, absent), Answer("no", [], image=scene.image))
    assert (none.score, none.right) == (0, False)


# -- exams rank by the papers' product


def test_exams_keep_the_raw_score():
    item = ExamItem("1", "?", "a.jpg")
    answer = Answer("", [Grounding("a", [Box(0, 0, 1, 1)], [0.9], [0.01])], image=IMAGE)
    assert _keep_answer(item, answer).scores == [0.01]
    bare = Answer("", [Grounding("a", [Box(0, 0, 1, 1)])], image=IMAGE)
    assert _keep_answer(item, bare).scores == [1.0]


def test_scoring_twice_keeps_the_product():
    evidence = [dict(near=0.0)]
    g = Grounding("star", [Box(0, 0, 1, 1)], [0.03], None, evidence)
    once = score_groundings([g], "the star", constant_fit(0.7, "asked"))
    twice = score_groundings(once, "the star", constant_fit(0.6, "asked"))
    assert twice[0].raw_scores == [0.03] and twice[0].scores == pytest.approx([0.6])


# -- what is told about the shipped fits


@pytest.mark.parametrize("name", ["tiny", "tiny-griffon"])
@pytest.mark.parametrize("row, key", [("from the tokens", "free"), ("after asking", "verified")])
def test_a_model_card_tells_the_record(name, row, key):
    """AUROC of single boxes, counted pair by pair."""
    record = json.loads((ROOT / "nbs/records/confidence.json").read_text())[f"{name}, test"]
    lines = (WEIGHTS / name / "README.md").read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if line.startswith(f"| {row}")]
    told = [float(cell.split()[0]) for cell in line.split("|")[2:5]]
    for task, value in zip(("rec", "kind", "list"), told):
        boxes = [r for r in record if r["task"] == task and r.get(key) is not None]
        right, wrong = ([r[key] for r in boxes if r["right"] == hit] for hit in (True, False))
        pairs = [(a > b) + (a == b) / 2 for a in right for b in wrong]
        assert sum(pairs) / len(pairs) == pytest.approx(value, abs=0.0051)
