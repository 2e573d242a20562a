"""Killed runs, damaged folders, two trainings into one folder: a run goes on bit for bit, or is
refused with one sentence.
"""

import json
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ferretlite.common.errors import FerretliteWarning, InputError
from ferretlite.pretraining import loop
from ferretlite.pretraining.loop import read_state, run_training_loop
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
    stages = (replace(stages[0], align=("global_projector",)), stages[1])
    patch.setitem(STAGES, "tiny", stages)

    def often(*args):
        found = make_training_arguments(*args)
        found.save_steps, found.logging_steps = 2, 1
        found.dataloader_num_workers, found.dataloader_prefetch_factor = 0, None
        return found

    patch.setattr("ferretlite.training.trainer.make_training_arguments", often)
    patch.setattr("gc.collect", lambda *args: 0)  # Accelerate's, a fifth of the time


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


# Damage


def flip(path):
    "Change one bit in the middle of a file."
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


def rewrite(change):
    "A change of a JSON file, as a function of its path."

    def write(path):
        table = json.loads(path.read_text())
        change(table)
        path.write_text(json.dumps(table))

    return write


def last(name):
    return f"stage-2/checkpoints/checkpoint-4/{name}"


def deepen(config):
    config["text_config"]["num_hidden_layers"] += 1


GOES_ON = [  # damage of the newest checkpoint, which is named; the one before it is used
    (last("optimizer.pt"), remove),
    (last("optimizer.pt"), flip),
    (last("optimizer.pt"), cut),
    (last("optimizer.pt"), empty),
    (last("scheduler.pt"), remove),
    (last("scheduler.pt"), flip),
    (last("rng_state.pth"), remove),
    (last("rng_state.pth"), flip),
    (last("model.safetensors"), remove),
    (last("model.safetensors"), flip),
    (last("model.safetensors"), cut),
    (last("trainer_state.json"), remove),
    (last("trainer_state.json"), flip),
    (last("COMPLETE"), empty),
    (last("COMPLETE"), rewrite(lambda table: table.update({"optimizer.pt": 3}))),
    (last("COMPLETE"), rewrite(lambda table: table.clear())),
    (last("COMPLETE"), rewrite(lambda table: table.pop("optimizer.pt"))),
]
REFUSED = [  # file, damage, what the sentence says
    ("stage-1/model.safetensors", flip, "model.safetensors: found the checksum"),
    ("stage-1/model.safetensors", cut, "model.safetensors: found [0-9]+ bytes, expected"),
    ("stage-1/model.safetensors", remove, "model.safetensors: found no such file"),
    ("stage-1/config.json", rewrite(deepen), "config.json: found"),
    ("stage-1/tokenizer.json", flip, "tokenizer.json: found the checksum"),
    ("run.json", empty, "something else than the record"),
    ("run.json", cut, "something else than the record"),
    ("run.json", rewrite(lambda run: run["steps"].append(9)), "a plan that does not fit"),
    ("run.json", rewrite(lambda run: run.update(steps=[6, 7])), "a plan that does not fit"),
    ("run.json", rewrite(lambda run: run.update(done=["IV"])), "a plan that does not fit"),
    ("run.json", rewrite(lambda run: run.pop("log")), "a plan that does not fit"),
    (
        "run.json",
        rewrite(lambda run: run["settings"].update(seed=1)),
        "found another seed than when the run began",
    ),
    ("run.json", rewrite(lambda run: run.update(scenes=[9, 9])), "a plan that does not fit"),
    ("run.json", rewrite(lambda run: run.update(log={"I": 3})), "a plan that does not fit"),
    ("run.json", rewrite(lambda run: run.update(world_size="two")), "a plan that does not fit"),
    ("run.json", rewrite(lambda run: run.update(data_files=3)), "a plan that does not fit"),
    ("run.json", lambda path: path.write_text("[" * 100_000), "something else than the record"),
    ("run.json", remove, "found stage-1 of a run and no run.json"),
    ("stage-1/COMPLETE", remove, "COMPLETE: found no list of all files"),
    (
        "stage-1/COMPLETE",
        rewrite(lambda table: table.clear()),
        "COMPLETE: found no list of all files",
    ),
]


@pytest.fixture
def copy(runs, tmp_path):
    return shutil.copytree(runs / "cut", tmp_path / "run")


