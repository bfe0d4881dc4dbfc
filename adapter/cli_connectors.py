"""``dermbridge connectors``: EHRs connected by configuration, checked, tried and looked after."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from adapter.cli import Json, beside_service, err, group, out, say, show
from adapter.settings import load_settings

connectors = group("connectors", "Destinations: EHRs and archives, connected by profiles, tried and looked after.")
Name = Annotated[str, typer.Argument(help="The destination.")]
Photo = Annotated[str, typer.Argument(help="The photo's id.")]
Born = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Birth date, as 1961-03-12.")]


def day(born: datetime | None) -> str:
    """As FHIR writes it; empty when none was given."""
    return born.date().isoformat() if born else ""


@connectors.command("list")
def connectors_list(as_json: Json = False) -> None:
    """The destinations, their routes, and which are down. Example: dermbridge connectors list"""
    from adapter.delivery.rehearsal import overview

    with beside_service() as bridge:
        rows = overview(bridge)
    show(rows, ["name", "routes", "state"], as_json=as_json, empty="no [[destinations]] are configured")


@connectors.command("new")
def connectors_new(
    name: Annotated[str, typer.Argument(help="The destination's name: lower case, digits, hyphens.")],
    like: Annotated[str, typer.Option(help="The shipped profile to start from.")],
    folder: Annotated[Path, typer.Option(help="Where to put it.")] = Path("config/connectors"),
    as_json: Json = False,
) -> None:
    """Copy a commented starter profile to fill in. Example: dermbridge connectors new main-ehr --like epic"""
    from adapter.delivery.rehearsal import new_profile

    file = new_profile(name, like, folder)
    settings = f'[[destinations]]\nname = "{name}"\nbased_on = "{file}"'
    told = f"wrote {file}: replace every set-me, then add to the settings:\n\n{settings}"
    say(told, as_json=as_json, file=str(file), settings=settings)


@connectors.command("check")
def connectors_check(
    name: Annotated[str, typer.Argument(help="A destination, a shipped profile, or a .toml file.")],
    offline: Annotated[bool, typer.Option(help="Only what the profile says; ask nobody.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also what is in order.")] = False,
    as_json: Json = False,
) -> None:
    """A verdict for each question an EHR answers differently, with remedy; exit 1 when something must be changed.

    Of a shipped profile, or a .toml file, only what it says. Example: dermbridge connectors check main-ehr
    """
    from adapter.delivery.rehearsal import examine_destination, is_question

    with beside_service() as bridge:
        findings = examine_destination(bridge, name, ask=not offline)
    columns = ["subject", "verdict", "detail", "remedy"]
    rows = [{column: getattr(each, column) for column in columns} for each in findings]
    shown = [row for row in rows if everything or as_json or row["verdict"] != "ok" or not is_question(row["subject"])]
    show(shown, columns, as_json=as_json, empty="everything is in order")
    if not as_json:
        in_order = sum(row["verdict"] == "ok" for row in rows)
        out.print(f"{in_order} of {len(rows)} in order" + ("" if everything else "; --all shows them"), highlight=False)
    raise typer.Exit(int(any(row["verdict"] == "error" for row in rows)))


@connectors.command("dry-run")
def connectors_dry_run(
    name: Annotated[str, typer.Argument(help="A destination, a shipped profile, or a .toml file.")],
    media: Annotated[str | None, typer.Option(help="The photo's id; an invented one when left out.")] = None,
    photo: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A file for the invented one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show exactly what would go out, without a connection. Example: dermbridge connectors dry-run hl7v2"""
    from adapter.delivery.rehearsal import dry_run

    with beside_service() as bridge:
        consent, outgoing = dry_run(bridge, name, media_id=media, photo=photo)
    rows = [{"route": each.route, "where": each.where, "what": each.what, "refusal": each.refusal} for each in outgoing]
    if as_json:
        show([{"consent": consent, "outgoing": rows}], [], as_json=True, empty="")
    else:
        err.print(consent, highlight=False)
        for row in rows:
            told = f"{row['where']}\n{row['what']}" if not row["refusal"] else f"would not take it: {row['refusal']}"
            sys.stdout.write(f"--- {row['route']}\n{told}\n\n")
    raise typer.Exit(int(all(row["refusal"] for row in rows)))


@connectors.command("try")
def connectors_try(
    name: Name,
    patient: Annotated[str, typer.Option(help="A test patient's record number, or 'SYSTEM|VALUE'.")],
    born: Born = None,
    visit: Annotated[str, typer.Option(help="A visit number of that patient, or 'SYSTEM|VALUE'.")] = "",
    photo: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Instead of a grey one.")] = None,
    keep: Annotated[bool, typer.Option(help="Leave the photo there.")] = False,
    as_json: Json = False,
) -> None:
    """Put an invented photo into a test patient's record: send it, read it back, send it again, take it back.

    For test systems: it really writes. Example: dermbridge connectors try main-ehr --patient 4711 --visit V-4711
    """
    from adapter.delivery.trial import try_destination

    columns = ["subject", "verdict", "detail", "remedy"]
    with beside_service() as bridge:
        steps = list(
            try_destination(bridge, name, patient=patient, born=day(born), visit=visit, photo=photo, keep=keep)
        )
    rows = [{column: getattr(each, column) for column in columns} for each in steps]
    show(rows, columns, as_json=as_json, empty="")
    raise typer.Exit(int(any(row["verdict"] == "error" for row in rows)))


