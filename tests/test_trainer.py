"Trainers, plans and measurements in numbers: what a step, a stage and a run are told, without a run."

import copy
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState

from ferretlite import trainer, training, training_speed
from ferretlite.data import Collator, Revisited
from ferretlite.language import tiny_llama_config
from ferretlite.model import FerretConfig, FerretForConditionalGeneration
from ferretlite.processor import FerretProcessor
from ferretlite.runs import ByLength, Options
from ferretlite.stages import Stage, prepare_stage
from ferretlite.tasks import make_conversation
from ferretlite.trainer import (
    MOST_PICTURES,
    StageTrainer,
    Watch,
    carried_out,
    choose_attention,
    fitting_steps,
    run_stage,
    stage_arguments,
    stage_data,
    stage_trainer,
    used_projectors,
)
from ferretlite.training import (
    begin_run,
    chosen_stages,
    draw_losses,
    next_stage,
    open_run,
    plan_run,
    save_model,
    save_record,
    told_data,
    train,
)
from ferretlite.training_speed import (
    Meter,
    bench_lines,
    bench_train,
    carry_gradients,
    cut_graph,
    matmul_peak,
    measured_step,
    measured_steps,
    plan_minutes,
    plan_steps,
    seconds_per_sample,
    seconds_per_scene,
)

PLAIN = Stage("II plain", ("sampler", "language_model"), dict(rec=1.0, name=1.0), 2, n_turns=3)


class Bar:
    "A progress bar that only adds up."

    def __init__(self):
        self.n, self.text = 0, ""

    def update(self, n):
        self.n += n

    def set_postfix_str(self, text):
        self.text = text


# Data of a stage


def test_a_stages_scenes_begin_at_a_number_of_its_own():
    "Seed 3, stage 2: the scenes from 320 million on."
    data = stage_data(PLAIN, 5, 3, 2)
    assert len(data) == 5 and data.scenes.seed == 320_000_000
    assert data.scenes[1].id == "train-320000001"


def test_a_stages_questions_depend_on_its_seed_and_tasks():
    stage = replace(PLAIN, first=dict(count=1.0), first_share=0.2, others=dict(count=1.0))
    data = stage_data(stage, 5, 7, 2)
    for i, tasks in ((0, dict(count=1.0)), (1, stage.tasks)):
        scene = data.scenes[i]
        assert scene.split == "count"
        expected = make_conversation(scene, tasks, random.Random(f"7-{i}"), 3)
        assert [t.prompt for t in data[i].turns] == [t.prompt for t in expected.turns]
        assert 1 <= len(data[i].turns) <= 3


def test_pictures_that_come_back_fill_the_samples():
    "Thirteen samples of two visits: seven pictures, then six of them again."
    data = stage_data(replace(PLAIN, visits=2, others=dict(count=1.0)), 13, 0, 1)
    assert isinstance(data.scenes, Revisited) and len(data) == 13
    ids = [data.scenes[i].id for i in range(13)]
    assert len(set(ids)) == 7 and ids[:6] == ids[7:] and ids[0] == "count-10000000"
    assert len(stage_data(PLAIN, 13, 0, 1).scenes) == 13


@pytest.mark.parametrize(
    "samples, sets, kept",
    [
        (4000, 1, 1000),
        (19968, 1, 4992),
        (19968 + 9980, 1, 4992),
        (19968 + 9988, 2, 4992),
        (72000, 4, 4992),
    ],
)
def test_how_many_pictures_are_kept_at_a_time(samples, sets, kept):
    "4992 pictures of four visits are 19,968 samples; sets are rounded to the nearest whole."
    assert MOST_PICTURES == 4992
    scenes = stage_data(replace(PLAIN, visits=4), samples, 0, 1).scenes
    assert (scenes.at_once, len(scenes.scenes), scenes.rounds) == (kept, sets * kept, 4)


# Settings of transformers' Trainer


def test_settings_of_a_stage(tmp_path):
    stage = replace(PLAIN, lr=7e-4)
    found = stage_arguments(stage, tmp_path, 1200, 11)
    assert Path(found.output_dir) == tmp_path and found.max_steps == 1200 and found.seed == 11
    assert (found.per_device_train_batch_size, found.gradient_accumulation_steps) == (16, 1)
    assert found.learning_rate == 7e-4 and found.lr_scheduler_type == "cosine"
    assert found.max_grad_norm == 1.0 and found.save_total_limit == 2
    assert (found.warmup_steps, found.logging_steps, found.save_steps) == (100, 25, 100)
    assert found.remove_unused_columns is False and found.logging_nan_inf_filter is False
    assert found.ddp_find_unused_parameters is False and found.disable_tqdm
    assert not found.activation_checkpointing and found.dataloader_prefetch_factor == 3
    assert found.save_strategy == "steps" and found.report_to == []
    assert found.n_gpu == min(1, torch.cuda.device_count())


@pytest.mark.parametrize(
    "steps, warmup, logging, saving",
    [(1, 1, 1, 20), (25, 2, 6, 20), (101, 10, 25, 20), (480, 48, 25, 40), (9000, 100, 25, 750)],
)
def test_warmup_reports_and_saves_follow_the_steps(tmp_path, steps, warmup, logging, saving):
    "A tenth of the steps, at most 100; a quarter, at most 25; a twelfth, at least 20."
    found = stage_arguments(PLAIN, tmp_path, steps, 0)
    assert (found.warmup_steps, found.logging_steps, found.save_steps) == (warmup, logging, saving)


