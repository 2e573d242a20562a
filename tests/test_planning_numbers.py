"Plans in numbers: operations, memory and hours worked out by hand; devices that are compared."

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, Dinov2Config, LlamaConfig

from ferretlite.evaluation import planning
from ferretlite.evaluation import selftest as selftest_module
from ferretlite.evaluation.planning import (
    _PAPER_SAMPLES,
    _PEAKS,
    _SHARDING,
    _count_activation_bytes,
    _count_attention_flop,
    _count_forward_flop,
    _count_layer_activations,
    _count_lora_weights,
    _count_matrix_flop,
    _count_sampler_flop,
    _count_shown_tokens,
    _count_training_flop,
    _make_preset_config,
    _plan_memory,
    count_weights,
    format_plan,
    plan_training,
)
from ferretlite.evaluation.selftest import (
    _answer_scenes,
    _collect_part_outputs,
    _compare_answers,
    _compare_devices,
    _force_float32_products,
    _measure_distance,
    _move_batch,
    _replay_neighbours,
    _run_training_steps,
    format_selftest,
    selftest,
)
from ferretlite.model.configuration import FerretConfig
from ferretlite.model.conversion import make_public_config, read_weights, rename_public_weights
from ferretlite.model.inference import Ferret
from ferretlite.model.modeling import FerretForConditionalGeneration
from ferretlite.training.stages import Stage

# Sums by hand


@pytest.fixture(scope="module")
def toy():
    """Every size is another: a CLIP of 3 layers (views of 6 x 4 cells), a DINOv2 of 2 (4 x 5), two
    tiles side by side, and a Llama of 5 layers with a single head for keys and values."""
    return FerretConfig(
        global_tower=CLIPVisionConfig(
            hidden_size=8,
            intermediate_size=24,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=48,
            patch_size=8,
        ),
        local_tower=Dinov2Config(
            hidden_size=12,
            num_hidden_layers=2,
            num_attention_heads=3,
            image_size=24,
            patch_size=4,
            mlp_ratio=5,
        ),
        text_config=LlamaConfig(
            vocab_size=50,
            hidden_size=10,
            intermediate_size=30,
            num_hidden_layers=5,
            num_attention_heads=5,
            num_key_value_heads=1,
        ),
        global_view=(48, 32),
        local_view=(16, 20),
        grids=[(1, 2)],
        sampler_dim=6,
        sampler=dict(n_points=8, n_centers=[4, 2], n_neighbors=[3, 2]),
    )


PLAIN = Stage("II", ("local_projector", "language_model"), {}, 1, batch_size=128)


def test_weights_are_counted_part_by_part(toy):
    "As many as the parts of a model that was really built have, and none forgotten."
    model = FerretForConditionalGeneration(toy)
    found = count_weights(toy)

    def count(module):
        return sum(p.numel() for p in module.parameters())

    names = (
        "global_tower",
        "local_tower",
        "global_projector",
        "local_projector",
        "visual_position",
        "language_model",
    )
    assert {n: found[n] for n in names} == {n: count(getattr(model, n)) for n in names}
    assert found["sampler"] == count(model.sampler) + count(model.bottleneck)
    assert sum(found.values()) == count(model) and count(model.bottleneck) == 6 * 10 + 6
    griffon = _make_preset_config("tiny-griffon")
    held = count_weights(griffon)
    assert "sampler" not in held and "local_tower" not in held
    crops = FerretForConditionalGeneration(griffon).crop_tokenizer
    assert held["crop_tower"] == count(crops.tower)
    assert held["crop_projector"] == count(crops.projector)


