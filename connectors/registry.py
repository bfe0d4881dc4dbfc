"""Connectors opened by their kind; which module serves which kind stands in `connectors.routes`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

from connectors.contract import Connector, Secrets, Tallies, utc_now
from connectors.every_kind import Profile
from connectors.pace import own_tally
from connectors.profile import ProfileError
from connectors.routes import find_route, load


def open_connector(
    profile: Profile, secrets: Secrets, now: Callable[[], datetime] = utc_now, tallies: Tallies = own_tally
) -> Connector:
    """Open the connector of `profile.kind`. Nothing is sent yet. Raises ProfileError for a kind nobody serves, and
    for certificate files of no use."""
    route = find_route(profile.kind)
    if route is None:
        raise ProfileError(f"{profile.name}: no connector serves kind {profile.kind!r}.")
    opened: Connector = load(route.connector)(profile, secrets, now, tallies)
    if getattr(profile, "consent_strategy", "") != "document":
        return opened
    from connectors.consents_first import ConsentsFirst, for_consents

    documents = open_connector(for_consents(profile), secrets, now, tallies)
    return ConsentsFirst(opened, documents, ZoneInfo(profile.timezone))
