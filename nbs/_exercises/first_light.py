"""Exercises of the lesson First light. tools/exercises.py makes what ships from this file."""

# %% setup

# %% shared
from fractions import Fraction

from ferretlite.exercises.checks import WrongAnswer, expect


# %% exercise
# title: A box as centre and size
# kind: code
# answer: read_center_box
# minutes: 20
# difficulty: 1
# practises: boxes as text, and text that cannot be trusted
#
# The lesson writes the four edges of a box. Another model writes the centre and the size instead:
# `[50, 40, 20, 30]` means centre x, centre y, width, height, in hundredths of the side of a square
# picture. Write `read_center_box(text, side)`, which returns the four edges in pixels.
#
# - Each number stands for an interval of one hundredth. Take the middle: (number + 0.5) / 100 of
#   the side.
# - result: tuple `(x1, y1, x2, y2)` in pixels. Edges outside of the picture move to the border.
# - Return None for a text that is not exactly of this form: an opening bracket, four whole numbers
#   from 0 to 99 with two digits, a comma and a blank between them, and a closing bracket.
#
# Example: on a picture of 100 pixels, `[50, 40, 20, 30]` becomes (40.25, 25.25, 60.75, 55.75).


# %% stub
def read_center_box(text, side):
    raise NotImplementedError


# %% hint
# Check the form first: does the text begin with `[` and end with `]`, and does the middle give four
# parts when it is split at ", "?

# %% hint
# A part is right if it has two characters and both are digits: `len(p) == 2 and p.isdecimal()`.

# %% hint
# The left edge is the centre minus *half* of the width. `min` and `max` move an edge to the border.


# %% check
def make_inputs(rng):
    size = [int(n) for n in rng.randint(14, 30, 2)]
    center = [int(n) for n in rng.randint(35, 60, 2)]
    return dict(numbers=[*center, *size], side=int(rng.randint(48, 400)))


def compute(numbers, side, half=Fraction(1, 2), part=Fraction(1, 2), clamp=True, per=100):
    x, y, w, h = ((n + half) * side / per for n in map(Fraction, numbers))
    edges = x - part * w, y - part * h, x + part * w, y + part * h
    return tuple(float(min(max(e, 0), side) if clamp else e) for e in edges)


def write(numbers):
    return "[" + ", ".join(f"{n:02d}" for n in numbers) + "]"


def check(answer, inputs):
    numbers, side = inputs["numbers"], inputs["side"]
    x, y, w, h = numbers
    mistakes = {
        "the middle of the interval is missing: number + 0.5": compute(numbers, side, half=0),
        "the centre lies in the middle: take half of the width and height": compute(
            numbers, side, part=1
        ),
        "these are edges as in the lesson, expected centre and size": tuple(
            (n + 0.5) / 100 * side for n in numbers
        ),
        "the centre was taken for the left and top edge": tuple(
            (n + 0.5) / 100 * side for n in (x, y, x + w + 0.5, y + h + 0.5)
        ),
        "these are hundredths, expected pixels": compute(numbers, 100),
        "the width was taken from the left edge alone": (
            compute(numbers, side)[0],
            compute(numbers, side)[1],
            *((n + 0.5) / 100 * side for n in (x, y)),
        ),
    }
    mistakes = {m: v for m, v in mistakes.items() if v != compute(numbers, side)}
    text = write(numbers)
    expect(answer(text, side), compute(numbers, side), f"the text {text}", mistakes)
    edge = write([3, 97, w, h])
    mistakes = {
        "edges outside of the picture are moved to its border": compute(
            [3, 97, w, h], side, clamp=False
        )
    }
    where = f"the text {edge}"
    expect(answer(edge, side), compute([3, 97, w, h], side), where, mistakes)
    first = text[1:3]
    for wrong in (
        text[:-1],
        text[1:],
        text.replace(", ", ",", 1),
        text.replace(first, "umbrella", 1),
        text.replace("]", ", 11]"),
        text.replace(first, "7", 1),
        text.replace(first, "-5", 1),
        text.replace(first, "+5", 1),
        text.replace(first, " 5", 1),
        "x" + text,
        text + "\n",
        text + "]",
        "",
    ):
        if answer(wrong, side) is not None:
            raise WrongAnswer(f"the text {wrong!r} has another form, expected None")


# %% solution
def read_center_box(text, side):
    if not (text.startswith("[") and text.endswith("]")):
        return None
    parts = text[1:-1].split(", ")
    if len(parts) != 4 or any(len(p) != 2 or not p.isdecimal() for p in parts):
        return None
    x, y, w, h = ((int(p) + 0.5) / 100 * side for p in parts)
    edges = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    return tuple(min(max(edge, 0.0), float(side)) for edge in edges)


# %% mutants
MUTANTS = [
    ("number + 0.5", "int(p) + 0.5", "int(p)"),
    (
        "half of the width",
        "x - w / 2, y - h / 2, x + w / 2, y + h / 2",
        "x - w, y - h, x + w, y + h",
    ),
    ("the left and top edge", "x - w / 2, y - h / 2, x + w / 2, y + h / 2", "x, y, x + w, y + h"),
    ("moved to its border", "min(max(edge, 0.0), float(side))", "edge"),
    ("expected None", "len(p) != 2 or ", ""),
    ("the text '[-5, ", "not p.isdecimal()", 'not p.lstrip("-+ ").isdecimal()'),
    ("the text '[+5, ", "not p.isdecimal()", 'not p.lstrip("+ ").isdecimal()'),
    ("the text '[ 5, ", "not p.isdecimal()", "not p.strip().isdecimal()"),
    (
        "the text 'x[",
        "    if not (text.startswith",
        '    text = text[max(text.find("["), 0) :]\n    if not (text.startswith',
    ),
]

