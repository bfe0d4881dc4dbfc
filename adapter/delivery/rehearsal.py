"""Destinations looked at by an engineer: what the profile says, what would go out, what goes in line again."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from collections.abc import Sequence
from datetime import datetime, time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, select

from adapter.access.policy import check_ours
from adapter.bridge import Bridge
from adapter.db.tables import delivery
from adapter.delivery.circuit import circuits, how_it_stands
from adapter.delivery.destinations import Destinations
from adapter.delivery.orders import parcel_of, read_known
from adapter.delivery.outbox import DeliveryState, deliver_media, send_again
from adapter.errors import BadInput, Conflict, Misconfigured, NotFound
from adapter.records import get
from adapter.settings import Settings
from connectors.contract import Finding, Parcel
from connectors.every_kind import Profile
from connectors.knob_table import explained, is_question, verdicts
from connectors.preview import Outgoing, preview
from connectors.profile import ProfileError, build_profile, find_shipped_profiles, parse_profile, read_shipped
from connectors.schema import profile_schema
from connectors.signing_key import new_signing_key, read_signing_key
from mappings.capture_to_media import is_bound
from mappings.terms import SNOMED, URI

__all__ = ["is_question", "profile_schema"]
S = DeliveryState


def overview(bridge: Bridge) -> list[dict[str, Any]]:
    """Each destination with its routes, and whether it is left alone after outages."""
    destinations = Destinations(bridge)
    with bridge.db.snapshot() as tx:
        down = {row.destination: row for row in circuits(tx)}
    rows = []
    for name in destinations.names:
        state = how_it_stands(down.get(name), bridge.settings.zone)
        try:
            routes = ", ".join(destinations.profile(name).route_names)
        except Misconfigured as error:
            routes, state = "", str(error)
        rows.append({"name": name, "routes": routes, "state": state})
    return rows


def examine_destination(bridge: Bridge, name: str, *, ask: bool) -> list[Finding]:
    """A verdict for each question the profile answers; with `ask`, also what the destination itself says.

    A shipped profile, or a .toml file that no destination is based on yet, has nobody to ask. Raises NotFound,
    Misconfigured.
    """
    destinations = Destinations(bridge, shares=False)
    try:
        findings = verdicts(_profile(bridge, name))
        if not ask or name not in destinations.names:
            return findings
        if any(each.verdict == "error" for each in findings):
            remedy = "Set what is missing, then check again; --offline leaves this out."
            return [
                *findings,
                Finding("connection", "warning", "nobody asked: the profile is not complete", remedy),
            ]
        return findings + destinations.get(name).check()
    finally:
        destinations.close()


def explain_destination(bridge: Bridge, name: str) -> list[tuple[str, str, str]]:
    """Each key that is not as by default, its value, and what it means; of a destination or a shipped profile."""
    return explained(_profile(bridge, name))


def dry_run(bridge: Bridge, name: str, *, media_id: str | None, photo: Path | None) -> tuple[str, list[Outgoing]]:
    """What consent says, and exactly what would go out: for a photo we hold, or for an invented patient.

    Raises NotFound, Conflict for a photo that is bound to nobody, Misconfigured.
    """
    profile = _profile(bridge, name)
    if media_id is None:
        content = photo.read_bytes() if photo else grey_photo()
        return "an invented patient: consent is not asked", preview(
            invented_parcel(name, content, systems_of(profile)), profile
        )
    with bridge.db.snapshot() as tx:
        media = get(tx, "Media", media_id)
        if not is_bound(media.resource):
            raise Conflict(f"photo {media_id} is not bound to a patient yet, so it goes nowhere")
        patient = str(media.resource["subject"]["reference"]).removeprefix("Patient/")
        row = SimpleNamespace(
            id="dry-run",
            media_id=media_id,
            media_version=media.version_id,
            destination=name,
            patient=patient,
            receipt=None,
            take_backs=0,
        )
        known = read_known(tx, bridge, [row])
        decision = known.decisions[row.id]
        parcel = parcel_of(tx, bridge, row, media, decision.consent_ids, [], known)
    told = "consent permits it" if decision.permit else f"consent does not permit it now: {decision.because}"
    return told, preview(parcel, profile)


def send_one(tx: Connection, bridge: Bridge, media_id: str, name: str) -> str:
    """Put one photo in line for one destination, again if need be; returns the delivery's id.

    Raises NotFound, Conflict when it is under way or bound to nobody.
    """
    Destinations(bridge).profile(name)
    media = get(tx, "Media", media_id)
    check_ours(media.resource)
    c = delivery.c
    here = (c.media_id == media_id, c.destination == name, c.media_version == media.version_id)
    known = tx.execute(select(c.id).where(*here)).scalar_one_or_none()
    if known is not None:
        send_again(tx, bridge, known)
        return str(known)
    if not is_bound(media.resource):
        raise Conflict(f"photo {media_id} is not bound to a patient yet, so it goes nowhere")
    return deliver_media(tx, bridge, media, only=name)[0]


def moment(bridge: Bridge, text: str) -> datetime:
    """`09:00` (today) or `2026-11-23T09:00`, in the site's time zone unless it says another. Raises BadInput."""
    zone = bridge.settings.zone
    try:
        if "T" not in text and "-" not in text:
            return datetime.combine(bridge.now().astimezone(zone).date(), time.fromisoformat(text), zone)
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{text!r} is no time; give 09:00 or 2026-11-23T09:00") from None
    return at if at.tzinfo else at.replace(tzinfo=zone)


