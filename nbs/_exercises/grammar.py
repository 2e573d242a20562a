"""Exercises of the lesson Grammar. tools/exercises.py makes what ships from this file."""

# %% setup
import re

from ferretlite.regions.geometry import Box
from ferretlite.regions.grammar import Grounding, format_groundings, parse_groundings

# %% shared
from ferretlite.exercises.checks import WrongAnswer, expect

NAMES = "dog cat tree lamp boat kite horse chair clock flower".split()


def draw_names(rng, n):
    return [NAMES[i] for i in rng.permutation(len(NAMES))[:n]]


# %% exercise
# title: Read location tokens
# kind: code
# answer: read_location_tokens
# minutes: 25
# difficulty: 2
# practises: bins, the middle of a bin, and names that go on
#
# Some models write a box as four tokens: `dog <loc_62> <loc_125> <loc_187> <loc_333>`. The numbers
# are bins of x1, y1, x2 and y2, from 0 to 999. Write `read_location_tokens(text, size)`.
#
# - `text`: names and boxes, separated by blanks. A box without words before it keeps the last name.
# - `size`: `(height, width)` of the image
# - result: list of `(name, [x1, y1, x2, y2])`, one for each box, in pixels. A bin is read as its
#   *middle*. Tokens that do not come in fours are dropped together with their neighbours: a run of
#   five tokens without words between them is no box.
#
# Example: with the size `(100, 200)`, the token `<loc_62>` as x1 is 12.5 pixels.


# %% stub
def read_location_tokens(text, size):
    raise NotImplementedError


# %% hint
# `re.split` with a group, or `re.finditer`, separates words from runs of tokens.

# %% hint
# The middle of bin b is (b + ½) / 1000 of a side. Which side belongs to x?


# %% check
def make_inputs(rng):
    size = (int(rng.randint(200, 300)), int(rng.randint(500, 700)))
    names = draw_names(rng, 4)
    boxes = [sorted(rng.randint(0, 499, 2)) + sorted(rng.randint(500, 1000, 2)) for _ in range(5)]
    boxes = [[int(b[0]), int(b[1]), int(b[2]), int(b[3])] for b in boxes]
    return dict(size=size, names=names, boxes=boxes)


def write(box):
    return " ".join(f"<loc_{b}>" for b in box)


def place(box, size, shift=0.5, per=1000):
    sides = size[1], size[0], size[1], size[0]
    return [(b + shift) / per * side for b, side in zip(box, sides)]


def check(answer, inputs):
    size, names, boxes = inputs["size"], inputs["names"], inputs["boxes"]
    one, far = boxes[0], boxes[1][:2] + [999, 999]

    def read(box, **options):
        return [(names[0], place(box, size, **options))]

    for box, where in ((one, "one box"), (far, "a box that ends at bin 999")):
        mistakes = {
            "bins are read at their lower edge, expected their middle": read(box, shift=0),
            "bins are read at their upper edge, expected their middle": read(box, shift=1),
            "height and width are exchanged": [(names[0], place(box, size[::-1]))],
            "999 bins are counted, expected 1000": read(box, shift=0, per=999),
        }
        text = f"{names[0]} {write(box)}"
        expect(answer(text, size), read(box), where, mistakes, tolerance=1e-6)
    text = f"{names[0]} {write(boxes[0])} a red {names[1]} {write(boxes[1])}"
    words = f"a red {names[1]}"
    right = [(names[0], place(boxes[0], size)), (words, place(boxes[1], size))]
    mistakes = {"a name of several words lost a word": [right[0], (names[1], right[1][1])]}
    expect(answer(text, size), right, "two names", mistakes, tolerance=1e-6)
    text = f"{names[2]} {write(boxes[2])} {write(boxes[3])}"
    right = [(names[2], place(box, size)) for box in boxes[2:4]]
    mistakes = {
        "the second box has no name, expected the last name": [right[0], ("", right[1][1])],
        "only the first box was read": right[:1],
    }
    expect(answer(text, size), right, "two boxes of one name", mistakes, tolerance=1e-6)
    text = f"{names[3]} {write(boxes[4])} <loc_7> {names[0]} {write(boxes[0])}"
    mistakes = {
        "a run of five tokens was read as a box": [
            (names[3], place(boxes[4], size)),
            (names[0], place(boxes[0], size)),
        ]
    }
    expect(answer(text, size), read(one), "a run of five tokens", mistakes, tolerance=1e-6)
    for run, where in (
        (f"{write(boxes[4])} <loc_7> <loc_8>", "a run of six tokens"),
        (write(boxes[4][:3]), "a run of three tokens"),
    ):
        text = f"{names[3]} {run} {names[0]} {write(one)}"
        expect(answer(text, size), read(one), where, tolerance=1e-6)
    expect(answer(f"no {names[0]} here", size), [], "a text without boxes")


