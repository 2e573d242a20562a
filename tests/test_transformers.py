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
    GenerationConfig,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    pipeline,
)

from ferretlite import Ferret, FerretForConditionalGeneration, FerretProcessor
from ferretlite.common.errors import InputError
from ferretlite.data.batches import Collator
from ferretlite.model.loading import find_model
from ferretlite.model.tokens import encode_turns
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


# Auto classes and pipelines


def chat(scene, text="Where is it?", **image):
    image = image or dict(image=scene.image)
    parts = [dict(type="image", **image), dict(type="text", text=text)]
    return [dict(role="user", content=parts)]


def test_auto_classes_bring_the_same_model(ferret, folder, batch):
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(folder),
        AutoProcessor.from_pretrained(folder),
    )
    assert type(model) is FerretForConditionalGeneration and type(processor) is FerretProcessor
    with torch.no_grad():
        ours, theirs = (m.eval()(**batch).logits for m in (ferret.model, model))
        torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)  # sums differ by processor


def test_an_import_registers_all_and_draws_nothing(folder):
    """`import ferretlite` is free of torch; any model class brings all auto classes, and neither
    matplotlib nor the drawn world nor pre-training."""
    code = (
        "import sys, ferretlite; assert 'torch' not in sys.modules\n"
        "from ferretlite import FerretForConditionalGeneration\n"
        "from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor\n"
        f"config = AutoConfig.from_pretrained({folder!r})\n"
        "print(type(AutoModelForImageTextToText.from_config(config)).__name__)\n"
        f"print(type(AutoProcessor.from_pretrained({folder!r})).__name__)\n"
        "from ferretlite import Ferret\n"
        "heavy = ('matplotlib', 'ferretlite.scenes.world', 'ferretlite.pretraining')\n"
        "print([m for m in sys.modules if m.startswith(heavy)][:4])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    wanted = [FerretForConditionalGeneration.__name__, "FerretProcessor", "[]"]
    assert run.stdout.split() == wanted, run.stdout + run.stderr


def test_a_pipeline_answers_as_the_model_does(ferret, folder, scene):
    pipe = pipeline("image-text-to-text", model=folder)
    options = dict(max_new_tokens=8, return_full_text=False)
    inputs = ferret.processor(scene.image, "Where is it?")
    out = ferret.model.generate(**inputs, max_new_tokens=8)
    [wanted] = ferret.processor.batch_decode(
        out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    [found] = pipe(text=chat(scene), **options)
    assert found["generated_text"] == wanted
    [found] = pipe(images=scene.image, text="Where is it?", **options)  # a plain question
    assert found["generated_text"] == wanted


def test_a_pipeline_does_not_mix_up_the_images_of_a_batch(ferret, scene):
    "It joins the outputs of our processor in a way of its own, which does not fit them."
    pipe = pipeline("image-text-to-text", model=ferret.model, processor=ferret.processor)
    told = [chat(scene), chat(scene)]
    one_by_one = pipe(text=told, max_new_tokens=2, return_full_text=False)
    assert len(one_by_one) == 2
    with pytest.raises(InputError, match=r"rows about images \[0\] of 2.*batch_size=1"):
        pipe(text=told, max_new_tokens=2, batch_size=2)


def test_a_pipeline_with_a_model_of_one_view(griffon_model, scene):
    "It has no tiles and no crops, and empty tensors would break the pipeline's own collation."
    model, processor = griffon_model
    pipe = pipeline("image-text-to-text", model=model.eval(), processor=processor)
    told = [chat(scene), chat(scene, "How many stars?")]
    assert len(pipe(text=told, max_new_tokens=2)) == 2
    with pytest.raises(InputError, match=r"rows about images \[0\] of 2.*batch_size=1"):
        pipe(text=told, max_new_tokens=2, batch_size=2)


# The processor


def test_a_chat_of_parts_is_our_question(ferret, scene, tmp_path):
    box = scene.objects[0].box
    ours = ferret.processor(scene.image, QUESTION, [box])
    region = [dict(type="text", text="What is in "), dict(type="region", region=box)]
    parts = [dict(type="image", image=scene.image), *region, dict(type="text", text="?")]
    told = [dict(role="user", content=parts)]
    theirs = ferret.processor.apply_chat_template(told, tokenize=True, return_dict=True)
    assert torch.equal(theirs["input_ids"], ours["input_ids"])
    assert torch.equal(theirs["global_pixels"], ours["global_pixels"])
    assert theirs["regions"] == ours["regions"]
    ids = ferret.processor.apply_chat_template(told, tokenize=True)
    assert torch.equal(ids, ours["input_ids"])
    scene.image.save(tmp_path / "scene.png")
    by_path = chat(scene, url=str(tmp_path / "scene.png"))
    found = ferret.processor.apply_chat_template(by_path, tokenize=True, return_dict=True)
    assert torch.equal(found["global_pixels"], ours["global_pixels"])


def test_a_system_message_is_kept(ferret, scene):
    told = [dict(role="system", content="Be brief."), *chat(scene)]
    text = ferret.processor.apply_chat_template(told, add_generation_prompt=True)
    assert text == "<bos><image>USER: Be brief.\nWhere is it?\nASSISTANT:"
    template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    template += "{# with a place for 'system' #}"
    found = ferret.processor.apply_chat_template(told, chat_template=template)
    assert found == "<bos><image>[system]Be brief.[user]Where is it?"


def test_turns_of_a_chat_are_encoded_as_in_training(ferret, scene):
    said = [("What is it?", "star"), ("Which color?", "red")]
    told = chat(scene, said[0][0]) + [dict(role="assistant", content=said[0][1])]
    told += [dict(role="user", content=said[1][0]), dict(role="assistant", content=said[1][1])]
    found = ferret.processor.apply_chat_template(told, tokenize=True, return_dict=True)
    size, grid = found["image_sizes"][0], found["grids"][0].tolist()
    prefix = ferret.processor.encode_prefix(ferret.model.config.count_visual_tokens(grid, size))
    row = encode_turns(ferret.processor.tokenizer, prefix, said, linked=True)
    assert found["input_ids"][0].tolist() == row["input_ids"]


def test_texts_of_a_batch_with_and_without_an_image(ferret, scene):
    finished = ferret.processor.apply_chat_template([chat(scene), chat(scene, "How many stars?")])
    batch = ferret.processor(text=finished, images=[scene.image] * 2, return_tensors="pt")
    questions = ferret.processor([scene.image] * 2, ["Where is it?", "How many stars?"])
    assert torch.equal(batch["input_ids"], questions["input_ids"])
    assert torch.equal(batch["attention_mask"], questions["attention_mask"])
    blind = ferret.processor(text="Where is it?")
    assert set(blind) == {"input_ids", "attention_mask"}
    assert ferret.model.generate(**blind, max_new_tokens=3).shape[0] == 1


def test_what_a_text_cannot_hold_is_refused(ferret, scene):
    processor, image = ferret.processor, scene.image
    finished = processor.apply_chat_template(chat(scene))
    refused = {
        "found 1 texts, 2 images": dict(text=finished, images=[image, image]),
        "found 1 times <image>, expected 0": dict(text=finished),
        "found 0 times <image>": dict(text="USER: Where?\nASSISTANT:", images=image),
        "images: found nothing": dict(text=QUESTION, regions=[Box(1, 1, 9, 9)]),
        "text: found nothing|prompts: found": dict(),
        "return_tensors: found 'np'": dict(text=finished, images=image, return_tensors="np"),
        "padding: found False": dict(text=finished, images=image, padding=False),
        "reserved": dict(text="What is <region_fea>?", images=image),
    }
    for message, arguments in refused.items():
        with pytest.raises(InputError, match=message):
            processor(**arguments)
    messages = {
        "found 2 images": chat(scene) + chat(scene),
        "a role among": [dict(role="robot", content="Where?")],
        "a part with the type": [dict(role="user", content=[dict(type="video")])],
        "a list of messages": [],
        "reserved": [dict(role="user", content="USER: hi")],
        "without a question": [dict(role="system", content="Be brief.")],
    }
    for message, told in messages.items():
        with pytest.raises(InputError, match=message):
            processor.apply_chat_template(told)


def test_arguments_by_the_names_of_transformers(ferret, scene, tmp_path):
    processor = ferret.processor
    processor.save_pretrained(save_directory=tmp_path, push_to_hub=False)
    found = AutoProcessor.from_pretrained(pretrained_model_name_or_path=tmp_path)
    asked = dict(text=["Where is it?"], images=[scene.image], return_tensors="pt")
    options = dict(truncation=False, max_length=None, add_special_tokens=False)
    assert torch.equal(found(**asked, **options)["input_ids"], processor(**asked)["input_ids"])
    with pytest.raises(InputError, match="processor: found 'truncation'"):
        processor(**asked, truncation=True)
    with pytest.raises(InputError, match="push_to_hub"):
        processor.save_pretrained(tmp_path, push_to_hub=True)


def test_options_that_a_chat_template_would_pass_over(ferret, scene):
    write = ferret.processor.apply_chat_template
    for name in ("tools", "documents", "return_assistant_tokens_mask", "temperature"):
        with pytest.raises(InputError, match=f"found '{name}'"):
            write(chat(scene), **{name: [dict(name="ruler")]})
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}{{ tools | length }}"
    told = write(chat(scene), chat_template=template, tools=[dict(name="ruler")])
    assert told == "<bos><image>Where is it?1"


def test_an_image_in_the_form_of_other_programs(ferret, scene, tmp_path):
    scene.image.save(path := tmp_path / "scene.png")
    part = dict(type="image_url", image_url=dict(url=str(path)))
    told = chat(scene)
    told[0]["content"][0] = part
    found, wanted = (
        ferret.processor.apply_chat_template(messages, tokenize=True, return_dict=True)
        for messages in (told, chat(scene))
    )
    assert torch.equal(found["global_pixels"], wanted["global_pixels"])


def test_a_processor_comes_back_from_its_folder(ferret, tmp_path):
    ferret.processor.save_pretrained(tmp_path)
    found = FerretProcessor.from_pretrained(tmp_path)
    assert found.config.to_dict() == ferret.processor.config.to_dict()
    assert found.tokenizer.get_vocab() == ferret.processor.tokenizer.get_vocab()
    assert "FerretProcessor" in repr(found)
    assert found.batch_decode([[5, 6]]) == [found.decode([5, 6])]


# Contracts of the base class


def test_resizing_keeps_both_tables_and_the_configuration(ferret, batch, tmp_path):
    model = copy.deepcopy(ferret.model)
    with torch.no_grad():
        before = model(**batch).logits
        n = before.shape[-1]
        model.resize_token_embeddings(n + 8)
        after = model(**batch).logits
    assert torch.equal(after[..., :n], before) and after.shape[-1] == n + 8
    assert model.config.text_config.vocab_size == model.config.get_text_config().vocab_size == n + 8
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    model.save_pretrained(tmp_path)
    again = FerretForConditionalGeneration.from_pretrained(tmp_path)
    assert again.get_output_embeddings().weight.shape[0] == n + 8


@pytest.mark.parametrize("order", ["model first", "processor first"])
def test_a_model_with_new_words_comes_back(folder, scene, tmp_path, order):
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(folder),
        AutoProcessor.from_pretrained(folder),
    )
    processor.tokenizer.add_tokens(["zebra", "giraffe"])
    model.resize_token_embeddings(len(processor.tokenizer), pad_to_multiple_of=64)
    parts = [model, processor] if order == "model first" else [processor, model]
    for part in parts:
        part.save_pretrained(tmp_path)
    found = Ferret.load(str(tmp_path))
    assert found.model.config.text_config.vocab_size % 64 == 0
    assert found.processor.tokenizer("zebra").input_ids == processor.tokenizer("zebra").input_ids
    assert found.ask(scene.image, "Where is it?", max_new_tokens=2).raw_text


