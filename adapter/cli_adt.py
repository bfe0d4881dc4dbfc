"""``dermbridge adt``: send messages, mend the queue, undo what a message changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from adapter.cli import Json, beside_service, group, out, say, show
from adapter.settings import load_settings

adt = group("adt", "HL7 v2 ADT: send, queue, replay, unmerge.")


@adt.command("send")
def adt_send(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Messages or batches (FHS, BHS).")],
    host: Annotated[str | None, typer.Option(help="Receiver; this installation's own without it.")] = None,
    port: Annotated[int | None, typer.Option(help="Receiver's port; this installation's own without it.")] = None,
    ca: Annotated[Path | None, typer.Option(help="PEM; TLS, with a receiver whose certificate it signed.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM; ours, for mutual TLS.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM; where it is not in the certificate's file.")] = None,
    as_json: Json = False,
) -> None:
    """Send messages over MLLP and print each acknowledgement; exit 1 when one was refused.

    Example: dermbridge adt send A01.hl7
    """
    from adapter.errors import BadInput
    from adapter.identity.mllp_client import acknowledged, blocks_of, is_answered, send
    from adapter.identity.mllp_tls import client_tls

    blocks = [(file.name, block) for file in files for block in blocks_of(file.read_bytes())]
    if silent := [name for name, block in blocks if not is_answered(block)]:
        raise BadInput(f"{silent[0]}: MSH-15 is NE, so it would never be known whether it arrived; make it AL")
    own = load_settings()
    receiver = (host or own.mllp_host, port or own.mllp_port)
    answers = send(*receiver, [block for _, block in blocks], ssl=client_tls(ca, certificate, key))
    rows = [{"file": name, "msa": acknowledged(answer)} for (name, _), answer in zip(blocks, answers, strict=True)]
    for row in [] if as_json else rows:
        for line in row["msa"] or ["no MSA"]:
            out.print(f"{row['file']}: {line}", highlight=False, markup=False)
    if as_json:
        show(rows, [], as_json=True, empty="")
    taken = ("MSA|AA", "MSA|CA")
    raise typer.Exit(int(any(not row["msa"] or any(not one.startswith(taken) for one in row["msa"]) for row in rows)))


@adt.command("queue")
def adt_queue(as_json: Json = False) -> None:
    """Every message that was not applied, with reason and remedy. Example: dermbridge adt queue --json"""
    from adapter.identity import queue

    rows: list[dict[str, Any]] = []
    with beside_service() as bridge, bridge.db.snapshot() as tx:
        while some := queue(tx, 1000, rows[-1]["id"] if rows else None):
            rows += [dict(row._mapping) for row in some]
    columns = ["id", "sender", "control_id", "trigger_event", "patient", "reason", "remedy"]
    show(rows, columns, as_json=as_json, empty="all applied")


@adt.command("replay")
def adt_replay(
    message_ids: Annotated[list[str] | None, typer.Argument(help="Ids in `dermbridge adt queue`.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every queued message, in its order.")] = False,
    as_json: Json = False,
) -> None:
    """Apply queued messages again, after their cause was mended; exit 2 when none is named.

    Example: dermbridge adt replay 0193… 0194…
    """
    from adapter.errors import BadInput
    from adapter.identity import replay, replay_all

    if bool(message_ids) == everything:
        raise BadInput("name the messages to apply again, or give --all")
    with beside_service() as bridge, bridge.db.transaction() as tx:
        for message_id in message_ids or ():
            replay(tx, bridge, message_id)
        count = replay_all(tx, bridge) if everything else len(message_ids or ())
    say(f"{count} messages are in line again", as_json=as_json, messages=count)


@adt.command("dismiss")
def adt_dismiss(
    message_id: str,
    because: Annotated[str, typer.Option(help="Why it needs not be applied.")],
    as_json: Json = False,
) -> None:
    """Take a queued message out of the line; what waited behind it goes on.

    Example: dermbridge adt dismiss 0193… --because 'merged by hand'
    """
    from adapter.access import SYSTEM
    from adapter.identity import dismiss

    with beside_service() as bridge, bridge.db.transaction() as tx:
        dismiss(tx, bridge, SYSTEM, message_id, because=because)
    say(f"message {message_id} is dismissed", as_json=as_json, id=message_id)


@adt.command("changes")
def adt_changes(as_json: Json = False) -> None:
    """Merges, moves and deletions that stand, newest first. Example: dermbridge adt changes --json"""
    from adapter.identity.moves import changes

    with beside_service() as bridge, bridge.db.snapshot() as tx:
        rows = [dict(row._mapping) for row in changes(tx, limit=1000)]
    columns = ["id", "kind", "source", "target", "changed_at"]
    show(rows, columns, as_json=as_json, empty="nothing has changed its patient")


@adt.command("undo")
def adt_undo(
    change: Annotated[str, typer.Argument(help="Its id in `dermbridge adt changes`.")], as_json: Json = False
) -> None:
    """Undo a merge, move or deletion exactly. Example: dermbridge adt undo 0193…"""
    from adapter.access import SYSTEM
    from adapter.identity import undo_change

    with beside_service() as bridge, bridge.db.transaction() as tx:
        undo_change(tx, bridge, SYSTEM, change)
    say(f"change {change} is undone", as_json=as_json, change=change)


@adt.command("merge")
def adt_merge(source: str, target: str, as_json: Json = False) -> None:
    """Merge a patient into another by hand, after both charts were compared.

    Example: dermbridge adt merge SOURCE-ID TARGET-ID
    """
    from adapter.access import SYSTEM
    from adapter.identity import merge_patients

    with beside_service() as bridge, bridge.db.transaction() as tx:
        change = merge_patients(tx, bridge, SYSTEM, source, target)
    done = f"done as change {change}; undo it with: dermbridge adt undo {change}"
    say(done if change else "it was done before", as_json=as_json, change=change)


@adt.command("unmerge")
def adt_unmerge(source: str, target: str, as_json: Json = False) -> None:
    """Undo a merge exactly: what it moved goes back. Example: dermbridge adt unmerge SOURCE-ID TARGET-ID"""
    from adapter.access import SYSTEM
    from adapter.identity import unmerge_patients

    with beside_service() as bridge, bridge.db.transaction() as tx:
        unmerge_patients(tx, bridge, SYSTEM, source, target)
    say(f"Patient/{source} is a record of its own again", as_json=as_json, patient=source)
