"Runs are made once, kept whole, and compared in pairs; a study that is stopped goes on."
import json

import numpy as np
import pytest

from ferretlite.experiments import STUDENT, key_of, paired, run_once, run_study, verdict


def test_a_stopped_study_goes_on_and_makes_no_run_twice(tmp_path):
    made = []
    def work(settings, folder):
        if len(made) == 3: raise KeyboardInterrupt
        made.append((settings["arm"], settings["seed"])); return dict(score=float(len(made)))
    arms = dict(a=dict(arm="a"), b=dict(arm="b"))
    with pytest.raises(KeyboardInterrupt): run_study(arms, 3, dict(samples=5), work, tmp_path)
    assert made == [("a", 0), ("b", 0), ("a", 1)] and len(list(tmp_path.glob("*.json"))) == 3
    def rest(settings, folder): made.append((settings["arm"], settings["seed"])); return dict(score=0.0)
    found = run_study(arms, 3, dict(samples=5), rest, tmp_path)
    assert made[3:] == [("b", 1), ("a", 2), ("b", 2)] and [r["score"] for r in found["a"]] == [1.0, 3.0, 0.0]
    assert run_study(arms, 3, dict(samples=5), None, tmp_path) == found # all read

def test_a_record_says_what_was_asked_for_and_others_are_refused(tmp_path):
    settings = dict(seed=1, grids=[[2, 2]], name="x")
    run_once(settings, lambda s, f: dict(score=.5), tmp_path)
    path, = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    assert path.stem == key_of(settings) and record["settings"] == settings and record["result"] == dict(score=.5) and {"seconds", "machine"} <= set(record)
    path.write_text(json.dumps(dict(record, settings=dict(settings, seed=2))))
    with pytest.raises(ValueError, match="holds a run with other settings"): run_once(settings, None, tmp_path)

def test_a_result_that_is_no_number_is_not_kept(tmp_path):
    with pytest.raises(ValueError): run_once(dict(seed=1), lambda s, f: dict(score=float("nan")), tmp_path)
    assert not list(tmp_path.glob("*"))

def test_keys_do_not_depend_on_order_and_notice_every_value():
    one = dict(a=1, b=dict(c=[1, 2], d=None))
    assert key_of(one) == key_of(dict(b=dict(d=None, c=[1, 2]), a=1))
    changed = [dict(one, a=2), dict(one, b=dict(c=[2, 1], d=None)), dict(one, e=0), {}]
    assert len({key_of(s) for s in [one, *changed]}) == 5
    with pytest.raises(ValueError, match="cannot be written down"): key_of(dict(a=float("inf")))

@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
def test_the_interval_keeps_its_promise(n):
    dice = np.random.default_rng(n)
    held = 0
    for row in dice.normal(.3, 1, (2000, n)):
        pair = paired(dict(a=[dict(s=float(v)) for v in row], b=[dict(s=0.0)] * n), "a", "b", "s")
        held += pair["low"] <= .3 <= pair["high"]
    assert abs(held / 2000 - .95) < .02 + (n > max(STUDENT) + 1) * .01

def test_verdicts():
    pair = lambda low, high: dict(low=low, high=high, difference=(low + high) / 2, detectable=.1, n=3)
    assert [verdict(pair(.1, .2)), verdict(pair(-.2, -.1)), verdict(pair(.1, .2), at_least=.3)] == ["yes", "no", "no"]
    assert "only effects above 0.100" in verdict(pair(-.1, .2))
    with pytest.raises(ValueError, match="at least two seeds"): paired(dict(a=[dict(s=1)], b=[dict(s=1)]), "a", "b", "s")
