"""API pages in MyST Markdown, read from the source of the modules: nothing is imported.

A page lists the names of a module's `__all__`: signature, docstring, and the comments that document
arguments (fastcore's docments).
"""

import ast
import inspect
import io
import re
import tokenize
from dataclasses import dataclass, field
from pathlib import Path

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LONGEST_VALUE = 60  # characters of a constant that are printed


@dataclass
class Module:
    """One module of the package, as its source tells it."""

    name: str  # without the package: `vision.sampler`
    tree: ast.Module
    comments: dict  # line -> text of the comment that ends it
    whole_lines: set  # lines that hold a comment and nothing else
    public: list  # names of `__all__`
    nodes: dict = field(default_factory=dict)  # name -> its definition
    patches: dict = field(default_factory=dict)  # class -> functions that `@patch` adds to it


def read_module(path: Path, name: str) -> Module:
    """Parse one module."""
    return parse_module(path.read_text(encoding="utf-8"), name)


def parse_module(source: str, name: str) -> Module:
    """Return a module's public names with their definitions and comments."""
    comments, whole = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ").strip()
            if token.line[: token.start[1]].strip() == "":
                whole.add(token.start[0])
    module = Module(name, ast.parse(source), comments, whole, [])
    for node in module.tree.body:
        if isinstance(node, FUNCTIONS) and (owner := patched_class(node)):
            module.patches.setdefault(owner, []).append(node)
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            module.nodes[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for inner in ast.walk(target):
                    if isinstance(inner, ast.Name):
                        module.nodes[inner.id] = node
    if listed := module.nodes.get("__all__"):
        module.public = ast.literal_eval(listed.value)
    return module


def decorators(node) -> list[str]:
    """Return the decorators as text, without their arguments."""
    return [ast.unparse(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list]


def patched_class(node) -> str:
    """Return the class that `@patch` adds a function to, or an empty string."""
    first = (node.args.posonlyargs + node.args.args)[:1]
    if "patch" not in decorators(node) or not first or first[0].annotation is None:
        return ""
    return ast.unparse(first[0].annotation).strip("'\"")


def comment_of(module: Module, first: int, last: int) -> str:
    """Return the comment that ends one of the lines, or the comment lines above the first."""
    ends = [module.comments[n] for n in range(first, last + 1) if n in module.comments]
    if ends:
        return " ".join(ends)
    above, line = [], first - 1
    while line in module.whole_lines:
        above.append(module.comments[line])
        line -= 1
    return " ".join(reversed(above))


def argument_docs(module: Module, node) -> dict[str, str]:
    """Return the comment of each argument with a line of its own, and of the result ('return')."""
    a = node.args
    arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, [a.vararg, a.kwarg])]
    lines = [arg.lineno for arg in arguments]
    found = {}
    for arg in arguments:
        if lines.count(arg.lineno) > 1 or arg.lineno == node.lineno:
            continue
        if text := comment_of(module, arg.lineno, arg.end_lineno):
            found[arg.arg] = text
    if node.returns:
        last = max(node.returns.end_lineno, node.body[0].lineno - 1)
        ends = [
            module.comments[n]
            for n in range(node.returns.lineno, last + 1)
            if n in module.comments and n not in module.whole_lines
        ]
        if ends:
            found["return"] = " ".join(ends)
    return found


def is_dataclass(node: ast.ClassDef) -> bool:
    return "dataclass" in decorators(node)


def fields_of(node: ast.ClassDef) -> list[ast.AnnAssign]:
    """Return the annotated fields of a class body that are public."""
    return [
        n
        for n in node.body
        if isinstance(n, ast.AnnAssign)
        and isinstance(n.target, ast.Name)
        and not n.target.id.startswith("_")
    ]


def field_docs(module: Module, node: ast.ClassDef) -> dict[str, str]:
    """Return the comment of each field, those of private base classes of the module included."""
    docs = {}
    for base in node.bases:
        name = ast.unparse(base)
        if name.startswith("_") and isinstance(module.nodes.get(name), ast.ClassDef):
            docs |= field_docs(module, module.nodes[name])
    docs |= {n.target.id: comment_of(module, n.lineno, n.end_lineno) for n in fields_of(node)}
    return {name: text for name, text in docs.items() if text}


def signature(node, skip_first: bool = False) -> str:
    """Return the arguments and the result as they are written, `self` left out where asked."""
    arguments = ast.parse(f"def f({ast.unparse(node.args)}): pass").body[0].args
    if skip_first:
        (arguments.posonlyargs or arguments.args).pop(0)
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(arguments)}){result}"


def class_signature(node: ast.ClassDef) -> str:
    """Return how a class is made: the arguments of `__init__`, or a dataclass's fields."""
    for inner in node.body:
        if isinstance(inner, FUNCTIONS) and inner.name == "__init__":
            inner.returns = None
            return signature(inner, skip_first=True)
    if not is_dataclass(node):
        return ""
    made = [n for n in fields_of(node) if "ClassVar" not in ast.unparse(n.annotation)]
    parts = [
        f"{n.target.id}: {ast.unparse(n.annotation)}"
        + (f" = {field_default(n.value)}" if n.value else "")
        for n in made
    ]
    return f"({', '.join(parts)})"


