"""``dermbridge sandbox``: vendors' systems played from data, to rehearse against."""

from __future__ import annotations

import sys
import time
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from adapter.cli import err, group, out
from adapter.errors import BadInput

sandbox = group("sandbox", "Systems to try things against.")


@sandbox.command("ehr")
def sandbox_ehr(
    like: Annotated[str, typer.Option(help="The vendor to play, or a .toml file that describes it.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="HTTP port; 0 takes a free one.")] = 8010,
    mllp_port: Annotated[int, typer.Option(min=0, max=65535, help="MLLP port, where the vendor has one.")] = 8011,
    patient: Annotated[
        list[str] | None, typer.Option(help="A record number it knows, or NUMBER:1970-01-31; may be repeated.")
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(help="What goes wrong, once each, in this order; refuse:409:CODE.")
    ] = None,
    photo: Annotated[
        list[Path] | None, typer.Option(exists=True, dir_okay=False, help="A JPEG in each record already.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Your own profile of that vendor.")
    ] = None,
) -> None:
    """Play a vendor's EHR to rehearse against, and print the destination that reaches it.

    Example: dermbridge sandbox ehr --like epic --profile config/connectors/main-ehr.toml --patient 4711
    """
    from adapter.delivery.rehearsal import get_profile
    from adapter.sandbox.vendors import running_vendor
    from adapter.sandbox.vendors.catalogue import as_toml, get_behaviour, read_fault
    from adapter.sandbox.vendors.photos_there import file_photo

    behaviour = get_behaviour(like)
    patients = [_patient(each) for each in patient or ["4711"]]
    faults = [read_fault(each, behaviour) for each in fault or []]
    own = {"name": get_profile(str(profile)).name, "based_on": str(profile)} if profile else {}
    if photo and not behaviour.tells_photos:
        raise BadInput(f"nobody finds photos of others at {like}; play another vendor, or leave --photo out")
    with running_vendor(like, port=port, mllp_port=mllp_port) as running:
        for number, born in patients:
            running.vendor.admit(number, born, visit=f"V-{number}")
            for one in photo or []:
                file_photo(running.vendor, number, one.read_bytes())
        running.vendor.faults = faults
        err.print(f"{behaviour.name}: {running.vendor.behaviour.about}", highlight=False)
        err.print("its secret: echo x | dermbridge connectors secret simulator; stop it with Ctrl-C\n", highlight=False)
        sys.stdout.write(as_toml(running.destination(behaviour.name) | own) + "\n")
        sys.stdout.flush()
        _report_until_stopped(running.vendor)


def _patient(given: str) -> tuple[str, str]:
    """Record number and birth date, which may be empty. Raises BadInput."""
    number, _, born = given.partition(":")
    try:
        return number, date.fromisoformat(born).isoformat() if born else ""
    except ValueError:
        raise BadInput(f"{given!r}: give NUMBER, or NUMBER:1970-01-31 with the birth date") from None


def _report_until_stopped(vendor: Any) -> None:
    seen, filed = 0, -1
    try:
        while True:
            time.sleep(0.3)
            for method, path in vendor.requests[seen:]:
                out.print(f"{method} {path}", highlight=False)
            seen = len(vendor.requests)
            if filed != (filed := len(vendor.filed())):
                out.print(f"{filed} photos in its charts", highlight=False)
    except KeyboardInterrupt:
        return
