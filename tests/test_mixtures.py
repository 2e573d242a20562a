"""Mixtures: the same sample for the same index, nothing held out comes in, what does not fit is
left out whole, and the check says so.
"""

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from ferretlite.app import cli
from ferretlite.common.files import WEIGHTS
from ferretlite.data.batches import Collator
from ferretlite.data.inspection import (
    _format_check_page,
    _list_kept_ids,
    check_mixture,
    format_check,
    write_check,
)
from ferretlite.data.mixtures import (
    _fit_turns,
    _select_rank_samples,
    list_exclusions,
    make_mixture,
    shuffle_index,
)
from ferretlite.data.readers import AnnotationReader
from ferretlite.data.recipes import _FERRET_TREE, PAPER_RECIPES, export_tree, read_recipe
from ferretlite.model.processing import FerretProcessor
from ferretlite.regions.grammar import find_groundings
from ferretlite.scenes.questions import Conversation, Turn
from ferretlite.scenes.world import make_scene


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    scenes = [make_scene(s, (120, 160)) for s in range(10)]
    export_tree(lambda: iter(scenes), root)
    return root


@pytest.fixture(scope="module")
def tiny():
    return FerretProcessor.from_pretrained(WEIGHTS / "tiny")


@pytest.fixture(scope="module")
def griffon():
    return FerretProcessor.from_pretrained(WEIGHTS / "tiny-griffon")


def told(c):
    return c.id, [(t.prompt, t.answer, t.regions) for t in c.turns], c.image.size


@pytest.mark.parametrize("n", [1, 2, 3, 17, 64, 1000])
def test_a_shuffle_is_a_permutation(n):
    orders = [[shuffle_index(i, n, key) for i in range(n)] for key in ("a", "b")]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(n)) and (
        n < 17 or orders[0] != orders[1]
    )


def test_a_shuffle_of_ten_million_needs_no_table():
    assert len({shuffle_index(i, 10**7, "x") for i in range(3000)}) == 3000


def test_a_shuffle_mixes():
    places = torch.tensor(
        [[shuffle_index(i, 1000, str(k)) for i in range(1000)] for k in range(8)]
    ).float()
    assert (
        abs(torch.corrcoef(places)[0, 1:]).max() < 0.12
        and (places[:, :500] < 500).float().mean().sub(0.5).abs() < 0.05
    )


def test_a_sample_depends_on_seed_and_index_alone(tree, tiny):
    one, two = (make_mixture(tree / "mixture.json", 3, 100, processor=tiny) for _ in range(2))
    random.seed(0)
    forward = [told(one[i]) for i in range(20)]
    random.seed(1)
    backward = [told(two[i]) for i in reversed(range(20))][::-1]
    assert forward == backward
    assert [
        told(c)
        for c in (
            make_mixture(tree / "mixture.json", 3, 100, seed=1, processor=tiny)[i]
            for i in range(20)
        )
    ] != forward


def test_weights_are_visits_an_epoch(tree):
    mixture = make_mixture(tree / "mixture.json", 3)
    epoch, n = mixture.ends[-1], [len(r) for _, r in mixture.parts]
    drawn = [
        Counter(mixture.locate_sample(e * epoch + i)[:2] for i in range(epoch)) for e in range(2)
    ]
    for e in drawn:
        assert [sum(v for (p, _), v in e.items() if p == k) for k in range(len(n))] == mixture.sizes
    twice = {r: v for (p, r), v in drawn[0].items() if p == 0}  # weight 2
    assert sorted(twice) == list(range(n[0])) and set(twice.values()) == {2}
    half = (
        drawn[0] + drawn[1]
    )  # weight 1/2 of nine: five an epoch, so all nine in two, and one begins the next round
    assert {r: v for (p, r), v in half.items() if p == 1}.keys() == set(range(n[1])) and sorted(
        v for (p, _), v in half.items() if p == 1
    ) == [1] * 8 + [2]
    assert {v for (p, _), v in drawn[0].items() if p == 1} == {1}
    assert [mixture.locate_sample(i)[0] for i in range(epoch)] != [
        mixture.locate_sample(epoch + i)[0] for i in range(epoch)
    ]


def test_ranks_workers_and_resuming_see_the_same_samples(tree, tiny):
    mixture = make_mixture(tree / "mixture.json", 3, 48, processor=tiny)

    def ids(data, workers):
        return [
            b["ids"]
            for b in torch.utils.data.DataLoader(
                data, 4, collate_fn=Collator(tiny, max_text_tokens=288), num_workers=workers
            )
        ]

    alone = ids(_select_rank_samples(mixture, 0, 1), 0)
    assert (
        ids(_select_rank_samples(mixture, 0, 1, start=24), 1) == alone[6:]
    )  # resumed at step 6, with a worker
    shared = [ids(_select_rank_samples(mixture, r, 2), 0) for r in range(2)]
    assert sorted(i for of in shared for b in of for i in b) == sorted(i for b in alone for i in b)


