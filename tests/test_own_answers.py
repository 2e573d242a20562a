"""Learning from one's own answers: rewards, comparison, penalty, loss, sampling and one run."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_model import small_ferret

from ferretlite.common.devices import set_training_dtype
from ferretlite.pretraining.loop import run_training_loop
from ferretlite.regions.geometry import Box
from ferretlite.regions.grammar import Grounding, format_groundings
from ferretlite.scenes.questions import Turn
from ferretlite.training.own_answers import (
    OwnAnswers,
    _list_inputs,
    compute_advantages,
    compute_group_loss,
    compute_log_probs,
    draw_questions,
    encode_questions,
    estimate_divergence,
    list_true_boxes,
    match_overlaps,
    pack_answers,
    reward_answer,
    sample_answers,
)

SIZE = (1000, 1000)
LEFT, RIGHT = Box(0, 0, 400, 200), Box(600, 600, 900, 900)


def write(*boxes) -> str:
    return format_groundings([Grounding("red star", list(boxes))], SIZE)


# -- rewards


@pytest.mark.parametrize(
    "text, truth, expected",
    [
        (write(LEFT), [LEFT], 2),
        (write(Box(0, 0, 200, 200)), [LEFT], 1.5),  # half of the box
        (write(RIGHT), [LEFT], 1),
        (write(LEFT, RIGHT), [LEFT], 1.5),  # one too many
        (write(LEFT), [LEFT, RIGHT], 1.5),  # one too few
        (write(RIGHT, LEFT), [LEFT, RIGHT], 2),  # in any order
        (write(LEFT, LEFT), [LEFT, RIGHT], 1.5),  # one box cannot count twice
        ("no red star", [], 2),
        ("no red star", [LEFT], 1),
        (write(LEFT), [], 1),
        (write(LEFT) + " and more", [LEFT], 0),
        (write(LEFT)[:-1], [LEFT], 0),
        ("no way [0, 0, 1, 1", [], 0),
        ("", [LEFT], 0),
        ("", [], 0),
        ("red star", [], 0),  # neither a box nor a denial
    ],
)
def test_rewards_by_hand(text, truth, expected):
    assert reward_answer(text, truth, SIZE) == pytest.approx(expected, abs=0.02)


def test_griffon_writes_its_own_form():
    text = format_groundings([Grounding("star", [LEFT])], SIZE, "griffon")
    assert reward_answer(text, [LEFT], SIZE, "griffon") == pytest.approx(2, abs=0.02)
    assert reward_answer(text, [LEFT], SIZE) == 0
    assert reward_answer("None", [], SIZE, "griffon") == 2


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=4))
def test_pairs_are_never_better_than_the_best_pairing_and_at_least_half_of_it(rows):
    overlaps = torch.tensor(rows, dtype=torch.float64)
    n, m = overlaps.shape
    wide = overlaps if n <= m else overlaps.T
    best = max(
        sum(float(wide[i, j]) for i, j in enumerate(places))
        for places in itertools.permutations(range(wide.shape[1]), len(wide))
    )
    kept = overlaps.clone()
    assert best / 2 - 1e-9 <= match_overlaps(overlaps) <= best + 1e-9
    assert torch.equal(kept, overlaps)  # the caller's numbers stay


# -- comparison and penalty


def test_advantages_are_standard_scores_of_the_group():
    rewards = np.random.default_rng(0).uniform(0, 2, (5, 8))
    expected = (rewards - rewards.mean(1, keepdims=True)) / rewards.std(1, ddof=1, keepdims=True)
    found = compute_advantages(torch.tensor(rewards))
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    np.testing.assert_allclose(compute_advantages(torch.tensor(3 * rewards + 1)), found, rtol=2e-3)
    assert (compute_advantages(torch.full((2, 4), 1.3)) == 0).all()


@given(st.lists(st.floats(0.05, 1), min_size=3, max_size=6), st.integers(0, 100))
def test_the_mean_estimate_is_the_exact_divergence(weights, seed):
    p = np.array(weights) / sum(weights)
    q = np.random.default_rng(seed).dirichlet(np.full(len(p), 3)) + 1e-3
    q /= q.sum()
    exact = sum(a * math.log(a / b) for a, b in zip(p, q))
    each = estimate_divergence(torch.tensor(p).log(), torch.tensor(q).log())
    assert (each >= 0).all() and float((torch.tensor(p) * each).sum()) == pytest.approx(exact)


# -- the loss


def test_the_gradient_of_the_loss_by_hand():
    """Two answers from a vocabulary of two, one with two tokens: all probabilities are 1/2.

    A token's gradient is -advantage * (one_hot - 1/2) / tokens of its answer / 2 answers."""
    logits = torch.zeros(2, requires_grad=True)
    tokens, answers = torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1])
    log_probs = logits.log_softmax(0)[tokens]
    compute_group_loss(
        log_probs, log_probs.detach(), answers, torch.tensor([1.0, -3.0]), beta=0.5
    ).backward()
    first = -1 * np.array([0.5, -0.5])  # the mean of two equal tokens
    second = 3 * np.array([-0.5, 0.5])
    np.testing.assert_allclose(logits.grad, (first + second) / 2, atol=1e-6)


