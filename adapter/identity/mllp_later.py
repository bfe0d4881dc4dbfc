"""Application acknowledgements that follow on the connection their message came by.

They are written to the database when the message is applied, perhaps by another process; this looks for those that a
connection here still waits for. A sender that left meanwhile gets them when it sends the message again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TypeAlias

import structlog

from adapter.identity.mllp_connection import Connection

FindAnswers: TypeAlias = Callable[[Sequence[str]], Mapping[str, bytes]]
"""Message ids -> those that are settled, with their application acknowledgement or b"" when none is wanted."""

_MAX_AWAITED = 100_000
_LOOK_AT = 500
_PAUSE_SECONDS = (0.02, 0.5)  # after a look that found something, and at most

log = structlog.get_logger(__name__)


class SameConnection:
    """Looks while anybody waits, more seldom the longer nothing comes."""

    def __init__(self, find: FindAnswers) -> None:
        self._find = find
        self._awaited: dict[str, Connection] = {}
        self._task: asyncio.Task[None] | None = None

    def expect(self, message_id: str, connection: Connection) -> None:
        """Tell the connection once the message is settled. The oldest are given up when too many wait."""
        self._awaited[message_id] = connection
        if len(self._awaited) > _MAX_AWAITED:
            del self._awaited[next(iter(self._awaited))]
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())

    def forget(self, connection: Connection) -> None:
        """The connection has gone."""
        self._awaited = {one: other for one, other in self._awaited.items() if other is not connection}

    def close(self) -> None:
        self._awaited.clear()
        if self._task is not None:
            self._task.cancel()

    async def _look(self) -> None:
        shortest, longest = _PAUSE_SECONDS
        pause = shortest
        while self._awaited:
            await asyncio.sleep(pause)
            asked = list(islice(self._awaited, _LOOK_AT))
            try:
                found = await asyncio.to_thread(self._find, asked)
            except Exception as error:  # noqa: BLE001 (the database is away: look again)
                log.warning("mllp application acknowledgements not read", error=type(error).__name__)
                found = {}
            for message_id in asked:
                self._settle(message_id, found.get(message_id))
            pause = shortest if found else min(2 * pause, longest)

    def _settle(self, message_id: str, ack: bytes | None) -> None:
        connection = self._awaited.pop(message_id, None)
        if connection is None:
            return
        if ack is None:
            self._awaited[message_id] = connection  # at the end, so that every one is looked for in its turn
        elif ack:
            connection.tell(ack)
