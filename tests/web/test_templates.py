"""Every template renders from its documented context, under autoescape and StrictUndefined, and keeps to the page rules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jinja2
import pytest

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "adapter" / "web" / "static"
FOLDERS = (ROOT / "adapter" / "web" / "templates", ROOT / "adapter" / "sandbox" / "templates")


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
