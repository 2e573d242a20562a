"""Grids, tiles and budgets."""

import math
import random

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image
from transformers.image_processing_utils import select_best_resolution

from ferretlite.vision.encoders import interpolate_positions
from ferretlite.vision.resolution import (
    FERRET_GRIDS,
    LLAVA_NEXT_GRIDS,
    check_grids,
    choose_grid,
    compute_canvas_size,
    count_grid_tokens,
    count_kept_cells,
    filter_grids,
    measure_grid_fit,
    measure_shape_mismatch,
    merge_tiles,
    resize_image,
    split_tiles,
)


def test_the_papers_fourteen_grids():
    assert len(set(FERRET_GRIDS)) == 14 and max(r * c for r, c in FERRET_GRIDS) == 6
    assert {(c, r) for r, c in FERRET_GRIDS} == set(FERRET_GRIDS)


# (height, width) -> (rows, cols), measured on the public code with its five grids of 336-px tiles
@pytest.mark.parametrize(
    "size, grid",
    [((480, 640), (2, 2)), ((2532, 1170), (3, 1)), ((1080, 1920), (2, 2)), ((300, 1000), (1, 3))],
)
def test_same_choice_as_the_public_code(size, grid):
    assert choose_grid(size, 336, LLAVA_NEXT_GRIDS) == grid


def test_a_wide_image_never_gets_a_portrait_grid_by_a_tie():
    """The public code gives 300 x 100 (wide) a 336 x 672 canvas (tall), because the first of
    equals wins.
    """
    assert choose_grid((100, 300), 336, LLAVA_NEXT_GRIDS) == (1, 2)
    assert choose_grid((300, 100), 336, LLAVA_NEXT_GRIDS) == (2, 1)
    for grids in (LLAVA_NEXT_GRIDS, LLAVA_NEXT_GRIDS[::-1]):
        assert choose_grid((100, 130), 336, grids) == (1, 2)


def test_choice_does_not_depend_on_the_order_of_the_grids_unless_nothing_else_decides():
    for h in range(60, 1500, 97):
        for w in range(61, 1500, 89):
            for tile in (96, 224, 336):
                assert (
                    choose_grid((h, w), tile, FERRET_GRIDS)
                    == choose_grid((h, w), tile, FERRET_GRIDS[::-1])
                    or h == w
                )


def test_turning_the_image_turns_the_grid():
    for h, w in [(100, 101), (480, 640), (50, 700), (333, 999), (1170, 2532)]:
        for tile in (48, 224, 336):
            assert (
                choose_grid((h, w), tile, FERRET_GRIDS)
                == choose_grid((w, h), tile, FERRET_GRIDS)[::-1]
            )


def test_chosen_grids_of_the_paper():
    assert choose_grid((480, 640), 224, FERRET_GRIDS) == (2, 3)
    assert choose_grid((480, 640), 336, FERRET_GRIDS) == (2, 2)
    assert choose_grid((100, 100), 336, FERRET_GRIDS) == (1, 1)


def test_a_cap_of_1280_tokens_admits_only_four_tiles_of_224():
    def cost(tokens):
        return lambda grid: count_grid_tokens(grid, tokens, tokens)

    fits = filter_grids(FERRET_GRIDS, max_visual_tokens=1280, cost=cost(256))
    assert len(fits) == 8 and max(r * c for r, c in fits) == 4
    assert fits == filter_grids(FERRET_GRIDS, max_tiles=4)
    assert (
        count_grid_tokens((2, 2), 256, 256) == 1280 and count_grid_tokens((2, 3), 256, 256) == 1792
    )
    assert count_grid_tokens((2, 2), 576, 576) == 2880
    with pytest.raises(ValueError, match="expected at least 1152"):
        filter_grids(FERRET_GRIDS, max_visual_tokens=1000, cost=cost(576))
    with pytest.raises(ValueError, match="max_tiles: .*expected at least 4"):
        filter_grids([(2, 2), (2, 3)], max_tiles=3)
    with pytest.raises(ValueError, match="without cost"):
        filter_grids(FERRET_GRIDS, max_visual_tokens=1280)


