"""Lessons can be read: few pronouns, few indefinite openings, legible pictures with a text, and a
front page whose numbers are those of the records.
"""

import ast
import base64
import io
import json
import math
import re
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
INDEX = ROOT / "index.ipynb"
NOTEBOOKS = [INDEX, *sorted(p for p in (ROOT / "nbs").glob("*/*.ipynb") if p.stem[0] not in "._")]
notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

# per 100 words; d2l-en has 4.5 and LLMs-from-scratch 4.6
MOST_PRONOUNS, MOST_PRONOUNS_ON_AVERAGE = 7.5, 6
MOST_OPENINGS = 20  # per 1,000 sentences; d2l-en has 10 and LLMs-from-scratch none
LARGEST_PICTURE = 150_000  # bytes
WIDEST_FIGURE = 1000  # pixels: a page shrinks a wider figure, and its labels with it
SMALLEST_LETTERS = 8  # points, and pixels of the stored picture

PRONOUNS = frozenset(
    "it its they them their those these this that which whose who whom what whoever somebody nobody"
    " one ones both each other others".split()
)
INDEFINITE = "Who What Whatever Whoever Where Whether Nothing Nobody Somebody".split()
FONT_NAMES = ("fontsize", "labelsize", "title_fontsize", "legend_fontsize")
FONT_NAMES += ("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize")
FONT_NAMES += ("ytick.labelsize", "legend.fontsize", "figure.titlesize")


# -- reading notebooks


@cache
def cells(path: Path) -> list:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def text_of(cell: dict) -> str:
    return "".join(cell["source"])


def prose(markdown: str) -> str:
    """Return the sentences of a text: no code, formulas, tables, addresses and marks of Markdown.

    A dropped piece becomes the letter X, so that its sentence keeps a word in its place."""
    for piece in (r"```.*?```", r"<!--.*?-->", r"\$\$.*?\$\$"):
        markdown = re.sub(piece, " X ", markdown, flags=re.DOTALL)
    markdown = re.sub(r"^\|.*\|[ ]*$", "", markdown, flags=re.MULTILINE)
    markdown = re.sub(r"`[^`]*`|\$[^$\n]*\$|!\[[^\]]*\]\([^)]*\)|<[^>\n]*>", " X ", markdown)
    markdown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return re.sub(r"^[ ]*(?:[#>*+-]+|\d+\.)[ ]+", "", markdown, flags=re.MULTILINE)


def prose_of(path: Path) -> str:
    texts = (text_of(c) for c in cells(path) if c["cell_type"] == "markdown")
    return "\n\n".join(map(prose, texts))


def count_pronouns(text: str) -> tuple[int, int]:
    """Return the numbers of pronouns and of words."""
    words = re.findall(r"[^\W\d_](?:[\w'’-]*\w)?", text.lower())
    return sum(word in PRONOUNS for word in words), len(words)


def list_sentences(text: str) -> list[str]:
    parts = re.split(r"(?<=[.!?])\s+|\n\s*\n|\n\s*[-*]\s", text)
    return [part for part in parts if len(part.split()) > 2]


def list_openings(text: str) -> list[str]:
    """Return the clauses whose subject names nothing, such as *What follows* or *Nothing stops*."""
    subject = "|".join(INDEFINITE)
    found = re.findall(rf"(?:^|[.!?:;]\s+)((?:{subject}) [^.!?:;]*)(?=(.?))", text)
    return [clause for clause, end in found if end != "?"]  # a question hides no subject


# -- the counts themselves, by hand


def test_words_of_code_formulas_tables_and_links_are_no_prose():
    text = "# One box\n\n| it | it |\n\n```\nit\n```\nA `it` at $it$ and [a box](that.ipynb). <it>"
    assert prose(text).split() == "One box X A X at X and a box. X".split()
    assert prose("- the box\n2. the mask\n> the point") == "the box\nthe mask\nthe point"


def test_pronouns_by_hand():
    assert count_pronouns("It reads what the tower's own map shows, and that's it.") == (3, 11)
    assert count_pronouns("The sampler reads 512 points, not 1.") == (0, 5)


def test_openings_by_hand():
    assert list_openings("What follows is short. Nothing stops us: Who wants more waits.") == [
        "What follows is short",
        "Nothing stops us",
        "Who wants more waits",
    ]
    assert list_openings("What is a map? Where does a box end? The box ends here.") == []
    assert len(list_sentences("A box has edges. Is it so?\n\n- One edge is left.\n- Yes.")) == 3


# -- prose


