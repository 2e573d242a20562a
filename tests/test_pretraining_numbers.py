"""Towers taught by captions: every rule of the views, the losses, the schedule and the loop in
numbers.
"""

import json
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ferretlite.common import devices
from ferretlite.common.devices import (
    autocast,
    choose_training_device,
    use_deterministic_sums,
)
from ferretlite.common.errors import InputError
from ferretlite.common.files import write_json, write_whole
from ferretlite.pretraining import clip as pretraining
from ferretlite.pretraining.clip import (
    CAPTION_WORDS,
    OBJECT_PHRASES,
    CaptionPair,
    IconicViews,
    assign_patches,
    collate_iconic,
    compute_cell_shares,
    compute_similarity,
    contrastive_loss,
    cut_box,
    encode_captions,
    match_captions,
    normalise_for_tower,
    pretrain_clip,
    region_loss,
    score_captions,
)
from ferretlite.pretraining.loop import compute_learning_rate, load_batches, run_training_loop
from ferretlite.regions.geometry import Box
from ferretlite.scenes.world import SceneObject, draw_scene
from ferretlite.vision.encoders import compute_tower_map

# Views


@pytest.mark.parametrize(
    "box, left, top, cut",
    [
        ((110, 220, 140, 280), 100, 200, (10, 20, 40, 80)),
        ((90, 190, 130, 260), 100, 200, (0, 0, 30, 60)),
        ((150, 260, 220, 330), 100, 200, (50, 60, 96, 96)),
        ((60, 210, 120, 250), 100, 200, None),  # a third of the width is left
        ((61, 210, 121, 250), 100, 200, (0, 10, 21, 50)),
        ((110, 160, 150, 220), 100, 200, None),  # a third of the height is left
        ((110, 161, 150, 221), 100, 200, (10, 0, 50, 21)),
        ((300, 210, 320, 230), 100, 200, None),
    ],
)
def test_a_box_is_cut_at_a_window_of_96_pixels(box, left, top, cut):
    found = cut_box(Box(*box), left, top, 96)
    assert found is None if cut is None else found.list() == pytest.approx(cut)


def test_iconic_views_are_square_cuts_around_their_things():
    "Worked out again from the scene: where the view was cut says where its boxes are."
    data = IconicViews(5, seed=40)
    assert (data.view, data.cuts, data.most, data.split, len(data)) == (96, 6, 3, "train", 5)
    views = 0
    for i in range(3):
        image, found, _ = draw_scene(40 + i, (384, 384), "train")
        true = {}
        for _, thing in found:
            true.setdefault((thing.phrase, thing.text), []).append(thing.box)
        for pixels, things in data[i]:
            assert pixels.shape == (96, 96, 3) and pixels.dtype == np.uint8
            assert 1 <= len(things) <= 3
            views += 1
            whole = [t for t in things if len(true[t.phrase, t.text]) == 1]
            inner = [t for t in whole if 0 < t.box.x1 and t.box.x2 < 96]
            for t in inner:
                (box,) = true[t.phrase, t.text]
                side = 96 * box.width / t.box.width  # of the window in the scene
                assert 23.9 <= side <= 380.1
                left = box.x1 - t.box.x1 * side / 96
                if 0 < t.box.y1 and t.box.y2 < 96:
                    assert t.box.height * side / 96 == pytest.approx(box.height, rel=1e-6)
                    top = box.y1 - t.box.y1 * side / 96
                    assert -1e-6 <= left <= 384 - side + 1e-6 and -1e-6 <= top <= 384 - side + 1e-6
                    area = (left, top, left + side, top + side)
                    again = np.asarray(image.resize((96, 96), box=area, resample=3))
                    assert np.abs(again.astype(int) - pixels).max() <= 2
        assert len(data[i]) <= 6
    assert views >= 8


def test_a_views_frame_is_a_little_to_much_larger_than_its_thing():
    "1.15 to 2.6 times the longer side, and every view shows the thing it was cut for."
    factors = []
    for i in range(12):
        _, found, _ = draw_scene(90 + i, (384, 384), "train")
        sides = [max(t.box.width, t.box.height) for _, t in found]
        for _, things in IconicViews(12, 90, most=1)[i]:
            shown = max(things[0].box.width, things[0].box.height)
            factors.append(96 / shown)
        assert sides
    assert 1.1 < min(factors) < 1.5 and 2.0 < max(factors) < 6
    assert all(f >= 1.14 for f in factors if f < 3)
    assert np.mean(np.array(factors) > 1.6) > 0.3


