"""Exercises of the lesson Metrics. tools/exercises.py makes what ships from this file."""

# %% setup
import numpy as np

from ferretlite.regions.geometry import Box, box_iou

# %% shared
from ferretlite.exercises.checks import WrongAnswer, expect, read_exercise_table

# %% exercise
# title: Every image counts once
# kind: code
# answer: compute_image_accuracy
# minutes: 25
# difficulty: 2
# practises: the bound of a right box, missing answers, and two kinds of mean
#
# Some images have one question, others have ten. Write `compute_image_accuracy(images)`: for each
# image the share of right answers, then the mean of the shares. Every image counts once.
#
# - `images`: list with one entry for each image; an entry is a list of `(truth, answer)`; both are
#   `Box`, or `answer` is None when the answer held no box
# - An answer is right from an IoU of 0.5 on; the bound itself counts. A missing answer is wrong.
# - Images without questions are left out. Without any question the result is None.
#
# Example: one image with 1 of 1 right and one image with 1 of 4 right give (1 + 0.25) / 2 = 0.625.


# %% stub
def compute_image_accuracy(images):
    raise NotImplementedError


# %% hint
# Compute one share for each image first. Which images have no share?

# %% hint
# `box_iou([truth], [answer]).item()` is the IoU of two boxes.


# %% check
def make_inputs(rng):
    """Truths are squares of side 12 and more; an answer is shifted by a share of its side."""
    shifts = {True: (0.0, 0.2), False: (0.5, 0.7)}
    counts = [1, int(rng.randint(5, 9)), int(rng.randint(11, 18))]
    plan = [[bool(rng.randint(2)) for _ in range(n)] for n in counts]
    plan[0], plan[2][0], plan[2][1], plan[1][0] = [True], False, False, True
    images = []
    for rights in plan:
        image = []
        for right in rights:
            x, y = (float(v) for v in rng.randint(0, 200, 2))
            side = float(rng.randint(12, 60))
            move = side * float(rng.uniform(*shifts[right]))
            image.append(
                (Box(x, y, x + side, y + side), Box(x + move, y, x + move + side, y + side))
            )
        images.append(image)
    return dict(images=images, plan=plan)


def average(plan):
    return float(np.mean([np.mean(rights) for rights in plan if rights]))


def check(answer, inputs):
    images, plan = inputs["images"], inputs["plan"]

    def copy(held):
        return [list(image) for image in held]

    flat = [right for rights in plan for right in rights]
    mistakes = {"every question counts once here, expected every image": float(np.mean(flat))}
    mistakes["wrong answers are counted, expected right ones"] = 1 - average(plan)
    expect(answer(copy(images)), average(plan), "three images", mistakes)
    mistakes = {
        "an image without questions counts as wrong; expected to leave it out": (
            average([*plan, [False]])
        ),
        "an image without questions counts as right; expected to leave it out": (
            average([*plan, [True]])
        ),
    }
    where = "an image without questions"
    expect(answer([*copy(images), []]), average(plan), where, mistakes)
    silent = [*copy(images), [(images[0][0][0], None), images[0][0]]]
    mistakes = {
        "a missing answer was dropped, expected wrong": average([*plan, [True]]),
        "a missing answer counts as right": average([*plan, [True, True]]),
    }
    expect(answer(silent), average([*plan, [False, True]]), "a missing answer", mistakes)
    x = images[0][0][0].x1
    bound = [*copy(images), [(Box(x, 0, x + 30, 10), Box(x + 10, 0, x + 40, 10))]]
    mistakes = {"an IoU of exactly 0.5 counts as wrong": average([*plan, [False]])}
    expect(answer(bound), average([*plan, [True]]), "an IoU of exactly 0.5", mistakes)
    below = [*copy(images), [(Box(x, 0, x + 37, 10), Box(x + 13, 0, x + 50, 10))]]
    mistakes = {"an IoU of 0.48 counts as right, expected 0.5 and more": average([*plan, [True]])}
    expect(answer(below), average([*plan, [False]]), "an IoU of 0.48", mistakes)
    if answer([]) is not None or answer([[], []]) is not None:
        raise WrongAnswer("without any question the result is None")


