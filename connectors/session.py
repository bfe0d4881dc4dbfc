"""The HTTP side of one destination: connection pool, allowance, credentials, and requests with and without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import httpx

from connectors.auth import Credentials
from connectors.contract import Secrets, Tallies
from connectors.every_kind import HttpProfile
from connectors.http import Http, open_transport
from connectors.knobs import Limits
from connectors.pace import Pace, own_tally

# A look that is answered from memory is none: HAPI FHIR gives the same search the same answer for a minute.
FRESH: Final = {"Cache-Control": "no-cache"}


@dataclass(frozen=True, slots=True)
class Session:
    """`http` speaks as we are registered; `bare` shows nobody our authorization (token endpoint, signed addresses)."""

    transport: httpx.BaseTransport
    credentials: Credentials
    http: Http
    bare: Http

    def close(self) -> None:
        self.transport.close()


def open_session(
    profile: HttpProfile, secrets: Secrets, now: Callable[[], datetime], tallies: Tallies = own_tally
) -> Session:
    """Nothing is sent yet. Raises ProfileError when a certificate file is of no use."""
    transport = open_transport(profile.auth)
    route = profile.route_names[0]
    pace = Pace(profile.limits, now=now, tally=tallies(route), zone=profile.timezone)
    bare = Http(
        transport,
        profile.base_url,
        timeouts=profile.timeouts,
        pace=pace if profile.limits.counts_tokens else Pace(Limits(), now=now),
    )
    credentials = Credentials(profile.auth, bare, secrets, lambda: now().timestamp(), tallies(f"{route} token"))
    http = Http(
        transport,
        profile.base_url,
        timeouts=profile.timeouts,
        headers=FRESH | {name: value.format_map(profile.tenant) for name, value in profile.headers.items()},
        authoriser=credentials,
        pace=pace,
        signals=profile.signals,
        code_paths=profile.code_paths,
        query={name: value.format_map(profile.tenant) for name, value in profile.query.items()},
        method_override=profile.method_override,
    )
    return Session(transport, credentials, http, bare)
