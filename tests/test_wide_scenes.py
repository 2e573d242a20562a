"""Wide scenes: papers, inks, styles, exact boxes, words, and enlarged windows."""

import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from ferretlite.evaluation.suites import make_questions
from ferretlite.regions.geometry import Box
from ferretlite.scenes import papers, wide
from ferretlite.scenes.conversations import make_conversation
from ferretlite.scenes.papers import (
    MIN_CONTRAST,
    choose_ink,
    convert_from_lch,
    convert_to_lab,
    draw_photo_paper,
    draw_plain_paper,
    list_inks,
    measure_contrast,
    measure_name_distances,
)
from ferretlite.scenes.questions import change_capitals
from ferretlite.scenes.tasks import TASKS
from ferretlite.scenes.wide import choose_window, cut_window, draw_wide_scene, enlarge_object
from ferretlite.scenes.world import (
    COLORS,
    SPLITS,
    WIDE_SPLITS,
    Scene,
    SceneObject,
    draw_scene,
    is_held_out,
    locate_letters,
    make_scene,
    render_alpha,
    shape_outline,
)

STYLES = ("wide", "dark", "coloured", "line", "blueprint", "screen", "photo")
HELD_OUT = ("line", "blueprint", "screen", "photo")
USUAL = [s for s in WIDE_SPLITS if s not in ("wide-crowd", "wide-practice", "word")]


class Recorder:
    """Keeps the picture before and after objects are painted, before grain and blur."""

    def __init__(self, monkeypatch):
        self.place, self.calls = wide._place_objects, []
        monkeypatch.setattr(wide, "_place_objects", self)

    def __call__(self, rng, canvas, items, room, brush):
        before = canvas.copy()
        found = self.place(rng, canvas, items, room, brush)
        self.calls.append((before, canvas.copy()))
        return found


# -- names of splits, and what does not change


def test_new_splits_stand_behind_the_old_ones():
    """The place of a split seeds its scenes: shipped weights belong to the old places."""
    old = ("train", "val", "test", "unseen", "count", "large", "crowd", "novel", "practice")
    assert SPLITS == old + WIDE_SPLITS and len(set(SPLITS)) == len(SPLITS)
    assert list(wide._WIDE_TABLE) == list(WIDE_SPLITS)


@pytest.mark.parametrize("split", WIDE_SPLITS)
def test_a_scene_depends_on_seed_size_and_split_alone(split):
    one, two = (make_scene(7, (90, 130), split) for _ in range(2))
    assert one.image.tobytes() == two.image.tobytes() and one.objects == two.objects
    assert one.image.tobytes() != make_scene(8, (90, 130), split).image.tobytes()
    assert one.size == one.image.size[::-1] and (one.id, one.split) == (f"{split}-7", split)


def test_parts_for_training_choosing_and_testing_share_no_scene():
    parts = ("wide", "wide-val", "wide-test")
    shown = {make_scene(s, 48, part).image.tobytes() for part in parts for s in range(8)}
    assert len(shown) == 24


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("size", [(33, 40), (40, 120)])
def test_small_and_long_pictures_can_be_drawn(split, size):
    make_scene(2, size, split)


# -- inks


def test_lightness_and_hue_are_those_of_cielab():
    # values of the CIE for the corners of sRGB, white point D65
    known = {(255, 255, 255): (100, 0, 0), (0, 0, 0): (0, 0, 0), (255, 0, 0): (53.2, 80.1, 67.2)}
    known |= {(0, 255, 0): (87.7, -86.2, 83.2), (0, 0, 255): (32.3, 79.2, -107.9)}
    assert convert_to_lab(list(known)) == pytest.approx(np.array(list(known.values())), abs=0.2)
    assert convert_from_lch(53.2, np.hypot(80.1, 67.2), np.arctan2(67.2, 80.1)) == pytest.approx(
        np.array([255, 0, 0]), abs=2
    )


