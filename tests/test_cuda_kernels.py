"""The kernels on a real GPU: `pytest -m cuda`, or `python tests/kernel_jobs.py cuda` where pytest
is not installed.
"""

import pytest
from kernel_jobs import cuda_cases, run

pytestmark = [pytest.mark.cuda, pytest.mark.triton]
CASES = cuda_cases()


@pytest.mark.parametrize("name", CASES)
def test_on_the_gpu(name):
    line = run(name, *CASES[name])
    assert not line["problem"], line