def is_sentence(error):
    text = str(error)
    return "\n" not in text and text.endswith(".") and len(text) < 700 and "Traceback" not in text


@pytest.mark.parametrize("name, damage", GOES_ON)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    begin, runs, copy, name, damage
):
    damage(copy / name)
    with pytest.warns(FerretliteWarning, match=re.escape(str(copy / name))) as told:
        go(copy, begin)
    assert "going on from" in str(told[0].message) and "checkpoint-2" in str(told[0].message)
    assert same(weights(copy), weights(runs / "whole"))


def test_folders_beside_checkpoints_do_not_disturb(begin, runs, copy):
    place = copy / "stage-2" / "checkpoints"
    shutil.copytree(place / "checkpoint-2", place / "checkpoint-40.bak")
    shutil.copytree(place / "checkpoint-4", place / "checkpoint-4 (1)")
    (place / "checkpoint-50").mkdir()
    (place / "checkpoint-4" / "notes.txt").write_text("mine")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FerretliteWarning)
        assert newest_checkpoint(place) == str(place / "checkpoint-4")
        go(copy, begin)
    assert same(weights(copy), weights(runs / "whole"))


@pytest.mark.parametrize("name, damage, says", REFUSED)
def test_other_damage_is_refused_with_one_sentence(begin, copy, name, damage, says):
    damage(copy / name)
    with pytest.raises(InputError, match=says) as error:
        go(copy, begin)
    assert is_sentence(error.value)


def test_a_run_without_a_whole_checkpoint_is_refused(begin, runs, copy):
    place = copy / "stage-2" / "checkpoints"
    for number in (2, 4):
        flip(place / f"checkpoint-{number}" / "optimizer.pt")
    with pytest.raises(InputError, match="no other checkpoint is whole; remove .* to begin") as e:
        go(copy, begin)
    assert is_sentence(e.value)
    shutil.rmtree(place)  # as the sentence says
    go(copy, begin)
    assert same(weights(copy), weights(runs / "whole"))


class Bomb:
    "A pickle that writes a file when it is read."

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_checkpoint_runs_no_code(begin, copy, tmp_path):
    "The optimiser's state is read with weights_only=True, whatever COMPLETE says."
    place = copy / "stage-2" / "checkpoints" / "checkpoint-4"
    torch.save(Bomb(tmp_path / "exploded"), place / "optimizer.pt")
    write_manifest(place)
    with pytest.raises(InputError, match="checkpoint-4: found a state that is no plain") as error:
        go(copy, begin)
    assert is_sentence(error.value) and not (tmp_path / "exploded").exists()


def test_weights_of_another_model_are_no_checkpoint(begin, copy):
    place = copy / "stage-2" / "checkpoints" / "checkpoint-4"
    whole = load_file(place / "model.safetensors")
    first = next(iter(whole))
    for tensors, says in (
        ({k: v for k, v in whole.items() if k != first}, re.escape(first)),
        ({**whole, "surplus": torch.zeros(1)}, "surplus"),
        ({**whole, first: torch.zeros(3)}, re.escape(first)),
    ):
        save_file(tensors, place / "model.safetensors")
        write_manifest(place)
        with pytest.raises(InputError, match=f"model.safetensors: found other .*{says}") as error:
            go(copy, begin)
        assert is_sentence(error.value)


# Room


def test_checkpoints_of_stages_that_are_done_make_room(begin, runs, copy, capsys):
    assert not list((runs / "whole").rglob("checkpoint-*"))
    assert not (copy / "stage-1" / "checkpoints").exists()  # that stage was done
    held = sum(p.stat().st_size for p in (copy / "stage-2" / "checkpoints").rglob("*"))
    go(copy, begin, progress=True)
    freed = re.search(r"([0-9.]+) MB freed", capsys.readouterr().err)
    assert float(freed[1]) == pytest.approx(held / 1e6, rel=0.1)  # of two other checkpoints


# Resuming


@pytest.mark.parametrize("name, stage", [("cut", "stage-1"), ("whole", "stage-2")])
def test_a_run_that_goes_on_reads_one_model(begin, runs, tmp_path, monkeypatch, name, stage):
    "The models of earlier stages may be gone, and the parts that the run began with are not read."
    out, read = shutil.copytree(runs / name, tmp_path / "run"), []
    load = training.load_model
    monkeypatch.setattr(training, "load_model", lambda place: (read.append(place), load(place))[1])
    monkeypatch.setattr(training, "start_model", None)
    if stage == "stage-2":
        shutil.rmtree(out / "stage-1")
    go(out, begin)
    assert read == [out / stage] and same(weights(out), weights(runs / "whole"))


