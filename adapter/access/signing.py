"""Proving who we are with a private key (private_key_jwt, SMART asymmetric authentication, RFC 7523)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey, import_key

from adapter.errors import Misconfigured
from adapter.settings import Settings

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS = 240


def client_assertion(path: Path, *, client_id: str, audience: str, key_id: str | None, now: datetime) -> str:
    """A JWT that lives four minutes and works once. Raises Misconfigured when the key cannot sign."""
    key, algorithm = _signing_key(path)
    at = int(now.timestamp())
    header = {"alg": algorithm, "typ": "JWT", "kid": key_id or key.thumbprint()}
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": at,
        "exp": at + ASSERTION_SECONDS,
        "jti": secrets.token_urlsafe(24),
    }
    return jwt.encode(header, claims, key, algorithms=[algorithm])


def public_keys(settings: Settings) -> dict[str, Any]:
    """The key set EHRs verify us by; never a private part."""
    named = {(ehr.private_key, ehr.key_id) for ehr in settings.ehrs if ehr.private_key}
    keys = []
    for path, key_id in sorted(named, key=str):
        key, algorithm = _signing_key(path)
        keys.append(key.as_dict(private=False) | {"kid": key_id or key.thumbprint(), "use": "sig", "alg": algorithm})
    return {"keys": keys}


_READERS: tuple[Callable[[str], object], ...] = (
    lambda text: import_key(json.loads(text)),
    RSAKey.import_key,
    ECKey.import_key,
)


def _signing_key(path: Path) -> tuple[RSAKey | ECKey, str]:
    try:
        text = path.read_text("ascii")
    except (OSError, ValueError) as error:
        raise Misconfigured(f"the private key {path} cannot be read ({type(error).__name__})") from None
    for read in _READERS:
        try:
            key = read(text)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, RSAKey) and key.is_private:
            return key, "RS384"
        if isinstance(key, ECKey) and key.is_private and key.curve_name == "P-384":
            return key, "ES384"
    raise Misconfigured(f"the private key {path} cannot sign; give an RSA or EC P-384 private key as PEM or JWK")
