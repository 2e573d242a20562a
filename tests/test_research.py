"""Open exercises that are code, and need no training, can be done as they are written.

Each test does what the text of one question asks, and finds what a good answer would show."""

import re
import time

import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPVisionModel

from ferretlite.common import architecture
from ferretlite.common.files import WEIGHTS
from ferretlite.evaluation.metrics import find_best_fixed_box
from ferretlite.exercises.sources import list_lessons, read_lesson
from ferretlite.model.modeling import FerretForConditionalGeneration
from ferretlite.model.towers import paper_config
from ferretlite.regions import geometry
from ferretlite.regions.choices import find_chosen_option
from ferretlite.regions.geometry import Box, box_iou
from ferretlite.regions.grammar import find_groundings
from ferretlite.scenes.world import make_scene
from ferretlite.vision.encoders import PIXEL_STATISTICS, compute_tower_map, prepare_pixels
from ferretlite.vision.fusion import fuse_maps
from ferretlite.vision.resolution import choose_grid, compute_canvas_size, measure_grid_fit


def list_paths(arrows, start, end):
    if start == end:
        return [[end]]
    following = [arrow.split("-")[1] for arrow in arrows if arrow.split("-")[0] == start]
    return [[start, *path] for name in following for path in list_paths(arrows, name, end)]


OPEN = {  # lesson -> how a test of this file or a reader can do each of its open questions
    "architecture": ["tested", "tested"],
    "attention": ["tested", "tested"],
    "encoders": ["training", "tested"],
    "evaluation": ["model runs", "by hand"],
    "first_light": ["training"],
    "fusion": ["tested", "training"],
    "geometry": ["tested in part"],  # without the Hilbert curve
    "grammar": ["other code", "tested"],
    "inference": ["model runs"],
    "metrics": ["tested", "tested"],
    "model": ["tested"],
    "papers": ["by hand", "by hand"],
    "processor": ["model runs"],
    "resolution": ["tested", "tested"],
    "runs": ["training"],
    "sampler": ["training", "training"],
    "scenes": ["training"],
    "stages": ["training", "training"],
    "tasks": ["model runs"],
    "tokens": ["training"],
    "which_one": ["training", "training"],
}


def test_every_open_question_has_a_place_in_the_list():
    """A lesson whose questions are tested has a test that begins with its name."""
    assert {name: len(how) for name, how in OPEN.items()} == {
        name: len(read_lesson(name).research) for name in list_lessons()
    }
    named = [name for name in globals() if name.startswith("test_")]
    for lesson, how in OPEN.items():
        tests = [name for name in named if name.startswith(f"test_{lesson}_")]
        assert len(tests) >= sum(word.startswith("tested") for word in how)


def read_pixels(seed):
    """A scene as CLIP's tower reads it, [1, 3, 192, 192]."""
    image = make_scene(seed, 192, "large").image
    return prepare_pixels(image, (192, 192), *PIXEL_STATISTICS["clip_vision_model"])[None].double()


@pytest.fixture(scope="module")
def clip_tower():
    path = WEIGHTS / "tiny-towers" / "global"
    return CLIPVisionModel.from_pretrained(path, attn_implementation="eager").double().eval()


@torch.no_grad()
def test_attention_every_head_of_the_fourth_block_changes_its_output(clip_tower):
    block = clip_tower.encoder.layers[3]
    layer = block.self_attn
    changes = []
    for seed in range(10):
        hidden = clip_tower(read_pixels(seed), output_hidden_states=True).hidden_states[3]
        tokens = block.layer_norm1(hidden)[0]
        q, k, v = (
            part(tokens).unflatten(1, (5, 32)).transpose(0, 1)
            for part in (layer.q_proj, layer.k_proj, layer.v_proj)
        )
        weights = (q @ k.mT / 32**0.5).softmax(-1)

        def run(weights):  # the rest of the block
            after = hidden + layer.out_proj((weights @ v).transpose(0, 1).flatten(1))  # noqa: B023
            return after + block.mlp(block.layer_norm2(after))

        right = run(weights)
        assert torch.allclose(right, block(hidden, None)[0], atol=1e-6)
        for head in range(5):
            flat = weights.clone()
            flat[head] = 1 / 145
            changes.append((run(flat) - right).norm() / right.norm())
    means = torch.stack(changes).view(10, 5).mean(0)
    assert (means > 0.001).all() and means.max() > 1.2 * means.min()


