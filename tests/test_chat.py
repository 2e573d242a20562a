"Conversations: the cache changes no answer, regions of later questions are read, streamers work."

import pytest
import torch
from small_model import small_ferret
from transformers import TextIteratorStreamer

from ferretlite.common.errors import InputError
from ferretlite.model.inference import Ferret
from ferretlite.scenes.world import make_scene

SCENE = make_scene(5, 96)
FIRST, SECOND = (o.box for o in SCENE.objects[:2])


@pytest.fixture(scope="module")
def ferret():
    found = small_ferret()
    # a random model writes placeholders, which a run without a cache would try to fill
    placeholders = [found.processor.image_id, found.processor.region_id]
    found.model.generation_config.suppress_tokens = placeholders
    return found


def answer_without_a_cache(ferret, asked, answers, max_new_tokens):
    "The tokens of the last answer, when the whole conversation is one row."
    processor, rows = ferret.processor, []
    inputs = processor(SCENE.image, asked[0][0], asked[0][1])
    ids = inputs["input_ids"][0].tolist()
    for (prompt, regions), answer in zip(asked[1:], answers):
        ids += answer
        if ids[-1] != processor.tokenizer.eos_token_id:
            ids.append(processor.tokenizer.eos_token_id)
        rows = processor(SCENE.image, prompt, regions)["input_ids"][0].tolist()
        ids += [i for i in rows if i != processor.image_id][1:]
    inputs["input_ids"] = torch.tensor([ids])
    inputs["attention_mask"] = torch.ones(1, len(ids), dtype=torch.long)
    inputs["regions"] = [[r for _, regions in asked for r in regions]]
    out = ferret.model.generate(**inputs, max_new_tokens=max_new_tokens, use_cache=False)
    return out[0, len(ids) :].tolist()


def test_each_answer_is_that_of_the_whole_conversation(ferret):
    asked = [
        ("What is in <region>?", [FIRST]),
        ("And in <region>?", [SECOND]),
        ("How many stars are there?", []),
        ("Is <region> like <region>?", [SECOND, FIRST]),
    ]
    chat, answers = ferret.chat(SCENE.image), []
    for number, (prompt, regions) in enumerate(asked, start=1):
        chat.ask(prompt, regions, max_new_tokens=6)
        n = len(ferret.processor.tokenizer(chat.answers[-1].raw_text).input_ids)
        assert n <= 8 and len(chat.answers) == number
        wanted = answer_without_a_cache(ferret, asked[:number], answers, 6)
        answers.append(chat.ids[-len(wanted) :])
        assert answers[-1] == wanted, prompt


def test_the_first_answer_is_that_of_ask(ferret):
    chat = ferret.chat(SCENE.image)
    found = chat.ask("What is in <region>?", FIRST, max_new_tokens=6)
    wanted = ferret.ask(SCENE.image, "What is in <region>?", FIRST, max_new_tokens=6)
    assert found.to_dict() == wanted.to_dict()


def test_the_towers_see_the_image_once(ferret, monkeypatch):
    seen, compute = [], ferret.model.compute_tower_maps

    def count(*views):
        seen.append(views)
        return compute(*views)

    monkeypatch.setattr(ferret.model, "compute_tower_maps", count)
    chat = ferret.chat(SCENE.image)
    for _ in range(3):
        chat.ask("What is in <region>?", FIRST, max_new_tokens=2)
    assert len(seen) == 1


@pytest.mark.parametrize(
    "prompt, regions", [("USER: hi", None), ("<region> <region>?", FIRST), ("star " * 3000, None)]
)
def test_a_refused_question_leaves_the_conversation_as_it_was(ferret, prompt, regions):
    chat, other = ferret.chat(SCENE.image), ferret.chat(SCENE.image)
    for one in (chat, other):
        one.ask("Where is it?", max_new_tokens=3)
    with pytest.raises(InputError):
        chat.ask(prompt, regions)
    found, wanted = (one.ask("How many?", max_new_tokens=3) for one in (chat, other))
    assert found.raw_text == wanted.raw_text and chat.ids == other.ids


def test_an_interrupted_answer_leaves_the_conversation_as_it_was(ferret):
    class Stop:
        "A streamer that stops at the second token that it gets."

        def __init__(self):
            self.got = 0

        def put(self, _):
            self.got += 1
            if self.got > 2:
                raise KeyboardInterrupt

        def end(self):
            pass

    chat, other = ferret.chat(SCENE.image), ferret.chat(SCENE.image)
    with pytest.raises(KeyboardInterrupt):
        chat.ask("Where is it?", max_new_tokens=9, streamer=Stop())
    found, wanted = (one.ask("How many?", max_new_tokens=3) for one in (chat, other))
    assert found.raw_text == wanted.raw_text


def test_a_streamer_gets_the_answer(ferret):
    words = ferret.processor.tokenizer
    streamer = TextIteratorStreamer(words, skip_prompt=True, skip_special_tokens=True, timeout=30)
    answer = ferret.chat(SCENE.image).ask("Where is it?", max_new_tokens=9, streamer=streamer)
    assert "".join(streamer).strip() == answer.raw_text


def test_a_model_without_a_sampler_converses(griffon_model):
    chat = Ferret(*griffon_model).chat(SCENE.image)
    assert [chat.ask("Where is the star?", max_new_tokens=3) for _ in range(2)] == chat.answers


@pytest.mark.parametrize("options", [dict(max_new_tokens=True), dict(max_new_tokens=0.5)])
def test_a_limit_that_is_no_number_of_tokens(ferret, options):
    with pytest.raises(InputError, match="max_new_tokens: found"):
        ferret.chat(SCENE.image).ask("Where is it?", **options)


def test_what_is_no_streamer(ferret):
    with pytest.raises(InputError, match="streamer: found 5"):
        ferret.chat(SCENE.image).ask("Where is it?", streamer=5)


def test_beams_that_the_settings_ask_for_do_not_enter_the_cache():
    other = small_ferret()
    other.model.generation_config.num_beams = 3
    chat, wanted = other.chat(SCENE.image), small_ferret().chat(SCENE.image)
    for one in (chat, wanted):
        one.ask("Where is it?", max_new_tokens=3)
        one.ask("How many?", max_new_tokens=3)
    assert chat.ids == wanted.ids
