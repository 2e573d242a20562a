"""Arguments that Python lets through are refused in one sentence, and a cut answer always warns."""

import copy
import pickle

import pytest
import torch
from small_model import small_ferret

from ferretlite.common.errors import FerretliteWarning, InputError
from ferretlite.evaluation.suites import evaluate
from ferretlite.model.answers import GroundingList
from ferretlite.model.inference import Ferret
from ferretlite.model.loading import choose_device
from ferretlite.pretraining.clip import pretrain_clip
from ferretlite.pretraining.dense import pretrain_towers
from ferretlite.pretraining.dino import pretrain_dino
from ferretlite.pretraining.language import pretrain_lm
from ferretlite.regions.grammar import Grounding
from ferretlite.scenes.world import make_scene


@pytest.fixture(scope="module")
def ferret():
    return small_ferret()


@pytest.mark.parametrize(
    "wrong, told",
    [
        (dict(suite=None), "suite: found nothing, expected scenes"),
        (dict(suite=3), "suite: found 3"),
        (dict(split="nope"), "split: found 'nope', expected one of train"),
        (dict(n=0), "n: found 0, expected a whole number from 1"),
        (dict(n=2.5), "n: found 2.5"),
        (dict(n=10**30), "n: found 1000000000000000000000000000000, expected"),
        (dict(batch=True), "batch: found True"),
        (dict(seed=-1), "seed: found -1, expected a whole number from 0 to 4294967295"),
        (dict(seed=2**32), "seed: found 4294967296, expected"),  # as the option --seed
        (dict(ferret=None), "ferret: found nothing, expected a model"),
    ],
)
def test_an_evaluation_of_nothing(ferret, wrong, told):
    with pytest.raises(InputError, match=told):
        evaluate(**{"ferret": ferret, **wrong})


def test_a_model_without_a_prompt(ferret):
    ids = torch.full((1, 4), 5)
    vectors = ferret.model.get_input_embeddings()(ids)
    for given, found in (({}, "neither"), (dict(input_ids=ids, inputs_embeds=vectors), "both")):
        with pytest.raises(InputError, match=f"forward: found {found}, expected exactly one of"):
            ferret.model(**given)
    pixels = torch.zeros(1, 3, 64, 64)
    with pytest.raises(InputError, match="forward: found pixels beside `inputs_embeds`"):
        ferret.model(inputs_embeds=vectors, global_pixels=pixels)


def test_embeddings_alone_are_a_prompt(ferret):
    ids = torch.tensor([[5, 6, 7, 8]])
    vectors = ferret.model.get_input_embeddings()(ids)
    options = dict(max_new_tokens=3, do_sample=False, pad_token_id=0)
    written = ferret.model.generate(ids, **options)[:, 4:]
    assert torch.equal(ferret.model.generate(inputs_embeds=vectors, **options), written)


@pytest.mark.parametrize("name", ["mps", "xpu", "gpu", "meta", "cuda:99", "", -1, 3.5])
def test_a_device_that_is_not_there(name):
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has the device mps")
    if name == "xpu" and torch.xpu.is_available():
        pytest.skip("this machine has the device xpu")
    with pytest.raises(InputError, match="^device: found .*, expected .*'cpu'"):
        choose_device(name)


@pytest.mark.parametrize(
    "wrong, told",
    [
        (dict(max_new_tokens=10**30), "max_new_tokens: found 1000000000000000000000000000000"),
        (dict(max_new_tokens=0), "max_new_tokens: found 0, expected a whole number from 1"),
        (dict(batch=0), "batch: found 0"),
        (dict(temperature=float("nan")), "temperature: found nan"),
        (dict(phrases=3), "phrases: found 3, expected a list"),
        (dict(phrases=[3]), "phrases: found 3"),
    ],
)
def test_limits_that_no_answer_can_keep(ferret, wrong, told):
    with pytest.raises(InputError, match=told):
        ferret.ask(make_scene(0, 96).image, "where?", **wrong)


def test_names_that_are_no_text(ferret):
    with pytest.raises(InputError, match="detect: found 3"):
        ferret.detect(make_scene(0, 96).image, 3)


def test_a_count_that_was_cut_warns(ferret, monkeypatch):
    ask = Ferret.ask

    def say_two(self, *given, **options):
        answer = ask(self, *given, **options)
        answer.text = "2"  # as if the model had said so before it was cut
        return answer

    monkeypatch.setattr(Ferret, "ask", say_two)
    with pytest.warns(FerretliteWarning, match="cut off after 1 token"):
        assert ferret.count(make_scene(0, 96).image, "star", max_new_tokens=1) == 2


def make_cut_list():
    return GroundingList([Grounding("b", []), Grounding("a", [])], ["1 dropped."], "length", "Cut.")


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found[:1],
        lambda found: found[::-1],
        lambda found: found.copy(),
        copy.copy,
        copy.deepcopy,
        lambda found: pickle.loads(pickle.dumps(found)),
        lambda found: found + [Grounding("c", [])],
        lambda found: [Grounding("c", [])] + found,
        lambda found: GroundingList() + found,
        lambda found: found + GroundingList(),
        lambda found: found * 1,
    ],
)
def test_parts_and_copies_of_a_list_keep_what_was_said(change):
    found = change(make_cut_list())
    assert isinstance(found, GroundingList)
    assert (found.warnings, found.finish_reason, found.reason) == (["1 dropped."], "length", "Cut.")


def test_a_sorted_copy_keeps_what_was_said():
    found = make_cut_list().copy()
    found.sort(key=lambda g: g.name)
    assert [g.name for g in found] == ["a", "b"] and found.finish_reason == "length"


def test_a_sum_holds_the_warnings_of_both():
    found, more = GroundingList([Grounding("a", [])], ["one"]), make_cut_list()
    assert (found + more).warnings == ["one", "1 dropped."] and found.warnings == ["one"]
    found += more
    assert len(found) == 3 and found.warnings == ["one", "1 dropped."]
    assert (found.finish_reason, found.reason) == ("length", "Cut.")
    empty = GroundingList([], (), "stop", "No box.")
    assert (empty + []).reason == "No box." and (empty + [Grounding("a", [])]).reason == ""


@pytest.mark.parametrize("begin", [pretrain_clip, pretrain_dino, pretrain_towers, pretrain_lm])
@pytest.mark.parametrize(
    "wrong, told",
    [
        (dict(samples=0), "samples: found 0, expected a whole number from 1"),
        (dict(samples=-5), "samples: found -5"),
        (dict(samples="8"), "samples: found '8'"),
        (dict(samples=True), "samples: found True"),
        (dict(samples=10**30), "samples: found 1000000000000000000000000000000"),
        (dict(minutes=float("nan")), "minutes: found nan, expected a number above 0"),
        (dict(minutes=0), "minutes: found 0"),
        (dict(samples=8, minutes=1), "samples beside minutes: found both"),
        (dict(samples=8, batch_size=0), "batch_size: found 0"),
    ],
)
def test_a_pretraining_of_no_length(tmp_path, begin, wrong, told):
    with pytest.raises(InputError, match=told):
        begin(tmp_path / "run", **wrong)
    assert list(tmp_path.iterdir()) == []
