"""How the EHR around us looks (SMART `smart_style_url`), as far as our pages may look like it.

Of the documented keys those are taken that leave photos and signals as they are: one accent colour, where it can be
read on our panels, the fonts, and three measures. Backgrounds stay neutral, since a tinted surround changes how the
colours of a photo are judged, and errors keep their red. Nothing reaches a page but values that were read and written
again here, so that no style sheet of an EHR can do more than this.

https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html#styling
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

import httpx

from adapter.access.outbound import get_json
from adapter.errors import Unavailable

Style = dict[str, str]
"""Custom property -> value; those of `--accent` hold for the colour schemes that `_accent` found them readable in."""

READABLE = 4.5  # WCAG 2.2, 1.4.3
SURFACES = {  # scheme -> what text in the accent colour stands on: --panel, --bg, --panel-2 (assets/css/tokens.css)
    "light": ("#ffffff", "#f1f2f2", "#f6f7f7"),
    "dark": ("#1e2021", "#151718", "#26292a"),
}
_COLOUR = re.compile(r"#(?:[0-9a-f]{3}|[0-9a-f]{6})", re.IGNORECASE)
_MEASURE = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,2})?)px")
_FAMILY = re.compile(r"""(["']?)([A-Za-z][A-Za-z0-9 -]{0,60})\1""")


def fetch_style(http: httpx.Client, url: str, ehr_name: str) -> Style:
    """What of the EHR's style is taken; nothing where it cannot be had, since looks never stop a launch.

    `http` must be the guarded client (access.outbound): the address is the EHR's word.
    """
    try:
        return read_style(get_json(http, url, f"{ehr_name} (smart_style_url)", timeout=3))
    except Unavailable:
        return {}


def read_style(told: Mapping[str, object]) -> Style:
    """The known keys with values that are what they should be."""
    style: Style = {}
    for key, read in KEYS.items():
        value = told.get(key)
        if isinstance(value, str) and len(value) <= 300:
            style |= read(value.strip().rstrip(";"))
    return style


def style_sheet(style: Style) -> str:
    """CSS for a page of a session launched with this style."""
    sheet = _rule({name: value for name, value in style.items() if not name.startswith(tuple(SURFACES))})
    for scheme in SURFACES:
        chosen = {name.removeprefix(scheme): value for name, value in style.items() if name.startswith(scheme)}
        sheet += f"@media (prefers-color-scheme: {scheme}) {{ {_rule(chosen)}}}\n" if chosen else ""
    return sheet


def contrast(one: str, other: str) -> float:
    """WCAG 2.2 contrast ratio of two colours written #rgb or #rrggbb."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _accent(value: str) -> Style:
    if not _COLOUR.fullmatch(value):
        return {}
    on_accent = max(("#ffffff", "#000000"), key=partial(contrast, value))
    style: Style = {}
    for scheme, surfaces in SURFACES.items():
        if all(contrast(value, surface) >= READABLE for surface in surfaces):
            style |= {f"{scheme}--{name}": value for name in ("accent", "accent-hover")}
            style |= {f"{scheme}--on-accent": on_accent, f"{scheme}--accent-soft": "var(--panel-2)"}
    return style


def _measure(names: tuple[str, ...], least: float, most: float, value: str) -> Style:
    found = _MEASURE.fullmatch(value)
    return dict.fromkeys(names, value) if found and least <= float(found[1]) <= most else {}


def _fonts(name: str, value: str) -> Style:
    families = [_FAMILY.fullmatch(one.strip()) for one in value.split(",")]
    if not all(families):
        return {}
    return {name: ", ".join(f'"{one[2]}"' if " " in one[2] or one[1] else one[2] for one in families if one)}


KEYS: dict[str, Callable[[str], Style]] = {
    "color_highlight": _accent,
    "dim_border_radius": partial(_measure, ("--radius", "--radius-small"), 0, 16),
    "dim_font_size": partial(_measure, ("--size",), 13, 20),
    "dim_spacing_size": partial(_measure, ("--gap",), 8, 24),
    "font_family_body": partial(_fonts, "--font"),
    "font_family_heading": partial(_fonts, "--font-heading"),
}


def _rule(properties: Mapping[str, str]) -> str:
    return f":root {{ {'; '.join(f'{name}: {value}' for name, value in properties.items())} }}\n" if properties else ""


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    red, green, blue = (_linear(int(digits[at : at + 2], 16) / 255) for at in (0, 2, 4))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
