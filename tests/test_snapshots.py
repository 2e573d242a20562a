"""What the model is asked and trained on, as it is today.

`tests/golden/prompts.json` holds the words of every style, stage and evaluation suite (those of
every task lie in `questions.json`, see test_questions.py), and
`tests/golden/batches.json` one training batch of each stage of the shipped models. Both change
only by `pytest tests/test_snapshots.py --update-golden`. Look at the diff before you commit it: a
model that was trained on other words than it is asked answers worse, and nothing fails.
"""

import itertools
import json
import random
from pathlib import Path

import pytest
import torch

from ferretlite.common.files import WEIGHTS
from ferretlite.data.batches import Collator
from ferretlite.data.recipes import PAPER_RECIPES
from ferretlite.evaluation.suites import make_questions
from ferretlite.model.inference import format_grounding_question
from ferretlite.model.processing import FerretProcessor
from ferretlite.model.tokens import format_user_turn
from ferretlite.model.towers import CHAT_TEMPLATES
from ferretlite.scenes.conversations import make_conversation
from ferretlite.scenes.questions import name_region_form
from ferretlite.scenes.world import make_scene
from ferretlite.training.stages import STAGES, make_stage_processor
from ferretlite.training.trainer import make_stage_data

GOLDEN = Path(__file__).parent / "golden"
SHIPPED = ("tiny", "tiny-griffon")
TOLERANCE = 1e-4  # of the checksums of floats

# -- prompts


def turn_as_json(turn) -> dict:
    """A question and its answer, with the forms of its regions and the number of its crops."""
    held = {"task": turn.task, "prompt": turn.prompt, "answer": turn.answer}
    if turn.regions:
        held["regions"] = [
            f"{name_region_form(r)} {[round(v, 2) for v in r.box().list()]}" for r in turn.regions
        ]
    if turn.crops:
        held["crops"] = len(turn.crops)
    return held


def evaluation_prompts() -> dict:
    """The questions of the suite `scenes`: two scenes of each split, in both styles."""
    found = {}
    for style, splits in (("ferret", ("test", "count")), ("griffon", ("test", "count", "novel"))):
        for split, seed in itertools.product(splits, (3, 4)):
            asked = make_questions(make_scene(seed, 384, split), f"0 {split} {seed}", style=style)
            key = f"{style} {split} {seed}"
            found[key] = [
                turn_as_json(q.turn) | ({"group": q.group} if q.group else {}) for q in asked
            ]
    return found


def training_prompts() -> dict:
    """One conversation of each stage's mixture, of its first part too."""
    found = {}
    for preset, stages in STAGES.items():
        if preset not in SHIPPED:
            continue
        for stage, part in itertools.product(stages, ("first", "tasks")):
            if tasks := getattr(stage, part):
                scene = make_scene(77, (384, 320), "train")
                talk = make_conversation(
                    scene, tasks, random.Random(f"{preset} {stage.name}"), stage.n_turns
                )
                found[f"{preset}, {stage.name}, {part}"] = [turn_as_json(t) for t in talk.turns]
    return found


def chat_prompts() -> dict:
    """A question in the words of every chat family."""
    tokenizer, found = processor_of("tiny").tokenizer, {}
    own = tokenizer.chat_template
    for family, template in {"tiny": own, **CHAT_TEMPLATES}.items():
        tokenizer.chat_template = template
        found[family] = format_user_turn(tokenizer, "Where is the star?")
    tokenizer.chat_template = own
    return found


def grounding_prompts() -> dict:
    """What `Ferret.ground` asks for one phrase, for several, and for one with a relation."""
    cases = (["the red star"], ["cup left of the star"], ["red star", "the cup", "an anchor"])
    return {s: [format_grounding_question(c, s) for c in cases] for s in ("ferret", "griffon")}


def prompts() -> dict:
    return {
        "evaluation": evaluation_prompts(),
        "training": training_prompts(),
        "chat": chat_prompts(),
        "grounding": grounding_prompts(),
        "mixtures": PAPER_RECIPES,
    }


# -- batches


def processor_of(model: str) -> FerretProcessor:
    return FerretProcessor.from_pretrained(WEIGHTS / model)


def runs(values) -> str:
    """Run-length code of whole numbers: `4*36 17 17` for 36 times 4, then 17 twice."""
    counted = [(int(value), len(list(same))) for value, same in itertools.groupby(values)]
    return " ".join(f"{v}*{n}" if n > 2 else " ".join([str(v)] * n) for v, n in counted)


def checksum(tensor: torch.Tensor) -> dict:
    """Mean, mean square, and per axis the mean under weights that rise from -1 to 1 along that
    axis.
    """
    values, found = tensor.double(), []
    if tensor.numel():
        found = [values.mean(), (values**2).mean()]
        for axis, length in enumerate(tensor.shape):
            ramp = torch.linspace(-1, 1, length, dtype=torch.double)
            found.append((values.movedim(axis, -1) * ramp).mean())
    return {"shape": list(tensor.shape), "floats": [round(float(v), 6) for v in found]}


def entry_as_json(value):
    """One entry of a batch: integers in full, floats as checksums, everything else by its own JSON
    form.
    """
    if not torch.is_tensor(value):
        return json.loads(
            json.dumps(value, default=lambda r: f"{name_region_form(r)} {r.box().list()}")
        )
    if value.is_floating_point():
        return checksum(value)
    return {
        "shape": list(value.shape),
        "dtype": str(value.dtype),
        "runs": runs(value.flatten().tolist()),
    }


def stage_batch(model: str, number: int) -> dict:
    """Three conversations of a stage, from its first part and from its end, as the trainer
    collates them.
    """
    stage = STAGES[model][number]
    data = make_stage_data(stage, 600, seed=0, number=number + 1)
    collate = Collator(
        make_stage_processor(processor_of(model), stage),
        max_text_tokens=288,
        mark_boxes=stage.attention_weight > 0,
    )
    return {k: entry_as_json(v) for k, v in collate([data[i] for i in (0, 5, 599)]).items()}


# -- the tests


def as_lines(stored: dict) -> str:
    """JSON with one line for each entry of the second level, so that a diff can be read."""
    parts = []
    for name, entries in stored.items():
        held = entries.items() if isinstance(entries, dict) else {"": entries}.items()
        lines = ",\n".join(
            f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in held
        )
        parts.append(f"{json.dumps(name)}: {{\n{lines}\n}}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def compare(name: str, found: dict, request) -> dict:
    """Return what is stored under a name; with --update-golden store what was found."""
    path = GOLDEN / name
    if request.config.getoption("--update-golden"):
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        stored.update(found)
        path.write_text(as_lines(stored), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def test_canonical_prompts_and_answers_have_not_changed(request):
    found = json.loads(json.dumps(prompts()))
    stored = compare("prompts.json", found, request)
    assert found.keys() == stored.keys()
    for part in stored:
        assert found[part] == stored[part], part


@pytest.mark.parametrize("model", SHIPPED)
@pytest.mark.parametrize("number", range(3))
def test_training_batch_has_not_changed(model, number, request):
    name, found = f"{model} {number + 1}", stage_batch(model, number)
    stored = compare("batches.json", {name: found}, request)[name]
    assert found.keys() == stored.keys()
    for key, value in stored.items():
        if isinstance(value, dict) and "floats" in value:
            assert found[key]["shape"] == value["shape"], key
            assert found[key]["floats"] == pytest.approx(value["floats"], abs=TOLERANCE), key
        else:
            assert found[key] == value, key
