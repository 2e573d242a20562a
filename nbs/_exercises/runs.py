"""Exercises of the lesson Runs. tools/exercises.py makes what ships from this file."""

# %% setup
import random

# %% shared
from ferretlite.exercises.checks import WrongAnswer, expect


# %% exercise
# title: Which checkpoint is whole?
# kind: code
# answer: find_checkpoint
# minutes: 20
# difficulty: 2
# practises: going on from the newest checkpoint that was written to its end
#
# A run was killed, perhaps while it wrote a checkpoint. Write `find_checkpoint(folders)`, which
# returns the name of the newest whole checkpoint, or None if there is none.
#
# - `folders`: dict from the name of a folder to its files. The files are a dict from the name of a
#   file to its size in bytes, or to its text for the file `COMPLETE`.
# - A checkpoint is a folder named `checkpoint-N`, with the step N as a whole number without leading
#   zeros. Other folders do not count.
# - A checkpoint is whole if it holds `COMPLETE`, and each line of this file, `name size`, names a
#   file that is there with exactly this size. Further files do no harm.


# %% stub
def find_checkpoint(folders):
    raise NotImplementedError


# %% hint
# Sort by the step as a *number*. As text, `checkpoint-80` comes after `checkpoint-100`.

# %% hint
# `name.removeprefix("checkpoint-")` leaves the step. `str(int(step)) == step` excludes everything
# else, after `step.isdecimal()`.


# %% check
def make_inputs(rng):
    step = int(rng.randint(2, 90)) * 10
    late = int(rng.randint(90, 100)) * 10
    return dict(step=step, late=late, size=int(rng.randint(1000, 9000)))


def write(size, *more, complete=True, cut=0):
    files = {"model.safetensors": size - cut, "optimizer.pt": 2 * size}
    if complete:
        files["COMPLETE"] = f"model.safetensors {size}\noptimizer.pt {2 * size}\n" + "".join(more)
    return files


def check(answer, inputs):
    step, size = inputs["step"], inputs["size"]
    old, new = f"checkpoint-{step}", f"checkpoint-{10 * step}"
    whole = write(size)

    def run(folders, expected, where, **mistakes):
        found = answer({name: dict(files) for name, files in folders.items()})
        if found == expected:
            return
        for message, wrong in mistakes.items():
            if found == wrong:
                raise WrongAnswer(f"{where}: {message.replace('_', ' ')}")
        raise WrongAnswer(f"{where}: found {found!r}, expected {expected!r}")

    run({old: whole}, old, "one whole checkpoint")
    run({}, None, "no checkpoint")
    run(
        {old: write(size, complete=False)},
        None,
        "one unfinished checkpoint",
        an_unfinished_checkpoint_was_taken=old,
    )
    late = f"checkpoint-{inputs['late']}"
    run(
        {late: whole, f"checkpoint-{1000 + step}": whole},
        f"checkpoint-{1000 + step}",
        "two whole checkpoints",
        steps_are_compared_as_text=late,
    )
    run(
        {old: whole, new: write(size, complete=False)},
        old,
        "the newest has no COMPLETE",
        an_unfinished_checkpoint_was_taken=new,
    )
    run(
        {old: whole, new: write(size, cut=1)},
        old,
        "a file of the newest is cut",
        the_sizes_were_not_compared=new,
    )
    run(
        {old: whole, new: write(size, "scheduler.pt 7\n")},
        old,
        "a listed file is missing",
        a_listed_file_is_missing_there=new,
    )
    run(
        {old: whole, f"checkpoint-{20 * step}-old": whole, "stage-900": whole},
        old,
        "other folders",
        such_a_folder_is_no_checkpoint=f"checkpoint-{20 * step}-old",
    )
    run(
        {old: whole, f"checkpoint-0{20 * step}": whole},
        old,
        "a step with a leading zero",
        such_a_folder_is_no_checkpoint=f"checkpoint-0{20 * step}",
    )
    run({new: {**whole, "note.txt": 5}, old: whole}, new, "a further file")


# %% solution
def find_checkpoint(folders):
    def is_whole(files):
        if "COMPLETE" not in files:
            return False
        for line in files["COMPLETE"].splitlines():
            name, size = line.split()
            if files.get(name) != int(size):
                return False
        return True

    steps = {}
    for name, files in folders.items():
        step = name.removeprefix("checkpoint-")
        is_step = step.isdecimal() and str(int(step)) == step
        if name != step and is_step and is_whole(files):
            steps[int(step)] = name
    return steps[max(steps)] if steps else None


