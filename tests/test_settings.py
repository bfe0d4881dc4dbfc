"""Settings: later sources win, and a wrong value names its source, its key and a remedy."""

from pathlib import Path

import pytest

from adapter.errors import Misconfigured
from adapter.settings import Settings, load_settings, unknown_variables


def test_defaults_run_the_embedded_product() -> None:
    settings = load_settings(environment={})
    assert settings.base_url == "http://127.0.0.1:8000"
    assert settings.database.startswith("sqlite")


def test_an_address_of_ipv6_stands_in_brackets_in_a_url() -> None:
    assert load_settings(environment={}, http_host="::1").base_url == "http://[::1]:8000"


def test_the_environment_wins_over_the_file_and_a_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    file, secret = tmp_path / "dermbridge.toml", tmp_path / "url"
    file.write_text('http_port = 9000\nsite_name = "Clinic"\n')
    secret.write_text("postgresql://u:p@db/d\n")
    settings = load_settings(file, {"DERMBRIDGE_HTTP_PORT": "9001", "DERMBRIDGE_DATABASE_URL_FILE": str(secret)})
    assert (settings.http_port, settings.site_name) == (9001, "Clinic")
    assert settings.database == "postgresql+psycopg://u:p@db/d"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http_port = 99999", ["dermbridge.toml", "http_port"]),
        ("htp_port = 1", ["dermbridge.toml", "unknown key", "htp_port"]),
        ('time_zone = "Mars/Base"', ["time_zone", "Europe/Zurich"]),
        ("http_port = ", ["not valid TOML"]),
        ('[[ehrs]]\nname = "x"', ["ehrs.0.iss"]),
    ],
)
def test_a_wrong_file_names_key_and_remedy(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "dermbridge.toml"
    file.write_text(text)
    with pytest.raises(Misconfigured) as refusal:
        load_settings(file, {})
    assert all(word in str(refusal.value) for word in words), str(refusal.value)


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(Misconfigured, match=r"DERMBRIDGE_CONSENT_MODE.*consent_mode"):
        load_settings(environment={"DERMBRIDGE_CONSENT_MODE": "maybe"})


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("DERMBRIDGE_HTP_PORT", "DERMBRIDGE_HTTP_PORT"),
        ("DERMBRIDGE_DATADIR", "DERMBRIDGE_DATA_DIR"),
        ("DERMBRIDGE_DATABASE_URLFILE", "DERMBRIDGE_DATABASE_URL_FILE"),
        ("DERMBRIDGE_CONSENT_MODES", "DERMBRIDGE_CONSENT_MODE"),
    ],
)
def test_a_misspelt_variable_stops_the_start_and_names_the_one_that_is_meant(variable: str, meant: str) -> None:
    with pytest.raises(Misconfigured, match=f"{variable} is not a setting; {meant} is"):
        load_settings(environment={variable: "x"})


@pytest.mark.parametrize(
    "variable", ["DERMBRIDGE_PORT", "DERMBRIDGE_SERVICE_HOST", "DERMBRIDGE_HTTP_PUBLISH", "DERMBRIDGE_REQUIRE_REAL"]
)
def test_variables_of_compose_files_and_orchestrators_are_left_alone_and_told_by_doctor(variable: str) -> None:
    assert load_settings(environment={variable: "tcp://10.0.0.1:80"}).http_port == 8000
    assert unknown_variables({variable: "x", "DERMBRIDGE_CONFIG": "y", "HOME": "/"}) == {variable: None}


@pytest.mark.parametrize(("key", "value"), [("database_url", "mysql://host/db"), ("public_url", "photos.example")])
def test_an_address_of_no_use_is_refused_at_the_start(key: str, value: str) -> None:
    with pytest.raises(Misconfigured, match=rf"{key}.*is n"):
        load_settings(environment={f"DERMBRIDGE_{key.upper()}": value})


def test_a_missing_file_that_was_asked_for_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="does not exist"):
        load_settings(environment={"DERMBRIDGE_CONFIG": str(tmp_path / "none.toml")})


def test_every_setting_is_documented() -> None:
    page = (Path(__file__).parents[1] / "docs" / "settings.md").read_text()
    spellings = ("`{}`", "`[{}]`", "`[[{}]]`")  # a key, a table, an array of tables
    undocumented = [name for name in Settings.model_fields if not any(s.format(name) in page for s in spellings)]
    assert not undocumented
