"The language model's lessons: tokens, rows of turns, masks, losses, and scenes told in things."

import inspect
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

from ferretlite.model import tokens as tokens_module
from ferretlite.model.corpus import GRIFFON_TASK_WEIGHTS, TASK_WEIGHTS, format_scene, make_corpus
from ferretlite.model.tokens import (
    CROP_TOKEN,
    IMAGE_TOKEN,
    REGION_TOKEN,
    add_crop_token,
    encode_turns,
    encode_user_turn,
    find_written_boxes,
    format_prompt,
    format_user_turn,
    next_token_loss,
    pad_rows,
    tiny_llama_config,
    train_tokenizer,
    turn_mask,
)
from ferretlite.pretraining import language
from ferretlite.pretraining import objects as objects_module
from ferretlite.pretraining.language import compute_lesson_loss, pretrain_lm, start_language_model
from ferretlite.pretraining.objects import (
    CURRICULA,
    VIEW_LAYOUTS,
    ObjectScenes,
    ask_lesson_questions,
    attention_loss,
    collate_objects,
    compute_word_shares,
    count_scene_tokens,
    draw_lesson_objects,
    embed_objects,
    encode_edges,
    load_pooled_objects,
    locate_patches,
    make_object_vectors,
    mark_objects,
    mirror_box,
    rename_kind,
    sample_visual_tokens,
    tell_letters,
)
from ferretlite.regions.geometry import Box, Point
from ferretlite.scenes.questions import Turn
from ferretlite.scenes.world import Scene, SceneObject, make_scene

TEXTS = ["Where is the red star? red star [12, 345, 6, 789], blue cup [0, 1, 2, 3]"] * 20


@pytest.fixture(scope="module")
def words():
    return train_tokenizer(TEXTS, 330)


def things():
    "Two objects, nothing about them equal."
    return [
        SceneObject("star", Box(38.4, 76.8, 192, 115.2), None, "red", "filled"),
        SceneObject("word", Box(200, 10, 380, 300), None, "blue", "outlined", "ABC"),
    ]


