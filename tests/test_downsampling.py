"""Projectors that make few tokens of many."""

import math

import pytest
import torch
from torch import nn

from ferretlite.evaluation.speed import (
    _PROJECTOR_SIDES,
    _count_projector,
    _time_projector,
    bench_projectors,
    format_projector_bench,
)
from ferretlite.vision import kernel_operators as kernels_module
from ferretlite.vision.downsampling import (
    DOWNSAMPLER_CLASSES,
    ConvDownsampler,
    PoolDownsampler,
    Resampler,
    ShuffleDownsampler,
    check_impl,
    compute_sine_positions,
    make_downsampler,
    may_use_kernels,
)


def built(kind, hidden=None):
    return make_downsampler(
        kind, 8, 16, hidden=hidden, **(dict(queries=(3, 5)) if kind == "resampler" else {})
    )


@pytest.mark.parametrize("kind", DOWNSAMPLER_CLASSES)
@pytest.mark.parametrize("cells", [(73, 73), (1, 1), (2, 9), (11, 6), (1, 7)])
def test_what_comes_out_is_as_large_as_promised(kind, cells):
    torch.manual_seed(0)
    projector = built(kind)
    out = projector(torch.randn(2, *cells, 8))
    assert out.shape == (2, *projector.out_cells(cells), 16) and out.isfinite().all()


@pytest.mark.parametrize("kind", DOWNSAMPLER_CLASSES)
def test_samples_of_a_batch_do_not_meet(kind):
    torch.manual_seed(0)
    projector, maps = built(kind).eval(), torch.randn(3, 9, 8, 8)
    together = projector(maps)
    for i in range(3):
        assert torch.allclose(projector(maps[i : i + 1])[0], together[i], atol=1e-5)


@pytest.mark.parametrize("kind", DOWNSAMPLER_CLASSES)
def test_every_weight_learns_and_a_place_is_heard(kind):
    torch.manual_seed(0)
    projector, maps = built(kind, hidden=12), torch.randn(1, 6, 7, 8)
    place = torch.randn(1, *projector.out_cells((6, 7)), 12)
    out = projector(maps, place)
    assert not torch.allclose(out, projector(maps), atol=1e-3)
    out.square().sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0
        for n, p in projector.named_parameters()
        if n != "attention.in_proj_bias"
    )


@pytest.mark.parametrize("kind", ("conv", "shuffle", "pool"))
def test_a_token_hears_its_own_cells_and_no_distant_ones(kind):
    torch.manual_seed(0)
    projector, maps = built(kind).eval(), torch.zeros(1, 12, 10, 8)
    before, changed = projector(maps), maps.clone()
    changed[0, 6, 4] = (
        1.0  # in the middle of the convolution's window, and in the block, of row 3, column 2
    )
    assert ((projector(changed) - before).abs().sum(-1)[0] > 1e-6).nonzero().tolist() == [[3, 2]]
    changed[0, 7, 5] = 1.0  # windows overlap here, blocks do not
    heard = ((projector(changed) - before).abs().sum(-1)[0] > 1e-6).nonzero().tolist()
    assert heard == ([[3, 2], [3, 3], [4, 2], [4, 3]] if kind == "conv" else [[3, 2]])


def test_the_published_numbers():
    sizes = {side: _count_projector("conv", side) for side in (448, 700, 1022)}
    assert [s["tokens"] for s in sizes.values()] == [256, 625, 1369]
    assert all(
        s["parameters"] == 9 * 1024 * 5120 + 5120 + 5120 * 5120 + 5120 for s in sizes.values()
    )
    assert ConvDownsampler(4, 4, padding=0).out_cells((73, 73)) == (36, 36)
    assert math.prod(make_downsampler("mlp", 4, 4).out_cells((73, 73))) == 5329


def test_the_activation_is_the_exact_gelu_or_none():
    torch.manual_seed(0)
    x = torch.randn(1, 5, 5, 4)
    with_gelu, without = ConvDownsampler(4, 6), ConvDownsampler(4, 6, gelu=False)
    without.load_state_dict(with_gelu.state_dict())
    conv = with_gelu.conv(x.movedim(-1, 1)).movedim(1, -1)
    assert torch.allclose(
        with_gelu(x), with_gelu.linear(conv * 0.5 * (1 + torch.erf(conv / 2**0.5))), atol=1e-6
    )
    assert torch.allclose(without(x), with_gelu.linear(conv), atol=1e-6)


