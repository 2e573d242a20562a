"""Exercises of the lesson Attention by hand. tools/exercises.py makes what ships from this file."""

# %% setup
import torch

# %% shared
import math

import torch.nn.functional as F

from ferretlite.exercises.checks import WrongAnswer, expect

# %% exercise
# title: Heads that share keys
# kind: code
# answer: attend_in_groups
# minutes: 25
# difficulty: 2
# practises: queries, keys and values of several heads, and causal masks
#
# Language models store the keys and values of all earlier tokens. To store less, several heads of
# queries *share* one head of keys and values (grouped-query attention; Qwen and Llama 3 do so).
# Write `attend_in_groups(query, key, value)`.
#
# - `query`: tensor `[H, T, d]`, the last T tokens of a sequence of S tokens
# - `key`: tensor `[G, S, d]`; `value`: tensor `[G, S, e]`. H is a multiple of G, and S ≥ T.
# - The first H / G heads of queries read the first head of keys and values, the next H / G heads
#   read the second, and so on.
# - A query reads its own token and all earlier tokens. Query t is token S − T + t.
# - result: tensor `[H, T, e]`
#
# Example: H = 4 and G = 2 give the pairs (0, 0), (1, 0), (2, 1) and (3, 1).


# %% stub
def attend_in_groups(query, key, value):
    raise NotImplementedError


# %% hint
# `key.repeat_interleave(n, dim=0)` repeats each head n times, one copy behind the other. `repeat`
# puts the whole list of heads n times in a row.

# %% hint
# The scores have the form [H, T, S]. Divide by the square root of d, the numbers of one key.

# %% hint
# `torch.ones(T, S, dtype=torch.bool).triu(S - T + 1)` is True where the key is later than the
# query.


# %% check
def make_inputs(rng):
    def draw(*shape):
        return 2 * torch.from_numpy(rng.normal(size=shape)).float()

    groups, d, e = int(rng.randint(2, 4)), int(rng.randint(5, 9)), int(rng.randint(2, 5))
    heads, tokens = groups * int(rng.randint(2, 4)), int(rng.randint(4, 7))
    seen = tokens + int(rng.randint(2, 6))
    return dict(
        query=draw(heads, tokens, d), key=draw(groups, seen, d), value=draw(groups, seen, e)
    )


def attend(query, key, value, mask, scale=None):
    """Attention of PyTorch, for as many heads of keys as of queries."""
    return F.scaled_dot_product_attention(
        query[None], key[None], value[None], attn_mask=mask, scale=scale
    )[0]


def list_mistakes(query, key, value):
    (h, t, d), s = query.shape, key.shape[1]
    n = h // len(key)
    keys, values = key.repeat_interleave(n, 0), value.repeat_interleave(n, 0)
    mask = torch.ones(t, s, dtype=torch.bool).tril(s - t)
    scores = query @ keys.mT / d**0.5
    by_reader = scores.masked_fill(~mask, -1e9).softmax(-2)
    after = scores.softmax(-1) * mask
    return {
        "head h read the keys h mod G, expected neighbours that share": attend(
            query, key.repeat(n, 1, 1), value.repeat(n, 1, 1), mask
        ),
        "the keys are shared rightly, but the values are those of h mod G": attend(
            query, keys, value.repeat(n, 1, 1), mask
        ),
        "the scores are not divided by the root of d": attend(query, keys, values, mask, 1.0),
        "the scores are divided by d, expected its root": attend(query, keys, values, mask, 1 / d),
        "the scores are divided by the root of H · d, but each head compares d numbers": attend(
            query, keys, values, mask, 1 / (h * d) ** 0.5
        ),
        "later tokens are read": attend(query, keys, values, None),
        "the queries are the *last* tokens: query t is token S − T + t": attend(
            query, keys, values, torch.ones(t, s, dtype=torch.bool).tril()
        ),
        "a token reads itself, too": attend(query, keys, values, mask.tril(s - t - 1)),
        "the softmax runs over the readers, expected over the tokens that are read": (
            by_reader @ values
        ),
        "the mask came after the softmax, so the weights do not add up to 1": after @ values,
    }


