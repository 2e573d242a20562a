"""Which kernel runs with which tile, and the fallbacks, against values that are written here."""

import json
import math

import pytest
import torch
from torch import nn

from ferretlite.vision import conv_kernels as kernels
from ferretlite.vision import kernel_choice
from ferretlite.vision import kernel_operators as kernels_module
from ferretlite.vision.conv_kernels import (
    FLOAT_TILE,
    KERNEL_TILES,
    Tile,
    compute_conv_cells,
    list_compile_constants,
)
from ferretlite.vision.kernel_choice import (
    choose_tile,
    find_nearest_row,
    resolve_implementation,
    should_use_triton,
)
from ferretlite.vision.kernel_operators import (
    check_conv,
    compute_shuffle_cells,
    conv_gelu,
    conv_gelu_torch,
    shuffle_norm,
    shuffle_norm_torch,
)

needs_triton = pytest.mark.triton
BRAIN = torch.bfloat16


class OnGpu:
    "As much of a CUDA tensor as the choice looks at."

    is_cuda, is_meta, device = True, False, torch.device("cuda:0")

    def __init__(self, dtype=BRAIN):
        self.dtype = dtype


def row(op="conv", shape=(400, 64, 128), dtype="bfloat16", training=False, right=True, **rest):
    found = dict(op=op, shape=list(shape), dtype=dtype, training=training, right=right)
    return found | dict(ms={}, cpu={}, tiles={}) | rest


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    "A function that makes rows the record of this machine's GPU."
    monkeypatch.delenv("FERRETLITE_TRITON", raising=False)
    monkeypatch.setattr(kernel_choice, "triton", object())
    names = iter(range(100))

    def write(*rows):
        path = tmp_path / f"{next(names)}.json"
        path.write_text(json.dumps(dict(rows=rows)))
        monkeypatch.setenv("FERRETLITE_KERNELS", str(path))

    return write


# -- constants


def test_constants_of_the_kernels():
    assert kernels_module.MAX_PROGRAM_NUMBERS == 4096 and kernel_choice.IMPLEMENTATIONS == (
        "auto",
        "triton",
        "torch",
    )
    assert kernels.KERNEL_DTYPES == (torch.float32, torch.float16, torch.bfloat16)
    assert FLOAT_TILE == (128, 64, 16, 8, 2, 1, True, 80)
    assert Tile(1, 2, 3, 4, 5) == (1, 2, 3, 4, 5, 1, True, 80)
    assert Tile._fields == ("rows", "cols", "depth", "warps", "stages", "span", "fused", "since")


def test_the_tiles_that_were_measured():
    assert KERNEL_TILES == {
        "forward": (
            (128, 128, 64, 8, 3, 9, True, 80),
            (128, 128, 64, 8, 3, 1, True, 80),
            (64, 256, 64, 8, 3, 9, True, 80),
            (64, 128, 64, 4, 3, 9, True, 80),
            (128, 256, 64, 8, 3, 9, False, 90),
            (128, 256, 64, 8, 4, 9, False, 90),
        ),
        "dx": (
            (128, 128, 64, 8, 3, 1, True, 80),
            (128, 256, 64, 8, 3, 1, True, 80),
            (128, 256, 64, 8, 4, 1, True, 90),
            (64, 128, 64, 4, 3, 1, True, 80),
        ),
        "dw": (
            (128, 128, 64, 8, 3, 1, True, 80),
            (128, 256, 64, 8, 3, 1, True, 90),
            (128, 256, 32, 8, 4, 1, True, 80),
        ),
    }


def test_what_is_fixed_when_a_kernel_is_compiled():
    fixed = list_compile_constants("forward", Tile(16, 32, 64, 4, 3, 9))
    assert fixed == dict(
        ROWS=16, COLS=32, DEPTH=64, SPAN=9, EVEN=True, GELU=True, SAVE=True, UPCAST=False
    )
    apart = list_compile_constants("forward", Tile(16, 32, 64, 4, 3, 1, fused=False))
    assert not apart["GELU"] and not apart["SAVE"] and apart["SPAN"] == 1
    assert list_compile_constants("forward", Tile(16, 32, 64, 4, 3), False)["SAVE"] is False


def test_sizes_of_what_comes_out():
    assert compute_conv_cells((73, 4)) == (37, 2) and compute_conv_cells((1, 6)) == (1, 3)
    assert compute_shuffle_cells((7, 9), 2) == (4, 5) and compute_shuffle_cells((7, 9), 3) == (3, 3)


