"""Exercises of the lesson Architecture. tools/exercises.py makes what ships from this file."""

# %% setup
import torch

# %% shared
from ferretlite.exercises.checks import WrongAnswer, expect


def walk(arrows, start, end):
    """Every path from start to end, as a list of names."""
    if start == end:
        return [[end]]
    following = [b for a, b in (arrow.split("-") for arrow in arrows) if a == start]
    return [[start, *path] for name in following for path in walk(arrows, name, end)]


# %% exercise
# title: Blocks that no path avoids
# kind: code
# answer: find_bottlenecks
# minutes: 25
# difficulty: 2
# practises: the picture as a graph, and paths through the model
#
# The lesson lists every path from the image to the language model. Some blocks lie on *every* path
# between two blocks: if such a block loses something, no other block can replace it. Write
# `find_bottlenecks(arrows, start, end)`.
#
# - `arrows`: list of texts such as `"image-whole"`, as in the lesson. The arrows have no circle,
#   and at least one path leads from start to end
# - result: alphabetical list of the names of all blocks that lie on every path from start to end,
#   without start and end
#
# Example: in the picture of Ferret-v2, `"region"` to `"boxes"` gives
# `["decoding", "grammar", "model", "sampler"]`, and `"image"` to `"model"` gives `[]`.


# %% stub
def find_bottlenecks(arrows, start, end):
    raise NotImplementedError


# %% hint
# List all paths first, as the lesson does. Each path is a list of names.

# %% hint
# A block lies on every path if it is in the *intersection* of the paths. Python's sets have `&`.

# %% hint
# Another way without paths: remove a block with its arrows. If the end cannot be reached any more,
# the block is a bottleneck.


# %% check
def make_inputs(rng):
    names = [str(n) for n in rng.permutation(["eye", "map", "add", "cut", "mix", "sum", "net"])]
    a, b, c, d, e, f, g = names
    arrows = [f"in-{a}", f"in-{b}", f"{a}-{c}", f"{b}-{c}", f"{c}-{d}", f"{d}-{e}", f"{d}-{f}"]
    arrows += [f"{e}-out", f"{f}-out", f"{g}-{d}", f"side-{g}", f"{e}-{f}"]
    arrows = [arrows[i] for i in rng.permutation(len(arrows))]
    return dict(arrows=arrows, late=c)


def reaches(arrows, start, end, without):
    """Whether a path leads from start to end that avoids a block."""
    seen, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name not in seen and name != without:
            seen.add(name)
            waiting += [arrow.split("-")[1] for arrow in arrows if arrow.split("-")[0] == name]
    return end in seen


def find(arrows, start, end):
    names = {name for arrow in arrows for name in arrow.split("-")} - {start, end}
    return sorted(name for name in names if not reaches(arrows, start, end, name))


def check(answer, inputs):
    arrows = inputs["arrows"]
    chain = ["image-tower", "tower-model"]
    right = ["tower"]
    mistakes = {
        "start and end do not count": ["image", "model", "tower"],
        "the end does not count": ["model", "tower"],
        "the start does not count": ["image", "tower"],
    }
    expect(answer(list(chain), "image", "model"), right, "image → tower → model", mistakes)
    for start, end in (("in", "out"), ("side", "out"), (inputs["late"], "out")):
        right = find(arrows, start, end)
        paths = [set(path) - {start, end} for path in walk(arrows, start, end)]
        backward = [f"{b}-{a}" for a, b in (arrow.split("-") for arrow in arrows)]
        from_start = {n for n in set().union(*paths) if f"{start}-{n}" in arrows}
        everywhere = {n for arrow in arrows for n in arrow.split("-")} - {start, end}
        mistakes = {
            "these blocks lie on some path, expected blocks on every path": sorted(
                set().union(*paths)
            ),
            "only one path was followed": sorted(paths[0]),
            "only the last path was followed": sorted(paths[-1]),
            "these are the neighbours of the start": sorted(from_start),
            "these are all blocks of the picture": sorted(everywhere),
            "arrows have a direction": find(arrows + backward, start, end),
            "start and end do not count": sorted([*right, start, end]),
        }
        mistakes = {text: value for text, value in mistakes.items() if value != right}
        found = answer(list(arrows), start, end)
        if isinstance(found, list) and found != right and sorted(map(str, found)) == right:
            raise WrongAnswer(f"from {start} to {end}: expected the names in alphabetical order")
        expect(found, right, f"from {start} to {end}", mistakes)
    both = ["a-b", "b-d", "a-c", "c-d"]
    expect(answer(both, "a", "d"), [], "two paths without a common block")


