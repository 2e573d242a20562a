"""Exercises of the lesson Model. tools/exercises.py makes what ships from this file."""

# %% setup
import torch

# %% shared
import torch.nn.functional as F

from ferretlite.exercises.checks import WrongAnswer, expect


# %% exercise
# title: Several questions about one image
# kind: code
# answer: fill_rows
# minutes: 20
# difficulty: 2
# practises: placeholders, and rows that share an image
#
# Three questions are about two images. The vectors of an image are computed once, and every row
# about the image gets them. Write `fill_rows(embeddings, places, vectors, image_of)`.
#
# - `embeddings`: tensor `[B, L, D]`, which must not change
# - `places`: bool tensor `[B, L]`, True where a placeholder stands
# - `vectors`: list with a tensor `[n, D]` for each *image*, in reading order. Images differ in n.
# - `image_of`: list with the number of the image of each *row*
# - result: a new tensor `[B, L, D]`
#
# Raise a `ValueError` if a row has another number of placeholders than its image has vectors.


# %% stub
def fill_rows(embeddings, places, vectors, image_of):
    raise NotImplementedError


# %% hint
# `filled = embeddings.clone()` keeps the argument as it is.

# %% hint
# For row b, `filled[b, places[b]] = vectors[image_of[b]]`. Compare the numbers before.


# %% check
def make_inputs(rng):
    sizes = [int(rng.randint(2, 4)), int(rng.randint(4, 6))]
    image_of = [1, 0, 1] if rng.randint(0, 2) else [1, 0, 0]
    return dict(
        sizes=sizes,
        image_of=image_of,
        embeddings=torch.from_numpy(rng.uniform(1, 2, (3, 9, 2))).float(),
        offset=[int(n) for n in rng.randint(0, 3, 3)],
    )


def place(inputs):
    places = torch.zeros(3, 9, dtype=torch.bool)
    for b, image in enumerate(inputs["image_of"]):
        start = inputs["offset"][b]
        places[b, start : start + inputs["sizes"][image]] = True
    return places


def fill(embeddings, places, choose):
    rows = []
    for b in range(len(embeddings)):
        vectors, i, row = choose(b), 0, []
        for here, old in zip(places[b], embeddings[b]):
            row.append(vectors[i % len(vectors)] if here else old)
            i += int(here)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def check(answer, inputs):
    embeddings, image_of, places = inputs["embeddings"], inputs["image_of"], place(inputs)
    vectors = [
        10 * (k + 1) + torch.arange(2.0 * n).reshape(n, 2) for k, n in enumerate(inputs["sizes"])
    ]
    given, before = embeddings.clone(), embeddings.clone()
    right = fill(embeddings, places, lambda b: vectors[image_of[b]])
    mistakes = {
        "the vectors stand in reverse order": fill(
            embeddings, places, lambda b: vectors[image_of[b]].flip(0)
        ),
        "nothing was filled": embeddings,
        "every placeholder got the first vector": fill(
            embeddings, places, lambda b: vectors[image_of[b]][:1]
        ),
    }
    found = answer(given, places.clone(), [v.clone() for v in vectors], list(image_of))
    if not torch.equal(given, before):
        raise WrongAnswer("the argument `embeddings` was changed, expected a new tensor")
    expect(found, right, "three rows about two images", mistakes)
    few, many = places.clone(), places.clone()
    few[0, inputs["offset"][0]] = False
    many[1, 8] = True  # the last place is free in every row
    for wrong, where in (
        (few, "a row with a placeholder too few"),
        (many, "a row with a placeholder too many"),
        (torch.cat([few[:1], many[1:]]), "a row with one too few and a row with one too many"),
    ):
        try:
            answer(embeddings.clone(), wrong, [v.clone() for v in vectors], list(image_of))
        except WrongAnswer as error:
            if not str(error).startswith("the function raised ValueError"):
                raise WrongAnswer(f"{where}: {error}, expected a ValueError") from error
        else:
            raise WrongAnswer(f"{where} passed, expected a ValueError")


# %% solution
def fill_rows(embeddings, places, vectors, image_of):
    filled = embeddings.clone()
    for b, image in enumerate(image_of):
        if int(places[b].sum()) != len(vectors[image]):
            raise ValueError(f"row {b}: the placeholders do not fit the image")
        filled[b, places[b]] = vectors[image]
    return filled


