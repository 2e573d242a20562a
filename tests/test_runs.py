"Many processes, options, adapters and checkpoints: each rule with numbers, in one process."

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from transformers import Trainer

from ferretlite.common.errors import InputError
from ferretlite.training import distributed as runs
from ferretlite.training.distributed import (
    LengthGroupedDataset,
    RunOptions,
    SteadyTrainer,
    _keep_checkpoint,
    add_adapters,
    count_data_workers,
    decide_once,
    join_world,
    list_adapters,
    merge_adapters,
    newest_checkpoint,
    read_world,
    write_manifest,
)


class Lengths(list):
    "Items that are their own lengths."

    def length(self, i):
        return self[i]


# Batches of similar length


def test_windows_are_sorted_and_their_batches_shuffled():
    "Windows of two batches of three; the last batch of the last window is not full."
    items = Lengths([60, 10, 50, 20, 40, 30, 6, 5, 4, 3, 2, 1, 9, 7, 8, 11])
    found = LengthGroupedDataset(items, 3, 2)
    assert found.window == 6 and len(found) == 16
    windows = [found.order_window(n) for n in range(3)]
    assert [set(w) for w in windows] == [set(range(6)), set(range(6, 12)), set(range(12, 16))]
    batches = [[1, 3, 5], [4, 2, 0]]  # by length: 10, 20, 30 and 40, 50, 60
    assert windows[0] in (batches[0] + batches[1], batches[1] + batches[0])
    assert windows[2] == [13, 14, 12, 15]  # 7, 8, 9 and then what is left
    assert [found[i] for i in range(6)] == [items[k] for k in windows[0]]
    assert [found[i] for i in (6, 11)] == [items[windows[1][0]], items[windows[1][5]]]
    assert found[15] == 11
    for seed in range(6):  # what is left stays the last, wherever the full batches go
        assert LengthGroupedDataset(items, 3, 6, seed).order_window(0)[-1] == 0


def test_by_default_a_window_has_eight_batches():
    found = LengthGroupedDataset(Lengths(range(100)), 4)
    assert (found.window, found.seed) == (32, 0)


def test_the_order_of_batches_depends_on_seed_and_window():
    items = Lengths(range(400))
    one, same, other = (LengthGroupedDataset(items, 5, 8, seed) for seed in (1, 1, 2))
    orders = [[i - 40 * n for i in one.order_window(n)] for n in range(10)]
    assert len({tuple(o) for o in orders}) > 5  # windows differ
    assert [one.order_window(n) for n in range(10)] == [same.order_window(n) for n in range(10)]
    assert [one.order_window(n) for n in range(10)] != [other.order_window(n) for n in range(10)]
    assert all(sorted(o) == list(range(40)) for o in orders)


def test_a_dataset_without_lengths_is_measured_by_its_words():
    "Questions and answers count, of every turn: 3 + 2 + 1 + 4 letters."
    turns = [SimpleNamespace(prompt="abc", answer="de"), SimpleNamespace(prompt="f", answer="ghij")]
    items = [SimpleNamespace(turns=turns), SimpleNamespace(turns=turns[:1])]
    found = LengthGroupedDataset(items, 1, 2)
    assert [found.length(0), found.length(1)] == [10, 5]
    assert LengthGroupedDataset(items, 2, 1).order_window(0) == [1, 0]


# Processes


@pytest.mark.parametrize(
    "cores, processes, cuda, room, workers",
    [
        (1, 1, False, 0, 1),
        (2, 1, False, 0, 1),
        (4, 1, False, 0, 2),
        (16, 1, False, 0, 2),
        (8, 4, False, 0, 1),
        (64, 1, True, 100, 12),
        (13, 1, True, 12, 12),
        (12, 1, True, 100, 6),
        (64, 1, True, 5, 4),
        (4, 1, True, 100, 3),
        (64, 16, True, 100, 3),
        (2, 1, True, 100, 1),
        (64, 1, True, 0, 1),
    ],
)
def test_how_many_processes_draw(monkeypatch, cores, processes, cuda, room, workers):
    "`room` counts quarters of a gigabyte (2 ** 28 bytes) in /dev/shm."
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    space = SimpleNamespace(f_bavail=room * 2**18 + 100, f_frsize=2**10, f_blocks=2**40)
    monkeypatch.setattr(os, "statvfs", lambda path: space)
    assert count_data_workers() == workers


