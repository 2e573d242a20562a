"""The model's numbers, by hand: what a configuration means, where tokens lie, what is filled in
where, and the papers' sizes.
"""

import numpy as np
import pytest
import torch
from small_model import embed_batch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoConfig,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)

from ferretlite.model import configuration, towers
from ferretlite.model import modeling as model_module
from ferretlite.model.configuration import FerretConfig
from ferretlite.model.modeling import (
    FerretForConditionalGeneration,
    LinearProjector,
    replace_placeholder_vectors,
)
from ferretlite.model.processing import FerretProcessor
from ferretlite.model.towers import (
    CHAT_TEMPLATES,
    HUB_PRESETS,
    PAPER_SIZES,
    find_chat_family,
    load_chat_tokenizer,
    load_language_model,
    load_tower,
    paper_config,
)
from ferretlite.regions.geometry import Box, Point
from ferretlite.vision.downsampling import ConvDownsampler, MlpProjector

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
DINO = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def config_of(**fields):
    "Two narrow towers of different widths and patches of 24 pixels, and a narrow language model."
    parts = dict(
        global_tower=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=96,
            patch_size=24,
        ),
        local_tower=Dinov2Config(
            hidden_size=48, num_hidden_layers=1, num_attention_heads=2, image_size=96, patch_size=24
        ),
        text_config=LlamaConfig(
            vocab_size=40,
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
        ),
        sampler=dict(n_points=16, n_centers=[4, 2], n_neighbors=[4, 2]),
    )
    return FerretConfig(**{**parts, **fields})


def model_of(**fields):
    torch.manual_seed(0)
    return FerretForConditionalGeneration(config_of(**fields)).eval()


# What a configuration means


