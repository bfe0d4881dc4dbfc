"""What is served of a photo: its original without what must not leave, measured once and told wherever it stands.

It is a view over the sealed original and never stored a second time.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime

from adapter.capture.inspection import Inspection
from adapter.records import Stored
from adapter.records.binaries import BinaryRow
from adapter.records.vault import SealedBlob
from mappings.capture_to_media import Content


@dataclass(frozen=True)
class CleanCopy:
    """`found` is what inspection said of the original; the digests are of the clean bytes."""

    found: Inspection
    sha1_b64: str
    sha256: str

    def content(self, binary_id: str, *, created: datetime) -> Content:
        """As Media tells it."""
        return Content(
            binary_id=binary_id,
            content_type=self.found.format.content_type,
            size=self.found.view.size,
            sha1_b64=self.sha1_b64,
            sha256_hex=self.sha256,
            width=self.found.width,
            height=self.found.height,
            created=created,
        )

    def binary(self, binary_id: str, sealed: SealedBlob, media: Stored, *, at: datetime) -> BinaryRow:
        """The Binary that serves it, for whoever may see the Media."""
        view = self.found.view
        return BinaryRow(
            id=binary_id,
            blob_id=sealed.id,
            content_type=self.found.format.content_type,
            size=view.size,
            sha256=self.sha256,
            security_context=media.reference,
            created_at=at,
            clean_view=None if view.is_identity else view.to_json(),
        )


def clean_copy(found: Inspection, data: bytes, *, sha256: str) -> CleanCopy:
    """`sha256` (hex) is of `data`, the original: nothing is hashed twice where nothing is left out."""
    sha1, clean_sha256 = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
    for piece in found.view.pieces(data):
        sha1.update(piece)
        if not found.view.is_identity:
            clean_sha256.update(piece)
    return CleanCopy(
        found=found,
        sha1_b64=base64.b64encode(sha1.digest()).decode(),
        sha256=sha256 if found.view.is_identity else clean_sha256.hexdigest(),
    )