@pytest.mark.parametrize(
    "size, at_once, each, parts", [(1, None, 16, 1), (1, 4, 4, 4), (2, None, 8, 1), (2, 2, 2, 4)]
)
def test_a_step_is_divided_among_processes_and_parts(
    tmp_path, monkeypatch, size, at_once, each, parts
):
    monkeypatch.setattr(trainer, "world", lambda: (0, size))
    found = stage_arguments(PLAIN, tmp_path, 8, 0, Options(at_once=at_once, checkpointing=True))
    held = found.per_device_train_batch_size, found.gradient_accumulation_steps
    assert held == (each, parts) and found.activation_checkpointing
    assert found.ddp_find_unused_parameters == (size > 1)
    with pytest.raises(ValueError, match="expected a multiple of"):
        stage_arguments(PLAIN, tmp_path, 8, 0, Options(at_once=32))


@pytest.mark.parametrize("fast", [True, False])
def test_half_precision_follows_the_machine(tmp_path, monkeypatch, fast):
    context = torch.autocast("cpu", torch.bfloat16, enabled=fast)
    monkeypatch.setattr(trainer, "autocast", lambda: context)
    found = stage_arguments(PLAIN, tmp_path, 8, 0)
    assert found.bf16 is fast and found.use_cpu is (not torch.cuda.is_available())


def stepping(model, stage, out, **options):
    "A trainer of a stage that has no data."
    return StageTrainer(model, stage_arguments(stage, out, 4, 0, Options(**options)), stage=stage)


def test_the_optimiser_has_the_stages_rates(random_model, tmp_path):
    model, _ = random_model
    stage = replace(PLAIN, lr=2e-3, slow=dict(language_model=0.5))
    prepare_stage(model, stage)
    optimizer = stepping(model, stage, tmp_path).create_optimizer()
    assert isinstance(optimizer, torch.optim.AdamW)
    assert all(g["betas"] == (0.9, 0.98) for g in optimizer.param_groups)
    held = sorted((g["lr"], g["weight_decay"]) for g in optimizer.param_groups)
    assert held == [(1e-3, 0.0), (1e-3, 0.01), (2e-3, 0.0), (2e-3, 0.01)]


# Losses of a step


def test_a_parts_share_of_the_words_that_are_written():
    "Two of ten are written here; three processes average their gradients: 3 · 2 / 10."
    here = torch.tensor([[0, -1, 3]])
    half = StageTrainer.__new__(StageTrainer)
    half.args, half.written = SimpleNamespace(world_size=3), {}
    assert half.fair_share("names", here) == 1.0
    half.written = dict(names=torch.tensor(10.0), writes=torch.tensor(0.0))
    assert float(half.fair_share("names", here)) == pytest.approx(0.6)
    assert float(half.fair_share("writes", torch.tensor([[-1, -1]]))) == 0.0


@pytest.fixture
def watched(parts):
    "A model of three layers with four heads, and a batch that says which patches show what."
    clip, dino, _, tokenizer = copy.deepcopy(parts)
    torch.manual_seed(0)
    image, region = tokenizer.convert_tokens_to_ids(["<image>", "<region_fea>"])
    config = FerretConfig(
        global_tower=clip,
        local_tower=dino,
        text_config=tiny_llama_config(tokenizer, 128, 3),
        sampler=dict(n_points=16, n_centers=[4, 2], n_neighbors=[4, 2]),
        image_token_id=image,
        region_token_id=region,
    )
    model = FerretForConditionalGeneration(config).eval()
    assert model.config.text_config.num_attention_heads == 4
    with torch.no_grad():  # attention that differs from layer to layer and from head to head
        for name, p in model.language_model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                p.mul_(10)
    model.language_model.set_attn_implementation("eager")
    stage = replace(PLAIN, look=0.4, batch_size=3, tasks=dict(rec=1.0, name=1.0))
    data = stage_data(stage, 3, 0, 1)
    batch = Collator(FerretProcessor(config, tokenizer), look=True)([data[i] for i in range(3)])
    batch.pop("ids")
    return model, stage, batch


def listened(attention, written, shows):
    "Mean over heads and tokens of -log of the attention on the patches of what is written of."
    found = []
    for row, at in (written >= 0).nonzero().tolist():
        patches = shows[written[row, at]]
        for head in range(3):
            seen = attention[row, head, at][patches].sum().clamp(min=1e-6)
            found.append(-seen.log())
    return torch.stack(found).mean()


def test_the_supervised_look_in_numbers(watched, tmp_path):
    "Cross-entropy plus .4 times the look of names and of boxes, at the last layer but one."
    model, stage, batch = watched
    steps = stepping(model, stage, tmp_path)
    with torch.no_grad():
        loss = steps.compute_loss(model, dict(batch))
        plain = {k: v for k, v in batch.items() if k not in ("names", "writes", "shows")}
        out = model(**plain, output_attentions=True)
        attention = out.attentions[-2].float()
        names, writes = (listened(attention, batch[k], batch["shows"]) for k in ("names", "writes"))
        both = steps.compute_loss(model, dict(batch), return_outputs=True)
        steps.stage = replace(stage, look=0.0)
        without = steps.compute_loss(model, plain)
    assert names > 0.5 and abs(names - writes) > 1e-4
    assert without.item() == pytest.approx(out.loss.item(), rel=1e-4)
    assert loss.item() == pytest.approx((out.loss + 0.4 * (names + writes)).item(), rel=1e-3)
    assert both[0].item() == pytest.approx(loss.item(), rel=1e-5) and len(both[1].attentions) == 3


