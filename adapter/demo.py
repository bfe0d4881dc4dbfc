"""The main job, end to end, on real input: `dermbridge demo`.

Starts the service and a sandbox EHR beside it, then does what a hospital would: ADT announces a patient, phone photos
arrive with consent, are kept, delivered into the EHR, read back and shown there; a second visit; a merge by A40; a
comparison. Every step prints the proof it saw from outside, over HTTP and MLLP; the first that fails ends the demo.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import orjson
import uvicorn
from PIL import ExifTags, Image
from rich.console import Console

from adapter.access.tokens import issue_token
from adapter.bridge import Bridge
from adapter.errors import DermBridgeError, Unavailable
from adapter.logs import configure_logs
from adapter.records import find_by_identifier
from adapter.sandbox import adt
from adapter.sandbox.app import build_sandbox
from adapter.sandbox.ehr import AUTHORITY, MRN_SYSTEM, PEOPLE, VISIT_SYSTEM, SandboxEhr, SandboxSettings, open_ehr
from adapter.sandbox.views import draw_view
from adapter.serve import http_server, open_prepared
from adapter.settings import Settings, load_settings

FOREARM = "70559009"
PATIENCE_SECONDS = 60
_ROLES = ("clinician", "photographer", "engineer", "privacy-officer")


class DemoFailed(DermBridgeError):
    """A step did not show what it promised."""


@dataclass
class Story:
    """What the steps share: a client of the service, a client of the EHR's API, and what was seen so far."""

    bridge: Bridge
    ehr: SandboxEhr
    feed: adt.Feed
    http: httpx.Client
    console: Console
    patients_of_ehr: list[str] = field(default_factory=list)
    number: int = 0

    def register(self, family: str, given: str, *, visit_at: datetime | None = None) -> str:
        """A patient in the EHR, announced by ADT; returns the MRN. Raises Unavailable when the ADT was not taken."""
        person = {"family": family, "given": given, "birth_date": "1968-04-17", "sex": "F"}
        stored = adt.register(self.ehr, self.feed, person, visit_at=visit_at)
        self.patients_of_ehr.append(stored.id)
        return adt.mrn_of(stored.resource)

    def start_visit(self, visit_at: datetime) -> None:
        """The first patient comes again. Raises Unavailable when the ADT was not taken."""
        adt.start_visit(self.ehr, self.feed, self.patients_of_ehr[0], visit_at=visit_at)

    def filed(self, media_id: str) -> int:
        """How often the EHR holds this photo in a patient's record."""
        with self.ehr.bridge.db.snapshot() as tx:
            found = find_by_identifier(tx, "Media", "urn:ietf:rfc:3986", f"urn:uuid:{media_id}")
        return sum(one.resource["status"] == "completed" for one in found)

    def step(self, title: str) -> None:
        self.number += 1
        self.console.print(f"\n[bold cyan]{self.number:2}[/] [bold]{title}[/]")

    def proof(self, text: str) -> None:
        self.console.print(f"   [green]✓[/] {text}", highlight=False, soft_wrap=True)  # an address stays whole

    def check(self, holds: bool, promise: str) -> None:
        if not holds:
            raise DemoFailed(f"step {self.number}: expected that {promise}")
        self.proof(promise)

    def get(self, path: str, **params: Any) -> httpx.Response:
        response = self.http.get(path, params=params)
        if response.status_code != 200:
            raise DemoFailed(f"step {self.number}: GET {path} answered {response.status_code}: {response.text[:200]}")
        return response

    def search(self, resource_type: str, **params: Any) -> list[dict[str, Any]]:
        bundle = self.get(f"/fhir/{resource_type}", **params).json()
        return [entry["resource"] for entry in bundle.get("entry", [])]

    def wait_for(self, what: str, look: Callable[[], Any]) -> Any:
        """Poll until `look` is true; the answer to "is it there yet" is never assumed."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            if found := look():
                return found
            time.sleep(0.05)
        raise DemoFailed(f"step {self.number}: {what} did not happen within {PATIENCE_SECONDS} s")

    def capture(self, data: bytes, content_type: str, **metadata: Any) -> dict[str, Any]:
        """Upload as a phone does: raw body, metadata, idempotency key and digest."""
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        described = base64.urlsafe_b64encode(orjson.dumps(metadata)).rstrip(b"=").decode()
        response = self.http.post(
            "/captures",
            content=data,
            headers={
                "Content-Type": content_type,
                "DermBridge-Metadata": described,
                "Idempotency-Key": str(uuid.uuid4()),
                "Repr-Digest": f"sha-256=:{digest}:",
            },
        )
        if response.status_code not in (201, 202):
            raise DemoFailed(f"step {self.number}: the capture was refused: {response.text[:300]}")
        answer: dict[str, Any] = response.json()
        return answer

    def confirmed(self, capture_id: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            status: dict[str, Any] = self.get(f"/captures/{capture_id}").json()
            states = [one["state"] for one in status["deliveries"]]
            if "failed" in states:
                raise DemoFailed(f"step {self.number}: the delivery failed: {status['deliveries']}")
            return status if states and set(states) == {"confirmed"} else None

        found: dict[str, Any] = self.wait_for("read-back from the EHR", look)
        return found


def run_demo(*, once: bool, data_dir: Path | None = None) -> None:
    """Run the story; unless `once`, keep serving afterwards. Raises DemoFailed at the first broken promise."""
    configure_logs(least=logging.WARNING)  # the story is told, not the log
    console = Console()
    began = time.monotonic()
    folder = (data_dir or Path("var/demo")) / f"{datetime.now():%Y%m%d-%H%M%S}"  # noqa: DTZ005 (a folder's name)
    try:
        own = load_settings()  # of a site: nothing but its ports
        with running_demo(folder, console, (own.http_port + 1, own.http_port, own.mllp_port)) as story:
            tell(story)
            console.print(f"\n[bold green]Every promise held[/] in {time.monotonic() - began:.1f} s.")
            if not once:
                origin = story.ehr.settings.origin
                console.print(f"Open the EHR at {origin}, choose a user and a patient. Ctrl-C ends.", soft_wrap=True)
                threading.Event().wait()
    except KeyboardInterrupt:
        console.print(f"\nended; everything is kept under {folder}")


@contextmanager
def running_demo(folder: Path, console: Console, ports: tuple[int, int, int] = (0, 0, 0)) -> Iterator[Story]:
    """The service and the sandbox EHR, connected and serving on loopback, with a client that may capture.

    `ports` are those wanted for EHR, DermBridge and MLLP; a taken one, or 0, becomes any free one. Raises Unavailable.
    """
    http_port, bridge_port, mllp_port = map(_free_port, ports)
    sandbox = SandboxSettings(
        data_dir=folder / "ehr",
        http_port=http_port,
        dermbridge_url=f"http://127.0.0.1:{bridge_port}",
        mllp_port=mllp_port,
    )
    with ExitStack() as ending:
        ehr = open_ehr(sandbox)
        ending.callback(ehr.bridge.close)
        ehr_app = build_sandbox(sandbox, ehr)  # writes the secret of its backend client
        bridge = open_prepared(_demo_settings(folder, sandbox))
        ending.callback(bridge.close)
        ehr_server = uvicorn.Server(uvicorn.Config(ehr_app, port=http_port, log_level="warning"))
        ending.enter_context(_serving(ehr_server, "sandbox EHR"))
        ending.enter_context(_serving(http_server(bridge, everything=True), "DermBridge"))
        with bridge.db.transaction() as tx:
            scope = "system/Media.cruds system/Consent.c system/*.rs"
            _, secret = issue_token(tx, name="demo phone", scope=scope, at=bridge.now(), lifetime=timedelta(days=1))
        headers = {"Authorization": f"Bearer {secret}"}
        http = ending.enter_context(httpx.Client(base_url=bridge.settings.base_url, headers=headers, timeout=30))
        yield Story(bridge, ehr, adt.Feed(sandbox.mllp_host, sandbox.mllp_port), http, console)


def _demo_settings(folder: Path, sandbox: SandboxSettings) -> Settings:
    """DermBridge as a site would configure it: one EHR that may launch it, one destination."""
    secret_file = folder / "dermbridge" / "secrets" / "sandbox"
    secret_file.parent.mkdir(parents=True, mode=0o700)
    secret_file.write_text((sandbox.data_dir / "backend.secret").read_text())
    secret_file.chmod(0o600)
    roles = dict(zip((p.reference for p in PEOPLE.values()), _ROLES, strict=True))
    return load_settings(
        environment={},
        data_dir=folder / "dermbridge",
        http_port=int(sandbox.dermbridge_url.rpartition(":")[2]),
        mllp_port=sandbox.mllp_port,
        site_name="Demo Hospital",
        identifier_systems={AUTHORITY: MRN_SYSTEM},
        visit_systems={AUTHORITY: VISIT_SYSTEM},
        default_authority=AUTHORITY,
        ehrs=[
            {
                "name": "Sandbox EHR",
                "iss": sandbox.fhir_base,
                "client_id": sandbox.client_id,
                "frame_ancestors": [sandbox.origin],
                "identifier_systems": [MRN_SYSTEM],
                "roles": roles,
            }
        ],
        destinations=[
            {
                "name": "sandbox",
                "based_on": "sandbox",
                "base_url": sandbox.fhir_base,
                "auth": {
                    "kind": "client_secret_basic",
                    "client_id": sandbox.backend_client_id,
                    "secret": "sandbox",
                    "token_url": f"{sandbox.origin}/token",
                    "scope": "system/*.cruds",
                },
            }
        ],
    )


def tell(story: Story) -> None:
    """The story itself."""
    patient, first = first_visit(story)
    second = second_visit(story, patient, first)
    merged_patient(story, patient)
    comparison(story, first, second)
    evidence(story, first)


def first_visit(story: Story) -> tuple[str, str]:
    """Returns (patient id, Media id)."""
    story.step("A patient is announced by ADT over MLLP")
    mrn = story.register("Lindström", "Åsa", visit_at=_ago(days=150))
    story.proof(f"A04 for {mrn} was acknowledged")
    patients = story.wait_for("the patient", lambda: story.search("Patient", identifier=f"{MRN_SYSTEM}|{mrn}"))
    patient = patients[0]["id"]
    story.proof(f"Patient/{patient} is known, with her visit {story.search('Encounter', patient=patient)[0]['id']}")

    story.step("A phone photo is captured, with consent")
    photo = draw_view(11, taken_at=_ago(days=150))
    answer = story.capture(
        photo,
        "image/jpeg",
        patient={"system": MRN_SYSTEM, "value": mrn, "birthDate": "1968-04-17"},
        body_site=FOREARM,
        laterality="left",
        view="regional",
        consent={"verbal": {"treatment-documentation": "permit"}},
    )
    media = str(answer["id"])
    story.check(answer["identity"] == "bound", f"Media/{media} is durable and bound to her")
    story.proof(f"consent: {answer['consent']['because']}")
    return patient, media


def second_visit(story: Story, patient: str, first: str) -> str:
    """Delivery of the first photo, then a second one months later. Returns its Media id."""
    story.step("It is kept encrypted; what leaves is stripped of place and device")
    resource = story.get(f"/fhir/Media/{first}").json()
    clean = story.get(f"/fhir/{resource['content']['url']}").content
    story.check(b"SN-0000-SANDBOX" not in clean, "the served copy holds no serial number")
    story.check(b"GPS" not in clean and _gps_of(clean) == {}, "the served copy holds no position")
    story.check(not _in_files(story.bridge.settings.data_dir, clean[2000:2064]), "no file on disk holds clear pixels")

    story.step("It is delivered into the EHR and read back from there")
    story.confirmed(first)
    story.check(story.filed(first) == 1, "the EHR holds it exactly once: in chart")

    story.step("Months later, a second visit and photos of the same place")
    story.start_visit(_ago(days=1, hours=1))
    story.wait_for("the second visit", lambda: len(story.search("Encounter", patient=patient)) == 2)
    photo = draw_view(11, taken_at=_ago(days=1), lesion_growth=1.4)
    answer = story.capture(
        photo, "image/jpeg", patient=f"Patient/{patient}", body_site=FOREARM, laterality="left", view="regional"
    )
    dermoscopy = (files("adapter") / "sandbox/photos/ISIC_0009995.jpg").read_bytes()
    close = story.capture(
        dermoscopy, "image/jpeg", patient=f"Patient/{patient}", body_site=FOREARM, laterality="left", view="dermoscopic"
    )
    for one in (answer, close):
        story.confirmed(one["id"])
    story.check(len(story.search("Media", patient=patient)) == 3, "her timeline holds three photos, all in chart")
    return str(answer["id"])


def merged_patient(story: Story, patient: str) -> None:
    story.step("A photo taken under a duplicate record; A40 merges the two")
    mrn = story.register("Lindstrom", "Asa")
    duplicate = story.wait_for("the duplicate", lambda: story.search("Patient", identifier=f"{MRN_SYSTEM}|{mrn}"))[0]
    stray = story.capture(
        (files("adapter") / "sandbox/photos/ISIC_0010459.jpg").read_bytes(),
        "image/jpeg",
        patient=f"Patient/{duplicate['id']}",
        body_site=FOREARM,
        view="dermoscopic",
    )
    story.confirmed(stray["id"])
    adt.merge(story.ehr, story.feed, story.patients_of_ehr[0], source_mrn=mrn)
    story.proof("A40 was acknowledged")
    reference = f"Patient/{patient}"
    story.wait_for(
        "the merge", lambda: story.get(f"/fhir/Media/{stray['id']}").json()["subject"].get("reference") == reference
    )
    story.confirmed(stray["id"])
    story.check(len(story.search("Media", patient=patient)) == 4, "all four photos are hers now")
    story.check(story.filed(stray["id"]) == 1, "the EHR holds the moved one exactly once, under her")


def comparison(story: Story, first: str, second: str) -> None:
    story.step("Side by side, and in the EHR's own chart")
    page = story.http.get("/compare", params=[("media", first), ("media", second)], headers={"Accept": "text/html"})
    story.check(page.status_code == 200 and first in page.text, "the comparison page shows both")
    story.check(story.filed(first) == 1, f"the EHR's chart shows it: {story.ehr.settings.origin}")
    story.proof(f"{story.bridge.settings.base_url}/compare?media={first}&media={second}")


def evidence(story: Story, media: str) -> None:
    story.step("Who did what is on record")
    events = story.search("AuditEvent", entity=f"Media/{media}", _count="50")
    story.check(len(events) >= 3, f"{len(events)} audit events tell of Media/{media}")
    story.check(bool(story.search("Provenance", target=f"Media/{media}")), "its Provenance names who took it")


def _ago(**span: float) -> datetime:
    return datetime.now().astimezone() - timedelta(**span)


def _gps_of(data: bytes) -> dict[Any, Any]:
    return dict(Image.open(io.BytesIO(data)).getexif().get_ifd(ExifTags.IFD.GPSInfo))


def _in_files(folder: Path, needle: bytes) -> bool:
    return any(needle in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def _free_port(wanted: int) -> int:
    """The usual port, or any other when something listens there already."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Unavailable("no port is free on 127.0.0.1")


@contextmanager
def _serving(server: uvicorn.Server, name: str) -> Iterator[None]:
    """The server in a thread of its own, taking requests until the block ends."""
    thread = threading.Thread(target=server.run, name=name, daemon=True)
    thread.start()
    until = time.monotonic() + PATIENCE_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > until:
            raise Unavailable(f"{name} did not start")
        time.sleep(0.02)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(10)
