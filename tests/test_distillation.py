"""Self-distillation: how scenes are cut, what the teacher says, what the student loses, and how the
teacher follows.
"""

import inspect
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ferretlite.pretraining import dino as distillation
from ferretlite.pretraining.dino import (
    MultiCropViews,
    PrototypeHead,
    SelfDistiller,
    balance_shares,
    collate_crops,
    count_used_words,
    pretrain_dino,
    score_distillation,
)


def defaults(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def test_defaults_are_the_documented_ones():
    cuts = dict(seed=0, view=96, small=48, n_small=4, places=4, patch=16)
    assert defaults(MultiCropViews) == cuts
    assert defaults(PrototypeHead) == dict(hidden=256, neck=64)
    assert defaults(balance_shares) == dict(rounds=3)
    learning = dict(words=256, rounds=3, momentum=0.99, warm=0.1, cold=0.05, hide=1.0)
    assert defaults(SelfDistiller) == dict(width=160, **learning)
    assert defaults(score_distillation) == dict(n=100)
    run = dict(samples=None, minutes=None, resume=False, seed=0, batch_size=8, lr=1e-3, muon=0.02)
    assert defaults(pretrain_dino) == run


# Cuts


@pytest.fixture
def ramp(monkeypatch):
    "Every scene is one picture that says where it is: red grows to the right, green downwards."
    asked = []
    place = np.arange(384) / 384 * 200 + 20
    pixels = np.stack(np.broadcast_arrays(place[None], place[:, None], 128.0), -1)
    image = Image.fromarray(pixels.round().astype(np.uint8))

    def draw(seed, size, split):
        asked.append((seed, size, split))
        return image, [], None

    monkeypatch.setattr(distillation, "draw_scene", draw)
    return asked


def sides(cut):
    "How far a cut goes, in pixels of the scene, across and down: the steepness of the two ramps."
    red, green = cut[0].mean(0), cut[1].mean(1)
    steps = [
        np.polyfit(np.arange(n), v, 1)[0] * n for v, n in ((red, len(red)), (green, len(green)))
    ]
    return [step * 255 * 384 / 200 for step in steps]


def test_cuts_have_the_documented_shares_of_their_places(ramp):
    data = MultiCropViews(50, 7)
    items = [data[i] for i in range(40)]
    large = np.concatenate([item[0] for item in items])
    small = np.concatenate([item[1] for item in items])
    assert len(data) == 50
    assert large.shape == (160, 2, 3, 96, 96) and small.shape == (160, 4, 3, 48, 48)
    assert large.dtype == small.dtype == np.float32
    assert large.min() >= 0 and large.max() <= 1
    wide, narrow = (
        np.array([sides(c) for c in cuts.reshape(-1, *cuts.shape[2:])]) for cuts in (large, small)
    )
    for found in (wide, narrow):
        assert np.mean(found[:, 0] < 0) == pytest.approx(0.5, abs=0.1)  # mirrored or not
        assert (found[:, 1] > 0).all()  # never upside down
        np.testing.assert_allclose(np.abs(found[:, 0]), found[:, 1], rtol=0.05)
    # places have sides of 110 to 200; a cut has .4 to 1 (small: .1 to .4) of their area; tints
    # change contrast by .15
    across = wide[:, 1]
    assert 110 * math.sqrt(0.4) * 0.85 < across.min() < 80 and 185 < across.max() < 200 * 1.15
    assert across.mean() == pytest.approx(155 * (1 - 0.4**1.5) / 1.5 / 0.6, rel=0.04)
    across = narrow[:, 1]
    assert (
        110 * math.sqrt(0.1) * 0.85 < across.min() < 42
        and 105 < across.max() < 200 * math.sqrt(0.4) * 1.15
    )
    assert across.mean() == pytest.approx(155 * (0.4**1.5 - 0.1**1.5) / 1.5 / 0.3, rel=0.04)


def test_cuts_of_a_place_lie_within_it_and_places_differ(ramp):
    large, small, _ = MultiCropViews(50, 7)[0]

    def middles(cuts):
        return (cuts[..., :2, :, :].mean((-1, -2)) * 255 - 20) / 200 * 384

    for both, others in zip(middles(large), middles(small)):
        assert (
            np.abs(both[0] - both[1]).max() < 200 * (1 - math.sqrt(0.4)) + 70
        )  # tints move them by 70
        assert not np.allclose(both[0], both[1], atol=1)
        assert np.abs(others - both.mean(0)).max() < 200
    spread = np.concatenate([middles(MultiCropViews(50, i)[0][0])[:, 0] for i in range(20)])
    assert spread.min() < 110 and spread.max() > 270  # all over the scene
    assert abs(np.corrcoef(spread.T)[0, 1]) < 0.3  # x and y are drawn apart


def test_tints_change_contrast_and_each_colour(ramp):
    cuts = np.concatenate(
        [MultiCropViews(50, 7, small=8, n_small=1)[i][0].reshape(-1, 3, 96, 96) for i in range(40)]
    )
    blue = cuts[:, 2].mean((1, 2))  # 128 / 255 times .85 to 1.15, plus -.06 to .06
    assert 0.5 * 0.85 - 0.06 < blue.min() < 0.41 and 0.6 < blue.max() < 0.502 * 1.15 + 0.06
    assert blue.mean() == pytest.approx(128 / 255, abs=0.01)
    assert blue.std() == pytest.approx(math.hypot(0.502 * 0.3, 0.12) / math.sqrt(12), rel=0.12)


def test_each_colour_has_its_own_tint(monkeypatch):
    grey = Image.new("RGB", (384, 384), (128, 128, 128))
    monkeypatch.setattr(distillation, "draw_scene", lambda *_: (grey, [], None))
    cuts = np.concatenate([MultiCropViews(50, 7)[i][0].reshape(-1, 3, 96, 96) for i in range(8)])[
        ..., 0, 0
    ]
    for one, other in ((0, 1), (1, 2), (0, 2)):  # the difference of two draws from -.06 to .06
        found = (cuts[:, one] - cuts[:, other]).std()
        assert found == pytest.approx(0.12 / math.sqrt(6), rel=0.25)


def test_every_second_large_cut_loses_up_to_half_of_its_patches(ramp):
    hidden = np.concatenate([MultiCropViews(90, 7, small=8, n_small=1)[i][2] for i in range(60)])
    assert hidden.shape == (240, 2, 36) and hidden.dtype == bool
    share = hidden.mean(2)
    assert np.mean(share == 0) == pytest.approx(0.5 + 0.5 * 0.055, abs=0.07)
    assert 0.5 < share.max() < 0.75
    assert share[share > 0].mean() == pytest.approx(0.25, abs=0.04)
    assert MultiCropViews(9, 0, view=64, patch=16)[0][2].shape == (4, 2, 16)


def test_items_are_numbered_scenes_one_in_three_from_the_training_split(ramp):
    data = MultiCropViews(50, 10**7, view=64, small=32, n_small=3, places=2)
    items = [data[i] for i in range(4)]
    assert ramp == [
        (10**7, (384, 384), "train"),
        (10**7 + 1, (384, 384), "crowd"),
        (10**7 + 2, (384, 384), "crowd"),
        (10**7 + 3, (384, 384), "train"),
    ]
    assert items[0][0].shape == (2, 2, 3, 64, 64) and items[0][1].shape == (2, 3, 3, 32, 32)
    again = MultiCropViews(50, 10**7 + 1, view=64, small=32, n_small=3, places=2)[0]
    assert all(np.array_equal(a, b) for a, b in zip(items[1], again))
    assert not np.array_equal(items[0][0], items[1][0])


def test_places_of_scenes_are_joined_in_order():
    items = [tuple(np.full((2, 3), 10 * scene + part) for part in range(3)) for scene in range(2)]
    large, small, hidden = collate_crops(items)
    assert large[:, 0].tolist() == [0, 0, 10, 10] and small[:, 0].tolist() == [1, 1, 11, 11]
    assert hidden.shape == (4, 3) and hidden[3, 0] == 12


# Heads, shares, words


def test_a_head_gives_cosines_with_its_directions():
    torch.manual_seed(0)
    head, tokens = PrototypeHead(6, 5, 7, 4), torch.randn(3, 2, 6)
    first, second = head.mlp[0], head.mlp[2]
    assert (first.out_features, second.out_features) == (7, 4)
    inner = tokens @ first.weight.T + first.bias
    inner = 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))
    neck = inner @ second.weight.T + second.bias
    expected = (neck[..., None, :] * head.embed.weight).sum(-1)
    expected = expected / neck.norm(dim=-1)[..., None] / head.embed.weight.norm(dim=-1)
    torch.testing.assert_close(head(tokens), expected)
    assert head(tokens).shape == (3, 2, 5) and head.embed.bias is None
    assert head.bfloat16()(tokens.bfloat16()).dtype == torch.float32


