"""Other people's files: each format written by our scenes and read back, and all the ways in which
files are wrong.
"""

import json
import random

import numpy as np
import pytest
from PIL import Image

from ferretlite.data import detection_files as formats
from ferretlite.data import grounding_files, referring_files
from ferretlite.data.coco import CocoScenes, _fill_polygons
from ferretlite.data.detection_files import LvisScenes, Objects365Scenes
from ferretlite.data.dialogue_exports import export_grit
from ferretlite.data.dialogues import GritDialogues
from ferretlite.data.grounding_files import FlickrScenes, GriffonScenes
from ferretlite.data.llava import LlavaDialogues, _convert_from_square, export_llava
from ferretlite.data.pseudo_boxes import (
    NameFinder,
    WordFinder,
    WordReader,
    _add_placeholders,
    _add_pseudo_boxes,
    _find_names,
)
from ferretlite.data.readers import open_annotated_image
from ferretlite.data.referring_files import GenomeScenes, RefScenes, _collect_coco_ids
from ferretlite.regions.geometry import Box, Mask, Point, box_iou
from ferretlite.regions.grammar import Grounding, parse_groundings
from ferretlite.scenes.conversations import keep_complete_kinds, make_conversation
from ferretlite.scenes.questions import GROUNDING_SWITCH, Conversation
from ferretlite.scenes.world import KINDS, add_article, make_scene, sort_in_raster_order

SCENES = [
    make_scene(s, (120, 160), split)
    for s, split in enumerate(("train", "test", "count", "unseen", "large"))
]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    "The scenes in every format; read only."
    root = tmp_path_factory.mktemp("shelf")
    for name, export in dict(
        lvis=formats.export_lvis,
        objects365=formats.export_objects365,
        refcoco=referring_files.export_refcoco,
        genome=referring_files.export_genome,
        flickr30k=grounding_files.export_flickr,
        griffon=grounding_files.export_griffon,
        grit=export_grit,
        llava=export_llava,
    ).items():
        export(SCENES, root / name)
    return root


def edited(source, target, edit):
    "A JSON file with one change, under another name."
    data = json.loads(source.read_text())
    data = edit(data) or data
    path = source.with_name(target)
    path.write_text(json.dumps(data))
    return path.name


# -- pictures


def test_every_kind_of_picture_comes_in_upright_rgb(tmp_path):
    base = Image.new("RGB", (60, 40), "white")
    base.paste("red", (0, 0, 30, 20))
    note = base.getexif()
    note[274] = 6
    base.save(tmp_path / "exif.jpg", exif=note, quality=95)
    base.convert("P").save(tmp_path / "palette.png")
    base.convert("L").save(tmp_path / "grey.png")
    base.convert("CMYK").save(tmp_path / "cmyk.jpg")
    clear = base.convert("RGBA")
    clear.putalpha(Image.new("L", base.size, 0))
    clear.save(tmp_path / "clear.png")
    assert open_annotated_image(tmp_path / "exif.jpg").size == (40, 60)
    assert (
        np.asarray(open_annotated_image(tmp_path / "exif.jpg"))[5, 35].tolist()[0]
        > 200
        > 100
        > np.asarray(open_annotated_image(tmp_path / "exif.jpg"))[5, 35].tolist()[1]
    )  # the red corner has turned to the right
    assert (
        np.asarray(open_annotated_image(tmp_path / "exif.jpg", (40, 60)))[5, 5, 1] < 100
    )  # annotated as stored: the red corner stays
    assert open_annotated_image(tmp_path / "palette.png").getpixel((5, 5)) == (255, 0, 0)
    assert open_annotated_image(tmp_path / "clear.png").getpixel((5, 5)) == (255, 255, 255)
    assert {
        open_annotated_image(tmp_path / n).mode for n in ("grey.png", "cmyk.jpg", "clear.png")
    } == {"RGB"}


