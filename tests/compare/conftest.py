"""Two photos of one patient that were compared before, so that what is done with a comparison needs no engine."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from adapter.access import SYSTEM, Actor
from adapter.access.policy import grants_of
from adapter.bridge import Bridge
from adapter.capture.receive import Upload, receive
from adapter.compare.comparing import ENGINE, PICTURES
from adapter.records import create, new_id
from adapter.records.binaries import create_binary, whole_blob
from adapter.records.comparisons import Comparison, keep_comparison
from adapter.sandbox.views import draw_view
from mappings.comparison_to_observation import View

VIEW = View("slider", zoom=2.5, x=0.25, y=0.125, blend=0.75)
RESULT: dict[str, Any] = {  # what docs/compare.md shows, kept here so that these tests need no engine
    "verdict": "aligned",
    "reasons": ["429 of 441 patches of skin are where the map says"],
    "transform": {"homography": [[1, 0, 3], [0, 1, -2], [0, 0, 1]], "bend_px": 4.5},
    "method": "key points, block correlation, spline",
    "version": "1",
    "change": {"method": "local light taken out", "version": "1", "threshold": 5, "regions": []},
    "width": 120,
    "height": 90,
}


def clinician(patient: str | None = "asa", name: str = "eve") -> Actor:
    return Actor("person", f"Practitioner/{name}", "Dr Eve", "clinician", *grants_of("clinician"), patient_id=patient)


def photo(bridge: Bridge, data: bytes, patient: str, **metadata: Any) -> str:
    media_id = receive(bridge, SYSTEM, Upload(data, {"patient": f"Patient/{patient}", **metadata})).id
    keep_rendition(bridge, f"Media/{media_id}", "display", data, patient=patient)
    return media_id


def compared(bridge: Bridge, left: str, right: str, result: dict[str, Any] = RESULT, *, patient: str = "asa") -> None:
    """As if the engine had been asked before."""
    found = Comparison(new_id(), left, right, ENGINE, result)
    with bridge.db.transaction() as tx:
        keep_comparison(tx, found, at=bridge.now())
    for name in PICTURES:
        keep_rendition(bridge, found.security_context, name, draw(7), patient=patient)


def keep_rendition(bridge: Bridge, context: str, name: str, data: bytes, *, patient: str = "asa") -> None:
    sealed, at = bridge.vault.seal(data), bridge.now()
    row = whole_blob(sealed, binary_id=new_id(), content_type="image/jpeg", security_context=context, at=at)
    with bridge.db.transaction() as tx:
        bridge.vault.keep(tx, sealed, content_type="image/jpeg", patient_id=patient, at=at)
        create_binary(tx, replace(row, rendition=name))


def draw(seed: int, size: tuple[int, int] = (120, 90)) -> bytes:
    return draw_view(seed, taken_at=datetime(2026, 3, 3, 9, seed, tzinfo=UTC), size=size)


@pytest.fixture
def pair(bridge: Bridge) -> tuple[str, str]:
    """Two photos of Patient/asa, of the same cheek, aligned."""
    with bridge.db.transaction() as tx:
        for patient in ("asa", "bo"):
            number = {"system": "urn:oid:1.2.3", "value": f"MRN-{patient}"}
            name = [{"family": "Łącka", "given": [patient.capitalize()]}]
            person = {"resourceType": "Patient", "id": patient, "active": True, "identifier": [number], "name": name}
            create(tx, person, at=bridge.now())
    first = photo(bridge, draw(1), "asa", taken_at="2026-03-03T09:00:00Z", body_site="36141000")
    later = photo(bridge, draw(2), "asa", taken_at="2026-06-03T09:00:00Z", body_site="36141000")
    compared(bridge, first, later)
    return first, later
