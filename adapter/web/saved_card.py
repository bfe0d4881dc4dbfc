"""A saved comparison as the pages list one."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

from adapter.records import Stored
from adapter.web.photo_card import taken_at
from mappings.comparison_to_observation import verdict_of


def saved_card(saved: Stored, zone: tzinfo) -> dict[str, Any]:
    """A saved comparison in a list: {href, label, verdict, at, by, note}."""
    resource = saved.resource
    site = resource.get("bodySite", {}).get("text")
    return {
        "href": f"/saved-comparisons/{saved.id}",
        "label": f"{site or 'Body site not set'}: {len(resource['derivedFrom'])} photos",
        "verdict": verdict_of(resource),
        "at": taken_at({"createdDateTime": resource["issued"]}, zone),
        "by": resource["performer"][0].get("display"),
        "note": next((one["text"] for one in resource.get("note", ())), None),
    }
