"""Exams that models take: saved answers, judges behind an address, and the page about a run."""

import dataclasses
import html
import json
import shutil
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from ferretlite.common.errors import FerretliteWarning, InputError
from ferretlite.common.pictures import load_image
from ferretlite.exams.core import ExamAnswer, ExamItem, score_exam
from ferretlite.exams.judged import judge_answers, make_chat_judge, read_pair
from ferretlite.exams.report import measure_reliability, write_report
from ferretlite.exams.runs import EXAMS, read_exam, run_exam, take_exam, write_exam_questions
from ferretlite.model.answers import Answer
from ferretlite.model.inference import Ferret
from ferretlite.regions.geometry import Box
from ferretlite.scenes.world import make_scene


@pytest.fixture(scope="module")
def folders():
    """A folder of each exam with two scenes."""
    scenes, found = [make_scene(i, 128, "test") for i in range(2)], {}
    with tempfile.TemporaryDirectory() as top:
        for name, exam in EXAMS.items():
            found[name] = Path(top) / name
            exam.example(scenes, found[name])
        yield found


@pytest.fixture(scope="module")
def tiny():
    return Ferret.load("tiny")


class Talker:
    """Answers every question with one text, and counts what it was asked."""

    def __init__(self, text="yes", stop_after=10**9, style="ferret"):
        self.text, self.left, self.asked = text, stop_after, []
        self.processor = SimpleNamespace(config=SimpleNamespace(style=style))

    def ask(self, images, prompts, regions, crops, max_new_tokens, batch, look_again=False):
        self.again = look_again
        self.left -= len(prompts)
        if self.left < 0:
            raise InterruptedError
        self.asked += list(zip(prompts, regions, crops))
        return [Answer(self.text, raw_text=self.text) for _ in prompts]


@pytest.mark.parametrize("name", EXAMS)
@pytest.mark.filterwarnings("ignore::ferretlite.common.errors.FerretliteWarning")
def test_the_tiny_model_takes_every_exam(name, folders, tiny, monkeypatch):
    if name == "reg":
        pytest.importorskip("pycocoevalcap")
        monkeypatch.setattr("shutil.which", lambda program: None)
    exam, items = read_exam(name, folders[name])
    short = dataclasses.replace(exam, max_new_tokens=4)
    answers = run_exam(tiny, short, items[:1], folders[name], progress=False)
    assert set(answers) == {items[0].id}
    assert score_exam(exam, items[:1], answers)


def test_the_likeliest_letter_is_that_of_the_next_token(folders, tiny):
    import torch

    exam, items = read_exam("seed-bench", folders["seed-bench"])
    answers = run_exam(tiny, exam, items[:1], folders["seed-bench"], progress=False)
    [answer] = answers.values()
    scores = score_exam(exam, items[:1], answers)
    assert answer.likeliest in "ABCD" and "seed-bench.likelihood of images" in scores
    words, losses = tiny.processor.tokenizer, {}
    picture = load_image(folders["seed-bench"] / "SEED-Bench-image" / items[0].image)
    batch = tiny.processor([picture], [items[0].prompt], [[]], [[]])
    for letter in "ABCD":  # the loss of the whole answer, token by token
        ids = torch.tensor([words(f" {letter}", add_special_tokens=False).input_ids])
        row = dict(batch, input_ids=torch.cat([batch["input_ids"], ids], 1))
        row["attention_mask"] = torch.cat([batch["attention_mask"], torch.ones_like(ids)], 1)
        with torch.no_grad():
            logits = tiny.model(**row).logits[0, -ids.shape[1] - 1 : -1]
        losses[letter] = torch.nn.functional.cross_entropy(logits, ids[0], reduction="sum").item()
    assert answer.likeliest == min(losses, key=losses.get)


def test_griffon_is_asked_in_its_own_words_and_sees_the_example_as_a_picture(folders):
    for name, words in (
        ("refcoco", "Can you point out"),
        ("fsc147", "<crop>"),
        ("coco", "Examine"),
    ):
        exam, items = read_exam(name, folders[name])
        talker = Talker(style="griffon")
        run_exam(talker, exam, items[:1], folders[name], progress=False)
        [(prompt, regions, crops)] = talker.asked
        assert words in prompt and not regions and len(crops) == prompt.count("<crop>")


def test_a_stopped_run_asks_only_what_is_missing(folders, tmp_path):
    exam, items = read_exam("vqav2", folders["vqav2"])
    save, options = tmp_path / "a.jsonl", dict(batch=1, progress=False, label="m")
    with pytest.raises(InterruptedError):
        run_exam(Talker(stop_after=3), exam, items, folders["vqav2"], save, **options)
    save.write_bytes(save.read_bytes()[:-5])  # killed in the middle of a line
    second = Talker("no")
    answers = run_exam(second, exam, items, folders["vqav2"], save, **options)
    assert [a.text for a in answers.values()] == ["yes"] * 2 + ["no"] * (len(items) - 2)
    assert len(second.asked) == len(items) - 2
    third = Talker()
    assert run_exam(third, exam, items, folders["vqav2"], save, **options) == answers
    assert not third.asked


