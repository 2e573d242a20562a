"""Item 14: a wrong record gets one sentence with file, record, field, found and expected, and one
wrong record ends nothing in a reader that is not strict.
"""

import json

import pytest
from PIL import Image

from ferretlite.common.errors import InputError
from ferretlite.data.coco import CocoScenes
from ferretlite.data.detection_files import LvisScenes, Objects365Scenes
from ferretlite.data.grounding_files import FlickrScenes, GriffonScenes
from ferretlite.data.readers import read_json_lines, walk_json
from ferretlite.data.records import read_box
from ferretlite.data.referring_files import GenomeScenes, RefScenes
from ferretlite.regions.geometry import Box

SIZE = dict(height=80, width=200)
XML = (
    "<annotation><size><width>200</width><height>80</height></size><object><name>1</name>"
    "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>40</xmax><ymax>60</ymax></bndbox></object>"
    "</annotation>"
)


def coco():
    return dict(
        images=[dict(id=k, file_name="a.jpg", **SIZE) for k in (1, 2, 3)],
        annotations=[
            dict(id=10 * k, image_id=k, category_id=5, bbox=[10, 20, 30, 40]) for k in (1, 2, 3)
        ],
        categories=[dict(id=5, name="cat")],
    )


def expressions():
    return dict(
        images=[dict(id=k, file_name="a.jpg", caption=f"cat {k}", **SIZE) for k in (1, 2, 3)],
        annotations=[dict(id=k, image_id=k, bbox=[10, 20, 30, 40]) for k in (1, 2, 3)],
    )


def regions():
    region = dict(phrase="a cat", x=10, y=20, width=30, height=40)
    return [dict(id=k, regions=[dict(region)]) for k in (1, 2, 3)]


def addresses():
    return [dict(image_id=k, url="https://x.org/a/VG_100K/a.jpg", **SIZE) for k in (1, 2, 3)]


def line(**more):
    return dict(image_path="a.jpg", **SIZE, **more)


GRIFFON = {
    "DET": line(objects=[dict(category_name="cat", bboxes=[[10, 20, 40, 60]])]),
    "RANDDET": line(objects=[dict(category_name="cat", bboxes=[[10, 20, 40, 60]])]),
    "VG": line(expression="a cat", bboxes=[[10, 20, 40, 60]]),
    "REG": line(expression=["a cat"], bboxes=[10, 20, 40, 60]),
    "VISJ": line(objects=[dict(category_name="cat", bboxes=[[10, 20, 40, 60]])]),
}


@pytest.fixture
def folder(tmp_path):
    "Every format with three records of one picture, all of them right."
    for name in ("images", "train", "train2014", "VG_100K", "flickr30k-images", "."):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("RGB", (200, 80), "gray").save(tmp_path / name / "a.jpg")
    write(tmp_path / "coco.json", coco())
    write(tmp_path / "ref.json", expressions())
    write(tmp_path / "region_descriptions.json", regions())
    write(tmp_path / "image_data.json", addresses())
    for kind, record in GRIFFON.items():
        text = "".join(json.dumps(record) + "\n" for _ in range(3))
        (tmp_path / f"{kind}.jsonl").write_text(text)
    for name in ("Sentences", "Annotations"):
        (tmp_path / name).mkdir()
    for k in (1, 2, 3):
        Image.new("RGB", (200, 80), "gray").save(tmp_path / "flickr30k-images" / f"{k}.jpg")
        (tmp_path / "Sentences" / f"{k}.txt").write_text("[/EN#1/animals A cat] sleeps .\n")
        (tmp_path / "Annotations" / f"{k}.xml").write_text(XML)
    (tmp_path / "train.txt").write_text("1\n2\n3\n")
    return tmp_path


