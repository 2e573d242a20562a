"""Readers and writers of other people's formats, on records that are written out by hand."""

import json
import random
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ferretlite.data.detection_files import (
    LvisScenes,
    Objects365Scenes,
    _make_run_polygons,
    convert_to_xywh,
    export_lvis,
    export_objects365,
    make_coco_names,
    save_scene_image,
)
from ferretlite.data.grounding_files import (
    _ENTITY_PATTERN,
    _GRIFFON_KINDS,
    FlickrScenes,
    GriffonScenes,
    _read_entity_boxes,
    _read_entity_sentence,
    export_flickr,
    export_griffon,
)
from ferretlite.data.readers import read_json_lines
from ferretlite.data.referring_files import (
    GenomeScenes,
    RefScenes,
    _collect_coco_ids,
    export_genome,
    export_refcoco,
    make_expressions,
    strip_prompt_marks,
)
from ferretlite.regions.geometry import Box, Mask
from ferretlite.scenes.world import (
    KINDS,
    Scene,
    SceneObject,
    add_article,
    make_scene,
    sort_in_raster_order,
)

HEIGHT, WIDTH = 80, 200


def picture(path, size=(WIDTH, HEIGHT)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "gray").save(path)


def block(x1, y1, x2, y2, size=(HEIGHT, WIDTH)):
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def small_scenes():
    size = (60, 90)
    first = [
        SceneObject(
            "star", Box(10, 20, 40, 50), Mask(block(10, 20, 40, 50, size)), "red", "filled"
        ),
        SceneObject(
            "dice 3", Box(50, 5, 80, 21), Mask(block(50, 5, 80, 21, size)), "blue", "outlined"
        ),
        SceneObject(
            "star", Box(45, 30, 66, 58), Mask(block(45, 30, 66, 58, size)), "green", "filled"
        ),
    ]
    second = [
        SceneObject(
            "novel 4", Box(3, 4, 30, 50), Mask(block(3, 4, 30, 50, (90, 60))), "pink", "filled"
        )
    ]
    image = Image.new("RGB", (90, 60), "white")
    return [
        Scene(image, size, first, "one"),
        Scene(image.rotate(90, expand=True), (90, 60), second, "two"),
    ]


# -- helpers


def test_a_mask_as_rectangles_covers_the_same_pixels_once():
    rng = np.random.default_rng(0)
    for mask in (
        rng.random((5, 7)) < 0.5,
        np.ones((4, 3), bool),
        block(2, 0, 4, 5, (5, 7)),
        np.eye(6, 4) > 0,
    ):
        count = np.zeros(mask.shape, int)
        for polygon in _make_run_polygons(Mask(mask)):
            x, y = polygon[::2], polygon[1::2]
            assert (
                len(polygon) == 8
                and x == [x[0], x[0] + 1, x[0] + 1, x[0]]
                and y == [y[0], y[0], y[2], y[2]]
            )
            count[int(y[0]) : int(y[2]), int(x[0])] += 1
        assert np.array_equal(count, mask.astype(int))
    assert _make_run_polygons(Mask(block(2, 1, 3, 4, (6, 9)))) == [[2, 1, 3, 1, 3, 4, 2, 4]]


def test_small_helpers(tmp_path):
    assert make_coco_names(None, 42) == (
        "train2017/000000000042.jpg",
        "COCO_train2014_000000000042.jpg",
    )
    assert convert_to_xywh(Box(1, 2, 4, 9)) == [1, 2, 3, 7]
    assert strip_prompt_marks(" A <region> cat\non <image>a <crop>\tmat ") == "A cat on a mat"
    assert strip_prompt_marks(7) == "7" and strip_prompt_marks("a < b") == "a < b"
    save_scene_image(small_scenes()[0], tmp_path / "a" / "b.jpg")
    with Image.open(tmp_path / "a" / "b.jpg") as saved:
        assert saved.size == (90, 60) and saved.format == "JPEG"
        assert (
            saved.quantization[0][0] == 2
        )  # the first entry of the standard table, 16, at quality 95: (16 x 10 + 50) / 100
    assert _GRIFFON_KINDS == ("DET", "RANDDET", "VG", "REG", "VISJ")


