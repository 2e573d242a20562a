"""Plans agree with what can be measured at tiny size; public checkpoints become ours and compute
the same.
"""

import json

import pytest
import test_towers
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from ferretlite.app.cli import main
from ferretlite.evaluation.planning import (
    _count_forward_flop,
    _count_shown_tokens,
    _count_training_flop,
    _make_preset_config,
    _plan_memory,
    count_weights,
    format_plan,
    plan_training,
)
from ferretlite.model.conversion import convert_checkpoint
from ferretlite.model.inference import Ferret
from ferretlite.model.modeling import FerretForConditionalGeneration
from ferretlite.model.towers import PAPER_SIZES
from ferretlite.regions.geometry import Box, Point
from ferretlite.scenes.world import make_scene
from ferretlite.training.stages import STAGES
from ferretlite.vision.ferret_v1_sampler import FerretSampler


def test_published_numbers():
    seven, griffon = (
        count_weights(_make_preset_config("ferret-v2-7b")),
        count_weights(_make_preset_config("griffon-v2-13b")),
    )
    assert (
        seven["sampler"] == 44_069_900 + 4096 * 1024 + 1024
        and griffon["global_projector"] == 73_410_560
    )
    assert (
        6.7e9 < seven["language_model"] < 6.8e9
        and 3.0e8 < seven["global_tower"] < 3.1e8
        and 1.29e10 < griffon["language_model"] < 1.31e10
    )
    assert [
        _count_shown_tokens(_make_preset_config("ferret-v2-7b"), s)["visual_tokens"]
        for s in STAGES["ferret-v2-7b"]
    ] == [256, 1280, 1280]
    assert (
        _count_shown_tokens(_make_preset_config("griffon-v2-13b"), STAGES["griffon-v2-13b"][1])[
            "visual_tokens"
        ]
        == 1369
    )


@pytest.mark.parametrize("preset", [*PAPER_SIZES, "tiny", "tiny-griffon"])
def test_every_preset_has_a_plan(preset):
    found = plan_training(preset)
    assert (
        len(found["stages"]) == 3
        and all(v >= 0 for s in found["stages"] for v in s["memory"].values())
        and found["stages"][2]["tflop"] > 0
    )
    assert "in all" in format_plan(found) and json.dumps(found)
    for s, stage in zip(
        found["stages"], STAGES[preset]
    ):  # what fits is used up to the stage's batch, and no further
        assert sum(s["memory"].values()) <= 0.92 * 80 and s["at_once"] * (
            s["accumulate"] or 1
        ) * 8 <= max(8, stage.batch_size)


def test_more_gpus_more_room_and_less_time():
    eight, many = (plan_training("ferret-v2-13b", gpus=n)["stages"][2] for n in (8, 32))
    assert many["hours"] == pytest.approx(eight["hours"] / 4) and many["memory"][
        "optimiser"
    ] == pytest.approx(eight["memory"]["optimiser"] / 4)
    kept = plan_training("ferret-v2-7b", checkpointing=False)["stages"][2]
    assert (
        kept["at_once"] < plan_training("ferret-v2-7b")["stages"][2]["at_once"]
        and kept["hours"] < plan_training("ferret-v2-7b")["stages"][2]["hours"]
    )
    for sharding, kinds in (
        ("none", ()),
        ("grads", ("gradients", "optimiser")),
        ("full", ("weights", "gradients", "optimiser")),
    ):
        one, two = (
            _plan_memory(_make_preset_config("tiny"), STAGES["tiny"][2], n, 1, 300, sharding)
            for n in (1, 2)
        )
        assert {k for k in one if two[k] == pytest.approx(one[k] / 2) and one[k] != two[k]} == set(
            kinds
        )


def test_what_is_frozen_behind_what_learns_still_passes_gradients_on():
    forward = _count_forward_flop(_make_preset_config("tiny"), STAGES["tiny"][0], 100)
    times = {
        k: v / forward[k]
        for k, v in _count_training_flop(forward, STAGES["ferret-v2-7b"][0].trains).items()
    }
    assert times == dict(global_tower=1, global_projector=3, language_model=2, sampler=2)
    assert {
        k: v / forward[k]
        for k, v in _count_training_flop(
            forward, STAGES["ferret-v2-7b"][0].trains, again=True
        ).items()
    }["language_model"] == 3