def check(answer, inputs):
    query, key, value = inputs["query"], inputs["key"], inputs["value"]
    (h, t, _), g, s = query.shape, len(key), key.shape[1]
    cases = {
        "every head with own keys, T = S": (query[:g], key[:, :t], value[:, :t]),
        f"H = {h}, G = {g}, T = S": (query, key[:, :t], value[:, :t]),
        f"H = {h}, G = {g}, T = {t}, S = {s}": (query, key, value),
        "one query at the end": (query[:, -1:], key, value),
    }
    for where, (q, k, v) in cases.items():
        n = len(q) // len(k)
        mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
        right = attend(q, k.repeat_interleave(n, 0), v.repeat_interleave(n, 0), mask)
        mistakes = {
            text: value
            for text, value in list_mistakes(q, k, v).items()
            if value.isfinite().all() and not torch.allclose(value, right, atol=1e-3)
        }
        found = answer(q.clone(), k.clone(), v.clone())
        expect(found, right, where, mistakes, tolerance=1e-3)


# %% solution
def attend_in_groups(query, key, value):
    (heads, tokens, d), seen = query.shape, key.shape[1]
    n = heads // len(key)
    keys = key.repeat_interleave(n, dim=0)
    values = value.repeat_interleave(n, dim=0)
    scores = query @ keys.mT / d**0.5
    later = torch.ones(tokens, seen, dtype=torch.bool).triu(seen - tokens + 1)
    weights = scores.masked_fill(later, -torch.inf).softmax(dim=-1)
    return weights @ values


# %% mutants
MUTANTS = [
    (
        "the keys h mod G",
        "    keys = key.repeat_interleave(n, dim=0)\n"
        "    values = value.repeat_interleave(n, dim=0)",
        "    keys, values = key.repeat(n, 1, 1), value.repeat(n, 1, 1)",
    ),
    ("are those of h mod G", "value.repeat_interleave(n, dim=0)", "value.repeat(n, 1, 1)"),
    ("not divided", " / d**0.5", ""),
    ("expected its root", "d**0.5", "d"),
    ("later tokens are read", "scores.masked_fill(later, -torch.inf)", "scores"),
    ("token S − T + t", "seen - tokens + 1", "1"),
    ("over the readers", "dim=-1)", "dim=-2)"),
]

# %% exercise
# title: What a softmax forgets
# kind: prediction
# answer: predicted
# minutes: 20
# difficulty: 2
# practises: scores, weights and the softmax
#
# A token reads four tokens with the weights w₀ to w₃ in `inputs["weights"]`. You do not know the
# scores. Predict the new weight of the token `inputs["asked"]` in five cases. Each case starts from
# the given weights; `other` and `by` are further inputs.
#
# 1. The key of token `other` is copied: a fifth token has the same key.
# 2. The number `by` is added to all four scores.
# 3. All four scores are doubled.
# 4. Token `other` is masked: its score becomes −∞.
# 5. The number `by` is added to the score of token `asked` alone.
#
# Set `predicted` to a tuple of five numbers. The check computes scores and runs the softmax.

# %% given
inputs = get_inputs("attention.2")
inputs

# %% stub
predicted = None  # five weights

# %% hint
# A weight is a power of e, divided by the sum of all powers. If you multiply all powers with the
# same number, the weights stay. So you may take the weights themselves as powers.

# %% hint
# Doubling a score squares its power. Adding a number to a score multiplies its power by e to this
# number.


# %% check
def make_inputs(rng):
    weights = [round(float(w), 2) for w in rng.dirichlet([4] * 4)]
    while min(weights) < 0.08 or len(set(weights)) < 4 or abs(sum(weights) - 1) > 1e-9:
        weights = [round(float(w), 2) for w in rng.dirichlet([4] * 4)]
    asked, other = (int(i) for i in rng.permutation(4)[:2])
    return dict(
        weights=weights, asked=asked, other=other, by=round(float(rng.uniform(0.5, 1.5)), 1)
    )


