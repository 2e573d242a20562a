"""The kernels without a GPU: interpreted against fp64, compiled for GPUs that are not there, and
the fallback beside them.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from kernel_jobs import SHARED, compile_cases, errors, interpreted_cases, maps_of
from torch import nn

from ferretlite.app import cli
from ferretlite.evaluation import kernel_speed
from ferretlite.vision import conv_kernels as kernels
from ferretlite.vision import kernel_choice
from ferretlite.vision import kernel_operators as kernels_module
from ferretlite.vision.downsampling import ConvDownsampler, ShuffleDownsampler, make_downsampler

JOBS, INTERPRETED, COMPILED = (
    Path(__file__).with_name("kernel_jobs.py"),
    interpreted_cases(),
    compile_cases(),
)
triton = pytest.mark.triton


class Job:
    """A process that prints a JSON line per case; its output goes to a file, so that it never
    waits for a reader.
    """

    def __init__(self, mode, folder):
        self.folder, self.lines = folder, {}
        self.out, self.err = (open(folder / f"{mode}.{kind}", "w+") for kind in ("out", "err"))
        env = {**os.environ, "TRITON_CACHE_DIR": str(folder / "cache")}
        self.process = subprocess.Popen(
            [sys.executable, str(JOBS), mode], stdout=self.out, stderr=self.err, env=env
        )

    def line(self, name):
        "The line of a case, waited for."
        while name not in self.lines:
            over = self.process.poll() is not None
            self.out.flush()
            self.lines = {
                d["name"]: d
                for d in map(
                    json.loads,
                    Path(self.out.name)
                    .read_text()
                    .splitlines(keepends=False)[: None if over else -1],
                )
            }
            if name in self.lines:
                break
            if over:
                pytest.fail(
                    f"no result for {name!r}\n{Path(self.err.name).read_text()[-3000:]}",
                    pytrace=False,
                )
            try:
                self.process.wait(0.3)
            except subprocess.TimeoutExpired:
                pass
        return self.lines[name]


@pytest.fixture(scope="module")
def jobs():
    "Both kinds of process at once: one interprets, the other compiles."
    with tempfile.TemporaryDirectory() as folder:
        running = {mode: Job(mode, Path(folder)) for mode in ("interpret", "compile")}
        yield running
        for job in running.values():
            if job.process.poll() is None:
                job.process.kill()
            job.process.wait()
            job.out.close()
            job.err.close()


# -- the kernels


@triton
@pytest.mark.parametrize("name", INTERPRETED)
def test_interpreted_kernels_agree_with_fp64(jobs, name):
    line = jobs["interpret"].line(name)
    assert not line["problem"], line
    assert line["errors"] and max(line["errors"].values()) <= INTERPRETED[name][0]


@triton
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_for_a_gpu_nothing_is_spilled(jobs, name):
    line, (arch, _kernel, dtype, tile, _) = jobs["compile"].line(name), COMPILED[name]
    assert line.get("spilled") == 0, line
    assert line["shared"] <= SHARED[arch] and line["target"].startswith(f"sm_{arch}")
    if tile and dtype != torch.float32:
        assert line["matrix"] and line["asynchronous"], (
            "a product in half precision runs on the matrix units, fed while it computes"
        )


def test_there_are_enough_cases():  # one per kernel x dtype x shape and per compiled configuration
    assert len(INTERPRETED) >= 20 and len(COMPILED) >= 40
    for arch in (80, 90):
        for kernel, tiles in kernels.KERNEL_TILES.items():
            for tile in tiles:
                assert arch < tile.since or any(
                    c[:2] == (arch, kernel) and c[3] == tile for c in COMPILED.values()
                ), (arch, kernel, tile)


# -- what goes wrong without care: a test per pitfall that facts of Triton name

PITFALL = """
import os, sys
{before}
import torch, triton, triton.language as tl
from ferretlite.vision import conv_kernels as kernels
from ferretlite.vision import kernel_choice
from ferretlite.vision import kernel_operators as kernels_module
{body}
"""


def python(before: str, body: str, **env) -> subprocess.CompletedProcess:
    "A fresh process with both pieces of code."
    clean = {
        k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "FERRETLITE_TRITON")
    }
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script.py")
        script.write_text(
            PITFALL.format(before=before, body=body)
        )  # Triton reads the source of a kernel
        return subprocess.run(
            [sys.executable, script],
            capture_output=True,
            text=True,
            env=clean | {"PYTHONPATH": str(JOBS.parent.parent)} | env,
        )


@triton
def test_without_gpu_or_interpreter_the_error_is_a_sentence():
    done = python(
        "",
        "kernels_module.conv_gelu(torch.zeros(1, 3, 3, 16), torch.zeros(8, 16, 3, 3),"
        " torch.zeros(8), impl='triton')",
    )
    assert (
        "InputError: " in done.stderr
        and "kernels run on a GPU" in done.stderr
        and "active driver" not in done.stderr
    )


@triton
def test_the_interpreter_must_be_chosen_before_the_import():
    late = "import ferretlite.vision.conv_kernels; os.environ['TRITON_INTERPRET'] = '1'"
    assert "False" in python(late, "print(kernels.is_interpreted())").stdout
    assert (
        "True"
        in python("os.environ['TRITON_INTERPRET'] = '1'", "print(kernels.is_interpreted())").stdout
    )


@triton
def test_bf16_products_are_upcast_in_the_interpreter_and_only_there():
    body = (
        "x = torch.zeros(1, dtype=torch.bfloat16); print(kernels._upcast(x),"
        " kernels._upcast(x.half()))"
    )
    assert python("", body).stdout.split() == ["False", "False"]
    assert python("", body, TRITON_INTERPRET="1").stdout.split() == ["True", "False"]


@triton
def test_a_foreign_channel_stride_is_copied_and_not_misread():
    body = """
