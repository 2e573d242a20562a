"""Mixtures: literals, shares and order, on readers that only write down what they are asked."""

import json
import math
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from ferretlite.common.errors import InputError
from ferretlite.common.files import WEIGHTS
from ferretlite.data import mixtures
from ferretlite.data.annotators import CocoByNameScenes, VocScenes, YoloScenes
from ferretlite.data.coco import CocoScenes
from ferretlite.data.detection_files import LvisScenes, Objects365Scenes
from ferretlite.data.dialogues import GritDialogues
from ferretlite.data.grounding_files import FlickrScenes, GriffonScenes
from ferretlite.data.label_files import LabelMeScenes, LabelStudioScenes, OpenImagesScenes
from ferretlite.data.llava import LlavaDialogues
from ferretlite.data.mixtures import (
    _LIST_TASKS,
    Mixture,
    _fit_turns,
    _select_rank_samples,
    _shorten_list,
    list_exclusions,
    make_mixture,
    open_part,
    shuffle_index,
)
from ferretlite.data.recipes import (
    _FERRET_TREE,
    _GRIFFON_TREE,
    DEFAULT_TASKS,
    FORMAT_EXPORTERS,
    FORMAT_READERS,
    PAPER_RECIPES,
    DrawnScenes,
    Part,
    Recipe,
    _read_part,
    export_tree,
    get_tasks,
    read_recipe,
)
from ferretlite.data.referring_files import GenomeScenes, RefScenes
from ferretlite.model.processing import FerretProcessor
from ferretlite.regions.geometry import Box
from ferretlite.regions.grammar import Grounding, format_groundings
from ferretlite.scenes.griffon_tasks import GRIFFON_TASKS
from ferretlite.scenes.questions import Conversation, Turn
from ferretlite.scenes.tasks import TASKS
from ferretlite.scenes.world import export_coco, make_scene


@pytest.fixture(scope="module")
def tiny():
    return FerretProcessor.from_pretrained(WEIGHTS / "tiny")


# -- shuffles


def test_shuffles_are_what_they_always_were():
    """A run that goes on after an update must go on in the same order."""
    assert [shuffle_index(i, 10, "a") for i in range(10)] == [8, 5, 7, 3, 2, 9, 4, 1, 0, 6]
    assert [shuffle_index(i, 1000, "b") for i in (0, 1, 2, 500, 999)] == [905, 778, 199, 228, 337]
    assert [shuffle_index(i, 10**6, "3-0") for i in range(3)] == [459388, 297477, 154884]


# -- constants


def test_formats_and_their_readers():
    assert list(FORMAT_READERS.items()) == [
        ("coco", CocoScenes),
        ("lvis", LvisScenes),
        ("objects365", Objects365Scenes),
        ("refcoco", RefScenes),
        ("genome", GenomeScenes),
        ("flickr30k", FlickrScenes),
        ("griffon", GriffonScenes),
        ("grit", GritDialogues),
        ("llava", LlavaDialogues),
        ("yolo", YoloScenes),
        ("voc", VocScenes),
        ("labelme", LabelMeScenes),
        ("labelstudio", LabelStudioScenes),
        ("openimages", OpenImagesScenes),
        ("coco-by-name", CocoByNameScenes),
        ("scenes", DrawnScenes),
    ]
    assert {k: v.__name__ for k, v in FORMAT_EXPORTERS.items()} == {
        "coco": "export_coco",
        "lvis": "export_lvis",
        "objects365": "export_objects365",
        "refcoco": "export_refcoco",
        "genome": "export_genome",
        "flickr30k": "export_flickr",
        "griffon": "export_griffon",
        "grit": "export_grit",
        "llava": "export_llava",
    }
    assert _LIST_TASKS == (
        "dense_detection",
        "phrase",
        "find",
        "find_set",
        "find_phrases",
        "search",
    )


