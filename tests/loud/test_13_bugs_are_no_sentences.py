"""A plain ValueError or ImportError is a bug of ours: it shows its place and asks for a report."""

import io
import json

import pytest
import torch

from ferretlite.app import cli
from ferretlite.app.options import run_guarded
from ferretlite.common.errors import InputError, MissingPackageError
from ferretlite.data.llava import LlavaDialogues
from ferretlite.data.mixtures import make_mixture
from ferretlite.model import inference


def read_run(capsys, error):
    def run():
        raise error

    assert run_guarded(run) == 2
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("not enough values to unpack"),
        ImportError("cannot import name 'x'"),
        ModuleNotFoundError("No module named 'ferretlite.nowhere'"),
        TypeError("x"),
        KeyError("x"),
        io.UnsupportedOperation("not readable"),  # a ValueError and an OSError
        ProcessLookupError(3, "No such process"),
        RuntimeError("shapes differ"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_bug_shows_its_place_and_asks_for_a_report(capsys, error):
    lines = read_run(capsys, error)
    assert lines[0] == "Traceback (most recent call last):"
    assert any("in run" in line for line in lines)
    assert "a mistake of ours: please report it" in lines[-1]


@pytest.mark.parametrize(
    "error",
    [
        InputError("a.json: found nothing, expected a number."),
        MissingPackageError("adapters: found no package peft, expected it."),
        FileNotFoundError("a.png: found no file."),
        PermissionError(13, "Permission denied", "a.png"),
        OSError(28, "No space left on device"),
        OSError("owner/name is no model of the hub."),
        MemoryError(),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_user_can_cause_stays_one_sentence(capsys, monkeypatch, error):
    monkeypatch.delenv("FERRETLITE_TRACEBACK", raising=False)

    def run():
        raise error

    assert run_guarded(run) in (2, 130)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_place_of_a_bug_holds_no_commands_for_the_terminal(capsys):
    lines = read_run(capsys, ValueError("\x1b[2J"))
    assert "\x1b" not in "".join(lines) and "\\u001b" in lines[-1]


@pytest.mark.parametrize(
    "words",
    [
        "plan nowhere",
        "plan /etc/passwd",
        "convert nowhere out",
        "convert . out",
        "eval nowhere",
        "eval .",
        "train --out run --samples 8 --from nowhere",
        "train --out run --samples 8 --from .",
        "train --out run --samples 8 --lm nowhere",
        "train --out run --samples 8 --lm .",
        "train --out run --samples 8 --preset nowhere",
        "train --out run --samples 8 --data .",
        "train --out run --samples 8 --slow nothing=0.5",
        "train --out run",
        "pretrain lm --out run --samples 8 --from nowhere",
        "pretrain lm --out run --samples 8 --from .",
        "pretrain dense --out run --samples 8 --from nowhere",
        "pretrain dense --out run --samples 8 --from .",
        "pretrain clip --out run",
        "data check .",
        "data check ferret-v2 --model nowhere",
        "data preset nowhere",
        "ask . what?",
        "ask nowhere.png what?",
        "demo --model nowhere --out page",
    ],
)
def test_a_wrong_name_is_no_bug(capsys, monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert cli.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and "mistake of ours" not in err, err
    assert len(err) < 700 and not any(tmp_path.iterdir())


def test_a_bug_while_a_model_is_loaded_stays_a_bug(monkeypatch):
    def fail(place):
        raise AttributeError("no attribute 'x'")

    monkeypatch.setattr(inference, "load_all_weights", lambda *_: torch.nn.Linear(1, 1))
    monkeypatch.setattr(inference.FerretProcessor, "from_pretrained", fail)
    with pytest.raises(AttributeError, match="no attribute 'x'"):
        inference.Ferret.load("tiny")


def test_a_bug_while_a_record_is_read_stays_a_bug(tmp_path, monkeypatch):
    turns = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]
    (tmp_path / "talk.json").write_text(json.dumps([dict(id=0, conversations=turns)]))
    part = dict(name="talk", format="llava", annotations="talk.json", images=".")
    (tmp_path / "mixture.json").write_text(json.dumps(dict(stages={"1": [part]})))
    mixture = make_mixture(tmp_path / "mixture.json", 1)

    def fail(*_):
        raise ValueError("not enough values to unpack")

    monkeypatch.setattr(LlavaDialogues, "converse", fail)
    with pytest.raises(ValueError) as caught:
        mixture[0]
    assert type(caught.value) is ValueError and str(caught.value) == "not enough values to unpack"
