"""Where the bytes of a photo stand at a FHIR destination, by `binary_upload` of the profile.

`raw` and `json` make a Binary, `inline` carries base64, `access-write` writes the bytes into the resource afterwards
(`$binary-access-write`, HAPI FHIR and Oracle Health Data Repository), `share` puts a file where the server reaches it.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Final

from connectors.contract import Parcel, Receipt
from connectors.fhir_copies import RESOURCE_TYPE, Copy, find_binary_id
from connectors.fhir_identity import Place
from connectors.fhir_server import FhirServer
from connectors.kinds import FhirR4Profile
from connectors.outward import delivery_identifier
from connectors.parcels import get_content
from connectors.share import Share

ELEMENT: Final = {"Media": "Media.content", "DocumentReference": "DocumentReference.content.attachment"}


class Attachments:
    """The bytes beside the resources. Every method raises DeliveryError."""

    def __init__(self, profile: FhirR4Profile, server: FhirServer) -> None:
        self._profile = profile
        self._server = server
        self._share = Share(profile.share) if profile.share else None

    def place(self, parcel: Parcel, place: Place, current: Copy | None) -> tuple[dict[str, str], dict[str, str]]:
        """Put the bytes there, unless the record we replace has them: (ids for the receipt, url or data)."""
        form = self._profile.binary_upload
        if form == "access-write":
            return {}, {}
        if self._share is not None:
            name = _file_name(parcel)
            self._share.put(name, get_content(parcel))
            return {"File": name}, {"url": self._share.address(name)}
        binary_id = _find_same_binary(parcel, current) if current else None
        if binary_id and self._is(parcel, {"url": f"Binary/{binary_id}", "contentType": parcel.content_type}):
            return {"Binary": binary_id}, {"url": f"Binary/{binary_id}"}
        content = get_content(parcel)
        if form == "inline":
            return {}, {"data": base64.b64encode(content).decode()}
        binary_id = self._server.upload(content, parcel.content_type, place.patient)
        base = f"{self._profile.base_url}/" if self._profile.attachment_url == "absolute" else ""
        return {"Binary": binary_id}, {"url": f"{base}Binary/{binary_id}"}

    def ids(self, copy: Copy) -> dict[str, str | None]:
        """What stands beside a copy that was there already."""
        url = copy.attachment.get("url")
        return {"File": self._share.find_name(url)} if self._share else {"Binary": find_binary_id(url)}

    def complete(self, parcel: Parcel, kind: str, resource_id: str | None) -> None:
        """What is to be written once the resource is there."""
        if self._profile.binary_upload == "access-write" and resource_id:
            path = f"{kind}/{resource_id}/$binary-access-write?path={ELEMENT[kind]}"
            self._server.write_bytes(path, get_content(parcel), parcel.content_type)

    def read(self, parcel: Parcel, copy: Copy) -> bytes | None:
        """The bytes a copy means; None when it means none we may fetch."""
        attachment = copy.attachment
        if self._share is not None:
            name = self._share.find_name(attachment.get("url"))
            return self._share.find(name) if name else None
        if self._profile.binary_upload == "access-write":
            kind = RESOURCE_TYPE[copy.route]
            path = f"{kind}/{copy.resource.get('id')}/$binary-access-read?path={ELEMENT[kind]}"
            attachment = attachment | {"url": path}
        return self._server.download(attachment, limit=parcel.size)

    def holds(self, parcel: Parcel, copy: Copy) -> bool:
        """Whether these really are the bytes: what a destination says of them is not enough to leave them there."""
        return _same(parcel, self.read(parcel, copy))

    def take_away(self, receipt: Receipt) -> None:
        """A file on a share would stay although its record is marked."""
        if self._share is not None and "File" in receipt.ids:
            self._share.remove(receipt.ids["File"])

    def _is(self, parcel: Parcel, attachment: dict[str, Any]) -> bool:
        return _same(parcel, self._server.download(attachment, limit=parcel.size))


def _same(parcel: Parcel, held: bytes | None) -> bool:
    return held is not None and hashlib.sha256(held).hexdigest() == parcel.sha256


def _file_name(parcel: Parcel) -> str:
    """Our UUID of this version at this destination: never a name or an MRN."""
    uuid = delivery_identifier(parcel)["value"].removeprefix("urn:uuid:")
    return f"{uuid}.{parcel.filename.rpartition('.')[2]}"


def _find_same_binary(parcel: Parcel, current: Copy) -> str | None:
    """The Binary of the previous receipt, if the record still has it and its bytes are those of this version."""
    previous = parcel.previous
    if previous is None or current.resource.get("id") != previous.ids.get(RESOURCE_TYPE[current.route]):
        return None
    attachment = current.attachment
    same = (attachment.get("hash"), attachment.get("size")) == (parcel.sha1_b64, parcel.size)
    return previous.ids.get("Binary") if same else None
