"""Crops around boxes, and what an encoder makes of them."""

import numpy as np
import pytest
import torch
from PIL import Image

from ferretlite.regions.geometry import Box
from ferretlite.vision.coreferring import (
    CROP_MARGIN,
    VisualTokenizer,
    compute_crop_window,
    cut_crop,
)
from ferretlite.vision.encoders import make_tiny_clip_config


def test_the_window_is_a_square_of_four_thirds_of_the_longer_side():
    assert CROP_MARGIN == 1 / 3
    # 30 x 60: 80 pixels around (125, 150)
    window = compute_crop_window(Box(110, 120, 140, 180), (400, 300))
    assert window == pytest.approx((85, 110, 165, 190))
    # 60 x 30: 80 pixels around (130, 135)
    window = compute_crop_window(Box(100, 120, 160, 150), (400, 300))
    assert window == pytest.approx((90, 95, 170, 175))
    # room of nothing: 60 pixels; of a half: 90
    box = Box(100, 120, 160, 150)
    assert compute_crop_window(box, (400, 300), 0) == pytest.approx((100, 105, 160, 165))
    assert compute_crop_window(box, (400, 300), 0.5) == pytest.approx((85, 90, 175, 180))


def test_a_window_moves_into_the_image_on_every_side():
    # 60 x 60 boxes in an image 300 wide and 400 high: windows of 80
    assert compute_crop_window(Box(0, 120, 60, 180), (400, 300)) == pytest.approx((0, 110, 80, 190))
    assert compute_crop_window(Box(240, 120, 300, 180), (400, 300)) == pytest.approx(
        (220, 110, 300, 190)
    )
    assert compute_crop_window(Box(110, 0, 170, 60), (400, 300)) == pytest.approx((100, 0, 180, 80))
    assert compute_crop_window(Box(110, 340, 170, 400), (400, 300)) == pytest.approx(
        (100, 320, 180, 400)
    )


def test_a_window_is_no_larger_than_the_image():
    assert compute_crop_window(Box(10, 5, 70, 45), (50, 300)) == pytest.approx((0, 0, 80, 50))
    assert compute_crop_window(Box(5, 10, 45, 70), (300, 50)) == pytest.approx((0, 0, 50, 80))


def test_a_box_without_extent_gets_a_window_of_one_pixel_and_its_room():
    left, top, right, bottom = compute_crop_window(Box(20.5, 30.5, 20.5, 30.5), (400, 300))
    assert (right - left, bottom - top) == pytest.approx((4 / 3, 4 / 3))
    assert (left + right, top + bottom) == pytest.approx((41, 61))


def ramp(height, width):
    "An image whose red is x, whose green is y and whose blue is 200."
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, np.full_like(x, 200)], -1).astype(np.uint8))


def test_a_crop_shows_its_window_scaled_to_the_side():
    # the window 90-170 x 40-120 in 40 pixels: two pixels in one, the first between 90 and 91
    crop = np.array(cut_crop(ramp(200, 240), Box(100, 60, 160, 100), 40)).astype(int)
    assert crop.shape == (40, 40, 3)
    inside = slice(2, 38)
    expected = 90.5 + 2 * np.arange(40)
    assert np.abs(crop[10, inside, 0] - expected[inside]).max() <= 1
    assert np.abs(crop[inside, 10, 1] - (expected - 50)[inside]).max() <= 1
    assert (crop[..., 2] == 200).all()


def test_a_crop_takes_its_room_from_the_caller_and_has_192_pixels_unless_told():
    # without room: the window 100-160 x 50-110
    crop = np.array(cut_crop(ramp(200, 240), Box(100, 60, 160, 100), margin=0)).astype(int)
    assert crop.shape == (192, 192, 3)
    assert abs(crop[96, 0, 0] - 100) <= 1 and abs(crop[96, -1, 0] - 159) <= 1
    assert abs(crop[0, 96, 1] - 50) <= 1 and abs(crop[-1, 96, 1] - 109) <= 1


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_not_square_is_centred_in_its_mean_colour(turned):
    # window 80 x 50, scaled by a half to 40 x 25: seven rows above, eight below
    size, box = (50, 240), Box(100, 0, 160, 50)
    if turned:
        size, box = (240, 50), Box(0, 100, 50, 160)
    crop = np.array(cut_crop(ramp(*size), box, 40)).astype(int)
    if turned:
        crop = crop.transpose(1, 0, 2)[..., [1, 0, 2]]
    # the window begins at 90: its mean is 129.5, that of the other axis 24.5
    for row in (0, 6, 32, 39):
        assert np.abs(crop[row] - [129.5, 24.5, 200]).max() <= 1
    assert np.abs(crop[7, 2:38, 0] - (90.5 + 2 * np.arange(40))[2:38]).max() <= 1
    assert np.abs(crop[9:30, 5, 1] - (0.5 + 2 * np.arange(2, 23))).max() <= 1
    assert abs(crop[7, 20, 1] - 0.5) <= 1 and abs(crop[31, 20, 1] - 48.5) <= 1


