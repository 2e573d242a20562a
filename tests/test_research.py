"""Open exercises that are code, and need no training, can be done as they are written.

Each test does what the text of one question asks, and finds what a good answer would show."""

import contextlib
import json
import random
import re
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPVisionModel, Dinov2Model

from ferretlite.common import architecture
from ferretlite.common.errors import FerretliteWarning, InputError
from ferretlite.common.files import WEIGHTS
from ferretlite.evaluation.metrics import find_best_fixed_box, is_right
from ferretlite.evaluation.statistics import (
    compute_auroc,
    compute_bootstrap_interval,
    compute_wilson_interval,
)
from ferretlite.evaluation.suites import answer_questions, make_questions, take_first_box
from ferretlite.exercises.sources import list_lessons, read_lesson
from ferretlite.model.inference import Ferret
from ferretlite.model.modeling import FerretForConditionalGeneration
from ferretlite.model.tokens import train_tokenizer
from ferretlite.model.towers import paper_config
from ferretlite.regions import geometry, grammar
from ferretlite.regions.choices import find_chosen_option, normalise_name
from ferretlite.regions.geometry import Box, box_iou, encode_region
from ferretlite.regions.grammar import Grounding, find_groundings
from ferretlite.scenes import tasks
from ferretlite.scenes.descriptions import Query
from ferretlite.scenes.world import COLORS, KINDS, make_scene
from ferretlite.training.runs import train
from ferretlite.training.stages import STAGES, TINY_STAGES
from ferretlite.vision.encoders import PIXEL_STATISTICS, compute_tower_map, prepare_pixels
from ferretlite.vision.fusion import VisualPosition, fuse_maps
from ferretlite.vision.resolution import choose_grid, compute_canvas_size, measure_grid_fit
from ferretlite.vision.sampler import MeanSampler, SpatialAwareSampler

ROOT = Path(__file__).resolve().parent.parent


def list_paths(arrows, start, end):
    if start == end:
        return [[end]]
    following = [arrow.split("-")[1] for arrow in arrows if arrow.split("-")[0] == start]
    return [[start, *path] for name in following for path in list_paths(arrows, name, end)]


