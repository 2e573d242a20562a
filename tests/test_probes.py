"Dense teaching and linear probes: targets, losses and scores worked out by hand."

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ferretlite.common.errors import InputError
from ferretlite.pretraining import dense as probes
from ferretlite.pretraining.clip import KIND_NAMES, linear_probe
from ferretlite.pretraining.dense import (
    HEAD_SIZES,
    DenseHead,
    DenseTowers,
    DenseViews,
    collate_sides,
    collate_views,
    dense_loss,
    find_letters,
    load_dense_towers,
    make_dense_targets,
    measure_coverage,
    measure_word,
    pretrain_towers,
    save_towers,
    score_towers,
)
from ferretlite.regions.geometry import Box
from ferretlite.scenes.world import COLORS, FILLS, LETTERS, SceneObject, draw_scene
from ferretlite.vision.encoders import compute_tower_map

# Probes


def ridge(x, y, chosen, fitted, alpha):
    """Ridge as least squares with extra rows (numpy), on columns of mean 0 and deviation 1 and a 1.

    Columns are scaled on `fitted`; rows in both are fitted on, what is told is for all rows."""
    x = (x - x[fitted].mean(0)) / (x[fitted].std(0, ddof=1) + 1e-5)
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    rows = np.concatenate([x[chosen & fitted], np.sqrt(alpha) * np.eye(x.shape[1])])
    y = np.concatenate([y[chosen & fitted], np.zeros((x.shape[1], y.shape[1]))])
    return x @ np.linalg.lstsq(rows, y, rcond=None)[0]


@pytest.fixture
def clues():
    "Sixty rows of five columns of unequal size, of which a truth can be guessed in part."
    dice = np.random.default_rng(3)
    x = dice.normal(size=(60, 5)) * [1, 30, 0.1, 2, 5] + [0, 100, -3, 0, 1]
    fitted = dice.random(60) < 0.6
    return x, fitted, dice


@pytest.mark.parametrize("alpha", [30.0, 2.0])
def test_a_probe_of_classes_is_ridge_regression(clues, alpha):
    x, fitted, dice = clues
    truth = (x[:, 0] + x[:, 3] / 2 + dice.normal(size=60) > 0).astype(int) + (x[:, 1] > 120)
    unknown = dice.random(60) < 0.2
    held = np.where(unknown, -100, truth)
    keep = ~unknown
    told = ridge(x, np.eye(3)[truth], keep, fitted, alpha)[keep & ~fitted]
    expected = (told.argmax(1) == truth[keep & ~fitted]).mean()
    arguments = torch.tensor(x), torch.tensor(held), torch.tensor(fitted)
    found = linear_probe(*arguments) if alpha == 30 else linear_probe(*arguments, ridge=alpha)
    assert found == pytest.approx(expected) and 0.3 < found < 1


def test_a_probe_of_numbers_tells_how_much_of_the_means_error_is_gone(clues):
    x, fitted, dice = clues
    y = np.stack([x[:, 0] * 3 + x[:, 4], 50 + dice.normal(size=60)], 1)
    expected = ridge(x, y, np.ones(60, bool), fitted, 30.0)[~fitted]
    error = np.abs(expected - y[~fitted]).mean()
    plain = np.abs(y[fitted].mean(0) - y[~fitted]).mean()
    found = linear_probe(torch.tensor(x), torch.tensor(y), torch.tensor(fitted))
    assert found == pytest.approx(1 - error / plain, abs=1e-3)


# Truth of each patch


def test_the_questions_and_their_numbers_of_answers():
    assert KIND_NAMES[-1] == "word" and len(KIND_NAMES) == len(set(KIND_NAMES)) == 41
    assert HEAD_SIZES == dict(kind=41, color=8, fill=2, extent=4, left=27, right=27)


