"""Exercises of the lesson Resolution. tools/exercises.py makes what ships from this file."""

# %% setup
import torch

# %% shared
import numpy as np
from PIL import Image

from ferretlite.exercises.checks import expect

# %% exercise
# title: Tiles that overlap
# kind: code
# answer: merge_overlapping
# minutes: 30
# difficulty: 3
# practises: raster order, rows and columns, and the border between tiles
#
# An object on a cut is seen in two halves. Tiles that overlap see more of the object. Write
# `merge_overlapping(maps, grid, overlap)`, which merges the maps of tiles that share cells.
#
# - `maps`: tensor `[rows · cols, h, w, C]`, one map for each tile, in raster order
# - `grid`: `(rows, cols)`
# - `overlap`: how many cells two neighbours share, in both directions
# - result: tensor `[H, W, C]` with H = rows · h − (rows − 1) · overlap, and W likewise. Cells of
#   several tiles hold the *mean* of these tiles. Four tiles meet in the corners.
#
# Example: two tiles of one row, `a b c` and `d e f`, with an overlap of 1 give
# `a  b  (c + d) / 2  e  f`.


# %% stub
def merge_overlapping(maps, grid, overlap):
    raise NotImplementedError


# %% hint
# Neighbouring tiles begin h − overlap cells apart. Add every tile to a map of zeros at its place.

# %% hint
# A second map counts how many tiles were added to each cell. Divide the sum by the count.


# %% check
def make_inputs(rng):
    grid = (int(rng.randint(2, 4)), int(rng.randint(4, 6)))
    h, w = int(rng.randint(5, 7)), int(rng.randint(7, 9))
    shape = (grid[0] * grid[1], h, w, 2)
    maps = torch.from_numpy(rng.uniform(1, 9, shape)).float()
    return dict(maps=maps, grid=grid, overlap=int(rng.randint(1, 3)))


def list_owners(shape, grid, overlap):
    """For every cell of the merged map: the (tile, row, column) that show the cell."""
    _, h, w, _ = shape
    owners = {}
    for tile in range(grid[0] * grid[1]):
        top, left = tile // grid[1] * (h - overlap), tile % grid[1] * (w - overlap)
        for r in range(h):
            for c in range(w):
                owners.setdefault((top + r, left + c), []).append((tile, r, c))
    return owners


def merge(maps, owners, join):
    size = [max(place[axis] for place in owners) + 1 for axis in (0, 1)]
    merged = torch.zeros(*size, maps.shape[-1])
    for (r, c), held in owners.items():
        merged[r, c] = join(torch.stack([maps[place] for place in held]))
    return merged


def check(answer, inputs):
    maps, grid, overlap = inputs["maps"], inputs["grid"], inputs["overlap"]
    rows, cols = grid
    plain = torch.cat([torch.cat(list(maps[r * cols : (r + 1) * cols]), 1) for r in range(rows)])
    expect(answer(maps.clone(), grid, 0), plain, "no overlap")
    owners = list_owners(maps.shape, grid, overlap)
    right = merge(maps, owners, lambda held: held.mean(0))
    order = torch.arange(rows * cols).reshape(cols, rows).T.flatten()
    mistakes = {
        "the last tile overwrites its neighbours, expected the mean": (
            merge(maps, owners, lambda held: held[-1])
        ),
        "the first tile stays, expected the mean": merge(maps, owners, lambda held: held[0]),
        "shared cells hold the sum, expected the mean": (
            merge(maps, owners, lambda held: held.sum(0))
        ),
        "tiles were taken column by column, expected row by row": (
            merge(maps[order], owners, lambda held: held.mean(0))
        ),
        "shared cells were divided by 2, but four tiles meet in the corners": (
            merge(maps, owners, lambda held: held.sum(0) / min(len(held), 2))
        ),
    }
    where = f"{rows} × {cols} tiles with an overlap of {overlap}"
    expect(answer(maps.clone(), grid, overlap), right, where, mistakes)


# %% solution
def merge_overlapping(maps, grid, overlap):
    rows, cols = grid
    h, w, channels = maps.shape[1:]
    size = rows * h - (rows - 1) * overlap, cols * w - (cols - 1) * overlap
    total, count = torch.zeros(*size, channels), torch.zeros(*size, 1)
    for tile, part in enumerate(maps):
        row, col = divmod(tile, cols)
        top, left = row * (h - overlap), col * (w - overlap)
        total[top : top + h, left : left + w] += part
        count[top : top + h, left : left + w] += 1
    return total / count


# %% mutants
MUTANTS = [
    (
        "overwrites its neighbours",
        "    return total / count",
        "    for tile, part in enumerate(maps):\n        row, col = divmod(tile, cols)\n"
        "        top, left = row * (h - overlap), col * (w - overlap)\n"
        "        total[top : top + h, left : left + w] = part\n    return total",
    ),
    ("hold the sum", "return total / count", "return total"),
    ("found the shape", "rows * h - (rows - 1) * overlap", "rows * h"),
    ("four tiles meet in the corners", "return total / count", "return total / count.clamp(max=2)"),
]

