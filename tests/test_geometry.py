"""Geometry: frames, bins, IoU, run lengths and points, on sizes that are not square and places off
the diagonal
"""

import pickle

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ferretlite import Ferret, make_scene
from ferretlite.common.errors import InputError
from ferretlite.regions import run_lengths
from ferretlite.regions.geometry import (
    _GOLDEN_RATIO,
    N_BINS,
    Box,
    Mask,
    Point,
    box_iou,
    check_region,
    decode_box,
    encode_box,
    encode_region,
    from_bins,
    from_unit,
    sample_points,
    stack_boxes,
    to_bins,
    to_unit,
)
from ferretlite.regions.run_lengths import decode_rle, encode_rle

few = settings(max_examples=25, derandomize=True, deadline=None, database=None)
sizes = st.tuples(st.integers(1, 60), st.integers(1, 60))


@st.composite
def boxes(draw, size, spill=0):
    h, w = size
    x1, x2 = sorted(draw(st.tuples(*[st.floats(-spill, w + spill)] * 2)))
    y1, y2 = sorted(draw(st.tuples(*[st.floats(-spill, h + spill)] * 2)))
    return Box(x1, y1, x2, y2)


@st.composite
def masks(draw):
    h, w = draw(sizes)
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    smooth = np.add.outer(rng.random(h).cumsum(), rng.random(w).cumsum()) % draw(
        st.sampled_from([0.7, 3, 1000])
    )
    return smooth < draw(st.floats(0, 1)) * (smooth.max() + 1e-9)


@st.composite
def regions(draw):
    mask = draw(masks().filter(np.any))
    h, w = mask.shape
    point = Point(draw(st.floats(0, w)), draw(st.floats(0, h)))
    return draw(st.sampled_from([Mask(mask), point, draw(boxes((h, w)))])), (h, w)


# frames


@few
@given(st.data(), sizes)
def test_unit_frame_and_back_gives_the_same_pixels(data, size):
    box = data.draw(boxes(size))
    there = to_unit(torch.tensor(box.list(), dtype=torch.float64), size)
    assert there.dtype == torch.float64 and (there <= 1).all() and (there >= 0).all()
    assert from_unit(there, size).tolist() == pytest.approx(box.list(), abs=1e-9)


def test_x_is_divided_by_width_and_y_by_height():
    assert to_unit([[100, 100]], (200, 1000)).tolist() == [[pytest.approx(0.1), 0.5]]
    assert to_unit(np.array([10, 20, 30, 40]), (80, 40)).tolist() == [0.25, 0.25, 0.75, 0.5]
    assert encode_box(Box(10, 20, 30, 40), (80, 40)) == [250, 250, 750, 500]
    assert encode_region(Point(10, 20), (80, 40)) == [250, 250]


def test_lists_and_low_precision_become_float32():
    for xy in (
        [1, 2],
        torch.tensor([1, 2]),
        torch.tensor([1, 2], dtype=torch.bfloat16),
        np.array([1, 2], dtype=np.float16),
    ):
        assert to_unit(xy, (4, 4)).dtype == torch.float32


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5,), (5, 5, 3), (float("nan"), 5)])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="height, width"):
        to_unit([1, 2], size)


# bins


@few
@given(st.data(), sizes)
def test_boxes_come_back_within_half_a_bin(data, size):
    box = data.draw(boxes(size))
    back, (h, w) = decode_box(encode_box(box, size), size), size
    assert all(
        abs(a - b) <= side / 2000 * (1 + 1e-9)
        for a, b, side in zip(back.list(), box.list(), (w, h, w, h))
    )
    assert encode_box(back, size) == encode_box(box, size)


def test_decoding_has_no_bias_to_the_upper_left():
    u = torch.rand(20000, generator=torch.Generator().manual_seed(0))
    error = (from_bins(to_bins(u)) - u) * 1000
    assert abs(error.mean()) < 0.01 and error.abs().max() < 0.501


@few
@given(st.floats(0, 1) | st.sampled_from([1.0, np.nextafter(1, 0), 1 + 1e-6]))
def test_bin_1000_never_appears(u):
    assert 0 <= to_bins(u).item() <= 999


def test_bins_do_not_depend_on_the_float_type():
    for n in (100, 480, 640, 1000, 1022):
        pixels = torch.arange(n)
        exact = pixels * 1000 // n
        assert torch.equal(to_bins(pixels / n), exact) and torch.equal(
            to_bins(pixels.double() / n), exact
        )


@pytest.mark.parametrize(
    "bins", [[1, 2, 3], [1, 2, 3, 4, 5], [0, 0, 0, 1000], [-1, 0, 5, 5], [9, 0, 5, 5], [0, 9, 5, 5]]
)
def test_bins_that_are_no_box_are_refused(bins):
    with pytest.raises(ValueError):
        decode_box(bins, (10, 10))


