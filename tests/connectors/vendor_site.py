"""A DermBridge with one destination, such as a simulated vendor: photos, patients, and the worker run by hand."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from PIL import Image
from sqlalchemy import select

from adapter.bridge import Bridge
from adapter.db.tables import delivery
from adapter.delivery import deliver_media, send_again
from adapter.delivery.destinations import Destinations
from adapter.delivery.lane import delivery_lane
from adapter.delivery.visit_sheets import make_sheets
from adapter.delivery.visits import KIND as VISIT_SHEET
from adapter.records import Stored, create, get, update_resource
from adapter.records.binaries import create_binary, whole_blob
from adapter.sandbox.vendors import Fault, RunningVendor, behaviour_names, running_vendor
from adapter.work import Lane, WorkLoop
from connectors.contract import Connector
from connectors.layers import merged
from mappings.terms import IDENTITY_STATE, URI
from tests.conftest import Clock

MRN = "urn:oid:2.16.840.1.113883.19.5"
VISIT = "urn:oid:2.16.840.1.113883.19.5.1"
TIMEOUTS = {"read": 2.0, "attempts": 1}

VENDORS = behaviour_names()
# The request that files the photo: method and the end of its path.
FILING = {
    "epic": ("POST", "/studies"),
    "oracle-health": ("POST", "/DocumentReference"),
    "athenaone": ("POST", "/documents/clinicaldocument"),
    "athenaflow": ("POST", "/DocumentReference"),
    "meditech": ("MLLP", ""),
    "modmed-ema": ("POST", "/DocumentReference"),
    "eclinicalworks": ("POST", "/fhir/r4/practice"),
    "nextgen": ("MLLP", ""),
    "veradigm": ("POST", "/SaveDocumentImage/commit"),
    "openemr": ("POST", "/document"),
    "medplum": ("POST", "/Media"),
    "hapi": ("POST", "/Media"),
    "canvas": ("POST", "/Media"),
    "pacs": ("POST", "/studies"),
    "hl7v2": ("MLLP", ""),
}
HTTP = [name for name in VENDORS if FILING[name][0] != "MLLP"]
# Nothing can be read back there: the receipt is the last word.
UNREAD = {"athenaone", "meditech", "modmed-ema", "nextgen", "hl7v2", "veradigm"}
# Nothing can be looked for there: after a lost answer a person must.
BLIND = {"athenaone", "meditech", "nextgen", "veradigm"}
# Nothing can be taken back there: a person must.
KEPT = {"epic", "athenaone", "modmed-ema", "openemr"}


def fault(name: str, kind: Any, **more: Any) -> Fault:
    method, path = FILING[name]
    return Fault(kind, method, path, **more)


def in_chart(name: str) -> str:
    return "accepted" if name in UNREAD else "confirmed"


def mrn(number: str) -> str:
    """The record number of patient p1, p2, ..."""
    return str(1000 + int(number))


def photo(number: int = 1) -> bytes:
    """A small JPEG, another one for each number."""
    out = io.BytesIO()
    Image.new("RGB", (64, 48), (number * 37 % 256, number // 7 % 256, 90)).save(
        out, "JPEG", comment=str(number).encode()
    )
    return out.getvalue()


class Crash(BaseException):
    """The process is gone: nothing catches it."""


class DeliverySite:
    """Patients are p1, p2 with record numbers 1001, 1002 and visits V1, V2; photos are m1, m2, ..."""

    def __init__(self, bridge: Bridge, clock: Clock, destination: dict[str, Any]) -> None:
        settings = bridge.settings.model_copy(update={"destinations": (destination,)})
        self.bridge = dataclasses.replace(bridge, settings=settings)
        self.clock = clock
        self.destinations = Destinations(self.bridge)
        (bridge.settings.data_dir / "secrets").mkdir(exist_ok=True)
        (bridge.settings.data_dir / "secrets" / "simulator").write_text("a-secret")
        for number in ("1", "2"):
            self.register(number)

    def register(self, number: str) -> None:
        """Make a patient with a visit known here."""
        with self.bridge.db.transaction() as tx:
            who = {"identifier": [{"system": MRN, "value": mrn(number)}], "birthDate": "1970-01-01"}
            create(tx, {"resourceType": "Patient", "id": f"p{number}"} | who, at=self.clock())
            visit = {"identifier": [{"system": VISIT, "value": f"V{number}"}], "status": "in-progress"}
            what = {"subject": {"reference": f"Patient/p{number}"}, "class": {"code": "AMB"}}
            create(tx, {"resourceType": "Encounter", "id": f"e{number}"} | visit | what, at=self.clock())

    def capture(self, number: int = 1, patient: str = "1") -> Stored:
        at, content = self.clock(), photo(number)
        sealed = self.bridge.vault.seal(content)
        with self.bridge.db.transaction() as tx:
            self.bridge.vault.keep(tx, sealed, content_type="image/jpeg", patient_id=f"p{patient}", at=at)
            row = whole_blob(
                sealed,
                binary_id=f"b{number}",
                content_type="image/jpeg",
                security_context=f"Media/m{number}",
                at=at,
            )
            create_binary(tx, row)
            media = create(tx, _media(number, patient, content), at=at)
            deliver_media(tx, self.bridge, media)
        return media

    def move(self, number: int, patient: str) -> None:
        """The photo turns out to be another patient's, as after a merge."""
        elements = {
            "subject": {"reference": f"Patient/p{patient}"},
            "encounter": {"reference": f"Encounter/e{patient}"},
        }
        with self.bridge.db.transaction() as tx:
            media = update_resource(tx, get(tx, "Media", f"m{number}").resource | elements, at=self.clock())
            deliver_media(tx, self.bridge, media)

    def run(self) -> None:
        """The worker does all that is due; after a crash a new process begins with nothing in memory."""
        lanes = {
            "deliver": delivery_lane(self.bridge, self.destinations),
            VISIT_SHEET: Lane(lambda item: make_sheets(self.bridge, item)),
        }
        try:
            WorkLoop(self.bridge.db, lanes, now=self.clock).run_until_idle()
        except Crash:
            self.destinations.close()
            self.destinations = Destinations(self.bridge)

    def in_the_middle(self, method: str, happens: Callable[[], None], *, after: bool) -> None:
        """Something happens, once: before or after the destination does what this method of the connector asks."""
        connector = self.destinations.get("x")
        real = getattr(connector, method)

        def meanwhile(*arguments: Any) -> Any:
            setattr(connector, method, real)
            if not after:
                happens()
            answer = real(*arguments)
            if after:
                happens()
            return answer

        setattr(connector, method, meanwhile)

    def crash(self) -> None:
        """For `in_the_middle`."""
        raise Crash

    def later(self, **span: float) -> None:
        """Some time on, the worker runs again."""
        self.clock.advance(**(span or {"minutes": 2}))
        self.run()

    def again(self, number: int = 1) -> None:
        """A person says: send again; then the worker runs."""
        row = self.rows(number)[-1]
        with self.bridge.db.transaction() as tx:
            send_again(tx, self.bridge, row.id)
        self.run()

    def rows(self, number: int = 1) -> list[Any]:
        with self.bridge.db.snapshot() as tx:
            mine = select(delivery).where(delivery.c.media_id == f"m{number}").order_by(delivery.c.media_version)
            return list(tx.execute(mine))

    def unsettled(self, settled: str) -> list[Any]:
        """The deliveries that are in no such state yet."""
        with self.bridge.db.snapshot() as tx:
            return list(tx.execute(select(delivery).where(delivery.c.state != settled)))


