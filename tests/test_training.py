"Training: what moves in which stage, and that a stopped run goes on as if nothing had happened."

import copy
import json
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ferretlite.common import devices
from ferretlite.common.errors import FerretliteWarning
from ferretlite.common.files import WEIGHTS
from ferretlite.data.batches import Collator
from ferretlite.model.configuration import FerretConfig
from ferretlite.model.loading import load_model
from ferretlite.model.towers import paper_config
from ferretlite.training import runs as training
from ferretlite.training import speed
from ferretlite.training.alignment import align_projectors
from ferretlite.training.distributed import RunOptions, newest_checkpoint, write_manifest
from ferretlite.training.runs import _select_stages, _warn_of_size, train
from ferretlite.training.speed import (
    can_compile,
    measure_seconds_per_sample,
    measure_seconds_per_scene,
    plan_minutes,
    plan_steps,
)
from ferretlite.training.stages import (
    _GRIFFON_STAGES,
    _TINY_GRIFFON_STAGES,
    FERRET_PARTS,
    FERRET_STAGES,
    GRIFFON_PARTS,
    STAGES,
    TINY_STAGES,
    copy_projector,
    make_parameter_groups,
    make_stage_processor,
    prepare_stage,
    start_model,
)
from ferretlite.training.trainer import (
    StageTrainer,
    make_stage_data,
    make_training_arguments,
)


@pytest.fixture
def two_threads():
    "As on a user's machine: with more than one thread, sums may come out in another order."
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def make_small(patch):
    "Batches of two, a checkpoint every second step, six scenes to align with."
    small = dict(batch_size=2, share=1 / 3, n_turns=2, scenes=6)
    patch.setitem(STAGES, "tiny", tuple(replace(s, **small) for s in TINY_STAGES))
    arguments = make_training_arguments

    def often(*args):
        found = arguments(*args)
        (
            found.save_steps,
            found.logging_steps,
            found.dataloader_num_workers,
            found.dataloader_prefetch_factor,
        ) = 2, 1, 0, None
        return found

    patch.setattr("ferretlite.training.trainer.make_training_arguments", often)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    make_small(monkeypatch)


class Killed(Exception):
    "The machine went down."


def die_at(monkeypatch, stage, step):
    "Stop the run in the middle of a step, as a kill would."
    original = StageTrainer.training_step

    def step_or_die(self, *args, **kwargs):
        if self.stage.name.split()[0] == stage and self.state.global_step == step:
            raise Killed
        return original(self, *args, **kwargs)

    monkeypatch.setattr(StageTrainer, "training_step", step_or_die)
    return lambda: monkeypatch.setattr(StageTrainer, "training_step", original)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def same_runs(one, two):
    "Do two runs have the same weights and the same log, bit for bit?"
    logs = [json.loads((out / "run.json").read_text())["log"] for out in (one, two)]
    weights = [load_model(out)[0].state_dict() for out in (one, two)]
    return same(*weights) and logs[0] == logs[1]


@pytest.fixture(scope="module")
def finished(begin, tmp_path_factory):
    "One run that nobody interrupted: 4 steps of 2 samples in each of three stages."
    out = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        train(out=out, samples=24, **begin)
    return out


# Stages

