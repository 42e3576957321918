"""Headers that every answer has: what a page from here may do, and who may use what comes."""

from email.utils import formatdate
from typing import Final

CONTENT_SECURITY_POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

_ALWAYS: Final = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"microphone=(self), camera=(), geolocation=(), payment=(), usb=()"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
]

Headers = list[tuple[bytes, bytes]]


def completed(headers: Headers) -> Headers:
    """The headers of an answer with all that it lacks."""
    given = {name.lower() for name, _value in headers}
    out = [*headers, *_ALWAYS, (b"date", formatdate(usegmt=True).encode())]
    if b"cache-control" not in given:
        out.append((b"cache-control", b"no-store"))
    return out
