"""Unity (Veradigm), as public wrappers show it: one address, actions as JSON, documents in pieces and then a commit."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

from adapter.sandbox.vendors.behaviour import UnityBehaviour
from adapter.sandbox.vendors.engine import Document, Request, Response

if TYPE_CHECKING:
    from adapter.sandbox.vendors.engine import Vendor


def respond(vendor: Vendor, behaviour: UnityBehaviour, request: Request) -> Response:
    """Errors come with status 200, as a text."""
    asked: dict[str, Any] = json.loads(request.body)
    if request.path.endswith("/GetToken"):
        return Response(200, vendor.new_token(1200).encode(), {"Content-Type": "text/plain"})
    if not vendor.knows_token(str(asked.get("Token", ""))):
        return _error("You have been logged out")
    action = str(asked["Action"])
    patient = str(asked.get("PatientID", "")).removeprefix("pat-")
    if action == "GetPatientByMRN":
        return _rows(action, [_patient(vendor, mrn) for mrn in vendor.patients if mrn == asked["Parameter1"]])
    if patient not in vendor.patients:
        return _error("Invalid patient")
    if action == "GetDocuments":
        held = [each for each in vendor.documents.values() if each.mrn == patient and each.active]
        return _rows(action, [{"documentID": each.document_id, "vendorFileName": each.name} for each in held])
    items = dict(re.findall(r'<item name="(\w+)" value="([^"]*)"/>', asked["Parameter1"]))
    return _save(vendor, behaviour, patient, items, base64.b64decode(asked.get("Parameter6", "")))


def called(request: Request) -> str:
    """The path, and behind it the action, since all actions have one address; `/commit` where it ends an upload."""
    if not request.path.endswith("/MagicJson"):
        return request.path
    asked = json.loads(request.body)
    commit = "/commit" if 'name="bDoneUpload" value="true"' in asked.get("Parameter1", "") else ""
    return f"{request.path}/{asked['Action']}{commit}"


def _patient(vendor: Vendor, mrn: str) -> dict[str, str]:
    year, month, day = (vendor.patients[mrn] or "--").split("-")
    return {"ID": f"pat-{mrn}", "mrn": mrn, "dateofbirth": f"{month}/{day}/{year}" if year else ""}


def _save(vendor: Vendor, behaviour: UnityBehaviour, mrn: str, items: dict[str, str], piece: bytes) -> Response:
    if items["documentCommand"] == "e":
        document = vendor.documents.get(items["documentID"])
        if document is None or document.mrn != mrn:
            return _error("Invalid document")
        document.active = False
        return _rows("SaveDocumentImage", [{"documentID": items["documentID"]}])
    if not all(items.get(name) for name in ("documentType", "ownerCode", "organizationName")):
        return _error("Additional information is required")
    named = items["documentVar"] or vendor.new_id()
    held = vendor.kept.setdefault(named, b"")
    if items["bDoneUpload"] == "true":
        document_id = vendor.new_id()
        content = vendor.kept.pop(named)
        vendor.documents[document_id] = Document(document_id, mrn, content, "application/pdf", items["vendorFileName"])
        return _rows("SaveDocumentImage", [{"documentID": document_id}])
    in_turn = (int(items["offset"]), int(items["bytesRead"])) == (len(held), len(piece))
    if not in_turn or len(piece) > behaviour.chunk_bytes:
        return _error("The piece does not follow the one before it")
    vendor.kept[named] = held + piece
    return _rows("SaveDocumentImage", [{"documentVar": named}])


def _rows(action: str, rows: list[dict[str, str]]) -> Response:
    return Response.json(200, [{f"{action.lower()}info": rows}])


def _error(text: str) -> Response:
    return Response.json(200, [{"Error": f"Magic error: {text}."}])
