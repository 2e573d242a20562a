"""The site: pages from the stored outputs of the notebooks, API pages from the source.

Nothing is executed.

python tools/docs.py              build _site from the notebooks in the order of nbs/course.toml
python tools/docs.py --out DIR    build it somewhere else
"""

import argparse
import ast
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

sys.path.insert(0, str(Path(__file__).resolve().parent))
import api_pages  # noqa: E402
import course  # noqa: E402
import exercises  # noqa: E402
import teaching  # noqa: E402

TOOLS = Path(__file__).resolve().parent
COLAB = "https://colab.research.google.com"
SITE_PAGES = ("limits.md", "libraries.md")  # of tools/site
TEACHING_PAGE = "teachers.md"  # of tools/site; the pages of tools/teaching.py stand below it
CALLOUTS = {"note", "tip", "warning", "caution", "important"}
EXTERNAL = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//|#)", re.I)

# ---- one cell ----


def directives(source: str) -> dict[str, str]:
    """Return the `#| name: value` lines of a cell; a name without a value has ''."""
    found = re.findall(r"^#\|[ \t]*([\w-]+)[ \t]*:?[ \t]*(.*)$", source, re.M)
    return {name: value.strip().strip("\"'") for name, value in found}


def strip_directives(source: str) -> str:
    """Return the code of a cell without its `#|` lines."""
    return re.sub(r"^#\|.*(?:\n|\Z)", "", source, flags=re.M).strip("\n")


def outside_fences(text: str):
    """Yield (line, is it inside a fenced block of code) for every line."""
    fence = ""
    for line in text.split("\n"):
        mark = re.match(r"\s*(`{3,}|~{3,})", line)
        inside = bool(fence) or bool(mark)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and line.strip() == mark[1]:
            fence = ""
        yield line, inside


def convert_callouts(text: str) -> str:
    """Return Markdown with Quarto's callouts as MyST admonitions; a heading on top is the title."""
    lines = list(outside_fences(text))
    made, closers, at = [], [], 0
    while at < len(lines):
        line, is_code = lines[at]
        at += 1
        opened = re.match(r"^(:{3,})\s*\{\.callout-(\w+)([^}]*)\}\s*$", line)
        if is_code or not (opened or closers):
            made.append(line)
        elif opened:
            colons, kind, rest = opened.groups()
            kind = kind if kind in CALLOUTS else "note"
            title = (re.search(r'title="([^"]*)"', rest) or ["", ""])[1]
            following = next((i for i in range(at, len(lines)) if lines[i][0].strip()), None)
            heading = following is not None and re.match(r"^#+\s+(.+)$", lines[following][0])
            if heading and not title:
                title, at = heading[1].strip(), following + 1
            folded = " dropdown" if re.search(r'collapse="?true', rest) else ""
            made.append(f"{colons}{{admonition}} {title or kind.capitalize()}")
            made += [f":class: {kind}{folded}", ""]
            closers.append(colons)
        elif line.strip() == closers[-1]:
            made.append(closers.pop())
        else:  # a heading inside an admonition would break the outline of the page
            made.append(re.sub(r"^#+\s+(.+)$", r"**\1**", line))
    return "\n".join(made)


def convert_links(text: str, resolve) -> str:
    """Return Markdown whose relative links have gone through `resolve`. Code is left alone."""
    text = re.sub(r"(\]\([^)\n]*\))\{[^}\n]*\}", r"\1", text)  # Quarto's attributes of pictures

    def prose(part: str) -> str:
        return re.sub(r"\]\(([^)\s]+)((?:\s+\"[^\"]*\")?)\)", one, part)

    def one(match) -> str:
        target = match[1] if EXTERNAL.match(match[1]) else resolve(match[1])
        return f"]({target}{match[2]})"

    parts = re.split(r"(^ *```.*?^ *```|`[^`\n]+`)", text, flags=re.S | re.M)
    return "".join(p if i % 2 else prose(p) for i, p in enumerate(parts))


def convert_markdown(text: str, resolve) -> str:
    """Return a Markdown cell or file as MyST Markdown."""
    return convert_links(convert_callouts(text), resolve)


