"""Scores of exams are those of the official programs on the same answers."""

import contextlib
import io
import json
import random
import shutil

import numpy as np
import pytest
from fastcore.test import test_close as close

from ferretlite.common.errors import FerretliteWarning
from ferretlite.exams.captions import list_mentions
from ferretlite.exams.core import ExamAnswer, ExamItem, read_answers, score_exam
from ferretlite.exams.questions import compute_vqa_accuracy, normalise_vqa
from ferretlite.exams.runs import EXAMS, read_exam, score_file

AREAS = ("all", "small", "medium", "large")


def make_detection(seed: int, n_images=12, n_kinds=5):
    """Random truth with crowds and ignored regions, and answers with equal scores."""
    rng = random.Random(seed)
    # numbers of images that are not in order, and one category that has no truth
    images = [dict(id=i, file_name=f"{i}.jpg", height=400, width=400)
              for i in rng.sample(range(1, 99), n_images)]  # fmt: skip
    categories = [dict(id=3 * k + 1, name=f"kind {k}") for k in range(n_kinds + 1)]
    truth, rows = [], []

    def draw_box():
        w, h = (rng.choice((8, 20, 60, 150)) * rng.uniform(0.7, 1.4) for _ in "wh")
        return [rng.uniform(0, 400 - w), rng.uniform(0, 400 - h), w, h]

    for image in images:
        for category in categories[:n_kinds]:
            for _ in range(rng.randint(0, 4)):
                box, crowd = draw_box(), int(rng.random() < 0.15)
                area = box[2] * box[3] * rng.uniform(0.6, 1)
                a = dict(image_id=image["id"], category_id=category["id"], bbox=box, area=area)
                a |= dict(id=len(truth) + 1, iscrowd=crowd, ignore=int(rng.random() < 0.1))
                truth.append(a)
                for _ in range(rng.randint(0, 3)):
                    moved = [v + rng.gauss(0, 0.12 * box[2]) for v in box]
                    moved[2:] = [abs(v) + 1 for v in moved[2:]]
                    score = rng.choice((0.25, 0.5, 0.75, 0.9))
                    rows.append(dict(a, bbox=moved, score=score))
        rows += [dict(image_id=image["id"], category_id=rng.choice(categories)["id"],
                      bbox=draw_box(), score=rng.random() * 0.2) for _ in range(120)]  # fmt: skip
    keys = ("image_id", "category_id", "bbox", "score")
    rows = [{k: row[k] for k in keys} for row in rows]
    return dict(images=images, categories=categories, annotations=truth), rows


@pytest.mark.parametrize("seed", range(3))
def test_coco_scores_are_those_of_pycocotools(seed, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    data, rows = make_detection(seed)
    (tmp_path / "instances_val2017.json").write_text(json.dumps(data))
    (tmp_path / "results.json").write_text(json.dumps(rows))
    *_, scores = score_file("coco", tmp_path, tmp_path / "results.json")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "instances_val2017.json"))
        run = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    keys = ("mAP", "AP50", "AP75", "AP.small", "AP.medium", "AP.large")
    keys += ("AR@1", "AR@10", "AR@100", "AR.small", "AR.medium", "AR.large")
    assert 0.05 < run.stats[0] < 0.9
    close([scores[f"coco.{key}"]["value"] for key in keys], list(run.stats), eps=1e-9)


def test_a_part_of_coco_is_scored_on_its_pictures_alone(tmp_path):
    data, rows = make_detection(7)
    (tmp_path / "instances_val2017.json").write_text(json.dumps(data))
    _, items = read_exam("coco", tmp_path, 4)
    kept = {item.meta["image_id"] for item in items}
    small = dict(data, images=[i for i in data["images"] if i["id"] in kept])
    small["annotations"] = [a for a in data["annotations"] if a["image_id"] in kept]
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "instances_val2017.json").write_text(json.dumps(small))
    (tmp_path / "r.json").write_text(json.dumps([r for r in rows if r["image_id"] in kept]))
    *_, whole = score_file("coco", tmp_path / "small", tmp_path / "r.json")
    part = score_exam(EXAMS["coco"], items, read_answers(tmp_path / "r.json", items))
    assert len(items) == 4 and whole == part