def test_shares_are_evened_out_by_columns_then_rows():
    # softmax at temperature .5 of differences log 3 / 2: shares 3 : 1
    similar = torch.tensor([[math.log(3) / 2, 0.0], [math.log(9) / 2, 0.0], [0.0, 0.0]])
    shares = balance_shares(similar, 0.5, 0)
    torch.testing.assert_close(shares, torch.tensor([[0.75, 0.25], [0.9, 0.1], [0.5, 0.5]]))
    # columns sum to 2.15 and .85; then each row is brought to 1
    once = torch.tensor(
        [[0.75 / 2.15, 0.25 / 0.85], [0.9 / 2.15, 0.1 / 0.85], [0.5 / 2.15, 0.5 / 0.85]]
    )
    once = once / once.sum(1, keepdim=True)
    torch.testing.assert_close(balance_shares(similar, 0.5, 1), once)
    twice = once / once.sum(0)
    thrice = twice / twice.sum(1, keepdim=True)
    thrice = thrice / thrice.sum(0)
    torch.testing.assert_close(balance_shares(similar, 0.5), thrice / thrice.sum(1, keepdim=True))
    never = balance_shares(
        torch.tensor([[1.0, -1.0]] * 2), 0.001
    )  # one word never used: no division by nothing
    assert never.tolist() == [[1, 0], [1, 0]]