def test_nothing_held_out_comes_in_by_any_door(tree):
    recipe = read_recipe(tree / "mixture.json")
    secret = {n for n in list_exclusions(recipe) if isinstance(n, int)}
    assert secret == {9, 10}
    for stage in recipe.stages:
        for part, reader in make_mixture(recipe, stage).parts:
            if isinstance(reader, AnnotationReader):
                assert not _list_kept_ids(reader) & secret, part.name
    assert {p.name: len(r.table) - len(r) for p, r in make_mixture(recipe, 3).parts} == dict(
        expressions=0, regions=1, sentences=0, objects=0, instances=2, talk=2, captions=2
    )


def test_held_out_sentences_keep_their_picture_out(tree):
    (tree / "flickr30k" / "test.txt").write_text("1003\n")
    recipe = read_recipe(
        {**_FERRET_TREE, "held_out": [dict(format="flickr30k", folder="flickr30k", split="test")]},
        tree,
    )
    sentences = next(r for p, r in make_mixture(recipe, 3).parts if p.name == "sentences")
    assert len(sentences) == 18 and "1003.jpg" not in {
        sentences.picture(i) for i in range(len(sentences))
    }


def test_what_does_not_fit_is_left_out_whole(tree, tiny):
    mixture = make_mixture(tree / "mixture.json", 2)
    shorter = 0
    for i in range(len(mixture)):
        conversation = mixture[i]
        for most in (30, 60, 120, 300):
            some, counts, used, _ = _fit_turns(conversation, tiny, most)
            assert used <= most and len(some.turns) + counts["too long"] == len(conversation.turns)
            whole = {(t.prompt, t.answer) for t in conversation.turns}
            for t in some.turns:
                if (t.prompt, t.answer) in whole:
                    continue
                full = next(a for p, a in whole if p == t.prompt)
                assert (
                    full.startswith(t.answer)
                    and t.answer.endswith("]")
                    and find_groundings(t.answer, conversation.size)[0]
                    == find_groundings(full, conversation.size)[0][: t.answer.count("]")]
                )
                shorter += 1
            if not some.turns:
                continue
            row = tiny.encode_conversations(
                [some], max_text_tokens=most
            )  # through the collator's own bound: nothing more is lost, all answers end
            ends = (row["labels"] == tiny.tokenizer.eos_token_id).sum().item()
            assert ends == len(some.turns) and (row["turn_ids"] > 0).sum().item() == used
    assert shorter > 3


def test_a_dialogue_ends_where_it_no_longer_fits(tiny):
    image = make_scene(0, 96).image
    turns = [
        Turn("talk", "What is this?", "A star."),
        Turn("talk", "Why? " * 40, "So."),
        Turn("talk", "And this?", "A cup."),
    ]
    for linked, kept in ((True, [0]), (False, [0, 2])):
        some, counts, _, faults = _fit_turns(
            Conversation(image, (96, 96), turns, linked=linked), tiny, 60
        )
        assert [turns.index(t) for t in some.turns] == kept and counts["too long"] == 1


def test_words_that_the_tokenizer_reserves_are_left_out(tiny):
    image = make_scene(0, 96).image
    for prompt, answer in (("What does USER: mean?", "You."), ("Why?", "Because.<eos> So.")):
        some, counts, _, faults = _fit_turns(
            Conversation(image, (96, 96), [Turn("talk", prompt, answer)]), tiny, 300
        )
        assert some.turns == [] and counts["reserved words"] == 1


def test_what_cannot_be_used_is_replaced_from_the_same_part(tree, tiny):
    records = json.loads((tree / "grit" / "grit.json").read_text())
    for r in records[::2]:
        r["conversations"] = r["conversations"][:1]
    (tree / "grit" / "half.json").write_text(json.dumps(records))
    recipe = read_recipe(
        dict(
            stages={
                "1": [
                    dict(name="half", format="grit", folder="grit", annotations="half.json"),
                    _FERRET_TREE["stages"]["2"][0],
                ]
            }
        ),
        tree,
    )
    mixture = make_mixture(recipe, 1, processor=tiny, skip=True)
    names = Counter(mixture[i].id.split("/")[0] for i in range(len(mixture)))
    assert names == dict(half=10, dense=10) and mixture.counts["half", "no question"] >= 5
    (tree / "grit" / "none.json").write_text(json.dumps(records[:1]))
    with pytest.raises(ValueError, match="Part none: found no question that fits in 20 records"):
        make_mixture(
            dict(
                stages={
                    "1": [dict(name="none", format="grit", folder="grit", annotations="none.json")]
                }
            ),
            1,
            root=tree,
            skip=True,
        )[0]


