"""Item 8: nothing is asked that the annotations do not say: neither about categories that nobody
marked, nor about an expression that is null.
"""

import json
import random

import pytest
from PIL import Image

from ferretlite.common.errors import InputError
from ferretlite.data.coco import CocoScenes
from ferretlite.data.detection_files import LvisScenes
from ferretlite.data.grounding_files import GriffonScenes
from ferretlite.data.referring_files import GenomeScenes, RefScenes
from ferretlite.scenes.conversations import make_conversation

SIZE = dict(height=80, width=200)


def annotation(number, image, category, **more):
    return dict(id=number, image_id=image, category_id=category, bbox=[10, 20, 30, 40]) | more


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("images/a.jpg", "a.jpg"):
        Image.new("RGB", (200, 80), "gray").save(tmp_path / name)
    return tmp_path


def write(folder, reader=CocoScenes, strict=True, **lists):
    "A COCO file with a cat in image 1, a dog in image 2, and two categories that nobody marked."
    data = dict(
        images=[dict(id=k, file_name="a.jpg", **SIZE) for k in (1, 2)],
        annotations=[annotation(1, 1, 5), annotation(2, 2, 6)],
        categories=[
            dict(id=k, name=n) for k, n in ((0, "vehicles"), (5, "cat"), (6, "dog"), (9, "_bg_"))
        ],
    )
    (folder / "a.json").write_text(json.dumps(data | lists))
    return reader(folder, "a.json", strict=strict)


def absences(scene, tasks=("find", "find_set", "search", "rec")) -> set:
    "Return the names that 80 conversations claim to be absent."
    found = set()
    for k in range(80):
        for task in tasks:
            for turn in make_conversation(scene, {task: 1.0}, random.Random(k), 2).turns:
                asked = set(turn.meta.get("names", [turn.meta.get("query"), turn.meta.get("kind")]))
                found |= asked - {o.name for o in scene.objects} - {None}
    return found


def test_a_category_without_any_annotation_is_never_asked_for(folder):
    reader = write(folder)
    assert reader[0].names == ["cat", "dog"]
    assert absences(reader[0]) == {"dog"} and absences(reader[1]) == {"cat"}


def test_names_without_any_box_in_a_file_of_griffon_are_absent_only_where_they_are_listed(folder):
    lines = [
        dict(
            image_path="a.jpg",
            **SIZE,
            objects=[
                dict(category_name="cat", bboxes=[[10, 20, 40, 60]]),
                *[dict(category_name=n, bboxes=[]) for n in more],
            ],
        )
        for more in (["zebra"], [])
    ]
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = GriffonScenes(folder, "a.jsonl", "DET")
    assert (first.names, second.names) == (["cat", "zebra"], ["cat"])


def test_an_image_of_lvis_without_lists_knows_no_absence(folder):
    images = [dict(id=k, file_name="a.jpg", **SIZE) for k in (1, 2)]
    reader = write(folder, LvisScenes, images=images, annotations=[annotation(1, 2, 5)])
    assert reader[0].names == [] and absences(reader[0]) == set()
    assert reader[1].names == ["cat"] and absences(reader[1]) == set()


def test_a_kind_that_is_only_a_crowd_is_not_absent(folder):
    crowd = [annotation(1, 1, 5), annotation(2, 1, 6, iscrowd=1), annotation(3, 2, 5)]
    scene = write(folder, annotations=crowd)[0]
    assert scene.partial == ("dog",) and absences(scene) == set()


def test_objects_are_not_counted_where_a_crowd_is(folder):
    scene = write(folder, annotations=[annotation(1, 1, 5), annotation(2, 1, 6, iscrowd=1)])[0]
    asked = {
        turn.meta["query"]
        for k in range(50)
        for turn in make_conversation(scene, dict(count=1.0), random.Random(k), 1).turns
    }
    assert asked == {"cat"}


def test_a_kind_whose_box_was_left_out_is_not_absent(folder):
    wrong = [annotation(1, 1, 5), annotation(2, 1, 6, bbox=[10, 20, 0, 40]), annotation(3, 2, 6)]
    scene = write(folder, annotations=wrong, strict=False)[0]
    assert scene.partial == ("dog",) and scene.names == ["cat"]
    assert "dog" not in absences(scene)
    wrong[1]["bbox"] = None
    scene = write(folder, annotations=wrong, strict=False)[0]
    assert scene.partial == ("dog",) and scene.names == ["cat"]
    assert "dog" not in absences(scene)
    wrong[1]["category_id"] = None  # an object of an unknown kind: nothing is known to be absent
    scene = write(folder, annotations=wrong, strict=False)[0]
    assert scene.partial == ("cat",) and absences(scene) == set()


@pytest.mark.parametrize("crowd", ["0", "1", "", "no", 2, []])
def test_a_crowd_mark_that_is_no_flag_is_refused(folder, crowd):
    listed = [annotation(1, 1, 5, iscrowd=crowd)]
    with pytest.raises(InputError, match="field iscrowd: found .*, expected 0, 1, false or true"):
        write(folder, annotations=listed)


@pytest.mark.parametrize("crowd, objects", [(0, 1), (False, 1), (None, 1), (1, 0), (True, 0)])
def test_crowd_marks(folder, crowd, objects):
    listed = [annotation(1, 1, 5, iscrowd=crowd)]
    assert len(write(folder, annotations=listed)[0].objects) == objects


def test_a_category_id_with_two_names_is_refused_and_with_one_is_not(folder):
    names = [dict(id=5, name="cat"), dict(id=6, name="dog"), dict(id=5, name="horse")]
    for strict in (True, False):
        with pytest.raises(
            InputError, match="record 2 of categories, field name: found 'horse', expected 'cat'"
        ):
            write(folder, categories=names, strict=strict)
    names[2]["name"] = "cat"
    assert [o.name for o in write(folder, categories=names)[0].objects] == ["cat"]


@pytest.mark.parametrize("said", [None, "", " ", "\n", [], [None], 7, "<image>"])
def test_an_expression_without_words_is_no_question(folder, said):
    line = dict(image_path="a.jpg", **SIZE, expression=said, bboxes=[[10, 20, 40, 60]])
    (folder / "a.jsonl").write_text(json.dumps(line))
    with pytest.raises(InputError, match="expression: found .*, expected .*"):
        GriffonScenes(folder, "a.jsonl", "VG")[0]
    lax = GriffonScenes(folder, "a.jsonl", "VG", strict=False)
    assert sum(len(scene.phrases) for scene in lax) == 0 and sum(lax.left_out.values()) == 1


@pytest.mark.parametrize("said", [None, "", " ", 7, "<image>"])
def test_a_caption_without_words_is_no_expression(folder, said):
    data = dict(
        images=[dict(id=1, file_name="a.jpg", caption=said, **SIZE)],
        annotations=[dict(id=1, image_id=1, bbox=[10, 20, 30, 40])],
    )
    (folder / "a.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"caption: found|words that describe"):
        RefScenes(folder, "a.json", "images")[0]


@pytest.mark.parametrize("said", [None, 7])
def test_a_phrase_of_visual_genome_that_is_no_text(folder, said):
    region = dict(phrase=said, x=10, y=20, width=30, height=40)
    (folder / "region_descriptions.json").write_text(json.dumps([dict(id=1, regions=[region])]))
    (folder / "image_data.json").write_text(
        json.dumps([dict(image_id=1, url="https://x.org/./a.jpg", **SIZE)])
    )
    with pytest.raises(InputError, match="region 0, field phrase: found"):
        GenomeScenes(folder)
    assert GenomeScenes(folder, strict=False)[0].phrases == []