def test_words_in_use_are_counted_by_entropy():
    assert count_used_words(torch.eye(7)[:5]) == pytest.approx(5)
    assert count_used_words(torch.tensor([[1.0, 0, 0]] * 3)) == pytest.approx(1)
    mean = [0.5, 0.3, 0.2]  # of two rows that differ
    entropy = -sum(p * math.log(p) for p in mean)
    assert count_used_words(torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.5, 0.4]])) == pytest.approx(
        math.exp(entropy)
    )


# Student and teacher


def toy(**options):
    "Both sides with random weights, different ones."
    torch.manual_seed(0)
    model = SelfDistiller(32, 6, **options).eval()
    with torch.no_grad():
        for p in model.teacher.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model


def toy_batch():
    """Three places; two large cuts, two small ones; in one of the large cuts of one place some
    patches are hidden.
    """
    torch.manual_seed(1)
    hidden = torch.zeros(3, 2, 36, dtype=torch.bool)
    hidden[1, 0, 4:9] = True
    hidden[2, 1, 30] = True
    return torch.rand(3, 2, 3, 96, 96), torch.rand(3, 2, 3, 48, 48), hidden


def test_the_teacher_begins_as_the_student_and_does_not_learn():
    torch.manual_seed(0)
    model = SelfDistiller(32, 6)
    assert all(
        torch.equal(a, b) for a, b in zip(model.student.parameters(), model.teacher.parameters())
    )
    assert not any(p.requires_grad for p in model.teacher.parameters())
    assert all(p.requires_grad for p in model.student.parameters())
    assert (
        model.student["tower"].config.hidden_size == 32
        and model.student["whole"].embed.out_features == 6
    )
    assert not torch.equal(model.student["whole"].embed.weight, model.student["patch"].embed.weight)


def test_the_teacher_moves_a_share_of_the_way():
    model = toy(momentum=0.75)
    before = [p.clone() for p in model.teacher.parameters()]
    model.update_teacher()
    for old, now, new in zip(before, model.teacher.parameters(), model.student.parameters()):
        torch.testing.assert_close(now, 0.75 * old + 0.25 * new)


