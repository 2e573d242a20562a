"""Do the lowest versions that settings.ini admits work? Install these and run the fast tests.

python tools/lowest.py             install into a fresh environment and run the tests
python tools/lowest.py --keep DIR  make the environment in DIR and leave it there

Needs uv (`pip install uv`), which can resolve to the lowest versions. PyTorch's default build
brings several gigabytes of CUDA libraries.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import course  # noqa: E402

EXTRAS = "train,eval,onnx"
TEST_TOOLS = ("pytest", "hypothesis", "nbformat", "gguf")  # prefixes of requirements_dev
FAST_TESTS = (
    "geometry",
    "grammar",
    "resolution",
    "sampler",
    "fusion",
    "downsampling",
    "model",
    "processor",
    "inference",
    "step_graph",
    "golden",
    "trainer",
    "training",
    "readers",
    "formats",
    "cli",
)


def run(*command, **environment) -> None:
    print("$", *command, flush=True)
    words, env = [str(word) for word in command], os.environ | environment
    subprocess.run(words, check=True, cwd=course.ROOT, env=env)


def test_in(folder: Path) -> None:
    """Make an environment with the lowest versions and run the fast tests in it."""
    asked = course.read_settings(course.ROOT)["requirements_dev"].split()
    tools = [r for r in asked if r.startswith(TEST_TOOLS)]
    run("uv", "venv", "-q", "--python", sys.executable, folder)
    python = folder / "bin" / "python"
    lowest = ("--resolution", "lowest-direct", "--python", python)
    run("uv", "pip", "install", *lowest, f".[{EXTRAS}]", *tools)
    run("uv", "pip", "check", "--python", python)
    files = [f"tests/test_{name}.py" for name in FAST_TESTS]
    run(python, "-m", "pytest", "-q", *files, CI="1", OMP_NUM_THREADS="1")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, help="folder of the environment, which stays")
    options = parser.parse_args()
    if options.keep:
        test_in(options.keep.absolute())
        return
    with tempfile.TemporaryDirectory() as folder:
        test_in(Path(folder) / "environment")


if __name__ == "__main__":
    main()
