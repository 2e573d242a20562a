"""What must not pass silently: missing answers, answers to other files, rules of other papers."""

import json
import shutil
from types import SimpleNamespace

import pytest
from fastcore.test import test_close as close

from ferretlite.app import cli
from ferretlite.common.errors import FerretliteWarning, InputError
from ferretlite.exams.captions import list_mentions, read_synonyms
from ferretlite.exams.core import (
    ExamAnswer,
    ExamItem,
    format_exam_table,
    list_published,
    read_answers,
    score_exam,
)
from ferretlite.exams.judged import ask_about_pair, judge_answers
from ferretlite.exams.own import OWN_EXAM
from ferretlite.exams.report import format_report
from ferretlite.exams.runs import (
    EXAMS,
    describe_exams,
    read_exam,
    run_exam,
    score_file,
    write_exam_questions,
)
from ferretlite.exams.words import is_named_publicly, list_name_forms
from ferretlite.model.answers import Answer
from ferretlite.regions.geometry import Box
from ferretlite.scenes.world import make_scene

LIMITS = {  # largest number of new tokens: Ferret's scripts, Griffon's, LLaVA-1.5's
    **dict.fromkeys(("refcoco", "refcoco+", "refcocog"), (1024, 128)),
    **dict.fromkeys(("flickr30k", "lvis-roc", "pope", "ferret-bench"), (1024, None)),
    **dict.fromkeys(("coco", "odinw13"), (2048, None)),
    **dict.fromkeys(("vqav2", "textvqa", "gqa", "mme", "seed-bench"), (128, None)),
    **dict.fromkeys(("llava-bench", "mm-vet"), (1024, None)),
}


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def get_values(scores):
    return {key: m["value"] for key, m in scores.items()}


class Talker:
    """Answers with one text, and keeps the limits of tokens."""

    def __init__(self, text="yes", style="ferret"):
        self.text, self.limits = text, []
        self.processor = SimpleNamespace(config=SimpleNamespace(style=style))

    def ask(self, images, prompts, regions, crops, max_new_tokens, batch):
        self.limits.append(max_new_tokens)
        return [Answer(self.text, raw_text=self.text) for _ in prompts]


# -- questions without an answer


@pytest.mark.filterwarnings("ignore:.*have no answer")
@pytest.mark.parametrize("name,keys,expected", [
    ("pope", ("pope.accuracy", "pope.precision", "pope.recall", "pope.f1"), 0),
    ("obj-hal", ("obj-hal+words.per_answer",), 1),
    ("grefcoco", ("grefcoco.exact", "grefcoco.exact.none"), 0),
    ("refcocos", ("refcocos.exact", "refcocos.exact.none"), 0),
])  # fmt: skip
def test_nothing_is_wrong_also_where_silence_is_right(name, keys, expected, folders):
    exam, items = read_exam(name, folders[name])
    scores = get_values(score_exam(exam, items, {}))
    assert [scores[key] for key in keys] == [expected] * len(keys)
    silent = get_values(score_exam(exam, items, {i.id: ExamAnswer(i.id) for i in items}))
    assert silent[keys[-1]] != expected  # an empty answer is an answer


@pytest.mark.filterwarnings("ignore:.*have no answer")
def test_the_page_counts_a_missing_answer_as_wrong(folders):
    exam, items = read_exam("obj-hal", folders["obj-hal"])
    page = format_report(exam, items, {}, score_exam(exam, items, {}), folders["obj-hal"])
    assert page.count("grade 0.00") == len(items)


def test_files_without_truth_are_told(tmp_path):
    data = dict(images=[dict(id=1, height=9, width=9)], annotations=[])
    data["categories"] = [dict(id=1, name="cat")]
    (tmp_path / "instances_val2017.json").write_text(json.dumps(data))
    (tmp_path / "r.json").write_text("[]")
    with pytest.warns(FerretliteWarning, match="no score can be computed"):
        *_, scores = score_file("coco", tmp_path, tmp_path / "r.json")
    assert not scores


# -- answers of another run, exam or folder