def test_letters_stand_between_their_ends():
    "`CAT` from 10 to 16: two columns a letter; outside there is no letter (26)."
    places = np.array([9.9, 10.0, 11.9, 12.1, 14.0, 15.9, 16.0, 17.0])
    ends = np.array([10.0, 12.0, 14.0, 16.0])
    assert find_letters("CAT", places, ends).tolist() == [26, 2, 2, 0, 19, 19, 26, 26]
    ends = np.array([10.0, 14.0, 15.0, 16.0])  # letters are not equally wide
    assert find_letters("CAT", places, ends).tolist() == [26, 2, 2, 2, 0, 19, 26, 26]


def test_letters_follow_a_word_that_is_tilted():
    """`IM` from (0, 4) to (3, 0), five long: I is one long, M four. A patch is four pixels.

    The middle of the word, (1.5, 2), is 2.5 along it, which is M; (0.3, 3.6) is 0.5 along, I."""
    word = SceneObject("word", Box(0, 0, 3, 4), text="IM", letters=((0, 4), (0.6, 3.2), (3, 0)))
    box, scale = np.array([0, 0, 0.75, 1]), np.array([0.25, 0.25])
    start, direction, ends = measure_word(word, box, scale)
    assert start.tolist() == [0, 1] and direction == pytest.approx([0.6, -0.8])
    assert ends == pytest.approx([0, 0.25, 1.25])
    places = (np.array([[1.5, 2], [0.3, 3.6], [-1, 4]]) * scale - start) @ direction
    letters = [LETTERS.index("M"), LETTERS.index("I"), 26]
    assert find_letters("IM", places, ends).tolist() == letters


def test_a_word_that_a_window_cuts_keeps_the_places_of_its_letters():
    """A window from x = 40 on shows the last two letters of MAT, which lies from 10 to 70.

    Its box is cut at 40; equal parts of that box would begin with M again."""
    letters = ((10, 16), (40, 16), (56, 16), (70, 16))
    word = SceneObject("word", Box(10, 8, 70, 24), None, "red", "filled", "MAT", letters)
    pixels, covered = np.zeros((96, 96, 3), np.uint8), np.ones((96, 96), np.float32)
    views = DenseViews(1, view=32, patch=8, side=96)
    _, truth = views._window(pixels, covered, [(0, word)], 1, 40, 0)
    a, t = LETTERS.index("A"), LETTERS.index("T")
    assert truth["left"][0, 1].tolist() == [a, a, t, t]  # at x = 42, 50, 58 and 66
    _, truth = views._window(pixels, covered, [(0, word)], 2, 0, 0)  # shown at half its size
    m = LETTERS.index("M")
    assert truth["left"][0, 0, 1:].tolist() == [m, m, a]  # at x = 20, 36 and 52 of 96; M ends at 40


def thing(name, box, color="red", fill="filled", text=None):
    return SceneObject(name, Box(*box), None, color, fill, text)


@pytest.fixture
def targets():
    """An image of 40 x 60 pixels as 1 x 2 views of 2 x 2 patches: cells of 20 x 15 pixels.

    A star fills the first three columns of the upper row; a word lies low in the last two."""
    objects = [
        thing("star", (0, 0, 45, 18), "blue", "outlined"),
        thing("word", (30, 22, 60, 38), "pink", text="DOG"),
    ]
    return make_dense_targets(objects, (40, 60), (1, 2), 2)


def test_patches_hold_names_of_what_lies_in_them(targets):
    star, word = KIND_NAMES.index("star"), KIND_NAMES.index("word")
    assert targets["kind"].tolist() == [
        [[star, star], [-100, -100]],
        [[star, -100], [word, word]],
    ]
    blue, pink = list(COLORS).index("blue"), list(COLORS).index("pink")
    assert (blue, pink) == (4, 6)
    assert targets["color"][0, 0].tolist() == [4, 4] and targets["color"][1, 1].tolist() == [6, 6]
    assert targets["fill"][0, 0].tolist() == [1, 1] and targets["fill"][1, 1].tolist() == [0, 0]
    assert targets["fill"][0, 1].tolist() == [-100, -100]
    assert targets["kind"].dtype == np.int64 and targets["extent"].dtype == np.float32


