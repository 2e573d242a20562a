"""The command: one sentence when something is wrong, JSON alone when JSON was asked for, files that
are whole.
"""

import html.parser
import json
import os
import re
import subprocess
import sys
from unittest.mock import patch

import numpy as np
import pytest
import typer
from PIL import Image
from small_model import Scripted, save_small
from test_confidence import constant_fit

from ferretlite.app import asking as asking_module
from ferretlite.app import cli, demo
from ferretlite.evaluation import suites as evaluation
from ferretlite.model.answers import Answer
from ferretlite.model.inference import Ferret
from ferretlite.model.processing import load_image
from ferretlite.regions.grammar import Grounding, parse_groundings
from ferretlite.scenes.griffon_tasks import GRIFFON_TASKS
from ferretlite.scenes.world import make_scene


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_small(tmp_path_factory.mktemp("model")))


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "scene.png"
    make_scene(1, (64, 96), "test").image.save(path)
    return str(path)


@pytest.fixture
def scripted(monkeypatch):
    "Ferret.load gives a model that says what it is told, and prints noise as libraries do."

    def install(*texts):
        def load(name="tiny", device=None):
            print("Loading weights: 100%")
            return Scripted(*texts)

        monkeypatch.setattr(Ferret, "load", load)

    return install


def run(capsys, *words):
    "Exit code, stdout and stderr of a command."
    capsys.readouterr()
    return cli.main([str(w) for w in words]), *capsys.readouterr()


def parsed(*words):
    "What a command line says: the values that the command's function would get."
    stub = patch.object(typer.core.TyperCommand, "invoke", lambda self, context: context.params)
    with stub:
        return cli.main([str(w) for w in words])


def test_help_needs_none_of_the_heavy_libraries():
    code = (
        "import sys; from ferretlite.app import cli; cli.main(['--help']); print([m for m in"
        " ('torch', 'transformers', 'numpy', 'PIL', 'pydantic', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "ferretlite", "ask", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "--region" in done.stdout


COMMANDS = typer.main.get_command(cli.cli_app).commands
SUBCOMMANDS = [
    f"{name} {sub}" for name in ("pretrain", "bench", "data") for sub in COMMANDS[name].commands
]


@pytest.mark.parametrize("command", [*COMMANDS, *SUBCOMMANDS])
def test_every_command_has_help(capsys, command):
    code, out, _ = run(capsys, *command.split(), "--help")
    assert code == 0 and out.startswith(f"Usage: ferretlite {command}")
    described = out.split("\n\n")[1].strip()
    assert described and described[0].isupper() and described.endswith(".")


@pytest.mark.parametrize(
    "words, completions",
    [
        ("ferretlite da", ["data"]),
        ("ferretlite data ", ["preset", "check", "split"]),
        ("ferretlite train --stage ", ["all", "1", "2", "3"]),
        ("ferretlite ask --reg", ["--region"]),
    ],
)
def test_shells_can_complete_words(words, completions):
    asked = dict(_FERRETLITE_COMPLETE="complete_bash", COMP_WORDS=words)
    asked["COMP_CWORD"] = str(len(words.split(" ")) - 1)
    command = [sys.executable, "-m", "ferretlite"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **asked})
    assert done.stdout.split() == completions