def test_lines_are_numbered_from_one_and_empty_ones_passed_over(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n  \n[2]\n"three"')
    assert list(read_json_lines(path, "x")) == [(1, {"a": 1}), (4, [2]), (5, "three")]
    path.write_bytes(b'{"a": 1}\n\xff\xfe')
    with pytest.raises(ValueError, match="found bytes that are not text"):
        list(read_json_lines(path, "x"))
    with pytest.raises(FileNotFoundError, match="expected cats, one a line"):
        list(read_json_lines(tmp_path / "b.jsonl", "cats"))


# -- LVIS and Objects365


def lvis(folder, images, categories=(), annotations=()):
    (folder / "lvis_v1_train.json").write_text(
        json.dumps(dict(images=images, categories=list(categories), annotations=list(annotations)))
    )
    return LvisScenes(folder)


def test_lvis_names_lose_their_brackets_where_they_stay_apart(tmp_path):
    names = [
        "crab_(animal)",
        "crab_(food)",
        "bow_(weapon)",
        "alarm_clock",
        "(thing)",
        "bow-tie",
        "pan_(for_frying)_lid",
    ]
    reader = lvis(tmp_path, [], [dict(id=10 + k, name=n) for k, n in enumerate(names)])
    assert reader.names == {
        10: "crab (animal)",
        11: "crab (food)",
        12: "bow",
        13: "alarm clock",
        14: "(thing)",
        15: "bow-tie",
        16: "pan lid",
    }


def test_lvis_pictures_absences_and_parts(tmp_path):
    images = [
        dict(
            id=7,
            height=HEIGHT,
            width=WIDTH,
            coco_url="http://x.org/y/val2017/000000000007.jpg",
            neg_category_ids=[3, 1, 9],
            not_exhaustive_category_ids=[2, 9],
        ),
        dict(
            id=8,
            height=HEIGHT,
            width=WIDTH,
            file_name="own/eight.jpg",
            coco_url="http://x.org/y/val2017/000000000008.jpg",
        ),
    ]
    categories = [dict(id=k, name=n) for k, n in ((1, "cat"), (2, "dog"), (3, "tea_pot"))]
    annotations = [
        dict(id=5, image_id=7, category_id=2, bbox=[10, 20, 30, 40]),
        dict(id=6, image_id=7, category_id=1, bbox=[1, 2, 3, 4]),
    ]
    picture(tmp_path / "val2017" / "000000000007.jpg")
    picture(tmp_path / "own" / "eight.jpg")
    reader = lvis(tmp_path, images, categories, annotations)
    scene, other = reader[0], reader[1]
    assert [(o.name, o.box) for o in scene.objects] == [
        ("dog", Box(10, 20, 40, 60)),
        ("cat", Box(1, 2, 4, 6)),
    ]
    assert scene.names == ["dog", "cat", "tea pot"] and scene.partial == (
        "dog",
    )  # 9 is no category
    assert reader.coco_ids.tolist() == [7, -1] and reader.pictures == [
        "val2017/000000000007.jpg",
        "own/eight.jpg",
    ]
    assert (other.names, other.partial, other.id) == ([], (), "eight")


def test_exported_lvis(tmp_path):
    scenes = small_scenes()
    path = export_lvis(scenes, tmp_path)
    data = json.loads(path.read_text())
    assert path == tmp_path / "lvis_v1_train.json"
    one, two = data["images"]
    assert (one["id"], one["height"], one["width"]) == (1, 60, 90)
    assert (
        one["coco_url"] == "http://images.cocodataset.org/train2017/000000000001.jpg"
        and (tmp_path / "train2017" / "000000000002.jpg").exists()
    )
    names = {c["id"]: c["name"] for c in data["categories"]}
    assert list(names) == list(range(1, 43)) and (names[3], names[41], names[42]) == (
        "dice_3",
        "word",
        "novel_4",
    )
    assert [names[k].replace("_", " ") for k in range(1, 41)] == list(KINDS)
    absent = [names[k] for k in one["neg_category_ids"]]
    assert (
        len(set(absent)) == 3
        and not {"star", "dice_3", "word"} & set(absent)
        and one["not_exhaustive_category_ids"] == []
    )
    assert two["neg_category_ids"] != one["neg_category_ids"]
    found = [
        (a["id"], a["image_id"], names[a["category_id"]], a["bbox"], a["area"])
        for a in data["annotations"]
    ]
    assert found == [
        (1, 1, "star", [10, 20, 30, 30], 900),
        (2, 1, "dice_3", [50, 5, 30, 16], 480),
        (3, 1, "star", [45, 30, 21, 28], 588),
        (4, 2, "novel_4", [3, 4, 27, 46], 1242),
    ]
    assert data["annotations"][1]["segmentation"][0] == [50, 5, 51, 5, 51, 21, 50, 21]


def test_objects365_names_are_lower_case_and_pictures_lie_under_either_name(tmp_path):
    data = dict(
        images=[
            dict(id=k, file_name=n, height=HEIGHT, width=WIDTH)
            for k, n in ((1, "images/v2/patch3/a.jpg"), (2, "images/v2/patch3/b.jpg"))
        ],
        categories=[dict(id=4, name="Wine Glass")],
        annotations=[],
    )
    data["annotations"] = [dict(id=1, image_id=2, category_id=4, bbox=[10, 20, 30, 40])]
    (tmp_path / "zhiyuan_objv2_train.json").write_text(json.dumps(data))
    picture(tmp_path / "train" / "patch3" / "a.jpg")
    picture(tmp_path / "train" / "images" / "v2" / "patch3" / "b.jpg")
    reader = Objects365Scenes(tmp_path)
    assert reader.path(0) == tmp_path / "train" / "patch3" / "a.jpg"
    assert reader.path(1) == tmp_path / "train" / "images" / "v2" / "patch3" / "b.jpg"
    assert reader.path(0, "images/v2/no/c.jpg") == tmp_path / "train" / "no" / "c.jpg"
    assert (
        reader[1].objects[0].name == "wine glass"
        and reader[1].names == ["wine glass"]
        and reader[0].objects == []
    )


def test_exported_objects365(tmp_path):
    path = export_objects365(small_scenes(), tmp_path)
    data = json.loads(path.read_text())
    assert path == tmp_path / "zhiyuan_objv2_train.json"
    assert [(r["id"], r["file_name"], r["height"], r["width"]) for r in data["images"]] == [
        (1, "images/v2/patch0/objects365_v2_00000001.jpg", 60, 90),
        (2, "images/v2/patch0/objects365_v2_00000002.jpg", 90, 60),
    ]
    assert (tmp_path / "train" / "patch0" / "objects365_v2_00000002.jpg").exists()
    names = {c["id"]: c["name"] for c in data["categories"]}
    found = [
        (a["id"], a["image_id"], names[a["category_id"]], a["bbox"], a["area"], a["iscrowd"])
        for a in data["annotations"]
    ]
    assert found[1:] == [
        (2, 1, "Dice 3", [50, 5, 30, 16], 480, 0),
        (3, 1, "Star", [45, 30, 21, 28], 588, 0),
        (4, 2, "Novel 4", [3, 4, 27, 46], 1242, 0),
    ]


# -- RefCOCO


def mdetr(folder, images, annotations):
    (folder / "finetune_refcoco_train.json").write_text(
        json.dumps(dict(images=images, annotations=annotations))
    )
    return RefScenes(folder)


def test_expressions_of_mdetrs_form_come_once_a_picture(tmp_path):
    def image(k, name, caption):
        return dict(id=k, file_name=name, height=HEIGHT, width=WIDTH, caption=caption)

    images = [
        image(1, "COCO_train2014_000000000009.jpg", "left <image> cat"),
        image(2, "b.jpg", "a cow"),
        image(5, "COCO_train2014_000000000009.jpg", "right\ncat"),
    ]
    mask = Mask(block(10, 20, 40, 60))
    annotations = [
        dict(image_id=5, bbox=[100, 8, 50, 30]),
        dict(image_id=1, bbox=[10, 20, 30, 40], segmentation=mask.rle),
        dict(image_id=1, bbox=[0, 0, 5, 5]),
        dict(image_id=2, bbox=[3, 4, 5, 6]),
    ]
    reader = mdetr(tmp_path, images, annotations)
    for name in reader.pictures:
        picture(tmp_path / "train2014" / name)
    assert reader.pictures == [
        "COCO_train2014_000000000009.jpg",
        "b.jpg",
    ] and reader.coco_ids.tolist() == [9, -1]
    first, second = reader
    assert [(p.text, p.boxes, p.mask) for p in first.phrases] == [
        ("left cat", [Box(10, 20, 40, 60)], mask),
        ("right cat", [Box(100, 8, 150, 38)], None),
    ]
    assert [(p.text, p.box) for p in second.phrases] == [("a cow", Box(3, 4, 8, 10))]
    assert (first.id, first.size, first.objects) == (
        "COCO_train2014_000000000009",
        (HEIGHT, WIDTH),
        [],
    )
    with pytest.raises(
        ValueError, match=r"image 2: found no box, expected one for the expression 'a cow'"
    ):
        mdetr(tmp_path, images, annotations[:3])
    with pytest.raises(ValueError, match="found no images"):
        mdetr(tmp_path, [], [])


def test_a_broken_mask_of_an_expression_is_raised_or_left_out(tmp_path):
    images = [
        dict(id=1, file_name="b.jpg", height=HEIGHT, width=WIDTH, caption="a cow"),
        dict(id=2, file_name="b.jpg", height=HEIGHT, width=WIDTH, caption="a cat"),
    ]
    annotations = [
        dict(image_id=1, bbox=[3, 4, 5, 6], segmentation=[[1, 2, 3, 4]]),
        dict(image_id=2, bbox=[3, 4, 0, 6]),
    ]
    picture(tmp_path / "train2014" / "b.jpg")
    with pytest.raises(ValueError, match="'a cow', the mask: found .*expected COCO RLE"):
        mdetr(tmp_path, images, annotations)[0]
    lax = RefScenes(tmp_path, strict=False)
    assert [(p.text, p.mask) for p in lax[0].phrases] == [("a cow", None)] and lax.left_out == {
        "mask": 1,
        "box": 1,
    }


def parquet(folder, name="ref.parquet", **columns):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), folder / name)
    return name


