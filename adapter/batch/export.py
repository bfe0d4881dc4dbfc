"""Photos as one ZIP: clean copies, a manifest and checksums, streamed in constant memory with an exact length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection
from zipstream import ZIP_STORED, ZipStream

from adapter import access, consent, delivery, governance
from adapter.access import Actor
from adapter.batch.operations import photo_in_reach
from adapter.bridge import Bridge
from adapter.errors import BadInput, Unprocessable
from adapter.records import Stored
from adapter.records.binaries import BinaryRow, get_binary, open_binary

MAX_PHOTOS = 500
_SUFFIX = {"image/jpeg": "jpg", "image/png": "png", "image/heic": "heic", "image/webp": "webp", "image/tiff": "tif"}


@dataclass(frozen=True)
class ExportStream:
    """A ZIP about to be sent: `size` in bytes is exact, so that a cut transfer shows."""

    filename: str
    size: int
    chunks: Iterator[bytes]


def export_zip(bridge: Bridge, actor: Actor, media_ids: Sequence[str]) -> ExportStream:
    """The photos as a ZIP. Raises Forbidden, NotFound, or Unprocessable when consent forbids one of them.

    The disclosure is recorded before the first byte leaves.
    """
    access.check_right(actor, "export")
    wanted = list(dict.fromkeys(media_ids))
    if not 0 < len(wanted) <= MAX_PHOTOS:
        raise BadInput(f"choose between 1 and {MAX_PHOTOS} photos to export")
    at = bridge.now()
    with bridge.db.transaction() as tx:
        photos = [_permitted(tx, bridge, actor, media_id) for media_id in wanted]
    zipped = ZipStream(compress_type=ZIP_STORED, sized=True)
    manifest, sums = [], []
    for position, (media, row) in enumerate(photos, 1):
        name = f"{position:03d}-{media.id}.{_SUFFIX.get(row.content_type, 'bin')}"
        zipped.add(_content(bridge, row), name, size=row.size)
        manifest.append(_line(name, media, row))
        sums.append(f"{row.sha256}  {name}\n")
    described = {"exportedAt": at.isoformat(), "by": actor.id, "photos": manifest}
    text = orjson.dumps(described, option=orjson.OPT_INDENT_2)
    sums.append(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")
    zipped.add(text, "manifest.json")
    zipped.add("".join(sums).encode(), "SHA256SUMS")
    return ExportStream(_filename(at), len(zipped), iter(zipped))


def _permitted(tx: Connection, bridge: Bridge, actor: Actor, media_id: str) -> tuple[Stored, BinaryRow]:
    access.check_scope(actor, "r", "Media")
    media = photo_in_reach(tx, actor, media_id)
    patient_id = media.resource.get("subject", {}).get("reference", "").removeprefix("Patient/") or None
    if not delivery.is_bound(media.resource):
        raise Unprocessable(f"Media/{media_id} cannot be exported: whose photo it is must be settled first")
    decision = consent.decide(tx, bridge, patient_id)
    if not decision.permit:
        raise Unprocessable(f"Media/{media_id} cannot be exported: {decision.because}")
    governance.audit(tx, bridge, "export", actor, patient_id=patient_id, references=[media.version_reference])
    return media, get_binary(tx, media.resource["content"]["url"].removeprefix("Binary/"))


def _content(bridge: Bridge, row: BinaryRow) -> Iterator[bytes]:
    with bridge.db.snapshot() as tx:
        opened = open_binary(tx, bridge.vault, row)
    yield from opened.iter(0, opened.size)


def _line(name: str, media: Stored, row: BinaryRow) -> dict[str, Any]:
    resource = media.resource
    return {
        "file": name,
        "media": media.version_reference,
        "takenAt": resource.get("createdDateTime"),
        "bodySite": resource.get("bodySite", {}).get("text"),
        "contentType": row.content_type,
        "size": row.size,
        "sha256": row.sha256,
    }


def _filename(at: datetime) -> str:
    return f"photos-{at:%Y%m%d-%H%M%S}.zip"
