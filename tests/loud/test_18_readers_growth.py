"""Item 18 (readers): twice the file costs about twice the work, and what cannot grow so is bounded.

Work is counted in characters, items and bytes, never in seconds.
"""

import json
import random

import numpy as np
import pytest

from ferretlite.common.errors import InputError
from ferretlite.data import readers, records
from ferretlite.data.coco import CocoScenes, _fill_polygons, read_coco_mask
from ferretlite.data.detection_files import LvisScenes
from ferretlite.data.dialogues import GritDialogues
from ferretlite.data.grounding_files import FlickrScenes, _read_entity_boxes
from ferretlite.data.readers import walk_json
from ferretlite.data.referring_files import RefScenes

SIZE = dict(height=80, width=200)
TWICE = 2.3  # work for twice the size; 4 would be quadratic


def test_a_mask_is_packed_once_however_many_sentences_speak_of_it(tmp_path):
    """RefCOCO as parquet: each sentence carried a copy of its object's mask."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def packed(n):
        corners = [float(v % 80) for v in range(8 * n)]
        raw = json.dumps(dict(bbox=[1, 2, 30, 40], segmentation=[corners]))
        table = dict(sentences=[["a cat"] * n], file_name=["a.jpg"], raw_anns=[raw])
        pq.write_table(pa.table(table), tmp_path / "a.parquet")
        return len(RefScenes(tmp_path, "a.parquet").row(0)["record"])

    assert packed(400) / packed(200) < TWICE


class CountedList(list):
    "A list that counts how many of its items are handed out."

    handed = 0

    def __getitem__(self, key):
        found = super().__getitem__(key)
        CountedList.handed += len(found) if isinstance(key, slice) else 1
        return found

    def __iter__(self):
        for item in super().__iter__():
            CountedList.handed += 1
            yield item


def test_a_turn_of_grit_reads_its_own_boxes_alone(tmp_path, monkeypatch):
    """GRIT: each turn copied the lists of all turns."""
    Picture = readers.Image.new("RGB", (200, 80), "gray")
    (tmp_path / "images").mkdir()
    Picture.save(tmp_path / "images" / "a.jpg")

    def work(n):
        said = [
            {"from": who, "value": text}
            for _ in range(n)
            for who, text in (("human", "Who is <bbox_location0>?"), ("gpt", "A cat."))
        ]
        record = dict(id=1, image="a.jpg", image_h=80, image_w=200, conversations=said)
        lists = [[[1, 2, 30, 40]], []] * n
        (tmp_path / "g.json").write_text(json.dumps([record | dict(box_x1y1x2y2=lists)]))
        reader = GritDialogues(tmp_path, "g.json")
        counted = record | dict(box_x1y1x2y2=CountedList(lists))
        monkeypatch.setattr(reader, "record", lambda i: counted)
        CountedList.handed = 0
        assert len(reader.converse(0, random.Random(0)).turns) == n
        return CountedList.handed

    assert work(60) / work(30) < TWICE


@pytest.mark.parametrize("beginning, bound", [("", 6), ('{"a": 1, "a": 2}, ', 12)])
def test_a_record_longer_than_the_window_is_decoded_a_few_times(
    tmp_path, monkeypatch, beginning, bound
):
    read = []

    class Counting(json.JSONDecoder):
        def raw_decode(self, text, at=0):
            read.append(len(text) - at)
            return super().raw_decode(text, at)

    def work(n):
        (tmp_path / "a.json").write_text(f'[[{beginning}"{"x" * n}"]]')
        read.clear()
        hook = records.make_object
        monkeypatch.setattr(records, "_DECODER", Counting(object_pairs_hook=hook))
        monkeypatch.setattr(records, "_TOLERANT_DECODER", Counting())
        assert len(list(walk_json(tmp_path / "a.json", block=100))) == 1
        return sum(read)

    assert work(100_000) / work(50_000) < TWICE and work(100_000) < bound * 100_000


def test_broken_json_is_noticed_where_it_breaks(tmp_path, monkeypatch):
    """The reader read on to the end of a file of gigabytes, in case the error came from the cut."""
    reads = []
    extend = readers._JsonWindow.extend
    monkeypatch.setattr(
        readers._JsonWindow, "extend", lambda self, size=None: reads.append(1) or extend(self, size)
    )
    (tmp_path / "a.json").write_text('[1, {"a" 2}, ' + "3, " * 100_000)
    with pytest.raises(InputError, match="broken JSON"):
        list(walk_json(tmp_path / "a.json", block=1000))
    assert len(reads) == 1


def test_a_value_has_a_longest_length(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_MAX_VALUE_LENGTH", 10_000)
    (tmp_path / "a.json").write_text(json.dumps(["x" * 30_000]))
    with pytest.raises(InputError, match="a value of more than 10,000 characters"):
        list(walk_json(tmp_path / "a.json", block=100))


# -- Flickr30k: sentences, and boxes of chains


def flickr(folder, sentence, xml):
    for name in ("Sentences", "Annotations"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "Sentences" / "1.txt").write_text(sentence)
    (folder / "Annotations" / "1.xml").write_text(
        f"<annotation><size><width>200</width><height>80</height></size>{xml}</annotation>"
    )
    (folder / "train.txt").write_text("1")


BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"


def test_a_sentence_of_flickr_has_a_longest_length(tmp_path):
    flickr(tmp_path, "[/EN#1/a " * 2000, "")
    with pytest.raises(InputError, match="a line of 18,000 characters, expected 10,000 at most"):
        FlickrScenes(tmp_path)


@pytest.mark.parametrize("text", ["[/EN#1/a ", "[/EN#1/aaaaaaa", "[/EN#1", "[/EN#111111111111"])
def test_marks_that_do_not_close_are_plain_words(tmp_path, text):
    flickr(tmp_path, text * 500, "")
    assert FlickrScenes(tmp_path).record(0)["caption"] == (text * 500).rstrip("\n")


def test_names_times_boxes_of_one_object_are_bounded(tmp_path):
    flickr(tmp_path, "A cat .", f"<object>{'<name>1</name>' * 100}{BOX * 100}</object>")
    with pytest.raises(InputError, match="object 0: found 100 names and 100 boxes, expected a pro"):
        _read_entity_boxes(tmp_path / "Annotations" / "1.xml")


def test_mentions_times_boxes_of_a_picture_are_bounded(tmp_path):
    objects = f"<object><name>1</name>{BOX * 999}</object>"
    flickr(tmp_path, "\n".join(["[/EN#1/a cat]"] * 101), objects)
    with pytest.raises(InputError, match="phrases with more than 100,000 boxes"):
        FlickrScenes(tmp_path)


# -- COCO and LVIS: names and polygons


def test_a_name_has_a_longest_length(tmp_path):
    """LVIS: the search for brackets in a name of blanks or brackets was quadratic in its length."""
    for name in (" (" * 50_000, "(" * 5000, "a" + " " * 5000 + "b"):
        data = dict(images=[], annotations=[], categories=[dict(id=1, name=name)])
        (tmp_path / "a.json").write_text(json.dumps(data))
        for reader in (LvisScenes, CocoScenes):
            with pytest.raises(InputError, match="of at most 1,000 characters"):
                reader(tmp_path, "a.json")


def test_polygons_that_cover_their_image_again_and_again_are_refused():
    whole = [0, 0, 200, 0, 200, 80, 0, 80]
    assert _fill_polygons([whole] * 100, (80, 200)).all()
    with pytest.raises(InputError, match="cover their image more than 100 times"):
        read_coco_mask([whole] * 101, (80, 200))


def test_a_polygon_that_runs_to_and_fro_is_refused():
    y = np.arange(2000) % 80
    x = np.arange(2000) % 2 * 200
    with pytest.raises(InputError, match="crosses the columns of its image more often"):
        read_coco_mask([np.stack([x, y], 1).ravel().tolist()], (80, 200))