def test_without_shared_memory_and_without_a_launcher(monkeypatch):
    "Nothing says how much room there is, how many cores, or how many processes."
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert count_data_workers() == 12
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count_data_workers() == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert count_data_workers() == 1


def test_alone_a_process_is_the_first_of_one(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert read_world() == (0, 1) == join_world()
    for size in ("1", ""):
        monkeypatch.setenv("WORLD_SIZE", size)
        assert join_world() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="WORLD_SIZE: found 1 process, expected 3"):
        join_world()


def test_among_several_a_process_is_what_torch_says(monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 2)
    monkeypatch.setattr(dist, "get_world_size", lambda: 5)
    assert read_world() == (2, 5)


def test_the_first_process_decides_for_all(monkeypatch):
    sent = []

    def broadcast(held, source):
        sent.append((list(held), source))
        if held[0] is None:
            held[0] = message

    monkeypatch.setattr(dist, "broadcast_object_list", broadcast)
    assert decide_once(lambda: 7) == 7 and sent == []  # alone
    monkeypatch.setattr(runs, "read_world", lambda: (0, 2))
    assert decide_once(lambda: 8) == 8 and sent == [([(8, None)], 0)]
    with pytest.raises(KeyError):
        decide_once(lambda: {}["x"])
    assert isinstance(sent[-1][0][0][1], KeyError)  # the others hear of it
    monkeypatch.setattr(runs, "read_world", lambda: (1, 2))
    message = (9, None)
    assert decide_once(lambda: pytest.fail("asked a second one")) == 9
    message = (None, OSError("no room"))
    with pytest.raises(OSError, match="no room"):
        decide_once(lambda: 1)


def test_one_process_waits_for_nobody(monkeypatch):
    waited = []
    monkeypatch.setattr(dist, "barrier", lambda: waited.append(1))
    runs.wait_for_all()
    assert waited == []
    monkeypatch.setattr(runs, "read_world", lambda: (1, 2))
    runs.wait_for_all()
    assert waited == [1]


# Options


def test_options_by_default_change_nothing():
    found = RunOptions()
    assert (found.at_once, found.checkpointing, found.lora, found.slow) == (None, False, 0, {})
    assert (found.group, found.tensorboard, found.fsdp, found.deepspeed) == (False,) * 2 + (
        None,
    ) * 2
    assert found.list_result_options() == {}


def test_options_that_change_what_is_learned_are_recorded(tmp_path):
    file = tmp_path / "x.json"
    file.touch()
    options = RunOptions(4, True, 8, dict(sampler=0.5), True, True, str(file))
    assert options.list_result_options() == dict(lora=8, slow=dict(sampler=0.5), group=True)
    assert RunOptions(deepspeed=str(file)).list_result_options() == {}


def test_files_of_options_are_there(tmp_path):
    file = tmp_path / "x.json"
    file.touch()
    with pytest.raises(ValueError, match="expected one of them"):
        RunOptions(fsdp=str(file), deepspeed=str(file))
    for name, example in (("fsdp", "configs/fsdp.json"), ("deepspeed", "configs/zero2.json")):
        with pytest.raises(ValueError, match=f"{tmp_path}/y.json: found no file.*{example}"):
            RunOptions(**{name: str(tmp_path / "y.json")})
        with pytest.raises(ValueError, match="no file"):
            RunOptions(**{name: str(tmp_path)})  # a folder


# Adapters


