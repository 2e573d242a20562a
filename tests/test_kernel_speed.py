"""What a kernel must do at least, and how times become rows and tables; no GPU is needed."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from ferretlite.evaluation import kernel_speed
from ferretlite.evaluation.kernel_speed import (
    _bench_conv,
    _bench_shuffle,
    _compute_roof_ms,
    _compute_worst_error,
    _count_conv_work,
    _count_shuffle_work,
    _find_gpu_peak,
    _make_example_maps,
    _make_runner,
    _make_training_step,
    _measure_errors,
    _measure_ms,
    _pick_fastest_tile,
    _pick_fastest_tiles,
    _time_compiled,
    bench_kernels,
    format_kernel_table,
)
from ferretlite.vision.conv_kernels import KERNEL_TILES, Tile
from ferretlite.vision.kernel_choice import TRIED_TILES
from ferretlite.vision.kernel_operators import conv_gelu_torch, shuffle_norm_torch


class OnCpu(TorchFunctionMode):
    "Makes on the CPU what is asked for on a GPU."

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == "cuda":
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


# -- counted work


def test_the_peaks_of_the_data_sheets_and_the_sizes_of_the_bench():
    assert kernel_speed._GPU_PEAKS == {
        "GH200": (989, 4000),
        "H200": (989, 4800),
        "H100 PCIe": (756, 2000),
        "H100 NVL": (835, 3900),
        "H100": (989, 3350),
        "A100-SXM4-80GB": (312, 2039),
        "A100 80GB PCIe": (312, 1935),
        "A100": (312, 1555),
        "L40S": (362, 864),
        "L4": (121, 300),
        "A10": (125, 600),
        "RTX 4090": (165, 1008),
        "RTX 3090": (71, 936),
    }
    assert kernel_speed._BENCH_SIDES == (448, 700, 1022)
    assert kernel_speed._BENCH_BATCHES == (1, 8, 32) and kernel_speed._BENCH_WIDTHS == (4096, 5120)
    assert kernel_speed._COMPILED_SIZES == (
        ("conv", 1022, 1, 5120, False),
        ("conv", 448, 1, 5120, False),
        ("shuffle", 1022, 1, 4096, False),
        ("conv", 1022, 1, 5120, True),
        ("shuffle", 1022, 1, 4096, True),
        ("conv", 1022, 8, 5120, False),
    )


@pytest.mark.parametrize(
    "device, peak",
    [
        ("NVIDIA GH200 480GB", (989, 4000)),
        ("NVIDIA H200", (989, 4800)),
        ("NVIDIA H100 NVL", (835, 3900)),
        ("NVIDIA H100 PCIe", (756, 2000)),
        ("NVIDIA H100 80GB HBM3", (989, 3350)),
        ("NVIDIA A100-SXM4-80GB", (312, 2039)),
        ("NVIDIA A100 80GB PCIe", (312, 1935)),
        ("NVIDIA A100-PCIE-40GB", (312, 1555)),
        ("NVIDIA L40S", (362, 864)),
        ("NVIDIA L4", (121, 300)),
        ("NVIDIA A10", (125, 600)),
        ("Tesla V100", None),
    ],
)
def test_the_longer_name_of_a_gpu_is_found_first(device, peak):
    assert _find_gpu_peak(device) == peak


def test_the_roof_is_the_later_of_computing_and_moving():
    # 2e12 operations at 1 TFLOP/s take 2 s; 6e9 bytes at 2 GB/s take 3 s
    assert _compute_roof_ms(dict(flop=2e12, bytes=6e9), (1, 2)) == pytest.approx(3000)
    assert _compute_roof_ms(dict(flop=4e12, bytes=6e9), (1, 2)) == pytest.approx(4000)


def test_the_work_of_the_convolution_by_hand():
    # 70 pixels: 5 x 5 cells, 3 x 3 tokens; batch 2, 10 channels in, 7 out
    maps, weight, out = 2 * 25 * 10, 9 * 10 * 7, 2 * 9 * 7
    forward = _count_conv_work(70, 2, 7, 10)
    assert forward == dict(flop=2 * out * 90, bytes=2 * (maps + weight + out))
    # backward: the kept z; dy, z -> dz; dz, weight -> dx; dz, maps -> dw
    more = out + 3 * out + (out + weight + maps) + (out + maps + weight)
    training = _count_conv_work(70, 2, 7, 10, True)
    assert training == dict(flop=6 * out * 90, bytes=2 * (maps + weight + out + more))
    assert _count_conv_work(1022, 1, 5) == _count_conv_work(1022, 1, 5, 1024, False)


def test_the_work_of_the_shuffle_by_hand():
    # 70 pixels: 5 x 5 cells, 3 x 3 tokens of four cells; batch 2, 10 channels
    maps, out = 2 * 25 * 10, 2 * 9 * 4 * 10
    assert _count_shuffle_work(70, 2, 10) == dict(flop=0, bytes=2 * (maps + out))
    # backward reads dy and the maps and writes dx
    training = _count_shuffle_work(70, 2, 10, True)
    assert training == dict(flop=0, bytes=2 * (maps + out + 2 * maps + out))
    assert _count_shuffle_work(448, 3) == _count_shuffle_work(448, 3, 1024, False)


# -- the clock


@pytest.fixture
def clock(monkeypatch):
    "A GPU and a CPU whose times are written here; returns what happened, in order."
    happened = []
    cpu_now, gpu_now = [0.0], [0.0]

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            happened.append("mark")
            self.at = gpu_now[0]

        def elapsed_time(self, other):
            return other.at - self.at

    class Wipe:
        def zero_(self):
            happened.append("wipe")
            gpu_now[0] += 1000

    def empty(n, dtype, device):
        assert (n, dtype, device) == (2**28, torch.int8, "cuda")
        return Wipe()

    def work_of(cpu_seconds, gpu_ms):
        cpu_seconds, gpu_ms = iter(cpu_seconds), iter(gpu_ms)

        def work():
            happened.append("work")
            cpu_now[0] += next(cpu_seconds)
            gpu_now[0] += next(gpu_ms)

        return work

    monkeypatch.setattr(torch.cuda, "synchronize", lambda: happened.append("wait"))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(kernel_speed.time, "perf_counter", lambda: cpu_now[0])
    return happened, work_of


def test_times_are_medians_behind_a_wiped_cache(clock):
    happened, work_of = clock
    # two runs to warm up, five for the CPU's clock (median .1 ms), five for the GPU's (median 3)
    cpu = [9, 9, 0.01, 0.5, 0.1, 0.4, 0.05] + [1] * 5
    work = work_of([c / 1000 for c in cpu], [99] * 7 + [5, 1, 4, 2, 3])
    gpu, cpu = _measure_ms(work, 0)
    assert gpu == pytest.approx(3) and cpu == pytest.approx(0.1)
    assert happened[:2] == ["work", "work"] and happened[2:12] == ["wait", "work"] * 5
    # four wipes and one for each whole .03 ms that the CPU needs
    assert happened[12] == "wait"
    assert happened[13:-1] == (["wipe"] * 7 + ["mark", "work", "mark"]) * 5
    assert happened[-1] == "wait"


@pytest.mark.parametrize(
    "seconds, took, n", [(0.12, 0.01, 12), (0.12, 1, 5), (0.12, 0.001, 40), (0.06, 0.01, 6)]
)
def test_more_runs_are_timed_of_quick_work(clock, seconds, took, n):
    happened, work_of = clock
    took *= 0.999  # so that the division does not fall just short
    _measure_ms(work_of([took] * 60, [1] * 60), seconds)
    assert happened.count("mark") == 2 * n


# -- right or wrong


def test_the_worst_error_is_the_largest_relative_to_the_largest_number():
    true = [torch.tensor([10.0, -20.0]), torch.tensor([1.0, 2.0])]
    found = [torch.tensor([11.0, -20.0]), torch.tensor([1.0, 1.8]).bfloat16()]
    assert _compute_worst_error(found, true) == pytest.approx(0.1, abs=3e-3)
    assert _compute_worst_error(found[:1], true[:1]) == pytest.approx(0.05)


def test_a_step_of_training_runs_forward_and_backward():
    a, b = torch.tensor([2.0, 3.0]), torch.tensor([5.0, 7.0])
    leaves = [t.clone().requires_grad_() for t in (a, b)]
    step = _make_training_step(lambda x, y: x * y, leaves, torch.tensor([1.0, 10.0]))
    assert [g.tolist() for g in step()] == [[5, 70], [2, 30]]
    assert _make_runner(lambda x, y: x + y, (a, b))().tolist() == [7, 10]
    found = _make_runner(lambda x, y: x * y, (a, b), torch.tensor([1.0, 10.0]))()
    assert [g.tolist() for g in found] == [[5, 70], [2, 30]]


def test_errors_are_those_of_the_result_and_of_the_gradients():
    "The wrong way is off by a tenth in its result alone, or in its gradients alone."

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.save_for_backward(x, y)
            return x * y

        @staticmethod
        def backward(ctx, dy):
            x, y = ctx.saved_tensors
            return dy * y * 1.1, dy * x

    a, b = torch.tensor([2.0, 3.0]), torch.tensor([5.0, 7.0])
    ways = dict(
        right=lambda x, y: x * y,
        shifted=lambda x, y: x * y + torch.tensor([0.0, 2.1]),
        slope=Wrong.apply,
    )
    kept = torch.backends.cudnn.allow_tf32
    found = _measure_errors(ways, (a, b), torch.tensor([1.0, 1.0]), lambda x, y: x * y)
    assert found["right"] == [0, 0]
    assert found["shifted"] == pytest.approx([0.1, 0])
    assert found["slope"] == pytest.approx([0, 0.1])
    assert torch.backends.cudnn.allow_tf32 == kept


def test_maps_lie_behind_a_class_token():
    with OnCpu():
        maps = _make_example_maps(70, 2, 3, torch.bfloat16)
    assert maps.shape == (2, 5, 5, 3) and maps.dtype == torch.bfloat16
    # strides: an image has 26 tokens of three channels, and the first is not shown
    assert maps.stride() == (78, 15, 3, 1) and maps.storage_offset() == 3
    with OnCpu():
        assert torch.equal(maps, _make_example_maps(70, 2, 3, torch.bfloat16))


# -- tiles


def test_the_fastest_tile_that_fits_is_picked(monkeypatch):
    times = {1: 3.0, 2: 1.0, 3: 2.0, 4: 0.5}
    tiles = [Tile(n, 0, 0, 0, 0, since=90 if n == 4 else 80) for n in times]
    budgets, launched = [], []

    def stopwatch(work, seconds):
        budgets.append(seconds)
        work()
        return times[launched[-1].rows], 77

    monkeypatch.setattr(kernel_speed, "_measure_ms", stopwatch)
    for capability, best in (((8, 0), 2), ((9, 0), 4)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda c=capability: c)
        tile, tried = _pick_fastest_tile("dx", launched.append, tiles)
        assert tile == tiles[best - 1]
        assert tried == {
            f"{n} 0 0 0 0 1 True {90 if n == 4 else 80}": ms
            for n, ms in times.items()
            if n != 4 or capability == (9, 0)
        }
    assert set(budgets) == {0.03}


def test_each_kernels_tile_is_tried_with_its_own_work_and_remembered(monkeypatch):
    x, taps = torch.zeros(1, 5, 5, 3).bfloat16(), torch.zeros(7, 3, 3, 3)
    b, dy, calls = torch.zeros(7), torch.zeros(1, 3, 3, 7), []

    def pick(kernel, launch, tiles):
        assert tiles is KERNEL_TILES[kernel]
        launch(tiles[1])
        return tiles[-1], {kernel: 1.0}

    monkeypatch.setattr(kernel_speed, "_pick_fastest_tile", pick)
    for name in ("launch_forward", "launch_dx", "launch_dw"):

        def spy(*args, name=name):
            return calls.append((name, *args))

        monkeypatch.setattr(kernel_speed, name, spy)
    try:
        tried = _pick_fastest_tiles(x, taps, b, dy, (9, 3, 7))
        remembered = dict(TRIED_TILES)
    finally:
        TRIED_TILES.clear()
    size = (9, 3, 7, torch.bfloat16)
    assert remembered == {
        ("forward", False, *size): KERNEL_TILES["forward"][-1],
        ("forward", True, *size): KERNEL_TILES["forward"][-1],
        ("dx", True, *size): KERNEL_TILES["dx"][-1],
        ("dw", True, *size): KERNEL_TILES["dw"][-1],
    }
    assert list(tried) == ["forward False", "forward True", "dx", "dw"]
    assert tried["dw"] == {"dw": 1.0} and tried["forward True"] == {"forward": 1.0}
    expected = [
        ("launch_forward", x, taps, b, True, False, KERNEL_TILES["forward"][1]),
        ("launch_forward", x, taps, b, True, True, KERNEL_TILES["forward"][1]),
        ("launch_dx", dy, taps, x, KERNEL_TILES["dx"][1]),
        ("launch_dw", dy, x, KERNEL_TILES["dw"][1]),
    ]
    assert len(calls) == 4
    for found, wanted in zip(calls, expected):
        assert len(found) == len(wanted) and all(a is b for a, b in zip(found, wanted))


# -- rows


@pytest.fixture
def bench(monkeypatch):
    "Lets the bench run on the CPU: each piece of work runs once, with times by its order."
    seen = []

    def stopwatch(work, seconds=0.12):
        made = work()
        training = isinstance(made, tuple)
        seen.append((training, torch.is_grad_enabled(), torch.backends.cudnn.benchmark))
        return float(len(seen)), len(seen) / 100

    def conv(x, w, b, gelu=True, impl="auto"):
        assert impl == "triton"
        return conv_gelu_torch(x, w, b, gelu)

    def shuffle(x, w, b, k=2, eps=1e-5, impl="auto"):
        assert impl == "triton"
        return shuffle_norm_torch(x, w, b, k, eps)

    def pick(x, taps, b, dy, shape):
        assert taps.shape == (7, 3, 3, 4) and taps.is_contiguous() and dy.shape == (2, 3, 3, 7)
        for kernel, training in (("forward", 0), ("forward", 1), ("dx", 1), ("dw", 1)):
            TRIED_TILES[kernel, bool(training), *shape, x.dtype] = KERNEL_TILES[kernel][training]
        return {"forward False": 1, "forward True": 2, "dx": 3, "dw": 4}

    monkeypatch.setattr(kernel_speed, "_measure_ms", stopwatch)
    monkeypatch.setattr(kernel_speed, "conv_gelu", conv)
    monkeypatch.setattr(kernel_speed, "shuffle_norm", shuffle)
    monkeypatch.setattr(kernel_speed, "_pick_fastest_tiles", pick)
    with OnCpu():
        yield seen
    TRIED_TILES.clear()


def test_a_row_of_the_convolution_says_what_was_measured(bench):
    forward, training = _bench_conv(70, 2, 7, 4, torch.float32)
    names = ["eager_nchw", "eager_channels_last", "eager_benchmark", "triton", "triton_nchw"]
    for i, found in enumerate((forward, training)):
        assert found["op"] == "conv" and found["dtype"] == "float32" and found["right"] is True
        assert (found["side"], found["batch"], found["N"], found["C"]) == (70, 2, 7, 4)
        assert found["training"] is bool(i) and found["shape"] == [18, 4, 7]
        assert found["work"] == _count_conv_work(70, 2, 7, 4, bool(i))
        assert list(found["ms"]) == names
        assert list(found["ms"].values()) == [1.0 + 5 * i + n for n in range(5)]
        assert found["cpu"]["triton"] == pytest.approx(found["ms"]["triton"] / 100)
        assert set(found["error"]) == {"triton", "eager"} and found["error"]["triton"] < 1e-4
    assert [b[0] for b in bench] == [False] * 5 + [True] * 5 == [b[1] for b in bench]
    # while a piece of work runs, cuDNN's search is on for one way alone; it is off again behind it
    assert not any(b[2] for b in bench)
    assert forward["tiles"] == {"forward": list(KERNEL_TILES["forward"][0])}
    assert training["tiles"] == {k: list(KERNEL_TILES[k][1]) for k in ("forward", "dx", "dw")}
    assert forward["tried"] == {"forward": 1} and training["tried"] == dict(forward=2, dx=3, dw=4)


def test_cudnn_searches_for_one_way_alone_and_each_way_has_its_own_layout(bench, monkeypatch):
    searched, eager, ours = [], [], []

    def is_packed(w):
        return w.is_contiguous(memory_format=torch.channels_last)

    def theirs(x, w, b, gelu=True):
        searched.append(torch.backends.cudnn.benchmark)
        eager.append(is_packed(w))
        return conv_gelu_torch(x, w, b, gelu)

    def triton(x, w, b, impl):
        ours.append(is_packed(w))
        return conv_gelu_torch(x, w, b)

    monkeypatch.setattr(kernel_speed, "conv_gelu_torch", theirs)
    monkeypatch.setattr(kernel_speed, "conv_gelu", triton)
    _bench_conv(70, 2, 7, 4, torch.float32)
    assert searched[-6:] == [False, False, True] * 2 and not any(searched[:-6])
    assert eager[-6:] == [False, True, True] * 2
    assert ours[-4:] == [True, False] * 2


def test_a_kernel_that_is_off_by_two_percent_is_wrong(bench, monkeypatch):
    for factor, right in ((1.015, True), (1.025, False)):

        def off(*t, impl, factor=factor):
            return conv_gelu_torch(*t) * factor

        monkeypatch.setattr(kernel_speed, "conv_gelu", off)
        assert [r["right"] for r in _bench_conv(70, 2, 7, 4, torch.float32)] == [right] * 2

        def off(*t, impl, factor=factor):
            return shuffle_norm_torch(*t) * factor

        monkeypatch.setattr(kernel_speed, "shuffle_norm", off)
        assert [r["right"] for r in _bench_shuffle(70, 2, 4, torch.float32)] == [right] * 2
    # right in its result and wrong in its gradients: only the row of training is wrong

    class Steep(torch.autograd.Function):
        forward = staticmethod(lambda ctx, y: y.clone())
        backward = staticmethod(lambda ctx, dy: dy * 2)

    monkeypatch.setattr(
        kernel_speed, "conv_gelu", lambda *t, impl: Steep.apply(conv_gelu_torch(*t))
    )
    assert [r["right"] for r in _bench_conv(70, 2, 7, 4, torch.float32)] == [True, False]


def test_a_row_of_the_shuffle_says_what_was_measured(bench):
    for i, found in enumerate(_bench_shuffle(70, 2, 4, torch.float32)):
        assert found["op"] == "shuffle" and found["dtype"] == "float32" and found["right"]
        assert (found["side"], found["batch"], found["N"], found["C"]) == (70, 2, 16, 4)
        assert found["training"] is bool(i) and found["shape"] == [18, 4, 16]
        assert found["work"] == _count_shuffle_work(70, 2, 4, bool(i))
        assert found["ms"] == {"eager": 1.0 + 2 * i, "triton": 2.0 + 2 * i}
    assert [b[:2] for b in bench] == [(False, False)] * 2 + [(True, True)] * 2


def test_torch_compile_gets_the_rows_work(bench, monkeypatch):
    told = []
    monkeypatch.setattr(torch._dynamo, "reset", lambda: told.append("reset"))

    def compile_(f, mode, dynamic):
        def spy(*tensors):
            told.append([tuple(t.shape) for t in tensors] + [tensors[0].dtype])
            told.append(tuple(f(*tensors).shape))
            return f(*tensors)

        told.append((f.__name__, mode, dynamic))
        return spy

    monkeypatch.setattr(torch, "compile", compile_)
    for training in (False, True):
        row = dict(op="conv", side=70, batch=2, N=7, C=4, dtype="bfloat16", training=training)
        found = _time_compiled(row)
        assert found == (len(bench), len(bench) / 100) and bench[-1][:2] == (training, training)
        assert told[:2] == ["reset", ("conv_gelu_torch", "max-autotune", False)]
        assert told[2:] == [
            [(2, 5, 5, 4), (7, 4, 3, 3), (7,), torch.bfloat16],
            (2, 3, 3, 7),
        ]
        told.clear()
        _time_compiled(row | dict(op="shuffle", N=16))
        assert told[1] == ("shuffle_norm_torch", "max-autotune", False)
        assert told[2][:3] == [(2, 5, 5, 4), (16,), (16,)] and told[3] == (2, 3, 3, 16)
        told.clear()


# -- the whole


def row_of(op="conv", side=448, batch=1, N=8, training=False, **rest):
    found = dict(op=op, side=side, batch=batch, N=N, training=training, right=True)
    found |= dict(ms=dict(triton=2.0, eager=4.0), cpu=dict(triton=0.25), error=dict(triton=1e-3))
    return found | dict(work=dict(flop=8e9, bytes=6e6)) | rest


@pytest.fixture
def a_gpu(monkeypatch):
    "A machine whose GPU is an H200, and benches that return a row a pass."
    made = []

    def conv(side, batch, N):
        made.append(("conv", side, batch, N))
        return [row_of("conv", side, batch, N, training) for training in (False, True)]

    def shuffle(side, batch):
        made.append(("shuffle", side, batch))
        return [row_of("shuffle", side, batch, 4096, training) for training in (False, True)]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(kernel_speed, "triton", type("Triton", (), dict(__version__="9.9")))
    monkeypatch.setattr(kernel_speed, "_bench_conv", conv)
    monkeypatch.setattr(kernel_speed, "_bench_shuffle", shuffle)
    monkeypatch.setattr(kernel_speed, "_time_compiled", lambda row: (0.5, 0.125))
    return made


def test_a_quick_bench_measures_one_image_of_each_size_at_one_width(a_gpu):
    records, said = [], []
    record = bench_kernels(True, False, 70, lambda r: records.append(len(r["rows"])), said.append)
    assert a_gpu == [("conv", side, 1, 5120) for side in (448, 700, 1022)] + [
        ("shuffle", side, 1) for side in (448, 700, 1022)
    ]
    assert record["device"] == "NVIDIA H200" and record["triton"] == "9.9"
    assert record["peak"] == (989, 4800) and record["torch"] == torch.__version__
    assert len(record["rows"]) == 12 and record["seconds"] >= 0
    first = record["rows"][0]
    # 8 GFLOP in 2 ms are 4 TFLOP/s, 6 MB are 3 GB/s; the roof is 8e9 / 989e12 s = .0081 ms
    assert first["tflops"] == pytest.approx(4) and first["gbps"] == pytest.approx(3)
    assert first["roof"] == pytest.approx(8e9 / 989e9 / 2)
    assert records[:6] == [2, 4, 6, 8, 10, 12] and records[-1] == 12
    compiled = [r for r in record["rows"] if "compile" in r["ms"]]
    # of COMPILED, all but the one of eight images; in its own order
    order = ["conv 1022 x 1:", "conv 448 x 1:", "shuffle 1022 x 1:"]
    order += ["conv 1022 x 1 training:", "shuffle 1022 x 1 training:"]
    assert [s.split("torch.compile ")[1].rsplit(" ", 1)[0] for s in said[6:]] == order
    assert len(compiled) == 5
    assert all(r["ms"]["compile"] == 0.5 and r["cpu"]["compile"] == 0.125 for r in compiled)


def test_a_full_bench_measures_every_width_batch_and_size(a_gpu):
    record = bench_kernels(compile_all=True)
    sides, batches = (448, 700, 1022), (1, 8, 32)
    convs = [("conv", s, b, n) for n in (4096, 5120) for b in batches for s in sides]
    assert a_gpu == convs + [("shuffle", s, b) for s in sides for b in batches]
    assert len(record["rows"]) == 2 * (18 + 9)
    assert all("compile" in r["ms"] for r in record["rows"])


def test_compiling_stops_when_its_time_is_over_and_goes_on_after_a_failure(a_gpu, monkeypatch):
    record = bench_kernels(True, compile_seconds=-1)
    assert not any("compile" in r["ms"] for r in record["rows"])
    record = bench_kernels(True, True, compile_seconds=-1)
    assert all("compile" in r["ms"] for r in record["rows"])

    def fail(row):
        raise RuntimeError("x" * 999)

    monkeypatch.setattr(kernel_speed, "_time_compiled", fail)
    found = [r for r in bench_kernels(True)["rows"] if "compile_error" in r]
    assert len(found) == 5 and len(found[0]["compile_error"]) == 300
    assert found[0]["compile_error"].startswith("RuntimeError: xxx")


def test_a_bench_on_an_unknown_gpu_has_no_roof_and_without_triton_or_gpu_there_is_none(
    a_gpu, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Iris")
    record = bench_kernels(True)
    assert record["peak"] is None and not any("roof" in r for r in record["rows"])
    monkeypatch.setattr(kernel_speed, "triton", None)
    with pytest.raises(ImportError, match="needs Triton"):
        bench_kernels(True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="found no NVIDIA GPU"):
        bench_kernels(True)


def test_the_table_of_kernels_puts_each_number_under_its_name():
    ms = dict(eager_nchw=1.5, eager_channels_last=2.5, eager_benchmark=3.5, triton=4.5)
    one = row_of(ms=ms | dict(triton_nchw=5.5), tflops=123.0, gbps=456.0, roof=0.75)
    two = row_of("shuffle", 700, 32, 4096, True, tflops=1.0, gbps=2.0, right=False)
    two["ms"] = dict(eager=6.5, compile=7.5, triton=8.5)
    del two["cpu"]
    head, first, second = format_kernel_table(dict(rows=[one, two])).splitlines()
    names = "image batch N pass eager_nchw eager_cl eager_tuned eager compile triton triton_nchw"
    assert head.split()[: len(names.split())] == names.split()
    assert head.split()[-7:] == "TFLOP/s GB/s of roof CPU ms error".split()
    assert first.split() == (
        "conv 448 1 8 forward 1.500 2.500 3.500 4.500 5.500 123 456 75% 0.25 1.0e-03".split()
    )
    assert second.split() == (
        "shuffle 700 32 4096 training 6.500 7.500 8.500 1 2 ? ? 1.0e-03 WRONG".split()
    )
    for line, name, number in (
        (first, "eager_cl", "2.500"),
        (first, "triton", "4.500"),
        (second, "eager", "6.500"),
        (second, "compile", "7.500"),
    ):
        end = head.index(f" {name} ") + len(name) + 1
        assert line[:end].endswith(number)


def test_the_picture_shows_how_many_times_as_fast_as_eager_each_way_is():
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    one = row_of(ms=dict(eager_channels_last=6.0, eager_nchw=12.0, triton=2.0))
    two = row_of("shuffle", 700, 8, ms=dict(eager=8.0, compile=4.0, triton=16.0))
    three = row_of(training=True, ms=dict(eager_channels_last=9.0, triton=3.0))
    fig = kernel_speed.draw_kernel_times(dict(rows=[one, two, three]))
    left, right = fig.axes
    assert [left.get_title(), right.get_title()] == ["forward", "training"]
    points = {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in left.lines
        if not line.get_label().startswith("_")
    }
    assert points == {
        "eager_nchw": ([0], [0.5]),
        "compile": ([1], [2]),
        "triton": ([0, 1], [3, 0.5]),
    }
    assert list(right.lines[0].get_ydata()) == [3]
    labels = [t.get_text() for t in left.get_xticklabels()]
    assert labels == ["conv 448 x1 N8", "shuffle 700 x8"]
    plt.close(fig)
