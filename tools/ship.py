"""Turn a finished run into the weights that the package carries: `python tools/ship.py RUN [--n
1000]`.

A run of `ferretlite train` becomes ferretlite/weights/PRESET/: the model in half precision, the
run's record, its scores, and a card made from both;
a run of `tiny` also tiny-stages/: what the first two stages changed, with a card.
A run of `ferretlite pretrain` becomes tiny-towers/, tiny-lm/ or tiny-griffon-lm/, with a card."""

import argparse
import json
import math
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from ferretlite.common.files import write_json, write_whole
from ferretlite.evaluation.confidence import fit_scores
from ferretlite.evaluation.suites import evaluate
from ferretlite.model.inference import Ferret
from ferretlite.model.loading import load_model, save_model
from ferretlite.training.stages import start_model

WEIGHTS = Path(__file__).parent.parent / "ferretlite" / "weights"
LABELS = {
    "rec.acc@0.5": "find what is described (IoU ≥ 0.5)",
    "rec.small": "… smaller than 1/12 of the side",
    "rec.medium": "… 1/12 to 1/6",
    "rec.large": "… larger than 1/6",
    "roc.point": "A or B, shown by a point",
    "roc.box": "A or B, by a box",
    "roc.mask": "A or B, by a mask",
    "name.acc": "name a region: kind, colour and fill",
    "phrase.acc": "ground several phrases",
    "word.acc": "read a word, every letter",
    "det.mAP": "detect everything, mAP",
    "det.AP50": "detect everything, AP50",
    "count.mae": "count 1–10, mean error in objects",
    "absent.balanced_acc": "say whether it is there at all (balanced)",
    "count.same.mae": "count 1–10 by an example from the same image, mean error",
    "count.cross.mae": "… by one from another image",
    "find.novel.AP50": "find glyphs that have no name, by an example, AP50",
}
GRIFFON = LABELS | {
    "det.mAP": "detect a set of names, some absent, mAP",
    "det.AP50": "detect a set of names, some absent, AP50",
    "name.acc": "name what a written box holds: kind, colour and fill",
    "count.mae": "count 1–10 by name, mean error in objects",
}
ABOUT = {
    "tiny": (
        """A Ferret-v2 of {weights} million weights: a CLIP-style and a DINOv2-style ViT (192-pixel views, 16-pixel patches, four of them to a token), two projectors, a region sampler and a small
Llama. It knows scenes of drawn glyphs, **not photographs**: it is for learning and teaching how such a model works."""
    ),
    "tiny-griffon": (
        """A Griffon v2 of {weights} million weights: a DINOv2-style ViT that sees 384 pixels at once (16-pixel patches), a strided convolution that makes 144 tokens of them, a frozen CLIP-style
encoder whose class token turns each picture in a question into one token, and a small Llama. It answers in Griffon's written form, says `None`, and looks for what it is shown. It knows
scenes of drawn glyphs, **not photographs**: it is for learning and teaching how such a model works. (The paper's one tower is CLIP's; ours is the shipped local one, which names things best.)"""
    ),
}

GRIFFON_LM = """It was taught in Griffon's manner: its questions, its written form, one view of 144 tokens, and vectors for pictures in questions. `ferretlite train --preset tiny-griffon` begins with it.

"""