def test_adapters_stand_beside_every_matrix_of_a_layer(random_model):
    "The update is twice B A: alpha is twice the rank, whatever the rank."
    pytest.importorskip("peft")
    model, _ = random_model
    before = {n: p.clone() for n, p in model.language_model.named_parameters()}
    ids = torch.arange(10, 20)[None]
    with torch.no_grad():
        plain = model.language_model(ids).logits
        add_adapters(model, 3)
        assert torch.equal(model.language_model(ids).logits, plain)
    matrices = [n for n in before if n.endswith("proj.weight")]
    assert len(matrices) == 2 * 7 and len(list_adapters(model)) == 2 * len(matrices)
    names = {n: p for n, p in model.language_model.named_parameters() if ".lora_" in n}
    assert {id(p) for p in list_adapters(model)} == {id(p) for p in names.values()}
    assert {min(p.shape) for p in names.values()} == {3}
    torch.manual_seed(1)
    with torch.no_grad():
        for p in names.values():
            p.copy_(torch.randn_like(p))
    expected = {}
    for name in matrices:
        layer = name.removesuffix(".weight")
        a, b = (names[f"{layer}.lora_{x}.default.weight"].detach() for x in "AB")
        expected[name] = before[name] + 2 * b @ a
    merge_adapters(model)
    after = dict(model.language_model.named_parameters())
    assert after.keys() == before.keys() and list_adapters(model) == []
    for name, p in after.items():
        assert torch.allclose(p, expected.get(name, before[name]), atol=1e-4), name


def test_adapters_begin_by_their_seed(random_model):
    pytest.importorskip("peft")
    import copy

    model, _ = random_model
    found = []
    for noise, seed in ((1, 5), (2, 5), (3, 6)):
        other = copy.deepcopy(model)
        torch.manual_seed(noise)
        add_adapters(other, 2, seed)
        found.append(torch.cat([p.flatten() for p in list_adapters(other)]))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


# Checkpoints


def make(place, *numbers):
    for n in numbers:
        (place / f"checkpoint-{n}").mkdir(parents=True)
        write_manifest(place / f"checkpoint-{n}")


def steps(place):
    return sorted(int(p.name.split("-")[1]) for p in place.glob("checkpoint-*"))


@pytest.mark.parametrize(
    "limit, left", [(1, [120]), (2, [100, 120]), (3, [90, 100, 120]), (None, [9, 90, 100, 120])]
)
def test_the_newest_whole_checkpoints_stay(tmp_path, limit, left):
    "By number and not by name: 90 is older than 100. What is not whole does not count."
    make(tmp_path, 9, 90, 100)
    (tmp_path / "checkpoint-110").mkdir()
    written = tmp_path / "part" / "checkpoint-120"
    written.mkdir(parents=True)
    (written / "weights").write_text("new")
    _keep_checkpoint(tmp_path, "checkpoint-120", limit)
    whole = [n for n in steps(tmp_path) if (tmp_path / f"checkpoint-{n}" / "COMPLETE").exists()]
    assert whole == left
    assert (tmp_path / "checkpoint-110").exists() and not (tmp_path / "part").exists()
    assert (tmp_path / "checkpoint-120" / "weights").read_text() == "new"
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-120")


def test_a_checkpoint_that_was_not_finished_is_not_the_newest(tmp_path):
    make(tmp_path, 9, 100)
    (tmp_path / "checkpoint-110").mkdir()
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_a_checkpoint_replaces_one_of_the_same_step(tmp_path):
    make(tmp_path, 20)
    (tmp_path / "checkpoint-20" / "old").touch()
    (tmp_path / "part" / "checkpoint-20").mkdir(parents=True)
    _keep_checkpoint(tmp_path, "checkpoint-20", 2)
    assert {p.name for p in (tmp_path / "checkpoint-20").iterdir()} == {"COMPLETE"}


