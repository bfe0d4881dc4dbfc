"""Every documented refusal of every vendor, played and seen to end as the profile says it should.

Most are generated from the `[[signals]]` of the shipped profiles, and from what the acknowledgements of HL7 v2 and the
failure reasons of DICOM mean everywhere: a line added there is a test here. What a vendor says by a bare status, or
does in a way of its own, stands in `BY_STATUS`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from adapter.sandbox.vendors import Fault
from adapter.sandbox.vendors.behaviour import Refusal
from connectors.contract import Retry
from connectors.dicom_object import REASONS
from connectors.hl7v2 import REFUSALS
from connectors.kinds import EhrProfile
from connectors.knobs import Signal
from connectors.profile import build_profile, find_shipped_profiles
from tests.connectors.vendor_site import FILING, VENDORS, Open, VendorSite, in_chart

# What a signal means -> the state right after it.
ENDS = {
    "never": "failed",
    "later": "pending",
    "look": "unknown",
    "next-day": "pending",
    "next-minute": "pending",
    "sign-in": "pending",
    "duplicate": "unknown",
    "next-route": "failed",  # where no route follows
}
REPEATED = 20  # more than one attempt makes by itself


def routes_of(name: str) -> tuple[Any, ...]:
    profile = build_profile({"based_on": name}, source="test")
    return profile.routes if isinstance(profile, EhrProfile) else (profile,)


def signalled() -> Iterator[Any]:
    """Each signal of each route of each shipped profile."""
    for name in find_shipped_profiles():
        for number, route in enumerate(routes_of(name)):
            for signal in route.signals:
                told = f"{signal.status or ''}{signal.code}"
                yield pytest.param(name, number, signal, id=f"{name} {route.kind} {told} {signal.means}")


def alone(name: str, number: int) -> dict[str, Any]:
    """Only that route of the profile."""
    routes = routes_of(name)
    left_out = {route.kind: False for place, route in enumerate(routes) if place != number}
    return {"routes": left_out} if left_out else {}


def answer(route: Any, signal: Signal) -> Refusal:
    """How the vendor would say it: the code where the profile says that codes stand."""
    path = route.code_paths[0] if signal.code and route.code_paths else ""
    body: Any = signal.code.replace("*", " x ")
    for step in reversed(path.split(".")):
        body = {step: body}
    return Refusal(status=signal.status or 400, body=json.dumps(body) if path else "")


def place(name: str, route: Any) -> tuple[str, str]:
    """The request that files the photo by this route."""
    if route.kind == "fhir-r4" and "fhir" not in FILING[name][1]:
        return "POST", "/Media" if route.routes[0] == "fhir-media" else "/DocumentReference"
    return FILING[name]


def mended(site: VendorSite, name: str) -> None:
    """The vendor takes it now: by itself, or sent again by a person, it is there once."""
    site.vendor.faults = []
    for _ in range(2):
        if site.rows()[0].state == "failed":
            site.again()
        site.later(days=1, minutes=5)
    row = site.rows()[0]
    assert row.state in {in_chart(name), "confirmed"} and site.numbers() == ["1001"], (row.reason, row.remedy)


@pytest.mark.parametrize(("name", "number", "signal"), list(signalled()))
def test_every_signal_of_a_profile_ends_as_it_says(name: str, number: int, signal: Signal, opened: Open) -> None:
    route = routes_of(name)[number]
    site = opened(name, **alone(name, number))
    method, path = place(name, route)
    site.vendor.faults = [Fault("refuse", method, path, answer(route, signal)) for _ in range(REPEATED)]
    site.capture()
    site.run()
    row = site.rows()[0]
    assert row.state == ENDS[signal.means], (row.state, row.reason, row.remedy)
    assert signal.remedy in row.remedy and row.remedy and site.numbers() == []
    if signal.at_most:
        for _ in range(signal.at_most):
            site.later(hours=7)
        assert site.rows()[0].state == "failed"
    mended(site, name)


def test_every_profile_with_signals_is_played() -> None:
    assert {param.values[0] for param in signalled()} <= set(VENDORS)


@pytest.mark.parametrize(("code", "retry"), [(code, retry) for code, (retry, _) in REFUSALS.items() if code[0] == "A"])
@pytest.mark.parametrize("name", [name for name in VENDORS if FILING[name][0] == "MLLP"])
def test_every_acknowledgement_that_refuses_ends_as_its_code_says(
    name: str, code: str, retry: Retry, opened: Open
) -> None:
    site = opened(name)
    site.vendor.faults = [Fault("nack", "MLLP", code=code)]
    site.capture()
    site.run()
    row = site.rows()[0]
    sent_as = {"AE": "CE", "AR": "CR"}[code] if routes_of(name)[0].acknowledge == "commit" else code
    retry, remedy = REFUSALS[sent_as]
    assert (row.state, row.remedy) == ("failed" if retry is Retry.NEVER else "pending", remedy)
    assert site.numbers() == []
    mended(site, name)


@pytest.mark.parametrize(("reasons", "retry", "remedy"), [*REASONS, (range(0xC000, 0xC001), Retry.NEVER, "replay")])
def test_every_failure_reason_of_an_archive_ends_as_it_says(
    reasons: range, retry: Retry, remedy: str, opened: Open
) -> None:
    site = opened("pacs")
    site.vendor.faults = [Fault("nack", "POST", "/studies", code=f"{reasons[0]:04X}")]
    site.capture()
    site.run()
    row = site.rows()[0]
    assert row.state == ("failed" if retry is Retry.NEVER else "pending") and remedy in row.remedy, row.reason
    assert f"{reasons[0]:04X}" in row.reason and site.numbers() == []
    mended(site, "pacs")


NOTE_ONLY = {"routes": {"dicomweb": False, "hl7v2": False}}


def refuse(path: str, status: int, **more: str) -> Fault:
    return Fault("refuse", "POST", path, Refusal(status=status, **more))


BY_STATUS: list[tuple[str, dict[str, Any], Fault, str, str]] = [
    ("epic", NOTE_ONLY, refuse("/DocumentReference", 400, code="59108"), "failed", "omit"),
    ("oracle-health", {}, refuse("/DocumentReference", 422), "failed", "connectors check"),
    ("oracle-health", {}, refuse("/DocumentReference", 403), "failed", "allow this client"),
    ("athenaone", {}, refuse("/clinicaldocument", 400, body="{}"), "failed", "replay"),
    ("athenaflow", {}, refuse("/DocumentReference", 400), "failed", "omit"),
    ("modmed-ema", {}, refuse("/DocumentReference", 422, code="required"), "failed", "check"),
    ("openemr", {}, refuse("/document", 422, body="{}"), "failed", "check"),
    ("medplum", {}, refuse("/Media", 400), "failed", "omit"),
    ("canvas", {}, refuse("/Media", 422), "failed", "check"),
    ("pacs", {}, Fault("empty-stow", "POST", "/studies"), "unknown", "asked whether"),
    ("meditech", {}, Fault("silent", "MLLP"), "unknown", "found out"),
]


@pytest.mark.parametrize(("name", "changes", "refusal", "state", "remedy"), BY_STATUS)
def test_a_refusal_by_status_waits_with_its_remedy_and_is_mended_by_sending_again(
    name: str, changes: dict[str, Any], refusal: Fault, state: str, remedy: str, opened: Open
) -> None:
    site = opened(name, **changes)
    site.vendor.faults = [refusal]
    site.capture()
    site.run()
    row = site.rows()[0]
    assert row.state == state and remedy in row.remedy, (row.state, row.reason, row.remedy)
    assert site.numbers() == []
    mended(site, name)