def test_plan_on_the_command_line(capsys):
    assert (
        main(["plan", "ferret-v2-7b", "--gpus", "8", "--gpu-memory", "80"]) == 0
        and "7.44 billion weights" in capsys.readouterr().out
    )
    assert (
        main(["plan", "ferret-v2-7b", "--gpus", "2", "--gpu-memory", "24", "--json"]) == 0
        and json.loads(capsys.readouterr().out)["stages"][2]["at_once"] == 0
    )
    assert main(["plan", "giant"]) == 2 and "preset: found 'giant'" in capsys.readouterr().err


# Weights of others

WIDTH, VIEW = 32, 56


@pytest.fixture(scope="module", params=["one layer", "two layers, tiles"])
def public(request, tmp_path_factory):
    """A checkpoint as the public code writes it, small and random: its folder, its tower's, its
    language model, and all weights by their public names.
    """
    folder, tiles = tmp_path_factory.mktemp("public"), "tiles" in request.param
    torch.manual_seed(2)
    words = test_towers.tokenizer_of("vicuna")
    words.add_special_tokens(dict(additional_special_tokens=["<region_fea>"]))
    words.save_pretrained(folder / "model")
    tower = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=VIEW,
            patch_size=14,
        )
    )
    tower.save_pretrained(folder / "clip")
    llm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words),
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
        )
    ).eval()
    sampler = FerretSampler(WIDTH, 48)
    for p in sampler.parameters():
        torch.nn.init.normal_(p, std=0.1)
    weights = {
        **llm.state_dict(),
        **{f"model.region_geo_sampler.{k}": v for k, v in sampler.state_dict().items()},
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6),
    }
    projector = (
        {"0": torch.nn.Linear(WIDTH, 48), "2": torch.nn.Linear(48, 48)}
        if tiles
        else {"": torch.nn.Linear(WIDTH, 48)}
    )
    for name, layer in projector.items():
        weights.update(
            {
                ".".join(filter(None, ("model.mm_projector", name, k))): v
                for k, v in layer.state_dict().items()
            }
        )
    names = sorted(weights)
    for n, part in enumerate((names[::2], names[1::2]), 1):
        save_file(
            {k: weights[k].detach().contiguous().clone() for k in part},
            folder / "model" / f"model-0000{n}-of-00002.safetensors",
        )
    config = llm.config.to_dict() | dict(
        model_type="ferret_llama",
        mm_vision_tower=str(folder / "clip"),
        mm_hidden_size=WIDTH,
        im_region_fea_token=len(words) - 1,
        sampler_pooler_mode="max",
        region_geo_sampler=True,
    )
    (folder / "model" / "config.json").write_text(
        json.dumps(
            config
            | (
                dict(
                    mm_projector_type="mlp2x_gelu",
                    image_aspect_ratio="anyres",
                    mm_patch_merge_type="spatial",
                )
                if tiles
                else {}
            )
        )
    )
    return folder, tower, llm, sampler.eval(), projector, tiles


