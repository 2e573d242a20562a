"""The model as a whole: what it stores, what it sees, and that every shortcut gives the long way's
answer.
"""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from ferretlite.common.files import WEIGHTS
from ferretlite.data.batches import Collator, ConversationDataset, SceneStream
from ferretlite.model import modeling as model_module
from ferretlite.model.configuration import SWITCH_VALUES, FerretConfig
from ferretlite.model.modeling import FerretForConditionalGeneration
from ferretlite.model.processing import FerretProcessor
from ferretlite.model.tokens import replace_placeholder_vectors
from ferretlite.model.towers import PAPER_SIZES, paper_config
from ferretlite.regions.geometry import Box, Mask, Point, sample_points
from ferretlite.scenes.world import make_scene
from ferretlite.vision.encoders import compute_tower_map
from ferretlite.vision.fusion import fuse_maps
from ferretlite.vision.resolution import merge_tiles
from ferretlite.vision.sampler import MeanSampler, interpolate_features

SCENES = [
    make_scene(s, size) for s, size in enumerate([(192, 192), (96, 192), (96, 96), (192, 96)])
]  # 4, 2, 1 and 2 tiles
ASKED = [
    (SCENES[0], "Where is the red star?", []),
    (SCENES[1], "What is in <region>?", [Box(10, 12, 60, 70)]),
    (
        SCENES[2],
        "Compare <region> with <region>, please.",
        [Point(3, 90), Mask(SCENES[2].objects[0].mask.rle)],
    ),
    (SCENES[3], "How many?", []),
]


def ask(processor, rows):
    return processor(
        [s.image for s, _, _ in rows], [p for _, p, _ in rows], [r for _, _, r in rows]
    )


def training_batch(processor, n=2, **tasks):
    data = ConversationDataset(SceneStream(n, 5), tasks or dict(name=1.0, rec=1.0, choose=1.0), 3)
    batch = Collator(processor)([data[i] for i in range(n)])
    batch.pop("ids")
    return batch


def generate(model, batch, **options):
    return model.generate(
        **batch, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0, **options
    )


def plain_loop(model, batch, steps=8):
    "Greedy decoding without a cache: the whole sequence again for every token."
    ids, mask = batch["input_ids"], batch["attention_mask"]
    for _ in range(steps):
        logits = model(
            **{
                **batch,
                "input_ids": ids,
                "attention_mask": mask,
                "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
            }
        ).logits[:, -1]
        ids, mask = (
            torch.cat([ids, logits.argmax(-1, keepdim=True)], 1),
            torch.cat([mask, torch.ones_like(mask[:, :1])], 1),
        )
    return ids


class Calls:
    "Counts how often modules run."

    def __init__(self, **modules):
        self.counts = dict.fromkeys(modules, 0)
        for name, module in modules.items():
            module.register_forward_hook(
                lambda *_, name=name: self.counts.__setitem__(name, self.counts[name] + 1)
            )


# Storing


@pytest.mark.parametrize("tie", [True, False])
def test_a_saved_and_reloaded_model_answers_identically(random_model, tmp_path, tie):
    model, processor = random_model
    if not tie:
        config = copy.deepcopy(model.config)
        config.text_config.tie_word_embeddings = False
        model = FerretForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, reader = (
        FerretForConditionalGeneration.from_pretrained(tmp_path).eval(),
        FerretProcessor.from_pretrained(tmp_path),
    )
    tied = again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert tied == tie
    assert {p.suffix for p in tmp_path.iterdir()} <= {".json", ".safetensors", ".jinja"}
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values())
    )
    batch = ask(reader, ASKED)
    assert all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b))
        for k, a in ask(processor, ASKED).items()
        if k != "regions"
        for b in [batch[k]]
    )
    assert (
        model(**batch).logits - again(**batch).logits
    ).abs().max() < 1e-5  # products round by where in memory the numbers lie
    assert torch.equal(generate(model, batch), generate(again, batch))


def test_half_precision_weights_load_as_float32(random_model, tmp_path):
    model, processor = random_model
    copy.deepcopy(model).half().save_pretrained(tmp_path)
    again = FerretForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert torch.equal(
        again.sampler.flatten_projector.weight,
        model.sampler.flatten_projector.weight.half().float(),
    )
    assert generate(again, ask(processor, ASKED[:1])).shape[0] == 1


def test_config_survives_the_trip_through_json(random_model, tmp_path):
    config = random_model[0].config
    config.save_pretrained(tmp_path)
    again = FerretConfig.from_pretrained(tmp_path)
    assert (
        again.views() == config.views()
        and again.list_usable_grids() == config.list_usable_grids()
        and again.sampler == config.sampler
    )
    assert again.local_tower.model_type == "dinov2" and again.text_config.tie_word_embeddings


def test_our_parts_keep_pytorchs_initialisation(random_model):
    "N(0, 0.02), transformers' default, would be several times off in narrow and in wide layers."
    for weight in (
        random_model[0].local_projector[0].weight.detach(),
        random_model[0].global_projector[2].weight.detach(),
    ):
        bound = weight.shape[1] ** -0.5
        assert weight.abs().max() <= bound and weight.std().item() == pytest.approx(
            bound / 3**0.5, rel=0.05
        )