def test_the_defaults_of_a_configuration():
    config = FerretConfig()
    grids = [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6)]
    grids += [(2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (2, 2), (2, 3), (3, 2)]
    assert [tuple(g) for g in config.grids] == grids
    wanted = dict(
        resolution="anyres",
        direct_view=None,
        position_mode="bicubic",
        global_view=(96, 96),
        local_view=(96, 96),
        max_tiles=4,
        max_visual_tokens=None,
        fit="stretch",
        merge=1,
        projector_dim=None,
        visual_position="grid",
        overview="first",
        row_separators=False,
        fusion="sum",
        fusion_mode="bilinear",
        fusion_of="projected",
        projector="mlp",
        projector_options=None,
        style="ferret",
        crop_tower=None,
        crop_view=None,
        crop_linear=False,
        sampler_dim=None,
        sampler=None,
        region_features=True,
        image_token_id=4,
        region_token_id=5,
        crop_token_id=None,
        tie_word_embeddings=False,
        local_tower=None,
        model_type="ferretlite",
    )
    assert {k: getattr(config, k) for k in wanted} == wanted


def test_the_switches_and_their_positions():
    assert configuration.SWITCH_VALUES == dict(
        resolution=("fixed", "direct", "anyres"),
        visual_position=("grid", "none"),
        overview=("first", "last"),
        position_mode=("bicubic", "bilinear"),
        fit=("stretch", "pad"),
        fusion=("sum", "concat", "local"),
        fusion_mode=("bilinear", "nearest"),
        fusion_of=("projected", "towers"),
        projector=("conv", "shuffle", "pool", "resampler", "mlp", "linear"),
        style=("ferret", "griffon"),
    )
    assert model_module.VISION_INPUTS == (
        "global_pixels",
        "local_pixels",
        "grids",
        "regions",
        "image_sizes",
        "image_of",
        "crop_pixels",
    )
    for name in configuration.SWITCH_VALUES:
        with pytest.raises(ValueError, match=f"{name}: found 'other'"):
            FerretConfig(**{name: "other"})


@pytest.mark.parametrize(
    "fields",
    [
        dict(global_view=(24, 48)),
        dict(merge=2, global_view=(48, 96), local_view=(96, 48)),
        dict(resolution="fixed", local_view=(5, 7)),  # which nobody looks at
        dict(resolution="direct", direct_view=(24, 72), local_view=(1, 1)),
        dict(resolution="anyres", direct_view=(5, 5)),
        dict(resolution="fixed", grids=()),
        dict(
            local_view=(64, 32),
            local_tower=Dinov2Config(
                hidden_size=48, num_attention_heads=2, image_size=96, patch_size=16
            ),
        ),
    ],
)
def test_views_of_whole_cells_are_fine(fields):
    assert config_of(**fields).merge


@pytest.mark.parametrize(
    "fields",
    [
        dict(global_view=(24, 36)),
        dict(global_view=(0, 24)),
        dict(global_view=(24, 24, 24)),
        dict(local_view=(96, 95)),
        dict(merge=2, global_view=(48, 72)),
        dict(merge=0),
        dict(resolution="direct", direct_view=(24, 70)),
        dict(grids=()),
        dict(
            local_view=(96, 72),
            local_tower=Dinov2Config(
                hidden_size=48, num_attention_heads=2, image_size=96, patch_size=16
            ),
        ),
    ],
)
def test_views_of_broken_cells_are_refused(fields):
    with pytest.raises(ValueError):
        config_of(**fields)


def test_views_tell_size_normalisation_and_cells():
    config = config_of(global_view=(48, 96), local_view=(72, 24))
    assert config.views() == {
        "global": ((48, 96), *CLIP, (2, 4)),
        "local": ((72, 24), *DINO, (3, 1)),
    }
    one = config_of(global_view=(48, 96), local_view=(72, 24), local_tower=None)
    assert one.views()["local"] == ((72, 24), *CLIP, (3, 1))
    direct = config_of(resolution="direct", global_view=(48, 96), merge=2)
    assert direct.views()["global"] == ((96, 192), *CLIP, (2, 4))  # twice the global view
    direct = config_of(resolution="direct", direct_view=(72, 144))
    assert direct.views()["global"] == ((72, 144), *CLIP, (3, 6))
    siglip = SiglipVisionConfig(hidden_size=32, num_attention_heads=2, image_size=70, patch_size=14)
    crops = config_of(crop_tower=siglip)
    assert crops.views()["crop"] == ((70, 70), (0.5,) * 3, (0.5,) * 3, (5, 5))
    assert config_of(crop_tower=siglip, crop_view=(28, 42)).views()["crop"][0::3] == (
        (28, 42),
        (2, 3),
    )


@pytest.mark.parametrize(
    "projector, options, cells",
    [
        ("mlp", None, (9, 4)),
        ("linear", None, (9, 4)),
        ("conv", None, (5, 2)),  # (n + 2 - 3) // 2 + 1
        ("conv", dict(stride=3, padding=0), (3, 1)),  # (n - 3) // 3 + 1
        ("shuffle", None, (5, 2)),
        ("resampler", dict(queries=(3, 7)), (3, 7)),
    ],
)
def test_a_projector_that_joins_cells_makes_fewer_tokens(projector, options, cells):
    config = config_of(
        resolution="direct", direct_view=(216, 96), projector=projector, projector_options=options
    )
    assert tuple(config.count_global_cells()) == cells
    assert config.count_visual_tokens((0, 0)) == cells[0] * cells[1]


def test_a_padded_image_fills_some_cells_of_its_tiles_or_of_a_direct_view():
    padded = config_of(fit="pad", local_view=(72, 48))
    # two rows and three columns of tiles: 6 x 6 cells; 100 x 250 pixels: 6 / 250 a pixel, 2.4 rows
    assert padded.count_tile_cells((2, 3), (100, 250)) == (2, 6) and padded.count_tile_cells(
        (2, 3)
    ) == (6, 6)
    assert padded.count_tile_cells((2, 3), (250, 150)) == (6, 4)  # 3.6 columns
    assert padded.count_tile_cells((0, 0), (100, 250)) == (0, 0)
    assert padded.count_shown_cells((100, 250)) == (4, 4)  # the whole view is stretched
    assert config_of(local_view=(72, 48)).count_tile_cells((2, 3), (100, 250)) == (6, 6)
    direct = config_of(fit="pad", resolution="direct", direct_view=(216, 240), projector="conv")
    assert direct.views()["global"][3] == (9, 10) and direct.count_global_cells() == (5, 5)
    assert direct.count_shown_cells((100, 250)) == (2, 5) and direct.count_shown_cells() == (5, 5)
    # 9 * 2 / 5 = 3.6 patches high, 10 * 5 / 5 wide; 10 * 1 / 5 where a strip is one cell wide
    assert direct.count_shown_patches((100, 250)) == (4, 10) and direct.count_shown_patches(
        (900, 9)
    ) == (9, 2)
    assert config_of(resolution="direct", direct_view=(216, 240)).count_shown_cells((100, 250)) == (
        9,
        10,
    )


def test_tokens_are_counted_with_a_separator_behind_each_row():
    config = config_of(global_view=(48, 96), local_view=(72, 48))
    assert (
        config.count_visual_tokens((2, 3)) == 2 * 4 + 6 * 6
        and config.count_visual_tokens((0, 0)) == 8
    )
    ends = config_of(global_view=(48, 96), local_view=(72, 48), row_separators=True)
    assert ends.count_visual_tokens((2, 3)) == 2 * 5 + 6 * 7
    assert ends.count_visual_tokens((1, 2)) == 2 * 5 + 3 * 5
    padded = config_of(global_view=(48, 96), local_view=(72, 48), row_separators=True, fit="pad")
    assert padded.count_visual_tokens((2, 3), (100, 250)) == 2 * 5 + 2 * 7


def test_the_samplers_width():
    wide = LlamaConfig(vocab_size=40, hidden_size=2048, num_hidden_layers=1, num_attention_heads=2)
    assert config_of().region_width() == 64 and config_of(text_config=wide).region_width() == 1024
    assert config_of(sampler_dim=16).region_width() == 16
    assert config_of(text_config=wide, sampler_dim=1500).region_width() == 1500


def test_budgets_bind_at_their_value():
    fields = dict(global_view=(48, 96), local_view=(72, 48), max_tiles=6)  # 8 tokens, and 6 a tile
    assert (2, 3) in config_of(**fields, max_visual_tokens=44).list_usable_grids()
    assert (2, 3) not in config_of(**fields, max_visual_tokens=43).list_usable_grids()
    assert (1, 6) not in config_of(**{**fields, "max_tiles": 5}).list_usable_grids()
    assert config_of(**fields, max_visual_tokens=14).list_usable_grids() == [(1, 1)]
    fixed = dict(resolution="direct", direct_view=(48, 120))
    assert config_of(**fixed, max_visual_tokens=10).choose_image_grid((9, 9)) == (0, 0)
    with pytest.raises(ValueError, match="view of 10 tokens"):
        config_of(**fixed, max_visual_tokens=9).choose_image_grid((9, 9))


def test_one_tile_beside_the_same_view_is_left_out():
    one = config_of(local_tower=None)
    assert one.drop_lone_tile((1, 1)) == one.drop_lone_tile([1, 1]) == (
        0,
        0,
    ) and one.drop_lone_tile((1, 2)) == (1, 2)
    assert config_of().drop_lone_tile((1, 1)) == (1, 1)
    fields = dict(local_view=(48, 96))
    assert config_of(**fields).choose_image_grid((96, 96)) == (2, 1) and config_of(
        **fields
    ).choose_image_grid((48, 192)) == (1, 2)


def test_visual_boxes_are_the_cells_in_raster_order():
    config = config_of(global_view=(24, 48), local_view=(24, 24))
    third, half = 1 / 3, 0.5
    whole = [[0, 0, half, 1], [half, 0, 1, 1]]
    tiles = [
        [c * third, r * half, (c + 1) * third, (r + 1) * half] for r in range(2) for c in range(3)
    ]
    np.testing.assert_allclose(config.list_token_boxes((2, 3)), whole + tiles, atol=1e-6)
    np.testing.assert_allclose(config.list_token_boxes((0, 0)), whole, atol=1e-6)
    last = config_of(
        global_view=(24, 48), local_view=(24, 24), overview="last", row_separators=True
    )
    nowhere = [[0, 0, 0, 0]]
    expected = tiles[:3] + nowhere + tiles[3:] + nowhere + whole + nowhere
    np.testing.assert_allclose(last.list_token_boxes((2, 3)), expected, atol=1e-6)
    padded = config_of(global_view=(24, 48), local_view=(24, 24), fit="pad")
    # 2 x 3 cells; an image of 30 x 90 fills one row of three
    expected = whole + [[c * third, 0, (c + 1) * third, 1] for c in range(3)]
    np.testing.assert_allclose(padded.list_token_boxes((2, 3), (30, 90)), expected, atol=1e-6)


# The parts


def test_placeholders_take_vectors_in_reading_order_and_their_own_type():
    embeddings = torch.arange(12.0, dtype=torch.float16).view(2, 3, 2)
    places = torch.tensor([[False, True, False], [True, False, True]])
    vectors = torch.tensor([[-1.0, -2], [-3, -4], [-5, -6]])
    found = replace_placeholder_vectors(embeddings, places, vectors, "toy")
    assert found.tolist() == [[[0, 1], [-1, -2], [4, 5]], [[-3, -4], [8, 9], [-5, -6]]]
    assert found.dtype == torch.float16
    for wrong in (vectors[:2], torch.cat([vectors, vectors])):
        with pytest.raises(ValueError, match=f"3 toy placeholders, expected {len(wrong)}"):
            replace_placeholder_vectors(embeddings, places, wrong, "toy")


def test_the_linear_projector_adds_the_place_behind_its_layer():
    projector = LinearProjector(2, 3)
    features, place = torch.tensor([[1.0, 2]]), torch.tensor([[10.0, 20, 30]])
    plain = features @ projector.weight.T + projector.bias
    torch.testing.assert_close(projector(features), plain)
    torch.testing.assert_close(projector(features, place), plain + place)
    assert projector.out_cells([4, 5]) == (4, 5)
    assert projector.half()(features.half(), place).dtype == torch.float16


def test_projectors_have_the_widths_of_what_they_join():
    model = model_of(merge=2, projector_dim=24, fusion="concat")
    whole, tiles = model.global_projector, model.local_projector
    assert isinstance(whole, MlpProjector) and (
        whole[0].in_features,
        whole[0].out_features,
        whole[2].out_features,
    ) == (4 * 32, 24, 64)
    assert (tiles[0].in_features, tiles[0].out_features, tiles[2].out_features) == (4 * 48, 24, 64)
    assert model.visual_position.out_features == 24
    model = model_of(
        resolution="direct", local_tower=None, projector="conv", visual_position="none"
    )
    assert (
        isinstance(model.global_projector, ConvDownsampler)
        and model.global_projector.conv.out_channels == 64
    )
    assert (
        model.local_projector is None
        and model.visual_position is None
        and model.local_tower is None
    )
    options = dict(hidden=40, kernel=5)
    conv = model_of(
        resolution="direct", projector="conv", projector_options=options, projector_dim=24
    ).global_projector.conv
    assert (conv.in_channels, conv.out_channels, conv.kernel_size) == (32, 40, (5, 5))
    model = model_of(projector="linear", local_tower=None)
    assert isinstance(model.global_projector, LinearProjector)
    assert (model.global_projector.in_features, model.global_projector.out_features) == (32, 64)
    assert model.local_projector[0].in_features == 32 and model.visual_position.out_features == 64


@pytest.mark.parametrize(
    "fields, widths",
    [
        (dict(), None),
        (dict(sampler_dim=16), (64, 16)),
        (dict(sampler_dim=64), (64, 64)),
        (dict(fusion="concat"), (128, 64)),
        (dict(fusion="concat", sampler_dim=16), (128, 16)),
        (dict(fusion_of="towers", fusion="concat"), (80, 64)),
        (dict(fusion_of="towers", fusion="concat", merge=2), (320, 64)),
        (dict(fusion_of="towers", local_tower=None), (32, 64)),
        (dict(fusion_of="towers", resolution="direct"), (32, 64)),
        (dict(region_features=False, fusion="concat", sampler_dim=16), None),
    ],
)
def test_regions_are_read_at_the_samplers_width(fields, widths):
    model = model_of(**fields)
    if widths is None:
        assert isinstance(model.bottleneck, nn.Identity)
    else:
        assert (model.bottleneck.in_features, model.bottleneck.out_features) == widths
    if fields.get("region_features", True):
        assert model.sampler.in_dim == (widths[1] if widths else 64)
    else:
        assert model.sampler is None


@pytest.mark.parametrize("fusion", ["sum", "local"])
def test_raw_maps_of_two_widths_are_joined_or_refused(fusion):
    "The towers are 32 and 48 wide: only `concat` can put their maps together."
    fields = dict(fusion_of="towers", fusion=fusion)
    with pytest.raises(ValueError, match="widths 32 and 48"):
        model_of(**fields)
    for fine in (
        dict(fusion="concat"),
        dict(fusion_of="projected"),
        dict(region_features=False),
        dict(resolution="direct"),
        dict(resolution="fixed"),
        dict(local_tower=None),
    ):
        model_of(**{**fields, **fine})


def test_what_cannot_be_seen_is_refused():
    model = model_of(fit="pad")
    whole, tiles, grids = torch.zeros(1, 4, 4, 32), torch.zeros(2, 4, 4, 48), torch.tensor([[1, 2]])
    model.embed_images(whole, tiles, grids, [(9, 18)])
    for wrong, says in (
        ((whole, tiles, grids), "without image sizes"),
        ((whole, tiles, None, [(9, 18)]), "without grids"),
        ((whole, tiles[:1], grids, [(9, 18)]), "1 tiles for grids of 2"),
        ((whole, None, grids, [(9, 18)]), "0 tiles for grids of 2"),
        ((whole, tiles, grids * 0, [(9, 18)]), "2 tiles for grids of 0"),
    ):
        with pytest.raises(ValueError, match=says):
            model.embed_images(*wrong)


def test_without_tiles_the_first_half_of_a_joined_map_is_zero():
    model, seen = model_of(fusion="concat", fusion_of="towers", resolution="direct"), []
    model.bottleneck.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    whole = torch.rand(1, 4, 4, 32)
    with torch.no_grad():
        model.embed_images(whole, None, torch.tensor([[0, 0]]))
    assert seen[0].shape == (4, 4, 80)
    joined = torch.cat([torch.zeros(4, 4, 48), whole[0]], -1)
    assert torch.equal(seen[0], joined)


def test_parts_are_listed_with_what_belongs_to_them():
    clip = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=48,
        patch_size=24,
    )
    model = model_of(row_separators=True, sampler_dim=16, crop_tower=clip, crop_token_id=6)
    parts = {name: {id(p) for p in held} for name, held in model.parts().items()}
    assert set(parts) == {
        "global_tower",
        "local_tower",
        "global_projector",
        "local_projector",
        "visual_position",
        "sampler",
        "language_model",
        "crop_projector",
    }
    assert id(model.row_separator) in parts["global_projector"]
    assert {id(p) for p in model.bottleneck.parameters()} <= parts["sampler"]
    assert parts["crop_projector"] == {id(p) for p in model.crop_tokenizer.projector.parameters()}
    unread = {
        id(p)
        for n, p in model.global_tower.named_parameters()
        if "layers.1." in n or "post_layernorm" in n
    }
    assert unread and not unread & parts["global_tower"]
    assert id(model.local_tower.embeddings.mask_token) not in parts["local_tower"]
    assert len(parts["language_model"]) == len(list(model.language_model.parameters()))
    assert model.row_separator.shape == (
        64,
    ) and model.row_separator.norm().item() == pytest.approx(1, abs=0.3)
    assert set(
        model_of(resolution="direct", visual_position="none", region_features=False).parts()
    ) == {
        "global_tower",
        "local_tower",
        "global_projector",
        "language_model",
    }


