"""The resolution study: its arms and claims as published, what is asked, and what is kept."""

import hashlib
import inspect

import numpy as np
import pytest
from PIL import Image

from ferretlite.common.files import WEIGHTS
from ferretlite.evaluation import studies
from ferretlite.evaluation.studies import (
    _RESOLUTION_ARMS,
    _RESOLUTION_CLAIMS,
    _RESOLUTION_SETTINGS,
    _TOKEN_CLAIMS,
    STUDIES,
    _ask_by_size,
    _hash_start_weights,
    _measure_costs,
    _summarise_answers,
)
from ferretlite.evaluation.suites import make_questions
from ferretlite.model.answers import Answer
from ferretlite.regions.geometry import Box
from ferretlite.regions.grammar import Grounding
from ferretlite.scenes.world import make_scene
from ferretlite.training.stages import STAGES


def test_arms_as_published():
    one = dict(local_tower=None, fusion="sum")
    assert _RESOLUTION_ARMS == {
        "fixed": dict(preset="tiny", config=dict(one, resolution="fixed")),
        "direct": dict(preset="tiny", config=dict(one, resolution="direct")),
        "any": dict(preset="tiny", config=dict(one, resolution="anyres")),
        "direct, towers learn": dict(preset="tiny-unfrozen", config=dict(one, resolution="direct")),
        "any, towers learn": dict(preset="tiny-unfrozen", config=dict(one, resolution="anyres")),
        "fixed, 144 tokens": dict(preset="tiny", config=dict(one, resolution="fixed", merge=1)),
        "direct, 36 tokens": dict(preset="tiny", config=dict(one, resolution="direct", merge=4)),
    }
    assert {k: v for k, v in _RESOLUTION_SETTINGS.items() if k != "start"} == dict(
        study="resolution", tower="local", samples=5008, scenes=300
    )
    assert list(STUDIES) == ["resolution"]
    assert STUDIES["resolution"] == (
        _RESOLUTION_ARMS,
        _RESOLUTION_SETTINGS,
        _RESOLUTION_CLAIMS + _TOKEN_CLAIMS,
        studies._train_and_ask,
    )


def test_claims_as_published():
    rows = [(c.arm, c.against, c.metric) for c in _RESOLUTION_CLAIMS]
    assert rows == [
        ("direct", "fixed", "test rec"),
        ("any", "direct", "test rec"),
        ("any", "fixed", "test rec small"),
        ("direct", "fixed", "test name"),
        ("any", "direct", "test name"),
        ("any", "fixed", "test name small"),
        ("direct, towers learn", "direct", "test rec"),
        ("any, towers learn", "any", "test rec"),
        ("any", "fixed", "large rec"),
    ]
    pairs = [
        ("fixed, 144 tokens", "fixed"),
        ("direct, 36 tokens", "fixed"),
        ("direct", "fixed, 144 tokens"),
        ("direct", "direct, 36 tokens"),
    ]
    rows = [(c.arm, c.against, c.metric) for c in _TOKEN_CLAIMS]
    assert rows == [(*pair, metric) for metric in ("test rec", "test name") for pair in pairs]
    assert [c.text.split(" in ")[-1] for c in _TOKEN_CLAIMS] == ["finding"] * 4 + ["naming"] * 4
    assert [c.text.split(":")[0] for c in _TOKEN_CLAIMS[:4]] == [
        "tokens alone",
        "size alone",
        "size at equal tokens",
        "tokens at equal size",
    ]
    assert all((c.at_least, c.beyond) == (0.0, None) for c in _RESOLUTION_CLAIMS + _TOKEN_CLAIMS)


def test_the_start_is_weights_and_stages():
    for tower in ("local", "global"):
        data = (WEIGHTS / "tiny-lm/model.safetensors").read_bytes()
        data += (WEIGHTS / f"tiny-towers/{tower}/model.safetensors").read_bytes()
        stages = repr([STAGES["tiny"], STAGES["tiny-unfrozen"]])
        data += stages.replace("attention_weight=", "look=").encode()  # its name in the records
        assert _hash_start_weights(tower) == hashlib.sha256(data).hexdigest()[:12]


# -- asking


class Scripted:
    """Answers as told by (prompt, picture); knows nothing else."""

    def __init__(self, known):
        self.known, self.images = known, []

    def ask(self, image, prompt, regions=None, crops=None, **options):
        self.images += image
        return [self.known.get((p, i.tobytes()), Answer("?")) for p, i in zip(prompt, image)]


def questions(n, split="test"):
    scenes = [make_scene(i, 384, split) for i in range(n)]
    return [
        q
        for i, s in enumerate(scenes)
        for q in make_questions(s, f"0 {split} {i}", ("rec", "name"))
    ]


def test_rows_of_right_and_wrong_answers():
    """Scene 0 is answered right, by a box that overlaps by .6; scene 1 by one of .49 and part of
    the name; scene 2 not at all.
    """
    asked, known = questions(3), {}
    for number, q in enumerate(asked):
        box, phrase = q.turn.meta["box"], q.turn.meta.get("phrase", "")
        said = f"The {phrase.upper()}."
        far = Box(0, 0, 1, 1)
        boxes = [Box(box.x1, box.y1, box.x2, box.y1 + 0.6 * box.height), far]
        if number >= 2:
            said = phrase[1:]
            boxes = [Box(box.x1, box.y1, box.x2, box.y1 + 0.49 * box.height), box]
        if number < 4:
            known[q.turn.prompt, q.scene.image.tobytes()] = Answer(
                said, [Grounding("", []), Grounding("x", boxes)]
            )
    rows = _ask_by_size(Scripted(known), "test", 3)
    assert [(split, task, right) for split, task, _, _, right in rows] == [
        ("test", "rec", 1),
        ("test", "name", 1),
        ("test", "rec", 0),
        ("test", "name", 0),
        ("test", "rec", 0),
        ("test", "name", 0),
    ]
    for (_, _, height, size, right), q in zip(rows, asked, strict=True):
        box = q.turn.meta["box"]
        side = max(box.width, box.height)
        assert height == round(box.height, 1) and type(right) is int
        assert (size == "small", size == "large") == (side < 32, side > 64)
    assert len({row[2] for row in rows}) > 3  # heights, not one side for all


