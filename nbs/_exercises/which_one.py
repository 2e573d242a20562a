"""Exercises of the lesson Which one? tools/exercises.py makes what ships from this file."""

# %% setup
import torch

# %% shared
from fractions import Fraction

from ferretlite.exercises.checks import WrongAnswer, expect

# %% exercise
# title: Listening to every question
# kind: code
# answer: measure_listening
# minutes: 25
# difficulty: 2
# practises: right, other and neither, and several questions about one picture
#
# Each picture now has k objects, and the model was asked for each of them. Write
# `measure_listening(points, boxes)`.
#
# - `points`: tensor `[n, k, 2]`, the answers `(x, y)`. Answer j of a picture belongs to the
#   question for object j.
# - `boxes`: tensor `[n, k, 4]`, `(x1, y1, x2, y2)`. Boxes of a picture may overlap. A point on an
#   edge lies inside.
# - result: tuple of three numbers `(right, other, listens)`
#   - `right`: share of all n · k answers that lie in the box of their object
#   - `other`: share of all n · k answers that lie in the box of *another* object of the picture,
#     and not in their own
#   - `listens`: share of the n *pictures* for which all k answers are right
#
# Example: one picture with the boxes (0, 0, 4, 4) and (6, 0, 9, 4), and twice the answer (2, 2),
# gives (0.5, 0.5, 0).


# %% stub
def measure_listening(points, boxes):
    raise NotImplementedError


# %% hint
# Compare every answer with every box of its picture: `points[:, :, None]` has the form
# [n, k, 1, 2], and `boxes[:, None]` the form [n, 1, k, 4]. The result has the form [n, k, k].

# %% hint
# Entry [i, j, j] says whether answer j lies in its own box: `inside.diagonal(dim1=1, dim2=2)`.

# %% hint
# An answer counts as *other* if any box holds it and its own box does not.


# %% check
def make_inputs(rng):
    n, k = int(rng.randint(24, 40)), int(rng.randint(3, 5))
    corners = torch.from_numpy(rng.randint(0, 20, (n, k, 2))).float()
    sizes = torch.from_numpy(rng.randint(8, 15, (n, k, 2)) + [[[0, 4]]]).float()
    boxes = torch.cat([corners, corners + sizes], dim=-1)
    aims = torch.from_numpy(rng.randint(0, k, (n, k)))  # the object at which an answer aims
    own = torch.from_numpy(rng.uniform(size=(n, k)) < 0.6)
    own[:: int(rng.randint(2, 4))] = True
    aims = torch.where(own, torch.arange(k), aims)
    target = boxes.gather(1, aims[..., None].expand(-1, -1, 4))
    places = torch.from_numpy(
        rng.choice([-0.2, 0, 0.3, 0.6, 1], (n, k, 2), p=[0.03, 0.1, 0.4, 0.4, 0.07])
    )
    points = target[..., :2] + places.float() * (target[..., 2:] - target[..., :2])
    return dict(points=points, boxes=boxes)


def holds(box, point, edge=True):
    (x1, y1, x2, y2), (x, y) = box, point
    return x1 <= x <= x2 and y1 <= y <= y2 if edge else x1 < x < x2 and y1 < y < y2


def measure(points, boxes, edge=True, flip=False, both=False, last=all):
    """The three shares by going through answers and boxes one by one."""
    right = other = listens = 0
    for answers, places in zip(points.tolist(), boxes.tolist()):
        marks = []
        for j, point in enumerate(answers):
            inside = [holds(box, point[::-1] if flip else point, edge) for box in places]
            marks.append(inside[j])
            rest = any(inside[:j] + inside[j + 1 :])
            other += rest and (both or not inside[j])
        right += sum(marks)
        listens += last(marks)
    total = len(points) * points.shape[1]
    return right / total, other / total, listens / len(points)


