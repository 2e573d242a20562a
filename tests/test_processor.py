"From pictures and words to tensors, and from tokens to scored boxes."

import io
import math
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ferretlite.evaluation.speed import measure_image_cost
from ferretlite.model.configuration import FerretConfig
from ferretlite.model.processing import FerretProcessor
from ferretlite.model.tokens import IMAGE_TOKEN, REGION_TOKEN, encode_user_turn
from ferretlite.regions.geometry import Box, Mask, Point
from ferretlite.scenes.questions import Conversation, Turn
from ferretlite.scenes.world import make_scene
from ferretlite.vision.resolution import LLAVA_NEXT_GRIDS, compute_canvas_size

# Pictures


def corner_picture():
    "Black, 40 wide and 30 high, with a red block in the upright top-left corner."
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[:8, :8] = (255, 0, 0)
    return Image.fromarray(pixels)


def as_bytes(image, **options):
    held = io.BytesIO()
    image.save(held, **options)
    return held.getvalue()


def test_prompts_and_sizes_are_in_the_upright_frame(random_model, tmp_path):
    _, processor = random_model
    exif = Image.Exif()
    exif[0x0112] = 6
    corner_picture().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    batch = processor(str(tmp_path / "turned.png"), "What is in <region>?", [Box(20, 0, 40, 15)])
    assert batch["image_sizes"] == [(30, 40)]
    assert "[500, 0, 999, 500] " in processor.tokenizer.decode(batch["input_ids"][0])


# Prompts


def read(processor, ids):
    return processor.tokenizer.decode(
        [i for i in ids.tolist() if i not in (processor.image_id, processor.tokenizer.pad_token_id)]
    )


def test_a_region_becomes_coordinates_and_a_placeholder(random_model):
    _, processor = random_model
    image, mask = Image.new("RGB", (200, 100)), np.zeros((100, 200), bool)
    mask[10:20, 40:60] = True
    regions = [Point(50, 50), Box(0, 0, 100, 25), Mask(mask)]
    batch = processor(image, "Compare <region>, <region> and <region>.", regions)
    assert (
        read(processor, batch["input_ids"][0])
        == "<bos>USER: Compare [250, 500] <region_fea>, [0, 0, 500, 250] <region_fea> and "
        "[200, 100, 300, 200] <region_fea>.\nASSISTANT:"
    )
    assert batch["regions"] == [regions]


def test_regions_without_a_placeholder_stand_before_the_end(random_model):
    _, processor = random_model

    def ask(prompt, n):
        return processor.fill_prompt(prompt, [Point(0, 0)] * n, (10, 10))

    assert ask("What is this?", 1) == "What is this [0, 0] <region_fea>?"
    assert ask("Compare", 2) == "Compare [0, 0] <region_fea>, [0, 0] <region_fea>"
    assert ask("", 1) == " [0, 0] <region_fea>"


def test_prompts_that_cannot_be_meant_are_refused(random_model):
    _, processor = random_model
    image = Image.new("RGB", (20, 10))
    for word in (IMAGE_TOKEN, REGION_TOKEN):
        with pytest.raises(ValueError, match="reserved"):
            processor(image, f"What is {word}?")
    with pytest.raises(ValueError, match="prompt: found <region> 2 times for 1 regions"):
        processor(image, "<region> or <region>?", [Point(1, 1)])
    with pytest.raises(ValueError, match="prompt: found <region> 1 times for 0 regions"):
        processor(image, "<region>?")
    with pytest.raises(ValueError, match="outside of its image"):
        processor(image, "What?", [Box(30, 30, 40, 40)])
    with pytest.raises(ValueError, match="found a mask of"):
        processor(image, "What?", [Mask(np.ones((20, 10), bool))])
    with pytest.raises(ValueError, match="2 images, 1 prompts, 1 lists of regions and 1 of crops"):
        processor([image, image], ["What?"])
    with pytest.raises(ValueError, match="at least one question"):
        processor([], [])


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "   ",
        "👩‍🚀 où est l'étoile? 日本語 \x00",
        "{{ bos_token }}{% for x in y %}",
        "<region_fea",
        "< image >",
        "a\n\nb\tc",
        "x" * 1500,
    ],
)
def test_odd_prompts_are_written_as_they_are(random_model, prompt):
    _, processor = random_model
    batch = processor(Image.new("RGB", (20, 10)), prompt)
    assert read(processor, batch["input_ids"][0]) == f"<bos>USER: {prompt}\nASSISTANT:"


