"""Exercises of the lesson Encoders. tools/exercises.py makes what ships from this file."""

# %% setup
import torch

# %% shared
import torch.nn.functional as F

from ferretlite.exercises.checks import WrongAnswer, expect


# %% exercise
# title: Cut the view yourself
# kind: code
# answer: cut_patches
# minutes: 20
# difficulty: 2
# practises: patches, and the order of rows, columns and channels
#
# A tower cuts its view with a convolution. Write the cut without a convolution:
# `cut_patches(pixels, patch)` returns the numbers of every patch.
#
# - `pixels`: tensor `[3, height, width]`. Both sides divide by `patch`.
# - result: tensor `[height / patch, width / patch, 3 · patch · patch]`. Cell (row, column) holds
#   the patch at the same place of the image. In a cell the numbers are ordered by channel, then by
#   row, then by column, as in the weight of a convolution.
#
# Then `cut_patches(pixels, patch) @ weight.flatten(1).T` is what the convolution computes.


# %% stub
def cut_patches(pixels, patch):
    raise NotImplementedError


# %% hint
# `reshape` can split an axis into two: the height becomes (rows, patch), the width becomes
# (columns, patch).

# %% hint
# After the split the axes are (channel, row, y, column, x). Which order do you need? `permute`
# changes the order, and `flatten` joins the last three axes.


# %% check
def make_inputs(rng):
    patch = int(rng.randint(3, 6))
    rows, columns = int(rng.randint(2, 4)), int(rng.randint(5, 8))
    pixels = torch.from_numpy(rng.uniform(0, 1, (3, rows * patch, columns * patch))).float()
    return dict(pixels=pixels, patch=patch)


def unfold(pixels, patch):
    rows, columns = pixels.shape[1] // patch, pixels.shape[2] // patch
    numbers = F.unfold(pixels[None], patch, stride=patch)[0]  # [3 · patch · patch, rows · columns]
    return numbers.T.reshape(rows, columns, -1)