@pytest.mark.parametrize("color", COLORS)
def test_every_ink_is_nearer_to_its_name_than_to_any_other(color):
    inks, lab = list_inks(color)
    assert inks.shape == (256, 3) and lab == pytest.approx(convert_to_lab(inks), abs=0.1)
    named = {c: convert_to_lab(v) for c, v in (COLORS | papers._OTHER_COLORS).items()}
    for ink in lab:
        apart = {c: np.linalg.norm(ink - v) for c, v in named.items()}
        assert min(apart, key=apart.get) == color and apart[color] <= 20
        rival = min(v for c, v in apart.items() if c != color)
        assert apart[color] <= 0.65 * rival + 1e-3
    assert lab.std(0).min() > 1  # and the inks of a name differ


def test_black_ink_is_not_drawn_on_black_paper_and_a_brown_is_no_orange():
    rng = np.random.default_rng(0)
    assert choose_ink(rng, "black", np.full((50, 3), 20.0)) is None
    assert choose_ink(rng, "black", np.full((50, 3), 240.0)) is not None
    assert choose_ink(rng, "yellow", np.full((50, 3), 20.0)) is not None
    own, other = measure_name_distances([[120, 70, 30]], "orange")
    assert own[0] > other[0]


def test_an_ink_may_be_hidden_on_a_tenth_of_the_pixels_only():
    around = np.full((100, 3), 240.0)
    for dark, is_drawn in ((9, True), (12, False)):
        mixed = around.copy()
        mixed[:dark] = 20
        assert (choose_ink(np.random.default_rng(0), "black", mixed) is not None) is is_drawn


@pytest.mark.parametrize("split", STYLES)
def test_every_object_stands_out_and_keeps_its_name(split, monkeypatch):
    recorder, contrasts, wrong, n = Recorder(monkeypatch), [], 0, 0
    for seed in range(12):
        _, found, owner = draw_wide_scene(seed, (256, 256), split)
        paper, painted = recorder.calls[-1]
        for i, obj in found:
            mask = owner == i
            change = np.where(mask, np.abs(painted - paper).sum(-1), 0)
            full = change >= np.quantile(change[mask], 0.75)  # pixels that the ink covers most
            ink = np.median(painted[full & mask], 0)
            rows, columns = np.nonzero(mask)
            near = np.s_[
                max(rows.min() - 2, 0) : rows.max() + 3,
                max(columns.min() - 2, 0) : columns.max() + 3,
            ]
            around = paper[near][owner[near] == -1].reshape(-1, 3)
            if len(around) < 9 or mask.sum() < 40:
                continue
            gaps = measure_contrast(convert_to_lab(ink[None]), convert_to_lab(around))
            contrasts.append(np.median(gaps))
            n += 1
            own, other = measure_name_distances(ink[None], obj.color)
            wrong += own[0] > other[0]
    # lines of about a pixel are mixed with the paper everywhere
    assert min(contrasts) > 0.6 * MIN_CONTRAST and np.quantile(contrasts, 0.1) > MIN_CONTRAST
    assert n > 25 and wrong <= 0.1 * n


def test_hidden_colours_give_way_and_no_held_out_pair_appears():
    pairs, colors = [], Counter()
    for seed in range(40):
        _, found, _ = draw_wide_scene(seed, (120, 120), "dark")
        pairs += [(o.name, o.color) for _, o in found]
        colors.update(o.color for _, o in found)
    assert not any(is_held_out(*p) for p in pairs)
    assert colors["black"] < 0.05 * sum(colors.values()) and min(colors.values()) < 20
    assert all(colors[c] > 8 for c in COLORS if c != "black")


@pytest.mark.parametrize("split", [*STYLES, "extreme", "tiny-objects"])
def test_scenes_keep_their_rivals(split):
    kept = 0
    for seed in range(20):
        _, found, _ = draw_wide_scene(seed, (200, 200), split)
        names, colors = (Counter(getattr(o, k) for _, o in found) for k in ("name", "color"))
        kept += any(names[o.name] > 1 and colors[o.color] > 1 for _, o in found)
    assert kept >= 16


# -- boxes and masks


