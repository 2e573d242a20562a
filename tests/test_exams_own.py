"""Own data become an exam: their phrases, their names, their chance levels."""

import json

import pytest
from fastcore.test import test_close as close

from ferretlite.app import cli
from ferretlite.common.errors import FerretliteWarning, InputError
from ferretlite.exams.core import ExamAnswer, score_exam
from ferretlite.exams.own import OWN_EXAM
from ferretlite.scenes.world import make_scene


@pytest.fixture
def mixture(tmp_path):
    """A file of two names, one of them with a colour word, in two pictures."""
    for k in (1, 2):
        path = tmp_path / "data" / "images" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_scene(k, 96, "test").image.save(path)
    boxes = ([10, 10, 20, 20], [50, 50, 30, 20], [5, 60, 20, 20])
    places = zip((1, 1, 2), (1, 2, 1), boxes)
    data = dict(
        images=[dict(id=k, file_name=f"{k}.png", height=96, width=96) for k in (1, 2)],
        categories=[dict(id=1, name="orange juice"), dict(id=2, name="bolt")],
        annotations=[
            dict(id=i + 1, image_id=k, category_id=c, bbox=b) for i, (k, c, b) in enumerate(places)
        ],
    )
    (tmp_path / "data" / "annotations.json").write_text(json.dumps(data))
    part = dict(name="mine", format="coco", folder="data")
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps(dict(stages={"3": [dict(part, name="train")]}, held_out=[part])))
    return path


def test_names_and_chance_levels_are_those_of_the_data(mixture):
    items = OWN_EXAM.read(mixture)
    names = [i for i in items if i.group == "name"]
    lists = [i for i in items if i.group == "list"]
    assert [i.texts for i in names] == [["orange juice"], ["bolt"], ["orange juice"]]
    assert [sorted(i.phrases) for i in lists] == [["bolt", "orange juice"]] * 2
    perfect = {i.id: ExamAnswer(i.id, *i.texts, boxes=i.boxes, names=i.names,
                                scores=[1.0] * len(i.boxes)) for i in items}  # fmt: skip
    scores = score_exam(OWN_EXAM, items, perfect)
    assert scores["own.name"]["value"] == scores["own.mAP"]["value"] == 1
    assert scores["own.name"]["chance"] == 0.5
    close(scores["own.name"]["constant"], 2 / 3)


def test_data_that_are_trained_on_are_told(mixture):
    data = json.loads(mixture.read_text())
    del data["held_out"]
    mixture.write_text(json.dumps(data))
    with pytest.warns(FerretliteWarning, match="no data are held out"):
        assert OWN_EXAM.read(mixture)


def test_data_without_questions_are_refused(mixture):
    path = mixture.parent / "data" / "annotations.json"
    data = json.loads(path.read_text()) | dict(annotations=[])
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="found no phrase and no object"):
        OWN_EXAM.read(mixture)


def test_eval_asks_about_own_data(mixture, capsys, tmp_path):
    code = cli.main(["eval", "tiny", "--data", str(mixture), "--json", str(tmp_path / "s.json")])
    said = capsys.readouterr()
    assert code == 0, said.err
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["own.name"]["n"] == 3 and "own.name" in said.out
