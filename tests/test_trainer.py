"A stage's trainer in numbers: its data, settings, losses and rates, without a run."

import copy
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState

from ferretlite.data.batches import Collator, Revisited
from ferretlite.model.configuration import FerretConfig
from ferretlite.model.modeling import FerretForConditionalGeneration
from ferretlite.model.processing import FerretProcessor
from ferretlite.model.tokens import tiny_llama_config
from ferretlite.scenes.conversations import make_conversation
from ferretlite.training import trainer
from ferretlite.training.distributed import LengthGroupedDataset, RunOptions, write_manifest
from ferretlite.training.stages import Stage, prepare_stage
from ferretlite.training.trainer import (
    _MOST_PICTURES,
    SUPERVISED_ATTENTION,
    StageProgress,
    StageTrainer,
    _make_stage_trainer,
    apply_options,
    attend_supervised,
    choose_attention,
    count_alignment_steps,
    list_aligned_projectors,
    make_stage_data,
    make_training_arguments,
    run_stage,
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
    data = make_stage_data(PLAIN, 5, 3, 2)
    assert len(data) == 5 and data.scenes.seed == 320_000_000
    assert data.scenes[1].id == "train-320000001"


def test_a_stages_questions_depend_on_its_seed_and_tasks():
    stage = replace(PLAIN, first=dict(count=1.0), first_share=0.2, others=dict(count=1.0))
    data = make_stage_data(stage, 5, 7, 2)
    for i, tasks in ((0, dict(count=1.0)), (1, stage.tasks)):
        scene = data.scenes[i]
        assert scene.split == "count"
        expected = make_conversation(scene, tasks, random.Random(f"7-{i}"), 3)
        assert [t.prompt for t in data[i].turns] == [t.prompt for t in expected.turns]
        assert 1 <= len(data[i].turns) <= 3


def test_pictures_that_come_back_fill_the_samples():
    "Thirteen samples of two visits: seven pictures, then six of them again."
    data = make_stage_data(replace(PLAIN, visits=2, others=dict(count=1.0)), 13, 0, 1)
    assert isinstance(data.scenes, Revisited) and len(data) == 13
    ids = [data.scenes[i].id for i in range(13)]
    assert len(set(ids)) == 7 and ids[:6] == ids[7:] and ids[0] == "count-10000000"
    assert len(make_stage_data(PLAIN, 13, 0, 1).scenes) == 13


def test_a_stages_pictures_are_of_its_split_and_some_are_enlarged():
    stage = replace(PLAIN, split="wide", others=dict(count=0.5), close=0.5)
    scenes = make_stage_data(stage, 6, 0, 1).scenes
    assert (scenes.split, scenes.others, scenes.close) == ("wide", dict(count=0.5), 0.5)
    for tasks, redraw in ((dict(rec=1.0), False), (dict(search=1.0), True)):
        scenes = make_stage_data(replace(stage, visits=2, tasks=tasks), 6, 0, 1).scenes
        assert (scenes.redraw, scenes.scenes.close, scenes.scenes.split) == (redraw, 0.5, "wide")


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
    assert _MOST_PICTURES == 4992
    scenes = make_stage_data(replace(PLAIN, visits=4), samples, 0, 1).scenes
    assert (scenes.at_once, len(scenes.scenes), scenes.rounds) == (kept, sets * kept, 4)


# Settings of transformers' Trainer


def test_settings_of_a_stage(tmp_path):
    stage = replace(PLAIN, lr=7e-4)
    found = make_training_arguments(stage, tmp_path, 1200, 11)
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
    found = make_training_arguments(PLAIN, tmp_path, steps, 0)
    assert (found.warmup_steps, found.logging_steps, found.save_steps) == (warmup, logging, saving)


@pytest.mark.parametrize("steps, warmup", [(1, 1), (100, 3), (101, 4), (94_000, 2820)])
def test_the_papers_warmup_is_three_percent_of_the_steps(tmp_path, steps, warmup):
    "As transformers rounds `warmup_ratio`: up."
    found = make_training_arguments(replace(PLAIN, warmup=0.03), tmp_path, steps, 0)
    assert found.warmup_steps == warmup


@pytest.mark.parametrize(
    "size, at_once, each, parts", [(1, None, 16, 1), (1, 4, 4, 4), (2, None, 8, 1), (2, 2, 2, 4)]
)
def test_a_step_is_divided_among_processes_and_parts(
    tmp_path, monkeypatch, size, at_once, each, parts
):
    monkeypatch.setattr(trainer, "read_world", lambda: (0, size))
    found = make_training_arguments(
        PLAIN, tmp_path, 8, 0, RunOptions(at_once=at_once, checkpointing=True)
    )
    held = found.per_device_train_batch_size, found.gradient_accumulation_steps
    assert held == (each, parts) and found.activation_checkpointing
    assert found.ddp_find_unused_parameters == (size > 1)
    with pytest.raises(ValueError, match="expected a multiple of"):
        make_training_arguments(PLAIN, tmp_path, 8, 0, RunOptions(at_once=32))


@pytest.mark.parametrize("fast", [True, False])
def test_half_precision_follows_the_machine(tmp_path, monkeypatch, fast):
    context = torch.autocast("cpu", torch.bfloat16, enabled=fast)
    monkeypatch.setattr(trainer, "autocast", lambda: context)
    found = make_training_arguments(PLAIN, tmp_path, 8, 0)
    assert found.bf16 is fast and found.use_cpu is (not torch.cuda.is_available())


def stepping(model, stage, out, **options):
    "A trainer of a stage that has no data."
    return StageTrainer(
        model, make_training_arguments(stage, out, 4, 0, RunOptions(**options)), stage=stage
    )


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
    assert half.compute_part_weight("names", here) == 1.0
    half.written = dict(names=torch.tensor(10.0), writes=torch.tensor(0.0))
    assert float(half.compute_part_weight("names", here)) == pytest.approx(0.6)
    assert float(half.compute_part_weight("writes", torch.tensor([[-1, -1]]))) == 0.0


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
    stage = replace(PLAIN, attention_weight=0.4, batch_size=3, tasks=dict(rec=1.0, name=1.0))
    data = make_stage_data(stage, 3, 0, 1)
    batch = Collator(FerretProcessor(config, tokenizer), mark_boxes=True)(
        [data[i] for i in range(3)]
    )
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
        choose_attention(model, stage)
        fused = steps.compute_loss(model, dict(batch))
        model.language_model.set_attn_implementation("eager")
        steps.stage = replace(stage, attention_weight=0.0)
        without = steps.compute_loss(model, plain)
    assert fused.item() == pytest.approx(loss.item(), rel=1e-3)
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
    halves = stepping(
        model, replace(PLAIN, attention_weight=0.3, batch_size=2), tmp_path, at_once=1
    )
    batches, _ = halves.get_batch_samples(iter(parts), 2, device)
    assert len(batches) == 2
    assert {k: float(v) for k, v in halves.written.items()} == dict(names=5.0, writes=3.0)
    for stage, at_once in (
        (replace(PLAIN, attention_weight=0.0, batch_size=2), 1),
        (replace(PLAIN, attention_weight=0.3), 16),
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
    with pytest.raises(ValueError, match="step 5: found the loss inf in the batch of a, b"):
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
    watch = StageProgress(bar, 16, "II high-resolution")
    for _ in range(3):
        watch.on_step_end(None, TrainerState(), TrainerControl())
    watch.on_log(None, TrainerState(), TrainerControl(), dict(loss=1.23456))
    watch.on_log(None, TrainerState(), TrainerControl(), dict(train_runtime=3.0))
    watch.on_log(None, TrainerState(), TrainerControl())
    assert bar.n == 48 and bar.text == "stage II, loss 1.235"


@pytest.mark.parametrize(
    "look, before, kind",
    [
        (0.3, "sdpa", SUPERVISED_ATTENTION),
        (0.0, SUPERVISED_ATTENTION, "sdpa"),
        (0.0, "sdpa", "sdpa"),
        (0.0, "eager", "eager"),  # the user's own choice
    ],
)
def test_attention_weights_are_kept_where_they_are_read(random_model, look, before, kind):
    model, _ = random_model
    model.language_model.set_attn_implementation(before)
    choose_attention(model, replace(PLAIN, attention_weight=look))
    assert model.language_model.config._attn_implementation == kind
    model.language_model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_supervised_attention_in_numbers(layer):
    "Four heads share the keys and values of two, two by two; three layers."
    torch.manual_seed(0)
    query, (key, value) = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 2, 5, 8)
    query.requires_grad_()
    seen = torch.ones(5, 5, dtype=torch.bool).tril()[None, None].expand(2, 1, 5, 5)
    config = SimpleNamespace(num_hidden_layers=3)
    module = SimpleNamespace(layer_idx=layer, config=config, num_key_value_groups=2, training=True)
    module.is_causal = True
    out, weights = attend_supervised(module, query, key, value, seen, scaling=0.3)
    for row in range(2):
        for head in range(4):
            scores = 0.3 * query[row, head] @ key[row, head // 2].T
            own = scores.masked_fill(~seen[row, 0], -torch.inf).softmax(-1)
            torch.testing.assert_close(out[row, :, head], own @ value[row, head // 2])
            if layer == 1 and head < 3:
                torch.testing.assert_close(weights[row, head], own)
    assert weights.shape == ((2, 3, 5, 5) if layer == 1 else (0,))
    if layer == 1:
        weights[..., 0].sum().backward()
        assert query.grad[:, :3].abs().sum() > 0 and not query.grad[:, 3].any()


def test_three_steps_a_scene_align_and_six_thousand_at_most():
    assert [count_alignment_steps(n) for n in (1, 300, 1999, 2000, 2001)] == [
        3,
        900,
        5997,
        6000,
        6000,
    ]


def test_without_tiles_the_local_projector_is_not_aligned(random_model):
    _, processor = random_model
    stage = replace(PLAIN, align=("global_projector", "local_projector"))
    assert list_aligned_projectors(processor, stage) == ("global_projector", "local_projector")
    processor.config.resolution = "fixed"
    assert list_aligned_projectors(processor, stage) == ("global_projector",)


def test_pictures_come_once_where_maps_cannot_be_kept():
    stage = replace(PLAIN, visits=4, slow=dict(sampler=0.5, language_model=0.2))
    slower = apply_options(stage, RunOptions(slow=dict(language_model=0.1, global_tower=0.3)))
    assert slower.slow == dict(sampler=0.5, language_model=0.1, global_tower=0.3)
    assert slower.visits == 4 == apply_options(stage, RunOptions(lora=4)).visits
    config = str(Path(__file__).parent.parent / "configs" / "fsdp.json")
    for options in (RunOptions(group=True), RunOptions(fsdp=config), RunOptions(deepspeed=config)):
        assert apply_options(stage, options).visits == 1
    assert apply_options(stage, RunOptions(), from_files=True).visits == 1


def test_a_stages_trainer_collates_at_the_stages_resolution(random_model, tmp_path):
    model, processor = random_model
    bar = Bar()
    stage = replace(PLAIN, resolution="fixed", attention_weight=0.3)
    made = _make_stage_trainer(model, processor, stage, tmp_path, 3, 5, 2, bar)
    assert made.data_collator.max_text_tokens == 288 and made.data_collator.mark_boxes is True
    assert made.data_collator.processor.config.resolution == "fixed"
    assert len(made.train_dataset) == 48 and made.train_dataset.scenes.seed == 520_000_000
    assert made.args.max_steps == 3 and made.args.seed == 5
    watches = [c for c in made.callback_handler.callbacks if isinstance(c, StageProgress)]
    assert [(w.bar, w.batch_size, w.name) for w in watches] == [(bar, 16, "II plain")]
    assert not any(isinstance(c, PrinterCallback) for c in made.callback_handler.callbacks)
    order = list(made._get_train_sampler())
    assert order == list(range(48))  # samples come in order
    grouped = _make_stage_trainer(
        model, processor, PLAIN, tmp_path, 3, 5, 2, bar, RunOptions(group=True), ["a"] * 40
    )
    assert (
        isinstance(grouped.train_dataset, LengthGroupedDataset)
        and grouped.data_collator.max_text_tokens is None
    )
    held = grouped.train_dataset
    assert (held.batch_size, held.window, held.seed) == (16, 128, 5)
    assert grouped.data_collator.mark_boxes is False


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
    note("_make_stage_trainer", made)
    return seen


def test_a_stage_aligns_its_projectors_first(random_model, noted, tmp_path):
    model, processor = random_model
    bar = Bar()
    stage = replace(PLAIN, align=("global_projector",), scenes=40)
    log, _ = run_stage(model, processor, stage, tmp_path, 9, 3, 2, bar, True)
    assert noted["align_projectors"] == (("global_projector",), 40, 30_000, 120, "train")
    assert noted["_make_stage_trainer"][1:5] == (tmp_path, 9, 3, 2)
    assert noted["resumed"] is None and bar.n == 0
    assert log == [(1, 2.5), (2, 1.5)]


def test_a_resumed_stage_goes_on_from_its_checkpoint(random_model, noted, tmp_path):
    model, processor = random_model
    bar = Bar()
    (tmp_path / "checkpoint-60").mkdir()
    write_manifest(tmp_path / "checkpoint-60")
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
    run_stage(model, processor, stage, tmp_path, 9, 3, 2, Bar(), options=RunOptions(lora=lora))
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
    options = RunOptions(slow=dict(sampler=0.5))
    run_stage(model, processor, stage, tmp_path, 9, 3, 2, Bar(), options=options, data="files")
    told, *_, given, data = noted["_make_stage_trainer"]
    assert (told.visits, told.slow, given, data) == (1, dict(sampler=0.5), options, "files")
    assert noted["prepare_stage"] == ()
    run_stage(model, processor, stage, tmp_path, 9, 3, 2, Bar())
    assert noted["_make_stage_trainer"][0].visits == 4


def test_logs_go_beside_the_stages_folders(random_model, tmp_path, monkeypatch):
    "out/stage-2/checkpoints is written to, and out/logs/stage-2 by the first process alone."
    model, processor = random_model
    asked = []
    callback = TrainerCallback()
    monkeypatch.setattr(
        trainer, "_make_tensorboard_callback", lambda folder: asked.append(folder) or callback
    )
    place, options = tmp_path / "stage-2" / "checkpoints", RunOptions(tensorboard=True)
    made = _make_stage_trainer(model, processor, PLAIN, place, 3, 5, 2, Bar(), options)
    assert asked == [tmp_path / "logs" / "stage-2"]
    assert callback in made.callback_handler.callbacks
    _make_stage_trainer(model, processor, PLAIN, place, 3, 5, 2, Bar())
    monkeypatch.setattr(trainer, "read_world", lambda: (1, 2))
    _make_stage_trainer(model, processor, PLAIN, place, 3, 5, 2, Bar(), options)
    assert len(asked) == 1
