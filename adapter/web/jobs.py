"""/jobs: one operation on many photos. Exports are streamed at once; everything else is shown before it is done."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from adapter import batch, governance
from adapter.access import Actor, can, check_scope, check_whose, has_right
from adapter.batch.comparing import changes_of, photos_of_visit, propose_priors
from adapter.batch.export import export_zip
from adapter.batch.jobs import job_status
from adapter.bridge import Bridge
from adapter.errors import BadInput
from adapter.records import Stored, find, find_all
from adapter.records.confinement import patient_of, same_patients
from adapter.web.bodies import Form
from adapter.web.gate import actor_of, get_patient
from adapter.web.pages import Web, see_other
from adapter.web.patient_card import mrn, patient_name
from adapter.web.photo_card import day, photo_label, taken_at

LABELS = {
    "assign": "Assign visit and body site",
    "redeliver": "Deliver again",
    "refile": "Move to the right patient",
    "compare": "Compare with earlier photos",
}
PLANNED = frozenset({"preview", "to-confirm"})
TALLY_LINES = 12
_STATES = {"finished": "done"}
_PROGRESS = ("state", "done", "failed", "total", "finished")


def post_job(web: Web, request: Request, form: Form) -> Response:
    """operation = assign | redeliver | compare | export, `patient` = id, `media` once per photo; to compare those of a
    visit, the address says ?visit=id instead."""
    bridge, actor, operation = web.bridge, actor_of(request), form.get("operation")
    media_ids, visit = list(dict.fromkeys(form.all("media"))), request.query_params.get("visit")
    with bridge.db.snapshot() as tx:
        patient = get_patient(tx, actor, form.get("patient"))
        if visit:
            media_ids = photos_of_visit(tx, actor, patient.id, visit)
        _check_all_of(tx, patient, media_ids)
        parameters: dict[str, Any] = _assigned(form) if operation == "assign" else {}
        if operation == "compare":
            parameters = {"priors": propose_priors(tx, actor, media_ids)}
    if operation == "export":
        return _export(web, actor, media_ids)
    with bridge.db.transaction() as tx:
        job_id = batch.prepare_job(
            tx, bridge, actor, operation, patient_id=patient.id, targets=media_ids, parameters=parameters
        )
    return see_other(f"/jobs/{job_id}")


def jobs_page(web: Web, request: Request) -> Response:
    """GET /jobs?page=..: the user's own jobs; in a chart those on its patient."""
    bridge, actor = web.bridge, actor_of(request)
    check_scope(actor, "s", "Media")
    with bridge.db.snapshot() as tx:
        rows, following = batch.jobs_of(tx, actor, before=request.query_params.get("page"))
        within = same_patients(tx, {actor.patient_id}) if actor.patient_id else None
        shown = [row for row in rows if within is None or row["patient"] in within]
        patients = find_all(tx, "Patient", [row["patient"] for row in shown if row["patient"]])
    references = [one.version_reference for one in patients.values()]
    governance.audit_look(bridge, actor, patient_id=actor.patient_id, references=references, query="jobs")
    return web.render(
        request,
        "jobs.html",
        "Jobs",
        jobs=[_listed(web, row, patients.get(row["patient"])) for row in shown],
        next_href=f"/jobs?page={following}" if following else None,
    )