@pytest.mark.parametrize("seed", range(2))
def test_lvis_scores_are_those_of_the_lvis_package(seed, tmp_path, monkeypatch):
    monkeypatch.setattr(np, "float", float, raising=False)  # lvis 0.5.3 is older than NumPy 2
    lvis = pytest.importorskip("lvis")
    data, rows = make_detection(seed + 10)
    rng = random.Random(seed)
    for k, category in enumerate(data["categories"]):
        category["frequency"] = "rcf"[k % 3]
    numbers = [c["id"] for c in data["categories"]]
    for image in data["images"]:
        image["neg_category_ids"] = rng.sample(numbers, 2)
        image["not_exhaustive_category_ids"] = rng.sample(numbers, 2)
    for a in data["annotations"]:
        a.update(iscrowd=0, ignore=0, segmentation=[[0, 0, 1, 0, 1, 1]])
    first = data["images"][0]["id"]  # more than 300 answers in one picture
    extra = [dict(rng.choice(rows), image_id=first, score=rng.random()) for _ in range(300)]
    rows += extra
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(data))
    (tmp_path / "results.json").write_text(json.dumps(rows))
    *_, scores = score_file("lvis", tmp_path, tmp_path / "results.json")
    truth = lvis.LVIS(str(tmp_path / "lvis_v1_val.json"))
    run = lvis.LVISEval(truth, str(tmp_path / "results.json"), "bbox")
    run.run()
    keys = dict(AP="AP", AP50="AP50", AP75="AP75", APs="AP.small", APm="AP.medium", APl="AP.large")
    keys |= {"APr": "APr", "APc": "APc", "APf": "APf", "AR@300": "AR@300"}
    for theirs, ours in keys.items():
        close(scores[f"lvis.{ours}"]["value"], run.results[theirs], eps=1e-9)


CAPTIONS = (
    (["the man in a red hat", "red hat man"], "the man with a red hat"),
    (["a dog on the left", "left dog"], "a dog that lies on the left"),
    (["white plate behind the cup"], "cup"),
    (["woman's blue bag", "the blue bag"], "the blue bag of the woman"),
)


def make_captions():
    items = [ExamItem(str(k), "", texts=texts) for k, (texts, _) in enumerate(CAPTIONS)]
    return items, {str(k): ExamAnswer(str(k), text) for k, (_, text) in enumerate(CAPTIONS)}


def test_captions_without_java_say_so_and_have_other_names(monkeypatch):
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu")
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    monkeypatch.setattr(shutil, "which", lambda program: None)
    items, answers = make_captions()
    with pytest.warns(FerretliteWarning, match="METEOR is left out"):
        scores = score_exam(EXAMS["reg"], items, answers)
    assert all(key.endswith(".pretokenised") for key in scores)
    assert not any("METEOR" in key for key in scores)
    told = {str(k): texts for k, (texts, _) in enumerate(CAPTIONS)}
    said = {str(k): [text] for k, (_, text) in enumerate(CAPTIONS)}
    for key, scorer in (("CIDEr", Cider()), ("ROUGE-L", Rouge())):
        expected = scorer.compute_score(told, said)[0]
        close(scores[f"reg.{key}.pretokenised"]["value"], expected, eps=1e-9)
    expected = bleu.Bleu(4).compute_score(told, said, verbose=0)[0][3]
    close(scores["reg.BLEU-4.pretokenised"]["value"], expected, eps=1e-9)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
def test_captions_with_java_are_those_of_pycocoevalcap():
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    items, answers = make_captions()
    scores = score_exam(EXAMS["reg"], items, answers)
    told = {str(k): [dict(caption=t) for t in texts] for k, (texts, _) in enumerate(CAPTIONS)}
    said = {str(k): [dict(caption=text)] for k, (_, text) in enumerate(CAPTIONS)}
    told, said = (PTBTokenizer().tokenize(d) for d in (told, said))
    for key, scorer in (("CIDEr", Cider()), ("METEOR", Meteor()), ("ROUGE-L", Rouge())):
        close(scores[f"reg.{key}"]["value"], scorer.compute_score(told, said)[0], eps=1e-9)
    four = Bleu(4).compute_score(told, said, verbose=0)[0][3]
    close(scores["reg.BLEU-4"]["value"], four, eps=1e-9)


