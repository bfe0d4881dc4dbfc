"""``dermbridge sandbox``: vendors' systems played from data, to rehearse against."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from adapter.cli import err, group, out
from adapter.errors import BadInput

sandbox = group("sandbox", "Systems to try things against.")


@sandbox.command("ehr")
def sandbox_ehr(
    like: Annotated[str, typer.Option(help="The vendor to play.")],
    port: Annotated[int, typer.Option(help="HTTP port; 0 takes a free one.")] = 8010,
    mllp_port: Annotated[int, typer.Option(help="MLLP port, where the vendor has one.")] = 8011,
    patient: Annotated[
        list[str] | None, typer.Option(help="A record number it knows, or NUMBER:1970-01-31; may be repeated.")
    ] = None,
    fault: Annotated[list[str] | None, typer.Option(help="What goes wrong, once each, in this order.")] = None,
    photo: Annotated[
        list[Path] | None, typer.Option(exists=True, dir_okay=False, help="A JPEG in each record already.")
    ] = None,
    profile: Annotated[Path | None, typer.Option(exists=True, help="Your own profile of that vendor.")] = None,
) -> None:
    """Play a vendor's EHR to rehearse against, and print the destination that reaches it.

    Example: dermbridge sandbox ehr --like epic --profile config/connectors/main-ehr.toml --patient 4711
    """
    from adapter.sandbox.vendors import Fault, running_vendor
    from adapter.sandbox.vendors.catalogue import as_toml, check_fault, get_behaviour
    from adapter.sandbox.vendors.photos_there import file_photo

    behaviour = get_behaviour(like)
    if photo and not behaviour.tells_photos:
        raise BadInput(f"nobody finds photos of others at {like}; play another vendor, or leave --photo out")
    with running_vendor(like, port=port, mllp_port=mllp_port) as running:
        for each in patient or ["4711"]:
            number, _, born = each.partition(":")
            running.vendor.admit(number, born, visit=f"V-{number}")
            for one in photo or []:
                file_photo(running.vendor, number, one.read_bytes())
        running.vendor.faults = [Fault(check_fault(each), "") for each in fault or []]
        err.print(f"{like}: {running.vendor.behaviour.about}", highlight=False)
        err.print("its secret: echo x | dermbridge connectors secret simulator; stop it with Ctrl-C\n", highlight=False)
        own = {"name": profile.stem, "based_on": str(profile)} if profile else {}
        sys.stdout.write(as_toml(running.destination(like) | own) + "\n")
        sys.stdout.flush()
        _report_until_stopped(running.vendor)


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