def test_parts_that_exist_are_used_and_none_is_made():
    config = config_of()
    made = dict(
        global_tower=CLIPVisionModel(config.global_tower),
        local_tower=Dinov2Model(config.local_tower),
    )
    made["language_model"] = LlamaForCausalLM(config.text_config)
    model = FerretForConditionalGeneration(config, made)
    assert all(getattr(model, name) is part for name, part in made.items())
    assert model.get_input_embeddings() is made["language_model"].model.embed_tokens
    assert model.get_output_embeddings() is made["language_model"].lm_head
    assert set(model._no_split_modules) == {"CLIPEncoderLayer", "Dinov2Layer", "LlamaDecoderLayer"}


def test_crops_have_the_papers_projector_or_the_public_codes():
    fields = dict(crop_tower=config_of().global_tower, crop_token_id=6, projector_dim=24)
    assert isinstance(model_of(**fields, crop_linear=True).crop_tokenizer.projector, nn.Linear)
    projector = model_of(**fields).crop_tokenizer.projector
    assert (projector[0].in_features, projector[0].out_features, projector[2].out_features) == (
        32,
        24,
        64,
    )


# Seeing


def test_each_tower_looks_at_its_own_view():
    model, whole, tiles = model_of(merge=2), torch.rand(2, 3, 96, 48), torch.rand(3, 3, 48, 96)
    with torch.no_grad():
        seen, cut = model.compute_tower_maps(whole, tiles)
        assert seen.shape == (2, 2, 1, 4 * 32) and cut.shape == (3, 1, 2, 4 * 48)
        own = (
            model.global_tower(whole, interpolate_pos_encoding=True, output_hidden_states=True)
            .hidden_states[-2][:, 1:]
            .view(2, 4, 2, 32)
        )
    # a token joins 2 x 2 patches, row by row
    expected = torch.cat([own[:, 2, 0], own[:, 2, 1], own[:, 3, 0], own[:, 3, 1]], -1)
    torch.testing.assert_close(seen[:, 1, 0], expected, atol=1e-4, rtol=1e-4)
    assert (
        model.compute_tower_maps(whole, None)[1] is None
        and model.compute_tower_maps(whole, tiles[:0])[1] is None
    )
    one = model_of(local_tower=None)
    with torch.no_grad():
        torch.testing.assert_close(
            one.compute_tower_maps(whole, tiles)[1], one.compute_tower_maps(tiles, None)[0]
        )


