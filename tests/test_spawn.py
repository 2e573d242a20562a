"""Worker processes that begin from nothing, as on macOS, on Windows and in Python 3.14: whatever is
sent to them can be pickled.
"""

import json
import multiprocessing
import os
import pickle
from dataclasses import replace
from functools import partial

import pytest

from ferretlite.data.batches import Collator
from ferretlite.data.mixtures import make_mixture
from ferretlite.data.recipes import read_recipe
from ferretlite.model.corpus import make_corpus
from ferretlite.model.tokens import tiny_llama_config
from ferretlite.pretraining import clip, dense, dino, language, loop
from ferretlite.pretraining.objects import ObjectScenes
from ferretlite.scenes.world import make_scene
from ferretlite.training.runs import train
from ferretlite.training.stages import STAGES, start_model
from ferretlite.training.trainer import make_stage_data


class Sent(Exception):
    "What a data loader would send to its workers."


@pytest.fixture
def small_language(monkeypatch):
    "A language model of two layers, and a pool of four scenes."
    monkeypatch.setattr(language, "make_corpus", lambda: make_corpus(8))
    monkeypatch.setattr(
        language, "tiny_llama_config", lambda words: tiny_llama_config(words, 32, 3)
    )
    monkeypatch.setattr(language, "ObjectScenes", partial(ObjectScenes, pool=4))


@pytest.fixture
def mixture(tmp_path):
    "A mixture of one conversation."
    make_scene(0, 96).image.save(tmp_path / "0.png")
    turns = [
        {"from": "human", "value": "<image>\nWhat is this?"},
        {"from": "gpt", "value": "a star"},
    ]
    (tmp_path / "talks.json").write_text(
        json.dumps([dict(id=0, image="0.png", conversations=turns)])
    )
    part = dict(name="talks", format="llava", annotations="talks.json", images=".")
    (tmp_path / "mixture.json").write_text(json.dumps(dict(stages={"3": [part]})))
    return tmp_path / "mixture.json"


@pytest.mark.parametrize(
    "pretrain",
    [clip.pretrain_clip, dino.pretrain_dino, dense.pretrain_towers, language.pretrain_lm],
)
def test_pretraining_sends_nothing_local_to_its_workers(
    pretrain, small_language, tmp_path, monkeypatch
):
    def send(dataset, batch_size, collate_fn, **options):
        for sent in (dataset, collate_fn):
            pickle.loads(pickle.dumps(sent))
        raise Sent

    monkeypatch.setattr(dino, "SelfDistiller", partial(dino.SelfDistiller, 32, 16))
    monkeypatch.setattr(dino, "score_distillation", lambda model: {})
    monkeypatch.setattr(dense, "DenseTowers", partial(dense.DenseTowers, 32))
    monkeypatch.setattr(loop.torch.utils.data, "DataLoader", send)
    with pytest.raises(Sent):
        pretrain(tmp_path / "run", samples=2, batch_size=1)


def test_training_sends_nothing_local_to_its_workers(begin, mixture):
    "The stages' own scenes, conversations from files, and the collator."
    _, processor = start_model(begin["towers"], begin["lm"], 0)
    data = [make_stage_data(s, 8, 0, n) for n, s in enumerate(STAGES["tiny"], 1)]
    data.append(make_mixture(read_recipe(mixture), 3, 4, 0, processor))
    for sent in (*data, Collator(processor, 288, mark_boxes=True)):
        again = pickle.loads(pickle.dumps(sent))
        if sent in data:
            assert again[1].turns == sent[1].turns


@pytest.fixture
def spawn(monkeypatch):
    "One worker per data loader, which begins as a new process."
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    monkeypatch.setattr("ferretlite.training.trainer.count_data_workers", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    yield
    multiprocessing.set_start_method(before, force=True)


def test_trainings_run_with_workers_that_begin_from_nothing(
    spawn, begin, small_language, tmp_path, monkeypatch
):
    log = language.pretrain_lm(tmp_path / "lm", samples=2, batch_size=1)
    assert log[-1][0] == 2 and (tmp_path / "lm" / "model.safetensors").is_file()
    last = replace(STAGES["tiny"][2], batch_size=1, n_turns=1)
    monkeypatch.setitem(STAGES, "tiny", (*STAGES["tiny"][:2], last))
    out = train(out=tmp_path / "run", stage="3", samples=2, **begin)
    assert json.loads((out / "run.json").read_text())["steps"] == [2]
