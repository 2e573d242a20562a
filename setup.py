"Packaging metadata: everything that can be said once is said in settings.ini."

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]


def requirements(key):
    "Split on blanks, except where a blank belongs to an environment marker (`name; marker`)."
    found = []
    for word in cfg.get(key, "").split():
        if found and (found[-1].endswith(";") or word.startswith(";")):
            found[-1] += " " + word
        else:
            found.append(word)
    return found


class BuildWithoutTools(build_py):
    "Leaves the modules of `ONLY_IN_A_CLONE` out of wheel and source distribution."

    ONLY_IN_A_CLONE = {"_export"}  # a step of nbdev-export, which needs the notebooks

    def find_package_modules(self, package, package_dir):
        found = super().find_package_modules(package, package_dir)
        return [module for module in found if module[1] not in self.ONLY_IN_A_CLONE]


extras = {
    name: requirements(f"requirements_{name}")
    for name in ("notebooks", "triton", "train", "eval", "captions", "onnx", "ocr", "docs")
}
extras["dev"] = sorted(sum(extras.values(), []) + requirements("requirements_dev"))
# not in `dev`: once torchao is installed, every program that uses transformers imports it
extras["quant"] = requirements("requirements_quant")
# for one test; not in `dev`: pip would add a second OpenCV, which needs the libraries of a screen
extras["lvis"] = requirements("requirements_lvis")

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    license=cfg["license"],
    description=cfg["description"],
    keywords=cfg["keywords"].split(),
    author=cfg["author"],
    author_email=cfg["author_email"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    # the folders of weights and records, too: setuptools counts every folder as a package
    packages=find_namespace_packages(
        include=["ferretlite", "ferretlite.*"], exclude=["*__pycache__*"]
    ),
    package_data={
        "ferretlite": [
            "weights/**/*",
            "records/**/*",
            "exercises/lessons/*.txt",
            "exercises/tables/*.json",
            "app/*.js",
            "py.typed",
        ]
    },
    cmdclass={"build_py": BuildWithoutTools},
    python_requires=f">={cfg['min_python']}",
    install_requires=requirements("requirements"),
    extras_require=extras,
    entry_points={
        "console_scripts": ["ferretlite=ferretlite.app.cli:main"],
        "lmms_eval.models": ["ferretlite=ferretlite.exams.lmms:list_models"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
    ],
)