def test_numbers_that_no_place_has_are_refused():
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            Point(bad, 0)
        with pytest.raises(ValueError):
            Box(0, 0, bad, 1)
        with pytest.raises(ValueError):
            to_bins([bad])
    with pytest.raises(InputError):
        Point("1", 2)
    with pytest.raises(InputError):
        Point(None, 2)


# boxes


def test_ends_are_not_inclusive():
    box = Box(2, 1, 6, 4)
    assert (box.width, box.height, box.area) == (4, 3, 12) and box.to_mask(6, 9).sum() == 12
    assert box.to_mask(6, 9)[1:4, 2:6].all()
    assert Mask(box.to_mask(6, 9)).box() == box


@few
@given(st.data(), sizes)
def test_boxes_that_share_an_edge_share_no_pixel_and_leave_none_out(data, size):
    h, w = size
    edge = data.draw(st.floats(1, w)) if w > 1 else 1.0
    assume(edge <= w - 0.5)
    left, right = Box(0, 0, edge, h).to_mask(h, w), Box(edge, 0, w, h).to_mask(h, w)
    assert not (left & right).any() and (left | right).all()


@few
@given(st.data(), sizes)
def test_pixels_of_a_box_are_those_whose_centre_it_holds(data, size):
    h, w = size
    box = data.draw(boxes(size, spill=20))
    assume(box.x2 > 0 and box.y2 > 0 and box.x1 < w and box.y1 < h)
    y, x = np.mgrid[:h, :w] + 0.5
    plain = (x >= box.x1) & (x < box.x2) & (y >= box.y1) & (y < box.y2)
    assert (
        (box.to_mask(h, w) == plain).all()
        if plain.any()
        else 1 <= box.to_mask(h, w).sum() <= max(h, w)
    )


def test_iou_by_hand_and_against_pixels():
    assert box_iou([Box(0, 0, 2, 2)], [Box(1, 0, 3, 2)]).item() == pytest.approx(1 / 3)
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 20, (12, 2, 2)), axis=1).reshape(
        12, 4
    )  # x1 y1 x2 y2, some without area
    a, b = [Box(*c) for c in corners[:6]], corners[6:]
    for i, row in enumerate(box_iou(a, b).tolist()):
        for j, iou in enumerate(row):
            m, n = (np.zeros((20, 20), bool) for _ in range(2))
            m[corners[i][1] : corners[i][3], corners[i][0] : corners[i][2]] = n[
                b[j][1] : b[j][3], b[j][0] : b[j][2]
            ] = True
            assert iou == pytest.approx((m & n).sum() / max((m | n).sum(), 1), abs=1e-6)


def test_iou_of_nothing():
    assert box_iou([], []).shape == (0, 0) and box_iou(
        torch.zeros(0, 4), [Box(0, 0, 1, 1)]
    ).shape == (0, 1)
    assert box_iou(Box(1, 1, 1, 1), Box(1, 1, 1, 1)).item() == 0
    for bad in ([[1, 2, 3]], [1, 2, 3, 4], [[5, 5, 1, 1]], [[0, 0, float("nan"), 1]]):
        with pytest.raises(ValueError):
            stack_boxes(bad)


# masks


@few
@given(masks())
def test_rle_equals_pycocotools(mask):
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = encode_rle(mask)
    assert ours == {"size": list(mask.shape), "counts": theirs["counts"].decode()}
    assert (decode_rle(theirs) == mask).all() and (decode_rle(ours) == mask).all()
    assert Mask(mask).area == coco.area(theirs) and Mask(theirs) == Mask(mask)
    if mask.any():
        assert (
            Mask(mask).box().list()
            == np.array([1, 1, 1, 1])
            * [*coco.toBbox(theirs)[:2], *(coco.toBbox(theirs)[:2] + coco.toBbox(theirs)[2:])]
        ).all()


def test_rle_equals_pycocotools_on_large_counts():
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.zeros((1500, 2000), dtype=bool)
    mask[0, 0] = mask[700:702, 900:1100] = mask[-1, -1] = True
    assert (
        encode_rle(mask)["counts"]
        == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    )
    assert (decode_rle(encode_rle(mask)) == mask).all()


