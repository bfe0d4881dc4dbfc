"""Every template renders from its documented context (autoescape, StrictUndefined) and keeps to the page rules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jinja2
import pytest

from tests.web import samples, samples_lists, samples_measured, samples_records

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "adapter" / "web" / "static"
FOLDERS = (ROOT / "adapter" / "web" / "templates", ROOT / "adapter" / "sandbox" / "templates")

PAGES: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "timeline": ("timeline.html", samples.timeline),
    "photo": ("photo.html", lambda: samples.one_photo() | {"measuring": samples_measured.measuring()}),
    "photo-of-nobody": ("photo.html", lambda: samples.one_photo() | {"measuring": None}),
    "lesion": ("lesion.html", samples_measured.lesion),
    "capture": ("capture.html", samples.capture),
    "capture-new": ("capture.html", lambda: samples.capture(recorded=False)),
    "compare": ("compare.html", samples.compare),
    "compare-three": ("compare.html", samples.compare_three),
    "compare-saved": ("compare.html", samples.compare_saved),
    "saved-comparison": ("saved_comparison.html", samples.comparison_left),
    "consents": ("consents.html", samples_records.consents),
    "consent": ("consent.html", samples_records.consent),
    "consent-withdrawn": ("consent.html", lambda: samples_records.consent("withdrawn")),
    "deliveries": ("deliveries.html", samples_lists.deliveries),
    "worklist": ("worklist.html", samples_lists.worklist),
    "worklist-message": ("worklist.html", lambda: samples_lists.worklist("adt")),
    "worklist-closed": ("worklist.html", lambda: samples_lists.worklist("nothing")),
    "refile": ("refile.html", samples_lists.refile),
    "refile-chosen": ("refile.html", lambda: samples_lists.refile() | {"chosen": samples.PATIENT | {"id": "p2"}}),
    "elsewhere": ("elsewhere.html", samples_lists.elsewhere),
    "job-to-confirm": ("job.html", lambda: samples_lists.job("to-confirm")),
    "job": ("job.html", samples_lists.job),
    "job-preview": ("job.html", lambda: samples_lists.job("preview")),
    "jobs": ("jobs.html", samples_lists.jobs),
    "error": ("error.html", samples_lists.error),
    "home": ("home.html", samples_lists.home),
    "imports": ("imports.html", samples_lists.imports),
    "audit": ("audit.html", samples_records.audit),
    "charts": ("charts.html", samples_records.charts),
    "sessions": ("sessions.html", samples_records.sessions),
    "authorize": ("authorize.html", samples_records.authorize),
    "authorize-search": ("authorize.html", lambda: samples_records.authorize(searching=True)),
    "authorize-sign-in": ("authorize_sign_in.html", samples_records.authorize_sign_in),
    "admin": ("admin.html", samples_records.admin),
    "break-glass": ("break_glass.html", samples_records.break_glass),
    "import": ("import.html", samples_lists.one_import),
    "ehr-chart": ("chart.html", samples_lists.ehr_chart),
    "ehr-summary": ("chart.html", lambda: samples_lists.ehr_chart("summary")),
    "ehr-frame": ("chart.html", lambda: samples_lists.ehr_chart("dermbridge")),
    "ehr-patients": ("patients.html", samples_lists.ehr_patients),
    "ehr-login": ("login.html", samples_lists.ehr_login),
}


def asset(name: str) -> str:
    """What the product's asset() does; the plain name where nothing is built."""
    manifest = STATIC / "manifest.json"
    return "/static/" + (json.loads(manifest.read_text()).get(name, name) if manifest.exists() else name)


def environment() -> jinja2.Environment:
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDERS), autoescape=True, undefined=jinja2.StrictUndefined
    )
    pages.globals["asset"] = asset
    return pages