def defaults(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def test_documented_constants():
    assert (tokens_module.IMAGE_TOKEN, tokens_module.REGION_TOKEN, tokens_module.CROP_TOKEN) == (
        "<image>",
        "<region_fea>",
        "<crop_fea>",
    )
    assert tokens_module.SPECIAL_TOKENS == dict(
        pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    assert tokens_module.ROLE_TOKENS == ("USER:", "ASSISTANT:")
    assert TASK_WEIGHTS == dict(
        caption=0.5,
        grounded_caption=0.5,
        dense_referring=0.5,
        dense_detection=1.0,
        rec=3.0,
        phrase=1.0,
        choose=0.5,
        name=1.5,
        count=3.0,
        word=0.5,
    )
    assert GRIFFON_TASK_WEIGHTS == dict(
        find=5.0, find_set=2.0, search=3.0, find_phrases=1.5, tell=1.0
    )
    assert (objects_module.OCTAVES, objects_module.EDGE_WIDTH) == (
        6,
        52,
    )  # 4 edges: themselves, 6 sines, 6 cosines
    views = {"ferret": ((1, 6), (2, 6)), "griffon": ((1, 12),), "word": ((1, 6), (1, 6))}
    assert VIEW_LAYOUTS == views
    assert (
        objects_module.COUNT_SCENE_SHARE,
        objects_module.UNNAMED_KIND_SHARE,
        objects_module.MAX_TEXT_TOKENS,
        objects_module.SUPERVISED_HEADS,
    ) == (
        0.6,
        0.25,
        288,
        (-2, 3),
    )
    for style, first, later in (
        ("ferret", dict(rec=1.0, name=0.25, phrase=0.5), TASK_WEIGHTS),
        ("griffon", dict(find=1.0, tell=0.25, find_phrases=0.5), GRIFFON_TASK_WEIGHTS),
    ):
        assert CURRICULA[style] == (
            (15_000, (3,), first, 4),
            (math.inf, (3, None, None), later, 10),
        )


def test_defaults_are_the_documented_ones():
    assert defaults(train_tokenizer) == dict(vocab_size=768)
    assert defaults(make_corpus) == dict(n=1500)
    assert defaults(format_prompt) == dict(suffix="")
    assert defaults(encode_turns) == dict(max_text_tokens=None, linked=False)
    assert defaults(pad_rows) == dict(multiple=32)
    assert defaults(tiny_llama_config) == dict(width=192, layers=4)
    assert defaults(sample_visual_tokens) == dict(style="ferret", crops=0, whole=())
    assert defaults(mirror_box) == dict(side=384)
    assert defaults(ObjectScenes) == dict(seed=0, pool=6000, style="ferret", skip=0, wide=False)
    assert defaults(collate_objects) == dict(most=288, style="ferret")
    assert defaults(embed_objects) == dict(noise=0.03)
    assert defaults(pretrain_lm) == dict(
        samples=None,
        minutes=None,
        resume=False,
        seed=0,
        batch_size=24,
        lr=2e-3,
        muon=0.02,
        look=0.3,
        compile=False,
        style="ferret",
        start=None,
        wide=False,
    )


# Tokens


def test_numbers_are_written_digit_by_digit_and_no_token_crosses_a_piece(words):
    pieces = words.tokenize(" red star [12, 345]")
    assert pieces == ["Ġred", "Ġstar", "Ġ[", "1", "2", ",Ġ", "3", "4", "5", "]"]
    loud = train_tokenizer(["WWW www\n\n--  ABC," * 30], 400).tokenize("WWW www\n\n-- ABC,")
    assert loud == ["W", "W", "W", "Ġwww", "Ċ", "Ċ", "-", "-", "ĠA", "B", "C", ","]


def test_special_tokens_come_first_in_their_order_and_padding_stands_on_the_left(words):
    names = ["<pad>", "<bos>", "<eos>", "<image>", "<region_fea>", "USER:", "ASSISTANT:"]
    assert words.convert_ids_to_tokens(list(range(7))) == names
    assert [words.pad_token_id, words.bos_token_id, words.eos_token_id] == [0, 1, 2]
    assert words.padding_side == "left" and words.vocab_size < 330
    assert words.decode(words("a , b [ 1 ]").input_ids) == "a , b [ 1 ]"  # no clean-up of blanks


def test_the_vocabulary_is_not_larger_than_asked():
    dice = random.Random(0)
    texts = [" ".join("".join(dice.choices("abcdefghij", k=8)) for _ in range(300))] * 2
    assert len(train_tokenizer(texts)) == 768
    assert len(train_tokenizer(texts, 300)) == 300


def test_the_crop_token_comes_behind_all_others_once(words):
    own = train_tokenizer(TEXTS, 330)
    n = len(own)
    assert add_crop_token(own) is own and own.convert_tokens_to_ids(CROP_TOKEN) == n
    assert len(add_crop_token(own)) == n + 1
    assert {IMAGE_TOKEN, REGION_TOKEN, CROP_TOKEN, "USER:"} <= set(own.all_special_tokens)


def test_a_scene_in_words_names_every_thing_with_its_bins_in_an_order_drawn():
    scene = Scene(None, (384, 768), things())
    # x in thousandths of 768, y of 384: 38.4/768 = .05, 76.8/384 = .2, 192/768 = .25, 115.2/384 =
    # .3
    star = "filled red star [50, 200, 250, 300]"
    word = "outlined blue word ABC [260, 26, 494, 781]"
    told = {format_scene(scene, random.Random(i)) for i in range(8)}
    assert told == {f"{star}, {word}", f"{word}, {star}"}


def test_regions_of_a_prompt_become_coordinates_in_their_order():
    turn = Turn("x", "Is <region> like <region>?", "no", [Point(10, 50), Box(0, 25, 100, 50)])
    assert format_prompt(turn, (100, 200)) == "Is [50, 500] like [0, 250, 500, 500]?"
    assert format_prompt(turn, (100, 200), " !") == "Is [50, 500] ! like [0, 250, 500, 500] !?"


def test_the_corpus_holds_each_scene_and_all_that_is_said_about_it():
    texts = make_corpus(3)
    assert len(texts) == 3 * (1 + 4 * 2)  # a scene, four questions, four answers
    for i in range(3):
        scene = make_scene(1_000_000 + i, 192)
        listed, said = texts[9 * i], texts[9 * i + 1 : 9 * i + 9]
        assert listed.count("[") == len(scene.objects)
        for o in scene.objects:
            assert o.phrase in listed and (o.text or "") in listed
        assert not any("<region>" in t for t in said)
        assert all(t for t in said)
    assert make_corpus(1) == texts[:9]


def test_a_prompt_is_one_user_turn_without_the_start_token(words):
    assert format_user_turn(words, "hi [1]?") == "USER: hi [1]?\nASSISTANT:"
    ids = encode_user_turn(words, "hi [1]?")
    assert (
        ids[0] == 5
        and ids[-1] == 6
        and 1 not in ids
        and words.decode(ids) == "USER: hi [1]?\nASSISTANT:"
    )
    chat = [dict(role="user", content="a"), dict(role="assistant", content="b")] * 2
    assert (
        words.apply_chat_template(chat, tokenize=False)
        == "<bos>USER: a\nASSISTANT: b<eos>USER: a\nASSISTANT: b<eos>"
    )


# Rows


class Letters:
    "A tokenizer with one token a character; 0 ends an answer."

    eos_token_id = 0
    bos_token = None

    def apply_chat_template(self, messages, tokenize):
        return f"<{messages[0]['content']}>"

    def __call__(self, texts, add_special_tokens):
        class Found:
            input_ids = [[ord(c) for c in t] for t in texts]

        return Found


def letters(text):
    return [ord(c) for c in text]


def test_each_turn_goes_on_from_the_beginning_and_learns_its_answer():
    row = encode_turns(Letters(), [7, 8, 8], [("ab", "X"), ("c", "YZ")])
    first, second = letters("<ab> X") + [0], letters("<c> YZ") + [0]
    assert row["input_ids"] == [7, 8, 8] + first + second
    assert row["labels"] == [-100] * 3 + [-100] * 4 + letters(" X") + [0] + [-100] * 3 + letters(
        " YZ"
    ) + [0]
    assert row["position_ids"] == [0, 1, 2] + [3, 4, 5, 6, 7, 8, 9] + [3, 4, 5, 6, 7, 8, 9]
    assert row["turn_ids"] == [0] * 3 + [1] * 7 + [2] * 7
    assert row["kept"] == [0, 1]


def test_a_dialogues_turns_follow_each_other():
    row = encode_turns(Letters(), [7, 8, 8], [("ab", "X"), ("c", "YZ")], linked=True)
    assert row["position_ids"] == list(range(17))
    assert row["turn_ids"] == [0] * 3 + [1] * 14


@pytest.mark.parametrize(
    "most, linked, kept",
    [
        (14, False, [0, 1]),  # two turns of seven tokens fill 14 exactly
        (13, False, [0, 2]),  # the second is one too long, the third (five tokens) fits
        (12, False, [0, 2]),
        (11, False, [0]),
        (1, False, [0]),  # the first is never left out
        (19, False, [0, 1, 2]),
        (18, False, [0, 1]),
        (None, False, [0, 1, 2]),
        (13, True, [0]),  # what follows a turn that is left out would speak of it
        (14, True, [0, 1]),
    ],
)
def test_turns_that_do_not_fit_are_left_out_whole(most, linked, kept):
    turns = [("ab", "X"), ("c", "YZ"), ("", "V")]
    row = encode_turns(Letters(), [7, 8, 8], turns, most, linked)
    assert row["kept"] == kept
    lengths = [7, 7, 5]
    assert len(row["input_ids"]) == 3 + sum(lengths[k] for k in kept)
    if not linked:
        assert sorted(set(row["turn_ids"])) == [0, *(k + 1 for k in kept)]


def test_rows_without_turns_are_their_beginning():
    row = encode_turns(Letters(), [7, 8], [])
    assert row == dict(
        input_ids=[7, 8], labels=[-100] * 2, position_ids=[0, 1], turn_ids=[0, 0], kept=[]
    )


def test_rows_are_padded_on_the_right_each_field_with_its_own_blank():
    long = dict(
        input_ids=[5, 6, 7],
        labels=[-100, 6, 7],
        position_ids=[0, 1, 2],
        turn_ids=[0, 1, 1],
        kept=[0],
    )
    short = dict(input_ids=[4], labels=[-100], position_ids=[9], turn_ids=[0], kept=[])
    found = pad_rows([long, short], 3, 4)
    assert {k: v.tolist() for k, v in found.items()} == dict(
        input_ids=[[5, 6, 7, 3], [4, 3, 3, 3]],
        labels=[[-100, 6, 7, -100], [-100] * 4],
        position_ids=[[0, 1, 2, 0], [9, 0, 0, 0]],
        turn_ids=[[0, 1, 1, -1], [0, -1, -1, -1]],
    )
    assert all(v.dtype == torch.int64 for v in found.values())
    assert pad_rows([long], 3, 3)["input_ids"].shape == (1, 3)  # no more than needed
    assert pad_rows([long], 3)["input_ids"].shape == (1, 32)
    marked = {
        k: {**r, "names": [2] * len(r["labels"]), "writes": [1] * len(r["labels"])}
        for k, r in (("a", long), ("b", short))
    }
    found = pad_rows(list(marked.values()), 3, 4)
    assert found["names"].tolist() == [[2, 2, 2, -1], [2, -1, -1, -1]]
    assert found["writes"].tolist() == [[1, 1, 1, -1], [1, -1, -1, -1]]


def test_a_turn_sees_the_beginning_and_itself():
    seen = turn_mask(torch.tensor([[0, 0, 1, 1, 2, -1, -1], [0, 1, 1, 2, 2, 2, -1]]))
    assert seen.shape == (2, 1, 7, 7) and seen.dtype == torch.bool
    assert seen[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],  # not the turn before
        [1, 1, 0, 0, 0, 1, 0],  # padding: the beginning and itself
        [1, 1, 0, 0, 0, 0, 1],
    ]
    assert seen[1, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 0, 0, 1, 0, 0, 0],
        [1, 0, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 1, 1, 0],
        [1, 0, 0, 0, 0, 0, 1],
    ]


