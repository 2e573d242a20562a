"""Item 3 (data): a box that leaves its image is clipped and counted, and a file of which many boxes
do so gets a sentence about the form of its boxes.
"""

import json

import pytest
from PIL import Image

from ferretlite.common.errors import FerretliteWarning
from ferretlite.common.files import WEIGHTS
from ferretlite.data.coco import CocoScenes
from ferretlite.data.dialogues import GritDialogues
from ferretlite.data.inspection import check_mixture, format_check
from ferretlite.data.llava import LlavaDialogues
from ferretlite.data.readers import CLIPPED
from ferretlite.model.inference import Ferret
from ferretlite.model.processing import FerretProcessor
from ferretlite.regions.geometry import Box, Point, describe_doubtful_region
from ferretlite.scenes.world import make_scene


def write_coco(folder, *boxes):
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (200, 100), "gray").save(folder / "images" / "a.png")
    data = dict(
        images=[dict(id=1, file_name="a.png", height=100, width=200)],
        categories=[dict(id=5, name="cat")],
        annotations=[
            dict(id=k, image_id=1, category_id=5, bbox=list(box)) for k, box in enumerate(boxes)
        ],
    )
    (folder / "annotations.json").write_text(json.dumps(data))
    part = dict(name="mine", format="coco", folder=".", tasks=dict(name=1.0))
    (folder / "mixture.json").write_text(json.dumps(dict(stages={"1": [part]})))
    return folder / "mixture.json"


def test_a_box_beyond_the_edge_is_clipped_and_listed(tmp_path):
    write_coco(tmp_path, [10, 10, 20, 20], [150, 50, 80, 20], [180, 50, 20.5, 20])
    reader = CocoScenes(tmp_path)
    assert [o.box.x2 for o in reader[0].objects] == [30, 200, 200]
    assert reader.left_out == {} and reader.box_counts == dict(all=3, clipped=1)
    ((reason, sentence),) = reader.problems
    assert reason == CLIPPED and "annotation 1, field bbox: found [150, 50, 80, 20]" in sentence
    assert "expected a box inside its image of 200 x 100 pixels" in sentence
    assert reader.describe_overhang() == ""  # too few to doubt the form


def test_corners_that_are_read_as_sides_are_suspected(tmp_path):
    corners = [(x, 10, x + 30, 90) for x in range(0, 170, 10)]
    found = check_mixture(
        write_coco(tmp_path, *corners), FerretProcessor.from_pretrained(WEIGHTS / "tiny")
    )
    (problem,) = found["problems"]
    assert "annotations.json: found 9 of 17 boxes that do not lie in their image" not in problem
    assert "of 17 boxes that do not lie in their image" in problem
    assert "expected boxes as x, y, width, height; are these x1, y1, x2, y2 (xyxy)?" in problem
    assert f"× {CLIPPED} in 1 records, for example" in format_check(found)


def test_right_boxes_are_not_suspected(tmp_path):
    sides = [(x, 10, 30, 80) for x in range(0, 170, 10)]
    found = check_mixture(
        write_coco(tmp_path, *sides), FerretProcessor.from_pretrained(WEIGHTS / "tiny")
    )
    assert found["problems"] == [] and CLIPPED not in format_check(found)


def test_boxes_of_dialogues_are_counted(tmp_path):
    Image.new("RGB", (200, 100), "gray").save(tmp_path / "a.png")
    said = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "[50, 20, 250, 80]"}]
    (tmp_path / "l.json").write_text(json.dumps([dict(id=7, image="a.png", conversations=said)]))
    llava = LlavaDialogues(tmp_path, "l.json", ".", boxes="pixels")
    assert llava[0].turns[0].answer == "[250, 200, 999, 800]"
    assert "l.json, record with id 7, turn 0: found [50" in llava.problems[0][1]
    said[1]["value"] = "<bbox_location0>"
    record = dict(id=7, image="a.png", conversations=said, box_x1y1x2y2=[[], [[50, 20, 250, 80]]])
    (tmp_path / "g.json").write_text(json.dumps([record]))
    grit = GritDialogues(tmp_path, "g.json", ".")
    assert grit[0].turns and grit.box_counts["clipped"] == 1


@pytest.mark.parametrize(
    "region, doubtful",
    [
        (Box(0.3, 0.7, 0.5, 0.8), True),
        (Box(10, 10, 40, 10.5), True),
        (Point(0.3, 0.7), True),
        (Box(10, 10, 11, 11), False),
        (Point(1.5, 0.5), False),
        (Box(10, 10, 60, 50), False),
        (Box(10, 10, 61, 50), False),  # rounding
        (Box(10, 10, 62, 50), True),
        (Box(-5, 0, 20, 20), True),
    ],
)
def test_a_region_that_may_be_in_another_frame_is_named(region, doubtful):
    assert bool(describe_doubtful_region(region, (50, 60))) == doubtful


def test_a_question_about_a_region_below_a_pixel_warns():
    image = make_scene(0, 96).image
    with pytest.warns(FerretliteWarning, match="regions: found Box.x1=0.3.*multiply shares"):
        Ferret.load("tiny").ask(
            image, "What is <region>?", Box(0.3, 0.7, 0.5, 0.8), max_new_tokens=1
        )
