"""Exercises of the lesson The two papers on a page. tools/exercises.py makes what ships."""

# %% setup
import torch

# %% shared
from fractions import Fraction
from itertools import permutations

from ferretlite.exercises.checks import WrongAnswer, expect

# %% exercise
# title: An ablation without an order
# kind: code
# answer: share_gains
# minutes: 30
# difficulty: 3
# practises: ablation studies, and what a row of a table can say
#
# Tables 5 and 6 of Ferret-v2 add the parts in *one* order. A part that is added later may find less
# to gain. If every combination of parts had been measured, the gain of a part could be averaged
# over all orders. Write `share_gains(scores)`.
#
# - `scores`: tensor with n dimensions of two entries each, one dimension for each part. Entry 0
#   means without the part, entry 1 with the part: for three parts, `scores[1, 0, 1]` is the score
#   with the first and the third part.
# - result: tensor `[n]`. Entry i is the gain that part i brings when it is added, as a mean over
#   *all* orders in which the n parts can be added.
#
# Example: two parts with the scores 50 without parts, 60 with the first, 54 with the second and 62
# with both. The first part brings 10 or 8, and the second 4 or 2. The result is (9, 3).


# %% stub
def share_gains(scores):
    raise NotImplementedError


# %% hint
# `itertools.permutations(range(n))` gives all orders. With four parts there are 24.

# %% hint
# Walk through an order with a list of n zeros as index. Set one entry to 1, and subtract the score
# before from the score after. `scores[tuple(index)]` reads an entry.


# %% check
def make_inputs(rng):
    def draw(n):
        scores = torch.from_numpy(rng.uniform(40, 90, (2,) * n)).double()
        return (100 * scores).round() / 100

    return dict(two=draw(2), three=draw(3), four=draw(4))


def average(scores, orders):
    """The mean gain of each part over some orders, as exact fractions."""
    n = scores.dim()
    gains = [Fraction(0)] * n
    for order in orders:
        index = [0] * n
        for part in order:
            before = Fraction(scores[tuple(index)].item())
            index[part] = 1
            gains[part] += Fraction(scores[tuple(index)].item()) - before
    return torch.tensor([float(gain / len(orders)) for gain in gains], dtype=torch.float64)


def check(answer, inputs):
    for scores in (inputs["two"], inputs["three"], inputs["four"]):
        n = scores.dim()
        orders = list(permutations(range(n)))
        empty, full = [0] * n, [1] * n
        alone, last = [], []
        for i in range(n):
            one, others = (tuple(int((k == i) == state) for k in range(n)) for state in (1, 0))
            alone.append(scores[one] - scores[tuple(empty)])
            last.append(scores[tuple(full)] - scores[others])
        plain = [(scores.select(i, 1) - scores.select(i, 0)).mean() for i in range(n)]
        alone, last, plain = map(torch.stack, (alone, last, plain))
        right = average(scores, orders)
        whole = scores[tuple(full)] - scores[tuple(empty)]
        mistakes = {
            "this is one order, the order of the dimensions": average(scores, orders[:1]),
            "this is one order, the last part first": average(scores, orders[-1:]),
            "these are the gains of each part alone, without any other part": alone,
            "these are the losses when a part is removed from the full model": last,
            "all combinations of the other parts count the same here, expected all orders": plain,
            "the gains of the orders were added, expected their mean": right * len(orders),
            "the mean was taken of alone and last, but other parts may be there already": (
                (alone + last) / 2
            ),
            "the sign is reversed": -right,
            "the whole gain was divided equally": torch.full_like(right, whole.item() / n),
        }
        expect(answer(scores.clone()), right, f"{n} parts", mistakes)


# %% solution
def share_gains(scores):
    from itertools import permutations

    n = scores.dim()
    gains = torch.zeros(n, dtype=scores.dtype)
    orders = list(permutations(range(n)))
    for order in orders:
        index = [0] * n
        for part in order:
            before = scores[tuple(index)].clone()
            index[part] = 1
            gains[part] += scores[tuple(index)] - before
    return gains / len(orders)


# %% mutants
MUTANTS = [
    ("order of the dimensions", "list(permutations(range(n)))", "list(permutations(range(n)))[:1]"),
    ("the last part first", "list(permutations(range(n)))", "list(permutations(range(n)))[-1:]"),
    ("were added", "gains / len(orders)", "gains"),
    ("sign is reversed", "gains[part] +=", "gains[part] -="),
    (
        "expected all orders",
        "    return gains / len(orders)",
        "    both = [(scores.select(i, 1) - scores.select(i, 0)).mean() for i in range(n)]\n"
        "    return torch.stack(both)",
    ),
    (
        "without any other part",
        "            index[part] = 1",
        "            index = [0] * n\n            before = scores[tuple(index)].clone()\n"
        "            index[part] = 1",
    ),
]

