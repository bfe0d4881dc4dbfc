"""An EHR's style reaches our pages only as values that were read, and never makes them unreadable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.access.ehr_style import KEYS, READABLE, SURFACES, contrast, read_style, style_sheet

TOKENS = Path(__file__).parents[2] / "adapter" / "web" / "assets" / "css" / "tokens.css"
OF_THE_STANDARD = {  # https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html#styling
    "color_background": "#edeae3",
    "color_error": "#9e2d2d",
    "color_highlight": "#69b5ce",
    "color_modal_backdrop": "",
    "color_success": "#498e49",
    "color_text": "#303030",
    "dim_border_radius": "6px",
    "dim_font_size": "13px",
    "dim_spacing_size": "20px",
    "font_family_body": "Georgia, Times, 'Times New Roman', serif",
    "font_family_heading": "'HelveticaNeue-Light', Helvetica, Arial, 'Lucida Grande', sans-serif;",
}


def test_the_standards_example_is_taken_where_it_can_be_read() -> None:
    style = read_style(OF_THE_STANDARD)
    assert style["--font"] == 'Georgia, Times, "Times New Roman", serif'
    assert style["--font-heading"] == '"HelveticaNeue-Light", Helvetica, Arial, "Lucida Grande", sans-serif'
    assert (style["--radius"], style["--size"], style["--gap"]) == ("6px", "13px", "20px")
    assert style["dark--accent"] == "#69b5ce"
    assert "light--accent" not in style  # 2.3:1 on white
    sheet = style_sheet(style)
    assert "@media (prefers-color-scheme: dark) { :root { --accent: #69b5ce;" in sheet
    assert "#edeae3" not in sheet and "#9e2d2d" not in sheet


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("color_highlight", "red"),
        ("color_highlight", "#12345"),
        ("color_highlight", "#000000; background: url(https://evil.test)"),
        ("dim_border_radius", "99px"),
        ("dim_border_radius", "-1px"),
        ("dim_font_size", "2em"),
        ("dim_font_size", "١٥px"),
        ("dim_font_size", "6px"),
        ("dim_spacing_size", "calc(1px)"),
        ("font_family_body", "Georgia, url(x)"),
        ("font_family_body", 'A", serif } * { display: none'),
        ("font_family_body", ["Georgia"]),
        ("color_background", "#000000"),
    ],
)
def test_what_is_not_a_value_of_its_kind_is_left_out(key: str, value: object) -> None:
    assert read_style({key: value}) == {}


WRITTEN = st.text(max_size=60) | st.from_regex(r"#[0-9a-f]{6}|\d\dpx", fullmatch=True)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(KEYS)), WRITTEN))
def test_nothing_gets_out_of_its_declaration(told: dict[str, str]) -> None:
    sheet = style_sheet(read_style(told))
    declaration = r"--[a-z-]+: [A-Za-z0-9#., \"()-]+"
    rule = rf":root {{ {declaration}(; {declaration})* }}\n"
    assert re.fullmatch(rf"({rule}|@media \(prefers-color-scheme: (light|dark)\) {{ {rule}}}\n)*", sheet), sheet


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 0xFFFFFF).map("#{:06x}".format))
def test_an_accent_is_readable_wherever_it_is_used(colour: str) -> None:
    style = read_style({"color_highlight": colour})
    for scheme, surfaces in SURFACES.items():
        if f"{scheme}--accent" in style:
            assert all(contrast(colour, surface) >= READABLE for surface in surfaces)
            assert contrast(style[f"{scheme}--on-accent"], colour) >= READABLE


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.478, abs=0.001)


def test_the_surfaces_are_those_of_the_pages() -> None:
    light, dark = TOKENS.read_text(encoding="utf-8").split("prefers-color-scheme: dark")
    for scheme, css in (("light", light), ("dark", dark)):
        found = tuple(re.search(rf"--{name}: (#\w+)", css)[1] for name in ("panel", "bg", "panel-2"))  # type: ignore[index]
        assert found == SURFACES[scheme]
