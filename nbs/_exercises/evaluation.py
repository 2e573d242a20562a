"""Exercises of the lesson Evaluation. tools/exercises.py makes what ships from this file."""

# %% setup
import math

# %% shared
import numpy as np

from ferretlite.exercises.checks import WrongAnswer, expect, read_exercise_table


# %% exercise
# title: How many questions are enough?
# kind: number
# answer: questions
# minutes: 15
# difficulty: 1
# practises: Wilson intervals, and the number of questions behind a score
#
# A model is right in a share `rate` of its answers. How many questions does an evaluation need, so
# that the 95 % Wilson interval is at most `width` wide? The interval has the width
#
# 2 · z · √(p (1 − p) / n + z² / (4 n²)) / (1 + z² / n),
#
# with p as the share, n as the number of questions and z = 1.96. Set `questions` to the smallest n.

# %% given
inputs = get_inputs("evaluation.1")
inputs

# %% stub
questions = None  # a whole number

# %% hint
# Write the width as a function of n, and count upwards.

# %% hint
# The width falls with n. So the smallest n is the first one whose width is `width` or less.


# %% check
def make_inputs(rng):
    while True:
        rate, width = round(float(rng.uniform(0.6, 0.9)), 2), round(rng.uniform(0.04, 0.09), 3)
        values = list_values(rate, width)
        if len(set(values)) == len(values):
            return dict(rate=rate, width=width)


def search(width, of):
    low, high = 1, 1
    while of(high) > width:
        high *= 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if of(middle) <= width else (middle + 1, high)
    return low


def list_values(p, width):
    """The right number, and those of four mistakes."""
    z = 1.96

    def wilson(n, z=z):
        root = math.sqrt(4 * n * p * (1 - p) + z * z)
        return z * root / (n + z * z)  # the formula of the text, with n² taken out

    right = search(width, wilson)
    simple = search(width, lambda n: 2 * z * math.sqrt(p * (1 - p) / n))
    half, error = search(width, lambda n: wilson(n) / 2), search(width, lambda n: wilson(n, 1.0))
    return right, simple, half, error, right + 1


def check(answer, inputs):
    right, simple, half, error, more = list_values(inputs["rate"], inputs["width"])
    mistakes = {
        "this is the simple interval, expected Wilson's": simple,
        "the width goes from end to end, not from the middle to an end": half,
        "a standard error was taken for an interval of 95 %": error,
        "one question less is not enough, but this is one more than needed": more,
    }
    where = "the number of questions does not fit"
    expect(answer, right, where, mistakes, tolerance=1e-9, secret=True)


# %% solution
p, z, n = inputs["rate"], 1.96, 1
while 2 * z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n) > inputs["width"]:
    n += 1
questions = n

# %% mutants
MUTANTS = [
    ("from the middle to an end", "2 * z *", "z *"),
    ("a standard error", "1.96", "1.0"),
    ("expected Wilson's", " + z**2 / (4 * n**2)) / (1 + z**2 / n)", ")"),
]

# %% exercise
# title: Batches with a limit on tokens
# kind: code
# answer: plan_batches
# minutes: 20
# difficulty: 2
# practises: sorting by length, and the price of padding
#
# A batch takes as long as its longest answer, and all answers of a batch together have to fit into
# memory. Write `plan_batches(lengths, budget)`.
#
# - `lengths`: list of the lengths of the answers
# - `budget`: largest allowed product of the *number* of answers in a batch and its *longest* answer
# - The questions are sorted by length, the shortest first. Questions of equal length keep their
#   order. Each batch takes as many questions, in this order, as fit into the budget.
# - result: list of batches, and a batch is a list of indices. A question that is too long by itself
#   gets a batch of its own.


# %% stub
def plan_batches(lengths, budget):
    raise NotImplementedError


# %% hint
# The last question of a sorted batch is its longest. So a batch with one question more costs
# (number + 1) · (length of the new question).

# %% hint
# Close the batch before you add a question that does not fit. An empty batch takes every question.