def test_what_a_stage_shows(toy):
    "24 cells and a class token; two tiles of 20 and one; 24 + 40 visual tokens."
    assert _count_shown_tokens(toy, PLAIN) == dict(
        tiles=2, global_tokens=25, tile_tokens=21, visual_tokens=64
    )
    fixed = replace(PLAIN, resolution="fixed")
    assert _count_shown_tokens(toy, fixed) == dict(
        tiles=0, global_tokens=25, tile_tokens=0, visual_tokens=24
    )
    assert toy.resolution == "anyres"
    assert _count_shown_tokens(_make_preset_config("tiny"), PLAIN, (192, 384))["tiles"] == 2
    assert _count_shown_tokens(_make_preset_config("tiny"), PLAIN)["tiles"] == 4


def test_operations_of_products_and_of_attention():
    "A multiplication and an addition each; scores and their use: 2 · 2 · tokens² · width a layer."
    assert _count_matrix_flop(7, 5) == 70
    assert _count_attention_flop(3, 5, 7) == 3 * 4 * 25 * 7 == 2100


def test_operations_of_each_part(toy):
    """CLIP's last layer is not read: 2 of 3 layers. Attention takes 4 · tokens² · width a layer.

    Llama's embeddings are looked up: 50 · 10 weights fewer."""
    counts = count_weights(toy)
    found = _count_forward_flop(toy, PLAIN, text=36, regions=3)
    expected = dict(
        global_tower=2 * counts["global_tower"] * 2 / 3 * 25 + 2 * 4 * 25**2 * 8,
        local_tower=2 * (2 * counts["local_tower"] * 21 + 2 * 4 * 21**2 * 12),
        global_projector=2 * counts["global_projector"] * 24,
        local_projector=2 * counts["local_projector"] * 40,
        language_model=2 * (counts["language_model"] - 500) * 100 + 5 * 4 * 100**2 * 10,
        sampler=2 * 60 * 48 + 2 * 2 * 36 * 48 + 3 * (2 * 2 * 36 * 4 + 2 * 36 * 2 + 2 * 60),
    )
    assert found == pytest.approx(expected)
    fixed = _count_forward_flop(toy, replace(PLAIN, resolution="fixed"), text=36, regions=3)
    assert "local_tower" not in fixed and "local_projector" not in fixed
    tokens = 24 + 36
    llm = 2 * (counts["language_model"] - 500) * tokens + 5 * 4 * tokens**2 * 10
    assert fixed["language_model"] == pytest.approx(llm)
    four = _count_forward_flop(toy, PLAIN, 36)["sampler"] - found["sampler"]
    assert four == 2 * 2 * 36 * 4 + 2 * 36 * 2 + 2 * 60  # four regions by default


def test_one_tower_sees_the_whole_and_the_tiles(toy):
    "Without a second tower the first one computes three views; tied embeddings count as a matrix."
    one = copy.deepcopy(toy)
    one.local_tower = None
    one.local_view = (48, 32)
    counts = count_weights(one)
    found = _count_forward_flop(one, PLAIN, 36)
    single = 2 * counts["global_tower"] * 2 / 3 * 25 + 2 * 4 * 25**2 * 8
    assert found["global_tower"] == pytest.approx(3 * single) and "local_tower" not in found
    tied = copy.deepcopy(toy)
    tied.text_config.tie_word_embeddings = True
    counts, tokens = count_weights(tied), 64 + 36
    expected = 2 * counts["language_model"] * tokens + 5 * 4 * tokens**2 * 10
    assert _count_forward_flop(tied, PLAIN, 36)["language_model"] == pytest.approx(expected)


def test_operations_of_the_sampler(toy):
    "64 cells to 6 of 10 channels, two matrices a cell; a region: 4 centres twice, 2 wide, 1 last."
    assert _count_sampler_flop(toy, 64, 3) == 7680 + 9216 + 3 * (576 + 144 + 120)
    mean = copy.deepcopy(toy)
    mean.sampler = dict(kind="mean")
    assert _count_sampler_flop(mean, 64, 3) == 7680 + 3 * 120
    wide = copy.deepcopy(toy)
    wide.sampler_dim, wide.sampler = None, None  # 10 channels as they are; 128 and 32 centres
    expected = 2 * 2 * 100 * 64 + 3 * (2 * 2 * 100 * 128 + 2 * 100 * 32 + 2 * 100)
    assert _count_sampler_flop(wide, 64, 3) == expected


