"""Photos from a shared drive: what each file is about is read from its path by the site's rules, then captured.

A rules file is CSV; the first row whose `pattern` matches the path below the folder decides. A pattern is a path with
``{placeholders}`` and ``*``; other columns are metadata, which may use the placeholders:

    pattern,patient_system,patient,taken_at,body_site,laterality,view,sensitivity,note
    {mrn}/{date}/*_dermoscopy*.jpg,urn:oid:1.2.3,{mrn},{date},,,dermoscopic,,

Nothing in the folder is changed. Planning writes nothing; importing twice stores nothing twice.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from adapter.access import Actor
from adapter.batch.import_runs import Verdict, end_run, note_file, start_run
from adapter.bridge import Bridge
from adapter.capture.inspection import inspect
from adapter.capture.metadata import read_metadata
from adapter.capture.receive import Upload, receive
from adapter.errors import BadInput, Conflict, DermBridgeError, TooLarge

COLUMNS = ("patient_system", "patient", "taken_at", "body_site", "laterality", "view", "sensitivity", "note")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}|(\*)|([^{*]+)")
_USED = re.compile(r"\{([a-z_]+)\}")
_IGNORED = {".ds_store", "thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Rule:
    """One row: which paths it speaks of and what it says about them."""

    pattern: re.Pattern[str]
    values: dict[str, str]


@dataclass
class PlannedItem:
    """One file: `verdict` before import is ready, no-rule or refused; afterwards stored, held, known or refused."""

    path: str
    metadata: dict[str, Any] = field(default_factory=dict)
    verdict: Verdict = "ready"
    reason: str = ""
    capture: str | None = None


def read_rules(file: Path) -> list[Rule]:
    """Raises BadInput naming row and remedy."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f'{file.name} is not UTF-8; save it as "CSV UTF-8"') from None
    with io.StringIO(text, newline="") as lines:
        rows = csv.DictReader(lines)
        if "pattern" not in (rows.fieldnames or ()):
            raise BadInput(f"{file.name} needs a header row with the column 'pattern'; see docs/import-drive.md")
        if unknown := set(rows.fieldnames or ()) - {"pattern", *COLUMNS}:
            raise BadInput(
                f"{file.name} has unknown columns: {', '.join(sorted(unknown))}; known: {', '.join(COLUMNS)}"
            )
        return [_rule(row, number) for number, row in enumerate(rows, 2)]


def _rule(row: dict[str, str], number: int) -> Rule:
    if None in row:
        raise BadInput(f"row {number} of the rules has more fields than the header; put a text with a comma in quotes")
    if not row["pattern"] or re.search(r"[{}]", _USED.sub("", row["pattern"])):
        raise BadInput(f"row {number} of the rules needs a pattern whose {{placeholders}} are small letters and _")
    parts, names = [], set()
    for name, star, text in _PLACEHOLDER.findall(row["pattern"]):
        if name:
            parts.append(f"(?P={name})" if name in names else f"(?P<{name}>[^/]+?)")
            names.add(name)
        else:
            parts.append("[^/]*" if star else re.escape(text))
    values = {column: row[column] for column in COLUMNS if row.get(column)}
    if ("patient" in values) != ("patient_system" in values):
        raise BadInput(f"row {number} of the rules needs patient and patient_system together, or neither")
    used = {name for value in values.values() for name in _USED.findall(value)}
    if used - names:
        raise BadInput(f"row {number} of the rules uses {{{sorted(used - names)[0]}}}, which its pattern does not name")
    return Rule(re.compile("".join(parts), re.IGNORECASE), values)


def plan_import(bridge: Bridge, folder: Path, rules: Sequence[Rule]) -> Iterator[PlannedItem]:
    """What an import would do with each file, in path order; reads the files, writes nothing."""
    for path in photo_files(folder):
        item = _match(folder, path, rules)
        if item.verdict == "ready":
            try:
                read_metadata(item.metadata, accept_unlisted_sites=bridge.settings.accept_unlisted_body_sites)
                inspect(_read(bridge, path), max_pixels=bridge.settings.max_pixels)
            except DermBridgeError as refusal:
                item.verdict, item.reason = "refused", str(refusal)
        yield item


