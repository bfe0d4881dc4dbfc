"""Photos into a folder: `FOLDER/<patient id>/<media id>/` holds the photo, its FHIR records and a checksum list.

A photo's folder appears whole or not at all: it is written and fsync'ed under `.unfinished/` and then renamed; what a
crash leaves there goes when the photo is next looked for. Names are our ids, never a name or an MRN.
`sha256sum -c SHA256SUMS` verifies a folder without DermBridge.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from connectors.contract import DeliveryError, Evidence, Finding, Parcel, Receipt, Retry, Secrets, Tallies, utc_now
from connectors.kinds import DirectoryProfile
from connectors.parcels import check_parcel, get_content

ROUTE: Final = "directory"
MANIFEST: Final = "delivery.json"
UNFINISHED: Final = ".unfinished"
_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.\-]{0,63}")


class Directory:
    """The connector of kind `directory`; see `connectors.contract.Connector` for what each method promises."""

    def __init__(
        self,
        profile: DirectoryProfile,
        secrets: Secrets | None = None,
        now: Callable[[], datetime] = utc_now,
        tallies: Tallies | None = None,
    ) -> None:
        del secrets, tallies  # a folder asks for none
        self._profile = profile
        self._now = now
        self._root = profile.folder

    def check(self) -> list[Finding]:
        try:
            with _as_delivery_errors("Checking the folder"):
                self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
                probe = self._root / f".check-{uuid.uuid4()}"
                _write(probe, b"")
                probe.unlink()
                free = shutil.disk_usage(self._root).free
        except DeliveryError as error:
            return [Finding("folder", "error", str(error), error.remedy)]
        enough = free > 20 * self._profile.max_bytes
        space = Finding("space", "ok" if enough else "warning", f"{free} bytes free", "" if enough else "Make room.")
        return [Finding("folder", "ok", f"{self._root} can be written"), space]

    def find(self, parcel: Parcel) -> Receipt | None:
        with _as_delivery_errors("Looking into the folder"):
            self._sweep(parcel)
            manifest = self._manifest(self.place_of(parcel))
        if manifest.get("idempotency_key") != parcel.idempotency_key or manifest.get("retracted"):
            return None
        return replace(Receipt.from_json(json.dumps(manifest["receipt"])), duplicate=True)

    def send(self, parcel: Parcel) -> Receipt:
        check_parcel(parcel, self._profile.max_bytes)
        if (delivered := self.find(parcel)) and self.read_back(parcel, delivered).matches:
            return delivered
        content = get_content(parcel)
        place = self.place_of(parcel)
        receipt = Receipt(
            route=ROUTE,
            ids=_ids(parcel),
            location=str(place.relative_to(self._root)),
            version=parcel.idempotency_key,
            received_at=self._now(),
        )
        with _as_delivery_errors("Writing the folder"):
            self._put(place, _records(parcel) | {_file_name(parcel): content}, parcel, receipt)
        return receipt

    def read_back(self, parcel: Parcel, receipt: Receipt) -> Evidence:
        place = self._root / receipt.location if receipt.location else self.place_of(parcel)
        with _as_delivery_errors("Reading the folder back"):
            manifest = self._manifest(place)
            media = _read_json(place / "Media.json")
            content = _read(place / str(manifest.get("file", _file_name(parcel))))
        if not manifest or content is None:
            return Evidence(None, None, None, None, ("The folder holds no such photo for this patient.",))
        digest = hashlib.sha256(content).hexdigest()
        patient = media.get("subject", {}).get("reference")
        encounter = media.get("encounter", {}).get("reference")
        seen = (
            ("status", parcel.media.get("status"), media.get("status")),
            ("patient", parcel.media.get("subject", {}).get("reference"), patient),
            ("encounter", parcel.media.get("encounter", {}).get("reference"), encounter),
            ("version", parcel.idempotency_key, manifest.get("idempotency_key")),
            ("size", parcel.size, len(content)),
            ("sha256", parcel.sha256, digest),
        )
        differences = tuple(f"{name}: expected {ours}, found {theirs}" for name, ours, theirs in seen if ours != theirs)
        return Evidence(len(content), digest, patient, encounter, differences)

    def retract(self, parcel: Parcel, receipt: Receipt, reason: str) -> Receipt:
        """The record stays as entered-in-error; the photo is taken out, since the folder may be another patient's."""
        place = self._root / (receipt.location or "")
        with _as_delivery_errors("Retracting from the folder"):
            self._sweep(parcel)
            manifest = self._manifest(place)
            if not receipt.location or not manifest or manifest.get("retracted"):
                return replace(receipt, duplicate=True)
            media = _read_json(place / "Media.json") | {"status": "entered-in-error"}
            taken = replace(receipt, received_at=self._now(), duplicate=False)
            self._put(place, {"Media.json": _json(media)}, parcel, taken, retracted=reason)
        return taken

    def close(self) -> None:
        """Nothing is kept open."""

    def place_of(self, parcel: Parcel) -> Path:
        """The photo's folder. Raises DeliveryError."""
        names = (str(parcel.patient.get("id")), str(parcel.media.get("id")))
        if not all(_SAFE.fullmatch(name) for name in names):
            raise _refusal("The patient or photo has an id that is no FHIR id.", "Correct the record, then replay.")
        return self._root.joinpath(*names)

    def _sweep(self, parcel: Parcel) -> None:
        """Take away what a crash left half-written or half-replaced: it may be another patient's by now."""
        for left in (self._root / UNFINISHED).glob(f"{self.place_of(parcel).name}_*"):
            shutil.rmtree(left, ignore_errors=True)

    @staticmethod
    def _manifest(place: Path) -> dict[str, Any]:
        return _read_json(place / MANIFEST)

    def _put(
        self, place: Path, files: Mapping[str, bytes], parcel: Parcel, receipt: Receipt, *, retracted: str = ""
    ) -> None:
        manifest = {
            "idempotency_key": parcel.idempotency_key,
            "receipt": json.loads(receipt.to_json()),
            "file": _file_name(parcel),
            "retracted": retracted,
        }
        files = {**files, MANIFEST: _json(manifest)}
        sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = self._root / UNFINISHED
        unfinished.mkdir(exist_ok=True, mode=0o700)
        fresh, old = (unfinished / f"{place.name}_{kind}-{uuid.uuid4()}" for kind in ("new", "old"))
        fresh.mkdir(mode=0o700)
        try:
            for name, data in {**files, "SHA256SUMS": sums.encode()}.items():
                _write(fresh / name, data)
            _sync(fresh)
            if place.exists():  # a crash between the two renames leaves no photo, and `find` says so
                place.rename(old)
            fresh.rename(place)
            _sync(place.parent)
            _sync(self._root)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _ids(parcel: Parcel) -> dict[str, str]:
    ids = {"Media": str(parcel.media["id"]), "Patient": str(parcel.patient["id"])}
    return ids | ({"Encounter": str(parcel.encounter["id"])} if parcel.encounter else {})


def _file_name(parcel: Parcel) -> str:
    suffix = Path(parcel.filename).suffix
    return "photo" + (suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else "")


def _records(parcel: Parcel) -> dict[str, bytes]:
    records = {"Media.json": parcel.media, "Patient.json": parcel.patient}
    records |= {"Encounter.json": parcel.encounter} if parcel.encounter else {}
    records |= {f"Consent-{number}.json": consent for number, consent in enumerate(parcel.consents, 1)}
    return {name: _json(resource) for name, resource in records.items()}


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n"


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read(file) or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _write(file: Path, data: bytes) -> None:
    with file.open("xb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(reason: str, remedy: str) -> DeliveryError:
    return DeliveryError(reason, remedy=remedy, retry=Retry.NEVER)


@contextmanager
def _as_delivery_errors(doing: str) -> Iterator[None]:
    """A full or missing disk is a matter of time: nothing half-written counts, so later is always safe."""
    try:
        yield
    except OSError as error:
        reason = f"{doing} failed ({os.strerror(error.errno) if error.errno else type(error).__name__})."
        remedy = "Check that the folder exists, has room and can be written; it is tried again."
        raise DeliveryError(reason, remedy=remedy, retry=Retry.LATER) from error