# %% mutants
MUTANTS = [
    ("compared as text", "steps[int(step)] = name", "steps[step] = name"),
    (
        "an unfinished checkpoint",
        "            return False\n        for",
        "            return True\n        for",
    ),
    ("sizes were not compared", "files.get(name) != int(size)", "name not in files"),
    (
        "no checkpoint",
        "name != step and is_step and is_whole(files)",
        'name != step and is_whole(files) and (step := step.split("-")[0])',
    ),
    ("a leading zero: such a folder", " and str(int(step)) == step", ""),
    (
        "one unfinished checkpoint: an unfinished",
        "    return steps[max(steps)] if steps else None",
        "    return steps[max(steps)] if steps else max(folders, default=None)",
    ),
]

# %% exercise
# title: Random numbers without a memory
# kind: code
# answer: draw_batch
# minutes: 20
# difficulty: 2
# practises: draws that depend on the step alone
#
# A resumed run has to draw what the run would have drawn without the break. Write
# `draw_batch(seed, step, size, n)`, which returns the numbers of the samples of one step.
#
# - result: list of `size` different numbers from 0 to n − 1
# - The result depends on the arguments alone, and not on earlier calls or on the global generator.
#   The function also leaves the global generator of `random` as it was.
# - An epoch has n // size steps and shows no sample twice: the steps 0 to n // size − 1 share no
#   number. Each epoch comes in another order.
# - Another seed gives other orders: no epoch of one seed repeats an epoch of the next seed.


# %% stub
def draw_batch(seed, step, size, n):
    raise NotImplementedError


# %% hint
# Which epoch is it? `step // (n // size)`. The remainder is the place inside the epoch.

# %% hint
# Shuffle all numbers with a generator of your own, `random.Random(f"{seed}-{epoch}")`, and cut out
# the part of this step.


# %% check
def make_inputs(rng):
    return dict(
        seed=int(rng.randint(0, 10000)), size=int(rng.randint(3, 9)), n=int(rng.randint(41, 120))
    )


def check(answer, inputs):
    seed, size, n = inputs["seed"], inputs["size"], inputs["n"]
    epoch = n // size

    def draw(step, seed=seed):
        batch = answer(seed, step, size, n)
        if not isinstance(batch, list) or any(type(i) is not int for i in batch):
            raise WrongAnswer("expected a list of whole numbers")
        if len(batch) != size or len(set(batch)) != size or not set(batch) <= set(range(n)):
            raise WrongAnswer(f"expected {size} different numbers from 0 to {n - 1}")
        return batch

    random.seed(5)
    state = random.getstate()
    once = draw(3)
    if random.getstate() != state:
        raise WrongAnswer("the global generator was used or seeded, expected one of your own")
    random.seed(6)
    draw(4)
    if draw(3) != once:
        raise WrongAnswer("the same step gave other numbers, expected draws without a memory")
    batches = [draw(step) for step in range(2 * epoch)]
    seen = [i for batch in batches[:epoch] for i in batch]
    if len(set(seen)) < len(seen):
        raise WrongAnswer("a sample came twice in one epoch")
    again = [i for batch in batches[epoch:] for i in batch]
    if len(set(again)) < len(again):
        raise WrongAnswer("a sample came twice in the second epoch")
    if again == seen:
        raise WrongAnswer("the second epoch came in the order of the first")
    if seen == sorted(seen):
        raise WrongAnswer("the samples came in the order of their numbers, expected a shuffle")
    other = [i for step in range(epoch) for i in draw(step, seed + 1)]
    if other == seen:
        raise WrongAnswer("another seed gave the same order")
    third = [i for step in range(2 * epoch, 3 * epoch) for i in draw(step)]
    if third in (seen, again):
        raise WrongAnswer("the third epoch came in an order that was there before")
    if other in (again, third):
        raise WrongAnswer("the next seed repeats a later epoch of this seed")