def test_a_public_checkpoint_computes_the_same_as_ours(public, tmp_path):
    folder, tower, llm, sampler, projector, tiles = public
    assert main(["convert", str(folder / "model"), str(tmp_path / "ours")]) == 0
    ferret = Ferret.load(tmp_path / "ours", device="cpu")
    model, words, scene = ferret.model, ferret.processor.tokenizer, make_scene(3, (90, 120))
    assert (
        model.config.resolution == ("anyres" if tiles else "fixed")
        and words.convert_tokens_to_ids("<region_fea>")
        == model.config.region_token_id
        == words.convert_tokens_to_ids("<image>") - 1
    )
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        assert torch.allclose(
            model.language_model(ids).logits[..., :-1], llm(ids).logits, atol=1e-5
        )
        batch = ferret.processor([scene.image], ["What is in <region>?"], [[Box(20, 20, 60, 70)]])
        whole = tower(batch["global_pixels"], output_hidden_states=True).hidden_states[-2][:, 1:]

        def plain(x):
            return (
                projector["2"](torch.nn.functional.gelu(projector["0"](x)))
                if tiles
                else projector[""](x)
            )

        maps, cut = model.compute_tower_maps(batch["global_pixels"], batch["local_pixels"])
        tokens, fused = model.embed_images(maps, cut, batch["grids"], batch["image_sizes"])
        assert torch.allclose(tokens[0][:16], plain(whole[0]), atol=1e-5) and len(
            tokens[0]
        ) == 16 * (1 + int(batch["grids"].prod()))
        if tiles:
            assert torch.allclose(model.local_projector(cut), plain(cut), atol=1e-5) and fused[
                0
            ].shape[:2] == tuple(4 * g for g in batch["grids"][0].tolist())
        else:
            assert torch.equal(fused[0].flatten(0, 1), maps[0].flatten(0, 1))
        vectors, theirs = (
            s.eval()(fused, [[Box(20, 20, 60, 70), Point(50, 50)]], [(90, 120)])[0]
            for s in (model.sampler, sampler)
        )
        assert torch.equal(vectors, theirs) and model.sampler.__class__ is FerretSampler
    assert (
        ferret.ask(
            scene.image, "What is in this region?", [Point(30, 30)], max_new_tokens=4
        ).raw_text
        is not None
    )


def test_what_is_no_public_checkpoint_is_refused_in_a_sentence(public, tmp_path, capsys):
    folder = public[0]
    for place, says in (
        (tmp_path, "found no config.json"),
        (folder / "clip", "found no weights for global_projector"),
    ):
        assert (
            main(["convert", str(place), str(tmp_path / "out")]) == 2
            and says in capsys.readouterr().err
            and not (tmp_path / "out").exists()
        )
    (tmp_path / "config.json").write_text("{}")
    assert (
        main(["convert", str(tmp_path), str(tmp_path / "out")]) == 2
        and "found no weights" in capsys.readouterr().err
    )


def test_pickled_weights_are_read_as_nothing_but_tensors(public, tmp_path):
    import shutil

    from ferretlite.model.conversion import read_weights

    folder = public[0]
    shutil.copytree(folder / "model", tmp_path / "bin")
    torch.save(read_weights(tmp_path / "bin"), tmp_path / "bin" / "pytorch_model.bin")
    for file in (tmp_path / "bin").glob("*.safetensors"):
        file.unlink()
    ours = convert_checkpoint(tmp_path / "bin", tmp_path / "ours")
    assert all(
        torch.equal(v, w)
        for v, w in zip(
            FerretForConditionalGeneration.from_pretrained(ours).state_dict().values(),
            FerretForConditionalGeneration.from_pretrained(
                convert_checkpoint(folder / "model", tmp_path / "again")
            )
            .state_dict()
            .values(),
        )
    )

    class Evil:
        def __reduce__(self):
            return print, ("never",)

    torch.save(dict(x=Evil()), tmp_path / "bin" / "pytorch_model.bin")
    with pytest.raises(Exception, match="[Ww]eights"):
        read_weights(tmp_path / "bin")


def test_the_rows_that_a_checkpoint_lacks_are_the_mean_of_the_others(public, tmp_path):
    "`<image>` comes behind the 48-channel rows of the public vocabulary."
    folder, _, llm, *_ = public
    ours = FerretForConditionalGeneration.from_pretrained(
        convert_checkpoint(folder / "model", tmp_path / "o")
    )
    for name in ("get_input_embeddings", "get_output_embeddings"):
        old, new = (getattr(m, name)() for m in (llm, ours))
        assert len(new.weight) == len(old.weight) + 1 and torch.equal(new.weight[:-1], old.weight)
        assert torch.allclose(new.weight[-1], old.weight.mean(0), atol=1e-6)
    assert torch.equal(ours.bottleneck.weight, torch.eye(WIDTH))
    half = FerretForConditionalGeneration.from_pretrained(
        convert_checkpoint(folder / "model", tmp_path / "half", dtype=torch.float16), dtype="auto"
    )
    assert half.dtype == torch.float16
    with pytest.raises(ValueError, match="found a model in it"):
        convert_checkpoint(folder / "model", tmp_path / "o")
