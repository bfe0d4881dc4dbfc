"""The FHIR R4 side of a simulated vendor."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlencode

from adapter.sandbox.vendors.behaviour import FhirBehaviour, MatchBehaviour, Refusal
from adapter.sandbox.vendors.engine import OUTCOME, Document, Request, Resource, Response, at, refused

if TYPE_CHECKING:
    from adapter.sandbox.vendors.engine import Vendor

FILED = ("Media", "DocumentReference")
PAGE = 10
_COUNTS = {"current", "completed", "preliminary"}


def respond(vendor: Vendor, behaviour: FhirBehaviour, request: Request) -> Response:  # noqa: PLR0911
    """Search, read, create, update, transaction."""
    kind, _, rest = request.path.removeprefix(behaviour.base).strip("/").partition("/")
    if kind == "metadata":
        software = {"name": f"DermBridge playing {vendor.behaviour.name}", "version": "1"}
        return Response.json(200, _statement(behaviour) | {"software": software})
    if kind == ".well-known" and vendor.behaviour.token_seconds is not None:
        methods = ["client_secret_basic", "client_secret_post", "private_key_jwt"]
        said = {"token_endpoint": f"{vendor.address}/oauth2/token", "token_endpoint_auth_methods_supported": methods}
        return Response.json(
            200, said | {"token_endpoint_auth_signing_alg_values_supported": ["RS256", "RS384", "ES384"]}
        )
    if request.method == "POST" and not kind:
        bundle = json.loads(request.body)
        return (_batch if bundle.get("type") == "batch" else _transaction)(vendor, behaviour, request)
    if rest == "_search" or (request.method == "GET" and not rest):
        query = parse_qs(request.body.decode()) if rest == "_search" else {k: [v] for k, v in request.query.items()}
        asked = {name: values[0] for name, values in query.items()}
        return _searched(vendor, behaviour, request, kind, asked)
    if kind == "Patient" and rest == "$match" and behaviour.match:
        return _match(vendor, behaviour.match, json.loads(request.body))
    if behaviour.access_write and "/$binary-access-" in rest:
        return _access(vendor, kind, rest, request)
    if request.method == "GET" and kind == "Patient":
        return _read_patient(vendor, behaviour, rest.removeprefix("pat-"))
    if request.method == "GET":
        return _read(vendor, kind, rest)
    if kind not in behaviour.creates:
        return Response.json(behaviour.not_offered, OUTCOME)
    if kind == "Binary" and "json" not in request.headers.get("content-type", ""):
        return _raw_binary(vendor, behaviour, request)
    if request.method == "POST" and behaviour.transaction_only:
        return Response.json(behaviour.not_offered, OUTCOME)
    return _write(vendor, behaviour, kind, rest, json.loads(request.body), request.headers)


def _searched(vendor: Vendor, behaviour: FhirBehaviour, request: Request, kind: str, asked: dict[str, str]) -> Response:
    search = f"{kind}?{urlencode(asked)}"
    fresh = _bundle(_found(vendor, kind, asked), f"{vendor.address}{request.path}", asked)
    if behaviour.remembers_searches and "no-cache" not in request.headers.get("cache-control", ""):
        return vendor.searched.setdefault(search, fresh)
    vendor.searched[search] = fresh
    return fresh


def filed_resources(vendor: Vendor) -> list[Document]:
    """The Media and DocumentReferences that count, with their bytes."""
    documents = []
    for (kind, resource_id), resource in vendor.resources.items():
        if kind in FILED and resource.get("status") in _COUNTS:
            attachment = resource["content"] if kind == "Media" else resource["content"][0]["attachment"]
            mrn = _whose(resource)
            content = _content(vendor, attachment)
            documents.append(Document(resource_id, mrn, content, str(attachment.get("contentType"))))
    return documents


def _whose(resource: Resource) -> str:
    """The patient's number, by reference, contained or as it stands there."""
    subject = resource["subject"]
    inside = [each for each in resource.get("contained", []) if f"#{each['id']}" == subject.get("reference")]
    named = inside[0]["identifier"][0] if inside else subject.get("identifier")
    return str(named["value"] if named else subject["reference"]).rpartition("/")[2].removeprefix("pat-")


def _content(vendor: Vendor, attachment: Resource) -> bytes:
    if "data" in attachment:
        return base64.b64decode(attachment["data"])
    return vendor.binaries.get(str(attachment.get("url")).rpartition("/")[2], ("", b""))[1]


def _patient(vendor: Vendor, mrn: str) -> Resource:
    born = {"birthDate": vendor.patients[mrn]} if vendor.patients[mrn] else {}
    found = {"resourceType": "Patient", "id": f"pat-{mrn}", "active": True, "identifier": [{"value": mrn}]} | born
    if survivor := vendor.merged.get(mrn):
        link = {"type": "replaced-by", "other": {"reference": f"Patient/pat-{survivor}"}}
        return found | {"active": False, "link": [link]}
    return found