def rows_of(reader):
    return [
        (
            reader.picture(i),
            reader.record(i)["size"],
            [p["text"] for p in reader.record(i)["phrases"]],
        )
        for i in range(len(reader))
    ]


def test_raw_sentences_are_read_before_those_that_were_cleaned(tmp_path):
    """`sent` is lower case without punctuation; `raw` is what was said."""
    said = [[dict(raw="The Man, left", sent="the man left"), dict(raw=None, sent="a man")]]
    info = [
        json.dumps(dict(file_name="COCO_train2014_000000000005.jpg", height=HEIGHT, width=WIDTH))
    ]
    name = parquet(
        tmp_path,
        sentences=said,
        raw_image_info=info,
        raw_anns=[json.dumps(dict(bbox=[1, 2, 3, 4]))],
        bbox=[[9.0, 9, 9, 9]],
    )
    reader = RefScenes(tmp_path, name)
    assert rows_of(reader) == [
        ("COCO_train2014_000000000005.jpg", [HEIGHT, WIDTH], ["The Man, left", "a man"])
    ]
    assert reader.record(0)["phrases"][0]["bbox"] == [1, 2, 4, 6] and reader.coco_ids.tolist() == [
        5
    ]


def test_columns_of_parquet_files_and_which_goes_first(tmp_path):
    both = dict(bbox=[[10.0, 20, 30, 40]], answer=[["an answer"]], file_name=["of_crop.jpg"])
    assert rows_of(RefScenes(tmp_path, parquet(tmp_path, **both))) == [
        ("of_crop.jpg", None, ["an answer"])
    ]
    both |= dict(
        captions=[["a caption"]],
        image_path=["coco/train2014/whole.jpg"],
        height=[HEIGHT],
        width=[WIDTH],
    )
    assert rows_of(RefScenes(tmp_path, parquet(tmp_path, **both))) == [
        ("whole.jpg", [HEIGHT, WIDTH], ["a caption"])
    ]
    with_info = dict(
        bbox=[[10.0, 20, 30, 40]],
        sentences=[["a sentence"]],
        file_name=["of_crop.jpg"],
        raw_image_info=[json.dumps(dict(file_name="whole.jpg"))],
    )
    assert rows_of(RefScenes(tmp_path, parquet(tmp_path, **with_info))) == [
        ("whole.jpg", None, ["a sentence"])
    ]
    box = RefScenes(tmp_path, parquet(tmp_path, **both), boxes="xyxy").record(0)["phrases"][0][
        "bbox"
    ]
    assert box == [10, 20, 30, 40]
    for missing, told in (("file_name", "no file name"), ("answer", "no sentences")):
        columns = dict(bbox=[[1.0, 2, 3, 4]], answer=[["x"]], file_name=["a.jpg"])
        columns.pop(missing)
        with pytest.raises(ValueError, match=f"row 0: found {told}"):
            RefScenes(tmp_path, parquet(tmp_path, **columns))
    with pytest.raises(ValueError, match="boxes: found 'cxcywh'"):
        RefScenes(tmp_path, "ref.parquet", boxes="cxcywh")


