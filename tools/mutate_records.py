"""Do annotation files that are damaged cause our own errors alone?

    python tools/mutate_records.py                        all formats and mixtures, 18,000 records
    python tools/mutate_records.py --records 300 --formats grit llava
    python tools/mutate_records.py --seed 7               other mutations

Two small scenes are written in each of the nine formats, and in five forms of annotation programs,
whose files are recognised, too. Each mutation damages one value, one key
or some bytes of an annotation file; the file is then opened and each of its records is read, by a
strict reader or by a lax one. A record is accepted (nothing is reported), refused (our own error,
or left out and counted), or it raises a foreign exception: a mistake in the package. The exit code
is 1 if there is a foreign exception. The same seed gives the same mutations.
"""

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ferretlite.common.errors import InputError
from ferretlite.data.mixtures import Mixture, open_part
from ferretlite.data.own_files import recognise_data
from ferretlite.data.recipes import Part, export_tree, get_tasks, read_recipe
from ferretlite.data.referring_files import export_refcoco
from ferretlite.scenes.world import make_scene

OWN_ERRORS = (InputError, FileNotFoundError)
RECORDS = 1200  # mutations of each format
DEEP, HUGE, LONG = "@deep@", "@huge@", "@long@"  # replaced in the JSON text
RAW = {
    f'"{DEEP}"': "[" * 100_000 + "]" * 100_000,
    f'"{HUGE}"': "1e400",
    f'"{LONG}"': "9" * 5000,
}
VALUES = (
    *(None, True, False, 0, 1, -1, 0.5, -0.5, 2, 999, 1e300, -1e300, 1e-320, 2**53 + 1, 2**31),
    *(10**18, -(10**18), 10**40, 100_001, float("nan"), float("inf"), DEEP, HUGE, LONG),
    *(
        "",
        " ",
        "x",
        "640",
        "1",
        "0",
        "null",
        "\ud800",
        "a\x00b",
        "\x1b[31m",
        "\u202e",
        "y" * 300,
        "x" * 150_000,
    ),
    *("../../etc/passwd", "/etc/passwd", "C:\\images\\a.jpg", ".", "..", "a.jpg", "\n", "é/ü.png"),
    *("<image>", "<video>", "<region>", "<crop>", "</s>", "USER:", "<bbox_location0>", "{query}"),
    *("<bbox_location99999999999999999999>", "[1, 2, 3, 4]", "[0.1,0.2,0.3,0.4]", "[[1,2],[3,4]]"),
    *("(1,2),(3,4)", '{"bbox_2d": [1, 2, 3, 4]}', "[" * 2000, "cat [" * 500, "-", ",", ";", "[]"),
    *(
        [],
        {},
        [[]],
        [None],
        [0],
        ["x"],
        [[None]],
        [{}],
        {"a": 1},
        {"": None},
        [1, 2, 3, 4],
        [[1] * 4],
    ),
    *(
        [1, 2, 3],
        ["1", "2", "3", "4"],
        [1, 2, 3, float("nan")],
        [4, 3, 2, 1],
        [0, 0, 0, 0],
        [-9] * 4,
    ),
    *(
        [1e9] * 4,
        [0.1, 0.1, 0.2, 0.2],
        [True] * 4,
        {"size": [64, 96], "counts": "x"},
        [[1, 2, 3, 4, 5]],
    ),
    *({"size": [2**40, 2**40], "counts": [1]}, {"size": [-1, 5], "counts": []}, {"size": None}),
    *({"size": [64, 96], "counts": [-5, 10]}, {"size": [64, 96], "counts": [10**30]}, [[10] * 6]),
)


@dataclass
class Target:
    """One annotation file, and how the readers are told to open it."""

    file: str  # below the folder of the tree
    part: Part
    style: str = "ferret"


@dataclass
class Result:
    """What the mutations of one format did."""

    counts: Counter = field(default_factory=Counter)  # accepted, refused, foreign
    foreign: dict = field(default_factory=dict)  # (exception, place) -> first mutation
    words: list = field(default_factory=list)  # what was done, one text a mutation
    slowest: tuple = (0.0, "")  # seconds, mutation