def test_a_table_keeps_the_placeholders(ferret):
    with pytest.raises(InputError, match="resize_token_embeddings: found 3, expected at least 5"):
        copy.deepcopy(ferret.model).resize_token_embeddings(3)


def test_the_loss_is_the_first_entry(ferret, batch, tmp_path):
    with torch.no_grad():
        out = ferret.model(**batch, labels=batch["input_ids"])
        loss, logits = ferret.model(**batch, labels=batch["input_ids"], return_dict=False)[:2]
    assert torch.equal(loss, out.loss) and torch.equal(logits, out.logits)
    assert torch.equal(out[0], loss) and loss.ndim == 0
    trainer = make_trainer(ferret, tmp_path)
    trainer.model.config.return_dict = False
    found = trainer.evaluate()["eval_loss"]
    assert math.isclose(found, make_trainer(ferret, tmp_path).evaluate()["eval_loss"])


def test_hidden_states_that_the_configuration_asks_for(ferret, batch):
    model = copy.deepcopy(ferret.model)
    model.config.output_hidden_states = True
    assert model(**batch).hidden_states is not None
    assert model(**batch, output_hidden_states=False).hidden_states is None


def test_outputs_come_in_the_form_that_is_asked_for(ferret, batch):
    with torch.no_grad():
        out = ferret.model(**batch, output_hidden_states=True)
        found = ferret.model(**batch, return_dict=False)
    assert isinstance(found, tuple) and torch.equal(found[0], out.logits)
    layers = ferret.model.config.text_config.num_hidden_layers
    assert len(out.hidden_states) == layers + 1
    width = ferret.model.config.text_config.hidden_size
    assert out.hidden_states[-1].shape == (*batch["input_ids"].shape, width)


