"""The HTTP client for addresses that others tell us (an EHR's endpoints, key sets): never into our own network.

A host that stands in the settings is reached wherever it is, since an operator wrote it. Any other host must resolve to
public addresses only, and the connection goes to the very address that was checked, so that a name cannot point
elsewhere a moment later (server-side request forgery, DNS rebinding). Redirects are not followed, answers are small. A
host of `ca_files` proves itself by a certificate of that authority and of no other.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from adapter.errors import Misconfigured, Unavailable
from adapter.settings import Settings
from connectors.reaching import trusting, usual_tls

MOST_BYTES = 2**20
TIMEOUT = 10.0
_NAT64, _UNICAST = ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("2000::/3")


def outbound_client(settings: Settings) -> httpx.Client:
    """A client for launches, logins and key sets. Raises Misconfigured for a file of `ca_files` that is none."""
    known = known_hosts(settings)
    private = {
        f"https://{host}": GuardedTransport(known, _trusting(host, file)) for host, file in settings.ca_files.items()
    }
    usual = GuardedTransport(known, usual_tls())
    return httpx.Client(timeout=TIMEOUT, follow_redirects=False, transport=usual, mounts=private)


def known_hosts(settings: Settings) -> frozenset[str]:
    """Every host an operator named."""
    urls = [ehr.iss for ehr in settings.ehrs]
    urls += [login.issuer for login in settings.staff_logins]
    urls += [client.jwks_url for client in settings.clients if client.jwks_url]
    return frozenset(settings.private_hosts) | settings.ca_files.keys() | {urlsplit(url).hostname or "" for url in urls}


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public Internet (not loopback, private, link-local, metadata, …).

    An IPv4 address may come inside one of IPv6: mapped, by 6to4 (RFC 3056) or by NAT64 (RFC 6052).
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        translated = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF) if found in _NAT64 else None
        if within := found.ipv4_mapped or found.sixtofour or translated:
            found = within
        elif found not in _UNICAST:
            return False
    return found.is_global and not found.is_multicast


class _GuardedBackend(httpcore.SyncBackend):
    def __init__(self, known: frozenset[str]) -> None:
        self._known = known

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        target = host if host in self._known else self._checked(host, port)
        return super().connect_tcp(target, port, timeout, local_address, socket_options)

    def _checked(self, host: str, port: int) -> str:
        try:
            found = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{type(error).__name__}") from None
        if not found or not all(map(is_public, found)):
            raise httpcore.ConnectError("the address lies inside a private network")
        return found[0]


def _trusting(host: str, file: Path) -> ssl.SSLContext:
    try:
        return trusting(file)
    except OSError as error:  # an SSLError is one
        raise Misconfigured(
            f"ca_files: {file} for {host} cannot be read ({type(error).__name__}); name the PEM file of its authority"
        ) from None


class GuardedTransport(httpx.HTTPTransport):
    """Connects only to `known` hosts and to public addresses, and reads no more than `MOST_BYTES` of an answer."""

    def __init__(self, known: frozenset[str], trusted: ssl.SSLContext) -> None:
        super().__init__(verify=trusted)
        self._pool = httpcore.ConnectionPool(ssl_context=trusted, network_backend=_GuardedBackend(known))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        response.stream = _Limited(response.stream)  # type: ignore[arg-type]
        return response


class _Limited(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for piece in self._stream:
            size += len(piece)
            if size > MOST_BYTES:
                raise httpx.ReadError("the answer is too large")
            yield piece

    def close(self) -> None:
        self._stream.close()


def trouble(error: Exception) -> str:
    """What went wrong, and what to do, without an address or a body."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "(its certificate is for another host, or signed by nobody we trust: name its authority in ca_files)"
    return f"({type(error).__name__}); try again"


def get_json(
    http: httpx.Client, url: str, whose: str, headers: dict[str, str] | None = None, *, timeout: float = TIMEOUT
) -> dict[str, Any]:
    """A JSON object from elsewhere; `timeout` in seconds. Raises Unavailable naming `whose` it should have been."""
    try:
        response = http.get(url, headers={"Accept": "application/json"} | (headers or {}), timeout=timeout)
        response.raise_for_status()
        answer = response.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise Unavailable(f"{whose} did not answer usefully {trouble(error)}") from None
    if not isinstance(answer, dict):
        raise Unavailable(f"{whose} answered with something else than a JSON object")
    return answer