def convert_code_cell(cell: dict, heading: str, resolve) -> dict | None:
    """Return a code cell with MyST-NB's tags, or None where nothing of it is shown."""
    source = course.source(cell)
    marks = directives(source)
    if "hide" in marks or marks.get("include") == "false":
        return None
    tags = list(cell["metadata"].get("tags", []))
    if marks.get("echo") == "false":
        tags.append("remove-input")
    elif marks.get("code-fold") in ("true", "show"):
        tags.append("hide-input")
    if marks.get("output") == "false" or marks.get("eval") == "false":
        tags.append("remove-output")
    code = strip_directives(source)
    outputs = [convert_output(o, resolve) for o in cell["outputs"]]
    if not code.strip() and not outputs:
        return None
    alt = marks.get("fig-alt") or f"Picture in the section “{heading}”"
    render = {"image": {"alt": alt}}
    if marks.get("code-summary"):
        render["code_prompt_show"] = marks["code-summary"]
    made = {k: cell[k] for k in ("cell_type", "id", "execution_count")}
    return made | {
        "metadata": {"tags": tags, "mystnb": render},
        "source": code,
        "outputs": outputs,
    }


def convert_output(output: dict, resolve) -> dict:
    """Return an output whose Markdown, if any, is MyST Markdown."""
    data = output.get("data", {})
    if "text/markdown" not in data:
        return output
    text = "".join(data["text/markdown"])
    return output | {"data": {"text/markdown": convert_markdown(text, resolve)}}


def convert_notebook(notebook: dict, resolve) -> dict:
    """Return a notebook as MyST-NB shows it: hidden cells left out, flags turned into tags."""
    cells, heading = [], course.title(notebook)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            made = convert_code_cell(cell, heading, resolve)
        elif cell["cell_type"] == "markdown":
            text = course.source(cell)
            if found := re.findall(r"^#+\s+(.+)$", text, re.M):
                heading = found[-1].strip()
            made = dict(cell, source=convert_markdown(text, resolve))
        else:
            made = None
        if made:
            cells.append(made)
    language = {"name": "python", "pygments_lexer": "ipython3"}
    metadata = dict(notebook["metadata"], language_info=language)
    return dict(notebook, cells=cells, metadata=metadata, nbformat=4, nbformat_minor=5)


# ---- where pages are ----


@dataclass
class Pages:
    """Which file of the repository becomes which page; files that are only linked to are copied."""

    root: Path
    pages: dict  # path in the repository -> path in the site's source
    copied: dict = field(default_factory=dict)
    missing: list = field(default_factory=list)  # "page: target" of links that lead nowhere

    def resolve(self, target: str, page: str) -> str:
        """Return the link from the page of one file of the repository to the page of another."""
        path, mark, anchor = target.partition("#")
        full = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(path)))
        if full not in self.pages and (self.root / full).is_file() and not full.startswith(".."):
            self.copied[full] = f"files/{full}"
        place = self.pages.get(full) or self.copied.get(full)
        if place is None:
            self.missing.append(f"{page}: {target}")
            return target
        here = posixpath.dirname(self.pages[page])
        return posixpath.relpath(place, here or ".") + mark + anchor

    def resolver(self, page: str):
        return lambda target: self.resolve(target, page)


def colab_badge(settings: dict, path: str) -> str:
    """Return a badge that opens a notebook in Colab, or an empty string without an address."""
    if not (address := course.repository_address(settings)):
        return ""
    name = address.removeprefix("https://github.com/")
    place = f"github/{name}/blob/{settings.get('branch', 'main')}/{path}"
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/{place})"


# ---- pages that are made ----


def toctree(entries: list[str], caption: str = "", hidden: bool = True) -> str:
    """Return a table of contents in MyST Markdown."""
    options = ([":hidden:"] if hidden else []) + ([f":caption: {caption}"] if caption else [])
    return "\n".join(["```{toctree}", *options, "", *entries, "```", ""])


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def part_page(lessons: list, notebooks: dict) -> str:
    """Return the page of one part: its lessons with their questions, roads and times."""
    rows = []
    for lesson in lessons:
        notebook = notebooks[lesson.path]
        minutes = f"{course.reading_minutes(notebook)} min"
        run = course.running_time(lesson.run) if lesson.run else ""
        link = f"[{course.title(notebook)}]({lesson.name}.ipynb)"
        link = f"**{link}**" if lesson.road == "core" else link
        roads = ", ".join([lesson.road, *lesson.roads])
        rows.append([link, lesson.question, roads, minutes, run])
    header = ["lesson", "question", "road", "to read", "to run"]
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    contents = toctree([f"{lesson.name}.ipynb" for lesson in lessons])
    return f"# {lessons[0].number} {lessons[0].part}\n\n{table(header, rows)}\n{contents}"


