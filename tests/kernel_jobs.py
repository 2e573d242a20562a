"""What test_kernels.py and test_cuda_kernels.py run in processes of their own: `python
kernel_jobs.py interpret|compile|cuda` prints one JSON line a case.

A process can interpret kernels or compile them, not both. This file needs torch, triton and
ferretlite.vision.conv_kernels, and no pytest.
"""

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    if sys.argv[1:2] == ["interpret"]:
        os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are imported
    else:
        os.environ.pop("TRITON_INTERPRET", None)
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from ferretlite.vision import conv_kernels as kernels
from ferretlite.vision import kernel_operators as kernels_module
from ferretlite.vision.conv_kernels import FLOAT_TILE, KERNEL_DTYPES, KERNEL_TILES, Tile

FLOAT, HALF, BRAIN = KERNEL_DTYPES
NAMES = {FLOAT: "fp32", HALF: "fp16", BRAIN: "bf16"}
LIMITS = {
    FLOAT: 1e-5,
    HALF: 2e-3,
    BRAIN: 1.6e-2,
}  # of max|found - true| / max|true|: a few roundings of the type
SHARED = {80: 163 * 1024, 90: 227 * 1024}  # bytes of shared memory that one program may have

# name -> (maps [B, H, W, C], N, dtype, behind a class token, GELU)
CONV = {
    "fp32 odd": ((2, 5, 5, 20), 24, FLOAT, False, True),
    "fp32 even x odd": ((1, 6, 7, 16), 16, FLOAT, False, True),
    "fp32 odd channels behind a class token": ((2, 7, 4, 18), 17, FLOAT, True, True),
    "fp32 one row": ((2, 1, 9, 16), 16, FLOAT, False, True),
    "fp32 many tokens": (
        (4, 7, 10, 16),
        16,
        FLOAT,
        True,
        True,
    ),  # 80 tokens: more than one block of 64; 16 at a time rows, columns and images all wrap
    "fp32 one token": ((3, 1, 1, 16), 16, FLOAT, False, True),
    "fp32 without GELU": ((2, 5, 6, 20), 24, FLOAT, True, False),
    "fp16 behind a class token": ((2, 5, 5, 20), 24, HALF, True, True),
    "fp16 even": ((1, 8, 6, 32), 40, HALF, False, True),
    "bf16 behind a class token": ((2, 5, 5, 20), 24, BRAIN, True, True),
    "bf16 wide": ((1, 3, 11, 48), 40, BRAIN, False, True),
}
# name -> (maps [B, H, W, C], k, dtype, behind a class token)
SHUFFLE = {
    "fp32 even": ((2, 6, 4, 16), 2, FLOAT, False),
    "fp32 odd": ((2, 5, 7, 12), 2, FLOAT, True),
    "fp32 of three": ((1, 7, 8, 10), 3, FLOAT, False),
    "fp16 odd": ((2, 5, 5, 24), 2, HALF, True),
    "bf16 odd": ((1, 5, 7, 20), 2, BRAIN, True),
    "bf16 of three": ((1, 4, 4, 16), 3, BRAIN, False),
}
SMALL = Tile(16, 16, 16, 1, 1)  # many tiles even of a toy


def maps_of(shape, dtype, behind, device="cpu"):
    "Random maps; with a class token before them they are a slice: not dense, and not copied."
    B, H, W, C = shape
    tokens = torch.randn(B, H * W + behind, C, device=device).to(dtype)
    return (tokens[:, 1:] if behind else tokens).unflatten(1, (H, W))


def off(found, true):
    return (
        (found.double() - true.double()).abs().max() / true.double().abs().max().clamp(min=1e-30)
    ).item()


def with_gradients(f, *tensors):
    "(result, its gradients) for one fixed random direction."
    tensors = [t.detach().requires_grad_() for t in tensors]
    y = f(*tensors)
    return [
        y.detach(),
        *torch.autograd.grad(
            y, tensors, torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
        ),
    ]