def test_queries_do_not_begin_as_zeros():
    assert Resampler(4, 8).asked.std() > 0.01


def test_half_precision_stays_half():
    for kind in DOWNSAMPLER_CLASSES:
        assert built(kind).bfloat16()(torch.randn(1, 5, 5, 8).bfloat16()).dtype == torch.bfloat16


def test_the_bench_reports_every_projector_at_every_size():
    rows = bench_projectors((56, 70), 8, 16)
    assert [(r["kind"], r["side"]) for r in rows] == [
        (k, s) for k in DOWNSAMPLER_CLASSES for s in (56, 70)
    ]
    assert all(r["ms"] > 0 and r["mb"] > 0 and r["gflop"] > 0 for r in rows)


# Numbers from elsewhere


def exact_gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def mlp(x, state, place=0):
    "Linear, GELU, linear of the parameters `mlp.0` and `mlp.2`."
    return linear(exact_gelu(linear(x, state, "mlp.0") + place), state, "mlp.2")


def test_who_may_use_the_kernels(monkeypatch):
    class OnGpu:
        is_cuda = True

    maps = torch.zeros(1)
    for said in (None, "", "0", "1"):
        monkeypatch.delenv("FERRETLITE_TRITON", raising=False)
        if said is not None:
            monkeypatch.setenv("FERRETLITE_TRITON", said)
        assert may_use_kernels("triton", maps) and not may_use_kernels("torch", OnGpu)
        assert not may_use_kernels("torch", maps) and may_use_kernels("auto", OnGpu)
        assert may_use_kernels("auto", maps) == (said not in (None, "0"))
    assert [check_impl(name) for name in ("auto", "triton", "torch")] == ["auto", "triton", "torch"]


