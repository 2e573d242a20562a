"What a training says before it starts: parts, data, time, and warnings about what cannot succeed."

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ferretlite.app.model_commands import _fit_scores_of_run
from ferretlite.common.errors import FerretliteWarning, InputError
from ferretlite.common.files import WEIGHTS
from ferretlite.model.loading import load_model
from ferretlite.training import speed
from ferretlite.training.distributed import RunOptions
from ferretlite.training.runs import _apply_to_stages, _Request, _Start
from ferretlite.training.speed import (
    announce_run,
    describe_plan,
    describe_stage_data,
    estimate_minutes,
    format_learning_parts,
    holds_photographs,
    knows_only_glyphs,
    plan_run,
    warn_of_glyph_towers,
)
from ferretlite.training.stages import TINY_STAGES, Stage
from ferretlite.training.trainer import apply_options

LAST = Stage("III last", ("sampler", "language_model"), {}, 1, n_turns=3, batch_size=10, visits=4)


class Model:
    "A model of three parts with 2, 0 and 1.5 million weights."

    global_tower = local_tower = None

    def parts(self):
        sizes = dict(global_tower=2_000_000, local_tower=0, sampler=1_500_000)
        return {name: [torch.zeros(n)] if n else [] for name, n in sizes.items()}

    def parameters(self):
        return [weights for part in self.parts().values() for weights in part]


class Reader:
    "A reader of pictures with names."

    def __init__(self, names, left_out=0):
        self.pictures, self.left_out = names, Counter(broken=left_out)

    def __len__(self):
        return len(self.pictures)


def mixture(*readers, weights=None):
    "A mixture whose parts are read `weights` times in an epoch."
    weights = weights or [1] * len(readers)
    sizes = [len(r) * w for r, w in zip(readers, weights)]
    parts = [(SimpleNamespace(name=f"part{k}"), r) for k, r in enumerate(readers)]
    return SimpleNamespace(parts=parts, sizes=sizes, ends=[sum(sizes[: k + 1]) for k in range(9)])


# Parts


def test_unfrozen_parts_learn_and_towers_learn_slowly():
    found = apply_options(LAST, RunOptions(unfreeze=["local_tower", "visual_position", "sampler"]))
    assert found.trains == ("sampler", "language_model", "local_tower", "visual_position")
    assert found.slow == dict(local_tower=0.1) and found.visits == 1
    assert apply_options(found, RunOptions(unfreeze=["local_tower"])) == found
    own = RunOptions(unfreeze=["local_tower"], slow=dict(local_tower=0.5))
    assert apply_options(LAST, own).slow == dict(local_tower=0.5)
    assert apply_options(LAST, RunOptions(unfreeze=["visual_position"])).visits == 4
    taught = replace(LAST, trains=("global_tower",), visits=1)  # its rate is the stage's own
    assert apply_options(taught, RunOptions(unfreeze=["global_tower"])).slow == {}
    assert RunOptions(unfreeze=["sampler"]).list_result_options() == dict(unfreeze=["sampler"])


def test_a_part_that_the_model_lacks_is_refused():
    for part in ("tower", "local_tower"):  # unknown, and without weights
        asked = _Request("tiny", "3", "x", _Start(), options=RunOptions(unfreeze=[part]))
        expected = "expected a part of this model: global_tower, sampler"
        with pytest.raises(InputError, match=f"unfreeze: found '{part}', {expected}"):
            _apply_to_stages(Model(), [LAST], asked)
    asked = _Request("tiny", "3", "x", _Start(), options=RunOptions(), data="m.json")
    assert _apply_to_stages(Model(), [LAST], asked)[0].visits == 1  # pictures in files


def test_the_table_names_the_parts_that_learn_in_each_stage():
    first = replace(LAST, name="I first", trains=("global_tower",))
    lines = format_learning_parts(Model(), [first, LAST]).splitlines()
    assert [line.split() for line in lines] == [
        "part million weights stage I stage III".split(),
        "global_tower 2.00 learns frozen".split(),
        "sampler 1.50 frozen learns".split(),
    ]


# Data


def test_the_data_of_a_stage_are_counted():
    few = mixture(Reader(["a"] * 50, left_out=3))
    assert describe_stage_data(LAST, 1200, few) == (
        "stage III: 1,200 samples from part0 (50 records, each about 24 times, 3 left out while "
        "reading)"
    )
    assert describe_stage_data(LAST, 1200) == "stage III: 1,200 samples of drawn scenes"
    many = mixture(Reader(["a"] * 3000), Reader(["b"] * 1000), weights=[1, 3])
    assert describe_stage_data(LAST, 600, many) == (
        "stage III: 600 samples from part0 (3,000 records, about 10% used); "
        "part1 (1,000 records, about 30% used)"
    )
    assert "about 100% used" in describe_stage_data(LAST, 60, mixture(Reader(["a"] * 50)))


@pytest.mark.parametrize(
    "names, found",
    [
        (["a.jpg", "b.JPEG", "c.png"], True),
        (["a.jpg", "b.png"], False),
        (["a.png", ""], False),
        ([], False),
    ],
)
def test_photographs_are_known_by_their_ending(names, found):
    assert holds_photographs([None, mixture(Reader(names))]) is found
    assert holds_photographs([None]) is False


# Time