# Processes


HOLD = """
import sys, time
from filelock import FileLock

lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_two_trainings_do_not_share_a_folder(begin, runs, copy):
    "The lock of a process that was killed holds nobody."
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(copy / ".lock")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="found another process that trains into this") as error:
        go(copy, begin)
    assert is_sentence(error.value)
    with pytest.raises(InputError, match="found another process"):
        run_training_loop(torch.nn.Linear(1, 1), None, None, copy, steps=1)
    process.kill()
    process.wait()
    go(copy, begin)
    assert same(weights(copy), weights(runs / "whole"))


def test_processes_compare_all_settings(monkeypatch):
    "A seed of its own, a setting that one process lacks, and an option: the first one is named."
    others = []

    def gather(told, settings):
        told[:] = [settings, *others]

    monkeypatch.setattr(distributed, "read_world", lambda: (1, 2))
    monkeypatch.setattr(distributed.dist, "all_gather_object", gather)
    settings = dict(seed=0, out="a", lora=0)
    for other, says in (
        (dict(seed=1, out="a", lora=0), "seed: found 1 in process 1, expected 0 as in process 0"),
        (dict(seed=0, lora=0), "out: found None in process 1, expected 'a'"),
        (dict(seed=0, out="a", lora=8), "lora: found 8 in process 1, expected 0"),
        (dict(seed=0, out="a", lora=0, skip="bad"), "skip: found 'bad' in process 1"),
    ):
        others[:] = [other]
        with pytest.raises(InputError, match=says):
            compare_settings(settings)
    others[:] = [dict(settings)]
    compare_settings(settings)


def test_another_number_of_processes_is_told(begin, runs, copy, tmp_path):
    rewrite(lambda run: run.update(world_size=2))(copy / "run.json")
    options = training.RunOptions(fsdp=str(copy / "run.json"))
    with pytest.raises(InputError, match="found 1 processes, expected 2, over which the optim"):
        go(copy, begin, options=options)
    with pytest.warns(FerretliteWarning, match="began with 2 processes and goes on with 1"):
        go(copy, begin)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FerretliteWarning)
        go(copy, begin)  # it is done, and does not go on
    assert same(weights(copy), weights(runs / "whole"))


# The state of pre-training


def fit_line(out, steps=4, **more):
    torch.manual_seed(0)
    line = torch.nn.Linear(30, 1)

    def batches(first):
        return (torch.full((1, 30), float(n)) for n in range(first, steps))

    return line, run_training_loop(
        line, lambda x: line(x).square().mean(), batches, out, steps=4, every=2, **more
    )


@pytest.mark.parametrize("place", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, "cut", "empty"])
def test_a_damaged_state_of_pretraining_is_refused(place, tmp_path):
    "A bit in any part of the file: the run goes on bit for bit, or is refused."
    whole, _ = fit_line(tmp_path / "whole")
    fit_line(tmp_path / "run", steps=2)
    path = tmp_path / "run" / "state.pt"
    held = bytearray(path.read_bytes())
    if isinstance(place, float):
        held[int(place * len(held))] ^= 16
    path.write_bytes(bytes(held[: dict(cut=-9, empty=0).get(place)]))
    try:
        line, _ = fit_line(tmp_path / "run", resume=True)
    except InputError as error:
        assert str(error).startswith(f"{path}: found a damaged file (") and is_sentence(error)
    else:
        assert torch.equal(line.weight, whole.weight)


def test_a_wrong_weight_in_a_state_is_noticed(tmp_path):
    fit_line(tmp_path)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert "checksum" not in read_state(tmp_path / "state.pt")
    saved["optimizers"][0]["state"][0]["exp_avg"][0, 0] += 1e-6
    torch.save(saved, tmp_path / "state.pt")
    with pytest.raises(InputError, match="state.pt: found a damaged file .its checksum is anoth"):
        fit_line(tmp_path, resume=True)
    del saved["checksum"]  # of an older version
    torch.save(saved, tmp_path / "state.pt")
    fit_line(tmp_path, resume=True)
