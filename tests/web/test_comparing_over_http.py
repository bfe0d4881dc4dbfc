"""Comparing over HTTP: for the page and for FHIR clients, audited each time, within one patient."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sqlalchemy import func, select

from adapter.bridge import Bridge
from adapter.db.tables import audit_event, binary
from adapter.records import create
from mappings.fhir_check import check_resource
from tests.measure.scenes import scene
from tests.web.conftest import Browser, visit

pytestmark = pytest.mark.long

MOLE = Path(__file__).parents[1] / "data" / "skin" / "ISIC_0009995.jpg"


def _photo(browser: Browser, angle: float) -> str:
    out = io.BytesIO()
    with Image.open(MOLE) as image:
        image.convert("RGB").rotate(angle, Image.Resampling.BICUBIC, fillcolor=(180, 140, 120)).save(out, "JPEG")
    return _captured(browser, out.getvalue())


def _captured(browser: Browser, content: bytes) -> str:
    described = base64.urlsafe_b64encode(json.dumps({}).encode()).decode()
    answer = browser.capture(content, **{"DermBridge-Metadata": described})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.fixture
def pair(clinician: Browser) -> tuple[str, str]:
    return _photo(clinician, 0), _photo(clinician, 5)


def test_the_page_gets_verdict_and_pictures_and_nobody_else_does(
    clinician: Browser, colleague: Browser, pair: tuple[str, str]
) -> None:
    query = f"/comparison?media={pair[0]}&media={pair[1]}"
    found = clinician.get(query).json()
    assert found["verdict"] == "aligned", found["reasons"]
    refused = clinician.get(found["pictures"].pop("normalised"), headers={"Accept": "application/json"})
    assert refused.status_code == 422 and "no calibration card" in refused.text
    for url in found["pictures"].values():
        answer = clinician.get(url)
        assert answer.headers["content-type"] in ("image/jpeg", "image/png")
        assert Image.open(io.BytesIO(answer.content)).size[0] <= 1000
        assert colleague.get(url).status_code == 404
    assert colleague.get(query).status_code == 404
    assert clinician.get(f"/comparison?media={pair[0]}").status_code == 400


def test_photos_in_two_lights_are_laid_over_each_other_in_the_colours_that_their_cards_tell(
    clinician: Browser, colleague: Browser, bridge: Bridge
) -> None:
    left, right = (_captured(clinician, scene(light).jpeg) for light in ("card", "coloured light"))
    pictures = clinician.get(f"/comparison?media={left}&media={right}").json()["pictures"]

    def colours(url: str) -> npt.NDArray[np.int16]:
        image = Image.open(io.BytesIO(clinician.get(url).content)).convert("RGB")
        return np.asarray(image.resize((700, 525)), np.int16)

    def differ(ours: npt.NDArray[np.int16], theirs: npt.NDArray[np.int16]) -> float:
        return float(np.abs(ours - theirs).mean())

    before, corrected = _logged(bridge, "aligned, colours normalised"), colours(pictures["normalised"])
    assert _logged(bridge, "aligned, colours normalised") == before + 1
    beneath = colours(f"/photos/{left}/normalised")
    apart = differ(beneath, corrected)
    assert apart < 3
    assert differ(beneath, colours(pictures["aligned"])) > 3 * apart
    assert differ(beneath[-12:], corrected[-12:]) < 3  # both are labelled at the same place
    assert colleague.get(pictures["normalised"]).status_code == 404


def _logged(bridge: Bridge, detail: str) -> int:
    with bridge.db.snapshot() as tx:
        return sum(detail in str(body) for body in tx.execute(select(audit_event.c.body)).scalars())


def test_media_compare_answers_with_parameters_and_is_audited_each_time(
    clinician: Browser, bridge: Bridge, pair: tuple[str, str]
) -> None:
    def told() -> int:
        with bridge.db.snapshot() as tx:
            compared = audit_event.c.subtype.like("photo-compared|%")
            return tx.execute(select(func.count()).select_from(audit_event).where(compared)).scalar_one()

    left, right = (f"Media/{one}" for one in pair)
    before = told()
    fhir = {"Accept": "application/fhir+json"}
    headers = fhir | {"Content-Type": "application/fhir+json", "X-CSRF-Token": clinician.csrf}

    def ask(*photos: str) -> httpx.Response:
        named = [{"name": "media", "valueReference": {"reference": one}} for one in photos]
        asked = json.dumps({"resourceType": "Parameters", "parameter": named})
        return clinician.client.post("/fhir/Media/$compare", content=asked, headers=headers)

    got = ask(left, right)
    assert got.status_code == 200, got.text
    check_resource(got.json())
    parameters = {one["name"]: one for one in got.json()["parameter"]}
    assert parameters["verdict"]["valueCode"] == "aligned"
    assert {"picture-aligned", "quality", "change-method"} <= parameters.keys()
    assert ask(left, right).json() == got.json()
    assert told() == before + 2
    refused = ask(left)
    assert (refused.status_code, refused.json()["resourceType"]) == (400, "OperationOutcome")
    by_get = clinician.get("/fhir/Media/$compare", params={"media": [left, right]}, headers=fhir)
    assert (by_get.status_code, by_get.json()["resourceType"]) == (405, "OperationOutcome")


def test_the_page_aligns_by_points_and_takes_them_back(
    clinician: Browser, colleague: Browser, pair: tuple[str, str]
) -> None:
    fields = {"left": pair[0], "right": pair[1]}
    points = [[[x, y], [x, y]] for x, y in ((200, 150), (450, 160), (300, 380))]
    placed = clinician.post("/comparison", fields | {"points": json.dumps(points)})
    assert placed.status_code == 200, placed.text
    assert placed.json()["by_hand"]["points"] == points
    query = f"/comparison?media={pair[0]}&media={pair[1]}"
    assert clinician.get(query).json()["id"] == placed.json()["id"]
    assert colleague.post("/comparison", fields | {"points": json.dumps(points)}).status_code == 404
    assert colleague.post("/comparison/take-back", fields).status_code == 404
    back = clinician.post("/comparison/take-back", fields)
    assert "by_hand" not in back.json()
    assert clinician.post("/comparison", fields | {"points": "[[1, 2]]"}).status_code == 400
    assert clinician.post("/comparison", fields | {"points": "[[[NaN, 1], [1, 1]]]"}).status_code == 400


def test_the_second_photo_as_it_lies_on_the_first_is_there_in_all_its_pixels(
    clinician: Browser, colleague: Browser, pair: tuple[str, str], bridge: Bridge
) -> None:
    found = clinician.get(f"/comparison?media={pair[0]}&media={pair[1]}").json()
    about = clinician.get(found["tiles"]).json()
    assert about == clinician.get(found["tiles"]).json()
    assert [about["width"], about["height"]] == found["lattice"]["left"]
    first = about["url"].format(level=0, column=0, row=0)
    shown = Image.open(io.BytesIO(clinician.get(first).content)).convert("L")
    small = Image.open(io.BytesIO(clinician.get(found["pictures"]["aligned"]).content)).convert("L")
    scale = small.width / about["width"]
    expected = small.crop((0, 0, round(shown.width * scale), round(shown.height * scale))).resize((64, 64))
    apart = np.abs(np.asarray(shown.resize((64, 64)), int) - np.asarray(expected, int))
    assert np.median(apart) <= 2
    assert colleague.get(found["tiles"]).status_code == 404
    assert colleague.get(first).status_code == 404
    with bridge.db.snapshot() as tx:
        context = f"Comparison/{found['id']}"
        kept = select(func.count()).where(binary.c.security_context == context, binary.c.rendition == "tiles")
        assert tx.execute(kept).scalar_one() == 1


def test_a_single_photo_opens_beside_its_prior_and_the_filmstrip_offers_the_others(
    clinician: Browser, bridge: Bridge
) -> None:
    def taken(day: str, **more: str) -> str:
        seen = visit(f"e{day[:4]}", "p1") | {"status": "finished", "period": {"start": day, "end": day}}
        with bridge.db.transaction() as tx:
            create(tx, seen, at=bridge.now())
        out = io.BytesIO()
        Image.new("RGB", (90, 40 + int(day[:4]) - 2000), (90, 80, 70)).save(out, "JPEG")
        about = {"taken_at": day, "body_site": "33712006", "view": "close-up", "laterality": "left"} | more
        described = base64.urlsafe_b64encode(json.dumps(about).encode()).decode()
        answer = clinician.capture(out.getvalue(), **{"DermBridge-Metadata": described})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    old, right_hand, recent, now = (
        taken("2020-05-01"),
        taken("2024-05-01", laterality="right"),
        taken("2023-05-01"),
        taken("2026-05-01"),
    )
    led = clinician.get(f"/compare?media={now}", follow_redirects=False)
    assert (led.status_code, led.headers["location"]) == (303, f"/compare?media={recent}&media={now}")
    page = clinician.get(led.headers["location"]).text
    assert "Beside each other: the same site, the same side, the same kind of camera, the same view." in page
    assert f"/compare?media={old}&amp;media={now}&amp;order=taken" in page
    assert f"/compare?media={old}&amp;media={recent}&amp;media={now}&amp;order=taken" in page
    other_side = clinician.get(f"/compare?media={right_hand}&media={now}").text
    assert "The photo of 1 May 2024 shows the other side." in other_side
    alone = clinician.get(f"/compare?media={right_hand}", follow_redirects=False)
    assert alone.status_code == 200
    assert "No other visit has a photo of this lesion or site." in alone.text
