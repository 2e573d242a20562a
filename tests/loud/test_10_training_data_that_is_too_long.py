"""Item 10: training data that cannot fit are refused, or listed with record, file, length and limit
where `--skip bad` is given; in `train --data` as in `data check`.
"""

import json

import pytest

from ferretlite.app import cli
from ferretlite.common.errors import InputError
from ferretlite.common.files import WEIGHTS
from ferretlite.data.mixtures import format_skipped, make_mixture
from ferretlite.model.processing import FerretProcessor
from ferretlite.scenes.world import make_scene

LONG = "where is the star? " * 60  # six tokens each time
FAULT = (
    r"Part talks, record 1 \(id 1\) of talks.json, turn 0: found 3\d\d tokens, expected "
    r"at most 100 \(max_tokens of the mixture\)"
)


@pytest.fixture(scope="module")
def tiny():
    return FerretProcessor.from_pretrained(WEIGHTS / "tiny")


def write(folder, *dialogues, **options):
    "A mixture of conversations, each a list of texts in turn."
    (folder / "images").mkdir(exist_ok=True)
    records = []
    for i, texts in enumerate(dialogues):
        make_scene(i, 96).image.save(folder / "images" / f"{i}.png")
        turns = [{"from": ("human", "gpt")[k % 2], "value": t} for k, t in enumerate(texts)]
        records.append(dict(id=i, image=f"{i}.png", conversations=turns))
    (folder / "talks.json").write_text(json.dumps(records))
    part = dict(name="talks", format="llava", annotations="talks.json")
    path = folder / "mixture.json"
    path.write_text(json.dumps(dict(stages={"3": [part]}) | options))
    return path


SHORT = ["What is this?", "A star."]


def test_training_refuses_a_turn_that_cannot_fit(tmp_path, tiny):
    path = write(tmp_path, SHORT, [LONG, "Here."], max_tokens=100)
    mixture = make_mixture(path, 3, processor=tiny)
    with pytest.raises(InputError, match=FAULT + ".*--skip bad"):
        [mixture[i] for i in range(2)]


def test_with_skip_it_is_listed(tmp_path, tiny):
    path = write(tmp_path, SHORT, [LONG, "Here."], max_tokens=100)
    mixture = make_mixture(path, 3, processor=tiny, skip=True)
    assert {mixture[i].id for i in range(2)} == {"talks/0"}
    (line,) = format_skipped(mixture.skipped)
    assert line.startswith("talks: left out 1 × too long, for example Part talks, record 1 (id 1)")


def test_a_dialogue_that_is_cut_says_which_turn_was_the_last(tmp_path, tiny):
    path = write(tmp_path, [*SHORT, "where? " * 40, "Here.", "Why?", "So."], max_tokens=100)
    with pytest.raises(InputError, match="turn 1: found 1.. tokens with the turns before it, exp"):
        make_mixture(path, 3, processor=tiny)[0]
    mixture = make_mixture(path, 3, processor=tiny, skip=True)
    assert [t.answer for t in mixture[0].turns] == ["A star."]
    assert len(format_skipped(mixture.skipped)) == 1


def test_the_positions_of_the_model_are_a_limit_too(tmp_path, tiny):
    path = write(tmp_path, ["where is the star? " * 400, "Here."], max_tokens=100_000)
    says = r"found 24\d\d tokens, expected at most 1\d\d\d \(positions that the picture leaves\)"
    with pytest.raises(InputError, match=says):
        make_mixture(path, 3, processor=tiny)[0]


def test_a_word_that_the_tokenizer_reserves_is_named(tmp_path, tiny):
    path = write(tmp_path, ["What does USER: mean?", "You."])
    with pytest.raises(InputError, match="turn 0: found 'USER:', which the tokenizer reserves"):
        make_mixture(path, 3, processor=tiny)[0]


def test_the_check_says_the_same(tmp_path, capsys):
    path = str(write(tmp_path, SHORT, [LONG, "Here."], max_tokens=100))
    assert cli.main(["data", "check", path]) == 1
    out = capsys.readouterr().out
    problem = next(line for line in out.splitlines() if line.startswith("PROBLEM"))
    assert "Stage 3, talks: 1 × turns too long in 2 records cannot be used: Part talks" in problem
    assert "record 1 (id 1) of talks.json, turn 0: found 3" in problem and "at most 100" in problem
    assert cli.main(["data", "check", path, "--skip", "bad"]) == 0
    out = capsys.readouterr().out
    assert "PROBLEM" not in out and "left out 1 × turns too long in 2 records, for example" in out
