"""What programs written for transformers expect: its Trainer, its auto classes and its pipelines
work on our model as they are.
"""

import copy
import math
import random
import subprocess
import sys

import pytest
import torch
from small_model import save_small, small_ferret
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    pipeline,
)

from ferretlite import FerretForConditionalGeneration, FerretProcessor
from ferretlite.common.errors import InputError
from ferretlite.data.batches import Collator
from ferretlite.model.loading import find_model
from ferretlite.regions.geometry import Box
from ferretlite.scenes.conversations import make_conversation
from ferretlite.scenes.tasks import TASKS
from ferretlite.scenes.world import make_scene
from ferretlite.training.distributed import SteadyTrainer

QUESTION = "What is in <region>?"


@pytest.fixture(scope="module")
def ferret():
    return small_ferret()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_small(tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="module")
def scene():
    return make_scene(5, 96)


@pytest.fixture
def batch(ferret, scene):
    return dict(ferret.processor(scene.image, QUESTION, [scene.objects[0].box]))


def conversations(n, first=0):
    weights = dict.fromkeys(TASKS, 1)
    return [
        make_conversation(make_scene(first + i, 96), weights, random.Random(i), 2) for i in range(n)
    ]


def make_trainer(ferret, out, trainer_class=Trainer, **options):
    "Return transformers' Trainer on a copy of a small model, with settings as a user gives them."
    settings = dict(
        max_steps=4,
        per_device_train_batch_size=2,
        logging_steps=1,
        remove_unused_columns=False,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    trainer = trainer_class(
        copy.deepcopy(ferret.model),
        TrainingArguments(str(out), **settings),
        train_dataset=conversations(8),
        eval_dataset=conversations(2, first=50),
        data_collator=Collator(ferret.processor, None),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


# transformers' Trainer


def test_smoothed_labels_are_shifted(ferret, tmp_path):
    trainer = make_trainer(ferret, tmp_path, label_smoothing_factor=0.1)
    batch = Collator(ferret.processor, None)(conversations(2))
    logits, labels = trainer.model(**batch).logits, batch["labels"]
    expected = torch.nn.functional.cross_entropy(  # PyTorch's own smoothing
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), label_smoothing=0.1
    )
    found = trainer.compute_loss(trainer.model, dict(batch))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


BEST = dict(
    load_best_model_at_end=True,
    eval_strategy="steps",
    eval_steps=1,
    save_steps=1,
    metric_for_best_model="eval_loss",
    greater_is_better=True,  # so that the first checkpoint counts as the best
)


@pytest.mark.parametrize("trainer_class", [Trainer, SteadyTrainer])
@pytest.mark.parametrize("limit", [None, 1])
def test_the_best_checkpoint_comes_back_whole(ferret, tmp_path, trainer_class, limit):
    trainer = make_trainer(ferret, tmp_path, trainer_class, save_total_limit=limit, **BEST)
    trainer.train()
    state = trainer.state
    losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
    assert losses[0] == max(losses) > losses[-1]
    assert state.best_model_checkpoint == str(tmp_path / f"checkpoint-{state.best_global_step}")
    assert math.isclose(trainer.evaluate()["eval_loss"], losses[0], rel_tol=1e-6)
    kept = len(list(tmp_path.glob("checkpoint-*")))
    assert kept == (4 if limit is None else 1)  # the best one


def test_a_run_of_the_plain_trainer_resumes_bit_for_bit(ferret, tmp_path):
    whole = make_trainer(ferret, tmp_path / "whole", save_steps=2)
    whole.train()
    again = make_trainer(ferret, tmp_path / "again", save_steps=2)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    wanted = whole.model.state_dict()
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name


def test_every_saved_name_is_loaded_back(ferret, tmp_path):
    "Through files of one shard and of several, as Trainer loads them: not strictly."
    from transformers.trainer_utils import load_sharded_checkpoint

    ferret.model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    other = small_ferret(seed=1).model
    load_sharded_checkpoint(other, str(tmp_path), strict=False)
    wanted = ferret.model.state_dict()
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name


def test_a_name_that_is_left_over_is_refused(ferret):
    with pytest.raises(InputError, match="found eyes.weight"):
        ferret.model.load_state_dict({"eyes.weight": torch.zeros(1)}, strict=False)


def test_training_is_in_32_bits_or_refused(ferret, folder, batch):
    half = copy.deepcopy(ferret.model).half()
    with pytest.raises(InputError, match="in float16"):
        half.train()(**batch)
    path = find_model("tiny")  # stored in 16 bits
    assert FerretForConditionalGeneration.from_pretrained(path).dtype == torch.float32
    assert AutoModelForImageTextToText.from_pretrained(path).dtype == torch.float32
    read = FerretForConditionalGeneration.from_pretrained(path, dtype=torch.bfloat16)
    assert read.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["tiny", "tiny-griffon"])
def test_generation_is_not_cut_at_20_tokens(name):
    model = FerretForConditionalGeneration.from_pretrained(find_model(name))
    assert model.generation_config.max_new_tokens == 512
    special = model.generation_config.bos_token_id, model.generation_config.eos_token_id
    assert special == (1, 2)