# %% exercise
# title: How many tokens?
# kind: number
# answer: tokens
# minutes: 15
# difficulty: 1
# practises: patches, tiles, the whole view, and the choice of a grid
#
# Your inputs name the size of an image, the side of a tile, the side of a patch, and a menu of
# grids (rows, columns). The grid is chosen by the rule of the lesson: keep most pixels of the
# image, then waste least. Every tile and the whole view pass the tower. The projector joins 2 × 2
# patches to one token. A *separator* token ends each row of tokens of the whole view, and each row
# of the merged tiles. How many tokens does the language model receive?

# %% given
inputs = get_inputs("resolution.2")
inputs

# %% stub
tokens = None  # a whole number

# %% hint
# Begin with one tile: how many tokens lie in a row of the tile?

# %% hint
# The merged tiles have grid rows · (rows of a tile) rows of tokens. Each of the rows has one
# separator, however many tiles are side by side.


# %% check
def make_inputs(rng):
    patch = int(rng.choice([8, 14, 16]))
    tile = patch * 2 * int(rng.randint(8, 33))
    grids = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 2), (2, 4), (4, 2), (3, 4), (4, 3)]
    rows, cols = grids[rng.randint(4, len(grids))]
    size = int(rows * tile * rng.uniform(0.8, 0.98)), int(cols * tile * rng.uniform(0.8, 0.98))
    return dict(size=size, tile=tile, patch=patch, grids=grids)


def choose(size, tile, grids):
    """The rule of the lesson, with whole numbers of pixels kept and wasted."""

    def rank(grid):
        scale = min(grid[0] * tile / size[0], grid[1] * tile / size[1], 1)
        kept = size[0] * size[1] * scale * scale
        return -round(kept), round(grid[0] * grid[1] * tile * tile - kept)

    return min(grids, key=rank)


def count(grid, side, view=True, separator=True):
    rows, cols = grid
    local = rows * side * (cols * side + separator)
    return local + view * side * (side + separator)


def check(answer, inputs):
    tile, patch = inputs["tile"], inputs["patch"]
    side = tile // patch // 2
    grid = choose(inputs["size"], tile, inputs["grids"])
    rows, cols = grid
    mistakes = {
        "the whole view is missing": count(grid, side, view=False),
        "the separators are missing": count(grid, side, separator=False),
        "the projector joins 2 × 2 patches": count(grid, 2 * side),
        "the grid has rows and columns exchanged": count(grid[::-1], side),
        "each tile got separators of its own, but the tiles are merged first": (
            (rows * cols + 1) * side * (side + 1)
        ),
        "tokens of text are no part of the image; see the shape of one tile": side * side,
    }
    expect(answer, count(grid, side), "the number of tokens", mistakes, 1e-9, secret=True)


# %% solution
side = inputs["tile"] // inputs["patch"] // 2


def rank(grid):
    (height, width), tile = inputs["size"], inputs["tile"]
    scale = min(1, grid[0] * tile / height, grid[1] * tile / width)
    kept = height * width * scale**2
    return -kept, grid[0] * grid[1] * tile**2 - kept


rows, columns = min(inputs["grids"], key=rank)
view = side * (side + 1)
tokens = rows * side * (columns * side + 1) + view

# %% mutants
MUTANTS = [
    ("the whole view is missing", "view = side * (side + 1)", "view = 0"),
    ("the projector joins", 'inputs["patch"] // 2', 'inputs["patch"]'),
    ("rows and columns exchanged", "rows, columns = min", "columns, rows = min"),
    (
        "separators of its own",
        "rows * side * (columns * side + 1)",
        "rows * side * columns * (side + 1)",
    ),
]

# %% exercise
# title: Where does a padded box go?
# kind: prediction
# answer: padded_box
# minutes: 15
# difficulty: 2
# practises: stretching and padding, and boxes in the unit frame
#
# A photo is resized so that its longer side fits a square, and *centred* in the square; the rest is
# a border. (The lesson puts the image into the upper left corner. LLaVA-NeXT centres.) Your inputs
# name the size of the photo, the side of the square, and a box in pixels of the photo. Predict the
# box in the *unit frame of the square*, as `(x1, y1, x2, y2)`, before you run any code. The check
# paints the box, pads the photo and measures. Two pixels of the square are tolerated.

# %% given
inputs = get_inputs("resolution.3")
inputs

# %% stub
padded_box = None  # (x1, y1, x2, y2), fractions of the square

# %% hint
# Only one direction has a border. How wide is the border above the photo, as a fraction of the
# square?

# %% hint
# In pixels of the photo, the square has the longer side as its side. Move the box by the border
# before you divide, and divide both directions by the same number.


