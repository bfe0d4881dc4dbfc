"""/openapi.json tells every route of the table, with what a capture takes; anybody may read it."""

from __future__ import annotations

import re

import httpx

from adapter.capture.metadata import Metadata
from adapter.web.routes import GET, POST, STREAMED
from tests.fhir_api.conftest import InProcess


def test_every_route_of_the_table_is_told(app: object) -> None:
    with httpx.Client(transport=InProcess(app), base_url="http://testserver") as client:
        document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    told = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    routed = {("GET", path) for path in GET} | {("POST", path) for path in POST} | set(STREAMED)
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
    for reference in re.findall(r"#/components/schemas/([\w/$]+)", str(document)):
        found = document["components"]["schemas"]
        for step in reference.split("/"):
            found = found[step]
    headers = {one["name"] for one in document["paths"]["/captures"]["post"]["parameters"]}
    assert {"Idempotency-Key", "DermBridge-Metadata"} <= headers
