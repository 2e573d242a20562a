"""Protocols of exams: a name stands only over its own rule, and odd files are one sentence."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fastcore.test import test_close as close

from ferretlite.app import cli
from ferretlite.common.errors import FerretliteWarning, InputError
from ferretlite.exams import captions, runs
from ferretlite.exams.averages import list_matches, run_coco, weigh_matches
from ferretlite.exams.captions import list_mentions, read_synonyms
from ferretlite.exams.core import ExamAnswer, ExamItem, list_published, read_answers, score_exam
from ferretlite.exams.questions import normalise_textvqa, normalise_vqa
from ferretlite.exams.runs import EXAMS, read_exam, score_file, take_exam, write_exam_questions
from ferretlite.model.answers import Answer
from ferretlite.regions.geometry import Box, Mask, Point
from ferretlite.regions.grammar import Grounding
from ferretlite.scenes.world import make_scene

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def folders():
    """A folder of some exams with two scenes."""
    scenes, found = [make_scene(i, 96, "test") for i in range(2)], {}
    names = "refcoco lvis-roc fsc147 coco lvis pope mme seed-bench ferret-bench mm-vet flickr30k"
    with tempfile.TemporaryDirectory() as top:
        for name in names.split():
            found[name] = Path(top) / name
            EXAMS[name].example(scenes, found[name])
        yield found


def answer_truly(items):
    return {
        i.id: ExamAnswer(
            i.id, i.texts[0] if i.texts else "", i.boxes, i.names, [1.0] * len(i.boxes)
        )
        for i in items
    }


# -- recorded answers of other programs


def test_fifty_recorded_answers_in_qwens_form_have_their_written_boxes(tmp_path):
    """Box and verdict of each line were written down when the line was made."""
    lines = [json.loads(x) for x in (GOLDEN / "qwen_rec.jsonl").read_text().splitlines()]
    items, answers = [], []
    for line in lines:
        size, truth = tuple(line["size"]), Box(*line["truth"])
        items.append(ExamItem(str(line["id"]), "", f"{line['id']}.jpg", size, boxes=[truth]))
        answer = dict(id=line["id"], text=line["text"])
        answers.append(json.dumps(answer | ({"size": line["frame"]} if "frame" in line else {})))
    (tmp_path / "a.jsonl").write_text("\n".join(answers))
    with pytest.warns(FerretliteWarning, match="5 of 50 texts hold no box in the form qwen"):
        found = read_answers(tmp_path / "a.jsonl", items, "qwen")
    for item, line in zip(items, lines):
        boxes = found[item.id].boxes
        assert bool(boxes) == bool(line["box"])
        if boxes:
            close(boxes[0].list(), line["box"], eps=2e-3)
        assert EXAMS["refcoco"].grade(item, found[item.id]) == line["right"]
    scores = score_exam(EXAMS["refcoco"], items, found)
    assert len(items) == 50 and scores["refcoco.acc@0.5"]["value"] == 25 / 50


def test_lvis_scores_are_those_that_the_lvis_package_gave(tmp_path):
    """The file was written by tests/golden/make_lvis.py, where that package is installed."""
    held = json.loads((GOLDEN / "lvis.json").read_text())
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(held["truth"]))
    (tmp_path / "found.json").write_text(json.dumps(held["found"]))
    *_, scores = score_file("lvis", tmp_path, tmp_path / "found.json")
    for key, value in held["scores"].items():
        close(scores[f"lvis.{key}"]["value"], value, eps=1e-9)
        low, high = scores[f"lvis.{key}"]["ci95"]
        assert low <= value <= high and low < high


# -- intervals and constants


def make_random_list(seed):
    rng = np.random.default_rng(seed)
    data = dict(images=[dict(id=i, height=100, width=100) for i in range(7)], annotations=[])
    data["categories"] = [dict(id=c, name=f"kind {c}") for c in (1, 2, 3)]
    rows = []
    for i in range(7):
        for c in rng.choice((1, 2), rng.integers(0, 5)).tolist():
            x, y, w, h = rng.uniform((0, 0, 20, 20), (40, 40, 60, 60)).tolist()
            crowd = int(rng.random() < 0.2)
            a = dict(image_id=i, category_id=c, bbox=[x, y, w, h], area=w * h, iscrowd=crowd)
            data["annotations"].append(a | dict(id=len(data["annotations"]) + 1))
            moved = [x + rng.normal(0, 3), y, w, h]
            rows.append(dict(image_id=i, category_id=c, bbox=moved, score=rng.random()))
        rows.append(dict(image_id=i, category_id=3, bbox=[0, 0, 9, 9], score=rng.random()))
    return data, rows


def evaluate_officially(data, rows):
    """pycocotools itself, with its tables of precision and recall."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    truth.dataset = data
    truth.createIndex()
    run = COCOeval(truth, truth.loadRes([dict(row) for row in rows]), "bbox")
    run.evaluate()
    run.accumulate()
    return run


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("area,most", [("all", 100), ("medium", 100), ("all", 1)])
def test_a_drawn_sample_of_pictures_has_the_official_average_precision(seed, area, most):
    """A picture that is drawn twice counts as a picture and its copy under another number."""
    data, rows = make_random_list(seed)
    matches = list_matches(run_coco(data, list(range(7)), rows), area, most)
    times = np.random.default_rng(seed + 50).integers(0, 3, 7)
    copied = dict(data, images=[], annotations=[])
    found = []
    for i, n in enumerate(times.tolist()):
        for k in range(n):
            number = i + 100 * k
            copied["images"].append(dict(data["images"][i], id=number))
            held = [a for a in data["annotations"] if a["image_id"] == i]
            copied["annotations"] += [
                dict(a, id=1 + a["id"] + 1000 * k, image_id=number) for a in held
            ]
            found += [dict(r, image_id=number) for r in rows if r["image_id"] == i]
    run = evaluate_officially(copied, found)
    place = run.params.areaRngLbl.index(area), run.params.maxDets.index(most)
    precision, recall = weigh_matches(matches, times[None], run.params.recThrs)
    pairs = (run.eval["precision"][..., place[0], place[1]].mean(1), precision[0])
    for official, ours in (pairs, (run.eval["recall"][..., place[0], place[1]], recall[0])):
        known = official > -1
        assert (known == np.isfinite(ours)).all()
        close(ours[known], official[known], eps=1e-9)


