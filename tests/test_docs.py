"""The site: what Quarto's marks, links and argument comments become; a small site is built."""

import importlib
import inspect
import json
import re
import subprocess
import sys
import types
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import api_pages  # noqa: E402
import course  # noqa: E402
import docs  # noqa: E402

MODULES = sorted(
    ".".join(p.relative_to(ROOT / "ferretlite").with_suffix("").parts)
    for p in (ROOT / "ferretlite").glob("*/*.py")
    if not p.name.startswith("_")
)
ONE_PIXEL = (  # a PNG
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def same(target: str) -> str:
    return target


def code_cell(source: str, *outputs) -> dict:
    return {
        "cell_type": "code",
        "id": f"c{abs(hash(source)) % 10**8}",
        "metadata": {},
        "execution_count": None,
        "source": source,
        "outputs": list(outputs),
    }


def markdown_cell(source: str, id: str = "words") -> dict:
    return {"cell_type": "markdown", "id": id, "metadata": {}, "source": source}


# -- cells


def test_a_callout_becomes_an_admonition_with_its_heading_as_title():
    text = ":::{.callout-note}\n## Paper and code\nThey *differ*.\n:::\n\nAfter."
    assert docs.convert_callouts(text) == (
        ":::{admonition} Paper and code\n:class: note\n\nThey *differ*.\n:::\n\nAfter."
    )


def test_a_callout_keeps_its_kind_its_title_and_that_it_is_folded():
    text = '::: {.callout-tip collapse="true" title="Why"}\nBecause.\n\n### Then\n:::'
    assert docs.convert_callouts(text) == (
        ":::{admonition} Why\n:class: tip dropdown\n\nBecause.\n\n**Then**\n:::"
    )
    assert ":::{admonition} Warning\n:class: warning\n" in docs.convert_callouts(
        ":::{.callout-warning}\nHot.\n:::"
    )


def test_a_callout_inside_a_block_of_code_is_text():
    text = "```markdown\n:::{.callout-note}\n## A\n:::\n```"
    assert docs.convert_callouts(text) == text


def test_directives_are_read_and_left_out_of_the_code():
    source = "#| export\n#| fig-alt: Two boxes, one inside\n#|echo: false\nx = 1  #| no directive\n"
    assert docs.directives(source) == {
        "export": "",
        "fig-alt": "Two boxes, one inside",
        "echo": "false",
    }
    assert docs.strip_directives(source) == "x = 1  #| no directive"


@pytest.mark.parametrize(
    "mark, tags",
    [
        ("#| echo: false", ["remove-input"]),
        ("#| code-fold: true", ["hide-input"]),
        ("#| output: false", ["remove-output"]),
        ("#| export", []),
    ],
)
def test_marks_become_tags(mark, tags):
    made = docs.convert_code_cell(code_cell(f"{mark}\nx = 1"), "Boxes", same)
    assert made["source"] == "x = 1"
    assert made["metadata"]["tags"] == tags


def test_hidden_cells_and_cells_of_directives_alone_are_left_out():
    for source in ("#| hide\nx = 1", "#| include: false\nx = 1", "#| default_exp regions.geometry"):
        assert docs.convert_code_cell(code_cell(source), "", same) is None


def test_a_picture_is_described_by_its_cell_or_by_its_section():
    said = docs.convert_code_cell(code_cell('#| fig-alt: "A red box"\ndraw()'), "Boxes", same)
    assert said["metadata"]["mystnb"]["image"]["alt"] == "A red box"
    silent = docs.convert_code_cell(code_cell("draw()"), "Boxes", same)
    assert "Boxes" in silent["metadata"]["mystnb"]["image"]["alt"]


# -- links


@pytest.fixture
def pages(tmp_path) -> docs.Pages:
    (tmp_path / "LICENSE").write_text("free")
    return docs.Pages(
        tmp_path,
        {
            "index.ipynb": "index.ipynb",
            "nbs/1_start/a.ipynb": "1_start/a.ipynb",
            "nbs/2_more/b.ipynb": "2_more/b.ipynb",
        },
    )


def test_links_between_notebooks_lead_to_their_pages(pages):
    assert pages.resolve("../2_more/b.ipynb#End", "nbs/1_start/a.ipynb") == "../2_more/b.ipynb#End"
    assert pages.resolve("nbs/2_more/b.ipynb", "index.ipynb") == "2_more/b.ipynb"
    assert pages.resolve("../../index.ipynb", "nbs/1_start/a.ipynb") == "../index.ipynb"
    assert not pages.missing


def test_a_file_that_is_no_page_is_copied_and_a_missing_one_is_listed(pages):
    assert pages.resolve("../../LICENSE", "nbs/1_start/a.ipynb") == "../files/LICENSE"
    assert pages.copied == {"LICENSE": "files/LICENSE"}
    pages.resolve("c.ipynb", "nbs/1_start/a.ipynb")
    pages.resolve("../LICENSE", "index.ipynb")  # outside the repository
    assert pages.missing == ["nbs/1_start/a.ipynb: c.ipynb", "index.ipynb: ../LICENSE"]


def test_only_relative_links_of_prose_change():
    text = "[`a`](a.ipynb), `[b](b.ipynb)`, [c](https://c.org), [d](#d), ![e](e.png){width=50%}"
    assert docs.convert_links(text, str.upper) == (
        "[`a`](A.IPYNB), `[b](b.ipynb)`, [c](https://c.org), [d](#d), ![e](E.PNG)"
    )
    fenced = "```python\nx[0](a.py)\n```"
    assert docs.convert_links(fenced, str.upper) == fenced


def test_broken_links_are_missing_files_and_missing_anchors(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.html").write_text('<h1 id="top">B</h1>')
    (tmp_path / "a.html").write_text(
        '<a href="sub/b.html#top"></a><a href="sub/b.html#end"></a><a href="c.html"></a>'
        '<a href="https://x.org/d.html"></a><img src="e.png">'
    )
    assert docs.broken_links(tmp_path) == [
        "a.html: sub/b.html#end",
        "a.html: c.html",
        "a.html: e.png",
    ]


def test_the_install_cell_needs_the_address_of_a_repository():
    notebook = {"cells": [code_cell("x = 1")]}
    course.set_install(notebook, "")
    assert [course.source(c) for c in notebook["cells"]] == ["x = 1"]
    for _ in range(2):  # written again, not twice
        course.set_install(notebook, "https://host/ann/boxes", "nbs/3_vision")
        first, second = map(course.source, notebook["cells"])
        assert first.startswith("#| hide\n") and second == "x = 1"
    called = []
    found = {"ferretlite": None, "json": "here"}
    names = {
        "importlib": types.SimpleNamespace(util=types.SimpleNamespace(find_spec=found.get)),
        "subprocess": types.SimpleNamespace(run=lambda command, check: called.append(command)),
        "os": types.SimpleNamespace(chdir=called.append),
        "sys": sys,
    }
    code = "\n".join(x for x in first.split("\n") if not x.startswith("import "))
    exec(code, names)
    clone, install, folder = called
    assert clone[:2] == ["git", "clone"]
    assert clone[-2:] == ["https://host/ann/boxes", "ferretlite-course"]
    assert install[:4] == [sys.executable, "-m", "pip", "install"]
    assert install[-1] == "./ferretlite-course[notebooks]"
    assert folder == "ferretlite-course/nbs/3_vision"
    found["ferretlite"] = "installed"
    exec(code, names)
    assert len(called) == 3


def test_a_badge_needs_the_address_of_a_repository():
    settings = {"user": "ferretlite", "repo": "boxes", "branch": "main"}
    assert docs.colab_badge(settings, "nbs/a.ipynb") == ""
    assert "(https://colab.research.google.com/github/ann/boxes/blob/main/nbs/a.ipynb)" in (
        docs.colab_badge(settings | {"user": "ann"}, "nbs/a.ipynb")
    )


# -- API pages

SOURCE = dedent(
    '''
    """Boxes and `area`."""
    __all__ = ["LIMIT", "area", "Box"]
    LIMIT = 3  # boxes of an image

    def area(
        box,  # [..., 4] corners
        # how far it grows,
        # in pixels
        margin: int = 0,
        *,
        scale: float = 1.0,  # factor <of both sides>
        **more,
    ) -> tuple[
        float, float
    ]:  # area and margin
        "The area of a `Box`, of at most `LIMIT`; costs $5."

    def _helper(x): pass

    @dataclass(frozen=True)
    class Box:
        "Four edges."
        x1: float  # left edge
        x2: float = 1.0  # right edge
        tags: list = field(default_factory=list)

        def width(self) -> float:
            "Right minus left."

        def _hidden(self): pass

        @property
        def center(self) -> float:  # in pixels
            "The middle."

        @classmethod
        def read(cls, text: str): pass

    @patch
    def grow(
        self: Box,
        by: float,  # pixels
    ):
        "A larger box."
    '''
)


@pytest.fixture
def module() -> api_pages.Module:
    return api_pages.parse_module(SOURCE, "regions.boxes")


def test_comments_document_arguments_fields_and_results(module):
    assert api_pages.argument_docs(module, module.nodes["area"]) == {
        "box": "[..., 4] corners",
        "margin": "how far it grows, in pixels",
        "scale": "factor <of both sides>",
        "return": "area and margin",
    }
    assert api_pages.field_docs(module, module.nodes["Box"]) == {
        "x1": "left edge",
        "x2": "right edge",
    }


def test_argument_comments_are_those_that_fastcore_reads():
    from fastcore.docments import docments

    path = ROOT / "ferretlite" / "regions" / "geometry.py"
    module = api_pages.read_module(path, "regions.geometry")
    from ferretlite.regions import geometry

    for name in module.public:
        node = module.nodes[name]
        if isinstance(node, api_pages.FUNCTIONS):
            theirs = docments(getattr(geometry, name))
            ours = api_pages.argument_docs(module, node)
            for argument, comment in theirs.items():
                if comment:  # fastcore misses some that span lines
                    assert ours[argument] == " ".join(comment.split())


def test_signatures_are_those_of_the_source(module):
    area, box = module.nodes["area"], module.nodes["Box"]
    assert api_pages.signature(area) == (
        "(box, margin: int=0, *, scale: float=1.0, **more) -> tuple[float, float]"
    )
    assert api_pages.class_signature(box) == "(x1: float, x2: float = 1.0, tags: list = ...)"


def test_an_api_page_lists_public_names_methods_and_patches(module):
    page = api_pages.api_page(module, "package")
    for line in (
        "# regions.boxes",
        "{py:data} LIMIT",
        ":value: 3",
        "boxes of an image",
        ":param scale: factor \\<of both sides>",
        ":returns: area and margin",
        "The area of a {py:obj}`~package.regions.boxes.Box`, of at most "
        "{py:obj}`~package.regions.boxes.LIMIT`; costs \\$5.",
        "{py:method} width() -> float",
        "{py:property} center",
        "{py:method} read(text: str)",
        ":classmethod:",
        "{py:method} grow(by: float)",
        ":param by: pixels",
    ):
        assert line in page, f"{line!r} is not on the page:\n{page}"
    assert "_helper" not in page and "_hidden" not in page


# -- a small site


@pytest.fixture
def small_course(tmp_path, monkeypatch) -> Path:
    """A project with two lessons, one of them with a module."""
    root = tmp_path / "project"
    (root / "nbs" / "1_first").mkdir(parents=True)
    (root / "boxes" / "regions").mkdir(parents=True)
    (root / "settings.ini").write_text(
        "[DEFAULT]\nrepo = boxes\nlib_name = boxes\ntitle = boxes\nuser = ferretlite\n"
    )
    lesson = 'road = "core", run = 0, question = "Where?"'
    (root / "nbs" / "course.toml").write_text(
        f'[[part]]\nfolder = "1_first"\ntitle = "First"\nlessons = [\n'
        f'  {{ name = "one", {lesson} }},\n  {{ name = "two", {lesson} }},\n]\n'
    )
    (root / "boxes" / "__init__.py").write_text('_HOMES = {"regions.boxes": ("Box",)}\n')
    (root / "boxes" / "regions" / "boxes.py").write_text(SOURCE.lstrip())
    picture = {"output_type": "display_data", "metadata": {}, "data": {"image/png": ONE_PIXEL}}
    notebooks = {
        "index.ipynb": [markdown_cell("# Boxes\n\n| a | b |\n|---|---|\n| x | `regions.boxes` |")],
        "nbs/1_first/one.ipynb": [
            code_cell("#| default_exp regions.boxes"),
            markdown_cell("# One\n\nThen [two](two.ipynb)."),
            code_cell("#| hide\nsecret = 1"),
            code_cell("#| export\n#| fig-alt: One pixel\nshown = 2", picture),
        ],
        "nbs/1_first/two.ipynb": [
            markdown_cell("# Two\n\n:::{.callout-note}\n## A title\nWords.\n:::"),
            code_cell("#| code-fold: true\nfolded = 3"),
        ],
    }
    for path, cells in notebooks.items():
        held = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        (root / path).write_text(json.dumps(held))
    monkeypatch.setattr(course, "ROOT", root)
    monkeypatch.setattr(course, "COURSE", root / "nbs" / "course.toml")
    return root


def test_a_small_site_is_built_and_its_broken_link_is_found(small_course, tmp_path):
    pytest.importorskip("sphinx_book_theme")
    site = tmp_path / "site"
    two = small_course / "nbs" / "1_first" / "two.ipynb"
    two.write_text(two.read_text().replace("Words.", "[Words](three.ipynb)."))
    problems = docs.build(small_course, site, tmp_path / "source")
    assert problems[0] == "link leads nowhere: nbs/1_first/two.ipynb: three.ipynb"
    assert all("three.ipynb" in problem for problem in problems), problems

    one = (site / "1_first" / "one.html").read_text()
    assert 'href="two.html"' in one and 'alt="One pixel"' in one
    assert "shown" in one and "secret" not in one and "#|" not in one
    assert 'href="../api/regions.boxes.html"' in one
    two = (site / "1_first" / "two.html").read_text()
    assert re.search(r'class="[^"]*\bnote\b[^"]*".*?A title', two, re.S) and "tag_hide-input" in two
    api = (site / "api" / "regions.boxes.html").read_text()
    assert 'id="boxes.regions.boxes.Box.grow"' in api and "1_first/one.html" in api
    assert 'href="api/regions.boxes.html"' in (site / "index.html").read_text()
    assert (site / "search.html").exists() and (site / ".nojekyll").exists()
    assert not (site / ".doctrees").exists()


def test_the_tool_explains_itself():
    told = subprocess.run(
        [sys.executable, ROOT / "tools" / "docs.py", "--help"], capture_output=True, text=True
    )
    assert told.returncode == 0 and "_site" in told.stdout


def test_known_limits_give_the_scores_of_the_shipped_weights():
    text = (ROOT / "tools/site/limits.md").read_text(encoding="utf-8")
    scores = {
        model: json.loads((ROOT / f"ferretlite/weights/{model}/eval.json").read_text())
        for model in ("tiny", "tiny-griffon")
    }
    tiny, griffon = scores["tiny"], scores["tiny-griffon"]
    assert f"(0 of {tiny['word.acc']['n']})" in text and tiny["word.acc"]["value"] == 0
    assert f"{tiny['rec.small']['value']:.0%}".replace("%", " %") in text
    assert f"{tiny['rec.large']['value']:.0%}".replace("%", " %") in text
    assert f"{griffon['absent.balanced_acc']['value']:.0%}".replace("%", " %") in text
    for model in scores:
        assert f"{scores[model]['count.mae']['value']:.2f} for `{model}`" in text


@pytest.mark.parametrize("module", MODULES)
def test_signatures_can_be_evaluated(module):
    "nbdev's documentation step evaluates the types of arguments and fields, inherited ones too."
    imported = importlib.import_module(f"ferretlite.{module}")
    for name in imported.__all__:
        if callable(value := getattr(imported, name)):
            try:
                inspect.signature(value, eval_str=True)
            except ValueError as error:  # a class whose base is written in C has no signature
                assert "no signature found" in str(error), name
