"""Stages: rates, parts and mixtures as literals, models that are put together, and projectors that
are aligned.
"""

import copy
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ferretlite.common.files import WEIGHTS
from ferretlite.model.loading import load_model
from ferretlite.model.modeling import FerretForConditionalGeneration
from ferretlite.model.processing import FerretProcessor
from ferretlite.pretraining.objects import make_object_vectors
from ferretlite.scenes.world import make_scene
from ferretlite.training import alignment, stages
from ferretlite.training.alignment import (
    PatchScenes,
    _collect_patches,
    _separate_cells,
    align_projectors,
)
from ferretlite.training.distributed import add_adapters
from ferretlite.training.stages import (
    _FERRET_FULL_SIZE_STAGES,
    _GRIFFON_FULL_SIZE_STAGES,
    _GRIFFON_STAGES,
    _TINY_GRIFFON_STAGES,
    FERRET_PARTS,
    FERRET_STAGES,
    GRIFFON_PARTS,
    STAGES,
    TINY_STAGES,
    Stage,
    _make_tiny_config,
    _make_tiny_griffon_config,
    copy_projector,
    load_stage_model,
    make_parameter_groups,
    make_stage_processor,
    prepare_stage,
    start_model,
)

EIGHT = ("global_tower", "local_tower", "global_projector", "local_projector")
ALL = (*EIGHT, "visual_position", "sampler", "language_model")


def table(presets):
    "What the lessons of a preset are, in one row each."
    return [(s.trains, s.tasks, s.share, s.lr, s.n_turns, s.resolution) for s in presets]


def extras(presets):
    "What a preset adds to the paper's stages."
    return [
        (s.align, s.scenes, s.first, s.first_share, s.others, s.visits, s.attention_weight)
        for s in presets
    ]


# Presets


def test_a_stage_that_says_nothing_more_takes_the_documented_defaults():
    stage = Stage("I plain", ("sampler",), dict(rec=1.0), 2)
    assert (stage.lr, stage.scenes, stage.n_turns, stage.batch_size) == (1e-3, 300, 4, 16)
    assert (stage.visits, stage.attention_weight, stage.first_share, stage.resolution) == (
        1,
        0.0,
        0.0,
        None,
    )
    assert (stage.slow, stage.first, stage.others, stage.align) == ({}, {}, {}, ())
    assert (stage.weight_decay, stage.warmup) == (0.01, None)


def test_names_of_parts():
    assert FERRET_PARTS == ALL
    assert GRIFFON_PARTS == (
        "global_tower",
        "global_projector",
        "visual_position",
        "crop_projector",
        "language_model",
    )


def test_ferrets_stages_train_what_section_3_4_lists():
    "Stage I: the first projector on captions; II: projectors and sampler on dense tasks; III: all."
    dense = dict(dense_referring=1.0, dense_detection=1.0)
    last = dict(rec=2.5, name=3.0, choose=2.0, phrase=1.0, dense_detection=1.0, count=2.5)
    last |= dict(word=0.25, dense_referring=0.3, grounded_caption=0.2, caption=0.1)
    second = ("global_projector", "local_projector", "visual_position", "sampler")
    assert table(FERRET_STAGES) == [
        (("global_projector", "visual_position"), dict(caption=1.0), 1, 1e-4, 1, "fixed"),
        (second, dense, 2, 1e-4, 2, None),
        (ALL, last, 60, 1e-3, 12, None),
    ]
    assert extras(FERRET_STAGES) == [((), 300, {}, 0.0, {}, 1, 0.0)] * 3
    assert [s.batch_size for s in FERRET_STAGES] == [16, 16, 16]
    assert [s.name.split()[0] for s in FERRET_STAGES] == ["I", "II", "III"]


def test_tiny_differs_from_ferrets_stages_in_these_values_alone():
    assert [row[1:] for row in table(TINY_STAGES)] == [row[1:] for row in table(FERRET_STAGES)]
    assert [s.trains for s in TINY_STAGES[:2]] == [s.trains for s in FERRET_STAGES[:2]]
    assert TINY_STAGES[2].trains == ALL[2:]  # no tower
    both = ("global_projector", "local_projector")
    assert extras(TINY_STAGES) == [
        (("global_projector",), 300, {}, 0.0, {}, 1, 0.0),
        (both, 2000, {}, 0.0, {}, 1, 0.0),
        ((), 300, dict(name=1.0), 0.05, dict(count=0.25), 4, 0.3),
    ]
    assert [s.slow for s in TINY_STAGES] == [{}, {}, {}]