def test_scores_of_lists_have_intervals_and_a_constant_that_ignores_the_picture(tmp_path):
    """The truth of kind 1 lies in one place of every picture, that of kind 2 nowhere twice."""
    data = dict(images=[dict(id=i, height=100, width=100) for i in range(8)], annotations=[])
    data["categories"] = [dict(id=1, name="kind 1"), dict(id=2, name="kind 2")]
    for i in range(8):
        for c, box in ((1, [0, 0, 100, 100]), (2, [11 * i, 11 * i, 6, 6])):
            number = len(data["annotations"]) + 1
            a = dict(id=number, image_id=i, category_id=c, bbox=box, area=box[2] ** 2, iscrowd=0)
            data["annotations"].append(a)
    (tmp_path / "instances_val2017.json").write_text(json.dumps(data))
    exam, items = read_exam("coco", tmp_path)
    some = answer_truly(items) | {i.id: ExamAnswer(i.id) for i in items[:3]}
    scores = score_exam(exam, items, some)
    m = scores["coco.mAP"]
    assert m["ci95"][0] < m["value"] < m["ci95"][1]
    close(m["value"], 5 / 8, eps=0.01)  # of 101 recalls
    assert 0.5 <= m["constant"] < 0.6  # all of kind 1, hardly any of kind 2
    assert scores["coco.AP.small"]["constant"] < 0.2
    nothing = score_exam(exam, items, {i.id: ExamAnswer(i.id) for i in items})
    assert nothing["coco.mAP"]["value"] == 0


def test_the_constant_of_many_pictures_is_measured_on_some_of_them(tmp_path):
    """Of 501 pictures every second one is taken; the only small object is in another one."""
    data = dict(images=[dict(id=i, height=100, width=100) for i in range(501)])
    data["categories"] = [dict(id=1, name="kind 1")]
    data["annotations"] = [
        dict(id=i + 1, image_id=i, category_id=1, bbox=[0, 0, s, s], area=s * s, iscrowd=0)
        for i, s in enumerate([50, 10] + [50] * 499)
    ]
    (tmp_path / "instances_val2017.json").write_text(json.dumps(data))
    exam, items = read_exam("coco", tmp_path)
    scores = score_exam(exam, items, answer_truly(items))
    close(scores["coco.mAP"]["value"], 1)
    assert scores["coco.mAP"]["constant"] > 0
    close(scores["coco.AP.small"]["value"], 1)
    assert scores["coco.AP.small"]["constant"] is None


