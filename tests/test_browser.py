"""The widgets and the demo page in a real browser: Chromium without a screen, driven by Playwright.

`FERRETLITE_CHROMIUM` names a browser. Without it, one on the PATH or Playwright's own is taken.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.resources import files
from pathlib import Path

import pytest
from test_demo import card

from ferretlite.app.demo import _format_demo_page
from ferretlite.exams.core import ExamAnswer, ExamItem, score_exam
from ferretlite.exams.report import write_report
from ferretlite.exams.runs import EXAMS
from ferretlite.regions.geometry import Box
from ferretlite.regions.grammar import Grounding
from ferretlite.scenes.world import make_scene

pytestmark = pytest.mark.browser
PATIENCE = 400  # seconds that a busy machine may take for one step; a quiet one needs 20 at most
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update"


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright (the dev extra)")
    path = os.environ.get("FERRETLITE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), "")
    with api.sync_playwright() as p:
        if not (path or os.path.exists(p.chromium.executable_path)):
            pytest.skip("found no Chromium: install chromium, or run `playwright install chromium`")
        found = p.chromium.launch(
            executable_path=path or None, args=FLAGS.split(), timeout=1000 * PATIENCE
        )
        yield found
        found.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport=dict(width=1400, height=1000))
    page.set_default_timeout(1000 * PATIENCE)
    faults = []
    page.on("pageerror", lambda error: faults.append((page.url, error.stack or str(error))))
    yield page
    page.close()  # JupyterLab's own faults are not ours; it loads canvas.js from a blob
    assert not [stack for url, stack in faults if "/lab/" not in url or "blob:" in stack]


def drag(page, frame, scale, start, stop) -> None:
    "Drag from one place of the picture to another; places are in the image frame."
    for step, (x, y) in enumerate((start, stop)):
        page.mouse.move(frame["x"] + x * scale, frame["y"] + y * scale, steps=1 + 3 * step)
        page.mouse.down() if not step else page.mouse.up()


# The canvas alone, with a model that only notes what it is told

MODEL = """(changes) => {
  const state = {
    size: [100, 120], mode: "region", live: false, help: "help", answered: "", busy: false,
    picture: "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==",
    items: [{box: [10, 20, 30, 50], label: "<b>star</b> 0.5", color: "#e6194b"},
            {box: [5, 10, 60, 60], label: "large", color: "#2a5bd7"}], ...changes};
  const listeners = {};
  document.getElementById("here").replaceChildren();
  window.sent = [];
  window.model = {
    get: (key) => state[key],
    on: (name, f) => (listeners[name] = listeners[name] || []).push(f),
    send: (message) => sent.push(message),
    set: (key, value) => {
      state[key] = value;
      (listeners["change:" + key] || []).forEach((f) => f());
    },
  };
  render({ model, el: document.getElementById("here") });
}"""


@pytest.fixture
def canvas(page):
    script = files("ferretlite.app").joinpath("canvas.js").read_text(encoding="utf-8")
    page.set_content('<meta charset="utf-8"><div id="here" style="width:480px"></div>')
    page.add_script_tag(content=script.replace("export default { render };", ""))
    page.evaluate(MODEL, {})
    return page, page.locator(".fl svg").bounding_box(), 4  # screen pixels a pixel


def take(page) -> list:
    "Return the gestures since the last call, without their ids, and answer the last one."
    return page.evaluate(
        "() => { const all = sent.splice(0); model.set('answered', all.at(-1)?.id);"
        " return all.map(({id, ...rest}) => rest); }"
    )


def test_mouse_and_keys_become_gestures(canvas):
    page, frame, scale = canvas
    drag(page, frame, scale, (80, 30), (60, 70))
    [gesture] = take(page)
    assert gesture["kind"] == "box" and gesture["box"] == pytest.approx([60, 30, 80, 70], abs=0.3)
    page.mouse.click(frame["x"] + 4 * 50, frame["y"] + 4 * 40)
    [gesture] = take(page)
    assert gesture["kind"] == "point" and gesture["at"] == pytest.approx([50, 40], abs=0.3)
    for key in ("ArrowRight", "Enter", "Space", "ArrowRight", "ArrowDown", "Space", "Backspace"):
        page.keyboard.press(key)
    assert [(g["kind"], g.get("at") or g.get("box")) for g in take(page)] == [
        ("point", [68, 50]),  # from the middle, eight pixels to the right
        ("box", [68, 50, 76, 58]),
        ("undo", None),
    ]
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    assert take(page) == [] and page.locator(".draft").count() == 0


def test_a_pen_a_move_and_a_drag_that_is_told_while_it_lasts(canvas):
    page, frame, scale = canvas
    page.evaluate("model.set('mode', 'pen')")
    drag(page, frame, scale, (20, 80), (60, 90))
    [gesture] = take(page)
    assert gesture["kind"] == "pen" and len(gesture["path"]) >= 4
    assert gesture["path"][-1] == pytest.approx([60, 90], abs=0.3)
    page.evaluate("model.set('mode', 'move')")
    page.evaluate("model.set('items', [{box: [10, 20, 30, 50], index: 7, label: 'x'}])")
    drag(page, frame, scale, (20, 30), (26, 40))
    first, *_, last = take(page)
    assert (first["done"], last["done"], last["index"]) == (False, True, 7)
    assert last["at"] == pytest.approx([26, 45], abs=0.3)  # the centre moves as the mouse does
    drag(page, frame, scale, (90, 90), (95, 95))  # where nothing lies
    assert take(page) == []


def test_no_place_is_told_before_the_last_one_is_answered(canvas):
    page, frame, scale = canvas
    page.evaluate("model.set('live', true)")
    drag(page, frame, scale, (10, 10), (90, 90))  # nobody answers
    gestures = take(page)
    assert [g["done"] for g in gestures] == [False, True]


def test_a_box_under_the_mouse_says_its_name_as_text(canvas):
    page, frame, _ = canvas
    tip = page.locator(".tip")
    assert tip.is_hidden()
    page.mouse.move(frame["x"] + 4 * 15, frame["y"] + 4 * 30)  # both boxes: the small one is on top
    assert tip.inner_text() == "<b>star</b> 0.5" and page.locator(".fl b").count() == 0
    page.mouse.move(frame["x"] + 4 * 55, frame["y"] + 4 * 55)
    assert tip.inner_text() == "large"
    page.mouse.move(frame["x"] + 4 * 100, frame["y"] + 4 * 90)
    assert tip.is_hidden()


def test_a_spinner_turns_until_the_answer_is_there(canvas):
    page, frame, _ = canvas
    page.mouse.click(frame["x"] + 200, frame["y"] + 200)
    page.wait_for_selector(".busy:not([hidden])")
    take(page)
    assert page.locator(".busy").is_hidden()
    assert float(page.locator(".fl").get_attribute("data-milliseconds")) > 0
    page.evaluate("model.set('busy', true)")  # a control beside the picture asks
    page.wait_for_selector(".busy:not([hidden])")
    page.evaluate("model.set('busy', false)")
    assert page.locator(".busy").is_hidden()


def test_a_view_that_opens_later_waits_for_its_own_answers_only(canvas):
    "A cell that runs again, and a second view of an output, find earlier answers."
    page, frame, scale = canvas
    page.evaluate(MODEL, dict(answered="old-3", live=True))
    drag(page, frame, scale, (10, 10), (90, 90))
    assert [g["done"] for g in take(page)] == [False, True]
    for answered in (None, "another-1"):  # a slider, and a gesture in another view
        page.evaluate("model.set('busy', true)")
        page.wait_for_selector(".busy:not([hidden])")
        page.evaluate("model.set('busy', false)")
        page.evaluate("(id) => id && model.set('answered', id)", answered)
        assert page.locator(".busy").is_hidden()
    page.mouse.click(frame["x"] + 200, frame["y"] + 200)
    page.evaluate("model.set('answered', 'another-2')")
    page.wait_for_selector(".busy:not([hidden])")


def test_a_key_that_is_held_counts_once(canvas):
    page, *_ = canvas
    page.locator(".fl svg").focus()
    for key, n in (("Enter", 1), ("Backspace", 1), (" ", 0), ("ArrowRight", 0)):
        for _ in range(3):
            page.keyboard.down(key)
        page.keyboard.up(key)
        assert len(take(page)) == n, key
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert [g["box"] for g in take(page)] == [[60, 50, 84, 58]]  # each arrow counted


def test_who_pressed_moves_and_releases(canvas):
    "A mouse without a button, a second finger and keys during a drag change nothing."
    page, frame, _ = canvas
    svg = page.locator(".fl svg")
    svg.focus()
    page.keyboard.press("Space")
    page.mouse.move(frame["x"] + 4 * 90, frame["y"] + 4 * 90, steps=3)
    assert page.locator(".draft").count() == 0
    svg.blur()
    svg.focus()
    page.keyboard.press("Enter")  # the press ended when the picture lost the keyboard
    assert [g["kind"] for g in take(page)] == ["point"]
    page.mouse.move(frame["x"] + 4 * 80, frame["y"] + 4 * 30)
    page.mouse.down()
    page.mouse.move(frame["x"] + 4 * 70, frame["y"] + 4 * 40)
    page.keyboard.press("Enter")
    for name in ("pointerdown", "pointermove", "pointerup"):
        other = dict(pointerId=9, isPrimary=False, clientX=5, clientY=5, button=0)
        svg.dispatch_event(name, other)
    page.mouse.move(frame["x"] + 4 * 60, frame["y"] + 4 * 70)
    page.mouse.up()
    assert [g.get("box") for g in take(page)] == [pytest.approx([60, 30, 80, 70], abs=0.3)]


def test_escape_puts_a_moved_object_back(canvas):
    page, frame, _ = canvas
    page.evaluate(MODEL, dict(mode="move", items=[dict(box=[10, 20, 30, 50], index=7, label="x")]))
    page.mouse.move(frame["x"] + 4 * 20, frame["y"] + 4 * 30)
    page.mouse.down()
    page.mouse.move(frame["x"] + 4 * 50, frame["y"] + 4 * 60, steps=3)
    page.keyboard.press("Escape")
    page.mouse.up()
    first, last = take(page)
    assert (first["done"], last["done"], last["at"]) == (False, True, [20, 35])


def test_names_stay_on_the_picture_and_lie_above_handles(canvas):
    page, frame, _ = canvas
    long = dict(box=[70, 40, 118, 80], label="outlined purple double-headed arrow · 0.97 " * 2)
    handle = dict(box=[11, 21, 29, 49], index=0, label="handle")
    answer = dict(box=[10, 20, 30, 50], label="answer")
    page.evaluate(MODEL, dict(items=[long, handle, answer]))
    page.mouse.move(frame["x"] + 4 * 20, frame["y"] + 4 * 30)
    assert page.locator(".tip").inner_text() == "answer"
    page.mouse.move(frame["x"] + 4 * 90, frame["y"] + 4 * 60)
    tip = page.locator(".tip").bounding_box()
    assert tip["x"] >= frame["x"] - 1
    assert tip["x"] + tip["width"] <= frame["x"] + frame["width"] + 1


def test_the_spinner_lets_clicks_through(canvas):
    page, *_ = canvas
    page.evaluate("model.set('busy', true)")
    page.wait_for_selector(".busy:not([hidden])")
    spot = page.locator(".busy").bounding_box()
    page.mouse.click(spot["x"] + spot["width"] / 2, spot["y"] + spot["height"] / 2)
    assert [g["kind"] for g in take(page)] == ["point"]


# The demo page


@pytest.fixture
def demo_page(tmp_path):
    "The address of a page of four cards about one scene of 384 x 384 pixels."
    scene = make_scene(7, 384, "test")
    true = [Grounding(o.phrase, [o.box]) for o in scene.objects]
    said = [Grounding(g.name, g.boxes, [0.5]) for g in true]
    shown = card("find", meta=dict(groundings=true), groundings=said)
    shown.scene = scene
    path = tmp_path / "index.html"
    path.write_text(_format_demo_page([shown] * 4, "tiny", tmp_path, 1), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("width", [1400, 1070, 390])
def test_the_demo_page_reacts_to_the_mouse_without_a_script(page, demo_page, width):
    page.set_viewport_size(dict(width=width, height=900))
    page.goto(demo_page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    svg = page.locator("svg").first
    smallest, label = svg.locator("rect").last, svg.locator("text").last
    assert svg.locator("image").count() == 1 and page.locator("use").count() == 7
    before = svg.bounding_box()["width"]
    assert label.is_hidden()
    smallest.hover()
    label.wait_for(state="visible")
    assert label.text_content() == "filled black knight · 0.50"
    page.mouse.move(5, 5)
    if width == 390:
        assert before > 300
        for figure in page.locator("figure").all()[:2]:  # a tap gives a picture the focus
            figure.locator("svg").focus()
            page.wait_for_function(
                "([node, w]) => node.getBoundingClientRect().width > 1.8 * w",
                arg=[figure.element_handle(), before],
            )
            assert figure.bounding_box()["x"] >= 0  # the page scrolls to the rest
        return
    for figure in page.locator("figure").all()[:4]:  # the four places of a row
        figure.hover()
        page.wait_for_function(
            "([node, w]) => node.getBoundingClientRect().width > 2.9 * w",
            arg=[figure.element_handle(), before],
        )
        grown = figure.bounding_box()
        assert grown["x"] >= 0 and grown["x"] + grown["width"] <= width
        page.mouse.move(5, 5)
        page.wait_for_timeout(300)


# The playground in JupyterLab

PLAYGROUND = Path(__file__).parents[1] / "nbs/tools/playground.ipynb"
READ = """import json
regions = [[round(v) for v in r.box().list()] for r in picker.regions]
state = dict(regions=regions, threshold=picker.threshold, text=picker.answers[0].text)
state |= dict(piece=[editor.pieces[0].x, editor.pieces[0].y], shape=tiles.shape)
state |= dict(region=points.region.list(), head=[attention.layer, attention.head])
print("STATE_NOW", json.dumps(state))"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "The address of the playground in a JupyterLab; its last cell prints what the mouse has set."
    pytest.importorskip("jupyterlab", reason="needs the notebooks extra")
    pytest.importorskip("anywidget", reason="needs the notebooks extra")
    folder = tmp_path_factory.mktemp("lab")
    book = json.loads(PLAYGROUND.read_text(encoding="utf-8"))
    book["cells"][-1]["source"] = READ  # instead of the export
    (folder / "playground.ipynb").write_text(json.dumps(book), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--no-browser --allow-root --ip=127.0.0.1 --port={port} --IdentityProvider.token="
    command = [sys.executable, "-m", "jupyterlab", *options.split()]
    command += [f"--ServerApp.root_dir={folder}", "--LabApp.news_url="]  # asks for no news
    settings = {"JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTER_NO_CONFIG": "1"}
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/api", server)
            yield f"http://127.0.0.1:{port}/lab/tree/playground.ipynb?reset"
        finally:
            server.terminate()
            server.wait(60)


def wait_for(address: str, server) -> None:
    "Wait until a server answers."
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            return urllib.request.urlopen(address, timeout=PATIENCE).close()
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not start: exit code {server.poll()}", pytrace=False)


def run_all(page) -> None:
    "Run all cells. Without a kernel JupyterLab drops cells in silence, so wait for the kernel."
    page.get_by_text("| Idle").wait_for()
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").click()
    page.locator("#jp-mainmenu-run").get_by_text("Run All Cells", exact=True).click()
    page.locator(".jp-OutputArea-output", has_text="STATE_NOW").wait_for()


def read_state(page) -> dict:
    "Return what the last cell has printed."
    told = page.locator(".jp-OutputArea-output", has_text="STATE_NOW").inner_text()
    return json.loads(told.strip().removeprefix("STATE_NOW "))


def use(page, number: int, side: float, start, stop=None) -> int:
    "Click a picture or drag over it, in its own pixels; return milliseconds until the answer."
    svg, moved = page.locator(".fl svg").nth(number), None
    svg.scroll_into_view_if_needed()
    while moved != (moved := svg.bounding_box()):
        page.wait_for_timeout(300)
    scale = moved["width"] / side
    drag(page, moved, scale, start, stop or start)
    root = page.locator(".fl").nth(number)
    root.and_(page.locator("[data-milliseconds]")).wait_for()
    return int(root.get_attribute("data-milliseconds"))


def test_the_mouse_sets_the_state_of_the_playground_in_jupyterlab(
    page, lab, record_testsuite_property
):
    page.goto(lab, wait_until="commit")
    run_all(page)
    before = read_state(page)
    assert before["regions"] == [] and page.locator(".fl svg").count() == 6
    waited = {"name": use(page, 0, 384, (26, 115), (130, 175))}  # around the yellow word
    answers = page.locator(".widget-html").first.locator("li")
    answer = answers.first.inner_text()
    assert answer.startswith("filled")
    page.get_by_role("button", name="Pen").first.click()
    use(page, 0, 384, (180, 250), (200, 290))  # over the orange note
    answers.nth(1).wait_for()
    page.locator(".fl svg").first.press("Enter")  # a point in the middle
    answers.nth(2).wait_for()
    page.keyboard.press("Backspace")
    answers.nth(2).wait_for(state="detached")
    page.locator(".noUi-handle").first.press("ArrowRight")
    x, y = before["piece"]
    waited["place"] = use(page, 1, 384, (x, y), (x + 100, y + 50))
    record_testsuite_property("milliseconds from release to answer", waited)
    print("milliseconds from release to answer:", waited)
    use(page, 2, 800, (384, 384), (768, 192))
    use(page, 3, 384, (50, 60), (150, 90))
    use(page, 5, 480, (460, 20))  # the last head of the first layer
    page.locator(".jp-CodeCell .cm-content").last.click()
    page.locator(".jp-OutputArea-output", has_text="STATE_NOW").evaluate("(node) => node.remove()")
    page.keyboard.press("Control+Enter")
    page.locator(".jp-OutputArea-output", has_text="STATE_NOW").wait_for()
    after = read_state(page)
    assert after["text"] == answer
    assert after["regions"][0] == pytest.approx([26, 115, 130, 175], abs=1)
    assert after["regions"][1:] == [pytest.approx([180, 250, 200, 290], abs=8)]  # the pen is wide
    assert after["threshold"] == pytest.approx(before["threshold"] + 0.01)
    assert after["piece"] == pytest.approx([x + 100, y + 50], abs=1)
    assert after["shape"] == pytest.approx([192, 768], abs=2)
    assert after["region"] == pytest.approx([50, 60, 150, 90], abs=1)
    assert after["head"] == [0, 5]
    page.get_by_role("button", name="Undo").first.click()
    answers.nth(1).wait_for(state="detached")
    page.locator(".widget-dropdown select").first.select_option("Find all objects")
    page.locator(".fl").first.locator(".box").first.wait_for()


def test_the_buttons_of_an_exams_page_filter_by_right_and_by_size(page, tmp_path):
    """Of four answers, one of each size is right, and one about a large object is wrong."""
    exam, items, answers = EXAMS["refcoco"], [], {}
    sides = {"a": 90, "b": 12, "c": 4, "d": 90}  # large from 16 pixels, small below 8
    for key, side in sides.items():
        items.append(ExamItem(key, key, "none.jpg", (96, 96), boxes=[Box(0, 0, side, side)]))
        answers[key] = ExamAnswer(key, boxes=items[-1].boxes, names=[""], scores=[1.0])
    answers["d"] = ExamAnswer("d", "nothing")
    scores = score_exam(exam, items, answers)
    path = write_report(tmp_path / "report.html", exam, items, answers, scores, tmp_path)
    page.goto(path.as_uri())
    shown = page.locator(".card:visible pre:first-of-type")
    for label, expected in (
        (None, "abcd"), ("wrong", "d"), ("right", "abc"), ("small", "c"), ("large", "a"),
        ("all states", "ad"), ("all sizes", "abcd"),
    ):  # fmt: skip
        if label:
            page.get_by_role("button", name=label, exact=True).click()
        texts = [text.removeprefix("asked: ") for text in shown.all_inner_texts()]
        assert "".join(sorted(texts)) == expected, label
        assert page.locator("#count").inner_text() == f"{len(expected)} of 4"