def top_level_names(source: str) -> dict[str, str]:
    """Return name -> module of what can be imported from the package itself (its `_HOMES`)."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            homes = ast.literal_eval(node.value)
            return {name: module for module, names in homes.items() for name in names}
    return {}


def by_folder(modules: dict) -> dict[str, list[str]]:
    """Return sub-package -> names of its modules."""
    held = {}
    for name in modules:
        held.setdefault(name.split(".")[0], []).append(name)
    return held


def folder_page(folder: str, names: list[str], modules: dict) -> str:
    """Return the page of one sub-package."""
    contents = toctree([f"{name}.md" for name in names])
    return f"# {folder}\n\n{module_table(names, modules)}\n{contents}"


def module_table(names: list[str], modules: dict) -> str:
    rows = [[f"[`{n}`]({n}.md)", first_line(modules[n])] for n in names]
    return table(["module", "what it holds"], rows)


def home_of(name: str, module: str, modules: dict) -> str:
    """Return the module whose page documents a name; '' where there is none."""
    candidates = [module, *modules]  # a module may hand on a name that another one defines
    return next((m for m in candidates if m in modules and name in modules[m].public), "")


def api_index(package: str, modules: dict, top: dict) -> str:
    """Return the API's front page: names of the package itself, then modules by sub-package."""
    lines = ["# API", "", f"Signatures and documentation of `{package}`, one page per module.", ""]
    if top:
        rows = [
            [f"{{py:obj}}`~{package}.{module}.{name}`", f"[`{module}`]({module}.md)"]
            for name, module in top.items()
        ]
        lines += [f"## From `{package}` itself", ""]
        lines += [f"`from {package} import …` works for these names:", ""]
        lines += [table(["name", "module"], rows)]
    for folder, names in by_folder(modules).items():
        lines += [f"## {folder}", "", module_table(names, modules)]
    lines.append(toctree([f"{folder}.md" for folder in by_folder(modules)]))
    return "\n".join(lines)


def first_line(module) -> str:
    """Return the first line of a module's docstring, fit for a table."""
    text = (ast.get_docstring(module.tree) or "").split("\n")[0]
    return api_pages.as_markdown(text).replace("|", "\\|")


def lesson_cells(lesson, notebook: dict, modules: dict, settings: dict) -> list[dict]:
    """Return the cells that stand under a lesson's navigation: the badge, and links to the API."""
    lines = []
    if badge := colab_badge(settings, lesson.link):
        lines.append(badge)
    exported = [m for m in course.exported_modules(notebook) if m in modules]
    if exported:
        links = ", ".join(f"[`{m}`](../api/{m}.md)" for m in exported)
        lines.append(f"*This lesson exports* {links}")
    if not lines:
        return []
    source = "\n\n".join(lines)
    return [{"cell_type": "markdown", "id": "lesson-links", "metadata": {}, "source": source}]


def quiz_cells(name: str) -> list[dict]:
    """Return the quiz of a lesson as the last cell of its page: questions with folded answers."""
    if name not in exercises.list_sources():
        return []
    lines = ["## Quiz", ""]
    for number, question in enumerate(exercises.read_source(name).quiz, 1):
        lines += [f"**{number}.** {question.text}", ""]
        lines += [f"- {option}" for option in question.options]
        lines += ["", ":::{admonition} Answer", ":class: dropdown", ""]
        for k, (option, reason) in enumerate(zip(question.options, question.reasons)):
            lines.append(f"- {'right' if k == question.right else 'wrong'}: {option}. {reason}")
        lines += ["", ":::", ""]
    return [{"cell_type": "markdown", "id": "quiz", "metadata": {}, "source": "\n".join(lines)}]


def link_modules(text: str, modules: dict) -> str:
    """Return the front page's map with its modules linked to their API pages."""

    def one(match) -> str:
        name = match[1]
        return f"| [`{name}`](api/{name}.md) |" if name in modules else match[0]

    return re.sub(r"\| `([\w.]+)` \|", one, text)


def sphinx_settings(settings: dict) -> str:
    """Return conf.py."""
    theme = {"home_page_in_toc": True, "show_toc_level": 2, "show_navbar_depth": 1}
    theme |= {"use_download_button": False, "use_fullscreen_button": False, "navbar_persistent": []}
    if address := course.repository_address(settings):
        theme |= {"repository_url": address, "use_repository_button": True}
        theme |= {"use_issues_button": True, "repository_branch": settings.get("branch", "main")}
    title = settings.get("title", settings["lib_name"])
    values = {
        "project": title,
        "author": settings.get("author", ""),
        "copyright": settings.get("copyright", ""),
        "version": settings.get("version", ""),
        "extensions": ["myst_nb", "sphinx.ext.githubpages"],
        "html_theme": "sphinx_book_theme",
        "html_title": title,
        "html_theme_options": theme,
        "html_static_path": ["_static"],
        "html_css_files": ["style.css"],
        "html_copy_source": False,
        "nb_execution_mode": "off",
        "nb_merge_streams": True,
        "nb_render_markdown_format": "myst",
        "myst_enable_extensions": ["dollarmath", "colon_fence", "fieldlist"],
        "myst_heading_anchors": 4,
        "add_module_names": False,
        "smartquotes_action": "qD",  # curly quotes and dashes; dots stay: [..., 2] is a shape
        "python_maximum_signature_line_length": 60,
        "toc_object_entries_show_parents": "hide",
        "suppress_warnings": ["misc.highlighting_failure", "myst.header"],
    }
    return "".join(f"{name} = {value!r}\n" for name, value in values.items())


