"""On a GPU: what the CPU computes is computed there too. `pytest -m cuda`; without a GPU the last
tests stand in, on PyTorch's meta device.
"""

import json
import math
from dataclasses import replace

import pytest
import torch

from ferretlite.app import cli
from ferretlite.common.files import WEIGHTS
from ferretlite.evaluation.selftest import (
    _answer_scenes,
    _compare_answers,
    _compare_devices,
    _force_float32_products,
    _measure_distance,
    _replay_neighbours,
    format_selftest,
    selftest,
)
from ferretlite.model import modeling as model_module
from ferretlite.model import pretrained as pretrained_module
from ferretlite.model.configuration import FerretConfig
from ferretlite.model.inference import Ferret
from ferretlite.model.loading import load_model
from ferretlite.model.modeling import FerretForConditionalGeneration
from ferretlite.model.towers import PAPER_SIZES, paper_config
from ferretlite.regions.geometry import Box, Mask, Point
from ferretlite.scenes.world import make_scene
from ferretlite.training.distributed import SteadyTrainer, newest_checkpoint
from ferretlite.training.runs import train
from ferretlite.training.speed import (
    bench_train,
    format_training_bench,
    measure_seconds_per_sample,
    measure_seconds_per_scene,
)
from ferretlite.training.stages import FERRET_PARTS, STAGES, prepare_stage, start_model
from ferretlite.training.trainer import StageTrainer, make_training_arguments
from ferretlite.vision.ferret_v1_sampler import FerretSampler
from ferretlite.vision.sampler import (
    MeanSampler,
    SpatialAwareSampler,
    compute_square_distances,
    gather_points,
    pick_farthest_points,
)

cuda = pytest.mark.cuda
presets = pytest.mark.parametrize("preset", ["tiny", "tiny-griffon"])


@cuda
@presets
def test_five_steps_of_each_stage_have_a_finite_loss_and_end_as_a_model(
    preset, tmp_path, monkeypatch
):
    monkeypatch.setitem(
        STAGES,
        preset,
        tuple(replace(s, batch_size=4, share=1 / 3, scenes=20) for s in STAGES[preset]),
    )
    out = train(preset, out=tmp_path / "run", samples=60, progress=False)
    run = json.loads((out / "run.json").read_text())
    assert run["steps"] == [5, 5, 5] and all(
        math.isfinite(loss) for log in run["log"].values() for _, loss in log
    )
    assert (
        Ferret.load(out)
        .ask(make_scene(3).image, "What is in <region>?", [Box(20, 20, 90, 90)])
        .raw_text
        is not None
    )