def write(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")


def put(data, path: str, value):
    "Set the value at a path such as `images.1.height`."
    *keys, last = [int(k) if k.isdigit() else k for k in path.split(".")]
    for key in keys:
        data = data[key]
    data[last] = value


READERS = {
    "coco": lambda f, **o: CocoScenes(f, "coco.json", **o),
    "objects365": lambda f, **o: Objects365Scenes(f, "coco.json", **o),
    "lvis": lambda f, **o: LvisScenes(f, "coco.json", **o),
    "refcoco": lambda f, **o: RefScenes(f, "ref.json", **o),
    "genome": lambda f, **o: GenomeScenes(f, **o),
    "flickr30k": lambda f, **o: FlickrScenes(f, **o),
    **{k: (lambda f, k=k, **o: GriffonScenes(f, f"{k}.jsonl", k, **o)) for k in GRIFFON},
}


@pytest.mark.parametrize("name", READERS)
def test_the_right_records_are_read(folder, name):
    reader = READERS[name](folder)
    for scene in reader:
        boxes = [o.box for o in scene.objects] + [b for p in scene.phrases for b in p.boxes]
        assert boxes == [Box(10, 20, 40, 60)] * (3 if name == "refcoco" else 1)
    assert reader.left_out == {} and reader.problems == []


WRONG = [
    # reader, file, field, value, reason, sentence
    ("coco", "coco.json", "images.1.height", "80", "height", "record 1 of images, field height"),
    ("coco", "coco.json", "images.1.height", True, "height", "found True, expected a whole number"),
    ("coco", "coco.json", "images.1.width", 0, "width", "found 0, expected a whole number of pix"),
    ("coco", "coco.json", "images.1.width", 20.5, "width", "found 20.5, expected a whole number"),
    (
        "coco",
        "coco.json",
        "images.1.file_name",
        None,
        "file_name",
        "found nothing, expected a file",
    ),
    ("coco", "coco.json", "images.1.file_name", ["a"], "file_name", "found ['a'], expected a file"),
    ("coco", "coco.json", "images.1.file_name", r"b\a.jpg", "file_name", "/ between folders"),
    ("coco", "coco.json", "images.1.id", [2], "id", "record 1 of images, field id: found [2]"),
    (
        "coco",
        "coco.json",
        "images.1",
        7,
        "record",
        "record 1 of images: found 7, expected a record",
    ),
    (
        "coco",
        "coco.json",
        "annotations.1.bbox",
        "1 2 3 4",
        "bbox",
        "record 1 of annotations, field",
    ),
    ("coco", "coco.json", "annotations.1.bbox", [1, "2", 3, 4], "bbox", "[1, '2', 3, 4], expected"),
    ("coco", "coco.json", "annotations.1.bbox", [1, 2, 3], "bbox", "a list of four finite numbers"),
    ("coco", "coco.json", "annotations.1.category_id", "5", "category_id", "found '5', expected"),
    (
        "coco",
        "coco.json",
        "annotations.1.category_id",
        6,
        "category_id",
        "found 6, expected a cat",
    ),
    ("coco", "coco.json", "annotations.1.image_id", 9, "image_id", "found 9, expected an image"),
    ("objects365", "coco.json", "images.1.file_name", 7, "file_name", "found 7, expected a file"),
    ("lvis", "coco.json", "images.1.neg_category_ids", "12", "neg_category_ids", "found '12'"),
    (
        "lvis",
        "coco.json",
        "images.1.neg_category_ids",
        [None],
        "neg_category_ids",
        "ids[0]: found no",
    ),
    ("refcoco", "ref.json", "images.1.caption", None, "caption", "found nothing, expected text"),
    ("refcoco", "ref.json", "images.1.caption", "\ud83d", "caption", "without lone surrogates"),
    (
        "refcoco",
        "ref.json",
        "annotations.1.bbox",
        None,
        "bbox",
        "record 1 of annotations, field bbox",
    ),
    (
        "genome",
        "region_descriptions.json",
        "1.regions.0.x",
        "10",
        "x",
        "record 1, region 0, field x",
    ),
    (
        "genome",
        "region_descriptions.json",
        "1.regions.0.phrase",
        None,
        "phrase",
        "found nothing, exp",
    ),
    ("genome", "region_descriptions.json", "1.regions", 7, "regions", "found 7, expected a list"),
    (
        "genome",
        "image_data.json",
        "1.url",
        7,
        "url",
        "image_data.json, record 1, field url: found 7",
    ),
    ("genome", "image_data.json", "1.width", None, "width", "record 1, field width: found nothing"),
    ("DET", "DET.jsonl", "objects", None, "record", "line 2, field objects: found nothing"),
    (
        "DET",
        "DET.jsonl",
        "objects.0.category_name",
        7,
        "record",
        "objects[0].category_name: found 7",
    ),
    ("VG", "VG.jsonl", "expression", None, "record", "line 2, field expression: found nothing"),
    ("REG", "REG.jsonl", "height", "80", "record", "line 2, field height: found '80', expected"),
    ("VISJ", "VISJ.jsonl", "image_path", "", "record", "line 2, field image_path: found ''"),
]


@pytest.mark.parametrize("name, file, field, value, reason, sentence", WRONG)
def test_one_wrong_value_is_named_and_the_other_records_are_read(
    folder, name, file, field, value, reason, sentence
):
    path = folder / file
    if path.suffix == ".jsonl":
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        put(lines[1], field, value)
        path.write_text("".join(json.dumps(record) + "\n" for record in lines))
    else:
        data = json.loads(path.read_text())
        put(data, field, value)
        path.write_text(json.dumps(data))
    with pytest.raises(InputError) as error:
        READERS[name](folder)
    assert sentence in str(error.value) and str(path.parent) in str(error.value)
    lax = READERS[name](folder, strict=False)
    scenes = list(lax)
    assert reason in lax.left_out and any(sentence in told for _, told in lax.problems)
    boxes = [o.box for s in scenes for o in s.objects] + [
        b for s in scenes for p in s.phrases for b in p.boxes
    ]
    assert boxes == [Box(10, 20, 40, 60)] * 2  # of three


def test_all_problems_of_a_file_are_listed(folder):
    data = coco()
    data["images"].append(dict(id=4, file_name=5, **SIZE))
    data["annotations"] += [dict(id=k, image_id=1) for k in range(1200)]
    write(folder / "coco.json", data)
    reader = CocoScenes(folder, "coco.json", strict=False)
    assert reader.left_out == dict(file_name=1, category_id=1200)
    assert len(reader.problems) == 1000  # the counter counts all, the list is bounded
    assert [len(scene.objects) for scene in reader] == [1, 1, 1]


def test_what_was_left_out_is_known_when_a_packed_file_is_mapped(folder, monkeypatch, tmp_path):
    monkeypatch.setattr("ferretlite.data.readers._MIN_PACKED_BYTES", 1)
    data = coco()
    data["images"][1]["height"] = "80"
    write(folder / "coco.json", data)
    options = dict(annotations="coco.json", cache=tmp_path / "cache")
    made = CocoScenes(folder, strict=False, **options)
    mapped = CocoScenes(folder, strict=False, **options)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert made.left_out == mapped.left_out == dict(height=1) and made.problems == mapped.problems
    with pytest.raises(InputError, match="record 1 of images, field height: found '80'"):
        CocoScenes(folder, **options)


# -- numbers, text and files that Python reads otherwise


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "9" * 400])
def test_numbers_that_are_no_numbers(folder, number):
    text = json.dumps(coco()).replace("[10, 20, 30, 40]", f"[10, 20, {number}, 40]")
    write(folder / "coco.json", text)
    with pytest.raises(InputError, match="field bbox: found .* a list of four finite numbers"):
        CocoScenes(folder, "coco.json")


