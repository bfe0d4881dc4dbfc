"""The link to photos elsewhere, for the pages it stands on."""

from __future__ import annotations

from urllib.parse import urlencode

from adapter.access import Actor, can
from adapter.bridge import Bridge
from adapter.delivery import photo_destinations


def elsewhere_href(bridge: Bridge, actor: Actor, patient_id: str, beside: str = "") -> str | None:
    """Where photos elsewhere are listed; None where no destination can be asked, or this user may see no photos."""
    if not can(actor, "s", "Media") or not photo_destinations(bridge.settings):
        return None
    return f"/patients/{patient_id}/elsewhere" + (f"?{urlencode({'beside': beside})}" if beside else "")