# -- records


def test_the_record_is_that_of_the_gpu_by_number_unless_the_environment_names_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"NVIDIA L{i} (test)")
    monkeypatch.delenv("FERRETLITE_KERNELS", raising=False)
    found = kernel_choice.find_record(torch.device("cuda:7"))
    assert found == kernel_choice.KERNEL_RECORDS / "nvidia-l7-test.json"
    assert kernel_choice.find_record(torch.device("cuda:8")).name == "nvidia-l8-test.json"
    assert kernel_choice.find_record(torch.device("cpu")) is None
    monkeypatch.setenv("FERRETLITE_KERNELS", "mine.json")
    assert kernel_choice.find_record(torch.device("cuda:7")) == "mine.json"
    assert kernel_choice.find_record(torch.device("cpu")) is None
    assert kernel_choice.KERNEL_RECORDS.parts[-3:] == ("ferretlite", "records", "kernels")


def test_a_measurement_counts_up_to_a_factor_of_two_in_each_size():
    record = dict(rows=[row()])

    def find(*shape):
        return find_nearest_row(record, "conv", BRAIN, False, shape) is not None

    assert find(800, 64, 128) and find(200, 64, 128) and find(800, 32, 256)
    assert not find(801, 64, 128) and not find(199, 64, 128)
    assert not find(400, 129, 128) and not find(400, 64, 63)


def test_the_nearest_measurement_is_that_of_the_smallest_largest_factor():
    # factors 1.5 in each of three sizes, and 1.9 in one: the largest decides, not the sum
    all_sizes, one_size = row(shape=(600, 96, 192)), row(shape=(760, 64, 128))
    for rows in ([all_sizes, one_size], [one_size, all_sizes]):
        assert find_nearest_row(dict(rows=rows), "conv", BRAIN, False, (400, 64, 128)) is all_sizes


def test_a_measurement_of_other_work_does_not_count():
    shape = (400, 64, 128)
    for other in (
        row("shuffle"),
        row(dtype="float16"),
        row(training=True),
        row(right=False),
    ):
        assert find_nearest_row(dict(rows=[other]), "conv", BRAIN, False, shape) is None
        mine = row()
        assert find_nearest_row(dict(rows=[other, mine]), "conv", BRAIN, False, shape) is mine
    assert find_nearest_row({}, "conv", BRAIN, False, shape) is None


# -- the choice


def test_what_the_environment_forces(monkeypatch):
    for said, auto in ((None, "auto"), ("", "auto"), ("0", "torch"), ("1", "triton")):
        monkeypatch.delenv("FERRETLITE_TRITON", raising=False)
        if said is not None:
            monkeypatch.setenv("FERRETLITE_TRITON", said)
        assert [resolve_implementation(i) for i in ("auto", "triton", "torch")] == [
            auto,
            "triton",
            "torch",
        ]
    monkeypatch.setenv("FERRETLITE_TRITON", "2")
    assert resolve_implementation("triton") == "triton"
    with pytest.raises(ValueError, match="expected 0 or 1"):
        resolve_implementation("auto")
    with pytest.raises(ValueError, match="expected one of auto, triton, torch"):
        resolve_implementation("")


def chosen(x=None, impl="auto", op="conv", training=False, shape=(400, 64, 128)):
    return should_use_triton(
        impl, op, OnGpu() if x is None else x, training, shape, "ours", "theirs"
    )


SHORT = dict(ours=0.1, theirs=0.1)


@pytest.mark.parametrize(
    "ms, cpu, expected",
    [
        (dict(ours=2.0, theirs=2.1), SHORT, True),
        (dict(ours=2.1, theirs=2.0), SHORT, False),
        (dict(ours=2.0, theirs=2.0), SHORT, False),  # a tie goes to PyTorch
        (dict(ours=2.0, theirs=9.0), {}, False),  # the CPU's times are unknown
        (dict(ours=2.0, theirs=9.0), dict(ours=0.1), False),  # one of them is
        (dict(ours=2.0, theirs=9.0), dict(theirs=0.1), False),
        (dict(ours=1.0, theirs=2.0), dict(ours=3.0, theirs=1.0), False),  # the later counts
        (dict(ours=1.0, theirs=2.0), dict(ours=3.0, theirs=4.0), True),
        (dict(ours=1.0), SHORT, False),  # the rival was not measured
        (dict(theirs=1.0), {}, False),  # ours was not measured
        (dict(theirs=1.0), dict(ours=0.1, theirs=1.0), False),  # nor does Python's time alone count
    ],
)
def test_ours_is_chosen_where_both_clocks_have_it_faster(recorded, ms, cpu, expected):
    recorded(row(ms=ms, cpu=cpu))
    assert chosen() is expected
    assert chosen(training=True) is False and chosen(op="shuffle") is False
    assert chosen(shape=(4000, 64, 128)) is False and chosen(OnGpu(torch.float16)) is False