STARTS = {s.name.split()[0]: s for s in FERRET_STAGES}
MOVES = {
    "I": {"global_projector", "visual_position"},
    "II": {"global_projector", "local_projector", "visual_position", "sampler"},
    "III": set(FERRET_PARTS),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_stage_changes_exactly_its_parts(random_model, name):
    model, processor = random_model
    stage = replace(
        STARTS[name],
        batch_size=4,
        tasks=dict(dense_referring=1.0, caption=1.0) if name == "III" else STARTS[name].tasks,
    )
    prepare_stage(model, stage)
    before = copy.deepcopy(model.state_dict())
    data = make_stage_data(stage, 4, 0, 1)
    batch = Collator(make_stage_processor(processor, stage))([data[i] for i in range(4)])
    batch.pop("ids")
    model.train()(**batch).loss.backward()
    torch.optim.AdamW(
        [{k: v for k, v in g.items() if k != "name"} for g in make_parameter_groups(model, stage)]
    ).step()
    ids = {id(p): part for part, params in model.parts().items() for p in params}
    for key, p in model.named_parameters():
        assert (not torch.equal(p, before[key])) == (ids.get(id(p)) in MOVES[name]), key


def test_stages_say_what_the_paper_says():
    one, two, three = FERRET_STAGES
    assert (
        set(one.trains) == MOVES["I"]
        and one.resolution == "fixed"
        and set(one.tasks) == {"caption"}
    )
    assert set(two.trains) == MOVES["II"] and set(two.tasks) == {
        "dense_referring",
        "dense_detection",
    }
    assert set(three.trains) == MOVES["III"] and one.share < two.share < three.share


def test_the_tiny_preset_keeps_its_towers_and_begins_with_names(begin, finished):
    before, after = (
        start_model(begin["towers"], begin["lm"], 0)[0].parts(),
        load_model(finished)[0].parts(),
    )
    for name in FERRET_PARTS:
        moved = not all(torch.equal(a, b) for a, b in zip(before[name], after[name]))
        assert moved == (not name.endswith("tower")), name
    data = make_stage_data(replace(TINY_STAGES[2], first_share=0.5), 8, 0, 3)
    assert all({t.task for t in data[i].turns} == {"name"} for i in range(4)) and any(
        t.task != "name" for i in range(4, 8) for t in data[i].turns
    )


def test_alignment_moves_projectors_towards_the_things(begin):
    devices.use_deterministic_sums()
    model, processor = start_model(begin["towers"], begin["lm"], 0)
    before = copy.deepcopy(model.state_dict())
    log = align_projectors(model, processor, ("local_projector",), n=2, steps=60)
    moved = {
        key.split(".")[0]
        for key, value in model.state_dict().items()
        if not torch.equal(value, before[key])
    }
    assert (
        moved == {"local_projector", "visual_position"} and log[-1][1] < log[0][1] - 0.1
    )  # random towers have little to say
    again, _ = start_model(begin["towers"], begin["lm"], 0)
    torch.manual_seed(5)
    align_projectors(again, processor, ("local_projector",), n=2, steps=60)
    assert same(model.state_dict(), again.state_dict())  # by its own dice


def test_stage_one_leaves_the_local_projector_as_it_was(begin, finished):
    before, after = (
        start_model(begin["towers"], begin["lm"], 0)[0],
        load_model(finished / "stage-1")[0],
    )
    assert torch.equal(
        before.local_projector[0].weight, after.local_projector[0].weight
    ) and not torch.equal(before.global_projector[0].weight, after.global_projector[0].weight)


def test_maps_that_were_kept_give_the_loss_of_the_pixels(random_model):
    model, processor = random_model
    stage = replace(TINY_STAGES[2], batch_size=3, visits=2)
    data, collate = make_stage_data(stage, 6, 0, 3), Collator(processor)
    pixels = collate([make_stage_data(replace(stage, visits=1), 6, 0, 3)[i] for i in range(3)])
    trainer = StageTrainer.__new__(StageTrainer)
    trainer.model, trainer.kept = model.eval(), {}
    losses = []
    for places in (
        (0, 1, 2),
        (3, 1, 5),
        (0, 1, 2),
    ):  # pictures 0-2, then all of them again without their pixels
        batch = collate([data[i] for i in places])
        ids = batch.pop("ids")
        if losses:
            assert batch["fresh"] == [] and len(batch["global_pixels"]) == 0
        trainer.keep_maps(batch, ids)
        with torch.no_grad():
            losses.append(model(**batch).loss.item())
    pixels.pop("ids")
    with torch.no_grad():
        truth = model(**pixels).loss.item()
    assert (
        losses[0] == losses[2] == pytest.approx(truth, rel=2e-2) and len(trainer.kept) == 3
    )  # kept in bfloat16


def test_a_long_stage_shows_one_set_of_pictures_after_another_and_keeps_the_maps_of_one(
    random_model, monkeypatch
):
    monkeypatch.setattr("ferretlite.training.trainer._MOST_PICTURES", 3)
    model, processor = random_model
    data, collate = (
        make_stage_data(replace(TINY_STAGES[2], visits=2), 13, 0, 3),
        Collator(processor),
    )  # 13 visits: two sets of three, the last one until the end
    ids = [data[i].id for i in range(13)]
    assert (
        len(set(ids)) == 6 and ids[:3] == ids[3:6] and ids[6:9] == ids[9:12] and ids[12] == ids[6]
    )
    trainer, data = (
        StageTrainer.__new__(StageTrainer),
        make_stage_data(replace(TINY_STAGES[2], visits=2), 13, 0, 3),
    )
    trainer.model, trainer.kept = model.eval(), {}
    for first in (0, 3, 6, 9):
        batch = collate([data[i] for i in range(first, first + 3)])
        trainer.keep_maps(batch, batch.pop("ids"))
        assert list(trainer.kept) == ids[first : first + 3] and len(batch["tower_maps"][0]) == 3


def test_a_stage_that_looks_listens_more_to_the_right_patches(begin, tmp_path):
    model, processor = start_model(begin["towers"], begin["lm"], 0)
    stage = replace(TINY_STAGES[2], batch_size=4, visits=1, tasks=dict(rec=1.0), first_share=0)
    model.language_model.set_attn_implementation("eager")
    prepare_stage(model, stage)
    batch = Collator(processor, mark_boxes=True)(
        [make_stage_data(stage, 8, 0, 3)[i] for i in range(4)]
    )
    batch.pop("ids")
    trainer = StageTrainer(model, make_training_arguments(stage, tmp_path, 1, 0), stage=stage)

    def loss_at(look):
        trainer.stage = replace(stage, attention_weight=look)
        return trainer.compute_loss(
            model, {k: v for k, v in batch.items() if look or k not in ("names", "writes", "shows")}
        )

    def listens():
        with torch.no_grad():
            return (loss_at(1.0) - loss_at(0.0)).item()

    before, optimizer = (
        listens(),
        torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3),
    )
    for _ in range(12):
        optimizer.zero_grad()
        loss_at(1.0).backward()
        optimizer.step()
    assert before > 1 and listens() < before - 0.5


