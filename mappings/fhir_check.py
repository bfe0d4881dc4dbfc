"""The one gate for FHIR R4 resources: what passes `check_resource` may be stored as it is and served for ever.

First a walk over the resource by `tables/r4_elements.json` (written from the R4 definitions, see
`tests/integration/fhir_validators/write_element_table.py`), then the model of fhir.resources (R4B, identical to R4
for what we serve) for cardinality and choice. The model alone would let required bindings, reference targets, long
ids, integers as text, broken base64, objects as JSON text and every invariant pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ValidationError

from mappings.error_to_outcome import Issue
from mappings.fhir_invariants import INVARIANTS
from mappings.fhir_primitives import PRIMITIVES, is_mime_type
from mappings.terms import Json

_TABLE: Final[dict[str, Any]] = json.loads((files("mappings") / "tables" / "r4_elements.json").read_text("utf-8"))
RESOURCE_TYPES: Final = frozenset(_TABLE["resources"])
_DEEPEST: Final = 40  # so that nesting cannot exhaust the stack; real resources stay below 15
_REFERENCE: Final = re.compile(
    r"(?P<local>#[A-Za-z0-9.-]{0,64})"
    r"|urn:(uuid|oid):[0-9a-f.-]+"
    r"|(https?://[^\s]+/)?(?P<type>[A-Z][A-Za-z]+)/[A-Za-z0-9.-]{1,64}(/_history/[A-Za-z0-9.-]{1,64})?"
    r"|(?P<other>https?://[^\s]+)"
)


class InvalidResource(ValueError):
    """The resource breaks R4 or our own rules; `issues` are ready for an OperationOutcome."""

    def __init__(self, issues: list[Issue]) -> None:
        self.issues = issues
        first = issues[0]
        more = f" ({len(issues) - 1} more)" if len(issues) > 1 else ""
        super().__init__(f"{first.expression}: {first.text}{more}")


class Element(NamedTuple):
    """What may stand in an element: a primitive that `accepts`, or an object of type `kind`."""

    kind: str
    accepts: Callable[[Any], bool] | None = None
    targets: frozenset[str] = frozenset()
    issue: tuple[str, str] = ("value", "")


def check_resource(resource: Json) -> None:
    """Pass, or raise InvalidResource with the faults found. The resource itself is not changed.

    Refused besides what R4 forbids: types outside `RESOURCE_TYPES`, contained resources that nothing refers to,
    active content in narratives. Cost: 0.4 ms for a Media, three quarters of it the R4B model.
    """
    resource_type = resource.get("resourceType")
    if not isinstance(resource_type, str) or resource_type not in RESOURCE_TYPES:
        raise InvalidResource(
            [Issue("error", "not-supported", "resourceType", "This resource type is not served here.")]
        )
    issues = list(dict.fromkeys(_Walk().resource(resource, resource_type)))
    if not any(issue.code in ("structure", "too-costly") for issue in issues):  # the model may crash on odd shapes
        found = {issue.expression for issue in issues}
        issues += [issue for issue in _model_issues(resource, resource_type) if issue.expression not in found]
    if issues:
        raise InvalidResource(issues)


@cache
def _row(kind: str) -> dict[str, Element]:
    """Element name -> Element, of a resource, a data type or a backbone element (`Consent.provision`)."""
    return {name: _element(meaning) for name, meaning in _TABLE["types"].get(kind, {}).items()}


def _element(meaning: str) -> Element:
    kind, _, detail = meaning.partition(":")
    if kind == "Reference":
        return Element(kind, targets=frozenset(detail.split("|")) - {"", "Resource"})
    if detail == "mimetypes":
        return Element(kind, is_mime_type, issue=("code-invalid", "This is not a MIME type."))
    if codes := _TABLE["codes"].get(detail):
        text = f"The code is not in the required value set {detail}."
        return Element(kind, frozenset(codes).__contains__, issue=("code-invalid", text))
    return Element(kind, PRIMITIVES.get(kind), issue=("value", f"This is not a valid FHIR {kind}."))


_PRIMITIVE_EXTENSION: Final = {"id": _element("string"), "extension": _element("Extension")}


class _Walk:
    """One pass over one resource; entries of a Bundle get a walk of their own."""

    def __init__(self) -> None:
        self.local_references: set[str] = set()
        self.contained: list[str] = []

    def resource(self, node: Json, path: str) -> Iterator[Issue]:
        yield from self.node(node, node["resourceType"], path)
        ids = {f"#{found}" for found in self.contained}
        for missing in sorted(self.local_references - ids - {"#"}):
            yield Issue("error", "not-found", path, f"Nothing is contained under {missing}.")
        for unused in sorted(ids - self.local_references) if "#" not in self.local_references else ():
            yield Issue("error", "invariant", f"{path}.contained", f"Nothing refers to the contained {unused} (dom-3).")

    def node(self, node: Json, kind: str, path: str) -> Iterator[Issue]:
        row = _row(kind)
        for name, value in node.items():
            if name == "fhir_comments":
                yield Issue("error", "structure", path, "R4 JSON has no fhir_comments.")
            elif value is None or value in ("", [], {}):
                yield Issue("error", "structure", f"{path}.{name}", "An element may not be empty: leave it out.")
            elif name in row:
                yield from self.element(value, row[name], path, name)
            elif name.startswith("_") and name[1:] in row:
                yield from self.primitive_extensions(value, f"{path}.{name[1:]}")
            elif name != "resourceType" or kind not in RESOURCE_TYPES:
                yield Issue("error", "structure", f"{path}.{name[:40]}", "R4 has no such element here.")
        if kind in INVARIANTS:
            yield from (Issue("error", "invariant", path, text) for text in INVARIANTS[kind](node))

    def element(self, value: Any, element: Element, path: str, name: str) -> Iterator[Issue]:
        for one in value if isinstance(value, list) else (value,):
            if element.accepts is not None:
                if not (isinstance(one, str | int | float) and element.accepts(one)) and one is not None:
                    yield Issue("error", element.issue[0], f"{path}.{name}", element.issue[1])
            elif isinstance(one, dict) and one:
                yield from self.object(one, element, f"{path}.{name}", contained=name == "contained")
            else:
                yield Issue("error", "structure", f"{path}.{name}", "An object with content is expected here.")

    def object(self, node: Json, element: Element, path: str, *, contained: bool) -> Iterator[Issue]:
        if path.count(".") > _DEEPEST:
            yield Issue("error", "too-costly", path[:200], f"Elements may be nested {_DEEPEST} deep.")
            return
        if element.kind == "Resource":
            yield from self.inner_resource(node, path, contained=contained)
            return
        yield from self.node(node, element.kind, path)
        if element.kind == "Reference" and isinstance(target := node.get("reference"), str):
            yield from self.reference(target, element.targets, path)

    def inner_resource(self, node: Json, path: str, *, contained: bool) -> Iterator[Issue]:
        resource_type = node.get("resourceType")
        if not isinstance(resource_type, str) or resource_type not in RESOURCE_TYPES:
            yield Issue("error", "not-supported", path, "This resource type is not served here.")
        elif not contained:
            yield from _Walk().resource(node, path)
        else:
            self.contained.append(str(node.get("id", "")))
            if "contained" in node or {"versionId", "lastUpdated", "security"} & node.get("meta", {}).keys():
                text = (
                    "A contained resource holds no resource, version, time or label of its own (dom-2, dom-4, dom-5)."
                )
                yield Issue("error", "invariant", path, text)
            yield from self.node(node, resource_type, path)

    def reference(self, target: str, allowed: frozenset[str], path: str) -> Iterator[Issue]:
        match = _REFERENCE.fullmatch(target)
        if match is None:
            yield Issue("error", "value", path, "A reference is Type/id, an absolute URL, urn:uuid: or #contained.")
        elif match["local"]:
            self.local_references.add(target)
        elif match["type"] and allowed and match["type"] not in allowed:
            text = f"A reference to {match['type']} may not stand here, only to {', '.join(sorted(allowed))}."
            yield Issue("error", "value", path, text)

    def primitive_extensions(self, value: Any, path: str) -> Iterator[Issue]:
        for one in value if isinstance(value, list) else (value,):
            if isinstance(one, dict) and one and not one.keys() - _PRIMITIVE_EXTENSION.keys():
                for name, inner in one.items():
                    yield from self.element(inner, _PRIMITIVE_EXTENSION[name], path, name)
            elif one is not None:
                yield Issue("error", "structure", path, "Beside a primitive only its id and extensions may stand.")


@cache
def _model(resource_type: str) -> type[BaseModel]:
    found: type[BaseModel] = getattr(import_module(f"fhir.resources.R4B.{resource_type.lower()}"), resource_type)
    return found


def _model_issues(resource: Json, resource_type: str) -> Iterator[Issue]:
    try:
        _model(resource_type).model_validate(resource)
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False):
            place = ".".join([resource_type, *(str(part) for part in fault["loc"] if part != "root")])
            code = "required" if "missing" in fault["type"] else "structure"
            yield Issue("error", code, re.sub(r"\.(\d+)", r"[\1]", place), fault["msg"].removeprefix("Value error, "))
