"""The HL7 v2 side of a simulated EHR: it files what ORU and MDM bring and acknowledges as it is told to."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from adapter.sandbox.vendors.behaviour import MllpBehaviour
from adapter.sandbox.vendors.engine import Document
from mappings.hl7v2.er7 import Message

if TYPE_CHECKING:
    from adapter.sandbox.vendors.engine import Vendor


def respond(vendor: Vendor, behaviour: MllpBehaviour, raw: bytes) -> bytes | None:
    """The acknowledgement, or None to say nothing (and hang up)."""
    with vendor.guard:
        message = Message.parse(raw)
        vendor.requests.append(("MLLP", f"{message.header.code}^{message.header.trigger_event}"))
        fault = vendor.take_fault("MLLP", "", ("none", "lost-before", "lost-after", "nack", "silent"))
        if fault and fault.kind in {"lost-before", "silent"}:
            return None
        code = (fault.code or "AE") if fault and fault.kind == "nack" else _file(vendor, behaviour, message, raw)
        if fault and fault.kind == "lost-after":
            return None
    code = {"AA": "CA", "AE": "CE", "AR": "CR"}[code] if behaviour.acknowledges == "commit" else code
    control = message.header.msh_10
    header = f"MSH|^~\\&|EHR||DERMBRIDGE||20261123093000||ACK|a{len(vendor.requests)}|P|{message.header.version}"
    return f"{header}\rMSA|{code}|{control}\r".encode()


def _file(vendor: Vendor, behaviour: MllpBehaviour, message: Message, raw: bytes) -> str:
    event = f"{message.header.code}^{message.header.trigger_event}"
    pid = message.find("PID")
    mrn = pid.text(3) if pid else ""
    if event not in behaviour.events or len(raw) > behaviour.max_bytes:
        return "AR"
    if mrn not in vendor.patients:
        return "AE"
    control = message.header.msh_10
    if behaviour.knows_duplicates and control in vendor.messages:
        return "AA"
    vendor.messages[control] = raw
    named = message.find("TXA") or message.find("OBR")
    assert named is not None
    document_id = named.text(12) if named.name == "TXA" else named.text(3)
    parent = named.text(13) if named.name == "TXA" else ""
    result = message.find("OBX")
    status = result.text(11) if result is not None else ""
    withdrawn = event == "MDM^T11" or status == "W"
    replaced = parent if event.startswith("MDM") else document_id if status in {"C", "W"} else ""
    if event in {"MDM^T10", "MDM^T11", "ORU^R01"}:
        for number in (replaced, document_id if withdrawn else ""):
            for known, document in vendor.documents.items():
                document.active &= known.partition("#")[0] != number
    if not withdrawn and result is not None:
        key = document_id if document_id not in vendor.documents else f"{document_id}#{vendor.new_id()}"
        vendor.documents[key] = Document(key, mrn, _content(message), result.text(2))
    return "AA"


def _content(message: Message) -> bytes:
    result = message.find("OBX")
    assert result is not None
    values = [result.text(5, component) for component in range(1, 6)]
    try:
        return base64.b64decode(max(values, key=len), validate=True)
    except (binascii.Error, ValueError):
        return max(values, key=len).encode()