def target(format: str, file: str, style: str = "ferret", **options) -> Target:
    folder, _, _ = file.partition("/")
    return Target(file, Part(format, format, dict(folder=folder, **options)), style)


TARGETS = {
    "coco": [target("coco", "coco/annotations.json")],
    "lvis": [target("lvis", "lvis/lvis_v1_train.json")],
    "objects365": [target("objects365", "objects365/zhiyuan_objv2_train.json")],
    "refcoco": [
        target("refcoco", "refcoco/finetune_refcoco_train.json"),
        target("refcoco", "refcoco/ref.parquet", annotations="ref.parquet"),
    ],
    "genome": [
        target("genome", "genome/region_descriptions.json"),
        target("genome", "genome/image_data.json"),
    ],
    "flickr30k": [
        target("flickr30k", "flickr30k/Annotations/1001.xml"),
        target("flickr30k", "flickr30k/Sentences/1001.txt"),
        target("flickr30k", "flickr30k/train.txt"),
    ],
    "griffon": [
        target(
            "griffon",
            f"griffon/{kind.lower()}.jsonl",
            "griffon",
            annotations=f"{kind.lower()}.jsonl",
            kind=kind,
        )
        for kind in ("DET", "RANDDET", "VG", "REG", "VISJ")
    ],
    "grit": [target("grit", "grit/grit.json", annotations="grit.json", switch=0.5)],
    "llava": [
        target("llava", "llava/llava.json", annotations="llava.json"),
        target("llava", "llava/llava.jsonl", annotations="llava.jsonl", boxes="pixels"),
        target("llava", "llava/messages.json", annotations="messages.json", boxes="pixels"),
    ],
    "yolo": [target("yolo", "yolo/labels/0.txt"), target("yolo", "yolo/data.yaml")],
    "voc": [target("voc", "voc/0.xml")],
    "labelme": [target("labelme", "labelme/0.json")],
    "labelstudio": [
        target("labelstudio", "labelstudio/tasks.json", annotations="tasks.json"),
    ],
    "openimages": [
        target("openimages", "openimages/boxes.csv", annotations="boxes.csv"),
        target("openimages", "openimages/class-descriptions-boxable.csv", annotations="boxes.csv"),
    ],
    "mixture": [Target("mixture.json", None), Target("mixture-griffon.json", None, "griffon")],
}


def write_tree(root: Path):
    """Write two scenes in all formats, and other forms that the readers take."""
    scenes = [make_scene(seed, (64, 96)) for seed in (0, 2)]
    export_tree(lambda: iter(scenes), root)
    export_refcoco(iter(scenes), root / "refcoco", "ref.parquet")
    records = json.loads((root / "llava" / "llava.json").read_text())
    for record in records:
        if "image" in record:
            record["conversations"][1]["value"] += " [5, 5, 40, 40]"
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (root / "llava" / "llava.jsonl").write_text(lines)
    roles = {"human": "user", "gpt": "assistant"}
    for record in records:
        turns = record.pop("conversations")
        record["messages"] = [
            {"role": roles[turn["from"]], "content": [{"type": "text", "text": turn["value"]}]}
            for turn in turns
        ]
        record["images"] = [record.pop("image")] if "image" in record else []
    (root / "llava" / "messages.json").write_text(json.dumps(records))
    write_annotator_files(root, scenes)


PROGRAMS = ("yolo", "voc", "labelme", "labelstudio", "openimages")  # forms of annotation programs