def test_griffons_stages_train_what_table_11_lists():
    "The encoder of crops never learns; the large tower learns in stage II alone."
    mixture = dict(find=4.0, find_set=2.0, search=3.0, find_phrases=1.0, tell=1.0)
    assert table(_GRIFFON_STAGES) == [
        (("global_projector", "visual_position"), dict(caption=1.0), 2, 1e-3, 1, None),
        (GRIFFON_PARTS, mixture, 50, 1e-3, 10, None),
        (GRIFFON_PARTS[1:], mixture, 10, 5e-4, 10, None),
    ]
    assert extras(_GRIFFON_STAGES) == [((), 300, {}, 0.0, {}, 1, 0.0)] * 3


def test_tiny_griffon_differs_from_griffons_stages_in_these_values_alone():
    assert [row[1:] for row in table(_TINY_GRIFFON_STAGES)] == [
        row[1:] for row in table(_GRIFFON_STAGES)
    ]
    assert [s.trains for s in _TINY_GRIFFON_STAGES[1:]] == [GRIFFON_PARTS[1:]] * 2
    later = ((), 300, {}, 0.0, dict(practice=0.2, count=0.3), 4, 0.3)
    first = (("global_projector",), 2000, {}, 0.0, {}, 1, 0.0)
    assert extras(_TINY_GRIFFON_STAGES) == [first, later, later]


def test_full_size_takes_rates_and_batches_of_the_public_recipes():
    """LLaVA-1.5: 1e-3 and 256, then 2e-5 and 128; Griffon v2 section 3.4: 1e-3/256, 2e-5/128,
    2e-5/128.
    """
    assert [(s.lr, s.batch_size) for s in _FERRET_FULL_SIZE_STAGES] == [
        (1e-3, 256),
        (1e-4, 128),
        (2e-5, 128),
    ]
    assert [(s.lr, s.batch_size) for s in _GRIFFON_FULL_SIZE_STAGES] == [
        (1e-3, 256),
        (2e-5, 128),
        (2e-5, 128),
    ]
    assert [s.slow for s in _FERRET_FULL_SIZE_STAGES] == [
        {},
        {},
        dict(global_tower=0.1, local_tower=0.1),
    ]
    assert [s.slow for s in _GRIFFON_FULL_SIZE_STAGES] == [{}, {}, {}]
    # Griffon v2 section 3.4 and Ferret's public training script: weight decay 0, warm-up .03
    for s in (*_FERRET_FULL_SIZE_STAGES, *_GRIFFON_FULL_SIZE_STAGES):
        assert (s.weight_decay, s.warmup) == (0.0, 0.03)
    for paper, plain in (
        (_FERRET_FULL_SIZE_STAGES, FERRET_STAGES),
        (_GRIFFON_FULL_SIZE_STAGES, _GRIFFON_STAGES),
    ):
        assert [(s.trains, s.tasks, s.share) for s in paper] == [
            (s.trains, s.tasks, s.share) for s in plain
        ]


def test_every_preset_has_its_own_stages():
    paper = {"ferret-v2-7b", "ferret-v2-7b-336", "ferret-v2-13b", "ferret-v2-13b-336"}
    tiny = {"tiny", "tiny-griffon", "tiny-unfrozen", "tiny-wide", "tiny-griffon-wide"}
    assert set(STAGES) == paper | {"griffon-v2-13b", "small"} | tiny
    assert all(STAGES[name] == _FERRET_FULL_SIZE_STAGES for name in paper)
    assert STAGES["griffon-v2-13b"] == _GRIFFON_FULL_SIZE_STAGES
    small = STAGES["small"]
    assert [s.trains for s in small[:2]] == [s.trains for s in FERRET_STAGES[:2]]
    assert small[2].trains == ALL[2:] and {s.batch_size for s in small} == {16}
    assert [s.lr * s.slow["sampler"] for s in small] == pytest.approx([1e-3] * 3)
    assert small[2].lr == 2e-4 and "language_model" not in small[2].slow
    assert STAGES["tiny"] == TINY_STAGES
    assert STAGES["tiny-griffon"] == _TINY_GRIFFON_STAGES
    *first, last = STAGES["tiny-unfrozen"]
    assert tuple(first) == TINY_STAGES[:2]
    assert (last.trains, last.visits, last.slow) == (
        ALL,
        1,
        dict(global_tower=0.1, local_tower=0.1),
    )
    assert (last.first_share, last.attention_weight, last.lr) == (0.05, 0.3, 1e-3)


