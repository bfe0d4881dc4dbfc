"""Destinations are read when a service starts, and a wrong one says where and what to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from adapter.bridge import Bridge
from adapter.delivery.destinations import Destinations, check_destinations
from adapter.errors import Misconfigured
from adapter.settings import Settings, load_settings


def settings(*destinations: dict[str, Any]) -> Settings:
    return load_settings(environment={}, destinations=destinations)


def folder(name: Any, tmp_path: Path) -> dict[str, Any]:
    return {"name": name, "based_on": "directory", "folder": str(tmp_path)}


def test_good_destinations_pass_without_being_asked(tmp_path: Path) -> None:
    ehr = {"name": "ehr", "based_on": "hapi", "base_url": "https://nobody.invalid/fhir"}
    check_destinations(settings(ehr, folder("files", tmp_path)))


@pytest.mark.parametrize("name", [None, "", 7])
def test_each_needs_a_name(tmp_path: Path, name: Any) -> None:
    with pytest.raises(Misconfigured, match=r"dermbridge\.toml: \[\[destinations\]\] number 2: key 'name'"):
        check_destinations(settings(folder("a", tmp_path), folder(name, tmp_path)))


def test_a_name_is_used_once(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="number 2: key 'name': 'a' is used twice"):
        check_destinations(settings(folder("a", tmp_path), folder("a", tmp_path)))


def test_a_wrong_key_is_named_with_file_entry_and_remedy(tmp_path: Path) -> None:
    wrong = folder("a", tmp_path) | {"colour": "blue"}
    with pytest.raises(Misconfigured, match=r"number 1: destination 'a'.*colour.*connectors\.md"):
        check_destinations(settings(wrong))
    with pytest.raises(Misconfigured, match="number 1"):
        check_destinations(settings({"name": "a", "based_on": "nothing-known"}))


def test_times_are_told_in_the_sites_zone_where_the_profile_names_none(bridge: Bridge, tmp_path: Path) -> None:
    given = (folder("ours", tmp_path), folder("theirs", tmp_path) | {"timezone": "America/New_York"})
    told = bridge.settings.model_copy(update={"time_zone": "Europe/Zurich", "destinations": given})
    opened = Destinations(dataclasses.replace(bridge, settings=told))
    assert [opened.profile(name).timezone for name in ("ours", "theirs")] == ["Europe/Zurich", "America/New_York"]
    assert opened.profile("ours").transform.link_base == told.base_url