def test_passes_of_each_part():
    "Forward, gradients of what comes in, gradients of weights; layers once more if asked for."
    parts = (
        "global_tower",
        "local_tower",
        "global_projector",
        "local_projector",
        "sampler",
        "language_model",
    )
    forward = {p: 10.0**i for i, p in enumerate(parts)}

    def passes(trains, again=False):
        found = _count_training_flop(forward, trains, again)
        return [round(found[p] / forward[p]) for p in parts]

    assert passes(parts) == [3] * 6 and passes(parts, True) == [4, 4, 3, 3, 3, 4]
    assert passes(()) == [1] * 6 == passes((), True)
    assert passes(("local_tower",)) == [1, 3, 1, 2, 2, 2]
    assert passes(("local_tower",), True) == [1, 4, 1, 2, 2, 3]
    assert passes(("global_projector",)) == [1, 1, 3, 1, 2, 2]
    assert passes(("sampler",)) == [1, 1, 1, 1, 3, 2]
    assert passes(("language_model",), True) == [1, 1, 1, 1, 1, 4]


def test_numbers_that_a_layer_keeps(toy):
    "Llama: 4 h + 2 kv + 4 i, with kv = 1 · 2; towers: 6 h + 3 i; DINOv2's i is 5 h."
    assert _count_layer_activations(toy.text_config) == (40 + 4 + 120, 40)
    assert _count_layer_activations(toy.global_tower) == (48 + 72, 16)
    assert _count_layer_activations(toy.local_tower) == (72 + 180, 24)
    bare = SimpleNamespace(hidden_size=8)  # nothing said: four times the width
    assert _count_layer_activations(bare) == (48 + 96, 16)
    llm = copy.deepcopy(toy.text_config)
    llm.head_dim = 6
    assert _count_layer_activations(llm)[0] == 40 + 12 + 120


def test_bytes_that_layers_keep(toy):
    "164 numbers of 2 bytes and 40 of 4: 488 a token and layer; maps of 5 heads take 6 bytes each."
    llm = toy.text_config
    assert _count_activation_bytes(llm, 7) == 7 * 488 * 5
    assert _count_activation_bytes(llm, 7, again=True) == 7 * 488 + 7 * 10 * 5 * 4
    assert _count_activation_bytes(llm, 7, maps=True) == (7 * 488 + 5 * 49 * 6) * 5
    assert (
        _count_activation_bytes(llm, 7, maps=True, half=4) == (7 * (164 * 4 + 160) + 5 * 49 * 4) * 5
    )


def test_bytes_on_each_gpu(toy):
    "Weights and gradients of 4 bytes, two moments of 4 bytes each; 64 + 36 tokens, 3 samples."
    counts, llm = count_weights(toy), toy.text_config
    total, learning = sum(counts.values()), counts["local_projector"] + counts["language_model"]
    layer = counts["language_model"] / 5
    alone = _plan_memory(toy, PLAIN, 4, 3, 36, "none", again=False)
    expected = dict(
        weights=4 * total,
        gradients=4 * learning,
        optimiser=8 * learning,
        activations=300 * 488 * 5,
        logits=300 * 50 * 4 + 3 * 36 * 50 * 8,
        gathered=2 * layer,
    )
    assert alone == pytest.approx(expected)
    full = _plan_memory(toy, PLAIN, 4, 3, 36)
    assert full["weights"] == total and full["gradients"] == learning
    assert full["optimiser"] == 2 * learning and full["gathered"] == pytest.approx(8 * layer)
    assert full["activations"] == _count_activation_bytes(
        llm, 300, True
    )  # computed again by default
    grads = _plan_memory(toy, PLAIN, 4, 3, 36, "grads")
    assert (grads["weights"], grads["gradients"]) == (4 * total, learning)
    assert grads["gathered"] == pytest.approx(2 * layer)
    adapted = _plan_memory(toy, PLAIN, 4, 3, 36, "none", lora=2)
    assert adapted["gradients"] == 4 * (counts["local_projector"] + _count_lora_weights(llm, 2))
    assert _SHARDING["none"] == () and _SHARDING["grads"] == ("gradients", "optimiser")


