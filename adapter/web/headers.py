"""The headers that protect every answer, unless it says otherwise itself."""

from __future__ import annotations

from collections.abc import Sequence


def content_policy(*, frame_ancestors: Sequence[str] = (), form_action: str = "") -> str:
    """The Content-Security-Policy of a page; `form_action` is where its forms may lead besides to us."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "font-src 'self'",
            "media-src 'self' blob:",
            f"form-action 'self' {form_action}".rstrip(),
            "object-src 'none'",
            "base-uri 'none'",
            f"frame-ancestors {' '.join(frame_ancestors) or chr(39) + 'none' + chr(39)}",
        )
    )


def security_headers(frame_ancestors: Sequence[str], *, https: bool) -> list[tuple[bytes, bytes]]:
    """As ASGI wants them."""
    headers = {
        "content-security-policy": content_policy(frame_ancestors=frame_ancestors),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "private, no-store",
        "permissions-policy": "camera=(self), geolocation=(), microphone=()",
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
    }
    if https:
        headers["strict-transport-security"] = "max-age=31536000; includeSubDomains"
    return [(name.encode(), value.encode()) for name, value in headers.items()]
