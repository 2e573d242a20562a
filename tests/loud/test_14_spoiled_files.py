"""Item 14: whatever is spoiled in an annotation file of any format, only our own errors come.

`python tools/spoil_records.py` does this with 12,000 files.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import spoil_records  # noqa: E402


def test_spoiled_files_of_all_formats_cause_only_our_own_errors():
    faults = spoil_records.run(10 * len(spoil_records.SOURCES), seed=0)
    assert not faults, faults[0]