def test_edges_are_measured_from_the_patch_centre_in_views_and_cut_at_the_view(targets):
    """The star is 3 x .9 cells; a view is 2 cells wide. Seen from (.5, .5) in the first view:
    left -.5, top -.5, right cut at 2: 1.5, below .9 - .5 = .4; halved. In the second view its
    third column, centre 2.5, has the edges 2 (cut), 0, 3, .9."""
    extent = targets["extent"]
    assert extent[0, 0, 0] == pytest.approx([-0.25, -0.25, 0.75, 0.2])
    assert extent[0, 0, 1] == pytest.approx([-0.75, -0.25, 0.25, 0.2])
    assert extent[1, 0, 0] == pytest.approx([-0.25, -0.25, 0.25, 0.2])
    assert extent[1, 1, 1] == pytest.approx([-0.75, -0.2, 0.25, 0.2])  # the word: 2-4, 1.1-1.9
    assert (extent[0, 1] == -100).all()


def test_letters_are_told_at_a_quarter_and_three_quarters_of_a_patch(targets):
    "DOG over columns 2 to 4: at 2.25, 2.75, 3.25 and 3.75 stand 3/8, 9/8, 15/8, 21/8 letters."
    d, o, g = (LETTERS.index(c) for c in "DOG")
    assert targets["left"][1, 1].tolist() == [d, o] and targets["right"][1, 1].tolist() == [o, g]
    assert targets["left"][0].tolist() == [[-100, -100]] * 2
    assert targets["left"][1, 0].tolist() == [-100, -100]


def test_views_stand_in_raster_order():
    "Four views of one patch each; one thing lies in the upper right, one in the lower left."
    objects = [thing("star", (32, 1, 38, 8)), thing("cup", (1, 12, 15, 19))]
    found = make_dense_targets(objects, (20, 40), (2, 2), 1)
    star, cup = KIND_NAMES.index("star"), KIND_NAMES.index("cup")
    assert found["kind"][:, 0, 0].tolist() == [-100, star, cup, -100]
    nothing = make_dense_targets([], (20, 40), (2, 1), 3)
    assert {k: v.shape for k, v in nothing.items()} == {
        **dict.fromkeys(("kind", "color", "fill", "left", "right"), (2, 3, 3)),
        "extent": (2, 3, 3, 4),
    }
    assert all((v == -100).all() for v in nothing.values())


def test_shapes_are_coverage_in_blocks_of_two_pixels():
    "A patch of 4 has four blocks, row by row."
    covered = np.zeros((4, 8), np.float32)
    covered[0, 4:8] = 1  # the upper half of the second patch's upper blocks
    covered[2:4, 4:6] = 1  # its lower left block
    covered[3, 1] = 1
    found = measure_coverage(covered, 4)
    assert found.shape == (1, 1, 2, 4) and found.dtype == np.float32
    assert found[0, 0].tolist() == [[0, 0, 0.25, 0], [0.5, 0.5, 1, 0]]
    assert measure_coverage(np.eye(4, dtype=bool), 4)[0, 0, 0].tolist() == [0.5, 0, 0, 0.5]


# Views with truth