def test_a_steps_written_words_are_counted_over_its_parts(random_model, tmp_path):
    model, _ = random_model
    parts = [
        dict(
            labels=torch.tensor([[1, 2, -100]]),
            names=torch.tensor([[0, -1, 2]]),
            writes=torch.tensor([[-1, -1, 1]]),
        ),
        dict(
            labels=torch.tensor([[3, -100, -100]]),
            names=torch.tensor([[4, 4, 0]]),
            writes=torch.tensor([[-1, 0, 0]]),
        ),
    ]
    device = torch.device("cpu")
    halves = stepping(model, replace(PLAIN, look=0.3, batch_size=2), tmp_path, at_once=1)
    batches, _ = halves.get_batch_samples(iter(parts), 2, device)
    assert len(batches) == 2
    assert {k: float(v) for k, v in halves.written.items()} == dict(names=5.0, writes=3.0)
    for stage, at_once in (
        (replace(PLAIN, look=0.0, batch_size=2), 1),
        (replace(PLAIN, look=0.3), 16),
    ):
        other = stepping(model, stage, tmp_path, at_once=at_once)
        other.get_batch_samples(iter(parts), 2, device)
        assert other.written == {}


def test_randomness_of_a_step_depends_on_seed_and_step_alone(random_model, tmp_path, monkeypatch):
    model, _ = random_model
    steps = stepping(model, replace(PLAIN, batch_size=2), tmp_path)
    steps.args.seed, steps.state.global_step = 7, 5
    monkeypatch.setattr(Trainer, "training_step", lambda *args, **kwargs: torch.rand(1))
    drawn = steps.training_step(model, dict(ids=["a", "b"]))
    torch.manual_seed(7 * 1_000_003 + 5)
    assert torch.equal(drawn, torch.rand(1))
    monkeypatch.setattr(Trainer, "training_step", lambda *a, **k: torch.tensor(float("inf")))
    with pytest.raises(ValueError, match="inf at step 5, in the batch of a, b"):
        steps.training_step(model, dict(ids=["a", "b"]))


def test_maps_are_kept_only_where_pictures_come_back(random_model, tmp_path, monkeypatch):
    model, _ = random_model
    kept = []
    monkeypatch.setattr(StageTrainer, "keep_maps", lambda self, inputs, ids: kept.append(ids))
    monkeypatch.setattr(Trainer, "training_step", lambda *args, **kwargs: torch.zeros(()))
    for visits in (1, 2):
        steps = stepping(model, replace(PLAIN, visits=visits), tmp_path)
        steps.training_step(model, dict(ids=[visits]))
    assert kept == [[2]]


# A stage


def test_the_bar_counts_samples_and_shows_the_loss():
    bar = Bar()
    watch = Watch(bar, 16, "II high-resolution")
    for _ in range(3):
        watch.on_step_end(None, TrainerState(), TrainerControl())
    watch.on_log(None, TrainerState(), TrainerControl(), dict(loss=1.23456))
    watch.on_log(None, TrainerState(), TrainerControl(), dict(train_runtime=3.0))
    watch.on_log(None, TrainerState(), TrainerControl())
    assert bar.n == 48 and bar.text == "stage II, loss 1.235"


@pytest.mark.parametrize(
    "look, cuda, kind", [(0.3, True, "eager"), (0.0, True, "sdpa"), (0.0, False, "eager")]
)
def test_attention_is_plain_where_it_is_read_and_on_every_cpu(
    random_model, monkeypatch, look, cuda, kind
):
    model, _ = random_model
    model.language_model.set_attn_implementation("sdpa")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    choose_attention(model, replace(PLAIN, look=look))
    assert model.language_model.config._attn_implementation == kind


def test_three_steps_a_scene_align_and_six_thousand_at_most():
    assert [fitting_steps(n) for n in (1, 300, 1999, 2000, 2001)] == [3, 900, 5997, 6000, 6000]


def test_without_tiles_the_local_projector_is_not_aligned(random_model):
    _, processor = random_model
    stage = replace(PLAIN, align=("global_projector", "local_projector"))
    assert used_projectors(processor, stage) == ("global_projector", "local_projector")
    processor.config.resolution = "fixed"
    assert used_projectors(processor, stage) == ("global_projector",)


def test_pictures_come_once_where_maps_cannot_be_kept():
    stage = replace(PLAIN, visits=4, slow=dict(sampler=0.5, language_model=0.2))
    slower = carried_out(stage, Options(slow=dict(language_model=0.1, global_tower=0.3)))
    assert slower.slow == dict(sampler=0.5, language_model=0.1, global_tower=0.3)
    assert slower.visits == 4 == carried_out(stage, Options(lora=4)).visits
    config = str(Path(__file__).parent.parent / "configs" / "fsdp.json")
    for options in (Options(group=True), Options(fsdp=config), Options(deepspeed=config)):
        assert carried_out(stage, options).visits == 1
    assert carried_out(stage, Options(), from_files=True).visits == 1