@cuda
def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setitem(
        STAGES,
        "tiny",
        tuple(replace(s, batch_size=4, share=1 / 3, scenes=8) for s in STAGES["tiny"]),
    )
    step, arguments = StageTrainer.training_step, make_training_arguments

    def often(*args):
        found = arguments(*args)
        found.save_steps = 2
        return found

    def dying(self, *args, **kwargs):
        if self.stage.name.startswith("III") and self.state.global_step == 3:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr("ferretlite.training.trainer.make_training_arguments", often)
    monkeypatch.setattr(StageTrainer, "training_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(out=tmp_path / "run", samples=60, progress=False)
    assert newest_checkpoint(tmp_path / "run" / "stage-3" / "checkpoints").endswith("checkpoint-2")
    monkeypatch.setattr(StageTrainer, "training_step", step)
    train(out=tmp_path / "run", samples=60, progress=False, resume=True)
    assert all(p.isfinite().all() for p in load_model(tmp_path / "run")[0].parameters())


@cuda
def test_minutes_are_planned_on_the_gpu(tmp_path):
    model, processor = start_model()
    model.to("cuda")
    assert 0 < measure_seconds_per_sample(model, processor, STAGES["tiny"][2], 0, n=2) < 1
    assert 0 < measure_seconds_per_scene(model, processor, STAGES["tiny"][1], 0, n=2) < 10


@cuda
def test_the_bench_counts_on_the_gpu():
    found = bench_train(steps=2)
    print(format_training_bench(found))
    assert (
        found["device"] == "cuda"
        and 0 < found["share_of_peak"] < 1
        and found["samples_per_second"] > 10
    )


@cuda
@presets
def test_every_part_computes_what_the_cpu_computes(preset):
    for what, far in _compare_devices(preset, "cuda"):
        assert far < (1e-3 if "gradients" in what else 1e-4), what


@cuda
@presets
def test_generated_answers_are_the_cpus(preset):
    chosen = []
    with _force_float32_products():
        here, there = (
            _answer_scenes(Ferret.load(preset, device, torch.float32), 12, chosen, replay=k > 0)
            for k, device in enumerate(("cpu", "cuda"))
        )
    equal, gap = _compare_answers(here, there)
    assert gap < 1e-3 and equal >= 0.75


@cuda
def test_load_takes_the_gpu_and_bfloat16_and_answers():
    ferret, scene = Ferret.load("tiny"), make_scene(1, split="test")
    assert ferret.model.device.type == "cuda" and ferret.model.dtype == torch.bfloat16
    thing = max((o for o in scene.objects if not o.text), key=lambda o: o.box.area)
    assert thing.name in ferret.refer(scene.image, thing.box)
    assert (
        len(
            ferret.ask(
                [scene.image] * 3,
                ["What is in <region>?"] * 3,
                [[Point(50, 50)], [thing.box], [Mask(thing.mask.rle)]],
            )
        )
        == 3
    )


MAPS, SIZES = [(6, 9), (5, 5)], [(300, 450), (200, 200)]
REGIONS = [[Point(20, 200), Box(10, 10, 200, 90)], [Box(100.5, 20.25, 199, 180), Point(3, 3)]]


@cuda
@pytest.mark.parametrize("kind", [SpatialAwareSampler, FerretSampler, MeanSampler])
def test_the_sampler_reads_the_same_vectors_and_sends_back_the_same_gradients(kind):
    torch.manual_seed(0)
    sampler = (kind(32, 48) if kind is MeanSampler else kind(32, 48, 64, (16, 4), (8, 4))).eval()
    maps, found, chosen = [torch.randn(*m, 32) for m in MAPS], {}, []
    for k, device in enumerate(("cpu", "cuda")):
        held, sampler = (
            [m.to(device).detach().requires_grad_(True) for m in maps],
            sampler.to(device),
        )
        sampler.zero_grad()
        with _force_float32_products(), _replay_neighbours(sampler, chosen, replay=k > 0):
            vectors = sampler(held, REGIONS, SIZES)
        sum(v.square().sum() for v in vectors).backward()
        found[device] = (
            [v.detach() for v in vectors],
            [m.grad for m in held],
            [p.grad.clone() for p in sampler.parameters()],
        )
    for here, there in zip(found["cpu"], found["cuda"]):
        assert _measure_distance(here, there) < 1e-4


@cuda
def test_points_ask_neighbours_at_the_same_distances():
    "Who is asked may differ between points that are equally far; how far they are may not."
    points = SpatialAwareSampler(8, 8, 512).eval().draw_points(REGIONS, SIZES)
    here, there = (
        compute_square_distances(gather_points(p, pick_farthest_points(p, 128)), p)
        for p in (points, points.cuda())
    )
    assert torch.equal(here, there.cpu()) and torch.equal(
        here.topk(24, largest=False).values, there.topk(24, largest=False).values.cpu()
    )


@cuda
def test_dice_of_either_device_drive_the_sampler():
    sampler, m = (
        SpatialAwareSampler(32, 48, 64, (16, 4), (8, 4)).cuda().train(),
        torch.randn(6, 9, 32, device="cuda"),
    )
    for device in ("cpu", "cuda"):
        a, b = (
            sampler([m], [REGIONS[0]], SIZES[:1], torch.Generator(device).manual_seed(3))[0]
            for _ in range(2)
        )
        assert torch.equal(a, b)


@cuda
def test_the_selftest_finds_nothing_wrong():
    rows = selftest()
    print(format_selftest(rows))
    assert all(row[-1] for row in rows)


# Without a GPU


def test_the_selftest_tells_right_from_wrong(monkeypatch):
    "It compares float64 here; a part that computes something else is found."
    rows = _compare_devices("tiny", "cpu", torch.float64)
    assert {
        "towers",
        "projectors",
        "sampler",
        "language model",
        "loss",
        "gradients of the sampler",
    } <= {what for what, _ in rows}
    assert all(far < 1e-3 for _, far in rows)
    look = FerretForConditionalGeneration.compute_tower_maps

    def wrong(self, *args):  # the second model's towers see a little too much
        maps = look(self, *args)
        return maps if self.dtype == torch.float32 else [m * 1.01 for m in maps]

    monkeypatch.setattr(FerretForConditionalGeneration, "compute_tower_maps", wrong)
    assert dict(_compare_devices("tiny", "cpu", torch.float64))["towers"] == pytest.approx(
        0.01, rel=0.01
    )


def test_answers_that_part_are_judged_by_their_logits():
    logits = [torch.tensor([[0.0, 1.0, 5.0], [2.0, 2.0005, 0.0]])] * 2
    here = torch.tensor([[2, 2], [1, 1]]), logits
    assert _compare_answers(here, here) == (1.0, 0.0)
    assert _compare_answers(here, (torch.tensor([[2, 2], [1, 0]]), logits)) == (
        0.5,
        pytest.approx(0.0005, abs=1e-6),
    )
    assert _compare_answers(here, (torch.tensor([[2, 1], [1, 1]]), logits))[1] == pytest.approx(4)
    report = format_selftest([("a", 1e-5, 1e-4, True), ("b", float("nan"), 1e-4, False)], "cpu")
    assert "no CUDA here" in report and "BAD  b" in report and "1 of 2 as they should be" in report


@pytest.mark.parametrize("preset", ["tiny", "tiny-griffon", "ferret-v2-7b", "griffon-v2-13b"])
def test_a_training_step_of_each_preset_holds_no_stray_cpu_tensor(preset, monkeypatch):
    """Kept maps, loss, look_loss, backward and optimiser on the meta device, which refuses to add
    a CPU tensor. What asks for values is replaced by what has the same shapes.
    """
    paper = preset in PAPER_SIZES
    config = paper_config(preset) if paper else FerretConfig.from_pretrained(WEIGHTS / preset)
    for part in (config.global_tower, config.local_tower, config.text_config, config.crop_tower):
        if part is not None:
            part.num_hidden_layers = 2  # stand for all
    with torch.device("meta"):
        model = FerretForConditionalGeneration(config)
    model.language_model.set_attn_implementation("eager")
    stage = replace(
        STAGES["tiny-griffon" if "griffon" in preset else "tiny"][-1],
        trains=FERRET_PARTS[2:] + ("crop_projector",),
        attention_weight=0 if paper else 0.3,
    )
    prepare_stage(model, stage)

    def fill(embeddings, places, vectors, name):
        return embeddings.masked_scatter(places[..., None], vectors.to(embeddings.dtype))

    monkeypatch.setattr(
        torch, "is_autocast_enabled", lambda *device: False
    )  # the meta device has none to ask for
    monkeypatch.setattr(model_module, "replace_placeholder_vectors", fill)
    monkeypatch.setattr(
        pretrained_module,
        "next_token_loss",
        lambda logits, labels, count=None: torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten()
        ),
    )
    monkeypatch.setattr(
        "ferretlite.training.trainer.attention_loss",
        lambda weights, writes, shows: (weights[:, 0, 0] * shows[writes[:, 0]]).sum(),
    )
    trainer = StageTrainer.__new__(StageTrainer)
    trainer.model, trainer.kept, trainer.stage, trainer.optimizer = model, {}, stage, None
    monkeypatch.setattr(
        SteadyTrainer,
        "compute_loss",
        lambda self, model, inputs, return_outputs=False, **_: (
            (out.loss, out) if (out := model(**inputs)) and return_outputs else out.loss
        ),
    )
    meta, grid = (
        (lambda *shape, **k: torch.zeros(*shape, device="meta", **k)),
        config.choose_image_grid((384, 384)),
    )
    length = config.count_visual_tokens(grid) + 20
    batch = dict(
        global_pixels=meta(2, 3, *config.views()["global"][0]),
        local_pixels=meta(2 * grid[0] * grid[1], 3, *config.local_view),
        grids=torch.tensor([grid] * 2),
        regions=[[Box(1, 2, 30, 40)], [Point(5, 5)]],
        image_sizes=[(384, 384)] * 2,
        shows=meta(3, length, dtype=torch.bool),
        **{
            k: meta(2, length, dtype=torch.long)
            for k in ("input_ids", "turn_ids", "labels", "position_ids", "names", "writes")
        },
    )
    if config.crop_tower:
        batch["crop_pixels"] = meta(2, 3, *config.views()["crop"][0])
    trainer.keep_maps(batch, ["a", "b"])
    assert set(trainer.kept) == {"a", "b"} and all(
        m.device.type == "meta" and m.dtype == torch.bfloat16
        for maps in trainer.kept.values()
        for m in maps
    )
    trainer.compute_loss(
        model.train(),
        (
            batch
            if stage.attention_weight
            else {k: v for k, v in batch.items() if k not in ("names", "writes", "shows")}
        ),
    ).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@cuda
@pytest.mark.parametrize(
    "teach", ["clip --regions .5", "dino", "dense", "lm", "lm --style griffon"]
)
def test_each_pretraining_takes_its_steps_on_the_gpu_and_leaves_what_the_cpu_reads(teach, tmp_path):
    samples = "120" if teach.startswith("lm") else "40"
    assert (
        cli.main(["pretrain", *teach.split(), "--samples", samples, "--out", str(tmp_path / "run")])
        == 0
    )
    assert list((tmp_path / "run").rglob("model.safetensors"))
