"""An EHR with several ways in: each route in its order, the next one when a route cannot take the photo at all.

Only a refusal (`RouteRefused`) moves on. A destination that is down or slow is waited for: two routes that each got the
photo would be two copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime

from connectors.contract import (
    AsksTogether,
    CannotLook,
    Connector,
    DeliveryError,
    Evidence,
    Finding,
    Parcel,
    Receipt,
    Retry,
    RouteRefused,
    Secrets,
    Tallies,
    utc_now,
)
from connectors.kinds import EhrProfile
from connectors.pace import own_tally
from connectors.registry import open_connector


class InOrder:
    """The connector of kind `ehr`; see `connectors.contract.Connector` for what each method promises."""

    def __init__(
        self, profile: EhrProfile, secrets: Secrets, now: Callable[[], datetime] = utc_now, tallies: Tallies = own_tally
    ) -> None:
        self._routes: list[tuple[tuple[str, ...], Connector]] = [
            (route.route_names, open_connector(route, secrets, now, tallies)) for route in profile.routes
        ]
        # Which route lost an answer, by parcel. Forgotten with the process: then every route is asked.
        self._lost: dict[str, Connector] = {}

    def check(self) -> list[Finding]:
        return [
            replace(finding, subject=f"{'/'.join(names)}: {finding.subject}")
            for names, connector in self._routes
            for finding in connector.check()
        ]

    def find(self, parcel: Parcel) -> Receipt | None:
        asked = self._lost.get(parcel.idempotency_key)
        blind: CannotLook | None = None
        refused: RouteRefused | None = None
        was_asked = False
        for _, connector in self._routes:
            if asked is not None and connector is not asked:
                continue
            try:
                if receipt := connector.find(parcel):
                    return receipt
                was_asked = True
            except CannotLook as error:
                blind = blind or error
            except RouteRefused as error:
                refused = error
        if blind is not None:
            blind.may_resend = blind.may_resend and asked is not None  # else it may be with another route as well
            raise blind
        if refused is not None and not was_asked:  # that nobody answers there is no absence
            raise refused
        self._lost.pop(parcel.idempotency_key, None)
        return None

    def send(self, parcel: Parcel) -> Receipt:
        refused: RouteRefused | None = None
        for names, connector in self._routes:
            # What another route wrote is none of this one's business.
            known = parcel.previous and parcel.previous.route in names
            try:
                receipt = connector.send(parcel if known else replace(parcel, previous=None))
            except RouteRefused as error:
                refused = error
            except DeliveryError as error:
                if error.retry is Retry.UNKNOWN:
                    self._lost[parcel.idempotency_key] = connector
                raise
            else:
                self._lost.pop(parcel.idempotency_key, None)
                return receipt
        assert refused is not None  # a profile has at least one route
        raise refused

    @contextmanager
    def asked_together(self, parcels: Sequence[tuple[Parcel, Receipt | None]]) -> Iterator[None]:
        """What has a receipt is asked of its own route, anything else of the first: few get beyond it."""
        with ExitStack() as stack:
            for names, connector in self._routes:
                is_first = connector is self._routes[0][1]
                mine = [one for one in parcels if (one[1].route in names if one[1] else is_first)]
                if mine and isinstance(connector, AsksTogether):
                    stack.enter_context(connector.asked_together(mine))
            yield

    def read_back(self, parcel: Parcel, receipt: Receipt) -> Evidence | None:
        return self._route_of(receipt).read_back(parcel, receipt)

    def retract(self, parcel: Parcel, receipt: Receipt, reason: str) -> Receipt:
        return self._route_of(receipt).retract(parcel, receipt, reason)

    def close(self) -> None:
        for _, connector in self._routes:
            connector.close()

    def _route_of(self, receipt: Receipt) -> Connector:
        for names, connector in self._routes:
            if receipt.route in names:
                return connector
        raise DeliveryError(
            f"The photo was delivered by {receipt.route!r}, which is no route of this destination any more.",
            remedy="Put that route back into the profile, at its end, then replay.",
            retry=Retry.NEVER,
        )
