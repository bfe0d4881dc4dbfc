"""``dermbridge audit``: prove the log, hand it out, answer who saw what."""

from __future__ import annotations

import os
import pwd
import sys
import time
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
import typer

from adapter.bridge import Bridge
from adapter.cli import Json, beside_service, err, group, out, show
from adapter.errors import BadInput, NotFound

if TYPE_CHECKING:
    from adapter.governance.log import Question

audit = group("audit", "The audit log: verify, report, export, and the head to note outside.")

Heads = Annotated[
    list[Path] | None, typer.Option("--head", exists=True, dir_okay=False, help="A head noted earlier; repeatable.")
]
Patient = Annotated[str | None, typer.Option(help="Id or record number; merged records are included.")]
Photo = Annotated[str | None, typer.Option(help="Id of the photo.")]
User = Annotated[str | None, typer.Option(help="Reference, e.g. Practitioner/42.")]
Since = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day.")]
Until = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day.")]


@audit.command("head")
def audit_head() -> None:
    """Seal what waits and print the newest signed head: note it outside, on paper or in another system.

    Example: dermbridge audit head > head-2026-11-23.json
    """
    from adapter.governance.seal import seal_all

    with beside_service() as bridge:
        head = seal_all(bridge)
    if head is None:
        raise NotFound("the audit log is empty: there is no head yet")
    sys.stdout.write(orjson.dumps(head.as_json(), option=orjson.OPT_INDENT_2).decode() + "\n")


