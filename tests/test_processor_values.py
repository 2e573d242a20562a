"""The processor by hand: pictures as numbers, prompts, batches, where boxes are read, scores, and
what seeing costs.
"""

import inspect
import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models

from ferretlite.common.meters import measure_quickest, read_clock
from ferretlite.evaluation import speed
from ferretlite.evaluation.speed import (
    _RESOLUTION_SIDES,
    _make_bench_config,
    bench_resolution,
    format_resolution_bench,
    measure_image_cost,
)
from ferretlite.model.configuration import FerretConfig
from ferretlite.model.processing import (
    FerretProcessor,
    insert_marks,
    load_distinct_images,
    score_box,
)
from ferretlite.model.tokens import encode_user_turn
from ferretlite.regions.geometry import Box, Point
from ferretlite.scenes.questions import Conversation, Crop, Turn


def encode(processor, text):
    return processor.tokenizer(text, add_special_tokens=False).input_ids


def defaults(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def test_defaults_are_the_documented_ones():
    nothing = dict.fromkeys(("images", "prompts", "regions", "crops", "text"))
    assert defaults(FerretProcessor.__call__) == nothing | dict(return_tensors="pt", padding=True)
    assert defaults(FerretProcessor.fill_prompt) == dict(n_crops=0)
    training = dict(multiple=32, max_text_tokens=None, mark_boxes=False)
    assert defaults(FerretProcessor.encode_conversations) == training
    assert defaults(FerretProcessor.decode_answer) == dict(
        probabilities=None, size=(1000, 1000), phrases=None
    )
    assert defaults(FerretProcessor.for_model) == dict(chat=None)
    assert defaults(measure_quickest) == dict(n=3, clock=read_clock)
    assert defaults(bench_resolution) == dict(sides=(192, 384, 768), n=8, seed=0)
    assert defaults(FerretProcessor.mark_written_boxes) == dict(first=0)


def test_a_boxs_score_is_the_root_of_its_name_times_its_place():
    span = SimpleNamespace(name_start=2, name_end=6, start=7, end=10)
    tokens = [
        (0, 2, 0.1),  # ends where the name begins
        (1, 4, 0.9),  # reaches into it
        (4, 6, 0.8),
        (6, 7, 0.2),  # between name and box
        (7, 8, 0.7),
        (8, 12, 0.6),  # reaches beyond the box
        (10, 12, 0.3),  # begins where the box ends
    ]
    assert score_box(tokens, span) == pytest.approx(math.sqrt(0.9 * 0.8 * 0.7 * 0.6))
    nameless = SimpleNamespace(name_start=0, name_end=0, start=7, end=10)
    assert score_box(tokens, nameless) == pytest.approx(math.sqrt(0.7 * 0.6))


@pytest.mark.parametrize(
    "prompt, n, expected",
    [
        ("What? ", 1, "What <x>?"),
        ("Stop!", 2, "Stop <x>, <x>!"),
        ("Look.", 1, "Look <x>."),
        ("Look", 1, "Look <x>"),
        ("Look:", 1, "Look: <x>"),
        ("A <x> or <x>?", 2, "A <x> or <x>?"),
        ("What? ", 0, "What? "),
    ],
)
def test_marks_stand_before_the_closing_sign(prompt, n, expected):
    assert insert_marks(prompt, "<x>", n) == expected


def test_crops_and_regions_are_written_in_the_prompt(griffon_model, random_model):
    box, point = Box(20, 25, 100, 75), Point(50, 30)
    written = griffon_model[1].fill_prompt(
        "Is <region> like <crop> or <region>?", [box, point], (100, 200), 1
    )
    assert (
        written == "Is [0.100,0.250,0.500,0.750] <region_fea> like <crop_fea> or [0.250,0.300]"
        " <region_fea>?"
    )
    assert griffon_model[1].fill_prompt("What?", [], (9, 9), 2) == "What <crop_fea>, <crop_fea>?"
    assert (
        random_model[1].fill_prompt("Is <region> so?", [point], (100, 200))
        == "Is [250, 300] <region_fea> so?"
    )
    for reserved in ("<crop_fea>", "<bos>", "USER:"):
        with pytest.raises(ValueError, match=f"found {reserved}, which is reserved"):
            griffon_model[1].fill_prompt(f"a {reserved}", [], (9, 9))
    assert random_model[1].encode_prefix(3) == [1, 3, 3, 3]


CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DINO_MEAN, DINO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def ready(image, size, mean, std):
    "An image stretched to (height, width) and normalised, channels first."
    pixels = np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC), np.float64) / 255
    return ((pixels - mean) / std).transpose(2, 0, 1)