def test_expressions_are_three_that_fit_one_object_each():
    scene = make_scene(0, (96, 144), "test")
    found = make_expressions(scene, random.Random(0))
    assert len(found) == 3 == len({t for t, _ in found})
    assert all(o.name.split()[0] in text for text, o in found)
    assert len(make_expressions(scene, random.Random(0), 1)) == 1
    assert make_expressions(Scene(None, (9, 9), []), random.Random(0)) == []


def test_exported_refcoco(tmp_path):
    scenes = small_scenes()
    path = export_refcoco(scenes, tmp_path, first=41)
    data = json.loads(path.read_text())
    assert path == tmp_path / "finetune_refcoco_train.json"
    told = [
        (k, t, o)
        for k, s in enumerate(scenes)
        for t, o in make_expressions(s, random.Random(41 + k))
    ]
    for n, (image, a, (k, text, o)) in enumerate(
        zip(data["images"], data["annotations"], told, strict=True), 1
    ):
        assert (image["id"], image["original_id"], image["caption"]) == (n, 41 + k, text)
        assert image["file_name"] == f"COCO_train2014_{41 + k:012d}.jpg"
        assert (image["height"], image["width"]) == scenes[k].size
        assert (a["id"], a["image_id"], a["tokens_positive"]) == (n, n, [[0, len(text)]])
        assert (a["bbox"], a["area"]) == (convert_to_xywh(o.box), o.mask.area) and Mask(
            a["segmentation"]
        ) == o.mask
    assert (tmp_path / "train2014" / "COCO_train2014_000000000042.jpg").exists()
    import pyarrow.parquet as pq

    export_refcoco(scenes, tmp_path, "x.parquet")
    row = pq.read_table(tmp_path / "x.parquet").to_pylist()[0]
    assert (
        row["file_name"] == "COCO_train2014_000000000001_1.jpg"
        and row["image_path"] == "coco/train2014/COCO_train2014_000000000001.jpg"
    )
    o = dict((t, o) for t, o in make_expressions(scenes[0], random.Random(1)))[
        row["sentences"][0]["raw"]
    ]
    assert row["bbox"] == o.box.list() and json.loads(row["raw_anns"])["bbox"] == convert_to_xywh(
        o.box
    )
    assert json.loads(row["raw_image_info"]) == dict(
        file_name="COCO_train2014_000000000001.jpg", height=60, width=90
    )


