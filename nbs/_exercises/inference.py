"""Exercises of the lesson Inference. tools/exercises.py makes what ships from this file."""

# %% setup
from ferretlite.regions.geometry import Box

# %% shared
import math

from ferretlite.exercises.checks import WrongAnswer, expect


# %% exercise
# title: One object, listed twice
# kind: code
# answer: keep_objects
# minutes: 20
# difficulty: 2
# practises: boxes with names and scores, and overlap
#
# Two slices of a picture gave two lists, so some objects are listed twice. Write
# `keep_objects(objects, limit)`.
#
# - `objects`: list of `(name, Box, score)`
# - Two entries mean the same object if their names are equal and their IoU is *at least* `limit`.
# - Take the entries from the highest score to the lowest. Keep an entry if no *kept* entry means
#   the same object. Entries of equal score keep their order.
# - result: list of the indices of the kept entries, in the order of the list


# %% stub
def keep_objects(objects, limit):
    raise NotImplementedError


# %% hint
# `sorted(range(n), key=lambda i: -objects[i][2])` walks from the highest score to the lowest.

# %% hint
# The shared width is `min(a.x2, b.x2) - max(a.x1, b.x1)`, and at least 0. The IoU is the shared
# area divided by the area that both cover together.


# %% check
def make_inputs(rng):
    limit = round(float(rng.uniform(0.45, 0.55)), 2)
    x, y = (int(n) for n in rng.randint(0, 60, 2))
    score = round(float(rng.uniform(0.5, 0.6)), 3)
    order = [int(i) for i in rng.permutation(8)]
    return dict(limit=limit, x=x, y=y, score=score, order=order)


def make_objects(x, y, score, limit, order):
    side = 40
    moved = side * (1 - 0.65) / (1 + 0.65)  # two boxes moved by this share an IoU of 0.65

    def at(dx, dy=0.0):
        return Box(x + dx, y + dy, x + dx + side, y + dy + side)

    objects = [
        ("star", at(0), score),
        ("star", at(moved), score + 0.2),  # the same star, and better
        ("cup", at(0), score + 0.1),  # another name at the same place
        ("star", at(2 * moved), score + 0.1),  # far from the first, near the second
        ("star", at(3 * moved), score - 0.1),  # means the fourth, which is not kept
        ("cup", at(200), score),
        ("cup", at(200 + side * (1 - limit) / (1 + limit) * 1.08), score - 0.2),  # just below
        ("moon", Box(x, y, x + side, y + side / 4), score),  # inside another one
    ]
    return [objects[i] for i in order]


def share(a, b):
    xs, ys = ([max(0, min(p[1], q[1]) - max(p[0], q[0]))] for p, q in zip(*map(axes, (a, b))))
    both = xs[0] * ys[0]
    return both / (area(a) + area(b) - both)


def axes(box):
    return (box.x1, box.x2), (box.y1, box.y2)


def area(box):
    return math.prod(high - low for low, high in axes(box))


def smaller(a, b):
    xs, ys = (max(0, min(p[1], q[1]) - max(p[0], q[0])) for p, q in zip(*map(axes, (a, b))))
    return xs * ys / min(area(a), area(b))


def suppress(objects, limit, names=True, kept_only=True, measure=share):
    order = sorted(range(len(objects)), key=lambda i: (-objects[i][2], i))
    kept, seen = [], []
    for i in order:
        rivals = kept if kept_only else seen
        same = [
            j
            for j in rivals
            if (objects[j][0] == objects[i][0] or not names)
            and measure(objects[j][1], objects[i][1]) >= limit
        ]
        if not same:
            kept.append(i)
        seen.append(i)
    return sorted(kept)


def check(answer, inputs):
    objects, limit = make_objects(**inputs), inputs["limit"]
    right = suppress(objects, limit)
    mistakes = {
        "entries with different names are different objects": suppress(objects, limit, names=False),
        "an entry that was left out itself leaves nothing out": suppress(
            objects, limit, kept_only=False
        ),
        "the union is the area that both cover together, not the smaller box": suppress(
            objects, limit, measure=smaller
        ),
    }
    pair = [("star", Box(0, 0, 9, 9), score) for score in (0.6, 0.9)]
    order = [answer(list(two), limit) for two in (pair, pair[::-1])]
    if order == [[0], [0]]:
        raise WrongAnswer("the entries were taken in the order of the list, expected by score")
    if order == [[0], [1]]:
        raise WrongAnswer("the entries were taken from the lowest score, expected the highest")
    found = answer(list(objects), limit)
    if not isinstance(found, list) or any(type(i) is not int for i in found):
        raise WrongAnswer("expected a list of indices")
    if found != sorted(found):
        raise WrongAnswer("expected the kept entries in the order of the list")
    if found != right:
        for message, wrong in mistakes.items():
            if found == wrong and wrong != right:
                raise WrongAnswer(message)
        raise WrongAnswer(f"eight entries: found {found}, expected {right}")
    halves = [("star", Box(0, 0, 2, 1), 0.9), ("star", Box(0, 0, 1, 1), 0.8)]
    if answer(halves, 0.5) != [0]:
        raise WrongAnswer("an IoU of exactly the limit means the same object")
    equal = [("star", box, 0.9) for _, box, _ in halves]
    if answer(equal, 0.5) != [0]:
        raise WrongAnswer("entries of equal score keep their order: the first of them is kept")


