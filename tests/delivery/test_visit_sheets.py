"""A visit filed as one PDF: made once its photos are there, made again when they change, never with a wrong photo."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from adapter import consent
from adapter.bridge import Bridge
from adapter.db.tables import delivery, media
from adapter.delivery import deliver_media
from adapter.delivery.outbox import release_withheld
from adapter.delivery.visit_sheets import make_sheets
from adapter.delivery.visits import KIND
from adapter.records import Stored, find_where, get, update_resource
from adapter.work import Work, bury, claim, enqueue
from mappings.fhir_check import check_resource
from mappings.photos_to_picture import derivation_of, shown_on
from tests.compare.conftest import keep_rendition
from tests.conftest import Clock
from tests.connectors.vendor_site import DeliverySite, consent_says, photo
from tests.pdf_text import pdf_text

Open = Callable[..., DeliverySite]


@pytest.fixture
def permit(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What consent says of all photos but those `refused`."""
    said = consent_says(True)
    said.refused = set[str]()

    def decide_each(tx: Any, bridge: Bridge, asked: Sequence[tuple[str, Stored | None]]) -> list[SimpleNamespace]:
        no = consent_says(False, "the patient refuses this photo")
        return [no if media is not None and media.id in said.refused else said for _, media in asked]

    monkeypatch.setattr(consent, "decide_each", decide_each)
    return said


@pytest.fixture
def opened(bridge: Bridge, clock: Clock, tmp_path: Path, permit: SimpleNamespace) -> Iterator[Open]:
    sites = []

    def open_site(**changes: Any) -> DeliverySite:
        folder = {"name": "x", "kind": "directory", "folder": str(tmp_path / "out")}
        sites.append(DeliverySite(bridge, clock, folder | {"visit_sheet": "visit-report"} | changes))
        return sites[-1]

    yield open_site
    for site in sites:
        site.destinations.close()


def take(site: DeliverySite, *numbers: int, patient: str = "1") -> None:
    for number in numbers:
        site.capture(number, patient)
        keep_rendition(site.bridge, f"Media/m{number}", "display", photo(number), patient=f"p{patient}")


def sheets(site: DeliverySite) -> list[Stored]:
    """All there ever were, oldest first."""
    with site.bridge.db.snapshot() as tx:
        return find_where(tx, "Media", media.c.derivation.is_not(None))


def sent(site: DeliverySite, sheet: Stored) -> list[tuple[int, str]]:
    with site.bridge.db.snapshot() as tx:
        c = delivery.c
        wanted = select(c.media_version, c.state).where(c.media_id == sheet.id).order_by(c.media_version)
        return [(version, str(state)) for version, state in tx.execute(wanted)]


def shown(sheet: Stored) -> list[str]:
    return [media_id for media_id, _ in shown_on(sheet.resource)]


def pdf(tmp_path: Path, sheet: Stored) -> str:
    (file,) = (tmp_path / "out").glob(f"*/{sheet.id}/*.pdf")
    return pdf_text(file.read_bytes())


def change(site: DeliverySite, number: int, **elements: Any) -> None:
    with site.bridge.db.transaction() as tx:
        resource = get(tx, "Media", f"m{number}").resource | elements
        changed = {name: value for name, value in resource.items() if value is not None}
        deliver_media(tx, site.bridge, update_resource(tx, changed, at=site.clock()))


def test_a_visit_is_filed_as_one_pdf_once_its_photos_are_there(opened: Open, tmp_path: Path) -> None:
    site = opened(single_photos=False)
    take(site, 1, 2)
    site.run()
    assert sheets(site) == []
    site.later()
    (sheet,) = sheets(site)
    check_resource(sheet.resource)
    assert (derivation_of(sheet.resource), shown(sheet)) == ("visit-report", ["m1", "m2"])
    assert sheet.resource["encounter"] == {"reference": "Encounter/e1"}
    assert sent(site, sheet) == [(1, "confirmed")]
    assert "Visit V1: 2 photographs, page 1" in pdf(tmp_path, sheet) and "MRN 1001" in pdf(tmp_path, sheet)
    assert site.rows(1) == site.rows(2) == []


def test_photos_are_filed_one_by_one_beside_it_unless_the_profile_says_otherwise(opened: Open) -> None:
    site = opened()
    take(site, 1)
    site.later()
    assert [row.state for row in site.rows()] == ["confirmed"] and sent(site, *sheets(site)) == [(1, "confirmed")]


def test_a_photo_of_no_visit_goes_alone_all_the_same(opened: Open) -> None:
    site = opened(single_photos=False)
    take(site, 1)
    change(site, 1, encounter=None)
    site.later()
    assert [row.state for row in site.rows()] == ["confirmed"] and sheets(site) == []