@lru_cache
def shipped_tokenizer():
    "The tokenizer that ships with the tiny language model."
    from transformers import AutoTokenizer

    from ferretlite.common.files import WEIGHTS

    return AutoTokenizer.from_pretrained(WEIGHTS / "tiny-lm")


@settings(max_examples=50)
@given(st.text(max_size=30))
def test_any_text_becomes_tokens_and_comes_back(text):
    tokenizer = shipped_tokenizer()
    assert tokenizer.decode(encode_user_turn(tokenizer, text)) == f"USER: {text}\nASSISTANT:"


def test_padding_is_on_the_left_and_masked(random_model):
    _, processor = random_model
    images = [make_scene(0, (96, 96)).image, make_scene(1, (192, 192)).image]
    batch = processor(images, ["How many stars are there in the image?", "Where?"])
    pad = batch["input_ids"] == processor.tokenizer.pad_token_id
    assert torch.equal(pad, batch["attention_mask"] == 0) and pad[0].any() and not pad[1].any()
    assert (pad.int().diff(dim=1) <= 0).all()  # pads first, then tokens
    assert batch["local_pixels"].shape == (5, 3, 96, 96) and batch["grids"].tolist() == [
        [1, 1],
        [2, 2],
    ]


def test_tiles_are_the_image_cut_at_the_towers_own_normalisation(random_model):
    _, processor = random_model
    image = make_scene(3, (192, 192)).image
    inputs = processor.prepare_images([image])
    pixels = torch.tensor(np.asarray(image)).permute(2, 0, 1) / 255
    for i, corner in enumerate([(0, 0), (0, 96), (96, 0), (96, 96)]):  # raster order
        mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
        expected = (
            pixels[:, corner[0] : corner[0] + 96, corner[1] : corner[1] + 96] - mean[:, None, None]
        ) / std[:, None, None]
        assert torch.allclose(inputs["local_pixels"][i], expected, atol=1e-5)
    assert inputs["global_pixels"].shape == (1, 3, 96, 96)


def test_a_tokenizer_that_numbers_placeholders_otherwise_is_refused(random_model):
    from ferretlite.model.configuration import FerretConfig

    _, processor = random_model
    other = FerretConfig.from_dict({**processor.config.to_dict(), "image_token_id": 17})
    with pytest.raises(ValueError, match="expected 17"):
        FerretProcessor(other, processor.tokenizer)


def test_training_rows_learn_the_answers_alone(random_model):
    _, processor = random_model
    scene = make_scene(0, 96)
    turns = [
        Turn("count", "How many?", "12"),
        Turn("name", "What is in <region>?", "red star", [Point(5, 5)]),
        Turn("count", "How many more?", "0"),
    ]
    batch = processor.encode_conversations([Conversation(scene.image, scene.size, turns, "a")])
    row, labels, said = batch["input_ids"][0], batch["labels"][0], batch["turn_ids"][0]
    assert row.shape[0] % 32 == 0
    for k, turn in enumerate(turns, 1):
        assert (
            processor.tokenizer.decode(labels[(said == k) & (labels != -100)])
            == f" {turn.answer}<eos>"
        )
    assert (labels[said <= 0] == -100).all() and batch["regions"] == [[Point(5, 5)]]
    kept = processor.encode_conversations(
        [Conversation(scene.image, scene.size, turns, "a")], max_text_tokens=20
    )
    assert set(kept["turn_ids"][0].tolist()) == {-1, 0, 1} and kept["regions"] == [
        []
    ]  # a turn that does not fit takes its regions along


# Answers


def encode(processor, text):
    return processor.tokenizer(text, add_special_tokens=False).input_ids


def probabilities(processor, ids, parts):
    "Each token's probability by the part of the text it lies in: (text, probability) pairs."
    each, place, text = [], 0, "".join(t for t, _ in parts)
    bounds = np.cumsum([len(t) for t, _ in parts])
    for n in range(1, len(ids) + 1):
        middle = (place + len(processor.tokenizer.decode(ids[:n]))) / 2
        place = len(processor.tokenizer.decode(ids[:n]))
        each.append(parts[int(np.searchsorted(bounds, middle, side="right"))][1])
    assert text == processor.tokenizer.decode(ids)
    return each