def test_the_second_edition_differs_in_pictures_and_questions_alone():
    """Enlarged windows are 10 to 20 % in stages II and III, words 15 to 20 % of stage III; with
    three questions each, 120,000 samples ask more than 30,000 times what a word says."""
    wide = STAGES["tiny-wide"]
    for new, old in zip(wide, TINY_STAGES):
        assert (new.name, new.trains, new.lr, new.align) == (
            old.name,
            old.trains,
            old.lr,
            old.align,
        )
        assert new.split == "wide" and sum(new.others.values()) < 0.6
        assert "wide-crowd" not in new.others  # it counts to seventy, in 1,700 tokens
        assert new.first == old.first and new.first_share == old.first_share
    assert [s.close for s in wide] == [0, 0.15, 0.15]
    last = wide[2]
    samples = 120_000 * last.share / sum(s.share for s in wide)
    assert 0.15 <= last.others["word"] <= 0.2 and samples * last.others["word"] * 3 > 30_000
    assert {*last.tasks} - {*TINY_STAGES[2].tasks} == {"absent", "absent_phrase"}
    assert last.others["wide-count"] + last.others["count"] > 0.2
    for new, old in zip(STAGES["tiny-griffon-wide"], STAGES["tiny-griffon"]):
        assert (new.name, new.trains, new.tasks, new.lr) == (
            old.name,
            old.trains,
            old.tasks,
            old.lr,
        )
        assert new.split == "wide" and "word" not in new.others
    for name in ("tiny", "tiny-griffon", "tiny-unfrozen"):  # records hold the text of these
        assert all((s.split, s.close) == ("train", 0.0) for s in STAGES[name])
        text = repr(STAGES[name])
        assert not any(f in text for f in ("close", "split", "weight_decay", "warmup"))


@pytest.mark.parametrize(
    "preset, style", [("tiny-wide", "ferret"), ("tiny-griffon-wide", "griffon")]
)
def test_a_model_of_the_second_edition_has_the_first_ones_shape(preset, style):
    new, _ = start_model(preset=preset)
    old, _ = start_model(preset=preset.removesuffix("-wide"))
    assert new.config.style == style
    assert {n: p.shape for n, p in new.named_parameters()} == {
        n: p.shape for n, p in old.named_parameters()
    }


def test_a_stages_first_part_ends_with_its_share():
    "Of 40 samples 5 % are two: numbers 0 and 1."
    stage = Stage("III", ("sampler",), dict(rec=1.0), 1, first=dict(name=1.0), first_share=0.05)
    asked = [set(stage.mixture(40, i)) for i in range(4)]
    assert asked == [{"name"}, {"name"}, {"rec"}, {"rec"}]


# Configurations of the tiny models


def test_tiny_configuration_follows_its_towers(parts):
    from ferretlite.vision.encoders import make_tiny_clip_config, make_tiny_dino_config

    _, _, llm, tokenizer = copy.deepcopy(parts)
    image, region = tokenizer.convert_tokens_to_ids(["<image>", "<region_fea>"])
    assert image != region
    clip = make_tiny_clip_config(32, 2, image_size=192, patch_size=16)
    dino = make_tiny_dino_config(64, 2, image_size=96, patch_size=8)
    config = _make_tiny_config(clip, dino, llm, tokenizer)
    assert config.merge == 2  # 192 pixels of 16: 12 patches a side become 6 tokens
    assert tuple(config.global_view) == tuple(config.local_view) == (192, 192)
    assert config.projector_dim == 64 and config.fusion == "local"
    assert config.sampler == dict(n_points=64, n_centers=[16, 4], n_neighbors=[8, 4])
    assert (config.image_token_id, config.region_token_id) == (image, region)
    assert (config.global_tower.model_type, config.local_tower.model_type) == (
        "clip_vision_model",
        "dinov2",
    )
    assert config.text_config.hidden_size == 64
    small = make_tiny_clip_config(32, 2, image_size=64, patch_size=16)
    assert _make_tiny_config(small, dino, llm, tokenizer).merge == 1  # 4 patches stay 4
    changed = _make_tiny_config(clip, dino, llm, tokenizer, dict(merge=3, fusion="sum"))
    assert (changed.merge, changed.fusion) == (3, "sum")


