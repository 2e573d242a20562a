"""Data: streams, files and masks, on values that are worked out by hand."""

import json
import os
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from ferretlite.common.errors import InputError
from ferretlite.data import readers
from ferretlite.data.batches import Collator, ConversationDataset, Revisited, SceneStream
from ferretlite.data.coco import CocoScenes, _fill_polygons, read_coco_mask
from ferretlite.data.readers import (
    AnnotationReader,
    _cache_folder,
    _map_packed_file,
    _pack_records,
    _split_head,
    read_coco_id,
    resolve_inside,
    walk_json,
)
from ferretlite.regions.geometry import Box
from ferretlite.scenes.conversations import make_conversation
from ferretlite.scenes.questions import Conversation
from ferretlite.scenes.wide import enlarge_object
from ferretlite.scenes.world import Scene, SceneObject, make_scene

SCENES = [
    make_scene(s, (60, 80), split)
    for s, split in enumerate(("train", "test", "count", "unseen", "large"))
]


def listing(numbers, **options):
    """A reader of nothing but records and names of pictures:

    3 is `000000000003.jpg`, "a.jpg" is no picture of COCO's.
    """
    names = [f"{n:012d}.jpg" if isinstance(n, int) else n for n in numbers]

    class Listed(AnnotationReader):
        def sources(self):
            return []

        def rows(self):
            return dict(told=1), (
                (dict(k=k), name, read_coco_id(name)) for k, name in enumerate(names)
            )

        def make_scene(self, i, record):
            return record["k"]

    return Listed("folder", **options)


def test_sizes_of_a_stream():
    assert SceneStream.sizes == ((384, 384),) * 6 + (
        (320, 448),
        (448, 320),
        (192, 384),
        (384, 192),
        (288, 512),
        (512, 288),
    )
    assert len(SceneStream.sizes) == 12  # half of the scenes are square
    stream = SceneStream(3)
    assert (stream.seed, stream.split, stream.size, stream.others) == (0, "train", None, {})
    assert stream.close == 0


def test_the_ith_scene_of_a_stream_depends_on_its_seed_alone():
    scene = SceneStream(5, 40, "test", (48, 72))[3]
    assert (scene.seed, scene.split, scene.size, scene.id) == (43, "test", (48, 72), "test-43")
    assert scene.image.tobytes() == make_scene(43, (48, 72), "test").image.tobytes()
    for i in (-1, 5):
        with pytest.raises(IndexError, match=f"scene: found the number {i}, expected one below 5"):
            SceneStream(5)[i]
    drawn = [random.Random(f"size-{k}").choice(SceneStream.sizes) for k in range(40, 46)]
    assert [SceneStream(9, 38)[k].size for k in range(2, 8)] == drawn and len(set(drawn)) > 2


def test_shares_of_other_splits():
    stream = SceneStream(80, 0, "test", (8, 12), dict(count=0.6, novel=0.1))
    splits = Counter(stream[i].split for i in range(80))
    assert set(splits) == {"test", "count", "novel"}
    assert 0.48 < splits["count"] / 80 < 0.72 and 0.04 < splits["novel"] / 80 < 0.18
    assert {
        SceneStream(9, size=16, others=dict(count=0.75, novel=0.25))[i].split for i in range(9)
    } == {"count", "novel"}
    with pytest.raises(ValueError, match="add up to at most 1"):
        SceneStream(9, others=dict(count=0.75, novel=0.251))


def test_a_share_of_the_scenes_are_enlarged_windows():
    """Which ones depends on the number alone, and the others are the same scenes as without.

    A picture of a word is a window already."""
    plain = SceneStream(60, 5, "wide", (48, 72))
    stream = SceneStream(60, 5, "wide", (48, 72), close=0.25)
    close = [i for i in range(60) if stream[i].seed is None]
    assert 6 <= len(close) <= 25
    for i in range(12):
        if i not in close:
            assert stream[i].image.tobytes() == plain[i].image.tobytes()
    window = enlarge_object(plain[close[0]], np.random.default_rng([5 + close[0], 7]), 72)
    scene = stream[close[0]]
    assert scene.image.tobytes() == window.image.tobytes() and scene.objects == window.objects
    assert scene.id == f"wide-{5 + close[0]}" and scene.image.size == (72, 72)
    words = SceneStream(3, 5, "word", close=1.0)
    assert all(words[i].seed == 5 + i and words[i].size == (192, 192) for i in range(3))
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match="close: found .*, expected a share from 0 to 1"):
            SceneStream(9, close=share)


