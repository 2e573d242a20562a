"""Item 9: `PeakMemory` counts what is made inside its block and nothing from outside."""

import pytest
import torch
from transformers import Dinov2Model

from ferretlite.common.files import WEIGHTS
from ferretlite.common.meters import PeakMemory
from ferretlite.vision.encoders import compute_tower_map


def test_weights_and_their_views_count_nothing():
    weight = torch.zeros(1000, 1000)  # 4,000,000 bytes
    with PeakMemory() as memory:
        product = torch.ones(1, 1000) @ weight.T  # 4000 bytes and 4000 bytes
    assert (memory.peak, memory.now) == (8000, 4000)
    del product
    assert memory.now == 0


def test_views_of_outside_parts_and_changes_in_place_count_nothing():
    outside = torch.zeros(100)
    with PeakMemory() as memory:
        first, rest = outside.split([10, 90])
        first.add_(1)
        rest[:5] = 2
        kept = outside.view(10, 10).T
    assert (memory.peak, memory.now) == (0, 0) and kept.shape == (10, 10)


@pytest.mark.parametrize("side, megabytes", [(96, 0.4), (192, 1.5), (384, 5.9)])
def test_what_a_look_of_the_local_tower_takes(side, megabytes):
    "The tower's own weights are 5.3 MB; they are not made by the look."
    tower = Dinov2Model.from_pretrained(WEIGHTS / "tiny-towers" / "local", dtype=torch.float32)
    with torch.no_grad(), PeakMemory() as memory:
        compute_tower_map(tower, torch.zeros(1, 3, side, side))
    assert memory.peak / 2**20 == pytest.approx(megabytes, abs=0.1)
