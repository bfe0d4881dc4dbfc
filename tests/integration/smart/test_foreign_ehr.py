"""DermBridge launched from, and staff signed in at, an authorization server that is not ours: npm's `oidc-provider`.

`ehr.mjs` plays the EHR, and DermBridge knows of it by its settings alone. Needs Node.js 20 or later and `npm ci` in
this folder; without them the tests are skipped with that sentence.
"""

from __future__ import annotations

import json
import os
import select as waiting
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from joserfc.jwk import ECKey, RSAKey
from sqlalchemy import select

from adapter.access.ehr_grants import unseal
from adapter.access.oauth import exchange, post_as
from adapter.access.smart import EhrGrant, registration_of
from adapter.bridge import Bridge
from adapter.db.tables import session
from adapter.errors import Forbidden
from adapter.records import find_where
from adapter.settings import load_settings
from tests.sandbox.conftest import free_port
from tests.servers.dermbridge import dermbridge
from tests.web.conftest import Browser, picture

pytestmark = pytest.mark.real

HERE = Path(__file__).parent
START_SECONDS, STARTS = 30, 3
SECRET = "a:secret+of/32=letters%or more&"  # every part of which must be encoded before it is joined
KEYS: dict[str, Any] = {"ES384": ECKey.generate_key("P-384"), "RS384": RSAKey.generate_key(2048)}
PROOFS = ["client_secret_basic", *KEYS, "none"]
ROLES = {"privacy": "privacy-officer", "derm": "clinician"}
STAFF = {"name": "hospital", "client_id": "staff", "client_secret": SECRET, "roles": ROLES}


class Tls(NamedTuple):
    """A private authority, and what it signed for both servers: certificate and key in one file."""

    authority: Path
    server: Path


class Foreign:
    """The EHR's addresses, and how to open DermBridge beside it."""

    def __init__(self, folder: Path, port: int, ours: int, doors: ExitStack, tls: Tls | None = None) -> None:
        self.folder, self._port, self._doors, self._tls = folder, ours, doors, tls
        scheme = "https" if tls else "http"
        self.ours, self.origin = f"{scheme}://127.0.0.1:{ours}", f"{scheme}://127.0.0.1:{port}"
        self.iss = f"{self.origin}/fhir"

    def registration(self, client_id: str) -> dict[str, Any]:
        """Of DermBridge at this EHR, as [[ehrs]] says it."""
        proof = {"client_secret": SECRET} if client_id == "client_secret_basic" else {}
        if client_id in KEYS:
            (self.folder / "key.pem").write_bytes(KEYS[client_id].as_pem(private=True))
            proof = {"private_key": str(self.folder / "key.pem")}
        return {"name": "Otherwhere", "iss": self.iss, "client_id": client_id, "callback": "otherwhere"} | proof

    def bridge(self, client_id: str = "client_secret_basic", /, *, trusts: bool = True, **options: Any) -> Bridge:
        settings = load_settings(
            environment={},
            data_dir=self.folder / "ours",
            http_port=self._port,
            public_url=self.ours,
            ca_files={"127.0.0.1": self._tls.authority} if self._tls and trusts else {},
            ehrs=[self.registration(client_id) | options],
            staff_logins=[STAFF | {"issuer": self.origin}],
        )
        return self._doors.enter_context(dermbridge(settings, certificate=self._tls and self._tls.server))

    def launch(self, browser: httpx.Client, launch: str | None = "chart", change: Any = None) -> httpx.Response:
        query = {"iss": self.iss} | ({"launch": launch} if launch else {})
        return walk(browser, f"{self.ours}/launch?{urlencode(query)}", change)


def walk(browser: httpx.Client, url: str, change: Callable[[str], str] | None = None) -> httpx.Response:
    """To where the redirects end; `change` is somebody between, who alters where they lead."""
    answer = browser.get(url)
    while answer.next_request is not None:
        following = str(answer.next_request.url)
        answer = browser.get(change(following) if change else following)
    return answer


