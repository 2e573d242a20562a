"""Exercises: from nbs/_exercises/LESSON.py to what ships and to the section of the lesson.

python tools/exercises.py                        write ferretlite/exercises/lessons/*.txt, and the
section "Exercises" of each lesson
python tools/exercises.py --matrix LESSON        try every exercise of a lesson: right answers pass,
wrong answers fail with their own message
python tools/exercises.py --solve DIR            write solved notebooks, for teachers
"""

import argparse
import contextlib
import itertools
import json
import re
import sys
import time
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import course  # noqa: E402

SOURCES = course.ROOT / "nbs" / "_exercises"
SHIPPED = course.ROOT / "ferretlite" / "exercises" / "lessons"
HEADING = "## Exercises"
MOST_RESEARCH = 2  # open questions of a lesson
MUTANTS = 3  # wrong solutions that each exercise needs at least
STUDENTS = 5  # for whom wrong answers are tried
MOST_SHARED = 0.02  # share of all pairs of students: the value of one is right for the other


def read_source(lesson: str):
    """Return the exercises of a lesson with their solutions."""
    from ferretlite.exercises.sources import parse_lesson

    return parse_lesson((SOURCES / f"{lesson}.py").read_text(encoding="utf-8"), lesson)


def list_sources() -> list[str]:
    return sorted(path.stem for path in SOURCES.glob("*.py"))


# ---- what is made from a source ----


def make_section(lesson) -> str:
    """Return the section "Exercises" of a lesson's notebook."""
    from ferretlite.exercises.sources import describe_difficulty

    count = {1: "One exercise is", 2: "Two exercises are", 3: "Three exercises are"}
    n = len(lesson.exercises)
    lines = [
        HEADING,
        "",
        f"{count.get(n, f'{n} exercises are')} checked. The command "
        f"`ferretlite exercises start {lesson.lesson} --student NAME` writes a notebook with "
        "numbers of your own. The notebook says what is wrong in an answer, and gives hints.",
        "",
        "| | exercise | kind | minutes | difficulty | practises |",
        "|---|---|---|---|---|---|",
    ]
    for e in lesson.exercises:
        cells = [str(e.number), e.title, e.kind, str(e.minutes), describe_difficulty(e)]
        lines.append(f"| {' | '.join([*cells, e.practises])} |")
    if lesson.research:
        lines += ["", "Research, without a check:", ""]
        for question in lesson.research:
            lines.append("- " + question.replace("\n", "\n  "))
    if lesson.quiz:
        lines += ["", f"Questions about the lesson: `ferretlite quiz {lesson.lesson}`."]
    return "\n".join(lines) + "\n"


def set_section(notebook: dict, text: str) -> None:
    """Replace the section in its cell: up to the next heading, or to the line with links."""
    for cell in notebook["cells"]:
        old = course.source(cell)
        if cell["cell_type"] == "markdown" and re.search(rf"^{HEADING}$", old, re.M):
            pattern = rf"^{HEADING}\n.*?(?=^\**Next\b|^## |\Z)"
            new = re.sub(pattern, lambda _: text + "\n", old, flags=re.M | re.S)
            cell["source"] = new.rstrip("\n").splitlines(keepends=True)
            return
    raise ValueError(f"found no cell with {HEADING}, expected one")


def write_shipped(name: str) -> None:
    """Write the source of a lesson without its solutions."""
    from ferretlite.exercises.sources import remove_solutions

    text = (SOURCES / f"{name}.py").read_text(encoding="utf-8")
    (SHIPPED / f"{name}.txt").write_text(remove_solutions(text), encoding="utf-8")


def write_all() -> None:
    """Write what ships, and the sections of the lessons."""
    lessons = {n.name: n for n in course.read_course()}
    SHIPPED.mkdir(parents=True, exist_ok=True)
    for old in set(SHIPPED.glob("*.txt")) - {SHIPPED / f"{n}.txt" for n in list_sources()}:
        old.unlink()
    for name in list_sources():
        write_shipped(name)
        notebook = course.read_notebook(lessons[name].path)
        set_section(notebook, make_section(read_source(name)))
        course.write_notebook(lessons[name].path, notebook)


def write_solved(folder: Path) -> None:
    """Write a solved notebook for each lesson."""
    from ferretlite.exercises.notebooks import make_student_notebook

    folder.mkdir(parents=True, exist_ok=True)
    for name in list_sources():
        lesson = read_source(name)
        answers = {e.name: e.solution for e in lesson.exercises}
        made = make_student_notebook(lesson, "solved", answers=answers)
        (folder / f"{name}-solved.ipynb").write_text(json.dumps(made, indent=1), encoding="utf-8")


# ---- the matrix ----


@dataclass
class Outcome:
    """What the matrix found for one exercise."""

    name: str
    failures: list = field(default_factory=list)  # sentences
    seconds: list = field(default_factory=list)  # processor time of each check of a right answer


def run_answer(lesson, exercise, code: str, student: str):
    """Return the answer that a cell defines in the notebook of a student."""
    from ferretlite.exercises import set_student

    set_student(student, "matrix")
    space = {"__name__": "hand-in"}
    exec("from ferretlite.exercises import check, get_inputs, hint", space)
    for text in (lesson.setup, exercise.given, code):
        exec(compile(text, f"<{exercise.name}>", "exec"), space)
    return space.get(exercise.answer)


def run_inputs(exercise, student: str) -> dict:
    """Return the inputs of a student."""
    from ferretlite.exercises import get_inputs, set_student

    set_student(student, "matrix")
    return get_inputs(exercise.name)