def test_tiny_griffon_configuration_doubles_the_local_towers_view(parts):
    from ferretlite.vision.encoders import make_tiny_clip_config, make_tiny_dino_config

    _, _, llm, tokenizer = copy.deepcopy(parts)
    before = len(tokenizer)
    clip = make_tiny_clip_config(64, 2, image_size=192, patch_size=16)
    dino = make_tiny_dino_config(32, 2, image_size=96, patch_size=16)
    config = _make_tiny_griffon_config(clip, dino, llm, tokenizer)
    assert tuple(config.direct_view) == (192, 192) and tuple(config.global_view) == (96, 96)
    assert config.resolution == "direct" and config.projector == "conv"
    assert config.style == "griffon" and config.region_features is False
    assert config.projector_dim == 64
    assert config.global_tower.model_type == "dinov2" and config.local_tower is None
    assert config.crop_tower.model_type == "clip_vision_model"
    words = ["<image>", "<region_fea>", "<crop_fea>"]
    ids = [config.image_token_id, config.region_token_id, config.crop_token_id]
    assert ids == tokenizer.convert_tokens_to_ids(words) and len(set(ids)) == 3
    assert config.text_config.vocab_size == len(tokenizer) == before + 1
    assert _make_tiny_griffon_config(clip, dino, llm, tokenizer, dict(merge=2)).merge == 2


# Models


def equal(a, b):
    "Whether two state dicts hold the same numbers."
    return a.keys() == b.keys() and all(torch.equal(a[k].float(), b[k].float()) for k in a)


def test_the_shipped_parts_are_what_training_starts_from():
    torch.manual_seed(5)
    model, processor = start_model(seed=0)
    for tower, side in ((model.global_tower, "global"), (model.local_tower, "local")):
        stored = load_file(WEIGHTS / "tiny-towers" / side / "model.safetensors")
        found = tower.state_dict()
        shared = [k for k in stored if k in found]
        assert len(shared) > 40
        assert all(torch.equal(found[k], stored[k].float()) for k in shared)
    words = load_file(WEIGHTS / "tiny-lm" / "model.safetensors")
    found = model.language_model.state_dict()
    assert all(torch.equal(found[k], v.float()) for k, v in words.items())
    assert model.config.text_config._name_or_path == model.config.global_tower._name_or_path == ""
    assert len(processor.tokenizer) == len(model.get_input_embeddings().weight)
    assert next(model.parameters()).dtype == torch.float32
    assert equal(model.state_dict(), start_model()[0].state_dict())  # the default seed is 0


def test_griffon_starts_from_its_own_language_model():
    model, processor = start_model(preset="tiny-griffon")
    stored = load_file(WEIGHTS / "tiny-griffon-lm" / "model.safetensors")
    found = model.language_model.state_dict()["model.layers.0.mlp.up_proj.weight"]
    assert torch.equal(found, stored["model.layers.0.mlp.up_proj.weight"].float())
    assert model.config.style == "griffon"


def test_towers_go_where_the_start_says(begin):
    model, _ = start_model(begin["towers"], begin["lm"], 0)
    for part, side in ((model.global_tower, "global"), (model.local_tower, "local")):
        stored = load_file(begin["towers"] / side / "model.safetensors")
        name = next(k for k in stored if k.endswith("weight") and k in part.state_dict())
        assert torch.equal(part.state_dict()[name], stored[name])
    single, _ = start_model(begin["towers"], begin["lm"], 0, config=dict(local_tower=None))
    assert single.local_tower is None


def test_a_token_that_is_new_starts_near_the_mean_of_the_others(begin):
    model, _ = start_model(begin["towers"], begin["lm"], 0, preset="tiny-griffon")
    *old, new = model.get_input_embeddings().weight.detach()
    old = torch.stack(old)
    far = (new - old.mean(0)).norm()
    assert far < 0.1 * (old - old.mean(0)).norm(dim=1).mean()


