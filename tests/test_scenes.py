"""Scenes: the glyphs, how they are drawn and placed, and snapshots of whole scenes.

`pytest tests/test_scenes.py --update-golden` writes the snapshots anew."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from ferretlite.regions.geometry import Box, Mask
from ferretlite.scenes.world import (
    COLORS,
    FILLS,
    KINDS,
    LETTERS,
    NOVEL_KINDS,
    OBJECT_SIDES,
    PRACTICE_KINDS,
    SPLITS,
    Phrase,
    Scene,
    SceneObject,
    add_article,
    draw_scene,
    export_coco,
    is_held_out,
    make_example,
    make_glyph_outline,
    make_scene,
    render_alpha,
    sort_in_raster_order,
    write_caption,
)

GOLDEN = Path(__file__).parent / "golden" / "scenes.json"
OLD_SPLITS = SPLITS[:9]  # of the first edition; tests/test_wide_scenes.py tests the others

CHARACTERS = {
    **{f"dice {i}": f"DIE FACE-{i}" for i in range(1, 7)},
    **{
        n: f"BLACK CHESS {n.upper()}" for n in ("king", "queen", "rook", "bishop", "knight", "pawn")
    },
    **{n: f"BLACK {n.upper()} SUIT" for n in ("spade", "heart", "diamond", "club")},
    "umbrella": "UMBRELLA",
    "snowman": "SNOWMAN",
    "star": "BLACK STAR",
    "sun": "BLACK SUN WITH RAYS",
    "cloud": "CLOUD",
    "telephone": "BLACK TELEPHONE",
    "airplane": "AIRPLANE",
    "anchor": "ANCHOR",
    "gear": "GEAR",
    "envelope": "ENVELOPE",
    "scissors": "BLACK SCISSORS",
    "snowflake": "SNOWFLAKE",
    "flag": "BLACK FLAG",
    "cup": "HOT BEVERAGE",
    "moon": "LAST QUARTER MOON",
    "note": "BEAMED EIGHTH NOTES",
    "hand": "BLACK RIGHT POINTING INDEX",
    "house": "HOUSE",
    "keyboard": "KEYBOARD",
    "arrow": "BLACK RIGHTWARDS ARROW",
    "mouse": "MOUSE FACE",
    "cat": "CAT FACE",
    "monkey": "MONKEY FACE",
    "smiley": "BLACK SMILING FACE",
}


# -- constants


def test_kinds_are_the_characters_they_are_named_after_in_this_order():
    found = [(name, unicodedata.name(character)) for name, character in KINDS.items()]
    assert found == list(CHARACTERS.items())


def test_kinds_without_names_are_numbered_from_zero_and_differ_from_all_others():
    assert (len(KINDS), len(NOVEL_KINDS), len(PRACTICE_KINDS)) == (40, 50, 90)
    assert len({*KINDS.values(), *NOVEL_KINDS.values(), *PRACTICE_KINDS.values()}) == 180
    assert list(NOVEL_KINDS)[::49] == ["novel 0", "novel 49"]
    assert list(PRACTICE_KINDS)[::89] == ["practice 0", "practice 89"]
    novel = [unicodedata.name(NOVEL_KINDS[f"novel {i}"]) for i in (0, 7, 12, 49)]
    assert novel == ["ARIES", "SCORPIUS", "MERCURY", "TRIPLE TILDE"]
    practice = [unicodedata.name(PRACTICE_KINDS[f"practice {i}"]) for i in (0, 10, 89)]
    assert practice == [
        "CYRILLIC CAPITAL LETTER BE",
        "GREEK CAPITAL LETTER GAMMA",
        "TURNED AMPERSAND",
    ]


def test_colours_fills_letters_splits_and_sides():
    assert COLORS == {
        "red": (214, 40, 40),
        "orange": (240, 130, 20),
        "yellow": (232, 200, 10),
        "green": (40, 150, 60),
        "blue": (35, 90, 215),
        "purple": (125, 50, 170),
        "pink": (240, 120, 180),
        "black": (25, 25, 25),
    }
    assert list(COLORS) == "red orange yellow green blue purple pink black".split()
    assert FILLS == ("filled", "outlined")
    assert LETTERS == "".join(chr(65 + i) for i in range(26))
    assert OLD_SPLITS == tuple("train val test unseen count large crowd novel practice".split())
    assert OBJECT_SIDES == dict(
        large=(1 / 6, 1 / 3), crowd=(1 / 32, 1 / 4), novel=(1 / 12, 1 / 4), practice=(1 / 16, 1 / 4)
    )


def test_one_pair_in_ten_is_held_out_by_kind_and_colour():
    # 3 * kind + colour is a multiple of ten: king is kind 6 and yellow colour 2, 18 + 2 = 20
    assert is_held_out("dice 1", "red") and is_held_out("king", "yellow")
    assert not is_held_out("king", "red") and not is_held_out("king", "green")
    # dice 2 is kind 1 and black colour 7, 3 + 7 = 10; dice 3: 6 + 4 (blue)
    assert (
        is_held_out("dice 2", "black")
        and is_held_out("dice 3", "blue")
        and not is_held_out("dice 3", "green")
    )
    assert sum(is_held_out(k, c) for k in KINDS for c in COLORS) == 32
    assert not any(
        is_held_out(k, c) for k in (*NOVEL_KINDS, *PRACTICE_KINDS, "word") for c in COLORS
    )


# -- drawing


def test_an_outline_is_centred_one_long_and_its_y_runs_down():
    for character in "LTI7":
        points = make_glyph_outline(character).vertices
        assert (points.min(0) + points.max(0)).tolist() == pytest.approx([0, 0], abs=1e-9)
        assert (points.max(0) - points.min(0)).max() == pytest.approx(1)
    low = make_glyph_outline("L").vertices  # its foot is at the bottom and reaches to the right
    assert low[low[:, 0] > 0.2][:, 1].min() > 0.3
    top = make_glyph_outline("7").vertices  # its bar is at the top, its leg ends left of the middle
    assert top[top[:, 1] > 0.4][:, 0].max() < 0.1
    letter = make_glyph_outline(
        "I"
    ).vertices  # keeps its shape: ten times as high as the stroke is wide or so
    assert 0.2 < (letter.max(0) - letter.min(0))[0] < 0.3


def test_bold_is_another_outline_and_not_the_default():
    def width(*bold):
        points = make_glyph_outline("I", *bold).vertices
        return (points.max(0) - points.min(0))[0]

    assert width() == width(False) < 0.8 * width(True)


def rectangle(width, height):
    x, y = width / 2, height / 2
    return Outline(np.array([[-x, -y], [x, -y], [x, y], [-x, y], [-x, -y]]), [1, 2, 2, 2, 79])


def test_a_rectangle_covers_its_pixels_and_no_others():
    alpha, top, left = render_alpha(rectangle(6, 4), "filled", 10, 7, (20, 30))
    canvas = np.zeros((20, 30))
    canvas[top : top + alpha.shape[0], left : left + alpha.shape[1]] = alpha
    wanted = np.zeros((20, 30))
    wanted[5:9, 7:13] = 1  # 10 - 3 to 10 + 3, 7 - 2 to 7 + 2
    assert np.array_equal(canvas, wanted)
    assert alpha.shape == (6, 8) and (top, left) == (4, 6) and alpha.dtype == np.float32


@pytest.mark.parametrize(
    "x, y, rows, columns",
    [
        (1, 1, (0, 3), (0, 4)),
        (29, 19, (17, 20), (26, 30)),
        (1, 19, (17, 20), (0, 4)),
        (29, 1, (0, 3), (26, 30)),
    ],
)
def test_what_lies_outside_the_image_is_cut_off(x, y, rows, columns):
    alpha, top, left = render_alpha(rectangle(6, 4), "filled", x, y, (20, 30))
    canvas = np.zeros((20, 30))
    canvas[top : top + alpha.shape[0], left : left + alpha.shape[1]] += alpha
    wanted = np.zeros((20, 30))
    wanted[slice(*rows), slice(*columns)] = 1
    assert np.array_equal(canvas, wanted)


@pytest.mark.parametrize("x, y", [(50, 5), (-20, 5), (5, 50), (5, -20)])
def test_a_centre_far_outside_gives_an_empty_window(x, y):
    assert render_alpha(rectangle(6, 4), "filled", x, y, (20, 30))[0].size == 0


def test_a_triangle_covers_its_area_around_its_centre_the_right_way_up():
    triangle = Outline(
        np.array([[0.0, -6], [9, 3], [-9, 3], [0, -6]]), [1, 2, 2, 79]
    )  # centroid (0, 0), area 81
    alpha, top, left = render_alpha(triangle, "filled", 20.3, 12.7, (30, 50))
    y, x = np.mgrid[: alpha.shape[0], : alpha.shape[1]] + 0.5
    assert alpha.sum() == pytest.approx(81, abs=0.7)
    centre = ((x * alpha).sum() / alpha.sum() + left, (y * alpha).sum() / alpha.sum() + top)
    assert centre == pytest.approx((20.3, 12.7), abs=0.1)
    assert alpha[-4].sum() > 2 * alpha[4].sum()


def test_outlines_are_as_thick_as_documented():
    alpha, top, left = render_alpha(rectangle(60, 32), "outlined", 50, 40, (80, 100))
    assert alpha[40 - top].sum() == pytest.approx(
        2 * 0.045 * 60, abs=0.1
    )  # two lines, each .045 of the longer side
    assert alpha[:, 50 - left].sum() == pytest.approx(2 * 0.045 * 60, abs=0.1)
    assert alpha[40 - top, 50 - left] == 0
    alpha, top, left = render_alpha(rectangle(12, 6), "outlined", 10, 7, (20, 30))
    assert alpha[7 - top].sum() == pytest.approx(2, abs=0.1)  # never thinner than one pixel


# -- words about objects


def thing(x1, y1, x2, y2, **given):
    return SceneObject(given.pop("name", "star"), Box(x1, y1, x2, y2), **given)


def test_what_an_object_is_called():
    assert thing(0, 0, 1, 2, color="red", fill="outlined").phrase == "outlined red star"
    assert thing(0, 0, 1, 2, name="cat").phrase == "cat"
    assert (
        thing(0, 0, 1, 2, name="word", color="blue", fill="filled", text="CAB").phrase
        == "filled blue word"
    )
    assert thing(0, 0, 1, 2).mask is None


def test_a_scene_begins_empty_and_a_phrase_has_a_first_box():
    scene = Scene("a.png", (3, 4))
    assert (scene.objects, scene.phrases, scene.id, scene.split, scene.partial) == (
        [],
        [],
        "",
        "train",
        (),
    )
    assert scene.caption is scene.seed is scene.names is None
    one, two = Box(1, 2, 3, 4), Box(0, 0, 1, 1)
    assert Phrase("a cat", [one, two]).box == one
    assert Phrase("a cat", []).mask is Phrase("a cat", []).span is None


def test_raster_order_is_by_top_then_left_then_bottom_then_right():
    wanted = [(9, 1, 10, 5), (2, 3, 8, 9), (4, 3, 9, 5), (4, 3, 5, 7), (4, 3, 6, 7), (1, 8, 2, 9)]
    objects = [thing(*box) for box in wanted]
    for shift in range(6):
        assert sort_in_raster_order(objects[shift:] + objects[:shift]) == objects


def test_articles_and_captions():
    assert [
        add_article(w) for w in ("outlined star", "red star", "umbrella", "ice", "egg", "apple")
    ] == [
        "an outlined star",
        "a red star",
        "an umbrella",
        "an ice",
        "an egg",
        "an apple",
    ]
    red, cup = (
        thing(5, 9, 8, 12, color="red", fill="filled"),
        thing(3, 2, 4, 5, name="cup", fill="outlined", color="blue"),
    )
    assert write_caption([]) == "An empty scene."
    assert write_caption([red]) == "A filled red star."
    assert write_caption([red, cup]) == "An outlined blue cup and a filled red star."
    assert (
        write_caption([red, thing(0, 0, 1, 1, name="cat"), cup])
        == "A cat, an outlined blue cup and a filled red star."
    )


# -- scenes


def test_no_two_splits_and_seeds_share_a_scene():
    """The dice of (split, seed) must not be those of (split + 1, seed - 1), or of a seed that is
    as large as a split.
    """
    pictures = [
        make_scene(seed, (24, 40), split).image.tobytes()
        for split in OLD_SPLITS
        if split != "crowd"
        for seed in range(9)
    ]
    assert len(set(pictures)) == len(pictures) == 72


def test_boxes_are_tight_masks_are_disjoint_and_nothing_is_mostly_hidden():
    for split in ("train", "test", "crowd", "large"):
        scene = make_scene(14, (96, 144), split)
        masks = np.stack([o.mask.to_mask(96, 144) for o in scene.objects])
        assert masks.sum(0).max() == 1
        for o, mask in zip(scene.objects, masks):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert o.box == Box(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            assert mask.sum() >= 3
        assert scene.size == (96, 144) and scene.image.size == (144, 96)
        assert (scene.id, scene.seed, scene.split) == (f"{split}-14", 14, split)
        assert scene.caption == write_caption(scene.objects)


def test_mostly_hidden_objects_are_not_listed_and_own_fewer_than_two_fifths_of_their_pixels():
    _, listed, owner = draw_scene(14, (96, 144), "train")
    assert [n for n, _ in listed] == [0, 1, 2, 3, 4, 5, 7]  # number 6 lies under number 7
    assert owner.dtype == np.int16 and owner.min() == -1 and owner.max() == 7
    assert 0 < (owner == 6).sum() < 20
    assert all(o.mask is None for _, o in listed)
    _, listed, owner = draw_scene(
        81, (96, 144), "train"
    )  # one of its objects keeps 55 % of its pixels
    assert [n for n, _ in listed] == sorted(set(owner.flat) - {-1})


@pytest.mark.parametrize(
    "split, low, high",
    [
        ("large", 1 / 6, 1 / 3),
        ("novel", 1 / 12, 1 / 4),
        ("practice", 1 / 16, 1 / 4),
        ("count", 1 / 14, 1 / 5),
    ],
)
def test_longer_sides_stay_within_those_of_the_split(split, low, high):
    sides = []
    for seed in range(12):
        scene = make_scene(seed, (120, 180), split)
        sides += [max(o.box.width, o.box.height) / 120 for o in scene.objects if not o.text]
    # the smallest and the largest are found near their bounds, give or take two pixels and an
    # outline's line
    assert low - 3 / 120 < np.quantile(sides, 0.03) and max(sides) < 1.05 * high + 2 / 120
    assert max(sides) > 0.85 * high


def test_count_scenes_hold_one_to_ten_of_a_kind_and_unseen_scenes_held_out_pairs():
    numbers = []
    for seed in range(40):
        names = [o.name for o in make_scene(seed, 96, "count").objects]
        numbers.append(max(names.count(n) for n in names))
    assert {1, 2, 3, 5, 8, 9, 10} <= set(numbers) and max(numbers) == 10
    for split in ("train", "val", "test", "count", "large", "crowd", "novel", "practice", "unseen"):
        pairs = [
            (o.name, o.color)
            for s in range(1 if split == "crowd" else 3)
            for o in make_scene(s, 64, split).objects
        ]
        assert any(is_held_out(*p) for p in pairs) == (split == "unseen")


def test_words_have_three_or_four_capital_letters():
    words = [o for s in range(2) for o in make_scene(s, 96, "crowd").objects if o.name == "word"]
    assert {len(o.text) for o in words} == {3, 4} and len(words) > 8
    assert all(
        set(o.text) <= set(LETTERS) and o.fill == "filled" and o.color in COLORS for o in words
    )


def test_a_scene_is_384_wide_and_of_training_unless_told():
    scene = make_scene(1)
    assert scene.size == (384, 384) and scene.split == "train"
    with pytest.raises(ValueError, match="split: found 'dev'"):
        make_scene(0, 64, "dev")


# -- snapshots


def colour(pixels):
    return [round(float(v), 1) for v in pixels.reshape(-1, 3).mean(0)]


def snapshot(seed, size, split):
    scene = make_scene(seed, size, split)
    image = np.asarray(scene.image).astype(float)
    h, w = scene.size
    shown = np.zeros((h, w), bool)
    objects = []
    for o in scene.objects:
        mask = o.mask.to_mask(h, w)
        shown |= mask
        objects.append(
            [o.name, o.color, o.fill, o.text, o.box.list(), o.mask.area, colour(image[mask])]
        )
    quarters = [
        colour(image[y : y + h // 2, x : x + w // 2]) for y in (0, h // 2) for x in (0, w // 2)
    ]
    spread = round(float(image[~shown].std()), 2)
    return dict(
        seed=seed, size=list(size), split=split, objects=objects, quarters=quarters, spread=spread
    )


def example(kind, seed, *given):
    image = np.asarray(make_example(kind, seed, *given)).astype(float)
    n = len(image) // 3
    ninths = [colour(image[y : y + n, x : x + n]) for y in (0, n, 2 * n) for x in (0, n, 2 * n)]
    return dict(given=[kind, seed, *given], ninths=ninths)


def write():
    taken = [(s, (72, 108), "train") for s in range(14)] + [
        (s, (108, 72), split) for split in OLD_SPLITS[1:] if split != "crowd" for s in range(2)
    ]
    taken += [(0, (90, 120), "crowd"), *((s, (60, 90), "count") for s in range(2, 9))]
    shown = [("star", 0), ("star", 1), ("dice 4", 0), ("novel 7", 3), ("practice 7", 3)]
    shown += [
        ("umbrella", 5, 60),
        ("cup", 2, 48, "red"),
        ("cup", 2, 48, None, "outlined"),
        ("cup", 2, 48, "blue", "filled"),
    ]
    scenes, examples = [snapshot(*s) for s in taken], [example(*s) for s in shown]
    lines = ",\n".join(json.dumps(s) for s in scenes), ",\n".join(json.dumps(s) for s in examples)
    GOLDEN.write_text('{{"scenes": [\n{}\n], "examples": [\n{}\n]}}\n'.format(*lines))


@pytest.mark.parametrize("split", OLD_SPLITS)
def test_scenes_are_what_they_always_were(split):
    """Shipped weights and recorded scores belong to these scenes."""
    for wanted in json.loads(GOLDEN.read_text())["scenes"]:
        if wanted["split"] != split:
            continue
        found = snapshot(wanted["seed"], tuple(wanted["size"]), split)
        assert [o[:4] for o in found["objects"]] == [o[:4] for o in wanted["objects"]]
        for one, two in zip(found["objects"], wanted["objects"]):
            assert one[4] == pytest.approx(two[4], abs=1), one[0]
            assert one[5] == pytest.approx(two[5], rel=0.03, abs=2), one[0]
            assert one[6] == pytest.approx(two[6], abs=1.5), one[0]
        assert np.array(found["quarters"]) == pytest.approx(np.array(wanted["quarters"]), abs=0.3)
        assert found["spread"] == pytest.approx(wanted["spread"], abs=0.1)


def test_examples_are_what_they_always_were(request):
    if request.config.getoption("--update-golden"):
        write()
    for wanted in json.loads(GOLDEN.read_text())["examples"]:
        found = example(*wanted["given"])
        assert np.array(found["ninths"]) == pytest.approx(np.array(wanted["ninths"]), abs=0.5)


def test_an_example_is_96_wide_filled_by_its_thing_and_takes_colour_and_fill():
    assert make_example("star", 1).size == (96, 96)
    plain, red = (
        np.asarray(make_example("spade", 4, 90, c, "filled")).astype(int) for c in ("blue", "red")
    )
    changed = np.argwhere(np.abs(plain - red).sum(2) > 60)
    extent = (changed.max(0) - changed.min(0) + 1).max() / 90
    assert 0.68 < extent < 0.97  # between .7 and .95 of the side
    assert (changed.max(0) + changed.min(0) + 1) / 2 == pytest.approx([45, 45], abs=3)
    assert red[45, 45].tolist() == pytest.approx(COLORS["red"], abs=1)
    for kind in ("word", "teapot"):
        with pytest.raises(ValueError, match="kind: found"):
            make_example(kind, 0)


# -- COCO


def test_exported_annotations_are_cocos(tmp_path):
    masks = pytest.importorskip("pycocotools.mask")
    scenes = [make_scene(3, (60, 90), "novel"), make_scene(5, (90, 60), "test")]
    path = export_coco(iter(scenes), tmp_path)
    data = json.loads(path.read_text())
    assert path == tmp_path / "annotations.json" and not list(tmp_path.glob("*.part"))
    assert [(r["id"], r["file_name"], r["height"], r["width"]) for r in data["images"]] == [
        (0, "novel-3.png", 60, 90),
        (1, "test-5.png", 90, 60),
    ]
    assert [(r["caption"], r["split"], r["seed"]) for r in data["images"]] == [
        (s.caption, s.split, s.seed) for s in scenes
    ]
    assert sorted(p.name for p in (tmp_path / "images").iterdir()) == ["novel-3.png", "test-5.png"]
    names = {c["id"]: c["name"] for c in data["categories"]}
    assert list(names)[:41] == list(range(1, 42)) and [names[k] for k in range(1, 42)] == [
        *KINDS,
        "word",
    ]
    assert [a["id"] for a in data["annotations"]] == list(
        range(1, 1 + sum(len(s.objects) for s in scenes))
    )
    listed = [(k, o) for k, s in enumerate(scenes) for o in s.objects]
    for a, (k, o) in zip(data["annotations"], listed, strict=True):
        assert (a["image_id"], names[a["category_id"]], a["iscrowd"]) == (k, o.name, 0)
        assert a["bbox"] == [o.box.x1, o.box.y1, o.box.x2 - o.box.x1, o.box.y2 - o.box.y1]
        mask = masks.decode(a["segmentation"]).astype(bool)
        assert np.array_equal(mask, o.mask.to_mask(*scenes[k].size)) and a["area"] == mask.sum()
        assert masks.toBbox(a["segmentation"]).tolist() == a["bbox"]
        assert (a["color"], a["fill"], a["text"]) == (o.color, o.fill, o.text)
    assert Mask(data["annotations"][0]["segmentation"]) == scenes[0].objects[0].mask
