"""Turn a finished run into the weights that the package carries: `python tools/ship.py RUN [--n 1000]`.

Writes ferretlite/weights/tiny/: the model in half precision, the run's record, its scores, and a card made from both."""
import argparse
import json
from pathlib import Path

from ferretlite.evaluation import evaluate, write_json
from ferretlite.inference import Ferret
from ferretlite.pretraining import write_whole
from ferretlite.training import load_model, save_model

WEIGHTS = Path(__file__).parent.parent / "ferretlite" / "weights"
LABELS = {"rec.acc@0.5": "find what is described (IoU ≥ 0.5)", "rec.small": "… smaller than 1/12 of the side", "rec.medium": "… 1/12 to 1/6",
          "rec.large": "… larger than 1/6", "roc.point": "A or B, shown by a point", "roc.box": "A or B, by a box", "roc.mask": "A or B, by a mask",
          "name.acc": "name a region: kind, colour and fill", "phrase.acc": "ground several phrases", "word.acc": "read a word, every letter",
          "det.mAP": "detect everything, mAP", "det.AP50": "detect everything, AP50", "count.mae": "count 1–10, mean error in objects"}

def card(run: dict, scores: dict, command: str, n: int) -> str:
    "The model card: what it is, how it came to be, what it scores."
    rows = [f"| `{k}` | {label} | {m['value']:.2f} | {m['ci95'][0]:.2f}–{m['ci95'][1]:.2f} | {m['n']} | {m['chance']:.2f} | {m['constant']:.2f} |"
            for k, label in LABELS.items() if (m := scores.get(k))]
    machine = run["machine"]
    return f"""# ferretlite tiny

A Ferret-v2 of 5.5 million weights: a CLIP-style and a DINOv2-style ViT (96-pixel views, 16-pixel patches), two projectors, a region sampler and a small
Llama. It knows scenes of drawn glyphs, **not photographs**: it is for learning and teaching how such a model works.

**Made by** `{command}` from the shipped `tiny-towers` and `tiny-lm`: {sum(run['steps']) * 16:,} samples in three stages
({', '.join(f"{name.split()[0]}: {steps} steps" for name, steps in zip(run['stages'], run['steps']))} of 16 scenes), seed {run['settings']['seed']},
{run['seconds'] / 60:.0f} minutes on {machine['threads']} shared CPU core{'s' if machine['threads'] > 1 else ''} (Python {machine['python']}, torch {machine['torch']}). Scenes are procedural (`ferretlite.scenes`); training
never shows a scene of the splits below. Weights are stored in half precision.

**Scores** by `ferretlite eval tiny --suite scenes --n {n}`: scenes of the test split (counting: of the count split) with same-kind and same-colour rivals.
*Chance* picks at random, *constant* always gives the best single answer.

| key | what | value | 95 % interval | n | chance | constant |
|---|---|---|---|---|---|---|
""" + "\n".join(rows) + "\n\nLicence: Apache-2.0, as the code.\n"

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run"); parser.add_argument("--n", type=int, default=1000)
    args = parser.parse_args()
    out, run = WEIGHTS / "tiny", json.loads((Path(args.run) / "run.json").read_text())
    save_model(*load_model(args.run), out, half=True)
    scores = evaluate(Ferret.load(str(out)), "scenes", args.n)
    write_json(out / "eval.json", scores); write_json(out / "run.json", run)
    settings = run["settings"]
    command = f"ferretlite train --preset {settings['preset']} --stage {settings['stage']} --samples {sum(run['steps']) * 16} --seed {settings['seed']} --out runs/tiny"
    write_whole(out / "README.md", lambda p: p.write_text(card(run, scores, command, args.n), encoding="utf-8"))
    print(f"{out}: {sum(f.stat().st_size for f in out.iterdir()) / 1e6:.1f} MB")

if __name__ == "__main__": main()
