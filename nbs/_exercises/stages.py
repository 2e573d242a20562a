"""Exercises of the lesson Stages. tools/exercises.py makes what ships from this file."""

# %% setup
import torch

# %% shared
from ferretlite.exercises.checks import WrongAnswer, expect


# %% exercise
# title: Which part learned in secret?
# kind: code
# answer: audit_step
# minutes: 15
# difficulty: 1
# practises: testing frozen parts by their weights
#
# A step of training is over, and you have the weights of before and after. Write
# `audit_step(before, after, trains)`, which finds both mistakes of freezing.
#
# - `before`, `after`: dict from the name of a part to a list of tensors
# - `trains`: list of the parts that should learn
# - result: two lists of names, each in alphabetical order. The first list holds the parts that
#   should learn and did not change. The second list holds the parts that changed and should not.
#
# A part has changed if *any* number of *any* of its tensors is another number, however small the
# difference.


# %% stub
def audit_step(before, after, trains):
    raise NotImplementedError


# %% hint
# `torch.equal` compares two tensors number by number, without a tolerance.

# %% hint
# Find the set of changed parts first. Both lists follow from this set and from `trains`.


# %% check
def make_inputs(rng):
    names = ["sampler", "global_tower", "local_projector", "language_model", "visual_position"]
    names = [names[i] for i in rng.permutation(5)]
    tensors = {n: [torch.from_numpy(rng.uniform(1, 2, s)).float() for s in (6, 4)] for n in names}
    return dict(names=names, tensors=tensors, place=int(rng.randint(0, 3)))


def copy_parts(parts):
    return {name: [t.clone() for t in tensors] for name, tensors in parts.items()}


def check(answer, inputs):
    a, b, c, d, e = inputs["names"]
    before, after, i = inputs["tensors"], copy_parts(inputs["tensors"]), inputs["place"]
    after[a][0] += 0.5  # learns, as it should
    last = after[b][1]  # learns as little as floats can, in its last tensor, and should not
    last[i] = torch.nextafter(last[i], torch.tensor(9.0))
    after[c][0][i] += 0.25  # two changes that cancel in a sum
    after[c][0][i + 1] -= 0.25
    silent, leaked = [d], sorted([b, c])
    mistakes = {
        "a small change was passed over": ([d], [c]),
        "changes that cancel in a sum were passed over": ([d], [b]),
        "the two lists are exchanged": (leaked, silent),
        "parts that learn as they should are no mistake": ([d], sorted([a, b, c])),
    }
    found = answer(copy_parts(before), copy_parts(after), [a, d])
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise WrongAnswer("expected two lists of names")
    found = tuple(found)
    if found == ([d], []):
        raise WrongAnswer("only the first tensor of a part, or only large changes, are compared")
    if all(isinstance(f, list) for f in found) and found != (silent, leaked):
        if (sorted(found[0]), sorted(found[1])) == (silent, leaked):
            raise WrongAnswer("the names are not in alphabetical order")
    for message, wrong in mistakes.items():
        if found == wrong:
            raise WrongAnswer(message)
    if found != (silent, leaked):
        raise WrongAnswer(f"five parts: found {found}, expected {(silent, leaked)}")
    found = answer(copy_parts(before), copy_parts(before), [])
    if tuple(found) != ([], []):
        raise WrongAnswer(f"nothing changed and nothing should: found {found}, expected ([], [])")


# %% solution
def audit_step(before, after, trains):
    changed = {
        name
        for name in before
        if any(not torch.equal(x, y) for x, y in zip(before[name], after[name]))
    }
    return sorted(set(trains) - changed), sorted(changed - set(trains))


# %% mutants
MUTANTS = [
    ("a small change", "not torch.equal(x, y)", "not torch.allclose(x, y, atol=1e-3)"),
    ("a small change", "not torch.equal(x, y)", "bool((x - y).abs().max() > 5e-7)"),
    (
        "cancel in a sum",
        "not torch.equal(x, y)",
        "abs(float(x.double().sum() - y.double().sum())) > 1e-12",
    ),
    (
        "exchanged",
        "sorted(set(trains) - changed), sorted(changed - set(trains))",
        "sorted(changed - set(trains)), sorted(set(trains) - changed)",
    ),
    ("are no mistake", "sorted(changed - set(trains))", "sorted(changed)"),
]

# %% exercise
# title: Samples, steps and pictures
# kind: number
# answer: plan
# minutes: 10
# difficulty: 1
# practises: shares of a budget, and pictures that come back
#
# A run has `samples` samples. The stages divide the samples by their `shares`. A step reads `batch`
# samples, and a part of a step that is left over is dropped. In the last stage every picture comes
# back, so that it is seen `visits` times in all.
#
# Set `plan = (steps of stage I, steps of stage II, steps of stage III, pictures of stage III)`. The
# pictures belong to the samples of the whole steps of stage III. A last picture with fewer visits
# counts, too.