# %% solution
def keep_objects(objects, limit):
    def overlap(a, b):
        width = max(0, min(a.x2, b.x2) - max(a.x1, b.x1))
        height = max(0, min(a.y2, b.y2) - max(a.y1, b.y1))
        return width * height / (a.area + b.area - width * height)

    kept = []
    for i in sorted(range(len(objects)), key=lambda i: -objects[i][2]):
        name, box, _ = objects[i]
        if not any(objects[j][0] == name and overlap(objects[j][1], box) >= limit for j in kept):
            kept.append(i)
    return sorted(kept)


# %% mutants
MUTANTS = [
    (
        "expected by score",
        "sorted(range(len(objects)), key=lambda i: -objects[i][2])",
        "range(len(objects))",
    ),
    ("different names", "objects[j][0] == name and ", ""),
    ("from the lowest score", "-objects[i][2])", "objects[i][2])"),
    ("of equal score", "-objects[i][2])", "(-objects[i][2], -i))"),
    ("exactly the limit", ">= limit", "> limit"),
    (
        "leaves nothing out",
        "for j in kept)",
        "for j in range(len(objects)) if objects[j][2] > objects[i][2])",
    ),
]

# %% exercise
# title: The price of an answer
# kind: number
# answer: seconds
# minutes: 10
# difficulty: 1
# practises: prefill, steps, and batches
#
# The first token of an answer takes `first` seconds, and each further token takes `step` seconds.
# `lengths` holds the tokens of several answers.
#
# 1. How long do the answers take, one after the other?
# 2. How long do the answers take in one batch, if the first token of a batch takes `first` seconds
#    for each row, and a step of the batch takes `step` seconds for all rows together? A batch goes
#    on until its longest answer ends.
# 3. How long would the *longest* answer take without a cache, if every token costs as much as the
#    first?
#
# Set `seconds = (alone, batch, without a cache)`.

# %% given
inputs = get_inputs("inference.2")
inputs

# %% stub
seconds = None  # (alone, batch, without a cache)

# %% hint
# An answer of n tokens takes one first token and n − 1 further steps.

# %% hint
# Only the first tokens are paid for each row of a batch. The steps are those of the longest answer,
# and the first token of a row is no step.


# %% check
def make_inputs(rng):
    return dict(
        first=round(float(rng.uniform(0.08, 0.2)), 3),
        step=round(float(rng.uniform(0.004, 0.012)), 4),
        lengths=[int(n) for n in rng.randint(4, 120, 5)],
    )


def check(answer, inputs):
    first, step, lengths = inputs["first"], inputs["step"], inputs["lengths"]

    def walk(n):  # seconds of one answer, token by token
        return sum(first if i == 0 else step for i in range(n))

    longest = max(lengths)
    alone = sum(map(walk, lengths))
    batch = first * len(lengths) + walk(longest) - first
    right = (alone, batch, first * longest)
    mistakes = {
        "the first token is a step of its own: n − 1 further steps": (
            alone + step * len(lengths),
            batch + step,
            right[2],
        ),
        "every row of the batch has its own first token": (alone, walk(longest), right[2]),
        "a batch goes on until its longest answer ends, and the rows go on together": (
            alone,
            alone,
            right[2],
        ),
        "without a cache every token costs as much as the first": (alone, batch, walk(longest)),
    }
    expect(answer, right, "the times do not fit", mistakes, tolerance=1e-4, secret=True)


# %% solution
first, step, lengths = inputs["first"], inputs["step"], inputs["lengths"]
alone = sum(first + step * (n - 1) for n in lengths)
batch = first * len(lengths) + step * (max(lengths) - 1)
seconds = (alone, batch, first * max(lengths))

# %% mutants
MUTANTS = [
    ("every row of the batch", "first * len(lengths) + step", "first + step"),
    ("until its longest answer ends", "(alone, batch,", "(alone, alone,"),
    ("costs as much as the first", "first * max(lengths))", "first + step * (max(lengths) - 1))"),
]

# %% open
# Ask `tiny` forty questions about absent objects, and forty about present objects.
# *A good answer shows* how often a threshold on the scores tells the two apart, with and without
# `verify=True`, with intervals.

# %% quiz
# What is a *prefill*?
#
# + the step that reads picture and prompt, and gives the first token
#   Later steps read a single token and the cache.
# - the padding of a batch
#   Padding fills short rows.
# - the first word of every answer
#   Answers begin with different words.
# - loading the weights
#   Weights are loaded once, before any question.

# %% quiz
# An answer has the `finish_reason` "length". What does this mean?
#
# - The answer is complete.
#   A complete answer has the reason "stop".
# + The answer was cut off, so the last box or name may be missing.
#   The limit on tokens was reached before the end token.
# - The question was too long.
#   A question that is too long is refused.
# - The picture was too large.
#   Pictures of any size are resized.

# %% quiz
# Five questions are asked together and alone. What should the texts be?
#
# - different, since the rows influence one another
#   Masks and positions keep the rows apart.
# + the same
#   A batch changes time, not answers.
# - shorter in the batch
#   A row ends with its own end token.
# - the same for questions of equal length only
#   Padding changes no answer.

# %% quiz
# Why does each common request have a verb such as `ground` or `detect`?
#
# - Verbs are faster.
#   Every verb calls `ask`.
# + A model answers best in the wordings of its training, and the verb writes the wording.
#   A user does not have to remember the wordings.
# - `ask` cannot return boxes.
#   `ask` returns the same answers.
# - Each verb has its own weights.
#   One model answers all questions.

# %% quiz
# A model that never met absent objects is asked for an umbrella that is not there. What follows?
#
# - It raises an error.
#   Nothing in the input is wrong.
# - It returns an empty list.
#   Such an answer never occurred in training.
# + It invents a box, without a warning.
#   Every such question of its training had a box as its answer.
# - It asks back.
#   Asking back is a decision of the caller: `verify=True`.
