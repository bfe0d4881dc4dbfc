"""The private keys by which we identify ourselves to EHRs (private_key_jwt, RFC 7523), and what of them is published
(RFC 7517).

SMART wants RS384 or ES384 and a `kid` that selects one key of the published set; a key without a name of its own is
called by its thumbprint (RFC 7638).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey, import_key

from connectors.contract import DeliveryError, Retry

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS: Final = 240


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with the algorithm that is usual for it."""

    key: RSAKey | ECKey
    algorithm: str
    key_id: str

    def public(self, algorithm: str = "") -> dict[str, Any]:
        """Its entry in a key set."""
        named = {"kid": self.key_id, "use": "sig", "alg": algorithm or self.algorithm}
        return dict(self.key.as_dict(private=False)) | named

    def assertion(self, *, client_id: str, audience: str, at: float, algorithm: str = "", jku: str = "") -> str:
        """A JWT that says who we are to `audience`; from `at` (seconds since 1970) it lives four minutes, and works
        once."""
        signed_with = algorithm or self.algorithm
        header = {"alg": signed_with, "typ": "JWT", "kid": self.key_id} | ({"jku": jku} if jku else {})
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "iat": int(at),
            "exp": int(at) + ASSERTION_SECONDS,
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(header, claims, self.key, algorithms=[signed_with])


def read_signing_key(text: str, key_id: str = "") -> SigningKey:
    """`text` is PEM or JWK. Raises DeliveryError when it is no RSA or EC P-384 private key."""
    for read in _READERS:
        try:
            key = read(text)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, RSAKey) and key.is_private:
            return SigningKey(key, "RS384", key_id or key.kid or key.thumbprint())
        if isinstance(key, ECKey) and key.is_private and key.curve_name == "P-384":
            return SigningKey(key, "ES384", key_id or key.kid or key.thumbprint())
    raise DeliveryError(
        "The private key cannot be used to sign.",
        remedy="Give an RSA or EC P-384 private key as PEM or JWK.",
        retry=Retry.LATER,
    )


def new_signing_key(kind: str) -> str:
    """A fresh private key as PEM: `rsa` (2048 bits) or `ec` (P-384)."""
    key = RSAKey.generate_key(2048) if kind == "rsa" else ECKey.generate_key("P-384")
    return key.as_pem(private=True).decode()


_READERS: Final[tuple[Callable[[str], object], ...]] = (
    lambda text: import_key(json.loads(text)),
    RSAKey.import_key,
    ECKey.import_key,
)
