"Geometry: frames, bins, IoU, run lengths and points, on sizes that are not square and places off the diagonal"
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

from ferretlite.geometry import (Box, Mask, Point, as_boxes, bins_box, box_bins, box_iou, check_region, from_bins, from_unit,
    region_bins, rle_decode, rle_encode, sample_points, to_bins, to_unit)

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
    smooth = np.add.outer(rng.random(h).cumsum(), rng.random(w).cumsum()) % draw(st.sampled_from([0.7, 3, 1000]))
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
    assert box_bins(Box(10, 20, 30, 40), (80, 40)) == [250, 250, 750, 500]
    assert region_bins(Point(10, 20), (80, 40)) == [250, 250]


def test_lists_and_low_precision_become_float32():
    for xy in ([1, 2], torch.tensor([1, 2]), torch.tensor([1, 2], dtype=torch.bfloat16), np.array([1, 2], dtype=np.float16)):
        assert to_unit(xy, (4, 4)).dtype == torch.float32


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5,), (5, 5, 3), (float("nan"), 5)])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="height, width"): to_unit([1, 2], size)


# bins

@few
@given(st.data(), sizes)
def test_boxes_come_back_within_half_a_bin(data, size):
    box = data.draw(boxes(size))
    back, (h, w) = bins_box(box_bins(box, size), size), size
    assert all(abs(a - b) <= side / 2000 * (1 + 1e-9) for a, b, side in zip(back.list(), box.list(), (w, h, w, h)))
    assert box_bins(back, size) == box_bins(box, size)


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
        assert torch.equal(to_bins(pixels / n), exact) and torch.equal(to_bins(pixels.double() / n), exact)


@pytest.mark.parametrize("bins", [[1, 2, 3], [1, 2, 3, 4, 5], [0, 0, 0, 1000], [-1, 0, 5, 5], [9, 0, 5, 5], [0, 9, 5, 5]])
def test_bins_that_are_no_box_are_refused(bins):
    with pytest.raises(ValueError): bins_box(bins, (10, 10))


def test_numbers_that_no_place_has_are_refused():
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError): Point(bad, 0)
        with pytest.raises(ValueError): Box(0, 0, bad, 1)
        with pytest.raises(ValueError): to_bins([bad])
    with pytest.raises(TypeError): Point("1", 2)
    with pytest.raises(TypeError): Point(None, 2)


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
    assert (box.to_mask(h, w) == plain).all() if plain.any() else 1 <= box.to_mask(h, w).sum() <= max(h, w)


def test_iou_by_hand_and_against_pixels():
    assert box_iou([Box(0, 0, 2, 2)], [Box(1, 0, 3, 2)]).item() == pytest.approx(1 / 3)
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 20, (12, 2, 2)), axis=1).reshape(12, 4)        # x1 y1 x2 y2, some without area
    a, b = [Box(*c) for c in corners[:6]], corners[6:]
    for i, row in enumerate(box_iou(a, b).tolist()):
        for j, iou in enumerate(row):
            m, n = (np.zeros((20, 20), bool) for _ in range(2))
            m[corners[i][1]:corners[i][3], corners[i][0]:corners[i][2]] = n[b[j][1]:b[j][3], b[j][0]:b[j][2]] = True
            assert iou == pytest.approx((m & n).sum() / max((m | n).sum(), 1), abs=1e-6)


def test_iou_of_nothing():
    assert box_iou([], []).shape == (0, 0) and box_iou(torch.zeros(0, 4), [Box(0, 0, 1, 1)]).shape == (0, 1)
    assert box_iou(Box(1, 1, 1, 1), Box(1, 1, 1, 1)).item() == 0
    for bad in ([[1, 2, 3]], [1, 2, 3, 4], [[5, 5, 1, 1]], [[0, 0, float("nan"), 1]]):
        with pytest.raises(ValueError): as_boxes(bad)


# masks

@few
@given(masks())
def test_rle_equals_pycocotools(mask):
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = rle_encode(mask)
    assert ours == {"size": list(mask.shape), "counts": theirs["counts"].decode()}
    assert (rle_decode(theirs) == mask).all() and (rle_decode(ours) == mask).all()
    assert Mask(mask).area == coco.area(theirs) and Mask(theirs) == Mask(mask)
    if mask.any(): assert (Mask(mask).box().list() == np.array([1, 1, 1, 1]) * [*coco.toBbox(theirs)[:2], *(coco.toBbox(theirs)[:2] + coco.toBbox(theirs)[2:])]).all()


def test_rle_equals_pycocotools_on_large_counts():
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.zeros((1500, 2000), dtype=bool)
    mask[0, 0] = mask[700:702, 900:1100] = mask[-1, -1] = True
    assert rle_encode(mask)["counts"] == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert (rle_decode(rle_encode(mask)) == mask).all()


def test_the_three_forms_of_counts_are_one_mask():
    array = np.array([[0, 1, 1], [0, 1, 0]], dtype=bool)
    text = rle_encode(array)["counts"]
    for counts in ([2, 3, 1], [2, 1, 0, 2, 1], [0, 0, 2, 3, 1, 0], text, text.encode()):
        mask = Mask({"size": [2, 3], "counts": counts})
        assert mask == Mask(array) and hash(mask) == hash(Mask(array)) and (mask.to_mask(2, 3) == array).all()
    assert Mask(torch.tensor(array)) == Mask(array) == Mask(array.astype(np.uint8) * 255)


