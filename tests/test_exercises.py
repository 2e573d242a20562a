"""Exercises: nothing wrong passes, and a folder of hand-ins gets the marks that it should get.

The default run tries one student. `pytest -m exercises` tries fifty."""

import ast
import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ferretlite.app import cli
from ferretlite.app.exercise_commands import format_marks
from ferretlite.common.errors import InputError
from ferretlite.exercises import get_inputs, grading, sandbox, set_student
from ferretlite.exercises.checks import WrongAnswer, expect, find_difference, judge
from ferretlite.exercises.notebooks import make_student_notebook
from ferretlite.exercises.sources import list_lessons, parse_lesson, read_lesson, remove_solutions
from ferretlite.regions.geometry import Box, Point
from ferretlite.regions.grammar import Grounding

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import course  # noqa: E402
import exercises  # noqa: E402

LESSONS = exercises.list_sources()
EXERCISES = [e for name in LESSONS for e in exercises.read_source(name).exercises]
every = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.name)
lessons = pytest.mark.parametrize("lesson", LESSONS)
MOST_SECONDS, MOST_ON_AVERAGE = 1.0, 0.1  # of processor time


# -- the sources


def test_what_ships_is_what_the_sources_say():
    """`python tools/exercises.py` was run."""
    assert list_lessons() == LESSONS
    for name in LESSONS:
        source = (ROOT / "nbs/_exercises" / f"{name}.py").read_text(encoding="utf-8")
        shipped = (ROOT / "ferretlite/exercises/lessons" / f"{name}.txt").read_text("utf-8")
        assert shipped == remove_solutions(source)


def test_every_lesson_of_the_core_road_has_exercises():
    assert {n.name for n in course.read_course() if n.road == "core"} == set(LESSONS)


@lessons
def test_no_solution_ships(lesson):
    shipped = read_lesson(lesson)
    for own, held in zip(exercises.read_source(lesson).exercises, shipped.exercises, strict=True):
        assert own.solution and own.mutants and not held.solution and not held.mutants
        lines = {line.strip() for line in own.solution.splitlines() if len(line.strip()) > 30}
        text = (ROOT / "ferretlite/exercises/lessons" / f"{lesson}.txt").read_text("utf-8")
        secret = lines - {line.strip() for line in own.stub.splitlines()}
        assert own.solution not in text
        assert sum(line in text for line in secret) <= len(secret) / 2


@lessons
def test_a_lesson_names_its_exercises(lesson):
    path = next(n.path for n in course.read_course() if n.name == lesson)
    text = "\n".join(course.source(c) for c in course.read_notebook(path)["cells"])
    assert exercises.make_section(exercises.read_source(lesson)).strip() in text


@lessons
def test_a_source_is_complete(lesson):
    held = exercises.read_source(lesson)
    assert len(held.exercises) in (2, 3) and len(held.research) <= exercises.MOST_RESEARCH
    assert all("good answer shows" in re.sub(r"\s+", " ", text) for text in held.research)
    assert len(held.quiz) == 5
    for exercise in held.exercises:
        assert len(exercise.hints) > 1 and exercise.stub and exercise.text
        assert 1 <= exercise.difficulty <= 3 and 5 <= exercise.minutes <= 60
    for question in held.quiz:
        assert 3 <= len(question.options) == len(set(question.options)) == len(question.reasons)


def test_the_right_option_has_no_usual_place():
    places = [q.right for name in LESSONS for q in exercises.read_source(name).quiz]
    assert max(places.count(k) for k in range(4)) < 0.5 * len(places)


@pytest.mark.parametrize(
    "text, said",
    [
        ("# %% riddle\n", "found 'riddle'"),
        ("# %% exercise\n# title: a\n# kind: code\n\n", "found the fields"),
        ("# %% quiz\n# one?\n# + a\n#   b\n# + c\n#   d\n", "found 2 right options"),
        ("# %% quiz\n# one?\n# + a\n# - c\n#   d\n", "a reason below every option"),
    ],
)
def test_a_source_with_a_fault_is_named(text, said):
    with pytest.raises(InputError, match=re.escape(said)):
        parse_lesson(text, "toy")


# -- nothing wrong passes


@every
def test_one_student(exercise):
    found = exercises.try_exercise(exercises.read_source(exercise.lesson), exercise, 1, 1)
    assert not found.failures
    assert max(found.seconds) < MOST_SECONDS


