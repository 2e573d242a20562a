"""Item 8: a name that means a present kind in other words (`Cat `, `cats`) is never absent."""

import json
import random

import pytest
from PIL import Image

from ferretlite.data.coco import CocoScenes, drop_other_words, merge_spellings
from ferretlite.data.grounding_files import GriffonScenes
from ferretlite.scenes.conversations import make_conversation

SIZE = dict(height=80, width=200)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (200, 80), "gray").save(tmp_path / "images" / "a.jpg")
    return tmp_path


def write(folder, present, *others):
    "A COCO file: `present` in image 1, and the other names in image 2."
    names = [present, *others]
    images = [dict(id=k, file_name="a.jpg", **SIZE) for k in (1, 2)]
    annotations = [
        dict(id=k, image_id=1 if k == 0 else 2, category_id=k, bbox=[10, 20, 30, 40])
        for k in range(len(names))
    ]
    categories = [dict(id=k, name=name) for k, name in enumerate(names)]
    data = dict(images=images, annotations=annotations, categories=categories)
    (folder / "a.json").write_text(json.dumps(data))
    return CocoScenes(folder, "a.json")


@pytest.mark.parametrize(
    "present, other",
    [
        ("cat", "Cat "),
        ("cat", "cats"),
        ("cats", "cat"),
        ("person", "people"),
        ("traffic light", "traffic_light"),
        ("the dog", "dog"),
        ("glass", "glasses"),
    ],
)
def test_the_same_kind_is_not_absent(folder, present, other):
    scene = write(folder, present, other, "tree")[0]
    assert "tree" in scene.names and other.strip() not in set(scene.names) - {scene.objects[0].name}
    for k in range(60):
        tasks = {"find": 1.0, "find_set": 1.0, "search": 1.0, "choose": 1.0}
        for turn in make_conversation(scene, tasks, random.Random(k), 4).turns:
            asked = {turn.meta.get("query"), turn.meta.get("kind"), *turn.meta.get("names", ())}
            assert other.strip() not in asked - {scene.objects[0].name}


def test_spellings_of_one_name_are_one_kind(folder):
    reader = write(folder, "cat", "Cat ", "cats")
    assert [o.name for o in reader[1].objects] == ["cat", "cats"]
    assert merge_spellings(["a", "A ", "b"]) == {"a": "a", "A ": "a", "b": "b"}
    assert drop_other_words(["dog", "dogs", "cow"], ["dog"]) == ["dog", "cow"]


def test_names_of_griffon_are_compared_so_too(folder):
    objects = [
        dict(category_name="cat", bboxes=[[10, 20, 40, 60]]),
        dict(category_name="Cats", bboxes=[]),
        dict(category_name="cow", bboxes=[]),
    ]
    line = dict(image_path="a.jpg", **SIZE, objects=objects)
    (folder / "a.jsonl").write_text(json.dumps(line))
    (scene,) = GriffonScenes(folder, "a.jsonl", "DET")
    assert scene.names == ["cat", "cow"]