@pytest.mark.parametrize("split", [*STYLES, "extreme", "tiny-objects", "wide-crowd"])
def test_masks_are_what_was_painted_before_grain_and_blur(split, monkeypatch):
    recorder = Recorder(monkeypatch)
    for seed in range(1 if split == "wide-crowd" else 5):
        _, found, owner = draw_wide_scene(seed, (150, 190), split)
        before, after = recorder.calls[-1]
        changed = np.abs(after - before).max(-1)
        assert (changed[owner >= 0] > 0.5).mean() > 0.99
        # at edges up to a quarter of a pixel may be painted without belonging to the object
        assert (changed[owner == -1] > 0.5 * changed.max()).mean() < 0.002
        padded = np.pad(owner >= 0, 1)
        near = sum(
            padded[y : y + owner.shape[0], x : x + owner.shape[1]]
            for y in range(3)
            for x in range(3)
        )
        # tips thinner than a quarter of a pixel may reach further
        assert (changed[near == 0] > 0).mean() < 0.003
        for i, obj in found:
            ys, xs = np.nonzero(owner == i)
            assert obj.box == Box(xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_sides_are_those_of_the_split():
    tiny = [o.box for s in range(9) for o in make_scene(s, 384, "tiny-objects").objects]
    assert max(max(b.width, b.height) for b in tiny) < 384 / 12  # all are small
    assert min(max(b.width, b.height) for b in tiny) < 11
    for seed in range(6):
        h, w = make_scene(seed, 192, "extreme").size
        assert 6 <= max(h, w) / min(h, w) < 8.3 and h * w == pytest.approx(192**2, rel=0.1)


# -- papers and styles


def test_papers_run_from_white_to_black_and_tones_keep_theirs():
    levels = {}
    for tone in ("any", "dark", "coloured"):
        drawn = [draw_plain_paper(np.random.default_rng(s), 60, 60, tone) for s in range(60)]
        levels[tone] = np.array([convert_to_lab(p).reshape(-1, 3).mean(0) for p in drawn])
    light = levels["any"][:, 0]
    assert light.min() < 15 and light.max() > 85 and 35 < light.mean() < 65
    assert np.quantile(levels["dark"][:, 0], 0.95) < 36
    assert np.median(np.hypot(*levels["coloured"][:, 1:].T)) > 30


@pytest.mark.parametrize("style", HELD_OUT)
def test_training_never_shows_a_held_out_style(style, monkeypatch):
    def refuse(*_):
        raise AssertionError(f"{style} was drawn")

    monkeypatch.setitem(wide._PAPERS, style, refuse)
    monkeypatch.delitem(wide._BRUSHES, style, raising=False)
    for split in ("wide", "wide-val", "wide-count", "wide-practice", "word"):
        for seed in range(10):
            make_scene(seed, 48, split)
    with pytest.raises(AssertionError, match="was drawn"):
        make_scene(0, 48, style)
    used = [s for s, (_, paper) in wide._WIDE_TABLE.items() if paper == style]
    assert used == [style]


def measure_slope(picture) -> float:
    """The exponent of the amplitude spectrum of a square picture, between 4 and n / 4 periods."""
    n = len(picture)
    spectrum = np.abs(np.fft.fft2(picture - picture.mean()))
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n))) * n
    bands = np.geomspace(4, n / 4, 9)
    mean = [np.sqrt((spectrum[(f >= a) & (f < b)] ** 2).mean()) for a, b in zip(bands, bands[1:])]
    return np.polyfit(np.log(np.sqrt(bands[1:] * bands[:-1])), np.log(mean), 1)[0]


def test_photographs_have_the_spectrum_of_photographs():
    # natural pictures: amplitude falls as frequency to the power of -1.0 +- 0.3 (Field, 1987)
    drawn = [draw_photo_paper(np.random.default_rng(s), 256, 256).mean(-1) for s in range(4)]
    assert -1.45 < np.mean([measure_slope(p) for p in drawn]) < -0.7
    y, x = papers._list_places(256, 256)
    noise = papers._draw_photographic_noise(np.random.default_rng(0), y, x)
    assert measure_slope(noise) == pytest.approx(-1, abs=0.15)


def test_a_screen_has_neither_grain_nor_blur_and_others_have():
    canvas = np.full((64, 64, 3), 100, np.float32)
    rough = [
        np.asarray(papers.finish_picture(np.random.default_rng(s), canvas, 30)).std()
        for s in range(20)
    ]
    plain = [
        np.asarray(papers.finish_picture(np.random.default_rng(s), canvas, 0, False)).std()
        for s in range(20)
    ]
    assert max(plain) == 0 and sum(r > 0.2 for r in rough) > 8


# -- words