def count_weights(folder: Path) -> str:
    "Millions of numbers in a model file, with two decimals."
    with safe_open(folder / "model.safetensors", "pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]
    return f"{sum(map(math.prod, shapes)) / 1e6:.2f}"


def card(run: dict, scores: dict, command: str, n: int) -> str:
    "The model card: what it is, how it came to be, what it scores."
    preset = run["settings"]["preset"]
    rows = [
        f"| `{k}` | {label} | {m['value']:.2f} | {m['ci95'][0]:.2f}–{m['ci95'][1]:.2f} | {m['n']} |"
        f" {m['chance']:.2f} | {m['constant']:.2f} |"
        for k, label in (GRIFFON if preset == "tiny-griffon" else LABELS).items()
        if (m := scores.get(k))
    ]
    machine = run["machine"]
    lm = f"`{'tiny-griffon-lm' if preset == 'tiny-griffon' else 'tiny-lm'}`"
    return (
        f"""# ferretlite {preset}

{ABOUT[preset].format(weights=count_weights(WEIGHTS / preset))}

**Made by** `{command}` from the shipped `tiny-towers` and {lm}: {sum(run["steps"]) * 16:,} samples in three stages
({", ".join(f"{name.split()[0]}: {steps} steps" for name, steps in zip(run["stages"], run["steps"]))} of 16 scenes), seed {run["settings"]["seed"]},
{run["seconds"] / 60:.0f} minutes on {"one " + machine["device"] if "device" in machine else f"{machine['threads']} shared CPU core" + "s" * (machine["threads"] > 1)} (Python {machine["python"]}, torch {machine["torch"]}). Scenes are procedural (`ferretlite.scenes.world`); training
never shows a scene of the splits below. Weights are stored in half precision.{" " + run["note"] if "note" in run else ""}

**Scores** by `ferretlite eval {preset} --suite scenes --n {n}`: scenes of the test split (counting: of the count split) with same-kind and same-colour rivals.
*Chance* picks at random, *constant* always gives the best single answer.

| key | what | value | 95 % interval | n | chance | constant |
|---|---|---|---|---|---|---|
"""
        + "\n".join(rows)
        + "\n\nLicence: Apache-2.0, as the code.\n"
    )


def towers_card(run: dict) -> str:
    "How the towers came to be, leg by leg, and what their read-outs get right."
    legs = [
        f"{n}. {' and '.join(leg['sides'])}: "
        + (
            f"{leg['steps']:,} steps of "
            + (f"{leg['views']} small views" if "views" in leg else f"{leg['scenes']} scenes")
            + f", seed {leg['seed']}, peak rate {leg['lr']:g}"
            if leg["steps"]
            else ""
        )
        + (
            f" (stopped; its schedule was planned for {leg['planned']:,} steps)"
            if "planned" in leg
            else ""
        )
        + ((leg["steps"] > 0) * "; " + leg["note"] if "note" in leg else "")
        for n, leg in enumerate(run["legs"], 1)
    ]
    asked = ("kind", "color", "fill", "left", "right", "extent")
    rows = [
        f"| {side} | " + " | ".join(f"{right[q]:.3f}" if q in right else "" for q in asked) + " |"
        for side, right in run["scores"].items()
    ]
    return (
        """# ferretlite tiny-towers

A CLIP-style and a DINOv2-style ViT (192-pixel views, 16-pixel patches, width 160) that were told the truth of every patch of drawn glyph scenes
(`nbs/5_pretraining/two_eyes.ipynb`). They have the architecture of CLIP and DINOv2 and none of their upbringing, and they know **no photographs**.

**Made by** `ferretlite pretrain dense`, each leg going on from the one before with `--from`:

"""
        + "\n".join(legs)
        + f"""

**Share of patches that the read-outs get right** on 256 validation views (`extent`: mean error of an edge, in views; `left`, `right`: letters of words;
`crop`: what the global tower's class token says of the thing in the middle of a crop):

| view | {" | ".join(asked)} |
|---|{"---|" * len(asked)}
"""
        + "\n".join(rows)
        + "\n\nLicence: Apache-2.0, as the code.\n"
    )


def lm_run(run: dict, first: bool) -> str:
    "The command of one run of a language model, and how it went."
    parts = [
        "ferretlite pretrain lm",
        "--style griffon" if run.get("style") == "griffon" else "",
        "" if first else "--from RUN",
        (
            f"--samples {run['steps'] * run['batch_size']} --batch {run['batch_size']} --seed"
            f" {run['seed']}"
        ),
        "" if first else f"--lr {run['lr']:g} --muon {run['muon']:g}",
        "--compile" if run.get("compile") else "",
    ]
    return (
        f"`{' '.join(p for p in parts if p)}`: {run['steps']:,} steps of {run['batch_size']}"
        f" scenes{'; ' + run['note'] if 'note' in run else ''}."
    )


def lm_card(run: dict) -> str:
    "How the language model came to be: every run of the chain that ends with it."
    griffon, runs = run.get("style") == "griffon", [run]
    while "before" in runs[0]:
        runs.insert(0, runs[0]["before"])
    made = (
        "\n".join(f"{n}. {lm_run(r, n == 1)}" for n, r in enumerate(runs, 1))
        if len(runs) > 1
        else lm_run(run, True)
    )
    return f"""# ferretlite {"tiny-griffon-lm" if griffon else "tiny-lm"}

A Llama of two million weights and its tokenizer (single digits are tokens), taught on drawn scenes told in things (`nbs/5_pretraining/tiny_lm.ipynb`): vectors that
hold an object's words and edges as ideal eyes might see them. It knows how answers are written, how to find what is asked and how to write down where it lies (notebook `tiny_lm` measures how well); it has seen no picture.

{GRIFFON_LM if griffon else ""}**Made by**{" these runs, each going on from the end of the one before:" + chr(10) * 2 if len(runs) > 1 else " "}{made}

Its loss at the end was {run["log"][-1][1]:.2f}: per token (no idea: 6.64), with 0.3 of `attention_loss` added.

Licence: Apache-2.0, as the code.
"""


def ship_stages(folder: Path, seed: int):
    "The weights that differ from the beginning after stages I and II, in half precision."
    out, begun = WEIGHTS / "tiny-stages", start_model(seed=seed)[0].state_dict()
    out.mkdir(exist_ok=True)
    for number in (1, 2):
        learned = {
            k: v.half().contiguous()
            for k, v in load_model(folder / f"stage-{number}")[0].state_dict().items()
            if not v.equal(begun[k])
        }
        write_whole(
            out / f"stage-{number}.safetensors",
            lambda p, learned=learned: save_file(learned, p, metadata=dict(format="pt")),
        )
    write_whole(
        out / "README.md",
        lambda p: p.write_text(
            f"""# ferretlite tiny after stages I and II

What the first two stages of the run behind `tiny` changed: projectors, position code and (II) sampler; everything else is as `ferretlite.training.stages.start_model(seed={seed})`
makes it from `tiny-towers` and `tiny-lm`. `ferretlite.training.stages.load_stage_model(1)` and `(2)` put them together; `nbs/7_training/runs.ipynb` goes on from there.
The third stage's result is `tiny`, whose card tells how the run was made.

Licence: Apache-2.0, as the code.
""",
            encoding="utf-8",
        ),
    )


def ship_pretrained(folder: Path, run: dict):
    """Towers or a language model: what `pretrain` wrote, but for the state it goes on from, and a
    card.
    """
    towers = "legs" in run
    name = "tiny-griffon-lm" if run.get("style") == "griffon" else "tiny-lm"
    out = WEIGHTS / ("tiny-towers" if towers else name)
    shutil.copytree(
        folder, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("state.pt", "*.part")
    )
    write_whole(
        out / "README.md",
        lambda p: p.write_text((towers_card if towers else lm_card)(run), encoding="utf-8"),
    )
    print(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--n", type=int, default=1000)
    args = parser.parse_args()
    run = json.loads((Path(args.run) / "run.json").read_text())
    if "stages" not in run:
        return ship_pretrained(Path(args.run), run)
    settings = run["settings"]
    out = WEIGHTS / settings["preset"]
    if settings.get("lm"):
        raise ValueError(
            f"{args.run} began with the language model {settings['lm']}: expected the shipped one,"
            " which the card names; ship that one first and train without --lm."
        )
    if settings["preset"] == "tiny":
        ship_stages(Path(args.run), settings["seed"])
    save_model(*load_model(args.run), out, half=True)
    fit_scores(out)
    scores = evaluate(Ferret.load(str(out)), "scenes", args.n)
    write_json(out / "eval.json", scores, 1)
    write_json(out / "run.json", run, 1)
    command = (
        f"ferretlite train --preset {settings['preset']} --stage {settings['stage']} --samples"
        f" {sum(run['steps']) * 16} --seed"
        f" {settings['seed']}{' --compile' if settings.get('compile') else ''} --out"
        f" runs/{settings['preset']}"
    )
    write_whole(
        out / "README.md",
        lambda p: p.write_text(card(run, scores, command, args.n), encoding="utf-8"),
    )
    print(f"{out}: {sum(f.stat().st_size for f in out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