def test_broken_pictures_stop_a_run_or_are_passed_over(tree, tiny, tmp_path):
    scenes = [make_scene(s, (120, 160)) for s in range(4)]
    export_tree(lambda: iter(scenes), tmp_path)
    (tmp_path / "lvis" / "train2017" / "000000000001.jpg").unlink()
    recipe = read_recipe(tmp_path / "mixture.json")
    with pytest.raises(
        FileNotFoundError,
        match="Part dense, record 0.* of lvis_v1_train.json: .*000000000001.jpg: found no file",
    ):
        list(torch.utils.data.Subset(make_mixture(recipe, 2), range(3)))
    lax = make_mixture(recipe, 2, skip=True)
    assert {lax[i].id for i in range(3)} == {
        "dense/000000000002",
        "dense/000000000003",
    } and lax.counts["dense", "unreadable"] >= 1


def test_prompts_of_a_part_are_used(tree):
    part = dict(
        format="refcoco",
        folder="refcoco",
        tasks=dict(rec=1.0),
        prompts=dict(rec=["Point at {query}!", "{query}, please."]),
    )
    mixture = make_mixture(dict(stages={"1": [part]}), 1, root=tree)
    starts = {t.prompt[:8] for i in range(len(mixture)) for t in mixture[i].turns}
    assert (
        all(
            t.prompt.lower().startswith("point at") or "please" in t.prompt
            for i in range(len(mixture))
            for t in mixture[i].turns
        )
        and len(starts) > 1
    )


@pytest.mark.parametrize(
    "change, says",
    [
        (dict(weigth=1), "found the key 'weigth', expected name, format, weight"),
        (dict(format="abc"), "found 'abc', expected one of"),
        (dict(weight=0), "field weight: found 0"),
        (dict(weight="two"), "field weight: found 'two'"),
        (dict(tasks=dict(find=1.0)), "task: found 'find', expected for ferret"),
        (
            dict(prompts=dict(rec=["Where?"])),
            "found prompts for rec that do not speak of query alone",
        ),
        (dict(prompts=dict(rec=["Where is {thing}?"])), "found prompts for rec"),
        (dict(exclude=[3]), "found the key 'exclude'"),
    ],
)
def test_a_part_that_is_wrong_is_named(change, says):
    with pytest.raises(
        ValueError, match=f"m, stage 2, part 1 .*: ?.*{says}|m, stage 2, part 1 .*{says}"
    ):
        read_recipe(dict(name="m", stages={"2": [{"format": "lvis", "folder": "x", **change}]}))


