"""Schemathesis over everything we answer to: requests made from /openapi.json, and from the CapabilityStatement for
/fhir, right and wrong ones. Whatever comes, the service stands: never a 5xx.

`DERMBRIDGE_API_EXAMPLES` is how many requests each operation gets (8).
"""

from __future__ import annotations

import copy
import os
import tomllib
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from adapter.access import Actor
from adapter.access.policy import grants_of
from adapter.access.sessions import COOKIE, start_session
from adapter.access.tokens import issue_token
from adapter.bridge import Bridge
from adapter.settings import load_settings
from tests.access.apps import APP, asked
from tests.access.conftest import RECORDS
from tests.access.machines import Machine
from tests.sandbox.conftest import free_port
from tests.servers.dermbridge import dermbridge
from tests.web.conftest import picture

try:
    import schemathesis
except ModuleNotFoundError:
    schemathesis = None

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(schemathesis is None, reason="no schemathesis here: pip install -r requirements/ci.txt"),
]

EXAMPLES = int(os.environ.get("DERMBRIDGE_API_EXAMPLES", "8"))
EVERYTHING = (
    "system/*.cruds right/original right/export right/operate right/worklist right/audit right/launch-any-patient "
    "right/very-restricted"
)
ENDLESS = {"/patients/{id}/events"}  # a stream
KNOWN = ["p1", "p2", "m1", "secret", "e1", "1", "0", ""]
FORM = {  # what our forms send, so that more than their absence is tried
    **dict.fromkeys(("patient", "encounter", "media", "lesion", "left", "right", "device", "form_id"), KNOWN),
    "operation": ["assign", "deliver", "export", "purge"],
    "version": ["1", "2", "x", "-1", "99999999999999999999"],
    "reason": ["TREAT", "reported", "taken of somebody else"],
    "why": ["bleeding wound seen in clinic"],
    "site": ["113179006", "1"],
    "laterality": ["left", "7771000"],
    "view": ["overview", "close-up"],
    "taken_at": ["2026-11-23T09:10", "0000-00-00T00:00", "9999-12-31T23:59"],
    "how": ["said", "written"],
    "method": ["verbal", "paper", "signature"],
    "statement_read": ["1"],
    "birth_date": ["1961-03-12", "1961-13-40"],
    "number": ["1001"],
    "because": ["a word of explanation"],
    "request": [urlencode(asked(scope="openid fhirUser")), urlencode(asked())],  # of an app that asks to act for one
    "decision": ["allow", "deny"],
}
QUERY = ("patient", "media", "page", "state", "q", "user", "photo", "since", "until", "iss")
JSON: dict[str, Any] = {}  # any JSON value
MACHINE = Machine()


class Site(NamedTuple):
    bridge: Bridge

    def token(self) -> dict[str, str]:
        with self.bridge.db.transaction() as tx:
            _, secret = issue_token(tx, name="t", scope=EVERYTHING, at=self.bridge.now(), lifetime=timedelta(hours=1))
        return {"Authorization": f"Bearer {secret}"}

    def session(self, role: str, patient_id: str | None) -> dict[str, str]:
        """A new one each time, since some requests end theirs."""
        actor = Actor("person", f"Practitioner/{role}", role, role, *grants_of(role), patient_id=patient_id)
        with self.bridge.db.transaction() as tx:
            cookie, opened = start_session(tx, actor, at=self.bridge.now(), lifetime=timedelta(hours=1))
        return {"Cookie": f"{COOKIE}={cookie}", "X-CSRF-Token": opened.csrf}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, apps = tmp_path_factory.mktemp("data"), [APP.model_dump(), MACHINE.registration.model_dump()]
    settings = load_settings(environment={}, data_dir=folder, http_port=free_port(), clients=apps)
    with dermbridge(settings, RECORDS) as bridge:
        yield Site(bridge)


def some(values: list[str]) -> dict[str, Any]:
    return {"anyOf": [{"enum": values}, {"type": "string"}]}


def get(site: Site, path: str) -> Any:
    return httpx.get(f"{site.bridge.settings.base_url}{path}").json()


def pages(site: Site) -> dict[str, Any]:
    """/openapi.json with ids that exist and fields that our forms have."""
    document: dict[str, Any] = copy.deepcopy(get(site, "/openapi.json"))
    document["paths"] = {path: item for path, item in document["paths"].items() if path not in ENDLESS}
    query = [{"name": name, "in": "query", "schema": some(KNOWN)} for name in QUERY]
    for item in document["paths"].values():
        for method, operation in item.items():
            for parameter in operation["parameters"]:
                if parameter["in"] == "path":
                    parameter["schema"] = some([one for one in KNOWN if one])
            operation["parameters"] += query if method == "get" else []
            for content in operation.get("requestBody", {}).get("content", {}).values():
                if content["schema"] == {"type": "object"}:
                    content["schema"] = {
                        "type": "object",
                        "properties": {name: some(values) for name, values in FORM.items()},
                    }
    return document


