"""Measure what a second look gives and costs: `python tools/looking_closer.py [--seed 7]`.

The shipped `tiny` answers each question with one look and with a closer look (lesson
nbs/4_model/looking_closer.ipynb). The record nbs/records/looking_closer.json holds both scores,
their paired difference and its 95 % interval, and the processor time of both looks over that of
the first. One core needs about five minutes."""

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch

from ferretlite.common.files import write_json
from ferretlite.evaluation import detection
from ferretlite.evaluation.metrics import find_size_class, is_right, match_phrases, merge_boxes
from ferretlite.evaluation.statistics import compute_wilson_interval
from ferretlite.evaluation.suites import _read_kind
from ferretlite.model import closer
from ferretlite.model.answers import GroundingList
from ferretlite.model.inference import Ferret
from ferretlite.regions.choices import normalise_name, read_count
from ferretlite.regions.geometry import box_iou
from ferretlite.scenes.tasks import TASKS
from ferretlite.scenes.world import make_scene

RECORD = Path(__file__).parent.parent / "nbs" / "records" / "looking_closer.json"
SIDE, SLICES = 384, 2


def pose(seed: int, task: str, n: int, split: str = "test", wanted=lambda turn: True) -> list:
    "Return n questions of one task: (scene, turn)."
    found, i = [], 0
    while len(found) < n:
        scene = make_scene(seed * 1_000_000 + i, SIDE, split)
        turn = TASKS[task](scene, random.Random(f"{seed} {split} {i} {task}"), 0)
        found += [(scene, turn)] if turn and wanted(turn) else []
        i += 1
    return found


def timed(function, *args, **options) -> tuple:  # (result, seconds of the processor)
    began = time.process_time()
    return function(*args, **options), time.process_time() - began


def ask_first(ferret, asked, limit: int) -> tuple:  # (answers, seconds)
    images, turns = [s.image for s, _ in asked], [t for _, t in asked]
    prompts, regions = [t.prompt for t in turns], [t.regions for t in turns]
    return timed(ferret.ask, images, prompts, regions, max_new_tokens=limit, batch=25)


class Record:
    "Collects a row for each task."

    def __init__(self, seed: int):
        self.rng, self.tasks = np.random.default_rng(seed), {}

    def interval(self, values) -> list:
        "Return the 95 % bootstrap interval of a mean."
        values = np.asarray(values, float)
        rows = self.rng.integers(0, len(values), (2000, len(values)))
        return [round(float(v), 4) for v in np.percentile(values[rows].mean(1), [2.5, 97.5])]

    def means(self, name: str, one, two, cost: float, **more):
        one, two = np.asarray(one, float), np.asarray(two, float)
        row = dict(
            n=len(one), one_look=one.mean(), closer=two.mean(), difference=(two - one).mean()
        )
        row = {k: round(float(v), 4) if k != "n" else v for k, v in row.items()}
        row |= dict(one_look_ci95=self.interval(one), closer_ci95=self.interval(two))
        row["difference_ci95"] = self.interval(two - one)
        self.tasks[name] = row | dict(time=round(cost, 2), **more)

    def rates(self, name: str, one, two, cost: float, **more):
        one, two = np.asarray(one, bool), np.asarray(two, bool)
        more |= dict(gained=int((two & ~one).sum()), lost=int((one & ~two).sum()))
        self.means(name, one, two, cost, **more)
        for key, right in (("one_look_ci95", one), ("closer_ci95", two)):
            bounds = compute_wilson_interval(int(right.sum()), len(right))
            self.tasks[name][key] = [round(float(v), 4) for v in bounds]


def measure_overlap(answer, truth) -> float:
    "Return the IoU of an answer's first box with the truth; 0 without a box."
    boxes = [box for g in answer.groundings for box in g.boxes][:1]
    return box_iou([truth], boxes).item() if boxes else 0.0


