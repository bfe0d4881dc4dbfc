"""/admin: queues, dead letters with replay, destinations checked on demand; for who operates, and without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from adapter.app import build_app
from adapter.bridge import Bridge
from adapter.db.tables import work
from adapter.work import Work, enqueue
from tests.web.conftest import Browser, sign_in


@pytest.fixture
def engineer(bridge: Bridge, tmp_path: Path) -> Browser:
    (tmp_path / "out").mkdir()
    known = (
        {"name": "files", "based_on": "directory", "folder": str(tmp_path / "out")},
        {"name": "broken", "based_on": "nothing-known", "base_url": "https://user:geheim@ehr.example/fhir"},
    )
    object.__setattr__(bridge, "settings", bridge.settings.model_copy(update={"destinations": known}))
    return sign_in(bridge, build_app(bridge), "engineer", None)


def bury_one(bridge: Bridge, kind: str) -> int:
    with bridge.db.transaction() as tx:
        enqueue(tx, Work(kind=kind, idempotency_key=f"{kind}:1"), at=bridge.now())
        gone = update(work).values(state="dead", reason="cannot be decoded", remedy="look at it").returning(work.c.id)
        return int(tx.execute(gone.where(work.c.idempotency_key == f"{kind}:1")).scalar_one())


def test_it_shows_how_the_work_stands_and_a_dead_letter_is_tried_again(bridge: Bridge, engineer: Browser) -> None:
    work_id = bury_one(bridge, "render")
    bury_one(bridge, "apply-adt")
    page = engineer.get("/admin").text
    assert "cannot be decoded" in page and "look at it" in page
    assert page.count("Try again") == 1  # ADT messages are dealt with on the worklist
    assert engineer.post(f"/admin/work/{work_id}/replay").status_code == 303
    assert "Try again" not in engineer.get("/admin").text
    assert engineer.post(f"/admin/work/{work_id}/replay").status_code == 404


def test_a_destination_is_checked_on_demand(engineer: Browser) -> None:
    assert "findings" not in engineer.get("/admin").text
    answer = engineer.post("/admin/destinations/files/check")
    assert answer.status_code == 200 and "findings" in answer.text
    broken = engineer.post("/admin/destinations/broken/check").text
    assert "badge-error" in broken


def test_no_secret_is_shown(engineer: Browser) -> None:
    page = engineer.get("/admin").text
    assert "https://ehr.example/fhir" in page and "geheim" not in page


def test_it_needs_the_right_to_operate(bridge: Bridge, clinician: Browser) -> None:
    work_id = bury_one(bridge, "render")
    assert clinician.get("/admin").status_code == 403
    for path in (f"/admin/work/{work_id}/replay", "/admin/destinations/files/check"):
        assert clinician.post(path).status_code == 403
