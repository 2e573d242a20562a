"""Exercises of the lesson Geometry. tools/exercises.py makes what ships from this file."""

# %% setup
import torch

# %% shared
import itertools

import numpy as np

from ferretlite.exercises.checks import expect

# %% exercise
# title: A box in a turned photo
# kind: code
# answer: turn_box
# minutes: 20
# difficulty: 2
# practises: edges, the order of x and y, and sizes as (height, width)
#
# A phone stores a photo sideways. Software turns the photo by 90° *clockwise*: the upper left
# corner becomes the upper right corner. Write `turn_box(boxes, size)`, which returns the boxes in
# the frame of the turned photo.
#
# - `boxes`: tensor `[n, 4]` of `x1 y1 x2 y2` in pixels, edges between pixels
# - `size`: `(height, width)` of the photo *before* it is turned
# - result: tensor `[n, 4]`, again with `x1 < x2` and `y1 < y2`
#
# Example: in a photo of height 6 and width 9, the box `2 1 6 4` becomes `2 2 5 6`.


# %% stub
def turn_box(boxes, size):
    raise NotImplementedError


# %% hint
# Take a sheet of paper, mark one corner and turn the sheet. Which old edge is the new left edge?

# %% hint
# The old bottom edge becomes the new left edge. A point at height y from the top is afterwards at
# height − y from the left.


# %% check
def make_inputs(rng):
    def draw():
        h, w = int(rng.randint(40, 50)), int(rng.randint(60, 80))
        x1, y1 = int(rng.randint(1, 8)), int(rng.randint(10, 14))
        return (h, w), [x1, y1, x1 + int(rng.randint(9, 20)), y1 + int(rng.randint(3, 7))]

    return dict(photos=[draw() for _ in range(3)])


def find_painted_box(image):
    rows, columns = np.nonzero(image.any(1))[0], np.nonzero(image.any(0))[0]
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def check(answer, inputs):
    for size, box in inputs["photos"]:
        (h, w), (x1, y1, x2, y2) = size, box
        image = np.zeros(size, bool)
        image[y1:y2, x1:x2] = True
        right = find_painted_box(np.rot90(image, -1))
        left = find_painted_box(np.rot90(image))
        a, b, c, d = (float(v) for v in right)
        mistakes = {
            "the photo was turned to the left, expected clockwise": left,
            "x1 is larger than x2: the corners of the turned box have to be sorted": [c, b, a, d],
            "x and y are exchanged, but nothing is turned": [y1, x1, y2, x2],
            "the width was used where the height belongs": [w - y2, x1, w - y1, x2],
            "one pixel is missing: edges lie between pixels, so y becomes height − y": [
                a - 1,
                b,
                c - 1,
                d,
            ],
        }
        wanted = {key: torch.tensor([value]).float() for key, value in mistakes.items()}
        found = answer(torch.tensor([box]).float(), size)
        where = f"the box {box} in a photo of {h} × {w}"
        expect(found, torch.tensor([right]).float(), where, wanted)
    boxes = torch.tensor([box for _, box in inputs["photos"]]).float() / 4
    size = (8, 20)
    turned = answer(boxes.clone(), size)
    back = boxes
    for _ in range(4):
        back = answer(back.clone(), size)
        size = size[::-1]
    expect(back, boxes, "four turns of three boxes lead back")
    expect(turned[:, 2:] - turned[:, :2], (boxes[:, 2:] - boxes[:, :2]).flip(-1), "three boxes")


# %% solution
def turn_box(boxes, size):
    x1, y1, x2, y2 = boxes.unbind(-1)
    height, width = size
    return torch.stack([height - y2, x1, height - y1, x2], -1)


# %% mutants
MUTANTS = [
    ("to the left", "[height - y2, x1, height - y1, x2]", "[y1, width - x2, y2, width - x1]"),
    (
        "have to be sorted",
        "[height - y2, x1, height - y1, x2]",
        "[height - y1, x1, height - y2, x2]",
    ),
    ("exchanged, but nothing is turned", "[height - y2, x1, height - y1, x2]", "[y1, x1, y2, x2]"),
    ("the width was used", "height, width = size", "width, height = size"),
    ("one pixel is missing", "height, width = size", "height, width = size[0] - 1, size[1]"),
]

# %% exercise
# title: Generalised IoU
# kind: code
# answer: compute_giou
# minutes: 25
# difficulty: 2
# practises: areas of boxes, and boxes that do not meet
#
# The IoU of two boxes that do not meet is 0, whether the boxes are near or far. The *generalised*
# IoU also sees the distance: IoU minus the share of the enclosing box that neither box covers. The
# enclosing box is the smallest box around both boxes. Write `compute_giou(a, b)` for every pair.
#
# - `a`: tensor `[n, 4]`, `b`: tensor `[m, 4]`, both `x1 y1 x2 y2` in pixels, with an area
# - result: tensor `[n, m]`
#
# Example: `0 0 2 2` and `4 0 6 2` have an IoU of 0. The enclosing box has an area of 12, and 4 of
# the 12 lie in neither box, so the generalised IoU is −1/3.