def measure_referring(ferret, record: Record, asked: list, relation: bool):
    first, before = ask_first(ferret, asked, 64)
    second, after = timed(closer.ask_again, ferret, first, [[] for _ in first], max_new_tokens=64)
    truth = [turn.meta["box"] for _, turn in asked]
    overlaps = [[measure_overlap(a, t) for a, t in zip(f, truth)] for f in (first, second)]
    one, two = np.array(overlaps)
    cost, looked = 1 + after / before, np.array([a.window is not None for a in second])
    if relation:
        record.rates("referring, relation", one >= 0.5, two >= 0.5, cost)
        return
    small = [find_size_class(b, s.size) == "small" for (s, _), b in zip(asked, truth)]
    plain = [not turn.meta["relation"] for _, turn in asked]
    rows = {"referring": np.ones(len(one), bool), "referring, small": np.array(small)}
    for name, kept in (rows | {"referring, no relation": np.array(plain)}).items():
        looks = int(looked[kept].sum())
        record.rates(name, one[kept] >= 0.5, two[kept] >= 0.5, cost, looked_again=looks)
    both = (one >= 0.5) & (two >= 0.5) & looked
    record.means("referring, mean IoU", one[both], two[both], cost)


def measure_naming(ferret, record: Record, asked: list):
    "Every question is looked at again, also those whose first answer `ask_again` keeps."
    first, before = ask_first(ferret, asked, 32)
    forms = np.array([turn.meta["form"] for _, turn in asked])
    boxes = [[turn.regions[0].box()] for _, turn in asked]
    windows = [closer.find_closer_window(ferret, b, a.size) for b, a in zip(boxes, first)]
    places = [i for i, window in enumerate(windows) if window]
    pictures = [windows[i].cut(first[i].image) for i in places]
    regions = [[windows[i].to_picture(asked[i][1].regions[0])] for i in places]
    prompts, limits = [asked[i][1].prompt for i in places], dict(max_new_tokens=32, batch=25)
    second, after = timed(ferret.ask, pictures, prompts, regions, **limits)
    texts = [a.text for a in first]
    for i, answer in zip(places, second):
        texts[i] = answer.text
    truth = [normalise_name(turn.meta["phrase"]) for _, turn in asked]
    one = np.array([normalise_name(a.text) == t for a, t in zip(first, truth)])
    two = np.array([normalise_name(text) == t for text, t in zip(texts, truth)])
    share = np.isin(np.arange(len(asked)), places)
    look = after / len(places) / (before / len(asked))  # of one window, over one first look
    by_rule = np.where(forms == "box", two, one)
    record.rates("naming", one, by_rule, 1 + look * (share & (forms == "box")).mean())
    for form in ("box", "mask", "point"):
        kept = forms == form
        record.rates(f"naming, {form}", one[kept], two[kept], 1 + look * share[kept].mean())


def measure_phrases(ferret, record: Record, asked: list):
    first, before = ask_first(ferret, asked, 320)

    def look():
        found = [GroundingList(a.groundings) for a in first]
        return [closer.ground_again(ferret, a.image, g, 64) for a, g in zip(first, found)]

    second, after = timed(look)
    scores = []
    for found in ([a.groundings for a in first], second):
        right = []
        for (_, turn), held in zip(asked, found):
            truth = turn.meta["groundings"]
            for grounding, boxes in zip(truth, match_phrases(truth, held)):
                merged = boxes and merge_boxes(boxes)
                right.append(bool(boxes) and is_right(merge_boxes(grounding.boxes), merged))
        scores.append(right)
    record.rates("phrases", *scores, 1 + after / before, sentences=len(asked))


def judge_lists(asked: list, answers: list) -> list:  # of DetectionResult
    found = []
    for (scene, _), answer in zip(asked, answers):
        truth = [(o.name, o.box) for o in scene.objects]
        boxes = closer._list_found(answer.groundings)
        named = [(_read_kind(name), box, score) for name, box, score in boxes if name]
        found.append(detection.DetectionResult(scene.size, truth, named))
    return found


