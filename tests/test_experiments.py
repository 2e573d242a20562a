"Runs are made once, kept whole, and compared in pairs; a study that is stopped goes on."
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ferretlite.experiments import Claim, claim_lines, judge_claims, key_of, paired, run_once, run_study, verdict


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
    assert path.stem == key_of(settings) and record["settings"] == settings and record["result"] == dict(score=.5) and {"seconds", "resumed", "machine"} <= set(record)
    path.write_text(json.dumps(dict(record, settings=dict(settings, seed=2))))
    with pytest.raises(ValueError, match="holds a run with other settings"): run_once(settings, None, tmp_path)

def test_a_result_that_is_no_number_is_not_kept(tmp_path):
    with pytest.raises(ValueError): run_once(dict(seed=1), lambda s, f: dict(score=float("nan")), tmp_path)
    assert not list(tmp_path.glob("*.json"))

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
    assert abs(held / 2000 - .95) < .015

def test_verdicts():
    pair = lambda low, high: dict(low=low, high=high, difference=(low + high) / 2, detectable=.1, n=3)
    assert [verdict(pair(.1, .2)), verdict(pair(-.2, -.1)), verdict(pair(.1, .2), at_least=.3)] == ["yes", "no", "no"]
    assert verdict(pair(-.1, .2)) == "cannot tell"
    with pytest.raises(ValueError, match="at least two seeds"): paired(dict(a=[dict(s=1)], b=[dict(s=1)]), "a", "b", "s")

def test_reading_stops_before_the_first_gap(tmp_path):
    arms = dict(a=dict(arm="a"), b=dict(arm="b"))
    for seed in (0, 2): run_once(dict(arm="a", seed=seed), lambda s, f: dict(score=1.0), tmp_path)
    found = run_study(arms, 5, {}, None, tmp_path)
    assert [len(runs) for runs in found.values()] == [1, 0] # seed 2 without seed 1 would pair with another's

def test_claims_are_judged_by_their_own_rule():
    found = dict(a=[dict(s=v) for v in (.6, .7, .65)], b=[dict(s=v) for v in (.5, .6, .56)], c=[dict(s=.1)])
    claims = (Claim("a over b", "a", "b", "s"), Claim("a far over b", "a", "b", "s", .2), Claim("b over a", "b", "a", "s"), Claim("c over a", "c", "a", "s"))
    judged = judge_claims(claims, found)
    assert [(c.text, said) for c, _, said in judged] == [("a over b", "yes"), ("a far over b", "no"), ("b over a", "no")]
    assert re.match(r"a over b: \+0\.097 \[\+0\.0\d\d, \+0\.\d\d\d\], 3 pairs, 0\.\d\d\d would show: yes", claim_lines(judged)) and claim_lines([]) == ""

def test_two_processes_share_a_study_and_a_killed_one_leaves_no_lock(tmp_path):
    code = "import sys, time; from ferretlite.experiments import run_once; run_once(dict(seed=0), lambda s, f: print('at work', flush=True) or time.sleep(600), sys.argv[1])"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "at work\n"
        assert run_study(dict(a={}), 2, {}, lambda s, f: dict(score=s["seed"]), tmp_path) == dict(a=[]) # seed 0 is another's; seed 1 was made here
        assert len(list(tmp_path.glob("*.json"))) == 1
    finally: other.kill(); other.wait()
    assert run_study(dict(a={}), 2, {}, lambda s, f: dict(score=s["seed"]), tmp_path) == dict(a=[dict(score=0), dict(score=1)])

# The resolution study

def test_arms_differ_in_what_they_say_and_claims_name_arms_that_exist():
    from ferretlite.studies import ARMS, CLAIMS, SHARED, STUDIES, TOKENS_OR_SIZE
    assert len({json.dumps(a) for a in ARMS.values()}) == len(ARMS) == 7 and all(a["config"]["local_tower"] is None for a in ARMS.values())
    assert all({c.arm, c.against} <= set(ARMS) for c in CLAIMS + TOKENS_OR_SIZE) and any(c.metric.startswith("large") for c in CLAIMS)
    assert STUDIES["resolution"][2] == CLAIMS + TOKENS_OR_SIZE
    assert key_of({**SHARED, **ARMS["any"], "seed": 0}) != key_of({**SHARED, **ARMS["direct"], "seed": 0})

def test_every_run_of_the_study_is_kept_and_says_so_itself():
    "Three seeds of each arm on today's weights and stages, whose shares are those of their own rows; arms that differ in tokens see what their names say."
    from ferretlite.studies import ARMS, SHARED, shares, start_key
    assert SHARED["start"] == start_key(SHARED["tower"])
    found = run_study(ARMS, 9, SHARED, None, Path(__file__).parent.parent / "nbs/records/resolution")
    assert {arm: len(runs) for arm, runs in found.items()} == dict.fromkeys(ARMS, 3)
    for arm, runs in found.items():
        for run in runs: assert len(run["asked"]) == 1500 and all(run[name] == pytest.approx(share) for name, share in shares(run["asked"]).items()), arm
        if arm.endswith("tokens"): assert {run["tokens"] for run in runs} == {int(arm.split()[1])}

def test_rows_tell_what_was_right_and_how_tall_it_was():
    from ferretlite.evaluation import questions_about
    from ferretlite.grammar import parse_groundings
    from ferretlite.inference import Answer
    from ferretlite.scenes import make_scene
    from ferretlite.studies import ask_by_size, shares
    class Knowing:
        wrong = ()
        def ask(self, images, prompts, regions, crops, **options):
            answers = dict((q.turn.prompt, q.turn.answer) for i in range(5) for q in questions_about(make_scene(i, 384, "test"), f"0 test {i}", ("rec", "name")) if q.turn.task == "rec")
            names = {str(q.turn.regions): q.turn.answer for i in range(5) for q in questions_about(make_scene(i, 384, "test"), f"0 test {i}", ("name",))}
            return [Answer(names.get(str(r), ""), parse_groundings(answers.get(p, ""), (384, 384)), "", "stop", [], None, r, p) for p, r in zip(prompts, regions)]
    rows = ask_by_size(Knowing(), "test", 5)
    assert shares(rows)["test name"] == 1 and shares(rows)["test rec"] >= .8 and len(rows) == 10 # two scenes may ask in the same words
    assert all(3 < height < 384 and size in ("small", "medium", "large") for _, _, height, size, _ in rows)

def test_a_study_does_not_mix_runs_that_started_elsewhere(tmp_path):
    from ferretlite.studies import ARMS, SHARED, train_and_ask, start_key
    assert SHARED["start"] == start_key(SHARED["tower"]) != start_key("global")
    with pytest.raises(ValueError, match="starts from 0123, and this package"):
        train_and_ask({**SHARED, **ARMS["fixed"], "seed": 0, "start": "0123"}, tmp_path)
