"""Every key that answers one of the 33 questions, changed, and seen to change what a destination gets or is told.

Two runs with one profile are the same to the byte, so a difference is the key's doing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapter.sandbox.vendors import Fault, running_vendor
from adapter.sandbox.vendors.behaviour import Refusal
from adapter.sandbox.vendors.engine import Request, Response
from connectors.contract import Connector, DeliveryError, Parcel
from connectors.hl7v2 import Hl7v2
from connectors.kinds import PROFILES
from connectors.knob_table import KNOBS
from connectors.layers import merged
from connectors.preview import preview
from connectors.profile import build_profile
from connectors.registry import open_connector
from connectors.signing_key import new_signing_key
from tests.connectors.test_contract import MRN, VISIT, encounter, parcel, patient
from tests.connectors.test_rendition import jpeg

NOW = datetime(2026, 11, 23, 21, 30, tzinfo=UTC)
PHOTO = jpeg((320, 240))
SECRETS = {"simulator": "s", "other": "t", "key": new_signing_key("ec"), "next": new_signing_key("ec")}
CONSENT = {
    "resourceType": "Consent",
    "id": "c1",
    "status": "active",
    "dateTime": "2026-11-20",
    "patient": {"reference": "Patient/p1"},
    "provision": {"type": "permit"},
}
NUMBERS = [{"system": MRN, "value": "A-1"}, {"system": "urn:other", "value": "B-1"}]
# What differs from run to run without anybody's doing.
PASSING = {"host", "user-agent", "x-request-id", "content-length", "accept-encoding", "connection", "authorization"}
Outcome = list[str]


def given(**changes: Any) -> Parcel:
    visit = encounter() | {"period": {"start": "2026-11-23T08:00:00Z", "end": "2026-11-23T10:00:00Z"}}
    visit["identifier"] = [*visit["identifier"], {"system": "urn:visits", "value": "W-1"}]
    who = patient() | {"identifier": NUMBERS, "name": [{"family": "Doe", "given": ["Jane"]}]}
    return parcel(content=PHOTO, patient=who, encounter=visit, consents=(CONSENT,), **changes)


def told(request: Request, address: str) -> str:
    """A request as text: method, address, headers that matter, body (its digest where it is no text)."""
    headers = sorted((name, value) for name, value in request.headers.items() if name not in PASSING)
    body = request.body
    if found := re.search(r"boundary=([\w-]+)", request.headers.get("content-type", "")):
        body = body.replace(found[1].encode(), b"B")
        headers = [(name, value.replace(found[1], "B")) for name, value in headers]
    if signed := re.search(rb"client_assertion=([\w-]+)\.([\w-]+)", body):
        head, claims = (json.loads(base64.urlsafe_b64decode(each + b"==")) for each in signed.groups())
        body = json.dumps([head, {name: claims[name] for name in claims if name not in {"jti", "iat", "exp"}}]).encode()
    basic = request.headers.get("authorization", "").startswith("Basic")
    text = body.decode("utf-8", "replace") if len(body) < 9000 else hashlib.sha256(body).hexdigest()
    return f"{request.method} {request.target} {'basic' if basic else ''} {headers} {text}".replace(address, "http://x")


def outcome(vendor: str, changes: dict[str, Any], act: str = "send", faults: tuple[Fault, ...] = ()) -> Outcome:
    """What a played vendor was asked, and what became of it."""
    seen: Outcome = []
    with running_vendor(vendor) as running:
        for number in ("A-1", "B-1", "4711"):
            running.vendor.admit(number, "1970-01-01", "V-1" if number == "A-1" else "")
        real = running.vendor.respond

        def respond(request: Request) -> Response | None:
            seen.append(told(request, running.address))
            return real(request)

        running.vendor.respond = respond  # type: ignore[method-assign]
        running.vendor.faults = list(faults)
        entry = merged(running.destination("x", timeouts={"attempts": 1, "read": 2.0}), _placed(changes, running))
        connector = open_connector(build_profile(entry, source="test"), SECRETS.__getitem__, lambda: NOW)
        try:
            seen.append(str(ACTS[act](connector)))
        except DeliveryError as error:
            seen.append(f"{type(error).__name__} {error} {error.remedy} {error.retry_after} {error.at_most}")
        connector.close()
    return [re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", each).replace(running.address, "http://x") for each in seen]


def _placed(value: Any, running: Any) -> Any:
    if isinstance(value, dict):
        return {name: _placed(each, running) for name, each in value.items()}
    return value.replace("{http}", running.address) if isinstance(value, str) else value


def newer(connector: Connector) -> Any:
    first = connector.send(given())
    changed = given(idempotency_key="m1/2-1/x", previous=first, delivery_id="d2")
    return connector.send(changed)


def read(connector: Connector) -> Any:
    return connector.read_back(given(), connector.send(given()))


def taken_back(connector: Connector) -> Any:
    return connector.retract(given(), connector.send(given()), "wrong patient")


def checked(connector: Connector) -> Any:
    return connector.check()


def found(connector: Connector) -> Any:
    return connector.find(given())


ACTS: dict[str, Callable[[Connector], Any]] = {
    "send": lambda connector: connector.send(given()),
    "newer": newer,
    "read": read,
    "take back": taken_back,
    "check": checked,
    "find": found,
}
TOKEN = {"kind": "private_key_jwt", "client_id": "c", "secret": "key", "token_url": "{http}/oauth2/token"}
BUSY = (Fault("busy"),)
CODED = (Fault("refuse", "POST", "/Media", Refusal(status=400, code="42")),)
SIGNAL = [{"code": "42", "means": "next-day", "remedy": "see"}]
DOCUMENT = {"routes": ["fhir-documentreference"]}
READ = {"method": "GET", "path": "patient/{patient}/document/{document}"}


def http(key: str, vendor: str, flip: dict[str, Any], base: dict[str, Any] | None = None, **more: Any) -> Any:
    return pytest.param(key, partial(outcome, vendor, **more), base or {}, flip, id=f"{key}, {vendor}")


def message(changes: dict[str, Any], *, taken_away: bool = False, replaces: bool = False) -> Outcome:
    table = {"name": "x", "based_on": "hl7v2", "host": "127.0.0.1", "port": 1, "timeouts": {"attempts": 1}}
    profile = build_profile(
        merged(table, merged({"authorities": {MRN: "HOSP", VISIT: "HOSP"}}, changes)), source="test"
    )
    connector = Hl7v2(profile, now=lambda: NOW)  # type: ignore[arg-type]
    try:
        old = connector._receipt(given()) if replaces or taken_away else None
        if taken_away and old:
            connector.retract(given(), old, "wrong patient")
        event = profile.replace_with or profile.message if replaces else profile.message  # type: ignore[attr-defined]
        seen = connector.message(given(), event).decode("utf-8", "replace")
        connector.find(given())
        return [seen]
    except DeliveryError as error:
        return [locals().get("seen", ""), f"{error} {error.remedy} {getattr(error, 'may_resend', '')}"]


def hl7(key: str, flip: dict[str, Any], base: dict[str, Any] | None = None, **more: Any) -> Any:
    return pytest.param(key, partial(message, **more), base or {}, flip, id=f"{key}, hl7v2")


def dry_run(changes: dict[str, Any], kind: str = "") -> Outcome:
    table = {"name": "x", "based_on": kind} if kind in {"pacs", "directory"} else {"name": "x", "kind": kind}
    seen = preview(given(), build_profile(merged(table, changes), source="test"))
    return [f"{each.route} {each.where} {each.what} {each.refusal}" for each in seen]


def dry(key: str, kind: str, flip: dict[str, Any], base: dict[str, Any] | None = None) -> Any:
    return pytest.param(key, partial(dry_run, kind=kind), base or {}, flip, id=f"{key}, {kind}")


PACS = {"dicom": {"patient_id_system": MRN, "issuer": "HOSP"}}
DIMSE = {"host": "pacs.example", "port": 104, "called_ae": "PACS"}
LINKED = {"transform": {"to": "note", "link_base": "https://d.example"}}
MULTIPART = [{"path": "patient/{patient}/document", "body": "multipart", "file_field": "file"}]
FLIPS = [
    http("kind", "hapi", {"routes": ["fhir-documentreference"]}),
    hl7("message", {"message": "MDM^T02"}),
    http("write_by", "hapi", {"write_by": "transaction"}),
    http("steps", "openemr", {"steps": MULTIPART}),
    dry("host", "dicom-cstore", {"called_ae": "OTHER"}, DIMSE),
    dry("folder", "directory", {"folder": "/elsewhere"}),
    http("routes", "epic", {"routes": {"dicomweb": False}}),
    http("transform.to", "oracle-health", {"transform": {"to": "xhtml"}, "accepts": ["application/xhtml+xml"]}),
    hl7("content", {"content": "RP"}, {"transform": {"link_base": "https://d.example"}}),
    http("accepts", "hapi", {"accepts": ["application/pdf"]}),
    http("update_accepts", "hapi", {"update_accepts": ["application/pdf"]}, act="newer"),
    hl7("charset", {"charset": "8859/1"}),
    http("max_bytes", "hapi", {"max_bytes": 1000}),
    http("transform.downscale", "hapi", {"transform": {"downscale": True}}, {"max_bytes": 12_000}),
    http("transform.max_edge", "hapi", {"transform": {"max_edge": 100}}),
    http("binary_upload", "hapi", {"binary_upload": "json"}),
    http("share", "hapi", {"binary_upload": "share", "share": {"folder": "/nowhere", "address": "file:///{name}"}}),
    http("attachment_url", "hapi", {"attachment_url": "absolute"}),
    hl7("obx_5", {"obx_5": ["", "", "JPEG", "Base64", "{data}"]}),
    http(
        "transform.link_base", "epic", {"routes": {"fhir-r4": LINKED}}, {"routes": {"dicomweb": False, "hl7v2": False}}
    ),
    *(http("references", "hapi", {"references": form}) for form in ("absolute", "contained", "identifier")),
    http("set", "hapi", {"set": {"note.0.text": "{caption}"}}),
    http("fields", "openemr", {"fields": {"category": "Photos"}}),
    dry("dicom.equipment", "pacs", {"dicom": {"equipment": {"Manufacturer": "Acme"}}}, PACS),
    http("type_coding", "hapi", {"type_coding": {"code": "11506-3"}}, DOCUMENT),
    http("category", "hapi", {"category": {"system": "urn:c", "code": "x"}}, DOCUMENT),
    hl7("document_type", {"document_type": ["X", "Photo", "L"]}),
    hl7("txa_2", {"txa_2": "PHOTO"}, {"message": "MDM^T02"}),
    http("timezone", "athenaone", {"timezone": "Pacific/Honolulu"}),
    hl7("timezone", {"timezone": "America/New_York"}),
    http("omit", "hapi", {"omit": ["createdDateTime"]}),
    *(http("consent_strategy", "hapi", {"consent_strategy": each}) for each in ("document", "in-note", "local-only")),
    http("consent_strategy", "openemr", {"consent_strategy": "document"}),
    hl7("consent_strategy", {"consent_strategy": "local-only"}),
    http("consent_fields", "openemr", {"consent_fields": {"category": "Consents"}}, {"consent_strategy": "document"}),
    http("conditional_create", "hapi", {"conditional_create": False}),
    http("look_by", "hapi", {"look_by": "patient"}),
    http("look_parameters", "hapi", {"look_parameters": {"category": "x"}}, {"look_by": "patient"}),
    http("look", "openemr", {"look": {"path": "patient/{patient}/documents", "id": "id"}}),
    hl7("resend", {"resend": "same-control-id"}),
    http("signals", "hapi", {"signals": SIGNAL}, faults=CODED),
    http("signals", "hapi", {"signals": [SIGNAL[0] | {"at_most": 2}]}, {"signals": SIGNAL}, faults=CODED),
    http("prefer", "hapi", {"prefer": "return=minimal"}),
    http("read", "athenaone", {"read": READ}, act="read"),
    http("limits", "hapi", {"limits": {"pause_seconds": 7}}, faults=BUSY),
    http("limits", "hapi", {"limits": {"per_minute": 1}}),
    http("batch_reads", "hapi", {"batch_reads": False}, act="check"),
    http("auth", "hapi", {"auth": {"kind": "basic", "client_id": "c", "secret": "simulator"}}),
    http("auth.scope", "medplum", {"auth": {"scope": "system/Media.cruds"}}),
    http("auth.require_scopes", "medplum", {"auth": {"require_scopes": ["Media.x"]}}),
    http("auth.key_id", "medplum", {"auth": {"key_id": "k9"}}, {"auth": TOKEN}),
    http(
        "auth.names_key_set",
        "medplum",
        {"auth": {"names_key_set": True, "jwks_url": "https://d.example/k"}},
        {"auth": TOKEN},
    ),
    http("auth.jwks_url", "medplum", {"auth": {"jwks_url": "{http}/nothing"}}, {"auth": TOKEN}, act="check"),
    http(
        "auth.next_secret",
        "medplum",
        {"auth": {"next_secret": "next", "next_from": "2026-01-01T00:00:00Z"}},
        {"auth": TOKEN},
    ),
    http("auth.secret_headers", "hapi", {"auth": {"secret_headers": {"x-api-key": "other"}}}),
    http("auth", "medplum", {"auth": {"audience": "https://other.example"}}, {"auth": TOKEN}),
    http("sign_in", "veradigm", {"routes": {"rest": {"auth": {"client_id": "other"}}}}),
    http("tenant", "oracle-health", {"tenant": {"tenant": "other"}}),
    http("base_url", "hapi", {"base_url": "{http}/elsewhere"}),
    http("query", "hapi", {"query": {"ah-practice": "Practice-1"}}),
    http("headers", "hapi", {"headers": {"nx-practice-id": "7"}}),
    http("method_override", "hapi", {"method_override": True}, act="newer"),
    http("retract", "hapi", {"retract": "person"}, act="take back"),
    http("retract", "pacs", {"retract": "reject"}, act="take back"),
    hl7("retract_with", {"retract_with": ""}, taken_away=True),
    http("replaces", "hapi", {"replaces": False}, act="newer"),
    hl7("replace_with", {"message": "MDM^T02", "replace_with": "MDM^T10"}, {"message": "MDM^T02"}, replaces=True),
    http("landing.retracts", "hapi", {"landing": {"retracts": "phone"}}, {"retract": "person"}, act="take back"),
    http("patient", "hapi", {"patient": {"identifier_systems": ["urn:other"]}}),
    hl7("authorities", {"authorities": {MRN: "OTHER"}}),
    hl7("default_authority", {"default_authority": "ELSE"}),
    dry("dicom.patient_id_system", "pacs", {"dicom": {"patient_id_system": "urn:other"}}, PACS),
    dry("dicom.issuer", "pacs", {"dicom": {"issuer": "OTHER"}}, PACS),
    http("encounter", "hapi", {"encounter": {"policy": "omit"}}),
    dry("dicom.visit_system", "pacs", {"dicom": {"visit_system": "urn:visits"}}, PACS),
    dry("dicom.visit_issuer", "pacs", {"dicom": {"visit_issuer": "HOSP"}}, PACS),
    dry("dicom.accession", "pacs", {"dicom": {"accession": "visit"}}, PACS),
    dry("dicom", "pacs", {"dicom": {"issuer": "ELSE"}}, PACS),
    *(
        hl7(key, {key: value})
        for key, value in {"version": "2.3", "msh_11": "T", "acknowledge": "application", "pv1_2": "I"}.items()
    ),
    *(hl7(key, {key: "X"}) for key in ("msh_3", "msh_4", "msh_5", "msh_6")),
    *(hl7(key, {key: "IN"}, {"message": "MDM^T02"}) for key in ("txa_17", "txa_19")),
    http("search", "hapi", {"search": "get"}),
    http("code_paths", "hapi", {"code_paths": ["elsewhere"]}, {"signals": SIGNAL}, faults=CODED),
]
_KNOWN: dict[str, Outcome] = {}


def unchanged(run: Callable[[dict[str, Any]], Outcome], base: dict[str, Any]) -> Outcome:
    """The outcome without the flip, once for all flips of it; it is the same each time."""
    key = repr((run, base))
    if key not in _KNOWN:
        _KNOWN[key] = run(base)
        assert run(base) == _KNOWN[key], "not the same twice"
    return _KNOWN[key]


# Kept by tests that need more than one destination or another transport.
ELSEWHERE = {
    "port": "tests/connectors/test_vendors.py",
    "called_ae": "tests/connectors/test_secure_transports.py",
    "calling_ae": "tests/connectors/test_secure_transports.py",
    "attachment_hosts": "tests/connectors/test_fhir_server.py",
    "dicom.dermoscope": "tests/mappings/test_photo_transforms.py",
    "dicom.duplicates": "tests/connectors/test_vendors.py",
    "requires_consent": "tests/delivery/test_deliver.py",
    "on_withdrawal": "tests/connectors/test_vendors.py",
    "timeouts": "tests/connectors/test_http.py",
    "sign_in_seconds": "tests/connectors/test_vendors.py",
    "tls": "tests/connectors/test_secure_transports.py",
    "client_certificate": "tests/connectors/test_secure_transports.py",
    "ca_file": "tests/connectors/test_secure_transports.py",
    "patient_lookup": "tests/connectors/test_patient_query.py",
    "photos": "tests/connectors/test_photos_there.py",
    "comparisons": "tests/compare/test_sheets.py",
    "observations": "tests/compare/test_sheets.py",
    "visit_sheet": "tests/delivery/test_visit_sheets.py",
    "single_photos": "tests/delivery/test_visit_sheets.py",
}
# Said to people by `connectors check` and `explain`; nothing is sent differently.
FOR_PEOPLE = {"tested", "landing.zone", "landing.reviewed_by_people", "launch", "environment", "landing.recorded_as"}


@pytest.mark.parametrize(("key", "run", "base", "flip"), FLIPS)
def test_changing_a_key_changes_what_the_destination_gets_or_is_told(
    key: str, run: Callable[[dict[str, Any]], Outcome], base: dict[str, Any], flip: dict[str, Any]
) -> None:
    before = unchanged(run, base)
    assert run(merged(base, flip)) != before, f"{key} does nothing"


def test_every_key_of_every_question_is_proven_somewhere() -> None:
    asked = {key for knob in KNOBS for key in knob.keys}
    proven = {param.values[0] for param in FLIPS}
    assert asked - proven - set(ELSEWHERE) - FOR_PEOPLE == set()
    root = Path(__file__).parents[2]
    assert all((root / place).exists() for place in ELSEWHERE.values())


def test_every_key_of_every_profile_answers_a_question() -> None:
    answering = {key.partition(".")[0] for knob in KNOBS for key in knob.keys}
    keys = {key for model in PROFILES.values() for key in model.model_fields}
    assert keys - answering == {"name", "unverified"}
