"""How a run is carried out: adapters, batches by length, logs, and the files that launch it on many
GPUs.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from transformers import TrainingArguments

from ferretlite.model.loading import load_model
from ferretlite.training.distributed import LengthGroupedDataset, RunOptions, list_adapters
from ferretlite.training.runs import train
from ferretlite.training.stages import STAGES, start_model
from ferretlite.training.trainer import StageTrainer, make_training_arguments

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.fixture
def short(monkeypatch):
    "Stage III alone, eight samples in batches of four."
    monkeypatch.setitem(
        STAGES,
        "tiny",
        (*STAGES["tiny"][:2], replace(STAGES["tiny"][2], batch_size=4, n_turns=3, visits=1)),
    )
    return dict(stage="3", samples=8, progress=False)


def test_through_adapters_the_language_model_moves_by_a_matrix_of_low_rank(short, tmp_path):
    pytest.importorskip("peft")
    out = train(out=tmp_path / "run", options=RunOptions(lora=2, tensorboard=True), **short)
    before, (after, _) = start_model()[0], load_model(out)
    assert before.state_dict().keys() == after.state_dict().keys() and not list_adapters(after)
    changed = [
        n
        for (n, a), b in zip(
            before.language_model.named_parameters(), after.language_model.parameters()
        )
        if not torch.equal(a, b)
    ]
    assert len(changed) > 20 and all(
        ".layers." in n and n.endswith("proj.weight") for n in changed
    )  # no embedding, no norm
    a, b = (m.language_model.model.layers[1].mlp.up_proj.weight.double() for m in (before, after))
    sizes = torch.linalg.svdvals(b - a)
    assert sizes[1] > 0 and sizes[2] < 1e-3 * sizes[0]
    assert not torch.equal(
        before.local_projector[0].weight, after.local_projector[0].weight
    )  # all else learns as ever
    assert json.loads((out / "run.json").read_text())["settings"]["options"] == dict(lora=2)
    with pytest.raises(ValueError, match="expected options="):
        train(out=out, resume=True, **short)
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(out / "logs" / "stage-3"))
    assert "train/loss" in events.Reload().Tags()["scalars"]


def test_a_killed_run_with_adapters_is_resumed_with_them(short, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    step, arguments = StageTrainer.training_step, make_training_arguments

    def often(*args):
        found = arguments(*args)
        found.save_steps, found.dataloader_num_workers, found.dataloader_prefetch_factor = (
            1,
            0,
            None,
        )
        return found

    def dying(self, *args, **kwargs):
        if self.state.global_step == 1:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr("ferretlite.training.trainer.make_training_arguments", often)
    out, options = (
        train(out=tmp_path / "whole", options=RunOptions(lora=2), **short),
        RunOptions(lora=2),
    )
    monkeypatch.setattr(StageTrainer, "training_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(out=tmp_path / "run", options=options, **short)
    monkeypatch.setattr(StageTrainer, "training_step", step)
    train(out=tmp_path / "run", options=options, resume=True, **short)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            load_model(out)[0].parameters(), load_model(tmp_path / "run")[0].parameters()
        )
    )


class Counted(list):
    def length(self, i):
        return self[i]


def test_batches_by_length_hold_every_item_once_and_waste_little():
    dice = torch.Generator().manual_seed(0)
    items = Counted(torch.randint(10, 400, (1000,), generator=dice).tolist())
    grouped = LengthGroupedDataset(items, 16, 8)

    def waste(rows):
        return 1 - sum(map(sum, rows)) / sum(len(r) * max(r) for r in rows)

    rows, plain = (
        [[of[i] for i in range(k, min(k + 16, 1000))] for k in range(0, 1000, 16)]
        for of in (grouped, items)
    )
    assert sorted(sum(rows, [])) == sorted(items) and waste(rows) < 0.12 < 0.4 < waste(plain)
    assert [grouped[i] for i in (3, 900, 3)] == [
        LengthGroupedDataset(items, 16, 8)[i] for i in (3, 900, 3)
    ]  # each item depends on its number alone
    firsts = [max(r) for r in rows]
    assert (
        sum(a > b for a, b in zip(firsts, firsts[1:])) > 15
    )  # short ones do not always come first


def test_a_run_may_group_its_batches_and_slow_its_parts(short, tmp_path):
    out = train(
        out=tmp_path / "run",
        options=RunOptions(group=True, slow=dict(language_model=1e-9), at_once=2),
        **short,
    )
    before, after = (
        start_model()[0].language_model.state_dict(),
        load_model(out)[0].language_model.state_dict(),
    )
    assert all(torch.allclose(before[k], after[k], atol=1e-6) for k in before)


def test_wrong_options_get_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="learning rate for 'tower'"):
        train(out=tmp_path / "run", samples=4, options=RunOptions(slow=dict(tower=0.1)))
    for options, says in (
        (dict(fsdp="nowhere.json"), "nowhere.json: found no file"),
        (
            dict(fsdp=str(CONFIGS / "fsdp.json"), deepspeed=str(CONFIGS / "zero2.json")),
            "expected one of them",
        ),
    ):
        with pytest.raises(ValueError, match=says):
            RunOptions(**options)
    with pytest.raises(ValueError, match="found 16 samples a step, expected a multiple of 5"):
        make_training_arguments(STAGES["tiny"][2], tmp_path, 1, 0, RunOptions(at_once=5))
    monkeypatch.setattr("ferretlite.training.trainer.read_world", lambda: (0, 3))
    with pytest.raises(ValueError, match="since 3 processes compute 5 at once"):
        make_training_arguments(STAGES["tiny"][2], tmp_path, 1, 0)


# Files for many GPUs


def test_fsdp_settings_are_understood(tmp_path):
    found = make_training_arguments(
        STAGES["tiny"][2], tmp_path, 1, 0, RunOptions(fsdp=str(CONFIGS / "fsdp.json"))
    )
    plugin = found.fsdp_plugin_args
    assert (
        plugin["fsdp_version"] == 2
        and plugin["reshard_after_forward"]
        and plugin["activation_checkpointing"]
        and plugin["state_dict_type"] == "FULL_STATE_DICT"
    )
    unknown = set(json.loads((CONFIGS / "fsdp.json").read_text())) - set(found.fsdp_config)
    documented = TrainingArguments.__doc__
    assert not unknown and all(
        f"- {k} (" in documented for k in json.loads((CONFIGS / "fsdp.json").read_text())
    )


def test_layers_to_shard_are_those_the_model_has(random_model, griffon_model):
    assert set(random_model[0]._no_split_modules) == {
        "CLIPEncoderLayer",
        "Dinov2Layer",
        "LlamaDecoderLayer",
    }
    assert set(griffon_model[0]._no_split_modules) == {"CLIPEncoderLayer", "LlamaDecoderLayer"}


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_deepspeed_settings_leave_to_the_trainer_what_it_knows(name):
    from accelerate.utils.deepspeed import HfDeepSpeedConfig

    config = HfDeepSpeedConfig(str(CONFIGS / f"{name}.json"))
    assert config.is_zero3() == (name == "zero3") and config.get_value(
        "train_micro_batch_size_per_gpu"
    ) == "auto" == config.get_value("gradient_clipping")


@pytest.mark.parametrize("name", ["accelerate-ddp", "accelerate-fsdp"])
def test_accelerate_reads_its_files(name):
    from accelerate.commands.config.config_args import load_config_from_file

    config, given = (
        load_config_from_file(str(CONFIGS / f"{name}.yaml")),
        yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()),
    )
    assert (
        config.num_processes == 8
        and config.mixed_precision == "bf16"
        and (config.fsdp_config or {}) == given.get("fsdp_config", {})
    )


# Data that lie in files


def test_a_run_on_files_of_every_format_is_resumed_as_the_same_run(short, tmp_path, monkeypatch):
    from ferretlite.data.recipes import export_tree
    from ferretlite.scenes.world import make_scene

    mixture = export_tree(lambda: (make_scene(s, 128) for s in range(8)), tmp_path / "tree")
    stages = json.loads(mixture.read_text())["stages"]
    assert "3" in stages and len({p["format"] for p in stages["3"]}) > 4
    asked, step = [], StageTrainer.training_step

    def noting(self, model, inputs, *args, **kwargs):
        asked.append(list(inputs["ids"]))
        return step(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(StageTrainer, "training_step", noting)
    out = train(out=tmp_path / "run", data=mixture, **short)
    assert len(asked) == 2 and {i.split("/")[0] for batch in asked for i in batch} <= {
        p["name"] for p in stages["3"]
    }
    assert json.loads((out / "run.json").read_text())["settings"]["data"] == str(mixture)
    with pytest.raises(ValueError, match="expected data="):
        train(out=out, resume=True, **short)
    with pytest.raises(FileNotFoundError, match="nowhere.json: found no file"):
        train(out=tmp_path / "other", data="nowhere.json", **short)
    assert not (tmp_path / "other").exists()
