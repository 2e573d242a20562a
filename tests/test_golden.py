"""Fixed questions to the shipped models, with the answers they give today.

The answers lie in `tests/golden/MODEL.json`. They change only by `pytest tests/test_golden.py
--update-golden`,
which asks about new scenes until it has found answers whose every token wins clearly, so that
another processor
writes the same text. Look at the diff of that file before you commit it.
"""

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from ferretlite.evaluation.suites import _ANSWER_TOKEN_LIMITS, make_questions
from ferretlite.model import inference
from ferretlite.model.inference import Ferret
from ferretlite.regions.geometry import Box, Mask, Point
from ferretlite.scenes.world import make_example, make_scene

GOLDEN = Path(__file__).parent / "golden"
MARGIN = (
    0.03  # least lead of a token's logit over the next one; other processors differ by about 0.0001
)
SEEDS = range(5000, 5400)  # of the scenes that are asked about; training and evaluation show others
SIZES = (384, (256, 384), (384, 288))  # side, or (height, width)

# model -> kind of question -> how many; the kinds are tasks of the evaluation and methods of Ferret
WANTED = {
    "tiny": {
        "rec": 3, "point": 1, "box": 1, "mask": 1, "choose": 2, "phrase": 2, "word": 1,
        "dense_detection": 1, "count": 1, "ask ground": 2, "ask refer": 1, "ask describe": 1,
        "ask detect": 2, "ask count": 1,
    },
    "tiny-griffon": {
        "rec": 3, "find": 2, "find_set": 2, "find_phrases": 1, "tell": 2, "same": 1, "other": 1,
        "novel": 1, "ask ground": 2, "ask describe": 1, "ask detect": 1, "ask count": 1,
        "ask find": 2,
    },
}  # fmt: skip


POINTED = ("same", "other", "novel", "find", "ask find")  # kinds whose answer has to hold a box


# -- questions as plain JSON


def region_from(held: dict):
    """A point, box or mask from its JSON form."""
    if "point" in held:
        return Point(*held["point"])
    return Box(*held["box"]) if "box" in held else Mask(held["mask"])


def region_as_json(region) -> dict:
    if isinstance(region, Point):
        return {"point": [region.x, region.y]}
    return {"box": region.list()} if isinstance(region, Box) else {"mask": region.rle}


def plain(groundings) -> list:
    """Groundings as names, boxes in pixels and scores."""
    return [
        {
            "name": g.name,
            "boxes": [[round(float(v), 3) for v in box.list()] for box in g.boxes],
            "scores": [float(f"{float(s):.5g}") for s in g.raw_scores],  # the papers' product
        }
        for g in groundings
    ]


def answer(ferret, question: dict) -> dict:
    """Ask one question and return the answer as JSON."""
    scene = make_scene(question["seed"], as_size(question["size"]), question["split"])
    method, options = question["method"], dict(question["options"])
    for name in ("region", "like"):
        if name in options:
            options[name] = picture_or_region(options[name])
    if "regions" in options:
        options["regions"] = [region_from(r) for r in options["regions"]]
    if "crops" in options:
        options["crops"] = [crop_from(c, scene.image) for c in options["crops"]]
    found = getattr(ferret, method)(scene.image, **options)
    if isinstance(found, (int, str)):
        return {"value": found}
    if isinstance(found, list):
        return {"groundings": plain(found)}
    return {"text": found.text, "raw_text": found.raw_text, "groundings": plain(found.groundings)}


def as_size(size):
    return tuple(size) if isinstance(size, list) else size


def picture_or_region(held: dict):
    return make_example(*held["example"]) if "example" in held else region_from(held)


def crop_from(held: dict, image):
    """A crop: a drawn example, or the part of the image in a box."""
    from ferretlite.scenes.questions import Crop

    return (
        Crop(make_example(*held["example"]))
        if "example" in held
        else Crop(image, Box(*held["box"]))
    )


# -- looking for questions with a clear answer


class Margins:
    """Remembers the smallest lead of a chosen token over the next one, over all answers of a
    model.
    """

    def __init__(self, ferret):
        self.ferret, self.generate, self.least = ferret, ferret.model.generate, float("inf")

    def __enter__(self):
        self.ferret.model.generate = self.spy
        self.slow = mock.patch.object(inference, "is_plain_llama", lambda *_: False)
        self.slow.start()  # the fast loop does not give away its logits
        return self

    def __exit__(self, *_):
        self.slow.stop()
        self.ferret.model.generate = self.generate

    def spy(self, **inputs):
        out = self.generate(**inputs)
        end = self.ferret.processor.tokenizer.eos_token_id
        best = torch.stack(out.logits, 1).float().topk(2, -1).values  # [B, L, 2]
        for row, tokens in zip(
            best[..., 0] - best[..., 1], out.sequences[:, -best.shape[1] :].tolist()
        ):
            length = tokens.index(end) + 1 if end in tokens else len(tokens)
            self.least = min(self.least, row[:length].min().item())
        return out


