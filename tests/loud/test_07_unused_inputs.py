"""The model refuses what it would ignore: image tokens without pixels, unknown arguments."""

import pytest
import torch
from small_model import small_ferret

from ferretlite.common.errors import InputError
from ferretlite.regions.geometry import Box
from ferretlite.scenes.world import make_scene


@pytest.fixture(scope="module")
def ferret():
    return small_ferret()


@pytest.fixture(scope="module")
def batch(ferret):
    image = make_scene(3, (96, 96)).image
    return dict(ferret.processor(image, "What is <region>?", [Box(5, 5, 60, 60)]))


def without(batch, *names):
    return {k: v for k, v in batch.items() if k not in names}


PIXELS = ("global_pixels", "local_pixels")


def test_an_image_that_is_not_given_is_missed(ferret, batch):
    n = int((batch["input_ids"] == ferret.model.config.image_token_id).sum())
    with pytest.raises(InputError, match=f"{n} image placeholders without pixels"):
        ferret.model(**without(batch, *PIXELS))
    with pytest.raises(InputError, match=f"{n} image placeholders without pixels"):
        ferret.model.generate(**without(batch, *PIXELS), max_new_tokens=2)


def test_a_region_without_an_image_is_missed(ferret):
    ids = torch.tensor([[1, 9, ferret.model.config.region_token_id, 9]])
    with pytest.raises(InputError, match="1 region placeholders without pixels"):
        ferret.model(input_ids=ids)
    with pytest.raises(InputError, match="1 region placeholders without pixels"):
        ferret.model.generate(ids, max_new_tokens=2)


def test_a_region_that_is_not_given_is_missed(ferret, batch):
    with pytest.raises(ValueError, match="1 region placeholders, expected 0"):
        ferret.model(**without(batch, "regions"))


@torch.no_grad()
def test_a_cache_or_embeddings_stand_for_the_pixels(ferret, batch):
    model, ids = ferret.model, batch["input_ids"]
    whole = model(**batch).logits[:, -1]
    start = dict(batch, input_ids=ids[:, :-1], attention_mask=batch["attention_mask"][:, :-1])
    cache = model(**start, use_cache=True).past_key_values
    step = model(
        input_ids=ids[:, -1:], attention_mask=batch["attention_mask"], past_key_values=cache
    )
    torch.testing.assert_close(step.logits[:, -1], whole, atol=1e-4, rtol=1e-4)
    written = torch.tensor([[model.config.image_token_id]])  # a model may write any token
    mask = torch.ones(1, ids.shape[1] + 1, dtype=torch.long)
    assert (
        model(input_ids=written, attention_mask=mask, past_key_values=cache).logits.isfinite().all()
    )
    maps = model.compute_tower_maps(batch["global_pixels"], batch["local_pixels"])
    seen = {k: batch[k] for k in ("grids", "regions", "image_sizes", "image_of")}
    embeddings = model.embed_prompt(ids, maps, **seen)
    alone = model(inputs_embeds=embeddings).logits[:, -1]
    torch.testing.assert_close(alone, whole, atol=1e-4, rtol=1e-4)
    kept = model(**without(batch, *PIXELS), tower_maps=maps).logits[:, -1]
    torch.testing.assert_close(kept, whole, atol=1e-4, rtol=1e-4)


def test_an_empty_cache_stands_for_nothing(ferret, batch):
    from transformers import DynamicCache

    cache = DynamicCache(config=ferret.model.config.text_config)
    with pytest.raises(InputError, match="image placeholders without pixels"):
        ferret.model(**without(batch, *PIXELS), past_key_values=cache)


def test_a_plain_text_needs_no_pixels(ferret):
    assert ferret.model(input_ids=torch.tensor([[1, 9, 9]])).logits.shape[:2] == (1, 3)


@pytest.mark.parametrize("value", [None, 1])
def test_an_argument_that_nobody_reads_is_refused(ferret, batch, value):
    with pytest.raises(InputError, match="'pixel_values'"):
        ferret.model(**batch, pixel_values=value)
    with pytest.raises(ValueError, match="pixel_values"):
        ferret.model.generate(**batch, pixel_values=value, max_new_tokens=2)


def test_the_language_models_own_arguments_pass(ferret, batch):
    out = ferret.model(**batch, output_attentions=True, return_dict=True, is_causal=True)
    assert out.logits.shape[:2] == batch["input_ids"].shape


def test_a_batch_of_the_collator_is_taken_as_it_is(random_model):
    """transformers' own Trainer passes all that the collator returned, the samples' names too."""
    from ferretlite.data.batches import Collator, ConversationDataset

    model, processor = random_model
    scenes = [make_scene(seed, (96, 96)) for seed in range(2)]
    data = ConversationDataset(scenes, dict(name=1.0))
    batch = Collator(processor, None)([data[0], data[1]])
    assert batch["ids"] and model(**batch).loss.isfinite()