def test_the_local_projector_starts_stage_two_as_a_copy(begin, tmp_path, monkeypatch):
    seen = []

    def look(model, processor, stage, *args):
        parts = model.global_projector.parameters(), model.local_projector.parameters()
        seen.append(all(torch.equal(a, b) for a, b in zip(*parts)))
        with torch.no_grad():
            model.global_projector[0].weight += 1  # what the stage has learned
        return [], SimpleNamespace(is_sharded=lambda: False)

    monkeypatch.setattr(training, "run_stage", look)
    train(out=tmp_path / "run", samples=12, **begin)
    assert seen == [False, True, False]


def test_projectors_of_other_widths_are_left_alone(random_model):
    model, _ = random_model
    model.local_projector[0] = torch.nn.Linear(48, 64)
    before = model.local_projector[2].weight.clone()
    copy_projector(model)
    assert torch.equal(before, model.local_projector[2].weight)


def test_a_stage_with_a_part_nobody_has_is_refused(random_model):
    with pytest.raises(ValueError, match="found 'crop_encoder' to be trained"):
        prepare_stage(random_model[0], replace(FERRET_STAGES[0], trains=("crop_encoder",)))


def test_pictures_come_back_only_behind_frozen_towers(random_model):
    with pytest.raises(ValueError, match="kept maps would be out of date"):
        prepare_stage(random_model[0], replace(FERRET_STAGES[2], visits=4))


