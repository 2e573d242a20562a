"""Do the lowest versions that settings.ini admits work? Install these and run the fast tests.

python tools/lowest.py            install into a fresh environment and run the tests
python tools/lowest.py --list     print the versions that would be installed

Packages without a lower bound of ours take what the others need. The environment is made in a
temporary folder and removed afterwards; `--keep DIR` makes it in DIR and leaves it there.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

sys.path.insert(0, str(Path(__file__).resolve().parent))
import course  # noqa: E402

EXTRAS = ("train", "eval", "dev")  # what the tests need; the others are optional
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
    "golden",
    "trainer",
    "training",
    "readers",
    "formats",
    "cli",
)


def lowest_versions(settings: dict) -> list[str]:
    """Return `name==version` for every requirement with a lower bound."""
    keys = ["requirements", *(f"requirements_{extra}" for extra in EXTRAS)]
    pins = {}
    for word in " ".join(settings[key] for key in keys).split():
        requirement = Requirement(word)
        bounds = [s.version for s in requirement.specifier if s.operator in (">=", "==", "~=")]
        if bounds:
            pins[requirement.name] = bounds[0]
    pins.pop("setuptools")  # builds packages; the first release of 77 is 77.0.1
    return [f"{name}=={version}" for name, version in sorted(pins.items())]


def run(*command) -> None:
    print("$", *command, flush=True)
    subprocess.run([str(word) for word in command], check=True, cwd=course.ROOT)


def test_in(folder: Path, pins: list[str]) -> None:
    """Make an environment with exactly these versions and run the fast tests in it."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    constraints = folder / "lowest.txt"
    constraints.write_text("\n".join(pins) + "\n", encoding="utf-8")
    extras = ",".join(e for e in EXTRAS if e != "dev")
    tools = [pin for pin in pins if re.match(r"pytest|hypothesis|nbformat|gguf", pin)]
    run(python, "-m", "pip", "install", "-q", "-c", constraints, f".[{extras}]", *tools)
    run(python, "-m", "pip", "check")
    files = [f"tests/test_{name}.py" for name in FAST_TESTS]
    run(python, "-m", "pytest", "-q", "-n", "2", *files)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="print the versions and stop")
    parser.add_argument("--keep", type=Path, help="folder of the environment, which stays")
    options = parser.parse_args()
    pins = lowest_versions(course.read_settings(course.ROOT))
    if options.list:
        print("\n".join(pins))
    elif options.keep:
        test_in(options.keep.absolute(), pins)
    else:
        with tempfile.TemporaryDirectory() as folder:
            test_in(Path(folder), pins)


if __name__ == "__main__":
    main()
