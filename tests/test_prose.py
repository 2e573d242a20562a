"""Lessons can be read: few pronouns, few indefinite openings, legible pictures with a text, and a
front page whose numbers are those of the records.
"""

import ast
import base64
import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INDEX = ROOT / "index.ipynb"
NOTEBOOKS = [INDEX, *sorted(p for p in (ROOT / "nbs").glob("*/*.ipynb") if p.stem[0] not in "._")]
notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

# per 100 words; d2l-en has 4.5 and LLMs-from-scratch 4.6
MOST_PRONOUNS, MOST_PRONOUNS_ON_AVERAGE = 7.5, 6
MOST_OPENINGS = 20  # per 1,000 sentences; d2l-en has 10 and LLMs-from-scratch none
LARGEST_PICTURE = 150_000  # bytes
WIDEST_PICTURE = 1000  # pixels: a wider picture is shrunk on the page, with its labels
SMALLEST_LETTERS = 8  # points
LOWEST_DPI = 72  # a letter of 8 points is then 8 pixels high

PRONOUNS = frozenset(
    "it its they them their those these this that which whose who whom what whoever somebody nobody"
    " one ones both each other others".split()
)
INDEFINITE = "Who What Whatever Whoever Where Whether Nothing Nobody Somebody".split()
OF_A_QUESTION = "is are does do can should would".split()  # "What is …?" asks, and hides no subject
FONT_ARGUMENTS = ("fontsize", "labelsize", "title_fontsize", "legend_fontsize")
FONT_SETTINGS = ("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize")
FONT_SETTINGS += ("ytick.labelsize", "legend.fontsize", "figure.titlesize")


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
    found = re.findall(rf"(?:^|[.!?:;]\s+)((?:{'|'.join(INDEFINITE)}) (\w+)[^.!?:;]{{0,50}})", text)
    return [clause for clause, verb in found if verb not in (*OF_A_QUESTION, "if")]


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


def width_of(kind: str, data: bytes) -> int:
    """Return the width in pixels that a picture's header tells."""
    if kind == "image/png":
        return int.from_bytes(data[16:20], "big")
    at = 2
    while data[at + 1] not in (0xC0, 0xC1, 0xC2):  # the segment that starts a frame
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return int.from_bytes(data[at + 7 : at + 9], "big")


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_the_width_of_a_picture_is_read_from_its_header(kind):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (317, 41), "white").save(file, kind)
    assert width_of(f"image/{kind}", file.getvalue()) == 317


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
    heavy = [
        (len(data), width_of(kind, data), text_of(cell)[:120])
        for cell, kind, data in shown_pictures(path)
        if len(data) >= LARGEST_PICTURE or width_of(kind, data) > WIDEST_PICTURE
    ]
    assert not heavy


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


def list_small_letters(source: str) -> list[str]:
    """Return the arguments and settings that make letters of a figure smaller than 8 points or
    pixels.
    """
    lines = ("" if re.match(r"\s*[%!]", line) else line for line in source.split("\n"))
    small = []
    for name, number in numbers_of(ast.parse("\n".join(lines))):
        if name in (*FONT_ARGUMENTS, *FONT_SETTINGS):
            if number in ("x-small", "xx-small"):
                small.append(f"{name}={number}")
            if isinstance(number, int | float) and number < SMALLEST_LETTERS:
                small.append(f"{name}={number}")
        if name in ("dpi", "figure.dpi") and number < LOWEST_DPI:
            small.append(f"{name}={number}")
    return small


def test_small_letters_by_hand():
    assert list_small_letters("ax.text(0, 0, 'a', fontsize=7.5)") == ["fontsize=7.5"]
    assert list_small_letters("plt.rcParams['font.size'] = 6") == ["font.size=6"]
    assert list_small_letters("plt.rcParams.update({'figure.dpi': 65, 'font.size': 8})") == [
        "figure.dpi=65"
    ]
    assert list_small_letters("ax.legend(fontsize='x-small')\nax.tick_params(labelsize=8)") == [
        "fontsize=x-small"
    ]


@notebooks
def test_letters_in_pictures_are_at_least_eight_points_high(path):
    code = [text_of(c) for c in cells(path) if c["cell_type"] == "code"]
    small = [(found, source[:120]) for source in code if (found := list_small_letters(source))]
    assert not small


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
