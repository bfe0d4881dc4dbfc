"""The MLLP listeners of one process: many connections, one intake, the same limits for all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from ssl import SSLContext, SSLError

import structlog

from adapter.identity.mllp_connection import READ_BYTES, Connection, Limits, peer_name, refuse
from adapter.identity.mllp_intake import Flow, Intake, Receive
from adapter.identity.mllp_later import FindAnswers, SameConnection

_HANDSHAKE_SECONDS = 10.0
_FAREWELL_SECONDS = 5.0

log = structlog.get_logger(__name__)


class MllpServer:
    """Receives on every address it is told to `listen` at, until it is closed.

    What cannot be framed is answered with the negative block of MLLP release 2 (NAK) and closed, as is a connection
    beyond the limit; both are logged by peer and reason only. `stranger` is told the address of whoever could not prove
    who it is by its certificate, and why.
    """

    def __init__(
        self,
        receive: Receive,
        *,
        limits: Limits | None = None,
        find_answers: FindAnswers = lambda _: {},
        stranger: Callable[[str, str], None] = lambda _address, _reason: None,
    ):
        self.intake = Intake(receive)
        self._limits = limits or Limits()
        self._flow = Flow(self._limits.max_bytes_in_flight)
        self._later = SameConnection(find_answers)
        self._stranger = stranger
        self._servers: list[asyncio.Server] = []
        self._connections: dict[Connection, asyncio.Task[None] | None] = {}

    async def listen(self, host: str, port: int, *, ssl: SSLContext | None = None) -> int:
        """Receive on `host:port` (0 = any free port); returns the port. Raises OSError when the address is taken."""
        server = await asyncio.start_server(partial(self._converse, ssl), host, port, limit=READ_BYTES, backlog=1024)
        self._servers.append(server)
        return self.ports[-1]

    @property
    def ports(self) -> list[int]:
        """Where it listens, in the order of the calls."""
        return [server.sockets[0].getsockname()[1] for server in self._servers]

    @property
    def held_bytes(self) -> int:
        """What was received on all connections and is not yet answered."""
        return self._flow.held_bytes

    async def _is_proven(self, tls: SSLContext, writer: asyncio.StreamWriter) -> bool:
        """The TLS handshake, by our own hand: one that asyncio makes for us fails without a word (RFC 8446 4.4.2.4).

        Nothing may be awaited before: what is read until then would be lost to it.
        """
        peer = peer_name(writer)
        try:
            await writer.start_tls(tls, ssl_handshake_timeout=_HANDSHAKE_SECONDS)
        except OSError as error:  # SSLError, reset, too slow
            reason = getattr(error, "reason", None) or type(error).__name__
            log.warning("mllp connection refused", peer=peer, reason=reason)
            writer.close()
            if isinstance(error, SSLError) and tls.verify_mode:
                await asyncio.to_thread(self._stranger, peer.rpartition(":")[0], reason)
            return False
        return True

    async def close(self) -> None:
        """Accept and read no more, answer what was read, then close."""
        for server in self._servers:
            server.close()
        for connection in self._connections:
            connection.leave()
        if tasks := [task for task in self._connections.values() if task]:
            _, late = await asyncio.wait(tasks, timeout=_FAREWELL_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._later.close()
        self.intake.close()

    async def _converse(
        self, tls: SSLContext | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if tls is not None and not await self._is_proven(tls, writer):
            return
        if len(self._connections) >= self._limits.max_connections:
            log.warning("mllp connection refused", peer=peer_name(writer), reason="max_connections are open")
            await refuse(reader, writer)
            writer.close()
            return
        connection = Connection(
            reader, writer, intake=self.intake, flow=self._flow, later=self._later, limits=self._limits
        )
        self._connections[connection] = asyncio.current_task()
        try:
            await connection.serve()
        finally:
            del self._connections[connection]