def test_an_unpadded_map_is_as_large_as_llava_nexts():
    """transformers drops equally many rows above and below, hence an even number; ours is the
    nearest whole number of cells.
    """
    from transformers.models.llava_next.modeling_llava_next import unpad_image

    dice = random.Random(0)
    for _ in range(2000):
        size, cells = (
            (dice.randint(1, 1500), dice.randint(1, 1500)),
            (dice.choice((12, 24, 48)), dice.choice((12, 24, 48))),
        )
        theirs, kept = (
            unpad_image(torch.zeros(1, *cells), size).shape[1:],
            count_kept_cells(size, cells),
        )
        assert (
            1 <= min(kept)
            and all(k <= c for k, c in zip(kept, cells))
            and any(k == c for k, c in zip(kept, cells))
        ), (size, cells)
        assert all(abs(a - b) <= 1 + (b == 0) for a, b in zip(kept, theirs)), (
            size,
            cells,
            kept,
            theirs,
        )
        assert count_kept_cells(size[::-1], cells[::-1]) == kept[::-1]


@pytest.mark.parametrize(
    "size, grid",
    [
        ((1, 100_000), (1, 6)),
        ((100_000, 1), (6, 1)),
        ((10, 20_000), (1, 6)),
        ((4, 4000), (1, 6)),
        ((1, 1), (1, 1)),
    ],
)
def test_extreme_shapes_and_sizes(size, grid):
    assert choose_grid(size, 224, FERRET_GRIDS) == grid
    effective, wasted = measure_grid_fit(size, 224, grid)
    assert 0 < effective <= size[0] * size[1] and wasted >= 0


def test_tiles_need_not_be_square():
    assert choose_grid((224, 224), (224, 112), ((1, 1), (1, 2), (2, 1))) == (1, 2)


def test_an_empty_image_or_no_grids_gets_one_sentence():
    with pytest.raises(ValueError, match="at least one pixel"):
        choose_grid((0, 5), 224)
    for grids, says in (
        ((), "grids: found none"),
        ([(1, 0)], r"grids: found \(1, 0\), expected .rows, cols. of one at least"),
        ([(1, 1, 1)], "grids: found"),
        ([(-1, -2)], "grids: found"),
    ):
        with pytest.raises(ValueError, match=says):
            choose_grid((5, 5), 224, grids)
        with pytest.raises(ValueError, match=says):
            filter_grids(grids, max_tiles=4)
    with pytest.raises(ValueError, match="tile: found 0 pixels"):
        choose_grid((5, 5), 0)
    assert (
        choose_grid((480, 640), 336.0)
        == choose_grid((480, 640), np.int64(336))
        == choose_grid((480, 640), 336)
    )


@pytest.mark.parametrize("grid", FERRET_GRIDS)
def test_merging_undoes_splitting(grid):
    x = torch.arange(3 * (grid[0] * 4) * (grid[1] * 6)).reshape(3, grid[0] * 4, grid[1] * 6)
    tiles = split_tiles(x, grid)
    assert tiles.shape == (grid[0] * grid[1], 3, 4, 6)
    assert torch.equal(
        merge_tiles(rearrange(tiles, "n c h w -> n h w c"), grid), x.permute(1, 2, 0)
    )


def test_tiles_come_in_raster_order():
    x = torch.arange(6).reshape(1, 2, 3)
    assert split_tiles(x, (2, 3)).flatten().tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="divide evenly"):
        split_tiles(x, (2, 2))
    with pytest.raises(ValueError, match="expected 6"):
        merge_tiles(torch.zeros(4, 2, 2, 1), (2, 3))


def test_resize_takes_height_first_and_stretches():
    image = resize_image(Image.new("RGB", (30, 10)), (20, 40))
    assert image.size == (40, 20)
    assert resize_image(image, (20, 40)) is image


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_interpolated_positions_keep_their_place(mode):
    rows, cols = torch.meshgrid(
        (torch.arange(8) + 0.5) / 8, (torch.arange(8) + 0.5) / 8, indexing="ij"
    )
    big = interpolate_positions(torch.stack([cols, rows], -1), (16, 24), mode)
    assert big.shape == (16, 24, 2)
    assert torch.allclose(big[4:-4, 5, 1], (torch.arange(4, 12) + 0.5) / 16, atol=1e-2)
    assert torch.allclose(big[5, 6:-6, 0], (torch.arange(6, 18) + 0.5) / 24, atol=1e-2)
    small = torch.rand(4, 4, 3)
    assert torch.equal(interpolate_positions(small, (4, 4), mode), small)


