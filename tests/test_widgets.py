"The widgets of notebooks, without a browser: the state, what is drawn of it, and what gestures do."

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_model import small_ferret

from ferretlite.app import canvas as canvas_module
from ferretlite.app.canvas import Tool, draw_items, encode_overlay, make_region_items
from ferretlite.app.viewers import (
    HEAT_SIDE,
    AttentionViewer,
    SamplerViewer,
    TileChooser,
    read_attention,
)
from ferretlite.app.widgets import (
    RegionPicker,
    SceneEditor,
    draw_pieces,
    draw_stroke,
    format_label,
    make_pieces,
)
from ferretlite.common.errors import InputError
from ferretlite.common.files import WEIGHTS
from ferretlite.model.answers import Answer
from ferretlite.model.towers import FerretConfig
from ferretlite.regions.geometry import Box, Mask, Point
from ferretlite.regions.grammar import Grounding
from ferretlite.scenes.world import Scene, make_scene
from ferretlite.vision.sampler import SpatialAwareSampler

IMAGE = Image.new("RGB", (120, 100), "white")  # 100 high, 120 wide
ONE, TWO = Box(10, 20, 30, 50), Box(40, 5, 60, 25)


class Fake:
    "Answers every question with its own words, and with two boxes where no region is asked about."

    def __init__(self, text="a star"):
        self.text, self.asked = text, []

    def ask(self, image, prompts, regions):
        self.asked += list(zip(prompts, map(list, regions)))
        boxes = [Grounding("star", [ONE, TWO], [0.5, 0.25])]
        return [Answer(f"{self.text} {len(r)}", [] if r else boxes, image=image) for r in regions]


class Refusing:
    "Refuses every question."

    def ask(self, image, prompts, regions):
        raise InputError("no answer")


def picker(**options) -> RegionPicker:
    return RegionPicker(Fake(), IMAGE, "What is <region>?", **options)


def gesture(tool, kind, **data) -> str:
    "Send what the browser sends, and return the note beside the picture."
    pytest.importorskip("anywidget")
    tool.make_widget()
    tool._handle(tool._canvas, dict(kind=kind, id="g-1", done=True, **data))
    assert tool._canvas.answered == "g-1" and not tool._canvas.busy
    return tool.note


# Asking


def test_each_region_is_asked_about_once():
    tool = picker()
    assert tool.ask(regions=[]) == [] and tool.ferret.asked == []
    tool.ask(regions=[ONE])
    tool.ask(regions=[ONE, Point(5, 6)])
    assert tool.ferret.asked == [("What is <region>?", [ONE]), ("What is <region>?", [Point(5, 6)])]
    assert [a.text for a in tool.answers] == ["a star 1"] * 2
    tool.ask("And <region>?")
    assert tool.ferret.asked[2:] == [("And <region>?", [ONE]), ("And <region>?", [Point(5, 6)])]


def test_a_question_without_a_mark_is_about_the_picture():
    tool = picker()
    tool.ask("How many?", [ONE, TWO])
    assert tool.ferret.asked == [("How many?", [])]


def test_a_question_with_two_marks_takes_the_last_two_regions():
    tool = picker()
    tool.ask("Is <region> left of <region>?", [ONE])
    assert tool.ferret.asked == [] and tool.answers == []
    tool.ask(regions=[Point(1, 1), ONE, TWO])
    assert tool.ferret.asked == [("Is <region> left of <region>?", [ONE, TWO])]


def test_boxes_below_the_threshold_are_hidden():
    tool = picker()
    tool.ask("Where?")
    assert [(n, b, s) for n, b, s, _ in tool.list_boxes()] == [
        ("star", ONE, 0.5),
        ("star", TWO, 0.25),
    ]
    for threshold, n in ((0.25, 2), (0.26, 1), (0.51, 0)):
        tool.set_threshold(threshold)
        assert len(tool.list_boxes()) == n and f"threshold: {n} of 2." in tool.write_panel()
    assert len(tool.ferret.asked) == 1  # hiding does not ask