def _read_patient(vendor: Vendor, behaviour: FhirBehaviour, mrn: str) -> Response:
    if mrn not in vendor.patients:
        return Response.json(404, OUTCOME)
    survivor = vendor.merged.get(mrn)
    if survivor and behaviour.merged:
        answer = refused(behaviour.merged)
        return Response(answer.status, answer.body, answer.headers | {"Location": f"Patient/pat-{survivor}"})
    return Response.json(200, _patient(vendor, mrn))


def _match(vendor: Vendor, behaviour: MatchBehaviour, parameters: Resource) -> Response:
    asked = next(each["resource"] for each in parameters["parameter"] if each["name"] == "resource")
    born = asked.get("birthDate", "")
    numbers = [each["value"] for each in asked.get("identifier", []) if each["value"] in vendor.patients]
    if numbers and vendor.patients[numbers[0]] == born:
        system = asked["identifier"][0]["system"]
        return _bundle([_with_system(_patient(vendor, numbers[0]), system)], vendor.address, {})
    return refused(behaviour.uncertain if numbers or born in vendor.patients.values() else behaviour.nobody)


def _found(vendor: Vendor, kind: str, query: dict[str, str]) -> list[Resource]:
    system, _, value = query.get("identifier", "").rpartition("|")
    if kind == "Patient":
        return [_with_system(_patient(vendor, value), system)] if value in vendor.patients else []
    if kind == "Encounter":
        if value not in vendor.visits:
            return []
        subject = {"reference": f"Patient/pat-{vendor.visits[value]}"}
        visit = {"resourceType": "Encounter", "id": f"enc-{value}", "status": "in-progress", "subject": subject}
        visit |= {"period": vendor.visit_periods[value]} if value in vendor.visit_periods else {}
        return [_with_system(visit | {"identifier": [{"value": value}]}, system)]
    held = [resource for (each, _), resource in vendor.resources.items() if each == kind]
    if "patient" in query:
        return [each for each in held if f"pat-{_whose(each)}" == query["patient"].removeprefix("Patient/")]
    wanted = {"system": system, "value": value}
    return [each for each in held if any(wanted.items() <= one.items() for one in each.get("identifier", []))]


def _with_system(resource: Resource, system: str) -> Resource:
    """The simulator takes any identifier system for its own."""
    return resource | {"identifier": [each | {"system": system} for each in resource["identifier"]]}


def _bundle(resources: list[Resource], address: str, asked: dict[str, str]) -> Response:
    """One page of a search, with the link to the next."""
    start = int(asked.get("_offset", "0"))
    entries = [{"resource": each} for each in resources[start : start + PAGE]]
    bundle: Resource = {"resourceType": "Bundle", "type": "searchset", "entry": entries}
    if start + PAGE < len(resources):
        following = urlencode(asked | {"_offset": str(start + PAGE)})
        bundle["link"] = [{"relation": "next", "url": f"{address}?{following}"}]
    return Response.json(200, bundle)


def _read(vendor: Vendor, kind: str, resource_id: str) -> Response:
    if kind == "Binary" and resource_id in vendor.binaries:
        content_type, content = vendor.binaries[resource_id]
        return Response(200, content, {"Content-Type": content_type})
    resource = vendor.resources.get((kind, resource_id))
    return Response.json(200, resource) if resource else Response.json(404, OUTCOME)


def _access(vendor: Vendor, kind: str, rest: str, request: Request) -> Response:
    """The bytes of an attachment, written and read beside its resource."""
    resource_id, _, operation = rest.partition("/")
    resource = vendor.resources.get((kind, resource_id))
    if resource is None or request.query.get("path", "").split(".")[0] != kind:
        return Response.json(404, OUTCOME)
    named = f"{kind}-{resource_id}"
    if operation == "$binary-access-read":
        content_type, content = vendor.binaries.get(named, ("", b""))
        return Response(200, content, {"Content-Type": content_type}) if content else Response.json(404, OUTCOME)
    vendor.binaries[named] = (request.headers["content-type"], request.body)
    attachment = resource["content"] if kind == "Media" else resource["content"][0]["attachment"]
    attachment["url"] = f"Binary/{named}"
    return Response.json(200, resource)


def _raw_binary(vendor: Vendor, behaviour: FhirBehaviour, request: Request) -> Response:
    if not behaviour.raw_binary:
        return Response.json(415, OUTCOME)
    binary_id = vendor.new_id()
    vendor.binaries[binary_id] = (request.headers["content-type"], request.body)
    return Response(201, b"", {"Location": f"Binary/{binary_id}"})


def _write(
    vendor: Vendor, behaviour: FhirBehaviour, kind: str, known_id: str, body: Resource, headers: Mapping[str, str]
) -> Response:
    if refusal := _refusal(behaviour, body):
        return refused(refusal)
    if behaviour.conditional_create and (condition := headers.get("if-none-exist")):
        asked = {"identifier": parse_qs(unquote(condition))["identifier"][0]}
        if found := _found(vendor, kind, asked):
            return Response.json(200, found[0], Location=f"{kind}/{found[0]['id']}")
    if known_id:
        current = vendor.resources.get((kind, known_id))
        if current is None:
            return Response.json(404, OUTCOME)
        match = headers.get("if-match")
        if match and match != f'W/"{current["meta"]["versionId"]}"':
            return Response.json(409, OUTCOME)
    stored = _stored(vendor, behaviour, kind, known_id, body)
    return _answer(vendor, behaviour, kind, stored, created=not known_id)