def test_a_new_models_sampler_starts_as_pooling_and_a_loaded_one_as_saved(random_model, tmp_path):
    sampler = random_model[0].sampler
    n, dim = sampler.n_centers[-1], sampler.in_dim
    middle = (
        sampler.flatten_projector.weight.detach().unflatten(1, (n, dim)).diagonal(dim1=0, dim2=2)
    )
    assert middle.mean().item() == pytest.approx(
        1 / n, rel=0.02
    )  # transformers' initialisation has not drawn it anew
    changed = copy.deepcopy(random_model[0])
    with torch.no_grad():
        changed.sampler.flatten_projector.weight.fill_(0.125)
    changed.save_pretrained(tmp_path)
    assert (
        FerretForConditionalGeneration.from_pretrained(tmp_path).sampler.flatten_projector.weight
        == 0.125
    ).all()


def changed(random_model, **fields):
    "A fresh model like the random one but for some fields of its configuration, and its processor."
    config = FerretConfig.from_dict({**random_model[0].config.to_dict(), **fields})
    torch.manual_seed(0)
    return FerretForConditionalGeneration(config).eval(), FerretProcessor(
        config, random_model[1].tokenizer
    )


def test_the_ablations_sampler_is_a_word_of_the_configuration(random_model, tmp_path):
    "A region's vector is then the mean of what lies under it, saved and loaded as such."
    model, processor = changed(random_model, sampler=dict(kind="mean", n_points=16))
    model.save_pretrained(tmp_path)
    again, batch = (
        FerretForConditionalGeneration.from_pretrained(tmp_path).eval(),
        ask(processor, ASKED[1:2]),
    )
    _, maps = again.embed_images(
        *again.compute_tower_maps(batch["global_pixels"], batch["local_pixels"]), batch["grids"]
    )
    (vector,) = again.sampler(maps, batch["regions"], batch["image_sizes"])
    box, size = batch["regions"][0][0], batch["image_sizes"][0]
    assert isinstance(again.sampler, MeanSampler) and torch.equal(
        model.sampler.dim_projector.weight, torch.eye(64) / 4
    )  # maps and language model have one width
    torch.testing.assert_close(
        vector[0],
        interpolate_features(maps[0], sample_points(box, size, 16)).mean(0) / 4,
        atol=1e-5,
        rtol=0,
    )
    assert len(again.parts()["sampler"]) == 2
    with pytest.raises(ValueError, match="sampler: found 'median', expected one of spatial, mean."):
        changed(random_model, sampler=dict(kind="median"))


# Seeing

EXTREME = [(1, 1), (1, 500), (500, 1), (20, 400), (400, 20), (10, 10)]
STRIPS = [
    (4, 4),
    (1, 16),
    (16, 1),
    (1, 16),
    (16, 1),
    (4, 4),
]  # cells of tiles that keep the image's shape: none is less than one cell high or wide
WHOLE_STRIPS = [(8, 8), (1, 8), (8, 1), (1, 8), (8, 1), (8, 8)]


@pytest.mark.parametrize(
    "change, cells",
    [
        (dict(), [(4, 4), (4, 16), (16, 4), (4, 16), (16, 4), (4, 4)]),
        (dict(fit="pad"), STRIPS),
        (dict(resolution="fixed"), [(4, 4)] * 6),
        (dict(resolution="direct", position_mode="bilinear"), [(8, 8)] * 6),
        (dict(resolution="direct", fit="pad"), WHOLE_STRIPS),
    ],
)
def test_extreme_shapes_go_through_processor_and_model(random_model, change, cells):
    """Tokens, maps and regions of images of one pixel, of one row and of 20:1; none changes what
    another says.
    """
    model, processor = changed(random_model, **change)
    images = [
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8))
        for i, size in enumerate(EXTREME)
    ]
    regions = [[Box(0, 0, w, h), Point(w / 2, h / 2)] for h, w in EXTREME]
    prompts = ["Compare <region> with <region>."] * 6
    batch = processor(images, prompts, regions)
    whole = 16 if model.config.resolution == "anyres" else 0
    assert batch["image_sizes"] == EXTREME and (
        batch["input_ids"] == model.config.image_token_id
    ).sum(1).tolist() == [whole + h * w for h, w in cells]
    with torch.no_grad():
        _, maps = model.embed_images(
            *model.compute_tower_maps(batch["global_pixels"], batch["local_pixels"]),
            batch["grids"],
            batch["image_sizes"],
        )
        assert [tuple(m.shape[:2]) for m in maps] == cells and all(m.isfinite().all() for m in maps)
        together = model(**batch).logits
        for row, mask, image, prompt, held in zip(
            together, batch["attention_mask"].bool(), images, prompts, regions
        ):
            alone = model(**processor(image, prompt, held)).logits[0]
            assert alone.isfinite().all() and (row[mask] - alone).abs().max() < 1e-4


