"""Exercises of the lesson Processor. tools/exercises.py makes what ships from this file."""

# %% setup
import math

from ferretlite.regions.geometry import Box

# %% shared
import torch

from ferretlite.exercises.checks import WrongAnswer, expect


# %% exercise
# title: A box on a picture that lies on its side
# kind: code
# answer: turn_box
# minutes: 20
# difficulty: 2
# practises: the image frame, and boxes that count edges
#
# A camera stored a picture on its side. A viewer turns the picture before it is shown. An
# annotation still has its box in the *stored* pixels. Write `turn_box(box, size, quarters)`, which
# returns the box in the upright picture.
#
# - `box`: `Box` in the stored picture
# - `size`: `(height, width)` of the stored picture
# - `quarters`: quarter turns **clockwise** that make the picture upright: 0, 1, 2 or 3
# - result: `Box` in the upright picture
#
# Example: the box (0, 0, 2, 1) in the upper left corner of a picture with height 4 and width 6 lies
# in the upper right corner after one quarter turn: (3, 0, 4, 2).


# %% stub
def turn_box(box, size, quarters):
    raise NotImplementedError


# %% hint
# Solve a single quarter turn first. A point (x, y) of a picture with the height h moves to
# (h − y, x). Then the picture has another size: the old width is the new height.

# %% hint
# The turn exchanges corners: take the smaller number as the left or top edge. Repeat the single
# turn `quarters` times.


# %% check
def make_inputs(rng):
    h, w = int(rng.randint(20, 30)), int(rng.randint(40, 60))
    x, y = int(rng.randint(2, 12)), int(rng.randint(1, 6))
    return dict(size=(h, w), box=(x, y, x + int(rng.randint(13, 20)), y + int(rng.randint(4, 9))))


