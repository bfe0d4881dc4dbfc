"""Into the EHR and proven there: the outbox, the worker's side of a delivery, receipts and read-back."""

from adapter.delivery.outbox import DeliveryState, deliver_media, deliveries_of, hold, send_again

__all__ = ["DeliveryState", "deliver_media", "deliveries_of", "hold", "send_again"]