@pytest.mark.exercises
@every
def test_fifty_students(exercise):
    found = exercises.try_exercise(exercises.read_source(exercise.lesson), exercise)
    assert not found.failures
    assert np.mean(found.seconds) < MOST_ON_AVERAGE
    assert max(found.seconds) < MOST_SECONDS


@pytest.mark.exercises
@every
def test_few_students_share_a_value(exercise):
    """Numbers are rounded and words are few, so a value may be right for another student."""
    if exercise.kind != "code":
        lesson = exercises.read_source(exercise.lesson)
        shared = exercises.list_shared_answers(lesson, exercise, 20)
        assert len(shared) <= exercises.MOST_SHARED * 20 * 19, shared


def test_the_matrix_notices_a_check_that_passes_everything():
    lesson = exercises.read_source("sampler")
    exercise = lesson.exercises[0]
    exercise.check = (
        "def make_inputs(rng):\n    return {}\n\n\ndef check(answer, inputs):\n    pass"
    )
    failures = exercises.try_exercise(lesson, exercise, 1, 1).failures
    named = "\n".join(failures)
    for wrong in ("stub", "unchanged input", "zeros", "another student's", "mutant"):
        assert wrong in named


def test_the_matrix_notices_a_check_that_passes_nothing():
    lesson = exercises.read_source("sampler")
    lesson.exercises[0].check = lesson.exercises[0].check.replace(
        "def check(answer, inputs):", "def check(answer, inputs):\n    raise WrongAnswer('no')"
    )
    failures = exercises.try_exercise(lesson, lesson.exercises[0], 1, 1).failures
    assert any("the solution fails" in text for text in failures)


# -- comparing


@pytest.mark.parametrize(
    "found, expected",
    [
        (float("nan"), 1.0),
        (None, 0.0),
        (True, 1),
        (1, True),
        ("1", 1),
        ([1, 2], (1, 2, 3)),
        (torch.zeros(3), torch.zeros(1, 3)),
        (torch.tensor([float("inf")]), torch.tensor([1.0])),
        (np.array(["a"]), np.array([1.0])),
        (torch.ones(2) * 1j, torch.ones(2)),
        (Box(0, 0, 1, 2), Box(0, 0, 1, 1)),
        (Point(0, 0), Box(0, 0, 0, 0)),
        ([0, 0, 1, 1], Box(0, 0, 1, 1)),
        (object(), [1]),
        ("yes", ["yes"]),
        ({}, 0.0),
    ],
)
def test_what_differs_differs(found, expected):
    assert find_difference(found, expected)
    with pytest.raises(WrongAnswer):
        expect(found, expected, "here")


def test_secret_values_stay_secret():
    with pytest.raises(WrongAnswer) as told:
        expect((1.0, 2.0), (3.25, 4.5), "here", secret=True)
    assert "3.25" not in str(told.value) and "4.5" not in str(told.value)


@every
def test_messages_about_values_do_not_name_the_right_value(exercise):
    if exercise.kind == "code":
        return
    lesson = exercises.read_source(exercise.lesson)
    right = exercises.run_answer(lesson, exercise, exercise.solution, "student-0")
    other = exercises.run_answer(lesson, exercise, exercise.solution, "student-1")
    said = judge(exercise, other, lesson, "student-0", "matrix")[1]
    numbers = [v for v in (right if isinstance(right, tuple) else [right]) if type(v) is not str]
    own = [f"{float(v):.4g}" for v in numbers if abs(v) > 1e-6]
    assert not [text for text in own if text in said and len(text) > 3]


# -- values between processes

VALUES = [None, True, 3, -0.0, float("inf"), "a\u2028b", (1, [2.5, {"a": (None,)}]), {1: 2}]
VALUES += [Box(1, 2, 3, 4), Point(0.5, 1), Grounding("dog", [Box(0, 0, 1, 1)], [0.25])]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_values_travel(value):
    back = sandbox.unpack_value(json.loads(json.dumps(sandbox.pack_value(value))))
    assert back == value and type(back) is type(value)


def test_tensors_travel():
    for value in (torch.arange(6).reshape(2, 3), torch.rand(2, 0), torch.tensor(True)):
        back = sandbox.unpack_value(json.loads(json.dumps(sandbox.pack_value(value))))
        assert torch.equal(back, value) and back.dtype == value.dtype


@pytest.mark.parametrize(
    "packed",
    [{"os.system": 1}, {"array": ["O", [1], ""]}, {"array": ["<f4", [9], ""]}, {"float": "x"}, {}],
)
def test_no_other_value_arrives(packed):
    with pytest.raises(WrongAnswer):
        grading.open_reply({"value": packed})