# %% exercise
# title: Is the gain of a table real?
# kind: verdict
# answer: verdict
# minutes: 20
# difficulty: 2
# practises: standard errors, and paired comparisons
#
# A paper reports the scores of a model before (a) and after (b) a new part was added, on the same
# questions. You asked the authors, and they sent four counts: `both` questions were right both
# times, `only_a` were right before alone, `only_b` after alone, and `neither` never.
#
# Answer with `verdict = (word, gain, unpaired, paired)`, the three numbers in points (percent of
# the questions):
#
# - `gain`: the score after minus the score before
# - `unpaired`: half of the 95 % interval of the gain, as if both scores came from *different*
#   questions: 1.96 standard errors. The variance of a difference is the sum of the two variances.
# - `paired`: half of the 95 % interval of the gain on the *same* questions. A question has the
#   difference 1, 0 or −1; the variance of the mean is the variance of these differences, divided by
#   the number of questions.
# - `word`: `"better"` if the paired interval lies above zero, `"worse"` if it lies below zero, else
#   `"cannot tell"`

# %% given
inputs = get_inputs("papers.2")
inputs

# %% stub
verdict = None  # ("better", 1.2, 3.4, 0.5)

# %% hint
# The variance of a score p of n questions is p · (1 − p) / n, as in the lesson.

# %% hint
# The mean of the squared differences is (only_a + only_b) / n, because the square of 1 and of −1
# is 1. Subtract the square of the mean.


# %% check
def make_inputs(rng):
    while True:
        n = int(rng.randint(120, 300) * rng.choice([1, 6]))
        only_a, only_b, both = (
            int(n * rng.uniform(*ends)) for ends in ((0.02, 0.12), (0.02, 0.12), (0.5, 0.7))
        )
        counts = dict(both=both, only_a=only_a, only_b=only_b, neither=n - both - only_a - only_b)
        gain, _, paired = compute(counts)
        squares = 196 * ((only_a + only_b) / n / n) ** 0.5
        if abs(abs(gain) - paired) > 0.1 * paired and squares > paired * 1.005 and squares > 1:
            return counts


def compute(counts):
    """Gain and half intervals in points, from a list with one difference for each question."""
    a, b = list_answers(counts)
    unpaired = (a.var(correction=0) / len(a) + b.var(correction=0) / len(b)) ** 0.5
    paired = ((b - a).var(correction=0) / len(a)) ** 0.5
    return tuple(100 * value.item() for value in ((b - a).mean(), 1.96 * unpaired, 1.96 * paired))


def list_answers(counts):
    """Right (1) or wrong (0) of every question, before and after."""
    repeats = torch.tensor([counts[name] for name in ("both", "only_a", "only_b", "neither")])
    pairs = torch.tensor([[1.0, 1], [1, 0], [0, 1], [0, 0]], dtype=torch.float64)
    return pairs.repeat_interleave(repeats, 0).T


def check(answer, inputs):
    if not isinstance(answer, (tuple, list)) or len(answer) != 4:
        raise WrongAnswer("expected (word, gain, unpaired, paired)")
    word, *numbers = answer
    gain, unpaired, paired = compute(inputs)
    right = [gain, unpaired, paired]
    n = sum(inputs.values())
    a, b = (196 * (v.var(correction=0) / n).item() ** 0.5 for v in list_answers(inputs))
    squares = 196 * ((inputs["only_a"] + inputs["only_b"]) / n / n) ** 0.5
    mistakes = {
        "the gain is after minus before": [-gain, unpaired, paired],
        "these are shares, expected points": [value / 100 for value in right],
        "these are standard errors, expected 1.96 of them": [gain, unpaired / 1.96, paired / 1.96],
        "this is the interval of the first score, expected the interval of a difference": [
            gain,
            a,
            paired,
        ],
        "this is the interval of the second score, expected the interval of a difference": [
            gain,
            b,
            paired,
        ],
        "the two standard errors were added, expected the variances": [gain, a + b, paired],
        "subtract the square of the mean difference": [gain, unpaired, squares],
        "the paired variance is that of a mean: divide by the number of questions": [
            gain,
            unpaired,
            paired * n**0.5,
        ],
        "the two intervals are exchanged": [gain, paired, unpaired],
        "the two intervals are whole, expected half of them": [gain, 2 * unpaired, 2 * paired],
    }
    expect(list(numbers), right, "the numbers", mistakes, tolerance=2e-3, secret=True)
    told = "cannot tell" if abs(gain) < paired else "better" if gain > 0 else "worse"
    if word == told:
        return
    if word not in ("better", "worse", "cannot tell"):
        raise WrongAnswer("the word is one of 'better', 'worse' and 'cannot tell'")
    if told == "cannot tell":
        raise WrongAnswer("the word: the paired interval contains zero")
    if word == "cannot tell":
        raise WrongAnswer("the word: the paired interval does not contain zero")
    raise WrongAnswer("the word: better and worse are exchanged")


