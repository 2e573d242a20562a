"""Links, roads and times on every page, and the front page's map, made from nbs/course.toml.

Once settings.ini names the repository, every notebook also begins with a hidden cell that installs
the package where it is missing.

python tools/course.py            write them into the notebooks
python tools/course.py --times F  take the seconds of each notebook from the output of `nbdev-test
--timing`
"""

import argparse
import configparser
import json
import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COURSE = ROOT / "nbs" / "course.toml"
NAVIGATION = "course-navigation"  # ids of the cells that this tool writes
INSTALL = "course-install"
PLACEHOLDER = "ferretlite"  # `user` of settings.ini while the repository has no address
BEGIN, END = "<!-- course: made by tools/course.py -->", "<!-- end of course -->"
ROADS = {"core": "core road", "elective": "elective", "helper": "helper, to be looked up"}


@dataclass
class Lesson:
    """One notebook of the course."""

    name: str
    folder: str
    part: str  # title of its part
    number: int  # of its part, from 1
    road: str  # a key of ROADS
    run: int  # seconds of one core
    question: str
    roads: dict = field(default_factory=dict)  # further roads -> what the lesson brings to each

    @property
    def path(self) -> Path:
        return ROOT / "nbs" / self.folder / f"{self.name}.ipynb"

    @property
    def link(self) -> str:
        return f"nbs/{self.folder}/{self.name}.ipynb"


def read_table() -> dict:
    return tomllib.loads(COURSE.read_text(encoding="utf-8"))


def read_roads() -> dict[str, dict]:
    """Return the further roads: name -> title and text."""
    return read_table().get("roads", {})


def read_course() -> list[Lesson]:
    """Return the lessons in order.

    Raise ValueError for an unknown road and for notebooks that are not listed or not there.
    """
    lessons = []
    for number, part in enumerate(read_table()["part"], 1):
        for held in part["lessons"]:
            lessons.append(Lesson(folder=part["folder"], part=part["title"], number=number, **held))
    if unknown := [n.name for n in lessons if n.road not in ROADS]:
        raise ValueError(f"{COURSE.name}: {unknown[0]} is on no known road ({', '.join(ROADS)})")
    if unknown := sorted({road for n in lessons for road in n.roads} - set(read_roads())):
        raise ValueError(
            f"{COURSE.name}: the road {unknown[0]} has no title and text under [roads]"
        )
    listed = {n.path for n in lessons}
    folders = {n.folder for n in lessons}
    present = {p for folder in folders for p in (ROOT / "nbs" / folder).glob("*.ipynb")}
    if listed != present:
        raise ValueError(
            f"{COURSE.name} and the folders differ: {sorted(p.name for p in listed ^ present)}"
        )
    return lessons


