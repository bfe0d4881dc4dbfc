"""/metrics: OpenMetrics that a parser accepts, without ids, for this machine or a token's scope only."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from adapter.access.tokens import issue_token
from adapter.bridge import Bridge
from adapter.db.tables import delivery
from adapter.delivery.circuit import set_held
from adapter.web.metrics import COUNT_BYTES, make_room_for_counts, route_of
from adapter.work import Work, enqueue
from tests.fhir_api.conftest import InProcess
from tests.web.conftest import Browser, picture


def scrape(app: object, **headers: str) -> httpx.Response:
    with httpx.Client(transport=InProcess(app), base_url="http://testserver") as client:
        return client.get("/metrics", headers=headers)


def bearer(bridge: Bridge, scope: str) -> dict[str, str]:
    with bridge.db.transaction() as tx:
        _, secret = issue_token(tx, name="prometheus", scope=scope, at=bridge.now())
    return {"Authorization": f"Bearer {secret}"}


def test_work_and_requests_are_counted_and_no_id_is_a_label(bridge: Bridge, app: object, clinician: Browser) -> None:
    photo = clinician.capture(picture()).json()["id"]
    clinician.get(f"/photos/{photo}")
    clinician.get(f"/no/{photo}")
    with bridge.db.transaction() as tx:
        enqueue(tx, Work(kind="job", idempotency_key="job:1"), at=bridge.now())
    answer = scrape(app, **bearer(bridge, "system/Metrics.r"))
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    samples = [one for family in text_string_to_metric_families(answer.text) for one in family.samples]
    found = {(one.name, tuple(sorted(one.labels.items()))): one.value for one in samples}
    assert found[("dermbridge_work", (("kind", "job"), ("state", "waiting")))] == 1
    counted = {one.labels["route"]: one for one in samples if one.name.endswith("start_seconds_count")}
    assert counted["/captures"].labels["status"] == "201" and counted["/photos/{id}"].value == 1
    assert "other" in counted and photo not in answer.text and "p1" not in answer.text


def test_a_token_needs_the_scope(bridge: Bridge, app: object, clinician: Browser, administrator: Browser) -> None:
    assert scrape(app, **bearer(bridge, "system/Media.r")).status_code == 403
    assert clinician.get("/metrics").status_code == 403
    assert administrator.get("/metrics").status_code == 200


@pytest.mark.parametrize(
    ("path", "params", "route"),
    [
        ("/patients/p1/consents", {"id": "p1"}, "/patients/{id}/consents"),
        ("/jobs/j1.json", {"id": "j1"}, "/jobs/{id}.json"),
        ("/captures/c1/thumbnail", {"id": "c1", "content": "thumbnail"}, "/captures/{id}/{content}"),
        ("/fhir/Media/m1", {"path": "Media/m1"}, "/fhir/Media"),
        ("/fhir/Secret/m1", {"path": "Secret/m1"}, "/fhir"),
        ("/static/app.css", {"path": "app.css"}, "/static"),
    ],
)
def test_a_route_is_named_by_its_pattern(path: str, params: dict[str, str], route: str) -> None:
    assert route_of({"path": path, "path_params": params, "endpoint": object()}) == route


def test_from_elsewhere_without_a_token_nothing_is_told(app: object) -> None:
    assert scrape(app, **{"X-Forwarded-For": "10.0.0.7"}).status_code == 403


def test_each_destination_tells_its_time_to_the_chart_and_whether_it_is_shut(bridge: Bridge, app: object) -> None:
    object.__setattr__(bridge, "settings", bridge.settings.model_copy(update={"destinations": ({"name": "ehr"},)}))
    at = bridge.now()
    row = {"id": "d1", "media_id": "m1", "media_version": 1, "destination": "ehr", "state": "confirmed"}
    times = {"created_at": at - timedelta(seconds=8), "updated_at": at, "accepted_at": at, "confirmed_at": at}
    with bridge.db.transaction() as tx:
        tx.execute(delivery.insert(), row | times)
        set_held(tx, "ehr", "maintenance", at=at)
    told = scrape(app, **bearer(bridge, "system/Metrics.r")).text
    assert 'dermbridge_deliveries_to_chart_seconds{destination="ehr",quantile="0.95"} 8.0' in told
    assert 'dermbridge_destination_shut{destination="ehr"} 1.0' in told


def test_processes_count_where_room_was_taken_before_the_disk_was_full(tmp_path: Path) -> None:
    """Written into a hole of a file that is mapped into memory, what a full disk refuses is the process's death."""
    make_room_for_counts(tmp_path / "counts", 2)
    files = [file.stat() for file in (tmp_path / "counts").iterdir()]
    assert [(file.st_size, file.st_blocks * 512 >= file.st_size) for file in files] == [(COUNT_BYTES, True)] * 2
