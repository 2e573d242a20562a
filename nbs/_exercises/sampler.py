"""Exercises of the lesson Sampler. tools/exercises.py makes what ships from this file."""

# %% setup
import torch

# %% shared
import torch.nn.functional as F

from ferretlite.exercises.checks import WrongAnswer, expect


def spread_by_gradient(places, values, size, aligned=False):
    """The gradient of a reading: each cell gets the weight with which it was read."""
    cells = torch.zeros(1, values.shape[1], *size, requires_grad=True)
    grid = 2 * places[None, None] - 1
    read = F.grid_sample(cells, grid, padding_mode="border", align_corners=aligned)
    (read[0, :, 0].T * values).sum().backward()
    return cells.grad[0].permute(1, 2, 0)


# %% exercise
# title: Write into a map
# kind: code
# answer: spread_values
# minutes: 25
# difficulty: 2
# practises: cell centres, bilinear weights and the order of x and y
#
# The sampler *reads* a map at places between cell centres. Write the reverse:
# `spread_values(places, values, size)` adds each value to the four cells around its place, with the
# weights of the bilinear reading, and returns the map.
#
# - `places`: tensor `[n, 2]`, `(x, y)` in the unit frame
# - `values`: tensor `[n, C]`
# - `size`: `(height, width)` of the map, in cells
# - result: tensor `[height, width, C]`. Places beyond the outermost centres write to the border.
#
# Example: on a map of 1 × 2 cells, the value 8 at x = 3/8 leaves 6 in the left cell and 2 in the
# right cell.


# %% stub
def spread_values(places, values, size):
    raise NotImplementedError


# %% hint
# Find the four cells first: the place x lies at x · width − ½, measured in cells. The whole part is
# the left cell, and the fraction is the weight of the right cell.

# %% hint
# Clamp the place to 0 … width − 1 before you take the whole part. Then no cell lies outside.

# %% hint
# Two values may meet in one cell. `index_put_(..., accumulate=True)` and `index_add_` add values;
# an assignment to an index keeps only the last value.


# %% check
def make_inputs(rng):
    def draw(*shape):
        return torch.from_numpy(rng.uniform(0.2, 0.8, shape)).float()

    size = (int(rng.randint(5, 8)), int(rng.randint(9, 14)))
    return dict(size=size, places=draw(4, 2), values=draw(4, 3) + 1, edge=float(draw(1)))


def check(answer, inputs):
    h, w = inputs["size"]
    places, values = inputs["places"], inputs["values"]
    scale = torch.tensor([h / w, w / h])
    for size in ((h, h), (h, w)):
        one, value = places[:1], values[:1]
        half = 0.5 / torch.tensor([size[1], size[0]])
        earlier = f"right on {h} × {h}, " if size != (h, h) else ""
        mistakes = {
            "x and y are exchanged": spread_by_gradient(one.flip(-1), value, size),
            f"{earlier}wrong on {h} × {w}: height and width are exchanged": spread_by_gradient(
                one * scale, value, size
            ),
            "half a cell is missing, since cell i has its centre at (i + ½) / n": (
                spread_by_gradient(one + half, value, size)
            ),
            "the outermost centres are at 0 and 1, expected at ½ / n and 1 − ½ / n": (
                spread_by_gradient(one, value, size, aligned=True)
            ),
        }
        found = answer(one.clone(), value.clone(), size)
        expected = spread_by_gradient(one, value, size)
        expect(found, expected, f"one value on a map of {size[0]} × {size[1]} cells", mistakes)
    for edge in ([0.2 / w, inputs["edge"]], [inputs["edge"], 1 - 0.2 / h]):
        place = torch.tensor([edge])
        found = answer(place.clone(), values[:1].clone(), (h, w))
        where = f"a place beyond the outermost centres, {edge[0]:.3f}, {edge[1]:.3f}"
        expect(found, spread_by_gradient(place, values[:1], (h, w)), where)
    same = places[:1].expand(4, 2).clone()
    last = spread_by_gradient(same[3:], values[3:], (h, w))
    mistakes = {"only the last value is left, but values add up": last}
    expected = spread_by_gradient(same, values, (h, w))
    expect(answer(same, values.clone(), (h, w)), expected, "four values at one place", mistakes)
    expected = spread_by_gradient(places, values, (h, w))
    expect(answer(places.clone(), values.clone(), (h, w)), expected, "four places")


# %% solution
def spread_values(places, values, size):
    h, w = size
    x = (places[:, 0] * w - 0.5).clamp(0, w - 1)
    y = (places[:, 1] * h - 0.5).clamp(0, h - 1)
    left, top = x.floor().long(), y.floor().long()
    right, bottom = x.ceil().long(), y.ceil().long()
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    cells = torch.zeros(h, w, values.shape[1])
    for row, column, weight in (
        (top, left, (1 - fy) * (1 - fx)),
        (top, right, (1 - fy) * fx),
        (bottom, left, fy * (1 - fx)),
        (bottom, right, fy * fx),
    ):
        cells.index_put_((row, column), weight * values, accumulate=True)
    return cells