def test_full_size_presets_read_towers_and_language_model_from_folders(begin, tmp_path):
    import shutil

    for side in ("global", "local"):
        shutil.copytree(begin["towers"] / side, tmp_path / side)
    shutil.copytree(begin["towers"] / "global", tmp_path / "crop")
    model, processor = start_model(tmp_path, begin["lm"], 3, preset="small")
    assert model.global_tower.config.model_type == "clip_vision_model"
    assert model.local_tower.config.model_type == "dinov2"
    assert isinstance(processor, FerretProcessor)
    assert processor.config.image_token_id == model.config.image_token_id
    again, _ = start_model(tmp_path, begin["lm"], 3, preset="small")
    other, _ = start_model(tmp_path, begin["lm"], 4, preset="small")
    weight = model.global_projector[0].weight
    assert torch.equal(weight, again.global_projector[0].weight)
    assert not torch.equal(weight, other.global_projector[0].weight)
    fields = dict(global_view=(96, 96), direct_view=(192, 144))
    griffon, _ = start_model(tmp_path, begin["lm"], 0, fields, "griffon-v2-13b")
    assert tuple(griffon.config.direct_view) == (192, 144) and griffon.local_tower is None
    assert griffon.crop_tokenizer.tower.config.model_type == "clip_vision_model"
    assert griffon.config.projector == "conv"


def test_a_full_size_preset_has_the_chat_format_of_its_language_model(monkeypatch):
    "Griffon v2's is Llama 2's; what is given counts before the preset's own."
    asked = []

    def from_towers(**wanted):
        asked.append(wanted)
        return "model"

    monkeypatch.setattr(stages.FerretForConditionalGeneration, "from_towers", from_towers)
    monkeypatch.setattr(stages.FerretProcessor, "for_model", lambda *args: asked.append(args))
    start_model(lm="words", preset="griffon-v2-13b", config=dict(projector="pool"))
    assert asked[0]["llm"] == "words" and asked[0]["projector"] == "pool"
    assert asked[0]["global_tower"] == "openai/clip-vit-large-patch14-336"
    assert asked[1] == ("model", "words", "llama2")
    start_model("folder", preset="ferret-v2-7b")
    assert asked[2]["global_tower"] == Path("folder/global")
    assert asked[2]["local_tower"] == Path("folder/local") and "crop_tower" not in asked[2]
    assert asked[3] == ("model", "lmsys/vicuna-7b-v1.5", None)


def test_a_saved_model_is_loaded_in_single_precision(random_model, tmp_path):
    model, processor = random_model
    copy.deepcopy(model).half().save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    found, again = load_model(tmp_path)
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    expected = model.global_projector[0].weight.half().float()
    assert torch.equal(found.global_projector[0].weight, expected)
    assert len(again.tokenizer) == len(processor.tokenizer)


def test_the_model_after_each_stage():
    "Stage n's file holds what stages 1 to n changed; all else is as in the beginning."
    begun = start_model(seed=0)[0].state_dict()
    for number in (0, 1, 2):
        found = load_stage_model(number)[0].state_dict()
        learned = {}
        if number:
            learned = load_file(WEIGHTS / "tiny-stages" / f"stage-{number}.safetensors")
            assert any(not torch.equal(begun[k], v.float()) for k, v in learned.items())
        assert equal(found, {**begun, **learned})
    whole = load_file(WEIGHTS / "tiny" / "model.safetensors")
    found = load_stage_model(3)[0].state_dict()
    shared = [k for k in whole if k in found]  # DINOv2's layers have other names in files
    assert len(shared) > 100
    assert all(torch.equal(found[k], whole[k].float()) for k in shared)
    for number in (-1, 4):
        with pytest.raises(ValueError, match="stage"):
            load_stage_model(number)


def learning(model):
    "Names of the parts of which something learns."
    return {n for n, ps in model.parts().items() if any(p.requires_grad for p in ps)}


def test_a_stage_frees_its_parts_and_freezes_the_rest(random_model):
    model, _ = random_model
    prepare_stage(model, Stage("I", ("sampler", "global_tower", "crop_projector"), {}, 1))
    assert learning(model) == {"sampler", "global_tower"}  # this model has no crops
    assert all(p.requires_grad for p in model.parts()["sampler"])
    prepare_stage(model, Stage("II", ("local_projector",), {}, 1, visits=2))
    assert learning(model) == {"local_projector"}
    with pytest.raises(ValueError, match="kept maps"):
        prepare_stage(model, Stage("III", ("global_tower", "sampler"), {}, 1, visits=2))
    prepare_stage(model, Stage("III", ("global_tower", "sampler"), {}, 1, visits=1))


