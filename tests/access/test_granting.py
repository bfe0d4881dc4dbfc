"""What a client may be registered for, and what of its registration and of a person's rights it is granted."""

from __future__ import annotations

from typing import Any

import pytest

from adapter.access.granting import check_clients, granted_to_app
from adapter.access.policy import grants_of, still_granted
from adapter.errors import Misconfigured
from adapter.settings import Client, load_settings
from tests.access.apps import APP, BACK
from tests.access.machines import Machine


def app(**changed: Any) -> Client:
    return Client.model_validate(APP.model_dump() | changed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"scope": "patient/*.cruds system/*.rs"}, "system/*.rs is not for it"),
        ({"scope": "patient/*.everything"}, "is not a SMART scope"),
        ({"client_secret": "short"}, "32 random letters"),
        ({"redirect_uris": ["http://app.example/back"]}, "must be https"),
        ({"redirect_uris": [f"{BACK}#here"]}, "without a fragment"),
        ({"launch_url": "http://app.example/launch"}, "must be https"),
        ({"redirect_uris": ["http://localhost.app.example/back"]}, "must be https"),
    ],
)
def test_an_app_is_not_registered_with(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(Misconfigured, match="app: ") as refused:
        check_clients([app(**changed)])
    assert said in str(refused.value)


def test_a_machine_needs_a_key_and_has_no_scopes_of_people() -> None:
    with pytest.raises(Misconfigured, match="needs one of jwks"):
        load_settings(environment={}, clients=[{"client_id": "m", "name": "M", "scope": "system/Media.r"}])
    with pytest.raises(Misconfigured, match="is not for it"):
        check_clients([Machine(scope="patient/Media.r").registration])
    with pytest.raises(Misconfigured, match="redirect_uris"):
        check_clients([Machine(more={"launch_url": BACK}).registration])


def test_an_app_on_this_machine_may_do_without_tls() -> None:
    check_clients([app(redirect_uris=["http://127.0.0.1:9000/back", "http://localhost/back", "org.example.app:/back"])])


def _conditions(scope: str, parameter: str, count: int = 15) -> str:
    return f"{scope}?{'&'.join(f'{parameter}={n}' for n in range(count))}"


@pytest.mark.parametrize(
    ("asked", "registered", "granted"),
    [
        ("patient/Media.cruds", "patient/*.cruds", {"patient/Media.crus"}),  # no role deletes photos
        ("patient/*.read", "patient/Media.rs patient/Patient.r", {"patient/Media.rs", "patient/Patient.r"}),
        ("patient/Media.rs", "user/*.cruds patient/Patient.r", None),  # registered at another level
        ("patient/Media.rs?view=x", "patient/Media.rs", {"patient/Media.rs?view=x"}),
        ("patient/Media.rs", "patient/Media.r?view=x", {"patient/Media.r?view=x"}),
        ("patient/Media.rs?created=soon", "patient/*.rs", None),
        ("patient/Media.rs?created=soon patient/Media.r?view=x", "patient/*.rs", {"patient/Media.r?view=x"}),
        (_conditions("patient/Media.rs", "view"), _conditions("patient/Media.rs", "site"), None),  # together too many
        ("openid fhirUser", "patient/*.rs", {"openid", "fhirUser"}),
        ("offline_access patient/Media.r", "patient/*.rs", {"patient/Media.r"}),
        ("patient/AuditEvent.rs", "patient/*.rs", None),  # not a clinician's
        (f"patient/Media.rs?{'&'.join(['view=x'] * 21)}", "patient/*.rs", None),  # more conditions than we look at
    ],
)
def test_an_app_is_granted_what_registration_and_role_have_in_common(
    asked: str, registered: str, granted: set[str] | None
) -> None:
    own = grants_of("clinician")[0]
    if granted is None:
        with pytest.raises(Exception, match="none of these scopes"):
            granted_to_app(app(scope=registered), asked, own)
    else:
        assert granted_to_app(app(scope=registered), asked, own) == granted
        records = {one for one in granted if "/" in one}
        assert still_granted(" ".join(granted), "clinician") == records  # looked at again, nothing is lost
        assert still_granted(" ".join(granted), "nobody") == frozenset()