def test_the_shipped_record_is_older_than_cpu_times_and_chooses_nothing():
    """Its times may be those of the CPU, so no row may be followed, forward or in training."""
    shipped = sorted(kernel_choice.KERNEL_RECORDS.glob("*.json"))
    assert shipped
    for path in shipped:
        record = json.loads(path.read_text())
        for r in record["rows"]:
            rivals = set(r["ms"]) - {"triton"}
            assert not any(kernel_choice._is_faster(r, "triton", rival) for rival in rivals)


def test_auto_stays_with_pytorch_where_our_kernels_do_not_run(recorded, monkeypatch):
    known = dict(ms=dict(ours=2.0, theirs=3.0), cpu=SHORT)
    recorded(row(**known), row(dtype="float64", **known))
    assert chosen() and not chosen(torch.zeros(1, dtype=BRAIN))
    assert not chosen(OnGpu(torch.float64))
    assert chosen(impl="triton") and not chosen(impl="torch")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not chosen() and chosen(impl="triton")
    monkeypatch.undo()
    monkeypatch.setattr(kernel_choice, "triton", None)
    assert not chosen()
    with pytest.raises(ImportError, match="needs Triton"):
        chosen(impl="triton")
    assert not chosen(impl="torch")


def test_what_our_kernels_cannot_do_is_refused(monkeypatch):
    monkeypatch.setattr(kernel_choice, "triton", object())
    monkeypatch.setattr(kernel_choice, "is_interpreted", lambda: False)
    for dtype in kernels.KERNEL_DTYPES:
        assert chosen(OnGpu(dtype), "triton") and chosen(torch.zeros(1, device="meta"), "triton")
    with pytest.raises(ValueError, match="expected float32, float16 or bfloat16"):
        chosen(OnGpu(torch.float64), "triton")
    with pytest.raises(ValueError, match="map: found it on cpu"):
        chosen(torch.zeros(1), "triton")
    monkeypatch.setattr(kernel_choice, "is_interpreted", lambda: True)
    assert chosen(torch.zeros(1), "triton")


def test_a_tile_is_what_was_just_tried_or_measured_or_the_first(recorded):
    measured = {"dx": [1, 2, 3, 4, 5, 1, True, 80]}
    other = {"forward": [9, 8, 7, 6, 5, 4, False, 90]}
    recorded(row(training=True, tiles=measured), row(tiles=other))
    size = (400, 64, 128)

    def pick(kernel, training, x=None):
        return choose_tile(kernel, x or OnGpu(), training, size)

    assert pick("dx", True) == Tile(1, 2, 3, 4, 5)
    assert pick("forward", False) == Tile(9, 8, 7, 6, 5, 4, False, 90)
    assert pick("dw", True) == KERNEL_TILES["dw"][0] and pick("dx", False) == KERNEL_TILES["dx"][0]
    assert pick("dx", True, OnGpu(torch.float16)) == KERNEL_TILES["dx"][0]
    assert pick("dx", True, OnGpu(torch.float32)) == FLOAT_TILE
    assert choose_tile("dx", OnGpu(), True, (4000, 64, 128)) == KERNEL_TILES["dx"][0]
    kernel_choice.TRIED_TILES["dx", True, 400, 64, 128, BRAIN] = Tile(6, 6, 6, 6, 6)
    try:
        assert pick("dx", True) == Tile(6, 6, 6, 6, 6)
        assert (
            pick("dx", False) == KERNEL_TILES["dx"][0] and pick("dw", True) == KERNEL_TILES["dw"][0]
        )
    finally:
        kernel_choice.TRIED_TILES.clear()


@pytest.fixture
def asked(monkeypatch):
    "What `should_use_triton` was asked, one tuple a call; it answers no."
    calls = []

    def spy(impl, op, x, training, shape, ours, theirs):
        calls.append((impl, op, training, tuple(shape), ours, theirs))
        return False

    monkeypatch.setattr(kernels_module, "should_use_triton", spy)
    return calls


