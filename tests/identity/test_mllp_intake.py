"""What stands between many connections and the database: order, bursts before what is done with them, bounded bytes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from adapter.identity import mllp_intake
from adapter.identity.mllp_intake import MAX_BATCH, Answer, Flow, Inbound, Intake


def echo(batch: Sequence[Inbound]) -> list[Answer]:
    return [Answer(message.raw) for message in batch]


def test_more_messages_than_a_batch_holds_are_answered_in_order() -> None:
    sizes = []

    def receive(batch: Sequence[Inbound]) -> list[Answer]:
        sizes.append(len(batch))
        return echo(batch)

    async def submit() -> list[bytes]:
        intake = Intake(receive)
        parts = intake.submit([b"%d" % n for n in range(2 * MAX_BATCH + 5)], "peer")
        answers = [answer.ack for part in parts for answer in await part]
        intake.close()
        return answers

    assert asyncio.run(submit()) == [b"%d" % n for n in range(2 * MAX_BATCH + 5)]
    assert sizes == [MAX_BATCH, MAX_BATCH, 5]


def test_a_burst_is_received_before_anything_that_lets_it_pass() -> None:
    told: list[str] = []
    began = threading.Event()

    def receive(batch: Sequence[Inbound]) -> list[Answer]:
        if not told:
            began.set()
        told.append("received")
        return echo(batch)

    async def burst() -> None:
        intake = Intake(receive)
        intake.let_burst_pass()  # nothing to wait for

        def apply() -> None:
            assert began.wait(10)
            intake.let_burst_pass()
            told.append("applied")

        applying = asyncio.create_task(asyncio.to_thread(apply))
        for _ in range(5):
            for part in intake.submit([b"MSH"], "peer"):
                await part
        await applying
        intake.close()

    asyncio.run(burst())
    assert told == ["received"] * 5 + ["applied"]


def test_a_stream_that_never_ends_is_let_pass_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllp_intake, "BURST_SECONDS", 0.05)
    gate = threading.Event()

    def receive(batch: Sequence[Inbound]) -> list[Answer]:
        assert gate.wait(10)
        return echo(batch)

    async def stream() -> None:
        intake = Intake(receive)
        (answers,) = intake.submit([b"MSH"], "peer")
        await asyncio.to_thread(intake.let_burst_pass)
        assert not answers.done()
        gate.set()
        await answers
        intake.close()

    asyncio.run(stream())


def test_above_the_limit_one_connection_goes_on_and_the_others_wait_for_it() -> None:
    async def fill() -> list[str]:
        flow, went_on = Flow(100), []

        async def read(connection: str) -> None:
            await flow.room(connection)
            went_on.append(connection)

        flow.hold("a", 60)
        flow.hold("b", 60)
        silent = asyncio.create_task(read("silent"))  # between messages: it must not be the one that goes on
        await asyncio.sleep(0)
        await read("a")
        await read("a")
        waiting = asyncio.create_task(read("b"))
        await asyncio.sleep(0)
        assert went_on == ["a", "a"]
        flow.hold("a", 90)  # what it reads does not end its turn
        await asyncio.sleep(0)
        assert not waiting.done()
        flow.hold("a", 50)  # what becomes durable does
        await waiting
        assert flow.held_bytes == 110
        flow.hold("a", 0)
        flow.hold("b", 0)
        assert flow.held_bytes == 0
        await silent
        return went_on

    assert asyncio.run(fill()) == ["a", "a", "b", "silent"]
