"""Item 12: a name means one model, and a resumed run finds the data with which it began."""

import json
import os
from dataclasses import replace

import pytest
import torch

from ferretlite.app import cli
from ferretlite.common.errors import InputError
from ferretlite.data.llava import LlavaDialogues
from ferretlite.pretraining import clip, dense, dino, language
from ferretlite.pretraining.loop import run_training_loop
from ferretlite.scenes.world import make_scene
from ferretlite.training.runs import train
from ferretlite.training.stages import STAGES
from ferretlite.training.trainer import StageTrainer


@pytest.fixture
def short(monkeypatch, begin):
    "Stage III alone, in batches of two, from random towers."
    last = replace(STAGES["tiny"][2], batch_size=2, n_turns=2, visits=1)
    monkeypatch.setitem(STAGES, "tiny", (*STAGES["tiny"][:2], last))
    monkeypatch.setattr("ferretlite.training.trainer.count_data_workers", lambda: 1)
    return dict(stage="3", samples=4, **begin)


@pytest.fixture
def mixture(tmp_path):
    "A mixture of four conversations about four pictures: -> function(answer) that writes it."
    (tmp_path / "images").mkdir()
    for i in range(4):
        make_scene(i, 96).image.save(tmp_path / "images" / f"{i}.png")

    def write(answer):
        talks = [
            dict(
                id=i,
                image=f"{i}.png",
                conversations=[
                    {"from": "human", "value": "<image>\nWhat is this?"},
                    {"from": "gpt", "value": answer},
                ],
            )
            for i in range(4)
        ]
        (tmp_path / "talks.json").write_text(json.dumps(talks))
        part = dict(name="talks", format="llava", annotations="talks.json")
        path = tmp_path / "mixture.json"
        path.write_text(json.dumps(dict(stages={"3": [part]})))
        return path

    return write