def test_the_three_forms_of_counts_are_one_mask():
    array = np.array([[0, 1, 1], [0, 1, 0]], dtype=bool)
    text = encode_rle(array)["counts"]
    for counts in ([2, 3, 1], [2, 1, 0, 2, 1], [0, 0, 2, 3, 1, 0], text, text.encode()):
        mask = Mask({"size": [2, 3], "counts": counts})
        assert (
            mask == Mask(array)
            and hash(mask) == hash(Mask(array))
            and (mask.to_mask(2, 3) == array).all()
        )
    assert Mask(torch.tensor(array)) == Mask(array) == Mask(array.astype(np.uint8) * 255)


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [2, 3]},
        {"size": [2], "counts": [6]},
        {"size": [2, 3], "counts": [5]},
        {"size": [2, 3], "counts": [7, -1]},
        {"size": [2, 3], "counts": []},
        {"size": [2, 3], "counts": ""},
        {"size": [2, 3], "counts": "P"},
        {"size": [2, 3], "counts": "é"},
        {"size": [2, 3], "counts": "o" * 40 + "0"},
        {"size": [2, 3], "counts": [[0, 0, 1, 1]]},
        {"size": [2, 3], "counts": ["a"]},
        {"size": [2, 3], "counts": None},
        {"size": None, "counts": [6]},
        {"size": "23", "counts": [6]},
    ],
)
def test_a_damaged_rle_is_one_clear_error(rle):
    with pytest.raises(ValueError, match="expected"):
        decode_rle(rle)
    with pytest.raises(ValueError, match="expected"):
        Mask(rle)


@few
@given(st.text(max_size=12) | st.binary(max_size=12))
def test_any_text_as_counts_is_read_or_refused(counts):
    try:
        assert decode_rle({"size": [3, 4], "counts": counts}).shape == (3, 4)
    except ValueError:
        pass


def test_mask_rows_are_y():
    array = np.zeros((48, 64), dtype=bool)
    array[2, 60] = True
    assert Mask(array).box() == Box(60, 2, 61, 3)
    assert sample_points(Mask(array), (48, 64), 1).tolist() == [
        [60.5 / 64, pytest.approx(2.5 / 48)]
    ]
    with pytest.raises(ValueError):
        Mask(array).to_mask(64, 48)


# regions


@few
@given(regions(), st.integers(1, 40), st.booleans())
def test_points_lie_inside_their_region(region_and_size, n, random):
    region, (h, w) = region_and_size
    generator = torch.Generator().manual_seed(0) if random else None
    points = sample_points(region, (h, w), n, generator)
    assert points.shape == (n, 2) and points.dtype == torch.float32
    columns, rows = (points * torch.tensor([w, h])).floor().long().T.numpy()
    mask = region.to_mask(h, w)
    assert mask[rows, columns].all()
    if mask.sum() >= n:
        assert len(set(zip(rows, columns))) == n
    elif generator is None:
        assert len(set(zip(rows, columns))) == mask.sum()  # all of them, if there are too few


@few
@given(regions(), st.integers(1, 40))
def test_a_region_and_its_mask_give_the_same_points(region_and_size, n):
    region, size = region_and_size
    assert torch.equal(
        sample_points(region, size, n), sample_points(Mask(region.to_mask(*size)), size, n)
    )


@pytest.mark.parametrize(
    "shape", [(64, 128), (64, 1024), (1024, 64), (512, 512), (1, 900), (33, 77)]
)
def test_points_spread_over_both_axes(shape):
    h, w = shape
    points = sample_points(Box(0, 0, w, h), shape, 512)
    for axis, side in ((0, w), (1, h)):
        filled = (points[:, axis] * min(side, 16)).floor().unique()
        assert len(filled) == min(side, 16)  # no empty sixteenth on either axis
        assert abs(points[:, axis].mean() - 0.5) < 0.02