def test_a_stages_trainer_collates_at_the_stages_resolution(random_model, tmp_path):
    model, processor = random_model
    bar = Bar()
    stage = replace(PLAIN, resolution="fixed", look=0.3)
    made = stage_trainer(model, processor, stage, tmp_path, 3, 5, 2, bar)
    assert made.data_collator.most == 288 and made.data_collator.look is True
    assert made.data_collator.processor.config.resolution == "fixed"
    assert len(made.train_dataset) == 48 and made.train_dataset.scenes.seed == 520_000_000
    assert made.args.max_steps == 3 and made.args.seed == 5
    watches = [c for c in made.callback_handler.callbacks if isinstance(c, Watch)]
    assert [(w.bar, w.batch_size, w.name) for w in watches] == [(bar, 16, "II plain")]
    assert not any(isinstance(c, PrinterCallback) for c in made.callback_handler.callbacks)
    order = list(made._get_train_sampler())
    assert order == list(range(48))  # samples come in order
    grouped = stage_trainer(
        model, processor, PLAIN, tmp_path, 3, 5, 2, bar, Options(group=True), ["a"] * 40
    )
    assert isinstance(grouped.train_dataset, ByLength) and grouped.data_collator.most is None
    held = grouped.train_dataset
    assert (held.batch_size, held.window, held.seed) == (16, 128, 5)
    assert grouped.data_collator.look is False


@pytest.fixture
def noted(monkeypatch):
    "What a stage does around its training, by name."
    seen = {}

    def note(name, found=None):
        def call(*args, **kwargs):
            seen[name] = args[2:]
            return found

        monkeypatch.setattr(trainer, name, call)

    def train(resume_from_checkpoint):
        seen["resumed"] = resume_from_checkpoint

    history = [dict(step=1, loss=2.5), dict(step=2, train_runtime=3.0), dict(step=2, loss=1.5)]
    made = SimpleNamespace(train=train, state=SimpleNamespace(log_history=history))
    note("align_projectors")
    note("prepare_stage")
    note("stage_trainer", made)
    return seen


def test_a_stage_aligns_its_projectors_first(random_model, noted, tmp_path):
    model, processor = random_model
    bar = Bar()
    stage = replace(PLAIN, align=("global_projector",), scenes=40)
    log, _ = run_stage(model, processor, stage, tmp_path, 9, 3, 2, bar, True)
    assert noted["align_projectors"] == (("global_projector",), 40, 30_000, 120)
    assert noted["stage_trainer"][1:5] == (tmp_path, 9, 3, 2)
    assert noted["resumed"] is None and bar.n == 0
    assert log == [(1, 2.5), (2, 1.5)]


def test_a_resumed_stage_goes_on_from_its_checkpoint(random_model, noted, tmp_path):
    model, processor = random_model
    bar = Bar()
    (tmp_path / "checkpoint-60").mkdir()
    (tmp_path / "checkpoint-60" / "COMPLETE").touch()
    stage = replace(PLAIN, align=("global_projector",))
    run_stage(model, processor, stage, tmp_path, 90, 3, 2, bar, resume=True)
    assert "align_projectors" not in noted and bar.n == 60 * 16
    assert noted["resumed"] == str(tmp_path / "checkpoint-60")
    noted.clear()
    run_stage(model, processor, stage, tmp_path, 90, 3, 2, Bar(), resume=False)
    assert noted["resumed"] is None and "align_projectors" in noted


@pytest.mark.parametrize("lora, trains, added", [(2, PLAIN.trains, True), (2, ("sampler",), False)])
def test_adapters_are_added_where_the_language_model_learns(
    random_model, noted, tmp_path, monkeypatch, lora, trains, added
):
    model, processor = random_model
    seen = []
    monkeypatch.setattr(trainer, "add_adapters", lambda *args: seen.append(args[1:]))
    monkeypatch.setattr(trainer, "merge_adapters", lambda model: seen.append("merged"))
    stage = replace(PLAIN, trains=trains)
    run_stage(model, processor, stage, tmp_path, 9, 3, 2, Bar(), options=Options(lora=lora))
    assert seen == ([(2, 32), "merged"] if added else [])


@pytest.mark.parametrize("wanted", [True, False])
def test_the_language_model_is_compiled_where_that_was_asked_for(
    random_model, noted, tmp_path, monkeypatch, wanted
):
    model, processor = random_model
    asked = []
    monkeypatch.setattr(
        type(model.language_model), "compile", lambda self, **options: asked.append(options)
    )
    run_stage(model, processor, PLAIN, tmp_path, 9, 3, 2, Bar(), compile=wanted)
    assert asked == [dict(dynamic=True)] * wanted


