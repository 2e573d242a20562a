"""Exercises of the lesson Tokens. tools/exercises.py makes what ships from this file."""

# %% setup
import torch

# %% shared
from ferretlite.exercises.checks import expect


# %% exercise
# title: A dialogue with branches
# kind: code
# answer: make_branch_mask
# minutes: 20
# difficulty: 2
# practises: masks that say who may look at whom
#
# In the lesson, a turn sees the prefix and the turn itself. Now a turn may continue an earlier
# turn: a user asks again from there, so the turns form a tree. Write
# `make_branch_mask(turn_ids, parents)`, which says which token may look at which token.
#
# - `turn_ids`: tensor `[L]`. 0 is the prefix, k ≥ 1 is the k-th turn, and −1 is padding.
# - `parents`: list. `parents[k]` is the turn that turn k continues, and 0 stands for the prefix.
#   `parents[0]` is 0.
# - result: bool tensor `[L, L]`, with the token that looks as the row
#
# A token sees no later token. A token sees the tokens of the prefix, of its own turn, and of all
# turns that its turn continues, directly or over other turns. Padding sees itself alone.
#
# Example: with `parents = [0, 0, 1, 1]`, turn 3 sees the prefix, turn 1 and turn 3.


# %% stub
def make_branch_mask(turn_ids, parents):
    raise NotImplementedError


# %% hint
# Make a small table first: may turn k see turn j? It has one row for each turn.

# %% hint
# Follow `parents` from turn k until you reach 0, and mark every turn on the way. Then look the
# table up with `turn_ids` for rows and columns.

# %% hint
# `torch.ones(L, L, dtype=torch.bool).tril()` marks the tokens that are not later. Treat padding
# last.


# %% check
def make_inputs(rng):
    parents = [0, 0, 1, 2, 1, int(rng.randint(2, 4))]
    lengths = [int(n) for n in rng.randint(1, 4, 6)]
    return dict(parents=parents, lengths=lengths, padding=int(rng.randint(1, 4)))


def walk(k, parents):
    seen = {0, k}
    while k:
        k = parents[k]
        seen.add(k)
    return seen


def make_table(turn_ids, sees, future=False, padding=True):
    n = len(turn_ids)
    table = torch.zeros(n, n, dtype=torch.bool)
    for i, k in enumerate(turn_ids):
        for j, other in enumerate(turn_ids):
            if k < 0 or other < 0:
                table[i, j] = padding and i == j
            else:
                table[i, j] = other in sees(k) and (future or j <= i)
    return table


def check(answer, inputs):
    parents, lengths = inputs["parents"], inputs["lengths"]
    ids = [k for k, n in enumerate(lengths) for _ in range(n)] + [-1] * inputs["padding"]

    def see(k):
        return walk(k, parents)

    def same_parent(k):
        return {0, k} | {other for other in range(1, len(parents)) if parents[other] == parents[k]}

    real = [k for k in ids if k >= 0]  # without padding first: mistakes do not mix
    mistakes = {
        "a token looks at later tokens": make_table(real, see, future=True),
        "a turn sees only the turn that it continues directly": make_table(
            real, lambda k: {0, k, parents[k]}
        ),
        "a turn sees all earlier turns, also those of other branches": make_table(
            real, lambda k: set(range(k + 1))
        ),
        "a turn sees other turns that continue the same turn": make_table(real, same_parent),
        "a turn does not see the turns that it continues": make_table(real, lambda k: {0, k}),
        "the prefix is not seen": make_table(real, lambda k: see(k) - {0} if k else {0}),
        "rows and columns are exchanged": make_table(real, see).T,
    }
    where = f"{len(lengths) - 1} turns with branches"
    expect(answer(torch.tensor(real), list(parents)), make_table(real, see), where, mistakes)
    found, right = answer(torch.tensor(ids), list(parents)), make_table(ids, see)
    mistakes = {"padding sees nothing, expected itself": make_table(ids, see, padding=False)}
    if isinstance(found, torch.Tensor) and found.shape == right.shape:
        n = len(real)
        if not torch.equal(found[:n], right[:n]):
            mistakes["a token of a turn looks at padding, or not at its turns"] = found
        mistakes["padding sees itself alone"] = found
    expect(found, right, f"{where}, and padding", mistakes)


# %% solution
def make_branch_mask(turn_ids, parents):
    n = len(parents)
    sees = torch.zeros(n, n, dtype=torch.bool)
    for k in range(n):
        sees[k, k] = sees[k, 0] = True
        other = k
        while other:
            other = parents[other]
            sees[k, other] = True
    real = turn_ids >= 0
    known = turn_ids.clamp(min=0)
    allowed = sees[known][:, known] & real[:, None] & real[None]
    allowed &= torch.ones_like(allowed).tril()
    return allowed | torch.eye(len(turn_ids), dtype=torch.bool)


