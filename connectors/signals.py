"""What a destination's own codes mean: a table of the profile, looked at before the general meaning of statuses.

Only codes the profile lists are repeated in reasons; anything else in an answer is remote text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Final

from connectors.contract import AlreadyThere, DeliveryError, Retry, RouteRefused, SignInAgain
from connectors.knobs import Signal

_REMEDY: Final = {
    "duplicate": "Nothing to do: the destination says it has it, and is asked for it.",
    "never": "See what this code means at the destination, correct it, then replay.",
    "later": "Nothing to do: it is tried again.",
    "look": "Nothing to do: the destination is asked what it holds before anything is sent again.",
    "next-day": "Nothing to do: the destination's quota of today is used up, it is tried again after midnight GMT.",
    "next-minute": "Nothing to do: it is tried again in the next minute.",
    "next-route": "Choose another route in the profile.",
    "sign-in": "Check auth.client_id and its secret; deliveries go on once they are accepted.",
}


def codes_at(body: Any, paths: Iterable[str]) -> set[str]:
    """The texts at dotted `paths` of a JSON answer; a path through a list looks into every entry."""
    return {str(value) for path in paths for value in _at(body, path.split(".")) if isinstance(value, (str, int))}


def _at(node: Any, names: list[str]) -> Iterator[Any]:
    if isinstance(node, list):
        for each in node:
            yield from _at(each, names)
    elif not names:
        yield node
    elif isinstance(node, dict) and names[0] in node:
        yield from _at(node[names[0]], names[1:])


def find_signal(signals: Iterable[Signal], status: int | None, codes: set[str]) -> Signal | None:
    """The first signal that fits. One without a code fits only refusals."""
    for signal in signals:
        fits_code = any(fnmatchcase(code, signal.code) for code in codes) if signal.code else True
        if fits_code and signal.status in {None, status}:
            return signal
    return None


def as_error(signal: Signal, *, doing: str, now: datetime) -> DeliveryError:
    """The error that says what the profile knows of this answer."""
    told = " ".join(
        filter(None, [f"HTTP {signal.status}" if signal.status else "", signal.code and f"code {signal.code}"])
    )
    reason = f"{doing} was answered with {told}."
    remedy = signal.remedy or _REMEDY[signal.means]
    if signal.means == "duplicate":
        return AlreadyThere(reason, remedy=remedy, retry=Retry.UNKNOWN)
    if signal.means == "next-route":
        return RouteRefused(reason, remedy=remedy, retry=Retry.NEVER)
    if signal.means == "sign-in":
        return SignInAgain(reason, remedy=remedy, retry=Retry.LATER)
    waits = {"next-day": seconds_to_midnight(now), "next-minute": seconds_to_minute(now)}
    retry = {"never": Retry.NEVER, "look": Retry.UNKNOWN}.get(signal.means, Retry.LATER)
    wait = waits.get(signal.means)
    return DeliveryError(reason, remedy=remedy, retry=retry, retry_after=wait, at_most=signal.at_most)


def seconds_to_midnight(now: datetime) -> float:
    """Until the next midnight GMT, and a little."""
    tomorrow = (now.astimezone(UTC) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (tomorrow - now).total_seconds() + 60


def seconds_to_minute(now: datetime) -> float:
    """Until the next full minute, and a little."""
    return 61.0 - now.second - now.microsecond / 1e6