def test_data_from_files_are_shown_once_and_whole(random_model, noted, tmp_path):
    model, processor = random_model
    stage = replace(PLAIN, visits=4)
    options = Options(slow=dict(sampler=0.5))
    run_stage(model, processor, stage, tmp_path, 9, 3, 2, Bar(), options=options, data="files")
    told, *_, given, data = noted["stage_trainer"]
    assert (told.visits, told.slow, given, data) == (1, dict(sampler=0.5), options, "files")
    assert noted["prepare_stage"] == ()
    run_stage(model, processor, stage, tmp_path, 9, 3, 2, Bar())
    assert noted["stage_trainer"][0].visits == 4


def test_logs_go_beside_the_stages_folders(random_model, tmp_path, monkeypatch):
    "out/stage-2/checkpoints is written to, and out/logs/stage-2 by the first process alone."
    model, processor = random_model
    asked = []
    callback = TrainerCallback()
    monkeypatch.setattr(trainer, "board", lambda folder: asked.append(folder) or callback)
    place, options = tmp_path / "stage-2" / "checkpoints", Options(tensorboard=True)
    made = stage_trainer(model, processor, PLAIN, place, 3, 5, 2, Bar(), options)
    assert asked == [tmp_path / "logs" / "stage-2"]
    assert callback in made.callback_handler.callbacks
    stage_trainer(model, processor, PLAIN, place, 3, 5, 2, Bar())
    monkeypatch.setattr(trainer, "world", lambda: (1, 2))
    stage_trainer(model, processor, PLAIN, place, 3, 5, 2, Bar(), options)
    assert len(asked) == 1


# A run


def test_which_stages_are_meant():
    assert chosen_stages("tiny", "all") == [0, 1, 2] and chosen_stages("tiny", "3") == [2]
    for stage in ("0", "4", "I"):
        with pytest.raises(ValueError, match="Unknown stage"):
            chosen_stages("tiny", stage)


SETTINGS = dict(
    preset="tiny",
    stage="all",
    seed=0,
    samples=24,
    minutes=None,
    from_model=None,
    lm=None,
    compile=False,
    config=None,
    options={},
    data=None,
)


def write_run(folder, **changes):
    record = folder / "run.json"
    record.write_text(json.dumps(dict(settings={**SETTINGS, **changes}, steps=[1])))
    return record


@pytest.mark.parametrize(
    "name, value",
    [
        ("preset", "small"),
        ("stage", "1"),
        ("seed", 1),
        ("samples", 30),
        ("minutes", 2.0),
        ("from_model", "m"),
        ("lm", "words"),
        ("compile", True),
        ("config", dict(merge=2)),
        ("options", dict(lora=2)),
        ("data", "mixture.json"),
    ],
)
def test_a_run_goes_on_only_under_its_settings(tmp_path, name, value):
    record = write_run(tmp_path)
    assert open_run(record, SETTINGS, True)["steps"] == [1]
    with pytest.raises(ValueError, match=f"was started with {name}="):
        open_run(record, {**SETTINGS, name: value}, True)
    if name != "minutes":  # without minutes a run keeps those it was started with
        with pytest.raises(ValueError, match=f"was started with {name}="):
            open_run(write_run(tmp_path, **{name: value}), SETTINGS, True)


def test_a_resumed_run_need_not_say_how_long_it_is(tmp_path):
    record = write_run(tmp_path, minutes=3.0)
    assert open_run(record, {**SETTINGS, "samples": None, "minutes": None}, True)
    with pytest.raises(ValueError, match="already holds a run"):
        open_run(record, SETTINGS, False)
    old = tmp_path / "old.json"
    fewer = {k: v for k, v in SETTINGS.items() if k not in ("lm", "data", "options")}
    old.write_text(json.dumps(dict(settings=fewer)))  # as older versions wrote it
    assert open_run(old, SETTINGS, True)
    new = tmp_path / "new" / "run.json"
    assert open_run(new, SETTINGS, False) is None
    assert open_run(new, {**SETTINGS, "samples": None, "minutes": 1.0}, False) is None
    with pytest.raises(ValueError, match="Neither samples nor minutes"):
        open_run(new, {**SETTINGS, "samples": None}, False)


def shared(*parts):
    "Stages with these shares, batch sizes and scenes."
    return [replace(PLAIN, share=s, batch_size=b, scenes=n) for s, b, n in parts]


def test_a_short_run_aligns_on_three_scenes_a_sample():
    "64 samples of shares 1 and 3: one step of 16 and three; 48 and 144 scenes at most."
    stages = shared((1, 16, 300), (3, 16, 100))
    assert plan_run(None, None, stages, 0, samples=64) == ([1, 3], [48, 100])


@pytest.mark.parametrize("minutes, left", [(10, 7.5), (100, 77.7), (0.4, 0.1)])
def test_a_run_by_minutes_leaves_time_to_draw_and_to_save(monkeypatch, minutes, left):
    ".78 of the minutes, less .3 and the time that measuring took; a tenth at least."
    monkeypatch.setattr(
        training, "seconds_per_sample", lambda m, p, stage, seed: stage.share + seed
    )
    monkeypatch.setattr(training, "seconds_per_scene", lambda m, p, stage, seed: 10 * stage.share)
    seen = []
    monkeypatch.setattr(training, "plan_minutes", lambda *args: seen.append(args) or "planned")
    stages = shared((1, 16, 300), (3, 16, 100))
    assert plan_run(None, None, stages, 5, minutes=minutes) == "planned"
    ((asked, found, seconds, scenes),) = seen
    assert asked == stages and (seconds, scenes) == ([6, 8], [10, 30])
    assert found == pytest.approx(left, abs=1e-3)