def field_default(value: ast.expr) -> str:
    """Return a field's default; an ellipsis for a factory."""
    is_call = isinstance(value, ast.Call) and ast.unparse(value.func).endswith("field")
    return "..." if is_call else ast.unparse(value)


def as_markdown(text: str, module: str = "", names=()) -> str:
    """Return a docstring or comment as MyST Markdown; code spans that are `names` become links."""

    def outside(part: str) -> str:
        part = re.sub(r"([<$\\])", r"\\\1", part)
        return re.sub(r"(?<!\w)__(?=\w)|(?<=\w)__(?!\w)", r"\\_\\_", part)

    def code(part: str) -> str:
        name = part.strip("`")
        return f"{{py:obj}}`~{module}.{name}`" if module and name in names else part

    parts = re.split(r"(```.*?```|``.+?``|`[^`]+`)", text, flags=re.S)
    return "".join(code(p) if i % 2 else outside(p) for i, p in enumerate(parts))


def documented(module: Module, node, docs: dict, package: str) -> list[str]:
    """Return the docstring and the list of arguments."""
    home = f"{package}.{module.name}"

    def text(raw: str) -> str:
        return as_markdown(raw, home, module.public)

    lines = [""]  # a field at the top would be read as an option of the directive
    if doc := ast.get_docstring(node, clean=False):
        lines += [text(inspect.cleandoc(doc)), ""]
    for name, raw in docs.items():
        if name != "return":
            lines.append(f":param {name}: {text(raw)}")
    if "return" in docs:
        lines.append(f":returns: {text(docs['return'])}")
    return lines + [""]


def directive(kind: str, head: str, body: list[str], depth: int) -> list[str]:
    """Return a directive of Sphinx's Python domain; outer ones have longer fences."""
    fence = "`" * (8 - 2 * depth)
    return [f"{fence}{{py:{kind}}} {head}", *body, fence, ""]


def function_page(module: Module, node, package: str, name: str = "") -> list[str]:
    head = (name or node.name) + signature(node, skip_first="." in name)
    return directive(
        "function", head, documented(module, node, argument_docs(module, node), package), 0
    )


def method_page(module: Module, node, package: str) -> list[str]:
    """Return one method or property of a class."""
    marks = decorators(node)
    as_property = any(
        isinstance(d, ast.Call) and ast.unparse(d) == "patch(as_prop=True)"
        for d in node.decorator_list
    )
    body = documented(module, node, argument_docs(module, node), package)
    if as_property or any(m.split(".")[-1] in ("property", "cached_property") for m in marks):
        kind = [f":type: {ast.unparse(node.returns)}", ""] if node.returns else [""]
        return directive("property", node.name, kind + body, 1)
    options = [f":{m}:" for m in ("classmethod", "staticmethod") if m in marks] + [""]
    head = node.name + signature(node, skip_first="staticmethod" not in marks)
    return directive("method", head, options + body, 1)


def class_page(module: Module, node: ast.ClassDef, package: str) -> list[str]:
    """Return a class with its fields, its public methods and those that `@patch` adds."""
    docs = field_docs(module, node)
    methods = {}
    for inner in [*node.body, *module.patches.get(node.name, [])]:
        if isinstance(inner, FUNCTIONS) and inner.name == "__init__":
            docs |= argument_docs(module, inner)
        if isinstance(inner, FUNCTIONS) and not inner.name.startswith("_"):
            if not any(m.endswith((".setter", ".deleter")) for m in decorators(inner)):
                methods[inner.name] = inner
    docs.pop("return", None)
    body = documented(module, node, docs, package)
    if bases := ", ".join(f"`{ast.unparse(b)}`" for b in node.bases):
        body = [f"Bases: {bases}", "", *body]
    for inner in methods.values():
        body += method_page(module, inner, package)
    return directive("class", node.name + class_signature(node), body, 0)


def constant_page(module: Module, name: str, node, package: str) -> list[str]:
    """Return a constant with its comment and, where short, its value."""
    value = ast.unparse(node.value) if node.value else ""
    options = [f":value: {value}"] if 0 < len(value) <= LONGEST_VALUE else []
    comment = comment_of(module, node.lineno, node.lineno)
    if not comment or comment.startswith(("%%", "|")):
        comment = module.comments.get(node.end_lineno, "")
    home = f"{package}.{module.name}"
    return directive("data", name, [*options, "", as_markdown(comment, home, module.public)], 0)


def api_page(module: Module, package: str, notes: list[str] = ()) -> str:
    """Return a module's page. `notes` stand under its title."""
    summary = inspect.cleandoc(ast.get_docstring(module.tree) or "")
    home = f"{package}.{module.name}"
    lines = [f"# {module.name}", "", as_markdown(summary), "", *notes, ""]
    lines += [f"```{{py:module}} {home}", "```", ""]
    for name in module.public:
        node = module.nodes.get(name)
        if isinstance(node, FUNCTIONS):
            lines += function_page(module, node, package)
        elif isinstance(node, ast.ClassDef):
            lines += class_page(module, node, package)
        elif node is not None:
            lines += constant_page(module, name, node, package)
    for owner, added in module.patches.items():
        if owner not in module.nodes:
            for node in added:
                if not node.name.startswith("_"):
                    lines += function_page(module, node, package, f"{owner}.{node.name}")
    return "\n".join(lines).rstrip() + "\n"