# The model and its loss


def test_the_tiny_llama_is_as_documented(words):
    config = tiny_llama_config(words)
    wanted = dict(
        vocab_size=len(words),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.06,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    assert {k: getattr(config, k) for k in wanted} == wanted
    assert (
        config.rope_parameters["rope_theta"] == 1e6
        and config.rope_parameters["rope_type"] == "default"
    )
    other = tiny_llama_config(words, 96, 3)
    assert (other.hidden_size, other.intermediate_size, other.num_hidden_layers) == (96, 256, 3)
    assert (other.num_attention_heads, other.num_key_value_heads) == (3, 3)


def test_the_loss_is_the_mean_surprise_at_the_next_token():
    # log-probabilities of three tokens after each place, by hand; labels shifted by one
    probabilities = torch.tensor(
        [
            [[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5]],
            [[0.6, 0.3, 0.1], [0.7, 0.2, 0.1], [0.25, 0.25, 0.5]],
        ]
    )
    labels = torch.tensor([[2, 1, -100], [0, -100, 2]])
    # row 0: place 0 tells label 1 (p = .25); row 1: place 1 tells label 2 (p = .1)
    expected = -(math.log(0.25) + math.log(0.1)) / 2
    assert next_token_loss(probabilities.log(), labels).item() == pytest.approx(expected, rel=1e-6)
    counted = next_token_loss(probabilities.log(), labels, 5).item()
    assert counted == pytest.approx(expected * 2 / 5, rel=1e-6)
    assert next_token_loss(probabilities.log(), labels, torch.tensor(8)).item() == pytest.approx(
        expected / 4, rel=1e-6
    )
    nothing = torch.full((2, 3), -100)
    assert next_token_loss(probabilities.log(), nothing).item() == 0
    assert next_token_loss(probabilities.log().half(), labels).dtype == torch.float32


def test_the_look_is_the_mean_surprise_at_where_attention_goes():
    # one row, two heads, four tokens: token 3 writes of object 1, which tokens 1 and 2 show
    weights = torch.zeros(2, 2, 4, 4)
    weights[0, 0, 3] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    weights[0, 1, 3] = torch.tensor([0.6, 0.1, 0.1, 0.2])
    weights[0, :, 2] = torch.tensor([0.9, 0.05, 0.05, 0.0])
    weights[1, 0, 1] = torch.tensor([0.7, 0.3, 0.0, 0.0])
    weights[1, 1, 1] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    shows = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0]]).bool()
    one = torch.tensor([[-1, -1, -1, 1], [-1, -1, -1, -1]])
    expected = -(math.log(0.5) + math.log(0.2)) / 2
    assert attention_loss(weights, one, shows).item() == pytest.approx(expected, rel=1e-5)
    both = torch.tensor(
        [[-1, -1, -1, 1], [-1, 0, -1, -1]]
    )  # object 0, which token 0 shows: .7 and 0, no less than 1e-6
    expected = -(math.log(0.5) + math.log(0.2) + math.log(0.7) + math.log(1e-6)) / 4
    assert attention_loss(weights, both, shows).item() == pytest.approx(expected, rel=1e-5)
    assert attention_loss(weights, torch.full((2, 4), -1), shows).item() == 0


# Things


def test_edges_are_themselves_and_fading_waves():
    edges, blur = np.array([0.25, 0.1, 0.9, 0.6]), np.array([0.0, 0.05, 0.1, 0.2])
    expected = []
    for e, b in zip(edges, blur):
        waves = [math.pi * 2**k for k in range(6)]
        fade = [math.exp(-((b * w) ** 2) / 2) for w in waves]
        expected += [
            e - 0.5,
            *(math.sin(e * w) * f for w, f in zip(waves, fade)),
            *(math.cos(e * w) * f for w, f in zip(waves, fade)),
        ]
    found = encode_edges(torch.tensor(edges)[None], torch.tensor(blur)[None])[0]
    assert found.shape == (52,)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert found[1].item() == pytest.approx(math.sin(math.pi / 4)) and found[
        2
    ].item() == pytest.approx(1.0)


def test_a_thing_is_six_of_its_words_and_one_and_a_half_of_its_edges():
    torch.manual_seed(0)
    table, share = torch.randn(5, 192), torch.tensor([[0.0, 0.5, 0.0, 0.0, 0.5]])
    edges, blur = torch.tensor([[0.1, 0.3, 0.6, 0.95]]), torch.full((1, 4), 0.01)
    # rows 3, 6, 9 ... of a cosine transform of 192 numbers: 192 // 53 = 3
    d, k = np.arange(192), 3 * np.arange(1, 53)
    directions = np.sqrt(2 / 192) * np.cos(np.pi * (d + 0.5) * k[:, None] / 192)
    np.testing.assert_allclose(directions @ directions.T, np.eye(52), atol=1e-9)
    expected = (
        6 * (table[1] + table[4]).numpy() / 2
        + 1.5 * encode_edges(edges, blur)[0].numpy() @ directions
    )
    np.testing.assert_allclose(
        make_object_vectors(share, edges, blur, table)[0].numpy(), expected, atol=1e-3
    )