def test_random_points_are_uniform_and_follow_the_generator():
    box, size = Box(10, 20, 30, 80), (100, 50)

    def draw(seed):
        return sample_points(box, size, 400, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
    mean = torch.stack([from_unit(draw(seed), size).mean(0) for seed in range(20)]).mean(0)
    assert mean.tolist() == pytest.approx([20, 50], abs=0.6)


def test_a_ramp_comes_back_as_the_coordinates():
    h, w = 24, 60
    ramp = torch.stack(
        torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij"), -1
    ).flip(-1)  # [h, w, 2]: x, y
    yy, xx = np.mgrid[:h, :w]
    for region in (
        Point(50, 3),
        Box(44.2, 1, 58, 6.7),
        Mask((xx > 40) & (yy < 9) & (xx + yy > 48)),
    ):
        points = from_unit(sample_points(region, (h, w), 64), (h, w))
        assert (ramp[points[:, 1].long(), points[:, 0].long()] - points).abs().max() < 1e-3


def test_a_point_reaches_a_disc_and_never_nothing():
    assert Point(5, 5).to_mask(10, 10).sum() == 1 and Point(4.5, 5.5).to_mask(10, 10)[5, 4]
    disc = Point(320, 120).to_mask(480, 640)  # radius 2.4 px
    assert 12 <= disc.sum() <= 24 and Mask(disc).box().center() == Point(320, 120)
    for corner in (Point(0, 0), Point(640, 0), Point(0, 480), Point(640, 480)):
        assert corner.to_mask(480, 640).any()


def test_a_region_outside_its_image_is_refused():
    size = (48, 64)
    for bad in (
        Point(64.1, 3),
        Point(3, 48.1),
        Box(64, 0, 70, 5),
        Box(-5, 0, 0, 5),
        Box(0, 50, 5, 60),
        Mask(np.ones((64, 48), bool)),
        Mask(np.zeros(size, bool)),
    ):
        with pytest.raises(ValueError):
            check_region(bad, size)
        with pytest.raises(ValueError):
            sample_points(bad, size, 4)
    with pytest.raises(InputError):
        check_region("1,2,3,4", size)
    assert check_region([1, 2, 3, 4], size) == Box(1, 2, 3, 4)
    assert check_region(Box(-5, -5, 100, 20), size) == Box(0, 0, 64, 20)
    assert check_region(Point(64, 48), size) == Point(64, 48) and check_region(
        Box(3, 3, 3, 3), size
    ) == Box(3, 3, 3, 3)


# values worked out by hand: every axis, edge and count differs


@pytest.mark.parametrize("field", ["x1", "y1", "x2", "y2"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), "3", b"3", None])
def test_every_edge_of_a_box_must_be_a_finite_number(field, bad):
    edges = dict(x1=1, y1=2, x2=3, y2=4) | {field: bad}
    with pytest.raises(InputError, match=f"{field}: found"):
        Box(**edges)


def test_both_coordinates_of_a_point_must_be_finite_numbers():
    for bad in (dict(x=0, y=float("nan")), dict(x=float("inf"), y=0)):
        with pytest.raises(ValueError):
            Point(**bad)
    for bad in (dict(x=0, y="1"), dict(x=b"1", y=0)):
        with pytest.raises(InputError):
            Point(**bad)


def test_whole_numbers_become_floats():
    assert [type(v) for v in Box(np.int64(1), 2, True, 4).list()] == [float] * 4
    assert [type(v) for v in (Point(1, 2).x, Point(1, 2).y)] == [float] * 2


def test_a_box_by_hand():
    box = Box(2, 5, 10, 6.5)
    assert (box.width, box.height, box.area) == (8, 1.5, 12)
    assert box.list() == [2, 5, 10, 6.5] and box.box() is box
    assert box.center() == Point(6, 5.75)
    assert Point(3, 7).box() == Box(3, 7, 3, 7)
    for edges in ((3, 0, 2.9, 9), (0, 3, 9, 2.9)):
        with pytest.raises(ValueError, match="<="):
            Box(*edges)
    assert Box(3, 4, 3, 4).area == 0


def test_clipping_uses_width_for_x_and_height_for_y():
    assert Box(-5, -6, 100, 60).clip((48, 64)) == Box(0, 0, 64, 48)
    assert Box(3, 5, 60, 40).clip((48, 64)) == Box(3, 5, 60, 40)
    assert Box(70, 50, 80, 55).clip((48, 64)) == Box(64, 48, 64, 48)
    assert Box(-9, -8, -7, -6).clip((48, 64)) == Box(0, 0, 0, 0)