def write_annotator_files(root: Path, scenes: list):
    """Write the boxes of scenes as five annotation programs do."""
    names = sorted({o.name for scene in scenes for o in scene.objects})
    tasks, rows = [], ["ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf,IsDepiction"]
    for name in (*PROGRAMS, "yolo/labels"):
        (root / name).mkdir(exist_ok=True)
    for k, scene in enumerate(scenes):
        h, w = scene.size
        lines, objects, shapes, results = [], [], [], []
        for o in scene.objects:
            x1, y1, x2, y2 = o.box.list()
            cx, cy, side, height = (
                (x1 + x2) / 2 / w,
                (y1 + y2) / 2 / h,
                (x2 - x1) / w,
                (y2 - y1) / h,
            )
            lines.append(f"{names.index(o.name)} {cx} {cy} {side} {height}")
            lines.append(f"0 {x1 / w} {y1 / h} {x2 / w} {y1 / h} {x2 / w} {y2 / h}")
            tags = zip(("xmin", "ymin", "xmax", "ymax"), (x1 + 1, y1 + 1, x2, y2))
            box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
            objects.append(f"<object><name>{o.name}</name><bndbox>{box}</bndbox></object>")
            points = [[x2, y2], [x1, y1]]
            shapes.append(dict(label=o.name, points=points, shape_type="rectangle", group_id=None))
            circle = dict(points=[[20, 20], [30, 20]], shape_type="circle", group_id=1)
            shapes.append(dict(circle, label=o.name))
            value = dict(x=100 * x1 / w, y=100 * y1 / h, width=100 * side, height=100 * height)
            value |= dict(rotation=10, rectanglelabels=[o.name])
            size = dict(original_width=w, original_height=h, image_rotation=0)
            results.append(dict(type="rectanglelabels", value=value, id="a", **size))
            rows.append(f"{k},/m/0{names.index(o.name)},{x1 / w},{x2 / w},{y1 / h},{y2 / h},0,0")
        for name in PROGRAMS:
            scene.image.save(root / name / f"{k}.png")
        (root / "yolo" / "labels" / f"{k}.txt").write_text("\n".join(lines))
        size = f"<size><width>{w}</width><height>{h}</height></size>"
        text = f"<annotation><filename>{k}.png</filename>{size}{''.join(objects)}</annotation>"
        (root / "voc" / f"{k}.xml").write_text(text)
        data = dict(shapes=shapes, imagePath=f"{k}.png", imageHeight=h, imageWidth=w)
        (root / "labelme" / f"{k}.json").write_text(json.dumps(data))
        work = dict(result=results, was_cancelled=False, updated_at="2026-01-01")
        tasks.append(dict(id=k, data=dict(image=f"/data/{k}.png"), annotations=[work]))
    (root / "yolo" / "data.yaml").write_text(json.dumps(dict(names=names)))  # JSON is YAML
    (root / "labelstudio" / "tasks.json").write_text(json.dumps(tasks))
    (root / "openimages" / "boxes.csv").write_text("\n".join(rows))
    codes = "\n".join(f"/m/0{n},{name}" for n, name in enumerate(names))
    (root / "openimages" / "class-descriptions-boxable.csv").write_text(codes)


def list_places(value, path=()) -> list:
    """Return the path of each value inside a JSON value, that of the whole value first."""
    places = [path]
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for key, item in inner:
        places += list_places(item, (*path, key))
    return places


def get_inside(value, path: tuple):
    for key in path:
        value = value[key]
    return value


def change_value(value, rng: random.Random):
    """Return another value for one place, often of another type."""
    kind = rng.randrange(8)
    if kind == 0:
        return [value]
    if kind == 1 and isinstance(value, (int, float)) and not isinstance(value, bool):
        return rng.choice([str(value), -value, value * 10**6, value + 0.5, [value, value], None])
    if kind == 2 and isinstance(value, list):
        return rng.choice([value[:-1], value + value, value[::-1], value + [None], dict(x=value)])
    if kind == 3 and isinstance(value, str):
        return rng.choice([value * 3, value[:1], list(value), value.encode().hex(), value + "\n"])
    if kind == 4 and isinstance(value, dict):
        return rng.choice([list(value), [value, value], {**value, "x": None}, str(value)])
    return rng.choice(VALUES)


