"""A question and a chat template have a bound: what is larger is refused after little work."""

import sys

import pytest
from small_model import Scripted, save_small, tokenizer

from ferretlite.common.errors import InputError
from ferretlite.model import inference, towers
from ferretlite.model.inference import Ferret
from ferretlite.model.towers import CHAT_TEMPLATES, check_chat_template

ENDLESS = {
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}"
    "{% endfor %}{% endfor %}",
    "doubling": "{% set n = namespace(x='aa') %}{% for i in range(99) %}"
    "{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling of a variable": "{% set x = 'aa' %}"
    + "{% set x = x ~ x %}" * 40
    + "{{ messages[0].content }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
}


def test_a_question_has_at_most_a_hundred_thousand_characters(monkeypatch):
    opened = []
    monkeypatch.setattr(inference, "load_image", opened.append)
    ferret = Scripted()
    for n in (100_001, 10_000_000):
        with pytest.raises(InputError, match=f"found {n} characters, expected at most 100000"):
            ferret.ask("no-such-picture.png", "?" * n)
        with pytest.raises(InputError, match=f"found {n} characters"):
            ferret.ask(["no-such-picture.png"], ["What?", "?" * n])
    assert opened == [] and ferret.asked == []


def fresh(template):
    words = tokenizer().__class__(tokenizer_object=tokenizer().backend_tokenizer)
    words.bos_token, words.eos_token = "<s>", "</s>"
    words.chat_template = template
    return words


@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
def test_a_template_without_end_is_refused(template):
    with pytest.raises(InputError, match="chat template"):
        check_chat_template(fresh(template))


@pytest.mark.parametrize("template", [None, "{{ nothing.at.all }}", "{% if %}", "{{ 1 / 0 }}"])
def test_a_template_that_writes_no_question_is_refused(template):
    with pytest.raises(InputError, match="chat template"):
        check_chat_template(fresh(template))


def test_the_work_on_a_template_is_bounded_whatever_its_loops_say():
    """Ten times as many rounds cause no more steps than the bound."""
    steps = []
    for rounds in (9_999, 99_999):
        body = "{% for i in range(ROUNDS) %}{% set x = i %}{% endfor %}"
        with pytest.raises(InputError) as caught:
            check_chat_template(fresh(body.replace("ROUNDS", str(rounds))))
        frame, here = caught.tb, None
        while frame is not None:
            here, frame = frame.tb_frame.f_locals.get("steps", here), frame.tb_next
        steps.append(here)
    assert steps == [towers.MAX_TEMPLATE_STEPS + 1] * 2


@pytest.mark.parametrize("family", CHAT_TEMPLATES)
def test_templates_of_known_families_pass(family):
    trace = sys.gettrace()
    check_chat_template(fresh(CHAT_TEMPLATES[family]))
    assert sys.gettrace() is trace


def test_a_model_with_an_endless_template_is_not_loaded(tmp_path):
    save_small(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(ENDLESS["loops in loops"])
    with pytest.raises(InputError, match="cannot be loaded: chat template"):
        Ferret.load(tmp_path, device="cpu")
