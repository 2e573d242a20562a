"The project agrees with itself: metadata, notebooks, modules and README."

import ast
import base64
import json
import re
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from functools import cache
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(
    p
    for p in (ROOT / "nbs").rglob("*.ipynb")
    if not any(part.startswith((".", "_")) for part in p.relative_to(ROOT).parts)
)
MODULES = sorted(p for p in (ROOT / "ferretlite").rglob("*.py") if not p.name.startswith("_"))
SOURCES = [
    *MODULES,
    *(ROOT / "tools").glob("*.py"),
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / ".ci/run",
    *(ROOT / "ferretlite/weights").rglob("*.json"),
    *(ROOT / "ferretlite/weights").rglob("*.md"),
]
notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
modules = pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)


def settings() -> dict:
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@cache
def cells(path) -> list:
    "The cells of a notebook, sources and outputs as plain strings."
    return nbformat.read(path, as_version=4).cells


def marks(cell) -> set:
    "The names of a cell's `#|` directives."
    return (
        set(re.findall(r"^#\|\s*([\w-]+)", cell.source, flags=re.M))
        if cell.cell_type == "code"
        else set()
    )


def outputs(path) -> list:
    return [o for c in cells(path) for o in c.get("outputs", [])]


def pictures(path) -> list:
    "The size in bytes of each stored picture."
    return [
        len(base64.b64decode(data))
        for o in outputs(path)
        for kind, data in o.get("data", {}).items()
        if kind in ("image/png", "image/jpeg")
    ]


# -- metadata


def test_settings_and_pyproject_agree():
    ini, toml = settings(), pyproject()
    assert toml["project"]["name"] == ini["lib_name"]
    assert toml["project"]["requires-python"] == f">={ini['min_python']}"
    for key in ("nbs_path", "lib_path", "tst_flags", "jupyter_hooks", "update_pyproject"):
        assert str(toml["tool"]["nbdev"][key]) == ini[key], key


def test_the_version_is_said_once():
    version = re.search(r'__version__ = "(.+)"', (ROOT / "ferretlite/__init__.py").read_text())[1]
    assert version == settings()["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_pin_every_requirement_within_its_range():
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints-cpu.txt").read_text().splitlines()
        if "==" in line
    )
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    assert "triton" not in pins
    wanted = [
        Requirement(r)
        for key, text in settings().items()
        if key.startswith("requirements") and key != "requirements_triton"
        for r in text.split()
    ]
    assert len(wanted) > 10
    for r in wanted:
        assert r.specifier.contains(pins[r.name.lower().replace("_", "-")]), (
            f"{r} against {pins[r.name.lower()]}"
        )


# -- notebooks


def test_there_are_notebooks_and_the_index_is_a_link():
    assert len(NOTEBOOKS) >= 19
    assert (ROOT / "nbs/index.ipynb").is_symlink() and not (ROOT / "index.ipynb").is_symlink()
    assert (ROOT / "nbs/index.ipynb").resolve() == (ROOT / "index.ipynb").resolve()


