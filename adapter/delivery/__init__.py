"""Into the EHR and proven there: the outbox, the worker's side of a delivery, receipts and read-back."""

from adapter.delivery.backlog import replay, resume_destination, stop_destination
from adapter.delivery.deliver import deliver
from adapter.delivery.destinations import Destinations
from adapter.delivery.key_set import published_keys
from adapter.delivery.looked import needs_a_look, tell_looked
from adapter.delivery.outbox import (
    DeliveryState,
    deliver_media,
    deliveries_of,
    destination_names,
    hold,
    release_withheld,
    send_again,
    take_back,
)
from adapter.delivery.patient_lookup import AskedEhr, Found, Match, ask_destination, asked_ehrs
from adapter.delivery.photos_elsewhere import (
    WrongPatient,
    address_of,
    fetch_photo,
    get_photo,
    list_photos,
    photo_at,
    photo_destinations,
)
from adapter.delivery.withdrawal import take_back_withdrawn
from connectors.photos_found import Fetched, PhotoFound
from mappings.capture_to_media import is_bound

__all__ = [
    "AskedEhr",
    "DeliveryState",
    "Destinations",
    "Fetched",
    "Found",
    "Match",
    "PhotoFound",
    "WrongPatient",
    "address_of",
    "ask_destination",
    "asked_ehrs",
    "deliver",
    "deliver_media",
    "deliveries_of",
    "destination_names",
    "fetch_photo",
    "get_photo",
    "hold",
    "is_bound",
    "list_photos",
    "needs_a_look",
    "photo_at",
    "photo_destinations",
    "published_keys",
    "release_withheld",
    "replay",
    "resume_destination",
    "send_again",
    "stop_destination",
    "take_back",
    "take_back_withdrawn",
    "tell_looked",
]