def test_usual_tasks_of_each_format():
    own = ("yolo", "voc", "labelme", "labelstudio", "coco-by-name")
    assert DEFAULT_TASKS["ferret"] == {
        "coco": dict(dense_detection=1.0, dense_referring=1.0, name=1.0, choose=1.0),
        "lvis": dict(dense_referring=1.0, dense_detection=1.0),
        "objects365": dict(dense_detection=1.0, name=1.0),
        "refcoco": dict(rec=1.0, name=0.5),
        "genome": dict(name=1.0, rec=1.0),
        "flickr30k": dict(phrase=1.0, grounded_caption=0.5, caption=0.5),
        "scenes": dict(rec=2.0, name=1.0, phrase=1.0, count=1.0),
        **dict.fromkeys(own, DEFAULT_TASKS["ferret"]["coco"]),
        "openimages": dict(dense_referring=1.0, dense_detection=1.0),
    }
    assert DEFAULT_TASKS["griffon"] == {
        "coco": dict(find_set=1.0, search=0.5),
        "lvis": dict(find=1.0),
        "objects365": dict(find_set=1.0, search=0.5),
        "refcoco": dict(find=1.0, tell=1.0),
        "genome": dict(tell=1.0, find=1.0),
        "flickr30k": dict(find_phrases=1.0, find=1.0),
        "scenes": dict(find=2.0, find_set=2.0, search=2.0, find_phrases=1.0, tell=1.0),
        **dict.fromkeys(own, dict(find_set=1.0, search=0.5)),
        "openimages": dict(find=1.0),
        ("griffon", "DET"): dict(find_set=1.0),
        ("griffon", "RANDDET"): dict(find_set=1.0),
        ("griffon", "VG"): dict(find=1.0),
        ("griffon", "REG"): dict(tell=1.0),
        ("griffon", "VISJ"): dict(search=1.0),
    }
    assert get_tasks(Part("x", "refcoco", {}), "ferret") == dict(rec=1.0, name=0.5)
    assert get_tasks(Part("x", "refcoco", {}), "griffon") == dict(find=1.0, tell=1.0)
    assert get_tasks(Part("x", "refcoco", {}, tasks=dict(rec=3.0)), "ferret") == dict(rec=3.0)
    assert get_tasks(Part("x", "griffon", dict(kind="REG")), "griffon") == dict(tell=1.0)
    assert (
        get_tasks(Part("x", "grit", {}), "ferret")
        == get_tasks(Part("x", "griffon", dict(kind="REG")), "ferret")
        == {}
    )


def test_defaults_of_parts_and_recipes():
    part, recipe = Part("x", "coco", {}), Recipe("r", {})
    assert (part.weight, part.tasks, part.prompts, part.n_turns) == (1.0, {}, {}, 4)
    assert (recipe.style, recipe.max_tokens, recipe.held_out, recipe.root) == (
        "ferret",
        1472,
        [],
        Path("."),
    )


def weights(parts):
    return {p["name"]: p.get("weight", 1.0) for p in parts}


def test_the_mixtures_of_the_papers():
    ferret, griffon = PAPER_RECIPES["ferret-v2"], PAPER_RECIPES["griffon-v2"]
    assert (ferret["name"], ferret["style"], ferret["max_tokens"]) == ("ferret-v2", "ferret", 1472)
    assert (griffon["name"], griffon["style"], griffon["max_tokens"]) == (
        "griffon-v2",
        "griffon",
        2727,
    )
    assert [p["annotations"] for p in ferret["held_out"]] == [
        "finetune_refcoco_val.json",
        "finetune_refcoco_testA.json",
        "finetune_refcoco_testB.json",
        "finetune_refcoco+_val.json",
        "finetune_refcoco+_testA.json",
        "finetune_refcoco+_testB.json",
        "finetune_refcocog_val.json",
        "finetune_refcocog_test.json",
    ]
    assert (
        griffon["held_out"][-1] == dict(format="flickr30k", folder="flickr30k", split="test")
        and len(griffon["held_out"]) == 9
    )
    assert weights(ferret["stages"]["3"]) == {
        "refcoco": 1,
        "refcoco+": 1,
        "refcocog": 1,
        "flickr30k": 1,
        "vg-regions": 0.2,
        "objects365": 1,
        "instructions": 3,
        "llava-grounded": 1,
        "vqa": 1,
        "ocr": 1,
    }
    assert {p["switch"] for p in ferret["stages"]["3"][-3:]} == {0.5}
    dense = ferret["stages"]["2"][0]
    assert (dense["tasks"], dense["n_turns"]) == (dict(dense_referring=1.0, dense_detection=1.0), 1)
    assert set(weights(griffon["stages"]["2"]).values()) == {1.0}
    three = weights(griffon["stages"]["3"])
    assert three == {
        "refcoco": 1,
        "refcoco+": 1,
        "refcocog": 1,
        "coco": 1,
        "vg": 0.5,
        "lvis": 0.5,
        "flickr30k": 0.5,
        **{f"counting-{k}": 0.3 for k in ("ca44", "openimages", "collected")},
    }
    assert [p["name"] for p in griffon["stages"]["2"] if p.get("n_turns") == 1] == [
        "coco",
        "objects365",
        "counting-ca44",
        "counting-openimages",
        "counting-collected",
    ]
    [v3det] = [p for p in griffon["stages"]["2"] if p["name"] == "v3det"]
    assert v3det["exhaustive"] is False and v3det["tasks"] == dict(find=1.0)