def test_the_loss_of_kept_logits_counts_their_labels(ferret, batch):
    labels = batch["input_ids"]
    with torch.no_grad():
        whole = ferret.model(**batch).logits
        out = ferret.model(**batch, labels=labels, logits_to_keep=4)
    expected = torch.nn.functional.cross_entropy(whole[0, -4:-1], labels[0, -3:])
    torch.testing.assert_close(out.loss, expected)
    with pytest.raises(InputError, match="logits_to_keep"):
        ferret.model(**batch, labels=labels, logits_to_keep=torch.tensor([3]))


def test_a_length_that_a_caller_gives_counts(ferret, batch):
    length = batch["input_ids"].shape[1]
    wanted = [
        (dict(max_length=length + 3), 3),
        (dict(generation_config=GenerationConfig(max_length=length + 3)), 3),
        (dict(max_length=length + 9, max_new_tokens=2), 2),
    ]
    for options, n in wanted:
        out = ferret.model.generate(**batch, eos_token_id=None, **options)
        assert out.shape[1] == length + n, options


def test_texts_that_end_an_answer(ferret, batch):
    "The tokenizer is for the stopping criteria alone, and does not reach the model."
    length, words = batch["input_ids"].shape[1], ferret.processor.tokenizer
    out = ferret.model.generate(**batch, max_new_tokens=6)[0, length:]
    stop = words.decode(out[:2])[-1:]
    found = ferret.model.generate(**batch, max_new_tokens=6, stop_strings=[stop], tokenizer=words)
    assert found.shape[1] - length <= 2


