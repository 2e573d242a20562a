"""For teachers: goals, plans, slides and misconceptions name what exists, and times add up."""

import re
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import teaching  # noqa: E402


@cache
def lessons() -> teaching.Course:
    return teaching.Course()


@cache
def table() -> dict:
    return teaching.read_table()


@cache
def pages() -> dict:
    return teaching.make_pages()


def rows_of(text: str, title: str) -> list[list[str]]:
    """The rows of the table under a heading, without its head."""
    section = text[text.index(f"## {title}\n") :].split("\n## ")[0]
    lines = [line for line in section.split("\n") if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[2:]]


def count_minutes(shown: str) -> int:
    hours, minutes = re.fullmatch(r"(?:(\d+) h )?(\d+) min", shown).groups()
    return 60 * int(hours or 0) + int(minutes)


# -- by hand


def test_anchors_by_hand():
    assert teaching.slug("Which layer is the map?") == "which-layer-is-the-map"
    assert teaching.slug("`Ferret`") == "ferret"
    assert teaching.slug("Ferret-v2: the claims") == "ferret-v2-the-claims"


def test_minutes_by_hand():
    assert teaching.show_minutes(59) == "59 min"
    assert teaching.show_minutes(125) == "2 h 05 min"
    assert count_minutes("2 h 05 min") == 125


# -- goals


def test_every_lesson_has_goals_and_every_goal_a_lesson():
    assert set(lessons().goals) == set(lessons().order)
    for name, goals in lessons().goals.items():
        assert goals and all(goal and goal[0].islower() for goal in goals), name


def test_core_lessons_have_two_goals():
    few = [
        n for n, x in lessons().lessons.items() if x.road == "core" and len(lessons().goals[n]) < 2
    ]
    assert not few


def test_prerequisites_are_earlier_and_found_in_imports_and_links():
    order = lessons().order
    for name in order:
        for needed in lessons().prerequisites(name):
            assert order.index(needed) < order.index(name)
    assert "encoders" in lessons().prerequisites("fusion") + lessons().prerequisites("features")
    assert "scenes" in lessons().prerequisites("attention")  # imported
    assert "first_light" in lessons().prerequisites("architecture") + lessons().prerequisites(
        "attention"
    )  # linked


def test_the_page_of_goals_lists_every_lesson_once():
    links = re.findall(r"^\| \**\[.*?\]\(\S*/(\w+)\.ipynb\)", pages()["goals.md"], re.M)
    assert links == lessons().order


# -- plans


def test_the_six_weeks_are_the_core_road_in_order():
    weeks = next(plan for plan in table()["plan"] if plan["title"] == "Six weeks")
    assert len(weeks["session"]) == 6
    core = [n for n, x in lessons().lessons.items() if x.road == "core"]
    assert [n for session in weeks["session"] for n in session["lessons"]] == core


@pytest.mark.parametrize("plan", table()["plan"], ids=lambda plan: plan["title"])
def test_times_add_up(plan):
    rows, whole = rows_of(pages()["plans.md"], plan["title"]), 0
    assert len(rows) == len(plan["session"])
    for row, session in zip(rows, plan["session"]):
        read, run, done = map(int, row[3:6])
        assert read == sum(lessons().reading(n) for n in session["lessons"])
        assert read + run + done == count_minutes(row[6])
        whole += count_minutes(row[6])
    section = pages()["plans.md"].split(f"## {plan['title']}\n")[1]
    assert count_minutes(re.search(r"Together: (.+?)\.\n", section)[1]) == whole
    assert whole <= plan.get("limit", whole)


def test_an_afternoon_is_three_notebooks_in_four_hours():
    plan = next(plan for plan in table()["plan"] if plan["title"] == "An afternoon")
    assert sum(len(session["lessons"]) for session in plan["session"]) == 3
    assert plan["limit"] <= 240


