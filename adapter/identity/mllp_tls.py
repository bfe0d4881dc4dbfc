"""TLS for MLLP from PEM files: 1.2 or later with modern ciphers; where a CA is named, the other end is checked."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

from adapter.errors import Misconfigured
from adapter.settings import MllpListener

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption, as Mozilla's intermediate configuration has it."""


def server_tls(listener: MllpListener) -> ssl.SSLContext | None:
    """None without a certificate; senders must show one of their own when `client_ca` is set. Raises Misconfigured."""
    if listener.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(CIPHERS)
    _load(partial(context.load_cert_chain, password=""), listener.certificate, listener.key)
    if listener.client_ca:
        _load(context.load_verify_locations, listener.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls(ca: Path | None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext | None:
    """None without a CA, which must have signed the certificate of the other end. Raises Misconfigured."""
    if ca is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context.load_verify_locations, ca)
    if certificate:
        _load(partial(context.load_cert_chain, password=""), certificate, key)
    return context


def _load(load: Callable[..., None], *files: Path | None) -> None:
    try:
        load(*files)
    except OSError as error:  # also ssl.SSLError: not PEM, or a key that does not fit
        names = " and ".join(str(file) for file in files if file)
        raise Misconfigured(
            f"{names} cannot be used for TLS over MLLP ({error.strerror or error}); it must be PEM, the key unencrypted"
            " and that of the certificate"
        ) from None