def test_towers_that_learn_keep_their_activations(toy):
    "The global tower sees 25 tokens a sample, the local one twice 21."
    stage = replace(PLAIN, trains=("global_tower", "local_tower"))
    found = _plan_memory(toy, stage, 1, 3, 36, again=False)["activations"]
    both = 75 * (120 * 2 + 16 * 4) * 3 + 126 * (252 * 2 + 24 * 4) * 2
    assert found == 300 * 488 * 5 + both
    one = replace(PLAIN, trains=("local_tower",))
    found = _plan_memory(toy, one, 1, 3, 36, again=False)["activations"]
    assert found == 300 * 488 * 5 + 126 * (252 * 2 + 24 * 4) * 2


def test_weights_of_adapters_are_those_that_peft_adds(toy):
    pytest.importorskip("peft")
    from ferretlite.training.distributed import add_adapters, list_adapters

    model = FerretForConditionalGeneration(toy)
    add_adapters(model, 3)
    assert _count_lora_weights(toy.text_config, 3) == sum(p.numel() for p in list_adapters(model))
    assert _count_lora_weights(toy.text_config, 1) == 5 * (2 * 20 + 2 * 12 + 3 * 40)


# Plans


def test_samples_of_the_papers_and_peaks_of_the_data_sheets():
    "Griffon v2: 558K, 12M and 900K (section 3.4, table 8); Ferret-v2: 1.4M captions, GRIT's 1.1M."
    assert _PAPER_SAMPLES == dict(
        ferret=(1_400_000, 100_000, 1_100_000), griffon=(558_000, 12_000_000, 900_000)
    )
    assert _PEAKS == {"h100": 989e12, "a100": 312e12, "4090": 165e12}


def test_a_plans_hours_and_batches_in_numbers(monkeypatch):
    """2e12 operations a sample on 4 A100 at half their peak: 312 samples a second.

    Each sample takes 3 GB of 92 % of 40 GB: 8 at once, and 128 are 4 parts of 8 on 4 GPUs."""
    asked = []

    def memory(config, stage, gpus, at_once, text, sharding, again, lora):
        asked.append((gpus, text, sharding, again, lora))
        return dict(a=1e9 * at_once, b=2e9 * at_once)

    monkeypatch.setattr(planning, "_plan_memory", memory)
    monkeypatch.setattr(
        planning, "_count_forward_flop", lambda config, stage, text: dict(sampler=text * 1e10)
    )
    monkeypatch.setattr(
        planning, "_count_training_flop", lambda f, trains, again: {"x": f["sampler"] * (1 + again)}
    )
    found = plan_training("ferret-v2-7b", 4, 40, "a100", 0.5, "grads", False, 6, 200)
    assert set(asked) == {(4, 200, "grads", False, 6)}
    first, _, last = found["stages"]
    assert last["tflop"] == 2.0 and last["samples_per_second"] == pytest.approx(312)
    assert last["hours"] == pytest.approx(1_100_000 / 312 / 3600)
    assert (last["at_once"], last["accumulate"]) == (8, 4) and last["memory"] == dict(a=8.0, b=16.0)
    assert (last["tokens"], last["visual_tokens"]) == (1480, 1280)
    assert last["tokens_per_second"] == pytest.approx(312 * 1480)
    assert first["tokens"] == 256 + 200 and first["accumulate"] == 8
    assert (
        plan_training("ferret-v2-7b", 4, 26.2, "a100", 0.5)["stages"][2]["at_once"] == 8
    )  # 24.1 GB
    assert (
        plan_training("ferret-v2-7b", 4, 26.0, "a100", 0.5)["stages"][2]["at_once"] == 4
    )  # 23.9 GB
    many = plan_training("ferret-v2-7b", 64, 80, "a100", 0.5)["stages"][2]
    assert (many["at_once"], many["accumulate"]) == (2, 1)  # no more than the step's share
    none = plan_training("ferret-v2-7b", 4, 3)["stages"][2]
    assert (none["at_once"], none["accumulate"], none["memory"]["b"]) == (0, None, 2.0)