def test_a_visit_that_gains_a_photo_gets_a_new_version_in_the_place_of_the_former(opened: Open, tmp_path: Path) -> None:
    site = opened()
    take(site, 1)
    site.later()
    take(site, 2)
    site.later()
    (sheet,) = sheets(site)
    assert (sheet.version_id, shown(sheet)) == (2, ["m1", "m2"])
    assert sent(site, sheet) == [(1, "superseded"), (2, "confirmed")]
    assert "2 photographs" in pdf(tmp_path, sheet)


def test_nothing_is_made_or_sent_again_while_the_visit_stays_as_it_is(opened: Open) -> None:
    site = opened()
    take(site, 1)
    site.later()
    with site.bridge.db.transaction() as tx:
        release_withheld(tx, site.bridge, "p1")
    site.later()
    (sheet,) = sheets(site)
    assert sent(site, sheet) == [(1, "confirmed")]


def test_a_sheet_that_shows_another_patients_photo_is_taken_back_and_made_without_it(opened: Open) -> None:
    site = opened()
    take(site, 1, 2)
    site.later()
    site.move(2, "2")
    site.later()
    wrong, left, other = sorted(sheets(site), key=lambda one: (one.resource["status"] == "completed", shown(one)))
    assert wrong.resource["status"] == "entered-in-error" and sent(site, wrong) == [(1, "retracted")]
    assert (shown(left), sent(site, left)) == (["m1"], [(1, "confirmed")])
    assert (shown(other), sent(site, other)) == (["m2"], [(1, "confirmed")])
    assert other.resource["subject"] == {"reference": "Patient/p2"}


@pytest.mark.parametrize("gone", [{"status": "entered-in-error"}, {"encounter": None}])
def test_a_visit_without_photos_has_no_sheet(gone: dict[str, Any], opened: Open) -> None:
    site = opened()
    take(site, 1)
    site.later()
    change(site, 1, **gone)
    site.run()  # at once: it shows what it should not
    (sheet,) = sheets(site)
    assert (sheet.resource["status"], sent(site, sheet)) == ("entered-in-error", [(1, "retracted")])


def test_a_photo_that_the_patient_refuses_is_left_out_until_it_is_permitted(
    opened: Open, permit: SimpleNamespace
) -> None:
    site = opened()
    permit.refused = {"m2"}
    take(site, 1, 2)
    site.later()
    (sheet,) = sheets(site)
    assert (shown(sheet), sent(site, sheet)) == (["m1"], [(1, "confirmed")])
    permit.refused = set()
    with site.bridge.db.transaction() as tx:
        release_withheld(tx, site.bridge, "p1")
    site.run()
    (sheet,) = sheets(site)
    assert (shown(sheet), sent(site, sheet)) == (["m1", "m2"], [(1, "superseded"), (2, "confirmed")])


def test_consent_is_decided_for_every_photo_again_before_the_sheet_leaves(
    opened: Open, permit: SimpleNamespace
) -> None:
    site = opened()
    take(site, 1, 2)
    site.clock.advance(minutes=2)
    (item,) = claim(site.bridge.db, KIND, limit=1, now=site.clock())
    make_sheets(site.bridge, item)
    permit.refused = {"m2"}
    site.run()
    (sheet,) = sheets(site)
    assert sent(site, sheet) == [(1, "withheld")]


def test_a_photo_that_comes_while_the_sheet_is_drawn_is_on_it(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    site = opened()
    take(site, 1)
    real, seal = site.bridge.vault.seal, []

    def meanwhile(data: bytes, **more: Any) -> Any:
        monkeypatch.undo()
        seal.append(data)
        take(site, 2)
        return real(data, **more)

    site.clock.advance(minutes=2)
    (item,) = claim(site.bridge.db, KIND, limit=1, now=site.clock())
    monkeypatch.setattr(site.bridge.vault, "seal", meanwhile)
    monkeypatch.setattr(consent, "decide_each", lambda tx, bridge, asked: [consent_says(True) for _ in asked])
    make_sheets(site.bridge, item)
    assert seal and sheets(site) == []
    monkeypatch.setattr(consent, "decide_each", lambda tx, bridge, asked: [consent_says(True) for _ in asked])
    site.later()
    (sheet,) = sheets(site)
    assert (shown(sheet), sent(site, sheet)) == (["m1", "m2"], [(1, "confirmed")])


def test_a_photo_still_being_prepared_is_waited_for_and_one_that_cannot_be_shown_is_named(
    opened: Open, tmp_path: Path
) -> None:
    site = opened()
    take(site, 1)
    site.capture(2)
    with site.bridge.db.transaction() as tx:
        render = Work(kind="render", idempotency_key="render:m2", payload={"media": "m2"})
        enqueue(tx, render, at=site.clock())
    site.later()
    assert sheets(site) == []
    (item,) = claim(site.bridge.db, "render", limit=1, now=site.clock())
    with site.bridge.db.transaction() as tx:
        bury(tx, item, reason="broken", remedy="look", blocks=False)
    site.later()
    (sheet,) = sheets(site)
    assert "Photo 2 cannot be shown here" in pdf(tmp_path, sheet)