# %% solution
def find_bottlenecks(arrows, start, end):
    def list_paths(name):
        if name == end:
            return [{end}]
        following = [arrow.split("-")[1] for arrow in arrows if arrow.split("-")[0] == name]
        return [{name} | path for other in following for path in list_paths(other)]

    paths = list_paths(start)
    common = set.intersection(*paths)
    return sorted(common - {start, end})


# %% mutants
MUTANTS = [
    ("start and end do not count", "common - {start, end}", "common"),
    ("the start does not count", "common - {start, end}", "common - {end}"),
    ("expected blocks on every path", "set.intersection", "set.union"),
    ("only one path", "set.intersection(*paths)", "paths[0]"),
    (
        "alphabetical order",
        "return sorted(common - {start, end})",
        "return sorted(common - {start, end})[::-1]",
    ),
]

# %% exercise
# title: The largest tile
# kind: number
# answer: budget
# minutes: 15
# difficulty: 1
# practises: image tokens, and what a sequence is made of
#
# A model reads the whole view and `tiles` tiles. The whole view always has `view` × `view` pixels.
# Both kinds of views are cut into patches of `patch` × `patch` pixels, and every patch becomes one
# token. The question has `words` text tokens and `regions` regions. The language model reads
# `limit` tokens at most, and the answer needs `answer` tokens of the limit.
#
# 1. What is the longest side of a tile, in pixels, such that everything fits?
# 2. How many tokens of the limit are then left?
#
# Set `budget = (side, left)`.

# %% given
inputs = get_inputs("architecture.2")
inputs

# %% stub
budget = None  # (side of a tile in pixels, tokens left)

# %% hint
# Subtract everything that does not depend on the tiles: the whole view, the words, one token for
# each region, and the answer.

# %% hint
# A side is a multiple of the patch. A tile of n × n patches costs n² tokens, and all tiles together
# cost `tiles` times as much.


# %% check
def make_inputs(rng):
    patch, across = int(rng.choice([14, 16])), int(rng.randint(14, 25))
    tiles, side = int(rng.randint(2, 7)), int(rng.randint(15, 30))
    words, regions, answer = (int(rng.randint(*ends)) for ends in ((8, 40), (2, 6), (20, 90)))
    spare = tiles * (2 * side + 1)  # tokens between this side and the next
    fixed = across**2 + words + regions + answer
    limit = fixed + tiles * side**2 + int(spare * rng.uniform(0.3, 0.6))
    return dict(
        view=patch * across,
        patch=patch,
        tiles=tiles,
        words=words,
        regions=regions,
        answer=answer,
        limit=limit,
    )


def count(inputs, whole=True, text=True, regions=True, written=True, round_up=False):
    """The longest side and the tokens left, by trying one side after the other."""
    patch, across = inputs["patch"], inputs["view"] // inputs["patch"]
    left = inputs["limit"] - whole * across**2 - text * inputs["words"]
    left -= regions * inputs["regions"] + written * inputs["answer"]
    side = 1
    while inputs["tiles"] * (side + 1) ** 2 <= left:
        side += 1
    side += round_up
    return side * patch, left - inputs["tiles"] * side**2