@pytest.mark.parametrize("kernel, stride, padding", [(3, 2, 1), (2, 3, 0), (3, 1, 2)])
@pytest.mark.parametrize("gelu", [True, False])
def test_the_convolution_is_a_sum_over_its_window(kernel, stride, padding, gelu):
    torch.manual_seed(0)
    module = ConvDownsampler(3, 5, 4, kernel, stride, padding, gelu)
    maps, state = torch.randn(2, 7, 4, 3), module.state_dict()
    rows, cols = [(n + 2 * padding - kernel) // stride + 1 for n in (7, 4)]
    hidden = torch.zeros(2, rows, cols, 4) + state["conv.bias"]
    for i in range(rows):
        for j in range(cols):
            for a in range(kernel):
                for b in range(kernel):
                    y, x = stride * i + a - padding, stride * j + b - padding
                    if 0 <= y < 7 and 0 <= x < 4:
                        hidden[:, i, j] += maps[:, y, x] @ state["conv.weight"][:, :, a, b].T
    place = torch.randn(1, rows, cols, 4)
    act = exact_gelu if gelu else lambda x: x
    assert module.out_cells((7, 4)) == (rows, cols)
    expected = linear(act(hidden), state, "linear")
    torch.testing.assert_close(module(maps), expected, atol=1e-5, rtol=1e-4)
    expected = linear(act(hidden + place), state, "linear")
    torch.testing.assert_close(module(maps, place), expected, atol=1e-5, rtol=1e-4)


def test_sizes_that_a_projector_has_unless_told():
    conv = ConvDownsampler(3, 5)
    assert (conv.conv.kernel_size, conv.conv.stride, conv.conv.padding) == ((3, 3), (2, 2), (1, 1))
    assert conv.conv.out_channels == conv.linear.in_features == 5 and conv.impl == "auto"
    assert isinstance(conv.act, nn.GELU)
    assert conv.out_cells((7, 4)) == (4, 2)
    for kind in ("shuffle", "pool"):
        module = make_downsampler(kind, 3, 5)
        assert module.factor == 2 and module.mlp[0].out_features == 5
        assert module.out_cells((7, 4)) == (4, 2)
        assert make_downsampler(kind, 3, 5, hidden=9).mlp[0].out_features == 9
        assert make_downsampler(kind, 3, 5, factor=3).out_cells((7, 4)) == (3, 2)
    resampler = Resampler(3, 8)
    assert resampler.queries == (24, 24) and resampler.asked.shape == (576, 8)
    assert resampler.out_cells((7, 4)) == (24, 24)
    heads = [Resampler(3, n).attention.num_heads for n in (8, 128, 252, 256, 384)]
    assert heads == [1, 1, 1, 2, 3]
    assert Resampler(3, 8, heads=4).attention.num_heads == 4
    assert Resampler(3, 8, 16).attention.embed_dim == 16
    assert resampler.asked.std().item() == pytest.approx(0.02, rel=0.05)
    assert make_downsampler("mlp", 3, 5).out_cells([7, 4]) == (7, 4)


@pytest.mark.parametrize("factor", [2, 3])
def test_shuffled_cells_lie_in_raster_order_and_the_border_is_repeated(factor):
    torch.manual_seed(0)
    module, maps = ShuffleDownsampler(3, 5, 4, factor), torch.randn(2, 5, 4, 3)
    nn.init.normal_(module.norm.weight)
    nn.init.normal_(module.norm.bias)
    rows, cols = math.ceil(5 / factor), math.ceil(4 / factor)
    blocks = torch.zeros(2, rows, cols, factor * factor * 3)
    for i in range(rows):
        for j in range(cols):
            cells = [
                maps[:, min(i * factor + a, 4), min(j * factor + b, 3)]
                for a in range(factor)
                for b in range(factor)
            ]
            blocks[:, i, j] = torch.cat(cells, 1)
    centred = blocks - blocks.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    normed = normed * module.norm.weight + module.norm.bias
    place = torch.randn(1, rows, cols, 4)
    state = module.state_dict()
    torch.testing.assert_close(module(maps), mlp(normed, state), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(module(maps, place), mlp(normed, state, place), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("factor", [2, 3])
def test_a_pooled_cell_is_the_mean_of_the_cells_that_are_there(factor):
    torch.manual_seed(0)
    module, maps = PoolDownsampler(3, 5, 4, factor), torch.randn(2, 5, 4, 3)
    rows, cols = math.ceil(5 / factor), math.ceil(4 / factor)
    small = torch.zeros(2, rows, cols, 3)
    for i in range(rows):
        for j in range(cols):
            block = maps[:, i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]
            small[:, i, j] = block.flatten(1, 2).mean(1)
    place = torch.randn(1, rows, cols, 4)
    state = module.state_dict()
    torch.testing.assert_close(module(maps), mlp(small, state), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(module(maps, place), mlp(small, state, place), atol=1e-5, rtol=1e-4)


def test_sine_positions_have_waves_of_four_to_forty_thousand_cells_of_a_hundred_cell_side():
    # dim 8: frequencies 50 pi and 50 pi / 10,000 per side; x = 1/4 and 3/4, y = 1/2.
    # 50 pi / 4 = 12.5 pi (sine 1), 50 pi * 3/4 = 37.5 pi (sine -1), 50 pi / 2 = 25 pi (cosine -1)
    slow = 50 * math.pi / 10_000
    y = [0, math.sin(slow / 2), -1, math.cos(slow / 2)]
    expected = [
        [1, math.sin(slow / 4), 0, math.cos(slow / 4), *y],
        [-1, math.sin(slow * 3 / 4), 0, math.cos(slow * 3 / 4), *y],
    ]
    found = compute_sine_positions((1, 2), 8)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)
    # dim 12: the frequency in the middle is 100 times as slow; row by row, x innermost
    found = compute_sine_positions((2, 3), 12)
    assert found.shape == (6, 12)
    x, y = 5 / 6, 1 / 4
    assert found[2, 1].item() == pytest.approx(math.sin(50 * math.pi / 100 * x), abs=1e-4)
    assert found[2, 7].item() == pytest.approx(math.sin(50 * math.pi / 100 * y), abs=1e-4)
    assert found[3, 10].item() == pytest.approx(math.cos(50 * math.pi / 100 * 3 / 4), abs=1e-4)


def test_the_resampler_is_one_cross_attention_from_places_to_places():
    "Queries and keys carry sine positions, values do not; the result is normed and read out."
    torch.manual_seed(0)
    module, maps = Resampler(3, 5, 8, queries=(2, 3), heads=2), torch.randn(2, 4, 5, 3)
    for p in module.parameters():
        nn.init.normal_(p, std=0.7)
    place = torch.randn(1, 2, 3, 8)
    own = module.state_dict()

    def norm(x, name):
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * own[f"{name}.weight"] + own[f"{name}.bias"]

    def sines(rows, cols):
        found = torch.zeros(rows, cols, 8)
        for i in range(rows):
            for j in range(cols):
                for k, frequency in enumerate((50 * math.pi, 50 * math.pi / 10_000)):
                    for axis, at in enumerate(((j + 0.5) / cols, (i + 0.5) / rows)):
                        found[i, j, 4 * axis + k] = math.sin(frequency * at)
                        found[i, j, 4 * axis + 2 + k] = math.cos(frequency * at)
        return found.flatten(0, 1)

    def split(x):  # [B, n, 8] -> [B, 2 heads, n, 4]
        return x.unflatten(-1, (2, 4)).transpose(1, 2)

    w, b = (own[f"attention.in_proj_{name}"].chunk(3) for name in ("weight", "bias"))
    told = norm(linear(maps.flatten(1, 2), own, "keys"), "norm_kv")
    keys = told + sines(4, 5)
    for at in (None, place):
        asked = norm(own["asked"], "norm_q") + sines(2, 3)
        if at is not None:
            asked = asked + at.flatten(1, 2)
        asked = asked.expand(2, -1, -1)
        q, k, v = (split(x @ w[i].T + b[i]) for i, x in enumerate((asked, keys, told)))
        shares = (q @ k.transpose(-1, -2) / 2).softmax(-1)  # sqrt(4) = 2
        found = linear((shares @ v).transpose(1, 2).flatten(2), own, "attention.out_proj")
        expected = linear(norm(found, "norm"), own, "linear").unflatten(1, (2, 3))
        torch.testing.assert_close(module(maps, at), expected, atol=2e-3, rtol=2e-3)


def test_an_unknown_projector_is_refused():
    with pytest.raises(ValueError, match="projector: found 'perceiver'"):
        make_downsampler("perceiver", 3, 5)


def test_projectors_are_counted_by_hand():
    # 448 pixels are 32 x 32 cells; a multiplication and an addition are two operations
    conv = 2 * 256 * (9 * 1024 * 5120 + 5120 * 5120) / 1e9
    mlp = 2 * 1024 * (1024 * 5120 + 5120 * 5120) / 1e9
    pool = 2 * 256 * (1024 * 5120 + 5120 * 5120) / 1e9
    for kind, tokens, gflop in (("conv", 256, conv), ("mlp", 1024, mlp), ("pool", 256, pool)):
        found = _count_projector(kind, 448)
        assert (found["kind"], found["side"], found["tokens"]) == (kind, 448, tokens)
        assert found["gflop"] == pytest.approx(gflop)
    assert _count_projector("mlp", 70, 3, 8)["parameters"] == 3 * 8 + 8 + 8 * 8 + 8
    assert _count_projector("mlp", 83, 3, 8)["tokens"] == 25
    assert _PROJECTOR_SIDES == (448, 700, 1022)


def test_a_projector_is_timed_by_its_best_run_and_by_the_memory_of_its_work():
    times = iter([0, 3, 10, 12, 20, 24])
    found = _time_projector("mlp", 70, 3, 8, 3, lambda: next(times))
    assert found["ms"] == 2000
    # 25 cells: the hidden layer, its GELU and the result, 8 numbers of 4 bytes each
    assert 3 * 25 * 8 * 4 <= found["mb"] * 2**20 < 4 * 25 * 8 * 4
    times = iter([0, 3, 10, 12])
    assert _time_projector("mlp", 70, 3, 8, clock=lambda: next(times))["ms"] == 2000


def test_the_table_of_projectors_names_its_columns_and_units():
    row = dict(kind="conv", side=448, tokens=256, parameters=73_400_000, gflop=37.58, ms=123, mb=45)
    head, line = format_projector_bench([row]).splitlines()
    assert head.split() == "projector image tokens weights GFLOP time memory".split()
    assert line.split() == "conv 448 256 73.4 M 37.6 123 ms 45 MB".split()


def test_every_layer_of_a_projector_has_its_weights():
    def shapes(module):
        return {n: tuple(p.shape) for n, p in module.named_parameters()}

    def mlp_of(n):
        return {"0.weight": (7, n), "0.bias": (7,), "2.weight": (5, 7), "2.bias": (5,)}

    def inside(n):
        return {f"mlp.{k}": v for k, v in mlp_of(n).items()}

    assert shapes(make_downsampler("mlp", 3, 5, hidden=7)) == mlp_of(3)
    assert shapes(PoolDownsampler(3, 5, 7)) == inside(3)
    norm = {"norm.weight": (27,), "norm.bias": (27,)}
    assert shapes(ShuffleDownsampler(3, 5, 7, 3)) == norm | inside(27)
    assert shapes(ConvDownsampler(3, 5, 7)) == {
        "conv.weight": (7, 3, 3, 3),
        "conv.bias": (7,),
        "linear.weight": (5, 7),
        "linear.bias": (5,),
    }
    assert shapes(Resampler(3, 5, 8, (2, 3))) == {
        "asked": (6, 8),
        "keys.weight": (8, 3),
        "keys.bias": (8,),
        **{
            f"{n}.{kind}": (8,)
            for n in ("norm_q", "norm_kv", "norm")
            for kind in ("weight", "bias")
        },
        "attention.in_proj_weight": (24, 8),
        "attention.in_proj_bias": (24,),
        "attention.out_proj.weight": (8, 8),
        "attention.out_proj.bias": (8,),
        "linear.weight": (5, 8),
        "linear.bias": (5,),
    }
    norms = [
        m for k in DOWNSAMPLER_CLASSES for m in built(k).modules() if isinstance(m, nn.LayerNorm)
    ]
    assert len(norms) == 4 and {m.eps for m in norms} == {1e-5}


@pytest.fixture
def kernel_calls(monkeypatch):
    "What the kernels are asked for, without the tensors, where the environment asks for them."

    calls = []

    def conv(maps, weight, bias, gelu, impl):
        calls.append((gelu, impl))
        return kernels_module.conv_gelu_torch(maps, weight, bias, gelu)

    def shuffle(maps, weight, bias, k, eps, impl):
        calls.append((k, eps, impl))
        return kernels_module.shuffle_norm_torch(maps, weight, bias, k, eps)

    monkeypatch.setattr(kernels_module, "conv_gelu", conv)
    monkeypatch.setattr(kernels_module, "shuffle_norm", shuffle)
    monkeypatch.setenv("FERRETLITE_TRITON", "1")
    return calls


def test_the_kernels_are_asked_for_what_the_projector_is(kernel_calls):
    torch.manual_seed(0)
    maps, place = torch.randn(2, 7, 4, 3), torch.randn(1, 4, 2, 5)
    for options, at, expected in (
        ({}, None, [(True, "auto")]),
        ({}, place, [(False, "auto")]),  # a place joins before the GELU
        (dict(gelu=False), None, [(False, "auto")]),
        (dict(impl="triton"), None, [(True, "triton")]),
        (dict(impl="torch"), None, []),
        (dict(padding=0), None, []),  # they have one size alone
        (dict(kernel=5), None, []),
        (dict(stride=1), None, []),
    ):
        kernel_calls.clear()
        module = ConvDownsampler(3, 5, **options)
        found = module(maps, at)
        assert kernel_calls == expected
        hidden = module.conv(maps.movedim(-1, 1)).movedim(1, -1)
        hidden = hidden if at is None else hidden + at
        expected = module.linear(module.act(hidden))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    for options, expected in (
        ({}, [(2, 1e-5, "auto")]),
        (dict(factor=3, impl="triton"), [(3, 1e-5, "triton")]),
        (dict(impl="torch"), []),
    ):
        kernel_calls.clear()
        module = ShuffleDownsampler(3, 5, **options)
        place = torch.randn(1, *module.out_cells((7, 4)), 5)
        found = module(maps, place)
        assert kernel_calls == expected
        module.impl = "torch"
        torch.testing.assert_close(found, module(maps, place), atol=1e-6, rtol=1e-5)


def test_kernels_by_name_have_one_size_alone():
    ConvDownsampler(3, 5, impl="triton")
    for options in (dict(kernel=5), dict(stride=1), dict(padding=0)):
        ConvDownsampler(3, 5, **options)
        with pytest.raises(ValueError, match="expected 3, 2, 1"):
            ConvDownsampler(3, 5, impl="triton", **options)


def test_the_bench_of_projectors_hands_on_widths_and_options():
    times = iter(range(100))
    rows = bench_projectors((28,), 8, 16, n=3, clock=lambda: next(times))
    assert next(times) == 2 * 3 * len(DOWNSAMPLER_CLASSES)
    for found in rows:
        alone = _count_projector(found["kind"], 28, 8, 16)
        assert found["parameters"] == alone["parameters"] and found["gflop"] == alone["gflop"]
        assert found["ms"] == 1000


def test_the_griffon_preset_has_the_choices_of_its_paper():
    """Equation 1 and section 3.2: bicubic positions, one convolution with GELU, two crop layers."""
    from ferretlite.model.towers import paper_config

    config = paper_config("griffon-v2-13b")
    assert config.projector == "conv" and config.projector_options is None
    assert config.position_mode == "bicubic" and config.crop_linear is False
