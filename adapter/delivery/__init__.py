"""Into the EHR and proven there: the outbox, the worker's side of a delivery, receipts and read-back."""

from adapter.delivery.deliver import deliver
from adapter.delivery.destinations import Destinations
from adapter.delivery.ledger import attempts_of, count_deliveries, list_deliveries
from adapter.delivery.outbox import (
    DeliveryState,
    deliver_media,
    deliveries_of,
    hold,
    release_withheld,
    send_again,
    take_back,
)

__all__ = [
    "DeliveryState",
    "Destinations",
    "attempts_of",
    "count_deliveries",
    "deliver",
    "deliver_media",
    "deliveries_of",
    "hold",
    "list_deliveries",
    "release_withheld",
    "send_again",
    "take_back",
]
