"""Spoil annotation files in many ways and read them: nothing but our own errors may come.

python tools/spoil_records.py                 12,000 spoiled files, all formats, about ten minutes
python tools/spoil_records.py --n 600 --seed 7 --format grit

Each trial writes a small file of one format, spoils one place in it (a value, a key, the text), and
reads all records twice: strictly, and with `strict=False`. Allowed are `InputError` and
`FileNotFoundError`. Anything else is printed with its trial, which `--only TRIAL` repeats.
"""

import argparse
import collections
import copy
import json
import random
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from ferretlite.common.errors import InputError
from ferretlite.data.recipes import DEFAULT_TASKS, FORMAT_EXPORTERS, FORMAT_READERS
from ferretlite.data.referring_files import export_refcoco
from ferretlite.scenes.world import make_scene

ALLOWED = (InputError, FileNotFoundError)
DEEP = 3000  # brackets
RAW = {  # text that Python's JSON writer would not write
    "@inf@": "1e400",
    "@nan@": "NaN",
    "@digits@": "9" * 5000,
    "@deep@": "[" * DEEP + "]" * DEEP,
    "@half@": '"\\ud83d"',
}
VALUES = (
    *RAW,
    None,
    True,
    False,
    0,
    -1,
    7,
    0.5,
    1e18,
    10**400,
    "",
    " ",
    "7",
    "None",
    "x" * 3000,
    "ü 🐈 <region> <image>",
    "..\\b.jpg",
    "../../b.jpg",
    "a\0b",
    [],
    [None],
    ["7"],
    [[]],
    [1, 2, 3],
    [[1, 2, 3, 4]],
    {},
    {"a": 1},
    {"size": [9, 9], "counts": "1"},
)
SOURCES = {  # format -> (files that can be spoiled, options of its reader)
    "coco": (["annotations.json"], {}),
    "lvis": (["lvis_v1_train.json"], {}),
    "objects365": (["zhiyuan_objv2_train.json"], {}),
    "refcoco": (["finetune_refcoco_train.json"], {}),
    "refcoco-parquet": (["refcoco.parquet"], dict(annotations="refcoco.parquet")),
    "genome": (["region_descriptions.json", "image_data.json"], {}),
    "flickr30k": (["Annotations/1001.xml", "Sentences/1001.txt", "train.txt"], {}),
    **{
        f"griffon-{kind}": (
            [f"{kind.lower()}.jsonl"],
            dict(annotations=f"{kind.lower()}.jsonl", kind=kind),
        )
        for kind in ("DET", "RANDDET", "VG", "REG", "VISJ")
    },
    "grit": (["grit.json"], dict(annotations="grit.json")),
    "llava": (["llava.json"], dict(annotations="llava.json", boxes="image")),
}


def list_places(value, path: tuple = ()) -> list:  # of paths
    "Return the paths of all values inside a value."
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    return [path, *(p for key, v in inner for p in list_places(v, (*path, key)))]


def find_parent(data, path: tuple):
    "Return the container of the value at a path."
    for key in path[:-1]:
        data = data[key]
    return data


def spoil_value(data, rng):
    "Change, remove or repeat one value of a JSON file."
    path = rng.choice(list_places(data)[1:] or [()])
    if not path:
        return rng.choice(VALUES)
    parent, key = find_parent(data, path), path[-1]
    way = rng.random()
    if way < 0.8:
        old = parent[key]
        new = rng.choice(VALUES)
        if isinstance(old, (int, float)) and rng.random() < 0.2:
            new = rng.choice([str(old), -old, old * 1e6, old / 1e4])
        parent[key] = new
    elif way < 0.9 or isinstance(parent, dict):
        del parent[key]
    else:
        parent.append(copy.deepcopy(parent[key]))
    return data


def spoil_text(text: bytes, rng) -> bytes:
    "Change the bytes of a file."
    place = rng.randrange(len(text) + 1)
    ways = (
        lambda: text[:place],
        lambda: b"",
        lambda: b" \n",
        lambda: b"\xef\xbb\xbf" + text,
        lambda: text.replace(b"\n", b"\r\n").replace(b", ", b",\r\n"),
        lambda: text.decode(errors="replace").encode("utf-16"),
        lambda: text + text,
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        lambda: text[:place] + bytes([rng.randrange(256)]) + text[place + 1 :],
        lambda: (
            text[:place] + rng.choice([b'"', b"[", b"}", b",", b"\0", b"<", b"]"]) + text[place:]
        ),
    )
    return rng.choice(ways)()


def dump(data) -> str:
    "Return JSON with the raw values in place of their names."
    text = json.dumps(data)
    for name, raw in RAW.items():
        text = text.replace(json.dumps(name), raw)
    return text


