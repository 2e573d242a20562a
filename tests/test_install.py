"What a user gets without extras: a wheel that carries the weights, imports, and answers."
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("nbdev", "execnb", "jupyter", "jupyterlab", "notebook", "nbformat", "nbclient", "nbconvert", "IPython", "ipykernel", "ipywidgets",
          "matplotlib_inline", "pycocotools", "pytest", "_pytest", "hypothesis", "triton")

BARE = f"""
import sys

class Without:
    "A finder that does not find what an install without extras does not have."
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        return None if top in {EXTRAS!r} or top.startswith("jupyter_") else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""

def python(code: str, folder: Path, **env) -> str:
    "The standard output of a fresh Python in which the extras are missing; a failure shows its error output."
    run = subprocess.run([sys.executable, "-c", BARE + code], cwd=folder, text=True, capture_output=True, env={**os.environ, **env})
    if run.returncode: pytest.fail(f"failed without extras:\n{run.stderr[-6000:]}", pytrace=False)
    return run.stdout

@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    "A folder with the wheel and the sdist, built from a copy of the tree by the build backend itself (no network)."
    copy, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in ("settings.ini", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "constraints-cpu.txt"): shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "ferretlite", copy / "ferretlite", ignore=shutil.ignore_patterns("__pycache__"))
    code = f"import setuptools.build_meta as b; b.build_wheel({str(out)!r}); b.build_sdist({str(out)!r})"
    run = subprocess.run([sys.executable, "-c", code], cwd=copy, text=True, capture_output=True)
    if run.returncode: pytest.fail(f"the build failed:\n{run.stderr[-4000:]}", pytrace=False)
    return out

@pytest.fixture(scope="session")
def installed(built, tmp_path_factory) -> Path:
    "The wheel, unpacked elsewhere."
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel: wheel.extractall(folder)
    return folder

def package_files() -> set:
    "Everything that belongs in an install: modules and weights."
    return {p.relative_to(ROOT).as_posix() for p in (ROOT / "ferretlite").rglob("*") if p.is_file() and "__pycache__" not in p.parts}

def test_there_are_weights_to_ship():
    names = {p.name for p in (ROOT / "ferretlite/weights/tiny").glob("*")}
    assert {"model.safetensors", "config.json", "eval.json"} <= names
    assert sum(p.stat().st_size for p in (ROOT / "ferretlite/weights/tiny").glob("*")) < 12e6
    assert {p.name for p in (ROOT / "ferretlite/weights/tiny-stages").glob("*")} == {"stage-1.safetensors", "stage-2.safetensors", "README.md"}
    assert sum(p.stat().st_size for p in (ROOT / "ferretlite/weights/tiny-griffon").glob("*")) < 12e6
    assert sum(p.stat().st_size for p in (ROOT / "ferretlite/weights").rglob("*") if p.is_file()) < 41e6
    assert not [n for n in names if n.endswith((".pt", ".pth", ".bin", ".pkl"))]

def test_wheel_holds_every_module_and_weight(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel: held = {n for n in wheel.namelist() if n.startswith("ferretlite/")}
    assert held == package_files()

def test_sdist_can_build_the_same_wheel(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist: held = {name.partition("/")[2] for name in sdist.getnames()}
    assert package_files() | {"settings.ini", "setup.py", "pyproject.toml", "README.md", "LICENSE"} <= held

def test_core_requirements_bring_no_notebook_tools(installed):
    meta = message_from_string(next(installed.glob("*.dist-info/METADATA")).read_text(encoding="utf-8"))
    core = {re.match(r"[\w.-]+", r)[0].lower() for r in meta.get_all("Requires-Dist") if "extra ==" not in r}
    assert {"torch", "transformers", "pillow"} <= core
    assert not core & {name.lower() for name in EXTRAS}
    assert set(meta.get_all("Provides-Extra")) == {"notebooks", "triton", "train", "eval", "ocr", "dev"}
    assert "ferretlite = ferretlite.cli:main" in next(installed.glob("*.dist-info/entry_points.txt")).read_text()

def test_every_module_imports_without_extras(installed):
    out = python("""
import importlib, pkgutil, ferretlite
for m in pkgutil.iter_modules(ferretlite.__path__):
    if m.name != "__main__": importlib.import_module(f"ferretlite.{m.name}"); print(m.name)
print(ferretlite.__file__)
""", installed, PYTHONPATH=str(installed)).split()
    assert "inference" in out and "cli" in out
    assert Path(out[-1]).is_relative_to(installed)

def test_shipped_model_answers_without_extras(installed):
    out = python("""
from ferretlite.inference import Ferret
from ferretlite.scenes import make_scene
scene = make_scene(0, split="test")
answer = Ferret.load("tiny").ask(scene.image, "What is in this region?", regions=[scene.objects[0].box])
print(answer.text)
""", installed, PYTHONPATH=str(installed))
    assert out.strip()