def mutate_value(data, rng: random.Random) -> tuple:  # (data, words about the mutation)
    """Change, drop, double or rename one thing inside a JSON value."""
    path = rng.choice(list_places(data))
    if not path:
        new = change_value(data, rng)
        return new, f"whole file = {short(new)}"
    parent, key = get_inside(data, path[:-1]), path[-1]
    kind, place = rng.randrange(10), ".".join(map(str, path))
    if kind == 0:
        del parent[key]
        return data, f"without {place}"
    if kind == 1 and isinstance(parent, list):
        parent.insert(key, parent[key])
        return data, f"{place} twice"
    if kind == 1:
        parent[f"{key}_"] = parent.pop(key)
        return data, f"{place} renamed"
    parent[key] = change_value(parent[key], rng)
    return data, f"{place} = {short(parent[key])}"


def short(value) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def dump(value) -> str:
    """Return JSON text; marks become what Python's encoder cannot write."""
    text = json.dumps(value)
    for mark, raw in RAW.items():
        text = text.replace(mark, raw)
    return text


def mutate_bytes(data: bytes, rng: random.Random) -> tuple:  # (bytes, words)
    """Damage a file as a download, an editor or a disk does."""
    n, at = len(data), rng.randrange(max(len(data), 1))
    odd = bytes([rng.randrange(256)])
    other = rng.choice(
        [b"null", b"0", b'"', b"{", b"[", b"]", b"}", b",", b"\n", b"\xff\xfe", b"<"]
    )
    return rng.choice(
        [
            (b"", "an empty file"),
            (data[:at], f"cut at byte {at} of {n}"),
            (data[:at] + odd + data[at + 1 :], f"byte {at} = {odd}"),
            (data[:at] + other + data[at:], f"{other} at byte {at}"),
            (data[:at] + data[at + rng.randrange(1, 20) :], f"bytes missing at {at}"),
            (b"\xef\xbb\xbf" + data, "a byte order mark"),
            (data.replace(b"\n", b"\r\n") + b"\r\n", "Windows line ends"),
            (data.decode("latin-1").encode("utf-16"), "UTF-16"),
            (data + data, "the file twice"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        ]
    )


def mutate_words(text: str, rng: random.Random) -> tuple:  # (text, words)
    """Change one number, word or mark of a text that is not JSON."""
    pieces = re.split(r"(\W)", text)
    k = rng.randrange(len(pieces))
    new = str(rng.choice(VALUES)).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    old, pieces[k] = pieces[k], rng.choice([new, "", pieces[k] * 2])
    return "".join(pieces), f"{short(old)} = {short(pieces[k])}"


def mutate_table(path: Path, rng: random.Random) -> str:
    """Change one value of a parquet file, or some of its bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    row = rng.choice(rows)
    key = rng.choice(list(row))
    if isinstance(row[key], str) and row[key].startswith("{") and rng.random() < 0.7:
        value, words = mutate_value(json.loads(row[key]), rng)
        row[key], words = dump(value), f"{key}: {words}"
    else:
        row[key] = change_value(row[key], rng)
        words = f"{key} = {short(row[key])}"
    if rng.random() < 0.7:
        try:
            pq.write_table(pa.Table.from_pylist(rows), path)
            return words
        except (pa.ArrowException, OverflowError, UnicodeError, TypeError, ValueError):
            pass  # a column of parquet cannot hold such a value
    data, words = mutate_bytes(path.read_bytes(), rng)
    path.write_bytes(data)
    return words


def mutate_file(path: Path, rng: random.Random) -> str:
    """Damage one file; return what was done."""
    if path.suffix == ".parquet":
        return mutate_table(path, rng)
    if rng.random() < 0.12:
        data, words = mutate_bytes(path.read_bytes(), rng)
        path.write_bytes(data)
        return words
    text = path.read_text(encoding="utf-8")
    if path.suffix not in (".json", ".jsonl"):
        text, words = mutate_words(text, rng)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        return words
    if path.suffix == ".json":
        data, words = mutate_value(json.loads(text), rng)
        path.write_text(dump(data))
        return words
    lines = text.splitlines()
    k = rng.randrange(len(lines))
    data, words = mutate_value(json.loads(lines[k]), rng)
    lines[k] = dump(data)
    path.write_text("\n".join(lines) + "\n")
    return f"line {k + 1}: {words}"


def read_part(root: Path, part: Part, style: str, strict: bool) -> bool:  # whether all was used
    """Open a part and read all of its records."""
    reader = open_part(part, root, strict=strict)
    used, tasks = True, get_tasks(part, style)
    for i in range(len(reader)):
        rng = random.Random(i)
        try:
            reader.converse(i, rng, tasks, 4, None, style)
        except OWN_ERRORS:
            used = False
    return used and not reader.left_out and len(reader) > 0


def read_target(root: Path, goal: Target, rng: random.Random) -> bool:
    """Read a damaged file as training does; return whether all of it was used."""
    if goal.part is not None and goal.part.format in PROGRAMS:
        try:
            recognise_data(root / goal.file, root=root)
            recognise_data(root / goal.part.format, root=root)
        except OWN_ERRORS:
            pass
    if goal.part is not None:
        return read_part(root, goal.part, goal.style, strict=rng.random() < 0.5)
    recipe = read_recipe(root / goal.file)
    for parts in recipe.stages.values():
        opened = [(part, open_part(part, recipe.root)) for part in parts]
        mixture = Mixture(opened, recipe.style, skip=True)
        for i in range(min(len(mixture), 3)):
            mixture[i]
    return True


def find_place(error: BaseException) -> str:
    """Return the innermost line of the package in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "ferretlite" in Path(f.filename).parts] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} in {ours[-1].name}"


