"Measurements and plans of time in numbers, by a clock that only the tests move."

import copy
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ferretlite.common import devices
from ferretlite.data.batches import Collator
from ferretlite.evaluation import speed as evaluation_speed
from ferretlite.training import speed as training_speed
from ferretlite.training.speed import (
    PartTimer,
    _continue_backward,
    _cut_graph,
    _measure_matmul_peak,
    _measure_step,
    _measure_steps,
    bench_train,
    format_training_bench,
    measure_seconds_per_sample,
    measure_seconds_per_scene,
    plan_minutes,
    plan_steps,
)
from ferretlite.training.stages import Stage, prepare_stage
from ferretlite.training.trainer import make_stage_data

PLAIN = Stage("II plain", ("sampler", "language_model"), dict(rec=1.0, name=1.0), 2, n_turns=3)


def shared(*parts):
    "Stages with these shares, batch sizes and scenes."
    return [replace(PLAIN, share=s, batch_size=b, scenes=n) for s, b, n in parts]


# Measurements


class Clock:
    "A clock that shows the given times in turn."

    def __init__(self, *times):
        self.times = list(times)

    def __call__(self):
        return self.times.pop(0)


def test_a_meter_adds_up_seconds_and_operations(monkeypatch):
    "A product of 3 x 4 and 4 x 5 takes 2 · 3 · 4 · 5 = 120 operations."
    monkeypatch.setattr(training_speed, "read_clock", Clock(1.0, 3.0, 10.0, 10.5, 20.0, 24.0))
    meter = PartTimer(counting=True)
    for part in ("a", "b", "a"):
        with meter(part):
            torch.ones(3, 4) @ torch.ones(4, 5)
    assert meter.seconds == dict(a=6.0, b=0.5) and meter.flop == dict(a=240, b=120)
    assert PartTimer().counting is False


def test_a_cut_graph_carries_its_gradients_on():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y, constant = x * 3, torch.ones(2)
    leaves = _cut_graph([y, constant])
    assert [leaf.requires_grad for leaf in leaves] == [True, False]
    (leaves[0] * torch.tensor([5.0, 7.0])).sum().backward()
    assert x.grad is None
    _continue_backward([y, constant], leaves)
    assert x.grad.tolist() == [15.0, 21.0]
    _continue_backward([y], _cut_graph([y]))  # nobody asked: nothing to carry


def test_a_measured_step_takes_the_step_of_training(random_model, monkeypatch):
    "In parts or as a whole: the same gradients, cut to length 1."
    monkeypatch.setattr(training_speed, "autocast", lambda: torch.autocast("cpu", enabled=False))
    model, processor = random_model
    stage = replace(PLAIN, batch_size=2, trains=tuple(model.parts()))
    prepare_stage(model.eval(), stage)
    data = make_stage_data(stage, 2, 0, 1)
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
    meter = PartTimer()
    _measure_step(stub, torch.optim.SGD(model.parameters(), lr=1.0), batch, meter)
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

    monkeypatch.setattr(training_speed, "_measure_step", step)
    stage = replace(PLAIN, batch_size=2, visits=4, first=dict(count=1.0), first_share=0.9)
    stage = replace(stage, trains=("sampler",))
    meter, used = _measure_steps(model, processor, stage, 0, n=3)
    assert len(seen) == 4 and len({i for i, *_ in seen}) == 2
    assert [i == id(meter) for i, *_ in seen] == [False, True, True, True]
    assert {row[1:] for row in seen} == {(2, False)}
    assert meter.seconds["towers"] == 3 and meter.counting is False
    assert 0.3 < used < 1 and used == pytest.approx(sum(told) / 4)
    assert all(p.requires_grad for p in model.parameters())  # a copy was prepared


def test_the_matmul_peak_is_the_best_of_some_products(monkeypatch):
    "Two 4 x 4 matrices: 2 · 64 operations, in 2 seconds at best."
    monkeypatch.setattr(training_speed, "read_clock", Clock(0, 3, 10, 12, 20, 25))
    assert _measure_matmul_peak(torch.float32, 4, 3) == 64.0