def test_the_grid_is_llava_nexts_on_ten_thousand_sizes_wherever_its_rule_decides():
    """Elsewhere, on exact ties and where truncation to whole pixels reorders its numbers, ours is
    never the worse choice.
    """
    dice, decided = random.Random(0), 0
    canvases = [compute_canvas_size(336, g) for g in LLAVA_NEXT_GRIDS]
    for n in range(10_000):
        size = (
            (dice.randint(50, 3000), dice.randint(50, 3000))
            if n % 2
            else tuple(int(10 ** dice.uniform(0, 4)) for _ in range(2))
        )
        ours, theirs = (
            choose_grid(size, 336, LLAVA_NEXT_GRIDS),
            LLAVA_NEXT_GRIDS[canvases.index(tuple(select_best_resolution(size, canvases)))],
        )
        exact = {g: (-(fit := measure_grid_fit(size, 336, g))[0], fit[1]) for g in LLAVA_NEXT_GRIDS}
        truncated = {}
        for g, (h, w) in zip(LLAVA_NEXT_GRIDS, canvases):
            scale = min(w / size[1], h / size[0])
            kept = min(int(size[1] * scale) * int(size[0] * scale), size[0] * size[1])
            truncated[g] = (-kept, h * w - kept)
        alone = sorted(exact.values())[0] < sorted(exact.values())[1]
        if alone and min(truncated, key=truncated.get) == min(exact, key=exact.get):
            assert ours == theirs, size
            decided += 1
        assert exact[ours] <= exact[theirs], size
    assert decided > 7000


# Numbers worked out by hand


def test_the_lists_of_grids_are_those_of_the_paper_and_of_llava_next():
    flat = [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6)]
    tall = [(2, 1), (3, 1), (4, 1), (5, 1), (6, 1)]
    assert list(FERRET_GRIDS) == [*flat, *tall, (2, 2), (2, 3), (3, 2)]
    assert LLAVA_NEXT_GRIDS == ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1))


def test_a_canvas_is_as_many_tiles_as_the_grid_has_places():
    assert compute_canvas_size(50, (2, 3)) == (100, 150)
    assert compute_canvas_size((30, 40), (2, 3)) == (60, 120)
    assert compute_canvas_size([30, 40], (3, 2)) == (90, 80)


def test_an_image_keeps_its_scaled_pixels_and_wastes_the_rest_of_the_canvas():
    # 100 x 200 into 50 x 50: a quarter of each side, 25 x 50
    assert measure_grid_fit((100, 200), 50, (1, 1)) == (1250, 1250)
    # 100 x 200 into 60 x 150: limited by the height, .6 of each side, 60 x 120 = 7200
    assert measure_grid_fit((100, 200), (60, 50), (1, 3)) == (7200, 1800)
    # 10 x 20 into 80 x 50: it would have to grow, so that no pixel is added
    assert measure_grid_fit((10, 20), (40, 50), (2, 1)) == (200, 3800)


def test_a_grid_is_chosen_by_what_is_kept_then_by_waste_then_by_shape():
    # 100 x 100: all grids of 100-px tiles keep everything, one tile wastes nothing
    assert choose_grid((100, 100), 100, ((2, 2), (1, 2), (1, 1))) == (1, 1)
    # 300 x 100 and 100 x 300 tiles of 300: (1, 2) and (2, 1) keep and waste the same
    assert choose_grid((100, 300), 300, ((2, 1), (1, 2))) == (1, 2)
    assert choose_grid((300, 100), 300, ((1, 2), (2, 1))) == (2, 1)
    # 200 x 400: (2, 2) keeps everything, and more is kept by (1, 2) than by (2, 1)
    assert choose_grid((200, 400), 100, ((1, 2), (2, 1))) == (1, 2)
    assert choose_grid((200, 400), 100, ((1, 2), (2, 4), (4, 2))) == (2, 4)


def test_grids_are_ferrets_unless_told():
    assert choose_grid((100, 600), 100) == (1, 6)
    assert choose_grid((480, 640), 224) == (2, 3)


def test_one_pixel_and_one_place_are_enough():
    assert choose_grid((1, 1), 1) == (1, 1)
    check_grids([(1, 1)])
    for size in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least one pixel"):
            choose_grid(size, 4)
    for tile in ((0, 4), (4, 0)):
        with pytest.raises(ValueError, match="tile: found"):
            choose_grid((4, 4), tile)
    for grid in ((0, 1), (1, 0), (1,)):
        with pytest.raises(ValueError, match="of one at least"):
            check_grids([(1, 1), grid])