def check(answer, inputs):
    points, boxes = inputs["points"], inputs["boxes"]
    k = points.shape[1]
    small = torch.tensor([[[0.0, 0, 4, 4], [6, 0, 9, 4]]])
    same = torch.tensor([[[2.0, 2], [2, 2]]])
    expect(
        answer(same, small),
        (0.5, 0.5, 0.0),
        "one picture, twice the same answer",
        {
            "a picture counts only if all of its answers are right": (0.5, 0.5, 1.0),
            "the mean of the answers is taken: expected the share of pictures": (0.5, 0.5, 0.5),
            "the shares are sums, expected divided by n · k": (1.0, 1.0, 0.0),
        },
    )
    right = measure(points, boxes)
    mistakes = {
        "a point on an edge lies inside": measure(points, boxes, edge=False),
        "x and y are exchanged": measure(points, boxes, flip=True),
        "an answer in its own box is right, even if another box holds it, too": (
            measure(points, boxes, both=True)
        ),
        "a picture counts only if all of its answers are right": measure(points, boxes, last=any),
        "the last share counts pictures, not answers": (right[0], right[1], right[0]),
        "right and other are exchanged": (right[1], right[0], right[2]),
        "answers outside of all boxes are neither, expected not in other": (
            right[0],
            1 - right[0],
            right[2],
        ),
        "shares of answers are divided by n · k": (right[0] * k, right[1] * k, right[2]),
    }
    found = answer(points.clone(), boxes.clone())
    if isinstance(found, (tuple, list)) and len(found) == 3:
        found = tuple(
            v.item() if isinstance(v, torch.Tensor) and v.numel() == 1 else v for v in found
        )
    expect(found, right, f"{len(points)} pictures with {k} objects", mistakes)


# %% solution
def measure_listening(points, boxes):
    points, boxes = points[:, :, None], boxes[:, None]
    inside = (points >= boxes[..., :2]) & (points <= boxes[..., 2:])
    inside = inside.all(-1)  # [n, k, k]: answer, box
    own = inside.diagonal(dim1=1, dim2=2)
    other = inside.any(-1) & ~own
    listens = own.all(-1)
    return tuple(share.float().mean().item() for share in (own, other, listens))


# %% mutants
MUTANTS = [
    (
        "on an edge",
        "(points >= boxes[..., :2]) & (points <= boxes[..., 2:])",
        "(points > boxes[..., :2]) & (points < boxes[..., 2:])",
    ),
    ("x and y are exchanged", "points[:, :, None], boxes", "points[:, :, None].flip(-1), boxes"),
    (
        "even if another box",
        "inside.any(-1) & ~own",
        "(inside & ~torch.eye(inside.shape[1], dtype=torch.bool)).any(-1)",
    ),
    ("all of its answers", "own.all(-1)", "own.any(-1)"),
    ("expected the share of pictures", "listens = own.all(-1)", "listens = own"),
    ("neither", "inside.any(-1) & ~own", "~own"),
]

# %% exercise
# title: How often does it listen?
# kind: number
# answer: estimate
# minutes: 15
# difficulty: 2
# practises: the looker as an opponent, and intervals
#
# Think of a model as a mixture. In a share `sees` of all pictures it points at an object; otherwise
# at nothing. When it points at an object, it listens to the question in a share `listens` of the
# cases, and is then right. Otherwise it takes one of the k objects at random, the wanted one
# included. All pictures have k objects.
#
# Your inputs count `right` and `other` answers among n. Compute from the counts
#
# 1. `sees`
# 2. `listens`
# 3. half of the 95 % interval of the score `right / n`, with the formula of the lesson
#
# Set `estimate = (sees, listens, margin)`; all three are shares.
#
# Example: 2 objects, 80 answers right and 20 other of 100 give sees = 1 and listens = 0.6.

# %% given
inputs = get_inputs("which_one.2")
inputs

# %% stub
estimate = None  # (sees, listens, margin)

# %% hint
# Which answers lie on an object? Both counts together say how often the model sees.

# %% hint
# The other objects get a share sees · (1 − listens) · (k − 1) / k of all answers. Solve for
# `listens`.


# %% check
def make_inputs(rng):
    n, k = int(rng.randint(200, 600)), int(rng.randint(3, 6))
    sees, listens = float(rng.uniform(0.6, 0.95)), float(rng.uniform(0.3, 0.8))
    other = int(n * sees * (1 - listens) * (k - 1) / k)
    return dict(n=n, k=k, right=int(n * sees) - other, other=other)


