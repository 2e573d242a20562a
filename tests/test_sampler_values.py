"""The sampler's steps, one by one, against numbers that are worked out by hand."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

import ferretlite.vision.sampler as sampler_module
from ferretlite.evaluation.speed import PlainSampler, bench_sampler, format_sampler_bench
from ferretlite.regions.geometry import Box, Mask, Point, sample_points
from ferretlite.vision.ferret_v1_sampler import FerretSampler, list_ferret_pixels
from ferretlite.vision.sampler import (
    Aggregator,
    MapFeatures,
    MeanSampler,
    RegionSampler,
    SpatialAwareSampler,
    check_stages,
    compute_expanded_distances,
    compute_pair_rows,
    compute_square_distances,
    find_cell_corners,
    find_central_point,
    find_nearest_points,
    fold_linear_layers,
    gather_points,
    interpolate_features,
    interpolate_region_features,
    make_sampler,
    pick_farthest_points,
    project_points,
    stack_map_cells,
)

# -- looking features up


def test_a_place_reads_the_four_cells_around_it_by_their_nearness():
    # 4 rows of 10: x = .33 * 10 - .5 = 2.8, y = .6 * 4 - .5 = 1.9
    index, weights = find_cell_corners(torch.tensor([0.33, 0.6]), 4, 10)
    assert index.tolist() == [12, 13, 22, 23]
    assert weights.tolist() == pytest.approx([0.02, 0.08, 0.18, 0.72], abs=1e-5)


def test_aligned_places_span_the_centres_of_the_outermost_cells():
    # x = .33 * 9 = 2.97, y = .6 * 3 = 1.8
    index, weights = find_cell_corners(torch.tensor([[0.33, 0.6]]), 4, 10, aligned=True)
    assert index.tolist() == [[12, 13, 22, 23]]
    expected = [0.2 * 0.03, 0.2 * 0.97, 0.8 * 0.03, 0.8 * 0.97]
    assert weights[0].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("aligned", [False, True])
def test_places_beyond_the_outermost_centres_read_the_border(aligned):
    places = torch.tensor([[-0.5, 1.5], [1.5, -0.5], [0.0, 1.0], [1.0, 0.0]])
    for height, width in ((4, 10), (torch.tensor([4] * 4), torch.tensor([10] * 4))):
        index, weights = find_cell_corners(places, height, width, aligned)
        assert index.tolist() == [[30] * 4, [9] * 4] * 2
        assert weights.sum(-1).tolist() == [1] * 4


def test_each_place_may_have_a_map_of_its_own_size():
    places = torch.tensor([[[0.33, 0.6]], [[0.5, 0.45]]])
    index, weights = find_cell_corners(places, torch.tensor([[4], [20]]), torch.tensor([[10], [3]]))
    assert index[0, 0].tolist() == [12, 13, 22, 23]
    # 20 rows of 3: x = 1, y = 8.5
    assert index[1, 0].tolist() == [25, 25, 28, 28]
    assert weights[1, 0].tolist() == pytest.approx([0.5, 0, 0.5, 0], abs=1e-5)


def test_a_feature_is_the_weighted_sum_of_its_cells():
    # cell (row, column) of 4 x 10 holds row*100 + column, and its square root
    cells = torch.arange(4)[:, None] * 100.0 + torch.arange(10)
    found = interpolate_features(torch.stack([cells, cells.sqrt()], -1), torch.tensor([0.33, 0.6]))
    assert found[0].item() == pytest.approx(190 + 2.8, abs=1e-3)
    roots = [102**0.5, 103**0.5, 202**0.5, 203**0.5]
    expected = sum(w * r for w, r in zip([0.02, 0.08, 0.18, 0.72], roots))
    assert found[1].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("dtype, out", [("float16", "float32"), ("float64", "float64")])
def test_looked_up_features_are_float32_or_wider(dtype, out):
    found = interpolate_features(torch.ones(2, 3, 4, dtype=getattr(torch, dtype)), torch.rand(5, 2))
    assert found.dtype == getattr(torch, out) and found.shape == (5, 4)


def test_the_maps_of_a_batch_are_one_table_and_regions_read_their_own():
    maps = [torch.arange(6.0).reshape(2, 3, 1), 10 + torch.arange(4.0).reshape(4, 1, 1)]
    maps.append(20 + torch.arange(2.0).reshape(1, 2, 1))
    counts = [1, 3, 2]
    points = [[0.5, 0.25], [0.75, 0.625], [0.5, 0.875], [0.5, 0.125], [0.75, 0.5], [0.25, 0.5]]
    points = torch.tensor(points)[:, None]
    cells, index, weights = stack_map_cells(maps, points, counts)
    assert cells[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 20, 21]
    # (.5, .25) is the centre of cell 1; of four rows .625, .875 and .125 are rows 2, 3 and 0
    assert [i[0] for i in index[:, 0].tolist()] == [1, 8, 9, 6, 11, 10]
    assert weights[:, 0, 0].tolist() == pytest.approx([1] * 6)
    assert interpolate_region_features(maps, points, counts)[:, 0, 0].tolist() == [
        1,
        12,
        13,
        10,
        21,
        20,
    ]
    # aligned, (.5, .25) is the centre of column 1 and a quarter of the way from row 0 to row 1
    _, index, weights = stack_map_cells(maps, points, counts, True)
    assert index[0, 0].tolist() == [1, 1, 4, 4]
    assert weights[0, 0].tolist() == [0.75, 0, 0.25, 0]


def test_each_region_gathers_its_own_values():
    values = torch.arange(12).reshape(2, 3, 2)
    index = torch.tensor([[2, 0], [1, 1]])
    assert gather_points(values, index).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]
    deep = gather_points(values, index[:, None, :, None])
    assert deep.shape == (2, 1, 2, 1, 2) and deep[1, 0, 0, 0].tolist() == [8, 9]
    assert gather_points(values[:0], index[:0]).shape == (0, 2, 2)


# -- choosing points


def test_squared_distances_by_hand_and_in_float32():
    a, b = torch.tensor([[[0.0, 0], [1, 2]]]), torch.tensor([[[3.0, 4], [1, 0], [0, 2]]])
    assert compute_square_distances(a, b).tolist() == [[[25, 1, 4], [8, 4, 1]]]
    assert compute_square_distances(a.bfloat16(), b.bfloat16()).dtype == torch.float32
    assert compute_expanded_distances(a, b).tolist() == [[[25, 1, 4], [8, 4, 1]]]
    assert compute_expanded_distances(a.bfloat16(), b.bfloat16()).dtype == torch.bfloat16


# a row of points that is bent: (0, 0), (1, 0), (2.2, 1), (10, 2); and another, upright
POINTS = torch.tensor([[[0.0, 0], [1, 0], [2.2, 1], [10, 2]], [[0, 9.0], [0, 0], [1, 4], [1, 0.5]]])


def test_the_central_point_is_the_one_nearest_to_the_mean():
    # means (3.3, .75) and (.5, 3.375)
    assert find_central_point(POINTS).tolist() == [2, 2]
    assert find_central_point(POINTS[:, [2, 0, 1, 3]]).tolist() == [0, 0]


def test_farthest_points_are_picked_one_after_the_other():
    # from (2.2, 1): squares 5.84, 2.44, 0, 61.84 -> 3; then 5.84 -> 0; then (1, 0)
    # from (1, 4): squares 26, 17, 0, 12.25 -> 0; then 17 -> 1; then (1, .5)
    assert pick_farthest_points(POINTS, 4).tolist() == [[2, 3, 0, 1], [2, 0, 1, 3]]
    assert pick_farthest_points(POINTS, 2).tolist() == [[2, 3], [2, 0]]
    # from (0, 0): the last is farthest, then (2.2, 1); from (1, .5): (0, 9), then (1, 4)
    first = torch.tensor([0, 3])
    assert pick_farthest_points(POINTS, 3, first).tolist() == [[0, 3, 2], [3, 0, 2]]


def test_farthest_points_obey_another_distance():
    def by_y(a, b):
        return (a[..., 1:2] - b[..., 1].unsqueeze(1)).abs()

    # from (2.2, 1), distances of y alone: 1, 1, 0, 1 -> the first of equals
    assert pick_farthest_points(POINTS, 2, None, by_y).tolist() == [[2, 0], [2, 0]]


def test_nearest_points_are_the_k_closest_and_the_centre_itself():
    centers = gather_points(POINTS, torch.tensor([[2, 3], [0, 1]]))
    near = find_nearest_points(centers, POINTS, 2).sort(-1).values
    # of (2.2, 1): itself and (1, 0); of (10, 2): itself and (2.2, 1)
    # of (0, 9): itself and (1, 4); of (0, 0): itself and (1, .5)
    assert near.tolist() == [[[1, 2], [2, 3]], [[0, 2], [1, 3]]]


# -- a stage


def test_a_row_is_told_the_difference_first_and_then_the_centre():
    "C = 1: the row of centre (f, x, y) = (7, 1, 0) and neighbour (5, 2.2, 1)."
    points, features = POINTS[:1], torch.tensor([[3.0, 7, 5, 4]])[..., None]
    difference, aggregate = nn.Linear(3, 3), Aggregator(1)
    net = aggregate.net[0]
    with torch.no_grad():
        difference.weight.copy_(torch.diag(torch.tensor([1.0, 10, 100])))
        difference.bias.copy_(torch.tensor([0.0, 0, 1]))
        net.weight.copy_(torch.tensor([[1.0, 2, 4, 8, 16, 32]])[..., None])
        net.bias.fill_(0.5)
    # D: (-2, 12, 101); A: -2 + 24 + 404 + 56 + 16 + 0 + .5 = 498.5
    P, R, c = fold_linear_layers(difference, net)
    z, a = torch.tensor([5, 2.2, 1]), torch.tensor([7.0, 1, 0])
    assert (P @ z + R @ a + c).item() == pytest.approx(498.5, rel=1e-5)
    aggregate.norm = nn.Identity()
    kept, near = torch.tensor([[1]]), torch.tensor([[[2, 1]]])
    rows = compute_pair_rows(points, features, kept, near, difference, aggregate)
    # of the centre itself: D (0, 0, 1); A: 4 + 56 + 16 + .5
    assert rows.shape == (1, 1, 2, 1)
    assert rows.flatten().tolist() == pytest.approx([498.5, 76.5], rel=1e-5)


def test_rows_are_rectified_and_then_normed():
    aggregate = Aggregator(3)
    with torch.no_grad():
        aggregate.norm.weight.copy_(torch.tensor([1.0, 2, 3]))
        aggregate.norm.bias.copy_(torch.tensor([0.0, 10, 20]))
    # (-9, 3, 6) -> (0, 3, 6): mean 3, deviation sqrt(6) -> -1.2247, 0, 1.2247
    found = aggregate(torch.tensor([[-9.0, 3, 6]]))[0].tolist()
    assert found == pytest.approx([-(1.5**0.5), 10, 20 + 3 * 1.5**0.5], abs=1e-4)
    assert aggregate.norm.eps == 1e-5 and aggregate.net[0].in_channels == 10


def test_a_projection_reads_features_and_then_x_and_y():
    weight = torch.tensor([[1.0, 10, 100, 1000]])  # features 2, then x, y
    features = torch.arange(8.0).reshape(1, 4, 2)
    # point 3: 6 + 70 + 1000 + 2000
    assert project_points(features, POINTS[:1], weight)[0, 3].item() == pytest.approx(3076)
    at = torch.tensor([[3, 1]])
    # point 1: 2 + 30 + 100 + 0
    found = project_points(features, POINTS[:1], weight, at)
    assert found[0, :, 0].tolist() == pytest.approx([3076, 132])
    # on a map: points 3 and 1 read the cells 3 and 1 alone
    index = torch.arange(4)[None, :, None].expand(1, 4, 4)
    on_map = MapFeatures(features[0], index, torch.tensor([1.0, 0, 0, 0]).expand(1, 4, 4))
    assert torch.equal(on_map.interpolate(), features)
    assert torch.allclose(project_points(on_map, POINTS[:1], weight, at), found)
    assert torch.allclose(project_points(on_map, POINTS[:1], weight)[0, [3, 1]], found[0])


REGIONS = [[Box(10, 20, 90, 60), Point(150, 40)], [], [Box(3, 100, 30, 190)]]
SIZES = [(80, 200), (50, 60), (240, 40)]
MAPS_OF = [(5, 9), (2, 2), (12, 4)]


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_a_region_in_evaluation_goes_through_the_published_steps(pool):
    "The whole path restated: evenly spread points, farthest points from the middle, two stages."
    torch.manual_seed(0)
    sampler = SpatialAwareSampler(4, 6, 20, (8, 3), (5, 4), pool).eval()
    for p in sampler.parameters():
        nn.init.normal_(p, std=0.5)
    maps = [torch.randn(h, w, 4) for h, w in MAPS_OF]
    found = sampler(maps, REGIONS, SIZES)
    assert [v.shape[0] for v in found] == [2, 0, 1]
    for m, of_image, size, vectors in zip(maps, REGIONS, SIZES, found):
        for region, vector in zip(of_image, vectors):
            points = sample_points(region, size, 20)
            features = nn.functional.grid_sample(
                m.permute(2, 0, 1)[None],
                2 * points[None, None] - 1,
                padding_mode="border",
                align_corners=False,
            )[0, :, 0].T
            for i, (keep, k) in enumerate(((8, 5), (3, 4))):
                distances = torch.cdist(points.double(), points.double())
                middle = (points.double() - points.double().mean(0)).norm(dim=1).argmin()
                kept = [middle.item()]
                while len(kept) < keep:
                    kept.append(distances[:, kept].amin(1).argmax().item())
                z, pooled = torch.cat([features, points], 1), []
                for center in kept:
                    rows = []
                    for other in distances[center].argsort(stable=True)[:k]:
                        told = sampler.diff_projector_list[i](z[other] - z[center])
                        pair = torch.cat([told, z[center]])
                        aggregate = sampler.agg_projector_list[i]
                        row = aggregate.net(pair[None, :, None])[0, :, 0]
                        rows.append(aggregate.norm(row))
                    rows = torch.stack(rows)
                    pooled.append(rows.amax(0) if pool == "max" else rows.mean(0))
                points, features = points[kept], torch.stack(pooled)
            expected = sampler.dim_projector(sampler.flatten_projector(features.flatten()))
            # a tie between neighbours may fall either way, so that a few numbers may differ
            torch.testing.assert_close(vector, expected, atol=1e-3, rtol=1e-3)


# -- sizes, beginnings and dice


def test_sizes_that_a_sampler_has_unless_told():
    with torch.device("meta"):
        sampler = SpatialAwareSampler(4, 6)
        assert MeanSampler(4, 6).n_points == 512
    assert sampler.n_points == 512 and sampler.pool == "max"
    assert (sampler.n_centers, sampler.n_neighbors) == ((128, 32), (24, 24))
    assert sampler_module.MAX_ROW_NUMBERS == 2**24
    assert type(make_sampler(4, 6, n_points=40, n_centers=(4,), n_neighbors=(2,))) is (
        SpatialAwareSampler
    )
    mean = make_sampler(4, 6, "mean", n_points=3)
    assert type(mean) is MeanSampler and mean.n_points == 3
    with pytest.raises(ValueError, match="sampler: found 'median'"):
        make_sampler(4, 6, "median")
    with pytest.raises(ValueError, match="found the option 'pool'"):
        make_sampler(4, 6, "mean", pool="max")
    assert RegionSampler(4, 1).n_points == 1


def test_stages_may_keep_and_ask_all_points_but_no_more():
    check_stages(48, (48, 16), (48, 48))
    check_stages(1, (1,), (1,))
    bad = [(48, (49,), (8,)), (48, (16,), (49,)), (48, (16, 17), (8, 8)), (48, (16, 4), (8, 17))]
    bad += [(48, (0,), (8,)), (48, (16,), (0,)), (48, (), ()), (48, (16, 4), (8,))]
    for arguments in bad:
        with pytest.raises(ValueError, match="expected"):
            check_stages(*arguments)


def test_a_sampler_begins_close_to_plain_pooling():
    torch.manual_seed(0)
    sampler = SpatialAwareSampler(4, 4, 20, (8, 3), (5, 4))
    same, mixed = torch.eye(6), torch.eye(4, 6)
    for difference, aggregate in zip(sampler.diff_projector_list, sampler.agg_projector_list):
        net = aggregate.net[0]
        for extra, inputs in (
            (difference.weight - same, 6),
            (difference.bias, 6),
            (net.weight[..., 0] - torch.cat([mixed, mixed], 1), 12),
            (net.bias - 3, 12),
        ):
            # PyTorch's usual weights lie within 1 / sqrt(inputs); a third of that
            assert 0.1 / inputs**0.5 < extra.abs().max() <= 0.3 / inputs**0.5 + 1e-6
    extra = sampler.flatten_projector.weight - torch.eye(4).repeat(1, 3) / 3
    assert 0.2 / 12**0.5 < extra.abs().max() <= 0.3 / 12**0.5 + 1e-6
    for module in (sampler, MeanSampler(4, 4)):
        assert torch.equal(module.dim_projector.weight, torch.eye(4) / 4)
        assert not module.dim_projector.bias.any()
    other = MeanSampler(4, 6).dim_projector
    assert other.weight.shape == (6, 4) and other.bias.any() and other.weight.std() > 0.1


def test_points_are_drawn_region_by_region_with_the_size_of_their_image():
    sampler = RegionSampler(4, 7).eval()
    points = sampler.draw_points(REGIONS, SIZES)
    expected = [sample_points(r, s, 7) for of, s in zip(REGIONS, SIZES) for r in of]
    assert points.dtype == torch.float32 and torch.equal(points, torch.stack(expected))
    # the box 10-90 x 20-60 of 200 x 80 pixels, and 3-30 x 100-190 of 40 x 240
    first, last = ((0.05, 0.25), (0.45, 0.75)), ((0.075, 5 / 12), (0.75, 19 / 24))
    for i, (low, high) in ((0, first), (2, last)):
        assert (points[i] > torch.tensor(low)).all() and (points[i] < torch.tensor(high)).all()
    assert sampler.draw_points([[], []], SIZES[:2]).shape == (0, 7, 2)


def test_the_dice_of_a_region_depend_on_the_generator_and_the_region_alone():
    sampler, seed = RegionSampler(4, 30).train(), torch.Generator().manual_seed
    box, mask = Box(10, 20, 90, 60), np.zeros((80, 200), bool)
    mask[10:60, 50:120] = True
    together = sampler.draw_points([[box, Mask(mask)], [box]], [(80, 200)] * 2, seed(3))
    assert torch.equal(together[0], together[2])
    assert torch.equal(sampler.draw_points([[box]], [(80, 200)], seed(3))[0], together[0])
    assert torch.equal(sampler.draw_points([[Mask(mask)]], [(80, 200)], seed(3))[0], together[1])
    assert not torch.equal(sampler.draw_points([[box]], [(80, 200)], seed(4))[0], together[0])
    # a second draw of the same generator is another one
    dice = seed(3)
    first, second = (sampler.draw_points([[box]], [(80, 200)], dice)[0] for _ in range(2))
    assert torch.equal(first, together[0]) and not torch.equal(second, first)
    # all digits of a region count, also those that its printed form rounds
    other = Box(10, 20, 90, 60.01)
    assert repr(other) == repr(box)
    assert not torch.allclose(
        sampler.draw_points([[other]], [(80, 200)], seed(3))[0], together[0], atol=1e-3
    )
    # regions of equal shape are not drawn alike
    moved = sampler.draw_points([[Box(20, 20, 100, 60)]], [(80, 200)], seed(3))[0]
    shift = moved - together[0] - torch.tensor([0.05, 0])
    assert shift.abs().max() > 0.01
    # random, not evenly spread
    assert not torch.equal(together[0], sampler.eval().draw_points([[box]], [(80, 200)])[0])


def test_the_mean_sampler_averages_its_points_and_reads_the_mean_linearly():
    torch.manual_seed(0)
    sampler, maps = MeanSampler(4, 6, 9).eval(), [torch.randn(h, w, 4) for h, w in MAPS_OF]
    found = sampler(maps, REGIONS, SIZES)
    assert [tuple(v.shape) for v in found] == [(2, 6), (0, 6), (1, 6)]
    points = sample_points(REGIONS[2][0], SIZES[2], 9)
    mean = interpolate_features(maps[2], points).mean(0)
    expected = sampler.dim_projector.weight @ mean + sampler.dim_projector.bias
    torch.testing.assert_close(found[2][0], expected)


@pytest.mark.parametrize("maps, sizes", [(2, 3), (3, 2), (0, 0)])
def test_there_is_one_map_list_of_regions_and_size_for_each_image(maps, sizes):
    sampler = MeanSampler(4, 6)
    regions = [[]] * (3 if maps else 0)
    with pytest.raises(ValueError, match="one of each per image"):
        sampler([torch.zeros(2, 2, 4)] * maps, regions, [(5, 5)] * sizes)
    with pytest.raises(ValueError, match="expected .h, w, 4."):
        sampler([torch.zeros(1, 2, 2, 4)], [[]], [(5, 5)])
    with pytest.raises(ValueError, match="expected .h, w, 4."):
        sampler([torch.zeros(2, 4)], [[]], [(5, 5)])


# -- the public code's geometry


def test_ferrets_pixels_by_hand():
    size, scale = (30, 40), torch.tensor([40, 30])
    # a point at pixel (20, 10): 11 x 11 around it, column by column
    pixels = (list_ferret_pixels(Point(20.9, 10.2), size) * scale).round().int()
    assert pixels.tolist() == [[x, y] for x in range(15, 26) for y in range(5, 16)]
    # a box from pixel (3, 5) to (6, 6), both included; edges are cut to whole pixels
    pixels = (list_ferret_pixels(Box(3.8, 5.1, 6.2, 6.9), size) * scale).round().int()
    assert pixels.tolist() == [[x, y] for x in range(3, 7) for y in (5, 6)]
    # a mask as it is
    mask = np.zeros(size, bool)
    mask[7, 11] = mask[29, 2] = True
    pixels = (list_ferret_pixels(Mask(mask), size) * scale).round().int()
    assert pixels.tolist() == [[2, 29], [11, 7]]
    assert list_ferret_pixels(Box(3, 5, 6, 6), size).max() < 1


def test_compat_draws_every_pixel_and_some_again_or_a_choice_of_them():
    sampler = SpatialAwareSampler(4, 6, 20, (8, 3), (5, 4), compat="ferret").eval()
    assert isinstance(sampler, FerretSampler)
    few, many = Box(3, 5, 6, 6), Box(0, 0, 39, 29)  # 8 pixels, and 1,200
    points = sampler.draw_points([[few], [many]], [(30, 40)] * 2)
    dice = torch.Generator().manual_seed(0)
    again = torch.randint(0, 8, (12,), generator=dice)
    own = list_ferret_pixels(few, (30, 40))
    assert torch.equal(points[0], torch.cat([own, own[again]]))
    dice = torch.Generator().manual_seed(0)
    own = list_ferret_pixels(many, (30, 40))
    assert torch.equal(points[1], own[torch.randperm(1200, generator=dice)[:20]])
    assert sampler.draw_points([[]], [(30, 40)]).shape == (0, 20, 2)


def test_compat_in_training_obeys_its_generator():
    sampler = SpatialAwareSampler(4, 6, 20, (8, 3), (5, 4), compat="ferret").train()
    maps, regions = [torch.randn(5, 5, 4)], [[Box(3, 5, 30, 26)]]

    def run(seed):
        return sampler(maps, regions, [(30, 40)], torch.Generator().manual_seed(seed))[0]

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))


# -- measuring


def test_the_bench_compares_both_forms_and_says_which_ratio_is_which():
    sizes = dict(n_points=20, n_centers=(8, 3), n_neighbors=(5, 4))
    found = bench_sampler(3, 4, 8, 6, runs=1, **sizes)
    plain, fast = found["plain"], found["fast"]
    for which in ("forward", "backward"):
        ratio = plain[f"{which}_seconds"] / fast[f"{which}_seconds"]
        assert found[f"{which}_speedup"] == pytest.approx(ratio)
    ratio = fast["backward_bytes"] / plain["backward_bytes"]
    assert found["memory_ratio"] == pytest.approx(ratio)
    assert found["difference"] < 1e-4 and found["threads"] == torch.get_num_threads()
    assert plain["backward_bytes"] > plain["forward_bytes"] > 0
    found = bench_sampler(3, 4, 8, 6, False, runs=1, **sizes)
    assert "backward_speedup" not in found and "backward_seconds" not in found["fast"]
    ratio = found["fast"]["forward_bytes"] / found["plain"]["forward_bytes"]
    assert found["memory_ratio"] == pytest.approx(ratio)


def test_the_bench_measures_ferrets_sizes_unless_told():
    defaults = {
        name: p.default
        for name, p in inspect.signature(bench_sampler).parameters.items()
        if p.default is not p.empty
    }
    assert defaults == dict(n=32, grid=24, in_dim=1024, out_dim=4096, backward=True, seed=0, runs=2)


def test_the_table_of_the_bench_names_both_forms():
    found = dict(
        plain=dict(forward_seconds=8.0, forward_bytes=300 * 2**20, backward_seconds=20.0),
        fast=dict(forward_seconds=2.0, forward_bytes=2**20, backward_seconds=5.0),
        forward_speedup=4.0,
        backward_speedup=4.5,
        memory_ratio=0.25,
        difference=2e-6,
        threads=2,
    )
    found["plain"]["backward_bytes"], found["fast"]["backward_bytes"] = 800 * 2**20, 200 * 2**20
    head, plain, fast, last = format_sampler_bench(found).splitlines()
    assert head.split() == "forward and back extra memory".split()
    assert plain.split() == "plain 8.00 s 20.00 s 800 MB".split()
    assert fast.split() == "fast 2.00 s 5.00 s 200 MB".split()
    assert "4.0 times as fast forward, 4.5 times as fast forward and backward" in last
    assert "25% of the memory" in last and "2e-06" in last and "cpu, 2 threads" in last
    del found["backward_speedup"]
    for name in ("plain", "fast"):
        del found[name]["backward_seconds"], found[name]["backward_bytes"]
    _, plain, _, last = format_sampler_bench(found).splitlines()
    assert plain.split() == "plain 8.00 s 300 MB".split() and "backward" not in last


def test_plain_and_fast_have_the_same_parameters():
    def names(cls):
        return [n for n, _ in cls(4, 6, 20, (8, 3), (5, 4)).named_parameters()]

    assert names(PlainSampler) == names(SpatialAwareSampler)
    assert SpatialAwareSampler(4, 6, 20, (8, 3), (5, 4)).flatten_projector.weight.shape == (4, 12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("n", [1, 5])  # fewer points than cells, and more
def test_a_map_of_another_dtype_goes_into_the_samplers_own_numbers(dtype, n):
    sampler = SpatialAwareSampler(4, 6, 20, (8, 3), (5, 4)).eval()
    vectors, *_ = sampler([torch.randn(6, 7, 4).to(dtype)], [[REGIONS[0][0]] * n], SIZES[:1])
    assert vectors.dtype == torch.float32
    vectors, *_ = MeanSampler(4, 6).eval()([torch.randn(6, 7, 4).to(dtype)], [[]], SIZES[:1])
    assert vectors.dtype == torch.float32


@pytest.mark.parametrize("width", [3, 5])
def test_a_map_of_another_width_is_refused(width):
    with pytest.raises(ValueError, match="expected .h, w, 4."):
        MeanSampler(4, 6)([torch.zeros(2, 2, width)], [[]], [(5, 5)])


def test_every_layer_of_a_sampler_has_its_weights():
    with torch.device("meta"):
        names = dict(MeanSampler(4, 6).named_parameters())
        assert {n: tuple(p.shape) for n, p in names.items()} == {
            "dim_projector.weight": (6, 4),
            "dim_projector.bias": (6,),
        }


@pytest.mark.parametrize("seconds", [(9, 5, 3), (9, 3, 5), (1, 5, 3)])
def test_the_quickest_run_counts_but_not_the_one_that_counts_memory(monkeypatch, seconds):
    now, seeds, calls = [0.0], [], []

    def clock():
        calls.append(1)
        if len(calls) % 2 == 0:  # the end of a run
            now[0] += seconds[(len(calls) // 2 - 1) % 3]
        return now[0]

    seed = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda n: seeds.append(n) or seed(n))
    monkeypatch.setattr("time.perf_counter", clock)
    sizes = dict(n_points=20, n_centers=(8, 3), n_neighbors=(5, 4))
    found = bench_sampler(3, 4, 8, 6, seed=7, **sizes)
    assert seeds == [7]
    for name in ("plain", "fast"):
        assert found[name]["forward_seconds"] == found[name]["backward_seconds"] == 3
    assert len(calls) == 2 * 3 * 5
