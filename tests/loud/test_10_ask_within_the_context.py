"""A prompt longer than the position table is refused, and an answer ends at the last position."""

import pytest
import torch
from small_model import small_ferret

from ferretlite.common.errors import InputError
from ferretlite.model.inference import Ferret
from ferretlite.scenes.world import make_scene

SCENE = make_scene(3, (96, 96), "test")


def ferret_with(positions):
    ferret = small_ferret()
    ferret.model.config.text_config.max_position_embeddings = positions
    ferret.processor.config.text_config.max_position_embeddings = positions
    return ferret


def count_tokens(ferret, prompt):
    return ferret.processor(SCENE.image, prompt)["input_ids"].shape[1]


def test_the_shipped_model_refuses_what_it_cannot_read():
    ferret = Ferret.load("tiny", device="cpu")
    image = make_scene(12, split="test").image
    with pytest.raises(InputError, match="2585 tokens.* 2048"):
        ferret.ask(image, "where is the star? " * 400)
    with pytest.raises(InputError, match="2585 tokens.* 2048"):
        ferret.ask(image, ["Find all objects.", "where is the star? " * 400])


def test_generate_refuses_a_prompt_without_room_for_an_answer():
    model = ferret_with(64).model
    ids = torch.full((1, 64), 9)
    assert model.generate(ids[:, :63], max_new_tokens=1, pad_token_id=0).shape == (1, 64)
    with pytest.raises(InputError, match="64 tokens.* fewer than 64"):
        model.generate(ids, max_new_tokens=1, pad_token_id=0)


def test_generate_ends_at_the_last_position():
    model = ferret_with(64).model
    options = dict(max_new_tokens=50, pad_token_id=0, eos_token_id=None, do_sample=False)
    assert model.generate(torch.full((1, 60), 9), **options).shape == (1, 64)
    assert model.generate(torch.full((1, 10), 9), **options).shape == (1, 60)


def test_an_answer_that_fills_the_context_says_so():
    length = count_tokens(small_ferret(), "Find all objects.")
    answer = ferret_with(length + 3).ask(SCENE.image, "Find all objects.", max_new_tokens=20)
    assert answer.finish_reason == "length"
    assert (
        f"cut off after 3 tokens: it may be incomplete (the context of {length + 3} tokens"
        in (answer.warnings[-1])
    )


def test_a_long_neighbour_shortens_no_answer():
    short, long = "Find all objects.", "Where is the red star beside the blue cup? " * 3
    ferret = ferret_with(count_tokens(small_ferret(), long) + 3)
    together = ferret.ask(SCENE.image, [short, long], max_new_tokens=12)
    alone = [ferret.ask(SCENE.image, p, max_new_tokens=12) for p in (short, long)]
    assert [a.raw_text for a in together] == [a.raw_text for a in alone]
    assert [a.warnings for a in together] == [a.warnings for a in alone]
    assert "cut off after 3 tokens" in together[1].warnings[-1]
    assert "cut off after 3 tokens" not in "".join(together[0].warnings)