def test_the_mixtures_of_our_own_scenes():
    assert (
        _FERRET_TREE["max_tokens"],
        _FERRET_TREE["style"],
        _GRIFFON_TREE["max_tokens"],
        _GRIFFON_TREE["style"],
    ) == (288, "ferret", 512, "griffon")
    assert weights(_FERRET_TREE["stages"]["3"]) == dict(
        expressions=2, regions=0.5, sentences=1, objects=1, instances=1, talk=3, captions=1
    )
    assert [p["name"] for p in _GRIFFON_TREE["stages"]["2"]] == [
        "det",
        "randdet",
        "vg",
        "reg",
        "visj",
        "lvis",
        "flickr",
        "refcoco",
    ]
    assert [p["kind"] for p in _GRIFFON_TREE["stages"]["2"][:5]] == [
        "DET",
        "RANDDET",
        "VG",
        "REG",
        "VISJ",
    ]
    assert (
        _FERRET_TREE["held_out"]
        == _GRIFFON_TREE["held_out"]
        == [dict(format="refcoco", folder="refcoco", annotations="finetune_refcoco_val.json")]
    )


# -- parts and recipes


def part_of(style="ferret", **given):
    return _read_part(given, style, "part 3")


def test_a_part_is_read_with_its_options():
    part = part_of(
        format="refcoco",
        folder="x",
        boxes="xyxy",
        weight=2,
        n_turns=3,
        note="mine",
        tasks=dict(rec=1.0),
        prompts=dict(rec=["Find {query}!"]),
    )
    assert part == Part(
        "refcoco",
        "refcoco",
        dict(folder="x", boxes="xyxy"),
        2,
        dict(rec=1.0),
        dict(rec=["Find {query}!"]),
        3,
    )
    assert part_of(format="coco", name="mine", exhaustive=False).name == "mine"
    for given in (
        dict(format="flickr30k", split="x"),
        dict(format="genome", data="x"),
        dict(format="llava", annotations="x", boxes="square"),
        dict(format="grit", annotations="x", switch=0.5),
    ):
        assert part_of(**given).options == {k: v for k, v in given.items() if k != "format"}
    assert part_of(format="scenes", n=3, seed=4, split="val", size=64, others={}).options == dict(
        n=3, seed=4, split="val", size=64, others={}
    )
    assert part_of("griffon", format="griffon", annotations="x", kind="VG").options["kind"] == "VG"