def test_the_convolution_asks_for_its_own_size_layout_and_pass(asked, monkeypatch):
    maps, weight, bias = torch.randn(2, 7, 4, 3), torch.randn(5, 3, 3, 3), torch.randn(5)
    conv_gelu(maps, weight, bias)
    packed = weight.contiguous(memory_format=torch.channels_last)
    conv_gelu(maps, packed, bias, impl="torch")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    conv_gelu(maps, packed, bias)
    size = (2 * 4 * 2, 3, 5)  # output tokens, channels in, channels out
    assert asked == [
        ("auto", "conv", False, size, "triton_nchw", "eager_nchw"),
        ("torch", "conv", False, size, "triton", "eager_channels_last"),
        ("auto", "conv", False, size, "triton", "eager_benchmark"),
    ]
    asked.clear()
    for leaf in (maps, weight, bias):
        conv_gelu(*(t.detach().requires_grad_(t is leaf) for t in (maps, weight, bias)))
    with torch.no_grad():
        conv_gelu(maps.requires_grad_(), weight, bias)
    assert [call[2] for call in asked] == [True, True, True, False]


def test_the_shuffle_asks_for_its_own_size_and_pass(asked):
    maps, weight, bias = torch.randn(2, 7, 4, 3), torch.randn(27), torch.randn(27)
    shuffle_norm(maps, weight, bias, 3)
    assert asked == [("auto", "shuffle", False, (2 * 3 * 2, 3, 27), "triton", "eager")]
    asked.clear()
    for leaf in (maps, weight, bias):
        shuffle_norm(*(t.detach().requires_grad_(t is leaf) for t in (maps, weight, bias)), 3)
    with torch.no_grad():
        shuffle_norm(maps.requires_grad_(), weight, bias, 3)
    assert [call[2] for call in asked] == [True, True, True, False]


@pytest.mark.parametrize(
    "channels, k, fits", [(1024, 2, 1), (1025, 2, 0), (256, 3, 1), (257, 3, 0)]
)
def test_a_program_holds_4096_numbers_each_side_rounded_up_to_a_power_of_two(
    asked, monkeypatch, channels, k, fits
):
    monkeypatch.delenv("FERRETLITE_TRITON", raising=False)
    size = k * k * channels
    tensors = torch.zeros(1, 1, 1, channels), torch.zeros(size), torch.zeros(size)
    shuffle_norm(*tensors, k)
    shuffle_norm(*tensors, k, impl="triton")
    assert [call[0] for call in asked] == ["auto" if fits else "torch", "triton"]
    if not fits:
        monkeypatch.setattr(kernels_module, "should_use_triton", lambda *_: True)
        with pytest.raises(ValueError, match="expected at most 4096 numbers"):
            shuffle_norm(*tensors, k, impl="triton")


# -- the fallbacks


@pytest.mark.parametrize("gelu", [True, False])
def test_the_fallback_convolution_is_pytorchs_module_with_the_exact_gelu(gelu):
    torch.manual_seed(0)
    conv, maps = nn.Conv2d(3, 5, 3, 2, 1), torch.randn(2, 7, 4, 3)
    expected = conv(maps.movedim(-1, 1)).movedim(1, -1)
    if gelu:
        expected = expected * 0.5 * (1 + torch.erf(expected / math.sqrt(2)))
    for f in (conv_gelu_torch, conv_gelu):
        found = f(maps, conv.weight, conv.bias, gelu)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert gelu == torch.equal(conv_gelu_torch(maps, conv.weight, conv.bias), found)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("size, eps", [(1, 1e-5), (1, 0.5), (1e-3, 1e-5)])
def test_the_fallback_shuffle_lays_cells_behind_each_other_and_norms_them(k, size, eps):
    torch.manual_seed(0)
    maps, (weight, bias) = size * torch.randn(2, 5, 4, 3), torch.randn(2, k * k * 3)
    rows, cols = math.ceil(5 / k), math.ceil(4 / k)
    expected = torch.zeros(2, rows, cols, k * k * 3)
    for i in range(rows):
        for j in range(cols):
            cells = [
                maps[:, min(i * k + a, 4), min(j * k + b, 3)] for a in range(k) for b in range(k)
            ]
            joined = torch.cat(cells, 1)
            centred = joined - joined.mean(1, keepdim=True)
            scale = (centred.square().mean(1, keepdim=True) + eps).sqrt()
            expected[:, i, j] = centred / scale * weight + bias
    for f in (shuffle_norm_torch, shuffle_norm):
        found = f(maps, weight, bias, k, eps)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        if eps == 1e-5:  # as it is unless told
            assert torch.equal(f(maps, weight, bias, k), found)
            if k == 2:
                assert torch.equal(f(maps, weight, bias), found)


