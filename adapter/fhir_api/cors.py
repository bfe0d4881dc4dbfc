"""Cross-origin calls of /fhir and /auth/token by browser apps: of the origins an operator names, and those that
registered apps come back to; none by default.

Only with a bearer token: no cookie ever travels with such a call, so nobody's session is lent to another site
(https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from adapter.settings import Settings

PATHS = ("/fhir/", "/auth/token/", "/auth/revoke/")
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


def origins_of(settings: Settings) -> list[str]:
    """Who may call from a browser."""
    redirects = (urlsplit(address) for client in settings.clients for address in client.redirect_uris)
    apps = {f"{one.scheme}://{one.netloc}" for one in redirects if one.scheme in ("https", "http")}
    return sorted({*settings.fhir_cors_origins, *apps})


class FhirCors:
    """Before authentication, since a preflight carries no token."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        self._app = app
        self._cors = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "PUT", "DELETE"),
            allow_headers=ASKED,
            expose_headers=SHOWN,
            max_age=600,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and f"{scope['path']}/".startswith(PATHS)
        await (self._cors if ours else self._app)(scope, receive, send)
