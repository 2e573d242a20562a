"""Drawing: names in any script are letters, and lines grow with the picture."""

import warnings

import numpy as np
import pytest
from PIL import Image

from ferretlite.common.errors import FerretliteWarning
from ferretlite.regions import drawing
from ferretlite.regions.drawing import draw_answer
from ferretlite.regions.geometry import Box, Mask, Point
from ferretlite.regions.grammar import Grounding

DEJAVU = drawing._list_fonts()[0]  # it has no Chinese letters
LOAD_FONT = drawing._load_font


def draw_name(name):
    picture = Image.new("RGB", (720, 720), "white")
    return np.asarray(draw_answer(picture, [Grounding(name, [Box(100, 200, 400, 400)])]))


@pytest.mark.parametrize(
    "name, other",
    [("кот", "кто"), ("γάτα", "γάτι"), ("قطة", "قطط"), ("חתול", "חתוך"), ("chat", "chát")],
)
def test_names_of_one_length_look_different(name, other):
    """Squares in place of letters would look the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (draw_name(name) != draw_name(other)).any()


def test_a_name_without_a_font_is_written_in_codes_with_a_warning(monkeypatch):
    monkeypatch.setattr(drawing, "_list_fonts", lambda: [DEJAVU])
    with pytest.warns(FerretliteWarning, match="found letters of '猫 0.50'.*install one") as told:
        font, label = drawing._choose_font("猫 0.50", 20)
    assert label == "U+732B 0.50" and len(told) == 1
    with pytest.warns(FerretliteWarning):
        assert drawing._choose_font("кот 猫", 20)[1] == "кот  U+732B"
    with pytest.warns(FerretliteWarning):
        assert (draw_name("猫") != draw_name("狗")).any()


def test_the_first_font_with_all_letters_is_taken(monkeypatch):
    letters = {None: {99}, "a.ttf": {99, 0x732B}, "b.ttf": {99, 0x732B, 0x72D7}}
    monkeypatch.setattr(drawing, "_list_fonts", lambda: ["a.ttf", "b.ttf"])
    monkeypatch.setattr(drawing, "_read_letters", letters.get)
    monkeypatch.setattr(drawing, "_load_font", lambda path, size: (path, size))
    assert drawing._choose_font("猫c", 20) == (("a.ttf", 20), "猫c")
    assert drawing._choose_font("猫\u200d狗", 20) == (("b.ttf", 20), "猫\u200d狗")


def test_a_font_that_cannot_be_used_is_passed_over(monkeypatch, tmp_path):
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    assert drawing._read_letters(str(broken)) == frozenset()
    assert drawing._load_font(str(broken), 20) is None
    monkeypatch.setattr(drawing, "_read_letters", lambda path: {0x43A, 0x43E, 0x442})
    monkeypatch.setattr(drawing, "_list_fonts", lambda: [str(broken), DEJAVU])
    monkeypatch.setattr(drawing, "_load_font", lambda path, size: path and LOAD_FONT(path, size))
    assert drawing._choose_font("кот", 20)[0].path == DEJAVU


@pytest.mark.parametrize("side, width", [(720, 3), (1440, 6), (2400, 10)])
def test_lines_grow_with_the_picture(side, width):
    white = Image.new("RGB", (side, side), "white")
    box = Box(side // 4, side // 4, side // 2, side // 2)
    row = 3 * side // 8  # crosses the left and the right edge
    said = np.asarray(draw_answer(white, [Grounding("", [box])]))
    assert (said[row].min(-1) < 255).sum() == 2 * width
    asked = np.asarray(draw_answer(white, regions=[box]))
    assert 0 < (asked[row - width : row + width].min(-1) < 255).any(0).sum() <= 2 * width + 2
    ring = np.asarray(draw_answer(white, regions=[Point(side / 2, side / 2)]))
    columns = np.flatnonzero((ring.min(-1) < 255).any(0))
    assert columns[-1] - columns[0] == pytest.approx(6 * width, abs=2)


def test_a_mask_is_read_once_for_its_tint():
    mask = Mask(np.eye(64, dtype=bool))
    found = np.asarray(draw_answer(Image.new("RGB", (64, 64), "white"), regions=[mask]))
    assert found.shape == (704, 704, 3) and (found[352, 352] != 255).any()
