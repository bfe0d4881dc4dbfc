"""The ``dermbridge`` command: one sub-command per thing an engineer or operator does.

Exit codes: 0 done; 1 it ran and found something wrong; 2 the call or a setting must be changed.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from adapter.bridge import Bridge, open_bridge
from adapter.errors import DermBridgeError
from adapter.settings import Settings, load_settings

cli = typer.Typer(
    name="dermbridge",
    help="EHR integration for clinical photography.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)
out = Console()
err = Console(stderr=True)

_JSON = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS  # a column's name is SQLAlchemy's own kind of str
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def group(name: str, help_text: str) -> typer.Typer:
    """A sub-command group, such as `dermbridge db …`."""
    sub = typer.Typer(name=name, help=help_text, no_args_is_help=True)
    cli.add_typer(sub)
    return sub


def main() -> None:
    """Entry point: expected errors, and paths that cannot be read or written, are one sentence and exit code 2."""
    try:
        cli()
    except (DermBridgeError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None:
            raise
        said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        err.print(f"[bold red]dermbridge:[/] {escape(said)}", highlight=False, soft_wrap=True)
        sys.exit(2)


@contextmanager
def beside_service(settings: Settings | None = None) -> Iterator[Bridge]:
    """The installation, opened by a short command that may run while a service does."""
    from adapter.db.schema import prepare

    bridge = open_bridge(settings or load_settings())
    try:
        prepare(bridge.db)
        yield bridge
    finally:
        bridge.close()


def show(rows: list[dict[str, Any]], columns: list[str], *, as_json: bool, empty: str) -> None:
    """A table for people, JSON lines' array for scripts."""
    if as_json:
        sys.stdout.write(orjson.dumps(rows, option=_JSON, default=str).decode() + "\n")
        return
    if not rows:
        out.print(empty, markup=False)
        return
    # No address is cut off, and an id stays in one piece: it is what the next command is given.
    table = Table(*(Column(column, overflow="fold", no_wrap=column == "id") for column in columns))
    for row in rows:
        table.add_row(*("" if row.get(column) is None else escape(str(row[column])) for column in columns))
    out.print(table)


def say(sentence: str, *, as_json: bool, **facts: Any) -> None:
    """What was done: a sentence for people, its facts for scripts, in the form of `show`."""
    if as_json:
        show([facts], [], as_json=True, empty="")
    else:
        out.print(sentence, highlight=False, markup=False, soft_wrap=True)


@cli.callback(invoke_without_command=True)
def _version(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if show_version:
        out.print(version("dermbridge"), highlight=False)
        raise typer.Exit


# --- processes ------------------------------------------------------------------------------------------------------


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    web_only: Annotated[bool, typer.Option(help="Leave work and MLLP to their own processes.")] = False,
) -> None:
    """Serve pages, captures and FHIR; by default also receive ADT and do the work.

    Example: dermbridge serve --port 8000
    """
    gc.disable()  # part of starting would go to looking for garbage where there is none; `collect_less` ends this
    from adapter.serve import serve_http

    serve_http(load_settings(http_host=host, http_port=port), everything=not web_only)


@cli.command()
def worker() -> None:
    """Do the work: apply ADT, deliver, render, run jobs. Example: dermbridge worker"""
    from adapter.serve import run_worker

    run_worker(load_settings())


@cli.command()
def mllp() -> None:
    """Receive HL7 v2 over MLLP. Example: DERMBRIDGE_MLLP_HOST=0.0.0.0 dermbridge mllp"""
    from adapter.serve import run_mllp

    run_mllp(load_settings())


@cli.command()
def demo(once: Annotated[bool, typer.Option(help="Exit after the proof.")] = False) -> None:
    """Run the whole promise with a sandbox EHR: ADT, capture, delivery, read-back, merge, comparison."""
    from adapter.demo import run_demo

    run_demo(once=once)


@cli.command()
def doctor(as_json: Json = False) -> None:
    """Check settings, database, keys, disk and destinations; exit 1 when something needs attention."""
    from adapter.doctor import examine

    findings = examine(load_settings())
    show(findings, ["subject", "verdict", "detail"], as_json=as_json, empty="nothing to check")
    raise typer.Exit(int(any(finding["verdict"] == "error" for finding in findings)))


