"""A bundle installs without a network, says what is missing, and keeps solutions at home."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ferretlite.app.bundling import write_bundle
from ferretlite.common.errors import InputError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def write_wheel(folder: Path, name: str) -> None:
    "A wheel with one module."
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": "here = True\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in (files | {f"{info}/RECORD": record}).items():
            wheel.writestr(path, text)


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A toy clone that needs one package ferrettoy and one on Windows, and a shop with both."""
    shop, place = tmp_path / "shop", tmp_path / "clone"
    shop.mkdir()
    for name in ("ferrettoy", "ferrettoy_windows"):
        write_wheel(shop, name)
    for key in [key for key in os.environ if key.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")
    for tool in ("PIP", "UV"):
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(shop))
    (place / "ferretlite").mkdir(parents=True)
    (place / "ferretlite" / "__init__.py").write_text("answer = 42\n")
    for folder in ("1_start", "_exercises", ".ipynb_checkpoints"):
        (place / "nbs" / folder).mkdir(parents=True)
        (place / "nbs" / folder / "first_light.ipynb").write_text("{}")
    (place / "nbs" / "course.toml").write_text("")
    (place / "pyproject.toml").write_text(
        "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n"
        "[project]\nname = 'ferretlite'\nversion = '1.0'\n"
        "dependencies = ['ferrettoy', 'ferrettoy_windows; sys_platform == \"win32\"']\n"
        "[project.optional-dependencies]\nnotebooks = []\n"
        "[tool.setuptools]\npackages = ['ferretlite']\n"
    )
    return place


def install(bundle: Path, monkeypatch) -> subprocess.CompletedProcess:
    "Run the installing program of a bundle without a shop; a registry would be noticed."
    for key in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    return subprocess.run(
        [sys.executable, bundle / "install.py"], capture_output=True, text=True, cwd=bundle.parent
    )


def names_of(folder: Path) -> set:
    return {path.name.split("-")[0] for path in folder.glob("*.whl")}


def test_a_bundle_installs_without_a_registry_and_says_what_is_missing(
    clone, tmp_path, monkeypatch
):
    bundle = write_bundle(clone, tmp_path / "class")
    assert names_of(bundle / "wheels") == {"ferretlite", "ferrettoy"}
    wheel = next((bundle / "wheels").glob("ferrettoy*"))
    wheel.rename(tmp_path / wheel.name)
    done = install(bundle, monkeypatch)
    assert (
        done.returncode
        and "ferrettoy" in done.stderr
        and "127.0.0.1" not in done.stdout + done.stderr
    )
    (tmp_path / wheel.name).rename(wheel)
    done = install(bundle, monkeypatch)
    assert done.returncode == 0, done.stderr
    python = bundle / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    code = "import ferretlite, ferrettoy; print(ferretlite.answer, ferrettoy.here)"
    told = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert told.stdout.split() == ["42", "True"], told.stderr


@pytest.mark.skipif(importlib.util.find_spec("uv") is None, reason="needs uv")
def test_another_system_gets_the_packages_that_it_needs(clone, tmp_path):
    bundle = write_bundle(clone, tmp_path / "class", ["windows", "mac"], PYTHON)
    assert names_of(bundle / "wheels") == {"ferretlite", "ferrettoy", "ferrettoy_windows"}
    mac = write_bundle(clone, tmp_path / "mac", ["mac"], PYTHON)
    assert names_of(mac / "wheels") == {"ferretlite", "ferrettoy"}
    assert "windows, mac" in (bundle / "README.txt").read_text()


def test_solutions_stay_at_home_and_a_failed_download_leaves_nothing(clone, tmp_path, monkeypatch):
    bundle = write_bundle(clone, tmp_path / "class.zip", libraries=False)
    with zipfile.ZipFile(bundle) as held:
        notebooks = [name for name in held.namelist() if name.endswith(".ipynb")]
    assert notebooks == ["class/nbs/1_start/first_light.ipynb"]
    for path in (tmp_path / "shop").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="ferrettoy"):
        write_bundle(clone, tmp_path / "broken")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["class.zip", "clone", "shop"]