@pytest.mark.parametrize("blur", [2, 3])
def test_blurred_pictures_are_shrunk_and_enlarged(blur):
    ferret = Scripted({})
    rows = _ask_by_size(ferret, "large", 1, blur=blur)
    assert [row[0] for row in rows] == ["blurred", "blurred"]
    image = make_scene(0, 384, "large").image
    small = image.resize((384 // blur, 384 // blur), Image.Resampling.BILINEAR)
    expected = np.asarray(small.resize((384, 384), Image.Resampling.BILINEAR))
    for seen in ferret.images:
        assert (np.asarray(seen) == expected).all()
    sharp = Scripted({})
    assert [row[0] for row in _ask_by_size(sharp, "large", 1)] == ["large", "large"]
    assert all((np.asarray(seen) == np.asarray(image)).all() for seen in sharp.images)
    assert inspect.signature(_ask_by_size).parameters["blur"].default == 1


def test_shares_by_task_and_size():
    rows = [
        ["test", "rec", 9.0, "small", 1],
        ["test", "rec", 9.0, "small", 0],
        ["test", "rec", 90.0, "large", 1],
        ["test", "name", 9.0, "small", 0],
        ["blurred", "rec", 9.0, "medium", 1],
    ]
    assert _summarise_answers(rows) == {
        "test rec": pytest.approx(2 / 3),
        "test rec small": 0.5,
        "test rec large": 1,
        "test name": 0,
        "test name small": 0,
        "blurred rec": 1,
        "blurred rec medium": 1,
    }
    assert _summarise_answers([]) == {}


def test_costs_are_those_of_a_square_of_384_pixels(monkeypatch):
    def cost(config, image):
        assert config == "a configuration" and image.size == (384, 384)
        return dict(tokens=1, grid=(1, 2), gflop=2.5, prepare_ms=3, see_ms=4, mb=5)

    monkeypatch.setattr(studies, "measure_image_cost", cost)
    assert _measure_costs("a configuration") == dict(tokens=1, gflop=2.5, see_ms=4, mb=5)


@pytest.mark.parametrize("begun", [False, True])
def test_one_run_trains_an_arm_and_asks_it_four_times(monkeypatch, tmp_path, begun):
    folder, calls = tmp_path / "run", []
    if begun:
        folder.mkdir()
        (folder / "run.json").write_text("{}")

    def train(preset, stages, out, samples, *, seed, towers, config, resume):
        tower = (WEIGHTS / "tiny-towers/local/model.safetensors").read_bytes()
        for side in ("global", "local"):
            assert (studies.Path(towers) / side / "model.safetensors").read_bytes() == tower
        calls.append((preset, stages, out, samples, seed, config, resume))
        for name in ("stage-1", "stage-2", "kept"):
            (out / name).mkdir(parents=True)

    class Loaded:
        model = type("Model", (), dict(config="its configuration"))

        @staticmethod
        def load(path):
            assert path == folder
            return Loaded

    def ask(ferret, split, n, blur=1):
        assert ferret is Loaded
        calls.append((split, n, blur))
        return [[split if blur == 1 else "blurred", "rec", 9.0, "small", len(calls) % 2]]

    monkeypatch.setattr(studies, "train", train)
    monkeypatch.setattr(studies, "Ferret", Loaded)
    monkeypatch.setattr(studies, "_ask_by_size", ask)
    monkeypatch.setattr(
        studies,
        "_measure_costs",
        lambda config: dict(tokens=7) if config == "its configuration" else None,
    )
    settings = {
        **_RESOLUTION_SETTINGS,
        **_RESOLUTION_ARMS["any, towers learn"],
        "seed": 5,
        "scenes": 31,
        "samples": 99,
    }
    found = studies._train_and_ask(settings, str(folder))
    assert calls == [
        ("tiny-unfrozen", "all", folder, 99, 5, _RESOLUTION_ARMS["any"]["config"], begun),
        ("test", 31, 1),
        ("large", 15, 1),
        ("test", 31, 2),
    ]
    rows = [
        [split, "rec", 9.0, "small", right]
        for split, right in (("test", 0), ("large", 1), ("blurred", 0))
    ]
    assert found == {
        "test rec": 0,
        "test rec small": 0,
        "large rec": 1,
        "large rec small": 1,
        "blurred rec": 0,
        "blurred rec small": 0,
        "tokens": 7,
        "asked": rows,
    }
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == ["kept"]


def test_nothing_is_trained_from_another_start(monkeypatch, tmp_path):
    trained = []
    monkeypatch.setattr(studies, "train", lambda *arguments, **more: trained.append(arguments))
    settings = {
        **_RESOLUTION_SETTINGS,
        **_RESOLUTION_ARMS["fixed"],
        "seed": 0,
        "start": _hash_start_weights("global"),
    }
    with pytest.raises(
        ValueError,
        match="expected " + _hash_start_weights("local"),
    ):
        studies._train_and_ask(settings, tmp_path / "run")
    assert trained == [] and not (tmp_path / "run").exists()