@pytest.mark.parametrize("text,found", [
    ("my notes", "answers that a run has saved"),
    ("my notes\n", "answers that a run has saved"),
    ("[1]\n", "answers that a run has saved"),
    ("\n\n", "answers that a run has saved"),
    ("\xff", "answers that a run has saved"),
    ('{"id": "v", "tex\n', "line 1"),
    ('{"id": "1", "text": "yes"}\nnull\n', "line 2"),
])  # fmt: skip
def test_a_file_that_no_run_has_saved_is_refused_and_stays(text, found, folders, tmp_path):
    exam, items = read_exam("vqav2", folders["vqav2"])
    save = tmp_path / "a.jsonl"
    save.write_bytes(text.encode("latin1"))
    with pytest.raises(InputError, match=found):
        run_exam(Talker(), exam, items, folders["vqav2"], save, progress=False, label="m")
    assert save.read_bytes() == text.encode("latin1")


@pytest.mark.parametrize("again", [False, True])
def test_one_look_is_the_rule_and_two_are_named_in_every_key(again, folders, tmp_path):
    talker, save = Talker(), tmp_path / "a.jsonl"
    options = dict(save=save, progress=False, label="m", look_again=again)
    *_, scores = take_exam(talker, "gqa", folders["gqa"], **options)
    assert talker.again == again
    start = "gqa+look-again." if again else "gqa."
    assert scores and all(key.startswith(start) for key in scores)
    with pytest.raises(InputError, match="choose another file"):
        take_exam(talker, "gqa", folders["gqa"], **options | dict(look_again=not again))


@pytest.mark.parametrize("change", [dict(label="other"), dict(exam="okvqa")])
def test_answers_of_another_model_or_exam_are_not_continued(change, folders, tmp_path):
    exam, items = read_exam("vqav2", folders["vqav2"])
    save = tmp_path / "a.jsonl"
    run_exam(Talker(), exam, items, folders["vqav2"], save, progress=False, label="m")
    other = EXAMS[change.get("exam", "vqav2")]
    with pytest.raises(InputError, match="choose another file"):
        run_exam(Talker(), other, items, folders["vqav2"], save, progress=False,
                 label=change.get("label", "m"))  # fmt: skip


def test_a_missing_picture_names_every_path_before_anything_is_asked(folders, tmp_path):
    exam, items = read_exam("pope", folders["pope"])
    talker = Talker()
    with pytest.raises(FileNotFoundError) as caught:
        run_exam(talker, exam, items, tmp_path, progress=False)
    assert all(str(tmp_path / place) in str(caught.value) for place in exam.pictures)
    assert not talker.asked


def test_a_part_of_an_exam_takes_all_splits_and_whole_pictures(folders):
    exam, items = read_exam("mme", folders["mme"], 2)
    assert len(items) == 2 and items[0].image == items[1].image
    with pytest.raises(InputError, match="at least one question"):
        read_exam("mme", folders["mme"], 0)


def test_questions_can_be_written_for_other_programs(folders, tmp_path):
    _, items = read_exam("refcoco", folders["refcoco"])
    path = write_exam_questions(tmp_path / "q.jsonl", items)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["id"] for line in lines] == [item.id for item in items]
    assert all(line["prompt"] and line["griffon"] and line["image"] for line in lines)


class _Server:
    """A chat interface on this machine that answers with the given bodies."""

    def __init__(self, *bodies):
        self.bodies, self.seen = list(bodies), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                size = int(self.headers["Content-Length"])
                outer.seen.append(
                    (self.path, dict(self.headers), json.loads(self.rfile.read(size)))
                )
                status, body = outer.bodies.pop(0)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *args):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def reply(text):
    return 200, json.dumps(dict(choices=[dict(message=dict(content=text))]))


def test_a_judge_behind_an_address_grades_ferret_bench(folders, monkeypatch):
    monkeypatch.setenv("FERRETLITE_JUDGE_KEY", "secret")
    exam, items = read_exam("ferret-bench", folders["ferret-bench"])
    answers = {
        i.id: ExamAnswer(i.id, f"It is at [100, 200, 300, 400], {i.texts[0]}") for i in items
    }
    with _Server((500, "busy"), *[reply("8 4\nfine")] * len(items)) as server:
        judge = make_chat_judge(server.address, "judge-model")
        judge_answers(exam, items, answers, judge)
    path, headers, body = server.seen[-1]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert body["model"] == "judge-model" and "secret" not in json.dumps(body)
    shown = body["messages"][1]["content"]
    assert "[0.100, 0.200, 0.300, 0.400]" in shown and "[100, 200" not in shown
    scores = score_exam(exam, items, answers)
    assert scores["ferret-bench+judge-judge-model.average"]["value"] == 0.5
    assert "ferret-bench+offline.words" not in scores