# -- Visual Genome


def test_regions_of_visual_genome(tmp_path):
    images = [
        dict(
            image_id=5,
            url="https://cs.stanford.edu/people/rak248/VG_100K_2/5.jpg",
            width=WIDTH,
            height=HEIGHT,
            coco_id=31,
        ),
        dict(
            image_id=6,
            url="https://cs.stanford.edu/people/rak248/VG_100K/6.jpg",
            width=HEIGHT,
            height=WIDTH,
            coco_id=None,
        ),
    ]

    def region(phrase, *box):
        return dict(phrase=phrase, **dict(zip(("x", "y", "width", "height"), box)))

    regions = [
        dict(id=6, regions=[region("a <region> door", 5, 6, 20, 150)]),
        dict(
            id=5,
            regions=[
                region("the sky", 0, 0, 200, 30),
                region(" ", 1, 1, 5, 5),
                region("grass\n", 10, 50, 999, 999),
            ],
        ),
    ]
    (tmp_path / "image_data.json").write_text(json.dumps(images))
    (tmp_path / "region_descriptions.json").write_text(json.dumps(regions))
    picture(tmp_path / "VG_100K_2" / "5.jpg")
    picture(tmp_path / "VG_100K" / "6.jpg", (HEIGHT, WIDTH))
    reader = GenomeScenes(tmp_path)
    assert reader.pictures == ["VG_100K/6.jpg", "VG_100K_2/5.jpg"] and reader.coco_ids.tolist() == [
        -1,
        31,
    ]
    assert _collect_coco_ids([reader]) == {31}
    assert _collect_coco_ids([SimpleNamespace(coco_ids=[-1, 0, 7]), reader]) == {0, 7, 31}
    door, sky = reader
    assert [(p.text, p.boxes) for p in door.phrases] == [("a door", [Box(5, 6, 25, 156)])]
    assert [(p.text, p.boxes) for p in sky.phrases] == [
        ("the sky", [Box(0, 0, 200, 30)]),
        ("grass", [Box(10, 50, 200, 80)]),
    ]
    assert (door.id, door.size, sky.size) == ("6", (WIDTH, HEIGHT), (HEIGHT, WIDTH))
    (tmp_path / "image_data.json").write_text(json.dumps(images[:1]))
    with pytest.raises(
        ValueError, match="field id: found 6, expected the number of an image in image_data.json"
    ):
        GenomeScenes(tmp_path)
    del regions[0]["regions"][0]["width"]
    (tmp_path / "image_data.json").write_text(json.dumps(images))
    (tmp_path / "region_descriptions.json").write_text(json.dumps(regions))
    with pytest.raises(ValueError, match="record 0, region 0, field width: found nothing"):
        GenomeScenes(tmp_path)