# %% mutants
MUTANTS = [
    ("`embeddings` was changed", "embeddings.clone()", "embeddings"),
    ("in reverse order", "= vectors[image]\n", "= vectors[image].flip(0)\n"),
    ("got the first vector", "= vectors[image]\n", "= vectors[image][:1]\n"),
    (
        "a placeholder too few",
        "        if int(places[b].sum()) != len(vectors[image]):\n"
        '            raise ValueError(f"row {b}: the placeholders do not fit the image")\n'
        "        filled[b, places[b]] = vectors[image]\n",
        "        filled[b, places[b]] = vectors[image][: int(places[b].sum())]\n",
    ),
    (
        "a placeholder too many passed",
        "        if int(places[b].sum()) != len(vectors[image]):\n"
        '            raise ValueError(f"row {b}: the placeholders do not fit the image")\n'
        "        filled[b, places[b]] = vectors[image]\n",
        "        if int(places[b].sum()) < len(vectors[image]):\n"
        "            raise ValueError\n"
        "        filled[b, places[b].nonzero()[: len(vectors[image]), 0]] = vectors[image]\n",
    ),
    (
        "and a row with one too many passed",
        "    for b, image in enumerate(image_of):\n"
        "        if int(places[b].sum()) != len(vectors[image]):\n"
        '            raise ValueError(f"row {b}: the placeholders do not fit the image")\n'
        "        filled[b, places[b]] = vectors[image]\n",
        "    rows = torch.cat([vectors[image] for image in image_of])\n"
        "    if int(places.sum()) != len(rows):\n"
        "        raise ValueError\n"
        "    filled[places] = rows\n",
    ),
]

# %% exercise
# title: One step with a cache
# kind: code
# answer: attend_with_cache
# minutes: 25
# difficulty: 3
# practises: the KV cache, and heads that share keys and values
#
# After the first step a language model computes a single token. The keys and values of the earlier
# tokens come from the cache. Many language models keep fewer heads for keys and values than for
# queries: with 6 query heads and 2 key heads, query heads 0–2 share key head 0, and query heads 3–5
# share key head 1. Write `attend_with_cache(query, key, value, keys, values)`.
#
# - `query`: tensor `[H, d]` of the new token
# - `key`, `value`: tensors `[G, d]` of the new token. H divides by G.
# - `keys`, `values`: tensors `[G, n, d]`, the cache of n earlier tokens
# - result: tensor `[H, d]`. The new token sees the earlier tokens and itself. Scores are divided by
#   the root of d before the softmax.


# %% stub
def attend_with_cache(query, key, value, keys, values):
    raise NotImplementedError


# %% hint
# `torch.cat([keys, key[:, None]], 1)` adds the new token to the cache: `[G, n + 1, d]`.

# %% hint
# `repeat_interleave(H // G, 0)` repeats each head next to itself, `repeat` repeats the whole list.
# Which of the two gives query heads 0–2 the key head 0?


# %% check
def make_inputs(rng):
    groups, share, n, d = 2, int(rng.randint(2, 4)), int(rng.randint(4, 7)), 4

    def draw(*shape):
        return torch.from_numpy(rng.uniform(-2, 2, shape)).float()

    return dict(
        query=draw(groups * share, d),
        key=draw(groups, d),
        value=draw(groups, d),
        keys=draw(groups, n, d),
        values=draw(groups, n, d),
    )