def errors(ours, theirs, tensors):
    "By name, how far the result and its three gradients are from the same in fp64."
    found = with_gradients(ours, *tensors)
    true = with_gradients(theirs, *[t.double() for t in tensors])
    assert all(a.shape == b.shape for a, b in zip(found, true)) and all(
        f.dtype == t.dtype for f, t in zip(found, [tensors[0], *tensors])
    )
    return dict(zip(("y", "dx", "dw", "db"), map(off, found, true)))


def conv_case(shape, N, dtype, behind, gelu, device="cpu", impl="triton"):
    torch.manual_seed(0)
    x = maps_of(shape, dtype, behind, device)
    w, b = (
        (torch.randn(N, shape[-1], 3, 3, device=device) / (9 * shape[-1]) ** 0.5).to(dtype),
        torch.randn(N, device=device).to(dtype),
    )
    return errors(
        lambda x, w, b: kernels_module.conv_gelu(x, w, b, gelu, impl),
        lambda x, w, b: kernels_module.conv_gelu_torch(x, w, b, gelu),
        (x, w, b),
    )


def shuffle_case(shape, k, dtype, behind, device="cpu", impl="triton"):
    torch.manual_seed(0)
    x, size = maps_of(shape, dtype, behind, device), k * k * shape[-1]
    w, b = (torch.randn(2, size, device=device) + 1).to(dtype)
    return errors(
        lambda x, w, b: kernels_module.shuffle_norm(x, w, b, k, impl=impl),
        lambda x, w, b: kernels_module.shuffle_norm_torch(x, w, b, k),
        (x, w, b),
    )


def small_tiles(case):
    "Run a case with tiles so small that every loop, mask and grid has work."
    kept = kernels.KERNEL_TILES, kernels.FLOAT_TILE
    kernels.KERNEL_TILES, kernels.FLOAT_TILE = dict.fromkeys(KERNEL_TILES, (SMALL,)), SMALL
    try:
        return case()
    finally:
        kernels.KERNEL_TILES, kernels.FLOAT_TILE = kept


# -- what is only said of the ops


def opcheck_conv(device="cpu"):
    x, w, b = (
        torch.randn(1, 3, 4, 16, device=device),
        torch.randn(8, 3, 3, 16, device=device),
        torch.randn(8, device=device),
    )
    for gelu in (True, False):
        torch.library.opcheck(
            kernels_module.conv_gelu_op, [*(t.requires_grad_() for t in (x, w, b)), gelu, True]
        )
    torch.library.opcheck(
        kernels_module.conv_gelu_op, [*(t.detach() for t in (x, w, b)), True, False]
    )
    torch.library.opcheck(
        kernels_module.conv_gelu_backward_op,
        [
            *(
                t.detach()
                for t in (
                    torch.randn(1, 2, 2, 8, device=device),
                    x,
                    w,
                    torch.randn(1, 2, 2, 8, device=device),
                )
            ),
            True,
            [True, False, True],
        ],
    )
    return {"y": 0.0}


def opcheck_shuffle(device="cpu"):
    x, w, b = (
        torch.randn(1, 3, 4, 8, device=device),
        torch.randn(32, device=device),
        torch.randn(32, device=device),
    )
    torch.library.opcheck(
        kernels_module.shuffle_norm_op, [*(t.requires_grad_() for t in (x, w, b)), 2, 1e-5]
    )
    with torch.no_grad():
        y, mean, rstd = kernels_module.shuffle_norm_op(x, w, b, 2, 1e-5)
    torch.library.opcheck(
        kernels_module.shuffle_norm_backward_op,
        [t.detach() for t in (torch.randn_like(y), x, w, mean, rstd)] + [2],
    )
    return {"y": 0.0}