def test_enlarged_windows_come_round_with_or_without_their_pictures():
    "A question that shows a part of the picture needs the picture; a seed could not draw it."
    stream = SceneStream(2, 5, "wide", 48, close=1.0)
    assert [Revisited(stream, 4)[i].image is None for i in range(4)] == [False] * 4
    rounds = Revisited(stream, 4)
    assert [rounds[i].image is None for i in range(4)] == [False, False, True, True]
    rounds = Revisited(stream, 4, redraw=True)
    assert [rounds[i].image is None for i in range(4)] == [False] * 4
    rounds = Revisited(SceneStream(2, 5, "wide", 48), 4, redraw=True)  # a seed draws it again
    assert [rounds[i].image is None for i in range(4)] == [False, False, True, True]


def test_scenes_come_round_in_sets():
    class Scenes:
        asked = []

        def __len__(self):
            return 7

        def __getitem__(self, i):
            self.asked.append(i)
            return Scene(f"picture {i}", (3, 4), id=str(i))

    # sets of three, each twice; the seventh scene fills no set, and the last set goes on
    visited = Revisited(Scenes(), 17, at_once=3, rounds=2)
    found = [visited[i] for i in range(17)]
    assert [s.id for s in found] == list("012012345345") + list("34534")
    assert [s.image is None for s in found] == ([False] * 3 + [True] * 3) * 2 + [True] * 5
    assert Scenes.asked == [0, 1, 2, 3, 4, 5] and len(visited) == 17
    Scenes.asked.clear()
    whole = Revisited(Scenes(), 9)
    assert [whole[i].id for i in range(9)] == list("012345601") and Scenes.asked == [
        0,
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    assert [whole[i].image for i in (0, 3)] == [None, None]
    forward = Revisited(Scenes(), 12, at_once=3)
    assert [forward[i].id for i in (0, 1, 3, 4, 0)] == list("01340")
    assert forward[0].image is None and forward[3].image == "picture 3"  # sets before are forgotten


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1000])
def test_json_is_read_item_by_item_whatever_the_window_holds(tmp_path, block):
    path, seen = tmp_path / "a.json", set()
    data = dict(
        one=[1, 23, 456, -7.5],
        two=dict(a=[1, 2]),
        three=[],
        four=12345,
        five=["ü\n", [8, [9]], {"x": None}, True],
    )
    path.write_text(json.dumps(data, indent=1))
    found = list(walk_json(path, block=block, keys=seen))
    assert found == [
        *(("one", v) for v in data["one"]),
        ("two", [data["two"]]),
        ("four", [12345]),
        *(("five", v) for v in data["five"]),
    ]
    assert seen == set(data)
    path.write_text(" [1, 22 ,[3]] ")
    assert list(walk_json(path, block=block)) == [(None, 1), (None, 22), (None, [3])]
    for empty in ("[]", "{}"):
        path.write_text(empty)
        assert list(walk_json(path, block=block)) == []
    for broken in ("[1, 2", "[1 2]", '{"a": [1], "b" 2}', '{"a": [1}', "5", " ", '{"a": tru}'):
        path.write_text(broken)
        with pytest.raises(InputError, match="found broken JSON"):
            list(walk_json(path, block=block))


def test_json_that_is_no_file_or_no_text_is_named(tmp_path):
    with pytest.raises(ValueError, match="found a folder, expected cats in a file"):
        list(walk_json(tmp_path, "cats"))
    (tmp_path / "a").write_bytes(b'["\xff"]')
    with pytest.raises(ValueError, match="found bytes that are not text"):
        list(walk_json(tmp_path / "a"))
    with pytest.raises(FileNotFoundError, match="expected JSON"):
        list(walk_json(tmp_path / "b"))


@pytest.mark.parametrize("n", [0, 1, 999, 1000, 2001])
def test_packed_records_come_back_in_their_order(tmp_path, n):
    rows = [(dict(k=k, text="ü"), f"{k}.jpg", 7 * k - 1) for k in range(n)]
    for path in (None, tmp_path / "a.arrow"):
        head, table = _split_head(_pack_records(iter(rows), path, dict(names=[1, 2])))
        assert head == dict(names=[1, 2]) and len(table) == n
        assert table.data.column("coco").to_pylist() == [7 * k - 1 for k in range(n)]
        assert table.data.column("picture").to_pylist() == [f"{k}.jpg" for k in range(n)]
        assert [json.loads(table[k]["record"])["k"] for k in range(0, n, 333)] == list(
            range(0, n, 333)
        )
    assert _split_head(_pack_records([]))[0] == {}
    assert _split_head(_map_packed_file(tmp_path / "a.arrow"))[0] == dict(names=[1, 2])