def test_learning_rates_per_part_and_no_decay_on_norms(random_model):
    model, _ = random_model
    stage = replace(FERRET_STAGES[2], slow=dict(language_model=0.5))
    prepare_stage(model, stage)
    groups = make_parameter_groups(model, stage)
    assert {g["name"]: g["lr"] / stage.lr for g in groups} == {
        n: stage.slow.get(n, 1.0) for n in FERRET_PARTS
    }
    assert all((g["weight_decay"] > 0) == all(p.ndim > 1 for p in g["params"]) for g in groups)
    assert sum(len(g["params"]) for g in groups) == sum(p.requires_grad for p in model.parameters())


def test_stage_one_sees_the_whole_image_alone(random_model):
    model, processor = random_model
    assert make_stage_processor(processor, FERRET_STAGES[0]).config.choose_image_grid(
        (192, 192)
    ) == (0, 0)
    assert (
        processor.config.choose_image_grid((192, 192))
        == (2, 2)
        == model.config.choose_image_grid((192, 192))
    )


def test_stages_and_seeds_share_no_scene():
    starts = sorted(
        make_stage_data(s, 10, seed, n).scenes.seed
        for seed in range(3)
        for n, s in enumerate(FERRET_STAGES, 1)
    )
    assert min(b - a for a, b in zip(starts, starts[1:])) >= 10**7


# Runs


def test_start_model_brings_towers_and_language_model(begin):
    model, _ = start_model(begin["towers"], begin["lm"], 0)

    assert same(
        dict(model.global_tower.state_dict()),
        dict(type(model.global_tower).from_pretrained(begin["towers"] / "global").state_dict()),
    )
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    again, _ = start_model(begin["towers"], begin["lm"], 0)
    other, _ = start_model(begin["towers"], begin["lm"], 1)
    assert same(model.state_dict(), again.state_dict()) and not torch.equal(
        model.local_projector[0].weight, other.local_projector[0].weight
    )


def test_a_run_leaves_a_model_a_record_and_a_picture(finished):
    model, processor = load_model(finished)
    run = json.loads((finished / "run.json").read_text())
    assert run["done"] == run["stages"] == [s.name for s in FERRET_STAGES] and run["steps"] == [
        4,
        4,
        4,
    ]
    assert all(len(log) == 4 for log in run["log"].values()) and run["settings"]["samples"] == 24
    assert (finished / "loss.png").stat().st_size > 5000 and not list(finished.rglob("*.part"))
    assert (
        same(model.state_dict(), load_model(finished / "stage-3")[0].state_dict())
        and processor.config.resolution == "anyres"
    )


def test_a_killed_and_resumed_run_ends_bit_for_bit_as_one_that_was_not(begin, finished, tmp_path):
    "Three kills in one run; tests/test_checkpoints.py has many more."
    out = tmp_path / "run"
    for stage, step in (("I", 0), ("II", 3), ("III", 1)):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            die_at(patch, stage, step)
            train(out=out, samples=24, resume=True, **begin)
        torch.manual_seed(99)  # what happened in between does not matter
    train(out=out, samples=24, resume=True, **begin)
    assert same_runs(out, finished)