# %% solution
def read_location_tokens(text, size):
    found, name = [], ""
    for words, run in re.findall(r"([^<]*)((?:<loc_\d+>\s*)+)", text):
        name = words.strip() or name
        bins = [int(number) for number in re.findall(r"\d+", run)]
        if len(bins) % 4:
            continue
        for k in range(0, len(bins), 4):
            sides = (size[1], size[0]) * 2
            box = [(b + 0.5) / 1000 * side for b, side in zip(bins[k : k + 4], sides)]
            found.append((name, box))
    return found


# %% mutants
CUT = "bins = bins[: len(bins) // 4 * 4]\n        if not bins:"
MUTANTS = [
    ("at their lower edge", "(b + 0.5) / 1000", "b / 1000"),
    ("at their upper edge", "(b + 0.5) / 1000", "(b + 1) / 1000"),
    ("height and width are exchanged", "(size[1], size[0]) * 2", "(size[0], size[1]) * 2"),
    ("lost a word", "words.strip() or name", "(words.split() or [name])[-1]"),
    ("only the first box", "range(0, len(bins), 4)", "range(1)"),
    ("a run of five tokens was read", "if len(bins) % 4:", CUT),
    ("a run of six tokens", "if len(bins) % 4:", "if len(bins) == 5:"),
    ("a run of three tokens", "if len(bins) % 4:", "if len(bins) in (5, 6):"),
]

# %% exercise
# title: From the crop to the photo
# kind: code
# answer: move_to_photo
# minutes: 20
# difficulty: 2
# practises: the writer and the parser, and boxes in the frame of another image
#
# A model looked at a crop of a photo and wrote boxes. The bins of the answer belong to the *crop*.
# Write `move_to_photo(text, crop, size)`, which returns the same answer with bins of the *photo*.
#
# - `text`: an answer in Ferret's form, such as `dog [62, 125, 187, 333]`
# - `crop`: `[x1, y1, x2, y2]` in pixels of the photo
# - `size`: `(height, width)` of the photo
# - result: text in Ferret's form. Names and their order stay. A bin of the crop is read as its
#   middle, and the bin of the photo is the bin that holds this place.
#
# `parse_groundings` and `format_groundings` of the lesson read and write; `Box` and `Grounding` are
# imported, too.


# %% stub
def move_to_photo(text, crop, size):
    raise NotImplementedError


# %% hint
# Which size does `parse_groundings` need: that of the photo or that of the crop?

# %% hint
# A box of the crop becomes a box of the photo when the upper left corner of the crop is added.


# %% check
def make_inputs(rng):
    size = (int(rng.randint(500, 600)), int(rng.randint(900, 1100)))
    x, y = int(rng.randint(200, 400)), int(rng.randint(60, 150))
    crop = [x, y, x + int(rng.randint(300, 450)), y + int(rng.randint(200, 300))]
    names = draw_names(rng, 2)
    while True:
        bins = []
        for _ in range(3):
            x1, y1 = rng.randint(50, 450, 2)
            bins.append(
                [int(v) for v in (x1, y1, x1 + rng.randint(90, 400), y1 + rng.randint(90, 400))]
            )
        # the edges of bins lead to other boxes, and no place lies between two bins
        places = [
            [move(b, crop, size, part=0.5 + p) for b in bins] for p in (-0.5, 0.5, -1e-6, 1e-6)
        ]
        right = [move(b, crop, size) for b in bins]
        if right not in places[:2] and places[2] == places[3] == right:
            return dict(size=size, crop=crop, names=names, bins=bins)


def list_bins(text):
    return [[int(n) for n in group.split(",")] for group in re.findall(r"\[([\d, ]+)\]", text)]


def move(bins, crop, size, scale=None, offset=True, part=0.5):
    """Bins of the photo, computed from fractions of the crop."""
    width, height = scale or (crop[2] - crop[0], crop[3] - crop[1])
    start = crop[:2] if offset else (0, 0)
    sides = (width, height) * 2
    pixels = [(b + part) / 1000 * s + start[i % 2] for i, (b, s) in enumerate(zip(bins, sides))]
    whole = (size[1], size[0]) * 2
    return [min(max(int(1000 * p / s), 0), 999) for p, s in zip(pixels, whole)]