def fhir(site: Site) -> dict[str, Any]:
    """/fhir/metadata told as OpenAPI."""
    statement = get(site, "/fhir/metadata")
    paths: dict[str, Any] = {
        "/": {"post": _operation([], "Bundle")},
        "/{id}/{name}": {"get": _operation(["id", "name"])},
    }
    for resource in statement["rest"][0]["resource"]:
        kind, offered = resource["type"], {one["code"] for one in resource.get("interaction", ())}
        params = [
            {"name": one["name"], "in": "query", "schema": some(KNOWN)} for one in resource.get("searchParam", ())
        ]
        common = [
            {"name": name, "in": "query", "schema": some(KNOWN)} for name in ("_count", "_sort", "_include", "_id")
        ]
        found = {
            f"/{kind}": {
                "search-type": ("get", _operation([], more=params + common)),
                "create": ("post", _operation([], kind)),
            },
            f"/{kind}/_search": {"search-type": ("post", _operation([], more=params + common))},
            f"/{kind}/{{id}}": {"read": ("get", _operation(["id"])), "update": ("put", _operation(["id"], kind))},
            f"/{kind}/{{id}}/_history": {"history-instance": ("get", _operation(["id"]))},
            f"/{kind}/{{id}}/_history/{{version}}": {"vread": ("get", _operation(["id", "version"]))},
        }
        for path, operations in found.items():
            paths[path] = {method: operation for code, (method, operation) in operations.items() if code in offered}
    return {
        "openapi": "3.1.0",
        "info": {"title": "FHIR", "version": "1"},
        "servers": [{"url": f"{site.bridge.settings.base_url}/fhir"}],
        "paths": {path: item for path, item in paths.items() if item},
    }


def _operation(names: list[str], body: str | None = None, more: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    ids = [one for one in KNOWN if one]
    parameters = [{"name": name, "in": "path", "required": True, "schema": some(ids)} for name in names]
    operation: dict[str, Any] = {
        "parameters": parameters + (more or []),
        "responses": {"default": {"description": "-"}},
    }
    if body is not None:
        operation["requestBody"] = {"content": {"application/fhir+json": {"schema": _resource(body)}}}
    return operation


def _resource(kind: str) -> dict[str, Any]:
    reference = {"type": "object", "properties": {"reference": some([f"Patient/{one}" for one in KNOWN])}}
    elements = ("identifier", "content", "bodySite", "status", "meta", "extension", "dateTime", "provision", "category")
    entries = {"type": "array", "items": {"type": "object", "properties": {"resource": JSON, "request": JSON}}}
    return {
        "type": "object",
        "required": ["resourceType"],
        "properties": {
            "resourceType": {"enum": [kind]},
            "id": some(KNOWN),
            **dict.fromkeys(elements, JSON),
            **{element: {"anyOf": [reference, JSON]} for element in ("subject", "patient", "individual")},
            **({"type": {"enum": ["batch", "transaction", "x"]}, "entry": entries} if kind == "Bundle" else {}),
        },
    }


WHO: dict[str, Callable[[Site], dict[str, str]]] = {
    "a machine": Site.token,
    "an administrator": lambda site: site.session("administrator", None),
    "a clinician": lambda site: site.session("clinician", "p1"),
    "nobody": lambda _site: {},
}
CONFORMANCE = schemathesis and (
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
)


@pytest.mark.parametrize("who", [who for who in WHO if who != "nobody"])
@pytest.mark.parametrize("described", [pages, fhir], ids=["pages", "fhir"])
def test_no_request_breaks_the_service(site: Site, described: Callable[[Site], dict[str, Any]], who: str) -> None:
    document = described(site)
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=document["servers"][0]["url"])
    broken, tried = [], 0
    for result in schema.get_all_operations():
        operation = result.ok()
        tried += 1
        try:
            _try(operation, lambda: WHO[who](site))
        except AssertionError as failure:
            broken.append(str(failure))
    assert tried > 40
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("who", ["a machine", "nobody"])
def test_what_programs_call_answers_as_it_is_described(site: Site, who: str) -> None:
    """Status, content type and schema of every answer; ids that exist, and those that do not."""
    document = pages(site)
    told = tomllib.loads((files("adapter.web") / "openapi.toml").read_text("utf-8"))["paths"]
    document["paths"] = {path: item for path, item in document["paths"].items() if path in told}
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=document["servers"][0]["url"])
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == len(told)
    for operation in operations:
        _try(operation, lambda: WHO[who](site), checks=CONFORMANCE)


def test_what_a_machine_and_a_capture_are_answered_is_described(site: Site) -> None:
    """The answers to requests in order, which no generator hits upon."""
    schema = schemathesis.openapi.from_dict(get(site, "/openapi.json"))
    base, sent = site.bridge.settings.base_url, site.token() | {"Content-Type": "image/jpeg"}

    def proof(**fields: str) -> dict[str, str]:
        return MACHINE.form(site.bridge, MACHINE.assertion(site.bridge, aud=f"{base}/auth/token"), **fields)

    issued = httpx.post(f"{base}/auth/token", data=proof(grant_type="client_credentials", scope="system/Media.rs"))
    taken = httpx.post(f"{base}/captures", content=picture(), headers=sent)
    at = taken.headers["location"]
    token = issued.json()["access_token"]
    answers = {
        ("/auth/token", "POST", 200): issued,
        ("/auth/introspect", "POST", 200): httpx.post(f"{base}/auth/introspect", data=proof(token=token)),
        ("/captures", "POST", 202): taken,
        ("/captures/{id}", "GET", 200): httpx.get(f"{base}{at}", headers=site.token()),
        ("/captures/{id}/{content}", "GET", 206): httpx.get(
            f"{base}{at}/clean", headers=site.token() | {"Range": "bytes=0-9"}
        ),
    }
    for (path, method, status), answer in answers.items():
        assert answer.status_code == status, (path, answer.text)
        schema[path][method].validate_response(answer)


def _try(operation: Any, headers: Callable[[], dict[str, str]], checks: tuple[Any, ...] = ()) -> None:
    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy())
    def asked(case: Any) -> None:
        response = case.call(headers=headers(), timeout=20, allow_redirects=False)
        assert response.status_code < 500, (
            f"{response.status_code}: {case.as_curl_command()[:600]}\n{response.text[:300]}"
        )
        if checks:
            case.validate_response(response, checks=list(checks))

    asked()