def test_a_number_of_thousands_of_digits_is_no_number(folder):
    write(folder / "coco.json", json.dumps(coco()).replace("[10, 20,", f"[{'9' * 5000}, 20,"))
    with pytest.raises(InputError, match="coco.json: found a number of more than 4,300 digits"):
        CocoScenes(folder, "coco.json")


@pytest.mark.parametrize("depth", [500, 5000, 200_000])
def test_deep_nesting(tmp_path, depth):
    path = tmp_path / "a.json"
    path.write_text("[1, " + "[" * depth + "]" * depth + "]")
    try:
        assert len(list(walk_json(path, "cats"))) == 2 and depth == 500
    except InputError as error:
        assert depth > 500 and "brackets that are nested too deeply, expected cats" in str(error)
    path.write_text(f"1\n{'[' * depth}\n3\n")
    errors = []
    values = list(read_json_lines(path, "cats", errors.append))
    assert values == [(1, 1), (3, 3)] and "line 2: found b" in str(errors[0])


def test_a_lone_surrogate_in_a_name(folder):
    data = coco()
    data["categories"][0]["name"] = "c\ud83dat"
    write(folder / "coco.json", json.dumps(data))
    with pytest.raises(InputError, match=r"field name: found 'c\\ud83dat', .*without lone surr"):
        CocoScenes(folder, "coco.json")