# -- thirty-seven hand-ins

RIGHT = {e.name: e.solution for e in exercises.read_source("sampler").exercises}
FIRST = RIGHT["sampler.1"]
HOSTILE = {  # instead of the answer to sampler.1
    "loop": "while True:\n    pass",
    "exit": "raise SystemExit(0)",
    "hard": "import os\nos._exit(0)",
    "fork": "import os\nwhile True:\n    os.fork()",
    "shell": "import os\nos.system('touch SPOT')",
    "write": "open('SPOT', 'w').write('here')",
    "chdir": "import os\nfrom ferretlite.exercises.sources import parse_lesson\n"
    "os.chdir('SOLUTIONS')\ntext = open('sampler.py').read()\n"
    "exec(parse_lesson(text, 'sampler').exercises[0].solution)",
    "peek": "import os\nfrom ferretlite.exercises.sources import parse_lesson\n"
    "place = os.open('SOLUTIONS', os.O_RDONLY)\n"
    "text = os.fdopen(os.open('sampler.py', os.O_RDONLY, dir_fd=place)).read()\n"
    "exec(parse_lesson(text, 'sampler').exercises[0].solution)",
    "remove": "import shutil\nshutil.rmtree('FOLDER')",
    "spy": "import glob\nprint(open(glob.glob('FOLDER/*')[0]).read())",
    "kill": "import os\nos.kill(os.getppid(), 9)",
    "memory": "x = bytearray(60_000_000_000)",
    "flood": "while True:\n    print('x' * 100_000)",
    "forge": "import ferretlite.exercises.checks as c\nc.judge = lambda *a, **k: (True, 'right')",
    "object": "class Anything:\n    def __eq__(self, other):\n        return True\n"
    "spread_values = Anything()",
    "liar": "class Yes(float):\n    pass\ndef spread_values(*a):\n    return Yes(1)",
    "deep": "def spread_values(*a):\n    x = []\n    for _ in range(10**5):\n        x = [x]\n"
    "    return x",
}
SLOW = FIRST.replace("    h, w = size", "    while True:\n        pass", 1)
RENAMED = FIRST.replace("cells", "table").replace("weight", "share").replace("left", "west")
RENAMED = "# my own idea\n" + RENAMED


def write_hand_ins(folder: Path) -> dict:
    """Write hand-ins for two lessons. Return student -> exercises that are right."""
    lesson, expected = exercises.read_source("sampler"), {}

    def write(student, answers, right, suffix=".ipynb", owner=None, own_folder=False):
        made = make_student_notebook(lesson, owner or student, "2027", answers)
        path = folder / f"{lesson.lesson}-{student}{suffix}"
        if own_folder:
            path = folder / student / f"{lesson.lesson}{suffix}"
            path.parent.mkdir()
        if suffix == ".py":
            code = ["".join(c["source"]) for c in made["cells"] if c["cell_type"] == "code"]
            path.write_text("\n# %%\n".join(code), encoding="utf-8")
        else:
            path.write_text(json.dumps(made), encoding="utf-8")
        expected[student] = right

    for student in ("ada", "bob"):  # equal trees: the solution of the repository
        write(student, RIGHT, [1, 2, 3])
    write("script", RIGHT, [1, 2, 3], ".py")
    write("renamed", {**RIGHT, "sampler.1": RENAMED}, [1, 2, 3])
    write("broken", {**RIGHT, "sampler.2": "def pick_spread_points(:"}, [1, 3])
    for k, (_, code) in enumerate(exercises.list_mutants(lesson.exercises[0])[:4]):
        write(f"wrong{k}", {**RIGHT, "sampler.1": code}, [2, 3])
    write("empty", {}, [])
    write("none", {name: "" for name in RIGHT}, [])
    write("twin", {"sampler.3": RIGHT["sampler.3"]}, [], owner="ada")
    expected["twin"] = [3]  # the formula is right for the own numbers
    write("borrowed", {"sampler.3": "read_at = (1.0, 2.0)"}, [])
    write("slow", {**RIGHT, "sampler.1": SLOW}, [2, 3])
    for name, code in HOSTILE.items():
        code = code.replace("SPOT", str(folder.parent / "spot")).replace("FOLDER", str(folder))
        code = code.replace("SOLUTIONS", str(exercises.SOURCES))
        right = [] if name == "hard" else [2, 3]
        write(name, {**RIGHT, "sampler.1": code}, right)
    (folder / "sampler-torn.ipynb").write_text('{"cells": [', encoding="utf-8")
    lesson = exercises.read_source("metrics")  # with a number and a verdict
    solved = {e.name: e.solution for e in lesson.exercises}
    word = "verdict = (word, "
    swapped = "verdict = ({'better': 'worse'}.get(word, 'better'), "
    write("m-right", solved, [1, 2, 3])
    write("m-folder", solved, [1, 2, 3], ".py", own_folder=True)
    write("m-other", solved, [1, 2, 3], own_folder=True, owner="m-right")
    write("m-word", {**solved, "metrics.3": solved["metrics.3"].replace(word, swapped)}, [1, 2])
    write("m-guess", {"metrics.3": "verdict = ('better', 0.7, 0.6)"}, [])
    return expected | {"torn": []}