def test_the_constant_of_lvis_is_judged_where_its_names_were_checked(tmp_path):
    """A box in one place is right in all three pictures of kind 1; kind 2 is checked in none."""
    data = dict(images=[dict(id=i, height=100, width=100) for i in (1, 2, 3)])
    data["categories"] = [dict(id=k, name=f"kind {k}", frequency="f") for k in (1, 2)]
    data["annotations"] = [
        dict(id=i, image_id=i, category_id=1, bbox=[0, 0, 100, 100], area=1e4) for i in (1, 2, 3)
    ]
    for image in data["images"]:
        image |= dict(neg_category_ids=[], not_exhaustive_category_ids=[])
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(data))
    exam, items = read_exam("lvis", tmp_path)
    scores = score_exam(exam, items, {i.id: ExamAnswer(i.id) for i in items})
    assert scores["lvis.AP"]["value"] == 0 and scores["lvis.AP50"]["constant"] == 1


def test_the_constant_of_each_error_is_the_best_number_for_it():
    truth = [1, 2, 2, 30]
    items = [ExamItem(str(k), "", meta=dict(n=n)) for k, n in enumerate(truth)]
    scores = score_exam(EXAMS["fsc147"], items, {str(k): ExamAnswer(str(k), "2") for k in range(4)})
    grid, n = np.linspace(0, 40, 4001)[:, None], np.array(truth)
    for key, error in (
        ("MAE", np.abs(grid - n).mean(1)),
        ("RMSE", np.sqrt(((grid - n) ** 2).mean(1))),
        ("NAE", (np.abs(grid - n) / n).mean(1)),
    ):
        close(scores[f"fsc147.{key}"]["constant"], error.min(), eps=1e-3)


def test_each_split_has_its_own_chance_and_constant(folders):
    exam, items = read_exam("flickr30k", folders["flickr30k"])
    scores = score_exam(exam, items, answer_truly(items))
    m = scores["flickr30k.any.r@1"]
    assert m["value"] == 1 and 0 < m["chance"] < 1 and 0 <= m["constant"] < 1
    boxes = [Box(0, 0, 10, 10), Box(50, 50, 60, 60)]
    asked = [
        ExamItem(f"{k}{s}", "", f"{s}.jpg", (100, 100), s, boxes=[boxes[k]])
        for s in ("val", "testA")
        for k in range(2)
    ]
    found = score_exam(
        EXAMS["refcoco"], asked, {i.id: ExamAnswer(i.id, boxes=i.boxes) for i in asked}
    )
    assert found["refcoco.acc@0.5.val"]["chance"] == 0.5
    assert found["refcoco.acc@0.5.val"]["constant"] == 0.5


def test_every_box_of_the_picture_is_a_rival_also_in_the_row_of_one_size():
    """A small and a large object in one picture: a random choice is right in one of two."""
    boxes = [Box(0, 0, 5, 5), Box(50, 50, 90, 90)]
    asked = [ExamItem(str(k), "", "1.jpg", (100, 100), boxes=[box]) for k, box in enumerate(boxes)]
    answers = {i.id: ExamAnswer(i.id, boxes=i.boxes) for i in asked}
    scores = score_exam(EXAMS["refcoco"], asked, answers)
    assert scores["refcoco.acc@0.5.small"]["chance"] == 0.5
    assert scores["refcoco.acc@0.5.large"]["chance"] == 0.5
    phrase = [dict(text=name, types=[name], boxes=[b]) for name, b in zip(("cup", "hat"), boxes)]
    item = ExamItem("1", "", "1.jpg", (100, 100), "test", boxes, ["cup", "hat"])
    other = ExamItem("2", "", "1.jpg", (100, 100), "test", boxes[:1], ["cup"])
    item.meta, other.meta = dict(phrases=phrase), dict(phrases=phrase[:1])
    scores = score_exam(EXAMS["flickr30k"], [item, other], answer_truly([item, other]))
    assert scores["flickr30k.any.r@1.cup"]["chance"] == 0.5


# -- names that change with the protocol