def altered(path: str, **changed: str) -> Callable[[str], str]:
    """Changes these parameters of the one address with this path."""

    def change(url: str) -> str:
        parts = urlsplit(url)
        if parts.path != path:
            return url
        return parts._replace(query=urlencode(dict(parse_qsl(parts.query)) | changed)).geturl()

    return change


def clients(ours: str) -> list[dict[str, Any]]:
    """What this EHR's operator was told about us."""
    launched: dict[str, Any] = {"redirect_uris": [f"{ours}/callback/otherwhere"]}
    keys = {"token_endpoint_auth_method": "private_key_jwt"}
    keys["jwks_uri"] = f"{ours}/.well-known/jwks.json"
    secret = {"client_secret": SECRET, "token_endpoint_auth_method": "client_secret_basic"}
    return [
        launched | {"client_id": "client_secret_basic"} | secret,
        *(launched | {"client_id": alg, "token_endpoint_auth_signing_alg": alg} | keys for alg in KEYS),
        launched | {"client_id": "none", "token_endpoint_auth_method": "none"},
        {"redirect_uris": [f"{ours}/callback"], "client_id": "staff"} | secret,
    ]


@contextmanager
def running(port: int, ours: str, seconds: int, tls: Tls | None = None) -> Iterator[None]:
    node = shutil.which("node")
    if node is None or not (HERE / "node_modules" / "oidc-provider").is_dir():
        reason = f"no oidc-provider here: install Node.js 20 or later and run npm ci in {HERE}"
        (pytest.fail if os.environ.get("DERMBRIDGE_REQUIRE_REAL") else pytest.skip)(reason)
    told = {"port": port, "clients": clients(ours), "seconds": seconds} | ({"tls": str(tls.server)} if tls else {})
    trusts = os.environ | ({"NODE_EXTRA_CA_CERTS": str(tls.authority)} if tls else {})
    command = [node, "ehr.mjs", json.dumps(told)]
    ehr = started(command, trusts)
    try:
        yield
    finally:
        ehr.terminate()
        ehr.communicate(timeout=10)