# %% stub
def compute_giou(a, b):
    raise NotImplementedError


# %% hint
# Begin with the IoU of one pair. What is the width of the part that two boxes share, and what must
# happen when this width is negative?

# %% hint
# `a[:, None]` and `b[None]` meet in a tensor `[n, m, 4]`. The enclosing box has the smaller x1 and
# y1, and the larger x2 and y2.


# %% check
def make_inputs(rng):
    def draw(n, low, high):
        corner = rng.randint(low, high, (n, 2))
        return np.concatenate([corner, corner + rng.randint(3, 12, (n, 2))], 1).tolist()

    return dict(near=draw(3, 0, 6), other=draw(2, 1, 7), far=draw(2, 24, 34))


def paint(box):
    canvas = np.zeros((64, 64), bool)
    x1, y1, x2, y2 = box
    canvas[y1:y2, x1:x2] = True
    return canvas


def count_pair(a, b):
    """Return the pixels in both, in either, in their enclosing box, and in that of the centres."""
    one, two = paint(a), paint(b)
    rows, columns = np.nonzero((one | two).any(1))[0], np.nonzero((one | two).any(0))[0]
    hull = (rows[-1] + 1 - rows[0]) * (columns[-1] + 1 - columns[0])
    return (one & two).sum(), (one | two).sum(), hull


def check(answer, inputs):
    cases = {
        "boxes that meet or are near": (inputs["near"], inputs["other"]),
        "boxes that do not meet": (inputs["near"], inputs["far"]),
    }
    for where, (a, b) in cases.items():
        counts = [[count_pair(p, q) for q in b] for p in a]
        both, either, hull = torch.tensor(np.array(counts, np.float32)).unbind(-1)
        right = both / either - (hull - either) / hull
        p, q = torch.tensor(a)[:, None].float(), torch.tensor(b)[None].float()
        sides = torch.minimum(p[..., 2:], q[..., 2:]) - torch.maximum(p[..., :2], q[..., :2])
        false = sides.prod(-1)
        wrong_union = either + both - false
        sum_of_areas = either + both
        mistakes = {
            "this is the plain IoU": both / either,
            "the sides of a part that does not exist are negative; their product is no area": (
                false / wrong_union - (hull - wrong_union) / hull
            ),
            "the shared part counts twice in the union": (
                both / sum_of_areas - (hull - sum_of_areas) / hull
            ),
            "the empty part is divided by the union, expected by the enclosing box": (
                both / either - (hull - either) / either
            ),
        }
        found = answer(torch.tensor(a).float(), torch.tensor(b).float())
        expect(found, right, where, mistakes)


# %% solution
def compute_giou(a, b):
    a, b = a[:, None], b[None]
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    both = (high - low).clamp(0).prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    union = areas - both
    low, high = torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])
    hull = (high - low).prod(-1)
    return both / union - (hull - union) / hull


# %% mutants
MUTANTS = [
    ("plain IoU", "both / union - (hull - union) / hull", "both / union"),
    ("their product is no area", ".clamp(0)", ""),
    ("counts twice", "union = areas - both", "union = areas"),
    ("expected by the enclosing box", "(hull - union) / hull", "(hull - union) / union"),
]

# %% exercise
# title: When is a bin too coarse?
# kind: number
# answer: side
# minutes: 20
# difficulty: 3
# practises: the width of a bin in pixels, and IoU of small boxes
#
# A box is written in bins and read back. Each edge then lies up to half a bin from its true place,
# horizontally and vertically. Your inputs name the size of a photo and an IoU. Find the side of a
# *square* object, in pixels, for which the worst case has exactly this IoU. The four edges may move
# in any directions. An answer within 0.2 % is right.

# %% given
inputs = get_inputs("geometry.3")
inputs

# %% stub
side = None  # pixels

# %% hint
# Half a bin of a photo that is 4000 pixels wide is 2 pixels. Photos are not square, so half a bin
# has another length vertically.

# %% hint
# The read box may be smaller, larger or shifted. Compute the IoU of each case for one side, and
# keep the smallest IoU.

# %% hint
# All four edges move inwards in the worst case. The IoU is then the product of two factors, one for
# each direction. Try sides until the product fits.


# %% check
def make_inputs(rng):
    height, width = int(rng.randint(1700, 2000)), int(rng.randint(2800, 2970))
    return dict(size=(height, width), iou=round(float(rng.uniform(0.6, 0.92)), 3))


def find_worst_iou(side, half_bins):
    """The smallest IoU over all moves of the four edges of a square."""
    worst = 1.0
    for moves in itertools.product((-1, 0, 1), repeat=4):
        both = read = 1.0
        for low, high, half in zip(moves[:2], moves[2:], half_bins):
            edges = low * half, side + high * half
            both *= max(0.0, min(side, edges[1]) - max(0.0, edges[0]))
            read *= max(0.0, edges[1] - edges[0])
        worst = min(worst, both / (side * side + read - both))
    return worst