def test_the_towers_views_may_differ(random_model):
    """Tiles of 48 x 72 pixels beside a whole view of 96 x 96: grids, tokens and places follow the
    tile, and each tile's tokens lie where the tile does.
    """
    model, processor = changed(random_model, local_view=(48, 72))
    assert processor.config.views()["local"][3] == (2, 3) and [
        processor.config.choose_image_grid(s) for s in ((96, 144), (48, 144), (96, 72), (48, 72))
    ] == [(2, 2), (1, 2), (2, 1), (1, 1)]
    image = make_scene(3, (96, 144)).image
    batch = processor(image, "What is in <region>?", [Box(10, 12, 60, 70)])
    assert batch["local_pixels"].shape == (4, 3, 48, 72) and batch["global_pixels"].shape == (
        1,
        3,
        96,
        96,
    )
    assert (batch["input_ids"] == model.config.image_token_id).sum() == 16 + 4 * 6
    moved, boxes = batch["local_pixels"].clone(), model.config.list_token_boxes((2, 2))
    moved[1] += 1  # the upper right tile
    with torch.no_grad():
        before, after = (
            model.embed_images(*model.compute_tower_maps(batch["global_pixels"], t), batch["grids"])
            for t in (batch["local_pixels"], moved)
        )
    differs = (before[0][0] - after[0][0]).abs().sum(1) > 1e-4
    there = (boxes[:, 0] >= 0.5) & (boxes[:, 3] <= 0.5)
    there[:16] = False  # the whole view has not changed
    assert torch.equal(differs, there) and before[1][0].shape[:2] == (4, 6)
    assert torch.equal((before[1][0] - after[1][0]).abs().sum(2) > 1e-4, there[16:].view(4, 6))
    assert generate(model, batch).shape == (1, batch["input_ids"].shape[1] + 8)


def test_positions_are_stretched_as_the_configuration_says(random_model):
    """With the same weights a larger view has other features by either rule, the tower's own size
    the same; and a tower alone says what the model says.
    """
    models = {
        mode: changed(random_model, resolution="direct", position_mode=mode)[0]
        for mode in SWITCH_VALUES["position_mode"]
    }
    large, own = torch.rand(1, 3, 192, 192), torch.rand(1, 3, 96, 96)
    models["bilinear"].load_state_dict(models["bicubic"].state_dict())
    with torch.no_grad():
        bicubic, bilinear = (
            models[mode].compute_tower_maps(large, None)[0] for mode in ("bicubic", "bilinear")
        )
        assert (
            bicubic.shape == bilinear.shape == (1, 8, 8, 32)
            and (bicubic - bilinear).abs().max() > 1e-3
        )
        assert torch.equal(*(models[mode].compute_tower_maps(own, None)[0] for mode in models))
        for mode, found in (("bicubic", bicubic), ("bilinear", bilinear)):
            assert torch.equal(
                found, compute_tower_map(models["bicubic"].global_tower, large, mode)
            )


def test_number_of_tokens_is_what_the_config_says(random_model):
    model, processor = random_model
    batch = ask(processor, ASKED)
    assert batch["grids"].tolist() == [[2, 2], [1, 2], [1, 1], [2, 1]]
    tokens, maps = model.embed_images(
        *model.compute_tower_maps(batch["global_pixels"], batch["local_pixels"]), batch["grids"]
    )
    assert (
        [len(t) for t in tokens]
        == [80, 48, 32, 48]
        == [model.config.count_visual_tokens(g) for g in batch["grids"].tolist()]
    )
    assert [tuple(m.shape[:2]) for m in maps] == [(8, 8), (4, 8), (4, 4), (8, 4)]


def test_region_features_leave_the_other_tokens_alone(random_model):
    "The sum of maps feeds only the sampler: without regions the answer does not depend on it."
    model, processor = random_model
    batch = ask(processor, ASKED[:1])
    before = model(**batch).logits
    with torch.no_grad():
        model.sampler.dim_projector.weight.mul_(3)
    assert torch.equal(before, model(**batch).logits)


@pytest.mark.parametrize(
    "change, n",
    [
        (dict(resolution="fixed"), 16),
        (dict(local_tower=None), 80),
        (dict(visual_position="none"), 80),
        (dict(sampler_dim=16), 80),
        (dict(merge=2), 20),
        (dict(merge=2, local_tower=None), 20),
        (dict(resolution="direct"), 64),
        (dict(resolution="direct", direct_view=(48, 96), fusion="concat"), 8),
        (dict(row_separators=True), 92),
        (dict(overview="last"), 80),
        (dict(fit="pad"), 80),
        (dict(region_features=False), 80),
        (dict(fusion="concat"), 80),
        (dict(fusion="local"), 80),
        (dict(fusion_mode="nearest"), 80),
        (dict(fusion_of="towers"), 80),
        (dict(fusion_of="towers", fusion="concat", sampler_dim=16), 80),
        (
            dict(sampler=dict(n_points=64, n_centers=[16, 4], n_neighbors=[8, 4], compat="ferret")),
            80,
        ),
        (dict(sampler=dict(kind="mean", n_points=16)), 80),
    ],
)
def test_other_configurations_run(random_model, change, n):
    model, processor = random_model
    config = FerretConfig.from_dict({**model.config.to_dict(), **change})
    model, processor = (
        FerretForConditionalGeneration(config).eval(),
        FerretProcessor(config, processor.tokenizer),
    )
    batch = ask(processor, [(SCENES[0], "What is in <region>?", [Box(10, 12, 60, 70)])])
    assert (
        (batch["input_ids"] == config.image_token_id).sum()
        == n
        == len(config.list_token_boxes((2, 2) if config.resolution == "anyres" else (0, 0)))
    )
    assert generate(model, batch).shape == (1, batch["input_ids"].shape[1] + 8)