# lesson -> how a test of this file or a reader can do each of its open questions: "in part" leaves
# out a training that takes longer than a minute; `which_one` needs twelve of forty seconds each
OPEN = {
    "architecture": ["tested", "tested"],
    "attention": ["tested", "tested"],
    "encoders": ["tested", "tested"],
    "evaluation": ["tested", "by hand"],
    "first_light": ["tested"],
    "fusion": ["tested", "tested in part"],
    "geometry": ["tested"],
    "grammar": ["tested", "tested"],
    "inference": ["tested"],
    "metrics": ["tested", "tested"],
    "model": ["tested"],
    "papers": ["by hand", "by hand"],
    "processor": ["tested"],
    "resolution": ["tested", "tested"],
    "runs": ["tests/test_checkpoints.py"],
    "sampler": ["tested", "tested"],
    "scenes": ["training"],
    "stages": ["tested in part", "tested in part"],
    "tasks": ["tested"],
    "tokens": ["tested in part"],
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
        assert compare() < 1e-5 < 0.1 < with_places
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


@pytest.mark.parametrize("width", [1024, 4096])
def test_fusion_by_concatenation_has_a_price_in_the_sampler_alone(width):
    ramp = torch.linspace(1 / 16, 15 / 16, 8).expand(8, 8)[..., None]
    fused = fuse_maps(ramp, F.avg_pool2d(ramp.permute(2, 0, 1), 2).permute(1, 2, 0), how="concat")
    assert fused.shape == (8, 8, 2)
    assert torch.allclose(fused[:, 1:-1, 0], fused[:, 1:-1, 1], atol=1e-6)  # inside the border
    shapes = {}
    for how in ("sum", "concat"):
        config = paper_config("ferret-v2-7b")
        config.fusion, config.text_config.hidden_size = how, width
        with torch.device("meta"):
            model = FerretForConditionalGeneration(config)
        shapes[how] = {name: tuple(p.shape) for name, p in model.named_parameters()}
    changed = {
        n: (shapes["sum"][n], s) for n, s in shapes["concat"].items() if s != shapes["sum"][n]
    }
    assert [name.endswith("bottleneck.weight") for name in changed] == [True]
    assert list(changed.values()) == [((1024, width), (1024, 2 * width))]


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


def walk_hilbert_curve(order):
    """The pixels of a square of 2 ** order pixels in the order of the curve, as x and y."""
    k = torch.arange(4**order)
    x, y = torch.zeros_like(k), torch.zeros_like(k)
    for side in (2**level for level in range(order)):
        right = k // 2 % 2
        lower = (k ^ right) % 2
        turned = (lower == 0) & (right == 1)
        x, y = torch.where(turned, side - 1 - x, x), torch.where(turned, side - 1 - y, y)
        x, y = torch.where(lower == 0, y, x) + side * right, torch.where(lower == 0, x, y)
        y, k = y + side * lower, k // 4
    return x, y


def test_geometry_a_hilbert_curve_spreads_better_and_a_half_has_bad_cases(monkeypatch):
    x, y = walk_hilbert_curve(7)
    steps = x.diff().abs() + y.diff().abs()
    assert (steps == 1).all() and len(set(zip(x.tolist(), y.tolist()))) == 128**2  # it is the curve
    place = torch.empty(128, 128, dtype=torch.long)  # [row, column] -> index on the curve
    place[y, x] = torch.arange(len(x))
    row, column = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    radius = (row - 60) ** 2 + (column - 60) ** 2
    shapes = {
        "box": (row < 60) & (column < 90),
        "square": (row < 64) & (column < 64),
        "disk": radius < 50**2,
        "ring": (radius < 50**2) & (radius > 40**2),
        "diagonal": (row - column).abs() < 3,
        "parts": (row // 16 + column // 16) % 2 == 0,
    }
    golden, farthest = geometry._GOLDEN_RATIO, {}
    for name, shape in shapes.items():
        columns, rows = shape.T.nonzero().T  # down the columns, as `sample_points` counts
        pixels = torch.stack([columns, rows], 1).float()
        curve = place[rows, columns].argsort()
        for n in (16, 45, 64, 128, 256, 512):
            picks = {}
            for ratio in (golden, 0.5, 0.6):
                monkeypatch.setattr(geometry, "_GOLDEN_RATIO", ratio)
                picks[ratio] = geometry._pick_evenly(len(pixels), n)
            picks["curve"] = curve[(torch.arange(n) * len(pixels) + len(pixels) // 2) // n]
            for how, chosen in picks.items():
                reach = torch.cdist(pixels, pixels[chosen]).amin(1).max().item()
                farthest[how, name, n] = reach
            if (name, n) == ("square", 64):  # a pick in each column, and all in two rows
                assert len(rows[picks[0.5]].unique()) == 2
    mean = {}
    for how in (golden, 0.5, 0.6, "curve"):
        mean[how] = sum(v for k, v in farthest.items() if k[0] == how) / (len(farthest) // 4)
    assert mean["curve"] < mean[golden] < mean[0.5]
    assert mean["curve"] < mean[0.6]
    assert farthest[0.5, "square", 64] > 3 * farthest[golden, "square", 64]


def test_grammar_round_brackets_can_be_read_without_a_new_forbidden_name(monkeypatch):
    size, ours = (1000, 1000), grammar.find_groundings

    def read(text, *args):  # brackets of another form at the same characters
        text = re.sub(r"\((\d{1,4}(?:, ?\d{1,4}){3})\)", r"[\1]", text, flags=re.ASCII)
        return ours(text, *args)

    def find_writable(names):
        kept = []
        for name in names:
            with contextlib.suppress(InputError):
                grammar.format_groundings([Grounding(name, [Box(1, 1, 5, 5)])], size)
                kept.append(name)
        return kept

    draw = random.Random(0)
    parts = ["a", "dog", " ", " (", ")", ",", "1", "30", "(1, 2, 30, 40)", "(1,2,3,4", " 5"]
    names = ["".join(draw.choices(parts, k=draw.randint(1, 8))) for _ in range(1500)]
    before, text = find_writable(names), "dog (100, 200, 300, 400)"
    assert 300 < len(before) < 1200 and not find_groundings(text, size)[0]
    monkeypatch.setattr(grammar, "find_groundings", read)
    (span,), warnings = read(text, size)
    assert not warnings and text[span.start : span.end] == "(100, 200, 300, 400)"
    assert span.name == "dog" and encode_region(span.box, size) == [100, 200, 300, 400]
    assert find_writable(names) == before  # a name with four numbers was refused before, too
    assert find_writable(["sign (1, 2, 3, 4)", "sign (2)"]) == ["sign (2)"]
    for _ in range(300):  # written boxes in random brackets come back
        given, text = [], ""
        for name in draw.choices(["dog", "red star", "sign (2)"], k=draw.randint(1, 5)):
            x1, x2 = sorted(draw.sample(range(1000), 2))
            y1, y2 = sorted(draw.sample(range(1000), 2))
            opening, closing = draw.choice(["[]", "()"])
            given.append((name, [x1, y1, x2, y2]))
            text += f"{', ' * bool(text)}{name} {opening}{x1}, {y1}, {x2}, {y2}{closing}"
        spans, warnings = read(text, size)
        assert [(s.name, encode_region(s.box, size)) for s in spans] == given and not warnings


def test_tasks_a_rule_on_colours_finds_far_absences_and_few_close_ones():
    def finds_absence(query, scene):  # without a colour, the rule says that the object is there
        return query.color is not None and query.color not in {o.color for o in scene.objects}

    found = {"far": [], "close": [], "present": []}
    for seed in range(200):
        scene, draw = make_scene(seed, 128, "test"), random.Random(seed)
        kinds = sorted(set(KINDS) - {o.name for o in scene.objects})
        colors = sorted(set(COLORS) - {o.color for o in scene.objects})
        asked = dict(
            far=Query(draw.choice(kinds), draw.choice(colors)) if colors else None,
            close=tasks.draw_hard_absence(scene, draw),
            present=tasks.draw_present_query(scene, draw),
        )
        for kind, query in asked.items():
            if query is not None:
                assert bool(query.select(scene.objects)) == (kind == "present")
                found[kind].append(finds_absence(query, scene))
    far, close, present = (compute_wilson_interval(sum(v), len(v)) for v in found.values())
    assert min(map(len, found.values())) > 150
    assert far[0] > 0.95 and close[1] < 0.4 and present[1] < 0.05


def test_fusion_the_width_of_a_cell_changes_the_code_of_a_place_a_little():
    """The part without a training: both codes of one place, at the start."""
    torch.manual_seed(0)
    position, column = VisualPosition(192), 0.05 * torch.randn(192)
    old, new = {}, {}
    for n in (4, 12):  # cell 1 of 12 has its centre where cell 0 of 4 has it
        old[n] = position((n, n)).detach()[n // 8, n // 8]
        new[n] = old[n] + column / n
    before, after = (F.cosine_similarity(codes[4], codes[12], dim=0) for codes in (old, new))
    assert before > 1 - 1e-6 and 0.99 < after < before - 1e-6


def test_tokens_leading_zeros_cost_a_token_each():
    """The part without a training: the length of the answers."""
    draw, texts = random.Random(0), {"plain": [], "zeros": []}
    numbers = [[draw.randrange(1000) for _ in range(4)] for _ in range(400)]
    for box in numbers:
        texts["plain"].append(f"red star [{', '.join(map(str, box))}]")
        texts["zeros"].append(f"red star [{', '.join(f'{n:03d}' for n in box)}]")
    lengths = {}
    for name, answers in texts.items():
        tokenizer = train_tokenizer(answers)
        lengths[name] = [len(tokenizer(text)["input_ids"]) for text in answers]
    added = [sum(3 - len(str(n)) for n in box) for box in numbers]
    assert [b - a for a, b in zip(*lengths.values())] == added
    assert 0.2 < sum(added) / len(added) < 0.8  # one number in ten is below 100


def train_briefly(recipe, begin, monkeypatch, folder):
    """Train a recipe of our own with few samples. Return the number of stages in the log."""
    small = dict(batch_size=2, n_turns=2, scenes=6, visits=1)
    monkeypatch.setitem(STAGES, "my-recipe", tuple(replace(s, **small) for s in recipe))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FerretliteWarning)  # so few samples teach nothing
        train("my-recipe", out=folder, samples=12, **begin)
    record = json.loads((folder / "run.json").read_text("utf-8"))
    assert record["done"] == record["stages"]
    return len(record["log"])


@pytest.mark.exercises
def test_stages_a_recipe_without_its_second_stage_runs(begin, monkeypatch, tmp_path):
    """The part without a long training. The scores need several seeds of half an hour each."""
    recipe = TINY_STAGES[0], TINY_STAGES[2]
    assert train_briefly(recipe, begin, monkeypatch, tmp_path / "run") == 2


@pytest.mark.exercises
def test_stages_a_language_model_can_learn_slower(begin, monkeypatch, tmp_path):
    """The part without a long training, as above."""
    recipe = *TINY_STAGES[:2], replace(TINY_STAGES[2], slow=dict(language_model=0.1))
    assert train_briefly(recipe, begin, monkeypatch, tmp_path / "run") == 3


def test_runs_another_file_kills_a_run_again_and_again():
    text = (ROOT / "tests" / OPEN["runs"][0].rpartition("/")[2]).read_text("utf-8")
    assert "def test_a_run_that_is_killed_again_and_again_ends_bit_for_bit" in text


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


# -- with a trained model: half a minute each


def measure_difference(first, second):
    """The mean of second − first over paired answers, and its 95 % interval."""
    gained = np.array(second, dtype=float) - np.array(first, dtype=float)
    return gained.mean(), compute_bootstrap_interval(lambda i: gained[i].mean(), len(gained))


def read_objects(seeds, side=192):
    """The pictures of scenes; per object its picture, the cell of its centre, kind and colour."""
    images, found = [], []
    for seed in seeds:
        scene = make_scene(seed, side)
        for o in scene.objects:
            if o.color and not o.text:
                x, y = (o.box.x1 + o.box.x2) / 2, (o.box.y1 + o.box.y2) / 2
                cell = int(y / 16) * (side // 16) + int(x / 16)
                found.append(
                    (len(images), cell, list(KINDS).index(o.name), list(COLORS).index(o.color))
                )
        images.append(scene.image)
    return images, torch.tensor(found).T


@torch.no_grad()
def read_layers(tower, images, owner, cell):
    """The features of the cells after each layer, [layer, object, channel]."""
    statistics, found = PIXEL_STATISTICS[tower.config.model_type], []
    for k, image in enumerate(images):
        pixels = prepare_pixels(image, (192, 192), *statistics)[None]
        layers = torch.cat(tower(pixels, output_hidden_states=True).hidden_states)
        found.append(layers[:, 1 + cell[owner == k]])
    return torch.cat(found, 1).double()


def measure_linear_classifier(train, truth, test, expected, classes):
    """Right answers of least squares with a penalty, for objects that it has not seen."""
    middle, spread = train.mean(0), train.std(0) + 1e-6
    x, z = (F.pad((part - middle) / spread, (0, 1), value=1.0) for part in (train, test))
    targets = F.one_hot(truth, classes).double()
    weights = torch.linalg.solve(x.T @ x + 100 * torch.eye(len(x.T)).double(), x.T @ targets)
    return ((z @ weights).argmax(1) == expected).sum().item()


@pytest.mark.exercises
@pytest.mark.parametrize("name, read", [("global", 4), ("local", 4)])
def test_encoders_the_layer_of_the_lesson_knows_the_kinds_best(name, read):
    """`read` is the layer that the lesson reads. Colours are known early, kinds late."""
    kind = {"global": CLIPVisionModel, "local": Dinov2Model}[name]
    tower = kind.from_pretrained(WEIGHTS / "tiny-towers" / name).eval()
    (images, (owner, cell, *truth)), (others, (place, spot, *expected)) = (
        read_objects(range(200)),
        read_objects(range(1_000_000, 1_000_100)),
    )
    train, test = read_layers(tower, images, owner, cell), read_layers(tower, others, place, spot)
    assert len(train) == tower.config.num_hidden_layers + 1
    kinds, colors = [], []
    for layer in range(len(train)):
        for found, k, classes in ((kinds, 0, len(KINDS)), (colors, 1, len(COLORS))):
            answers = train[layer], truth[k], test[layer], expected[k], classes
            hits = measure_linear_classifier(*answers)
            found.append(compute_wilson_interval(hits, len(place)))
    chance = expected[0].bincount().max() / len(place)  # always the commonest kind
    assert kinds[read][0] > 4 * chance and kinds[read - 1][1] < kinds[read][0]
    assert kinds[read + 1 :] == [] or kinds[read + 1][0] < kinds[read][1]  # no clear gain later
    assert kinds[0][1] < 0.1 and 0.3 < colors[0][0] < colors[0][1] < colors[1][0]
    assert colors[2][0] > 0.9


def draw_marks(n, seed):
    """The lesson's task: maps with the marks A and B, and whether A is left of B."""
    draw = torch.Generator().manual_seed(seed)
    maps, rows = (
        0.1 * torch.randn(n, 6, 6, 8, generator=draw),
        torch.randint(6, (n, 2), generator=draw),
    )
    columns = torch.rand(n, 6, generator=draw).argsort(1)[:, :2]
    for k in (0, 1):
        maps[torch.arange(n), rows[:, k], columns[:, k], k] += 3
    return maps, columns[:, 0] < columns[:, 1]


def compare_marks(sampler, maps):
    regions, sizes = [[Box(0, 0, 60, 60)]] * len(maps), [(60, 60)] * len(maps)
    return torch.cat(sampler(list(maps), regions, sizes))


def train_on_marks(sampler):
    optimizer = torch.optim.AdamW(sampler.parameters(), 3e-3)
    for step in range(250):
        maps, left = draw_marks(32, step)
        F.cross_entropy(compare_marks(sampler, maps), left.long()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return sampler.eval()


@torch.no_grad()
def measure_marks(sampler):
    maps, left = draw_marks(500, 10**6)
    hits = (compare_marks(sampler, maps).argmax(1) == left).sum().item()
    return compute_wilson_interval(hits, len(left))


def shuffle_centers(layer, args):
    centers = args[0].unflatten(1, (-1, 8))
    order = torch.rand(centers.shape[:2]).argsort(1)
    return centers.gather(1, order[..., None].expand_as(centers)).flatten(1)


@pytest.mark.exercises
def test_sampler_the_order_of_the_centres_does_not_carry_the_arrangement():
    found = {}
    for name in ("kept", "shuffled"):
        torch.manual_seed(0)
        sampler = SpatialAwareSampler(8, 2, n_points=64, n_centers=(16, 8), n_neighbors=(8, 8))
        if name == "shuffled":
            sampler.flatten_projector.register_forward_pre_hook(shuffle_centers)
        found[name] = measure_marks(train_on_marks(sampler))
        if name == "kept":  # and shuffled at test time alone
            sampler.flatten_projector.register_forward_pre_hook(shuffle_centers)
            found["shuffled at test time"] = measure_marks(sampler)
    assert min(low for low, _ in found.values()) > 0.85
    low, high = measure_marks(train_on_marks(MeanSampler(8, 2, n_points=64)))
    assert low < 0.5 < high


@torch.no_grad()
def read_region_maps(model, processor, seeds):
    """The fused maps, boxes and sizes of scenes, and the kinds and colours of the objects."""
    columns, kinds, colors = ([], [], []), [], []
    for seed in seeds:
        scene = make_scene(seed, 192)
        objects = [o for o in scene.objects if o.color and not o.text]
        views = processor.prepare_images([scene.image])
        towers = model.compute_tower_maps(views["global_pixels"], views["local_pixels"])
        _, maps = model.embed_images(*towers, views["grids"], views["image_sizes"])
        for column, value in zip(columns, (maps[0], [o.box for o in objects], scene.size)):
            column.append(value)
        kinds += [list(KINDS).index(o.name) for o in objects]
        colors += [list(COLORS).index(o.color) for o in objects]
    return columns, torch.tensor(kinds), torch.tensor(colors)


@pytest.mark.exercises
def test_sampler_pooling_starts_read_trained_maps_as_well_as_the_mean(tiny):
    """Our start is as good as the mean, and PyTorch's start loses much."""
    train, test = (
        read_region_maps(tiny.model, tiny.processor, seeds)
        for seeds in (range(200), range(1_000_000, 1_000_100))
    )
    width, options = tiny.model.sampler.in_dim, tiny.model.config.sampler
    torch.manual_seed(0)
    samplers = {
        name: SpatialAwareSampler(width, width, **options) for name in ("ours", "PyTorch's")
    }
    samplers["mean"] = MeanSampler(width, width, n_points=64)
    for layer in samplers["PyTorch's"].modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv1d):
            layer.reset_parameters()
    kinds, colors = {}, {}
    for name, sampler in samplers.items():
        with torch.no_grad():
            x, z = (torch.cat(sampler.eval()(*part[0])).double() for part in (train, test))
        for found, k, classes in ((kinds, 1, len(KINDS)), (colors, 2, len(COLORS))):
            hits = measure_linear_classifier(x, train[k], z, test[k], classes)
            found[name] = compute_wilson_interval(hits, len(z))
    for found, k in ((kinds, 1), (colors, 2)):
        chance = test[k].bincount().max() / len(test[k])
        assert found["PyTorch's"][0] > chance and found["PyTorch's"][1] < found["ours"][0]
        assert found["ours"][0] < found["mean"][1] and found["mean"][0] < found["ours"][1]


FIRST_LIGHT = "0c587108 872dd0fa e4106446 5e1ee028 46c1e2b5 f4638fe0 c0f27064 e3f280ac"


@pytest.mark.exercises
def test_first_light_learns_slower_without_mean_and_spread():
    """The cells of the lesson without its last line of `draw`, for fewer steps than its 320."""
    (path,) = ROOT.glob("nbs/*/first_light.ipynb")
    cells = {c["id"]: "".join(c["source"]) for c in json.loads(path.read_text("utf-8"))["cells"]}
    last, right = "return (pixels - pixels.mean()) / pixels.std(), ", {}
    for left_out in (False, True):
        lesson = {}
        for name in FIRST_LIGHT.split():
            code = cells[name].partition("\nstarted = ")[0]
            if name == "872dd0fa":
                assert last in code
                code = code.replace(last, "return pixels, ") if left_out else code
            exec(code, lesson)
        lesson["exam"], lesson["truth"] = lesson["make_batch"](np.random.default_rng(10**6), 128)
        torch.manual_seed(0)
        film, _ = lesson["train"](lesson["Grounder"](), steps=120, stops=(120,))
        right[left_out] = (film[120][1] >= 0.5).numpy()
    assert measure_difference(right[False], right[True])[1][1] < -0.1


@pytest.fixture(scope="module")
def tiny():
    return Ferret.load("tiny")


def make_suite(tasks, seeds):
    return [q for i in seeds for q in make_questions(make_scene(i, 384, "test"), i, tasks)]


@pytest.mark.exercises
def test_inference_asking_back_tells_absent_objects_apart(tiny):
    asked = make_suite(["absent"], range(500, 600))
    groups = [[q for q in asked if q.turn.meta["present"] is there][:40] for there in (True, False)]
    asked, there = sum(groups, []), np.repeat([True, False], 40)
    scores = {}
    for verify in (False, True):
        images, prompts = [q.scene.image for q in asked], [q.turn.prompt for q in asked]
        answers = tiny.ask(images, prompts, verify=verify)
        assert all(
            answer.groundings for answer in answers
        )  # `tiny` never says that nothing is there
        scores[verify] = np.array([max(s for g in a.groundings for s in g.scores) for a in answers])

    def measure_auroc(verify):
        return compute_bootstrap_interval(
            lambda i: compute_auroc(scores[verify][i], there[i]), len(there)
        )

    assert measure_auroc(False)[1] < 0.9 and measure_auroc(True)[0] > 0.7
    right = [(scores[verify] >= 0.5) == there for verify in (False, True)]
    gain, interval = measure_difference(*right)
    assert interval[0] > 0 and gain > 0.05 and 0.7 < right[1].mean() < 0.95


@pytest.mark.exercises
def test_processor_the_statistics_of_the_other_tower_change_little(tiny, monkeypatch):
    """The two tables are similar. A control without any table shows that the tower needs one."""
    asked = make_suite(["rec", "name"], range(50))

    def answer_all():
        found = {"rec": [], "name": []}
        for question, answer in zip(asked, answer_questions(tiny, asked)):
            meta = question.turn.meta
            if question.turn.task == "rec":
                right = is_right(meta["box"], take_first_box(answer))
            else:
                right = normalise_name(answer.text) == normalise_name(meta["phrase"])
            found[question.turn.task].append(right)
        return found

    before = answer_all()
    monkeypatch.setitem(PIXEL_STATISTICS, "dinov2", PIXEL_STATISTICS["clip_vision_model"])
    after = answer_all()
    monkeypatch.setitem(PIXEL_STATISTICS, "dinov2", ((0, 0, 0), (1, 1, 1)))
    control = answer_all()
    for task in before:
        change, (low, high) = measure_difference(before[task], after[task])
        assert abs(change) < 0.1 and low <= 0  # no better; its value changes with the fit of scores
        assert measure_difference(before[task], control[task])[1][1] < 0
    assert before != control


@pytest.mark.exercises
def test_evaluation_the_best_score_of_four_draws_is_no_better_than_one_answer(tiny):
    asked = make_suite(["rec"], range(3000, 3100))
    images, prompts = [q.scene.image for q in asked], [q.turn.prompt for q in asked]
    torch.manual_seed(0)
    greedy = tiny.ask(images, prompts, max_new_tokens=64)
    drawn = [tiny.ask(images, prompts, max_new_tokens=64, temperature=0.5) for _ in range(3)]

    def list_boxes(answer):
        return [(s, box) for g in answer.groundings for s, box in zip(g.scores, g.boxes)]

    one, best, any_right = [], [], []
    for question, *answers in zip(asked, greedy, *drawn):
        boxes = [list_boxes(answer) for answer in answers]
        assert max(map(len, boxes)) <= 1  # so the first box of an answer has the highest score
        right = [(s, is_right(question.turn.meta["box"], box)) for part in boxes for s, box in part]
        one.append(any(is_right(question.turn.meta["box"], box) for _, box in boxes[0]))
        best.append(bool(right) and max(right, key=lambda pair: pair[0])[1])
        any_right.append(any(hit for _, hit in right))
    change, (low, high) = measure_difference(one, best)
    assert abs(change) < 0.1 and low <= 0  # no better; its value changes with the fit of scores
    assert measure_difference(one, any_right)[1][0] > 0  # a right box is there, and is not chosen