@pytest.mark.parametrize(
    "given, says",
    [
        (dict(format="refcoco", cache="x"), ": found the key 'cache'"),
        (dict(format="refcoco", strict=False), ": found the key 'strict'"),
        (dict(format="llava", switch=1), ": found the key 'switch'"),
        (dict(format="scenes", folder="x"), ": found the key 'folder'"),
        (dict(format="coco", weight=math.inf), ", field weight: found inf"),
        (dict(format="coco", weight=-1), ", field weight: found -1"),
        (dict(format="coco", tasks=dict(find=1)), ", task: found 'find'"),
        (dict(format="coco", prompts=dict(find=["x"])), ", task: found 'find'"),
        (dict(format="coco", prompts=dict(rec=[])), "found prompts for rec"),
        (dict(format="coco", prompts=dict(rec="Where is {query}?")), "found prompts for rec"),
        (dict(format="coco", prompts=dict(rec=["Where is {query}?", 3])), "found prompts for rec"),
        (
            dict(format="coco", prompts=dict(caption=["What of {query}?"])),
            "found prompts for caption that do not speak of nothing alone",
        ),
        (
            dict(format="griffon", annotations="x", kind="VG"),
            "found no tasks, and griffon has no usual ones in ferret form",
        ),
        ([], "found no 'format'"),
        (dict(folder="x"), "found no 'format'"),
    ],
)
def test_a_part_that_cannot_be_is_refused(given, says):
    with pytest.raises(ValueError, match=f"part 3[:, ]*{says}"):
        _read_part(given, "ferret", "part 3")


def test_prompts_may_speak_of_what_any_wording_speaks_of():
    for prompts in (
        dict(phrase=["Where are {listed}?"]),
        dict(phrase=["{queries}?", "{listed}!"]),
        dict(caption=["Say something."]),
        dict(choose=["{an_a} or {an_b}? <region>"]),
    ):
        assert part_of(format="coco", prompts=prompts).prompts == prompts
    assert part_of("griffon", format="coco", tasks=dict(find=1.0)).tasks == dict(find=1.0)
    with pytest.raises(ValueError, match="task: found 'rec', expected for griffon"):
        part_of("griffon", format="coco", tasks=dict(rec=1.0))


def test_a_recipe_lies_beside_its_file_unless_told(tmp_path):
    given = dict(
        stages={1: [dict(format="lvis", folder="x")], "2": [dict(format="lvis", folder="y")]},
        held_out=[dict(format="flickr30k", folder="y", split="test")],
    )
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(given))
    recipe = read_recipe(path)
    assert (recipe.name, recipe.style, recipe.max_tokens, recipe.root) == (
        "mine",
        "ferret",
        1472,
        tmp_path,
    )
    assert list(recipe.stages) == ["1", "2"] and recipe.stages["1"] == [
        Part("lvis", "lvis", dict(folder="x"))
    ]
    assert recipe.held_out == [
        Part(
            "flickr30k", "flickr30k", dict(folder="y", split="test"), tasks={next(iter(TASKS)): 1.0}
        )
    ]
    assert read_recipe(path, "elsewhere").root == Path("elsewhere")
    told = read_recipe(dict(given, style="griffon", max_tokens=99, name="n"))
    assert (told.name, told.style, told.max_tokens, told.root) == ("n", "griffon", 99, Path("."))
    assert told.held_out[0].tasks == {next(iter(GRIFFON_TASKS)): 1.0} and list(told.stages) == [
        "1",
        "2",
    ]
    assert read_recipe(given).name == "mixture"
    with pytest.raises(ValueError, match="mine, stage 1, part 2"):
        path.write_text(json.dumps(dict(stages={"1": [dict(format="lvis"), dict(format="abc")]})))
        read_recipe(path)
    with pytest.raises(FileNotFoundError, match="one of ferret-v2, griffon-v2"):
        read_recipe(tmp_path / "no.json")
    path.write_text("{")
    with pytest.raises(ValueError, match="mine.json: found broken JSON"):
        read_recipe(path)


def test_scenes_of_our_own_are_a_part():
    reader = open_part(Part("s", "scenes", dict(n=3, seed=5, split="test", size=96)), "nowhere")
    assert isinstance(reader, DrawnScenes) and len(reader) == 3 and reader.picture(0) == ""
    talk = reader.converse(1, random.Random(2), dict(name=1.0), 2)
    assert talk.id == "test-6" and len(talk.turns) == 2 and {t.task for t in talk.turns} == {"name"}
    assert len(reader.converse(1, random.Random(2), dict(name=1.0, rec=1.0)).turns) == 4
    own = reader.converse(1, random.Random(2), dict(name=1.0), 1, dict(name=["Hm <region>?"]))
    assert own.turns[0].prompt.lower().startswith("hm <region>")


