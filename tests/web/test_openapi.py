"""/openapi.json tells every route outside /fhir, with what a capture takes; anybody may read it."""

from __future__ import annotations

import re

import httpx
from starlette.applications import Starlette
from starlette.routing import Route

from adapter.capture.metadata import Metadata
from tests.fhir_api.conftest import InProcess


def test_every_route_there_is_is_told(app: Starlette) -> None:
    with httpx.Client(transport=InProcess(app), base_url="http://testserver") as client:
        document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    told = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    routed = {
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route) and not route.path.startswith(("/fhir/{", "/static"))
        for method in route.methods or ()
        if method != "HEAD" and route.path != "/fhir"
    }
    assert told == routed
    operations = [one for item in document["paths"].values() for one in item.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    for path, item in document["paths"].items():
        for one in item.values():
            given = {each["name"] for each in one["parameters"] if each["in"] == "path"}
            assert given == set(re.findall(r"\{(\w+)\}", path)) and one["summary"]


def test_a_capture_is_told_by_the_model_that_checks_it(app: object) -> None:
    with httpx.Client(transport=InProcess(app), base_url="http://testserver") as client:
        document = client.get("/openapi.json").json()
    schema = document["components"]["schemas"]["CaptureMetadata"]
    assert set(schema["properties"]) == set(Metadata.model_fields)
    for reference in re.findall(r"#/components/([\w/$]+)", str(document)):
        found = document["components"]
        for step in reference.split("/"):
            found = found[step]
    headers = {one["name"] for one in document["paths"]["/captures"]["post"]["parameters"]}
    assert {"Idempotency-Key", "DermBridge-Metadata"} <= headers