def list_small_found(results: list) -> list:  # of bool, one a small object
    found = []
    for r in results:
        for name, box in r.truth:
            if find_size_class(box, r.size) == "small":
                same = [b for n, b, _ in r.answer if n == name]
                found.append(bool(same) and bool((box_iou([box], same) >= 0.5).any()))
    return found


def measure_lists(ferret, record: Record, asked: list):
    first, before = ask_first(ferret, asked, 448)
    limits = dict(max_new_tokens=448, batch=25)
    second, after = timed(closer.ask_in_slices, ferret, first, SLICES, **limits)
    cost, results = 1 + after / before, [judge_lists(asked, a) for a in (first, second)]
    matches, n = [detection._match_all(r) for r in results], len(asked)
    draws = [
        np.bincount(record.rng.integers(0, n, n), minlength=n).astype(float) for _ in range(300)
    ]
    for name, place, thresholds in (("AP50", 1, [0]), ("mAP", 0, range(10))):
        one, two = (float(detection.compute_coco_average_precision(r)[place]) for r in results)
        drawn = [
            [detection._compute_weighted_ap(m, weight, thresholds) for m in matches]
            for weight in draws
        ]
        low_high = [
            np.percentile(v, [2.5, 97.5]) for v in (*np.array(drawn).T, np.diff(drawn)[:, 0])
        ]
        bounds = [[round(float(v), 4) for v in pair] for pair in low_high]
        record.tasks[f"lists, {name}"] = dict(
            n=n,
            one_look=round(one, 4),
            closer=round(two, 4),
            difference=round(two - one, 4),
            one_look_ci95=bounds[0],
            closer_ci95=bounds[1],
            difference_ci95=bounds[2],
            time=round(cost, 2),
        )
    record.rates("lists, small found", *map(list_small_found, results), cost)


def measure_counting(ferret, record: Record, asked: list):
    first, before = ask_first(ferret, asked, 320)
    limits = dict(max_new_tokens=320, batch=25)
    second, after = timed(closer.ask_in_slices, ferret, first, SLICES, **limits)
    truth = np.array([turn.meta["n"] for _, turn in asked])
    told = [read_count(answer.text) or 0 for answer in first]
    boxes = [sum(len(g.boxes) for g in answer.groundings) for answer in first]
    sliced = [len(answer.groundings) for answer in second]
    told, boxes, sliced = (np.abs(np.array(found) - truth) for found in (told, boxes, sliced))
    more = dict(one_look_boxes=round(float(boxes.mean()), 4))
    record.means("counting, MAE", told, sliced, 1 + after / before, **more)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RECORD)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ferret, record, seed = Ferret.load("tiny", "cpu"), Record(args.seed), args.seed
    measure_referring(ferret, record, pose(seed, "rec", 200), False)
    related = pose(seed, "rec", 100, wanted=lambda turn: turn.meta["relation"])
    measure_referring(ferret, record, related, True)
    measure_naming(ferret, record, pose(seed, "name", 150))
    measure_phrases(ferret, record, pose(seed, "phrase", 100))
    measure_lists(ferret, record, pose(seed, "dense_detection", 60))
    measure_counting(ferret, record, pose(seed, "count", 100, "count"))
    settings = dict(
        model="tiny, first edition",
        command=f"python tools/looking_closer.py --seed {seed}",
        split="test (counting: count)",
        size=SIDE,
        seed=seed,
        look_reach=closer.LOOK_REACH,
        overlap=round(closer.OVERLAP, 4),
        slices=SLICES,
        time="processor time of both looks over that of the first, one core",
    )
    write_json(args.out, settings | dict(tasks=record.tasks), 1)
    for name, row in record.tasks.items():
        print(f"{name:24}{row['n']:5} {row['one_look']:.3f} {row['closer']:.3f}", end=" ")
        print(f"{row['difference']:+.3f} {row['difference_ci95']} time {row['time']}")


if __name__ == "__main__":
    main()
