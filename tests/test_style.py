"""The form of the code: short cells, documented public names, and not too many of these."""

import ast
import json
import re
import sys
from functools import cache
from pathlib import Path

import pytest

import ferretlite
from ferretlite import exercises

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import api_pages  # noqa: E402
import course  # noqa: E402

MAX_CELL_LINES = 40
MAX_PUBLIC_NAMES = 400
MAX_MODULE_LINES = 600
WORDS = re.compile(r"[A-Za-z_]\w*")
LESSONS = course.read_course()
NOTEBOOKS = [ROOT / "index.ipynb", *(lesson.path for lesson in LESSONS)]
MODULES = sorted(p for p in (ROOT / "ferretlite").glob("*/*.py") if not p.name.startswith("_"))


def code_cells(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "ferretlite").with_suffix("").parts)


@cache
def modules() -> dict:
    return {module_name(p): api_pages.read_module(p, module_name(p)) for p in MODULES}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_is_long(path):
    long = [text for text in code_cells(path) if len(text.split("\n")) > MAX_CELL_LINES]
    assert not long, "\n\n".join(text[:200] for text in long)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_module_is_long(path):
    """Counted without the header lines that the export writes between cells."""
    lines = path.read_text(encoding="utf-8").split("\n")
    assert len([x for x in lines if not x.startswith("# %%")]) <= MAX_MODULE_LINES


def described_by_class(name: str) -> bool:
    """Methods that Python, torch or transformers define: their base class documents them."""
    return name.startswith("_") and name != "__init__"


def undocumented(module, name: str, node) -> list[str]:
    """What a function, a class or a method leaves undocumented."""
    found = [] if ast.get_docstring(node) else [name]
    documented = api_pages.argument_docs(module, node)
    a = node.args
    arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, [a.vararg, a.kwarg])]
    return found + [
        f"{name}({x.arg})" for x in arguments if x.arg not in ("self", "cls", *documented)
    ]


def undocumented_of_class(module, name: str, node: ast.ClassDef) -> list[str]:
    found = [] if ast.get_docstring(node) else [name]
    if api_pages.is_dataclass(node):
        found += [
            f"{name}.{field.target.id}"
            for field in api_pages.fields_of(node)
            if not api_pages.comment_of(module, field.lineno, field.end_lineno)
        ]
    methods = [n for n in node.body if isinstance(n, api_pages.FUNCTIONS)]
    for method in methods:
        if method.name == "__init__":
            found += [x for x in undocumented(module, f"{name}.__init__", method) if "(" in x]
        elif not described_by_class(method.name):
            found += undocumented(module, f"{name}.{method.name}", method)
    return found


@pytest.mark.parametrize("name", [module_name(p) for p in MODULES])
def test_every_public_name_and_argument_is_documented(name):
    module, missing = modules()[name], []
    for public in module.public:
        node = module.nodes[public]
        is_value = isinstance(node, ast.Assign | ast.AnnAssign)
        if is_value and not api_pages.comment_of(module, node.lineno, node.end_lineno):
            missing.append(public)
        if isinstance(node, api_pages.FUNCTIONS):
            missing += undocumented(module, public, node)
        elif isinstance(node, ast.ClassDef):
            missing += undocumented_of_class(module, public, node)
    for owner, methods in module.patches.items():
        for method in methods:
            if not described_by_class(method.name):
                missing += undocumented(module, f"{owner}.{method.name}", method)
    assert not missing


def test_users_have_at_most_four_hundred_names():
    assert sum(len(module.public) for module in modules().values()) <= MAX_PUBLIC_NAMES


def test_a_public_name_is_used_outside_its_module_and_its_lesson():
    homes = {}
    for path in NOTEBOOKS:
        exported = re.findall(
            r"^#\|\s*(?:default_exp|exporti?)[ \t]+([\w.]+)",
            "\n".join(code_cells(path)),
            re.MULTILINE,
        )
        homes[path] = set(exported)
    words = {path: set(WORDS.findall("\n".join(code_cells(path)))) for path in NOTEBOOKS}
    users = {*dir(ferretlite), *exercises.__all__}
    for name, module in modules().items():
        others = [words[path] for path in NOTEBOOKS if name not in homes[path]]
        others.append(users)
        lonely = [public for public in module.public if not any(public in w for w in others)]
        assert not lonely, f"{name}: used nowhere else, so begin these with _ (or #| exporti)"


def results_in_comments(path: Path) -> list[str]:
    "Names of functions whose signature ends in a comment, without an annotation of the result."
    lines = path.read_text(encoding="utf-8").split("\n")
    found = []
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, api_pages.FUNCTIONS) and node.returns is None:
            signature = "\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1])
            if re.search(r"\):[ ]*#[^\n]*$", signature.rstrip()):
                found.append(node.name)
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_results_are_annotations_not_comments(path):
    """`) -> list:  # of boxes`, and not `):  # list of boxes`."""
    assert not results_in_comments(path)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_docstrings_end_in_their_last_line(path):
    """One way: the closing quotes stand behind the last word, and not on a line of their own."""
    lines = path.read_text(encoding="utf-8").split("\n")
    nodes = (*api_pages.FUNCTIONS, ast.ClassDef)
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, nodes) and ast.get_docstring(node):
            assert lines[node.body[0].end_lineno - 1].strip() != '"""', node.name


def has_nested_choice(node) -> bool:
    return isinstance(node, ast.IfExp) and isinstance(node.orelse, ast.IfExp)


def loops_over_one(node) -> bool:
    """Return whether a node is `for x in y[:1]`, which is an `if`."""
    if not isinstance(node, ast.For) or not isinstance(node.iter, ast.Subscript):
        return False
    return ast.unparse(node.iter.slice) == ":1"


def is_run_for_its_effects(node) -> bool:
    """Return whether a node is a comprehension whose value nobody takes."""
    comprehensions = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    return isinstance(node, ast.Expr) and isinstance(node.value, comprehensions)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_statement_hides_another(path):
    """No `a if b else c if d else e`, no `for x in y[:1]`, no comprehension for its effects."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        hidden = has_nested_choice(node), loops_over_one(node), is_run_for_its_effects(node)
        assert not any(hidden), ast.unparse(node)


def names_of_annotation(node) -> set[str]:
    """Return the names in an annotation that is written as text, such as `-> "Box"`."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return set()
    tree = ast.parse(node.value, mode="eval")
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_annotations_can_be_evaluated(path):
    """nbdev's pages evaluate each annotation, so a name in it is known in its module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known = {n.name for n in tree.body if isinstance(n, (ast.ClassDef, *api_pages.FUNCTIONS))}
    imports = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    known |= {(a.asname or a.name).split(".")[0] for n in imports for a in n.names}
    for node in ast.walk(tree):
        if isinstance(node, api_pages.FUNCTIONS):
            a = node.args
            arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs]
            written = [x.annotation for x in arguments] + [node.returns]
            unknown = set().union(*(names_of_annotation(x) for x in written if x)) - known
            assert not unknown, f"{node.name}: {unknown}"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_pattern_repeats_a_group_possessively(path):
    r"""Python before 3.11.5 keeps the half-read part: `a(?:bc+d)?+` matches "abc" in "abcx".

    An atomic group says the same: `a(?>(?:bc+d)?)`."""
    source = path.read_text(encoding="utf-8")
    assert not re.findall(r"(?<!\\)\)(?:[?*+]|\{+[0-9,]+\}+)\+", source)
