"""Item 4: object names are the words that a person would call the object, never cut by guessing."""

import json
import re

import pytest

from ferretlite.common.errors import InputError
from ferretlite.regions.geometry import Box
from ferretlite.regions.grammar import (
    STYLES,
    Grounding,
    clean_name,
    find_groundings,
    format_groundings,
    parse_groundings,
)

SIZE = (480, 640)
BOX = "[100, 200, 300, 400]"


def read_name(words, phrases=None):
    spans, _ = find_groundings(f"{words}{BOX}", SIZE, phrases=phrases)
    return spans[0].name


@pytest.mark.parametrize(
    "words, name",
    [
        ("the man in the red shirt ", "man in the red shirt"),
        ("A man on the left ", "man on the left"),
        ("a glass of wine and the bottle ", "bottle"),
        ("It's a magnifier ", "magnifier"),
        ("U.S. flag ", "U.S. flag"),
        ("红伞，", "红伞"),
        ("cat = ", "cat"),
        ("<ref>cat</ref> ", "cat"),
        ("<ref>cat</ref><box>", "cat"),
        ("2: Motorcycle-", "Motorcycle"),
        ("The man and the woman are dancing ", "man and the woman"),
        ("The man and the woman are dancing on the floor ", "floor"),
        ("`cat`: ", "cat"),
        ('sign saying "go, now" ', 'sign saying "go, now"'),
        ('12" pipe, 14" hose ', '14" hose'),
        ("No. The cat ", "cat"),
        ("the No. 7 bus ", "No. 7 bus"),
        ("A man, who is wearing a hat, ", "man"),
        ("The dog, which is black, ", "dog"),
        ("In the yard, that dog ", "that dog"),
        ("cat: 0.98 ", "cat"),
        ("cat (98.5 %) ", "cat"),
        ("the 3.5 mm jack ", "3.5 mm jack"),
        ("[cat] ", "cat"),
        ("dog [1, 2, 3] [the cat]: ", "cat"),
        ("**cat**: ", "cat"),
        ("“cat” ", "cat"),
        ("In the background, you can see the tower ", "tower"),
        ("On the left of the street, a red car ", "red car"),
        ("The star is at ", "star"),
        ("The red umbrella is located in the top left corner of the image: ", "red umbrella"),
        ("The location of the cat is ", "cat"),
        ("the man who is wearing a hat ", "man who is wearing a hat"),
        ("He is wearing a black jacket ", "black jacket"),
        ("They are surrounded by trees ", "trees"),
        ("cat. ", "cat"),
        ("I can see a cat. ", "cat"),
        ("the U.S. ", "U.S."),
        ("The man wearing a hat is standing ", "man wearing a hat"),
        ("The dog is sleeping on the left ", "dog"),
        ("The man is standing next to a dog ", "dog"),
        ("The man is standing on the left of a tree ", "tree"),
        ("The cat is black and white ", "cat"),
        ("The animals are twins ", "animals"),
        ("The table is full of books ", "table is full of books"),  # the table or the books
        ("The dog sleeps ", "dog sleeps"),  # no auxiliary verb: no rule is certain
        ("a man in a hat and a red scarf ", "man in a hat and a red scarf"),
        ("a man wearing a hat and the dog ", "man wearing a hat and the dog"),
        ("a cat and a man in a hat and a red scarf ", "man in a hat and a red scarf"),
        ("a man with hat and a red scarf ", "man with hat and a red scarf"),
        ("a cat and the dog and a bird ", "bird"),
        ("the box ", "box"),
        ("a wooden box: ", "wooden box"),
        ("The bounding box of the cat is ", "cat"),
        ("no entry sign: ", "no entry sign"),
    ],
)
def test_the_name_is_the_phrase_before_the_box(words, name):
    assert read_name(words) == name


def test_a_number_in_front_is_no_part_of_a_name_in_griffons_form():
    text = "1: Car-[0.100,0.200,0.300,0.400]&2: Motorcycle-[0.500,0.200,0.600,0.400]"
    assert [span.name for span in find_groundings(text, SIZE, "griffon")[0]] == [
        "Car",
        "Motorcycle",
    ]


def test_words_between_two_boxes_name_the_second_object():
    text = f"A dog {BOX} next to the man in the red shirt [500, 200, 600, 400]"
    assert [span.name for span in find_groundings(text, SIZE)[0]] == ["dog", "man in the red shirt"]


@pytest.mark.parametrize("style", STYLES)
def test_a_key_of_json_is_no_name_and_gives_a_warning(style):
    box = BOX if style == "ferret" else "[0.1, 0.2, 0.3, 0.4]"
    spans, warnings = find_groundings(f'[{{"bbox_2d": {box}, "label": "cat"}}]', SIZE, style)
    assert [span.name for span in spans] == [""]
    assert any("JSON" in warning for warning in warnings)
    spans, warnings = find_groundings(f'{{"bbox": {box}, "mask_box": {box}}}', SIZE, style)
    assert [span.name for span in spans] == ["", ""] and len(warnings) == 2


@pytest.mark.parametrize(
    "words",
    [
        "bbox: ",
        "box = ",
        "bbox_2d=",
        "cat, bbox: ",
        "**box**: ",
        "'box': ",
        "- bounding box 2: ",
        "The bounding box is ",
        "Here is the bounding box: ",
        "Its location: ",
        "coordinates -> ",
        "Answer: ",
        "Yes. ",
    ],
)
def test_a_key_or_a_reply_is_no_name_and_gives_a_warning(words):
    spans, warnings = find_groundings(f"{words}{BOX}", SIZE)
    assert [span.name for span in spans] == [""]
    assert len(warnings) == 1 and "found the words" in warnings[0]
    boxes = find_groundings(f"dog {BOX}; {words}{BOX}", SIZE)[0]
    assert [span.name for span in boxes] == ["dog", ""]