def test_places_are_told_for_the_image_and_not_for_its_border():
    model = model_of()
    with torch.no_grad():
        whole = model.visual_position((3, 5))
        told = model.embed_positions((2, 3), (2, 2), (3, 5))  # of 4 x 6 cells
        merged = torch.cat([torch.cat([told[0], told[1]], 1), torch.cat([told[2], told[3]], 1)])
        torch.testing.assert_close(merged[:3, :5], whole)
        assert merged.shape == (4, 6, 64) and (merged[3:] == 0).all() and (merged[:, 5:] == 0).all()
        full = model.embed_positions((2, 3), (2, 2))
        torch.testing.assert_close(full[1], model.visual_position((4, 6))[:2, 3:])
        torch.testing.assert_close(model.embed_positions((2, 3))[0], model.visual_position((2, 3)))
    assert model_of(visual_position="none").embed_positions((2, 3)) is None


class Tell(nn.Module):
    "A projector that says what place it was told."

    def out_cells(self, cells):
        return tuple(cells)

    def forward(self, features, place=None):
        return features.new_zeros(*features.shape[:-1], 64) + place


def test_tokens_of_padded_tiles_are_told_the_place_in_the_image():
    model = model_of(fit="pad", local_view=(48, 72), fusion="local")
    model.global_projector = model.local_projector = Tell()
    whole, tiles = torch.zeros(2, 4, 4, 32), torch.zeros(4, 2, 3, 48)
    sizes, grids = [(20, 90), (70, 60)], [(1, 2), (2, 1)]
    kept = [
        (1, 6),
        (4, 3),
    ]  # 6 / 90 * 20 = 1.3 rows of two; 3 / 60 a pixel or 4 / 70: 3.4 columns, three
    with torch.no_grad():
        tokens, maps = model.embed_images(whole, tiles, torch.tensor(grids), sizes)
        for told, seen, cells in zip(tokens, maps, kept):
            places = model.visual_position(cells)
            torch.testing.assert_close(seen, places)
            expected = torch.cat(
                [model.visual_position((4, 4)).flatten(0, 1), places.flatten(0, 1)]
            )
            torch.testing.assert_close(told, expected)


def test_tokens_of_a_padded_direct_view_are_told_the_place_in_the_image():
    model = model_of(fit="pad", resolution="direct", direct_view=(96, 144))
    model.global_projector = Tell()
    with torch.no_grad():
        sizes = [(40, 90), (60, 90), (90, 40)]
        none = torch.zeros(3, 2, dtype=torch.long)
        tokens, _ = model.embed_images(torch.zeros(3, 4, 6, 32), None, none, sizes)
        # 6 / 90 * 40 = 2.7 rows; all of them; 4 / 90 * 40 = 1.8 columns
        for told, cells in zip(tokens, ((3, 6), (4, 6), (4, 2))):
            torch.testing.assert_close(told, model.visual_position(cells).flatten(0, 1))


def test_images_with_and_without_tiles_share_a_batch():
    model = model_of(local_tower=None, fusion="local", local_view=(48, 72))
    model.global_projector = model.local_projector = Tell()
    grids = torch.tensor([[1, 2], [0, 0], [2, 1]])
    with torch.no_grad():
        tokens, maps = model.embed_images(torch.zeros(3, 4, 4, 32), torch.zeros(4, 2, 3, 32), grids)
        whole = model.visual_position((4, 4))
        torch.testing.assert_close(tokens[1], whole.flatten(0, 1))
        torch.testing.assert_close(maps[1], whole)
        for i, cells in ((0, (2, 6)), (2, (4, 3))):
            tiles = model.visual_position(cells)
            expected = torch.cat([whole.flatten(0, 1), tiles.flatten(0, 1)])
            torch.testing.assert_close(tokens[i], expected)
            torch.testing.assert_close(maps[i], tiles)


