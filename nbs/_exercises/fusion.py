"""Exercises of the lesson Fusion. tools/exercises.py makes what ships from this file."""

# %% setup
import torch
import torch.nn.functional as F

# %% shared
from ferretlite.exercises.checks import WrongAnswer, expect


def make_ramp(rows, cols):
    """A map whose cells hold their own place, (x, y) in the unit frame."""
    x, y = (torch.arange(cols) + 0.5) / cols, (torch.arange(rows) + 0.5) / rows
    return torch.stack([x.expand(rows, cols), y[:, None].expand(rows, cols)], -1)


# %% exercise
# title: Fuse maps with a border
# kind: code
# answer: fuse_padded
# minutes: 30
# difficulty: 3
# practises: cell centres, padding, and the sum of two maps
#
# The local map comes from a *padded* canvas: the image fills whole cells at the upper left corner,
# and the other cells show the border. The global map comes from the stretched image, so the map
# shows the image alone. Write `fuse_padded(global_map, local_map, kept)`.
#
# - `global_map`: tensor `[h, w, C]`
# - `local_map`: tensor `[H, W, C]`
# - `kept`: `(rows, columns)` of the local map that show the image
# - result: tensor `[rows, columns, C]`: the sum of the local cells and the global map, stretched by
#   cell centres with bilinear interpolation


# %% stub
def fuse_padded(global_map, local_map, kept):
    raise NotImplementedError


# %% hint
# Which cells of the local map show the image? Drop all other cells first.

# %% hint
# `F.interpolate` wants `[1, C, h, w]`. With `align_corners=False`, centres lie at (i + ½) / n.

# %% hint
# The global map has to be stretched to the *kept* cells. A stretch to the whole canvas would
# squeeze the border into the image.


# %% check
def make_inputs(rng):
    rows, cols = int(rng.randint(5, 8)), int(rng.randint(9, 13))
    canvas = rows + int(rng.randint(3, 6)), cols + int(rng.randint(3, 6))
    small = int(rng.randint(3, 5)), int(rng.randint(5, 8))
    values = [torch.from_numpy(rng.uniform(1, 5, (*size, 2))).float() for size in (small, canvas)]
    return dict(kept=(rows, cols), maps=values)


def stretch(values, size, **options):
    options = options or dict(mode="bilinear", align_corners=False)
    return F.interpolate(values.movedim(-1, 0)[None], size, **options)[0].movedim(0, -1)


def read_centers(values, size):
    """The map at the centres of another map's cells."""
    grid = 2 * make_ramp(*size)[None] - 1
    options = dict(padding_mode="border", align_corners=False)
    return F.grid_sample(values.movedim(-1, 0)[None], grid, **options)[0].movedim(0, -1)


def check(answer, inputs):
    (small, canvas), (rows, cols) = inputs["maps"], inputs["kept"]
    height, width = canvas.shape[:2]
    cases = {
        "maps of ones": (torch.ones_like(small), torch.ones_like(canvas)),
        "a map of places below zeros": (make_ramp(*small.shape[:2]), torch.zeros_like(canvas)),
        "random maps": (small, canvas),
    }
    for where, (overview, local) in cases.items():
        inside = local[:rows, :cols]
        whole = stretch(overview, (height, width))
        mistakes = {
            "the global map was stretched over the border, too": inside + whole[:rows, :cols],
            "the corners were aligned, expected cell centres (align_corners=False)": (
                inside + stretch(overview, (rows, cols), mode="bilinear", align_corners=True)
            ),
            "the nearest cell was taken, expected bilinear interpolation": (
                inside + stretch(overview, (rows, cols), mode="nearest")
            ),
            "this is the mean of the maps, expected the sum": (
                (inside + read_centers(overview, (rows, cols))) / 2
            ),
            "the border was kept": local + whole,
            "the cells of the lower right corner were kept, expected the upper left": (
                local[-rows:, -cols:] + read_centers(overview, (rows, cols))
            ),
            "the local map is missing": read_centers(overview, (rows, cols)),
        }
        right = inside + read_centers(overview, (rows, cols))
        mistakes = {key: m for key, m in mistakes.items() if not torch.equal(m, right)}
        found = answer(overview.clone(), local.clone(), (rows, cols))
        expect(found, right, where, mistakes)


