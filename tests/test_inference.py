"Ferret: what goes in, what comes out, and what must not depend on company."

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_model import Scripted, save_small, small_ferret

from ferretlite.model.answers import Answer
from ferretlite.model.inference import Ferret
from ferretlite.model.loading import find_model
from ferretlite.regions.drawing import draw_answer, save_image
from ferretlite.regions.geometry import Box, Mask, Point
from ferretlite.scenes.world import make_scene


@pytest.fixture(scope="module")
def ferret():
    return small_ferret()


@pytest.fixture(scope="module")
def scene():
    return make_scene(3, 96, "test")


def questions():
    "Images of several shapes, prompts of several lengths, regions of every form."
    images = [
        make_scene(i, size, "test").image for i, size in enumerate([96, (64, 128), (160, 96), 96])
    ]
    regions = [
        None,
        [Point(20, 30)],
        [Box(5, 5, 60, 90), Mask(np.eye(160, 96, dtype=bool))],
        Box(1, 1, 95, 95),
    ]
    prompts = [
        "Find all objects.",
        "What is this? <region>",
        "Is <region> larger than <region>, or do they look alike?",
        "What is in this region?",
    ]
    return images, prompts, regions


def test_batched_answers_equal_single_ones(ferret):
    images, prompts, regions = questions()
    together = ferret.ask(images, prompts, regions, max_new_tokens=12)
    alone = [ferret.ask(i, p, r, max_new_tokens=12) for i, p, r in zip(images, prompts, regions)]
    in_twos = ferret.ask(images, prompts, regions, max_new_tokens=12, batch=2)
    assert (
        [a.to_dict() for a in together]
        == [a.to_dict() for a in alone]
        == [a.to_dict() for a in in_twos]
    )


def test_batched_probabilities_equal_single_ones(ferret):
    images, prompts, regions = questions()
    held = [r if isinstance(r, list) else [r] for r in regions]
    held = [[r for r in listed if r is not None] for listed in held]
    tokens, together = ferret._generate(images, prompts, held, [[]] * len(prompts), 6, 0)
    for i in range(len(images)):
        own, alone = ferret._generate(
            images[i : i + 1], prompts[i : i + 1], held[i : i + 1], [[]], 6, 0
        )
        assert own[0].tolist() == tokens[i].tolist()[: own.shape[1]]
        torch.testing.assert_close(alone[0], together[i][: alone.shape[1]], atol=1e-4, rtol=0)


def test_a_saved_and_reloaded_model_answers_identically(ferret, tmp_path):
    ferret.model.save_pretrained(tmp_path)
    ferret.processor.save_pretrained(tmp_path)
    images, prompts, regions = questions()
    again = Ferret.load(tmp_path, device="cpu").ask(images, prompts, regions, max_new_tokens=12)
    assert [a.to_dict() for a in again] == [
        a.to_dict() for a in ferret.ask(images, prompts, regions, max_new_tokens=12)
    ]


def test_towers_see_an_image_once_per_answer(ferret, scene):
    calls = []
    hooks = [
        t.register_forward_hook(lambda *_: calls.append(1))
        for t in (ferret.model.global_projector, ferret.model.local_projector)
    ]
    try:
        ferret.ask(scene.image, "Find all objects.", max_new_tokens=8)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(calls) == 2


def test_questions_about_one_image_share_one_look_at_it(ferret, scene):
    images, prompts = (
        [scene.image, make_scene(4, 128).image, scene.image, scene.image],
        [
            "Find all objects.",
            "What is this? <region>",
            "What is in this region? <region>",
            "How many?",
        ],
    )
    regions = [None, [Box(2, 2, 40, 40)], [Box(5, 5, 60, 60)], None]
    alone = [ferret.ask(i, p, r, max_new_tokens=10) for i, p, r in zip(images, prompts, regions)]
    views = []
    hook = ferret.model.global_projector.register_forward_pre_hook(
        lambda _, inputs: views.append(len(inputs[0]))
    )
    try:
        together = ferret.ask(images, prompts, regions, max_new_tokens=10)
    finally:
        hook.remove()
    assert views == [2] and [a.raw_text for a in together] == [a.raw_text for a in alone]