def test_what_a_plan_assumes_by_default():
    found = plan_training("small")
    held = {k: v for k, v in found.items() if k not in ("weights", "stages")}
    assert held == dict(
        preset="small",
        gpus=8,
        gpu="h100",
        gpu_memory=80,
        utilisation=0.4,
        sharding="full",
        checkpointing=True,
        lora=0,
    )
    assert found["stages"][2]["tokens"] - found["stages"][2]["visual_tokens"] == 300
    assert [s["samples"] for s in found["stages"]] == [1_400_000, 100_000, 1_100_000]
    assert plan_training("griffon-v2-13b")["stages"][1]["samples"] == 12_000_000
    for wrong in (dict(gpu="h200"), dict(sharding="some")):
        with pytest.raises(ValueError, match="expected one of"):
            plan_training("small", **wrong)
    with pytest.raises(ValueError, match="preset: found 'giant'"):
        _make_preset_config("giant")


def test_a_plan_is_told_in_these_words():
    stage = dict(
        stage="I a",
        tokens=450,
        visual_tokens=150,
        tflop=2.34,
        memory=dict(weights=3.0, logits=0.5),
        at_once=4,
        accumulate=2,
        samples_per_second=12.5,
        tokens_per_second=5625.0,
        hours=10.4,
        samples=1_000,
    )
    none = {**stage, "stage": "II b", "at_once": 0, "accumulate": None, "hours": 99.0}
    plain = {**stage, "stage": "III c", "accumulate": 1, "hours": 5.3}
    found = dict(
        preset="toy",
        gpus=2,
        gpu="a100",
        gpu_memory=40.0,
        utilisation=0.35,
        sharding="grads",
        checkpointing=True,
        lora=8,
        weights=dict(global_tower=1_500_000_000, sampler=2_000_000),
        stages=[stage, none, plain],
    )
    lines = format_plan(found).splitlines()
    assert lines[0] == "toy: 1.50 billion weights: global tower 1,500.0 M, sampler 2.0 M"
    assert lines[1].startswith("on 2 x a100 of 40 GB, sharding: grads, activations computed again")
    assert "adapters of rank 8" in lines[1] and lines[1].endswith("35%")
    assert lines[2] == "stage I a: 450 tokens a sample (150 visual), 2.3 TFLOP a sample"
    assert lines[3].endswith("weights 3.0, logits 0.5 = 3.5 with 4 at once")
    assert (
        "--at-once 4 and 2 such parts to a step; 12.5 samples (5,625 tokens) a second" in lines[4]
    )
    assert "10.4 hours for 1,000 samples" in lines[4]
    assert "with 1 at once" in lines[6] and "does not fit" in lines[7]
    assert "such parts" not in lines[10]
    assert lines[-1] == "in all 16 hours for the stages that fit"
    whole = format_plan({**found, "stages": [stage, plain], "lora": 0, "checkpointing": False})
    assert whole.endswith("in all 16 hours") and "rank" not in whole and "again" not in whole


# Weights of others, name by name


