"""Exams: a record for each benchmark, read from files of the official form, scored by its rule."""

import json
import math
import tempfile
from pathlib import Path

import pytest
from fastcore.test import test_close as close

from ferretlite.common.errors import FerretliteWarning, InputError
from ferretlite.exams.core import (
    ExamAnswer,
    ExamItem,
    format_exam_table,
    list_published,
    make_mean_score,
    read_answers,
    score_exam,
    write_answers,
)
from ferretlite.exams.forms import ANSWER_FORMS, read_answer_boxes
from ferretlite.exams.runs import EXAMS, describe_exams, read_exam, score_file
from ferretlite.regions.geometry import Box
from ferretlite.scenes.world import make_scene

SIZE = (480, 640)
NAMES = (
    "refcoco refcoco+ refcocog flickr30k lvis-roc coco lvis odinw13 fsc147 fscd-lvis reg "
    "ferret-bench llava-bench pope vqav2 okvqa textvqa gqa chartqa mme seed-bench mm-vet obj-hal"
).split()
LOWER_IS_BETTER = ("fsc147", "fscd-lvis", "obj-hal")
each_exam = pytest.mark.parametrize("name", EXAMS)


@pytest.fixture(scope="module")
def examples():
    """Folder of each exam, written once in the official form from three scenes."""
    scenes, folders = [make_scene(i, 128, "test") for i in range(3)], {}
    with tempfile.TemporaryDirectory() as top:
        for name, exam in EXAMS.items():
            folders[name] = Path(top) / name
            exam.example(scenes, folders[name])
        yield folders


def perfect(item: ExamItem) -> ExamAnswer:
    text = item.texts[0] if item.texts else ""
    scores = [1.0] * len(item.boxes)
    return ExamAnswer(
        item.id, text, list(item.boxes), list(item.names) or [""] * len(scores), scores
    )


def test_every_row_of_the_papers_tables_is_an_exam():
    assert set(NAMES) <= set(EXAMS)
    listed = describe_exams()
    for name, exam in EXAMS.items():
        assert f"{name}: {exam.title}" in listed and exam.source and exam.licence and exam.protocol
    assert "SA-refer: never released" in listed and "GRIT: training data" in listed


@each_exam
def test_published_values_name_their_table(name):
    for _, key, value, table in EXAMS[name].published:
        assert key and value > 0 and ("Table" in table or "section" in table)


@each_exam
def test_an_example_in_the_official_form_is_read_back(name, examples):
    exam, items = read_exam(name, examples[name])
    assert items and len({item.id for item in items}) == len(items)
    for item in items:
        assert item.prompt
        assert all(0 <= b.x1 <= b.x2 <= 129 and 0 <= b.y1 <= b.y2 <= 129 for b in item.boxes)


@each_exam
@pytest.mark.filterwarnings("ignore:Java is not installed")
def test_the_truth_scores_best_and_silence_scores_less(name, examples, monkeypatch):
    if name == "reg":
        pytest.importorskip("pycocoevalcap")
        monkeypatch.setattr("shutil.which", lambda program: None)  # METEOR takes half a minute
    exam, items = read_exam(name, examples[name])
    best = score_exam(exam, items, {i.id: perfect(i) for i in items})
    mute = score_exam(exam, items, {i.id: ExamAnswer(i.id) for i in items})
    first = next(iter(best))
    assert all(key.startswith(name) for key in best)
    assert all(set(m) == {"value", "n", "ci95", "chance", "constant"} for m in best.values())
    if name in LOWER_IS_BETTER:
        assert best[first]["value"] == 0
        assert name == "obj-hal" or mute[first]["value"] > 0
    else:
        assert best[first]["value"] > mute.get(first, dict(value=0))["value"]
    json.dumps(best, allow_nan=False)
    assert first in format_exam_table(exam, best)


@each_exam
def test_answers_survive_their_file(name, examples, tmp_path):
    exam, items = read_exam(name, examples[name])
    answers = {i.id: perfect(i) for i in items}
    write_answers(tmp_path / "a.jsonl", answers)
    again = read_answers(tmp_path / "a.jsonl", items)
    assert set(again) == set(answers)
    for key, answer in answers.items():
        assert again[key].text == answer.text and again[key].names == answer.names
        close(
            [v for b in again[key].boxes for v in b.list()],
            [v for b in answer.boxes for v in b.list()],
            eps=1e-3,
        )