def test_names_inside_a_folder_and_outside_of_it(tmp_path):
    assert resolve_inside(tmp_path, "a/b.jpg", "x") == tmp_path / "a" / "b.jpg"
    assert resolve_inside(tmp_path, "a/../b.jpg", "x") == tmp_path / "b.jpg"
    for name in ("../b.jpg", f"../{tmp_path.name}x/b.jpg", "/b.jpg", None, "a\0b"):
        with pytest.raises(ValueError, match="x: found the file name .* which leads out of"):
            resolve_inside(tmp_path, name, "x")


def test_numbers_of_coco_pictures():
    known = {
        "train2014/COCO_train2014_000000391895.jpg": 391895,
        "000000000012.png": 12,
        "a/b/000000000007.jpg": 7,
        "coco_000000000099.jpeg": 99,
        "0000000000123.jpg": -1,
        "00000000012.jpg": -1,
        "x000000000012.jpg": -1,
        "000000000012": -1,
        "000000000012.jpg.txt": -1,
        "": -1,
    }
    assert {name: read_coco_id(name) for name in known} == known


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("FERRETLITE_CACHE", str(tmp_path / "c"))
    assert _cache_folder() == tmp_path / "c"
    monkeypatch.setenv("FERRETLITE_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _cache_folder() == tmp_path / ".cache" / "ferretlite"
    assert readers._MIN_PACKED_BYTES == 64 * 1024 * 1024


def test_rows_are_left_out_by_number_and_by_name():
    numbers = [3, "a.jpg", 7, 3, "", "b.jpg", 0]
    whole = listing(numbers)
    assert len(whole) == 7 and whole.kept is None and whole.head == dict(told=1)
    assert whole.coco_ids.tolist() == [3, -1, 7, 3, -1, -1, 0]
    assert [whole[i] for i in range(7)] == list(range(7)) and whole[-1] == 6 and whole[-7] == 0
    some = listing(numbers, exclude={3, "b.jpg", "000000000007.jpg"})
    assert [some[i] for i in range(len(some))] == [1, 4, 6] and some[-1] == 6 and some[-3] == 1
    assert [some.picture(i) for i in range(3)] == ["a.jpg", "", "000000000000.jpg"]
    for i in (3, -4):
        with pytest.raises(IndexError, match=f"found the number {i}, expected one below 3"):
            some[i]
    assert (
        len(listing(numbers, exclude=[0])) == 6 and len(listing(numbers, exclude=[-1, 5])) == 7 - 3
    )
    assert len(listing([])) == len(listing([], exclude=["a.jpg", 3])) == 0
    assert whole.strict and whole.left_out == {} and whole.images == "images"


def test_what_is_wrong_is_raised_or_counted_and_boxes_are_clipped():
    size = (80, 200)
    strict, lax = listing([1]), listing([1], strict=False)
    assert strict.place_box([10, 20, 30, 50], size, "x") == Box(10, 20, 30, 50)
    assert strict.place_box([-5, 20.5, 500, 90], size, "x") == Box(0, 20.5, 200, 80)
    for box in (
        [5, 5, 5, 9],
        [5, 5, 9, 5],
        [9, 5, 5, 9],
        [200, 0, 210, 9],
        [1, 2, 3],
        None,
        [1, 2, "3", 4],
        [0.1, 0.2, 0.3, 0.4],
        [5.1, 5, 5.9, 5.5],
        [0, 0, 1, float("nan")],
    ):
        with pytest.raises(ValueError, match="x: found .*, expected a "):
            strict.place_box(box, size, "x")
        assert lax.place_box(box, size, "x") is None
    assert lax.left_out == {"box": 10}


def test_large_annotations_are_packed_anew_when_the_file_or_an_option_changes(
    tmp_path, monkeypatch
):
    """The packed file is named by what it depends on: also by the time of the file, which may
    change and keep its size.
    """
    monkeypatch.setattr("ferretlite.data.readers._MIN_PACKED_BYTES", 1)
    source, made = tmp_path / "a.txt", []
    source.write_text("one")

    class Packed(AnnotationReader):
        options = ("kind",)

        def __init__(self, kind, cache):
            self.kind = kind
            super().__init__(tmp_path, cache=cache)

        def sources(self):
            return [source]

        def rows(self):
            made.append(self.kind)
            return {}, [(source.read_text(), "", -1)]

        def make_scene(self, i, record):
            return record

    for _ in range(2):
        assert Packed("x", tmp_path / "c")[0] == "one" and made == ["x"]
    assert Packed("y", tmp_path / "c")[0] == "one" and made == ["x", "y"]
    before = source.stat().st_mtime_ns
    source.write_text("two")
    os.utime(source, ns=(before + 10**9, before + 10**9))
    assert Packed("x", tmp_path / "c")[0] == "two"
    source.write_text("three")
    os.utime(source, ns=(before, before))
    assert Packed("x", tmp_path / "c")[0] == "three"
    assert len(made) == 4 == len(list((tmp_path / "c").glob("a-*.arrow")))

    class Other(Packed):
        pass

    Other("x", tmp_path / "c")
    assert len(made) == 5
    monkeypatch.setattr(
        "ferretlite.data.readers._MIN_PACKED_BYTES", 6
    )  # five bytes are few: nothing is packed into a file
    Packed("z", tmp_path / "d")
    assert not (tmp_path / "d").exists()
    monkeypatch.setattr("ferretlite.data.readers._MIN_PACKED_BYTES", 5)
    monkeypatch.setenv("FERRETLITE_CACHE", str(tmp_path / "d"))
    Packed("z", None)
    assert len(list((tmp_path / "d").iterdir())) == 1


# -- masks


def drawn(*polygons, size=(6, 9)):
    return [
        "".join(".#"[v] for v in row) for row in _fill_polygons(list(polygons), size).astype(int)
    ]


def test_polygons_own_the_pixels_whose_centre_they_hold():
    assert drawn([1, 2, 5, 2, 5, 4, 1, 4]) == [
        ".........",
        ".........",
        ".####....",
        ".####....",
        ".........",
        ".........",
    ]
    # from .6 to 3.4 and from 1.5 to 3.5: a centre on the upper edge is inside, one on the lower
    # edge is not
    assert drawn([0.6, 1.5, 3.4, 1.5, 3.4, 3.5, 0.6, 3.5])[1:4] == [
        ".##......",
        ".##......",
        ".........",
    ]
    assert drawn([0, 0, 6, 0, 0, 6]) == [
        "#####....",
        "####.....",
        "###......",
        "##.......",
        "#........",
        ".........",
    ]
    assert drawn([-5, -5, 99, -5, 99, 2, -5, 2]) == [
        "#########",
        "#########",
        ".........",
        ".........",
        ".........",
        ".........",
    ]
    assert drawn([7, 3, 99, 3, 99, 99, 7, 99])[2:] == [
        ".........",
        ".......##",
        ".......##",
        ".......##",
    ]
    assert drawn([0, 0, 0.4, 0, 0.4, 0.4]) == ["........."] * 6
    assert drawn() == ["........."] * 6


def test_two_polygons_are_joined_and_one_that_crosses_itself_has_a_hole():
    one, two = [1, 1, 5, 1, 5, 4, 1, 4], [3, 2, 8, 2, 8, 5, 3, 5]
    assert drawn(one, two) == [
        ".........",
        ".####....",
        ".#######.",
        ".#######.",
        "...#####.",
        ".........",
    ]
    # the outer square and then the inner one, in one line: even-odd leaves the inner one out
    assert drawn([0, 0, 6, 0, 6, 6, 0, 6, 0, 0, 2, 2, 4, 2, 4, 4, 2, 4, 2, 2])[:6] == [
        "######...",
        "######...",
        "##..##...",
        "##..##...",
        "######...",
        "######...",
    ]


@pytest.mark.parametrize(
    "polygon", [[1, 1, 5, 5], [1, 1, 5, float("inf"), 3, 3], [1, 1, 5, 5, 3], []]
)
def test_what_is_no_polygon_is_refused(polygon):
    with pytest.raises(ValueError):
        _fill_polygons([polygon], (6, 9))


def test_masks_of_annotations():
    size = (6, 9)
    triangle = read_coco_mask([[1, 2, 5, 2, 5, 4, 1, 4]], size)
    assert triangle.area == 8 and triangle.size == size and triangle.box() == Box(1, 2, 5, 4)
    # column by column: 14 pixels, then 2 of the third column, and the rest
    assert read_coco_mask(dict(size=[6, 9], counts=[14, 2, 38]), size).box() == Box(2, 2, 3, 4)
    assert (
        read_coco_mask(None, size) is read_coco_mask([], size) is read_coco_mask({}, size) is None
    )
    assert read_coco_mask([[3, 3, 3.4, 3, 3.4, 3.4]], size) is None
    with pytest.raises(ValueError, match="size"):
        read_coco_mask(dict(size=[9, 6], counts=[14, 2, 38]), size)


# -- COCO


def coco(folder, **more):
    images = [
        dict(id=4, file_name="000000000004.png", height=20, width=30),
        dict(id=9, file_name="b.png", height=20, width=30),
    ]
    categories = [dict(id=7, name="cat"), dict(id=2, name="the hot dog."), dict(id=5, name="[]")]
    annotations = [
        dict(id=1, image_id=9, category_id=2, bbox=[1, 2, 3, 4]),
        dict(
            id=2,
            image_id=4,
            category_id=7,
            bbox=[5, 6, 70, 8],
            color="red",
            fill="filled",
            text="AB",
        ),
        dict(id=3, image_id=4, category_id=5, bbox=[0, 0, 9, 9], iscrowd=1),
        dict(id=4, image_id=4, category_id=2, bbox=[0, 0, 9, 9], iscrowd=1),
    ]
    (folder / "images").mkdir(exist_ok=True)
    for image in images:
        Image.new("RGB", (30, 20)).save(folder / "images" / image["file_name"])
    (folder / "annotations.json").write_text(
        json.dumps(dict(annotations=annotations, images=images, info={}, categories=categories))
    )
    return CocoScenes(folder, **more)


def test_coco_by_hand(tmp_path):
    reader = coco(tmp_path)
    assert reader.names == {7: "cat", 2: "hot dog", 5: "5"}  # names as an answer can carry them
    assert reader.coco_ids.tolist() == [4, -1]
    first, second = reader
    assert first.objects == [SceneObject("cat", Box(5, 6, 30, 14), None, "red", "filled", "AB")]
    assert first.partial == ("5", "hot dog") and first.names == ["cat", "hot dog", "5"]
    assert (first.id, first.size, first.split, first.seed, first.caption) == (
        "000000000004",
        (20, 30),
        "train",
        None,
        None,
    )
    assert [(o.name, o.box) for o in second.objects] == [
        ("hot dog", Box(1, 2, 4, 6))
    ] and second.partial == ()
    some = coco(tmp_path, exhaustive=False)
    assert [s.names for s in some] == [["cat"], ["hot dog"]]


# -- conversations and batches


def test_questions_are_drawn_by_seed_and_number():
    def told_of(n_turns, *given):
        return ConversationDataset(SCENES, dict(rec=1.0, name=1.0), n_turns, *given)[3].turns

    wanted = make_conversation(SCENES[3], dict(rec=1.0, name=1.0), random.Random("5-3"), 3).turns
    assert told_of(3, 5) == wanted
    assert (
        told_of(4)
        == make_conversation(SCENES[3], dict(rec=1.0, name=1.0), random.Random("0-3"), 4).turns
    )
    assert len(ConversationDataset(SCENES, dict(rec=1.0, name=1.0))[0].turns) == 4
    by_number = ConversationDataset(SCENES, lambda i: dict(rec=1.0) if i % 2 else dict(name=1.0))
    assert [{t.task for t in by_number[i].turns} for i in range(4)] == [
        {"name"},
        {"rec"},
        {"name"},
        {"rec"},
    ]


def test_a_collator_hands_its_limits_on():
    given = []

    class Processor:
        def encode_conversations(self, conversations, max_text_tokens, mark_boxes):
            given.append(([c.id for c in conversations], max_text_tokens, mark_boxes))
            return dict(a=1)

    talks = [Conversation(None, (1, 1), [1] * n, str(n)) for n in (2, 0, 1)]
    assert Collator(Processor())(talks) == dict(a=1, ids=["2", "1"])
    Collator(Processor(), 50, True)(talks[:1])
    assert given == [(["2", "1"], 288, False), (["2"], 50, True)]