@notebooks
def test_notebook_is_valid_and_light(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    assert path.stat().st_size < 1_000_000
    assert max(pictures(path), default=0) < 150_000


@notebooks
def test_notebook_has_its_outputs(path):
    stored = outputs(path)
    assert not [o.get("evalue") for o in stored if o.output_type == "error"]
    assert not [o.text for o in stored if "it/s]" in o.get("text", "")], (
        "a progress bar differs on every run"
    )
    assert pictures(path), "a notebook shows at least one picture"
    for cell in cells(path):
        speaks = re.search(r"^(print\(|plt\.show\()", cell.source, flags=re.M)
        if cell.cell_type == "code" and speaks and not marks(cell) & {"hide", "slow", "cuda"}:
            assert cell.outputs, f"run this cell and keep its output:\n{cell.source}"


@notebooks
def test_notebook_begins_with_a_title_and_one_line(path):
    first = next(c for c in cells(path) if c.cell_type == "markdown").source
    lines = [line for line in first.splitlines() if line.strip()]
    assert lines[0].startswith("# ") and lines[1].startswith("> ")
    title = next(i for i, c in enumerate(cells(path)) if c.cell_type == "markdown")
    leading = [c for c in cells(path)[:title] if c.get("id") != "course-install"]
    assert all(marks(c) == {"default_exp"} for c in leading), (
        "only the default_exp cell stands before the title"
    )


@notebooks
def test_notebook_ends_with_the_hidden_export(path):
    last = cells(path)[-1]
    assert marks(last) == {"hide"} and "nbdev_export()" in last.source


@pytest.mark.parametrize("path", [*NOTEBOOKS, *SOURCES], ids=lambda p: p.name)
def test_no_path_of_a_machine(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":  # stored pictures may spell anything
        text = "\n".join(
            [c.source for c in cells(path)]
            + [
                o.get("text", "")
                + "".join(str(v) for k, v in o.get("data", {}).items() if not k.startswith("image"))
                for o in outputs(path)
            ]
        )
    assert not re.findall(
        r"(?:/(?:root|home|work|tmp|Users|content)/|[A-Z]:\\\\?Users)[\w./-]*", text
    )


# -- modules


def imports(tree) -> list:  # (name of the module, is it at the top level)
    """Everything that a module imports; relative names are written out.

    `if TYPE_CHECKING` and functions count as not at the top.
    """
    found, top = [], {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(a.name, id(node) in top) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["ferretlite" if node.level else "", node.module or ""]))
            found += [
                (f"{base}.{a.name}" if base == "ferretlite" else base, id(node) in top)
                for a in node.names
            ]
    return found


@modules
def test_module_needs_no_extra_to_import(path):
    extras = {
        "nbdev",
        "IPython",
        "ipykernel",
        "ipywidgets",
        "anywidget",
        "traitlets",
        "jupyter",
        "matplotlib_inline",
        "pycocotools",
        "pytest",
        "hypothesis",
        "triton",
        "peft",
        "torchao",
        "tensorboard",
        "gguf",
    }
    at_top = {name for name, top in imports(ast.parse(path.read_text(encoding="utf-8"))) if top}
    assert not {
        name
        for name in at_top
        if name.split(".")[0] in extras or name.startswith(("jupyter", "fastcore.test"))
    }


# -- README


def test_readme_is_what_the_index_makes():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import readme
    finally:
        sys.path.pop(0)
    body, shown = readme.readme(json.loads((ROOT / "index.ipynb").read_text(encoding="utf-8")))
    assert body == (ROOT / "README.md").read_text(encoding="utf-8"), "run python tools/readme.py"
    assert shown == {p.name: p.read_bytes() for p in (ROOT / "index_files").glob("*")}


def test_readme_shows_the_scores_of_the_shipped_weights():
    text, scores = (
        (ROOT / "README.md").read_text(encoding="utf-8"),
        json.loads((ROOT / "ferretlite/weights/tiny/eval.json").read_text()),
    )
    for key in (
        "name.acc",
        "rec.acc@0.5",
        "roc.point",
        "roc.box",
        "roc.mask",
        "word.acc",
        "phrase.acc",
        "det.AP50",
    ):
        assert f"**{scores[key]['value']:.1%}**" in text, f"{key}: run the index again"


def test_links_of_the_readme_lead_somewhere():
    found = re.findall(
        r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    assert len(found) > 19 and not [link for link in found if not (ROOT / link).exists()]
    lessons = {p.relative_to(ROOT).as_posix() for p in NOTEBOOKS if p.stem != "index"}
    assert lessons <= set(found), "the map names every notebook"


def test_readme_commands_are_the_ones_that_ci_runs():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    venv = "python3 -m venv .venv && . .venv/bin/activate && "
    assert f"\n{venv}pip install -c constraints-cpu.txt . && ferretlite demo\n" in text
    assert f"\n{venv}pip install -c constraints-cpu.txt -e '.[dev]' && pytest\n" in text


def test_tracked_files_are_small():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    heavy = [
        f
        for f in listed.stdout.splitlines()
        if (ROOT / f).is_file()
        and (ROOT / f).stat().st_size > (12_000_000 if "weights" in f else 1_000_000)
    ]
    assert not heavy