@pytest.mark.parametrize(
    "edges, columns",
    [
        ((1.5, 3.5), [1, 2]),  # centres 1.5 and 2.5: the left edge counts, the right one does not
        ((1.51, 3.49), [2]),
        ((1.49, 3.51), [1, 2, 3]),
        ((2.6, 3.2), [2]),  # no centre: the pixel in the middle, 2.9
        ((2.8, 3.4), [3]),  # 3.1
        ((2.6, 3.6), [3]),
        ((3.1, 3.3), [3]),
        ((-9, 0.3), [0]),
        ((-1, 0), [0]),
        ((-9, 2), [0, 1]),
        ((7.7, 99), [7]),  # the image is 8 pixels wide
        ((8, 9), [7]),
        ((-3, 99), [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_which_columns_and_rows_a_box_owns(edges, columns):
    low, high = edges
    assert np.flatnonzero(Box(low, 1, high, 3).to_mask(5, 8).any(0)).tolist() == columns
    assert np.flatnonzero(Box(1, low, 3, high).to_mask(8, 5).any(1)).tolist() == columns


@pytest.mark.parametrize(
    "edges", [(-3, 0, -0.1, 5), (0, -3, 5, -0.1), (8.1, 0, 9, 5), (0, 5.1, 5, 9)]
)
def test_a_box_beyond_the_image_owns_no_pixels(edges):
    with pytest.raises(ValueError, match="touch the image"):
        Box(*edges).to_mask(5, 8)


def test_runs_are_counted_down_the_columns():
    assert Box(2, 1, 4, 4).pixel_runs(5, 8).tolist() == [[11, 3], [16, 3]]  # 2 * 5 + 1, 3 * 5 + 1
    assert Point(6.5, 2.5).pixel_runs(5, 8).tolist() == [[32, 1]]  # 6 * 5 + 2


@pytest.mark.parametrize(
    "size, radius", [((600, 1000), 3.0), ((1000, 600), 3.0), ((80, 90), 0.5), ((480, 640), 2.4)]
)
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.5), (0.3, 0.75), (0.5, 0.0), (0.0, 0.5)])
def test_a_point_owns_the_pixels_within_its_radius(size, radius, shift):
    "Radius: 0.5 px, or 0.5 % of the shorter side."
    h, w = size
    point = Point(w // 2 + shift[0], h // 5 + shift[1])
    y, x = np.mgrid[:h, :w] + 0.5
    disc = (x - point.x) ** 2 + (y - point.y) ** 2 <= radius**2 + 1e-9
    if not disc.any():
        disc[h // 5, w // 2] = True
    assert (point.to_mask(h, w) == disc).all()


def test_a_point_at_the_border_keeps_to_the_image():
    assert np.argwhere(Point(8, 5).to_mask(5, 8)).tolist() == [[4, 7]]
    assert np.argwhere(Point(0, 5).to_mask(5, 8)).tolist() == [[4, 0]]
    assert np.argwhere(Point(8, 0).to_mask(5, 8)).tolist() == [[0, 7]]
    assert np.argwhere(Point(3, 4).to_mask(10, 10)).tolist() == [[4, 3]]  # a corner of four pixels
    y, x = np.mgrid[:600, :900] + 0.5
    disc = (x - 899) ** 2 + (y - 1.5) ** 2 <= 9
    assert (Point(899, 1.5).to_mask(600, 900) == disc).all()


def test_frames_by_hand():
    xy = [[32.0, 12.0], [8.0, 30.0]]
    unit = [[0.5, 0.25], [0.125, 0.625]]  # 64 wide, 48 high
    assert to_unit(xy, (48, 64)).tolist() == unit and from_unit(unit, (48, 64)).tolist() == xy
    assert from_unit([0.5, 0.25, 0.75, 1.0], (48, 64)).tolist() == [32, 12, 48, 48]
    assert from_unit(torch.ones(2, 1, 3, 4), (3, 7)).shape == (2, 1, 3, 4)
    assert from_unit(np.array([0.1, 0.1]), (4, 4)).dtype == torch.float64
    for bad in (3.0, [1.0], [1.0, 2, 3], np.zeros((4, 3))):
        with pytest.raises(ValueError, match="expected"):
            to_unit(bad, (48, 64))


@pytest.mark.parametrize("size", [(1e-9, 5), (5, 1e-9)])
def test_any_positive_size_is_one(size):
    assert to_unit([0, 0], size).tolist() == [0, 0]


@pytest.mark.parametrize(
    "size", [(0, 5), (5, 0), (-1, 5), (float("inf"), 5), (5, float("inf")), None, 5, ("a", "b")]
)
def test_a_side_that_is_none_is_refused_on_both_axes(size):
    with pytest.raises(ValueError, match="height, width"):
        to_unit([1, 2], size)
    with pytest.raises(ValueError, match="height, width"):
        encode_box(Box(0, 0, 1, 1), size)
    with pytest.raises(ValueError, match="height, width"):
        decode_box([1, 2, 3, 4], size)


def test_bins_by_hand():
    assert N_BINS == 1000
    bins = to_bins([[0.0, 0.0009999, 0.001], [0.29, 0.5, 0.9999]])
    assert bins.tolist() == [[0, 0, 1], [290, 500, 999]] and bins.dtype == torch.int64
    assert to_bins([-0.3, 1.0, 1.7]).tolist() == [0, 999, 999]
    unit = from_bins([[0, 1], [499, 999]])
    assert unit.dtype == torch.float32
    assert unit.flatten().tolist() == pytest.approx([0.0005, 0.0015, 0.4995, 0.9995])


def test_boxes_and_their_bins_by_hand():
    size = (480, 640)
    assert encode_box(Box(40, 60, 120, 160), size) == [62, 125, 187, 333]  # 62.5, 125, 187.5, 333.3
    assert encode_box(Box(0, 0, 640, 480), size) == [0, 0, 999, 999]
    assert encode_box(Box(-9, -9, 900, 900), size) == [0, 0, 999, 999]
    assert decode_box([62, 125, 187, 333], size).list() == pytest.approx([40, 60.24, 120, 160.08])
    assert decode_box([0, 0, 999, 999], size).list() == pytest.approx([0.32, 0.24, 639.68, 479.76])
    assert decode_box([5, 7, 5, 7], size).list() == pytest.approx([3.52, 3.6, 3.52, 3.6])
    assert encode_region(Point(40, 60), size) == [62, 125]
    assert encode_region(Box(40, 60, 120, 160), size) == [62, 125, 187, 333]


@pytest.mark.parametrize(
    "bins", [[1000, 0, 1000, 5], [0, 1000, 5, 1000], [0, 0, 5, 1000], [0, -1, 5, 5], [-1, 0, 5, 5]]
)
def test_bins_end_at_999(bins):
    with pytest.raises(ValueError, match="0 to 999"):
        decode_box(bins, (10, 20))


def test_boxes_whole_pixels_apart_get_the_exact_bin():
    for h, w in ((77, 1023), (1021, 300), (49, 2999), (7, 1111)):
        for k in range(min(h, w)):
            x, y = k * w // min(h, w), k * h // min(h, w)
            assert encode_box(Box(x, y, x, y), (h, w))[:2] == [x * 1000 // w, y * 1000 // h]
    # 22.4 / 640 = .035 and 40.8 / 480 = .085, of which floats make 34.999... and 84.999...
    # thousandths
    assert encode_box(Box(22.4, 40.8, 163.2, 163.2), (480, 640)) == [35, 85, 255, 340]


def test_boxes_in_every_form_are_one_tensor():
    rows = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 9.0]]
    forms = (
        [Box(*row) for row in rows],
        tuple(Box(*row) for row in rows),
        [Box(*rows[0]), rows[1]],
        rows,
        np.array(rows),
        torch.tensor(rows, dtype=torch.float64),
    )
    for form in forms:
        boxes = stack_boxes(form)
        assert boxes.dtype == torch.float32 and boxes.tolist() == rows
    assert stack_boxes(Box(*rows[1])).tolist() == rows[1:]
    assert stack_boxes([]).shape == stack_boxes(()).shape == (0, 4)
    assert stack_boxes([[3, 4, 3, 4]]).tolist() == [[3, 4, 3, 4]]
    for bad in (
        [[1, 5, 2, 4]],
        [[5, 1, 4, 2]],
        torch.zeros(2, 5),
        torch.zeros(4),
        torch.zeros(1, 2, 4),
    ):
        with pytest.raises(ValueError, match="found"):
            stack_boxes(bad)


def test_iou_rows_are_the_first_boxes_and_columns_the_second():
    a = [Box(0, 0, 4, 2), Box(10, 0, 12, 6)]  # areas 8 and 12
    b = [Box(2, 1, 6, 5), Box(0, 0, 4, 2), Box(11, 2, 15, 5)]  # areas 16, 8 and 12
    expected = [[2 / 22, 1, 0], [0, 0, 3 / 21]]  # shared 2 of 8 + 16 - 2, 3 of 12 + 12 - 3
    for row, numbers in zip(box_iou(a, b).tolist(), expected, strict=True):
        assert row == pytest.approx(numbers)
    assert box_iou(Box(0, 0, 0, 5), Box(0, 0, 2, 5)).item() == 0
    assert box_iou([Box(0, 0, 0.2, 0.1)], [Box(0, 0, 0.1, 0.1)]).item() == pytest.approx(0.5)


def test_run_lengths_by_hand():
    "[[0, 1, 1], [0, 1, 0]] down its columns: 0 0 1 1 1 0."
    array = np.array([[0, 1, 1], [0, 1, 0]], dtype=bool)
    assert encode_rle(array) == {"size": [2, 3], "counts": "231"}
    assert (decode_rle({"size": [2, 3], "counts": [2, 3, 1]}) == array).all()
    assert decode_rle({"size": [3, 2], "counts": [0, 1, 5]}).tolist() == [[1, 0], [0, 0], [0, 0]]
    assert encode_rle([[True, False, False]]) == {"size": [1, 3], "counts": "012"}
    assert encode_rle(np.zeros((4, 8), bool)) == {"size": [4, 8], "counts": "P1"}  # 32: 0, then 1
    # from the fourth count on, the difference to the one two before: 4, 5, 6, 3 - 5 = -2
    assert encode_rle(np.repeat([0, 1, 0, 1], [4, 5, 6, 3])[None] == 1)["counts"] == "456N"


def test_what_is_no_mask_is_refused():
    for bad in (np.zeros((2, 3)), np.array([["a"]])):
        with pytest.raises(InputError, match="booleans or whole numbers"):
            encode_rle(bad)
    for bad in (
        np.zeros(4, bool),
        np.zeros((1, 2, 3), bool),
        np.zeros((0, 4), bool),
        np.zeros((4, 0), bool),
    ):
        with pytest.raises(ValueError, match="expected"):
            encode_rle(bad)


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [2, 3], "counts": "v"},  # 70: six bits hold 0 to 63
        {"size": [2, 3], "counts": "131\x0e"},  # -34
        {"size": [2, 3], "counts": [2.0, 4.0]},
        {"size": [2.0, 3.0], "counts": [2, 4]},
        {"size": [2, 3], "counts": [2, 5]},
        {"size": [2, 3], "counts": [-2, 8]},
        {"counts": [6]},
        {"size": [0, 3], "counts": []},
        {"size": [2, 3], "counts": "VPPPPPP0"},  # 6 in eight characters
    ],
)
def test_counts_that_do_not_fill_the_image_are_refused(rle):
    with pytest.raises(ValueError, match="expected"):
        decode_rle(rle)


