"""Every kind of FHIR resource that `mappings` writes, as examples: the golden pairs and one of each table row."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mappings.audit_event import EVENTS, Party, User, audit_event
from mappings.canonical_resources import canonical_resources
from mappings.capture_to_media import Capture, Content, assign, bind_media, capture_to_media
from mappings.comparison_to_observation import View, comparison_to_observation, withdrawn
from mappings.error_to_outcome import error_to_outcome
from mappings.form_to_consent import ConsentForm, form_to_consent, withdraw
from mappings.measurement_to_observation import measurement_to_observation
from mappings.media_to_document_reference import media_to_document_reference
from mappings.photos_to_picture import photos_to_picture
from mappings.provenance import CASES, Agent, Entity, hashed, provenance
from mappings.wrong_patient import quarantined, stub_of, unfiled

Json = dict[str, Any]
GOLDEN = Path(__file__).parents[1] / "data/fhir"
PROVENANCE_TABLE = Path(__file__).parents[2] / "mappings/tables/provenance_cases.toml"
AT = datetime(2026, 11, 20, 14, 30, 5, 250000, tzinfo=UTC)
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def _capture(given: Json) -> Json:
    media = capture_to_media(
        TypeAdapter(Capture).validate_python(given["capture"]),
        TypeAdapter(Content).validate_python(given["content"]),
        media_id=given["media_id"],
        issued_at=datetime.fromisoformat(given["issued_at"]),
    )
    if "bind" in given:
        media = bind_media(media, **given["bind"])
    return assign(media, **given["assign"]) if "assign" in given else media


def _form(given: Json) -> list[Json]:
    form = TypeAdapter(ConsentForm).validate_python(given["form"])
    return form_to_consent(
        form, consent_ids=given["consent_ids"], recorded_at=datetime.fromisoformat(given["recorded_at"])
    )


def _withdrawal(given: Json) -> list[Json]:
    times = {key: datetime.fromisoformat(given["withdraw"].pop(key)) for key in ("withdrawn_at", "recorded_at")}
    return list(withdraw(_form(given)[0], **given["withdraw"], **times))


def _provenance(given: Json) -> Json:
    return provenance(
        given["case"],
        targets=[hashed(*one) if isinstance(one, list) else one for one in given["targets"]],
        agents=TypeAdapter(list[Agent]).validate_python(given["agents"]),
        entities=TypeAdapter(list[Entity]).validate_python(given.get("entities", [])),
        recorded=datetime.fromisoformat(given["recorded"]),
        occurred=datetime.fromisoformat(given["occurred"]) if "occurred" in given else None,
        provenance_id=given["id"],
    )


def _audit(given: Json) -> Json:
    parties = {key: TypeAdapter(Party).validate_python(given.pop(key)) for key in ("client", "server") if key in given}
    actor = TypeAdapter(User).validate_python(given.pop("actor")) if "actor" in given else None
    recorded = datetime.fromisoformat(given.pop("recorded"))
    return audit_event(given.pop("event"), recorded=recorded, actor=actor, **parties, **given)


BUILDERS: dict[str, Callable[[Json], Any]] = {
    "media": _capture,
    "consent": _form,
    "withdrawal": _withdrawal,
    "provenance": _provenance,
    "audit": _audit,
    "outcome": lambda given: error_to_outcome([tuple(one) for one in given["issues"]]),
}


def golden_pairs() -> list[Path]:
    """Files of `{"given": facts, "expected": resource or resources}`; the name before the dash is the builder."""
    return sorted(GOLDEN.glob("*.json"))


def build(path: Path) -> Any:
    """What our code makes of a golden pair's facts."""
    return BUILDERS[path.stem.partition("-")[0]](json.loads(path.read_text("utf-8"))["given"])


def every_audit_event() -> Iterator[Json]:
    for event in sorted(EVENTS):
        for outcome, patient in (("0", "Patient/p1"), ("8", None)):
            yield audit_event(
                event,
                recorded=AT,
                outcome=outcome,  # type: ignore[arg-type]
                outcome_desc=None if outcome == "0" else "Refused.",
                server=Party(who="Device/dermbridge", address="https://photos.example.org/fhir"),
                client=Party(who={"identifier": {"value": "client-1"}}, address="192.0.2.7"),
                actor=User(who="Practitioner/u1", name="Dr Example", roles=("clinician",), purpose="TREAT"),
                organization="Organization/o1",
                patient_ref=patient,
                entity_refs=["Consent/c1/_history/1" if event == "consent-decision" else "Media/m1/_history/1"],
                query="/fhir/Media?patient=p1" if event.endswith("query") else None,
                purpose="TREAT",
                detail={"reason": "acute"} if event in ("break-glass-start", "session-ended") else None,
                event_id=f"{event}-{outcome}",
            )