def test_public_names_become_ours():
    theirs = {
        "model.mm_projector.0.weight": 1,
        "model.region_geo_sampler.flatten_projector.bias": 2,
        "model.vision_tower.vision_tower.vision_model.pre_layrnorm.weight": 3,
        "model.vision_tower.vision_tower.vision_model.embeddings.position_ids": 4,
        "model.layers.0.self_attn.rotary_emb.inv_freq": 5,
        "model.layers.0.mlp.up_proj.weight": 6,
        "lm_head.weight": 7,
    }
    assert rename_public_weights(theirs) == {
        "global_projector.0.weight": 1,
        "sampler.flatten_projector.bias": 2,
        "global_tower.pre_layrnorm.weight": 3,
        "language_model.model.layers.0.mlp.up_proj.weight": 6,
        "language_model.lm_head.weight": 7,
    }


def theirs(**fields):
    "Settings of a public checkpoint, and its weights as far as their shapes matter."
    size = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    clip = CLIPVisionConfig(**size, image_size=56, patch_size=14)
    weights = {"sampler.flatten_projector.weight": torch.zeros(32, 32 * 5)}
    settings = dict(hidden_size=48, num_attention_heads=4, num_hidden_layers=2, rope_theta=5e4)
    return settings | dict(intermediate_size=96, model_type="ferret_llama") | fields, clip, weights


def test_a_public_checkpoints_settings_become_ours():
    settings, clip, weights = theirs()
    found = make_public_config(settings, clip, weights, (70, 71), 72)
    assert (found.resolution, found.projector, found.max_tiles) == ("fixed", "linear", None)
    assert tuple(found.global_view) == tuple(found.local_view) == (56, 56)
    assert (found.image_token_id, found.region_token_id, found.text_config.vocab_size) == (
        70,
        71,
        72,
    )
    assert found.sampler == dict(compat="ferret", pool="max", n_centers=[128, 5])
    assert found.sampler_dim == 32 and found.visual_position == "none"
    assert (found.fusion_of, found.fusion_mode) == ("towers", "nearest")
    assert found.text_config.model_type == "llama" and found.text_config.hidden_size == 48
    assert [tuple(g) for g in found.grids] == [(1, 2), (2, 1), (2, 2), (1, 3), (3, 1)]
    weights["global_projector.2.weight"] = torch.zeros(1)
    assert make_public_config(settings, clip, weights, (70, 71), 72).projector == "mlp"


@pytest.mark.parametrize(
    "fields, resolution",
    [
        (dict(image_aspect_ratio="anyres"), "anyres"),
        (dict(mm_patch_merge_type="spatial_unpad"), "anyres"),
        (dict(mm_patch_merge_type="flat", image_aspect_ratio="square"), "fixed"),
    ],
)
def test_public_checkpoints_with_tiles(fields, resolution):
    settings, clip, weights = theirs(sampler_pooler_mode="mean", **fields)
    found = make_public_config(settings, clip, weights, (70, 71), 72)
    assert found.resolution == resolution and found.sampler["pool"] == "mean"


def test_weights_are_read_from_safetensors_first(tmp_path):
    with pytest.raises(FileNotFoundError, match="found no weights"):
        read_weights(tmp_path)
    torch.save(dict(a=torch.ones(1)), tmp_path / "pytorch_model-1.bin")
    assert read_weights(tmp_path)["a"].item() == 1
    save_file(dict(a=torch.full((1,), 2.0)), tmp_path / "x.safetensors")
    save_file(dict(b=torch.full((1,), 3.0)), tmp_path / "y.safetensors")
    assert {k: v.item() for k, v in read_weights(tmp_path).items()} == dict(a=2.0, b=3.0)


# One device against another


def test_products_are_exact_inside_and_as_before_behind():
    switches = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [s.allow_tf32 for s in switches]
    try:
        switches[0].allow_tf32, switches[1].allow_tf32 = True, False
        with pytest.raises(KeyError), _force_float32_products():
            assert [s.allow_tf32 for s in switches] == [False, False]
            raise KeyError
        assert [s.allow_tf32 for s in switches] == [True, False]
    finally:
        for s, was in zip(switches, before):
            s.allow_tf32 = was