def test_every_mode_learns_on_the_meta_device(random_model):
    "Shapes fit forward and backward, and everything that a stage may train gets a gradient."
    for change in (
        dict(resolution="fixed", grids=[]),
        dict(resolution="direct"),
        dict(row_separators=True, overview="last"),
        dict(fusion="concat"),
        dict(fusion_of="towers", sampler_dim=16),
    ):
        config = FerretConfig.from_dict(
            {**random_model[0].config.to_dict(), **{k: v for k, v in change.items() if v != []}}
        )
        grid = (2, 2) if config.resolution == "anyres" else (0, 0)
        with torch.device("meta"):
            model = FerretForConditionalGeneration(config)
        whole = torch.empty(1, 3, *config.views()["global"][0], device="meta")
        tiles = torch.empty(grid[0] * grid[1], 3, *config.local_view, device="meta")
        tokens, maps = model.embed_images(
            *model.compute_tower_maps(whole, tiles), torch.tensor([grid])
        )
        assert (
            tokens[0].shape
            == (config.count_visual_tokens(grid), config.text_config.hidden_size)
            == (len(config.list_token_boxes(grid)), config.text_config.hidden_size)
        )
        (tokens[0].sum() + model.sampler(maps, [[Box(1, 1, 9, 9)]], [(90, 90)])[0].sum()).backward()
        used = [
            n
            for n in ("global_tower", "global_projector", "visual_position", "sampler")
            + (
                "local_tower",
                "local_projector",
            )
            * (grid != (0, 0))
        ]
        assert all(p.grad is not None for n in used for p in model.parts()[n]), change


def test_switches_name_what_they_know(random_model):
    for change, text in (
        (dict(resolution="tiles"), "expected one of fixed, direct, anyres"),
        (dict(overview="middle"), "first, last"),
        (dict(fusion="max"), "sum, concat, local"),
    ):
        with pytest.raises(ValueError, match=text):
            FerretConfig.from_dict({**random_model[0].config.to_dict(), **change})
    wide = FerretConfig.from_dict(
        {
            **random_model[0].config.to_dict(),
            "fusion_of": "towers",
            "local_tower": {**random_model[0].config.local_tower.to_dict(), "hidden_size": 96},
        }
    )
    with pytest.raises(ValueError, match="towers of widths 32 and 96"):
        FerretForConditionalGeneration(wide)
    for change in (
        dict(resolution="fixed"),
        dict(resolution="direct"),
        dict(region_features=False),
    ):
        FerretForConditionalGeneration(
            FerretConfig.from_dict({**wide.to_dict(), **change})
        )  # nothing is added there