def check(answer, inputs):
    n, k, right, other = (inputs[name] for name in ("n", "k", "right", "other"))
    margin = 1.96 * (right * (n - right) / n**3) ** 0.5
    low, high = Fraction(0), Fraction(1)
    for _ in range(40):  # the share of listening, by bisection of the expected count
        middle = (low + high) / 2
        expected = (right + other) * (1 - middle) * Fraction(k - 1, k)
        low, high = (middle, high) if expected > other else (low, middle)
    sees, listens = (right + other) / n, float(low)
    mistakes = {
        "a model that does not listen is right by chance, too": (
            sees,
            right / (right + other),
            margin,
        ),
        "chance is one in k, and not one in two": (sees, 1 - 2 * other / (right + other), margin),
        "chance belongs to the k objects: k − 1 of them are other": (
            sees,
            1 - k * other / (right + other),
            margin,
        ),
        "`listens` is a share of the pictures with an object in the answer, not of all": (
            sees,
            listens * sees,
            margin,
        ),
        "answers on other objects are seen objects, too": (right / n, listens, margin),
        "this is one standard error, expected 1.96 of them": (sees, listens, margin / 1.96),
        "this is the whole interval, expected half": (sees, listens, 2 * margin),
        "the interval belongs to n answers": (
            sees,
            listens,
            1.96 * (right * other / (right + other) ** 3) ** 0.5,
        ),
    }
    expect(answer, (sees, listens, margin), "the shares", mistakes, tolerance=2e-4, secret=True)


# %% solution
n, k = inputs["n"], inputs["k"]
right, other = inputs["right"] / n, inputs["other"] / n
sees = right + other
listens = 1 - other / sees * k / (k - 1)
margin = 1.96 * (right * (1 - right) / n) ** 0.5
estimate = (sees, listens, margin)

# %% mutants
MUTANTS = [
    ("right by chance, too", "1 - other / sees * k / (k - 1)", "right / sees"),
    ("one in k", "k / (k - 1)", "2"),
    ("k − 1 of them", "k / (k - 1)", "k"),
    ("not of all", "(sees, listens, margin)", "(sees, listens * sees, margin)"),
    ("seen objects, too", "(sees, listens, margin)", "(right, listens, margin)"),
    ("one standard error", "1.96 * ", ""),
]

# %% exercise
# title: What a deaf model can score
# kind: prediction
# answer: scores
# minutes: 15
# difficulty: 2
# practises: exams that ask once or for every object, and strategies that ignore the question
#
# An exam has pictures with different numbers of objects. `inputs["objects"]` holds one number for
# each picture. `inputs["left"]` says for each picture whether the exam asks for the leftmost
# object. Every picture is asked once. (A picture with one object always asks for the leftmost
# object.)
#
# A *deaf* model sees perfectly and never reads the question. Predict four scores before you run any
# code:
#
# 1. a deaf model that always points at the leftmost object, in the exam that asks once
# 2. a deaf model that chooses an object at random, in the same exam: the expected score
# 3. any deaf model with one answer for each picture, in an exam that asks *every* picture for each
#    of its objects: the share of right answers
# 4. the share of pictures in the exam of 3 for which all answers are right
#
# Set `scores` to a tuple of four shares.

# %% given
inputs = get_inputs("which_one.3")
inputs

# %% stub
scores = None  # four shares

# %% hint
# In the exam of 3, a picture with k objects has k questions, and a deaf model gives k times the
# same answer. How many of the k are right?

# %% hint
# For 3, add right answers and questions over all pictures first, and divide afterwards. A picture
# with many objects has many questions.


# %% check
def make_inputs(rng):
    count = int(rng.randint(10, 16))
    objects = [1, 2, 4, *(int(k) for k in rng.choice([1, 2, 2, 3, 3, 4, 5], count - 3))]
    objects = [objects[i] for i in rng.permutation(count)]
    bias = rng.uniform(0.5, 0.8)
    left = [bool(k == 1 or rng.uniform() < bias) for k in objects]
    return dict(objects=objects, left=left)