def attend(query, key, value, keys, values, scale=None, own=True, spread=True):
    if own:
        keys, values = torch.cat([keys, key[:, None]], 1), torch.cat([values, value[:, None]], 1)
    times = len(query) // len(keys)
    order = [h // times if spread else h % len(keys) for h in range(len(query))]
    return F.scaled_dot_product_attention(query[:, None], keys[order], values[order], scale=scale)[
        :, 0
    ]


def check(answer, inputs):
    heads, groups = len(inputs["query"]), len(inputs["keys"])
    first = attend(**inputs)
    mistakes = {
        "the new token does not see itself": attend(**inputs, own=False),
        "the scores are not divided by the root of d": attend(**inputs, scale=1.0),
        "the scores are divided by d, expected its root": attend(**inputs, scale=0.25),
        "neighbouring query heads share a key head: `repeat_interleave`": attend(
            **inputs, spread=False
        ),
    }
    found = answer(**{k: v.clone() for k, v in inputs.items()})
    expect(found, first, f"{heads} query heads, {groups} key heads", mistakes)


# %% solution
def attend_with_cache(query, key, value, keys, values):
    keys = torch.cat([keys, key[:, None]], 1)
    values = torch.cat([values, value[:, None]], 1)
    times = len(query) // len(keys)
    keys, values = (t.repeat_interleave(times, 0) for t in (keys, values))
    scores = (keys @ query[:, :, None])[..., 0] / query.shape[1] ** 0.5  # [H, n + 1]
    return (scores.softmax(-1)[:, None] @ values)[:, 0]


# %% mutants
MUTANTS = [
    (
        "does not see itself",
        "    keys = torch.cat([keys, key[:, None]], 1)\n"
        "    values = torch.cat([values, value[:, None]], 1)\n",
        "",
    ),
    ("not divided by the root", " / query.shape[1] ** 0.5", ""),
    ("divided by d, expected", "query.shape[1] ** 0.5", "query.shape[1]"),
    ("share a key head", "t.repeat_interleave(times, 0)", "t.repeat(times, 1, 1)"),
]

# %% exercise
# title: The size of the cache
# kind: number
# answer: megabytes
# minutes: 10
# difficulty: 1
# practises: what a cache holds
#
# A language model has `layers` layers, `query_heads` query heads and `key_heads` heads for keys and
# values, and a head has `width` numbers. Numbers are stored in 16 bits. How many megabytes (10⁶
# bytes) does the cache of `tokens` tokens take, for one row?

# %% given
inputs = get_inputs("model.3")
inputs

# %% stub
megabytes = None  # a number

# %% hint
# For every token and layer the cache holds a key *and* a value for each key head.

# %% hint
# A key has `width` numbers. A number of 16 bits takes 2 bytes. The query heads play no part.


# %% check
def make_inputs(rng):
    heads = int(rng.randint(2, 6))
    return dict(
        layers=int(rng.randint(20, 41)),
        query_heads=heads * int(rng.randint(2, 5)),
        key_heads=heads,
        width=128,
        tokens=int(rng.randint(1000, 4000)),
    )


def check(answer, inputs):
    cache = torch.empty(
        *(inputs[k] for k in ("layers", "key_heads", "tokens", "width")),
        dtype=torch.float16,
        device="meta",
    )
    right = 2 * cache.nelement() * cache.element_size() / 1e6
    many = right * inputs["query_heads"] / inputs["key_heads"]
    mistakes = {
        "the cache holds keys and values": right / 2,
        "a number of 16 bits takes two bytes": right * 8,
        "the cache holds key heads, not query heads": many,
        "every layer has its own keys and values": right / inputs["layers"],
        "these are bytes, expected 10⁶ bytes": right * 1e6,
        "a number of 32 bits would take four bytes": right * 2,
    }
    where = "the size does not fit"
    expect(answer, right, where, mistakes, tolerance=1e-3, secret=True)


# %% solution
numbers = 2 * inputs["layers"] * inputs["key_heads"] * inputs["width"] * inputs["tokens"]
megabytes = numbers * 2 / 1e6

# %% mutants
MUTANTS = [
    ("keys and values", "numbers = 2 * ", "numbers = "),
    ("not query heads", 'inputs["key_heads"]', 'inputs["query_heads"]'),
    ("every layer", '2 * inputs["layers"] * ', "2 * "),
    ("expected 10⁶ bytes", " / 1e6", ""),
]

# %% open
# Which parameters of the toy model get no gradient, and why? Add a loss that reaches one of them.
# *A good answer shows* the list before and after, and names the output that each part needs.

# %% quiz
# How does an image enter the language model?
#
# - as a text that describes the image
#   No text is made of the image.
# + as vectors that replace the embeddings of placeholder tokens
#   From there on the model is an ordinary language model.
# - as a second input of every layer
#   The layers read one sequence.
# - through the tokenizer
#   The tokenizer reads text alone.

# %% quiz
# The towers run once for an answer of twelve tokens. Why?
#
# - The answer needs the image only for its first word.
#   Every word can look at the image.
# + After the first step the cache holds keys and values of the image tokens.
#   Later steps read the cache.
# - The towers are frozen.
#   Frozen towers would still have to run again without a cache.
# - The tokens are written at once.
#   The tokens are written one after the other.

# %% quiz
# A prompt holds image placeholders, and no pixels are given. What does `forward` do?
#
# - It answers without the image.
#   The answer would come from embeddings that mean nothing.
# + It raises an error.
#   Only a cache may stand for the pixels.
# - It fills the placeholders with zeros.
#   Zeros would be an invented image.
# - It removes the placeholders.
#   The number of placeholders is checked, not changed.

# %% quiz
# To where does the sum of the two maps go?
#
# - into the sequence of the language model
#   The sequence holds the whole view and the tiles.
# + to the sampler only
#   The region enters through its placeholder.
# - back into the towers
#   Towers read pixels.
# - to the loss
#   The loss reads logits.

# %% quiz
# Why do weights load from *safetensors* files?
#
# - They are smaller than any other file.
#   The size is about the same.
# - They can be read without a library.
#   A library reads them.
# + They hold named tensors and cannot run code.
#   A pickle file can run code while it is read.
# - They store gradients.
#   Gradients are not stored.
