"""Public files of conversations are read with their values, or refused with one sentence."""

import random
import shutil

import pytest

from ferretlite.common.errors import InputError
from ferretlite.data.dialogues import GritDialogues
from ferretlite.data.llava import LlavaDialogues
from ferretlite.regions.geometry import Box

ASKED = (
    ("What's the UI type of the widget <region>?", "Button", (445, 524, 692, 632)),
    ("Identify the icon type of the widget <region>?", "launch", (1035, 540, 1114, 622)),
    (
        "What text is displayed in the element <region>?",
        "Reminders, Don't forget. User Reminders",
        (447, 273, 1054, 425),
    ),
)


def test_ferret_ui_training_file(tmp_path, real_files):
    source = real_files / "ferretui"
    shutil.copyfile(source / "appstore_reminders.jpg", tmp_path / "appstore_reminders.png")
    shutil.copyfile(source / "train_data_example.json", tmp_path / "train.json")
    reader = GritDialogues(tmp_path, "train.json", ".")
    assert len(reader) == 3 and reader.problems == []
    for i, (question, answer, box) in enumerate(ASKED):
        forms = set()
        for seed in range(8):
            talk = reader.converse(i, random.Random(seed))
            assert talk.size == (2532, 1170) and talk.id == str(i)
            (turn,) = talk.turns
            assert (turn.prompt, turn.answer) == (question, answer)
            (region,) = turn.regions
            forms.add(type(region).__name__)
            if isinstance(region, Box):
                assert region.list() == list(box)
            else:
                assert box[0] <= region.x <= box[2] and box[1] <= region.y <= box[3]
        assert forms == {"Box", "Point"}


@pytest.mark.parametrize(
    "name, n", [("eval_data_example_0_box_in", 3), ("eval_data_example_1_no_box_in", 2)]
)
def test_ferret_ui_questions_without_answers_are_counted(tmp_path, real_files, name, n):
    source = real_files / "ferretui"
    shutil.copyfile(source / "appstore_reminders.jpg", tmp_path / "appstore_reminders.png")
    shutil.copyfile(source / f"{name}.json", tmp_path / "eval.json")
    reader = GritDialogues(tmp_path, "eval.json", ".", strict=False)
    assert len(reader) == n and all(reader[i].turns == [] for i in range(n))
    assert reader.left_out == {"turns": n}
    assert (
        "record with id 0: found turns of human, expected human and gpt in turn"
        in reader.problems[0][1]
    )


@pytest.mark.parametrize(
    "name",
    [
        "labelstudio/label_studio_export.json",
        "pope/coco_pope_random_300.jsonl",
        "ferretbench/question.jsonl",
        "ferretbench/answer.jsonl",
        "refcocos/refcocos_test.json",
        "vg/region_descriptions.json",
    ],
)
@pytest.mark.parametrize("kind", [GritDialogues, LlavaDialogues])
def test_files_of_another_form_are_refused_with_the_missing_field(real_files, name, kind):
    with pytest.raises(InputError, match="field conversations: found nothing, expected a list"):
        kind(real_files, name, ".")


def test_a_file_that_holds_an_object_is_refused(real_files):
    with pytest.raises(InputError, match="found .*an object with .*, expected a list of conv"):
        LlavaDialogues(real_files, "coco139/instances.json", ".")
