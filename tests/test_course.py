"""The course is in order: every lesson and every module uses only what came before."""

import ast
import json
import os
import re
import sys
from functools import cache
from pathlib import Path

import pytest

import ferretlite

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import course  # noqa: E402

LESSONS = course.read_course()
PLACE = {lesson.path: i for i, lesson in enumerate(LESSONS)}
SHIPPED = {  # what loads shipped weights may be used before the lesson that explains it
    "load_model",
    "Ferret",
    "WEIGHTS",
}
# imported lazily: kernels, where Triton is installed, and what methods of Ferret do that are taught
# in lessons of their own
OPTIONAL = {"vision.kernel_operators", "model.chat", "model.closer"}
lessons = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)


@cache
def notebook(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def homes() -> dict:
    """Module -> the place of its lesson."""
    places = enumerate(LESSONS)
    return {name: i for i, n in places for name in course.exported_modules(notebook(n.path))}


@cache
def imports_of_module(name: str) -> list:
    """What `our_imports` finds in a module."""
    path = ROOT / "ferretlite" / f"{name.replace('.', '/')}.py"
    return our_imports(path.read_text(encoding="utf-8"), "ferretlite." + name.rpartition(".")[0])


def our_imports(source: str, package: str = "") -> list:
    """(module without `ferretlite.`, imported name or '', is it at the top level) of every import
    of ours.
    """
    tree = ast.parse(
        "\n".join("" if re.match(r"\s*[%!]", line) else line for line in source.split("\n"))
    )
    found, top = [], {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(a.name, "", id(node) in top) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = (
                package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            )
            base = ".".join([*above, *filter(None, [node.module])])
            for a in node.names:
                is_module = f"{base}.{a.name}".removeprefix("ferretlite.") in homes()
                found.append(
                    (
                        f"{base}.{a.name}" if is_module else base,
                        "" if is_module else a.name,
                        id(node) in top,
                    )
                )
    return [
        (m.removeprefix("ferretlite."), name, is_top)
        for m, name, is_top in found
        if m.startswith("ferretlite.")
    ] + [  # `from ferretlite import Box`
        (ferretlite._HOME[name], name, is_top)
        for m, name, is_top in found
        if m == "ferretlite" and name in ferretlite._HOME
    ]


def test_every_notebook_is_listed_and_every_module_has_a_lesson():
    files = {p for p in (ROOT / "ferretlite").rglob("*.py") if not p.name.startswith("_")}
    made = {ROOT / "ferretlite" / f"{name.replace('.', '/')}.py" for name in homes()}
    assert files == made


def test_a_notebook_exports_at_most_three_modules_of_one_sub_package():
    for lesson in LESSONS:
        names = course.exported_modules(notebook(lesson.path))
        assert len(names) <= 3 and len({n.partition(".")[0] for n in names}) < 2, lesson.name


def test_sub_packages_do_not_import_each_other():
    used = {}
    for name in homes():
        others = {m.partition(".")[0] for m, _, _ in imports_of_module(name)}
        used.setdefault(name.partition(".")[0], set()).update(others)
    both = {(a, b) for a in used for b in used[a] if a < b and a in used.get(b, ())}
    assert not both


@pytest.mark.parametrize("name", homes())
def test_a_module_imports_only_from_earlier_lessons(name):
    for used, _, is_top in imports_of_module(name):
        if homes().get(used) == homes()[name]:  # two modules of one lesson
            back = [m for m, _, _ in imports_of_module(used)]
            assert used != name and name not in back, f"{name} and {used} import each other"
        elif used in OPTIONAL and name not in OPTIONAL:
            assert not is_top or homes()[used] < homes()[name], (
                f"{name} has to import {used} lazily"
            )
        elif used in homes():
            assert homes()[used] < homes()[name], f"{name} imports {used}, which comes later"


@lessons
def test_a_lesson_imports_only_what_came_before(lesson):
    for cell in notebook(lesson.path)["cells"]:
        if cell["cell_type"] != "code":
            continue
        for used, name, _ in our_imports(course.source(cell)):
            allowed = used in OPTIONAL or name in SHIPPED
            assert allowed or homes().get(used, -1) <= PLACE[lesson.path], (
                f"{lesson.name} imports {used}, which comes later"
            )


TRAINED_IN = ("clip", "dino", "two_eyes", "tiny_lm", "alignment", "runs", "each_stage")


@lessons
def test_shipped_weights_are_loaded_beside_a_link_to_the_lesson_that_trains_them(lesson):
    cells = notebook(lesson.path)["cells"]
    code = [course.source(c) for c in cells if c["cell_type"] == "code"]
    imported = {name for text in code for _, name, _ in our_imports(text)}
    if not imported & SHIPPED or lesson.name in TRAINED_IN:
        return
    if PLACE[lesson.path] > next(PLACE[n.path] for n in LESSONS if n.name == "runs"):
        return  # the reader comes from there
    prose = "\n".join(course.source(c) for c in cells if c["cell_type"] == "markdown")
    assert any(f"{name}.ipynb" in prose for name in TRAINED_IN)


@lessons
def test_a_link_to_a_later_lesson_says_that_it_is_later(lesson):
    """Prose builds on what came before.

    A paragraph that points ahead says so with the word `later` or `next`.
    """
    for cell in notebook(lesson.path)["cells"]:
        if cell["cell_type"] != "markdown" or cell.get("id") == course.NAVIGATION:
            continue
        for paragraph in re.split(r"\n\s*\n", course.source(cell)):
            for link in re.findall(r"\]\(([^)#\s]+\.ipynb)", paragraph):
                target = Path(os.path.normpath(lesson.path.parent / link))
                assert target == ROOT / "nbs/index.ipynb" or target in PLACE, (
                    f"{lesson.name}: {link} leads nowhere"
                )
                ahead = PLACE.get(target, -1) > PLACE[lesson.path]
                says_so = re.search(r"\b(later|next|after this|ahead)\b", paragraph, re.IGNORECASE)
                assert not ahead or says_so, (
                    f"{lesson.name} points ahead to {target.stem} without saying so:"
                    f" {paragraph[:120]}"
                )


@lessons
def test_imports_stand_in_cells_of_their_own(lesson):
    """Documentation tools run every cell that holds an import."""
    for cell in notebook(lesson.path)["cells"]:
        text = course.source(cell)
        by_tool = cell.get("id") == course.INSTALL or "nbdev_export()" in text
        if cell["cell_type"] != "code" or by_tool:
            continue
        body = ast.parse(
            "\n".join("" if re.match(r"\s*[%!]", line) else line for line in text.split("\n"))
        ).body
        kinds = {isinstance(node, (ast.Import, ast.ImportFrom)) for node in body}
        assert len(kinds) < 2, f"{lesson.name}: split the cell that begins with {text[:60]!r}"


@lessons
def test_links_and_times_are_those_of_the_course(lesson):
    """`python tools/course.py` was run."""
    titles = {n.path: course.title(notebook(n.path)) for n in LESSONS}
    minutes = course.reading_minutes(notebook(lesson.path))
    expected = course.navigation(LESSONS, PLACE[lesson.path], titles, minutes)
    cell = next(c for c in notebook(lesson.path)["cells"] if c.get("id") == course.NAVIGATION)
    assert course.source(cell) == expected


@pytest.mark.parametrize("road", course.read_roads())
def test_a_further_road_is_told_on_the_front_page_and_leads_from_page_to_page(road):
    held = [n for n in LESSONS if road in n.roads]
    assert len(held) > 2
    index = "\n".join(course.source(c) for c in notebook(ROOT / "index.ipynb")["cells"])
    told = index[index.index(course.read_roads()[road]["title"]) :]
    assert re.findall(r"^\d+\. \[.*?\]\((.*?)\)", told, re.M) == [n.link for n in held]
    titles = {n.path: course.title(notebook(n.path)) for n in LESSONS}
    for here, following in zip(held, held[1:]):
        line = course.navigation(LESSONS, PLACE[here.path], titles, 5)
        assert f"]({os.path.relpath(following.path, here.path.parent)})" in line


def test_a_road_without_a_title_is_refused(tmp_path, monkeypatch):
    text = course.COURSE.read_text(encoding="utf-8").replace("[roads.griffon]", "[roads.other]")
    monkeypatch.setattr(course, "COURSE", tmp_path / "course.toml")
    course.COURSE.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="course.toml: the road griffon has no title and text"):
        course.read_course()


def test_the_core_road_has_about_twenty_lessons():
    assert 14 <= sum(lesson.road == "core" for lesson in LESSONS) <= 21


def test_public_names_come_from_the_package_itself_and_importing_it_loads_nothing():
    import subprocess

    code = (
        "import sys, ferretlite; print(sorted(m for m in sys.modules if m.split('.')[0] in"
        " ('torch', 'numpy', 'transformers', 'PIL')))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.strip() == "[]", run.stderr
    import ferretlite

    for name in ferretlite.__all__:
        assert getattr(ferretlite, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Weasel'"):
        getattr(ferretlite, "Weasel")  # noqa: B009
