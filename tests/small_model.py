"""A model of half a million random weights, for tests of everything around a model; `Scripted`
puts words in its mouth.
"""

import random
from functools import lru_cache

import torch

from ferretlite.model.configuration import FerretConfig
from ferretlite.model.inference import Ferret
from ferretlite.model.modeling import FerretForConditionalGeneration
from ferretlite.model.processing import FerretProcessor
from ferretlite.model.tokens import IMAGE_TOKEN, REGION_TOKEN, tiny_llama_config, train_tokenizer
from ferretlite.scenes.conversations import make_conversation
from ferretlite.scenes.tasks import TASKS
from ferretlite.scenes.world import make_scene
from ferretlite.vision.encoders import make_tiny_clip_config, make_tiny_dino_config


@lru_cache
def tokenizer():
    turns = [
        t
        for i in range(20)
        for t in make_conversation(
            make_scene(i, 96), dict.fromkeys(TASKS, 1), random.Random(i), 6
        ).turns
    ]
    return train_tokenizer(
        [text for t in turns for text in (t.prompt.replace("<region>", "[1, 2]"), t.answer)]
    )


def small_ferret(seed=0) -> Ferret:
    words = tokenizer()
    image, region = words.convert_tokens_to_ids([IMAGE_TOKEN, REGION_TOKEN])
    config = FerretConfig(
        global_tower=make_tiny_clip_config(64, 3).to_dict(),
        local_tower=make_tiny_dino_config(64, 2).to_dict(),
        text_config=tiny_llama_config(words, 64, 2).to_dict(),
        image_token_id=image,
        region_token_id=region,
        sampler=dict(n_points=64, n_centers=[16, 4], n_neighbors=[8, 4]),
    )
    torch.manual_seed(seed)
    model = FerretForConditionalGeneration(config)
    with (
        torch.no_grad()
    ):  # far from the uniform distribution, so that greedy choices are clear and vary
        for p in model.language_model.parameters():
            p.mul_(4 if p.ndim > 1 else 1)
    return Ferret(model, FerretProcessor(config, words))


def embed_batch(model, input_ids, global_pixels=None, local_pixels=None, **rest):
    "The filled embeddings of a batch, from its pixels."
    if global_pixels is not None:
        rest["tower_maps"] = model.compute_tower_maps(global_pixels, local_pixels)
    return model.embed_prompt(input_ids, **rest)


def save_small(folder, seed=0):
    ferret = small_ferret(seed)
    ferret.model.save_pretrained(folder)
    ferret.processor.save_pretrained(folder)
    return folder


class Scripted(Ferret):
    "Writes the given texts, token by token, whatever it sees; remembers what it was asked."

    def __init__(self, *texts, ends=True):
        real = small_ferret()
        super().__init__(real.model, real.processor)
        self.texts, self.ends, self.asked = list(texts), ends, []

    def _generate(self, images, prompts, regions, crops, max_new_tokens, temperature):
        words = self.processor.tokenizer
        self.processor(images, prompts, regions, crops)  # checks the question
        self.asked += prompts
        rows = [
            words(" " + self.texts.pop(0), add_special_tokens=False).input_ids
            + [words.eos_token_id] * self.ends
            for _ in prompts
        ]
        rows = [r[:max_new_tokens] for r in rows]
        length = max(map(len, rows))
        tokens = torch.tensor([r + [words.pad_token_id] * (length - len(r)) for r in rows])
        return tokens, torch.full(tokens.shape, 0.9)
