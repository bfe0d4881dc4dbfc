"""What the sandbox's pages show: patients, one chart, and what has been filed in it."""

from __future__ import annotations

import base64
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection

from adapter.errors import NotFound
from adapter.records import Resource, find, find_where, get
from adapter.records.binaries import get_binary, open_binary
from adapter.records.search_parameters import TABLES
from adapter.sandbox.adt import find_visit, identifier_of, mrn_of
from adapter.sandbox.ehr import VISIT_SYSTEM, SandboxEhr

FILED = ("Media", "DocumentReference")
_SEX = {"female": "Female", "male": "Male", "other": "Other"}


def patients(tx: Connection) -> list[Resource]:
    """Everybody who was not merged away."""
    column = TABLES["Patient"].c
    found = find_where(tx, "Patient", column.replaced_by.is_(None), order_by=column.family)
    return [one.resource for one in found]


def patient_row(tx: Connection, patient: Resource) -> dict[str, Any]:
    visit = find_visit(tx, patient["id"])
    return person(patient) | {
        "href": f"/patients/{patient['id']}",
        "visit": identifier_of(visit, VISIT_SYSTEM) if visit else None,
        "photos": len(filed(tx, patient["id"])),
    }


def person(patient: Resource) -> dict[str, Any]:
    name = patient["name"][0]
    family, given = name.get("family", ""), " ".join(name.get("given", []))
    born = patient.get("birthDate", "")
    return {
        "id": patient["id"],
        "name": f"{family}, {given}",
        "family": family,
        "given": given,
        "mrn": mrn_of(patient),
        "birth_date": date.fromisoformat(born) if len(born) == 10 else None,
        "sex": _SEX.get(patient.get("gender", ""), "Unknown"),
    }


def chart(ehr: SandboxEhr, tx: Connection, patient_id: str, tab: str) -> dict[str, Any]:
    """The context of chart.html, without title and user. Raises NotFound."""
    here = f"/patients/{patient_id}"
    shown = person(get(tx, "Patient", patient_id).resource)
    former = find_where(tx, "Patient", TABLES["Patient"].c.replaced_by == patient_id)
    visit = find_visit(tx, patient_id)
    return {
        "patient": shown
        | {
            "age": _age(shown["birth_date"], ehr.bridge.now().date()),
            "other_mrns": [mrn_of(one.resource) for one in former],
        },
        "visit": visit and {"label": "Dermatology clinic", "number": identifier_of(visit, VISIT_SYSTEM)},
        "tab": tab,
        "tab_hrefs": {name: f"{here}?tab={name}" for name in ("summary", "photos", "dermbridge")},
        "problems": [],
        "photos": filed(tx, patient_id),
        "launch_href": f"{here}/launch",
        "launch_frame_href": f"{here}/launch?frame=1",
        "dermbridge_origin": ehr.settings.dermbridge_origin,
        "adt": {f"{verb}_action": f"{here}/{verb}" for verb in ("update", "merge", "visit")},
        "others": [person(one) for one in patients(tx) if one["id"] != patient_id],
    }


def filed(tx: Connection, patient_id: str) -> list[dict[str, Any]]:
    """What clients filed in this chart and did not take back, newest first."""
    found = [one.resource for kind in FILED for one in find_where(tx, kind, TABLES[kind].c.patient == patient_id)]
    rows = [_filed_row(tx, one) for one in found if one.get("status") != "entered-in-error"]
    return sorted(rows, key=lambda row: row["at"], reverse=True)


def photo_bytes(ehr: SandboxEhr, tx: Connection, resource_type: str, resource_id: str) -> tuple[str, bytes]:
    """(media type, bytes) of a filed photo, through its Binary. Raises NotFound."""
    if resource_type not in FILED:
        raise NotFound("photos are Media or DocumentReference")
    attachment = attachment_of(get(tx, resource_type, resource_id).resource)
    if "data" in attachment:
        return attachment.get("contentType", "application/octet-stream"), base64.b64decode(attachment["data"])
    url = str(attachment.get("url", "")).removeprefix(f"{ehr.settings.fhir_base}/")
    kind, _, binary_id = url.partition("/")
    if kind != "Binary":
        raise NotFound("this photo is not kept here")
    row = get_binary(tx, binary_id)
    return row.content_type, open_binary(tx, ehr.bridge.vault, row).read()


def attachment_of(resource: Resource) -> Resource:
    content = resource.get("content", {})
    attachment: Resource = content[0].get("attachment", {}) if isinstance(content, list) else content
    return attachment


def _filed_row(tx: Connection, resource: Resource) -> dict[str, Any]:
    kind, attachment = resource["resourceType"], attachment_of(resource)
    at = resource.get("createdDateTime") or attachment.get("creation") or resource.get("date")
    href = f"/photos/{kind}/{resource['id']}"
    note = (resource.get("note") or [{"text": resource.get("description")}])[0]
    return {
        "title": _title(resource, attachment),
        "kind": kind,
        "at": _instant(at or resource["meta"]["lastUpdated"]),
        "author": _author(tx, resource.get("operator") or (resource.get("author") or [{}])[0]),
        "thumbnail": href,
        "href": href,
        "note": note.get("text"),
    }


def _title(resource: Resource, attachment: Resource) -> str:
    """What is shown: the body site before the name of a file."""
    site = resource.get("bodySite", {})
    named = [one["display"] for one in site.get("coding", []) if "display" in one]
    return site.get("text") or next(iter(named), None) or attachment.get("title") or "Photograph"


def _author(tx: Connection, reference: Resource) -> str:
    kind, _, resource_id = str(reference.get("reference", "")).rpartition("/")
    known = find(tx, "Practitioner", resource_id) if kind.endswith("Practitioner") else None
    return str(reference.get("display") or (known.resource["name"][0].get("text", "") if known else ""))


def _instant(fhir_time: str) -> datetime:
    """A FHIR dateTime of any precision as an aware datetime."""
    padded = {4: f"{fhir_time}-01-01", 7: f"{fhir_time}-01"}.get(len(fhir_time), fhir_time)
    at = datetime.fromisoformat(padded)
    return at if at.tzinfo else at.astimezone()


def _age(born: date | None, today: date) -> str:
    if born is None:
        return "age unknown"
    return f"{today.year - born.year - ((today.month, today.day) < (born.month, born.day))} y"