class Keep(nn.Module):
    "A projector that says what it was shown."

    def out_cells(self, cells):
        return tuple(cells)

    def forward(self, features, place=None):
        return features[..., :1].expand(*features.shape[:-1], 64)


@pytest.mark.parametrize("overview", ["first", "last"])
def test_tiles_of_each_image_are_merged_where_they_were(overview):
    model = model_of(
        global_view=(48, 48),
        local_view=(24, 48),
        overview=overview,
        fusion="local",
        row_separators=True,
    )
    model.global_projector = model.local_projector = Keep()
    whole = torch.arange(8.0).view(2, 2, 2, 1).expand(2, 2, 2, 32)
    tiles = torch.arange(100.0, 112.0).view(6, 1, 2, 1).expand(6, 1, 2, 48)
    with torch.no_grad():
        tokens, maps = model.embed_images(whole, tiles, torch.tensor([[1, 2], [2, 2]]))
    first, second = maps[0][..., 0].tolist(), maps[1][..., 0].tolist()
    assert first == [[100, 101, 102, 103]] and second == [
        [104, 105, 106, 107],
        [108, 109, 110, 111],
    ]
    end = model.row_separator[0].item()
    views = [[4.0, 5, end, 6, 7, end], [104.0, 105, 106, 107, end, 108, 109, 110, 111, end]]
    expected = sum(views if overview == "first" else views[::-1], [])
    assert tokens[1][:, 0].tolist() == pytest.approx(expected)


def test_regions_read_the_projected_or_the_raw_maps():
    torch.manual_seed(1)
    whole, tiles = torch.rand(1, 4, 4, 32), torch.rand(2, 4, 4, 48)
    model = model_of(fusion_of="towers", fusion="concat", fusion_mode="nearest")
    seen = []
    model.bottleneck.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    with torch.no_grad():
        model.embed_images(whole, tiles, torch.tensor([[1, 2]]))
    merged = torch.cat([tiles[0], tiles[1]], 1)
    torch.testing.assert_close(seen[0], torch.cat([merged, whole[0].repeat_interleave(2, 1)], -1))
    model = model_of(fusion="concat", fusion_mode="nearest")
    model.bottleneck.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    with torch.no_grad():
        tokens, _ = model.embed_images(whole, tiles, torch.tensor([[1, 2]]))
    first, second = tokens[0][:16].view(4, 4, 64), tokens[0][16:].view(4, 8, 64)
    torch.testing.assert_close(seen[1], torch.cat([second, first.repeat_interleave(2, 1)], -1))


# Embedding and loss


def images_and_rows(model):
    """Two images, the second one of two tiles; three rows that ask about the second, the first,
    the second.
    """
    torch.manual_seed(2)
    vision = dict(
        global_pixels=torch.rand(2, 3, 96, 96),
        local_pixels=torch.rand(3, 3, 96, 96),
        grids=torch.tensor([[1, 1], [1, 2]]),
        image_sizes=[(90, 80), (50, 120)],
        regions=[[Point(100, 20)], [Box(10, 10, 70, 50), Point(5, 80)], []],
        image_of=torch.tensor([1, 0, 1]),
    )
    lengths = [48, 32, 48]
    rows = [[1] + [4] * n + [9] + [5] * len(held) for n, held in zip(lengths, vision["regions"])]
    ids = torch.tensor([[0] * (52 - len(r)) + r for r in rows])
    return ids, vision, lengths


def test_rows_are_filled_with_the_tokens_and_regions_of_their_own_image():
    model = model_of()
    ids, vision, lengths = images_and_rows(model)
    with torch.no_grad():
        found = embed_batch(model, ids, **vision)
        maps = model.compute_tower_maps(vision["global_pixels"], vision["local_pixels"])
        tokens, fused = model.embed_images(*maps, vision["grids"], vision["image_sizes"])
        table = model.get_input_embeddings()
        for row, own, i, held in zip(found, ids, (1, 0, 1), vision["regions"]):
            torch.testing.assert_close(row[own == 4], tokens[i])
            torch.testing.assert_close(
                row[(own != 4) & (own != 5)], table(own[(own != 4) & (own != 5)])
            )
            if held:
                [vectors] = model.sampler([fused[i]], [held], [vision["image_sizes"][i]])
                torch.testing.assert_close(row[own == 5], vectors)
        kept = {k: v for k, v in vision.items() if not k.endswith("pixels")}
        torch.testing.assert_close(model.embed_prompt(ids, **kept, tower_maps=maps), found)
        plain = torch.tensor([[1, 2, 3]])
        torch.testing.assert_close(model.embed_prompt(plain), table(plain))


def test_a_forward_pass_reads_what_was_embedded():
    model = model_of()
    ids, vision, _ = images_and_rows(model)
    mask = (ids != 0).long()
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask, **vision).logits
        embedded = embed_batch(model, ids, **vision)
        expected = model.language_model(inputs_embeds=embedded, attention_mask=mask).logits
        torch.testing.assert_close(found, expected)
        assert not torch.allclose(found, model(input_ids=ids, **vision).logits, atol=1e-4)


def test_crops_fill_their_placeholders_in_reading_order():
    clip = config_of().global_tower
    model = model_of(crop_tower=clip, crop_token_id=6, region_features=False, resolution="fixed")
    torch.manual_seed(4)
    ids, crops = torch.tensor([[1, 6, 6, 9], [6, 1, 1, 9]]), torch.rand(3, 3, 96, 96)
    with torch.no_grad():
        found = model.embed_prompt(ids, crop_pixels=crops)
        torch.testing.assert_close(found[ids == 6], model.crop_tokenizer(crops))
        table = model.get_input_embeddings()
        torch.testing.assert_close(found[ids != 6], table(ids[ids != 6]))
        torch.testing.assert_close(model.embed_prompt(ids), table(ids))  # a text alone
        seen = dict(global_pixels=torch.rand(1, 3, 96, 96), grids=torch.tensor([[0, 0]]))
        for none in (None, crops[:0]):
            with pytest.raises(ValueError, match="3 crop placeholders, expected 0"):
                embed_batch(model, ids, **seen, crop_pixels=none)


def test_the_loss_is_divided_by_the_number_it_is_given():
    model = model_of()
    torch.manual_seed(3)
    ids = torch.randint(6, 40, (2, 7))
    labels = ids.clone()
    labels[0, :4] = -100
    labels[1, 6] = -100
    with torch.no_grad():
        out = model(input_ids=ids, labels=labels)
        probabilities = out.logits.double().log_softmax(-1)
        told = [
            -probabilities[r, c - 1, labels[r, c]].item()
            for r in range(2)
            for c in range(1, 7)
            if labels[r, c] != -100
        ]
        assert len(told) == 8 and out.loss.item() == pytest.approx(np.mean(told), rel=1e-5)
        counted = model(input_ids=ids, labels=labels, num_items_in_batch=20)
        assert counted.loss.item() == pytest.approx(sum(told) / 20, rel=1e-5)
        zero = model(input_ids=ids, labels=labels, num_items_in_batch=torch.tensor(16)).loss
        assert zero.item() == pytest.approx(sum(told) / 16, rel=1e-5)
        assert model(input_ids=ids).loss is None
        last = model(input_ids=ids, logits_to_keep=2).logits
        torch.testing.assert_close(last, out.logits[:, -2:])
        torch.testing.assert_close(model(inputs_embeds=model.embed_prompt(ids)).logits, out.logits)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_turns_do_not_see_each_other_and_attention_is_told(attention):
    model = model_of()
    model.set_attn_implementation(attention)
    torch.manual_seed(3)
    ids = torch.randint(6, 40, (1, 8))
    turns = torch.tensor([[0, 0, 1, 1, 1, 2, 2, -1]])
    places = torch.tensor([[0, 1, 2, 3, 4, 2, 3, 0]])
    with torch.no_grad():
        packed = model(
            input_ids=ids,
            turn_ids=turns,
            position_ids=places,
            output_attentions=attention == "eager",
        )
        first = model(input_ids=ids[:, :5]).logits
        second = model(input_ids=ids[:, [0, 1, 5, 6]]).logits
    torch.testing.assert_close(packed.logits[:, :5], first, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(packed.logits[:, 5:7], second[:, 2:], atol=1e-5, rtol=1e-4)
    if attention == "eager":
        weights = packed.attentions[0][0]
        assert (weights[:, 5, 2:5] == 0).all() and (weights[:, 6, 5] > 0).all()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(input_ids=ids, turn_ids=turns, position_ids=places).logits.isfinite().all()


# Beams


def expand(model, **inputs):
    return model._expand_inputs_for_generation(expand_size=2, **inputs)


def test_beams_repeat_each_questions_crops_and_regions_beside_it():
    clip = config_of().global_tower
    model = model_of(crop_tower=clip, crop_token_id=6, region_features=False)
    ids = torch.tensor([[6, 1, 1], [6, 6, 2], [3, 3, 3], [3, 6, 3]])
    crops = torch.arange(4.0).view(4, 1, 1, 1)
    inputs = dict(
        input_ids=ids,
        attention_mask=torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]]),
        grids=torch.tensor([[1, 1], [1, 2]]),
        global_pixels=torch.zeros(2, 3, 1, 1),
        local_pixels=torch.ones(3, 3, 1, 1),
        crop_pixels=crops,
        regions=[["a"], [], ["b", "c"], []],
        image_sizes=[(1, 2), (3, 4)],
    )
    found_ids, found = expand(model, **inputs, image_of=torch.tensor([1, 0, 1, 0]))
    assert found_ids.tolist() == [r for row in ids.tolist() for r in (row, row)]
    assert found["attention_mask"].sum(1).tolist() == [3, 3, 2, 2, 1, 1, 0, 0]
    assert found["image_of"].tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    assert found["crop_pixels"].flatten().tolist() == [0, 0, 1, 2, 1, 2, 3, 3]
    assert found["regions"] == [["a"], ["a"], [], [], ["b", "c"], ["b", "c"], [], []]
    for key in ("grids", "global_pixels", "local_pixels", "image_sizes"):  # images are pointed at
        assert len(found[key]) == len(inputs[key])
    _, found = expand(
        model,
        **{
            **inputs,
            "input_ids": ids[:2],
            "attention_mask": inputs["attention_mask"][:2],
            "crop_pixels": crops[:3],
            "regions": None,
        },
    )
    assert found["image_of"].tolist() == [0, 0, 1, 1] and "regions" not in found
    _, found = model._expand_inputs_for_generation(expand_size=1, **inputs)
    assert "image_of" not in found and found["crop_pixels"] is crops
    ids, found = expand(model, input_ids=torch.tensor([[1, 2]]))
    assert ids.tolist() == [[1, 2]] * 2 and not found


def test_after_the_first_step_nothing_of_the_image_is_shown_again():
    model = model_of()
    given = dict(
        global_pixels=1,
        local_pixels=2,
        grids=3,
        regions=4,
        image_sizes=5,
        image_of=6,
        crop_pixels=7,
    )
    ids = torch.tensor([[1, 2, 3]])
    for first, cached, shown in ((True, True, True), (False, True, False), (False, False, True)):
        found = model.prepare_inputs_for_generation(
            ids,
            attention_mask=torch.ones_like(ids),
            is_first_iteration=first,
            use_cache=cached,
            **given,
        )
        assert {k: found[k] for k in given} == (given if shown else dict.fromkeys(given))


# The papers' sizes


def numbers(config):
    names = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
    )
    return tuple(getattr(config, n) for n in names)


def eye(config):
    return (
        config.model_type,
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.image_size,
        config.patch_size,
    )


@pytest.mark.parametrize("name", PAPER_SIZES)
def test_the_papers_sizes_are_those_of_their_parts(name):
    config = paper_config(name)
    clip, dino = ("clip_vision_model", 1024, 24, 16, 336, 14), ("dinov2", 1024, 24, 16, 518, 14)
    llm = (5120, 13824, 40, 40, 40, 32003) if "13b" in name else (4096, 11008, 32, 32, 32, 32003)
    if name == "small":
        clip, dino = ("clip_vision_model", 768, 12, 12, 224, 16), ("dinov2", 768, 12, 12, 518, 14)
        llm = (960, 2560, 32, 15, 5, 49154)
    griffon, side = (
        name.startswith("griffon"),
        336 if "336" in name or name.startswith("griffon") else 224,
    )
    assert numbers(config.text_config) == llm and eye(config.global_tower) == clip
    assert config.global_tower.intermediate_size == 4 * config.global_tower.hidden_size
    assert config.local_tower is None if griffon else eye(config.local_tower) == dino
    assert config.global_view == config.local_view == (side, side)
    wanted = dict(
        sampler_dim=1024, visual_position="none", image_token_id=32000, region_token_id=32001
    )
    wanted |= dict(
        crop_token_id=None, max_visual_tokens=1280 if side == 224 else 2880, resolution="anyres"
    )
    if name == "small":
        wanted |= dict(
            sampler_dim=None,
            visual_position="grid",
            image_token_id=49152,
            region_token_id=49153,
            max_visual_tokens=None,
        )
        assert config.text_config.tie_word_embeddings
    if griffon:
        wanted |= dict(
            max_visual_tokens=None, resolution="direct", direct_view=(1022, 1022), projector="conv"
        )
        wanted |= dict(style="griffon", region_features=False, crop_token_id=32002)
        assert eye(config.crop_tower) == ("clip_vision_model", 1024, 24, 16, 224, 14)
    assert {k: getattr(config, k) for k in wanted} == wanted


def test_names_of_the_papers_sizes_and_their_parts_on_the_hub():
    ferret = [f"ferret-v2-{size}{end}" for size in ("7b", "13b") for end in ("", "-336")]
    assert list(PAPER_SIZES) == ["small", *ferret, "griffon-v2-13b"] and set(HUB_PRESETS) == set(
        PAPER_SIZES
    )
    for name in ferret:
        side = 336 if name.endswith("336") else 224
        size = "13b" if "13b" in name else "7b"
        assert HUB_PRESETS[name] == dict(
            global_tower="openai/clip-vit-large-patch14-336",
            local_tower="facebook/dinov2-large",
            llm=f"lmsys/vicuna-{size}-v1.5",
            global_view=(side, side),
            local_view=(side, side),
            max_visual_tokens={224: 1280, 336: 2880}[side],
            sampler_dim=1024,
            visual_position="none",
        )
    assert HUB_PRESETS["small"] == dict(
        global_tower="openai/clip-vit-base-patch16",
        local_tower="facebook/dinov2-base",
        llm="HuggingFaceTB/SmolLM2-360M-Instruct",
    )
    assert HUB_PRESETS["griffon-v2-13b"] == dict(
        global_tower="openai/clip-vit-large-patch14-336",
        crop_tower="openai/clip-vit-large-patch14",
        llm="meta-llama/Llama-2-13b-chat-hf",
        chat="llama2",
        resolution="direct",
        global_view=(336, 336),
        direct_view=(1022, 1022),
        projector="conv",
        style="griffon",
        region_features=False,
        visual_position="none",
    )


# Tokenizers of other families