def compiled(device="cpu", backend="aot_eager"):
    "torch.compile with our op inside, forward and backward."
    torch.manual_seed(0)
    tensors = (
        torch.randn(2, 5, 4, 16, device=device),
        torch.randn(8, 16, 3, 3, device=device) / 12,
        torch.randn(8, device=device),
    )
    f = torch.compile(
        lambda x, w, b: kernels_module.conv_gelu(x * 2, w, b, impl="triton") + 1,
        backend=backend,
        fullgraph=True,
    )
    return errors(f, lambda x, w, b: kernels_module.conv_gelu_torch(x * 2, w, b) + 1, tensors)


def partial_gradients(device="cpu"):
    "Only what is asked for: weights alone (a frozen tower), the maps alone (a frozen projector)."
    torch.manual_seed(0)
    x, w, b = (
        torch.randn(1, 4, 5, 16, device=device),
        torch.randn(8, 16, 3, 3, device=device) / 12,
        torch.randn(8, device=device),
    )
    found = {}
    for wanted in ((1, 2), (0,)):
        leaves = [t.clone().requires_grad_(i in wanted) for i, t in enumerate((x, w, b))]
        kernels_module.conv_gelu(*leaves, impl="triton").square().sum().backward()
        double = [t.detach().double().requires_grad_(i in wanted) for i, t in enumerate((x, w, b))]
        kernels_module.conv_gelu_torch(*double).square().sum().backward()
        assert [t.grad is not None for t in leaves] == [i in wanted for i in range(3)]
        found |= {("dx", "dw", "db")[i]: off(leaves[i].grad, double[i].grad) for i in wanted}
    return found


def expanded_gradients(device="cpu"):
    "A sum sends back one number that stands for all: a gradient without strides."
    torch.manual_seed(0)
    x, gain = torch.randn(1, 3, 4, 16, device=device), torch.randn(64, device=device)
    w, b = torch.randn(8, 16, 3, 3, device=device) / 12, torch.randn(8, device=device)
    found = {}
    for gelu in (True, False):

        def ours(*t, gelu=gelu):
            return kernels_module.conv_gelu(*t, gelu, "triton").sum()

        def theirs(*t, gelu=gelu):
            return kernels_module.conv_gelu_torch(*t, gelu).sum()

        found |= {f"{name} {gelu}": e for name, e in errors(ours, theirs, (x, w, b)).items()}

    def ours(*t):
        return kernels_module.shuffle_norm(*t, impl="triton").sum()

    def theirs(*t):
        return kernels_module.shuffle_norm_torch(*t).sum()

    return found | errors(ours, theirs, (x, gain, gain.flip(0)))


def no_copy(device="cpu"):
    """A class-token slice and a channels-last weight reach the op as they are: their memory, not a
    copy of it.
    """
    seen, real = [], kernels_module.launch_forward

    def spy(x, w, *rest):
        seen.append((x.data_ptr(), w.data_ptr()))
        return real(x, w, *rest)

    x, conv = (
        maps_of((2, 3, 4, 16), FLOAT, True, device),
        torch.nn.Conv2d(16, 8, 3, 2, 1, device=device).to(memory_format=torch.channels_last),
    )
    kernels_module.launch_forward = spy
    try:
        y = kernels_module.conv_gelu(x, conv.weight.detach(), conv.bias.detach(), impl="triton")
    finally:
        kernels_module.launch_forward = real
    assert seen == [(x.data_ptr(), conv.weight.data_ptr())], "something was copied"
    return {
        "y": off(
            y,
            kernels_module.conv_gelu_torch(
                x.double(), conv.weight.double(), conv.bias.double()
            ).detach(),
        )
    }


