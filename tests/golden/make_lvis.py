"""Write tests/golden/lvis.json: random truth and answers, and the numbers of the lvis package.

Run it once, with the packages lvis and opencv-python-headless installed:
python tests/golden/make_lvis.py
"""

import json
import random
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

KEYS = dict(AP="AP", AP50="AP50", AP75="AP75", APs="AP.small", APm="AP.medium", APl="AP.large")
KEYS |= {"APr": "APr", "APc": "APc", "APf": "APf", "AR@300": "AR@300"}


def make_data(rng):
    """Truth with negative and not exhaustive categories, and answers with equal scores."""
    categories = [dict(id=3 * k + 1, name=f"kind {k}", frequency="rcf"[k % 3]) for k in range(6)]
    numbers, images, truth, rows = [c["id"] for c in categories], [], [], []
    for i in rng.sample(range(1, 99), 8):
        held = dict(id=i, height=400, width=400, file_name=f"{i}.jpg")
        held["neg_category_ids"] = rng.sample(numbers, 2)
        held["not_exhaustive_category_ids"] = rng.sample(numbers, 2)
        images.append(held)
        for number in numbers[:5]:
            for _ in range(rng.randint(0, 3)):
                w, h = (rng.choice((8, 20, 60, 150)) * rng.uniform(0.7, 1.4) for _ in "wh")
                box = [round(rng.uniform(0, 400 - s), 2) for s in (w, h)]
                box += [round(w, 2), round(h, 2)]
                row = dict(image_id=i, category_id=number)
                more = dict(id=len(truth) + 1, bbox=box, area=round(w * h * 0.8, 2))
                truth.append(row | more | dict(segmentation=[[0, 0, 1, 0, 1, 1]]))
                for _ in range(rng.randint(0, 2)):
                    moved = [round(v + rng.gauss(0, 0.1 * w), 2) for v in box[:2]] + box[2:]
                    rows.append(row | dict(bbox=moved, score=rng.choice((0.25, 0.5, 0.9))))
        for number in numbers:
            box = [round(rng.uniform(0, 300), 2) for _ in range(4)]
            score = round(rng.random(), 3)
            rows.append(dict(image_id=i, category_id=number, bbox=box, score=score))
    return dict(images=images, categories=categories, annotations=truth), rows


def main():
    np.float = float  # lvis 0.5.3 is older than NumPy 2
    import lvis

    data, rows = make_data(random.Random(0))
    with tempfile.TemporaryDirectory() as folder:
        truth, found = Path(folder) / "truth.json", Path(folder) / "found.json"
        truth.write_text(json.dumps(data))
        found.write_text(json.dumps(rows))
        run = lvis.LVISEval(lvis.LVIS(str(truth)), str(found), "bbox")
        run.run()
    scores = {ours: run.results[theirs] for theirs, ours in KEYS.items()}
    text = json.dumps(dict(truth=data, found=rows, scores=scores, lvis=version("lvis")))
    Path(__file__).with_name("lvis.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
