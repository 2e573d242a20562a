"""Damaged annotation files and mixture files cause our own errors, and no others.

This is a sample; `python tools/mutate_records.py` makes 12,000 mutations."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import mutate_records  # noqa: E402


@pytest.mark.parametrize("name", mutate_records.TARGETS)
def test_mutations_raise_our_own_errors_alone(name):
    result = mutate_records.mutate_format(name, 15, seed=1)
    assert result.foreign == {} and sum(result.counts.values()) == 15
    assert result.counts["refused"] > 0


def test_the_same_seed_gives_the_same_mutations():
    one, two = (mutate_records.mutate_format("grit", 8, seed=3) for _ in range(2))
    assert one.words == two.words and one.counts == two.counts


def test_a_foreign_exception_is_found_and_gives_exit_code_1(monkeypatch, capsys):
    def broken(*_):
        raise KeyError("width")

    whole = mutate_records.read_target
    calls = []

    def read(*arguments):
        calls.append(1)
        return whole(*arguments) if len(calls) == 1 else broken()

    monkeypatch.setattr(mutate_records, "read_target", read)
    assert mutate_records.main(["--records", "3", "--formats", "grit"]) == 1
    assert "KeyError at test_14_mutated_records.py" in capsys.readouterr().out
