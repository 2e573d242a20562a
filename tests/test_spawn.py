"""Worker processes that are started by `spawn`, as on macOS, Windows and Python 3.14.

Such a process imports everything anew, and its work is sent to it: a lambda cannot be sent."""

import multiprocessing

import pytest
import torch
from processes import hash_batch

from ferretlite.data.batches import Collator
from ferretlite.model.corpus import make_corpus
from ferretlite.pretraining import clip, dense, dino, language
from ferretlite.training.stages import TINY_STAGES
from ferretlite.training.trainer import make_stage_data


@pytest.fixture(scope="module")
def pool():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield pool


@pytest.fixture(autouse=True)
def small_corpus(monkeypatch):
    "A tokenizer of little text is trained in a second."
    monkeypatch.setattr(language, "make_corpus", lambda: make_corpus(24))


class Prepared(Exception):
    "The data of a training are known, and it need not begin."


PRETRAININGS = {
    clip.pretrain_clip: ("compute_similarity",),
    dino.pretrain_dino: ("score_distillation",),
    dense.pretrain_towers: (),
    language.pretrain_lm: (),
}


@pytest.mark.parametrize("pretrain", PRETRAININGS, ids=lambda function: function.__name__)
def test_batches_of_a_pretraining_are_made_in_a_spawned_process(
    pretrain, pool, monkeypatch, tmp_path
):
    module, prepared = pretrain.__module__, []

    def stop(model, compute_loss, make_batches, *args, **options):
        make_batches(0)
        raise Prepared

    for name in PRETRAININGS[pretrain]:
        monkeypatch.setattr(f"{module}.{name}", lambda model: {})
    monkeypatch.setattr(f"{module}.run_training_loop", stop)
    monkeypatch.setattr(f"{module}.load_batches", lambda *args: prepared.extend(args))
    with pytest.raises(Prepared):
        pretrain(tmp_path / "run", samples=4, batch_size=2)
    dataset, size, collate, first = prepared
    assert (size, first) == (2, 0)
    assert pool.apply(hash_batch, (dataset, collate)) == hash_batch(dataset, collate)


def test_batches_of_a_stage_are_made_in_a_spawned_process(pool, random_model):
    data = make_stage_data(TINY_STAGES[2], 8, seed=0, number=3)
    collate = Collator(random_model[1])
    assert pool.apply(hash_batch, (data, collate)) == hash_batch(data, collate)


def test_a_language_model_is_trained_with_spawned_workers(monkeypatch, tmp_path):
    made = []

    class Spawning(torch.utils.data.DataLoader):
        def __init__(self, *args, **options):
            made.append(options["num_workers"])
            super().__init__(*args, multiprocessing_context="spawn", **options)

    monkeypatch.setattr("torch.utils.data.DataLoader", Spawning)
    log = language.pretrain_lm(tmp_path / "lm", samples=4, batch_size=2)
    assert made[0] > 0 and log[-1][0] == 2
    assert (tmp_path / "lm" / "model.safetensors").exists()