# %% check
def make_inputs(rng):
    height, width = int(rng.randint(200, 300)), int(rng.randint(500, 640))
    x1, y1 = int(width * rng.uniform(0.1, 0.3)), int(height * rng.uniform(0.05, 0.2))
    box = [x1, y1, x1 + int(width * rng.uniform(0.3, 0.5)), y1 + int(height * 0.5)]
    size = (height, width) if rng.randint(2) else (width, height)
    return dict(size=size, side=336, box=box if size[0] < size[1] else [*box[1::-1], *box[:1:-1]])


def check(answer, inputs):
    (h, w), side, box = inputs["size"], inputs["side"], inputs["box"]
    photo = np.zeros((h, w), np.uint8)
    photo[box[1] : box[3], box[0] : box[2]] = 255
    scale = side / max(h, w)
    resized = Image.fromarray(photo).resize((round(w * scale), round(h * scale)))
    square = Image.new("L", (side, side))
    square.paste(resized, ((side - resized.width) // 2, (side - resized.height) // 2))
    shown = np.array(square) > 127
    rows, columns = np.nonzero(shown.any(1))[0], np.nonzero(shown.any(0))[0]
    right = [columns[0] / side, rows[0] / side, (columns[-1] + 1) / side, (rows[-1] + 1) / side]
    most = max(h, w)
    left, top = (most - w) / 2 / most, (most - h) / 2 / most
    stretched = [box[0] / w, box[1] / h, box[2] / w, box[3] / h]
    corner = [v / most for v in box]
    mistakes = {
        "this is the box of a stretched photo": stretched,
        "this is the box of a photo in the upper left corner": corner,
        "the border lies on one side here, expected half of the border on each side": [
            v + 2 * shift for v, shift in zip(corner, (left, top) * 2)
        ],
        "the border lies in the other direction": [
            v + shift for v, shift in zip(corner, (top, left) * 2)
        ],
        "these are pixels of the square": [v * side for v in right],
    }
    expect(answer, tuple(right), "the box", mistakes, tolerance=2 / side, secret=True)


# %% solution
height, width = inputs["size"]
longer = max(height, width)
left, top = (longer - width) / 2, (longer - height) / 2
x1, y1, x2, y2 = inputs["box"]
padded_box = ((x1 + left) / longer, (y1 + top) / longer, (x2 + left) / longer, (y2 + top) / longer)

# %% mutants
MUTANTS = [
    ("upper left corner", "(longer - width) / 2, (longer - height) / 2", "0, 0"),
    (
        "half of the border on each side",
        "(longer - width) / 2, (longer - height) / 2",
        "longer - width, longer - height",
    ),
    ("in the other direction", "left, top = ", "top, left = "),
]

# %% open
# Find an image size for which `FERRET_GRIDS` with tiles of 224 pixels wastes more than half of the
# canvas. *A good answer shows* the worst case for images larger than one tile, and a curve of the
# wasted share over the aspect ratio.

# %% open
# Change `align_corners` to `True` in `interpolate_positions` and look at the toy row again. *A good
# answer shows* from where a patch at 1/8 of the width now gets its position, and for which number
# of patches the error is largest.

# %% quiz
# What does the grid `(1, 3)` mean?
#
# - one column with three rows
#   Grids are (rows, columns), in the order of sizes.
# + one row with three columns
#   Grids are (rows, columns): one row of three tiles, for a wide image.
# - a tile that is three times as wide as high
#   Every tile is a full input of the tower. The grid counts tiles.
# - three tiles with one token each
#   The number of tokens of a tile follows from its patches.

# %% quiz
# Why does the library stretch an image to its canvas by default?
#
# - because stretching keeps the shape of objects
#   Padding keeps shapes; stretching changes them.
# - because stretching needs fewer tokens
#   The canvas has the same number of tokens.
# + because a place at 30 % of the width stays at 30 % of the width
#   Boxes, regions and maps then need no conversion.
# - because towers were trained on stretched images only
#   CLIP was trained on crops that keep the shape. The reason is the frame.

# %% quiz
# A tower for 224 pixels gets an image of 1000 × 1000 pixels. Which way needs no change of the
# tower?
#
# + cutting the image into tiles
#   Each tile has the native size of the tower.
# - enlarging the input of the tower
#   The position embeddings have to be interpolated, and the sequence is longer than in training.
# - reading every second row
#   The image would still have 500 rows.
# - interpolating the features
#   Features of a small view do not contain the lost details.

# %% quiz
# Which grid wins when two grids keep equally many pixels of the image?
#
# - the grid with more tiles
#   More tiles cost tokens and show nothing new.
# + the grid that wastes less of its canvas
#   Empty pixels cost tokens, so the smaller waste decides first.
# - the first grid of the menu
#   The order of the menu decides only after all other rules.
# - the square grid
#   A square canvas may have large borders.

# %% quiz
# Where do position embeddings of a larger grid come from?
#
# - from new training
#   Training may follow, but the start comes from the learned vectors.
# - from the corner values of the old grid
#   Corners would move every patch, since vectors belong to centres.
# + from interpolation between the centres of the old patches
#   The old and the new grid cover the same image, and each vector belongs to the centre of its
#   patch.
# - from zeros
#   The tower could then not tell patches apart.