@torch.no_grad()
def test_attention_without_places_the_patches_have_no_order(clip_tower):
    """Patches in another order then give the same vectors in this order."""
    pixels = read_pixels(1)
    turned = pixels.unflatten(3, (12, 16)).flip(3).flatten(3)  # the columns of patches, reversed
    places = clip_tower.embeddings.position_embedding.weight
    kept = places.clone()

    def compare():  # the largest difference, after the order is put right
        one, other = (
            clip_tower(p).last_hidden_state[0, 1:].view(12, 12, -1) for p in (pixels, turned)
        )
        return (one - other.flip(1)).abs().max().item()

    with_places = compare()
    places.zero_()
    try:
        assert compare() < 1e-6 < 0.1 < with_places
    finally:
        places.copy_(kept)


@torch.no_grad()
def test_encoders_a_cell_changes_most_with_its_own_patch(clip_tower):
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    far = torch.maximum((rows - 5).abs(), (columns - 5).abs())
    near = []
    for seed in range(4):
        pixels = read_pixels(seed)
        other = pixels.clone()
        other[..., 80:96, 80:96] = -other[..., 80:96, 80:96]
        one, two = (compute_tower_map(clip_tower, p)[0] for p in (pixels, other))
        change = (one - two).norm(dim=-1)
        by_distance = torch.stack([change[far == d].mean() for d in range(6)])
        near.append(by_distance)
    mean = torch.stack(near).mean(0)
    assert mean.argmax() == 0 and mean[0] > 2 * mean[5] > 0


def test_metrics_a_constant_box_is_best_on_the_questions_that_chose_it():
    draw = torch.Generator().manual_seed(0)

    def measure(n):  # mean of (rate on the half that chose) − (rate on the other half)
        lost = []
        for _ in range(8):
            corner, side = (torch.rand(n, 2, generator=draw) * s for s in (60, 40))
            boxes = [Box(*c) for c in torch.cat([corner, corner + side + 5], 1).tolist()]
            sizes = [(105, 105)] * n
            half = n // 2
            box, rate = find_best_fixed_box(boxes[:half], sizes[:half])
            truth = torch.tensor([b.list() for b in boxes[half:]]) / 105
            lost.append(rate - (box_iou(box[None], truth) >= 0.5).float().mean().item())
        return sum(lost) / len(lost)

    few, many = measure(20), measure(2000)
    assert few > many and few > 0.05 > abs(many)


def test_architecture_a_second_sampler_adds_one_path_without_clip(monkeypatch):
    old = list_paths(architecture._FERRET_ARROWS, "image", "model")
    block = architecture._Block(
        "second\nsampler", 4.33, 0.78, "second sampler", "vision", "II, III"
    )
    arrows = [*architecture._FERRET_ARROWS, "dino-second", "region-second", "second-model"]
    monkeypatch.setattr(architecture, "_FERRET_ARROWS", arrows)
    monkeypatch.setitem(architecture._FERRET_BLOCKS, "second", block)
    assert architecture.draw_architecture("second sampler").axes[0].patches
    new = [path for path in list_paths(arrows, "image", "model") if path not in old]
    assert new == [["image", "tiles", "dino", "second", "model"]]


def test_architecture_without_regions_every_block_still_has_a_use(monkeypatch):
    removed = {"region", "sampler", "fusion"}
    arrows = [a for a in architecture._FERRET_ARROWS if not removed & set(a.split("-"))]
    blocks = set(architecture._FERRET_BLOCKS) - removed
    assert {name for arrow in arrows for name in arrow.split("-")} == blocks
    assert all(list_paths(arrows, name, "boxes") for name in blocks)


def test_fusion_by_concatenation_has_a_price_in_the_sampler_alone():
    ramp = torch.linspace(1 / 16, 15 / 16, 8).expand(8, 8)[..., None]
    fused = fuse_maps(ramp, F.avg_pool2d(ramp.permute(2, 0, 1), 2).permute(1, 2, 0), how="concat")
    assert fused.shape == (8, 8, 2)
    assert torch.allclose(fused[:, 1:-1, 0], fused[:, 1:-1, 1], atol=1e-6)  # inside the border
    sizes = {}
    for how in ("sum", "concat"):
        config = paper_config("ferret-v2-7b")
        config.fusion = how
        with torch.device("meta"):
            model = FerretForConditionalGeneration(config)
        sizes[how] = sum(p.numel() for p in model.parameters())
    assert sizes["concat"] - sizes["sum"] == 4096 * 1024  # one layer reads twice 4096 channels


