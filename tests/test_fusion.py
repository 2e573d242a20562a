"""Projectors, stretched maps and positions, against sums that are worked out by hand."""

import math

import pytest
import torch

from ferretlite.vision.fusion import (
    Projector,
    VisualPosition,
    build_token_sequence,
    compute_cell_centers,
    compute_fourier_features,
    fuse_maps,
    join_patches,
    upsample_map,
)


def exact_gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


@pytest.mark.parametrize("with_place", [False, True])
def test_a_projector_is_linear_exact_gelu_linear_and_a_place_joins_before_the_gelu(with_place):
    torch.manual_seed(0)
    projector, features = Projector(3, 5, 4), torch.randn(2, 7, 3)
    assert {n: tuple(p.shape) for n, p in projector.named_parameters()} == {
        "0.weight": (4, 3),
        "0.bias": (4,),
        "2.weight": (5, 4),
        "2.bias": (5,),
    }
    place = torch.randn(7, 4) if with_place else None
    own = projector.state_dict()
    hidden = features @ own["0.weight"].T + own["0.bias"]
    if with_place:
        hidden = hidden + place
    expected = exact_gelu(hidden) @ own["2.weight"].T + own["2.bias"]
    torch.testing.assert_close(projector(features, place), expected, atol=1e-6, rtol=1e-5)


def test_a_projectors_hidden_width_is_that_of_the_language_model_unless_told():
    assert [Projector(3, 5)[0].out_features, Projector(3, 5)[2].in_features] == [5, 5]
    assert [Projector(3, 5, 8)[0].out_features, Projector(3, 5, 8)[2].in_features] == [8, 8]


def test_a_projector_in_half_precision_accepts_a_place_in_full_precision():
    projector = Projector(3, 5).bfloat16()
    out = projector(torch.randn(2, 3, dtype=torch.bfloat16), torch.randn(2, 5))
    assert out.dtype == torch.bfloat16


def test_joined_patches_lie_in_raster_order_with_channels_innermost():
    # cell (row, column) of map n holds the channels n*100 + row*10 + column and its negative
    row, column = torch.arange(2)[:, None], torch.arange(6)
    cell = torch.stack([n * 100 + row * 10 + column for n in (1, 2)])
    joined = join_patches(torch.stack([cell, -cell], -1), 2)
    assert joined.shape == (2, 1, 3, 8)
    assert joined[0, 0, 1].tolist() == [102, -102, 103, -103, 112, -112, 113, -113]
    assert joined[1, 0, 2].tolist() == [204, -204, 205, -205, 214, -214, 215, -215]


@pytest.mark.parametrize("shape", [(1, 3, 4, 1), (1, 4, 3, 1)])
def test_a_map_that_does_not_divide_is_not_joined(shape):
    with pytest.raises(ValueError, match="divide by 2"):
        join_patches(torch.zeros(shape), 2)


def test_stretching_is_linear_between_centres_and_constant_beyond_them():
    # columns 0 and 8 stretched from two to four cells: 0, 8/4, 8*3/4, 8; rows 0 and 100 likewise
    maps = torch.tensor([[0.0, 8.0], [100.0, 108.0]])[None, ..., None]
    wide = upsample_map(maps, (2, 4))[0, ..., 0]
    assert wide.tolist() == [[0, 2, 6, 8], [100, 102, 106, 108]]
    high = upsample_map(maps, (4, 2))[0, ..., 0]
    assert high.tolist() == [[0, 8], [25, 33], [75, 83], [100, 108]]


def test_stretching_to_the_nearest_cell_repeats_cells():
    maps = torch.tensor([[0.0, 8.0, 9.0]])[None, ..., None]
    assert upsample_map(maps, (2, 6), "nearest")[0, ..., 0].tolist() == [[0, 0, 8, 8, 9, 9]] * 2


def test_stretching_keeps_batch_channels_and_dtype_and_returns_a_map_of_the_right_size_as_it_is():
    torch.manual_seed(0)
    maps = torch.randn(3, 2, 4, 5).bfloat16()
    out = upsample_map(maps, (4, 7))
    assert out.shape == (3, 4, 7, 5) and out.dtype == torch.bfloat16
    for item in range(3):
        for channel in range(5):
            alone = upsample_map(maps[item : item + 1, ..., channel : channel + 1], (4, 7))
            assert torch.equal(out[item, ..., channel], alone[0, ..., 0])
    assert upsample_map(maps, (2, 4)) is maps
    assert upsample_map(maps, [4, 2]).shape == (3, 4, 2, 5)


def test_cell_centres_are_x_then_y_in_the_unit_frame():
    places = compute_cell_centers((2, 4))
    assert places.dtype == torch.float32
    assert places.tolist() == [
        [[0.125, 0.25], [0.375, 0.25], [0.625, 0.25], [0.875, 0.25]],
        [[0.125, 0.75], [0.375, 0.75], [0.625, 0.75], [0.875, 0.75]],
    ]
    assert compute_cell_centers((1, 2), "meta").device.type == "meta"