def test_beside_adapters_the_language_model_itself_stays(random_model):
    pytest.importorskip("peft")
    model, _ = random_model
    add_adapters(model, 2)
    prepare_stage(model, Stage("III", ("language_model", "sampler"), {}, 1))
    words = dict(model.language_model.named_parameters())
    free = {n for n, p in words.items() if p.requires_grad}
    assert free == {n for n in words if ".lora_" in n} and len(free) > 4
    assert all(p.requires_grad for p in model.parts()["sampler"])


def test_the_local_projector_becomes_a_copy_of_the_global_one(random_model):
    model, _ = random_model
    before = copy.deepcopy(model.global_projector.state_dict())
    assert not equal(before, model.local_projector.state_dict())
    copy_projector(model)
    assert equal(before, model.global_projector.state_dict())
    assert equal(before, model.local_projector.state_dict())
    assert model.local_projector[0].weight is not model.global_projector[0].weight
    model.local_projector[0] = torch.nn.Linear(48, 64)  # of another width: left alone
    before = copy.deepcopy(model.local_projector.state_dict())
    with torch.no_grad():
        model.global_projector[2].bias.add_(1)
    copy_projector(model)
    assert equal(before, model.local_projector.state_dict())
    model.local_projector = None
    copy_projector(model)


def test_a_stages_resolution_changes_a_copy_of_the_processor(random_model):
    _, processor = random_model
    fixed = make_stage_processor(processor, Stage("I", (), {}, 1, resolution="fixed"))
    own = make_stage_processor(processor, Stage("II", (), {}, 1))
    assert (fixed.config.resolution, own.config.resolution) == ("fixed", "anyres")
    assert processor.config.resolution == "anyres" and fixed.tokenizer is processor.tokenizer


def test_groups_have_rates_and_decay_for_matrices_alone(random_model):
    model, _ = random_model
    stage = Stage("I", ("global_projector", "sampler"), {}, 1, lr=4e-3, slow=dict(sampler=0.25))
    prepare_stage(model, stage)
    groups = make_parameter_groups(model, stage)
    found = {(g["name"], g["weight_decay"]): g for g in groups}
    assert set(found) == {(n, d) for n in stage.trains for d in (0.01, 0.0)} and len(groups) == 4
    assert {n: g["lr"] for (n, _), g in found.items()} == dict(global_projector=4e-3, sampler=1e-3)
    matrices = [p for p in model.global_projector.parameters() if p.ndim == 2]
    vectors = [p for p in model.global_projector.parameters() if p.ndim == 1]
    held = found["global_projector", 0.01]["params"], found["global_projector", 0.0]["params"]
    assert [[id(p) for p in ps] for ps in held] == [
        [id(p) for p in matrices],
        [id(p) for p in vectors],
    ]
    assert {g["weight_decay"] for g in make_parameter_groups(model, stage, 0.3)} == {0.3, 0.0}
    plain = dataclasses.replace(stage, weight_decay=0.0)
    assert {g["weight_decay"] for g in make_parameter_groups(model, plain)} == {0.0}


# Alignment


def test_scenes_to_align_with_are_crowded_but_every_third(random_model):
    _, processor = random_model
    data = PatchScenes(processor, 4, seed=20)
    assert len(data) == 4
    for i, split in enumerate(("train", "crowd", "crowd", "train")):
        boxes, names, inputs = data[i]
        scene = make_scene(20 + i, 384, split)
        assert names == [o.phrase for o in scene.objects]
        assert np.allclose(boxes * 384, [o.box.list() for o in scene.objects])
        assert inputs["local_pixels"].shape == (4, 3, 96, 96)  # 384 pixels: 2 x 2 tiles


