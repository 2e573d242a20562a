"""A region in any form must read features from where it lies, in every mode and dtype."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ferretlite.vision.sampler as sampler_module
from ferretlite.common.meters import PeakMemory
from ferretlite.evaluation.speed import PlainSampler, bench_sampler
from ferretlite.regions.geometry import Box, Mask, Point, sample_points
from ferretlite.vision.ferret_v1_sampler import FerretSampler, list_ferret_pixels
from ferretlite.vision.fusion import compute_cell_centers, fuse_maps
from ferretlite.vision.resolution import merge_tiles
from ferretlite.vision.sampler import (
    MeanSampler,
    SpatialAwareSampler,
    compute_square_distances,
    find_nearest_points,
    fold_linear_layers,
    gather_points,
    interpolate_features,
    interpolate_region_features,
    make_sampler,
    pick_farthest_points,
    project_points,
)

GRIDS = [(24, 24), (12, 36), (40, 10), (7, 5)]
SIZE = (300, 420)


def blob(size=SIZE):
    "An off-centre triangle: upper right of the image, nothing symmetric about it."
    y, x = np.mgrid[: size[0], : size[1]]
    return Mask((x > 250) & (y > 45) & (x - 250 + 2 * (y - 45) < 110))


REGIONS = {"point": Point(350, 60), "box": Box(280, 40, 360, 90), "mask": blob()}


def small(**kw):
    torch.manual_seed(0)
    return SpatialAwareSampler(12, 20, n_points=48, n_centers=(16, 4), n_neighbors=(8, 4), **kw)


def ramp(grid):
    "A map whose features are its cells' own places, counted in cells."
    return compute_cell_centers(grid) * torch.tensor([grid[1], grid[0]])


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kind", REGIONS)
def test_coordinate_ramp_comes_back_as_the_regions_coordinates(kind, grid):
    points = sample_points(REGIONS[kind], SIZE, 64)
    expected = points * torch.tensor([grid[1], grid[0]])
    half = torch.tensor([0.5, 0.5])
    inside = ((expected >= half) & (expected <= torch.tensor([grid[1], grid[0]]) - half)).all(1)
    assert inside.float().mean() > 0.5
    found = interpolate_features(ramp(grid), points)
    assert (found - expected)[inside].abs().max() < 1e-3
    batched = interpolate_region_features(
        [torch.zeros(3, 4, 2), ramp(grid)], torch.stack([points, points]), [1, 1]
    )[1]
    assert (batched - expected)[inside].abs().max() < 1e-3


@pytest.mark.parametrize("kind", REGIONS)
def test_a_transposed_lookup_would_be_seen(kind):
    points = sample_points(REGIONS[kind], SIZE, 64)
    found, transposed = (
        interpolate_features(ramp((24, 24)), points),
        interpolate_features(ramp((24, 24)), points.flip(-1)),
    )
    assert found[:, 0].mean() > 14 and found[:, 1].mean() < 8  # right, up
    assert (transposed - 24 * points).abs().max() > 5


def test_ramp_survives_tiling_and_fusion():
    "Local tiles merged, plus the upsampled global map: the sum of two ramps is twice the ramp."
    grid, tile = (2, 3), 8
    whole = compute_cell_centers((2 * tile, 3 * tile))
    tiles = whole.reshape(2, tile, 3, tile, 2).permute(0, 2, 1, 3, 4).reshape(6, tile, tile, 2)
    fused = fuse_maps(merge_tiles(tiles, grid), compute_cell_centers((tile, tile)))
    for region in REGIONS.values():
        points = sample_points(region, SIZE, 64)
        assert (interpolate_features(fused, points) / 2 - points).abs().max() < 1e-3


def test_lookup_equals_grid_sample_also_beyond_the_border():
    torch.manual_seed(1)
    m, xy = torch.randn(7, 11, 5), torch.rand(200, 2) * 1.4 - 0.2
    reference = F.grid_sample(
        m.permute(2, 0, 1)[None], 2 * xy[None, None] - 1, padding_mode="border", align_corners=False
    )
    torch.testing.assert_close(
        interpolate_features(m, xy), reference[0, :, 0].T, atol=1e-5, rtol=1e-5
    )


def test_every_vector_comes_from_its_own_image_and_region():
    "Batched equals one at a time, with maps of different sizes and an image without regions."
    sampler = small().eval()
    maps = [torch.randn(*g, 12) for g in [(12, 12), (6, 6), (24, 12), (12, 24)]]
    regions = [
        [REGIONS["point"], REGIONS["box"]],
        [],
        [REGIONS["mask"]],
        [Box(0, 0, 420, 300), Point(1, 299), REGIONS["box"]],
    ]
    together = sampler(maps, regions, [SIZE] * 4)
    assert [tuple(v.shape) for v in together] == [(2, 20), (0, 20), (1, 20), (3, 20)]
    for m, of_image, vectors in zip(maps, regions, together):
        for region, vector in zip(of_image, vectors):
            (alone,) = sampler([m], [[region]], [SIZE])
            torch.testing.assert_close(alone[0], vector, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [SpatialAwareSampler, MeanSampler])
def test_a_region_reads_its_own_place_and_nothing_else(kind):
    torch.manual_seed(0)
    sampler, m = (
        kind(12, 20).eval() if kind is MeanSampler else small().eval(),
        torch.randn(10, 10, 12),
    )
    box, cells = (
        Box(30, 40, 60, 60),
        (slice(3, 7), slice(2, 7)),
    )  # what bilinear lookup inside the box can touch
    (before,) = sampler([m], [[box]], [(100, 100)])
    noise = torch.randn_like(m)
    noise[cells] = 0
    outside, inside = m + noise, m.clone()
    inside[4:6, 3:6] += 1
    torch.testing.assert_close(sampler([outside], [[box]], [(100, 100)])[0], before)
    assert (sampler([inside], [[box]], [(100, 100)])[0] - before).abs().max() > 1e-2


def test_eval_throws_no_dice_and_train_obeys_its_generator():
    sampler, m, args = small(), torch.randn(12, 12, 12), ([list(REGIONS.values())], [SIZE])

    def run(seed):
        return sampler([m], *args, generator=torch.Generator().manual_seed(seed))[0]

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    assert not torch.equal(sampler([m], *args)[0], sampler([m], *args)[0])
    sampler.eval()
    state = torch.get_rng_state()
    assert torch.equal(sampler([m], *args)[0], run(3))
    assert torch.equal(torch.get_rng_state(), state)


def test_parameters_are_those_of_the_public_checkpoint():
    with torch.device("meta"):
        sampler = SpatialAwareSampler(1024, 4096)
    assert sum(p.numel() for p in sampler.parameters()) == 44_069_900
    shapes = {k: tuple(v.shape) for k, v in sampler.state_dict().items()}
    expected = {
        "flatten_projector.weight": (1024, 32768),
        "flatten_projector.bias": (1024,),
        "dim_projector.weight": (4096, 1024),
        "dim_projector.bias": (4096,),
    }
    for i in "01":
        expected |= {
            f"diff_projector_list.{i}.weight": (1026, 1026),
            f"diff_projector_list.{i}.bias": (1026,),
            f"agg_projector_list.{i}.net.0.weight": (1024, 2052, 1),
            f"agg_projector_list.{i}.net.0.bias": (1024,),
            f"agg_projector_list.{i}.norm.weight": (1024,),
            f"agg_projector_list.{i}.norm.bias": (1024,),
        }
    assert shapes == expected


def test_forward_and_backward_stay_on_their_device():
    """The meta device raises on a stray CPU tensor and on .item(): what would break on CUDA breaks
    here.
    """
    with torch.device("meta"):
        sampler = small()
    maps = [torch.empty(8, 8, 12, device="meta"), torch.empty(4, 8, 12, device="meta")]
    vectors = sampler(maps, [list(REGIONS.values()), []], [SIZE, SIZE])
    torch.cat(vectors).sum().backward()
    assert vectors[0].device.type == "meta" and tuple(vectors[0].shape) == (3, 20)


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_folded_stage_equals_the_published_algorithm(pool):
    """Two linear layers per (centre, neighbour) pair, spelled out as Ferret's paper and code have
    them.
    """
    sampler = small(pool=pool)
    for p in sampler.parameters():
        torch.nn.init.normal_(p, std=0.3)
    points, features = torch.rand(3, 48, 2), torch.randn(3, 48, 12)
    centers, found = sampler.aggregate_stage(0, points, features)
    kept = pick_farthest_points(points, 16)
    z = torch.cat([features, points], -1)
    a = gather_points(z, kept)[:, :, None]
    z = gather_points(z, find_nearest_points(centers, points, 8))
    rows = torch.cat([sampler.diff_projector_list[0](z - a), a.expand_as(z)], -1)
    rows = sampler.agg_projector_list[0].net(rows.flatten(1, 2).transpose(1, 2)).transpose(1, 2)
    rows = sampler.agg_projector_list[0].norm(rows).unflatten(1, (16, 8))
    torch.testing.assert_close(
        found, rows.amax(2) if pool == "max" else rows.mean(2), atol=2e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    "grid", [(3, 4), (20, 30)]
)  # fewer cells than points, and more: both ways round
@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-5), (torch.float32, 1e-4)])
def test_plain_and_fast_are_one_function(grid, pool, dtype, close, monkeypatch):
    "Outputs and all gradients, in one piece and region by region."
    fast = small(pool=pool).to(dtype).eval()
    plain = (
        PlainSampler(12, 20, n_points=48, n_centers=(16, 4), n_neighbors=(8, 4), pool=pool)
        .to(dtype)
        .eval()
    )
    for p in fast.parameters():
        torch.nn.init.normal_(p, std=0.3)
    plain.load_state_dict(fast.state_dict())
    m, found = torch.randn(*grid, 12, dtype=dtype), []
    for sampler, most in ((plain, 2**24), (fast, 2**24), (fast, 1)):
        monkeypatch.setattr(sampler_module, "MAX_ROW_NUMBERS", most)
        sampler.zero_grad()
        leaf = m.clone().requires_grad_()
        (vectors,) = sampler([leaf], [list(REGIONS.values())], [SIZE])
        vectors.square().sum().backward()
        found.append([vectors, leaf.grad, *(p.grad.clone() for p in sampler.parameters())])
    for other in found[1:]:
        for a, b in zip(found[0], other):
            torch.testing.assert_close(a, b, atol=close * max(1, a.abs().max().item()), rtol=0)


def test_memory_is_counted_once_per_storage_and_given_back():
    with PeakMemory() as memory:
        kept = torch.ones(256)
        view, twice = kept[:8], kept * 2
        del twice
        assert (memory.now, memory.peak) == (1024, 2048)
        del kept
        assert memory.now == 1024  # the view holds it
        del view
        assert memory.now == 0


@pytest.mark.slow
def test_the_fast_form_is_fast_at_ferrets_size():
    """Four times on any machine, with half of the command's regions; the whole is measured by the
    command.
    """
    found = bench_sampler(n=16, backward=False, runs=1)
    assert (
        found["forward_speedup"] >= 4
        and found["memory_ratio"] <= 0.35
        and found["difference"] < 1e-4
    ), found


def test_the_fast_form_is_fast_in_training_too():
    found = bench_sampler(n=8, in_dim=512, out_dim=1024, runs=1)
    assert (
        found["forward_speedup"] >= 2.5
        and found["backward_speedup"] >= 2
        and found["memory_ratio"] <= 0.8
        and found["difference"] < 1e-4
    ), found


def as_published(sampler, maps, masks, seed):
    """Ferret's region sampler restated from its description, step by step: masks are bool [W, H],
    everything comes from torch's global dice.

    Nothing is shared with the module under test but the parameters."""
    torch.manual_seed(seed)
    points, features, counts = [], [], []
    for m, of_image in zip(maps, masks):
        counts.append(len(of_image))
        for mask in of_image:
            p = mask.nonzero() / torch.tensor(mask.shape)
            n, wanted = len(p), sampler.n_points
            if n < wanted:
                p = torch.cat([p, p[torch.randint(0, n, (wanted - n,))]])
            elif n > wanted:
                p = p[torch.randperm(n)[:wanted]]
            looked_up = F.grid_sample(
                m.permute(2, 0, 1)[None],
                2 * p.flip(-1)[None, None] - 1,
                mode="bilinear",
                padding_mode="zeros",
                align_corners=True,
            )
            points.append(p)
            features.append(looked_up[0, :, 0].T)
    points, features = torch.stack(points), torch.stack(features)
    for i, (S, k) in enumerate(zip(sampler.n_centers, sampler.n_neighbors)):
        B, N = points.shape[:2]
        current, least, picked = torch.randint(0, N, (B,)), torch.full((B, N), 1e10), []
        for _ in range(S):
            picked.append(current)
            least = torch.minimum(
                least, ((points - points[torch.arange(B), current][:, None]) ** 2).sum(-1)
            )
            current = least.max(-1)[1]
        rows = torch.arange(B)[:, None]
        z = torch.cat([features, points], -1)
        a = z[rows, torch.stack(picked, 1)]  # [B, S, C+2]
        q = a[..., -2:]
        d = -2 * torch.matmul(q, points.transpose(1, 2))
        d += torch.sum(q**2, -1)[:, :, None]
        d += torch.sum(points**2, -1)[:, None]
        near = z[
            rows[..., None], d.topk(k, dim=-1, largest=False, sorted=False)[1]
        ]  # [B, S, k, C+2]
        pair = torch.cat(
            [sampler.diff_projector_list[i](near - a[:, :, None]), a[:, :, None].expand_as(near)],
            -1,
        )
        mixed = (
            sampler.agg_projector_list[i].net(pair.flatten(0, 1).transpose(1, 2)).transpose(1, 2)
        )  # [B*S, k, C]
        mixed = sampler.agg_projector_list[i].norm(mixed)
        features = (mixed.max(1)[0] if sampler.pool == "max" else mixed.mean(1)).unflatten(
            0, (B, S)
        )
        points = q
    return sampler.dim_projector(sampler.flatten_projector(features.flatten(1))).split(counts)


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_compat_equals_the_public_code_with_its_dice(pool):
    """Three images, one without regions; a corner point, a box, a blob, a whole image; a square
    map and two that are not.
    """
    sampler = small(compat="ferret", pool=pool).train()
    for p in sampler.parameters():
        torch.nn.init.normal_(p, std=0.3)
    maps = [torch.randn(12, 12, 12), torch.randn(6, 6, 12), torch.randn(12, 24, 12)]
    regions = [[Point(2, 297), Box(280, 40, 360, 90)], [], [blob(), Box(0, 0, 419, 299)]]
    h, w = SIZE

    def dense(x1, y1, x2, y2):
        m = torch.zeros(w, h, dtype=torch.bool)
        m[max(x1, 0) : x2 + 1, max(y1, 0) : y2 + 1] = True
        return m

    masks = [
        [dense(-3, 292, 7, 302), dense(280, 40, 360, 90)],
        [],
        [torch.from_numpy(blob().to_mask(h, w)).T, dense(0, 0, 419, 299)],
    ]
    torch.manual_seed(5)
    found = sampler(maps, regions, [SIZE] * 3)
    expected = as_published(sampler, maps, masks, 5)
    for a, b in zip(found, expected):
        torch.testing.assert_close(
            a, b, atol=1e-5 * max(1.0, expected[0].abs().max().item()), rtol=0
        )
    assert not torch.allclose(found[0], sampler(maps, regions, [SIZE] * 3)[0])  # the dice go on
    assert torch.equal(
        sampler.eval()(maps, regions, [SIZE] * 3)[0], sampler(maps, regions, [SIZE] * 3)[0]
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_compat_chooses_in_the_models_own_precision(dtype):
    """Farthest points and neighbours as the public code picks them from points in half precision,
    where many distances tie.
    """
    sampler = small(compat="ferret").eval()
    torch.manual_seed(0)
    exact = list_ferret_pixels(Box(250, 100, 349, 199), SIZE)[torch.randint(10_000, (2, 48))]
    points = exact.to(dtype)
    kept, near = sampler.choose_neighbors(0, points)
    current, least, picked, rows = kept[:, 0], torch.full((2, 48), 1e10), [], torch.arange(2)
    for _ in range(16):
        picked.append(current)
        least = torch.minimum(
            least, ((points - points[rows, current][:, None]) ** 2).sum(-1).float()
        )
        current = least.max(-1)[1]
    assert torch.equal(kept, torch.stack(picked, 1)) and not torch.equal(
        kept, pick_farthest_points(exact, 16, kept[:, 0])
    )
    seen = sampler.draw_points_on_maps(
        [torch.zeros(4, 4, 12, dtype=dtype)], [[Point(9, 9)]], [SIZE]
    )[0]
    assert seen.dtype == dtype


def test_official_weights_load_by_name_and_bad_ones_are_named():
    one, two = (small(compat="ferret") for _ in range(2))
    assert isinstance(one, FerretSampler)
    for p in one.parameters():
        torch.nn.init.normal_(p)
    official = {f"model.region_geo_sampler.{k}": v for k, v in one.state_dict().items()} | {
        "model.mm_projector.weight": torch.zeros(3)
    }
    two.load_ferret_weights(official)
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values())
    )
    two.load_ferret_weights(one.state_dict())  # without the prefix
    lacking = {k: v for k, v in official.items() if "agg_projector_list.1.norm.bias" not in k}
    with pytest.raises(ValueError, match="found no 'agg_projector_list.1.norm.bias'"):
        two.load_ferret_weights(lacking)
    three = SpatialAwareSampler(12, 20, 48, (16, 8, 4), (8, 8, 4), compat="ferret")
    with pytest.raises(
        ValueError, match="expected a Ferret sampler of 2 stages, which has no such weights"
    ):
        two.load_ferret_weights(
            {f"region_geo_sampler.{k}": v for k, v in three.state_dict().items()}
        )
    with pytest.raises(ValueError, match="twice, expected one Ferret"):
        two.load_ferret_weights(
            official | {f"other.region_geo_sampler.{k}": v for k, v in one.state_dict().items()}
        )
    with pytest.raises(ValueError, match="found a str, expected a dictionary of names"):
        two.load_ferret_weights("ferret.bin")
    with pytest.raises(ValueError, match="of shape .4, 4., expected"):
        two.load_ferret_weights(
            official | {"model.region_geo_sampler.dim_projector.weight": torch.zeros(4, 4)}
        )


def test_ferrets_pixels():
    assert (
        len(list_ferret_pixels(Point(50, 50), (100, 100))) == 121
        and len(list_ferret_pixels(Point(0, 99), (100, 100))) == 36
    )
    assert list_ferret_pixels(Box(1, 2, 2, 2), (4, 5)).mul(
        torch.tensor([5, 4])
    ).round().tolist() == [
        [1, 2],
        [2, 2],
    ]  # x first, the last column belongs
    assert len(list_ferret_pixels(Box(0, 0, 4, 3), (4, 5))) == 20  # clipped


@pytest.mark.parametrize(
    "region",
    [
        Box(5, 5, 6, 6),
        Box(0, 0, 1, 1),
        Box(419, 299, 420, 300),
        Point(0, 0),
        Point(420, 300),
        Box(0, 0, 420, 300),
        Box(10, 10, 10, 10),
    ],
)
def test_degenerate_regions_have_a_vector(region):
    "One pixel, the border, fewer distinct points than centres, the whole image, no extent at all."
    for compat in (None, "ferret"):
        for mode in (True, False):
            (vector,) = small(compat=compat).train(mode)(
                [torch.randn(8, 8, 12)], [[region]], [SIZE]
            )
            assert vector.shape == (1, 20) and vector.isfinite().all()


def test_degenerate_regions_read_where_they_lie():
    "A mean of places, through an identity: the place that was read."
    sampler = MeanSampler(12, 12, n_points=64).eval()
    with torch.no_grad():
        sampler.dim_projector.weight.copy_(torch.eye(12))
        sampler.dim_projector.bias.zero_()
    m, pixel = F.pad(compute_cell_centers((30, 42)), (0, 10)), np.zeros(SIZE, bool)
    pixel[50, 100] = True
    expected = {
        Box(100, 50, 101, 51): (100.5, 50.5),
        Mask(pixel): (100.5, 50.5),
        Box(100.5, 50.5, 100.5, 50.5): (100.5, 50.5),
        Point(420, 300): (415, 295),
        Box(419, 0, 420, 300): (415, 150),
        Box(0, 0, 420, 300): (210, 150),
        Mask(np.ones(SIZE, bool)): (210, 150),
    }
    (vectors,) = sampler([m], [list(expected)], [SIZE])
    for (x, y), found in zip(
        expected.values(), (vectors[:, :2] * torch.tensor([420, 300])).tolist()
    ):
        assert found == pytest.approx([x, y], abs=10 if x == 210 or y == 150 else 0.1)


def test_coordinates_never_go_through_bfloat16():
    weight, points, none = torch.randn(5, 8), torch.rand(2, 9, 2), torch.zeros(2, 9, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = project_points(none, points, weight)
    assert found.dtype == torch.float32 and torch.equal(found, points @ weight[:, -2:].T)


@pytest.mark.parametrize("regions", [["box"], ["box"] * 5])
def test_a_map_of_another_dtype_is_read_all_the_same(regions):
    """With few regions features are looked up first, with many the map is projected first: both go
    into the sampler's own numbers.
    """
    sampler, m = small().eval(), torch.randn(12, 12, 12)
    asked = [[REGIONS[name] for name in regions]]
    (expected,) = sampler([m], asked, [SIZE])
    for dtype in (torch.float64, torch.bfloat16):
        assert torch.allclose(
            sampler([m.to(dtype)], asked, [SIZE])[0],
            expected,
            atol=1e-4 if dtype == torch.float64 else 0.05,
        )
    assert sampler.double()([m], asked, [SIZE])[0].dtype == torch.float64


def test_geometry_stays_float32_under_bfloat16_autocast():
    sampler = small().eval()
    m, box = (
        torch.randn(12, 12, 12),
        Box(400, 280, 411, 291),
    )  # small, in the far corner: where bfloat16 merges points
    seen = []
    stage = sampler.aggregate_stage
    sampler.aggregate_stage = lambda i, points, features: (
        seen.append((points, features)) or stage(i, points, features)
    )
    with torch.autocast("cpu", torch.bfloat16):
        (low,) = sampler([m.bfloat16()], [[box]], [SIZE])
    points, features = seen[0]
    assert points.dtype == features.dtype == torch.float32
    assert len(points[0].unique(dim=0)) == len(sample_points(box, SIZE, 48).unique(dim=0))
    with torch.autocast("cpu", torch.bfloat16):
        assert compute_square_distances(points, points).dtype == torch.float32
        picked = pick_farthest_points(points, 16)
        P, R, c = fold_linear_layers(
            sampler.diff_projector_list[0], sampler.agg_projector_list[0].net[0]
        )
    assert torch.equal(picked, pick_farthest_points(points, 16))
    assert {P.dtype, R.dtype, c.dtype} == {torch.float32}
    (high,) = sampler([m.bfloat16()], [[box]], [SIZE])
    assert (low.float() - high).norm() / high.norm() < 0.05


def test_a_model_cast_to_bfloat16_still_runs():
    sampler = small().bfloat16().eval()
    (vectors,) = sampler([torch.randn(8, 8, 12).bfloat16()], [list(REGIONS.values())], [SIZE])
    assert vectors.dtype == torch.bfloat16 and vectors.isfinite().all()


def test_all_parameters_learn_and_no_regions_still_give_a_graph():
    sampler, m = small(), torch.randn(8, 8, 12, requires_grad=True)
    torch.cat(sampler([m], [[REGIONS["box"]]], [SIZE])).square().sum().backward()
    assert (
        all(p.grad is not None and p.grad.abs().sum() > 0 for p in sampler.parameters())
        and m.grad.abs().sum() > 0
    )
    sampler.zero_grad()
    empty = torch.cat(sampler([m, m], [[], []], [SIZE] * 2))
    empty.sum().backward()
    assert tuple(empty.shape) == (0, 20) and all(p.grad is not None for p in sampler.parameters())


def test_bad_input_gets_one_sentence():
    with pytest.raises(ValueError, match="pool: found 'median'"):
        small(pool="median")
    with pytest.raises(ValueError, match="compat: found 'v1', expected None or 'ferret'"):
        small(compat="v1")
    with pytest.raises(ValueError, match="16 points and asks 99"):
        SpatialAwareSampler(12, 20, 48, (16,), (99,))
    with pytest.raises(ValueError, match="per stage"):
        SpatialAwareSampler(12, 20, 48, (16, 4), (8,))
    with pytest.raises(ValueError, match="expected \\[h, w, 12\\]"):
        small()([torch.zeros(4, 4, 7)], [[]], [SIZE])
    with pytest.raises(ValueError, match="one of each per image"):
        small()([torch.zeros(4, 4, 12)], [[], []], [SIZE])
    with pytest.raises(ValueError, match="expected \\[h, w, 12\\]"):
        small()([torch.zeros(0, 4, 12)], [[]], [SIZE])
    with pytest.raises(ValueError, match="expected a list for each image"):
        small()([torch.zeros(4, 4, 12)], [Point(3, 3)], [SIZE])
    with pytest.raises(ValueError, match="expected the .height, width. of each image"):
        small()([torch.zeros(4, 4, 12)], [[Point(3, 3)]], None)
    with pytest.raises(ValueError, match="at least one point"):
        MeanSampler(12, 20, 0)
    with pytest.raises(TypeError):
        SpatialAwareSampler(
            12, 20, 48, (16, 4), (8, 4), "max", "ferret"
        )  # by name only: it makes another class
    with pytest.raises(ValueError, match="for a PlainSampler"):
        PlainSampler(12, 20, compat="ferret")
    with pytest.raises(ValueError, match="found the option 'npoints'"):
        make_sampler(12, 20, npoints=3)
    assert isinstance(make_sampler(12, 20, compat="ferret"), FerretSampler)
