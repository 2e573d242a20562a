"""Towers taught by captions and by themselves: runs that can be resumed, towers that load
elsewhere, and the two known ways to fool oneself.
"""

import json
import math
import time
from functools import partial

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, CLIPVisionModel, Dinov2Model, LlamaForCausalLM

from ferretlite.app import cli
from ferretlite.model import corpus
from ferretlite.model import tokens as tokens_module
from ferretlite.pretraining import clip as pretraining
from ferretlite.pretraining import dense as probes
from ferretlite.pretraining import dino as distillation
from ferretlite.pretraining import language
from ferretlite.pretraining.clip import (
    OBJECT_PHRASES,
    CaptionPair,
    IconicViews,
    collate_iconic,
    contrastive_loss,
    encode_captions,
    linear_probe,
    match_captions,
    pretrain_clip,
)
from ferretlite.pretraining.dense import DenseTowers, pretrain_towers
from ferretlite.pretraining.dino import (
    MultiCropViews,
    SelfDistiller,
    balance_shares,
    collate_crops,
    count_used_words,
    pretrain_dino,
)
from ferretlite.pretraining.loop import run_training_loop
from ferretlite.pretraining.objects import ObjectScenes
from ferretlite.scenes.world import SPLITS, make_scene
from ferretlite.vision.encoders import compute_tower_map


@pytest.fixture
def small(monkeypatch):
    "All trainings of towers at a fraction of their size."
    monkeypatch.setattr(pretraining, "CaptionPair", lambda: CaptionPair(32, 16))
    monkeypatch.setattr(distillation, "SelfDistiller", lambda: SelfDistiller(32, 16))
    monkeypatch.setattr(probes, "DenseTowers", lambda: DenseTowers(32))
    for module, name in (
        (pretraining, "score_captions"),
        (distillation, "score_distillation"),
        (probes, "score_towers"),
    ):
        whole = getattr(module, name)
        monkeypatch.setattr(module, name, lambda model, *_, whole=whole: whole(model, n=8))


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "pretrain, side, tower",
    [
        (pretrain_clip, "global", CLIPVisionModel),
        (pretrain_dino, "local", Dinov2Model),
        (pretrain_towers, "local", Dinov2Model),
    ],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    small, pretrain, side, tower, tmp_path, monkeypatch
):
    module, often = (
        {pretrain_clip: pretraining, pretrain_dino: distillation, pretrain_towers: probes}[
            pretrain
        ],
        partial(run_training_loop, every=2),
    )
    monkeypatch.setattr(module, "run_training_loop", often)
    pretrain(tmp_path / "whole", samples=12, batch_size=2)

    def die(model, loss_of, batches, *args, **kw):
        def cut(start):
            for step, batch in enumerate(batches(start), start):
                if step == 5:
                    raise Killed
                yield batch

        return often(model, loss_of, cut, *args, **kw)

    monkeypatch.setattr(module, "run_training_loop", die)
    with pytest.raises(Killed):
        pretrain(tmp_path / "cut", samples=12, batch_size=2)
    monkeypatch.setattr(module, "run_training_loop", often)
    pretrain(tmp_path / "cut", samples=12, batch_size=2, resume=True)
    one, two = (
        tower.from_pretrained(tmp_path / n / side, dtype=torch.float32) for n in ("whole", "cut")
    )
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values())
    )
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert (
        record.get("steps", sum(leg["steps"] for leg in record.get("legs", []))) == 6
        and record["log"] == json.loads((tmp_path / "cut" / "run.json").read_text())["log"]
        and "scores" in record
    )
    assert torch.isfinite(
        compute_tower_map(
            one.eval(), torch.rand(1, 3, one.config.image_size, one.config.image_size)
        )
    ).all()