# %% solution
def fuse_padded(global_map, local_map, kept):
    local = local_map[: kept[0], : kept[1]]
    channels_first = global_map.permute(2, 0, 1)[None]
    stretched = F.interpolate(channels_first, tuple(kept), mode="bilinear", align_corners=False)
    return local + stretched[0].permute(1, 2, 0)


# %% mutants
MUTANTS = [
    ("the corners were aligned", "align_corners=False", "align_corners=True"),
    ("the nearest cell", 'mode="bilinear", align_corners=False', 'mode="nearest"'),
    (
        "the mean of the maps",
        "local + stretched[0].permute(1, 2, 0)",
        "(local + stretched[0].permute(1, 2, 0)) / 2",
    ),
    ("lower right corner", "local_map[: kept[0], : kept[1]]", "local_map[-kept[0] :, -kept[1] :]"),
    (
        "over the border",
        "    return local",
        "    whole = F.interpolate(channels_first, local_map.shape[:2], mode='bilinear')\n"
        "    stretched = whole[..., : kept[0], : kept[1]]\n    return local",
    ),
]

# %% exercise
# title: Which token shows this place?
# kind: code
# answer: find_token
# minutes: 25
# difficulty: 2
# practises: raster order, the order of the views, and separators
#
# The language model reads one sequence: the whole view, then the merged tiles, both row by row.
# Write `find_token(place, view, local, separator)`: the index of the *local* token whose cell
# contains a place of the image.
#
# - `place`: `(x, y)` in the unit frame, both from 0 up to but not including 1
# - `view`: `(rows, columns)` of the whole view, in tokens
# - `local`: `(rows, columns)` of the merged tiles, in tokens
# - `separator`: whether each row of either view ends with a separator token
# - result: a whole number, 0 for the first token of the sequence
#
# Example: a whole view of 2 × 2 and local tokens of 4 × 4 without separators. The place (0.3, 0.6)
# lies in row 2, column 1, so its index is 4 + 2 · 4 + 1 = 13.


# %% stub
def find_token(place, view, local, separator):
    raise NotImplementedError


# %% hint
# First find row and column of the cell. A cell of four columns is a quarter of the width.

# %% hint
# A separator makes each row one token longer, in the whole view, too.


# %% check
def make_inputs(rng):
    view = int(rng.randint(4, 7)), int(rng.randint(7, 9))
    local = int(rng.randint(9, 12)), int(rng.randint(14, 18))
    places = rng.uniform(0.55, 0.95, (6, 2)) * [1, 0.8]
    return dict(view=view, local=local, places=[(float(x), float(y)) for x, y in places])


def list_sequence(view, local, separator):
    """What each token of the sequence shows: (name of the view, row, column), or None."""
    shown = []
    for name, (rows, cols) in (("view", view), ("local", local)):
        for r in range(rows):
            shown += [(name, r, c) for c in range(cols)] + [None] * separator
    return shown


def check(answer, inputs):
    view, local = inputs["view"], inputs["local"]
    for separator in (False, True):
        shown = list_sequence(view, local, separator)
        known = {token: i for i, token in enumerate(shown) if token}
        cells = [(int(y * local[0]), int(x * local[1])) for x, y in inputs["places"]]
        flipped = [(int(x * local[0]), int(y * local[1])) for x, y in inputs["places"]]
        right = [known["local", *cell] for cell in cells]

        def change(shift):
            return [r + shift(row) for r, (row, _) in zip(right, cells)]  # noqa: B023

        mistakes = {
            "the whole view stands before the tiles, and its tokens are missing": change(
                lambda row: -view[0] * (view[1] + separator)  # noqa: B023
            ),
            "the separators of the whole view are missing": change(
                lambda row: -view[0] * separator  # noqa: B023
            ),
            "the separators of the tiles are missing": change(
                lambda row: -row * separator  # noqa: B023
            ),
            "no separator was counted": change(
                lambda row: -(view[0] + row) * separator  # noqa: B023
            ),
            "x and y are exchanged": [known["local", *cell] for cell in flipped],
            "the rows were counted with the number of rows, expected columns": change(
                lambda row: -row * (local[1] - local[0])
            ),
            "the index is one too large; the first token has index 0": change(lambda row: 1),
        }
        found = [answer(place, view, local, separator) for place in inputs["places"]]
        where = f"six places, separators: {'yes' if separator else 'no'}"
        expect(found, right, where, mistakes, 1e-9)


