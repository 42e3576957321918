"""The page's files. All are read when the gateway starts: a path that is not among them is not
found, so there is no way out of the folder, whatever a path says."""

import gzip
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from assistantd.log import fields

log = logging.getLogger(__name__)

PAGE: Final = Path(__file__).parent / "page"
INDEX: Final = "/index.html"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".wav": "audio/wav",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_WORTH_BYTES: Final = 256
_MOST_BYTES: Final = 16 << 20


@dataclass(frozen=True)
class PageFile:
    """One file, as it is sent.

    Attributes:
        content: its bytes.
        packed: the same by gzip, if that is worth it.
        kind: its media type.
        tag: changes with the content.
    """

    content: bytes
    packed: bytes | None
    kind: str
    tag: str


class Page:
    """Files of a folder by the path that a browser asks for.

    Only such are served as have a type that belongs to a page; hidden ones are not.
    """

    def __init__(self, folder: Path = PAGE) -> None:
        self._files: dict[str, PageFile] = {}
        n_bytes = 0
        for path in sorted(folder.rglob("*")):
            inside = PurePosixPath(path.relative_to(folder).as_posix())
            kind = _TYPES.get(path.suffix)
            hidden = any(part.startswith((".", "_")) for part in inside.parts)
            if kind is None or hidden or path.is_symlink() or not path.is_file():
                continue
            content = path.read_bytes()
            n_bytes += len(content)
            if n_bytes > _MOST_BYTES:
                log.warning("page is too large", extra=fields(folder=folder, n_bytes=n_bytes))
                break
            self._files[f"/{inside}"] = _prepared(content, kind)

    @property
    def paths(self) -> list[str]:
        """What there is."""
        return list(self._files)

    def reply(self, request: Request, path: str) -> Response | None:
        """The file at a path, or that it has not changed; None if there is none."""
        file = self._files.get(path)
        if file is None:
            return None
        accepted = request.headers.get("accept-encoding", "")
        packed = file.packed if "gzip" in accepted.casefold() else None
        tag = f'"{file.tag}-gzip"' if packed is not None else f'"{file.tag}"'
        headers = {
            "etag": tag,
            # asked for each time, and answered by 304 as long as it is the same
            "cache-control": "no-cache",
            "vary": "Accept-Encoding",
        }
        known = {one.strip().removeprefix("W/") for one in _split(request, "if-none-match")}
        if tag in known or "*" in known:
            return Response(status_code=304, headers=headers)
        if packed is not None:
            headers["content-encoding"] = "gzip"
        return Response(packed or file.content, headers=headers, media_type=file.kind)


def _split(request: Request, name: str) -> list[str]:
    return request.headers.get(name, "").split(",")


def _prepared(content: bytes, kind: str) -> PageFile:
    packed: bytes | None = None
    if len(content) > _WORTH_BYTES and not kind.startswith(("image/png", "font/")):
        packed = gzip.compress(content, 9, mtime=0)
        if len(packed) > 0.9 * len(content):
            packed = None
    return PageFile(content, packed, kind, hashlib.sha256(content).hexdigest()[:20])