# %% check
def make_inputs(rng):
    lengths = [int(n) for n in rng.randint(3, 12, 16)]
    lengths[int(rng.randint(3, 9))] = 90  # two questions are too long
    lengths[int(rng.randint(9, 16))] = 90
    lengths[1] = lengths[2] = 5
    return dict(lengths=lengths, budget=int(rng.randint(26, 40)))


def walk(order, lengths, fits):
    batches = []
    for i in order:
        if batches and fits([*batches[-1], i], lengths):
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def check(answer, inputs):
    lengths, budget = inputs["lengths"], inputs["budget"]
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))

    def padded(batch, lengths):
        return len(batch) * max(lengths[i] for i in batch) <= budget

    def strict(batch, lengths):
        return len(batch) * max(lengths[i] for i in batch) < budget

    def added(batch, lengths):
        return sum(lengths[i] for i in batch) <= budget

    right = walk(order, lengths, padded)
    mistakes = {
        "the questions were not sorted": walk(range(len(lengths)), lengths, padded),
        "the longest question comes first, expected the shortest": walk(
            sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)), lengths, padded
        ),
        "padding costs, too: number times longest, and not the sum of the lengths": walk(
            order, lengths, added
        ),
    }
    turned = sorted(range(len(lengths)), key=lambda i: (lengths[i], -i))
    mistakes["questions of equal length keep their order"] = walk(turned, lengths, padded)
    mistakes["each question that is too long gets a batch of its own"] = [
        *right[:-2],
        right[-2] + right[-1],
    ]
    if strict(right[0], lengths) or walk(order, lengths, strict) != right:
        mistakes["a batch may fill the budget exactly"] = walk(order, lengths, strict)
    found = answer(list(lengths), budget)
    if not isinstance(found, list) or any(not isinstance(b, list) or not b for b in found):
        raise WrongAnswer("expected a list of batches, each a list with at least one index")
    if sorted(i for b in found for i in b) != list(range(len(lengths))):
        raise WrongAnswer("every question has to stand in exactly one batch")
    if found == right:
        exact = answer([4, 4, 4, 4, 4], 8)
        if exact != [[0, 1], [2, 3], [4]]:
            raise WrongAnswer(
                "five answers of length 4, budget 8: a batch may fill the budget exactly"
            )
        return
    for message, wrong in mistakes.items():
        if found == wrong and wrong != right:
            raise WrongAnswer(message)
    raise WrongAnswer(f"16 answers, budget {budget}: found {found}, expected {right}")


# %% solution
def plan_batches(lengths, budget):
    longest, batches = lengths.__getitem__, []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batches and (len(batches[-1]) + 1) * max(map(longest, [*batches[-1], i])) <= budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


# %% mutants
MUTANTS = [
    (
        "were not sorted",
        "sorted(range(len(lengths)), key=lambda i: lengths[i])",
        "range(len(lengths))",
    ),
    ("the longest question comes first", "key=lambda i: lengths[i]", "key=lambda i: -lengths[i]"),
    (
        "not the sum of the lengths",
        "(len(batches[-1]) + 1) * max(map(longest, [*batches[-1], i])) <= budget",
        "sum(map(longest, [*batches[-1], i])) <= budget",
    ),
    ("fill the budget exactly", "<= budget", "< budget"),
    (
        "that is too long gets a batch of its own",
        "if batches and (len",
        "if batches and lengths[batches[-1][0]] > budget or batches and (len",
    ),
]

# %% exercise
# title: Is the second model better?
# kind: verdict
# answer: verdict
# minutes: 20
# difficulty: 2
# practises: paired differences, and honest verdicts
#
# `tiny` answered the same referring questions about images of two sizes, like two models.
# `first` and `second` hold a 1 for each right answer (an IoU of `bound` or more) and a 0 for each
# wrong answer, in the same order. Is the second model better than the first?
#
# Compute the share of right answers of both models. Then draw the questions anew many times, with
# replacement (paired bootstrap): the second model is *better* if the middle 95 % of the differences
# second − first lie above 0, *worse* if they lie below 0, and otherwise you *cannot tell*.
#
# Set `verdict = (word, first, second, width)`: the word, the share of each model, and the width of
# the interval, from end to end. Shares within 0.001 and a width within 0.03 are right.