def new_profile(name: str, like: str, folder: Path) -> Path:
    """Copy a shipped profile for this site to change. Raises NotFound, BadInput, Conflict when the file is there."""
    if like not in find_shipped_profiles():
        raise NotFound(f"there is no profile {like!r}; use one of {', '.join(find_shipped_profiles())}")
    file = folder / f"{name}.toml"
    if file.exists():
        raise Conflict(f"{file} exists; choose another name or edit it")
    text = read_shipped(like).replace(f'name = "{like}"', f'name = "{name}"', 1)
    try:
        parse_profile(text, source=name)
    except ProfileError as error:
        raise BadInput(f"{name!r} is no name for a destination; use lower case letters, digits and hyphens") from error
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schema.json").write_text(profile_schema(), "utf-8")
    file.write_text(text, "utf-8")
    return file


def keep_secret(settings: Settings, name: str, text: str, *, new_key: str = "") -> tuple[Path, str]:
    """Write a secret for its owner alone; with `new_key` (rsa, ec) a fresh private key, and its public part as JSON.

    Raises BadInput, and Conflict rather than overwrite a key.
    """
    file = settings.data_dir / "secrets" / Path(name).name
    if new_key not in {"", "rsa", "ec"} or not (new_key or text) or file.name != name:
        raise BadInput("give a name without folders, and either a secret or --new-key rsa or ec")
    if new_key and file.exists():
        raise Conflict(f"{file} exists; give the new key a name of its own and let it follow (auth.next_secret)")
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = new_signing_key(new_key) if new_key else ""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(pem or text + "\n")
    return file, json.dumps({"keys": [read_signing_key(pem).public()]}) if pem else ""


def systems_of(profile: Profile) -> list[str]:
    """The identifier systems a profile, or any of its routes, mentions; one of our own when there is none."""
    found: list[str] = []
    for each in (profile, *getattr(profile, "routes", ())):
        found += [*getattr(each, "authorities", {})]
        for table in ("patient", "encounter"):
            found += getattr(getattr(each, table, None), "identifier_systems", ())
        found += [value for name in ("patient_id_system", "visit_system") if (value := _dicom(each, name))]
    return list(dict.fromkeys(found)) or ["urn:oid:2.16.840.1.113883.19.5"]


def _dicom(profile: Any, name: str) -> str:
    return str(getattr(getattr(profile, "dicom", None), name, ""))


def invented_parcel(destination: str, content: bytes, systems: Sequence[str]) -> Parcel:
    """A photo of nobody, complete enough for every kind of destination, with a number of each identifier system."""
    sha1 = base64.b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()
    media = {
        "resourceType": "Media",
        "id": "example",
        "identifier": [{"system": URI, "value": "urn:uuid:00000000-0000-4000-8000-000000000000"}],
        "status": "completed",
        "subject": {"reference": "Patient/example"},
        "encounter": {"reference": "Encounter/example"},
        "createdDateTime": "2026-11-23T09:00:00+00:00",
        "issued": "2026-11-23T09:01:00Z",
        "bodySite": {"coding": [{"system": SNOMED, "code": "36141000"}], "text": "Skin of cheek"},
        "content": {"contentType": "image/jpeg", "url": "Binary/example", "size": len(content), "hash": sha1},
    }
    return Parcel(
        delivery_id="example",
        idempotency_key=f"example/1/{destination}",
        media=media,
        patient={
            "resourceType": "Patient",
            "id": "example",
            "identifier": [{"system": system, "value": "4711"} for system in systems],
            "name": [{"family": "Example", "given": ["Erin"]}],
            "birthDate": "1970-01-01",
            "gender": "female",
        },
        encounter={
            "resourceType": "Encounter",
            "id": "example",
            "identifier": [{"system": system, "value": "V-4711"} for system in systems],
            "subject": {"reference": "Patient/example"},
        },
        content=lambda: content,
        content_type="image/jpeg",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        sha1_b64=sha1,
        filename="example.jpg",
    )


def get_profile(name: str) -> Profile:
    """A shipped profile, or one of the site's own by its .toml file. Raises Misconfigured."""
    try:
        return build_profile({"based_on": name}, source=name)
    except ProfileError as error:
        raise Misconfigured(str(error)) from error


def _profile(bridge: Bridge, name: str) -> Profile:
    destinations = Destinations(bridge)
    if name in destinations.names or not (name.endswith(".toml") or name in find_shipped_profiles()):
        return destinations.profile(name)
    return get_profile(name)


def grey_photo() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (640, 480), (190, 170, 160)).save(out, "JPEG")
    return out.getvalue()