def started(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Node has been seen to wait for itself for ever as it starts: such a one is ended, and another started."""
    for _ in range(STARTS):
        ehr = subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True, env=environment)
        assert ehr.stdout is not None
        if waiting.select([ehr.stdout], [], [], START_SECONDS)[0]:
            assert ehr.stdout.readline() == "ready\n"
            return ehr
        ehr.kill()
        ehr.communicate()
    pytest.fail(f"{command[1]} did not start in {START_SECONDS} s, {STARTS} times over")


@pytest.fixture
def seconds() -> int:
    """How long an access token of the EHR lasts."""
    return 3600


@pytest.fixture
def foreign(tmp_path: Path, seconds: int) -> Iterator[Foreign]:
    port, ours = free_port(), free_port()
    with running(port, f"http://127.0.0.1:{ours}", seconds), ExitStack() as doors:
        yield Foreign(tmp_path, port, ours, doors)


@pytest.fixture
def browser() -> Iterator[httpx.Client]:
    with httpx.Client(headers={"Accept": "text/html"}, timeout=30) as opened:
        yield opened


def grant_of(bridge: Bridge) -> EhrGrant:
    with bridge.db.snapshot() as tx:
        sealed = tx.execute(select(session.c.ehr_grant)).scalar_one()
    grant = unseal(bridge, sealed)
    assert grant is not None
    return grant


def until_expiry(bridge: Bridge) -> None:
    time.sleep(max(0.0, (grant_of(bridge).expires_at - bridge.now()).total_seconds()) + 0.1)


def csrf_of(page: httpx.Response) -> str:
    return page.text.partition('name="csrf_token" value="')[2].partition('"')[0]


def person(foreign: Foreign, browser: httpx.Client, home: httpx.Response) -> Browser:
    browser.base_url = httpx.URL(foreign.ours)
    return Browser(browser, csrf_of(home))


# --- launches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client_id", PROOFS)
def test_a_launch_confines_to_the_chart_shows_its_banner_and_takes_over_its_visit(
    foreign: Foreign, browser: httpx.Client, client_id: str
) -> None:
    bridge = foreign.bridge(client_id)
    home = foreign.launch(browser)
    assert home.status_code == 200, home.text
    assert "/patients/" in str(home.url)
    assert 'class="banner"' in home.text and "NAKASHIMA" in home.text and "Dr. Inés Rivera" in home.text
    captured = person(foreign, browser, home).capture(picture())
    assert captured.status_code == 201, captured.text
    with bridge.db.snapshot() as tx:
        (media,) = (one.resource for one in find_where(tx, "Media"))
        (visit,) = (one for one in find_where(tx, "Encounter"))
    assert media["encounter"]["reference"] == f"Encounter/{visit.id}"
    assert visit.resource["identifier"][0]["value"] == "V-9"
    with httpx.Client(headers={"Accept": "text/html"}, timeout=30) as another:
        elsewhere = str(foreign.launch(another, None).url)
    assert browser.get(elsewhere).status_code == 404


def test_an_ehr_that_shows_the_patient_itself_is_left_to_do_so(foreign: Foreign, browser: httpx.Client) -> None:
    foreign.bridge()
    home = foreign.launch(browser, "framed")
    assert home.status_code == 200 and 'class="banner"' not in home.text


@pytest.mark.parametrize("client_id", ["client_secret_basic", "RS384"])
def test_a_standalone_launch_opens_the_patient_who_was_chosen_there(
    foreign: Foreign, browser: httpx.Client, client_id: str
) -> None:
    foreign.bridge(client_id)
    home = foreign.launch(browser, None)
    assert home.status_code == 200 and "BRANDT" in home.text


# --- how long -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [2])
@pytest.mark.parametrize("client_id", PROOFS)
def test_the_session_goes_on_with_each_rotated_token_until_logout_which_the_ehr_hears_of(
    foreign: Foreign, browser: httpx.Client, client_id: str
) -> None:
    bridge = foreign.bridge(client_id)
    home = foreign.launch(browser)
    tokens = [grant_of(bridge).refresh_token]
    for _ in range(2):
        until_expiry(bridge)
        assert browser.get(home.url).status_code == 200
        tokens.append(grant_of(bridge).refresh_token)
    assert len(set(tokens)) == 3
    out = person(foreign, browser, home).post("/logout")
    assert out.status_code == 303, out.text
    assert browser.get(home.url).status_code == 401
    registration = registration_of(bridge, bridge.settings.ehrs[0])
    again = {"grant_type": "refresh_token", "refresh_token": tokens[-1]}
    with httpx.Client() as http, pytest.raises(Forbidden, match="refused"):
        exchange(http, registration, {"token_endpoint": f"{foreign.origin}/token"}, again, bridge.now())


@pytest.mark.parametrize("seconds", [2])
def test_the_session_ends_when_the_ehr_takes_back_what_it_granted(foreign: Foreign, browser: httpx.Client) -> None:
    bridge = foreign.bridge()
    home, grant = foreign.launch(browser), grant_of(bridge)
    with httpx.Client() as http:
        form, url = {"token": grant.refresh_token}, str(grant.revocation_endpoint)
        registration = registration_of(bridge, bridge.settings.ehrs[0])
        post_as(http, registration, url, form, audience=url, now=bridge.now()).raise_for_status()
    assert browser.get(home.url).status_code == 200
    until_expiry(bridge)
    assert browser.get(home.url).status_code == 401


# --- what is refused ------------------------------------------------------------------------------------------------


def test_an_ehr_that_nobody_registered_is_asked_nothing(foreign: Foreign, browser: httpx.Client) -> None:
    foreign.bridge()
    answer = walk(browser, f"{foreign.ours}/launch?iss={foreign.origin}/other&launch=chart")
    assert answer.status_code == 403 and "[[ehrs]]" in answer.text


BETWEEN = {
    "state": (altered("/callback/otherwhere", state="another"), 400, "open DermBridge from the chart again"),
    "iss of the answer": (altered("/callback/otherwhere", iss="http://127.0.0.1:1"), 403, "open DermBridge again"),
    "nonce": (altered("/auth", nonce="another"), 403, "nonce"),
    "client_id": (altered("/auth", client_id="ES384"), 403, "open DermBridge again"),
    "PKCE": (altered("/auth", code_challenge="a" * 43), 403, "open DermBridge again"),
    "aud": (altered("/auth", aud="http://127.0.0.1:1/fhir"), 403, "(invalid_request)"),
    "code": (altered("/callback/otherwhere", code="another"), 403, "open DermBridge again"),
}


@pytest.mark.parametrize("what", BETWEEN)
def test_a_launch_that_somebody_altered_lets_nobody_in(foreign: Foreign, browser: httpx.Client, what: str) -> None:
    change, status, told = BETWEEN[what]
    bridge = foreign.bridge()
    answer = foreign.launch(browser, change=change)
    assert str(answer.url).startswith(f"{foreign.ours}/callback/otherwhere?")
    assert answer.status_code == status and told in answer.text, answer.text
    with bridge.db.snapshot() as tx:
        assert not tx.execute(select(session.c.id)).all()


@pytest.mark.parametrize("client_id", ["client_secret_basic", "ES384"])
def test_an_operator_reads_that_the_proof_is_not_the_registered_one(
    foreign: Foreign, browser: httpx.Client, client_id: str
) -> None:
    other = {"client_secret_basic": "ES384", "ES384": "client_secret_basic"}[client_id]
    foreign.bridge(client_id, client_id=other)
    answer = foreign.launch(browser)
    assert answer.status_code == 403 and "compare the settings with its registration" in answer.text


# --- staff ----------------------------------------------------------------------------------------------------------


def signed_in(foreign: Foreign, browser: httpx.Client, user: str) -> httpx.Response:
    foreign.bridge()
    browser.cookies.set("user", user, domain="127.0.0.1")
    return walk(browser, f"{foreign.ours}/login")


@pytest.mark.parametrize(
    ("user", "opened", "closed"), [("rivera", "/charts", "/audit"), ("quinn", "/audit", "/capture")]
)
def test_the_groups_of_staff_decide_what_they_may_do(
    foreign: Foreign, browser: httpx.Client, user: str, opened: str, closed: str
) -> None:
    came = signed_in(foreign, browser, user)
    assert came.status_code == 200 and {"rivera": "Dr. Inés Rivera", "quinn": "Quinn Abara"}[user] in came.text
    assert browser.get(f"{foreign.ours}{opened}").status_code == 200
    assert browser.get(f"{foreign.ours}{closed}").status_code == 403


@pytest.mark.parametrize(("user", "told"), [("porter", "none of your groups has a role"), ("twin", "somebody else")])
def test_who_has_no_role_or_is_somebody_else_at_the_userinfo_endpoint_stays_outside(
    foreign: Foreign, browser: httpx.Client, user: str, told: str
) -> None:
    came = signed_in(foreign, browser, user)
    assert came.status_code == 403 and told in came.text
    assert browser.get(f"{foreign.ours}/charts").status_code == 401


@pytest.mark.parametrize(
    ("changed", "told"), [({"nonce": "another"}, "nonce"), ({"code_challenge": "a" * 43}, "open DermBridge again")]
)
def test_a_staff_sign_in_that_somebody_altered_lets_nobody_in(
    foreign: Foreign, browser: httpx.Client, changed: dict[str, str], told: str
) -> None:
    foreign.bridge()
    answer = walk(browser, f"{foreign.ours}/login", altered("/auth", **changed))
    assert answer.status_code == 403 and told in answer.text, answer.text
    assert browser.get(f"{foreign.ours}/charts").status_code == 401
