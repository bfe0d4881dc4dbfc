"""Into the EHR and proven there: the outbox, the worker's side of a delivery, receipts and read-back."""

from adapter.delivery.deliver import deliver
from adapter.delivery.destinations import Destinations
from adapter.delivery.outbox import (
    DeliveryState,
    deliver_media,
    deliveries_of,
    destination_names,
    hold,
    is_bound,
    release_withheld,
    send_again,
    take_back,
)
from adapter.delivery.patient_lookup import AskedEhr, Found, Match, ask_destination, asked_ehrs

__all__ = [
    "AskedEhr",
    "DeliveryState",
    "Destinations",
    "Found",
    "Match",
    "ask_destination",
    "asked_ehrs",
    "deliver",
    "deliver_media",
    "deliveries_of",
    "destination_names",
    "hold",
    "is_bound",
    "release_withheld",
    "send_again",
    "take_back",
]
