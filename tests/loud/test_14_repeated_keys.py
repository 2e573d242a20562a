"""Item 14: a key that stands twice in one record is no record, and the message names the key."""

import json

import pytest
from PIL import Image

from ferretlite.common.errors import InputError
from ferretlite.data.coco import CocoScenes
from ferretlite.data.llava import LlavaDialogues
from ferretlite.data.readers import walk_json
from ferretlite.exams.core import read_exam_json

IMAGE = '{"id": 1, "file_name": "a.png", "height": 100, "width": 200}'
CATEGORY = '{"id": 5, "name": "cat"}'
RIGHT = '{"id": 3, "image_id": 1, "category_id": 5, "bbox": [10, 10, 20, 20]}'
TWO_BOXES = (
    '{"id": 4, "image_id": 1, "category_id": 5, "bbox": [1, 1, 9, 9], "bbox": [9, 9, 50, 50]}'
)
NESTED = (
    '{"id": 4, "image_id": 1, "category_id": 5, "bbox": [1, 1, 9, 9], '
    '"segmentation": {"size": [100, 200], "counts": "a", "counts": "b"}}'
)


def write_coco(folder, *annotations, more=""):
    (folder / "images").mkdir()
    Image.new("RGB", (200, 100), "gray").save(folder / "images" / "a.png")
    lists = f'"images": [{IMAGE}], "annotations": [{", ".join(annotations)}]'
    text = f'{{{lists}, "categories": [{CATEGORY}]{more}}}'
    (folder / "annotations.json").write_text(text)


@pytest.mark.parametrize("wrong, key", [(TWO_BOXES, "bbox"), (NESTED, "counts")])
def test_an_annotation_with_a_key_twice_is_refused_or_counted(tmp_path, wrong, key):
    write_coco(tmp_path, RIGHT, wrong)
    place = f"record 1 of annotations: found the key '{key}' twice in one object, expected each key"
    with pytest.raises(InputError, match=place):
        CocoScenes(tmp_path)
    reader = CocoScenes(tmp_path, strict=False)
    assert [o.box.list() for o in reader[0].objects] == [[10, 10, 30, 30]]
    assert sum(reader.left_out.values()) == 1 and place in reader.problems[0][1]
    assert "cat" in reader[0].partial  # an object is missing: nobody may ask for all cats


def test_a_list_that_stands_twice_in_a_file_is_refused(tmp_path):
    write_coco(tmp_path, RIGHT, more=', "annotations": []')
    with pytest.raises(InputError, match="found the key 'annotations' twice in one object"):
        CocoScenes(tmp_path)


@pytest.mark.parametrize("name", ["l.json", "l.jsonl"])
def test_a_dialogue_with_a_key_twice_is_refused_or_counted(tmp_path, name):
    said = '[{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "A", "value": "B"}]'
    wrong = f'{{"id": 1, "conversations": {said}}}'
    right = wrong.replace('"A", "value": ', "")
    lines = [right, wrong]
    text = "\n".join(lines) if name == "l.jsonl" else f"[{', '.join(lines)}]"
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="found the key 'value' twice in one object"):
        LlavaDialogues(tmp_path, name, ".")
    reader = LlavaDialogues(tmp_path, name, ".", strict=False)
    assert len(reader) == 1 and sum(reader.left_out.values()) == 1


def test_files_of_exams_are_read_by_the_same_rule(tmp_path):
    (tmp_path / "e.json").write_text('{"a": 1, "a": 2}')
    with pytest.raises(InputError, match="found the key 'a' twice in one object"):
        read_exam_json(tmp_path / "e.json", "an exam")


@pytest.mark.parametrize("block", [1, 2, 3, 7, 100])
def test_records_after_a_repeated_key_are_read_whole(tmp_path, block):
    path = tmp_path / "x.json"
    path.write_text('[{"a": 1}, {"b": 1, "b": 2, "c": 3}, {"a": 4.5}]')
    (_, first), (_, wrong), (_, last) = walk_json(path, block=block)
    assert first == {"a": 1} and last == {"a": 4.5}
    assert type(wrong) is not dict and wrong.get("b") is None and wrong["c"] == 3


def test_equal_keys_of_different_objects_are_no_repetition(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([dict(a=dict(a=1), b=[dict(a=2), dict(a=3)])]))
    assert [item for _, item in walk_json(path)] == json.loads(path.read_text())
