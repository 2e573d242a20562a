"""Train `tiny` on its own answers and measure what that changes.

    python tools/own_answers.py --seeds 1 2

The lesson nbs/7_training/own_answers.ipynb explains the training. Each random seed adds a run to
the record nbs/records/own_answers.json, with the scores of the same questions before and after.
A stopped command goes on where it was. One quiet core needs about four minutes for a seed."""

import argparse
import copy
import json
import time
from pathlib import Path

import torch

from ferretlite.common.devices import set_training_dtype
from ferretlite.common.files import write_json
from ferretlite.evaluation.metrics import find_size_class
from ferretlite.model.inference import Ferret
from ferretlite.pretraining.loop import run_training_loop
from ferretlite.regions.choices import normalise_name
from ferretlite.regions.geometry import box_iou
from ferretlite.regions.grammar import parse_groundings
from ferretlite.training.own_answers import (
    OwnAnswers,
    draw_questions,
    encode_questions,
    match_overlaps,
    sample_answers,
)

RECORD = Path(__file__).parent.parent / "nbs" / "records" / "own_answers.json"
SETTINGS = dict(steps=40, questions=12, answers=8, lr=2e-4, beta=0.04)
N = dict(rec=300, absent=60, name=100, dense_detection=40)  # test questions of each task
FIRST_TRAIN, FIRST_TEST = 50_000_000, 9_000_000  # seeds of scenes
BATCH = 20


def read_boxes(text: str, size: tuple) -> list:
    return [box for g in parse_groundings(text, size) for box in g.boxes]


def measure_overlap(text: str, truth: list, size: tuple) -> float:
    "Return the IoU of the first box with the only true one; 0 without a box."
    boxes = read_boxes(text, size)[:1]
    return round(box_iou(truth, boxes).item(), 4) if boxes else 0.0


class Exam:
    "Questions of one task, encoded once."

    def __init__(self, ferret: Ferret, task: str, n: int):
        self.asked = draw_questions(n, FIRST_TEST, "test", {task: 1})
        self.batches = []
        for k in range(0, n, BATCH):
            asked = self.asked[k : k + BATCH]
            batch, maps = encode_questions(ferret.model, ferret.processor, asked)
            batch = {k: v for k, v in batch.items() if not k.endswith("pixels")}  # maps are enough
            self.batches.append((batch, maps))

    def answer(self, learner: OwnAnswers) -> list:  # of (greedy text, 8 sampled texts)
        "Return the likeliest answer and eight sampled ones to each question."
        found = []
        for k, encoded in enumerate(self.batches):
            generator = torch.Generator().manual_seed(k)
            greedy = sample_answers(learner.model, *encoded, 1, learner.end)
            sampled = sample_answers(learner.model, *encoded, 8, learner.end, generator)
            for (one,), many in zip(greedy.tolist(), sampled.tolist()):
                found.append((learner.read(one), [learner.read(ids) for ids in many]))
        return found


def score_referring(learner: OwnAnswers, exam: Exam) -> dict:
    "Return the IoU of greedy and sampled answers, and whether the greedy name is right."
    rows = dict(iou=[], sampled=[], named=[])
    for (scene, turn), (text, texts) in zip(exam.asked, exam.answer(learner)):
        truth = [turn.meta["box"]]
        rows["iou"].append(measure_overlap(text, truth, scene.size))
        rows["sampled"].append([measure_overlap(t, truth, scene.size) for t in texts])
        names = [normalise_name(g.name) for g in parse_groundings(text, scene.size)[:1]]
        rows["named"].append(names == [scene.objects[turn.meta["object"]].phrase])
    return rows


def score_absence(learner: OwnAnswers, exam: Exam) -> dict:
    "Return whether the greedy answer denies the object, and how many of eight samples do."
    rows = dict(present=[], denied=[], sampled=[])
    for (scene, turn), (text, texts) in zip(exam.asked, exam.answer(learner)):
        rows["present"].append(bool(turn.meta["present"]))
        rows["denied"].append(not read_boxes(text, scene.size))
        rows["sampled"].append(sum(not read_boxes(t, scene.size) for t in texts))
    return rows


