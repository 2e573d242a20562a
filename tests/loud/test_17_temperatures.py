"""Item 17: a temperature is answered as the number it is, or refused in one sentence."""

import pytest
import torch

from ferretlite import Ferret, make_scene
from ferretlite.common.errors import InputError


@pytest.fixture(scope="module")
def ferret():
    return Ferret.load("tiny")


@pytest.mark.parametrize("temperature", [1, 2, 100])
def test_whole_numbers_are_temperatures(ferret, temperature):
    image = make_scene(0, size=64).image
    torch.manual_seed(0)  # one drawn token may be the end or a blank: eight are not
    assert ferret.ask(image, "What?", temperature=temperature, max_new_tokens=8).raw_text


def test_a_temperature_near_zero_is_refused(ferret):
    with pytest.raises(InputError, match="temperature: found 1e-38, expected 0, or from 0.01"):
        ferret.ask(make_scene(0, size=64).image, "What?", temperature=1e-38)
    with pytest.raises(InputError, match="temperature: found 1e-38, expected 0.01 or more"):
        ferret.model.generate(
            input_ids=torch.tensor([[1, 5]]), do_sample=True, temperature=1e-38, max_new_tokens=1
        )