# %% mutants
MUTANTS = [
    ("x and y are exchanged", "    h, w = size", "    h, w = size\n    places = places.flip(-1)"),
    (
        "height and width are exchanged",
        "    left, top",
        "    x = (places[:, 0] * h - 0.5).clamp(0, w - 1)\n"
        "    y = (places[:, 1] * w - 0.5).clamp(0, h - 1)\n    left, top",
    ),
    ("half a cell is missing", "    left, top", "    x, y = x + 0.5, y + 0.5\n    left, top"),
    (
        "only the last value",
        "    h, w = size",
        "    h, w = size\n    places, values = places[-1:], values[-1:]",
    ),
    (
        "beyond the outermost centres",
        "(places[:, 0] * w - 0.5).clamp(0, w - 1)",
        "places[:, 0] * w - 0.5",
    ),
]

# %% exercise
# title: Well spread in pixels
# kind: code
# answer: pick_spread_points
# minutes: 25
# difficulty: 2
# practises: farthest points, and the distance that a person sees
#
# The lesson picks farthest points with distances in the unit frame. In a wide image, a step of 0.1
# to the right is longer than a step of 0.1 down. Write `pick_spread_points(places, size, n)` with
# distances in *pixels*.
#
# - `places`: tensor `[m, 2]`, `(x, y)` in the unit frame
# - `size`: `(height, width)` of the image, in pixels
# - `n`: how many points to pick
# - result: list of `n` different indices. The first index is 0. Each further point is the point
#   whose nearest picked point is farthest away.


# %% stub
def pick_spread_points(places, size, n):
    raise NotImplementedError


# %% hint
# Turn the places into pixels once: x times the width, y times the height.

# %% hint
# Keep one number for each point: the distance to the nearest point that was picked. After each
# pick, take the minimum of the old numbers and the distances to the new point.


# %% check
def make_inputs(rng):
    size = (int(rng.randint(80, 120)), int(rng.randint(400, 600)))
    places = torch.from_numpy(rng.uniform(0, 1, (60, 2))).float()
    return dict(places=places, size=size, n=int(rng.randint(9, 13)))


def find_first_break(points, picked, join):
    """Where the picks leave the rule that `join` states; None for nowhere."""
    distances = torch.cdist(points.double(), points.double())
    for k in range(1, len(picked)):
        value = join(distances[:, picked[:k]])
        value[picked[:k]] = -1
        if value[picked[k]] < value.max() - 1e-4 * value.max().abs():
            return k
    return None


def nearest(distances):
    return distances.min(1).values


def check(answer, inputs):
    places, (h, w), n = inputs["places"], inputs["size"], inputs["n"]
    pixels = places * torch.tensor([w, h])
    picked = answer(places.clone(), (h, w), n)
    picked = picked.tolist() if isinstance(picked, torch.Tensor) else picked
    whole = isinstance(picked, list) and all(type(i) is int for i in picked)
    if not whole or len(picked) != n or not set(picked) <= set(range(len(places))):
        raise WrongAnswer(f"expected a list of {n} indices from 0 to {len(places) - 1}")
    if len(set(picked)) < n:
        raise WrongAnswer("a point was picked twice")
    if picked[0] != 0:
        raise WrongAnswer(f"the first index is {picked[0]}, expected 0")
    place = find_first_break(pixels, picked, nearest)
    if place is None:
        return
    rules = {
        "distances are in the unit frame, expected pixels": (places, nearest),
        "height and width are exchanged": (places * torch.tensor([h, w]), nearest),
        "each pick is far from the last pick only": (pixels, lambda d: d[:, -1].clone()),
        "the sum of the distances is maximal, expected the distance to the nearest pick": (
            pixels,
            lambda d: d.sum(1),
        ),
        "each pick is the nearest point, expected the farthest": (pixels, lambda d: -nearest(d)),
    }
    for message, (points, join) in rules.items():
        if "nearest point" not in message and find_first_break(points, picked, join) is None:
            raise WrongAnswer(message)
    raise WrongAnswer(f"pick number {place + 1} is not the farthest point in pixels")


# %% solution
def pick_spread_points(places, size, n):
    points = places * torch.tensor([size[1], size[0]])
    picked = [0]
    nearest = torch.full((len(points),), torch.inf)
    while len(picked) < n:
        distance = (points - points[picked[-1]]).norm(dim=-1)
        nearest = torch.minimum(nearest, distance)
        picked.append(int(nearest.argmax()))
    return picked


# %% mutants
MUTANTS = [
    ("in the unit frame", "places * torch.tensor([size[1], size[0]])", "places"),
    ("height and width are exchanged", "[size[1], size[0]]", "[size[0], size[1]]"),
    (
        "the sum of the distances",
        "torch.minimum(nearest, distance)",
        "torch.where(torch.arange(len(points)) == picked[-1], -1e9, nearest.nan_to_num(posinf=0))"
        " + distance",
    ),
]

# %% exercise
# title: Where does the public code read?
# kind: prediction
# answer: read_at
# minutes: 10
# difficulty: 1
# practises: the transposed lookup of the public code
#
# The public code exchanges the two coordinates of a place in the unit frame before the map is read.
# Your inputs name the size of an image and the centre of a region, in pixels. At which place of the
# image, in pixels, does the public code read the features? Decide before you run any code, then
# write `read_at = (x, y)`. The check builds a map of coordinates and reads the map.