# %% given
inputs = get_inputs("stages.2")
inputs

# %% stub
plan = None  # (steps I, steps II, steps III, pictures of stage III)

# %% hint
# The samples of a stage are the samples of the run, times the share of the stage, divided by the
# sum of all shares.

# %% hint
# Divide the samples of the whole steps of stage III by `visits`, and round up.


# %% check
def make_inputs(rng):
    while True:
        batch = int(rng.randint(5, 9)) * 2
        shares = [1, int(rng.randint(2, 5)), int(rng.randint(40, 70))]
        samples = int(rng.randint(300, 900)) * sum(shares)
        inputs = dict(samples=samples, shares=shares, batch=batch, visits=int(rng.randint(3, 6)))
        steps, pictures = list_mistakes(inputs)
        *right, seen = divide(**inputs)
        if tuple(right) not in steps.values() and seen not in pictures.values():
            return inputs


def divide(samples, shares, batch, visits, up=False, whole=None, late=False):
    whole = sum(shares) if whole is None else whole
    parts = [samples * s // whole for s in shares]
    steps = [-(-p // batch) if up else p // batch for p in parts]
    pictures = -(-steps[2] // visits) if late else -(-steps[2] * batch // visits)
    return (*steps, pictures)


def list_mistakes(inputs):
    """Message -> steps, and message -> pictures, to which mistakes lead."""
    samples, batch, visits = (inputs[name] for name in ("samples", "batch", "visits"))
    parts = tuple(samples * share // sum(inputs["shares"]) for share in inputs["shares"])
    shown = divide(**inputs)[2] * batch
    steps = {
        "a share is a part of the sum of all shares, and not of 100": divide(**inputs, whole=100),
        "a step that is not full is dropped": divide(**inputs, up=True),
        "a step that is not full is dropped, expected whole numbers": [n / batch for n in parts],
        "these are samples, expected steps": parts,
    }
    pictures = {
        "pictures are counted in samples, and not in steps": divide(**inputs, late=True)[3],
        "every picture is seen more than once": shown,
        "more visits need fewer pictures": shown * visits,
        "a last picture with fewer visits counts, too": shown // visits,
        "a last picture with fewer visits is a whole picture": shown / visits,
        "samples of a step that was dropped show no pictures": -(-parts[2] // visits),
    }
    return {text: tuple(value[:3]) for text, value in steps.items()}, pictures


def check(answer, inputs):
    *right, seen = divide(**inputs)
    steps, pictures = list_mistakes(inputs)
    if isinstance(answer, (tuple, list)) and len(answer) == 4:
        expect(tuple(answer[:3]), tuple(right), "the steps", steps, 1e-9, secret=True)
        expect(answer[3], seen, "the pictures", pictures, 1e-9, secret=True)
    expect(answer, (*right, seen), "the plan", tolerance=1e-9, secret=True)


# %% solution
samples, shares, batch = inputs["samples"], inputs["shares"], inputs["batch"]
steps = [samples * share // sum(shares) // batch for share in shares]
plan = (*steps, -(-steps[2] * batch // inputs["visits"]))

# %% mutants
PICTURES = 'steps[2] * batch // inputs["visits"]'
MUTANTS = [
    ("and not of 100", "sum(shares) // batch", "100 // batch"),
    ("pictures are counted in samples", "-(-steps[2] * batch // ", "-(-steps[2] // "),
    ("expected steps", "plan = (*steps,", "plan = (*[samples * s // sum(shares) for s in shares],"),
    ("with fewer visits counts", '-(-steps[2] * batch // inputs["visits"])', PICTURES),
    ("was dropped", "steps[2] * batch // ", "samples * shares[2] // sum(shares) // "),
    ("more than once", '-(-steps[2] * batch // inputs["visits"])', "steps[2] * batch"),
]

# %% exercise
# title: A rate for every layer
# kind: code
# answer: choose_rates
# minutes: 20
# difficulty: 2
# practises: parameter groups, weight decay, and learning rates that differ by part
#
# Some recipes let the early layers of a tower learn more slowly than the late layers. The last
# layer learns at the full rate. Each layer before it learns at the rate of the next layer times
# `factor`. Write `choose_rates(shapes, rate, factor, decay)`.
#
# - `shapes`: dict from the name of a weight to its shape. A name such as `layers.3.bias` holds the
#   number of its layer. Layers are numbered from 0.
# - result: dict from the name to a pair (learning rate, weight decay). Matrices get `decay`. Norms
#   and biases, weights with one axis, get 0.
#
# Example: of three layers with rate 1 and factor 0.5, layer 0 learns at the rate 0.25.


# %% stub
def choose_rates(shapes, rate, factor, decay):
    raise NotImplementedError


# %% hint
# `int(name.split(".")[1])` is the number of the layer. The largest number is the last layer.

# %% hint
# A layer that is k layers before the last one learns at rate × factor^k.


# %% check
def make_inputs(rng):
    layers = int(rng.randint(11, 15))
    shapes = {}
    for i in rng.permutation(layers):
        shapes[f"layers.{i}.weight"] = (8, 8)
        shapes[f"layers.{i}.bias"] = (8,)
    return dict(
        shapes=shapes,
        rate=float(rng.uniform(1, 2)),
        factor=float(rng.uniform(0.7, 0.9)),
        decay=float(rng.uniform(0.01, 0.1)),
    )


def list_rates(shapes, rate, factor, decay, power=lambda i, last: last - i, bias=False, sort=int):
    numbers = {name: sort(name.split(".")[1]) for name in shapes}
    last = max(numbers.values())
    return [
        (rate * factor ** power(int(numbers[n]), int(last)), decay * (bias or len(shapes[n]) > 1))
        for n in shapes
    ]


def check(answer, inputs):
    shapes = inputs["shapes"]
    found = answer(dict(shapes), inputs["rate"], inputs["factor"], inputs["decay"])
    if not isinstance(found, dict) or set(found) != set(shapes):
        raise WrongAnswer("expected a dict with a pair for every weight")
    mistakes = {
        "the first layer learns at the full rate, expected the last": list_rates(
            **inputs, power=lambda i, last: i
        ),
        "the last layer learns at the full rate, expected no factor there": list_rates(
            **inputs, power=lambda i, last: last - i + 1
        ),
        "norms and biases decay, expected 0": list_rates(**inputs, bias=True),
        "layers are ordered as text: 10 comes after 9": list_rates(**inputs, sort=str),
        "only the last two layers differ, expected one factor more for each layer": list_rates(
            **inputs, power=lambda i, last: min(1, last - i)
        ),
    }
    pairs = [found[name] for name in shapes]
    expect(pairs, list_rates(**inputs), "a tower", mistakes, tolerance=1e-6)


# %% solution
def choose_rates(shapes, rate, factor, decay):
    numbers = {name: int(name.split(".")[1]) for name in shapes}
    last = max(numbers.values())
    return {
        name: (rate * factor ** (last - number), decay if len(shapes[name]) > 1 else 0.0)
        for name, number in numbers.items()
    }


# %% mutants
MUTANTS = [
    ("expected the last", "(last - number)", "number"),
    ("expected no factor there", "(last - number)", "(last - number + 1)"),
    ("norms and biases decay", "decay if len(shapes[name]) > 1 else 0.0", "decay"),
    ("ordered as text", "max(numbers.values())", "int(max(map(str, numbers.values())))"),
]

# %% open
# Write a recipe of two stages without stage II (`replace`, a tuple, a new key in `STAGES`). Give
# both recipes the same number of samples. *A good answer shows* both scores with intervals over
# several seeds, and says how many seeds are needed to tell the recipes apart.

# %% open
# Set `slow=dict(language_model=0.1)` in stage III. *A good answer shows* naming and finding with
# intervals at the same number of samples, beside the spread of two seeds.

# %% quiz
# Why does stage I train the projector alone?
#
# - The towers have no gradient.
#   Towers have gradients. Stage I leaves them out by choice.
# + The projector is still random, so the language model cannot read what the towers say.
#   The other parts were trained before. The projector learns to translate between them.
# - Captions need no language model.
#   The language model writes the caption. It is frozen, not absent.
# - The projector has the most weights.
#   The language model has more weights.

# %% quiz
# A stage names the part `projectr`. What does `prepare_stage` do?
#
# - It trains all parts but the misspelt one.
#   The naive version of the lesson does so, without a message.
# + It raises an error that lists the known names.
#   No later step would notice that the part never learns.
# - It trains the part with the most similar name.
#   A guess would hide the mistake.
# - It trains nothing and goes on.
#   A run that trains nothing would waste hours.

# %% quiz
# Why are `visits=4` and a tower that learns refused together?
#
# - Four visits would take too much memory.
#   Memory is bounded by the number of pictures that are kept.
# + The trainer keeps the maps of a picture, and the maps would be out of date.
#   The tower changes after every step, so a kept map belongs to an older tower.
# - A tower needs every picture once only.
#   A tower may see a picture many times. Then the map is computed each time.
# - Towers have no learning rate in a stage.
#   Every part of a stage has a learning rate.

# %% quiz
# Which weights get no weight decay?
#
# - the weights of frozen parts only
#   Frozen parts get no step at all.
# - the matrices of the projector
#   Matrices decay.
# + norms and biases
#   They are few, and a decay would only change the scale of features.
# - the embeddings
#   The table of embeddings is a matrix.

# %% quiz
# Why is the budget of a stage counted in samples?
#
# - Samples have the same length.
#   Samples differ in length.
# - A sample takes a second.
#   The time depends on the machine.
# + The length of a step depends on the batch size, and a minute depends on the machine.
#   A number of samples means the same work on every machine.
# - Steps cannot be counted before the run.
#   Steps follow from samples and the batch size.