# %% mutants
MUTANTS = [
    ("looks at later tokens", "torch.ones_like(allowed).tril()", "torch.ones_like(allowed)"),
    ("continues directly", "        while other:", "        for _ in range(1):"),
    ("also those of other branches", "sees[k, other] = True", "sees[k, :k] = True"),
    ("does not see the turns that it continues", "sees[k, other] = True", "pass"),
    ("padding sees itself alone", "real[:, None] & real[None]", "real[None]"),
    (
        "padding sees nothing",
        "torch.eye(len(turn_ids), dtype=torch.bool)",
        "torch.zeros_like(allowed)",
    ),
]

# %% exercise
# title: How many bins may be wrong?
# kind: number
# answer: largest
# minutes: 15
# difficulty: 1
# practises: the cost of a wrong digit, and IoU
#
# A square box has the side `side`, in bins. An answer counts as right from the IoU `threshold` on.
#
# 1. Only the left edge is too small, by e bins. Which is the largest whole e that still counts as
#    right?
# 2. The whole box has moved to the left by e bins, so that both vertical edges are wrong. Which is
#    the largest whole e now?
#
# Set `largest = (first, second)`.

# %% given
inputs = get_inputs("tokens.2")
inputs

# %% stub
largest = None  # (first, second), whole numbers

# %% hint
# In the first case the wrong box contains the true box. The height cancels, so widths are enough.

# %% hint
# In the second case the boxes share side − e, and together they cover side + e.


# %% check
def make_inputs(rng):
    return dict(side=int(rng.randint(90, 400)), threshold=round(float(rng.uniform(0.55, 0.8)), 2))


def count_up(iou, threshold):
    e = 0
    while iou(e + 1) >= threshold - 1e-12:
        e += 1
    return e


def check(answer, inputs):
    side, threshold = inputs["side"], inputs["threshold"]
    edge = count_up(lambda e: side / (side + e), threshold)
    moved = count_up(lambda e: (side - e) / (side + e), threshold)
    shrunk = count_up(lambda e: (side - e) / side, threshold)
    mistakes = {
        "the first number belongs to a box that is too small, expected a box that is too large": (
            shrunk,
            moved,
        ),
        "a moved box loses on both sides": (edge, edge),
        "the union is larger than the true box": (edge, shrunk),
        "the two numbers are exchanged": (moved, edge),
        "one bin more no longer counts as right": (edge + 1, moved + 1),
    }
    where = "the numbers do not fit the IoU"
    expect(answer, (edge, moved), where, mistakes, tolerance=1e-6, secret=True)


# %% solution
side, threshold = inputs["side"], inputs["threshold"]
edge = moved = 0
while side / (side + edge + 1) >= threshold:
    edge += 1
while (side - moved - 1) / (side + moved + 1) >= threshold:
    moved += 1
largest = (edge, moved)

# %% mutants
MUTANTS = [
    ("loses on both sides", "largest = (edge, moved)", "largest = (edge, edge)"),
    ("exchanged", "largest = (edge, moved)", "largest = (moved, edge)"),
    ("no longer counts", "largest = (edge, moved)", "largest = (edge + 1, moved + 1)"),
    (
        "the union is larger",
        "(side - moved - 1) / (side + moved + 1)",
        "(side - moved - 1) / side",
    ),
]

# %% exercise
# title: Every turn counts the same
# kind: code
# answer: compute_turn_loss
# minutes: 20
# difficulty: 2
# practises: labels, the shift by one token, and what a mean is taken over
#
# `next_token_loss` takes the mean over all tokens with a label, so a long answer counts more than a
# short answer. Write `compute_turn_loss(logits, labels, turn_ids)`: take the mean for each turn
# first, and then the mean over the turns.
#
# - `logits`: tensor `[L, V]`. The logits at position i predict the token at position i + 1.
# - `labels`: tensor `[L]`, −100 for no loss
# - `turn_ids`: tensor `[L]`, the turn of each token. A turn without a label does not count.
# - result: a tensor with one number


# %% stub
def compute_turn_loss(logits, labels, turn_ids):
    raise NotImplementedError


# %% hint
# Leave out the last row of the logits, the first label and the first turn number. Then row i, label
# i and turn i belong together.

# %% hint
# `torch.nn.functional.cross_entropy(..., reduction="none", ignore_index=-100)` gives one loss for
# each token.


