"""A region that is typed is in pixels of the image; shares of the image are refused."""

import pytest
from PIL import Image

from ferretlite.app import cli
from ferretlite.model.answers import Answer
from ferretlite.model.inference import Ferret


@pytest.fixture
def asked(monkeypatch, tmp_path):
    "The regions that reach the model; the picture is 40 wide and 30 high."
    seen = []

    class Stub:
        def ask(self, image, question, regions, crops, **options):
            seen.append([r.list() if hasattr(r, "list") else [r.x, r.y] for r in regions])
            seen[-1] += [c.box.list() for c in crops]
            return Answer("yes", image=image)

    monkeypatch.setattr(Ferret, "load", lambda name, device=None: Stub())
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    return seen


@pytest.mark.parametrize(
    "words",
    [
        "--region 0.3,0.7,0.5,0.8",
        "--region 0,0,1,1",
        "--region 0,0.5,1,1",
        "--crop 0.3,0.7,0.5,0.8",
        "--point 0.5,0.5",
        "--point 0,0.7",
    ],
)
def test_shares_of_the_image_are_refused(capsys, asked, words):
    assert cli.main(["ask", "a.png", "is it?", *words.split()]) == 2
    told = capsys.readouterr().err
    assert "pixels" in told and "multiply" in told and len(told.splitlines()) == 1
    assert asked == []


@pytest.mark.parametrize(
    "words",
    [
        "--region 5,5,5.5,9",
        "--region 5,5,9,5.9",
        "--region 39.5,0,60,20",  # half a pixel of it lies inside
        "--crop 5,5,5.5,9",
    ],
)
def test_boxes_smaller_than_a_pixel_are_refused(capsys, asked, words):
    assert cli.main(["ask", "a.png", "is it?", *words.split()]) == 2
    assert "less than one pixel" in capsys.readouterr().err and asked == []


@pytest.mark.parametrize(
    "words, region",
    [
        ("--region 1,2,30,20", [1, 2, 30, 20]),
        ("--region 0.5,0.5,30,20", [0.5, 0.5, 30, 20]),
        ("--region 0,0,1,2", [0, 0, 1, 2]),
        ("--region -1,0,9,9", [0, 0, 9, 9]),
        ("--region=-5,-5,9,9", [0, 0, 9, 9]),
        ("--point 1,1", [1, 1]),
        ("--point 0,0", [0, 0]),
        ("--crop 1,2,30,20", [1, 2, 30, 20]),
    ],
)
def test_pixels_are_read_as_pixels(asked, words, region):
    assert cli.main(["ask", "a.png", "is it?", *words.split()]) == 0
    assert asked == [[region]]


@pytest.mark.parametrize("option", ["--region", "--crop"])
def test_a_box_that_leaves_the_image_is_clipped_with_a_warning(capsys, asked, option):
    assert cli.main(["ask", "a.png", "is it?", option, "-5,-5,9,9"]) == 0
    told = capsys.readouterr().err
    assert f"{option}: found Box" in told and "a box inside 40 x 30 pixels" in told
    assert "clipped" in told
    assert asked == [[[0, 0, 9, 9]]]


@pytest.mark.parametrize("option", ["--region", "--crop"])
@pytest.mark.parametrize(
    "words, says",
    [
        ("5,5,5.5,9", "less than one pixel"),
        ("9,9,5,5", "expected x1 <= x2"),
        ("50,50,60,60", "outside of its image"),
    ],
)
def test_the_option_of_a_bad_box_is_named(capsys, asked, option, words, says):
    assert cli.main(["ask", "a.png", "is it?", option, words]) == 2
    told = capsys.readouterr().err
    assert f"{option}: " in told and says in told and asked == []