def check(answer, inputs):
    asked, other, by = inputs["asked"], inputs["other"], inputs["by"]
    weights = torch.tensor(inputs["weights"], dtype=torch.float64)
    scores = weights.log()
    one = torch.eye(4, dtype=torch.float64)
    cases = (
        torch.cat([scores, scores[other : other + 1]]),
        scores + by,
        2 * scores,
        scores.masked_fill(one[other].bool(), -torch.inf),
        scores + by * one[asked],
    )
    right = [case.softmax(0)[asked].item() for case in cases]
    w, o = weights[asked].item(), weights[other].item()
    wrong = {
        "1: all other tokens lose, because the sum of the weights stays 1": (0, w),
        "1: five tokens share, but not in equal parts": (0, w * 4 / 5),
        "1: a copy adds the weight of the other token to the sum once": (0, w / (1 + 2 * o)),
        "2: the same number on all scores changes nothing": (1, w * math.exp(by)),
        "2: the same number on all scores changes nothing; weights never exceed 1": (1, w + by),
        "3: doubled scores do change the weights": (2, w),
        "3: the squared weights must be divided by their sum": (2, w * w),
        "3: doubled scores do not double the weight": (2, 2 * w),
        "4: the weight of the masked token goes to all others": (3, w),
        "4: the others share the free weight in proportion, not equally": (3, w + o / 3),
        "4: one token got the whole weight of the masked token": (3, w + o),
        "5: the sum of the powers changes, too": (4, w * math.exp(by)),
        "5: the number is added to the score, not to the weight": (4, w + by),
        "5: the added number does change the weight": (4, w),
    }
    mistakes = {
        text: [*right[:place], value, *right[place + 1 :]] for text, (place, value) in wrong.items()
    }
    if isinstance(answer, (tuple, list)) and len(answer) == 5:
        for place in range(5):  # each case has a message of its own
            value = answer[place]
            if not isinstance(value, (int, float)):
                raise WrongAnswer(f"{place + 1}: expected a number")
            expect(
                [*right[:place], value, *right[place + 1 :]],
                right,
                f"case {place + 1}",
                mistakes,
                tolerance=1e-3,
                secret=True,
            )
    expect(answer, tuple(right), "the five weights", tolerance=1e-3, secret=True)


# %% solution
import math

weights, asked, other = inputs["weights"], inputs["asked"], inputs["other"]
w, o, power = weights[asked], weights[other], math.exp(inputs["by"])
predicted = (
    w / (1 + o),
    w,
    w**2 / sum(v**2 for v in weights),
    w / (1 - o),
    w * power / (1 - w + w * power),
)

# %% mutants
MUTANTS = [
    ("1: all other tokens lose", "w / (1 + o)", "w"),
    ("changes nothing", "    w,\n", "    w * power,\n"),
    ("3: the squared weights", "w**2 / sum(v**2 for v in weights)", "w**2"),
    ("in proportion", "w / (1 - o)", "w + o / 3"),
    ("5: the sum of the powers", "w * power / (1 - w + w * power)", "w * power"),
]

# %% exercise
# title: One large view or many tiles
# kind: number
# answer: price
# minutes: 20
# difficulty: 2
# practises: the work of a block, and the square of the number of tokens
#
# A tower reads a square view of `side` pixels, cut into patches of `patch` pixels. Tokens have
# `width` numbers, the MLP widens them `factor` times, and each sequence has one class token. The
# keys and values come from fewer heads (grouped-query attention): the two maps for key and value
# have `width` inputs and `width / share` outputs. Each head of keys is read by `share` heads of
# queries, so the scores and weighted means cost as much as before.
#
# Count multiplications of matrix products in *one block*, as the lesson does.
#
# 1. How many millions does one sequence with the whole view need?
# 2. How many millions do `grid` × `grid` tiles need that cut the view, each with a class token of
#    its own?
# 3. For which number of tokens T of a sequence do the scores and weighted means cost as much as all
#    maps and the MLP together?
#
# Set `price = (view, tiles, tokens)`.

# %% given
inputs = get_inputs("attention.3")
inputs

# %% stub
price = None  # (millions for the view, millions for all tiles, tokens)

# %% hint
# With T tokens of C numbers: query and output cost T · C² each; key and value cost T · C² / share
# each; the MLP costs twice T · C · factor · C.

# %% hint
# Scores and weighted means cost T² · C each, over all heads together. For 3, set both sums equal
# and divide by T and C.


# %% check
def make_inputs(rng):
    grid, patch = int(rng.randint(2, 5)), int(rng.choice([14, 16]))
    width = 64 * int(rng.randint(6, 21))
    side = grid * patch * int(rng.randint(12, 25))
    share, factor = int(rng.choice([2, 4, 8])), int(rng.randint(2, 6))
    return dict(side=side, patch=patch, grid=grid, width=width, share=share, factor=factor)