def score_others(ferret: Ferret, asked: dict) -> dict:
    "Return whether names are right, and how well lists match the objects."
    answers = {
        task: ferret.ask(
            [s.image for s, _ in rows],
            [t.prompt for _, t in rows],
            [t.regions for _, t in rows],
            max_new_tokens=448 if task == "dense_detection" else 32,
            batch=BATCH,
        )
        for task, rows in asked.items()
    }
    truth = [normalise_name(t.meta["phrase"]) for _, t in asked["name"]]
    names = [normalise_name(a.text) == t for a, t in zip(answers["name"], truth)]
    lists = []
    for (scene, _), answer in zip(asked["dense_detection"], answers["dense_detection"]):
        boxes, objects = [b for g in answer.groundings for b in g.boxes], scene.objects
        overlaps = box_iou([o.box for o in objects], boxes) if boxes else torch.zeros(1, 1)
        lists.append([len(objects), len(boxes), round(match_overlaps(overlaps), 4)])
    return dict(name=names, lists=lists)


def measure(ferret: Ferret, learner: OwnAnswers, exams: dict, others: dict) -> dict:
    began = time.process_time()
    found = dict(rec=score_referring(learner, exams["rec"]))
    found |= dict(absent=score_absence(learner, exams["absent"])) | score_others(ferret, others)
    return found | dict(seconds=round(time.process_time() - began))


def train(learner: OwnAnswers, seed: int, out: Path) -> list:  # of dict, one for each step
    "Train the language model on its own answers; a stopped run goes on."
    log, kept = out / "steps.jsonl", ("questions", "answers", "beta")

    def note(row: dict):
        row |= dict(seconds=round(time.process_time(), 2))
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def draw(first: int):
        for step in range(first, SETTINGS["steps"]):
            place = FIRST_TRAIN + seed * 1_000_000 + step * 100
            yield dict(step=step, asked=draw_questions(SETTINGS["questions"], place))

    learner.on_step = note
    run_training_loop(
        learner.model.language_model,
        learner,
        draw,
        out,
        steps=SETTINGS["steps"],
        lr=SETTINGS["lr"],
        weight_decay=0.0,
        resume=True,
        every=5,
        settings={k: SETTINGS[k] for k in kept} | dict(seed=seed),
    )
    learner.model.eval()
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return list({row["step"]: row for row in rows}.values())  # the last row of a repeated step


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--out", type=Path, default=Path("runs/own_answers"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    set_training_dtype("float32")
    ferret, how = Ferret.load(args.model, "cpu"), dict(n=SETTINGS["answers"], beta=SETTINGS["beta"])
    start = copy.deepcopy(ferret.model.language_model.state_dict())
    exams = {task: Exam(ferret, task, N[task]) for task in ("rec", "absent")}
    tasks = "name", "dense_detection"
    others = {task: draw_questions(N[task], FIRST_TEST, "test", {task: 1}) for task in tasks}
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if record.get("asked") != dict(model=args.model, n=N):
        record = dict(asked=dict(model=args.model, n=N), runs=[])
    if "before" not in record:
        learner = OwnAnswers(ferret.model, ferret.processor)
        sizes = [find_size_class(t.meta["box"], s.size) for s, t in exams["rec"].asked]
        record["before"] = dict(sizes=sizes) | measure(ferret, learner, exams, others)
        write_json(RECORD, record)
    for seed in args.seeds:
        ferret.model.language_model.load_state_dict(start)
        learner = OwnAnswers(ferret.model, ferret.processor, seed=seed, **how)
        run = dict(seed=seed, settings=SETTINGS)
        run["steps"] = train(learner, seed, args.out / f"seed-{seed}")
        run["after"] = measure(ferret, learner, exams, others)
        record["runs"] = [r for r in record["runs"] if r["seed"] != seed] + [run]
        write_json(RECORD, record)


if __name__ == "__main__":
    main()