class Clock:
    "A clock that only we move."

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize("minutes, steps", [(2, 104), (0.5, 16), (0.01, 16)])
def test_minutes_become_the_steps_that_fill_them(minutes, steps, tmp_path, monkeypatch):
    """Eight slow steps of 3 s, then 1 s each: of two minutes 120 - 24 - 8 = 88 s are left after
    sixteen. Where too few are given, the sixteen done are what is told.
    """
    clock = Clock()
    monkeypatch.setattr("ferretlite.pretraining.loop.time", clock)
    line, done = torch.nn.Linear(1, 1), []

    def loss_of(batch):
        clock.now += 3 if len(done) < 8 else 1
        done.append(1)
        return line(batch).square().mean()

    log = run_training_loop(
        line,
        loss_of,
        lambda start: (torch.ones(1, 1) for _ in range(1000)),
        tmp_path,
        minutes=minutes,
    )
    assert len(done) == log[-1][0] == steps and [s for s, _ in log] == [
        *range(50, steps, 50),
        steps,
    ]
    assert minutes < 2 or clock.now == 120


def test_a_run_by_minutes_that_goes_on_keeps_its_steps(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("ferretlite.pretraining.loop.time", clock)

    def learn(end, resume, seconds):
        torch.manual_seed(0)
        line = torch.nn.Linear(1, 1)

        def loss_of(batch):
            clock.now += seconds
            return line(batch).square().mean()

        return line.weight, run_training_loop(
            line,
            loss_of,
            lambda start: (torch.full((1, 1), s / 9) for s in range(start, end)),
            tmp_path / str(seconds),
            minutes=1,
            resume=resume,
        )

    whole, log = learn(1000, False, 1)
    learn(55, False, 1.0)
    clock.now += 1000  # the plug is pulled; nobody is there for a while
    again, told = learn(1000, True, 1.0)
    assert log[-1][0] == 60 and told == log and torch.equal(whole, again)


@pytest.fixture
def brief(small, monkeypatch):
    """`ferretlite pretrain` with small towers, a small language model and two scenes a step; gives
    the seconds that the loop took.
    """
    took = []

    def timed(*args, **kw):
        began = time.perf_counter()
        log = run_training_loop(*args, **kw)
        took.append(time.perf_counter() - began)
        return log

    for module, name in (
        (pretraining, "pretrain_clip"),
        (distillation, "pretrain_dino"),
        (probes, "pretrain_towers"),
        (language, "pretrain_lm"),
    ):
        monkeypatch.setattr(module, name, partial(getattr(module, name), batch_size=2))
        monkeypatch.setattr(module, "run_training_loop", timed)
    monkeypatch.setattr(language, "make_corpus", lambda: whole_corpus(24))
    monkeypatch.setattr(language, "ObjectScenes", partial(ObjectScenes, pool=20))
    monkeypatch.setattr(
        language, "tiny_llama_config", lambda tokenizer: whole_llama(tokenizer, 64, 3)
    )
    return took


whole_corpus, whole_llama = corpus.make_corpus, tokens_module.tiny_llama_config


@pytest.mark.parametrize(
    "what, place, family",
    [
        ("clip", "global", CLIPVisionModel),
        ("dino", "local", Dinov2Model),
        ("dense", "local", Dinov2Model),
        ("lm", "", LlamaForCausalLM),
    ],
)
def test_pretraining_by_minutes_ends_in_time_with_a_model(brief, what, place, family, tmp_path):
    assert cli.main(["pretrain", what, "--minutes", "0.05", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "run.json").read_text())
    steps = record.get("steps", sum(leg["steps"] for leg in record.get("legs", [])))
    assert steps >= 16 and record["log"][-1][0] == steps
    assert brief[0] < 3 * 4 or steps == 16  # three seconds on a machine of one's own
    model = family.from_pretrained(tmp_path / place, dtype=torch.float32)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    if what == "lm":
        assert AutoTokenizer.from_pretrained(tmp_path)(
            "a red star"
        ).input_ids and model.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path))
    else:
        assert torch.isfinite(
            compute_tower_map(
                model.eval(), torch.rand(1, 3, model.config.image_size, model.config.image_size)
            )
        ).all()