def test_words_come_in_many_typefaces():
    shapes = [wide.make_word_outline("RAG", face).vertices.tobytes() for face in wide._TYPEFACES]
    assert len(set(shapes)) == len(wide._TYPEFACES) == 15
    for face in wide._TYPEFACES:
        points = wide.make_word_outline("RAG", face).vertices
        assert np.ptp(points, 0).max() == pytest.approx(1)


def test_the_word_of_a_word_scene_is_whole_large_and_in_the_middle():
    cut, native = 0, Counter()
    for seed in range(30):
        scene = make_scene(seed, 384, "word")
        words = [o for o in scene.objects if o.text]
        assert scene.size == (192, 192) and len(words) == 1
        box = words[0].box
        assert 129 <= max(box.width, box.height) <= 184
        cut += min(box.x1, box.y1, 192 - box.x2, 192 - box.y2) < 0.5
        centre = box.center()
        assert abs(centre.x - 96) < 45 and abs(centre.y - 96) < 90
        native[scene.caption.count("word")] += 1
    assert cut <= 3 and set(native) == {1}


def test_a_word_scene_is_asked_for_its_word_three_times():
    weights = dict.fromkeys(TASKS, 1)
    for seed in range(8):
        scene = make_scene(seed, 384, "word")
        talk = make_conversation(scene, weights, random.Random(seed), 5)
        asked = [t for t in talk.turns if t.task == "word"]
        assert len(asked) >= 3 and {t.answer for t in asked} == {scene.objects[0].text} | {
            o.text for o in scene.objects if o.text
        } - {None}
        free = make_conversation(scene, dict(name=1), random.Random(seed), 5)
        assert {t.task for t in free.turns} == {"name"}


# -- enlarged windows


def test_boxes_are_mapped_exactly_into_an_enlarged_window():
    image, owner = Image.new("RGB", (100, 80)), np.full((80, 100), -1, np.int16)
    owner[20:30, 40:60] = 0  # whole
    owner[35:45, 55:75] = 1  # its left quarter lies inside
    owner[40:50, 20:40] = 2  # its right half lies inside, its lower half not: a quarter in all
    objects = [(i, wide.SceneObject(n, None)) for i, n in enumerate(("star", "cup", "cat"))]
    picture, found, owners = cut_window(image, objects, owner, (30, 15, 70, 45), 160)
    assert picture.size == (160, 120) and owners.shape == (120, 160)
    assert [o.name for _, o in found] == ["star", "cup"]
    assert found[0][1].box == Box(40, 20, 120, 60)  # (40 - 30) * 4, (20 - 15) * 4, ...
    assert found[1][1].box == Box(100, 80, 160, 120)
    assert (owners[20:60, 40:120] == 0).all() and (owners == 0).sum() == 40 * 80


@pytest.mark.parametrize(
    "box, reach, wanted",
    [
        ((40, 30, 60, 40), 2, (30, 15, 70, 55)),  # twice 20, around (50, 35)
        ((0, 0, 20, 10), 2, (0, 0, 40, 40)),  # moved inside
        ((90, 70, 98, 78), 4, (68, 48, 100, 80)),
        ((40, 30, 60, 40), 9, (10, 0, 90, 80)),  # at most the shorter side
        ((50, 40, 52, 42), 2, (43, 33, 59, 49)),  # sixteen pixels at least
    ],
)
def test_windows_are_square_and_inside(box, reach, wanted):
    assert choose_window(Box(*box), (80, 100), reach) == wanted


def test_enlarged_scenes_show_an_object_of_the_scene_larger():
    scene = make_scene(3, 200, "wide-test")
    for seed in range(12):
        close = enlarge_object(scene, np.random.default_rng(seed), 160, (1.5, 6))
        assert close.size == (160, 160) == close.image.size and close.split == "wide-test"
        names = {o.phrase for o in scene.objects}
        assert close.objects and {o.phrase for o in close.objects} <= names
        for o in close.objects:
            assert o.mask.box().list() == pytest.approx(o.box.list(), abs=160 / 24)
            assert 0 <= o.box.x1 < o.box.x2 <= 160 and 0 <= o.box.y1 < o.box.y2 <= 160
    assert len(scene.objects) > 2 and scene.size == (200, 200)  # left as it was