@pytest.mark.parametrize("rle", [{}, {"size": [2, 3]}, {"size": [2], "counts": [6]}, {"size": [2, 3], "counts": [5]}, {"size": [2, 3], "counts": [7, -1]},
    {"size": [2, 3], "counts": []}, {"size": [2, 3], "counts": ""}, {"size": [2, 3], "counts": "P"}, {"size": [2, 3], "counts": "é"}, {"size": [2, 3], "counts": "o" * 40 + "0"},
    {"size": [2, 3], "counts": [[0, 0, 1, 1]]}, {"size": [2, 3], "counts": ["a"]}, {"size": [2, 3], "counts": None}, {"size": None, "counts": [6]}, {"size": "23", "counts": [6]}])
def test_a_damaged_rle_is_one_clear_error(rle):
    with pytest.raises(ValueError, match="expected"): rle_decode(rle)
    with pytest.raises(ValueError, match="expected"): Mask(rle)


@few
@given(st.text(max_size=12) | st.binary(max_size=12))
def test_any_text_as_counts_is_read_or_refused(counts):
    try: assert rle_decode({"size": [3, 4], "counts": counts}).shape == (3, 4)
    except ValueError: pass


def test_mask_rows_are_y():
    array = np.zeros((48, 64), dtype=bool); array[2, 60] = True
    assert Mask(array).box() == Box(60, 2, 61, 3)
    assert sample_points(Mask(array), (48, 64), 1).tolist() == [[60.5 / 64, pytest.approx(2.5 / 48)]]
    with pytest.raises(ValueError): Mask(array).to_mask(64, 48)


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
    if mask.sum() >= n: assert len(set(zip(rows, columns))) == n
    elif generator is None: assert len(set(zip(rows, columns))) == mask.sum()      # all of them, if there are too few


@few
@given(regions(), st.integers(1, 40))
def test_a_region_and_its_mask_give_the_same_points(region_and_size, n):
    region, size = region_and_size
    assert torch.equal(sample_points(region, size, n), sample_points(Mask(region.to_mask(*size)), size, n))


@pytest.mark.parametrize("shape", [(64, 128), (64, 1024), (1024, 64), (512, 512), (1, 900), (33, 77)])
def test_points_spread_over_both_axes(shape):
    h, w = shape
    points = sample_points(Box(0, 0, w, h), shape, 512)
    for axis, side in ((0, w), (1, h)):
        filled = (points[:, axis] * min(side, 16)).floor().unique()
        assert len(filled) == min(side, 16)                    # no empty sixteenth on either axis
        assert abs(points[:, axis].mean() - 0.5) < 0.02


def test_random_points_are_uniform_and_follow_the_generator():
    box, size = Box(10, 20, 30, 80), (100, 50)
    draw = lambda seed: sample_points(box, size, 400, torch.Generator().manual_seed(seed))
    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
    mean = torch.stack([from_unit(draw(seed), size).mean(0) for seed in range(20)]).mean(0)
    assert mean.tolist() == pytest.approx([20, 50], abs=0.6)


def test_a_ramp_comes_back_as_the_coordinates():
    h, w = 24, 60
    ramp = torch.stack(torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij"), -1).flip(-1)      # [h, w, 2]: x, y
    yy, xx = np.mgrid[:h, :w]
    for region in (Point(50, 3), Box(44.2, 1, 58, 6.7), Mask((xx > 40) & (yy < 9) & (xx + yy > 48))):
        points = from_unit(sample_points(region, (h, w), 64), (h, w))
        assert (ramp[points[:, 1].long(), points[:, 0].long()] - points).abs().max() < 1e-3


def test_a_point_reaches_a_disc_and_never_nothing():
    assert Point(5, 5).to_mask(10, 10).sum() == 1 and Point(4.5, 5.5).to_mask(10, 10)[5, 4]
    disc = Point(320, 120).to_mask(480, 640)               # radius 2.4 px
    assert 12 <= disc.sum() <= 24 and Mask(disc).box().center() == Point(320, 120)
    for corner in (Point(0, 0), Point(640, 0), Point(0, 480), Point(640, 480)): assert corner.to_mask(480, 640).any()


def test_a_region_outside_its_image_is_refused():
    size = (48, 64)
    for bad in (Point(64.1, 3), Point(3, 48.1), Box(64, 0, 70, 5), Box(-5, 0, 0, 5), Box(0, 50, 5, 60), Mask(np.ones((64, 48), bool)), Mask(np.zeros(size, bool))):
        with pytest.raises(ValueError): check_region(bad, size)
        with pytest.raises(ValueError): sample_points(bad, size, 4)
    with pytest.raises(TypeError): check_region([1, 2, 3, 4], size)
    assert check_region(Box(-5, -5, 100, 20), size) == Box(0, 0, 64, 20)
    assert check_region(Point(64, 48), size) == Point(64, 48) and check_region(Box(3, 3, 3, 3), size) == Box(3, 3, 3, 3)