torch.manual_seed(0)
x, w, b = torch.randn(1, 16, 5, 4).movedim(1, -1), torch.randn(8, 16, 3, 3), torch.randn(8)
ours = kernels_module.conv_gelu(x, w, b, impl="triton")
theirs = kernels_module.conv_gelu_torch(x, w, b)
print(x.stride(-1), torch.allclose(ours, theirs, atol=1e-4))
g = torch.randn(2, 64)
ours = kernels_module.shuffle_norm(x, *g, impl="triton")
theirs = kernels_module.shuffle_norm_torch(x, *g)
print(torch.allclose(ours, theirs, atol=1e-4))"""
    assert python("", body, TRITON_INTERPRET="1").stdout.split() == ["20", "True", "True"]


@triton
def test_tiles_that_spilled_are_not_shipped():
    for tile in kernels.KERNEL_TILES["forward"]:
        assert not (tile.fused and tile.rows * tile.cols > 128 * 128), (
            "GELU does not fit beside a 128 x 256 sum"
        )
        assert tile.rows * tile.cols / tile.warps <= 2048 or not tile.fused, (
            "128 x 128 on four warps spills"
        )


@triton
def test_the_environment_forces_either():
    body = (
        "x = torch.zeros(1, 3, 3, 16); "
        "print(kernel_choice.should_use_triton('auto', 'conv', x, False, (4, 16, 8), "
        "'triton', 'eager_nchw'))"
    )
    assert python("", body, TRITON_INTERPRET="1").stdout.split() == ["False"]
    assert python("", body, TRITON_INTERPRET="1", FERRETLITE_TRITON="1").stdout.split() == ["True"]
    assert python(
        "", body.replace("'auto'", "'triton'"), TRITON_INTERPRET="1", FERRETLITE_TRITON="0"
    ).stdout.split() == ["True"], "what the code says goes before"
    assert "expected 0 or 1" in python("", body, FERRETLITE_TRITON="yes").stderr


# -- the fallback, and the choice


def test_the_fallback_is_the_public_convolution():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(12, 8, 3, 2, 1), maps_of((2, 7, 4, 12), torch.float32, True)
    expected = nn.functional.gelu(conv(x.permute(0, 3, 1, 2).contiguous())).permute(0, 2, 3, 1)
    assert torch.allclose(kernels_module.conv_gelu(x, conv.weight, conv.bias), expected, atol=1e-6)


@pytest.mark.parametrize("cells", [(5, 4), (1, 3), (2, 2)])
def test_gradients_of_the_fallback(cells):
    torch.manual_seed(0)
    x, w, b = (
        torch.randn(1, *cells, 3, dtype=torch.double),
        torch.randn(2, 3, 3, 3, dtype=torch.double),
        torch.randn(2, dtype=torch.double),
    )
    torch.autograd.gradcheck(kernels_module.conv_gelu, [t.requires_grad_() for t in (x, w, b)])
    gain, shift = torch.randn(2, 12, dtype=torch.double)
    torch.autograd.gradcheck(
        kernels_module.shuffle_norm, [t.detach().clone().requires_grad_() for t in (x, gain, shift)]
    )


@pytest.mark.parametrize("k", [2, 3])
def test_shuffle_fallback_is_notebook_12s(k):
    torch.manual_seed(0)
    module, x = ShuffleDownsampler(6, 8, factor=k), torch.randn(2, 5, 7, 6)
    assert torch.equal(
        module(x),
        module.mlp(kernels_module.shuffle_norm(x, module.norm.weight, module.norm.bias, k)),
    )


def test_compiled_fallback_agrees():
    torch.manual_seed(0)
    tensors = torch.randn(2, 5, 4, 6), torch.randn(8, 6, 3, 3) / 7, torch.randn(8)
    f = torch.compile(lambda *t: kernels_module.conv_gelu(*t), backend="aot_eager", fullgraph=True)
    assert max(errors(f, kernels_module.conv_gelu_torch, tensors).values()) < 1e-5


@pytest.mark.parametrize("cells", [(5, 4), (32, 32), (1, 7)])
def test_meta_tensors_tell_shapes(cells):
    if kernels.triton is None:
        pytest.skip("needs the triton extra")
    with torch.device("meta"):
        x, conv, norm = (
            torch.empty(2, *cells, 16, requires_grad=True),
            nn.Conv2d(16, 8, 3, 2, 1),
            nn.LayerNorm(64),
        )
        y = kernels_module.conv_gelu(x, conv.weight, conv.bias, impl="triton")
        y.sum().backward()
        z = kernels_module.shuffle_norm(x, norm.weight, norm.bias, impl="triton")
        z.sum().backward()
    assert y.shape == (2, *kernels.compute_conv_cells(cells), 8) and z.shape == (
        2,
        *kernels.compute_conv_cells(cells),
        64,
    )
    assert (
        x.grad.shape == x.shape
        and conv.weight.grad.shape == conv.weight.shape
        and norm.bias.grad.shape == (64,)
    )


def row(
    op="conv",
    shape=(1369, 1024, 5120),
    dtype="bfloat16",
    training=False,
    right=True,
    cpu=None,
    **ms,
):
    return dict(
        op=op,
        shape=list(shape),
        dtype=dtype,
        training=training,
        right=right,
        ms=ms,
        cpu=cpu or dict.fromkeys(ms, 0.1),
        tiles={},
    )


def test_the_nearest_measurement_speaks_within_a_factor_of_two():
    near, far = row(triton=1.0), row(shape=(40000, 1024, 5120), triton=2.0)

    def find(shape, dtype=torch.bfloat16, training=False, rows=(near, far)):
        return kernel_choice.find_nearest_row(dict(rows=rows), "conv", dtype, training, shape)

    assert find((1200, 1024, 4096)) is near and find((30000, 1024, 4096)) is far
    assert find((1369, 256, 5120)) is None and find((300, 1024, 5120)) is None
    assert (
        find((1369, 1024, 5120), torch.float16) is None
        and find((1369, 1024, 5120), training=True) is None
    )
    assert find((1369, 1024, 5120), rows=[row(right=False)]) is None, (
        "a kernel that was wrong there is never chosen"
    )
    assert (
        kernel_choice.find_nearest_row(None, "conv", torch.bfloat16, False, (1, 1, 1)) is None
        and kernel_choice.find_measurement(None, "conv", torch.bfloat16, False, (1, 1, 1)) is None
    )


class OnGpu:
    "As much of a CUDA tensor as the choice looks at."

    is_cuda, is_meta, dtype, device = True, False, torch.bfloat16, torch.device("cuda:0")


@pytest.mark.parametrize(
    "ms, chosen",
    [
        (dict(triton=1.0, eager=2.0), True),
        (dict(triton=2.0, eager=1.0), False),
        (None, False),
        (dict(triton=0.1, eager=0.2, cpu=dict(triton=0.9, eager=0.3)), False),
        (dict(triton=0.1, eager=1.5, cpu=dict(triton=0.9, eager=0.3)), True),
    ],
)
def test_auto_follows_the_record(monkeypatch, ms, chosen):
    monkeypatch.delenv("FERRETLITE_TRITON", raising=False)
    monkeypatch.setattr(kernel_choice, "triton", object())
    monkeypatch.setattr(kernel_choice, "find_record", lambda device: "a file")
    monkeypatch.setattr(kernel_choice, "read_record", lambda path: ms and dict(rows=[row(**ms)]))
    kernel_choice.find_measurement.cache_clear()

    def use(x=OnGpu):
        return kernel_choice.should_use_triton(
            "auto", "conv", x, False, (1369, 1024, 5120), "triton", "eager"
        )

    assert use() == chosen and not use(torch.zeros(1, dtype=torch.bfloat16)), "never on a CPU"
    monkeypatch.setattr(kernel_choice, "triton", None)
    assert not use(), "never without Triton"


def test_records_are_named_by_the_gpu_and_found(tmp_path, monkeypatch):
    assert kernel_choice.format_record_name("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3.json"
    assert (
        kernel_choice.read_record(tmp_path / "none.json") is None
        and kernel_choice.find_record(torch.device("cpu")) is None
    )
    (tmp_path / "mine.json").write_text('{"rows": []}')
    monkeypatch.setenv("FERRETLITE_KERNELS", str(tmp_path / "mine.json"))
    assert kernel_choice.read_record(kernel_choice.find_record(torch.device("cuda:0"))) == {
        "rows": []
    }


def test_shipped_records_are_whole():
    for path in kernel_choice.KERNEL_RECORDS.glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert path.name == kernel_choice.format_record_name(record["device"]) and record["rows"]
        for r in record["rows"]:
            assert r["right"] and r["error"]["triton"] < 0.02 and min(r["ms"].values()) > 0
            for kernel, tile in r.get("tiles", {}).items():
                assert kernels.Tile(*tile) in kernels.KERNEL_TILES[kernel]
            assert r["roof"] <= 1, "faster than the roof: the count of work or the peak is wrong"


@pytest.mark.parametrize(
    "call, said",
    [
        (
            lambda: ConvDownsampler(4, 4, impl="cuda"),
            "impl: found 'cuda', expected one of auto, triton, torch",
        ),
        (lambda: make_downsampler("shuffle", 4, 4, impl=1), "impl: found 1"),
        (lambda: ConvDownsampler(4, 4, padding=0, impl="triton"), "padding=0"),
        (
            lambda: kernels_module.conv_gelu(
                torch.zeros(1, 2, 2, 4), torch.zeros(4, 4, 3, 3), torch.zeros(4), impl="fast"
            ),
            "expected one of auto",
        ),
        (
            lambda: kernels_module.check_conv(
                torch.zeros(1, 2, 2, 4), torch.zeros(4, 4, 2, 2), torch.zeros(4)
            ),
            r"weight \[4, 4, 2, 2\]",
        ),
        (
            lambda: kernels_module.check_conv(
                torch.zeros(1, 2, 2, 4), torch.zeros(4, 4, 3, 3).half(), torch.zeros(4)
            ),
            "expected one type",
        ),
    ],
)
def test_trouble_is_one_sentence(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_padding_of_another_kind_takes_pytorch_where_it_may():
    assert ConvDownsampler(4, 6, padding=0)(torch.zeros(1, 7, 7, 4)).shape == (1, 3, 3, 6)


def test_bench_kernels_says_what_it_needs(capsys, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert cli.main(["bench", "kernels", "--json", str(tmp_path / "k.json")]) == 2
    out, err = capsys.readouterr()
    assert (
        out == "" and err.count("\n") == 1 and "NVIDIA GPU" in err and not list(tmp_path.iterdir())
    )


def test_work_is_counted_by_hand():
    work = kernel_speed._count_conv_work(1022, 1, 5120)
    assert work["flop"] == 2 * 37 * 37 * 9 * 1024 * 5120 and abs(work["bytes"] - 119.3e6) < 1e5
    assert (
        abs(kernel_speed._compute_roof_ms(work, (989, 3350)) - 0.1306) < 1e-3
    )  # bound by the matrix units
    assert (
        abs(
            kernel_speed._compute_roof_ms(kernel_speed._count_conv_work(448, 1, 5120), (989, 3350))
            - 0.0297
        )
        < 1e-3
    )  # bound by memory
    assert (
        kernel_speed._find_gpu_peak("NVIDIA H100 80GB HBM3") == (989, 3350)
        and kernel_speed._find_gpu_peak("NVIDIA H100 PCIe") == (756, 2000)
        and kernel_speed._find_gpu_peak("Iris") is None
    )


def test_the_table_shows_wrong_kernels():
    good = dict(
        row(triton=1.0, eager=2.0),
        side=448,
        batch=1,
        N=8,
        error=dict(triton=0.001),
        tflops=1.0,
        gbps=1.0,
    )
    lines = kernel_speed.format_kernel_table(
        dict(rows=[good, {**good, "right": False}])
    ).splitlines()
    assert len(lines) == 3 and "WRONG" not in lines[1] and lines[2].endswith("WRONG")