def test_shapes_differ_by_the_logarithm_of_their_ratio():
    assert measure_shape_mismatch((100, 200), (100, 100)) == pytest.approx(math.log(2), abs=1e-8)
    assert measure_shape_mismatch((100, 100), (100, 200)) == pytest.approx(math.log(2), abs=1e-8)
    assert measure_shape_mismatch((300, 100), (100, 100)) == pytest.approx(math.log(3), abs=1e-8)
    assert measure_shape_mismatch((30, 70), (90, 210)) == 0


def test_tokens_are_those_of_the_tiles_and_of_the_whole_view():
    assert count_grid_tokens((2, 3), 10) == 60
    assert count_grid_tokens((2, 3), 10, 7) == 67


def test_budgets_include_their_limit_and_keep_the_order():
    grids = [(2, 2), (1, 3), [1, 1], (2, 3)]
    assert filter_grids(grids) == ((2, 2), (1, 3), (1, 1), (2, 3))
    assert filter_grids(grids, 4) == ((2, 2), (1, 3), (1, 1))
    assert filter_grids(grids, 3) == ((1, 3), (1, 1))

    def cost(g):
        return 10 * g[0] + g[1]

    assert filter_grids(grids, None, 13, cost) == ((1, 3), (1, 1))
    assert filter_grids(grids, 1, 22, cost) == ((1, 1),)
    assert filter_grids(grids, 1, 11, cost) == ((1, 1),)
    with pytest.raises(ValueError, match="max_visual_tokens: .*expected at least 11"):
        filter_grids(grids, None, 10, cost)
    with pytest.raises(ValueError, match="max_tiles: .*expected at least 1"):
        filter_grids(grids, 0)


def test_kept_cells_are_rounded_to_the_nearest_and_halves_up():
    # the image's rows and columns times the scale at which the longer side fills the canvas
    assert count_kept_cells((480, 640), (24, 24)) == (18, 24)  # 24 * 3/4
    assert count_kept_cells((640, 480), (24, 24)) == (24, 18)
    assert count_kept_cells((5, 8), (4, 4)) == (3, 4)  # 2.5 -> 3
    assert count_kept_cells((11, 16), (4, 4)) == (3, 4)  # 2.75 -> 3
    assert count_kept_cells((16, 9), (4, 4)) == (4, 2)  # 2.25 -> 2
    assert count_kept_cells((100, 300), (10, 20)) == (7, 20)  # scale 1/15: 6.67 -> 7
    assert count_kept_cells((300, 100), (10, 20)) == (10, 3)  # scale 1/30: 3.33 -> 3
    assert count_kept_cells((2, 3), (20, 60)) == (20, 30)  # small images grow: scale 10
    assert count_kept_cells((1, 1000), (12, 16)) == (1, 16)  # at least one cell


def test_resizing_is_bicubic_and_keeps_places():
    raw = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    image = Image.fromarray(raw)
    found = np.array(resize_image(image, (12, 5)))
    assert np.array_equal(found, np.array(image.resize((5, 12), Image.Resampling.BICUBIC)))
    assert resize_image(image, (9, 6)).size == (6, 9)
    assert resize_image(image, (6, 9)) is image


def test_tiles_and_merged_maps_by_hand():
    # pixel (channel, row, column) is channel*100 + row*10 + column
    pixels = torch.tensor(
        [[[c * 100 + row * 10 + col for col in range(6)] for row in range(2)] for c in range(3)]
    )
    tiles = split_tiles(pixels, (1, 3))
    assert tiles.shape == (3, 3, 2, 2)
    assert tiles[2, 1].tolist() == [[104, 105], [114, 115]]
    assert split_tiles(pixels, (2, 2))[2, 0].tolist() == [[10, 11, 12]]
    with pytest.raises(ValueError, match="divide evenly"):
        split_tiles(pixels[:, :1], (2, 3))
    # tile n, cell (row, column): n*100 + row*10 + column; six tiles of 1 x 2 cells in two rows
    maps = torch.tensor([[[[n * 100 + col] for col in range(2)]] for n in range(6)])
    merged = merge_tiles(maps, (2, 3))
    assert merged[..., 0].tolist() == [[0, 1, 100, 101, 200, 201], [300, 301, 400, 401, 500, 501]]
    assert merge_tiles(maps, (3, 2))[1, :, 0].tolist() == [200, 201, 300, 301]
    for n in (4, 8):
        with pytest.raises(ValueError, match="expected 6"):
            merge_tiles(torch.zeros(n, 2, 2, 1), (2, 3))
