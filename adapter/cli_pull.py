"""``dermbridge connectors look-up | photos | pull``: what a destination knows and holds of a patient."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated

import typer

from adapter.bridge import Bridge
from adapter.cli import Json, beside_service, err, show
from adapter.cli_connectors import Born, connectors, day
from adapter.errors import BadInput, NotFound


@connectors.command("look-up")
def connectors_look_up(
    name: Annotated[str, typer.Argument(help="A destination whose profile has patient_lookup.ways.")],
    identifier: Annotated[str, typer.Option(help="'SYSTEM|VALUE'")] = "",
    family: Annotated[str, typer.Option(help="Family name.")] = "",
    given: Annotated[str, typer.Option(help="Given name.")] = "",
    born: Born = None,
    gender: Annotated[str, typer.Option(help="male, female, other or unknown.")] = "",
    at: Annotated[datetime | None, typer.Option(help="A time (UTC), for the visit that covers it.")] = None,
    as_json: Json = False,
) -> None:
    """Ask a destination who a patient is, as a photo that waits would be asked about; the audit log keeps the question.

    Example: dermbridge connectors look-up main-ehr --identifier 'urn:oid:2.16.840.1.113883.19.5|4711'
    """
    from adapter.delivery.patient_lookup import look_up

    if not (identifier or family or given or born):
        raise BadInput("say who: --identifier, or what is known of --family, --given, --born, --gender")
    system, separator, value = identifier.rpartition("|")
    if identifier and not (separator and value):
        raise BadInput("give the identifier as 'SYSTEM|VALUE'")
    sought = {"system": system, "value": value, "family": family, "given": given, "birthDate": day(born)}
    sought["gender"] = gender
    with beside_service() as bridge:
        found = look_up(bridge, name, sought, at.replace(tzinfo=UTC) if at else None)
    rows = [
        {
            "way": one.way,
            "grade": one.grade,
            "id": one.patient["id"],
            "identifiers": [
                f"{each.get('system', '')}|{each.get('value', '')}" for each in one.patient.get("identifier", ())
            ],
            "family": [each["family"] for each in one.patient.get("name", ()) if "family" in each],
            "born": one.patient.get("birthDate", ""),
            "visit": one.visit["id"] if one.visit else "",
        }
        for one in found.matches
    ]
    columns = ["way", "grade", "id", "identifiers", "family", "born", "visit"]
    show(rows, columns, as_json=as_json, empty="several fit, none is named" if found.several else "nobody fits")
    for way in found.not_offered:
        err.print(f"{way} is not offered there: take it out of patient_lookup.ways", highlight=False)
    if found.several and rows:
        err.print("more fit than are shown", highlight=False)


Whose = Annotated[str, typer.Option("--patient", help="'SYSTEM|VALUE', or Patient/id of this installation.")]


@connectors.command("photos")
def connectors_photos(
    name: Annotated[str, typer.Argument(help="A destination whose profile says how photos are found.")],
    patient: Whose,
    as_json: Json = False,
) -> None:
    """List the photos a destination holds of a patient; nothing is copied. The audit log keeps the question.

    Example: dermbridge connectors photos main-ehr --patient 'urn:oid:2.16.840.1.113883.19.5|4711'
    """
    from adapter.access import SYSTEM
    from adapter.capture.photos_elsewhere import photos_elsewhere, try_photos
    from adapter.delivery import Destinations

    with beside_service() as bridge, closing(Destinations(bridge)) as destinations:
        destinations.photos(name)
        patient_id = _find_patient(bridge, patient)
        if patient_id is None:
            system, _, value = patient.rpartition("|")
            record = try_photos(bridge, destinations, name, system, value)
            err.print("this patient is not registered here: nothing is compared, and nothing can be copied")
        else:
            records = photos_elsewhere(bridge, destinations, SYSTEM, patient_id, only=name)
            if not records:
                raise NotFound(f"destination {name!r} is not asked for photos; see [photos] of its profile")
            record = records[0]
    rows = [
        {
            "id": one.found.id,
            "taken": one.found.created,
            "type": one.found.content_type,
            "kind": one.found.kind,
            "title": one.found.title,
            "bytes": one.found.size,
            "device": one.found.device or one.found.modality,
            "site": one.found.site_text or one.found.body_site,
            "here": f"Media/{one.media_id}" if one.media_id else None,
            "ours": one.is_ours,
            "obstacle": one.found.obstacle,
        }
        for one in record.photos
    ]
    columns = ["id", "taken", "type", "title", "here", "obstacle"]
    show(rows, columns, as_json=as_json, empty="no photos there")
    notes = [*record.problems, "there are more than are shown" if record.more else ""]
    notes.append(f"{record.refused} found for this patient are another's, or cannot be read" if record.refused else "")
    for note in filter(None, notes):
        err.print(note, highlight=False, markup=False)
    raise typer.Exit(int(bool(record.problems) and not rows))


@connectors.command("pull")
def connectors_pull(
    name: Annotated[str, typer.Argument(help="The destination.")],
    photo: Annotated[str, typer.Argument(help="The photo's id there, as `connectors photos` lists it.")],
    patient: Whose,
    as_json: Json = False,
) -> None:
    """Copy one photo here, to stand beside ours: read only, never delivered, destroyed after `external_photo_days`.

    Example: dermbridge connectors pull main-ehr Media/17 --patient Patient/0193…
    """
    from adapter.access import SYSTEM
    from adapter.capture.external import pull_photo
    from adapter.delivery import Destinations

    with beside_service() as bridge, closing(Destinations(bridge)) as destinations:
        patient_id = _find_patient(bridge, patient)
        if patient_id is None:
            raise NotFound("this patient is not registered here; a photo is copied for a known patient only")
        pulled = pull_photo(bridge, destinations, SYSTEM, patient_id, name, photo)
    row = {"media": f"Media/{pulled.media_id}", "how": pulled.how}
    show([row], ["media", "how"], as_json=as_json, empty="")


def _find_patient(bridge: Bridge, given: str) -> str | None:
    """The id of a patient named by `Patient/id` or identifier; None when nobody here bears it. Raises BadInput."""
    from adapter.identity import find_patient

    if given.startswith("Patient/"):
        return given.removeprefix("Patient/")
    system, separator, value = given.rpartition("|")
    if not separator or not system or not value:
        raise BadInput("name the patient as 'SYSTEM|VALUE' or as Patient/id")
    with bridge.db.snapshot() as tx:
        found = find_patient(tx, system, value)
    return found.id if found else None