@pytest.fixture
def saving(monkeypatch, tmp_path):
    "A trainer at step 30 whose weights are a file; what transformers does can be made to fail."
    make(tmp_path, 9, 10, 20)
    trainer, fails = SteadyTrainer.__new__(SteadyTrainer), []
    trainer.args = SimpleNamespace(output_dir=str(tmp_path), should_save=True, save_total_limit=2)
    trainer.state = SimpleNamespace(
        global_step=30, best_global_step=None, best_model_checkpoint=None
    )

    def save(self, model, trial):
        folder = Path(self._get_output_dir(trial)) / "checkpoint-30"
        folder.mkdir(parents=True)
        (folder / "weights").write_text("new")
        if fails:
            raise fails[0]

    monkeypatch.setattr(Trainer, "_save_checkpoint", save)
    return trainer, fails


def test_a_checkpoint_is_written_beside_and_the_oldest_go(saving, tmp_path):
    trainer, _ = saving
    (tmp_path / "part" / "checkpoint-25").mkdir(parents=True)  # of a process that was killed
    trainer._save_checkpoint(None, None)
    assert steps(tmp_path) == [20, 30] and not (tmp_path / "part").exists()
    assert (tmp_path / "checkpoint-30" / "weights").read_text() == "new"
    assert trainer._get_output_dir(None) == str(tmp_path) and trainer.writing is False
    trainer.args.should_save, trainer.state.global_step = False, 40
    shutil.rmtree(tmp_path / "checkpoint-30")
    trainer._save_checkpoint(None, None)  # another process keeps what was written
    assert steps(tmp_path) == [20] and (tmp_path / "part" / "checkpoint-30").exists()


@pytest.mark.parametrize("error", [OSError("No space"), RuntimeError("No  space")])
def test_a_checkpoint_that_fails_costs_no_other(saving, tmp_path, error):
    trainer, fails = saving
    fails.append(error)
    with pytest.raises(OSError, match=r"checkpoint-30 could not be written \(No space\)"):
        trainer._save_checkpoint(None, None)
    assert steps(tmp_path) == [9, 10, 20] and not (tmp_path / "part").exists()
    assert trainer.writing is False
    fails[0] = KeyError("ours")  # a mistake of ours is not dressed up
    with pytest.raises(KeyError):
        trainer._save_checkpoint(None, None)


def test_weights_are_saved_and_read_by_their_names_in_memory(tmp_path):
    "Strictly: a checkpoint of another model is refused."
    from safetensors.torch import load_file

    trainer = SteadyTrainer.__new__(SteadyTrainer)
    trainer.is_fsdp_enabled = trainer.is_deepspeed_enabled = False
    trainer.args = SimpleNamespace(should_save=True)
    trainer.model = torch.nn.Linear(2, 3)
    assert not trainer.is_sharded()
    trainer._save(str(tmp_path / "new" / "c"))
    stored = load_file(tmp_path / "new" / "c" / "model.safetensors")
    assert torch.equal(stored["weight"], trainer.model.weight) and set(stored) == {"weight", "bias"}
    other = torch.nn.Linear(2, 3)
    trainer._load_from_checkpoint(str(tmp_path / "new" / "c"), other)
    assert torch.equal(other.weight, trainer.model.weight)
    trainer.model = torch.nn.Linear(2, 3)
    trainer._load_from_checkpoint(str(tmp_path / "new" / "c"))
    assert torch.equal(other.weight, trainer.model.weight)
    with pytest.raises(InputError, match='found other weights .*"bias".*, expected those'):
        trainer._load_from_checkpoint(
            str(tmp_path / "new" / "c"), torch.nn.Linear(2, 3, bias=False)
        )
    trainer.is_fsdp_enabled = True
    assert trainer.is_sharded()
    trainer.args.should_save = trainer.is_fsdp_enabled = False
    trainer._save(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_samples_come_in_order(tmp_path):
    trainer = SteadyTrainer.__new__(SteadyTrainer)
    trainer.train_dataset = list(range(7))
    assert list(trainer._get_train_sampler()) == list(range(7))