@notebooks
def test_a_notebook_names_things(path):
    pronouns, words = count_pronouns(prose_of(path))
    rate = 100 * pronouns / words
    assert rate <= MOST_PRONOUNS, f"{rate:.1f} pronouns per 100 words: name the things"


def test_notebooks_name_things_on_average():
    counts = [count_pronouns(prose_of(path)) for path in NOTEBOOKS]
    rate = 100 * sum(n for n, _ in counts) / sum(n for _, n in counts)
    assert rate <= MOST_PRONOUNS_ON_AVERAGE, f"{rate:.2f} pronouns per 100 words"


def test_few_sentences_open_with_a_subject_that_names_nothing():
    openings = {path.stem: list_openings(prose_of(path)) for path in NOTEBOOKS}
    sentences = sum(len(list_sentences(prose_of(path))) for path in NOTEBOOKS)
    rate = 1000 * sum(map(len, openings.values())) / sentences
    worst = sorted(openings, key=lambda name: -len(openings[name]))[:5]
    assert rate <= MOST_OPENINGS, f"{rate:.0f}: { ({name: openings[name] for name in worst}) }"


# -- pictures


def directives(source: str) -> dict:
    found = re.findall(r"^#\|[ ]*([\w-]+)(?::[ ]*(.*))?$", source, flags=re.MULTILINE)
    return {name: value.strip() for name, value in found}


def pictures(cell: dict) -> list[tuple[str, bytes]]:
    """Return the format and the bytes of each stored picture of a cell."""
    return [
        (kind, base64.b64decode("".join(data)))
        for output in cell.get("outputs", [])
        for kind, data in output.get("data", {}).items()
        if kind in ("image/png", "image/jpeg")
    ]


def figure_widths(cell: dict) -> list[int]:
    """Return the widths in pixels of a cell's figures, in the size in which they were drawn."""
    texts = ["".join(o.get("data", {}).get("text/plain", "")) for o in cell.get("outputs", [])]
    return [int(width) for width in re.findall(r"<Figure size (\d+)", "\n".join(texts))]


def shown_pictures(path: Path) -> list:
    """Return (cell, format, bytes) of the stored pictures that a page shows."""
    code = [c for c in cells(path) if c["cell_type"] == "code"]
    shown = [c for c in code if "hide" not in directives(text_of(c))]
    return [(c, kind, data) for c in shown for kind, data in pictures(c)]


@notebooks
def test_a_picture_has_a_text_for_readers_who_do_not_see_it(path):
    silent = [
        text_of(cell)[:200]
        for cell, _, _ in shown_pictures(path)
        if len(directives(text_of(cell)).get("fig-alt", "").split()) < 3
    ]
    assert not silent, "\n\n".join(
        ["these cells need `#| fig-alt: what the picture shows`", *silent]
    )


@notebooks
def test_a_picture_is_light_and_no_wider_than_a_page(path):
    sizes = [(len(data), text_of(cell)[:120]) for cell, _, data in shown_pictures(path)]
    assert not [(size, source) for size, source in sizes if size >= LARGEST_PICTURE]
    widths = [(max(figure_widths(c), default=0), text_of(c)[:120]) for c in cells(path)]
    assert not [(width, source) for width, source in widths if width > WIDEST_FIGURE]