def test_a_part_is_opened_in_its_folder_and_leaves_out_what_it_must(monkeypatch):
    given = []
    monkeypatch.setitem(
        FORMAT_READERS, "coco", lambda folder, **options: given.append((folder, options))
    )
    open_part(Part("x", "coco", dict(folder="a/b", images="i")), "root", {3})
    open_part(Part("x", "coco", {}), "root", strict=True, cache="c")
    assert given == [
        (Path("root/a/b"), dict(exclude={3}, strict=False, cache=None, images="i")),
        (Path("root"), dict(exclude=(), strict=True, cache="c")),
    ]


def test_numbers_and_files_are_held_out_of_every_format(monkeypatch):
    def reader(folder, pictures, numbers):
        return SimpleNamespace(
            folder=Path(folder), images="im", pictures=pictures, coco_ids=numbers
        )

    opened = {
        "a": reader("left", ["x.jpg", "", "y.jpg"], [-1, -1, 0]),
        "b": reader("right", ["z.jpg", "x.jpg"], [7, -1]),
    }
    monkeypatch.setattr(mixtures, "open_part", lambda part, root: opened[part.name])
    recipe = Recipe("r", {}, held_out=[Part("a", "flickr30k", {}), Part("b", "refcoco", {})])
    files = {"left/im/x.jpg", "left/im/y.jpg", "right/im/z.jpg", "right/im/x.jpg"}
    assert list_exclusions(recipe) == {0, 7, *map(Path, files)}


@pytest.mark.parametrize("format", ["coco", "llava"])
def test_one_name_in_two_folders_is_two_pictures_unless_the_bytes_agree(tmp_path, format):
    """Both folders hold train-0.png to train-2.png: 0 is a copy, 1 is another picture, and the
    held-out 2 is missing, so nobody knows."""
    for place in ("a", "b"):
        export_coco([make_scene(s, (48, 64)) for s in range(3)], tmp_path / place)
    make_scene(9, (48, 64)).image.save(tmp_path / "b" / "images" / "train-1.png")
    (tmp_path / "b" / "images" / "train-2.png").unlink()
    words = [{"from": "human", "value": "<image>\nHm?"}, {"from": "gpt", "value": "Yes."}]
    talks = [dict(id=str(k), image=f"train-{k}.png", conversations=words) for k in range(3)]
    (tmp_path / "a" / "talks.json").write_text(json.dumps(talks))
    file = dict(coco="annotations.json", llava="talks.json")[format]
    mixture = dict(
        stages={"3": [dict(format=format, folder="a", annotations=file)]},
        held_out=[dict(format="coco", folder="b", annotations="annotations.json")],
    )
    [(_, reader)] = make_mixture(mixture, 3, root=tmp_path).parts
    assert [reader.picture(i) for i in range(len(reader))] == ["train-1.png"]


def test_the_last_fifth_of_an_exported_tree_is_held_out(tmp_path):
    scenes = [make_scene(s, (48, 64)) for s in range(11)]
    assert export_tree(lambda: iter(scenes), tmp_path) == tmp_path / "mixture.json"
    files = {
        n: json.loads((tmp_path / "refcoco" / f"finetune_refcoco_{n}.json").read_text())
        for n in ("train", "val")
    }
    numbers = {n: sorted({r["file_name"] for r in data["images"]}) for n, data in files.items()}
    assert [int(n[15:27]) for n in numbers["val"]] == [10, 11] and {
        int(n[15:27]) for n in numbers["train"]
    } <= set(range(1, 10))
    assert len(numbers["train"]) == 9
    whole = json.loads((tmp_path / "coco" / "annotations.json").read_text())
    assert [r["file_name"] for r in whole["images"]] == [f"{k:012d}.png" for k in range(1, 12)]
    assert json.loads((tmp_path / "mixture.json").read_text()) == json.loads(
        json.dumps(_FERRET_TREE)
    )
    assert json.loads((tmp_path / "mixture-griffon.json").read_text()) == json.loads(
        json.dumps(_GRIFFON_TREE)
    )


# -- what fits


def listed(n, style="ferret"):
    boxes = [Box(10 * k, 5, 10 * k + 8, 50) for k in range(n)]
    return format_groundings([Grounding("cat", boxes)], (100, 100), style)