def test_the_time_that_measuring_took_is_taken_off(monkeypatch):
    "Ten minutes, of which 90 seconds went by: .78 · 10 - 1.5 - .3 = 6."
    monkeypatch.setattr(training, "seconds_per_sample", lambda *args: 1.0)
    monkeypatch.setattr(training, "seconds_per_scene", lambda *args: 1.0)
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=Clock(100.0, 190.0)))
    monkeypatch.setattr(training, "plan_minutes", lambda stages, left, *args: left)
    assert plan_run(None, None, [PLAIN], 0, minutes=10) == pytest.approx(6.0)


def test_a_runs_record_says_what_where_and_how_long(monkeypatch):
    run = begin_run(None, None, shared((1, 16, 300)), SETTINGS)
    assert (run["steps"], run["scenes"], run["stages"]) == ([2], [96], ["II plain"])
    assert (run["done"], run["log"], run["seconds"], run["world_size"]) == ([], {}, 0.0, 1)
    assert run["settings"] == SETTINGS
    assert run["machine"]["torch"] == torch.__version__
    assert run["machine"]["threads"] == torch.get_num_threads()


def test_only_the_first_process_writes(random_model, tmp_path, monkeypatch):
    model, processor = random_model
    save_record(tmp_path / "run.json", dict(a=1))
    assert (tmp_path / "run.json").read_text() == '{\n "a": 1\n}\n'
    save_model(model, processor, tmp_path / "model", half=True)
    assert next(model.parameters()).dtype == torch.float32
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["dtype"] == "float16" and (tmp_path / "model" / "tokenizer.json").exists()
    monkeypatch.setattr(training, "world", lambda: (1, 2))
    monkeypatch.setattr(training, "wait_for_all", lambda: None)
    save_record(tmp_path / "second.json", {})
    save_model(model, processor, tmp_path / "second")
    assert not (tmp_path / "second.json").exists() and not (tmp_path / "second").exists()


def test_a_gathered_state_is_saved_instead_of_the_models(random_model, tmp_path):
    from safetensors.torch import load_file

    model, processor = random_model
    weights = {k: v + 1 for k, v in model.state_dict().items() if v.is_floating_point()}
    save_model(model, processor, tmp_path, weights=weights)
    found = load_file(tmp_path / "model.safetensors")["global_projector.0.bias"]
    assert torch.allclose(found, model.global_projector[0].bias + 1)


def test_losses_are_drawn_one_stage_behind_the_other(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **kwargs: drawn.append((self, path)))
    run = dict(stages=["I", "II", "III"], steps=[10, 20, 5])
    draw_losses({**run, "log": dict(I=[(5, 3.0), (10, 2.0)], III=[(4, 1.0)])}, tmp_path / "x")
    ((figure, path),) = drawn
    axis = figure.axes[0]
    lines = {l.get_label(): (list(l.get_xdata()), list(l.get_ydata())) for l in axis.lines}
    assert lines == dict(I=([5, 10], [3.0, 2.0]), II=([], []), III=([34], [1.0]))
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("step", "loss") and axis.get_ylim()[0] == 0
    assert path == tmp_path / "x"


def test_a_mixtures_stages_are_counted_from_one(random_model, monkeypatch):
    _, processor = random_model
    seen = []
    monkeypatch.setattr(training, "read_recipe", lambda data: f"recipe of {data}")
    monkeypatch.setattr(training, "mixture_dataset", lambda *args: seen.append(args) or "told")
    assert told_data("m.json", "tiny", 7, 0, 48, processor) == "told"
    assert told_data(None, "tiny", 7, 0, 48, processor) is None
    ((recipe, number, samples, seed, told),) = seen
    assert (recipe, number, samples, seed) == ("recipe of m.json", 1, 48, 7)
    assert told.config.resolution == "fixed"  # stage I shows the whole view alone


def test_a_stage_that_is_done_is_read_and_counted(random_model, tmp_path, monkeypatch):
    model, processor = random_model
    asked = []
    monkeypatch.setattr(training, "load_model", lambda folder: asked.append(folder) or (model, 1))
    bar = Bar()
    run = dict(done=["II plain"])
    found = next_stage(None, None, run, tmp_path, 1, PLAIN, 9, bar, False, False, Options())
    assert found == (model, 1) and bar.n == 144 and asked == [tmp_path / "stage-2"]


@pytest.mark.parametrize("number, copied", [(0, False), (1, True), (2, False)])
def test_a_stage_is_run_saved_and_noted(random_model, tmp_path, monkeypatch, number, copied):
    model, processor = random_model
    seen = []
    monkeypatch.setattr(training, "copy_projector", lambda model: seen.append("copied"))
    made = SimpleNamespace(sharded=lambda: False)

    def run_stage(*args):
        seen.append(args[3:])
        return [(1, 2.0)], made

    monkeypatch.setattr(training, "run_stage", run_stage)
    monkeypatch.setattr(training, "save_model", lambda *args, **kwargs: seen.append(args[2]))
    run = dict(done=["before"], log={}, seconds=5.0, settings=dict(seed=3))
    bar = Bar()
    next_stage(
        model, processor, run, tmp_path, number, PLAIN, 9, bar, True, False, Options(), "data"
    )
    folder = tmp_path / f"stage-{number + 1}"
    told = folder / "checkpoints", 9, 3, number + 1, bar, True, False, Options(), "data"
    assert seen == ["copied"] * copied + [told, folder]
    assert run["done"] == ["before", "II plain"] and run["log"] == {"II plain": [(1, 2.0)]}
    assert 5.0 < run["seconds"] < 10 and json.loads((tmp_path / "run.json").read_text())["done"]