# ---- the whole site ----


def other_pages(root: Path) -> dict[str, str]:
    """Return the Markdown files of the repository that become pages, where they are there."""
    found = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
    for card in sorted(root.glob("*/weights/*/README.md")):
        found[card.relative_to(root).as_posix()] = f"cards/{card.parent.name}.md"
    return {path: page for path, page in found.items() if (root / path).exists()}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_teaching(source: Path, pages: Pages) -> str:
    """Write the pages for teachers. Return the table of contents that lists them."""
    made = teaching.make_pages()
    pages.pages |= {f"{teaching.FOLDER}/{name}": f"teachers/{name}" for name in made}
    pages.pages[f"tools/site/{TEACHING_PAGE}"] = TEACHING_PAGE
    for name, text in made.items():
        if name.endswith(".md"):
            text = convert_markdown(text, pages.resolver(f"{teaching.FOLDER}/{name}"))
        write(source / "teachers" / name, text)
    text = (TOOLS / "site" / TEACHING_PAGE).read_text(encoding="utf-8")
    below = toctree([f"teachers/{name}" for name in made if name.endswith(".md")])
    text = convert_markdown(text, pages.resolver(f"tools/site/{TEACHING_PAGE}"))
    write(source / TEACHING_PAGE, f"{text}\n{below}")
    return "\n" + toctree([TEACHING_PAGE], "Teaching")


def write_sources(root: Path, source: Path) -> Pages:
    """Write everything that Sphinx reads. Links that lead nowhere are listed in `missing`."""
    settings = course.read_settings(root)
    package = settings["lib_name"]
    lessons = course.read_course()
    notebooks = {lesson.path: course.read_notebook(lesson.path) for lesson in lessons}
    modules = read_modules(root / package, lessons, notebooks)
    homes = {m: n for n in lessons for m in course.exported_modules(notebooks[n.path])}
    others = other_pages(root)
    pages = Pages(root, {"index.ipynb": "index.ipynb", "nbs/index.ipynb": "index.ipynb", **others})
    pages.pages["README.md"] = "index.ipynb"
    pages.pages |= {f"tools/site/{name}": name for name in SITE_PAGES}
    pages.pages |= {n.link: f"{n.folder}/{n.name}.ipynb" for n in lessons}

    for lesson in lessons:
        made = convert_notebook(notebooks[lesson.path], pages.resolver(lesson.link))
        at = next((i for i, c in enumerate(made["cells"]) if c["id"] == course.NAVIGATION), 0)
        extra = lesson_cells(lesson, notebooks[lesson.path], modules, settings)
        made["cells"][at + 1 : at + 1] = extra
        made["cells"] += quiz_cells(lesson.name)
        write(source / pages.pages[lesson.link], json.dumps(made))
    parts = {}
    for lesson in lessons:
        parts.setdefault(lesson.folder, []).append(lesson)
    for folder, held in parts.items():
        write(source / folder / "index.md", part_page(held, notebooks))

    if TOOLS.is_relative_to(root):
        others |= {f"tools/site/{name}": name for name in SITE_PAGES}
    for path, page in others.items():
        text = (root / path).read_text(encoding="utf-8")
        write(source / page, convert_markdown(text, pages.resolver(path)))
    cards = [page for page in others.values() if page.startswith("cards/")]
    if cards:
        names = [page.removeprefix("cards/") for page in cards]
        text = "# Model cards\n\nThe weights that ship inside the package.\n\n"
        write(source / "cards" / "index.md", text + toctree(names, hidden=False))

    for name, module in modules.items():
        notes = []
        if lesson := homes.get(name):
            title = course.title(notebooks[lesson.path])
            notes = [f"*Lesson:* [{title}](../{pages.pages[lesson.link]})"]
        write(source / "api" / f"{name}.md", api_pages.api_page(module, package, notes))
    for folder, names in by_folder(modules).items():
        write(source / "api" / f"{folder}.md", folder_page(folder, names, modules))
    top = top_level_names((root / package / "__init__.py").read_text(encoding="utf-8"))
    documented = {n: m for n, m in ((n, home_of(n, m, modules)) for n, m in top.items()) if m}
    write(source / "api" / "index.md", api_index(package, modules, documented))

    index = course.read_notebook(root / "index.ipynb")
    made = convert_notebook(index, pages.resolver("index.ipynb"))
    for cell in made["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = link_modules(cell["source"], modules)
    reference = ["api/index.md"]
    reference += ["cards/index.md"] if cards else []
    reference += [
        p for p in (*SITE_PAGES, "changelog.md", "contributing.md") if p in others.values()
    ]
    contents = toctree([f"{folder}/index.md" for folder in parts], "Course")
    if TOOLS.is_relative_to(root):
        contents += write_teaching(source, pages)
    contents += "\n" + toctree(reference, "Reference")
    made["cells"].append(
        {"cell_type": "markdown", "id": "contents", "metadata": {}, "source": contents}
    )
    write(source / "index.ipynb", json.dumps(made))

    for path, place in pages.copied.items():
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path, source / place)
    write(source / "_static" / "style.css", (TOOLS / "site" / "style.css").read_text("utf-8"))
    write(source / "conf.py", sphinx_settings(settings))
    return pages


