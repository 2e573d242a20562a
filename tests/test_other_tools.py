"Answers for other programs, and the adapter for lmms-eval, without the packages and with them."

import abc
import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ferretlite.common.errors import InputError, MissingPackageError
from ferretlite.model.answers import Answer, read_detections
from ferretlite.regions.geometry import Box, Mask
from ferretlite.regions.grammar import Grounding

ROOT = Path(__file__).parent.parent
PICTURE = Image.new("RGB", (200, 100))


def make_answer(scores=(0.9, 0.4)) -> Answer:
    "An answer with two names and three boxes in a picture of 100 x 200 pixels."
    found = [
        Grounding("mug", [Box(10, 20, 50, 80), Box(0, 0, 5, 5)], scores and list(scores)),
        Grounding("cat", [Box(100, 0, 200, 100)], scores and [0.7]),
    ]
    return Answer("two mugs and a cat", found, raw_text="as written", image=PICTURE)


# COCO and supervision


def test_coco_counts_width_and_height_from_the_corner():
    coco = make_answer().to_coco(5, "a.jpg")
    assert coco["images"] == [dict(id=5, file_name="a.jpg", height=100, width=200)]
    assert [c["name"] for c in coco["categories"]] == ["mug", "cat"]
    assert [a["bbox"] for a in coco["annotations"]] == [
        [10, 20, 40, 60],
        [0, 0, 5, 5],
        [100, 0, 100, 100],
    ]
    assert [(a["id"], a["category_id"], a["score"]) for a in coco["annotations"]] == [
        (1, 1, 0.9),
        (2, 1, 0.4),
        (3, 2, 0.7),
    ]
    assert {a["image_id"] for a in coco["annotations"]} == {5}
    assert "score" not in make_answer(None).to_coco()["annotations"][0]
    assert Answer("nothing", image=PICTURE).to_coco()["annotations"] == []


def test_coco_keeps_the_numbers_of_a_data_set():
    coco = make_answer().to_coco(categories={"cat": 17, "mug": 47, "dog": 18})
    assert [a["category_id"] for a in coco["annotations"]] == [47, 47, 17]
    assert dict(id=18, name="dog") in coco["categories"]
    with pytest.raises(InputError, match="name of a box: found 'mug', expected one of cat"):
        make_answer().to_coco(categories={"cat": 1})


def test_pycocotools_reads_the_annotations(tmp_path):
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = make_answer().to_coco()
    coco.createIndex()
    found = coco.loadRes(make_answer().to_coco()["annotations"])
    assert [a["area"] for a in found.anns.values()] == [2400, 25, 10000]


class Detections(SimpleNamespace):
    "A stand-in with the fields of supervision.Detections (xyxy, mask, confidence, class_id, data)."

    mask = None


@pytest.fixture
def supervision(monkeypatch):
    "A stand-in for the package."
    package = ModuleType("supervision")
    package.Detections = Detections
    monkeypatch.setitem(sys.modules, "supervision", package)


def test_detections_hold_arrays_of_equal_length(supervision):
    found = make_answer().to_detections()
    assert found.xyxy.tolist() == [[10, 20, 50, 80], [0, 0, 5, 5], [100, 0, 200, 100]]
    assert found.confidence.tolist() == pytest.approx([0.9, 0.4, 0.7])
    assert found.class_id.tolist() == [0, 0, 1]
    assert found.data["class_name"].tolist() == ["mug", "mug", "cat"]
    assert make_answer(None).to_detections().confidence is None
    empty = Answer("nothing", image=PICTURE).to_detections()
    assert empty.xyxy.shape == (0, 4) and len(empty.class_id) == 0


def test_detections_without_the_package_name_the_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingPackageError, match="pip install supervision"):
        make_answer().to_detections()


def test_detections_become_regions(supervision):
    there = make_answer().to_detections()
    assert read_detections(there) == [b for g in make_answer().groundings for b in g.boxes]
    mask = np.zeros((2, 100, 200), bool)
    mask[0, 10:20, 30:50], mask[1, :, :7] = True, True
    one, two = read_detections(Detections(xyxy=np.zeros((2, 4)), mask=mask))
    assert isinstance(one, Mask) and one.box() == Box(30, 10, 50, 20)
    assert two.box() == Box(0, 0, 7, 100)
    for wrong in ([[1, 2, 3, 4]], Detections(xyxy=np.zeros((2, 5)))):
        with pytest.raises(InputError, match="detections: found .* expected a supervision"):
            read_detections(wrong)


def test_the_real_package_takes_and_gives_detections():
    package = pytest.importorskip("supervision")
    found = make_answer().to_detections()
    assert isinstance(found, package.Detections) and len(found) == 3
    assert found["class_name"].tolist() == ["mug", "mug", "cat"]
    assert read_detections(found[found.confidence > 0.5]) == [
        Box(10, 20, 50, 80),
        Box(100, 0, 200, 100),
    ]
    assert read_detections(package.Detections.empty()) == []


# lmms-eval


