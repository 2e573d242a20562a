"""Model folders of strangers: no code runs, and every weight arrives; or one sentence says why."""

import ast
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_model import save_small
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

import ferretlite
from ferretlite.app import cli
from ferretlite.common.errors import InputError
from ferretlite.common.files import WEIGHTS
from ferretlite.data.inspection import PAGE_POLICY
from ferretlite.model.folders import check_model_files, load_all_weights, load_own_tokenizer
from ferretlite.model.inference import Ferret
from ferretlite.model.loading import load_model, save_model
from ferretlite.model.towers import load_tower
from ferretlite.pretraining.language import start_language_model
from ferretlite.training.distributed import add_adapters
from ferretlite.training.stages import start_model

PACKAGE = Path(ferretlite.__file__).parent
EYE = "global_tower.embeddings.patch_embedding.weight"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture
def folder(small, tmp_path):
    return shutil.copytree(small, tmp_path / "model")


def is_sentence(text):
    return "\n" not in text and text.endswith(".") and len(text) < 700 and "Traceback" not in text


def change_weights(change):
    "A change of the table of weights, as a function of the folder."

    def write(folder):
        tensors = load_file(folder / "model.safetensors")
        changed = change(tensors) or tensors
        save_file(changed, folder / "model.safetensors", metadata=dict(format="pt"))

    return write


def leave_out(part):
    "A change of a folder: the first tensor with this in its name is missing."
    return change_weights(
        lambda t: {k: v for k, v in t.items() if k != next(n for n in t if part in n)}
    )


def change_json(name, change):
    "A change of a JSON file, as a function of the folder."

    def write(folder):
        table = json.loads((folder / name).read_text(encoding="utf-8"))
        change(table)
        (folder / name).write_text(json.dumps(table), encoding="utf-8")

    return write


def use_index(shard, pickle=False):
    "An index in place of the one file of weights."

    def write(folder):
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        if pickle:
            torch.save(tensors, folder / shard)
        index = dict(metadata=dict(total_size=1), weight_map=dict.fromkeys(tensors, shard))
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return write


