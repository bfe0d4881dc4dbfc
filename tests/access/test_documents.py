"""The threat model and the settings page say what is true: every test they name exists, every setting is listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adapter.settings import Settings

ROOT = Path(__file__).parents[2]
MODEL = (ROOT / "docs" / "threat-model.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", MODEL)))


def test_the_threat_model_names_tests() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_the_threat_model_names_exists(file: str, name: str) -> None:
    text = (ROOT / file).read_text("utf-8")
    assert not name or f"def {name}(" in text


@pytest.mark.parametrize("name", ["clients", "staff_logins", "private_hosts", "emergency_minutes", "ehrs"])
def test_settings_about_access_are_described(name: str) -> None:
    assert name in Settings.model_fields
    assert name in (ROOT / "docs" / "settings.md").read_text("utf-8")
