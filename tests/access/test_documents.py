"""Threat model, ASVS table and settings page say what is true: what they name exists, nothing is left out."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from adapter.settings import Settings

ROOT = Path(__file__).parents[2]
MODEL, ASVS = ((ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("threat-model", "asvs"))
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", MODEL + ASVS)))
ROWS = re.findall(r"^\| ([\d.]+) \| .+? \| (.+?) \| (.+?) \|$", ASVS, re.MULTILINE)
REQUIREMENTS = {  # ASVS 5.0.0, levels 1 and 2, by chapter
    **{1: 27, 2: 11, 3: 19, 4: 10, 5: 9, 6: 35, 7: 18, 8: 7, 9: 7},
    **{10: 29, 11: 14, 12: 9, 13: 13, 14: 9, 15: 13, 16: 16, 17: 7},
}


def test_the_threat_model_names_tests() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    text = (ROOT / file).read_text("utf-8")
    assert not name or f"def {name}(" in text


def test_every_requirement_of_the_asvs_is_answered_once_and_counted() -> None:
    ids = [row[0] for row in ROWS]
    assert len(ids) == len(set(ids))
    assert Counter(int(one.partition(".")[0]) for one in ids) == REQUIREMENTS
    states = Counter(state for _, state, _ in ROWS)
    assert set(states) == {"met", "partly", "not met", "n/a"}
    told = (states["met"], states["partly"], states["not met"], states["n/a"])
    assert "Of {} requirements {} are met, {} partly, {} not, and {} do not apply.".format(len(ids), *told) in ASVS


def test_every_module_and_page_that_the_asvs_table_names_exists() -> None:
    modules = re.findall(r"`((?:adapter|connectors|docker|mappings)/[\w/]+(?:\.py|\.sh)?)`", ASVS)
    pages = [f"docs/{one}" for one in re.findall(r"\]\(([\w-]+\.md)\)", ASVS)]
    assert [one for one in modules + pages if not (ROOT / one).exists()] == []


@pytest.mark.parametrize("name", ["clients", "staff_logins", "private_hosts", "emergency_minutes", "ehrs"])
def test_settings_about_access_are_described(name: str) -> None:
    assert name in Settings.model_fields
    assert name in (ROOT / "docs" / "settings.md").read_text("utf-8")