LOCAL = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])[..., None]
WHOLE = torch.tensor([[100.0, 500.0]])[..., None]  # stretched to four columns: 100, 200, 400, 500


def test_the_fused_map_is_the_local_map_plus_the_stretched_global_map():
    assert fuse_maps(LOCAL, WHOLE)[..., 0].tolist() == [[101, 202, 403, 504], [105, 206, 407, 508]]
    nearest = fuse_maps(LOCAL, WHOLE, "nearest")[..., 0]
    assert nearest.tolist() == [[101, 102, 503, 504], [105, 106, 507, 508]]


def test_maps_are_fused_by_concatenation_local_channels_first_or_not_at_all():
    both = fuse_maps(LOCAL, WHOLE.repeat(1, 1, 2), how="concat")
    assert both.shape == (2, 4, 3) and both[1, 2].tolist() == [7, 400, 400]
    assert fuse_maps(LOCAL, WHOLE, how="local") is LOCAL


def test_maps_of_different_width_have_no_sum():
    with pytest.raises(ValueError, match="width 1 and a global one of width 2"):
        fuse_maps(LOCAL, WHOLE.repeat(1, 1, 2))
    with pytest.raises(ValueError, match="width 2 and a global one of width 1"):
        fuse_maps(LOCAL.repeat(1, 1, 2), WHOLE)


def test_the_language_model_reads_views_row_by_row_the_whole_view_first():
    tiles = 10 + LOCAL
    assert build_token_sequence([WHOLE, tiles])[:, 0].tolist() == [100, 500, *range(11, 19)]
    last = build_token_sequence([WHOLE, tiles], overview="last")
    assert last[:, 0].tolist() == [*range(11, 19), 100, 500]


def test_a_separator_ends_every_row_and_takes_the_views_dtype():
    mark = torch.tensor([-1.0], dtype=torch.float64)
    tokens = build_token_sequence([WHOLE, 10 + LOCAL], mark)
    assert tokens.dtype == torch.float32
    assert tokens[:, 0].tolist() == [100, 500, -1, 11, 12, 13, 14, -1, 15, 16, 17, 18, -1]


def test_fourier_features_are_the_place_then_sines_then_cosines_of_half_waves():
    # x = 1/4: angles pi/4, pi/2, pi;  y = 1/3: angles pi/3, 2 pi/3, 4 pi/3
    half, root2, root3 = 0.5, math.sqrt(0.5), math.sqrt(0.75)
    place = torch.tensor([[0.25, 1 / 3]])
    expected = [0.25, 1 / 3]
    expected += [root2, 1, 0, root3, root3, -root3]
    expected += [root2, 0, -1, half, -half, -half]
    torch.testing.assert_close(compute_fourier_features(place, 3), torch.tensor([expected]))


def test_fourier_features_have_six_octaves_of_which_the_first_is_half_a_wave_a_side():
    features = compute_fourier_features(torch.tensor([[[1.0, 0.5], [0.5, 1 / 64]]]))
    assert features.shape == (1, 2, 26)
    # x = 1: the cosines of pi, 2 pi, 4 pi, ... 32 pi
    assert features[0, 0, 14:20].tolist() == pytest.approx([-1, 1, 1, 1, 1, 1], abs=1e-4)
    # y = 1/64: the sines of pi/64, ... and at the highest octave of 32 pi / 64 = pi / 2
    assert features[0, 1, 8:14].tolist() == pytest.approx(
        [math.sin(math.pi * 2**i / 64) for i in range(6)], abs=1e-6
    )
    assert features[0, 1, 13].item() == pytest.approx(1)


def test_a_visual_position_is_a_linear_reading_of_a_cells_centre():
    code = VisualPosition(2, 1)
    assert code.weight.shape == (2, 6)
    with torch.no_grad():
        # x, y, sin(pi x), sin(pi y), cos(pi x), cos(pi y)
        code.weight.copy_(torch.tensor([[1.0, 10, 0, 0, 0, 0], [0, 0, 0, 0, 1, 10]]))
        code.bias.copy_(torch.tensor([0.0, 100]))
    told = code((1, 2))
    assert told.shape == (1, 2, 2)
    # centres (1/4, 1/2) and (3/4, 1/2): cos(pi/2) = 0
    assert told[0, :, 0].tolist() == pytest.approx([5.25, 5.75])
    assert told[0, :, 1].tolist() == pytest.approx([100 + 0.5**0.5, 100 - 0.5**0.5], abs=1e-4)
    assert code((3, 2)).shape == (3, 2, 2) and code.bfloat16()((1, 2)).dtype == torch.bfloat16


def test_a_visual_position_begins_quietly():
    torch.manual_seed(0)
    code = VisualPosition(400)
    assert code.weight.shape == (400, 26) and code.octaves == 6
    assert code.weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert abs(code.weight.mean().item()) < 0.003 and not code.bias.any()
