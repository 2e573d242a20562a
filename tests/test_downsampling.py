"""Projectors that make few tokens of many."""
import math

import pytest
import torch
from torch import nn

from ferretlite.downsampling import DOWNSAMPLERS, ConvDownsampler, Resampler, bench_projectors, count_projector, make_downsampler


def built(kind, hidden=None): return make_downsampler(kind, 8, 16, hidden=hidden, **(dict(queries=(3, 5)) if kind == "resampler" else {}))


@pytest.mark.parametrize("kind", DOWNSAMPLERS)
@pytest.mark.parametrize("cells", [(73, 73), (1, 1), (2, 9), (11, 6), (1, 7)])
def test_what_comes_out_is_as_large_as_promised(kind, cells):
    torch.manual_seed(0)
    projector = built(kind)
    out = projector(torch.randn(2, *cells, 8))
    assert out.shape == (2, *projector.out_cells(cells), 16) and out.isfinite().all()


@pytest.mark.parametrize("kind", DOWNSAMPLERS)
def test_samples_of_a_batch_do_not_meet(kind):
    torch.manual_seed(0)
    projector, maps = built(kind).eval(), torch.randn(3, 9, 8, 8)
    together = projector(maps)
    for i in range(3): assert torch.allclose(projector(maps[i:i + 1])[0], together[i], atol=1e-5)


@pytest.mark.parametrize("kind", DOWNSAMPLERS)
def test_every_weight_learns_and_a_place_is_heard(kind):
    torch.manual_seed(0)
    projector, maps = built(kind, hidden=12), torch.randn(1, 6, 7, 8)
    place = torch.randn(1, *projector.out_cells((6, 7)), 12)
    out = projector(maps, place)
    assert not torch.allclose(out, projector(maps), atol=1e-3)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in projector.named_parameters() if n != "attention.in_proj_bias")


@pytest.mark.parametrize("kind", ("conv", "shuffle", "pool"))
def test_a_token_hears_its_own_cells_and_no_distant_ones(kind):
    torch.manual_seed(0)
    projector, maps = built(kind).eval(), torch.zeros(1, 12, 10, 8)
    before, changed = projector(maps), maps.clone()
    changed[0, 6, 4] = 1.0 # in the middle of the convolution's window, and in the block, of row 3, column 2
    assert ((projector(changed) - before).abs().sum(-1)[0] > 1e-6).nonzero().tolist() == [[3, 2]]
    changed[0, 7, 5] = 1.0 # windows overlap here, blocks do not
    heard = ((projector(changed) - before).abs().sum(-1)[0] > 1e-6).nonzero().tolist()
    assert heard == ([[3, 2], [3, 3], [4, 2], [4, 3]] if kind == "conv" else [[3, 2]])


def test_the_published_numbers():
    sizes = {side: count_projector("conv", side) for side in (448, 700, 1022)}
    assert [s["tokens"] for s in sizes.values()] == [256, 625, 1369]
    assert all(s["parameters"] == 9 * 1024 * 5120 + 5120 + 5120 * 5120 + 5120 for s in sizes.values())
    assert ConvDownsampler(4, 4, padding=0).out_cells((73, 73)) == (36, 36)
    assert math.prod(make_downsampler("mlp", 4, 4).out_cells((73, 73))) == 5329


def test_the_activation_is_the_exact_gelu_or_none():
    torch.manual_seed(0)
    x = torch.randn(1, 5, 5, 4)
    with_gelu, without = ConvDownsampler(4, 6), ConvDownsampler(4, 6, gelu=False)
    without.load_state_dict(with_gelu.state_dict())
    conv = with_gelu.conv(x.movedim(-1, 1)).movedim(1, -1)
    assert torch.allclose(with_gelu(x), with_gelu.linear(conv * .5 * (1 + torch.erf(conv / 2 ** .5))), atol=1e-6)
    assert torch.allclose(without(x), with_gelu.linear(conv), atol=1e-6)


def test_queries_do_not_begin_as_zeros(): assert Resampler(4, 8).asked.std() > .01


def test_half_precision_stays_half():
    for kind in DOWNSAMPLERS: assert built(kind).bfloat16()(torch.randn(1, 5, 5, 8).bfloat16()).dtype == torch.bfloat16


def test_the_bench_reports_every_projector_at_every_size():
    rows = bench_projectors((56, 70), 8, 16)
    assert [(r["kind"], r["side"]) for r in rows] == [(k, s) for k in DOWNSAMPLERS for s in (56, 70)]
    assert all(r["ms"] > 0 and r["mb"] > 0 and r["gflop"] > 0 for r in rows)