def check(answer, inputs):
    right = count(inputs)
    patch = inputs["patch"]
    pixels = (
        (inputs["limit"] - sum(inputs[k] for k in ("words", "regions", "answer")))
        - (inputs["view"] // patch) ** 2
    ) / inputs["tiles"]
    mistakes = {
        "the whole view needs tokens, too": count(inputs, whole=False),
        "the answer needs tokens of the limit, too": count(inputs, written=False),
        "each region needs a token": count(inputs, regions=False),
        "the words of the question need tokens, too": count(inputs, text=False),
        "the next larger tile does not fit": count(inputs, round_up=True),
        "the side is counted in patches, expected pixels": (right[0] // patch, right[1]),
        "a side is a multiple of the patch": (int(pixels**0.5 * patch), right[1]),
    }
    if isinstance(answer, (tuple, list)) and len(answer) == 2:
        side = answer[0]
        if isinstance(side, (int, float)) and abs(side - int(pixels**0.5 * patch)) < 1.5:
            if side != right[0]:
                raise WrongAnswer("the side: a side is a multiple of the patch")
    expect(answer, right, "the side and the tokens left", mistakes, tolerance=1e-9, secret=True)


# %% solution
fixed = (inputs["view"] // inputs["patch"]) ** 2
fixed += inputs["words"] + inputs["regions"]
fixed += inputs["answer"]
n = int(((inputs["limit"] - fixed) / inputs["tiles"]) ** 0.5)
budget = (n * inputs["patch"], inputs["limit"] - fixed - inputs["tiles"] * n**2)

# %% mutants
MUTANTS = [
    ("the whole view needs", 'fixed = (inputs["view"] // inputs["patch"]) ** 2', "fixed = 0"),
    ("the answer needs", 'fixed += inputs["answer"]', "fixed += 0"),
    ("each region needs", 'inputs["words"] + inputs["regions"]', 'inputs["words"]'),
    ("next larger tile", "** 0.5)\n", "** 0.5) + 1\n"),
    ("expected pixels", 'n * inputs["patch"],', "n,"),
]

# %% exercise
# title: Which blocks learn from this batch?
# kind: prediction
# answer: changed
# minutes: 20
# difficulty: 3
# practises: frozen parts, training stages, and paths to the answer
#
# A block changes in a step of training if three things are true: it has weights, it is not frozen,
# and data of the batch passes the block *on the way to the answer*. Your inputs hold the arrows of
# a model (a variant of Ferret-v2 with some arrows removed and added), the blocks that this stage
# trains (`trained`), and the inputs that the samples of the batch have (`present`). A block without
# data gives nothing to the blocks that follow it; a block that receives data from one of two arrows
# works with this one.
#
# Predict the blocks that change, before you run any code: an alphabetical tuple of names. The check
# builds a small network of the same shape and trains a step.

# %% given
inputs = get_inputs("architecture.3")
inputs

# %% stub
changed = None  # ("clip", "model", …)

# %% hint
# Follow the arrows from the inputs that are present, and mark every block on the way.

# %% hint
# A marked block without a path to `boxes` gets no gradient. A block with a gradient that is not in
# `trained` is frozen.


# %% check
BASE = (
    "image-whole image-tiles whole-clip tiles-dino clip-project dino-project_tiles "
    "project-fusion project_tiles-fusion fusion-sampler region-sampler sampler-model "
    "crop-crop_tower crop_tower-project_crop project_crop-model question-tokens tokens-model "
    "model-boxes"
).split()
EXTRA = ["project-model", "project_tiles-model", "clip-second", "second-model", "dino-third"]
EXTRA += ["third-fourth", "region-fourth", "fourth-model", "fusion-probe", "sampler-tail"]
WEIGHTS = ["clip", "dino", "project", "project_tiles", "sampler", "model", "second", "third"]
WEIGHTS += ["fourth", "probe", "tail", "crop_tower", "project_crop"]


def follow(arrows, names):
    """The names that can be reached along the arrows."""
    seen, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting += [b for a, b in (arrow.split("-") for arrow in arrows) if a == name]
    return seen


def list_mistakes(arrows, trained, present):
    """Message -> the blocks to which a mistake leads, in alphabetical order."""
    with_data = follow(arrows, present)
    used = follow(["-".join(arrow.split("-")[::-1]) for arrow in arrows], ["boxes"])
    found = {
        "blocks of this stage may get no gradient": set(trained),
        "an input that no sample has gives no data": set(trained) & used,
        "a block without a path to the answer gets no gradient": set(trained) & with_data,
        "frozen blocks do not change": set(WEIGHTS) & with_data & used,
        "blocks without weights cannot change": with_data & used,
    }
    return {text: tuple(sorted(names)) for text, names in found.items()}


def make_inputs(rng):
    while True:
        arrows = BASE + [a for a in EXTRA if rng.uniform() < 0.6]
        drop = ["fusion-sampler", "project-fusion", "project_tiles-fusion"][rng.randint(3)]
        arrows = [str(a) for a in rng.permutation(arrows) if a != drop]
        own = [n for n in WEIGHTS if any(n in arrow.split("-") for arrow in arrows)]
        frozen = {str(n) for n in rng.permutation(own)[: int(rng.randint(2, 7))]}
        trained = [n for n in own if n not in frozen]
        present = ["image", "region", "crop", "question"]
        present.remove(["image", "region", "crop"][rng.randint(3)])
        values = list(list_mistakes(arrows, trained, present).values())
        right = train(arrows, trained, present)
        if len(right) > 1 and len({right, *values}) == 1 + len(values):
            return dict(arrows=arrows, trained=trained, present=present)


def train(arrows, trained, present):
    """One step of a network with one weight for each block. Return the weights with a gradient."""
    names = sorted({name for arrow in arrows for name in arrow.split("-")})
    weights = {name: torch.ones(1, requires_grad=name in trained) for name in names}
    before = {n: [a.split("-")[0] for a in arrows if a.split("-")[1] == n] for n in names}

    def run(name):
        if not before[name]:
            return torch.ones(1) if name in present else None
        given = [value for value in map(run, before[name]) if value is not None]
        return weights[name] * sum(given) if given else None

    boxes = run("boxes")
    if boxes.requires_grad:
        boxes.sum().backward()
    return tuple(name for name in names if weights[name].grad is not None)


def check(answer, inputs):
    arrows, trained, present = inputs["arrows"], inputs["trained"], inputs["present"]
    names = sorted({name for arrow in arrows for name in arrow.split("-")})
    right = train(arrows, trained, present)
    mistakes = list_mistakes(arrows, trained, present)
    if isinstance(answer, (tuple, list)) and all(isinstance(name, str) for name in answer):
        answer = tuple(answer)
        if unknown := [name for name in answer if name not in names]:
            raise WrongAnswer(f"the blocks: found {unknown[0]!r}, expected names of the arrows")
        if answer != right and tuple(sorted(answer)) == right:
            raise WrongAnswer("the blocks: expected the names in alphabetical order")
    expect(answer, right, "the blocks", mistakes, secret=True)


# %% solution
arrows = [arrow.split("-") for arrow in inputs["arrows"]]


def follow(names, steps):
    seen, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting += [b for a, b in steps if a == name and b not in seen]
    return seen


with_data = follow(inputs["present"], arrows)
used = follow(["boxes"], [(b, a) for a, b in arrows])
changed = tuple(sorted(with_data & used & set(inputs["trained"])))

# %% mutants
MUTANTS = [
    ("may get no gradient", 'with_data & used & set(inputs["trained"])', 'inputs["trained"]'),
    ("no sample has", "with_data & used & set", "used & set"),
    ("a path to the answer", "with_data & used & set", "with_data & set"),
    ("without weights", ' & set(inputs["trained"])', ""),
    (
        "alphabetical order",
        'sorted(with_data & used & set(inputs["trained"]))',
        'sorted(with_data & used & set(inputs["trained"]))[::-1]',
    ),
]

# %% open
# Add a block for a second sampler that reads only the DINOv2 map, and draw the picture. Change
# `_FERRET_BLOCKS` and `_FERRET_ARROWS` in your own copy of the lesson's notebook. *A good answer
# shows* the picture, the new arrows, the list of new paths from the image to the language model,
# and one thing that the new sampler can know and the old one cannot.

# %% open
# Which blocks would you leave out for a model that only finds objects, and never reads a region? *A
# good answer shows* the shorter list of arrows, the tests of the lesson that still pass, and what
# each removed block costs in tokens or weights (the later lessons Configuration and Real towers
# count tokens and weights).

# %% quiz
# What does the language model of Ferret-v2 read of an image?
#
# - the sum of the two maps
#   Only the sampler reads the sum.
# + the tokens of the whole view and the tokens of the tiles, one after the other
#   The two sequences stay apart (section 3.3 of the paper).
# - the pixels of the tiles
#   Towers and projectors turn pixels into tokens first.
# - one token for the whole image
#   Every patch becomes a token. One token is what a *region* costs.

# %% quiz
# Why does the model have two projectors?
#
# - because one projector is trained, and the other stays frozen
#   Stages II and III train both.
# - because the maps are added later, and sums need two projectors
#   Two maps of one projector could be added, too.
# + because the two towers give vectors of different kinds
#   CLIP and DINOv2 learned different things, so each needs its own way to the language model.
# - because there are two questions
#   The question passes the tokenizer, and no projector.

# %% quiz
# A model has six tiles of 336 pixels, a whole view of 336 pixels, and patches of 14 pixels. How
# many image tokens does it have?
#
# - 576
#   This is a single view.
# - 3456
#   The whole view is missing.
# - 168
#   A view has 24 × 24 patches, not 24.
# + 4032
#   Seven views of 24 × 24 patches.

# %% quiz
# How does a box leave the model?
#
# + as text, which a parser reads
#   The language model writes the numbers digit by digit, behind the name.
# - from a special layer that predicts four numbers
#   Ferret-v2 has no such layer.
# - as a map of pixels
#   Masks can enter the model. Boxes leave it as text.
# - from the sampler
#   The sampler turns a region of the *question* into a token.

# %% quiz
# Which parts does stage I of Ferret-v2 train?
#
# - every part that has weights
#   This is stage III.
# - both projectors and the sampler
#   This is stage II.
# + the projector of the whole view
#   The pictures with captions of stage I need no region and no tile.
# - the vision towers
#   Towers learn in stage III only.
