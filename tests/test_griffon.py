"""Griffon v2's road: one large view, few tokens, pictures in questions, its written form."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_model import embed_batch

from ferretlite.data.batches import Collator, ConversationDataset, SceneStream
from ferretlite.evaluation.suites import _make_griffon_questions, _score_answer, evaluate
from ferretlite.model.configuration import FerretConfig
from ferretlite.model.inference import Ferret, format_grounding_question, merge_groundings
from ferretlite.model.modeling import FerretForConditionalGeneration
from ferretlite.model.processing import FerretProcessor
from ferretlite.regions.geometry import Box, Point
from ferretlite.scenes.griffon_tasks import GRIFFON_TASKS
from ferretlite.scenes.questions import Crop
from ferretlite.scenes.world import make_example, make_scene
from ferretlite.vision.coreferring import VisualTokenizer, compute_crop_window, cut_crop
from ferretlite.vision.sampler import interpolate_features

SCENES = [make_scene(s, (120, 140)) for s in range(3)]
CROPS = [
    make_example("star", 1),
    Crop(SCENES[1].image, Box(20, 30, 60, 50)),
    make_example("novel 4", 2),
]


def ask(processor, rows):
    return processor(
        [s.image for s, *_ in rows],
        [r[1] for r in rows],
        [r[2] for r in rows],
        [r[3] for r in rows],
    )


MIXED = [
    (SCENES[0], "Find all objects like <crop>.", [], CROPS[:1]),
    (SCENES[1], "Is <region> more like <crop> or like <crop>?", [Box(5, 5, 50, 60)], CROPS[1:]),
    (SCENES[2], "Where is the star?", [], []),
    (
        SCENES[0],
        "Compare <crop> with <region>, <region> and <crop>.",
        [Point(30, 30), Box(1, 2, 60, 70)],
        CROPS[:2],
    ),
]


def logits(model, batch):
    with torch.no_grad():
        return model(**batch).logits[:, -1]


def test_one_large_view_becomes_few_tokens(griffon_model):
    model, processor = griffon_model
    config = model.config  # 216 x 240 pixels in patches of 24: 9 x 10 cells, half of them each way
    assert (
        config.views()["global"][3] == (9, 10)
        and config.count_global_cells() == (5, 5)
        and config.count_visual_tokens((0, 0)) == 25 == len(config.list_token_boxes((0, 0)))
    )
    batch = ask(processor, MIXED[:1])
    tokens, maps = model.embed_images(
        *model.compute_tower_maps(batch["global_pixels"], None),
        batch["grids"],
        batch["image_sizes"],
    )
    assert tokens[0].shape[0] == 25 and maps[0].shape[:2] == (5, 5)


def test_a_large_view_may_keep_the_images_shape(griffon_model):
    """With fit="pad" the border's tokens are dropped, and what is left covers the image.

    A mixed batch says what each image says alone.
    """
    config = FerretConfig.from_dict(
        {**griffon_model[0].config.to_dict(), "fit": "pad", "direct_view": (240, 240)}
    )
    torch.manual_seed(0)
    model, processor = (
        FerretForConditionalGeneration(config).eval(),
        FerretProcessor(config, griffon_model[1].tokenizer),
    )
    sizes = [(120, 200), (200, 200), (240, 60)]
    rows = [
        (make_scene(i, size), "Find all objects like <crop>.", [], CROPS[:1])
        for i, size in enumerate(sizes)
    ]
    batch = ask(processor, rows)
    assert (
        (batch["input_ids"] == config.image_token_id).sum(1).tolist()
        == [15, 25, 5]
        == [config.count_visual_tokens((0, 0), s) for s in sizes]
    )
    assert (
        batch["global_pixels"][0][:, 144:].std(dim=(1, 2)).max()
        < 1e-6
        < batch["global_pixels"][0][:, 120:144].std()
    )  # three of five rows are filled: 144 pixels
    assert config.list_token_boxes((0, 0), sizes[0])[-1].tolist() == pytest.approx(
        [0.8, 2 / 3, 1, 1]
    )
    tokens, maps = model.embed_images(
        *model.compute_tower_maps(batch["global_pixels"], None),
        batch["grids"],
        batch["image_sizes"],
    )
    assert [tuple(m.shape[:2]) for m in maps] == [(3, 5), (5, 5), (5, 1)]
    together = logits(model, batch)
    for i, row in enumerate(rows):
        assert torch.allclose(logits(model, ask(processor, [row]))[0], together[i], atol=1e-4)
    blind = FerretForConditionalGeneration(
        FerretConfig.from_dict({**config.to_dict(), "visual_position": "none"})
    ).eval()
    assert logits(blind, batch).isfinite().all()  # as many tokens without places


def test_regions_may_read_the_towers_map_where_the_border_is_dropped(griffon_model):
    """The tower's own map has more cells than the tokens behind a projector that joins them: the
    image's part of it is kept, not the tokens' number of cells.
    """
    config = FerretConfig.from_dict(
        {
            **griffon_model[0].config.to_dict(),
            "fit": "pad",
            "direct_view": (240, 240),
            "fusion_of": "towers",
            "region_features": True,
        }
    )
    torch.manual_seed(0)
    model = FerretForConditionalGeneration(config).eval()
    whole, sizes = (
        model.compute_tower_maps(torch.rand(3, 3, 240, 240), None)[0],
        [(120, 200), (200, 200), (240, 60)],
    )
    tokens, maps = model.embed_images(whole, None, torch.zeros(3, 2, dtype=torch.long), sizes)
    cells = whole.shape[1]
    assert cells == 10 > config.count_global_cells()[0] and [len(t) for t in tokens] == [15, 25, 5]
    assert [tuple(m.shape[:2]) for m in maps] == [
        (6, 10),
        (10, 10),
        (10, 2),
    ]  # of ten cells each way


@pytest.mark.parametrize("size", [(200, 300), (300, 200), (60, 1200), (200, 200), (37, 101)])
@pytest.mark.parametrize("side", [(48, 120), (240, 240), (216, 72)])
def test_a_padded_direct_view_is_read_where_regions_lie(griffon_model, size, side):
    """A picture whose colours are its places comes back as places, also where a projector joins an
    odd number of cells: what is filled are whole cells of the map that is kept.
    """
    config = FerretConfig.from_dict(
        {
            **griffon_model[0].config.to_dict(),
            "fit": "pad",
            "direct_view": side,
            "fusion_of": "towers",
            "region_features": True,
        }
    )
    model, processor = (
        FerretForConditionalGeneration(config).eval(),
        FerretProcessor(config, griffon_model[1].tokenizer),
    )
    y, x = (np.mgrid[: size[0], : size[1]] + 0.5) / np.array(size)[:, None, None]
    inputs = processor.prepare_images(
        [Image.fromarray((255 * np.stack([x, y, 0 * x], 2)).round().astype(np.uint8))]
    )
    _, mean, std, cells = config.views()["global"]
    colours = F.avg_pool2d(
        inputs["global_pixels"] * torch.tensor(std)[:, None, None]
        + torch.tensor(mean)[:, None, None],
        side[0] // cells[0],
    ).movedim(1, -1)  # a tower that says what it sees
    kept, read = [], model._region_map
    model._region_map = lambda views: kept.append(views[0]) or read(views)
    with torch.no_grad():
        model.embed_images(
            F.pad(colours, (0, config.global_tower.hidden_size - 3)),
            None,
            torch.tensor([[0, 0]]),
            [size],
        )
    assert kept[0].shape[:2] == config.count_shown_patches(size)
    for asked in ((0.5, 0.5), (0.3, 0.6)):
        found = interpolate_features(kept[0], torch.tensor([asked]))[0, :3].tolist()
        for a, b, n in zip(asked, found, kept[0].shape[1::-1]):
            assert a == pytest.approx(b, abs=0.01 if n > 2 else 0.25)
        assert found[2] < 0.01  # no border comes into it: it is grey, and the picture has no blue


def test_questions_that_mix_everything_are_answered_as_they_would_be_alone(griffon_model):
    """Crops of this and other images, several in one prompt, between regions, beside questions
    without any: a batch says what each says alone.
    """
    model, processor = griffon_model
    together = logits(model, ask(processor, MIXED))
    for i, row in enumerate(MIXED):
        assert torch.allclose(logits(model, ask(processor, [row]))[0], together[i], atol=1e-4), row[
            1
        ]


FIVE = [
    (SCENES[0], "Where is the star?", [], []),
    (SCENES[1], "Find all objects like <crop>.", [], CROPS[:1]),
    (
        SCENES[2],
        "Which of <crop>, <crop>, <crop>, <crop> and <crop> is not here?",
        [],
        [*CROPS, make_example("anchor", 3), Crop(SCENES[0].image, Box(5, 5, 40, 60))],
    ),
]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_none_one_and_five_crops_in_one_batch_answer_as_they_do_alone(griffon_model, order):
    """What is written, word for word, and the logits behind it: no question reads its neighbour's
    pictures, wherever it stands.
    """
    model, processor = griffon_model
    with (
        torch.no_grad()
    ):  # far from the uniform distribution, so that greedy choices are clear and vary
        for p in model.language_model.parameters():
            p.mul_(4 if p.ndim > 1 else 1)
    rows, ferret = [FIVE[i] for i in order], Ferret(model, processor)
    batch = ask(processor, rows)
    assert (batch["input_ids"] == model.config.crop_token_id).sum(1).tolist() == [
        (0, 1, 5)[i] for i in order
    ] and len(batch["crop_pixels"]) == 6
    together = logits(model, batch)
    for row, said in zip(rows, together):
        assert torch.allclose(logits(model, ask(processor, [row]))[0], said, atol=1e-3), row[1]
    said = ferret.ask(
        [s.image for s, *_ in rows],
        [r[1] for r in rows],
        crops=[r[3] for r in rows],
        max_new_tokens=20,
    )
    alone = [
        ferret.ask([s.image], [question], crops=[crops], max_new_tokens=20)[0]
        for s, question, _, crops in rows
    ]
    assert [(a.raw_text, a.finish_reason) for a in said] == [
        (a.raw_text, a.finish_reason) for a in alone
    ]
    assert len({a.raw_text for a in said}) == 3 and all(
        a.raw_text.strip() for a in said
    )  # or equality would say nothing


def test_each_crop_fills_its_own_placeholder(griffon_model):
    model, processor = griffon_model
    batch = ask(processor, MIXED)
    ids = batch["input_ids"]
    assert (ids == model.config.crop_token_id).sum(1).tolist() == [1, 2, 0, 2] and len(
        batch["crop_pixels"]
    ) == 5
    with torch.no_grad():
        embedded, vectors = (
            embed_batch(model, **{k: v for k, v in batch.items() if k != "attention_mask"}),
            model.crop_tokenizer(batch["crop_pixels"]),
        )
    assert torch.allclose(embedded[ids == model.config.crop_token_id], vectors, atol=1e-6)
    swapped = ask(processor, [(*MIXED[1][:3], CROPS[1:][::-1])])
    assert not torch.allclose(
        logits(model, swapped), logits(model, ask(processor, MIXED[1:2])), atol=1e-4
    )  # order means something


def test_pictures_change_the_answer_and_only_theirs(griffon_model):
    model, processor = griffon_model
    other = [(MIXED[0][0], MIXED[0][1], [], [make_example("anchor", 5)]), *MIXED[1:]]
    before, after = (logits(model, ask(processor, rows)) for rows in (MIXED, other))
    assert not torch.allclose(before[0], after[0], atol=1e-4) and torch.allclose(
        before[1:], after[1:], atol=1e-5
    )


def test_the_cache_and_beams_keep_crops_with_their_questions(griffon_model):
    model, processor = griffon_model
    batch, options = (
        ask(processor, MIXED),
        dict(max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0),
    )
    fast, slow = (model.generate(**batch, **options, use_cache=c) for c in (True, False))
    assert torch.equal(fast, slow)
    for i, row in enumerate(MIXED[:2]):
        alone = ask(processor, [row])
        n = alone["input_ids"].shape[1]
        assert torch.equal(
            model.generate(**alone, **options, num_beams=2)[0, n:],
            model.generate(**batch, **options, num_beams=2)[i, batch["input_ids"].shape[1] :],
        )


def test_what_cannot_be_meant_is_refused(griffon_model, random_model):
    model, processor = griffon_model
    image = SCENES[0].image
    with pytest.raises(ValueError, match="found <crop> 1 times for 2 crops"):
        processor(image, "Like <crop>?", None, CROPS[:2])
    with pytest.raises(ValueError, match="found <crop> 2 times for 0 crops"):
        processor(image, "Is <crop> like <crop>?")
    with pytest.raises(ValueError, match="reads none"):
        random_model[1](image, "Like <crop>?", None, CROPS[:1])
    with pytest.raises(ValueError, match="2 images, 2 prompts, 2 lists of regions and 1 of crops"):
        processor([image] * 2, ["a", "b"], None, [[]])
    batch = ask(processor, MIXED[:1])
    batch["crop_pixels"] = batch["crop_pixels"][:0]
    with pytest.raises(ValueError, match="1 crop placeholders, expected 0"):
        model(**batch)
    assert "like <crop_fea>?" in processor.fill_prompt("Anything like?", [], (9, 9), 1)
    with pytest.raises(ValueError, match=r"placeholders 3, 4, 400, expected 3, 4, 7"):
        FerretProcessor(
            FerretConfig.from_dict({**model.config.to_dict(), "crop_token_id": 7}),
            processor.tokenizer,
        )


def test_the_crop_encoder_never_learns_and_everything_else_does(griffon_model):
    model, processor = griffon_model
    batch = Collator(processor)(
        [ConversationDataset(SceneStream(2, 5), dict(search=1.0, find=1.0), 3)[i] for i in range(2)]
    )
    batch.pop("ids")
    assert len(batch["crop_pixels"]) == (batch["input_ids"] == model.config.crop_token_id).sum() > 0
    model.train()(**batch).loss.backward()
    assert not model.crop_tokenizer.tower.training and all(
        p.grad is None for p in model.crop_tokenizer.tower.parameters()
    )
    parts = model.parts()
    assert not {id(p) for ps in parts.values() for p in ps} & {
        id(p) for p in model.crop_tokenizer.tower.parameters()
    }
    for name in (
        "global_tower",
        "global_projector",
        "visual_position",
        "crop_projector",
        "language_model",
    ):
        assert all(p.grad is not None for p in parts[name]), name


def test_a_saved_model_says_the_same(griffon_model, tmp_path):
    model, processor = griffon_model
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, reader = (
        FerretForConditionalGeneration.from_pretrained(tmp_path).eval(),
        FerretProcessor.from_pretrained(tmp_path),
    )
    assert (
        again.config.style == "griffon"
        and reader.config.crop_token_id == model.config.crop_token_id
    )
    assert torch.allclose(
        logits(model, ask(processor, MIXED)), logits(again, ask(reader, MIXED)), atol=1e-6
    )


def test_answers_are_read_in_griffons_form(griffon_model):
    _, processor = griffon_model

    def write(text):
        return processor.tokenizer(" " + text, add_special_tokens=False).input_ids

    text = "star-[0.100,0.200,0.300,0.400]&t-shirt-[0.500,0.500,0.750,1.000]"
    found = processor.decode_answer(write(text), size=(100, 200))
    assert (
        found.raw_text == text
        and found.text == "star, t-shirt"
        and [g.name for g in found.groundings] == ["star", "t-shirt"]
    )
    assert found.groundings[1].boxes[0].list() == pytest.approx([100, 50, 150, 100], abs=0.3)
    alone = processor.decode_answer(
        write("[0.100,0.200,0.300,0.400]&[0.500,0.500,0.750,1.000]"), size=(100, 200)
    )
    assert alone.text == "" and sum(len(g.boxes) for g in alone.groundings) == 2
    assert (
        processor.decode_answer(write("None"), size=(9, 9)).groundings == []
        and processor.decode_answer(write("None"), size=(9, 9)).text == "None"
    )


def test_a_malformed_box_shifts_no_other_boxs_score(griffon_model):
    _, processor = griffon_model
    ids = [
        processor.tokenizer(t, add_special_tokens=False).input_ids
        for t in (
            " star-[0.100,0.200,0.300,0.400]&cup-[0.5,oops]&",
            "moon-[0.500,0.500,0.750,1.000]",
        )
    ]
    found = processor.decode_answer(
        ids[0] + ids[1], [0.9] * len(ids[0]) + [0.5] * len(ids[1]), (100, 100)
    )
    scores = {g.name: g.scores[0] for g in found.groundings}
    assert (
        found.warnings and list(scores) == ["star", "moon"] and scores["star"] > scores["moon"] > 0
    )


def test_places_that_are_written_say_where_to_look(griffon_model):
    _, processor = griffon_model
    scenes = ConversationDataset(SceneStream(4, 9), dict(find_set=1.0, search=1.0), 2)
    batch = processor.encode_conversations([scenes[i] for i in range(4)], mark_boxes=True)
    boxes = sum(
        len(g.boxes) for i in range(4) for t in scenes[i].turns for g in t.meta["groundings"]
    )
    assert len(batch["shows"]) == boxes > 4 and batch["shows"].any(1).all()
    assert (
        set(batch["writes"].unique().tolist())
        == set(batch["names"].unique().tolist())
        == {-1, *range(boxes)}
    )


# Crops


def test_windows_are_squares_inside_the_image():
    dice = random.Random(0)
    for _ in range(300):
        h, w = dice.randint(20, 200), dice.randint(20, 200)
        x1, y1 = dice.uniform(0, w - 2), dice.uniform(0, h - 2)
        box = Box(x1, y1, dice.uniform(x1 + 1, w), dice.uniform(y1 + 1, h))
        left, top, right, bottom = compute_crop_window(box, (h, w))
        assert (
            -1e-6 <= left <= box.x1 + 1e-6
            and -1e-6 <= top <= box.y1 + 1e-6
            and box.x2 <= right + 1e-6 <= w + 2e-6
            and box.y2 <= bottom + 1e-6 <= h + 2e-6
        )
        side = max(box.width, box.height, 1) * 4 / 3
        assert right - left == pytest.approx(min(side, w)) and bottom - top == pytest.approx(
            min(side, h)
        )


@pytest.mark.parametrize(
    "box", [None, Box(0, 0, 140, 3), Box(139, 119, 140, 120), Box(0, 0, 140, 120)]
)
def test_any_box_gives_a_square_picture(box):
    assert cut_crop(SCENES[0].image, box, 48).size == (48, 48)


def test_nothing_is_stretched():
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (300, 200), "white")
    ImageDraw.Draw(image).ellipse((250, 60, 290, 100), fill="black")
    for picture in (
        cut_crop(image, Box(250, 60, 290, 100)),
        cut_crop(image, Box(230, 70, 300, 90)),
        cut_crop(image),
    ):
        dark = (
            torch.tensor(list(picture.convert("L").tobytes())).reshape(
                picture.height, picture.width
            )
            < 90
        )
        height, width = dark.any(1).sum().item(), dark.any(0).sum().item()
        assert abs(height - width) <= max(2, 0.05 * height)


def test_the_linear_projector_is_the_papers(griffon_model):
    config = FerretConfig.from_dict({**griffon_model[0].config.to_dict(), "crop_linear": True})
    assert isinstance(
        FerretForConditionalGeneration(config).crop_tokenizer.projector, torch.nn.Linear
    )
    assert isinstance(VisualTokenizer(config.crop_tower, 8).projector[1], torch.nn.ReLU)


@pytest.mark.parametrize(
    "kind, n, options",
    [
        ("mlp", 90, {}),
        ("shuffle", 25, {}),
        ("pool", 25, {}),
        ("resampler", 12, dict(queries=(3, 4), heads=2)),
        ("conv", 16, dict(padding=0)),
    ],
)
def test_every_projector_fits_the_model(griffon_model, kind, n, options):
    model, processor = griffon_model
    config = FerretConfig.from_dict(
        {**model.config.to_dict(), "projector": kind, "projector_options": options}
    )
    model, processor = (
        FerretForConditionalGeneration(config).eval(),
        FerretProcessor(config, processor.tokenizer),
    )
    batch = ask(processor, MIXED)
    assert (
        (batch["input_ids"] == config.image_token_id).sum(1).tolist()
        == [n] * 4
        == [len(config.list_token_boxes((0, 0)))] * 4
    )
    assert logits(model, batch).isfinite().all()


def test_all_tasks_become_training_batches(griffon_model):
    model, processor = griffon_model
    data = ConversationDataset(SceneStream(3, 1), dict.fromkeys(GRIFFON_TASKS, 1.0), 6)
    batch = Collator(processor, mark_boxes=True)([data[i] for i in range(3)])
    assert {t.task for i in range(3) for t in data[i].turns} == set(GRIFFON_TASKS) and batch["ids"]
    for k in ("ids", "names", "writes", "shows"):
        batch.pop(k)
    assert model(**batch).loss.isfinite()


# The friendly face


class Speaking(Ferret):
    "A Griffon model that writes given texts, and remembers what it was asked and shown."

    def __init__(self, parts, *texts):
        super().__init__(*parts)
        self.texts, self.asked, self.shown = list(texts), [], []

    def _generate(self, images, prompts, regions, crops, max_new_tokens, temperature):
        self.processor(images, prompts, regions, crops)
        self.asked += prompts
        self.shown += crops
        rows = [
            self.processor.tokenizer(" " + self.texts.pop(0), add_special_tokens=False).input_ids
            + [self.processor.tokenizer.eos_token_id]
            for _ in prompts
        ]
        tokens = torch.tensor([r + [0] * (max(map(len, rows)) - len(r)) for r in rows])
        return tokens, torch.full(tokens.shape, 0.9)


def test_verbs_speak_griffons_language(griffon_model):
    image = SCENES[0].image  # 140 x 120
    f = Speaking(
        griffon_model,
        "star-[0.100,0.100,0.200,0.200]&cup-[0.300,0.300,0.400,0.500]&star-[0.500,0.500,0.600,0.600]",
        "red star-[0.100,0.100,0.200,0.200]&red star-[0.500,0.500,0.600,0.600]",
        "None",
        "filled red star",
        "[0.100,0.100,0.200,0.200]&[0.500,0.500,0.600,0.600]",
        "None",
        "[0.100,0.100,0.200,0.200]",
    )
    assert {g.name: len(g.boxes) for g in f.detect(image, ["star", "cup", "sun"])} == {
        "star": 2,
        "cup": 1,
    }
    assert f.count(image, "red star") == 2 and f.ground(image, "the blue cup") == []
    assert f.refer(image, Box(14, 12, 28, 24)) == "filled red star"
    found = f.find(image, like=Box(14, 12, 28, 24))
    assert (
        len(found) == 1
        and found[0].name == ""
        and len(found[0].boxes) == len(found[0].raw_scores) == 2
        and found[0].boxes[0].list() == pytest.approx([14, 12, 28, 24], abs=0.2)
    )
    assert f.count(image, like=CROPS[0]) == 0 and f.count(image, like=Crop(SCENES[1].image)) == 1
    assert f.asked == [
        "Detect all objects of these kinds: star, cup, sun.",
        "Where is a red star? Give every box.",
        "Where is a blue cup? Give every box.",
        "Describe the object at [0.100,0.100,0.200,0.200].",
        *["Find all objects like <crop>."] * 3,
    ]
    assert (
        f.shown[4][0].box == Box(14, 12, 28, 24)
        and f.shown[5] == [CROPS[0]]
        and not any(f.shown[:4])
    )


def test_verbs_refuse_what_they_cannot_do(griffon_model, random_model):
    image, griffon, ferret = SCENES[0].image, Ferret(*griffon_model), Ferret(*random_model)
    with pytest.raises(ValueError, match="expected names"):
        griffon.detect(image)
    with pytest.raises(ValueError, match="exactly one"):
        griffon.count(image)
    with pytest.raises(ValueError, match="exactly one"):
        griffon.count(image, "star", like=CROPS[0])
    with pytest.raises(ValueError, match="reads none"):
        ferret.find(image, like=CROPS[0])
    with pytest.raises(ValueError, match="2 questions and 1 entries"):
        griffon.ask(image, ["<crop>?", "<crop>?"], crops=[CROPS[0]])
    with pytest.raises(FileNotFoundError, match="found no file"):
        griffon.find(image, like="no-such-crop.png")


def test_boxes_of_a_name_come_together():
    from ferretlite.regions.grammar import Grounding

    a, b, c = (Box(i, i, i + 1, i + 1) for i in range(3))
    assert merge_groundings(
        [Grounding("x", [a], [0.5]), Grounding("y", [b], [0.4]), Grounding("x", [c], [0.3])]
    ) == [Grounding("x", [a, c], [0.5, 0.3]), Grounding("y", [b], [0.4])]
    assert merge_groundings([]) == [] and merge_groundings([Grounding("x", [a])])[0].scores is None
    assert format_grounding_question(["a cup", "the sun"], "ferret").startswith(
        "What are the locations"
    )


# The exam


def test_the_exam_asks_every_question_and_a_perfect_answer_scores_fully(griffon_model):
    from ferretlite.evaluation.scores import score_results

    questions = [
        q
        for split in ("test", "count", "novel")
        for i in range(6)
        for q in _make_griffon_questions(make_scene(i, 192, split), f"0 {i}")
    ]
    assert {(q.turn.task, q.group) for q in questions} == {
        ("rec", ""),
        ("find", ""),
        ("find_set", ""),
        ("find_phrases", ""),
        ("tell", ""),
        ("search", "count.same"),
        ("search", "count.cross"),
        ("search", "find.novel"),
    }
    answers = [
        griffon_model[1].decode_answer(
            griffon_model[1].tokenizer(" " + q.turn.answer, add_special_tokens=False).input_ids,
            size=q.scene.size,
        )
        for q in questions
    ]
    found = {}
    for q, a in zip(questions, answers):
        found.setdefault(q.group, []).append(_score_answer(q, a))
    assert all(
        score_results(found[g])["count.mae"]["value"] == 0 for g in ("count.same", "count.cross")
    ) and score_results(found["find.novel"])["det.AP50"]["value"] == pytest.approx(1)
    plain = score_results(found[""])
    assert (
        plain["rec.acc@0.5"]["value"] > 0.9
        and plain["det.AP50"]["value"] == pytest.approx(1)
        and plain["absent.balanced_acc"]["value"] == 1
    )
    assert (
        plain["count.mae"]["value"] == 0
        and plain["name.acc"]["value"] == plain["phrase.acc"]["value"] == 1
    )
    silent = [
        _score_answer(q, SimpleNamespace(groundings=[], text="None"))
        for q in questions
        if q.turn.task == "find"
    ]
    assert score_results(silent)["absent.balanced_acc"]["value"] == 0.5


def test_a_model_of_griffons_kind_is_examined_in_its_own_words(griffon_model):
    metrics = evaluate(
        Ferret(*griffon_model),
        [make_scene(i, 96, split) for split in ("test", "count", "novel") for i in range(3)],
        progress=False,
    )
    assert {
        "rec.acc@0.5",
        "absent.balanced_acc",
        "det.AP50",
        "phrase.acc",
        "name.acc",
        "count.mae",
        "count.same.mae",
        "count.cross.mae",
        "find.novel.AP50",
    } <= set(metrics)
    assert all(set(m) == {"value", "n", "ci95", "chance", "constant"} for m in metrics.values())


def test_without_a_sampler_a_region_is_its_written_place(griffon_model):
    "Griffon v2's own form: coordinates in the prompt, no vector, and no weights for one."
    config = FerretConfig.from_dict({**griffon_model[0].config.to_dict(), "region_features": False})
    torch.manual_seed(0)
    model, processor = (
        FerretForConditionalGeneration(config).eval(),
        FerretProcessor(config, griffon_model[1].tokenizer),
    )
    assert model.sampler is None and not model.parts().get("sampler")
    assert (
        processor.fill_prompt("What is <region>?", [Box(35, 30, 70, 60)], (120, 140))
        == "What is [0.250,0.250,0.500,0.500]?"
    )
    batch = ask(processor, MIXED)
    assert (
        not (batch["input_ids"] == config.region_token_id).any()
        and logits(model, batch).isfinite().all()
    )
    for i, row in enumerate(MIXED):
        assert torch.allclose(
            logits(model, ask(processor, [row]))[0], logits(model, batch)[i], atol=1e-4
        )
