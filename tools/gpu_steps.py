"""Measurements at the papers' sizes with random weights, for `tools/gpu_day.sh`.

    python tools/gpu_steps.py train ferret-v2-7b --out FILE [--lora 64] [--small]
    python tools/gpu_steps.py cost --out FILE [--small]

`train` takes steps of all three stages and compares memory and speed with `ferretlite plan`.
`cost` asks one question by every resolution and every projector. Each finished row is written at
once, and a row that the file already holds is not measured again. `--small` makes every part
narrow, so that a CPU can check the script."""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from ferretlite.common.files import WEIGHTS, write_json
from ferretlite.evaluation.planning import _make_preset_config, _plan_memory, plan_training
from ferretlite.model.inference import Ferret
from ferretlite.model.modeling import FerretForConditionalGeneration
from ferretlite.model.processing import FerretProcessor
from ferretlite.model.tokens import CROP_TOKEN, IMAGE_TOKEN, REGION_TOKEN, add_crop_token
from ferretlite.model.towers import load_own_tokenizer, paper_config
from ferretlite.regions.geometry import Box
from ferretlite.scenes.world import make_scene
from ferretlite.training.distributed import RunOptions
from ferretlite.training.stages import STAGES
from ferretlite.training.trainer import _make_stage_trainer, _prepare_model
from ferretlite.vision.downsampling import DOWNSAMPLER_CLASSES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS = 4  # of each stage; the first two warm up


def shrink(part):
    "Make a tower or a language model narrow and shallow; the number of its tokens stays."
    part.num_hidden_layers, part.hidden_size, part.num_attention_heads = 2, 64, 4
    if hasattr(part, "intermediate_size"):
        part.intermediate_size = 128
    if hasattr(part, "num_key_value_heads"):
        part.num_key_value_heads, part.head_dim = 4, 16


def make_model(preset: str, small: bool, dtype: torch.dtype, **changes):
    "Return a paper's model with random weights on the device, and its processor."
    config = paper_config(preset)
    tokenizer = load_own_tokenizer(WEIGHTS / "tiny-lm")
    if config.crop_tower is not None:
        add_crop_token(tokenizer)
        config.crop_token_id = tokenizer.convert_tokens_to_ids(CROP_TOKEN)
    names = [IMAGE_TOKEN, REGION_TOKEN]
    config.image_token_id, config.region_token_id = tokenizer.convert_tokens_to_ids(names)
    for name, value in changes.items():
        setattr(config, name, value)
    config.text_config.max_position_embeddings = 8192  # the plain projector keeps 5,329 tokens
    if small:
        towers = config.global_tower, config.local_tower, config.crop_tower
        for part in filter(None, (*towers, config.text_config)):
            shrink(part)
        config.sampler_dim = 64
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(DEVICE):
            model = FerretForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    return model, FerretProcessor(config, tokenizer)


class StepClock:
    "A progress bar that notes when each step ended."

    def __init__(self):
        self.times = []

    def update(self, n):
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    def set_postfix_str(self, text): ...


def count_tokens(trainer) -> float:
    "Return the tokens of a sample, padding left out, as the mean over the first batch."
    batch = next(iter(trainer.get_train_dataloader()))
    rows = batch["input_ids"]
    padding = batch["attention_mask"].eq(0).sum().item() if "attention_mask" in batch else 0
    return (rows.numel() - padding) / len(rows)