def test_a_second_turn_behind_a_cache_is_whole_or_refused(ferret, batch, scene):
    model, processor = ferret.model, ferret.processor
    first = model.generate(
        **batch, max_new_tokens=3, return_dict_in_generate=True, **no_placeholders(ferret)
    )
    more = processor(scene.image, QUESTION, [scene.objects[1].box])["input_ids"]
    more = more[more != processor.image_id][None, 1:]
    ids = torch.cat([first.sequences, more], 1)
    pixels = {n: batch[n] for n in ("global_pixels", "local_pixels", "grids", "image_sizes")}
    for inputs, message in (({}, "1 placeholders"), (pixels, "pixels beside a cache")):
        with pytest.raises(InputError, match=message):
            cache = copy.deepcopy(first.past_key_values)
            model.generate(ids, past_key_values=cache, max_new_tokens=2, **inputs)


def no_placeholders(ferret):
    "A random model may write placeholders, which a run without a cache would try to fill."
    return dict(suppress_tokens=[ferret.processor.image_id, ferret.processor.region_id])


@pytest.mark.parametrize("options", [{}, dict(num_beams=2), dict(use_cache=False)])
def test_generation_from_embeddings_is_that_from_pixels(ferret, batch, options):
    model, options = ferret.model, options | no_placeholders(ferret)
    maps = model.compute_tower_maps(batch["global_pixels"], batch["local_pixels"])
    names = ("input_ids", "grids", "regions", "image_sizes", "image_of")
    embedded = model.embed_prompt(tower_maps=maps, **{name: batch[name] for name in names})
    wanted = model.generate(**batch, max_new_tokens=6, **options)
    found = model.generate(
        inputs_embeds=embedded,
        attention_mask=batch["attention_mask"],
        max_new_tokens=6,
        **options,
    )
    assert found.tolist() == wanted[:, batch["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("options", [{}, dict(num_beams=3)])
def test_a_cache_changes_no_answer(ferret, batch, options):
    options = options | no_placeholders(ferret)
    with_cache, without = (
        ferret.model.generate(**batch, max_new_tokens=8, use_cache=cached, **options)
        for cached in (True, False)
    )
    assert torch.equal(with_cache, without)


# Weights that lie elsewhere, are whole numbers, or have adapters


def last_logits(model, batch):
    with torch.no_grad():
        return model.eval()(**batch).logits[:, -1].float()


PARTS = ("global_tower", "local_tower", "global_projector", "visual_position", "sampler")


@pytest.mark.parametrize("place", ["disk", "cpu"])
def test_parts_that_are_kept_elsewhere(ferret, folder, batch, tmp_path, place):
    from accelerate import cpu_offload, disk_offload

    elsewhere = copy.deepcopy(ferret.model)
    if place == "disk":
        disk_offload(elsewhere, str(tmp_path), execution_device="cpu")
    else:
        cpu_offload(elsewhere, execution_device="cpu")
    assert all(p.device.type == "meta" for p in elsewhere.sampler.parameters())
    found, wanted = last_logits(elsewhere, batch), last_logits(ferret.model, batch)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_device_map_with_a_part_on_the_disk(ferret, folder, batch, tmp_path):
    names = [name for name, _ in ferret.model.named_children()]
    names += [name for name, _ in ferret.model.named_parameters(recurse=False)]
    places = {name: "disk" if name in PARTS else "cpu" for name in names}
    model = FerretForConditionalGeneration.from_pretrained(
        folder, device_map=places, offload_folder=str(tmp_path)
    )
    wanted = last_logits(ferret.model, batch)
    torch.testing.assert_close(last_logits(model, batch), wanted, rtol=1e-4, atol=1e-4)


def test_questions_to_a_model_whose_weights_lie_elsewhere(ferret, scene):
    "`Ferret.ask` and `Ferret.chat` bring the pixels to the device of the computation."
    from accelerate import cpu_offload

    other = small_ferret()
    cpu_offload(other.model, execution_device="cpu")
    asked = dict(prompt=QUESTION, regions=scene.objects[0].box, max_new_tokens=4)
    wanted = ferret.ask(scene.image, **asked).raw_text
    assert other.model.device.type == "cpu"
    assert other.ask(scene.image, **asked).raw_text == wanted
    assert other.chat(scene.image).ask(**asked).raw_text == wanted


def test_hooks_on_every_layer_run(ferret, batch):
    "Whoever watches a layer (calibration, pruning, sharding) sees it called."
    model, seen = copy.deepcopy(ferret.model), set()
    names = [n for n, m in model.sampler.named_modules() if list(m.parameters(recurse=False))]
    for name in names:
        model.sampler.get_submodule(name).register_forward_hook(lambda *_, n=name: seen.add(n))
    found = last_logits(model, batch)
    assert seen == set(names)
    torch.testing.assert_close(found, last_logits(ferret.model, batch), rtol=1e-4, atol=1e-4)


def test_whole_numbers_as_weights(ferret, batch, scene):
    "`.ci/run` installs torchao beside the environment and runs this test once more."
    torchao = pytest.importorskip("torchao.quantization")
    model = copy.deepcopy(ferret.model)
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
    layer = model.sampler.diff_projector_list[0]
    assert type(layer.weight) is not torch.nn.Parameter  # the sampler is quantised as well
    found, wanted = last_logits(model, batch), last_logits(ferret.model, batch)
    assert torch.nn.functional.cosine_similarity(found, wanted).item() > 0.99
    unused = model.get_output_embeddings().weight[ferret.processor.tokenizer.pad_token_id]
    assert not unused.dequantize().any()  # a row of zeros, of which Float8 makes NaN
    torchao.quantize_(broken := copy.deepcopy(ferret.model), torchao.Float8WeightOnlyConfig())
    with pytest.raises(InputError, match="model: found scores that are no numbers"):
        Ferret(broken, ferret.processor).ask(scene.image, "Where is it?")


def test_a_pruned_layer_computes_without_its_weights(ferret, batch, scene):
    "PyTorch's pruning multiplies a weight by a mask before each call."
    from torch.nn.utils import prune

    linear = [n for n, m in ferret.model.named_modules() if isinstance(m, torch.nn.Linear)]
    names = [n for n in linear if n.endswith(LAYERS)]
    assert len(names) >= 8
    pruned, zeroed = copy.deepcopy(ferret.model), copy.deepcopy(ferret.model)
    for name in names:
        prune.l1_unstructured(layer := pruned.get_submodule(name), "weight", 0.5)
        zeroed.get_submodule(name).weight.data.copy_(layer.weight.detach())
    found, wanted = last_logits(pruned, batch), last_logits(zeroed, batch)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert (found - last_logits(ferret.model, batch)).abs().max() > 1e-2
    answers = [
        Ferret(m, ferret.processor).ask(scene.image, "Where is it?", max_new_tokens=5).raw_text
        for m in (pruned, zeroed)
    ]
    assert answers[0] == answers[1]


def test_scores_that_are_no_numbers_are_no_answer(scene):
    "Such as those of Float8 weights in a row of zeros: torchao divides by its largest number."
    other = small_ferret()
    with torch.no_grad():
        other.model.get_output_embeddings().weight[7] = math.nan
    for ask in (lambda q: other.ask(scene.image, q), lambda q: other.chat(scene.image).ask(q)):
        with pytest.raises(InputError, match="model: found scores that are no numbers") as error:
            ask("Where is it?")
        assert str(error.value).endswith(".")


LAYERS = (
    "diff_projector_list.0",
    "agg_projector_list.0.net.0",
    "flatten_projector",
    "dim_projector",
    "global_projector.0",
    "local_projector.2",
    "local_tower.encoder.layer.1.attention.v_proj",
    "global_tower.encoder.layers.0.mlp.fc1",
    "language_model.model.layers.0.self_attn.q_proj",
)


@pytest.mark.parametrize("part", ["embed_tokens", "lm_head"])
def test_a_changed_table_is_not_read_past(ferret, scene, part):
    "The fast loop of `Ferret.ask` reads weights: with another table it leaves the answer to peft."
    from peft import LoraConfig, get_peft_model

    place = dict(target_modules=["embed_tokens"])
    if part == "lm_head":
        place = dict(target_modules=["q_proj"], modules_to_save=["lm_head"])
    model = get_peft_model(copy.deepcopy(ferret.model), LoraConfig(r=2, **place)).base_model.model
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=3)
    batch = ferret.processor(scene.image, "Where is it?")
    out = model.generate(**batch, max_new_tokens=5)[0, batch["input_ids"].shape[1] :]
    found = Ferret(model, ferret.processor).ask(scene.image, "Where is it?", max_new_tokens=5)
    assert found.raw_text == ferret.processor.decode(out, skip_special_tokens=True).strip()


@pytest.mark.parametrize("name", LAYERS)
def test_adapters_change_the_answer_and_learn(ferret, batch, name):
    from peft import LoraConfig, get_peft_model

    model = copy.deepcopy(ferret.model)
    config = LoraConfig(r=2, target_modules=rf".*{name.replace('.', '[.]')}")
    model = get_peft_model(model, config)
    before = last_logits(model, batch)
    torch.testing.assert_close(before, last_logits(ferret.model, batch), rtol=1e-3, atol=1e-3)
    added = [p for n, p in model.named_parameters() if "lora_B" in n]
    assert len(added) == 1
    with torch.no_grad():  # not constant: a norm would take a constant away
        added[0].copy_(torch.linspace(-1, 1, added[0].numel()).view_as(added[0]))
    assert (last_logits(model, batch) - before).abs().max() > 1e-3
    model.train()(**batch, labels=batch["input_ids"]).loss.backward()
    assert added[0].grad.abs().max() > 0


def test_adapters_of_a_table_of_positions_change_the_answer(ferret, batch):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["position_embedding"], init_lora_weights=False)
    torch.manual_seed(0)
    model = get_peft_model(copy.deepcopy(ferret.model), config)
    assert (last_logits(model, batch) - last_logits(ferret.model, batch)).abs().max() > 1e-3