# --- database and keys ----------------------------------------------------------------------------------------------

db = group("db", "The database: upgrade, check.")


@db.command("upgrade")
def db_upgrade(as_json: Json = False) -> None:
    """Bring the schema to this version. Stop services first. Example: dermbridge db upgrade"""
    from adapter.db.schema import head, upgrade

    bridge = open_bridge(load_settings())
    upgrade(bridge.db)
    bridge.close()
    say(f"the schema is at revision {head()}", as_json=as_json, revision=head())


@db.command("check")
def db_check(as_json: Json = False) -> None:
    """Say whether the schema fits this version; exit 2 and the command to run when it does not."""
    from adapter.db.schema import check_schema, head

    bridge = open_bridge(load_settings())
    try:
        check_schema(bridge.db)
    finally:
        bridge.close()
    say(f"the schema is at revision {head()}, as it should be", as_json=as_json, revision=head())


# --- tokens ---------------------------------------------------------------------------------------------------------

token = group("token", "Bearer tokens for machines.")


@token.command("issue")
def token_issue(
    name: Annotated[str, typer.Option(help="Who will use it.")],
    scope: Annotated[str, typer.Option(help="SMART scopes, e.g. 'system/Media.cr'.")],
    days: Annotated[int | None, typer.Option(help="Lifetime; for ever when left out.")] = None,
    as_json: Json = False,
) -> None:
    """Print a new token; it cannot be shown again.

    Example: dermbridge token issue --name camera-1 --scope 'system/Media.c'
    """
    from adapter.access import SYSTEM
    from adapter.access.tokens import issue_token
    from adapter.governance import audit

    with beside_service() as bridge, bridge.db.transaction() as tx:
        lifetime = timedelta(days=days) if days else None
        token_id, secret = issue_token(tx, name=name, scope=scope, at=bridge.now(), lifetime=lifetime)
        audit(tx, bridge, "user-changed", SYSTEM, detail=f"token {token_id} issued to {name} with {scope}")
    if as_json:
        show([{"id": token_id, "name": name, "scope": scope, "token": secret}], [], as_json=True, empty="")
        return
    err.print(f"token {token_id} for {name}; revoke it with: dermbridge token revoke {token_id}", highlight=False)
    sys.stdout.write(secret + "\n")


@token.command("list")
def token_list(as_json: Json = False) -> None:
    """Tokens in force, those of /auth/token among them, the oldest first. Example: dermbridge token list --json"""
    from adapter.access.tokens import tokens_in_force

    with beside_service() as bridge, bridge.db.snapshot() as tx:
        rows = tokens_in_force(tx, now=bridge.now())
    columns = ["id", "name", "client_id", "scope", "created_at", "expires_at"]
    show(rows, columns, as_json=as_json, empty="no token is in force")


@token.command("revoke")
def token_revoke(token_id: str, as_json: Json = False) -> None:
    """Make a token useless at once. Example: dermbridge token revoke 0193…"""
    from adapter.access import SYSTEM
    from adapter.access.tokens import revoke_token
    from adapter.governance import audit

    with beside_service() as bridge, bridge.db.transaction() as tx:
        revoke_token(tx, token_id, at=bridge.now())
        audit(tx, bridge, "user-changed", SYSTEM, detail=f"token {token_id} revoked")
    say(f"token {token_id} is revoked", as_json=as_json, id=token_id)


# --- captures -------------------------------------------------------------------------------------------------------