def numbers_of(tree: ast.AST) -> list[tuple[str, float]]:
    """Return (name, number) of all arguments and settings that a cell writes as numbers."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword):
            found.append((node.arg, node.value))
        elif isinstance(node, ast.Dict):
            keys = [k.value if isinstance(k, ast.Constant) else None for k in node.keys]
            found += zip(keys, node.values)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            key = node.targets[0].slice
            found.append((key.value if isinstance(key, ast.Constant) else None, node.value))
    return [(name, v.value) for name, v in found if isinstance(v, ast.Constant)]


def list_small_letters(sources: list[str]) -> list[str]:
    """Return the letters in figures that are smaller than 8 points, or than 8 stored pixels.

    A cell's own `dpi` and font sizes come before the notebook's settings."""
    small, dpi, points = [], 100, 10  # of matplotlib
    for source in sources:
        lines = ("" if re.match(r"\s*[%!]", line) else line for line in source.split("\n"))
        found = numbers_of(ast.parse("\n".join(lines)))
        settings = dict(found)
        dpi, points = settings.get("figure.dpi", dpi), settings.get("font.size", points)
        sizes = [n for name, n in found if name in FONT_NAMES]
        small += [size for size in sizes if size in ("x-small", "xx-small")]
        sizes = [size for size in sizes if isinstance(size, int | float)]
        small += [f"{size} points" for size in sizes if size < SMALLEST_LETTERS]
        own_dpi = settings.get("dpi", dpi)
        pixels = min([*sizes, points]) * own_dpi / 72
        if "dpi" in settings or "figure.dpi" in settings or sizes:
            small += [f"{pixels:.1f} pixels"] if pixels < SMALLEST_LETTERS else []
    return small


def test_small_letters_by_hand():
    assert list_small_letters(["ax.text(0, 0, 'a', fontsize=7.5)"]) == ["7.5 points"]
    assert list_small_letters(["plt.rcParams['font.size'] = 7"]) == ["7 points"]
    assert list_small_letters(["plt.figure(dpi=60)", "plt.figure(dpi=45)"]) == ["6.2 pixels"]
    settings = "plt.rcParams.update({'figure.dpi': 65, 'font.size': 9})"
    assert list_small_letters([settings]) == []
    assert list_small_letters([settings, "ax.set_title('a', fontsize=8)"]) == ["7.2 pixels"]
    assert list_small_letters(["ax.legend(fontsize='x-small')"]) == ["x-small"]


@notebooks
def test_letters_in_pictures_are_at_least_eight_points_high(path):
    small = list_small_letters([text_of(c) for c in cells(path) if c["cell_type"] == "code"])
    assert not small


def shows_an_answer(text: str) -> bool:
    """Return whether a cell shows a picture in which `draw_answer` has drawn names."""
    return ".show())" in text or 'Image.open(place / "out.png")' in text


@notebooks
def test_names_drawn_into_a_picture_are_not_shrunk_below_eight_pixels(path):
    """`draw_answer` writes letters of 16 pixels into 720; 360 stored pixels leave eight."""
    for cell in cells(path):
        if cell["cell_type"] == "code" and shows_an_answer(text_of(cell)):
            for _, data in pictures(cell):
                assert Image.open(io.BytesIO(data)).width >= 360, text_of(cell)[:80]


# -- the front page


def show(key: str, number: float) -> str:
    return f"{number:.2f}" if key.endswith(".mae") else f"{number:.1%}"


def rows_of_the_front_page() -> dict:
    """Return model -> (key of the score, label), as the cells of the front page name them."""
    code = "\n".join(text_of(c) for c in cells(INDEX) if c["cell_type"] == "code")
    tree = ast.parse(code)
    tables = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    }
    return {"tiny": tables["rows"], "tiny-griffon": tables["griffon_rows"]}


@pytest.mark.parametrize("model", ["tiny", "tiny-griffon"])
def test_the_tables_of_the_front_page_hold_the_record_of_the_shipped_weights(model):
    record = ROOT / "ferretlite" / "weights" / model / "eval.json"
    scores, text = json.loads(record.read_text()), (ROOT / "README.md").read_text(encoding="utf-8")
    head = f"| task | `{model}` | chance | n |"
    table = text[text.index(head) :].split("\n\n")[0].split("\n")[2:]
    rows = rows_of_the_front_page()[model]
    assert len(table) == len(rows) > 4
    for line, (key, label) in zip(table, rows.items()):
        score = scores[key]
        low, high = (show(key, edge) for edge in score["ci95"])
        value = f"**{show(key, score['value'])}** ({low} – {high})"
        expected = f"| {label} | {value} | {show(key, score['chance'])} | {score['n']} |"
        assert line == expected, "run index.ipynb again, then python tools/readme.py"


def test_a_score_stands_in_a_table_of_the_front_page_and_not_in_its_prose():
    """A sentence outlives its model; a table is made from the record."""
    shares = re.findall(r"\d[\d.]*\s?%|\d+ (?:in|of) (?:ten|\d+)", prose_of(INDEX))
    assert set(shares) <= {"95 %"}  # of the intervals


def test_the_first_example_prints_boxes_that_can_be_read():
    printed = [
        "".join(output["text"])
        for cell in cells(INDEX)
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream"
    ]
    numbers = re.findall(r"[xy][12]=([\d.]+)", "".join(printed))
    assert len(numbers) >= 4 and all(len(n.partition(".")[2]) == 1 for n in numbers)


@pytest.mark.parametrize("model", ["tiny", "tiny-griffon"])
def test_a_model_card_counts_the_weights_of_its_file(model):
    folder = ROOT / "ferretlite" / "weights" / model
    data = (folder / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    counted = sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")
    told = re.search(r" of ([\d.]+) million weights", (folder / "README.md").read_text())
    assert float(told[1]) == round(counted / 1e6, 2)
