"The command line, word by word: defaults, what each flag becomes, what is refused, and exit codes."

import errno
import json
import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from ferretlite.app import asking as asking_module
from ferretlite.app import cli, model_commands
from ferretlite.app import options as options_module
from ferretlite.common.errors import FerretliteWarning, InputError, MissingPackageError
from ferretlite.common.files import WEIGHTS, write_folder_whole
from ferretlite.model.answers import Answer
from ferretlite.model.inference import Ferret
from ferretlite.regions.geometry import Box, Point
from ferretlite.scenes.world import make_scene
from ferretlite.training.distributed import RunOptions


def parsed(*words):
    "What a command line says: the values that the command's function would get."
    stub = patch.object(typer.core.TyperCommand, "invoke", lambda self, context: context.params)
    with stub:
        return cli.main([str(w) for w in words])


def ran(capsys, *words):
    "Exit code, stdout and stderr."
    capsys.readouterr()
    code = cli.main([str(w) for w in words])
    return code, *capsys.readouterr()


@pytest.fixture
def noted(monkeypatch):
    "Replace a function of a module by one that notes what it is asked."

    def install(module, name, found=None):
        seen = []

        def call(*args, **kwargs):
            seen.append((args, kwargs))
            return found

        monkeypatch.setattr(f"ferretlite.{module}.{name}", call)
        return seen

    return install


# Numbers and regions that are typed


@pytest.mark.parametrize(
    "text, value", [("1", 1), ("007", 7), ("12", 12), ("999999999", 999999999)]
)
def test_whole_numbers(text, value):
    assert parsed("eval", "m", "--n", text)["n"] == value
    assert parsed("eval", "m", "--seed", text)["seed"] == value


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "x", "²", "nan", "inf", "9" * 5000])
def test_what_is_no_whole_number(capsys, text):
    code, _, err = ran(capsys, "eval", "m", "--n", text)
    assert code == 2 and "'--n': found" in err and "expected a" in err


def test_seeds_are_those_of_numpy(capsys):
    for seed in (0, 2**32 - 1):
        np.random.RandomState(seed)
        assert parsed("eval", "m", "--seed", seed)["seed"] == seed
    for seed in (-1, 2**32):
        with pytest.raises(ValueError):
            np.random.RandomState(seed)
        code, _, err = ran(capsys, "eval", "m", "--seed", seed)
        assert code == 2 and f"'--seed': found '{seed}'" in err


@pytest.mark.parametrize("text", ["0", "-2", "inf", "nan", "x", ""])
def test_what_is_no_positive_number(capsys, text):
    for words in (
        "train --out x --minutes",
        "plan small --utilisation",
        "pretrain lm --out x --lr",
    ):
        assert ran(capsys, *words.split(), text)[0] == 2


def test_positive_numbers_and_shares(capsys):
    assert parsed("train", "--out", "x", "--minutes", "2.5")["minutes"] == 2.5
    assert parsed("pretrain", "dino", "--out", "x", "--lr", "1e-3")["lr"] == 0.001
    for share in ("1", "0.01"):
        assert parsed("plan", "small", "--utilisation", share)["utilisation"] == float(share)
    code, _, err = ran(capsys, "plan", "small", "--utilisation", "1.01")
    assert code == 2 and "less than or equal to 1" in err


def test_sizes_are_a_side_or_height_and_width():
    assert cli.parse_size("384") == 384 and cli.parse_size("288x384") == (288, 384)
    assert cli.parse_size("32X40") == (32, 40) and cli.parse_size("10000") == 10000
    for text, says in (
        ("31", "32 to 10000"),
        ("64x31", "32 to 10000"),
        ("10001", "32 to 10000"),
        ("64x64x64", "HEIGHTxWIDTH"),
        ("ax32", "HEIGHTxWIDTH"),
        ("²", "HEIGHTxWIDTH"),
    ):
        with pytest.raises(typer.BadParameter, match=says):
            cli.parse_size(text)


def test_regions_as_they_are_typed():
    assert asking_module.parse_box("1,2.5,3,4") == ("box", [1.0, 2.5, 3.0, 4.0])
    assert asking_module.parse_point("5,-6") == ("point", [5.0, -6.0])
    assert asking_module.parse_mask_name("m.png") == ("mask", "m.png")
    assert asking_module.parse_crop("1,2,3,4") == ("box", [1.0, 2.0, 3.0, 4.0])
    for text in ("1,2,3", "1,2,3,4,5", "1,2,3,nan", "a,2,3,4"):
        with pytest.raises(typer.BadParameter, match="x1,y1,x2,y2"):
            asking_module.parse_box(text)
    with pytest.raises(typer.BadParameter, match="x,y"):
        asking_module.parse_point("1,2,3")


