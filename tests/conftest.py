"Shared set-up: few threads, no network, and the markers `slow`, `cuda`, `triton` and `ocr`."

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; subprocesses inherit it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault(
    "HF_HUB_OFFLINE", "1"
)  # the tests need no download: one that tries should fail

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, settings

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=50)
if os.environ.get(
    "FERRETLITE_NO_SHRINKING"
):  # set by tools/mutants.py: a failure is enough, the smallest example is not wanted
    settings.register_profile(
        "ci",
        deadline=None,
        derandomize=True,
        max_examples=50,
        phases=(Phase.explicit, Phase.generate),
    )
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write tests/golden anew from what the code does now",
    )


def pytest_collection_modifyitems(config, items):
    "Skip what this machine or this run is not for."
    missing = {
        "slow": None if config.getoption("--slow") else "takes minutes: run with --slow",
        "exercises": (
            None
            if "exercises" in config.getoption("-m")
            else "takes minutes: run with -m exercises"
        ),
        "cuda": None if torch.cuda.is_available() else "needs a CUDA GPU",
        "triton": None if find_spec("triton") else "needs the triton extra",
        "ocr": (
            None if find_spec("rapidocr") and find_spec("onnxruntime") else "needs the ocr extra"
        ),
    }
    for item in items:
        for name, reason in missing.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def real_files() -> Path:
    "The folder of real public files, which the project may not ship."
    folder = os.environ.get("FERRETLITE_REAL_FILES")
    if not folder:
        pytest.skip("FERRETLITE_REAL_FILES does not name a folder of real public files")
    return Path(folder)


@pytest.fixture(scope="session")
def parts():
    """The pieces of a random model with two-layer towers: (global config, local config, LLM config,
    tokenizer).
    """
    from ferretlite.model.corpus import make_corpus
    from ferretlite.model.tokens import tiny_llama_config, train_tokenizer
    from ferretlite.vision.encoders import make_tiny_clip_config, make_tiny_dino_config

    tokenizer = train_tokenizer(make_corpus(24), 400)
    return (
        make_tiny_clip_config(32, 2, patch_size=24),
        make_tiny_dino_config(32, 2, patch_size=24),
        tiny_llama_config(tokenizer, 64, 2),
        tokenizer,
    )


@pytest.fixture
def random_model(parts):
    """A fresh (model, processor) with random weights, in eval mode: 16 visual tokens a view, up to
    4 tiles.
    """
    from ferretlite.model.configuration import FerretConfig
    from ferretlite.model.modeling import FerretForConditionalGeneration
    from ferretlite.model.processing import FerretProcessor

    *towers, llm, tokenizer = parts
    torch.manual_seed(0)
    config = FerretConfig(
        global_tower=towers[0].to_dict(),
        local_tower=towers[1].to_dict(),
        text_config=llm.to_dict(),
        sampler=dict(n_points=16, n_centers=[4, 2], n_neighbors=[4, 2]),
        **dict(
            zip(
                ("image_token_id", "region_token_id"),
                tokenizer.convert_tokens_to_ids(["<image>", "<region_fea>"]),
            )
        ),
    )
    return FerretForConditionalGeneration(config).eval(), FerretProcessor(config, tokenizer)


@pytest.fixture(scope="session")
def begin(parts, tmp_path_factory):
    "Folders of random towers and a random language model for `train` to start from."
    from transformers import LlamaForCausalLM

    from ferretlite.vision.encoders import build_tower

    folder = tmp_path_factory.mktemp("begin")
    torch.manual_seed(1)
    for side, config in zip(("global", "local"), parts):
        build_tower(config).save_pretrained(folder / "towers" / side)
    LlamaForCausalLM(parts[2]).save_pretrained(folder / "lm")
    parts[3].save_pretrained(folder / "lm")
    return dict(towers=folder / "towers", lm=folder / "lm", progress=False)


@pytest.fixture
def griffon_model(parts):
    """A fresh random (model, processor) of Griffon's kind: one large view, a strided convolution
    (25 visual tokens), pictures in questions.
    """
    import copy

    from ferretlite.model.configuration import FerretConfig
    from ferretlite.model.modeling import FerretForConditionalGeneration
    from ferretlite.model.processing import FerretProcessor
    from ferretlite.model.tokens import add_crop_token

    tower, _, llm, tokenizer = copy.deepcopy(parts)
    llm.vocab_size = len(add_crop_token(tokenizer))
    torch.manual_seed(0)
    config = FerretConfig(
        global_tower=tower.to_dict(),
        crop_tower=tower.to_dict(),
        text_config=llm.to_dict(),
        resolution="direct",
        direct_view=(216, 240),
        projector="conv",
        style="griffon",
        projector_dim=32,
        sampler=dict(n_points=16, n_centers=[4, 2], n_neighbors=[4, 2]),
        **dict(
            zip(
                ("image_token_id", "region_token_id", "crop_token_id"),
                tokenizer.convert_tokens_to_ids(["<image>", "<region_fea>", "<crop_fea>"]),
            )
        ),
    )
    return FerretForConditionalGeneration(config).eval(), FerretProcessor(config, tokenizer)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each exam with two scenes."""
    from ferretlite.exams.runs import EXAMS
    from ferretlite.scenes.world import make_scene

    scenes, top = [make_scene(i, 96, "test") for i in range(2)], tmp_path_factory.mktemp("exams")
    for name, exam in EXAMS.items():
        exam.example(scenes, top / name)
    return {name: top / name for name in EXAMS}