def spoil_parquet(path: Path, rng):
    "Change a column of one row, drop a column, or damage the bytes."
    import pyarrow as pa
    import pyarrow.parquet as pq

    if rng.random() < 0.3:
        text = path.read_bytes()
        place = rng.randrange(len(text))
        return path.write_bytes(text[:place] + bytes([rng.randrange(256)]) + text[place + 1 :])
    table = pq.read_table(path).to_pylist()
    column = rng.choice(list(table[0]))
    if column.startswith("raw_") and rng.random() < 0.8:
        for row in table:
            row[column] = dump(spoil_value(json.loads(row[column]), rng))
    else:
        new = rng.choice([v for v in VALUES[len(RAW) :] if v != 10**400])
        for row in table:
            row[column] = new
            if rng.random() < 0.1:
                row.pop(column)
    try:
        pq.write_table(pa.Table.from_pylist(table), path)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return None  # a table cannot hold this


def spoil_file(path: Path, rng):
    "Spoil one place of a file."
    if path.suffix == ".parquet":
        return spoil_parquet(path, rng)
    text = path.read_bytes()
    if path.suffix not in (".json", ".jsonl") or rng.random() < 0.15:
        return path.write_bytes(spoil_text(text, rng))
    if path.suffix == ".jsonl":
        lines = text.decode().splitlines()
        k = rng.randrange(len(lines))
        lines[k] = dump(spoil_value(json.loads(lines[k]), rng))
        return path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.write_text(dump(spoil_value(json.loads(text), rng)), encoding="utf-8")


def make_folders(root: Path):
    "Write two small scenes in every format."
    scenes = [make_scene(seed, (64, 96)) for seed in (3, 5)]
    for name, export in FORMAT_EXPORTERS.items():
        export(scenes, root / name)
    export_refcoco(scenes, root / "refcoco-parquet", "refcoco.parquet")
    for kind in ("DET", "RANDDET", "VG", "REG", "VISJ"):
        shutil.copytree(root / "griffon", root / f"griffon-{kind}")


def read_everything(name: str, folder: Path, strict: bool, rng):
    "Open a reader, read all of its records, and ask questions about them."
    kind = name.split("-")[0]
    options = SOURCES[name][1]
    style = "griffon" if kind == "griffon" else "ferret"
    tasks = DEFAULT_TASKS[style].get((kind, options.get("kind"))) or DEFAULT_TASKS[style].get(kind)
    reader = FORMAT_READERS[kind](folder, strict=strict, **options)
    for i in range(len(reader)):
        try:
            reader.converse(i, rng, tasks or {}, 2, style=style)
        except ALLOWED:
            if strict:
                raise
    return reader


def run_trial(root: Path, name: str, trial: int, seed: int) -> tuple:  # (ending, traceback or None)
    "Spoil one file of a format, read it strictly and not, and put it back."
    rng = random.Random(f"{seed}-{name}-{trial}")
    folder = root / name
    path = folder / rng.choice(SOURCES[name][0])
    whole = path.read_bytes()
    ending = "read"
    try:
        spoil_file(path, rng)
        for strict in (True, False):
            try:
                read_everything(name, folder, strict, rng)
            except ALLOWED:
                ending = "refused" if strict else "refused as a file"
            except Exception as error:
                return type(error).__name__, traceback.format_exc()
    finally:
        path.write_bytes(whole)
    return ending, None


def run(
    n: int, seed: int = 0, names=tuple(SOURCES), only=None, show=print
) -> list:  # of tracebacks
    "Run `n` trials over the formats in turn; return tracebacks of exceptions that are not ours."
    endings, faults = collections.Counter(), []
    with tempfile.TemporaryDirectory() as root:
        make_folders(Path(root))
        for k in range(n) if only is None else [only]:
            name = names[k % len(names)]
            ending, fault = run_trial(Path(root), name, k, seed)
            endings[ending] += 1
            if fault:
                faults.append(f"trial {k} ({name}, seed {seed}): {fault}")
    show(", ".join(f"{count} {ending}" for ending, count in endings.most_common()))
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=12_000, help="number of spoiled files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=list(SOURCES), action="append")
    parser.add_argument("--only", type=int, help="number of one trial to repeat")
    args = parser.parse_args()
    faults = run(args.n, args.seed, tuple(args.format or SOURCES), args.only)
    kinds = {}
    for fault in faults:
        kinds.setdefault("\n".join(fault.strip().split("\n")[-4:]), []).append(fault)
    for found in kinds.values():
        print(f"\n{len(found)} ×", found[0])
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
