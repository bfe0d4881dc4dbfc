"""Telling an audit repository: IHE ITI-20 as syslog over TLS (RFC 5425) or as FHIR (RESTful ATNA).

Both take a chunk of AuditEvents and return when the repository has taken them; the caller repeats a chunk that failed,
so a repository may see an event twice, never not at all.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from connectors.contract import DeliveryError, Retry
from connectors.http import FHIR_JSON
from connectors.reaching import trusting
from mappings.audit_event_to_dicom import octet_counted, syslog_message

SYSLOG_TLS_PORT = 6514  # RFC 5425 section 4.1
_FROM_THEIR_SERVER = ("id", "meta")


@dataclass(frozen=True)
class Trust:
    """TLS files (PEM): who signed the repository's certificate, and ours where it asks for one."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Raises OSError or ssl.SSLError for files of no use."""
        context = trusting(self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


class AuditRepository(Protocol):
    def tell(self, events: Sequence[tuple[int, dict[str, Any]]]) -> None:
        """Hand over (number in the log, AuditEvent), in order. Raises DeliveryError."""
        ...


class SyslogTls:
    """A connection for each chunk, since syslog has no acknowledgement: the end of TLS takes its place.

    After the last message we send close_notify and wait for the repository's own, which it sends when it has read
    everything (RFC 8446 section 6.1). A connection that breaks before that has told nothing.
    """

    def __init__(self, url: str, trust: Trust, *, host: str, seconds: float = 30) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or SYSLOG_TLS_PORT)
        self._trust = trust
        self._host = host
        self._seconds = seconds

    def tell(self, events: Sequence[tuple[int, dict[str, Any]]]) -> None:
        frames = b"".join(octet_counted(syslog_message(event, host=self._host, seq=seq)) for seq, event in events)
        try:
            plain = socket.create_connection(self._address, timeout=self._seconds)
            with self._trust.context().wrap_socket(plain, server_hostname=self._address[0]) as connection:
                connection.sendall(frames)
                _end(connection)
        except ssl.SSLCertVerificationError as error:
            raise DeliveryError(
                "The audit repository's certificate is not trusted.",
                remedy="Set `ca` of this [[audit_feeds]] to who signed it; then it goes on by itself.",
                retry=Retry.LATER,
            ) from error
        except OSError as error:
            raise _unreachable(type(error).__name__) from error


def _end(connection: ssl.SSLSocket) -> None:
    """Wait until everything was read. Raises OSError when the connection broke instead."""
    with suppress(ssl.SSLEOFError):  # closed in order without its own close_notify: many do, having read ours
        connection.unwrap()


class FhirFeed:
    """POST of a transaction Bundle: all of a chunk or none; or of one AuditEvent after the other."""

    def __init__(
        self, url: str, trust: Trust, *, source: str, token: str | None = None, bundle: bool = True, seconds: float = 30
    ) -> None:
        self._url = url.rstrip("/")
        self._source = source
        self._bundle = bundle
        self._trust = trust
        self._seconds = seconds
        self._headers = {"Content-Type": FHIR_JSON, "Accept": FHIR_JSON, "Prefer": "return=minimal"}
        self._headers |= {"Authorization": f"Bearer {token}"} if token else {}

    def tell(self, events: Sequence[tuple[int, dict[str, Any]]]) -> None:
        outward = [self._outward(event) for _, event in events]
        posts = [(f"{self._url}/AuditEvent", one) for one in outward]
        if self._bundle:
            request = {"method": "POST", "url": "AuditEvent"}
            entries = [{"resource": one, "request": request} for one in outward]
            posts = [(self._url, {"resourceType": "Bundle", "type": "transaction", "entry": entries})]
        try:
            verify = self._trust.context() if self._url.startswith("https:") else False
            with httpx.Client(headers=self._headers, timeout=self._seconds, verify=verify) as http:
                for url, body in posts:
                    _check_taken(http.post(url, json=body))
        except (httpx.HTTPError, OSError) as error:
            raise _unreachable(type(error).__name__) from error

    def _outward(self, event: dict[str, Any]) -> dict[str, Any]:
        """Without what their server decides; `meta.source` says which event of ours it is."""
        meta = {name: value for name, value in event.get("meta", {}).items() if name == "profile"}
        kept = {name: value for name, value in event.items() if name not in _FROM_THEIR_SERVER}
        return {**kept, "meta": meta | {"source": f"{self._source}/AuditEvent/{event['id']}"}}


def _check_taken(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    later = answer.status_code in (401, 403, 404, 408, 425, 429) or answer.status_code >= 500
    raise DeliveryError(
        f"The audit repository answered {answer.status_code}.",
        remedy="See its log for why; a refused message is tried again from the list of dead work.",
        retry=Retry.LATER if later else Retry.NEVER,
    )


def _unreachable(how: str) -> DeliveryError:
    return DeliveryError(
        f"The audit repository could not be told ({how}).",
        remedy="Check its address, TLS and the network; everything waits here and is told then.",
        retry=Retry.LATER,
        outage=True,
    )