def test_a_saved_run_with_slices_is_scored_under_its_own_keys(folders, tmp_path):
    _, items = read_exam("refcoco", folders["refcoco"])
    lines = [dict(id=i.id, text="", boxes=[], exam="refcoco", model="tiny+slices-2") for i in items]
    path = write_lines(tmp_path / "a.jsonl", lines)
    exam, *_, scores = score_file("refcoco", folders["refcoco"], path)
    assert scores and all(key.startswith("refcoco+slices-2.") for key in scores)
    assert not any(list_published(exam, key) for key in scores)
    with pytest.raises(InputError, match="line 1, field exam: found 'refcoco', expected refcoco"):
        score_file("refcoco+", folders["refcoco+"], path)
    lines[0]["model"] = "tiny"
    write_lines(path, lines)
    with pytest.raises(InputError, match="answers of one kind of run"):
        score_file("refcoco", folders["refcoco"], path)


def test_answers_to_other_files_are_neither_continued_nor_scored(folders, tmp_path):
    other, save = tmp_path / "other", tmp_path / "a.jsonl"
    EXAMS["pope"].example([make_scene(i, 96, "test") for i in (50, 51)], other)
    exam, items = read_exam("pope", folders["pope"])
    options = dict(save=save, progress=False, label="m")
    run_exam(Talker(), exam, items, folders["pope"], **options)
    before = save.read_bytes()
    _, strangers = read_exam("pope", other)
    assert {i.id for i in items} == {i.id for i in strangers}
    with pytest.raises(InputError, match="answers to other files"):
        run_exam(Talker(), exam, strangers, other, **options)
    with pytest.raises(InputError, match="answers to other files"):
        score_file("pope", other, save)
    assert save.read_bytes() == before
    *_, scores = score_file("pope", folders["pope"], save)
    assert scores["pope.recall"]["value"] == 1


def test_a_part_of_an_exam_is_scored_with_the_same_number(folders, tmp_path, capsys):
    exam, items = read_exam("gqa", folders["gqa"], 2)
    save = tmp_path / "a.jsonl"
    run_exam(Talker("2"), exam, items, folders["gqa"], save=save, progress=False, label="m")
    words = ["score", "gqa", "--data", str(folders["gqa"]), "--answers", str(save), "--n", "2"]
    assert cli.main([*words, "--json", str(tmp_path / "s.json")]) == 0
    assert "have no answer" not in capsys.readouterr().err
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["gqa.accuracy"]["n"] == len(items) < len(read_exam("gqa", folders["gqa"])[1])


def test_a_file_of_blank_lines_is_one_sentence(folders, tmp_path):
    (tmp_path / "a.jsonl").write_text("\n\n")
    with pytest.raises(InputError, match="expected one answer a line"):
        score_file("pope", folders["pope"], tmp_path / "a.jsonl")


def test_answers_with_an_id_in_a_json_file_are_told_the_right_ending(folders, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([dict(id="random:1", text="yes")]))
    for name in ("pope", "coco"):
        with pytest.raises(InputError, match="jsonl"):
            score_file(name, folders[name], tmp_path / "a.json")


# -- boxes in text


def test_a_wrong_form_is_told(folders, tmp_path):
    _, items = read_exam("refcoco", folders["refcoco"])
    lines = [dict(id=i.id, text='{"bbox_2d": [1, 2, 3, 4]}') for i in items]
    path = write_lines(tmp_path / "a.jsonl", lines)
    told = f"{len(items)} of {len(items)} texts hold no box in the form griffon"
    with pytest.warns(FerretliteWarning, match=told):
        read_answers(path, items, "griffon")


@pytest.mark.parametrize("name", ["refcoco", "fsc147"])
def test_a_size_that_the_file_lacks_is_read_from_the_picture(name, folders, tmp_path):
    """The true box as pixels of a picture of twice the size: 96 pixels a side, written as 192."""
    folder = tmp_path / "x"
    shutil.copytree(folders[name], folder)
    if name == "refcoco":
        (folder / "finetune_refcoco_val.json").unlink()
        write_parquet_without_sizes(folders[name], folder / "refcoco_val.parquet")
    else:
        path = folder / "annotation_FSC147_384.json"
        records = json.loads(path.read_text())
        for record in records.values():
            del record["H"], record["W"]
        path.write_text(json.dumps(records))
    _, items = read_exam(name, folder)
    assert all(item.size == (96, 96) for item in items)
    text = '{"bbox_2d": [20, 40, 60, 80]}'
    lines = [dict(id=i.id, text=text, size=[192, 192]) for i in items]
    path = write_lines(tmp_path / "a.jsonl", lines)
    answers = read_answers(path, items, "qwen")
    assert [b.list() for b in answers[items[0].id].boxes] == [[10, 20, 30, 40]]
    for picture in folder.rglob("*.jpg"):
        picture.unlink()
    _, items = read_exam(name, folder)
    with pytest.raises(InputError, match="size of the picture: found nothing"):
        read_answers(path, items, "qwen")