def test_the_penalty_pulls_towards_the_frozen_model():
    "Without advantages the loss is the mean estimate of the divergence, times beta."
    p, q = torch.tensor([0.8, 0.2]).log(), torch.tensor([0.5, 0.5]).log()
    log_probs = p.clone().requires_grad_()
    loss = compute_group_loss(log_probs, q, torch.tensor([0, 1]), torch.zeros(2), beta=0.1)
    expected = 0.1 * np.mean([5 / 8 - math.log(5 / 8) - 1, 5 / 2 - math.log(5 / 2) - 1])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert log_probs.grad[0] > 0 > log_probs.grad[1]  # down where p is larger, up where smaller


# -- the model


@pytest.fixture(scope="module")
def ferret():
    return small_ferret()


@pytest.fixture(scope="module")
def asked():
    return draw_questions(3, 40, size=96)


@pytest.fixture(scope="module")
def encoded(ferret, asked):
    return encode_questions(ferret.model, ferret.processor, asked)


def cut(ids: list, end: int) -> list:
    return ids[: ids.index(end) + 1] if end in ids else ids


def test_questions_depend_on_their_seed_alone():
    first, second = draw_questions(4, 900, size=96), draw_questions(2, 900, size=96)
    assert [t.prompt for _, t in first[:2]] == [t.prompt for _, t in second]
    assert {t.task for _, t in draw_questions(16, 0, size=96)} == {"rec", "absent"}
    assert [t.task for _, t in draw_questions(2, 0, "test", {"name": 1}, 96)] == ["name"] * 2


def test_true_boxes_of_a_question():
    assert list_true_boxes(Turn("rec", "?", "!", meta=dict(box=LEFT))) == [LEFT]
    two = [Grounding("a", [LEFT]), Grounding("b", [RIGHT])]
    assert list_true_boxes(Turn("absent", "?", "!", meta=dict(groundings=two))) == [LEFT, RIGHT]


def test_greedy_tokens_are_those_of_ask(ferret, asked, encoded):
    "Prompts of different lengths lie in one batch, so the padding is tested too."
    end = ferret.processor.tokenizer.eos_token_id
    assert len(set(encoded[0]["attention_mask"].sum(1).tolist())) > 1
    tokens = sample_answers(ferret.model, *encoded, 2, end, max_new_tokens=12)
    read = ferret.processor.tokenizer.decode
    images, prompts = [s.image for s, _ in asked], [t.prompt for _, t in asked]
    told = ferret.ask(images, prompts, max_new_tokens=12)
    for group, answer in zip(tokens.tolist(), told):
        assert group[0] == group[1]  # nothing is random
        ids = group[0][: group[0].index(end)] if end in group[0] else group[0]
        assert read(ids).strip() == answer.raw_text


def test_first_tokens_have_the_probabilities_of_the_model(ferret, encoded):
    end, n = ferret.processor.tokenizer.eos_token_id, 3000
    batch, maps = encoded
    with torch.no_grad():
        logits = ferret.model(
            batch["input_ids"], attention_mask=batch["attention_mask"], **_list_inputs(batch, maps)
        ).logits[:, -1]
    logits[
        :, [ferret.model.config.image_token_id, ferret.model.config.region_token_id]
    ] = -torch.inf
    generator = torch.Generator().manual_seed(0)
    tokens = sample_answers(ferret.model, batch, maps, n, end, generator, max_new_tokens=1)
    for row, chances in zip(tokens[..., 0], logits.softmax(-1)):
        shares = torch.bincount(row, minlength=len(chances)) / n
        assert (shares - chances).abs().max() < 4 * 0.5 / math.sqrt(n)


def test_answers_are_filled_up_behind_their_end(ferret, encoded):
    "The end token is one that the model writes early."
    generator = torch.Generator().manual_seed(1)
    free = sample_answers(ferret.model, *encoded, 4, -1, generator, 6)
    end = int(free[0, 0, 2])
    again = sample_answers(
        ferret.model, *encoded, 4, end, torch.Generator().manual_seed(1), 6
    ).tolist()
    for row in itertools.chain(*again):
        assert row == cut(row, end) + [end] * (len(row) - len(cut(row, end)))
    assert again[0][0][:2] == free[0, 0, :2].tolist()