def test_a_model_without_scores_says_so():
    tool = picker()
    tool.question = "Where?"
    tool.answers = [Answer("", [Grounding("star", [ONE, TWO], raw_scores=[0.01, 0.02])])]
    tool.set_threshold(0.9)
    assert [s for _, _, s, _ in tool.list_boxes()] == [None, None]
    assert "Boxes: 2. The model has no scores" in tool.write_panel()


@pytest.mark.parametrize("threshold", [-0.1, 5, float("nan")])
def test_a_threshold_is_a_probability(threshold):
    tool = picker()
    with pytest.raises(InputError, match="threshold"):
        tool.set_threshold(threshold)
    assert tool.threshold == 0


def test_names_and_scores_of_boxes():
    assert format_label("star", 0.873) == "star · 0.87" and format_label("", None) == "(no name)"


def test_words_of_a_model_are_shown_as_text():
    tool = RegionPicker(Fake("<img src=x onerror=alert(1)>"), IMAGE)
    tool.ask("<b>Where</b>?")
    assert "<img" not in tool.write_panel() and "&lt;img" in tool.write_panel()


def test_a_refused_question_leaves_no_answers_of_the_one_before():
    tool = picker()
    tool.ask("Where?")
    assert gesture(tool, "point", at=[3, 4]) == "" and len(tool.answers) == 1
    tool.ferret = Refusing()
    tool._text.value = "How many?"
    assert (tool.question, tool.answers, tool.list_boxes()) == ("How many?", [], [])
    assert "no answer" in tool._panel.value and "a star" not in tool._panel.value
    assert tool._canvas.items == make_region_items([Point(3, 4)])
    tool.ferret = Fake()
    tool.ask()  # in code
    assert "no answer" not in tool._panel.value and "a star" in tool._panel.value


def test_a_question_says_how_many_regions_it_needs():
    tool = picker()
    tool.ask("Is <region> left of <region>?", [ONE])
    assert "needs 2 regions; there are 1" in tool.write_panel()
    assert "needs" not in picker().write_panel()


def test_lines_of_an_answer_stay_lines():
    tool = RegionPicker(Fake("one\ntwo"), IMAGE)
    tool.ask("Where?")
    assert '<li style="white-space:pre-wrap">one\ntwo' in tool.write_panel()


# Gestures


def test_what_is_drawn_is_seen_while_the_model_works():
    tool, seen = picker(), []
    tool.make_widget()
    tool.ferret = SimpleNamespace(
        ask=lambda *args: seen.append((tool._canvas.busy, tool._canvas.items)) or [Answer("a", [])]
    )
    gesture(tool, "box", box=[10, 20, 30, 50])
    assert seen == [(True, make_region_items([ONE]))]


def test_click_drag_and_undo():
    tool = picker()
    assert gesture(tool, "point", at=[12.5, 7]) == ""
    gesture(tool, "box", box=[10, 20, 30, 50])
    assert tool.regions == [Point(12.5, 7), ONE] and len(tool.answers) == 2
    gesture(tool, "undo")
    assert tool.regions == [Point(12.5, 7)] and len(tool.answers) == 1
    assert len(tool._canvas.items) == 1 and tool._canvas.items[0]["dot"] == [12.5, 7]
    gesture(tool, "undo")
    gesture(tool, "undo")
    assert tool.regions == []


def test_a_stroke_becomes_a_mask_where_the_pen_went():
    mask = draw_stroke([[20, 50], [80, 50]], (100, 120))
    drawn = mask.to_mask(100, 120)
    assert drawn[50, 20:80].all() and drawn[49:52, 50].sum() >= 2
    assert not drawn[:45].any() and not drawn[55:].any() and not drawn[:, 85:].any()
    tool = picker()
    gesture(tool, "pen", path=[[20, 50], [80, 50]])
    assert tool.regions == [mask]


def test_a_fault_of_the_user_is_said_beside_the_picture():
    tool = picker()
    note = gesture(tool, "box", box=[30, 20, 10, 50])
    assert "expected" in note and tool.regions == [] and note[:20] in tool._panel.value
    gesture(tool, "point", at=[3, 4])
    assert tool.note == ""