def test_the_number_of_a_list_is_no_name():
    for sign in (".", ")", ":"):
        assert read_name(f"1{sign} ") == ""
    assert read_name("dice 3. ") == "dice 3"


def test_an_asked_box_is_a_name_even_with_a_colon():
    assert read_name("box: ", ["box"]) == "box"


@pytest.mark.parametrize(
    "words, asked, name",
    [
        ("I found the man in the red shirt ", "red shirt", "red shirt"),
        ("I found the man in the red shirt ", "the man in the red shirt", "man in the red shirt"),
        ("That must be the old  Red Umbrella: ", "a red umbrella", "Red Umbrella"),
        ("这是一把红伞，", "红伞", "红伞"),
        ("a redcat ", "cat", "redcat"),  # `cat` is no word there
        ("a dog ", "cat", "dog"),
    ],
)
def test_an_asked_phrase_at_the_end_of_the_words_is_the_name(words, asked, name):
    assert read_name(words, [asked]) == name


def test_empty_phrases_are_left_out():
    assert read_name("a dog ", [None, "", " ", "the"]) == "dog"


@pytest.mark.parametrize(
    "name, clean",
    [
        ("coffee (St., cold)", "coffee (St. cold)"),
        ("the man, left", "man left"),
        ("bride and the groom", "bride and groom"),
        ("U.S. flag", "U.S. flag"),
        ("红伞，", "红伞"),
        ("<ref>cat</ref>", "cat"),
        ('{"bbox_2d"', "bbox_2d"),
        ("a dog at", "dog"),
        ("(1, 2), (3, 4)", "(1 2) (3 4)"),
        ("2: Motorcycle-", "2 Motorcycle"),
        ("cat.", "cat"),
        ("bbox:", "bbox"),
        ("man in a hat and a red scarf", "man in a hat and a red scarf"),
        ("The man wearing a hat is standing", "man wearing a hat"),
        ("［a］", "a"),
        ("plan (1, 2, 3, 4) of a house", "plan of a house"),
    ],
)
def test_a_cleaned_name_can_be_written_and_is_clean(name, clean):
    assert clean_name(name) == clean == clean_name(clean)
    for style in STYLES:
        format_groundings([Grounding(clean, [Box(1, 2, 3, 4)])], SIZE, style)


def test_names_that_are_no_text_are_refused():
    for call in (clean_name, lambda name: Grounding(name, [Box(1, 2, 3, 4)])):
        with pytest.raises(InputError, match="found nothing"):
            call(None)
        with pytest.raises(InputError, match="found 3"):
            call(3)


# words that stand in a clause: a verb, or a first word that links the phrase to another one
CLAUSE = re.compile(
    r"\b(?:is|are|was|were|has|have|can|see|shows|wearing|holding|where|also)\b"
    r"|^(?:he|she|it|they|there|with|in|on|of|at|as|not|and|to|topped|looking|above)\b",
    re.IGNORECASE,
)


def test_few_of_ferret_benchs_boxes_get_a_clause_as_name(real_files):
    names = []
    for line in (real_files / "ferretbench/answer.jsonl").read_text().splitlines():
        # 0.201 becomes bin 201, 1.000 and a damaged 1.002 become bin 999
        text = re.sub(r"[01]\.\d{3}", write_bin, json.loads(line)["text"])
        spans, warnings = find_groundings(text, SIZE)
        assert warnings == []
        names += [span.name for span in spans]
    clauses = [name for name in names if CLAUSE.search(name)]
    assert len(names) == 257 and len(clauses) <= 5, clauses  # 73 were clauses once


def write_bin(fraction):
    return str(min(int(fraction[0].replace(".", "")), 999))


@pytest.mark.parametrize(
    "text, name",
    [
        ("the trash can by the door [1, 2, 3, 4]", "trash can by the door"),
        ("a watering can on the table [1, 2, 3, 4]", "watering can on the table"),
        ("a dog can be seen [1, 2, 3, 4]", "dog"),
        ("cat ([1, 2, 3, 4])", "cat"),
        ("红伞；[1, 2, 3, 4]", "红伞"),
        ("红伞。[1, 2, 3, 4]", "红伞"),
    ],
)
def test_a_noun_that_looks_like_a_verb_and_signs_before_a_box(text, name):
    assert [g.name for g in parse_groundings(text, (1000, 1000))] == [name]


@pytest.mark.parametrize(
    "text, name",
    [
        ("It is a Honda, as indicated by the Honda logo [1, 2, 3, 4]", "Honda logo"),
        ("as shown in the mirror [1, 2, 3, 4]", "mirror"),
        ("Not to forget the silencer [1, 2, 3, 4]", "silencer"),
        ("not to mention his hat [1, 2, 3, 4]", "hat"),
        ("The bike features a shock absorber [1, 2, 3, 4]", "shock absorber"),
        ("The features of a face [1, 2, 3, 4]", "features of a face"),
        ("The bike, which is old, shows the wheel [1, 2, 3, 4]", "wheel"),
        ("show horse [1, 2, 3, 4]", "show horse"),
        ("can of a drink [1, 2, 3, 4]", "can of a drink"),
        ("This can be inferred from the position of the sky [1, 2, 3, 4]", "sky"),
        ("a position of strength [1, 2, 3, 4]", "position of strength"),
        ("a man as tall as the door [1, 2, 3, 4]", "man as tall as the door"),
    ],
)
def test_clauses_whose_first_words_are_certain(text, name):
    assert [g.name for g in parse_groundings(text, (1000, 1000))] == [name]