@pytest.mark.parametrize("name", READERS)
def test_a_byte_order_mark_and_line_ends_of_windows_are_read(folder, name):
    for path in [*folder.glob("*.json*"), *folder.glob("*/*.txt"), *folder.glob("*/*.xml")]:
        text = path.read_bytes().replace(b", ", b",\r\n" if path.suffix == ".json" else b", ")
        path.write_bytes(b"\xef\xbb\xbf" + text.replace(b"}\n", b"}\r\n"))
    (folder / "train.txt").write_bytes(b"\xef\xbb\xbf1\r\n2\r\n3\r\n")
    test_the_right_records_are_read(folder, name)


@pytest.mark.parametrize("name", [n for n in READERS if n != "flickr30k"])
@pytest.mark.parametrize(
    "text, told",
    [
        (b"", "found an empty file, expected"),
        ("[]".encode("utf-16"), "found bytes that are not text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "found a pointer of Git LFS|broken JSON"),
        (b'{"images": [', "found broken JSON"),
    ],
)
def test_files_that_are_not_json(folder, name, text, told):
    for path in folder.glob("*.json*"):
        path.write_bytes(text)
    with pytest.raises(InputError, match=told):
        READERS[name](folder)


def test_json_lines_under_the_name_of_a_json_file(folder):
    (folder / "region_descriptions.json").write_text('{"id": 1}\n{"id": 2}\n')
    with pytest.raises(
        InputError, match="text after its end; a file of JSON lines is named .jsonl"
    ):
        list(walk_json(folder / "region_descriptions.json"))


# -- parquet and XML


def parquet(folder, **columns):
    import pyarrow as pa
    import pyarrow.parquet as pq

    right = dict(
        bbox=[[10.0, 20, 30, 40]] * 3,
        sentences=[["a cat"]] * 3,
        file_name=["a.jpg"] * 3,
    )
    pq.write_table(pa.table(right | columns), folder / "ref.parquet", compression="none")
    return folder / "ref.parquet"


@pytest.mark.parametrize(
    "columns, told",
    [
        (dict(sentences=[["a cat"], None, ["a cat"]]), "row 1: found no sentences"),
        (
            dict(sentences=[["a cat"], [None], ["a cat"]]),
            "row 1, field sentences.0.: found nothing",
        ),
        (dict(sentences=[["a cat"], [" "], ["a cat"]]), "row 1, field sentences.0.: found ' '"),
        (dict(file_name=["a.jpg", r"b\a.jpg", "a.jpg"]), "row 1, field file_name: found"),
        (dict(bbox=[[1.0, 2, 3, 4], [1.0, 2], [1.0, 2, 3, 4]]), "row 1, field bbox: found"),
        (dict(height=[80, -1, 80]), "row 1, field height: found -1"),
        (dict(raw_anns=["{}", "{", "{}"]), "row 1, field raw_anns: found broken JSON"),
        (
            dict(raw_anns=["{}", '{"bbox": [1, "2", 3, 4]}', "{}"]),
            "row 1, field raw_anns, field bbox",
        ),
        (dict(raw_image_info=["{}", "[]", "{}"]), r"row 1, field raw_image_info: found \[\]"),
    ],
)
def test_wrong_rows_of_a_table(folder, columns, told):
    parquet(folder, **columns)
    with pytest.raises(InputError, match=told):
        RefScenes(folder, "ref.parquet")
    lax = RefScenes(folder, "ref.parquet", strict=False)
    assert lax.left_out == dict(row=1) and len(lax.record(0)["phrases"]) == 2


def test_one_sentence_that_is_no_list(folder):
    parquet(folder, sentences=["a cat"] * 3)
    assert [p.text for p in RefScenes(folder, "ref.parquet")[0].phrases] == ["a cat"] * 3


def test_a_damaged_page_of_a_table(folder):
    path = parquet(folder)
    data = path.read_bytes()
    path.write_bytes(data[:4] + b"\xff" * 60 + data[64:])
    with pytest.raises(InputError, match="ref.parquet: found (a damaged page|no readable parquet)"):
        RefScenes(folder, "ref.parquet")
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="ref.parquet: found no readable parquet file"):
        RefScenes(folder, "ref.parquet")


