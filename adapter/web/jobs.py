"""/jobs: one operation on many photos. Exports are streamed at once, everything else is a job with a page."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from adapter import batch
from adapter.access import Actor
from adapter.batch.export import export_zip
from adapter.batch.jobs import job_status
from adapter.errors import BadInput
from adapter.records import Stored, find
from adapter.records.confinement import patient_of
from adapter.records.timeline import by_id
from adapter.web.bodies import Form
from adapter.web.gate import actor_of, check_whose, get_patient
from adapter.web.pages import Web, see_other

LABELS = {"assign": "Assign visit and body site", "redeliver": "Deliver again"}
_STATES = {"finished": "done"}
_PROGRESS = ("state", "done", "failed", "total", "finished")


def post_job(web: Web, request: Request, form: Form) -> Response:
    """operation = assign | redeliver | export, `patient` = id, `media` once per photo."""
    bridge, actor, operation = web.bridge, actor_of(request), form.get("operation")
    media_ids = list(dict.fromkeys(form.all("media")))
    with bridge.db.snapshot() as tx:
        patient = get_patient(tx, actor, form.get("patient"))
        _check_all_of(tx, patient, media_ids)
    if operation == "export":
        return _export(web, actor, media_ids)
    parameters = _assigned(form) if operation == "assign" else {}
    with bridge.db.transaction() as tx:
        job_id = batch.start_job(
            tx, bridge, actor, operation, patient_id=patient.id, targets=media_ids, parameters=parameters
        )
    return see_other(f"/jobs/{job_id}")


def job_page(web: Web, request: Request) -> Response:
    bridge, actor = web.bridge, actor_of(request)
    with bridge.db.snapshot() as tx:
        status = _get_job(tx, actor, request.path_params["id"])
        patient = find(tx, "Patient", status["patient"]) if status["patient"] else None
    href = f"/jobs/{status['id']}"
    waiting = status["total"] - status["done"] - status["failed"]
    tally = [(status["done"], "photos done", "ok"), (status["failed"], "could not be done", "error")]
    tally.append((waiting, "still to do", "info"))
    return web.render(
        request,
        "job.html",
        "Job",
        patient=patient,
        job={
            "id": status["id"],
            "label": LABELS.get(status["operation"], status["operation"].capitalize()),
            "state": _STATES.get(status["state"], status["state"]),
            "done": status["done"],
            "failed": status["failed"],
            "total": status["total"],
            "created_at": status["created_at"].astimezone(bridge.settings.zone),
            "finished_at": None,
            "by": status["actor"] if status["actor"] != actor.id else actor.display,
            "can_undo": status["can_undo"],
            "undo_href": f"{href}/undo",
            "start_href": None,
            "cancel_href": None,
            "download": None,
            "message": None,
        },
        preview=[{"count": count, "text": text, "level": level} for count, text, level in tally if count],
        results=[_result(item) for item in status["items"]],
        next_href=None,
        status_href=f"{href}.json",
    )


def job_json(web: Web, request: Request) -> Response:
    with web.bridge.db.snapshot() as tx:
        status = _get_job(tx, actor_of(request), request.path_params["id"])
    return JSONResponse({name: status[name] for name in _PROGRESS})


def undo(web: Web, request: Request, _form: Form) -> Response:
    actor, job_id = actor_of(request), request.path_params["id"]
    with web.bridge.db.snapshot() as tx:
        _get_job(tx, actor, job_id)
    batch.undo_job(web.bridge, actor, job_id)
    return see_other(f"/jobs/{job_id}", "undone")


def _get_job(tx: Connection, actor: Actor, job_id: str) -> dict[str, Any]:
    """Raises NotFound, also for a job on another patient than the session's."""
    status = job_status(tx, job_id)
    check_whose(tx, actor, status["patient"])
    return status


def _check_all_of(tx: Connection, patient: Stored, media_ids: list[str]) -> None:
    """Raises BadInput unless every photo is this patient's: a selection never reaches across patients."""
    known = by_id(tx, "Media", media_ids)
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


def _result(item: dict[str, Any]) -> dict[str, Any]:
    media_id = item["target"]
    return {
        "title": f"Photo {media_id[-6:]}",
        "href": f"/photos/{media_id}",
        "thumbnail": f"/captures/{media_id}/thumbnail",
        "state": item["state"],
        "detail": item["result"],
    }