def test_exported_genome(tmp_path):
    path = export_genome(small_scenes(), tmp_path)
    assert path == tmp_path / "region_descriptions.json"
    images, regions = (
        json.loads((tmp_path / n).read_text())
        for n in ("image_data.json", "region_descriptions.json")
    )
    assert [(r["image_id"], r["height"], r["width"], r["coco_id"]) for r in images] == [
        (1, 60, 90, 1),
        (2, 90, 60, None),
    ]
    assert [r["url"].split("rak248/")[1] for r in images] == ["VG_100K_2/1.jpg", "VG_100K/2.jpg"]
    assert all((tmp_path / r["url"].split("rak248/")[1]).exists() for r in images)
    first = regions[0]["regions"]
    assert [(r["region_id"], r["image_id"], r["phrase"]) for r in first] == [
        (100, 1, "a filled red star"),
        (101, 1, "an outlined blue dice 3"),
        (102, 1, "a filled green star"),
    ]
    assert [first[1][k] for k in ("x", "y", "width", "height")] == [50, 5, 30, 16] and regions[1][
        "id"
    ] == 2


# -- Flickr30k Entities


def test_a_marked_sentence_is_read_as_words_with_places():
    line = (
        "[/EN#12/people/animals Two dogs] chase [/EN#0/notvisual it] past [/EN#3/scene a red"
        " barn] ."
    )
    caption, spans = _read_entity_sentence(line)
    assert caption == "Two dogs chase it past a red barn ."
    assert spans == [("12", 0, 8), ("0", 15, 17), ("3", 23, 33)]
    assert [caption[a:b] for _, a, b in spans] == ["Two dogs", "it", "a red barn"]
    assert _read_entity_sentence("no mark") == ("no mark", [])
    assert _ENTITY_PATTERN.search(line).groups() == ("12", "people/animals", "Two dogs")


XML = """<annotation><size><width>200</width><height>80</height><depth>3</depth></size>
<object><name>12</name><bndbox><xmin>1</xmin><ymin>11</ymin><xmax>30</xmax><ymax>60</ymax></bndbox></object>
<object><name>3</name><name>12</name><bndbox><xmin>101</xmin><ymin>0</ymin><xmax>150</xmax><ymax>70</ymax></bndbox></object>
<object><name>8</name><scene>1</scene></object></annotation>"""


def test_boxes_of_flickr_are_counted_from_one(tmp_path):
    (tmp_path / "7.xml").write_text(XML)
    found = _read_entity_boxes(tmp_path / "7.xml")
    assert found["size"] == [80, 200]
    assert dict(found["boxes"]) == {
        "12": [[0, 10, 30, 60], [100, 0, 150, 70]],
        "3": [[100, 0, 150, 70]],
    }
    with pytest.raises(FileNotFoundError, match="8.xml"):
        _read_entity_boxes(tmp_path / "8.xml")