def test_pixels_are_normalised_as_dinov2_expects():
    model, pixels = toy(), torch.rand(2, 3, 96, 96)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    ready = (pixels - mean[:, None, None]) / std[:, None, None]
    for side in (model.student, model.teacher):
        with torch.no_grad():
            expected = side["tower"](ready).last_hidden_state
            torch.testing.assert_close(model.compute_tokens(side, pixels), expected)
            torch.testing.assert_close(
                model.score_words(side, pixels), side["whole"](expected[:, 0])
            )
    hidden = torch.zeros(2, 36, dtype=torch.bool)
    hidden[1, 3] = True
    with torch.no_grad():
        seen, holes = (
            model.compute_tokens(model.student, pixels),
            model.compute_tokens(model.student, pixels, hidden),
        )
    assert torch.equal(seen[0], holes[0]) and not torch.allclose(seen[1], holes[1])


@torch.no_grad()
def expected_loss(model, batch, cold=0.05, warm=0.1, rounds=3):
    """Sum by sum: cross-entropy of every pair of different cuts of a place, the first of which is
    large; then of hidden patches.
    """
    large, small, hidden = batch
    n = len(large)
    seen = [model.compute_tokens(model.teacher, large[:, c]) for c in range(2)]
    # the teacher evens out over all its large views together
    told = balance_shares(model.teacher["whole"](torch.cat([s[:, 0] for s in seen])), cold, rounds)
    holed = [model.compute_tokens(model.student, large[:, c], hidden[:, c]) for c in range(2)]
    cuts = [h[:, 0] for h in holed] + [
        model.compute_tokens(model.student, small[:, c])[:, 0] for c in range(small.shape[1])
    ]
    losses = []
    for t in range(2):
        for s, cut in enumerate(cuts):
            if s == t:
                continue
            said = F.log_softmax(model.student["whole"](cut) / warm, -1)
            losses += [-(told[t * n + i] * said[i]).sum().item() for i in range(n)]
    truth = torch.cat([s[:, 1:][hidden[:, c]] for c, s in enumerate(seen)])
    guess = torch.cat([h[:, 1:][hidden[:, c]] for c, h in enumerate(holed)])
    shares = balance_shares(model.teacher["patch"](truth), cold, rounds)
    said = F.log_softmax(model.student["patch"](guess) / warm, -1)
    return np.mean(losses), -(shares * said).sum(1).mean().item()


def test_the_loss_is_the_students_surprise_at_what_the_teacher_says():
    batch = toy_batch()
    model = toy(momentum=1.0)
    whole, patches = expected_loss(model, batch)
    assert model.loss(batch).item() == pytest.approx(whole + patches, rel=1e-4)
    model = toy(momentum=1.0, hide=0.25, cold=0.2, warm=0.5, rounds=1)
    whole, patches = expected_loss(model, batch, 0.2, 0.5, 1)
    assert model.loss(batch).item() == pytest.approx(whole + 0.25 * patches, rel=1e-4)
    nothing = (*batch[:2], torch.zeros_like(batch[2]))
    whole = expected_loss(model, (*batch[:2], batch[2]), 0.2, 0.5, 1)[0]
    seen = model.loss(nothing).item()
    assert seen == pytest.approx(whole, rel=0.05) and seen < whole + 0.25 * patches
    model.hide = 0
    assert model.loss(batch).item() == pytest.approx(whole, rel=1e-4)


def test_the_teacher_follows_at_each_step_and_only_the_student_learns():
    model = toy(momentum=0.5)
    before = model.teacher["whole"].embed.weight.clone()
    model.loss(toy_batch()).backward()
    now, new = model.teacher["whole"].embed.weight, model.student["whole"].embed.weight
    torch.testing.assert_close(now, (before + new) / 2)
    assert all(p.grad is None for p in model.teacher.parameters())
    assert all(p.grad is not None for p in model.student.parameters())


