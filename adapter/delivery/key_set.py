"""The public keys by which destinations verify that it is we who ask (SMART backend services)."""

from __future__ import annotations

from typing import Any

from adapter.bridge import Bridge
from adapter.delivery.destinations import Destinations, known_profiles
from connectors.contract import DeliveryError
from connectors.every_kind import HttpProfile
from connectors.kinds import EhrProfile
from connectors.signing_key import read_signing_key


def published_keys(bridge: Bridge) -> list[dict[str, Any]]:
    """An entry for each key in force and each that follows, once; a secret that cannot be read is left out, and
    `connectors check` says so."""
    secret, found = Destinations(bridge).secret, dict[str, dict[str, Any]]()
    for profile in known_profiles(bridge.settings).values():
        for route in profile.routes if isinstance(profile, EhrProfile) else (profile,):
            if not isinstance(route, HttpProfile) or route.auth.kind != "private_key_jwt":
                continue
            auth = route.auth
            for name, key_id in ((auth.secret, auth.key_id), (auth.next_secret, "")):
                try:
                    entry = read_signing_key(secret(name), key_id).public(auth.algorithm) if name else {}
                except (KeyError, OSError, ValueError, DeliveryError):
                    continue
                found |= {entry["kid"]: entry} if entry else {}
    return list(found.values())
