"""Profiles as sites write them: what is shipped, what differs, and what a mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.every_kind import Profile
from connectors.kinds import DirectoryProfile, FhirR4Profile
from connectors.profile import ProfileError, build_profile, find_shipped_profiles, parse_profile
from connectors.registry import open_connector
from connectors.routes import ROUTES

SITE = 'name = "site"\nkind = "fhir-r4"\nbase_url = "https://ehr.example/fhir/"\n'


def based_on(file: Path) -> Profile:
    return build_profile({"based_on": str(file)}, source=str(file))


@pytest.mark.parametrize("name", find_shipped_profiles())
def test_every_shipped_profile_can_be_opened(name: str) -> None:
    profile = parse_profile(f'based_on = "{name}"', source="test")
    assert profile.name == name and profile.kind in ROUTES
    open_connector(profile, str).close()


def test_a_site_writes_only_what_differs() -> None:
    text = 'based_on = "medplum"\nname = "clinic"\n[auth]\nclient_id = "c1"\n'
    profile = parse_profile(text, source="test")
    assert isinstance(profile, FhirR4Profile)
    assert (profile.name, profile.auth.client_id) == ("clinic", "c1")
    assert (profile.auth.kind, profile.binary_upload) == ("client_secret_basic", "raw")


def test_a_slash_at_the_end_of_the_address_makes_no_difference() -> None:
    profile = parse_profile(SITE, source="test")
    assert isinstance(profile, FhirR4Profile) and profile.base_url == "https://ehr.example/fhir"


def test_a_folder_below_home_is_found() -> None:
    profile = parse_profile('name = "out"\nkind = "directory"\nfolder = "~/out"\n', source="test")
    assert isinstance(profile, DirectoryProfile) and profile.folder == Path.home() / "out"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SITE + "binary_uplod = 'raw'", "site.toml: binary_uplod: unknown key; did you mean 'binary_upload'?"),
        (SITE + "[auth]\nclientid = 'x'", "site.toml: auth.clientid: unknown key; did you mean 'client_id'?"),
        (SITE + "[encounter]\nzzz = 1", "remove it or use one of policy, identifier_systems"),
        (
            SITE + "binary_upload = 'multipart'",
            "binary_upload: Input should be 'raw', 'json', 'inline', 'access-write' or 'share'",
        ),
        (SITE + "routes = []", "routes:"),
        (SITE + "routes = ['fhir-video']", "routes.0:"),
        (SITE + "[auth]\nkind = 'basic'\nclient_id = 'u'", "needs secret"),
        (SITE.replace("https://ehr.example/fhir/", "ehr.example"), "base_url:"),
        (SITE.replace("https://", "https://user:pw@"), "base_url:"),
        (
            SITE.replace("fhir-r4", "fhir-r5"),
            "kind 'fhir-r5' is not known; use one of dicom-cstore, dicomweb, directory",
        ),
        (SITE.replace('"site"', '"My Site"'), "name:"),
        ("based_on = 'epic2'", "'epic2' is not shipped; use one of athenaflow"),
        ("name = 'site'", "based_on is missing; name a profile, or set kind to one of dicom-cstore"),
        ("name = ", "not TOML"),
    ],
)
def test_a_mistake_is_told_with_file_key_and_remedy(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(text)
    with pytest.raises(ProfileError) as error:
        based_on(file)
    assert told in str(error.value)
    assert "site.toml" in str(error.value)
    assert "pw@" not in str(error.value)


def test_a_missing_file_is_told() -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        based_on(Path("/nowhere/site.toml"))


def test_profiles_that_are_based_on_each_other_are_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text(f"based_on = '{other}'")
    other.write_text(f"based_on = '{one}'")
    with pytest.raises(ProfileError, match="leads back to itself"):
        based_on(one)
