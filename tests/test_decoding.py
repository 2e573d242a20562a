"""The fast decoding loop writes what `generate` writes, and is used only where it may be."""

import copy

import pytest
import torch
from small_model import small_ferret
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ferretlite.common.errors import InputError
from ferretlite.evaluation import speed
from ferretlite.model import decoding, inference, step_graph
from ferretlite.model.decoding import (
    NO_TOKEN,
    PlainDecoder,
    _BoxGuesser,
    _Words,
    is_plain_llama,
    use_threads,
)
from ferretlite.model.inference import Ferret
from ferretlite.scenes.world import make_scene

END = 3


@pytest.fixture(scope="module")
def llama():
    """A random Llama of three layers whose heads share keys and values two by two."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.4,
    )
    model = LlamaForCausalLM(config).eval()
    for p in model.parameters():  # norms that differ from one show whether they are folded
        if p.ndim == 1:
            nn.init.uniform_(p, 0.5, 1.5)
    return model


def generate(model, embeddings, mask, n=30):
    return model.generate(
        inputs_embeds=embeddings,
        attention_mask=mask,
        max_new_tokens=n,
        do_sample=False,
        eos_token_id=END,
        pad_token_id=0,
    )


def cut(row):
    row = [t for t in row if t != NO_TOKEN]
    return row[: row.index(END) + 1] if END in row else row


def test_logits_are_those_of_transformers(llama):
    x = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(1))
    decoder = PlainDecoder(llama)
    cache = decoder.make_cache(2, 7)
    places = torch.arange(7)[None].expand(2, -1)
    causal = torch.full((7, 7), -torch.inf).triu(1)[None, None]
    with torch.inference_mode():
        found = decoder.compute_logits(x, places, cache, 0, causal, last=7)
        wanted = llama(inputs_embeds=x).logits
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


class Guesses:
    """A guesser of the tokens that a row of the batch really writes, some of them wrong."""

    def __init__(self, answers):
        self.answers, self.row, self.at = answers, -1, 0

    def __call__(self, words):
        found = Guesses(self.answers)
        self.row = found.row = self.row + 1
        return found

    def read(self, token):
        self.at += 1

    def guess(self):
        right = self.answers[self.row % len(self.answers)][self.at : self.at + 3]
        return right if (self.row + self.at) % 3 else [7, *right]

    def list_choices(self):
        return [7, 8]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("guessed", [False, True])
def test_a_batch_of_different_lengths_is_what_generate_writes(llama, seed, guessed, monkeypatch):
    """Rows end at different steps, so that rows are dropped on the way."""
    generator = torch.Generator().manual_seed(seed)
    lengths = (9, 4, 7, 1, 9, 2, 3, 8, 9, 5, 6, 9, 1, 2, 9, 4)
    prompts = torch.randn(16, 9, 32, generator=generator)
    mask = torch.tensor([[0] * (9 - n) + [1] * n for n in lengths])
    wanted = generate(llama, prompts, mask)
    guesses = Guesses([cut(row) for row in wanted.tolist()])
    monkeypatch.setattr("ferretlite.model.decoding._BoxGuesser", guesses)
    tokenizer = object() if guessed else None
    tokens, chances = PlainDecoder(llama).decode_batch(prompts, mask, END, 30, tokenizer)
    assert [cut(row) for row in tokens.tolist()] == [cut(row) for row in wanted.tolist()]
    assert len({len(cut(row)) for row in tokens.tolist()}) > 1
    for i, n in enumerate(lengths):  # each probability by the model's own forward pass
        ids = torch.tensor([cut(tokens[i].tolist())])
        x = torch.cat([prompts[i : i + 1, 9 - n :], llama.get_input_embeddings()(ids)], 1)
        with torch.inference_mode():
            own = llama(inputs_embeds=x).logits[:, n - 1 : -1].softmax(-1)
        own = own.gather(2, ids[..., None])[0, :, 0]
        torch.testing.assert_close(chances[i, : len(own)], own, atol=1e-4, rtol=1e-3)
        assert (chances[i, len(own) :] == 0).all()


class AllGuesses:
    """A guesser that always feeds the same tokens, right or wrong."""

    def __init__(self, tokens, choices=()):
        self.tokens, self.choices = tokens, choices

    def __call__(self, words):
        return self

    def read(self, token):
        pass

    def guess(self):
        return self.tokens

    def list_choices(self):
        return self.choices


@pytest.mark.parametrize("guesses", [[], [7], [END], [5, 5, 5], "right"])
def test_guesses_do_not_change_what_is_written(llama, monkeypatch, guesses):
    prompt = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(3))
    every = torch.ones(1, 6, dtype=torch.long)
    wanted = cut(generate(llama, prompt, every).tolist()[0])
    if guesses == "right":
        guesses = wanted[1:4]
    monkeypatch.setattr("ferretlite.model.decoding._BoxGuesser", AllGuesses(guesses))
    for n in (1, 2, 3, 30):
        tokens, chances = PlainDecoder(llama).decode_batch(prompt, every, END, n, object())
        assert tokens.tolist() == [wanted[:n]] and chances.shape == tokens.shape
    plain = PlainDecoder(llama).decode_batch(prompt, every, END, 30)[1]
    torch.testing.assert_close(chances, plain, atol=1e-5, rtol=1e-4)


def test_an_answer_of_no_tokens_is_refused(llama):
    """Zero was never reached by counting up from one, so the loop ran until its cache was full."""
    with pytest.raises(InputError, match="max_new_tokens: found 0, expected 1 or more"):
        PlainDecoder(llama).decode_batch(torch.randn(1, 6, 32), torch.ones(1, 6), END, 0)


@pytest.mark.parametrize("wrong", [0, 1, 9])
def test_choices_do_not_change_what_is_written(llama, monkeypatch, wrong):
    """Every second token stands among the choices, behind some wrong ones; each saves a step."""
    prompt = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(4))
    every = torch.ones(1, 6, dtype=torch.long)
    wanted = cut(generate(llama, prompt, every).tolist()[0])
    assert len(wanted) > 12
    choices = [t for t in range(4, 50) if t not in wanted][:wrong] + sorted({*wanted[1::2]})
    choices = choices[: decoding._MOST_GUESSES]
    monkeypatch.setattr(decoding, "_BoxGuesser", AllGuesses([], choices))
    plain = PlainDecoder(llama).decode_batch(prompt, every, END, 30)[1]
    steps = []
    feed = PlainDecoder._feed
    monkeypatch.setattr(PlainDecoder, "_feed", lambda *a: steps.append(1) or feed(*a))
    for n in (1, 2, 3, 30):
        steps.clear()
        tokens, chances = PlainDecoder(llama).decode_batch(prompt, every, END, n, object())
        assert tokens.tolist() == [wanted[:n]]
        torch.testing.assert_close(chances, plain[:, :n], atol=1e-5, rtol=1e-4)
    assert len(steps) < len(wanted) - 1


class Letters:
    """A tokenizer of single characters."""

    def decode(self, tokens):
        return "".join(map(chr, tokens))


def test_guesses_follow_the_form_of_boxes():
    guesser = _BoxGuesser(_Words(Letters()))

    def after(text):
        for sign in text:
            guesser.read(ord(sign))
        return "".join(map(chr, guesser.guess()))

    assert after("1:cat[123") == ""  # no comma was seen yet
    assert after(",45") == "" and after(",678") == ","
    assert after(",9") == "" and after("01") == ""  # a fourth number, but no bracket yet
    assert after("]") == ",2:"  # its digit was seen inside the box
    assert after(",2:dog[111") == ","
    assert after(",222,333,444") == "],3:"
    assert after("],3:sun[99") == ""
    assert after("9,111,222,333]") == ",4:"
    assert after(",") == "4:" and after("4") == ":"  # where only a part was fed
    assert after(":sun") == "["  # as after the last `un`
    assert after("s") == ""  # nothing has followed `ns`
    assert after("[7") == "" and guesser.list_choices() == [ord(d) for d in "0123456789"]
    assert after("8") == "" and guesser.list_choices() == []
    assert after("9") == "," and guesser.list_choices() == []
    other = _BoxGuesser(guesser.words)  # another answer remembers the words
    for sign in "1:":
        other.read(ord(sign))
    assert "".join(map(chr, other.guess())) == "cat["


def test_guesses_follow_numbers_with_a_point():
    guesser = _BoxGuesser(_Words(Letters()))
    for sign in "star-[0.123,0.4":
        guesser.read(ord(sign))
    assert guesser.guess() == []
    for sign in "56":
        guesser.read(ord(sign))
    assert guesser.guess() == [ord(",")]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_no_token_and_stay_as_they_were(llama, threads, monkeypatch):
    monkeypatch.setattr("ferretlite.model.decoding._chosen", {})
    before = torch.get_num_threads()
    prompts = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 5, dtype=torch.long)
    wanted = [cut(row) for row in generate(llama, prompts, mask).tolist()]
    with use_threads(2):
        measured = []
        choose = decoding.choose_threads
        monkeypatch.setattr(
            decoding, "choose_threads", lambda step: measured.append(choose(step)) or threads
        )
        for _ in range(2):
            tokens, _ = PlainDecoder(llama).decode_batch(prompts, mask, END, 30)
            assert [cut(row) for row in tokens.tolist()] == wanted
        assert len(measured) == 1 and torch.get_num_threads() == 2
        PlainDecoder(llama).decode_batch(prompts[:1], mask[:1], END, 5)  # too short to measure
        assert len(measured) == 1
    with use_threads(1):
        PlainDecoder(llama).decode_batch(prompts, mask, END, 30)
        assert len(measured) == 1
    with pytest.raises(ValueError), use_threads(1 + torch.get_num_threads()):
        raise ValueError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("model", ["tiny", "tiny-griffon"])
def test_shipped_models_answer_as_generate_does(model, graph, monkeypatch):
    """With the steps in PyTorch, and with those in ONNX Runtime where it is installed."""
    if graph and not step_graph.has_onnx():
        pytest.skip("needs the onnx extra")
    monkeypatch.setattr(step_graph, "can_use_graph", lambda model: graph)
    ferret = Ferret.load(model)
    images = [make_scene(seed, size=192, split="test").image for seed in (3, 4, 5)]
    griffon = model == "tiny-griffon"
    prompt = "Where is the star?" if not griffon else "Find every star and every cup."
    prompts = [prompt, "Describe the image.", prompt]

    def answers():
        many = ferret.ask(
            [images[k % 3] for k in range(16)], 5 * prompts + prompts[:1], max_new_tokens=40
        )
        return [*many, ferret.ask(images[0], prompts[1], max_new_tokens=60)]

    fast = answers()
    assert ferret._decoder.is_current(ferret.model.language_model)
    assert isinstance(ferret._decoder, step_graph.GraphDecoder) is graph
    monkeypatch.setattr(inference, "is_plain_llama", lambda *_: False)
    for ours, theirs in zip(fast, answers()):
        assert ours.raw_text == theirs.raw_text and ours.finish_reason == theirs.finish_reason
        for g, h in zip(ours.groundings, theirs.groundings):
            known = [[s for s in each.raw_scores if s is not None] for each in (g, h)]
            assert known[0] == pytest.approx(known[1], rel=1e-3)


def test_changed_weights_are_noticed():
    ferret, image = small_ferret(), make_scene(0, size=96).image
    before = ferret.ask(image, "What is here?", max_new_tokens=8).raw_text
    other = small_ferret(seed=1)
    ferret.model.load_state_dict(other.model.state_dict())
    after = ferret.ask(image, "What is here?", max_new_tokens=8).raw_text
    assert after == other.ask(image, "What is here?", max_new_tokens=8).raw_text != before


def test_weights_that_change_behind_pytorchs_back_are_noticed(llama):
    """An adapter is merged through `.data`, which neither moves nor counts a write."""
    model = copy.deepcopy(llama)
    decoder = PlainDecoder(model)
    assert decoder.is_current(model)
    for weight in (model.model.layers[1].mlp.up_proj.weight, model.model.embed_tokens.weight):
        weight.data += 1e-3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        assert not decoder.is_current(model)
        decoder = PlainDecoder(model)
        assert decoder.is_current(model)


def test_the_answer_ends_at_the_last_position():
    ferret, image = small_ferret(), make_scene(0, size=96).image
    ids = ferret.processor([image], ["What is here?"], [[]], [[]])["input_ids"]
    ferret.model.config.text_config.max_position_embeddings = ids.shape[1] + 5
    tokens, _ = ferret._generate([image], ["What is here?"], [[]], [[]], 50, 0)
    assert tokens.shape[1] <= 5


def changed(model, **options):
    model = copy.deepcopy(model)
    for name, value in options.items():
        setattr(model.config, name, value)
    return model


def test_other_models_go_through_generate(llama):
    assert is_plain_llama(llama)
    assert not is_plain_llama(copy.deepcopy(llama).half())
    assert not is_plain_llama(changed(llama, hidden_act="gelu"))
    assert not is_plain_llama(changed(llama, attention_bias=True))
    assert not is_plain_llama(changed(llama, mlp_bias=True))
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    assert not is_plain_llama(changed(llama, rope_parameters=scaled))
    hooked = copy.deepcopy(llama)
    hooked.model.layers[1].register_forward_pre_hook(lambda *_: None)
    assert not is_plain_llama(hooked)

    class AdaptedLinear(nn.Linear):
        pass

    adapted = copy.deepcopy(llama)
    adapted.model.layers[0].mlp.up_proj = AdaptedLinear(32, 48, bias=False)
    assert not is_plain_llama(adapted)
    assert not is_plain_llama(nn.Linear(2, 2))


def test_the_bench_counts_the_same_tokens_for_every_way(monkeypatch):
    """A clock by which each answer of every way takes a second, but `generate` two."""
    spent, forgotten = iter([0, 2, 2, 3, 3, 7, 7, 8]), []
    monkeypatch.setattr(speed, "read_clock", lambda: next(spent))
    texts = {"generate": [[1, 2, 3]], "our loop": [[1, 2, 3]]}
    texts |= {"ask with generate": ["a"], "ask": ["a"]}
    ways = {name: (lambda limit, found=found: found) for name, found in texts.items()}
    rows, equal = speed._compare_ways([ways], 5, 1, lambda: forgotten.append(1))
    assert len(forgotten) == 4  # no way profits from the answers of another
    assert equal and [r["way"] for r in rows] == list(texts)
    assert [r["tokens_per_second"] for r in rows] == [1.5, 3.0, 0.75, 3.0]
    assert [r["speedup"] for r in rows] == [1.0, 2.0, 1.0, 4.0]
    for other in ("our loop", "ask"):
        spent = iter(range(8))
        wrong = {**ways, other: lambda limit: [[1, 2]]}
        assert not speed._compare_ways([wrong], 5, 1)[1]
    told = dict(rows=[dict(batch=1, **r) for r in rows], equal=False, threads={"1": 1, "16": 2})
    told |= dict(process_threads=2, objects=10, list_seconds=0.375, device="cpu", graph=True)
    lines = speed.format_decoding_bench(told).splitlines()
    assert lines[2].split() == ["our", "loop", "1", "3", "2.0", "x"]
    assert lines[-3].endswith("equal answers: no")
    assert lines[-2] == "a list of 10 objects takes 0.38 s"
    assert "1 for a batch of 1, 2 for a batch of 16 (cpu, 2 threads)" in lines[-1]
    assert lines[-1].endswith("its steps run in ONNX Runtime")
    last = speed.format_decoding_bench(told | dict(graph=False)).splitlines()[-1]
    assert last.endswith("its steps run in PyTorch (faster: pip install 'ferretlite[onnx]')")


# Maps of pictures seen before


def prepare(processor, *images):
    found = processor.prepare_images(list(images))
    return [found[name] for name in ("global_pixels", "local_pixels", "grids")]


@pytest.fixture
def counted_store(random_model):
    "A store, its processor, and how many pictures each look was at."
    model, processor = random_model
    store, looks = decoding.MapStore(model.float().eval()), []
    look = store._look
    store._look = lambda whole, cut: looks.append(len(whole)) or look(whole, cut)
    return store, processor, looks


@torch.no_grad()
def test_maps_of_known_and_new_pictures_stand_in_the_batchs_order(counted_store):
    store, processor, looks = counted_store
    wide, tall, flat = (make_scene(k, 96).image.resize(size) for k, size in
        enumerate([(200, 90), (80, 160), (96, 96)]))  # fmt: skip
    for batch in ((wide,), (tall, wide), (flat, tall, wide, flat), (wide, tall)):
        views = prepare(processor, *batch)
        right = store.model.compute_tower_maps(*views[:2])
        for found, expected in zip(store.compute(*views), right):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert looks == [1, 1, 2]  # the flat one twice, since it was new in both places


@torch.no_grad()
def test_a_picture_that_was_drawn_upon_is_looked_at_again(counted_store):
    store, processor, looks = counted_store
    image = make_scene(0, 96).image.copy()
    store.compute(*prepare(processor, image))
    red, green, blue = image.getpixel((41, 43))
    image.putpixel((41, 43), (red, green, 255 - blue))  # one pixel, in one colour
    views = prepare(processor, image)
    found = store.compute(*views)
    assert torch.equal(found[0], store.model.compute_tower_maps(*views[:2])[0]) and looks == [1, 1]


@torch.no_grad()
@pytest.mark.parametrize("side", ["global_tower", "local_tower"])
def test_new_weights_of_a_tower_empty_the_store(counted_store, side):
    store, processor, looks = counted_store
    views = prepare(processor, make_scene(0, 96).image)
    before = store.compute(*views)
    for p in getattr(store.model, side).parameters():
        p.data.mul_(1.1)
    found, right = store.compute(*views), store.model.compute_tower_maps(*views[:2])
    assert looks == [1, 1] and all(torch.equal(a, b) for a, b in zip(found, right))
    assert not all(torch.equal(a, b) for a, b in zip(found, before))


@torch.no_grad()
def test_the_store_keeps_the_pictures_that_came_last(counted_store, monkeypatch):
    store, processor, looks = counted_store
    views = [prepare(processor, make_scene(k, 96).image) for k in range(3)]
    size = sum(m.nbytes for m in store.model.compute_tower_maps(*views[0][:2]))
    monkeypatch.setattr(decoding, "_MOST_MAP_BYTES", 2.5 * size)
    for k in (0, 1, 0, 2):  # 1 came longest ago
        store.compute(*views[k])
    assert len(looks) == 3
    for k, known in ((0, True), (2, True), (1, False)):
        before = len(looks)
        store.compute(*views[k])
        assert (len(looks) == before) is known


def test_a_second_question_looks_no_more_and_another_model_looks_again(random_model):
    ferret = Ferret(*random_model)
    image = make_scene(0, 96).image
    ferret.ask(image, "What is there?", max_new_tokens=2)
    store = ferret._maps
    store._look = lambda *views: pytest.fail("the picture is known")
    ferret.ask([image, image], ["How many?", "Where is it?"], max_new_tokens=2)
    ferret.model = copy.deepcopy(ferret.model)
    ferret.ask(image, "What is there?", max_new_tokens=2)
    assert ferret._maps is not store