def test_each_sentence_of_flickr_is_a_scene(tmp_path):
    for folder, ending, text in (
        ("Annotations", "xml", XML),
        (
            "Sentences",
            "txt",
            "[/EN#3/scene A barn] and [/EN#8/other snow] .\n\n [/EN#12/animals Two dogs] .\n",
        ),
    ):
        (tmp_path / folder).mkdir()
        for number in (7, 9):
            (tmp_path / folder / f"{number}.{ending}").write_text(text)
    (tmp_path / "train.txt").write_text("9\n")
    for number in (7, 9):
        picture(tmp_path / "flickr30k-images" / f"{number}.jpg")
    reader = FlickrScenes(tmp_path)
    barn, dogs = reader
    assert [(p.text, p.boxes, p.span) for p in barn.phrases] == [
        ("A barn", [Box(100, 0, 150, 70)], (0, 6))
    ]
    assert (barn.caption, barn.id, barn.size) == ("A barn and snow .", "9#0", (80, 200))
    assert [(p.text, p.boxes, p.span) for p in dogs.phrases] == [
        ("Two dogs", [Box(0, 10, 30, 60), Box(100, 0, 150, 70)], (1, 9))
    ]
    assert dogs.id == "9#1" and reader.coco_ids.tolist() == [-1, -1]
    assert [Path(n).stem for n in FlickrScenes(tmp_path, "").pictures] == ["7", "7", "9", "9"]
    with pytest.raises(FileNotFoundError, match="val.txt"):
        FlickrScenes(tmp_path, "val")
    (tmp_path / "Sentences" / "9.txt").unlink()
    with pytest.raises(FileNotFoundError, match="9.txt"):
        FlickrScenes(tmp_path)


def test_exported_flickr(tmp_path):
    scenes = small_scenes()
    path = export_flickr(scenes, tmp_path, "val")
    assert path == tmp_path / "val.txt" and path.read_text() == "1001\n1002\n"
    first, second = (tmp_path / "Sentences" / "1001.txt").read_text().splitlines()
    assert (
        first
        == "[/EN#1/other an outlined blue dice 3] , [/EN#2/other a filled red star] , [/EN#3/other"
        " a filled green star] ."
    )
    assert second == "This shows [/EN#100/other every star] and [/EN#0/other nothing else] ."
    root = ET.parse(tmp_path / "Annotations" / "1001.xml").getroot()
    assert [root.find("size").find(k).text for k in ("width", "height", "depth")] == [
        "90",
        "60",
        "3",
    ]
    found = [
        (
            [n.text for n in t.findall("name")],
            [t.find("bndbox").find(k).text for k in ("xmin", "ymin", "xmax", "ymax")],
        )
        for t in root.findall("object")
    ]
    assert found == [
        (["1"], ["51", "6", "80", "21"]),
        (["2", "100"], ["11", "21", "40", "50"]),
        (["3", "100"], ["46", "31", "66", "58"]),
    ]
    assert [add_article(o.phrase) for o in sort_in_raster_order(scenes[0].objects)][
        0
    ] == "an outlined blue dice 3"
    assert FlickrScenes(tmp_path, "val")[0].phrases[0].box == Box(50, 5, 80, 21)


# -- Griffon


def griffon(folder, kind, *records, **options):
    (folder / "g.jsonl").write_text(
        "".join(
            json.dumps(dict(image_path="b.jpg", height=HEIGHT, width=WIDTH) | r) + "\n"
            for r in records
        )
    )
    picture(folder / "images" / "b.jpg")
    return GriffonScenes(folder, "g.jsonl", kind, **options)


def test_detection_lines_share_the_names_of_the_whole_file(tmp_path):
    one = dict(
        objects=[
            dict(category_name="cat.", bboxes=[[10, 20, 40, 60], [1, 2, 3, 4]]),
            dict(category_name="a <region> dog", bboxes=[]),
        ]
    )
    two = dict(objects=[dict(category_name="ant", bboxes=[[100, 8, 150, 38]])])
    first, second = griffon(tmp_path, "DET", one, two)
    assert [(o.name, o.box) for o in first.objects] == [
        ("cat", Box(10, 20, 40, 60)),
        ("cat", Box(1, 2, 3, 4)),
    ]
    assert first.names == ["ant", "cat", "dog"] and first.phrases == []
    assert second.names == ["ant", "cat"]  # no line has a box of a dog: was one looked for here?
    first, second = griffon(tmp_path, "RANDDET", one, two)
    assert (first.names, second.names, first.id, first.size) == (
        ["cat", "dog"],
        ["ant"],
        "b",
        (HEIGHT, WIDTH),
    )