def test_letters_fill_slots_in_their_order():
    """A table of ten: letter 1 in the first slot is moved by two numbers, in the second by four.

    Words leave .4 of the whole, so each of two letters has .2; six times that is 1.2."""
    table = torch.eye(10)
    words = torch.zeros(3, 10)
    words[:, 0] = 0.6
    blur, edges = torch.full((3, 4), 99.0), torch.full((3, 4), 0.5)
    letters = torch.tensor([[1, 2, -1, -1], [2, 1, -1, -1], [-1, 1, -1, -1]])
    plain = make_object_vectors(words, edges, blur, table)
    found = make_object_vectors(words, edges, blur, table, letters) - plain
    expected = torch.zeros(3, 10)
    expected[0, [1 + 2, 2 + 4]] = 1.2
    expected[1, [2 + 2, 1 + 4]] = 1.2
    expected[2, 1 + 4] = 2.4
    assert torch.allclose(found, expected, atol=1e-5)


class Always:
    "Stands in for a generator: each chance above nothing happens."

    def random(self, n=None):
        return 1e-9 if n is None else np.full(n, 1e-9)


def test_tokens_tell_the_letters_of_their_column_and_regions_all():
    """CAT from 32 to 128 of 192 pixels, 32 a letter: a token of 32 pixels, columns 1 to 3, shows
    one letter each. The other columns show none, and a letter of 5 pixels is read by nobody."""
    word = SceneObject("word", Box(32, 64, 128, 96), None, "red", "filled", "CAT")
    told = dict(rank=np.array([12, 13, 14, 15, 16, 36 + 14, -1]), who=np.zeros(7, int))
    c, a, t = 2, 0, 19
    none = [-1] * 4
    one = [[c, -1, -1, -1], [-1, a, -1, -1], [-1, -1, t, -1]]
    expected = [none, *one, none, one[1], [c, a, t, -1]]
    assert tell_letters([word], 192, told, Always(), "word").tolist() == expected
    tiny = SceneObject("word", Box(32, 64, 47, 70), None, "red", "filled", "CAT")
    found = tell_letters([tiny], 192, told, Always(), "word")
    assert (found[:-1] == -1).all() and found[-1].tolist() == [c, a, t, -1]
    other = dict(told, who=np.ones(7, int))
    assert (tell_letters([word], 192, other, Always(), "word") == -1).all()


def test_lessons_of_the_second_edition():
    "One in five is about a word that fills a view, of 72 tokens; the others may ask for absences."
    wide = ObjectScenes(10**6, 3, pool=30, skip=15_000, wide=True)
    lessons = [wide[i] for i in range(120)]
    again = ObjectScenes(10**6, 3, pool=30, skip=15_000, wide=True)[7]
    assert again[3] == lessons[7][3] and np.array_equal(
        again[2]["letters"], lessons[7][2]["letters"]
    )
    words = [x for x in lessons if x[2]["room"][0] == 72]
    assert 12 <= len(words) <= 40 and {x[2]["room"][0] for x in lessons} == {72, 180}
    for objects, _, told, turns in words:
        assert told["rank"].max() < 72
        (text,) = (o.text for o in objects if o.text)
        assert sum(answer == text for _, answer, _ in turns) >= 3 or len(turns) < 3
        rank, who, _ = locate_patches(np.array([o.box.list() for o in objects]) / 384, "word")
        of = next(k for k, o in enumerate(objects) if o.text)
        assert set(rank[who == of]) <= set(told["rank"])  # every token of the word is told
    answers = [answer for x in lessons for _, answer, _ in x[3]]
    assert sum(answer.startswith("no ") for answer in answers) > 10
    prompts = [prompt for x in lessons for prompt, _, _ in x[3]]
    assert any(p.isupper() for p in (p.split("[")[0].split("<")[0] for p in prompts))
    assert "letters" not in ObjectScenes(10, 3, pool=30)[0][2]
    griffon = ObjectScenes(10**6, 3, pool=30, skip=15_000, style="griffon", wide=True)
    assert all((griffon[i][2]["letters"] == -1).all() for i in range(9))


def test_the_token_before_a_letter_is_asked_to_listen_to_those_that_show_it(words):
    word = SceneObject("word", Box(64, 128, 256, 192), None, "red", "filled", "CAT")
    told = sample_visual_tokens([word], (384, 384), np.random.default_rng(0), "word", whole=(0,))
    told["letters"] = tell_letters([word], 384, told, Always(), "word")
    told["room"] = np.full(len(told["rank"]), 72)
    batch = collate_objects([([word], [], told, [("What does the word say?", "CAT", [])])], words)
    (row,), shown = batch["names"], int((told["rank"] >= 0).sum())
    at = (row >= 0).nonzero()[:, 0].tolist()
    assert at == list(range(at[0], at[0] + 3)) and row[at].tolist() == [1, 2, 3]
    assert batch["labels"][0, [n + 1 for n in at]].tolist() == [
        words(text, add_special_tokens=False).input_ids[-1] for text in (" C", "A", "T")
    ]
    for place in range(3):
        tokens = batch["shows"][1 + place].nonzero()[:, 0].tolist()
        expected = 1 + np.flatnonzero(told["letters"][:shown, place] >= 0)
        assert tokens == expected.tolist() and tokens
    first = (batch["turn_ids"][0] == 1).nonzero()[0, 0]
    assert batch["position_ids"][0, first] == 73  # behind 72 visual tokens
    ids = {i for i in batch["letters"].flatten().tolist() if i >= 0}
    assert ids == {words(x, add_special_tokens=False).input_ids[-1] for x in (" C", "A", "T")}


def test_numbers_of_visual_tokens():
    assert count_scene_tokens() == count_scene_tokens("ferret") == 6 * 6 + 12 * 12
    assert count_scene_tokens("griffon") == 12 * 12


