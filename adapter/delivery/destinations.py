"""The configured destinations: each entry of `[[destinations]]` becomes a profile, its connector opened when needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from adapter.bridge import Bridge
from adapter.delivery.allowance import SharedTally
from adapter.errors import Misconfigured, NotFound
from adapter.settings import Settings, environment, settings_file
from connectors.contract import Connector, Tallies
from connectors.every_kind import Profile
from connectors.knob_table import find_unset
from connectors.pace import own_tally
from connectors.patients_found import find_profile
from connectors.photos_found import PhotoSource, open_photo_sources
from connectors.profile import ProfileError, build_profile
from connectors.registry import open_connector

if TYPE_CHECKING:  # speaks HTTP, which a site that asks nobody need not load
    from connectors.patient_query import PatientQuery

SECRET_FOLDERS = (Path("/run/secrets"),)


class Destinations:
    """Connectors by destination name, opened on first use and shared by all threads. `close` ends them."""

    def __init__(self, bridge: Bridge, *, shares: bool = True) -> None:
        """`shares`: what is sent counts in the allowance that all workers share."""
        self._bridge = bridge
        self._shares = shares
        check_names(bridge.settings)
        self._given = {str(entry["name"]): dict(entry) for entry in bridge.settings.destinations}
        self._open: dict[str, Connector] = {}
        self._asked: dict[str, PatientQuery | None] = {}
        self._read: dict[str, tuple[PhotoSource, ...]] = {}
        self._guard = threading.Lock()

    @property
    def names(self) -> list[str]:
        return list(self._given)

    def profile(self, name: str) -> Profile:
        """Raises NotFound, or Misconfigured naming destination, key and remedy."""
        if name not in self._given:
            known = ", ".join(self._given) or "none"
            raise NotFound(f"there is no destination {name!r}; [[destinations]] in the settings names {known}")
        given, settings = self._given[name], self._bridge.settings
        profile, ours = read_destination(given), {}
        if not profile.transform.link_base:  # links lead to where people reach us
            ours["transform"] = given.get("transform", {}) | {"link_base": settings.base_url}
        if "timezone" not in profile.model_fields_set:
            ours["timezone"] = settings.time_zone
        return read_destination(given | ours) if ours else profile

    def get(self, name: str) -> Connector:
        """Raises NotFound or Misconfigured."""
        with self._guard, _told_of(name):
            if name not in self._open:
                self._open[name] = open_connector(
                    self._complete(name), self.secret, self._bridge.now, self._tallies(name)
                )
            return self._open[name]

    def patients(self, name: str) -> PatientQuery | None:
        """Where to ask who a patient is; None when the profile offers no way. Raises NotFound or Misconfigured."""
        from connectors.patient_query import PatientQuery

        with self._guard, _told_of(name):
            if name not in self._asked:
                asked = find_profile(self._complete(name))
                self._asked[name] = PatientQuery(asked, self.secret, self._bridge.now) if asked else None
            return self._asked[name]

    def photos(self, name: str) -> tuple[PhotoSource, ...]:
        """The ways to ask for a patient's photos; none when the profile offers none. Raises NotFound, Misconfigured."""
        with self._guard, _told_of(name):
            if name not in self._read:
                profile = self._complete(name)
                self._read[name] = open_photo_sources(profile, self.secret, self._bridge.now, self._tallies(name))
            return self._read[name]

    def close(self) -> None:
        with self._guard:
            for connector in self._open.values():
                connector.close()
            for asked in filter(None, self._asked.values()):
                asked.close()
            for source in chain.from_iterable(self._read.values()):
                source.close()
            self._open.clear()
            self._asked.clear()
            self._read.clear()

    def _complete(self, name: str) -> Profile:
        """The profile, with nothing left of what a starter profile wants to be set: no "set-me" reaches an EHR."""
        profile = self.profile(name)
        if missing := find_unset(profile):
            remedy = "put this site's values in place of set-me, or leave a route out (routes.KIND = false)"
            raise ProfileError(f"{', '.join(missing)} not set; {remedy}")
        return profile

    def _tallies(self, name: str) -> Tallies:
        if not self._shares:
            return own_tally
        return lambda what: SharedTally(self._bridge.db, f"{name} {what}")

    def secret(self, name: str) -> str:
        """What a file of that name among the secrets holds. Raises KeyError when there is none, OSError."""
        for folder in (self._bridge.settings.data_dir / "secrets", *SECRET_FOLDERS):
            file = folder / Path(name).name
            if file.is_file():
                return file.read_text("utf-8").strip()
        raise KeyError(name)


@contextmanager
def _told_of(name: str) -> Iterator[None]:
    try:
        yield
    except ProfileError as error:
        raise Misconfigured(f"destination {name!r}: {error}") from error


def known_profiles(settings: Settings) -> Mapping[str, Profile]:
    """The profiles of all destinations that can be read, by name; a wrong one is told where it is opened."""
    return _known_profiles(orjson.dumps(settings.destinations, default=str))


@lru_cache(maxsize=8)
def _known_profiles(destinations: bytes) -> Mapping[str, Profile]:
    profiles = {}
    for entry in orjson.loads(destinations):
        with suppress(Misconfigured):
            profiles[str(entry.get("name"))] = read_destination(entry)
    return profiles


def check_destinations(settings: Settings) -> None:
    """Every `[[destinations]]` entry makes a profile, under a name of its own; before anything starts.

    Raises Misconfigured naming the settings file, the entry, its key and the remedy.
    """
    check_names(settings)
    for number, entry in enumerate(settings.destinations, 1):
        try:
            read_destination(entry)
        except Misconfigured as error:
            raise Misconfigured(f"{_place(number)}: {error} (see docs/connectors.md)") from None


def check_names(settings: Settings) -> None:
    """Every `[[destinations]]` entry has a name of its own. Raises Misconfigured."""
    seen = set[str]()
    for number, entry in enumerate(settings.destinations, 1):
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            raise Misconfigured(
                f"{_place(number)}: key 'name' is missing; give the destination a short name of its own"
            )
        if name in seen:
            raise Misconfigured(
                f"{_place(number)}: key 'name': {name!r} is used twice; deliveries are told apart by it, choose another"
            )
        seen.add(name)


def _place(number: int) -> str:
    return f"{settings_file(environment())}: [[destinations]] number {number}"


def read_destination(entry: dict[str, Any]) -> Profile:
    """The profile of one `[[destinations]]` entry: `based_on` and what differs from it. Raises Misconfigured."""
    try:
        return build_profile(entry, source=f"destination {entry.get('name')!r}")
    except ProfileError as error:
        raise Misconfigured(str(error)) from error