def list_mutants(exercise) -> list[tuple[str, str]]:
    """Return (part of the message, wrong solution). Raise ValueError for a change without place."""
    space = {}
    exec(exercise.mutants or "MUTANTS = []", space)
    found = []
    for message, old, new in space["MUTANTS"]:
        if exercise.solution.count(old) != 1:
            raise ValueError(f"{exercise.name}: the solution has {old!r} not once")
        found.append((message, exercise.solution.replace(old, new)))
    return found


def make_zeros(value):
    """Return zeros of the same form."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return torch.zeros_like(value)
    if isinstance(value, np.ndarray):
        return np.zeros_like(value)
    if isinstance(value, (list, tuple)):
        return type(value)(make_zeros(v) for v in value)
    if isinstance(value, dict):
        return {k: make_zeros(v) for k, v in value.items()}
    if is_dataclass(value):
        return replace(value, **{k: make_zeros(v) for k, v in vars(value).items()})
    return type(value)()


def record_calls(function, record: list):
    """Return the function; its results are also appended to the record."""

    def call(*args, **kwargs):
        record.append(function(*args, **kwargs))
        return record[-1]

    return call


def replay(record: list):
    """Return a function that gives the recorded results in order."""
    left = iter(record)
    return lambda *args, **kwargs: next(left, record[-1])


def make_wrong_answers(lesson, exercise, student: str, other: str) -> dict:
    """Return name -> answer that has to fail for a student."""
    from ferretlite.exercises.checks import judge

    wrong = {"None": None, "stub": run_answer(lesson, exercise, exercise.stub, student)}
    right = run_answer(lesson, exercise, exercise.solution, student)
    if exercise.kind != "code":
        inputs = run_answer(lesson, exercise, "", student)
        wrong |= {"zeros": make_zeros(right), "inputs": inputs}
        wrong["another student's"] = run_answer(lesson, exercise, exercise.solution, other)
        return wrong
    record = []
    judge(exercise, record_calls(right, record), lesson, other, "matrix")
    wrong["another student's"] = replay(record)
    wrong["unchanged input"] = lambda *args, **kwargs: args[0]
    wrong["zeros"] = lambda *args, **kwargs: make_zeros(right(*args, **kwargs))
    wrong["None for everything"] = lambda *args, **kwargs: None
    return wrong


def try_exercise(lesson, exercise, students: int = 50, others: int = STUDENTS) -> Outcome:
    """Return what is wrong with the check of an exercise, and its times."""
    from ferretlite.exercises.checks import judge

    found = Outcome(exercise.name)
    for number in range(students):
        student = f"student-{number}"
        answer = run_answer(lesson, exercise, exercise.solution, student)
        began = time.process_time()
        right, said = judge(exercise, answer, lesson, student, "matrix")
        found.seconds.append(time.process_time() - began)
        if not right:
            found.failures.append(f"the solution fails for {student}: {said}")
    messages = set()
    for number in range(others):
        student = f"student-{number}"
        wrong = make_wrong_answers(lesson, exercise, student, f"student-{number + 1}")
        for name, answer in wrong.items():
            if judge(exercise, answer, lesson, student, "matrix")[0]:
                found.failures.append(f"{name} passes for {student}")
        for message, code in list_mutants(exercise):
            answer = run_answer(lesson, exercise, code, student)
            right, said = judge(exercise, answer, lesson, student, "matrix")
            messages.add(message)
            if right or message not in said:
                found.failures.append(f"the mutant {message!r} for {student}: {said}")
    if len(messages) < MUTANTS:
        found.failures.append(f"found {len(messages)} mutants, expected at least {MUTANTS}")
    return found


def list_shared_answers(lesson, exercise, students: int = 20) -> list[tuple[int, int]]:
    """Return pairs (i, j): the value of student j also passes for student i."""
    from ferretlite.exercises.checks import WrongAnswer, make_check_space

    check = make_check_space(exercise, lesson)["check"]
    names = [f"student-{k}" for k in range(students)]
    inputs = [run_inputs(exercise, name) for name in names]
    answers = [run_answer(lesson, exercise, exercise.solution, name) for name in names]
    pairs = []
    for i, j in itertools.permutations(range(students), 2):
        with contextlib.suppress(WrongAnswer):
            check(answers[j], inputs[i])
            pairs.append((i, j))
    return pairs


def print_matrix(name: str, students: int) -> int:
    """Print what the matrix finds in a lesson. Return an exit code."""
    write_shipped(name)
    lesson, bad, began = read_source(name), 0, time.process_time()
    for exercise in lesson.exercises:
        found = try_exercise(lesson, exercise, students)
        seconds = sorted(found.seconds)
        mean, most = 1000 * sum(seconds) / students, 1000 * seconds[-1]
        times = f"a check takes {mean:.0f} ms on average, {most:.0f} ms at most"
        print(f"{found.name}: {len(found.failures)} failures; {times}")
        if exercise.kind != "code":
            shared = len(list_shared_answers(lesson, exercise)) / 380
            print(f"    {shared:.1%} of 380 pairs of students share a value")
            bad += shared > MOST_SHARED
        for text in found.failures[:12]:
            print(f"    {text}")
        bad += len(found.failures)
    print(f"{len(lesson.quiz)} quiz questions, {len(lesson.research)} research questions")
    print(f"{time.process_time() - began:.0f} s of processor time in all")
    return int(bad > 0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--matrix", metavar="LESSON", help="try every exercise of a lesson")
    parser.add_argument("--students", type=int, default=50, help="of the matrix")
    parser.add_argument("--solve", metavar="DIR", type=Path, help="write solved notebooks")
    options = parser.parse_args()
    if options.matrix:
        return print_matrix(options.matrix, options.students)
    if options.solve:
        write_solved(options.solve)
    else:
        write_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
