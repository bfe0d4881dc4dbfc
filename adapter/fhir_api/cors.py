"""Cross-origin calls of /fhir by browser apps, for the origins an operator names; none by default.

Only with a bearer token: no cookie ever travels with such a call, so nobody's session is lent to another site
(https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

ASKED = (
    "Authorization",
    "Content-Type",
    "Accept",
    "Prefer",
    "If-Match",
    "If-None-Match",
    "If-None-Exist",
    "X-Request-Id",
)
SHOWN = ("ETag", "Last-Modified", "Location", "X-Request-Id", "X-Security-Context")


class FhirCors:
    """Before authentication, since a preflight carries no token."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str], prefix: str = "/fhir") -> None:
        self._app = app
        self._prefix = prefix
        self._cors = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "PUT", "DELETE"),
            allow_headers=ASKED,
            expose_headers=SHOWN,
            max_age=600,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and f"{scope['path']}/".startswith(f"{self._prefix}/")
        await (self._cors if ours else self._app)(scope, receive, send)
