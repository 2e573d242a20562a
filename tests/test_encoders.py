"Towers must say what transformers' own classes say, at every size and with every patch."
import pytest
import torch
from transformers import Dinov2WithRegistersConfig, DINOv3ViTConfig, SiglipVisionConfig

from ferretlite.encoders import NORMALISATION, build_tower, embed_patches, normalised, tiny_clip_config, tiny_dino_config, to_bytes, to_pixels, tower_map, unread_parameters
from ferretlite.scenes import make_scene

registers = lambda **kw: Dinov2WithRegistersConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_register_tokens=3, **kw)
siglip = lambda **kw: SiglipVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, **kw)
dino3 = lambda **kw: DINOv3ViTConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_register_tokens=3, **kw)
CONFIGS = {"clip": lambda **kw: tiny_clip_config(32, 3, **kw), "dino": lambda **kw: tiny_dino_config(32, 2, **kw), "registers": registers, "siglip": siglip, "dino3": dino3}


def tower_of(kind, patch=16):
    torch.manual_seed(0)
    tower = build_tower(CONFIGS[kind](image_size=6 * patch, patch_size=patch)).eval()
    for p in tower.parameters(): torch.nn.init.normal_(p, std=.2) # class token, positions and registers are zeros at first: they must matter
    return tower


@torch.no_grad()
def theirs(tower, pixels):
    "transformers' features of the patches, by its own forward pass."
    if tower.config.model_type == "clip_vision_model":
        return tower(pixels, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states[-2][:, 1:]
    if tower.config.model_type == "siglip_vision_model": return tower(pixels, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states[-2]
    return tower(pixels).last_hidden_state[:, 1 + getattr(tower.config, "num_register_tokens", 0):]


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("patch", [8, 14, 16])
@pytest.mark.parametrize("cells", [(6, 6), (12, 12), (4, 9), (9, 2)])
def test_features_are_transformers_own(kind, patch, cells):
    tower, (h, w) = tower_of(kind, patch), cells
    pixels = torch.randn(2, 3, h * patch, w * patch)
    with torch.no_grad(): found = tower_map(tower, pixels)
    assert found.shape == (2, h, w, 32)
    torch.testing.assert_close(found.flatten(1, 2), theirs(tower, pixels), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_not_read_gets_no_gradient_and_all_else_does(kind):
    tower = tower_of(kind); unread = set(unread_parameters(tower))
    tower_map(tower, torch.randn(1, 3, 96, 96)).square().sum().backward()
    assert {n for n, p in tower.named_parameters() if p.grad is None} == unread and len(unread) >= 1

@pytest.mark.parametrize("kind", [k for k in CONFIGS if k != "dino3"]) # which tells its layers the places
def test_positions_can_be_stretched_in_two_ways(kind):
    tower, pixels = tower_of(kind), torch.randn(1, 3, 160, 96)
    with torch.no_grad(): one, two = (embed_patches(tower, pixels, mode) for mode in ("bicubic", "bilinear"))
    assert one.shape == two.shape and (one - two).abs().max() > 1e-3
    same = torch.randn(1, 3, 96, 96)
    assert torch.equal(embed_patches(tower, same), embed_patches(tower, same, "bilinear"))


def test_a_frozen_tower_leaves_no_graph_and_tiles_go_through_it_in_one_call():
    tower = tower_of("dino").requires_grad_(False)
    calls, forward = [], tower.encoder.forward
    tower.encoder.forward = lambda *a, **kw: calls.append(len(a[0])) or forward(*a, **kw)
    assert not tower_map(tower, torch.randn(7, 3, 96, 96)).requires_grad and calls == [7]


def test_bytes_become_what_a_tower_expects():
    image = make_scene(1, (90, 120)).image
    for kind, (mean, std) in NORMALISATION.items():
        raw = to_bytes(image, (64, 96))
        plain = (raw.double() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        assert raw.dtype == torch.uint8 and raw.shape == (3, 64, 96)
        torch.testing.assert_close(normalised(raw, mean, std).double(), plain, atol=1e-5, rtol=0)
        assert torch.equal(to_pixels(image, (64, 96), mean, std), normalised(raw, mean, std))
