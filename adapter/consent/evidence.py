"""What proves that a consent was given: the signed paper or signature, sealed in the vault under the patient's key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from adapter.bridge import Bridge
from adapter.errors import TooLarge, UnsupportedMedia
from adapter.records import new_id
from adapter.records.binaries import create_binary, whole_blob
from adapter.records.vault import SealedBlob
from mappings.form_to_consent import Source

MAX_BYTES: Final = 20 * 2**20
FIRST_BYTES: Final = {"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG\r\n\x1a\n", "application/pdf": b"%PDF-"}
MUST_BE_SHOWN: Final = frozenset({"signature-image", "paper-photo"})


@dataclass(frozen=True)
class Evidence:
    """Sealed and durable, not yet owned by a row: made before the transaction that keeps it."""

    sealed: SealedBlob
    content_type: str


def seal_evidence(bridge: Bridge, content: bytes, content_type: str | None) -> Evidence:
    """Raises UnsupportedMedia when it is no JPEG, PNG or PDF, TooLarge above 20 MiB."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind not in FIRST_BYTES or not content.startswith(FIRST_BYTES[kind]):
        raise UnsupportedMedia("send the signed form or the signature as a JPEG, a PNG or a PDF, and say which it is")
    if len(content) > MAX_BYTES:
        raise TooLarge(f"the signed form is larger than {MAX_BYTES // 2**20} MB; photograph it in a lower resolution")
    return Evidence(bridge.vault.seal(content), kind)


def keep_evidence(
    tx: Connection, bridge: Bridge, evidence: Evidence, consent_id: str, patient_id: str, *, at: datetime
) -> Source:
    """Own the sealed bytes as a Binary that those may see who may read the Consent, the first that the form made."""
    row = whole_blob(
        evidence.sealed,
        binary_id=new_id(at),
        content_type=evidence.content_type,
        security_context=f"Consent/{consent_id}",
        at=at,
    )
    bridge.vault.keep(tx, evidence.sealed, content_type=row.content_type, patient_id=patient_id, at=at)
    create_binary(tx, row)
    return Source(f"Binary/{row.id}", row.content_type, row.sha256)