def test_floats_change_their_kind_and_other_numbers_do_not():
    ids = torch.tensor([1])
    found = _move_batch(dict(a=[torch.ones(1)], b=ids, c="x", d=(ids,)), "cpu", torch.float64)
    assert found["a"][0].dtype == torch.float64 and found["b"].dtype == torch.int64
    assert found["c"] == "x" and isinstance(found["d"], tuple)
    assert _move_batch(torch.ones(1), "meta").device.type == "meta"


def test_distance_is_a_share_of_the_first_sides_length():
    "(3, 4) against (3, 6): 2 of 5; the other way round 2 of the root of 45."
    a, b = (
        [torch.tensor([3.0]), torch.tensor([[4.0]])],
        [torch.tensor([3.0]), torch.tensor([[6.0]])],
    )
    assert _measure_distance(a, b) == pytest.approx(0.4) and _measure_distance(
        b, a
    ) == pytest.approx(2 / 45**0.5)
    zero = [torch.zeros(1)]
    assert _measure_distance(zero, zero) == 0 and _measure_distance(
        zero, [torch.tensor([1e-6])]
    ) == pytest.approx(1e6)


class Chooser:
    "A sampler whose points ask others."

    def choose_neighbors(self, i, points):
        return (points * 10 + i,)


def test_neighbours_are_noted_and_asked_again():
    sampler, chosen = Chooser(), []
    with _replay_neighbours(sampler, chosen, False):
        sampler.choose_neighbors(1, torch.tensor(2))
        sampler.choose_neighbors(0, torch.tensor(5))
    assert [int(c[0]) for c in chosen] == [21, 50]
    with _replay_neighbours(sampler, chosen, True):
        assert [int(sampler.choose_neighbors(7, torch.tensor(9))[0]) for _ in range(2)] == [21, 50]
    assert sampler.choose_neighbors(7, torch.tensor(9))[0] == 97 and len(chosen) == 2
    with _replay_neighbours(None, chosen, True):
        pass


def test_every_step_of_a_model_is_compared(random_model):
    from ferretlite.data.batches import Collator
    from ferretlite.training.trainer import make_stage_data

    model, processor = random_model
    stage = Stage("III", ("sampler",), dict(name=1.0, rec=1.0), 1, n_turns=2)
    data = make_stage_data(stage, 2, 0, 1)
    batch = Collator(processor)([data[0], data[1]])
    batch.pop("ids")
    found = _collect_part_outputs(model.train(), batch)
    parts = {f"gradients of the {n.replace('_', ' ')}" for n in model.parts()}
    assert set(found) == {"towers", "projectors", "sampler", "language model", "loss"} | parts
    assert len(found["towers"]) == 2 and not model.training
    with torch.no_grad():
        out = model(**batch)
    told = batch["labels"][:, 1:] != -100
    assert torch.allclose(found["language model"][0], out.logits[:, :-1][told], atol=1e-5)
    assert found["loss"][0].item() == pytest.approx(out.loss.item(), rel=1e-5)
    again = _collect_part_outputs(model, batch)  # gradients do not pile up
    assert all(_measure_distance(found[k], again[k]) < 1e-4 for k in found)


def test_a_device_that_rounds_is_told_from_one_that_does_not(random_model, monkeypatch):
    monkeypatch.setattr(
        "ferretlite.evaluation.selftest.load_model", lambda folder: copy.deepcopy(random_model)
    )
    exact, double, short = (
        dict(_compare_devices("tiny", "cpu", dtype))
        for dtype in (torch.float32, torch.float64, torch.bfloat16)
    )
    assert {"towers", "sampler", "loss", "gradients of the sampler"} <= set(exact)
    assert max(exact.values()) < 1e-6 and 0 < max(double.values()) < 1e-3
    assert short["language model"] > 1e-4