def job_page(web: Web, request: Request) -> Response:
    bridge, actor = web.bridge, actor_of(request)
    with bridge.db.snapshot() as tx:
        status = _get_job(tx, actor, request.path_params["id"])
        patient = find(tx, "Patient", status["patient"]) if status["patient"] else None
        photos = _in_reach(tx, actor, find_all(tx, "Media", [item["target"] for item in status["items"]]))
        lines = _planned(batch.tally(tx, status["id"])) if status["state"] in PLANNED else _told(status)
        items = most_changed_first(tx, status) if status["operation"] == "compare" else status["items"]
        about = _about(tx, status)
    _note_shown(bridge, actor, status, [one.version_reference for one in photos.values()])
    own, href, zone = status["actor"] == actor.id, f"/jobs/{status['id']}", bridge.settings.zone
    preview, to_confirm = own and status["state"] == "preview", status["state"] == "to-confirm"
    may_confirm = to_confirm and not own and has_right(actor, "worklist") and can(actor, "u", "Media")
    return web.render(
        request,
        "job.html",
        "Job",
        patient=patient,
        job={
            "id": status["id"],
            "label": label_of(status["operation"]),
            "state": _STATES.get(status["state"], status["state"]),
            "done": status["done"],
            "failed": status["failed"],
            "total": status["total"],
            "created_at": status["created_at"].astimezone(zone),
            "finished_at": status["finished_at"] and status["finished_at"].astimezone(zone),
            "by": status["by"],
            "can_undo": own and status["can_undo"],
            "undo_href": f"{href}/undo",
            "start_href": f"{href}/start" if preview and status["total"] else None,
            "cancel_href": f"{href}/cancel" if preview or (own and to_confirm) else None,
            "confirm_href": f"{href}/confirm" if may_confirm else None,
            "about": about,
            "download": None,
            "message": None if status["total"] else "There is nothing to do for any of these photos.",
        },
        preview=[{"count": count, "text": text, "level": level} for count, text, level in lines if count],
        results=[_result(web, item, photos.get(item["target"])) for item in items],
        next_href=None,
        status_href=f"{href}.json",
    )


def label_of(operation: str) -> str:
    return LABELS.get(operation, operation.capitalize())


def _listed(web: Web, row: dict[str, Any], patient: Stored | None) -> dict[str, Any]:
    return {
        "href": f"/jobs/{row['id']}",
        "label": label_of(row["operation"]),
        "patient_name": patient_name(patient.resource) if patient else "",
        "state": _STATES.get(row["state"], row["state"]),
        "at": row["created_at"].astimezone(web.bridge.settings.zone),
        "done": row["done"],
        "failed": row["failed"],
        "skipped": row["skipped"],
        "total": row["total"],
    }


def _planned(lines: list[tuple[str, str, int]]) -> list[tuple[int, str, str]]:
    """What each photo would get, or why it is left alone, in counts."""
    shown = [
        (
            count,
            f"{_photos(count)}: {words}" if state == "waiting" else f"left alone: {words}",
            "ok" if state == "waiting" else "warning",
        )
        for state, words, count in lines[:TALLY_LINES]
    ]
    rest = sum(count for _, _, count in lines[TALLY_LINES:])
    return [*shown, (rest, "more, each told below", "info")]


def _photos(count: int) -> str:
    return "photo" if count == 1 else "photos"


def most_changed_first(tx: Connection, status: dict[str, Any]) -> list[dict[str, Any]]:
    """The pairs of a job that compares, each with the address that shows it; those not compared come last."""
    priors: dict[str, str] = status["parameters"]["priors"]
    ranked = {one.photo: rank for rank, one in enumerate(changes_of(tx, priors))}
    items = [
        item | {"href": f"/compare?{urlencode([('media', priors[item['target']]), ('media', item['target'])])}"}
        if item["target"] in priors
        else item
        for item in status["items"]
    ]
    return sorted(items, key=lambda item: ranked.get(item["target"], len(ranked)))


def _told(status: dict[str, Any]) -> list[tuple[int, str, str]]:
    waiting = status["total"] - status["done"] - status["failed"]
    return [
        (status["done"], "photos done", "ok"),
        (status["failed"], "could not be done", "error"),
        (waiting, "still to do", "info"),
        (status["skipped"], "left alone", "info"),
    ]


def job_json(web: Web, request: Request) -> Response:
    with web.bridge.db.snapshot() as tx:
        status = _get_job(tx, actor_of(request), request.path_params["id"])
    return JSONResponse({name: status[name] for name in _PROGRESS})


def _note_shown(bridge: Bridge, actor: Actor, status: dict[str, Any], references: list[str]) -> None:
    told, patient_id = f"job {status['id']}", status["patient"]
    with bridge.db.transaction() as tx:
        governance.audit(tx, bridge, "query", actor, patient_id=patient_id, references=references, query=told)


def start(web: Web, request: Request, _form: Form) -> Response:
    actor, job_id = actor_of(request), request.path_params["id"]
    with web.bridge.db.transaction() as tx:
        _get_job(tx, actor, job_id)
        batch.start_job(tx, web.bridge, actor, job_id)
    return see_other(f"/jobs/{job_id}")