class VendorSite(DeliverySite):
    """The destination is a simulated vendor that knows both patients."""

    def __init__(self, bridge: Bridge, clock: Clock, running: RunningVendor, **changes: Any) -> None:
        self.vendor = running.vendor
        super().__init__(bridge, clock, merged(running.destination("x", timeouts=TIMEOUTS), changes))

    def register(self, number: str) -> None:
        super().register(number)
        self.vendor.admit(mrn(number), "1970-01-01", f"V{number}")

    def filed(self) -> list[tuple[str, str]]:
        """(patient number, document id) of everything that counts at the vendor."""
        return sorted((each.mrn, each.document_id) for each in self.vendor.filed())

    def numbers(self) -> list[str]:
        return [mrn for mrn, _ in self.filed()]


def _media(number: int, patient: str, content: bytes) -> dict[str, Any]:
    name = uuid.uuid5(uuid.NAMESPACE_OID, f"photo-{number}")
    return {
        "resourceType": "Media",
        "id": f"m{number}",
        "meta": {"tag": [{"system": IDENTITY_STATE, "code": "bound"}]},
        "identifier": [{"system": URI, "value": f"urn:uuid:{name}"}],
        "status": "completed",
        "subject": {"reference": f"Patient/p{patient}"},
        "encounter": {"reference": f"Encounter/e{patient}"},
        "createdDateTime": "2026-11-23T09:00:00Z",
        "issued": "2026-11-23T09:01:00Z",
        "content": {
            "contentType": "image/jpeg",
            "url": f"Binary/b{number}",
            "size": len(content),
            "hash": base64.b64encode(hashlib.sha1(content).digest()).decode(),
        },
    }


@contextmanager
def vendor_site(name: str, bridge: Bridge, clock: Clock, **changes: Any) -> Iterator[VendorSite]:
    with running_vendor(name) as running:
        site = VendorSite(bridge, clock, running, **changes)
        try:
            yield site
        finally:
            site.destinations.close()


def consent_says(permit: bool, because: str = "the patient withdrew consent") -> SimpleNamespace:
    return SimpleNamespace(permit=permit, because=because, consent_ids=())


Played = Callable[..., tuple[RunningVendor, Connector]]
Open = Callable[..., VendorSite]