def test_popes_numbers_without_a_split_are_means_over_its_three_splits(folders, tmp_path):
    exam, items = read_exam("pope", folders["pope"])
    said = {i.id: ExamAnswer(i.id, "yes" if i.group == "random" else "no") for i in items}
    scores = score_exam(exam, items, said)
    close(scores["pope.f1"]["value"], (2 / 3 + 0 + 0) / 3)  # of all answers at once: 2/5
    assert scores["pope.f1.random"]["constant"] == pytest.approx(2 / 3)
    for name in ("popular", "adversarial"):
        (tmp_path / name).mkdir()
    shutil.copy(folders["pope"] / "coco_pope_random.json", tmp_path)
    exam, items = read_exam("pope", tmp_path)
    assert not any(key.count(".") == 1 for key in score_exam(exam, items, answer_truly(items)))


def test_only_the_first_sentence_is_popes_answer(folders):
    exam, items = read_exam("pope", folders["pope"])
    present = next(item for item in items if item.texts == ["yes"])
    for text, grade in (("Yes. It is not small.", 1), ("It is, no doubt.", 0), ("Note it", 1)):
        assert exam.grade(present, ExamAnswer(present.id, text)) == grade


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["mme", "seed-bench", "ferret-bench"])
def test_a_part_of_a_benchmark_has_no_published_value(name, folders, tmp_path):
    shutil.copytree(folders[name], tmp_path / name)
    shutil.rmtree(tmp_path / name / "ground_conv", ignore_errors=True)
    exam, items = read_exam(name, tmp_path / name)
    answers = {i.id: ExamAnswer(i.id, i.texts[0], verdict="5 5") for i in items}
    first = next(iter(score_exam(exam, items, answers)))
    assert exam.published and not list_published(exam, first)


def test_frames_of_videos_make_seed_bench_whole(folders, tmp_path):
    shutil.copytree(folders["seed-bench"], tmp_path / "s")
    path = tmp_path / "s" / "SEED-Bench.json"
    data = json.loads(path.read_text())
    data["questions"].append(data["questions"][0] | dict(question_id="v1", data_type="video"))
    path.write_text(json.dumps(data))
    before = len(read_exam("seed-bench", tmp_path / "s")[1])
    (tmp_path / "s" / "SEED-Bench-video-image").mkdir()
    exam, items = read_exam("seed-bench", tmp_path / "s")
    assert len(items) == before + 1 and items[-1].image == "v1.png"
    assert list_published(exam, next(iter(score_exam(exam, items, answer_truly(items)))))


@pytest.fixture(scope="module")
def tiny():
    from ferretlite.model.inference import Ferret

    return Ferret.load("tiny")


def test_slices_are_named_in_every_key_and_in_the_saved_file(folders, tmp_path, tiny, monkeypatch):
    seen = []

    def ask(pictures, prompts, regions=None, crops=None, **options):
        seen.append((len(pictures), options))
        found = []
        for picture, prompt in zip(pictures, prompts):
            size = picture.size[::-1]
            box = Box(0.4 * size[1], 0.4 * size[0], 0.42 * size[1], 0.42 * size[0])
            held = [Grounding("thing", [box], [0.5])]
            found.append(Answer("thing", held, raw_text="thing", image=picture, prompt=prompt))
        return found

    monkeypatch.setattr(tiny, "ask", ask)
    options = dict(progress=False, label="m", slices=2, save=tmp_path / "a.jsonl")
    _, items, answers, scores = take_exam(tiny, "refcoco", folders["refcoco"], 1, **options)
    assert all(key.startswith("refcoco+slices-2.") for key in scores)
    assert [n for n, _ in seen] == [len(items), 4 * len(items)]  # whole pictures, then windows
    assert all(len(a.boxes) > 1 for a in answers.values())
    again = runs.run_exam(tiny, EXAMS["refcoco"], items, folders["refcoco"], **options)
    assert len(seen) == 2 and again.keys() == answers.keys()  # nothing is asked again
    with pytest.raises(InputError, match="choose another file"):
        take_exam(tiny, "refcoco", folders["refcoco"], 1, **options | dict(slices=1))
    with pytest.raises(InputError, match="no question asks for boxes by words"):
        take_exam(tiny, "lvis-roc", folders["lvis-roc"], 1, slices=2)
    with pytest.raises(InputError, match="expected one of them"):
        take_exam(tiny, "refcoco", folders["refcoco"], 1, slices=2, look_again=True)
    with pytest.raises(InputError, match="a whole number from 1"):
        take_exam(tiny, "refcoco", folders["refcoco"], 1, slices=0)


# -- files of answers