def test_adapters_learn_except_in_the_layer_that_is_not_read(ferret, batch):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        copy.deepcopy(ferret.model), LoraConfig(r=2, target_modules="all-linear")
    )
    model.train()(**batch, labels=batch["input_ids"]).loss.backward()
    idle = [n for n, p in model.named_parameters() if "lora_B" in n and p.grad is None]
    last = f"global_tower.encoder.layers.{len(ferret.model.global_tower.encoder.layers) - 1}."
    assert len(idle) == 6 and all(last in name for name in idle)  # q, k, v, out, fc1, fc2


def test_all_linear_adapters_are_saved_and_merged(ferret, batch, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    model = get_peft_model(
        copy.deepcopy(ferret.model), LoraConfig(r=2, target_modules="all-linear")
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    wanted = last_logits(model, batch)
    model.save_pretrained(tmp_path / "adapters")
    again = PeftModel.from_pretrained(copy.deepcopy(ferret.model), tmp_path / "adapters")
    torch.testing.assert_close(last_logits(again, batch), wanted)
    merged = again.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    found = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(last_logits(found, batch), wanted, rtol=1e-3, atol=1e-3)


# What an import brings


@pytest.mark.parametrize("module", ["modeling", "processing", "inference", "tokens"])
def test_a_star_import_brings_public_names_alone(module):
    found = {}
    exec(f"from ferretlite.model.{module} import *", found)
    private = {"forward", "ask", "decode", "embed_prompt", "__call__", "see", "look"}
    assert not private & set(found)