@pytest.mark.parametrize("name", ["tiny", "tiny-griffon", "tiny-unfrozen", "ferret-v2-7b"])
def test_a_run_is_not_called_as_a_model_that_is_there(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = f"out: found '{name}', the name of a .*, expected a path, such as ./{name}"
    with pytest.raises(InputError, match=message):
        train(out=name, samples=4)
    assert not list(tmp_path.iterdir())


def test_the_command_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main("train --out tiny --samples 4".split()) != 0
    said = capsys.readouterr().err
    assert "'tiny', the name of a shipped model" in said and "./tiny" in said
    assert not list(tmp_path.iterdir())


def test_a_path_of_that_name_is_a_run_of_its_own(tmp_path, monkeypatch, short):
    monkeypatch.chdir(tmp_path)
    out = train(out="./tiny", **short)
    assert out.resolve() == tmp_path / "tiny" and (out / "model.safetensors").is_file()


class Killed(Exception):
    "The machine went down."


def kill(monkeypatch, out, data, short):
    "Begin a run on files that dies in its second step."
    step = StageTrainer.training_step

    def step_or_die(self, *args, **kwargs):
        if self.state.global_step == 1:
            raise Killed
        return step(self, *args, **kwargs)

    monkeypatch.setattr(StageTrainer, "training_step", step_or_die)
    with pytest.raises(Killed):
        train(out=out, data=data, **short)
    monkeypatch.setattr(StageTrainer, "training_step", step)


def test_annotations_that_changed_meanwhile_are_refused(tmp_path, mixture, short, monkeypatch):
    out, data = tmp_path / "run", mixture("A star.")
    kill(monkeypatch, out, data, short)
    before = json.loads((out / "run.json").read_text())["data_files"]
    names = {name.rsplit("/", 1)[-1] for name in before}
    assert names == {"mixture.json", "talks.json", "pictures of talks"}
    mixture("A cup.")  # as long as before
    changed = r"talks.json: found \d+ bytes, .*, expected \d+ bytes, .* as when the run in"
    with pytest.raises(InputError, match=changed):
        train(out=out, data=data, resume=True, **short)
    assert (out / "run.json").is_file()  # what the killed run wrote is still there
    mixture("A star.")
    train(out=out, data=data, resume=True, **short)
    assert (out / "model.safetensors").is_file()


def test_pictures_that_changed_meanwhile_are_refused(tmp_path, mixture, short, monkeypatch):
    out, data = tmp_path / "run", mixture("A star.")
    kill(monkeypatch, out, data, short)
    picture = tmp_path / "images" / "2.png"
    held, state = picture.read_bytes(), picture.stat()
    make_scene(7, 96).image.save(picture)
    says = r"pictures of talks: found 4 files, .*newest 2.png, .*, expected 4 files, .* as when the"
    with pytest.raises(InputError, match=says):
        train(out=out, data=data, resume=True, **short)
    picture.unlink()
    with pytest.raises(InputError, match="pictures of talks: found 4 files"):
        train(out=out, data=data, resume=True, **short)
    picture.write_bytes(held)
    os.utime(picture, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert train(out=out, data=data, resume=True, **short) == out


def test_the_fingerprint_of_pictures_opens_none(tmp_path, mixture, monkeypatch):
    data = mixture("A star.")
    reader = LlavaDialogues(tmp_path, "talks.json")
    before = reader.fingerprint_pictures()
    assert before.startswith("4 files, ") and data.exists()
    for i in range(4):
        (tmp_path / "images" / f"{i}.png").chmod(0)
    assert reader.fingerprint_pictures() == before
    os.utime(tmp_path / "images" / "1.png", ns=(1, 1))
    assert reader.fingerprint_pictures() != before
    some = LlavaDialogues(tmp_path, "talks.json", exclude=["1.png"])
    assert some.fingerprint_pictures().startswith("3 files, ")


def test_a_mixture_that_changed_meanwhile_is_refused(tmp_path, mixture, short, monkeypatch):
    out, data = tmp_path / "run", mixture("A star.")
    kill(monkeypatch, out, data, short)
    text = data.read_text()
    data.write_text(text.replace('"stages"', '"max_tokens": 200, "stages"'))
    with pytest.raises(InputError, match="mixture.json: found .*, expected"):
        train(out=out, data=data, resume=True, **short)


def test_towers_are_part_of_what_a_run_is(tmp_path, short, monkeypatch):
    out = tmp_path / "run"
    kill(monkeypatch, out, None, short)
    with pytest.raises(InputError, match="expected towers="):
        train(out=out, resume=True, **{**short, "towers": None})


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"seed": 0, "scores": {}}', '{"settings": 3}', '{"settings": {']
)
def test_a_record_of_something_else_is_no_run(tmp_path, text, short):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match="run.json: found something else"):
        train(out=tmp_path, resume=True, **short)
    assert (tmp_path / "run.json").read_text() == text


@pytest.mark.parametrize(
    "other, says",
    [
        (dict(settings=dict(seed=1)), "seed=0"),
        (dict(settings=None), "seed=0"),
        (dict(steps=6), "steps=4"),
        (dict(lr=0.5), "lr=0.001"),
        (dict(muon=0.1), "muon=None"),
    ],
)
def test_a_pretraining_goes_on_only_as_the_same_run(other, says, tmp_path):
    model = torch.nn.Linear(1, 1)
    asked = dict(steps=4, every=2, settings=dict(seed=0))

    def learn(n, **options):
        batches = (torch.ones(1, 1) for _ in range(n))
        return run_training_loop(
            model, lambda x: model(x).square().mean(), lambda start: batches, tmp_path, **options
        )

    learn(2, **asked)  # stopped after two of four steps
    with pytest.raises(InputError, match=f"expected {says}; resume it with the same"):
        learn(2, resume=True, **{**asked, **other})
    assert len(learn(2, resume=True, **asked)) == 2


@pytest.mark.parametrize(
    "module, function, more",
    [
        (clip, "pretrain_clip", dict(regions=0.0)),
        (dino, "pretrain_dino", {}),
        (dense, "pretrain_towers", dict(sides=["global", "local"], split="wide")),
        (language, "pretrain_lm", dict(style="ferret", look=0.3)),
    ],
)
def test_the_seed_is_part_of_what_a_pretraining_is(module, function, more, tmp_path, monkeypatch):
    class Asked(Exception):
        "The settings that the loop was given."

    def loop(*args, settings, **options):
        raise Asked(settings)

    monkeypatch.setattr(module, "run_training_loop", loop)
    monkeypatch.setattr(dino, "score_distillation", lambda model: {})
    monkeypatch.setattr(language, "start_language_model", lambda *args: (None, None, None))
    with pytest.raises(Asked) as caught:
        getattr(module, function)(tmp_path / "run", samples=4, seed=7, batch_size=2)
    assert caught.value.args == (dict(seed=7, batch_size=2, **more),)