def test_a_list_ends_after_the_last_whole_box_that_fits():
    answer = listed(3)  # "cat [0, 50, 80, 500] [100, 50, 180, 500] [200, 50, 280, 500]"
    ends = [answer.index("]") + 1, answer.index("]", 25) + 1, len(answer)]
    for task in _LIST_TASKS:
        turn = Turn(task, "Where?", answer, meta=dict(a=1))
        for room, kept in (
            (ends[0], 1),
            (ends[1] - 1, 1),
            (ends[1], 2),
            (ends[2] - 1, 2),
            (ends[2], 3),
            (999, 3),
        ):
            found = _shorten_list(turn, room, len, (100, 100), "ferret")
            assert found.answer == answer[: ends[kept - 1]] and found.meta == dict(
                a=1, shortened=3 - kept
            )
            assert (found.task, found.prompt) == (task, "Where?")
        assert _shorten_list(turn, ends[0] - 1, len, (100, 100), "ferret") is None
    for task in ("rec", "count", "grounded_caption", "dense_referring", "tell"):
        assert _shorten_list(Turn(task, "Where?", answer), 999, len, (100, 100), "ferret") is None
    in_griffon = _shorten_list(
        Turn("find", "Where?", listed(3, "griffon")), 40, len, (100, 100), "griffon"
    )
    assert in_griffon.answer == "cat-[0.000,0.050,0.080,0.500]" and in_griffon.meta == dict(
        shortened=2
    )


def test_turns_fit_up_to_the_last_token(tiny):
    turns = [
        Turn("talk", "What is this?", "A star."),
        Turn("talk", "Why?", "So."),
        Turn("talk", "How many?", "Two of them."),
    ]
    talk = Conversation(None, (100, 100), turns)
    _, counts, used, _ = _fit_turns(talk, tiny, 10**6)
    assert counts == {}
    row = tiny.encode_conversations(
        [Conversation(make_scene(0, 96).image, (96, 96), turns)], max_text_tokens=10**6
    )
    assert used == (row["turn_ids"] > 0).sum().item()
    alone = [_fit_turns(Conversation(None, (100, 100), [t]), tiny, 10**6)[2] for t in turns]
    assert sum(alone) == used
    assert [
        len(_fit_turns(talk, tiny, most)[0].turns) for most in (used, used - 1, alone[0] - 1, 0)
    ] == [3, 2, 1, 0]
    some, counts, taken, _ = _fit_turns(
        talk, tiny, alone[0] + alone[2]
    )  # the second takes the room of the third
    assert (
        [turns.index(t) for t in some.turns] == [0, 1]
        and counts == {"too long": 1}
        and taken == alone[0] + alone[1]
    )


def test_a_list_is_shortened_into_the_room_that_earlier_turns_leave(tiny):
    first, second = (
        Turn("talk", "What is this?", "A star."),
        Turn("dense_detection", "Find all objects.", listed(6)),
    )
    talk = Conversation(None, (100, 100), [first, second])
    whole = _fit_turns(talk, tiny, 10**6)[2]
    for most in range(whole - 60, whole + 1):
        some, counts, used, _ = _fit_turns(talk, tiny, most)
        assert used <= most
        kept = some.turns[-1].answer.count("[")
        assert counts == ({} if kept == 6 else dict(shortened=1)) and listed(6).startswith(
            some.turns[-1].answer
        )
        more = _fit_turns(
            Conversation(
                None,
                (100, 100),
                [first, Turn("talk", "Find all objects.", listed(min(kept + 1, 6)))],
            ),
            tiny,
            10**6,
        )[2]
        assert kept == 6 or more > most  # one more box would not fit


# -- who is asked


class Reader:
    """Answers with who was asked; some of its records have nothing to say, and some are broken."""

    def __init__(self, n, silent=(), broken=()):
        self.n, self.silent, self.broken, self.asked = n, silent, broken, []

    def __len__(self):
        return self.n

    def converse(self, i, rng, tasks, n_turns, wording, style):
        self.asked.append((i, tasks, n_turns, wording, style))
        if i in self.broken:
            raise InputError("no picture")
        return Conversation(
            None,
            (10, 20),
            [] if i in self.silent else [Turn("talk", f"{rng.random()}", str(i))],
            str(i),
        )


