"""Item 17: boxes, points and masks of NumPy and torch are regions, and the rest is refused."""

import numpy as np
import pytest
import torch

from ferretlite.common.errors import InputError
from ferretlite.regions.geometry import (
    Box,
    Mask,
    Point,
    box_iou,
    check_region,
    make_region,
    make_regions,
    sample_points,
    to_unit,
)

SIZE = (480, 640)
BOX = [40, 60, 120, 160]


@pytest.mark.parametrize(
    "given",
    [
        BOX,
        tuple(BOX),
        np.array(BOX),
        np.array(BOX, np.float16),
        np.array([BOX], np.uint8),
        torch.tensor(BOX),
        torch.tensor(BOX, dtype=torch.bfloat16),
        torch.tensor(BOX, dtype=torch.float32, requires_grad=True),
        list(torch.tensor(BOX, dtype=torch.float32, requires_grad=True)),
        list(np.array(BOX)),
        [np.array(BOX)],
        [torch.tensor(BOX, dtype=torch.bfloat16, requires_grad=True)],
    ],
)
def test_one_box_in_every_form(given):
    assert make_regions(given, SIZE) == [Box(40, 60, 120, 160)]
    assert check_region(given, SIZE) == Box(40, 60, 120, 160)


def test_several_regions_in_every_form():
    boxes = [Box(1, 2, 3, 4), Box(5, 6, 7, 8)]
    rows = [[1, 2, 3, 4], [5, 6, 7, 8]]
    for given in (rows, np.array(rows), torch.tensor(rows), [torch.tensor(r) for r in rows], boxes):
        assert make_regions(given, SIZE) == boxes
    points = torch.tensor([[1.5, 2], [3, 4]], dtype=torch.bfloat16)
    assert make_regions(points) == [Point(1.5, 2), Point(3, 4)]
    assert make_regions([[1, 2], [1, 2, 3, 4], Point(5, 6)]) == [
        Point(1, 2),
        Box(1, 2, 3, 4),
        Point(5, 6),
    ]
    for nothing in (None, [], np.zeros((0, 4)), torch.zeros(0)):
        assert make_regions(nothing, SIZE) == []


def test_masks_in_every_form():
    dense = np.zeros(SIZE, bool)
    dense[10:20, 30:50] = True
    mask = Mask(dense)
    for given in (
        dense,
        torch.from_numpy(dense),
        dense.tolist(),
        dense.astype(np.uint8),
        dense.astype(np.uint8) * 255,
        torch.from_numpy(dense).long(),
        mask.rle,
        [dense],
        dense[None],
    ):
        assert make_regions(given, SIZE) == [mask]
    assert make_regions(np.stack([dense, ~dense])) == [mask, Mask(~dense)]
    assert mask.box() == Box(30, 10, 50, 20)


def test_a_box_can_be_made_of_single_tensors():
    x1, y1, x2, y2 = torch.tensor(BOX, dtype=torch.bfloat16, requires_grad=True)
    assert Box(x1, y1, x2, y2) == Box(40, 60, 120, 160)
    assert Point(np.float32(1.5), torch.tensor(2)) == Point(1.5, 2)


def test_other_functions_take_the_same_forms():
    box = torch.tensor([BOX], dtype=torch.bfloat16, requires_grad=True)
    assert box_iou(box, [Box(*BOX)]).item() == 1
    assert to_unit(box, SIZE).tolist() == [[0.0625, 0.125, 0.1875, 1 / 3]] or to_unit(
        box, SIZE
    ).detach().numpy() == pytest.approx(np.array([[0.0625, 0.125, 0.1875, 1 / 3]]))
    assert torch.equal(sample_points(np.array(BOX), SIZE, 8), sample_points(Box(*BOX), SIZE, 8))


@pytest.mark.parametrize(
    "given",
    [
        "40,60,120,160",
        b"40",
        3,
        {"boxes": [1, 2, 3, 4]},
        [1, 2, 3],
        [1, 2, None, 4],
        ["1", "2", "3", "4"],
        [[[1, 2, 3, 4]]],
        [[1, 2, 3, 4], "cat"],
        [float("nan"), 0, 1, 2],
        [10**400, 0, 1, 2],
        np.zeros((2, 3)),
        np.full(SIZE, 0.5),
        np.full(SIZE, 3),  # a map of labels
        np.ones((5, 6), np.uint8),  # of another image
        np.arange(12).reshape(3, 4)[:, ::-1],
        np.array([["a", "b"]]),
        np.array([1 + 2j, 3]),
        torch.zeros(2, 2, 2, 2),
        object(),
        [object()] * 4,
        {1, 2},
        True,
    ],
)
def test_everything_else_is_refused_with_one_sentence(given):
    with pytest.raises(InputError) as error:
        make_regions(given, SIZE)
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)
    with pytest.raises(InputError):
        check_region(given, SIZE)


def test_a_list_that_is_nested_a_thousand_times_is_refused():
    nested = [1, 2, 3, 4]
    for _ in range(3000):
        nested = [nested]
    with pytest.raises(InputError):
        make_regions(nested, SIZE)


def test_one_region_means_one():
    with pytest.raises(InputError, match="found 2 regions, expected one"):
        make_region([Point(1, 2), Point(3, 4)])
    with pytest.raises(InputError, match="found 0 regions"):
        make_region(None)
