"""Exercises of the lesson Scenes. tools/exercises.py makes what ships from this file."""

# %% setup
import torch

from ferretlite.regions.geometry import Box

# %% shared
from ferretlite.exercises.checks import WrongAnswer, expect


# %% exercise
# title: Who owns which pixel?
# kind: code
# answer: find_visible_boxes
# minutes: 25
# difficulty: 2
# practises: coverage, owners, and tight boxes without "+1"
#
# Objects are painted one over the other, in the order of the list. Write
# `find_visible_boxes(coverages)`, which returns the box of every object that stays visible.
#
# - `coverages`: list of float tensors `[height, width]`, the share of each pixel that the object
#   covers, from 0 to 1
# - An object becomes the owner of each pixel of which it covers *more than* a quarter. A later
#   object takes pixels from earlier objects.
# - An object stays if it still owns at least 40 % of the pixels that it owned when it was painted,
#   and at least three pixels.
# - result: list with a `Box` for each object, or None for an object that does not stay. The box is
#   the tightest box around the owned pixels. Boxes count edges: columns 3 to 5 reach from 3 to 6.


# %% stub
def find_visible_boxes(coverages):
    raise NotImplementedError


# %% hint
# Keep one array `owner` of whole numbers, which begins with −1. Paint object k with
# `owner[coverage > 0.25] = k`.

# %% hint
# Note how many pixels each object owns when it is painted. Count again at the end.

# %% hint
# `torch.where(owner == k)` gives the rows and the columns. The lower edge is the largest row
# plus 1.


# %% check
def make_inputs(rng):
    return dict(
        x=int(rng.randint(2, 5)),
        y=int(rng.randint(1, 3)),
        edge=float(rng.uniform(0.05, 0.2)),
        more=int(rng.randint(0, 3)),
    )


