"""Measure models by style of picture: `python tools/generality.py NAME=MODEL ... [--n 300]`.

NAME stands in the record nbs/records/generality.json, and MODEL is a shipped name or a folder. A
model that is measured replaces its older entry; the others stay. The record holds, for each model,
the metrics of every split and a row for each answer about a single object (lesson
nbs/8_evaluation/generality.ipynb). A model needs about a quarter of an hour."""

import argparse
import json
import time
from pathlib import Path

from ferretlite.common.files import write_json
from ferretlite.evaluation.generality import GENERAL_SPLITS, measure_split
from ferretlite.model.inference import Ferret

RECORD = Path(__file__).parent.parent / "nbs" / "records" / "generality.json"
COLUMNS = ("split", "task", "right", "shape", "density", "size")


def round_metric(metric: dict) -> dict:
    "Return value, interval, chance and number of a metric with four digits."
    kept = {key: metric.get(key) for key in ("value", "ci95", "chance", "n")}
    for key in ("value", "chance"):
        kept[key] = None if kept[key] is None else round(kept[key], 4)
    kept["ci95"] = kept["ci95"] and [round(float(v), 4) for v in kept["ci95"]]
    return kept


def measure_model(model: str, n: int, seed: int) -> dict:
    ferret, splits, rows = Ferret.load(model), {}, []
    for split in GENERAL_SPLITS:
        began = time.perf_counter()
        metrics, found = measure_split(ferret, split, n, seed)
        splits[split] = {name: round_metric(metric) for name, metric in metrics.items()}
        for row in found:
            row = row | dict(split=split, right=int(row["right"]))
            rows.append([row[column] for column in COLUMNS])
        rate = splits[split]["rec.acc@0.5"]["value"]
        print(f"{model} {split}: REC {rate:.3f}, {time.perf_counter() - began:.0f} s", flush=True)
    return dict(n=n, seed=seed, splits=splits, rows=rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--n", type=int, default=300, help="scenes of each split")
    parser.add_argument("--seed", type=int, default=0, help="of scenes and questions")
    options = parser.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else dict(models={})
    for word in options.models:
        name, _, model = word.partition("=")
        record["models"][name] = measure_model(model or name, options.n, options.seed)
        write_json(RECORD, dict(columns=COLUMNS, models=record["models"]))


if __name__ == "__main__":
    main()