def under_autocast(device="cpu"):
    "Autocast reaches our ops as it reaches PyTorch's: the convolution in bf16, the norm in fp32."
    torch.manual_seed(0)
    x, w, b, gain, shift = (
        torch.randn(1, 5, 5, 16, device=device),
        torch.randn(8, 16, 3, 3, device=device) / 12,
        torch.randn(8, device=device),
        torch.randn(64, device=device),
        torch.randn(64, device=device),
    )
    with torch.autocast(device, dtype=BRAIN):
        pairs = [
            [kernels_module.conv_gelu(x, w, b, impl=i) for i in ("triton", "torch")],
            [
                kernels_module.shuffle_norm(x.to(BRAIN), gain, shift, impl=i)
                for i in ("triton", "torch")
            ],
        ]
    assert [[t.dtype for t in pair] for pair in pairs] == [[BRAIN] * 2, [FLOAT] * 2]
    assert off(*pairs[0]) < LIMITS[BRAIN]
    return {"y": off(*pairs[1])}


def module_case(kind, device="cpu"):
    """Notebook `downsampling`'s projectors, one module with impl='triton' and one with 'torch',
    equal weights.
    """
    from ferretlite.vision.downsampling import make_downsampler

    torch.manual_seed(0)
    ours = make_downsampler(kind, 16, 24, impl="triton").to(device)
    theirs = make_downsampler(kind, 16, 24, impl="torch").to(device).double()
    theirs.load_state_dict(ours.state_dict())
    x, place = (
        torch.randn(2, 5, 6, 16, device=device),
        torch.randn(1, *ours.out_cells((5, 6)), 24, device=device),
    )
    found = {
        "y": off(ours(x), theirs(x.double())),
        "place": off(ours(x, place), theirs(x.double(), place.double())),
    }
    for module, maps in ((ours, x), (theirs, x.double())):
        module(maps).square().sum().backward()
    return found | {
        name: off(p.grad, q.grad)
        for (name, p), q in zip(ours.named_parameters(), theirs.parameters())
    }


OTHERS = {
    "opcheck conv": opcheck_conv,
    "opcheck shuffle": opcheck_shuffle,
    "torch.compile": compiled,
    "partial gradients": partial_gradients,
    "expanded gradients": expanded_gradients,
    "no copy": no_copy,
    "autocast": under_autocast,
    "module conv": lambda device="cpu": module_case("conv", device),
    "module shuffle": lambda device="cpu": module_case("shuffle", device),
}


def interpreted_cases():
    "Name -> (limit, function that returns errors)."
    cases = {
        f"conv {name}": (LIMITS[c[2]], lambda c=c: small_tiles(lambda: conv_case(*c)))
        for name, c in CONV.items()
    }
    cases |= {
        f"conv {name}, shipped tile": (LIMITS[CONV[name][2]], lambda c=CONV[name]: conv_case(*c))
        for name in ("fp32 odd", "fp16 behind a class token", "bf16 behind a class token")
    }
    cases |= {
        f"forward tile {i}": (LIMITS[HALF], lambda i=i: tile_case(i))
        for i in range(len(KERNEL_TILES["forward"]))
    }
    cases |= {
        f"shuffle {name}": (LIMITS[c[2]], lambda c=c: shuffle_case(*c))
        for name, c in SHUFFLE.items()
    }
    return cases | {name: (LIMITS[FLOAT], f) for name, f in OTHERS.items()}


def tile_case(i, device="cpu"):
    """One shipped way to cut the forward, on a toy: loops over one tap or nine, GELU inside or
    behind.
    """
    kept = kernels.KERNEL_TILES
    kernels.KERNEL_TILES = kept | {"forward": (kept["forward"][i],)}
    try:
        return conv_case((1, 5, 4, 72), 136, HALF, True, True, device)
    finally:
        kernels.KERNEL_TILES = kept


# -- compiling for a GPU that is not there