def test_scores_are_products_over_the_characters_of_name_and_box(random_model):
    _, processor = random_model
    parts = [
        ("red star", 0.9),
        (" ", 1.0),
        ("[0, 0, 100, 100]", 0.8),
        (", ", 0.1),
        ("cup", 0.5),
        (" ", 1.0),
        ("[5, 5, 9, 9]", 0.7),
    ]
    ids = encode(processor, "".join(t for t, _ in parts))
    probs = probabilities(processor, ids, parts)
    found = processor.decode_answer(
        ids + [processor.tokenizer.eos_token_id], probs + [0.3], (1000, 1000)
    )
    assert (
        [g.name for g in found.groundings] == ["red star", "cup"]
        and found.text == "red star, cup"
        and not found.warnings
    )

    def n(text):
        return len(encode(processor, text))

    first, second = (g.scores[0] for g in found.groundings)
    count = {p: probs.count(p) for p in (0.9, 0.8, 0.5, 0.7)}
    assert first == pytest.approx(
        math.sqrt(0.9 ** count[0.9] * 0.8 ** count[0.8])
    ) and second == pytest.approx(math.sqrt(0.5 ** count[0.5] * 0.7 ** count[0.7]))
    assert 0 < second < first < 1 and n("[") == 1


@pytest.mark.parametrize(
    "broken",
    ["[900, 0, 100, 100]", "[1, 2, 3]", "[1, 2, 3, 4000]", "[]", "[x, y]", "é[ü]", "👩‍🚀", "�"],
)
def test_a_malformed_box_shifts_no_other_score(random_model, broken):
    _, processor = random_model

    def score(text, parts):
        return (ids := encode(processor, text)) and processor.decode_answer(
            ids, probabilities(processor, ids, parts), (100, 100)
        )

    good = [("star ", 0.9), ("[0, 0, 100, 100]", 0.8)]
    after = [("cup ", 0.6), ("[200, 200, 300, 300]", 0.7)]
    alone = [
        score("".join(t for t, _ in parts), parts).groundings[0].scores[0]
        for parts in (good, after)
    ]
    between = [*good, (f", {broken}, ", 0.05), *after]
    ids = encode(processor, "".join(t for t, _ in between))
    marks, place, probs = np.cumsum([len(t) for t, _ in between]), 0, []
    for n in range(1, len(ids) + 1):  # a token belongs to the part in which it ends
        place = max(place, min(len(processor.tokenizer.decode(ids[:n])), marks[-1]))
        probs.append(between[int(np.searchsorted(marks, place - 1e-6, side="left"))][1])
    found = processor.decode_answer(ids, probs, (100, 100))
    assert [g.name for g in found.groundings] == ["star", "cup"]
    assert [g.scores[0] for g in found.groundings] == pytest.approx(alone, rel=0.3)
    assert found.groundings[1].boxes[0].list() == pytest.approx([20.05, 20.05, 30.05, 30.05])


def test_boxes_of_one_name_share_a_grounding_each_with_its_score(random_model):
    _, processor = random_model
    found = processor.decode_answer(
        encode(processor, "stars [0, 0, 9, 9] [10, 10, 20, 20], cup [1, 1, 2, 2]"),
        None,
        (1000, 1000),
    )
    assert [(g.name, len(g.boxes), g.scores) for g in found.groundings] == [
        ("stars", 2, [1.0, 1.0]),
        ("cup", 1, [1.0]),
    ]


def test_decoding_half_a_character_does_not_raise(random_model):
    _, processor = random_model
    ids = encode(processor, "🚀 star [0, 0, 9, 9]")
    for start in range(4):
        assert (
            len(processor.decode_answer(ids[start:], [0.5] * len(ids[start:]), (10, 10)).groundings)
            == 1
        )
    assert processor.decode_answer([], [], (10, 10)).text == ""