def find_side(iou, half_bins, measure=find_worst_iou):
    low, high = 0.5, 1000.0
    for _ in range(26):
        middle = (low + high) / 2
        low, high = (middle, high) if measure(middle, half_bins) < iou else (low, middle)
    return middle


def check(answer, inputs):
    (height, width), iou = inputs["size"], inputs["iou"]
    x, y = width / 2000, height / 2000
    right = find_side(iou, (x, y))

    def grow(side, halves):
        return side * side / ((side + 2 * halves[0]) * (side + 2 * halves[1]))

    def slip(side, halves):
        both = (side - halves[0]) * (side - halves[1])
        return both / (2 * side * side - both)

    mistakes = {
        "each edge moves by half a bin at most, not by a whole bin": find_side(iou, (2 * x, 2 * y)),
        "both directions have the bin of the width here": find_side(iou, (x, x)),
        "both directions have the bin of the height here": find_side(iou, (y, y)),
        "only one direction moves here, expected both": find_side(iou, (x, 0)),
        "only the left or the right edge moves here, expected all four": find_side(
            iou, (x / 2, y / 2)
        ),
        "the read box grows here; a box that shrinks loses more": find_side(iou, (x, y), grow),
        "the read box slips as a whole here; a box that shrinks loses more": find_side(
            iou, (x, y), slip
        ),
    }
    expect(answer, right, "the side", mistakes, tolerance=0.002, secret=True)


# %% solution
height, width = inputs["size"]
halves = width / 2000, height / 2000


def shrink(side):
    return (1 - 2 * halves[0] / side) * (1 - 2 * halves[1] / side)


side = 2 * max(halves)
while shrink(side) < inputs["iou"]:
    side += 0.01

# %% mutants
MUTANTS = [
    ("not by a whole bin", "width / 2000, height / 2000", "width / 1000, height / 1000"),
    ("the bin of the width", "width / 2000, height / 2000", "width / 2000, width / 2000"),
    (
        "only the left or the right edge",
        "width / 2000, height / 2000",
        "width / 4000, height / 4000",
    ),
    (
        "a box that shrinks loses more",
        "(1 - 2 * halves[0] / side) * (1 - 2 * halves[1] / side)",
        "1 / ((1 + 2 * halves[0] / side) * (1 + 2 * halves[1] / side))",
    ),
]

# %% open
# Replace `_GOLDEN_RATIO` by 0.5 and by 0.6, and compare with every k-th pixel along a *Hilbert
# curve*. *A good answer shows* the largest distance from a pixel to its nearest pick for each
# choice, for regions of several shapes and for 16 to 512 picks, and explains one bad case.

# %% quiz
# Which numbers describe the size of a photo that is 640 pixels wide and 480 pixels high?
#
# - (640, 480)
#   PIL names sizes in this order. The library uses the order of arrays.
# + (480, 640)
#   Sizes are (height, width), as in the shape of an array.
# - (640, 480, 3)
#   Channels are no part of the size.
# - (479, 639)
#   These numbers are the indices of the last row and the last column.

# %% quiz
# How wide is the box from x1 = 2 to x2 = 6?
#
# + 4 pixels
#   Edges lie between pixels, so the width is x2 − x1.
# - 5 pixels
#   Five is right where x2 names the last pixel inside. Here x2 names the line behind the last
#   pixel.
# - 3 pixels
#   The pixels 2, 3, 4 and 5 lie inside.
# - 4.5 pixels
#   No half pixel lies between two edges at whole numbers.

# %% quiz
# Why is a bin decoded to its middle?
#
# - because text has no decimals
#   The text holds whole numbers in either case. The question is the place that a number stands for.
# - because the middle is always a pixel centre
#   Bins and pixels have different widths, so the middle of a bin is rarely a pixel centre.
# + because encoding rounds down, so the true place lies in the bin on either side of its middle
#   The middle halves the largest error, and the average error becomes zero.
# - because bin 1000 would be needed otherwise
#   Clipping at 999 avoids bin 1000. Decoding plays no part.

# %% quiz
# A test uses an image of 100 × 100 pixels and the box 20 20 40 40. Which mistake passes the test?
#
# + x and y are exchanged
#   The box is its own mirror image at the diagonal, and the image is square.
# - the box is twice as wide
#   The width changes, so the comparison fails.
# - bins are decoded to their lower edge
#   The decoded box moves by up to half a bin, and the comparison can see the difference.
# - the mask contains one column too many
#   The mask has 420 pixels where 400 are expected.

# %% quiz
# Which pixels does a box own?
#
# - all pixels that the box touches
#   Two boxes with a common edge would then share pixels.
# - the pixels that lie inside as a whole
#   Pixels that an edge cuts would belong to no box.
# + the pixels whose centre lies inside
#   Boxes with a common edge share no pixel and leave none out.
# - the pixels of its outline
#   The outline serves for drawing. Features are read inside.