def test_patches_that_show_a_thing():
    """Of 6 x 6 cells the box covers x 0.6 to 3.6 and y 0.3 to 1.8, of 12 x 12 twice that; above .3
    of a cell is enough.
    """
    rank, who, cut = locate_patches(np.array([[0.1, 0.05, 0.6, 0.3]]))
    whole = [1, 2, 3, 6, 7, 8, 9]  # the corner cell has .4 * .7 = .28
    tiles = [36 + 12 * y + x for y in range(4) for x in range(1, 7)]  # column 7 has .2
    assert rank.tolist() == whole + tiles and who.tolist() == [0] * 31
    assert not cut[:7].any()
    for r, edges in zip(rank[7:], cut[7:]):
        right = (r - 36) % 12 >= 6
        assert edges.tolist() == (
            [True, False, False, False] if right else [False, False, True, False]
        )


def test_what_owns_no_patch_gets_the_one_at_its_centre():
    box = [
        0.1,
        0.05,
        0.6,
        0.3,
    ]  # centre (.35, .175): column 2 of 6 and row 1, column 4 of 12 and row 2
    rank, who, _ = locate_patches(np.array([box, box, [1.0, 1.0, 1.0, 1.0]]))
    assert rank[who == 1].tolist() == [8, 36 + 2 * 12 + 4]
    assert rank[who == 2].tolist() == [35, 179]  # the last ones, not one beyond
    rank, who, cut = locate_patches(np.array([box, box]), "griffon")
    assert rank[who == 1].tolist() == [28] and rank.max() < 144 and not cut.any()


def test_an_edge_outside_a_tile_by_more_than_a_hundredth_is_cut():
    rank, _, cut = locate_patches(np.array([[0.1, 0.1, 0.505, 0.52]]))
    here = cut[(rank >= 36)][0]  # the upper left tile ends at .5
    assert here.tolist() == [False, False, False, True]
    rank, _, cut = locate_patches(np.array([[0.495, 0.48, 0.9, 0.9]]))
    there = cut[rank == 36 + 8 * 12 + 8][0]  # the lower right tile begins at .5
    assert there.tolist() == [False, True, False, False]


def many_tellings(n=150, **options):
    return [
        sample_visual_tokens(things(), (384, 768), np.random.default_rng(i), **options)
        for i in range(n)
    ]


def test_things_are_told_in_order_of_rank_and_then_once_for_their_regions():
    boxes = np.array([[38.4 / 768, 0.2, 0.25, 0.3], [200 / 768, 10 / 384, 380 / 768, 300 / 384]])
    owners = dict(zip(*locate_patches(boxes)[:2]))
    places = {(r, w) for r, w, _ in zip(*locate_patches(boxes))}
    blanks, shares, others, much = [], [], set(), []
    for told in many_tellings():
        rank, who = told["rank"], told["who"]
        m = (rank >= 0).sum()
        assert rank[m:].tolist() == [-1, -1] and who[m:].tolist() == [0, 1]
        assert (np.diff(rank[:m]) >= 0).all()
        assert set(who[:m].tolist()) >= {0, 1}  # everything is shown somewhere
        for r, w in zip(rank[:m], who[:m]):
            assert (r, w) in places if w >= 0 else r not in owners
        blanks.append((who[:m] == -1).sum())
        shares.append((who[:m] >= 0).sum() / len(places))
        others |= set(told["other"].tolist())
        much.append(told["much"])
    assert min(blanks) == 0 and max(blanks) == 8
    assert 0.03 < min(shares) < 0.12 and 0.7 < max(shares) < 0.95
    assert np.median(shares) == pytest.approx(math.sqrt(0.08 * 0.8), abs=0.06)  # log-uniform
    assert others == {0, 1}
    much = np.concatenate(much)
    assert (much > 0).mean() == pytest.approx(0.25, abs=0.03)
    assert 0.45 < much.max() <= 0.5 and much[much > 0].mean() == pytest.approx(0.25, abs=0.03)