# %% solution
def find_token(place, view, local, separator):
    x, y = place
    row, column = int(y * local[0]), int(x * local[1])
    before = view[0] * (view[1] + separator)
    return before + row * (local[1] + separator) + column


# %% mutants
MUTANTS = [
    ("its tokens are missing", "before + row", "row"),
    (
        "separators of the whole view are missing",
        "view[0] * (view[1] + separator)",
        "view[0] * view[1]",
    ),
    ("separators of the tiles are missing", "row * (local[1] + separator)", "row * local[1]"),
    ("x and y are exchanged", "x, y = place", "y, x = place"),
    ("expected columns", "row * (local[1] + separator)", "row * (local[0] + separator)"),
]

# %% exercise
# title: Half a cell
# kind: prediction
# answer: values
# minutes: 15
# difficulty: 2
# practises: three ways to stretch a map, and their error
#
# A map of one row has n columns, and each column holds the x of its centre in the unit frame. The
# map is stretched to m columns. Your inputs name n, m and a column k of the long map, counted from
# 0. Predict the value of column k in three cases, as `(a, b, c)`, before you run any code:
#
# - a: `mode="bilinear", align_corners=False`
# - b: `mode="bilinear", align_corners=True`
# - c: `mode="nearest"`, the default of `F.interpolate`
#
# The check runs `F.interpolate`. Values within 0.0005 are right.

# %% given
inputs = get_inputs("fusion.3")
inputs

# %% stub
values = None  # (a, b, c)

# %% hint
# For a: the centre of column k is a place in the unit frame, and a ramp returns its place.

# %% hint
# For b: the first and the last column keep their values. Which value do the columns between get?

# %% hint
# For c: `nearest` copies the short column that holds the *left edge* of column k, not its centre.


# %% check
def make_inputs(rng):
    while True:
        n = int(rng.randint(5, 12))
        m = int(rng.randint(3 * n + 1, 6 * n))
        k = int(rng.randint(0.6 * m + 1, m - 3))
        cell = k * n // m  # of the short map
        wrong = (k + 0.5) / m, k / m, cell / n
        edges = k * n % m and (2 * k + 1) * n // (2 * m) > cell  # of a column across two cells
        if edges and min(abs((cell + 0.5) / n - w) for w in wrong) > 0.002:
            return dict(n=n, m=m, k=k)


def check(answer, inputs):
    n, m, k = inputs["n"], inputs["m"], inputs["k"]
    ramp = ((torch.arange(n) + 0.5) / n)[None, None, None]
    runs = (
        dict(mode="bilinear", align_corners=False),
        dict(mode="bilinear", align_corners=True),
        dict(mode="nearest"),
    )
    right = [F.interpolate(ramp, (1, m), **options)[0, 0, 0, k].item() for options in runs]
    if not isinstance(answer, (tuple, list)) or len(answer) != 3:
        raise WrongAnswer("expected three numbers, (a, b, c)")
    known = {
        "a": {
            "this is the left edge of column k": k / m,
            "k is counted from 0": (k - 0.5) / m,
            "half a column of the long map is missing: its centre is (k + ½) / m": k / m + 0.5 / n,
            "the short map holds the centres of its columns, and not their left edges": (
                right[0] - 0.5 / n
            ),
            "this is counted in columns of the short map, expected the unit frame": right[0] * n,
            "this is the index in the short map, expected the value there": right[0] * n - 0.5,
            "this is the place of an aligned corner": k / (m - 1),
            "this is b, with aligned corners": right[1],
        },
        "b": {
            "the corner columns do not reach 0 and 1; the values run from ½ / n to 1 − ½ / n": (
                k / (m - 1)
            ),
            "this is a, with cell centres": right[0],
            "the short map holds the centres of its columns, and not their left edges": (
                right[1] - 0.5 / n
            ),
        },
        "c": {
            "this is a, without a jump from cell to cell": right[0],
            'this is "nearest-exact"; "nearest" looks at the left edge of column k': (
                (int((k + 0.5) * n / m) + 0.5) / n
            ),
            "this is the left edge of the cell": int(k * n / m) / n,
            "this is the left edge of column k, expected the value of a cell": k / m,
            "this is the number of the cell, expected its value": int(k * n / m),
        },
    }
    for name, found, value in zip("abc", answer, right):
        expect(found, value, f"case {name}", known[name], tolerance=5e-4, secret=True)