def test_fewer_cuts_fewer_views_and_splits_differ():
    assert all(len(IconicViews(3, 7, cuts=1, most=99)[i]) == 1 for i in range(3))
    assert len(IconicViews(3, 7, cuts=4, most=99)[0]) == 4
    train, val = (IconicViews(1, 7, split=s)[0][0][0] for s in ("train", "val"))
    assert not np.array_equal(train, val)
    assert np.array_equal(IconicViews(9, 5)[2][0][0], IconicViews(1, 7)[0][0][0])  # seed + i
    assert IconicViews(1, 7, view=48)[0][0][0].shape == (48, 48, 3)


def thing(name, box=(0, 0, 1, 1), color="red", fill="filled", text=None):
    return SceneObject(name, Box(*box), None, color, fill, text)


def test_views_are_collated_with_their_captions():
    one, two, three = (np.full((4, 4, 3), v, np.uint8) for v in (0, 51, 255))
    three = three.copy()
    three[1, 2] = (51, 102, 153)
    star, cup = thing("star", (0, 5, 1, 6)), thing("cup", (0, 1, 1, 2), "blue", "outlined")
    items = [[(one, [star])], [(two, [cup]), (three, [star, cup])]]
    pixels, captions, things = collate_iconic(items)
    assert pixels.shape == (3, 3, 4, 4) and pixels.dtype == torch.float32
    assert pixels[1, 0, 0, 0].item() == pytest.approx(0.2)
    assert pixels[2, :, 1, 2].tolist() == pytest.approx([0.2, 0.4, 0.6])
    assert captions == [
        "A filled red star.",
        "An outlined blue cup.",
        "An outlined blue cup and a filled red star.",  # from top to bottom
    ]
    assert things == [[star], [cup], [star, cup]]


# Words


def test_captions_become_numbers_between_start_and_end():
    assert CAPTION_WORDS[:8] == [
        "<pad>",
        "<start>",
        "<end>",
        "a",
        "an",
        "and",
        "filled",
        "outlined",
    ]
    assert len(CAPTION_WORDS) == len(set(CAPTION_WORDS)) and {"dice", "6", "word", "pink"} <= set(
        CAPTION_WORDS
    )
    rows = encode_captions(["A filled red star.", "An outlined, BLUE cup and a star."])
    assert rows.shape == (2, 24) and rows.dtype == torch.long
    star, red = CAPTION_WORDS.index("star"), CAPTION_WORDS.index("red")
    assert rows[0].tolist() == [1, 3, 6, red, star, 2] + [0] * 18
    assert rows[1, :4].tolist() == [1, 4, 7, CAPTION_WORDS.index("blue")] and rows[1, 8] == 2
    cut = encode_captions(["a a a a a a"], most=5)
    assert cut.tolist() == [[1, 3, 3, 3, 2]]  # the end stays
    assert encode_captions(["a a a"], most=5).tolist() == [[1, 3, 3, 3, 2]]
    with pytest.raises(ValueError, match="unknown word 'zebra'"):
        encode_captions(["a zebra"])


def test_names_are_every_fill_colour_and_kind_and_filled_words():
    "Forty-four kinds of eight colours, filled and outlined; words are never outlined."
    kinds = {n.split(" ", 2)[2] for n in OBJECT_PHRASES}
    assert len(OBJECT_PHRASES) == len(set(OBJECT_PHRASES)) == (len(kinds) - 1) * 16 + 8
    assert "outlined pink dice 6" in OBJECT_PHRASES and "filled red word" in OBJECT_PHRASES
    assert "outlined red word" not in OBJECT_PHRASES and "word" in kinds


# Losses