def test_what_a_run_takes_by_default():
    import inspect

    found = {k: p.default for k, p in inspect.signature(train).parameters.items()}
    assert found == dict(
        preset="tiny",
        stage="all",
        out="runs/tiny",
        samples=None,
        minutes=None,
        resume=False,
        from_model=None,
        seed=0,
        towers=None,
        lm=None,
        compile=False,
        config=None,
        options=Options(),
        data=None,
        progress=True,
    )


# Measurements


class Clock:
    "A clock that shows the given times in turn."

    def __init__(self, *times):
        self.times = list(times)

    def __call__(self):
        return self.times.pop(0)


def test_a_meter_adds_up_seconds_and_operations(monkeypatch):
    "A product of 3 x 4 and 4 x 5 takes 2 · 3 · 4 · 5 = 120 operations."
    monkeypatch.setattr(training_speed, "finished", Clock(1.0, 3.0, 10.0, 10.5, 20.0, 24.0))
    meter = Meter(counting=True)
    for part in ("a", "b", "a"):
        with meter(part):
            torch.ones(3, 4) @ torch.ones(4, 5)
    assert meter.seconds == dict(a=6.0, b=0.5) and meter.flop == dict(a=240, b=120)
    assert Meter().counting is False


def test_a_cut_graph_carries_its_gradients_on():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y, constant = x * 3, torch.ones(2)
    leaves = cut_graph([y, constant])
    assert [leaf.requires_grad for leaf in leaves] == [True, False]
    (leaves[0] * torch.tensor([5.0, 7.0])).sum().backward()
    assert x.grad is None
    carry_gradients([y, constant], leaves)
    assert x.grad.tolist() == [15.0, 21.0]
    carry_gradients([y], cut_graph([y]))  # nobody asked: nothing to carry