# %% solution
n = sum(inputs.values())
before, after = ((inputs["both"] + inputs[name]) / n for name in ("only_a", "only_b"))
gain = after - before
variance = before * (1 - before) / n + after * (1 - after) / n
squares = (inputs["only_a"] + inputs["only_b"]) / n
unpaired, paired = 1.96 * variance**0.5, 1.96 * ((squares - gain**2) / n) ** 0.5
word = "cannot tell" if abs(gain) < paired else "better" if gain > 0 else "worse"
verdict = (word, 100 * gain, 100 * unpaired, 100 * paired)

# %% mutants
MUTANTS = [
    ("after minus before", "100 * gain, ", "-100 * gain, "),
    ("expected points", "100 * gain, 100 * unpaired, 100 * paired", "gain, unpaired, paired"),
    ("interval of the second score", "before * (1 - before) / n + after", "after"),
    ("square of the mean", "squares - gain**2", "squares"),
    ("divide by the number", "((squares - gain**2) / n) ** 0.5", "(squares - gain**2) ** 0.5"),
    ("exchanged", "100 * unpaired, 100 * paired", "100 * paired, 100 * unpaired"),
    ("the word: ", "verdict = (word, ", "verdict = ({'better': 'worse'}.get(word, 'better'), "),
]

# %% open
# Find in Ferret-v2 the sentence that says what the language model reads, and the equation that says
# what the sampler reads. Which of the two is often quoted wrongly? *A good answer shows* both
# places with their section, and one public description of the model that confuses them.

# %% open
# Table 7 of Griffon v2 compares the strided projector with a resampler. Which third projector would
# you test, and why is its result missing in the argument? *A good answer shows* the number of
# tokens and of weights of all three projectors, and a result that would change your opinion.

# %% quiz
# How does Ferret-v2 read more pixels than its tower was trained on?
#
# - It stretches the learned positions of the tower.
#   Griffon v2 does that.
# + It cuts the image into tiles, and keeps a small whole view beside the tiles.
#   The paper calls the method any resolution (section 3.2).
# - It trains a larger tower from nothing.
#   Both towers are public towers that were trained before.
# - It reads the image twice with different questions.
#   The question has no influence on the image tokens.

# %% quiz
# Ferret-v2 reports that tiles beat a larger view, and Griffon v2 reports the opposite. Who is
# right?
#
# - Griffon v2, because its second version is younger
#   The date decides nothing.
# - Ferret-v2, because it tested four tasks
#   The other paper used other tasks and other data.
# + Neither result settles the question, because models and data differ
#   A comparison has to change one part alone.
# - Both, because tiles and views are equal
#   Neither paper shows that.

# %% quiz
# What does a row of Tables 5 and 6 of Ferret-v2 show?
#
# - what its part would bring to any model
#   The gain depends on the parts that are there already.
# - the score of its part alone
#   Each row adds its part to all rows above.
# - the mean of several runs
#   The paper reports single runs, without intervals.
# + the score of one run with its part and all parts above
#   So the gain of a part depends on the order of the rows.

# %% quiz
# A gain of 0.8 points on 2,667 questions lies inside the interval of a single score. What follows?
#
# - The part does not help.
#   Nobody has shown that the gain is zero.
# + The table alone cannot show that the part helps.
#   A paired comparison on the same questions could be sharper, but is not reported.
# - The part helps, because the number is positive.
#   Chance alone often gives a positive number.
# - The questions are too easy.
#   The number of questions decides about the interval.

# %% quiz
# What is an *absent* object in this course?
#
# - an object that is hidden behind another
#   A hidden part still belongs to the image.
# - an object without a name
#   Objects without a name can be found by a region.
# + an object that the question asks for and the image does not show
#   The right answer says that there is none.
# - an object that the model did not find
#   This is a mistake of the model. The question decides what is absent.