def test_a_plan_measures_on_the_runs_own_files(monkeypatch):
    told = []

    def measure(model, processor, stage, seed, **more):
        told.append(more)
        return 1.0

    monkeypatch.setattr(speed, "measure_seconds_per_sample", measure)
    monkeypatch.setattr(speed, "measure_seconds_per_scene", lambda *args: 0.0)
    held = mixture(Reader(["a.jpg"]))
    plan_run(None, None, [LAST, LAST], 0, minutes=10, data=[None, held])
    plan_run(None, None, [LAST], 0, minutes=10)
    assert told == [{}, dict(data=held), {}]


def test_the_time_of_given_samples_is_estimated_where_it_is_worth_it(monkeypatch):
    "200 steps of ten samples of .39 s are 780 s; a real run takes longer: 780 / 60 / .78."
    monkeypatch.setattr(speed, "measure_seconds_per_sample", lambda *args: 0.36)
    monkeypatch.setattr(speed, "measure_seconds_per_scene", lambda *args: 2.0)
    asked = Model(), None, [LAST]
    assert estimate_minutes(*asked, ([200], [30]), 0, [None]) == pytest.approx(780 / 60 / 0.78)
    assert estimate_minutes(*asked, ([99], [30]), 0, [None]) is None  # too short
    monkeypatch.setattr(speed, "_LARGEST_MEASURED", 3e6)
    assert estimate_minutes(*asked, ([200], [30]), 0, [None]) is None  # too large to copy


def test_a_plan_ends_with_samples_and_time():
    plan = describe_plan(Model(), [LAST], [200], [None], 12.34).splitlines()
    assert plan[-1] == "2,000 samples in all; about 12.3 minutes"
    assert plan[-2] == "stage III: 2,000 samples of drawn scenes"
    last = describe_plan(Model(), [LAST], [200], [None], None).splitlines()[-1]
    assert last == "2,000 samples in all; the bar shows the time left"


# Warnings


def run_record(steps, **settings):
    told = dict(minutes=None, seed=0, stage="all", from_model=None, preset="tiny")
    told |= settings
    of = dict(expected_minutes=told["minutes"], machine=dict(compile=False))
    return dict(settings=told, steps=[steps], scenes=[0], **of)


@pytest.mark.parametrize(
    "steps, settings, warned",
    [
        (499, {}, True),
        (500, {}, False),
        (10, dict(from_model="tiny"), False),
        (10, dict(stage="1"), False),
        (10, dict(preset="small"), False),
    ],
)
def test_too_few_samples_are_said_before_the_start(capsys, recwarn, steps, settings, warned):
    announce_run(Model(), None, [LAST], run_record(steps, minutes=4, **settings), [None], True)
    assert "about 4.0 minutes" in capsys.readouterr().err
    texts = [str(w.message) for w in recwarn if w.category is FerretliteWarning]
    assert texts == (["samples: found 4,990 for a model that begins with towers and language "
        "model, expected 5,000 at least; give more time, or wait until the machine is less busy."]
        if warned else [])  # fmt: skip


def test_too_few_samples_of_own_data_are_said(capsys):
    held, own = mixture(Reader(["a.jpg"])), dict(from_model="tiny", stage="3", minutes=4)
    announce_run(Model(), None, [LAST], run_record(100, **own), [held], True)
    with pytest.warns(FerretliteWarning, match="found 990 of own data, expected 1,000 at least"):
        announce_run(Model(), None, [LAST], run_record(99, **own), [held], True)


def test_the_advice_for_too_few_samples_fits_what_was_asked():
    record = run_record(10, samples=160)
    with pytest.warns(FerretliteWarning, match="at least; ask for more with --samples"):
        announce_run(Model(), None, [LAST], record, [None], fresh=True)


def test_a_resumed_run_says_no_time_and_that_it_compiles(capsys):
    record = run_record(900)
    record.update(expected_minutes=33.0, machine=dict(compile=True))
    announce_run(Model(), None, [LAST], record, [None], fresh=False)
    said = capsys.readouterr().err
    assert "the bar shows the time left" in said and "torch.compile prepares" in said
    announce_run(Model(), None, [LAST], record, [None], fresh=True)
    assert "about 33.0 minutes" in capsys.readouterr().err


def test_frozen_glyph_towers_before_photographs_are_said(recwarn):
    model, _ = load_model(WEIGHTS / "tiny")
    assert knows_only_glyphs(model)
    photographs, drawings = mixture(Reader(["a.jpg"])), mixture(Reader(["a.png"]))
    warn_of_glyph_towers(model, [LAST], [drawings])
    warn_of_glyph_towers(model, [LAST], [None])
    learns = replace(LAST, trains=("local_tower",), visits=1)
    warn_of_glyph_towers(model, [learns], [photographs])
    assert not recwarn.list
    with pytest.warns(FerretliteWarning, match="add --unfreeze global_tower"):
        warn_of_glyph_towers(model, [LAST], [photographs])
    with torch.no_grad():  # a tower that went on learning
        next(
            p for n, p in model.local_tower.named_parameters() if "patch" in n and p.ndim > 1
        ).add_(1)
    assert not knows_only_glyphs(model)


@pytest.mark.parametrize("data, told", [("mine.json", "own data"), (None, "fit-scores short")])
def test_scores_of_own_data_are_not_sent_to_drawn_scenes(tmp_path, capsys, data, told):
    stages = [TINY_STAGES[2].name]
    run = dict(settings=dict(preset="tiny"), steps=[1], stages=stages)
    (tmp_path / "run.json").write_text(json.dumps(run))
    _fit_scores_of_run(tmp_path, "short", data)
    out = capsys.readouterr().out
    assert told in out and ("fit-scores" in out) == (data is None)
