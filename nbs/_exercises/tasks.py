"""Exercises of the lesson Tasks. tools/exercises.py makes what ships from this file."""

# %% setup
import math

# %% shared
from fractions import Fraction

from ferretlite.exercises.checks import WrongAnswer, expect


# %% exercise
# title: A list in reading order
# kind: code
# answer: order_boxes
# minutes: 15
# difficulty: 2
# practises: raster order, and an order that the written numbers show
#
# The lesson orders a list of boxes by the written numbers: first the top edge, then the left edge.
# Objects of one line of a form can differ by a few pixels in height, and the order then jumps from
# left to right and back. Write `order_boxes(boxes, size, rows)`, which reads line by line.
#
# - `boxes`: list of `(x0, y0, x1, y1)` in pixels
# - `size`: `(height, width)` of the image, in pixels
# - `rows`: number of lines. The height of the image is divided into so many equal lines.
# - result: list of indices. A box belongs to the line that holds the *centre* of the box. Lines go
#   from top to bottom, and the boxes of a line from left to right, by the left edge as it is
#   written: the bin `floor(x0 / width · 1000)`. Boxes of one line with the same bin keep the order
#   of the list.


# %% stub
def order_boxes(boxes, size, rows):
    raise NotImplementedError


# %% hint
# The number of the line is `floor(y / height · rows)`, with y as the centre of the box.

# %% hint
# `sorted(range(len(boxes)), key=...)` with a pair as the key. Python's sort keeps the order of
# equal keys.


# %% check
def make_inputs(rng):
    height, width = int(rng.randint(280, 360)), int(rng.randint(1500, 2400))
    return dict(
        size=(height, width),
        rows=int(rng.randint(3, 6)),
        x=float(rng.uniform(0.1, 0.3)),
        order=[int(i) for i in rng.permutation(7)],
    )


def make_boxes(size, rows, x, order):
    h, w = size
    line, bin_width = h / rows, w / 1000
    left = (math.floor(x * 1000) + 0.2) * bin_width  # inside a bin
    boxes = [
        (0.7 * w, 0.30 * line, 0.8 * w, 0.70 * line),  # right, first line
        (0.1 * w, 0.35 * line, 0.2 * w, 0.75 * line),  # left, a little lower
        (left + 0.4 * bin_width, 1.1 * line, 0.5 * w, 1.8 * line),  # same bin as the next
        (left, 1.2 * line, 0.6 * w, 1.7 * line),
        (0.9 * w, 0.9 * line, 0.99 * w, 1.9 * line),  # begins in the first line
        (0.02 * w, 1.7 * line, 0.05 * w, 2.5 * line),  # third line
        (0.3 * w, 0.40 * line, 0.32 * w, 1.3 * line),  # ends in the second line
    ]
    boxes = [boxes[i] for i in order]
    first, second = order.index(2), order.index(3)
    if first > second:  # the box that lies further right stands first
        boxes[first], boxes[second] = boxes[second], boxes[first]
    return boxes


def rank(boxes, size, rows, line_of="center", exact=False, side=0):
    h, w = size

    def key(i):
        x0, y0, x1, y1 = (Fraction(v) for v in boxes[i])
        y = {"center": (y0 + y1) / 2, "top": y0, "bottom": y1, "pixel": y0}[line_of]
        line = y if line_of == "pixel" else math.floor(y / h * rows)
        x = (x0, x1)[side]
        return line, x if exact else math.floor(x / w * 1000)

    return sorted(range(len(boxes)), key=key)


def check(answer, inputs):
    size, rows = inputs["size"], inputs["rows"]
    boxes = make_boxes(size, rows, inputs["x"], inputs["order"])
    right = rank(boxes, size, rows)
    mistakes = {
        "the top edge decides about the line, expected the centre": rank(boxes, size, rows, "top"),
        "boxes are ordered by the top edge alone, expected by lines": rank(
            boxes, size, rows, "pixel"
        ),
        "the bottom edge decides about the line, expected the centre": rank(
            boxes, size, rows, "bottom"
        ),
        "boxes of one bin keep the order of the list": rank(boxes, size, rows, exact=True),
        "height and width are exchanged": rank(boxes, size[::-1], rows),
    }
    found = answer(list(boxes), size, rows)
    if not isinstance(found, list) or any(type(i) is not int for i in found):
        raise WrongAnswer("expected a list of indices")
    if sorted(found) != list(range(len(boxes))):
        raise WrongAnswer(f"expected every index from 0 to {len(boxes) - 1} once")
    if found == right:
        return
    for message, wrong in mistakes.items():
        if found == wrong:
            raise WrongAnswer(message)
    raise WrongAnswer(f"seven boxes in {rows} lines: found {found}, expected {right}")


# %% solution
def order_boxes(boxes, size, rows):
    height, width = size

    def key(i):
        x0, y0, _, y1 = boxes[i]
        line = math.floor((y0 + y1) / 2 / height * rows)
        return line, math.floor(x0 / width * 1000)

    return sorted(range(len(boxes)), key=key)


# %% mutants
MUTANTS = [
    ("the top edge decides", "(y0 + y1) / 2 / height", "y0 / height"),
    ("by the top edge alone", "math.floor((y0 + y1) / 2 / height * rows)", "y0"),
    ("the bottom edge decides", "(y0 + y1) / 2 / height", "y1 / height"),
    ("keep the order of the list", "math.floor(x0 / width * 1000)", "x0"),
]