@audit.command("verify")
def audit_verify(head: Heads = None, as_json: Json = False) -> None:
    """Check every event against what was sealed, and the log against heads noted outside; exit 1 on damage.

    Example: dermbridge audit verify --head head-2026-11-23.json
    """
    from rich.progress import Progress

    from adapter.governance import settle
    from adapter.governance.verification import verify

    noted = _noted(head)
    began = time.monotonic()
    with beside_service() as bridge, Progress(console=err, disable=as_json or not err.is_terminal) as bar:
        task = bar.add_task("reading the log", total=None)
        settle(bridge)
        verdict = verify(
            bridge.db,
            noted=noted,
            progress=lambda done, of: bar.update(task, completed=done, total=of),
            processes=os.cpu_count() or 1,
        )
    seconds = round(time.monotonic() - began, 3)
    if as_json:
        newest = verdict.newest.as_json() if verdict.newest else None
        told = asdict(verdict) | {"verdict": _word(verdict.found), "seconds": seconds, "newest": newest}
        sys.stdout.write(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        waiting = f", {verdict.unsealed} not sealed yet" if verdict.unsealed else ""
        heads = f"{verdict.heads} signed heads"
        out.print(f"{_word(verdict.found)}: {verdict.events} events under {heads}{waiting}, {seconds} s")
        rows = [asdict(one) for one in verdict.problems]
        if rows:
            show(rows, ["seq", "event_id", "problem"], as_json=False, empty="")
        if verdict.found > len(rows):
            out.print(f"and {verdict.found - len(rows)} more")
        if not noted:
            out.print("Without --head this does not see a log that was cut back or signed again as a whole.")
    raise typer.Exit(int(bool(verdict.found)))


def _word(found: int) -> str:
    return "damaged" if found else "whole"


@audit.command("export")
def audit_export(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    patient: Patient = None,
    photo: Photo = None,
    user: User = None,
    since: Since = None,
    until: Until = None,
    head: Heads = None,
) -> None:
    """Write the log, or a part of it, with the proofs that tools/verify_audit.py checks without DermBridge.

    Example: dermbridge audit export ./audit-4711 --patient 4711
    """
    from adapter.governance.export import export_log

    noted = _noted(head)
    with beside_service() as bridge:
        asked = _question(bridge, patient, photo, user, since, until)
        _note(bridge, asked, "exported")
        written, newest = export_log(bridge, folder, asked, noted)
    size = newest.tree_size if newest else 0
    out.print(f"{written} of {size} events in {folder}; check them with: python tools/verify_audit.py {folder}")


@audit.command("report")
def audit_report(
    patient: Patient = None,
    photo: Photo = None,
    user: User = None,
    since: Since = None,
    until: Until = None,
    for_patient: Annotated[bool, typer.Option("--for-patient", help="In plain words, to hand to the patient.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV.")] = False,
    as_fhir: Annotated[bool, typer.Option("--fhir", help="As a FHIR Bundle of AuditEvents.")] = False,
    as_json: Json = False,
) -> None:
    """Who saw what: about a patient, a photo or a user, newest first.

    Example: dermbridge audit report --patient 4711 --since 2026-01-01 --csv > seen.csv
    """
    from adapter.governance import report, settle

    if as_csv + as_fhir + as_json > 1 or (as_fhir and for_patient):
        raise BadInput("choose one of --csv, --fhir and --json; --for-patient goes with --csv and --json")
    if for_patient and patient is None:
        raise BadInput("say which patient it is for: --patient")
    with beside_service() as bridge:
        asked = _question(bridge, patient, photo, user, since, until)
        if asked is None:
            raise BadInput("say whom it is about: --patient, --photo or --user, or a span of days")
        _note(bridge, asked, "reported")
        settle(bridge)
        columns: tuple[str, ...] = report.COLUMNS
        told = report.rows(bridge.db, asked)
        if for_patient:
            settings = bridge.settings
            columns = report.PLAIN_COLUMNS
            told = report.plain_rows(bridge.db, asked, settings.zone, settings.access_report_shows)
        if as_fhir:
            sys.stdout.writelines(report.fhir_bundle(bridge.db, asked))
        elif as_csv:
            sys.stdout.writelines(report.csv_lines(columns, told))
        else:
            shown = columns if for_patient else ("recorded", "who", "did", "outcome", "patient", "records")
            show(list(told), list(shown), as_json=as_json, empty="nobody: there is no entry")


def _noted(files: list[Path] | None) -> list[Any]:
    from adapter.governance.signing import read_head

    try:
        return [read_head(orjson.loads(file.read_bytes())) for file in files or []]
    except orjson.JSONDecodeError:
        raise BadInput("a head is JSON, as `dermbridge audit head` prints it") from None


def _question(
    bridge: Bridge,
    patient: str | None,
    photo: str | None,
    user: str | None,
    since: datetime | None,
    until: datetime | None,
) -> Question | None:
    """None when nothing narrows it. Raises NotFound for an unknown patient."""
    from adapter.governance.log import Question, find_patient_ids

    if not any((patient, photo, user, since, until)):
        return None
    ids = None
    if patient is not None:
        with bridge.db.snapshot() as tx:
            ids = find_patient_ids(tx, patient.removeprefix("Patient/"))
        if not ids:
            raise NotFound("there is no patient with this id or record number")
    zone = bridge.settings.zone
    return Question(
        patient_ids=ids,
        photo=photo.removeprefix("Media/") if photo else None,
        user=user,
        since=since.replace(tzinfo=zone) if since else None,
        until=until.replace(tzinfo=zone) + timedelta(days=1) if until else None,
    )


def _note(bridge: Bridge, asked: Question | None, how: Literal["reported", "exported"]) -> None:
    """Reading the log is an access as well, by whoever is at the command line."""
    from adapter import governance
    from adapter.access import SYSTEM

    patient_ids: list[str | None] = [*sorted(asked.patient_ids or ())] if asked else []
    references = [f"Media/{asked.photo}"] if asked and asked.photo else []
    detail = f"{how} at the command line by {pwd.getpwuid(os.getuid()).pw_name}"
    with bridge.db.transaction() as tx:
        for patient_id in patient_ids or [None]:
            governance.audit(
                tx, bridge, "audit-log-used", SYSTEM, patient_id=patient_id, references=references, detail=detail
            )
