"""The DICOMweb side of a simulated archive: STOW-RS, QIDO-RS for one instance, WADO-RS, DELETE where it is offered."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from adapter.sandbox.vendors.behaviour import DicomWebBehaviour
from adapter.sandbox.vendors.engine import Document, Fault, Request, Response
from mappings.dicom_rejection import KEY_OBJECT_SELECTION
from mappings.dicom_to_photo import PHOTO_TAGS

if TYPE_CHECKING:
    from adapter.sandbox.vendors.engine import Vendor

_LEVEL = re.compile(r"(studies|series|instances)$")
_OWN_UID = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}
_PROCESSING_FAILURE = "0110"
_DUPLICATE = 0x0111


def respond(vendor: Vendor, behaviour: DicomWebBehaviour, request: Request, fault: Fault | None) -> Response:
    """Instances are kept as they came."""
    if request.method == "POST":
        return _store(vendor, behaviour, request, fault)
    if "SOPInstanceUID" in request.query:
        uid = request.query["SOPInstanceUID"]
        document = vendor.documents.get(uid) or vendor.rejections.get(uid)
        return Response.json(200, [_tags(document.content)]) if document and document.active else Response(204)
    if request.method == "GET" and (level := _LEVEL.search(request.path)):
        return _search(vendor, level[0], request)
    return _instance(vendor, behaviour, request)


def _instance(vendor: Vendor, behaviour: DicomWebBehaviour, request: Request) -> Response:
    path = request.path.removesuffix("/metadata")
    document = vendor.documents.get(path.rpartition("/")[2])
    if document is None or not document.active:
        return Response(404)
    if path != request.path:
        return Response.json(200, [_tags(document.content)])
    if request.method == "DELETE":
        document.active = not behaviour.deletes
        return Response(204 if behaviour.deletes else 405)
    body = b"--frame\r\nContent-Type: application/dicom\r\n\r\n" + document.content + b"\r\n--frame--\r\n"
    return Response(200, body, {"Content-Type": 'multipart/related; type="application/dicom"; boundary=frame'})


def _search(vendor: Vendor, level: str, request: Request) -> Response:
    """QIDO-RS at one level, by PatientID and Modality, within the study and series of the path (PS3.18 10.6)."""
    held = [_tags(each.content) for each in vendor.documents.values() if each.active]
    asked = {"00100020": request.query.get("PatientID")}
    asked["00080060"] = request.query.get("Modality") or request.query.get("ModalitiesInStudy")
    within = dict(
        zip(("0020000D", "0020000E"), re.findall(r"/(?:studies|series)/([0-9.]+)", request.path), strict=False)
    )
    wanted = {tag: value for tag, value in (asked | within).items() if value}
    found = [one for one in held if all(one.get(tag, {}).get("Value") == [value] for tag, value in wanted.items())]
    own = {str(one[_OWN_UID[level]]["Value"]): one for one in found}
    return Response.json(200, list(own.values())) if own else Response(204)


def _store(vendor: Vendor, behaviour: DicomWebBehaviour, request: Request, fault: Fault | None) -> Response:
    import pydicom

    found = re.search(r"boundary=([^;]+)", request.headers["content-type"])
    assert found is not None
    part = request.body.split(f"--{found[1]}".encode())[1].partition(b"\r\n\r\n")[2][:-2]
    dataset = pydicom.dcmread(io.BytesIO(part), stop_before_pixels=True)
    uid = str(dataset.SOPInstanceUID)
    if fault and fault.kind == "empty-stow":  # says 200 and keeps nothing
        return Response.json(200, {})
    if fault and fault.kind == "nack":
        return Response.json(202, _result("00081198", uid, int(fault.code or _PROCESSING_FAILURE, 16)))
    if uid in vendor.documents and behaviour.second_time == "409":
        return Response.json(409, _result("00081198", uid, _DUPLICATE))
    vendor.documents[uid] = Document(uid, str(dataset.PatientID), part, "application/dicom")
    if dataset.SOPClassUID == KEY_OBJECT_SELECTION:
        _reject(vendor, dataset, uid)
    return Response.json(200, _result("00081199", uid, None))


def _reject(vendor: Vendor, note: Any, uid: str) -> None:
    """What a rejection note names counts no more; the note itself is no photo."""
    vendor.rejections[uid] = vendor.documents.pop(uid)
    for item in note.ContentSequence:
        vendor.documents[str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)].active = False


def _result(sequence: str, uid: str, reason: int | None) -> dict[str, Any]:
    item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if reason is not None:
        item["00081197"] = {"vr": "US", "Value": [reason]}
    return {sequence: {"vr": "SQ", "Value": [item]}}


def _tags(content: bytes) -> dict[str, Any]:
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
    return {tag: held for tag, held in dataset.to_json_dict().items() if tag in PHOTO_TAGS.values()}