# %% given
inputs = get_inputs("evaluation.3")
inputs

# %% stub
verdict = None  # ("better" | "worse" | "cannot tell", first, second, width)

# %% hint
# Draw *questions*: both models are judged on the same drawn questions. Then the difficulty of the
# questions cancels.

# %% hint
# `torch.randint(0, n, (2000, n))` draws 2,000 samples of n questions at once.


# %% check
def make_inputs(rng):
    columns = read_exercise_table("shrunk")["columns"]
    sides = [("384", "192"), ("288", "384"), ("192", "384")][rng.randint(3)]
    while True:
        chosen = rng.permutation(len(columns["384"]))[: int(rng.randint(70, 111))]
        bound = round(float(rng.uniform(0.3, 0.5)), 2)
        b, a = ([columns[side][i] >= bound for i in chosen] for side in sides)
        a, b = np.array(a), np.array(b)
        paired, separate = draw_intervals(a, b)
        clear = min(abs(paired)) > 0.012 and a.mean() != b.mean() and np.ptp(paired) > 0.08
        if clear and np.ptp(separate) > np.ptp(paired) + 0.07:
            return dict(bound=bound, first=b.astype(int).tolist(), second=a.astype(int).tolist())


def draw_intervals(a, b):
    """The 95 % intervals of a − b from a paired bootstrap and from two separate ones.

    A draw of questions is a draw of how many are won, lost and equal."""
    rng, n, many = np.random.RandomState(1), len(a), 3000
    won, lost = np.mean(a & ~b), np.mean(b & ~a)
    counts = rng.multinomial(n, [won, lost, 1 - won - lost], many)
    separate = rng.binomial(n, a.mean(), many) - rng.binomial(n, b.mean(), many)
    return [np.quantile(d / n, [0.025, 0.975]) for d in (counts[:, 0] - counts[:, 1], separate)]


def check(answer, inputs):
    first, second = inputs["first"], inputs["second"]
    n = len(first)
    shares = (sum(first) / n, sum(second) / n)
    if not isinstance(answer, tuple | list) or len(answer) != 4:
        raise WrongAnswer('expected four things, such as ("better", 0.52, 0.61, 0.15)')
    word, *rest = answer
    if word not in ("better", "worse", "cannot tell"):
        raise WrongAnswer('the first thing is "better", "worse" or "cannot tell"')
    mistakes = {
        "they are exchanged": shares[::-1],
        "these are numbers of right answers, expected shares": (sum(first), sum(second)),
        "these are percent, expected shares from 0 to 1": tuple(100 * share for share in shares),
        "these are the shares of wrong answers": tuple(1 - share for share in shares),
    }
    expect(tuple(rest[:2]), shares, "the two shares", mistakes, tolerance=1e-3, secret=True)
    a, b = np.array(second) == 1, np.array(first) == 1
    paired, separate = draw_intervals(a, b)
    width = np.ptp(paired)
    mistakes = {
        "the questions were drawn for each model by itself, expected the same questions for both": (
            np.ptp(separate)
        ),
        "this is half of the width, expected the way from end to end": width / 2,
        "this is a standard error, expected an interval of 95 %": width / 3.92,
        "this is the interval of one model, expected that of the difference": (
            3.92 * math.sqrt(shares[0] * (1 - shares[0]) / n)
        ),
        "this is the spread of the single differences, expected that of their mean": (
            width / 3.92 * math.sqrt(n)
        ),
    }
    found = rest[2] if isinstance(rest[2], int | float) else 0.0
    mistakes = dict(sorted(mistakes.items(), key=lambda item: abs(item[1] - found)))
    expect(rest[2], width, "the width of the interval", mistakes, 0.03, secret=True)
    low, high = paired
    told = "cannot tell" if low <= 0 <= high else "better" if low > 0 else "worse"
    if word == told:
        return
    if told == "cannot tell":
        raise WrongAnswer(
            "the word: the interval of the difference contains 0, so the sample cannot decide"
        )
    if word == "cannot tell":
        raise WrongAnswer("the word: the interval of the paired difference does not contain 0")
    raise WrongAnswer("the word: the direction of the difference is reversed, take second − first")