def test_a_count_may_have_seven_characters():
    assert (
        decode_rle({"size": [2, 3], "counts": "VPPPPP0"}).sum() == 0
    )  # 6, and six groups of zeros


def test_a_mask_knows_its_size_area_and_box():
    array = np.zeros((4, 6), dtype=bool)
    array[1:3, 2:5] = True
    array[0, 3] = True
    mask = Mask(array)
    assert (mask.size, mask.area, mask.box()) == ((4, 6), 7, Box(2, 0, 5, 3))
    assert repr(mask) == "Mask(4 x 6, 7 pixels)"
    assert mask != Mask(~array) and mask != Mask(array.T) and mask != "mask" and mask != mask.rle
    assert hash(mask) != hash(Mask(~array))
    assert mask.pixel_runs(4, 6).tolist() == [[9, 2], [12, 3], [17, 2]]
    for size in ((6, 4), (4, 5), (5, 6)):
        with pytest.raises(ValueError, match="size"):
            mask.pixel_runs(*size)
    with pytest.raises(ValueError, match="without a pixel"):
        Mask(np.zeros((4, 6), bool)).box()


def test_a_region_is_printed_to_a_tenth_of_a_pixel_and_keeps_all_digits():
    box = Box(138.816, 277.05600000000004, 234.81600000000003, 303.168)
    assert repr(box) == str(box) == "Box(x1=138.8, y1=277.1, x2=234.8, y2=303.2)"
    assert box.list() == [138.816, 277.05600000000004, 234.81600000000003, 303.168]
    assert box != Box(138.8, 277.1, 234.8, 303.2)
    assert repr(Point(0.04, 12)) == "Point(x=0.0, y=12.0)"


