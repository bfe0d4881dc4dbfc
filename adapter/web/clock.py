"""Times as pages tell them."""

from __future__ import annotations

from datetime import datetime

from adapter.bridge import Bridge


def local(bridge: Bridge, at: datetime | None) -> datetime | None:
    """In the site's time zone."""
    return at.astimezone(bridge.settings.zone) if at else None


def age_since(at: datetime, now: datetime) -> str:
    """`12 min`, `3 h`, `5 d`."""
    minutes = max(int((now - at).total_seconds() // 60), 0)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} d"


def period(seconds: float) -> str:
    """`0.8 s`, `12 s`, `3 min`, `5 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, length, most in (("s", 1, 120), ("min", 60, 7200)):
        if seconds < most:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 3600:.0f} h"