# %% solution
def compute_image_accuracy(images):
    shares = []
    for image in images:
        right = [a is not None and box_iou([t], [a]).item() >= 0.5 for t, a in image]
        if right:
            shares.append(sum(right) / len(right))
    return sum(shares) / len(shares) if shares else None


# %% mutants
MUTANTS = [
    ("every question counts once", "shares.append(sum(right) / len(right))", "shares += right"),
    ("exactly 0.5 counts as wrong", ".item() >= 0.5", ".item() > 0.5"),
    ("0.48 counts as right", ".item() >= 0.5", ".item() >= 0.35"),
    (
        "a missing answer was dropped",
        "for t, a in image]",
        "for t, a in image if a is not None]",
    ),
    (
        "counts as wrong; expected to leave",
        "        if right:",
        "        right = right or [False]\n        if right:",
    ),
    ("the result is None", "if shares else None", "if shares else 0.0"),
]

# %% exercise
# title: How far may a box slip?
# kind: number
# answer: slip
# minutes: 15
# difficulty: 2
# practises: IoU as a function of a shift
#
# A model answers with a box of the right size, shifted to the right *and* down by the same number
# of pixels. Your inputs name width and height of the true box, and a bound of the IoU. What is the
# largest shift, in pixels, that still reaches the bound? An answer within 0.5 % is right.

# %% given
inputs = get_inputs("metrics.2")
inputs

# %% stub
slip = None  # pixels in either direction

# %% hint
# The shared part has the sides width − s and height − s. What is the area of the union?

# %% hint
# Solve the equation, or compute the IoU for many shifts and take the last shift that reaches the
# bound.


# %% check
def make_inputs(rng):
    width, height = int(rng.randint(60, 90)), int(rng.randint(20, 40))
    return dict(width=width, height=height, bound=round(float(rng.uniform(0.45, 0.75)), 3))


def measure_shift(width, height, x, y):
    both = max(width - x, 0) * max(height - y, 0)
    return both / (2 * width * height - both)


def find_slip(bound, measure):
    """The largest s for which `measure(s)` reaches the bound."""
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if measure(middle) >= bound else (low, middle)
    return low


def check(answer, inputs):
    w, h, bound = inputs["width"], inputs["height"], inputs["bound"]
    right = find_slip(bound, lambda s: measure_shift(w, h, s, s))
    mistakes = {
        "the box slips to the right only here": find_slip(
            bound, lambda s: measure_shift(w, h, s, 0)
        ),
        "the box slips down only here": find_slip(bound, lambda s: measure_shift(w, h, 0, s)),
        "the shared part is divided by the area of one box, expected the union": find_slip(
            bound, lambda s: max(w - s, 0) * max(h - s, 0) / (w * h)
        ),
        "the union is the sum of both areas here; the shared part counts once": find_slip(
            bound, lambda s: max(w - s, 0) * max(h - s, 0) / (2 * w * h)
        ),
        "this is the length of the diagonal, expected the shift in either direction": (
            right * 2**0.5
        ),
    }
    expect(answer, right, "the shift", mistakes, tolerance=0.005, secret=True)


# %% solution
w, h, bound = inputs["width"], inputs["height"], inputs["bound"]


def measure(s):
    both = (w - s) * (h - s)
    return both / (2 * w * h - both)


slip = 0.0
while measure(slip + 0.001) >= bound:
    slip += 0.001

# %% mutants
MUTANTS = [
    ("to the right only", "(w - s) * (h - s)", "(w - s) * h"),
    ("down only", "(w - s) * (h - s)", "w * (h - s)"),
    ("the area of one box", "2 * w * h - both", "w * h"),
]

