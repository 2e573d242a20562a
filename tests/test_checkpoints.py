"""Killed runs, damaged folders, two trainings into one folder: a run goes on bit for bit, or is
refused with one sentence.
"""

import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import start
from safetensors.torch import load_file, save_file

from ferretlite.common.errors import FerretliteWarning, InputError
from ferretlite.pretraining import loop
from ferretlite.pretraining.loop import lock_folder, read_state, run_training_loop
from ferretlite.training import distributed
from ferretlite.training import runs as training
from ferretlite.training.distributed import compare_settings, newest_checkpoint, write_manifest
from ferretlite.training.runs import train
from ferretlite.training.stages import STAGES, TINY_STAGES
from ferretlite.training.trainer import StageTrainer, make_training_arguments

STEPS = 6  # of each stage


def make_short(patch):
    "Stages II and III in batches of one, six steps each, with a checkpoint every second step."
    short = dict(batch_size=1, share=1 / 2, n_turns=1, scenes=1, others={}, first_share=0.0)
    stages = tuple(replace(s, **short) for s in TINY_STAGES[1:])
    stages = (replace(stages[0], align=()), replace(stages[1], tasks=dict(rec=1.0)))
    patch.setitem(STAGES, "tiny", stages)

    def often(*args):
        found = make_training_arguments(*args)
        found.save_steps, found.logging_steps = 2, 1
        found.dataloader_num_workers, found.dataloader_prefetch_factor = 0, None
        return found

    patch.setattr("ferretlite.training.trainer.make_training_arguments", often)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    make_short(monkeypatch)
    monkeypatch.setattr(loop, "LOCK_SECONDS", 0.1)


class Killed(Exception):
    "The machine went down."


def die_at(patch, owner, name, call=1):
    "Raise Killed in place of a call of a function."
    original, calls = getattr(owner, name), []

    def die(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return original(*args, **kwargs)

    patch.setattr(owner, name, die)


def go(out, begin, **more):
    return train(out=out, samples=2 * STEPS, **{"resume": True, **begin, **more})


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def runs(begin, tmp_path_factory):
    "A run that nobody interrupted, and one that died in step 5 of its second stage."
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        make_short(patch)
        go(folder / "whole", begin)
        die_at(patch, StageTrainer, "training_step", STEPS + 6)
        with pytest.raises(Killed):
            go(folder / "cut", begin)
    return folder


# Kills

KILLS = [  # what is called for the n-th time since the run went on
    (StageTrainer, "training_step", 1),
    (StageTrainer, "training_step", 2),
    (distributed, "write_manifest", 1),  # a checkpoint is written and has no mark
    (distributed.os, "rename", 1),  # it is marked and not in its place
    (StageTrainer, "training_step", 3),
    (StageTrainer, "training_step", 2),
    (distributed, "wait_for_all", 1),  # before a checkpoint is written
    (distributed, "wait_for_all", 2),  # before it is marked
    (training, "save_model", 1),  # the stage is trained and not saved
    (training, "write_manifest", 1),
    (training, "_save_record", 1),  # it is saved and not noted
    (training, "remove_checkpoints", 1),  # it is noted, and its checkpoints are still there
    (StageTrainer, "training_step", 1),
    (StageTrainer, "training_step", 3),
    (StageTrainer, "training_step", 2),
    (distributed, "write_manifest", 1),
    (distributed.os, "rename", 1),
    (StageTrainer, "_load_from_checkpoint", 1),  # while it reads where it goes on
    (StageTrainer, "training_step", 3),
    (training, "save_model", 1),
    (training, "_finish_run", 1),  # every stage is done, and the run is not a model yet
    (training, "save_model", 1),
    (training, "write_whole", 1),  # only the picture of the losses is missing
]


def test_a_run_that_is_killed_again_and_again_ends_bit_for_bit_as_one_that_was_not(
    begin, runs, tmp_path
):
    out, said = tmp_path / "run", []
    for number, (owner, name, call) in enumerate(KILLS):
        with pytest.MonkeyPatch.context() as patch:
            die_at(patch, owner, name, call)
            with pytest.raises(Killed):
                go(out, begin)
        said.append(name)
        torch.manual_seed(number)  # what happened in between does not matter
    go(out, begin)
    assert len(said) >= 20 and same(weights(out), weights(runs / "whole"))
    records = [json.loads((f / "run.json").read_text()) for f in (out, runs / "whole")]
    assert records[0]["log"] == records[1]["log"] and records[0]["done"] == records[1]["stages"]