def test_who_points_asks_about_the_place():
    "A question about the whole picture gives way to the last one with a mark."
    tool = picker()
    tool.ask("Which word is <region>?")
    tool.ask("How many?")
    gesture(tool, "point", at=[3, 4])
    assert tool.ferret.asked[-1] == ("Which word is <region>?", [Point(3, 4)])
    assert tool._text.value == "Which word is <region>?"
    tool.ask("How many?")
    gesture(tool, "undo")  # does not point
    assert (tool.question, tool.regions) == ("How many?", [])


def test_a_fault_of_ours_is_shown_and_raised():
    tool = picker()
    tool.make_widget()
    tool.ferret = None
    with pytest.raises(AttributeError):
        tool._handle(tool._canvas, dict(kind="point", at=[3, 4], id="g-2"))
    assert "AttributeError" in tool._panel.value and tool._canvas.answered == "g-2"


def test_the_controls_follow_the_state():
    tool = picker()
    tool.make_widget()
    tool.ask("Where?")
    tool.set_threshold(0.3)
    assert (tool._text.value, tool._slider.value) == ("Where?", 0.3)
    tool._text.value = "How many <region>?"
    assert tool.question == "How many <region>?" and len(tool.ferret.asked) == 1
    tool.ask("Find all objects")
    assert tool._examples.value == ""  # no example has these words
    tool._examples.value = tool.examples["Which word is here?"]
    assert tool._text.value == tool.question == tool.examples["Which word is here?"]
    tool.ask(tool.examples["Find all objects"])
    assert tool._examples.label == "Find all objects"
    assert tool._pens.value == "region"
    tool.set_mode("pen")
    assert tool._pens.value == tool._canvas.mode == "pen"
    with pytest.raises(InputError, match="mode"):
        tool.set_mode("brush")
    tool.ferret = Refusing()
    tool._text.value = "   "  # a real model refuses an empty question
    assert (tool.question, tool.answers) == ("   ", []) and "no answer" in tool._panel.value


def test_controls_that_follow_the_state_run_no_action(monkeypatch):
    tool = picker()
    tool.make_widget()
    ran = []
    monkeypatch.setattr(Tool, "attempt", lambda self, action, *args: ran.append(args))
    tool.ask("Where?")
    tool.set_threshold(0.3)
    tool.ask(tool.examples["Find all objects"])
    assert ran == [] and tool.seconds > 0
    tool._slider.value = 0.6  # the user
    assert ran == [(0.6,)]


def test_an_answer_that_is_known_keeps_its_time():
    tool = picker()
    tool.ask("Where?")
    tool.seconds = 7
    tool.ask("Where?")
    assert "answered in 7.00 s" in tool.write_panel()


def test_without_the_libraries_of_notebooks_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(InputError, match=r"pip install 'ferretlite\[notebooks\]'"):
        canvas_module.load_canvas_class.__wrapped__()


# Pictures


def test_a_tool_without_a_notebook_is_a_picture():
    tool = picker()
    tool.ask("Where?")
    shown = tool._repr_mimebundle_()
    drawn = Image.open(io.BytesIO(shown["image/jpeg"]))
    scale = drawn.width / 120
    red, green, _ = drawn.getpixel((round(10 * scale) + 2, round(35 * scale)))  # left edge of ONE
    assert red > 150 > green and drawn.getpixel((round(80 * scale), round(80 * scale)))[1] > 240


def test_a_notebook_that_is_saved_keeps_a_picture_beside_the_widget(monkeypatch):
    pytest.importorskip("anywidget")
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=object()))
    shown = picker()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert Image.open(io.BytesIO(shown["image/jpeg"])).width % 120 == 0


def test_a_picture_travels_once(monkeypatch):
    pytest.importorskip("anywidget")
    encoded = []
    encode = canvas_module.encode_image_url
    monkeypatch.setattr(
        canvas_module, "encode_image_url", lambda image: encoded.append(image) or encode(image)
    )
    tool = picker()
    gesture(tool, "point", at=[3, 4])
    tool._slider.value = 0.5
    assert encoded == [tool.image]
    tool.image = IMAGE.copy()
    tool.update()
    assert encoded[1:] == [tool.image]