def paint(box, size):
    picture = torch.zeros(size, dtype=torch.bool)
    picture[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
    return picture


def read(picture):
    rows, columns = torch.where(picture)
    edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return Box(*(float(e) for e in edges))


def check(answer, inputs):
    size, box = inputs["size"], inputs["box"]
    picture = paint(box, size)
    x1, y1, x2, y2 = box
    h, w = size
    for k in (0, 1, 3, 2):
        right = read(torch.rot90(picture, -k))
        mistakes = {
            "the picture was turned counterclockwise": read(torch.rot90(picture, k)),
            "the box was not turned": Box(*box),
        }
        if k == 1:
            mistakes |= {
                "height and width of the picture are exchanged": Box(w - y2, x1, w - y1, x2),
                "boxes count edges, not the last pixel: no minus one": Box(
                    h - 1 - y2, x1, h - 1 - y1, x2
                ),
                "x and y are exchanged, but nothing was mirrored": Box(y1, x1, y2, x2),
            }
        found = answer(Box(*box), size, k)
        if not isinstance(found, Box):
            raise WrongAnswer("expected a Box")
        where = f"a picture of {h} × {w} pixels, {k} quarter turns"
        expect(found, right, where, mistakes)


# %% solution
def turn_box(box, size, quarters):
    height, width = size
    for _ in range(quarters):
        box = Box(height - box.y2, box.x1, height - box.y1, box.x2)
        height, width = width, height
    return box


# %% mutants
MUTANTS = [
    ("counterclockwise", "range(quarters)", "range(-quarters % 4)"),
    ("was not turned", "range(quarters)", "range(0)"),
    ("exchanged", "height, width = size", "width, height = size"),
    (
        "no minus one",
        "Box(height - box.y2, box.x1, height - box.y1, box.x2)",
        "Box(height - 1 - box.y2, box.x1, height - 1 - box.y1, box.x2)",
    ),
]

# %% exercise
# title: A score that a long name does not lower
# kind: code
# answer: score_by_token
# minutes: 20
# difficulty: 2
# practises: which token wrote which character, and products of probabilities
#
# The score of the lesson multiplies the probabilities of all tokens, so a box with a long name gets
# a small score. Write `score_by_token(pieces, chances, name, box)`. The function takes the
# *geometric mean* of the probabilities of the name, and that of the box, and returns the root of
# their product.
#
# - `pieces`: list of texts, what each token wrote. Joined, they are the answer.
# - `chances`: list of the probabilities of the tokens, above 0
# - `name`, `box`: pairs (start, end) of characters of the answer, without the end
# - A token belongs to a name or a box if the token wrote *at least one* of its characters.
#
# The geometric mean of n numbers is the n-th root of their product. Example: `pieces` are "red",
# " star", " [", "1", "]", the name is (0, 8) and the box is (9, 12). The token " [" writes the
# characters 8 and 9, so the token belongs to the box.


# %% stub
def score_by_token(pieces, chances, name, box):
    raise NotImplementedError


# %% hint
# Walk along the pieces and note where each piece begins and ends in the answer.

# %% hint
# A piece from a to b shares a character with (start, end) if a < end and b > start.


# %% check
def make_inputs(rng):
    pieces = [" red", " st", "ar", " [", "1", "2", ",", " 3", "]", " and", " cup"]
    return dict(pieces=pieces, chances=[float(v) for v in rng.uniform(0.3, 0.95, len(pieces))])


def combine(chances, name, box, mean):
    return math.sqrt(mean([chances[i] for i in name]) * mean([chances[i] for i in box]))


def check(answer, inputs):
    pieces, chances = inputs["pieces"], inputs["chances"]
    text = "".join(pieces)
    name = (text.index("red"), text.index(" ["))  # the first token begins with a blank before it
    box = (text.index("["), text.index("]") + 1)

    def mean(values):
        return math.exp(sum(math.log(v) for v in values) / len(values))

    def value(rule, mean=mean):
        ends = [sum(map(len, pieces[: i + 1])) for i in range(len(pieces))]
        tokens = [(end - len(p), end) for p, end in zip(pieces, ends)]
        parts = [[i for i, t in enumerate(tokens) if rule(*t, *span)] for span in (name, box)]
        return combine(chances, *parts, mean)

    def shares(a, b, start, end):
        return any(start <= c < end for c in range(a, b))

    right = value(shares)
    mistakes = {
        "a token with only a part of the name or box was left out": value(
            lambda a, b, start, end: start <= a and b <= end
        ),
        "a token that touches the name or box without a common character was counted": value(
            lambda a, b, start, end: a <= end and b >= start
        ),
        "this is the product of all probabilities, expected geometric means": value(
            shares, math.prod
        ),
        "this is the arithmetic mean, expected the geometric mean": value(
            shares, lambda v: sum(v) / len(v)
        ),
        "the root over name and box is missing": right**2,
    }
    found = answer(list(pieces), list(chances), name, box)
    expect(found, right, f"the answer {text.strip()!r}", mistakes, tolerance=1e-6)


# %% solution
def score_by_token(pieces, chances, name, box):
    def mean(start, end):
        logs, at = [], 0
        for piece, chance in zip(pieces, chances):
            if at < end and at + len(piece) > start:
                logs.append(math.log(chance))
            at += len(piece)
        return math.exp(sum(logs) / len(logs))

    return math.sqrt(mean(*name) * mean(*box))


# %% mutants
MUTANTS = [
    ("of all probabilities", "math.exp(sum(logs) / len(logs))", "math.exp(sum(logs))"),
    (
        "the arithmetic mean",
        "math.exp(sum(logs) / len(logs))",
        "sum(map(math.exp, logs)) / len(logs)",
    ),
    ("only a part of the name", "at < end and", "start <= at < end and"),
    (
        "without a common character",
        "at < end and at + len(piece) > start",
        "at <= end and at + len(piece) >= start",
    ),
    (
        "the root over name and box",
        "math.sqrt(mean(*name) * mean(*box))",
        "mean(*name) * mean(*box)",
    ),
]

# %% exercise
# title: How much of a batch is padding?
# kind: number
# answer: batch
# minutes: 10
# difficulty: 1
# practises: visual tokens, tiles, and padding on the left
#
# A batch holds several questions. Each question has its own image, and its row begins with a start
# token. `view` visual tokens stand for the whole view, and as many for each tile. `tiles` holds the
# tiles of each image, and `words` holds the tokens of each question behind the image.
#
# Set `batch = (length of the padded rows, padding tokens in all, position of the first real token
# in the row with the most padding)`. Positions count from 0.

# %% given
inputs = get_inputs("processor.3")
inputs

# %% stub
batch = None  # (length, padding, position)

# %% hint
# A row has 1 + view · (1 + tiles) + words tokens before padding.

# %% hint
# Every row is padded to the longest row. The padding of a row stands on its left.


# %% check
def make_inputs(rng):
    return dict(
        view=int(rng.randint(5, 9)) ** 2,
        tiles=[int(n) for n in rng.permutation(6)[:4] + 1],
        words=[int(n) for n in rng.randint(8, 30, 4)],
    )


def count(view, tiles, words, whole=1, start=1):
    rows = [start + view * (whole + t) + w for t, w in zip(tiles, words)]
    return max(rows), sum(max(rows) - r for r in rows), max(rows) - min(rows)


def check(answer, inputs):
    right = count(**inputs)
    mistakes = {
        "the whole view is missing": count(**inputs, whole=0),
        "the start token is missing": count(**inputs, start=0),
        "padding stands on the left, so the first real token follows it": (*right[:2], 0),
        "these are all tokens of the batch, expected the padding": (
            right[0],
            4 * right[0] - right[1],
            right[2],
        ),
        "positions count from 0": (*right[:2], right[2] + 1),
    }
    expect(answer, right, "the batch does not fit", mistakes, tolerance=1e-9, secret=True)


# %% solution
rows = [1 + inputs["view"] * (1 + t) + words for t, words in zip(inputs["tiles"], inputs["words"])]
length = max(rows)
batch = (length, sum(length - row for row in rows), length - min(rows))

# %% mutants
MUTANTS = [
    ("the whole view is missing", "(1 + t)", "t"),
    ("the start token is missing", "1 + inputs", "inputs"),
    ("positions count from 0", "length - min(rows))", "length - min(rows) + 1)"),
    ("expected the padding", "sum(length - row for row in rows)", "sum(rows)"),
]

# %% open
# Give the tiles of a trained model the pixel statistics of the other tower. *A good answer shows*
# REC and naming before and after with intervals, and says which of the two suffers more.

# %% quiz
# A user gives a box for a picture that the camera stored on its side. Which pixels are meant?
#
# - those of the file
#   The user sees the upright picture.
# + those of the upright picture
#   Every coordinate in a prompt or an answer belongs to the upright image.
# - those of the whole view
#   The processor converts to views by itself.
# - those of the tile that holds the box
#   A box may touch several tiles.

# %% quiz
# Why does the processor refuse `<image>` inside a question?
#
# - The word is too long.
#   Words of any length are allowed.
# + The tokenizer would read a placeholder, and the number of visual tokens would be wrong by one.
#   All other text is allowed.
# - Questions may only hold letters.
#   The tokenizer works on bytes.
# - The model would write the word back.
#   The answer is not the reason.

# %% quiz
# Why are prompts padded on the left?
#
# - The image stands on the left.
#   The image is a part of each row.
# - Rotary positions need it.
#   Positions are counted from the mask.
# + Generation goes on at the right end, and there every row ends with its own last word.
#   Padding behind the question would stand between the question and the answer.
# - The loss ignores the left side.
#   Labels say which tokens have a loss.

# %% quiz
# Three images have 4, 1 and 2 tiles. Why are the tiles packed in one stack?
#
# - The tower needs seven tiles.
#   The tower reads any number.
# + The tower runs once, and an image with one tile does not pay for four.
#   `grids` says which tiles belong to which image.
# - The tiles of different images attend to one another.
#   Every tile is read by itself.
# - The tiles are sorted by brightness.
#   Tiles stay in raster order.

# %% quiz
# A box has a score of 0.37, and every token had the probability 0.9. What follows?
#
# - The box is right with a probability of 0.37.
#   The product of the lesson is not a probability that the box is right.
# - The tokenizer made a mistake.
#   Nineteen factors of 0.9 have the root 0.37.
# + The score falls with the number of tokens, so scores rank boxes and are no probabilities.
#   A longer name has more factors.
# - A digit was a guess.
#   No single token was unlikely.
