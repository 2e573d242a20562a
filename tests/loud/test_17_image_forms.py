"""Item 17, pictures: every form in which a program holds a picture is read, or refused in one
sentence.
"""

import base64
import io
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ferretlite.common.errors import InputError
from ferretlite.common.pictures import load_image, open_picture, read_picture_size

PIXELS = np.zeros((3, 4, 3), np.uint8)
PIXELS[:, :2] = (200, 100, 50)


def png_bytes():
    held = io.BytesIO()
    Image.fromarray(PIXELS).save(held, "PNG")
    return held.getvalue()


PNG = png_bytes()
TEXT = base64.b64encode(PNG).decode()
FORMS = {
    "bytes": PNG,
    "bytearray": bytearray(PNG),
    "memoryview": memoryview(PNG),
    "BytesIO": io.BytesIO(PNG),
    "base64": TEXT,
    "base64 with line ends": "\n".join(TEXT[i : i + 76] for i in range(0, len(TEXT), 76)),
    "base64 for addresses": base64.urlsafe_b64encode(PNG).decode().rstrip("="),
    "data URI": "data:image/png;base64," + TEXT,
    "data URI in capitals": "DATA:image/png;BASE64," + TEXT,
    "data URI without base64": "data:image/png," + urllib.parse.quote_from_bytes(PNG),
    "array": PIXELS,
    "not contiguous": np.ascontiguousarray(PIXELS[:, ::-1])[:, ::-1],
    "big-endian": (PIXELS.astype(">u2") * 257),
    "nested lists": (PIXELS > 60).tolist(),
    "tensor": torch.tensor(PIXELS),
    "with gradient": (torch.tensor(PIXELS) / 255).requires_grad_(),
    "PIL": Image.fromarray(PIXELS),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_read(name):
    expected = np.where(PIXELS > 60, 255, 0) if name == "nested lists" else PIXELS
    for _ in range(2):  # a file object is read anew each time
        assert np.array_equal(np.asarray(load_image(FORMS[name])), expected)
    assert read_picture_size(FORMS[name]) == (3, 4)
    assert open_picture(FORMS[name]).size == (4, 3)


def test_a_tensor_of_bfloat16_is_read():
    half = torch.tensor(PIXELS / 255).bfloat16().requires_grad_()  # 8 bits of precision
    assert np.abs(np.asarray(load_image(half)).astype(int) - PIXELS).max() <= 1


def test_an_open_file_is_read_from_its_beginning(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    with open(tmp_path / "a.png", "rb") as file:
        file.read(5)
        assert np.array_equal(np.asarray(load_image(file)), PIXELS)
    with pytest.raises(InputError, match="a.png: found a file that cannot be read .*mode 'rb'"):
        load_image(file)  # closed
    with open(tmp_path / "a.png", encoding="latin-1") as file:
        with pytest.raises(InputError, match="opened as text"):
            load_image(file)


REFUSED = {
    "nothing": (None, "found nothing, expected a path"),
    "a number": (7, "type int"),
    "a very large integer": (10**400, "type int"),
    "very large integers": ([[10**400, 1]], "type list"),
    "an object": (object(), "type object"),
    "a dictionary": (dict(image=1), "type dict"),
    "ragged lists": ([[1, 2], [3]], "type list"),
    "complex": (np.ones((3, 4), complex), "type ndarray"),
    "meta tensor": (torch.zeros(3, 4, device="meta"), "type Tensor"),
    "no pixels": (np.zeros((0, 4)), "at least one pixel"),
    "no pixels in PIL": (Image.new("RGB", (0, 4)), "0 x 4 pixels"),
    "a batch": (np.zeros((2, 3, 4, 3), np.uint8), "one picture at a time"),
    "an address": ("https://example.org/cat.png", "download the picture first"),
    "a broken data URI": ("data:image/png;base64,????" + "A" * 500_000, "base64 text"),
    "a data URI without data": ("data:image/png;base64" + "A" * 500_000, "comma"),
    "text": ("A" * 500_000, "found no file"),
    "text with a zero": ("cat\0.png", "found no file"),
    "base64 of no picture": (base64.b64encode(b"x" * 300).decode(), "found no file"),
    "no bytes": (b"", "an empty file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_gets_one_short_sentence(name):
    source, says = REFUSED[name]
    with pytest.raises(InputError, match=says) as caught:
        load_image(source)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def test_asking_about_no_picture_is_one_sentence(tiny):
    with pytest.raises(InputError, match="found nothing, expected a path"):
        tiny(None, "How many?")
    for images, prompts in ((Image.new("RGB", (9, 9)), None), (None, ["How many?"]), ("a.png", 7)):
        with pytest.raises(InputError, match="expected one text and one image, or a list"):
            tiny(images, prompts)
    with pytest.raises(InputError, match="prompt: found 7, expected text"):
        tiny([Image.new("RGB", (9, 9))], [7])
    with pytest.raises(InputError, match="half of a character"):
        tiny(Image.new("RGB", (9, 9)), "How many \ud800?")


@pytest.fixture(scope="module")
def tiny():
    from ferretlite.common.files import WEIGHTS
    from ferretlite.model.processing import FerretProcessor

    return FerretProcessor.from_pretrained(Path(WEIGHTS) / "tiny")


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_base64_text_may_come_as_bytes(wrap):
    held = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(held, "PNG")
    for text in (base64.b64encode(held.getvalue()), base64.encodebytes(held.getvalue())):
        assert load_image(wrap(text)).size == (40, 30)
        assert load_image(wrap(b"data:image/png;base64," + text)).size == (40, 30)
