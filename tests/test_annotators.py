"""Files of annotation programs: what each form means, damaged files, recognition and division."""

import importlib.util
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ferretlite.common.errors import InputError
from ferretlite.data.annotators import (
    CocoByNameScenes,
    VocScenes,
    YoloScenes,
    _guess_first_pixel,
)
from ferretlite.data.coco import CocoScenes
from ferretlite.data.label_files import LabelMeScenes, LabelStudioScenes, OpenImagesScenes
from ferretlite.data.mixtures import open_part
from ferretlite.data.own_files import describe_data, is_mixture, recognise_data, split_data
from ferretlite.data.recipes import read_recipe
from ferretlite.data.records import guess_box_reading, judge_boxes

REAL = os.environ.get("FERRETLITE_REAL_FILES")
needs_real = pytest.mark.skipif(not REAL, reason="needs the real files")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def picture(path: Path, size=(200, 100), color="gray", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)
    return path


def boxes(reader, i=0) -> list:
    return [(o.name, [round(v, 3) for v in o.box.list()]) for o in reader[i].objects]


def opened(mixture: dict, root, strict=True) -> list:
    recipe = read_recipe(mixture, root)
    return [open_part(p, root, strict=strict) for p in [*recipe.stages["3"], *recipe.held_out]]


VOC = (
    "<annotation><filename>{name}</filename><source><database>{base}</database></source>"
    "<size><width>200</width><height>100</height></size>{objects}</annotation>"
)
OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
    "</bndbox></object>"
)


# -- the meaning of numbers


def test_a_whole_picture_in_voc_is_1_to_its_size(tmp_path):
    """A box of VOC with xmin=1 and xmax=W covers the whole image (so does Detectron2 read it)."""
    picture(tmp_path / "a.png")
    text = VOC.format(name="a.png", base="", objects=OBJECT.format("cup", 1, 1, 200, 100))
    write(tmp_path / "a.xml", text)
    assert boxes(VocScenes(tmp_path)) == [("cup", [0, 0, 200, 100])]
    assert boxes(VocScenes(tmp_path, first_pixel=0)) == [("cup", [1, 1, 200, 100])]


@pytest.mark.parametrize(
    "base, corners, first",
    [("", [5, 5, 9, 9], 1), ("Roboflow", [5, 5, 9, 9], 0), ("Unknown", [5, 5, 9, 9], 0)]
    + [("The VOC2007 Database", [5, 5, 9, 9], 1), ("", [0, 5, 9, 9], 0)],
)
def test_signs_of_edges_in_voc(base, corners, first):
    files = [dict(database=base, objects=[("", "cup", corners), ("", "cup", None)])]
    assert _guess_first_pixel(files) == first
    assert _guess_first_pixel([]) == 1