@each_exam
def test_an_empty_folder_names_every_path_that_was_looked_at(name, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        read_exam(name, tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message and "expected" in message and message.count("\n") == 0
    looked = [f for f in EXAMS[name].files if "*" not in f and "optional" not in f]
    assert any(Path(f).name in message for f in looked) or name == "mme"


def test_no_folder_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="found no folder"):
        read_exam("pope", tmp_path / "nothing")
    with pytest.raises(InputError, match="one of refcoco"):
        read_exam("imagenet", tmp_path)


@pytest.mark.parametrize("form", ANSWER_FORMS)
def test_no_text_stops_the_reader_of_a_form(form):
    for text in (
        "",
        "[",
        "[1, 2",
        "<loc9999>" * 9,
        '{"bbox_2d": [1e999, 2, 3, 4]}',
        "[0.5]" * 99,
        "<box><1><2></box>",
        "{" * 1000,
        '{"bbox_2d": {}}',
        "<ref>",
        "\x00[1, 2, 3, 4]",
    ):
        for _, box in read_answer_boxes(text, SIZE, form):
            assert isinstance(box, Box) and all(map(math.isfinite, box.list()))


def test_the_forms_of_qwen_differ_by_their_frame_alone():
    text = '[{"bbox_2d": [100, 200, 300, 400], "label": "cat"}]'
    [(name, pixels)] = read_answer_boxes(text, SIZE, "qwen")
    [(_, bins)] = read_answer_boxes(text, SIZE, "qwen-1000")
    [(_, resized)] = read_answer_boxes(text, SIZE, "qwen", (960, 1280))
    assert (name, pixels.list()) == ("cat", [100, 200, 300, 400])
    assert bins.list() == [64, 96, 192, 192] and resized.list() == [50, 100, 150, 200]


@pytest.mark.parametrize(
    "form,text",
    [
        ("ferret", "cat [100, 200, 300, 400]"),
        ("griffon", "cat-[0.100,0.200,0.300,0.400]"),
        ("fractions", "cat [0.100, 0.200, 0.300, 0.400]"),
        ("qwen", '{"bbox_2d": [64, 96, 192, 192], "label": "cat"}'),
        ("qwen-1000", '{"bbox_2d": [100, 200, 300, 400], "label": "cat"}'),
        ("loc", "<loc0205><loc0102><loc0409><loc0307> cat"),
        ("ref-box", "<ref>cat</ref><box><100><200><300><400></box>"),
    ],
)
def test_every_form_writes_one_place(form, text):
    [(name, box)] = read_answer_boxes(text, SIZE, form)
    assert name == "cat"
    close(box.list(), [64, 96, 192, 192], eps=0.7 if form in ("ferret", "loc") else 1e-6)


def test_the_grade_of_one_answer_is_that_of_the_first_box():
    exam, truth = EXAMS["refcoco"], Box(0, 0, 10, 10)
    item = ExamItem("1", "", "1.jpg", (20, 20), boxes=[truth])
    other = Box(15, 15, 19, 19)
    cases = [([Box(0, 0, 10, 5)], 1), ([Box(0, 0, 9, 5)], 0), ([], 0)]
    for boxes, grade in (*cases, ([truth, other], 1), ([other, truth], 0)):
        answer = ExamAnswer("1", boxes=boxes, names=[""] * len(boxes), scores=[1.0] * len(boxes))
        assert exam.grade(item, answer) == grade
        assert score_exam(exam, [item], {"1": answer})["refcoco.acc@0.5"]["value"] == grade


def test_a_surplus_or_a_missing_box_is_not_exact():
    exam, truth = EXAMS["grefcoco"], [Box(0, 0, 10, 10), Box(20, 20, 30, 30)]
    item = ExamItem("1", "", boxes=truth, group="several")
    cases = (
        (truth, 1),
        (truth[::-1], 1),
        (truth[:1], 0),
        ([*truth, Box(50, 50, 60, 60)], 0),
        ([], 0),
    )
    for boxes, grade in cases:
        assert exam.grade(item, ExamAnswer("1", boxes=boxes)) == grade


@pytest.mark.parametrize("line,found", [
    ("[]", "an object with an id"),
    ('{"id": 1}', "a text, or boxes"),
    ('{"id": 2, "text": ""}', "the id of a question"),
    ('{"id": 1, "text": 7}', "a text, or boxes"),
    ('{"id": 1, "boxes": [[1, 2, 3]]}', "four numbers"),
    ('{"id": 1, "boxes": [[NaN, 0, 1, 1]]}', "line 1"),
    ('{"id": 1, "boxes": [[true, 0, 1, 1]]}', "four numbers"),
    ('{"id": 1, "boxes": [["0", "0", "1", "1"]]}', "four numbers"),
    ('{"id": 1, "boxes": [[0, 0, 1, 1]], "scores": [true]}', "finite numbers"),
    ('{"id": 1, "text": "x", "size": [1e-9, 5]}', "height, width"),
    ('{"id": 1, "boxes": [[5, 0, 1, 1]]}', "x1 <= x2"),
    ('{"id": 1, "boxes": [[0, 0, 1, 1]], "scores": ["1"]}', "finite numbers"),
    ('{"id": 1, "boxes": [[0, 0, 1, 1]], "names": ["a", "b"]}', "1 texts"),
    ('{"id": 1, "text": "x", "size": [0, 1]}', "height, width"),
    ('{"id": 1, "text": "x", "verdict": 3}', "text"),
    ('{"id": 1, "text": "x"}\n{"id": "1", "text": "y"}', "one answer for each"),
    ('{"id": 1, "text"', "line 1"),
])  # fmt: skip
def test_a_wrong_line_of_answers_is_one_sentence(line, found, tmp_path):
    items = [ExamItem("1", "", size=(10, 10), boxes=[Box(0, 0, 1, 1)])]
    (tmp_path / "a.jsonl").write_text(line)
    with pytest.raises(InputError) as caught:
        read_answers(tmp_path / "a.jsonl", items)
    assert found in str(caught.value) and "a.jsonl" in str(caught.value)


def test_an_unknown_form_is_refused(tmp_path):
    with pytest.raises(InputError, match="one of ferret, griffon"):
        read_answers(tmp_path / "a.jsonl", [], "yaml")


def test_missing_answers_are_wrong_and_counted(examples):
    exam, items = read_exam("refcoco", examples["refcoco"])
    with pytest.warns(FerretliteWarning, match=f"{len(items) - 1} of {len(items)} questions"):
        scores = score_exam(exam, items, {items[0].id: perfect(items[0])})
    assert scores["refcoco.acc@0.5"]["value"] == 1 / len(items)


def test_data_without_rivals_have_no_chance_level():
    items = [ExamItem("1", "", "1.jpg", (20, 20), boxes=[Box(0, 0, 9, 9)])]
    scores = score_exam(EXAMS["refcoco"], items, {"1": perfect(items[0])})
    assert scores["refcoco.acc@0.5"]["chance"] is None
    line = format_exam_table(EXAMS["refcoco"], scores).splitlines()[1]
    assert "–" in line


def test_exactly_one_half_is_right_for_ferret_and_wrong_for_griffon():
    item = ExamItem("1", "", "1.jpg", (20, 20), boxes=[Box(0, 0, 10, 10)])
    answer = ExamAnswer("1", boxes=[Box(0, 0, 10, 5)], names=[""], scores=[1.0])
    scores = score_exam(EXAMS["refcoco"], [item], {"1": answer})
    assert scores["refcoco.acc@0.5"]["value"] == 1 and scores["refcoco.acc>0.5"]["value"] == 0


def test_a_changed_protocol_has_another_name_and_no_published_value():
    item = ExamItem("1", "", "1.jpg", (20, 20), "val", boxes=[Box(0, 0, 10, 10)])
    scores = score_exam(EXAMS["refcoco"], [item], {"1": perfect(item)}, "look-again")
    assert all(key.startswith("refcoco+look-again.") for key in scores)
    assert list_published(EXAMS["refcoco"], "refcoco.acc@0.5.val")
    assert not list_published(EXAMS["refcoco"], "refcoco+look-again.acc@0.5.val")


def test_merged_boxes_merge_the_truth_alone():
    truth = [Box(0, 0, 10, 100), Box(90, 0, 100, 100)]
    phrase = dict(text="two men", types=["people"], boxes=truth)
    item = ExamItem("1#0", "", "1.jpg", (100, 100), "test", truth, ["two men"] * 2,
                    meta=dict(sentence="two men", phrases=[phrase]))  # fmt: skip
    both = ExamAnswer("1#0", boxes=truth, names=["two men"] * 2, scores=[1.0] * 2)
    whole = ExamAnswer("1#0", boxes=[Box(0, 0, 100, 100)], names=["Two men,"], scores=[1.0])
    for answer, hit_any, merged in ((both, 1, 0), (whole, 0, 1)):
        scores = score_exam(EXAMS["flickr30k"], [item], {"1#0": answer})
        assert scores["flickr30k.any.r@1"]["value"] == hit_any
        assert scores["flickr30k.merged.r@all"]["value"] == merged
        assert scores["flickr30k.merged.r@1.people"]["value"] == merged


def test_two_sets_are_not_called_odinw13(examples):
    exam, items = read_exam("odinw13", examples["odinw13"])
    scores = score_exam(exam, items, {i.id: perfect(i) for i in items})
    assert "odinw13.mAP" not in scores and scores["odinw13.mAP of 2 sets"]["value"] == 1


def test_rates_of_few_answers_have_an_interval_and_soft_grades_too():
    assert make_mean_score([1, 1, 0])["ci95"][0] > 0.1
    low, high = make_mean_score([0.3, 0.9, 1.0])["ci95"]
    assert 0.3 <= low < high <= 1.0


def test_a_file_is_scored_without_a_model(examples, tmp_path):
    exam, items = read_exam("pope", examples["pope"])
    path = write_answers(tmp_path / "a.jsonl", {i.id: perfect(i) for i in items})
    *_, scores = score_file("pope", examples["pope"], path)
    assert scores["pope.accuracy"]["value"] == 1 and scores["pope.yes"]["value"] == 0.5


def test_the_first_lines_of_pope_are_read(real_files, tmp_path):
    text = (real_files / "pope" / "coco_pope_random_300.jsonl").read_text()
    (tmp_path / "coco_pope_random.json").write_text(text)
    exam, items = read_exam("pope", tmp_path)
    scores = score_exam(exam, items, {i.id: ExamAnswer(i.id, "Yes.") for i in items})
    assert len(items) == 300 and scores["pope.accuracy.random"]["value"] == 0.5
    close(scores["pope.f1.random"]["value"], 2 / 3)


def test_the_boxes_of_ferret_benchs_reference_answers_are_read(real_files):
    lines = (real_files / "ferretbench" / "answer.jsonl").read_text().splitlines()
    found = [read_answer_boxes(json.loads(x)["text"], (500, 400), "fractions") for x in lines]
    assert sum(map(len, found)) == 257
    name, box = found[0][0]
    assert name == "man"
    close(box.list(), [80.4, 1.0, 376.0, 379.0])


def test_real_expressions_without_a_box_are_questions(real_files, tmp_path):
    text = (real_files / "refcocos" / "refcocos_test.json").read_text()
    (tmp_path / "refcocos_test.json").write_text(text)
    exam, items = read_exam("refcocos", tmp_path)
    scores = score_exam(exam, items, {i.id: ExamAnswer(i.id, "None") for i in items})
    assert len(items) == 173 and scores["refcocos.exact.none"]["value"] == 1
    assert scores["refcocos.exact"]["value"] == scores["refcocos.exact"]["constant"]


def test_boxes_in_thousandths_are_those_that_another_program_has_written(real_files):
    """The file holds each box in pixels and, by its authors, in thousandths."""
    records = json.loads((real_files / "refcocos" / "refcocos_test.json").read_text())
    boxed = [r for r in records if r["solution"]]
    for r in boxed:
        text = json.dumps([dict(bbox_2d=r["normalized_solution"], label="it")])
        [(_, box)] = read_answer_boxes(text, (r["height"], r["width"]), "qwen-1000")
        for value, true, side in zip(box.list(), r["solution"], (r["width"], r["height"]) * 2):
            assert abs(value - true) <= side / 1000
    assert len(boxed) > 100


def test_real_flickr_sentences_have_types_and_boxes(real_files, tmp_path):
    for kind in ("Sentences", "Annotations"):
        (tmp_path / kind).mkdir()
        for path in (real_files / "flickr" / kind).iterdir():
            (tmp_path / kind / path.name).write_text(path.read_text())
    (tmp_path / "test.txt").write_text("1000092795\n")
    _, items = read_exam("flickr30k", tmp_path)
    first = items[0].meta["phrases"][0]
    assert len(items) == 5 and first["types"] == ["people"]
    assert [b.list() for b in first["boxes"]] == [[159, 125, 219, 335], [197, 110, 261, 373]]
