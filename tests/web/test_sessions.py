"""One's own sessions can be seen and ended; those of others by administrators alone, and it is in the audit log."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from adapter.access import Actor
from adapter.access.sessions import live_sessions, start_session
from adapter.bridge import Bridge
from adapter.records import find_where
from tests.conftest import Clock
from tests.web.conftest import Browser, sign_in


def ends(page: str) -> list[str]:
    return re.findall(r'action="(/sessions/[0-9a-f]{64}/end)"', page)


def test_one_sees_and_ends_ones_own_sessions_only(bridge: Bridge, app: Any, clinician: Browser) -> None:
    other_chart, administrator = sign_in(bridge, app, "clinician", "p2"), sign_in(bridge, app, "administrator", None)
    page = clinician.get("/sessions").text
    assert len(ends(page)) == 2 and "this one" in page
    here = ends(page.partition("this one")[2].partition("</tr>")[0])
    (elsewhere,) = [one for one in ends(page) if one not in here]
    assert clinician.post(elsewhere).headers["location"] == "/sessions?said=session-ended"
    assert other_chart.get("/patients/p2").status_code == 401
    assert clinician.get("/patients/p1").status_code == 200
    (theirs,) = ends(administrator.get("/sessions?user=Practitioner/administrator").text)
    assert clinician.post(theirs).status_code == 403
    assert len(ends(clinician.get("/sessions?user=Practitioner/administrator").text)) == 1  # still only their own
    assert administrator.get("/admin").status_code == 200


def test_an_administrator_ends_anothers_session_and_it_is_in_the_audit_log(
    bridge: Bridge, administrator: Browser, clinician: Browser
) -> None:
    assert len(ends(administrator.get("/sessions").text)) == 2
    (theirs,) = ends(administrator.get("/sessions?user=Practitioner/clinician").text)
    assert administrator.post(theirs).status_code == 303
    assert clinician.get("/patients/p1").status_code == 401
    assert administrator.post(theirs).status_code == 404
    with bridge.db.snapshot() as tx:
        events = [one.resource for one in find_where(tx, "AuditEvent")]
    (event,) = [one for one in events if any(code["code"] == "session-ended" for code in one.get("subtype", []))]
    assert "Practitioner/administrator" in str(event["agent"])
    assert f"session {theirs.split('/')[2][:12]} of Practitioner/clinician" in str(event)


def test_who_ends_the_session_they_are_in_is_signed_out(clinician: Browser) -> None:
    (own,) = ends(clinician.get("/sessions").text)
    assert clinician.post(own).headers["location"] == "/?said=session-ended"
    assert clinician.get("/sessions").status_code == 401


def test_idle_and_ended_sessions_are_not_listed(bridge: Bridge, clock: Clock) -> None:
    somebody = Actor("person", "Practitioner/x", "X", "clinician")
    with bridge.db.transaction() as tx:
        for hours in (1, 2):
            start_session(tx, somebody, at=bridge.now(), lifetime=timedelta(hours=hours))

    def listed(idle: timedelta) -> int:
        with bridge.db.snapshot() as tx:
            return len(live_sessions(tx, now=clock(), idle=idle, actor_id="Practitioner/x", limit=10))

    assert listed(timedelta(hours=3)) == 2
    clock.advance(minutes=61)
    assert listed(timedelta(hours=3)) == 1
    assert listed(timedelta(hours=1)) == 0