def test_an_answer_of_another_form_is_one_sentence(folders):
    with _Server((200, '{"error": "no model"}')) as server:
        judge = make_chat_judge(server.address, "m")
        with pytest.raises(InputError, match="expected choices with a message"):
            judge([])
    for address in ("file:///etc/passwd", "localhost:80", ""):
        with pytest.raises(InputError, match="http"):
            make_chat_judge(address, "m")
    exam, items = read_exam("pope", folders["pope"])
    with pytest.raises(InputError, match="graded by rules"):
        judge_answers(exam, items, {}, lambda messages: "")


def test_verdicts_that_cannot_be_read_are_left_out_and_counted(folders):
    exam, items = read_exam("llava-bench", folders["llava-bench"])
    verdicts = ["8 4", "Both are good."] + ["5 5"] * len(items)
    answers = {i.id: ExamAnswer(i.id, "", verdict=v) for i, v in zip(items, verdicts)}
    with pytest.warns(FerretliteWarning, match="1 of"):
        scores = score_exam(exam, items, answers)
    n = len(items) - 2
    assert scores["llava-bench+judge.wild"]["value"] == pytest.approx((4 + 5 * n) / (8 + 5 * n))


@pytest.mark.parametrize("verdict", ["", "5", "8 7 6", "80 70", "0 5", "good 5", "-1 -1", "nan 5"])
def test_a_verdict_has_two_numbers_from_the_scale(verdict):
    assert read_pair(verdict) is None


def test_without_a_judge_no_score_bears_the_name_of_the_benchmark(folders):
    for name in ("ferret-bench", "llava-bench", "mm-vet"):
        exam, items = read_exam(name, folders[name])
        scores = score_exam(exam, items, {i.id: ExamAnswer(i.id, i.texts[0]) for i in items})
        assert scores and all(key.startswith(f"{name}+offline.") for key in scores)


def test_saved_verdicts_are_not_asked_again(folders, tmp_path):
    save, asked = tmp_path / "a.jsonl", []

    def judge(messages):
        asked.append(messages)
        return "0.5"

    options = dict(judge=judge, save=save, progress=False, label="m")
    for _ in range(2):
        *_, scores = take_exam(Talker("two"), "mm-vet", folders["mm-vet"], **options)
    assert scores["mm-vet+own-prompt+judge.total"]["value"] == 0.5
    assert len(asked) == scores["mm-vet+own-prompt+judge.total"]["n"]


def test_reliability_counts_boxes_of_the_right_name_and_place():
    item = ExamItem("1", "", boxes=[Box(0, 0, 10, 10)], names=["red cat"])
    boxes = [Box(0, 0, 10, 10), Box(0, 0, 10, 10), Box(40, 40, 50, 50)]
    answer = ExamAnswer("1", "", boxes, ["a red cat", "dog", "red cat"], [0.9, 0.95, 0.1])
    found = measure_reliability([item], {"1": answer})
    assert [(round(s, 3), r, n) for s, r, n in found] == [(0.1, 0, 1), (0.925, 0.5, 2)]


EVIL = "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">"


@pytest.fixture
def page(folders, tmp_path):
    exam, items = read_exam("refcoco", folders["refcoco"])
    items[0].prompt += EVIL
    answers = {i.id: ExamAnswer(i.id, EVIL, i.boxes, [EVIL], [0.9]) for i in items}
    scores = score_exam(exam, items, answers)
    return write_report(tmp_path / "r.html", exam, items, answers, scores,
                        folders["refcoco"], EVIL)  # fmt: skip


def test_the_page_escapes_answers_and_needs_no_other_file(page):
    text = page.read_text()
    policy = html.unescape(text.split('Policy" content="')[1].split('"')[0])
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert text.count("<script>") == 1 and "<img" not in text and "&lt;script&gt;" in text
    assert "http://" not in text and "https://" not in text


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_a_browser_shows_the_page_and_runs_our_script_alone(page, tmp_path):
    run = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert '<span id="count">' in run.stdout, run.stderr[-2000:]
    count = run.stdout.split('<span id="count">')[1].split("<")[0]
    total = run.stdout.count('class="card ')
    assert count == f"{total} of {total}" and total > 0
    assert "<title>RefCOCO</title>" in run.stdout
