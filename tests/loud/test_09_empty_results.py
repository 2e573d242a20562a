"""Where there is nothing to ask, measure or compare, there is an error and no empty result."""

from types import SimpleNamespace

import pytest

from ferretlite.common.errors import FerretliteWarning, InputError
from ferretlite.evaluation.experiments import Claim, judge_claims, run_study
from ferretlite.evaluation.planning import plan_training
from ferretlite.evaluation.selftest import selftest
from ferretlite.evaluation.speed import bench_projectors, bench_resolution, bench_sampler
from ferretlite.evaluation.suites import evaluate
from ferretlite.model.answers import Answer
from ferretlite.regions.geometry import Box
from ferretlite.scenes.questions import Conversation
from ferretlite.scenes.world import Phrase, Scene, make_scene


def model(style="ferret"):
    "A model that answers nothing to every question."
    config = SimpleNamespace(style=style)

    def ask(images, prompts, *rest, **options):
        return [Answer("", image=image) for image in images]

    return SimpleNamespace(processor=SimpleNamespace(config=config), ask=ask)


def picture(**more):
    return Scene(make_scene(0, 96).image, (96, 96), **more)


@pytest.mark.parametrize("style", ["ferret", "griffon"])
@pytest.mark.parametrize(
    "records",
    [
        [],
        [picture()],
        [picture(split="count"), picture(split="novel")],
        [picture(phrases=[Phrase("a star", [Box(1, 1, 20, 20)])])],
    ],
    ids=["no records", "no objects", "nothing to count or to search", "phrases alone"],
)
def test_records_without_a_question_are_an_error(records, style):
    message = f"suite: found {len(records)} records and no question to ask about them, expected"
    with pytest.raises(InputError, match=message):
        evaluate(model(style), records, progress=False)


def test_records_of_another_kind_are_named():
    for record, kind in ((Conversation("", (96, 96), []), "Conversation"), ("a poem", "str")):
        message = f"suite, record 1: found an object of type {kind}, expected a Scene"
        with pytest.raises(InputError, match=message):
            evaluate(model(), [make_scene(0, 96), record], progress=False)


def test_records_of_another_kind_are_refused_before_a_bar_is_drawn(capsys):
    with pytest.raises(InputError, match="suite, record 0: found an object of type int"):
        evaluate(model(), [1, 2])
    assert not capsys.readouterr().err


def test_some_records_without_a_question_are_counted():
    with pytest.warns(FerretliteWarning, match="2 of 3 records pose no question"):
        scenes = [picture(), make_scene(0, 96), picture()]
        scores = evaluate(model(), scenes, progress=False, closer=False)
    assert scores["rec.acc@0.5"]["n"] == 1


@pytest.mark.parametrize("wrong", [dict(n=0), dict(batch=0), dict(suite="coco")])
def test_an_evaluation_of_nothing_is_refused_by_name(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(InputError, match=f"{name}: found {value!r}, expected"):
        evaluate(model(), progress=False, **wrong)


def test_a_study_needs_arms_and_seeds_and_claims_about_its_arms(tmp_path):
    with pytest.raises(InputError, match="arms: found {}, expected at least one arm"):
        run_study({}, 3, {}, None, tmp_path)
    with pytest.raises(InputError, match="seeds: found 0, expected at least one seed"):
        run_study(dict(a={}), 0, {}, None, tmp_path)
    with pytest.raises(InputError, match="claims: found the arm 'c', expected one of a, b"):
        judge_claims([Claim("c beats b", "c", "b", "score")], dict(a=[], b=[]))


@pytest.mark.parametrize(
    "bench, wrong, name",
    [
        (bench_projectors, dict(sides=()), "sides"),
        (bench_projectors, dict(sides=(56, 14)), "sides"),
        (bench_projectors, dict(n=0), "n"),
        (bench_sampler, dict(n=0), "n"),
        (bench_sampler, dict(runs=0), "runs"),
        (bench_resolution, dict(n=0), "n"),
        (selftest, dict(device="cpu", n=0), "n"),
    ],
)
def test_nothing_to_measure_is_an_error(bench, wrong, name):
    with pytest.raises(InputError, match=f"{name}: found .*, expected at least one"):
        bench(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(gpus=0),
        dict(gpus=1.5),
        dict(gpu_memory=0),
        dict(gpu_memory=float("nan")),
        dict(utilisation=0),
        dict(utilisation=40),
        dict(lora=-1),
        dict(text=-5),
        dict(gpu="h200"),
        dict(sharding="some"),
    ],
)
def test_a_plan_of_nothing_is_refused_by_name(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(InputError, match=f"{name}: found {value!r}, expected"):
        plan_training("small", **wrong)
