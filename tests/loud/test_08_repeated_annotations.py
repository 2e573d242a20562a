"""Item 8: an object whose class and box stand twice in one image is one object, and is reported.

Public exports hold such repetitions. So they stop no training, and the count says how many.
"""

import json
import random

from PIL import Image

from ferretlite.app import cli
from ferretlite.data.coco import CocoScenes
from ferretlite.data.grounding_files import GriffonScenes

BOX = [10, 10, 20, 20]  # x, y, width, height


def write_coco(folder, *annotations):
    (folder / "images").mkdir()
    Image.new("RGB", (200, 100), "gray").save(folder / "images" / "a.png")
    data = dict(
        images=[dict(id=1, file_name="a.png", height=100, width=200)],
        categories=[dict(id=5, name="cat"), dict(id=6, name="dog"), dict(id=7, name="Cat")],
        annotations=[
            dict(id=k, image_id=1, category_id=c, bbox=box)
            for k, (c, box) in enumerate(annotations)
        ],
    )
    (folder / "annotations.json").write_text(json.dumps(data))
    part = dict(name="mine", format="coco", folder=".", tasks=dict(count=1.0))
    (folder / "mixture.json").write_text(json.dumps(dict(stages={"1": [part]})))


def test_the_same_class_and_box_is_one_object(tmp_path):
    write_coco(
        tmp_path, (5, BOX), (6, BOX), (5, [10, 10, 20, 21]), (5, BOX), (7, [10.0, 10, 20, 20])
    )
    reader = CocoScenes(tmp_path)  # a strict reader: a repetition is no reason to stop
    assert [(o.name, o.box.list()) for o in reader[0].objects] == [
        ("cat", [10, 10, 30, 30]),
        ("dog", [10, 10, 30, 30]),
        ("cat", [10, 10, 30, 31]),
    ]
    assert reader.left_out == {} and reader.box_counts["repeated"] == 2
    reason, sentence = reader.problems[0]
    assert reason == "repeated objects"
    assert (
        "a: found 'cat' with the box [10, 10, 30, 30] again, expected each object once" in sentence
    )


def test_a_question_counts_a_repeated_object_once(tmp_path):
    write_coco(tmp_path, (5, BOX), (5, [90, 10, 20, 20]), (5, BOX))
    reader = CocoScenes(tmp_path)
    found = [reader.converse(0, random.Random(k), dict(count=1.0), 1).turns for k in range(20)]
    answers = {t.answer for turns in found for t in turns if "cat" in t.prompt}
    assert answers and all(answer.endswith("; 2 in all") for answer in answers)


def test_data_check_counts_the_repetitions_and_passes(capsys, tmp_path):
    write_coco(tmp_path, (5, BOX), (5, BOX), (5, [90, 10, 20, 20]))
    assert cli.main(["data", "check", str(tmp_path / "mixture.json")]) == 0
    out = capsys.readouterr().out
    assert "left out 1 × repeated objects in 1 records, for example" in out


def test_boxes_of_one_phrase_and_objects_of_other_formats(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (200, 100), "gray").save(tmp_path / "images" / "a.png")
    place = dict(image_path="a.png", height=100, width=200)
    twice = [[10, 10, 30, 30], [40, 10, 60, 30], [10, 10, 30, 30]]
    expression = dict(place, expression="a cat", bboxes=twice)
    (tmp_path / "vg.jsonl").write_text(json.dumps(expression))
    (phrase,) = GriffonScenes(tmp_path, "vg.jsonl", "VG")[0].phrases
    assert [box.list() for box in phrase.boxes] == twice[:2]
    objects = dict(place, objects=[dict(category_name="cat", bboxes=twice)])
    (tmp_path / "det.jsonl").write_text(json.dumps(objects))
    reader = GriffonScenes(tmp_path, "det.jsonl", "DET")
    assert [o.box.list() for o in reader[0].objects] == twice[:2]
    assert reader.box_counts["repeated"] == 1


def test_a_mask_of_a_repetition_is_kept(tmp_path):
    write_coco(tmp_path, (5, BOX), (5, BOX))
    path = tmp_path / "annotations.json"
    data = json.loads(path.read_text())
    data["annotations"][1]["segmentation"] = [[10, 10, 30, 10, 30, 30, 10, 30]]
    path.write_text(json.dumps(data))
    (cat,) = CocoScenes(tmp_path)[0].objects
    assert cat.mask is not None and cat.mask.area == 400


def test_a_record_that_is_read_again_is_counted_once(tmp_path):
    write_coco(tmp_path, (5, BOX), (5, BOX), (6, [-20, 10, 40, 40]), (6, [5, 5, 0, 5]))
    reader = CocoScenes(tmp_path, strict=False)
    counts = [
        (reader[0] and dict(reader.box_counts), dict(reader.left_out), len(reader.problems))
        for _ in range(3)
    ]
    assert counts[0] == counts[1] == counts[2] and counts[0][0]["repeated"] == 1
