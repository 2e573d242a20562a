"A run's record: what it is told, how long it will be, what is written, without training."

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ferretlite.common.errors import InputError
from ferretlite.common.files import write_json
from ferretlite.data.recipes import Recipe
from ferretlite.model.loading import save_model
from ferretlite.training import runs as training
from ferretlite.training import speed
from ferretlite.training.distributed import RunOptions, write_manifest
from ferretlite.training.runs import (
    _begin_run,
    _draw_losses,
    _load_stage_data,
    _next_stage,
    _open_model,
    _open_run,
    _Request,
    _save_record,
    _select_stages,
    _Start,
    train,
)
from ferretlite.training.speed import plan_run
from ferretlite.training.stages import Stage

PLAIN = Stage("II plain", ("sampler", "language_model"), dict(rec=1.0, name=1.0), 2, n_turns=3)


class Bar:
    "A progress bar that only adds up."

    def __init__(self):
        self.n, self.text = 0, ""

    def update(self, n):
        self.n += n

    def set_postfix_str(self, text):
        self.text = text


class Clock:
    "A clock that shows the given times in turn."

    def __init__(self, *times):
        self.times = list(times)

    def __call__(self):
        return self.times.pop(0)


# A run


def test_which_stages_are_meant():
    assert _select_stages("tiny", "all") == [0, 1, 2] and _select_stages("tiny", "3") == [2]
    for stage in ("0", "4", "I"):
        with pytest.raises(ValueError, match="stage: found"):
            _select_stages("tiny", stage)


SETTINGS = dict(
    preset="tiny",
    stage="all",
    seed=0,
    samples=24,
    minutes=None,
    from_model=None,
    lm=None,
    compile=False,
    config=None,
    options={},
    data=None,
)


def asked(out, **changes):
    "What a call of `train` asks for, as far as the stages need it."
    return _Request("tiny", "all", out, _Start(), samples=24, **changes)


def write_run(folder, **changes):
    record = folder / "run.json"
    record.write_text(json.dumps(dict(settings={**SETTINGS, **changes}, steps=[1])))
    return record


@pytest.mark.parametrize(
    "name, value",
    [
        ("preset", "small"),
        ("stage", "1"),
        ("seed", 1),
        ("samples", 30),
        ("minutes", 2.0),
        ("from_model", "m"),
        ("lm", "words"),
        ("compile", True),
        ("config", dict(merge=2)),
        ("options", dict(lora=2)),
        ("data", "mixture.json"),
    ],
)
def test_a_run_goes_on_only_under_its_settings(tmp_path, name, value):
    record = write_run(tmp_path)
    assert _open_run(record, SETTINGS, True)["steps"] == [1]
    with pytest.raises(ValueError, match=f"expected {name}="):
        _open_run(record, {**SETTINGS, name: value}, True)
    if name != "minutes":  # without minutes a run keeps those it was started with
        with pytest.raises(ValueError, match=f"expected {name}="):
            _open_run(write_run(tmp_path, **{name: value}), SETTINGS, True)


def test_a_resumed_run_need_not_say_how_long_it_is(tmp_path):
    record = write_run(tmp_path, minutes=3.0)
    assert _open_run(record, {**SETTINGS, "samples": None, "minutes": None}, True)
    with pytest.raises(ValueError, match="found a run in it"):
        _open_run(record, SETTINGS, False)
    old = tmp_path / "old.json"
    fewer = {k: v for k, v in SETTINGS.items() if k not in ("lm", "data", "options")}
    old.write_text(json.dumps(dict(settings=fewer)))  # as older versions wrote it
    assert _open_run(old, SETTINGS, True)
    new = tmp_path / "new" / "run.json"
    assert _open_run(new, SETTINGS, False) is None
    assert _open_run(new, {**SETTINGS, "samples": None, "minutes": 1.0}, False) is None
    with pytest.raises(ValueError, match="samples and minutes: found neither"):
        _open_run(new, {**SETTINGS, "samples": None}, False)