def candidates(model: str, seed: int) -> list:
    """Questions about one scene: (kind, question)."""
    size = SIZES[seed % len(SIZES)]
    style = "griffon" if "griffon" in model else "ferret"
    found = []
    for split in ("test", "count", "novel") if style == "griffon" else ("test", "count"):
        scene = make_scene(seed, size, split)
        where = {"seed": seed, "size": size, "split": split}
        for asked in make_questions(scene, f"golden {seed} {split}", style=style):
            turn = asked.turn
            options = {"prompt": turn.prompt, "max_new_tokens": _ANSWER_TOKEN_LIMITS[turn.task]}
            if turn.regions:
                options["regions"] = [region_as_json(r) for r in turn.regions]
            kind = turn.meta["form"] if turn.task == "name" else turn.task
            if turn.task == "search":
                kind = "novel" if split == "novel" else turn.meta["source"]
                crop, name = turn.crops[0], turn.meta["kind"]
                options["crops"] = [
                    {"example": [name, seed]} if crop.box is None else {"box": crop.box.list()}
                ]
            found.append((kind, {**where, "method": "ask", "options": options}))
        if split == "test" and scene.objects:
            found += [
                (f"ask {m}", {**where, "method": m, "options": o}) for m, o in calls(scene, style)
            ]
    return found


def calls(scene, style: str) -> list:
    """Calls of Ferret's methods about a scene: (method, arguments)."""
    first, last = scene.objects[0], scene.objects[-1]
    names = sorted({o.name for o in scene.objects if not o.text})[:2] or ["star"]
    box = {"box": [round(v, 1) for v in last.box.list()]}
    listed = f"a {first.phrase} and a {last.phrase}"
    found = [
        ("ground", {"phrase": f"the {first.phrase}"}),
        ("describe", {"region": box}),
        ("detect", {"names": names}),
        ("count", {"name": names[0]}),
    ]
    if style == "griffon":
        found.append(("ground", {"phrase": [f"the {first.phrase}", f"the {last.phrase}"]}))
        return [
            *found,
            ("find", {"like": box}),
            ("find", {"like": {"example": [names[0], scene.seed]}}),
        ]
    return [*found, ("ground", {"caption": listed}), ("refer", {"region": box}), ("detect", {})]


def shape_of(options: dict) -> str:
    """Names and types of the arguments: the same for two questions that take the same path."""
    kinds = {k: list(v) if isinstance(v, dict) else type(v).__name__ for k, v in options.items()}
    return json.dumps(kinds, sort_keys=True)


def find_questions(ferret, model: str) -> list:
    """Find a model's golden questions. Raise RuntimeError where clear answers run out."""
    left, held, used = dict(WANTED[model]), [], set()
    for seed in SEEDS:
        for kind, question in candidates(model, seed):
            variant = kind + shape_of(question["options"])
            if not left.get(kind) or (kind.startswith("ask") and variant in used):
                continue
            with Margins(ferret) as margins:
                found = answer(ferret, question)
            is_empty = not found.get("groundings") if kind in POINTED else not any(found.values())
            if margins.least < MARGIN or is_empty:
                continue
            used.add(variant)
            left[kind] -= 1
            held.append(
                {"kind": kind, **question, "margin": round(margins.least, 3), "answer": found}
            )
            break  # one question a scene
        if not any(left.values()):
            return sorted(held, key=lambda q: list(WANTED[model]).index(q["kind"]))
    raise RuntimeError(f"{model}: no clear answers for {[k for k, n in left.items() if n]}")


# -- the tests


def read_golden(model: str) -> list:
    return json.loads((GOLDEN / f"{model}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def ferrets() -> dict:
    return {model: Ferret.load(model, device="cpu") for model in WANTED}


def questions():
    """Every stored question as a test parameter; nothing where the files are not there yet."""
    found = []
    for model in WANTED:
        held = read_golden(model) if (GOLDEN / f"{model}.json").exists() else []
        found += [
            pytest.param(model, q, id=f"{model}-{i}-{q['kind'].replace(' ', '-')}")
            for i, q in enumerate(held)
        ]
    return found


@pytest.mark.parametrize("model", WANTED)
def test_golden_files_hold_twenty_clear_answers(model, ferrets, request):
    if request.config.getoption("--update-golden"):
        lines = ",\n".join(map(json.dumps, find_questions(ferrets[model], model)))
        (GOLDEN / f"{model}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    held = read_golden(model)
    assert len(held) == sum(WANTED[model].values()) == 20
    assert min(q["margin"] for q in held) >= MARGIN


@pytest.mark.parametrize("model, question", questions())
def test_golden_answer(model, question, ferrets):
    found, expected = answer(ferrets[model], question), question["answer"]
    assert found.keys() == expected.keys()
    for key in found.keys() - {"groundings"}:
        assert found[key] == expected[key]
    for mine, theirs in zip(
        found.get("groundings", []), expected.get("groundings", []), strict=True
    ):
        assert mine["name"] == theirs["name"]
        assert np.shape(mine["boxes"]) == np.shape(theirs["boxes"])
        np.testing.assert_allclose(mine["boxes"], theirs["boxes"], rtol=0, atol=0.002)
        np.testing.assert_allclose(mine["scores"], theirs["scores"], rtol=3e-3, atol=1e-6)


@pytest.mark.parametrize("model", WANTED)
def test_golden_answers_asked_together_are_the_same(model, ferrets):
    """A batch of unlike questions gives what each gave alone."""
    held = [q for q in read_golden(model) if q["method"] == "ask" and "crops" not in q["options"]][
        :8
    ]
    images = [make_scene(q["seed"], as_size(q["size"]), q["split"]).image for q in held]
    options = [q["options"] for q in held]
    regions = [[region_from(r) for r in o.get("regions", [])] for o in options]
    answers = ferrets[model].ask(
        images, [o["prompt"] for o in options], regions, max_new_tokens=448
    )
    assert [a.raw_text for a in answers] == [q["answer"]["raw_text"] for q in held]