def noise(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def processor_with(random_model, **fields):
    config = FerretConfig.from_dict({**random_model[0].config.to_dict(), **fields})
    return FerretProcessor(config, random_model[1].tokenizer)


def test_views_are_stretched_cut_and_normalised_each_for_its_tower(random_model):
    processor = processor_with(random_model, global_view=(48, 96), local_view=(72, 48))
    images = [noise(300, 100), noise(100, 200, 1), noise(72, 96, 2)]
    grids = [(2, 1), (1, 3), (1, 2)]
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found = processor.prepare_images(images)
            assert found["grids"].tolist() == [list(g) for g in grids]
            assert found["image_sizes"] == [(300, 100), (100, 200), (72, 96)]
            whole = np.stack([ready(i, (48, 96), CLIP_MEAN, CLIP_STD) for i in images])
            np.testing.assert_allclose(found["global_pixels"], whole, atol=1e-5)
            tiles = []
            for image, (rows, cols) in zip(images, grids):
                canvas = ready(image, (72 * rows, 48 * cols), DINO_MEAN, DINO_STD)
                for r in range(rows):
                    for c in range(cols):
                        tiles.append(canvas[:, 72 * r : 72 * r + 72, 48 * c : 48 * c + 48])
            np.testing.assert_allclose(found["local_pixels"], np.stack(tiles), atol=1e-5)
    finally:
        torch.set_num_threads(before)


def test_without_tiles_there_are_no_local_pixels(random_model):
    processor = processor_with(
        random_model, resolution="direct", direct_view=(72, 120), local_view=(72, 48)
    )
    found = processor.prepare_images([noise(20, 30)])
    assert found["local_pixels"].shape == (0, 3, 72, 48) and found["grids"].tolist() == [[0, 0]]
    expected = ready(noise(20, 30), (72, 120), CLIP_MEAN, CLIP_STD)
    np.testing.assert_allclose(found["global_pixels"][0], expected, atol=1e-5)


def test_a_padded_view_holds_the_image_in_its_upper_left_cells(random_model):
    processor = processor_with(random_model, resolution="direct", direct_view=(96, 120), fit="pad")
    # 4 x 5 cells of 24 pixels; an image of 100 x 60 fills four rows and 2.4 columns, that is two
    found = processor.prepare_images([noise(100, 60)])["global_pixels"][0]
    black = -np.array(CLIP_MEAN) / CLIP_STD
    np.testing.assert_allclose(
        found[:, :, :48], ready(noise(100, 60), (96, 48), CLIP_MEAN, CLIP_STD), atol=1e-5
    )
    np.testing.assert_allclose(
        found[:, :, 48:], np.broadcast_to(black[:, None, None], (3, 96, 72)), atol=1e-5
    )
    tiles = processor_with(random_model, fit="pad", local_view=(72, 48)).prepare_images(
        [noise(30, 70)]
    )
    # two tiles side by side have 3 x 4 cells: 4 / 70 * 30 = 1.7 rows, that is two
    assert tiles["grids"].tolist() == [[1, 2]]
    canvas = np.concatenate(list(tiles["local_pixels"].numpy()), -1)
    expected = ready(noise(30, 70), (48, 96), DINO_MEAN, DINO_STD)
    np.testing.assert_allclose(canvas[:, :48], expected, atol=1e-5)
    np.testing.assert_allclose(
        tiles["global_pixels"][0], ready(noise(30, 70), (96, 96), CLIP_MEAN, CLIP_STD), atol=1e-5
    )


def test_crops_are_cut_and_normalised_for_their_encoder(griffon_model):
    config = FerretConfig.from_dict({**griffon_model[1].config.to_dict(), "crop_view": (48, 48)})
    processor = FerretProcessor(config, griffon_model[1].tokenizer)
    square, image = noise(48, 48), noise(90, 120, 1)
    # a box of 30 x 30 around (60, 45), a third larger: 40 pixels from (40, 25)
    found = processor.prepare_crops([square, Crop(image, Box(45, 30, 75, 60))])["crop_pixels"]
    assert found.shape == (2, 3, 48, 48)
    np.testing.assert_allclose(found[0], ready(square, (48, 48), CLIP_MEAN, CLIP_STD), atol=1e-5)
    window = image.resize((48, 48), Image.Resampling.BICUBIC, box=(40, 25, 80, 65))
    np.testing.assert_allclose(found[1], ready(window, (48, 48), CLIP_MEAN, CLIP_STD), atol=1e-5)
    nothing = processor.prepare_crops([])["crop_pixels"]
    assert nothing.shape == (0, 3, 48, 48)
    own = griffon_model[1].prepare_crops([square])["crop_pixels"]
    assert own.shape == (1, 3, 96, 96)  # the encoder's own size


def test_an_image_is_loaded_once_by_object_or_path(tmp_path):
    one, two = noise(4, 5), noise(4, 5)
    one.save(tmp_path / "a.png")
    path = tmp_path / "a.png"
    loaded, places = load_distinct_images([two, str(path), one, path, two])
    assert places == [0, 1, 2, 1, 0] and [i.size for i in loaded] == [(5, 4)] * 3


def test_questions_are_rows_behind_the_tokens_of_their_own_image(random_model):
    _, processor = random_model
    images = [noise(96, 96), noise(96, 192, 1)]  # 16 + 16 and 16 + 32 visual tokens
    rows = [
        (images[1], "How?", []),
        (images[0], "Is <region> so, or <region>?", [Point(9, 9), Box(1, 2, 30, 40)]),
        (images[1], "Why not?", []),
    ]
    batch = processor([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])
    assert batch["image_of"].tolist() == [0, 1, 0] and batch["grids"].tolist() == [[1, 2], [1, 1]]
    assert batch["image_sizes"] == [(96, 192), (96, 96)] and batch["regions"] == [
        r[2] for r in rows
    ]
    lengths = []
    for ids, mask, n, (_, prompt, held) in zip(
        batch["input_ids"], batch["attention_mask"], (48, 32, 48), rows
    ):
        own = ids[mask.bool()].tolist()
        written = processor.fill_prompt(prompt, held, (96, 192) if n == 48 else (96, 96))
        assert own == [1] + [3] * n + encode_user_turn(processor.tokenizer, written)
        assert (ids[~mask.bool()] == 0).all() and mask.tolist() == sorted(mask.tolist())
        lengths.append(len(own))
    assert batch["input_ids"].shape == (3, max(lengths)) and len(set(lengths)) == 3
    single = processor(images[0], "Is <region> so?", (Point(9, 9),))
    assert single["regions"] == [[Point(9, 9)]] and single["attention_mask"].all()


def test_crops_of_all_questions_are_packed_in_reading_order(griffon_model):
    _, processor = griffon_model
    held = [[noise(96, 96, 1)], [], [noise(96, 96, 2), noise(96, 96, 3)]]
    batch = processor(
        [noise(40, 50)] * 3, ["Like <crop>?", "Why?", "<crop> or <crop>?"], None, held
    )
    for found, seed in zip(batch["crop_pixels"], (1, 2, 3), strict=True):
        np.testing.assert_allclose(
            found, ready(noise(96, 96, seed), (96, 96), CLIP_MEAN, CLIP_STD), atol=1e-5
        )


def conversation(image, size, *turns, **options):
    return Conversation(image, size, [Turn("x", *t) for t in turns], "c", **options)


def test_training_rows_are_padded_to_a_multiple_and_may_leave_their_image_out(random_model):
    _, processor = random_model
    wide, square = noise(96, 192), noise(96, 96, 1)
    told = [
        conversation(wide, (1, 1), ("How?", "so")),
        conversation(None, (96, 96), ("Is <region> it?", "no", [Point(48, 24)])),
        conversation(square, (1, 1), ("Why?", "because"), ("Is <region>?", "yes", [Point(3, 4)])),
    ]
    batch = processor.encode_conversations(told, multiple=7)
    assert batch["input_ids"].shape[1] % 7 == 0 and batch["fresh"] == [0, 2]
    assert (
        batch["image_sizes"] == [(96, 192), (96, 96), (96, 96)] and len(batch["global_pixels"]) == 2
    )
    assert batch["grids"].tolist() == [[1, 2], [1, 1], [1, 1]] and len(batch["local_pixels"]) == 3
    assert (batch["input_ids"] == 3).sum(1).tolist() == [48, 32, 32]
    assert batch["regions"] == [[], [Point(48, 24)], [Point(3, 4)]]
    assert "[500, 250] <region_fea>" in processor.tokenizer.decode(batch["input_ids"][1])
    assert "fresh" not in processor.encode_conversations(told[::2]) and "shows" not in batch
    assert processor.encode_conversations(told[:1])["input_ids"].shape[1] == 64
    linked = processor.encode_conversations(
        [conversation(square, (1, 1), ("a", "b"), ("c", "d"), linked=True)]
    )
    assert set(linked["turn_ids"][0].tolist()) == {0, 1, -1}


def test_written_boxes_are_to_be_read_from_the_patches_that_show_them(random_model):
    "The whole view has 4 x 4 cells; behind it the tiles of a 96 x 192 image have 4 x 8."
    _, processor = random_model
    answer = "red star [0, 250, 500, 500], cup [990, 10, 995, 15]"
    first = conversation(noise(96, 96, 1), (96, 96), ("What?", "star [0, 0, 999, 999]"))
    second = conversation(noise(96, 192), (96, 192), ("Where?", answer), ("Why?", "none"))
    batch = processor.encode_conversations([first, second], mark_boxes=True)
    start = 1  # the start token comes before the visual ones
    everything = [start + i for i in range(32)]
    # centres with x < .5 and .25 < y < .5: row 1, columns 0 and 1 of four, 0 to 3 of eight
    quarter = [start + 4 + i for i in (0, 1)] + [start + 16 + 8 + i for i in (0, 1, 2, 3)]
    tiny = [start + 3, start + 16 + 7]  # holds no centre: the cells that hold its own
    assert [row.nonzero()[:, 0].tolist() for row in batch["shows"]] == [everything, quarter, tiny]
    assert batch["shows"].shape == (3, batch["input_ids"].shape[1])

    def text(row, key, number):
        return processor.tokenizer.decode(batch["input_ids"][row][batch[key][row] == number])

    assert text(0, "names", 0) == " star [" and text(0, "writes", 0) == "0, 0, 999, 999"
    assert text(1, "writes", 1) == "0, 250, 500, 500" and text(1, "names", 1) == " red star ["
    assert text(1, "writes", 2) == "990, 10, 995, 15" and text(1, "names", 2) == "], cup ["
    assert batch["names"][0].max() == 0 and (batch["names"][1] != 0).all()


def test_special_tokens_shift_no_score(random_model):
    "Wherever special tokens stand, each piece of name and box keeps its own probability."
    _, processor = random_model
    words = processor.tokenizer
    ids, chances, expected = [], [], 1.0
    pieces = (
        (" red", 0.9),
        (" star", 0.8),
        (" [", 0.7),
        ("1", 0.6),
        ("00, 200, 500, 600", 1.0),
        ("]", 0.5),
    )
    for text, p in pieces:
        for token in words(text, add_special_tokens=False).input_ids:
            ids.append(token)
            chances.append(p)
            expected *= p
    special = [words.convert_tokens_to_ids(t) for t in ("<pad>", "<image>", "<eos>", "<bos>")]
    for place in (0, 1, 4, len(ids) - 1, len(ids)):
        longer = ids[:place] + special + ids[place:]
        found = processor.decode_answer(longer, chances[:place] + [0.01] * 4 + chances[place:])
        [grounding] = found.groundings
        assert found.raw_text == "red star [100, 200, 500, 600]" and grounding.name == "red star"
        assert grounding.scores == pytest.approx([math.sqrt(expected)], rel=1e-6)


def test_decoded_text_is_without_boxes_and_the_raw_one_as_written(random_model):
    _, processor = random_model
    text = " A star [1, 2, 3, 4] [5, 6, 7, 8] and a cup [9, 10, 11, 12], [3, 2, 1]. "
    found = processor.decode_answer(encode(processor, text))
    assert found.text == "A star and a cup, [3, 2, 1]." and found.raw_text == text.strip()
    assert [g.name for g in found.groundings] == ["star", "cup"] and len(found.warnings) == 1
    # the middle of bin 5 of a thousand, in an image of 1000 x 1000
    assert found.groundings[0].boxes[1].list() == pytest.approx([5.5, 6.5, 7.5, 8.5])
    wide = processor.decode_answer(
        encode(processor, "star [100, 200, 300, 400]"), None, (50, 200)
    ).groundings[0]
    assert wide.boxes[0].list() == pytest.approx([20.1, 10.025, 60.1, 20.025])


def test_griffons_answers_are_the_names_of_their_boxes(griffon_model):
    _, processor = griffon_model
    box = "[0.100,0.200,0.300,0.400]"
    for text, told in ((f" star-{box}&cup-{box}", "star, cup"), (f" {box}", ""), (" None", "None")):
        found = processor.decode_answer(encode(processor, text))
        assert found.text == told and found.raw_text == text.strip()
    # one text with boxes in Ferret's form keeps its other words
    config = FerretConfig.from_dict({**processor.config.to_dict(), "style": "ferret"})
    found = FerretProcessor(config, processor.tokenizer).decode_answer(
        encode(processor, " a cup [1, 2, 3, 4].")
    )
    assert found.text == "a cup."


def test_each_placeholder_has_to_have_the_number_that_is_expected(griffon_model):
    config, words = griffon_model[1].config, griffon_model[1].tokenizer
    for name in ("image_token_id", "region_token_id", "crop_token_id"):
        with pytest.raises(ValueError, match="expected .*99"):
            FerretProcessor(FerretConfig.from_dict({**config.to_dict(), name: 99}), words)


def test_scores_of_neighbours_of_one_name_are_their_own(random_model):
    _, processor = random_model
    words = processor.tokenizer
    ids = encode(processor, "star [1, 1, 2, 2] [3, 3, 4, 4]")
    pieces = words.convert_ids_to_tokens(ids)
    chances = [1.0] * len(ids)
    chances[pieces.index("3")], chances[pieces.index("1")] = 0.25, 0.49
    [found] = processor.decode_answer(ids, chances).groundings
    assert found.scores == pytest.approx([0.7, 0.5])
    assert processor.decode_answer(torch.tensor(ids), torch.tensor(chances)).groundings[
        0
    ].scores == pytest.approx([0.7, 0.5])


def test_only_neighbours_of_one_name_share_a_grounding(random_model):
    _, processor = random_model
    text = "cup [1, 1, 2, 2], sun [3, 3, 4, 4] [5, 5, 6, 6], cup [7, 7, 8, 8], sun [9, 9, 10, 10]"
    found = processor.decode_answer(encode(processor, text)).groundings
    assert [(g.name, len(g.boxes)) for g in found] == [
        ("cup", 1),
        ("sun", 2),
        ("cup", 1),
        ("sun", 1),
    ]


def test_visual_tokens_are_counted_for_the_grid_and_the_image(random_model):
    processor = processor_with(random_model, local_view=(72, 48), fit="pad", row_separators=True)
    image = noise(
        30, 70
    )  # two tiles side by side, of whose 3 x 4 cells it fills two rows; and 4 x 4 cells
    tokens = 4 * 5 + 2 * 5
    assert (processor(image, "How?")["input_ids"] == 3).sum() == tokens
    told = processor.encode_conversations([conversation(image, (1, 1), ("a", "b"))])
    assert (told["input_ids"] == 3).sum() == tokens


def test_a_turn_that_is_left_out_takes_its_regions_and_crops_along(griffon_model):
    _, processor = griffon_model
    turns = [
        Turn("x", "Is <region>?", "a", [Point(1, 1)]),
        Turn("x", "Like <region> or <crop>? ", "b", [Point(2, 2)], crops=[Crop(noise(9, 9))]),
    ]
    told = Conversation(noise(40, 50), (40, 50), turns, "c")
    whole, cut = (
        processor.encode_conversations([told]),
        processor.encode_conversations([told], max_text_tokens=1),
    )
    assert whole["regions"] == [[Point(1, 1), Point(2, 2)]] and len(whole["crop_pixels"]) == 1
    assert cut["regions"] == [[Point(1, 1)]] and len(cut["crop_pixels"]) == 0


# What seeing costs


def test_the_benchs_model_is_as_documented():
    for way, side in (("direct", 384), ("anyres", 768)):
        config = _make_bench_config(way, side)
        assert (config.resolution, config.direct_view, config.merge, config.max_tiles) == (
            way,
            (side, side),
            2,
            6,
        )
        assert config.global_view == config.local_view == (192, 192)
        towers = config.global_tower, config.local_tower
        assert [t.model_type for t in towers] == ["clip_vision_model", "dinov2"]
        assert [t.image_size for t in towers] == [
            192,
            192,
        ] and config.text_config.hidden_size == 192
    assert _RESOLUTION_SIDES == (192, 384, 768)
    # 12 patches each way, two to a token: 36 of the whole view; tiles of a square: 2 x 2
    assert _make_bench_config("anyres", 768).count_visual_tokens((2, 2)) == 36 + 144
    assert _make_bench_config("direct", 384).count_visual_tokens((0, 0)) == 144


def test_the_quickest_of_a_few_runs_counts(monkeypatch):
    clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 23.0, 30.0, 30.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    runs = []
    assert measure_quickest(lambda: runs.append(1)) == 2.0 and len(runs) == 3
    assert measure_quickest(lambda: runs.append(1), 1) == 0.5 and len(runs) == 4


def test_the_cost_of_seeing_counts_what_the_towers_multiply(random_model, monkeypatch):
    """CLIP reads all layers but the last (here one), DINOv2 two; 17 tokens of a 4 x 4 map, widths
    32 and 128.
    """
    monkeypatch.setattr(speed, "measure_quickest", lambda work: work() is None or 0.25)
    found = measure_image_cost(random_model[0].config, noise(96, 192))
    patches = 16 * 32 * 3 * 24 * 24
    layer = 17 * (4 * 32 * 32 + 2 * 32 * 128) + 2 * 17 * 17 * 32
    multiplied = (patches + layer) + 2 * (patches + 2 * layer)  # one whole view, two tiles
    assert found["gflop"] == pytest.approx(2 * multiplied / 1e9, rel=1e-3)
    assert found["tokens"] == 48 and found["grid"] == (1, 2)
    assert (found["prepare_ms"], found["see_ms"]) == (250, 250)
    assert 0.01 < found["mb"] < 1  # maps of a few dozen tokens; weights are not counted


def test_the_bench_compares_the_same_photographs(monkeypatch):
    asked, held = [], []

    def cost(config, image):
        asked.append((config.resolution, config.direct_view, image.size))
        return dict(tokens=7)

    def time_of(work):
        made = work()
        held.append(
            [tuple(s) for s in made["image_sizes"]]
            if "grids" in made
            else len(made["pixel_values"])
        )
        return 0.5 if len(held) == 1 else 2.0

    monkeypatch.setattr(speed, "measure_image_cost", cost)
    monkeypatch.setattr(speed, "measure_quickest", time_of)
    found = bench_resolution((192, 384), n=2)
    ways = ("fixed", "direct", "anyres")
    assert asked == [(w, (s, s), (s, s)) for s in (192, 384) for w in ways]
    assert [(r["way"], r["side"], r["tokens"]) for r in found["rows"]] == [
        (w, s, 7) for s in (192, 384) for w in ways
    ]
    assert held[0] == [(480, 640), (640, 480)] and held[1] == 2
    assert (found["ours_per_second"], found["llava_next_per_second"], found["speedup"]) == (4, 1, 4)
    assert found["threads"] == torch.get_num_threads()


def test_the_benchs_table():
    row = dict(
        side=192,
        way="anyres",
        grid=(2, 3),
        tokens=252,
        gflop=1.234,
        prepare_ms=12.34,
        see_ms=5.67,
        mb=8.91,
    )
    other = dict(
        side=768,
        way="direct",
        grid=(0, 0),
        tokens=576,
        gflop=20.0,
        prepare_ms=1.0,
        see_ms=2.0,
        mb=3.0,
    )
    lines = format_resolution_bench(
        dict(
            rows=[row, other],
            ours_per_second=40.04,
            llava_next_per_second=10.01,
            speedup=4.0,
            threads=2,
        )
    ).split("\n")
    assert lines[0].split() == [
        "image",
        "way",
        "grid",
        "tokens",
        "GFLOP",
        "prepare",
        "see",
        "memory",
    ]
    assert lines[1].split() == [
        "192x192",
        "anyres",
        "2x3",
        "252",
        "1.23",
        "12.3",
        "ms",
        "5.7",
        "ms",
        "8.9",
        "MB",
    ]
    assert lines[2].split() == [
        "768x768",
        "direct",
        "–",
        "576",
        "20.00",
        "1.0",
        "ms",
        "2.0",
        "ms",
        "3.0",
        "MB",
    ]
    assert "40.0 a second" in lines[3] and "10.0: 4.0 times" in lines[3] and "2 threads" in lines[3]


@pytest.mark.parametrize("seed", range(3))
def test_ends_of_tokens_in_a_long_answer_are_those_of_its_prefixes(random_model, seed):
    """Characters of several bytes, over several windows: each whole prefix is decoded here."""
    _, processor = random_model
    rng = np.random.default_rng(seed)
    pieces = ["★ ", "star [1, 2, 3, 4], ", "☂", "naïve", " 😀😀", "\n"]
    ids = encode(processor, "".join(rng.choice(pieces, 60)))
    assert len(ids) > 150
    wanted = [len(processor.tokenizer.decode(ids[:n])) for n in range(len(ids) + 1)]
    wanted = np.minimum.accumulate(wanted[::-1])[::-1].tolist()
    assert processor._locate_tokens(ids) == (processor.tokenizer.decode(ids), wanted)


@pytest.mark.parametrize("word", ["红色的剪刀在左边", "🦊🦊🦊🦊🦊", "star"])
def test_ends_of_tokens_are_right_where_letters_are_single_bytes(word):
    """Llama 2 writes a letter that it does not know as its bytes: a window must not cut one."""
    pieces = ["▁", "▁the", "▁star", "[", ",", "]", "1", "2"]
    names = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), *pieces]
    numbers = {name: k for k, name in enumerate(names)}
    inner = Tokenizer(models.BPE(numbers, [], unk_token="<unk>", byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    decode = partial(inner.decode, skip_special_tokens=False)
    processor = SimpleNamespace(tokenizer=SimpleNamespace(decode=decode))
    entry = [numbers["▁"], *(1 + b for b in word.encode()), *(numbers[s] for s in "[1,2]")]
    ids = [numbers["▁the"]] * 9 + 6 * entry
    wanted = [len(decode(ids[:n])) for n in range(len(ids) + 1)]
    wanted = np.minimum.accumulate(wanted[::-1])[::-1].tolist()
    assert FerretProcessor._locate_tokens(processor, ids) == (decode(ids), wanted)