def shared(*parts):
    "Stages with these shares, batch sizes and scenes."
    return [replace(PLAIN, share=s, batch_size=b, scenes=n) for s, b, n in parts]


def test_a_short_run_aligns_on_three_scenes_a_sample():
    "64 samples of shares 1 and 3: one step of 16 and three; 48 and 144 scenes at most."
    stages = shared((1, 16, 300), (3, 16, 100))
    assert plan_run(None, None, stages, 0, samples=64) == ([1, 3], [48, 100])


@pytest.mark.parametrize("minutes, left", [(10, 7.5), (100, 77.7), (0.4, 0.1)])
def test_a_run_by_minutes_leaves_time_to_draw_and_to_save(monkeypatch, minutes, left):
    ".78 of the minutes, less .3 and the time that measuring took; a tenth at least."
    monkeypatch.setattr(
        speed, "measure_seconds_per_sample", lambda m, p, stage, seed: stage.share + seed
    )
    monkeypatch.setattr(
        speed, "measure_seconds_per_scene", lambda m, p, stage, seed: 10 * stage.share
    )
    seen = []
    monkeypatch.setattr(speed, "plan_minutes", lambda *args: seen.append(args) or "planned")
    stages = shared((1, 16, 300), (3, 16, 100))
    assert plan_run(None, None, stages, 5, minutes=minutes) == "planned"
    ((asked, found, seconds, scenes),) = seen
    assert asked == stages and (seconds, scenes) == ([6, 8], [10, 30])
    assert found == pytest.approx(left, abs=1e-3)


def test_the_time_that_measuring_took_is_taken_off(monkeypatch):
    "Ten minutes, of which 90 seconds went by: .78 · 10 - 1.5 - .3 = 6."
    monkeypatch.setattr(speed, "measure_seconds_per_sample", lambda *args: 1.0)
    monkeypatch.setattr(speed, "measure_seconds_per_scene", lambda *args: 1.0)
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=Clock(100.0, 190.0)))
    monkeypatch.setattr(speed, "plan_minutes", lambda stages, left, *args: left)
    assert plan_run(None, None, [PLAIN], 0, minutes=10) == pytest.approx(6.0)


def test_a_runs_record_says_what_where_and_how_long(monkeypatch):
    run = _begin_run(None, None, shared((1, 16, 300)), SETTINGS)
    assert (run["steps"], run["scenes"], run["stages"]) == ([2], [96], ["II plain"])
    assert (run["done"], run["log"], run["seconds"], run["world_size"]) == ([], {}, 0.0, 1)
    assert run["settings"] == SETTINGS
    assert run["machine"]["torch"] == torch.__version__
    assert run["machine"]["threads"] == torch.get_num_threads()
    assert run["machine"]["dtype"] in ("float32", "bfloat16")
    assert run["machine"]["compile"] is False and run["expected_minutes"] is None


@pytest.mark.parametrize(
    "asked, minutes, size, works, dtype, chosen",
    [
        (None, 30, 1, True, "bfloat16", True),
        (None, 29, 1, True, "bfloat16", False),  # too short
        (None, None, 1, True, "bfloat16", False),  # unknown: too large to be measured
        (None, 300, 2, True, "bfloat16", False),  # two processes
        (None, 300, 1, False, "bfloat16", False),  # no compiler
        (None, 300, 1, True, "float32", False),  # compiled steps are slower there
        (True, 1, 2, False, "float32", True),
        (False, 300, 1, True, "bfloat16", False),
    ],
)
def test_long_runs_are_compiled_where_it_pays(
    monkeypatch, asked, minutes, size, works, dtype, chosen
):
    monkeypatch.setattr(speed, "get_training_dtype", lambda: dtype)
    monkeypatch.setattr(speed, "read_world", lambda: (0, size))
    monkeypatch.setattr(speed, "can_compile", lambda: works)
    assert speed.choose_compile(asked, minutes) is chosen


