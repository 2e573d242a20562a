"""A step as a graph computes what the language model of transformers computes."""

import copy
import sys

import pytest
import torch
from test_decoding import END, AllGuesses, Guesses, cut, generate
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ferretlite.common.files import WEIGHTS
from ferretlite.model import step_graph
from ferretlite.model.decoding import PlainDecoder, use_threads
from ferretlite.model.inference import Ferret
from ferretlite.model.loading import load_model
from ferretlite.model.step_graph import GraphDecoder, can_use_graph, choose_decoder
from ferretlite.scenes.world import make_scene

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def make_llama(seed=0, **changes):
    """A random Llama of two layers with a key head for each query head."""
    torch.manual_seed(seed)
    settings = dict(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        rms_norm_eps=1e-3,  # large enough to be noticed
        initializer_range=0.4,
    )
    model = LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()
    for p in model.parameters():  # norms that differ from one show whether they are folded
        if p.ndim == 1:
            nn.init.uniform_(p, 0.5, 1.5)
    return model


@pytest.fixture(scope="module")
def llama():
    return make_llama()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("guessed", [False, True])
def test_a_batch_of_different_lengths_is_what_generate_writes(llama, seed, guessed, monkeypatch):
    generator = torch.Generator().manual_seed(seed)
    lengths = (9, 4, 7, 1, 9, 2)
    prompts = torch.randn(6, 9, 32, generator=generator)
    mask = torch.tensor([[0] * (9 - n) + [1] * n for n in lengths])
    wanted = [cut(row) for row in generate(llama, prompts, mask).tolist()]
    monkeypatch.setattr("ferretlite.model.decoding._BoxGuesser", Guesses(wanted))
    tokenizer = object() if guessed else None
    tokens, chances = GraphDecoder(llama).decode_batch(prompts, mask, END, 30, tokenizer)
    assert [cut(row) for row in tokens.tolist()] == wanted
    for i, n in enumerate(lengths):  # each probability by the model's own forward pass
        ids = torch.tensor([wanted[i]])
        x = torch.cat([prompts[i : i + 1, 9 - n :], llama.get_input_embeddings()(ids)], 1)
        with torch.inference_mode():
            own = llama(inputs_embeds=x).logits[:, n - 1 : -1].softmax(-1)
        own = own.gather(2, ids[..., None])[0, :, 0]
        torch.testing.assert_close(chances[i, : len(own)], own, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("guesses", [[], [7], [END], [5, 5, 5]])
@pytest.mark.parametrize("choices", [[], list(range(4, 14))])
def test_guesses_and_choices_do_not_change_what_is_written(llama, monkeypatch, guesses, choices):
    prompt = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(3))
    every = torch.ones(1, 6, dtype=torch.long)
    wanted = cut(generate(llama, prompt, every).tolist()[0])
    monkeypatch.setattr("ferretlite.model.decoding._BoxGuesser", AllGuesses(guesses, choices))
    for n in (1, 2, 3, 30):
        tokens, _ = GraphDecoder(llama).decode_batch(prompt, every, END, n, object())
        assert tokens.tolist() == [wanted[:n]]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_an_answer_outgrows_its_cache_twice(llama, batch, threads):
    """The cache begins with room for 64 tokens; END never comes, so 200 tokens are written."""
    prompts = torch.randn(batch, 5, 32, generator=torch.Generator().manual_seed(batch))
    mask = torch.ones(batch, 5, dtype=torch.long)
    how = dict(max_new_tokens=200, do_sample=False, eos_token_id=None, pad_token_id=0)
    wanted = llama.generate(inputs_embeds=prompts, attention_mask=mask, **how)
    with use_threads(threads):
        tokens, _ = GraphDecoder(llama).decode_batch(prompts, mask, -5, 200)
    assert tokens.tolist() == wanted.tolist()


def test_a_long_cache_is_not_allocated_for_a_short_answer(llama, monkeypatch):
    sizes = []
    compute = PlainDecoder.compute_logits

    def watch(self, x, positions, cache, *rest):
        sizes.append(cache[0][0].shape[2])
        return compute(self, x, positions, cache, *rest)

    monkeypatch.setattr(PlainDecoder, "compute_logits", watch)
    prompt, every = torch.randn(1, 5, 32), torch.ones(1, 5, dtype=torch.long)
    GraphDecoder(llama).decode_batch(prompt, every, END, 240)
    assert sizes[0] == 5 + step_graph._ROOM


def test_new_weights_make_a_new_graph():
    ferret = Ferret.load("tiny")
    image, question = make_scene(1, split="test").image, "List the objects."
    kinds = []
    for _ in range(3):
        ferret.ask(image, question, max_new_tokens=4)
        kinds.append(ferret._decoder)
    assert [type(d) for d in kinds] == [PlainDecoder, GraphDecoder, GraphDecoder]
    assert kinds[1] is kinds[2]
    with torch.no_grad():
        ferret.model.language_model.lm_head.weight.mul_(-1.0)
    ours = ferret.ask(image, question, max_new_tokens=8).raw_text
    assert ferret._decoder is not kinds[2] and type(ferret._decoder) is GraphDecoder
    copied = copy.deepcopy(ferret)  # the sessions of the copy are its own
    assert copied.ask(image, question, max_new_tokens=8).raw_text == ours
    ferret.plain_loop = False
    assert ours == ferret.ask(image, question, max_new_tokens=8).raw_text


def test_only_what_a_graph_can_compute_becomes_one(llama, monkeypatch):
    assert can_use_graph(llama)
    shared = make_llama(num_key_value_heads=2)  # heads share keys: the graph has no such form
    assert not can_use_graph(shared) and not can_use_graph(make_llama().to(torch.bfloat16))
    assert type(choose_decoder(None, shared, rows=4)) is PlainDecoder
    monkeypatch.setattr(step_graph, "_LARGEST_GRAPH", 1000)
    assert not can_use_graph(llama)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_the_packages_pytorch_takes_the_steps(llama, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)  # its import raises ImportError
    step_graph.has_onnx.cache_clear()
    try:
        assert not can_use_graph(llama)
        assert type(choose_decoder(None, llama, rows=4)) is PlainDecoder
    finally:
        step_graph.has_onnx.cache_clear()


def test_a_kept_decoder_stays_until_a_graph_is_worth_it(llama, monkeypatch):
    first = choose_decoder(None, llama)
    assert type(first) is PlainDecoder
    assert type(choose_decoder(None, llama, rows=2)) is GraphDecoder
    graph = choose_decoder(first, llama)
    assert type(graph) is GraphDecoder and choose_decoder(graph, llama) is graph
    monkeypatch.setattr(step_graph, "can_use_graph", lambda model: False)
    assert choose_decoder(first, llama, rows=9) is first


def test_sessions_have_the_threads_of_the_loop(llama):
    decoder = GraphDecoder(llama)
    with use_threads(1):
        one = decoder.find_session()
        assert one.get_session_options().intra_op_num_threads == 1
        assert decoder.find_session() is one
    with use_threads(2):
        assert decoder.find_session().get_session_options().intra_op_num_threads == 2


def test_the_graph_keeps_to_the_format():
    import onnx

    file = step_graph.make_step_graph(PlainDecoder(load_model(WEIGHTS / "tiny")[0].language_model))
    onnx.checker.check_model(onnx.load_from_string(file), full_check=True)