def test_the_contrastive_loss_in_numbers():
    "Two views and captions; logits 2 · [[.6, .8], [1, 0]] by hand."
    views = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    captions = torch.tensor([[0.6, 1.0], [0.8, 0.0]])  # [caption, channel]
    logits = np.array([[1.2, 1.6], [2.0, 0.0]])  # views @ captions.T, twice
    rows = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    cols = logits - np.log(np.exp(logits).sum(0, keepdims=True))
    loss, right = contrastive_loss(views, captions, 2.0, torch.eye(2))
    expected = -(rows[0, 0] + rows[1, 1]) / 4 - (cols[0, 0] + cols[1, 1]) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-5) and right == 0.0
    same = torch.tensor([[1.0, 1.0], [0.0, 1.0]])  # both captions fit the first view
    loss, right = contrastive_loss(views, captions, 2.0, same)
    expected = -((rows[0, 0] + rows[0, 1]) / 2 + rows[1, 1]) / 4
    expected -= (cols[0, 0] + (cols[0, 1] + cols[1, 1]) / 2) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-5) and right == 0.5


def test_it_is_views_that_prefer_a_caption():
    "Both views prefer their own captions, but the second caption prefers the first view."
    views, captions = torch.eye(2), torch.tensor([[1.0, 0.0], [0.9, 0.1]])
    assert contrastive_loss(views, captions, 1.0, torch.eye(2))[1] == 1.0
    assert contrastive_loss(captions, views, 1.0, torch.eye(2))[1] == 0.5


def test_equal_captions_are_marked_as_the_same():
    found = match_captions(["a", "b", "a", "c"])
    assert found.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    assert found.dtype == torch.float32


def test_pixels_are_normalised_as_each_tower_expects():
    "CLIP's and DINO's published means and deviations, channel by channel."
    pixels = torch.tensor([0.2, 0.5, 0.9])[None, :, None, None].expand(1, 3, 2, 1)
    clip = normalise_for_tower(pixels, "clip_vision_model")[0, :, 1, 0].tolist()
    assert clip == pytest.approx(
        [
            (0.2 - 0.48145466) / 0.26862954,
            (0.5 - 0.4578275) / 0.26130258,
            (0.9 - 0.40821073) / 0.27577711,
        ]
    )
    dino = normalise_for_tower(pixels, "dinov2")[0, :, 0, 0].tolist()
    assert dino == pytest.approx(
        [(0.2 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.9 - 0.406) / 0.225]
    )


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    return CaptionPair(32, 16).eval()


def test_the_pair_is_of_the_documented_size():
    found = CaptionPair()
    vision, text = found.vision.config, found.text.config
    assert (vision.hidden_size, text.hidden_size, text.intermediate_size) == (160, 160, 640)
    assert (text.num_hidden_layers, text.num_attention_heads) == (2, 5)
    assert (text.max_position_embeddings, text.vocab_size) == (24, len(CAPTION_WORDS))
    assert found.see_embed.weight.shape == found.read_embed.weight.shape == (128, 160)
    assert found.see_embed.bias is None and found.region_embed.weight.shape == (128, 160)
    assert found.scale().item() == pytest.approx(1 / 0.07, rel=1e-5)
    with torch.no_grad():
        found.log_scale.fill_(9.0)
    assert found.scale().item() == 100.0  # CLIP section 2.5: at most 100


def test_a_view_is_its_class_token_and_a_caption_its_end(pair):
    side = pair.vision.config.image_size
    pixels = torch.rand(2, 3, side, side)
    with torch.no_grad():
        seen = pair.embed_views(pixels)
        pooled = pair.vision(
            pixel_values=normalise_for_tower(pixels, "clip_vision_model")
        ).pooler_output
        expected = pooled @ pair.see_embed.weight.T
        assert torch.allclose(seen, expected / expected.norm(dim=1, keepdim=True), atol=1e-5)
        captions = ["a star", "a filled red star and a cup"]
        ids = encode_captions(captions)
        states = pair.text(input_ids=ids).last_hidden_state
        ends = torch.stack([states[0, 3], states[1, 8]])  # <start> a star <end>
        assert ids[0, 3] == ids[1, 8] == 2
        expected = ends @ pair.read_embed.weight.T
        read = pair.embed_captions(captions)
        assert torch.allclose(read, expected / expected.norm(dim=1, keepdim=True), atol=1e-5)


