"""What a shell can pass: large numbers, odd characters, closed streams, words that mean nothing."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from ferretlite.app import cli
from ferretlite.app.options import print_result
from ferretlite.model.answers import Answer
from ferretlite.model.inference import Ferret
from ferretlite.regions.geometry import Box
from ferretlite.regions.grammar import Grounding

FERRETLITE = [sys.executable, "-m", "ferretlite"]


BUFFERED = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}


def run(line, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    options.setdefault("env", BUFFERED)
    return subprocess.run([*FERRETLITE, *line.split()], **options)


@pytest.mark.parametrize("line", ["--help", "ask --help", "train --help", "data check --help"])
def test_help_can_be_written_in_ascii(line):
    done = run(line, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stderr == "" and done.stdout.startswith("Usage: ")


def test_results_can_be_written_in_ascii():
    code = (
        "from ferretlite.app.options import print_result, run_guarded;"
        "raise SystemExit(run_guarded(lambda: print_result({'name': '红 é 😀'})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and json.loads(done.stdout) == {"name": "红 é 😀"}


@pytest.mark.parametrize("line", ["--help", "doctor", "ask a.png what?"])
def test_a_closed_stdout_is_refused_before_the_work(line):
    done = run(line, stdout=None, preexec_fn=lambda: os.close(1))
    assert done.returncode == 2 and done.stderr.startswith("ferretlite: stdout is closed")


def test_messages_do_not_go_to_stdout_where_stderr_is_closed():
    done = run("dance", stderr=None, preexec_fn=lambda: os.close(2))
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("line", ["--help", "--version"])
def test_a_full_disk_behind_stdout_is_an_error(line):
    with open("/dev/full", "w") as full:
        done = run(line, stdout=full)
    assert done.returncode == 2 and done.stderr == "ferretlite: No space left on device.\n"


@pytest.mark.parametrize(
    "line, flag",
    [
        ("eval tiny --seed 5000000000", "--seed"),
        ("ask a.png what? --max-new-tokens 1" + "0" * 30, "--max-new-tokens"),
        ("scenes s --n 1" + "0" * 30, "--n"),
        ("scenes s --n -1", "--n"),
        ("eval tiny --n -1", "--n"),
        ("eval tiny --n 0", "--n"),
        ("eval tiny --batch 1" + "0" * 30, "--batch"),
        ("data check ferret-v2 --n 0", "--n"),
        ("experiment resolution --seeds -1", "--seeds"),
        ("train --out r --minutes nan", "--minutes"),
        ("train --out r --lora -1", "--lora"),
        ("pretrain clip --out r --regions nan", "--regions"),
        ("pretrain lm --out r --muon -1", "--muon"),
        ("pretrain lm --out r --batch 0", "--batch"),
        ("bench train --steps 0", "--steps"),
        ("plan small --utilisation nan", "--utilisation"),
        ("plan small --text 0", "--text"),
        ("scenes s --n " + "9" * 5000, "--n"),
        ("demo --seed -1", "--seed"),
        ("train --out r --samples 1" + "0" * 30, "--samples"),
        ("train --out r --minutes inf", "--minutes"),
        ("train --out r --minutes 1e400", "--minutes"),
        ("train --out r --at-once 0", "--at-once"),
        ("pretrain lm --out r --lr nan", "--lr"),
        ("plan small --gpus 1" + "0" * 30, "--gpus"),
        ("plan small --gpu-memory nan", "--gpu-memory"),
        ("scenes s --size 99999999", "--size"),
    ],
)
def test_numbers_out_of_bounds_are_refused_at_once(capsys, monkeypatch, tmp_path, line, flag):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"ferretlite: '{flag}': found ") and "expected" in told
    assert len(told) < 300 and not any(tmp_path.iterdir())


def test_a_refused_number_loads_no_library():
    code = (
        "import sys; from ferretlite.app import cli; cli.main(['eval', 'tiny', '--seed',"
        " '5000000000']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    "words, told",
    [
        (["ask", "a.png", "what?", "--device", "gpu"], "'--device': found 'gpu', expected cpu"),
        (["train", "--out", "r", "--device", "cuda:-1"], "'--device': found 'cuda:-1', expected"),
        (["eval", "tiny", "--split", "nope"], "'--split': found 'nope', expected one of"),
        (
            ["eval", "tiny", "--suite", "poems"],
            "exam: found 'poems', expected one of scenes, refcoco",
        ),
        (["scenes", "s", "--split", "nope"], "'--split': found 'nope', expected one of"),
        (["ask", "a.png", ""], "'QUESTION': found ''"),
        (["ask", "a.png", " \t"], "'QUESTION': found"),
        (["ask", "a.png", "what?", "--model", ""], "'--model': found ''"),
        (["eval", ""], "'MODEL': found ''"),
        (["ask", "", "what?"], "'IMAGE': found ''"),
        (["ask", "a.png", "what?", "--max", "3"], "No such option: --max"),
        (["ask", "a.png", "what?", "--region"], "requires an argument"),
        (["ask", "a.png", "what?", "--json=yes"], "does not take a value"),
        (["ask", "a.png", "what?", "--save", "--point", "5,5"], "unexpected extra argument"),
        (["ask", "a.png"], "Missing argument 'QUESTION'"),
        (["ask", "-b.png", "what?"], "No such option: -b: write ./-NAME for a file whose name"),
        (["ask", "a.png", "what", "else"], "unexpected extra argument"),
        (["ask", "a.png", "what?", "--region", "1,2,3"], "expected x1,y1,x2,y2"),
        (["ask", "a.png", "what?", "--point", "１,２,"], "expected x,y"),
        (["train", "--out", "r", "--slow", "x=nan"], "expected PART=FACTOR"),
    ],
)
def test_words_that_mean_nothing_get_one_sentence(capsys, monkeypatch, tmp_path, words, told):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and told in err


def test_names_with_commands_for_the_terminal_are_shown_harmlessly(capsys, monkeypatch, tmp_path):
    "ESC [2J clears a screen, and so does the single character U+009B with 2J."
    name = "red\x1b[2J\x9b2Jstar"

    class Stub:
        def ask(self, image, *given, **options):
            groundings = [Grounding(name, [Box(1, 2, 30, 20)])]
            return Answer(name, groundings, warnings=[f"{name} was dropped"], image=image)

    monkeypatch.setattr(Ferret, "load", lambda name, device=None: Stub())
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    for flags in ([], ["--json"]):
        assert cli.main(["ask", str(tmp_path / "a.png"), "what?", *flags]) == 0
        out, err = capsys.readouterr()
        assert "red\\u001b[2J\\u009b2Jstar" in out and "\x1b" not in out + err
        assert "\x9b" not in out + err and "dropped" in err
    assert json.loads(out)["text"] == name


@pytest.mark.parametrize(
    "words",
    [
        ["ask", "\x1b[31m.png", "what?"],
        ["\x1b[31m"],
        ["eval", "\x1b[31m"],
        ["ask", "a.png", "what?", "--\x1b[31m"],
        ["plan", "\x1b[31m"],
        ["data", "check", "\x1b[31m.json"],
        ["train", "--samples", "8", "--out", "r", "--preset", "\x1b[31m"],
    ],
)
def test_messages_repeat_no_commands_for_the_terminal(capsys, monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err and "[31m" in err and len(err.splitlines()) == 1


def test_line_ends_and_letters_of_all_scripts_stay(capsys):
    print_result("红伞\n\tétoile 😀")
    assert capsys.readouterr().out == "红伞\n\tétoile 😀\n"