def test_a_part_of_a_saved_run_is_scored_and_the_rest_stays(folders, tmp_path):
    exam, items = read_exam("mm-vet", folders["mm-vet"])
    save = tmp_path / "a.jsonl"
    answers = {i.id: ExamAnswer(i.id, "two") for i in items}
    runs._append_answers(save, answers.values(), exam, "m")
    options = dict(progress=False, label="m", save=save, judge=lambda messages: "0.5")
    _, some, _, scores = take_exam(None, "mm-vet", folders["mm-vet"], 2, **options)
    lines = [json.loads(line) for line in save.read_text().splitlines()]
    assert len(some) < len(items) == len(lines)
    assert sum("verdict" in line for line in lines) == len(some)


def test_verdicts_are_saved_as_they_come(folders, tmp_path):
    exam, items = read_exam("mm-vet", folders["mm-vet"])
    save, left = tmp_path / "a.jsonl", [2]
    runs._append_answers(save, [ExamAnswer(i.id, "two") for i in items], exam, "m")

    def judge(messages):
        left[0] -= 1
        if left[0] < 0:
            raise InputError("the judge is gone")
        return "0.5"

    with pytest.raises(InputError, match="gone"):
        take_exam(
            None, "mm-vet", folders["mm-vet"], progress=False, label="m", save=save, judge=judge
        )
    assert save.read_text().count('"verdict"') == 2


def test_a_judge_for_rules_is_refused_before_anything_is_asked(folders):
    with pytest.raises(InputError, match="graded by rules"):
        take_exam(None, "pope", folders["pope"], judge=lambda messages: "")


@pytest.mark.parametrize("change,found", [
    (dict(image_id=[1]), "image_id of a picture"),
    (dict(image_id=77), "image_id of a picture"),
    (dict(image_id=True), "image_id of a picture"),
    (dict(category_id=[1]), "a listed number"),
    (dict(category_id=1.5), "a listed number"),
    (dict(score=True), "finite score"),
    (dict(score=float("inf")), "finite score"),
    (dict(bbox=[1, 2, 3]), "four finite numbers"),
    (dict(bbox=[1, 2, "3", 4]), "four finite numbers"),
])  # fmt: skip
def test_a_wrong_row_of_results_is_one_sentence(change, found, folders, tmp_path):
    row = dict(image_id=1, category_id=1, bbox=[1, 2, 3, 4], score=0.5)
    (tmp_path / "r.json").write_text(json.dumps([row | change]))
    with pytest.raises(InputError, match=found):
        score_file("coco", folders["coco"], tmp_path / "r.json")


def test_results_for_other_exams_and_objects_are_refused(folders, tmp_path):
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(InputError, match="COCO results for this exam"):
        score_file("pope", folders["pope"], tmp_path / "r.json")
    for text in ("{}", '{"images": []}', "null", '"no boxes"'):  # no list is no empty list
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(InputError, match="expected (a list of )?COCO results"):
            score_file("coco", folders["coco"], tmp_path / "r.json")


def test_results_about_pictures_without_checked_categories_are_left_out(folders, tmp_path):
    shutil.copytree(folders["lvis"], tmp_path / "l")
    path = tmp_path / "l" / "lvis_v1_val.json"
    data = json.loads(path.read_text())
    data["images"].append(dict(data["images"][0], id=99, neg_category_ids=[]))
    path.write_text(json.dumps(data))
    row = dict(image_id=99, category_id=data["categories"][0]["id"], bbox=[1, 2, 3, 4], score=0.5)
    (tmp_path / "r.json").write_text(json.dumps([row]))
    *_, scores = score_file("lvis", tmp_path / "l", tmp_path / "r.json")
    assert scores["lvis.AP"]["value"] == 0