def test_geometry_the_golden_ratio_spreads_better_than_a_half(monkeypatch):
    mask = torch.ones(60, 90, dtype=torch.bool)
    rows, columns = mask.nonzero().T
    pixels = torch.stack([columns, rows], 1).float()
    farthest = {}
    for ratio in (geometry._GOLDEN_RATIO, 0.5, 0.6):
        monkeypatch.setattr(geometry, "_GOLDEN_RATIO", ratio)
        counts = (45, 60, 64, 90, 128, 180)  # some divide the rows, some do not
        picks = [pixels[geometry._pick_evenly(len(pixels), n)] for n in counts]
        farthest[ratio] = max(torch.cdist(pixels, p).amin(1).max().item() for p in picks)
    golden, half, other = farthest.values()
    assert golden < half and golden < other


def test_grammar_a_parser_that_goes_back_is_slower_and_ours_is_not():
    def measure(function, n):
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            function("[" * n)
            best = min(best, time.process_time() - began)
        return best

    naive = re.compile(r"\[.*\]").findall
    assert measure(naive, 16_000) > 6 * measure(naive, 4_000)  # the square of n
    ours = [measure(lambda text: find_groundings(text, (10, 10)), n) for n in (20_000, 80_000)]
    assert ours[1] < 10 * ours[0]


def test_metrics_an_answer_that_a_person_accepts_is_rejected():
    options = ["cat", "dog"]
    rejected = "It looks like a dog, but it is a cat."
    assert find_chosen_option(rejected, options) is None

    def choose(text):  # what the text says that it is, where it says so
        return find_chosen_option(re.split(r"(?i)\bit is\b", text)[-1], options)

    assert choose(rejected) == "cat" and choose("A dog.") == "dog"
    assert choose("a cat or a dog") is None and choose("It is a cat or a dog.") is None


def test_resolution_some_images_waste_more_than_half_of_their_canvas():
    waste = {}
    for height in range(225, 1400, 25):
        for width in range(225, 1400, 25):
            grid = choose_grid((height, width), 224)
            rows, columns = compute_canvas_size(224, grid)
            wasted = measure_grid_fit((height, width), 224, grid)[1]
            waste[height, width] = float(wasted / (rows * columns))
    assert max(waste.values()) > 0.5
    assert max(waste, key=waste.get) == (225, 225)


def test_resolution_aligned_corners_move_the_outer_patches_most():
    def read(n, aligned):  # the place that each of n patches gets its position from
        row = ((torch.arange(4) + 0.5) / 4)[None, None, None]
        size = dict(size=(1, n), mode="bilinear")
        return F.interpolate(row, **size, align_corners=aligned)[0, 0, 0]

    place = (torch.arange(8) + 0.5) / 8
    inner = (place > 1 / 8) & (place < 7 / 8)
    assert torch.allclose(read(8, False)[inner], place[inner])
    error = (read(8, True) - place).abs()
    assert error.argmax().item() in (0, 7)
    errors = {n: (read(n, True) - (torch.arange(n) + 0.5) / n).abs().max().item() for n in (8, 16)}
    assert errors[16] > errors[8] > 0.05


@pytest.mark.parametrize("region", [False, True])
def test_model_a_sampler_without_a_region_gets_no_gradient(region):
    from ferretlite.model.inference import Ferret

    ferret = Ferret.load("tiny")
    question = "What is <region>?" if region else "What is it?"
    regions = [Box(40, 40, 120, 120)] if region else []
    scene = make_scene(0, 192)
    inputs = ferret.processor(images=scene.image, text=question, regions=regions)
    ferret.model.train()
    logits = ferret.model(**inputs).logits
    logits.float().logsumexp(-1).sum().backward()
    missing = {name.split(".")[0] for name, p in ferret.model.named_parameters() if p.grad is None}
    assert ("sampler" in missing) is not region