# %% solution
import torch  # noqa: E402

first, second = (torch.tensor(inputs[k]).double() for k in ("first", "second"))
picks = torch.randint(0, len(first), (2000, len(first)), generator=torch.Generator().manual_seed(0))
drawn = (second - first)[picks].mean(1)
low, high = drawn.quantile(0.025), drawn.quantile(0.975)
word = "better" if low > 0 else "worse" if high < 0 else "cannot tell"
verdict = (word, float(first.mean()), float(second.mean()), float(high - low))

# %% mutants
MUTANTS = [
    (
        "exchanged",
        "float(first.mean()), float(second.mean())",
        "float(second.mean()), float(first.mean())",
    ),
    (
        "expected shares",
        "float(first.mean()), float(second.mean())",
        "float(first.sum()), float(second.sum())",
    ),
    (
        "four things",
        "verdict = (word, float(first.mean()), float(second.mean()), float(high - low))",
        "verdict = (word, float(second.mean() - first.mean()))",
    ),
    (
        "drawn for each model by itself",
        "(second - first)[picks].mean(1)",
        "second[picks].mean(1) - first[picks.flip(0)].mean(1)",
    ),
    ("half of the width", "float(high - low)", "float(high - low) / 2"),
    ("a standard error", "float(high - low)", "float(drawn.std())"),
    ("the word: ", "verdict = (word, ", 'verdict = ({"better": "worse"}.get(word, "better"), '),
]

# %% open
# Ask each question of `rec` three more times with `temperature=0.5`. Take the box with the highest
# score of all four answers instead of the first box of one answer. *A good answer shows* both
# shares with the paired interval of their difference, on at least 100 questions, and how often one
# of the four boxes is right.

# %% open
# Sort the wrong answers of `tiny` by hand into four causes that you name yourself. *A good answer
# shows* fifty answers with their pictures, the share of each cause with intervals, and a rule that
# another person could apply.

# %% quiz
# Why does an evaluation ask a *mute model* that answers nothing?
#
# - to measure the speed
#   The mute model is no test of speed.
# + Any score above 0, apart from stated exceptions, shows an error in the rules.
#   The mute model has to fail everywhere.
# - to find the chance level
#   The chance level belongs to random answers.
# - to train the model further
#   Evaluation changes no weights.

# %% quiz
# The questions are sorted by the length of the expected answer. Does this leak the truth?
#
# - Yes, the model sees the length.
#   The model sees the prompt alone.
# + No, the length only decides which questions share a batch.
#   A model answers the same in every batch.
# - Yes, long answers are cut.
#   Answers are cut by a limit of the task, not by the truth.
# - No, since the order is random.
#   The order is sorted.

# %% quiz
# A model has 0.5 in naming and 0.5 in "A or B?". Which score is good?
#
# + naming, since a random name is right in one of several hundred cases
#   A score needs its chance level.
# - "A or B?", since the question is harder
#   A guess is right half of the time.
# - both
#   A guess reaches 0.5 in "A or B?".
# - neither
#   0.5 in naming is far above chance.

# %% quiz
# The perfect model scores slightly below 1 in `det.mAP`. Why?
#
# - The perfect model forgets an object.
#   It answers with the ground truth.
# + Its boxes pass through the bins, and an IoU of 0.95 notices half a bin.
#   Perfect answers are written and read back like a model's answers.
# - The metric has an error.
#   The metric is tested against a public tool.
# - Average precision never reaches 1.
#   Average precision reaches 1 for exact boxes.

# %% quiz
# Two intervals overlap. What follows for models that answered the same questions?
#
# - The models are equally good.
#   An interval never shows equality.
# - The difference is not significant.
#   The paired difference can be clear although the intervals overlap.
# + Nothing yet: look at the interval of the paired difference.
#   Easy and hard questions cancel in the difference.
# - The first model is better.
#   The order of the models says nothing.
