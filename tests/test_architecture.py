"""The picture of the whole model tells what the code does."""

import re

import pytest
from matplotlib.colors import to_rgb

from ferretlite.common import architecture
from ferretlite.common.architecture import draw_architecture
from ferretlite.common.errors import InputError
from ferretlite.training import stages

ORANGE = to_rgb("#f5a742")
PARTS = {  # block -> part of the model that learns
    "clip": "global_tower",
    "dino": "local_tower",
    "project": "global_projector",
    "project_tiles": "local_projector",
    "project_crop": "crop_projector",
    "sampler": "sampler",
    "model": "language_model",
}


def labels(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def orange_labels(figure) -> list[str]:
    """Return the texts of the highlighted blocks: texts lie in the middle of their blocks."""
    ax = figure.axes[0]
    blocks = [p.get_bbox() for p in ax.patches if p.get_facecolor()[:3] == ORANGE]
    texts = [t for t in ax.texts if t.get_text()]
    return [t.get_text() for t in texts if any(b.contains(*t.get_position()) for b in blocks)]


@pytest.mark.parametrize(
    "blocks, trained",
    [
        (architecture._FERRET_BLOCKS, stages.FERRET_STAGES),
        (architecture._GRIFFON_BLOCKS, stages._GRIFFON_STAGES),
    ],
    ids=["ferret", "griffon"],
)
def test_a_block_names_the_stages_that_train_its_part(blocks, trained):
    for name, block in blocks.items():
        learns = [s.name.split()[0] for s in trained if PARTS.get(name) in s.trains]
        assert block.stages == ", ".join(learns), name


@pytest.mark.parametrize("griffon", [False, True])
def test_a_part_highlights_its_blocks_and_no_others(griffon):
    blocks = architecture._GRIFFON_BLOCKS if griffon else architecture._FERRET_BLOCKS
    assert orange_labels(draw_architecture(griffon=griffon)) == []
    for part in {block.part for block in blocks.values()}:
        expected = [block.label for block in blocks.values() if block.part == part]
        assert orange_labels(draw_architecture(part, griffon)) == expected
    two = draw_architecture(("tokens", "language model"), griffon)
    assert orange_labels(two) == ["tokenizer", "language\nmodel"]


def test_the_picture_of_the_stages_writes_them_into_the_blocks():
    found = orange_labels(draw_architecture("stages"))
    assert "projector\nI, II, III" in found and "projector\nII, III" in found
    assert "sampler\nII, III" in found and "language\nmodel\nIII" in found and len(found) == 6
    assert not [text for text in labels(draw_architecture("sampler")) if "II" in text]


@pytest.mark.parametrize("griffon", [False, True])
def test_arrows_join_blocks_of_the_picture_from_left_to_right_or_downwards(griffon):
    blocks = architecture._GRIFFON_BLOCKS if griffon else architecture._FERRET_BLOCKS
    arrows = architecture._GRIFFON_ARROWS if griffon else architecture._FERRET_ARROWS
    assert len(set(arrows)) == len(arrows)
    for arrow in arrows:
        start, end = (blocks[name] for name in arrow.split("-"))
        assert start.x < end.x or (start.x == end.x and start.y > end.y)
        path = architecture._find_path(start, end)
        for (x, y), block in ((path[0], start), (path[-1], end)):  # on the edges of the blocks
            assert abs(x - block.x) <= block.width / 2 + 1e-9
            assert abs(y - block.y) <= block.height / 2 + 1e-9
        assert all(a[0] == b[0] or a[1] == b[1] for a, b in zip(path, path[1:]))  # no slopes


def test_an_unknown_part_is_refused_with_the_names_of_the_parts():
    with pytest.raises(InputError, match=re.escape("part: found 'coreferring', expected one of")):
        draw_architecture("coreferring")  # a part of Griffon
    draw_architecture("coreferring", griffon=True)