def test_a_long_run_by_minutes_is_measured_compiled(monkeypatch):
    asked = []
    monkeypatch.setattr(speed, "get_training_dtype", lambda: "bfloat16")
    monkeypatch.setattr(speed, "can_compile", lambda: True)
    monkeypatch.setattr(speed, "plan_run", lambda *args: asked.append(args) or ([1], [0]))
    for minutes, samples in ((60, None), (None, 24)):
        settings = dict(SETTINGS, minutes=minutes, samples=samples, compile=None)
        run = _begin_run(None, None, shared((1, 16, 300)), settings)
        assert run["machine"]["compile"] is (minutes == 60)
        assert run["expected_minutes"] == minutes
    assert [args[4:] for args in asked] == [(None, 60, None, True), (24,)]


@pytest.mark.parametrize(
    "run, asked, wanted",
    [
        (None, "bfloat16", "bfloat16"),
        (None, "auto", "auto"),
        (dict(machine=dict(dtype="bfloat16")), "auto", "bfloat16"),
        (dict(machine={}), "auto", "auto"),  # of an earlier version
    ],
)
def test_a_resumed_run_keeps_the_format_of_its_products(monkeypatch, tmp_path, run, asked, wanted):
    class Stopped(Exception):
        pass

    def stop(*_):
        raise Stopped

    chosen = []
    run = run and dict(run, done=["x"], stages=["x"])
    monkeypatch.setattr(training, "_open_run", lambda *_: run)
    monkeypatch.setattr(training, "_open_model", stop)
    for name in ("_check_plan", "keep_freed_memory", "use_deterministic_sums"):
        monkeypatch.setattr(training, name, lambda *_: None)
    monkeypatch.setattr(
        training, "set_training_dtype", lambda name: chosen.append(name) or "float32"
    )
    options = RunOptions(dtype=asked)
    request = SimpleNamespace(preset="tiny", out=tmp_path, options=options, resume=bool(run))
    with pytest.raises(Stopped):
        training._go_on(request, [0], {}, False)
    assert chosen == [wanted, "float32"]  # the second for processes that did not decide


def test_a_named_format_is_a_setting_of_the_run():
    assert RunOptions(dtype="float32").list_result_options() == dict(dtype="float32")
    assert RunOptions().list_result_options() == {}


def test_only_the_first_process_writes(random_model, tmp_path, monkeypatch):
    model, processor = random_model
    _save_record(tmp_path / "run.json", dict(a=1))
    assert (tmp_path / "run.json").read_text() == '{\n "a": 1\n}\n'
    save_model(model, processor, tmp_path / "model", half=True)
    assert next(model.parameters()).dtype == torch.float32
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["dtype"] == "float16" and (tmp_path / "model" / "tokenizer.json").exists()
    monkeypatch.setattr(training, "read_world", lambda: (1, 2))
    monkeypatch.setattr(training, "wait_for_all", lambda: None)
    _save_record(tmp_path / "second.json", {})
    training._save_once(model, processor, tmp_path / "second")
    assert not (tmp_path / "second.json").exists() and not (tmp_path / "second").exists()


def test_a_gathered_state_is_saved_instead_of_the_models(random_model, tmp_path):
    from safetensors.torch import load_file

    model, processor = random_model
    weights = {k: v + 1 for k, v in model.state_dict().items() if v.is_floating_point()}
    save_model(model, processor, tmp_path, weights=weights)
    found = load_file(tmp_path / "model.safetensors")["global_projector.0.bias"]
    assert torch.allclose(found, model.global_projector[0].bias + 1)


def test_losses_are_drawn_one_stage_behind_the_other(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **kwargs: drawn.append((self, path)))
    run = dict(stages=["I", "II", "III"], steps=[10, 20, 5])
    _draw_losses({**run, "log": dict(I=[(5, 3.0), (10, 2.0)], III=[(4, 1.0)])}, tmp_path / "x")
    ((figure, path),) = drawn
    axis = figure.axes[0]
    lines = {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines
    }
    assert lines == dict(I=([5, 10], [3.0, 2.0]), II=([], []), III=([34], [1.0]))
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("step", "loss") and axis.get_ylim()[0] == 0
    assert path == tmp_path / "x"