def test_what_a_patch_shows_is_the_thing_that_lies_there(random_model):
    "Every cell with an owner overlaps its owner's box, in the tile and the place it stands for."
    model, processor = random_model
    found, shares, edges = _collect_patches(model, processor, ("global", "local"), n=2, seed=30)
    scenes = [make_scene(30, 384, "train"), make_scene(31, 384, "crowd")]
    things = [o for s in scenes for o in s.objects]
    assert len(edges) == len(shares) == 1 + len(things) and torch.equal(edges[0], torch.zeros(4))
    truth = torch.tensor([o.box.list() for o in things]) / 384
    assert torch.allclose(edges[1:], truth.float(), atol=1e-6)
    assert shares[0].sum() == 0 and torch.allclose(shares[1:].sum(1), torch.ones(len(things)))
    first = processor.tokenizer(" " + things[0].phrase, add_special_tokens=False).input_ids
    assert set(shares[1].nonzero()[:, 0].tolist()) == set(first)
    maps, owners, grid = found["global"]
    assert grid == (1, 1) and maps.shape == (2, 4, 4, 32) and owners.shape == (2, 4, 4)
    assert maps.dtype == torch.bfloat16
    tiles, tile_owners, tile_grid = found["local"]
    assert tile_grid == (2, 2) and tiles.shape == (8, 4, 4, 32) and tile_owners.shape == (8, 4, 4)
    with torch.no_grad():
        inputs = processor.prepare_images([scenes[1].image])
        whole, cut = model.compute_tower_maps(inputs["global_pixels"], inputs["local_pixels"])
    assert torch.allclose(maps[1:].float(), whole, atol=0.05, rtol=0.02)
    assert torch.allclose(tiles[4:].float(), cut, atol=0.05, rtol=0.02)
    held = 0
    for view, y, x in tile_owners.nonzero().tolist():
        number = int(tile_owners[view, y, x])
        assert (number <= len(scenes[0].objects)) == (view < 4)  # which scene the view is of
        row, col = (view % 4) // 2 * 4 + y, (view % 4) % 2 * 4 + x  # of 8 x 8 cells
        x1, y1, x2, y2 = (edges[number] * 8).tolist()
        assert x1 < col + 1 and x2 > col and y1 < row + 1 and y2 > row
        held += 1
    assert held > 15
    for view, y, x in owners.nonzero().tolist():
        x1, y1, x2, y2 = (edges[owners[view, y, x]] * 4).tolist()
        assert x1 < x + 1 and x2 > x and y1 < y + 1 and y2 > y


def test_cells_with_and_without_a_thing():
    owners = torch.tensor([[[0, 3], [0, 0]], [[1, 0], [2, 0]]])
    held, empty = _separate_cells(owners)
    assert held.tolist() == [1, 4, 6] and empty.tolist() == [0, 2, 3, 5, 7]


def test_how_many_cells_and_views_a_step_draws():
    assert alignment._VIEWS_PER_STEP == 12 and alignment._CELLS_PER_STEP == (768, 256)


@pytest.fixture
def placeless(parts):
    "A random model whose projectors are told no places."
    from ferretlite.model.configuration import FerretConfig

    clip, dino, llm, tokenizer = copy.deepcopy(parts)
    torch.manual_seed(3)
    return FerretForConditionalGeneration(
        FerretConfig(
            global_tower=clip,
            local_tower=dino,
            text_config=llm,
            visual_position="none",
            sampler=dict(n_points=16, n_centers=[4, 2], n_neighbors=[4, 2]),
        )
    )


def two_kinds_of_cells(monkeypatch, vocabulary, zero_channel=None):
    "Maps in which all cells with a thing are alike, and all without: draws cannot matter."
    torch.manual_seed(11)
    full, empty = torch.randn(32).bfloat16(), torch.randn(32).bfloat16()
    if zero_channel is not None:
        full[zero_channel] = empty[zero_channel] = 0
    owners = torch.tensor([[[1, 0, 1], [0, 0, 1]]])
    maps = torch.where(owners[..., None] > 0, full, empty)
    shares = torch.zeros(2, vocabulary)
    shares[1, 20], shares[1, 30] = 0.75, 0.25
    edges = torch.tensor([[0.0] * 4, [0.1, 0.3, 0.4, 0.9]])
    found = {"local": (maps, owners, (1, 1))}
    monkeypatch.setattr(
        "ferretlite.training.alignment._collect_patches", lambda *args: (found, shares, edges)
    )
    return full.float(), empty.float(), shares, edges