@pytest.mark.parametrize(
    "change, says",
    [
        (dict(resolutoin="fixed"), "unknown field 'resolutoin'"),
        (dict(compat="ferret"), "unknown field 'compat'"),
        (dict(merge=0), "merge=0, expected 1 at least"),
        (dict(merge=5), "multiples of 120"),
        (
            dict(local_view=(100, 100)),
            "local_view: found .100, 100., expected a height and a width that are multiples of",
        ),
        (dict(global_view=(8, 8)), "multiples of"),
        (dict(grids=()), "grids: found none"),
        (dict(grids=[(1, 0)]), "grids: found .1, 0."),
        (
            dict(resolution="direct", max_visual_tokens=10),
            "found 10 and a direct view of 64 tokens, expected a larger budget",
        ),
        (dict(resolution="direct", direct_view=(48, 50)), "direct_view: found .48, 50."),
        (dict(sampler=dict(npoints=3)), "sampler spatial: found the option 'npoints'"),
        (
            dict(sampler=dict(kind="mean", n_centers=[4])),
            "sampler mean: found the option 'n_centers'",
        ),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(random_model, change, says):
    with pytest.raises(ValueError, match=f"(?i){says}"):
        config = FerretConfig.from_dict({**random_model[0].config.to_dict(), **change})
        config.choose_image_grid((100, 100))
        FerretForConditionalGeneration(config)


def test_configurations_are_read_again_as_they_were(random_model, tmp_path):
    "What transformers itself writes beside our fields is no unknown field."
    config = random_model[0].config
    for again in (
        FerretConfig.from_dict(config.to_dict()),
        (config.save_pretrained(tmp_path), FerretConfig.from_pretrained(tmp_path))[1],
        copy.deepcopy(config),
    ):
        assert again.to_dict() == config.to_dict()
    assert FerretConfig().global_tower is None  # what transformers compares others with


def test_a_budget_of_visual_tokens_leaves_larger_grids_out(random_model):
    base = random_model[0].config.to_dict()  # 16 tokens a view

    def largest(**change):
        return max(r * c for r, c in FerretConfig.from_dict({**base, **change}).list_usable_grids())

    assert [largest(max_tiles=6, max_visual_tokens=n) for n in (32, 48, 79, 80, 95, 96, 1000)] == [
        1,
        2,
        3,
        4,
        4,
        5,
        6,
    ]
    one = FerretConfig.from_dict({**base, "local_tower": None, "max_visual_tokens": 16})
    assert (
        one.list_usable_grids() == [(1, 1)]
        and one.choose_image_grid((300, 700)) == (0, 0)
        and one.count_visual_tokens((0, 0)) == 16
    )  # the whole view alone
    with pytest.raises(
        ValueError, match="max_visual_tokens: found no grid within 31, expected at least 32"
    ):
        largest(max_visual_tokens=31)
    tight = FerretConfig.from_dict({**base, "max_tiles": 6, "max_visual_tokens": 60})
    for size in ((300, 700), (20, 400), (400, 20), (1, 1)):
        assert tight.count_visual_tokens(tight.choose_image_grid(size), size) <= 60


def test_switches_together_are_read_where_regions_lie(random_model):
    """Tiles, padding, separators, an overview behind, two sizes of view and a budget: tokens are as
    many as the configuration says, and a batch says what each image says alone.
    """
    config = FerretConfig.from_dict(
        {
            **random_model[0].config.to_dict(),
            "row_separators": True,
            "overview": "last",
            "fit": "pad",
            "local_view": (72, 48),
            "max_tiles": 6,
            "max_visual_tokens": 80,
            "fusion_mode": "nearest",
        }
    )
    torch.manual_seed(0)
    model, processor = (
        FerretForConditionalGeneration(config).eval(),
        FerretProcessor(config, random_model[1].tokenizer),
    )
    rows = [(s, "What is in <region>?", [Box(10, 12, 60, 70)]) for s in SCENES]
    batch = ask(processor, rows)
    grids, sizes = [tuple(g) for g in batch["grids"].tolist()], batch["image_sizes"]
    assert (batch["input_ids"] == config.image_token_id).sum(1).tolist() == [
        config.count_visual_tokens(g, s) for g, s in zip(grids, sizes)
    ] and len(set(grids)) > 1
    assert max(config.count_visual_tokens(g) for g in grids) <= 80
    with torch.no_grad():
        together = model(**batch).logits[:, -1]
        for i, row in enumerate(rows):
            assert torch.allclose(
                model(**ask(processor, [row])).logits[0, -1], together[i], atol=1e-4
            )


def test_as_many_tiles_as_the_grids_have_places(random_model):
    model = random_model[0]
    maps = model.compute_tower_maps(
        torch.zeros(1, 3, *model.config.global_view), torch.zeros(4, 3, *model.config.local_view)
    )
    with pytest.raises(ValueError, match="found 4 tiles for grids of 1"):
        model.embed_images(*maps, torch.tensor([[1, 1]]))
    with pytest.raises(ValueError, match="without grids"):
        model.embed_images(*maps, None)


def test_the_global_map_is_stretched_as_the_configuration_says(random_model):
    base, maps = random_model[0].config.to_dict(), {}
    for mode in ("bilinear", "nearest"):
        torch.manual_seed(0)
        model = FerretForConditionalGeneration(
            FerretConfig.from_dict({**base, "fusion_mode": mode})
        ).eval()
        torch.manual_seed(1)
        whole, tiles = model.compute_tower_maps(
            torch.rand(1, 3, *model.config.global_view), torch.rand(4, 3, *model.config.local_view)
        )
        with torch.no_grad():
            tokens, (maps[mode],) = model.embed_images(whole, tiles, torch.tensor([[2, 2]]))
        h, w = model.config.views()["global"][3]
        views = (
            tokens[0][: h * w].reshape(1, h, w, -1),
            tokens[0][h * w :].reshape(2 * h, 2 * w, -1),
        )
        assert torch.allclose(maps[mode], fuse_maps(views[1], views[0][0], mode, "sum"), atol=1e-5)
    assert not torch.allclose(*maps.values())


def test_without_tiles_the_second_half_of_a_joined_map_says_nothing(random_model):
    model = FerretForConditionalGeneration(
        FerretConfig.from_dict(
            {**random_model[0].config.to_dict(), "fusion": "concat", "local_tower": None}
        )
    ).eval()
    width, seen = model.config.text_config.hidden_size, []
    model.bottleneck.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    with torch.no_grad():
        model.embed_images(
            *model.compute_tower_maps(torch.rand(1, 3, *model.config.global_view), None),
            torch.tensor([[0, 0]]),
        )
    assert (
        seen[0].shape[-1] == 2 * width
        and (seen[0][..., :width] == 0).all()
        and seen[0][..., width:].abs().sum() > 0
    )  # tiles come first in it


def test_a_wide_language_model_gets_a_narrow_sampler():
    config = paper_config("ferret-v2-7b")
    config.sampler_dim = None
    for part in (config.global_tower, config.local_tower, config.text_config):
        part.num_hidden_layers = 1
    with torch.device("meta"):
        model = FerretForConditionalGeneration(config)
    assert sum(
        p.numel() for p in model.sampler.parameters()
    ) == 44_069_900 and model.bottleneck.weight.shape == (1024, 4096)


def test_separators_stand_at_the_end_of_rows_and_an_overview_may_come_last(random_model):
    config = FerretConfig.from_dict(
        {**random_model[0].config.to_dict(), "row_separators": True, "overview": "last"}
    )
    torch.manual_seed(0)
    model = FerretForConditionalGeneration(config).eval()
    whole, tiles = torch.rand(1, 3, *config.global_view), torch.rand(2, 3, *config.local_view)
    tokens = model.embed_images(*model.compute_tower_maps(whole, tiles), torch.tensor([[1, 2]]))[0][
        0
    ]
    h, w = config.views()["local"][3]
    ends = (tokens - model.row_separator).abs().amax(1) == 0
    assert ends.nonzero()[:, 0].tolist() == [
        *range(2 * w, h * (2 * w + 1), 2 * w + 1),
        *range(h * (2 * w + 1) + w, len(tokens), w + 1),
    ]
    assert (config.list_token_boxes((1, 2))[ends] == 0).all() and (
        config.list_token_boxes((1, 2))[~ends].sum(1) > 0
    ).all()
    assert config.list_token_boxes((1, 2))[0].tolist() == [
        0,
        0,
        1 / (2 * w),
        1 / h,
    ]  # the tiles come first


def test_padded_tiles_leave_their_border_out(random_model):
    """Tokens, their places and the map that regions look up are those of the image alone; a mixed
    batch says what each image says alone.
    """
    config = FerretConfig.from_dict(
        {**random_model[0].config.to_dict(), "fit": "pad", "row_separators": True}
    )
    torch.manual_seed(0)
    model, processor = (
        FerretForConditionalGeneration(config).eval(),
        FerretProcessor(config, random_model[1].tokenizer),
    )
    scenes, (h, w) = (
        [make_scene(7, (120, 190)), SCENES[0], make_scene(8, (13, 260))],
        config.views()["local"][3],
    )
    batch = processor.prepare_images([s.image for s in scenes])
    sizes, grids = batch["image_sizes"], [tuple(g) for g in batch["grids"].tolist()]
    with torch.no_grad():
        tokens, maps = model.embed_images(
            *model.compute_tower_maps(batch["global_pixels"], batch["local_pixels"]),
            batch["grids"],
            sizes,
        )
    kept = [tuple(m.shape[:2]) for m in maps]
    assert (
        kept == [config.count_tile_cells(g, s) for g, s in zip(grids, sizes)]
        and kept[0] == (5, 8)
        and kept[1] == (8, 8)
        and kept[2][0] == 1
    )
    for g, s, t, k in zip(grids, sizes, tokens, kept):
        boxes = config.list_token_boxes(g, s)
        assert (
            len(t)
            == config.count_visual_tokens(g, s)
            == len(boxes)
            == h * (w + 1) + k[0] * (k[1] + 1)
            <= config.count_visual_tokens(g)
        )
        assert boxes[-2].tolist() == pytest.approx([1 - 1 / k[1], 1 - 1 / k[0], 1, 1])
    alone = processor.prepare_images([scenes[0].image])
    with torch.no_grad():
        again = model.embed_images(
            *model.compute_tower_maps(alone["global_pixels"], alone["local_pixels"]),
            alone["grids"],
            alone["image_sizes"],
        )[0][0]
    assert torch.allclose(again, tokens[0], atol=1e-5)
    side = config.local_view[0] // h
    assert (
        merge_tiles(alone["local_pixels"].movedim(1, -1), grids[0])[kept[0][0] * side :].std(
            dim=(0, 1)
        )
        < 1e-6
    ).all()  # below the image there is one colour
    with pytest.raises(ValueError, match="without image sizes"):
        model.embed_images(
            *model.compute_tower_maps(alone["global_pixels"], alone["local_pixels"]), alone["grids"]
        )
    batch = processor(
        [s.image for s in scenes], ["What is in <region>?"] * 3, [[Box(2, 2, 9, 9)]] * 3
    )
    assert generate(model, batch).shape == (3, batch["input_ids"].shape[1] + 8)


def test_joined_patches_stay_where_they_are(random_model):
    """What changes in one corner of a tile changes the token that covers it most, in the tile's
    own map, and `list_token_boxes` says where that is.
    """
    config = FerretConfig.from_dict({**random_model[0].config.to_dict(), "merge": 2})
    model, (whole, tiles) = (
        FerretForConditionalGeneration(config).eval(),
        (torch.zeros(1, 3, *config.global_view), torch.zeros(4, 3, *config.local_view)),
    )
    changed = tiles.clone()
    changed[1, :, :8, -8:] = 3  # upper right corner of the upper right tile
    with torch.no_grad():
        before, after = (
            model.embed_images(*model.compute_tower_maps(whole, t), torch.tensor([[2, 2]]))[0][0]
            for t in (tiles, changed)
        )
    moved = (before - after).abs().sum(1)
    x1, y1, x2, y2 = config.list_token_boxes((2, 2))[moved.argmax()].tolist()
    assert moved[:4].max() == 0 and (x1, y1, x2, y2) == (0.75, 0, 1, 0.25)


def test_one_tower_and_one_tile_keep_the_global_view_alone(random_model):
    config = FerretConfig.from_dict({**random_model[0].config.to_dict(), "local_tower": None})
    assert config.choose_image_grid((90, 90)) == (0, 0) and random_model[
        0
    ].config.choose_image_grid((90, 90)) == (
        1,
        1,
    )


def test_vectors_and_placeholders_must_be_equal_in_number(random_model):
    model, processor = random_model
    batch = ask(processor, ASKED[1:2])
    with pytest.raises(ValueError, match="1 region placeholders, expected 2"):
        model(**{**batch, "regions": [[Point(1, 1), Point(2, 2)]]})
    with pytest.raises(ValueError, match="1 region placeholders, expected 0"):
        model(**{**batch, "regions": None})
    with pytest.raises(ValueError, match="47 image placeholders, expected 48"):
        model(
            **{
                **batch,
                "input_ids": batch["input_ids"][:, 2:],
                "attention_mask": batch["attention_mask"][:, 2:],
            }
        )


def test_placeholders_are_filled_in_reading_order():
    filled = replace_placeholder_vectors(
        torch.zeros(2, 3, 1),
        torch.tensor([[0, 1, 1], [1, 0, 0]]).bool(),
        torch.tensor([[1.0], [2.0], [3.0]]),
        "toy",
    )
    assert filled[..., 0].tolist() == [[0, 1, 2], [3, 0, 0]]


# Answering


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_cached_generation_equals_the_plain_loop(random_model, attention):
    model, processor = random_model
    model.set_attn_implementation(attention)
    batch = ask(processor, ASKED)
    with torch.no_grad():
        expected = plain_loop(model, batch)
    assert torch.equal(generate(model, batch), expected)
    assert torch.equal(generate(model, batch, use_cache=False), expected)


def test_batched_logits_equal_single_ones(random_model):
    model, processor = random_model
    with torch.no_grad():
        batch = ask(processor, ASKED)
        together = model(**batch).logits
        for row, mask, asked in zip(together, batch["attention_mask"].bool(), ASKED):
            alone = model(**ask(processor, [asked])).logits[0]
            assert (row[mask] - alone).abs().max() < 1e-4


def test_batched_answers_equal_single_ones(random_model):
    model, processor = random_model
    together = generate(model, ask(processor, ASKED))[:, -8:]
    for row, asked in zip(together, ASKED):
        assert torch.equal(row, generate(model, ask(processor, [asked]))[0, -8:])


def test_towers_and_sampler_run_once_per_generate(random_model):
    model, processor = random_model
    calls = Calls(
        global_tower=model.global_tower.pre_layrnorm,
        local_tower=model.local_tower.encoder,
        sampler=model.sampler,
        llm=model.language_model,
    )
    generate(model, ask(processor, ASKED))
    assert calls.counts == dict(global_tower=1, local_tower=1, sampler=1, llm=8)


def test_beams_keep_images_and_regions_with_their_prompt(random_model):
    model, processor = random_model
    together = generate(model, ask(processor, ASKED), num_beams=3)[:, -8:]
    for row, asked in zip(together, ASKED):
        assert torch.equal(row, generate(model, ask(processor, [asked]), num_beams=3)[0, -8:])


# Learning


def turn_loss(model, batch, row, turn):
    "Sum of the losses of one turn in a packed batch."
    labels = torch.where(batch["turn_ids"] == turn, batch["labels"], -100)
    labels[torch.arange(len(labels)) != row] = -100
    return model(**{**batch, "labels": labels}, num_items_in_batch=1).loss


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_turn_in_a_packed_row_loses_what_it_loses_alone(random_model, attention):
    model, processor = random_model
    model.set_attn_implementation(attention)
    data = ConversationDataset(SceneStream(2, 5), dict(name=1.0, rec=1.0, choose=1.0), 3)
    conversations = [data[0], data[1]]
    packed = processor.encode_conversations(conversations)
    for row, conversation in enumerate(conversations):
        assert len(conversation.turns) == 3
        for k, turn in enumerate(conversation.turns):
            alone = copy.copy(conversation)
            alone.turns = [turn]
            with torch.no_grad():
                expected, found = (
                    turn_loss(model, processor.encode_conversations([alone]), 0, 1),
                    turn_loss(model, packed, row, k + 1),
                )
            assert found > 0 and found.item() == pytest.approx(expected.item(), abs=1e-3)


def test_loss_of_a_training_row_equals_the_loss_while_answering(random_model):
    "Training (packed, padded right) and asking (padded left) show the model the same thing."
    model, processor = random_model
    scene, answer = SCENES[1], "filled red star"
    from ferretlite.scenes.questions import Conversation, Turn

    row = processor.encode_conversations(
        [
            Conversation(
                scene.image,
                scene.size,
                [Turn("name", "What is in <region>?", answer, [Box(10, 12, 60, 70)])],
                "x",
            )
        ]
    )
    batch = ask(processor, ASKED[1:2])
    told = torch.tensor(
        [
            processor.tokenizer(" " + answer, add_special_tokens=False).input_ids
            + [processor.tokenizer.eos_token_id]
        ]
    )
    ids = torch.cat([batch["input_ids"], told], 1)
    with torch.no_grad():
        logits = model(
            **{**batch, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        ).logits[0, -told.shape[1] - 1 : -1]
        expected = torch.nn.functional.cross_entropy(logits, told[0])
        assert model(**row).loss.item() == pytest.approx(expected.item(), abs=1e-4)


def test_gradient_reaches_every_part_and_nothing_else(random_model):
    model, processor = random_model
    model.train()
    model(**training_batch(processor, name=1.0, rec=1.0)).loss.backward()
    listed = {id(p) for params in model.parts().values() for p in params}
    assert set(model.parts()) == {
        "global_tower",
        "local_tower",
        "global_projector",
        "local_projector",
        "visual_position",
        "sampler",
        "language_model",
    }
    for name, p in model.named_parameters():
        reached = p.grad is not None and bool(p.grad.abs().sum() > 0)
        quiet = name.endswith("k_proj.bias") or name.endswith(
            "key.bias"
        )  # softmax does not see a shift of all keys
        assert (p.grad is not None) == (id(p) in listed), name
        assert reached or quiet or id(p) not in listed, name


def test_parts_share_no_parameter(random_model):
    ids = [id(p) for params in random_model[0].parts().values() for p in params]
    assert len(ids) == len(set(ids))


def test_large_configuration_runs_on_the_meta_device(monkeypatch):
    """No stray CPU tensor on the way forward and back: a cheap guard for what nobody here can run
    on a GPU.
    """
    from transformers import CLIPVisionConfig, Dinov2Config, LlamaConfig

    config = FerretConfig(
        global_tower=CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=3,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
        ),
        local_tower=Dinov2Config(
            hidden_size=1024,
            num_hidden_layers=2,
            num_attention_heads=16,
            image_size=224,
            patch_size=14,
        ),
        text_config=LlamaConfig(
            hidden_size=4096, intermediate_size=11008, num_hidden_layers=2, num_attention_heads=32
        ),
        global_view=(224, 224),
        local_view=(224, 224),
        max_visual_tokens=1280,
        sampler_dim=1024,
    )
    assert (
        config.choose_image_grid((480, 640)) == (2, 2)
        and config.count_visual_tokens((2, 2)) == 1280
    )
    with torch.device("meta"):
        model = FerretForConditionalGeneration(config)
    assert sum(p.numel() for n, p in model.sampler.named_parameters()) == 44_069_900

    def fill(embeddings, places, vectors, name):
        return embeddings.masked_scatter(
            places[..., None], vectors.to(embeddings.dtype)
        )  # the check needs values

    monkeypatch.setattr(model_module, "replace_placeholder_vectors", fill)

    def meta(*shape, **k):
        return torch.zeros(*shape, device="meta", **k)

    out = model(
        input_ids=meta(2, 1400, dtype=torch.long),
        turn_ids=meta(2, 1400, dtype=torch.long),
        global_pixels=meta(2, 3, 224, 224),
        local_pixels=meta(6, 3, 224, 224),
        grids=torch.tensor([[2, 2], [1, 2]]),
        regions=[[Point(5, 5)], [Box(1, 2, 30, 40)]],
        image_sizes=[(480, 640), (300, 600)],
    )
    assert out.logits.shape == (2, 1400, config.text_config.vocab_size)
    out.logits.sum().backward()
    assert all(p.grad is not None for params in model.parts().values() for p in params)


# preset -> how many tokens it makes of a 480 x 640 photograph: fixed, direct, anyres (2 x 2 tiles)
IN_TOKENS = {
    "small": (14**2, 28**2, 14**2 + 4 * 16**2),
    **dict.fromkeys(("ferret-v2-7b", "ferret-v2-13b"), (256, 1024, 1280)),
    **dict.fromkeys(("ferret-v2-7b-336", "ferret-v2-13b-336"), (576, 2304, 2880)),
    "griffon-v2-13b": (12**2, 1369, 12**2 + 4 * 24**2),
    "tiny": (36, 144, 180),
    "tiny-griffon": (36, 144, 180),
}


@pytest.mark.parametrize("name", IN_TOKENS)
@pytest.mark.parametrize("way", SWITCH_VALUES["resolution"])
def test_every_preset_runs_on_the_meta_device_in_every_resolution_mode(monkeypatch, name, way):
    """Published numbers, and no stray CPU tensor on the way forward and back; two layers of each
    tower and language model stand for all.
    """
    config, griffon, tiny = (
        paper_config(name) if name in PAPER_SIZES else FerretConfig.from_pretrained(WEIGHTS / name),
        "griffon" in name,
        name.startswith("tiny"),
    )
    assert config.resolution == ("direct" if griffon else "anyres") and config.region_features == (
        not griffon
    )
    config.resolution = way
    grid, tokens = (
        config.choose_image_grid((480, 640)),
        dict(zip(SWITCH_VALUES["resolution"], IN_TOKENS[name]))[way],
    )
    assert grid == ((2, 2) if way == "anyres" else (0, 0)) and config.count_visual_tokens(
        grid
    ) == tokens == len(config.list_token_boxes(grid))
    widths = {"tiny": 192, "small": 960, "13b": 5120, "7b": 4096}
    size = "tiny" if tiny else next(size for size in widths if size in name)
    assert config.text_config.hidden_size == widths[size]
    for part in (config.global_tower, config.local_tower, config.crop_tower, config.text_config):
        if part is not None:
            part.num_hidden_layers = 2
    with torch.device("meta"):
        model = FerretForConditionalGeneration(config)
    if griffon and not tiny:
        assert sum(p.numel() for p in model.global_projector.parameters()) == 73_410_560
    monkeypatch.setattr(
        model_module,
        "replace_placeholder_vectors",
        lambda embeddings, places, vectors, name: embeddings.masked_scatter(
            places[..., None], vectors.to(embeddings.dtype)
        ),
    )

    def meta(*shape, **k):
        return torch.zeros(*shape, device="meta", **k)

    length, views = tokens + 30, config.views()
    seen = dict(
        global_pixels=meta(1, 3, *views["global"][0]),
        local_pixels=meta(grid[0] * grid[1], 3, *views["local"][0]),
    )
    if griffon:
        seen["crop_pixels"] = meta(2, 3, *views["crop"][0])
    spoken, maps = model.embed_images(
        *model.compute_tower_maps(seen["global_pixels"], seen["local_pixels"]), torch.tensor([grid])
    )
    assert spoken[0].shape == (tokens, config.text_config.hidden_size) and maps[0].shape[:2] == (
        config.count_tile_cells(grid) if grid[0] else config.count_global_cells()
    )
    out = model(
        input_ids=meta(1, length, dtype=torch.long),
        turn_ids=meta(1, length, dtype=torch.long),
        grids=torch.tensor([grid]),
        regions=[[Box(1, 2, 30, 40)]],
        image_sizes=[(480, 640)],
        **seen,
    )
    assert out.logits.shape == (1, length, config.text_config.vocab_size)
    out.logits.sum().backward()
    unused = "local_tower" if way != "anyres" else ""  # it looks at tiles
    assert all(
        (p.grad is not None) == (part != unused)
        for part, params in model.parts().items()
        for p in params
    )


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="expected one of small, ferret-v2-7b"):
        paper_config("ferret-v3")