def test_a_plan_over_its_limit_is_refused():
    plan = dict(table()["plan"][1], limit=10)
    with pytest.raises(ValueError, match="An afternoon: found .* minutes, at most 10"):
        teaching.plans_page(lessons(), table() | {"plan": [plan]})


def test_a_plan_with_an_unknown_lesson_is_refused(tmp_path, monkeypatch):
    text = teaching.TABLE.read_text(encoding="utf-8").replace('"first_light"', '"last_light"')
    monkeypatch.setattr(teaching, "TABLE", tmp_path / "teaching.toml")
    teaching.TABLE.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="last_light is no lesson"):
        teaching.read_table()


# -- slides


class _Slides(HTMLParser):
    """Counts slides, pictures and sentences."""

    def __init__(self):
        super().__init__()
        self.tags = []
        self.outside = []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        held = dict(attributes)
        self.outside += [v for k, v in held.items() if k in ("src", "href") and v[:5] != "data:"]
        assert tag != "img" or len(held["alt"]) > 10


def test_the_talk_lasts_an_hour():
    assert sum(slide["minutes"] for slide in table()["slide"]) == 60


def test_slides_need_no_other_file_and_every_lesson_slide_has_a_picture():
    parser = _Slides()
    parser.feed(pages()["slides.html"])
    with_lesson = [slide for slide in table()["slide"] if "lesson" in slide]
    assert parser.tags.count("section") == len(table()["slide"])
    assert parser.tags.count("img") == len(with_lesson) > 15
    assert parser.tags.count("li") >= len(with_lesson)
    assert not parser.outside


def test_a_sentence_of_a_slide_stands_in_its_notebook():
    slide = next(slide for slide in table()["slide"] if slide.get("points"))
    points = teaching.summary_points(lessons().notebooks[slide["lesson"]])
    text = re.sub(r"[*`]", "", points[slide["points"][0]])
    assert text[:40] in re.sub(r"<[^>]+>", "", pages()["slides.html"])


def test_a_slide_of_a_missing_cell_or_point_is_refused():
    slide = next(slide for slide in table()["slide"] if slide.get("points"))
    with pytest.raises(ValueError, match="has no cell 00000000"):
        teaching.make_slide(lessons(), slide | {"cell": "00000000"})
    with pytest.raises(ValueError, match="has no point 99"):
        teaching.make_slide(lessons(), slide | {"points": [99]})


# -- misconceptions and exam


@pytest.mark.parametrize("row", table()["misconception"], ids=lambda row: row["wrong"][:40])
def test_a_misconception_has_a_cell_that_cures_it(row):
    lessons().cell(row["lesson"], row["cell"])
    assert row["wrong"][-1] == "." and len(row["right"]) > 20


def test_exam_questions_have_answers_and_numbers_are_right():
    assert len(table()["exam"]) >= 12
    answers = " ".join(row["answer"] for row in table()["exam"])
    computed = {
        "2880": 5 * (336 // 14) ** 2,
        "123.2": (int(1000 * 123 / 640) + 0.5) / 1000 * 640,
        "6.7": 100 * 1.96 * (0.62 * 0.38 / 200) ** 0.5,
        "1369": ((1022 // 14 + 2 - 3) // 2 + 1) ** 2,
        "0.183": 5.5 / 30,
    }
    for shown, number in computed.items():
        assert shown in answers
        assert float(shown) == round(number, len(shown.partition(".")[2]))
    low, high = (1.2 + sign * 1.96 * (100 - 12**2 / 1000) ** 0.5 / 10 for sign in (-1, 1))
    assert (round(low, 1), round(high, 1)) == (-0.8, 3.2) and "−0.8 to 3.2" in answers


def test_the_page_for_teachers_links_to_every_made_page():
    text = (ROOT / "tools/site/teachers.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\(teachers/([\w.]+)\)", text))
    assert linked == {name for name in pages() if name.endswith(".md")}
    assert "](slides.html)" in pages()["plans.md"]