def test_packed_answers_have_the_log_probabilities_of_answers_alone(ferret, asked, encoded):
    end = ferret.processor.tokenizer.eos_token_id
    batch, maps = encoded
    tokens = sample_answers(ferret.model, batch, maps, 3, end, torch.Generator().manual_seed(2), 9)
    rows = pack_answers(batch, tokens, end)
    with torch.no_grad():
        found, answers = compute_log_probs(ferret.model, rows, _list_inputs(batch, maps), 3)
    assert set(answers.tolist()) == set(range(9))
    for question, sample in ((0, 0), (1, 2), (2, 1)):
        one, own = encode_questions(ferret.model, ferret.processor, [asked[question]])
        ids = torch.tensor(cut(tokens[question, sample].tolist(), end))
        whole = torch.cat([one["input_ids"][0], ids])[None]
        with torch.no_grad():
            logits = ferret.model(whole, **_list_inputs(one, own)).logits[0, -len(ids) - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        torch.testing.assert_close(
            found[answers == 3 * question + sample], expected, atol=1e-4, rtol=1e-4
        )


# -- steps and runs


def learn(out, ferret, steps: int, total: int = 4):
    "Take steps of a run of `total` steps, in a folder that may hold its beginning."
    learner, done = OwnAnswers(ferret.model, ferret.processor, n=3, seed=5), []
    learner.on_step = done.append

    def draw(first):
        for step in range(first, steps):
            yield dict(step=step, asked=draw_questions(2, 70 + 10 * step, size=96))

    run_training_loop(
        ferret.model.language_model, learner, draw, out, total, lr=1e-3, resume=True, every=1
    )
    return learner, done


@pytest.fixture(autouse=True)
def exact_training():
    set_training_dtype("float32")
    yield
    set_training_dtype("auto")


def list_weights(model) -> dict:
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_a_stopped_run_ends_with_the_same_weights(tmp_path):
    start = small_ferret()
    whole, parts = copy.deepcopy(start), copy.deepcopy(start)
    before = list_weights(start.model)
    learner, rows = learn(tmp_path / "whole", whole, 4)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert rows[0]["divergence"] == 0 < rows[3]["divergence"]  # it begins as its frozen copy
    learn(tmp_path / "parts", parts, 2)
    again = copy.deepcopy(start)  # a new process loads the model anew
    learn(tmp_path / "parts", again, 4)
    for name, weight in list_weights(whole.model).items():
        assert torch.equal(weight, again.model.state_dict()[name]), name
        moved = not torch.equal(weight, before[name])
        assert moved == name.startswith("language_model"), name
        assert torch.equal(learner.frozen.state_dict()[name], before[name]), name


def test_better_answers_become_likelier(monkeypatch):
    "The reward counts a token; steps on one question make the token more frequent."
    ferret = small_ferret()
    learner = OwnAnswers(ferret.model, ferret.processor, n=16, beta=0.0, seed=0)
    asked = draw_questions(1, 40, size=96)
    batch, maps = encode_questions(ferret.model, ferret.processor, asked)
    with torch.no_grad():
        logits = ferret.model(batch["input_ids"], **_list_inputs(batch, maps)).logits[0, -1]
    liked = int(logits.argsort()[-2])  # the second choice of the model, which is no placeholder
    assert liked not in (ferret.model.config.image_token_id, ferret.model.config.region_token_id)

    def judge(_, tokens):
        return (tokens[..., 0] == liked).float()

    monkeypatch.setattr(learner, "judge", judge)
    optimizer = torch.optim.AdamW(ferret.model.language_model.parameters(), lr=3e-3)
    for step in range(6):
        optimizer.zero_grad()
        learner(dict(step=step, asked=asked)).backward()
        optimizer.step()
    with torch.no_grad():
        after = ferret.model(batch["input_ids"], **_list_inputs(batch, maps)).logits[0, -1]
    assert after.softmax(-1)[liked] > logits.softmax(-1)[liked] + 0.1


def test_an_answer_without_an_end_earns_nothing(ferret):
    learner = OwnAnswers(ferret.model, ferret.processor)
    words = ferret.processor.tokenizer
    ((scene, turn),) = draw_questions(1, 40, "train", {"rec": 1}, 96)
    ids = words(" " + turn.answer, add_special_tokens=False).input_ids
    tokens = torch.tensor([[ids + [learner.end], ids + ids[:1]]])
    assert learner.read(ids + [learner.end]) == turn.answer and learner.read(ids) == ""
    whole, broken = learner.judge([(scene, turn)], tokens)[0].tolist()
    assert whole > 1.8 and broken == 0
