"""Public keys from an address: kept, asked for again when another key signs, and never waited for by everybody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import orjson
import pytest
from joserfc.jwk import ECKey

from adapter.access import jwks
from adapter.access.jwks import PublishedKeys
from adapter.errors import Unavailable

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
Fetch = Callable[..., list[str | None]]


class Publisher:
    """Answers with the keys `kids`, once it may; `asked` counts."""

    def __init__(self) -> None:
        self.kids: list[str] | None = ["k1"]
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = 0
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked += 1
                publisher.may_answer.wait()
                self.send_response(200 if publisher.kids else 500)
                self.end_headers()
                keys = [
                    ECKey.generate_key("P-384", {"kid": kid}).as_dict(private=False) for kid in publisher.kids or ()
                ]
                self.wfile.write(orjson.dumps({"keys": keys}))

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher()
    yield made
    made.may_answer.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def get(publisher: Publisher) -> Iterator[Fetch]:
    with httpx.Client() as http:
        keys = PublishedKeys(http)

        def fetched(kid: str = "k1", after: float = 0) -> list[str | None]:
            url = f"http://127.0.0.1:{publisher.server.server_port}/jwks"
            found = keys.get(url, "the client", kid=kid, now=NOW + timedelta(seconds=after))
            return [key.kid for key in found.keys]

        yield fetched


def test_keys_are_kept_and_an_unknown_one_asks_again_once_a_minute(publisher: Publisher, get: Fetch) -> None:
    assert (get(), get(after=299), publisher.asked) == (["k1"], ["k1"], 1)
    publisher.kids = ["k2"]
    assert (get("k2", after=30), publisher.asked) == (["k1"], 1)
    assert (get("k2", after=61), get("k2", after=100), publisher.asked) == (["k2"], ["k2"], 2)
    assert (get("k2", after=362), publisher.asked) == (["k2"], 3)


def test_what_failed_is_asked_again_only_after_a_while(publisher: Publisher, get: Fetch) -> None:
    publisher.kids = None
    for after in (0, 9):
        with pytest.raises(Unavailable, match="did not answer usefully"):
            get(after=after)
    assert publisher.asked == 1
    publisher.kids = ["k1"]
    assert (get(after=10), publisher.asked) == (["k1"], 2)


def test_an_address_that_hangs_is_asked_once_and_its_answer_is_kept_when_it_comes(
    publisher: Publisher, get: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "PATIENCE", timedelta(milliseconds=50))
    publisher.may_answer.clear()
    for after in (0, 1, 100):
        with pytest.raises(Unavailable, match="has not answered yet"):
            get(after=after)
    monkeypatch.setattr(jwks, "PATIENCE", timedelta(seconds=200))
    publisher.may_answer.set()
    assert (get(after=100), publisher.asked) == (["k1"], 1)
