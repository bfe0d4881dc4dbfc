"""The private key by which an EHR that launches us knows us: read from its file, and what of it is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapter.errors import Misconfigured
from adapter.settings import Settings
from connectors.contract import DeliveryError
from connectors.signing_key import ASSERTION_TYPE, SigningKey, read_signing_key

__all__ = ["ASSERTION_TYPE", "public_keys", "signing_key"]


def signing_key(path: Path, key_id: str | None) -> SigningKey:
    """Raises Misconfigured when it cannot sign."""
    try:
        return read_signing_key(path.read_text("ascii"), key_id or "")
    except (OSError, ValueError) as error:
        raise Misconfigured(f"the private key {path} cannot be read ({type(error).__name__})") from None
    except DeliveryError as error:
        raise Misconfigured(f"the private key {path} cannot sign. {error.remedy}") from None


def public_keys(settings: Settings) -> list[dict[str, Any]]:
    """The entries that EHRs verify us by; never a private part."""
    named = {(ehr.private_key, ehr.key_id) for ehr in settings.ehrs if ehr.private_key}
    return [signing_key(path, key_id).public() for path, key_id in sorted(named, key=str)]
