"""/lesions/{id}: one lesion over time: its photos, and what was measured on them as charts with a table."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

from starlette.requests import Request
from starlette.responses import Response

from adapter import governance
from adapter.access import check_patient, check_scope, check_whose
from adapter.access.reach import sensitivity
from adapter.db.tables import media
from adapter.errors import NotFound
from adapter.measure.measuring import measurements_of_lesion
from adapter.records import Stored, find, find_where
from adapter.records.confinement import patient_of
from adapter.web.gate import actor_of
from adapter.web.measuring import measurement_card
from adapter.web.pages import Web
from adapter.web.photo_card import lesion_label, photo_card, taken_at
from adapter.web.trend import charts_of
from mappings.measurement_to_observation import observation_to_measurement

MOST = 200


def lesion_page(web: Web, request: Request) -> Response:
    bridge, actor = web.bridge, actor_of(request)
    with bridge.db.snapshot() as tx:
        check_scope(actor, "r", "BodyStructure")
        check_scope(actor, "r", "Media")
        lesion = find(tx, "BodyStructure", request.path_params["id"])
        if lesion is None:
            check_patient(actor, None)
            raise NotFound("there is no such lesion")
        patient_id = patient_of(lesion.resource)
        check_whose(tx, actor, patient_id)
        patient = find(tx, "Patient", patient_id) if patient_id else None
        shown = (media.c.lesion == lesion.id, *sensitivity(actor, "Media"))
        photos = find_where(tx, "Media", *shown, order_by=media.c.created.desc(), limit=MOST)
        kept = measurements_of_lesion(tx, actor, lesion.id)
    references = [one.version_reference for one in (lesion, *photos, *kept)]
    governance.audit_look(bridge, actor, patient_id=patient_id, references=references)
    zone = bridge.settings.zone
    return web.render(
        request,
        "lesion.html",
        lesion_label(lesion),
        patient=patient,
        label=lesion_label(lesion),
        photos=[photo_card(one, [], zone) for one in photos if one.resource.get("status") != "entered-in-error"],
        charts=charts_of([observation_to_measurement(one.resource) for one in kept], zone),
        kept=[measurement_card(bridge, one) for one in sorted(kept, key=lambda one: _when(one, zone), reverse=True)],
    )


def _when(kept: Stored, zone: tzinfo) -> tuple[datetime, str]:
    at = taken_at({"createdDateTime": kept.resource.get("effectiveDateTime")}, zone)
    return at or datetime.min.replace(tzinfo=UTC), kept.id