def compile_cases():
    "Name -> (capability, kernel, types, constants, warps, stages)."
    cases = {}
    for arch in (80, 90):
        for kernel, tiles in KERNEL_TILES.items():
            for tile in tiles:
                if arch < tile.since:
                    continue
                cut = f"{tile.rows}x{tile.cols}x{tile.depth} in {tile.stages}" + (
                    f", {tile.span} taps" if kernel == "forward" else ""
                )
                for dtype, save in ((BRAIN, True), (BRAIN, False), (HALF, True)):
                    if (
                        (kernel != "forward" or not tile.fused)
                        and not save
                        or dtype == HALF
                        and tile is not tiles[0]
                    ):
                        continue
                    cases[
                        f"sm_{arch} {kernel} {cut} {NAMES[dtype]}" + ("" if save else " inference")
                    ] = (arch, kernel, dtype, tile, save)
        cases |= {
            f"sm_{arch} {kernel} fp32": (arch, kernel, FLOAT, FLOAT_TILE, True)
            for kernel in KERNEL_TILES
        }
        cases |= {
            f"sm_{arch} {kernel} {NAMES[dtype]}": (arch, kernel, dtype, None, True)
            for kernel, dtype in (
                ("gelu", BRAIN),
                ("gelu", HALF),
                *(
                    (f"shuffle {cells}{way}", dtype)
                    for cells, dtype in (
                        ("2x2x1024", BRAIN),
                        ("2x2x768", HALF),
                        ("2x2x1024", FLOAT),
                        ("3x3x256", BRAIN),
                    )
                    for way in ("", " backward")
                ),
            )
        }
    return cases


def compile_case(arch, kernel, dtype, tile, save):
    "Registers, spilled bytes, shared memory and the kinds of instructions of one kernel."
    if tile:
        constants, warps, stages = (
            kernels.list_compile_constants(kernel, tile, save),
            tile.warps,
            tile.stages,
        )
    elif kernel == "gelu":
        constants, warps, stages = dict(ROWS=64, COLS=64), 4, 3
    else:
        k, _, C = map(int, kernel.split()[1].split("x"))
        slots, block = kernels_module._block(C, k)
        constants, warps, stages = (
            dict(K=k, SLOTS=slots, BLOCK=block),
            kernels_module._warps(slots * block),
            3,
        )
    f = {
        "forward": kernels.conv_forward_kernel,
        "dx": kernels.conv_dx_kernel,
        "dw": kernels.conv_dw_kernel,
        "gelu": kernels.gelu_backward_kernel,
    }.get(kernel) or (
        kernels_module.shuffle_norm_backward_kernel
        if "backward" in kernel
        else kernels_module.shuffle_norm_kernel
    )
    found = kernels.measure_compiled_resources(f, dtype, constants, warps, stages, arch)
    ptx = found.pop("ptx")
    return found | dict(
        matrix=bool(re.search(r"wgmma\.mma_async|mma\.sync", ptx)),
        asynchronous=bool(re.search(r"cp\.async", ptx)),
    )


# -- on a GPU


def cuda_cases():
    "Name -> (limit, function that returns errors)."
    big = {
        f"conv {NAMES[d]} {'x'.join(map(str, shape))}{' behind a class token' if behind else ''}": (
            4 * LIMITS[d],
            lambda c=(shape, N, d, behind, True): conv_case(*c, device="cuda"),
        )
        for d in KERNEL_DTYPES
        for shape, N, behind in (
            ((2, 32, 32, 256), 320, True),
            ((1, 25, 30, 200), 136, True),
            ((2, 73, 73, 512), 640, False),
        )
    }
    big |= {
        f"shuffle {NAMES[d]} {'x'.join(map(str, shape))} of {k}": (
            4 * LIMITS[d],
            lambda c=(shape, k, d, True): shuffle_case(*c, device="cuda"),
        )
        for d in KERNEL_DTYPES
        for shape, k in (((2, 73, 73, 1024), 2), ((2, 31, 32, 200), 3), ((1, 50, 50, 768), 2))
    }
    small = {
        f"conv {name}": (4 * LIMITS[c[2]], lambda c=c: conv_case(*c, device="cuda"))
        for name, c in CONV.items()
    } | {
        f"shuffle {name}": (4 * LIMITS[c[2]], lambda c=c: shuffle_case(*c, device="cuda"))
        for name, c in SHUFFLE.items()
    }
    small |= {
        f"forward tile {i}": (4 * LIMITS[HALF], lambda i=i: tile_case(i, "cuda"))
        for i, t in enumerate(KERNEL_TILES["forward"])
        if torch.cuda.is_available() and torch.cuda.get_device_capability()[0] * 10 >= t.since
    }
    return (
        small
        | big
        | {name: (4 * LIMITS[FLOAT], lambda f=f: f("cuda")) for name, f in OTHERS.items()}
        | {
            "torch.compile, inductor": (4 * LIMITS[FLOAT], lambda: compiled("cuda", "inductor")),
            "auto": (LIMITS[BRAIN], auto_case),
        }
    )