def test_a_loaded_model_is_float32_on_a_cpu_even_if_stored_in_half(tmp_path):
    small = small_ferret()
    small.model.half().save_pretrained(tmp_path)
    small.processor.save_pretrained(tmp_path)
    assert {p.dtype for p in Ferret.load(tmp_path, device="cpu").model.parameters()} == {
        torch.float32
    }


def test_every_kind_of_image_gives_the_same_answer(ferret, tmp_path):
    picture = make_scene(1, (64, 96), "test").image
    picture.save(tmp_path / "a.png")
    held = io.BytesIO()
    picture.save(held, "PNG")
    forms = [
        picture,
        np.asarray(picture),
        held.getvalue(),
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        picture.convert("RGBA"),
    ]
    answers = ferret.ask(forms, "Find all objects.", max_new_tokens=6)
    assert len({a.raw_text for a in answers}) == 1 and {a.size for a in answers} == {(64, 96)}


def test_a_rotated_photo_is_asked_about_upright(tmp_path):
    upright = make_scene(1, (64, 96), "test").image
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "r.png", exif=exif)
    answer = Scripted("star [0, 0, 999, 999]").ask(tmp_path / "r.png", "Find the star.")
    assert answer.size == (64, 96)
    assert np.array_equal(np.asarray(answer.image), np.asarray(upright))
    x1, y1, x2, y2 = answer.groundings[0].boxes[0].list()
    assert x2 > 90 and y2 < 65


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "I;16", "CMYK"])
def test_images_of_other_modes_are_read(ferret, mode):
    grey = make_scene(1, 96, "test").image.convert("L")
    picture = (
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        if mode == "I;16"
        else grey.convert(mode)
    )
    assert ferret.ask(picture, "Find all objects.", max_new_tokens=2).image.mode == "RGB"


