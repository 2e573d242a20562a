"""Item 12: a name that is no folder is asked for once on the hub, and the sentence says so once."""

import pytest

from ferretlite.common.errors import InputError
from ferretlite.model import folders
from ferretlite.model.inference import Ferret


def test_a_name_that_the_hub_does_not_know_is_asked_for_once(monkeypatch):
    asked = []

    def find(place, name, **options):
        asked.append(name)
        assert options["_raise_exceptions_for_missing_entries"]
        raise OSError("We couldn't connect to the hub.\nCheck your connection.")

    monkeypatch.setattr(folders, "cached_file", find)
    with pytest.raises(InputError) as caught:
        Ferret.load("owner/name")
    assert asked == ["config.json"]
    assert str(caught.value) == (
        "The model owner/name cannot be loaded: found no such folder, and on the hub no "
        "config.json (We couldn't connect to the hub), expected a folder or a hub id; check the "
        "name and the network."
    )