# %% check
def make_inputs(rng):
    lengths = [2, int(rng.randint(3, 6)), int(rng.randint(7, 12)), 3]
    turns = [k for k, n in enumerate(lengths) for _ in range(n)]
    labels = [-100 if k in (0, 3) else int(rng.randint(0, 9)) for k in turns]
    labels[2] = -100
    logits = torch.from_numpy(rng.uniform(-3, 3, (len(turns), 9))).float()
    return dict(logits=logits, labels=torch.tensor(labels), turn_ids=torch.tensor(turns))


def loss_of(logits, labels, turn_ids, shift=1, by_turn=True, empty=0):
    chances = logits.double().softmax(-1)
    found = {}
    for place, label in enumerate(labels.tolist()):
        if label == -100 or not 0 <= place - shift < len(labels):
            continue
        turn = int(turn_ids[place]) if by_turn else 0
        found.setdefault(turn, []).append(-chances[place - shift, label].log())
    means = [torch.stack(v).mean() for v in found.values()]
    return torch.stack(means).sum() / (len(means) + empty)


def check(answer, inputs):
    given = inputs["logits"], inputs["labels"], inputs["turn_ids"]
    mistakes = {
        "the logits of a token predict the next token, expected a shift by one": loss_of(
            *given, shift=0
        ),
        "the shift goes the wrong way": loss_of(*given, shift=-1),
        "the mean is taken over tokens, expected over turns": loss_of(*given, by_turn=False),
        "turns without a label count as zero, expected not at all": loss_of(*given, empty=2),
        "the sum over the turns, expected their mean": 2 * loss_of(*given),
    }
    expected = loss_of(*given).float()
    expect(answer(*(t.clone() for t in given)), expected, "two turns with labels", mistakes)


# %% solution
def compute_turn_loss(logits, labels, turn_ids):
    logits, labels, turn_ids = logits[:-1], labels[1:], turn_ids[1:]
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=-100)
    kept = labels != -100
    turns = turn_ids[kept].unique()
    return torch.stack([losses[kept & (turn_ids == k)].mean() for k in turns]).mean()


# %% mutants
MUTANTS = [
    (
        "expected a shift by one",
        "logits[:-1], labels[1:], turn_ids[1:]",
        "logits, labels, turn_ids",
    ),
    (
        "the mean is taken over tokens",
        "torch.stack([losses[kept & (turn_ids == k)].mean() for k in turns]).mean()",
        "losses[kept].mean()",
    ),
    ("expected their mean", "for k in turns]).mean()", "for k in turns]).sum()"),
]

# %% open
# Write leading zeros, so that every number has three digits (`098`). Fit both tokenizers to one
# set of texts. *A good answer shows* the tokens of an answer with and without the zeros, and after
# a short training the share of wrong first digits with intervals.

# %% quiz
# Why does the tokenizer make every digit a token?
#
# - Boxes become shorter.
#   Boxes become longer: 16 tokens in the lesson, and 13 or 14 with ordinary byte pairs.
# + In a number of three digits, each position has a fixed meaning, from coarse to fine.
#   The first digit says roughly where, and the others refine the place.
# - Numbers above 999 can be written.
#   Any rule that keeps single bytes can write any number.
# - The loss of a wrong first digit becomes larger.
#   The cross-entropy does not know what a digit is worth.

# %% quiz
# What does the label −100 mean?
#
# - The token is padding.
#   Padding has this label too, but questions and placeholders have it as well.
# + There is no loss for the token.
#   The model learns to write answers alone.
# - The model may not look at the token.
#   The mask decides about looking. A token without a label can be seen.
# - The token is unknown.
#   Every string can be written with the bytes of the vocabulary.

# %% quiz
# Two turns share a row. Why do both begin at the position behind the prefix?
#
# - The row becomes shorter.
#   Positions do not change the length of a row.
# - The turns then see each other.
#   The mask keeps the turns apart, whatever their positions.
# + Each turn then computes what the turn would compute alone.
#   Rotary positions act on distances, so the distance to the image has to be the same.
# - Rotary positions have no larger numbers.
#   Larger positions exist. They would change the distance to the image.

# %% quiz
# A box has a side of 30 bins. Which wrong digit of the left edge costs the overlap at once?
#
# - the last digit, if it is wrong by 5
#   30 / 35 is 0.86, far above 0.5.
# - the middle digit, if it is wrong by 1
#   30 / 40 is 0.75.
# + the first digit, if it is wrong by 1
#   30 / 130 is 0.23.
# - none, since a box of three digits is exact
#   The digits are exact, and the box is still in a wrong place.

# %% quiz
# Why does a padding token look at itself?
#
# - So that it learns to be ignored.
#   Padding has no label and learns nothing.
# + A softmax over no keys gives no number.
#   The row of the mask must not be empty. The result of the padding token is never used.
# - So that the next token can see it.
#   No real token sees padding.
# - Otherwise the batch would have rows of different lengths.
#   The padding itself makes the rows equally long.