def test_a_picture_that_is_cut_or_gone_is_named(tmp_path):
    SCENES[0].image.save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:600])
    with pytest.raises(ValueError, match="a.jpg: found a damaged picture .*expected a whole PNG"):
        open_annotated_image(tmp_path / "a.jpg", (120, 160))
    with pytest.raises(FileNotFoundError, match="b.jpg"):
        open_annotated_image(tmp_path / "b.jpg")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_polygons_own_the_pixels_that_pycocotools_gives_them_but_for_the_rim():
    masks = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(30):
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 12)))
        corners = np.stack(
            [
                60 + 1.1 * (r := rng.uniform(15, 45, len(angles))) * np.cos(angles),
                50 + r * np.sin(angles),
            ],
            1,
        )
        ours = _fill_polygons([corners.flatten().tolist()], (100, 120))
        theirs = masks.decode(masks.frPyObjects([corners.flatten().tolist()], 100, 120))[..., 0] > 0
        y, x = np.nonzero(ours ^ theirs)
        start, along = (
            corners,
            np.roll(corners, -1, 0) - corners,
        )  # distance of each pixel that differs from the nearest edge
        off = np.stack([x, y], 1)[:, None] + 0.5 - start  # [n, edges, 2]
        share = ((off * along).sum(-1) / (along**2).sum(-1)).clip(0, 1)
        distance = np.linalg.norm(off - share[..., None] * along, axis=-1).min(1)
        assert (
            distance.max(initial=0) < 1.1 and (ours & theirs).sum() > 0.85 * (ours | theirs).sum()
        )


# -- instances


def test_lvis_comes_back_with_masks_and_absences(shelf):
    found = LvisScenes(shelf / "lvis")
    for scene, again in zip(SCENES, found, strict=True):
        assert [(o.name, o.box, o.mask) for o in again.objects] == [
            (o.name, o.box, o.mask) for o in scene.objects
        ]
        present = {o.name for o in scene.objects}
        assert len(set(again.names) - present) == 3 and present <= set(again.names)


def test_lvis_never_claims_an_absence_it_does_not_know(shelf):
    scene = LvisScenes(shelf / "lvis")[0]
    absent, present = (
        set(scene.names) - {o.name for o in scene.objects},
        {o.name for o in scene.objects},
    )
    for k in range(40):
        for turn in make_conversation(
            scene, dict(find=1.0, find_set=1.0), random.Random(k), 4
        ).turns:
            if turn.task == "find" and turn.answer == "None":
                assert turn.meta["query"] in absent
            if turn.task == "find_set":
                assert set(turn.meta["names"]) <= absent | present


def test_lvis_kinds_that_are_listed_in_part_are_not_asked_for_in_full(shelf):
    def edit(data):
        for image in data["images"]:
            image["not_exhaustive_category_ids"] = [data["annotations"][0]["category_id"]]

    scene = LvisScenes(
        shelf / "lvis", edited(shelf / "lvis" / "lvis_v1_train.json", "partial.json", edit)
    )[0]
    part = scene.objects[0].name
    assert (
        scene.partial == (part,)
        and part in {o.name for o in scene.objects}
        and part not in {o.name for o in keep_complete_kinds(scene).objects}
    )
    for k in range(40):
        for turn in make_conversation(scene, dict(find_set=1.0), random.Random(k), 3).turns:
            assert part not in {g.name for g in turn.meta["groundings"]}


def test_lvis_without_an_address_is_named(shelf):
    name = edited(
        shelf / "lvis" / "lvis_v1_train.json",
        "noaddress.json",
        lambda d: d["images"][1].pop("coco_url") and None,
    )
    with pytest.raises(
        ValueError, match="image 2, field coco_url: found nothing, expected the address"
    ):
        LvisScenes(shelf / "lvis", name)


def test_objects365_finds_pictures_where_archives_put_them(shelf):
    for scene, again in zip(SCENES, Objects365Scenes(shelf / "objects365"), strict=True):
        assert [(o.name, o.box) for o in again.objects] == [(o.name, o.box) for o in scene.objects]


def test_what_is_wrong_is_raised_or_counted(shelf):
    def edit(data):
        data["annotations"][0]["bbox"] = [5, 5, 0, 3]
        data["annotations"][1]["bbox"] = [10, 10, 999, 20]

    name = edited(shelf / "objects365" / "zhiyuan_objv2_train.json", "bad.json", edit)
    with pytest.raises(ValueError, match="annotation 1, field bbox: found .*sides are positive"):
        Objects365Scenes(shelf / "objects365", name)[0]
    lax = Objects365Scenes(shelf / "objects365", name, strict=False)
    assert (
        len(lax[0].objects) == len(SCENES[0].objects) - 1
        and lax[0].objects[0].box == Box(10, 10, 160, 30)
        and lax.left_out["box"] == 1
    )  # read twice, counted once