def test_a_measured_step_takes_the_step_of_training(random_model, monkeypatch):
    "In parts or as a whole: the same gradients, cut to length 1."
    monkeypatch.setattr(training_speed, "autocast", lambda: torch.autocast("cpu", enabled=False))
    model, processor = random_model
    stage = replace(PLAIN, batch_size=2, trains=tuple(model.parts()))
    prepare_stage(model.eval(), stage)
    data = stage_data(stage, 2, 0, 1)
    batch = Collator(processor)([data[i] for i in range(2)])
    batch.pop("ids")
    assert any(batch["regions"])
    whole = copy.deepcopy(model)
    loss = whole(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(whole.parameters(), 1.0)
    losses = []

    def compute_loss(model, inputs):
        losses.append(model(**inputs).loss)
        return losses[-1]

    stub = SimpleNamespace(
        model=model, _prepare_inputs=lambda batch: dict(batch), compute_loss=compute_loss
    )
    before = copy.deepcopy(model.state_dict())
    meter = Meter()
    measured_step(stub, torch.optim.SGD(model.parameters(), lr=1.0), batch, meter)
    assert losses[0].item() == pytest.approx(loss.item(), rel=1e-5)
    parts = {"towers", "projectors", "sampler", "language model", "optimiser"}
    assert set(meter.seconds) == parts
    moved = 0
    for (name, p), other in zip(model.named_parameters(), whole.parameters()):
        step = before[name] - p
        expected = other.grad if other.grad is not None else torch.zeros_like(p)
        assert torch.allclose(step, expected, atol=2e-6), name
        moved += bool(step.any())
    assert moved > 40 and all(p.grad is None for p in model.parameters())


def test_steps_are_measured_after_one_that_warms_up(random_model, monkeypatch):
    model, processor = random_model
    seen, told = [], []

    def step(trainer, optimizer, batch, meter):
        seen.append((id(meter), len(batch["input_ids"]), "ids" in batch))
        told.append((batch["input_ids"] != processor.tokenizer.pad_token_id).float().mean().item())
        meter.seconds["towers"] += 1

    monkeypatch.setattr(training_speed, "measured_step", step)
    stage = replace(PLAIN, batch_size=2, visits=4, first=dict(count=1.0), first_share=0.9)
    stage = replace(stage, trains=("sampler",))
    meter, used = measured_steps(model, processor, stage, 0, n=3)
    assert len(seen) == 4 and len({i for i, *_ in seen}) == 2
    assert [i == id(meter) for i, *_ in seen] == [False, True, True, True]
    assert {row[1:] for row in seen} == {(2, False)}
    assert meter.seconds["towers"] == 3 and meter.counting is False
    assert 0.3 < used < 1 and used == pytest.approx(sum(told) / 4)
    assert all(p.requires_grad for p in model.parameters())  # a copy was prepared


def test_the_matmul_peak_is_the_best_of_some_products(monkeypatch):
    "Two 4 x 4 matrices: 2 · 64 operations, in 2 seconds at best."
    monkeypatch.setattr(training_speed, "finished", Clock(0, 3, 10, 12, 20, 25))
    assert matmul_peak(torch.float32, 4, 3) == 64.0


def test_a_benchmark_charges_towers_and_data_once_a_picture(monkeypatch):
    "Stage III of tiny: batches of 16, four visits; two steps were timed."
    spent, counted = Meter(), Meter(counting=True)
    spent.seconds = Counter({"towers": 8.0, "data": 4.0, "language model": 2.0})
    counted.flop = Counter({"towers": 16e9, "language model": 8e9})
    answers = {False: (spent, 0.9), True: (counted, 0.5)}
    asked = []

    def measured(model, processor, stage, seed, n, counting=False):
        asked.append((stage.name.split()[0], seed, n))
        return answers[counting]

    monkeypatch.setattr(training_speed, "measured_steps", measured)
    peaks = {torch.float32: 8e9, torch.bfloat16: 32e9}
    monkeypatch.setattr(training_speed, "matmul_peak", lambda dtype: peaks[dtype])
    stub = SimpleNamespace(to=lambda device: None)
    monkeypatch.setattr(training_speed, "start_model", lambda seed: (stub, None))
    found = bench_train(steps=2, seed=3)
    assert asked == [("III", 3, 2)] * 2
    towers, words = found["parts"]["towers"], found["parts"]["language model"]
    assert towers == dict(seconds=1.0, gflop=2.0, share_of_peak=0.25)
    assert words == dict(seconds=1.0, gflop=2.0, share_of_peak=0.25)  # half is padding
    assert found["parts"]["data"]["seconds"] == 0.5
    assert found["samples_per_second"] == pytest.approx(16 / 2.5)
    assert found["share_of_peak"] == pytest.approx(4e9 / 2.5 / 8e9)
    assert found["peak_gflops"] == dict(float32=8.0, bfloat16=32.0)
    assert found["tokens_used"] == 0.5 and found["threads"] == torch.get_num_threads()
    lines = bench_lines(found).splitlines()
    assert lines[1].split() == ["towers", "1000", "2.0", "2.0", "25%"]
    assert lines[-2].startswith("6.4 samples a second, 20% of float32's matmul peak; 50% of")
    assert "float32 8, bfloat16 32" in lines[-1]


def test_seconds_of_a_sample_and_of_a_scene(monkeypatch):
    "Three steps of 16 samples; what comes back four times is drawn and looked at once."
    meter = Meter()
    meter.seconds = Counter({"towers": 48.0, "data": 96.0, "optimiser": 12.0})
    asked = []
    monkeypatch.setattr(
        training_speed, "measured_steps", lambda *args: asked.append(args[3:]) or (meter, 1.0)
    )
    stage = replace(PLAIN, visits=4)
    assert seconds_per_sample(None, None, stage, 7) == pytest.approx((12 + 24 + 12) / 48)
    assert seconds_per_sample(None, None, PLAIN, 7, 1) == pytest.approx((48 + 96 + 12) / 16)
    assert asked == [(7, 3), (7, 1)]


def test_seconds_of_a_scene_that_aligns(random_model, monkeypatch):
    model, processor = random_model
    asked = []
    monkeypatch.setattr(training_speed, "align_projectors", lambda *args: asked.append(args))
    clock = SimpleNamespace(perf_counter=Clock(10.0, 22.0))
    monkeypatch.setattr(training_speed, "time", clock)
    stage = replace(PLAIN, align=("global_projector",))
    assert seconds_per_scene(model, processor, stage, 7) == 2.0
    ((copied, _, names, n, seed, steps),) = asked
    assert copied is not model and (names, n, seed, steps) == (("global_projector",), 6, 7, 18)
    assert seconds_per_scene(model, processor, PLAIN, 7) == 0.0


def test_steps_follow_shares_and_batches():
    "70 samples of shares 1, 2 and 4: 10, 20 and 40; in batches of 10, 5 and 16."
    stages = shared((1, 10, 1), (2, 5, 1), (4, 16, 1))
    assert plan_steps(stages, 70) == [1, 4, 2]  # 40 / 16 = 2.5, to the even number
    assert plan_steps(stages, 3) == [1, 1, 1]


def test_minutes_become_scenes_and_steps():
    """Ten minutes are 600 s, of which 35 % may align: 210 s.

    Wished are 100 · 1 + 40 · 5 = 300 s, so .7 of them: 70 and 28 scenes, 210 s. The other 390 s
    take samples of shares 1, 0 and 3 parts in 4 at 1 s and 3 s: 2.5 s each, 156 in all.
    """
    stages = shared((1, 13, 100), (3, 9, 40))
    assert plan_minutes(stages, 10, [1.0, 3.0], [1.0, 5.0]) == ([3, 13], [70, 28])
    assert plan_minutes(stages, 10, [1.0, 3.0], [0.0, 1.0])[1] == [100, 40]  # all fit
    assert plan_minutes(stages, 10, [1.0, 3.0], [1.0, 5.0], 0.1)[1] == [20, 8]
    assert plan_minutes(stages, 0.01, [1.0, 3.0], [1.0, 5.0]) == ([1, 1], [1, 1])
