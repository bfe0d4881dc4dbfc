"""A photo as one JSON file in a folder: the smallest route that writes, looks, reads back and takes back."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from connectors.contract import Evidence, Finding, Parcel, Receipt, Secrets, Tallies, utc_now
from connectors.every_kind import Profile
from connectors.parcels import check_parcel, get_content
from connectors.routes import Route


class ToyProfile(Profile):
    """A folder of JSON files."""

    kind: Literal["toy"]
    folder: Path


class Toy:
    """See `connectors.contract.Connector` for what each method promises."""

    def __init__(
        self,
        profile: ToyProfile,
        secrets: Secrets,
        now: Callable[[], datetime] = utc_now,
        tallies: Tallies | None = None,
    ) -> None:
        self._folder = profile.folder
        self._max_bytes = profile.max_bytes
        self._now = now

    def check(self) -> list[Finding]:
        parent = self._folder.parent
        if parent.is_dir():
            return [Finding("folder", "ok", f"{self._folder} can be made")]
        return [Finding("folder", "error", f"{parent} is not there", "Make it, or correct folder of the profile.")]

    def find(self, parcel: Parcel) -> Receipt | None:
        held = self._read(self._place(parcel))
        if held.get("key") != parcel.idempotency_key or "withdrawn" in held:
            return None
        return replace(self._receipt(parcel), duplicate=True)

    def send(self, parcel: Parcel) -> Receipt:
        check_parcel(parcel, self._max_bytes)
        if there := self.find(parcel):
            return there
        data = base64.b64encode(get_content(parcel)).decode()
        self._write(self._place(parcel), {"key": parcel.idempotency_key, "data": data})
        return self._receipt(parcel)

    def read_back(self, parcel: Parcel, receipt: Receipt) -> Evidence | None:
        held = self._read(Path(receipt.location or ""))
        content = base64.b64decode(held.get("data", ""))
        digest = hashlib.sha256(content).hexdigest()
        seen = (("version", parcel.idempotency_key, held.get("key")), ("sha256", parcel.sha256, digest))
        differences = tuple(f"{name}: expected {ours}, found {theirs}" for name, ours, theirs in seen if ours != theirs)
        return Evidence(len(content), digest, receipt.ids["Patient"], None, differences)

    def retract(self, parcel: Parcel, receipt: Receipt, reason: str) -> Receipt:
        place = Path(receipt.location or "")
        if (held := self._read(place)) and "withdrawn" not in held:
            self._write(place, {"key": held["key"], "withdrawn": reason})
            return receipt
        return replace(receipt, duplicate=True)

    def close(self) -> None:
        """Nothing is kept open."""

    def _place(self, parcel: Parcel) -> Path:
        return self._folder / str(parcel.patient["id"]) / f"{parcel.media['id']}.json"

    def _receipt(self, parcel: Parcel) -> Receipt:
        ids = {"Patient": str(parcel.patient["id"]), "Media": str(parcel.media["id"])}
        return Receipt("toy", ids, location=str(self._place(parcel)), received_at=self._now())

    @staticmethod
    def _read(place: Path) -> dict[str, Any]:
        return dict(json.loads(place.read_text())) if place.is_file() else {}

    @staticmethod
    def _write(place: Path, value: dict[str, Any]) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = place.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(value))
        unfinished.rename(place)


def preview(parcel: Parcel, profile: ToyProfile) -> Iterator[tuple[str, str]]:
    """What would go out."""
    yield f"{profile.folder}/{parcel.patient['id']}", f"{parcel.media['id']}.json: <{parcel.size} bytes>"


ROUTE = Route("toy_route:ToyProfile", "toy_route:Toy", "toy_route:preview")