def test_large_files_are_packed_once_and_mapped(shelf, tmp_path, monkeypatch):
    monkeypatch.setattr("ferretlite.data.readers._MIN_PACKED_BYTES", 10)
    first = LvisScenes(shelf / "lvis", cache=tmp_path)
    [packed] = tmp_path.glob("*.arrow")
    made = packed.stat().st_mtime_ns
    again = LvisScenes(shelf / "lvis", cache=tmp_path, exclude={2})
    assert packed.stat().st_mtime_ns == made and [*tmp_path.iterdir()] == [packed]
    assert again[1].objects == first[2].objects and len(again) == len(first) - 1
    edited(shelf / "lvis" / "lvis_v1_train.json", "second.json", lambda d: None)
    LvisScenes(shelf / "lvis", "second.json", cache=tmp_path)
    assert len([*tmp_path.iterdir()]) == 2  # another file, another packing


# -- phrases


def test_refcoco_as_json_and_as_parquet_is_the_same(shelf):
    referring_files.export_refcoco(SCENES, shelf / "refcoco", "ref.parquet")
    one, two = RefScenes(shelf / "refcoco"), RefScenes(shelf / "refcoco", "ref.parquet")
    assert [s.phrases for s in one] == [s.phrases for s in two]
    for number, (scene, again) in enumerate(zip(SCENES, one, strict=True), 1):
        truth = dict(referring_files.make_expressions(scene, random.Random(number)))
        assert {p.text: (p.box, p.mask) for p in again.phrases} == {
            t: (o.box, o.mask) for t, o in truth.items()
        } and truth


def test_parquet_boxes_without_coco_annotations_need_their_form_said(shelf):
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = "COCO_train2014_000000000001.jpg"
    pq.write_table(
        pa.table(
            dict(file_name=[name], bbox=[[10.0, 20.0, 30.0, 40.0]], answer=[["the left one"]])
        ),
        shelf / "refcoco" / "bare.parquet",
    )
    assert RefScenes(shelf / "refcoco", "bare.parquet")[0].phrases[0].box == Box(10, 20, 40, 60)
    assert RefScenes(shelf / "refcoco", "bare.parquet", boxes="xyxy")[0].phrases[0].box == Box(
        10, 20, 30, 40
    )


@pytest.mark.parametrize("name", ["refs(unc).p", "refs.pkl", "refs.pickle"])
def test_a_pickle_is_never_opened(shelf, name):
    (shelf / "refcoco" / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ValueError, match="found a pickle, which runs code when it is read"):
        RefScenes(shelf / "refcoco", name)


def test_pictures_of_refcoco_val_stay_out_of_every_other_reader(shelf):
    referring_files.export_refcoco(SCENES[2:3], shelf / "refcoco", "val.json", first=3)
    secret = _collect_coco_ids([RefScenes(shelf / "refcoco", "val.json")])
    assert secret == {3}
    assert [s.id for s in LvisScenes(shelf / "lvis", exclude=secret)] == [
        f"{k:012d}" for k in (1, 2, 4, 5)
    ]
    assert [s.id for s in GenomeScenes(shelf / "genome", exclude=secret)] == [
        "1",
        "2",
        "4",
        "5",
    ]  # 3 is COCO's number 3; 1 and 5 are COCO's too
    assert (
        len(RefScenes(shelf / "refcoco", exclude=secret)) == 4
        and len(GenomeScenes(shelf / "genome", exclude={2})) == 5
    )


def test_visual_genome_regions_keep_words_and_boxes(shelf):
    for scene, again in zip(SCENES, GenomeScenes(shelf / "genome"), strict=True):
        assert [(p.text, p.boxes) for p in again.phrases] == [
            (add_article(o.phrase), [o.box]) for o in scene.objects
        ]


def test_flickr_sentences_keep_words_places_and_boxes(shelf):
    found = FlickrScenes(shelf / "flickr30k")
    assert len(found) == 2 * len(SCENES)
    for k, scene in enumerate(SCENES):
        first, second = found[2 * k], found[2 * k + 1]
        assert [(first.caption[slice(*p.span)], p.boxes) for p in first.phrases] == [
            (add_article(o.phrase), [o.box]) for o in sort_in_raster_order(scene.objects)
        ]
        assert (
            second.phrases[0].boxes
            == [
                o.box
                for o in sort_in_raster_order(scene.objects)
                if o.name == scene.objects[0].name
            ]
            and len(second.phrases) == 1
        )  # "nothing else" has no box