def test_edges_of_things_are_as_uncertain_as_is_said():
    truth = np.array([[0.05, 0.2, 0.25, 0.3], [200 / 768, 10 / 384, 380 / 768, 300 / 384]])
    errors, clear = [], []
    for told in many_tellings():
        seen = told["who"] >= 0
        errors.append(((told["edges"] - truth[told["who"]]) / told["blur"])[seen])
        cut = told["blur"] == 0.12
        assert not cut[told["rank"] < 36].any()  # the whole view cuts nothing
        clear.append(told["blur"][~cut])
        assert (told["blur"] == 0.12).any(1).sum() < len(cut)
    errors, clear = np.concatenate(errors), np.concatenate(clear)
    np.testing.assert_allclose(errors.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(errors.std(0), 1, atol=0.1)
    assert 0.002 <= clear.min() < 0.0022 and 0.023 < clear.max() <= 0.025
    assert np.median(clear) == pytest.approx(math.sqrt(0.002 * 0.025), rel=0.12)
    assert any((t["blur"][(t["rank"] >= 36)] == 0.12).any() for t in many_tellings(5))


def test_crops_are_told_last_and_say_nothing_of_where():
    plain, told = (
        sample_visual_tokens(things(), (384, 768), np.random.default_rng(3), "griffon", n)
        for n in (0, 2)
    )
    for key, value in plain.items():
        np.testing.assert_array_equal(told[key][:-2], value)
        assert told[key].dtype == value.dtype
    assert told["who"][-2:].tolist() == [2, 3] and told["rank"][-2:].tolist() == [-1, -1]
    assert (
        (told["edges"][-2:] == 0.5).all()
        and (told["blur"][-2:] == 9).all()
        and (told["much"][-2:] == 0).all()
    )
    assert plain["rank"].max() < 144


# Lessons


def test_pooled_objects_are_a_scenes_in_the_unit_frame():
    found, scene = load_pooled_objects(5, "count"), make_scene(5, 384, "count")
    assert [o.name for o in found] == [o.name for o in scene.objects] and all(
        o.mask is None for o in found
    )
    for one, other in zip(found, scene.objects):
        np.testing.assert_allclose(np.array(one.box.list()) * 384, other.box.list())


def test_mirroring_keeps_boxes_upright():
    box = Box(0.1, 0.25, 0.4, 0.875)
    assert mirror_box(box, False, False, 1).list() == pytest.approx([0.1, 0.25, 0.4, 0.875])
    assert mirror_box(box, True, False, 1).list() == pytest.approx([0.6, 0.25, 0.9, 0.875])
    assert mirror_box(box, False, True, 1).list() == pytest.approx([0.1, 0.125, 0.4, 0.75])
    assert mirror_box(box, True, True).list() == pytest.approx(
        [0.6 * 384, 0.125 * 384, 0.9 * 384, 0.75 * 384]
    )


def test_renaming_touches_one_kind():
    renamed = rename_kind(things(), "star", "a b")
    assert [o.name for o in renamed] == ["a b", "word"] and renamed[0].box == things()[0].box


def test_lessons_take_their_scenes_from_their_part_of_the_pool():
    for seed in range(4):
        rng = random.Random(seed)
        found = {o.phrase for _ in range(12) for o in draw_lesson_objects(rng, 3, 6, 2)}
        drawn = {6: set(), 7: set()}
        for number in drawn:
            drawn[number] = {o.phrase for o in load_pooled_objects(number, "train")}
        assert found <= drawn[6] | drawn[7] and found - drawn[6] and found - drawn[7]


def test_lessons_hold_few_objects_or_whole_scenes_mirrored_together():
    few = [len(draw_lesson_objects(random.Random(i), 3, 0, 4)) for i in range(60)]
    assert set(few) == {1, 2, 3}
    split, flips = [], set()
    for i in range(120):
        found = draw_lesson_objects(random.Random(i), None, 0, 1)
        names = {s: [o.phrase for o in load_pooled_objects(0, s)] for s in ("train", "count")}
        kind = "count" if [o.phrase for o in found] == names["count"] else "train"
        assert [o.phrase for o in found] == names[kind]
        split.append(kind == "count")
        pooled = load_pooled_objects(0, kind)
        fits = []
        for across in (False, True):
            for down in (False, True):
                boxes = [mirror_box(o.box, across, down).list() for o in pooled]
                if np.allclose(boxes, [o.box.list() for o in found]):
                    fits.append((across, down))
        assert len(fits) == 1
        flips.add(fits[0])
    assert len(flips) == 4
    assert np.mean(split) == pytest.approx(0.6, abs=0.12)


def test_a_lessons_questions_say_whose_vectors_they_need():
    objects = things()
    _, turns = ask_lesson_questions(random.Random(1), objects, dict(name=1.0), 4)
    for prompt, answer, who in turns:
        assert prompt.count(REGION_TOKEN) == len(who) == 1 and "<region>" not in prompt
        assert f"] {REGION_TOKEN}" in prompt  # one blank behind the coordinates
        assert (
            answer == objects[who[0]].phrase
            or answer == objects[who[0]].text
            or objects[who[0]].name in answer
        )
    assert len({who[0] for *_, who in turns}) == 2
    objects = [things()[0], SceneObject("cup", Box(200, 10, 380, 300), None, "blue", "filled")]
    kinds, turns = ask_lesson_questions(random.Random(1), objects, dict(search=1.0, find=1.0), 4)
    asked = [(p, who) for p, _, who in turns]
    numbers = [n for _, who in asked for n in who]
    assert numbers == list(range(2, 2 + len(kinds))) and len(kinds) >= 2
    for prompt, who in asked:
        assert prompt.count(CROP_TOKEN) == len(who) and "<crop>" not in prompt


def test_lessons_are_numbered_and_begin_with_few_objects():
    lessons = ObjectScenes(20_000, seed=2, pool=6)
    assert len(lessons) == 20_000
    early, late = (
        [lessons[i] for i in range(14_980, 15_000)],
        [lessons[i] for i in range(15_000, 15_025)],
    )
    assert (
        max(len(objects) for objects, *_ in early) == 3
        and max(len(turns) for *_, turns in early) == 4
    )
    assert (
        max(len(objects) for objects, *_ in late) > 3
        and max(len(turns) for *_, turns in late) == 10
    )
    again = ObjectScenes(20_000, seed=2, pool=6, skip=14_985)[3]
    assert again[3] == lessons[14_988][3] == early[8][3]
    told = sample_visual_tokens(again[0], (384, 384), np.random.default_rng([2, 14_988]))
    np.testing.assert_array_equal(told["edges"], again[2]["edges"])
    assert ObjectScenes(20_000, seed=1, pool=6)[14_988][3] != again[3]
    pool = {o.phrase for k in range(12, 18) for o in load_pooled_objects(k, "train")}
    assert {o.phrase for objects, *_ in early for o in objects} <= pool


def test_whole_scenes_begin_with_lesson_15000():
    for number, most in ((14_999, 4), (15_000, 10)):
        turns = [len(ObjectScenes(20_000, seed=s, pool=3)[number][3]) for s in range(8)]
        assert max(turns) == most


def test_a_quarter_of_griffons_lessons_look_for_what_has_no_name():
    lessons = ObjectScenes(10**6, seed=0, pool=6, style="griffon", skip=15_000)
    found = [lessons[i] for i in range(100)]
    nameless = [any(len(o.name.split()) > 2 for o in objects) for objects, *_ in found]
    assert np.mean(nameless) == pytest.approx(0.25, abs=0.1)
    for (objects, kinds, told, turns), hidden in zip(found, nameless):
        assert told["rank"].max() < 144 and (told["who"] >= len(objects)).sum() == len(kinds)
        if hidden:
            assert kinds and all(CROP_TOKEN in p for p, *_ in turns)


def test_words_of_a_thing_share_one(words):
    shares = compute_word_shares(words, ["red star red", "", "cup"])
    red, star, cup = (
        words(f" {w}", add_special_tokens=False).input_ids for w in ("red", "star", "cup")
    )
    assert len(red) == len(star) == len(cup) == 1
    assert shares.shape == (3, len(words)) and shares[1].sum() == 0
    assert shares[0, red[0]].item() == pytest.approx(2 / 3) and shares[
        0, star[0]
    ].item() == pytest.approx(1 / 3)
    assert shares[2, cup[0]] == 1 and shares[0].sum().item() == pytest.approx(1)


class Pieces:
    "A tokenizer whose ids are places in a list of pieces."

    def __init__(self, *pieces):
        self.pieces = pieces

    def convert_ids_to_tokens(self, ids):
        return [self.pieces[i] for i in ids]

    def decode(self, ids):
        return "".join(self.pieces[i] for i in ids).replace("Ġ", " ")


def told_row(asked, told):
    "Pieces of a question and an answer as a row that learns the answer."
    pieces = asked + told
    return Pieces(*pieces), dict(
        input_ids=list(range(len(pieces))), labels=[-100] * len(asked) + list(range(len(told)))
    )


def test_boxes_are_found_from_the_beginning_of_their_name():
    asked = ["<bos>", "Ġwhat", "Ġ[", "9", "]", "ASSISTANT:"]
    told = [
        "Ġred",
        "Ġstar",
        "Ġ[",
        "1",
        ",Ġ",
        "2",
        "]",
        "Ġ[",
        "3",
        "]",
        ",Ġ",
        "Ġcup",
        "Ġ[",
        "4",
        "]",
        "<eos>",
    ]
    words, row = told_row(asked, told)
    assert find_written_boxes(words, row) == [
        (6, 8, 12, "[1, 2]"),
        (12, 13, 15, "[3]"),  # decided at the bracket that closes the first
        (15, 18, 20, "[4]"),
    ]
    # another turn: what its first box is called begins at its words
    words = Pieces(*asked, *told, *asked, *told)
    row = dict(input_ids=list(range(44)), labels=[*row["labels"], *row["labels"]])
    assert [(n, s, e) for n, s, e, _ in find_written_boxes(words, row)[3:]] == [
        (28, 30, 34),
        (34, 35, 37),
        (37, 40, 42),
    ]


def test_the_name_of_a_box_is_five_tokens_at_most_and_ends_at_signs():
    words, row = told_row(["?"], ["a", "b", "c", "d", "e", "f", "g", "[", "1", "]"])
    assert find_written_boxes(words, row) == [(3, 8, 10, "[1]")]
    words, row = told_row(["?"], ["a", ":", "b", "[", "1", "]"])
    assert find_written_boxes(words, row) == [(3, 4, 6, "[1]")]
    words, row = told_row(["?"], ["star", "-", "[", "1", "]"])  # Griffon's form
    assert find_written_boxes(words, row) == [(1, 3, 5, "[1]")]
    words, row = told_row(["?"], ["[", "1", "]"])
    assert find_written_boxes(words, row) == [(1, 1, 3, "[1]")]


def test_tokens_are_marked_with_the_object_whose_name_or_box_they_write():
    # 38.4 / 384 = .1, 76.8 / 384 = .2, 192 / 384 = .5, 115.2 / 384 = .3
    box = ["Ġ[", "1", "0", "0", ",Ġ", "2", "0", "0", ",Ġ", "5", "0", "0", ",Ġ", "3", "0", "0", "]"]
    words, row = told_row(["?", "?"], ["Ġred", "Ġstar", *box, "Ġ[", "7", "]", "<eos>"])
    mark_objects(words, row, things(), 10)
    assert row["names"] == [-1] * 2 + [10] * 3 + [-1] * 20
    assert (
        row["writes"] == [-1] * 5 + [10] * 15 + [-1] * 5
    )  # not the bracket that closes, nor a box that nobody has
    griffon = ["star", "-", "[", *"0.100,0.200,0.500,0.300", "]"]
    words, row = told_row(["?"], griffon)
    mark_objects(words, row, things()[::-1], 4, "griffon")
    assert row["names"] == [-1] + [5] * 3 + [-1] * 24 and row["writes"] == [-1] * 4 + [5] * 23 + [
        -1
    ]


def hand_made(words):
    "Two scenes told by hand: three and one visual tokens; the second one's prompt holds a crop."
    place = " [100, 200, 500, 300]"
    first = dict(
        rank=np.array([5, 17, 100, -1, -1]),
        who=np.array([1, -1, 0, 0, 1]),
        other=np.array([0, 1, 1, 0, 0]),
        much=np.array([0.0, 0.0, 0.5, 0.0, 0.25]),
        edges=np.arange(20).reshape(5, 4) / 20,
        blur=np.full((5, 4), 0.01),
    )
    second = dict(
        rank=np.array([179, -1, -1]),
        who=np.array([0, 0, 1]),
        other=np.array([0, 0, 0]),
        much=np.zeros(3),
        edges=np.arange(12).reshape(3, 4) / 12,
        blur=np.full((3, 4), 0.02),
    )
    turns = [
        ("Where is the red star?", "red star" + place, []),
        (f"red {REGION_TOKEN}?", "blue", [1]),
    ]
    crops = [(f"Where is {CROP_TOKEN}?", "blue", [1])]
    return [(things(), [], first, turns), (things()[:1], ["cup"], second, crops)]


def test_things_are_collated_into_rows_with_room_for_what_is_not_told(words):
    words = add_crop_token(train_tokenizer(TEXTS, 330))
    batch = collate_objects(hand_made(words), words)
    ids, image = batch["input_ids"], 3
    assert ids.shape[1] % 16 == 0 and ids.shape[1] < 80
    assert ids[:, :5].tolist()[0][:4] == [1, 3, 3, 3] and (ids == image).sum(1).tolist() == [3, 1]
    # the whole sequence would have one start token and 180 visual ones
    assert batch["position_ids"][0, :6].tolist() == [0, 6, 18, 101, 181, 182]
    assert batch["position_ids"][1, :4].tolist() == [0, 180, 181, 182]
    n = (batch["turn_ids"][0] == 1).sum().item()
    assert (
        batch["position_ids"][0, 4 + n].item() == 181
    )  # the second turn begins where the first did
    assert batch["fills"].tolist() == [0, 0, 0, 1, 0, 2]
    # numbers in the batch: star 0, word 1, star 2, the crop's cup 3
    assert batch["who"].tolist() == [1, -1, 0, 1, 2, 3] and batch["other"].tolist() == [
        0,
        1,
        1,
        0,
        2,
        2,
    ]
    np.testing.assert_allclose(batch["much"], [0, 0, 0.5, 0.25, 0, 0])
    np.testing.assert_allclose(batch["edges"][3], np.arange(16, 20) / 20)
    np.testing.assert_allclose(batch["edges"][5], np.arange(8, 12) / 12)
    wanted = compute_word_shares(
        words, ["filled red star", "outlined blue word ABC", "filled red star", "cup", ""]
    )
    torch.testing.assert_close(batch["shares"], wanted)
    assert batch["shows"].nonzero().tolist() == [[0, 3], [1, 1], [2, 1]]
    assert batch["names"].max() == 0 and batch["writes"].max() == 0
    written = batch["writes"][0] == 0
    assert words.decode(ids[0][written]) == "100, 200, 500, 300"
    assert words.decode(ids[0][batch["names"][0] == 0]) == " red star ["
    few = collate_objects(
        hand_made(words), words, 4
    )  # no room for a second question, nor its region
    assert few["fills"].tolist() == [0, 0, 0, 0, 2] and few["who"].tolist() == [1, -1, 0, 2, 3]


def test_things_fill_their_placeholders():
    words = add_crop_token(train_tokenizer(TEXTS, 330))
    batch = collate_objects(hand_made(words), words)
    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny_llama_config(words, 64, 1))
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        found = embed_objects(model, batch, words, 0.0)
        edges, blur = batch["edges"].float(), batch["blur"].float()
        share = batch["shares"]
        mixed = torch.stack(
            [
                share[1],
                share[4],
                share[0] * 0.5 + share[1] * 0.5,  # half of the star seems to be the word
                share[1] * 0.75 + share[0] * 0.25,
                share[2],
                share[3],
            ]
        )
        expected = make_object_vectors(mixed, edges, blur, table)
        expected[1] = 0  # nothing is there
    ids = batch["input_ids"]
    torch.testing.assert_close(found[ids == 3], expected[[0, 1, 2, 4]])
    torch.testing.assert_close(found[ids == 4], expected[[3]])
    torch.testing.assert_close(found[ids == words.convert_tokens_to_ids(CROP_TOKEN)], expected[[5]])
    others = (ids != 3) & (ids != 4) & (ids != words.convert_tokens_to_ids(CROP_TOKEN))
    torch.testing.assert_close(found[others], table[ids[others]])
    with torch.no_grad():
        torch.manual_seed(1)
        noisy = embed_objects(model, batch, words, 0.5)
        torch.manual_seed(1)
        noise = torch.randn_like(expected)
    torch.testing.assert_close(
        (noisy - found)[ids == 3], 0.5 * noise[[0, 1, 2, 4]], atol=1e-5, rtol=1e-4
    )


