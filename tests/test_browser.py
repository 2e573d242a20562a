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

import pytest
from test_demo import STAR, card

from ferretlite.app.demo import _format_demo_page
from ferretlite.regions.geometry import Box
from ferretlite.regions.grammar import Grounding

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
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    own = "/lab/" not in page.url  # JupyterLab's own faults are not ours
    page.close()
    assert not (own and faults)


def drag(page, frame, scale, start, stop) -> None:
    "Drag from one place of the picture to another; places are in the image frame."
    for step, (x, y) in enumerate((start, stop)):
        page.mouse.move(frame["x"] + x * scale, frame["y"] + y * scale, steps=1 + 3 * step)
        page.mouse.down() if not step else page.mouse.up()


# The canvas alone, with a model that only notes what it is told

MODEL = """() => {
  const state = {
    size: [100, 120], mode: "region", live: false, help: "help", answered: "", busy: false,
    picture: "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==",
    items: [{box: [10, 20, 30, 50], label: "<b>star</b> 0.5", color: "#e6194b"},
            {box: [5, 10, 60, 60], label: "large", color: "#2a5bd7"}]};
  const listeners = {};
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
    page.evaluate(MODEL)
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


# The demo page


@pytest.mark.parametrize("width", [1400, 390])
def test_the_demo_page_reacts_to_the_mouse_without_a_script(page, tmp_path, width):
    meta = dict(groundings=[Grounding("star", [STAR])])
    shown = [card("find", meta=meta, groundings=[Grounding("star", [STAR], [0.5])])] * 2
    path = tmp_path / "index.html"
    path.write_text(_format_demo_page(shown, "tiny", tmp_path, 1), encoding="utf-8")
    page.set_viewport_size(dict(width=width, height=900))
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    svg, label = page.locator("svg").first, page.locator("svg text").first
    before = svg.bounding_box()["width"]
    assert label.is_hidden()
    page.locator("svg rect").first.hover()
    label.wait_for(state="visible")
    assert label.text_content() == "star · 0.50"
    if width == 1400:
        page.wait_for_function(
            "(w) => document.querySelector('svg').getBoundingClientRect().width > 2.3 * w",
            arg=before,
        )
    else:
        assert before > 300  # wide enough without growing


# A real notebook

CELLS = (
    """from ferretlite import Ferret, make_scene
from ferretlite.app.widgets import RegionPicker

scene = make_scene(7, 384, "test")
picker = RegionPicker(Ferret.load("tiny"), scene.image)
picker""",
    'print("READ", [r.list() for r in picker.regions], "|", picker.answers[0].text)',
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "The address of a JupyterLab with one notebook, `point.ipynb`."
    pytest.importorskip("jupyterlab", reason="needs the notebooks extra")
    folder = tmp_path_factory.mktemp("lab")
    made = [
        dict(cell_type="code", id=f"c{i}", metadata={}, outputs=[], execution_count=None, source=s)
        for i, s in enumerate(CELLS)
    ]
    kernel = dict(name="python3", display_name="Python 3", language="python")
    book = dict(cells=made, metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)
    (folder / "point.ipynb").write_text(json.dumps(book), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--no-browser --allow-root --ip=127.0.0.1 --port={port} --IdentityProvider.token="
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        *options.split(),
        f"--ServerApp.root_dir={folder}",
    ]
    settings = {"JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTER_NO_CONFIG": "1"}
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/api", server)
            yield f"http://127.0.0.1:{port}/lab/tree/point.ipynb?reset"
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


def run_cell(page, number: int) -> None:
    page.locator(".jp-CodeCell .cm-content").nth(number).click()
    page.keyboard.press("Shift+Enter")


@pytest.mark.slow
def test_a_box_drawn_in_jupyterlab_is_answered(page, lab):
    page.goto(lab, wait_until="commit")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    run_cell(page, 0)
    svg = page.locator(".fl svg")
    svg.wait_for()
    svg.scroll_into_view_if_needed()
    frame = svg.bounding_box()
    scale, box = frame["width"] / 384, Box(26, 115, 130, 175)  # around the yellow word
    drag(page, frame, scale, (box.x1, box.y1), (box.x2, box.y2))
    page.wait_for_selector(".widget-html li")
    answer = page.locator(".widget-html li").inner_text()
    page.wait_for_selector(".fl[data-milliseconds]")
    print(
        "milliseconds from release to answer:",
        page.locator(".fl").get_attribute("data-milliseconds"),
    )
    run_cell(page, 1)
    told = page.locator(".jp-OutputArea-output pre", has_text="READ")
    regions, _, text = told.inner_text().removeprefix("READ ").partition(" | ")
    assert text.strip() == answer
    [found] = json.loads(regions)
    assert found == pytest.approx(box.list(), abs=1)
    page.get_by_role("button", name="Undo").click()
    page.wait_for_selector(".widget-html li", state="detached")