def test_grounded_captions_of_flickr_read_back(shelf):
    for scene in FlickrScenes(shelf / "flickr30k"):
        [turn] = make_conversation(scene, dict(grounded_caption=1.0), random.Random(0), 1).turns
        boxes = [b for g in parse_groundings(turn.answer, scene.size) for b in g.boxes]
        wanted = [b for p in scene.phrases for b in p.boxes]
        assert turn.prompt.endswith(GROUNDING_SWITCH) and len(boxes) == len(wanted)
        assert all(
            max(abs(x - y) for x, y in zip(a.list(), b.list())) <= 0.6 * max(scene.size) / 1000
            for a, b in zip(boxes, wanted)
        )


@pytest.mark.parametrize(
    "text, says",
    [
        ("<annotation><size>", "found broken XML"),
        ("<annotation/>", "found no size"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation/>", "found entities of its own"),
    ],
)
def test_xml_that_is_wrong_is_named(tmp_path, text, says):
    (tmp_path / "7.xml").write_text(text)
    with pytest.raises(ValueError, match=f"7.xml: {says}"):
        grounding_files._read_entity_boxes(tmp_path / "7.xml")


def test_a_list_of_pictures_cannot_lead_out_of_its_folder(shelf):
    (shelf / "flickr30k" / "bad.txt").write_text("../../secret\n")
    with pytest.raises(ValueError, match="leads out of Sentences"):
        FlickrScenes(shelf / "flickr30k", "bad")


def test_griffon_lines_of_each_kind(shelf):
    read = {
        k: GriffonScenes(shelf / "griffon", f"{k.lower()}.jsonl", k)
        for k in grounding_files._GRIFFON_KINDS
    }
    for kind in ("DET", "RANDDET", "VISJ"):
        for scene, again in zip(SCENES, read[kind], strict=True):
            assert {(o.name, o.box) for o in again.objects} == {
                (o.name, o.box) for o in scene.objects
            }
    assert all(len(set(s.names) - {o.name for o in s.objects}) == 2 for s in read["RANDDET"])
    assert sum(not s.phrases[0].boxes for s in read["VG"]) == len(SCENES)
    for kind, task in zip(
        grounding_files._GRIFFON_KINDS, ("find_set", "find_set", "find", "tell", "search")
    ):
        turns = [
            t
            for i in range(len(read[kind]))
            for t in read[kind].converse(i, random.Random(i), {task: 1.0}, 1, style="griffon").turns
        ]
        assert turns and {t.task for t in turns} == {task}


def test_a_broken_line_is_named(shelf):
    (shelf / "griffon" / "bad.jsonl").write_text(
        '{"image_path": "a.jpg", "height": 1, "width": 1, "objects": []}\n\n{"image_path"\n'
    )
    with pytest.raises(ValueError, match="bad.jsonl, line 3: found broken JSON"):
        GriffonScenes(shelf / "griffon", "bad.jsonl", "DET")
    (shelf / "griffon" / "bad.jsonl").write_text('{"image_path": "a.jpg", "height": 1}\n')
    with pytest.raises(ValueError, match="line 1, field width: found nothing"):
        GriffonScenes(shelf / "griffon", "bad.jsonl", "VISJ")


# -- dialogues


def test_grit_regions_lie_where_they_were_marked(shelf):
    grit = GritDialogues(shelf / "grit", "grit.json")
    seen = set()
    for scene, i in zip(SCENES, range(len(grit)), strict=True):
        for k in range(6):
            for turn in grit.converse(i, random.Random(k)).turns:
                seen |= {type(r) for r in turn.regions}
                for r in turn.regions:
                    if isinstance(r, Mask):
                        assert r in [o.mask for o in scene.objects]
                    else:
                        assert any(
                            (
                                (r == o.box)
                                if isinstance(r, Box)
                                else (o.box.x1 <= r.x <= o.box.x2 and o.box.y1 <= r.y <= o.box.y2)
                            )
                            for o in scene.objects
                        )
                for g in parse_groundings(turn.answer, scene.size):
                    assert box_iou(g.boxes, [o.box for o in scene.objects]).max() > 0.85
    assert seen == {Point, Box, Mask}


def grit_record(tmp_path, human, answer, boxes, **more):
    SCENES[0].image.save(tmp_path / "a.png")
    (tmp_path / "g.json").write_text(
        json.dumps(
            [
                dict(
                    id=7,
                    image="a.png",
                    image_h=120,
                    image_w=160,
                    conversations=[
                        {"from": "human", "value": human},
                        {"from": "gpt", "value": answer},
                    ],
                    box_x1y1x2y2=boxes,
                    **more,
                )
            ]
        )
    )
    return GritDialogues(tmp_path, "g.json", ".")


def test_placeholders_may_repeat_and_come_in_any_order(tmp_path):
    one, two = [0, 0, 16, 12], [80, 60, 160, 120]
    turn = (
        grit_record(
            tmp_path,
            "<image>\nIs <bbox_location1> like <bbox_location0>? And <bbox_location1>?",
            "No, <bbox_location0>.",
            [[one, two], [two]],
        )
        .converse(0, random.Random(3))
        .turns[0]
    )
    assert (
        turn.prompt == "Is <region> like <region>? And <region>?"
        and turn.answer == "No, [500, 500, 999, 999]."
    )
    centres = [r.box().center() for r in turn.regions]
    assert [(c.x > 50) for c in centres] == [True, False, True]


@pytest.mark.parametrize(
    "human, boxes, says",
    [
        ("What is <bbox_location1>?", [[[0, 0, 9, 9]], []], "found <bbox_location1> with 1 boxes"),
        ("What is <bbox_location0>?", [[[9, 0, 9, 9]], []], "sides are positive"),
        ("What is <bbox_location0>?", [[[500, 0, 600, 9]], []], "inside its image"),
        ("What is <bbox_location0>?", [[["a", 0, 6, 9]], []], "found the box"),
    ],
)
def test_a_box_that_cannot_be_used_ends_the_dialogue(tmp_path, human, boxes, says):
    reader = grit_record(tmp_path, human, "A star.", boxes)
    with pytest.raises(ValueError, match=f"g.json, record with id 7, turn 0: .*{says}"):
        reader[0]
    reader.strict = False
    assert reader[0].turns == [] and reader.left_out["turn"] == 1


def test_the_switch_has_ungrounded_twins(shelf):
    grit = GritDialogues(shelf / "grit", "grit.json", switch=0.5)
    turns = [
        t
        for i in range(len(grit))
        for k in range(8)
        for t in grit.converse(i, random.Random(k)).turns
        if not t.regions
    ]
    asked = {
        t.prompt.removesuffix("\n" + GROUNDING_SWITCH)
        for t in turns
        if GROUNDING_SWITCH in t.prompt
    } & {t.prompt for t in turns if GROUNDING_SWITCH not in t.prompt}
    assert asked and all(("[" in t.answer) == (GROUNDING_SWITCH in t.prompt) for t in turns)


def test_llava_comes_with_and_without_pictures(shelf):
    talks = list(LlavaDialogues(shelf / "llava", "llava.json"))
    assert [len(t.turns) for t in talks] == [2] * 5 + [1] and [t.linked for t in talks] == [
        True
    ] * 5 + [False]
    assert talks[-1].image.size == (64, 64) and not any(
        "<image>" in t.prompt for c in talks for t in c.turns
    )


def test_a_dialogue_is_one_row_that_sees_itself(shelf):
    from ferretlite.common.files import WEIGHTS
    from ferretlite.model.processing import FerretProcessor
    from ferretlite.model.tokens import turn_mask

    tiny, talks = (
        FerretProcessor.from_pretrained(WEIGHTS / "tiny"),
        list(LlavaDialogues(shelf / "llava", "llava.json")),
    )
    batch = tiny.encode_conversations(
        [talks[0], talks[-1], Conversation(talks[0].image, talks[0].size, talks[0].turns)]
    )
    linked, single, apart = batch["turn_ids"]
    assert linked.max() == single.max() == 1 and apart.max() == 2
    last, first = (linked == 1).nonzero()[:, 0][[-1, 0]].tolist()
    assert (
        turn_mask(batch["turn_ids"])[0, 0, last, first]
        and not turn_mask(batch["turn_ids"])[2, 0, last, first]
    )  # the second answer sees the first question, or not
    assert batch["position_ids"][0, last] == last and batch["position_ids"][2, last] < last
    assert (batch["labels"] == tiny.tokenizer.eos_token_id).sum(1).tolist() == [2, 1, 2]


def test_llava_fractions_are_left_out_or_converted(tmp_path):
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    said = [
        ("human", "<image>\nWhat is in [0.25, 0.25, 0.50, 0.75]?"),
        ("gpt", "A dog."),
        ("human", "Where is the cat?"),
        ("gpt", "[0.5, 0.5, 1.0, 0.75]"),
    ]
    (tmp_path / "l.json").write_text(
        json.dumps(
            [dict(id=1, image="a.png", conversations=[{"from": f, "value": v} for f, v in said])]
        )
    )
    plain = LlavaDialogues(tmp_path, "l.json", ".", strict=False)
    assert plain[0].turns == [] and plain.left_out["boxes of an unknown frame"] == 2
    first, second = LlavaDialogues(tmp_path, "l.json", ".", boxes="square")[0].turns
    assert (
        first.prompt == "What is in <region>?"
        and first.regions == [Box(50, 0, 100, 100)]
        and second.answer == "[500, 500, 999, 999]"
    )
    assert LlavaDialogues(tmp_path, "l.json", ".", boxes="image")[0].turns[0].regions == [
        Box(50, 25, 100, 75)
    ]
    assert _convert_from_square([0, 0.25, 1, 0.75], (100, 200)) == [0, 0, 200, 100]


@pytest.mark.parametrize(
    "said",
    [
        [("human", "a")],
        [("human", "a"), ("human", "b")],
        [("gpt", "a")],
        [("human", "a"), ("gpt", "  ")],
        [],
    ],
)
def test_turns_that_do_not_alternate_are_named(tmp_path, said):
    (tmp_path / "l.json").write_text(
        json.dumps([dict(id="x9", conversations=[{"from": f, "value": v} for f, v in said])])
    )
    with pytest.raises(ValueError, match="l.json, record with id 'x9'.*: found"):
        LlavaDialogues(tmp_path, "l.json")[0]


def test_no_file_name_of_any_format_leads_out(shelf):
    outside = "../../../etc/passwd"
    readers = [
        RefScenes(
            shelf / "refcoco",
            edited(
                shelf / "refcoco" / "finetune_refcoco_train.json",
                "out.json",
                lambda d: [i.update(file_name=outside) for i in d["images"]] and None,
            ),
        ),
        GritDialogues(
            shelf / "grit",
            edited(
                shelf / "grit" / "grit.json",
                "out.json",
                lambda d: [r.update(image=outside) for r in d] and None,
            ),
        ),
        LlavaDialogues(
            shelf / "llava",
            edited(
                shelf / "llava" / "llava.json",
                "out.json",
                lambda d: [r.update(image="/etc/passwd") for r in d] and None,
            ),
        ),
        Objects365Scenes(
            shelf / "objects365",
            edited(
                shelf / "objects365" / "zhiyuan_objv2_train.json",
                "out.json",
                lambda d: [i.update(file_name=outside) for i in d["images"]] and None,
            ),
        ),
        LvisScenes(
            shelf / "lvis",
            edited(
                shelf / "lvis" / "lvis_v1_train.json",
                "out.json",
                lambda d: [i.update(file_name=outside) for i in d["images"]] and None,
            ),
        ),
        CocoScenes(shelf / "lvis", "out.json", "."),
    ]
    (shelf / "griffon" / "out.jsonl").write_text(
        json.dumps(dict(image_path=outside, height=9, width=9, objects=[]))
    )
    for reader in readers + [GriffonScenes(shelf / "griffon", "out.jsonl", "DET")]:
        with pytest.raises(ValueError, match="which leads out of"):
            reader[0]


# -- places where nobody marked them


def test_unified_records_are_ordinary_records(shelf):
    llava = LlavaDialogues(shelf / "llava", "llava.json")
    by_size = {
        open_annotated_image(shelf / "llava" / "images" / f"{s.id}.jpg").tobytes(): s
        for s in SCENES
    }

    def truth(image, names):
        return [
            Grounding(n, [o.box for o in by_size[image.tobytes()].objects if o.name == n])
            for n in names
        ]

    counts = _add_pseudo_boxes(
        llava, NameFinder(truth, list(KINDS)), shelf / "llava" / "unified.json"
    )
    assert counts["records"] == 6 and counts["grounded"] == 5
    for scene, talk, original in zip(SCENES, GritDialogues(shelf / "llava", "unified.json"), llava):
        boxes = [b for g in parse_groundings(talk.turns[0].answer, scene.size) for b in g.boxes]
        assert boxes and box_iou(boxes, [o.box for o in scene.objects]).amax(1).min() > 0.6
        assert [t.prompt for t in talk.turns] == [t.prompt for t in original.turns]
    for talk, original in zip(
        GritDialogues(shelf / "llava", "unified.json", switch=0.0), llava
    ):  # told without: the words are as they were
        assert [(t.prompt, t.answer) for t in talk.turns] == [
            (t.prompt, t.answer) for t in original.turns
        ]


def test_names_are_whole_words_and_longest_first():
    assert _find_names("Hot dogs, dogs; a doghouse and a DOG.", ["dog", "hot dog"]) == [
        (0, 8, "hot dog"),
        (10, 14, "dog"),
        (33, 36, "dog"),
    ]
    assert _add_placeholders("a b", []) == ("a b", [])


def test_grounding_dino_from_a_folder_in_hub_format(tmp_path):
    import torch
    from transformers import (
        BertConfig,
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        SwinConfig,
    )
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
        GroundingDinoImageProcessorPil,
    )

    from ferretlite.data.pseudo_boxes import GroundingDino

    words = [f"[unused{i}]" for i in range(1030)]
    for i, w in {
        0: "[PAD]",
        100: "[UNK]",
        101: "[CLS]",
        102: "[SEP]",
        103: "[MASK]",
        1012: ".",
        1029: "?",
        500: "dog",
        501: "hot",
        502: "cat",
        503: "##s",
    }.items():
        words[i] = w
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            embed_dim=12,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=3,
            out_features=["stage2", "stage3", "stage4"],
            image_size=64,
        ),
        text_config=BertConfig(
            vocab_size=1030,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        ),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=10,
        max_text_len=12,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(tmp_path)
    GroundingDinoImageProcessorPil(size=dict(shortest_edge=64, longest_edge=96)).save_pretrained(
        tmp_path
    )
    detect = GroundingDino(tmp_path, threshold=0.0, overlap=1.0)
    assert detect.group_names(["hot dog", "cat", "dog", "cat", "dog", "cat"]) == [
        ["hot dog", "cat", "dog", "cat"],
        ["dog", "cat"],
    ]  # 12 tokens at once, two of them the ends
    found = detect(SCENES[0].image, ["hot dog", "cat"])
    assert [g.name for g in found] == ["hot dog", "cat"] and all(
        len(g.boxes) <= 10 and g.scores == sorted(g.scores, reverse=True) for g in found
    )
    assert (
        all(0 <= b.x1 < b.x2 <= 160 and 0 <= b.y1 < b.y2 <= 120 for g in found for b in g.boxes)
        and found[0].scores != found[1].scores
    )
    assert (
        GroundingDino(tmp_path, threshold=1.1)(SCENES[0].image, ["cat"]) == []
        and detect(SCENES[0].image, []) == []
    )


@pytest.mark.ocr
def test_written_words_are_read_where_they_stand():
    from matplotlib import get_data_path
    from PIL import ImageDraw, ImageFont

    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", 26)
    sign = Image.new("RGB", (320, 120), "#f0e8d8")
    pen = ImageDraw.Draw(sign)
    truth = {
        t: list(pen.textbbox(at, t, font=font))
        for t, at in (("GARDEN", (15, 12)), ("Exit 24", (180, 70)))
    }
    pen.text((15, 12), "GARDEN", fill="#204080", font=font)
    pen.text((180, 70), "Exit 24", fill="black", font=font)
    read = WordReader()
    listed = read(sign)
    found = {g.name: g.boxes[0] for g in listed}
    assert set(found) == set(truth) and all(
        box_iou([found[t]], [truth[t]]).item() > 0.5 for t in truth
    )
    assert read(Image.new("RGB", (80, 80), "white")) == []
    text = "The garden is left of exit 24."
    told, boxes = _add_placeholders(text, WordFinder(lambda image: listed)(sign, text))
    assert told == "The garden <bbox_location0> is left of exit 24 <bbox_location1>." and boxes == [
        found["GARDEN"].list(),
        found["Exit 24"].list(),
    ]