# %% solution
def draw_batch(seed, step, size, n):
    epoch, place = divmod(step, n // size)
    order = list(range(n))
    random.Random(f"{seed}-{epoch}").shuffle(order)
    return order[place * size : (place + 1) * size]


# %% mutants
MUTANTS = [
    ("the global generator", 'random.Random(f"{seed}-{epoch}").shuffle', "random.shuffle"),
    ("twice in one epoch", 'f"{seed}-{epoch}"', 'f"{seed}-{step}"'),
    ("in the order of the first", 'f"{seed}-{epoch}"', 'f"{seed}"'),
    ("another seed gave the same order", 'f"{seed}-{epoch}"', 'f"{epoch}"'),
    ("the third epoch", 'f"{seed}-{epoch}"', 'f"{seed}-{epoch % 2}"'),
    ("repeats a later epoch", 'f"{seed}-{epoch}"', "seed + epoch"),
]

# %% exercise
# title: What a killed run loses
# kind: number
# answer: lost
# minutes: 10
# difficulty: 1
# practises: checkpoints, and the work that is done twice
#
# A run saves a checkpoint every `every` steps, and a checkpoint takes `saving` seconds. A step
# takes `second` seconds. The run is killed at a random moment, once in `hours` hours on average.
#
# 1. How many seconds of work are lost on average when the run is killed? (Half of the steps between
#    two checkpoints. Leave out the time of saving.)
# 2. Which share of the time is spent on saving, while nothing goes wrong?
# 3. Which share of the time is spent on work that is done twice? Divide the loss of 1 by the time
#    between two kills.
#
# Set `lost = (seconds, share of saving, share done twice)`.

# %% given
inputs = get_inputs("runs.3")
inputs

# %% stub
lost = None  # (seconds, share, share)

# %% hint
# Between two checkpoints lie `every` steps and one saving.

# %% hint
# A kill falls in the middle between two checkpoints on average. `hours` has to become seconds.


# %% check
def make_inputs(rng):
    return dict(
        every=int(rng.randint(20, 200)),
        saving=round(float(rng.uniform(5, 20)), 1),
        second=round(float(rng.uniform(0.5, 2.5)), 2),
        hours=int(rng.randint(2, 12)),
    )


def check(answer, inputs):
    every, saving, second, hours = (inputs[k] for k in ("every", "saving", "second", "hours"))
    work = sum([second] * every)  # seconds between two checkpoints
    kills = hours * 60 * 60
    right = (work / 2, saving / (work + saving), work / 2 / kills)
    mistakes = {
        "a kill at a random moment loses half of the work on average": (
            work,
            right[1],
            work / kills,
        ),
        "the time between two checkpoints includes the saving": (
            right[0],
            saving / work,
            right[2],
        ),
        "an hour has 3600 seconds": (right[0], right[1], work / 2 / hours),
        "these are steps, expected seconds": (every / 2, right[1], every / 2 / kills),
    }
    where = "the numbers do not fit"
    expect(answer, right, where, mistakes, tolerance=1e-5, secret=True)


# %% solution
work = inputs["every"] * inputs["second"]
saving = inputs["saving"] / (work + inputs["saving"])
lost = (work / 2, saving, work / 2 / (3600 * inputs["hours"]))

# %% mutants
MUTANTS = [
    (
        "loses half of the work",
        "(work / 2, saving, work / 2 / (3600",
        "(work, saving, work / (3600",
    ),
    ("includes the saving", '(work + inputs["saving"])', "work"),
    ("3600 seconds", '(3600 * inputs["hours"])', 'inputs["hours"]'),
]

# %% open
# Kill a run of your own ten times at random moments and let it go on. *A good answer shows* that
# the weights equal those of a run without a break, number by number, or names the first
# difference and its cause.

# %% quiz
# A run is killed while it writes a checkpoint. From where does it go on?
#
# - from the unfinished checkpoint
#   Half a checkpoint cannot be trusted.
# + from the newest checkpoint that was written to its end
#   A mark that is written last says so.
# - from the beginning
#   Earlier checkpoints are whole.
# - from the last log entry
#   A log holds no weights.

# %% quiz
# Why must a sample depend on its number, and not on earlier draws?
#
# + A resumed run then draws what the run would have drawn without the break.
#   The state of a generator would have to be stored and restored for every worker.
# - Draws are faster.
#   The speed is about the same.
# - The samples are then equally long.
#   The length does not depend on the draw.
# - The loss is smoother.
#   The loss has the same spread.

# %% quiz
# A run is resumed with another batch size. What should happen?
#
# - It goes on.
#   The rest of the run would differ from its plan, without a message.
# + It is refused, and the message names the setting.
#   A record of the settings lies beside the checkpoints.
# - The learning rate is changed.
#   A hidden change would be worse.
# - It starts anew.
#   The work of hours would be lost.

# %% quiz
# Why is a file written under a temporary name and then renamed?
#
# - The rename makes the file smaller.
#   The size stays.
# + A reader sees the old file or the new file, and never half of one.
#   A rename is one step for other programs.
# - The disk is faster that way.
#   Writing takes the same time.
# - Two programs can then write at once.
#   Two writers still need a lock.

# %% quiz
# What proves that a resumed run is right?
#
# - The loss goes on falling.
#   A wrong state often still trains.
# - The step counter goes on.
#   The counter says nothing of the weights.
# + Weights at the end that equal those of a run without a break, bit for bit.
#   Any forgotten state would change the numbers.
# - No error was raised.
#   Most forgotten states raise nothing.