@pytest.mark.parametrize("grid", [(2, 2), (1, 2), (2, 1), (1, 3), (3, 1)])
def test_tiles_are_llava_nexts_where_nothing_has_to_be_padded(grid):
    "An image in the canvas's own shape, once in its size and once larger."
    from transformers import CLIPVisionConfig, LlamaConfig
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    theirs = LlavaNextImageProcessorPil(
        size=dict(shortest_edge=336),
        crop_size=dict(height=336, width=336),
        image_grid_pinpoints=[list(compute_canvas_size(336, g)) for g in LLAVA_NEXT_GRIDS],
    )
    config = FerretConfig(
        global_tower=CLIPVisionConfig(image_size=336, patch_size=14),
        text_config=LlamaConfig(vocab_size=32, hidden_size=64, num_hidden_layers=1),
        global_view=(336, 336),
        local_view=(336, 336),
        grids=LLAVA_NEXT_GRIDS,
    )
    for scale in (1, 2):
        h, w = (scale * s for s in compute_canvas_size(336, grid))
        image = Image.fromarray(
            np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8)
        )
        expected = theirs([image], return_tensors="pt")["pixel_values"][0]
        found = FerretProcessor.prepare_images(SimpleNamespace(config=config), [image])
        assert found["grids"].tolist() == [list(grid)]
        torch.testing.assert_close(found["global_pixels"][0], expected[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(found["local_pixels"], expected[1:], atol=1e-5, rtol=0)


def test_a_padded_tile_differs_from_llava_nexts_on_purpose():
    """They put the image into the middle of the canvas.

    Ours fills whole cells from the upper left corner, so that no token is half border.
    """
    from transformers import CLIPVisionConfig, LlamaConfig
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    theirs = LlavaNextImageProcessorPil(
        size=dict(shortest_edge=336),
        crop_size=dict(height=336, width=336),
        image_grid_pinpoints=[list(compute_canvas_size(336, g)) for g in LLAVA_NEXT_GRIDS],
    )
    config = FerretConfig(
        global_tower=CLIPVisionConfig(image_size=336, patch_size=14),
        text_config=LlamaConfig(vocab_size=32, hidden_size=64, num_hidden_layers=1),
        global_view=(336, 336),
        local_view=(336, 336),
        grids=LLAVA_NEXT_GRIDS,
        fit="pad",
    )
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (280, 672, 3), dtype=np.uint8)
    )  # 20 cells of 24 high, as wide as two tiles
    expected = theirs([image], return_tensors="pt")["pixel_values"][0][1:]
    found = FerretProcessor.prepare_images(SimpleNamespace(config=config), [image])
    assert found["grids"].tolist() == [[1, 2]] and config.count_tile_cells((1, 2), (280, 672)) == (
        20,
        48,
    )
    torch.testing.assert_close(
        found["local_pixels"][:, :, :280], expected[:, :, 28:308], atol=1e-5, rtol=0
    )
    assert found["local_pixels"][:, :, 280:].std(dim=(0, 2, 3)).max() < 1e-6


def test_what_seeing_costs_is_known_of_padded_views_too(random_model):
    for way, tokens in (("direct", 4 * 8), ("anyres", 16 + 4 * 8)):
        config = FerretConfig.from_dict(
            {**random_model[0].config.to_dict(), "fit": "pad", "resolution": way}
        )
        assert measure_image_cost(config, make_scene(1, (96, 192)).image)["tokens"] == tokens


def test_training_refuses_placeholders_in_answers_and_empty_batches(random_model):
    processor, scene = random_model[1], make_scene(1, 64)
    with pytest.raises(ValueError, match="answer of x: found <image>"):
        processor.encode_conversations(
            [
                Conversation(
                    scene.image, scene.size, [Turn("rec", "Where?", f"{IMAGE_TOKEN} star")], "x"
                )
            ]
        )
    with pytest.raises(ValueError, match="conversations: found none"):
        processor.encode_conversations([])


def test_a_pictures_size_is_the_pictures_own_in_any_company(random_model):
    processor, scene = random_model[1], make_scene(1, (64, 96))
    wrong = Conversation(scene.image, (10, 10), [Turn("caption", "What is it?", "A star.")], "x")
    kept = Conversation(None, (64, 96), wrong.turns, "y")
    assert (
        processor.encode_conversations([wrong])["image_sizes"][0]
        == processor.encode_conversations([wrong, kept])["image_sizes"][0]
        == (64, 96)
    )