def test_a_run_past_the_foot_of_a_column_spans_the_whole_height():
    array = np.zeros((4, 6), dtype=bool)
    array[3, 1] = array[0, 2] = True
    assert Mask(array).box() == Box(1, 0, 3, 4)
    array = np.zeros((4, 6), dtype=bool)
    array[2:, 1] = array[:, 2] = array[3, 4] = True
    assert Mask(array).box() == Box(1, 0, 5, 4)


def test_boxes_of_masks_equal_what_numpy_finds():
    rng = np.random.default_rng(5)
    for share in (0.02, 0.1, 0.5, 0.95):
        array = rng.random((7, 11)) < share
        array[4, 8] = True
        rows, columns = np.nonzero(array)
        mask = Mask(array)
        assert mask.box() == Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert mask.area == array.sum()


def test_which_regions_touch_their_image():
    size = (48, 64)
    assert check_region(Box(64, 3, 64, 5), size) == Box(64, 3, 64, 5)
    assert check_region(Box(0, 48, 5, 48), size) == Box(0, 48, 5, 48)
    assert check_region(Box(-5, 10, 3, 90), size) == Box(0, 10, 3, 48)
    assert check_region(Point(0, 48), size) == Point(0, 48)
    mask = Mask(np.ones(size, bool))
    assert check_region(mask, size) is mask
    outside = (
        Box(-5, 10, 3, 10),  # no height, and beyond the left edge
        Box(10, -5, 10, 3),
        Box(-5, -5, -1, -1),
        Box(-5, 3, -1, 9),
        Box(3, 48, 9, 50),
        Point(-0.1, 5),
        Point(5, -0.1),
        Point(50, 60),
    )
    for region in outside:
        with pytest.raises(ValueError, match="outside"):
            check_region(region, size)
    for shape in ((64, 48), (48, 63), (47, 64)):
        with pytest.raises(ValueError, match="size"):
            check_region(Mask(np.ones(shape, bool)), size)


