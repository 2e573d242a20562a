"""4. Where the phrase is known that was asked for, a box carries this phrase and not a guess."""

import pytest

from ferretlite.model.processing import FerretProcessor


class Words:
    """A tokenizer whose tokens are single characters."""

    all_special_ids = ()

    def decode(self, ids):
        return "".join(map(chr, ids))


def names(text, phrases, style="ferret"):
    processor = object.__new__(FerretProcessor)
    processor.tokenizer = Words()
    processor.config = type("Config", (), {"style": style})()
    found = processor.decode_answer([ord(c) for c in text], None, (100, 100), phrases)
    return [g.name for g in found.groundings]


@pytest.mark.parametrize(
    "text, phrases, expected",
    [
        ("I can see a glass of wine [1, 1, 9, 9].", ["wine"], ["wine"]),
        ("Near the man in the red shirt [1, 1, 9, 9].", ["red shirt"], ["red shirt"]),
        ("The man in the red shirt [1, 1, 9, 9].", ["man in the red shirt"], None),
        ("A wine glass [1, 1, 9, 9].", ["wine"], ["wine glass"]),  # no suffix: the usual rule
    ],
)
def test_an_asked_phrase_is_the_name(text, phrases, expected):
    assert names(text, phrases) == (expected or phrases)


def test_ground_and_detect_say_what_they_asked_for(monkeypatch):
    from ferretlite import Ferret, make_scene

    ferret, told = Ferret.load("tiny"), []
    real = FerretProcessor.decode_answer

    def note(self, ids, probabilities=None, size=(1000, 1000), phrases=None):
        told.append(phrases)
        return real(self, ids, probabilities, size, phrases)

    monkeypatch.setattr(FerretProcessor, "decode_answer", note)
    ferret.ground(make_scene(3, split="test").image, "the red star", max_new_tokens=2)
    ferret.ask(make_scene(3, split="test").image, "Where is the red star?", max_new_tokens=2)
    assert told == [["red star"], None]