@pytest.mark.parametrize(
    "data, says",
    [
        ({}, "found no 'stages'"),
        ([], "found no 'stages'"),
        (dict(stages={"1": [3]}), "found no 'format'"),
        (dict(stages={"1": [3]}, style="x"), "field style: found 'x', expected ferret or griffon"),
        (dict(stages={"1": [3]}, sedd=1), "key: found 'sedd', expected name, style"),
    ],
)
def test_a_recipe_that_is_wrong_is_named(tmp_path, data, says):
    (tmp_path / "m.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=says):
        read_recipe(tmp_path / "m.json")


def test_presets_are_whole():
    for name, n in (("ferret-v2", (2, 1, 10)), ("griffon-v2", (1, 12, 10))):
        recipe = read_recipe(name, "somewhere")
        assert tuple(map(len, recipe.stages.values())) == n and recipe.style == name.split("-")[0]
        assert (
            len([p for p in recipe.held_out if p.format == "refcoco"]) == 8
        )  # val, testA, testB twice; val and test of g
        assert all(len({p.name for p in parts}) == len(parts) for parts in recipe.stages.values())
        json.dumps(PAPER_RECIPES[name])


def test_the_check_of_a_good_tree_finds_nothing(tree, tiny, griffon):
    for name, processor in (("mixture.json", tiny), ("mixture-griffon.json", griffon)):
        found = check_mixture(tree / name, processor, n=6)
        assert found["problems"] == [] and found["held_out"] == 2
        for held in found["stages"].values():
            for r in held["parts"]:
                assert (
                    r["tokens"]
                    and max(r["tokens"]) <= found["max_tokens"]
                    and r["gone"] == r["broken"] == 0
                )
    assert ("vg", "lvis", 8) in found["stages"]["2"]["overlaps"]


def test_a_model_of_another_form_is_refused(tree, tiny):
    told = "found the griffon form, expected that of the model, ferret"
    with pytest.raises(ValueError, match=told):
        check_mixture(tree / "mixture-griffon.json", tiny)
    with pytest.raises(ValueError, match=told):
        make_mixture(tree / "mixture-griffon.json", 2, processor=tiny)


def test_the_check_names_what_is_wrong(tiny, tmp_path):
    export_tree(lambda: (make_scene(s, (96, 128)) for s in range(5)), tmp_path)
    (tmp_path / "lvis" / "train2017" / "000000000002.jpg").unlink()
    cut = tmp_path / "genome" / "VG_100K" / "2.jpg"
    cut.write_bytes(cut.read_bytes()[:500])
    (tmp_path / "llava" / "llava.json").unlink()
    (tmp_path / "coco" / "annotations.json").write_text("{")
    o365 = json.loads((tmp_path / "objects365" / "zhiyuan_objv2_train.json").read_text())
    o365["annotations"][0]["bbox"][2] = 0
    (tmp_path / "objects365" / "zhiyuan_objv2_train.json").write_text(json.dumps(o365))
    found = check_mixture(tmp_path / "mixture.json", tiny, n=5)
    text = "\n".join(found["problems"])
    for sentence in (
        "Stage 2, dense: 1 of 4 pictures are missing, the first is train2017/000000000002.jpg",
        "Stage 3, regions: 1 of 4 records are broken",
        "Stage 1, captions: .*: found no file",
        "Stage 3, instances: .*annotations.json: found",
    ):
        assert re.search(sentence, text), sentence
    assert next(r for r in found["stages"]["3"]["parts"] if r["name"] == "objects")["left_out"] == {
        "box": 1
    }
    assert "left out 1 × box" in format_check(found) and _format_check_page(found).count(
        'class="bad"'
    ) == len(found["problems"])
    (tmp_path / "refcoco" / "finetune_refcoco_val.json").unlink()
    assert re.match(
        "Held-out data cannot be read, so nothing can be kept out: .*_refcoco_val.json: found",
        check_mixture(tmp_path / "mixture.json", tiny, n=1)["problems"][0],
    )


def test_the_page_needs_nothing_but_itself(tree, tiny, tmp_path):
    page = write_check(check_mixture(tree / "mixture.json", tiny, n=3), tmp_path / "page")
    text = page.read_text()
    assert (
        text.count("<article") > 15
        and "data:image/jpeg;base64," in text
        and "://" not in text
        and "<script" not in text
    )
    numbers = json.loads((page.parent / "check.json").read_text())
    assert numbers["problems"] == [] and sorted(p.name for p in page.parent.iterdir()) == [
        "check.json",
        "index.html",
    ]


def test_the_command_checks_and_prints_presets(tree, tmp_path, capsys):
    assert (
        cli.main(
            [
                "data",
                "check",
                str(tree / "mixture.json"),
                "--n",
                "2",
                "--stage",
                "2",
                "--out",
                str(tmp_path / "page"),
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "dense" in out and out.strip().endswith("index.html") and "PROBLEM" not in out
    assert cli.main(["data", "check", "ferret-v2", "--root", str(tmp_path), "--n", "1"]) == 1
    assert re.search("PROBLEM Stage 2, lvis: .*: found no file", capsys.readouterr().out)
    assert cli.main(["data", "preset", "griffon-v2"]) == 0 and json.loads(
        capsys.readouterr().out
    ) == json.loads(json.dumps(PAPER_RECIPES["griffon-v2"]))
    assert (
        cli.main(["data", "check", str(tmp_path / "no.json")]) == 2
        and "found no file" in capsys.readouterr().err
    )
    assert (
        cli.main(["data", "check", str(tree / "mixture.json"), "--stage", "7"]) == 2
        and "--stage: found '7', expected one of 1, 2, 3" in capsys.readouterr().err
    )


def test_the_command_writes_every_format(tmp_path, capsys):
    assert (
        cli.main(["scenes", str(tmp_path / "all"), "--n", "2", "--size", "64", "--format", "all"])
        == 0
    )
    assert Path(capsys.readouterr().out.strip()) == tmp_path / "all" / "mixture.json"
    assert {p.name for p in (tmp_path / "all").iterdir() if p.is_dir()} == {
        "coco",
        "lvis",
        "objects365",
        "refcoco",
        "genome",
        "flickr30k",
        "griffon",
        "grit",
        "llava",
    }
    assert (
        cli.main(["scenes", str(tmp_path / "lvis"), "--n", "2", "--size", "64", "--format", "lvis"])
        == 0
        and (tmp_path / "lvis" / "lvis_v1_train.json").exists()
    )
    for kind in ("all", "lvis"):
        assert (
            cli.main(["scenes", str(tmp_path / kind), "--n", "2", "--format", kind]) == 2
            and "found files in it" in capsys.readouterr().err
        )