def test_a_class_of_hand_ins_gets_the_marks_that_it_should_get(tmp_path, capsys):
    folder = tmp_path / "hand-ins"
    folder.mkdir()
    expected = write_hand_ins(folder)
    assert len(expected) == 37
    before = {p: p.read_bytes() for p in folder.rglob("*.*") if p.is_file()}
    limits = sandbox.Limits(seconds=40, cell_seconds=1.5)
    marks, copies, readers = grading.grade_folder(folder, "2027", limits)
    found = {student: [] for student in expected}
    for mark in marks:
        if mark.right:
            found[mark.student].append(int(mark.exercise.rpartition(".")[2]))
    assert found == expected, format_marks(marks)
    assert not (tmp_path / "spot").exists()
    assert {p: p.read_bytes() for p in folder.rglob("*.*") if p.is_file()} == before
    assert sorted(readers) == [("sampler", name) for name in ("chdir", "forge", "peek")]
    first = next(students for name, students in copies if name == "sampler.1")
    assert {"ada", "bob", "script", "renamed"} <= set(first)
    assert not set(first) & {"wrong0", "empty", "twin"}


@pytest.mark.parametrize(
    "name, course, said",
    [("ada", "2027", ""), ("ada-Copy1", "2027", "'ada-Copy1'"), ("ada", "", "course ''")],
)
def test_a_message_says_for_whom_a_number_was_computed(name, course, said):
    """A forgotten course or a renamed file makes a right number wrong."""
    lesson = exercises.read_source("sampler")
    set_student("ada", "2027")
    space = dict(inputs=get_inputs("sampler.3"))
    exec(RIGHT["sampler.3"], space)
    code = f"read_at = {tuple(float(v) for v in space['read_at'])}"
    cells = ["set_student('ada', course='2027')", code]
    mark = grading.grade_hand_in(cells, lesson, name, course)[2]
    assert mark.right == (not said)
    owner = "the notebook was made for student 'ada' and course '2027'"
    assert not said or (owner in mark.message and said in mark.message)


def test_an_answer_that_is_taken_from_a_check_is_listed(tmp_path):
    """The package holds the checks, so such an answer is right. The grader lists the hand-in."""
    code = (
        "from ferretlite.exercises import checks as c\n"
        "held = c.find_exercise('which_one.1')\n"
        "measure_listening = c.make_check_space(held, c.read_lesson('which_one'))['measure']\n"
    )
    (tmp_path / "which_one-eve.py").write_text(code, encoding="utf-8")
    marks, _, readers = grading.grade_folder(tmp_path)
    assert marks[0].right and readers == [("which_one", "eve")]


def test_half_a_line_does_not_stop_the_grader():
    code = (
        "import os\nfor fd in range(3, 30):\n    try:\n        os.write(fd, b'{')\n"
        "    except OSError:\n        pass\nimport time\ntime.sleep(60)"
    )
    lesson = read_lesson("sampler")
    marks = grading.grade_hand_in([code], lesson, "eve", limits=sandbox.Limits(3, 60))
    assert [m.right for m in marks] == [False] * 3
    assert "stopped after 3 seconds" in marks[0].message


def test_the_first_prediction_stays_visible(capsys):
    """A prediction that was changed after a run is printed beside the first one."""
    from ferretlite.exercises import check

    for value in ((1.25, 2.0), (3.0, 4.0)):
        check("fusion.3", value)
        assert "first prediction of this session: (1.25, 2.0)" in capsys.readouterr().out