def auto_case():
    "`auto` is one of the two, by the record; without a record it is PyTorch, to the bit."
    torch.manual_seed(0)
    x, w, b = (
        torch.randn(2, 32, 32, 256, device="cuda", dtype=BRAIN),
        torch.randn(256, 256, 3, 3, device="cuda", dtype=BRAIN) / 48,
        torch.randn(256, device="cuda", dtype=BRAIN),
    )
    os.environ["FERRETLITE_KERNELS"] = "no such file"
    try:
        assert torch.equal(
            kernels_module.conv_gelu(x, w, b), kernels_module.conv_gelu_torch(x, w, b)
        ), "no record, and yet not PyTorch"
    finally:
        del os.environ["FERRETLITE_KERNELS"]
    calls, real = [], kernels.launch_forward

    def spy(*args):
        calls.append(1)
        return real(*args)

    row = dict(
        op="conv",
        dtype="bfloat16",
        training=False,
        shape=[512, 256, 256],
        right=True,
        tiles={"forward": list(KERNEL_TILES["forward"][-1])},
        ms=dict(triton=1.0, triton_nchw=1.0, eager_nchw=2.0, eager_channels_last=0.5),
        cpu=dict.fromkeys(("triton", "triton_nchw", "eager_nchw", "eager_channels_last"), 0.1),
    )
    kernels_module.launch_forward = spy
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["FERRETLITE_KERNELS"] = f"{folder}/record.json"
            Path(folder, "record.json").write_text(json.dumps(dict(rows=[row])))
            y = kernels_module.conv_gelu(x, w, b)
            assert len(calls) == 1, "the record says that Triton wins for this layout"
            kernels_module.conv_gelu(x, w.contiguous(memory_format=torch.channels_last), b)
            assert len(calls) == 1, "the record says that PyTorch wins for this layout"
    finally:
        kernels_module.launch_forward = real
        del os.environ["FERRETLITE_KERNELS"]
    return {"y": off(y, kernels_module.conv_gelu_torch(x, w, b))}


def run(name, limit, case):
    "One case as a dict; what goes wrong is part of it."
    began = time.perf_counter()
    try:
        found = case()
        problem = "" if max(found.values()) <= limit else f"expected errors of at most {limit}"
    except Exception as error:
        found, problem = {}, f"{type(error).__name__}: {error}"[:3000]
    return dict(
        name=name, errors=found, problem=problem, seconds=round(time.perf_counter() - began, 2)
    )


def main(mode):
    torch.set_num_threads(1)
    if mode == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    wrong = 0
    if mode == "compile":
        for name, case in compile_cases().items():
            try:
                line = dict(name=name, **compile_case(*case))
            except Exception as error:
                line = dict(name=name, problem=f"{type(error).__name__}: {error}"[:3000])
            print(json.dumps(line), flush=True)
        return 0
    for name, (limit, case) in (interpreted_cases if mode == "interpret" else cuda_cases)().items():
        line = run(name, limit, case)
        wrong += bool(line["problem"])
        print(json.dumps(line), flush=True)
    if mode == "cuda":
        print(f"{wrong} wrong", flush=True)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