def measure(tokens, width, share, factor, head=64):
    """Multiplications of a block, from the shape [a, b] · [b, c] of every matrix product."""
    products = [(tokens, width, width)] * 2 + [(tokens, width, width // share)] * 2
    for _ in range(width // head):
        products += [(tokens, head, tokens), (tokens, tokens, head)]
    products += [(tokens, width, factor * width), (tokens, factor * width, width)]
    return sum(a * b * c for a, b, c in products)


def check(answer, inputs):
    width, share, factor, grid = (inputs[k] for k in ("width", "share", "factor", "grid"))
    across = inputs["side"] // inputs["patch"]
    one, small = across**2 + 1, (across // grid) ** 2 + 1

    def price(tokens, share=share, factor=factor):
        return measure(tokens, width, share, factor) / 1e6

    linear = measure(one, width, share, factor) - 2 * one**2 * width
    equal = linear / one / (2 * width)
    right = (price(one), grid**2 * price(small), equal)
    mistakes = {
        "each sequence has a class token": (price(one - 1), grid**2 * price(small - 1), equal),
        "each tile has a class token of its own": (
            right[0],
            grid**2 * price(small - 1),
            equal,
        ),
        "this is the price of one tile, expected all tiles": (right[0], price(small), equal),
        "key and value have fewer outputs": (
            price(one, 1),
            grid**2 * price(small, 1),
            (2 + factor) * width,
        ),
        "these are multiplications, expected millions": (1e6 * right[0], 1e6 * right[1], equal),
        "these are operations, two for each multiplication": (2 * right[0], 2 * right[1], equal),
        "the scores *and* the weighted means cost T² · C each": (*right[:2], 2 * equal),
        "the MLP is missing in the number of tokens": (*right[:2], (1 + 1 / share) * width),
    }
    expect(answer, right, "the price", mistakes, tolerance=1e-5, secret=True)


# %% solution
width, share, factor = inputs["width"], inputs["share"], inputs["factor"]
across = inputs["side"] // inputs["patch"]


def count(tokens):
    maps = (2 + 2 / share) * tokens * width**2
    mlp = 2 * factor * tokens * width**2
    return (maps + mlp + 2 * tokens**2 * width) / 1e6


grid = inputs["grid"]
small = (across // grid) ** 2 + 1
price = (count(across**2 + 1), grid**2 * count(small), (1 + 1 / share + factor) * width)

# %% mutants
MUTANTS = [
    ("each tile has a class token", "(across // grid) ** 2 + 1", "(across // grid) ** 2"),
    ("expected all tiles", "grid**2 * count(small)", "count(small)"),
    ("expected millions", "/ 1e6", "/ 1"),
    (
        "cost T² · C each",
        "(1 + 1 / share + factor) * width",
        "2 * (1 + 1 / share + factor) * width",
    ),
    ("the MLP is missing", "(1 + 1 / share + factor) * width", "(1 + 1 / share) * width"),
]

# %% open
# Set the weights of one head of the fourth block to 1/145 everywhere. *A good answer shows* the
# change of the block's output for each of the five heads, over at least ten scenes with intervals,
# and says whether the head with the largest change also reads most from the same object.

# %% open
# Remove the vectors of the places from the input of the first block. *A good answer shows* by how
# much the share on the same object changes in each block, with intervals over the same scenes, and
# a reason why the share of the first block changes as it does.

# %% quiz
# What are the weights of attention?
#
# - learned numbers of the block
#   Learned numbers make queries, keys and values. The weights are new for each image.
# + numbers that a softmax makes from dot products of queries and keys
#   For each reader they are positive and have the sum 1.
# - distances between patches
#   Attention does not know where a patch lies.
# - the features of the patches
#   The features are what the weights mix: the values.

# %% quiz
# Why are the scores divided by √d?
#
# - because the sum of the weights would not be 1
#   The softmax always gives the sum 1.
# - because a product of d numbers takes longer
#   The division saves no time.
# + because dot products of many numbers are large, and then one weight takes nearly everything
#   The spread of the scores grows like √d.
# - because d is the number of heads
#   d is the number of entries of a query.

# %% quiz
# You shuffle the tokens before a block. What happens?
#
# + The outputs are shuffled in the same way, and nothing else changes.
#   Attention has no order; only the vector of a place tells where a patch lies.
# - The outputs stay in the old order.
#   Each token keeps its own output, and the tokens moved.
# - The outputs change, because neighbours changed.
#   Attention has no neighbours.
# - Only the class token changes.
#   The class token reads a set of tokens, and the set is the same.

# %% quiz
# What does the residual connection do?
#
# - It gives every token mean 0 and spread 1.
#   That is the layer norm.
# - It joins the results of the heads.
#   The output map mixes the heads.
# - It carries the class token past the block.
#   All tokens are added, the class token too.
# + It adds the result of a part to the token that went into the part.
#   So a block only has to learn a correction.

# %% quiz
# The number of tokens doubles. What happens to the work of a block with few tokens and a large
# width?
#
# - It grows four times.
#   Only scores and weighted means do; maps and MLP grow twice.
# + It grows a little more than twice.
#   Maps and MLP have the largest share while tokens are few.
# - It stays equal.
#   Every token passes the maps and the MLP.
# - It halves.
#   More tokens are never less work.