def check(answer, inputs):
    pixels, p = inputs["pixels"], inputs["patch"]
    right = unfold(pixels, p)
    split = right.unflatten(-1, (3, p, p))
    raw = pixels.reshape(3, pixels.shape[1] // p, p, pixels.shape[2] // p, p)
    mistakes = {
        "rows and columns of cells are exchanged": right.transpose(0, 1),
        "the cells are right, rows and columns inside a patch are exchanged": (
            split.transpose(-1, -2).flatten(2)
        ),
        "the channel comes last inside a patch, expected first": split.movedim(2, -1).flatten(2),
        "the numbers were split without `permute`, so patches are mixed": raw.reshape(right.shape),
    }
    found = answer(pixels.clone(), p)
    if isinstance(found, torch.Tensor) and found.shape == right.transpose(0, 1).shape:
        if torch.allclose(found, right.transpose(0, 1)):
            raise WrongAnswer("rows and columns of cells are exchanged")
    where = f"a view of {pixels.shape[1]} × {pixels.shape[2]} pixels, patches of {p}"
    expect(found, right, where, mistakes)


# %% solution
def cut_patches(pixels, patch):
    split = pixels.unflatten(2, (-1, patch)).unflatten(1, (-1, patch))  # [3, rows, y, columns, x]
    return split.permute(1, 3, 0, 2, 4).flatten(2)


# %% mutants
MUTANTS = [
    ("rows and columns of cells", "permute(1, 3, 0, 2, 4)", "permute(3, 1, 0, 2, 4)"),
    ("inside a patch are exchanged", "permute(1, 3, 0, 2, 4)", "permute(1, 3, 0, 4, 2)"),
    ("the channel comes last", "permute(1, 3, 0, 2, 4)", "permute(1, 3, 2, 4, 0)"),
    (
        "patches are mixed",
        "split.permute(1, 3, 0, 2, 4).flatten(2)",
        "split.reshape(split.shape[1], split.shape[3], -1)",
    ),
]

# %% exercise
# title: From features of pixels back to bytes
# kind: code
# answer: restore_bytes
# minutes: 15
# difficulty: 1
# practises: the pixel statistics of a tower
#
# To draw what a tower reads, the normalised pixels have to become bytes again. Write
# `restore_bytes(pixels, mean, std)`, the reverse of (byte / 255 − mean) / std.
#
# - `pixels`: float tensor `[n, 3, height, width]`, normalised for a tower
# - `mean`, `std`: tuples of three numbers, for red, green and blue, of pixels in 0–1
# - result: uint8 tensor of the same shape. Each number is rounded to the nearest byte. Numbers
#   below 0 become 0, and numbers above 255 become 255.


# %% stub
def restore_bytes(pixels, mean, std):
    raise NotImplementedError


# %% hint
# A tensor of shape `[3, 1, 1]` acts on the channels: `torch.tensor(mean)[:, None, None]`.

# %% hint
# Undo the steps in the reverse order: multiply by the deviation, add the mean, multiply by 255.
# Then round, clamp, and convert.


# %% check
def make_inputs(rng):
    count = (2, 3, 3, 4)
    return dict(
        values=torch.from_numpy(rng.randint(1, 255, count)).double(),
        mean=tuple(float(v) for v in rng.uniform(0.3, 0.6, 3)),
        std=tuple(float(v) for v in rng.uniform(0.2, 0.3, 3)),
        shift=float(rng.uniform(0.3, 0.4)),
    )


def check(answer, inputs):
    mean, std = (torch.tensor(inputs[k]).double()[:, None, None] for k in ("mean", "std"))
    values = inputs["values"].clone()

    def run(wanted):
        pixels = (wanted / 255 - mean) / std
        return answer(pixels.float(), inputs["mean"], inputs["std"])

    def as_bytes(numbers):
        return numbers.round().clamp(0, 255).to(torch.uint8)

    found = run(values + 0.25)
    if not isinstance(found, torch.Tensor) or found.dtype != torch.uint8:
        raise WrongAnswer("expected a tensor of bytes (torch.uint8)")
    normal = ((values + 0.25) / 255 - mean) / std
    mistakes = {
        "the mean is missing": as_bytes(normal * std * 255),
        "the deviation is missing": as_bytes((normal + mean) * 255),
        "first the mean was added, then multiplied: the order of the steps": as_bytes(
            (normal + mean) * std * 255
        ),
        "one mean for all channels, expected one for each channel": as_bytes(
            (normal * std + mean.mean()) * 255
        ),
        "the last axis was treated as the channel": as_bytes(
            (normal * std.flip(0) + mean.flip(0)) * 255
        ),
    }
    expect(found, values.to(torch.uint8), "whole bytes", mistakes)
    high = values + 0.5 + inputs["shift"] / 2
    mistakes = {"numbers are cut off, expected rounding to the nearest": high.to(torch.uint8)}
    expect(run(high), high.round().to(torch.uint8), "numbers between bytes", mistakes)
    values[0, 0, 0, 0], values[0, 1, 0, 0] = -40, 300
    mistakes = {"numbers beyond 0 and 255 wrap around, expected 0 and 255": values.long().byte()}
    expect(run(values), as_bytes(values), "numbers beyond a byte", mistakes)


# %% solution
def restore_bytes(pixels, mean, std):
    mean, std = (torch.tensor(v)[:, None, None] for v in (mean, std))
    return ((pixels * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


# %% mutants
MUTANTS = [
    ("the mean is missing", "(pixels * std + mean) * 255", "pixels * std * 255"),
    ("the deviation is missing", "(pixels * std + mean) * 255", "(pixels + mean) * 255"),
    ("the order of the steps", "(pixels * std + mean) * 255", "(pixels + mean) * std * 255"),
    ("expected rounding", ".round()", ""),
    ("wrap around", ".clamp(0, 255).to(torch.uint8)", ".long().byte()"),
]

# %% exercise
# title: What one cell costs
# kind: number
# answer: counts
# minutes: 10
# difficulty: 1
# practises: cells, channels and the weights of the first linear map
#
# A tower reads a view of `view` = (height, width) pixels in patches of `patch` pixels, and its
# vectors have `channels` numbers. Set `counts` to four numbers:
#
# 1. the cells of the map,
# 2. the numbers of one patch, with three colours,
# 3. the weights of the linear map from a patch to a vector, without a bias,
# 4. the pairs of tokens that attention compares in one head of one layer, with a class token.

# %% given
inputs = get_inputs("encoders.3")
inputs

# %% stub
counts = None  # (cells, numbers, weights, pairs)

# %% hint
# A cell of the map stands for one patch, and a pixel has three numbers. A linear map has a weight
# for each pair of an input number and an output number.

# %% hint
# The class token is one token more. Every token is compared with every token, itself included.


# %% check
def make_inputs(rng):
    patch = int(rng.randint(7, 9)) * 2
    rows, columns = int(rng.randint(8, 16)), int(rng.randint(17, 30))
    channels = int(rng.randint(3, 8)) * 128
    return dict(view=(rows * patch, columns * patch), patch=patch, channels=channels)


def check(answer, inputs):
    (h, w), p, c = inputs["view"], inputs["patch"], inputs["channels"]
    cells = len(range(0, h, p)) * len(range(0, w, p))
    right = (cells, 3 * p * p, 3 * p * p * c, (cells + 1) ** 2)
    mistakes = {
        "a patch has three colours": (cells, p * p, p * p * c, (cells + 1) ** 2),
        "the class token is missing": (*right[:3], cells**2),
        "every token is compared with every token": (*right[:3], cells + 1),
        "each pair has two directions, and a token is compared with itself": (
            *right[:3],
            (cells + 1) * cells // 2,
        ),
        "the map has rows and columns": (h // p, *right[1:]),
    }
    expect(answer, right, "the counts do not fit", mistakes, tolerance=1e-9, secret=True)


# %% solution
(h, w), p = inputs["view"], inputs["patch"]
cells, numbers = (h // p) * (w // p), 3 * p * p
counts = (cells, numbers, numbers * inputs["channels"], (cells + 1) ** 2)

# %% mutants
MUTANTS = [
    ("three colours", "3 * p * p", "p * p"),
    ("the class token is missing", "(cells + 1) ** 2", "cells**2"),
    ("two directions", "(cells + 1) ** 2", "(cells + 1) * cells // 2"),
]

# %% open
# Read the map one layer earlier and one layer later than the lesson does. *A good answer shows* the
# accuracy of a linear classifier for kinds and colours on each layer of both towers, with intervals
# and the chance level.

# %% open
# How far does a cell see? Change one patch, and measure the change of each cell by distance, for
# several scenes. *A good answer shows* the mean change by distance for both towers, and the
# spread.

# %% quiz
# A view has 96 × 192 pixels (height × width) and patches of 16 pixels. Which shape has the map?
#
# + 6 × 12 cells
#   The map has a row for each 16 pixels of height and a column for each 16 pixels of width.
# - 12 × 6 cells
#   The height comes first. A map with exchanged axes raises no error on a square view.
# - 96 × 192 cells
#   A cell stands for a patch, not for a pixel.
# - 72 cells in a row
#   The layers read a row of 72 vectors, and the map has two axes again.

# %% quiz
# Why does the map of CLIP come from the layer before the last?
#
# - The last layer is too slow.
#   The saved time is welcome, but is not the reason.
# + Only the class token of the last layer entered CLIP's loss.
#   The patches of the last layer had no training signal. One layer earlier the class token reads
#   from them.
# - The last layer has another width.
#   All layers have the same width.
# - The last layer holds the class token alone.
#   The last layer returns patches as well.

# %% quiz
# Somebody uses DINOv2's pixel statistics for CLIP. What happens?
#
# - An error is raised.
#   The shapes fit, so nothing raises an error.
# + Features move by about a tenth of their length, and nobody notices.
#   The lesson measures the change beside a slightly darker image.
# - The image becomes negative.
#   The two tables are similar.
# - The features become zeros.
#   Only an image in exactly the mean colour becomes zeros.

# %% quiz
# A test lights up a single patch to check the order of cells. Where should the patch lie?
#
# - in the centre
#   The exchanged place is the same place.
# - in the upper left corner
#   Row 0 and column 0 stay the same after an exchange.
# + in the upper right corner
#   Row 0, column 5 becomes row 5, column 0 after an exchange, so the mistake is seen.
# - anywhere on the diagonal
#   On the diagonal row and column are equal.

# %% quiz
# What does a cell of the map describe?
#
# - its own patch and nothing else
#   This holds for the embedding, before the first layer.
# - the whole image, the same as every other cell
#   The cells differ; a linear classifier can name the patch.
# + its patch, and through attention something about the rest of the image
#   In every layer a patch reads from all other patches.
# - the pixel at its centre
#   The linear map reads all pixels of the patch.