def check(answer, inputs):
    objects, left = inputs["objects"], inputs["left"]
    n = len(objects)
    asked = [0 if is_left else 1 for is_left in left]  # object 0 is the leftmost one
    once = sum(wanted == 0 for wanted in asked) / n
    hits = [(said == wanted) / k for k, wanted in zip(objects, asked) for said in range(k)]
    chance = sum(hits) / n
    every = [(picture, j == 0) for picture, k in enumerate(objects) for j in range(k)]
    per_question = sum(right for _, right in every) / len(every)
    whole = sum(all(r for p, r in every if p == picture) for picture in range(n)) / n
    right = (once, chance, per_question, whole)
    wrong = {
        "1: some pictures ask for another object": (0, 1.0),
        "1: this deaf model does not choose at random": (0, chance),
        "2: this deaf model chooses at random": (1, once),
        "2: the mean of 1 / k is not 1 / (mean of k)": (1, n / sum(objects)),
        "2: pictures have different numbers of objects, so chance is not one half": (1, 0.5),
        "3: a picture with many objects has many questions; divide by all questions": (2, chance),
        "3: each picture has one right answer, however the questions are chosen": (2, once),
        "3: pictures have different numbers of objects, so the share is not one half": (2, 0.5),
        "4: a picture with one object needs no listening": (3, 0.0),
        "4: the share belongs to all pictures": (3, per_question),
    }
    mistakes = {t: [*right[:i], v, *right[i + 1 :]] for t, (i, v) in wrong.items()}
    if isinstance(answer, (tuple, list)) and len(answer) == 4:
        for i, value in enumerate(answer):
            if not isinstance(value, (int, float)):
                raise WrongAnswer(f"score {i + 1}: expected a number")
            found = [*right[:i], value, *right[i + 1 :]]
            expect(found, list(right), f"score {i + 1}", mistakes, tolerance=2e-3, secret=True)
    expect(answer, right, "the four scores", tolerance=2e-3, secret=True)


# %% solution
objects, left = inputs["objects"], inputs["left"]
n = len(objects)
once = sum(left) / n
chance = sum(1 / k for k in objects) / n
every = n / sum(objects)
whole = objects.count(1) / n
scores = (once, chance, every, whole)

# %% mutants
MUTANTS = [
    ("does not choose at random", "scores = (once,", "scores = (chance,"),
    ("2: the mean of 1 / k", "sum(1 / k for k in objects) / n", "n / sum(objects)"),
    ("divide by all questions", "every = n / sum(objects)", "every = chance"),
    ("needs no listening", "objects.count(1) / n", "0"),
]

# %% open
# Ask every picture of a batch once instead of twice, with twice as many pictures. Predict the
# curves, then draw them. *A good answer shows* both films over the same number of questions, how
# many steps later the two curves part, and the spread over three random seeds.

# %% open
# Remove `ask`. Add the four colour names to the letters instead, and put the name before the `[`,
# as a large language model does. *A good answer shows* the curves of both models over the same
# steps, how many steps later the two curves part in the slower model, and the spread over three
# random seeds.

# %% quiz
# Every picture has two objects. A model points at an object in all pictures, and is right in 50 %.
# What do you know?
#
# - The model is half good.
#   A model that never reads the question has the same score.
# + Nothing speaks for listening yet.
#   The looker of the lesson scores 50 % without reading a question.
# - The model cannot see.
#   A model that cannot see would often point at nothing.
# - The model listens to half of the questions.
#   A mixture is possible. Then more than half of the answers would be right.

# %% quiz
# Why does training ask every picture twice?
#
# - because twice as many answers halve the loss
#   The loss is a mean.
# - because pictures are expensive
#   Drawing is cheap here; the reason is what the model can learn.
# + because the pixels are equal and the answers differ, so only the question can explain them
#   A model that ignores the question cannot lower the loss further.
# - because one answer is for the symbol and one for the colour
#   Both questions are names of colours.

# %% quiz
# What does the count *other object* show?
#
# - objects that are hard to see
#   A missed object counts as neither.
# - mistakes of the letters
#   A text that cannot be read counts as neither.
# - the pairs that training never showed
#   Kept pairs have an exam of their own.
# + answers of a model that saw an object and did not use the question
#   The point lies on an object, but on the wrong one.

# %% quiz
# The lesson keeps some pairs of symbol and colour out of training. Why?
#
# + to see whether the model combines words and places, or remembers pairs
#   A model that remembered pairs would fail on kept pairs.
# - to make training faster
#   The number of steps is the same.
# - because those pairs are hard to draw
#   All pairs are drawn by the same code.
# - to have fewer colours
#   All colours stay; only pairs are kept.

# %% quiz
# The model is asked for a colour that the picture does not show, and answers with a place. Why?
#
# - because it cannot see colours
#   It finds the right one of two colours in most pictures.
# - because the point is the centre of the picture
#   Most of these answers lie on one of the objects.
# + because no sample of training had another kind of answer
#   A model says *there is none* only if training asked for absent things.
# - because the letters have no minus sign
#   More letters alone would teach nothing.