def measure_stage(preset: str, number: int, lora: int, small: bool, folder: Path) -> dict:
    "Train a stage for a few steps of one micro-batch; return seconds, memory and losses."
    plan = plan_training(preset, 1, 139, lora=lora)["stages"][number]
    at_once = 1 if small else min(8, max(1, plan["at_once"]))
    stage = replace(STAGES[preset][number], batch_size=at_once)
    planned = _plan_memory(
        _make_preset_config(preset), stage, gpus=1, at_once=at_once, text=300, lora=lora
    )
    options = RunOptions(at_once=at_once, checkpointing=True, lora=lora)
    model, processor = make_model(preset, small, torch.float32)
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    _prepare_model(model, processor, stage, 0, number + 1, options, True)
    clock = StepClock()
    trainer = _make_stage_trainer(
        model, processor, stage, folder, STEPS, 0, number + 1, clock, options
    )
    trainer.args.save_strategy = "no"  # a checkpoint would be many times the size of the step
    trainer.train()
    seconds = min(b - a for a, b in zip(clock.times[1:], clock.times[2:]))
    tokens = count_tokens(trainer)
    return dict(
        preset=preset,
        stage=stage.name,
        lora=lora,
        small=small,
        device=torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
        samples_at_once=at_once,
        tokens_a_sample=tokens,
        seconds_a_step=seconds,
        tokens_per_second=at_once * tokens / seconds,
        planned_tokens_per_second=plan["tokens_per_second"],
        peak_gb=torch.cuda.max_memory_allocated() / 1e9 if DEVICE == "cuda" else None,
        planned_gb=sum(planned.values()) / 1e9,
        losses=[e["loss"] for e in trainer.state.log_history if "loss" in e],
    )


def measure_answer(preset: str, small: bool, **changes) -> dict:
    "Ask about a region of a scene of 640 x 480 pixels; return time, memory and visual tokens."
    model, processor = make_model(
        preset, small, torch.bfloat16 if DEVICE == "cuda" else torch.float32, **changes
    )
    ferret, image = Ferret(model.eval(), processor), make_scene(0).image.resize((640, 480))
    region = [] if model.config.style == "griffon" else [Box(100, 100, 300, 300)]
    question = "What is in <region>?" if region else "Locate every red circle."
    seconds = []
    for _ in range(3):  # the first warms up
        if DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        began = time.perf_counter()
        answer = ferret.ask(image, question, region or None, max_new_tokens=16)
        seconds.append(time.perf_counter() - began)
    grid = model.config.choose_image_grid((480, 640))
    return dict(
        preset=preset,
        **changes,
        small=small,
        device=torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
        visual_tokens=model.config.count_visual_tokens(grid),
        seconds=min(seconds[1:]),
        peak_gb=torch.cuda.max_memory_allocated() / 1e9 if DEVICE == "cuda" else None,
        written=len(answer.text),
    )


def measure_rows(path: Path, jobs: dict):
    """Carry out the jobs whose names the file lacks; write the file after each.

    A job without memory is written down, and tried again by the next run: the exit code is 1."""
    rows = json.loads(path.read_text()) if path.exists() else {}
    for name, job in jobs.items():
        if name in rows and "error" not in rows[name]:
            continue
        try:
            rows[name] = job()
        except torch.OutOfMemoryError as error:
            rows[name] = dict(error=str(error).splitlines()[0])
        print(name, json.dumps(rows[name]), flush=True)
        write_json(path, rows, 1)
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
    if any("error" in row for row in rows.values()):
        raise SystemExit(1)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["train", "cost"])
    parser.add_argument("preset", nargs="?", default="ferret-v2-7b")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lora", type=int, default=0, help="rank, in stages of the language model")
    parser.add_argument("--small", action="store_true")
    return parser


def main():
    asked = make_parser().parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    if asked.what == "train":
        jobs = {}
        for n, stage in enumerate(STAGES[asked.preset]):
            lora = asked.lora if "language_model" in stage.trains else 0
            jobs[stage.name] = lambda n=n, lora=lora: measure_stage(
                asked.preset, n, lora, asked.small, asked.out.parent / "checkpoints"
            )
    else:
        jobs = {
            f"ferret-v2-7b, {way}": lambda way=way: measure_answer(
                "ferret-v2-7b", asked.small, resolution=way
            )
            for way in ("fixed", "anyres", "direct")
        } | {
            f"griffon-v2-13b, {kind}": lambda kind=kind: measure_answer(
                "griffon-v2-13b", asked.small, projector=kind
            )
            for kind in DOWNSAMPLER_CLASSES
        }
    measure_rows(asked.out, jobs)


if __name__ == "__main__":
    main()