# %% exercise
# title: Is the large image better?
# kind: verdict
# answer: verdict
# minutes: 25
# difficulty: 3
# practises: paired comparisons, and when a difference cannot be told
#
# `tiny` answered the same referring questions twice: about the image at full size, and about the
# image shrunk first. Your inputs hold the IoU of each answer, in the same order of questions, for
# your own sample of questions. Answer with `verdict = (word, a, b, width)`:
#
# - `a`, `b`: accuracy at an IoU of 0.5 (the bound counts) of `inputs["a"]` and of `inputs["b"]`
# - `word`: `"better"` if a is better than b, `"worse"`, or `"cannot tell"`. The difference counts
#   when the 95 % interval of a *paired* bootstrap does not contain zero: draw questions with
#   replacement, and compute the difference of the two accuracies on the *same* drawn questions.
# - `width`: width of this interval, from end to end. A width within 0.03 is right.

# %% given
inputs = get_inputs("metrics.3")
len(inputs["a"]), inputs["a"][:5], inputs["b"][:5]

# %% stub
verdict = None  # ("better", 0.7, 0.6, 0.15) or ("worse", …) or ("cannot tell", …)

# %% hint
# Turn both lists into right and wrong. The difference of one question is 1, 0 or −1.

# %% hint
# Draw the indices of questions, not the answers of a and b separately. 2000 draws are enough.


# %% check
def make_inputs(rng):
    columns = read_exercise_table("shrunk")["columns"]
    sides = [("384", "192"), ("384", "288"), ("192", "384")][rng.randint(3)]
    total = len(columns["384"])
    while True:
        chosen = rng.permutation(total)[: int(rng.randint(70, 111))]
        held = [[columns[side][i] for i in chosen] for side in sides]
        a, b = (np.array(values) >= 0.5 for values in held)
        paired, separate = draw_intervals(a, b)
        clear = min(abs(paired)) > 0.012 and a.mean() != b.mean() and np.ptp(paired) > 0.08
        if clear and np.ptp(separate) > np.ptp(paired) + 0.07:
            return dict(a=held[0], b=held[1])


def draw_intervals(a, b):
    """The 95 % intervals of a − b from a paired bootstrap and from two separate ones.

    A draw of questions is a draw of how many are won, lost and equal."""
    rng, n, many = np.random.RandomState(1), len(a), 3000
    won, lost = np.mean(a & ~b), np.mean(b & ~a)
    counts = rng.multinomial(n, [won, lost, 1 - won - lost], many)
    separate = rng.binomial(n, a.mean(), many) - rng.binomial(n, b.mean(), many)
    return [np.quantile(d / n, [0.025, 0.975]) for d in (counts[:, 0] - counts[:, 1], separate)]


def check(answer, inputs):
    a, b = np.array(inputs["a"]), np.array(inputs["b"])
    if not isinstance(answer, (tuple, list)) or len(answer) != 4:
        raise WrongAnswer("expected (word, a, b, width)")
    word, *rest = answer
    right = float((a >= 0.5).mean()), float((b >= 0.5).mean())
    mistakes = {
        "the two accuracies are exchanged": list(right[::-1]),
        "these are means of the IoU, expected shares of right answers": [a.mean(), b.mean()],
        "these are shares of wrong answers": [1 - r for r in right],
        "these are percent, expected shares from 0 to 1": [100 * r for r in right],
    }
    expect(rest[:2], list(right), "the accuracies", mistakes, tolerance=1e-3, secret=True)
    a, b = a >= 0.5, b >= 0.5
    paired, separate = draw_intervals(a, b)
    width = np.ptp(paired)
    mistakes = {
        "the questions were drawn for each model by itself, expected the same questions for both": (
            np.ptp(separate)
        ),
        "this is half of the width, expected the way from end to end": width / 2,
        "this is a standard error, expected an interval of 95 %": width / 3.92,
    }
    expect(rest[2], width, "the width of the interval", mistakes, 0.03, secret=True)
    low, high = paired
    told = "cannot tell" if low <= 0 <= high else "better" if low > 0 else "worse"
    if word == told:
        return
    if word not in ("better", "worse", "cannot tell"):
        raise WrongAnswer("the word is one of 'better', 'worse' and 'cannot tell'")
    if told == "cannot tell":
        raise WrongAnswer("the word: the interval of the paired difference contains zero")
    if word == "cannot tell":
        raise WrongAnswer("the word: the interval of the paired difference does not contain zero")
    raise WrongAnswer("the word: better and worse are exchanged")


