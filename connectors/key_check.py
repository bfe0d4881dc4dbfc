"""Whether the destination can fetch our public keys, where the profile says it does (SMART backend services, 4.1)."""

from __future__ import annotations

from connectors.contract import DeliveryError, Finding
from connectors.kinds import HttpProfile
from connectors.session import Session


def check_keys(profile: HttpProfile, session: Session) -> list[Finding]:
    """One finding when `auth.jwks_url` is set: answered without redirect, with a key of our `kid`."""
    url, kid = profile.auth.jwks_url, profile.auth.key_id
    if not url:
        return []
    try:
        answer = session.bare.request("GET", url, doing="Reading our own key set", write=False)
    except DeliveryError as error:
        return [Finding("our public keys", "error", str(error), "Publish the key set there, reachable by the EHR.")]
    if answer.status != 200:
        return [Finding("our public keys", "error", f"HTTP {answer.status}", "Publish it there without a redirect.")]
    keys = answer.resource().get("keys")
    kids = [each.get("kid") for each in keys if isinstance(each, dict)] if isinstance(keys, list) else []
    if not kids or (kid and kids.count(kid) != 1):
        told = f"no single key named {kid}" if kid else "no key in it"
        return [Finding("our public keys", "error", told, "Publish the public part of the key that signs, once.")]
    return [Finding("our public keys", "ok", f"{len(kids)} published")]
