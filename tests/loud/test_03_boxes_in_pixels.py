"""Item 3 (data): boxes as shares of the image, and boxes smaller than a pixel, are refused by a
strict reader, and counted by the others.
"""

import json

import pytest
from PIL import Image

from ferretlite.common.errors import InputError
from ferretlite.data.coco import CocoScenes, read_coco_mask
from ferretlite.data.grounding_files import GriffonScenes
from ferretlite.data.records import read_box
from ferretlite.data.referring_files import GenomeScenes, RefScenes
from ferretlite.regions.geometry import Box

SIZE = dict(height=480, width=640)
SHARES = [0.1, 0.2, 0.3, 0.4]


def readers(folder, box):
    "Readers of one right box and of `box`, in four formats."
    (folder / "images").mkdir(exist_ok=True)
    for name in ("a.jpg", "images/a.jpg"):
        Image.new("RGB", (640, 480), "gray").save(folder / name)
    right = [10, 20, 30, 40]
    image = dict(file_name="a.jpg", caption="a cat", **SIZE)
    coco = dict(
        images=[dict(id=1, **image), dict(id=2, **image)],
        categories=[dict(id=5, name="cat")],
        annotations=[
            dict(id=k, image_id=k, category_id=5, bbox=b) for k, b in ((1, right), (2, box))
        ],
    )
    (folder / "a.json").write_text(json.dumps(coco))
    regions = [dict(zip(("x", "y", "width", "height"), b), phrase="a cat") for b in (right, box)]
    (folder / "region_descriptions.json").write_text(json.dumps([dict(id=1, regions=regions)]))
    data = [dict(image_id=1, url="https://x.org/images/a.jpg", **SIZE)]
    (folder / "image_data.json").write_text(json.dumps(data))
    corners = [[x, y, x + w, y + h] for x, y, w, h in (right, box)]
    line = dict(image_path="a.jpg", expression="a cat", bboxes=corners, **SIZE)
    (folder / "a.jsonl").write_text(json.dumps(line))
    return {
        "coco": lambda **o: CocoScenes(folder, "a.json", **o),
        "refcoco": lambda **o: RefScenes(folder, "a.json", "images", **o),
        "genome": lambda **o: GenomeScenes(folder, **o),
        "griffon": lambda **o: GriffonScenes(folder, "a.jsonl", "VG", **o),
    }


@pytest.mark.parametrize("name", ["coco", "refcoco", "genome", "griffon"])
@pytest.mark.parametrize(
    "box, told",
    [
        (SHARES, "expected a box in pixels .these lie within 0 to 1"),
        ([0, 0, 1.0, 0.5], "expected a box in pixels"),
        ([0, 0, 1, 1], "expected a box in pixels"),  # the whole image, not the first pixel
        ([100, 50, 0.5, 20], "expected a box of at least one pixel"),  # as on the command line
        ([100.2, 50.1, 0.5, 0.5], "expected a box of at least one pixel"),
        ([639.5, 479.5, 20, 20], "expected a box of at least one pixel"),  # what is left inside
    ],
)
def test_boxes_that_mean_nothing_in_pixels(tmp_path, name, box, told):
    open_reader = readers(tmp_path, box)[name]
    with pytest.raises(InputError, match=told):
        list(open_reader())
    lax = open_reader(strict=False)
    found = [b for s in lax for b in [*(o.box for o in s.objects), *(p.boxes for p in s.phrases)]]
    flat = [b for item in found for b in (item if isinstance(item, list) else [item])]
    assert flat == [Box(10, 20, 40, 60)] and lax.left_out == {"box": 1}


@pytest.mark.parametrize("box", [[100, 50, 1, 20], [100, 50, 20, 1.5], [0.1, 0.2, 1, 1]])
def test_thin_boxes_are_boxes(box):
    x, y, w, h = box
    assert read_box(box, (480, 640), "xywh") == Box(x, y, x + w, y + h)


def test_polygons_in_shares_of_the_image_are_refused():
    with pytest.raises(InputError, match="these lie within 0 to 1, as shares of the image do"):
        read_coco_mask([[0.1, 0.1, 0.5, 0.1, 0.5, 0.5]], (80, 200))
    assert read_coco_mask([[0.1, 0.1, 1.6, 0.1, 1.6, 1.6]], (80, 200)) is not None