def use_pickle(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def name_code(table):
    table["auto_map"] = dict(AutoModel="modeling.Bad", AutoConfig="modeling.BadConfig")


def swap_words(table):
    words = table["model"]["vocab"]
    one, two = sorted(words, key=words.get)[-2:]
    words[one], words[two] = words[two], words[one]


def deepen(table):
    table["text_config"]["num_hidden_layers"] += 1


def misname(tensors):
    tensors["left_tower.weight"] = tensors.pop(EYE)


HOSTILE = {  # name -> (change of a folder, what the sentence says)
    "missing": (leave_out(EYE), f"no weights for {EYE}"),
    "misnamed": (change_weights(misname), f"no weights for {EYE}"),
    "surplus": (
        change_weights(lambda t: {**t, "extra.weight": torch.zeros(2)}),
        "the tensor extra.weight",
    ),
    "misshapen": (change_weights(lambda t: {**t, EYE: torch.zeros(3)}), r"of shape \[3\], expect"),
    "nan": (
        change_weights(lambda t: {**t, EYE: torch.full_like(t[EYE], float("nan"))}),
        f"{EYE} that are not finite",
    ),
    "empty": (change_weights(lambda t: {"nothing": torch.zeros(1)}), "no weights for"),
    "no tensors": (
        lambda f: save_file({}, f / "model.safetensors", metadata=dict(format="pt")),
        "no weights for",
    ),
    "no bytes": (lambda f: (f / "model.safetensors").write_bytes(b""), "a damaged file"),
    "cut": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:-99]
        ),
        "a damaged file",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
    "pickle": (use_pickle, "pytorch_model.bin and no model.safetensors"),
    "pickle in an index": (use_index("pytorch_model.bin", True), "the file 'pytorch_model.bin'"),
    "index outside": (use_index("../model.safetensors"), "the file '../model.safetensors'"),
    "absolute index": (use_index("/etc/model.safetensors"), "the file '/etc/model.safetensors'"),
    "index of nothing": (use_index("model-1.safetensors"), "no model-1.safetensors"),
    "auto_map": (change_json("config.json", name_code), "config.json: found auto_map"),
    "auto_map inside": (
        change_json("config.json", lambda t: name_code(t["text_config"])),
        "config.json: found auto_map",
    ),
    "auto_map of the tokenizer": (
        change_json("tokenizer_config.json", name_code),
        "tokenizer_config.json: found auto_map",
    ),
    "kernel": (
        change_json("config.json", lambda t: t.update(attn_implementation="someone/kernel")),
        'attn_implementation="someone/kernel", a kernel from the hub',
    ),
    "kernel inside": (
        change_json(
            "config.json", lambda t: t["text_config"].update(_attn_implementation="a/b@main")
        ),
        "a kernel from the hub",
    ),
    "kernel by part": (
        change_json("config.json", lambda t: t.update(attn_implementation=dict(text_config="a/b"))),
        "a kernel from the hub",
    ),
    "deeper": (change_json("config.json", deepen), "no weights for language_model.model.layers.2"),
    "swapped words": (change_json("tokenizer.json", swap_words), "with which the model was saved"),
    "other end": (
        change_json("tokenizer_config.json", lambda t: t.update(eos_token="<pad>")),
        "with which the model was saved",
    ),
    "adapter": (
        lambda f: (f / "adapter_config.json").write_text('{"base_model_name_or_path": "a/b"}'),
        "found adapter_config.json",
    ),
    "broken config": (
        change_json("config.json", lambda t: t["text_config"].update(hidden_size="wide")),
        "files that cannot be loaded",
    ),
    "whole numbers": (
        change_weights(lambda t: {k: v.to(torch.int8) for k, v in t.items()}),
        "in the number format I8, expected floating-point numbers",
    ),
    "kernel of an inner field": (
        change_json("config.json", lambda t: t.update(_attn_implementation_internal="a/b")),
        "a kernel from the hub",
    ),
    "number that is none": (
        change_json("config.json", lambda t: t["text_config"].update(rms_norm_eps=float("nan"))),
        "config.json: found rms_norm_eps=nan",
    ),
    "endless layers": (
        change_json("config.json", lambda t: t["text_config"].update(num_hidden_layers=10**9)),
        "expected about .*, as the safetensors hold",
    ),
    "endless words": (
        change_json("config.json", lambda t: t["text_config"].update(vocab_size=10**10)),
        "expected about .*, as the safetensors hold",
    ),
    "endless patches": (
        change_json("config.json", lambda t: t["global_tower"].update(image_size=10**6)),
        "expected about .*, as the safetensors hold",
    ),
    "endless points": (
        change_json("config.json", lambda t: t["sampler"].update(n_points=10**9)),
        "sampler n_points of 1000000000, expected 65536 at most",
    ),
    "endless tiles": (
        change_json("config.json", lambda t: t.update(max_tiles=None, grids=[[1, 10**6]])),
        "grids of 1000000, expected 1024 at most",
    ),
    "cut settings of answers": (
        lambda f: (f / "generation_config.json").write_text("{"),
        "generation_config.json: found no JSON object",
    ),
    "template without a question": (
        lambda f: (f / "chat_template.jinja").write_text(""),
        "leaves the question out",
    ),
    "nested for ever": (
        lambda f: (f / "config.json").write_text('{"a":' * 50_000),
        "config.json",
    ),
    "list for a config": (
        lambda f: (f / "tokenizer_config.json").write_text("[]"),
        "tokenizer_config.json: found no JSON object",
    ),
    "deep config": (
        lambda f: (f / "tokenizer_config.json").write_text("[" * 100_000),
        "tokenizer_config.json: found no JSON object",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_refused_with_one_sentence(name, folder):
    change, says = HOSTILE[name]
    change(folder)
    (folder / "modeling.py").write_text("raise SystemExit('code ran')")
    for load in (load_model, Ferret.load):
        with pytest.raises(InputError, match=says) as error:
            load(str(folder))
        assert is_sentence(str(error.value))


@pytest.mark.parametrize(
    "name", ["missing", "no tensors", "auto_map", "pickle", "swapped words", "nested for ever"]
)
def test_the_command_line_refuses_with_one_sentence(name, folder, tmp_path, capsys):
    HOSTILE[name][0](folder)
    Image.new("RGB", (64, 64)).save(tmp_path / "image.png")
    out = tmp_path / "run"
    for command in (
        ["ask", str(tmp_path / "image.png"), "What is this?", "--model", str(folder)],
        ["train", "--samples", "4", "--from", str(folder), "--out", str(out)],
    ):
        assert cli.main(command) != 0
        said = capsys.readouterr().err
        assert re.search(HOSTILE[name][1], said) and "Traceback" not in said, said
    assert not out.exists()


def test_a_folder_as_it_was_saved_loads(small, folder):
    "Also without a fingerprint, as older versions saved it, and in several files."
    before = load_model(small)[0].state_dict()
    change_json("config.json", lambda t: t.pop("tokenizer_fingerprint"))(folder)
    swapped = load_model(folder)[0]
    assert all(torch.equal(v, before[k]) for k, v in swapped.state_dict().items())
    swapped.save_pretrained(folder, max_shard_size="300KB")
    (folder / "model.safetensors").unlink()
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    again = load_model(folder)[0].state_dict()
    assert all(torch.equal(v, before[k]) for k, v in again.items())


def test_adapters_that_were_not_merged_are_refused(folder):
    pytest.importorskip("peft")
    model, processor = load_model(folder)
    add_adapters(model, 2)
    save_model(model, processor, folder)
    with pytest.raises(InputError, match="found the adapter .*lora_A.*; merge the") as error:
        load_model(folder)
    assert is_sentence(str(error.value))


# Towers and language models


def test_towers_and_language_models_are_checked_alike(begin, tmp_path):
    "`--towers` and `--lm`: missing and surplus tensors, pickles, and a tokenizer of another model."
    towers = shutil.copytree(begin["towers"], tmp_path / "towers")
    leave_out("layers.0")(towers / "global")
    for load in (lambda: load_tower(towers / "global"), lambda: start_model(towers, begin["lm"])):
        with pytest.raises(InputError, match="global: found no weights for .*layers.0") as error:
            load()
        assert is_sentence(str(error.value))
    lm = shutil.copytree(begin["lm"], tmp_path / "lm")
    norm = "model.norm.weight"
    for change, says in (
        (
            change_weights(lambda t: {k: v for k, v in t.items() if k != norm}),
            f"no weights.*{norm}",
        ),
        (
            change_weights(lambda t: {**t, norm: torch.ones(64), "more": torch.ones(1)}),
            "tensor more",
        ),
        (use_pickle, "no model.safetensors"),
    ):
        change(lm)
        for load in (lambda: start_language_model(lm), lambda: start_model(begin["towers"], lm)):
            with pytest.raises(InputError, match=says) as error:
                load()
            assert is_sentence(str(error.value))
    with pytest.raises(InputError, match="found no such folder"):
        start_model(begin["towers"], tmp_path / "nowhere")


def test_the_shipped_models_have_their_tokenizers_fingerprint(tmp_path):
    for name in ("tiny", "tiny-griffon", "tiny-lm", "tiny-griffon-lm"):
        assert re.fullmatch(
            "[0-9a-f]{32}", check_model_files(WEIGHTS / name)["tokenizer_fingerprint"]
        )
        load_own_tokenizer(WEIGHTS / name, AutoConfig.from_pretrained(WEIGHTS / "tiny-lm"))
    lm = shutil.copytree(WEIGHTS / "tiny-lm", tmp_path / "lm")
    change_json("tokenizer.json", swap_words)(lm)
    for load in (start_language_model, load_own_tokenizer):
        with pytest.raises(InputError, match="with which the model was saved"):
            load(lm)


def test_a_saved_language_model_brings_its_fingerprint(begin, tmp_path):
    from ferretlite.pretraining.language import save_language_model

    model, tokenizer, _ = start_language_model(begin["lm"], "griffon")
    save_language_model(model, tokenizer, tmp_path, {})
    again, words, _ = start_language_model(tmp_path)
    assert len(words) == len(tokenizer) and isinstance(again, LlamaForCausalLM)
    change_json("tokenizer.json", swap_words)(tmp_path)
    with pytest.raises(InputError, match="with which the model was saved"):
        start_language_model(tmp_path)


def test_positions_that_old_checkpoints_hold_are_passed_over(begin, tmp_path):
    "Vicuna's files have `rotary_emb.inv_freq`, which models compute today."
    lm = shutil.copytree(begin["lm"], tmp_path / "lm")
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change_weights(lambda t: {**t, name: torch.ones(8)})(lm)
    load_all_weights(AutoModelForCausalLM, lm)


# The code


def list_calls():
    "(file, line, call) of every `from_pretrained` in the package."
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr == "from_pretrained":
                    found.append((path.relative_to(PACKAGE).as_posix(), node.lineno, node))
    return found


def test_every_from_pretrained_refuses_code_of_strangers():
    """Calls of transformers' classes pass trust_remote_code=False; our processor passes it itself,
    and a call of the class above gets what it was given."""
    calls = list_calls()
    assert len(calls) > 6
    for path, line, call in calls:
        owner = ast.unparse(call.func.value)
        if owner in ("FerretProcessor", "cls") or owner.startswith("super("):
            continue
        given = {k.arg: k.value for k in call.keywords}
        value = given.get("trust_remote_code")
        assert isinstance(value, ast.Constant) and value.value is False, f"{path}:{line}"


def test_every_torch_load_reads_tensors_alone():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "torch.load",
                "pickle.load",
            ):
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert given.get("weights_only") == "True", f"{path}:{node.lineno}"


def test_every_page_has_a_policy_and_escapes_what_it_shows():
    "No script, nothing from elsewhere; jinja2 escapes in every environment of the package."
    pages = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        begins = [m.end() for m in re.finditer("<!doctype html>", text, re.IGNORECASE)]
        for begin in begins:
            assert "Content-Security-Policy" in text[begin : begin + 200], path
        pages += len(begins)
        for call in re.findall(r"\bEnvironment\((?!\)\.parse).*?\)", text):
            assert "autoescape=True" in call, f"{path}: {call}"
    assert pages >= 3
    assert PAGE_POLICY.startswith("default-src 'none'") and "script" not in PAGE_POLICY