# -- what does not fit together


def test_three_tensors_must_make_a_convolution():
    good = torch.zeros(1, 4, 5, 3), torch.zeros(2, 3, 3, 3), torch.zeros(2)
    check_conv(*good)
    for place, other in (
        (0, torch.zeros(4, 5, 3)),
        (0, torch.zeros(2, 1, 4, 5, 3)),
        (0, torch.zeros(1, 4, 5, 4)),
        (1, torch.zeros(2, 3, 3, 2)),
        (1, torch.zeros(2, 3, 2, 3)),
        (2, torch.zeros(3)),
        (2, torch.zeros(1)),
        (2, torch.zeros(2, 1)),
    ):
        tensors = [other if i == place else t for i, t in enumerate(good)]
        with pytest.raises(ValueError, match="expected .B, H, W, C., .N, C, 3, 3., .N."):
            check_conv(*tensors)
    for place in range(3):
        with pytest.raises(ValueError, match="expected one type"):
            check_conv(*(t.double() if i == place else t for i, t in enumerate(good)))


def test_indices_must_fit_into_32_bits():
    def empty(*shape):
        return torch.empty(shape, device="meta")

    weight, bias = empty(2, 16, 3, 3), empty(2)
    check_conv(empty(1, 2**13 - 1, 2**13, 16), weight, bias)
    check_conv(empty(1, 1, 2**26 - 1, 16), weight, bias)
    for maps in (empty(1, 2**13, 2**13, 16), empty(1, 1, 2**26, 16)):
        with pytest.raises(ValueError, match="less than 2..31 numbers"):
            check_conv(maps, weight, bias)
    for channels, fits in ((2**31 // 9 // 16, True), (2**31 // 9 // 16 + 1, False)):
        tensors = empty(1, 2, 2, 16), empty(channels, 16, 3, 3), empty(channels)
        if fits:
            check_conv(*tensors)
        else:
            with pytest.raises(ValueError, match="less than 2..31 numbers"):
                check_conv(*tensors)


@needs_triton
def test_three_tensors_must_make_a_norm():
    with torch.device("meta"):
        maps, weight = torch.zeros(1, 4, 5, 3), torch.zeros(12)
        assert shuffle_norm(maps, weight, weight, impl="triton").shape == (1, 2, 3, 12)
        wrong = [(maps, torch.zeros(n), torch.zeros(n)) for n in (11, 13)]
        for tensors in (*wrong, (maps, weight, torch.zeros(11)), (maps, weight, torch.zeros(13))):
            with pytest.raises(ValueError, match="expected .B, H, W, C., .2.2.C."):
                shuffle_norm(*tensors, impl="triton")


@needs_triton
def test_what_the_ops_say_about_their_results_without_computing_them():
    x = torch.empty(2, 5, 4, 6, device="meta", dtype=BRAIN)
    w, b = torch.empty(8, 3, 3, 6, device="meta", dtype=BRAIN), torch.empty(8, device="meta")
    for gelu, save, kept in ((1, 1, (2, 3, 2, 8)), (1, 0, (0,)), (0, 1, (0,))):
        y, z = kernels_module.conv_gelu_op(x, w, b, bool(gelu), bool(save))
        assert y.shape == (2, 3, 2, 8) and y.dtype == BRAIN and z.shape == kept
    dx, dw, db = kernels_module.conv_gelu_backward_op(y, x, w, z, False, [True, True, False])
    assert (dx.shape, dw.shape, db.shape) == (x.shape, w.shape, (0,))
    dx, dw, db = kernels_module.conv_gelu_backward_op(y, x, w, z, False, [False, True, True])
    assert (dx.shape, dw.shape, db.shape) == ((0,), w.shape, (8,))
    gain = torch.empty(54, device="meta")
    y, mean, rstd = kernels_module.shuffle_norm_op(x, gain, gain, 3, 1e-5)
    assert y.shape == (2, 2, 2, 54) and y.dtype == BRAIN
    assert mean.shape == rstd.shape == (8,) and mean.dtype == rstd.dtype == torch.float32
    dx, dw, db = kernels_module.shuffle_norm_backward_op(y, x, gain, mean, rstd, 3)
    assert dx.shape == x.shape and dw.shape == db.shape == (54,)
    assert dx.dtype == BRAIN and dw.dtype == torch.float32