def test_a_picture_without_a_box_is_shown_as_a_whole():
    # 120 x 60 into 30: scaled by a quarter to 30 x 15, seven rows above and eight below
    crop = np.array(cut_crop(ramp(60, 120), None, 30)).astype(int)
    assert crop.shape == (30, 30, 3)
    assert np.abs(crop[12, 2:28, 0] - (1.5 + 4 * np.arange(30))[2:28]).max() <= 1
    assert np.abs(crop[9:20, 12, 1] - (1.5 + 4 * np.arange(2, 13))).max() <= 1
    for row in (0, 6, 22, 29):
        assert np.abs(crop[row] - [59.5, 29.5, 200]).max() <= 1
    assert np.array(cut_crop(ramp(1, 240), None, 30)).shape == (30, 30, 3)


@pytest.mark.parametrize("height, rows", [(57, 14), (59, 15), (61, 15), (63, 16), (1, 1)])
def test_scaled_sides_are_rounded_to_the_nearest_pixel_and_one_at_least(height, rows):
    # 120 columns into 30, a quarter: 14.25, 14.75, 15.25, 15.75, .25
    image = Image.new("RGB", (120, height), "white")
    image.paste((0, 0, 0), (0, 0, 60, height))
    crop = np.array(cut_crop(image, None, 30)).astype(int)[..., 0]
    # half of it is black and half white, in a grey border
    assert (crop[:, -1] > 250).sum() == rows and (crop[:, 0] < 5).sum() == rows


CONFIG = make_tiny_clip_config(32, 2, 32, 16)


def tokenizer_of(**options):
    torch.manual_seed(0)
    module = VisualTokenizer(CONFIG, 6, **options)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return module


def test_a_crop_becomes_its_normed_class_token_and_goes_through_linear_relu_linear():
    module, pixels = tokenizer_of(hidden=5), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        last = module.tower(pixels).last_hidden_state[:, 0]
        last = last - last.mean(-1, keepdim=True)
        last = last / (last.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        norm = module.tower.post_layernorm
        token = last * norm.weight + norm.bias
    torch.testing.assert_close(module.encode_crops(pixels), token, atol=1e-4, rtol=1e-4)
    own = module.projector.state_dict()
    assert own["0.weight"].shape == (5, 32) and own["2.weight"].shape == (6, 5)
    hidden = (token @ own["0.weight"].T + own["0.bias"]).clamp(min=0)
    expected = hidden @ own["2.weight"].T + own["2.bias"]
    torch.testing.assert_close(module(pixels), expected, atol=1e-4, rtol=1e-4)


def test_the_projectors_width_and_the_papers_linear_one():
    assert tokenizer_of().projector[0].out_features == 6
    linear = tokenizer_of(linear=True).projector
    assert isinstance(linear, torch.nn.Linear)

    def shapes(module):
        return {n: tuple(p.shape) for n, p in module.named_parameters()}

    assert shapes(linear) == {"weight": (6, 32), "bias": (6,)}
    assert shapes(tokenizer_of(hidden=5).projector) == {
        "0.weight": (5, 32),
        "0.bias": (5,),
        "2.weight": (6, 5),
        "2.bias": (6,),
    }


def test_crops_are_looked_at_in_order_some_at_once():
    module, pixels, sizes = tokenizer_of(), torch.randn(5, 3, 32, 32), []
    hook = module.tower.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    together, parts = module.encode_crops(pixels), module.encode_crops(pixels, 2)
    hook.remove()
    assert sizes == [5, 2, 2, 1]
    torch.testing.assert_close(parts, together, atol=1e-5, rtol=1e-5)
    sizes.clear()
    module.tower.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    module.encode_crops(torch.zeros(65, 3, 32, 32))
    assert sizes == [64, 1]


def test_the_encoder_stays_frozen_and_in_evaluation_while_the_projector_learns():
    module = tokenizer_of()
    assert module.train() is module and module.training and module.projector.training
    assert not module.tower.training and not module.eval().training
    assert module.train(False).projector.training is False
    module.train()(torch.randn(1, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in module.projector.parameters())
    fresh = VisualTokenizer(CONFIG, 6)
    assert not any(p.requires_grad for p in fresh.tower.parameters())
    assert all(p.requires_grad for p in fresh.projector.parameters())
    assert not fresh.encode_crops(torch.zeros(1, 3, 32, 32)).requires_grad