def test_overlays_and_dots_lie_where_they_belong():
    alpha = np.zeros((10, 12))
    alpha[2, 3] = 1  # of cells of 10 x 10 pixels
    overlay = dict(src=encode_overlay(alpha, (255, 0, 0)), box=[0, 0, 120, 100])
    drawn = np.asarray(draw_items(IMAGE, [overlay])).astype(int)
    scale = drawn.shape[1] // 120
    assert drawn[25 * scale, 35 * scale, 1] < 100 and drawn[75 * scale, 75 * scale, 1] > 250
    dotted = draw_items(IMAGE, [dict(dot=[60, 50], radius=4, color="#0000ff")])
    assert dotted.getpixel((60 * scale, 50 * scale)) == (0, 0, 255)
    assert dotted.getpixel((60 * scale, 50 * scale + 6)) == (255, 255, 255)


def test_regions_are_numbered_on_the_picture():
    mask = np.zeros((100, 120), bool)
    mask[10:20, 30:50] = True
    items = make_region_items([Point(3, 4), ONE, Mask(mask)])
    assert [i.get("mark") for i in items] == ["1", "2", None, "3"]
    assert items[0]["dot"] == [3, 4] and items[3]["box"] == [30, 10, 50, 20]


def test_the_script_takes_nothing_from_elsewhere_and_writes_no_html():
    text = canvas_module.files("ferretlite.app").joinpath("canvas.js").read_text(encoding="utf-8")
    for word in ("innerHTML", "insertAdjacentHTML", "fetch(", "import ", "eval(", "XMLHttp"):
        assert word not in text
    assert text.count("http") == 1 and 'SVG = "http://www.w3.org/2000/svg"' in text


# Tiles


def test_shapes_and_their_grids():
    "Tiles of 192 pixels are 6 x 6 tokens; the whole view has 36 tokens, too."
    config = FerretConfig.from_pretrained(WEIGHTS / "tiny")
    tool = TileChooser(config, IMAGE, (384, 384))
    assert (tool.grid, tool.tokens) == ((2, 2), 36 + 4 * 36)
    tool.receive("point", dict(at=[768, 192]))  # x, y of the corner
    assert (tool.shape, tool.grid, tool.tokens) == ((192, 768), (1, 4), 36 + 4 * 36)
    boxes = [item["box"] for item in tool.list_items() if "box" in item]
    assert boxes == [[0, 0, 192, 192], [192, 0, 384, 192], [384, 0, 576, 192], [576, 0, 768, 192]]
    assert tool.list_items()[-1]["dot"] == [768, 192]
    tool.set_shape(5, 9000)
    assert tool.shape == (32, 800)
    assert "<b>1 x 4</b>" in tool.write_panel()


# Points


@pytest.fixture(scope="module")
def sampled() -> SamplerViewer:
    torch.manual_seed(0)
    sampler = SpatialAwareSampler(4, 8, 64, (16, 4), (8, 4)).eval()
    ferret = SimpleNamespace(model=SimpleNamespace(sampler=sampler))
    return SamplerViewer(ferret, IMAGE, Box(20, 30, 80, 70))


def test_the_points_are_those_of_the_sampler(sampled):
    "64 points in the region; 16 of the 64 stay, and 4 of the 16."
    tool = sampled
    assert [len(p) for p in tool.points] == [64, 16, 4]
    x, y = tool.points[0].T
    assert x.min() > 20 and x.max() < 80 and y.min() > 30 and y.max() < 70
    held = [{tuple(xy) for xy in p.tolist()} for p in tool.points]
    assert held[2] < held[1] < held[0]
    unit = tool.points[0][None] / torch.tensor([120, 100])
    for stage in range(2):
        unit, _ = tool.sampler.aggregate_stage(stage, unit, torch.zeros(1, unit.shape[1], 4))
    assert torch.allclose(unit[0] * torch.tensor([120, 100]), tool.points[2])