def every_provenance() -> Iterator[Json]:
    kinds = ("performer", "assembler", "author", "enterer", "attester")
    roles = ("source", "derivation", "revision", "removal")
    for case in sorted(CASES):
        yield provenance(
            case,
            targets=[hashed("Media/m1/_history/2", SHA256)],
            agents=[Agent(kind, "Practitioner/u1", "Organization/o1") for kind in kinds if _takes(case, kind)],
            entities=[Entity(role, "Media/m1/_history/1", SHA256, ("gps", "something new")) for role in roles],
            recorded=AT,
            occurred=AT,
            provenance_id=case,
        )


def _takes(case: str, kind: str) -> bool:
    row = tomllib.loads(PROVENANCE_TABLE.read_text("utf-8"))[case]
    return kind in row["agents"] or kind in row.get("may", [])


def every_comparison() -> Iterator[Json]:
    """Of two photos that were aligned, of two that were only looked at, withdrawn; and a picture of it."""
    photos = [
        build(path) | {"id": f"m{number}", "meta": {"versionId": "3"}}
        for number, path in enumerate(2 * [GOLDEN / "media-bound-cheek.json"])
    ]
    result = {
        "verdict": "approximate",
        "reasons": ["the halves differ"],
        "method": "key points",
        "version": "1",
        "transform": {"homography": [[1, 0, 3.5], [0, 1, -2], [0, 0, 1]], "bend_px": 4.5},
        "change": {"method": "local light", "version": "1", "regions": [{}]},
    }
    performer = {"reference": "Practitioner/u1", "display": "Dr Example"}
    for number, found in enumerate((result, None)):
        made = comparison_to_observation(
            found,
            photos,
            observation_id=f"comparison-{number}",
            view=View(x=0.5, y=0.25, other=2),
            note="darker" if found else None,
            performer=performer,
            saved_at=AT,
        )
        yield from (made, withdrawn(made, "the other mole", author={"display": "DermBridge"}, at=AT))
    content = Content(
        binary_id="b1",
        content_type="image/jpeg",
        size=4711,
        sha1_b64="2jmj7l5rSw0yVb/vlWAYkK/YBwk=",
        sha256_hex=SHA256,
        width=1000,
        height=750,
        created=AT,
    )
    sources = ["Observation/comparison-0/_history/1"]
    picture = photos_to_picture(
        "sheet", photos, content, media_id="sheet", operator=performer, sources=sources, note="Verdict"
    )
    yield from (picture, media_to_document_reference(picture))


def every_measurement() -> Iterator[Json]:
    """An outline in millimetres with calibrated colours, and a length in pixels on a photo without a date."""
    photo = build(GOLDEN / "media-bound-cheek.json") | {"id": "m1", "meta": {"versionId": "3"}}
    undated = {name: value for name, value in photo.items() if name != "createdDateTime"}
    scale = {"source": "card", "unit": "mm", "mm_per_pixel": 0.05, "uncertainty": 0.011, "sigma": 0.3}
    outline = {
        "kind": "outline",
        "points": [[10, 10], [400.25, 12], [200, 300]],
        "sigma": 0.5,
        "edge": 2.0,
        "scale": scale | {"seen": [[0, 0], [240, 0], [240, 240]], "plane": [[0, 0], [12, 0], [12, 12]]},
        "colour": {"calibrated": True, "residual": 1.2},
        "measures": [
            {"name": "area", "value": 141.3, "uncertainty": 3.1, "unit": "mm2"},
            {"name": "long-axis", "value": 19.5, "uncertainty": 0.3, "unit": "mm"},
            {"name": "asymmetry", "value": 0.21, "uncertainty": 0.01, "unit": "1"},
            {"name": "inside-a", "value": -1.5, "uncertainty": 1.3, "unit": "1"},
        ],
    }
    length = {
        "kind": "length",
        "points": [[1, 1], [4, 5]],
        "sigma": 1.0,
        "edge": 1.0,
        "scale": {"source": "none", "unit": "px"},
        "colour": {"calibrated": False, "reason": "no card"},
        "measures": [{"name": "length", "value": 5.0, "uncertainty": 1.4, "unit": "px"}],
    }
    performer = {"reference": "Practitioner/u1", "display": "Dr Example"}
    for number, (found, of) in enumerate(((outline, photo), (length, undated))):
        yield measurement_to_observation(
            found, of, observation_id=f"measurement-{number}", performer=performer, drawn="Drawn by hand", kept_at=AT
        )


def every_resource() -> Iterator[Json]:
    """All examples, each a resource on its own."""
    for path in golden_pairs():
        built = build(path)
        yield from built if isinstance(built, list) else [built]
        if path.stem.startswith("media-bound"):
            yield media_to_document_reference(built)
            yield quarantined(built, "same-content")
            yield unfiled(built)
            yield stub_of(built, stub_id=f"{built['id']}-stub", issued_at=AT)
    yield from canonical_resources()
    yield from every_audit_event()
    yield from every_provenance()
    yield from every_comparison()
    yield from every_measurement()
