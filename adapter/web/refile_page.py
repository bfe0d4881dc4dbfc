"""/refile: photos filed under the wrong patient. Choose the right one and see what would happen; the job's page asks
once more before anything is done, and a second person where the site wants one."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from adapter import batch, governance
from adapter.access import Actor, check_patient, has_right
from adapter.errors import BadInput
from adapter.records import Stored, find, get
from adapter.records.confinement import patient_of
from adapter.records.patient_lookup import find_patients
from adapter.web.bodies import Form
from adapter.web.gate import actor_of, get_photo
from adapter.web.pages import Web, see_other
from adapter.web.patient_card import patient_card
from adapter.web.photo_card import photo_card, visits
from adapter.web.timeline import visits_of

LOOKED_UP = 9
MOST_PHOTOS = 500
PICTURED = 24


def refile_page(web: Web, request: Request) -> Response:
    """?media=..&media=..&q=..&patient=.. ; a session in a chart can only say that they are not this patient's."""
    bridge, actor, query = web.bridge, actor_of(request), request.query_params
    media_ids, asked = query.getlist("media"), query.get("q", "").strip()[:200]
    with bridge.db.snapshot() as tx:
        photos, former_id = _photos(tx, actor, media_ids)
        former = find(tx, "Patient", former_id) if former_id else None
        may_choose = actor.patient_id is None and has_right(actor, "worklist")
        found = find_patients(tx, asked, limit=LOOKED_UP) if asked and may_choose else []
        chosen = get(tx, "Patient", query["patient"]) if query.get("patient") and may_choose else None
        offered = visits(visits_of(tx, chosen.id), bridge.settings.zone) if chosen else []
    named = [one.version_reference for one in (*found, *([chosen] if chosen else []))]
    shown = [one.version_reference for one in photos[:PICTURED]]
    governance.audit_look(bridge, actor, patient_id=former_id, references=shown, query="Media to move")
    if named:
        governance.audit_look(bridge, actor, patient_id=None, references=named, query="Patient?_content=…")
    today = bridge.now().astimezone(bridge.settings.zone).date()
    return web.render(
        request,
        "refile.html",
        "Wrong patient",
        patient=former,
        photos=[photo_card(one, (), bridge.settings.zone) for one in photos[:PICTURED]],
        media_ids=[one.id for one in photos],
        may_choose=may_choose,
        asked=asked,
        found=[
            patient_card(one, today) | {"href": _href(media_ids, patient=one.id)}
            for one in found
            if one.id != former_id
        ],
        chosen=patient_card(chosen, today) if chosen else None,
        again_href=_href(media_ids),
        visits=offered,
        second_person=bridge.settings.second_person,
    )


def refile(web: Web, request: Request, form: Form) -> Response:
    """POST /refile: `media` once per photo, `patient` (empty: nobody knows yet), `encounter`, `reason`.

    Without a `reason` it is the timeline's selection, which is shown the page.
    """
    bridge, actor = web.bridge, actor_of(request)
    if not form.all("reason"):
        return see_other(_href(form.all("media")))
    parameters = {name: form.get(name) for name in ("patient", "encounter", "reason") if form.get(name)}
    with bridge.db.transaction() as tx:
        photos, former_id = _photos(tx, actor, form.all("media"))
        if form.get("patient"):
            check_patient(actor, form.get("patient"))
        targets = [one.id for one in photos]
        job_id = batch.prepare_job(
            tx, bridge, actor, "refile", patient_id=former_id, targets=targets, parameters=parameters
        )
    return see_other(f"/jobs/{job_id}")


def _photos(tx: Connection, actor: Actor, media_ids: list[str]) -> tuple[list[Stored], str | None]:
    """The photos and whose they are now. Raises BadInput unless they are all of one patient."""
    wanted = list(dict.fromkeys(media_ids))
    if not 0 < len(wanted) <= MOST_PHOTOS:
        raise BadInput(f"choose between 1 and {MOST_PHOTOS} photos to move")
    photos = [get_photo(tx, actor, "u", one)[0] for one in wanted]
    owners = {patient_of(one.resource) for one in photos}
    if len(owners) > 1:
        raise BadInput("choose photos of one patient at a time")
    return photos, owners.pop()


def _href(media_ids: list[str], **more: Any) -> str:
    return f"/refile?{urlencode([*(('media', one) for one in media_ids), *more.items()])}"
