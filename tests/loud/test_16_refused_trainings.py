"""Item 16: a training that is refused leaves nothing behind, and a folder has a name."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from ferretlite.common.errors import InputError
from ferretlite.pretraining.clip import pretrain_clip
from ferretlite.pretraining.dense import pretrain_towers
from ferretlite.pretraining.dino import pretrain_dino
from ferretlite.pretraining.language import pretrain_lm
from ferretlite.pretraining.loop import run_training_loop
from ferretlite.training import runs as run
from ferretlite.training.distributed import RunOptions
from ferretlite.training.runs import train
from ferretlite.training.stages import STAGES

PRETRAININGS = [pretrain_clip, pretrain_dino, pretrain_towers, pretrain_lm]


def files(folder):
    return sorted(p.relative_to(folder) for p in folder.rglob("*"))


@pytest.mark.parametrize(
    "wrong, says",
    [
        (dict(options=RunOptions(at_once=5)), "expected a multiple of 5"),
        (dict(options=RunOptions(slow=dict(tower=0.1))), "learning rate for 'tower'"),
        (dict(samples=0), "samples: found 0, expected a whole number from 1"),
        (dict(samples=-3), "samples: found -3"),
        (dict(minutes=float("nan"), samples=None), "minutes: found nan"),
        (dict(samples=None), "samples and minutes: found neither"),
        (dict(seed=-1), "seed: found -1, expected a whole number from 0"),
        (dict(seed=2**32), "seed: found 4294967296"),
        (dict(preset="giant"), "preset: found 'giant'"),
        (dict(stage="4"), "stage: found '4'"),
        (dict(config=dict(merge=2), from_model="tiny"), "config beside from_model: found both"),
    ],
)
def test_a_refused_training_leaves_nothing(wrong, says, tmp_path, begin):
    with pytest.raises(InputError, match=says):
        train(out=tmp_path / "a" / "run", **{"samples": 32, **begin, **wrong})
    assert not files(tmp_path)


@pytest.mark.parametrize("options", [dict(lora=2), dict(tensorboard=True)])
def test_a_missing_package_leaves_nothing(options, tmp_path, begin, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'ferretlite\[train\]'"):
        train(out=tmp_path / "run", stage="3", samples=32, options=RunOptions(**options), **begin)
    assert not files(tmp_path)


def test_what_a_folder_held_before_stays(tmp_path, begin, monkeypatch):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "notes.txt").write_text("mine")

    def refuse(model, processor, stage, out, *rest):
        (out / "checkpoint-1").mkdir(parents=True)
        raise InputError("talks.json, record 7: a damaged picture")

    monkeypatch.setattr(run, "run_stage", refuse)
    with pytest.raises(InputError, match="record 7"):
        train(out=tmp_path, samples=4, **begin)
    assert [str(p) for p in files(tmp_path)] == ["logs", "logs/notes.txt"]


def test_stages_that_are_done_stay_when_a_later_one_is_refused(tmp_path, begin, monkeypatch):
    stages = [replace(s, n_turns=2, scenes=2, batch_size=2, share=1) for s in STAGES["tiny"][:2]]
    monkeypatch.setitem(STAGES, "tiny", tuple(stages))
    carry_out = run.run_stage

    def refuse_the_second(model, processor, stage, *rest):
        if stage.name.startswith("II "):
            raise InputError("talks.json, record 7: a damaged picture")
        return carry_out(model, processor, stage, *rest)

    monkeypatch.setattr(run, "run_stage", refuse_the_second)
    with pytest.raises(InputError, match="record 7"):
        train(out=tmp_path / "run", samples=4, **begin)
    assert (tmp_path / "run" / "stage-1" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "run.json").is_file()


def test_a_stage_that_is_refused_in_its_first_batch_leaves_nothing(tmp_path, begin, monkeypatch):
    def refuse(model, processor, stage, out, *rest):
        (out / "checkpoint-1").mkdir(parents=True)  # a checkpoint that was not finished
        raise InputError("talks.json, record 7: a damaged picture")

    monkeypatch.setattr(run, "run_stage", refuse)
    with pytest.raises(InputError, match="record 7"):
        train(out=tmp_path / "a" / "run", samples=4, **begin)
    assert not files(tmp_path)


@pytest.mark.parametrize("out", ["", " "])
def test_an_empty_name_is_no_folder(out, tmp_path, monkeypatch, begin):
    monkeypatch.chdir(tmp_path)
    for teach in (train, *PRETRAININGS):
        with pytest.raises(InputError, match="out: found ' ?', expected the name of a folder"):
            teach(out=out, samples=4)
    assert not files(tmp_path)


def test_a_file_is_no_folder(tmp_path, begin):
    (tmp_path / "run").write_text("mine")
    for teach in (train, *PRETRAININGS):
        for out in (tmp_path / "run", tmp_path / "run" / "inside"):
            with pytest.raises(InputError, match="out: found the file .*run, expected a folder"):
                teach(out=out, samples=4)
    assert (tmp_path / "run").read_text() == "mine"


def write(folder, name, **record):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_model_without_a_record_is_not_overwritten(name, tmp_path, begin):
    out = write(tmp_path / "model", name)
    for teach in (train, *PRETRAININGS):
        for resume in (False, True):
            with pytest.raises(InputError, match="found a model without the record of a run"):
                teach(out=out, samples=4, resume=resume)
    assert [p.name for p in files(out)] == [name]


def test_a_run_of_another_kind_is_not_overwritten(tmp_path):
    done = write(tmp_path / "done", "run.json", settings={}, log={}, stages=[])
    for teach in PRETRAININGS:
        with pytest.raises(InputError, match="found a training run in .*, which a pretraining run"):
            teach(out=done, samples=4)
    with pytest.raises(InputError, match="found a training run"):  # it ended in the meantime
        run_training_loop(torch.nn.Linear(1, 1), None, None, done, steps=1)
    towers = write(tmp_path / "towers", "run.json", seed=0, steps=36, log=[])
    killed = write(tmp_path / "killed", "state.pt")
    for out in (towers, killed):
        with pytest.raises(InputError, match="found a pretraining run in .*, which a training run"):
            train(out=out, samples=4, resume=True)
