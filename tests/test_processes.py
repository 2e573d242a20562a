"Runs in many processes, killed processes, and disks without room."

import json
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from processes import finish, kill_after, run, small_stages, start, together
from safetensors.torch import load_file, save_file

from ferretlite.data.batches import Collator
from ferretlite.model.modeling import FerretForConditionalGeneration
from ferretlite.training import distributed as runs
from ferretlite.training import runs as training
from ferretlite.training import trainer
from ferretlite.training.distributed import RunOptions, join_world
from ferretlite.training.stages import STAGES, prepare_stage, start_model


@pytest.fixture(scope="module")
def finished(begin, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    finish(out, begin)
    return out


def weights(out):
    return load_file(Path(out) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# Killed


def test_killed_at_random_moments_and_resumed_it_ends_as_one_that_was_not(
    begin, finished, tmp_path
):
    dice, out, kills, took = (
        random.Random(3),
        tmp_path / "run",
        0,
        json.loads((finished / "run.json").read_text())["seconds"],
    )
    for _ in range(5):
        kills += kill_after(dice.uniform(0.4, 0.5 + took / 2), out, begin)
    finish(out, begin)
    assert kills >= 2 and same(weights(out), weights(finished))
    assert (
        json.loads((out / "run.json").read_text())["log"]
        == json.loads((finished / "run.json").read_text())["log"]
    )


@pytest.mark.parametrize("what", ["full", "blocked"])
def test_a_disk_without_room_costs_no_earlier_checkpoint(begin, finished, tmp_path, what):
    out = tmp_path / "run"
    process = start(run, out, begin, (2, what))
    process.join(120)
    said, place = (out / "said").read_text(), out / "stage-2" / "checkpoints"
    assert (
        "checkpoint-4 could not be written" in said
        and f"add --resume, which goes on from {place / 'checkpoint-2'}" in said
    )
    assert (
        (place / "checkpoint-2" / "COMPLETE").exists()
        and not (place / "checkpoint-4").exists()
        and not (place / "part").is_dir()
    )
    (place / "part").unlink(missing_ok=True)
    (out / "said").unlink()
    finish(out, begin)
    assert same(weights(out), weights(finished)) and not (out / "said").exists()


# Many


def five_steps(rank, folder, begin, **options):
    """Five SGD steps on the batches of one stage: the gradients of the first, and the weights after
    all.
    """
    small_stages(every=100)
    join_world()
    model, processor = start_model(begin["towers"], begin["lm"], 0)
    stage = replace(
        STAGES["tiny"][2],
        batch_size=4,
        visits=1,
        first_share=0,
        tasks=dict(name=1.0, rec=1.0, choose=1.0),
        attention_weight=0.3,
    )
    prepare_stage(model, stage)
    trainer.choose_attention(model, stage)
    sgd, first = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1), {}

    def remember(optimizer, *_):
        first.update(
            first or {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )

    sgd.register_step_pre_hook(remember)
    trainer.StageTrainer(
        model,
        trainer.make_training_arguments(
            stage, folder / f"rank-{rank}", 5, 0, RunOptions(**options)
        ),
        stage=stage,
        train_dataset=trainer.make_stage_data(stage, 20, 0, 3),
        data_collator=Collator(processor, mark_boxes=True),
        optimizers=(sgd, None),
    ).train()
    save_file(first, folder / f"gradients-{rank}.safetensors")
    save_file(
        {n: p.detach().clone() for n, p in model.named_parameters()},
        folder / f"weights-{rank}.safetensors",
    )


def test_two_processes_take_the_steps_of_one(begin, tmp_path):
    """Answers of different length, regions with random points and attention that is watched: a step
    is the same step, divided among processes, taken in parts, or with activations computed
    again.
    """
    for name, size, options in (
        ("one", 1, {}),
        ("two", 2, {}),
        ("parts", 2, dict(at_once=1)),
        ("again", 1, dict(checkpointing=True)),
    ):
        (tmp_path / name).mkdir()
        together(size, partial(five_steps, **options), tmp_path / name, begin)

    def far(kind, name, rank):  # of each tensor's length
        a, b = (
            load_file(tmp_path / "one" / f"{kind}-0.safetensors"),
            load_file(tmp_path / name / f"{kind}-{rank}.safetensors"),
        )
        assert a.keys() == b.keys() and len(a) > 30
        return max(((a[k] - b[k]).norm() / a[k].norm().clamp(min=1e-3)).item() for k in a)

    for name, rank in (("two", 0), ("two", 1), ("parts", 0), ("parts", 1), ("again", 0)):
        for kind in ("gradients", "weights"):
            assert far(kind, name, rank) < 1e-5, (kind, name, rank)
    moved, before = (
        load_file(tmp_path / "two" / "weights-0.safetensors"),
        load_file(begin["lm"] / "model.safetensors"),
    )
    assert not torch.equal(moved["language_model.model.norm.weight"], before["model.norm.weight"])


def whole_run(rank, folder, begin):
    """A run of two processes; the second one counts what it writes, and both what they are told of
    a second run into the same folder.
    """
    small_stages()
    written = []
    for place, name in (
        (runs, "_keep_checkpoint"),
        (training, "write_whole"),
        (FerretForConditionalGeneration, "save_pretrained"),
    ):
        real = getattr(place, name)

        def note(*args, original=real, **kwargs):
            written.append(1)
            return original(*args, **kwargs)

        setattr(place, name, note)
    training.train(out=folder / "run", samples=24, **begin)
    try:
        training.train(out=folder / "run", samples=24, **begin)
    except ValueError as error:
        (folder / f"said-{rank}").write_text(f"{len(written)} {error}")
    try:  # the second process was started with another seed
        training.train(out=folder / "other", samples=24, seed=rank, **begin)
    except ValueError as error:
        (folder / f"seed-{rank}").write_text(str(error))


def test_a_run_of_two_processes_is_written_by_the_first(begin, finished, tmp_path):
    together(2, whole_run, tmp_path, begin)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (
        record["world_size"] == 2
        and record["steps"] == [4, 4, 4]
        and record["done"] == record["stages"]
    )
    (first, told), (second, told_too) = (
        (tmp_path / f"said-{rank}").read_text().split(" ", 1) for rank in (0, 1)
    )
    assert told == told_too and "found a run in it" in told and int(first) > 9 and int(second) == 0
    for rank in (0, 1):
        said = (tmp_path / f"seed-{rank}").read_text()
        assert "seed: found 1 in process 1, expected 0 as in process 0" in said
    assert not (tmp_path / "other").exists()
    a, b = weights(tmp_path / "run"), weights(finished)
    assert (
        a.keys() == b.keys()
        and max((a[k].float() - b[k].float()).abs().max().item() for k in a) < 2e-3
    )  # AdamW makes much of the last bit


def alone(folder):
    small_stages()
    try:
        training.train(out=folder / "run", samples=24)
    except ValueError as error:
        (folder / "said").write_text(str(error))


def test_a_process_that_finds_nobody_does_not_train_alone(tmp_path):
    process = start(alone, tmp_path, WORLD_SIZE=2)
    process.join(60)
    assert (
        "WORLD_SIZE: found 1 process, expected 2" in (tmp_path / "said").read_text()
        and not (tmp_path / "run").exists()
    )


def sharded(rank, folder, begin):
    "One step of a sharded model, and its weights gathered and read again."
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
        set_model_state_dict,
    )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor

    from ferretlite.evaluation.planning import _shard_model

    small_stages()
    join_world()
    mesh, seen = init_device_mesh("cpu", (2,)), {}
    data = trainer.make_stage_data(replace(STAGES["tiny"][2], visits=1, first_share=0), 2, 0, 3)
    for name in ("whole", "sharded"):
        model, processor = start_model(begin["towers"], begin["lm"], 0)
        model.language_model.set_attn_implementation("eager")
        batch = Collator(processor)([data[0], data[1]])
        batch.pop("ids")
        batch.pop("fresh", None)
        if name == "sharded":
            _shard_model(model.eval(), mesh)
            assert all(isinstance(p, DTensor) for p in model.parameters()) and sum(
                p.to_local().numel() for p in model.parameters()
            ) < 0.6 * sum(p.numel() for p in model.parameters())
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        model.eval()(**batch).loss.backward()
        sgd.step()
        seen[name] = (
            get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
            if name == "sharded"
            else {k: v.clone() for k, v in model.state_dict().items()}
        )
    if rank == 0:
        assert seen["whole"].keys() == seen["sharded"].keys()
        for k, v in seen["whole"].items():
            assert torch.allclose(v, seen["sharded"][k], atol=1e-5), k
        save_file(
            {k: v.contiguous().clone() for k, v in seen["sharded"].items()},
            folder / "model.safetensors",
        )
    torch.distributed.barrier()
    again = _shard_model(start_model(begin["towers"], begin["lm"], 5)[0], mesh)
    set_model_state_dict(
        again,
        load_file(folder / "model.safetensors"),
        options=StateDictOptions(full_state_dict=True),
    )
    for (k, a), b in zip(again.named_parameters(), model.parameters()):
        assert torch.equal(a.to_local(), b.to_local()), k


def test_a_sharded_model_learns_as_a_whole_one_and_is_read_again(begin, tmp_path):
    together(2, sharded, tmp_path, begin)
    assert (tmp_path / "model.safetensors").exists()