# %% solution
n, m, k = inputs["n"], inputs["m"], inputs["k"]
centre = (k + 0.5) / m
aligned = (0.5 + k * (n - 1) / (m - 1)) / n
nearest = (int(k * n / m) + 0.5) / n
values = (centre, aligned, nearest)

# %% mutants
MUTANTS = [
    ("left edge of column k", "(k + 0.5) / m", "k / m"),
    ("do not reach 0 and 1", "(0.5 + k * (n - 1) / (m - 1)) / n", "k / (m - 1)"),
    ("case b: this is a", "(0.5 + k * (n - 1) / (m - 1)) / n", "centre"),
    ("left edge of the cell", "(int(k * n / m) + 0.5) / n", "int(k * n / m) / n"),
    ("nearest-exact", "(int(k * n / m) + 0.5) / n", "(int(centre * n) + 0.5) / n"),
    ("k is counted from 0", "(k + 0.5) / m", "(k - 0.5) / m"),
]

# %% open
# `fuse_maps(..., how="concat")` puts the channels behind each other instead of adding them. *A good
# answer shows* which layer of the sampler becomes wider and by how many weights, for language
# models of width 1024 and 4096, and the ramp test of the new map.

# %% open
# Add the *width of a cell* to the features of `VisualPosition`, so that the global and the local
# token of one place get different codes. *A good answer shows* the cosine similarity of the two
# codes before and after, and a task in which the difference helps, with an interval.

# %% quiz
# How are the maps of the two towers joined for the language model, and how for the sampler?
#
# - added for both
#   The language model reads two sequences. Only the sampler reads a sum.
# - concatenated along the channels for both
#   Neither reads wider features. The sequence becomes longer.
# + two sequences for the language model, a sum of maps for the sampler
#   The language model can attend to either view. The sampler needs one map.
# - a sum for the language model, two maps for the sampler
#   The two roles are exchanged.

# %% quiz
# Why may maps be added only after projection?
#
# - because the maps have different sizes
#   Sizes are made equal by stretching.
# + because the features of two towers live in different spaces
#   The same channel means different things in two towers, so a sum would mix unrelated numbers.
# - because projection makes the features positive
#   Projected features have both signs.
# - because the sum would be too large
#   The size of the numbers is no problem; a scale could be learned.

# %% quiz
# A map of 8 columns is stretched to 16 columns by cell centres. From where does column 0 read?
#
# - from x = 0
#   x = 0 is the edge of the image. Centres lie inside.
# + from x = 1/32
#   Column 0 of 16 has its centre at ½ / 16. This place lies left of the first old centre, 1/16, so
#   the old column 0 gives its value.
# - from x = 1/16
#   1/16 is the first centre of the old map.
# - from x = 1/8
#   1/8 is the border between the old columns 0 and 1.

# %% quiz
# A ramp test passes on maps of 8 × 8 cells. What should the next test use?
#
# - a larger square map
#   Exchanged axes can stay hidden on every square map with symmetric values.
# + a map with different numbers of rows and columns
#   Exchanged axes then give wrong values or wrong shapes.
# - a map of ones
#   A map of ones survives every shift.
# - float16
#   Precision is another question.

# %% quiz
# What does `VisualPosition` add to a token?
#
# - the index of the token in the sequence
#   The language model has position embeddings for the index.
# - the size of the image
#   The code knows places, no sizes.
# + a code of the place of its cell in the image
#   The global and the local token of one place get the same code.
# - the features of the neighbouring tokens
#   Attention can read the neighbours.
