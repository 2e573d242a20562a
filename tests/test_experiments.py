"Runs are made once, kept whole, and compared in pairs; a study that is stopped goes on."

import hashlib
import json
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ferretlite.evaluation.experiments import (
    Claim,
    _compare_arms,
    _compute_student_quantile,
    _hash_settings,
    _judge_difference,
    _run_once,
    format_claims,
    judge_claims,
    run_study,
)


def test_a_stopped_study_goes_on_and_makes_no_run_twice(tmp_path):
    made = []

    def work(settings, folder):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append((settings["arm"], settings["seed"]))
        return dict(score=float(len(made)))

    arms = dict(a=dict(arm="a"), b=dict(arm="b"))
    with pytest.raises(KeyboardInterrupt):
        run_study(arms, 3, dict(samples=5), work, tmp_path)
    assert made == [("a", 0), ("b", 0), ("a", 1)] and len(list(tmp_path.glob("*.json"))) == 3

    def rest(settings, folder):
        made.append((settings["arm"], settings["seed"]))
        return dict(score=0.0)

    found = run_study(arms, 3, dict(samples=5), rest, tmp_path)
    assert made[3:] == [("b", 1), ("a", 2), ("b", 2)] and [r["score"] for r in found["a"]] == [
        1.0,
        3.0,
        0.0,
    ]
    assert run_study(arms, 3, dict(samples=5), None, tmp_path) == found  # all read


def test_a_record_says_what_was_asked_for_and_others_are_refused(tmp_path):
    settings = dict(seed=1, grids=[[2, 2]], name="x")
    _run_once(settings, lambda s, f: dict(score=0.5), tmp_path)
    (path,) = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    assert (
        path.stem == _hash_settings(settings)
        and record["settings"] == settings
        and record["result"] == dict(score=0.5)
        and {"seconds", "resumed", "machine"} <= set(record)
    )
    path.write_text(json.dumps(dict(record, settings=dict(settings, seed=2))))
    with pytest.raises(ValueError, match="found a run with other settings"):
        _run_once(settings, None, tmp_path)


