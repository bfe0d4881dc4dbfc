"""Binary: bytes and JSON, ranges, safe headers, and rights that come from the security context."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from httpx import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter.bridge import Bridge
from adapter.records import create_all
from adapter.records.binaries import BinaryRow, create_binary, get_binary, open_binary
from adapter.records.clean_view import CleanView, Keep, Literal, Zeros
from adapter.records.ids import new_id
from mappings.fhir_check import check_resource

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 1200  # more than one sealed chunk
RAW = {"Accept": "image/*", "Content-Type": "image/jpeg", "X-Security-Context": "Media/m1"}


@pytest.fixture(autouse=True)
def photos(bridge: Bridge) -> None:
    def media(name: str, patient_id: str) -> dict[str, Any]:
        subject = {"reference": f"Patient/{patient_id}"}
        return {"resourceType": "Media", "id": name, "status": "completed", "subject": subject}

    with bridge.db.transaction() as tx:
        patient = {"resourceType": "Patient", "id": "p1"}
        create_all(tx, [patient, media("m1", "p1"), media("m2", "p2")], at=bridge.now())


@pytest.fixture
def path(client: Client) -> str:
    created = client.post("/fhir/Binary", content=JPEG, headers=RAW | {"Accept": "application/fhir+json"})
    assert created.status_code == 201
    return created.headers["Location"].removesuffix("/_history/1").removeprefix("http://testserver")


def test_bytes_come_back_with_headers_that_let_nothing_run(client: Client, path: str) -> None:
    response = client.get(path, headers={"Accept": "image/avif,image/*;q=0.8,*/*;q=0.5"})
    assert response.content == JPEG
    headers = response.headers
    assert (headers["Content-Type"], headers["Content-Length"]) == ("image/jpeg", str(len(JPEG)))
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert headers["Cache-Control"] == "private, no-store"
    assert headers["Content-Disposition"] == f"inline; filename={path.rpartition('/')[2]}.jpg"
    assert headers["X-Security-Context"] == "Media/m1"
    assert client.get(path, headers={"Accept": "*/*", "If-None-Match": headers["ETag"]}).status_code == 304
    head = client.head(path, headers={"Accept": "*/*"})
    assert (head.content, head.headers["Content-Length"]) == (b"", str(len(JPEG)))


def test_the_json_form_is_a_binary_resource(client: Client, path: str) -> None:
    resource = client.get(path).json()
    check_resource(resource)
    assert base64.b64decode(resource.pop("data")) == JPEG
    assert resource["securityContext"] == {"reference": "Media/m1"}
    again = client.post(
        "/fhir/Binary", json={"resourceType": "Binary", "contentType": "image/jpeg", "data": "/9j/4A=="}
    )
    assert again.status_code == 201


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-9", 0, 10), ("bytes=262100-262200", 262100, 262201), ("bytes=-5", len(JPEG) - 5, len(JPEG)),
     ("bytes=307000-", 307000, len(JPEG)), ("bytes=0-99999999", 0, len(JPEG))],
)  # fmt: skip
@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
def test_a_range_is_served_exactly(client: Client, path: str, asked: str, start: int, stop: int) -> None:
    response = client.get(path, headers={"Accept": "*/*", "Range": asked})
    assert (response.status_code, response.content) == (206, JPEG[start:stop])
    assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(JPEG)}"


def test_ranges_that_lie_outside_or_are_none_are_told_apart(client: Client, path: str) -> None:
    for outside in (f"bytes={len(JPEG)}-", "bytes=-0"):
        assert client.get(path, headers={"Accept": "*/*", "Range": outside}).status_code == 416
    for none in ("bytes=9-1", "bytes=-", "lines=1-2", "bytes=0-1,4-5"):
        assert client.get(path, headers={"Accept": "*/*", "Range": none}).content == JPEG
    other = {"Accept": "*/*", "Range": "bytes=0-1", "If-Range": '"other"'}
    assert client.get(path, headers=other).status_code == 200


def test_a_binary_is_as_visible_as_its_context(client: Client, path: str) -> None:
    hidden = client.post(
        "/fhir/Binary", content=JPEG, headers=RAW | {"Accept": "*/*", "X-Security-Context": "Media/m2"}
    )
    free = client.post("/fhir/Binary", content=JPEG, headers={"Content-Type": "image/jpeg"})
    client.headers["As"] = "of-p1"
    assert client.get(path).status_code == 200
    for other in (hidden, free):
        assert client.get(other.headers["Location"].removesuffix("/_history/1")).status_code == 404
    refused = client.post(
        "/fhir/Binary", content=JPEG, headers=RAW | {"Accept": "*/*", "X-Security-Context": "Media/m2"}
    )
    assert refused.status_code == 403
    own = client.post("/fhir/Binary", content=JPEG, headers={"Content-Type": "image/jpeg"})
    assert client.get(own.headers["Location"].removesuffix("/_history/1")).json()["securityContext"] == {
        "reference": "Patient/p1"
    }
    assert client.get(path, headers={"As": "reader"}).status_code == 403


@pytest.mark.parametrize(
    ("content_type", "content", "status"),
    [
        ("text/html", b"<script>", 415),
        ("image/svg+xml", b"<svg/>", 415),
        ("", b"\xff\xd8\xff", 415),
        ("image/png", JPEG, 400),
        ("image/jpeg", b"", 400),
        ("application/fhir+json", b'{"resourceType":"Binary","contentType":"image/jpeg","data":"<script>"}', 400),
        ("application/fhir+json", b'{"resourceType":"Binary"}', 400),
    ],
)
@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
def test_other_bytes_are_refused(client: Client, content_type: str, content: bytes, status: int) -> None:
    assert client.post("/fhir/Binary", content=content, headers={"Content-Type": content_type}).status_code == status


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
def test_a_body_over_the_limit_is_refused_before_it_is_read(client: Client, bridge: Bridge) -> None:
    most = bridge.settings.max_capture_bytes * 4 // 3 + 2**20
    refused = client.post("/fhir/Binary", content=b"", headers=RAW | {"Accept": "*/*", "Content-Length": str(most + 1)})
    assert refused.status_code == 413


SEGMENTS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 300_000), st.integers(0, 5_000)).map(lambda pair: Keep(*pair)),
        st.binary(max_size=20).map(Literal),
        st.integers(0, 3_000).map(Zeros),
    ),
    max_size=6,
)


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(segments=SEGMENTS, span=st.tuples(st.integers(0, 20_000), st.integers(0, 20_000)))
def test_any_range_of_a_clean_view_is_that_of_the_assembled_copy(
    bridge: Bridge, segments: list[Any], span: tuple[int, int]
) -> None:
    view = CleanView.in_sequence(segments, len(JPEG))
    whole = view.assemble(JPEG)
    sealed = bridge.vault.seal(JPEG)
    at = bridge.now()
    row = BinaryRow(
        new_id(),
        sealed.id,
        "image/jpeg",
        view.size,
        "0" * 64,
        "Media/m1",
        at,
        clean_view=view.to_json(),
        rendition=None,
    )
    with bridge.db.transaction() as tx:
        bridge.vault.keep(tx, sealed, content_type="image/jpeg", patient_id="p1", at=at)
        create_binary(tx, row)
        opened = open_binary(tx, bridge.vault, get_binary(tx, row.id))
    start, stop = sorted(span)
    stop = min(stop, view.size)
    assert opened.read() == whole
    assert b"".join(opened.iter(min(start, stop), stop)) == whole[min(start, stop) : stop]