def test_even_points_by_hand():
    """Three of seven pixels: the shares are 0-1, 2-3, 4-6, and the golden ratio puts the picks at
    0, .618 and .236 of them.
    """
    assert pytest.approx(0.6180339887) == _GOLDEN_RATIO
    points = from_unit(sample_points(Box(0, 0, 7, 1), (1, 7), 3), (1, 7))
    assert points.flatten().tolist() == pytest.approx([0.5, 0.5, 3.5, 0.5, 4.5, 0.5])
    # pixels of a box of 3 columns and 4 rows, 12 in all, of which 5: shares begin at 0, 2, 4, 7, 9
    # golden places 0, .618, .236, .854, .472 of 2, 2, 3, 2, 3 pixels: 0, 3, 4, 8, 10, down the
    # columns
    points = from_unit(sample_points(Box(20, 10, 23, 14), (30, 50), 5), (30, 50))
    expected = [[20.5, 10.5], [20.5, 13.5], [21.5, 10.5], [22.5, 10.5], [22.5, 12.5]]
    assert points.flatten().tolist() == pytest.approx(sum(expected, []), abs=1e-4)


def test_too_few_pixels_are_all_taken_evenly():
    points = from_unit(
        sample_points(Box(1, 2, 3, 3), (5, 4), 5), (5, 4)
    )  # 2 pixels: 3 times the first
    assert (
        points[:, 0].tolist() == pytest.approx([1.5, 1.5, 1.5, 2.5, 2.5])
        and (points[:, 1] == 2.5).all()
    )


def test_random_points_are_a_random_choice_of_pixels():
    box, size = Box(1, 2, 4, 7), (9, 6)  # 15 pixels

    def draw(n, seed=3):
        return from_unit(sample_points(box, size, n, torch.Generator().manual_seed(seed)), size)

    def number(points):
        return ((points[:, 0] - 1.5) * 5 + points[:, 1] - 2.5).round().long()

    whole = torch.randperm(15, generator=torch.Generator().manual_seed(3))
    assert (
        number(draw(15)).tolist() == whole.tolist()
        and number(draw(6)).tolist() == whole[:6].tolist()
    )
    repeated = torch.randint(15, (16,), generator=torch.Generator().manual_seed(3))
    assert number(draw(16)).tolist() == repeated.tolist()


def test_masks_of_other_sizes_are_other_masks():
    a, b = (Mask({"size": size, "counts": [2, 3, 1]}) for size in ([2, 3], [3, 2]))
    assert a.rle["counts"] == b.rle["counts"] and a != b and hash(a) != hash(b)


# one decoding of a mask, one reading of an image


@pytest.fixture
def decodings(monkeypatch):
    "The codes that are decoded, in order."
    seen, real = [], run_lengths._text_to_counts
    monkeypatch.setattr(
        run_lengths, "_text_to_counts", lambda text: seen.append(text) or real(text)
    )
    return seen


def use_everything(mask):
    return (
        mask.area,
        mask.box(),
        mask.to_mask(3, 4).sum(),
        sample_points(mask, (3, 4), 5),
        mask.area,
    )


def test_a_mask_decodes_its_code_once(decodings):
    code = Mask(np.array([[0, 1, 1, 0], [0, 1, 0, 1], [0, 1, 1, 0]], bool)).rle
    mask = Mask(code)
    assert decodings == ["341M000"]
    assert use_everything(mask)[:3] == (6, Box(1, 0, 4, 3), 6)
    assert decodings == ["341M000"]
    use_everything(Mask(mask.to_mask(3, 4)))  # a dense mask: decoded when its runs are needed
    assert len(decodings) == 2


def test_a_mask_is_stored_as_its_code_alone():
    mask = Mask(np.eye(40, dtype=bool))
    before = pickle.dumps(mask)
    use = mask.box()
    assert pickle.dumps(mask) == before
    copy = pickle.loads(before)
    assert copy == mask and copy.box() == use


def test_one_question_about_a_mask_reads_the_image_and_the_mask_once(
    decodings, monkeypatch, tmp_path
):
    scene = make_scene(3, split="test")
    scene.image.save(tmp_path / "scene.png")
    ferret, code = Ferret.load("tiny"), scene.objects[0].mask.rle
    decodings.clear()
    opened, real = [], PIL.Image.open
    monkeypatch.setattr(PIL.Image, "open", lambda *a, **k: opened.append(a) or real(*a, **k))
    question = "What is in this region?"
    ferret.ask(tmp_path / "scene.png", question, regions=[code], max_new_tokens=2)
    assert decodings == [code["counts"]] and len(opened) == 1