def test_a_result_that_is_no_number_is_not_kept(tmp_path):
    with pytest.raises(ValueError):
        _run_once(dict(seed=1), lambda s, f: dict(score=float("nan")), tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_keys_do_not_depend_on_order_and_notice_every_value():
    one = dict(a=1, b=dict(c=[1, 2], d=None))
    assert _hash_settings(one) == _hash_settings(dict(b=dict(d=None, c=[1, 2]), a=1))
    changed = [dict(one, a=2), dict(one, b=dict(c=[2, 1], d=None)), dict(one, e=0), {}]
    assert len({_hash_settings(s) for s in [one, *changed]}) == 5
    with pytest.raises(ValueError, match="what cannot be written down"):
        _hash_settings(dict(a=float("inf")))


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
def test_the_interval_keeps_its_promise(n):
    dice = np.random.default_rng(n)
    held = 0
    for row in dice.normal(0.3, 1, (2000, n)):
        pair = _compare_arms(
            dict(a=[dict(s=float(v)) for v in row], b=[dict(s=0.0)] * n), "a", "b", "s"
        )
        held += pair["low"] <= 0.3 <= pair["high"]
    assert abs(held / 2000 - 0.95) < 0.015


def test_verdicts():
    def pair(low, high):
        return dict(low=low, high=high, difference=(low + high) / 2, detectable=0.1, n=3)

    assert [
        _judge_difference(pair(0.1, 0.2)),
        _judge_difference(pair(-0.2, -0.1)),
        _judge_difference(pair(0.1, 0.2), at_least=0.3),
    ] == ["yes", "no", "no"]
    assert _judge_difference(pair(-0.1, 0.2)) == "cannot tell"
    with pytest.raises(ValueError, match="expected at least two"):
        _compare_arms(dict(a=[dict(s=1)], b=[dict(s=1)]), "a", "b", "s")


def test_reading_stops_before_the_first_gap(tmp_path):
    arms = dict(a=dict(arm="a"), b=dict(arm="b"))
    for seed in (0, 2):
        _run_once(dict(arm="a", seed=seed), lambda s, f: dict(score=1.0), tmp_path)
    found = run_study(arms, 5, {}, None, tmp_path)
    assert [len(runs) for runs in found.values()] == [
        1,
        0,
    ]  # seed 2 without seed 1 would pair with another's


def test_claims_are_judged_by_their_own_rule():
    found = dict(
        a=[dict(s=v) for v in (0.6, 0.7, 0.65)],
        b=[dict(s=v) for v in (0.5, 0.6, 0.56)],
        c=[dict(s=0.1)],
    )
    claims = (
        Claim("a over b", "a", "b", "s"),
        Claim("a far over b", "a", "b", "s", 0.2),
        Claim("b over a", "b", "a", "s"),
        Claim("c over a", "c", "a", "s"),
    )
    judged = judge_claims(claims, found)
    assert [(c.text, said) for c, _, said in judged] == [
        ("a over b", "yes"),
        ("a far over b", "no"),
        ("b over a", "no"),
    ]
    assert (
        re.match(
            r"a over b: \+0\.097 \[\+0\.0\d\d, \+0\.\d\d\d\], 3 pairs, 0\.\d\d\d would show: yes",
            format_claims(judged),
        )
        and format_claims([]) == ""
    )


def test_two_processes_share_a_study_and_a_killed_one_leaves_no_lock(tmp_path):
    """The other process holds the lock of seed 0, as `_run_once` does at work; it needs no torch
    for that.
    """
    lock = tmp_path / "work" / f"{_hash_settings(dict(seed=0))}.lock"
    lock.parent.mkdir(parents=True)
    code = (
        "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]);"
        " lock.acquire(); print('at work', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "at work\n"
        assert run_study(dict(a={}), 2, {}, lambda s, f: dict(score=s["seed"]), tmp_path) == dict(
            a=[]
        )  # seed 0 is another's; seed 1 was made here
        assert len(list(tmp_path.glob("*.json"))) == 1
    finally:
        other.kill()
        other.wait()
    assert run_study(dict(a={}), 2, {}, lambda s, f: dict(score=s["seed"]), tmp_path) == dict(
        a=[dict(score=0), dict(score=1)]
    )


def test_a_run_that_is_being_made_is_not_begun_again(tmp_path):
    began = []

    def work(settings, folder):
        began.append(_run_once(settings, lambda s, f: dict(score=2.0), tmp_path))
        return dict(score=1.0)

    assert _run_once(dict(seed=0), work, tmp_path) == dict(score=1.0) and began == [None]


# The resolution study


def test_arms_differ_in_what_they_say_and_claims_name_arms_that_exist():
    from ferretlite.evaluation.studies import (
        _RESOLUTION_ARMS,
        _RESOLUTION_CLAIMS,
        _RESOLUTION_SETTINGS,
        _TOKEN_CLAIMS,
        STUDIES,
    )

    assert len({json.dumps(a) for a in _RESOLUTION_ARMS.values()}) == len(
        _RESOLUTION_ARMS
    ) == 7 and all(a["config"]["local_tower"] is None for a in _RESOLUTION_ARMS.values())
    assert all(
        {c.arm, c.against} <= set(_RESOLUTION_ARMS) for c in _RESOLUTION_CLAIMS + _TOKEN_CLAIMS
    ) and any(c.metric.startswith("large") for c in _RESOLUTION_CLAIMS)
    assert STUDIES["resolution"][2] == _RESOLUTION_CLAIMS + _TOKEN_CLAIMS
    assert _hash_settings(
        {**_RESOLUTION_SETTINGS, **_RESOLUTION_ARMS["any"], "seed": 0}
    ) != _hash_settings({**_RESOLUTION_SETTINGS, **_RESOLUTION_ARMS["direct"], "seed": 0})


def test_every_run_of_the_study_is_kept_and_says_so_itself():
    """Three seeds of each arm on today's weights and stages, whose shares are those of their own
    rows; arms that differ in tokens see what their names say.
    """
    from ferretlite.evaluation.studies import (
        _RESOLUTION_ARMS,
        _RESOLUTION_SETTINGS,
        _hash_start_weights,
        _summarise_answers,
    )

    assert _RESOLUTION_SETTINGS["start"] == _hash_start_weights(_RESOLUTION_SETTINGS["tower"])
    found = run_study(
        _RESOLUTION_ARMS,
        9,
        _RESOLUTION_SETTINGS,
        None,
        Path(__file__).parent.parent / "nbs/records/resolution",
    )
    assert {arm: len(runs) for arm, runs in found.items()} == dict.fromkeys(_RESOLUTION_ARMS, 3)
    for arm, runs in found.items():
        for run in runs:
            assert len(run["asked"]) == 1500 and all(
                run[name] == pytest.approx(share)
                for name, share in _summarise_answers(run["asked"]).items()
            ), arm
        if arm.endswith("tokens"):
            assert {run["tokens"] for run in runs} == {int(arm.split()[1])}


def test_rows_tell_what_was_right_and_how_tall_it_was():
    from ferretlite.evaluation.studies import _ask_by_size, _summarise_answers
    from ferretlite.evaluation.suites import make_questions
    from ferretlite.model.answers import Answer
    from ferretlite.regions.grammar import parse_groundings
    from ferretlite.scenes.world import make_scene

    class Knowing:
        wrong = ()

        def ask(self, images, prompts, regions, crops, **options):
            answers = dict(
                (q.turn.prompt, q.turn.answer)
                for i in range(5)
                for q in make_questions(make_scene(i, 384, "test"), f"0 test {i}", ("rec", "name"))
                if q.turn.task == "rec"
            )
            names = {
                str(q.turn.regions): q.turn.answer
                for i in range(5)
                for q in make_questions(make_scene(i, 384, "test"), f"0 test {i}", ("name",))
            }
            return [
                Answer(
                    names.get(str(r), ""),
                    parse_groundings(answers.get(p, ""), (384, 384)),
                    "",
                    "stop",
                    [],
                    None,
                    r,
                    p,
                )
                for p, r in zip(prompts, regions)
            ]

    rows = _ask_by_size(Knowing(), "test", 5)
    assert (
        _summarise_answers(rows)["test name"] == 1
        and _summarise_answers(rows)["test rec"] >= 0.8
        and len(rows) == 10
    )  # two scenes may ask in the same words
    assert all(
        3 < height < 384 and size in ("small", "medium", "large") for _, _, height, size, _ in rows
    )


def test_a_study_does_not_mix_runs_that_started_elsewhere(tmp_path):
    from ferretlite.evaluation.studies import (
        _RESOLUTION_ARMS,
        _RESOLUTION_SETTINGS,
        _hash_start_weights,
        _train_and_ask,
    )

    assert (
        _RESOLUTION_SETTINGS["start"]
        == _hash_start_weights(_RESOLUTION_SETTINGS["tower"])
        != _hash_start_weights("global")
    )
    with pytest.raises(ValueError, match="found start=0123, expected"):
        _train_and_ask(
            {**_RESOLUTION_SETTINGS, **_RESOLUTION_ARMS["fixed"], "seed": 0, "start": "0123"},
            tmp_path,
        )


# Values from tables and worked out by hand


def test_a_key_is_the_start_of_the_sha256_of_sorted_json():
    text = b'{"a": [1.5, null, "\\u00e9"], "b": 1}'
    assert (
        _hash_settings(dict(b=1, a=[1.5, None, "é"]))
        == hashlib.sha256(text).hexdigest()[:12]
        == "4402241338ce"
    )
    for bad in (dict(a=float("nan")), dict(a={1, 2}), dict(a=object())):
        with pytest.raises(ValueError, match="what cannot be written down"):
            _hash_settings(bad)


def test_work_gets_its_settings_and_a_folder_of_its_own(tmp_path):
    out, seen = tmp_path / "deep" / "study", []

    def work(settings, folder):
        seen.append((settings, folder, folder.exists()))
        folder.mkdir()
        if len(seen) == 1:
            raise KeyboardInterrupt
        return dict(score=0.5)

    settings = dict(seed=4, grids=((2, 2),))
    key = _hash_settings(settings)
    with pytest.raises(KeyboardInterrupt):
        _run_once(settings, work, out)
    assert not list(out.glob("*.json"))
    (out / "work" / key).rmdir()
    assert _run_once(settings, work, out) == dict(score=0.5)
    assert seen == [(settings, out / "work" / key, False)] * 2
    record = json.loads((out / f"{key}.json").read_text())
    assert set(record) == {"settings", "result", "seconds", "resumed", "machine"}
    assert record["resumed"] is False and 0 <= record["seconds"] < 60
    assert record["machine"] == dict(
        python=platform.python_version(), torch=torch.__version__, threads=torch.get_num_threads()
    )
    assert _run_once(settings, None, str(out)) == dict(
        score=0.5
    )  # tuples and lists are the same settings
    assert _run_once(dict(seed=5), None, out) is None
    (out / "work" / _hash_settings(dict(seed=6))).mkdir()  # left by a run that was stopped
    assert _run_once(dict(seed=6), lambda s, f: dict(score=1.0), out) == dict(score=1.0)
    record = json.loads((out / f"{_hash_settings(dict(seed=6))}.json").read_text())
    assert record["resumed"] is True and not list(out.glob("*.part*"))


def test_seconds_are_those_of_the_work(tmp_path):
    _run_once(dict(seed=0), lambda s, f: time.sleep(0.1) or dict(score=1.0), tmp_path)
    [path] = tmp_path.glob("*.json")
    assert 0.1 <= json.loads(path.read_text())["seconds"] < 5


def test_arms_change_what_is_shared_and_seeds_come_last(tmp_path):
    asked, told = [], []

    def work(settings, folder):
        asked.append(settings)
        return dict(score=len(asked))

    arms = dict(a=dict(size=1), b=dict(size=2, seed=7))

    def done(*call):
        return told.append(call)

    found = run_study(arms, 2, dict(size=0, tower="x"), work, tmp_path, "arm", done)
    assert asked == [
        dict(size=1, tower="x", seed=0, arm="a"),
        dict(size=2, tower="x", seed=0, arm="b"),
        dict(size=1, tower="x", seed=1, arm="a"),
        dict(size=2, tower="x", seed=1, arm="b"),
    ]
    assert found == dict(a=[dict(score=1), dict(score=3)], b=[dict(score=2), dict(score=4)])
    assert told == [
        ("a", 0, dict(score=1)),
        ("b", 0, dict(score=2)),
        ("a", 1, dict(score=3)),
        ("b", 1, dict(score=4)),
    ]
    run_study(dict(a={}), 1, {}, work, tmp_path)
    assert asked[-1] == dict(seed=0)  # without `name_arm` the arm's name is no setting
    with pytest.raises(ValueError, match="seeds: found 0"):
        run_study(arms, 0, {}, work, tmp_path)


@pytest.mark.parametrize(
    "freedom, share, value",
    [  # a table of Student's distribution
        (1, 0.975, 12.7062),
        (2, 0.975, 4.30265),
        (3, 0.975, 3.18245),
        (4, 0.975, 2.77645),
        (9, 0.975, 2.26216),
        (29, 0.975, 2.04523),
        (1, 0.8, 1.37638),
        (2, 0.8, 1.06066),
        (9, 0.8, 0.88340),
        (4, 0.75, 0.74070),
        (1, 0.99, 31.8205),
        (5, 0.5, 0.0),
    ],
)
def test_students_distribution_by_the_table(freedom, share, value):
    assert _compute_student_quantile(freedom, share) == pytest.approx(value, abs=5e-5)


def test_a_pair_by_hand():
    """Differences .1, .1, .09: mean .096667, standard deviation .0057735, error .0033333.

    With two degrees of freedom 4.30265 errors each way, and 4.30265 + 1.06066 errors are found four
    times in five.
    """
    found = dict(
        a=[dict(s=0.6, t=9), dict(s=0.7, t=9), dict(s=0.65, t=9), dict(s=5.0, t=9)],
        b=[dict(s=0.5, t=9), dict(s=0.6, t=9), dict(s=0.56, t=9)],
    )
    pair = _compare_arms(found, "a", "b", "s")
    assert list(pair) == ["difference", "low", "high", "detectable", "n"] and pair["n"] == 3
    assert [type(v) for v in pair.values()] == [float] * 4 + [int]
    expected = [0.0966667, 0.0966667 - 0.0143422, 0.0966667 + 0.0143422, 0.0178777]
    assert list(pair.values())[:4] == pytest.approx(expected, abs=1e-6)
    back = _compare_arms(found, "b", "a", "s")
    assert [back["difference"], back["low"], back["high"]] == pytest.approx(
        [-pair[k] for k in ("difference", "high", "low")]
    )


def test_beyond_another_metric():
    "a over b by .3 and .5 in s, by .1 and .1 in t: .2 and .4 beyond it, .3 on average, error .1."
    found = dict(
        a=[dict(s=0.8, t=0.3), dict(s=0.9, t=0.5)], b=[dict(s=0.5, t=0.2), dict(s=0.4, t=0.4)]
    )
    pair = _compare_arms(found, "a", "b", "s", "t")
    assert pair["difference"] == pytest.approx(0.3) and pair["n"] == 2
    assert pair["low"] == pytest.approx(0.3 - 1.27062, abs=1e-5)
    assert pair["high"] == pytest.approx(0.3 + 1.27062, abs=1e-5)
    [(_, judged, said)] = judge_claims([Claim("more", "a", "b", "s", -1.5, "t")], found)
    assert judged == pair and said == "yes"


@pytest.mark.parametrize(
    "low, high, at_least, said",
    [
        (0.1, 0.3, 0.0, "yes"),
        (0.0, 0.3, 0.0, "cannot tell"),
        (-0.3, -0.1, 0.0, "no"),
        (-0.3, 0.0, 0.0, "cannot tell"),
        (-0.3, 0.1, 0.0, "cannot tell"),  # the mean is below, the interval is not
        (-0.1, 0.3, 0.0, "cannot tell"),
        (0.1, 0.3, 0.1, "cannot tell"),
        (0.1, 0.3, 0.09, "yes"),
        (0.1, 0.3, 0.25, "cannot tell"),
        (0.1, 0.3, 0.3, "cannot tell"),
        (0.1, 0.3, 0.31, "no"),
        (-0.3, -0.1, -0.5, "yes"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low, high, at_least, said):
    pair = dict(low=low, high=high, difference=(low + high) / 2, detectable=0.1, n=3)
    assert _judge_difference(pair, at_least) == said
    if at_least == 0:
        assert _judge_difference(pair) == said


def test_claims_are_a_table():
    claim = Claim("a over b", "a", "b", "s")
    assert (claim.at_least, claim.beyond) == (0.0, None)
    judged = [
        (claim, dict(difference=0.12345, low=-0.1, high=0.5, detectable=0.25, n=3), "cannot tell"),
        (claim, dict(difference=-1, low=-2, high=-0.5, detectable=0.75, n=12), "no"),
    ]
    assert format_claims(judged).splitlines() == [
        "a over b: +0.123 [-0.100, +0.500], 3 pairs, 0.250 would show: cannot tell",
        "a over b: -1.000 [-2.000, -0.500], 12 pairs, 0.750 would show: no",
    ]
    found = dict(a=[dict(s=0.5), dict(s=0.7)], b=[dict(s=0.1), dict(s=0.1)], c=[dict(s=0.1)])
    for claims in ([Claim("", "a", "c", "s")], [Claim("", "c", "a", "s")]):
        assert judge_claims(claims, found) == []
    # differences .4 and .6: .5 with an error of .1, low .5 - 1.27
    [(first, pair, said)] = judge_claims([Claim("", "a", "b", "s", -0.78)], found)
    assert pair["low"] == pytest.approx(-0.77062, abs=1e-5) and said == "yes"