def test_results_come_out_of_the_command_line_and_go_in_again(folders, tmp_path, capsys):
    _, items = read_exam("coco", folders["coco"])
    lines = [
        dict(id=i.id, boxes=[b.list() for b in i.boxes], names=i.names, scores=[0.5] * len(i.boxes))
        for i in items
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ["score", "coco", "--data", folders["coco"], "--answers"]
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    out = ["--results", tmp_path / "r.json", "--json", first]
    assert cli.main([str(w) for w in (*words, tmp_path / "a.jsonl", *out)]) == 0
    assert cli.main([str(w) for w in (*words, tmp_path / "r.json", "--json", second)]) == 0
    assert json.loads(first.read_text()) == json.loads(second.read_text())
    capsys.readouterr()
    words = ["score", "pope", "--data", folders["pope"], "--answers", tmp_path / "p.jsonl"]
    (tmp_path / "p.jsonl").write_text('{"id": "random:1", "text": "no"}')
    assert cli.main([str(w) for w in (*words, "--results", tmp_path / "x.json")]) == 2
    assert "no list of categories" in capsys.readouterr().err


def test_questions_for_other_programs_hold_points_masks_and_crops(folders, tmp_path):
    _, items = read_exam("lvis-roc", folders["lvis-roc"])
    path = write_exam_questions(tmp_path / "q.jsonl", items)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for item, line in zip(items, lines):
        [region], [written] = item.regions, line["regions"]
        if isinstance(region, Point):
            assert written == [region.x, region.y]
        elif isinstance(region, Mask):
            assert Mask(written) == region
        else:
            assert written == region.list()
    _, items = read_exam("fsc147", folders["fsc147"])
    path = write_exam_questions(tmp_path / "q.jsonl", items)
    assert json.loads(path.read_text().splitlines()[0])["crops"] == [items[0].crops[0].list()]


def test_a_second_form_of_the_same_split_asks_nothing_twice(folders, tmp_path):
    from ferretlite.data.referring_files import export_refcoco

    scenes = [make_scene(i, 96, "test") for i in range(2)]
    export_refcoco(scenes, tmp_path, "finetune_refcoco_val.json")
    once = [item.id for item in read_exam("refcoco", tmp_path)[1]]
    export_refcoco(scenes, tmp_path, "refcoco_val.parquet")
    assert [item.id for item in read_exam("refcoco", tmp_path)[1]] == once


# -- rules on words


@pytest.mark.parametrize("text,expected", [  # by hand, from the table of the official script
    ("shed", "shed"),
    ("im here", "im here"),
    ("ive", "ive"),
    ("lets go", "lets go"),
    ("shes", "shes"),
    ("thatd", "thatd"),
    ("whyd", "whyd"),
    ("couldnt've", "couldn't've"),
    ("couldn'tve", "couldn't've"),
    ("couldntve", "couldntve"),
    ("ow's'at", "'ow's'at"),
    ("'ow'sat", "'ow's'at"),
    ("oclock", "o'clock"),
    ("maam", "ma'am"),
    ("yall", "y'all"),
    ("y'allll", "y'all'll"),
    ("twas", "'twas"),
    ("somebody'd", "somebodyd"),
    ("somebodyd", "somebodyd"),
    ("somebody'dve", "somebody'd've"),
    ("theres one", "there's 1"),
    ("a.b" * 40, "ab" * 32 + "a.b" * 8),
])  # fmt: skip
def test_contractions_are_those_of_the_official_table(text, expected):
    assert normalise_vqa(text) == expected


@pytest.mark.parametrize("text,expected", [
    ("1,000", "1000"),
    ("t-shirt, red?", "t shirt red"),
    ("Levi's", "levi 's"),
    ("black,white", "blackwhite"),
    ("It's", "it 's"),
])  # fmt: skip
def test_textvqa_has_three_steps_of_its_own(text, expected):
    assert normalise_textvqa(text) == expected


def test_pairs_of_words_that_name_no_object_or_another_one(tmp_path):
    path = tmp_path / "s.txt"
    path.write_text("train, locomotive\ntie\nchair, seat\ntoilet\ndog, puppy\nairplane, jet\n")
    synonyms = read_synonyms(path)
    assert list_mentions("Train tracks lead to home plate.", synonyms) == []
    assert list_mentions("A passenger train, a passenger jet", synonyms) == ["train", "airplane"]
    assert list_mentions("A bow tie and a baby dog.", synonyms) == ["tie", "dog"]
    assert list_mentions("The toilet has a seat.", synonyms) == ["toilet"]
    assert list_mentions("The seat is red.", synonyms) == ["chair"]


@pytest.mark.skipif(not Path("/bin/sh").exists(), reason="needs a shell")
def test_a_java_that_does_not_start_is_no_java(tmp_path, monkeypatch):
    stub = tmp_path / "java"
    stub.write_text("#!/bin/sh\necho 'No Java runtime present' >&2\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not captions.has_java()
    stub.write_text("#!/bin/sh\nexit 0\n")
    assert captions.has_java()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert not captions.has_java()
