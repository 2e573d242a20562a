"Any picture becomes upright RGB, or is refused in one sentence."

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ferretlite.common.errors import InputError
from ferretlite.common.pictures import load_image, open_picture, read_picture_size
from ferretlite.scenes.world import make_scene


def corner_picture():
    "Black, 40 wide and 30 high, with a red block in the upright top-left corner."
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[:8, :8] = (255, 0, 0)
    return Image.fromarray(pixels)


def as_bytes(image, **options):
    held = io.BytesIO()
    image.save(held, **options)
    return held.getvalue()


@pytest.mark.parametrize(
    "turn, back",
    [(1, None), (2, "FLIP_LEFT_RIGHT"), (3, "ROTATE_180"), (6, "ROTATE_90"), (8, "ROTATE_270")],
)
def test_camera_orientation_is_applied(tmp_path, turn, back):
    upright = corner_picture()
    stored = upright.transpose(getattr(Image.Transpose, back)) if back else upright
    exif = Image.Exif()
    exif[0x0112] = turn
    stored.save(tmp_path / "turned.jpg", exif=exif, quality=95, subsampling=0)
    stored.save(tmp_path / "turned.png", exif=exif)
    for name in ("turned.jpg", "turned.png"):
        found = load_image(tmp_path / name)
        assert found.size == (40, 30)
        assert np.abs(np.asarray(found).astype(int) - np.asarray(upright)).mean() < 3
        assert found.getexif().get(0x0112, 1) == 1  # nobody turns it again


def test_every_kind_of_picture_becomes_upright_rgb():
    gray = Image.fromarray(np.full((4, 6), 200, np.uint8))
    deep = Image.fromarray(np.full((4, 6), 200 * 257, np.uint16))
    palette = Image.new("P", (6, 4), 1)
    palette.putpalette([0, 0, 0, 200, 200, 200])
    see_through = Image.new("RGBA", (6, 4), (0, 0, 0, 0))
    for image, value in [
        (gray, 200),
        (deep, 200),
        (palette, 200),
        (see_through, 255),
        (Image.new("LA", (6, 4), (0, 0)), 255),
        (Image.new("1", (6, 4), 1), 255),
        (Image.new("CMYK", (6, 4), (0, 0, 0, 55)), 200),
    ]:
        for found in [load_image(image)] + (
            [load_image(as_bytes(image, format="PNG"))] if image.mode != "CMYK" else []
        ):
            assert (found.mode, found.size, found.getpixel((2, 2))) == (
                "RGB",
                (6, 4),
                (value,) * 3,
            ), image.mode


def test_palette_with_a_transparent_colour_lies_on_white():
    palette = Image.new("P", (6, 4), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    assert load_image(as_bytes(palette, format="PNG", transparency=1)).getpixel((0, 0)) == (
        255,
        255,
        255,
    )


def test_arrays():
    color = np.zeros((4, 6, 3), np.uint8)
    color[..., 0] = 200
    for array, value in [
        (color, (200, 0, 0)),
        (color / 255, (200, 0, 0)),
        (torch.tensor(color), (200, 0, 0)),
        (np.full((4, 6), 102 * 257, np.uint16), (102,) * 3),
        (np.full((4, 6, 1), 7, np.uint8), (7,) * 3),
        (np.ones((4, 6), bool), (255,) * 3),
        (np.dstack([color, np.zeros((4, 6), np.uint8)]), (255,) * 3),
    ]:
        assert load_image(array).getpixel((1, 1)) == value
    for wrong in (
        np.zeros((2, 4, 6, 3)),
        np.zeros((4, 6, 2)),
        np.zeros(5),
        np.zeros((0, 4)),
    ):
        with pytest.raises(InputError, match="found an array of shape"):
            load_image(wrong)


def test_a_file_that_is_no_picture_gets_one_sentence(tmp_path):
    whole = as_bytes(make_scene(0, 64).image, format="PNG")
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.jpg").write_bytes(b"")
    jpeg = as_bytes(make_scene(0, 64).image, format="JPEG")
    (tmp_path / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    for name in ("cut.png", "text.png", "empty.jpg", "cut.jpg"):
        with pytest.raises(ValueError, match=f"{name}: found .*expected a whole PNG") as caught:
            load_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="absent.png: found no file"):
        load_image(tmp_path / "absent.png")
    with pytest.raises(ValueError, match="found a folder"):
        load_image(str(tmp_path))
    with pytest.raises(ValueError, match="the image: found no picture"):
        load_image(b"nothing")


@pytest.mark.filterwarnings("ignore")  # Pillow warns about broken tags
@settings(max_examples=60)
@given(
    st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "PPM", "TIFF"]),
    st.integers(0, 300),
    st.binary(min_size=1, max_size=6),
)
def test_no_broken_file_raises_anything_but_valueerror(kind, place, junk):
    raw = bytearray(as_bytes(corner_picture(), format=kind))
    raw[place : place + len(junk)] = junk
    try:
        assert load_image(bytes(raw)).mode == "RGB"
    except ValueError as error:
        assert str(error).startswith("the image: found ") and "expected" in str(error)


def test_the_picture_given_is_left_as_it_is():
    image = Image.new("RGBA", (6, 4), (9, 9, 9, 0))
    load_image(image)
    assert image.mode == "RGBA" and image.getpixel((0, 0)) == (9, 9, 9, 0)


@pytest.mark.parametrize(
    "array, values",
    [
        (
            np.array([[0.0, 0.5, 1.0, -0.001, 1.001]]),
            [0, 128, 255, 0, 255],
        ),  # 127.5 is rounded up; rounding errors are cut
        (np.array([[0.6, 0.2]], np.float16), [153, 51]),
        (np.array([[0, 256, 257, 514, 65535]], np.uint16), [0, 0, 1, 2, 255]),
        (np.array([[True, False]]), [255, 0]),
    ],
)
def test_numbers_become_bytes(array, values):
    assert np.asarray(load_image(array))[0, :, 0].tolist() == values


def test_deep_grey_pictures_are_scaled_and_half_transparent_ones_laid_on_white():
    deep = Image.fromarray(np.array([[0, 1000, 25600, 65535]], np.uint16))
    assert deep.mode == "I;16"
    assert np.asarray(load_image(deep))[0, :, 0].tolist() == [0, 3, 99, 255]  # 25600 / 257 = 99.6
    half = load_image(np.array([[[200, 0, 100, 128]]], np.uint8)).getpixel((0, 0))
    np.testing.assert_allclose(half, (227, 127, 177), atol=1)  # 255 - (255 - v) * 128 / 255
    grey = np.zeros((2, 3, 1), np.uint8)
    assert load_image(grey).size == (3, 2)


def test_the_size_in_the_header_is_that_of_the_pixels(tmp_path):
    exif = Image.Exif()
    for turn in range(1, 9):
        exif[0x0112] = turn
        for kind in ("jpg", "png", "webp", "tif"):
            corner_picture().save(tmp_path / f"a.{kind}", exif=exif)
            image = load_image(tmp_path / f"a.{kind}")
            assert read_picture_size(tmp_path / f"a.{kind}") == (image.height, image.width)
            stored = open_picture(tmp_path / f"a.{kind}", upright=False)
            if kind != "tif":  # Pillow itself turns TIFF files
                assert stored.size == (40, 30)
