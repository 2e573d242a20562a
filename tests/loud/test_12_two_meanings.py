"""A name or a pair of options with two meanings is refused, or the command says which it takes."""

import json

import pytest

from ferretlite.app import cli
from ferretlite.common.errors import FerretliteWarning, InputError
from ferretlite.common.files import WEIGHTS
from ferretlite.data.recipes import read_recipe
from ferretlite.evaluation.suites import evaluate
from ferretlite.scenes.world import make_scene
from ferretlite.training.runs import train


@pytest.fixture
def here(monkeypatch, tmp_path):
    "A folder that holds folders with the names of shipped weights."
    monkeypatch.chdir(tmp_path)
    for name in ("tiny", "tiny-lm", "tiny-towers"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        *(
            f"pretrain {kind} --samples 8 --out {name}"
            for kind in ("clip", "dino", "dense", "lm")
            for name in ("tiny", "tiny-lm", "tiny-towers")
        ),
        "train --samples 8 --out tiny",
        "train --samples 8 --out tiny-griffon",
        "train --samples 8 --out run --lm tiny",
        "train --samples 8 --out run --lm tiny-lm",
        "pretrain lm --samples 8 --out run --from tiny-lm",
        "pretrain dense --samples 8 --out run --from tiny-towers",
    ],
)
def test_a_name_of_shipped_weights_is_refused_where_a_folder_is_meant(capsys, here, words):
    name = next(word for word in reversed(words.split()) if word.startswith("tiny"))
    assert cli.main(words.split()) == 2
    err = capsys.readouterr().err
    assert f"found {name!r}" in err and f"such as ./{name} or runs/{name}" in err
    assert len(err.splitlines()) == 1
    assert sorted(p.name for p in here.iterdir()) == ["tiny", "tiny-lm", "tiny-towers"]
    assert all(not any(p.iterdir()) for p in here.iterdir())


@pytest.mark.parametrize("name", ["config", "lm", "towers"])
def test_a_model_to_start_from_excludes_its_parts(tmp_path, name):
    parts = {name: {"merge": 2} if name == "config" else "somewhere"}
    with pytest.raises(InputError, match=f"{name} beside from_model: found both"):
        train(out=tmp_path / "run", samples=8, from_model=WEIGHTS / "tiny", **parts)
    assert not any(tmp_path.iterdir())


def test_from_beside_lm_is_refused_on_the_command_line(capsys, here):
    words = "train --samples 8 --out run --from tiny-griffon --lm ./tiny-lm"
    assert cli.main(words.split()) == 2
    assert "lm beside from_model: found both" in capsys.readouterr().err
    assert not (here / "run").exists()


def test_samples_beside_minutes_are_refused(tmp_path):
    with pytest.raises(InputError, match="samples beside minutes: found both"):
        train(out=tmp_path / "run", samples=8, minutes=1)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("more", [dict(n=5), dict(split="large")])
def test_a_list_of_scenes_has_no_number_and_no_split(more):
    with pytest.raises(InputError, match="suite: found 'a list beside n or split'"):
        evaluate(None, [make_scene(0, 96)], **more)


def test_the_name_of_a_papers_mixture_beside_a_file(here):
    (here / "ferret-v2").write_text(json.dumps(dict(name="mine", stages={"1": []})))
    with pytest.warns(FerretliteWarning, match="write ./ferret-v2 for the file"):
        assert read_recipe("ferret-v2").name != "mine"


def test_four_numbers_that_are_a_file_too(capsys, here):
    make_scene(0, (64, 96)).image.save(here / "a.png")
    (here / "1,2,30,40").touch()
    words = ["ask", "a.png", "what is <crop>?", "--crop", "1,2,30,40", "--model", "tiny-griffon"]
    assert cli.main(words) == 2
    assert "four numbers and a file: write ./1,2,30,40 for it" in capsys.readouterr().err