def test_two_threads_end_bit_for_bit_too(finished, tmp_path, monkeypatch, two_threads):
    options = dict(stage="2", samples=8, from_model=finished, progress=False)
    train(out=tmp_path / "whole", **options)
    revive = die_at(monkeypatch, "II", 3)
    with pytest.raises(Killed):
        train(out=tmp_path / "killed", **options)
    revive()
    train(out=tmp_path / "killed", resume=True, **options)
    assert same_runs(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_a_compiled_run_learns_like_a_plain_one_and_resumes_bit_for_bit(
    finished, tmp_path, monkeypatch
):
    if not can_compile():
        pytest.skip("torch.compile does not work here")
    options = dict(stage="2", samples=16, from_model=finished, progress=False)
    options |= dict(options=RunOptions(dtype="float32"))
    train(out=tmp_path / "plain", **options)
    options |= dict(compile=True)
    train(out=tmp_path / "whole", **options)
    plain, whole = (
        json.loads((tmp_path / name / "run.json").read_text()) for name in ("plain", "whole")
    )
    assert (plain["machine"]["compile"], whole["machine"]["compile"]) == (False, True)
    for name, log in plain["log"].items():
        losses = [[loss for _, loss in found] for found in (log, whole["log"][name])]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    torch._dynamo.reset()  # as in a new process
    revive = die_at(monkeypatch, "II", 3)
    with pytest.raises(Killed):
        train(out=tmp_path / "killed", **options)
    revive()
    torch._dynamo.reset()
    train(out=tmp_path / "killed", resume=True, **options)
    assert same_runs(tmp_path / "whole", tmp_path / "killed")


def test_a_checkpoint_without_its_mark_is_passed_over(tmp_path):
    for n in (20, 100, 120):
        (tmp_path / f"checkpoint-{n}").mkdir()
    assert newest_checkpoint(tmp_path) is None and newest_checkpoint(tmp_path / "absent") is None
    for n in (20, 100):
        write_manifest(tmp_path / f"checkpoint-{n}")
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")


def test_a_folder_that_holds_a_run_is_refused(begin, finished):
    with pytest.raises(
        ValueError, match="found a run in it, .*; choose another folder, or add --resume"
    ):
        train(out=finished, samples=24, **begin)
    with pytest.raises(ValueError, match="expected samples=24"):
        train(out=finished, samples=30, resume=True, **begin)
    with pytest.raises(ValueError, match="expected seed=0"):
        train(out=finished, samples=24, seed=1, resume=True, **begin)


def test_wrong_orders_get_one_sentence_and_no_folder(begin, tmp_path):
    for options, says in [
        (dict(preset="giant"), "preset: found 'giant'"),
        (dict(stage="4"), "stage: found '4'"),
        (dict(samples=None), "samples and minutes: found neither"),
    ]:
        with pytest.raises(ValueError, match=says):
            train(**{**dict(out=tmp_path / "run", samples=8), **options}, **begin)
    assert not (tmp_path / "run").exists()


def test_a_preset_of_another_size_than_its_model_is_said():
    tiny = FerretConfig.from_pretrained(WEIGHTS / "tiny")
    with pytest.warns(FerretliteWarning, match="of width 192, expected that of the preset small"):
        _warn_of_size(tiny, "small")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _warn_of_size(tiny, "tiny-wide")
        _warn_of_size(paper_config("small"), "small")


def test_one_stage_from_another_model(finished, tmp_path):
    train(out=tmp_path / "run", stage="1", samples=4, from_model=finished, progress=False)
    before, after = load_model(finished)[0], load_model(tmp_path / "run")[0]
    assert torch.equal(
        before.local_projector[0].weight, after.local_projector[0].weight
    ) and not torch.equal(before.global_projector[0].weight, after.global_projector[0].weight)
    assert _select_stages("tiny", 2) == [1] and _select_stages("tiny", "all") == [0, 1, 2]


def test_minutes_become_steps_once_and_are_saved(begin, tmp_path, monkeypatch):
    monkeypatch.setattr(
        speed, "measure_seconds_per_sample", lambda model, processor, stage, seed: 6.0
    )  # 10 samples a minute
    monkeypatch.setattr(
        speed,
        "measure_seconds_per_scene",
        lambda model, processor, stage, seed: 3.0 * bool(stage.align),
    )
    revive = die_at(monkeypatch, "II", 0)
    with pytest.raises(Killed):
        train(out=tmp_path / "run", minutes=1.0, **begin)
    revive()
    planned = json.loads((tmp_path / "run" / "run.json").read_text())
    assert planned["steps"] == [
        1,
        1,
        1,
    ]  # 0.6 minutes less a third are four samples: one step each at least
    assert (
        1 <= planned["scenes"][0] <= planned["scenes"][1] <= 4
    )  # a third of 0.6 minutes, three seconds a scene: four in all
    for name in ("measure_seconds_per_sample", "measure_seconds_per_scene"):
        monkeypatch.setattr(speed, name, lambda *args: pytest.fail("measured twice"))
    train(out=tmp_path / "run", minutes=1.0, resume=True, **begin)
    again = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (again["steps"], again["scenes"]) == (planned["steps"], planned["scenes"])


def test_plan_splits_samples_and_minutes_by_share():
    stages = [replace(FERRET_STAGES[0], share=s, batch_size=10) for s in (0.1, 0.9)]
    assert plan_steps(stages, 1000) == [10, 90] and plan_steps(stages, 1) == [1, 1]
    assert plan_minutes(stages, 19.0, [1.0, 2.0], [0.0, 0.0])[0] == [
        6,
        54,
    ]  # 0.1 * 1 + 0.9 * 2 = 1.9 seconds a sample: 600 samples
    for minutes in (0.1, 3, 40, 4000):
        steps, scenes = plan_minutes(TINY_STAGES, minutes, [0.1, 0.2, 0.3], [0.2, 0.4, 0])
        spent = [
            sum(a * b for a, b in zip(*pair))
            for pair in [(scenes, [0.2, 0.4, 0]), ([16 * n for n in steps], [0.1, 0.2, 0.3])]
        ]
        assert spent[0] <= 0.36 * minutes * 60 + 0.6 and all(
            n <= s.scenes for n, s in zip(scenes, TINY_STAGES)
        )
        if minutes > 1:
            assert sum(spent) == pytest.approx(minutes * 60, rel=0.12)  # to half a step per stage


def test_measuring_leaves_the_model_alone(random_model):
    model, processor = random_model
    before = copy.deepcopy(model.state_dict())
    assert measure_seconds_per_sample(model, processor, STAGES["tiny"][0], 0, n=1) > 0
    assert (
        measure_seconds_per_scene(model, processor, STAGES["tiny"][1], 0, n=1)
        > 0
        == measure_seconds_per_scene(model, processor, STAGES["tiny"][2], 0)
    )
    assert same(before, model.state_dict()) and all(p.grad is None for p in model.parameters())


def test_a_loss_that_is_no_number_names_its_records(begin, tmp_path, monkeypatch):
    def poisoned(*args):
        model, processor = start_model(*args)
        with torch.no_grad():
            model.global_projector[0].weight.fill_(float("nan"))
        return model, processor

    monkeypatch.setattr(training, "start_model", poisoned)
    with pytest.raises(
        ValueError,
        match="step 0: found the loss nan in the batch of train-10000000, train-10000001",
    ):
        train(out=tmp_path / "run", samples=12, **begin)


# Other configurations, other presets


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_a_changed_configuration_is_trained_recorded_and_not_resumed_as_another(
    begin, tmp_path, fit
):
    "Its first stage shows the fixed view, which is smaller than the model's own and never padded."
    config = dict(resolution="direct", local_tower=None, fit=fit)
    out = train(out=tmp_path / "run", samples=12, config=config, **begin)
    model, _ = load_model(out)
    assert (
        model.config.resolution == "direct"
        and model.local_tower is None
        and model.local_projector is None
    )
    assert json.loads((out / "run.json").read_text())["settings"]["config"] == config
    with pytest.raises(ValueError, match="expected config="):
        train(out=out, samples=12, resume=True, **begin)
    with pytest.raises(ValueError, match="config beside from_model"):
        train(out=tmp_path / "other", samples=12, config=dict(fit="pad"), from_model=out)


def test_towers_may_go_on_learning_slowly(begin, tmp_path, monkeypatch):
    stages = STAGES["tiny-unfrozen"]
    assert (
        set(stages[-1].trains) == set(FERRET_PARTS)
        and stages[-1].visits == 1
        and stages[-1].slow["local_tower"] < 1
    )
    small = dict(batch_size=2, share=1 / 3, n_turns=2, scenes=6)
    monkeypatch.setitem(STAGES, "tiny-unfrozen", tuple(replace(s, **small) for s in stages))
    out = train("tiny-unfrozen", out=tmp_path / "run", samples=12, **begin)
    before, after = load_model(out / "stage-2")[0].parts(), load_model(out)[0].parts()
    for name in ("global_tower", "local_tower"):
        assert any(not torch.equal(a, b) for a, b in zip(before[name], after[name])), name


@pytest.fixture
def small_griffon(monkeypatch):
    monkeypatch.setitem(
        STAGES,
        "tiny-griffon",
        tuple(
            replace(s, batch_size=2, share=1 / 3, n_turns=3, scenes=6) for s in _TINY_GRIFFON_STAGES
        ),
    )


def test_griffons_stages_are_the_papers():
    one, two, three = _GRIFFON_STAGES
    assert one.trains == ("global_projector", "visual_position") and set(one.tasks) == {"caption"}
    assert set(two.trains) == set(GRIFFON_PARTS) and set(three.trains) == set(GRIFFON_PARTS) - {
        "global_tower"
    }
    assert not any("crop_tower" in s.trains for s in _GRIFFON_STAGES) and {
        "search",
        "find",
        "find_set",
    } <= set(two.tasks)
    assert all("global_tower" not in s.trains for s in _TINY_GRIFFON_STAGES)


def test_griffon_is_put_together_of_the_same_parts(begin):
    model, processor = start_model(begin["towers"], begin["lm"], 0, preset="tiny-griffon")
    ferret = start_model(begin["towers"], begin["lm"], 0)[0]

    def alike(a, b):
        return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))

    assert (
        alike(model.global_tower, ferret.local_tower)
        and alike(model.crop_tokenizer.tower, ferret.global_tower)
        and model.local_tower is None
    )
    old, new = (m.get_input_embeddings().weight for m in (ferret, model))
    assert (
        len(new) == len(old) + 1 == len(processor.tokenizer)
        and torch.equal(new[:-1], old)
        and model.config.crop_token_id == len(old)
    )
    side = 2 * ferret.config.local_tower.image_size
    assert model.config.views()["global"][0] == (side, side) and model.config.style == "griffon"