@cli.command()
def capture(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The photo.")],
    patient: Annotated[str | None, typer.Option(help="'SYSTEM|VALUE' or Patient/id.")] = None,
    body_site: Annotated[str | None, typer.Option(help="SNOMED CT code.")] = None,
    view: Annotated[str | None, typer.Option(help="overview, regional, close-up or dermoscopic.")] = None,
    sensitivity: Annotated[list[str] | None, typer.Option(help="hiv, std, ... (docs/captures.md); repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Store one photo. Example: dermbridge capture mole.jpg --patient 'urn:oid:1.2.3|4711' --json"""
    from adapter.access import SYSTEM
    from adapter.capture.receive import Upload, receive

    metadata: dict[str, Any] = {"patient": _patient_option(patient), "body_site": body_site, "view": view}
    metadata["sensitivity"] = sensitivity
    with beside_service() as bridge:
        upload = Upload(file.read_bytes(), {k: v for k, v in metadata.items() if v is not None}, source="cli")
        answer = receive(bridge, SYSTEM, upload)
    show([answer.body], ["id", "identity", "reason"], as_json=as_json, empty="")


def _patient_option(text: str | None) -> Any:
    if text is None or "|" not in text:
        return text
    system, _, value = text.partition("|")
    return {"system": system, "value": value}


@cli.command()
def compare(
    left: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The earlier photo.")],
    right: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The later photo.")],
    points: Annotated[
        Path | None, typer.Option("--map", exists=True, dir_okay=False, help="CSV: x,y of LEFT per line.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--out", file_okay=False, help="Folder for the pictures.")] = None,
    as_json: Json = False,
) -> None:
    """Align two photo files and say what changed; no server, no database, nothing kept.

    Example: dermbridge compare march.jpg june.jpg --map points.csv --out compared --json
    """
    from adapter.compare.files import compare_files, read_points

    answer = compare_files(left, right, points=points, out=to)
    if as_json:
        sys.stdout.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    out.print(f"{answer['verdict']}: {' '.join(answer['reasons'])}", highlight=False, markup=False)
    if answer["change"] is None:
        out.print("what changed cannot be told of photos that are not aligned")
    else:
        columns = ["box", "difference", "lightness", "redness", "certain"]
        show(answer["change"]["regions"], columns, as_json=False, empty="no change found")
    if points:
        pairs = zip(read_points(points), answer["mapped"], strict=True)
        rows = [{"left": x_y, "right": found or "not shown"} for x_y, found in pairs]
        show(rows, ["left", "right"], as_json=False, empty="")
    for file in answer["files"]:
        out.print(file, highlight=False, markup=False)


imports = group("import", "Photos from elsewhere: a shared drive.")


@imports.command("drive")
def import_drive(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder with photos.")],
    rules: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="CSV: path patterns to metadata.")],
    dry_run: Annotated[bool, typer.Option(help="Say what would happen; write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Capture the photos of a folder. Example: dermbridge import drive /mnt/photos --rules rules.csv --dry-run"""
    from rich.progress import Progress

    from adapter.access import SYSTEM
    from adapter.batch.drive import photo_files, plan_import, read_rules, run_import

    known = read_rules(rules)
    with beside_service() as bridge, Progress(console=err, disable=as_json) as progress:
        task = progress.add_task("reading" if dry_run else "importing", total=sum(1 for _ in photo_files(folder)))
        if dry_run:
            items = list(progress.track(plan_import(bridge, folder, known), task_id=task))
        else:
            items = run_import(bridge, SYSTEM, folder, known, lambda _item: progress.advance(task))
    rows = [vars(item) for item in items]
    show(rows, ["path", "verdict", "reason"], as_json=as_json, empty="there are no files in this folder")
    if not as_json:
        counts = Counter(item.verdict for item in items)
        out.print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()), highlight=False)
    raise typer.Exit(int(any(item.verdict in ("refused", "no-rule") for item in items)))


@cli.command()
def scrub(as_json: Json = False) -> None:
    """Open every photo on disk with its key, read it to its end, and tidy what a crash left; exit 1 on damage."""
    from adapter.records.scrub import scrub as scrub_blobs

    with beside_service() as bridge:
        findings = scrub_blobs(bridge.db, bridge.vault, now=bridge.now())
    rows = [{"blob": blob, "problem": problem} for blob, problem in findings.problems]
    if not as_json:
        out.print(f"{findings.checked} photos read, {len(rows)} damaged or missing, {findings.removed} orphans removed")
    show(rows, ["blob", "problem"], as_json=as_json, empty="all whole")
    raise typer.Exit(int(bool(rows)))


from adapter import cli_adt, cli_audit, cli_connectors, cli_measure, cli_pull, cli_sandbox  # noqa: E402, F401  (each adds its groups to the command)