def mixture(*parts, **options):
    return Mixture(
        [(Part(f"p{k}", "coco", {}, weight), reader) for k, (weight, reader) in enumerate(parts)],
        **options,
    )


def test_sizes_of_an_epoch_are_rounded_up():
    mixed = mixture((0.5, Reader(5)), (2.0, Reader(3)), (0.01, Reader(7)))
    assert mixed.sizes == [3, 6, 1] and mixed.ends == [3, 9, 10] and len(mixed) == 10
    assert len(mixture((1.0, Reader(5)), samples=17)) == 17
    assert mixed.tries == 20
    for parts in ([], [(1.0, Reader(0))]):
        with pytest.raises(ValueError, match="expected at least one"):
            mixture(*parts)
    for i in (-1, 10):
        with pytest.raises(IndexError, match="below 10"):
            mixed[i]


def test_each_epoch_shows_each_part_by_its_weight_in_an_order_of_its_own():
    mixed = mixture((0.5, Reader(4)), (2.0, Reader(3)), seed=3)
    drawn = [[mixed.locate_sample(8 * e + i) for i in range(8)] for e in range(4)]
    for epoch in drawn:
        assert Counter(p for p, *_ in epoch) == {0: 2, 1: 6}
        assert sorted(r for p, r, _ in epoch if p == 1) == [0, 0, 1, 1, 2, 2]
    for two in (drawn[:2], drawn[2:]):  # half of four in each epoch: all of them in two
        assert sorted(r for epoch in two for p, r, _ in epoch if p == 0) == [0, 1, 2, 3]
    assert len({tuple(p for p, *_ in epoch) for epoch in drawn}) > 1
    assert [key for _, _, key in drawn[2]] == [f"3-2-{k}" for k in range(8)]
    assert drawn[0] != [
        mixture((0.5, Reader(4)), (2.0, Reader(3)), seed=4).locate_sample(i) for i in range(8)
    ]


def test_the_order_of_an_epoch_is_what_it_always_was():
    mixed = mixture((0.5, Reader(9)), (2.0, Reader(4)), (1.0, Reader(6)), seed=3)
    assert [mixed.locate_sample(i)[:2] for i in (*range(6), 20, 21, 45)] == [
        (2, 1),
        (1, 2),
        (2, 0),
        (2, 4),
        (1, 0),
        (0, 1),
        (1, 1),
        (0, 2),
        (2, 2),
    ]


def test_a_part_is_asked_for_its_tasks_in_its_words():
    reader = Reader(3)
    part = Part("mine", "coco", {}, tasks=dict(rec=1.0), prompts=dict(rec=["{query}?"]), n_turns=2)
    talk = Mixture([(part, reader)])[0]
    assert talk.id == f"mine/{reader.asked[0][0]}"
    assert reader.asked[0][1:] == (dict(rec=1.0), 2, dict(rec=["{query}?"]), "ferret")
    plain = Reader(3)
    Mixture([(Part("plain", "coco", {}), plain)], "griffon")[0]
    assert plain.asked[0][1:] == (dict(find_set=1.0, search=0.5), 4, None, "griffon")


def test_questions_depend_on_seed_epoch_and_place():
    mixed = mixture((1.0, Reader(3)), seed=7, samples=6)
    prompts = [mixed[i].turns[0].prompt for i in range(6)]
    assert prompts == [
        f"{random.Random(f'7-{e}-{k}').random()}" for e in range(2) for k in range(3)
    ]


