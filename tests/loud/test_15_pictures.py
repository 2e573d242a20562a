"""Item 15: no picture file starts a program, waits for ever or fills the memory, and what is wrong
with a file is said with its complete path.
"""

import io
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from ferretlite.common import pictures
from ferretlite.common.errors import FerretliteWarning, InputError
from ferretlite.common.pictures import load_image, open_picture, read_picture_size
from ferretlite.data.readers import open_annotated_image

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
0 0 10 10 rectfill
"""


def corner_picture():
    "Black, 40 wide and 30 high, with a red block at the top left."
    image = Image.new("RGB", (40, 30))
    image.paste("red", (0, 0, 8, 8))
    return image


def png_of(width, height):
    "A PNG file whose header promises so many pixels, and that holds none."

    def chunk(name, data):
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.fixture
def no_programs(monkeypatch):
    "Starting Ghostscript, or any program, is an error."

    def forbidden(*args, **options):
        raise AssertionError("a program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", forbidden)
    monkeypatch.setattr("subprocess.Popen.__init__", forbidden)


@pytest.mark.parametrize("read", [load_image, open_picture, read_picture_size])
def test_a_postscript_file_with_a_pictures_name_starts_no_program(tmp_path, read, no_programs):
    path = tmp_path / "cat.jpg"
    path.write_bytes(EPS)
    for source in (path, str(path), EPS, io.BytesIO(EPS)):
        with pytest.raises(InputError, match="found a PostScript .EPS. file, expected"):
            read(source)
    if read is not read_picture_size:  # its caller opened it, and Pillow would run it when it loads
        with Image.open(path) as opened:
            with pytest.raises(InputError, match="found a file of the format EPS, expected"):
                read(opened)


def test_only_formats_on_the_list_are_opened(tmp_path):
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"):
        corner_picture().save(tmp_path / "a.bin", kind)
        assert load_image(tmp_path / "a.bin").size == (40, 30)
    for kind in ("TGA", "PCX", "SGI", "DDS", "IM"):
        corner_picture().save(tmp_path / "a.bin", kind)
        with pytest.raises(InputError, match="a.bin: found no picture of a known format"):
            load_image(tmp_path / "a.bin")
        with Image.open(tmp_path / "a.bin") as opened:
            with pytest.raises(InputError, match="found a file of the format"):
                load_image(opened)
            opened.load()  # its caller decided to read it
            assert load_image(opened).size == (opened.width, opened.height)


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes are made otherwise there")
def test_a_named_pipe_does_not_wait_for_ever(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (load_image, open_picture, read_picture_size):
        with pytest.raises(InputError, match="a.png: found a pipe or a device"):
            read(tmp_path / "a.png")
    with pytest.raises(InputError, match="/dev/null: found a pipe or a device"):
        load_image("/dev/null")


HINTS = {
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC file, .*pillow-heif"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "a Git-LFS pointer, .*git lfs pull",
    ),
    "html": (b"<!DOCTYPE html><html>Not found</html>", "an HTML, XML or SVG file, .*download"),
    "svg": (b"\n<svg xmlns='http://www.w3.org/2000/svg'/>", "an HTML, XML or SVG file"),
    "pdf": (b"%PDF-1.7", "a PDF file, .*save its page as PNG"),
    "zip": (b"PK\x03\x04", "a ZIP archive, .*unpack"),
    "empty": (b"", "an empty file, .*again"),
    "text": (b"hello", "no picture of a known format"),
}


@pytest.mark.parametrize("name", HINTS)
def test_well_known_files_that_are_no_pictures_get_a_hint(tmp_path, name):
    head, says = HINTS[name]
    (tmp_path / "a.jpg").write_bytes(head)
    with pytest.raises(InputError, match=f"^{tmp_path}/a.jpg: found {says}"):
        load_image(tmp_path / "a.jpg")


DAMAGED_EXIF = {
    "text": b"Exif\0\0hello world",
    "wrong header": b"Exif\0\0XX*\0\x08\0\0\0" + b"\1" * 20,
    "cut header": b"Exif\0\0MM\0*\0\0",
    "offset beyond the end": b"Exif\0\0MM\0*\xff\xff\xff\xff",
    "cut directory": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0",
    "count of four billion": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3"
    + b"\xff\xff\xff\xff\0\6\0\0\0\0\0\0",
}


@pytest.mark.parametrize("kind", ["png", "webp", "jpg"])  # Pillow reads those of JPEG at once
@pytest.mark.parametrize("name", DAMAGED_EXIF)
def test_a_picture_with_damaged_exif_data_is_shown_as_it_is_stored(tmp_path, name, kind):
    path = tmp_path / f"a.{kind}"
    corner_picture().save(path, exif=DAMAGED_EXIF[name])
    with pytest.warns(FerretliteWarning, match=f"{path}: found damaged EXIF") as noted:
        assert load_image(path).size == (40, 30)
        assert read_picture_size(path) == (30, 40)
        assert open_annotated_image(path, (30, 40)).size == (40, 30)
    assert {w.category for w in noted} == {FerretliteWarning}  # and none of Pillow's


def test_exif_data_that_turn_are_obeyed_once(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    corner_picture().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    image = load_image(tmp_path / "a.png")
    assert image.size == (40, 30) and image.getpixel((2, 2)) == (255, 0, 0)
    assert load_image(image).size == (40, 30)
    exif[0x0112] = 77  # no such turn
    corner_picture().save(tmp_path / "b.png", exif=exif)
    assert load_image(tmp_path / "b.png").size == (40, 30)


def test_a_size_is_refused_before_pixels_are_allocated(tmp_path, monkeypatch):
    def forbidden(self):
        raise AssertionError("pixels were read")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", forbidden)
    for width, height in ((30_000, 30_000), (2_000_000_000, 1), (18_000, 10_000)):
        (tmp_path / "a.png").write_bytes(png_of(width, height))
        for source in (tmp_path / "a.png", png_of(width, height)):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with pytest.raises(InputError, match="pixels, expected (at most|1 to) 178956970"):
                    load_image(source)
    # an annotation that promises other pixels than the header is refused by the header alone
    (tmp_path / "b.png").write_bytes(png_of(40, 30))
    with pytest.raises(ValueError, match="b.png: found 30 x 40 .*expected 54000 x 54000"):
        open_annotated_image(tmp_path / "b.png", (54_000, 54_000))


def test_a_file_without_its_pixels_is_named_with_its_complete_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    held = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(noise).save(held, "PNG")
    (tmp_path / "cut.png").write_bytes(held.getvalue()[:1000])
    with pytest.raises(InputError, match=f"^{tmp_path}/cut.png: found a damaged picture"):
        load_image("cut.png")
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}/gone.png: found no file"):
        load_image("gone.png")
    with pytest.raises(InputError, match=f"^{tmp_path}: found a folder"):
        load_image(".")
    with pytest.raises(FileNotFoundError, match="found no file"):
        load_image("a" * 5000)


def test_one_function_opens_all_pictures():
    "A second way to open pictures would have rules of its own."
    package = Path(pictures.__file__).parent.parent
    texts = {p: p.read_text(encoding="utf-8") for p in package.glob("*/*.py")}
    assert [p.name for p, text in texts.items() if "Image.open(" in text] == ["pictures.py"]


def test_photographs_of_telephones_stand_upright(real_files):
    for name in ("landscape_3", "landscape_6", "portrait_8"):
        path = real_files / "exif" / f"{name}.jpg"
        image = load_image(path)
        assert (image.width > image.height) == name.startswith("landscape")
        assert read_picture_size(path) == (image.height, image.width)