def test_remembered_results_fail():
    """A function that returns what was right for the inputs of the notebook."""
    lesson = exercises.read_source("sampler")
    exercise, record = lesson.exercises[0], []
    right = exercises.run_answer(lesson, exercise, exercise.solution, "eve")
    judge(exercise, exercises.record_calls(right, record), lesson, "eve", "2027")
    values = [r.tolist() for r in record]
    code = f"import torch\nleft = iter({values!r} * 3)\ndef spread_values(*a):\n"
    code += "    return torch.tensor(next(left))"
    marks = grading.grade_hand_in([code], lesson, "eve", "2027")
    assert not marks[0].right
    assert judge(exercise, exercises.replay(record), lesson, "eve", "2027")[0]


# -- the commands


def test_from_start_to_marks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main("exercises start sampler --student s1 --course 2027".split()) == 0
    path = tmp_path / "sampler-s1.ipynb"
    text = path.read_text(encoding="utf-8")
    capsys.readouterr()
    assert cli.main("exercises status".split()) == 0
    states = re.findall(r"^sampler\.\d .* (no answer)$", capsys.readouterr().out, re.M)
    assert len(states) == 3  # a stub is no wrong answer
    assert cli.main("exercises start sampler --student s1".split()) == 2
    assert path.read_text(encoding="utf-8") == text  # answers are never written over
    assert cli.main("exercises check sampler".split()) == 1
    assert "0 of 3 are right" in capsys.readouterr().out
    made = make_student_notebook(read_lesson("sampler"), "s1", "2027", RIGHT)
    path.write_text(json.dumps(made), encoding="utf-8")
    assert cli.main("exercises check sampler".split()) == 0
    assert cli.main(["exercises", "check", str(path)]) == 0
    assert cli.main("exercises grade . --course 2027 --csv marks.csv".split()) == 0
    with open("marks.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["mark"] for row in rows] == ["1", "1", "1"]
    assert cli.main("exercises grade nowhere".split()) == 2
    assert "expected a folder" in capsys.readouterr().err


def test_the_commands_of_the_page_for_teachers_can_be_typed(tmp_path, monkeypatch, capsys):
    page = (ROOT / "tools/site/teachers.md").read_text(encoding="utf-8")
    lines = re.findall(r"^ferretlite (exercises .+)$", page, re.M)
    assert [line.split()[1] for line in lines] == ["start", "check", "grade", "bundle"]
    monkeypatch.chdir(tmp_path)
    codes, bundles = [], []

    def write_bundle(clone, out, systems, python):
        bundles.append((systems, python))
        return Path(__file__)

    monkeypatch.setattr("ferretlite.app.bundling.write_bundle", write_bundle)
    for line in [*lines, "exercises bundle class.zip"]:
        if "grade" in line:
            Path("hand-ins").mkdir()
            Path("sampler-s1234.ipynb").rename("hand-ins/sampler-s1234.ipynb")
        codes.append(cli.main(line.split()))
    assert codes == [0, 1, 0, 0, 0]  # nothing is right in an empty hand-in
    assert bundles == [(("windows", "mac"), "3.12"), ((), "")]
    with open("marks.csv", encoding="utf-8", newline="") as file:
        assert [row["mark"] for row in csv.DictReader(file)] == ["0", "0", "0"]


@pytest.mark.parametrize("name", ["anna-maria", "s_1.2", "Jürgen"])
def test_a_name_becomes_a_part_of_a_file_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["exercises", "start", "papers", "--student", name]) == 0
    assert [p.name for p in tmp_path.iterdir()] == [f"papers-{name}.ipynb"]
    for wrong in ("../" + name, "." + name, "a b", ""):
        assert cli.main(["exercises", "start", "papers", "--student", wrong]) == 2


def test_a_quiz_is_asked(monkeypatch, capsys):
    import io

    letters = "".join(f"{'abcd'[q.right]}\n" for q in read_lesson("sampler").quiz)
    monkeypatch.setattr("sys.stdin", io.StringIO(letters))
    assert cli.main(["quiz", "sampler"]) == 0
    assert "5 of 5 are right" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert cli.main(["quiz", "sampler"]) == 2
    assert cli.main(["quiz", "cooking"]) == 2


def test_solved_notebooks_are_notebooks(tmp_path):
    exercises.write_solved(tmp_path)
    made = sorted(p.stem for p in tmp_path.glob("*.ipynb"))
    assert made == [f"{name}-solved" for name in LESSONS]
    for cells in map(grading.read_hand_in, sorted(tmp_path.glob("*.ipynb"))):
        for cell in cells:
            ast.parse(cell)
