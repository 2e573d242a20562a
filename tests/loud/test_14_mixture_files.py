"""Each mistake in a mixture file is one sentence with stage, part, field, found and expected."""

import json

import pytest

from ferretlite.common.errors import InputError
from ferretlite.data.recipes import read_recipe

PART = dict(name="x", format="grit", annotations="grit.json", folder="grit")


def read(**change):
    part = {**PART, **change}
    return read_recipe(dict(name="m", stages={"3": [part]}))


@pytest.mark.parametrize(
    "change, says",
    [
        (dict(format=None), "found no 'format'"),
        (dict(format=7), "field format: found 7, expected text"),
        (dict(format=["grit"]), "field format: found .* expected text"),
        (dict(format="GRIT"), "field format: found 'GRIT', expected one of coco"),
        (dict(name=7), "field name: found 7, expected text"),
        (dict(name=" "), "field name: found ' ', expected text that is not blank"),
        (dict(weight="2"), "field weight: found '2', expected a number above 0"),
        (dict(weight=True), "field weight: found True, expected a number above 0"),
        (dict(weight=float("nan")), "field weight: found nan, expected a number above 0"),
        (dict(weight=1e300), "field weight: found 1e.300, .* at most 1,000,000"),
        (dict(n_turns=0), "field n_turns: found 0, expected a whole number above 0"),
        (dict(n_turns=2.5), "field n_turns: found 2.5, expected a whole number"),
        (dict(tasks=["rec"]), r"field tasks: found \['rec'\], expected an object"),
        (dict(tasks={"rec": None}), "field tasks.rec: found nothing, expected a number"),
        (dict(tasks={"rec": -1}), "field tasks.rec: found -1, expected a number above 0"),
        (dict(prompts=[]), r"field prompts: found \[\], expected an object"),
        (dict(prompts={"rec": ["Where is {query?"]}), "prompts for rec that do not speak of query"),
        (dict(folder=7), "field folder: found 7, expected a folder"),
        (dict(folder="a\0b"), "field folder: found .*expected a folder"),
        (dict(annotations=None), "field annotations: found nothing, expected a file name"),
        (dict(annotations=["grit.json"]), "field annotations: found .*expected a file name"),
        (dict(images=None, switch="half"), "field switch: found 'half', expected a number from 0"),
        (dict(switch=2), "field switch: found 2, expected a number from 0 to 1"),
        (dict(weigth=2), "found the key 'weigth', expected name, format, weight"),
        (dict(format="scenes", folder=None, annotations=None), "field n: found nothing"),
    ],
)
def test_a_part_that_is_wrong_is_named(change, says):
    with pytest.raises(InputError, match=rf"m, stage 3, part 1 \(.*\).*{says}"):
        read(**change)


@pytest.mark.parametrize(
    "recipe, says",
    [
        (None, "mixture: found nothing, expected a file, a name or a dict"),
        (dict(stages=None), "found no 'stages'"),
        (dict(stages={"1": []}), "stage 1: found .*, expected a list of parts, at least one"),
        (dict(stages={"9": []}), "m?.*stage: found '9', expected one of 1, 2, 3"),
        (dict(stages={"1": [PART], "III": [PART]}), "stage: found 'III', expected one of 1, 2, 3"),
        (dict(stages=[[PART]]), "field stages: found .*expected an object"),
        (dict(stages={"1": PART}), "stage 1: found .*expected a list of parts"),
        (dict(stages={"1": "x"}), "stage 1: found 'x', expected a list of parts"),
        (dict(stages={"1": [None]}), "stage 1, part 1 .*: found no 'format'"),
        (dict(stages={"1": [PART]}, style=["ferret"]), "field style: found .*expected text"),
        (dict(stages={"1": [PART]}, max_tokens="many"), "field max_tokens: found 'many'"),
        (dict(stages={"1": [PART]}, max_tokens=-5), "field max_tokens: found -5"),
        (dict(stages={"1": [PART]}, held_out={}), "field held_out: found {}, expected a list"),
        (dict(stages={"1": [PART]}, held_out=[3]), "held out 1: found no 'format'"),
        (dict(stages={"1": [PART]}, name=3), "field name: found 3, expected text"),
        (dict(stages={"1": [PART]}, sedd=3), "key: found 'sedd', expected name, style"),
    ],
)
def test_a_mixture_that_is_wrong_is_named(recipe, says):
    with pytest.raises(InputError, match=says):
        read_recipe(recipe)


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "found broken JSON"),
        (b"{", "found broken JSON"),
        (b"[" * 100_000, "found brackets that are nested too deeply"),
        (b'{"max_tokens": ' + b"9" * 5000 + b"}", "found a number of more than 4,300 digits"),
        (b"\xff\xfe{", "found bytes that are not UTF-8"),
        (b'{"stages": {"1": []}, "stages": {"2": []}}', "found the key 'stages' twice"),
    ],
)
def test_a_file_that_is_no_json_is_named(tmp_path, content, says):
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(InputError, match=f"m.json: {says}"):
        read_recipe(tmp_path / "m.json")


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path):
    text = json.dumps(dict(stages={"1": [PART]}), indent=1).replace("\n", "\r\n")
    (tmp_path / "m.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_recipe(tmp_path / "m.json").stages["1"][0].options["folder"] == "grit"


def test_null_is_read_as_missing():
    part = read(weight=None, tasks=None, prompts=None, switch=None).stages["3"][0]
    assert (part.weight, part.tasks, part.options) == (
        1.0,
        {},
        dict(annotations="grit.json", folder="grit"),
    )
