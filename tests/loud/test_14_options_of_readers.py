"""Item 14: each option of each reader has a form, so that a mixture can name it."""

import pytest

from ferretlite.data.recipes import _OPTIONS, FORMAT_READERS, _list_options


@pytest.mark.parametrize("name", FORMAT_READERS)
def test_each_option_has_a_form(name):
    assert set(_list_options(FORMAT_READERS[name])) <= set(_OPTIONS)
