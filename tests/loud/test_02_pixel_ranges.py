"""Item 2: white is certain or the picture is refused, and the same data give the same pixels as
array, tensor and PIL image.
"""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ferretlite.common.errors import InputError
from ferretlite.common.pictures import load_image


def grey_values(source):
    return np.asarray(load_image(source))[0, :, 0].tolist()


def forms(array):
    "The same numbers as array, tensor and, where Pillow has a mode for them, PIL image and file."
    yield array
    yield torch.tensor(array.tolist(), dtype=getattr(torch, str(array.dtype)))
    if array.dtype in (np.uint8, np.uint16, np.int32, np.float32):
        image = Image.fromarray(array)
        yield image
        held = io.BytesIO()
        image.save(held, "TIFF")
        yield held


# numbers -> the bytes they stand for, by hand
ACCEPTED = {
    "uint8": (np.array([[0, 90, 255]], np.uint8), [0, 90, 255]),
    "bool": (np.array([[False, True]]), [0, 255]),
    "float32": (np.array([[0, 0.2, 1]], np.float32), [0, 51, 255]),
    "float64": (np.array([[0, 0.6, 1]]), [0, 153, 255]),
    "float16": (np.array([[0, 0.6, 1]], np.float16), [0, 153, 255]),
    "uint16": (np.array([[0, 90 * 257, 65535]], np.uint16), [0, 90, 255]),
    "black uint16": (np.array([[0, 0]], np.uint16), [0, 0]),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_certain_ranges_are_read_alike_in_every_form(name):
    array, expected = ACCEPTED[name]
    for form in forms(array):
        assert grey_values(form) == expected, type(form)


REFUSED = {
    "floats in 0-255": (np.array([[0.0, 90, 255]], np.float32), "divide by 255"),
    "floats in -1-1": (np.array([[-1.0, 0, 1]], np.float32), r"\(x \+ 1\) / 2"),
    "other floats": (np.array([[-7.0, 1000]], np.float32), "black is 0 and white is 1"),
    "NaN": (np.array([[0.5, np.nan]], np.float32), "replace them first"),
    "infinity": (np.array([[0.5, np.inf]], np.float32), "replace them first"),
    "12 bits in 16": (np.array([[0, 4095]], np.uint16), "4095 for 12 bits"),
    "14 bits in 16": (np.array([[0, 16383]], np.uint16), "16383 for 14"),
    "8 bits in 16": (np.array([[0, 255]], np.uint16), "255 for 8"),
    "8 bits in 32": (np.array([[0, 255]], np.int32), r'astype\("uint8"\)'),
    "16 bits in 32": (np.array([[0, 65535]], np.int32), r'astype\("uint16"\)'),
    "32 bits": (np.array([[0, 2**31 - 1]], np.int32), "divide by the value of white"),
    "negative": (np.array([[-5, 5]], np.int64), "divide by the value of white"),
    "int8": (np.array([[0, 127]], np.int8), r'astype\("uint8"\)'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_uncertain_ranges_are_refused_alike_in_every_form(name):
    array, advice = REFUSED[name]
    for form in forms(array):
        with pytest.raises(InputError, match=f"found .* expected .*{advice}"):
            load_image(form)


def test_a_16_bit_file_is_not_black_or_white(tmp_path):
    array = np.array([[0, 90 * 257, 65535]], np.uint16)
    Image.fromarray(array).save(tmp_path / "a.png")
    assert grey_values(tmp_path / "a.png") == [0, 90, 255]
    # the header of a PPM file says what white is: 90 / 4095 * 255 = 5.6, cut to 5
    values = np.array([0, 90, 4064, 4095], ">u2")  # 4064 / 4095 * 255 = 253.07
    (tmp_path / "a.pgm").write_bytes(b"P5 4 1 4095\n" + values.tobytes())
    assert grey_values(tmp_path / "a.pgm") == [0, 5, 253, 255]


def test_rounding_errors_of_less_than_half_a_grey_level_are_cut():
    assert grey_values(np.array([[-0.001, 1.0000001]])) == [0, 255]


def test_a_tensor_with_channels_first_is_told_how_to_turn():
    with pytest.raises(InputError, match=r"shape \(3, 4, 6\).*moveaxis"):
        load_image(torch.zeros(3, 4, 6))


def write_deep_png(path, values):
    """Write a PNG of one row of 16-bit colours; Pillow cannot."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    colour = {2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_coloured_file_of_16_bits_follows_the_rule_too(tmp_path, channels):
    whole = np.full((1, 2, channels), 65535)
    whole[0, 1, : channels - (channels != 3)] = 257 * 100  # 100 of 255, opaque
    read = np.asarray(load_image(write_deep_png(tmp_path / "a.png", whole)))
    assert read.tolist() == [[[255] * 3, [100] * 3]]
    dark = whole.copy()
    dark[..., : channels - (channels != 3)] = 4095  # white of 12 bits
    with pytest.raises(InputError, match="16-bit colours whose range is not certain"):
        load_image(write_deep_png(tmp_path / "b.png", dark))


def test_the_message_names_what_is_wrong_with_the_shape_or_the_tensor():
    two_channels = np.zeros((6, 5, 2), np.uint8)
    with pytest.raises(InputError, match=r"shape \(6, 5, 2\).*keep one channel, or three"):
        load_image(two_channels)
    for tensor in (torch.zeros(4, 5).to_sparse(), torch.zeros(4, 5).to_sparse_csr()):
        with pytest.raises(InputError, match=r"found a sparse tensor.*call its method to_dense"):
            load_image(tensor)
    with pytest.raises(InputError, match="move the channels to the end"):
        load_image(np.zeros((3, 4, 5), np.uint8))
