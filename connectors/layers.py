"""What a site writes, laid over the profile it is based on."""

from __future__ import annotations

from typing import Any, Final

TO_BE_SET: Final = "set-me"  # stands in starter profiles where only the site knows


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, table by table; lists replace.

    A table over a list of routes names them by kind: `routes.hl7v2 = { host = "..." }` changes that route, `false`
    leaves it out. Raises ValueError when there is no route of that kind.
    """
    # What a starter profile leaves to the site as a key ("set-me" = ...) goes once the site names its own.
    result = {key: value for key, value in base.items() if key != TO_BE_SET or not over}
    for key, value in over.items():
        old = result.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            result[key] = merged(old, value)
        elif isinstance(value, dict) and isinstance(old, list):
            if unknown := set(value) - {each["kind"] for each in old}:
                raise ValueError(f"{key} has nothing of kind {', '.join(sorted(unknown))} to change")
            result[key] = [
                merged(each, value.get(each["kind"], {})) for each in old if value.get(each["kind"]) is not False
            ]
        else:
            result[key] = value
    return result