def test_a_lessons_loss_is_cross_entropy_and_the_weighed_looks():
    words = add_crop_token(train_tokenizer(TEXTS, 330))
    batch = collate_objects(hand_made(words), words)
    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny_llama_config(words, 128, 3)).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        torch.manual_seed(5)
        plain = compute_lesson_loss(model, batch, words, 0.0).item()
        torch.manual_seed(5)
        looked = compute_lesson_loss(model, batch, words, 0.7).item()
        torch.manual_seed(5)
        embedded = embed_objects(model, batch, words)
        mask = torch.where(turn_mask(batch["turn_ids"]), 0.0, -1e9)
        out = model(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=batch["position_ids"],
            output_attentions=True,
        )
    truth = batch["labels"][:, 1:].flatten()
    expected = F.cross_entropy(out.logits[:, :-1].flatten(0, 1), truth, ignore_index=-100).item()
    assert plain == pytest.approx(expected, abs=2e-4)
    attention, looks = (
        out.attentions[1][:, :3],
        0.0,
    )  # of three layers the last but one, three of four heads
    for key in ("names", "writes"):
        held = []
        for row, place in (batch[key] >= 0).nonzero().tolist():
            shown = batch["shows"][batch[key][row, place]]
            held += [
                math.log(max(1e-6, attention[row, h, place][shown].sum().item())) for h in range(3)
            ]
        looks -= np.mean(held)
    assert looked - plain == pytest.approx(0.7 * looks, rel=1e-3)


