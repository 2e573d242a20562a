"Scenes from files and from nowhere, and the batches they become."

import json
import random

import pytest
import torch

from ferretlite.common.errors import InputError
from ferretlite.data.batches import Collator, ConversationDataset, SceneStream
from ferretlite.data.coco import CocoScenes
from ferretlite.scenes.griffon_tasks import GRIFFON_TASKS
from ferretlite.scenes.questions import Conversation
from ferretlite.scenes.tasks import TASKS
from ferretlite.scenes.world import export_coco, make_scene

SCENES = [
    make_scene(s, (120, 160), split)
    for s, split in enumerate(("train", "test", "count", "unseen", "large"))
]


@pytest.fixture
def folder(tmp_path):
    export_coco(SCENES, tmp_path)
    return tmp_path


def change(folder, edit):
    "Rewrite the annotations."
    path = folder / "annotations.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def test_exported_scenes_come_back_whole(folder):
    found = CocoScenes(folder)
    assert len(found) == len(SCENES)
    for scene, again in zip(SCENES, found):
        assert again.size == scene.size and again.image.tobytes() == scene.image.tobytes()
        assert (again.id, again.caption, again.seed, again.split) == (
            scene.id,
            scene.caption,
            scene.seed,
            scene.split,
        )
        assert again.objects == scene.objects  # names, boxes, masks, colours, fills, texts
    assert any(o.text for s in found for o in s.objects)


def test_exported_scenes_pose_the_same_questions(folder):
    tasks = dict.fromkeys(TASKS, 1.0)
    for a, b in zip(
        ConversationDataset(SCENES, tasks, 6), ConversationDataset(CocoScenes(folder), tasks, 6)
    ):
        assert [(t.prompt, t.answer, t.regions) for t in a.turns] == [
            (t.prompt, t.answer, t.regions) for t in b.turns
        ]


def test_plain_coco_without_our_keys_is_enough(folder):
    def strip(data):
        for a in data["annotations"]:
            for key in ("color", "fill", "text", "iscrowd", "area"):
                a.pop(key)
            a["segmentation"] = [
                [1, 1, 5, 1, 5, 5]
            ]  # a polygon: below the diagonal of 4 x 4 pixels
        for r in data["images"]:
            for key in ("caption", "split", "seed"):
                r.pop(key)
        data["annotations"][0]["iscrowd"] = 1

    change(folder, strip)
    found = CocoScenes(folder)
    scene = found[0]
    data = json.loads((folder / "annotations.json").read_text())
    used = {a["category_id"] for a in data["annotations"]}
    marked = [c["name"] for c in data["categories"] if c["id"] in used]
    assert len(scene.objects) == len(SCENES[0].objects) - 1
    assert (
        all(o.phrase == o.name and o.mask.area == 6 for o in scene.objects)
        and scene.caption is None
        and scene.split == "train"
    )
    assert (
        scene.names == list(dict.fromkeys(marked)) and len(scene.partial) == 1
    )  # a crowd is not counted
    assert ConversationDataset([scene], dict.fromkeys(TASKS, 1.0), 5)[0].turns


def test_pictures_are_opened_when_asked_for(folder):
    (folder / "images" / f"{SCENES[1].id}.png").unlink()
    found = CocoScenes(folder)
    assert found[0].id == SCENES[0].id
    with pytest.raises(FileNotFoundError, match=SCENES[1].id):
        found[1]


@pytest.mark.parametrize("name", ["../annotations.json", "/etc/passwd", "a/../../annotations.json"])
def test_a_file_name_that_leads_out_of_the_folder_is_refused(folder, name):
    change(folder, lambda data: data["images"][0].update(file_name=name))
    with pytest.raises(ValueError, match="Image 0: found the file name .* leads out of images"):
        CocoScenes(folder)[0]