# %% solution
hits = [np.array(inputs[name]) >= 0.5 for name in ("a", "b")]
difference = hits[0].astype(float) - hits[1].astype(float)
draws = np.random.RandomState(0).randint(len(difference), size=(4000, len(difference)))
drawn = difference[draws].mean(1)
low, high = np.quantile(drawn, [0.025, 0.975])
word = "cannot tell" if low <= 0 <= high else ("better" if low > 0 else "worse")
verdict = (word, hits[0].mean(), hits[1].mean(), high - low)

# %% mutants
MUTANTS = [
    (
        "accuracies are exchanged",
        "hits[0].mean(), hits[1].mean()",
        "hits[1].mean(), hits[0].mean()",
    ),
    (
        "means of the IoU",
        "hits[0].mean(), hits[1].mean()",
        "np.mean(inputs['a']), np.mean(inputs['b'])",
    ),
    (
        "shares of wrong answers",
        "hits[0].mean(), hits[1].mean()",
        "1 - hits[0].mean(), 1 - hits[1].mean()",
    ),
    (
        "drawn for each model by itself",
        "drawn = difference[draws].mean(1)",
        "drawn = hits[0][draws].mean(1) - hits[1][draws[::-1]].mean(1)",
    ),
    ("half of the width", ", high - low)", ", (high - low) / 2)"),
    ("the word is one of", "verdict = (word, ", "verdict = ('equal', "),
    ("the word: ", "verdict = (word, ", "verdict = ({'better': 'worse'}.get(word, 'better'), "),
]

# %% open
# Find an answer to "Is this a cat or a dog?" that a person would accept and `find_chosen_option`
# rejects. *A good answer shows* a rule that accepts the answer and still rejects "a cat or a dog",
# and counts how often the rule is wrong on fifty answers that were written for the purpose.

# %% open
# The constant box is chosen on the same questions as its score. Choose on one half and score on the
# other half. *A good answer shows* how much lower the score is for 20, 200 and 2000 questions, with
# the spread over several halves.

# %% quiz
# A model leaves 10 of 100 questions without a readable box, and 60 answers are right. What is its
# accuracy?
#
# + 0.60
#   An unreadable answer is wrong and stays in the count.
# - 0.67
#   60 of 90 would reward a model for silence.
# - 0.65
#   Half a point for each silence has no reason.
# - unknown, because 10 answers are missing
#   The answers are known to be unreadable, so they are wrong.

# %% quiz
# Why does a constant answer stand beside a score?
#
# - because the constant is the best possible answer
#   The constant ignores the image, so a model should be able to beat the constant.
# + because a score can come from habits of the data, without a look at the image
#   A box in the middle of the image may be right surprisingly often.
# - because the constant replaces chance
#   Chance and constant are two different opponents.
# - because the interval is computed from the constant
#   The interval comes from the answers alone.

# %% quiz
# Two models score 0.70 and 0.73 on the same 300 questions, and their intervals overlap. What
# follows?
#
# - The models are equally good.
#   Overlap does not show that the difference is zero.
# - The second model is better.
#   The difference may be chance.
# + Nothing yet; the paired difference has an interval of its own.
#   Both models answered the same questions, so the paired interval is usually narrower.
# - More questions cannot help.
#   The paired interval becomes narrower with more questions.

# %% quiz
# The box of an object is 12 pixels wide and high. By how many pixels may the answer be off in both
# directions for an IoU of 0.5?
#
# - 6
#   Half a side in both directions leaves a quarter of the area: the IoU is 1/7.
# - 4
#   A third of the side leaves 4/9 of the area: the IoU is 2/7.
# + 2
#   About 18 % of the side: (10 · 10) / (288 − 100) = 0.53.
# - 0.5
#   Half a pixel leaves an IoU of 0.85.

# %% quiz
# Which count error does "no number in the answer" get for a truth of 3?
#
# - 0
#   A missing answer would be the best answer.
# - 1
#   The error has to depend on the truth, or silence would be a good strategy for large counts.
# + 3
#   The error is that of the answer 0, and at least 1.
# - none; the question is left out
#   Leaving questions out rewards silence.
