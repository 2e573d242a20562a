"""Stored answers of a model for exercises, so that checks load no model.

python tools/exercise_tables.py --n 160     write ferretlite/exercises/tables/shrunk.json (minutes)
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "ferretlite" / "exercises" / "tables"
SIDES = (384, 288, 192)  # of the image that the model sees
SEED = 5000  # of the first scene


def measure_ious(ferret, scenes: list, side: int) -> list[float]:
    """Return the IoU of the first answered box for a referring question about each scene."""
    from ferretlite.evaluation.suites import answer_questions, make_questions, take_first_box
    from ferretlite.regions.geometry import Box, box_iou

    questions = [q for i, s in enumerate(scenes) for q in make_questions(s, f"{SEED + i}", ["rec"])]
    scale = side / scenes[0].size[0]
    shown = [
        replace(q, scene=replace(q.scene, image=q.scene.image.resize((side, side))))
        for q in questions
    ]
    found = []
    for question, answer in zip(questions, answer_questions(ferret, shown, batch=16)):
        truth = Box(*(scale * v for v in question.turn.meta["box"].list()))
        box = take_first_box(answer)
        found.append(round(box_iou([truth], [box]).item(), 3) if box else 0.0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=160, help="scenes")
    options = parser.parse_args()
    from ferretlite.model.inference import Ferret
    from ferretlite.scenes.world import make_scene

    ferret = Ferret.load("tiny")
    scenes = [make_scene(SEED + i, 384, "val") for i in range(options.n)]
    columns = {}
    for side in SIDES:
        columns[str(side)] = measure_ious(ferret, scenes, side)
        print(side, sum(iou >= 0.5 for iou in columns[str(side)]), len(columns[str(side)]))
    made = f"IoU of tiny for one referring question about each of {options.n} val scenes from seed "
    made += f"{SEED}, by the side in pixels of the image that the model sees"
    TABLES.mkdir(parents=True, exist_ok=True)
    table = json.dumps(dict(made=made, columns=columns)) + "\n"
    (TABLES / "shrunk.json").write_text(table, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