def test_lines_of_phrases_may_hold_one_box_or_several_or_none(tmp_path):
    lines = [
        dict(expression="a  cat", bboxes=[[10, 20, 40, 60], [1, 2, 3, 4]]),
        dict(expression=["a dog", "x"], bboxes=[5, 6, 7, 8]),
        dict(expression="a cow", bboxes=[]),
    ]
    for kind in ("VG", "REG"):
        cat, dog, cow = griffon(tmp_path, kind, *lines)
        assert [(p.text, p.boxes) for p in cat.phrases] == [
            ("a cat", [Box(10, 20, 40, 60), Box(1, 2, 3, 4)])
        ]
        assert [(p.text, p.boxes) for p in dog.phrases] == [("a dog", [Box(5, 6, 7, 8)])]
        assert [(p.text, p.boxes) for p in cow.phrases] == [("a cow", [])] and cow.objects == []
    broken = griffon(tmp_path, "VG", dict(expression="a cat", bboxes=[[5, 5, 5, 9]]), strict=False)
    assert broken[0].phrases == [] and broken.left_out == {"box": 1}  # it is not known to be absent
    with pytest.raises(ValueError, match="line 1, field expression: found nothing"):
        griffon(tmp_path, "VG", dict(objects=[]))
    with pytest.raises(ValueError, match=r"line 1, field objects\[0\].bboxes: found nothing"):
        griffon(tmp_path, "DET", dict(objects=[dict(category_name="cat")]))
    with pytest.raises(ValueError, match="kind: found 'OCR'"):
        griffon(tmp_path, "OCR")


def test_counting_lines_of_the_old_form_are_gathered_by_category(tmp_path):
    old = dict(
        img_path="b.jpg",
        height=HEIGHT,
        width=WIDTH,
        category_id=[3, "cup", 3],
        box=[[10, 20, 40, 60], [1, 2, 3, 4], [5, 6, 7, 8]],
    )
    (tmp_path / "o.jsonl").write_text(json.dumps(old) + "\n")
    picture(tmp_path / "images" / "b.jpg")
    scene = GriffonScenes(tmp_path, "o.jsonl", "VISJ")[0]
    assert [(o.name, o.box) for o in scene.objects] == [
        ("3", Box(10, 20, 40, 60)),
        ("3", Box(5, 6, 7, 8)),
        ("cup", Box(1, 2, 3, 4)),
    ]
    with pytest.raises(ValueError, match="line 1, field image_path: found nothing"):
        GriffonScenes(tmp_path, "o.jsonl", "DET")


def test_a_coco_picture_in_griffons_files_is_known(tmp_path):
    reader = griffon(
        tmp_path,
        "DET",
        dict(objects=[], image_path="coco/train2017/000000000077.jpg"),
        dict(objects=[]),
    )
    assert reader.coco_ids.tolist() == [77, -1]


def test_exported_griffon(tmp_path):
    scenes = small_scenes()
    export_griffon(scenes, tmp_path)
    lines = {
        k: [json.loads(line) for line in (tmp_path / f"{k.lower()}.jsonl").read_text().splitlines()]
        for k in _GRIFFON_KINDS
    }
    det = lines["DET"][0]
    assert (det["image_path"], det["height"], det["width"]) == ("one.jpg", 60, 90)
    assert det["objects"] == [
        dict(category_name="star", bboxes=[[10, 20, 40, 50], [45, 30, 66, 58]]),
        dict(category_name="dice 3", bboxes=[[50, 5, 80, 21]]),
    ]
    assert lines["VISJ"][0]["objects"] == det["objects"] == lines["RANDDET"][0]["objects"][:2]
    absent = lines["RANDDET"][0]["objects"][2:]
    assert len(absent) == 2 and all(
        o["bboxes"] == [] and o["category_name"] in set(KINDS) - {"star", "dice 3"} for o in absent
    )
    none = [r["expression"] for r in lines["VG"] if not r["bboxes"]]
    assert len(none) == 2 and none[0] == add_article(absent[0]["category_name"])
    boxes = [o.box.list() for o in scenes[0].objects]
    assert all(
        r["bboxes"][0] in boxes for r in lines["VG"] if r["image_path"] == "one.jpg" and r["bboxes"]
    )
    assert all(
        r["bboxes"] in boxes and len(r["expression"]) == 1
        for r in lines["REG"]
        if r["image_path"] == "one.jpg"
    )
    assert (
        Counter(r["image_path"] for r in lines["REG"])["one.jpg"] == 3
        and lines["REG"][-1]["image_path"] == "two.jpg"
    )