def test_views_of_a_scene_and_their_truth():
    "Three windows as drawn, the whole scene at half size, and the crop of one thing."
    data = DenseViews(7, seed=50)
    assert (data.view, data.patch, data.windows, data.side, data.split) == (192, 16, 3, 384, None)
    assert len(data) == 7
    for i, split in ((0, "train"), (1, "crowd"), (2, "crowd")):
        image, found, owner = draw_scene(50 + i, (384, 384), split)
        item = data[i]
        pixels, truth = item["global"]
        whole = np.asarray(image.resize((192, 192), resample=3))
        assert np.array_equal(pixels[0], whole)
        objects = [
            replace(
                o,
                box=Box(*(v / 2 for v in o.box.list())),
                letters=o.letters and [(x / 2, y / 2) for x, y in o.letters],
            )
            for _, o in found
        ]
        expected = make_dense_targets(objects, (192, 192), (1, 1), 12)
        for name in ("kind", "color", "fill", "left", "right"):
            assert np.array_equal(truth[name], expected[name])
        assert np.allclose(truth["extent"], expected["extent"], atol=1e-4)
        drawn = (owner >= 0).reshape(12, 32, 12, 32).mean((1, 3))
        assert np.allclose(truth["shape"][0].mean(-1), drawn, atol=1e-5)
        windows, told = item["local"]
        assert windows.shape == (3, 192, 192, 3) and told["kind"].shape == (3, 12, 12)
        places = []
        for k in range(3):
            left, top = where(np.asarray(image), windows[k])
            places.append((left, top))
            part = (owner >= 0)[top : top + 192, left : left + 192]
            assert np.allclose(
                told["shape"][k].mean(-1), part.reshape(12, 16, 12, 16).mean((1, 3)), atol=1e-5
            )
        assert len(set(places)) == 3
        crop, names = item["crop"]
        chosen = found[(50 + i) % len(found)][1]
        assert crop.shape == (1, 192, 192, 3)
        assert names["kind"].tolist() == [KIND_NAMES.index(chosen.name)]
        assert names["color"].tolist() == [list(COLORS).index(chosen.color)]
        assert names["fill"].tolist() == [FILLS.index(chosen.fill)]
        half = 2 / 3 * max(chosen.box.width, chosen.box.height)  # a third of room around it
        x = (chosen.box.x1 + chosen.box.x2) / 2
        y = (chosen.box.y1 + chosen.box.y2) / 2
        area = tuple(min(384, max(0, v)) for v in (x - half, y - half, x + half, y + half))
        again = np.asarray(image.resize((192, 192), resample=3, box=area))
        assert np.abs(again.astype(int) - crop[0]).max() <= 2
    one = DenseViews(3, 50, windows=1, split="val")[1]
    assert len(one["local"][0]) == 1
    image, *_ = draw_scene(51, (384, 384), "val")  # all scenes are of the split that was asked for
    assert np.array_equal(one["global"][0][0], np.asarray(image.resize((192, 192), resample=3)))
    small = DenseViews(1, 50, view=96, patch=8, side=192)[0]["global"][1]
    assert small["shape"].shape == (1, 12, 12, 16)


def test_a_crop_at_the_border_is_cut_there():
    "What lies beyond the image is not shown: the crop is stretched."
    data = DenseViews(20, seed=70, view=64, windows=1, side=128)
    cut = 0
    for i in range(20):
        image, found, _ = draw_scene(70 + i, (128, 128), "crowd" if i % 3 else "train")
        box = found[(70 + i) % len(found)][1].box
        half = 2 / 3 * max(box.width, box.height)
        x, y = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
        area = np.array([x - half, y - half, x + half, y + half])
        cut += bool((area < 0).any() or (area > 128).any())
        again = np.asarray(image.resize((64, 64), resample=3, box=tuple(np.clip(area, 0, 128))))
        assert np.abs(again.astype(int) - data[i]["crop"][0][0]).max() <= 2
    assert cut >= 3