def test_answers_differ_where_their_first_words_do():
    "Two of three rows differ; the second by .5 at its third token, the first by 2 at its first."
    one = torch.tensor([[1, 2, 3], [1, 0, 2], [3, 3, 3]])
    two = torch.tensor([[0, 2, 1, 1], [1, 0, 3, 1], [3, 3, 3, 0]])
    logits = [torch.zeros(3, 4) for _ in range(3)]
    logits[0][0] = torch.tensor([1.0, 3.0, 0.0, 0.0])
    logits[2][1] = torch.tensor([0.0, 0.0, 2.0, 1.5])
    assert _compare_answers((one, logits), (two, None)) == (pytest.approx(1 / 3), 2.0)
    assert _compare_answers((one, logits), (one, None)) == (1.0, 0.0)


def test_all_questions_are_answered_greedily():
    from small_model import small_ferret

    tokens, logits = _answer_scenes(small_ferret(), 2, [])
    assert len(tokens) == 2 and len(logits) == tokens.shape[1] <= 24
    words = [scores.argmax(-1) for scores in logits]
    first = [w[0].item() for w in words][:3]
    assert tokens[0, :3].tolist() == first


def test_a_few_steps_of_each_stage_are_tried(monkeypatch):
    asked = []

    def run(model, processor, stage, folder, steps, seed, number, bar):
        asked.append(
            (
                stage.name.split()[0],
                stage.batch_size,
                stage.scenes,
                stage.visits,
                steps,
                seed,
                number,
            )
        )
        return [(1, 2.0), (2, 1.5)], None

    stub = SimpleNamespace(to=lambda device: None)
    monkeypatch.setattr("ferretlite.evaluation.selftest.run_stage", run)
    monkeypatch.setattr("ferretlite.evaluation.selftest.start_model", lambda preset: (stub, preset))
    assert _run_training_steps("tiny", 2) == [2.0, 1.5]
    _run_training_steps("tiny", 3, 7)
    assert asked == [("II", 4, 8, 1, 5, 0, 2), ("III", 4, 8, 2, 7, 0, 3)]


def test_the_selftest_judges_each_number(monkeypatch):
    "Gradients may be off by a thousandth, all else by a tenth of that; nan is not well."
    found = [
        ("towers", 1e-4),
        ("loss", 1.1e-4),
        ("gradients of x", 1e-3),
        ("sampler", float("nan")),
    ]
    monkeypatch.setattr(selftest_module, "_compare_devices", lambda preset, device, **kw: found)
    monkeypatch.setattr(Ferret, "load", lambda *args: "ferret")
    answers = (torch.tensor([[1]]), [torch.tensor([[1.0, 2.0]])])
    monkeypatch.setattr(selftest_module, "_answer_scenes", lambda *args, **kwargs: answers)
    losses = iter([[1.0, float("nan")]] + [[1.0]] * 5)
    monkeypatch.setattr(
        selftest_module, "_run_training_steps", lambda preset, number, steps: next(losses)
    )
    rows = selftest("cpu")
    assert len(rows) == 2 * 7
    assert [(r[2], r[3]) for r in rows[:4]] == [
        (1e-4, True),
        (1e-4, False),
        (1e-3, True),
        (1e-4, False),
    ]
    assert [(r[1], r[2], r[3]) for r in rows[4:7]] == [
        (0.0, 1e-3, True),
        (0.0, 0.05, True),
        (1, 0, False),
    ]
    assert rows[13][3] is True
    text = format_selftest(rows, "cpu").splitlines()
    assert text[0].startswith("no CUDA here") and text[1].startswith("ok ")
    assert text[2].startswith("BAD") and text[-1] == "9 of 14 as they should be"


def test_a_preset_of_another_kind_of_model_is_refused_by_name():
    "`tiny-lm` is a shipped folder with a config.json of a language model alone."
    with pytest.raises(ValueError, match=r"preset: found 'tiny-lm', expected one of small, ferret"):
        plan_training("tiny-lm")