def test_a_thing_is_the_mean_of_its_patches(pair):
    side, patch = pair.vision.config.image_size, pair.vision.config.patch_size
    assert side // patch >= 3
    star = thing("star", (patch, 0, 2 * patch, patch))
    cup = thing("cup", (0, patch, patch, 3 * patch), "blue")
    speck = thing("gear", (patch + 1, 1, patch + 3, 2), "pink")  # takes the star's only patch
    pixels = torch.rand(2, 3, side, side)
    with torch.no_grad():
        found, phrases = pair.embed_regions(pixels, [[star, speck], [star, cup]])
        maps = compute_tower_map(pair.vision, normalise_for_tower(pixels, "clip_vision_model"))
    assert phrases == ["filled pink gear", "filled red star", "filled blue cup"]
    means = [maps[0, 0, 1], maps[1, 0, 1], (maps[1, 1, 0] + maps[1, 2, 0]) / 2]
    expected = torch.stack(means) @ pair.region_embed.weight.T
    expected = expected / expected.norm(dim=1, keepdim=True)
    assert torch.allclose(found, expected, atol=1e-5)


def test_naming_things_costs_their_cross_entropy_among_the_names_of_the_batch(pair):
    side, patch = pair.vision.config.image_size, pair.vision.config.patch_size
    things = [
        [thing("star", (0, 0, patch, patch))],
        [thing("cup", (0, 0, patch, patch)), thing("star", (patch, 0, 2 * patch, patch))],
    ]
    pixels = torch.rand(2, 3, side, side)
    with torch.no_grad():
        loss = region_loss(pair, pixels, things)
        vectors, phrases = pair.embed_regions(pixels, things)
        names = ["filled red cup", "filled red star"]
        logits = vectors @ pair.embed_captions(names).T / 0.07
        truth = torch.tensor([names.index(p) for p in phrases])
        assert truth.tolist() == [1, 0, 1]
        assert loss.item() == pytest.approx(F.cross_entropy(logits, truth).item(), rel=1e-4)


# Patches


def test_shares_of_cells_and_boxes():
    "A box of 2.5 x 1 cells, and one of half a cell inside of one; 2 rows, 3 columns."
    boxes = np.array([[0.5, 0.25, 3.0, 1.25], [1.25, 1.5, 1.75, 2.0]])
    found = compute_cell_shares(boxes, (2, 3))
    assert found.shape == (2, 2, 3)
    assert found[0] == pytest.approx(np.array([[0.375, 0.75, 0.75], [0.125, 0.25, 0.25]]))
    assert found[1] == pytest.approx(np.array([[0, 0, 0], [0, 1, 0]]))


def test_a_cell_belongs_to_the_largest_share_and_the_smaller_box():
    "The word number comes first; three tenths are too few."
    boxes = np.array([[0, 0, 3, 2], [1, 0, 2, 1], [2, 1, 2.29, 2.0], [0.0, 1.0, 0.31, 2.0]])
    assert assign_patches(boxes, (2, 3)).tolist() == [[0, 1, 0], [3, 0, 2]]
    for left, first in ((0.75, -1), (0.65, 0)):  # a quarter of a cell, and .35 of one
        assert assign_patches(np.array([[left, 0, 2, 1]]), (1, 2)).tolist() == [[first, 0]]
    assert assign_patches(np.zeros((0, 4)), (2, 3)).tolist() == [[-1] * 3] * 2


# Schedule


def test_the_rate_rises_in_a_line_and_falls_as_half_a_cosine():
    "Peak 2: after 50 of 1000 steps at the top of the rise; at the end a hundredth."
    assert compute_learning_rate(0, 1000, 2.0) == pytest.approx(2 / 50)
    assert compute_learning_rate(24, 1000, 2.0) == pytest.approx(1.0 * cosine(24 / 1000), rel=1e-6)
    assert compute_learning_rate(500, 1000, 2.0) == pytest.approx(2 * (0.01 + 0.99 * 0.5))
    assert compute_learning_rate(250, 1000, 2.0) == pytest.approx(2 * cosine(0.25))
    assert compute_learning_rate(1000, 1000, 2.0) == pytest.approx(0.02)
    assert compute_learning_rate(1500, 1000, 2.0) == pytest.approx(0.02)
    assert compute_learning_rate(0, 100, 1.0) == pytest.approx(0.1)  # a tenth of the run at most
    assert compute_learning_rate(0, 1000, 1.0, warmup=4) == pytest.approx(0.25)
    assert compute_learning_rate(0, 5, 1.0) == pytest.approx(1.0)