def test_scores_are_read_off_the_teacher(monkeypatch):
    "A place is found by the cosine of what differs from the mean; here three of four are."
    asked = []

    def cuts(n, seed, n_small):
        asked.append((n, seed, n_small))
        large = np.zeros((2, 2, 3, 1, 1), np.float32)
        large[:, 0, 0, 0, 0], large[:, 1, 0, 0, 0] = [0, 1], [0, 1]
        scenes = [large, large + 2]
        return [
            (s, np.zeros((2, 1, 3, 1, 1), np.float32), np.zeros((2, 2, 36), bool)) for s in scenes
        ]

    monkeypatch.setattr(distillation, "MultiCropViews", cuts)
    model = SelfDistiller(32, 4)
    first = torch.tensor([[10.0, 13, 10], [10, 9, 9], [11, 8, 8], [8, 10, 11]])
    second = torch.tensor([[10.0, 15, 7], [10, 10, 6], [9, 6, 11], [5, 11, 10]])
    calls = []

    def look(side, pixels, hidden=None):
        assert side is model.teacher
        calls.append(pixels[:, 0, 0, 0].tolist())
        tokens = torch.full((4, 2, 32), 9.0)
        tokens[:, 0] = 0
        tokens[:, 0, :3] = first if len(calls) == 1 else second
        return tokens

    model.compute_tokens = look
    model.teacher["whole"] = Told()
    found = score_distillation(model, 2)
    assert asked == [(2, 10**6, 1)] and calls == [[0, 1, 2, 3]] * 2
    assert found["retrieval"] == 0.75 and found["n"] == 4
    # shares .5 and three times 1/6 in every place
    assert found["words"] == pytest.approx(math.exp(math.log(2) / 2 + math.log(6) / 2), rel=1e-4)
    assert not model.training


class Told(torch.nn.Module):
    "Every place says word 1, three times as likely as another at the teacher's temperature."

    def forward(self, tokens):
        assert tokens.shape == (4, 32)
        return 0.05 * math.log(3) * torch.eye(4)[[1, 1, 1, 1]]


def test_a_run_is_told_what_was_asked_and_writes_it_down(tmp_path, monkeypatch):
    asked, streams, scores = [], [], iter([dict(words=1.0), dict(words=2.5)] * 3)

    def train(model, loss_of, batches, *args, **options):
        asked.append((loss_of == model.loss, model.training, args, options))
        batches(7)
        return [(12, 0.5)]

    monkeypatch.setattr(distillation, "SelfDistiller", lambda: SelfDistiller(32, 6))
    monkeypatch.setattr(distillation, "score_distillation", lambda model: next(scores))
    monkeypatch.setattr(distillation, "run_training_loop", train)
    monkeypatch.setattr(
        distillation,
        "load_batches",
        lambda data, n, collate, start: streams.append((data, n, collate, start)),
    )
    found = pretrain_dino(tmp_path, samples=100, seed=2, lr=5e-4)
    assert found == dict(words=2.5)
    [(own, training, args, options)], [(data, n, collate, start)] = asked, streams
    assert own and training
    assert args == (tmp_path, 12, None, 5e-4)  # 100 scenes, eight a step
    settings = dict(seed=2, batch_size=8)
    assert options == dict(weight_decay=0.04, muon=0.02, resume=False, settings=settings)
    assert (n, collate, start) == (8, collate_crops, 7)
    assert (len(data), data.seed) == (10**7, 3 * 10**7)  # each seed has its own scenes
    record = json.loads((tmp_path / "run.json").read_text())
    wanted = dict(seed=2, steps=12, scenes=8, lr=5e-4, muon=0.02, log=[[12, 0.5]])
    assert record == wanted | dict(untaught=dict(words=1.0), scores=dict(words=2.5))
    config = json.loads((tmp_path / "local" / "config.json").read_text())
    assert config["model_type"] == "dinov2" and config["dtype"] == "float16"
    pretrain_dino(tmp_path, samples=5, resume=True)
    assert asked[-1][2][1] == 1 and asked[-1][3]["resume"]  # one step at least
    pretrain_dino(tmp_path, minutes=1.5, muon=0.01)
    assert asked[-1][2][1:3] == (None, 1.5) and asked[-1][3]["muon"] == 0.01
