"""All names of other libraries that we use and that those libraries do not promise to keep: one
table, and one test for each name. A new release of a library is tried against this file first.
"""

import ast
import inspect
import warnings
from pathlib import Path

import accelerate.utils
import pytest
import torch
import transformers
from small_model import small_ferret
from transformers import GenerationMixin, PreTrainedModel, ProcessorMixin, Trainer
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto import modeling_auto
from transformers.utils import TransformersKwargs

from ferretlite.scenes.world import make_scene

PACKAGE = Path(__file__).resolve().parent.parent / "ferretlite"

OVERRIDDEN = {  # (class, private method that we replace) -> arguments that we rely on
    (PreTrainedModel, "_init_weights"): ("module",),
    (GenerationMixin, "_expand_inputs_for_generation"): (
        "expand_size",
        "is_encoder_decoder",
        "input_ids",
    ),
    (GenerationMixin, "_prepare_generation_config"): ("generation_config",),
    (GenerationMixin, "_validate_generated_length"): (
        "generation_config",
        "input_ids_length",
        "has_default_max_length",
    ),
    (Trainer, "_save"): ("output_dir", "state_dict"),
    (Trainer, "_save_checkpoint"): ("model", "trial"),
    (Trainer, "_load_from_checkpoint"): ("resume_from_checkpoint", "model"),
    (Trainer, "_get_output_dir"): ("trial",),
    (Trainer, "_get_train_sampler"): (),
}
READ = {  # private attribute that we read or set -> where it lies; why
    "_no_split_modules": PreTrainedModel,  # layers that one device holds whole
    "_supports_sdpa": PreTrainedModel,  # fast attention is allowed
    "_attn_implementation": transformers.LlamaConfig(),  # form of masks
    "_name_or_path": transformers.LlamaConfig(),  # emptied before saving
    "_get_default_generation_params": transformers.GenerationConfig,  # fields of old files
    "_prepare_inputs": Trainer,  # moves a batch to the device
    "_n_gpu": transformers.TrainingArguments("unused", use_cpu=True),  # one GPU a process
    "_enabled": torch.autocast("cpu", enabled=False),  # whether autocast is on
    "_hf_hook": None,  # Accelerate's hook on a module whose weights move; tested below
    "_prepare": None,  # pycocotools' reading of both files; tested by test_exams_parity
    "_gts": None,  # and what it fills: boxes by picture and category
    "_dts": None,
    "_from_auto": None,  # sent by AutoProcessor; tested by test_transformers
}
UNPROMISED = {  # public by its name, without documentation -> arguments that we rely on
    revert_weight_conversion: ("model", "state_dict"),  # names in files
    accelerate.utils.align_module_device: ("module",),  # brings the weights of one module
}


@pytest.mark.parametrize("owner, name", OVERRIDDEN, ids=lambda x: getattr(x, "__name__", x))
def test_a_method_that_we_replace_is_called_as_before(owner, name):
    arguments = inspect.signature(getattr(owner, name)).parameters
    assert set(OVERRIDDEN[owner, name]) <= set(arguments)


@pytest.mark.parametrize("name", [name for name, owner in READ.items() if owner is not None])
def test_a_private_attribute_exists(name):
    assert hasattr(READ[name], name)


@pytest.mark.parametrize("function", UNPROMISED, ids=lambda f: f.__name__)
def test_a_function_without_documentation_takes_its_arguments(function):
    assert set(UNPROMISED[function]) <= set(inspect.signature(function).parameters)


def test_accelerate_marks_modules_whose_weights_move():
    layer = torch.nn.Sequential(torch.nn.Linear(2, 2))
    accelerate.cpu_offload(layer, execution_device="cpu")
    assert hasattr(layer[0], "_hf_hook") and layer[0]._hf_hook.execution_device is not None


def test_the_trainer_shifts_labels_of_the_classes_in_its_table():
    assert "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES" in inspect.getsource(Trainer.compute_loss)
    assert modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["llama"] == "LlamaForCausalLM"


def test_layers_that_recompute_are_known_by_their_class():
    layers = small_ferret().model.language_model.model.layers
    assert all(isinstance(layer, GradientCheckpointingLayer) for layer in layers)


def test_optional_arguments_of_models_are_listed():
    assert {"output_attentions", "output_hidden_states"} <= TransformersKwargs.__optional_keys__


def test_a_step_knows_whether_it_is_the_first_one():
    arguments = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
    assert {"past_key_values", "is_first_iteration"} <= set(arguments)


def test_generation_uses_nothing_that_is_announced_to_change(caplog):
    """`past_key_values` is a Cache object everywhere, never a tuple; a cache is cut by a negative
    number. The library announces changes of both as warnings."""
    ferret, image = small_ferret(), make_scene(5, 96).image
    transformers.utils.logging.enable_propagation()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            warnings.simplefilter("error", DeprecationWarning)
            inputs = ferret.processor(image, "Where is it?")
            out = ferret.model(**inputs, use_cache=True)
            ferret.model.generate(**inputs, max_new_tokens=3)
            chat = ferret.chat(image)
            chat.ask("Where is it?", max_new_tokens=2)
    finally:
        transformers.utils.logging.disable_propagation()
    assert isinstance(out.past_key_values, transformers.Cache)
    length = out.past_key_values.get_seq_length()
    out.past_key_values.crop(-2)
    assert out.past_key_values.get_seq_length() == length - 2
    told = [r.message for r in caplog.records if "deprecat" in r.message or "removed" in r.message]
    assert not told


def private_names() -> tuple:
    "Return the private names that our code reads, and those that it defines."
    read, own = set(), set()
    for path in PACKAGE.glob("*/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                (own if isinstance(node.ctx, ast.Store) else read).add(node.attr)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Name | ast.arg):
                own.add(getattr(node, "id", None) or node.arg)
    return [{n for n in names if n[:1] == "_" and n[:2] != "__"} for names in (read, own)]


ELSEWHERE = {  # names of other libraries, and those of PyTorch that its own documentation uses
    "_exit",  # os: documented, ends a process at once
    *("_dynamo", "_version", "_forward_hooks", "_forward_pre_hooks"),  # PyTorch
    "_Namespace__attrs",  # jinja2: variables of a template, tested by loud/test_18_bounds_of_asking
}


def test_the_tables_are_complete():
    read, own = private_names()
    bases = (PreTrainedModel, GenerationMixin, ProcessorMixin, Trainer)
    replaced = {(b, n) for b in bases for n in own if n in vars(b) and callable(getattr(b, n))}
    assert {name for _, name in replaced} <= {name for _, name in OVERRIDDEN}
    unknown = read - own - set(READ) - {name for _, name in OVERRIDDEN} - ELSEWHERE
    assert not unknown