def rectangle(x0, y0, x1, y1, edge=0.0, size=(14, 22)):
    """Coverage 1 inside, and `edge` in a ring of one pixel around."""
    cover = torch.zeros(size)
    cover[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = edge
    cover[y0:y1, x0:x1] = 1
    return cover


def show(boxes):
    return ["None" if b is None else f"{[b.x1, b.y1, b.x2, b.y2]}" for b in boxes]


def compare(found, expected, where, mistakes):
    if not isinstance(found, list) or len(found) != len(expected):
        raise WrongAnswer(f"{where}: expected a list with {len(expected)} boxes or None")
    if any(b is not None and not isinstance(b, Box) for b in found):
        raise WrongAnswer(f"{where}: expected Box or None")
    if found == expected:
        return
    for message, wrong in mistakes.items():
        if found == wrong:
            raise WrongAnswer(f"{where}: {message}")
    raise WrongAnswer(f"{where}: found {show(found)}, expected {show(expected)}")


def check(answer, inputs):
    x, y, edge, more = inputs["x"], inputs["y"], inputs["edge"], inputs["more"]
    one = rectangle(x, y, x + 5, y + 4, edge)
    mistakes = {
        "boxes count edges: the last column plus 1": [Box(x, y, x + 4, y + 3)],
        "faint pixels do not count: more than a quarter is needed": [
            Box(x - 1, y - 1, x + 6, y + 5)
        ],
        "x and y are exchanged": [Box(y, x, y + 4, x + 5)],
    }
    compare(answer([one.clone()]), [Box(x, y, x + 5, y + 4)], "one object", mistakes)
    quarter = one.clone()
    quarter[y, x - 1] = 0.25
    mistakes = {"exactly a quarter does not count": [Box(x - 1, y, x + 5, y + 4)]}
    compare(answer([quarter]), [Box(x, y, x + 5, y + 4)], "a pixel of exactly a quarter", mistakes)
    w = 10 + more  # the second hides the right part of the first
    first, second = rectangle(x, y, x + w, y + 4), rectangle(x + w - 4, y, x + w, y + 4)
    mistakes = {
        "the first object still owns what was painted over": [
            Box(x, y, x + w, y + 4),
            Box(x + w - 4, y, x + w, y + 4),
        ],
        "an earlier object took pixels from a later one": [Box(x, y, x + w, y + 4), None],
    }
    expected = [Box(x, y, x + w - 4, y + 4), Box(x + w - 4, y, x + w, y + 4)]
    compare(answer([first, second]), expected, "two objects", mistakes)
    hider = rectangle(x, y, x + 7, y + 4)  # 3 of 10 columns stay
    whole = rectangle(x, y, x + 10, y + 4)
    mistakes = {
        "an object with 30 % of its pixels does not stay": [
            Box(x + 7, y, x + 10, y + 4),
            Box(x, y, x + 7, y + 4),
        ]
    }
    compare(answer([whole, hider]), [None, Box(x, y, x + 7, y + 4)], "a hidden object", mistakes)
    whole, hider = rectangle(x, y, x + 10, y + 10, edge), rectangle(x, y, x + 6, y + 10)
    stays, hides = Box(x + 6, y, x + 10, y + 10), Box(x, y, x + 6, y + 10)
    mistakes = {"exactly 40 % of the owned pixels are enough": [None, hides]}
    compare(answer([whole.clone(), hider.clone()]), [stays, hides], "40 of 100 pixels", mistakes)
    hider[y, x + 6] = 1  # one pixel more
    hides = Box(x, y, x + 7, y + 10)
    mistakes = {"39 % of the owned pixels are too few": [stays, hides]}
    compare(answer([whole, hider]), [None, hides], "39 of 100 pixels", mistakes)
    small = rectangle(x, y, x + 3, y + 1)
    mistakes = {"exactly three pixels are enough": [None]}
    compare(answer([small]), [Box(x, y, x + 3, y + 1)], "an object of three pixels", mistakes)
    tiny = rectangle(x, y, x + 2, y + 1)
    mistakes = {"two pixels are too few": [Box(x, y, x + 2, y + 1)]}
    compare(answer([tiny]), [None], "an object of two pixels", mistakes)


# %% solution
def find_visible_boxes(coverages):
    owner = torch.full(coverages[0].shape, -1)
    painted = []
    for k, coverage in enumerate(coverages):
        owned = coverage > 0.25
        owner[owned] = k
        painted.append(int(owned.sum()))
    boxes = []
    for k, before in enumerate(painted):
        rows, columns = torch.where(owner == k)
        if len(rows) < 3 or len(rows) < 0.4 * before:
            boxes.append(None)
            continue
        x0, y0 = int(columns.min()), int(rows.min())
        boxes.append(Box(x0, y0, int(columns.max()) + 1, int(rows.max()) + 1))
    return boxes


# %% mutants
MUTANTS = [
    (
        "boxes count edges",
        "int(columns.max()) + 1, int(rows.max()) + 1",
        "int(columns.max()), int(rows.max())",
    ),
    ("faint pixels do not count", "coverage > 0.25", "coverage > 0"),
    ("exactly a quarter", "coverage > 0.25", "coverage >= 0.25"),
    ("30 % of its pixels", "0.4 * before", "0.2 * before"),
    ("40 % of the owned pixels are enough", "0.4 * before", "0.6 * before"),
    ("40 % of the owned pixels are enough", "int(owned.sum())", "int((coverage > 0).sum())"),
    ("39 % of the owned pixels", "0.4 * before", "0.39 * before"),
    ("three pixels are enough", "len(rows) < 3 or ", "len(rows) <= 3 or "),
    ("two pixels are too few", "len(rows) < 3 or ", ""),
    ("painted over", "torch.where(owner == k)", "torch.where(coverages[k] > 0.25)"),
]

# %% exercise
# title: Sizes on a logarithmic axis
# kind: number
# answer: shares
# minutes: 10
# difficulty: 1
# practises: log-uniform and uniform distributions
#
# The longer side of an object, as a share of the side of the image, lies between `smallest` and
# `largest`. Which share of all objects is smaller than `limit`,
#
# 1. if the sizes are drawn log-uniformly,
# 2. if the sizes are drawn uniformly?
#
# Set `shares = (first, second)`, with at least three digits.

# %% given
inputs = get_inputs("scenes.2")
inputs

# %% stub
shares = None  # (log-uniform, uniform)

# %% hint
# Uniform: the share is a length divided by a length.

# %% hint
# Log-uniform: the same, with the logarithms of the three numbers. The base does not matter.


# %% check
def make_inputs(rng):
    smallest, largest = 1 / int(rng.randint(28, 48)), 1 / int(rng.randint(2, 5))
    return dict(
        smallest=round(smallest, 4),
        largest=round(largest, 4),
        limit=round(1 / int(rng.randint(9, 17)), 4),
    )


def check(answer, inputs):
    low, high, limit = (torch.tensor(inputs[k]).double() for k in ("smallest", "largest", "limit"))
    n = 20000  # the shares are counted, not computed by the formula
    even = (torch.arange(n).double() + 0.5) / n
    drawn = low * (high / low) ** even
    log = float((drawn < limit).double().mean())
    flat = float((low + (high - low) * even < limit).double().mean())
    mistakes = {
        "the two shares are exchanged": (flat, log),
        "these are the shares above the limit": (1 - log, 1 - flat),
        "sizes begin at the smallest size, and not at 0": (log, float(limit / high)),
        "these are percentages, expected shares from 0 to 1": (100 * log, 100 * flat),
    }
    where = "the shares do not fit the drawn sizes"
    expect(answer, (log, flat), where, mistakes, tolerance=2e-3, secret=True)


# %% solution
low, high, limit = (torch.tensor(inputs[k]) for k in ("smallest", "largest", "limit"))
log = torch.log(limit / low) / torch.log(high / low)
flat = (limit - low) / (high - low)
shares = (float(log), float(flat))

# %% mutants
MUTANTS = [
    ("exchanged", "(float(log), float(flat))", "(float(flat), float(log))"),
    ("above the limit", "(float(log), float(flat))", "(1 - float(log), 1 - float(flat))"),
    ("not at 0", "(limit - low) / (high - low)", "limit / high"),
]

# %% open
# Train a short model on scenes without rivals, and another on our scenes. *A good answer shows* REC
# of both models on scenes with rivals, with intervals, and which words each model ignores.

# %% quiz
# Why does every usual scene hold a rival of the same kind and a rival of the same colour?
#
# - The scenes look more natural.
#   Photographs rarely look so.
# + Otherwise the kind or the colour alone would find the target.
#   A model that ignores colours would look good.
# - The model then needs fewer scenes.
#   The rivals make the questions harder.
# - The boxes become larger.
#   Rivals do not change the size of the target.

# %% quiz
# Why are one in ten pairs of colour and kind kept out of training?
#
# - The pairs are too hard to see.
#   The pairs are chosen without regard to how they look.
# - The vocabulary would be too large.
#   All words of the pairs occur in other pairs.
# + The split `unseen` can then test whether the model combines known words.
#   Kinds and colours are known, the combination is new.
# - The pictures would repeat.
#   Seeds decide about pictures.

# %% quiz
# What does a log-uniform draw of sizes give?
#
# + as many objects between 1/32 and 1/16 as between 1/16 and 1/8
#   Equal ratios get equal shares.
# - as many small objects as large ones, measured in pixels of area
#   Areas grow with the square of the side.
# - mostly large objects
#   A uniform draw gives mostly large objects.
# - the sizes of photographs
#   The lesson does not compare with photographs.

# %% quiz
# Small objects are painted last. What would happen in the opposite order?
#
# - The colours of small objects would change.
#   Colours do not depend on the order.
# - Large objects would lose their boxes.
#   Large objects lose few pixels to small ones.
# + Most small objects would vanish under large ones.
#   The pictures would then not follow the intended sizes.
# - Nothing, since objects never overlap.
#   In three scenes of ten, objects may overlap.

# %% quiz
# An object owns the columns 3 to 5 and the rows 2 to 2. Which box is right?
#
# - [3, 2, 5, 2]
#   Such a box has no height.
# + [3, 2, 6, 3]
#   Boxes count edges: the last column ends at 6, and the row ends at 3.
# - [2, 3, 3, 6]
#   x comes first.
# - [3, 2, 6, 4]
#   One row has the height 1.
