"""Fetch a file over HTTP so that nothing is lost: resumed, checked, and whole or not there.

What has come so far is in NAME.part, and what the server said of its version in NAME.part.json;
a later try goes on from there if the server still has the same file (RFC 9110, Range, If-Range).
"""

import contextlib
import hashlib
import json
import os
import shutil
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from pathlib import Path
from typing import IO, Any

from assistantd.protocol import ErrorCode

CHUNK_BYTES = 1 << 18
TIMEOUT_S = 30.0
"""Silence of a server after which a try has failed."""
TRIES = 4
RETRY_WAIT_S = 1.0
PROGRESS_EVERY_S = 0.1

ProgressBytes = Callable[[int, int | None], None]


class StoreError(Exception):
    """A model cannot be fetched, found or removed; `code` is the protocol's."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code: ErrorCode = code


class CancelledError(StoreError):
    """The user gave up; what came so far is kept for the next try."""

    def __init__(self) -> None:
        super().__init__("bad_request", "the download was cancelled; pull again to go on")


class _DroppedError(Exception):
    """The connection was lost before the end: worth another try."""


class _KeepTokenAtHome(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but show an access token only to the host it is for."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        here, there = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if new is not None and (here.scheme, here.netloc) != (there.scheme, there.netloc):
            new.remove_header("Authorization")
        return new


def _opener() -> urllib.request.OpenerDirector:
    bundle = next(
        (
            os.environ[name]
            for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")
            if os.environ.get(name)
        ),
        None,
    )
    context = ssl.create_default_context(cafile=bundle)
    return urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=context), _KeepTokenAtHome()
    )


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_space(folder: Path, n_bytes: int) -> None:
    """Raise a StoreError unless the disk has room for n_bytes more."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise StoreError(
            "model_error",
            f"{folder} has {free / 1e6:.0f} MB free and {n_bytes / 1e6:.0f} MB are needed; "
            "make room, or set data_dir to another disk",
        )


def fetch(
    url: str,
    part: Path,
    *,
    token: str | None = None,
    progress: ProgressBytes,
    cancelled: Callable[[], bool],
) -> Mapping[str, str]:
    """Download url to `part`, going on where an earlier try stopped.

    Returns:
        The headers of the answer, names in lower case.

    Raises:
        CancelledError, StoreError: what has come is kept where going on makes sense.
    """
    if url.startswith("file://"):
        return _copy(Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path)), part)
    problem: Exception | None = None
    pause = threading.Event()
    for attempt in range(TRIES):
        if attempt:
            pause.wait(RETRY_WAIT_S * attempt)
        try:
            return _try(url, part, token, progress, cancelled)
        except _DroppedError as dropped:
            problem = dropped
    raise StoreError(
        "model_error", f"the download broke off {TRIES} times ({problem}); pull again to go on"
    )


def _copy(source: Path, part: Path) -> Mapping[str, str]:
    try:
        shutil.copyfile(source, part)
    except OSError as problem:
        raise StoreError("not_found", f"cannot read {source}: {problem.strerror}") from problem
    return {}


def _try(
    url: str,
    part: Path,
    token: str | None,
    progress: ProgressBytes,
    cancelled: Callable[[], bool],
) -> Mapping[str, str]:
    notes = part.with_name(part.name + ".json")
    have = part.stat().st_size if part.exists() else 0
    validator = _validator(notes, url) if have else None
    request = urllib.request.Request(url, headers={"User-Agent": "assistantd"})
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    if have and validator:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    try:
        answer = _opener().open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as refused:
        with refused:
            if refused.code == 416:  # nothing after what we have, or another file by now
                part.unlink(missing_ok=True)
                raise _DroppedError("the server has another file by now") from refused
            raise _refusal(url, refused.code) from refused
    except (urllib.error.URLError, OSError) as lost:
        reason = getattr(lost, "reason", lost)
        if have or isinstance(lost, TimeoutError):
            raise _DroppedError(str(reason)) from lost
        host = urllib.parse.urlsplit(url).netloc
        text = f"cannot reach {host}: {reason}; check the network and pull again"
        raise StoreError("model_error", text) from lost
    with answer:
        headers: Message = answer.headers
        if answer.status != 206:
            have = 0
        length = headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        if total is not None:
            require_space(part.parent, total - have)
        note = {"url": url, "validator": headers.get("ETag") or headers.get("Last-Modified")}
        notes.write_text(json.dumps(note))
        _receive(answer, part, have, total, progress, cancelled)
        return {name.lower(): value for name, value in headers.items()}


def _validator(notes: Path, url: str) -> str | None:
    try:
        note = json.loads(notes.read_text())
        value = note["validator"] if note["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no usable note: start over
    # a weak validator does not promise the same bytes
    return value if isinstance(value, str) and not value.startswith("W/") else None


def _receive(
    answer: IO[bytes],
    part: Path,
    have: int,
    total: int | None,
    progress: ProgressBytes,
    cancelled: Callable[[], bool],
) -> None:
    shown = 0.0
    try:
        with part.open("ab" if have else "wb") as file:
            while True:
                if cancelled():
                    raise CancelledError
                try:
                    chunk = answer.read(CHUNK_BYTES)
                except Exception as lost:  # http.client has no common base for what can go wrong
                    raise _DroppedError(str(lost) or type(lost).__name__) from lost
                if not chunk:
                    break
                file.write(chunk)
                have += len(chunk)
                if time.monotonic() - shown >= PROGRESS_EVERY_S:
                    shown = time.monotonic()
                    progress(have, total)
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        text = f"cannot write {part}: {problem.strerror}; make room and pull again"
        raise StoreError("model_error", text) from problem
    if total is not None and have < total:
        raise _DroppedError(f"{have} of {total} bytes came")
    progress(have, total)


def _refusal(url: str, status: int) -> StoreError:
    host = urllib.parse.urlsplit(url).netloc
    if status in (401, 403):
        return StoreError(
            "unauthorized",
            f"{host} refuses this file ({status}); accept its licence there if it has one, "
            "set HF_TOKEN to your access token for the daemon, and pull again",
        )
    if status == 404:
        return StoreError("not_found", f"{host} has no such file; check the name: {url}")
    return StoreError("model_error", f"{host} answered {status}; try again later")


def discard(part: Path) -> None:
    """Forget an unfinished download."""
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".json").unlink(missing_ok=True)


def sha256_of(path: Path, progress: ProgressBytes, cancelled: Callable[[], bool]) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest, done, total, shown = hashlib.sha256(), 0, path.stat().st_size, 0.0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            if cancelled():
                raise CancelledError
            digest.update(chunk)
            done += len(chunk)
            if time.monotonic() - shown >= PROGRESS_EVERY_S:
                shown = time.monotonic()
                progress(done, total)
    return digest.hexdigest()


@contextlib.contextmanager
def removed_on_error(path: Path):  # type: ignore[no-untyped-def]
    """Remove a half-written file if the block fails."""
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise
