"Towers must say what transformers' own classes say, at every size and with every patch."

import pytest
import torch
from transformers import Dinov2WithRegistersConfig, DINOv3ViTConfig, SiglipVisionConfig

from ferretlite.common.meters import PeakMemory
from ferretlite.scenes.world import make_scene
from ferretlite.vision.encoders import (
    PIXEL_STATISTICS,
    build_tower,
    compute_tower_map,
    embed_patches,
    interpolate_positions,
    list_unread_parameters,
    make_tiny_clip_config,
    make_tiny_dino_config,
    normalise_pixels,
    prepare_pixels,
    resize_to_bytes,
)


def registers(**kw):
    return Dinov2WithRegistersConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_register_tokens=3, **kw
    )


def siglip(**kw):
    return SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, **kw
    )


def dino3(**kw):
    return DINOv3ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_register_tokens=3,
        **kw,
    )


CONFIGS = {
    "clip": lambda **kw: make_tiny_clip_config(32, 3, **kw),
    "dino": lambda **kw: make_tiny_dino_config(32, 2, **kw),
    "registers": registers,
    "siglip": siglip,
    "dino3": dino3,
}


def tower_of(kind, patch=16):
    torch.manual_seed(0)
    tower = build_tower(CONFIGS[kind](image_size=6 * patch, patch_size=patch)).eval()
    for p in tower.parameters():
        torch.nn.init.normal_(
            p, std=0.2
        )  # class token, positions and registers are zeros at first: they must matter
    return tower


@torch.no_grad()
def theirs(tower, pixels):
    "transformers' features of the patches, by its own forward pass."
    if tower.config.model_type == "clip_vision_model":
        return tower(
            pixels, output_hidden_states=True, interpolate_pos_encoding=True
        ).hidden_states[-2][:, 1:]
    if tower.config.model_type == "siglip_vision_model":
        return tower(
            pixels, output_hidden_states=True, interpolate_pos_encoding=True
        ).hidden_states[-2]
    return tower(pixels).last_hidden_state[:, 1 + getattr(tower.config, "num_register_tokens", 0) :]


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("patch", [8, 14, 16])
@pytest.mark.parametrize("cells", [(6, 6), (12, 12), (4, 9), (9, 2)])
def test_features_are_transformers_own(kind, patch, cells):
    tower, (h, w) = tower_of(kind, patch), cells
    pixels = torch.randn(2, 3, h * patch, w * patch)
    with torch.no_grad():
        found = compute_tower_map(tower, pixels)
    assert found.shape == (2, h, w, 32)
    torch.testing.assert_close(found.flatten(1, 2), theirs(tower, pixels), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_not_read_gets_no_gradient_and_all_else_does(kind):
    tower = tower_of(kind)
    unread = set(list_unread_parameters(tower))
    compute_tower_map(tower, torch.randn(1, 3, 96, 96)).square().sum().backward()
    assert {n for n, p in tower.named_parameters() if p.grad is None} == unread and len(unread) >= 1


@pytest.mark.parametrize(
    "kind", [k for k in CONFIGS if k != "dino3"]
)  # which tells its layers the places
def test_positions_can_be_stretched_in_two_ways(kind):
    tower, pixels = tower_of(kind), torch.randn(1, 3, 160, 96)
    with torch.no_grad():
        one, two = (embed_patches(tower, pixels, mode) for mode in ("bicubic", "bilinear"))
    assert one.shape == two.shape and (one - two).abs().max() > 1e-3
    same = torch.randn(1, 3, 96, 96)
    assert torch.equal(embed_patches(tower, same), embed_patches(tower, same, "bilinear"))


def test_a_frozen_tower_leaves_no_graph_and_tiles_go_through_it_in_one_call():
    tower = tower_of("dino").requires_grad_(False)
    calls, forward = [], tower.encoder.forward
    tower.encoder.forward = lambda *a, **kw: calls.append(len(a[0])) or forward(*a, **kw)
    assert not compute_tower_map(tower, torch.randn(7, 3, 96, 96)).requires_grad and calls == [7]


def test_bytes_become_what_a_tower_expects():
    image = make_scene(1, (90, 120)).image
    for _kind, (mean, std) in PIXEL_STATISTICS.items():
        raw = resize_to_bytes(image, (64, 96))
        plain = (raw.double() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[
            :, None, None
        ]
        assert raw.dtype == torch.uint8 and raw.shape == (3, 64, 96)
        torch.testing.assert_close(
            normalise_pixels(raw, mean, std).double(), plain, atol=1e-5, rtol=0
        )
        assert torch.equal(
            prepare_pixels(image, (64, 96), mean, std), normalise_pixels(raw, mean, std)
        )


# Numbers from elsewhere


def test_tiny_towers_have_the_documented_sizes():
    clip, dino = make_tiny_clip_config(), make_tiny_dino_config()
    assert (clip.hidden_size, clip.intermediate_size, clip.num_hidden_layers) == (160, 640, 5)
    assert (clip.num_attention_heads, clip.image_size, clip.patch_size) == (5, 96, 16)
    assert (dino.hidden_size, dino.mlp_ratio, dino.num_hidden_layers) == (160, 4, 4)
    assert (dino.num_attention_heads, dino.image_size, dino.patch_size) == (5, 96, 16)
    for config in (make_tiny_clip_config(64, 3, 80, 8), make_tiny_dino_config(64, 3, 80, 8)):
        assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (
            64,
            3,
            2,
        )
        assert (config.image_size, config.patch_size) == (80, 8)
    assert make_tiny_clip_config(64).intermediate_size == 256


def test_normalisation_is_that_of_the_published_processors():
    from transformers import image_utils as published

    clip = (published.OPENAI_CLIP_MEAN, published.OPENAI_CLIP_STD)
    siglip = (published.IMAGENET_STANDARD_MEAN, published.IMAGENET_STANDARD_STD)
    dino = (published.IMAGENET_DEFAULT_MEAN, published.IMAGENET_DEFAULT_STD)
    expected = {"clip_vision_model": clip, "siglip_vision_model": siglip, "dinov2": dino}
    expected |= {"dinov2_with_registers": dino, "dinov3_vit": dino}
    assert {k: tuple(map(tuple, v)) for k, v in PIXEL_STATISTICS.items()} == {
        k: tuple(map(tuple, v)) for k, v in expected.items()
    }


def test_a_byte_is_normalised_by_its_own_channel():
    # red (51/255 - .1) / .5 = .2, green (102/255 - .2) / .25 = .8, blue (255/255 - .6) / .2 = 2
    raw = torch.tensor([51, 102, 255], dtype=torch.uint8)[:, None, None].expand(2, 3, 1, 4)
    found = normalise_pixels(raw, (0.1, 0.2, 0.6), (0.5, 0.25, 0.2))
    assert found.shape == (2, 3, 1, 4) and found.dtype == torch.float32
    assert found[1, :, 0, 3].tolist() == pytest.approx([0.2, 0.8, 2.0], abs=1e-6)
    assert raw[0, :, 0, 0].tolist() == [51, 102, 255]


def test_bytes_are_the_images_own_or_bicubic():
    import numpy as np
    from PIL import Image

    raw = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(raw)
    same = resize_to_bytes(image, (5, 7))
    assert np.array_equal(same.numpy(), raw.transpose(2, 0, 1))
    same.zero_()  # the copy may be written to: the image does not change
    assert np.array_equal(np.array(image), raw)
    other = np.array(image.resize((4, 6), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(resize_to_bytes(image, (6, 4)).numpy(), other)
    assert np.array_equal(resize_to_bytes(image, (7, 5)).numpy().shape, (3, 7, 5))


def test_positions_are_stretched_by_the_distance_between_centres():
    # columns 0 and 8 become 0, 2, 6, 8; rows 0 and 100 become 0, 25, 75, 100
    learned = torch.tensor([[0.0, 8.0], [100.0, 108.0]])[..., None]
    assert interpolate_positions(learned, (2, 4))[0, :, 0].tolist() == [0, 2, 6, 8]
    assert interpolate_positions(learned, (4, 2))[:, 0, 0].tolist() == [0, 25, 75, 100]
    # bicubic: 8 * (1 - 0.8984375...): the value of PIL and PyTorch (a = -0.75) at a quarter
    t = torch.tensor([1.25, 0.25, 0.75, 1.75], dtype=torch.float64)
    near, far = t[1:3], t[[0, 3]]

    def weight(d):
        return 1.25 * d**3 - 2.25 * d**2 + 1

    def outer(d):
        return -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3

    left, right = outer(far[0]) + weight(near[0]), weight(near[1]) + outer(far[1])
    assert left + right == pytest.approx(1)
    found = interpolate_positions(learned, (2, 4), "bicubic")[0, 1, 0].item()
    assert found == pytest.approx(8 * right.item(), abs=1e-5)
    assert interpolate_positions(learned.bfloat16(), (3, 5)).dtype == torch.bfloat16


def test_fewer_positions_are_averaged_only_when_told():
    # two of four columns: their centres lie between two; antialiased, weights .75 .75 .25 / 1.75
    learned = torch.tensor([[0.0, 1.0, 4.0, 16.0]])[..., None]
    plain = interpolate_positions(learned, (1, 2))[0, :, 0].tolist()
    smooth = interpolate_positions(learned, (1, 2), antialias=True)[0, :, 0].tolist()
    assert plain == pytest.approx([0.5, 10])
    assert smooth == pytest.approx([(0.75 * 1 + 0.25 * 4) / 1.75, (0.25 + 3 + 12) / 1.75])


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("kind", ["clip", "dino"])
def test_a_stretched_tower_is_one_whose_position_table_was_stretched_beforehand(kind, mode):
    tower, larger = (
        tower_of(kind, 8),
        build_tower(CONFIGS[kind](image_size=72, patch_size=8)).eval(),
    )
    state = tower.state_dict()
    name = next(
        n for n in state if n.endswith(("position_embedding.weight", "position_embeddings"))
    )
    table = state[name].reshape(1 + 36, 32)
    grid = table[1:].T.reshape(1, 32, 6, 6)
    grid = torch.nn.functional.interpolate(grid, (9, 9), mode=mode, align_corners=False)
    stretched = torch.cat([table[:1], grid.reshape(32, 81).T])
    state[name] = stretched.reshape(larger.state_dict()[name].shape)
    larger.load_state_dict(
        {k: v for k, v in state.items() if "position_ids" not in k}, strict=False
    )
    pixels = torch.randn(2, 3, 72, 72)
    with torch.no_grad():
        found, expected = compute_tower_map(tower, pixels, mode), compute_tower_map(larger, pixels)
        default = compute_tower_map(tower, pixels)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(found, default) == (mode == "bicubic")


@pytest.mark.parametrize("size", [(100, 96), (96, 100)])
def test_a_view_of_no_whole_number_of_patches_is_refused(size):
    with pytest.raises(ValueError, match="expected sides that divide into patches of 16"):
        compute_tower_map(tower_of("dino"), torch.zeros(1, 3, *size))


def test_an_unknown_kind_of_tower_is_refused():
    from transformers import LlamaConfig

    with pytest.raises(ValueError, match="vision tower: found the model type 'llama'"):
        build_tower(LlamaConfig())


def test_a_tower_in_half_precision_reads_pixels_in_full_precision():
    assert (
        compute_tower_map(tower_of("clip").bfloat16(), torch.randn(1, 3, 96, 96)).dtype
        == torch.bfloat16
    )


def test_which_parameters_are_never_read():
    assert list_unread_parameters(tower_of("dino")) == ["embeddings.mask_token"]
    names = list_unread_parameters(tower_of("clip"))
    assert {n.rsplit(".", 1)[0].split(".self_attn")[0].split(".mlp")[0] for n in names} == {
        "encoder.layers.2",
        "encoder.layers.2.layer_norm1",
        "encoder.layers.2.layer_norm2",
        "post_layernorm",
    }
    assert {n.split(".")[0] for n in list_unread_parameters(tower_of("siglip"))} == {
        "encoder",
        "post_layernorm",
        "head",
    }


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_towers_layers_begin_with_transformers_own_vectors_in_their_order(kind):
    tower, pixels = tower_of(kind), torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(embed_patches(tower, pixels), tower.embeddings(pixels))


def test_peak_memory_is_what_lived_at_once_and_not_the_sum():
    with PeakMemory() as memory:
        for _ in range(3):
            once = torch.ones(256)  # 1024 bytes
            del once
        kept = torch.ones(2, dtype=torch.float64)  # 16 bytes
        assert (memory.now, memory.peak) == (16, 1024)
        once = torch.ones(255)
        view = once[3:]  # of the same storage
        assert (memory.now, memory.peak) == (1036, 1036)
        del once
        assert memory.now == 1036
        del kept, view
        assert memory.now == 0