def test_silent_records_are_replaced_from_their_part_and_counted():
    reader = Reader(4, silent=(0, 1, 2))
    mixed = mixture((2.5, reader), seed=1)  # ten places for four records
    assert [mixed[i].turns[0].answer for i in range(4)] == ["3"] * 4
    assert (
        mixture((0.25, Reader(4, silent=(0, 1, 2))), seed=2)[0].turns[0].answer == "3"
    )  # one place: still all four may be asked
    tried = [i for i, *_ in reader.asked]
    assert mixed.counts == {("p0", "no question"): sum(i != 3 for i in tried)}
    i = next(i for i in range(4) if mixed.locate_sample(i)[1] != 3)
    reader.asked.clear()
    talk = mixed[i]
    key, wanted = mixed.locate_sample(i)[2], [mixed.locate_sample(i)[1]]
    while wanted[-1] != 3:
        wanted.append(random.Random(f"{key}-{len(wanted)}").randrange(4))
    assert [k for k, *_ in reader.asked] == wanted
    rng = random.Random(f"{key}-{len(wanted) - 1}")
    rng.randrange(4)
    assert talk.turns[0].prompt == f"{rng.random()}"
    mute = Reader(2, silent=(0, 1))
    with pytest.raises(ValueError, match="Part p0: found no question that fits in 20 records"):
        mixture((1.0, mute))[0]
    assert len(mute.asked) == 20


def test_broken_records_stop_a_run_unless_they_are_skipped():
    with pytest.raises(ValueError, match="Part p0, record [01]: no picture"):
        mixture((1.0, Reader(2, broken=(0, 1))))[0]
    lax = mixture((1.0, Reader(3, broken=(0, 2))), skip=True)
    assert {lax[i].turns[0].answer for i in range(3)} == {"1"} and lax.counts[
        ("p0", "unreadable")
    ] >= 2


def test_conversations_are_fitted_where_a_processor_is_given(tiny):
    class Long(Reader):
        def converse(self, i, *args):
            talk = super().converse(i, *args)
            talk.turns.insert(0, Turn("talk", "Why? " * 60, "So."))
            return talk

    mixed = mixture((1.0, Long(2)), processor=tiny, most=40)
    talk, happened, used, faults = mixed.read_fitted(0, 1, random.Random(0))
    assert len(talk.turns) == 1 and happened == {("p0", "too long"): 1} and 0 < used <= 40
    whole, happened, used, _ = mixture((1.0, Long(2))).read_fitted(0, 1, random.Random(0))
    assert len(whole.turns) == 2 and happened == {} and used == 0
    (fault,) = faults
    assert fault[0] == "too long" and "expected at most 40 (max_tokens of the mixture)" in fault[1]
    with pytest.raises(InputError, match="turn 0: found .* tokens, expected at most 40"):
        mixed[0]
    lax = mixture((1.0, Long(2)), processor=tiny, most=40, skip=True)
    lax[0]
    assert lax.counts == {("p0", "too long"): 1} and len(lax.skipped.notes) == 1
    with pytest.raises(ValueError, match="found the griffon form"):
        mixture((1.0, Reader(2)), processor=tiny, style="griffon")


def test_ranks_take_turns():
    assert [list(_select_rank_samples(list(range(100, 111)), rank, 3)) for rank in range(3)] == [
        [100, 103, 106, 109],
        [101, 104, 107, 110],
        [102, 105, 108],
    ]
    assert list(_select_rank_samples(list(range(100, 111)), 1, 4, start=2)) == [103, 107]


def test_a_stage_is_named_by_its_number(monkeypatch):
    opened = []
    monkeypatch.setattr(
        mixtures,
        "open_part",
        lambda part, root, exclude=(): opened.append((part.name, root, exclude)) or Reader(3),
    )
    recipe = Recipe(
        "r",
        {"1": [Part("a", "coco", {})], "2": [Part("b", "lvis", {}, 2.0)]},
        max_tokens=77,
        root=Path("x"),
    )
    mixed = make_mixture(recipe, 2, 9, 5, skip=True)
    assert opened == [("b", Path("x"), set())] and len(mixed) == 9
    assert (mixed.seed, mixed.skip, mixed.most, mixed.style, mixed.processor) == (
        5,
        True,
        77,
        "ferret",
        None,
    )
    assert len(make_mixture(recipe, "2")) == 6 and make_mixture(recipe, "1").seed == 0
    with pytest.raises(ValueError, match="r, stage: found 3, expected one of 1, 2"):
        make_mixture(recipe, 3)
    with pytest.raises(
        ValueError, match="found the griffon form, expected that of the model, ferret"
    ):
        make_mixture(
            Recipe("r", recipe.stages, "griffon"),
            1,
            processor=SimpleNamespace(config=SimpleNamespace(style="ferret")),
        )