def where(image, window):
    "Left and top of the place of the image where a window was cut out."
    h, w = window.shape[:2]
    row = window[h // 2]
    for top in range(image.shape[0] - h + 1):
        for left in np.flatnonzero(
            (image[top + h // 2, : image.shape[1] - w + 1] == row[0]).all(1)
        ):
            if np.array_equal(image[top : top + h, left : left + w], window):
                return int(left), top
    raise AssertionError("the window is no part of the image")


def test_the_truth_of_a_window_is_that_of_its_place():
    "Kinds of the patches of a window are those of things that lie there, and edges lead to them."
    data = DenseViews(2, seed=50)
    image, found, _ = draw_scene(51, (384, 384), "crowd")
    windows, told = data[1]["local"]
    checked = 0
    for k in range(3):
        left, top = where(np.asarray(image), windows[k])
        for y, x in np.argwhere(told["kind"][k] >= 0).tolist():
            centre = np.array([left + 16 * x + 8, top + 16 * y + 8] * 2)
            edges = told["extent"][k, y, x] * 192 + centre
            name, color = KIND_NAMES[told["kind"][k, y, x]], list(COLORS)[told["color"][k, y, x]]
            near = []
            for _, o in found:
                cut = np.clip(o.box.list(), [left, top] * 2, [left + 192, top + 192] * 2)
                near.append((np.abs(cut - edges).max(), o))
            far, o = min(near, key=lambda pair: pair[0])
            assert far < 1e-3 and (o.name, o.color) == (name, color)
            checked += 1
    assert checked > 100


def test_the_second_edition_deals_ten_items_of_the_wide_world():
    """Item 3 is an enlarged window of a wide scene, item 6 a word that fills one view, item 8 a
    crowd of the first edition, the others wide scenes as drawn."""
    data = DenseViews(10, seed=90, view=64, side=128, split="wide")
    items = [data[i] for i in range(10)]
    assert [len(item["local"][0]) for item in items] == [3] * 10
    data = DenseViews(10, seed=90, split="wide")
    pixels, truth = data[6]["local"]
    image, found, _ = draw_scene(96, (384, 384), "word")
    assert pixels.shape == (1, 192, 192, 3) and np.array_equal(pixels[0], np.asarray(image))
    assert np.array_equal(data[6]["global"][0][0], pixels[0])
    word = next(o.text for _, o in found if o.text)
    shown = {LETTERS[k] for k in np.unique(truth["left"][truth["left"] >= 0]) if k < 26}
    assert shown <= set(word) and len(shown) >= len(set(word)) - 1
    for i, split in ((0, "wide-crowd"), (1, "wide"), (8, "crowd")):
        image = draw_scene(90 + i, (384, 384), split)[0]
        whole = np.asarray(image.resize((192, 192), resample=3))
        assert np.array_equal(data[i]["global"][0][0], whole)
    wide = draw_scene(93, (384, 384), "wide")[0]
    assert not np.array_equal(
        data[3]["global"][0][0], np.asarray(wide.resize((192, 192), resample=3))
    )


def test_a_scene_without_objects_is_passed_over(monkeypatch):
    drawn = []

    def draw(seed, size, split):
        drawn.append(seed)
        image, found, owner = draw_scene(seed, size, split)
        return (image, [], owner) if seed == 51 else (image, found, owner)

    monkeypatch.setattr(probes, "draw_scene", draw)
    item = DenseViews(2, 50, view=64, side=128)[1]
    assert drawn == [51, 61] and (item["global"][1]["kind"] >= 0).any()


def test_views_are_collated_side_by_side():
    data = DenseViews(2, seed=50, windows=2)
    items = [data[0], data[1]]
    found = collate_sides(items)
    assert set(found) == {"global", "local", "crop"}
    assert [found[s][0].shape[0] for s in ("global", "local", "crop")] == [2, 4, 2]
    pixels, truth = collate_views(items)
    assert torch.equal(pixels, found["local"][0]) and pixels.dtype == torch.float32
    assert pixels[3, 2, 5, 9].item() == pytest.approx(items[1]["local"][0][1, 5, 9, 2] / 255)
    assert torch.equal(truth["kind"][2:], torch.from_numpy(items[1]["local"][1]["kind"]))


# Losses


def test_heads_read_a_normalised_map_once_per_question():
    torch.manual_seed(0)
    head = DenseHead(6, 4)
    maps = torch.randn(2, 3, 5, 6) * 7
    out = head(maps)
    sizes = {**HEAD_SIZES, "object": 1, "shape": 4}
    assert {k: v.shape[-1] for k, v in out.items()} == sizes
    plain = F.layer_norm(maps, (6,))
    for name, layer in head.read.items():
        assert torch.allclose(out[name], plain @ layer.weight.T + layer.bias, atol=1e-5)
    assert DenseHead(6).read["shape"].out_features == 64


def answers_and_targets():
    "Two patches: one holds a thing with letters on its left half only, one is empty."
    torch.manual_seed(4)
    sizes = {**HEAD_SIZES, "object": 1, "shape": 4}
    answers = {n: torch.randn(1, 1, 2, k) for n, k in sizes.items()}
    targets = {
        "kind": torch.tensor([[[7, -100]]]),
        "color": torch.tensor([[[3, -100]]]),
        "fill": torch.tensor([[[1, -100]]]),
        "left": torch.tensor([[[5, -100]]]),
        "right": torch.tensor([[[-100, -100]]]),
        "extent": torch.tensor([[[[-0.1, -0.2, 0.3, 0.1], [-100.0] * 4]]]),
        "shape": torch.rand(1, 1, 2, 4),
    }
    return answers, targets


def test_the_dense_loss_in_numbers():
    """10 · shape + .5 · object + kind + .7 · colour + .4 · fill + .3 · letters, and twice the error
    of each edge as a share of the thing's side (.4 wide, .3 high) and .03."""
    answers, targets = answers_and_targets()

    def binary(logits, truth):
        logits, truth = logits.numpy(), truth.numpy()
        return np.mean(np.log1p(np.exp(logits)) - truth * logits)

    def cross(name, answer):
        logits = answers[name][0, 0, 0].numpy()
        return np.log(np.exp(logits).sum()) - logits[answer]

    loss, right = dense_loss(answers, targets)
    expected = 10 * binary(answers["shape"], targets["shape"])
    expected += 0.5 * binary(answers["object"][..., 0], torch.tensor([[[1.0, 0.0]]]))
    expected += cross("kind", 7) + 0.7 * cross("color", 3) + 0.4 * cross("fill", 1)
    expected += 0.3 * cross("left", 5)
    told = answers["extent"][0, 0, 0].numpy()
    error = np.abs(told - [-0.1, -0.2, 0.3, 0.1])
    expected += 2 * np.mean(error / np.array([0.43, 0.33, 0.43, 0.33]))
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert set(right) == {"kind", "color", "fill", "left", "extent"}
    assert right["extent"] == pytest.approx(error.mean(), rel=1e-4)
    right_letters = {**targets, "right": torch.tensor([[[4, -100]]])}
    more, _ = dense_loss(answers, right_letters)
    assert (more - loss).item() == pytest.approx(0.3 * cross("right", 4), rel=1e-3)


def test_shares_right_count_patches_that_hold_something():
    "Of three patches with things two kinds are right; the empty one does not count."
    answers, targets = answers_and_targets()
    answers = {n: a.expand(1, 2, 2, -1).clone() for n, a in answers.items()}
    targets = {n: t.expand(1, 2, 2, *t.shape[3:]).clone() for n, t in targets.items()}
    targets["kind"] = torch.tensor([[[7, 9], [11, -100]]])
    answers["kind"] = F.one_hot(torch.tensor([[[7, 9], [12, 3]]]), 41).float()
    targets["extent"] = torch.zeros(1, 2, 2, 4)
    _, right = dense_loss(answers, targets)
    assert right["kind"] == pytest.approx(2 / 3)


def test_without_things_only_emptiness_and_shape_are_asked():
    answers, targets = answers_and_targets()
    empty = {n: torch.full_like(t, -100) for n, t in targets.items()}
    empty["shape"] = torch.zeros(1, 1, 2, 4)
    loss, right = dense_loss(answers, empty)
    shape, held = answers["shape"].numpy(), answers["object"].numpy()
    expected = 10 * np.log1p(np.exp(shape)).mean() + 0.5 * np.log1p(np.exp(held)).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-4) and right == {}


# Towers


@pytest.fixture
def towers():
    torch.manual_seed(0)
    return DenseTowers(32, 64, 16).eval()


def test_both_towers_are_of_the_documented_kind_and_size():
    model = DenseTowers()
    assert model["global"].config.model_type == "clip_vision_model"
    assert model["local"].config.model_type == "dinov2"
    for side in ("global", "local"):
        config = model[side].config
        assert (config.hidden_size, config.image_size, config.patch_size) == (160, 192, 16)
        assert model[side + "_head"].read["shape"].out_features == 64
    sizes = {n: layer.out_features for n, layer in model["crop_head"].items()}
    assert sizes == dict(kind=41, color=8, fill=2)


def test_each_tower_answers_for_its_own_views(towers):
    data = DenseViews(2, 60, view=64, patch=16, windows=1, side=128)
    batch = collate_sides([data[0], data[1]])
    mean = dict(
        zip(
            ("global", "local"),
            (
                ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
                ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ),
        )
    )
    with torch.no_grad():
        found = towers.compute_losses(batch)
        assert set(found) == {"global", "local", "crop"}
        for side in ("global", "local"):
            middle, spread = (torch.tensor(v)[:, None, None] for v in mean[side])
            pixels, truth = batch[side]
            maps = compute_tower_map(towers[side], (pixels - middle) / spread)
            expected = dense_loss(towers[side + "_head"](maps), truth)
            assert found[side][0].item() == pytest.approx(expected[0].item(), rel=1e-4)
        pixels, truth = batch["crop"]
        middle, spread = (torch.tensor(v)[:, None, None] for v in mean["global"])
        token = towers["global"]((pixels - middle) / spread).pooler_output
        loss = sum(F.cross_entropy(towers["crop_head"][n](token), truth[n]) for n in truth)
        assert found["crop"][0].item() == pytest.approx(loss.item(), rel=1e-4)
        for n in truth:
            share = (towers["crop_head"][n](token).argmax(1) == truth[n]).float().mean().item()
            assert found["crop"][1][n] == pytest.approx(share)
        assert set(towers.compute_losses(batch, ("local",))) == {"local"}
        assert set(towers.compute_losses({"global": batch["global"]}, ("global",))) == {"global"}


def test_scores_are_asked_of_scenes_that_training_does_not_show(monkeypatch, towers):
    made = []

    class Views:
        def __init__(self, n, seed, windows, split):
            made.append((n, seed, windows, split))

        def __getitem__(self, i):
            return i

    monkeypatch.setattr(probes, "DenseViews", Views)
    monkeypatch.setattr(probes, "collate_sides", lambda items: items)
    monkeypatch.setattr(
        towers, "compute_losses", lambda batch: dict(a=(1.0, dict(kind=len(batch)))), raising=False
    )
    towers.train()
    assert score_towers(towers) == dict(a=dict(kind=256)) and made == [(256, 10**6, 1, None)]
    score_towers(towers, 96, "dark")
    assert made[1] == (96, 10**6, 1, "dark")
    assert not towers.training


def test_towers_are_written_in_half_precision_with_their_record(monkeypatch, towers, tmp_path):
    from safetensors.torch import load_file

    def score(model, n=256, split=None):
        return dict(local=dict(kind=0.1 if split == "dark" else 0.5))

    monkeypatch.setattr(probes, "score_towers", score)
    before = towers["local"].state_dict()["layernorm.weight"].clone()
    assert save_towers(towers, tmp_path, dict(legs=[1])) == dict(local=dict(kind=0.5))
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["legs"], record["scores"]) == ([1], dict(local=dict(kind=0.5)))
    kinds = {split: found["local"]["kind"] for split, found in record["scores_by_split"].items()}
    assert kinds == {"val": 0.5, "wide-val": 0.5, "dark": 0.1, "coloured": 0.5, "word": 0.5}
    for side in ("global", "local"):
        stored = load_file(tmp_path / side / "model.safetensors")
        assert {v.dtype for v in stored.values()} == {torch.float16}
    assert torch.equal(towers["local"].state_dict()["layernorm.weight"], before)
    assert {p.dtype for p in towers.parameters()} == {torch.float32}  # the model itself stays


@pytest.fixture
def loops(monkeypatch):
    "Each training of towers, noted instead of done."
    seen = []
    monkeypatch.setattr(probes, "DenseTowers", lambda: DenseTowers(32, 64, 16))
    monkeypatch.setattr(probes, "score_towers", lambda model, n=256, split=None: {})

    def loop(model, loss_of, batches, out, steps, minutes, lr, resume, settings):
        loader = batches(3)
        model.eval()
        monkeypatch.setattr(
            model,
            "compute_losses",
            lambda batch, sides: {s: (torch.tensor(float(len(s))), {}) for s in sides},
            raising=False,
        )
        seen.append(
            dict(
                steps=steps,
                minutes=minutes,
                lr=lr,
                resume=resume,
                first=loader.dataset.indices[0],
                seed=loader.dataset.dataset.seed,
                split=loader.dataset.dataset.split,
                size=loader.batch_size,
                loss=float(loss_of(None)),
                free={n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad},
            )
        )
        torch.save(dict(model=model.state_dict()), out / "state.pt")
        return [(2, 4.0), (4, 3.0)]

    monkeypatch.setattr(probes, "run_training_loop", loop)
    return seen


def test_towers_are_taught_from_scenes_that_belong_to_the_seed(loops, tmp_path):
    "23 samples in batches of 5 are four steps; scenes of seed 2 begin at 30 million."
    (tmp_path / "a").mkdir()
    pretrain_towers(tmp_path / "a", samples=23, seed=2)
    (made,) = loops
    assert (made["steps"], made["minutes"], made["lr"], made["resume"]) == (4, None, 2e-3, False)
    assert (made["first"], made["seed"], made["size"]) == (15, 30_000_000, 5)
    assert made["split"] == "wide"
    assert made["loss"] == 5.5  # the mean over sides: "global" has six letters, "local" five
    assert made["free"] == {"global", "local", "global_head", "local_head", "crop_head"}
    run = json.loads((tmp_path / "a" / "run.json").read_text())
    assert run["legs"] == [
        dict(sides=["global", "local"], seed=2, steps=4, scenes=5, lr=2e-3, split="wide")
    ] and run["log"] == [[2, 4.0], [4, 3.0]]


def test_a_second_leg_goes_on_from_the_first(loops, tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    pretrain_towers(tmp_path / "a", samples=20)
    options = dict(samples=2, seed=1, sides=("local",), start=tmp_path / "a", lr=0.5)
    pretrain_towers(tmp_path / "b", **options)
    run = json.loads((tmp_path / "b" / "run.json").read_text())
    assert [leg["steps"] for leg in run["legs"]] == [4, 4] and run["legs"][1]["sides"] == ["local"]
    assert run["log"] == [[2, 4.0], [4, 3.0], [6, 4.0], [8, 3.0]]
    assert loops[1]["free"] == {"local", "local_head", "crop_head"}
    assert (loops[1]["steps"], loops[1]["loss"], loops[1]["lr"]) == (1, 5.0, 0.5)
    one, two = (torch.load(tmp_path / n / "state.pt", weights_only=True)["model"] for n in "ab")
    assert all(torch.equal(one[k], two[k]) for k in one)
    pretrain_towers(tmp_path / "c", minutes=3.0, seed=1, resume=True)
    other = torch.load(tmp_path / "c" / "state.pt", weights_only=True)["model"]
    assert not all(torch.equal(one[k], other[k]) for k in one)
    assert (loops[2]["steps"], loops[2]["minutes"], loops[2]["resume"]) == (None, 3.0, True)


def test_towers_without_a_state_are_loaded_and_their_heads_begin_anew(loops, towers, tmp_path):
    "Shipped towers carry no `state.pt`: weights are those of the folders, the record goes on."
    save_towers(towers, tmp_path / "old", dict(legs=[dict(seed=0, steps=9)], log=[[9, 2.0]]))
    (tmp_path / "new").mkdir()
    options = dict(samples=10, seed=1, split=None)
    pretrain_towers(tmp_path / "new", start=tmp_path / "old", **options)
    state = torch.load(tmp_path / "new" / "state.pt", weights_only=True)["model"]
    old = towers.state_dict()
    moved = {k for k in old if not torch.allclose(old[k], state[k], atol=1e-3)}
    assert moved and all("head" in k for k in moved)
    run = json.loads((tmp_path / "new" / "run.json").read_text())
    assert [leg["steps"] for leg in run["legs"]] == [9, 4] and run["log"][0] == [9, 2.0]
    assert loops[0]["split"] is None
    with pytest.raises(
        InputError, match="start: found .*, expected the folder of a run, with its run.json"
    ):
        load_dense_towers(tmp_path / "nowhere", towers)
