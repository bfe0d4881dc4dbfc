"""Scopes: how they are written, and which are none that could be enforced."""

from __future__ import annotations

import pytest

from adapter.access.scopes import find_grant, parse_scopes
from adapter.access.tokens import issue_token
from adapter.bridge import Bridge
from adapter.errors import BadInput


@pytest.mark.parametrize(
    ("scope", "normal"),
    [
        ("system/Media.read", "system/Media.rs"),
        ("system/Media.write", "system/Media.cud"),
        ("system/*.*", "system/*.cruds"),
        ("system/Media.rs?view=http://a.b/c.d|x.read", "system/Media.rs?view=http://a.b/c.d|x.read"),
        ("right/original", "right/original"),
    ],
)
def test_scopes_are_kept_in_their_v2_spelling(scope: str, normal: str) -> None:
    assert parse_scopes(scope) == {normal}


@pytest.mark.parametrize(
    "scope",
    [
        "Media.rs",
        "system/Media.sr",
        "system/Media.",
        "system/Media.rs?colour=red",
        "system/*.rs?patient=1",
        "all",
        "system/Media.rs?created=yesterday",
        "system/Media.rs?created=ge2026-13",
        "system/Media.rs?patient.birthdate=1979-5",
        "system/Media.rs?patient.shoesize=43",
        "system/Media.rs?lesion:missing=perhaps",
        "system/Media.rs?view=,",
        "system/Media.rs?identifier=a%00b",
        "system/*.rs?_lastUpdated=soon",
    ],
)
def test_a_scope_that_could_not_be_enforced_is_not_granted(scope: str) -> None:
    with pytest.raises(BadInput):
        parse_scopes(scope)


def test_a_scope_is_taken_apart() -> None:
    grant = find_grant("system/Media.rs?patient=Patient/1&view=close-up")
    assert grant is not None
    assert grant.query == (("patient", "Patient/1"), ("view", "close-up"))


@pytest.mark.parametrize("scope", ["user/Media.rs", "patient/*.rs"])
def test_a_machine_cannot_be_given_scopes_of_people(bridge: Bridge, scope: str) -> None:
    with bridge.db.transaction() as tx, pytest.raises(BadInput):
        issue_token(tx, name="x", scope=scope, at=bridge.now())