# Runs


def test_a_run_begins_with_the_model_it_is_told_and_its_record(tmp_path, words):
    torch.manual_seed(0)
    LlamaForCausalLM(tiny_llama_config(words, 32, 1)).half().save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    model, tokenizer, before = start_language_model(tmp_path)
    assert (
        before is None
        and model.dtype == torch.float32
        and model.vocab_size == len(tokenizer) == len(words)
    )
    (tmp_path / "run.json").write_text('{"seed": 3}')
    model, tokenizer, before = start_language_model(tmp_path, "griffon")
    assert before == dict(seed=3) and len(tokenizer) == model.vocab_size == len(words) + 1
    assert tokenizer.convert_tokens_to_ids(CROP_TOKEN) == len(words)


def test_a_run_is_told_what_was_asked_and_writes_it_down(tmp_path, words, monkeypatch):
    torch.manual_seed(0)
    LlamaForCausalLM(tiny_llama_config(words, 32, 1)).save_pretrained(tmp_path / "a")
    words.save_pretrained(tmp_path / "a")
    (tmp_path / "a" / "run.json").write_text('{"seed": 3}')
    asked, streams = [], []

    def train(model, loss_of, batches, *args, **options):
        asked.append((model.config._attn_implementation, args, options))
        batches(7)
        return [(4, 1.5)]

    monkeypatch.setattr(language, "run_training_loop", train)
    monkeypatch.setattr(
        language, "load_batches", lambda data, n, collate, start: streams.append((data, n, start))
    )
    log = pretrain_lm(
        tmp_path / "b", samples=100, lr=5e-4, seed=2, start=tmp_path / "a", style="griffon"
    )
    assert log == [(4, 1.5)]
    [(attention, args, options)], [(data, n, start)] = asked, streams
    assert attention == "eager"  # its weights are what the look is taught
    assert args == (tmp_path / "b", 4, None, 5e-4)  # 100 scenes, 24 a step
    settings = dict(seed=2, batch_size=24, style="griffon", look=0.3)
    assert options == dict(weight_decay=0.01, muon=0.02, resume=False, settings=settings)
    assert (n, start) == (24, 7)
    # whole scenes at once; lessons of seed 2 come from their own part of the pool
    assert (len(data), data.seed, data.style, data.skip) == (
        10**7,
        2 * 10**7 * 3,
        "griffon",
        15_000,
    )
    record = language.json.loads((tmp_path / "b" / "run.json").read_text())
    wanted = dict(
        seed=2,
        steps=4,
        batch_size=24,
        lr=5e-4,
        muon=0.02,
        style="griffon",
        look=0.3,
        compile=False,
        log=[[4, 1.5]],
        before=dict(seed=3),
    )
    assert record == wanted
    saved = LlamaForCausalLM.from_pretrained(tmp_path / "b")
    assert saved.dtype == torch.float16 and saved.vocab_size == len(words) + 1
    pretrain_lm(tmp_path / "c", samples=5, start=tmp_path / "a")
    assert asked[-1][1][1] == 1 and streams[-1][0].style == "ferret"  # one step at least
    pretrain_lm(
        tmp_path / "d", minutes=2.5, start=tmp_path / "a", muon=None, resume=True, batch_size=3
    )
    assert asked[-1][1][1:3] == (None, 2.5)
    settings = dict(seed=0, batch_size=3, style="ferret", look=0.3)
    assert asked[-1][2] == dict(weight_decay=0.01, muon=None, resume=True, settings=settings)