def test_a_benchmark_charges_towers_and_data_once_a_picture(monkeypatch):
    "Stage III of tiny: batches of 16, four visits; two steps were timed."
    spent, counted = PartTimer(), PartTimer(counting=True)
    spent.seconds = Counter({"towers": 8.0, "data": 4.0, "language model": 2.0})
    counted.flop = Counter({"towers": 16e9, "language model": 8e9})
    answers = {False: (spent, 0.9), True: (counted, 0.5)}
    asked = []

    def measured(model, processor, stage, seed, n, counting=False, compile=False):
        asked.append((stage.name.split()[0], seed, n, compile))
        return answers[counting]

    monkeypatch.setattr(training_speed, "_measure_steps", measured)
    peaks = {torch.float32: 8e9, torch.bfloat16: 32e9}
    monkeypatch.setattr(training_speed, "_measure_matmul_peak", lambda dtype: peaks[dtype])
    monkeypatch.setattr(devices, "_chosen", [])
    stub = SimpleNamespace(to=lambda device: None)
    monkeypatch.setattr(training_speed, "start_model", lambda seed: (stub, None))
    found = bench_train(steps=2, seed=3, dtype="float32")
    assert asked == [("III", 3, 2, False)] * 2
    towers, words = found["parts"]["towers"], found["parts"]["language model"]
    assert towers == dict(seconds=1.0, gflop=2.0, share_of_peak=0.25)
    assert words == dict(seconds=1.0, gflop=2.0, share_of_peak=0.25)  # half is padding
    assert found["parts"]["data"]["seconds"] == 0.5
    assert found["samples_per_second"] == pytest.approx(16 / 2.5)
    assert found["share_of_peak"] == pytest.approx(4e9 / 2.5 / 8e9)
    assert found["peak_gflops"] == dict(float32=8.0, bfloat16=32.0)
    assert found["tokens_used"] == 0.5 and found["threads"] == torch.get_num_threads()
    lines = format_training_bench(found).splitlines()
    assert lines[1].split() == ["towers", "1000", "2.0", "2.0", "25%"]
    assert lines[-2].startswith("6.4 samples a second, 20% of float32's matmul peak; 50% of")
    assert "float32 8, bfloat16 32" in lines[-1]
    half = bench_train(steps=2, seed=3, dtype="bfloat16", compile=True)
    assert [row[3] for row in asked[2:]] == [True, False]  # counting needs no compiler
    assert half["dtype"] == "bfloat16" and found["dtype"] == "float32"
    assert half["parts"]["towers"]["share_of_peak"] == 0.25 / 4
    assert "5% of bfloat16's matmul peak" in format_training_bench(half)


def test_seconds_of_a_sample_and_of_a_scene(monkeypatch):
    "Three steps of 16 samples; what comes back four times is drawn and looked at once."
    meter = PartTimer()
    meter.seconds = Counter({"towers": 48.0, "data": 96.0, "optimiser": 12.0})
    asked = []
    monkeypatch.setattr(
        training_speed,
        "_measure_steps",
        lambda *args, **how: asked.append((*args[3:], *how.values())) or (meter, 1.0),
    )
    stage = replace(PLAIN, visits=4)
    assert measure_seconds_per_sample(None, None, stage, 7) == pytest.approx((12 + 24 + 12) / 48)
    assert measure_seconds_per_sample(None, None, PLAIN, 7, 1) == pytest.approx((48 + 96 + 12) / 16)
    measure_seconds_per_sample(None, None, PLAIN, 7, data="files", compile=True)
    assert asked == [(7, 3, None, False), (7, 1, None, False), (7, 3, "files", True)]


def test_seconds_of_a_scene_that_aligns(random_model, monkeypatch):
    model, processor = random_model
    asked = []
    monkeypatch.setattr(training_speed, "align_projectors", lambda *args: asked.append(args))
    monkeypatch.setattr(training_speed, "read_clock", Clock(10.0, 22.0))
    stage = replace(PLAIN, align=("global_projector",))
    assert measure_seconds_per_scene(model, processor, stage, 7) == 2.0
    ((copied, _, names, n, seed, steps),) = asked
    assert copied is not model and (names, n, seed, steps) == (("global_projector",), 6, 7, 18)
    assert measure_seconds_per_scene(model, processor, PLAIN, 7) == 0.0


def test_steps_follow_shares_and_batches():
    "70 samples of shares 1, 2 and 4: 10, 20 and 40; in batches of 10, 5 and 16."
    stages = shared((1, 10, 1), (2, 5, 1), (4, 16, 1))
    assert plan_steps(stages, 70) == [1, 4, 2]  # 40 / 16 = 2.5, to the even number
    assert plan_steps(stages, 91) == [1, 5, 3]  # 13 / 10 = 1.3, 26 / 5 = 5.2, 52 / 16 = 3.25
    assert plan_steps(stages, 98) == [1, 6, 4]  # 14 / 10 = 1.4, 28 / 5 = 5.6, 56 / 16 = 3.5
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


@pytest.mark.parametrize("right, reached", [(0.70, True), (0.699, False)])
def test_the_pointing_bench_counts_processor_time_of_all_processes(monkeypatch, right, reached):
    "Own time 60 + 30 s and that of children 20 + 10 s pass during the training, then more."
    times = iter([(1, 2, 3, 4, 99), (61, 32, 23, 14, 999)])
    calls = {}

    def train(preset, out, samples, seed):
        calls.update(preset=preset, samples=samples, seed=seed)
        return out

    def evaluate(ferret, n, split, closer):
        calls.update(n=n, split=split, closer=closer)
        return {"rec.acc@0.5": dict(value=right, n=7, ci95=[0.5, 0.9])}

    monkeypatch.setattr(evaluation_speed, "os", SimpleNamespace(times=lambda: next(times)))
    monkeypatch.setattr(evaluation_speed, "train", train)
    monkeypatch.setattr(evaluation_speed, "evaluate", evaluate)
    monkeypatch.setattr(evaluation_speed, "Ferret", SimpleNamespace(load=str))
    found = evaluation_speed.bench_pointing(samples=50, seed=3, n=5)
    assert calls == dict(preset="tiny", samples=50, seed=3, n=5, split="val", closer=False)
    assert found["core_minutes"] == pytest.approx(2.0) and found["reached"] is reached
    lines = evaluation_speed.format_pointing_bench(found).splitlines()
    assert lines[0] == "50 samples, seed 3: 2.0 core-minutes of training"
    assert lines[1].endswith("is reached" if reached else "is not reached")