def confirm(web: Web, request: Request, _form: Form) -> Response:
    """POST /jobs/{id}/confirm: the second person's word."""
    actor, job_id = actor_of(request), request.path_params["id"]
    with web.bridge.db.transaction() as tx:
        _get_job(tx, actor, job_id)
        batch.confirm_job(tx, web.bridge, actor, job_id)
    return see_other(f"/jobs/{job_id}")


def _about(tx: Connection, status: dict[str, Any]) -> list[str]:
    """To whom photos are moved and why: what a person confirms, and a second one."""
    parameters = status["parameters"]
    if status["operation"] != "refile":
        return []
    target = find(tx, "Patient", parameters["patient"]) if parameters.get("patient") else None
    if target is None:
        return ["To nobody, until it is known whose they are", f"Reason: {parameters['reason']}"]
    resource = target.resource
    facts = (patient_name(resource), f"born {resource.get('birthDate', 'not known')}", mrn(resource) or "")
    return [f"To {', '.join(filter(None, facts))}", f"Reason: {parameters['reason']}"]


def cancel(web: Web, request: Request, _form: Form) -> Response:
    """Back to the photos the preview was about."""
    actor, job_id = actor_of(request), request.path_params["id"]
    with web.bridge.db.transaction() as tx:
        status = _get_job(tx, actor, job_id)
        batch.drop_preview(tx, actor, job_id)
    return see_other(f"/patients/{status['patient']}" if status["patient"] else "/jobs", "unchanged")


def undo(web: Web, request: Request, _form: Form) -> Response:
    actor, job_id = actor_of(request), request.path_params["id"]
    with web.bridge.db.snapshot() as tx:
        _get_job(tx, actor, job_id)
    batch.undo_job(web.bridge, actor, job_id)
    return see_other(f"/jobs/{job_id}", "undone")


def _get_job(tx: Connection, actor: Actor, job_id: str) -> dict[str, Any]:
    """Raises NotFound, also for a job on another patient than the session's."""
    check_scope(actor, "s", "Media")
    status = job_status(tx, job_id)
    check_whose(tx, actor, status["patient"])
    return status


def _check_all_of(tx: Connection, patient: Stored, media_ids: list[str]) -> None:
    """Raises BadInput unless every photo is this patient's: a selection never reaches across patients."""
    known = find_all(tx, "Media", media_ids)
    if any(one not in known or patient_of(known[one].resource) != patient.id for one in media_ids):
        raise BadInput("some of these photos are not of this patient any more; open the patient again")


def _assigned(form: Form) -> dict[str, str]:
    """Only what was chosen: an empty field leaves the photos as they are."""
    visit = form.get("encounter")
    chosen = {"encounter": f"Encounter/{visit}" if visit else "", "body_site": form.get("site")}
    chosen["laterality"] = form.get("laterality")
    return {name: value for name, value in chosen.items() if value}


def _export(web: Web, actor: Actor, media_ids: list[str]) -> Response:
    stream = export_zip(web.bridge, actor, media_ids)
    headers = {
        "Content-Disposition": f'attachment; filename="{stream.filename}"',
        "Content-Length": str(stream.size),
        "Cache-Control": "private, no-store",
    }
    return StreamingResponse(stream.chunks, headers=headers, media_type="application/zip")


def _in_reach(tx: Connection, actor: Actor, photos: dict[str, Stored]) -> dict[str, Stored]:
    """A photo that was moved out of the session's chart is told of and no more shown."""
    if actor.patient_id is None:
        return photos
    within = same_patients(tx, {actor.patient_id})
    return {media_id: one for media_id, one in photos.items() if patient_of(one.resource) in within}


def _result(web: Web, item: dict[str, Any], photo: Stored | None) -> dict[str, Any]:
    media_id = item["target"]
    at = taken_at(photo.resource, web.bridge.settings.zone) if photo else None
    return {
        "title": ", ".join(filter(None, [photo_label(photo), day(at) if at else None])),
        "href": (item.get("href") or f"/photos/{media_id}") if photo else None,
        "thumbnail": f"/captures/{media_id}/thumbnail" if photo else None,
        "state": item["state"],
        "detail": item["result"],
    }