def write_parquet_without_sizes(source, path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = json.loads((source / "finetune_refcoco_val.json").read_text())
    boxes = {a["image_id"]: a["bbox"] for a in data["annotations"]}
    rows = [
        dict(file_name=i["file_name"], bbox=list(map(float, boxes[i["id"]])))
        | dict(sentences=[dict(sent=i["caption"])])
        for i in data["images"]
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def test_no_region_is_written_without_its_place(folders, tmp_path):
    shutil.copytree(folders["ferret-bench"], tmp_path / "f", ignore=shutil.ignore_patterns("*.jpg"))
    _, items = read_exam("ferret-bench", tmp_path / "f")
    with pytest.raises(InputError, match="asks about a region; put the picture"):
        write_exam_questions(tmp_path / "q.jsonl", items)
    assert not (tmp_path / "q.jsonl").exists()


@pytest.mark.parametrize("form,text", [
    ("qwen", '[{"bbox_2d": [24, 48, 72, 96], "label": "cup"}]'),
    ("loc", "<loc0512><loc0256><loc1023><loc0767> cup"),
    ("ref-box", "<ref>cup</ref><box>(250,500),(750,1000)</box>"),
    ("ferret", "cup [250, 500, 750, 1000]"),
])  # fmt: skip
def test_a_judge_reads_boxes_of_every_form_as_fractions(form, text, folders, tmp_path):
    _, items = read_exam("ferret-bench", folders["ferret-bench"])
    item = next(i for i in items if i.group == "ground_conv")
    path = write_lines(tmp_path / "a.jsonl", [dict(id=item.id, text=text)])
    answer = read_answers(path, items, form)[item.id]
    shown = ask_about_pair(item, answer)[1]["content"].split("2]\n")[1].split("\n")[0]
    name, _, numbers = shown.rstrip("]").partition(" [")
    assert name == "cup"
    close(list(map(float, numbers.split(", "))), [0.25, 0.5, 0.75, 1], eps=2e-3)


# -- protocols


@pytest.mark.parametrize("name", LIMITS)
def test_answers_may_be_as_long_as_in_the_public_scripts(name):
    exam = EXAMS[name]
    assert (exam.max_new_tokens, exam.griffon_tokens) == LIMITS[name]


def test_griffons_words_have_griffons_limit(folders):
    exam, items = read_exam("refcoco", folders["refcoco"])
    for style, limit in (("ferret", 1024), ("griffon", 128)):
        talker = Talker(style=style)
        run_exam(talker, exam, items[:1], folders["refcoco"], progress=False)
        assert talker.limits == [limit]


@pytest.mark.parametrize("text,right", [  # by hand, from the two patterns of the public script
    ("a guitar and not a bow", True),
    ("It is not a guitar but a bow", True),
    ("It is not a bow, it is a guitar", False),
    ("it is\nnot a bow, a guitar", False),
    ("There is no bow. It is a guitar.", False),
    ("a notebook with a bow on it", True),
    ("a notebook with a bow on it.", False),
    ("not a bow, a guitar", True),  # nothing stands before the denial
    ("a rainbow", True),
    ("Bow", False),
])  # fmt: skip
def test_the_substring_rule_is_that_of_the_public_script(text, right):
    assert is_named_publicly(text, ["bow"]) == right


def test_the_public_script_splits_synonyms_alone_and_asks_with_the_name_of_the_file(tmp_path):
    assert list_name_forms("bow_(weapon)", ["cross_bow_(arms)", "longbow"]) == [
        "bow (weapon)", "cross bow", "arms", "longbow",
    ]  # fmt: skip
    line = dict(id=0, image_path="1.jpg", width=20, height=20, name="bow_(weapon)", synonyms=[])
    line |= dict(neg_class="hair_dryer", sample_point=[5, 5], bbox_norm=[0, 0, 0.5, 0.5])
    write_lines(tmp_path / "lvis_eval.jsonl", [line, line | dict(id=1)])
    exam, items = read_exam("lvis-roc", tmp_path)
    assert items[0].prompt.endswith("of the image a bow_(weapon) or a hair_dryer?")
    assert items[-1].prompt.endswith("of the image a hair_dryer or a bow_(weapon)?")
    for text, public, sound in (
        ("a bow (weapon)", 1, 1), ("It is a bow", 0, 1), ("the hair_dryer", 0, 0),
    ):  # fmt: skip
        scores = score_exam(exam, items, {i.id: ExamAnswer(i.id, text) for i in items})
        assert scores["lvis-roc+own-file.box"]["value"] == public
        assert scores["lvis-roc+own-file.box.sound"]["value"] == sound


def test_griffons_values_stand_beside_griffons_rule():
    for name in ("refcoco", "refcoco+", "refcocog"):
        for model, key, *_ in EXAMS[name].published:
            assert key.startswith("acc>0.5." if model == "Griffon v2" else "acc@0.5."), key
    truth = Box(0, 0, 10, 10)
    items = [ExamItem(s, "", s, (20, 20), s, boxes=[truth]) for s in ("val", "testA")]
    answers = {
        "val": ExamAnswer("val", boxes=[truth]),
        "testA": ExamAnswer("testA", boxes=[Box(0, 0, 10, 5)]),
    }
    scores = get_values(score_exam(EXAMS["refcoco"], items, answers))
    found = [scores[f"refcoco.acc{rule}0.5.{s}"] for rule in "@>" for s in ("val", "testA")]
    assert found == [1, 1, 1, 0]
    assert "85.0" in describe_exams("refcocog")


@pytest.mark.filterwarnings("ignore:.*texts hold no box", "ignore:.*pretokenised")
@pytest.mark.parametrize("name", [
    "obj-hal", "lvis-roc", "vqav2", "textvqa", "ferret-bench", "llava-bench", "mm-vet",
])  # fmt: skip
def test_no_published_value_stands_beside_another_protocol(name, folders):
    exam, items = read_exam(name, folders[name])
    verdict = "0.5" if name == "mm-vet" else "5 5"
    answers = {i.id: ExamAnswer(i.id, i.texts[0], verdict=verdict) for i in items}
    scores = score_exam(exam, items, answers)
    assert exam.published and scores
    assert not any(list_published(exam, key) for key in scores), list(scores)
    assert "published: as printed" not in format_exam_table(exam, scores)


def test_the_judge_is_named_in_every_key(folders, tmp_path):
    exam, items = read_exam("mm-vet", folders["mm-vet"])
    answers = {i.id: ExamAnswer(i.id, "two") for i in items}

    def judge(messages):
        return "0.5"

    judge.name = "llama-3"
    judge_answers(exam, items, answers, judge)
    scores = score_exam(exam, items, answers)
    assert all(key.startswith("mm-vet+own-prompt+judge-llama-3.") for key in scores)


def test_verdicts_keep_the_kind_of_run_that_was_judged(folders, tmp_path):
    _, items = read_exam("mm-vet", folders["mm-vet"])
    lines = [dict(id=i.id, text="x", exam="mm-vet", model="m+look-again") for i in items]
    path, save = write_lines(tmp_path / "a.jsonl", lines), tmp_path / "b.jsonl"
    score_file("mm-vet", folders["mm-vet"], path, judge=lambda messages: "1.0", save=save)
    *_, scores = score_file("mm-vet", folders["mm-vet"], save)
    assert all(key.startswith("mm-vet+look-again+own-prompt+judge.") for key in scores)


def test_grec_has_numbers_of_each_split_and_refuses_unknown_objects(folders, tmp_path):
    shutil.copytree(folders["grefcoco"], tmp_path / "g")
    path = tmp_path / "g" / "grefs(unc).json"
    refs = json.loads(path.read_text())
    for ref in refs:
        ref["split"] = "testA" if ref["no_target"] else "val"
    path.write_text(json.dumps(refs))
    exam, items = read_exam("grefcoco", tmp_path / "g")
    scores = score_exam(exam, items, {i.id: ExamAnswer(i.id) for i in items})
    assert scores["grefcoco.exact.none.testA"]["value"] == 1
    assert scores["grefcoco.exact.testA"]["value"] == 1
    assert scores["grefcoco.exact.val"]["value"] == 0
    for change, found in (
        (dict(ann_id=[987654]), "or -1 alone"), (dict(ann_id=[]), "or -1 alone"),
        (dict(ann_id=[-1, 1]), "or -1 alone"), (dict(image_id=987654), "field image_id"),
    ):  # fmt: skip
        path.write_text(json.dumps([refs[0] | change, *refs[1:]]))
        with pytest.raises(InputError, match=found):
            read_exam("grefcoco", tmp_path / "g")


def test_a_row_whose_pictures_have_no_rival_has_no_chance_level():
    big, small = Box(50, 50, 90, 90), Box(0, 0, 5, 5)
    asked = [
        ExamItem("1", "", "1.jpg", (100, 100), "val", boxes=[big]),
        ExamItem("2", "", "1.jpg", (100, 100), "val", boxes=[Box(0, 50, 40, 90)]),
        ExamItem("3", "", "2.jpg", (100, 100), "testA", boxes=[small]),
    ]
    scores = score_exam(EXAMS["refcoco"], asked, {i.id: ExamAnswer(i.id) for i in asked})
    assert scores["refcoco.acc@0.5.val"]["chance"] == 0.5
    for key in ("testA", "small"):
        assert scores[f"refcoco.acc@0.5.{key}"]["chance"] is None
    for item, kind in zip(asked, ("cup", "hat", "kite")):
        phrase = dict(text=kind, types=[kind], boxes=item.boxes)
        item.meta, item.names = dict(phrases=[phrase]), [kind]
    scores = score_exam(EXAMS["flickr30k"], asked, {i.id: ExamAnswer(i.id) for i in asked})
    assert scores["flickr30k.any.r@1.cup"]["chance"] == 0.5
    assert scores["flickr30k.any.r@1.kite"]["chance"] is None


# -- own data


def test_own_names_and_their_chance_are_those_of_all_data(tmp_path):
    OWN_EXAM.example([make_scene(i, 96, "test") for i in range(4)], tmp_path)
    items = [i for i in OWN_EXAM.read(tmp_path / "mixture.json") if i.group == "name"]
    data = json.loads((tmp_path / "data" / "annotations.json").read_text())
    numbers = {a["category_id"] for a in data["annotations"]}
    names = [c["name"] for c in data["categories"] if c["id"] in numbers]
    for some in (items, items[:2]):
        scores = score_exam(OWN_EXAM, some, {i.id: ExamAnswer(i.id, i.texts[0]) for i in some})
        assert scores["own.name"]["value"] == 1
        close(scores["own.name"]["chance"], 1 / len(names))
    every = {i.id: ExamAnswer(i.id, ", ".join(names)) for i in items}
    assert score_exam(OWN_EXAM, items, every)["own.name"]["value"] == 0


def test_data_of_one_name_have_no_chance_level():
    meta = dict(names={"bolt": "bolt"})
    item = ExamItem("1", "", group="name", texts=["bolt"], meta=meta)
    scores = score_exam(OWN_EXAM, [item], {"1": ExamAnswer("1", "a bolt")})
    assert scores["own.name"] == scores["own.name"] | dict(value=1, chance=None)


# -- words and texts

PLURALS = """
person people; bicycle bicycles; car cars; motorcycle motorcycles; airplane airplanes; bus buses;
train trains; truck trucks; boat boats; traffic light traffic lights; fire hydrant fire hydrants;
stop sign stop signs; parking meter parking meters; bench benches; bird birds; cat cats; dog dogs;
horse horses; sheep sheep; cow cows; elephant elephants; bear bears; zebra zebras; giraffe
giraffes; backpack backpacks; umbrella umbrellas; handbag handbags; tie ties; suitcase suitcases;
frisbee frisbees; skis skis; snowboard snowboards; sports ball sports balls; kite kites; baseball
bat baseball bats; baseball glove baseball gloves; skateboard skateboards; surfboard surfboards;
tennis racket tennis rackets; bottle bottles; wine glass wine glasses; cup cups; fork forks; knife
knives; spoon spoons; bowl bowls; banana bananas; apple apples; sandwich sandwiches; orange
oranges; broccoli broccoli; carrot carrots; hot dog hot dogs; pizza pizzas; donut donuts; cake
cakes; chair chairs; couch couches; potted plant potted plants; bed beds; dining table dining
tables; toilet toilets; tv tvs; laptop laptops; mouse mice; remote remotes; keyboard keyboards;
cell phone cell phones; microwave microwaves; oven ovens; toaster toasters; sink sinks;
refrigerator refrigerators; book books; clock clocks; vase vases; scissors scissors; teddy bear
teddy bears; hair drier hair driers; toothbrush toothbrushes; policeman policemen; woman women;
calf calves; puppy puppies; cookie cookies; house houses; child children; minibus minibuses; stove
stoves; wolf wolves; goose geese
"""


def test_plurals_of_all_eighty_objects_are_found(tmp_path):
    pairs = []
    for pair in PLURALS.split(";"):
        words = pair.split()
        pairs.append((" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])))
    (tmp_path / "s.txt").write_text("".join(f"{name}\n" for name, _ in pairs))
    synonyms = read_synonyms(tmp_path / "s.txt")
    assert len(pairs) == 91 and len(synonyms) >= 91
    for name, plural in pairs:
        assert list_mentions(f"There are many {plural}.", synonyms) == [name], plural
        assert list_mentions(f"There is a {name}.", synonyms) == [name], name


def test_a_chart_answer_is_normalised_before_it_is_compared():
    exam = EXAMS["chartqa"]
    for text, truth, right in (
        ("1,000", "1000", 1), ("Yes.", "yes", 1), ("12%", "0.12", 1), ("1,100", "1000", 0),
    ):  # fmt: skip
        assert exam.grade(ExamItem("1", "", texts=[truth]), ExamAnswer("1", text)) == right


def test_a_blank_line_at_the_end_of_an_mme_text_is_no_question(folders, tmp_path):
    shutil.copytree(folders["mme"], tmp_path / "m")
    for path in (tmp_path / "m").rglob("*.txt"):
        path.write_text(path.read_text() + "\n\n")
    asked = [[i.prompt for i in read_exam("mme", f)[1]] for f in (folders["mme"], tmp_path / "m")]
    assert asked[0] == asked[1]


def test_lvis_has_no_crowds(folders, tmp_path):
    """The lvis package does not read iscrowd: a marked object is an object."""
    data = dict(images=[dict(id=1, height=50, width=50)], categories=[])
    data["images"][0] |= dict(neg_category_ids=[], not_exhaustive_category_ids=[])
    data["categories"].append(dict(id=1, name="cat", frequency="f"))
    row = dict(image_id=1, category_id=1, bbox=[1, 1, 40, 40])
    data["annotations"] = [dict(row, id=1, area=1600, iscrowd=1)]
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(data))
    (tmp_path / "r.json").write_text(json.dumps([dict(row, score=0.9)]))
    *_, scores = score_file("lvis", tmp_path, tmp_path / "r.json")
    close(scores["lvis.AP"]["value"], 1)


def test_missing_files_of_captions_name_the_exam_and_its_split(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        read_exam("reg", tmp_path)
    assert str(caught.value).startswith("reg: ") and "_test" not in str(caught.value)


def test_an_exam_without_published_values_says_so():
    for name in ("lvis", "okvqa", "fsc147", "grefcoco", "refcocos"):
        assert "published: none" in describe_exams(name)
    assert "published: none" not in describe_exams("pope")


def test_no_control_character_reaches_the_page(folders):
    exam, items = read_exam("pope", folders["pope"])
    answers = {i.id: ExamAnswer(i.id, "yes\x00 \u202egnp.exe\x1b[31m") for i in items}
    page = format_report(exam, items, answers, score_exam(exam, items, answers), folders["pope"])
    assert not {"\x00", "\u202e", "\x1b"} & set(page) and "\\u202e" in page


def test_results_are_refused_before_a_table_is_printed(folders, tmp_path, capsys):
    path = write_lines(tmp_path / "a.jsonl", [dict(id="random:1", text="no")])
    words = ["score", "pope", "--data", folders["pope"], "--answers", path, "--results"]
    assert cli.main([*map(str, words), str(tmp_path / "r.json")]) == 2
    said = capsys.readouterr()
    assert not said.out and "no list of categories" in said.err


def test_a_judge_of_own_data_is_refused(tmp_path, capsys):
    OWN_EXAM.example([make_scene(0, 96, "test")], tmp_path)
    words = ["eval", "tiny", "--data", str(tmp_path / "mixture.json"), "--judge-model", "x"]
    assert cli.main(words) == 2
    assert "found --judge-model" in capsys.readouterr().err