# %% exercise
# title: How often is the answer "two"?
# kind: number
# answer: chances
# minutes: 20
# difficulty: 2
# practises: drawing an answer before a question
#
# A scene can pose the count questions of your inputs: `questions` holds how many questions have
# each answer. (`{1: 6, 2: 4, 5: 1}`: six questions have the answer 1, four have 2, one has 5.)
#
# 1. Naive: every *question* is drawn equally often.
# 2. The lesson: first an *answer* is drawn, with a probability in proportion to the number. Then a
#    question with this answer is drawn.
#
# How probable is the answer 2 in the naive version and in the lesson's version, and how probable is
# *one certain* question of the largest answer in the lesson's version? Set
# `chances = (naive, lesson, largest)`. Write fractions or at least four digits.

# %% given
inputs = get_inputs("tasks.2")
inputs

# %% stub
chances = None  # (naive, lesson, largest)

# %% hint
# In the lesson's version the number of questions with an answer plays no part in the first step.

# %% hint
# The probability of a certain question is the probability of its answer, divided by the number of
# questions with this answer.


# %% check
def make_inputs(rng):
    largest = int(rng.randint(5, 9))
    return dict(
        questions={
            1: int(rng.randint(5, 10)),
            2: int(rng.randint(3, 6)),
            3: int(rng.randint(2, 4)),
            largest: int(rng.randint(2, 4)),
        }
    )


def check(answer, inputs):
    questions = {int(k): n for k, n in inputs["questions"].items()}
    top = max(questions)
    asked = [k for k, n in questions.items() for _ in range(n)]  # one entry a question
    naive = Fraction(asked.count(2), len(asked))
    ladder = [k for k in questions for _ in range(k)]  # one entry a share
    lesson = Fraction(ladder.count(2), len(ladder))
    largest = Fraction(ladder.count(top), len(ladder))
    weighted = Fraction(2 * asked.count(2), sum(asked))
    right = tuple(map(float, (naive, lesson, largest / questions[top])))
    mistakes = {
        "the second number still counts the questions of each answer": (
            right[0],
            float(weighted),
            float(Fraction(top, sum(asked))),
        ),
        "answers are not drawn equally often": (
            right[0],
            1 / len(questions),
            1 / len(questions) / questions[top],
        ),
        "the third number belongs to the answer, expected one certain question": (
            right[0],
            right[1],
            float(largest),
        ),
        "the first two numbers are exchanged": (right[1], right[0], right[2]),
    }
    where = "the probabilities do not fit the counts"
    expect(answer, right, where, mistakes, tolerance=1e-3, secret=True)


# %% solution
questions = inputs["questions"]
naive = questions[2] / sum(questions.values())
lesson = 2 / sum(questions)
largest = max(questions) / sum(questions) / questions[max(questions)]
chances = (naive, lesson, largest)

# %% mutants
MUTANTS = [
    (
        "still counts the questions",
        "lesson = 2 / sum(questions)\nlargest = max(questions) / sum(questions) / "
        "questions[max(questions)]",
        "total = sum(k * n for k, n in questions.items())\n"
        "lesson, largest = 2 * questions[2] / total, max(questions) / total",
    ),
    ("one certain question", " / questions[max(questions)]", ""),
    ("exchanged", "(naive, lesson, largest)", "(lesson, naive, largest)"),
]

# %% open
# Ask for absent objects that share neither kind nor colour with the scene. *A good answer shows*
# how often a rule that looks at colours alone finds the absence, beside the hard absences of the
# lesson, with intervals.

# %% quiz
# Why does the answer to `rec` repeat the full name, "filled red star"?
#
# - The grammar needs three words.
#   The grammar reads names of any length.
# + To write the full name, the model has to look at the object.
#   The question may have used a short name.
# - The question has the same words.
#   The question often has fewer words.
# - The score counts the words.
#   The score of `rec` reads the box.

# %% quiz
# Why does dense detection need an order?
#
# - The grammar allows only sorted boxes.
#   The grammar reads boxes in any order.
# - Sorted boxes are shorter.
#   The length does not depend on the order.
# + Without an order, training would punish all right answers but one.
#   A list of ten objects has 10! orders, and every order is right.
# - The metric compares boxes by their position in the list.
#   The metric matches boxes by overlap.

# %% quiz
# Why are half of the wrong names in `choose` close to the right name?
#
# + A random wrong name can be told apart by colour alone or by shape alone.
#   "Red star or red moon" can only be answered by the shape.
# - A close name is shorter.
#   The names have the same form.
# - Random names may be right.
#   A random name is chosen among wrong names.
# - The paper demands close names.
#   The paper does not state how wrong names are chosen.

# %% quiz
# Captions come twice, with and without boxes. What would happen without the captions without boxes?
#
# - The model could not learn boxes.
#   The captions with boxes teach boxes.
# + The model would have no reason to leave boxes out.
#   The switch sentence would carry no information.
# - Captions would become longer.
#   The words are the same.
# - The tokenizer would need more tokens.
#   The tokenizer does not change.

# %% quiz
# In `choose`, the order of A and B is random. Which guess would work in a fixed order?
#
# - the longer name
#   The length does not depend on the order.
# + always the first name, or always the second
#   The place of the name would give the answer away.
# - the more frequent kind
#   Frequencies do not depend on the order.
# - the name with a colour
#   Both names have a colour.