def mutate_format(name: str, n: int, seed: int = 0) -> Result:
    """Damage the files of a format `n` times and read them."""
    result = Result()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = Path(folder)
        write_tree(root)
        for goal in TARGETS[name]:
            if not read_target(root, goal, random.Random(0)):
                raise RuntimeError(
                    f"{goal.file}: found a refusal, expected that whole files are read"
                )
        for k in range(n):
            rng = random.Random(f"{seed}-{name}-{k}")
            goal = rng.choice(TARGETS[name])
            path = root / goal.file
            whole = root / "whole"
            shutil.copyfile(path, whole)
            words = f"{goal.file}: {mutate_file(path, rng)}"
            result.words.append(words)
            began = time.perf_counter()
            try:
                kind = "accepted" if read_target(root, goal, rng) else "refused"
            except OWN_ERRORS:
                kind = "refused"
            except Exception as error:
                kind = "foreign"
                key = (type(error).__name__, find_place(error))
                result.foreign.setdefault(key, f"{words} ({short(str(error))}; number {k})")
            result.counts[kind] += 1
            result.slowest = max(result.slowest, (time.perf_counter() - began, words))
            shutil.copyfile(whole, path)
    return result


def main(arguments=None) -> int:  # exit code
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=RECORDS, help="mutations of each format")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other mutations")
    parser.add_argument("--formats", nargs="+", choices=TARGETS, default=list(TARGETS))
    args = parser.parse_args(arguments)
    total = Counter()
    print(f"{'format':12}{'records':>9}{'accepted':>10}{'refused':>9}{'foreign exceptions':>20}")
    for name in args.formats:
        result = mutate_format(name, args.records, args.seed)
        total += result.counts
        print(format_counts(name, args.records, result.counts), flush=True)
        for (kind, place), words in result.foreign.items():
            print(f"    {kind} at {place}: {words}", flush=True)
        if result.slowest[0] > 5:
            print(f"    slow, {result.slowest[0]:.0f} s: {result.slowest[1]}", flush=True)
    print(format_counts("all", sum(total.values()), total))
    return 1 if total["foreign"] else 0


def format_counts(name: str, records: int, counts: Counter) -> str:
    accepted, refused, foreign = (counts[kind] for kind in ("accepted", "refused", "foreign"))
    return f"{name:12}{records:9}{accepted:10}{refused:9}{foreign:20}"


if __name__ == "__main__":
    sys.exit(main())