FAMILIES = {
    "vicuna": (
        ["<unk>", "<s>", "</s>"],
        dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>"),
    ),
    "llama3": (
        [
            "<|begin_of_text|>",
            "<|eot_id|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|end_of_text|>",
        ],
        dict(bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"),
    ),
    "qwen": (
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        dict(eos_token="<|im_end|>", pad_token="<|endoftext|>"),
    ),
    "smol": (
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        dict(bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"),
    ),
    "bare": (["<|im_start|>", "<|im_end|>", "<|end|>"], dict(eos_token="<|end|>")),
}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    "A folder with a tokenizer of each family: ten words and its special tokens."
    folder = tmp_path_factory.mktemp("tokenizers")
    for name, (special, named) in FAMILIES.items():
        vocabulary = {word: i for i, word in enumerate([*special, *"abcdefghij"])}
        core = Tokenizer(models.WordLevel(vocabulary, unk_token=special[0]))
        core.pre_tokenizer = pre_tokenizers.Whitespace()
        PreTrainedTokenizerFast(tokenizer_object=core, **named).save_pretrained(folder / name)
    return folder


CHAT = [
    dict(role="user", content="Q"),
    dict(role="assistant", content="A"),
    dict(role="user", content="R"),
]
LLAMA3 = (
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
CHATML = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
WRITTEN = {
    "vicuna": "<s>USER: Q ASSISTANT: A</s>USER: R ASSISTANT:",
    "llama3": f"<|begin_of_text|>{LLAMA3.format('Q')} A<|eot_id|>{LLAMA3.format('R')}",
    "qwen": f"<|endoftext|>{CHATML.format('Q')} A<|im_end|>\n{CHATML.format('R')}",
    "smol": f"<|endoftext|>{CHATML.format('Q')} A<|im_end|>\n{CHATML.format('R')}",
    "bare": f"<|im_end|>{CHATML.format('Q')} A<|im_end|>\n{CHATML.format('R')}",
}
NAMED = {  # start, end, padding
    "vicuna": ("<s>", "</s>", "<unk>"),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", "<|eot_id|>"),
    "qwen": ("<|endoftext|>", "<|im_end|>", "<|endoftext|>"),
    "smol": ("<|endoftext|>", "<|im_end|>", "<|im_end|>"),
    "bare": ("<|im_end|>", "<|im_end|>", "<|im_end|>"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_begin_and_end_with_their_familys_tokens(spoken, family):
    n = 10 + len(FAMILIES[family][0])
    grown = load_chat_tokenizer(spoken / family)
    assert (grown.bos_token, grown.eos_token, grown.pad_token) == NAMED[family]
    assert grown.apply_chat_template(CHAT, tokenize=False) == WRITTEN[family]
    assert (
        grown.convert_tokens_to_ids(["<image>", "<region_fea>"]) == [n, n + 1]
        and len(grown) == n + 2
    )
    assert len(load_chat_tokenizer(spoken / family, crops=True)) == n + 3
    assert (
        load_chat_tokenizer(spoken / family, crops=True).convert_tokens_to_ids("<crop_fea>")
        == n + 2
    )


def test_a_family_may_be_named_and_our_own_tokenizers_stay_as_they_are(spoken, tmp_path):
    llama2 = load_chat_tokenizer(spoken / "vicuna", "llama2")
    assert (
        llama2.apply_chat_template(CHAT, tokenize=False)
        == "<s>[INST] Q [/INST] A</s>[INST] R [/INST]"
    )
    assert set(CHAT_TEMPLATES) == {"vicuna", "llama2", "llama3", "chatml"}
    llama2.save_pretrained(tmp_path)
    again = load_chat_tokenizer(tmp_path, "vicuna")
    assert again.chat_template == llama2.chat_template and len(again) == len(llama2)
    assert len(load_chat_tokenizer(tmp_path, crops=True)) == len(llama2) + 1
    with pytest.raises(ValueError, match="chat: found 'latin'"):
        load_chat_tokenizer(spoken / "vicuna", "latin")


@pytest.mark.parametrize(
    "words, family",
    [
        (["<|im_start|>"], "chatml"),
        (["<|start_header_id|>"], "llama3"),
        (["<|im_start|>", "<|start_header_id|>"], "chatml"),
        (["[INST]"], "vicuna"),
    ],
)
def test_families_are_known_by_their_marks(words, family):
    class Words:
        def get_vocab(self):
            return dict.fromkeys(words, 0)

    assert find_chat_family(Words()) == family


# Towers and language models that exist


def save_clip(folder, without=(), **fields):
    config = CLIPVisionConfig(
        **{
            **dict(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=64,
                patch_size=14,
            ),
            **fields,
        }
    )
    tower = CLIPVisionModel(config)
    held = {k: v for k, v in tower.state_dict().items() if not any(w in k for w in without)}
    tower.save_pretrained(folder, state_dict=held)
    return tower


def test_towers_are_loaded_whole_or_not_at_all(tmp_path):
    torch.manual_seed(0)
    tower = save_clip(tmp_path / "a")
    found = load_tower(tmp_path / "a")
    assert all(torch.equal(v, found.state_dict()[k]) for k, v in tower.state_dict().items())
    assert (
        load_tower(tmp_path / "a", torch.float16).dtype == torch.float16
        and found.dtype == torch.float32
    )
    save_clip(tmp_path / "unread", ["post_layernorm", "layers.1."])  # which no feature depends on
    assert load_tower(tmp_path / "unread").config.num_hidden_layers == 2
    save_clip(tmp_path / "torn", ["layers.0.mlp.fc1.weight"])
    with pytest.raises(ValueError, match="no weights for .*layers.0.mlp.fc1.weight"):
        load_tower(tmp_path / "torn")
    text = CLIPTextConfig(
        vocab_size=9,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    both = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=tower.config.to_dict()))
    both.save_pretrained(tmp_path / "both")
    assert torch.equal(
        load_tower(tmp_path / "both").pre_layrnorm.weight, both.vision_model.pre_layrnorm.weight
    )
    assert towers.VISION_MODEL_TYPES == {
        "clip": "clip_vision_model",
        "siglip": "siglip_vision_model",
    }


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_begin_as_the_mean_of_the_others(spoken, tmp_path, tied):
    torch.manual_seed(0)
    words = load_chat_tokenizer(spoken / "vicuna")  # 15 tokens
    config = LlamaConfig(
        vocab_size=13,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.add_(torch.randn(13, 32))
    model.save_pretrained(tmp_path / "lm")
    grown = load_language_model(tmp_path / "lm", words)
    for layer, old in (
        (grown.get_input_embeddings(), model.get_input_embeddings()),
        (grown.lm_head, model.lm_head),
    ):
        assert layer.weight.shape == (15, 32) and torch.equal(layer.weight[:13], old.weight)
        torch.testing.assert_close(layer.weight[13:], old.weight.mean(0).expand(2, -1))
    half = load_language_model(tmp_path / "lm", words, torch.float16)
    assert half.dtype == torch.float16 and half.get_input_embeddings().num_embeddings == 15
    wide = LlamaForCausalLM(LlamaConfig(**{**config.to_dict(), "vocab_size": 40}))
    wide.save_pretrained(tmp_path / "wide")
    assert load_language_model(tmp_path / "wide", words).get_input_embeddings().num_embeddings == 40


@pytest.fixture(scope="module")
def checkpoints(spoken, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    save_clip(folder / "clip")  # 64 pixels in patches of 14
    save_clip(folder / "crop", image_size=28)
    dino = Dinov2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=68, patch_size=17
    )
    Dinov2Model(dino).save_pretrained(folder / "dino")
    for name, width in (("lm", 32), ("wide", 1056)):
        config = LlamaConfig(
            vocab_size=13,
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
        LlamaForCausalLM(config).save_pretrained(folder / name)
        for file in (spoken / "vicuna").iterdir():
            (folder / name / file.name).write_bytes(file.read_bytes())
    return folder


def together(folder, **fields):
    held = dict(global_tower=folder / "clip", local_tower=folder / "dino", llm=folder / "lm")
    held |= dict(sampler=dict(n_points=16, n_centers=[4, 2], n_neighbors=[4, 2])) | fields
    return FerretForConditionalGeneration.from_towers(**held)


def test_views_follow_the_towers_in_whole_cells(checkpoints):
    config = together(checkpoints).config
    # 64 pixels: four patches of 14 fit; nearest to 64 are four of 17
    assert config.global_view == (56, 56) and config.local_view == (68, 68)
    merged = together(checkpoints, merge=2).config
    assert merged.global_view == (56, 56) and merged.local_view == (68, 68) and merged.merge == 2
    wide = together(checkpoints, merge=3).config  # cells of 42 and of 51 pixels
    assert wide.global_view == (42, 42) and wide.local_view == (51, 51)
    assert together(checkpoints, local_tower=None).config.local_view == (
        70,
        70,
    )  # nearest to 64 are five of 14
    chosen = together(checkpoints, global_view=(28, 42), max_tiles=2, sampler_dim=8).config
    assert (chosen.global_view, chosen.max_tiles, chosen.sampler_dim) == ((28, 42), 2, 8)
    assert config.sampler_dim is None and (config.image_token_id, config.region_token_id) == (
        13,
        14,
    )
    assert config.crop_token_id is None and config.text_config.vocab_size == 15
    parts = (config.global_tower, config.local_tower, config.text_config)
    assert not any(part._name_or_path for part in parts)


def test_a_wide_language_model_gets_a_narrow_sampler(checkpoints):
    config = together(checkpoints, llm=checkpoints / "wide", region_features=False).config
    assert config.sampler_dim == 1024 and config.text_config.hidden_size == 1056


def test_crop_encoders_are_loaded_with_their_weights(checkpoints):
    model = together(
        checkpoints,
        local_tower=None,
        crop_tower=checkpoints / "crop",
        chat="llama2",
        dtype=torch.bfloat16,
    )
    crops = load_tower(checkpoints / "crop", torch.bfloat16).state_dict()
    assert all(torch.equal(v, crops[k]) for k, v in model.crop_tokenizer.tower.state_dict().items())
    assert model.config.crop_token_id == 15 and {p.dtype for p in model.parameters()} == {
        torch.bfloat16
    }
    processor = FerretProcessor.for_model(model, checkpoints / "lm", "llama2")
    assert "[INST]" in processor.tokenizer.chat_template
    assert processor.tokenizer.convert_tokens_to_ids("<crop_fea>") == 15
    for missing in (dict(global_tower=None), dict(llm=None)):
        with pytest.raises(ValueError, match="global_tower and llm: found"):
            together(checkpoints, **missing)


def test_our_configuration_is_known_to_transformers(tmp_path):
    config_of(merge=2).save_pretrained(tmp_path)
    found = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(found, FerretConfig) and found.merge == 2
    assert isinstance(
        FerretConfig(global_tower=found.global_tower.to_dict(), local_tower=None).global_tower,
        CLIPVisionConfig,
    )