@connectors.command("secret")
def connectors_secret(
    name: Annotated[str, typer.Argument(help="As the profile names it: auth.secret, auth.next_secret, ...")],
    new_key: Annotated[str, typer.Option(help="rsa or ec: make a private key instead of asking for a secret.")] = "",
    as_json: Json = False,
) -> None:
    """Keep a secret that profiles name, typed or piped in; or make the key by which an EHR knows us.

    Example: dermbridge connectors secret epic_key.pem --new-key rsa
    """
    from adapter.delivery.rehearsal import keep_secret

    text = "" if new_key else typer.prompt(name, hide_input=True) if sys.stdin.isatty() else sys.stdin.read()
    file, public = keep_secret(load_settings(), name, text.strip(), new_key=new_key)
    say(f"kept in {file}", as_json=as_json, file=str(file), public=orjson.loads(public) if public else None)
    if public and not as_json:
        err.print("its public part, which /.well-known/jwks.json publishes once a destination names the key:")
        sys.stdout.write(public + "\n")


@connectors.command("send")
def connectors_send(media: Photo, name: Name, as_json: Json = False) -> None:
    """Put one photo in line for one destination. Example: dermbridge connectors send 0193… main-ehr"""
    from adapter.delivery.rehearsal import send_one

    with beside_service() as bridge, bridge.db.transaction() as tx:
        delivery_id = send_one(tx, bridge, media, name)
    told = f"delivery {delivery_id} is in line; the service or `dermbridge worker` sends it"
    say(told, as_json=as_json, delivery=delivery_id)


@connectors.command("looked")
def connectors_looked(
    media: Photo,
    name: Name,
    there: Annotated[bool, typer.Option("--there/--not-there", help="Not there: it is sent again.")],
    because: Annotated[str, typer.Option(help="What you saw; it stands in the audit log with your name.")],
    as_json: Json = False,
) -> None:
    """Say what you found at a destination that cannot be asked, after an answer was lost.

    Example: dermbridge connectors looked 0193… main-ehr --there --because "in the inbox, 10:42"
    """
    from getpass import getuser

    from adapter.access.actor import SYSTEM
    from adapter.delivery.looked import find_blind, tell_looked

    with beside_service() as bridge, bridge.db.transaction() as tx:
        found = find_blind(tx, media, name)
        tell_looked(tx, bridge, SYSTEM, found, there=there, because=because, by=f"{getuser()} (command line)")
    told = "it counts as arrived" if there else "it is in line again"
    say(told, as_json=as_json, delivery=found, there=there)


@connectors.command("replay")
def connectors_replay(
    name: Name,
    since: Annotated[
        str, typer.Option(help="Also what it accepted from then on: 09:00 (today) or 2026-11-23T09:00, our time zone.")
    ] = "",
    until: Annotated[str, typer.Option(help="Until when, with --since.")] = "",
    as_json: Json = False,
) -> None:
    """Put every failed delivery of a destination in line again, after its cause was mended.

    With --since also what arrived there, as when it was set back to a backup: each photo is looked for, and sent only
    where it is missing. Example: dermbridge connectors replay main-ehr --since 09:00
    """
    from adapter.access.actor import SYSTEM
    from adapter.delivery.backlog import REPLAYED_AT_ONCE, replay
    from adapter.delivery.rehearsal import moment

    count = REPLAYED_AT_ONCE
    with beside_service() as bridge:
        first, last = (moment(bridge, each) if each else None for each in (since, until))
        total = 0
        while count == REPLAYED_AT_ONCE:
            with bridge.db.transaction() as tx:
                count = replay(tx, bridge, SYSTEM, name, since=first, until=last)
            total += count
    say(f"{total} deliveries are in line again", as_json=as_json, deliveries=total)


@connectors.command("stop")
def connectors_stop(
    name: Name,
    because: Annotated[str, typer.Option(help="Shown with everything that waits.")] = "by command line",
    as_json: Json = False,
) -> None:
    """Send nothing more to a destination until `resume`, as while the EHR is down; everything waits in order.

    Example: dermbridge connectors stop main-ehr --because "upgrade until 06:00"
    """
    from adapter.access.actor import SYSTEM
    from adapter.delivery.backlog import stop_destination

    with beside_service() as bridge, bridge.db.transaction() as tx:
        stop_destination(tx, bridge, SYSTEM, name, because=because)
    told = f"nothing more goes to {name} until `dermbridge connectors resume {name}`"
    say(told, as_json=as_json, destination=name, stopped=because)


@connectors.command("resume")
def connectors_resume(name: Name, as_json: Json = False) -> None:
    """Go on with a destination that was stopped, oldest first. Example: dermbridge connectors resume main-ehr"""
    from adapter.access.actor import SYSTEM
    from adapter.delivery.backlog import resume_destination

    with beside_service() as bridge, bridge.db.transaction() as tx:
        count = resume_destination(tx, bridge, SYSTEM, name)
    say(f"{name} goes on; {count} deliveries wait for it", as_json=as_json, destination=name, deliveries=count)


@connectors.command("explain")
def connectors_explain(
    name: Annotated[str, typer.Argument(help="A destination, a shipped profile, or a .toml file.")],
    as_json: Json = False,
) -> None:
    """Every key that is not as by default, with its meaning. Example: dermbridge connectors explain epic"""
    from adapter.delivery.rehearsal import explain_destination

    with beside_service() as bridge:
        told = explain_destination(bridge, name)
    rows: list[dict[str, Any]] = [{"key": key, "value": value, "meaning": meaning} for key, value, meaning in told]
    show(rows, ["key", "value", "meaning"], as_json=as_json, empty="everything is as by default")


@connectors.command("schema")
def connectors_schema() -> None:
    """Print the JSON Schema of profiles, for editors. Example: dermbridge connectors schema > schema.json"""
    from adapter.delivery.rehearsal import profile_schema

    sys.stdout.write(profile_schema())
