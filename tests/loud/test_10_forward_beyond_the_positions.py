"""A row of more tokens than the language model has positions is refused in training as well."""

import pytest
import torch
from small_model import small_ferret

from ferretlite.common.errors import InputError


@pytest.fixture(scope="module")
def model():
    return small_ferret().model


def test_labels_beyond_the_positions_are_refused(model):
    limit = model.count_positions()
    ids = torch.full((1, limit + 1), 5)
    with pytest.raises(InputError, match=f"forward: found {limit + 1} tokens, expected at most"):
        model(input_ids=ids, labels=ids)
    assert model(input_ids=ids[:, :limit], labels=ids[:, :limit]).loss.isfinite()


def test_padding_does_not_count(model):
    limit = model.count_positions()
    ids = torch.full((1, limit + 4), 5)
    mask = torch.ones_like(ids)
    mask[:, :4] = 0
    with torch.no_grad():
        assert model(input_ids=ids, attention_mask=mask).logits.shape[1] == limit + 4