# %% given
inputs = get_inputs("sampler.3")
inputs

# %% stub
read_at = None  # (x, y) in pixels

# %% hint
# Write the centre in the unit frame first. Which fractions does the code use after the exchange?

# %% hint
# x is divided by the width and y by the height. Only then are the two fractions exchanged, and each
# is multiplied by the side of its new direction.


# %% check
def make_inputs(rng):
    h, w = int(rng.randint(200, 300)), int(rng.randint(400, 640))
    x, y = w * rng.uniform(0.6, 0.85), h * rng.uniform(0.15, 0.35)
    return dict(size=(h, w), center=(round(x, 1), round(y, 1)))


def check(answer, inputs):
    (h, w), (x, y) = inputs["size"], inputs["center"]
    columns, rows = torch.arange(w) + 0.5, torch.arange(h) + 0.5
    ramp = torch.stack([columns.expand(h, w), rows[:, None].expand(h, w)])
    flipped = torch.tensor([[[[2 * y / h - 1, 2 * x / w - 1]]]])
    read = F.grid_sample(ramp[None], flipped, align_corners=False)[0, :, 0, 0].tolist()
    mistakes = {
        "pixels are exchanged, but the code exchanges fractions": [y, x],
        "this is the place of the region itself": [x, y],
        "this place is mirrored at the middle of the image": [w - x, h - y],
        "the fractions are right, expected pixels": [y / h, x / w],
    }
    where = "the code reads another place"
    expect(answer, tuple(read), where, mistakes, tolerance=2e-3, secret=True)


# %% solution
h, w = inputs["size"]
x, y = inputs["center"]
read_at = (y / h * w, x / w * h)

# %% mutants
MUTANTS = [
    ("exchanges fractions", "(y / h * w, x / w * h)", "(y, x)"),
    ("the region itself", "(y / h * w, x / w * h)", "(x, y)"),
    ("mirrored", "(y / h * w, x / w * h)", "(w - x, h - y)"),
]

# %% open
# `flatten_projector` reads the centres in the order of picking. Shuffle the order at test time,
# then train with a shuffled order. *A good answer shows* both accuracies with intervals, beside the
# accuracy of `MeanSampler`, and says whether the order carries the arrangement.

# %% open
# Repeat the linear classifier on the maps of the tiny model, with kinds and colours of scenes.
# *A good answer shows* the accuracy of the classifier from either start and from `MeanSampler`,
# with intervals and the chance level, on scenes that the classifier did not see.

# %% quiz
# A map has 4 columns. Which place in the unit frame is the centre of the first column?
#
# - 0
#   0 is the left edge of the image. The centre of the first column lies half a cell further right.
# + 1/8
#   Column i has its centre at (i + ½) / 4, so column 0 has its centre at 1/8.
# - 1/4
#   1/4 is the border between the first and the second column.
# - 1/3
#   With the outermost centres at 0 and 1, the second centre of four is at 1/3. The library reads
#   with centres at (i + ½) / n.

# %% quiz
# Why does a mean over the points of a region lose information that the sampler keeps?
#
# - The mean uses fewer points.
#   Both read the same points.
# - The mean depends on the size of the region.
#   A mean of features does not grow with the region.
# + The mean is the same for a red dot left of a blue dot and for the mirrored pair.
#   The mean forgets the arrangement. The sampler reads differences between neighbouring points.
# - The mean has no gradient.
#   A mean has a gradient for every point.

# %% quiz
# Why are farthest points picked, and not the first points of the cloud?
#
# + Farthest points keep the outline of the region.
#   Each new point lies far from all picked points, so the picks cover the whole region.
# - Farthest points are faster to find.
#   Finding farthest points needs all distances; taking the first points needs none.
# - Farthest points have larger features.
#   Places decide the choice. Features play no part.
# - Farthest points never repeat.
#   Other choices can avoid repetition, too. The lesson picks farthest points for their cover.

# %% quiz
# On which map does a test find exchanged coordinates most surely?
#
# - on a square map with a region on the diagonal
#   The exchanged place is the same place, so the test passes.
# - on a map of random numbers, with a test of the shape
#   The shape is right after the exchange.
# + on a map whose cells hold their own place, not square, with a region off the diagonal
#   Such a ramp returns the place that was read, and the place is wrong after the exchange.
# - on a map of zeros
#   Every place of a map of zeros reads zero.

# %% quiz
# Why does the lesson compute distances as (a − b)² in float32?
#
# - because a² − 2ab + b² needs more memory
#   The expanded form needs less memory for long vectors. Memory is not the reason.
# + because a² − 2ab + b² subtracts large numbers that are nearly equal
#   The rounding of the large numbers is larger than the small distance, so the choice of neighbours
#   becomes almost random in small regions, most of all in half precision.
# - because the square root is missing
#   Neither form has a square root. The order of squared distances is the order of distances.
# - because float16 cannot store places
#   Places fit into float16. The differences of large squares lose the digits.