class Lmms(abc.ABC):
    """The base class of lmms-eval 0.7.3 as far as a model meets it (lmms_eval/api/model.py): three
    abstract methods, `task_dict`, and an __init__ without arguments."""

    is_simple = True

    def __init__(self):
        self._rank, self._world_size, self.task_dict = 0, 1, {}

    @abc.abstractmethod
    def loglikelihood(self, requests): ...

    @abc.abstractmethod
    def generate_until(self, requests): ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...


@dataclass(frozen=True)
class ModelManifest:
    "What lmms-eval registers (lmms_eval/models/registry_v2.py)."

    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple = ()


@pytest.fixture
def lmms(monkeypatch):
    "The adapter, imported where a stand-in for lmms-eval is installed."
    for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model", "lmms_eval.models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    registry = ModuleType("lmms_eval.models.registry_v2")
    registry.ModelManifest = ModelManifest
    monkeypatch.setitem(sys.modules, registry.__name__, registry)
    sys.modules["lmms_eval.api.model"].lmms = Lmms
    name = "ferretlite.exams.lmms"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(name)
    sys.modules.pop(name, None)


class StandIn:
    "A model that notes its questions."

    def __init__(self):
        self.asked = []

    def ask(self, images, prompts, max_new_tokens):
        self.asked.append((len(images), max_new_tokens))
        return [make_answer() for _ in prompts]


def request(question="What?", number=0, **settings):
    arguments = (question, settings, lambda doc: doc["pictures"], number, "toy", "test")
    return SimpleNamespace(args=arguments)


@pytest.fixture
def model(lmms, monkeypatch):
    monkeypatch.setattr(lmms.Ferret, "load", lambda *args: StandIn())
    made = lmms.FerretLmms("tiny", batch_size="2", use_cache=True)
    made.task_dict = {"toy": {"test": [dict(pictures=[PICTURE]), dict(pictures=[])]}}
    return made


def test_the_entry_point_names_a_class_that_the_registry_accepts(lmms):
    "setup.py names the function, the function names the class, the class fills the base class."
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    [(module, function)] = re.findall(r'"lmms_eval.models": \["ferretlite=([\w.]+):(\w+)"\]', text)
    manifest = getattr(importlib.import_module(module), function)()
    home, name = manifest.simple_class_path.rsplit(".", 1)
    found = getattr(importlib.import_module(home), name)
    assert manifest.model_id == "ferretlite" and manifest.chat_class_path is None
    assert issubclass(found, Lmms) and found.is_simple and not found.__abstractmethods__


def test_requests_of_one_limit_are_asked_together_and_stay_in_order(model):
    asked = [request(max_new_tokens=n, until="a cat") for n in (8, 16, 8, 8)]
    assert model.generate_until([*asked, request()]) == ["two mugs and "] * 4 + [
        "two mugs and a cat"
    ]
    assert model.ferret.asked == [(2, 8), (1, 8), (1, 16), (1, 256)]


@pytest.mark.parametrize(
    "form, said",
    [
        ("words", "two mugs and a cat"),
        ("written", "as written"),
        (
            "fractions",
            "two mugs and a cat [0.050, 0.200, 0.250, 0.800] [0.000, 0.000, 0.025, 0.050] "
            "[0.500, 0.000, 1.000, 1.000]",
        ),
    ],
)
def test_an_answer_is_written_as_the_tool_reads_it(model, form, said):
    model.form = form
    assert model.generate_until([request()]) == [said]


def test_what_the_adapter_cannot_do_is_said(model, lmms):
    with pytest.raises(InputError, match="toy, record 1: found .*, expected one picture"):
        model.generate_until([request(number=1)])
    for method in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(InputError, match="output_type is generate_until"):
            method([request()])
    with pytest.raises(InputError, match="form: found 'boxes', expected one of words"):
        lmms.FerretLmms(form="boxes")


def test_without_lmms_eval_the_class_names_the_installation(monkeypatch):
    name = "ferretlite.exams.lmms"
    monkeypatch.setitem(sys.modules, "lmms_eval", None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    try:
        with pytest.raises(MissingPackageError, match="pip install lmms-eval"):
            importlib.import_module(name).FerretLmms()
    finally:
        sys.modules.pop(name, None)


def test_the_real_base_class_is_filled(monkeypatch):
    "Where lmms-eval is installed; --no-deps lmms-eval loguru sqlitedict pytz is enough."
    base = pytest.importorskip("lmms_eval.api.model")
    registry = pytest.importorskip("lmms_eval.models.registry_v2").ModelRegistryV2()
    name = "ferretlite.exams.lmms"
    monkeypatch.delitem(sys.modules, name, raising=False)
    adapter = importlib.import_module(name)
    registry.register_manifest(adapter.list_models())
    found = registry.get_model_class("ferretlite")
    assert issubclass(found, base.lmms) and not found.__abstractmethods__
    monkeypatch.setattr(adapter.Ferret, "load", lambda *args: StandIn())
    made = found.create_from_arg_string("pretrained=tiny,form=fractions", dict(batch_size=4))
    assert (made.batch_size, made.form, made.rank, made.world_size) == (4, "fractions", 0, 1)