def test_a_yolo_line_is_centre_and_sides_of_the_upright_picture(tmp_path):
    """Ultralytics: class x_center y_center width height, as fractions; EXIF turns the picture."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "images" / "a.jpg", (100, 200), exif=exif)  # 200 x 100 as it is seen
    write(tmp_path / "labels" / "a.txt", "1 0.25 0.5 0.5 0.2\n0 .1 .2 .3 .2 .3 .6 .1 .6\n")
    write(tmp_path / "data.yaml", "nc: 2\nnames: [cup, ball]\n")
    scene = YoloScenes(tmp_path)[0]
    assert scene.size == (100, 200) == (scene.image.height, scene.image.width)
    assert boxes(YoloScenes(tmp_path)) == [("ball", [0, 40, 100, 60]), ("cup", [20, 20, 60, 60])]
    assert scene.objects[1].mask.area == 40 * 40


def test_labels_follow_their_pictures_through_folders(tmp_path):
    """Two pictures of one name: the folder `images` becomes `labels`."""
    for split, side in (("train", 0.5), ("val", 1)):
        picture(tmp_path / "images" / split / "a.png")
        write(tmp_path / "labels" / split / "a.txt", f"0 0.5 0.5 {side} {side}")
    write(tmp_path / "classes.txt", "cup\n")
    both = YoloScenes(tmp_path)
    assert [boxes(both, i)[0][1] for i in range(2)] == [[50, 25, 150, 75], [0, 0, 200, 100]]
    assert boxes(YoloScenes(tmp_path, split="val"))[0][1] == [0, 0, 200, 100]
    assert len(YoloScenes(tmp_path, split="train")) == 1


def test_an_empty_label_file_is_no_missing_one(tmp_path):
    for name in ("empty", "none"):
        picture(tmp_path / "images" / f"{name}.png")
    write(tmp_path / "labels" / "empty.txt", "")
    write(tmp_path / "classes.txt", "cup\n")
    reader = YoloScenes(tmp_path)
    assert reader.pictures == ["images/empty.png"] and reader.head["unlabelled"] == 1


def test_corners_of_labelme_come_in_any_order(tmp_path):
    picture(tmp_path / "a.png")
    corners = [(20, 30), (60, 80)], [(60, 80), (20, 30)], [(60, 30), (20, 80)]
    shapes = [dict(label="cup", points=p, shape_type="rectangle", group_id=k) for k, p in
              enumerate(corners)]  # fmt: skip
    shapes.append(dict(label="mark", points=[[0, 0], [9, 4]], shape_type="mask"))
    write(tmp_path / "a.json", json.dumps(dict(shapes=shapes, imagePath="a.png")))
    found = boxes(LabelMeScenes(tmp_path, strict=False))
    assert found[0] == ("cup", [20, 30, 60, 80]) and found[-1] == ("mark", [0, 0, 10, 5])
    assert {box[0] for box in found[:-1]} == {"cup"}


def test_a_rectangle_of_label_studio_turns_in_pixels(tmp_path):
    """x, y is the corner before the rotation (Label Studio's tag page), clockwise in degrees."""
    picture(tmp_path / "a.png")
    value = dict(x=50, y=0, width=50, height=50, rotation=45, rectanglelabels=["cup"])
    result = dict(type="rectanglelabels", value=value, original_width=200, original_height=100)
    task = dict(data=dict(image="a.png"), annotations=[dict(result=[result])])
    write(tmp_path / "t.json", json.dumps([task]))
    reader = LabelStudioScenes(tmp_path, "t.json")
    # sides of 100 and 50 pixels at (100, 0): the corner goes 100 along the diagonal, 50 across
    half = 2**-0.5
    expected = [100 - 50 * half, 0, 100 + 100 * half, 100]
    assert boxes(reader)[0][1] == pytest.approx(expected, abs=1e-2)  # clipped below


def test_columns_of_open_images_are_read_by_name(tmp_path):
    picture(tmp_path / "abc.jpg")
    rows = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf,IsDepiction\n"
    rows += "abc,cup,0.1,0.3,0.5,1,0,0\nabc,ball,0,1,0,1,1,0\nabc,spoon,0,1,0,1,0,1\n"
    write(tmp_path / "b.csv", rows)
    scene = OpenImagesScenes(tmp_path, "b.csv")[0]
    assert [(o.name, o.box.list()) for o in scene.objects] == [("cup", [20, 50, 60, 100])]
    assert scene.partial == ("ball", "spoon") and scene.names == ["cup"]


# -- damaged and hostile files


def test_an_entity_bomb_is_refused_before_it_is_parsed(tmp_path):
    picture(tmp_path / "a.png")
    bomb = "<!DOCTYPE x [" + "".join(
        f'<!ENTITY e{k} "{f"&e{k - 1};" * 10 if k else "x" * 10}">' for k in range(12)
    )
    write(tmp_path / "a.xml", bomb + "]><annotation><filename>&e11;</filename></annotation>")
    with pytest.raises(InputError, match="entities of its own"):
        VocScenes(tmp_path)


def test_names_in_files_lead_nowhere_else(tmp_path):
    secret = picture(tmp_path / "secret.png")
    picture(tmp_path / "own" / "a.png")
    for name in ("../secret.png", str(secret), "..\\secret.png"):
        write(tmp_path / "own" / "a.xml", VOC.format(name=name, base="", objects=""))
        with pytest.raises(InputError, match="found no picture"):
            VocScenes(tmp_path / "own")


@pytest.mark.parametrize(
    "line, told",
    [
        ("0 20 30 60 80", "are these pixels"),
        ("2 .5 .5 .1 .1", "a class below 2"),
        ("-1 .5 .5 .1 .1", "a class below 2"),
        ("0 .5 .5 .1", "a class number with 4 fractions"),
        ("0 .5 .5 .1 .1 .9", "confidence"),
        ("0 .5 .5 nan .1", "a class number and fractions"),
        ("0.5 .5 .5 .1 .1", "a class number and fractions"),
        ("cup .5 .5 .1 .1", "a class number and fractions"),
    ],
)
def test_each_fault_of_a_yolo_line_has_its_sentence(tmp_path, line, told):
    picture(tmp_path / "a.png")
    write(tmp_path / "classes.txt", "cup\nball\n")
    write(tmp_path / "a.txt", f"1 .5 .5 .2 .2\n{line}\n")
    with pytest.raises(InputError, match="a.txt, line 2: found .*" + told):
        YoloScenes(tmp_path)
    reader = YoloScenes(tmp_path, strict=False)
    assert boxes(reader) == [("ball", [80, 40, 120, 60])] and reader.left_out == {"line": 1}
    assert reader[0].names == []  # an object of an unknown name: nothing is absent for sure


def test_class_names_are_needed_and_are_texts(tmp_path):
    picture(tmp_path / "a.png")
    write(tmp_path / "a.txt", "0 .5 .5 .2 .2\n")
    with pytest.raises(InputError, match="write the names into classes.txt"):
        YoloScenes(tmp_path)
    write(tmp_path / "data.yaml", "names: [no, yes]\n")  # YAML reads truth values
    with pytest.raises(InputError, match="in quotes"):
        YoloScenes(tmp_path)
    write(tmp_path / "data.yaml", "names: [cup\n")
    with pytest.raises(InputError, match="broken YAML"):
        YoloScenes(tmp_path)


def test_a_picture_of_two_files_is_used_once(tmp_path):
    picture(tmp_path / "a.png")
    for name in ("a", "b"):
        text = VOC.format(name="a.png", base="", objects=OBJECT.format("cup", 1, 1, 9, 9))
        write(tmp_path / f"{name}.xml", text)
    with pytest.raises(InputError, match="found the picture 'a.png' again"):
        VocScenes(tmp_path)
    assert len(VocScenes(tmp_path, strict=False)) == 1


# -- recognition


def make_yolo(folder: Path, n=10) -> Path:
    for k in range(n):
        picture(folder / "images" / f"{k}.png", color=(k, 0, 0))
        write(folder / "labels" / f"{k}.txt", f"{k % 2} 0.5 0.5 0.5 0.5\n")
    write(folder / "classes.txt", "cup\nball\n")
    return folder


def test_a_mixture_is_told_from_annotations(tmp_path):
    part = dict(format="coco", folder=".")
    mixture = write(tmp_path / "m.json", json.dumps(dict(name="x", stages={"3": [part]})))
    assert is_mixture(mixture) and is_mixture("ferret-v2") and is_mixture(tmp_path / "no.json")
    assert not is_mixture(tmp_path)
    assert not is_mixture(write(tmp_path / "c.json", '{"images": []}'))


def test_forms_that_are_not_read_name_their_conversion(tmp_path):
    files = {
        "a.zip": ("PK", "unpack it"),
        "b.xml": ("<annotations></annotations>", "panlabel convert -f cvat -t coco"),
        "c.json": ('[{"image": "a.jpg", "annotations": []}]', "panlabel convert -f create-ml"),
        "d.csv": ("filename,class\na.jpg,cup\n", "panlabel convert -f tfod"),
        "e.pkl": ("x", "runs code"),
        "f.json": ('[{"question_id": 1}]', "eval --suite"),
    }
    for name, (text, told) in files.items():
        with pytest.raises(InputError, match=told):
            recognise_data(write(tmp_path / "x" / name, text))


def test_two_forms_in_one_folder_are_a_question(tmp_path):
    make_yolo(tmp_path, 2)
    write(tmp_path / "coco.json", '{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(InputError, match=r"found coco \(coco.json\) and yolo .*name one of them"):
        recognise_data(tmp_path)


def test_files_beside_labels_are_no_second_form(tmp_path):
    """Label Studio's YOLO export brings `notes.json`, others bring a licence; neither has boxes."""
    make_yolo(tmp_path, 2)
    notes = dict(categories=[dict(id=0, name="cup")], info=dict(contributor="Label Studio"))
    write(tmp_path / "notes.json", json.dumps(notes))
    write(tmp_path / "LICENSE.txt", "MIT License 2026")
    (reader,) = opened(recognise_data(tmp_path, root=tmp_path), tmp_path)
    assert len(reader) == 2
    late = dict(categories=notes["categories"], images=[], annotations=[])
    (tmp_path / "labels" / "0.txt").unlink(), (tmp_path / "labels" / "1.txt").unlink()
    write(tmp_path / "notes.json", json.dumps(late))  # COCO's own lists in another order
    assert recognise_data(tmp_path)["stages"]["3"][0]["format"] == "coco"


@pytest.mark.parametrize(
    "line", ["\ufeff0 .5 .5 .5 .5", "0 5.0e-01 .5 5E-1 .5", "0.0 +.5 .5 .5 .5", "0\t.5\t.5\t.5\t.5"]
)
def test_a_label_line_is_known_however_its_numbers_are_written(tmp_path, line):
    make_yolo(tmp_path, 2)
    for k in range(2):
        write(tmp_path / "labels" / f"{k}.txt", line)
    (reader,) = opened(recognise_data(tmp_path, root=tmp_path), tmp_path)
    assert boxes(reader) == [("cup", [50, 25, 150, 75])]


@pytest.mark.parametrize("line", ["cup .5 .5 .5 .5", "0, .5, .5, .5, .5", "0 0,5 0,5 0,5 0,5"])
def test_a_label_line_without_numbers_is_shown_with_a_right_one(tmp_path, line):
    make_yolo(tmp_path, 2)
    for k in range(2):
        write(tmp_path / "labels" / f"{k}.txt", line)
    with pytest.raises(InputError, match=r"labels/0.txt: found .* with lines as 0 0.5 0.5"):
        recognise_data(tmp_path)


MOVED = {  # name in the file -> name of the picture
    "images\\a.png": "a.png",
    "C:\\Users\\me\\a.png": "a.png",
    "/home/me/photos/a.png": "a.png",
    "../photos/a.PNG": "a.png",
    "a%20b.png": "a b.png",
    "ku\u0308che.png": "k\u00fcche.png",
}


@pytest.mark.parametrize("name", MOVED)
def test_moved_pictures_of_coco_are_found_by_their_names(tmp_path, name):
    picture(tmp_path / "own" / "images" / MOVED[name])
    picture(tmp_path / "own" / "images" / "b.png", color="tan")
    picture(tmp_path / "own" / "images" / "c.png", color="red")
    images = [
        dict(id=k, file_name=n, height=100, width=200) for k, n in enumerate((name, "x/b.png"))
    ]
    images.append(dict(images[0], id=2, file_name="x/c.png"))
    a = dict(id=1, image_id=0, category_id=0, bbox=[20, 30, 40, 50])
    data = dict(images=images, annotations=[a], categories=[dict(id=0, name="cup")])
    file = write(tmp_path / "own" / "annotations" / "instances.json", json.dumps(data))
    for path in (file, tmp_path / "own"):
        (reader,) = opened(recognise_data(path, root=tmp_path), tmp_path)
        assert Path(reader.picture(0)).name == MOVED[name]
        assert boxes(reader) == [("cup", [20, 30, 60, 80])]
    split_data(file, tmp_path / "parts", 0.3, 0.3)
    assert read_recipe(tmp_path / "parts" / "mixture.json").stages["3"][0].format == "coco"


def test_moved_pictures_are_looked_for_only_where_none_is_in_its_place(tmp_path):
    """`x/b.png` is absent, and another picture has its name: no picture is taken for it."""
    for name in ("a.png", "y/b.png"):
        picture(tmp_path / "images" / name)
    images = [
        dict(id=k, file_name=n, height=100, width=200) for k, n in enumerate(("a.png", "x/b.png"))
    ]
    data = dict(images=images, annotations=[], categories=[])
    write(tmp_path / "c.json", json.dumps(data))
    (part,) = recognise_data(tmp_path, root=tmp_path)["stages"]["3"]
    assert (part["format"], part["images"]) == ("coco", "images")
    picture(tmp_path / "images" / "z" / "b.png")
    for record in images:
        record["file_name"] = "x/b.png"
    write(tmp_path / "c.json", json.dumps(data))
    reader = CocoByNameScenes(tmp_path, "c.json", "images", strict=False)
    assert len(reader) == 0 and "2 pictures with the name 'b.png'" in reader.problems[0][1]
    write(tmp_path / "c.json", json.dumps(data).replace("x/b.png", "x/none.png"))
    assert recognise_data(tmp_path)["stages"]["3"][0]["format"] == "coco"  # and data check tells it


def test_files_that_are_no_annotations_are_named(tmp_path):
    result = [dict(image_id=1, category_id=1, bbox=[1, 2, 3, 4], score=0.5)]
    with pytest.raises(InputError, match="COCO's results"):
        recognise_data(write(tmp_path / "results.json", json.dumps(result)))
    for name in ("old.json", "new.json"):
        write(tmp_path / "two" / name, '{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(InputError, match="found new.json and old.json in coco's form"):
        recognise_data(tmp_path / "two")
    with pytest.raises(InputError, match="-o .*x/coco.json --allow-lossy"):  # beside the pictures
        recognise_data(write(tmp_path / "x" / "b.xml", "<annotations></annotations>"))


def test_annotations_in_place_of_a_mixture_are_told(tmp_path):
    make_yolo(tmp_path / "own", 2)
    file = write(tmp_path / "c.json", '{"images": [], "annotations": [], "categories": []}')
    for path in (tmp_path / "own", file):
        with pytest.raises(InputError, match="data check PATH --write"):
            read_recipe(path)


def test_a_divided_export_holds_out_its_validation(tmp_path):
    for split in ("train", "valid", "test"):
        picture(tmp_path / split / "a.png", color=dict(train="red", valid="blue").get(split, "tan"))
        data = dict(images=[dict(id=1, file_name="a.png", height=100, width=200)])
        data |= dict(annotations=[], categories=[dict(id=1, name="cup")])
        write(tmp_path / split / "_annotations.coco.json", json.dumps(data))
    mixture = recognise_data(tmp_path, root=tmp_path)
    (part,), (held,) = mixture["stages"]["3"], mixture["held_out"]
    assert (part["folder"], held["folder"], part["images"]) == ("train", "valid", ".")


def test_pictures_of_chat_records_are_found(tmp_path):
    picture(tmp_path / "pictures" / "a.png")
    said = [dict(role="user", content="<image>What?"), dict(role="assistant", content="A cup.")]
    record = dict(messages=said, images=["a.png"])
    write(tmp_path / "chat.jsonl", json.dumps(record) + "\n")
    mixture = recognise_data(tmp_path / "chat.jsonl", root=tmp_path)
    assert mixture["stages"]["3"][0]["images"] == "pictures"
    (reader,) = opened(mixture, tmp_path)
    assert reader[0].turns[0].answer == "A cup."


# -- division


def test_the_first_pixel_of_voc_is_written_once_for_all_splits(tmp_path):
    """Only the validation file has a corner at 0, a sign of edges; both are read as edges."""
    for split, corners in (("train", (5, 5, 9, 9)), ("val", (0, 5, 9, 9))):
        picture(tmp_path / split / f"{split}.png")
        text = VOC.format(name=f"{split}.png", base="", objects=OBJECT.format("cup", *corners))
        write(tmp_path / split / f"{split}.xml", text)
    mixture = recognise_data(tmp_path, root=tmp_path)
    assert [p["first_pixel"] for p in (*mixture["stages"]["3"], *mixture["held_out"])] == [0, 0]
    train, val = opened(mixture, tmp_path)
    assert boxes(train) == [("cup", [5, 5, 9, 9])] and boxes(val) == [("cup", [0, 5, 9, 9])]
    (tmp_path / "val" / "val.xml").unlink()
    assert recognise_data(tmp_path / "train")["stages"]["3"][0]["first_pixel"] == 1


def test_each_path_into_flickr30k_means_the_whole_set(tmp_path):
    """Its XML files have VOC's tags, and numbers of phrases for names."""
    text = VOC.format(name="1.jpg", base="", objects=OBJECT.format("27", 1, 1, 9, 9))
    xml = write(tmp_path / "Annotations" / "1.xml", text)
    sentences = write(tmp_path / "Sentences" / "1.txt", "[/EN#27/animals A dog] sits .")
    for path in (tmp_path, xml, xml.parent, sentences, sentences.parent):
        [part] = recognise_data(path, root=tmp_path)["stages"]["3"]
        assert (part["format"], part["folder"]) == ("flickr30k", ".")


def test_the_file_of_class_names_means_the_divided_set(tmp_path):
    for split in ("train", "valid"):
        picture(tmp_path / split / "images" / f"of_{split}.png")
        write(tmp_path / split / "labels" / f"of_{split}.txt", "0 .5 .5 .2 .2")
    names = write(tmp_path / "data.yaml", "names: [cup]")
    for path in (tmp_path, names):
        train, val = opened(recognise_data(path, root=tmp_path), tmp_path)
        assert len(train) == len(val) == 1
        assert (train.picture(0), val.picture(0)) == (
            "train/images/of_train.png",
            "valid/images/of_valid.png",
        )
    for path in ("train", "train/labels", "train/labels/of_train.txt"):  # names stand above
        (alone,) = opened(recognise_data(tmp_path / path, root=tmp_path), tmp_path)
        assert boxes(alone) == [("cup", [80, 40, 120, 60])]


def test_parts_share_no_picture_and_repeat(tmp_path):
    make_yolo(tmp_path / "own", 12)
    for of in (0, 5):  # the same file under another name
        for folder, ending in (("images", "png"), ("labels", "txt")):
            shutil.copy(tmp_path / "own" / folder / f"{of}.{ending}",
                        tmp_path / "own" / folder / f"copy{of}.{ending}")  # fmt: skip
    found = split_data(tmp_path / "own", tmp_path / "parts", 0.25, 0.25, seed=3)
    split_data(tmp_path / "own", tmp_path / "again", 0.25, 0.25, seed=3)
    held = {}
    for name in ("train", "val", "test"):
        text = (tmp_path / "parts" / f"{name}.json").read_text()
        assert text == (tmp_path / "again" / f"{name}.json").read_text()
        held[name] = [image["file_name"] for image in json.loads(text)["images"]]
        assert len(held[name]) == found[name]["pictures"]
    names = [Path(name).name for part in held.values() for name in part]
    assert sorted(names) == sorted(os.listdir(tmp_path / "own" / "images"))
    for of in (0, 5):
        pair = {f"images/{of}.png", f"images/copy{of}.png"}
        assert sum(pair <= set(names) for names in held.values()) == 1
    other = split_data(tmp_path / "own", tmp_path / "other", 0.25, 0.25, seed=4)
    assert other["train"]["pictures"] + other["val"]["pictures"] + other["test"]["pictures"] == 14
    assert (tmp_path / "other" / "val.json").read_text() != (
        tmp_path / "parts" / "val.json"
    ).read_text()


def test_three_forms_of_the_same_photographs_become_equal_parts(tmp_path):
    """COCO, YOLO and VOC (corners counted from 1) of one set: after the division all are COCO, so
    training, scores and answers are the same, too."""
    place = Path(__file__).parent.parent / "tools" / "own_boxes.py"
    spec = importlib.util.spec_from_file_location("own_boxes_tool", place)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    parts = {}
    for form in tool.FORMS:
        folder = tool.write_photographs(tmp_path / form / "mine", range(6), form)
        found = split_data(folder, tmp_path / form / "parts", 0.2, 0.2)
        assert found["text"].count("never occur in train") <= 2
        for name in ("train", "val", "test"):
            data = json.loads((tmp_path / form / "parts" / f"{name}.json").read_text())
            names = {c["id"]: c["name"] for c in data["categories"]}
            pictures = {im["id"]: Path(im["file_name"]).name for im in data["images"]}
            parts.setdefault(name, []).append(
                [
                    (pictures[a["image_id"]], names[a["category_id"]], *np.round(a["bbox"], 2))
                    for a in data["annotations"]
                ]
            )
    for coco, yolo, voc in parts.values():
        assert coco == voc and len(coco)
        assert [row[:2] for row in yolo] == [row[:2] for row in coco]
        assert np.allclose([r[2:] for r in yolo], [r[2:] for r in coco], atol=0.02)


def test_written_parts_have_the_boxes_of_the_file(tmp_path):
    make_yolo(tmp_path / "own")
    split_data(tmp_path / "own", tmp_path / "parts", 0.2, 0.2)
    for file, part in (("mixture.json", "val"), ("mixture-test.json", "test")):
        recipe = read_recipe(tmp_path / "parts" / file)
        assert [p.name for p in recipe.held_out] == [part]
        reader = open_part(recipe.held_out[0], recipe.root, strict=True)
        assert len(reader) == 2 and isinstance(reader, CocoScenes)
        for i in range(2):
            (one,) = reader[i].objects
            assert one.box.list() == [50, 25, 150, 75]
            assert one.name == ("cup", "ball")[int(Path(reader.picture(i)).stem) % 2]


def test_a_picture_with_a_fault_stops_or_is_left_out_whole(tmp_path):
    make_yolo(tmp_path / "own")
    write(tmp_path / "own" / "labels" / "4.txt", "0 .5 .5 .5 .5\n9 .5 .5 .1 .1\n")
    with pytest.raises(InputError, match="--skip bad"):
        split_data(tmp_path / "own", tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
    found = split_data(tmp_path / "own", tmp_path / "parts", skip=True)
    assert sum(found[k]["pictures"] for k in ("train", "val", "test")) == 9
    assert "left out: 1 faults" in found["text"]


def test_conversations_of_a_picture_stay_together(tmp_path):
    records = []
    for k in range(20):
        picture(tmp_path / f"{k // 2}.png", color=(k // 2, 0, 0))
        said = [{"from": "human", "value": f"<image>{k}?"}, {"from": "gpt", "value": "Yes."}]
        records.append(dict(id=k, image=f"{k // 2}.png", conversations=said))
    records.append(dict(id=99, conversations=[dict(r, value="No picture.") for r in said]))
    write(tmp_path / "chat.json", json.dumps(records))
    found = split_data(tmp_path / "chat.json", tmp_path / "parts", 0.2, 0.2)
    assert [found[k]["records"] for k in ("train", "val", "test")] == [13, 4, 4]
    mixture = json.loads((tmp_path / "parts" / "mixture.json").read_text())
    train, _ = opened(mixture, tmp_path / "parts")
    assert len(train) == 13 and train[0].turns


def test_a_divided_set_is_not_divided_again(tmp_path):
    for split in ("train", "val"):
        make_yolo(tmp_path / "own" / split, 3)
    (tmp_path / "own" / "train" / "classes.txt").rename(tmp_path / "own" / "classes.txt")
    with pytest.raises(InputError, match="train with the mixture that data check --write writes"):
        split_data(tmp_path / "own", tmp_path / "parts")
    (tmp_path / "own" / "classes.txt").unlink()
    with pytest.raises(InputError, match="in the order of their numbers.$"):  # no --skip bad helps
        split_data(tmp_path / "own" / "train", tmp_path / "parts")


def test_too_few_pictures_and_wrong_shares_are_refused(tmp_path):
    make_yolo(tmp_path / "own", 2)
    with pytest.raises(InputError, match="found 2 different ones"):
        split_data(tmp_path / "own", tmp_path / "parts")
    with pytest.raises(InputError, match="below 1 together"):
        split_data(tmp_path / "own", tmp_path / "parts", 0.5, 0.5)


# -- real files: each is read, or refused with a sentence


@needs_real
@pytest.mark.parametrize("place", ["voc", "yolo", "openimages.csv"])
def test_one_set_of_photographs_in_four_forms(place):
    """The COCO file is CVAT's own export; VOC counts from 1, so its first corner is 1 less."""
    folder = Path(REAL) / "voc8"
    (coco,) = opened(recognise_data(folder / "instances_default.json", root=folder), folder)
    mixture = recognise_data(folder / place, root=folder)
    (other,) = opened(mixture, folder, strict=False)
    places = {Path(coco.picture(i)).stem: sorted(boxes(coco, i)) for i in range(8)}
    shift = 1 if place == "voc" else 0
    for i in range(8):
        expected = places[Path(other.picture(i)).stem]
        found = sorted(boxes(other, i))
        assert [name for name, _ in found] == [name for name, _ in expected]
        for (_, a), (_, b) in zip(found, expected):
            assert a == pytest.approx([b[0] - shift, b[1] - shift, b[2], b[3]], abs=0.02)


@needs_real
@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
def test_roboflow_exports_mean_the_same_boxes(form):
    folder = Path(REAL) / "roboflow" / form
    train, val = opened(recognise_data(folder, root=folder), folder)
    found = {Path(r.picture(i)).stem: boxes(r, i) for r in (train, val) for i in range(len(r))}
    assert found["train_001"] == [("label_0", [2, 1, 5, 2])]
    assert found["train_002"] == [("label_1", [0, 0, 2, 4])] and found["val_001"]


@needs_real
@pytest.mark.parametrize(
    "place, told",
    [
        ("voc8", "name one of them"),
        ("voc8/cvat_annotations.xml", "panlabel convert -f cvat"),
        ("roboflow/createml", "panlabel convert -f create-ml"),
        ("exif", "found 3 pictures and no annotations"),
        ("griffon_demo", "found 2 pictures and no annotations"),
        ("fsc", "write a YOLO file"),
        ("pope", "eval --suite"),
        ("ferretbench", "eval --suite"),
        ("refcocos", "eval --suite"),
        ("vg/image_data.json", "name the file of the regions"),
        ("vg", "region_descriptions.json in genome's form, expected one; name it"),
        ("ferretui", "name one of them"),
    ],
)
def test_real_files_that_are_refused(place, told):
    with pytest.raises(InputError, match=told):
        recognise_data(Path(REAL) / place)


@needs_real
@pytest.mark.parametrize(
    "place, form, n",
    [
        ("coco139", "coco", 1),
        ("labelstudio", "labelstudio", 0),  # its pictures are not here
        ("flickr", "flickr30k", 5),
        ("ferretui/train_data_example.json", "grit", 3),
        ("vg/region_descriptions.json", "genome", 1),
    ],
)
def test_real_files_that_are_read(place, form, n):
    mixture = recognise_data(Path(REAL) / place, root=REAL)
    assert mixture["stages"]["3"][0]["format"] == form
    (reader,) = opened(mixture, REAL, strict=False)
    assert len(reader) == n
    assert form != "labelstudio" or "found no picture '/image1'" in describe_data(reader, form)


def list_real_files() -> list:
    return sorted(p for p in Path(REAL).rglob("*") if p.is_file()) if REAL else []


ADVICE = (  # what a refusal asks for
    "panlabel convert",
    "name the file",
    "write a YOLO file",
    "eval --suite",
    "give it to data check",
)


@needs_real
@pytest.mark.parametrize("path", list_real_files(), ids=lambda p: str(p.relative_to(REAL)))
def test_each_real_file_is_read_or_the_refusal_names_the_conversion(path):
    try:
        mixture = recognise_data(path, root=REAL)
    except InputError as error:
        known = ADVICE if path.suffix != ".md" else ("convert it to COCO, see panlabel",)
        assert str(path) in str(error) and any(words in str(error) for words in known), error
        return
    for reader in opened(mixture, REAL, strict=False):
        assert len(reader) or "found no picture '/image1'" in describe_data(reader, "")
        assert not reader.describe_overhang()


# -- all boxes of a file together


GRID = [(x, y, x + 50, y + 40) for x in range(0, 150, 30) for y in range(0, 60, 15)]
SIZES = [(100, 200)] * len(GRID)


@pytest.mark.parametrize(
    "change, form, told",
    [
        (lambda a, b, c, d: (a, b, c - a, d - b), "xyxy", "x, y, width, height (xywh)"),
        (lambda a, b, c, d: (a, b, c, d), "xywh", "x1, y1, x2, y2 (xyxy)"),
        (lambda a, b, c, d: (b, a, d, c), "xyxy", "y1, x1, y2, x2"),
        (lambda a, b, c, d: (a, b, c, d), "cxcywh", "x1, y1, x2, y2 (xyxy)"),
        (lambda a, b, c, d: (5 * a, 10 * b, 5 * c, 10 * d), "xyxy", "xyxy) in thousandths"),
        (lambda a, b, c, d: (a / 200, b / 100, c / 200, d / 100), "xyxy", "xyxy) in fractions"),
    ],
)
def test_a_wrong_reading_is_named(change, form, told):
    boxes = [change(*box) for box in GRID]
    assert told in guess_box_reading(boxes, SIZES, form)
    samples = list(zip(boxes, SIZES))
    doubt = judge_boxes(Counter(all=20, refused=5), samples, form)
    assert doubt.startswith("found 5 of 20 boxes") and told in doubt


def test_a_wrong_scale_is_named_and_few_boxes_are_no_sign():
    small = [([0.3 * v for v in box], size) for box, size in zip(GRID, SIZES)]
    assert "scaled twice" in judge_boxes(Counter(all=20), small, "xyxy")
    assert judge_boxes(Counter(all=19), small, "xyxy") == ""
    assert judge_boxes(Counter(all=20), list(zip(GRID, SIZES)), "xyxy") == ""
    large = [[2 * v + 150 for v in box] for box in GRID]
    assert "times as large" in guess_box_reading(large, SIZES)


def test_one_annotation_of_a_task_counts(tmp_path):
    """The ground truth, else the newest that is not cancelled."""
    picture(tmp_path / "a.png")

    def work(label, day, **more):
        value = dict(x=0, y=0, width=50, height=50, rectanglelabels=[label])
        result = dict(type="rectanglelabels", value=value)
        return dict(result=[result], updated_at=f"2026-01-0{day}T00:00:00Z", **more)

    done = [work("new", 3), work("old", 1), work("cancelled", 4, was_cancelled=True)]
    for more, name in (([], "new"), ([work("truth", 2, ground_truth=True)], "truth")):
        task = dict(data=dict(image="a.png"), annotations=done + more)
        write(tmp_path / "t.json", json.dumps([task]))
        reader = LabelStudioScenes(tmp_path, "t.json")
        assert boxes(reader) == [(name, [0, 0, 100, 50])]
        assert reader.head["further"] == 1 + len(more)