# %% exercise
# title: What rounding costs
# kind: number
# answer: rounding
# minutes: 10
# difficulty: 1
# practises: boxes that are written with few digits
#
# A model writes an edge with `digits` digits: 3 digits are thousandths of the side. The picture has
# `side` pixels.
#
# 1. How many letters has a box such as `[123, 456, 789, 987]`, with brackets, commas and blanks?
# 2. An edge is written with the digits of its interval and read as the middle of the interval. How
#    many pixels can the edge be wrong at most?
# 3. Of all letters of 1, how many are certain, because they are the same in every box?
#
# Set `rounding = (letters, pixels, certain)`. Pixels within 0.05 % are right.

# %% given
inputs = get_inputs("first_light.2")
inputs

# %% stub
rounding = None  # (letters, pixels, certain)

# %% hint
# Between four numbers stand three commas and three blanks.

# %% hint
# An interval is side / 10^digits pixels wide, and the middle is half of it away from both ends.


# %% check
def make_inputs(rng):
    return dict(digits=int(rng.randint(3, 7)), side=int(rng.randint(300, 4000)))


def check(answer, inputs):
    digits, side = inputs["digits"], inputs["side"]
    text = "[" + ", ".join(["1" * digits] * 4) + "]"
    certain = sum(not c.isdigit() for c in text)
    half = float(Fraction(side, 2 * 10**digits))
    right = (len(text), half, certain)
    mistakes = {
        "an edge is read as the middle, so half an interval is the most": (
            len(text),
            2 * half,
            certain,
        ),
        "blanks are letters, too": (len(text) - 3, half, certain - 3),
        "digits decide about the place, and the other letters are certain": (
            len(text),
            half,
            len(text) - certain,
        ),
        "the number of digits gives the number of intervals: 10 to this power": (
            len(text),
            side / (20 * digits),
            certain,
        ),
    }
    tolerance = 5e-4 * min(half, 1)  # a share of the pixels, which may be few
    expect(answer, right, "the numbers do not fit", mistakes, tolerance, secret=True)


# %% solution
digits, side = inputs["digits"], inputs["side"]
rounding = (4 * digits + 8, side / 10**digits / 2, 8)

# %% mutants
MUTANTS = [
    ("half an interval", "side / 10**digits / 2", "side / 10**digits"),
    (
        "element 1: found",
        "side / 10**digits / 2",
        "round(side / 10**digits / 2, 3) + 0.001",
    ),
    (
        "blanks are letters",
        "(4 * digits + 8, side / 10**digits / 2, 8)",
        "(4 * digits + 5, side / 10**digits / 2, 5)",
    ),
    ("the other letters are certain", "/ 2, 8)", "/ 2, 4 * digits)"),
]

# %% open
# Leave out the last line of `draw`, which gives the pixels mean 0 and spread 1. *A good answer
# shows* the accuracy of both models after the same number of steps, with intervals, and an idea of
# the reason.

# %% quiz
# How does the model of the lesson say where a thing is?
#
# - with a special output layer for boxes
#   Older detectors have such layers.
# + It writes the corners as text, digit by digit.
#   The model predicts the next letter, and nothing else.
# - with a heat map over the picture
#   The answer is text.
# - It chooses one of many prepared boxes.
#   Every box that can be written is possible.

# %% quiz
# Why does the lesson also score a *guesser*?
#
# - The guesser trains the model.
#   The guesser plays no part in training.
# + A score says little without the score of an answer that ignores the picture.
#   The guesser answers with the box of another picture.
# - The guesser finds errors in the boxes.
#   The boxes are computed from the ink.
# - The guesser is the goal.
#   The model has to be far better.

# %% quiz
# At step 40 nearly all texts can be read, and few boxes are right. What has the model learned?
#
# - where the symbol is
#   The boxes hardly depend on the picture yet.
# + the form of a box: brackets, commas and two digits for each edge
#   The model learns to spell first and to look afterwards.
# - the names of the symbols
#   The model never writes a name.
# - nothing
#   The loss has fallen a lot.

# %% quiz
# Which letters of an answer decide most about the place?
#
# - the brackets
#   Brackets are the same in every answer.
# - the commas
#   Commas are the same in every answer.
# + the first digit of each number
#   The first digit is worth ten times the second.
# - the last digit of each number
#   The last digit moves an edge by hundredths.

# %% quiz
# The model finds symbols that training never showed, less often. What does this suggest?
#
# - The model has learned umbrellas by heart.
#   Then unseen symbols would be as bad as chance.
# + The model has mostly learned to find ink.
#   With one symbol per picture there was no reason to learn more.
# - The test pictures were in the training.
#   The pictures are drawn with other seeds.
# - The score is wrong.
#   The guesser is scored by the same rule.
