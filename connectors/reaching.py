"""Reaching others: whom TLS trusts, and what stood in the way told so that somebody can mend it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import httpx

from connectors.profile import ProfileError

_ADDRESS: Final = "Check host and port of the profile, and the network; it is tried again."
_CAUSES: Final = (  # the first that fits; SSLError and gaierror are OSErrors
    (ssl.SSLError, "it did not take part in TLS as we do", "See whether that port speaks TLS; it is tried again."),
    (socket.gaierror, "nobody knows that name (DNS)", _ADDRESS),
    (ConnectionRefusedError, "nobody listens there", _ADDRESS),
    (TimeoutError, "no answer", "See whether a firewall is in between; it is tried again."),
)


def trusting(ca: str | Path | None = None) -> ssl.SSLContext:
    """TLS with whoever shows a certificate of the authority in a PEM file, and of no other; without one, of those that
    the public and the operator of this machine trust. Raises OSError."""
    if ca:
        return ssl.create_default_context(cafile=ca)
    context = httpx.create_ssl_context()
    context.load_default_certs()  # the system's, as a hospital's own
    return context


@cache
def usual_tls() -> ssl.SSLContext:
    """`trusting()`, not to be changed: reading all authorities takes some tens of milliseconds, so once is enough."""
    return trusting()


def tls_context(ca_file: str, client_certificate: str) -> ssl.SSLContext:
    """TLS to one destination; both are paths of PEM files or empty. Raises ProfileError naming the file."""
    try:
        context = trusting(ca_file)
    except OSError as error:
        raise _unreadable("ca_file", ca_file, error) from error
    if client_certificate:
        try:
            context.load_cert_chain(client_certificate)
        except OSError as error:
            raise _unreadable("client_certificate", client_certificate, error) from error
    return context


def why_unreachable(error: BaseException) -> tuple[str, str]:
    """What stood in the way, and what to do. Neither holds an address, or a word of the destination's."""
    causes = list(_causes(error))
    for each in causes:
        if isinstance(each, ssl.SSLCertVerificationError):
            remedy = (
                "Name the authority of its certificate as ca_file, or have the certificate mended; it is tried again."
            )
            return f"its certificate is not to be trusted ({each.verify_message})", remedy
        if isinstance(each, ssl.SSLError) and "ALERT_CERTIFICATE_REQUIRED" in str(each).upper():
            return "it wants to see a certificate of ours", "Name it as client_certificate; it is tried again."
    for kind, told, remedy in _CAUSES:
        if any(isinstance(each, kind) for each in causes):
            return told, remedy
    return type(error).__name__, _ADDRESS


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unreadable(key: str, file: str, error: OSError) -> ProfileError:
    why = error.strerror or type(error).__name__
    return ProfileError(f"{key}: {file} is of no use ({why}); name a PEM file that this service can read.")