def test_bad_images_are_named_in_one_sentence(ferret, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for bad, said in (
        (tmp_path / "none.png", "no file"),
        (tmp_path / "text.png", "no picture of a known format"),
        (tmp_path, "folder"),
        (b"xx", "no picture of a known format"),
        (np.zeros((2, 2, 7)), "shape"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
            ferret.ask(bad, "What?")
        assert "\n" not in str(caught.value)


def test_bad_regions_are_refused(ferret, scene):
    for region in (
        Box(200, 200, 300, 300),
        Point(-5, 2),
        Mask(np.ones((4, 4), bool)),
        Mask(np.zeros(scene.size, bool)),
    ):
        with pytest.raises(ValueError):
            ferret.ask(scene.image, "What is this?", [region], max_new_tokens=1)
    with pytest.raises(ValueError, match="regions"):
        ferret.ask(scene.image, "<region> or <region>?", [Point(1, 1)])


def test_boxes_come_back_in_the_image_frame_with_scores():
    picture = Image.new("RGB", (200, 100))
    answer = Scripted("filled red star [100, 200, 300, 400], cup [500, 500, 600, 600]").ask(
        picture, "Find all objects."
    )
    assert [g.name for g in answer.groundings] == ["filled red star", "cup"]
    np.testing.assert_allclose(
        answer.groundings[0].boxes[0].list(), [20.1, 20.05, 60.1, 40.05], atol=1e-4
    )
    assert all(0 < s < 0.9 for g in answer.groundings for s in g.raw_scores)
    assert all(g.scores is None for g in answer.groundings)  # nothing was fitted
    assert answer.finish_reason == "stop" and answer.warnings == [] and "[" not in answer.text
    assert json.loads(json.dumps(answer.to_dict()))["groundings"][1]["name"] == "cup"


def test_an_answer_that_was_cut_says_so():
    answer = Scripted("star [100, 200, 300, 400], cup [500, 500, 600, 600]").ask(
        Image.new("RGB", (99, 99)), "Find all.", max_new_tokens=6
    )
    assert answer.finish_reason == "length" and "cut off after 6 tokens" in answer.warnings[-1]


def test_malformed_boxes_are_dropped_and_listed():
    answer = Scripted("star [900, 200, 300, 400], cup [500, 500, 600, 600]").ask(
        Image.new("RGB", (99, 99)), "Find all."
    )
    assert [g.name for g in answer.groundings] == ["cup"] and len(answer.warnings) == 1


@pytest.mark.parametrize(
    "verb, said, asked, found",
    [
        (
            lambda f, i: [g.name for g in f.ground(i, "the red cup")],
            ["red cup [1, 2, 3, 4]"],
            ["What is the location of the red cup in the image?"],
            ["red cup"],
        ),
        (
            lambda f, i: [g.name for g in f.ground(i, caption="A star, a cup and a gear.")],
            ["star [1, 2, 3, 4], cup [1, 2, 3, 4]"],
            ["What are the locations of the star, the cup, the gear?"],
            ["star", "cup"],
        ),
        (
            lambda f, i: len(f.ground(i, list("bcdef"))),
            ["a [1, 2, 3, 4]", "e [1, 2, 3, 4]"],
            [
                "What are the locations of the b, the c, the d, the e?",
                "What is the location of the f in the image?",
            ],
            2,
        ),
        (
            lambda f, i: f.refer(i, Box(1, 1, 9, 9)),
            ["filled red star"],
            ["What is in this region <region>?"],
            "filled red star",
        ),
        (
            lambda f, i: f.describe(i).text,
            ["A star [1, 2, 3, 4]."],
            ["Describe the image.\nInclude the coordinates for each mentioned object."],
            "A star.",
        ),
        (
            lambda f, i: [(g.name, len(g.boxes)) for g in f.detect(i, ["star", "cup"])],
            ["stars [1, 2, 3, 4] [5, 6, 7, 8]", "none"],
            ["Find all stars.", "Find all cups."],
            [("star", 2)],
        ),
        (
            lambda f, i: [g.name for g in f.detect(i)],
            ["The objects are: 1: red star [1, 2, 3, 4], 2: cup [1, 2, 3, 4]"],
            ["Please localize visible objects in the image in a raster scan order."],
            ["red star", "cup"],
        ),
        (
            lambda f, i: f.count(i, "dice"),
            ["1: dice [1, 2, 3, 4], 2: dice [5, 6, 7, 8]; 2 in all"],
            ["How many dice are there?"],
            2,
        ),
    ],
)
def test_verbs_ask_the_canonical_question(verb, said, asked, found):
    ferret = Scripted(*said)
    assert verb(ferret, Image.new("RGB", (96, 96))) == found
    assert ferret.asked == asked


def test_a_count_without_a_number_is_refused():
    with pytest.raises(ValueError, match="number"):
        Scripted("many").count(Image.new("RGB", (96, 96)), "star")


def test_ground_needs_something_to_look_for(ferret, scene):
    for arguments in (dict(), dict(phrase="a", caption="b"), dict(caption=" . "), dict(phrase=[])):
        with pytest.raises(ValueError):
            ferret.ground(scene.image, **arguments)


def test_a_picture_is_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    answer = Answer("", image=Image.new("RGB", (50, 40)))
    assert Image.open(answer.save(tmp_path / "a.jpg")).size == draw_answer(answer.image).size

    save = Image.Image.save

    def broken(picture, target, **options):
        if not isinstance(target, io.BytesIO):
            raise OSError("disk full")
        save(picture, target, **options)

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        answer.save(tmp_path / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.jpg"]


def test_pictures_go_only_where_pictures_can_go(tmp_path):
    for path in (tmp_path / "a.txt", tmp_path / "none" / "a.png", tmp_path / "a"):
        with pytest.raises((ValueError, FileNotFoundError)):
            save_image(Image.new("RGB", (4, 4)), path)


def test_drawing_survives_odd_pictures_and_boxes():
    from ferretlite.regions.grammar import Grounding

    for size in ((1, 1), (3, 500), (1200, 7)):
        w, h = size
        draw_answer(
            Image.new("RGB", size),
            [
                Grounding(
                    "a very long name indeed " * 3, [Box(0, 0, w, h), Box(w, h, w, h)], [0.5, 0.5]
                )
            ],
            [Point(0, 0), Box(0, 0, w, h), Mask(np.ones((h, w), bool))],
        )


def test_a_folder_that_is_half_a_model_is_named(tmp_path):
    save_small(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="cannot be loaded"):
        Ferret.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot be loaded"):
        Ferret.load(tmp_path)


def test_a_missing_run_folder_is_not_looked_up_on_the_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(FileNotFoundError, match="runs/quick"):
        find_model("runs/quick")