def cosine(share):
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))


# Files and batches


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "two" / "new" / "x.json"
    assert write_json(path, dict(a=[1, "ä"])) == path
    assert path.read_text(encoding="utf-8") == '{"a": [1, "\\u00e4"]}\n'
    assert write_json(path, dict(a=1), 1) and path.read_text() == '{\n "a": 1\n}\n'
    with pytest.raises(ValueError):
        write_json(path, dict(a=math.nan))

    def fail(part):
        part.write_text("half")
        raise OSError("no room")

    with pytest.raises(OSError):
        write_whole(path, fail)
    assert path.read_text() == '{\n "a": 1\n}\n'
    seen = []
    write_whole(path, lambda part: (seen.append(part.name), part.write_text("b")))
    assert re.fullmatch(r"x\.json\.[0-9a-f]{8}\.part", *seen) and path.read_text() == "b"
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


def test_a_stream_begins_at_its_step():
    "Ten items in batches of three from step 2 on: items 6 to 9."
    batches = [b for b in load_batches(list(range(10)), 3, list, start=2, workers=0)]
    assert batches == [[6, 7, 8], [9]]
    assert [b for b in load_batches(list(range(4)), 3, list, workers=0)] == [[0, 1, 2], [3]]
    loader = load_batches(list(range(4)), 3, list, workers=2)
    assert (loader.num_workers, loader.prefetch_factor) == (2, 4)


@pytest.mark.parametrize("cores, workers", [(1, 1), (2, 1), (5, 2)])
def test_one_process_draws_for_each_two_cores(monkeypatch, cores, workers):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert load_batches(list(range(4)), 3, list).num_workers == workers


def test_where_training_runs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_training_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_training_device() == torch.device("cuda", 3)
    monkeypatch.delenv("LOCAL_RANK")
    assert choose_training_device() == torch.device("cuda", 0)


