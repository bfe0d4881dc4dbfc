"""Nothing is written: people open the photo in DermBridge, by SMART launch from the chart or by a link."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from connectors.contract import Evidence, Finding, Parcel, Receipt, Secrets, Tallies, utc_now
from connectors.kinds import HandOffProfile
from connectors.outward import link_to
from connectors.parcels import check_parcel


class HandOff:
    """The connector of kind `hand-off`; see `connectors.contract.Connector` for what each method promises."""

    def __init__(
        self,
        profile: HandOffProfile,
        secrets: Secrets | None = None,
        now: Callable[[], datetime] = utc_now,
        tallies: Tallies | None = None,
    ) -> None:
        del secrets, tallies
        self._profile = profile
        self._now = now

    def check(self) -> list[Finding]:
        base = self._profile.transform.link_base
        if base:
            return [Finding("link", "ok", f"people open photos below {base}")]
        return [Finding("link", "warning", "no address for links", "Set transform.link_base to DermBridge's address.")]

    def find(self, parcel: Parcel) -> Receipt | None:
        check_parcel(parcel)
        return None

    def send(self, parcel: Parcel) -> Receipt:
        check_parcel(parcel)
        ids = {"Patient": str(parcel.patient.get("id")), "Media": str(parcel.media.get("id"))}
        return Receipt(
            route="hand-off", ids=ids, location=link_to(parcel, self._profile) or None, received_at=self._now()
        )

    def read_back(self, parcel: Parcel, receipt: Receipt) -> Evidence | None:
        return None

    def retract(self, parcel: Parcel, receipt: Receipt, reason: str) -> Receipt:
        """DermBridge itself shows the photo under its present patient only."""
        return replace(receipt, duplicate=True)

    def close(self) -> None:
        """Nothing is kept open."""
