"""A list of boxes that is too long is shortened with a number of token counts that grows like the
logarithm of its length.
"""

from ferretlite.data.mixtures import _shorten_list
from ferretlite.scenes.questions import Turn


def count_calls(n):
    """Shorten a list of n boxes to half of its letters; return calls and boxes that are kept."""
    answer = ", ".join("star [10, 10, 20, 20]" for _ in range(n))
    calls = []

    def length(text):
        calls.append(text)
        return len(text)

    turn = Turn("find_set", "Where?", answer)
    short = _shorten_list(turn, len(answer) // 2, length, (100, 100), "ferret")
    assert len(short.answer) <= len(answer) // 2 and short.answer.endswith("20]")
    return len(calls), short.answer.count("[")


def test_the_number_of_counts_grows_like_the_logarithm():
    assert count_calls(100)[1] == 50 and count_calls(1600)[1] == 800
    few, many = count_calls(100)[0], count_calls(1600)[0]
    assert many - few <= 5 and many <= 12