def test_what_cannot_be_enlarged():
    rng = np.random.default_rng(0)
    empty = Scene(Image.new("RGB", (9, 9)), (9, 9))
    assert enlarge_object(empty, rng) is empty
    with pytest.raises(ValueError, match="picture of a scene: found .*a.png.*expected a PIL image"):
        enlarge_object(Scene("a.png", (9, 9)), rng)


# -- questions


def test_capitals_vary_in_one_question_of_seven_and_marks_stay():
    rng, prompt = random.Random(0), "Is the word <region> [0,1] red?\nInclude the boxes."
    seen = Counter(change_capitals(prompt, rng) for _ in range(2000))
    assert set(seen) == {
        prompt,
        "IS THE WORD <region> [0,1] RED?\nInclude the boxes.",
        "is the word <region> [0,1] red?\nInclude the boxes.",
        "Is The Word <region> [0,1] Red?\nInclude the boxes.",
    }
    assert 0.82 < seen[prompt] / 2000 < 0.88


def test_capitals_vary_about_wide_scenes_only():
    def count(split, **given):
        upper = 0
        for seed in range(40):
            scene = make_scene(seed, 96, split)
            talk = make_conversation(scene, dict(name=1), random.Random(seed), 3, **given)
            upper += sum(
                t.prompt == t.prompt.upper().replace("REGION", "region") for t in talk.turns
            )
        return upper

    assert count("wide-test") > 2 and count("test") == 0 and count("wide-test", wording=0) == 0


@pytest.mark.parametrize("split", USUAL)
@pytest.mark.parametrize("style", ["ferret", "griffon"])
def test_every_split_can_be_evaluated(split, style):
    asked = [
        q.turn.task
        for seed in range(3)
        for q in make_questions(make_scene(seed, 160, split), f"0 {seed}", style=style)
    ]
    assert len(set(asked)) > 3 and "rec" in asked


# -- letters of words


@pytest.mark.parametrize("typeface", wide._TYPEFACES)
def test_letters_are_divided_where_no_ink_is(typeface):
    """HIMO is drawn upright, 300 pixels long; at the end of each letter a column without ink, or
    the column with least, lies within two pixels. Slanted letters overlap, so ink stays small."""
    base = wide.make_word_outline("HIMO", typeface)
    outline = shape_outline(base, 300, 1.0, 0.0)
    alpha, _, left = render_alpha(outline, "filled", 160, 60, (120, 320))
    points = locate_letters("HIMO", typeface, base, outline, (160, 60))
    ink = alpha.sum(0)
    assert points[0][0] == pytest.approx(left + np.flatnonzero(ink)[0], abs=3)
    assert points[-1][0] == pytest.approx(left + np.flatnonzero(ink)[-1] + 1, abs=3)
    for x, y in points[1:-1]:
        near = ink[int(x) - left - 2 : int(x) - left + 3].min()
        assert near <= (0.35 if "Obl" in typeface or "Ita" in typeface else 0) * ink.max()
        assert y == pytest.approx(60, abs=0.5)


def test_the_ends_of_letters_move_with_the_window():
    """A window of 40 pixels is enlarged to 160: x = 40 becomes (40 − 30) · 4 = 40, y = 25 becomes
    (25 − 15) · 4 = 40. A point outside of the window stays outside."""
    owner = np.full((80, 100), -1, np.int16)
    owner[20:30, 40:60] = 0
    word = SceneObject("word", None, text="A", letters=((20.0, 25.0), (60.0, 25.0)))
    image = Image.new("RGB", (100, 80))
    _, found, _ = cut_window(image, [(0, word)], owner, (30, 15, 70, 55), 160)
    assert found[0][1].letters == ((-40.0, 40.0), (120.0, 40.0))


@pytest.mark.parametrize("split", ["train", "crowd", "wide", "word"])
def test_words_of_scenes_know_their_letters_and_other_objects_none(split):
    seen = 0
    for seed in range(12):
        for _, obj in draw_scene(seed, (200, 200), split)[1]:
            assert (obj.letters is None) == (obj.text is None)
            if obj.text:
                seen += 1
                (x, _), *_, (last, _) = obj.letters
                assert len(obj.letters) == len(obj.text) + 1
                assert obj.box.x1 - 1 <= x + obj.box.width / 2 and last > x
    assert seen
