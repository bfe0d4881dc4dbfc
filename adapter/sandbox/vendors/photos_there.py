"""Photos that somebody else put into a simulated record before us: what the read side of a connector finds there."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from typing import Any

from adapter.sandbox.vendors.engine import Document, Vendor
from mappings.photo_to_dicom import DicomPlace, photo_to_dicom


def file_photo(
    vendor: Vendor,
    mrn: str,
    content: bytes,
    /,
    *,
    content_type: str = "image/jpeg",
    taken: str = "2026-03-02",
    **more: Any,
) -> str:
    """Put a photo into the record of a patient number and return its id there; `more` are elements of the resource."""
    behaviour = vendor.behaviour
    with vendor.guard:
        if behaviour.fhir and behaviour.fhir.photos:
            return _as_resource(vendor, mrn, content, content_type, taken, more)
        if behaviour.dicomweb:
            return _as_instance(vendor, mrn, content, taken)
    raise ValueError(f"{behaviour.name} has no photos of others")


def _as_resource(vendor: Vendor, mrn: str, content: bytes, content_type: str, taken: str, more: dict[str, Any]) -> str:
    behaviour = vendor.behaviour.fhir
    assert behaviour is not None
    photo_id = vendor.new_id()
    digest = base64.b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()
    attachment = {"contentType": content_type, "title": "Left cheek", "size": len(content), "hash": digest}
    attachment |= _address(vendor, content, content_type)
    told = {
        "id": photo_id,
        "meta": {"versionId": "1", "lastUpdated": "2026-03-02T10:00:00Z"},
        "subject": {"reference": f"Patient/pat-{mrn}"},
    }
    if behaviour.photos == "Media":
        own: dict[str, Any] = {"status": "completed", "createdDateTime": taken, "content": attachment}
    else:
        type_ = {"coding": [{"system": "http://loinc.org", "code": "72170-4"}], "text": "Photographic image"}
        own = {"status": "current", "type": type_, "content": [{"attachment": attachment | {"creation": taken}}]}
    vendor.resources[behaviour.photos, photo_id] = {"resourceType": behaviour.photos} | told | own | more
    return f"{behaviour.photos}/{photo_id}"


def _address(vendor: Vendor, content: bytes, content_type: str) -> dict[str, str]:
    behaviour = vendor.behaviour.fhir
    assert behaviour is not None
    if behaviour.photo_at == "inline":
        return {"data": base64.b64encode(content).decode()}
    if behaviour.photo_at == "signed":
        path = f"/kept/{vendor.new_id()}"
        vendor.kept[path] = content
        return {"url": f"{vendor.address}{path}?Expires=1800000000&Signature=abc"}
    binary_id = vendor.new_id()
    vendor.binaries[binary_id] = (content_type, content)
    base = f"{vendor.address}{behaviour.base}/" if behaviour.photo_at == "absolute" else ""
    return {"url": f"{base}Binary/{binary_id}"}


def _as_instance(vendor: Vendor, mrn: str, content: bytes, taken: str) -> str:
    import pydicom
    from pydicom.filebase import DicomBytesIO

    born = vendor.patients.get(mrn, "")
    made = photo_to_dicom(
        content,
        "image/jpeg",
        media={"createdDateTime": taken, "deviceName": "Camera of another"},
        patient={"birthDate": born},
        place=DicomPlace(mrn, "HOSP"),
        idempotency_key=vendor.new_id(),
        at=datetime(2026, 3, 2, tzinfo=UTC),
    )
    header = pydicom.dcmread(DicomBytesIO(made), stop_before_pixels=True)
    uid = str(header.SOPInstanceUID)
    vendor.documents[uid] = Document(uid, mrn, made, "application/dicom")
    return f"studies/{header.StudyInstanceUID}/series/{header.SeriesInstanceUID}/instances/{uid}"