def _stored(vendor: Vendor, behaviour: FhirBehaviour, kind: str, known_id: str, body: Resource) -> Resource:
    resource_id = known_id or vendor.new_id()
    before = vendor.resources.get((kind, resource_id), {})
    version = int(at(before, "meta.versionId") or 0) + 1
    kept = {name: value for name, value in body.items() if name not in behaviour.drops}
    meta = {"versionId": str(version), "lastUpdated": "2026-11-23T09:30:00Z"}
    stored = kept | {"id": resource_id, "meta": kept.get("meta", {}) | meta}
    if kind == "Binary":
        vendor.binaries[resource_id] = (stored["contentType"], base64.b64decode(stored["data"]))
    else:
        vendor.resources[kind, resource_id] = stored
    return stored


def _answer(vendor: Vendor, behaviour: FhirBehaviour, kind: str, stored: Resource, *, created: bool) -> Response:
    place = f"{kind}/{stored['id']}"
    absolute = behaviour.location == "absolute"
    headers = {"Location": f"{vendor.address}{behaviour.base}/{place}" if absolute else place}
    if behaviour.etag:
        headers["ETag"] = f'W/"{stored["meta"]["versionId"]}"'
    status = 201 if created else 200
    if behaviour.answer == "empty":
        return Response(status, b"", headers)
    return Response(status, json.dumps(stored).encode(), headers | {"Content-Type": "application/fhir+json"})


def _refusal(behaviour: FhirBehaviour, body: Resource) -> Refusal | None:
    if body["resourceType"] not in FILED:
        return None
    kind = body["resourceType"]
    of_this = [path for path in behaviour.required if not path[0].isupper() or path.startswith(f"{kind}.")]
    missing = any(at(body | {kind: body}, path) is None for path in of_this)
    if missing or any(name in body for name in behaviour.rejects):
        return behaviour.refusal
    attachment = body["content"] if kind == "Media" else body["content"][0]["attachment"]
    content_type = str(attachment.get("contentType", "")).partition(";")[0]
    accepts = (kind == "DocumentReference" and behaviour.documents) or behaviour.accepts
    if accepts and content_type not in accepts:
        return behaviour.type_refusal
    return None


def _batch(vendor: Vendor, behaviour: FhirBehaviour, request: Request) -> Response:
    """Each entry as a request of its own."""
    if not behaviour.batch:
        return Response.json(behaviour.not_offered, OUTCOME)
    entries = []
    for entry in json.loads(request.body)["entry"]:
        asked = entry["request"]
        one = Request(asked["method"], f"{behaviour.base}/{asked['url']}", request.headers, b"")
        answer = respond(vendor, behaviour, one)
        held = {"resource" if answer.status < 300 else "outcome": json.loads(answer.body)}
        response = {"status": str(answer.status)} | ({} if "resource" in held else held)
        entries.append({"response": response} | ({"resource": held["resource"]} if "resource" in held else {}))
    entries = {"": entries, "fewer": entries[:-1], "more": [*entries, *entries[:1]], "reversed": entries[::-1]}[
        behaviour.batch_lies
    ]
    return Response.json(200, {"resourceType": "Bundle", "type": "batch-response", "entry": entries})


def _transaction(vendor: Vendor, behaviour: FhirBehaviour, request: Request) -> Response:
    entries = []
    for entry in json.loads(request.body).get("entry", []):
        body = entry["resource"]
        if body["resourceType"] not in behaviour.creates:
            return Response.json(behaviour.not_offered, OUTCOME)
        headers = {"if-none-exist": entry["request"]["ifNoneExist"]} if "ifNoneExist" in entry["request"] else {}
        answer = _write(vendor, behaviour, body["resourceType"], "", body, headers)
        if answer.status >= 300:
            return answer
        entries.append({"response": {"status": f"{answer.status} Created", "location": answer.headers["Location"]}})
    return Response.json(200, {"resourceType": "Bundle", "type": "transaction-response", "entry": entries})


def _statement(behaviour: FhirBehaviour) -> Resource:
    def interactions(kind: str) -> list[dict[str, str]]:
        codes = ["read", "search-type", *(["create", "update"] if kind in behaviour.creates else [])]
        return [{"code": code} for code in codes]

    kinds = ("Patient", "Encounter", "Binary", "Media", "DocumentReference", "Consent")
    listed = [
        {"type": kind, "interaction": interactions(kind), "conditionalCreate": behaviour.conditional_create}
        for kind in kinds
    ]
    system = {"interaction": [{"code": "batch"}]} if behaviour.batch else {}
    return {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": [{"resource": listed} | system]}
