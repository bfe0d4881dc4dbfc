"""Whether the destination can fetch our public keys, where the profile says it does (SMART backend services, 4.1)."""

from __future__ import annotations

from connectors.contract import DeliveryError, Finding
from connectors.every_kind import HttpProfile
from connectors.session import Session


def check_keys(profile: HttpProfile, session: Session) -> list[Finding]:
    """One finding when `auth.jwks_url` is set: answered without redirect, with every key of ours once, private parts
    nowhere."""
    url, kid, subject = profile.auth.jwks_url, profile.auth.key_id, "our public keys"
    if not url:
        return []
    try:
        signs = profile.auth.kind == "private_key_jwt"
        ours = [each.key_id for each in session.credentials.signing_keys()] if signs else list(filter(None, [kid]))
        answer = session.bare.request("GET", url, doing="Reading our own key set", write=False)
    except DeliveryError as error:
        remedy = f"Have {url} lead to /.well-known/jwks.json of DermBridge, reachable by the EHR. {error.remedy}"
        return [Finding(subject, "error", str(error), remedy)]
    if answer.status != 200:
        return [Finding(subject, "error", f"HTTP {answer.status}", "Publish it there without a redirect.")]
    keys = answer.resource().get("keys")
    entries = [each for each in keys if isinstance(each, dict)] if isinstance(keys, list) else []
    kids = [each.get("kid") for each in entries]
    if any("d" in each for each in entries):
        return [
            Finding(subject, "error", "a private key is published", "Replace that key now: it is no secret any more.")
        ]
    remedy = "Have it lead to /.well-known/jwks.json of DermBridge, which publishes them."
    if missing := [kid for kid in ours if kids.count(kid) != 1]:
        return [Finding(subject, "error", f"not there exactly once: {', '.join(missing)}", remedy)]
    return [Finding(subject, "ok" if kids else "error", f"{len(kids)} published", "" if kids else remedy)]