@pytest.mark.parametrize("text,expected", [  # by hand, from the rules of the official script
    ("  Yes. ", "yes"),
    ("no\n", "no"),
    ("a\tcat", "cat"),
    ("The Cat", "cat"),
    ("U.S.", "us"),
    ("3.5", "3.5"),
    ("3.", "3"),
    ("$3.50", "$3.50"),
    ("1,000", "1000"),
    ("1,000-2,000", "10002000"),
    ("t-shirt", "t shirt"),
    ("t- shirt", "t shirt"),
    ("black/white", "black white"),
    ("black / white", "black white"),
    ("red, white, and blue", "red white and blue"),
    ("ten", "10"),
    ("None", "0"),
    ("eleven", "eleven"),
    ("dont", "don't"),
    ("don't", "don't"),
    ("its", "its"),
    ("well", "well"),
    ("whats up", "what's up"),
    ("12:30", "12:30"),
    ("“hi”", "“hi”"),
    ('"hi"', "hi"),
    ("what?", "what"),
    ("", ""),
])  # fmt: skip
def test_vqa_answers_are_normalised_as_the_official_rules_say(text, expected):
    assert normalise_vqa(text) == expected


@pytest.mark.parametrize("n,expected", [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_the_share_of_ten_people_is_the_soft_accuracy(n, expected):
    """With n of ten people: (n · min(1, (n−1)/3) + (10−n) · min(1, n/3)) / 10."""
    close(compute_vqa_accuracy("Two", ["2"] * n + ["other"] * (10 - n)), expected, eps=1e-9)


def test_mme_counts_pictures_of_which_both_answers_are_right():
    items = [ExamItem(f"{p}{k}", "", f"{p}.jpg", None, "count", texts=[t])
             for p in "ab" for k, t in enumerate(("yes", "no"))]  # fmt: skip
    said = {"a0": "Yes", "a1": "No", "b0": "yes", "b1": "Yes it is"}
    answers = {key: ExamAnswer(key, text) for key, text in said.items()}
    scores = score_exam(EXAMS["mme"], items, answers)
    found = scores["mme.perception of 1 of 10 kinds"]
    assert found["value"] == scores["mme.perception.count"]["value"] == 75 + 50
    assert (found["chance"], found["constant"]) == (75, 50)  # a coin; always the same answer


def test_counts_have_the_three_errors_by_hand():
    truth, found = (4, 10, 2), (5, 10, 0)
    items = [ExamItem(str(n), "", meta=dict(n=n)) for n in truth]
    answers = {str(n): ExamAnswer(str(n), f"I see {f}.") for n, f in zip(truth, found)}
    scores = score_exam(EXAMS["fsc147"], items, answers)
    close(scores["fsc147.MAE"]["value"], 1.0)
    close(scores["fsc147.RMSE"]["value"], (5 / 3) ** 0.5)
    close(scores["fsc147.NAE"]["value"], (0.25 + 0 + 1) / 3)
    close(scores["fsc147.MAE"]["constant"], (0 + 6 + 2) / 3)  # always four


def test_hallucinated_objects_per_answer_and_per_mention_by_hand():
    synonyms = {
        ("person",): "person",
        ("man",): "person",
        ("dog",): "dog",
        ("hot", "dog"): "hot dog",
    }
    meta = dict(objects={"person"}, synonyms=synonyms)
    items = [ExamItem(k, "", meta=meta) for k in "ab"]
    answers = {
        "a": ExamAnswer("a", "Two men and a dog."),
        "b": ExamAnswer("b", "A person. People."),
    }
    scores = score_exam(EXAMS["obj-hal"], items, answers)
    assert scores["obj-hal+words.per_answer"]["value"] == 0.5
    assert scores["obj-hal+words.per_mention"]["value"] == 0.25
    longer = synonyms | {("dog", "sled"): "sled"}
    assert list_mentions("A dog sled.", longer) == ["sled"]  # the longer name goes first
    assert list_mentions("Hot dogs, a man.", synonyms) == ["hot dog", "person"]  # and no dog
