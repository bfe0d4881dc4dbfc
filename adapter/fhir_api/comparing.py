"""`Media/$compare`: photos of one patient, aligned and their changes found (docs/compare.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from adapter.access import Actor, can, check_scope
from adapter.bridge import Bridge
from adapter.compare.comparing import PICTURES, compare
from adapter.compare.reopening import comparisons_of, measures_on
from adapter.compare.saved import LEAST, MOST, save_comparison
from adapter.errors import BadInput
from adapter.fhir_api.answers import json_answer
from adapter.fhir_api.exchange import Answer, Request
from adapter.fhir_api.server import Operation
from adapter.records import Resource, Stored, get
from adapter.records.confinement import patient_of
from adapter.records.pictures import pictures_of
from mappings.comparison_to_observation import View, photos_of
from mappings.comparison_to_parameters import comparison_to_parameters
from mappings.terms import CANON

_MEDIA = re.compile(r"Media/([A-Za-z0-9\-.]{1,64})(?:/_history/([0-9]{1,9}))?")
_ASK = f"name {LEAST} to {MOST} photos: Parameters with a reference media for each"


@dataclass(frozen=True)
class Asked:
    """Ids of the photos, the earlier one first, and the versions named; `persist`: keep what is found."""

    photos: tuple[str, ...]
    versions: tuple[int | None, ...]
    persist: bool
    note: str | None


def compare_operation(bridge: Bridge) -> Operation:
    """By POST, since with `persist` it keeps what it finds; without, it may be repeated, and finds the same."""

    def handle(request: Request) -> Answer:
        check_scope(request.caller, "r", "Media")
        return json_answer(200, _answer(bridge, request.caller, _read(request, f"{bridge.settings.base_url}/fhir/")))

    return Operation(handle, f"{CANON}/OperationDefinition/media-compare", affects_state=True)


def _answer(bridge: Bridge, actor: Actor, asked: Asked) -> Resource:
    if asked.persist:
        seen = list(zip(asked.photos, asked.versions, strict=True))
        save_comparison(bridge, actor, seen, view=View(), note=asked.note)
    first, *others = asked.photos
    found = [_of_two(bridge, actor, first, other) for other in others]
    answer = found[0]
    if len(found) > 1:
        each: list[Resource] = [{"name": "comparison", "resource": one} for one in found]
        answer = {"resourceType": "Parameters", "parameter": each}
    answer["parameter"] += _references(bridge, actor, asked.photos)
    return answer


def _of_two(bridge: Bridge, actor: Actor, left: str, right: str) -> Resource:
    found = compare(bridge, actor, left, right)
    is_aligned = found.result["verdict"] != "not-aligned"
    base = f"{bridge.settings.base_url}/comparisons/{found.id}"
    pictures = {name: (kind, f"{base}/{name}") for name, kind in PICTURES.items()} if is_aligned else {}
    return comparison_to_parameters(found.result, left=f"Media/{left}", right=f"Media/{right}", pictures=pictures)


def _references(bridge: Bridge, actor: Actor, photos: Sequence[str]) -> list[Resource]:
    """The comparison of these very photos that was saved last, its pictures, and what was measured on them."""
    if not can(actor, "r", "Observation"):
        return []
    with bridge.db.snapshot() as tx:
        patient_id = patient_of(get(tx, "Media", photos[0]).resource) or ""
        of_them = comparisons_of(tx, actor, patient_id=patient_id, media_ids=photos, limit=None)
        saved = next((one for one in of_them if tuple(id for id, _ in photos_of(one.resource)) == tuple(photos)), None)
        pictures = pictures_of(tx, saved.reference) if saved else []
        measures = measures_on(tx, actor, patient_id=patient_id, media_ids=photos)
    named = [("saved", [saved] if saved else []), ("derived", pictures), ("measure", measures)]
    return [_reference(name, one) for name, records in named for one in records]


def _reference(name: str, record: Stored) -> Resource:
    return {"name": name, "valueReference": {"reference": record.reference}}


def _read(request: Request, base: str) -> Asked:
    """Raises BadInput, UnsupportedMedia."""
    values = _posted(request)
    named = [_photo(one, base) for one in values("media")]
    photos, versions = tuple(media_id for media_id, _ in named), tuple(version for _, version in named)
    if not LEAST <= len(set(photos)) == len(photos) <= MOST:
        raise BadInput(_ASK, expression="Parameters.parameter.where(name='media')")
    note = next(iter(values("note")), None)
    if not isinstance(note, str | None):
        raise BadInput("the note is a string", expression="Parameters.parameter.where(name='note')")
    return Asked(photos, versions, _persist(values("persist")), note)


def _persist(given: list[Any]) -> bool:
    """Raises BadInput for what is neither: nobody should believe kept what is not."""
    said = [str(one).lower() for one in given if isinstance(one, bool | str)]
    if len(given) > 1 or len(said) != len(given) or not set(said) <= {"true", "false"}:
        raise BadInput("persist is one boolean", expression="Parameters.parameter.where(name='persist')")
    return said == ["true"]


def _posted(request: Request) -> Callable[[str], list[Any]]:
    parameters = request.json()
    try:
        rows = [(row["name"], _value(row)) for row in parameters["parameter"]]
    except (KeyError, TypeError):
        raise BadInput(_ASK, issue_type="structure") from None
    return lambda name: [value for given, value in rows if given == name]


def _value(row: Resource) -> Any:
    if "valueReference" in row:
        return str(row["valueReference"]["reference"])
    return next((value for name, value in row.items() if name.startswith("value")), None)


def _photo(reference: Any, base: str) -> tuple[str, int | None]:
    """The id and the version, where one is named. Raises BadInput, also for what another server calls so."""
    found = _MEDIA.fullmatch(str(reference).removeprefix(base))
    if found is None:
        raise BadInput(f"{_ASK} of this server", expression="Parameters.parameter.where(name='media')")
    media_id, version = found.groups()
    return media_id, int(version) if version else None