def check(answer, inputs):
    size, crop, names, bins = (inputs[key] for key in ("size", "crop", "names", "bins"))
    boxes = [str(b) for b in bins]
    text = f"{names[0]} {boxes[0]} {boxes[1]}, {names[1]} {boxes[2]}"
    found = answer(text, list(crop), size)
    if not isinstance(found, str):
        raise WrongAnswer("expected text in Ferret's form")
    heads = [found.find(name) for name in names]
    if min(heads) < 0 or heads != sorted(heads) or found.count("[") != 3:
        raise WrongAnswer(f"{found!r}: expected both names in their order, and three boxes")
    photo = size[1], size[0]
    exchanged = [crop[1], crop[0], *crop[2:]]
    side = crop[2] - crop[0], crop[3] - crop[1]
    mistakes = {
        "the boxes still have the bins of the crop": bins,
        "the corner of the crop is missing": [move(b, crop, size, offset=False) for b in bins],
        "the bins were read in the size of the photo, but belong to the crop": [
            move(b, crop, size, scale=photo) for b in bins
        ],
        "the corner of the crop was added as (y, x)": [
            move(b, exchanged, size, scale=side) for b in bins
        ],
        "bins are read at their lower edge, expected their middle": [
            move(b, crop, size, part=0) for b in bins
        ],
        "bins are read at their upper edge, expected their middle": [
            move(b, crop, size, part=1) for b in bins
        ],
        "the boxes were written in the size of the crop": [
            move(b, crop, (side[1], side[0])) for b in bins
        ],
    }
    right = [move(b, crop, size) for b in bins]
    found = list_bins(found)
    for message, wrong in mistakes.items():
        if found == wrong:
            raise WrongAnswer(message)
    for one, other in zip(found, right):
        if one != other:
            raise WrongAnswer(f"found the box {one}, expected {other}")


# %% solution
def move_to_photo(text, crop, size):
    x, y, right, bottom = crop
    groundings = parse_groundings(text, (bottom - y, right - x))
    moved = []
    for g in groundings:
        boxes = [Box(b.x1 + x, b.y1 + y, b.x2 + x, b.y2 + y) for b in g.boxes]
        moved.append(Grounding(g.name, boxes))
    return format_groundings(moved, size)


# %% mutants
MUTANTS = [
    ("the corner of the crop is missing", "    moved = []", "    x = y = 0\n    moved = []"),
    ("in the size of the photo, but belong", "(bottom - y, right - x)", "size"),
    ("added as (y, x)", "    moved = []", "    x, y = y, x\n    moved = []"),
    (
        "at their lower edge",
        "    moved = []",
        "    x, y = x - (right - x) / 2000, y - (bottom - y) / 2000\n    moved = []",
    ),
    (
        "still have the bins of the crop",
        "return format_groundings(moved, size)",
        "return format_groundings(groundings, (bottom - y, right - x))",
    ),
]

# %% open
# `find_groundings` reports `(100, 200, 300, 400)` and does not read the box. Change the function so
# that such boxes are read. *A good answer shows* which names can no longer be written, whether
# `format_groundings` refuses these names without a further change, and a test with random texts.

# %% open
# Time a naive parser, with regular expressions that go back, and `find_groundings` on `"[" * n`.
# *A good answer shows* both curves for n up to 100,000 and the pattern that makes the naive parser
# slow.

# %% quiz
# A model writes `dog [62, 125, 187, 333]` about an image of 1000 × 1000 pixels. Where is x1?
#
# - at 62
#   62 is the lower edge of the bin. The parser takes the middle.
# + at 62.5
#   A bin is one pixel wide in this image, and the middle of bin 62 is 62.5.
# - at 63
#   63 is the upper edge of the bin.
# - anywhere between 62 and 63
#   The true place is anywhere in the bin. The parser has to return one number, the middle.

# %% quiz
# Why does the writer read its own text?
#
# + because a name may contain words or signs that the parser reads in another way
#   The writer refuses a name that does not return. No list of forbidden names is needed.
# - because the text has to be short
#   Reading does not change the length.
# - because bins could be negative
#   Boxes are clipped before the text is written.
# - because models write other texts
#   Texts of models are read by the tolerant parser. The writer writes training data and prompts.

# %% quiz
# A long answer contains one bracket that cannot be read. What does the tolerant parser do?
#
# - The parser raises an error.
#   One bad bracket would lose all good boxes of the answer.
# - The parser returns no boxes.
#   The good boxes count.
# + The parser drops the box and lists the reason.
#   The other boxes stay, and nothing is lost in silence.
# - The parser guesses the missing numbers.
#   A guess would be a box that the model did not write.

# %% quiz
# Why do spans store positions in the text?
#
# - because positions take less memory than boxes
#   A span holds the box, too.
# - because names may repeat
#   Repeated names are no problem for a list of boxes.
# + because each score belongs to the tokens of one box, and a dropped box must not shift the scores
#   The score is looked up by the position, so the other scores stay with their boxes.
# - because the text is changed later
#   The text does not change.

# %% quiz
# Which answer does the bin 1000 deserve?
#
# - The box is dropped.
#   Public scripts write the bin 1000 for the far edge, so many good boxes would be lost.
# + The bin is read as 999, with a warning.
#   The place is known to a thousandth of the side, and the reader learns about the change.
# - The bin is read as 1000, as the true edge.
#   A place behind the last bin would not return when the box is written again.
# - All bins are divided by 1001.
#   Every other place would move.