def test_regions_change_what_is_learned(small, tmp_path):
    for name, regions in (("plain", 0.0), ("regions", 1.0)):
        pretrain_clip(tmp_path / name, samples=2, batch_size=1, regions=regions)
    logs = [
        json.loads((tmp_path / n / "run.json").read_text())["regions"] for n in ("plain", "regions")
    ]
    one, two = (
        CLIPVisionModel.from_pretrained(tmp_path / n / "global", dtype=torch.float32).state_dict()
        for n in ("plain", "regions")
    )
    assert logs == [0.0, 1.0] and any(not torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize(
    "split", [s for s in SPLITS if s not in ("novel", "practice", "wide-practice")]
)  # whose things have no names
def test_every_caption_of_every_split_can_be_read(split):
    for seed in range(6):
        ids = encode_captions([make_scene(seed, 192, split).caption], most=800)
        assert (ids > 2).sum() > 2  # words between start and end


def test_things_of_iconic_views_lie_inside_them():
    for i in range(12):
        for pixels, things in IconicViews(12, 7)[i]:
            assert pixels.shape == (96, 96, 3) and pixels.dtype == np.uint8
            for t in things:
                assert 0 <= t.box.x1 < t.box.x2 <= 96.001 and 0 <= t.box.y1 < t.box.y2 <= 96.001


def test_boxes_of_iconic_views_hold_their_things():
    "In a view of one filled thing, its own colour fills more of the box than of the rest."
    from ferretlite.scenes.world import COLORS

    closer = []
    for i in range(30):
        for pixels, [thing] in (
            v
            for v in IconicViews(30, 7, most=1)[i]
            if v[1][0].fill == "filled" and v[1][0].name != "word"
        ):
            near = (
                np.linalg.norm(pixels.astype(float) - np.array(COLORS[thing.color]), axis=-1) < 60
            )
            x1, y1, x2, y2 = (round(v) for v in thing.box.list())
            inside = near[y1:y2, x1:x2].mean()
            outside = (near.sum() - near[y1:y2, x1:x2].sum()) / max(
                1, near.size - (y2 - y1) * (x2 - x1)
            )
            closer.append(inside > outside + 0.1)
    assert len(closer) > 20 and np.mean(closer) > 0.9


def test_equal_captions_are_not_each_others_negatives():
    captions = ["a star.", "a cup.", "a star."]
    vectors = torch.eye(3)[[0, 1, 0]]
    fair, cruel = (
        contrastive_loss(vectors, vectors, 50, same)[0].requires_grad_(False)
        for same in (match_captions(captions), torch.eye(3))
    )
    v = vectors.clone().requires_grad_(True)
    contrastive_loss(v, vectors, 50, match_captions(captions))[0].backward()
    assert v.grad.abs().max() < 1e-4 and fair <= cruel + 1e-6


def test_contrast_works_in_both_directions():
    "All captions prefer view 0: rows cannot tell, columns can."
    views, captions = torch.eye(4), torch.eye(4)[[0, 0, 0, 0]]
    one, other = (
        contrastive_loss(views, captions, 30, torch.eye(4))[0],
        contrastive_loss(captions, views, 30, torch.eye(4))[0],
    )
    assert one.item() == pytest.approx(other.item(), abs=1e-4) and one > math.log(4)


def test_class_tokens_are_asked_in_a_batch_as_alone():
    torch.manual_seed(0)
    pair = CaptionPair(32, 16).eval()
    pixels, captions, _ = collate_iconic([IconicViews(3, 1)[0]])
    with torch.no_grad():
        assert torch.allclose(
            pair.embed_views(pixels),
            torch.cat([pair.embed_views(p[None]) for p in pixels]),
            atol=1e-5,
        )
    assert len(set(OBJECT_PHRASES)) == len(OBJECT_PHRASES) and all(
        encode_captions([n]).max() > 2 for n in OBJECT_PHRASES
    )


def test_evening_out_is_what_keeps_words_alive():
    torch.manual_seed(0)
    similar = torch.randn(128, 32) * 0.05
    similar[:, 3] += 0.5
    assert (
        count_used_words(balance_shares(similar, 0.05, 0))
        < 2
        < 20
        < count_used_words(balance_shares(similar, 0.05, 3))
    )


def test_the_teacher_sees_what_the_student_does_not():
    torch.manual_seed(0)
    model = SelfDistiller(32, 16).eval()
    large, small, hidden = collate_crops([MultiCropViews(2, 3)[0]])
    hidden[:] = False
    hidden[0, 0, :20] = True
    seen = []
    real = model.compute_tokens
    model.compute_tokens = lambda side, pixels, hide=None: (
        seen.append((side is model.teacher, len(pixels), None if hide is None else int(hide.sum())))
        or real(side, pixels, hide)
    )
    model.loss((large, small, hidden))
    assert seen == [
        (True, 8, None),
        (False, 8, 20),
        (False, 16, None),
    ]  # the teacher: large cuts, whole; the student: all cuts, with holes


def test_no_cut_is_compared_with_itself():
    """With one word per place, agreement between *other* cuts is what counts: a student that knows
    only the cut it is shown pays.
    """
    torch.manual_seed(0)
    model = SelfDistiller(32, 4, hide=0, momentum=1.0, rounds=0)

    def look(side, pixels, hide=None):
        out = torch.zeros(len(pixels), 2, 32)
        out[:, 0, 0] = torch.arange(len(pixels))
        return out

    model.compute_tokens = look
    model.teacher["whole"] = Lookup({0: 0, 1: 1})
    model.student["whole"] = Lookup({0: 1, 1: 0, 2: 0, 3: 0})
    large, small, hidden = (
        torch.zeros(1, 2, 3, 96, 96),
        torch.zeros(1, 0, 3, 48, 48),
        torch.zeros(1, 2, 36, dtype=torch.bool),
    )
    crossed = model.loss(
        (large, small, hidden)
    ).item()  # the student says of each cut what the teacher says of the other
    model.student["whole"] = Lookup({0: 0, 1: 1})
    assert crossed < 0.01 < model.loss((large, small, hidden)).item()


class Lookup(torch.nn.Module):
    "Says a given word of a given token."

    def __init__(self, words):
        super().__init__()
        self.words = words

    def forward(self, tokens):
        return 2 * torch.eye(4)[[self.words[int(t)] for t in tokens[:, 0]]] - 1


def test_a_probe_is_scored_on_rows_that_it_was_not_fitted_on():
    torch.manual_seed(0)
    noise, truth, fitted = (
        torch.randn(300, 200),
        torch.randint(0, 2, (300,)),
        torch.arange(300) < 150,
    )
    assert (
        linear_probe(noise, truth, fitted, ridge=1e-6) < 0.7
    )  # with 200 columns it fits 150 rows without error


def test_a_crop_shows_its_thing_whole_and_in_the_middle():
    from ferretlite.pretraining.clip import KIND_NAMES
    from ferretlite.pretraining.dense import DenseViews, collate_sides
    from ferretlite.scenes.world import COLORS, draw_scene

    data = DenseViews(6, 10**6, view=96)
    pixels, truth = collate_sides([data[i] for i in range(6)])["crop"]
    assert pixels.shape == (6, 3, 96, 96) and set(truth) == {"kind", "color", "fill"}
    for i in range(6):
        image, found, owner = draw_scene(10**6 + i, (384, 384), "crowd" if i % 3 else "train")
        number, thing = found[(10**6 + i) % len(found)]
        assert (KIND_NAMES[truth["kind"][i]], list(COLORS)[truth["color"][i]]) == (
            thing.name,
            thing.color,
        )
        if (
            min(thing.box.x1, thing.box.y1) < thing.box.width
            or max(thing.box.x2, thing.box.y2) > 384 - thing.box.width
        ):
            continue  # near the border the crop is cut
        seen = (
            pixels[i, :, 44:52, 44:52].mean((1, 2)) * 255
        ).numpy()  # the middle of the crop is the middle of the box, in the picture's own colours
        y, x, k = (
            int(thing.box.center().y),
            int(thing.box.center().x),
            max(1, round(max(thing.box.width, thing.box.height) * 4 / 3 / 24)),
        )
        true = np.asarray(image)[y - k : y + k, x - k : x + k].mean((0, 1))
        assert np.abs(seen - true).max() < 60, (i, seen, true)


@pytest.mark.parametrize("style", ["ferret", "griffon"])
def test_later_lessons_hold_many_of_a_kind(style):
    from collections import Counter

    from ferretlite.pretraining.objects import CURRICULA, ObjectScenes

    lessons = ObjectScenes(10**6, seed=3, pool=40, style=style, skip=CURRICULA[style][0][0])
    most = [max(Counter(o.name for o in lessons[i][0]).values()) for i in range(60)]
    assert sum(n > 4 for n in most) > 15  # 21 of sixty; 9 without those scenes