def test_griffons_whole_road_and_a_resumed_one(begin, small_griffon, tmp_path, monkeypatch):
    out = train("tiny-griffon", out=tmp_path / "whole", samples=12, **begin)
    begun = start_model(begin["towers"], begin["lm"], 0, preset="tiny-griffon")[0]
    models = [begun, *(load_model(out / f"stage-{n}")[0] for n in (1, 2, 3))]
    for n, (before, after) in enumerate(zip(models, models[1:])):
        moved = {
            name
            for name, params in after.parts().items()
            if any(not torch.equal(a, b) for a, b in zip(before.parts()[name], params))
        }
        assert moved == set(_TINY_GRIFFON_STAGES[n].trains), _TINY_GRIFFON_STAGES[n].name
        assert all(
            torch.equal(a, b)
            for a, b in zip(
                begun.crop_tokenizer.tower.parameters(), after.crop_tokenizer.tower.parameters()
            )
        )
    revive = die_at(monkeypatch, "II", 1)
    with pytest.raises(Killed):
        train("tiny-griffon", out=tmp_path / "killed", samples=12, **begin)
    revive()
    train("tiny-griffon", out=tmp_path / "killed", samples=12, resume=True, **begin)
    assert same(load_model(out)[0].state_dict(), load_model(tmp_path / "killed")[0].state_dict())


def test_a_projector_that_joins_cells_is_aligned_on_whole_views(begin):
    model, processor = start_model(begin["towers"], begin["lm"], 0, preset="tiny-griffon")
    log = align_projectors(model, processor, ("global_projector",), n=4, steps=30)
    losses = [loss for _, loss in log]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_minutes_are_planned_for_pictures_in_questions_too(begin, small_griffon):
    model, processor = start_model(begin["towers"], begin["lm"], 0, preset="tiny-griffon")
    assert measure_seconds_per_sample(model, processor, STAGES["tiny-griffon"][1], 0, n=1) > 0
