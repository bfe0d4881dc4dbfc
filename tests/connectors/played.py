"""Answers made in the test, where the connections of a destination would be."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx

from connectors.wire import Lost, NotSent, Reply


class Played:
    """What `answer` raises of httpx is a broken connection: before anything left (ConnectError ...), or after."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self._answer = answer

    def exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes, limit: int) -> Reply:
        try:
            answer = self._answer(httpx.Request(method, url, headers=dict(headers), content=body))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NotSent(type(error).__name__) from error
        except httpx.TransportError as error:
            raise Lost(type(error).__name__) from error
        return Reply(answer.status_code, dict(answer.headers), answer.content[: limit + 100])

    def close(self) -> None:
        """Nothing is kept open."""
