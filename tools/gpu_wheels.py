"""Print the packages that `tools/gpu_day.sh` carries: `python tools/gpu_wheels.py`.

One line for each package, with the version that is installed here: what ferretlite, its tests and
LoRA need, and everything those need in turn. PyTorch, Triton and NumPy are expected on the GPU
machine, since they have to fit each other. `datasets` is left out: no step reads tables, and it
would bring most of the bytes."""

from importlib.metadata import distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NEEDED = ("ferretlite", "peft", "pytest", "pytest-xdist", "hypothesis")
EXPECTED = {"torch", "triton", "numpy", "datasets"}


def list_requirements(name: str) -> list:
    "Return the names that an installed package requires without extras."
    found = map(Requirement, distribution(name).requires or [])
    here = dict(extra="", python_version="3.12", python_full_version="3.12.0")
    kept = [r for r in found if r.marker is None or r.marker.evaluate(here)]
    return [canonicalize_name(r.name) for r in kept]


def list_carried() -> dict:  # name -> version
    "Return the packages to carry: all requirements of requirements, without EXPECTED."
    found, waiting = {}, list(NEEDED)
    while waiting:
        name = waiting.pop()
        if name in found or name in EXPECTED:
            continue
        found[name] = distribution(name).version
        waiting += list_requirements(name)
    del found["ferretlite"]  # it runs from its clone
    return dict(sorted(found.items()))


if __name__ == "__main__":
    for name, version in list_carried().items():
        print(f"{name}=={version}")