@pytest.mark.parametrize(
    "seconds, wanted, fast",
    [
        (0.5, "auto", True),
        (0.95, "auto", False),  # a gain that noise may have made
        (20.0, "auto", False),
        (0.5, "float32", False),
        (20.0, "bfloat16", True),
    ],
)
def test_half_precision_where_it_is_fast(monkeypatch, seconds, wanted, fast):
    """The clock says how long bfloat16 takes where float32 takes a second."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_chosen", [])
    times = {torch.float32: 1.0, torch.bfloat16: seconds}
    measure = devices.measure_fastest_dtype.__wrapped__
    monkeypatch.setattr(
        devices, "measure_fastest_dtype", lambda: measure(lambda dtype, device: times[dtype])
    )
    assert devices.set_training_dtype(wanted) == ("bfloat16" if fast else "float32")
    found = autocast()
    assert found._enabled == fast and found.fast_dtype == torch.bfloat16 and found.device == "cpu"


def test_the_format_of_products_is_measured_once_and_has_a_name(monkeypatch):
    monkeypatch.setattr(devices, "_chosen", [])
    assert devices.get_training_dtype() in ("float32", "bfloat16")
    before = devices.measure_fastest_dtype.cache_info().misses
    devices.set_training_dtype("auto")
    assert devices.measure_fastest_dtype.cache_info().misses == before
    with pytest.raises(InputError, match="dtype: found 'float16', expected auto, float32 or"):
        devices.set_training_dtype("float16")


def test_sums_have_one_order_on_a_cpu():
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(False)
        use_deterministic_sums()
        assert torch.are_deterministic_algorithms_enabled() or torch.cuda.is_available()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)


# The loop


class Plain(torch.nn.Module):
    "One matrix inside a layer, an embedding and a vector."

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2, bias=False)
        self.embed = torch.nn.Linear(3, 2, bias=False)
        self.norm = torch.nn.Parameter(torch.ones(2))
        self.frozen = torch.nn.Parameter(torch.ones(2, 3), requires_grad=False)


def constant(value):
    return lambda start: (torch.full((1, 3), value) for _ in range(start, 1000))


def test_the_loop_is_adamw_with_clipped_gradients_and_a_schedule(tmp_path):
    "Three steps against torch's own optimiser, written out."
    torch.manual_seed(0)
    model, other = Plain(), Plain()
    values = (1.5, 40.0, 0.2)  # gradients of very different length, so that cutting them matters
    other.load_state_dict(model.state_dict())

    def loss_of(model, batch):
        return ((model.layer(batch) + model.embed(batch)) * model.norm - 50).square().mean()

    batches = [torch.full((1, 3), v) for v in values]
    log = run_training_loop(
        model,
        lambda b: loss_of(model, b),
        lambda start: iter(batches),
        tmp_path,
        steps=3,
        lr=0.02,
        every=2,
    )
    free = [p for p in other.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(free, lr=1.0, betas=(0.9, 0.98), weight_decay=0.05)
    losses = []
    for step in range(3):
        optimizer.param_groups[0]["lr"] = 0.02 * cosine(step / 3)
        optimizer.zero_grad()
        with autocast():
            loss = loss_of(other, batches[step])
        loss.backward()
        norm = torch.sqrt(sum(p.grad.square().sum() for p in free))
        assert norm > 1
        for p in free:
            p.grad.mul_(1 / (norm + 1e-6))
        optimizer.step()
        losses.append(loss.item())
    for a, b in zip(model.parameters(), other.parameters()):
        assert torch.allclose(a, b, atol=1e-6)
    assert log == [(2, pytest.approx(np.mean(losses[:2]))), (3, pytest.approx(losses[2]))]
    assert model.training


def test_with_muon_matrices_inside_the_layers_have_their_own_rate(tmp_path):
    "A Muon step of .05 changes a matrix by much more than AdamW's .001 an embedding."
    torch.manual_seed(0)
    model = Plain()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}

    def loss_of(batch):
        return ((model.layer(batch) + model.embed(batch)) * model.norm - 9).square().mean()

    run_training_loop(model, loss_of, constant(1.0), tmp_path, steps=1, lr=1e-3, muon=0.5)
    far = {n: (p - before[n]).abs().max().item() for n, p in model.named_parameters()}
    assert far["layer.weight"] > 0.1 and far["frozen"] == 0
    assert far["embed.weight"] == pytest.approx(1e-3, rel=0.2)
    assert far["norm"] == pytest.approx(1e-3, rel=0.2)


def test_a_loss_that_is_not_finite_stops_the_loop(tmp_path):
    model = Plain()
    with pytest.raises(ValueError, match="step 1: found the loss inf"):
        run_training_loop(
            model,
            lambda batch: model.layer(batch).square().mean() / (batch[0, 0] - 1).abs(),
            lambda start: iter([torch.full((1, 3), 2.0), torch.ones(1, 3)]),
            tmp_path,
            steps=5,
        )
    with pytest.raises(ValueError, match="steps and minutes: found neither"):
        run_training_loop(model, None, constant(1.0), tmp_path)


def test_a_resumed_loop_begins_where_the_state_was_saved(tmp_path):
    "Saved every two steps: of three steps two are kept."
    asked = []

    def batches(start):
        asked.append(start)
        return constant(1.0)(start)

    torch.manual_seed(0)
    model = Plain()

    def loss_of(batch):
        return model.layer(batch).square().mean()

    run_training_loop(model, loss_of, batches, tmp_path, steps=3, every=2)
    kept = torch.load(tmp_path / "state.pt", weights_only=True)
    assert (kept["step"], kept["steps"]) == (2, 3) and [s for s, _ in kept["log"]] == [2]
    log = run_training_loop(model, loss_of, batches, tmp_path, steps=3, every=2, resume=True)
    assert asked == [0, 2] and [s for s, _ in log] == [2, 3]
    run_training_loop(model, loss_of, batches, tmp_path, steps=3, every=2)
    assert asked[-1] == 0  # without `resume` it begins anew


# Scores


class Told(CaptionPair):
    "Knows each caption by heart and sees what it is told, view by view."

    def __init__(self, wrong=()):
        super().__init__(32, 16)
        self.wrong, self.asked = wrong, []

    def embed_captions(self, captions):
        codes = [np.random.default_rng(list(c.lower().rstrip(".").encode())) for c in captions]
        return F.normalize(
            torch.tensor(np.array([d.normal(size=64) for d in codes])).float(), dim=-1
        )

    def embed_views(self, pixels):
        return self.embed_captions(self.captions[: len(pixels)])


def test_scores_of_names_count_kinds_and_whole_names(monkeypatch):
    "Of four views one has another colour and one another kind."
    from ferretlite.scenes.world import add_article

    views = [thing("star"), thing("cup"), thing("dice 3"), thing("gear", color="blue")]
    said = ["filled red star", "outlined pink cup", "filled red dice 2", "filled blue gear"]
    pair, made = Told(), []

    def fake(items):
        one = items[0]
        pair.captions = [add_article(n) for n in said] if one == "alone" else ["x", "y", "x", "z"]
        captions = ["x", "y", "x", "z"]
        return (
            torch.zeros(6, 3, 4, 4),
            captions + ["x"] * 2,
            [[v] for v in views] + [[views[0]]] * 2,
        )

    class Views(list):
        def __init__(self, n, seed, most=3, split="train"):
            made.append((n, seed, most, split))
            super().__init__(["alone" if most == 1 else "some"] * n)

    monkeypatch.setattr(pretraining, "collate_iconic", fake)
    monkeypatch.setattr(pretraining, "IconicViews", Views)
    found = score_captions(pair, n=4)
    assert found == dict(retrieval=1.0, kind=0.75, name=0.5, n=4)
    assert made == [(4, 10**6, 3, "train"), (4, 10**6, 1, "val")]
    assert not pair.training
    pair.train()
    table, captions = compute_similarity(pair, 4)
    assert made[-1] == (4, 10**6, 1, "val") and captions == ["x", "y", "x", "z"]
    expected = pair.embed_captions([add_article(n) for n in said]) @ pair.embed_captions(captions).T
    assert np.allclose(table, expected) and not np.allclose(table, expected.T) and pair.training


def test_captions_are_learned_from_scenes_that_belong_to_the_seed(monkeypatch, tmp_path):
    "24 samples in batches of 5 are four steps; scenes of seed 3 begin at 40 million."
    asked = {}
    monkeypatch.setattr(pretraining, "CaptionPair", lambda: CaptionPair(32, 16))
    monkeypatch.setattr(pretraining, "compute_similarity", lambda pair: ([[1.0]], ["a"]))
    monkeypatch.setattr(pretraining, "score_captions", lambda pair: dict(name=0.5))

    def loop(model, loss_of, batches, out, steps, minutes, lr, **options):
        asked.update(steps=steps, minutes=minutes, lr=lr, **options)
        loader = batches(2)
        asked.update(first=loader.dataset.indices[0], seed=loader.dataset.dataset.seed)
        asked["size"] = loader.batch_size
        star = [thing("star", (0, 0, 32, 32))]
        batch = torch.rand(2, 3, 96, 96), ["A star.", "A cup."], [star, star]
        model.eval()
        with torch.no_grad():
            asked["loss"] = loss_of(batch).item()
            pixels, captions, things = batch
            plain = contrastive_loss(
                model.embed_views(pixels), model.embed_captions(captions), 1 / 0.07, torch.eye(2)
            )[0]
            asked["expected"] = (plain + 0.5 * region_loss(model, pixels, things)).item()
        return [(4, 1.0)]

    monkeypatch.setattr(pretraining, "run_training_loop", loop)
    scores = pretrain_clip(tmp_path, samples=24, seed=3, batch_size=5, regions=0.5)
    assert scores == dict(name=0.5) and asked["steps"] == 4 and asked["seed"] == 40_000_000
    assert (asked["first"], asked["size"], asked["lr"], asked["muon"]) == (10, 5, 1e-3, 0.02)
    assert asked["minutes"] is None and asked["resume"] is False
    assert asked["loss"] == pytest.approx(asked["expected"], rel=1e-4)
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["seed"], run["steps"], run["scenes"], run["regions"]) == (3, 4, 5, 0.5)
    assert run["matrix"] == dict(captions=["a"], before=[[1.0]], after=[[1.0]])
    from safetensors.torch import load_file

    stored = load_file(tmp_path / "global" / "model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16}
    pretrain_clip(tmp_path / "b", minutes=2.0, batch_size=5)
    assert asked["steps"] is None and asked["minutes"] == 2.0 and asked["seed"] == 10_000_000
    pretrain_clip(tmp_path / "c", samples=3)
    assert asked["steps"] == 1 and asked["size"] == 20