def read_modules(package: Path, lessons: list, notebooks: dict) -> dict:
    """Return the exported modules by name, in the order of sub-packages and of lessons."""
    names = [m for n in lessons for m in course.exported_modules(notebooks[n.path])]
    folders = list(dict.fromkeys(name.split(".")[0] for name in names))
    found = {}
    for name in sorted(dict.fromkeys(names), key=lambda n: folders.index(n.split(".")[0])):
        path = package / (name.replace(".", "/") + ".py")
        if path.exists():
            found[name] = api_pages.read_module(path, name)
    return found


class _Links(HTMLParser):
    """Collects what a page links to, and the anchors that it has."""

    def __init__(self):
        super().__init__()
        self.targets, self.anchors = [], set()

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        if held.get("id"):
            self.anchors.add(held["id"])
        if tag in ("a", "link") and held.get("href"):
            self.targets.append(held["href"])
        if tag in ("img", "script", "source") and held.get("src"):
            self.targets.append(held["src"])


def broken_links(site: Path) -> list[str]:
    """Return 'page: target' for every relative link of the pages to no file or no anchor."""
    read = {}
    for page in sorted(site.rglob("*.html")):
        if "_static" in page.parts:  # templates of the theme
            continue
        read[page.resolve()] = links = _Links()
        links.feed(page.read_text(encoding="utf-8"))
    broken = []
    for page, links in read.items():
        for target in links.targets:
            if EXTERNAL.match(target) and not target.startswith("#"):
                continue
            path, _, anchor = target.partition("#")
            file = page
            if path := unquote(path.partition("?")[0]):
                file = Path(os.path.normpath(page.parent / path))
            file = file / "index.html" if file.is_dir() else file
            anchored = not anchor or file not in read or unquote(anchor) in read[file].anchors
            if not file.exists() or not anchored:
                broken.append(f"{page.relative_to(site.resolve())}: {target}")
    return broken


def build(root: Path, out: Path, source: Path) -> list[str]:
    """Build the site. Return what is wrong with it: links that lead nowhere, warnings of Sphinx."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    pages = write_sources(root, source)
    problems = [f"link leads nowhere: {found}" for found in pages.missing]
    command = [sys.executable, "-m", "sphinx", "-q", "-j", "auto", "-b", "html"]
    command += ["-d", source / ".doctrees"]  # outside of what is published
    done = subprocess.run(
        [*command, source, out], capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"}
    )
    warnings = done.stderr.replace(f"{source}{os.sep}", "").splitlines()
    problems += [f"sphinx: {line}" for line in warnings if line.strip()]
    if done.returncode and not warnings:
        problems.append(f"sphinx ended with {done.returncode}")
    return problems + [f"broken link: {found}" for found in broken_links(out)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=course.ROOT / "_site", help="where to build")
    options = parser.parse_args()
    problems = build(course.ROOT, options.out.resolve(), course.ROOT / "_site_src")
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        sys.exit(f"The site has {len(problems)} problems.")
    print(f"{sum(1 for _ in options.out.rglob('*.html'))} pages in {options.out}")


if __name__ == "__main__":
    main()