def test_the_points_follow_the_mouse(sampled):
    gesture(sampled, "box", box=[0, 0, 10, 10])
    assert sampled.region == Box(0, 0, 10, 10) and float(sampled.points[0].max()) < 10
    gesture(sampled, "point", at=[50, 60])
    assert sampled.region == Point(50, 60) and "pixels repeat" in sampled.write_panel()
    assert "64 points" in sampled.write_panel() and "16 of the 64 stay" in sampled.write_panel()
    assert "expected" in gesture(sampled, "box", box=[200, 200, 210, 210])


def test_a_model_without_stages_is_refused():
    ferret = SimpleNamespace(model=SimpleNamespace(sampler=None))
    with pytest.raises(InputError, match="sampler"):
        SamplerViewer(ferret, IMAGE)


# Attention


@pytest.fixture(scope="module")
def attended() -> AttentionViewer:
    return AttentionViewer(small_ferret(), make_scene(3, 96).image, "What is <region>?", ONE)


def test_a_row_belongs_to_the_position_that_wrote_its_token(attended):
    "The first token is written by the last position of the prompt, read without the answer."
    model, processor = attended.ferret.model, attended.ferret.processor
    lm = model.language_model
    before = lm.config._attn_implementation
    tokens, weights = read_attention(attended.ferret, attended.image, "What is <region>?", [ONE])
    assert lm.config._attn_implementation == before != "eager"
    batch = processor([attended.image], ["What is <region>?"], [[ONE]])
    lm.set_attn_implementation("eager")
    with torch.inference_mode():
        out = model(**batch, output_attentions=True)
    lm.set_attn_implementation(before)
    seen = batch["input_ids"][0] == model.config.image_token_id
    alone = torch.stack([layer[0, :, -1][:, seen] for layer in out.attentions])
    assert torch.allclose(weights[:, :, 0], alone, atol=1e-5)
    assert int(out.logits[0, -1].argmax()) == tokens[0]
    assert weights.shape[2:] == (len(tokens), int(seen.sum()))


def test_weight_on_one_token_colours_its_patch_only(attended):
    weights = torch.zeros(len(attended.patches))
    weights[-1] = 0.2  # the last cell of the tiles, in the lower right corner
    heat = attended.make_heat(weights)
    x1, y1, x2, y2 = (round(float(v) * HEAT_SIDE) for v in attended.patches[-1])
    assert (x2, y2) == (HEAT_SIDE, HEAT_SIDE) and heat[y1:, x1:].min() == 1
    assert heat.sum() == pytest.approx((x2 - x1) * (y2 - y1))


def test_small_patches_are_brighter_than_large_ones_of_equal_weight():
    "A quarter of the picture and a sixteenth of it."
    patches = torch.tensor([[0, 0, 0.5, 0.5], [0.75, 0.75, 1, 1]])
    viewer = SimpleNamespace(patches=patches)
    heat = AttentionViewer.make_heat(viewer, torch.tensor([0.5, 0.5]))
    assert (heat[0, 0], heat[-1, -1]) == (0.25, 1) and heat[-1, 0] == 0


def test_token_layer_and_head_are_chosen(attended):
    layers, heads, n = attended.weights.shape[:3]
    attended.select(token=n - 1, layer=layers - 1, head=1)
    assert f"Layer {layers}, head 2" in attended.write_panel()
    assert attended.show_heads().size == (heads * 80, layers * 80)
    for wrong in (dict(token=n), dict(layer=-1), dict(head=heads)):
        with pytest.raises(InputError, match=next(iter(wrong))):
            attended.select(**wrong)
    attended.words[0] = "<b>"
    assert "&lt;b&gt;" in attended.write_panel()


def test_a_click_on_a_small_picture_chooses_its_head(attended):
    pytest.importorskip("anywidget")
    attended.select(token=0, layer=0, head=0)
    attended.make_widget()
    layers, heads = attended.weights.shape[:2]
    last = attended._heads.items[-1]
    assert last["label"] == f"layer {layers}, head {heads}" and len(attended._heads.items) > 2
    assert attended._heads.size == [last["box"][3], last["box"][2]]
    at = [last["box"][0] + 5, 5]  # the last column of the first row
    attended._choose_head(attended._heads, dict(kind="point", at=at, id="h-1"))
    assert (attended.layer, attended.head) == (0, heads - 1)
    assert attended._heads.answered == "h-1" and attended._sliders[2].value == heads
    attended._choose_head(attended._heads, dict(kind="box", box=[0, 0, 9, 9], id="h-2"))
    assert attended.head == heads - 1 and attended._heads.answered == "h-2"