def run_import(
    bridge: Bridge, actor: Actor, folder: Path, rules: Sequence[Rule], progress: Callable[[PlannedItem], None]
) -> list[PlannedItem]:
    """Capture every file that a rule speaks of; each on its own, so that a cut run is simply run again.

    What became of each file is kept as an import run, for the page /imports.
    """
    run_id, done = start_run(bridge, actor, folder), []
    for position, path in enumerate(photo_files(folder)):
        item = _match(folder, path, rules)
        if item.verdict == "ready":
            _import(bridge, actor, path, item)
        note_file(bridge, run_id, position, item)
        progress(item)
        done.append(item)
    end_run(bridge, run_id)
    return done


def _import(bridge: Bridge, actor: Actor, path: Path, item: PlannedItem) -> None:
    try:
        data = _read(bridge, path)
        subject = "|".join(item.metadata.get("patient", {}).values())
        key = hashlib.sha256(hashlib.sha256(data).digest() + subject.encode()).hexdigest()
        answer = receive(bridge, actor, Upload(data, item.metadata, idempotency_key=f"drive:{key}", source="drive"))
    except Conflict:
        item.verdict, item.reason = "refused", "this photo of this patient is stored already, with another time"
        return
    except DermBridgeError as refusal:
        item.verdict, item.reason = "refused", str(refusal)
        return
    item.capture = answer.id
    verdicts: dict[int, Verdict] = {200: "known", 201: "stored", 202: "held"}
    item.verdict = verdicts[answer.status]
    item.reason = answer.body.get("reason", "")


def photo_files(folder: Path) -> Iterator[Path]:
    """Every file below the folder, and every folder that cannot be listed, in path order.

    Links are not followed, so nothing from elsewhere comes in.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        yield folder
        return
    for entry in entries:
        if entry.is_symlink() or entry.name.lower() in _IGNORED or entry.name.startswith("._"):
            continue
        if entry.is_dir():
            yield from photo_files(entry)
        elif entry.is_file():
            yield entry


def _match(folder: Path, file: Path, rules: Sequence[Rule]) -> PlannedItem:
    name = file.relative_to(folder).as_posix()
    path = os.fsencode(name).decode("utf-8", "replace")
    if path != name:
        return PlannedItem(path, verdict="refused", reason="its name is not UTF-8; rename it")
    if file.is_dir():
        return PlannedItem(path, verdict="refused", reason="this folder cannot be listed; let DermBridge read it")
    for rule in rules:
        if found := rule.pattern.fullmatch(path):
            return PlannedItem(path, _metadata({column: _filled(v, found) for column, v in rule.values.items()}))
    return PlannedItem(path, verdict="no-rule", reason="no rule speaks of this path; add a row or leave it")


def _filled(value: str, found: re.Match[str]) -> str:
    return _USED.sub(lambda used: found[used[1]], value)


def _metadata(values: dict[str, str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {k: v for k, v in values.items() if k not in ("patient", "patient_system", "taken_at")}
    if "patient" in values:
        metadata["patient"] = {"system": values["patient_system"], "value": values["patient"]}
    if taken := values.get("taken_at"):
        metadata["taken_at"] = _moment(taken)
    if flags := values.get("sensitivity"):
        metadata["sensitivity"] = flags.split()
    return metadata


def _moment(text: str) -> str:
    """ISO 8601, or the eight digits of a date as folders are often named."""
    for pattern in ("%Y%m%d", "%Y%m%d_%H%M%S", "%d.%m.%Y"):
        try:
            return datetime.strptime(text, pattern).isoformat()  # noqa: DTZ007 (the site's zone is added on capture)
        except ValueError:
            continue
    return text


def _read(bridge: Bridge, path: Path) -> bytes:
    try:
        if path.stat().st_size > bridge.settings.max_capture_bytes:
            raise TooLarge(f"photos may have at most {bridge.settings.max_capture_bytes // 2**20} MiB here")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"the file cannot be read ({error.strerror}); mend that and run the import again") from None