class Page(HTMLParser):
    """The elements of a page as (tag, attributes), and the text of each script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script" and data.strip():
            self.scripts.append(data)

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def render(template: str, context: dict[str, Any]) -> str:
    return environment().get_template(template).render(context)


@pytest.fixture(params=list(PAGES))
def html(request: pytest.FixtureRequest) -> str:
    template, context = PAGES[request.param]
    return render(template, context())


def test_every_template_has_a_sample_and_says_what_it_needs() -> None:
    shown = {template for template, _ in PAGES.values()}
    parts = {"base.html", "frame.html", "ui.html", "saved_list.html", "saved_panel.html", "measure.html"}
    for folder in FOLDERS:
        for path in folder.glob("*.html"):
            assert path.name in shown | parts, f"{path.name} has no sample in tests/web/samples.py"
            assert path.read_text().startswith("{#"), f"{path.name} does not open with its context"


def test_a_page_has_nothing_inline_that_the_csp_forbids(html: str) -> None:
    page = Page(html)
    assert page.all("style") == []
    assert [a for a in page.all("script") if "src" not in a and a.get("type") != "application/json"] == []
    inline = [n for _, attributes in page.elements for n in attributes if n == "style" or n.startswith("on")]
    assert inline == []


def test_every_form_that_changes_something_carries_the_csrf_token(html: str) -> None:
    forms = re.findall(r"<form[^>]*method=\"post\".*?</form>", html, re.S)
    assert [form for form in forms if 'name="csrf_token"' not in form] == []


def test_pictures_have_a_size_and_a_text(html: str) -> None:
    pictures = Page(html).all("img")
    assert [a for a in pictures if "alt" not in a] == []
    scripted = {"ghost", "shot"}
    filled = ("stage-plain", "finder-")
    free = [a for a in pictures if a.get("id") not in scripted and not (a.get("class") or "").startswith(filled)]
    assert [a for a in free if "width" not in a or "height" not in a] == []


def test_ids_are_unique(html: str) -> None:
    ids = [attributes["id"] for _, attributes in Page(html).elements if "id" in attributes]
    assert sorted({one for one in ids if ids.count(one) > 1}, key=str) == []


def test_every_popover_button_has_its_popover(html: str) -> None:
    page = Page(html)
    wanted = {a["popovertarget"] for a in page.all("button") if "popovertarget" in a}
    assert wanted <= {a.get("id") for _, a in page.elements if "popover" in a}


def test_a_name_made_of_markup_stays_text() -> None:
    context = samples.timeline()
    context["patient"] = samples.PATIENT | {"name": "<script>alert(1)</script>"}
    assert "<script>alert" not in render("timeline.html", context)


def test_the_json_for_the_script_cannot_end_its_element() -> None:
    context = samples.capture()
    context["capture"] = context["capture"] | {"patient": "</script><img src=x>"}
    html = render("capture.html", context)
    text = Page(html).scripts[0]
    assert json.loads(text)["patient"] == "</script><img src=x>"
    assert "<img src=x>" not in html


def test_the_patient_banner_follows_the_launch_context() -> None:
    shown = samples.timeline()
    assert 'aria-label="Patient"' in render("timeline.html", shown)
    assert 'aria-label="Patient"' not in render("timeline.html", shown | {"need_patient_banner": False})


@pytest.mark.parametrize(
    ("state", "words"),
    [("confirmed", "in chart"), ("accepted", "sent, not confirmed"), ("withheld", "held: no consent")],
)
def test_only_a_confirmed_delivery_is_called_in_chart(state: str, words: str) -> None:
    photo = samples.photo(1, samples.NOW, deliveries=[{"destination": "EHR", "state": state, "reason": None}])
    group = {"key": "v", "title": "Visit", "subtitle": None, "capture_href": None, "compare_href": None}
    html = render("timeline.html", samples.timeline() | {"groups": [group | {"photos": [photo]}]})
    assert words in html
    assert ("in chart" in html) == (state == "confirmed")


def test_a_user_without_batch_rights_gets_no_checkboxes() -> None:
    html = render("timeline.html", samples.timeline() | {"actions": set()})
    assert 'name="media"' not in html
    assert 'id="actions"' not in html


def test_a_sensitive_photo_is_veiled_until_it_is_opened() -> None:
    assert render("timeline.html", samples.timeline()).count("tile-veil") == 1