@pytest.mark.parametrize(
    "words, said",
    [
        (["ask", "none.png", "what?"], "none.png: found no file, expected the path of an image"),
        (["ask", "PICTURE", "what?", "--colour"], "No such option: --colour"),
        (["ask", "PICTURE", "what?", "--region", "1,2,3"], "x1,y1,x2,y2"),
        (["ask", "PICTURE", "what?", "--region", "500,5,600,60"], "outside"),
        (["ask", "PICTURE", "what?", "--region", "50,5,10,60"], "x1"),
        (["ask", "PICTURE", "what?", "--point=-3,5"], "outside"),
        (
            ["ask", "PICTURE", "what?", "--mask", "none.png"],
            "none.png: found no file, expected the path of an image",
        ),
        (["ask", "PICTURE", " "], "'QUESTION': found ' '"),
        (["ask", "BROKEN", "what?"], "broken.png: found a damaged picture"),
        (["ask", "PICTURE", "what?", "--model", "ferret-v2-7b"], "size without weights"),
        (["eval", "nowhere"], "nowhere: found no model"),
        (["train", "--out", "x", "--stage", "4", "--samples", "8"], "--stage"),
        (["train", "--out", "x", "--minutes", "0"], "'--minutes': found '0', expected a number"),
        (["train", "--out", "x", "--minutes", "1", "--samples", "8"], "exclude each other"),
        (
            ["pretrain", "lm", "--out", "x", "--tower", "local", "--samples", "8"],
            "No such option: --tower",
        ),
        (
            ["pretrain", "dino", "--out", "x", "--regions", "1", "--samples", "8"],
            "No such option: --regions",
        ),
        (["scenes", "x", "--size", "12"], "sides of 32 to 10000 pixels"),
        (["scenes", "x", "--n", "none"], "found 'none', expected a valid integer"),
        (["scenes", "PICTURE"], "is a file"),
        (["scenes", "x", "--n", "2", "--split", "nice"], "'nice'"),
        (["dance"], "dance"),
        ([], "Missing command"),
        (["pretain"], "Did you mean 'pretrain'"),
        (["pretrain"], "see `ferretlite pretrain --help`"),
        (["train", "--out", "x", "--samples", "nan"], "found 'nan'"),
        (["pretrain", "dino", "--out", "x", "--lr", "nan"], "found 'nan'"),
        (["plan", "small", "--utilisation", "1.5"], "found '1.5'"),
        (["train", "--out", "x", "--fsdp", "none.json"], "none.json"),
    ],
)
def test_trouble_is_one_sentence(capsys, picture, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(open(picture, "rb").read()[:300])
    names = {"PICTURE": picture, "BROKEN": str(tmp_path / "broken.png")}
    code, out, err = run(capsys, *[names.get(w, w) for w in words])
    lines = [line for line in err.splitlines() if "scene/s" not in line]
    assert (
        code == 2
        and out == ""
        and len(lines) == 1
        and lines[0].startswith("ferretlite: ")
        and said in lines[0]
    )
    assert not list(tmp_path.glob("x/*.json"))


def test_a_mistake_of_ours_shows_where_it_is_and_asks_for_a_report(capsys, monkeypatch, picture):
    def broken(*_, **__):
        raise KeyError("oops")

    monkeypatch.setattr(Ferret, "load", broken)
    code, _, err = run(capsys, "ask", picture, "what?")
    assert code == 2 and "in broken" in err and err.startswith("Traceback")
    assert err.splitlines()[-1] == (
        "ferretlite: KeyError: 'oops' (this is a mistake of ours: please report it with the lines "
        "above)"
    )
    monkeypatch.setenv("FERRETLITE_TRACEBACK", "1")
    with pytest.raises(KeyError):
        run(capsys, "ask", picture, "what?")


def test_json_is_alone_on_stdout_and_named_as_the_answer(capsys, scripted, picture, tmp_path):
    scripted("red star [100, 200, 300, 400]")
    code, out, err = run(
        capsys,
        "ask",
        "--fast",
        picture,
        "where is the star?",
        "--json",
        "--save",
        tmp_path / "out.png",
    )
    answer = json.loads(out)
    assert code == 0 and "Loading weights" in err
    assert all(hasattr(Answer(""), key) or key == "size" for key in answer)
    assert (
        answer["groundings"][0]["name"] == "red star"
        and len(answer["groundings"][0]["boxes"][0]) == 4
    )
    assert Image.open(tmp_path / "out.png").size[0] >= 96


def test_where_nothing_can_be_saved_nothing_is_asked(capsys, monkeypatch, picture, tmp_path):
    def never(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Ferret, "load", never)
    for name, says in (
        ("answer.xyz", "expected a picture format"),
        ("answer", "expected a picture format"),
        ("nowhere/answer.png", "found no folder"),
    ):
        code, out, err = run(
            capsys, "ask", picture, "where is the star?", "--save", tmp_path / name
        )
        assert code == 2 and not out and says in err


def test_json_stays_alone_with_the_real_model_in_a_process_of_its_own(model, picture):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ferretlite",
            "ask",
            picture,
            "what is here?",
            "--point",
            "5,5",
            "--json",
            "--model",
            model,
            "--max-new-tokens",
            "3",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and json.loads(done.stdout)["regions"] == [{"point": [5.0, 5.0]}]


def test_regions_keep_the_order_they_were_typed_in(capsys, scripted, picture, tmp_path):
    Image.fromarray(np.eye(64, 96, dtype=np.uint8) * 255).save(tmp_path / "m.png")
    scripted("yes")
    _, out, _ = run(
        capsys,
        "ask",
        "--fast",
        picture,
        "is <region> <region> <region>?",
        "--point",
        "1,2",
        "--mask",
        tmp_path / "m.png",
        "--region",
        "1,2,30,40",
        "--json",
    )
    assert [list(r) for r in json.loads(out)["regions"]] == [["point"], ["mask"], ["box"]]


def test_a_question_may_look_like_an_option(capsys, scripted, picture):
    scripted("yes")
    code, out, _ = run(
        capsys, "ask", "--fast", "--point", "1,2", "--json", picture, "--", "--point"
    )
    assert code == 0 and json.loads(out)["regions"] == [{"point": [1.0, 2.0]}]


def test_regions_are_in_the_upright_frame(capsys, scripted, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    make_scene(1, (64, 96), "test").image.transpose(Image.Transpose.ROTATE_90).save(
        tmp_path / "r.jpg", exif=exif
    )  # stored 96 high, 64 wide
    scripted("star")
    code, out, _ = run(
        capsys, "ask", "--fast", tmp_path / "r.jpg", "what is this?", "--point", "90,20", "--json"
    )
    assert code == 0 and json.loads(out)["size"] == [64, 96]


def test_without_json_people_read_words_and_boxes(capsys, scripted, picture):
    scripted("star [900, 0, 1, 1], cup [0, 0, 500, 500]")
    code, out, err = run(capsys, "ask", "--fast", picture, "where?")
    assert code == 0 and re.search(r"cup +\[0, 0, 48, 32\]$", out, re.M) and "dropped" in err


def test_people_read_the_probability_of_a_box_where_it_was_fitted(capsys, monkeypatch, picture):
    ferret = Scripted("cup [0, 0, 500, 500]")
    monkeypatch.setattr(Ferret, "load", lambda name, device=None: ferret)
    ferret.score_fit = constant_fit(0.7, "asked")
    code, out, _ = run(capsys, "ask", "--fast", picture, "Where is the cup?")
    assert code == 0 and re.search(r"cup +\[0, 0, 48, 32\]  0\.70$", out, re.M)


def test_scenes_are_written_as_coco_and_never_over_others(capsys, tmp_path):
    from ferretlite.data.coco import CocoScenes

    code, out, _ = run(
        capsys,
        "scenes",
        tmp_path / "s",
        "--n",
        3,
        "--size",
        "96x128",
        "--split",
        "val",
        "--seed",
        7,
    )
    assert code == 0 and out.strip().endswith("annotations.json")
    back = CocoScenes(tmp_path / "s")
    assert [s.size for s in back] == [(96, 128)] * 3
    assert [o.box for o in back[0].objects] == [
        o.box for o in make_scene(7, (96, 128), "val").objects
    ]
    code, _, err = run(capsys, "scenes", tmp_path / "s", "--n", 1)
    assert code == 2 and "found files in it" in err


def truth_of(question):
    "The right answer to a question, as if a model had given it."
    text, scene = question.turn.answer, question.scene
    style = "griffon" if question.turn.task in GRIFFON_TASKS else "ferret"
    return Answer(
        text,
        [
            Grounding(g.name, g.boxes, [0.9] * len(g.boxes))
            for g in parse_groundings(text, scene.size, style)
        ],
        text,
        image=scene.image,
    )


def oracle(ferret, questions, batch=32, on_progress=None):
    if on_progress:
        on_progress(1.0)
    return [truth_of(q) for q in questions]


SCORE_KEYS = ("auroc", "auroc_raw", "calibration_error")  # of the probabilities of boxes
KEYS = {
    "absent.balanced_acc",
    *(f"{task}.{name}" for task in ("rec", "det") for name in SCORE_KEYS),
    *(f"absent.{name}" for name in SCORE_KEYS[:2]),
    "rec.acc@0.5",
    "rec.small",
    "rec.medium",
    "rec.large",
    "roc.point",
    "roc.box",
    "roc.mask",
    "name.acc",
    "phrase.acc",
    "word.acc.one_look",
    "det.mAP",
    "det.AP50",
    "count.mae",
}


def test_eval_writes_flat_json_with_five_fields_each(capsys, scripted, monkeypatch, tmp_path):
    scripted()
    monkeypatch.setattr(evaluation, "answer_questions", oracle)
    code, out, _ = run(
        capsys, "eval", "tiny", "--fast", "--n", 14, "--json", tmp_path / "new" / "e.json"
    )
    metrics = json.loads((tmp_path / "new" / "e.json").read_text())
    assert code == 0 and set(metrics) == KEYS
    assert all(set(m) == {"value", "n", "ci95", "chance", "constant"} for m in metrics.values())
    assert metrics["rec.acc@0.5"]["value"] == 1 and metrics["count.mae"]["value"] == 0
    assert all(key in out for key in KEYS)


def test_eval_of_a_model_in_a_folder_is_the_same_twice(capsys, model, monkeypatch, tmp_path):
    monkeypatch.setattr(
        evaluation, "_ANSWER_TOKEN_LIMITS", dict.fromkeys(evaluation._ANSWER_TOKEN_LIMITS, 3)
    )
    for name, batch in (("a", 4), ("b", 32)):
        assert (
            run(capsys, "eval", model, "--n", 2, "--batch", batch, "--json", tmp_path / name)[0]
            == 0
        )
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()


def test_eval_asks_for_pycocotools_before_it_starts(capsys, scripted, monkeypatch):
    scripted()
    monkeypatch.setattr(evaluation, "find_spec", lambda name: None)
    code, _, err = run(capsys, "eval", "tiny", "--n", 2)
    assert code == 2 and "ferretlite[eval]" in err


class Page(html.parser.HTMLParser):
    "Collects what a page shows and what it would load."

    def __init__(self):
        super().__init__()
        self.images, self.links, self.cards, self.places = [], [], [], {}

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        if tag == "image":  # of an <svg>, under the boxes
            self.images.append(held["href"])
            self.places["#" + held["id"]] = held["href"]
        elif tag == "use" and held["href"] in self.places:  # a picture that was shown before
            self.images.append(self.places[held["href"]])
        elif tag in ("script", "link", "iframe") or "href" in held or "src" in held:
            self.links.append(tag)
        if tag == "article":
            self.cards.append(held["class"])


def test_the_demo_page_needs_nothing_else_and_tells_right_from_wrong(
    capsys, scripted, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    scripted()

    def half(ferret, questions, batch=32, on_progress=None):
        on_progress(1.0)
        return [
            truth_of(q) if i % 2 else Answer("a mouse on the moon", image=q.scene.image)
            for i, q in enumerate(questions)
        ]

    monkeypatch.setattr(demo, "answer_questions", half)
    code, out, _ = run(capsys, "demo")
    path = tmp_path / "ferretlite-demo" / "index.html"
    assert code == 0 and out.strip().splitlines()[-1] == str(path)
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert (
        len(page.images) >= 10
        and all(i.startswith("data:image/jpeg;base64,") for i in page.images)
        and not page.links
        and "http:" not in text
        and "https:" not in text
    )
    shown, n = (
        text.count("<figcaption>what is shown</figcaption>"),
        len(demo._CARDS) + len(demo._GRIFFON_CARDS),
    )
    assert (
        shown == 3
        and len(page.images) == 2 * len(page.cards) + shown
        and text.count("<figcaption>the truth</figcaption>") == len(page.cards)
    )  # no truth without its picture
    right = (
        len(demo._CARDS) // 2 + len(demo._GRIFFON_CARDS) // 2
    )  # every second answer of each model
    assert len(page.cards) == n and sum("right" in c for c in page.cards) == right == n - sum(
        "wrong" in c for c in page.cards
    )
    assert f"{right} of {n} right" in text and f"{right} of {n} answers are right." in out
    assert (tmp_path / "ferretlite-demo/scenes/annotations.json").exists() and list(
        (tmp_path / "ferretlite-demo/scenes/scribbles").glob("*.png")
    )


def test_a_perfect_model_gets_every_card_right_and_commands_repeat_the_question(
    capsys, scripted, monkeypatch, tmp_path
):
    cards = demo.make_demo_cards(tmp_path / "scenes", size=192)
    for card in cards:
        card.answer = truth_of(evaluation.Question(card.scene, card.turn))
        demo._judge_card(card)
    assert all(card.right for card in cards)
    for card in (
        cards
    ):  # boxes are written in pixels, as a person would type them, and drawn where the truth is
        shown, words = (
            [b for g in demo._list_true_groundings(card) for b in g.boxes],
            demo._format_truth(card),
        )
        assert (
            shown
            and "&lt;region&gt;" not in demo._format_card(card, "tiny", tmp_path).split("<code>")[0]
        )
        if card.turn.task == "count":
            assert len(shown) == card.turn.meta["n"]
        if card.turn.task == "rec":
            assert (
                words.endswith(f"[{', '.join(f'{v:.0f}' for v in card.turn.meta['box'].list())}]")
                and words.count("[") == 1
            )
    assert {type(c.turn.regions[0]).__name__ for c in cards if c.turn.task == "name"} == {
        "Point",
        "Box",
        "Mask",
    }
    monkeypatch.chdir(tmp_path)
    import shlex

    for card in cards:
        asked = parsed(*shlex.split(demo.format_command(card, "tiny", tmp_path))[1:])
        given = [*asked["region"], *asked["point"], *asked["mask"]]
        regions = asking_module.read_regions(given, card.scene.size)
        assert (
            asked["question"] == card.turn.prompt
            and [r.box() for r in regions]
            == pytest.approx([r.box() for r in card.turn.regions], abs=1e-3)
            or regions == card.turn.regions
        )


def test_doctor_reports_and_fails_where_the_weights_are_missing(capsys, monkeypatch, model):
    import ferretlite.model.loading as loading

    monkeypatch.setattr(loading, "list_shipped_models", lambda: {"tiny": model})
    monkeypatch.setattr(cli, "quick_check", lambda: ("red star", "red star"))
    code, out, _ = run(capsys, "doctor")
    assert code == 0 and "torch" in out and "CUDA" in out and "tiny (" in out
    monkeypatch.setattr(loading, "list_shipped_models", dict)
    code, out, err = run(capsys, "doctor")
    assert code == 2 and "found no model tiny" in err and "python" in out


def test_bench_prints_a_table_and_writes_json(capsys, monkeypatch, tmp_path):
    found = dict(
        samples_per_second=8.0,
        tokens_used=0.9,
        share_of_peak=0.5,
        peak_gflops=dict(float32=100.0, bfloat16=300.0),
        threads=2,
        parts={
            "towers": dict(seconds=0.1, gflop=5.0, share_of_peak=0.5),
            "data": dict(seconds=0.2, gflop=0.0, share_of_peak=0.0),
        },
    )
    monkeypatch.setattr(
        "ferretlite.training.speed.bench_train",
        lambda steps, dtype, compile: {**found, "steps": steps},
    )
    assert cli.main(["bench", "train", "--steps", "2", "--json", str(tmp_path / "b.json")]) == 0
    out = capsys.readouterr().out
    assert "towers" in out and "8.0 samples a second, 50% of float32's matmul peak" in out
    assert json.loads((tmp_path / "b.json").read_text())["steps"] == 2


def test_bench_sampler_prints_both_forms(capsys, monkeypatch, tmp_path):
    from ferretlite.evaluation.speed import bench_sampler

    monkeypatch.setattr(
        "ferretlite.evaluation.speed.bench_sampler",
        lambda: bench_sampler(n=2, grid=4, in_dim=8, out_dim=8),
    )
    assert cli.main(["bench", "sampler", "--json", str(tmp_path / "b.json")]) == 0
    assert "times as fast forward" in capsys.readouterr().out
    assert {"forward_speedup", "backward_speedup", "memory_ratio"} <= set(
        json.loads((tmp_path / "b.json").read_text())
    )


def test_bench_resolution_prints_every_way_to_see(capsys, monkeypatch, tmp_path):
    from ferretlite.evaluation.speed import bench_resolution

    monkeypatch.setattr(
        "ferretlite.evaluation.speed.bench_resolution", lambda: bench_resolution(sides=(192,), n=1)
    )
    assert cli.main(["bench", "resolution", "--json", str(tmp_path / "b.json")]) == 0
    out, found = capsys.readouterr().out, json.loads((tmp_path / "b.json").read_text())
    assert set(found) == {
        "rows",
        "ours_per_second",
        "llava_next_per_second",
        "speedup",
        "threads",
    } and found["speedup"] == pytest.approx(
        found["ours_per_second"] / found["llava_next_per_second"]
    )
    assert [(r["way"], r["side"], r["tokens"], r["grid"]) for r in found["rows"]] == [
        ("fixed", 192, 36, [0, 0]),
        ("direct", 192, 36, [0, 0]),
        ("anyres", 192, 72, [1, 1]),
    ]
    assert all(
        set(r) == {"way", "side", "tokens", "grid", "gflop", "prepare_ms", "see_ms", "mb"}
        and min(r["gflop"], r["prepare_ms"], r["see_ms"], r["mb"]) > 0
        for r in found["rows"]
    )
    assert all(word in out for word in ("fixed", "direct", "anyres", "times as fast"))


def test_bench_projectors_prints_every_projector(capsys, monkeypatch, tmp_path):
    from ferretlite.evaluation.speed import bench_projectors
    from ferretlite.vision.downsampling import DOWNSAMPLER_CLASSES

    monkeypatch.setattr(
        "ferretlite.evaluation.speed.bench_projectors",
        lambda: bench_projectors(sides=(56, 84), in_dim=16, out_dim=32),
    )
    assert cli.main(["bench", "projectors", "--json", str(tmp_path / "b.json")]) == 0
    out, rows = capsys.readouterr().out, json.loads((tmp_path / "b.json").read_text())
    assert [(r["kind"], r["side"]) for r in rows] == [
        (kind, side) for kind in DOWNSAMPLER_CLASSES for side in (56, 84)
    ] and all(kind in out for kind in DOWNSAMPLER_CLASSES)
    assert all(
        set(r) == {"kind", "side", "tokens", "parameters", "gflop", "ms", "mb"}
        and min(r["tokens"], r["parameters"], r["gflop"], r["ms"], r["mb"]) > 0
        for r in rows
    )
    assert {r["side"]: r["tokens"] for r in rows if r["kind"] == "conv"} == {56: 2 * 2, 84: 3 * 3}


def test_compile_belongs_to_the_language_model(capsys, tmp_path):
    assert (
        cli.main(["pretrain", "clip", "--compile", "--samples", "8", "--out", str(tmp_path / "r")])
        == 2
        and "No such option: --compile" in capsys.readouterr().err
    )


def test_an_experiment_is_made_once_and_judged(capsys, monkeypatch, tmp_path):
    from ferretlite.evaluation import studies
    from ferretlite.evaluation.experiments import Claim

    made = []

    def work(settings, folder):
        made.append(settings)
        return {"test rec": 0.5 + 0.1 * settings["gain"] + 0.01 * settings["seed"]}

    monkeypatch.setitem(
        studies.STUDIES,
        "resolution",
        (
            dict(a=dict(gain=0), b=dict(gain=1)),
            dict(samples=7),
            (Claim("b over a", "b", "a", "test rec"),),
            work,
        ),
    )
    command = ["experiment", "resolution", "--seeds", "2", "--samples", "9", "--out", str(tmp_path)]
    assert cli.main(command) == 0 and [s["samples"] for s in made] == [9] * 4
    printed = capsys.readouterr()
    assert "b over a: +0.100" in printed.out and "a, seed 1" in printed.err
    assert cli.main(command) == 0 and len(made) == 4
    assert (
        cli.main([*command[:3], "1", *command[4:]]) == 0
        and "says nothing" in capsys.readouterr().out.splitlines()[-1]
    )


def test_griffons_language_model_is_taught_from_the_command_line(capsys, monkeypatch, tmp_path):
    from ferretlite.pretraining import language

    asked = {}
    monkeypatch.setattr(language, "pretrain_lm", lambda out, **options: asked.update(options))
    assert (
        cli.main(
            [
                "pretrain",
                "lm",
                "--style",
                "griffon",
                "--from",
                "some/lm",
                "--samples",
                "24",
                "--muon",
                "0.01",
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    assert (asked["style"], asked["start"], asked["muon"], asked["samples"]) == (
        "griffon",
        "some/lm",
        0.01,
        24,
    )
    assert (
        cli.main(
            ["pretrain", "clip", "--style", "griffon", "--samples", "24", "--out", str(tmp_path)]
        )
        == 2
        and "No such option: --style" in capsys.readouterr().err
    )


def test_cards_for_griffon_are_asked_again_by_their_commands(tmp_path, monkeypatch):
    import shlex

    cards = demo._make_griffon_cards(tmp_path / "by-example", size=192)
    assert [c.turn.task for c in cards] == ["search", "search", "search", "find", "find_set"] and {
        c.model for c in cards
    } == {"tiny-griffon"}
    assert (
        cards[0].turn.crops[0].box
        and not cards[0].turn.crops[0].image == cards[1].turn.crops[0].image
        and cards[3].turn.answer == "None"
    )
    for card in (
        cards
    ):  # the truth, answered, is right and is drawn; nothing at all is right where nothing is
        card.answer = Answer(
            "",
            [
                Grounding(g.name, g.boxes, [0.9] * len(g.boxes))
                for g in card.turn.meta["groundings"]
            ],
            image=card.scene.image,
        )
        demo._judge_card(card)
        assert (
            card.right
            and len(demo._draw_card(card)) == 2 + len(card.turn.crops)
            and "crop&gt;" not in demo._format_card(card, card.model, tmp_path).split("<code>")[0]
        )
    assert demo._format_truth(cards[3]) == "None" and "[" in demo._format_truth(cards[0])
    monkeypatch.chdir(tmp_path)
    for card in cards:
        asked = parsed(*shlex.split(demo.format_command(card, card.model, tmp_path))[1:])
        again = asking_module.read_crops(asked["crop"], load_image(card.scene.image))
        assert (
            asked["question"] == card.turn.prompt
            and asked["model"] == "tiny-griffon"
            and [c.box for c in again] == pytest.approx([c.box for c in card.turn.crops], abs=1e-3)
        )
        for c in again:
            load_image(c.image)


@pytest.mark.parametrize(
    "text, kind", [("1,2,3,4", "box"), ("star.png", "file"), ("1,2,3", "file"), ("a,b,c,d", "file")]
)
def test_a_crop_is_a_box_or_a_file(text, kind):
    assert asking_module.parse_crop(text)[0] == kind