def test_alignments_loss_in_numbers(placeless, monkeypatch):
    """(|told - wanted|² / 10 - .3 · Σ share · log softmax(5 told · table)) + .3 · |told of
    nothing|² / 10.
    """
    words = placeless.get_input_embeddings().weight.detach()
    full, empty, shares, edges = two_kinds_of_cells(monkeypatch, len(words))
    wanted = make_object_vectors(shares, edges, torch.zeros_like(edges), words)[1]
    with torch.no_grad():
        told, nothing = (placeless.local_projector(v) for v in (full, empty))
        scores = (5 * words @ told).log_softmax(0)
        loss = (told - wanted).square().sum() / 10 - 0.3 * (0.75 * scores[20] + 0.25 * scores[30])
        loss = loss + 0.3 * nothing.square().sum() / 10
    log = align_projectors(placeless, None, ("local_projector",), steps=2)
    assert [step for step, _ in log] == [1, 2]
    assert log[0][1] == pytest.approx(loss.item(), rel=1e-4) and log[1][1] < log[0][1]


@pytest.mark.parametrize("steps, moved", [(1, 3e-3), (2, 4.5e-3)])
def test_alignments_rate_falls_in_a_line_from_three_thousandths(
    placeless, monkeypatch, steps, moved
):
    "AdamW moves a number by its rate where the gradient keeps its sign: .003, then .0015."
    words = placeless.get_input_embeddings().weight
    two_kinds_of_cells(monkeypatch, len(words), zero_channel=7)
    before = copy.deepcopy(placeless.state_dict())
    align_projectors(placeless, None, ("local_projector",), steps=steps)
    after = placeless.state_dict()
    bias = "local_projector.2.bias"
    assert (after[bias] - before[bias]).abs().max().item() == pytest.approx(moved, rel=0.02)
    decayed = (after["local_projector.0.weight"] / before["local_projector.0.weight"])[:, 7]
    shrunk = math.prod(1 - 0.01 * 3e-3 * (1 - k / steps) for k in range(steps))
    assert decayed.median().item() == pytest.approx(shrunk, abs=2e-6)
    assert torch.equal(before["global_projector.0.weight"], after["global_projector.0.weight"])


def test_by_default_alignment_takes_three_hundred_scenes_and_a_thousand_steps(
    placeless, monkeypatch
):
    asked = []

    def stop(model, processor, sides, n, seed, split):
        asked.append((sides, n, seed, split))
        raise InterruptedError

    monkeypatch.setattr("ferretlite.training.alignment._collect_patches", stop)
    with pytest.raises(InterruptedError):
        align_projectors(placeless, None, ("global_projector", "local_projector"))
    assert asked == [(("global", "local"), 300, 0, "train")]


def test_alignment_on_the_wide_world_draws_crowds_on_any_paper(random_model):
    _, processor = random_model
    data = PatchScenes(processor, 3, seed=20, split="wide")
    for i, split in enumerate(("wide", "wide-crowd", "wide-crowd")):
        boxes, names, _ = data[i]
        assert names == [o.phrase for o in make_scene(20 + i, 384, split).objects]


def test_a_projector_that_joins_cells_learns_which_view_shows_what(griffon_model, monkeypatch):
    "Two views, each of one kind of cell: one shows a thing everywhere, the other nothing."
    model, _ = griffon_model
    words = model.get_input_embeddings().weight.detach()
    torch.manual_seed(11)
    cells = torch.randn(2, 1, 1, 32).expand(2, 9, 10, 32).bfloat16()
    owners = torch.tensor([1, 0])[:, None, None].expand(2, 5, 5)
    shares = torch.zeros(2, len(words))
    shares[1, 20] = 1
    edges = torch.tensor([[0.0] * 4, [0.1, 0.3, 0.4, 0.9]])
    found = {"global": (cells, owners, (1, 1))}
    monkeypatch.setattr(
        "ferretlite.training.alignment._collect_patches", lambda *args: (found, shares, edges)
    )
    align_projectors(model, None, ("global_projector",), steps=40)
    wanted = make_object_vectors(shares, edges, torch.zeros_like(edges), words)[1]
    with torch.no_grad():
        places = model.embed_positions((5, 5), (1, 1))
        told, nothing = model.global_projector(cells.float(), places)[:, 2, 2]
    assert (told - wanted).norm() < 0.5 * wanted.norm() and nothing.norm() < 0.5 * wanted.norm()


def test_the_shipped_run_began_with_the_seed_that_is_recorded():
    record = json.loads((WEIGHTS / "tiny" / "run.json").read_text())
    assert record["settings"]["seed"] == 0 and record["settings"]["preset"] == "tiny"