def test_a_link_that_leads_out_of_the_folder_is_refused(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "x.png"
    SCENES[0].image.save(other)
    (folder / "images" / "link.png").symlink_to(other)
    change(folder, lambda data: data["images"][0].update(file_name="link.png"))
    with pytest.raises(ValueError, match="leads out"):
        CocoScenes(folder)[0]


@pytest.mark.parametrize(
    "edit, says",
    [
        (lambda d: d.pop("categories"), "annotations.json: found no list 'categories'"),
        (lambda d: d["images"][2].pop("height"), "record 2 of images, field height: found nothing"),
        (
            lambda d: d["annotations"][3].pop("bbox"),
            "record 3 of annotations, field bbox: found nothing",
        ),
        (
            lambda d: d["categories"].__setitem__(1, "cat"),
            "record 1 of categories: found 'cat', expected a record",
        ),
        (
            lambda d: d["annotations"][0].update(image_id=99),
            "annotation 1, field image_id: found 99, expected an image",
        ),
        (
            lambda d: d["annotations"][0].update(category_id=99),
            "annotation 1, field category_id: found 99",
        ),
    ],
)
def test_a_missing_key_or_id_is_named(folder, edit, says):
    change(folder, edit)
    with pytest.raises(ValueError, match=says):
        CocoScenes(folder)


@pytest.mark.parametrize(
    "edit, says",
    [
        (dict(bbox=[1, 2, 0, 5]), "annotation 1, field bbox: .*sides are positive"),
        (dict(bbox=[1, 2, 3]), "record 0 of annotations, field bbox: .*four finite numbers"),
        (dict(bbox=[500, 500, 5, 5]), "annotation 1, field bbox: .*a box inside its image"),
        (dict(bbox=[1, 2, float("nan"), 5]), "field bbox: .*four finite numbers"),
        (
            dict(segmentation=dict(size=[9, 9], counts="1")),
            "annotation 1, field segmentation: found .*expected COCO RLE",
        ),
        (
            dict(segmentation=dict(size=[120, 160])),
            "annotation 1, field segmentation: found .*expected COCO RLE",
        ),
    ],
)
def test_a_broken_annotation_is_named(folder, edit, says):
    change(folder, lambda data: data["annotations"][0].update(edit))
    with pytest.raises(ValueError, match=says):
        CocoScenes(folder)[0]


def test_a_picture_of_another_size_is_named(folder):
    SCENES[0].image.resize((10, 12)).save(folder / "images" / f"{SCENES[0].id}.png")
    with pytest.raises(ValueError, match=f"{SCENES[0].id}.png: found 12 x 10 .*expected 120 x 160"):
        CocoScenes(folder)[0]


def test_what_is_no_annotation_file_gets_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected COCO annotations"):
        CocoScenes(tmp_path)
    (tmp_path / "annotations.json").write_text("{")
    with pytest.raises(ValueError, match="found broken JSON"):
        CocoScenes(tmp_path)
    (tmp_path / "annotations.json").write_text("[]")
    with pytest.raises(ValueError, match="found no list 'images'"):
        CocoScenes(tmp_path)


def told(conversation):
    return conversation.id, [(t.prompt, t.answer, t.regions) for t in conversation.turns]


def test_a_sample_depends_on_its_seed_and_number_alone():
    data = ConversationDataset(SceneStream(8, 40), dict.fromkeys(TASKS, 1.0), 4)
    random.seed(1)
    torch.manual_seed(1)
    forward = [told(data[i]) for i in range(8)]
    random.seed(2)
    torch.manual_seed(2)
    backward = [told(data[i]) for i in reversed(range(8))][::-1]
    assert forward == backward
    assert (
        told(ConversationDataset(SceneStream(8, 40), dict.fromkeys(TASKS, 1.0), 4, seed=1)[0])
        != forward[0]
    )
    assert (
        told(ConversationDataset(SceneStream(4, 44), dict.fromkeys(TASKS, 1.0), 4)[0])[0]
        == forward[4][0]
        == "train-44"
    )


def test_the_order_of_boxes_is_a_switch_that_asks_the_same_questions():
    tasks = dict.fromkeys(GRIFFON_TASKS, 1.0)
    as_ever, left, raster = (
        ConversationDataset(SceneStream(4, 40, size=128), tasks, 6, **given)
        for given in ({}, dict(order="left"), dict(order="raster"))
    )
    for i in range(4):
        assert told(as_ever[i]) == told(left[i])
        assert [t.prompt for t in left[i].turns] == [t.prompt for t in raster[i].turns]
    tops = [
        [g.boxes[0].y1 for g in t.meta["groundings"]]
        for i in range(4)
        for t in raster[i].turns
        if "groundings" in t.meta
    ]
    assert (
        all(t == sorted(t) for t in tops)
        and max(map(len, tops)) > 2
        and any(told(left[i]) != told(raster[i]) for i in range(4))
    )
    with pytest.raises(ValueError, match="order: found 'top', expected one of left, raster."):
        ConversationDataset(SceneStream(4), tasks, order="top")


def test_workers_give_the_batches_of_the_main_process(random_model):
    data, collate = (
        ConversationDataset(SceneStream(4, 7), dict(name=1.0, rec=1.0), 2),
        Collator(random_model[1]),
    )
    here, there = (
        list(torch.utils.data.DataLoader(data, 2, collate_fn=collate, num_workers=n))
        for n in (0, 1)
    )
    for a, b in zip(here, there):
        assert a["ids"] == b["ids"] and a["regions"] == b["regions"]
        assert all(torch.equal(a[k], b[k]) for k in a if torch.is_tensor(a[k]))


def test_stream_sizes():
    assert SceneStream(3, size=64)[0].size == (64, 64) and SceneStream(3, size=(64, 96))[
        0
    ].size == (64, 96)
    assert len({SceneStream(30)[i].size for i in range(30)}) > 3 and len(SceneStream(30)) == 30


def test_a_share_of_the_stream_is_long():
    plain, mixed = SceneStream(60, 7), SceneStream(60, 7, long=0.4)
    pairs = [(plain[i].size, mixed[i].size) for i in range(60)]
    long = [b for a, b in pairs if a != b]
    ratios = [max(size) / min(size) for size in long]
    assert 0.2 < len(long) / 60 < 0.6  # three standard deviations
    assert 2 <= min(ratios) + 0.02 and max(ratios) <= 5.05 and max(ratios) > 3
    assert {w > h for h, w in long} == {True, False}
    assert all(abs(h * w / 384**2 - 1) < 0.02 for h, w in long)
    assert SceneStream(9, 7, size=64, long=1.0)[0].size == (64, 64)
    with pytest.raises(InputError, match="long: found 1.5"):
        SceneStream(9, long=1.5)


def test_scenes_that_pose_no_question_are_left_out_of_a_batch(random_model):
    collate, data = (
        Collator(random_model[1]),
        ConversationDataset(SceneStream(2, 7), dict(name=1.0), 1),
    )
    silent = Conversation(SCENES[0].image, SCENES[0].size, [], "silent-1")
    assert collate([data[0], silent, data[1]])["ids"] == ["train-7", "train-8"]
    with pytest.raises(ValueError, match="None of silent-1"):
        collate([silent])


# What a stream and a reader are asked for


def test_a_stream_ends_and_refuses_shares_that_cannot_be():
    assert len([scene.seed for scene in SceneStream(2, size=64)]) == 2
    with pytest.raises(IndexError, match="scene: found the number 2"):
        SceneStream(2)[2]
    for others in (dict(count=0.7, practice=0.5), dict(count=-0.1), dict(train=0.5)):
        with pytest.raises(ValueError, match="add up to at most 1"):
            SceneStream(2, others=others)


def test_pictures_are_left_out_however_they_are_named(folder):
    names = CocoScenes(folder).pictures
    assert (
        len(CocoScenes(folder, exclude=names[0]))
        == len(names) - 1
        == len(CocoScenes(folder, exclude=iter([names[0]])))
    )
    other = json.loads((folder / "annotations.json").read_text())
    for i, image in enumerate(other["images"]):
        (folder / "images" / f"{i:012d}.png").write_bytes(
            (folder / "images" / image["file_name"].split("/")[-1]).read_bytes()
        )
        image["file_name"] = f"{i:012d}.png"
    (folder / "annotations.json").write_text(json.dumps(other))
    ids = CocoScenes(folder).coco_ids
    assert (
        len(CocoScenes(folder, exclude=ids)) == 0
        and len(CocoScenes(folder, exclude=ids[:1])) == len(ids) - 1
    )
    with pytest.raises(ValueError, match="expected COCO numbers, file names and paths of pictures"):
        CocoScenes(folder, exclude=[1.5])


@pytest.mark.parametrize(
    "kind, key, value, told",
    [
        ("images", "file_name", 5, "field file_name: found 5, expected a file name"),
        ("images", "height", "60", "field height: found '60', expected a whole number"),
        ("categories", "id", "cat", "field id: found 'cat', expected a whole number"),
        ("categories", "name", None, "field name: found nothing, expected a name"),
        ("annotations", "image_id", [1], "field image_id: found [1]"),
        ("images", "id", None, "field id: found nothing"),
    ],
)
def test_a_value_of_another_type_is_named(folder, kind, key, value, told):
    found = json.loads((folder / "annotations.json").read_text())
    found[kind][0][key] = value
    (folder / "annotations.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match="record 0 of " + kind) as error:
        CocoScenes(folder)
    assert told in str(error.value)


def test_two_images_with_one_id_are_refused(folder):
    found = json.loads((folder / "annotations.json").read_text())
    found["images"][1]["id"] = found["images"][0]["id"]
    (folder / "annotations.json").write_text(json.dumps(found))
    with pytest.raises(
        ValueError, match="record 1 of images, field id: found 0, expected a number of its own"
    ):
        CocoScenes(folder)
