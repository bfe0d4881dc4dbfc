"""One address for all processes of a service: who carries least accepts the next connection."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette

from adapter.errors import Misconfigured
from adapter.processes import Member
from adapter.settings import Settings

log = structlog.get_logger()

STAND_BACK_SECONDS, STAND_BACK_AT_MOST = 0.0003, 0.003
FIRST_POLL_SECONDS = 0.01
ACCEPT_AGAIN_SECONDS = 1.0  # after the machine had no descriptor or memory left for one more
BACKLOG = 2048  # connections that wait to be accepted; beyond it a caller's system tries again a second later
HEAD_SECONDS = 30.0  # for the head of a request; uvicorn would wait for it without end
RELEASED_SECONDS = 2.0  # after a service was killed, until its last process has let go of the address


class Sharing(uvicorn.Server):
    """Accepts from a socket that other processes accept from as well: who serves fewer connections comes first.

    Left to the kernel, whichever process wakes first takes all connections that came at once, and keeps them.
    """

    def __init__(self, config: uvicorn.Config, app: Starlette, member: Member) -> None:
        super().__init__(config)
        self._app = app
        self._member = member
        self._accepting: list[asyncio.Task[None]] = []
        self._waiting: dict[Any, tuple[Any, float]] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[] if sockets else None)
        if self._member.is_first:
            self._member.carry(0)
        self._accepting = [asyncio.create_task(self._accept_from(one)) for one in sockets or ()]

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            self._close_silent(time.monotonic())
        return await super().on_tick(counter) or any(task.done() for task in self._accepting)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Raises what kept this process from accepting, so that it does not look as if it had been asked to end."""
        self._app.state.is_ending = True  # what would stream on for minutes
        failed = [task for task in self._accepting if task.done()]
        for task in self._accepting:
            task.cancel()
        await super().shutdown(sockets)
        for task in failed:
            task.result()

    def _close_silent(self, now: float) -> None:
        """Who sends no whole head of a request holds a connection all the same, and many such hold all there are."""
        waiting: dict[Any, tuple[Any, float]] = {}
        connections: list[Any] = list(self.server_state.connections)
        for one in connections:
            if one.cycle is None or one.cycle.response_complete:
                last, since = self._waiting.get(one, (None, now))
                waiting[one] = one.cycle, (since if last is one.cycle else now)
                if now - waiting[one][1] > HEAD_SECONDS:
                    one.transport.close()
        self._waiting = waiting

    async def _accept_from(self, listening: socket.socket) -> None:
        listening.setblocking(False)
        loop = asyncio.get_running_loop()
        while not self._member.first_serves:  # whoever is answered finds all that the service listens for
            await asyncio.sleep(FIRST_POLL_SECONDS)
        while True:
            await _readable(loop, listening)
            more = self._member.carry(len(self.server_state.connections))
            await asyncio.sleep(min(STAND_BACK_SECONDS * more, STAND_BACK_AT_MOST))
            try:
                accepted, _ = listening.accept()
                try:
                    await loop.connect_accepted_socket(self._protocol, accepted)
                except BaseException:
                    accepted.close()
                    raise
            except (BlockingIOError, ConnectionError):  # another was faster, or the caller has gone
                continue
            except OSError as error:
                log.error("serve.not_accepted", error=type(error).__name__, exc_info=error)
                await asyncio.sleep(ACCEPT_AGAIN_SECONDS)

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


async def _readable(loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
    seen = asyncio.Event()
    loop.add_reader(listening, seen.set)
    try:
        await seen.wait()
    finally:
        loop.remove_reader(listening)


def listen(settings: Settings) -> socket.socket:
    """The socket that all processes accept from. Raises Misconfigured when the address is taken or not ours."""
    host, port = settings.http_host, settings.http_port
    until = time.monotonic() + RELEASED_SECONDS
    while True:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                raise Misconfigured(
                    f"cannot listen on {host}:{port}: {error.strerror}; stop what does, or set http_host and http_port"
                ) from None
        time.sleep(0.05)