def test_regions_of_several_kinds_keep_their_order():
    values = {"--region": [1, 2], "--point": [3], "--mask": None}
    flags = ["a.png", "--region", "1,2,3,4", "--point", "5,5", "--region", "6,7,8,9"]
    assert asking_module._order_regions(flags, values) == [1, 3, 2]
    for wrong in (flags + ["--mask"], flags[2:]):
        with pytest.raises(ValueError, match="FLAG=VALUE"):
            asking_module._order_regions(wrong, values)


def test_typed_regions_become_regions_of_the_image(tmp_path):
    path = tmp_path / "m.png"
    Image.fromarray(np.eye(3, 4, dtype=np.uint8) * 255).save(path)
    given = [("point", [3.0, 1.0]), ("box", [0.0, 1.0, 4.0, 3.0]), ("mask", path)]
    point, box, mask = asking_module.read_regions(given, (3, 4))
    assert (point.x, point.y) == (3.0, 1.0) and box.list() == [0, 1, 4, 3]
    assert np.array_equal(mask.to_mask(3, 4), np.eye(3, 4, dtype=bool))
    assert asking_module.read_regions([], (3, 4)) == []
    with pytest.raises(ValueError, match="outside"):
        asking_module.read_regions([("point", [1.0, 3.5])], (3, 4))


def test_a_masks_pixels_are_the_bright_ones(tmp_path):
    "More than half of the brightest: of 200 those above 100."
    path = tmp_path / "m.png"
    Image.fromarray(np.array([[0, 100, 101, 200]], np.uint8)).save(path)
    assert asking_module.read_mask_file(path).to_mask(1, 4).tolist() == [[False, False, True, True]]
    Image.new("L", (4, 1)).save(path)
    with pytest.raises(ValueError, match="marks no pixel"):
        asking_module.read_mask_file(path)


