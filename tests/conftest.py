"Shared set-up: few threads, no network, and the markers `slow`, `cuda` and `triton`."
import os

os.environ.setdefault("OMP_NUM_THREADS", "1") # before torch is imported; subprocesses inherit it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the tests need no download: one that tries should fail

from importlib.util import find_spec

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("ci" if os.environ.get("CI") else "default")

def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")

def pytest_collection_modifyitems(config, items):
    "Skip what this machine or this run is not for."
    missing = {"slow": None if config.getoption("--slow") else "takes minutes: run with --slow",
               "cuda": None if torch.cuda.is_available() else "needs a CUDA GPU",
               "triton": None if find_spec("triton") else "needs the triton extra"}
    for item in items:
        for name, reason in missing.items():
            if reason and item.get_closest_marker(name): item.add_marker(pytest.mark.skip(reason=reason))