def test_a_shorter_answer_moves_the_slider_of_the_token(attended):
    pytest.importorskip("anywidget")
    attended.make_widget()
    attended.select(token=len(attended.words) - 1)
    words, weights = attended.words, attended.weights
    attended.words, attended.weights = words[:1], weights[:, :, :1]
    attended.select(token=0)
    assert attended._sliders[0].max == attended._sliders[0].value == 1 and attended.token == 0
    attended.words, attended.weights = words, weights


def test_a_click_that_the_attention_viewer_cannot_use_is_answered(attended):
    before, attended.question = attended.question, "What is there?"
    assert "whole picture" in gesture(attended, "point", at=[3, 4])
    attended.question = before


def test_the_region_of_the_attention_is_seen_while_the_model_works(attended, monkeypatch):
    pytest.importorskip("anywidget")
    attended.make_widget()
    before, seen = attended.regions, []

    def refuse(*args):
        seen.append(attended._canvas.items)
        raise InputError("no answer")

    monkeypatch.setattr("ferretlite.app.viewers.read_attention", refuse)
    assert gesture(attended, "box", box=TWO.list()) == "no answer"
    assert seen == [make_region_items([TWO])]
    assert attended.regions == before and attended._canvas.items == attended.list_items()


# Scenes


def test_objects_keep_their_place_and_their_size():
    scene = make_scene(7, 192, "test")
    pieces = make_pieces(scene)
    drawn = draw_pieces(pieces, scene.size)
    sides = [np.ptp(p.outline.vertices, axis=0).max() for p in pieces]
    assert sides == sorted(sides, reverse=True)  # small ones lie on top
    for o in scene.objects:
        true = (o.box.x1 + o.box.x2) / 2, (o.box.y1 + o.box.y2) / 2
        same = [d.box for d in drawn.objects if (d.name, d.color) == (o.name, o.color)]
        centres = [((b.x1 + b.x2) / 2, (b.y1 + b.y2) / 2) for b in same]
        assert any(centre == pytest.approx(true, abs=4) for centre in centres), o.phrase


def test_a_moved_object_is_drawn_and_asked_about_anew():
    tool = SceneEditor(Fake(), make_scene(7, 192, "test"), "Where?")
    index, piece = len(tool.pieces) - 1, tool.pieces[-1]
    before = next(o for o in tool.scene.objects if (o.name, o.color) == (piece.name, piece.color))
    x, y = piece.x, piece.y
    dx = 20 if x < 96 else -20
    assert gesture(tool, "move", index=index, at=[x + dx, y]) == ""
    after = next(o for o in tool.scene.objects if (o.name, o.color) == (piece.name, piece.color))
    assert (after.box.x1 - before.box.x1, after.box.y1 - before.box.y1) == (dx, 0)
    assert tool.image == tool.scene.image and len(tool.ferret.asked) == 2
    tool._handle(tool._canvas, dict(kind="move", index=index, at=[x, y], done=False, id="g-3"))
    assert len(tool.ferret.asked) == 2 and tool.answers == []  # asked when the mouse lets go
    assert "expected" in gesture(tool, "move", index=99, at=[1, 1])


def test_the_editor_offers_no_question_about_regions():
    "Nobody can draw a region there."
    tool = SceneEditor(Fake(), make_scene(7, 192, "test"))
    assert "Find all objects" in tool.examples
    assert not [q for q in tool.examples.values() if "<region>" in q]


def test_photographs_have_no_pieces():
    scene = make_scene(7, 96)
    scene.objects[0].color = None
    with pytest.raises(InputError, match="scene"):
        make_pieces(scene)
    assert make_pieces(Scene(IMAGE, (100, 120))) == []


def test_a_plain_tool_shows_its_picture():
    tool = Tool(IMAGE)
    tool.receive("point", {})
    assert tool.list_items() == [] and tool.write_panel() == "" and tool.show().width % 120 == 0