@pytest.mark.parametrize(
    "lowest, opaque", [(127, [False, True, True]), (128, [True, False, False])]
)
def test_a_masks_pixels_are_the_opaque_ones_where_some_are_not(tmp_path, lowest, opaque):
    "Transparency counts where one pixel is less than half opaque; else brightness."
    pixels = np.array([[[250, 250, 250, lowest], [9, 9, 9, 255], [9, 9, 9, 255]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    assert asking_module.read_mask_file(tmp_path / "m.png").to_mask(1, 3).tolist() == [opaque]


def test_a_mask_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    drawn = np.zeros((3, 5), np.uint8)
    drawn[0, 4] = 255
    Image.fromarray(drawn).save(tmp_path / "m.png", exif=exif)
    found = asking_module.read_mask_file(tmp_path / "m.png").to_mask(5, 3)
    assert np.argwhere(found).tolist() == [[4, 2]]


def test_typed_crops_are_boxes_of_the_image_or_files(tmp_path):
    image = Image.new("RGB", (40, 30))
    Image.new("RGB", (7, 5)).save(tmp_path / "c.png")
    crops = asking_module.read_crops(
        [("file", tmp_path / "c.png"), ("box", [1.0, 2.0, 39.0, 29.0])], image
    )
    assert crops[0].image.size == (7, 5) and crops[0].box is None
    assert crops[1].image is image and crops[1].box.list() == [1, 2, 39, 29]
    with pytest.raises(ValueError, match="outside"):
        asking_module.read_crops([("box", [50.0, 2.0, 60.0, 29.0])], image)
    assert asking_module.read_crops([], image) == []


# Errors and exit codes


def test_errors_become_one_line():
    assert (
        options_module.format_error(InputError("a\n  b")) == "a b"
        and options_module.format_error(OSError()) == "OSError"
    )
    assert options_module.format_error(MissingPackageError("x")) == "x"
    bugs = KeyError("z"), TypeError("z"), IndexError("z"), ValueError("z"), ImportError("z")
    for error in bugs:
        assert "(this is a mistake of ours" in options_module.format_error(error)
    full = OSError(errno.ENOSPC, "No space left on device", "a.json")
    assert options_module.format_error(full) == "a.json: No space left on device."
    for error in (
        MemoryError(),
        RuntimeError("CUDA out of memory"),
        RuntimeError("can't allocate memory: 9"),
    ):
        assert options_module.is_out_of_memory(
            error
        ) and "too little memory" in options_module.format_error(error)
    assert not options_module.is_out_of_memory(
        RuntimeError("shapes")
    ) and not options_module.is_out_of_memory(ValueError("out of memory"))


def raising(error):
    def run():
        raise error

    return run


def test_exit_codes(monkeypatch, capsys):
    monkeypatch.delenv("FERRETLITE_TRACEBACK", raising=False)
    assert options_module.run_guarded(lambda: None) == 0
    assert options_module.run_guarded(lambda: 3) == 3
    assert options_module.run_guarded(raising(KeyboardInterrupt())) == 130
    assert "stopped" in capsys.readouterr().err
    assert options_module.run_guarded(raising(InputError("no"))) == 2
    out, err = capsys.readouterr()
    assert err == "ferretlite: no\n" and out == ""
    gone = []
    monkeypatch.setattr(os, "dup2", lambda new, old: gone.append(old))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(fileno=lambda: 77, flush=lambda: None))
    assert options_module.run_guarded(raising(BrokenPipeError())) == 141 and gone == [77]


def test_a_warning_of_ours_is_one_line_and_said_once(capsys):
    def warn():
        for text in ("2 boxes\n were dropped.", "2 boxes\n were dropped.", "cut"):
            warnings.warn(text, FerretliteWarning, stacklevel=2)

    assert options_module.run_guarded(warn) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "ferretlite: 2 boxes were dropped.\nferretlite: cut\n")


def test_outputs_are_looked_at_before_the_work(tmp_path):
    (tmp_path / "f").touch()
    assert options_module.parse_output_file(f"{tmp_path}/new/a.json") == f"{tmp_path}/new/a.json"
    assert options_module.parse_output_file(f"{tmp_path}/f") == f"{tmp_path}/f"
    assert options_module.parse_output_folder(str(tmp_path)) == str(tmp_path)
    for parse, text, says in (
        (options_module.parse_output_file, tmp_path, "is a folder"),
        (options_module.parse_output_file, os.devnull, "no regular file"),
        (options_module.parse_output_file, tmp_path / "f" / "a.json", "is a file"),
        (options_module.parse_output_folder, tmp_path / "f", "expected the name of a folder"),
        (options_module.parse_output_folder, tmp_path / "f" / "run", "is a file"),
        (options_module.parse_output_folder, "", "found ''"),
    ):
        with pytest.raises(typer.BadParameter, match=says):
            parse(str(text))


def test_noise_goes_to_the_other_stream(capsys, monkeypatch):
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    with options_module.redirect_output():
        print("noise")
        assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    print("said")
    out, err = capsys.readouterr()
    assert out == "said\n" and "noise" in err


# Defaults


def test_defaults_of_ask():
    assert parsed("ask", "a.png", "what?") == dict(
        image="a.png",
        question="what?",
        region=(),
        point=(),
        mask=(),
        crop=(),
        save=None,
        as_json=False,
        model="tiny",
        max_new_tokens=256,
        stream=False,
        look_again=True,
        slices=1,
        min_score=None,
        verify=False,
        device=None,
    )


BUDGET = dict(device=None, samples=None, minutes=None, resume=False, seed=0, out="x")


def test_defaults_of_train():
    assert parsed("train", "--out", "x") == dict(
        **BUDGET,
        preset="tiny",
        stage="all",
        from_model=None,
        towers=None,
        lm=None,
        compile=None,
        data=None,
        skip=None,
        at_once=None,
        checkpointing=False,
        lora=0,
        slow=(),
        unfreeze=(),
        group=False,
        tensorboard=False,
        fsdp=None,
        deepspeed=None,
        dtype="auto",
    )
    for words in (["train"], ["train", "--out", "x", "--stage", "0"]):
        assert cli.main(words) == 2


def test_defaults_of_pretrain():
    assert parsed("pretrain", "dino", "--out", "x") == dict(**BUDGET, lr=None)
    assert parsed("pretrain", "clip", "--out", "x") == dict(**BUDGET, lr=None, regions=None)
    more = dict(lr=None, start=None, sides=None)
    assert parsed("pretrain", "dense", "--out", "x") == dict(**BUDGET, **more)
    more = dict.fromkeys(("lr", "start", "style", "batch_size", "muon"))
    flags = dict(compile=False, wide=False)
    assert parsed("pretrain", "lm", "--out", "x") == dict(**BUDGET, **more, **flags)


def test_defaults_of_eval_experiment_and_bench():
    assert parsed("eval", "m") == dict(
        model="m",
        suite="scenes",
        data=None,
        n=None,
        split="test",
        seed=0,
        batch=32,
        fast=False,
        device=None,
        save=None,
        look_again=False,
        slices=1,
        judge=None,
        judge_model=None,
        out=None,
        json_file=None,
        listed=False,
    )
    assert parsed("score", "pope", "--data", "d") == dict(
        name="pope",
        data="d",
        answers=None,
        n=None,
        questions=None,
        form="ferret",
        results=None,
        save=None,
        judge=None,
        judge_model=None,
        out=None,
        json_file=None,
    )
    assert parsed("experiment", "resolution") == dict(
        name="resolution", seeds=3, samples=None, out="runs/experiment"
    )
    assert parsed("bench", "train") == dict(steps=4, dtype="auto", compile=False, json_file=None)
    assert parsed("bench", "kernels") == dict(quick=False, everything=False, json_file=None)
    assert parsed("bench", "sampler") == dict(json_file=None)


def test_defaults_of_scenes_data_and_doctor():
    assert parsed("scenes", "x") == dict(
        out="x", n=1000, format="coco", exam=None, split="train", size=384, seed=0
    )
    assert parsed("data", "check", "m") == dict(
        config="m",
        root=None,
        images=None,
        write=None,
        stage=None,
        n=100,
        out=None,
        model=None,
        skip=None,
        seed=0,
    )
    assert parsed("data", "split", "m", "--out", "o") == dict(
        path="m", out="o", val=0.1, test=0.1, images=None, skip=None, seed=0
    )
    assert parsed("doctor") == dict(selftest=False)
    for name in "coco lvis objects365 refcoco genome flickr30k griffon grit llava all".split():
        assert parsed("scenes", "x", "--format", name)["format"] == name


def test_defaults_of_plan_convert_and_demo():
    assert parsed("plan", "small") == dict(
        preset="small",
        gpus=8,
        gpu_memory=80,
        gpu="h100",
        utilisation=0.4,
        sharding="full",
        keep_activations=False,
        lora=0,
        text=300,
        as_json=False,
    )
    assert parsed("convert", "a", "b") == dict(checkpoint="a", out="b", tower=None)
    assert parsed("demo") == dict(out="ferretlite-demo", model="tiny", seed=0, device=None)


def test_the_commands_and_the_version(capsys):
    names = "demo ask train eval score scenes data doctor plan convert pretrain experiment bench"
    names += " fit-scores exercises quiz"
    assert set(typer.main.get_command(cli.cli_app).commands) == set(names.split())
    assert ran(capsys, "--version")[:2] == (0, f"ferretlite {cli.__version__}\n")
    code, _, err = ran(capsys, "plan", "small", "--gpu", "h200")
    assert code == 2 and "see `ferretlite plan --help`" in err


# What flags become


def test_ask_hands_on_what_was_typed(capsys, monkeypatch, tmp_path):
    make_scene(1, (64, 96), "test").image.save(tmp_path / "a.png")
    asked = []

    class Stub:
        def ask(self, *args, **kwargs):
            asked.append((args, kwargs))
            return Answer("yes", warnings=["careful"], image=args[0])

    monkeypatch.setattr(Ferret, "load", lambda name, device=None: asked.append(name) or Stub())
    words = ["--point", "90,4", "--region", "1,2,80,60", "--crop", "5,6,70,60"]
    out = tmp_path / "o.png"
    more = ["--model", "mine", "--max-new-tokens", "7", "--save", out]
    code, said, err = ran(capsys, "ask", tmp_path / "a.png", "is it?", *words, *more)
    name, ((image, question, regions, crops), options) = asked
    assert (code, name, question) == (0, "mine", "is it?")
    assert options == dict(
        max_new_tokens=7, streamer=None, look_again=True, min_score=None, verify=False
    )
    assert image.size == (96, 64) and [type(r) for r in regions] == [Point, Box]
    assert crops[0].box.list() == [5, 6, 70, 60] and crops[0].image is image
    assert said == "yes\n" and "ferretlite: careful" in err and out.exists()


def test_options_of_the_machine_reach_their_fields(capsys, noted, tmp_path):
    asked = noted("training.runs", "train", Path("the/run"))
    noted("app.model_commands", "_fit_scores_of_run")

    def read_options(*words):
        assert ran(capsys, "train", "--out", "x", *words)[0] == 0
        return asked[-1][1]["options"]

    file = tmp_path / "f.json"
    file.touch()
    words = "--at-once 3 --checkpointing --lora 5 --slow sampler=0.5 --slow language_model=0.1"
    plain = [*words.split(), "--group", "--tensorboard", "--fsdp", str(file)]
    assert read_options(*plain) == RunOptions(
        at_once=3,
        checkpointing=True,
        lora=5,
        slow=dict(sampler=0.5, language_model=0.1),
        group=True,
        tensorboard=True,
        fsdp=str(file),
    )
    parts = ["global_tower", "local_tower"]
    found = read_options("--unfreeze", parts[0], "--unfreeze", parts[1])
    assert found == RunOptions(unfreeze=parts)
    for flag in ("checkpointing", "group", "tensorboard"):  # each one by itself
        assert read_options(f"--{flag}") == RunOptions(**{flag: True})
    assert read_options("--deepspeed", str(file)) == RunOptions(deepspeed=str(file))
    assert read_options("--dtype", "float32") == RunOptions(dtype="float32")
    assert model_commands.parse_rate("a=0.5") == ("a", 0.5)
    for text in ("a", "=0.5", "a=0", "a=x", "a=-1", "a=nan", "a=inf"):
        with pytest.raises(typer.BadParameter, match="PART=FACTOR"):
            model_commands.parse_rate(text)


def test_samples_and_minutes_exclude_each_other(capsys, noted):
    asked = noted("training.runs", "train", Path("the/run"))
    for words in ("--samples 8 --minutes 1", "--minutes 1 --samples 8"):
        code, _, err = ran(capsys, "train", "--out", "x", *words.split())
        assert code == 2 and "exclude each other" in err and asked == []


def test_train_hands_on_what_was_typed(capsys, noted):
    asked = noted("training.runs", "train", Path("the/run"))
    noted("app.model_commands", "_fit_scores_of_run")
    words = "--preset small --stage 2 --samples 48 --resume --from tiny --seed 5 --lm words"
    more = "--towers eyes --compile --data m.json --lora 4 --out here --skip bad"
    code, said, _ = ran(capsys, "train", *words.split(), *more.split())
    ((args, options),) = asked
    folder = WEIGHTS / "tiny"
    assert args[:6] == ("small", "2", "here", 48, None, True) and args[7] == 5
    assert Path(args[6]) == folder
    more = dict(towers="eyes", lm="words", compile=True, data="m.json", skip="bad")
    assert options == dict(options=RunOptions(lora=4), **more)
    assert code == 0 and said.startswith("the/run now loads as a model")
    ran(capsys, "train", "--minutes", "2.5", "--out", "here")
    more = dict(towers=None, lm=None, compile=None, data=None, skip=None)
    assert asked[1][1] == dict(options=RunOptions(), **more)
    assert asked[1][0] == ("tiny", "all", "here", None, 2.5, False, None, 0)


@pytest.mark.parametrize(
    "words, module, name, options",
    [
        (
            "clip --regions 0.5 --lr 0.1",
            "pretraining.clip",
            "pretrain_clip",
            dict(regions=0.5, lr=0.1),
        ),
        ("dino", "pretraining.dino", "pretrain_dino", {}),
        (
            "dense --tower local --from a",
            "pretraining.dense",
            "pretrain_towers",
            dict(sides=("local",), start="a"),
        ),
        (
            "lm --style griffon --muon 0.1 --batch 6 --compile",
            "pretraining.language",
            "pretrain_lm",
            dict(style="griffon", muon=0.1, batch_size=6, compile=True),
        ),
    ],
)
def test_pretrain_hands_on_what_was_typed(capsys, noted, words, module, name, options):
    asked = noted(module, name)
    budget = ["--samples", "24", "--resume", "--seed", "3", "--out", "here"]
    code, said, _ = ran(capsys, "pretrain", *words.split(), *budget)
    given = dict(samples=24, minutes=None, resume=True, seed=3)
    assert asked == [(("here",), {**given, **options})] and (code, said) == (0, "here\n")


PRETRAININGS = dict(
    clip="pretrain_clip", dino="pretrain_dino", dense="pretrain_towers", lm="pretrain_lm"
)


@pytest.mark.parametrize(
    "flag, owners",
    [
        ("--from a", {"dense", "lm"}),
        ("--tower local", {"dense"}),
        ("--regions 1", {"clip"}),
        ("--compile", {"lm"}),
        ("--style griffon", {"lm"}),
        ("--muon 1", {"lm"}),
        ("--batch 1", {"lm"}),
        ("--wide", {"lm"}),
    ],
)
def test_whose_flags_of_pretraining_are(capsys, noted, flag, owners):
    for what, name in PRETRAININGS.items():
        noted(f"pretraining.{dict(lm='language').get(what, what)}", name)
    codes = {w: ran(capsys, "pretrain", w, *flag.split(), "--out", "x")[0] for w in PRETRAININGS}
    assert {w for w, code in codes.items() if code == 0} == owners


def test_bench_hands_on_what_was_typed(capsys, noted, tmp_path):
    asked = noted("training.speed", "bench_train", dict(a=1))
    noted("training.speed", "format_training_bench", "a table")
    assert ran(capsys, "bench", "train")[:2] == (0, "a table\n")
    assert ran(capsys, "bench", "train", "--steps", "9", "--json", tmp_path / "b.json")[0] == 0
    plain = dict(steps=4, dtype="auto", compile=False)
    assert asked == [((), plain), ((), dict(plain, steps=9))]
    assert ran(capsys, "bench", "train", "--dtype", "float32", "--compile")[0] == 0
    assert asked.pop() == ((), dict(steps=4, dtype="float32", compile=True))
    assert ran(capsys, "bench", "train", "--dtype", "float16")[0] == 2
    assert (tmp_path / "b.json").read_text() == '{\n "a": 1\n}\n'
    for words in (["train", "--quick"], ["sampler", "--steps", "2"], ["train", "--all"]):
        assert ran(capsys, "bench", *words)[0] == 2
    assert ran(capsys, "bench", "train", "--json", tmp_path)[0] == 2 and len(asked) == 2
    for name, lines in (
        ("sampler", "format_sampler_bench"),
        ("resolution", "format_resolution_bench"),
        ("projectors", "format_projector_bench"),
        ("decode", "format_decoding_bench"),
    ):
        asked = noted("evaluation.speed", f"bench_{name}", dict(b=2))
        noted("evaluation.speed", lines, f"{name}'s table")
        assert ran(capsys, "bench", name)[:2] == (0, f"{name}'s table\n") and len(asked) == 1


@pytest.mark.parametrize("right, code", [([True, True], 0), ([True, False], 2)])
def test_wrong_kernels_are_an_error(capsys, noted, tmp_path, right, code):
    rows = dict(rows=[dict(right=r) for r in right])
    asked = noted("evaluation.kernel_speed", "bench_kernels", rows)
    noted("evaluation.kernel_speed", "format_kernel_table", "a table")
    drawn = noted(
        "evaluation.kernel_speed",
        "draw_kernel_times",
        SimpleNamespace(savefig=lambda *a, **k: drawn.append((a, k))),
    )
    found, out, err = ran(capsys, "bench", "kernels", "--quick", "--json", tmp_path / "k.json")
    assert found == code and out == "a table\n"
    assert ("wrong results at 1 of 2 sizes" in err) == (code == 2)
    (args, options), *_ = asked
    assert args == (True, False) and drawn[1] == ((tmp_path / "k.png",), dict(dpi=150))
    options["on_record"](dict(b=2))
    assert json.loads((tmp_path / "k.json").read_text()) == dict(b=2)
    ran(capsys, "bench", "kernels", "--all")
    assert asked[1][0] == (False, True) and len(drawn) == 2


def test_eval_hands_on_what_was_typed(capsys, noted, monkeypatch, tmp_path):
    asked = noted("evaluation.suites", "evaluate", dict(a=1))
    noted("evaluation.scores", "format_metrics_table", "a table")
    monkeypatch.setattr(Ferret, "load", lambda name, device=None: f"ferret {name}")
    words = "--suite scenes --n 7 --split val --seed 4 --batch 3".split()
    code, said, _ = ran(capsys, "eval", "mine", *words, "--json", tmp_path / "e.json")
    assert asked == [(("ferret mine", "scenes", 7, 4, 3), dict(split="val", closer=True))]
    assert (code, said) == (0, "a table\n") and json.loads(
        (tmp_path / "e.json").read_text()
    ) == dict(a=1)


def test_nothing_is_scored_where_nothing_can_be_written(capsys, noted, monkeypatch, tmp_path):
    asked = noted("evaluation.suites", "evaluate", dict(a=1))
    monkeypatch.setattr(Ferret, "load", lambda name, device=None: asked.append(name))
    code, _, err = ran(capsys, "eval", "tiny", "--json", tmp_path)
    assert code == 2 and "is a folder" in err and asked == []


def test_scenes_are_numbered_from_the_seed(capsys, monkeypatch, tmp_path):
    made, formats = [], []

    def export(format):
        def write(scenes, out):
            formats.append((format, list(scenes() if callable(scenes) else scenes)))
            return out / "a.json"

        return write

    monkeypatch.setattr("ferretlite.scenes.world.make_scene", lambda *args: made.append(args))
    monkeypatch.setattr("ferretlite.scenes.world.export_coco", export("coco"))
    monkeypatch.setattr("ferretlite.data.recipes.export_tree", export("all"))
    monkeypatch.setattr("ferretlite.data.recipes.FORMAT_EXPORTERS", dict(grit=export("grit")))
    words = "--n 3 --seed 5 --size 64x96 --split val".split()
    code, said, _ = ran(capsys, "scenes", tmp_path / "a", *words)
    assert (code, said) == (0, f"{tmp_path / 'a' / 'a.json'}\n")
    assert made == [(5, (64, 96), "val"), (6, (64, 96), "val"), (7, (64, 96), "val")]
    for format in ("all", "grit"):
        assert ran(capsys, "scenes", tmp_path / format, "--format", format, "--n", "2")[0] == 0
    assert [(f, len(s)) for f, s in formats] == [("coco", 3), ("all", 2), ("grit", 2)]


def test_nothing_is_written_over_other_files(tmp_path):
    with write_folder_whole(tmp_path / "new") as part:
        (part / "x.json").touch()
    assert (tmp_path / "new" / "x.json").exists()
    with pytest.raises(ValueError, match="found files in it"):
        with write_folder_whole(tmp_path / "new"):
            raise AssertionError("the folder was given out")
    (tmp_path / "empty").mkdir()
    with write_folder_whole(tmp_path / "empty") as part:
        (part / "y.json").touch()
    assert sorted(p.name for p in tmp_path.rglob("*.json")) == ["x.json", "y.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "new"]


def test_a_folder_that_was_not_finished_is_not_there(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with write_folder_whole(tmp_path / "s") as part:
            (part / "x.json").touch()
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_preset_mixture_is_printed(capsys):
    from ferretlite.data.recipes import PAPER_RECIPES

    code, said, _ = ran(capsys, "data", "preset", "ferret-v2")
    assert code == 0 and json.loads(said) == PAPER_RECIPES["ferret-v2"]
    assert ran(capsys, "data", "preset", "ferret-v3")[0] == 2
    for flag in ("--root a", "--stage 1", "--out b", "--model c"):
        code, _, err = ran(capsys, "data", "preset", "ferret-v2", *flag.split())
        assert code == 2 and "No such option" in err


@pytest.mark.parametrize(
    "style, model, problems", [("ferret", "tiny", []), ("griffon", "tiny-griffon", [1])]
)
def test_a_mixture_is_checked_by_its_styles_model(
    capsys, noted, monkeypatch, tmp_path, style, model, problems
):
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Recipe:
        style: str
        stages: dict
        name: str = "mine"

    read = noted("data.recipes", "read_recipe", Recipe(style, {"1": "one", "2": "two"}))
    asked = noted("data.inspection", "check_mixture", dict(problems=problems))
    noted("data.inspection", "format_check", "lines")
    written = noted("data.inspection", "write_check", tmp_path / "page.html")
    monkeypatch.setattr(
        "ferretlite.model.processing.FerretProcessor.from_pretrained",
        lambda folder: Path(folder).name,
    )
    words = ["--n", "7", "--seed", "3", "--stage", "2", "--root", "r", "--out", "o"]
    code, said, _ = ran(capsys, "data", "check", "m.json", *words)
    assert code == len(problems) and said == f"lines\n{tmp_path / 'page.html'}\n"
    (((recipe, processor), options),) = asked
    assert (processor, options) == (model, dict(n=7, seed=3, skip=False)) and recipe.stages == {
        "2": "two"
    }
    assert read == [(("m.json", "r"), {})] and written[0][0][1] == "o"
    code, said, _ = ran(capsys, "data", "check", "m.json", "--model", "tiny", "--skip", "bad")
    assert asked[1][1]["skip"]
    assert asked[1][0][1] == "tiny" and len(asked[1][0][0].stages) == 2 and said == "lines\n"
    code, _, err = ran(capsys, "data", "check", "m.json", "--stage", "3")
    assert code == 2 and "--stage: found '3', expected one of 1, 2" in err


# The doctor


def test_megabytes_are_millions_of_bytes(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"0" * 1_500_000)
    (tmp_path / "y").write_bytes(b"0" * 500_000)
    assert cli.measure_megabytes(tmp_path) == 2.0


def test_versions_of_what_is_installed(monkeypatch):
    import importlib.metadata

    def version(name):
        if name == "triton":
            raise importlib.metadata.PackageNotFoundError
        return "v " + name

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = cli.list_versions()
    assert found["torch"] == "v torch" and found["triton"] is None and "pycocotools" in found


def test_the_quick_check_names_the_largest_thing(monkeypatch):
    asked = []

    class Stub:
        def refer(self, image, region):
            asked.append((image.size, region))
            return answer

    monkeypatch.setattr(Ferret, "load", lambda name, device=None: Stub())
    things = [o for o in make_scene(1, split="test").objects if not o.text]
    largest = max(things, key=lambda o: (o.box.x2 - o.box.x1) * (o.box.y2 - o.box.y1))
    for answer, empty in (("a star", False), ("", True)):
        assert cli.quick_check() == (answer, largest.phrase) and empty == (not answer)
    assert asked[0] == ((384, 384), largest.box)


@pytest.mark.parametrize(
    "empty, selftest, rows, code",
    [
        (False, False, None, 0),
        (True, False, None, 1),
        (True, True, None, 1),
        (False, True, [("a", True), ("b", True)], 0),
        (False, True, [("a", True), ("b", False)], 1),
    ],
)
def test_the_doctors_exit_code(capsys, monkeypatch, noted, empty, selftest, rows, code):
    monkeypatch.setattr(cli, "quick_check", lambda: ("" if empty else "said", "true"))
    asked = noted("evaluation.selftest", "selftest", rows)
    noted("evaluation.selftest", "format_selftest", "lines")
    found, said, _ = ran(capsys, "doctor", *["--selftest"] * selftest)
    assert found == code and len(asked) == (rows is not None)
    assert f"{'' if empty else 'said'!r} where the truth is 'true'" in said and (
        "lines" in said
    ) == (rows is not None)
    assert f"torch uses {torch.get_num_threads()} threads" in said and "tiny-griffon (" in said


@pytest.mark.parametrize(
    "system, refused", [("Linux", False), ("Darwin", False), ("Windows", True)]
)
def test_the_doctor_refuses_systems_without_tests_by_name(capsys, monkeypatch, system, refused):
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr(cli, "quick_check", lambda: ("said", "true"))
    code, _, err = ran(capsys, "doctor")
    assert code == (2 if refused else 0)
    assert ("operating system: found 'Windows', expected Linux or macOS" in err) == refused
    assert ("WSL" in err) == refused


# Plans, conversions and the demo


def test_plan_hands_on_what_was_typed(capsys, noted):
    asked = noted("evaluation.planning", "plan_training", dict(a=1))
    noted("evaluation.planning", "format_plan", "lines")
    words = "--gpus 3 --gpu-memory 24.5 --gpu a100 --utilisation 0.3 --sharding none --lora 6"
    code, said, _ = ran(
        capsys, "plan", "small", *words.split(), "--text", "77", "--keep-activations"
    )
    assert asked == [(("small", 3, 24.5, "a100", 0.3, "none", False, 6, 77), {})]
    assert (code, said) == (0, "lines\n")
    assert json.loads(ran(capsys, "plan", "tiny", "--json")[1]) == dict(a=1)
    assert asked[1] == (("tiny", 8, 80, "h100", 0.4, "full", True, 0, 300), {})


def test_convert_and_demo_hand_on_what_was_typed(capsys, noted, tmp_path):
    asked = noted("model.conversion", "convert_checkpoint", "there")
    code, said, _ = ran(capsys, "convert", "a", "b", "--tower", "c")
    assert asked == [(("a", "b", "c"), {})] and said.startswith("there now loads as a model")
    cards = [SimpleNamespace(right=r) for r in (True, False, True)]
    asked = noted("app.demo", "write_demo", (cards, tmp_path / "p.html"))
    code, said, _ = ran(capsys, "demo", "--out", "d", "--model", "m", "--seed", "4")
    assert asked == [(("d", "m", 4, None), {})]
    assert said == f"2 of 3 answers are right.\n{tmp_path / 'p.html'}\n"


def test_an_experiment_hands_on_what_was_typed(capsys, noted, monkeypatch):
    claims = [SimpleNamespace(metric="rec")]
    study = (dict(a={}), dict(samples=9, other=1), claims, "work")
    monkeypatch.setattr("ferretlite.evaluation.studies.STUDIES", dict(resolution=study))
    found = dict(a=[1, 2])
    asked = noted("evaluation.experiments", "run_study", found)
    noted("evaluation.experiments", "judge_claims", [])
    noted("evaluation.experiments", "format_claims", "claims")
    code, said, err = ran(
        capsys, "experiment", "resolution", "--seeds", "2", "--samples", "5", "--out", "o"
    )
    ((args, options),) = asked
    assert args == (dict(a={}), 2, dict(samples=5, other=1), "work", "o") and said == "claims\n"
    assert "another process" not in err
    options["on_result"]("a", 1, dict(rec=0.5, n=3, name=0.25, other=1.0))
    assert capsys.readouterr().out == "a, seed 1: rec 0.500\n"
    _, _, err = ran(capsys, "experiment", "resolution")
    assert asked[1][0][1:3] == (3, dict(samples=9, other=1)) and "another process" in err
