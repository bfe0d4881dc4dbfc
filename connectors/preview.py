"""Exactly what would go out for one photo, without a connection: requests, messages, objects.

What only the destination knows (its ids of patient, visit, Binary) stands in angle brackets.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from connectors.contract import DeliveryError, Parcel
from connectors.dicom_object import dicom_object
from connectors.directory import Directory
from connectors.every_kind import Profile
from connectors.fhir_copies import RESOURCE_TYPE
from connectors.fhir_identity import Place
from connectors.hl7v2 import Hl7v2
from connectors.kinds import (
    DicomWebProfile,
    DimseProfile,
    DirectoryProfile,
    EhrProfile,
    FhirR4Profile,
    Hl7v2Profile,
    RestProfile,
)
from connectors.outward import link_to, photo_body
from connectors.parcels import check_parcel
from connectors.rendition import rendered
from connectors.routes import find_route, load
from connectors.templates import filled, values, with_required

_LONG: Final = re.compile(r"[A-Za-z0-9+/=]{200,}|[0-9a-f]{200,}")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request, message or file; or, with `refusal`, why this route would not take the photo."""

    route: str
    where: str
    what: str
    refusal: str = ""


def preview(parcel: Parcel, profile: Profile) -> list[Outgoing]:
    """What each route of `profile` would send, the first that takes the photo being the one that is used."""
    if isinstance(profile, EhrProfile):
        return [each for route in profile.routes for each in preview(parcel, route)]
    route = find_route(profile.kind)
    assert route is not None  # or there would be no such profile
    name = "/".join(profile.route_names)
    try:
        check_parcel(parcel)
        return [Outgoing(name, where, _shortened(what)) for where, what in load(route.preview)(parcel, profile)]
    except DeliveryError as error:
        return [Outgoing(name, "", "", f"{error} {error.remedy}")]


Told = Iterator[tuple[str, str]]


def fhir_requests(parcel: Parcel, given: Profile) -> Told:
    profile = cast(FhirR4Profile, given)
    made = rendered(parcel, profile)
    place = Place("Patient/<patient>", "Encounter/<visit>" if parcel.encounter else None)
    base = f"{profile.base_url}/" if profile.references == "absolute" else ""
    if profile.binary_upload == "inline":
        content = {"data": f"<{made.size} bytes>"}
    else:
        content = {"url": "Binary/<binary>"}
        form = made.content_type if profile.binary_upload == "raw" else "application/fhir+json"
        yield f"POST {profile.base_url}/Binary", f"Content-Type: {form}\n\n<{made.size} bytes, SHA-256 {made.sha256}>"
    for route in profile.routes:
        body = with_required(photo_body(route, made, profile, place.references(parcel, base), content), made, profile)
        address = (
            profile.base_url if profile.write_by == "transaction" else f"{profile.base_url}/{RESOURCE_TYPE[route]}"
        )
        yield f"POST {address}", json.dumps(body, indent=1, ensure_ascii=False)


def steps(parcel: Parcel, given: Profile) -> Told:
    profile = cast(RestProfile, given)
    made = rendered(parcel, profile)
    known = values(made, profile) | {"patient": "<patient>", "document": "<document>", "base64": f"<{made.size} bytes>"}
    for step in (profile.sign_in, *profile.steps):
        if step is None:
            continue
        if step is profile.sign_in:
            known |= {"client_id": profile.auth.client_id, "secret": "<secret>"}
        if step.chunk_bytes:
            known |= {
                "chunk": f"<{step.chunk_bytes} bytes at a time>",
                "chunk_offset": 0,
                "chunk_size": step.chunk_bytes,
            }
        path = known.get(step.path[1:-1], "") if re.fullmatch(r"\{\w+\}", step.path) else filled(step.path, known)
        told = (
            "" if step.body == "none" else f"{step.body}: {json.dumps(filled(step.fields, known), ensure_ascii=False)}"
        )
        if step.body in {"multipart", "bytes"}:
            told += f"\n{step.file_field} = {filled(step.file_name, known)}: <{made.size} bytes, {made.content_type}>"
        known |= {name: f"<{name}>" for name in step.saves}
        yield f"{step.method} {path if str(path).startswith('<') else f'{profile.base_url}/{path}'}", told


def message(parcel: Parcel, given: Profile) -> Told:
    profile = cast(Hl7v2Profile, given)
    sent = Hl7v2(profile).message(parcel, profile.message)
    yield f"mllp://{profile.host}:{profile.port}", sent.decode("utf-8", "replace").replace("\r", "\n")


def instance(parcel: Parcel, given: Profile) -> Told:
    import pydicom

    profile = cast(DicomWebProfile | DimseProfile, given)
    made = dicom_object(parcel, profile, profile.dicom, profile.encounter)
    where = (
        f"POST {profile.base_url}/studies" if isinstance(profile, DicomWebProfile) else f"C-STORE {profile.called_ae}"
    )
    dataset = pydicom.dcmread(io.BytesIO(made.content), stop_before_pixels=True)
    yield where, f"{dataset}\n<{len(made.content)} bytes in all>"


def folder(parcel: Parcel, given: Profile) -> Told:
    profile = cast(DirectoryProfile, given)
    yield str(Directory(profile).place_of(parcel)), f"{parcel.filename}: <{parcel.size} bytes>, and its FHIR records"


def link(parcel: Parcel, given: Profile) -> Told:
    yield link_to(parcel, given) or "(no link)", "nothing is written; people open the photo here"


def _shortened(text: Any) -> str:
    """Base64 and hexadecimal of photos as their length."""
    return _LONG.sub(lambda found: f"{found[0][:24]}...<{len(found[0])} characters>", str(text))
