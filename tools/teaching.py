"""Pages and slides for teachers, made from nbs/course.toml, tools/site/teaching.toml and notebooks.

Goals and questions come from the two tables. Times, prerequisites, pictures and summaries come from
the notebooks.

python tools/teaching.py --out DIR   write pages (Markdown) and slides (HTML) into a folder
"""

import argparse
import html
import math
import re
import sys
import tomllib
from pathlib import Path

from markdown_it import MarkdownIt

sys.path.insert(0, str(Path(__file__).resolve().parent))
import course  # noqa: E402

TABLE = Path(__file__).resolve().parent / "site" / "teaching.toml"
STYLE = TABLE.with_name("slides.css")
FOLDER = "tools/site/teachers"  # where a link in a page begins
EXERCISE_MINUTES = 10  # estimate for an exercise that states no time
CHECKED = course.ROOT / "nbs" / "_exercises"  # exercises that state their minutes


def read_table() -> dict:
    """Return plans, slides, misconceptions and exam questions.

    Raise ValueError for a lesson that does not exist."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    known = {lesson.name for lesson in course.read_course()}
    named = [n for plan in table["plan"] for s in plan["session"] for n in s["lessons"]]
    for kind in ("slide", "misconception", "exam"):
        named += [row["lesson"] for row in table[kind] if "lesson" in row]
    if unknown := sorted(set(named) - known):
        raise ValueError(f"{TABLE.name}: {unknown[0]} is no lesson of {course.COURSE.name}")
    return table


class Course:
    """The lessons with their notebooks, by name."""

    def __init__(self):
        self.lessons = {lesson.name: lesson for lesson in course.read_course()}
        self.notebooks = {n: course.read_notebook(x.path) for n, x in self.lessons.items()}
        self.goals = course.read_table()["goals"]
        self.homes = {
            module: name
            for name, notebook in self.notebooks.items()
            for module in course.exported_modules(notebook)
        }
        self.order = list(self.lessons)

    def title(self, name: str) -> str:
        return course.title(self.notebooks[name])

    def link(self, name: str, section: str = "") -> str:
        """Return a link to a lesson, or to one of its sections."""
        lesson, title = self.lessons[name], section or self.title(name)
        anchor = f"#{slug(section)}" if section else ""
        return f"[{title}](../../../{lesson.link}{anchor})"

    def cell(self, name: str, cell_id: str) -> dict:
        """Return a cell of a lesson. Raise ValueError for an id that no cell has."""
        for cell in self.notebooks[name]["cells"]:
            if cell["id"] == cell_id:
                return cell
        raise ValueError(f"{TABLE.name}: {name} has no cell {cell_id}")

    def section(self, name: str, cell_id: str) -> str:
        """Return the heading of the section in which a cell stands; '' before the first one."""
        self.cell(name, cell_id)
        heading = ""
        for cell in self.notebooks[name]["cells"]:
            if cell["cell_type"] == "markdown":
                found = re.findall(r"^## (.+)$", course.source(cell), re.M)
                heading = found[0].strip() if found else heading
            if cell["id"] == cell_id:
                return heading
        return heading

    def prerequisites(self, name: str) -> list[str]:
        """Return the earlier lessons that a lesson imports from or links to; no helpers."""
        cells, earlier = self.notebooks[name]["cells"], self.order[: self.order.index(name)]
        used = set()
        for cell in cells:
            text = course.source(cell)
            if cell["cell_type"] == "code":
                modules = re.findall(
                    r"^\s*from (?:ferretlite|\.+)\.?([\w.]*) import (.+)$", text, re.M
                )
                for module, names in modules:
                    used.add(self.homes.get(module.strip(".")))
                    first = names.split()[0].strip("(,")
                    used.add(self.homes.get(f"{module}.{first}".strip(".")))
            elif cell["id"] != course.NAVIGATION:
                used |= set(re.findall(r"\]\([^)#\s]*?(\w+)\.ipynb", text))
        return [n for n in earlier if n in used and self.lessons[n].road != "helper"]

    def reading(self, name: str) -> int:
        """Return the estimated minutes to read a lesson."""
        return course.reading_minutes(self.notebooks[name])

    def running(self, name: str) -> int:
        """Return the measured minutes to run a lesson, rounded up."""
        return math.ceil(self.lessons[name].run / 60)

    def exercises(self, name: str) -> list[int]:
        """Return the estimated minutes of each exercise, the checked ones first."""
        source = CHECKED / f"{name}.py"
        stated = []
        if source.exists():
            text = source.read_text(encoding="utf-8")
            stated = [int(n) for n in re.findall(r"^# minutes: (\d+)", text, re.M)]
        cells = (c for c in self.notebooks[name]["cells"] if c["cell_type"] == "markdown")
        text = "\n".join(course.source(c) for c in cells)
        _, found, rest = text.rpartition("\n## Exercises")
        rest = rest.split("\n## ")[0] if found else ""
        listed = len(re.findall(r"^\d+\. ", rest, re.M))
        return stated + [EXERCISE_MINUTES] * listed

    def minutes(self, name: str, exercises: int | None = None) -> dict[str, int]:
        """Return the minutes to read, to run and to do some exercises (None: all of them)."""
        done = sum(self.exercises(name)[:exercises])
        return {"read": self.reading(name), "run": self.running(name), "do": done}


def slug(heading: str) -> str:
    """Return the anchor of a heading, as MyST and code hosts make it."""
    plain = re.sub(r"[*`]", "", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")


def make_table(header: list[str], rows: list[list]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def show_minutes(total: int) -> str:
    return f"{total // 60} h {total % 60:02} min" if total >= 60 else f"{total} min"


# ---- pages ----


def goals_page(lessons: Course) -> str:
    """Return the page of goals, prerequisites and times."""
    blocks = ["# Goals, prerequisites and times\n"]
    blocks.append(
        "After a lesson, a student can do what the column *goals* says. Prerequisites are the"
        " earlier lessons that the lesson imports from or links to. Times are minutes. *Run* is"
        " measured on one core. *Read* is estimated (130 words or 12 lines of code a minute), and"
        " so is *do*: the stated minutes of checked exercises, and"
        f" {EXERCISE_MINUTES} minutes for each other exercise. Lessons of the core road are bold.\n"
    )
    for part in dict.fromkeys(x.part for x in lessons.lessons.values()):
        rows = []
        for name, lesson in lessons.lessons.items():
            if lesson.part != part:
                continue
            link = lessons.link(name)
            needs = ", ".join(map(lessons.link, lessons.prerequisites(name)))
            goals = "; ".join(lessons.goals.get(name, ["–"]))
            times = lessons.minutes(name)
            bold = f"**{link}**" if lesson.road == "core" else link
            rows.append([bold, goals, needs or "–", *times.values()])
        header = ["lesson", "goals", "prerequisites", "read", "run", "do"]
        blocks.append(f"## {part}\n\n{make_table(header, rows)}")
    return "\n".join(blocks)


def session_minutes(lessons: Course, plan: dict, session: dict) -> dict[str, int]:
    """Return the minutes of a session by kind, with their sum as `all`."""
    times = [lessons.minutes(name, plan["exercises"]) for name in session["lessons"]]
    total = {kind: sum(t[kind] for t in times) for kind in ("read", "run", "do")}
    return total | {"all": sum(total.values())}


def plans_page(lessons: Course, table: dict) -> str:
    """Return the page of the plans. Raise ValueError for a plan over its limit of minutes."""
    blocks = ["# Plans\n"]
    blocks.append(
        "Minutes to read and to do are estimates, and minutes to run are measured (see"
        " [Goals](goals.md)). A fast reader needs half of the reading time.\n"
    )
    for plan in table["plan"]:
        rows, whole = [], 0
        for session in plan["session"]:
            times = session_minutes(lessons, plan, session)
            whole += times["all"]
            links = "<br>".join(map(lessons.link, session["lessons"]))
            shown = [times["read"], times["run"], times["do"], show_minutes(times["all"])]
            rows.append([session["title"], links, session["class"], *shown])
        if whole > plan.get("limit", whole):
            raise ValueError(f"{plan['title']}: found {whole} minutes, at most {plan['limit']}")
        header = ["session", "lessons", "together", "read", "run", "do", "all"]
        count = plan["exercises"]
        counted = f"{count} exercise{'s' * (count != 1)} for each lesson"
        text = f"{plan['text']} Counted with {counted}."
        total = f"Together: {show_minutes(whole)}."
        blocks.append(f"## {plan['title']}\n\n{text}\n\n{make_table(header, rows)}\n{total}\n")
    minutes = sum(slide["minutes"] for slide in table["slide"])
    blocks.append(
        f"## A talk\n\n{len(table['slide'])} slides for {minutes} minutes, questions included:"
        " [the slides](slides.html). Pictures and sentences come from the notebooks, so the slides"
        " change with the course. Arrow keys turn the slides, and printing gives a page for each.\n"
    )
    return "\n".join(blocks)


def misconceptions_page(lessons: Course, table: dict) -> str:
    """Return the page of misconceptions, each with a link to the section that cures it."""
    rows = []
    for row in table["misconception"]:
        section = lessons.section(row["lesson"], row["cell"])
        place = lessons.link(row["lesson"])
        if section:
            place += f": {lessons.link(row['lesson'], section)}"
        rows.append([row["wrong"], row["right"], f"{place} (cell `{row['cell']}`)"])
    text = "Let students defend the left column first, and run the cell then.\n"
    return f"# Common misconceptions\n\n{text}\n" + make_table(["heard", "true", "cure"], rows)


def exam_page(lessons: Course, table: dict) -> str:
    """Return the page of exam questions with folded answers."""
    blocks = ["# Exam questions\n"]
    blocks.append(
        "The answers are public, so change the numbers. Most questions are computed by hand in"
        " five minutes.\n"
    )
    for number, row in enumerate(table["exam"], 1):
        lesson = lessons.link(row["lesson"])
        blocks.append(
            f"**{number}.** {row['question']} (Lesson: {lesson})\n\n"
            f':::{{.callout-tip collapse="true" title="Answer"}}\n{row["answer"]}\n:::\n'
        )
    return "\n".join(blocks)


# ---- slides ----


def summary_points(notebook: dict) -> list[str]:
    """Return the points of the summary of a lesson."""
    cells = (c for c in notebook["cells"] if c["cell_type"] == "markdown")
    text = "\n\n".join(course.source(c) for c in cells)
    _, _, rest = text.rpartition("## Summary")
    return re.findall(r"^- (.+)$", rest.split("\n## ")[0], re.M)


def picture(cell: dict) -> str:
    """Return the stored picture of a cell as an HTML image. Raise ValueError for none."""
    alt = re.search(r"^#\| fig-alt: (.+)$", course.source(cell), re.M)
    for output in cell.get("outputs", []):
        for kind in ("image/png", "image/jpeg"):
            if data := output.get("data", {}).get(kind):
                data = "".join(data).replace("\n", "")
                text = html.escape(alt[1].strip("\"'") if alt else "")
                return f'<img src="data:{kind};base64,{data}" alt="{text}">'
    raise ValueError(f"{TABLE.name}: cell {cell['id']} has no stored picture")


def make_slide(lessons: Course, slide: dict) -> str:
    """Return one slide: title, question or points of a lesson, and a picture."""
    title = html.escape(slide["title"])
    if "lesson" not in slide:
        return f"<section><h1>{title}</h1></section>"
    name = slide["lesson"]
    points = summary_points(lessons.notebooks[name])
    if lacking := [k for k in slide.get("points", []) if k >= len(points)]:
        raise ValueError(f"{TABLE.name}: the summary of {name} has no point {lacking[0]}")
    texts = [points[k] for k in slide.get("points", [])] or [lessons.lessons[name].question]
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text) for text in texts]
    items = "".join(f"<li>{MarkdownIt().renderInline(text)}</li>" for text in plain)
    shown = picture(lessons.cell(name, slide["cell"]))
    source = f"{html.escape(lessons.title(name))} · {slide['minutes']} min"
    return f"<section><h1>{title}</h1>{shown}<ul>{items}</ul><footer>{source}</footer></section>"


SCRIPT = """
const slides = [...document.querySelectorAll("section")];
let at = Math.min(Math.max(parseInt(location.hash.slice(1)) || 1, 1), slides.length) - 1;
function show(step) {
  at = Math.min(Math.max(at + step, 0), slides.length - 1);
  slides.forEach((slide, k) => slide.classList.toggle("shown", k === at));
  history.replaceState(null, "", "#" + (at + 1));
}
addEventListener("keydown", (event) => {
  if (["ArrowRight", "PageDown", " "].includes(event.key)) show(1);
  if (["ArrowLeft", "PageUp"].includes(event.key)) show(-1);
});
addEventListener("click", (event) => show(event.clientX < innerWidth / 3 ? -1 : 1));
show(0);
"""


def make_slides(lessons: Course, table: dict) -> str:
    """Return the slides of the talk as one HTML page without outside files."""
    body = "\n".join(make_slide(lessons, slide) for slide in table["slide"])
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    style = STYLE.read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>ferretlite in an hour</title>'
        f"<style>{style}</style></head>\n<body>\n{body}\n<script>{SCRIPT}</script></body></html>\n"
    )


def make_pages() -> dict[str, str]:
    """Return name -> text of all generated pages, and of the slides."""
    lessons, table = Course(), read_table()
    return {
        "goals.md": goals_page(lessons),
        "plans.md": plans_page(lessons, table),
        "misconceptions.md": misconceptions_page(lessons, table),
        "exam.md": exam_page(lessons, table),
        "slides.html": make_slides(lessons, table),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, text in make_pages().items():
        (out / name).write_text(text, encoding="utf-8")
    print(f"{out}: {', '.join(sorted(p.name for p in out.iterdir()))}")


if __name__ == "__main__":
    main()