@pytest.mark.parametrize(
    "old, new, told",
    [
        ("<height>80<", "<height>eighty<", "2.xml, size/height: found 'eighty', expected a whole"),
        ("<xmin>11<", "<xmin>1e400<", "2.xml, object 0/bndbox/xmin: found '1e400', expected a fin"),
        ("<xmin>11</xmin>", "", "2.xml, object 0/bndbox/xmin: found nothing, expected a finite"),
        ("<name>1<", "<name><", "2.xml, object 0/name: found nothing, expected text"),
        ("</annotation>", "", "2.xml: found broken XML"),
    ],
)
def test_wrong_boxes_of_flickr(folder, old, new, told):
    (folder / "Annotations" / "2.xml").write_text(XML.replace(old, new))
    with pytest.raises(InputError, match=told):
        FlickrScenes(folder)
    lax = FlickrScenes(folder, strict=False)
    assert lax.left_out == dict(picture=1) and lax.pictures == ["1.jpg", "3.jpg"]


# -- real files


def test_real_annotations_are_read(real_files):
    one = CocoScenes(real_files / "coco139", "instances.json", images=".")[0]
    assert len(one.objects) == 20 and one.size == (426, 640)
    few = CocoScenes(real_files / "roboflow" / "coco" / "train", "_annotations.coco.json", ".")
    assert [[o.box for o in s.objects] for s in few] == [[Box(2, 1, 5, 2)], [Box(0, 0, 2, 4)]]


def test_real_regions_and_sentences_are_read(real_files):
    genome = GenomeScenes(real_files / "vg")
    assert genome.record(0)["regions"] == [["the clock is green in colour", 421, 57, 82, 139]]
    assert read_box([421, 57, 82, 139], (600, 800), "xywh") == Box(421, 57, 503, 196)
    flickr = FlickrScenes(real_files / "flickr", split="")
    assert len(flickr) == 5  # sentences
    boxes = flickr.record(0)["boxes"]["1"]
    assert boxes == [[158, 124, 219, 335], [196, 109, 261, 373]]


def test_an_export_of_label_studio_is_refused_in_one_sentence(real_files):
    with pytest.raises(
        InputError, match="found no list 'images', expected images, annotations and"
    ):
        CocoScenes(real_files / "labelstudio", "label_studio_export.json")