def read_settings(root: Path) -> dict:
    config = configparser.ConfigParser(delimiters=["="], interpolation=None)
    config.read(root / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


def repository_address(settings: dict) -> str:
    """Return the repository's address, or an empty string while `user` is a placeholder."""
    user = settings.get("user", PLACEHOLDER)
    return "" if user == PLACEHOLDER else f"https://github.com/{user}/{settings['repo']}"


def read_notebook(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def write_notebook(path: Path, notebook: dict) -> None:
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def source(cell: dict) -> str:
    return "".join(cell["source"])


def title(notebook: dict) -> str:
    """Return the text of the first heading."""
    first = next(c for c in notebook["cells"] if c["cell_type"] == "markdown")
    return source(first).splitlines()[0].removeprefix("# ").strip()


def exported_modules(notebook: dict) -> list[str]:
    """Return the modules that a notebook exports, its default one first."""
    code = [source(c) for c in notebook["cells"] if c["cell_type"] == "code"]
    pattern = r"^#\|\s*(?:default_exp|exporti?)[ \t]+([\w.]+)"
    return list(dict.fromkeys(re.findall(pattern, "\n".join(code), re.M)))


def reading_minutes(notebook: dict) -> int:
    """Estimate the minutes to read: 130 words of prose or 12 lines of code a minute, in steps of
    five.
    """
    cells = [c for c in notebook["cells"] if c.get("id") != NAVIGATION]
    words = sum(len(source(c).split()) for c in cells if c["cell_type"] == "markdown")
    lines = sum(
        len(source(c).splitlines())
        for c in cells
        if c["cell_type"] == "code" and "#| hide" not in source(c)
    )
    return max(5, 5 * round((words / 130 + lines / 12) / 5))


def lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def running_time(seconds: int) -> str:
    return f"{seconds} s" if seconds < 90 else f"{round(seconds / 60)} min"


def navigation(lessons: list[Lesson], i: int, titles: dict, minutes: int) -> str:
    """Return the line of links under a notebook's title."""
    here = lessons[i]

    def link(word: str, lesson: Lesson) -> str:
        target = os.path.relpath(lesson.path, here.path.parent)
        return f"[{word}: {titles[lesson.path]}]({target})"

    further = {name: road["title"] for name, road in read_roads().items() if name in here.roads}
    kinds = " · ".join([ROADS[here.road], *map(lower_first, further.values())])
    where = f"Part {here.number} · {here.part} · {kinds} · about {minutes} minutes to read"
    if here.run:
        where += f", {running_time(here.run)} to run"
    links = []
    if i:
        links.append(link("Previous", lessons[i - 1]))
    if i + 1 < len(lessons):
        links.append(link("Next", lessons[i + 1]))
    core = next((n for n in lessons[i + 1 :] if n.road == "core"), None)
    if core and core is not lessons[i + 1]:
        links.append(link("Next on the core road", core))
    for name, road_title in further.items():
        following = next((n for n in lessons[i + 1 :] if name in n.roads), None)
        if following and following is not lessons[i + 1]:
            links.append(link(f"Next on {lower_first(road_title)}", following))
    return f"*{where}*\n\n{' · '.join(links)}"


def set_navigation(notebook: dict, text: str) -> None:
    """Put the navigation cell behind the title."""
    cells = [c for c in notebook["cells"] if c.get("id") != NAVIGATION]
    at = next(i for i, c in enumerate(cells) if c["cell_type"] == "markdown") + 1
    cell = dict(
        cell_type="markdown", id=NAVIGATION, metadata={}, source=text.splitlines(keepends=True)
    )
    notebook["cells"] = cells[:at] + [cell] + cells[at:]


def set_install(notebook: dict, address: str, folder: str = ".") -> None:
    """Put a hidden cell on top that installs the package where it is missing, as in Colab.

    The cell takes the whole repository and goes to the notebook's folder in it, so that a lesson
    finds the records that it shows. Without an address there is no such cell."""
    notebook["cells"] = [c for c in notebook["cells"] if c.get("id") != INSTALL]
    if not address:
        return
    lines = [
        "#| hide",
        "import importlib.util",
        "import os",
        "import subprocess",
        "import sys",
        "",
        'if importlib.util.find_spec("ferretlite") is None:',
        f'    clone = ["git", "clone", "-q", "--depth", "1", "{address}", "ferretlite-course"]',
        '    package = "./ferretlite-course[notebooks]"',
        "    subprocess.run(clone, check=True)",
        '    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package], check=True)',
        f'    os.chdir("ferretlite-course/{folder}")',
    ]
    cell = dict(
        cell_type="code",
        execution_count=None,
        id=INSTALL,
        metadata={},
        outputs=[],
        source="\n".join(lines).splitlines(keepends=True),
    )
    notebook["cells"] = [cell, *notebook["cells"]]


def course_map(lessons: list[Lesson], titles: dict, modules: dict) -> str:
    """Return the front page's map: a table per part, the core road in bold; then further roads."""
    blocks = []
    for folder in dict.fromkeys(n.folder for n in lessons):
        held = [n for n in lessons if n.folder == folder]
        rows = ["| lesson | question | module |", "|---|---|---|"]
        for n in held:
            name = f"[{titles[n.path]}]({n.link})"
            name = f"**{name}**" if n.road == "core" else name
            exported = ", ".join(f"`{module}`" for module in modules[n.path])
            rows.append(f"| {name} | {n.question} | {exported} |")
        blocks.append(f"### {held[0].number} {held[0].part}\n\n" + "\n".join(rows))
    for name, road in read_roads().items():
        held = [n for n in lessons if name in n.roads]
        steps = [
            f"{k}. [{titles[n.path]}]({n.link}): {n.roads[name]}" for k, n in enumerate(held, 1)
        ]
        blocks.append(f"### {road['title']}\n\n{road['text'].strip()}\n\n" + "\n".join(steps))
    return f"{BEGIN}\n\n" + "\n\n".join(blocks) + f"\n\n{END}"


def set_map(notebook: dict, text: str) -> None:
    """Replace the map on the front page. Raise ValueError where it has no place."""
    for cell in notebook["cells"]:
        old = source(cell)
        if BEGIN in old and END in old:
            new = old[: old.index(BEGIN)] + text + old[old.index(END) + len(END) :]
            cell["source"] = new.splitlines(keepends=True)
            return
    raise ValueError(f"index.ipynb has no cell with {BEGIN} and {END}")


def take_times(path: Path) -> None:
    """Write the seconds of each notebook into course.toml."""
    found = dict(
        re.findall(r"^(?:.*/)?(\w+)\.ipynb: (\d+) secs", path.read_text(encoding="utf-8"), re.M)
    )
    text = COURSE.read_text(encoding="utf-8")
    for name, seconds in found.items():
        text = re.sub(
            rf'(name = "{name}", road = "\w+", run = )\d+', rf"\g<1>{max(1, int(seconds))}", text
        )
    COURSE.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=Path, help="output of nbdev-test --timing")
    options = parser.parse_args()
    if options.times:
        take_times(options.times)
    lessons = read_course()
    address = repository_address(read_settings(ROOT))
    notebooks = {n.path: read_notebook(n.path) for n in lessons}
    titles = {path: title(notebook) for path, notebook in notebooks.items()}
    for i, lesson in enumerate(lessons):
        notebook = notebooks[lesson.path]
        set_install(notebook, address, f"nbs/{lesson.folder}")
        set_navigation(notebook, navigation(lessons, i, titles, reading_minutes(notebook)))
        write_notebook(lesson.path, notebook)
    index = read_notebook(ROOT / "index.ipynb")
    set_install(index, address)
    set_map(
        index, course_map(lessons, titles, {p: exported_modules(n) for p, n in notebooks.items()})
    )
    write_notebook(ROOT / "index.ipynb", index)


if __name__ == "__main__":
    main()
