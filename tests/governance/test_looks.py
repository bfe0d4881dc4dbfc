"""Looks are in the log before their answer begins, those of many readers written together; a failure is everybody's."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import func, select
from starlette.types import Message, Receive, Scope, Send

from adapter import governance
from adapter.access import Actor
from adapter.bridge import Bridge
from adapter.db.engine import Database
from adapter.db.tables import audit_event, audit_tail
from adapter.errors import DermBridgeError, Unavailable
from adapter.governance import looks
from adapter.governance.looks import LooksTogether, answering, settle, write_looks
from adapter.governance.verification import verify
from adapter.records import New
from adapter.web.gates import Gate

DOCTOR = Actor("person", "Practitioner/d1", "Dr. D", "clinician", address="10.0.0.7")


def look(bridge: Bridge, photo: str) -> None:
    governance.audit_look(bridge, DOCTOR, patient_id="p1", references=[f"Media/{photo}/_history/1"])


def told(bridge: Bridge, photo: str) -> list[New]:
    reference = f"Media/{photo}/_history/1"
    return [governance.audited(bridge, "read", DOCTOR, patient_id="p1", references=[reference])]


def logged(bridge: Bridge, table: Any = audit_event) -> int:
    settle(bridge)
    with bridge.db.snapshot() as tx:
        return int(tx.execute(select(func.count()).select_from(table)).scalar_one())


def test_without_an_answer_to_hold_back_a_look_is_durable_when_it_returns(bridge: Bridge) -> None:
    look(bridge, "m1")
    assert (logged(bridge), logged(bridge, audit_tail)) == (1, 1)


def test_while_a_request_is_answered_looks_are_noted_for_the_answer(bridge: Bridge) -> None:
    with answering() as looked:
        look(bridge, "m1")
        assert logged(bridge) == 0
        assert len(looked.take()) == 1
        look(bridge, "m2")  # the answer has begun: nobody would write it later
        assert logged(bridge) == 1


async def _held_answer(bridge: Bridge, refuse: Any = None) -> list[Message]:
    """What leaves the gate when a handler looks, answers and looks again while it streams."""
    sent: list[Message] = []

    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        look(bridge, "m1")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"photo"})
        look(bridge, "m2")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            assert logged(bridge) == 1
        sent.append(message)

    with httpx.Client() as http:
        gate = Gate(handler, bridge=bridge, http=http, refuse=refuse)
        scope = {"type": "http", "method": "GET", "path": "/healthz", "headers": [], "query_string": b""}
        await gate(scope, lambda: asyncio.sleep(3600), send)  # type: ignore[arg-type, return-value]
    return sent


def test_an_answer_begins_when_what_it_shows_is_in_the_log(bridge: Bridge) -> None:
    sent = asyncio.run(_held_answer(bridge))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert logged(bridge) == 2


def test_an_answer_whose_look_cannot_be_written_is_refused_and_shows_nothing(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.responses import Response

    def fail(*_given: Any) -> None:
        raise Unavailable("the disk is full")

    def refuse(_request: Any, error: DermBridgeError) -> Response:
        return Response(str(error), error.http_status)

    monkeypatch.setattr(looks, "_write", lambda *_: fail())
    sent: list[Message] = []
    with pytest.raises(Unavailable):  # of the look told while it streams
        sent += asyncio.run(_held_answer(bridge, refuse))
    monkeypatch.undo()
    assert b"photo" not in [message.get("body") for message in sent]
    assert logged(bridge) == 0


def test_who_comes_while_one_batch_is_written_is_written_with_the_next(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = looks._write

    def counted(writing: Bridge, batch: Sequence[New]) -> None:
        sizes.append(len(batch))
        original(writing, batch)

    async def read_all() -> None:
        together = LooksTogether(bridge)
        first = asyncio.create_task(together.write(told(bridge, "m0")))
        while together._filling is not None or together._written is None:  # until the first is being written
            await asyncio.sleep(0)
        await asyncio.gather(first, *(together.write(told(bridge, f"m{n}")) for n in range(1, 6)))

    monkeypatch.setattr(looks, "_write", counted)
    asyncio.run(read_all())
    assert (sizes, logged(bridge), logged(bridge, audit_tail)) == ([1, 5], 6, 6)


def test_a_reader_who_goes_away_takes_no_other_look_along(bridge: Bridge) -> None:
    async def read() -> None:
        together = LooksTogether(bridge)
        going, staying = (asyncio.create_task(together.write(told(bridge, one))) for one in ("m1", "m2"))
        await asyncio.sleep(0)
        going.cancel()
        await staying

    asyncio.run(read())
    assert logged(bridge) == 2


def test_a_batch_that_cannot_be_written_is_an_error_of_all_in_it_and_of_nobody_after(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read() -> list[Any]:
        together = LooksTogether(bridge)
        with monkeypatch.context() as patched:
            patched.setattr(looks, "_write", lambda *_: 1 / 0)
            failed = await asyncio.gather(
                *(together.write(told(bridge, f"m{n}")) for n in range(3)), return_exceptions=True
            )
        await together.write(told(bridge, "m9"))
        return failed

    assert [type(one) for one in asyncio.run(read())] == [ZeroDivisionError] * 3
    assert logged(bridge) == 1


def test_nothing_looked_at_is_nothing_written(bridge: Bridge) -> None:
    write_looks(bridge, [])
    assert logged(bridge) == 0


def test_a_look_that_comes_again_after_a_crash_is_told_once(bridge: Bridge) -> None:
    look(bridge, "m1")
    assert logged(bridge) == 1
    look(bridge, "m2")
    after_crash = replace(bridge, db=Database(bridge.db.url.render_as_string(hide_password=False)))
    assert (logged(after_crash), logged(bridge), logged(bridge, audit_tail)) == (2, 2, 2)
    after_crash.db.close()
    assert (verify(bridge.db).unsealed, verify(bridge.db).problems) == (2, [])


def test_a_look_found_changed_before_it_was_moved_is_a_finding(bridge: Bridge) -> None:
    if bridge.db.spool is None:  # on PostgreSQL it is in the log at once
        return
    look(bridge, "m1")
    bridge.db.spool.close()
    (file,) = bridge.db.spool.folder.iterdir()
    file.write_bytes(file.read_bytes().replace(b"m1", b"m9"))
    assert logged(bridge) == 0
    assert [one.problem for one in verify(bridge.db).problems] == [
        f"looks kept in {file.name}.damaged are not what was written"
    ]


def test_a_look_kept_by_another_version_is_found_by_what_this_one_searches(bridge: Bridge) -> None:
    if bridge.db.spool is None:
        return
    with answering() as looked:
        look(bridge, "m1")
        event_id, at, body, columns, rows = orjson.loads(looks._line(looked.take()[0]))
    columns["subject"] = columns.pop("patient")
    bridge.db.spool.keep([orjson.dumps([event_id, at, body, columns, rows])])
    bridge.db.spool.keep([b"{}"])
    assert logged(bridge) == 1
    assert [one.problem for one in verify(bridge.db).problems] == [
        f"looks kept in {bridge.db.spool.damaged()[0]} are not what was written"
    ]


def test_looks_that_cannot_be_read_are_told_to_whoever_asks_for_the_log(bridge: Bridge) -> None:
    if bridge.db.spool is None:
        return
    look(bridge, "m1")
    (bridge.db.spool.folder / "00").mkdir()  # root may open any file
    with pytest.raises(Unavailable, match="give its files to the user"):
        settle(bridge)


def test_a_look_that_the_disk_does_not_take_is_refused(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_given: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    if bridge.db.spool is None:
        return
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(Unavailable, match="is the disk full"):
            look(bridge, "m1")
    look(bridge, "m2")
    assert logged(bridge) == 1