def test_a_mixtures_stages_are_counted_from_one(random_model, monkeypatch):
    _, processor = random_model
    seen = []
    recipe = Recipe("mixture", {}, max_tokens=10**6)
    monkeypatch.setattr(training, "read_recipe", lambda data: recipe)
    monkeypatch.setattr(training, "make_mixture", lambda *args, **_: seen.append(args) or "told")
    held = _Request("tiny", "all", Path("x"), _Start(seed=7), data="m.json")
    assert _load_stage_data(held, 0, 48, processor) == "told"
    assert _load_stage_data(replace(held, data=None), 0, 48, processor) is None
    ((recipe, number, samples, seed, told),) = seen
    assert (recipe.name, number, samples, seed) == ("mixture", 1, 48, 7)
    assert told.config.resolution == "fixed"  # stage I shows the whole view alone


def test_a_stage_that_is_done_is_read_and_counted(random_model, tmp_path, monkeypatch):
    model, processor = random_model
    read = []
    monkeypatch.setattr(training, "load_model", lambda folder: read.append(folder) or (model, 1))
    bar = Bar()
    run = dict(done=["I plain", "II plain"])
    write_json(tmp_path / "stage-2" / "config.json", {})
    with pytest.raises(InputError, match="stage-2/COMPLETE: found no list of all files"):
        _open_model(asked(tmp_path), run, [0, 1, 2])
    write_manifest(tmp_path / "stage-2")
    assert _open_model(asked(tmp_path), run, [0, 1, 2]) == (model, 1)
    assert read == [tmp_path / "stage-2"]  # one model, however many stages are done
    found = _next_stage(model, 1, run, asked(tmp_path), 1, PLAIN, 9, bar)
    assert found == (model, 1) and bar.n == 144 and len(read) == 1


@pytest.mark.parametrize("number, copied", [(0, False), (1, True), (2, False)])
def test_a_stage_is_run_saved_and_noted(random_model, tmp_path, monkeypatch, number, copied):
    model, processor = random_model
    seen = []
    monkeypatch.setattr(training, "copy_projector", lambda model: seen.append("copied"))
    made = SimpleNamespace(is_sharded=lambda: False)

    def run_stage(*args):
        seen.append(args[3:])
        return [(1, 2.0)], made

    def save(model, processor, folder, weights):
        seen.append(folder)
        folder.mkdir(parents=True)

    monkeypatch.setattr(training, "run_stage", run_stage)
    monkeypatch.setattr(training, "save_model", save)
    compiled = dict(compile=number == 2)
    run = dict(done=["before"], log={}, seconds=5.0, settings=dict(seed=3), machine=compiled)
    bar = Bar()
    request = asked(tmp_path, resume=True)
    _next_stage(model, processor, run, request, number, PLAIN, 9, bar, "data")
    folder = tmp_path / f"stage-{number + 1}"
    told = folder / "checkpoints", 9, 3, number + 1, bar, True, number == 2, RunOptions(), "data"
    assert seen == ["copied"] * copied + [told, folder]
    assert run["done"] == ["before", "II plain"] and run["log"] == {"II plain": [(1, 2.0)]}
    assert 5.0 < run["seconds"] < 10 and json.loads((tmp_path / "run.json").read_text())["done"]


def test_what_a_run_takes_by_default():
    import inspect

    found = {k: p.default for k, p in inspect.signature(train).parameters.items()}
    assert found == dict(
        preset="tiny",
        stage="all",
        out="runs/tiny",
        samples=None,
        minutes=None,
        resume=False,
        from_model=None,
        seed=0,
        towers=None,
        lm=None,
        compile=None,
        config=None,
        options=RunOptions(),
        data=None,
        skip=None,
        progress=True,
    )
